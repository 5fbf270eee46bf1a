-- HNSW and IVFFlat: build, insert, delete, vacuum; also types without a whole float a dimension.
CREATE EXTENSION vector;
CREATE TABLE embeddings (id int, v vector(24), h halfvec(24), b bit(64), s sparsevec(1000));
CREATE FUNCTION embed(first int, last int) RETURNS void LANGUAGE sql AS $$
  INSERT INTO embeddings
  SELECT i, v, v::halfvec, (lpad('', 64, '0') || (i * 7919)::bit(32)::text)::bit(64), ('{1:' || i % 9 + 1 || ',' || i % 900 + 2 || ':2}/1000')::sparsevec
  FROM generate_series(first, last) i, LATERAL (SELECT array_agg(random() + i * 0)::vector(24) AS v FROM generate_series(1, 24)) made
$$;
SELECT embed(1, 3000);
CREATE INDEX embeddings_hnsw ON embeddings USING hnsw (v vector_l2_ops) WITH (m = 8, ef_construction = 24);
CREATE INDEX embeddings_half ON embeddings USING hnsw (h halfvec_cosine_ops) WITH (m = 6, ef_construction = 20);
CREATE INDEX embeddings_bits ON embeddings USING hnsw (b bit_hamming_ops) WITH (m = 6, ef_construction = 20);
CREATE INDEX embeddings_sparse ON embeddings USING hnsw (s sparsevec_l2_ops) WITH (m = 6, ef_construction = 20);
CREATE INDEX embeddings_lists ON embeddings USING ivfflat (v vector_ip_ops) WITH (lists = 30);
SELECT embed(3001, 4000);
DELETE FROM embeddings WHERE id % 3 = 0;
VACUUM embeddings;
SELECT embed(4001, 5000);
UPDATE embeddings SET id = -id, v = v + v WHERE id % 7 = 0;
DELETE FROM embeddings WHERE id BETWEEN 1000 AND 2500;
VACUUM embeddings;
REINDEX INDEX CONCURRENTLY embeddings_hnsw;
SELECT embed(5001, 5500);
