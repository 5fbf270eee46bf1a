-- With full-page images and without logged hints: what images hide and what they hold.
SET client_min_messages = error;
-- a page is imaged while a speculative insertion on it is not yet confirmed: the index asks for a key, and meanwhile
-- comes a checkpoint and another row
SELECT other_session('checkpoints');
CREATE SEQUENCE token_numbers START 1000;
CREATE TABLE tokens (k int);
CREATE FUNCTION meanwhile() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
  PERFORM dblink_exec('checkpoints', 'CHECKPOINT');
  INSERT INTO tokens VALUES (nextval('token_numbers'));
END $$;
CREATE FUNCTION slow_key(k int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN
  IF k = 1 THEN PERFORM meanwhile(); END IF;
  RETURN k;
END $$;
CREATE UNIQUE INDEX tokens_k ON tokens (slow_key(k));
INSERT INTO tokens VALUES (2), (3);
INSERT INTO tokens VALUES (1) ON CONFLICT DO NOTHING;
SELECT dblink_disconnect('checkpoints');
-- the table ends in the middle of a byte of its map
CREATE TABLE cut_visible (i int, t text) WITH (fillfactor = 10, autovacuum_enabled = off);
ALTER TABLE cut_visible ALTER t SET STORAGE plain;
INSERT INTO cut_visible SELECT i, repeat('c', 900) FROM generate_series(1, 200) i;
DELETE FROM cut_visible WHERE i > 101;
VACUUM cut_visible;
-- pages that compress: long matches, far away
CREATE TABLE images (i int, t text);
INSERT INTO images SELECT i, md5((i / 10)::text) || repeat('i', 300) || md5(i::text) FROM generate_series(1, 2000) i;
CHECKPOINT;
UPDATE images SET i = -i WHERE i % 15 = 0;
CHECKPOINT;
SET wal_compression = 'off';
DELETE FROM images WHERE i % 16 = 0;
CHECKPOINT;
SET wal_compression = 'zstd';
UPDATE images SET t = 'short' WHERE i % 17 = 0;
CHECKPOINT;
SET wal_compression = 'lz4';
VACUUM images;
-- with wal_level logical the end of a prepared transaction names it
BEGIN; INSERT INTO images VALUES (0, 'prepared'); PREPARE TRANSACTION 'with a name';
COMMIT PREPARED 'with a name';
-- pages that COPY has asked for and not filled are zeros, and are logged as such; map pages are logged without their bits
CREATE DATABASE model;
\connect model
CREATE TABLE zeros (i int);
COPY zeros FROM PROGRAM 'seq 1 10000';
CREATE TABLE kept (i int, t text) WITH (autovacuum_enabled = off);
INSERT INTO kept SELECT i, repeat('k', 500) FROM generate_series(1, 100) i;
VACUUM (FREEZE) kept;
\connect postgres
CREATE DATABASE logged TEMPLATE model STRATEGY wal_log;
\connect logged
DELETE FROM kept WHERE ctid = '(0,1)';
UPDATE kept SET t = 'u' WHERE ctid = '(1,1)';
