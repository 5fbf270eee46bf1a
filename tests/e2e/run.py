#!/usr/bin/env python3
"""End-to-end tests: every `test_*` function in tests/e2e/test_*.py, on real processes and a real Postgres.

A module's tests share one local cluster (the parameter `cluster`); a test that breaks it for others asks for its own
with the parameter `fresh_cluster`. Prints `ok NAME` or `FAILED NAME` with the reason and the ends of the logs.
`run.py --build DIR [WORD...]`: only tests whose name, or the name of whose module, contains one of the words.

Modules run two at a time, each in a process of its own whose output is printed when it ends: most of a test's time is
waiting for a real process. Modules that measure run afterwards, by themselves.
"""
import argparse
import ast
import importlib
import inspect
import os
import pathlib
import subprocess
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor, as_completed

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "lib"))
sys.path.insert(0, str(HERE.parent / "chaos"))
sys.path.insert(0, str(HERE))

from cluster import ROOT, Cluster # noqa: E402

MEASURING = ["test_scale"] # compare costs


def print_logs(cluster):
    logs = [pathlib.Path(at, n) for at, _, names in os.walk(cluster.folder) for n in names if n.endswith(".log")]
    for log in sorted(logs)[:14]: # of a cluster that still works: folders come and go
        tail = log.read_text(errors="replace").splitlines()[-12:]
        print(f"--- {log.relative_to(cluster.folder)}")
        print("\n".join("    " + line[:300] for line in tail))


def run_one(name, function, shared, args):
    """-> whether it is good, and the shared cluster, or None when that must be made anew."""
    start = time.monotonic()
    own, good = None, False
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
        good = True
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
    return good, shared


def run_module(module_name, words, args):
    """The tests of one module, one after the other. -> whether all are good"""
    shared, bad = None, 0
    for name, function in list(vars(importlib.import_module(module_name)).items()):
        if is_wanted(module_name, name, words):
            good, shared = run_one(name, function, shared, args)
            bad += not good
    if shared:
        shared.down()
    return bad == 0


def is_wanted(module_name, name, words):
    return name.startswith("test_") and (not words or any(w in name or w in module_name for w in words))


def run_apart(module_name, args):
    """-> whether all is good, and the output of the module's tests, run in a process of their own."""
    command = [sys.executable, __file__, "--build", args.build, "--module", module_name, *args.words]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    died = done.returncode != 0 and "\nFAILED " not in "\n" + done.stdout
    return done.returncode == 0, done.stdout + (f"FAILED {module_name} exit code {done.returncode}\n" if died else "")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", default=str(ROOT / "build"))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--module", help="only this one, in this process")
    parser.add_argument("words", nargs="*")
    args = parser.parse_args()
    os.environ.setdefault("POSTGRES_DIR", os.popen(f"{ROOT}/tools/build-postgres").read().split()[-1])
    if args.module:
        return 0 if run_module(args.module, args.words, args) else 1
    files = sorted(HERE.glob("test_*.py"), key=lambda path: path.stat().st_size, reverse=True) # long ones first
    modules = [path.stem for path in files if any(is_wanted(path.stem, n, args.words) for n in test_names(path))]
    if not modules:
        print(f"no test has {' or '.join(args.words)} in its name")
        return 1
    good = True
    with ThreadPoolExecutor(args.jobs) as pool:
        for done in as_completed([pool.submit(run_apart, m, args) for m in modules if m not in MEASURING]):
            is_good, said = done.result()
            good = good and is_good
            print(said, end="", flush=True)
    for module in MEASURING:
        if module in modules:
            good = run_module(module, args.words, args) and good
    return 0 if good else 1


def test_names(path):
    return [node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]


if __name__ == "__main__":
    sys.exit(main())
