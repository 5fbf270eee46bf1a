-- Index methods: states that nothing overwrites, rare paths, and states that pass (seen by consistency checks).
SET client_min_messages = error;
-- hash: dead tuples of the base make room
INSERT INTO killed_hash SELECT i % 2, i FROM generate_series(1, 600) i;
-- hash: the only overflow page becomes empty, the bucket itself does not change
CREATE TABLE one_overflow (n int, h int) WITH (autovacuum_enabled = off);
CREATE INDEX one_overflow_h ON one_overflow USING hash (h);
INSERT INTO one_overflow SELECT i, 7 FROM generate_series(1, 450) i;
DELETE FROM one_overflow WHERE n > 400;
VACUUM one_overflow;
-- hash: an index that never grows
CREATE TABLE never_grows (h int);
CREATE INDEX never_grows_h ON never_grows USING hash (h);
-- hash: an index that begins with more than 512 buckets
CREATE TABLE many_buckets AS SELECT i AS h FROM generate_series(1, 200000) i;
CREATE INDEX many_buckets_h ON many_buckets USING hash (h);
-- SP-GiST: more NULLs than a page holds
CREATE TABLE nulls_only (p point);
CREATE INDEX nulls_only_p ON nulls_only USING spgist (p);
INSERT INTO nulls_only SELECT NULL FROM generate_series(1, 2000) i;
-- GIN: one row that makes several pending pages
CREATE TABLE pending (w int[]);
CREATE INDEX pending_gin ON pending USING gin (w) WITH (fastupdate = on, gin_pending_list_limit = 4096);
INSERT INTO pending SELECT array_agg(i) FROM generate_series(1, 3000) i;
-- GIN: TIDs of one page that are 128 apart, where a byte of a distance is just full
CREATE TABLE apart (w int[]);
CREATE INDEX apart_gin ON apart USING gin (w) WITH (fastupdate = off);
INSERT INTO apart SELECT ARRAY[CASE WHEN i % 157 < 20 OR i % 157 = 147 THEN 1 ELSE 2 END] FROM generate_series(1, 60000) i;
-- SP-GiST: leaf tuples with a null bitmap, in chains
CREATE TABLE with_nulls (p point, n int);
CREATE INDEX with_nulls_p ON with_nulls USING spgist (p) INCLUDE (n);
DO $$ BEGIN FOR i IN 1..400 LOOP
  INSERT INTO with_nulls VALUES (point(i % 20, i / 20), CASE WHEN i % 2 = 0 THEN i END); COMMIT;
END LOOP; END $$;
-- BRIN: summaries that grow, move to another page, go
CREATE TABLE ranges (t text, n int);
CREATE INDEX ranges_t ON ranges USING brin (t) WITH (pages_per_range = 1);
INSERT INTO ranges SELECT 'short ' || i, i FROM generate_series(1, 20000) i;
SELECT brin_summarize_new_values('ranges_t');
UPDATE ranges SET t = repeat('longer ', 100) || n WHERE n % 97 = 0;
SELECT brin_desummarize_range('ranges_t', 2);
-- BRIN: more ranges than a page of the map holds
CREATE TABLE many_ranges (n int, t text) WITH (fillfactor = 10, autovacuum_enabled = off);
ALTER TABLE many_ranges ALTER t SET STORAGE plain;
CREATE INDEX many_ranges_n ON many_ranges USING brin (n) WITH (pages_per_range = 1);
INSERT INTO many_ranges SELECT i, repeat('r', 900) FROM generate_series(1, 1500) i;
SELECT brin_summarize_new_values('many_ranges_n');
-- bloom (generic WAL): pages that lose tuples
CREATE TABLE bloomed (a int, b int);
CREATE INDEX bloomed_ab ON bloomed USING bloom (a, b);
INSERT INTO bloomed SELECT i, i FROM generate_series(1, 3000) i;
DELETE FROM bloomed WHERE a % 2 = 0;
VACUUM bloomed;
-- GiST: dead tuples of the base make room
INSERT INTO killed_gist SELECT point(i % 3, i % 100) FROM generate_series(1, 900) i;
-- states that pass
SET wal_consistency_checking = 'all';
CREATE TABLE passing (id int, words int[], p point, t text, h int);
CREATE INDEX passing_gin ON passing USING gin (words) WITH (fastupdate = off);
CREATE INDEX passing_gist ON passing USING gist (p);
CREATE INDEX passing_quad ON passing USING spgist (p);
CREATE INDEX passing_text ON passing USING spgist (t);
CREATE INDEX passing_brin ON passing USING brin (id);
CREATE INDEX passing_hash ON passing USING hash (h);
INSERT INTO passing SELECT i, ARRAY[i % 5, i], point(i % 37, i / 37),
  CASE WHEN i % 3 = 0 THEN repeat('shared prefix ', 3) || i ELSE substr(md5(i::text), 1, i % 30) END, i
  FROM generate_series(1, 1500) i;
DELETE FROM passing WHERE id % 3 = 1 OR id < 400;
VACUUM passing;
INSERT INTO passing SELECT i, ARRAY[i % 5, i], point(i % 37, i / 37), chr(97 + i % 26) || i, i % 3
  FROM generate_series(1, 700) i;
RESET wal_consistency_checking;
