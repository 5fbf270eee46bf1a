"""Branches of a live database: content, isolation, timing, deletion."""
import os
import signal
import threading

import pq
from cluster import http, wait_for

_project = {}


def project(cluster):
    if cluster not in _project:
        _project[cluster] = cluster.create_project("branching")
    return _project[cluster]


def pageserver_metric(cluster, name):
    for line in http("GET", f"{cluster.pageserver.http_url}/metrics", raw=True).decode().splitlines():
        if line.startswith(name + " "):
            return float(line.split()[1])
    raise AssertionError(f"no metric {name}")


def sums_of_pgbench(db):
    return {name: int(db.value(f"SELECT coalesce(sum({column}), 0) FROM {table}"))
            for name, table, column in (("accounts", "pgbench_accounts", "abalance"),
                                        ("tellers", "pgbench_tellers", "tbalance"),
                                        ("branches", "pgbench_branches", "bbalance"),
                                        ("history", "pgbench_history", "delta"))}


def test_pgbench_invariants_hold_on_parent_and_branch(cluster):
    main = project(cluster).main()
    main.connect().close()
    main.pgbench("-i", "-q", "-s", "2")
    branches = []
    bench = threading.Thread(target=lambda: main.pgbench("-n", "-c", "4", "-T", "30"))
    bench.start()
    for number in range(3): # branches taken while it writes
        bench.join(7)
        branches.append(project(cluster).create_branch(f"during-{number}", main))
    bench.join()
    for branch in [main] + branches:
        with branch.connect() as db:
            assert len(set(sums_of_pgbench(db).values())) == 1, sums_of_pgbench(db)
            assert int(db.value("SELECT count(*) FROM pgbench_accounts")) == 200000
            assert int(db.value("SELECT count(*) FROM pgbench_history")) > 0
    made, most = (pageserver_metric(cluster, name)
                  for name in ("pageserver_images_made_total", "pageserver_read_records_max"))
    assert made > 0 and most <= 64, f"{made} images made, {most} records applied by one read"
    branches[0].pgbench("-n", "-c", "2", "-T", "3") # -n: without, it empties the history
    with branches[0].connect() as db:
        assert len(set(sums_of_pgbench(db).values())) == 1
    for branch in branches:
        branch.delete()


def test_row_committed_before_the_post_is_in_the_branch(cluster):
    main = project(cluster).main()
    with main.connect() as db:
        db.query("CREATE TABLE before_post (n int)")
        for n in range(5):
            db.query(f"INSERT INTO before_post VALUES ({n})")
            branch = project(cluster).create_branch(f"after-commit-{n}", main)
            assert branch.value("SELECT max(n) FROM before_post") == str(n)
            branch.delete()


def test_branch_at_lsn_has_the_old_data_and_is_isolated(cluster):
    main = project(cluster).main()
    with main.connect() as db:
        db.query("CREATE TABLE old AS SELECT i, 'first' AS v FROM generate_series(1, 1000) i")
        lsn = db.value("SELECT pg_current_wal_lsn()")
        db.query("DELETE FROM old WHERE i > 500")
        db.query("UPDATE old SET v = 'second'")
        branch = project(cluster).create_branch("past", main, parent_lsn=lsn)
        with branch.connect() as past:
            assert past.query("SELECT count(*), min(v), max(v) FROM old") == [("1000", "first", "first")]
            past.query("INSERT INTO old VALUES (5000, 'branch')")
            past.query("CREATE TABLE only_in_branch (n int)")
            db.query("INSERT INTO old VALUES (6000, 'main')")
            assert past.query("SELECT i FROM old WHERE i >= 5000") == [("5000",)]
        assert db.query("SELECT i FROM old WHERE i >= 5000") == [("6000",)]
        assert db.query("SELECT count(*), min(v), max(v) FROM old WHERE i < 5000") == [("500", "second", "second")]
        assert db.value("SELECT to_regclass('only_in_branch') IS NULL") == "t"


def test_branch_at_timestamp(cluster):
    main = project(cluster).main()
    with main.connect() as db:
        db.query("CREATE TABLE timed (n int)")
        db.query("INSERT INTO timed VALUES (1)")
        # Later than that commit, earlier than the next one: the server's own clock says so.
        moment = db.value("SELECT pg_sleep(0.01); SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', "
                          "'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
        db.query("SELECT pg_sleep(0.01)")
        db.query("INSERT INTO timed VALUES (2)")
        branch = project(cluster).create_branch("timed", main, parent_timestamp=moment)
        assert branch.sql("SELECT n FROM timed") == [("1",)]


def test_branch_of_a_branch_of_a_branch(cluster):
    parent = project(cluster).main()
    with parent.connect() as db:
        db.query("CREATE TABLE depth (n int)")
    for n in range(3):
        with parent.connect() as db:
            db.query(f"INSERT INTO depth VALUES ({n})")
        child = project(cluster).create_branch(f"depth-{n}", parent)
        with parent.connect() as db: # after the branch: only the parent sees it
            db.query(f"INSERT INTO depth VALUES ({100 + n})")
        with child.connect() as db:
            assert db.query("SELECT n FROM depth ORDER BY n") == [(str(i),) for i in range(n + 1)]
        parent = child
    with parent.connect() as db:
        db.query("INSERT INTO depth SELECT generate_series(1000, 1999)")
        assert db.value("SELECT count(*) FROM depth") == "1003"


def test_pageserver_killed_right_after_the_post_keeps_the_branch(cluster):
    main = project(cluster).main()
    with main.connect() as db:
        db.query("CREATE TABLE survived (n int)")
        db.query("INSERT INTO survived SELECT generate_series(1, 100)")
    branch = project(cluster).create_branch("killed", main, wait=False)
    os.kill(cluster.pageserver.pid, signal.SIGKILL)
    wait_for("pageserver is dead", lambda: not cluster.pageserver.alive())
    cluster.pageserver.start()
    project(cluster).wait_operations(branch.answer)
    assert branch.value("SELECT count(*) FROM survived") == "100"
    assert main.value("SELECT count(*) FROM survived") == "100"


def test_deleted_branch_gives_its_space_back(cluster):
    main = project(cluster).main()
    branch = project(cluster).create_branch("fat", main)

    def physical_bytes():
        total = 0
        for tenant in http("GET", cluster.pageserver.http_url + "/v1/status")["tenants"]:
            for timeline in tenant["timelines"]:
                path = f"/v1/tenants/{tenant['tenant']}/timelines/{timeline['timeline']}"
                total += http("GET", cluster.pageserver.http_url + path)["physical_bytes"]
        return total
    before = physical_bytes()
    with branch.connect() as db: # random text: it does not compress away
        db.query("CREATE TABLE fat AS SELECT i, md5(i::text) || md5((i * 7)::text) || md5((i * 13)::text) AS t "
                 "FROM generate_series(1, 200000) i")
    branch.suspend() # all of it is ingested by the time that a compute starts again
    branch.start()
    assert branch.value("SELECT count(*) FROM fat") == "200000"
    cluster.pageserver.kill(signal.SIGTERM) # a stop flushes what is in memory
    cluster.pageserver.start()
    grown = wait_for("the branch takes space", lambda: physical_bytes() > before + 5_000_000 and physical_bytes())
    branch.delete()
    wait_for("the space is free again", lambda: physical_bytes() < before + (grown - before) / 4)
    assert branch.id not in [b["id"] for b in project(cluster).branches()]


def test_parent_with_children_is_not_deleted(cluster):
    parent = project(cluster).create_branch("has-child", project(cluster).main(), endpoint=False)
    child = project(cluster).create_branch("child", parent, endpoint=False)
    try:
        parent.delete()
        raise AssertionError("a branch with a child was deleted")
    except Exception as error: # noqa: BLE001
        assert getattr(error, "status", None) in (409, 412, 422), error
        assert "child" in str(error), error
    child.delete()
    parent.delete()


def test_many_kinds_of_objects_survive_a_branch(cluster):
    main = project(cluster).main()
    with main.connect() as db:
        for statement in (
            "CREATE SEQUENCE seq", "SELECT nextval('seq') FROM generate_series(1, 50)",
            "CREATE TABLE toasted (id int PRIMARY KEY, big text)",
            "INSERT INTO toasted SELECT i, (SELECT string_agg(md5((i * 1000 + j)::text), '') "
            "FROM generate_series(1, 200) j) FROM generate_series(1, 50) i",
            "CREATE INDEX ON toasted (md5(big))",
            "CREATE UNLOGGED TABLE unlogged (n int)", "INSERT INTO unlogged SELECT generate_series(1, 10)",
            "CREATE TABLE locked (id int PRIMARY KEY, v int)", "INSERT INTO locked SELECT i, 0 FROM generate_series(1, 100) i",
            "BEGIN", "SELECT * FROM locked FOR UPDATE", "SAVEPOINT a", "UPDATE locked SET v = 1 WHERE id < 50",
            "ROLLBACK TO a", "UPDATE locked SET v = 2 WHERE id >= 50", "COMMIT", "VACUUM locked",
            "CREATE TABLE gone (n int)", "INSERT INTO gone SELECT generate_series(1, 1000)", "TRUNCATE gone",
            "INSERT INTO gone VALUES (42)",
        ):
            db.query(statement)
        digest = "SELECT md5(string_agg(id || big, '' ORDER BY id)) FROM toasted"
        expected = db.value(digest)
    branch = project(cluster).create_branch("objects", main)
    with branch.connect() as db:
        assert db.value(digest) == expected
        assert int(db.value("SELECT nextval('seq')")) > 50
        assert db.value("SELECT count(*) FROM unlogged") == "0" # as after a crash of Postgres
        assert db.query("SELECT v, count(*) FROM locked GROUP BY v ORDER BY v") == [("0", "49"), ("2", "51")]
        assert db.query("SELECT n FROM gone") == [("42",)]
        db.query("REINDEX TABLE toasted")
        db.query("VACUUM FULL toasted")
        assert db.value(digest) == expected
    assert main.value("SELECT count(*) FROM unlogged") == "10"


def test_diff_of_two_branches_names_what_was_written(cluster):
    main = project(cluster).create_branch("diff-parent", project(cluster).main())
    main.sql("CREATE TABLE same AS SELECT i FROM generate_series(1, 10000) i")
    main.sql("CREATE TABLE other AS SELECT i FROM generate_series(1, 10000) i")
    main.sql("VACUUM same, other") # so that reading them writes nothing later
    child = project(cluster).create_branch("diff-child", main)
    child.sql("UPDATE other SET i = -i WHERE i = 5000")
    node = child.value("SELECT pg_relation_filenode('other')")
    unchanged = child.value("SELECT pg_relation_filenode('same')")
    lsn = child.value("SELECT pg_current_wal_flush_lsn()")

    def spec(branch):
        return http("GET", f"{cluster.agent.http_url}/v1/computes/{branch.endpoint()['id']}/spec")
    mine, theirs = spec(main), spec(child)
    url = f"{cluster.pageserver.http_url}/v1/tenants/{mine['tenant']}/timelines"
    diff = http("GET", f"{url}/{mine['timeline']}/diff?other={theirs['timeline']}&other_lsn={lsn}")
    changed = {r["rel"]: r for r in diff["relations"] if r["fork"] == 0}
    assert int(node) in changed and int(unchanged) not in changed, diff
    assert 1 <= changed[int(node)]["pages"] <= 2, diff # the row's old page, and the new version's
    assert diff["pages_compared"] < 1000, "a diff reads what was written, not everything"
    itself = http("GET", f"{url}/{theirs['timeline']}/diff?lsn={lsn}&other_lsn={lsn}")
    assert itself["relations"] == [], itself
