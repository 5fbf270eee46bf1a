#!/usr/bin/env python3
"""Plant one error at a time in redo or in the decoder and demand that the oracle sees it: `planted.py [NAME ...]`.

Records the slices of tools/redocheck that are made for this (or takes them from --slices), checks that the sources
as they are replay them without a difference, then compiles each plant of tests/oracle/plants.py into a walreplay of
its own and replays the slices that should catch it. Sources are never changed: what is compiled is a copy with one text
replaced. A plant is caught when walreplay reports a difference or refuses a record; a crash is no catch, and a plant
that nothing sees is a hole in the oracle. Prints `ok planted_NAME` or `FAILED planted_NAME`.

  --slices DIR  slices that `tools/redocheck --record DIR` left (made there when they are missing)
  --list        the plants, with file and function      --verbose   also what caught each
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile
import time

from plants import PLANTS

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
# name of a run: the slice, and the options of walreplay besides those that belong to the slice
RUNS = {
    "tables": ("planted_tables", []),
    "tables_decoded": ("planted_tables", ["--decode"]),
    "tables_vm_implied": ("planted_tables", ["--decode", "--imply-vm"]),
    "methods": ("planted_methods", []),
    "methods_decoded": ("planted_methods", ["--decode"]),
    "images": ("planted_images", []),
    "images_decoded": ("planted_images", ["--decode"]),
    "databases_decoded": ("planted_databases", ["--decode"]),
}
SECONDS_MAX = 300  # of one replay: it takes one


class Unusable(Exception):
    """The table or the build is not what it should be."""


def definition(text, function):
    """Where the body of a function stands: (begin, end)."""
    for found in re.finditer(rf"^[^\s#/*}}].*?\b{re.escape(function)} ?\(", text, re.M):
        brace, semicolon = text.find("{", found.end()), text.find(";", found.end())
        if brace != -1 and (semicolon == -1 or brace < semicolon):
            return found.start(), text.index("\n}\n", brace) + 2
    raise Unusable(f"there is no function {function}")


def planted_text(plant):
    """The source with the error in it. Whoever changes the line must change the plant as well."""
    text = (ROOT / plant.file).read_text()
    begin, end = definition(text, plant.function) if plant.function else (0, len(text))
    count = text.count(plant.old, begin, end)
    if count != 1:
        raise Unusable(f"{plant.file}, {plant.function}: {count} times instead of once:\n{plant.old}")
    at = text.index(plant.old, begin, end)
    return text[:at] + plant.new + text[at + len(plant.old):]


class Build:
    """How this build directory compiles one source and links walreplay."""

    def __init__(self, folder):
        self.folder = folder
        self.commands = {}
        for entry in json.loads((folder / "compile_commands.json").read_text()):
            source = os.path.relpath(folder / entry["file"], ROOT)
            command = shlex.split(entry["command"])
            begin = 1 if command[0] == "ccache" else 0
            end = next(i for i, part in enumerate(command) if part in ("-MD", "-MMD"))
            self.commands.setdefault(source, command[begin:end])
        command = ["ninja", "-C", folder, "-t", "commands", "tools/walreplay/walreplay"]
        lines = subprocess.check_output(command, text=True)
        self.link = shlex.split(lines.strip().split("\n")[-1])

    def run(self, command):
        done = subprocess.run(command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            raise Unusable(f"{shlex.join(map(str, command))}\n{done.stdout[-3000:]}")

    def walreplay(self, source, text, folder):
        """A walreplay with this text in place of the source. Its symbols come before those of the library."""
        copy, made, program = folder / pathlib.Path(source).name, folder / "planted.o", folder / "walreplay"
        copy.write_text(text)
        self.run([*self.commands[source], "-w", "-o", made, "-c", copy])
        at = self.link.index("-o")
        self.run(self.link[:at] + ["-o", program, made] + self.link[at + 2:])
        return program


def replay(program, slices, run):
    """(exit code, what it said)"""
    name, options = RUNS[run]
    arguments = (slices / name / "replay").read_text().split()
    try:
        done = subprocess.run([program, *arguments, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, errors="replace", timeout=SECONDS_MAX)
    except subprocess.TimeoutExpired:
        return None, "it does not end"
    return done.returncode, done.stdout


def first_words(output):
    for line in output.split("\n"):
        if line.startswith(("different:", "image differs:", "refused:", "size:", "map of", "walreplay:")):
            return line[:150]
    return output.strip().split("\n")[-1][:150]


def try_plant(plant, build, slices):
    """(caught, by which run, what was said)"""
    said = "nothing differs"
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        try:
            program = build.walreplay(plant.file, planted_text(plant), pathlib.Path(folder))
        except Unusable as problem:
            return False, None, str(problem)
        for run in plant.runs:
            code, output = replay(program, slices, run)
            if code in (1, 2):
                return True, run, first_words(output)
            if code != 0:
                said = f"{run}: ended with {code}, which is no catch: {first_words(output)}"
    return False, None, said


def record(slices, build, runs):
    wanted = sorted({RUNS[run][0] for run in runs})
    missing = [name for name in wanted if not (slices / name / "replay").exists()]
    if missing:
        command = [sys.executable, ROOT / "tools/redocheck", "--build", build, "--record", slices, "--seconds", "1"]
        subprocess.run(command + [part for name in missing for part in ("--only", name)], check=True)


def check_unplanted(build, slices, runs):
    """Nothing differs without a plant: else everything would be caught."""
    failed = 0
    for run in sorted(runs):
        begin = time.monotonic()
        code, output = replay(build.folder / "tools/walreplay/walreplay", slices, run)
        good = code == 0
        print(f"{'ok' if good else 'FAILED'} planted_none_{run} ({time.monotonic() - begin:.1f} s)", flush=True)
        if not good:
            print(output[-3000:])
        failed += not good
    return failed


def run_plants(plants, build, slices, jobs, verbose):
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        tries = [(plant, pool.submit(try_plant, plant, build, slices)) for plant in plants]
        for plant, result in tries:
            caught, run, said = result.result()
            print(f"{'ok' if caught else 'FAILED'} planted_{plant.name}" + (f" ({run})" if caught else ""), flush=True)
            if not caught:
                print(f"  {plant.file}, {plant.function}: {plant.why}\n  {said}", flush=True)
            elif verbose:
                print(f"  {plant.why}\n  {said}", flush=True)
            failed += not caught
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build", default=ROOT / "build", type=pathlib.Path)
    parser.add_argument("--slices", type=pathlib.Path)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    plants = [plant for plant in PLANTS if not args.names or plant.name in args.names]
    if len({plant.name for plant in PLANTS}) != len(PLANTS) or not plants:
        parser.error("no such plant, or two of one name")
    if args.list:
        for plant in plants:
            print(f"{plant.name:32} {plant.file}, {plant.function}: {plant.why}")
        return 0
    build = Build(args.build.resolve())
    with tempfile.TemporaryDirectory(prefix="planted-slices-") as temp:
        os.chmod(temp, 0o755)
        slices = (args.slices or pathlib.Path(temp)).resolve()
        runs = {run for plant in plants for run in plant.runs}
        record(slices, build.folder, runs)
        failed = check_unplanted(build, slices, runs)
        failed += run_plants(plants, build, slices, args.jobs, args.verbose)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
