CREATE SEQUENCE s;
CREATE TABLE ballast AS SELECT g AS i, repeat('b', 200) AS pad FROM generate_series(1, 20000) g;
SELECT nextval('s'), nextval('s'), nextval('s');
SELECT count(*) FROM ballast;
SELECT nextval('s');
SELECT last_value, is_called FROM s;
CHECKPOINT;
SELECT count(*) FROM ballast;
SELECT last_value, is_called FROM s;
SELECT setval('s', 1000);
SELECT count(*) FROM ballast;
SELECT nextval('s');
ALTER SEQUENCE s RESTART 7;
SELECT count(*) FROM ballast;
SELECT nextval('s');

-- no gap within a session whatever is evicted in between
CREATE TABLE numbered (id int GENERATED ALWAYS AS IDENTITY, pad text);
INSERT INTO numbered (pad) SELECT repeat('n', 500) FROM generate_series(1, 5000);
SELECT count(*) FROM ballast;
INSERT INTO numbered (pad) SELECT repeat('n', 500) FROM generate_series(1, 5000);
SELECT count(*), min(id), max(id) FROM numbered;
