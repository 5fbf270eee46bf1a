-- What exists before the base copy.
CREATE TABLE account (id int PRIMARY KEY, branch int, balance bigint, note text) WITH (fillfactor = 80);
INSERT INTO account SELECT i, i % 50, 0, repeat('x', i % 60) FROM generate_series(1, 20000) i;
CREATE INDEX account_branch ON account (branch);
CREATE TABLE parent (id int PRIMARY KEY, v int);
INSERT INTO parent SELECT i, 0 FROM generate_series(1, 200) i;
CREATE TABLE child (id bigserial PRIMARY KEY, parent int REFERENCES parent (id), v int);
CREATE TABLE upsert (k int PRIMARY KEY, n int, t text);
CREATE TABLE wide (id serial, a text, b text, c int);
CREATE SEQUENCE counter;
CREATE TABLE queue (id bigserial PRIMARY KEY, t text);
VACUUM (FREEZE) account;
-- index entries that scans found dead: hints that the base copy has and the WAL does not know of
CREATE TABLE killed (k int, t text) WITH (autovacuum_enabled = off);
CREATE INDEX killed_k ON killed (k);
INSERT INTO killed SELECT i, repeat('k', 50) FROM generate_series(1, 20000) i;
DELETE FROM killed WHERE k % 3 = 0;
SET enable_seqscan = off;
SET enable_bitmapscan = off;
SELECT count(t) FROM killed WHERE k > 0;
SELECT count(t) FROM killed WHERE k > 0;
-- a transaction of its own for every row, some of them undone
CREATE FUNCTION nested(first int, count int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN FOR i IN first..first + count LOOP
  BEGIN
    INSERT INTO queue (t) VALUES ('nested ' || i);
    IF i % 5 = 0 THEN RAISE EXCEPTION 'undone'; END IF;
  EXCEPTION WHEN raise_exception THEN NULL; END;
END LOOP; END $$;
