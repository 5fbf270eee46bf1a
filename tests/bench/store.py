"""WAL ingest: CPU time from WAL bytes to versions on disk, compaction included, against RocksDB's part of it alone.

tests/bench/store_bench.c runs both over the same records, one after the other, several rounds: the median of the
ratios counts. The peer writes the same keys and values, sorted, as files and ingests them: no WAL is read or decoded.
"""
import json
import pathlib
import statistics
import subprocess
import tempfile

ROUNDS, WAL_MIB, IMAGES = 3, 128, 32


def measure(build, shape, images):
    with tempfile.TemporaryDirectory(prefix="anabranch-store-bench-") as folder:
        done = subprocess.run([str(pathlib.Path(build) / "tests/bench/store_bench"), folder, shape, str(WAL_MIB),
                               str(images)], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def run(build, emit):
    for shape, target_records, target_mb in (("small", 200_000, None), ("mix", None, 90)):
        rounds = {images: [] for images in (0, IMAGES)}
        for _ in range(ROUNDS):
            for images, results in rounds.items():
                results.append(measure(build, shape, images))
        for images, results in rounds.items():
            cpu = statistics.median(r["ingest_cpu_s"] for r in results)
            peer = statistics.median(r["files_cpu_s"] for r in results)
            ratio = statistics.median(r["ingest_cpu_s"] / r["files_cpu_s"] for r in results)
            name = f"ingest of {shape}, " + (f"an image after {images} records" if images else "no images")
            for amount, unit, target in ((results[0]["records"], "records/s for one core", target_records),
                                         (results[0]["wal_bytes"] / 1e6, "MB/s for one core", target_mb)):
                value = amount / cpu
                emit(name, value, unit, "sorted files alone, no decoding, no images", amount / peer, ratio,
                     "none" if target is None else f">= {target}", target is None or value >= target)
