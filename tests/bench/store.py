"""WAL ingest: CPU time from WAL bytes to versions on disk, compaction included, against RocksDB's part of it alone; what
was written for it; one page that is updated a million times; and what it takes to look a page up.

tests/bench/store_bench.c runs ingest and peer over the same records, one after the other, several rounds: the median of
the ratios counts. The peer writes the same keys and values, sorted, as files and ingests them, images included: no WAL is
read or decoded, no image is made. tests/bench/store_hot_page.c is the page.
"""
import json
import pathlib
import statistics
import subprocess
import tempfile

ROUNDS, WAL_MIB, IMAGES, UPDATES, PAGES = 3, 256, 64, 1_000_000, 40_000


def run_program(build, name, *args):
    with tempfile.TemporaryDirectory(prefix="anabranch-store-bench-") as folder:
        done = subprocess.run([str(pathlib.Path(build) / "tests/bench" / name), folder, *map(str, args)], check=True,
                              capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def ingest(build, emit):
    for shape, target_records, target_mb in (("small", 200_000, None), ("mix", None, 90)):
        rounds = {images: [] for images in (0, IMAGES)}
        for _ in range(ROUNDS):
            for images, results in rounds.items():
                results.append(run_program(build, "store_bench", shape, WAL_MIB, images))
        for images, results in rounds.items():
            one_row(shape, images, results, target_records, target_mb, emit)


def one_row(shape, images, results, target_records, target_mb, emit):
    def median(of):
        return statistics.median(of(r) for r in results)
    one = results[0]
    cpu, peer = median(lambda r: r["ingest_cpu_s"]), median(lambda r: r["same_files_cpu_s"])
    of_peer = median(lambda r: r["same_files_cpu_s"] / r["ingest_cpu_s"])
    name = f"ingest of {shape}, " + (f"an image after {images} records" if images else "no images")
    for amount, unit, target in ((one["records"], "records/s for one core", target_records),
                                 (one["wal_bytes"] / 1e6, "MB/s for one core", target_mb)):
        value = amount / cpu
        emit(name, value, unit, "the same keys and values as sorted files, no decoding", amount / peer, of_peer,
             "none" if target is None else f">= {target}", target is None or value >= target)
    emit(f"{name}: of the same sorted files alone", of_peer, "x", "the same CPU", 1, of_peer, ">= 0.8", of_peer >= 0.8)
    apart = median(lambda r: r["ingest_cpu_s"] - r["ingest_compaction_cpu_s"])
    files = median(lambda r: r["same_files_cpu_s"] - r["same_files_compaction_cpu_s"])
    emit(f"{name}: CPU without compaction", apart, "s", "the same sorted files alone, s", files, files / apart, "none", True)
    written = median(lambda r: r["ingest_written"]) / one["version_bytes"]
    files = median(lambda r: r["same_files_written"]) / one["version_bytes"]
    emit(f"{name}: written", written, "x of the records' versions", "the same sorted files alone", files, written / files,
         "<= 2.5", written <= 2.5)


def hot_page(build, emit):
    result = run_program(build, "store_hot_page", UPDATES, IMAGES)
    name = f"one page updated {UPDATES} times"
    for where, text in (("in_layers", "the newest in layers"), ("flushed", "all flushed and compacted")):
        reads = result[where]
        emit(f"{name}: read at a random LSN, {text}, p50", reads["p50_us"], "us", "its CPU, us", reads["cpu_p50_us"],
             reads["p50_us"] / reads["cpu_p50_us"], "none", True)
        emit(f"{name}: read at a random LSN, {text}, p99", reads["p99_us"], "us", "its CPU, us", reads["cpu_p99_us"],
             reads["p99_us"] / reads["cpu_p99_us"], "<= 5 ms", reads["p99_us"] <= 5000)
    emit(f"{name}: ingest", UPDATES / result["ingest_cpu_s"], "records/s for one core", "none", 0, 0, "none", True)
    for what in ("written", "disk"):
        amount = result[f"{what}_bytes"] / result["wal_bytes"]
        emit(f"{name}: {what}", amount, "x of its WAL", "none", 0, 0, "none", True)


def lookups(build, emit):
    """A page in sorted files: tests/bench/store_reads.c."""
    for name, cache_mib in (("in the block cache", 1024), ("mostly in the system's cache", 32)):
        took = run_program(build, "store_reads", PAGES, cache_mib)
        emit(f"a page at random, {name}", took["random_us"], "us of CPU", "by a reader that is kept, us", took["random_kept_us"],
             took["random_us"] / took["random_kept_us"], "none", True)
        ratio = took["run_walked_us"] / took["run_singly_us"]
        emit(f"a page of 16 neighbours, {name}", took["run_walked_us"], "us of CPU", "each looked up by itself, us",
             took["run_singly_us"], ratio, "less", ratio < 1)


def run(build, emit):
    lookups(build, emit)
    hot_page(build, emit)
    ingest(build, emit)
