-- Apart from methods.sql: redo of this record sets a flag that the primary does not set, so recovery with
-- wal_consistency_checking stops here ("inconsistent page found"). The flag has no meaning.
SET client_min_messages = error;
SET enable_seqscan = off;
-- GiST: tuples that scans found dead go before a page splits
CREATE TABLE killed_points (p point) WITH (autovacuum_enabled = off);
CREATE INDEX killed_points_gist ON killed_points USING gist (p);
SET enable_bitmapscan = off;
DO $$ BEGIN FOR i IN 1..40 LOOP
  INSERT INTO killed_points SELECT point(j, i) FROM generate_series(1, 400) j; COMMIT;
  DELETE FROM killed_points WHERE p[1] <= i; COMMIT;
  PERFORM count(*) FROM killed_points WHERE p <@ box(point(0, 0), point(1000, 1000)); COMMIT;
  PERFORM count(*) FROM killed_points WHERE p <@ box(point(0, 0), point(1000, 1000)); COMMIT;
END LOOP; END $$;
RESET enable_bitmapscan;
