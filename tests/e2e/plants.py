#!/usr/bin/env python3
"""Plant errors that only a whole cluster can show, and see whether the end-to-end test that is named finds each.

    tests/e2e/plants.py [--build build] [WORD ...]

A plant is a replacement of text in one source file (tests/model/store/plants.py has those that a single program shows).
The cluster runs from a folder of links to the build, but for what has the plant in it. Prints `ok NAME` or
`FAILED NAME`; numbers are those of the list of planted bugs that the whole project is measured by.
"""
import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "tests/model/store"))

import plants # noqa: E402

EXTENSION = "extension"
# (what it breaks, file, old text, new text, program or EXTENSION, test that must notice)
PLANTS = [
    ("45: a generation is issued again after a restart of control", "control/act/commit.c",
     "    row.generation++;", "    static uint64_t issued = 1;\n    row.generation = ++issued;",
     "control/control", "new_disk_serves"),
    ("53: the last-written LSN of a page that leaves is not noted", "compute/extension/storage.c",
     "\tlast_written_raise(rlocator, fork, block, verdict.lsn);\n", "", EXTENSION, "comes_back_as_it_left"),
    ("53: ... of a page of a visibility map", "compute/extension/storage.c",
     "\tlast_written_raise(rlocator, fork, block, verdict.lsn);\n",
     "\tif (fork != VISIBILITYMAP_FORKNUM)\n\t\tlast_written_raise(rlocator, fork, block, verdict.lsn);\n",
     EXTENSION, "comes_back_as_it_left"),
    ("a block read ahead is used though it was superseded", "compute/extension/read_ahead.c",
     "\tusable = slot->lsn >= since;\n", "\tusable = true;\n", EXTENSION, "read_ahead_is_not_used"),
    ("an answer of before a page's change is cached", "compute/extension/local_cache.c",
     "\t\t\tlast_written_lookup(&part->key.rlocator, part->key.fork,\n"
     "\t\t\t\t\t\t\t\tchunk_block + (BlockNumber) at) <= lsn)\n", "\t\t\tchunk_block < InvalidBlockNumber)\n",
     EXTENSION, "late_answer"),
    ("cached pages of an earlier stop are used", "compute/extension/local_cache_index.c",
     "\t\theader->end_lsn == position_start() &&\n", "", EXTENSION, "outlives_a_clean_stop"),
    ("cached pages outlive the blocks that were cut off", "compute/extension/storage.c",
     "\tlocal_cache_forget(rlocator, fork, nblocks, old_blocks);\n", "", EXTENSION, "cached_pages_go"),
]


def link_all(source, target, leave_out):
    target.mkdir()
    for entry in source.iterdir():
        if entry.name != leave_out:
            (target / entry.name).symlink_to(entry)


def plant_program(build, shadow, temp, entry):
    program = pathlib.Path(entry[4])
    binary, said = plants.plant(build, temp, *entry[:5])
    if binary is None:
        return said
    (shadow / program.parent).unlink()
    link_all(build / program.parent, shadow / program.parent, program.name)
    binary.rename(shadow / program)
    return ""


def plant_extension(shadow, temp, entry):
    """Its Makefile finds the rest beside itself."""
    tree = temp / "tree"
    (tree / "compute").mkdir(parents=True)
    (tree / "common").symlink_to(ROOT / "common")
    text = (ROOT / entry[1]).read_text()
    if text.count(entry[2]) != 1:
        return f"its text is {text.count(entry[2])} times in {entry[1]}"
    link_all(ROOT / "compute/extension", tree / "compute/extension", pathlib.Path(entry[1]).name)
    (tree / entry[1]).write_text(text.replace(entry[2], entry[3]))
    (shadow / "extension").unlink(missing_ok=True)
    made = subprocess.run(
        ["make", "-s", "-C", tree / "compute/extension", f"OUT={shadow / 'extension'}",
         f"PG_CONFIG={os.environ['POSTGRES_DIR']}/bin/pg_config"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return "" if made.returncode == 0 else "does not build: " + made.stdout[-600:]


def try_plant(build, entry):
    """(caught, what was said)"""
    with tempfile.TemporaryDirectory(prefix="anabranch-plant-") as folder:
        os.chmod(folder, 0o755) # Postgres runs as another user when we are root
        temp = pathlib.Path(folder)
        shadow = temp / "build"
        link_all(build, shadow, None)
        said = plant_extension(shadow, temp, entry) if entry[4] == EXTENSION else \
            plant_program(build, shadow, temp, entry)
        if said:
            return False, said
        done = subprocess.run([sys.executable, HERE / "run.py", "--build", shadow, entry[5]],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    return judge(done.stdout.splitlines())


def judge(lines):
    """Caught is a check of the test's that fails, or a statement of its that Postgres answers with an error (a page of
    the past may point at one that is not there); a cluster that does not start, or hangs, has shown nothing."""
    if not any(line.startswith("FAILED") for line in lines):
        return False, "the test passed"
    raised = [line for line in lines if re.match(r"[\w.]+(Error|Exception)\b", line)]
    caught = next((line for line in raised if line.startswith(("AssertionError: ", "pq.Error: "))), "")
    return caught != "", caught or "\n".join(raised or lines[:20])


def main():
    parser = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("words", nargs="*")
    args = parser.parse_args()
    os.environ.setdefault("POSTGRES_DIR", os.popen(f"{ROOT}/tools/build-postgres").read().split()[-1])
    failed = 0
    for entry in PLANTS:
        if all(word in entry[0] for word in args.words):
            begin = time.monotonic()
            caught, said = try_plant(args.build.resolve(), entry)
            print(f"{'ok' if caught else 'FAILED'} {entry[0]} ({time.monotonic() - begin:.1f} s)\n       {said}", flush=True)
            failed += not caught
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
