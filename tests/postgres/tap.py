"""Postgres' tests in Perl as they are, with computes as their nodes (tap/Anabranch.pm says how).

Every file has nodes of its own. When it has ended, amcheck looks at each of them, and at a branch of it.
"""
import pathlib
import re
import time

from cluster import ROOT, Project
from compute import Compute, Failure

OURS = ROOT / "tests/postgres/tap"
TIMEOUT_S = 900


def environment(compute, folder, work):
    tap = compute.suites / "tap"
    return {
        "PERL5LIB": f"{OURS}:{tap}:{folder}", "PATH": f"{compute.bin}:{folder}:/usr/bin:/bin", "TESTDATADIR": str(work / "data"),
        "TESTLOGDIR": str(work / "log"), "PG_REGRESS": str(compute.suites / "regress/pg_regress"), "LC_ALL": "C", "LANG": "C",
        "PG_TEST_PORT_DIR": str(work), "enable_injection_points": "yes", "ANABRANCH_API": f"{compute.cluster.control.http_url}/api/v2",
        "ANABRANCH_AGENT": compute.cluster.agent.http_url, "ANABRANCH_MADE": str(work / "made"), "PGUSER": "postgres"}


def judge(file, code, said):
    """Yields (test, passed, about): each assertion that failed, and the file, which has to come to its end."""
    failed = re.findall(r"^not ok \d+ - (.*)$", said, re.M)
    for name in failed:
        yield f"{file.stem}/{name}", False, said[-6000:]
    plan = re.search(r"^1\.\.(\d+)(.*)$", said, re.M)
    ran = len(re.findall(r"^(?:not )?ok \d+", said, re.M))
    if plan and plan.group(1) == "0":
        yield file.stem, False, f"{file.stem} was skipped: {plan.group(2)}"
    elif not plan or int(plan.group(1)) != ran or code != len(failed):
        yield file.stem, False, f"{file.stem}: {ran} assertions, {len(failed)} failed, exit {code}\n{said[-6000:]}"
    else:
        yield file.stem, True, ""


def check_nodes(compute, file, made):
    """What amcheck says of the nodes of a test, and of branches of them; they are gone then."""
    complaints = []
    for number, line in enumerate(made.read_text().splitlines() if made.exists() else []):
        ident, name = line.split()
        project = Project(compute.cluster, ident)
        node = Compute.of(project.main(), f"{file.stem}-{number}")
        child = Compute(project, f"{file.stem}-{number}-child", node.branch)
        for subject in (node, child):
            if said := subject.amcheck("postgres"):
                complaints.append(f"{file.stem}, {name}: {said}")
            subject.check_health()
        for subject in (child, node):
            subject.forget()
        project.delete()
    return "\n".join(complaints)


def run_file(compute, folder, file):
    work = compute.work / f"tap-{file.stem}"
    for made in (work, work / "data", work / "log"):
        compute.make_dir(made)
    begin = time.monotonic()
    code, said = compute.run("perl", "-MAnabranch", file, cwd=folder, timeout=TIMEOUT_S, **environment(compute, folder, work))
    (work / "said").write_text(said)
    yield from judge(file, code, said)
    tests = time.monotonic()
    complaints = check_nodes(compute, file, work / "made")
    yield f"{file.stem}/amcheck", complaints == "", complaints
    print(f"   {file.stem}: {tests - begin:.0f} s, its nodes {time.monotonic() - tests:.0f} s", flush=True)


def tap(where, names=None):
    """The files of a folder of Postgres' source (test/subscription), or some of them by their first words."""
    def run(compute):
        folder = compute.suites / "tap" / where
        files = sorted((folder / "t").glob("*.pl"))
        if names is not None:
            files = [file for file in files if file.stem.split("_")[0] in names or file.stem in names]
        if not files or names is not None and len(files) < len(names):
            raise Failure(f"{folder}: {len(files)} of the tests are there")
        for file in files:
            yield from run_file(compute, folder, pathlib.Path(file))
    return run
