-- Command ids are not in the WAL. A page that is dropped and rebuilt while its transaction runs would show the
-- transaction its own later changes, or hide earlier ones.
CREATE TABLE ballast AS SELECT g AS i, repeat('b', 200) AS pad FROM generate_series(1, 20000) g;

BEGIN;
CREATE TABLE doubled (i int, pad text);
INSERT INTO doubled SELECT g, repeat('x', 300) FROM generate_series(1, 4000) g;
INSERT INTO doubled SELECT * FROM doubled;
SELECT 'doubled once', count(*) FROM doubled;
INSERT INTO doubled SELECT * FROM doubled;
SELECT 'doubled twice', count(*) FROM doubled;
COMMIT;

BEGIN;
CREATE TABLE seen (i int, v int, pad text);
INSERT INTO seen SELECT g, 0, repeat('x', 300) FROM generate_series(1, 4000) g;
DECLARE before_changes NO SCROLL CURSOR FOR SELECT i, v FROM seen;
FETCH 1 FROM before_changes;
UPDATE seen SET v = v + 1;
DELETE FROM seen WHERE i % 2 = 0;
INSERT INTO seen SELECT g, 7, 'y' FROM generate_series(10000, 10500) g;
SELECT 'ballast', count(*) FROM ballast;
CREATE TEMP TABLE fetched (i int, v int);
DO $$
DECLARE
    row record;
    before_changes refcursor := 'before_changes';
BEGIN
    LOOP
        FETCH before_changes INTO row;
        EXIT WHEN NOT FOUND;
        INSERT INTO fetched VALUES (row.i, row.v);
    END LOOP;
END $$;
SELECT 'cursor', count(*) + 1, sum(i) + 1, max(v) FROM fetched;
SELECT 'table', count(*), min(v), max(v) FROM seen;
COMMIT;

BEGIN;
CREATE TABLE stepped (i int PRIMARY KEY, v int, pad text);
INSERT INTO stepped SELECT g, 1, repeat('x', 300) FROM generate_series(1, 3000) g;
SAVEPOINT first;
UPDATE stepped SET v = v * 2;
SAVEPOINT second;
UPDATE stepped SET v = v * 2 WHERE i > 1500;
SELECT 'second', count(*), sum(v) FROM stepped, (SELECT count(*) FROM ballast) AS b;
ROLLBACK TO second;
SELECT 'first', count(*), sum(v) FROM stepped;
UPDATE stepped a SET v = a.v + (SELECT count(*) FROM stepped b WHERE b.i = a.i AND b.v = a.v);
SELECT 'self', count(*), sum(v) FROM stepped;
COMMIT;

-- the first command of a transaction needs no keeping, the second one does
BEGIN;
INSERT INTO stepped SELECT g, 0, repeat('z', 300) FROM generate_series(5001, 8000) g;
INSERT INTO stepped SELECT i + 5000, 0, pad FROM stepped WHERE v = 0;
SELECT 'copied', count(*), max(i) FROM stepped WHERE v = 0;
ROLLBACK;
SELECT 'end', count(*), max(i) FROM stepped;
