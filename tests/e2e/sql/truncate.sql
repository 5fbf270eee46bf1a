CREATE TABLE ballast AS SELECT g AS i, repeat('b', 200) AS pad FROM generate_series(1, 20000) g;
CREATE TABLE t (i int, pad text) WITH (autovacuum_enabled = off);

-- the tail is cut off by vacuum and grows again
INSERT INTO t SELECT g, repeat('1', 500) FROM generate_series(1, 5000) g;
DELETE FROM t WHERE i > 1000;
VACUUM (TRUNCATE) t;
VACUUM (TRUNCATE) t;
SELECT 'cut', count(*) FROM t;
INSERT INTO t SELECT g, repeat('2', 500) FROM generate_series(5001, 9000) g;
SELECT count(*) FROM ballast;
SELECT 'grown', count(*), sum(i), count(DISTINCT pad) FROM t;

-- cut and grown within one breath, several times
DO $$
BEGIN
    FOR round IN 1..5 LOOP
        TRUNCATE t;
        INSERT INTO t SELECT g, repeat(round::text, 500) FROM generate_series(1, 1500) g;
    END LOOP;
END $$;
SELECT count(*) FROM ballast;
SELECT 'rounds', count(*), min(pad) = max(pad), left(min(pad), 1) FROM t;

-- a transaction that goes back has left nothing
BEGIN;
TRUNCATE t;
INSERT INTO t SELECT g, 'rolled back' FROM generate_series(1, 3000) g;
SELECT count(*) FROM ballast;
ROLLBACK;
SELECT 'back', count(*), left(min(pad), 1) FROM t;

BEGIN;
CREATE TABLE short_lived AS SELECT g AS i, repeat('s', 300) AS pad FROM generate_series(1, 4000) g;
CREATE INDEX ON short_lived (i);
SELECT count(*) FROM ballast;
SELECT 'short-lived', count(*), sum(i) FROM short_lived;
DROP TABLE short_lived;
COMMIT;

-- rewrites get new storage
CREATE INDEX t_i ON t (i);
CLUSTER t USING t_i;
VACUUM FULL t;
ALTER TABLE t ALTER i TYPE bigint;
REINDEX TABLE t;
SELECT count(*) FROM ballast;
SELECT 'rewritten', count(*), sum(i) FROM t;
SELECT 'sizes', pg_relation_size('t') = (SELECT relpages * 8192 FROM pg_class WHERE relname = 't')
FROM (SELECT 1) AS one, LATERAL (SELECT count(*) FROM t) AS all_of_it;
ANALYZE t;
SELECT 'sizes', pg_relation_size('t') = (SELECT relpages::bigint * 8192 FROM pg_class WHERE relname = 't');
