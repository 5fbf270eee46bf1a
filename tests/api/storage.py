"""What the store says of a branch, through control's routes and in the words of the command line."""
import json

from cluster import Branch
from snapshots import refused


def test_what_the_store_says(cluster):
    project = cluster.create_project("storage")
    main = project.main()
    main.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
    lsn = main.value("SELECT pg_current_wal_flush_lsn()")
    work = project.create_branch("work", main, parent_lsn=lsn)
    base = f"/branches/{work.id}"

    assert project.api("GET", "/retention")["history_retention_seconds"] > 0
    size = project.api("GET", "/size")
    assert size["timelines"] == 2 and size["logical_bytes"] > 0 and size["synthetic_bytes"] > 0, size
    ends = {b["branch_id"]: b for b in size["branches"]}
    assert sorted(ends) == sorted([main.id, work.id]) and ends[work.id]["start_lsn"] == lsn, size
    assert sum(b["logical_bytes"] for b in size["branches"]) == size["logical_bytes"], size
    before = project.api("GET", f"{base}/digest?lsn={lsn}")
    assert before["pages"] > 0 and before["hash"] == project.api("GET", f"{base}/digest?lsn={lsn}")["hash"]
    assert before["hash"] == project.api("GET", f"/branches/{main.id}/digest?lsn={lsn}")["hash"], "a branch is its parent"

    work.sql("UPDATE t SET n = n + 1")
    rel = work.value("SELECT oid FROM pg_class WHERE relname = 't'")
    diff = project.api("GET", f"{base}/diff?other_lsn={lsn}")
    assert int(rel) in [r["rel"] for r in diff["relations"]], diff
    assert diff == project.api("GET", f"{base}/diff?other={main.id}&other_lsn={lsn}")
    refused(404, "BRANCH_NOT_FOUND", project.api, "GET", f"{base}/diff?other=br-no-such-1")
    refused(400, "BAD_REQUEST", project.api, "GET", f"/branches/{main.id}/diff") # it has no parent
    refused(400, "BAD_REQUEST", project.api, "GET", f"{base}/digest?lsn=0%2F1%26rel=1")
    refused(400, "STORAGE_REFUSED", project.api, "GET", f"/branches/{main.id}/time_of_lsn?lsn=0/8")
    assert project.api("GET", f"/branches/{main.id}/time_of_lsn?lsn={lsn}")["time"]

    lease = project.api("PUT", f"/branches/{main.id}/leases/before-the-update", {"lsn": lsn, "seconds": 3600})
    assert lease["lsn"] == lsn and lease["expires_at"], lease
    assert project.api("GET", f"/branches/{main.id}/leases")["leases"] == [lease]
    kept = project.api("GET", f"/branches/{main.id}/why_kept?lsn={lsn}")
    assert work.id in [k.get("branch_id") for k in kept["kept_by"]], kept
    assert "before-the-update" in [k.get("name") for k in kept["kept_by"]], kept
    for wrong in ({"lsn": lsn}, {"lsn": lsn, "seconds": 0}, {"lsn": lsn, "seconds": 1 << 40}, {"lsn": "x", "seconds": 1}):
        refused(400, "BAD_REQUEST", project.api, "PUT", f"/branches/{main.id}/leases/x", wrong)
    refused(400, "NAME_INVALID", project.api, "PUT", f"/branches/{main.id}/leases/a%2Fb", {"lsn": lsn, "seconds": 60})
    project.api("DELETE", f"/branches/{main.id}/leases/before-the-update")
    assert project.api("GET", f"/branches/{main.id}/leases")["leases"] == []

    def cli(*args):
        return json.loads(cluster.cli(*args, "--project", project.id, "-o", "json").stdout)

    assert cli("branches", "digest", "work", "--lsn", lsn) == before
    assert cli("branches", "diff", "work", "--other", "main", "--other-lsn", lsn) == diff
    assert cli("branches", "leases", "main", "--add", "cli", "--lsn", lsn, "--seconds", "60")["name"] == "cli"
    assert [l["name"] for l in cli("branches", "leases", "main")["leases"]] == ["cli"]
    cli("branches", "leases", "main", "--remove", "cli")
    assert cli("branches", "why-kept", "main", "--lsn", lsn)["kept_by"]
    assert json.loads(cluster.cli("projects", "size", project.id, "-o", "json").stdout)["timelines"] == 2

    # Snapshots in the same words.
    made = cli("snapshots", "create", "--branch", "work", "--name", "of the & work")["snapshot"]
    assert made["name"] == "of the & work" and made["state"] == "ready", made
    assert made["id"] in cluster.cli("snapshots", "list", "--project", project.id).stdout
    assert cli("branches", "schedule", "work", "--set", '[{"frequency": "daily"}]')["schedule"] == [{"frequency": "daily"}]
    restored = cli("snapshots", "restore", made["id"], "--name", "again", "--target", "work")["branch"]
    assert restored["name"] == "again" and restored["restore_status"] == "restored", restored
    final = cli("branches", "finalize", "again", "--name", "work-before")["branch"]
    assert final["name"] == "work" and Branch(project, final["id"]).value("SELECT sum(n) FROM t") == "501500", final
    cli("snapshots", "delete", made["id"])
    assert cli("snapshots", "list")["snapshots"] == []
    project.delete()
