CREATE TABLE visits (page int PRIMARY KEY, hits int NOT NULL, pad text);
CREATE TABLE ballast AS SELECT g AS i, repeat('b', 200) AS pad FROM generate_series(1, 20000) g;

INSERT INTO visits SELECT g % 5000, 1, repeat('v', 200) FROM generate_series(1, 5000) g
ON CONFLICT (page) DO UPDATE SET hits = visits.hits + 1;
INSERT INTO visits SELECT g % 5000, 1, repeat('v', 200) FROM generate_series(2500, 7499) g
ON CONFLICT (page) DO UPDATE SET hits = visits.hits + 1;
INSERT INTO visits SELECT g, 1, repeat('v', 200) FROM generate_series(4000, 5999) g
ON CONFLICT DO NOTHING;
SELECT count(*), sum(hits), min(hits), max(hits) FROM visits;
SELECT count(*) FROM ballast;

BEGIN;
INSERT INTO visits VALUES (1, 1) ON CONFLICT (page) DO UPDATE SET hits = visits.hits + 100 RETURNING hits;
SELECT count(*) FROM ballast;
INSERT INTO visits VALUES (1, 1) ON CONFLICT (page) DO UPDATE SET hits = visits.hits + 100 RETURNING hits;
COMMIT;
SELECT sum(hits) FROM visits;
