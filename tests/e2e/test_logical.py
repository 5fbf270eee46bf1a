"""Logical replication from and to a compute: slots and origins outlive its server (docs/design/logical-slots.md)."""
import contextlib
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import threading

import pq
from cluster import http, wait_for
from stock_server import StockServer

_branch = {}


def project(cluster):
    return publisher(cluster).project


def publisher(cluster):
    """A branch whose compute decodes; main cannot change its wal_level."""
    if cluster not in _branch:
        made = cluster.create_project("logical")
        _branch[cluster] = made.create_branch("publisher", made.main(), endpoint=False).add_endpoint(
            wal_level="logical", wal_receiver_status_interval="1s")
    return _branch[cluster]


def superuser(branch):
    return pq.connect(superuser_uri(branch))


def superuser_uri(branch):
    uri = wait_for("it runs", lambda: (lambda c: c["superuser_uri"] if c["state"] == "running" else None)(branch.compute()))
    return uri.replace("@/postgres?", "@/app?")


def log_of(branch):
    return pathlib.Path(re.search("host=([^&]+)", superuser_uri(branch)).group(1)).parent / "log"


def kill(branch):
    """Its agent starts it again, in a new data directory, from the safekeepers and the pageserver alone."""
    killed = branch.compute()["pids"]["postgres"]
    os.kill(killed, signal.SIGKILL)

    def is_back():
        compute = branch.compute()
        return compute["state"] == "running" and compute["pids"].get("postgres", killed) != killed
    wait_for("it is back", is_back)


def restart(branch):
    branch.suspend()
    branch.start()


def numbers(server, table):
    return server.query(f"SELECT n FROM {table} ORDER BY n")


def timeline(cluster, branch):
    spec = http("GET", f"{cluster.agent.http_url}/v1/computes/{branch.endpoint()['id']}/spec")
    return http("GET", f"{cluster.pageserver.http_url}/v1/tenants/{spec['tenant']}/timelines/{spec['timeline']}")


class Subscription:
    """On a stock server, of everything in `table` of the compute. The compute's port changes with every start."""

    def __init__(self, server, branch, name, options=""):
        self.server, self.branch, self.name = server, branch, name
        server.query(f"CREATE TABLE {name} (n int PRIMARY KEY)")
        with superuser(branch) as db:
            db.query(f"CREATE TABLE {name} (n int PRIMARY KEY); CREATE PUBLICATION {name} FOR TABLE {name}")
        server.query(f"CREATE SUBSCRIPTION {name} CONNECTION '{superuser_uri(branch)}' PUBLICATION {name} {options}")
        wait_for("the copy ends", lambda: server.query("SELECT 1 FROM pg_subscription_rel WHERE srsubstate = 'r'"))

    def go_on(self):
        """After a start of the compute."""
        self.server.query(f"ALTER SUBSCRIPTION {self.name} CONNECTION '{superuser_uri(self.branch)}';"
                          f"ALTER SUBSCRIPTION {self.name} ENABLE")

    def pause(self):
        self.server.query(f"ALTER SUBSCRIPTION {self.name} DISABLE")
        with superuser(self.branch) as db:
            wait_for("it let go", lambda: db.value(
                f"SELECT active FROM pg_replication_slots WHERE slot_name = '{self.name}'") == "f")

    def has_all(self):
        with superuser(self.branch) as db:
            want = numbers(db, self.name)
        wait_for("all of it arrives", lambda: numbers(self.server, self.name) == want)

    def drop(self):
        with superuser(self.branch) as db:
            self.go_on()
            for what in ("SUBSCRIPTION", "TABLE"):
                self.server.query(f"DROP {what} {self.name}")
            db.query(f"DROP PUBLICATION {self.name}; DROP TABLE {self.name}")


def test_slot_survives_the_end_of_its_server(cluster):
    branch = publisher(cluster)
    with StockServer(cluster, "max_prepared_transactions=4") as server:
        s = Subscription(server, branch, "kept", "WITH (two_phase = true, failover = true)")
        for number, end in enumerate((restart, kill)):
            with superuser(branch) as db:
                db.query("INSERT INTO kept SELECT coalesce(max(n), 0) + i FROM kept, generate_series(1, 10) i GROUP BY i")
                db.query(f"BEGIN; INSERT INTO kept VALUES ({-1 - number}); PREPARE TRANSACTION 'p{number}'")
                wait_for("it is prepared there", lambda: server.query("SELECT 1 FROM pg_prepared_xacts"))
            end(branch)
            s.go_on()
            with superuser(branch) as db:
                db.query(f"COMMIT PREPARED 'p{number}'")
            s.has_all()
            assert server.query("SELECT count(*) FROM pg_prepared_xacts")[0][0] == "0"
        errors = server.query("SELECT apply_error_count, sync_error_count FROM pg_stat_subscription_stats")
        assert errors[0][1] == "0", errors
        other = project(cluster).create_branch("without", branch)
        with superuser(other) as db: # slots are not inherited
            assert db.value("SELECT count(*) FROM pg_replication_slots") == "0"
            db.query("CREATE SUBSCRIPTION own CONNECTION 'host=nowhere' PUBLICATION p WITH (connect = false)")
        kill(other) # its first server: what it made since is no heritage
        with superuser(other) as db:
            assert db.value("SELECT subslotname FROM pg_subscription") == "own"
        other.delete()
        # Dropped slots hold no WAL, and do not come back.
        assert "slots_lsn" in timeline(cluster, branch)
        s.drop()
        wait_for("the pageserver knows", lambda: "slots_lsn" not in timeline(cluster, branch))
        kill(branch)
        with superuser(branch) as db:
            assert db.value("SELECT count(*) FROM pg_replication_slots") == "0"


def test_decoding_goes_on_with_its_snapshot_and_mappings(cluster):
    """restart_lsn lies where a transaction ran, so decoding needs the snapshot of there; and a catalog was rewritten
    after a transaction changed it, so it needs to know where the rows went."""
    branch = publisher(cluster)
    with StockServer(cluster) as server:
        s = Subscription(server, branch, "shot")
        with superuser(branch) as first, superuser(branch) as second, superuser(branch) as db:
            db.query("CREATE TABLE held (n int)")
            first.query("BEGIN; INSERT INTO shot VALUES (1)")
            snapshot = db.value("SELECT pg_log_standby_snapshot()")
            second.query("BEGIN; INSERT INTO held VALUES (2)") # never ends
            first.query("COMMIT")
            db.query("SELECT pg_log_standby_snapshot(); INSERT INTO shot VALUES (3)")
            wait_for("restart_lsn is there", lambda: db.value(
                f"INSERT INTO shot SELECT max(n) + 1 FROM shot; SELECT pg_log_standby_snapshot();"
                f"SELECT restart_lsn >= '{snapshot}'::pg_lsn - 200 FROM pg_replication_slots WHERE slot_name = 'shot'") == "t")
            s.pause()
            server.query("ALTER TABLE shot ADD COLUMN t text")
            db.query("INSERT INTO shot SELECT max(n) + 1 FROM shot")
            db.query("BEGIN; ALTER TABLE shot ADD COLUMN t text; INSERT INTO shot SELECT max(n) + 1, 'new' FROM shot; COMMIT")
            for catalog in ("pg_class", "pg_attribute", "pg_type"):
                db.query(f"VACUUM FULL {catalog}")
            want = db.query("SELECT n, t FROM shot ORDER BY n")
            kill(branch)
        s.go_on()
        wait_for("all of it arrives", lambda: server.query("SELECT n, t FROM shot ORDER BY n") == want)
        s.drop()


def test_nothing_is_shown_before_the_quorum_has_it(cluster):
    branch = publisher(cluster)
    with StockServer(cluster) as server:
        s = Subscription(server, branch, "shown")
        with superuser(branch) as db:
            db.query("INSERT INTO shown VALUES (1)")
            s.has_all()
            for keeper in cluster.safekeepers:
                keeper.kill()
            before = db.value("SELECT pg_current_wal_insert_lsn()")

            def insert():
                try:
                    with superuser(branch) as other:
                        other.query("INSERT INTO shown VALUES (2)")
                except pq.Error:
                    pass # its server is killed
            thread = threading.Thread(target=insert)
            thread.start()
            wait_for("it waits", lambda: db.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'") != "0")
            # The walsender says that it lives; by then a stock server has sent the row.
            sent = ("SELECT reply_time FROM pg_stat_replication WHERE application_name = 'shown'")
            since = db.value(sent)
            wait_for("it answers", lambda: db.value(sent) != since)
            assert db.value(f"SELECT sent_lsn <= '{before}' FROM pg_stat_replication WHERE application_name = 'shown'") == "t"
            assert server.query("SELECT n FROM shown") == [("1",)]
            os.kill(branch.compute()["pids"]["postgres"], signal.SIGKILL)
        thread.join()
        for keeper in cluster.safekeepers:
            keeper.start()
        wait_for("it is back", lambda: branch.compute()["state"] == "running")
        s.go_on()
        with superuser(branch) as db:
            assert numbers(db, "shown") == [("1",)]
            db.query("INSERT INTO shown VALUES (3)")
        s.has_all()
        s.drop()


def test_functions_show_what_was_flushed_before_they_were_called(cluster):
    """They wait for the quorum, which a flush that is no commit does not."""
    with superuser(publisher(cluster)) as db:
        db.query("SELECT pg_create_logical_replication_slot('looks', 'test_decoding')")
        for number in range(50):
            db.query(f"SELECT pg_logical_emit_message(false, 'look', '{number}', true)")
            seen = db.query("SELECT data FROM pg_logical_slot_get_changes('looks', NULL, NULL)")
            assert any(f"content:{number}" in row[0] for row in seen), f"message {number} is not there: {seen}"
        db.query("SELECT pg_drop_replication_slot('looks')")


@contextlib.contextmanager
def quiet(db):
    """Who writes WAL by himself on a server where nobody does anything, is stopped: the next flush of it would come to the
    end of any record."""
    pids = [int(pid) for (pid,) in db.query("SELECT pid FROM pg_stat_activity WHERE backend_type IN"
                                            " ('background writer', 'autovacuum launcher')")]
    assert len(pids) == 2, pids
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def begin_record(db, other, size):
    """`db` writes a record in a transaction and goes on to nothing; the WAL writer flushes it but for its last page."""
    begin = other.value("SELECT pg_current_wal_insert_lsn()")
    db.query(f"SELECT pg_logical_emit_message(true, 'p', repeat('x', {size})::bytea)")
    wait_for("whole pages of it are flushed", lambda: other.value(
        f"SELECT flush_lsn > '{begin}' AND flush_lsn > acked_lsn AND flush_lsn < pg_current_wal_insert_lsn() FROM positions()") == "t")


def set_lag_limit(db, megabytes):
    with open(pathlib.Path(db.value("SHOW config_file")), "a") as conf:
        conf.write(f"anabranch.ingest_lag_limit_mb = {megabytes}\n")
    db.query("SELECT pg_reload_conf()")
    wait_for("the setting", lambda: db.value("SHOW anabranch.ingest_lag_limit_mb") == f"{megabytes}MB")


def test_nobody_waits_for_the_end_of_a_record_that_nobody_flushes(cluster):
    """The quorum has whole records, what is flushed ends anywhere: with the last page that was full."""
    branch = publisher(cluster)
    with superuser(branch) as writer, superuser(branch) as db:
        db.query("CREATE FUNCTION positions(OUT start_lsn pg_lsn, OUT acked_lsn pg_lsn, OUT flush_lsn pg_lsn)"
                 " AS 'anabranch', 'anabranch_positions' LANGUAGE c; CREATE TABLE grows (t text)")
        db.query("SELECT pg_create_logical_replication_slot('quiet', 'test_decoding')")
        writer.query("SET statement_timeout = '20s'")
        db.query("SET statement_timeout = '20s'")
        with quiet(db):
            writer.query("BEGIN")
            begin_record(writer, db, 50000)
            assert db.query("SELECT data FROM pg_logical_slot_get_changes('quiet', NULL, NULL) WHERE data ~ 'message'") == []
            writer.query("COMMIT")
            seen = db.query("SELECT data FROM pg_logical_slot_get_changes('quiet', NULL, NULL)")
            assert any("transactional: 1 prefix: p, sz: 50000" in row[0] for row in seen), seen
        set_lag_limit(db, 1) # the same for who waits until the pageserver has what was written
        with quiet(db):
            writer.query("BEGIN; INSERT INTO grows VALUES ('before')")
            begin_record(writer, db, 8000000)
            writer.query("INSERT INTO grows SELECT repeat('t', 1000) FROM generate_series(1, 100)")
            writer.query("COMMIT")
        set_lag_limit(db, 128)
        db.query("SELECT pg_drop_replication_slot('quiet'); DROP TABLE grows; DROP FUNCTION positions")


def test_publisher_is_not_told_what_the_quorum_has_not(cluster):
    """A subscription's workers commit asynchronously. What is lost with the compute must come again."""
    branch = publisher(cluster)
    with StockServer(cluster, "wal_level=logical") as source:
        source.query("CREATE TABLE arrived (n int PRIMARY KEY); CREATE PUBLICATION arrived FOR TABLE arrived;"
                     "INSERT INTO arrived SELECT generate_series(1, 100)")
        with superuser(branch) as db:
            db.query("CREATE TABLE arrived (n int PRIMARY KEY)")
            db.query(f"CREATE SUBSCRIPTION arrived CONNECTION '{source.uri}' PUBLICATION arrived")
            wait_for("the copy ends", lambda: db.query("SELECT 1 FROM pg_subscription_rel WHERE srsubstate = 'r'"))
            source.query("INSERT INTO arrived VALUES (101)")
            wait_for("it arrives", lambda: db.value("SELECT count(*) FROM arrived") == "101")
            confirmed = "SELECT confirmed_flush_lsn >= '{}' FROM pg_replication_slots WHERE slot_name = 'arrived'"
            wait_for("it is confirmed", lambda: source.query(confirmed.format(source.lsn()))[0][0] == "t")
            for keeper in cluster.safekeepers:
                keeper.kill()
            source.query("INSERT INTO arrived VALUES (102)")
            wait_for("it arrives", lambda: db.value("SELECT count(*) FROM arrived") == "102")
            end = source.lsn()
            # Twice a reply after all of it was received: a stock server has confirmed it by then.
            state = f"SELECT reply_time, write_lsn >= '{end}' FROM pg_stat_replication WHERE application_name = 'arrived'"
            for _ in range(2):
                since = source.query(state)[0][0]
                wait_for("it answers", lambda: (lambda r: r[0] != since and r[1] == "t")(source.query(state)[0]))
            assert source.query(confirmed.format(end))[0][0] == "f"
            os.kill(branch.compute()["pids"]["postgres"], signal.SIGKILL)
        for keeper in cluster.safekeepers:
            keeper.start()
        wait_for("it is back", lambda: branch.compute()["state"] == "running")
        with superuser(branch) as db:
            wait_for("it arrives again", lambda: db.value("SELECT count(*) FROM arrived") == "102")
            restart(branch)
        with superuser(branch) as db:
            source.query("INSERT INTO arrived VALUES (103)")
            wait_for("it goes on", lambda: db.value("SELECT count(*) FROM arrived") == "103")
            stats = db.query("SELECT apply_error_count FROM pg_stat_subscription_stats WHERE subname = 'arrived'")
            assert stats == [("0",)], stats # nothing came twice
            for what in ("SUBSCRIPTION", "TABLE"):
                db.query(f"DROP {what} arrived")
        assert source.query("SELECT count(*) FROM pg_replication_slots")[0][0] == "0"


def test_nobody_copies_or_follows_its_files(cluster):
    """Physical replication and base backups would give a data directory without relations."""
    branch, said = publisher(cluster), "physical replication and base backups are not supported on a compute"
    with superuser(branch) as db:
        db.query("SET client_min_messages = warning; CREATE ROLE follower LOGIN REPLICATION PASSWORD 'follows'")
    over_tcp = re.sub("//.*@", "//follower:follows@", branch.uri())
    for uri in (superuser_uri(branch), over_tcp):
        for tool in ("pg_basebackup", "pg_receivewal"):
            with tempfile.TemporaryDirectory() as copy:
                done = subprocess.run([cluster.postgres / "bin" / tool, "-n", "-D", copy, "-d", uri], stdout=subprocess.PIPE,
                                      stderr=subprocess.STDOUT, text=True)
            assert done.returncode != 0 and said in done.stdout, done.stdout
        with pq.connect(f"{uri}{'&' if '?' in uri else '?'}replication=true") as walsender:
            assert walsender.query("IDENTIFY_SYSTEM")[0][3] is None
        with pq.connect(f"{uri}{'&' if '?' in uri else '?'}replication=database") as walsender:
            for command in ("BASE_BACKUP (CHECKPOINT 'fast')", "START_REPLICATION 0/0", " START_REPLICATION SLOT \"logical\" PHYSICAL 0/0",
                            "START_REPLICATION SLOT logical 0/0 TIMELINE 1"):
                try:
                    walsender.query(command)
                    raise AssertionError(f"{command} was let through")
                except pq.Error as error:
                    assert error.sqlstate == "0A000" and said in str(error), error
            assert walsender.query("CREATE_REPLICATION_SLOT logical TEMPORARY LOGICAL pgoutput")[0][0] == "logical"
            try:
                walsender.query("START_REPLICATION SLOT other LOGICAL 0/0")
                raise AssertionError("there is no such slot")
            except pq.Error as error:
                assert error.sqlstate == "42704", error
            assert walsender.value("SHOW log_replication_commands") == "on"
    with superuser(branch) as db:
        assert db.value("SHOW log_replication_commands") == "off"
        db.query("DROP ROLE follower")
    assert "received replication command" not in log_of(branch).read_text(), "what nobody asked to be logged"


COMMANDS = ["IDENTIFY_SYSTEM", "CREATE_REPLICATION_SLOT compared LOGICAL test_decoding", "READ_REPLICATION_SLOT compared",
            "SELECT 1 AS one", "START_REPLICATION SLOT compared PHYSICAL 0/0 nonsense", "START_REPLICATION SLOT other LOGICAL 0/0",
            "DROP_REPLICATION_SLOT compared", "SELECT no_such_column", "CREATE_REPLICATION_SLOT compared TEMPORARY LOGICAL pgoutput"]


def logged(uri, log, later):
    """What COMMANDS in a walsender leave in its server's log, without what differs from one run to the next."""
    with pq.connect(uri) as walsender:
        pid = walsender.pid
        for command in later + COMMANDS:
            with contextlib.suppress(pq.Error):
                walsender.query(command)
    wait_for("it has ended", lambda: not pathlib.Path(f"/proc/{pid}").exists())
    lines = re.findall(rf"^\S+ \S+ \S+ \[{pid}\] (?:\S+@\S+ )?(\w+: .*)$", log.read_text(errors="replace"), re.M)
    return [re.sub(r"[0-9A-F]+(?:[/-][0-9A-F]+)+|\d+", "N", line) for line in lines if not re.match("DEBUG: +(?!.*repl)", line)]


def test_walsender_logs_what_a_stock_one_does(cluster):
    """Its commands are seen in the log that Postgres writes of them (compute/extension/physical.c), whether asked for or not."""
    branch, roles = publisher(cluster), {
        "plain": "log_replication_commands = off", "told": "log_replication_commands = on", "debugs": "log_min_messages = debug1",
        "mute": "log_min_messages = fatal", "debugs_later": "log_min_messages = warning", "speaks_later": "log_min_messages = fatal"}
    with StockServer(cluster, "wal_level=logical") as server, superuser(branch) as db:
        for role, setting in roles.items():
            later = ["SET log_min_messages = debug1"] if role.endswith("_later") else []
            for one in (server, db):
                one.query(f"CREATE ROLE {role} LOGIN SUPERUSER")
                one.query(f"ALTER ROLE {role} SET {setting}")
            stock = logged(server.uri.replace("//app@", f"//{role}@") + "?replication=database", server.log, later)
            uri = superuser_uri(branch).replace("//postgres@", f"//{role}@") + "&replication=database"
            ours = logged(uri, log_of(branch), later)
            assert ours == stock, f"{role}: {ours}\nstock: {stock}"
            assert (stock == []) == (role == "mute"), stock
            assert any("received replication command" in line for line in stock) == (role not in ("plain", "mute")), stock
            with pq.connect(uri) as walsender: # a server that tells nothing refuses no less
                try:
                    walsender.query("BASE_BACKUP")
                    raise AssertionError("it was let through")
                except pq.Error as error:
                    assert error.sqlstate == "0A000", error
            db.query(f"DROP ROLE {role}")
