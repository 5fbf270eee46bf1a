"""The control plane: restore, roles, expiry, and operations that outlive it."""
import datetime
import http.client as http_client
import json
import pathlib
import shutil
import signal
import subprocess
import threading

import failpoint_operations
import pq
from cluster import ApiError, Branch, http, wait_for


def connect_as(branch, role, database):
    uri = branch.project.api(
        "GET", f"/connection_uri?branch_id={branch.id}&role_name={role}&database_name={database}")["uri"]
    return wait_for(f"connect as {role}", lambda: pq.connect(uri), 30)


def test_restore_to_the_own_past_keeps_endpoint_and_children(cluster):
    project = cluster.create_project("restore")
    main = project.main()
    with main.connect() as db:
        db.query("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
        lsn = db.value("SELECT pg_current_wal_lsn()")
        db.query("DELETE FROM t WHERE n > 10")
    child = project.create_branch("child", main)
    uri = main.uri()
    body = {"source_branch_id": main.id, "source_lsn": lsn}
    try:
        project.api("POST", f"/branches/{main.id}/restore", body)
        raise AssertionError("its own past would be gone")
    except ApiError as error:
        assert error.status == 400 and "preserve_under_name" in error.body["message"], error
    answer = project.api("POST", f"/branches/{main.id}/restore", {**body, "preserve_under_name": "before"})
    project.wait_operations(answer)
    before = next(b for b in project.branches() if b["name"] == "before")
    assert answer["branch"]["parent_id"] == before["id"]
    assert child.get()["parent_id"] == before["id"]
    assert main.uri() == uri and main.get()["default"]
    assert main.value("SELECT count(*) FROM t") == "1000"
    assert child.value("SELECT count(*) FROM t") == "10"
    main.sql("INSERT INTO t VALUES (5000)")
    # And back: the child becomes what its new grandparent is now; its own data goes.
    project.wait_operations(project.api("POST", f"/branches/{child.id}/restore", {"source_branch_id": main.id}))
    assert child.value("SELECT count(*) FROM t") == "1001"
    assert {b["name"] for b in project.branches()} == {"main", "before", "child"}


def test_nothing_is_made_of_a_parent_that_was_restored_meanwhile(cluster):
    """Its head is asked of safekeepers that do not answer yet; when they do, it is the head of another history."""
    project = cluster.create_project("changing")
    main = project.main()
    work = project.create_branch("work", main)
    work.sql("CREATE TABLE gone AS SELECT generate_series(1, 1000) AS n")
    start = work.get()["parent_lsn"] # restored to there, no safekeeper is asked: no head can lie below it
    other = project.create_branch("other", main, endpoint=False)
    body = {"branch": {"name": "late", "parent_id": work.id}, "endpoints": []}
    moment = {"endpoint": {"type": "read_only", "branch_id": work.id, "lsn": work.value("SELECT pg_current_wal_flush_lsn()")}}
    asked = {"/branches": body, f"/branches/{work.id}/snapshot": {}, "/endpoints": moment,
             f"/branches/{other.id}/restore": {"source_branch_id": work.id}}
    answers = {path: http_client.HTTPConnection(cluster.control.row["http"], timeout=60) for path in asked}
    hung = cluster.safekeepers[:2]
    for safekeeper in hung:
        safekeeper.kill(signal.SIGSTOP)
    try:
        for path, connection in answers.items():
            connection.request("POST", f"/api/v2/projects/{project.id}{path}", json.dumps(asked[path]),
                               {"Content-Type": "application/json"})
        http("GET", f"{cluster.control.http_url}/metrics", raw=True) # whoever is answered now came after those four
        restored = project.api("POST", f"/branches/{work.id}/restore", {
            "source_branch_id": work.id, "source_lsn": start, "preserve_under_name": "before"})
    finally:
        for safekeeper in hung:
            safekeeper.kill(signal.SIGCONT)
    for path, connection in answers.items():
        answer = connection.getresponse()
        said = json.loads(answer.read())
        assert (answer.status, said.get("code")) == (409, "PARENT_CHANGED"), (path, said)
        assert work.id in said["message"] and "again" in said["message"], said
        connection.close()
    project.wait_operations(restored)
    assert "late" not in [b["name"] for b in project.branches()]
    again = project.create_branch("late", work)
    assert again.value("SELECT count(*) FROM pg_class WHERE relname = 'gone'") == "0"
    project.delete()


def test_role_and_database_reach_running_computes_and_later_branches(cluster):
    project = cluster.create_project("roles")
    main = project.main()
    main.connect().close()
    answer = project.api("POST", f"/branches/{main.id}/roles", {"role": {"name": "second role"}})
    project.wait_operations(answer)
    assert len(answer["role"]["password"]) >= 20
    project.wait_operations(project.api(
        "POST", f"/branches/{main.id}/databases", {"database": {"name": "Other", "owner_name": "second role"}}))
    with connect_as(main, "second%20role", "Other") as db:
        assert db.query("SELECT current_user, current_database()") == [("second role", "Other")]
    branch = project.create_branch("inherits", main)
    with connect_as(branch, "second%20role", "Other") as db:
        assert db.value("SELECT 1") == "1"

    def stored():
        url = f"{cluster.agent.http_url}/v1/computes/{main.endpoint()['id']}/verifier"
        return http("POST", url, {"role": "second role"})["verifier"]

    main.suspend()
    main.start()
    before = stored() # the agent has it from the start of the compute, and for a while asks Postgres no more
    project.wait_operations(project.api("POST", f"/branches/{main.id}/roles/second%20role/reset_password"))
    assert before.startswith("SCRAM-SHA-256$") and stored() != before


def test_every_operation_is_swept_by_the_failpoints():
    """The sweep itself runs by name (tests/e2e/failpoints.py): here, that it leaves out nothing."""
    assert failpoint_operations.unswept() == ([], [])


def test_expired_branch_is_deleted(cluster):
    project = cluster.create_project("expiry")
    soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=2)
    branch = project.create_branch("short", expires_at=soon.strftime("%Y-%m-%dT%H:%M:%SZ"))
    wait_for("it is gone", lambda: branch.id not in [b["id"] for b in project.branches()], 30)
    name = project.create_branch("short", endpoint=False)
    assert name.get()["name"] == "short" # the name is free again


def test_control_killed_after_each_answer_finishes_what_it_answered(fresh_cluster):
    control = fresh_cluster.control

    def crash():
        control.kill(signal.SIGKILL)
        control.start()
    answer = fresh_cluster.api("POST", "/projects", {"project": {"name": "crash"}})
    crash()
    from cluster import Branch, Project
    project = Project(fresh_cluster, answer["project"]["id"])
    project.wait_operations(answer)
    main = project.main()
    main.sql("CREATE TABLE kept AS SELECT generate_series(1, 100) AS n")
    answer = project.api("POST", "/branches", {"branch": {"name": "b"}, "endpoints": [{"type": "read_write"}]})
    crash()
    project.wait_operations(answer)
    branch = Branch(project, answer["branch"]["id"])
    assert branch.value("SELECT count(*) FROM kept") == "100"
    answer = project.api("POST", f"/endpoints/{branch.endpoint()['id']}/suspend")
    crash()
    project.wait_operations(answer)
    answer = project.api("DELETE", f"/branches/{branch.id}")
    crash()
    project.wait_operations(answer)
    assert [b["name"] for b in project.branches()] == ["main"]
    assert main.value("SELECT count(*) FROM kept") == "100"
    answer = fresh_cluster.api("DELETE", f"/projects/{project.id}")
    crash()
    project.wait_operations(answer)
    assert http("GET", fresh_cluster.pageserver.http_url + "/v1/status")["tenants"] == []


def test_pageserver_with_a_new_disk_serves_running_computes(fresh_cluster):
    project = fresh_cluster.create_project("disk")
    main = project.main()
    main.sql("CREATE TABLE kept AS SELECT i, md5(i::text) FROM generate_series(1, 5000) i")
    pageserver = fresh_cluster.pageserver
    pageserver.kill()
    shutil.rmtree(pageserver.folder)
    pageserver.start()
    # The generation is a new one, which the compute has to be told.
    assert wait_for("it answers", lambda: main.value("SELECT count(*) FROM kept"), 60) == "5000"
    wait_for("writes go on", lambda: main.sql("INSERT INTO kept VALUES (0, '')") is not None, 60)
    # The generation of the lost disk may delete nothing any more; nor may another node or tenant.
    tenant = wait_for("the new disk is filled", lambda: [
        t["tenant"] for t in http("GET", pageserver.http_url + "/v1/status")["tenants"] if t["timelines"]], 60)[0]

    def valid(node_id, generation, of=tenant):
        answer = http("POST", fresh_cluster.control.http_url + "/v1/generations/validate",
                      {"node_id": node_id, "tenants": [{"tenant": of, "generation": generation}]})
        return [verdict["valid"] for verdict in answer["tenants"]]
    assert valid(1, 2) == [True] and valid(1, 1) == [False] and valid(1, 3) == [False]
    assert valid(2, 2) == [False] and valid(1, 2, "0" * 31 + "1") == [False]
    try:
        valid(1, 1, "no tenant")
        raise AssertionError("a name is no tenant id")
    except ApiError as error:
        assert error.status == 400 and "tenants[0]" in error.body["message"], error
    # A control that knows only what is in its catalog issues the next one, not the same again.
    fresh_cluster.control.kill()
    fresh_cluster.control.start()
    pageserver.kill()
    shutil.rmtree(pageserver.folder)
    pageserver.start()
    url = f"{pageserver.http_url}/v1/tenants/{tenant}"
    again = wait_for("it is attached again", lambda: http("GET", url)["generation"], 60)
    assert again == 3, again
    assert valid(1, 3) == [True] and valid(1, 2) == [False]


def test_safekeeper_that_lost_a_timeline_stays_out_and_says_so(fresh_cluster):
    project = fresh_cluster.create_project("lost")
    main = project.main()
    main.sql("CREATE TABLE kept (n int)")
    safekeeper = fresh_cluster.safekeepers[2]
    safekeeper.kill()
    shutil.rmtree(safekeeper.folder)
    safekeeper.start()

    def reported():
        nodes = http("GET", fresh_cluster.control.http_url + "/v1/nodes")["nodes"]
        return [n["lost_timelines"] for n in nodes if n["kind"] == "safekeeper"] == [0, 0, 1]
    wait_for("control reports the loss", reported, 30)
    main.sql("INSERT INTO kept VALUES (1)") # the other two are a majority
    assert http("GET", safekeeper.http_url + "/v1/status")["timelines"] == 0

    # From then on nothing changes, and the lists are not sent again: neither the empty one nor those of the others.
    def lists(of, name):
        text = http("GET", of.http_url + "/metrics", raw=True).decode()
        return sum(int(float(line.split()[1])) for line in text.splitlines() if line.startswith(f"safekeeper_lists_{name} "))
    for one in fresh_cluster.safekeepers[1:]:
        before = lists(one, "unchanged_total")
        wait_for("it is known that nothing has changed", lambda: lists(one, "unchanged_total") > before + 1, 60)
    branch = project.create_branch("new", main) # what is created now, it gets
    assert branch.value("SELECT count(*) FROM kept") == "1"
    wait_for("it has the new timeline",
             lambda: http("GET", safekeeper.http_url + "/v1/status")["timelines"] == 1, 30)


def lsn_of(text):
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


def everything(project):
    """What control knows, as far as anybody can ask for it, less what moves by itself."""
    cluster = project.cluster

    def of_branches(what):
        return {b["id"]: project.api("GET", f"/branches/{b['id']}/{what}") for b in project.branches()}
    nodes = http("GET", cluster.control.http_url + "/v1/nodes")["nodes"]
    return {
        "project": {k: v for k, v in project.api("GET", "")["project"].items() if "seconds" not in k and "bytes" not in k
                    and k not in ("updated_at", "compute_last_active_at", "active_time", "cpu_used_sec", "synthetic_storage_size")},
        "branches": {b["id"]: (b["name"], b.get("parent_id"), b.get("parent_lsn"), b["default"], b["protected"],
                               b.get("expires_at")) for b in project.branches()},
        "endpoints": {e["id"]: (e["branch_id"], e["type"], e["settings"])
                      for e in project.api("GET", "/endpoints")["endpoints"]},
        "roles": of_branches("roles"), "databases": of_branches("databases"), "schedules": of_branches("backup_schedule"),
        "passwords": [project.api("GET", f"/branches/{project.main().id}/roles/{r}/reveal_password")
                      for r in ("app", "keeper")],
        "snapshots": project.api("GET", "/snapshots")["snapshots"],
        "operations": sorted(o["id"] for o in project.api("GET", "/operations")["operations"]),
        "keys": [{k: v for k, v in key.items() if "last_used" not in k} for key in cluster.api("GET", "/api_keys")],
        "hosts": [(n["id"], n["host"], n["http_port"]) for n in nodes if n.get("registered")],
    }


def used(project):
    """What is on record of it, of what was measured until now."""
    http("PUT", project.cluster.control.http_url + "/v1/clock", {"ahead_seconds": 0})
    found = project.cluster.api("GET", "/consumption_history/projects?granularity=hourly&from=2020-01-01T00:00:00Z"
                                f"&to=2090-01-01T00:00:00Z&project_ids={project.id}")["projects"][0]["periods"][0]
    return [sum(frame[name] for frame in found["consumption"]) for name in ("active_time_seconds", "written_data_bytes")]


def make_one_of_each(project, main):
    """Of what the catalog holds, besides branches; -> the request with an Idempotency-Key and its answer."""
    cluster = project.cluster
    project.wait_operations(project.api("POST", f"/branches/{main.id}/roles", {"role": {"name": "keeper"}}))
    project.wait_operations(project.api(
        "POST", f"/branches/{main.id}/databases", {"database": {"name": "kept", "owner_name": "keeper"}}))
    project.wait_operations(project.api("POST", f"/branches/{main.id}/snapshot?name=kept"))
    project.api("PUT", f"/branches/{main.id}/backup_schedule", {"schedule": [{"frequency": "yearly", "month": 7}]})
    cluster.api("POST", "/api_keys", {"key_name": "kept", "project_id": project.id, "branches_max": 3})
    http("PUT", cluster.control.http_url + "/v1/hosts/99", {"host": "127.0.0.99", "http_port": 1, "lease_ms": 3600000})

    def repeated():
        return http("POST", f"{cluster.control.http_url}/api/v2/projects/{project.id}/branches",
                    {"branch": {"name": "once"}, "endpoints": []}, headers={"Idempotency-Key": "once"})
    return repeated, repeated()


class SecondControl:
    """Another process with the settings of the cluster's control, and a disk of its own or the same."""

    def __init__(self, cluster, folder):
        self.folder, self.log = pathlib.Path(folder), cluster.data / "logs/second-control.log"
        with open(self.log, "w") as log:
            self.process = subprocess.Popen([cluster.build / "control/control", "--config", cluster.control.row["conf"],
                                             f"--data_dir={folder}", "--http_port=0"], stdout=log, stderr=log)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def url(self):
        return f"http://127.0.0.1:{json.loads((self.folder / 'ports.json').read_text())['http_port']}"

    def said(self):
        return self.log.read_text()


def assert_is_replaced(cluster, project, url):
    """That control confirms no generation, changes nothing, and says so."""
    tenant = http("GET", cluster.pageserver.http_url + "/v1/status")["tenants"][0]
    claim = {"node_id": 1, "tenants": [{"tenant": tenant["tenant"], "generation": 1}]}
    for method, path, body in (("POST", "/v1/generations/validate", claim), ("GET", "/readyz", None), (
            "POST", f"/api/v2/projects/{project.id}/branches", {"branch": {"name": "too late"}})):
        try:
            http(method, url + path, body)
            raise AssertionError("answered by a control that was replaced")
        except ApiError as error:
            assert "another control" in str(error.body), error


def test_control_whose_disk_is_wiped_under_load_is_rebuilt(cluster):
    project = cluster.create_project("wiped")
    main, control = project.main(), cluster.control
    with main.connect() as db:
        db.query("CREATE TABLE t AS SELECT generate_series(1, 100) AS n")
        db.query("CREATE TABLE ledger (n int)")
    repeated, once = make_one_of_each(project, main)
    wait_for("something is on record", lambda: min(used(project)) > 0)
    recorded, kept = used(project), {k: v for k, v in everything(project).items() if k not in ("branches", "roles", "operations")}
    answered, over = [], threading.Event()

    def create(worker):
        number = 0
        while not over.is_set():
            number += 1
            try:
                branch = project.create_branch(f"b{worker}-{number}", main, endpoint=number == 1, wait=False)
            except (ApiError, OSError): # it was killed; whether it is there is open
                return
            answered.append(branch.id)

    acknowledged, enough = [0], threading.Event()

    def write():
        """A compute needs no control: its connection works on through all of this."""
        with main.connect() as db:
            while not enough.is_set():
                db.query(f"INSERT INTO ledger VALUES ({acknowledged[0]})")
                acknowledged[0] += 1

    writer = threading.Thread(target=write)
    writer.start()
    workers = [threading.Thread(target=create, args=(n,)) for n in range(3)]
    for worker in workers:
        worker.start()
    wait_for("branches are being made", lambda: len(answered) > 20, 60)
    control.kill(signal.SIGKILL)
    over.set()
    for worker in workers:
        worker.join()
    shutil.rmtree(control.folder)

    refused = cluster.cli("local", "restart", "control", check=False)
    assert refused.returncode == 1 and "anabranch catalog rebuild" in refused.stdout, refused.stdout
    shutil.rmtree(control.folder, ignore_errors=True)
    print("  ", cluster.cli("catalog", "rebuild").stdout.strip().replace("\n", "; "))
    control.start()
    known = {b["id"] for b in project.branches()}
    assert set(answered) <= known, set(answered) - known
    found = everything(project)
    for what in ("passwords", "snapshots", "keys", "hosts", "project"): # of branches there are more by now
        assert found[what] == kept[what], (what, found[what], kept[what])
    for what in ("endpoints", "databases", "schedules"):
        assert kept[what].items() <= found[what].items(), (what, found[what], kept[what])
    assert all(now >= before for now, before in zip(used(project), recorded)), (used(project), recorded)
    assert repeated() == once # it is not done again
    branch = next(b for b in project.branches() if b["name"] == "b0-1")
    assert Branch(project, branch["id"]).value("SELECT count(*) FROM t") == "100"
    assert main.value("SELECT count(*) FROM t") == "100"
    before = acknowledged[0]
    wait_for("the writer goes on", lambda: acknowledged[0] > before + 10 or not writer.is_alive(), 30)
    enough.set()
    writer.join()
    assert main.value("SELECT count(*) FROM ledger") == str(acknowledged[0]) and acknowledged[0] > before + 10
    # Again, at rest: everything is as it was.
    before = everything(project)
    control.kill(signal.SIGKILL)
    shutil.rmtree(control.folder)
    cluster.cli("catalog", "rebuild")
    control.start()
    assert everything(project) == before
    running = cluster.cli("catalog", "rebuild", check=False)
    assert running.returncode == 1 and "control runs" in running.stdout, running.stdout
    # The same disk has room for one.
    with SecondControl(cluster, control.folder) as second:
        assert second.process.wait(60) != 0 and "is in use by another process" in second.said(), second.said()
    # Another one takes the log over: this one confirms no generation, changes nothing, and says so.
    cluster.cli("catalog", "rebuild", "--catalog", str(cluster.folder / "elsewhere/catalog"),
                "--object-store", f"dir:{cluster.data}/objects")
    with SecondControl(cluster, cluster.folder / "elsewhere") as second:
        wait_for("the second one is ready", lambda: http("GET", second.url() + "/readyz", raw=True) is not None)
        assert_is_replaced(cluster, project, control.http_url)
        control.kill()
        control.start() # and takes it back
        assert_is_replaced(cluster, project, second.url())
        assert second.process.poll() is None
    assert everything(project) == before


def test_a_branch_whose_row_was_lost_is_found_by_a_rebuild(fresh_cluster):
    """The object store's catalog was put back from a copy that is older than the branch."""
    cluster, control, pageserver = fresh_cluster, fresh_cluster.control, fresh_cluster.pageserver
    pageserver.be_impatient()
    project = cluster.create_project("found")
    main = project.main()
    main.sql("CREATE TABLE t AS SELECT generate_series(1, 100) AS n")
    known = project.create_branch("known", main, endpoint=False)
    objects = cluster.data / "objects"
    control.kill(signal.SIGKILL)
    shutil.copytree(objects / "catalog", cluster.data / "catalog.copy")
    shutil.copytree(control.folder, cluster.data / "control.copy")
    control.start()
    lost = project.create_branch("lost", main)
    lost.sql("INSERT INTO t SELECT generate_series(1000, 1050)")
    lsn = lost.value("SELECT pg_current_wal_flush_lsn()")
    tenant = http("GET", pageserver.http_url + "/v1/status")["tenants"][0]["tenant"]

    def uploaded():
        remote = http("GET", f"{pageserver.http_url}/v1/tenants/{tenant}/remote")["timelines"]
        return len(remote) == 3 and max(lsn_of(t["remote_lsn"]) for t in remote) >= lsn_of(lsn)
    wait_for("it is in an index", uploaded, 60)
    # An old copy of the disk follows the object store.
    control.kill(signal.SIGKILL)
    shutil.rmtree(control.folder)
    (cluster.data / "control.copy").rename(control.folder)
    control.start()
    assert lost.get()["name"] == "lost"
    assert "changes were in the object store and not on this disk" in (cluster.data / "logs/control.log").read_text()
    # An old copy of the object store is refused while the disk knows better.
    control.kill(signal.SIGKILL)
    (objects / "catalog").rename(cluster.data / "catalog.newer")
    (cluster.data / "catalog.copy").rename(objects / "catalog")
    refused = cluster.cli("local", "restart", "control", check=False)
    assert refused.returncode == 1 and "the store is an older copy" in refused.stdout, refused.stdout
    # And taken when the disk is gone too.
    shutil.rmtree(control.folder)
    report = cluster.cli("catalog", "rebuild").stdout
    assert "no branch knew timeline" in report and report.count("is protected") == 1, report
    control.start()
    assert known.get()["name"] == "known"
    row = next(b for b in project.branches() if b["name"].startswith("found-"))
    assert row["protected"] and row["parent_id"] == main.id
    found = Branch(project, row["id"])
    wait_for("it is ready", lambda: found.get()["current_state"] == "ready", 30)
    found.add_endpoint()
    assert found.value("SELECT count(*) FROM t") == "151"
    found.sql("INSERT INTO t VALUES (0)")
    assert main.value("SELECT count(*) FROM t") == "100"
