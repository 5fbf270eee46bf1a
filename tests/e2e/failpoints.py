#!/usr/bin/env python3
"""control killed at every failpoint of every operation: each ends finished or not begun, and nothing leaks.

For an operation and a failpoint control is killed at the first hit, started again and judged; then at the second, until
one run of the operation is through without a death. Judged is what people see and what is on the nodes: no operation
runs for ever, what was answered is there, rows and timelines and computes are the same set everywhere, a compute
answers. Prints a line an operation; `ok NAME` or `FAILED NAME` for each.
"""
import argparse
import os
import re
import sys
import time
import traceback

import run # noqa: F401 - puts the libraries on the path
from cluster import ROOT, ApiError, Branch, Cluster, Project, http, wait_for
from failpoint_operations import NOT_SWEPT, OPERATIONS, unswept

POINTS = ["catalog.before_log", "catalog.after_log", "catalog.after_write", "step.before_send", "step.after_answer"]
HITS_MAX = 60 # an operation with more of them goes on for ever


class Rig:
    def __init__(self, cluster):
        self.cluster, self.number, self.hosts, self.actions = cluster, 0, [], set()
        self.project = cluster.create_project("swept")
        self.main = self.project.main()
        self.main.sql("CREATE TABLE t AS SELECT generate_series(1, 50) AS n")

    def arm(self, spec):
        self.cluster.control.arm(spec)

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


def note_actions(rig, answer):
    """Which kinds of operations there were; a project that is deleted takes its own along."""
    rig.actions |= {o["action"] for o in answer.get("operations", [])}
    rig.actions |= {o["action"] for p in projects(rig) for o in p.api("GET", "/operations")["operations"]}


def one(rig, prepare, point, hit):
    """-> True when control died at this hit."""
    prepared = prepare(rig)
    operate, is_there, clear_up = (*(prepared if isinstance(prepared, tuple) else (prepared,)), None, None)[:3]
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
    try:
        if not died:
            rig.arm("")
    except OSError: # a later write of the background has met it
        assert rig.died()
        died = True
    print(f"   {prepare.__name__}, {point} {hit}: {'died' if died else 'through'}", flush=True)
    if died:
        rig.cluster.control.start()
    if hasattr(prepare, "repeats"):
        answer = wait_for("it is repeated", operate) # done once: a second branch of that name would be 409
        again = operate() # an answer that was lost in the death is made anew, from what is there now
        assert ids_in(again) == ids_in(answer), (answer, again)
    operations_end(rig)
    what_was_answered_is_done(rig, answer)
    if is_there and answer:
        wait_for("what was answered is there", lambda: is_there(answer))
    if clear_up:
        clear_up()
        operations_end(rig)
    nothing_leaks(rig)
    note_actions(rig, answer)
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


def everything_was_swept(rig):
    """No route that changes something is missing, nor a kind of operation."""
    missing, gone = unswept()
    assert not missing and not gone, f"routes that nothing sweeps: {missing}; that are gone: {gone}"
    routes = {f"{r['method']} {r['path']}" for r in http("GET", rig.cluster.control.http_url + "/")["routes"]
              if r["method"] != "GET"}
    listed = {route for operation in OPERATIONS for route in operation.sweeps} | set(NOT_SWEPT)
    assert routes <= listed, f"control has routes that nothing sweeps: {routes - listed}"
    names = re.search(r"operation_action_names\[\] = \{(.*?)\}", (ROOT / "control/model/row.c").read_text(), re.DOTALL)[1]
    never = set(re.findall(r'"(\w+)"', names)) - rig.actions
    assert not never, f"operations that nothing has begun: {never}"


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
        if not args.words:
            everything_was_swept(rig)
            print("ok failpoints_of_every_operation", flush=True)
    finally:
        for host in rig.hosts if rig else []:
            host.end()
        cluster.down()
    return 0


if __name__ == "__main__":
    sys.exit(main())
