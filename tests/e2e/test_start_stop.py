"""Computes come and go: read-only ones at an LSN or a time, and what is left of them."""
import concurrent.futures
import contextlib
import os
import pathlib
import re
import signal
import subprocess

import pq
from cluster import ApiError, http, wait_for
from stock_server import StockServer

_project = {}


def project(cluster):
    if cluster not in _project:
        _project[cluster] = cluster.create_project("start-stop")
    return _project[cluster]


def refused(call):
    try:
        call()
    except ApiError as error:
        return error
    raise AssertionError("it was not refused")


class ReadOnly:
    """A read_only endpoint of a branch."""

    def __init__(self, branch, **wish):
        self.project, self.cluster = branch.project, branch.cluster
        self.answer = self.project.api(
            "POST", "/endpoints", {"endpoint": {"branch_id": branch.id, "type": "read_only", **wish}})
        self.view = self.answer["endpoint"]
        self.id = self.view["id"]

    def connect(self):
        uri = self.project.api("GET", f"/connection_uri?endpoint_id={self.id}&database_name=app&role_name=app")["uri"]
        return wait_for("connect", lambda: pq.connect(uri))

    def suspend(self):
        return self.project.api("POST", f"/endpoints/{self.id}/suspend")

    def timeline(self):
        return http("GET", f"{self.cluster.agent.http_url}/v1/computes/{self.id}/spec")["timeline"]


def timelines(cluster):
    """Everywhere: the pageserver's and each safekeeper's."""
    found = {t["timeline"] for tenant in http("GET", f"{cluster.pageserver.http_url}/v1/status")["tenants"] for t in tenant["timelines"]}
    for keeper in cluster.safekeepers:
        found |= {t["timeline"] for t in http("GET", f"{keeper.http_url}/v1/tenants")["timelines"]}
    return found


def is_gone(read_only, timeline):
    computes = http("GET", f"{read_only.cluster.agent.http_url}/v1/computes")["computes"]
    return read_only.id not in [c["id"] for c in computes] and timeline not in timelines(read_only.cluster)


def test_read_only_compute_shows_the_past_and_leaves_nothing(cluster):
    main = project(cluster).main()
    with main.connect() as db:
        db.query("CREATE TABLE shown AS SELECT i FROM generate_series(1, 100) i")
        lsn = db.value("SELECT pg_current_wal_lsn()")
        moment = db.value("SELECT pg_sleep(0.01); SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', "
                          "'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
        db.query("SELECT pg_sleep(0.01)")
        db.query("DELETE FROM shown WHERE i > 10")
    computes = [ReadOnly(main, lsn=lsn), ReadOnly(main, timestamp=moment, lease_seconds=3600)]
    for compute in computes: # both at once, beside the writer
        with compute.connect() as db:
            assert db.value("SELECT count(*) FROM shown") == "100"
            for statement in ("DELETE FROM shown", "CREATE TABLE other (n int)"):
                try:
                    db.query(statement)
                    raise AssertionError(f"{statement} was let through")
                except pq.Error as error:
                    assert "read-only transaction" in str(error), error
            db.query("SET default_transaction_read_only = off") # who wants to writes to the ephemeral branch
            db.query("DELETE FROM shown")
    assert main.value("SELECT count(*) FROM shown") == "10"
    listed = {e["id"]: e for e in project(cluster).api("GET", f"/branches/{main.id}/endpoints")["endpoints"]}
    for compute in computes:
        assert listed[compute.id]["branch_id"] == main.id and listed[compute.id]["type"] == "read_only", listed
    assert listed[computes[0].id]["lsn"] == lsn and listed[computes[0].id]["expires_at"] is None, listed
    assert listed[computes[1].id]["expires_at"] is not None, listed
    assert [b["id"] for b in project(cluster).branches()] == [main.id], "an ephemeral branch is listed"
    for compute in computes:
        timeline = compute.timeline()
        assert timeline in timelines(cluster)
        project(cluster).wait_operations(compute.suspend())
        wait_for("nothing is left", lambda: is_gone(compute, timeline))
        assert refused(lambda: project(cluster).api("POST", f"/endpoints/{compute.id}/start")).status == 404


def test_read_only_endpoint_says_what_it_needs(cluster):
    main = project(cluster).main()
    error = refused(lambda: ReadOnly(main))
    assert error.status == 501 and "not supported yet" in str(error), error
    error = refused(lambda: project(cluster).api("POST", "/branches", {"endpoints": [{"type": "read_only"}]}))
    assert error.status == 501, error
    error = refused(lambda: ReadOnly(main, lsn="FF/0"))
    assert error.status == 400 and error.body["code"] == "LSN_AHEAD_OF_PARENT", error
    branch = project(cluster).create_branch("shown", main, endpoint=False)
    compute = ReadOnly(branch, lsn=branch.get()["start_lsn"]) # in its parent's history
    assert compute.view["branch_id"] == branch.id
    assert refused(lambda: project(cluster).api("DELETE", f"/branches/{main.id}")).status == 422
    project(cluster).wait_operations(compute.answer)
    project(cluster).wait_operations(project(cluster).api("DELETE", f"/endpoints/{compute.id}"))
    branch.delete()


def test_read_only_compute_goes_though_control_and_agent_die(cluster):
    main = project(cluster).main()
    lsn = main.value("SELECT pg_current_wal_lsn()")
    stopped, leased = ReadOnly(main, lsn=lsn), ReadOnly(main, lsn=lsn)
    project(cluster).wait_operations(leased.answer)
    project(cluster).wait_operations(stopped.answer)
    gone = {stopped: stopped.timeline(), leased: leased.timeline()}
    stopped.suspend() # answered, so it is durable; no step of it needs to have been taken
    project(cluster).api("PATCH", f"/endpoints/{leased.id}", {"endpoint": {"lease_seconds": 1}})
    os.kill(cluster.control.pid, signal.SIGKILL)
    os.kill(cluster.agent.pid, signal.SIGKILL)
    for process in (cluster.agent, cluster.control): # control is ready when its nodes answer
        wait_for(f"{process.name} is dead", lambda: not process.alive())
        process.start()
    for compute, timeline in gone.items():
        wait_for("nothing is left", lambda: is_gone(compute, timeline))
    assert main.value("SELECT 1") == "1" # that compute came back


def log_of(branch):
    return (pathlib.Path(re.search("host=([^&]+)", branch.compute()["superuser_uri"]).group(1)).parent / "log").read_text()


def superuser(branch, database="app"):
    uri = wait_for("it runs", lambda: (lambda c: c["superuser_uri"] if c["state"] == "running" else None)(branch.compute()))
    return pq.connect(uri.replace("@/postgres?", f"@/{database}?"))


def slots(server):
    return server.query("SELECT slot_name, active_pid FROM pg_replication_slots ORDER BY 1")


def test_branch_of_a_subscriber_leaves_the_publisher_alone(cluster):
    main = project(cluster).main()
    with StockServer(cluster, "wal_level=logical", "log_replication_commands=on") as publisher:
        publisher.query("CREATE TABLE arrived (n int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE arrived;"
                        "CREATE TABLE stuck (n int PRIMARY KEY); CREATE PUBLICATION q FOR TABLE stuck;"
                        "INSERT INTO stuck VALUES (1); INSERT INTO arrived VALUES (1)")
        with superuser(main) as db:
            db.query("CREATE TABLE arrived (n int PRIMARY KEY); CREATE TABLE stuck (n int PRIMARY KEY);"
                     "INSERT INTO stuck VALUES (1); GRANT SELECT ON arrived TO app")
            for name in ("p", "q"): # q never ends its first copy, and has a slot for that on the publisher
                db.query(f"CREATE SUBSCRIPTION sub_{name} CONNECTION '{publisher.uri}' PUBLICATION {name}")
            try:
                db.query("SELECT pg_create_physical_replication_slot('mine', true)")
                raise AssertionError("a physical slot was made")
            except pq.Error as error:
                assert error.sqlstate == "0A000" and "physical replication slots" in str(error), error
            wait_for("the copy ends", lambda: db.query("SELECT 1 FROM pg_subscription_rel WHERE srsubstate = 'r'"))
            db.query("INSERT INTO stuck VALUES (2)") # workers commit asynchronously: now it is in the quorum
            wait_for("the other fails", lambda: len(slots(publisher)) == 3)
            before = [s for s in slots(publisher) if s[0] == "sub_p"]
            assert before[0][1] is not None, before
            branch = project(cluster).create_branch("of-a-subscriber", main)
            with superuser(branch) as other:
                assert other.query("SELECT subname, subenabled, subslotname FROM pg_subscription ORDER BY 1") == [
                    ("sub_p", "f", None), ("sub_q", "f", None)]
                states = other.query("SELECT srsubid, srsubstate FROM pg_subscription_rel")
                assert [s[1] for s in states] == ["r"], f"a first copy is left: {states}"
                assert other.value("SELECT count(*) FROM pg_replication_slots") == "0"
                other.query("DROP SUBSCRIPTION sub_q")
                other.query("DROP SUBSCRIPTION sub_p")
                # Of its own it may have some, also after a restart.
                other.query(f"CREATE SUBSCRIPTION own CONNECTION '{publisher.uri}' PUBLICATION p WITH (copy_data = false)")
            branch.suspend()
            branch.start()
            with superuser(branch) as other:
                assert other.value("SELECT subenabled FROM pg_subscription") == "t"
                publisher.query("INSERT INTO arrived VALUES (2)")
                wait_for("it arrives at both", lambda: [d.value("SELECT max(n) FROM arrived") for d in (db, other)] == ["2", "2"])
            assert [s for s in slots(publisher) if s[0] == "sub_p"] == before, "main's own stream was cut"
            assert len(slots(publisher)) == 4, slots(publisher)
            asked = publisher.log.read_text().count('replication command: START_REPLICATION SLOT "sub_p"')
            assert asked == 1, f"sub_p was asked for {asked} times"
            for name in ("sub_p", "sub_q"):
                db.query(f"DROP SUBSCRIPTION {name}")
            db.query("DROP TABLE arrived, stuck")
        branch.delete()


def test_nobody_comes_in_over_tcp_before_a_branch_is_cut_off(cluster):
    main = project(cluster).main()
    with superuser(main, "postgres") as db:
        db.query("SET client_min_messages = error; CREATE SUBSCRIPTION held CONNECTION 'host=nowhere' PUBLICATION p WITH (connect = false)")
        # The branch inherits it, and waits for it where it disables the subscription.
        db.query("BEGIN; UPDATE pg_subscription SET subenabled = subenabled; PREPARE TRANSACTION 'holds'")
        branch = project(cluster).create_branch("held", main, wait=False)
        inside = wait_for("its socket answers", lambda: pq.connect(branch.compute()["superuser_uri"]))
        db.query("COMMIT PREPARED 'holds'")
    wait_for("the agent waits", lambda: inside.query(
        "SELECT 1 FROM pg_stat_activity WHERE application_name = 'compute-agent' AND wait_event_type = 'Lock'"))
    state = branch.compute()
    assert state["state"] != "running", state
    try:
        pq.connect(re.sub(r":\d+/", f":{state['port']}/", main.uri()))
        raise AssertionError("somebody came in")
    except pq.Error as error:
        assert "the branch is being prepared" in str(error), error
    inside.query("ROLLBACK PREPARED 'holds'")
    assert branch.value("SELECT 1") == "1"
    assert inside.query("SELECT subenabled, subslotname FROM pg_subscription") == [("f", None)]
    inside.close()
    branch.delete()
    with superuser(main, "postgres") as db:
        db.query("ALTER SUBSCRIPTION held SET (slot_name = NONE)")
        db.query("DROP SUBSCRIPTION held")


def kill_postgres(branch):
    """Its agent starts it again, from the safekeepers and the pageserver alone."""
    killed = branch.compute()["pids"]["postgres"]
    os.kill(killed, signal.SIGKILL)

    def is_back():
        compute = branch.compute()
        return compute["state"] == "running" and compute["pids"].get("postgres", killed) != killed
    wait_for("it is back", is_back)


def inserted(db):
    return int(db.value("SELECT coalesce(sum(n_tup_ins), 0) FROM pg_stat_user_tables WHERE relname = 'counted'"))


def test_statistics_survive_a_clean_stop_only(cluster):
    """Those of the server, of pg_stat_statements, and the list of autoprewarm."""
    main = project(cluster).create_branch("counted", project(cluster).main(), endpoint=False).add_endpoint(
        shared_preload_libraries="pg_stat_statements,pg_prewarm")
    seen = "SELECT sum(calls) FROM pg_stat_statements WHERE query LIKE 'INSERT INTO counted SELECT%'"
    with superuser(main) as db:
        db.query("CREATE EXTENSION pg_stat_statements; CREATE EXTENSION pg_prewarm")
        assert int(db.value("SELECT autoprewarm_dump_now()")) > 0
    with main.connect() as db:
        db.query("CREATE TABLE counted (n int)")
        db.query("INSERT INTO counted SELECT generate_series(1, 1000)")
        db.query("ANALYZE counted")
        wait_for("they are counted", lambda: inserted(db) == 1000)
    main.suspend()
    main.start()
    with main.connect() as db:
        assert inserted(db) == 1000
        assert db.value(seen) == "1"
        ours = db.query("SELECT query FROM pg_stat_statements WHERE query ~ 'pg_authid|compute-agent'")
        assert ours == [], f"what the agent asks is shown to users: {ours}"
        wait_for("autoprewarm goes on", lambda: "autoprewarm successfully prewarmed" in log_of(main))
        assert db.value("SELECT last_analyze IS NOT NULL FROM pg_stat_user_tables WHERE relname = 'counted'") == "t"
        db.query("INSERT INTO counted VALUES (0)")
    kill_postgres(main)
    with main.connect() as db:
        assert inserted(db) == 0 # nothing that may not fit
        assert db.value(seen) is None
        assert db.value("SELECT count(*) FROM counted") == "1001"
        db.query("DROP TABLE counted")
    main.delete()


# 45,000 subtransactions in one: their ids cross a page of pg_xact, and every third is rolled back.
SUBTRANSACTIONS = """
    DO $$ BEGIN
        FOR i IN 1..45000 LOOP
            BEGIN
                INSERT INTO sub VALUES (i);
                IF i % 3 = 0 THEN RAISE EXCEPTION 'back'; END IF;
            EXCEPTION WHEN raise_exception THEN NULL;
            END;
        END LOOP;
    END $$"""


def test_database_with_a_prepared_transaction_stays_open_and_is_renamed_afterwards(cluster):
    """Only a session in the database can end the transaction, which holds off the new name."""
    own = cluster.create_project("renamed")
    main = own.main()
    uri = main.uri()
    with main.connect() as db:
        db.query("CREATE TABLE kept (n int)")
        db.query("BEGIN; INSERT INTO kept VALUES (1); PREPARE TRANSACTION 'half'")
    answer = own.api("PATCH", f"/branches/{main.id}/databases/app", {"database": {"name": "later"}})
    log = next(pathlib.Path(cluster.folder).glob("**/compute-agent.log"))
    wait_for("it was tried", lambda: "it has prepared transactions" in log.read_text(errors="replace"))
    with pq.connect(uri) as db:
        db.query("COMMIT PREPARED 'half'")
    own.wait_operations(answer)
    with pq.connect(re.sub("/app([?]|$)", r"/later\1", uri)) as db:
        assert db.value("SELECT count(*) FROM kept") == "1"


def test_killed_compute_has_all_kinds_of_transactions_back(cluster):
    main = project(cluster).main()
    with main.connect() as db, main.connect() as other:
        db.query("CREATE TABLE sub (n int); CREATE TABLE kept (n int PRIMARY KEY, v int);"
                 "CREATE TABLE prepared (n int);"
                 "INSERT INTO kept SELECT i, 0 FROM generate_series(1, 500) i")
        db.query(SUBTRANSACTIONS)
        for name in ("commits", "rolls-back"):
            db.query(f"BEGIN; INSERT INTO prepared VALUES ({len(name)}); PREPARE TRANSACTION '{name}'")
        # A multixact a row: two lockers; a locker that is open when it is killed, and an update that was committed.
        db.query("BEGIN; SELECT count(*) FROM (SELECT 1 FROM kept FOR KEY SHARE) locked")
        other.query("UPDATE kept SET v = n WHERE n <= 250")
        other.query("BEGIN; SELECT count(*) FROM (SELECT 1 FROM kept WHERE n > 250 FOR SHARE) locked")
        other.query("SAVEPOINT s; INSERT INTO sub SELECT generate_series(100000, 101000)")
        os.kill(other.pid, signal.SIGSTOP) # it does not see that its server ends, and is in nobody's way
        try:
            kill_postgres(main)
            assert main.value("SELECT count(*) FROM prepared") == "0"
        finally:
            os.kill(other.pid, signal.SIGCONT)
        wait_for("what was left of the old server ends", lambda: not pathlib.Path(f"/proc/{other.pid}").exists())
    for round in range(2): # and once more, from what it has written since
        with main.connect() as db:
            assert db.query("SELECT count(*), count(*) FILTER (WHERE n % 3 = 0), max(n) FROM sub") == [("30000", "0", "44999")]
            assert db.query("SELECT count(*) FILTER (WHERE v = n), count(*) FILTER (WHERE v = 0) FROM kept") == [("250", "250")]
            if round == 0:
                assert db.query("SELECT gid FROM pg_prepared_xacts ORDER BY 1") == [("commits",), ("rolls-back",)]
                db.query("COMMIT PREPARED 'commits'")
                db.query("ROLLBACK PREPARED 'rolls-back'")
                db.query("BEGIN; SELECT count(*) FROM (SELECT 1 FROM kept FOR UPDATE NOWAIT) free; COMMIT")
                kill_postgres(main)
            else:
                assert db.query("SELECT n FROM prepared") == [("7",)]
                assert db.query("SELECT gid FROM pg_prepared_xacts") == []
                db.query("DROP TABLE sub, kept, prepared")


@contextlib.contextmanager
def pageserver_asleep(cluster):
    """It takes what is sent and answers nothing."""
    os.kill(cluster.pageserver.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(cluster.pageserver.pid, signal.SIGCONT)


def test_transactions_end_though_the_pageserver_is_away(cluster):
    """Once a commit or a rollback is written nothing may fail, not for the relations either that nobody has looked at since
    the start: a prepared transaction would keep its locks for ever, and an ordinary one take the server along."""
    branch = project(cluster).create_branch("ends", project(cluster).main())
    with superuser(branch, "postgres") as db:
        for table in ("dropped", "prepared_dropped", "kept", "cut"):
            db.query(f"CREATE TABLE {table} (n int PRIMARY KEY, t text);"
                     f"INSERT INTO {table} SELECT i, repeat('t', 3000) FROM generate_series(1, 50) i")
        db.query("BEGIN; DROP TABLE prepared_dropped; SAVEPOINT s; CREATE TABLE made AS SELECT * FROM kept;"
                 "PREPARE TRANSACTION 'commits'")
        db.query("BEGIN; SELECT 1 FROM kept FOR UPDATE; CREATE TABLE unmade AS SELECT * FROM kept; TRUNCATE cut;"
                 "PREPARE TRANSACTION 'rolls back'")
    kill_postgres(branch)
    with superuser(branch, "postgres") as db, superuser(branch, "postgres") as other, superuser(branch, "postgres") as third:
        for session in (db, other, third):
            session.query("SET anabranch.request_timeout_ms = 2000")
        db.query("BEGIN; DROP TABLE dropped")
        third.query("BEGIN; CREATE TABLE regretted AS SELECT 1; SAVEPOINT s; DROP TABLE regretted")
        with pageserver_asleep(cluster):
            other.query("COMMIT PREPARED 'commits'")
            other.query("ROLLBACK PREPARED 'rolls back'")
            db.query("COMMIT")
            third.query("ROLLBACK")
        assert db.query("SELECT virtualtransaction FROM pg_locks WHERE virtualtransaction LIKE '-1/%'") == []
    for end in (lambda: kill_postgres(branch), branch.delete):
        with superuser(branch, "postgres") as db:
            assert db.query("SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
                            " ORDER BY 1") == [("cut",), ("kept",), ("made",)]
            for table in ("cut", "kept", "made"):
                assert db.query(f"SELECT count(DISTINCT n), min(length(t)) FROM {table}") == [("50", "3000")]
            db.query("BEGIN; LOCK cut, kept, made IN ACCESS EXCLUSIVE MODE NOWAIT; COMMIT")
        end()


def test_login_trigger_that_lets_nobody_in_keeps_no_compute_from_starting(cluster):
    """As on any server: a superuser comes in without event triggers, and mends it."""
    branch = project(cluster).create_branch("locked-out", project(cluster).main())
    with superuser(branch, "postgres") as db, superuser(branch, "app") as other:
        for session in (db, other):
            session.query("CREATE FUNCTION no() RETURNS event_trigger LANGUAGE plpgsql AS"
                          " $$ BEGIN RAISE EXCEPTION 'nobody comes in'; END $$; CREATE EVENT TRIGGER no ON login EXECUTE FUNCTION no();"
                          "ALTER EVENT TRIGGER no ENABLE ALWAYS")
        killed = branch.compute()["pids"]["postgres"]
        os.kill(killed, signal.SIGKILL)
    wait_for("it is back", lambda: branch.compute()["state"] == "running" and branch.compute()["pids"].get("postgres") != killed)
    child = project(cluster).create_branch("locked-out-too", branch) # whose subscriptions are looked at in each database
    answer = project(cluster).api("GET", f"/branches/{branch.id}/schema?db_name=app")
    assert "EVENT TRIGGER no" in answer["sql"], answer["sql"]
    uri = child.compute()["superuser_uri"].replace("@/postgres?", "@/app?")
    try:
        pq.connect(uri)
        raise AssertionError("somebody came in")
    except pq.Error as error:
        assert "nobody comes in" in str(error), error
    with pq.connect(f"{uri}&options=-c%20event_triggers%3Doff") as db:
        db.query("DROP EVENT TRIGGER no")
    assert child.value("SELECT 1") == "1"
    child.delete()
    branch.delete()


def test_agent_answers_when_a_compute_has_changed(cluster):
    """Control need not look again and again: neither while it starts or stops, nor for who would wait for ever."""
    main = project(cluster).main()
    main.connect().close()
    url = f"{cluster.agent.http_url}/v1/computes/{main.endpoint()['id']}"
    assert http("GET", f"{url}?while=stopped&wait_ms=10000")["state"] == "running" # it is in another one
    assert http("GET", f"{url}?while=running&wait_ms=1")["state"] == "running" # so long and no longer
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        change = pool.submit(lambda: http("GET", f"{url}?while=running&wait_ms=10000")["state"])
        main.suspend()
        assert change.result(5) == "stopping"
    main.start()


def metrics_of(branch):
    text = http("GET", f"{branch.cluster.agent.http_url}/v1/computes/{branch.endpoint()['id']}/metrics", raw=True).decode()
    lines = text.splitlines()
    types = {line.split()[2]: line.split()[3] for line in lines if line.startswith("# TYPE ")}
    values = {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if not line.startswith("#")}
    assert {name.split("{")[0] for name in values} == set(types), "a metric without a type"
    assert len([line for line in lines if line.startswith("# TYPE ")]) == len(types), "a metric lies in two places"
    return values


def test_refused_setting_ends_the_start_and_a_corrected_one_runs(cluster):
    """Of what the agent refuses, of what Postgres refuses by name, and of what it cannot do."""
    branch = project(cluster).create_branch("settings", project(cluster).main(), endpoint=False)
    endpoint = branch.project.api("POST", "/endpoints", {"endpoint": {
        "branch_id": branch.id, "type": "read_write", "settings": {"pg_settings": {"work_mem": "12 parsecs"}}}})

    def end_of(answer):
        ident = next(o["id"] for o in answer["operations"] if o["action"] == "start_compute")
        return wait_for("it ends", lambda: (lambda o: o if o["status"] != "running" else None)(
            branch.project.api("GET", f"/operations/{ident}")["operation"]))

    def start_with(**settings):
        branch.project.api("PATCH", f"/endpoints/{endpoint['endpoint']['id']}",
                           {"endpoint": {"settings": {"pg_settings": settings}}})
        return end_of(branch.project.api("POST", f"/endpoints/{endpoint['endpoint']['id']}/start"))

    refused = [end_of(endpoint), start_with(fsync="off"), start_with(max_connections="2"),
               start_with(archive_command="cp %p /tmp"), start_with(shared_preload_libraries="no_such_library"),
               start_with(session_preload_libraries="no_such_library"), start_with(local_preload_libraries="no such library")]
    for operation, name in zip(refused, ["work_mem", "fsync", "max_connections", "archive_command", "shared_preload_libraries",
                                         "session_preload_libraries", "local_preload_libraries"]):
        assert operation["status"] == "failed" and name in operation["error"], operation
        assert operation["failures_count"] <= 1, operation
    assert "such library" in branch.endpoint()["error"] and branch.endpoint()["current_state"] != "active"
    assert start_with(work_mem="12MB", session_preload_libraries="auto_explain, pg_stat_statements")["status"] == "finished"
    assert branch.value("SHOW work_mem") == "12MB"
    assert branch.value("SHOW session_preload_libraries") == "auto_explain, pg_stat_statements"
    branch.suspend()


def test_branch_of_an_archiving_source_archives_nothing(cluster):
    """Whatever the source did, an archive of it gets nothing from a branch: there is no archiver, at no moment."""
    archive = cluster.folder / "archive"
    archive.mkdir()
    archive.chmod(0o777)
    source = {"shared_preload_libraries": "basic_archive", "basic_archive.archive_directory": str(archive)}
    main = project(cluster).main()
    parent = project(cluster).create_branch("archiving", main, endpoint=False).add_endpoint(**source)
    branch = project(cluster).create_branch("of-archiving", parent, endpoint=False).add_endpoint(**source)
    with superuser(branch) as db:
        for statement in ("ALTER SYSTEM SET archive_mode = on", "ALTER SYSTEM SET archive_command = 'cp %p /tmp/%f'",
                          "ALTER SYSTEM SET work_mem = '1MB'", "ALTER SYSTEM RESET ALL"):
            try:
                db.query(statement)
                raise AssertionError(f"{statement} was let through")
            except pq.Error as error:
                assert "ALTER SYSTEM is not allowed in this environment" in str(error), error
        for _ in range(2):
            db.query("CREATE TABLE IF NOT EXISTS filled (n int); INSERT INTO filled VALUES (1)")
            db.query("SELECT pg_switch_wal()")
            db.query("CHECKPOINT")
        assert db.value("SHOW archive_mode") == "off" and db.value("SHOW shared_preload_libraries") == "anabranch,basic_archive"
        assert db.query("SELECT archived_count, failed_count FROM pg_stat_archiver") == [("0", "0")]
        assert db.value("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'archiver'") == "0"
        assert db.query("SELECT * FROM pg_ls_archive_statusdir()") == []
    branch.suspend()
    assert list(archive.iterdir()) == []
    branch.delete()
    parent.delete()


def test_compute_that_eats_its_memory_is_ended_alone(cluster):
    """Where the kernel lets the agent limit a compute as a whole; elsewhere the statement fails, and nothing else."""
    main, branch = project(cluster).main(), project(cluster).create_branch("small", project(cluster).main(), endpoint=False)
    error = refused(lambda: branch.project.api("POST", "/endpoints", {"endpoint": {
        "branch_id": branch.id, "type": "read_write", "autoscaling_limit_max_cu": 0.3}}))
    assert error.status == 400 and "autoscaling_limit_max_cu" in str(error), error
    branch.project.wait_operations(branch.project.api("POST", "/endpoints", {"endpoint": {
        "branch_id": branch.id, "type": "read_write", "autoscaling_limit_min_cu": 0.25, "autoscaling_limit_max_cu": 0.25}}))
    assert branch.endpoint()["autoscaling_limit_max_cu"] == 0.25
    limits = branch.compute()["limits"]
    print(f"   limits: {limits}")
    assert (limits["memory_mb"], limits["cpu_milli"]) == (1024, 250), limits
    with main.connect() as other, branch.connect() as db:
        db.query("CREATE TABLE kept AS SELECT 1 AS i")
        assert db.value("SHOW shared_buffers") == "256MB"
        before = branch.compute()["pids"]["postgres"]
        try:
            db.query("SELECT array_length(array_agg(repeat('x', 1000000) || i), 1) FROM generate_series(1, 1200) i")
            raise AssertionError("1.2 GB were taken of 1 GB")
        except (pq.Error, OSError) as eaten:
            print(f"   {eaten}")
        if limits["memory_by"] == "cgroup":
            wait_for("it runs again", lambda: (lambda c: c["state"] == "running" and c["pids"]["postgres"] != before)(
                branch.compute()))
            assert "out of memory: its size gives it 1024 MB" in branch.compute()["last_failure"], branch.compute()
        else:
            assert limits["memory_by"] == "rlimit of each process" and branch.compute()["pids"]["postgres"] == before
        assert other.value("SELECT 1") == "1"
    assert branch.value("SELECT i FROM kept") == "1"
    name = branch.endpoint()["id"]

    def groups():
        return list(pathlib.Path("/sys/fs/cgroup").glob(f"**/anabranch/{name}"))
    assert len(groups()) > 0 or limits["memory_by"] != "cgroup"
    branch.suspend()
    wait_for("its cgroups are gone", lambda: not groups())


def test_metrics_of_a_compute(cluster):
    main = project(cluster).main()
    with main.connect() as db:
        before = metrics_of(main)
        db.query("CREATE TABLE measured AS SELECT generate_series(1, 5000) i")
        wait_for("rows are counted", lambda: metrics_of(main)['postgres_rows_inserted_total{datname="app"}'] >=
                 before['postgres_rows_inserted_total{datname="app"}'] + 5000)
        after = metrics_of(main)
        assert after["postgres_wal_bytes_total"] > before["postgres_wal_bytes_total"]
        assert after['postgres_client_sessions{state="idle"}'] >= 1
        assert after["postgres_sessions_max"] == float(db.value("SHOW max_connections"))
        db.query("DROP TABLE measured")
    main.suspend()
    assert refused(lambda: metrics_of(main)).status == 503
    main.start()


def test_free_space_is_known_after_a_clean_stop(cluster):
    main = project(cluster).main()
    with main.connect() as db:
        db.query("CREATE TABLE spaced AS SELECT i, repeat('x', 100) AS t FROM generate_series(1, 20000) i")
        db.query("DELETE FROM spaced WHERE i % 2 = 0")
        db.query("VACUUM spaced")
        size = int(db.value("SELECT pg_relation_size('spaced')"))
    main.suspend()
    main.start()
    with main.connect() as db:
        db.query("INSERT INTO spaced SELECT i, repeat('y', 100) FROM generate_series(1, 9000) i")
        assert int(db.value("SELECT pg_relation_size('spaced')")) == size, "it grew although a half of it was free"
        db.query("DROP TABLE spaced")


def test_compute_speaks_tls_on_its_own_port(fresh_cluster):
    """Last and on a cluster of its own: all of the agent's computes do."""
    agent, main = fresh_cluster.agent, fresh_cluster.create_project("tls").main()
    with main.connect() as db:
        assert db.value("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") == "f"
    key, cert = agent.folder / "tls.key", agent.folder / "tls.crt"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-keyout", str(key), "-out", str(cert), "-subj", "/CN=compute", "-days", "2",
                    "-addext", "subjectAltName=IP:127.0.0.1"], check=True, stderr=subprocess.DEVNULL)
    row = agent.row
    agent.kill(signal.SIGTERM)
    with open(fresh_cluster.folder / "tls-agent.log", "w") as log:
        with_tls = subprocess.Popen(
            [row["binary"], "--config", row["conf"], f"--tls_cert_file={cert}", f"--tls_key_file={key}", "--tls_required=true"],
            stderr=log)
    try:
        with wait_for("connect", lambda: pq.connect(f"{main.uri()}?sslmode=verify-full&sslrootcert={cert}")) as db:
            assert db.value("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") == "t"
        try:
            pq.connect(main.uri() + "?sslmode=disable")
            raise AssertionError("it was let in without TLS")
        except pq.Error as error:
            assert "no encryption" in str(error), error
    finally:
        with_tls.terminate()
        with_tls.wait()
