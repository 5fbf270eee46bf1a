"""Deleted projects and branches come back within the window, and are gone after it: with real pages, on a live cluster."""
import contextlib
import datetime
import os
import pathlib
import signal

from cluster import Branch, Project, http, wait_for
from snapshots import DAY, refused, set_clock, timelines

WINDOW = 7 * DAY


@contextlib.contextmanager
def window(cluster, seconds=WINDOW):
    """Control reads its settings again: what is deleted meanwhile can be recovered for so long."""
    conf = pathlib.Path(cluster.control.row["conf"])
    before = conf.read_text()

    def write(text):
        conf.write_text(text)
        said = (cluster.data / "logs/control.log").read_text().count("settings read again")
        os.kill(cluster.control.pid, signal.SIGHUP)
        wait_for("settings are read again", lambda: (cluster.data / "logs/control.log").read_text().count(
            "settings read again") > said)

    def restart():
        cluster.control.kill()
        cluster.control.start() # which writes the file anew
        write(before + f"\nrecovery_window_ms = {seconds}s\n")
    write(before + f"\nrecovery_window_ms = {seconds}s\n")
    try:
        yield restart
    finally:
        set_clock(cluster, 0)
        write(before)


def deleted(project):
    """{name: recovery} of what the list with deleted branches has more."""
    branches = project.api("GET", "/branches?include_deleted=true")["branches"]
    return {b["name"]: b["recovery"] for b in branches if "recovery" in b}


def seconds_between(a, b):
    a, b = (datetime.datetime.fromisoformat(t.replace("Z", "+00:00")) for t in (a, b))
    return (b - a).total_seconds()


def test_a_branch_is_recovered(cluster):
    project = cluster.create_project("recover branches")
    with window(cluster) as restart:
        work = project.create_branch("work", project.main())
        work.sql("CREATE TABLE t AS SELECT generate_series(1, 10) AS n")
        endpoint, uri, path = work.endpoint()["id"], work.uri(), f"/branches/{work.id}"
        refused(409, "NOT_DELETED", project.api, "POST", path + "/recover")
        answer = work.delete()
        assert [o["action"] for o in answer["operations"]] == ["suspend_compute"], answer
        assert answer["branch"]["recovery"]["deletion_method"] == "user", answer

        # Nobody sees it, its name is free, and the nodes keep it.
        assert [b["name"] for b in project.branches()] == ["main"] and list(deleted(project)) == ["work"]
        said = deleted(project)["work"]
        assert seconds_between(said["deleted_at"], said["recoverable_until"]) == WINDOW, said
        assert project.api("GET", "/branches/count")["count"] == 1 and timelines(cluster, project) == 2
        for method, at in (("GET", path), ("DELETE", path), ("GET", path + "/endpoints"), ("POST", path + "/restore")):
            body = {"source_branch_id": project.main().id} if method == "POST" else None
            refused(404, "BRANCH_NOT_FOUND", project.api, method, at, body)
        refused(404, "BRANCH_NOT_FOUND", project.api, "POST", "/branches", {"branch": {"parent_id": work.id}})
        refused(404, "ENDPOINT_NOT_FOUND", project.api, "POST", f"/endpoints/{endpoint}/start")
        assert endpoint not in [e["id"] for e in project.api("GET", "/endpoints")["endpoints"]]
        other = project.create_branch("work", project.main(), endpoint=False)
        refused(409, "BRANCH_ALREADY_EXISTS", project.api, "POST", path + "/recover")
        project.api("PATCH", f"/branches/{other.id}", {"branch": {"name": "other"}})

        # It comes back as it was, asleep, with its connection string; whoever died meanwhile.
        restart()
        answer = project.api("POST", path + "/recover")
        assert [(e["id"], e["current_state"]) for e in answer["endpoints"]] == [(endpoint, "idle")], answer
        assert "recovery" not in answer["branch"] and answer["branch"]["name"] == "work" and not deleted(project)
        work.start()
        assert work.uri() == uri and work.value("SELECT count(*) FROM t") == "10"
        refused(409, "NOT_DELETED", project.api, "POST", path + "/recover")

        # hard_delete: at once, also of one that is set aside.
        project.api("DELETE", f"/branches/{other.id}?hard_delete=true")
        work.delete()
        refused(404, "BRANCH_NOT_FOUND", project.api, "POST", f"/branches/{other.id}/recover")
        project.wait_operations(project.api("DELETE", path + "?hard_delete=true"))
        wait_for("both are gone", lambda: timelines(cluster, project) == 1)
        refused(404, "BRANCH_NOT_FOUND", project.api, "POST", path + "/recover")
        assert not deleted(project)
    late = project.create_branch("late", project.main(), endpoint=False)
    late.delete()
    refused(404, "BRANCH_NOT_FOUND", project.api, "POST", f"/branches/{late.id}/recover") # no window, as it is by itself
    project.delete()


def test_what_expired_is_recovered_and_the_rest_goes(cluster):
    project = cluster.create_project("recover families")
    key = cluster.api("POST", "/api_keys", {"key_name": "two", "project_id": project.id, "branches_max": 2})
    soon = (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)).isoformat().replace("+00:00", "Z")
    with window(cluster):
        parent = project.create_branch("parent", project.main(), endpoint=False)
        child = project.create_branch("child", parent, endpoint=False, expires_at=soon)
        set_clock(cluster, 2 * 3600)
        wait_for("the child expires", lambda: deleted(project).get("child", {}).get("deletion_method") == "ttl")
        parent.delete() # a child that is set aside holds nobody up
        assert sorted(deleted(project)) == ["child", "parent"] and timelines(cluster, project) == 3
        said = project.api("POST", f"/branches/{child.id}/recover")["branch"]
        assert "expires_at" not in said and said["parent_id"] == project.main().id, said

        # After the window the parent goes for people, and stays below its child for the nodes.
        set_clock(cluster, WINDOW + DAY)
        wait_for("the parent can be recovered no more", lambda: not deleted(project))
        refused(404, "BRANCH_NOT_FOUND", project.api, "POST", f"/branches/{parent.id}/recover")
        assert [b["name"] for b in project.branches()] == ["main", "child"] and timelines(cluster, project) == 3
        child.delete()
        set_clock(cluster, 3 * WINDOW)
        wait_for("nothing is left", lambda: timelines(cluster, project) == 1)

        # What is set aside does not count, and comes back only if there is room.
        def up(name):
            url = f"{cluster.control.http_url}/api/v2/projects/{project.id}/branches"
            return http("POST", url, {"branch": {"name": name}}, headers={"Authorization": f"Bearer {key['key']}"})
        one = Branch(project, up("one")["branch"]["id"])
        up("two")
        refused(422, "BRANCHES_LIMIT_EXCEEDED", up, "three")
        one.delete()
        up("three")
        refused(422, "BRANCHES_LIMIT_EXCEEDED", project.api, "POST", f"/branches/{one.id}/recover")
        said = cluster.cli("branch", "down", "three", "--project", project.id).stdout
        assert "deleted" in said and list(deleted(project)) == ["one"] # for good: a branch of a script frees its space
        said = cluster.cli("branches", "list", "--deleted", "--project", project.id).stdout
        assert "one" in said and "DELETED" in said, said
        cluster.cli("branches", "recover", one.id, "--project", project.id)
        assert "one" in [b["name"] for b in project.branches()]
        cluster.cli("branches", "delete", "one", "--hard", "--project", project.id)
        assert not deleted(project)
    project.delete()


def test_a_project_is_recovered(cluster):
    project = cluster.create_project("recover projects")
    main, path = project.main(), f"/projects/{project.id}"
    main.sql("CREATE TABLE t AS SELECT generate_series(1, 10) AS n")
    uri, lsn = main.uri(), main.value("SELECT pg_current_wal_lsn()")

    def listed(query=""):
        return {p["id"]: p for p in cluster.api("GET", "/projects?limit=100" + query)["projects"]}
    with window(cluster) as restart:
        aside = project.create_branch("aside", main, endpoint=False)
        aside.delete()
        project.wait_operations(project.api("POST", "/endpoints", {"endpoint": {
            "branch_id": main.id, "type": "read_only", "lsn": lsn}}))
        refused(409, "NOT_DELETED", cluster.api, "POST", path + "/recover")
        answer = cluster.api("DELETE", path)
        assert {"deleted_at", "recoverable_until"} <= set(answer["project"]), answer
        assert project.id not in listed() and list(listed("&recoverable=true")) == [project.id]
        project.wait_operations(answer) # they can be asked for
        for at in (path, path + "/branches", f"{path}/branches/{main.id}", path + "/endpoints"):
            refused(404, "PROJECT_NOT_FOUND", cluster.api, "GET", at)
        restart()
        said = cluster.cli("projects", "list", "--deleted").stdout
        assert project.id in said, said
        answer = cluster.api("POST", path + "/recover")
        assert [b["name"] for b in answer["branches"]] == ["main"] and "deleted_at" not in answer["project"], answer
        assert list(deleted(project)) == ["aside"] and len(project.api("GET", "/endpoints")["endpoints"]) == 1
        main.start()
        assert main.uri() == uri and main.value("SELECT count(*) FROM t") == "10"

        cluster.api("DELETE", path)
        set_clock(cluster, WINDOW + DAY)
        wait_for("it can be recovered no more", lambda: not listed("&recoverable=true"))
        refused(404, "PROJECT_NOT_FOUND", cluster.api, "POST", path + "/recover")
        wait_for("nothing of it is left", lambda: not holds(cluster, answer["project"]["tenant_id"]))
        other = Project(cluster, cluster.api("POST", "/projects", {"project": {"name": "gone at once"}})["project"]["id"])
        key = cluster.api("POST", "/api_keys", {"key_name": "of it", "project_id": other.id})
        cluster.api("DELETE", f"/projects/{other.id}?hard_delete=true")
        assert not listed("&recoverable=true") and other.id not in listed()

        # Its key can ask for its operations for an hour, and goes with them.
        operations = f"{cluster.control.http_url}/api/v2/projects/{other.id}/operations"
        caller = {"Authorization": f"Bearer {key['key']}"}
        wait_for("it is deleted", lambda: all(o["status"] == "finished" for o in http("GET", operations, headers=caller)[
            "operations"] if o["action"] == "tenant_detach"))
        set_clock(cluster, 2 * WINDOW)
        wait_for("its key goes", lambda: key["id"] not in [k["id"] for k in cluster.api("GET", "/api_keys")])
        refused(404, "PROJECT_NOT_FOUND", cluster.api, "GET", f"/projects/{other.id}/operations")


def holds(cluster, tenant):
    status = http("GET", cluster.pageserver.http_url + "/v1/status")
    return tenant in [t["tenant"] for t in status["tenants"]]
