"""One safekeeper against the raw disk below it: throughput of appends, latency of commits, many timelines, idle ones.

tests/bench/safekeeper_bench.c speaks to a real safekeeper as a walproposer does. Raw keeps the same promise by the same
two files: pwrite into a segment and a sidecar, both synced at the same time, one after the other, in turn with ours.
Files lie under TMPDIR (/tmp); those of idle timelines in /dev/shm, since only their memory counts (SAFEKEEPER_IDLE: how
many).
"""
import json
import os
import pathlib
import statistics
import subprocess

ROUNDS = 3
IDLE, WRITING = int(os.environ.get("SAFEKEEPER_IDLE", "10000")), 1_000


def bench(build, *args, **env):
    build = pathlib.Path(build)
    done = subprocess.run([str(build / "tests/bench/safekeeper_bench"), *map(str, args)], stdout=subprocess.PIPE, text=True,
                          env={**os.environ, "SAFEKEEPER": str(build / "safekeeper/serve/safekeeper"), **env})
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode != 0 or not lines:
        raise RuntimeError(f"safekeeper_bench {args}: status {done.returncode}\n{done.stdout}")
    return json.loads(lines[-1])


def throughput(build, emit):
    for size, total in ((1024, 16 << 20), (8192, 64 << 20), (128 << 10, 512 << 20)):
        runs = [bench(build, "throughput", size, total) for _ in range(ROUNDS)]
        ratio = statistics.median(run["append_mb_s"] / run["raw_mb_s"] for run in runs)
        emit(f"append_{size // 1024}k", statistics.median(run["append_mb_s"] for run in runs), "MB/s",
             "raw pwrite + fdatasync of two files, one append after the other",
             statistics.median(run["raw_mb_s"] for run in runs), ratio, ">= 0.8", ratio >= 0.8)


def latency(build, emit):
    for clients in (1, 64):
        runs = [bench(build, "latency", 200, clients, 2000 if clients == 1 else 16000) for _ in range(ROUNDS)]
        over = statistics.median(run["append_p50_us"] - run["raw_p50_us"] for run in runs)
        value = statistics.median(run["append_p50_us"] for run in runs)
        raw = statistics.median(run["raw_p50_us"] for run in runs)
        emit(f"commit_p50_{clients}_clients", value, "us", "one fdatasync of the two files, median, us", raw, value / raw,
             "<= it + 200 us", over <= 200)


def many(build, emit):
    run = bench(build, "timelines", WRITING, 5)
    raw = 1e6 / run["raw_p50_us"]
    emit(f"appends_to_{WRITING}_timelines", run["appends_per_s"], "1/s", "raw, one append after the other", raw,
         run["appends_per_s"] / raw, "none", True)
    emit(f"appends_to_{WRITING}_timelines_p99", run["append_p99_us"] / 1000, "ms", "raw, all of them one after the other, ms",
         WRITING * run["raw_p50_us"] / 1000, run["append_p99_us"] / WRITING / run["raw_p50_us"], "none", True)
    run = bench(build, "idle", IDLE, TMPDIR="/dev/shm")
    emit(f"idle_{IDLE}_memory", run["bytes_each"], "bytes each", "1 KiB", 1024, run["bytes_each"] / 1024, "< 1024",
         run["bytes_each"] < 1024)
    emit(f"idle_{IDLE}_serves", run["serves_ms"], "ms", "until all are verified, ms", run["ready_ms"],
         run["serves_ms"] / run["ready_ms"], "none", True)
    emit(f"idle_{IDLE}_threads_and_descriptors", run["threads"] + run["descriptors"], "more than without", "none", 0, 0,
         "<= 2", run["threads"] + run["descriptors"] <= 2)


def run(build, emit):
    throughput(build, emit)
    latency(build, emit)
    many(build, emit)
