#!/usr/bin/env python3
"""A branch for each of many developers on one machine: opened, used, suspended, woken and deleted by scripts at once.

Each script makes a branch with a compute, connects through the gateway with channel binding, writes and reads, suspends
it, connects again (which wakes it), finds its rows, and deletes it. At the end nothing of them is left: no compute, no
process, no timeline on any node, no row. Prints the peak of memory (PSS of every process of the cluster) and of disk.
"""
import argparse
import json
import os
import pathlib
import sys
import threading
import time

import run # noqa: F401 - puts the libraries on the path
from cluster import ROOT, Cluster, http, wait_for
from test_gateway import Client

MIB = 1 << 20


def members(cluster):
    """Processes that belong to the cluster: by their command or the folder that they are in."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                at = os.readlink(entry / "cwd") + " " + (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if str(cluster.folder) in at and int(entry.name) != os.getpid():
                found.append(entry)
    return found


def memory(cluster):
    total = 0
    for entry in members(cluster):
        try:
            line = next(x for x in (entry / "smaps_rollup").read_text().splitlines() if x.startswith("Pss:"))
            total += int(line.split()[1]) * 1024
        except (OSError, StopIteration):
            pass
    return total


def disk(cluster):
    total = 0
    for folder, _, names in os.walk(cluster.folder): # which comes and goes meanwhile
        for name in names:
            try:
                status = os.lstat(os.path.join(folder, name))
                total += status.st_blocks * 512 / status.st_nlink
            except OSError:
                pass
    return int(total)


class Peak(threading.Thread):
    def __init__(self, cluster):
        super().__init__()
        self.cluster, self.over = cluster, threading.Event()
        self.memory = self.disk = self.processes = 0

    def run(self):
        while not self.over.wait(1):
            self.memory = max(self.memory, memory(self.cluster))
            self.disk = max(self.disk, disk(self.cluster))
            self.processes = max(self.processes, len(members(self.cluster)))


def developer(project, parent, number, results):
    times, begin = {}, time.monotonic()

    def lap(name):
        nonlocal begin
        times[name], begin = time.monotonic() - begin, time.monotonic()
    try:
        branch = project.create_branch(f"feature/x-{number}", parent)
        client = Client(project.cluster, branch)
        lap("open")
        with client.connect() as db:
            assert db.value("SELECT count(*) FROM orders") == "20000"
            lap("first query")
            db.query(f"CREATE TABLE mine AS SELECT i, {number} AS who FROM generate_series(1, 5000) i")
            db.query("UPDATE orders SET total = total + 1 WHERE id % 10 = 0")
            db.query("CREATE INDEX ON orders (total)")
        lap("work")
        branch.suspend()
        lap("suspend")
        with client.connect() as db:
            assert db.query("SELECT count(*), min(who) FROM mine") == [("5000", str(number))]
        lap("wake")
        branch.delete()
        lap("delete")
        results.append(times)
    except Exception as error: # noqa: BLE001 - reported by the main thread
        results.append(f"{number}: {type(error).__name__}: {error}")


def nothing_left(cluster, project, main):
    def gone():
        branches = [b["name"] for b in project.branches()]
        endpoints = [e["id"] for e in project.api("GET", "/endpoints")["endpoints"]]
        computes = [c["id"] for c in http("GET", cluster.agent.http_url + "/v1/computes")["computes"]]
        pageserver = sum(len(t["timelines"]) for t in http("GET", cluster.pageserver.http_url + "/v1/status")["tenants"])
        keepers = [http("GET", s.http_url + "/v1/status")["timelines"] for s in cluster.safekeepers]
        seen = (branches, len(endpoints), len(computes), pageserver, keepers)
        if seen == (["main"], 1, 1, 1, [1] * len(keepers)):
            return True
        raise OSError(f"left: {seen}")
    wait_for("everything of the branches is gone", gone, 120)
    tenant = project.api("GET", "")["project"]["tenant_id"]
    remote = f"{cluster.pageserver.http_url}/v1/tenants/{tenant}/remote"

    def only_main():
        named = [t["timeline"] for t in http("GET", remote)["timelines"]]
        if named == [main.get()["timeline_id"]]:
            return True
        raise OSError(f"left in the index in the object store: {len(named)} timelines")
    wait_for("no object is of a branch", only_main, 120)
    scrubbed = wait_for("the object store is looked through", lambda: http("POST", remote + "/scrub"), 120)
    print("  ", json.dumps(scrubbed), flush=True)
    assert scrubbed["leaked"] == 0 and scrubbed["dangling"] == 0, scrubbed
    with Client(cluster, main).connect() as db:
        assert db.value("SELECT sum(total) FROM orders") == "0" # and they have harmed nothing


def scripts(cluster, count):
    project = cluster.create_project("team")
    main = project.main()
    with Client(cluster, main).connect() as db:
        db.query("CREATE TABLE orders AS SELECT i AS id, 0 AS total, repeat('x', 100) AS note"
                 " FROM generate_series(1, 20000) i")
    before, peak, results = len(members(cluster)), Peak(cluster), []
    peak.start()
    begin = time.monotonic()
    threads = [threading.Thread(target=developer, args=(project, main, n, results)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - begin
    nothing_left(cluster, project, main)
    wait_for("their processes have ended", lambda: len(members(cluster)) <= before + 8, 60) # main's own backends
    peak.over.set()
    peak.join()
    failed = [r for r in results if isinstance(r, str)]
    assert not failed, failed
    slowest = {step: round(max(r[step] for r in results), 1) for step in results[0]}
    print(json.dumps({"branches": count, "seconds": round(seconds, 1), "slowest_s": slowest,
                      "memory_peak_mib": peak.memory // MIB, "processes_peak": peak.processes,
                      "disk_peak_mib": peak.disk // MIB, "disk_after_mib": disk(cluster) // MIB}), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", default=str(ROOT / "build"))
    parser.add_argument("--count", type=int, default=30)
    args = parser.parse_args()
    os.environ.setdefault("POSTGRES_DIR", os.popen(f"{ROOT}/tools/build-postgres").read().split()[-1])
    cluster = Cluster(args.build)
    name = f"{args.count}_branches_at_once_leave_nothing"
    try:
        cluster.cli("local", "up", "--binaries", str(cluster.build), "--postgres", str(cluster.postgres),
                    "--gateway", "db.test")
        scripts(cluster, args.count)
        print(f"ok {name}", flush=True)
        return 0
    except Exception as error: # noqa: BLE001 - any failure is a failed test
        print(f"FAILED {name}: {error}", flush=True)
        run.print_logs(cluster)
        return 1
    finally:
        cluster.down()


if __name__ == "__main__":
    sys.exit(main())
