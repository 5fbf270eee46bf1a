#!/usr/bin/env python3
"""Power loss on real processes: what was acknowledged is there when the power comes back.

Every daemon here has its folder on a lossyfs (tests/lib/lossyfs), dies at some change of its disk, and loses what it had
not synced. `--full` is the long form; NAMEs choose checks whose name contains one of them.
"""
import argparse
import functools
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent / "lib"))
sys.path.insert(0, str(HERE.parent / "chaos"))

import full_disk # noqa: E402
import lossy_disk # noqa: E402
import mount_checks # noqa: E402
import pageserver # noqa: E402
import rig # noqa: E402
import safekeepers # noqa: E402
from cluster import ROOT # noqa: E402

# An acknowledged row is in the log and not on disk: the smallest bug that only a power cut shows.
UNSYNCED_ROWS = ("rows are written without a sync", "common/kv/kv.c",
                 "    rocksdb_writeoptions_set_sync(kv->write_synced, 1);\n", "", "tests/model/store/store_model")


def mount_check(check, args):
    with tempfile.TemporaryDirectory(prefix="lossy-") as folder, lossy_disk.mounted(args.build, folder) as disk:
        check(disk)


def run_store_model(args, binary, steps, prepare=None):
    # As on Linux: RocksDB relies on the name of a synced file (docs/power-loss.md).
    with tempfile.TemporaryDirectory(prefix="lossy-") as folder, lossy_disk.mounted(args.build, folder, "linux") as disk:
        if prepare:
            disk.command(prepare)
        done = subprocess.run([binary, "--lossy", folder, "--steps", str(steps), "--from", str(args.seed)],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return done.returncode, done.stdout, disk.status()


def store_prefix_state(args):
    """The page store, in a process that dies at random changes of the disk: a prefix each time, by the model."""
    code, output, status = run_store_model(args, args.build / "tests/model/store/store_model", 900000 if args.full else 84000)
    print("   " + "\n   ".join(output.strip().splitlines()[-3:]))
    print(f"   {status}", flush=True)
    assert code == 0, "the model says otherwise"
    deaths = int(output.split(" deaths")[0].split()[-1])
    assert deaths >= 200 and status["lost"] > 100 and status["names_lost"] > 100, "the disk did not bite"


def lying_disk_is_noticed_by_the_store_model(args):
    code, output, _ = run_store_model(args, args.build / "tests/model/store/store_model", 30000, "lie on")
    assert code == 1, f"exit code {code}: {output}"


def row_without_a_sync_is_noticed(args):
    sys.path.insert(0, str(HERE.parent / "model/store"))
    import plants
    with tempfile.TemporaryDirectory() as folder:
        binary, why = plants.plant(args.build, pathlib.Path(folder), *UNSYNCED_ROWS)
        assert binary is not None, why
        code, output, _ = run_store_model(args, binary, 300000)
        assert code == 1, f"exit code {code}: {output}"


def store_says_when_its_disk_was_full(args):
    with tempfile.TemporaryDirectory(prefix="lossy-") as folder, lossy_disk.mounted(args.build, folder):
        done = subprocess.run([args.build / "tests/powerloss/kv_full", folder], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True)
        assert done.returncode == 0, f"exit code {done.returncode}:\n{done.stdout}"


class SharedCluster:
    """One cluster for the checks of daemons, started by the first; made anew after a check that failed."""

    def __init__(self, args):
        self.args, self.cluster = args, None

    def check(self, function):
        if self.cluster is None:
            self.cluster = rig.LossyCluster(self.args.build)
        try:
            if not self.cluster.running:
                self.cluster.up()
            function(self.args, self.cluster)
        except Exception:
            self.down(evidence=True)
            raise

    def down(self, evidence=False):
        if self.cluster is not None:
            self.cluster.down(evidence)
            self.cluster = None


def pageserver_comes_back_in_a_state_that_it_had(args, cluster):
    project = cluster.create_project("pageserver")
    benchmark = safekeepers.Benchmark(project.main(), rate=100)
    try:
        print("   " + pageserver.run(cluster, project, args.seed, args.count or (200 if args.full else 4),
                                     pageserver.FAULTS if args.full else pageserver.FAULTS[:1]), flush=True)
    finally:
        benchmark.stop()


def pageserver_goes_on_after_a_full_disk(args, cluster):
    project = cluster.create_project("full")
    benchmark = safekeepers.Benchmark(project.main(), rate=100)
    try:
        print("   " + full_disk.run(cluster, project, args.seed, args.count or (20 if args.full else 2)), flush=True)
    finally:
        benchmark.stop()


def safekeepers_keep_what_was_acknowledged(args, cluster):
    branch = cluster.create_project("safekeepers").main()
    print("   " + safekeepers.run(cluster, branch, args.seed, args.count or (100 if args.full else 5),
                                   None if args.full else 100), flush=True)


def lying_disks_are_noticed(args, cluster):
    """The last: what a cluster is worth afterwards nobody knows."""
    project = cluster.create_project("lies")
    safekeepers.lying_disk_is_noticed(cluster, project.main(), args.seed)
    pageserver.lying_disk_is_noticed(cluster, project, args.seed)


def checks_of(args, shared):
    for check in mount_checks.CHECKS:
        yield "lossyfs_" + check.__name__.removeprefix("check_"), functools.partial(mount_check, check, args)
    for check in (store_prefix_state, lying_disk_is_noticed_by_the_store_model, row_without_a_sync_is_noticed,
                  store_says_when_its_disk_was_full):
        yield check.__name__, functools.partial(check, args)
    for check in (pageserver_comes_back_in_a_state_that_it_had, pageserver_goes_on_after_a_full_disk, safekeepers_keep_what_was_acknowledged, lying_disks_are_noticed):
        yield check.__name__, functools.partial(shared.check, check)


def run_check(name, check):
    begin = time.monotonic()
    try:
        check()
        print(f"ok {name} ({time.monotonic() - begin:.1f} s)", flush=True)
        return True
    except Exception: # noqa: BLE001 - any failure is a failed check
        traceback.print_exc(file=sys.stdout)
        print(f"FAILED {name} ({time.monotonic() - begin:.1f} s)", flush=True)
        return False


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", required=True, type=pathlib.Path)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, help="deaths of the pageserver, or power cuts of safekeepers")
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    args.build = args.build.resolve()
    os.environ.setdefault("POSTGRES_DIR", os.popen(f"{ROOT}/tools/build-postgres").read().split()[-1])
    why = lossy_disk.why_not(args.build)
    if why: # a machine may be without FUSE; one that must have it says so
        must = os.environ.get("ANABRANCH_FUSE") == "required"
        print(f"{'FAILED' if must else 'LEFT OUT'} powerloss: {why}", flush=True)
        return 1 if must else 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1)) # and everything that was started ends, too
    shared, failed = SharedCluster(args), 0
    try:
        for name, check in checks_of(args, shared):
            if not args.names or any(word in name for word in args.names):
                failed += not run_check(name, check)
    finally:
        shared.down()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
