"""The compute's local cache: what it hands out is the newest version of a page, whatever happens to it meanwhile."""
import itertools
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import threading

import pq
from cluster import ROOT, wait_for

TINY = {"shared_buffers": "1MB", "anabranch.local_cache_mb": "2", "autovacuum": "off", "max_wal_size": "64MB"}
EVICT = "SELECT count(*) FILTER (WHERE pg_buffercache_evict(bufferid)) FROM pg_buffercache WHERE relfilenode IS NOT NULL"
SCRIPTS = "compute/extension/anabranch--1.0.sql", "compute/extension/anabranch--1.0--1.1.sql"
AMCHECK = """
    SELECT count(bt_index_check(c.oid, c.relkind = 'i')) FROM pg_class c JOIN pg_am a ON a.oid = c.relam
    WHERE a.amname = 'btree' AND c.relkind = 'i' AND c.relpersistence = 'p';
    SELECT string_agg(v.msg, '; ') FROM pg_class c CROSS JOIN LATERAL verify_heapam(c.oid) v
    WHERE c.relkind IN ('r', 'm', 't') AND c.relpersistence = 'p'
"""


def each(db, statements):
    """One by one: what VACUUM and CREATE DATABASE need, and a page of a running transaction stays in the spill."""
    for statement in statements.split(";"):
        db.query(statement)


class Compute:
    """A branch's compute with few buffers and a small cache, and a superuser on it."""

    def __init__(self, cluster, name, settings):
        project = cluster.create_project(name)
        self.cluster = cluster
        self.branch = project.create_branch("small", project.main(), endpoint=False).add_endpoint(
            **{"anabranch.local_cache_mb": "1024"} | settings)
        self.sql("CREATE EXTENSION pg_buffercache; CREATE EXTENSION amcheck; CREATE SCHEMA anabranch")
        # what CREATE EXTENSION would do: that looks for its files in the Postgres of all tests
        scripts = "".join((ROOT / path).read_text() for path in SCRIPTS).replace("MODULE_PATHNAME", "anabranch")
        self.sql("SET search_path = anabranch;" + re.sub(r"^\\echo.*$", "", scripts, flags=re.M))

    @classmethod
    def of_branch(cls, cluster, branch):
        compute = cls.__new__(cls)
        compute.cluster, compute.branch = cluster, branch
        return compute

    def uri(self):
        return wait_for("it runs", lambda: self.branch.compute().get("superuser_uri"))

    def connect(self):
        return wait_for("connect", lambda: pq.connect(self.uri()))

    def sql(self, sql):
        with self.connect() as db:
            return db.query(sql)

    def counter(self, name):
        return int(self.sql(f"SELECT value FROM anabranch.anabranch_stat WHERE name = '{name}'")[0][0])

    def postmaster(self):
        return self.branch.compute()["pids"]["postgres"]

    def set(self, name, value):
        with open(f"/proc/{self.postmaster()}/cwd/postgresql.conf", "a") as conf:
            conf.write(f"{name} = {value}\n")
        os.kill(self.postmaster(), signal.SIGHUP)

    def resize(self, mb):
        self.set("anabranch.local_cache_mb", mb)
        wait_for("the new size", lambda: self.counter("cache_blocks_max") == mb * 128)

    def kill(self):
        before = self.postmaster()
        os.kill(before, signal.SIGKILL)
        wait_for("another Postgres", lambda: self.branch.compute()["pids"].get("postgres", 0) not in (0, before) and self.uri())

    def tool(self, name, *args):
        done = subprocess.run([self.cluster.postgres / "bin" / name, *args, self.uri()], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=120)
        assert done.returncode == 0, done.stdout[-1500:]
        return done.stdout

    def check(self, least=1):
        """Every cached page is the newest one, and there are some."""
        wrong = self.sql("CHECKPOINT; SELECT db, rel, fork, block, found FROM anabranch.local_cache_check()")
        assert wrong == [], f"{len(wrong)} stale pages in the cache: {wrong[:5]}"
        assert self.counter("cache_blocks_now") >= least, "the cache is empty: nothing was checked"
        assert self.counter("cache_damaged_blocks") == 0


def test_a_read_is_answered_by_the_local_cache(cluster):
    compute = Compute(cluster, "cache-hits", {"shared_buffers": "128MB"})
    with compute.connect() as db:
        each(db, "CREATE TABLE t AS SELECT i, repeat('x', 500) AS text FROM generate_series(1, 5000) i; CHECKPOINT")
        db.query(EVICT)
        before, remote = compute.counter("read_cache_blocks"), compute.counter("read_remote_blocks")
        assert db.value("SELECT count(*) FROM t") == "5000"
        assert compute.counter("read_cache_blocks") - before >= 330
        assert compute.counter("read_remote_blocks") - remote < 50
    compute.check(330)


def test_a_reader_sees_where_its_pages_came_from(cluster):
    compute = Compute(cluster, "explained", {"shared_buffers": "128MB", "max_parallel_workers_per_gather": "0"})
    with compute.connect() as db:
        each(db, "CREATE TABLE t AS SELECT i, repeat('x', 500) AS text FROM generate_series(1, 5000) i; VACUUM t; CHECKPOINT")
        pages = int(db.value("SELECT pg_relation_size('t') / 8192"))
        plan = "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT count(*) FROM t"
        db.query(EVICT)
        assert "Anabranch" not in str(db.query(plan))
        db.query("SET anabranch.explain = on")
        for workers in (0, 2): # what they read counts for their leader
            db.query(EVICT)
            each(db, f"SET max_parallel_workers_per_gather = {workers}; SET min_parallel_table_scan_size = 0; SET parallel_setup_cost = 0")
            cached = int(re.search(r"Anabranch: cache=(\d+)", str(db.query(plan))).group(1))
            assert pages - 5 <= cached < pages + 100, (workers, cached, pages)
        compute.resize(0)
        db.query(EVICT)
        remote, used = re.search(r"pageserver=(\d+).*used=(\d+)", str(db.query(plan))).groups()
        assert pages - 5 <= int(remote) + int(used) < pages + 100, (remote, used)
        db.query(EVICT)
        plan = plan.replace("COSTS", "FORMAT JSON, COSTS")
        read = json.loads(db.value(plan))[1]["Anabranch"]
        assert read["Cache Blocks"] == 0 and read["Pageserver Blocks"] + read["Read Ahead Used Blocks"] >= pages - 5, read
        [(remote, waits)] = db.query("""SELECT pageserver_blocks, waits FROM anabranch.anabranch_stat_sessions
                                        WHERE pid = pg_backend_pid()""")
        assert int(remote) > 0 and int(waits) > 0
        # a scan of what does not fit leaves most of the cache to the next one
        compute.resize(8)
        each(db, "SET max_parallel_workers_per_gather = 0; CREATE TABLE large AS SELECT i, repeat('x', 500) AS text"
                 " FROM generate_series(1, 20000) i; VACUUM large; CHECKPOINT")
        plan = plan.replace("FROM t", "FROM large")
        for _ in range(4):
            db.query(EVICT)
            cached = json.loads(db.value(plan))[1]["Anabranch"]["Cache Blocks"]
        assert 256 <= cached <= 1024, cached
    [(waits, counted)] = compute.sql("""
        SELECT (SELECT sum(waits) FROM anabranch.anabranch_stat_waits) >= value, value > 0
        FROM anabranch.anabranch_stat WHERE name = 'pageserver_waits'""")
    assert (waits, counted) == ("t", "t")


def test_pages_are_asked_for_before_they_are_wanted(cluster):
    """By scans in order, by those of which Postgres tells, and by maintenance; and few of them in vain."""
    compute = Compute(cluster, "ahead", {"shared_buffers": "128MB", "autovacuum": "off", "anabranch.local_cache_mb": "0",
                                         "max_parallel_workers_per_gather": "0", "default_statistics_target": "5"})
    names = ("read_remote_blocks", "read_ahead_blocks", "read_ahead_hit_blocks", "read_ahead_wasted_blocks",
             "read_spill_blocks")
    with compute.connect() as db:
        each(db, "CREATE TABLE t AS SELECT i, random() AS x, repeat('x', 500) AS text FROM generate_series(1, 40000) i;"
                 "CREATE INDEX ON t (x); VACUUM ANALYZE t; CHECKPOINT")
        wait_for("the quorum has it", lambda: db.value("SELECT acked_lsn >= flush_lsn FROM anabranch.positions()") == "t")
        each(db, f"SET enable_seqscan = off; SET enable_indexscan = off; {EVICT}; CHECKPOINT")
        for statement, least in (("SELECT sum(i) FROM t WHERE i > 0", 2400), ("SELECT sum(i) FROM t WHERE x < 0.02", 400),
                                 ("SELECT sum(i) FROM t WHERE x < 0.4", 2000), ("SELECT sum(i) FROM t WHERE i > 0", 2400),
                                 ("VACUUM (FREEZE, DISABLE_PAGE_SKIPPING) t", 2000), ("ANALYZE t", 1000)):
            db.query(EVICT)
            before = [compute.counter(name) for name in names]
            db.query(statement)
            remote, asked, used, wasted, spilled = (compute.counter(name) - value for name, value in zip(names, before))
            # what left the buffers before the quorum had it may be in the spill for long
            assert used + spilled >= least, f"{statement}: {used} of {asked} asked for ahead were used, {remote} waited for"
            assert remote < 200 and wasted < used / 4 + 100, (statement, remote, asked, used, wasted)


def test_cached_pages_go_with_their_blocks(cluster):
    compute = Compute(cluster, "cache-forgets", {"shared_buffers": "128MB", "autovacuum": "off"})
    with compute.connect() as db:
        filled = "SELECT i, repeat('x', 500) AS text FROM generate_series(1, 2000) i"
        each(db, f"CREATE TABLE cut AS {filled}; CREATE TABLE emptied AS {filled}; CREATE TABLE gone AS {filled}; CHECKPOINT")
        each(db, "CREATE DATABASE other; CHECKPOINT")
        compute.check(350)
        db.query("DELETE FROM cut WHERE i > 1000")
        each(db, "VACUUM (TRUNCATE) cut; TRUNCATE emptied; DROP TABLE gone")
        db.query("DROP DATABASE other")
        compute.check(60)
        # new blocks where cached ones were: all but the first are added without being written
        db.query(f"INSERT INTO cut {filled}; INSERT INTO emptied {filled}")
        db.query(EVICT)
        assert db.value("SELECT count(*) FROM cut") == "3000"
        assert db.value("SELECT count(*) FROM emptied") == "2000"
    compute.check(60)


def test_a_block_read_ahead_is_not_used_once_it_was_superseded(cluster):
    """One backend has blocks in its pocket, another one changes them and they leave the buffer pool. No cache: it would
    be asked first."""
    compute = Compute(cluster, "read-ahead", {"shared_buffers": "128MB", "autovacuum": "off", "anabranch.local_cache_mb": "0"})
    with compute.connect() as reader, compute.connect() as writer:
        each(writer, "CREATE TABLE t AS SELECT i, 0 AS v, repeat('x', 500) AS text FROM generate_series(1, 4000) i; CHECKPOINT")
        writer.query(EVICT)
        each(reader, "BEGIN; DECLARE c CURSOR FOR SELECT v FROM t; FETCH 1500 FROM c")
        ahead = compute.counter("read_ahead_blocks")
        assert ahead > 0
        writer.query("UPDATE t SET v = 1")
        wait_for("the quorum has it", lambda: writer.value("SELECT acked_lsn >= flush_lsn FROM anabranch.positions()") == "t")
        writer.query("CHECKPOINT")
        writer.query(EVICT)
        reader.query("FETCH ALL FROM c")
        counted = writer.query("SELECT sum(v), count(*) FROM t")
        assert counted == [("4000", "4000")], counted
        stale = compute.counter("read_ahead_stale_blocks")
        assert stale > 0, "no block in a pocket was superseded: nothing was tested"

        # and those of a scan that ended early are asked for again, ahead
        writer.query(EVICT)
        each(reader, "COMMIT; BEGIN; DECLARE c CURSOR FOR SELECT v FROM t; FETCH 1500 FROM c; COMMIT")
        writer.query("UPDATE t SET v = 2")
        wait_for("the quorum has it", lambda: writer.value("SELECT acked_lsn >= flush_lsn FROM anabranch.positions()") == "t")
        each(writer, f"CHECKPOINT; {EVICT}")
        used = compute.counter("read_ahead_hit_blocks")
        counted = reader.query("SELECT sum(v), count(*) FROM t")
        assert counted == [("8000", "4000")], counted
        assert compute.counter("read_ahead_stale_blocks") == stale
        assert compute.counter("read_ahead_hit_blocks") - used >= 400


def test_a_cache_outlives_a_clean_stop_and_nothing_else(cluster):
    compute = Compute(cluster, "cache-kept", {"shared_buffers": "128MB", "autovacuum": "off",
                                              "anabranch.prewarm_mb_per_s": "0"})
    with compute.connect() as db:
        each(db, "CREATE TABLE t AS SELECT i, 0 AS v, repeat('x', 500) AS text FROM generate_series(1, 15000) i; CHECKPOINT")
        folder = pathlib.Path(db.value("SHOW anabranch.local_cache_dir"))

    def restart(before_start=lambda: None):
        compute.branch.suspend()
        before_start()
        compute.branch.start()
        return compute.counter("cache_blocks_now")

    kept, old = restart(), folder.parent / "cache.old"
    assert kept > 1000, kept
    assert not (folder / "anabranch.index").exists(), "a crash would leave it to the next start"
    compute.check(1000)
    remote = compute.counter("read_remote_blocks")
    assert compute.sql("SELECT sum(v), count(*) FROM t") == [("0", "15000")]
    assert compute.counter("read_remote_blocks") - remote < 50

    # another host might have written in between: what is here is of an earlier stop
    compute.branch.suspend()
    shutil.copytree(folder, old)
    assert (old / "anabranch.index").exists()
    compute.branch.start()
    compute.sql("UPDATE t SET v = 1")

    def put_back():
        for name in ("anabranch.index", "anabranch.pages"):
            (folder / name).write_bytes((old / name).read_bytes())
            shutil.chown(folder / name, *(["postgres", "postgres"] if os.geteuid() == 0 else [os.getuid()]))
    restart(put_back)
    counted = compute.sql("SELECT sum(v), count(*) FROM t")
    assert counted == [("15000", "15000")], counted
    compute.check()

    compute.sql("UPDATE t SET v = 2")
    compute.kill()
    assert compute.counter("cache_blocks_now") < 700, "pages are left after a crash"
    counted = compute.sql("SELECT sum(v), count(*) FROM t")
    assert counted == [("30000", "15000")], counted


def test_a_late_answer_is_not_cached(cluster):
    """A reader past the buffer pool asks; before it is answered, from before the change, the page is changed, written and
    cached, and the cache gives it up again."""
    compute = Compute(cluster, "late", {"shared_buffers": "128MB", "autovacuum": "off", "anabranch.prewarm_mb_per_s": "0"})
    limit = "SELECT value FROM anabranch.anabranch_stat WHERE name = 'cache_blocks_max'"
    waits = "SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND wait_event = 'AnabranchPageserver'"
    with compute.connect() as late, compute.connect() as db:
        each(db, "CREATE EXTENSION pg_prewarm; CREATE TABLE t AS SELECT 1 AS v; CHECKPOINT")
        ask = "SELECT pg_prewarm('t', 'read', 'main', 0, 0)"
        pid = late.value("SELECT pg_backend_pid()")

        def resize(mb):
            compute.set("anabranch.local_cache_mb", mb)
            wait_for("the new size", lambda: db.value(limit) == str(mb * 128))
        for statement in (waits.format(pid), "UPDATE t SET v = 1", ask): # all that they need is in buffers and caches
            each(db, statement)
            late.query(ask)
        resize(0)
        resize(16)
        cluster.pageserver.arm("wal_ingest.piece=pause:1500")
        os.kill(cluster.pageserver.pid, signal.SIGSTOP)
        asking = threading.Thread(target=late.query, args=(ask,))
        try:
            asking.start()
            wait_for("it has asked", lambda: db.value(waits.format(pid)) == "1")
            each(db, "UPDATE t SET v = 2; SELECT v FROM t; CHECKPOINT") # with hints: nothing is to be written later
            resize(0)
            resize(16)
        finally:
            os.kill(cluster.pageserver.pid, signal.SIGCONT)
            asking.join()
            cluster.pageserver.arm("")
    compute.check(0)


def test_an_empty_cache_is_filled_with_what_the_last_one_had(cluster):
    """On another host, that is without the files of the cache, and on a branch."""
    compute = Compute(cluster, "prewarm", {"shared_buffers": "128MB", "autovacuum": "off"})
    with compute.connect() as db:
        each(db, "CREATE TABLE t AS SELECT i, repeat('x', 500) AS text FROM generate_series(1, 30000) i; CHECKPOINT")
        folder = pathlib.Path(db.value("SHOW anabranch.local_cache_dir"))

    def is_filled(compute):
        wait_for("it is filled", lambda: compute.counter("prewarm_done") == 1)
        assert compute.counter("prewarm_blocks") >= 2000
        with compute.connect() as db:
            remote = compute.counter("read_remote_blocks")
            assert db.value("SELECT count(*) FROM t") == "30000"
        assert compute.counter("read_remote_blocks") - remote < 100
        compute.check(2000)

    compute.branch.suspend()
    shutil.rmtree(folder)
    compute.branch.start()
    is_filled(compute)
    compute.sql("UPDATE t SET text = 'short' WHERE i % 2 = 0") # and kept by a stop that is none
    compute.kill()
    is_filled(compute)
    branch = compute.branch.project.create_branch("heir", compute.branch, endpoint=False)
    is_filled(Compute.of_branch(cluster, branch.add_endpoint(**{"anabranch.local_cache_mb": "64"})))


def rewrite_things(compute, turns, stop, errors):
    """DDL that moves, cuts and drops what pgbench uses, until told to stop."""
    try:
        while not stop.is_set():
            turn = next(turns)
            with compute.connect() as db:
                db.query(f"CREATE TABLE side{turn} AS SELECT i, md5(i::text) FROM generate_series(1, 4000) i")
                db.query(f"CREATE INDEX ON side{turn} (i)")
                db.query(f"DELETE FROM side{turn} WHERE i > {1000 + 500 * (turn % 4)}")
                db.query(f"VACUUM side{turn}")
                db.query(f"INSERT INTO side{turn} SELECT i, 'again' FROM generate_series(1, 2000) i")
                if turn % 3 == 2:
                    each(db, f"TRUNCATE side{turn - 1}; DROP TABLE side{turn - 2}")
                if turn % 4 == 1:
                    db.query("REINDEX TABLE pgbench_accounts")
                if turn % 4 == 2:
                    each(db, "VACUUM FULL pgbench_branches; VACUUM pgbench_accounts")
                if turn % 4 == 3:
                    db.query(f"CREATE DATABASE other{turn}")
                    db.query(f"DROP DATABASE other{turn} WITH (FORCE)")
            compute.resize((1, 3, 0, 2)[turn % 4])
    except Exception as error: # noqa: BLE001 - told by the test
        errors.append(error)


def check_all(compute):
    wrong = compute.sql(AMCHECK)
    assert wrong[0][0] is None, wrong
    sums = compute.sql("""SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(bbalance) FROM pgbench_branches),
                                 (SELECT sum(tbalance) FROM pgbench_tellers), (SELECT sum(delta) FROM pgbench_history)""")[0]
    assert len(set(sums)) == 1, f"balances differ: {sums}"
    compute.check()


def test_a_tiny_cache_is_never_stale(cluster):
    """Everything is evicted all the time, moved, cut and dropped, the cache grows and shrinks, and Postgres is killed.
    LOCAL_CACHE_ROUNDS=20 for a long one."""
    compute = Compute(cluster, "cache-tiny", TINY)
    compute.tool("pgbench", "-i", "-s", "2", "-q")
    turns = itertools.count()
    for _ in range(int(os.environ.get("LOCAL_CACHE_ROUNDS", 1))):
        stop, errors = threading.Event(), []
        ddl = threading.Thread(target=rewrite_things, args=(compute, turns, stop, errors))
        ddl.start()
        try:
            output = compute.tool("pgbench", "-n", "-c", "4", "-T", "5")
        finally:
            stop.set()
            ddl.join()
        assert not errors, errors
        assert re.search(r"number of failed transactions: 0 ", output), output
        compute.resize(2)
        check_all(compute)
        assert compute.counter("read_cache_blocks") > 100, "nothing was read from the cache"
        compute.kill()
        check_all(compute)


def test_a_broken_file_costs_no_query(cluster):
    """Damage is noticed by its checksum and read again; a file that cannot be used turns the cache off."""
    compute = Compute(cluster, "cache-broken", {"shared_buffers": "128MB"})
    with compute.connect() as db:
        each(db, "CREATE TABLE t AS SELECT i, repeat('x', 500) AS text FROM generate_series(1, 2000) i; CHECKPOINT")
        db.query(EVICT)
        path = db.value("SHOW anabranch.local_cache_dir")
        with open(f"{path}/anabranch.pages", "r+b") as pages:
            for begin in range(0, os.fstat(pages.fileno()).st_size, 8192):
                pages.seek(begin + 4000)
                pages.write(b"damage")
        assert db.value("SELECT sum(i) FROM t") == str(2000 * 2001 // 2)
        assert compute.counter("cache_damaged_blocks") > 100
        db.query(EVICT)
        assert db.value("SELECT sum(i) FROM t") == str(2000 * 2001 // 2)
