-- GIN, GiST, SP-GiST, hash, BRIN and generic WAL (bloom): build, insert, split, delete, vacuum.
SET client_min_messages = error;
CREATE TABLE documents (id int, words int[], body tsvector, p point, box box, name text, h int, r int4range, n inet)
  WITH (autovacuum_enabled = off); -- see LOADED in slices.py
CREATE INDEX documents_words ON documents USING gin (words);
CREATE INDEX documents_fast ON documents USING gin (body) WITH (fastupdate = on, gin_pending_list_limit = 64);
CREATE INDEX documents_slow ON documents USING gin (words) WITH (fastupdate = off);
CREATE INDEX documents_gist ON documents USING gist (p);
CREATE INDEX documents_box ON documents USING gist (box) WITH (buffering = on);
CREATE INDEX documents_quad ON documents USING spgist (p);
CREATE INDEX documents_kd ON documents USING spgist (p kd_point_ops);
CREATE INDEX documents_text ON documents USING spgist (name);
CREATE INDEX documents_range ON documents USING spgist (r);
CREATE INDEX documents_inet ON documents USING spgist (n);
CREATE INDEX documents_hash ON documents USING hash (h);
CREATE INDEX documents_hash_text ON documents USING hash (name);
CREATE INDEX documents_brin ON documents USING brin (id) WITH (pages_per_range = 1, autosummarize = on);
CREATE INDEX documents_brin_text ON documents USING brin (name) WITH (pages_per_range = 2);
CREATE INDEX documents_brin_multi ON documents USING brin (id int4_minmax_multi_ops) WITH (pages_per_range = 2);
CREATE INDEX documents_bloom ON documents USING bloom (id, h);
CREATE FUNCTION fill(first int, last int) RETURNS void LANGUAGE sql AS $$
  INSERT INTO documents
  SELECT i, ARRAY[i % 7, i % 100, i, i / 10], to_tsvector('simple', 'word' || i % 50 || ' other' || i || ' all'),
    point(random() * 1000, random() * 1000), box(point(random() * 100, i), point(random() * 100, i + random() * 10)),
    CASE WHEN i % 3 = 0 THEN repeat('long prefix ', 20) || i ELSE md5(i::text) END, i % 500, int4range(i, i + i % 100),
    ('10.' || i % 200 || '.' || i % 250 || '.1')::inet
  FROM generate_series(first, last) i
$$;
SELECT fill(1, 6000);
SELECT gin_clean_pending_list('documents_fast');
SELECT brin_summarize_new_values('documents_brin'), brin_summarize_new_values('documents_brin_text');
DELETE FROM documents WHERE id % 3 = 0;
VACUUM documents;
SELECT fill(6001, 12000);
UPDATE documents SET name = 'a much longer name ' || repeat(name, 3), id = id + 100000 WHERE id % 50 = 0;
DELETE FROM documents WHERE id BETWEEN 2000 AND 9000;
VACUUM documents;
VACUUM documents;
SELECT fill(12001, 16000);
SELECT brin_desummarize_range('documents_brin', 3), brin_desummarize_range('documents_brin_multi', 4);
SELECT brin_summarize_new_values('documents_brin'), brin_summarize_new_values('documents_brin_multi');
SET enable_seqscan = off;
DO $$ BEGIN FOR i IN 1..20 LOOP
  DELETE FROM documents WHERE h = i; COMMIT;
  PERFORM count(*) FROM documents WHERE h = i; COMMIT;
  PERFORM count(*) FROM documents WHERE p <@ box(point(0, 0), point(500, 500)); COMMIT;
  PERFORM fill(20000 + i * 100, 20000 + i * 100 + 99); COMMIT;
END LOOP; END $$;
-- SP-GiST: a root that is a leaf, vacuumed
CREATE TABLE few_points (p point) WITH (autovacuum_enabled = off);
CREATE INDEX few_points_quad ON few_points USING spgist (p);
DO $$ BEGIN FOR i IN 1..12 LOOP
  INSERT INTO few_points SELECT point(j, i) FROM generate_series(1, 20) j; COMMIT;
  DELETE FROM few_points WHERE p[0] < 10 + i;  COMMIT;
END LOOP; END $$;
VACUUM few_points;
INSERT INTO few_points VALUES (point(1, 1)), (NULL);
DELETE FROM few_points WHERE p IS NULL OR p[0] = 1;
VACUUM few_points;
-- hash: overflow pages, many equal keys, squeeze; bucket splits
CREATE TABLE equal_keys (h int) WITH (autovacuum_enabled = off);
CREATE INDEX equal_keys_hash ON equal_keys USING hash (h);
INSERT INTO equal_keys SELECT i % 4 FROM generate_series(1, 8000) i;
DELETE FROM equal_keys WHERE h = 1;
VACUUM equal_keys;
INSERT INTO equal_keys SELECT i FROM generate_series(1, 40000) i;
DELETE FROM equal_keys WHERE h % 3 = 0;
VACUUM equal_keys;
INSERT INTO equal_keys SELECT 2 FROM generate_series(1, 3000) i;
-- GIN: a posting tree, deep, then emptied
CREATE TABLE one_word (w int[]);
CREATE INDEX one_word_gin ON one_word USING gin (w) WITH (fastupdate = off);
INSERT INTO one_word SELECT ARRAY[1, i] FROM generate_series(1, 60000) i;
DELETE FROM one_word WHERE w[2] BETWEEN 10000 AND 50000;
VACUUM one_word;
VACUUM one_word;
INSERT INTO one_word SELECT ARRAY[1, i, i + 1] FROM generate_series(1, 10000) i;
-- SP-GiST: labels that share prefixes, all the same, deep
CREATE TABLE labels (t text);
CREATE INDEX labels_spgist ON labels USING spgist (t);
INSERT INTO labels SELECT repeat('same', 100) FROM generate_series(1, 500) i;
INSERT INTO labels SELECT substr('abcdefghijklmnopqrstuvwxyz', 1, 1 + i % 26) || i FROM generate_series(1, 10000) i;
DELETE FROM labels WHERE t LIKE '%7';
VACUUM labels;
INSERT INTO labels SELECT md5(i::text) FROM generate_series(1, 5000) i;
DELETE FROM labels WHERE t < 'm';
VACUUM labels;
INSERT INTO labels SELECT chr(97 + i % 26) || i FROM generate_series(1, 5000) i;
-- GiST: pages that become empty are deleted
CREATE TABLE emptied_points (p point);
CREATE INDEX emptied_points_gist ON emptied_points USING gist (p);
INSERT INTO emptied_points SELECT point(i, i) FROM generate_series(1, 20000) i;
DELETE FROM emptied_points WHERE p[0] < 15000;
VACUUM emptied_points;
VACUUM emptied_points;
INSERT INTO emptied_points SELECT point(i, -i) FROM generate_series(1, 5000) i;
INSERT INTO old_points SELECT i, point(i % 77, i / 50) FROM generate_series(1, 3000) i;
-- for what comes behind this file
ALTER TABLE documents RESET (autovacuum_enabled);
ALTER TABLE equal_keys RESET (autovacuum_enabled);
