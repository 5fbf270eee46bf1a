-- Transactions: subtransactions on several CLOG pages, prepared ones, many xids.
SET client_min_messages = error;
CREATE TABLE sub (i int);
DO $$ BEGIN FOR i IN 1..40000 LOOP
  BEGIN INSERT INTO sub VALUES (i); IF i % 3 = 0 THEN RAISE EXCEPTION 'x'; END IF; EXCEPTION WHEN OTHERS THEN NULL; END;
END LOOP; END $$;
BEGIN; DO $$ BEGIN FOR i IN 1..2000 LOOP
  BEGIN INSERT INTO sub VALUES (i); EXCEPTION WHEN division_by_zero THEN NULL; END;
END LOOP; END $$; ROLLBACK;
BEGIN; INSERT INTO sub VALUES (-1); SAVEPOINT a; INSERT INTO sub VALUES (-2); PREPARE TRANSACTION 'first';
BEGIN; INSERT INTO sub VALUES (-3); SAVEPOINT a; INSERT INTO sub VALUES (-4); PREPARE TRANSACTION 'second';
BEGIN; CREATE TABLE made_by_prepared (i int); PREPARE TRANSACTION 'third';
SELECT txid_current();
COMMIT PREPARED 'first';
ROLLBACK PREPARED 'second';
COMMIT PREPARED 'third';
VACUUM (FREEZE) sub;
SELECT pg_replication_origin_create('elsewhere');
SELECT pg_replication_origin_session_setup('elsewhere');
BEGIN; INSERT INTO sub VALUES (5); SELECT pg_replication_origin_xact_setup('0/AABBCCDD', '2020-01-01'); COMMIT;
SELECT pg_replication_origin_session_reset();
SELECT pg_logical_emit_message(true, 'prefix', 'message');
SELECT pg_logical_emit_message(false, 'prefix', 'message');
CREATE TABLESPACE in_place LOCATION '';
CREATE TABLE elsewhere (i int PRIMARY KEY) TABLESPACE in_place;
INSERT INTO elsewhere SELECT generate_series(1, 1000);
CREATE DATABASE other STRATEGY wal_log;
BEGIN; INSERT INTO sub VALUES (-7); PREPARE TRANSACTION 'stays';
