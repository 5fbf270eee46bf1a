#!/usr/bin/env python3
"""The small chaos of ./tools/test: a few seeds, and the runner's own test (a lost commit must be seen)."""
import argparse
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent / "lib"))

from ledger import OPENING, Ledger # noqa: E402

SEEDS = [28, 44] # between them: every target, every action


class ForgetfulDatabase:
    """Answers as a database that lost the entry `lost`: the judge must not be content with it."""

    def __init__(self, kept):
        self.kept = kept

    def query(self, sql):
        return [(ident, "1") for ident in self.kept] if "GROUP BY id" in sql else []

    def value(self, sql):
        return str(50 * OPENING) if "sum(balance)" in sql else str(len(self.kept))


def judge_sees_a_lost_commit():
    ledger = Ledger(lambda: "", 0, 0)
    ledger.outcomes = {"a": "ok", "b": "ok", "c": "info", "d": "fail"}
    assert ledger.judge(ForgetfulDatabase(["a", "b"])) == []
    assert ledger.judge(ForgetfulDatabase(["a"])) == ["acknowledged b is there 0 times"]
    assert ledger.judge(ForgetfulDatabase(["a", "b", "d"])) == ["refused d is there"]
    assert ledger.judge(ForgetfulDatabase(["a", "b", "x"])) == ["x was never written"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--seeds", type=int, nargs="*", default=SEEDS)
    parser.add_argument("--minutes", default="0.6")
    args = parser.parse_args()
    judge_sees_a_lost_commit()
    print("ok judge_sees_a_lost_commit")
    failed = 0
    for seed in args.seeds:
        code = subprocess.run([sys.executable, str(HERE / "run.py"), "--seed", str(seed), "--minutes", args.minutes,
                               "--build", args.build], env=os.environ).returncode
        print(f"{'ok' if code == 0 else 'FAILED'} chaos_seed_{seed}", flush=True)
        failed += code != 0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
