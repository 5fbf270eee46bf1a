#!/usr/bin/env python3
"""Postgres' own test suites, as they are, on a compute of a local cluster.

  run.py            the suite `postgres`: core at 1 MB of shared buffers, isolation, a selection of contrib
  run.py --full     the suite `postgres-full`: every part but those that are in no suite
  run.py NAME...    parts by name (--list)

Every part has a branch of its own. A test that is not in tests/postgres/differences.py must pass, and one that is must
not. Afterwards pg_amcheck (--heapallindexed --rootdescend) looks at every database of the branch, and at those of a branch
that is made of it then. Prints `ok PART/TEST` or `FAILED PART/TEST`; a failed part leaves its differences beside the data.
"""
import argparse
import os
import pathlib
import subprocess
import sys
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent / "lib"))

from cluster import ROOT, Cluster # noqa: E402
from compute import Compute # noqa: E402
from differences import DIFFERENCES # noqa: E402
from parts import PARTS # noqa: E402


class Tally:
    def __init__(self):
        self.passed, self.failed, self.diffs = 0, 0, []

    def judge(self, part, test, passed, diffs):
        reason = DIFFERENCES.get((part, test))
        if passed and reason is None:
            self.passed += 1
            print(f"ok {part}/{test}", flush=True)
        elif not passed and reason is not None:
            self.passed += 1
            print(f"ok {part}/{test} (differs: {reason})", flush=True)
        else:
            self.failed += 1
            print(f"FAILED {part}/{test}{': it is in the list of differences, and passes' if passed else ''}", flush=True)
            if diffs and diffs not in self.diffs:
                self.diffs.append(diffs)


def check_structure(tally, name, compute, part):
    """amcheck on the branch, and on a branch of it."""
    for where in ("", "_of_a_branch"):
        subject = compute if not where else Compute(compute.project, f"{name}-child", compute.branch)
        said = subject.amcheck(*part.databases)
        tally.judge(name, f"amcheck{where}", said == "", said)
        if where:
            subject.remove()


def run_part(tally, project, name):
    part, begin = PARTS[name], time.monotonic()
    failed_before, compute = tally.failed, None
    try:
        compute = Compute(project, name, **part.settings)
        for test, passed, diffs in part.run(compute):
            tally.judge(name, test, passed, diffs)
        tests = time.monotonic()
        compute.check_health()
        check_structure(tally, name, compute, part)
        compute.check_health()
        tally.judge(name, "health", True, "")
        print(f"   {name}: tests {tests - begin:.0f} s, structure {time.monotonic() - tests:.0f} s", flush=True)
    except Exception: # noqa: BLE001 - any failure is a failed part
        traceback.print_exc(file=sys.stdout)
        tally.judge(name, "health", False, "")
    for diffs in tally.diffs:
        print(diffs[:20000])
    tally.diffs.clear()
    if compute is not None and tally.failed == failed_before:
        compute.remove()


def prefix_of(*flags):
    return subprocess.check_output([ROOT / "tools/build-postgres", *flags], text=True).split()[-1]


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="NAME")
    parser.add_argument("--build", default=str(ROOT / "build"))
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--postgres", help="install prefix of the server (default: what tools/build-postgres builds)")
    parser.add_argument("--list", action="store_true")
    args = parser.parse_args()
    args.names = args.parts or [
        name for name, part in PARTS.items() if part.quick or args.full and not part.by_name]
    unknown = [name for name in args.names if name not in PARTS]
    if unknown:
        parser.error(f"no part {', '.join(unknown)}; --list names them")
    return args


def main():
    args = parse()
    if args.list:
        for name, part in PARTS.items():
            print(f"{'*' if part.quick else ' '} {name:20} {part.about}")
        return 0
    if args.postgres:
        os.environ["POSTGRES_DIR"] = args.postgres
    elif "POSTGRES_DIR" not in os.environ or any(PARTS[name].suites for name in args.names):
        os.environ["POSTGRES_DIR"] = prefix_of(*["--suites"] * any(PARTS[name].suites for name in args.names))
    tally = Tally()
    cluster = Cluster(args.build)
    cluster.up()
    try:
        project = cluster.create_project("postgres")
        project.main().suspend()  # nobody uses it
        for name in args.names:
            run_part(tally, project, name)
    finally:
        kept = tally.failed > 0
        if kept:
            cluster.keep = True
            print(f"   the cluster is kept: {cluster.folder}")
        cluster.down()
        Compute.remove_links()
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
