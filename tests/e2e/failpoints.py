#!/usr/bin/env python3
"""control killed at every failpoint of every operation: each ends finished or not begun, and nothing leaks.

For an operation and a failpoint control is killed at the first hit, started again and judged; then at the second, until
one run of the operation is through without a death. Judged is what people see and what is on the nodes: no operation
runs for ever, what was answered is there, rows and timelines and computes are the same set everywhere, a compute
answers. Prints a line an operation; `ok NAME` or `FAILED NAME` for each.
"""
import argparse
import os
import sys
import time
import traceback
import urllib.request

import run # noqa: F401 - puts the libraries on the path
from cluster import ROOT, ApiError, Branch, Cluster, Project, http, wait_for
from test_hosts import Host

POINTS = ["catalog.before_log", "catalog.after_log", "catalog.after_write", "step.before_send", "step.after_answer"]
HITS_MAX = 60 # an operation with more of them goes on for ever


class Rig:
    def __init__(self, cluster):
        self.cluster, self.number, self.hosts = cluster, 0, []
        self.project = cluster.create_project("swept")
        self.main = self.project.main()
        self.main.sql("CREATE TABLE t AS SELECT generate_series(1, 50) AS n")

    def arm(self, spec):
        request = urllib.request.Request(self.cluster.control.http_url + "/faults", data=spec.encode(), method="PUT")
        urllib.request.urlopen(request, timeout=10).read()

    def name(self):
        self.number += 1
        return f"n{self.number}"

    def died(self):
        """Was it killed? It may be on its way."""
        try:
            wait_for("control ends", lambda: not self.cluster.control.alive(), 0.5)
            return True
        except TimeoutError:
            return False

    def branch(self, endpoint=True):
        return self.project.create_branch(self.name(), self.main, endpoint=endpoint)


def lsn_of_past(branch):
    """What is committed after it is on a majority, and so is it."""
    lsn = branch.value("SELECT pg_current_wal_lsn()")
    branch.sql("CREATE TABLE IF NOT EXISTS later (n int); INSERT INTO later VALUES (1)")
    return lsn


# What is swept: a preparation, then the operation; what it returns is what was answered.

def create_branch(rig):
    name = rig.name()
    return lambda: rig.project.api("POST", "/branches", {"branch": {"name": name, "parent_id": rig.main.id},
                                                         "endpoints": [{"type": "read_write"}]})


def create_branch_with_key(rig):
    """It is asked for again after each death: see `one`."""
    name = rig.name()
    url = f"{rig.cluster.control.http_url}/api/v2/projects/{rig.project.id}/branches"
    body = {"branch": {"name": name, "parent_id": rig.main.id}, "endpoints": [{"type": "read_write"}]}
    return lambda: http("POST", url, body, headers={"Idempotency-Key": name})


create_branch_with_key.repeats = True


def delete_branch(rig):
    branch = rig.branch()
    return lambda: rig.project.api("DELETE", f"/branches/{branch.id}")


def suspend(rig):
    branch = rig.branch()
    endpoint = branch.endpoint()["id"]
    return lambda: rig.project.api("POST", f"/endpoints/{endpoint}/suspend")


def start(rig):
    branch = rig.branch()
    branch.suspend()
    endpoint = branch.endpoint()["id"]
    return lambda: rig.project.api("POST", f"/endpoints/{endpoint}/start")


def restore(rig):
    branch, kept = rig.branch(), rig.name()
    lsn = lsn_of_past(branch)
    body = {"source_branch_id": branch.id, "source_lsn": lsn, "preserve_under_name": kept}
    return lambda: rig.project.api("POST", f"/branches/{branch.id}/restore", body)


def create_role(rig):
    branch, name = rig.branch(), rig.name()
    return lambda: rig.project.api("POST", f"/branches/{branch.id}/roles", {"role": {"name": name}})


def delete_role(rig):
    branch, name = rig.branch(), rig.name()
    rig.project.wait_operations(rig.project.api("POST", f"/branches/{branch.id}/roles", {"role": {"name": name}}))
    return lambda: rig.project.api("DELETE", f"/branches/{branch.id}/roles/{name}")


def create_database(rig):
    branch, name = rig.branch(), rig.name()
    return lambda: rig.project.api(
        "POST", f"/branches/{branch.id}/databases", {"database": {"name": name, "owner_name": "app"}})


def read_only_past(rig):
    lsn = lsn_of_past(rig.main)
    return lambda: rig.project.api("POST", "/endpoints", {"endpoint": {
        "branch_id": rig.main.id, "type": "read_only", "lsn": lsn}})


def replace_safekeeper(rig):
    branch = rig.branch()
    members = [k["id"] for k in rig.project.api("GET", f"/branches/{branch.id}/safekeepers")["safekeepers"]]
    new = next(n for n in range(1, 5) if n not in members)
    return lambda: rig.project.api("POST", f"/branches/{branch.id}/safekeepers", {"add": [new], "remove": [members[0]]})


def create_snapshot(rig):
    name = rig.name()
    return lambda: rig.project.api("POST", f"/branches/{rig.main.id}/snapshot?name={name}")


def restore_snapshot(rig):
    branch = rig.branch()
    snapshot = rig.project.api("POST", f"/branches/{branch.id}/snapshot")["snapshot"]
    return lambda: rig.project.api("POST", f"/snapshots/{snapshot['id']}/restore", {"finalize_restore": True})


def create_project(rig):
    name = rig.name()
    return lambda: rig.cluster.api("POST", "/projects", {"project": {"name": name}})


def delete_project(rig):
    project = rig.cluster.create_project(rig.name())
    return lambda: rig.cluster.api("DELETE", f"/projects/{project.id}")


def lose_host(rig):
    """Of another host than the first: its lease ends, and its compute starts on the first one."""
    for host in rig.hosts:
        host.end()
    host = Host(rig.cluster, 20 + rig.number % 200, lease_ms=1000)
    rig.hosts = [host]
    wait_for("the host is known", host.is_known)
    branch = rig.branch()
    assert host.address in branch.uri(), branch.uri() # the first one has main

    def operate():
        host.end()
        wait_for("it has moved", lambda: not rig.cluster.control.alive() or host.address not in branch.uri())
        return {}
    return operate


OPERATIONS = [create_branch, create_branch_with_key, delete_branch, suspend, start, restore, create_role, delete_role, create_database,
              read_only_past, replace_safekeeper, create_snapshot, restore_snapshot, create_project, delete_project,
              lose_host]


# What is judged.

def ids_in(answer):
    """Of what was made."""
    return {"branch": answer["branch"]["id"], **{k: [o["id"] for o in answer[k]] for k in ("endpoints", "operations")}}


def projects(rig):
    return [Project(rig.cluster, p["id"]) for p in rig.cluster.api("GET", "/projects")["projects"]]


def operations_end(rig):
    """Or control does, which is killed meanwhile."""
    def at_rest():
        if not rig.cluster.control.alive():
            return True
        running = [o for p in projects(rig) for o in p.api("GET", "/operations")["operations"]
                   if o["status"] not in ("finished", "failed", "cancelled", "skipped")]
        return not running
    wait_for("every operation ends", at_rest, 120)


def nothing_leaks(rig):
    """Rows, timelines and computes are the same number everywhere."""
    def timelines(process):
        status = http("GET", process.http_url + "/v1/status")
        return status["timelines"] if "timelines" in status else sum(len(t["timelines"]) for t in status["tenants"])

    def same():
        endpoints = [e for p in projects(rig) for e in p.api("GET", "/endpoints")["endpoints"]]
        branches = sum(len(p.branches()) for p in projects(rig)) + sum(e["type"] == "read_only" for e in endpoints)
        branches += sum(len(p.api("GET", "/snapshots")["snapshots"]) for p in projects(rig))
        computes = {c["id"]: c["state"] for c in http("GET", rig.cluster.agent.http_url + "/v1/computes")["computes"]}
        up = {e["id"] for e in endpoints if e["current_state"] == "active"}
        seen = (branches, timelines(rig.cluster.pageserver), sum(map(timelines, rig.cluster.safekeepers)) / 3,
                up, {c for c, state in computes.items() if state == "running"})
        if seen[0] == seen[1] == seen[2] and seen[3] == seen[4] and set(computes) <= {e["id"] for e in endpoints}:
            return True
        raise OSError(f"branches, on the pageserver, on safekeepers, computes wanted and there: {seen}")
    wait_for("the nodes have what the catalog has", same, 60)


def what_was_answered_is_done(rig, answer):
    """Of operations that the project still has: one that was deleted as a whole has none."""
    left = {p.id: p for p in projects(rig)}
    for operation in answer.get("operations", []):
        if operation["project_id"] in left:
            now = left[operation["project_id"]].api("GET", f"/operations/{operation['id']}")["operation"]
            assert now["status"] == "finished", now


def clean(rig):
    """Back to one project with one branch."""
    for project in projects(rig):
        if project.id != rig.project.id:
            rig.cluster.api("DELETE", f"/projects/{project.id}")
    for endpoint in rig.project.api("GET", "/endpoints")["endpoints"]:
        if endpoint["type"] == "read_only":
            rig.project.api("DELETE", f"/endpoints/{endpoint['id']}")
    for snapshot in rig.project.api("GET", "/snapshots")["snapshots"]:
        rig.project.api("DELETE", f"/snapshots/{snapshot['id']}")
    while len(branches := rig.project.branches()) > 1:
        parents = {b.get("parent_id") for b in branches}
        for branch in branches:
            if not branch["default"] and branch["id"] not in parents:
                Branch(rig.project, branch["id"]).delete()
    operations_end(rig)


def one(rig, prepare, point, hit):
    """-> True when control died at this hit."""
    operate = prepare(rig)
    operations_end(rig)
    rig.arm(f"{point}=crash@{hit}*1")
    answer = {}
    try:
        answer = operate()
        operations_end(rig)
    except ApiError as error:
        assert error.status >= 500 or rig.died(), error
    except (OSError, TimeoutError):
        assert rig.died()
    died = rig.died()
    print(f"   {prepare.__name__}, {point} {hit}: {'died' if died else 'through'}", flush=True)
    if died:
        rig.cluster.control.start()
    else:
        rig.arm("")
    if hasattr(prepare, "repeats"):
        answer = wait_for("it is repeated", operate) # done once: a second branch of that name would be 409
        again = operate() # an answer that was lost in the death is made anew, from what is there now
        assert ids_in(again) == ids_in(answer), (answer, again)
    operations_end(rig)
    what_was_answered_is_done(rig, answer)
    nothing_leaks(rig)
    return died


def sweep(rig, prepare):
    deaths = 0
    for point in POINTS:
        for hit in range(1, HITS_MAX + 1):
            died = one(rig, prepare, point, hit)
            deaths += died
            if not died:
                break
        else:
            raise AssertionError(f"{point} is still met after {HITS_MAX} hits")
        assert rig.main.value("SELECT count(*) FROM t") == "50"
        clean(rig)
    assert deaths > 0
    return deaths


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", default=str(ROOT / "build"))
    parser.add_argument("words", nargs="*", help="operations")
    args = parser.parse_args()
    os.environ.setdefault("POSTGRES_DIR", os.popen(f"{ROOT}/tools/build-postgres").read().split()[-1])
    cluster, rig = Cluster(args.build, safekeepers=4).up(), None
    try:
        rig = Rig(cluster)
        for prepare in OPERATIONS:
            if args.words and prepare.__name__ not in args.words:
                continue
            begin = time.monotonic()
            try:
                deaths = sweep(rig, prepare)
                print(f"ok failpoints_{prepare.__name__} ({deaths} deaths, {time.monotonic() - begin:.0f} s)", flush=True)
            except Exception: # noqa: BLE001 - any failure is a failed test
                print(f"FAILED failpoints_{prepare.__name__} ({time.monotonic() - begin:.0f} s)", flush=True)
                traceback.print_exc(file=sys.stdout)
                run.print_logs(cluster)
                return 1
    finally:
        for host in rig.hosts if rig else []:
            host.end()
        cluster.down()
    return 0


if __name__ == "__main__":
    sys.exit(main())
