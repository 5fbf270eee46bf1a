CREATE TABLE ballast AS SELECT g AS i, repeat('b', 200) AS pad FROM generate_series(1, 20000) g;
CREATE TABLE things (i int, words tsvector, at point, tags int[], name text);
INSERT INTO things
SELECT g, to_tsvector('simple', 'w' || g % 100 || ' common x' || g), point(g % 100, g / 100), ARRAY[g % 10, g % 7],
       md5(g::text)
FROM generate_series(1, 10000) g;

CREATE INDEX ON things USING gin (words);
CREATE INDEX ON things USING gin (tags);
CREATE INDEX ON things USING gist (at);
CREATE INDEX ON things USING spgist (at);
CREATE INDEX ON things USING brin (i) WITH (pages_per_range = 4);
CREATE INDEX ON things USING hash (name);
CREATE UNIQUE INDEX ON things (i);
CREATE INDEX CONCURRENTLY things_name ON things (name);
SELECT count(*) FROM ballast;

SET enable_seqscan = off;
SELECT 'gin', count(*) FROM things WHERE words @@ to_tsquery('simple', 'w42 & common');
SELECT 'gin array', count(*) FROM things WHERE tags @> ARRAY[3, 5];
SELECT 'gist', count(*) FROM things WHERE at <@ box '((10,10),(20,20))';
SELECT 'brin', count(*) FROM things WHERE i BETWEEN 5000 AND 5999;
SELECT 'hash', i FROM things WHERE name = md5('777');
SELECT 'btree', count(*) FROM things WHERE name < '8';
RESET enable_seqscan;
SELECT 'heap', count(*) FROM things WHERE name < '8';

-- changed after the build, vacuumed, looked at again
UPDATE things SET at = point(at[1], at[0]), tags = tags || 99 WHERE i % 4 = 0;
DELETE FROM things WHERE i % 9 = 0;
VACUUM things;
INSERT INTO things SELECT g, to_tsvector('simple', 'late common'), point(1, 1), ARRAY[99], 'late'
FROM generate_series(20001, 22000) g;
SELECT count(*) FROM ballast;
SET enable_seqscan = off;
SELECT 'gin', count(*) FROM things WHERE words @@ to_tsquery('simple', 'late');
SELECT 'gin array', count(*) FROM things WHERE tags @> ARRAY[99];
SELECT 'gist', count(*) FROM things WHERE at <@ box '((1,1),(1,1))';
SELECT 'hash', count(*) FROM things WHERE name = 'late';
RESET enable_seqscan;
CREATE EXTENSION amcheck;
SELECT 'amcheck', count(*) FROM pg_class c, LATERAL bt_index_check(c.oid, true) AS checked
WHERE c.relam = (SELECT oid FROM pg_am WHERE amname = 'btree') AND c.relname LIKE 'things%';
SELECT 'heap', count(*) FROM verify_heapam('things');
