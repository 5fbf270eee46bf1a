"""Tests of Postgres that answer differently on a compute, with the reason: {(part, test): reason}.

docs/postgres-suites.md says it to people. The list only shrinks: a test in it that passes is a failure, too.
"""

NO_IMAGES = "it looks for a full page image; a compute writes none, since pages come from the pageserver's history"
DIFFERENCES = {
    ("contrib-quick", "pg_walinspect/pg_walinspect"): NO_IMAGES,
    ("contrib", "pg_walinspect/pg_walinspect"): NO_IMAGES,
}
