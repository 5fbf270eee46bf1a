"""A compute: how fast it starts, and how fast it works. ANABRANCH_BENCH_PARTS names the parts to run, all without it."""
import os

from parts import compute_start, compute_work

PARTS = {"start": compute_start.run, "work": compute_work.run}


def run(build, emit):
    for name in os.environ.get("ANABRANCH_BENCH_PARTS", ",".join(PARTS)).split(","):
        PARTS[name](build, emit)
