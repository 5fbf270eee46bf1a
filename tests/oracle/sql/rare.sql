-- Kinds of records that need a certain shape of an index, made several times.
SET client_min_messages = error;
-- B-tree: a tall tree loses all but one page of each level (new fast root), and grows again from there
SELECT format('CREATE TABLE tall_%s (k text) WITH (autovacuum_enabled = off); CREATE INDEX tall_%s_k ON tall_%s (k);
  INSERT INTO tall_%s SELECT lpad(j::text, 6, ''0'') || repeat(md5(j::text), 30) FROM generate_series(1, 4000) j;', i, i, i, i)
FROM generate_series(1, 12) i \gexec
SELECT format('DELETE FROM tall_%s WHERE k < ''003995''', i) FROM generate_series(1, 12) i \gexec
SELECT format('VACUUM (INDEX_CLEANUP on, TRUNCATE off) tall_%s', i) FROM generate_series(1, 12) i, generate_series(1, 2) \gexec
SELECT format('INSERT INTO tall_%s SELECT lpad(j::text, 6, ''0'') || repeat(md5(j::text), 30) FROM generate_series(1, 300) j', i)
FROM generate_series(1, 12) i \gexec
SELECT format('VACUUM (INDEX_CLEANUP on) tall_%s', i) FROM generate_series(1, 12) i \gexec
-- the metapage alone is brought up to date: pages that were deleted, and vacuum finds nothing else to do
SELECT format('DELETE FROM tall_%s', i) FROM generate_series(1, 12) i \gexec
SELECT format('VACUUM (INDEX_CLEANUP on, TRUNCATE off) tall_%s', i) FROM generate_series(1, 12) i, generate_series(1, 3) \gexec
-- hash: entries that scans found dead go before a bucket gets another page
SET enable_seqscan = off;
SET enable_bitmapscan = off;
SELECT format('CREATE TABLE hashed_%s (h int); CREATE INDEX hashed_%s_h ON hashed_%s USING hash (h);
  INSERT INTO hashed_%s SELECT 1 FROM generate_series(1, 400);', i, i, i, i) FROM generate_series(1, 14) i \gexec
SELECT format('DELETE FROM hashed_%s WHERE ctid < ''(1,50)''', i) FROM generate_series(1, 14) i \gexec
SELECT format('SELECT count(*) FROM hashed_%s WHERE h = 1', i) FROM generate_series(1, 14) i, generate_series(1, 2) \gexec
SELECT format('INSERT INTO hashed_%s SELECT 1 FROM generate_series(1, 100)', i) FROM generate_series(1, 14) i \gexec
SELECT format('DELETE FROM hashed_%s WHERE ctid > ''(1,50)''', i) FROM generate_series(1, 14) i \gexec
SELECT format('VACUUM hashed_%s', i) FROM generate_series(1, 14) i \gexec
-- GIN: a posting tree for each of 14 words, its middle emptied and deleted
CREATE TABLE posted (w int[]);
CREATE INDEX posted_w ON posted USING gin (w) WITH (fastupdate = off);
INSERT INTO posted SELECT ARRAY[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14] FROM generate_series(1, 30000) i;
DELETE FROM posted WHERE ctid BETWEEN '(60,0)' AND '(300,0)';
VACUUM posted;
INSERT INTO posted SELECT ARRAY[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14] FROM generate_series(1, 3000) i;
DELETE FROM posted WHERE ctid > '(20,0)';
VACUUM posted;
-- SP-GiST: keys that leave a common prefix at ever other places; a root that is a leaf, vacuumed
CREATE TABLE prefixed (t text);
CREATE INDEX prefixed_t ON prefixed USING spgist (t);
INSERT INTO prefixed SELECT repeat('x', 120) || i FROM generate_series(1, 400) i;
INSERT INTO prefixed SELECT repeat('x', 110 - 5 * i) || 'y' || j FROM generate_series(1, 20) i, generate_series(1, 5) j;
SELECT format('CREATE TABLE rooted_%s (p point); CREATE INDEX rooted_%s_p ON rooted_%s USING spgist (p);
  INSERT INTO rooted_%s SELECT point(j, j) FROM generate_series(1, 20) j; DELETE FROM rooted_%s WHERE p[0] < 9;', i, i, i, i, i)
FROM generate_series(1, 14) i \gexec
SELECT format('VACUUM rooted_%s', i) FROM generate_series(1, 14) i \gexec
-- BRIN: many small indexes; summaries that grow, move to new pages, go
SELECT format('CREATE TABLE ranged_%s (t text, i int); CREATE INDEX ranged_%s_t ON ranged_%s USING brin (t) WITH (pages_per_range = 1);
  INSERT INTO ranged_%s SELECT ''t'' || j, j FROM generate_series(1, 2000) j;', i, i, i, i) FROM generate_series(1, 14) i \gexec
SELECT format('SELECT brin_summarize_new_values(''ranged_%s_t'')', i) FROM generate_series(1, 14) i \gexec
SELECT format('UPDATE ranged_%s SET t = repeat(md5(t), 40) WHERE i %% 200 = %s', i, i) FROM generate_series(1, 14) i \gexec
SELECT format('SELECT brin_desummarize_range(''ranged_%s_t'', 2)', i) FROM generate_series(1, 14) i \gexec
SELECT format('VACUUM ranged_%s', i) FROM generate_series(1, 14) i \gexec
-- GiST: pages that became empty are taken again
CREATE TABLE reused (p point);
CREATE INDEX reused_p ON reused USING gist (p);
INSERT INTO reused SELECT point(i, i) FROM generate_series(1, 20000) i;
DELETE FROM reused WHERE p[0] < 15000;
VACUUM reused;
SELECT txid_current();
SELECT txid_current();
VACUUM reused;
INSERT INTO reused SELECT point(i, -i) FROM generate_series(1, 15000) i;
