"""What control can be asked for, and what it does by itself: each operation as failpoints.py sweeps it.

A function prepares, and returns what is done under the failpoint; that returns what was answered, or {}. A second
function, if it returns two, looks whether what was answered is there; a third one clears up before the nodes are looked
at. `@sweeps` names the routes (as access.txt of
tests/api has them) that it stands for: routes that change something and have none are found by `unswept`.
"""
import contextlib
import datetime
import pathlib
import shutil
import signal

from cluster import Branch, http, wait_for
from test_hosts import Host

ROUTES = pathlib.Path(__file__).resolve().parent.parent / "api/access.txt"
PROJECT = "/api/v2/projects/{project}"
OPERATIONS = []
KEYS = "/api/v2/organizations/{organization}/api_keys" # the same handlers under another path
NOT_SWEPT = {
    "PUT /faults": "arms the failpoints", "PUT /v1/clock": "is for tests, and writes nothing",
    "POST /v1/generations/validate": "reads", "POST /v1/changes": "reads",
    f"POST {KEYS}": "is POST /api/v2/api_keys", f"DELETE {KEYS}/{{key}}": "is DELETE /api/v2/api_keys/{key}",
    f"PUT {PROJECT}/branches/{{branch}}/leases/{{lease}}": "is the pageserver's: control passes it on, and writes nothing",
    f"DELETE {PROJECT}/branches/{{branch}}/leases/{{lease}}": "is the pageserver's",
    f"POST {PROJECT}/permissions": "is refused", f"DELETE {PROJECT}/permissions/{{permission}}": "finds none",
}


def sweeps(*what):
    def note(prepare):
        prepare.sweeps = {w.replace(" P", " " + PROJECT) for w in what}
        OPERATIONS.append(prepare)
        return prepare
    return note


def unswept():
    """Routes that change something and that no operation stands for; and what stands for a route that is gone."""
    rows = (line.split() for line in ROUTES.read_text().splitlines() if line and not line.startswith("#"))
    changing = {f"{method} {path}" for _, method, path in rows if method != "GET"}
    swept = {route for operation in OPERATIONS for route in operation.sweeps if "/" in route} | set(NOT_SWEPT)
    return sorted(changing - swept), sorted(swept - changing)


@contextlib.contextmanager
def calendar_ahead(rig, seconds):
    """Control that dies forgets it: what is due then waits, and the project goes as a whole."""
    http("PUT", rig.cluster.control.http_url + "/v1/clock", {"ahead_seconds": seconds})
    yield
    with contextlib.suppress(OSError):
        http("PUT", rig.cluster.control.http_url + "/v1/clock", {"ahead_seconds": 0})


def set_recovery_window(rig, seconds):
    """0: what is deleted is deleted for good, as it is when control starts."""
    control = rig.cluster.control
    conf, log = pathlib.Path(control.row["conf"]), rig.cluster.data / "logs/control.log"
    lines = [line for line in conf.read_text().splitlines() if not line.startswith("recovery_window_ms")]
    conf.write_text("\n".join([*lines, f"recovery_window_ms = {seconds}s"]) + "\n")
    said = log.read_text(errors="replace").count("settings read again")
    control.kill(signal.SIGHUP)
    wait_for("settings are read again", lambda: log.read_text(errors="replace").count("settings read again") > said)


def role_on(rig, branch):
    name = rig.name()
    rig.project.wait_operations(rig.project.api("POST", f"/branches/{branch.id}/roles", {"role": {"name": name}}))
    return name


def database_on(rig, branch):
    name = rig.name()
    rig.project.wait_operations(rig.project.api(
        "POST", f"/branches/{branch.id}/databases", {"database": {"name": name, "owner_name": "app"}}))
    return name


def lsn_of_past(branch):
    """What is committed after it is on a majority, and so is it."""
    lsn = branch.value("SELECT pg_current_wal_lsn()")
    branch.sql("CREATE TABLE IF NOT EXISTS later (n int); INSERT INTO later VALUES (1)")
    return lsn


# What is swept: a preparation, then the operation; what it returns is what was answered.

@sweeps("POST P/branches")
def create_branch(rig):
    name = rig.name()
    return lambda: rig.project.api("POST", "/branches", {"branch": {"name": name, "parent_id": rig.main.id},
                                                         "endpoints": [{"type": "read_write"}]})


@sweeps("POST P/branches")
def create_branch_with_key(rig):
    """It is asked for again after each death: see `one`."""
    name = rig.name()
    url = f"{rig.cluster.control.http_url}/api/v2/projects/{rig.project.id}/branches"
    body = {"branch": {"name": name, "parent_id": rig.main.id}, "endpoints": [{"type": "read_write"}]}
    return lambda: http("POST", url, body, headers={"Idempotency-Key": name})


create_branch_with_key.repeats = True


@sweeps("DELETE P/branches/{branch}")
def delete_branch(rig):
    branch = rig.branch()
    return lambda: rig.project.api("DELETE", f"/branches/{branch.id}")


@sweeps("POST P/endpoints/{endpoint}/suspend")
def suspend(rig):
    branch = rig.branch()
    endpoint = branch.endpoint()["id"]
    return lambda: rig.project.api("POST", f"/endpoints/{endpoint}/suspend")


@sweeps("POST P/endpoints/{endpoint}/start")
def start(rig):
    branch = rig.branch()
    branch.suspend()
    endpoint = branch.endpoint()["id"]
    return lambda: rig.project.api("POST", f"/endpoints/{endpoint}/start")


@sweeps("POST P/branches/{branch}/restore")
def restore(rig):
    branch, kept = rig.branch(), rig.name()
    lsn = lsn_of_past(branch)
    body = {"source_branch_id": branch.id, "source_lsn": lsn, "preserve_under_name": kept}
    return lambda: rig.project.api("POST", f"/branches/{branch.id}/restore", body)


@sweeps("POST P/branches/{branch}/roles")
def create_role(rig):
    branch, name = rig.branch(), rig.name()
    return lambda: rig.project.api("POST", f"/branches/{branch.id}/roles", {"role": {"name": name}})


@sweeps("DELETE P/branches/{branch}/roles/{role}")
def delete_role(rig):
    branch, name = rig.branch(), rig.name()
    rig.project.wait_operations(rig.project.api("POST", f"/branches/{branch.id}/roles", {"role": {"name": name}}))
    return lambda: rig.project.api("DELETE", f"/branches/{branch.id}/roles/{name}")


@sweeps("POST P/branches/{branch}/databases")
def create_database(rig):
    branch, name = rig.branch(), rig.name()
    return lambda: rig.project.api(
        "POST", f"/branches/{branch.id}/databases", {"database": {"name": name, "owner_name": "app"}})


@sweeps("POST P/endpoints")
def read_only_past(rig):
    lsn = lsn_of_past(rig.main)
    return lambda: rig.project.api("POST", "/endpoints", {"endpoint": {
        "branch_id": rig.main.id, "type": "read_only", "lsn": lsn}})


@sweeps("POST P/branches/{branch}/safekeepers")
def replace_safekeeper(rig):
    branch = rig.branch()
    members = [k["id"] for k in rig.project.api("GET", f"/branches/{branch.id}/safekeepers")["safekeepers"]]
    new = next(n for n in range(1, 5) if n not in members)
    return lambda: rig.project.api("POST", f"/branches/{branch.id}/safekeepers", {"add": [new], "remove": [members[0]]})


@sweeps("POST P/branches/{branch}/snapshot")
def create_snapshot(rig):
    name = rig.name()
    return lambda: rig.project.api("POST", f"/branches/{rig.main.id}/snapshot?name={name}")


@sweeps("POST P/snapshots/{snapshot}/restore")
def restore_snapshot(rig):
    branch = rig.branch()
    snapshot = rig.project.api("POST", f"/branches/{branch.id}/snapshot")["snapshot"]
    return lambda: rig.project.api("POST", f"/snapshots/{snapshot['id']}/restore", {"finalize_restore": True})


@sweeps("POST /api/v2/projects")
def create_project(rig):
    name = rig.name()
    return lambda: rig.cluster.api("POST", "/projects", {"project": {"name": name}})


@sweeps("DELETE P")
def delete_project(rig):
    project = rig.cluster.create_project(rig.name())
    return lambda: rig.cluster.api("DELETE", f"/projects/{project.id}")


@sweeps("a host's lease ends")
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


# Of one commit, or of operations that others begin too.

@sweeps("PATCH P")
def change_project(rig):
    project, name = rig.cluster.create_project(rig.name()), rig.name()
    body = {"project": {"name": name, "history_retention_seconds": 7200}}
    return (lambda: project.api("PATCH", "", body),
            lambda answer: project.api("GET", "")["project"]["name"] == name)


@sweeps("PATCH P/branches/{branch}")
def change_branch(rig):
    branch, name = rig.branch(endpoint=False), rig.name()
    return (lambda: rig.project.api("PATCH", f"/branches/{branch.id}", {"branch": {"name": name}}),
            lambda answer: branch.get()["name"] == name)


@sweeps("POST P/branches/{branch}/set_as_default")
def set_as_default(rig):
    project = rig.cluster.create_project(rig.name())
    branch = project.create_branch("other", project.main(), endpoint=False)
    return (lambda: project.api("POST", f"/branches/{branch.id}/set_as_default"),
            lambda answer: [b["id"] for b in project.branches() if b["default"]] == [branch.id])


@sweeps("POST P/endpoints")
def create_endpoint(rig):
    branch = rig.branch(endpoint=False)
    return lambda: rig.project.api("POST", "/endpoints", {"endpoint": {"branch_id": branch.id, "type": "read_write"}})


@sweeps("PATCH P/endpoints/{endpoint}")
def change_endpoint(rig):
    endpoint = rig.branch().endpoint()["id"]
    body = {"endpoint": {"suspend_timeout_seconds": 7000, "settings": {"pg_settings": {"work_mem": "7MB"}}}}

    def changed(answer):
        now = rig.project.api("GET", f"/endpoints/{endpoint}")["endpoint"]
        return now["suspend_timeout_seconds"] == 7000 and now["settings"]["pg_settings"] == {"work_mem": "7MB"}
    return lambda: rig.project.api("PATCH", f"/endpoints/{endpoint}", body), changed


@sweeps("DELETE P/endpoints/{endpoint}")
def delete_endpoint(rig):
    endpoint = rig.branch().endpoint()["id"]
    return lambda: rig.project.api("DELETE", f"/endpoints/{endpoint}")


@sweeps("POST P/endpoints/{endpoint}/restart")
def restart(rig):
    branch = rig.branch()
    before = branch.value("SELECT pg_postmaster_start_time()")
    endpoint = branch.endpoint()["id"]
    return (lambda: rig.project.api("POST", f"/endpoints/{endpoint}/restart"),
            lambda answer: branch.value("SELECT pg_postmaster_start_time()") != before)


@sweeps("POST P/branches/{branch}/roles/{role}/reset_password")
def reset_password(rig):
    branch = rig.branch()
    name = role_on(rig, branch)
    path = f"/branches/{branch.id}/roles/{name}"
    return (lambda: rig.project.api("POST", f"{path}/reset_password"),
            lambda answer: rig.project.api("GET", f"{path}/reveal_password")["password"] == answer["role"]["password"])


@sweeps("PATCH P/branches/{branch}/databases/{database}")
def rename_database(rig):
    branch, to = rig.branch(), rig.name()
    name = database_on(rig, branch)
    return (lambda: rig.project.api("PATCH", f"/branches/{branch.id}/databases/{name}", {"database": {"name": to}}),
            lambda answer: branch.value(f"SELECT string_agg(datname, ' ') FROM pg_database WHERE datname IN ('{name}', '{to}')")
            == to)


@sweeps("DELETE P/branches/{branch}/databases/{database}")
def delete_database(rig):
    branch = rig.branch()
    name = database_on(rig, branch)
    return (lambda: rig.project.api("DELETE", f"/branches/{branch.id}/databases/{name}"),
            lambda answer: branch.value(f"SELECT count(*) FROM pg_database WHERE datname = '{name}'") == "0")


@sweeps("DELETE P/branches/{branch}/safekeepers/change")
def give_up_change(rig):
    """Its newcomer does not answer until the change is given up."""
    branch = rig.branch()
    members = [k["id"] for k in rig.project.api("GET", f"/branches/{branch.id}/safekeepers")["safekeepers"]]
    new = next(n for n in range(1, 5) if n not in members)
    process = rig.cluster.process(f"safekeeper-{new}")

    def operate():
        process.kill(signal.SIGSTOP)
        try:
            rig.project.api("POST", f"/branches/{branch.id}/safekeepers", {"add": [new], "remove": [members[0]]})
            return rig.project.api("DELETE", f"/branches/{branch.id}/safekeepers/change")
        finally:
            process.kill(signal.SIGCONT)
    return operate, lambda answer: sorted(
        k["id"] for k in rig.project.api("GET", f"/branches/{branch.id}/safekeepers")["safekeepers"]) == sorted(members)


@sweeps("PATCH P/snapshots/{snapshot}")
def change_snapshot(rig):
    snapshot = rig.project.wait_operations(rig.project.api("POST", f"/branches/{rig.main.id}/snapshot"))["snapshot"]
    name = rig.name()
    return (lambda: rig.project.api("PATCH", f"/snapshots/{snapshot['id']}", {"snapshot": {"name": name}}),
            lambda answer: rig.project.api("GET", f"/snapshots/{snapshot['id']}")["snapshot"]["name"] == name)


@sweeps("DELETE P/snapshots/{snapshot}")
def delete_snapshot(rig):
    snapshot = rig.project.wait_operations(rig.project.api("POST", f"/branches/{rig.main.id}/snapshot"))["snapshot"]
    return lambda: rig.project.api("DELETE", f"/snapshots/{snapshot['id']}")


@sweeps("POST P/branches/{branch}/finalize_restore")
def finalize_restore(rig):
    branch = rig.branch()
    snapshot = rig.project.wait_operations(rig.project.api("POST", f"/branches/{branch.id}/snapshot"))["snapshot"]
    restored = rig.project.wait_operations(
        rig.project.api("POST", f"/snapshots/{snapshot['id']}/restore", {"target_branch_id": branch.id}))["branch"]
    name = branch.get()["name"]
    return (lambda: rig.project.api("POST", f"/branches/{restored['id']}/finalize_restore", {}),
            lambda answer: Branch(rig.project, restored["id"]).get()["name"] == name)


@sweeps("PUT P/branches/{branch}/backup_schedule", "a snapshot is due")
def schedule(rig):
    project = rig.cluster.create_project(rig.name())
    path = f"/branches/{project.main().id}/backup_schedule"

    def operate():
        project.api("PUT", path, {"schedule": [{"frequency": "yearly"}]})
        with calendar_ahead(rig, 366 * 24 * 3600):
            wait_for("it is made", lambda: not rig.cluster.control.alive() or project.api("GET", "/snapshots")["snapshots"])
        return {"is_set": True}
    return operate, lambda answer: (project.api("GET", path)["schedule"] == [{"frequency": "yearly"}] and
                                    len(project.api("GET", "/snapshots")["snapshots"]) <= 1)


@sweeps("POST /api/v2/api_keys", "DELETE /api/v2/api_keys/{key}")
def keys(rig):
    name = rig.name()

    def operate():
        made = rig.cluster.api("POST", "/api_keys", {"key_name": name, "project_id": rig.project.id})
        rig.cluster.api("DELETE", f"/api_keys/{made['id']}")
        return {"id": made["id"]}
    return operate, lambda answer: answer["id"] not in [k["id"] for k in rig.cluster.api("GET", "/api_keys")]


@sweeps("DELETE P/branches/{branch}", "POST P/branches/{branch}/recover")
def recover_branch(rig):
    """It is set aside, and had back."""
    branch = rig.branch()
    set_recovery_window(rig, 3600)

    def operate():
        rig.project.api("DELETE", f"/branches/{branch.id}")
        return rig.project.api("POST", f"/branches/{branch.id}/recover")

    def clear_up():
        set_recovery_window(rig, 0)
        rig.project.wait_operations(rig.project.api("DELETE", f"/branches/{branch.id}?hard_delete=true"))

    def works(answer):
        branch.start()
        return branch.value("SELECT count(*) FROM t") == "50"
    return operate, works, clear_up


@sweeps("DELETE P", "POST P/recover")
def recover_project(rig):
    project = rig.cluster.create_project(rig.name())
    set_recovery_window(rig, 3600)

    def operate():
        project.api("DELETE", "")
        return {"project": project.api("POST", "/recover")["project"]}

    def clear_up():
        set_recovery_window(rig, 0)
        project.api("DELETE", "?hard_delete=true")
    return operate, lambda answer: [b["name"] for b in project.branches()] == ["main"], clear_up


# What others of the cluster ask for, and what control does by itself.

@sweeps("POST /v1/connect")
def wake(rig):
    branch = rig.branch()
    branch.suspend()
    endpoint = branch.endpoint()["id"]

    def operate():
        http("POST", rig.cluster.control.http_url + "/v1/connect", {"name": endpoint, "role": "app", "wait_ms": 30000})
        return {"is_up": True}
    return operate, lambda answer: branch.endpoint()["current_state"] == "active"


@sweeps("PUT /v1/hosts/{host}")
def register_host(rig):
    """As an agent does it; nobody listens there, and it leaves when its lease is over."""
    rig.number += 1
    number = 300 + rig.number
    url = f"{rig.cluster.control.http_url}/v1/hosts/{number}"
    body = {"host": "127.0.0.3", "http_port": number, "lease_ms": 600000}

    def operate():
        http("PUT", url, body)
        return {"number": number}
    return operate, lambda answer: any(n["id"] == number and n["kind"] == "agent" for n in http(
        "GET", rig.cluster.control.http_url + "/v1/nodes")["nodes"])


@sweeps("nobody works on a compute")
def fall_asleep(rig):
    branch = rig.branch()
    endpoint = branch.endpoint()["id"]

    def operate():
        answer = rig.project.api("PATCH", f"/endpoints/{endpoint}", {"endpoint": {"suspend_timeout_seconds": 1}})
        wait_for("it sleeps", lambda: not rig.cluster.control.alive() or branch.endpoint()["current_state"] == "idle")
        return answer
    return operate, lambda answer: branch.endpoint()["current_state"] == "idle"


@sweeps("a branch expires")
def expire(rig):
    branch = rig.branch()
    past = (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%SZ")

    def operate():
        answer = rig.project.api("PATCH", f"/branches/{branch.id}", {"branch": {"expires_at": past}})
        wait_for("it goes", lambda: not rig.cluster.control.alive() or
                 branch.id not in [b["id"] for b in rig.project.branches()])
        return answer
    return operate, lambda answer: branch.id not in [b["id"] for b in rig.project.branches()]


@sweeps("a pageserver has a new disk")
def renew_generation(rig):
    if len(rig.project.branches()) < 2: # each more is more steps: with one more each time there is no end
        rig.branch()
    pageserver = rig.cluster.pageserver

    def generations():
        return [t["generation"] for t in http("GET", pageserver.http_url + "/v1/status")["tenants"]]
    before = max(generations())

    def operate():
        pageserver.kill()
        shutil.rmtree(pageserver.folder)
        pageserver.start()
        wait_for("it is attached again", lambda: not rig.cluster.control.alive() or min(generations() or [0]) > before)
        return {"is_attached": True}
    return operate, lambda answer: min(generations() or [0]) > before
