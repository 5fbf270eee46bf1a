#!/usr/bin/env python3
"""Check the models of the protocols with spin, and that each planted mistake is found.

    tests/model/spin/run.py [--long] [--list] [NAME ...]

A run is a model with bounds: it must hold in every state. A mutant of it is the same model with one mistake (a macro):
spin must find a violation. Small bounds by default (the suite `models` of ./tools/test); --long has the bounds
recorded in docs/design/models.md. NAME: only runs and mutants whose name begins so. Prints one line each, then
`N passed, N failed`.
"""
import argparse
import pathlib
import re
import resource
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent

# name: (model, macros, macros with --long, depth); no macros: only with --long
RUNS = {
    "consensus-votes": ("consensus.pml", "SAME_TERMS TERMS=1 RECORDS=1", "SAME_TERMS TERMS=1 RECORDS=1", 300_000),
    "consensus-logs": ("consensus.pml", "TERMS=2 RECORDS=1", "TERMS=2 RECORDS=1", 300_000),
    "consensus-live": ("consensus.pml", "LIVE TERMS=2 RECORDS=2", "LIVE TERMS=2 RECORDS=2", 300_000),
    "membership-votes": ("membership.pml", "SAME_TERM RECORDS=0 WIPES=1", "SAME_TERM RECORDS=0 WIPES=1", 100_000),
    "membership-logs": ("membership.pml", "NODES=2 SECOND=2", "NODES=3 SECOND=7", 100_000),
    "membership-return": ("membership.pml", None,
                          "NODES=2 FIRST=3 SECOND=1 THIRD=2 GENERATIONS=5 WIPES=1", 100_000),
    "remote": ("remote.pml", "SEQS=2", "SEQS=3", 100_000),
    "history-reader": ("history.pml", "READER", "READER LSNS=4", 100_000),
    "history-branch": ("history.pml", "BRANCH", "BRANCH LSNS=4", 100_000),
    "history-lease": ("history.pml", "LEASE", "LEASE LSNS=4", 100_000),
}

# run: {macro: the mistake; its number among the planted bugs, where it has one}
MUTANTS = {
    "consensus-votes": {
        "VOTE_TWICE": "2: a second vote in the same term",
        "ACK_UNSYNCED": "3: an append is acknowledged before it is on disk",
        "ONE_IS_ENOUGH": "7: less than a majority is a quorum",
        "TRUST_STALE RESETS=1": "10: the stream_lsn of a stale connection is believed",
    },
    "consensus-logs": {
        "OLDER_TERM": "4: an append of an older term is accepted",
        "DONOR_BY_TERM": "9: the donor is chosen by term only",
        "NOT_CUT": "11: a divergent tail is not truncated",
        "EARLY_BEGIN": "19: the term starts before the end of the donor's log",
        "COMMON_IS_END": "28: the common point is the follower's end whatever the terms say",
    },
    "consensus-live": {
        "NEVER_ANSWERED": "an append is not answered when it is on disk",
    },
    "membership-votes": {
        "ANY_VOTE": "30: the generation of votes is not checked",
        "NO_PROMISE": "131: a change ends before the new set has the promises of the old one",
        "ANY_ANSWER": "230: a change ends by answers under another generation",
        "CREATE_AGAIN": "control creates the timeline again on a member that lost its disk",
    },
    "membership-logs": {
        "OLD_SET_ONLY": "29: a joint membership counts the old set only",
        "NO_COPY": "31: a change ends before the new set has the log of the old one",
        "ANY_APPEND": "130: the generation of appends and acknowledgements is not checked",
        "OLD_UNASKED": "a change ends before a majority of the old set has answered",
        "NEVER_BY_NEW_SET": "no mistake: the search gets to a record that the new set commits",
    },
    "membership-return": {
        "KEEP_ACKS": "32: a member keeps what it had acknowledged under the membership before",
    },
    "remote": {
        "FORGET_UNCONFIRMED": "33: safekeepers forget WAL before control has confirmed the generation",
        "INDEX_FIRST": "43: the index is put before an object that it names",
        "DELETE_UNCONFIRMED": "44: objects are deleted before the generation is confirmed",
        "REISSUE": "45: control issues a generation again",
        "CONFIRM_EARLY": "the generation is confirmed before the index is put",
    },
    "history-reader": {
        "CHECK_ONCE": "a read does not check the cutoff again after it has collected",
        "PUBLISH_FIRST": "a cutoff is published before it is durable",
        "UNPUBLISHED": "a compaction uses a cutoff before it is published",
    },
    "history-branch": {
        "NO_BRANCH": "41: a compaction ignores the branch point",
        "VALIDATE_FIRST": "42: a branch validates its LSN before it holds it",
        "NO_HOLD": "a compaction ignores holds",
        "HOLD_ENDS_EARLY": "the hold ends before the branch is registered",
    },
    "history-lease": {
        "NO_LEASE": "41: a compaction ignores leases",
        "LEASE_VALIDATES_FIRST": "42: a lease validates its LSN before it is registered",
        "ANSWER_FIRST": "a lease is answered before it is durable",
        "FORGET_LEASE_FIRST": "a lease is forgotten before its row is gone",
    },
}


def check(model, macros, depth, optimize):
    """(violated, states, CPU seconds); raises when spin or the compiler fails."""
    with tempfile.TemporaryDirectory() as folder:
        flags = [f"-D{macro}" for macro in macros.split()]
        subprocess.run(["spin", *flags, "-a", str(HERE / model)], cwd=folder, check=True, capture_output=True)
        # LIVE: and nothing goes on for ever (a cycle without progress is an error).
        kind = "-DNP" if "LIVE" in macros.split() else "-DSAFETY"
        subprocess.run(["gcc", optimize, "-w", kind, "-DCOLLAPSE", "-DMEMLIM=6000", "-o", "pan", "pan.c"],
                       cwd=folder, check=True)
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        cycles = ["-l"] if kind == "-DNP" else []
        run = subprocess.run(["./pan", *cycles, f"-m{depth}", "-w22"], cwd=folder, capture_output=True, text=True)
        cpu_s = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    errors = re.search(r"errors: (\d+)", run.stdout)
    states = re.search(r"([\d.e+]+) states, stored", run.stdout)
    incomplete = re.search(r"max search depth too small|out of memory|pan: reached -DMEMLIM|pan:\d+: invalid end state", run.stdout)
    if not errors or not states or (incomplete and errors.group(1) == "0"):
        raise RuntimeError((run.stdout + run.stderr)[-1500:])
    violation = re.search(r"pan:\d+: (.*) \(at depth", run.stdout)
    return violation.group(1) if errors.group(1) != "0" and violation else None, int(float(states.group(1))), cpu_s


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    cases = []
    for name, (model, short, long, depth) in RUNS.items():
        if short is None and not args.long:
            continue
        cases.append((name, model, long if args.long else short, depth, None))
        cases += [(f"{name}/{macro}", model, f"{short or long} {macro}", depth, what)
                  for macro, what in MUTANTS[name].items()]
    cases = [case for case in cases if not args.names or any(case[0].startswith(name) for name in args.names)]
    if args.list:
        print("\n".join(f"{name:40} {what or macros}" for name, _, macros, _, what in cases))
        return 0
    failed = 0
    for name, model, macros, depth, mistake in cases:
        try:
            # A mutant is found soon: compiling it well would take longer than the search.
            violation, states, cpu_s = check(model, macros, depth, "-O0" if mistake else "-O2")
            good = (violation is not None) == (mistake is not None)
            said = violation or ("no violation" if mistake is None else f"NOT FOUND: {mistake}")
        except (RuntimeError, subprocess.CalledProcessError) as error:
            good, said, states, cpu_s = False, str(error), 0, 0.0
        failed += not good
        # Not "ok NAME": whoever adds suites up takes the last line.
        print(f"{'good' if good else 'BAD '} {name:40} {states:>10} states {cpu_s:6.1f} s  {said}", flush=True)
    print(f"{len(cases) - failed} passed, {failed} failed")
    return 1 if failed or not cases else 0


if __name__ == "__main__":
    sys.exit(main())
