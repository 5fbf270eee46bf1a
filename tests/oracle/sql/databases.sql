-- Databases by both strategies, tablespaces in place, relation maps, relations that shrink and come again.
SET client_min_messages = error;
CREATE TABLESPACE space_1 LOCATION '';
CREATE TABLESPACE space_2 LOCATION '';
CREATE TABLESPACE space_3 LOCATION '';
CREATE TABLESPACE space_4 LOCATION '';
CREATE TABLESPACE space_5 LOCATION '';
CREATE TABLESPACE space_6 LOCATION '';
CREATE TABLESPACE space_7 LOCATION '';
CREATE TABLESPACE space_8 LOCATION '';
CREATE TABLESPACE space_9 LOCATION '';
CREATE TABLESPACE space_10 LOCATION '';
CREATE TABLESPACE space_11 LOCATION '';
CREATE TABLESPACE space_12 LOCATION '';
CREATE DATABASE source;
\connect source
CREATE TABLE kept (i int PRIMARY KEY, t text);
INSERT INTO kept SELECT i, repeat('k', i % 100) FROM generate_series(1, 5000) i;
CREATE UNLOGGED TABLE unlogged (i int PRIMARY KEY);
INSERT INTO unlogged SELECT generate_series(1, 500);
DELETE FROM kept WHERE i % 3 = 0;
VACUUM (FREEZE) kept;
VACUUM FULL pg_class;
VACUUM FULL pg_proc;
\connect postgres
CREATE DATABASE copied_1 TEMPLATE source STRATEGY file_copy;
CREATE DATABASE logged_1 TEMPLATE source STRATEGY wal_log;
\connect copied_1
UPDATE kept SET t = t || 'copied' WHERE i % 2 = 0; VACUUM kept; VACUUM FULL pg_class;
\connect logged_1
DELETE FROM kept WHERE i % 2 = 0; VACUUM kept; VACUUM FULL pg_attribute; VACUUM FULL pg_type;
\connect postgres
ALTER DATABASE copied_1 SET TABLESPACE space_1;
DROP DATABASE logged_1;
CREATE DATABASE copied_2 TEMPLATE source STRATEGY file_copy;
CREATE DATABASE logged_2 TEMPLATE source STRATEGY wal_log;
\connect copied_2
UPDATE kept SET t = t || 'copied' WHERE i % 3 = 0; VACUUM kept; VACUUM FULL pg_class;
\connect logged_2
DELETE FROM kept WHERE i % 3 = 0; VACUUM kept; VACUUM FULL pg_attribute; VACUUM FULL pg_type;
\connect postgres
DROP DATABASE copied_2;
CREATE DATABASE copied_3 TEMPLATE source STRATEGY file_copy TABLESPACE space_3;
CREATE DATABASE logged_3 TEMPLATE source STRATEGY wal_log;
\connect copied_3
UPDATE kept SET t = t || 'copied' WHERE i % 4 = 0; VACUUM kept; VACUUM FULL pg_class;
\connect logged_3
DELETE FROM kept WHERE i % 4 = 0; VACUUM kept; VACUUM FULL pg_attribute; VACUUM FULL pg_type;
\connect postgres
DROP DATABASE logged_3;
CREATE DATABASE copied_4 TEMPLATE source STRATEGY file_copy;
CREATE DATABASE logged_4 TEMPLATE source STRATEGY wal_log TABLESPACE space_4;
\connect copied_4
UPDATE kept SET t = t || 'copied' WHERE i % 5 = 0; VACUUM kept; VACUUM FULL pg_class;
\connect logged_4
DELETE FROM kept WHERE i % 5 = 0; VACUUM kept; VACUUM FULL pg_attribute; VACUUM FULL pg_type;
\connect postgres
ALTER DATABASE copied_4 SET TABLESPACE space_4;
DROP DATABASE logged_4;
DROP DATABASE copied_4;
CREATE DATABASE copied_5 TEMPLATE source STRATEGY file_copy;
CREATE DATABASE logged_5 TEMPLATE source STRATEGY wal_log;
\connect copied_5
UPDATE kept SET t = t || 'copied' WHERE i % 6 = 0; VACUUM kept; VACUUM FULL pg_class;
\connect logged_5
DELETE FROM kept WHERE i % 6 = 0; VACUUM kept; VACUUM FULL pg_attribute; VACUUM FULL pg_type;
\connect postgres
CREATE DATABASE copied_6 TEMPLATE source STRATEGY file_copy TABLESPACE space_6;
CREATE DATABASE logged_6 TEMPLATE source STRATEGY wal_log;
\connect copied_6
UPDATE kept SET t = t || 'copied' WHERE i % 7 = 0; VACUUM kept; VACUUM FULL pg_class;
\connect logged_6
DELETE FROM kept WHERE i % 7 = 0; VACUUM kept; VACUUM FULL pg_attribute; VACUUM FULL pg_type;
\connect postgres
DROP DATABASE logged_6;
DROP DATABASE copied_6;
CREATE DATABASE copied_7 TEMPLATE source STRATEGY file_copy;
CREATE DATABASE logged_7 TEMPLATE source STRATEGY wal_log;
\connect copied_7
UPDATE kept SET t = t || 'copied' WHERE i % 8 = 0; VACUUM kept; VACUUM FULL pg_class;
\connect logged_7
DELETE FROM kept WHERE i % 8 = 0; VACUUM kept; VACUUM FULL pg_attribute; VACUUM FULL pg_type;
\connect postgres
ALTER DATABASE copied_7 SET TABLESPACE space_7;
DROP DATABASE logged_7;
CREATE DATABASE copied_8 TEMPLATE source STRATEGY file_copy;
CREATE DATABASE logged_8 TEMPLATE source STRATEGY wal_log TABLESPACE space_8;
\connect copied_8
UPDATE kept SET t = t || 'copied' WHERE i % 9 = 0; VACUUM kept; VACUUM FULL pg_class;
\connect logged_8
DELETE FROM kept WHERE i % 9 = 0; VACUUM kept; VACUUM FULL pg_attribute; VACUUM FULL pg_type;
\connect postgres
DROP DATABASE copied_8;
CREATE DATABASE copied_9 TEMPLATE source STRATEGY file_copy TABLESPACE space_9;
CREATE DATABASE logged_9 TEMPLATE source STRATEGY wal_log;
\connect copied_9
UPDATE kept SET t = t || 'copied' WHERE i % 10 = 0; VACUUM kept; VACUUM FULL pg_class;
\connect logged_9
DELETE FROM kept WHERE i % 10 = 0; VACUUM kept; VACUUM FULL pg_attribute; VACUUM FULL pg_type;
\connect postgres
DROP DATABASE logged_9;
CREATE DATABASE copied_10 TEMPLATE source STRATEGY file_copy;
CREATE DATABASE logged_10 TEMPLATE source STRATEGY wal_log;
\connect copied_10
UPDATE kept SET t = t || 'copied' WHERE i % 11 = 0; VACUUM kept; VACUUM FULL pg_class;
\connect logged_10
DELETE FROM kept WHERE i % 11 = 0; VACUUM kept; VACUUM FULL pg_attribute; VACUUM FULL pg_type;
\connect postgres
ALTER DATABASE copied_10 SET TABLESPACE space_10;
DROP DATABASE logged_10;
DROP DATABASE copied_10;
CREATE DATABASE copied_11 TEMPLATE source STRATEGY file_copy;
CREATE DATABASE logged_11 TEMPLATE source STRATEGY wal_log;
\connect copied_11
UPDATE kept SET t = t || 'copied' WHERE i % 12 = 0; VACUUM kept; VACUUM FULL pg_class;
\connect logged_11
DELETE FROM kept WHERE i % 12 = 0; VACUUM kept; VACUUM FULL pg_attribute; VACUUM FULL pg_type;
\connect postgres
CREATE DATABASE copied_12 TEMPLATE source STRATEGY file_copy TABLESPACE space_12;
CREATE DATABASE logged_12 TEMPLATE source STRATEGY wal_log TABLESPACE space_12;
\connect copied_12
UPDATE kept SET t = t || 'copied' WHERE i % 13 = 0; VACUUM kept; VACUUM FULL pg_class;
\connect logged_12
DELETE FROM kept WHERE i % 13 = 0; VACUUM kept; VACUUM FULL pg_attribute; VACUUM FULL pg_type;
\connect postgres
DROP DATABASE logged_12;
DROP DATABASE copied_12;
VACUUM FULL pg_database;
VACUUM FULL pg_authid;
VACUUM FULL pg_shdepend;
-- tablespaces: tables that move, partitions, drops
CREATE TABLE in_space_1 (i int PRIMARY KEY, t text) TABLESPACE space_1;
INSERT INTO in_space_1 SELECT i, repeat('s', 50) FROM generate_series(1, 2000) i;
ALTER TABLE in_space_1 SET TABLESPACE pg_default;
DELETE FROM in_space_1 WHERE i > 100;
VACUUM in_space_1;
INSERT INTO in_space_1 SELECT i, 'again' FROM generate_series(3000, 6000) i;
CREATE TABLE in_space_2 (i int PRIMARY KEY, t text) TABLESPACE space_2;
INSERT INTO in_space_2 SELECT i, repeat('s', 50) FROM generate_series(1, 2000) i;
ALTER TABLE in_space_2 SET TABLESPACE space_3;
DELETE FROM in_space_2 WHERE i > 200;
VACUUM in_space_2;
INSERT INTO in_space_2 SELECT i, 'again' FROM generate_series(3000, 6000) i;
CREATE TABLE in_space_3 (i int PRIMARY KEY, t text) TABLESPACE space_3;
INSERT INTO in_space_3 SELECT i, repeat('s', 50) FROM generate_series(1, 2000) i;
ALTER TABLE in_space_3 SET TABLESPACE pg_default;
DELETE FROM in_space_3 WHERE i > 300;
VACUUM in_space_3;
INSERT INTO in_space_3 SELECT i, 'again' FROM generate_series(3000, 6000) i;
CREATE TABLE in_space_4 (i int PRIMARY KEY, t text) TABLESPACE space_4;
INSERT INTO in_space_4 SELECT i, repeat('s', 50) FROM generate_series(1, 2000) i;
ALTER TABLE in_space_4 SET TABLESPACE space_5;
DELETE FROM in_space_4 WHERE i > 400;
VACUUM in_space_4;
INSERT INTO in_space_4 SELECT i, 'again' FROM generate_series(3000, 6000) i;
CREATE TABLE in_space_5 (i int PRIMARY KEY, t text) TABLESPACE space_5;
INSERT INTO in_space_5 SELECT i, repeat('s', 50) FROM generate_series(1, 2000) i;
ALTER TABLE in_space_5 SET TABLESPACE pg_default;
DELETE FROM in_space_5 WHERE i > 500;
VACUUM in_space_5;
INSERT INTO in_space_5 SELECT i, 'again' FROM generate_series(3000, 6000) i;
CREATE TABLE in_space_6 (i int PRIMARY KEY, t text) TABLESPACE space_6;
INSERT INTO in_space_6 SELECT i, repeat('s', 50) FROM generate_series(1, 2000) i;
ALTER TABLE in_space_6 SET TABLESPACE space_7;
DELETE FROM in_space_6 WHERE i > 600;
VACUUM in_space_6;
INSERT INTO in_space_6 SELECT i, 'again' FROM generate_series(3000, 6000) i;
CREATE TABLE in_space_7 (i int PRIMARY KEY, t text) TABLESPACE space_7;
INSERT INTO in_space_7 SELECT i, repeat('s', 50) FROM generate_series(1, 2000) i;
ALTER TABLE in_space_7 SET TABLESPACE pg_default;
DELETE FROM in_space_7 WHERE i > 700;
VACUUM in_space_7;
INSERT INTO in_space_7 SELECT i, 'again' FROM generate_series(3000, 6000) i;
CREATE TABLE in_space_8 (i int PRIMARY KEY, t text) TABLESPACE space_8;
INSERT INTO in_space_8 SELECT i, repeat('s', 50) FROM generate_series(1, 2000) i;
ALTER TABLE in_space_8 SET TABLESPACE space_9;
DELETE FROM in_space_8 WHERE i > 800;
VACUUM in_space_8;
INSERT INTO in_space_8 SELECT i, 'again' FROM generate_series(3000, 6000) i;
CREATE TABLE in_space_9 (i int PRIMARY KEY, t text) TABLESPACE space_9;
INSERT INTO in_space_9 SELECT i, repeat('s', 50) FROM generate_series(1, 2000) i;
ALTER TABLE in_space_9 SET TABLESPACE pg_default;
DELETE FROM in_space_9 WHERE i > 900;
VACUUM in_space_9;
INSERT INTO in_space_9 SELECT i, 'again' FROM generate_series(3000, 6000) i;
CREATE TABLE in_space_10 (i int PRIMARY KEY, t text) TABLESPACE space_10;
INSERT INTO in_space_10 SELECT i, repeat('s', 50) FROM generate_series(1, 2000) i;
ALTER TABLE in_space_10 SET TABLESPACE space_11;
DELETE FROM in_space_10 WHERE i > 1000;
VACUUM in_space_10;
INSERT INTO in_space_10 SELECT i, 'again' FROM generate_series(3000, 6000) i;
CREATE TABLE in_space_11 (i int PRIMARY KEY, t text) TABLESPACE space_11;
INSERT INTO in_space_11 SELECT i, repeat('s', 50) FROM generate_series(1, 2000) i;
ALTER TABLE in_space_11 SET TABLESPACE pg_default;
DELETE FROM in_space_11 WHERE i > 1100;
VACUUM in_space_11;
INSERT INTO in_space_11 SELECT i, 'again' FROM generate_series(3000, 6000) i;
CREATE TABLE in_space_12 (i int PRIMARY KEY, t text) TABLESPACE space_12;
INSERT INTO in_space_12 SELECT i, repeat('s', 50) FROM generate_series(1, 2000) i;
ALTER TABLE in_space_12 SET TABLESPACE space_1;
DELETE FROM in_space_12 WHERE i > 1200;
VACUUM in_space_12;
INSERT INTO in_space_12 SELECT i, 'again' FROM generate_series(3000, 6000) i;
DROP TABLE in_space_1;
DROP TABLE in_space_2;
DROP TABLE in_space_3;
DROP TABLE in_space_5;
DROP TABLE in_space_6;
DROP TABLE in_space_7;
DROP TABLE in_space_9;
DROP TABLE in_space_10;
DROP TABLE in_space_11;
DROP TABLESPACE space_1; -- fails where something is left
DROP TABLESPACE space_2; -- fails where something is left
DROP TABLESPACE space_3; -- fails where something is left
DROP TABLESPACE space_4; -- fails where something is left
DROP TABLESPACE space_5; -- fails where something is left
DROP TABLESPACE space_6; -- fails where something is left
DROP TABLESPACE space_7; -- fails where something is left
DROP TABLESPACE space_8; -- fails where something is left
DROP TABLESPACE space_9; -- fails where something is left
DROP TABLESPACE space_10; -- fails where something is left
DROP TABLESPACE space_11; -- fails where something is left
DROP TABLESPACE space_12; -- fails where something is left
CREATE TABLESPACE again_1 LOCATION ''; DROP TABLESPACE again_1;
CREATE TABLESPACE again_2 LOCATION ''; DROP TABLESPACE again_2;
CREATE TABLESPACE again_3 LOCATION ''; DROP TABLESPACE again_3;
CREATE TABLESPACE again_4 LOCATION ''; DROP TABLESPACE again_4;
CREATE TABLESPACE again_5 LOCATION ''; DROP TABLESPACE again_5;
CREATE TABLESPACE again_6 LOCATION ''; DROP TABLESPACE again_6;
CREATE TABLESPACE again_7 LOCATION ''; DROP TABLESPACE again_7;
CREATE TABLESPACE again_8 LOCATION ''; DROP TABLESPACE again_8;
CREATE TABLESPACE again_9 LOCATION ''; DROP TABLESPACE again_9;
CREATE TABLESPACE again_10 LOCATION ''; DROP TABLESPACE again_10;
CREATE TABLESPACE again_11 LOCATION ''; DROP TABLESPACE again_11;
-- truncated in the transaction that made it, emptied and filled, dropped and made anew under one name
DO $$ BEGIN FOR i IN 1..30 LOOP
  CREATE TABLE reborn (i int PRIMARY KEY, t text);
  INSERT INTO reborn SELECT j, repeat('r', j % 300) FROM generate_series(1, 500 + i * 20) j; TRUNCATE reborn;
  INSERT INTO reborn SELECT j, 'r' FROM generate_series(1, 3000) j;
  COMMIT; TRUNCATE reborn; INSERT INTO reborn SELECT j, 'third' FROM generate_series(1, 700) j; COMMIT;
  IF i % 2 = 0 THEN ALTER TABLE reborn SET UNLOGGED; ALTER TABLE reborn SET LOGGED; COMMIT; END IF;
  DROP TABLE reborn; COMMIT;
END LOOP; END $$;
CREATE TABLE shrinks (i int, t text);
INSERT INTO shrinks SELECT j, repeat('s', 400) FROM generate_series(1, 4000) j;
DELETE FROM shrinks WHERE ctid > '(10,0)'; VACUUM shrinks;
INSERT INTO shrinks SELECT j, repeat('s', 400) FROM generate_series(1, 4500) j;
DELETE FROM shrinks WHERE ctid > '(17,0)'; VACUUM shrinks;
INSERT INTO shrinks SELECT j, repeat('s', 400) FROM generate_series(1, 5000) j;
DELETE FROM shrinks WHERE ctid > '(24,0)'; VACUUM shrinks;
INSERT INTO shrinks SELECT j, repeat('s', 400) FROM generate_series(1, 5500) j;
DELETE FROM shrinks WHERE ctid > '(31,0)'; VACUUM shrinks;
INSERT INTO shrinks SELECT j, repeat('s', 400) FROM generate_series(1, 6000) j;
DELETE FROM shrinks WHERE ctid > '(38,0)'; VACUUM shrinks;
INSERT INTO shrinks SELECT j, repeat('s', 400) FROM generate_series(1, 6500) j;
DELETE FROM shrinks WHERE ctid > '(45,0)'; VACUUM shrinks;
INSERT INTO shrinks SELECT j, repeat('s', 400) FROM generate_series(1, 7000) j;
DELETE FROM shrinks WHERE ctid > '(52,0)'; VACUUM shrinks;
INSERT INTO shrinks SELECT j, repeat('s', 400) FROM generate_series(1, 7500) j;
DELETE FROM shrinks WHERE ctid > '(59,0)'; VACUUM shrinks;
