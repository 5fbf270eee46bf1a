"""Postgres' tests in Perl as they are, with computes as their nodes (tap/Anabranch.pm says how).

Every file has nodes of its own. When it has ended, amcheck looks at each of them, and at a branch of it.
"""
import re
import time

from cluster import ROOT, Project
from compute import Compute, Failure

OURS = ROOT / "tests/postgres/tap"
TIMEOUT_S = 900


def environment(compute, folder, work):
    """What make check has, as far as the tests ask for it."""
    tap = compute.suites / "tap"
    # A test that fails keeps its temporary folders, which have the nodes' sockets, so their names must be short.
    temporary = compute.cluster.folder / "t"
    compute.make_dir(temporary)
    return {
        "TMPDIR": str(temporary),
        "PERL5LIB": f"{OURS}:{tap}:{folder}", "PATH": f"{compute.bin}:{folder}:/usr/bin:/bin", "TESTDATADIR": str(work / "data"),
        "TESTLOGDIR": str(work / "log"), "PG_REGRESS": str(compute.suites / "regress/pg_regress"), "LC_ALL": "C", "LANG": "C",
        "PG_TEST_PORT_DIR": str(work), "enable_injection_points": "yes", "with_icu": "yes", "with_libxml": "no",
        "ANABRANCH_API": f"{compute.cluster.control.http_url}/api/v2",
        "ANABRANCH_AGENT": compute.cluster.agent.http_url, "ANABRANCH_MADE": str(work / "made"), "PGUSER": "postgres"}


def judge(test, code, said):
    """Yields (test, passed, about): each assertion that failed, and the file, which has to come to its end."""
    failed = re.findall(r"^not ok \d+ - (.*)$", said, re.M)
    for name in failed:
        yield f"{test}/{name}", False, said[-6000:]
    plan = re.search(r"^1\.\.(\d+)(.*)$", said, re.M)
    ran = len(re.findall(r"^(?:not )?ok \d+", said, re.M))
    if plan and plan.group(1) == "0":
        yield test, False, f"{test} was skipped: {plan.group(2)}"
    elif not plan or int(plan.group(1)) != ran or code != len(failed):
        yield test, False, f"{test}: {ran} assertions, {len(failed)} failed, exit {code}\n{said[-6000:]}"
    else:
        yield test, True, ""


def check_nodes(compute, test, made):
    """What amcheck says of the nodes of a test, and of branches of them; they are gone then."""
    complaints, label = [], test.replace("/", "-")
    for number, line in enumerate(made.read_text().splitlines() if made.exists() else []):
        ident, name = line.split()
        project = Project(compute.cluster, ident)
        node = Compute.of(project.main(), f"{label}-{number}")
        child = Compute(project, f"{label}-{number}-child", node.branch)
        for subject in (node, child):
            if said := subject.amcheck("postgres"):
                complaints.append(f"{test}, {name}: {said}")
            subject.check_health()
        for subject in (child, node):
            subject.forget()
        project.delete()
    return "\n".join(complaints)


def run_file(compute, folder, file, test):
    work = compute.work / f"tap-{test.replace('/', '-')}"
    for made in (work, work / "data", work / "log"):
        compute.make_dir(made)
    begin = time.monotonic()
    code, said = compute.run("perl", "-MAnabranch", file, cwd=folder, timeout=TIMEOUT_S, **environment(compute, folder, work))
    (work / "said").write_text(said)
    yield from judge(test, code, said)
    tests = time.monotonic()
    complaints = check_nodes(compute, test, work / "made")
    yield f"{test}/amcheck", complaints == "", complaints
    print(f"   {test}: {tests - begin:.0f} s, its nodes {time.monotonic() - tests:.0f} s", flush=True)


def files_of(folder, names):
    files = sorted((folder / "t").glob("*.pl"))
    if names is not None:
        files = [file for file in files if file.stem.split("_")[0] in names]
    if not files or names is not None and len(files) < len(names):
        raise Failure(f"{folder}: {len(files)} of the tests are there")
    return files


def tap(where, names=None):
    """The files of a folder of Postgres' source (test/subscription), or those with these numbers."""
    def run(compute):
        folder = compute.suites / "tap" / where
        for file in files_of(folder, names):
            yield from run_file(compute, folder, file, file.stem)
    return run


def taps(chosen):
    """Of several folders: {folder: numbers}."""
    def run(compute):
        for where, names in chosen.items():
            folder = compute.suites / "tap" / where
            for file in files_of(folder, names):
                yield from run_file(compute, folder, file, f"{folder.name}/{file.stem}")
    return run
