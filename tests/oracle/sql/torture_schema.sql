-- Tables with one index of every method, few values of some.
CREATE TABLE tortured (id int, k int, t text, w int[], p point, r int4range) WITH (fillfactor = 70);
INSERT INTO tortured SELECT i, i % 30, md5(i::text), ARRAY[i % 9, i % 400, i], point(i % 211, i % 307), int4range(i, i + 9)
  FROM generate_series(1, 8000) i;
CREATE INDEX tortured_btree ON tortured (k, t);
CREATE INDEX tortured_hash ON tortured USING hash (k);
CREATE INDEX tortured_gin ON tortured USING gin (w) WITH (gin_pending_list_limit = 64);
CREATE INDEX tortured_gist ON tortured USING gist (p);
CREATE INDEX tortured_spgist ON tortured USING spgist (r);
CREATE INDEX tortured_brin ON tortured USING brin (id, t) WITH (pages_per_range = 1, autosummarize = on);
