#!/usr/bin/env python3
"""A suite whose test fails exits with 1, also when nobody adds up its lines: by hand, or in somebody else's CI.

Each runner is loaded in a process of its own with one test that is good or fails, in place of its tests and clusters.
`test_runners.py` prints `ok RUNNER` or `FAILED RUNNER`; the same for the modules of tests/e2e, which must be loadable.
"""
import importlib
import importlib.util
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from unittest import mock

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def load(path):
    spec = importlib.util.spec_from_file_location("runner", ROOT / path)
    runner = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str((ROOT / path).parent))
    spec.loader.exec_module(runner)
    return runner


def run_api(test):
    runner = load("tests/api/run.py")
    runner.install, runner.Cluster, runner.Recorder = lambda build: (pathlib.Path("."), "node"), mock.MagicMock(), mock.MagicMock()
    runner.access.run_all = lambda build: [("access: planted", test)]
    sys.argv = ["run.py", "access"]
    return runner.main()


def run_e2e(test):
    """The module is found by the process that runs it, too."""
    with tempfile.TemporaryDirectory() as temp:
        good = "pass" if test is passes else "assert False"
        (pathlib.Path(temp) / "test_planted.py").write_text(f"def test_planted():\n    {good}\n")
        runner = load("tests/e2e/run.py")
        runner.HERE = pathlib.Path(temp)
        os.environ["PYTHONPATH"] = temp
        sys.argv = ["run.py"]
        return runner.main()


def run_many_branches(test):
    runner = load("tests/e2e/many_branches.py")
    runner.Cluster, runner.scripts, runner.run.print_logs = mock.MagicMock(), lambda *_: test(), lambda _: None
    sys.argv = ["many_branches.py"]
    return runner.main()


def run_powerloss(test):
    runner = load("tests/powerloss/suite.py")
    runner.SharedCluster, runner.lossy_disk.why_not = mock.MagicMock(), lambda _: None
    runner.checks_of = lambda *_: [("planted", test)]
    sys.argv = ["suite.py", "--build", "build"]
    return runner.main()


def run_powerloss_without_fuse(test):
    runner = load("tests/powerloss/suite.py")
    runner.lossy_disk.why_not = lambda _: "there is no FUSE"
    os.environ["ANABRANCH_FUSE"] = "" if test is passes else "required"
    sys.argv = ["suite.py", "--build", "build"]
    return runner.main()


def run_chaos(test):
    runner = load("tests/chaos/suite.py")
    runner.subprocess.run = lambda *_, **__: mock.Mock(returncode=0 if test is passes else 1)
    sys.argv = ["suite.py", "--build", "build"]
    return runner.main()


def passes():
    pass


def fails():
    raise AssertionError("planted")


RUNNERS = {name.removeprefix("run_"): function for name, function in list(globals().items()) if name.startswith("run_")}


def exit_code(name, test):
    """-> what the runner would exit with, or None where it did not come that far, and what was printed."""
    done = subprocess.run([sys.executable, __file__, name, test], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    ended = re.search(r"^exits with (\d+)$", done.stdout, re.M)
    return int(ended.group(1)) if ended else None, done.stdout


def modules_that_cannot_be_loaded():
    """A name that is taken from a module where it is not any more ends a run only after minutes. -> what was wrong"""
    sys.path[:0] = [str(ROOT / "tests" / folder) for folder in ("lib", "chaos", "e2e")]
    wrong = []
    for path in sorted((ROOT / "tests/e2e").glob("*.py")):
        try:
            importlib.import_module(path.stem)
        except ImportError as error:
            wrong.append(f"{path.name}: {error}")
    return wrong


def main():
    if len(sys.argv) > 1:
        code = RUNNERS[sys.argv[1]](passes if sys.argv[2] == "passes" else fails)
        print(f"exits with {code}")
        return 0
    bad = 0
    os.environ["POSTGRES_DIR"] = "/nowhere"
    for name in RUNNERS:
        said = [exit_code(name, test) for test in ("passes", "fails")]
        good = [code for code, _ in said] == [0, 1]
        bad += not good
        print(f"{'ok' if good else 'FAILED'} {name}" + "".join(f"\n{code}: {text}" for code, text in said if not good), flush=True)
    wrong = modules_that_cannot_be_loaded()
    print(f"{'FAILED' if wrong else 'ok'} modules of tests/e2e" + "".join("\n" + text for text in wrong))
    return 1 if bad or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
