#!/usr/bin/env python3
"""GetPage against stock Postgres, page by page: `getpage_twin.py [--full] [--build DIR] [--seed N]`.

A stock Postgres starts from a bootstrap image and does real work; its WAL goes through walproposer and three safekeepers
into a pageserver, which is killed on the way. Then, at each of N random LSNs, a twin (stock archive recovery of the
same image from the same WAL, up to that LSN, never opened for a reader) is compared with what the pageserver serves: every
page and size through the framed protocol, the list of relations, and SLRUs, relation maps, prepared transactions, origins
and database folders of the base backup. Two branches are read back as well, and
another stock Postgres writes on one of them; a comparison with the wrong twin must fail.

  --full   the 225 core regression tests and more, 20 LSNs     --keep   keep the folder
Prints `ok NAME` or `FAILED NAME`, and figures as JSON. What is compared, and what is not: docs/redo-getpage.md.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "tests/lib"))
sys.path.insert(0, str(HERE))

from twin_rig import TENANT, TIMELINE, Rig  # noqa: E402
from twin_server import Failure, Twin, lsn_text  # noqa: E402
from twin_state import PreparedTransactions, compare_state  # noqa: E402
from twin_wal import Wal  # noqa: E402

BRANCHES = ["b2" * 16, "b3" * 16]
MEMORY_MAX_KB = 512 << 10

FULL_SQL = ["schema.sql", "heap.sql", "btree.sql", "methods_schema.sql", "methods.sql", "xact.sql"]
THIN_SQL = ["schema.sql", "xact.sql"]


def work(rig, primary, full):
    """Everything that leaves WAL of another shape, on the root."""
    for name in FULL_SQL if full else THIN_SQL:
        primary.sql_file(HERE / "sql" / name)
    if full:
        primary.regress({rig.random.randrange(20, 110): rig.kill_pageserver,
                         rig.random.randrange(110, 140): rig.kill_safekeeper,
                         rig.random.randrange(140, 220): rig.kill_pageserver})
    make_databases(primary, "regression" if full else "small")
    primary.crash()
    for name in ("locks.pgb", "race.pgb", "churn.pgb"):
        primary.pgbench("-f", HERE / "sql" / name, "-T", 5 if full else 1, "-c", 8, "--max-tries=5")
    rig.kill_pageserver()
    primary.pgbench("-i", "-s", 5 if full else 1)
    primary.pgbench("-T", 10 if full else 2, "-c", 8)
    primary.pgbench("-f", HERE / "sql" / "twophase.pgb", "-T", 5 if full else 1, "-c", 4)
    primary.sql("DROP DATABASE copied_files")
    primary.sql("CHECKPOINT")
    primary.sql("CREATE TABLE last_one AS SELECT generate_series(1, 1000) AS i")


def make_databases(primary, template):
    if template == "small":
        primary.sql("CREATE DATABASE small")
        primary.sql("CREATE TABLE t AS SELECT generate_series(1, 10000) AS i; CREATE INDEX ON t (i)", "small")
    primary.sql(f"CREATE DATABASE copied_files TEMPLATE {template} STRATEGY file_copy")
    primary.sql(f"CREATE DATABASE copied_wal TEMPLATE {template} STRATEGY wal_log")
    for name in ("copied_files", "copied_wal"):
        primary.sql("CREATE TABLE after_copy AS SELECT generate_series(1, 5000) AS i; VACUUM after_copy", name)


def work_on_branch(primary):
    """Changes of what the ancestors have, and the ends of what they began."""
    primary.sql_file(HERE / "sql" / "branch.sql")
    primary.pgbench("-f", HERE / "sql" / "churn.pgb", "-T", 1, "-c", 4, "--max-tries=5")
    primary.sql("CHECKPOINT")
    primary.sql("CREATE TABLE last_one_here AS SELECT generate_series(1, 1000) AS i")


class Comparison:
    """The twins of one run and what they were compared with."""

    def __init__(self, rig):
        self.rig = rig
        self.gone = set()  # forks that exist at some LSN
        self.figures = {"pages": 0, "forks": 0, "slru_pages": 0, "state_files": 0}
        self.bad = 0

    def verdict(self, name, problems, note=""):
        for problem in problems[:20]:
            print(f"   {problem}")
        print(f"{'FAILED' if problems else 'ok'} {name} {note}", flush=True)
        self.bad += bool(problems)

    def pages(self, twin, lsn, timeline=TIMELINE):
        """(differences, figures) of all relations; lsn None: the head of the timeline."""
        query = "" if lsn is None else f"?lsn={lsn_text(lsn)}"
        folder = self.rig.folder
        (folder / "relations").write_bytes(self.rig.get("relations" + query, timeline))
        (folder / "gone").write_text("".join(sorted(self.gone)))
        done = subprocess.run(
            [self.rig.cluster.build / "tests/oracle/getpage_compare", "--port",
             self.rig.port, "--tenant", TENANT, "--timeline", timeline, "--lsn",
             "head" if lsn is None else lsn_text(lsn), "--twin", twin.data, "--relations", folder / "relations", "--gone",
             folder / "gone", "--forks", folder / "forks"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600)
        lines = done.stdout.strip().split("\n")
        if done.returncode == 2:
            return lines, {}
        self.gone |= set((folder / "forks").read_text().splitlines(keepends=True))
        return ([] if done.returncode == 0 else lines), json.loads(lines[-1])

    def at(self, name, line, place, prepared):
        """The whole comparison at one LSN; returns the twin."""
        twin = Twin(line)
        twin.recover(place.stop_lsn)
        problems, figures = self.pages(twin, place.lsn, line.timeline)
        backup = self.rig.get(f"base_backup?lsn={lsn_text(place.lsn)}", line.timeline)
        more, counts = compare_state(backup, twin.data, twin.counters(), self.rig.cluster.postgres, prepared.at(place.stop_lsn))
        for key, value in {**figures, **counts}.items():
            if key in self.figures:
                self.figures[key] += value
        self.verdict(name, problems + more, f"{lsn_text(place.lsn)} {place.kind}: {figures.get('forks')} forks, "
                     f"{figures.get('pages')} pages, {counts['slru_pages']} SLRU pages")
        return twin

    def again(self, name, twin, place, timeline, lsn):
        problems, figures = self.pages(twin, lsn, timeline)
        self.verdict(name, problems, f"{lsn_text(place.lsn)}: {figures.get('pages')} pages")

    def branch(self, twin, place, name, parent, written):
        self.rig.branch(name, parent, place.lsn, written)
        # Twice at the head: what was read once comes from the page cache.
        for what, lsn in (("head", None), ("head_again", None), ("lsn", place.lsn)):
            self.again(f"getpage_branch_{name[:2]}_{what}", twin, place, name, lsn)

    def wrong_twin(self, twin, place):
        """The planted mistake: another LSN than the twin's must be seen."""
        problems, figures = self.pages(twin, place.lsn)
        seen = figures.get("different", 0) + figures.get("sizes", 0) > 0
        self.verdict("getpage_wrong_lsn_is_seen", [] if problems and seen else ["no difference was seen"],
                     f"{figures.get('different')} pages differ, {figures.get('sizes')} sizes")

    def samples(self):
        done = self.rig.sample()
        lines = done.stdout.strip().split("\n")
        problems = [] if done.returncode == 0 and not self.rig.sampling_failed else ["sampling ended early", *lines]
        self.verdict("getpage_head_during_ingest", problems, lines[-1])


def compare_root(comparison, root, places, prepared):
    """Returns {index of the place: twin}: of the last two that can be branch LSNs, and of the first."""
    keep = {0, *[i for i, place in enumerate(places) if place.aligned][-2:]}
    twins = {}
    for index, place in enumerate(places):
        twin = comparison.at(f"getpage_at_{index + 1:02}", root, place, prepared)
        if index in keep:
            twin.keep_as(comparison.rig.folder / f"twin{index}")
            twins[index] = twin
    comparison.samples()
    comparison.wrong_twin(twins[0], places[-1])
    return twins


def compare_branches(comparison, places, twins, prepared, count):
    """A branch, and a branch of it at an earlier LSN, on which a Postgres goes on to write."""
    rig = comparison.rig
    earlier, later = sorted(twins)[-2:]
    comparison.branch(twins[later], places[later], BRANCHES[0], TIMELINE, written=False)
    comparison.branch(twins[earlier], places[earlier], BRANCHES[1], BRANCHES[0], written=True)
    line = rig.write_on_branch(BRANCHES[1], twins[earlier], places[earlier].lsn)
    work_on_branch(line.primary)
    line.finish()
    wal = Wal(rig.cluster.build, line.wal_folder, line.start_lsn)
    here = PreparedTransactions(rig.cluster.postgres, wal, line.start_lsn, prepared.at(places[earlier].stop_lsn))
    for index, place in enumerate(wal.choose(rig.random, count)):
        comparison.at(f"getpage_on_branch_{index + 1:02}", line, place, here)
    for index, timeline in ((earlier, BRANCHES[1]), (later, BRANCHES[0]), (earlier, TIMELINE)):
        comparison.again(f"getpage_unharmed_{timeline[:2]}", twins[index], places[index], timeline, places[index].lsn)


def run(rig, args):
    begin = time.monotonic()
    root = rig.up()
    work(rig, root.primary, args.full)
    worked = time.monotonic() - begin
    rig.finish()
    wal = Wal(rig.cluster.build, root.wal_folder, root.start_lsn)
    places = wal.choose(rig.random, 20 if args.full else 5)
    comparison = Comparison(rig)
    prepared = PreparedTransactions(rig.cluster.postgres, wal, root.start_lsn)
    twins = compare_root(comparison, root, places, prepared)
    compare_branches(comparison, places, twins, prepared, 5 if args.full else 2)
    memory = rig.look_at_memory()
    comparison.verdict("getpage_memory", [] if rig.peak_kb < MEMORY_MAX_KB else [memory], memory)
    figures = {**comparison.figures, **wal.figures(), "lsns": len(places), "seed": args.seed,
               "regression_tests": root.primary.tests_ok, "peak_lag_mb": rig.peak_lag >> 20,
               "peak_rss_mb": rig.peak_kb >> 10, "ingest_cpu_s": round(rig.cpu_s, 1), "work_s": round(worked),
               "total_s": round(time.monotonic() - begin)}
    print("   " + json.dumps(figures), flush=True)
    return comparison.bad


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build", default=ROOT / "build", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--keep", action="store_true")
    args = parser.parse_args()
    os.environ.setdefault("POSTGRES_DIR", subprocess.check_output([ROOT / "tools/build-postgres"], text=True).split()[-1])
    rig, bad = Rig(args), 1
    try:
        bad = run(rig, args)
    except (Failure, subprocess.SubprocessError, OSError, TimeoutError) as problem:
        print(f"{problem}\nFAILED getpage_twin, see {rig.folder}", flush=True)
    finally:
        rig.down(failed=bool(bad))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
