-- Index access methods besides B-tree, before the base copy.
CREATE EXTENSION bloom;
CREATE TABLE old_points (id int, p point);
INSERT INTO old_points SELECT i, point(i % 100, i / 100) FROM generate_series(1, 3000) i;
CREATE INDEX old_points_gist ON old_points USING gist (p);
CREATE INDEX old_points_spgist ON old_points USING spgist (p);
