"""The slices of tools/redocheck: what a server is set to, and what it does to write WAL.

A step is a function of the server. `before` runs before the base is copied, `after` behind it; then comes a checkpoint,
so that the twin writes its pages at the end, and `tail`, which is replayed on top of it.
"""
import dataclasses
import re

from server import SQL, Failure, makefile_list

COMMON = {
    "listen_addresses": "''", "fsync": "off", "full_page_writes": "off", "shared_buffers": "64MB",
    "max_wal_size": "64GB", "wal_keep_size": "64GB", "checkpoint_timeout": "1h", "max_prepared_transactions": "10",
    "allow_in_place_tablespaces": "on", "log_min_messages": "warning", "max_connections": "40",
    "wal_compression": "lz4", "max_wal_senders": "4", "max_replication_slots": "8",
}
BUSY = {"autovacuum_naptime": "1s", "autovacuum_vacuum_threshold": "50", "autovacuum_vacuum_scale_factor": "0.02",
        "autovacuum_vacuum_cost_delay": "0", "deadlock_timeout": "100ms"}
CHECKED = {"wal_consistency_checking": "all", "wal_log_hints": "on", "track_commit_timestamp": "on"}
# Under load two are left out, because the twin stops at their images: a hash record may name a page that the server has
# not locked, and a GiST one (gist_killed.sql) sets a flag in replay only.
LOADED = "heap,heap2,btree,gin,sequence,spgist,brin,generic"
# Recovery after a crash stops at a check image when the page was truncated away later and is there again, empty.
UNCHECKED = {"wal_log_hints": "on", "track_commit_timestamp": "on"}
PLAIN = {"wal_log_hints": "off", "full_page_writes": "on", "wal_level": "logical"}
REGRESS = {"max_connections": "60", "allow_in_place_tablespaces": "off"} # its tests switch the latter on

# For tests/oracle/planted.py: no images, small WAL; nothing in the background, what is recorded is what the SQL says.
DELTAS = {"wal_log_hints": "on", "track_commit_timestamp": "on", "autovacuum": "off"}
IMAGES = {"wal_log_hints": "off", "full_page_writes": "on", "wal_compression": "pglz", "wal_level": "logical",
          "autovacuum": "off"}


@dataclasses.dataclass
class Slice:
    about: str
    settings: dict
    before: list = dataclasses.field(default_factory=list)
    after: list = dataclasses.field(default_factory=list)
    tail: list = dataclasses.field(default_factory=list)
    offline: list = dataclasses.field(default_factory=list)  # on the stopped server, before the base is copied
    initdb: tuple = ()
    quick: bool = False     # part of the suite `redo`
    suites: bool = False    # needs tools/build-postgres --suites
    stopped: bool = False   # ends with a clean stop, and the server's own files are compared, too
    minimal: bool = False   # wal_level minimal: the twin is a crash recovery, there is no other
    by_name: bool = False   # material for another tool: no part of --all
    imply_vm: bool = False
    damage: bool = False


# ---------------------------------------------------------------- steps

def sql(*names):
    return lambda server: [server.sql_file(SQL / name) for name in names]


def statement(text, database="postgres"):
    return lambda server: server.sql(text, database)


def bench(*names, seconds=None, clients=8):
    def step(server):
        for name in names:
            server.pgbench(SQL / name, clients, seconds or server.args.seconds, server.args.seed)
    return step


def without_hash_and_gist(server):
    server.sql(f"ALTER SYSTEM SET wal_consistency_checking = '{LOADED}'")
    server.sql("SELECT pg_reload_conf()")


def brief(*names):
    """On top of the last checkpoint."""
    return lambda server: [server.pgbench(SQL / name, 8, 1, server.args.seed + 1) for name in names]


def tpcb(scale, seconds):
    def step(server):
        server.run("pgbench", "-i", "-q", "-s", scale)
        for mode in ("simple", "prepared"):
            server.run("pgbench", "-n", "-c", 8, "-j", 2, "-M", mode, "-T", seconds, "--random-seed", server.args.seed)
    return step


def core_regress(server):
    folder = server.suite("regress")
    server.regress(folder, folder / "parallel_schedule", "--dbname=regression")


def core_isolation(server):
    folder = server.suite("isolation")
    server.regress(folder, folder / "isolation_schedule", "--dbname=isolation", isolation=True)


def module_tests(kind, *names):
    """REGRESS and ISOLATION of contrib or src/test/modules."""
    def step(server):
        for name in names:
            folder = server.suite(kind) / name
            options = [f"--dbname={kind}_{name}"] + makefile_list(folder, "REGRESS_OPTS")
            tests = makefile_list(folder, "REGRESS")
            if tests:
                server.regress(folder, tests, *options)
            specs = makefile_list(folder, "ISOLATION")
            if specs:
                options = [f"--dbname={kind}_{name}"] + makefile_list(folder, "ISOLATION_OPTS")
                server.regress(folder, specs, *options, isolation=True)
            server.sql(f'DROP DATABASE IF EXISTS "{kind}_{name}" WITH (FORCE)')
    return step


def vector_tests(server):
    folder = server.suite("pgvector")
    tests = sorted(path.stem for path in (folder / "sql").glob("*.sql"))
    server.regress(folder, tests, "--dbname=vectors", "--load-extension=vector")


def crash(server, between=lambda: None):
    server.stop("immediate")
    between()
    server.start()


def restart_with(*rounds):
    """Each round is settings; a restart writes what changed into the WAL."""
    def step(server):
        for settings in rounds:
            server.stop("fast")
            server.configure(settings)
            server.start()
            server.sql("CREATE TABLE IF NOT EXISTS restarted (i int); INSERT INTO restarted SELECT generate_series(1, 500)")
    return step


def crash_under_load(times):
    """The server dies while transactions are under way, prepared ones among them, and recovers by itself."""
    def step(server):
        for turn in range(times):
            load = server.background("pgbench", "-n", "-c", 4, "-j", 2, "-T", 60, "--random-seed",
                                     server.args.seed + turn, "-f", SQL / "churn.pgb", "-f", SQL / "prepared.pgb")
            before = int(server.sql("SELECT txid_current()"))
            while int(server.sql("SELECT txid_current()")) < before + 400:
                if load.poll() is not None:
                    raise Failure("pgbench ended before the crash")
            crash(server, lambda: load.wait(timeout=60))
            for gid in server.sql("SELECT gid FROM pg_prepared_xacts").split():
                verb = "COMMIT" if sum(gid.encode()) % 2 else "ROLLBACK"
                server.sql(f"{verb} PREPARED '{gid}'")
    return step


def remove_segments(server, first):
    for path in (server.data / "pg_wal").iterdir():
        if re.fullmatch(r"[0-9A-F]{24}", path.name) and path.name >= first:
            path.unlink()


def torn_record(times):
    """A record whose end never reached the disk: after the crash the server writes over it."""
    def step(server):
        for _ in range(times):
            server.sql("SELECT pg_switch_wal()")
            server.sql("SELECT pg_logical_emit_message(false, 'torn', repeat('x', 5000000), true)")
            name = server.sql("SELECT pg_walfile_name(pg_current_wal_flush_lsn())")
            crash(server, lambda: remove_segments(server, name))
            server.sql("CREATE TABLE IF NOT EXISTS torn (i int); INSERT INTO torn SELECT generate_series(1, 1000)")
    return step


def full_page_writes_toggled(times):
    def step(server):
        for turn in range(times):
            server.sql(f"ALTER SYSTEM SET full_page_writes = {'off' if turn % 2 else 'on'}")
            server.sql("SELECT pg_reload_conf()")
            server.sql("CHECKPOINT")
    return step


def backups(times):
    def step(server):
        for _ in range(times):
            server.run("psql", "-X", "-q", "-c", "SELECT pg_backup_start('b', true)", "-c",
                       "SELECT * FROM pg_backup_stop(false)")
    return step


def promote(server):
    """The server becomes a standby of nobody, then a primary of the next timeline."""
    server.stop("fast")
    (server.data / "standby.signal").touch()
    server.own(server.data / "standby.signal")
    server.start()
    server.run(server.bin / "pg_ctl", "-D", server.data, "-w", "promote")


def every_database(command):
    def step(server):
        server.sql("ALTER DATABASE template0 ALLOW_CONNECTIONS true")
        for name in server.sql("SELECT datname FROM pg_database").split():
            server.sql(command, name)
    return step


def jump_xid(*targets):
    """The cluster gets old: frozen, then its next transaction is far on; as often as it takes to stay within 2^31."""
    def step(server):
        for target in targets:
            server.start()
            every_database("VACUUM (FREEZE)")(server)
            server.stop("fast")
            server.run(server.bin / "pg_resetwal", "-f", "-x", target, "-D", server.data)
            segment_of_zeros(server, "pg_xact", target // 32768)
        server.start()
        every_database("VACUUM (FREEZE)")(server)
        server.stop("fast")
    return step


def segment_of_zeros(server, folder, page):
    path = server.data / folder / f"{page // 32:04X}"
    path.write_bytes(bytes(32 * 8192))
    server.own(path)


def jump_multixact(multi, offset):
    """No multixact was ever made: the next one, and the next member, are far on."""
    def step(server):
        server.start()
        every_database(f"UPDATE pg_class SET relminmxid = '{multi}' WHERE relminmxid <> '0'")(server)
        server.sql(f"UPDATE pg_database SET datminmxid = '{multi}'")
        server.stop("fast")
        server.run(server.bin / "pg_resetwal", "-f", "-m", f"{multi},{multi}", "-O", offset, "-D", server.data)
        segment_of_zeros(server, "pg_multixact/offsets", multi // 2048)
        segment_of_zeros(server, "pg_multixact/members", offset // 1636)
        server.start()  # pg_resetwal says wal_level minimal, which recovery refuses
        server.stop("fast")
    return step


def consume_xids(rounds, count):
    """As often: many transactions, then everything is frozen and old SLRU segments go."""
    def step(server):
        server.sql("CREATE EXTENSION IF NOT EXISTS xid_wraparound")
        for turn in range(rounds):
            server.sql(f"CREATE TABLE IF NOT EXISTS aging (i int); INSERT INTO aging VALUES ({turn})")
            server.sql(f"SELECT consume_xids({count})")
            server.sql(f"INSERT INTO aging VALUES ({turn}); DELETE FROM aging WHERE i = {turn - 1}")
            every_database("VACUUM (FREEZE)")(server)
    return step


def multixact_rounds(rounds, seconds):
    def step(server):
        for _ in range(rounds):
            bench("multixact.pgb", seconds=seconds, clients=16)(server)
            every_database("VACUUM (FREEZE)")(server)
            server.sql("CHECKPOINT")
    return step


def rebuilds_under_load(rounds):
    """Indexes are made anew, also concurrently, while others write."""
    def step(server):
        for turn in range(rounds):
            load = server.background("pgbench", "-n", "-c", 6, "-j", 2, "-T", 6, "--random-seed",
                                     server.args.seed + turn, "-f", SQL / "torture.pgb")
            while load.poll() is None:
                server.sql_file(SQL / "torture.sql")
            load.wait()
    return step


CONTRIB = """amcheck bloom btree_gin btree_gist citext cube dblink dict_int dict_xsyn earthdistance file_fdw fuzzystrmatch
hstore intarray isn lo ltree pageinspect pg_surgery pg_trgm pg_visibility pg_walinspect pgcrypto pgrowlocks pgstattuple
postgres_fdw seg tablefunc tcn test_decoding tsm_system_rows tsm_system_time unaccent""".split()
MODULES = """brin commit_ts gin injection_points spgist_name_ops test_extensions test_ddl_deparse test_predtest
delay_execution unsafe_tests""".split()
WORK = ["churn.pgb", "locks.pgb", "race.pgb"]

SLICES = {
    "heap_and_btree": Slice(
        "heap, B-tree, transactions; images of every page", CHECKED | BUSY, [sql("schema.sql")],
        [sql("heap.sql", "btree.sql", "xact.sql"), bench(*WORK)], [brief(*WORK)], quick=True, imply_vm=True, damage=True),
    "hints_off_images_on": Slice(
        "full page images, hints not logged, wal_level logical", PLAIN | BUSY, [sql("schema.sql")],
        [sql("heap.sql", "btree.sql", "gist_killed.sql"), bench(*WORK)], [brief(*WORK)], quick=True, damage=True),
    "index_methods": Slice(
        "GIN, GiST, SP-GiST, hash, BRIN, bloom", CHECKED | BUSY, [sql("schema.sql", "methods_schema.sql")],
        [sql("methods.sql"), without_hash_and_gist, bench("methods.pgb")], [brief("methods.pgb")], quick=True, damage=True),
    "stopped_primary": Slice(
        "a primary stopped cleanly, its own files compared with masks", CHECKED | BUSY,
        [sql("schema.sql", "methods_schema.sql")],
        [sql("heap.sql", "btree.sql", "methods.sql"), without_hash_and_gist, bench(*WORK, "methods.pgb")], [brief(*WORK)],
        stopped=True),
    "regress": Slice(
        "the whole core regression suite", CHECKED | REGRESS, [], [core_regress],
        initdb=("--no-locale", "--encoding=UTF8")),
    "regress_images": Slice(
        "the same with full page images, checksums and zstd", PLAIN | REGRESS | {
            "wal_compression": "zstd", "wal_log_hints": "on", "wal_level": "replica"},
        [], [core_regress], initdb=("--no-locale", "--encoding=UTF8", "-k")),
    "isolation": Slice(
        "the isolation suite", CHECKED | {"deadlock_timeout": "10ms"}, [], [core_isolation]),
    "contrib": Slice(
        "the suites of contrib, wal_level logical",
        CHECKED | {"wal_level": "logical", "logical_decoding_work_mem": "64kB"}, [],
        [module_tests("contrib", *CONTRIB)], suites=True, initdb=("--no-locale", "--encoding=UTF8")),
    "modules": Slice(
        "modules of src/test, with injection points (incomplete GIN splits)",
        CHECKED | {"wal_level": "logical"}, [], [module_tests("modules", *MODULES)], suites=True, initdb=("--no-locale", "--encoding=UTF8")),
    "pgvector": Slice(
        "pgvector: HNSW and IVFFlat (generic records)", CHECKED, [sql("schema.sql")],
        [vector_tests, sql("vector.sql"), bench("vector.pgb", seconds=10)], [brief("vector.pgb")], suites=True),
    "pgbench": Slice(
        "TPC-B with checksums, full page images, zstd", {
            "full_page_writes": "on", "wal_compression": "zstd", "wal_level": "replica"} | BUSY,
        [sql("schema.sql")], [tpcb(10, 15), bench(*WORK, seconds=5)], [brief(*WORK)], initdb=("-k",)),
    "torture": Slice(
        "all index methods under concurrent rebuilds and vacuum; checksums, pglz", CHECKED | BUSY | {
            "wal_compression": "pglz", "track_commit_timestamp": "off", "wal_consistency_checking": LOADED},
        [sql("schema.sql", "torture_schema.sql")], [rebuilds_under_load(4)], [brief("torture.pgb")], initdb=("-k",)),
    "rare_kinds": Slice(
        "indexes in shapes that are rare; check images not compressed, hints not logged", CHECKED | {
            "wal_compression": "off", "wal_log_hints": "off", "autovacuum": "off"},
        [sql("schema.sql")], [sql("rare.sql")], [brief("churn.pgb")]),
    "multixact": Slice(
        "a storm of multixacts over the wraparound of ids and of members", CHECKED | BUSY | {
            "autovacuum_multixact_freeze_max_age": "10000", "vacuum_multixact_freeze_min_age": "0",
            "vacuum_multixact_freeze_table_age": "0"},
        [sql("schema.sql", "multixact_schema.sql")], [multixact_rounds(6, 6)], [brief("multixact.pgb")],
        offline=[jump_multixact(4294960000, 4294900000)]),
    "subtransactions": Slice(
        "thousands of subtransactions, prepared transactions", CHECKED | BUSY, [sql("schema.sql")],
        [sql("xact.sql"), bench("subtransactions.pgb", "prepared.pgb", seconds=6)], [brief("subtransactions.pgb")]),
    "transaction_ids": Slice(
        "CLOG and commit timestamps grow and are truncated", CHECKED | {"autovacuum": "off"}, [sql("schema.sql")],
        [consume_xids(10, 1100000)], [brief("churn.pgb")], suites=True),
    "wraparound": Slice(
        "transaction ids pass 2^32", CHECKED | {"autovacuum": "off"}, [sql("schema.sql")],
        [bench("churn.pgb"), consume_xids(3, 1100000), bench("churn.pgb")], [brief("churn.pgb")], suites=True,
        offline=[jump_xid(2000000000, 4000000000, 4294200000)]),
    "logical": Slice(
        "wal_level logical: rewritten catalogs, origins, messages, truncation", CHECKED | BUSY | {"wal_level": "logical"},
        [sql("schema.sql", "logical_schema.sql")], [sql("logical.sql"), bench(*WORK)], [brief(*WORK)]),
    "databases": Slice(
        "databases by both strategies, tablespaces, relation maps, relations truncated and made anew",
        CHECKED | {"autovacuum": "off"}, [sql("schema.sql")], [sql("databases.sql")], [brief("churn.pgb")]),
    "crashes": Slice(
        "crashes under load, torn records, changed settings, backups; segments of 1 MB", UNCHECKED | BUSY,
        [sql("schema.sql")],
        [crash_under_load(4), torn_record(3), full_page_writes_toggled(30), backups(12),
         restart_with(*[{"max_connections": str(50 + turn), "track_commit_timestamp": "off" if turn % 2 else "on",
                         "wal_log_hints": "on" if turn % 3 else "off"} for turn in range(12)], {"track_commit_timestamp": "on", "wal_log_hints": "on"}),
         crash_under_load(2)], [brief("churn.pgb"), crash, brief("churn.pgb")], initdb=("--wal-segsize=1",)),
    "promoted": Slice(
        "a promotion: the WAL goes on in another timeline", CHECKED | BUSY, [sql("schema.sql")],
        [promote, bench(*WORK)], [brief(*WORK)]),
    "minimal": Slice(
        "wal_level minimal: relations that are logged when their transaction commits", {
            "wal_level": "minimal", "max_wal_senders": "0", "wal_skip_threshold": "1TB", "autovacuum": "off",
            "wal_consistency_checking": "all", "wal_log_hints": "on"},
        [sql("schema.sql", "methods_schema.sql")], [sql("minimal.sql", "heap.sql", "btree.sql"), bench(*WORK)],
        [brief(*WORK)], minimal=True),
    "planted_tables": Slice(
        "for planted errors: heap, B-tree, transactions", DELTAS, [sql("schema.sql", "planted_schema.sql")],
        [sql("planted_tables.sql", "heap.sql", "btree.sql", "xact.sql"), bench(*WORK)], [brief(*WORK)], imply_vm=True,
        by_name=True),
    "planted_methods": Slice(
        "for planted errors: index methods", DELTAS, [sql("schema.sql", "methods_schema.sql", "planted_schema.sql")],
        [sql("methods.sql", "planted_methods.sql"), bench("methods.pgb")], [brief("methods.pgb")], by_name=True),
    "planted_databases": Slice(
        "for planted errors: databases that come again, SLRUs that are cut", DELTAS, [sql("planted_schema.sql")],
        [sql("planted_databases.sql")], by_name=True),
    "planted_images": Slice(
        "for planted errors: full page images, hints not logged", IMAGES, [sql("planted_schema.sql")],
        [sql("planted_images.sql")], by_name=True),
}
