"""The figures of the walking skeleton, each against a peer or a limit taken in the same run, interleaved.

branch creation (REST) at 1 and at 1,000 branches against fdatasync; GetPage over loopback against a bare echo of as
many bytes; commit latency against fdatasync; pgbench against the same Postgres build with three synchronous receivers.
"""
import json
import os
import pathlib
import statistics
import subprocess
import time

from cluster import http, running
from parts import stock


def percentile(values, share):
    values = sorted(values)
    return values[int((len(values) - 1) * share)]


def fdatasync_ms(folder, count=200):
    """Durations of single 8 KiB pwrite + fdatasync in a preallocated file on that disk."""
    path = pathlib.Path(folder) / "fdatasync.probe"
    durations = []
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        os.write(fd, b"\0" * 8192 * count)
        os.fsync(fd)
        for i in range(count):
            begin = time.perf_counter()
            os.pwrite(fd, b"x" * 8192, i * 8192)
            os.fdatasync(fd)
            durations.append((time.perf_counter() - begin) * 1000)
    finally:
        os.close(fd)
        path.unlink()
    return durations


def branch_creation(project, main, folder, emit):
    def create(n):
        begin = time.perf_counter()
        project.create_branch(f"bench-{n}", main, endpoint=False, wait=False)
        return (time.perf_counter() - begin) * 1000
    syncs, first, later = [], [], []
    for n in range(20):
        first.append(create(n))
        syncs += fdatasync_ms(folder, 10)
    for n in range(20, 980):
        create(n)
    for n in range(980, 1000):
        later.append(create(n))
        syncs += fdatasync_ms(folder, 10)
    sync = percentile(syncs, 0.99)
    for name, values in (("branch_create_rest_p99_at_1", first), ("branch_create_rest_p99_at_1000", later)):
        value = percentile(values, 0.99)
        emit(name, value, "ms", "2 * p99 of fdatasync, ms", 2 * sync, value / (20 + 2 * sync), "<= 20 ms + 2 fdatasync p99",
             value <= 20 + 2 * sync)
    emit("branch_create_flatness", statistics.median(later) / statistics.median(first), "ratio", "median at 1 branch, ms",
         statistics.median(first), statistics.median(later) / statistics.median(first), "flat: <= 1.5",
         statistics.median(later) <= 1.5 * statistics.median(first))


def get_page(cluster, branch, emit):
    with branch.connect() as db:
        spc_db_rel = db.query("SELECT 1663, (SELECT oid FROM pg_database WHERE datname = current_database()), "
                              "pg_relation_filenode('pgbench_accounts'), pg_relation_size('pgbench_accounts') / 8192")[0]
    spec = http("GET", f"{cluster.agent.http_url}/v1/computes/{branch.endpoint()['id']}/spec")
    host, port = cluster.pageserver.row["listen"].split(":")
    def measure(seconds, in_flight):
        done = subprocess.run([str(cluster.build / "tests/bench/getpage"), host, port, spec["tenant"], spec["timeline"],
                               *spc_db_rel, str(seconds), str(in_flight)], stdout=subprocess.PIPE, text=True, check=True)
        return json.loads(done.stdout)
    measure(2, 16) # warm
    one = measure(5, 1)
    emit("getpage_p50", one["p50_us"], "us", "echo of as many bytes, p50", one["echo_p50_us"],
         one["p50_us"] / one["echo_p50_us"], "<= 40 us", one["p50_us"] <= 40)
    emit("getpage_p99", one["p99_us"], "us", "echo of as many bytes, p99", one["echo_p99_us"],
         one["p99_us"] / one["echo_p99_us"], "<= 150 us", one["p99_us"] <= 150)
    many = measure(5, 32)
    rate = many["count"] / 5
    emit("getpage_rate", rate, "1/s", "one at a time", one["count"] / one["seconds"], rate / (one["count"] / one["seconds"]),
         ">= 40000/s", rate >= 40000)


def commits(cluster, branch, folder, emit):
    script = pathlib.Path(folder) / "insert.sql"
    script.write_text("INSERT INTO commits VALUES (1);\n")
    with branch.connect() as db:
        db.query("CREATE TABLE commits (n int)")
    latencies, syncs = [], []
    for _ in range(5): # interleaved: the disk is shared and noisy
        syncs += fdatasync_ms(folder, 100)
        latencies.append(stock.latency_ms(stock.pgbench(cluster.postgres, branch.uri(), "-n", "-c", "1", "-T", "2", "-f", str(script))))
    sync, value = statistics.median(syncs), statistics.median(latencies)
    emit("commit_latency", value * 1000, "us", "one fdatasync, median, us", sync * 1000, value / sync,
         "<= one fdatasync + 200 us", value <= sync + 0.2)


def pgbench_against_stock(cluster, branch, emit):
    with stock.receivers(cluster.postgres, cluster.run_as) as peer_uri:
        stock.pgbench(cluster.postgres, peer_uri, "-i", "-q", "-s", "10")
        for clients in ("1", "8"):
            ours, theirs = [], []
            for _ in range(3):
                ours.append(stock.tps(stock.pgbench(cluster.postgres, branch.uri(), "-n", "-c", clients, "-j", "2", "-T", "8")))
                theirs.append(stock.tps(stock.pgbench(cluster.postgres, peer_uri, "-n", "-c", clients, "-j", "2", "-T", "8")))
            value, peer = statistics.median(ours), statistics.median(theirs)
            emit(f"pgbench_tpcb_c{clients}", value, "tps", "stock with ANY 2 (3) pg_receivewal --synchronous", peer,
                 value / peer, ">= 1.0 x stock", value >= peer)


def run(build, emit):
    with running(build, local_cache_mb=1024) as cluster:
        project = cluster.create_project("bench")
        main = project.main()
        main.connect().close()
        commits(cluster, main, str(cluster.folder), emit) # first: behind a bulk load the disk still writes it back
        main.pgbench("-i", "-q", "-s", "10")
        pgbench_against_stock(cluster, main, emit)
        get_page(cluster, main, emit)
        branch_creation(project, main, str(cluster.folder), emit)
