-- Changed rows are logged whole or by key.
CREATE TABLE whole_rows (id int, t text);
ALTER TABLE whole_rows REPLICA IDENTITY FULL;
CREATE TABLE user_catalog (id int PRIMARY KEY, t text) WITH (user_catalog_table = true);
