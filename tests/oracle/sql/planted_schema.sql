-- What the slices for planted errors have in their base: states that redo has to clear, and could forget to.
SET client_min_messages = error;
CREATE EXTENSION dblink;
CREATE EXTENSION pg_visibility;
-- another session, for what needs two: planted_*.sql say what it does
CREATE FUNCTION other_session(name text) RETURNS text LANGUAGE sql AS $$
  SELECT dblink_connect(name, 'dbname=' || current_database() || ' host=' || current_setting('unix_socket_directories'))
$$;
-- command ids, and combined ones: redo writes 0
CREATE TABLE commands (id int, t text) WITH (autovacuum_enabled = off);
BEGIN;
INSERT INTO commands SELECT i, 'a' FROM generate_series(1, 30) i;
INSERT INTO commands SELECT i, 'b' FROM generate_series(31, 60) i;
SAVEPOINT before;
DELETE FROM commands WHERE id % 2 = 0;
ROLLBACK TO before;
COMMIT;
-- B-tree pages that were split while a vacuum was under way carry its cycle id
CREATE TABLE cycled (k int, t text) WITH (autovacuum_enabled = off);
CREATE INDEX cycled_k ON cycled (k) WITH (deduplicate_items = off);
INSERT INTO cycled SELECT i, repeat('c', 20) FROM generate_series(1, 20000) i;
DELETE FROM cycled WHERE k % 50 = 0;
SELECT other_session('vacuum');
SELECT dblink_exec('vacuum', 'SET vacuum_cost_delay = 2');
SELECT dblink_exec('vacuum', 'SET vacuum_cost_limit = 30');
SELECT dblink_send_query('vacuum', 'VACUUM cycled');
DO $$ BEGIN WHILE dblink_is_busy('vacuum') = 1 LOOP
  INSERT INTO cycled SELECT random() * 20000, 'while vacuum runs' FROM generate_series(1, 100) i; COMMIT;
END LOOP; END $$;
SELECT * FROM dblink_get_result('vacuum') AS done(what text);
SELECT dblink_disconnect('vacuum');
-- a hash bucket with tuples that scans found dead
CREATE TABLE killed_hash (h int, n int) WITH (autovacuum_enabled = off);
CREATE INDEX killed_hash_h ON killed_hash USING hash (h);
INSERT INTO killed_hash SELECT i % 2, i FROM generate_series(1, 600) i;
DELETE FROM killed_hash WHERE n % 2 = 0 OR n % 3 = 0;
SET enable_seqscan = off;
SET enable_bitmapscan = off;
SELECT count(n) FROM killed_hash WHERE h = 0;
SELECT count(n) FROM killed_hash WHERE h = 1;
SELECT count(n) FROM killed_hash WHERE h = 0;
SELECT count(n) FROM killed_hash WHERE h = 1;
-- GiST pages with tuples that scans found dead
CREATE TABLE killed_gist (p point) WITH (autovacuum_enabled = off);
CREATE INDEX killed_gist_p ON killed_gist USING gist (p);
INSERT INTO killed_gist SELECT point(i % 3, i % 100) FROM generate_series(1, 1500) i;
DELETE FROM killed_gist WHERE p[0] = 1;
SELECT count(*) FROM killed_gist WHERE p <@ box(point(0, 0), point(99, 99));
SELECT count(*) FROM killed_gist WHERE p <@ box(point(0, 0), point(99, 99));
