-- Roles of the database of everything.sql; their names begin alike, so that they can be told from those that a server has.
CREATE ROLE fid_owner SUPERUSER LOGIN PASSWORD 'owner';
SET SESSION AUTHORIZATION fid_owner;
CREATE ROLE fid_reader NOLOGIN CONNECTION LIMIT 7;
CREATE ROLE fid_writer LOGIN PASSWORD 'writer' VALID UNTIL '2040-01-01 00:00:00+00';
CREATE ROLE fid_admin CREATEROLE CREATEDB BYPASSRLS NOINHERIT;
GRANT fid_reader TO fid_writer WITH ADMIN OPTION;
GRANT fid_writer TO fid_admin WITH INHERIT FALSE, SET TRUE;
GRANT pg_read_all_data TO fid_admin;
ALTER ROLE fid_writer SET work_mem = '7MB';
COMMENT ON ROLE fid_reader IS 'reads, mostly';
CREATE DATABASE everything TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8' OWNER fid_owner CONNECTION LIMIT 50;
ALTER DATABASE everything SET extra_float_digits = 1;
ALTER ROLE fid_reader IN DATABASE everything SET statement_timeout = '90s';
GRANT CONNECT ON DATABASE everything TO fid_reader WITH GRANT OPTION;
