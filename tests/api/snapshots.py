"""Snapshots and their schedules on a live cluster, whose calendar is moved ahead (PUT /v1/clock)."""
import urllib.request

from cluster import ApiError, Branch, http, wait_for

DAY = 24 * 3600


def set_clock(cluster, seconds):
    http("PUT", cluster.control.http_url + "/v1/clock", {"ahead_seconds": seconds})


def timelines(cluster, project):
    status = http("GET", cluster.pageserver.http_url + "/v1/status")
    tenant = project.api("GET", "")["project"]["tenant_id"]
    return next((len(t["timelines"]) for t in status["tenants"] if t["tenant"] == tenant), 0)


def refused(status, code, call, *args):
    try:
        answer = call(*args)
    except ApiError as error:
        assert (error.status, error.body["code"]) == (status, code), error.body
        return error.body
    raise AssertionError(f"expected {code}: {answer}")


def test_a_snapshot_outlives_its_branch(cluster):
    project = cluster.create_project("snapshots")
    work = project.create_branch("work", project.main())
    work.sql("CREATE TABLE t AS SELECT generate_series(1, 10) AS n")
    lsn = work.value("SELECT pg_current_wal_lsn()")
    work.sql("DELETE FROM t WHERE n > 7")
    base = f"/branches/{work.id}"
    seven = project.wait_operations(project.api("POST", base + "/snapshot?name=seven"))["snapshot"]
    ten = project.wait_operations(project.api("POST", f"{base}/snapshot?name=ten&lsn={lsn}"))["snapshot"]
    refused(409, "SNAPSHOT_ALREADY_EXISTS", project.api, "POST", base + "/snapshot?name=ten")
    refused(400, "BAD_REQUEST", project.api, "POST", base + "/snapshot?expires_at=2001-01-01T00:00:00Z")
    refused(400, "LSN_AHEAD_OF_PARENT", project.api, "POST", base + "/snapshot?lsn=F/0")
    work.sql("DROP TABLE t")
    assert [s["name"] for s in project.api("GET", "/snapshots")["snapshots"]] == ["seven", "ten"]
    assert len(project.branches()) == 2 and seven["source_branch_id"] == work.id and seven["manual"]
    refused(404, "BRANCH_NOT_FOUND", project.api, "GET", f"/branches/{seven['id']}")

    work.delete()
    assert [b["name"] for b in project.branches()] == ["main"]
    again = project.create_branch("work", project.main(), endpoint=False) # its name is free
    again.delete()
    refused(422, "RESTORE_TARGET_GONE", project.api, "POST", f"/snapshots/{ten['id']}/restore",
            {"finalize_restore": True})
    restored = project.wait_operations(project.api("POST", f"/snapshots/{ten['id']}/restore", {"name": "ten again"}))
    branch = Branch(project, restored["branch"]["id"]).add_endpoint()
    assert branch.value("SELECT count(*) FROM t") == "10"
    said = branch.get()
    assert (said["restored_from"], said["restore_status"], said.get("parent_id")) == (
        ten["id"], "restored", project.main().id), said
    refused(422, "RESTORE_TARGET_GONE", project.api, "POST", f"/branches/{branch.id}/finalize_restore", {})

    # main, work and both snapshots, the restored one: nothing of them may go yet.
    assert timelines(cluster, project) == 5
    for snapshot in (seven, ten):
        project.wait_operations(project.api("DELETE", f"/snapshots/{snapshot['id']}"))
    assert project.api("GET", "/snapshots")["snapshots"] == []
    wait_for("the snapshot that nothing hangs on goes", lambda: timelines(cluster, project) == 4)
    assert branch.value("SELECT count(*) FROM t") == "10"
    branch.delete()
    wait_for("all that was kept for it goes", lambda: timelines(cluster, project) == 1)
    project.delete()


def test_a_restored_branch_takes_the_place(cluster):
    project = cluster.create_project("finalized")
    main = project.main()
    main.sql("CREATE TABLE t AS SELECT generate_series(1, 3) AS n")
    project.api("PATCH", f"/branches/{main.id}", {"branch": {"protected": True}})
    snapshot = project.wait_operations(project.api("POST", f"/branches/{main.id}/snapshot"))["snapshot"]
    main.sql("DELETE FROM t")
    uri, endpoint = main.uri(), main.endpoint()["id"]
    answer = project.wait_operations(
        project.api("POST", f"/snapshots/{snapshot['id']}/restore", {"finalize_restore": True}))
    new = answer["branch"]
    assert new["name"] == "main" and new["default"] and new["protected"] and new["restored_as"] == main.id, new
    assert new["restore_status"] == "finalized" and [e["id"] for e in answer["endpoints"]] == [endpoint], answer
    restored = Branch(project, new["id"])
    assert restored.uri() == uri and restored.value("SELECT count(*) FROM t") == "3"
    restored.sql("INSERT INTO t VALUES (4)") # it is a branch like any other
    old = main.get()
    assert old["name"].startswith("main_old_") and not old["default"] and not old["protected"], old
    assert project.api("GET", f"/branches/{main.id}/endpoints")["endpoints"] == []
    refused(422, "BRANCH_NOT_RESTORED", project.api, "POST", f"/branches/{new['id']}/finalize_restore", {})
    again = project.wait_operations(project.api("POST", f"/snapshots/{snapshot['id']}/restore"))["branch"]
    project.wait_operations(project.api("POST", f"/branches/{again['id']}/set_as_default"))
    project.wait_operations(project.api("POST", f"/branches/{again['id']}/finalize_restore", {}))
    assert [b["id"] for b in project.branches() if b["default"]] == [again["id"]], project.branches()
    cluster.control.kill()
    cluster.control.start()
    restored.suspend()
    restored.start()
    assert restored.value("SELECT count(*) FROM t") == "4"
    project.delete()


def test_snapshots_by_the_calendar(cluster):
    project = cluster.create_project("scheduled")
    path = f"/branches/{project.main().id}/backup_schedule"
    for rule in ({"frequency": "secondly"}, {"frequency": "daily", "hour": 24}, {"frequency": "weekly", "day": 8}, {},
                 {"frequency": "yearly", "month": 0}, 7):
        refused(400, "BAD_REQUEST", project.api, "PUT", path, {"schedule": [rule]})
    for seconds in (3599, 100 * 366 * DAY + 1): # the answer says both ends
        rule = {"frequency": "daily", "retention_seconds": seconds}
        said = refused(400, "BAD_REQUEST", project.api, "PUT", path, {"schedule": [rule]})
        assert said["message"].endswith(f"expected 3600 to {100 * 366 * DAY}"), said
    rules = [{"frequency": "daily", "hour": 3, "retention_seconds": 36 * 3600}, {"frequency": "yearly", "month": 2}]
    project.api("PUT", path, {"schedule": rules})
    assert project.api("GET", path)["schedule"] == rules

    seen = set()

    def made():
        all = project.api("GET", "/snapshots")["snapshots"]
        names = [s["name"] for s in all]
        assert len(set(names)) == len(names), f"made twice: {names}"
        seen.update(names)
        return {s["name"].split("_")[1]: s for s in all}

    try:
        assert made() == {}
        set_clock(cluster, DAY)
        wait_for("the daily one is made", lambda: list(made()) == ["daily"])
        first = made()["daily"]
        assert not first["manual"] and "T030000Z" in first["name"] and "T15:00:00" in first["expires_at"], first
        cluster.control.kill()
        cluster.control.start() # as it was: what was made is not made again
        set_clock(cluster, DAY + 60)
        set_clock(cluster, 4 * DAY) # a rest of three days is made up for once
        wait_for("the next one is made, the first expires",
                 lambda: list(made()) == ["daily"] and made()["daily"]["id"] != first["id"])
        assert len(seen) == 2, seen
        set_clock(cluster, 400 * DAY)
        wait_for("both rules are due", lambda: sorted(made()) == ["daily", "yearly"])
        assert "expires_at" not in made()["yearly"] and "0201T000000Z" in made()["yearly"]["name"]
        project.api("PUT", path, {"schedule": []})
        set_clock(cluster, 800 * DAY)
        wait_for("the daily one has expired", lambda: list(made()) == ["yearly"])
    finally:
        set_clock(cluster, 0)
    project.delete()


def test_every_schedule_has_its_turn(cluster):
    """More branches than a round has turns, and none of their snapshots can be made: each is tried, and says why."""
    project, count = cluster.create_project("many-scheduled"), 66
    branches = [project.create_branch(f"b{n}", endpoint=False, wait=False) for n in range(count)]
    paths = [f"/branches/{b.id}/backup_schedule" for b in branches]
    for path in paths:
        wait_for("it is there", lambda: project.api("PUT", path, {"schedule": [{"frequency": "daily"}]}) is not None)

    def faults(spec):
        urllib.request.urlopen(urllib.request.Request(
            cluster.control.http_url + "/faults", data=spec.encode(), method="PUT"), timeout=10).read()

    def failures():
        return [said["failure"] for said in (project.api("GET", path) for path in paths) if "failure" in said]
    try:
        faults("schedule.after_head=busy")
        set_clock(cluster, DAY)
        failed = wait_for("all have been tried", lambda: len(found := failures()) == count and found)
        assert all(f["failures_count"] >= 1 and "failpoint" in f["error"] for f in failed), failed[:3]
        assert project.api("GET", "/snapshots")["snapshots"] == []
        faults("")
        wait_for("all are made", lambda: len(project.api("GET", "/snapshots")["snapshots"]) == count)
        assert failures() == []
    finally:
        faults("")
        set_clock(cluster, 0)
    project.delete()


def test_the_snapshots_of_a_schedule_count_for_the_key_that_set_it(cluster):
    project = cluster.create_project("scheduled-by-key")
    key = cluster.api("POST", "/api_keys", {"key_name": "small", "project_id": project.id, "branches_max": 1})
    path = f"/branches/{project.main().id}/backup_schedule"
    rules = {"schedule": [{"frequency": "daily", "retention_seconds": 3 * DAY}]}
    http("PUT", f"{cluster.control.http_url}/api/v2/projects/{project.id}{path}", rules,
         headers={"Authorization": f"Bearer {key['key']}"})

    def made():
        return [s["name"] for s in project.api("GET", "/snapshots")["snapshots"]]
    try:
        set_clock(cluster, DAY)
        wait_for("the first one is made", lambda: len(made()) == 1)
        set_clock(cluster, 2 * DAY)
        failure = wait_for("the key has its fill", lambda: project.api("GET", path).get("failure"))
        assert "this key has made 1 branches" in failure["error"] and len(made()) == 1, (failure, made())
        project.api("PUT", path, rules) # by somebody without a key, from now on
        assert "failure" not in project.api("GET", path)
        set_clock(cluster, 3 * DAY)
        wait_for("the next one is made", lambda: len(made()) == 2)
    finally:
        set_clock(cluster, 0)
    project.delete()


def test_the_history_that_a_restore_keeps_counts_for_the_key_that_restored(cluster):
    """Whoever made the branch: otherwise a key could have as much of others' history kept as it likes."""
    project = cluster.create_project("restored-by-key")
    maker, other = (cluster.api("POST", "/api_keys", {"key_name": name, "project_id": project.id, "branches_max": 1})["key"]
                    for name in ("maker", "other"))

    def by(key, path, body):
        answer = http("POST", f"{cluster.control.http_url}/api/v2/projects/{project.id}{path}", body,
                      headers={"Authorization": f"Bearer {key}"})
        project.wait_operations(answer)
        return answer
    made = by(maker, "/branches", {"branch": {"name": "made"}})["branch"]["id"]

    def restore(name):
        return by(other, f"/branches/{made}/restore", {"source_branch_id": project.main().id, "preserve_under_name": name})
    restore("before the first")
    refused(422, "BRANCHES_LIMIT_EXCEEDED", restore, "before the second")
    refused(422, "BRANCHES_LIMIT_EXCEEDED", by, maker, "/branches", {"branch": {"name": "another"}}) # it still has its one
    assert {b["name"] for b in project.branches()} == {"main", "made", "before the first"}
    project.delete()
