#!/usr/bin/env python3
"""Chaos from a seed: `anabranch chaos run --seed S --minutes M`.

The seed gives a plan (what is killed, paused or cut, when, for how long) before anything starts; a ledger workload runs
through it; then everything is healed and judged: every acknowledged commit is there, nothing else is, sums hold, on the
branch and on branches taken on the way; the safekeepers agree byte for byte; the emptied and refilled pageserver gives
the same answer. The last lines are the verdict and the command that repeats the run. Exit code 0: safe, 1: violated,
2: the run proves nothing (too few commits, or a fault that did not bite).
"""
import argparse
import json
import os
import pathlib
import random
import shlex
import shutil
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "lib"))
sys.path.insert(0, str(HERE))

import nemesis # noqa: E402
from cluster import ROOT, ApiError, http, running, wait_for # noqa: E402
from ledger import Ledger # noqa: E402

TARGETS = ["safekeeper-1", "safekeeper-2", "safekeeper-3", "pageserver-1", "control", "walproposer", "postgres"]


def make_plan(seed, seconds, actions=None, targets=None):
    """A list of steps {t, action, target, down_s}, from nothing but the seed. Steps may overlap in effect, not in time:
    one fault heals before the next begins, except branches, which are taken at any time."""
    rng = random.Random(seed)
    actions = actions or ["kill", "kill", "pause", "cut"]
    targets = targets or TARGETS
    plan, t = [], 2.0
    while t < seconds - 3:
        action = rng.choice(actions)
        target = rng.choice([x for x in targets if action != "cut" or x.startswith(("safekeeper", "pageserver"))])
        down = round(rng.uniform(0.1, 3.0), 2)
        plan.append({"t": round(t, 2), "action": action, "target": target, "down_s": down})
        t += down + rng.uniform(1.0, 5.0)
        if rng.random() < 0.3:
            plan.append({"t": round(t, 2), "action": "branch", "target": f"b{len(plan)}", "down_s": 0})
    return plan


class Run:
    def __init__(self, cluster, args, plan):
        self.cluster, self.args, self.plan = cluster, args, plan
        self.violations, self.blunt, self.left_out, self.branches = [], [], 0, []
        self.can_cut = nemesis.can_cut()
        self.folder = pathlib.Path(args.output or cluster.folder / "chaos")
        self.folder.mkdir(parents=True, exist_ok=True)

    def execute(self):
        (self.folder / "plan.jsonl").write_text("".join(json.dumps(step) + "\n" for step in self.plan))
        self.project = self.cluster.create_project(f"chaos-{self.args.seed}")
        self.main = self.project.main()
        uri = self.main.uri()
        self.ledger = Ledger(lambda: uri, self.args.writers, self.args.seed, self.folder / "history.jsonl")
        self.ledger.create(self.main.connect)
        self.ledger.start()
        start = time.monotonic()
        for step in self.plan:
            time.sleep(max(0.0, step["t"] - (time.monotonic() - start)))
            self.perform(step, time.monotonic() - start)
        wait_for("commits go on after the last fault", self.goes_on(), 120)
        stuck = self.ledger.stop()
        if stuck:
            self.violations.append(f"{stuck} writers never came back")
        self.seconds = time.monotonic() - start
        self.judge()

    def goes_on(self):
        before = self.ledger.count("ok")
        return lambda: self.ledger.count("ok") > before + 5

    def perform(self, step, now):
        if step["action"] == "cut" and not self.can_cut:
            self.left_out += 1
            print(f"   {now:6.1f} s  cut {step['target']}: left out, it needs iptables and root or sudo", flush=True)
            return
        print(f"   {now:6.1f} s  {step['action']} {step['target']}"
              + (f" for {step['down_s']} s" if step["down_s"] else ""), flush=True)
        try:
            if step["action"] == "branch":
                with self.ledger.lock:
                    acknowledged = {i: o for i, o in self.ledger.outcomes.items() if o == "ok"}
                branch = self.project.create_branch(step["target"], self.main, endpoint=False, wait=False)
                self.branches.append((branch, acknowledged))
            elif not nemesis.ACTIONS[step["action"]](self.cluster, self.main, step):
                self.blunt.append(f"{step['action']} {step['target']} at {step['t']}")
        except (ApiError, OSError, TimeoutError, KeyError, RuntimeError) as error:
            # A target that is just being restarted cannot be hit: that fault did not bite.
            self.blunt.append(f"{step['action']} {step['target']} at {step['t']}: {error}")
            print(f"            did not bite: {error}", flush=True)

    def judge_branch(self, name, branch, must_have=None):
        with branch.connect(timeout_s=120) as db:
            self.violations += [f"{name}: {v}" for v in self.ledger.judge(db, must_have)]

    def judge(self):
        print("   judging main")
        self.judge_branch("main", self.main)
        for branch, acknowledged in self.branches[-3:]:
            print(f"   judging branch {branch.get()['name']} ({len(acknowledged)} acknowledged before it)")
            self.project.wait_operations(self.project.api(
                "POST", "/endpoints", {"endpoint": {"branch_id": branch.id, "type": "read_write"}}))
            self.judge_branch(f"branch {branch.id}", branch, acknowledged)
        self.judge_safekeepers()

    def judge_safekeepers(self):
        """All three hold the same committed bytes."""
        row = http("GET", f"{self.cluster.pageserver.http_url}/v1/status")
        for tenant in row["tenants"]:
            for timeline in tenant["timelines"]:
                ident = timeline["timeline"] if isinstance(timeline, dict) else timeline
                path = f"/v1/tenants/{tenant['tenant']}/timelines/{ident}"
                def digests(path=path):
                    states = [http("GET", s.http_url + path) for s in self.cluster.safekeepers]
                    commit = min((s["commit_lsn"] for s in states), key=lsn_value)
                    begin = max((s["retention"]["begin_lsn"] for s in states), key=lsn_value)
                    if lsn_value(commit) <= lsn_value(begin):
                        return ["empty"]
                    return [http("GET", f"{s.http_url}{path}/digest?from={begin}&to={commit}")["crc"]
                            for s in self.cluster.safekeepers]
                found = digests()
                if len(set(found)) != 1:
                    self.violations.append(f"safekeepers disagree on {ident}: {found}")

    def verdict(self):
        ok, info = self.ledger.count("ok"), self.ledger.count("info")
        report = {"seed": self.args.seed, "seconds": round(self.seconds, 1), "acknowledged": ok, "unknown": info,
                  "refused": self.ledger.count("fail"), "longest_gap_s": round(self.ledger.longest_gap(), 2),
                  "faults": len([s for s in self.plan if s["action"] != "branch"]) - self.left_out,
                  "left_out": self.left_out, "branches": len(self.branches),
                  "did_not_bite": self.blunt, "violations": self.violations[:20]}
        (self.folder / "report.json").write_text(json.dumps(report, indent=2) + "\n")
        print(json.dumps(report))
        if self.violations:
            return 1, "VIOLATED"
        faults = report["faults"]
        if ok < 50 or len(self.blunt) * 2 > max(faults, 1):
            return 2, "INVALID: it proves nothing (too few commits, or faults that did not bite)"
        return 0, "SAFE"


def lsn_value(text):
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--actions", help="comma list of kill, pause, cut")
    parser.add_argument("--targets", help="comma list, e.g. safekeeper-1,postgres")
    parser.add_argument("--plan", help="run this plan file instead of one from the seed")
    parser.add_argument("--build", default=os.environ.get("ANABRANCH_BUILD", str(ROOT / "build")))
    parser.add_argument("--output", help="folder for plan, history and report")
    args = parser.parse_args()
    if "POSTGRES_DIR" not in os.environ:
        os.environ["POSTGRES_DIR"] = os.popen(f"{shlex.quote(str(ROOT))}/tools/build-postgres").read().split()[-1]
    if args.plan:
        plan = [json.loads(line) for line in pathlib.Path(args.plan).read_text().splitlines()]
    else:
        plan = make_plan(args.seed, args.minutes * 60, args.actions and args.actions.split(","),
                         args.targets and args.targets.split(","))
    print(f"== chaos, seed {args.seed}: {len(plan)} steps in {args.minutes} minutes", flush=True)
    with running(args.build, local_cache_mb=0 if args.seed % 2 else 8) as cluster: # every other run with a small one
        run = Run(cluster, args, plan)
        run.execute()
        code, word = run.verdict()
        if code != 0: # the evidence outlives the cluster
            kept = pathlib.Path(os.environ.get("ANABRANCH_TEST_DIR", "/tmp")) / f"chaos-{args.seed}-{os.getpid()}"
            shutil.copytree(cluster.folder, kept, ignore_dangling_symlinks=True, dirs_exist_ok=True)
            print(f"logs and history: {kept}")
    options = "".join(f" --{o} {getattr(args, o)}" for o in ("actions", "targets", "plan") if getattr(args, o))
    print(f"{word}; repeat with: anabranch chaos run --seed {args.seed} --minutes {args.minutes}{options}")
    return code


if __name__ == "__main__":
    sys.exit(main())
