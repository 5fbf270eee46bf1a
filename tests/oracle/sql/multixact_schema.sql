-- Few rows that many lock.
CREATE TABLE shared_rows (id int PRIMARY KEY, v int) WITH (fillfactor = 50);
INSERT INTO shared_rows SELECT i, 0 FROM generate_series(1, 40) i;
CREATE TABLE references_them (id bigserial PRIMARY KEY, row int REFERENCES shared_rows (id));
