"""Tests of Postgres that answer differently on a compute, with the reason: {(part, test): reason}.

docs/postgres-suites.md says it to people. The list only shrinks: a test in it that passes is a failure, too.
"""

NO_IMAGES = "it looks for a full page image; a compute writes none, since pages come from the pageserver's history"
NO_ALTER_SYSTEM = "ALTER SYSTEM is refused: settings are those of the endpoint, and are written anew at every start"
NO_MINIMAL = "it sets wal_level = minimal; a compute's WAL is what its storage is made of"
NO_OTHER_STANDBYS = "it waits for a synchronous subscriber; synchronous_standby_names is the storage's, and ALTER SYSTEM is refused"
SLOT_IN_WAL = "it wants no WAL between the end of its walsender and the shutdown checkpoint; a compute writes the slot's last state there"
PROPOSER = "the walproposer is there as a standby, with a walsender"
NO_FILES = "relations have no files on a compute"
NO_PHYSICAL = "it looks for what psql says when START_REPLICATION PHYSICAL begins to stream; a compute refuses it"
DIFFERENCES = {
    ("clients", "psql/001_basic/handling of unexpected PQresultStatus: matches"): NO_PHYSICAL,
    ("admin", "SELECT (pg_stat_file(pg_relation_filepath('t'))).size"): NO_FILES,
    ("admin", "SELECT length(pg_read_binary_file(pg_relation_filepath('t'), 0, 8192))"): NO_FILES,
    ("admin", "SELECT count(*) > 3 FROM pg_ls_dir('base/' || (SELECT oid FROM pg_database W"): NO_FILES,
    ("admin", "SELECT count(*) FROM pg_stat_replication"): PROPOSER,
    ("admin", "SELECT backend_type, count(*) FROM pg_stat_activity WHERE backend_type <> 'c"): PROPOSER,
    ("admin", "ALTER SYSTEM SET work_mem = '8MB'"): NO_ALTER_SYSTEM,
    ("decoding", "038_save_logical_slots_shutdown/Check that the slot's confirmed_flush LSN is the same as the "
     "latest_checkpoint location"): SLOT_IN_WAL,
    ("decoding", "046_checkpoint_logical_slot"): "after a crash its logical slot is valid, as it wants; then it makes a standby",
    ("subscription", '001_rep_changes/CREATE PUBLICATION while "wal_level=minimal"'): NO_MINIMAL,
    ("subscription", "010_truncate"): NO_OTHER_STANDBYS,
    ("contrib", "auto_explain/alter_reset"): NO_ALTER_SYSTEM,
    ("modules", "test_oat_hooks/test_oat_hooks"): NO_ALTER_SYSTEM,
    ("modules", "unsafe_tests/guc_privs"): NO_ALTER_SYSTEM,
    ("contrib-quick", "pg_walinspect/pg_walinspect"): NO_IMAGES,
    ("contrib", "pg_walinspect/pg_walinspect"): NO_IMAGES,
}
