-- What only wal_level = logical logs: command ids, mappings of rewritten catalogs, truncation, invalidations.
SET client_min_messages = error;
SELECT pg_create_logical_replication_slot('kept', 'test_decoding');
DO $$ BEGIN FOR i IN 1..15 LOOP
  EXECUTE format('CREATE TABLE truncated_%s (i serial PRIMARY KEY, t text DEFAULT md5(random()::text))', i);
  EXECUTE format('INSERT INTO truncated_%s (i) SELECT generate_series(1, 300)', i);
  EXECUTE format('ALTER TABLE truncated_%s ADD COLUMN added int DEFAULT 7', i);
  COMMIT;
  EXECUTE format('TRUNCATE truncated_%s', i);
  EXECUTE format('INSERT INTO truncated_%s (i) SELECT generate_series(1, 50)', i);
  COMMIT;
END LOOP; END $$;
-- rows of catalogs that the slot still needs move: their mappings are logged
INSERT INTO user_catalog SELECT i, 'c' FROM generate_series(1, 500) i;
UPDATE user_catalog SET t = 'changed' WHERE id % 2 = 0;
VACUUM FULL user_catalog;
VACUUM FULL pg_class;
CREATE TABLE made_meanwhile (i int);
VACUUM FULL pg_attribute;
DROP TABLE made_meanwhile;
CREATE TABLE made_meanwhile (i int PRIMARY KEY, t text);
VACUUM FULL pg_class;
VACUUM FULL pg_type;
VACUUM FULL pg_depend;
UPDATE user_catalog SET t = t || '!' WHERE id < 100;
CLUSTER user_catalog USING user_catalog_pkey;
ALTER TABLE made_meanwhile ADD COLUMN u int;
VACUUM FULL pg_attribute;
VACUUM FULL pg_index;
VACUUM FULL pg_constraint;
ANALYZE;
VACUUM FULL pg_statistic;
INSERT INTO user_catalog SELECT i, 'c' FROM generate_series(1001, 1500) i;
VACUUM FULL user_catalog;
-- the whole old row
INSERT INTO whole_rows SELECT i, repeat('w', i % 900) FROM generate_series(1, 3000) i;
UPDATE whole_rows SET t = t || 'x' WHERE id % 3 = 0;
DELETE FROM whole_rows WHERE id % 5 = 0;
-- DDL in subtransactions
DO $$ BEGIN FOR i IN 1..30 LOOP
  BEGIN
    EXECUTE format('CREATE TABLE sub_%s (i int)', i); EXECUTE format('CREATE INDEX ON sub_%s (i)', i);
    IF i % 3 = 0 THEN RAISE EXCEPTION 'undone'; END IF;
  EXCEPTION WHEN raise_exception THEN NULL; END;
END LOOP; END $$;
-- origins: set, advanced, dropped; messages
DO $$ BEGIN FOR i IN 1..15 LOOP
  PERFORM pg_replication_origin_create('origin_' || i);
  PERFORM pg_replication_origin_advance('origin_' || i, ('0/' || to_hex(i * 4096))::pg_lsn);
  PERFORM pg_logical_emit_message(i % 2 = 0, 'prefix ' || i, repeat('message', i * 100));
  COMMIT;
  IF i > 1 THEN PERFORM pg_replication_origin_drop('origin_' || i); COMMIT; END IF;
END LOOP; END $$;
SELECT pg_replication_origin_session_setup('origin_1');
BEGIN; INSERT INTO whole_rows VALUES (-1, 'from elsewhere'); SELECT pg_replication_origin_xact_setup('0/AABBCCDD', '2020-01-01'); COMMIT;
BEGIN; INSERT INTO whole_rows VALUES (-2, 'prepared elsewhere'); SELECT pg_replication_origin_xact_setup('0/AABBCCEE', '2020-01-01'); PREPARE TRANSACTION 'elsewhere';
COMMIT PREPARED 'elsewhere';
SELECT pg_replication_origin_session_reset();
SELECT count(*) FROM pg_logical_slot_get_changes('kept', NULL, NULL);
SELECT pg_drop_replication_slot('kept');
SELECT pg_create_logical_replication_slot('stays', 'test_decoding');
