-- Every kind of heap record, and the visibility map at work.
SET client_min_messages = error;
CREATE TABLE plain (id int, t text);
INSERT INTO plain SELECT i, repeat(chr(97 + i % 26), i % 300) FROM generate_series(1, 5000) i;
VACUUM plain;
UPDATE plain SET t = t || '!' WHERE id % 7 = 0;
DELETE FROM plain WHERE id % 5 = 0;
VACUUM (FREEZE) plain;
SELECT count(*) FROM plain WHERE id < 100 FOR UPDATE;
BEGIN; SELECT * FROM plain WHERE id < 300 FOR UPDATE; COMMIT;
UPDATE plain SET id = id + 1 WHERE id % 11 = 0;
VACUUM plain;
-- truncation at the end of the table, in the middle of a map page
DELETE FROM plain WHERE ctid > '(40,0)';
VACUUM plain;
INSERT INTO plain SELECT i, 'again' FROM generate_series(1, 3000) i;
VACUUM (FREEZE) plain;

-- one heap page per row: map bits on many bytes
CREATE TABLE sparse (id int, t text) WITH (fillfactor = 10);
INSERT INTO sparse SELECT i, repeat('s', 900) FROM generate_series(1, 3000) i;
VACUUM sparse;
UPDATE sparse SET id = -id WHERE id % 3 = 0;
VACUUM (FREEZE) sparse;
DELETE FROM sparse WHERE id > 1500 OR id < -1500;
VACUUM sparse;

-- HOT chains, pruned on access; redirects, dead and unused line pointers
CREATE TABLE hot (id int PRIMARY KEY, n int, t text) WITH (fillfactor = 50, autovacuum_enabled = off);
INSERT INTO hot SELECT i, 0, 'start' FROM generate_series(1, 400) i;
DO $$ BEGIN FOR i IN 1..40 LOOP
  UPDATE hot SET n = n + 1, t = repeat('h', i) WHERE id % 4 = i % 4;
  COMMIT;
END LOOP; END $$;
DELETE FROM hot WHERE id % 3 = 0;
SELECT sum(n) FROM hot;
VACUUM hot;
DO $$ BEGIN FOR i IN 1..20 LOOP
  UPDATE hot SET n = n + 1 WHERE id BETWEEN i * 10 AND i * 10 + 30; COMMIT;
END LOOP; END $$;
VACUUM (FREEZE, INDEX_CLEANUP OFF) hot;
DELETE FROM hot WHERE id > 200;
VACUUM hot;

-- prefix and suffix of updates, null bitmaps, toast
CREATE TABLE columns (id int, a text, b int, c text, d int, e text);
INSERT INTO columns SELECT i, repeat('a', i % 200), CASE WHEN i % 2 = 0 THEN i END, 'c', NULL, repeat('e', i % 100)
  FROM generate_series(1, 2000) i;
UPDATE columns SET b = -1;
UPDATE columns SET c = NULL WHERE id % 2 = 0;
UPDATE columns SET d = id, e = e || 'x';
UPDATE columns SET a = a || 'tail' WHERE id % 3 = 0;
INSERT INTO columns SELECT i, (SELECT string_agg(md5((i * 1000 + j)::text), '') FROM generate_series(1, 300) j), 0, '', 0, ''
  FROM generate_series(1, 20) i;
UPDATE columns SET a = a || 'more' WHERE length(a) > 1000;
DELETE FROM columns WHERE id % 4 = 1;
VACUUM columns;

-- COPY: multi-insert, also into frozen pages and behind old rows
\copy (SELECT i, repeat('copy', i % 20) FROM generate_series(1, 8000) i) TO 'copy.txt';
CREATE TABLE copied (id int, t text);
\copy copied FROM 'copy.txt';
VACUUM copied;
\copy copied FROM 'copy.txt';
DELETE FROM copied WHERE id % 2 = 0;
VACUUM copied;
\copy copied FROM 'copy.txt';
BEGIN;
TRUNCATE copied;
\copy copied FROM 'copy.txt' WITH (FREEZE);
COMMIT;
UPDATE copied SET t = 'u' WHERE id % 100 = 0;
INSERT INTO copied SELECT 1, 'unfreezes' FROM generate_series(1, 10);

-- rows that move between partitions
CREATE TABLE moving (k int, v text) PARTITION BY LIST (k);
CREATE TABLE moving_1 PARTITION OF moving FOR VALUES IN (1);
CREATE TABLE moving_2 PARTITION OF moving FOR VALUES IN (2);
INSERT INTO moving SELECT 1 + i % 2, 'v' || i FROM generate_series(1, 1000) i;
UPDATE moving SET k = 3 - k WHERE v LIKE '%7';

-- in-place updates of the catalog, aborted inserts, TRUNCATE, rewrites
ANALYZE;
BEGIN; INSERT INTO plain SELECT i, 'lost' FROM generate_series(1, 500) i; ROLLBACK;
VACUUM plain;
CREATE TABLE rewritten AS SELECT * FROM plain;
ALTER TABLE rewritten ALTER COLUMN id TYPE bigint;
CREATE INDEX rewritten_id ON rewritten (id);
CLUSTER rewritten USING rewritten_id;
VACUUM FULL rewritten;
TRUNCATE rewritten;
DROP TABLE rewritten;
CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY, t text);
INSERT INTO unlogged SELECT i, 'u' FROM generate_series(1, 100) i;
ALTER TABLE unlogged SET LOGGED;
CREATE UNLOGGED TABLE stays_unlogged (id int PRIMARY KEY);
CREATE MATERIALIZED VIEW view AS SELECT id % 10 AS k, count(*) FROM plain GROUP BY 1;
REFRESH MATERIALIZED VIEW view;

-- rows whose update was rolled back, deleted and locked later: t_ctid and flags go back
CREATE TABLE undone (id int PRIMARY KEY, t text);
INSERT INTO undone SELECT i, 'u' FROM generate_series(1, 300) i;
BEGIN; UPDATE undone SET t = 'lost'; ROLLBACK;
DELETE FROM undone WHERE id % 3 = 0;
BEGIN; SELECT * FROM undone WHERE id % 3 = 1 FOR UPDATE; COMMIT;
UPDATE undone SET t = 'again' WHERE id % 3 = 2;

-- speculative insertion that loses: two unique indexes that disagree
CREATE TABLE unique_two (a int UNIQUE, b int UNIQUE);
INSERT INTO unique_two VALUES (1, 1), (2, 2);
INSERT INTO unique_two VALUES (3, 3) ON CONFLICT DO NOTHING;
INSERT INTO unique_two VALUES (4, 3) ON CONFLICT (b) DO UPDATE SET a = 40;
SELECT lo_create(0), lo_from_bytea(0, decode(repeat('00ff', 5000), 'hex'));
SELECT setval('counter', 5000), nextval('counter');
