-- Every kind of B-tree record.
SET client_min_messages = error;
-- deep and wide: splits on every level, new roots
CREATE TABLE deep (k text, n int);
CREATE INDEX deep_k ON deep (k);
INSERT INTO deep SELECT repeat(md5(i::text), 30), i FROM generate_series(1, 3000) i;
INSERT INTO deep SELECT md5(i::text) || repeat('p', 1000), i FROM generate_series(1, 3000) i;
-- posting lists: deduplication, splits inside of a list
CREATE TABLE duplicates (k int, t text);
CREATE INDEX duplicates_k ON duplicates (k);
CREATE INDEX duplicates_t ON duplicates (t);
INSERT INTO duplicates SELECT i % 10, 'value ' || i % 3 FROM generate_series(1, 20000) i;
DELETE FROM duplicates WHERE ctid IN (SELECT ctid FROM duplicates WHERE k = 3 ORDER BY random() LIMIT 1000);
VACUUM duplicates;
INSERT INTO duplicates SELECT i % 10, 'value ' || i % 3 FROM generate_series(1, 5000) i;
DELETE FROM duplicates WHERE k IN (4, 5);
VACUUM duplicates;
INSERT INTO duplicates SELECT i % 13, 'value ' || i % 5 FROM generate_series(1, 8000) i;
DELETE FROM duplicates WHERE random() < 0.3;
VACUUM duplicates;
INSERT INTO duplicates SELECT i % 13, 'value ' || i % 5 FROM generate_series(1, 8000) i;
-- pages that become empty: half dead, unlinked, reused; new fast root
CREATE TABLE emptied (k int PRIMARY KEY, t text);
INSERT INTO emptied SELECT i, 'x' FROM generate_series(1, 60000) i;
DELETE FROM emptied WHERE k BETWEEN 5000 AND 55000;
VACUUM emptied;
DELETE FROM emptied WHERE k < 59900;
VACUUM emptied;
VACUUM emptied;
INSERT INTO emptied SELECT i, 'y' FROM generate_series(1, 30000) i;
CREATE INDEX emptied_t ON emptied ((md5(k::text) || repeat('t', 500)));
DELETE FROM emptied WHERE k % 20 <> 0;
VACUUM emptied;
DELETE FROM emptied;
VACUUM emptied;
VACUUM emptied;
-- dead items are deleted before a page splits (simple and bottom-up deletion)
CREATE TABLE versions (k int PRIMARY KEY, a int, b int);
CREATE INDEX versions_a ON versions (a);
CREATE INDEX versions_b ON versions (b);
INSERT INTO versions SELECT i, i, i % 100 FROM generate_series(1, 2000) i;
DO $$ BEGIN FOR i IN 1..12 LOOP UPDATE versions SET a = a + 1; COMMIT; END LOOP; END $$;
DO $$ BEGIN FOR i IN 1..30 LOOP
  DELETE FROM versions WHERE k % 30 = i; COMMIT;
  PERFORM count(*) FROM versions WHERE b BETWEEN 0 AND 100 AND k > 0; COMMIT;
  INSERT INTO versions SELECT k, i, k % 100 FROM generate_series(1, 2000) k WHERE k % 30 = i ON CONFLICT DO NOTHING; COMMIT;
END LOOP; END $$;
REINDEX INDEX CONCURRENTLY versions_a;
-- what the base copy has as dead entries: more of them on full pages, then vacuum
INSERT INTO killed SELECT i % 4000, repeat('n', 40) FROM generate_series(1, 6000) i;
VACUUM killed;
-- ascending, descending, random
CREATE TABLE orders (up int, down int, any_place float);
CREATE INDEX orders_up ON orders (up); CREATE INDEX orders_down ON orders (down); CREATE INDEX orders_any ON orders (any_place);
INSERT INTO orders SELECT i, -i, random() FROM generate_series(1, 15000) i;
CREATE INDEX include_many ON orders (up) INCLUDE (down, any_place);
INSERT INTO orders SELECT i, -i, random() FROM generate_series(1, 5000) i;
