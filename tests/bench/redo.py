"""Redo: ours against Postgres' own, on the WAL of a stock pgbench run, on the same core, interleaved.

The WAL is made in the run: TPC-B of a Postgres without our extension, full_page_writes off, from a cold copy of its
data directory on. Postgres recovers that copy (archive recovery, pinned to one core); tests/bench/redo_bench.c reads,
decodes and replays the same segments on the same core; on both sides pages come from the files of the cold copy, out of
the system's cache. All times are CPU time of the one process that does the work: for Postgres the startup process, from
"redo starts" to "redo done", as it logs it itself. Its start, its end-of-recovery checkpoint and the processes beside it
are not counted. tests/bench/ingest_bench.c takes the same WAL in as a pageserver does, on the same core, from a root that is that
copy: until everything lies in compacted files, images included; its CPU time is that of the whole process.
"""
import json
import os
import pathlib
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile

from cluster import wait_for

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent / "oracle"))
from server import Server # noqa: E402

SCALE, CLIENTS, TRANSACTIONS, ROUNDS = 20, 8, 50000, 3
IMAGES = 64 # the default of the pageserver
COMMON = {"listen_addresses": "''", "shared_buffers": "1GB", "fsync": "off", "full_page_writes": "off",
          "max_wal_size": "64GB", "wal_keep_size": "64GB", "checkpoint_timeout": "1h", "hot_standby": "off"}
# What makes Postgres' redo fast: nothing is written back or evicted, nobody reads, no checkpoint falls in between.
RECOVERY = {"autovacuum": "off", "bgwriter_lru_maxpages": "0", "recovery_target_name": "end"}
TAIL = re.compile(r"redo done at \S+ system usage: CPU: user: ([\d.]+) s, system: ([\d.]+) s, elapsed: ([\d.]+) s")


def copy(source, target):
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)


class Bench:
    def __init__(self, build, folder):
        self.build, self.folder = pathlib.Path(build), folder
        self.prefix = pathlib.Path(os.environ["POSTGRES_DIR"])
        self.core = str(max(os.sched_getaffinity(0)))
        self.base, self.wal = folder / "base", folder / "data/pg_wal"

    def make_wal(self):
        server = Server(self.prefix, self.folder)
        server.own(self.folder)
        server.initdb()
        server.configure(COMMON | {"synchronous_commit": "off"})
        server.start()
        try:
            server.run("pgbench", "-i", "-q", "-s", SCALE)
            server.stop("fast")
            copy(server.data, self.base)
            server.start()
            server.run("pgbench", "-n", "-c", CLIENTS, "-j", 2, "-M", "prepared", "-t", TRANSACTIONS)
            server.sql("CHECKPOINT") # the twin writes its pages at the end only if it has seen one
            self.end = server.sql("SELECT pg_create_restore_point('end')")
            server.sql("SELECT pg_switch_wal()")
        finally:
            server.abandon()

    def cold_copy(self, name, settings):
        """A server on a copy of the base that will recover up to the restore point."""
        server = Server(self.prefix, self.folder, name)
        copy(self.base, server.data)
        server.configure(RECOVERY | settings | {"restore_command": f"cp {self.wal}/%f %p"})
        (server.data / "recovery.signal").touch()
        server.own(server.data / "recovery.signal")
        return server

    def our(self, part, *args):
        """The JSON lines of one part of redo_bench."""
        done = subprocess.run(["taskset", "-c", self.core, str(self.build / "tests/bench/redo_bench"), part,
                               str(self.base), str(self.wal), self.end, *args], stdout=subprocess.PIPE, text=True,
                              check=True)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def ingest(self):
        """Our whole way in: the cost of tests/bench/ingest_bench.c, from a root as the cold copy is."""
        tar, store = self.folder / "base.tar", self.folder / "ingest"
        if not tar.exists():
            subprocess.run(["tar", "-cf", str(tar), "-C", str(self.base), "base", "global", "pg_xact", "pg_multixact"], check=True)
        store.mkdir()
        done = subprocess.run(["taskset", "-c", self.core, str(self.build / "tests/bench/ingest_bench"), str(store), str(self.base),
                               str(tar), str(self.wal), self.end, str(IMAGES)],
                              stdout=subprocess.PIPE, text=True, check=True)
        shutil.rmtree(store)
        return json.loads(done.stdout.splitlines()[-1])

    def pages_different(self):
        """Pages that our redo makes another way than stock recovery, by tools/walreplay."""
        twin = self.cold_copy("twin", {"recovery_target_action": "shutdown"})
        said = twin.run(twin.bin / "postgres", "-D", twin.data, "-k", twin.folder, check=False, timeout=600)
        if "shutdown at recovery target" not in said:
            raise RuntimeError(said)
        done = subprocess.run([str(self.build / "tools/walreplay/walreplay"), "--base", str(self.base), "--wal",
                               str(self.wal), "--twin", str(twin.data), "--end", self.end, "--decode"],
                              stdout=subprocess.PIPE, text=True, check=False)
        shutil.rmtree(twin.data)
        match = re.search(r"twin: \d+ files, (\d+) pages, (\d+) different", done.stdout)
        if not match or (done.returncode != 0 and match.group(2) == "0"):
            raise RuntimeError(done.stdout)
        return int(match.group(2)), int(match.group(1))

    def stock_recovery(self, prefetch):
        """(CPU seconds of the startup process, seconds by the clock) of Postgres' redo of the WAL."""
        server = self.cold_copy("stock", {"recovery_target_action": "promote", "recovery_prefetch": prefetch})
        server.run("taskset", "-c", self.core, server.bin / "pg_ctl", "-D", server.data, "-l", server.log, "-w", "-t",
                   "600", "start", "-o", f"-k {self.folder}")
        try:
            found = wait_for("the end of redo", lambda: TAIL.search(server.log.read_text()), timeout_s=600)
        finally:
            server.abandon()
        shutil.rmtree(server.data)
        server.log.unlink()
        user, system, elapsed = (float(part) for part in found.groups())
        return user + system, elapsed

    def waldump(self, start):
        """CPU seconds of pg_waldump that reads and decodes the WAL and prints nothing."""
        def segment(lsn):
            high, low = (int(half, 16) for half in lsn.split("/"))
            return str(self.wal / f"00000001{high:08X}{low >> 24:08X}")
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(["taskset", "-c", self.core, str(self.prefix / "bin/pg_waldump"), "--quiet", "-s", start, "-e",
                        self.end, segment(start), segment(self.end)], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def start_lsn(self):
        control = subprocess.check_output([str(self.prefix / "bin/pg_controldata"), str(self.base)], text=True,
                                          env={"LC_ALL": "C"})
        return re.search(r"Latest checkpoint's REDO location:\s+(\S+)", control).group(1)


def middle(rows, name):
    return statistics.median(row[name] for row in rows)


def whole_wal(bench, emit):
    """Rounds of ours and theirs in turn; returns Postgres' mean ns a record."""
    ours, ingested, waldump, start = [], [], [], bench.start_lsn()
    stock = {"try": [], "off": []}
    for _ in range(ROUNDS):
        ours += bench.our("replay")
        ingested.append(bench.ingest())
        waldump.append(bench.waldump(start))
        for prefetch, results in stock.items():
            results.append(bench.stock_recovery(prefetch))
    # With and without prefetching: against the faster one.
    cpu = min(statistics.median(cpu for cpu, _ in results) for results in stock.values())
    elapsed = min(statistics.median(elapsed for _, elapsed in results) for results in stock.values())
    records = ours[0]["records"]

    def compare(figure, seconds, against, against_seconds, target, least):
        emit(figure, records / seconds, "records/s", f"{against}, records/s", records / against_seconds,
             against_seconds / seconds, target, against_seconds / seconds >= least)
    emit("redo_wal_records", records, "records", "MiB of WAL", ours[0]["bytes"] / 2**20, ours[0]["changes"] / records,
         "ratio: changes of pages per record", True)
    emit("redo_stock_recovery", cpu, "s", "the same by the clock, s", elapsed, elapsed / cpu, ">= 2 s of CPU", cpu >= 2)
    compare("redo_decode_only", middle(ours, "decode_s"), "pg_waldump --quiet", statistics.median(waldump),
            ">= 1 x pg_waldump", 1)
    compare("redo_whole_wal_in_order", middle(ours, "replay_s"), "recovery of the same WAL", cpu, "none: read it", 0)
    compare("redo_sorted_by_page", middle(ours, "sorted_s"), "recovery of the same WAL", cpu, ">= 3 x recovery", 3)
    compare("redo_sorted_by_page_against_apply", middle(ours, "sorted_s"), "recovery less pg_waldump's reading and decoding",
            cpu - statistics.median(waldump), ">= 3 x", 3)
    compare("redo_sorted_pages_in_memory", middle(ours, "sorted_loaded_s"), "recovery of the same WAL", cpu,
            ">= 3 x recovery", 3)
    compare("ingest_to_compacted_files", middle(ingested, "ingest_s"), "recovery of the same WAL", cpu, ">= 1 x recovery", 1)
    compare("ingest_to_files_without_compaction",
            statistics.median(row["ingest_s"] - row["compaction_s"] for row in ingested), "recovery of the same WAL", cpu,
            "none", 0)
    written = middle(ingested, "written")
    emit("ingest_written", written / 2**20, "MiB", "MiB of WAL", ingested[0]["bytes"] / 2**20,
         written / ingested[0]["bytes"], "none", True)
    return cpu / records * 1e9


def weighted_median(rows, name):
    rows = sorted(rows, key=lambda row: row[name])
    half = sum(row["count"] for row in rows) / 2
    for row in rows:
        half -= row["count"]
        if half <= 0:
            return row[name]
    return 0


def kinds(bench, stock_ns, emit):
    rows = bench.our("kinds")
    against = "recovery, mean of a record, ns"
    for row in rows:
        if row["samples"] < 32: # one batch: fewer say nothing
            continue
        name = re.sub(r"[^a-z0-9]+", "_", row["kind"].lower()) + f"_block_{row['block']}"
        for figure, value in ((f"redo_ns_{name}", row["apply_ns"]),
                              (f"redo_ns_with_decoding_{name}", row["decode_apply_ns"])):
            emit(figure, value, "ns", f"{against}; changes of this kind here: {row['count']}", stock_ns,
                 stock_ns / max(value, 0.1), "none", True)
    tables = [row for row in rows if re.match(r"Heap2?/|Btree/", row["kind"])]
    for name, column in (("redo_ns_heap_btree_median", "apply_ns"),
                         ("redo_ns_with_decoding_heap_btree_median", "decode_apply_ns")):
        value = weighted_median(tables, column)
        emit(name, value, "ns", against, stock_ns, stock_ns / value, "<= 300 ns", value <= 300)


def pages(bench, stock_ns, emit):
    rows = bench.our("pages", str(bench.folder / "store"))
    for row in rows:
        n = row["records"]
        limit = 50 if n == 227 else None
        emit(f"redo_page_{n}", row["redo_us"], "us", f"recovery, {n} times its mean of a record, us", n * stock_ns / 1000,
             n * stock_ns / 1000 / row["redo_us"], f"<= {limit} us" if limit else "none",
             limit is None or row["redo_us"] <= limit)
        emit(f"redo_page_{n}_whole_read", row["read_us"], "us", "collecting the versions from the store, us",
             row["collect_us"], row["read_us"] / row["collect_us"], "none: the store, and writing the image back", True)


def run(build, emit):
    folder = pathlib.Path(tempfile.mkdtemp(prefix="anabranch-redo-", dir=os.environ.get("ANABRANCH_TEST_DIR", "/tmp")))
    try:
        bench = Bench(build, folder)
        bench.make_wal()
        different, compared = bench.pages_different()
        emit("redo_pages_different", different, "pages", "pages compared with stock recovery, byte for byte", compared,
             different / compared, "0", different == 0)
        stock_ns = whole_wal(bench, emit)
        kinds(bench, stock_ns, emit)
        pages(bench, stock_ns, emit)
    finally:
        shutil.rmtree(folder)
