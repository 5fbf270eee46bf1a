"""A compute at work against the same Postgres build run stock, on the same disk, in the same run, in turns.

Both have the same buffers. Stock commits wait for two of three `pg_receivewal --synchronous`, so that what it says is
durable as ours is. COMPUTE_SCALE (10; 200 is the long form) is pgbench's, COMPUTE_SECONDS (4) the length of a turn,
COMPUTE_ROUNDS (3) how many turns each has; figures are medians.

cached:    select-only with everything in the buffer pool, and 64 clients' tail through the compute's own port
reads:     select-only with few buffers, with and without the local cache; what a page from the pageserver adds
cold:      the time until 64 clients have their rate again after a start, with whatever the host has kept
scan:      sequential scan, with and without the local cache; files and caches of the system are dropped before
bulk:      index build, COPY, VACUUM
tpcb:      TPC-B, and the WAL of a transaction
"""
import contextlib
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

import pq
from cluster import running, wait_for
from parts import stock

SCALE = os.environ.get("COMPUTE_SCALE", "10")
SECONDS = os.environ.get("COMPUTE_SECONDS", "4")
ROUNDS = int(os.environ.get("COMPUTE_ROUNDS", "3"))
LARGE = int(SCALE) > 20
CACHES = (("pageserver", 0), ("local_cache", 8192))
PEER = "stock, the same build and buffers"
EVICT = "SELECT count(*) FROM pg_buffercache WHERE relfilenode IS NOT NULL AND pg_buffercache_evict(bufferid)"


def cpu_seconds(pid):
    """Of the process and of its children that have ended."""
    with open(f"/proc/{pid}/stat") as stat:
        ticks = stat.read().rsplit(")", 1)[1].split()[11:15]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def reading_cpu_seconds(pid):
    """Of a pageserver, but for the threads that compact what was written before."""
    total = 0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            name, _, rest = (task / "stat").read_text().partition("(")[2].rpartition(")")
            total += 0 if name.startswith("rocksdb:") else sum(map(int, rest.split()[11:13]))
    return total / os.sysconf("SC_CLK_TCK")


class Ours:
    def __init__(self, cluster):
        self.cluster, self.postgres = cluster, cluster.postgres
        project = cluster.create_project("work")
        self.branch = project.create_branch("bench", project.main(), endpoint=False).add_endpoint(shared_buffers="128MB")
        self.uri = self.branch.uri()

    def admin(self):
        uri = wait_for("it runs", lambda: self.branch.compute().get("superuser_uri"))
        return pq.connect(uri.replace("/postgres?", "/app?"))

    def restart(self, **settings):
        self.branch.suspend()
        self.branch.project.api("PATCH", f"/endpoints/{self.branch.endpoint()['id']}",
                                {"endpoint": {"settings": {"pg_settings": settings}}})
        self.branch.start()
        self.uri = self.branch.uri()
        self.branch.connect().close()

    def counters(self):
        with self.admin() as db:
            return {name: int(value) for name, value in db.query(
                "SELECT name, sum(value) FROM bench_counters() GROUP BY name")}

    def cpu(self, reads_only=False):
        pageserver = reading_cpu_seconds if reads_only else cpu_seconds
        return cpu_seconds(self.branch.compute()["pids"]["postgres"]) + pageserver(self.cluster.pageserver.pid)

    def prepare(self):
        with self.admin() as db:
            db.query("""CREATE FUNCTION bench_counters(OUT name text, OUT value int8) RETURNS SETOF record
                        AS 'anabranch', 'anabranch_counters' LANGUAGE C STRICT""")

    def settle(self):
        """Until the pageserver has nothing to do: what was loaded is compacted and uploaded, and takes processors too."""
        last = [cpu_seconds(self.cluster.pageserver.pid)]

        def is_at_rest():
            last.append(cpu_seconds(self.cluster.pageserver.pid))
            return last[-1] - last[-2] < 0.04
        wait_for("the pageserver is at rest", is_at_rest, timeout_s=600, interval_s=2)

    def files(self):
        """What may lie in the system's cache: the pageserver's files and the local cache."""
        return [*self.cluster.data.glob("pageserver*/**/*"), *self.cluster.data.glob("compute-agent/**/anabranch.pages")]


class Stock:
    def __init__(self, primary):
        self.primary, self.postgres = primary, primary.postgres
        self.uri = primary.uri.replace("//app@", "//client@")

    def admin(self):
        return pq.connect(self.primary.uri)

    def restart(self, **settings):
        with self.admin() as db:
            for name, value in settings.items():
                if not name.startswith("anabranch."):
                    db.query(f"ALTER SYSTEM SET {name} = '{value}'")
        self.primary.tool("pg_ctl", "-D", self.primary.data, "-w", "-l", f"{self.primary.folder}/log", "-m", "fast", "restart")
        with self.admin() as db:
            wait_for("the receivers", lambda: db.value(
                "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'quorum'") == "3")

    def cpu(self, reads_only=False):
        return cpu_seconds(open(f"{self.primary.data}/postmaster.pid").readline().strip())

    def prepare(self):
        """What works is no superuser here either, whose permissions nobody looks up: 2 % of a select."""
        with self.admin() as db:
            db.query("CREATE ROLE client LOGIN")
            db.query("GRANT ALL ON SCHEMA public TO client")

    def files(self):
        return pathlib.Path(self.primary.data, "base").glob("**/*")


@contextlib.contextmanager
def both(build):
    with running(build, local_cache_mb=1024) as cluster, stock.receivers(cluster.postgres, cluster.run_as) as uri:
        ours, theirs = Ours(cluster), Stock(uri.primary)
        for side in (ours, theirs):
            side.prepare()
            stock.pgbench(side.postgres, side.uri, "-i", "-q", "-s", SCALE)
            with side.admin() as db:
                db.query("CREATE EXTENSION pg_buffercache")
                db.query("VACUUM ANALYZE")
                db.query("CHECKPOINT")
        yield ours, theirs


def in_turns(sides, measure):
    """(ours, theirs): medians of ROUNDS turns each."""
    values = [[], []]
    for _ in range(ROUNDS):
        for side, to in zip(sides, values):
            to.append(measure(side))
        sides[1].primary.trim_copies()
    return statistics.median(values[0]), statistics.median(values[1])


def tps(side, clients, *args):
    """Many clients are given transactions, not time: it would be over before the last one is connected."""
    work = ["-T", SECONDS] if clients < 64 else ["-t", str(int(SECONDS) * (100 if "-S" in args else 20))]
    return stock.tps(stock.pgbench(side.postgres, side.uri, "-n", "-c", str(clients), "-j", "2", *work, *args))


def warm(side):
    with side.admin() as db:
        db.query("CREATE EXTENSION IF NOT EXISTS pg_prewarm")
        db.query("SELECT pg_prewarm('pgbench_accounts'), pg_prewarm('pgbench_accounts_pkey')")
    stock.pgbench(side.postgres, side.uri, "-n", "-S", "-c", "8", "-j", "2", "-T", "1")


def tail(side, queries, clients=64):
    """(queries a second, p99 in ms) of select-only, that many by each client."""
    with tempfile.TemporaryDirectory() as folder:
        out = subprocess.run([str(side.postgres / "bin/pgbench"), "-n", "-S", "-c", str(clients), "-j", "2", "-t", str(queries),
                              "-l", "--sampling-rate=0.2", side.uri], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             text=True, cwd=folder)
        if out.returncode != 0:
            raise RuntimeError(out.stdout)
        took = sorted(int(line.split()[2]) for log in pathlib.Path(folder).iterdir() for line in open(log))
    return stock.tps(out.stdout), took[int((len(took) - 1) * 0.99)] / 1000


def cached(sides, emit):
    for side in sides:
        side.restart(shared_buffers="4GB" if LARGE else "512MB")
        warm(side)
    for clients in (1, 8, 64):
        value, peer = in_turns(sides, lambda side, clients=clients: tps(side, clients, "-S"))
        emit(f"select_cached_c{clients}", value, "tps", PEER, peer, value / peer, ">= 0.95 x stock", value >= 0.95 * peer)
    (rate, p99), (peer_rate, peer_p99) = (tail(side, 500) for side in sides)
    emit("select_cached_c64_rate", rate, "1/s", PEER, peer_rate, rate / peer_rate, ">= 10000/s", rate >= 10000)
    emit("select_cached_c64_p99", p99, "ms", PEER, peer_p99, p99 / peer_p99, "< 10 ms", p99 < 10)


def cold(sides, emit):
    """Stock starts with its files in the system's cache, we with what this host and the pageserver have."""
    took = []
    for side in sides:
        side.restart(shared_buffers="4GB" if LARGE else "512MB")
        begin = time.monotonic()
        for _ in range(20):
            rate, p99 = tail(side, 150)
            if rate >= 10000 and p99 < 10:
                break
        took.append(time.monotonic() - begin if rate >= 10000 and p99 < 10 else float("inf"))
    held = took[0] != float("inf")
    emit("select_c64_until_10000_and_10ms", took[0] if held else -1, "s", PEER, took[1] if took[1] != float("inf") else -1,
         took[0] / took[1] if held else -1, "reached within 20 turns of 9,600 queries", held)


def reads(sides, emit):
    """With few buffers most pages come from elsewhere: stock's from the system's cache."""
    ours, theirs = sides
    buffers = "128MB" if LARGE else "16MB"
    theirs.restart(shared_buffers=buffers)
    ours.settle()
    for name, cache_mb in CACHES:
        ours.restart(**{"shared_buffers": buffers, "anabranch.local_cache_mb": cache_mb, "anabranch.local_cache_max_mb": 8192})
        for side in sides: # the local cache is filled by reading
            warm(side)
        for clients in (1, 8, 64):
            before, spent = ours.counters(), [side.cpu(True) for side in sides]
            value, peer = in_turns(sides, lambda side, clients=clients: tps(side, clients, "-S"))
            spent = [side.cpu(True) - at for side, at in zip(sides, spent)]
            emit(f"select_from_{name}_c{clients}", value, "tps", PEER, peer, value / peer, "none: see the next", True)
            after = ours.counters()
            if clients > 1:
                continue
            count = {key: after[key] - before[key] for key in before}
            pages = count["read_remote_blocks"] + count["read_cache_blocks"] + count["read_spill_blocks"]
            per = pages / (value * ROUNDS * float(SECONDS)) # pages from elsewhere in a transaction
            added = (1e6 / value - 1e6 / peer) / per
            emit(f"read_from_{name}_adds", added, "us", f"stock's transaction, us; {per:.2f} pages in one", 1e6 / peer,
                 added * value / 1e6, "<= 150 us", added <= 150)
            # the same in CPU time, which other work on the machine does not stretch
            mine, theirs = (1e6 * cpu / (rate * ROUNDS * float(SECONDS)) for cpu, rate in zip(spent, (value, peer)))
            emit(f"read_from_{name}_adds_cpu", (mine - theirs) / per, "us", "stock's transaction, CPU, us", theirs,
                 mine / theirs, "none", True)


def drop_caches(side):
    """Buffers, and what the system keeps of the files: written first, or it cannot be dropped."""
    with side.admin() as db:
        db.query("CHECKPOINT")
        db.query(EVICT)
    os.sync()
    for path in side.files():
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


def timed(side, sql, before=""):
    with side.admin() as db:
        db.query("SET max_parallel_workers_per_gather = 0")
        for statement in filter(None, before.split(";")):
            db.query(statement)
        begin = time.perf_counter()
        db.query(sql)
        return time.perf_counter() - begin


def scan(side):
    drop_caches(side)
    return timed(side, "SELECT sum(abalance) FROM pgbench_accounts")


def copy(side):
    """The rows of accounts, by psql's \\copy from a file."""
    path = f"{tempfile.gettempdir()}/anabranch-bench-copy-{os.getpid()}"
    def psql(sql):
        subprocess.run([str(side.postgres / "bin/psql"), "-X", "-q", "-c", sql, side.uri], check=True)
    if not os.path.exists(path):
        psql(f"\\copy pgbench_accounts TO '{path}'")
    psql("DROP TABLE IF EXISTS copied")
    psql("CREATE TABLE copied (LIKE pgbench_accounts)")
    begin = time.perf_counter()
    psql(f"\\copy copied FROM '{path}'")
    return time.perf_counter() - begin


def speed(sides, emit, name, measure, least=None, peer=PEER):
    reads_only = least is not None
    spent = [side.cpu(reads_only) for side in sides]
    mine, theirs = in_turns(sides, measure)
    cpu = [(side.cpu(reads_only) - at) / ROUNDS for side, at in zip(sides, spent)]
    emit(f"{name}_cpu", cpu[0], "s", "stock, CPU with what prepares it, s", cpu[1], cpu[0] / max(cpu[1], 0.01), "none", True)
    emit(name, mine, "s", peer, theirs, theirs / mine, f">= {least} x stock's speed" if least else "none",
         theirs / mine >= (least or 0))


def scans(sides, emit):
    ours, theirs = sides
    theirs.restart(shared_buffers="128MB")
    ours.settle()
    for name, cache_mb in CACHES:
        ours.restart(**{"shared_buffers": "128MB", "anabranch.local_cache_mb": cache_mb, "anabranch.local_cache_max_mb": 8192})
        scan(ours)
        speed(sides, emit, f"seqscan_from_{name}", scan, 0.5, "stock, its files dropped from the system's cache")


def bulk(sides, emit):
    for side in sides:
        side.restart(shared_buffers="128MB")
    speed(sides, emit, "index_build", lambda side: timed(
        side, "CREATE INDEX built ON pgbench_accounts (abalance, aid)", "DROP INDEX IF EXISTS built"))
    speed(sides, emit, "copy", copy)
    speed(sides, emit, "vacuum", lambda side: timed(
        side, "VACUUM pgbench_accounts", "DROP INDEX IF EXISTS built;"
        "UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid % 10 = 0"))
    with contextlib.suppress(OSError):
        os.unlink(f"{tempfile.gettempdir()}/anabranch-bench-copy-{os.getpid()}")


def wal_of_a_transaction(side):
    def lsn():
        with side.admin() as db:
            return int(db.value("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn"))
    with side.admin() as db:
        db.query("CHECKPOINT")
    begin = lsn()
    stock.pgbench(side.postgres, side.uri, "-n", "-c", "8", "-j", "2", "-t", "1000")
    return (lsn() - begin) / 8000


def tpcb(sides, emit):
    """A large database with and without the local cache, a small one as it comes."""
    ours, theirs = sides
    theirs.restart(shared_buffers="128MB")
    for name, cache_mb in CACHES if LARGE else (("", 1024),):
        ours.restart(**{"shared_buffers": "128MB", "anabranch.local_cache_mb": cache_mb, "anabranch.local_cache_max_mb": 8192})
        if name != "":
            warm(ours)
            warm(theirs)
        tpcb_rates(sides, emit, f"tpcb_from_{name}" if name != "" else "tpcb")
    value, peer = (wal_of_a_transaction(side) for side in sides)
    emit("wal_bytes_per_tpcb", value, "bytes", "stock with full-page writes, 8,000 after a checkpoint", peer, value / peer,
         "less than stock", value < peer)


def tpcb_rates(sides, emit, name):
    for clients in (1, 8, 64):
        value, peer = in_turns(sides, lambda side, clients=clients: tps(side, clients))
        emit(f"{name}_c{clients}", value, "tps", "stock, ANY 2 (3) pg_receivewal --synchronous", peer, value / peer,
             ">= 1.0 x stock", value >= peer)


STEPS = {"cached": cached, "reads": reads, "cold": cold, "scan": scans, "bulk": bulk, "tpcb": tpcb}


def run(build, emit):
    with both(build) as sides:
        for name in os.environ.get("COMPUTE_STEPS", ",".join(STEPS)).split(","):
            STEPS[name](sides, emit)
