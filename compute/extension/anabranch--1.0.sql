\echo Use "CREATE EXTENSION anabranch" to load this file. \quit

CREATE FUNCTION counters(OUT name text, OUT value int8)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'anabranch_counters'
LANGUAGE C STRICT VOLATILE PARALLEL SAFE;

CREATE FUNCTION positions(OUT start_lsn pg_lsn, OUT acked_lsn pg_lsn, OUT flush_lsn pg_lsn)
AS 'MODULE_PATHNAME', 'anabranch_positions'
LANGUAGE C STRICT VOLATILE PARALLEL SAFE;

CREATE VIEW anabranch_stat AS SELECT name, value FROM counters();

GRANT SELECT ON anabranch_stat TO pg_monitor;
REVOKE EXECUTE ON FUNCTION counters() FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION positions() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION counters() TO pg_monitor;
GRANT EXECUTE ON FUNCTION positions() TO pg_monitor;
