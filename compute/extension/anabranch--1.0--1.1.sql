\echo Use "ALTER EXTENSION anabranch UPDATE" to load this file. \quit

CREATE FUNCTION local_cache_check(OUT db oid, OUT rel oid, OUT fork int4, OUT block int8, OUT found text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'anabranch_local_cache_check'
LANGUAGE C STRICT VOLATILE;

REVOKE EXECUTE ON FUNCTION local_cache_check() FROM PUBLIC;

CREATE FUNCTION session_counters(OUT pid int4, OUT name text, OUT value int8)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'anabranch_session_counters'
LANGUAGE C STRICT VOLATILE PARALLEL SAFE;

CREATE FUNCTION wait_histogram(OUT up_to_us int8, OUT waits int8)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'anabranch_wait_histogram'
LANGUAGE C STRICT VOLATILE PARALLEL SAFE;

-- What each session has read; parallel workers count for their leader.
CREATE VIEW anabranch_stat_sessions AS
SELECT pid,
	max(value) FILTER (WHERE name = 'read_cache_blocks') AS cache_blocks,
	max(value) FILTER (WHERE name = 'read_remote_blocks') AS pageserver_blocks,
	max(value) FILTER (WHERE name = 'read_spill_blocks') AS spill_blocks,
	max(value) FILTER (WHERE name = 'read_ahead_blocks') AS ahead_blocks,
	max(value) FILTER (WHERE name = 'read_ahead_hit_blocks') AS ahead_used_blocks,
	max(value) FILTER (WHERE name = 'read_ahead_stale_blocks') AS ahead_superseded_blocks,
	max(value) FILTER (WHERE name = 'read_ahead_wasted_blocks') AS ahead_wasted_blocks,
	max(value) FILTER (WHERE name = 'pageserver_waits') AS waits,
	max(value) FILTER (WHERE name = 'pageserver_wait_us') / 1000.0 AS wait_ms
FROM session_counters() GROUP BY pid;

-- Waits for the pageserver by their length, since the server started.
CREATE VIEW anabranch_stat_waits AS SELECT up_to_us, waits FROM wait_histogram();

GRANT SELECT ON anabranch_stat_sessions, anabranch_stat_waits TO pg_monitor;
REVOKE EXECUTE ON FUNCTION session_counters() FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION wait_histogram() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION session_counters() TO pg_monitor;
GRANT EXECUTE ON FUNCTION wait_histogram() TO pg_monitor;
