"""What a project has used: from real counters, through a death of control, and a bounded number of rows."""
from cluster import wait_for
from snapshots import DAY, refused, set_clock

WINDOW = "from=2020-01-01T00:00:00Z&to=2090-01-01T00:00:00Z"


def test_what_a_project_used(cluster):
    project = cluster.create_project("consumption")
    main, path = project.main(), "/consumption_history"

    def frames(granularity="hourly", query=f"{path}/projects"):
        answer = cluster.api("GET", f"{query}{'&' if '?' in query else '?'}granularity={granularity}&{WINDOW}&project_ids={project.id}")
        assert [p["project_id"] for p in answer["projects"]] == [project.id], answer
        return answer["projects"][0]["periods"][0]["consumption"]

    def total(name):
        set_clock(cluster, 0) # what was measured is recorded
        return sum(f[name] for f in frames())

    def stored():
        """As it is on record, after it has been measured anew."""
        for seconds in (600, 0): # measured at most every five minutes
            set_clock(cluster, seconds)
        return frames()[-1]["synthetic_storage_size_bytes"]

    def is_measured():
        size = stored()
        return size == project.api("GET", "/size")["synthetic_bytes"] == project.api("GET", "")["project"]["synthetic_storage_size"]

    for wrong in ("", "?granularity=weekly", "?granularity=daily&from=x&to=y",
                  "?granularity=daily&from=2027-01-01T00:00:00Z&to=2026-01-01T00:00:00Z"):
        refused(400, "BAD_REQUEST", cluster.api, "GET", f"{path}/projects{wrong}")
    before = total("written_data_bytes")
    main.sql("CREATE TABLE t AS SELECT generate_series(1, 100000) AS n, repeat('x', 100) AS filler")
    wait_for("what was written is counted", lambda: total("written_data_bytes") - before > 10_000_000)
    wait_for("the time of the compute too", lambda: total("compute_time_seconds") > 0 and total("active_time_seconds") > 0)
    written, active = total("written_data_bytes"), total("active_time_seconds")
    assert written < 100_000_000, written
    wait_for("what is stored is as the pageserver says", is_measured)
    assert 20_000_000 < stored() < 200_000_000, stored() # an empty cluster, and what was written

    # The history that a restore keeps under another branch was counted when it was written.
    said = {"source_branch_id": main.id, "source_lsn": main.value("SELECT pg_current_wal_lsn()"), "preserve_under_name": "before"}
    project.wait_operations(project.api("POST", f"/branches/{main.id}/restore", said))
    kept = next(b["id"] for b in project.branches() if b["name"] == "before")
    before = total("written_data_bytes")
    main.sql("CREATE TABLE u AS SELECT generate_series(1, 15000) AS n, repeat('x', 100) AS filler")
    more = wait_for("the rest is counted too", lambda: (now := total("written_data_bytes") - before) > 1_000_000 and now)
    assert more < 10_000_000, more
    written, active = total("written_data_bytes"), total("active_time_seconds")
    cluster.control.kill()
    cluster.control.start()
    assert total("written_data_bytes") >= written and total("active_time_seconds") >= active
    main.suspend()
    rest = total("active_time_seconds")
    metrics = {m["metric_name"]: m["value"] for m in frames("monthly", f"{path}/v2/projects")[-1]["metrics"]}
    assert metrics["written_data_bytes"] >= written and metrics["active_time_seconds"] >= rest, metrics
    assert project.api("GET", "")["project"]["written_data_bytes"] >= written

    # By branch: what one writes is not another's, and all of them are the project's.
    query = f"{path}/v2/branches?granularity=monthly&{WINDOW}&project_ids={project.id}&org_id=org-local"
    quiet = project.create_branch("quiet", main, endpoint=False)

    def of_branches(more=""):
        return {b["branch_id"]: {m["metric_name"]: m["value"] for f in b["periods"][0]["consumption"] for m in f["metrics"]}
                for b in cluster.api("GET", query + more)["branches"]}
    used = of_branches()
    assert sorted(used) == sorted([main.id, kept, quiet.id]) and used[quiet.id] == {}, used
    assert used[kept].get("written_data_bytes", 0) == 0, used # which is the root now
    wait_for("the branches are measured", lambda: stored() and (now := of_branches())[kept].get("root_branch_bytes_month", 0) > 0
             and now[main.id].get("child_branch_bytes_month", 0) > 0)
    of_kept = of_branches()[kept]["root_branch_bytes_month"]
    of_project = {m["metric_name"]: m["value"] for m in frames("monthly", f"{path}/v2/projects")[-1]["metrics"]}
    assert of_project["root_branch_bytes_month"] >= of_kept, of_project
    assert of_project["snapshot_storage_bytes_month"] == 0 and "data_storage_bytes_hour" not in of_project, of_project
    wait_for("each has a size", lambda: stored() and {b["name"] for b in project.branches() if b.get("logical_size", 0) > 10_000_000}
             == {"main", "before", "quiet"})
    assert used[main.id]["written_data_bytes"] >= written and used[main.id]["active_time_seconds"] > 0, used
    assert used[main.id]["compute_unit_seconds"] == used[main.id]["compute_time_seconds"]
    assert list(of_branches(f"&branch_ids={quiet.id},br-no-such-1")) == [quiet.id]
    assert list(of_branches(f"&branch_ids=br-no-such-1&branch_ids={quiet.id}")) == [quiet.id]
    said = of_branches("&metrics=compute_unit_seconds,public_network_transfer_bytes")[main.id]
    assert list(said) == ["compute_unit_seconds"], said # what is not measured is not there
    refused(400, "BAD_REQUEST", of_branches, "&metrics=compute_unit_seconds,snapshot_storage_bytes_month")
    refused(400, "BAD_REQUEST", frames, "daily", f"{path}/v2/projects?metrics=root_branch_bytes&x=")
    first = cluster.api("GET", query + "&limit=2")
    rest = cluster.api("GET", query + f"&limit=2&cursor={first['pagination']['cursor']}")
    assert [[b["branch_id"] for b in page["branches"]] for page in (first, rest)] == [[main.id, kept], [quiet.id]], (first, rest)
    refused(400, "BAD_REQUEST", cluster.api, "GET", f"{path}/v2/branches?granularity=daily&{WINDOW}")
    quiet.delete()
    account = cluster.api("GET", f"{path}/account?granularity=monthly&{WINDOW}")["periods"][0]["consumption"]
    assert sum(f["written_data_bytes"] for f in account) >= written, account
    assert cluster.api("GET", f"{path}/projects?granularity=hourly&{WINDOW}&limit=1")["pagination"]["cursor"]
    try:
        hour = frames()[0]["timeframe_start"]
        main.start() # rows go when there is something new to record

        def is_gone():
            set_clock(cluster, 8 * DAY)
            return hour not in [f["timeframe_start"] for f in frames()]
        wait_for("what is older than a week goes", is_gone)
        daily = frames("daily", f"{path}/projects?metrics=data_storage_bytes_hour&x=")
        assert len(daily) == 9 and sum(f["written_data_bytes"] for f in daily) >= written, daily
        assert len(frames()) == 168
        for day in daily[1:-1]: # nobody recorded anything then, and it was stored
            assert day["synthetic_storage_size_bytes"] > 0 and day["written_data_bytes"] == 0, day
            assert day["data_storage_bytes_hour"] == 24 * day["synthetic_storage_size_bytes"], day
    finally:
        set_clock(cluster, 0)
    project.delete()
