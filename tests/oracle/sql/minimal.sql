-- Relations that are made and filled in one transaction: their pages are logged at its end.
SET client_min_messages = error;
BEGIN;
CREATE TABLE made_at_once (i int PRIMARY KEY, t text, p point);
INSERT INTO made_at_once SELECT i, repeat('m', i % 200), point(i % 100, i / 100) FROM generate_series(1, 8000) i;
CREATE INDEX made_gist ON made_at_once USING gist (p);
CREATE INDEX made_text ON made_at_once (t);
INSERT INTO made_at_once SELECT i, 'later', point(i % 100, i / 100) FROM generate_series(8001, 20000) i;
COMMIT;
UPDATE made_at_once SET t = 'u' WHERE i % 10 = 0;
-- GiST takes its page numbers from the WAL even where it logs no pages: nothing was logged between two splits
DO $$ BEGIN FOR i IN 1..20 LOOP
  EXECUTE format('CREATE TABLE gist_%s (p point)', i);
  EXECUTE format('CREATE INDEX gist_%s_p ON gist_%s USING gist (p)', i, i);
  EXECUTE format('INSERT INTO gist_%s SELECT point(random(), random()) FROM generate_series(1, 3000)', i);
  COMMIT;
END LOOP; END $$;
BEGIN; TRUNCATE child; INSERT INTO child (parent, v) SELECT 1 + i % 200, i FROM generate_series(1, 3000) i; COMMIT;
BEGIN; CREATE TABLE given_up (i int); INSERT INTO given_up SELECT generate_series(1, 5000); ROLLBACK;
CREATE TABLE selected AS SELECT * FROM account;
ALTER TABLE selected SET TABLESPACE pg_default;
CREATE INDEX selected_hash ON selected USING hash (branch);
CREATE INDEX selected_brin ON selected USING brin (id);
CREATE INDEX selected_gin ON selected USING gin (string_to_array(note, 'x'));
REINDEX TABLE selected;
VACUUM FULL selected;
REFRESH MATERIALIZED VIEW view;
