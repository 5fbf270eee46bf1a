#!/usr/bin/env python3
"""Run test suites and add them up: `run_tests.py --build DIR SUITE...`.

Meson suites (unit, flow, sim, lint, and asan = unit, flow and sim again in build-asan) count every check inside a
program; Python suites (redo, planted, e2e, api, postgres, powerloss, chaos, those with -full) print one line a test, `ok NAME` or
`FAILED NAME`; one that cannot run here says `LEFT OUT` and why.
What failed is said again at the end, with the beginning of its reason: of a long run only the end may be kept.
The last line is `N passed, N failed`; the exit code is 1 when anything failed.
"""
import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
CHECKS = re.compile(r"^\d+%: Checks: (\d+), Failures: (\d+), Errors: (\d+)", re.M)


class Tally:
    def __init__(self):
        self.passed, self.failures, self.seconds = 0, [], {}
        self.reasons = []  # of each failed test: lines

    def add(self, passed, failed_names):
        self.passed += passed
        self.failures += failed_names


REASON_LINES = 30  # at most: a traceback, or the end of what a program printed


def reason_of(lines):
    """What a failed test printed, without the logs of its processes (from a line `--- FILE` on) -> its end."""
    for i, line in enumerate(lines):
        if line.startswith("--- "):
            lines = lines[:i]
            break
    return lines[:1] + lines[1:][-REASON_LINES:]


def run_meson(tally, build, suite):
    """One meson suite; every libcheck check counts, a program without them counts as one."""
    logs = build / "meson-logs" / "testlog.json"
    logs.unlink(missing_ok=True)
    command = ["meson", "test", "-C", str(build), "--suite", suite, "--no-rebuild", "--quiet",
               "--num-processes", "2"]
    # The limits are against hangs: sanitizers and a busy machine are slower, and no failure.
    command += ["--timeout-multiplier", "6" if build.name == "build-asan" else "3"]
    with tempfile.TemporaryDirectory(prefix="suite-") as temp: # what is killed leaves its files there
        os.chmod(temp, 0o755)
        result = subprocess.run(command, env={**os.environ, "TMPDIR": temp}, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True)
    if not logs.exists():
        if "No suitable tests" in result.stdout:
            print(f"   {suite}: no tests in {build.name}")
            return
        print(result.stdout)
        tally.add(0, [f"{suite}: meson test did not run"])
        return
    for line in logs.read_text().splitlines():
        test = json.loads(line)
        output = test.get("stdout", "") + test.get("stderr", "")
        good = test["result"] in ("OK", "EXPECTEDFAIL")
        checks = [tuple(map(int, m)) for m in CHECKS.findall(output)]
        count = sum(c for c, _, _ in checks)
        bad = sum(f + e for _, f, e in checks)
        if good:
            tally.add(max(count, 1), [])
            print(f"ok {test['name']} ({max(count, 1)}, {test['duration']:.1f} s)")
        else:
            tally.add(max(count - bad, 0), [f"{build.name}: {test['name']}"] * max(bad, 1))
            text = f"FAILED {test['name']} ({test['result']})\n{output[-6000:]}"
            print(text)
            tally.reasons.append(reason_of(text.splitlines()))


def run_python(tally, suite, command):
    """A suite of our own: prints `ok NAME` and `FAILED NAME` lines, or a last line `N passed, N failed`."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               bufsize=1)
    failed, passed, left_out = [], 0, False
    reason = None  # of the test that failed last, while it goes on
    for line in process.stdout:
        print(line, end="", flush=True)
        if line.startswith(("ok ", "FAILED ", "== ")):
            if reason:
                tally.reasons.append(reason_of(reason))
            reason = [line.rstrip()] if line.startswith("FAILED ") else None
        elif reason:
            reason.append(line.rstrip())
        if line.startswith("ok "):
            passed += 1
        elif line.startswith("FAILED "):
            failed.append(f"{suite}: {line.split()[1]}")
        elif line.startswith("LEFT OUT "):  # as a whole, with a reason
            left_out = True
        elif total := re.match(r"(\d+) passed, (\d+) failed", line):
            passed += int(total.group(1))
            failed += [f"{suite}: {line.strip()}"] * int(total.group(2))
    if reason:
        tally.reasons.append(reason_of(reason))
    if process.wait() != 0 and not failed:
        failed.append(f"{suite}: exit code {process.returncode}")
    if passed + len(failed) == 0 and not left_out:
        failed.append(f"{suite}: ran nothing")
    tally.add(passed, failed)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True, type=pathlib.Path)
    parser.add_argument("suites", nargs="+")
    args = parser.parse_args()
    getpage_twin = [sys.executable, "tests/oracle/getpage_twin.py", "--build", str(args.build)]
    python_suites = {  # the commands of each
        "store": [[sys.executable, "tests/objstore/run.py", "--build", str(args.build)]],
        "models": [[sys.executable, "tests/model/spin/run.py"]],
        "mutants": [[sys.executable, "tests/sim/mutants.py"],
                    [sys.executable, "tests/unit/disk/plants.py", "--build", str(args.build)],
                    [sys.executable, "tests/unit/catalog/plants.py", "--build", str(args.build)]],
        "redo": [[sys.executable, "tools/redocheck", "--build", str(args.build)], getpage_twin],
        "redo-full": [[sys.executable, "tools/redocheck", "--all", "--build", str(args.build)]],
        "planted": [[sys.executable, "tests/oracle/planted.py", "--build", str(args.build)],
                    [sys.executable, "tests/e2e/plants.py", "--build", str(args.build)]],
        "plants": [[sys.executable, "tests/model/store/plants.py", "--build", str(args.build)],
                   [sys.executable, "tests/fuzz/plants.py", "--build", str(args.build)]],
        "getpage-full": [[*getpage_twin, "--full"]],
        "e2e": [[sys.executable, "tests/e2e/run.py", "--build", str(args.build)]],
        "api": [[sys.executable, "tests/api/run.py", "--build", str(args.build)]],
        "control-full": [[sys.executable, "tests/e2e/failpoints.py", "--build", str(args.build)],
                         [sys.executable, "tests/e2e/many_branches.py", "--build", str(args.build)]],
        "postgres": [[sys.executable, "tests/postgres/run.py", "--build", str(args.build)]],
        "postgres-full": [[sys.executable, "tests/postgres/run.py", "--full", "--build", str(args.build)]],
        "powerloss": [[sys.executable, "tests/powerloss/suite.py", "--build", str(args.build)]],
        "powerloss-full": [[sys.executable, "tests/powerloss/suite.py", "--full", "--build", str(args.build)]],
        "logical-full": [[sys.executable, "tests/logical/sweep.py", "--build", str(args.build)]],
        "chaos": [[sys.executable, "tests/chaos/suite.py", "--build", str(args.build)]],
    }
    tally = Tally()
    for suite in args.suites:
        print(f"== suite {suite}", flush=True)
        start = time.monotonic()
        if suite == "asan":
            for part in ("unit", "flow", "sim"):
                run_meson(tally, ROOT / "build-asan", part)
        else:
            if suite not in python_suites or suite == "store":  # that one has both
                run_meson(tally, args.build, suite)
            for command in python_suites.get(suite, []):
                run_python(tally, suite, command)
        tally.seconds[suite] = time.monotonic() - start
    print("== time: " + ", ".join(f"{s} {t:.0f} s" for s, t in tally.seconds.items()))
    for lines in tally.reasons:
        print("== again, what failed")
        print("\n".join(lines))
    for name in tally.failures:
        print(f"failed: {name}")
    print(f"{tally.passed} passed, {len(tally.failures)} failed")
    return 1 if tally.failures or tally.passed == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
