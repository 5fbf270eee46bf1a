#!/usr/bin/env python3
"""A safekeeper is replaced every few seconds under pgbench and ledger writers; by name, not a part of the suites.

    tests/e2e/membership_soak.py [--seconds 300] [--every 10] [--kill-control] [--build DIR]

Five safekeepers, three members: each change removes the member that is longest in and adds the one that is longest out.
--kill-control: control dies at a random moment of every second change. Judged: every acknowledged commit is there, once;
Postgres is the process that it was; all members have the same WAL; no change was given up. Prints one line a change.
"""
import argparse
import os
import pathlib
import random
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
for folder in (HERE.parent / "lib", HERE.parent / "chaos", HERE):
    sys.path.insert(0, str(folder))

from cluster import ROOT, Cluster, wait_for # noqa: E402
from test_membership import Change, started_at # noqa: E402


def pgbench(change, seconds):
    change.branch.pgbench("-i", "-q", "-s", "5")
    command = [str(change.cluster.postgres / "bin/pgbench"), "-n", "-c", "4", "-T", str(seconds), change.branch.uri()]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def replace_once(change, order, kill_control):
    """order: member ids, longest in first, then the others, longest out first."""
    members = change.ids()
    leaves = next(n for n in order if n in members)
    comes = next(n for n in order if n not in members)
    begun = time.monotonic()
    answer = wait_for("control takes the change", lambda: change.begin(remove=[leaves], add=[comes]))
    if kill_control:
        time.sleep(random.random() * 0.2) # a moment, not a wait
        change.cluster.control.kill()
        change.cluster.control.start()
    change.settle()
    took = time.monotonic() - begun
    assert comes in change.ids() and leaves not in change.ids(), change.get()
    change.branch.project.wait_operations(answer)
    order.remove(leaves)
    order.remove(comes)
    order.insert(len(members) - 1, comes)
    order.append(leaves)
    return leaves, comes, took


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--every", type=float, default=10)
    parser.add_argument("--kill-control", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--build", default=str(ROOT / "build"))
    args = parser.parse_args()
    random.seed(args.seed)
    os.environ.setdefault("POSTGRES_DIR", os.popen(f"{ROOT}/tools/build-postgres").read().split()[-1])
    cluster = Cluster(args.build, safekeepers=5).up()
    try:
        change = Change(cluster, args.seed)
        before = started_at(change.branch)
        load = pgbench(change, args.seconds)
        order = change.ids() + [n for n in range(1, 6) if n not in change.ids()]
        begun, times = time.monotonic(), []
        while time.monotonic() - begun < args.seconds:
            leaves, comes, took = replace_once(change, order, args.kill_control and len(times) % 2 == 1)
            times.append(took)
            print(f"{time.monotonic() - begun:6.1f} s  {leaves} -> {comes}  {took * 1000:6.0f} ms  "
                  f"generation {change.get()['generation']:3}  {change.ledger.count('ok'):6} commits", flush=True)
            time.sleep(max(0, args.every - took))
        report = load.communicate(timeout=120)[0]
        assert load.returncode == 0, report
        assert started_at(change.branch) == before, "Postgres was restarted"
        change.check()
        times.sort()
        tps = next(line for line in report.splitlines() if line.startswith("tps"))
        failed = next((line for line in report.splitlines() if "failed transactions" in line), "")
        print(f"{len(times)} replacements, median {times[len(times) // 2] * 1000:.0f} ms, longest {times[-1] * 1000:.0f} ms; "
              f"{change.ledger.count('ok')} ledger commits, all there, longest gap {change.ledger.longest_gap():.2f} s; "
              f"pgbench: {tps}; {failed}; Postgres never restarted; members agree")
    finally:
        cluster.down()
    return 0


if __name__ == "__main__":
    sys.exit(main())
