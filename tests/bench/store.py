"""WAL ingest: CPU time from WAL bytes to versions on disk, compaction included, against RocksDB's part of it alone.

tests/bench/store_bench.c runs both over the same records, one after the other, several rounds: the median of the
ratios counts. The peer writes the same keys and values, sorted, as files and ingests them: no WAL is read or decoded.
"""
import json
import pathlib
import statistics
import subprocess
import tempfile

ROUNDS, WAL_MIB = 3, 256


def run(build, emit):
    for shape, target_records, target_mb in (("small", 200_000, None), ("mix", None, 90)):
        rounds = []
        for _ in range(ROUNDS):
            with tempfile.TemporaryDirectory(prefix="anabranch-store-bench-") as folder:
                done = subprocess.run([str(pathlib.Path(build) / "tests/bench/store_bench"), folder, shape,
                                       str(WAL_MIB)], check=True, capture_output=True, text=True)
            rounds.append(json.loads(done.stdout.splitlines()[-1]))
        cpu = statistics.median(r["ingest_cpu_s"] for r in rounds)
        peer = statistics.median(r["files_cpu_s"] for r in rounds)
        ratio = statistics.median(r["ingest_cpu_s"] / r["files_cpu_s"] for r in rounds)
        for figure, amount, unit, target in (
                ("records", rounds[0]["records"], "records/s", target_records),
                ("bytes", rounds[0]["wal_bytes"] / 1e6, "MB/s", target_mb)):
            value = amount / cpu
            emit(f"ingest of {shape}: {figure} for one core", value, unit, "sorted files alone, no decoding", amount / peer,
                 ratio, "none" if target is None else f">= {target}", target is None or value >= target)
