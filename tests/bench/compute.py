"""A compute: how fast it starts. ANABRANCH_BENCH_PARTS names the parts to run, all without it."""
import os

from parts import compute_start

PARTS = {"start": compute_start.run}


def run(build, emit):
    for name in os.environ.get("ANABRANCH_BENCH_PARTS", ",".join(PARTS)).split(","):
        PARTS[name](build, emit)
