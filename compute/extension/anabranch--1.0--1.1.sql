\echo Use "ALTER EXTENSION anabranch UPDATE" to load this file. \quit

CREATE FUNCTION local_cache_check(OUT db oid, OUT rel oid, OUT fork int4, OUT block int8, OUT found text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'anabranch_local_cache_check'
LANGUAGE C STRICT VOLATILE;

REVOKE EXECUTE ON FUNCTION local_cache_check() FROM PUBLIC;
