"""Tests of Postgres that answer differently on a compute, with the reason: {(part, test): reason}.

docs/postgres-suites.md says it to people. The list only shrinks: a test in it that passes is a failure, too.
"""

NO_IMAGES = "it looks for a full page image; a compute writes none, since pages come from the pageserver's history"
NO_ALTER_SYSTEM = "ALTER SYSTEM is refused: settings are those of the endpoint, and are written anew at every start"
DIFFERENCES = {
    ("contrib", "auto_explain/alter_reset"): NO_ALTER_SYSTEM,
    ("modules", "test_oat_hooks/test_oat_hooks"): NO_ALTER_SYSTEM,
    ("modules", "unsafe_tests/guc_privs"): NO_ALTER_SYSTEM,
    ("contrib-quick", "pg_walinspect/pg_walinspect"): NO_IMAGES,
    ("contrib", "pg_walinspect/pg_walinspect"): NO_IMAGES,
}
