#!/usr/bin/env python3
"""End-to-end tests: every `test_*` function in tests/e2e/test_*.py, on real processes and a real Postgres.

A module's tests share one local cluster (the parameter `cluster`); a test that breaks it for others asks for its own
with the parameter `fresh_cluster`. Prints `ok NAME` or `FAILED NAME` with the reason and the ends of the logs.
`run.py --build DIR [NAME...]`: only tests whose name contains one of the words.
"""
import argparse
import importlib
import inspect
import os
import pathlib
import sys
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "lib"))
sys.path.insert(0, str(HERE.parent / "chaos"))
sys.path.insert(0, str(HERE))

from cluster import ROOT, Cluster # noqa: E402


def print_logs(cluster):
    for log in sorted(cluster.folder.rglob("*.log"))[:14]:
        tail = log.read_text(errors="replace").splitlines()[-12:]
        print(f"--- {log.relative_to(cluster.folder)}")
        print("\n".join("    " + line[:300] for line in tail))


def run_one(name, function, shared, args):
    """Returns the shared cluster, or None when it must be made anew."""
    start = time.monotonic()
    own = None
    try:
        parameters = inspect.signature(function).parameters
        if "fresh_cluster" in parameters:
            own = Cluster(args.build).up()
            function(own)
        elif "cluster" in parameters:
            shared = shared or Cluster(args.build).up()
            function(shared)
        elif "build" in parameters: # makes a cluster that is not like the others
            function(args.build)
        else:
            function()
        print(f"ok {name} ({time.monotonic() - start:.1f} s)", flush=True)
    except Exception: # noqa: BLE001 - any failure is a failed test
        print(f"FAILED {name} ({time.monotonic() - start:.1f} s)", flush=True)
        traceback.print_exc(file=sys.stdout)
        broken = own or shared
        if broken:
            print_logs(broken)
            if not own: # what is left of it may be odd: others get a new one
                broken.down()
                shared = None
    finally:
        if own:
            own.down()
    return shared


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", default=str(ROOT / "build"))
    parser.add_argument("words", nargs="*")
    args = parser.parse_args()
    os.environ.setdefault("POSTGRES_DIR", os.popen(f"{ROOT}/tools/build-postgres").read().split()[-1])
    for path in sorted(HERE.glob("test_*.py")):
        module = importlib.import_module(path.stem)
        shared = None
        for name, function in list(vars(module).items()):
            if name.startswith("test_") and (not args.words or any(w in name for w in args.words)):
                shared = run_one(name, function, shared, args)
        if shared:
            shared.down()
    return 0


if __name__ == "__main__":
    sys.exit(main())
