"""Starting a compute: 100 starts against the same Postgres started stock (initdb's folder, nothing to recover), in turns.

What is timed: from the request to control until SELECT 1 has answered through the compute's own port. The laps of the
agent (sync with the safekeepers, base backup fetched and unpacked, Postgres with roles) say where the time goes; stock is
timed from the fork to SELECT 1.
"""
import os
import pwd
import shutil
import signal
import statistics
import subprocess
import time

import pq
from cluster import http, running, wait_for
from parts import stock

STARTS = int(os.environ.get("ANABRANCH_BENCH_STARTS", "100"))


def percentile(values, share):
    values = sorted(values)
    return values[int((len(values) - 1) * share)]


def until_answered(uri):
    while True:
        try:
            with pq.connect(uri) as db:
                db.value("SELECT 1")
            return
        except pq.Error:
            time.sleep(0.001)


def go_along(cluster):
    """Daemons lead sessions of their own: with `--ahead` they get the priority that the stock server inherits."""
    nice = open("/proc/self/autogroup").read().split("nice ")[1].strip()
    if os.geteuid() == 0 and nice != "0":
        for process in cluster.rows():
            with open(f"/proc/{process['pid']}/autogroup", "w") as group:
                group.write(nice)


def start_compute(project, branch, endpoint, uri):
    begin = time.perf_counter()
    project.api("POST", f"/endpoints/{endpoint}/start")
    until_answered(uri)
    took = (time.perf_counter() - begin) * 1000
    compute = wait_for("it runs", lambda: (lambda c: c if c["state"] == "running" else None)(branch.compute()),
                       interval_s=0.005)
    return took, compute["started_ms"]


def start_stock(primary):
    user = pwd.getpwnam("postgres").pw_uid if os.geteuid() == 0 else None
    with open(f"{primary.folder}/log", "a") as log:
        begin = time.perf_counter()
        process = subprocess.Popen([str(primary.postgres / "bin/postgres"), "-D", primary.data], user=user, stderr=log)
        until_answered(primary.uri)
        took = (time.perf_counter() - begin) * 1000
    process.send_signal(signal.SIGINT)
    process.wait()
    return took


def run(build, emit):
    with running(build, local_cache_mb=1024) as cluster:
        go_along(cluster)
        project = cluster.create_project("starts")
        branch = project.main()
        branch.sql("CREATE TABLE item AS SELECT i FROM generate_series(1, 100000) i")
        endpoint, uri = branch.endpoint()["id"], branch.uri()
        primary = stock.Primary(cluster.postgres, cluster.run_as)
        primary.start()
        primary.tool("pg_ctl", "-D", primary.data, "-m", "fast", "stop")
        times, laps, peer = [], [], []
        for _ in range(STARTS):
            branch.suspend()
            took, lap = start_compute(project, branch, endpoint, uri)
            times.append(took)
            laps.append(lap)
            peer.append(start_stock(primary))
        shutil.rmtree(primary.folder)
        spec = http("GET", f"{cluster.agent.http_url}/v1/computes/{endpoint}/spec")
        url = f"{spec['pageserver']['http_url']}/v1/tenants/{spec['tenant']}/timelines/{spec['timeline']}/base_backup"
        size = len(http("GET", f"{url}?lsn={branch.compute()['start_lsn']}", raw=True))
    p50, stock_p50 = statistics.median(times), statistics.median(peer)
    p99, stock_p99 = percentile(times, 0.99), percentile(peer, 0.99)
    emit("compute_start_p50", p50, "ms", "stock start, ms", stock_p50, p50 / stock_p50, "<= 100 ms", p50 <= 100)
    emit("compute_start_p99", p99, "ms", "stock start, ms", stock_p99, p99 / stock_p99, "<= 300 ms", p99 <= 300)
    for lap in ("sync", "base_backup", "postgres"):
        value = statistics.median(each[lap] for each in laps)
        emit(f"compute_start_{lap}_p50", value, "ms", "whole start, ms", p50, value / p50, "none", True)
    emit("base_backup_size", size / 1024, "KiB", "WAL segment, KiB", 16384, size / 1024 / 16384, "<= 256 KiB",
         size <= 256 * 1024)
