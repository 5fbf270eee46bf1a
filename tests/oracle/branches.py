#!/usr/bin/env python3
"""Branch coverage of redo and of the decoder under the oracle's WAL: `branches.py --slices DIR [--write FILE]`.

Builds walreplay, the unit tests of redo and ingest and their fuzz programs with gcov, replays every slice in DIR (what
`tools/redocheck --record DIR` left; planted.py --slices DIR makes its own there), both ways, and looks at the branches
that no record took. Then the unit tests and fuzz programs run, which are there for malformed input. Every branch that
stays is matched with a reason of REASONS, by its source line; one without a reason fails. --write makes the page
docs/redo-branches.md.
"""
import argparse
import collections
import fnmatch
import json
import os
import pathlib
import re
import subprocess
import sys

from branch_reasons import CLASSES, REASONS

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
FILES = ["pageserver/redo/*.c", "pageserver/ingest/wal_decode*.c", "common/pg/wal_image.c", "common/pg/wal_record.c"]
TESTS = re.compile(r"redo(_heap|_index|_catalogue)?|wal_decode|decode_\w+|wal_ingest|wal_record|wal_image|wal_catalogue|"
                   r"fuzz_(redo|wal_decode|wal_record|wal_image)\w*")

Branch = collections.namedtuple("Branch", "file line number")


def quiet(command, **options):
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          errors="replace", **options)
    return done.returncode, done.stdout


def must(command, **options):
    code, output = quiet(command, **options)
    if code != 0:
        raise SystemExit(f"{' '.join(map(str, command))}: exit {code}\n{output[-3000:]}")
    return output


def sources():
    return sorted(str(path.relative_to(ROOT)) for pattern in FILES for path in ROOT.glob(pattern))


def build(folder):
    if not (folder / "build.ninja").exists():
        must(["meson", "setup", folder, ROOT, "-Db_coverage=true", "-Doptimization=0"])
    tests = [test for test in json.loads(must(["meson", "introspect", folder, "--tests"])) if TESTS.fullmatch(test["name"])]
    targets = sorted({os.path.relpath(test["cmd"][0], folder) for test in tests})
    must(["ninja", "-C", folder, "tools/walreplay/walreplay", *targets])
    return tests


def forget(folder):
    for path in folder.rglob("*.gcda"):
        path.unlink()


def replay(folder, slices):
    """Every slice, as it is and through the decoder; returns the names."""
    names = sorted(path.parent.name for path in slices.glob("*/replay"))
    if not names:
        raise SystemExit(f"there are no slices in {slices}")
    for name in names:
        options = (slices / name / "replay").read_text().split()
        for way in ([], ["--decode"], ["--decode", "--imply-vm"]):
            code, output = quiet([folder / "tools/walreplay/walreplay", *options, *way])
            # Without the decoder nobody copies databases file by file, and implied pages need tables only.
            if code != 0 and way == ["--decode"]:
                raise SystemExit(f"{name}: walreplay finds differences\n{output[-2000:]}")
    return names


def run_tests(tests):
    for test in tests:
        code, output = quiet(test["cmd"], env=os.environ | test["env"] | {"CK_TIMEOUT_MULTIPLIER": "30"})
        if code != 0:
            raise SystemExit(f"{test['name']}: exit {code}\n{output[-2000:]}")


def collect(folder):
    """What gcov counted: {Branch: times}, {(file, line): times}."""
    branches, lines = collections.Counter(), collections.Counter()
    for source in sources():
        notes = [path for path in folder.rglob(f"{pathlib.Path(source).name}.gcda")
                 if path.parent.name.startswith("lib") and str(path.relative_to(folder)).startswith(os.path.dirname(source))]
        if not notes:
            continue
        text = must(["gcov", "--json-format", "--branch-probabilities", "--stdout", notes[0]], cwd=folder)
        for report in map(json.loads, filter(None, text.split("\n"))):
            for file in report["files"]:
                if os.path.relpath(folder / file["file"], ROOT) != source:
                    continue
                for line in file["lines"]:
                    lines[source, line["line_number"]] += line["count"]
                    for number, branch in enumerate(line["branches"]):
                        branches[Branch(source, line["line_number"], number)] += branch["count"]
    return branches, lines


def functions(source):
    """Which function each line belongs to."""
    owner, name = {}, "-"
    for number, text in enumerate((ROOT / source).read_text().split("\n"), 1):
        found = re.match(r"[a-z].*?\b(\w+) ?\([^;]*$", text)
        name = found.group(1) if found and not text.startswith(("enum", "struct {", "typedef")) else name
        owner[number] = name
    return owner


def statement(code, number, reached):
    """The text that says what a branch decides: from its line to the end of the statement that it guards."""
    text = code[number - 1].strip()
    if not text.startswith("switch"):
        end = number - 1
        while (";" not in code[end] or "MARK(" in code[end]) and end + 1 < len(code):
            end += 1
        return " ".join(line.strip() for line in code[number - 1:end + 1])
    indent = re.match(r" *", code[number - 1]).group()
    missing, labels = [], []
    for at in range(number, len(code)):
        if code[at].startswith(indent + "}"):
            break
        if found := re.match(indent + r"case (\w+):", code[at]):
            labels.append(found.group(1))
        if labels and reached(at + 1) is not None:
            missing += labels if reached(at + 1) == 0 else []
            labels = []
    return f"{text} without {', '.join(missing)}" if missing else f"{text} by its default, a refusal"


def reason_of(branch, text, function, used):
    for reason in REASONS:
        if (fnmatch.fnmatch(branch.file, f"*{reason.file}") and (reason.function is None or reason.function == function)
                and re.search(reason.line, text)):
            used.add(reason)
            return reason
    return None


def percent(part, whole):
    return f"{100 * part / whole:.1f} %" if whole else "-"


class Table:
    """Rows of a file: what the oracle reached, what the tests reached besides, what is left and why."""

    def __init__(self, oracle, tests):
        self.rows, self.groups, self.unknown, self.used = [], collections.OrderedDict(), [], set()
        self.total = collections.Counter()
        (by_oracle, oracle_lines), (by_tests, test_lines) = oracle, tests
        for source in sources():
            self.add_file(source, by_oracle, by_tests, oracle_lines, test_lines)

    def add_file(self, source, by_oracle, by_tests, oracle_lines, test_lines):
        code, owner = (ROOT / source).read_text().split("\n"), functions(source)
        lines = {line for file, line in oracle_lines | test_lines if file == source}
        branches = sorted(branch for branch in set(by_oracle) | set(by_tests) if branch.file == source)
        row = collections.Counter(lines=len(lines), branches=len(branches))
        row["lines_oracle"] = sum(oracle_lines[source, line] > 0 for line in lines)
        for branch in branches:
            if by_oracle[branch] > 0:
                row["oracle"] += 1
                continue
            tested = by_tests[branch] > 0
            row["tests" if tested else "neither"] += 1
            text = statement(code, branch.line, lambda line: oracle_lines.get((source, line)))
            function = owner[branch.line]
            reason = reason_of(branch, text, function, self.used)
            if reason is None:
                self.unknown.append((branch, function, text, tested))
            else:
                row[reason.kind] += 1
                self.groups.setdefault(reason, []).append((branch, function, text, tested))
        self.rows.append((source, row))
        self.total += row

    def markdown(self, slices):
        out = ["| file | lines | by the oracle | branches | by the oracle | by tests and fuzzing only | by neither |",
               "|---|---|---|---|---|---|---|"]
        for name, row in [*self.rows, ("all", self.total)]:
            out.append(f"| {name.removeprefix('pageserver/')} | {row['lines']} | {percent(row['lines_oracle'], row['lines'])} "
                       f"| {row['branches']} | {row['oracle']} ({percent(row['oracle'], row['branches'])}) "
                       f"| {row['tests']} | {row['neither']} |")
        out += ["", f"Slices: {', '.join(slices)}.", ""]
        for kind, title in CLASSES.items():
            groups = [(reason, places) for reason, places in self.groups.items() if reason.kind == kind]
            count = sum(len(places) for _, places in groups)
            tested = sum(place[3] for _, places in groups for place in places)
            out += [f"## {title}", "", f"{count} branches, {tested} of them taken by unit tests and fuzz programs.", ""]
            for reason, places in groups:
                where = collections.Counter((branch.file, function) for branch, function, _, _ in places)
                shown = ", ".join(f"{os.path.basename(file)} {function}" + (f" ({n})" if n > 1 else "")
                                  for (file, function), n in where.items())
                if kind == "malformed":
                    shown = ", ".join(f"{os.path.basename(file)} {n}" for file, n in collections.Counter(
                        branch.file for branch, *_ in places).items())
                out.append(f"- {reason.why}: {sum(place[3] for place in places)} of {len(places)} tested. {shown}.")
            out.append("")
        return "\n".join(out)


PAGE = """# Branches of redo that no record takes

`tests/oracle/branches.py --slices DIR --write docs/redo-branches.md` makes this page; it fails when a branch has no
reason. Counted are outcomes of conditions (gcov, gcc, -O0): each condition has two. \"By the oracle\" means: taken while
recorded WAL of Postgres 17.11 was replayed and found equal to what Postgres made of it. What is left is listed with why.

"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build", default=ROOT / "build-branches", type=pathlib.Path)
    parser.add_argument("--slices", type=pathlib.Path, required=True)
    parser.add_argument("--write", type=pathlib.Path)
    parser.add_argument("--keep-counts", action="store_true", help="of the replays: only the tests run again")
    args = parser.parse_args()
    folder, saved = args.build.resolve(), args.build.resolve() / "oracle_counts.json"
    tests = build(folder)
    if args.keep_counts:
        names, branches, lines = json.loads(saved.read_text())
        oracle = (collections.Counter({Branch(*key): n for key, n in branches}),
                  collections.Counter({tuple(key): n for key, n in lines}))
    else:
        forget(folder)
        names = replay(folder, args.slices.resolve())
        oracle = collect(folder)
        saved.write_text(json.dumps([names, list(oracle[0].items()), list(oracle[1].items())]))
    if not args.keep_counts or not list(folder.rglob("test_redo.p/*.gcda")):
        forget(folder)
        run_tests(tests)
    table = Table(oracle, collect(folder))
    page = table.markdown(names)
    if args.write is not None:
        args.write.write_text(PAGE + page)
    print(page.split("\n\n")[0])
    for branch, function, text, tested in table.unknown:
        print(f"no reason: {branch.file}:{branch.line} {function}{' (tested)' if tested else ''}: {text}")
    idle = [reason for reason in REASONS if reason not in table.used]
    for reason in idle:
        print(f"nothing has the reason: {reason.file} {reason.function} {reason.line}")
    print("FAILED branches_of_redo" if table.unknown or idle else "ok branches_of_redo")
    return 1 if table.unknown or idle else 0


if __name__ == "__main__":
    sys.exit(main())
