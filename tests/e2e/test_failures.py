"""What dies comes back with everything that was acknowledged."""
import argparse
import importlib.util
import os
import shutil
import signal
import tempfile
import threading

import pq
from cluster import ROOT, http, wait_for
from ledger import Ledger

_spec = importlib.util.spec_from_file_location("chaos_run", ROOT / "tests/chaos/run.py")
chaos_run = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(chaos_run)


def test_kill_each_process_in_turn_under_load(fresh_cluster):
    """The chaos runner with a fixed plan: every process once, each acknowledged commit found again."""
    plan = [{"t": 2 + 4 * i, "action": "kill", "target": target, "down_s": 0.5}
            for i, target in enumerate(chaos_run.TARGETS)]
    with tempfile.TemporaryDirectory() as folder:
        args = argparse.Namespace(seed=0, writers=4, output=folder)
        chaos = chaos_run.Run(fresh_cluster, args, plan)
        chaos.execute()
        code, word = chaos.verdict()
    assert code == 0 and not chaos.blunt, (word, chaos.blunt, chaos.violations)


def test_wiped_pageserver_is_rebuilt_from_safekeepers_and_bootstrap_image(fresh_cluster):
    project = fresh_cluster.create_project("wiped")
    main = project.main()
    with main.connect() as db:
        db.query("CREATE TABLE kept AS SELECT i, md5(i::text) AS t FROM generate_series(1, 20000) i")
        db.query("CREATE INDEX ON kept (t)")
        db.query("DELETE FROM kept WHERE i % 3 = 0")
    branch = project.create_branch("child", main)
    with branch.connect() as db:
        db.query("UPDATE kept SET t = 'branch' WHERE i < 100")
    queries = ["SELECT md5(string_agg(i || t, ',' ORDER BY i)) FROM kept", "SELECT count(*) FROM kept WHERE t < 'b'"]
    before = [[b.value(q) for q in queries] for b in (main, branch)]
    pageserver = fresh_cluster.pageserver
    pageserver.kill()
    for entry in pageserver.folder.iterdir():
        if entry.name == "tenants":
            shutil.rmtree(entry)
    assert not (pageserver.folder / "tenants").exists()
    # And what it has uploaded: of the object store, only the bootstrap image is left.
    shutil.rmtree(fresh_cluster.data / "objects/tenants", ignore_errors=True)
    pageserver.start()
    for b in (main, branch): # a new compute reads everything from the pageserver
        b.suspend()
        b.start()
    assert [[b.value(q) for q in queries] for b in (main, branch)] == before


def test_two_computes_on_one_branch_the_older_is_fenced(fresh_cluster):
    project = fresh_cluster.create_project("fenced")
    main = project.main()
    old = main.connect()
    old.query("CREATE TABLE fenced (n int)")
    old.query("INSERT INTO fenced VALUES (1)")
    endpoint = main.endpoint()["id"]
    agent = fresh_cluster.agent.http_url
    spec = http("GET", f"{agent}/v1/computes/{endpoint}/spec")
    spec["port"] = 0
    http("PUT", f"{agent}/v1/computes/second", spec)
    try:
        def running():
            state = http("GET", f"{agent}/v1/computes/second")
            assert state["state"] not in ("failed", "fenced"), state
            return state["state"] == "running" and state
        state = wait_for("the second compute runs", running)
        wait_for("the older compute is fenced", lambda: main.compute()["state"] == "fenced")
        try:
            old.query("INSERT INTO fenced VALUES (2)")
            raise AssertionError("a fenced compute acknowledged a commit")
        except pq.Error:
            pass
        uri = main.uri()
        port = uri.rsplit(":", 1)[1].split("/")[0]
        with wait_for("connect", lambda: pq.connect(uri.replace(f":{port}/", f":{state['port']}/"))) as db:
            db.query("INSERT INTO fenced VALUES (3)")
            assert db.query("SELECT n FROM fenced ORDER BY n") == [("1",), ("3",)]
        wait_for("control gives way", lambda: "fenced" in (main.endpoint().get("error") or ""))
        main.start() # and takes the branch back when it is asked to
        assert main.sql("SELECT n FROM fenced ORDER BY n") == [("1",), ("3",)]
    finally:
        http("DELETE", f"{agent}/v1/computes/second")


def test_restart_of_everything(fresh_cluster):
    project = fresh_cluster.create_project("restart")
    main = project.main()
    with main.connect() as db:
        db.query("CREATE TABLE kept AS SELECT generate_series(1, 5000) AS n")
    branch = project.create_branch("b", main)
    branch.sql("INSERT INTO kept VALUES (99999)")
    fresh_cluster.cli("local", "down")
    fresh_cluster.up()
    for b in (main, branch):
        b.start()
    assert main.value("SELECT count(*) FROM kept") == "5000"
    assert branch.value("SELECT count(*), max(n) FROM kept") == "5001"
    main.sql("INSERT INTO kept VALUES (1)")


def test_everything_killed_at_once_keeps_acknowledged_commits(fresh_cluster):
    project = fresh_cluster.create_project("power")
    main = project.main()
    uri = main.uri()
    ledger = Ledger(lambda: uri, 3, 5)
    ledger.create(main.connect)
    ledger.start()
    wait_for("some commits", lambda: ledger.count("ok") > 100)
    pids = [row["pid"] for row in fresh_cluster.rows()] + list(main.compute()["pids"].values())
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    fresh_cluster.up()
    wait_for("commits go on", lambda n=ledger.count("ok"): ledger.count("ok") > n + 20, 120)
    assert ledger.stop() == 0
    with main.connect() as db:
        assert ledger.judge(db) == []


def wal_position(db):
    return int(db.value("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))


def limit_lag(branch, megabytes):
    postmaster = branch.compute()["pids"]["postgres"]
    with open(f"/proc/{postmaster}/cwd/postgresql.conf", "a") as conf:
        conf.write(f"anabranch.ingest_lag_limit_mb = {megabytes}\n")
    os.kill(postmaster, signal.SIGHUP)
    wait_for("the setting", lambda: branch.value("SHOW anabranch.ingest_lag_limit_mb") == f"{megabytes}MB")


def test_writers_wait_for_ingest_that_is_too_far_behind(fresh_cluster):
    """The pageserver sleeps: writes go on for as long as there are tokens, and again when ingest brings some."""
    main = fresh_cluster.create_project("lag").main()
    limit, statement_bytes, rows = 16 * 2**20, 2**20, []
    main.sql("CREATE TABLE filled (number int, text text)")
    limit_lag(main, 16)
    watcher, writer = main.connect(), main.connect()

    def write():
        for number in range(48): # a megabyte each, three times the limit
            writer.query(f"INSERT INTO filled SELECT {number}, repeat(md5(i::text), 30) FROM generate_series(1, 1000) i")
            rows.append(number)

    write_once = "INSERT INTO filled VALUES (-1, 'known to both')"
    for db in (watcher, writer): # catalogs are in the caches, and the newest reply is young
        db.query(write_once)
    begin = wal_position(watcher)
    fresh_cluster.pageserver.kill(signal.SIGSTOP)
    try:
        thread = threading.Thread(target=write, daemon=True)
        thread.start()
        wait_for("the writer is held", lambda: watcher.value(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'AnabranchPageserver' AND query ~ 'INSERT INTO filled'") == "1")
        written = wal_position(watcher) - begin
        assert limit - 2 * statement_bytes < written < limit + 4 * statement_bytes, f"{written} bytes written"
        assert len(rows) < 48
    finally:
        fresh_cluster.pageserver.kill(signal.SIGCONT)
    thread.join(120)
    assert len(rows) == 48
    assert watcher.value("SELECT count(*) FROM filled") == "48002"
    an_update_in_place_waits_too(fresh_cluster, main)


def an_update_in_place_waits_too(cluster, main):
    """It grows no relation: it is held where it reads. The safekeepers sleep, so that reads go on and ingest does not."""
    for statement in ("CREATE TABLE roomy (number int, text text) WITH (fillfactor = 40)",
                      "INSERT INTO roomy SELECT i, repeat('x', 50) FROM generate_series(1, 200000) i", "VACUUM ANALYZE roomy"):
        main.sql(statement)
    main.suspend()
    main.start() # nothing of it is in the buffers
    limit_lag(main, 1)
    watcher, writer = main.connect(), main.connect()
    for db in (watcher, writer):
        db.query("INSERT INTO filled VALUES (-1, 'known to both')")
        db.query("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn, count(*) FROM pg_stat_activity")
    limit = 2**20 + int(watcher.value("SELECT setting FROM pg_settings WHERE name = 'wal_buffers'")) * 8192
    begin, done = wal_position(watcher), []
    keepers = [row["pid"] for row in cluster.rows() if row["name"].startswith("safekeeper")]

    def update():
        writer.query("UPDATE roomy SET number = number + 1")
        done.append(True)

    try:
        for pid in keepers:
            os.kill(pid, signal.SIGSTOP)
        thread = threading.Thread(target=update, daemon=True)
        thread.start()
        wait_for("the update is held", lambda: watcher.value(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'AnabranchThrottle' AND query ~ '^UPDATE roomy'") == "1")
        written = wal_position(watcher) - begin # what lies in the buffers of WAL does not count for the limit
        assert written < limit + 2**20, f"{written} bytes written"
        assert done == []
    finally:
        for pid in keepers:
            os.kill(pid, signal.SIGCONT)
    thread.join(120)
    assert done == [True]
    written = wal_position(watcher) - begin
    assert written > limit + 3 * 2**20, f"the update writes {written} bytes, hardly more than what it was to be held for"
    assert watcher.value("SELECT sum(number) FROM roomy") == str(200000 * 200001 // 2 + 200000)
