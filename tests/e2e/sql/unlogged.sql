CREATE TABLE ballast AS SELECT g AS i, repeat('b', 200) AS pad FROM generate_series(1, 20000) g;
CREATE UNLOGGED TABLE u (i int PRIMARY KEY, t text, p point);
INSERT INTO u SELECT g, repeat('u', 200), point(g, -g) FROM generate_series(1, 5000) g;
-- built page by page before Postgres says that they are unlogged
CREATE INDEX u_text ON u (t, i);
CREATE INDEX u_gist ON u USING gist (p);
CREATE INDEX u_hash ON u USING hash (i);
SELECT count(*) FROM ballast;
SELECT count(*), sum(i) FROM u;
SET enable_seqscan = off;
SELECT count(*) FROM u WHERE p <@ box '((1,-100),(100,-1))';
SELECT count(*) FROM u WHERE t >= 'u' AND i > 4900;
SELECT i FROM u WHERE i = 4321;
RESET enable_seqscan;
UPDATE u SET t = 'short' WHERE i % 3 = 0;
DELETE FROM u WHERE i % 5 = 0;
VACUUM u;
SELECT count(*) FROM ballast;
SELECT count(*), sum(i), sum(length(t)) FROM u;
SELECT pg_relation_size('u') > 0, pg_relation_size('u', 'init'), pg_indexes_size('u') > 0;

-- changing sides, both ways
ALTER TABLE u SET LOGGED;
SELECT count(*) FROM ballast;
SELECT count(*), sum(i) FROM u;
ALTER TABLE u SET UNLOGGED;
SELECT count(*), sum(i) FROM u;
TRUNCATE u;
INSERT INTO u VALUES (1, 'again');
SELECT count(*), sum(i) FROM u;

BEGIN;
CREATE UNLOGGED TABLE gone AS SELECT g AS i FROM generate_series(1, 10000) g;
SELECT count(*) FROM gone;
ROLLBACK;
CREATE UNLOGGED SEQUENCE us;
SELECT nextval('us'), nextval('us');
SELECT count(*) FROM ballast;
SELECT nextval('us');
DROP TABLE u;
