"""PostGIS' own tests on a compute: its script of the tests, as its `make check` calls it for an installed extension."""
import pathlib
import re

from compute import Failure

DATABASE = "postgis"


def run_folder(compute, folder, *options):
    """Yields (test, passed, diffs) of the tests that the folder's Makefile names."""
    root = compute.suites / "postgis"
    tests = (root / folder / "TESTS").read_text().split()  # those that `make check` would run there
    scratch = compute.work / folder.replace("/", "_")
    code, said = compute.run("perl", root / "regress/run_test.pl", "--extensions", "--nodrop", "-v", *options, *tests,
                             cwd=root / folder, timeout=3600, POSTGIS_TOP_BUILD_DIR=str(root), PGIS_REG_TMPDIR=str(scratch),
                             POSTGIS_REGRESS_DB=f"{DATABASE}_{pathlib.Path(folder).parts[0]}", LC_ALL="C")
    (compute.work / f"{folder.replace('/', '_')}.log").write_text(said)
    results = dict(re.findall(r"^ (\S+) \.+ (ok|failed|skipped)\b", said, re.M))
    if len(results) < len(tests):
        raise Failure(f"{folder}: {len(results)} of {len(tests)} tests ran, exit {code}\n{said[-3000:]}")
    for test, verdict in results.items():
        about = re.search(rf"^ {re.escape(test)} \.+ failed.*?(?=^ \S+ \.+ (?:ok|failed)|\Z)", said, re.M | re.S)
        yield test, verdict == "ok", about.group(0)[:6000] if about else ""


def core(compute):
    yield from run_folder(compute, "regress")


def topology(compute):
    yield from run_folder(compute, "topology/test", "--topology")
