-- States that nothing overwrites: what is planted in redo must still be seen at the end of the WAL.
SET client_min_messages = error;
-- command ids of the base go
DELETE FROM commands WHERE id BETWEEN 1 AND 20;
BEGIN; SELECT * FROM commands WHERE id BETWEEN 21 AND 40 FOR UPDATE; COMMIT;
UPDATE commands SET t = 'u' WHERE id > 40;
-- cycle ids of the base: the pages split, lose items, are emptied
INSERT INTO cycled SELECT i, 'split' FROM generate_series(1, 25000) i;
DELETE FROM cycled WHERE k BETWEEN 10000 AND 12000 OR k % 7 = 0;
VACUUM cycled;
-- updates that were rolled back, then a deletion or a lock; pruning has no reason to come here
CREATE TABLE undone_last (id int, t text) WITH (fillfactor = 40, autovacuum_enabled = off);
INSERT INTO undone_last SELECT i, 'u' FROM generate_series(1, 60) i;
BEGIN; UPDATE undone_last SET t = 'lost'; ROLLBACK;
DELETE FROM undone_last WHERE id % 2 = 0;
BEGIN; SELECT * FROM undone_last WHERE id % 2 = 1 FOR UPDATE; COMMIT;
-- a null bitmap that grows, behind a common prefix
CREATE TABLE nulls (a text, b int, c int, d int, e int, f int, g int, h int, i int, j int, k text);
INSERT INTO nulls SELECT 'the prefix ' || n, 1, 2, 3, 4, 5, 6, 7, 8, 9, 'the suffix' FROM generate_series(1, 40) n;
UPDATE nulls SET h = NULL;
-- pages that say all-visible while the map was thrown away: clearing finds nothing to clear
CREATE TABLE unmapped (id int, t text) WITH (autovacuum_enabled = off, fillfactor = 50);
INSERT INTO unmapped SELECT i, repeat('u', 500) FROM generate_series(1, 40) i;
VACUUM (FREEZE) unmapped;
SELECT pg_truncate_visibility_map('unmapped');
DELETE FROM unmapped WHERE ctid = '(0,1)';
UPDATE unmapped SET t = 'x' WHERE ctid = '(1,1)';
INSERT INTO unmapped VALUES (100, 'inserted');
BEGIN; SELECT * FROM unmapped WHERE ctid = '(2,1)' FOR UPDATE; COMMIT;
-- COPY to a page that is visible; a lock on one that is frozen
CREATE TABLE visible_copy (i int) WITH (autovacuum_enabled = off);
INSERT INTO visible_copy SELECT generate_series(1, 20);
VACUUM visible_copy;
COPY visible_copy FROM PROGRAM 'seq 1 30';
CREATE TABLE frozen_locked (i int) WITH (autovacuum_enabled = off);
INSERT INTO frozen_locked SELECT generate_series(1, 20);
VACUUM (FREEZE) frozen_locked;
BEGIN; SELECT * FROM frozen_locked WHERE i = 1 FOR UPDATE; COMMIT;
-- a row is locked through its old version while somebody updates it: the new version is locked as well
CREATE TABLE locked_chain (id int PRIMARY KEY, v int);
INSERT INTO locked_chain SELECT i, 0 FROM generate_series(1, 10) i;
SELECT other_session('locker');
BEGIN;
UPDATE locked_chain SET v = 1;
SELECT * FROM dblink('locker', 'SELECT id FROM locked_chain WHERE id < 6 FOR KEY SHARE') AS locked(id int);
COMMIT;
SELECT dblink_disconnect('locker');
-- index pages that go between two that stay
CREATE TABLE gap (k int);
CREATE INDEX gap_k ON gap (k);
INSERT INTO gap SELECT generate_series(1, 12000);
DELETE FROM gap WHERE k BETWEEN 4000 AND 8000;
VACUUM gap;
-- states that pass: the images of consistency checks see them
SET wal_consistency_checking = 'all';
CREATE TABLE checked (k int, t text);
CREATE INDEX checked_t ON checked (t);
INSERT INTO checked SELECT i, repeat(md5(i::text), 12) FROM generate_series(1, 600) i;
DELETE FROM checked WHERE k % 20 <> 0;
VACUUM checked;
INSERT INTO checked SELECT i % 5, 'equal keys' FROM generate_series(1, 1500) i;
DELETE FROM checked WHERE k = 1;
VACUUM checked;
CREATE TABLE frozen_copy (i int);
BEGIN;
TRUNCATE frozen_copy;
COPY frozen_copy FROM PROGRAM 'seq 1 1000' WITH (FREEZE);
COMMIT;
RESET wal_consistency_checking;
