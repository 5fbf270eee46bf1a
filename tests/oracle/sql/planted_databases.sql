-- Databases both ways, gone and made again under the same number; SLRUs that are cut; sizes after truncation.
SET client_min_messages = error;
CREATE DATABASE model;
\connect model
CREATE TABLE kept (i int, t text) WITH (autovacuum_enabled = off);
INSERT INTO kept SELECT i, repeat('k', i % 100) FROM generate_series(1, 3000) i;
CREATE INDEX kept_i ON kept (i);
CREATE TABLE shorter (i int, t text) WITH (autovacuum_enabled = off);
INSERT INTO shorter SELECT i, repeat('s', 300) FROM generate_series(1, 2000) i;
DELETE FROM shorter WHERE ctid > '(10,0)';
VACUUM shorter;
VACUUM (FREEZE) kept;
-- pages that COPY has asked for and not filled are zeros
CREATE TABLE zeros (i int);
COPY zeros FROM PROGRAM 'seq 1 10000';
\connect postgres
-- the copy logs map pages without their bits, and pages of zeros as images
CREATE DATABASE logged TEMPLATE model STRATEGY wal_log OID = 70001;
\connect logged
DELETE FROM kept WHERE ctid = '(0,1)';
UPDATE kept SET t = 'u' WHERE ctid = '(1,1)';
INSERT INTO zeros SELECT generate_series(1, 100);
\connect postgres
CREATE DATABASE copied TEMPLATE model STRATEGY file_copy OID = 70002;
\connect copied
INSERT INTO kept SELECT i, repeat('longer', 20) FROM generate_series(1, 5000) i;
UPDATE shorter SET t = 'updated' WHERE i % 10 = 0;
VACUUM FULL pg_class;
\connect postgres
-- the same number again: what was longer before must not show through
DROP DATABASE copied;
CREATE DATABASE copied TEMPLATE model STRATEGY wal_log OID = 70002;
\connect copied
INSERT INTO kept SELECT i, 'second life' FROM generate_series(1, 500) i;
\connect postgres
CREATE DATABASE third TEMPLATE model STRATEGY wal_log OID = 70003;
\connect third
INSERT INTO kept SELECT i, repeat('longer', 20) FROM generate_series(1, 5000) i;
CREATE TABLE only_here (i int);
INSERT INTO only_here SELECT generate_series(1, 100);
\connect postgres
DROP DATABASE third;
CREATE DATABASE third TEMPLATE model STRATEGY file_copy OID = 70003;
\connect third
INSERT INTO kept SELECT i, 'second life' FROM generate_series(1, 500) i;
\connect postgres
CREATE TABLESPACE elsewhere LOCATION '';
CREATE DATABASE moving TEMPLATE model STRATEGY wal_log;
ALTER DATABASE moving SET TABLESPACE elsewhere;
\connect moving
INSERT INTO kept SELECT i, 'moved' FROM generate_series(1, 1000) i;
\connect postgres
-- a table that is cut and grows again; one that is dropped
CREATE TABLE cut (i int, t text);
CREATE INDEX cut_i ON cut (i);
INSERT INTO cut SELECT i, repeat('c', 400) FROM generate_series(1, 4000) i;
DELETE FROM cut WHERE ctid > '(30,0)';
VACUUM cut;
INSERT INTO cut SELECT i, 'again' FROM generate_series(1, 4000) i;
CREATE TABLE dropped (i int PRIMARY KEY, t text);
INSERT INTO dropped SELECT i, 'd' FROM generate_series(1, 2000) i;
VACUUM dropped;
DROP TABLE dropped;
BEGIN; CREATE TABLE never (i int PRIMARY KEY); INSERT INTO never SELECT generate_series(1, 500); ROLLBACK;
BEGIN; CREATE TABLE prepared (i int PRIMARY KEY); INSERT INTO prepared VALUES (1); PREPARE TRANSACTION 'made';
COMMIT PREPARED 'made';
BEGIN; DROP TABLE prepared; PREPARE TRANSACTION 'gone';
COMMIT PREPARED 'gone';
-- enough transactions for several pages of commit timestamps, and multixacts; then everything is frozen
CREATE TABLE many (i int PRIMARY KEY);
DO $$ BEGIN FOR i IN 1..30000 LOOP
  BEGIN INSERT INTO many VALUES (i); EXCEPTION WHEN division_by_zero THEN NULL; END;
END LOOP; END $$;
SELECT other_session('second'), other_session('third');
SELECT dblink_exec('second', 'BEGIN');
BEGIN;
DO $$ BEGIN FOR k IN 1..500 LOOP
  BEGIN PERFORM FROM many WHERE i = k FOR SHARE; EXCEPTION WHEN division_by_zero THEN NULL; END;
END LOOP; END $$;
SELECT * FROM dblink('second', 'SELECT count(*) FROM (SELECT * FROM many WHERE i <= 500 FOR SHARE) AS s') AS t(n int);
SELECT * FROM dblink('third', 'SELECT count(*) FROM (SELECT * FROM many WHERE i <= 500 FOR SHARE) AS s') AS t(n int);
COMMIT;
SELECT dblink_exec('second', 'COMMIT');
SELECT dblink_disconnect('second'), dblink_disconnect('third');
UPDATE pg_database SET datallowconn = true WHERE datname = 'template0';
\connect template0
VACUUM (FREEZE);
\connect template1
VACUUM (FREEZE);
\connect model
VACUUM (FREEZE);
\connect logged
VACUUM (FREEZE);
\connect copied
VACUUM (FREEZE);
\connect third
VACUUM (FREEZE);
\connect moving
VACUUM (FREEZE);
\connect postgres
VACUUM (FREEZE);
