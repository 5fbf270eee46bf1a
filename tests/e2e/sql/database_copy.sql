CREATE TABLE kept AS SELECT g AS i, repeat('k', 300) AS pad FROM generate_series(1, 5000) g;
CREATE INDEX kept_i ON kept (i);
CREATE UNLOGGED TABLE loose AS SELECT g AS i FROM generate_series(1, 1000) g;
SELECT current_database() AS source \gset
\c template1
CREATE DATABASE by_wal TEMPLATE :"source" STRATEGY wal_log;
CREATE DATABASE by_file TEMPLATE :"source" STRATEGY file_copy;
\c by_file
SELECT 'file copy', count(*), sum(i) FROM kept;
SET enable_seqscan = off;
SELECT 'file copy', i FROM kept WHERE i = 4999;
RESET enable_seqscan;
UPDATE kept SET i = i + 10000 WHERE i <= 100;
CREATE TABLE new_here AS SELECT g AS i FROM generate_series(1, 1000) g;
SELECT 'changed', count(*), sum(i) FROM kept;
\c by_wal
SELECT 'wal copy', count(*), sum(i) FROM kept;
SELECT 'unlogged', count(*) FROM loose;
\c :source
SELECT 'source', count(*), sum(i) FROM kept;
DROP DATABASE by_file;
DROP DATABASE by_wal;
CREATE DATABASE by_file TEMPLATE template0 STRATEGY file_copy;
\c by_file
SELECT 'again', count(*) FROM pg_class WHERE relname = 'kept';
\c :source
DROP DATABASE by_file;
SELECT 'source', count(*), sum(i) FROM kept;
