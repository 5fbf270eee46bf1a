#!/usr/bin/env python3
"""GetPage against stock Postgres, page by page: `getpage_twin.py [--full] [--build DIR] [--seed N]`.

A stock Postgres starts from a bootstrap image and does real work; its WAL goes through walproposer and three safekeepers
into a pageserver, which is killed on the way. Then, at each of N random LSNs, a twin (stock archive recovery of the
same image from the same WAL, up to that LSN, never opened for a reader) is compared with what the pageserver serves: every
page and size through the framed protocol, the list of relations, and SLRUs, relation maps, prepared transactions, origins
and database folders of the base backup. Two branches are read back as well; a comparison with the wrong twin must fail.

  --full   the 225 core regression tests and more, 20 LSNs     --keep   keep the folder     --only L  one LSN, again
Prints `ok NAME` or `FAILED NAME`, and figures as JSON. What is compared, and what is not: docs/redo-getpage.md.
"""
import argparse
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "tests/lib"))
sys.path.insert(0, str(HERE))

from cluster import Cluster, http, wait_for  # noqa: E402
from twin_server import Failure, Primary, Twin, lsn_number, lsn_text  # noqa: E402
from twin_state import PreparedTransactions, compare_state  # noqa: E402
from twin_wal import Wal  # noqa: E402

TENANT, TIMELINE = "a1" * 16, "b1" * 16
BRANCHES = ["b2" * 16, "b3" * 16]
# Small: everything leaves the caches and comes back, and what grows without a limit is seen.
PAGESERVER = ["--block_cache=32MB", "--page_cache=8MB", "--write_buffer=16MB", "--flush_size=8MB"]
MEMORY_MAX_KB = 512 << 10

FULL_SQL = ["schema.sql", "heap.sql", "btree.sql", "methods_schema.sql", "methods.sql", "xact.sql"]
THIN_SQL = ["schema.sql", "xact.sql"]


class Rig:
    """Cluster, primary and walproposer of one run."""

    def __init__(self, args):
        self.args = args
        self.random = random.Random(args.seed)
        self.cluster = Cluster(args.build).up()
        self.folder = self.cluster.folder
        self.pageserver = None  # the process
        self.address = self.cluster.pageserver.row
        self.proposer = None
        self.primary = None
        self.peak_kb = 0
        self.cpu_s = 0.0  # of pageservers that were ended
        self.samples = 0
        self.sampling_failed = False
        self.restarting = threading.Lock()
        self.peak_lag = 0
        self.stopping = threading.Event()
        self.threads = []

    # -- the pageserver --

    @property
    def timelines_url(self):
        return f"http://{self.address['http']}/v1/tenants/{TENANT}/timelines"

    @property
    def port(self):
        return self.address["listen"].split(":")[1]

    def start_pageserver(self):
        """Ours instead of the cluster's: with the settings of this test."""
        if self.pageserver is None:
            self.cluster.pageserver.kill()
        else:
            self.pageserver.kill()
            self.pageserver.wait()
        log = open(self.folder / "pageserver.log", "ab")
        self.pageserver = subprocess.Popen([self.cluster.build / "pageserver/serve/pageserver", "--config",
                                            self.cluster.data / "conf/pageserver-1.conf", *PAGESERVER],
                                           stdout=log, stderr=log)
        wait_for("the pageserver is ready", lambda: http("GET", f"http://{self.address['http']}/readyz", raw=True) is not None)

    def get(self, path, timeline=TIMELINE):
        return http("GET", f"{self.timelines_url}/{timeline}/{path}".rstrip("/"), raw=True, timeout=300)

    def last_record_lsn(self):
        tenants = http("GET", f"http://{self.address['http']}/v1/status")["tenants"]
        rows = [t for tenant in tenants for t in tenant["timelines"] if t["timeline"] == TIMELINE]
        if rows and rows[0]["state"].startswith("failed"):
            raise Failure(f"ingest stopped: {rows[0]}")
        return lsn_number(rows[0]["last_record_lsn"]) if rows else 0

    def look_at_memory(self):
        """The peak of the process that runs now; kept when it is killed."""
        status = pathlib.Path(f"/proc/{self.pageserver.pid}/status").read_text()
        peak = next(line for line in status.split("\n") if line.startswith("VmHWM"))
        self.peak_kb = max(self.peak_kb, int(peak.split()[1]))
        return f"peak of memory so far {self.peak_kb >> 10} MB"

    def pageserver_cpu_s(self):
        fields = pathlib.Path(f"/proc/{self.pageserver.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def watch_lag(self):
        while not self.stopping.wait(0.5):
            try:
                written = lsn_number(http("GET", f"{self.proposer_url}/v1/status")["commit_lsn"])
                self.peak_lag = max(self.peak_lag, written - self.last_record_lsn())
            except Exception:  # noqa: BLE001 - it is being killed or started just now
                continue

    def kill_pageserver(self):
        with self.restarting:
            before = self.last_record_lsn()
            self.look_at_memory()
            self.cpu_s += self.pageserver_cpu_s()
            self.start_pageserver()
        after = self.last_record_lsn()
        print(f"   pageserver killed at {lsn_text(before)}, back at {lsn_text(after)}", flush=True)

    def kill_safekeeper(self):
        """The one that feeds the pageserver, if that can be known: another one takes over."""
        feed = json.loads(self.get(""))["feed"]
        keeper = next((k for k in self.cluster.safekeepers if k.name.endswith(feed[-1:])), self.cluster.safekeepers[0])
        keeper.kill()
        keeper.start()
        print(f"   {keeper.name} killed, feed was {feed}", flush=True)

    def branch(self, name, parent, lsn):
        http("PUT", f"{self.timelines_url}/{name}",
             {"generation": 1, "pg_version": 170000, "system_id": self.system_id, "parent": parent,
              "branch_lsn": lsn_text(lsn), "safekeepers": [], "membership_generation": 1})

    # -- the way up --

    def create_timeline(self, image):
        members = []
        for number, keeper in enumerate(self.cluster.safekeepers, 1):
            listen, http_address = keeper.row["listen"], keeper.row["http"]
            members.append({"id": number, "host": "127.0.0.1", "port": int(listen.split(":")[1]),
                            "http_host": "127.0.0.1", "http_port": int(http_address.split(":")[1])})
        for keeper in self.cluster.safekeepers:
            http("PUT", f"{keeper.http_url}/v1/tenants/{TENANT}/timelines/{TIMELINE}",
                 {"start_lsn": image["start_lsn"], "pg_version": 170000, "system_id": image["system_id"],
                  "segment_size": 16 << 20, "membership": {"generation": 1, "members": members}})
        http("PUT", f"http://{self.address['http']}/v1/tenants/{TENANT}", {"generation": 1})
        http("PUT", f"{self.timelines_url}/{TIMELINE}",
             {"generation": 1, "pg_version": 170000, "system_id": image["system_id"], "start_lsn": image["start_lsn"],
              "bootstrap_object": image["object"], "membership_generation": 1,
              "safekeepers": [{key: m[key] for key in ("id", "host", "port")} for m in members]})
        self.keepers = ",".join(f"{m['id']}@127.0.0.1:{m['port']}" for m in members)

    def up(self):
        self.start_pageserver()
        image = http("POST", self.cluster.agent.http_url + "/v1/bootstrap_images",
                     {"pg_version": 17, "locale": "C.UTF-8"}, timeout=120)
        self.system_id, self.start_lsn = image["system_id"], lsn_number(image["start_lsn"])
        self.create_timeline(image)
        backup = self.get(f"base_backup?lsn={image['start_lsn']}")
        self.primary = Primary(self.cluster.postgres, self.folder)
        self.primary.unpack((self.cluster.data / "objects" / image["object"]).read_bytes(), backup)
        subprocess.run(["cp", "-a", self.primary.data, self.folder / "base"], check=True)
        self.primary.configure()
        self.primary.start()
        self.start_proposer(image["start_lsn"])
        for target in (self.watch_lag, self.make_checkpoints, self.sample_head):
            self.threads.append(threading.Thread(target=target, daemon=True))
            self.threads[-1].start()
        return self

    def start_proposer(self, start_lsn):
        folder = self.folder / "walproposer"
        log = open(self.folder / "walproposer.log", "wb")
        self.proposer = subprocess.Popen(
            [self.cluster.build / "compute/walproposer/walproposer", f"--data_dir={folder}", f"--tenant={TENANT}",
             f"--timeline={TIMELINE}", f"--system_id={self.system_id}", "--generation=1", f"--safekeepers={self.keepers}",
             f"--postgres_conninfo=host={self.primary.sockets} user=postgres", "--http_port=0",
             f"--postmaster_pid_file={self.primary.data}/postmaster.pid", f"--start_lsn={start_lsn}"],
            stdout=log, stderr=log)
        ports = wait_for("walproposer listens", lambda: json.loads((folder / "ports.json").read_text()))
        self.proposer_url = f"http://127.0.0.1:{ports['http_port']}"

    def make_checkpoints(self):
        """Often: the twin writes its pages only when it has seen one (a restartpoint at its shutdown)."""
        while not self.stopping.wait(2):
            try:
                self.primary.sql("CHECKPOINT")
            except Failure:
                continue

    def sample(self, *flags):
        return subprocess.run(
            [self.cluster.build / "tests/oracle/getpage_sample", "--port", self.port, "--tenant", TENANT, "--timeline",
             TIMELINE, "--samples", self.folder / "samples", *flags],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600)

    def sample_head(self):
        """Reads at the head while ingest goes on; they are read again when all is done."""
        (self.folder / "samples").touch()
        while not self.stopping.wait(0.5):
            with self.restarting:
                (self.folder / "sampled").write_bytes(self.get("relations"))
                done = self.sample("--relations", self.folder / "sampled", "--count", "1000", "--seed", str(self.samples))
            self.samples += 1
            if done.returncode != 0:
                print(f"   sampling: {done.stdout}")
                self.sampling_failed = True
                return

    # -- work --

    def work(self):
        primary = self.primary
        for name in FULL_SQL if self.args.full else THIN_SQL:
            primary.sql_file(HERE / "sql" / name)
        if self.args.full:
            primary.regress({self.random.randrange(20, 110): self.kill_pageserver,
                             self.random.randrange(110, 140): self.kill_safekeeper,
                             self.random.randrange(140, 220): self.kill_pageserver})
        self.make_databases("regression" if self.args.full else "small")
        primary.crash()
        for name in ("locks.pgb", "race.pgb", "churn.pgb"):
            primary.pgbench("-f", HERE / "sql" / name, "-T", 5 if self.args.full else 1, "-c", 8, "--max-tries=5")
        self.kill_pageserver()
        primary.pgbench("-i", "-s", 5 if self.args.full else 1)
        primary.pgbench("-T", 10 if self.args.full else 2, "-c", 8)
        primary.pgbench("-f", HERE / "sql" / "twophase.pgb", "-T", 5 if self.args.full else 1, "-c", 4)
        primary.sql("DROP DATABASE copied_files")
        primary.sql("CHECKPOINT")
        primary.sql("CREATE TABLE last_one AS SELECT generate_series(1, 1000) AS i")

    def make_databases(self, template):
        if template == "small":
            self.primary.sql("CREATE DATABASE small")
            self.primary.sql("CREATE TABLE t AS SELECT generate_series(1, 10000) AS i; CREATE INDEX ON t (i)", "small")
        self.primary.sql(f"CREATE DATABASE copied_files TEMPLATE {template} STRATEGY file_copy")
        self.primary.sql(f"CREATE DATABASE copied_wal TEMPLATE {template} STRATEGY wal_log")
        for name in ("copied_files", "copied_wal"):
            self.primary.sql("CREATE TABLE after_copy AS SELECT generate_series(1, 5000) AS i; VACUUM after_copy", name)

    def finish_work(self):
        """Ends the primary; returns when the pageserver has all of its WAL."""
        self.stopping.set()
        for thread in self.threads:
            thread.join()
        begin = time.monotonic()
        end = lsn_number(self.primary.sql("SELECT pg_current_wal_flush_lsn()"))
        wait_for("the pageserver has it all", lambda: self.last_record_lsn() >= end, timeout_s=900)
        print(f"   ingest caught up {time.monotonic() - begin:.1f} s after the end of the work, {self.look_at_memory()}", flush=True)
        self.cpu_s += self.pageserver_cpu_s()
        self.primary.stop()

    def down(self, failed):
        self.stopping.set()
        if self.primary is not None:
            self.primary.stop()
        for process in (self.proposer, self.pageserver):
            if process is not None:
                process.kill()
                process.wait()
        self.cluster.keep = failed or self.args.keep
        self.cluster.down()
        if self.cluster.keep:
            print(f"files are kept in {self.folder}")


class Comparison:
    """The twins of one run and what they were compared with."""

    def __init__(self, rig, wal):
        self.rig, self.wal = rig, wal
        self.prepared = PreparedTransactions(rig.cluster.postgres, wal, rig.start_lsn)
        self.gone = set()
        self.figures = {"pages": 0, "forks": 0, "slru_pages": 0, "state_files": 0}
        self.bad = 0

    def verdict(self, name, problems, note=""):
        for problem in problems[:20]:
            print(f"   {problem}")
        print(f"{'FAILED' if problems else 'ok'} {name} {note}", flush=True)
        self.bad += bool(problems)

    def pages(self, twin, lsn, timeline=TIMELINE):
        """(differences, figures) of all relations; lsn None: the head of the timeline."""
        query = "" if lsn is None else f"?lsn={lsn_text(lsn)}"
        folder = self.rig.folder
        (folder / "relations").write_bytes(self.rig.get("relations" + query, timeline))
        (folder / "gone").write_text("".join(sorted(self.gone)))
        done = subprocess.run(
            [self.rig.cluster.build / "tests/oracle/getpage_compare", "--port",
             self.rig.port, "--tenant", TENANT, "--timeline", timeline, "--lsn",
             "head" if lsn is None else lsn_text(lsn), "--twin", twin.data, "--relations", folder / "relations", "--gone",
             folder / "gone", "--forks", folder / "forks"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600)
        lines = done.stdout.strip().split("\n")
        if done.returncode == 2:
            return lines, {}
        self.gone |= set((folder / "forks").read_text().splitlines(keepends=True))
        return ([] if done.returncode == 0 else lines), json.loads(lines[-1])

    def at(self, name, place):
        """The whole comparison at one LSN; returns the twin."""
        twin = Twin(self.rig.primary, self.rig.folder, self.wal.folder)
        twin.recover(place.stop_lsn)
        problems, figures = self.pages(twin, place.lsn)
        more, counts = compare_state(self.rig.get(f"base_backup?lsn={lsn_text(place.lsn)}"), twin.data, twin.counters(),
                                     self.rig.cluster.postgres, self.prepared.at(place.stop_lsn))
        for key, value in {**figures, **counts}.items():
            if key in self.figures:
                self.figures[key] += value
        self.verdict(name, problems + more, f"{lsn_text(place.lsn)} {place.kind}: {figures.get('forks')} forks, "
                     f"{figures.get('pages')} pages, {counts['slru_pages']} SLRU pages")
        return twin

    def branches(self, twin, place, name, parent):
        self.rig.branch(name, parent, place.lsn)
        # Twice at the head: what was read once comes from the page cache.
        for what, lsn in (("head", None), ("head_again", None), ("lsn", place.lsn)):
            problems, figures = self.pages(twin, lsn, name)
            self.verdict(f"getpage_branch_{name[:2]}_{what}", problems, f"{lsn_text(place.lsn)}: {figures.get('pages')} pages")

    def wrong_twin(self, twin, place):
        """The planted mistake: another LSN than the twin's must be seen."""
        problems, figures = self.pages(twin, place.lsn)
        seen = figures.get("different", 0) + figures.get("sizes", 0) > 0
        self.verdict("getpage_wrong_lsn_is_seen", [] if problems and seen else ["no difference was seen"],
                     f"{figures.get('different')} pages differ, {figures.get('sizes')} sizes")


    def samples(self):
        done = self.rig.sample()
        lines = done.stdout.strip().split("\n")
        problems = [] if done.returncode == 0 and not self.rig.sampling_failed else lines
        self.verdict("getpage_head_during_ingest", problems, lines[-1])


def compare_all(rig, wal, places):
    comparison = Comparison(rig, wal)
    branch_at = sorted(i for i, place in enumerate(places) if place.aligned)[-2:]
    branch_at.reverse()  # the second is a branch of the first
    twins = {}
    for index, place in enumerate(places):
        twin = comparison.at(f"getpage_at_{index + 1:02}", place)
        if index in branch_at or index == 0:
            twin.keep_as(rig.folder / f"twin{index}")
            twins[index] = twin
    parent = TIMELINE
    for index, name in zip(branch_at, BRANCHES):
        comparison.branches(twins[index], places[index], name, parent)
        parent = name
    comparison.samples()
    comparison.wrong_twin(twins[0], places[-1])
    return comparison


def run(rig, args):
    begin = time.monotonic()
    rig.up()
    rig.work()
    worked = time.monotonic() - begin
    rig.finish_work()
    wal = Wal(rig.cluster.build, rig.primary.data / "pg_wal", rig.start_lsn)
    places = [wal.at(lsn_number(args.only))] if args.only else wal.choose(rig.random, 20 if args.full else 5)
    comparison = compare_all(rig, wal, places)
    print(f"   {rig.look_at_memory()}")
    comparison.verdict("getpage_memory", [] if rig.peak_kb < MEMORY_MAX_KB else [f"peak {rig.peak_kb} kB"],
                       f"peak {rig.peak_kb >> 10} MB")
    figures = {**comparison.figures, **wal.figures(), "lsns": len(places), "seed": args.seed,
               "regression_tests": rig.primary.tests_ok, "peak_lag_mb": rig.peak_lag >> 20, "peak_rss_mb": rig.peak_kb >> 10, "ingest_cpu_s": round(rig.cpu_s, 1),
               "work_s": round(worked), "total_s": round(time.monotonic() - begin)}
    print("   " + json.dumps(figures), flush=True)
    return comparison.bad


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build", default=ROOT / "build", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--only", metavar="LSN")
    args = parser.parse_args()
    os.environ.setdefault("POSTGRES_DIR", subprocess.check_output([ROOT / "tools/build-postgres"], text=True).split()[-1])
    rig, bad = Rig(args), 1
    try:
        bad = run(rig, args)
    except (Failure, subprocess.SubprocessError, OSError, TimeoutError) as problem:
        print(f"{problem}\nFAILED getpage_twin, see {rig.folder}", flush=True)
    finally:
        rig.down(failed=bool(bad))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
