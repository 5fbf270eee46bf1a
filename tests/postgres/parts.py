"""The parts of the suites `postgres` and `postgres-full`: which of Postgres' own tests run on which compute."""
import dataclasses
import pathlib

import admin
import cron
import gis
import scenarios
from compute import Failure, makefile_list
from dumps import dumps
from stage import Stage
from tap import tap, taps
from wraparound import wraparound

# What shows storage: access methods, their inspection, foreign tables to itself, logical decoding.
CONTRIB_QUICK = """amcheck bloom btree_gist dblink file_fdw hstore intarray lo ltree pageinspect pg_freespacemap pg_prewarm
pg_stat_statements pg_surgery pg_trgm pg_visibility pg_walinspect pgrowlocks pgstattuple postgres_fdw test_decoding""".split()
CONTRIB = """amcheck auto_explain bloom bool_plperl btree_gin btree_gist citext cube dblink dict_int dict_xsyn earthdistance
file_fdw fuzzystrmatch hstore hstore_plperl hstore_plpython intarray isn jsonb_plperl jsonb_plpython lo ltree ltree_plpython
pageinspect passwordcheck pg_buffercache pg_freespacemap pg_prewarm pg_stat_statements pg_surgery pg_trgm pg_visibility
pg_walinspect pgcrypto pgrowlocks pgstattuple postgres_fdw seg tablefunc tcn test_decoding tsm_system_rows tsm_system_time
unaccent""".split()
# Without a local cache every page that comes back is rebuilt from WAL by the pageserver.
BARE = {"shared_buffers": "1MB", "anabranch.local_cache_mb": "0"}
MODULES = """brin commit_ts delay_execution dummy_index_am dummy_seclabel gin injection_points plsample spgist_name_ops
test_bloomfilter test_copy_callbacks test_custom_types test_ddl_deparse test_dsa test_dsm_registry test_extensions
test_ginpostinglist test_integerset test_lfind test_oat_hooks test_parser test_pg_dump test_predtest test_radixtree
test_rbtree test_regex test_resowner test_rls_hooks test_shm_mq test_slru test_tidstore unsafe_tests""".split()
LANGUAGES = "plpgsql plperl plpython tcl".split()
# What the .conf files in contrib say. Query ids are computed, but EXPLAIN does not print them.
CONTRIB_SETTINGS = {"shared_preload_libraries": "pg_stat_statements", "compute_query_id": "regress", "wal_level": "logical",
                    "max_replication_slots": "4", "logical_decoding_work_mem": "64kB", "autovacuum_naptime": "1d",
                    "anabranch.allow_physical_slots": "on"}
# Without 005, which wants clusters of other encodings.
SUBSCRIPTION = [f"{number:03d}" for number in [*range(1, 34), 100] if number != 5]
# Without those that want other encodings or providers of locales, a server without an agent, or files of relations to damage.
CLIENTS = {
    "bin/psql": ["001", "020"], "bin/pgbench": ["001"], "bin/pg_amcheck": ["002", "005"], "bin/pg_basebackup": ["030"],
    "bin/scripts": ["010", "011", "040", "050", "070", "080", "090", "091", "100", "101", "102"],
    "bin/pg_dump": ["002", "003", "004", "005"], "test/modules/libpq_pipeline": None, "test/modules/worker_spi": None,
    "test/modules/commit_ts": ["001", "004"], "test/modules/brin": ["01"], "test/modules/test_pg_dump": None,
    "test/modules/test_misc": ["001", "002", "003", "004", "005", "007", "013"],
}
RECOVERY_SETTINGS = {"track_commit_timestamp": "on", "max_prepared_transactions": "20", "autovacuum_naptime": "1d"}
RECOVERY_ROOMY = RECOVERY_SETTINGS | {"shared_buffers": "16MB"}


@dataclasses.dataclass
class Part:
    about: str
    run: object           # (compute) -> yields (test, passed, diffs)
    settings: dict
    quick: bool = False   # in the suite `postgres`
    suites: bool = False  # needs tools/build-postgres --suites
    by_name: bool = False  # in no suite
    databases: tuple = ()  # those that amcheck looks at; none: all


def verdicts(compute, folder, results):
    diffs = compute.diffs(folder) if not all(results.values()) else ""
    for name, passed in results.items():
        yield name, passed, "" if passed else diffs


def core(compute):
    folder = compute.suites / "regress"
    yield from verdicts(compute, folder, compute.regress(folder, folder / "parallel_schedule", database="regression"))


def isolation(compute):
    folder = compute.suites / "isolation"
    schedule = folder / "isolation_schedule"
    yield from verdicts(
        compute, folder, compute.regress(folder, schedule, database="isolation_regression", isolation=True))


def module(compute, folder, database):
    """REGRESS and ISOLATION of a Makefile; the database stays, under the module's name."""
    if tests := makefile_list(folder, "REGRESS"):
        options = makefile_list(folder, "REGRESS_OPTS")
        for name, passed, diffs in verdicts(compute, folder, compute.regress(folder, tests, *options, database=database)):
            yield f"{folder.name}/{name}", passed, diffs
    if specs := makefile_list(folder, "ISOLATION"):
        options = makefile_list(folder, "ISOLATION_OPTS")
        results = compute.regress(folder, specs, *options, database=f"isolation_{database}", isolation=True)
        for name, passed, diffs in verdicts(compute, folder, results):
            yield f"{folder.name}/{name}", passed, diffs
    for used in (database, f"isolation_{database}"):
        if used in compute.databases():
            compute.sql(f'ALTER DATABASE "{used}" RENAME TO "{used}_{folder.name}"')


def modules(kind, names, database):
    def run(compute):
        for name in names:
            folder = compute.suites / kind / name
            if not pathlib.Path(folder).exists():
                raise Failure(f"{folder} is missing")
            yield from module(compute, folder, database)
    return run


def vector(compute):
    folder = compute.suites / "pgvector"
    tests = sorted(path.stem for path in (folder / "sql").glob("*.sql"))
    yield from verdicts(compute, folder, compute.regress(folder, tests, "--load-extension=vector", database="vectors"))


def recovery(chosen, event):
    def run(compute):
        stage = Stage(compute, event)
        try:
            yield from stage.play(chosen)
        finally:
            stage.end()
    return run


PARTS = {
    "regress-1mb": Part("the 225 tests of the core, with 1 MB of shared buffers", core, BARE, quick=True),
    "isolation": Part("the isolation tests", isolation, BARE, quick=True),
    "contrib-quick": Part("the extensions of contrib that look at storage", modules("contrib", CONTRIB_QUICK, "contrib_regression"),
                          CONTRIB_SETTINGS | BARE, quick=True),
    "recovery-quick": Part("scenarios of the recovery tests, over kills of the compute", recovery(scenarios.QUICK, "crash"),
                           RECOVERY_SETTINGS | BARE, quick=True, databases=("recovery",)),
    "admin": Part("what administrators and their tools ask, beside a stock server", admin.admin, admin.SETTINGS, quick=True),
    "regress-cached": Part("the tests of the core, with 1 MB and a local cache of 16 MB, which is too small", core,
                           {"shared_buffers": "1MB", "anabranch.local_cache_mb": "16"}),
    "regress-128mb": Part("the tests of the core, with 128 MB", core, {"shared_buffers": "128MB"}),
    "contrib": Part("all of contrib", modules("contrib", CONTRIB, "contrib_regression"), CONTRIB_SETTINGS, suites=True),
    "modules": Part("the modules of src/test", modules("modules", MODULES, "contrib_regression"),
                    {"shared_preload_libraries": "test_slru", "track_commit_timestamp": "on"}, suites=True),
    "pgvector": Part("pgvector, HNSW and IVFFlat", vector, {"shared_buffers": "1MB"}, suites=True),
    "recovery-kill": Part("the same, and more, with 16 MB", recovery(scenarios.QUICK + scenarios.FULL, "crash"), RECOVERY_ROOMY),
    "recovery-restart": Part("the same over clean restarts", recovery(scenarios.QUICK + scenarios.FULL, "restart"), RECOVERY_ROOMY),
    "recovery-branch": Part("the same on a branch, and on a branch of it", recovery(scenarios.QUICK + scenarios.FULL, "branch"),
                            RECOVERY_ROOMY),
    "dumps": Part("pg_dump, pg_dumpall and pg_restore both ways between a stock server and a compute", dumps,
                  {"shared_buffers": "16MB"}),
    "subscription": Part("src/test/subscription, publishers and subscribers on computes", tap("test/subscription", SUBSCRIPTION), {},
                         suites=True),
    "decoding": Part("the tests of src/test/recovery about logical slots, on computes", tap("test/recovery", ["006", "038", "046"]),
                     {}, suites=True),
    "clients": Part("the tests in Perl of psql, pgbench, pg_dump, scripts and of some modules, on computes", taps(CLIENTS), {}, suites=True),
    "wraparound": Part("transaction ids over segments, up to the limits, and around", wraparound, RECOVERY_SETTINGS |
                       {"track_commit_timestamp": "off"}, suites=True),
    "postgis": Part("PostGIS", gis.core, {"shared_buffers": "16MB"}, suites=True),
    "postgis-topology": Part("PostGIS topology", gis.topology, {"shared_buffers": "16MB"}, suites=True),
    "pg-cron": Part("jobs of pg_cron do not run on a branch", cron.cron, cron.PARENT, by_name=True),
    "languages": Part("PL/pgSQL, PL/Perl, PL/Python, PL/Tcl", modules("pl", LANGUAGES, "pl_regression"), {}, suites=True),
}
