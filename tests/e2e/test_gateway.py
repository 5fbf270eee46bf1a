"""The Postgres port of the cluster: TLS, log-in, routing by host name, waking, cancelling."""
import concurrent.futures
import os
import signal
import socket
import ssl
import struct
import threading
import time
import urllib.parse

import pq
from cluster import ApiError, Cluster, http, wait_for
from pooling import check_pools


def with_gateway(build):
    cluster = Cluster(build)
    cluster.cli("local", "up", "--binaries", str(cluster.build), "--postgres", str(cluster.postgres),
                "--gateway", "db.test")
    return cluster


class Client:
    """How a client reaches the gateway: db.test has no address here, so it is told."""

    def __init__(self, cluster, branch):
        self.uri = branch.uri() + "&hostaddr=127.0.0.1"
        self.port = urllib.parse.urlsplit(self.uri).port
        self.host = urllib.parse.urlsplit(self.uri).hostname
        endpoint, domain = self.host.split(".", 1)
        self.pooler = f"{endpoint}-pooler.{domain}"

    def connect(self, **change):
        uri = self.uri
        for old, new in change.pop("swap", {}).items():
            assert old in uri, (old, uri)
            uri = uri.replace(old, new)
        return pq.connect(uri + "".join(f"&{name}={value}" for name, value in change.items()), timeout_s=60)

    def refused(self, **change):
        try:
            self.connect(**change).close()
        except pq.Error as error:
            return str(error)
        raise AssertionError(f"let in with {change}")


def check_ways_in(client, branch):
    assert "channel_binding=require" in client.uri
    with client.connect() as db:
        assert db.value("SELECT current_user || current_database()") == "appapp"
        assert len(db.value("SELECT repeat('x', 20000000)")) == 20000000
    with client.connect(swap={"channel_binding=require": "channel_binding=disable"}) as db:
        assert db.value("SELECT 1") == "1"
    with client.connect(sslnegotiation="direct") as db:
        assert db.value("SELECT 1") == "1"
    with client.connect(swap={client.host: branch.id + ".db.test"}) as db: # by the branch
        assert db.value("SELECT 1") == "1"
    endpoint = client.host.split(".")[0]
    with client.connect(swap={client.host: "localhost"}, options=f"-c%20geqo%3Doff%20endpoint%3D{endpoint}") as db:
        assert db.value("SHOW geqo") == "off" # what is not ours reaches Postgres


def check_refusals(client):
    assert "password authentication failed" in client.refused(swap={"app:": "app:x"})
    assert "password authentication failed" in client.refused(swap={"//app:": "//nobody:"})
    assert "TLS is required" in client.refused(swap={"sslmode=require": "sslmode=disable", "&channel_binding=require": ""})
    assert 'no endpoint "ep-no-such-1"' in client.refused(swap={client.host: "ep-no-such-1.db.test"})
    assert "which endpoint?" in client.refused(swap={client.host: "localhost"})
    assert 'database "nope" does not exist' in client.refused(swap={"/app?": "/nope?"})


def check_address_lists(client, branch):
    def allow(ips, **more):
        branch.project.api("PATCH", "", {"project": {"settings": {"allowed_ips": {"ips": ips, **more}}}})

    def stranger(number): # a role that the gateway has not asked for
        return client.refused(swap={"//app:": f"//stranger{number}:"})

    try:
        allow(["10.0.0.0/8", "localhost"])
        raise AssertionError("taken")
    except ApiError as error:
        assert error.status == 400 and "allowed_ips.ips[1]" in error.body["message"], error
    branch.suspend()
    allow(["10.0.0.0/8", "::/0"])
    assert "allowed_ips have no place for the address \"127.0.0.1\"" in stranger(1)
    assert branch.endpoint()["current_state"] == "idle" # and it was not woken
    allow(["10.0.0.0/8", "127.0.0.1-127.0.0.9"])
    assert "password authentication failed" in stranger(2)
    allow(["10.0.0.0/8"], protected_branches_only=True)
    assert "password authentication failed" in stranger(3)
    allow([])
    assert "password authentication failed" in stranger(4)


def check_wakes(client, branch):
    branch.suspend()
    with client.connect() as db:
        assert db.value("SELECT 1") == "1"
    # Where it ran is remembered, and nobody is there any more.
    branch.suspend()
    branch.start()
    with client.connect() as db:
        assert db.value("SELECT 1") == "1"


def check_cancel(client):
    with client.connect() as db:
        said = []

        def sleep():
            try:
                db.query("SELECT pg_sleep(60)")
            except pq.Error as error:
                said.append(error.sqlstate)

        thread = threading.Thread(target=sleep)
        thread.start()
        with client.connect() as other:
            wait_for("it sleeps", lambda: other.value(
                "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'") == "1")
        db.cancel()
        thread.join(30)
        assert said == ["57014"], said
        assert db.value("SELECT 1") == "1"


def check_password_changed_by_sql(client):
    with client.connect() as db:
        db.query("CREATE ROLE reader LOGIN PASSWORD 'first'")
    password = urllib.parse.urlsplit(client.uri).password
    first = {f"//app:{password}": "//reader:first"}
    with client.connect(swap=first) as db:
        assert db.value("SELECT current_user") == "reader"
    with client.connect() as db:
        db.query("ALTER ROLE reader PASSWORD 'second'")
    client.refused(swap=first) # also where the old one is remembered
    with client.connect(swap={f"//app:{password}": "//reader:second"}) as db:
        assert db.value("SELECT current_user") == "reader"


def check_password_changed_by_rest(client, branch):
    """The gateway is told to forget the old one, also for its pools: nobody waits until it is too old to be remembered."""
    path = f"/branches/{branch.id}/roles"
    made = branch.project.wait_operations(branch.project.api("POST", path, {"role": {"name": "changing"}}))["role"]
    app = f"//app:{urllib.parse.urlsplit(client.uri).password}"
    pooled = {client.host: client.host.replace(".", "-pooler.", 1)}

    def is_let_in(password):
        try:
            with client.connect(swap={app: f"//changing:{password}", **pooled}) as db:
                return db.value("SELECT current_user") == "changing"
        except pq.Error as error:
            assert "password authentication failed" in str(error), error
            return False
    assert is_let_in(made["password"])
    new = branch.project.wait_operations(branch.project.api("POST", f"{path}/changing/reset_password"))["role"]["password"]
    wait_for("the old one is refused", lambda: not is_let_in(made["password"]), 20)
    assert is_let_in(new)
    branch.project.wait_operations(branch.project.api("DELETE", f"{path}/changing"))


def check_roles_and_databases_go(client, branch):
    project, path = branch.project, f"/branches/{branch.id}"
    made = project.api("POST", path + "/roles", {"role": {"name": "gone"}})
    project.wait_operations(made)
    project.wait_operations(project.api(
        "POST", path + "/databases", {"database": {"name": "short", "owner_name": "gone"}}))
    owned = client.uri.replace("/app?", "/short?")
    with pq.connect(owned): # a session in its database, things of the role in another's
        as_gone = {f"//app:{urllib.parse.urlsplit(client.uri).password}": f"//gone:{made['role']['password']}"}
        with client.connect() as app:
            app.query("GRANT CREATE ON SCHEMA public TO gone")
        with client.connect(swap=as_gone) as gone:
            gone.query("CREATE TABLE of_gone AS SELECT 7 AS i")
        refused = None
        try:
            project.api("DELETE", path + "/roles/gone")
        except ApiError as error:
            refused = error.body["code"]
        assert refused == "ROLE_OWNS_DATABASE", refused
        branch.suspend() # what has to drop them is started for it
        for kind in ("databases/short", "roles/gone"):
            answer = project.api("DELETE", f"{path}/{kind}")
            assert answer[kind.split("/")[0][:-1]]["name"] == kind.split("/")[1]
            project.wait_operations(answer)
    with client.connect() as db:
        assert db.value("SELECT count(*) FROM pg_database WHERE datname = 'short'") == "0"
        assert db.value("SELECT count(*) FROM pg_roles WHERE rolname = 'gone'") == "0"
        assert db.value("SELECT i FROM of_gone") == "7" # it is app's now
    project.wait_operations(project.api("POST", path + "/roles", {"role": {"name": "gone"}}))
    names = [role["name"] for role in project.api("GET", path + "/roles")["roles"]]
    assert sorted(names) == ["app", "gone"], names


def check_the_token_is_for_nobody(client, branch):
    """The token of the whole cluster is a setting of every compute, and whoever is in pg_monitor reads settings."""
    pgdata = branch.cluster.agent.folder / "computes" / branch.endpoint()["id"] / "pgdata"
    with open(pgdata / "postgresql.conf", "a") as conf:
        conf.write("anabranch.token = 'of-the-cluster'\n")
    os.kill(int((pgdata / "postmaster.pid").read_text().split()[0]), signal.SIGHUP)
    with client.connect() as db:
        wait_for("it is read again", lambda: db.value("SHOW anabranch.token") != "")
        assert db.value("SELECT current_setting('anabranch.token')") == db.value("SHOW anabranch.token") == "********"
        assert db.value("SELECT count(*) FROM pg_settings s WHERE s::text LIKE '%of-the-cluster%'") == "0"


def check_sleeps_without_work(client, branch):
    ident = branch.endpoint()["id"]
    path, slept = f"/endpoints/{ident}", []

    def idle_ms():
        computes = http("GET", branch.cluster.agent.http_url + "/v1/computes")["computes"]
        return next(compute["idle_ms"] for compute in computes if compute["id"] == ident)

    with client.connect() as idle, client.connect() as db: # one that only waits keeps nobody awake
        wait_for("the agent sees that nobody works", lambda: idle_ms() > 0)
        worker = threading.Thread(target=lambda: slept.append(db.value("SELECT count(*) FROM pg_sleep(5)")))
        worker.start()
        wait_for("the agent sees the work", lambda: idle_ms() == 0)
        branch.project.api("PATCH", path, {"endpoint": {"suspend_timeout_seconds": 1}})
        worker.join()
        assert slept == ["1"]
        wait_for("it sleeps", lambda: branch.endpoint()["current_state"] == "idle", 60)
        assert idle.pid > 0 # was open all the time
    with client.connect() as db:
        assert db.value("SELECT 1") == "1"
    branch.project.api("PATCH", path, {"endpoint": {"suspend_timeout_seconds": -1}})


def check_moments(client, branch):
    """Connection options name a moment: the branch as it was, by a compute that is made for it and goes with its use."""
    endpoint = client.host.split(".")[0]

    def moments():
        return [one for one in branch.project.api("GET", f"/branches/{branch.id}/endpoints")["endpoints"]
                if one["type"] == "read_only"]

    def at(option, host=branch.id + ".db.test"):
        return client.connect(swap={client.host: host}, options=urllib.parse.quote(option))

    with client.connect() as db:
        db.query("CREATE TABLE past (what text); INSERT INTO past VALUES ('before')")
        lsn, moment = db.query("SELECT pg_current_wal_flush_lsn(), to_char(clock_timestamp() AT TIME ZONE 'UTC', "
                             "'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")[0]
        db.query("UPDATE past SET what = 'after'")
        with at(f"neon_lsn:{lsn}") as then, at(f"-c geqo=off lsn={lsn}", endpoint + ".db.test") as too:
            assert then.value("SELECT what FROM past") == "before" and too.value("SHOW geqo") == "off"
            assert then.value("SHOW default_transaction_read_only") == "on"
            made = moments()
            assert len(made) == 1 and made[0]["lsn"] and made[0]["suspend_timeout_seconds"] == 60, made
        with at(f"neon_timestamp:{moment}", endpoint + "-pooler.db.test") as then:
            assert then.value("SELECT what FROM past") == "before"
        assert db.value("SELECT what FROM past") == "after"
        later, count = db.value("SELECT pg_current_wal_flush_lsn()"), len(moments())
        with concurrent.futures.ThreadPoolExecutor(6) as pool: # who comes at once shares it, too
            for then in pool.map(lambda _: at(f"lsn={later}"), range(6)):
                assert then.value("SELECT what FROM past") == "after"
                then.close()
        assert len(moments()) == count + 1, moments()
    wrong = {"lsn=F/0": "is ahead of the branch", "timestamp=2001-01-01T00:00:00Z": "is older than the history",
             "timestamp=2101-01-01T00:00:00Z": "lies in the future", "lsn=0": "LSN"}
    for option, why in wrong.items():
        said = client.refused(swap={client.host: branch.id + ".db.test"}, options=urllib.parse.quote(option))
        assert why in said, (option, said)
    assert "one moment of its branch already" in client.refused(
        swap={client.host: made[0]["id"] + ".db.test"}, options=urllib.parse.quote(f"lsn={lsn}"))
    for one in moments(): # nobody works there any more
        branch.project.api("PATCH", f"/endpoints/{one['id']}", {"endpoint": {"suspend_timeout_seconds": 1, "lease_seconds": 1}})
    wait_for("they are gone", lambda: not moments(), 60)
    with at(f"lsn={lsn}") as then: # what is remembered of them does not matter
        assert then.value("SELECT what FROM past") == "before"


def begin_to_page(*connections):
    """Who reads what was asked for only after a while, as a pager does, still gets all of it. -> the check, for later"""
    for db in connections:
        db.send("SELECT repeat('x', 1000) FROM generate_series(1, 60000)") # more than the sockets take
    began = time.monotonic()

    def check():
        wait_for("an answer lay unread for 25 s", lambda: time.monotonic() - began > 25, 60)
        for db in connections:
            assert len(db.received()) == 60000

    return check


def test_gateway(build):
    cluster = with_gateway(build)
    try:
        branch = cluster.create_project("gateway").main()
        client = Client(cluster, branch)
        check_ways_in(client, branch)
        check_refusals(client)
        check_address_lists(client, branch)
        check_the_token_is_for_nobody(client, branch)
        check_wakes(client, branch)
        check_cancel(client)
        check_password_changed_by_sql(client)
        check_password_changed_by_rest(client, branch)
        check_roles_and_databases_go(client, branch)
        check_sleeps_without_work(client, branch)
        check_moments(client, branch)
        awake = Client(cluster, branch.project.create_branch("read slowly"))
        with awake.connect() as direct, awake.connect(swap={awake.host: awake.pooler}) as pooled:
            check = begin_to_page(direct, pooled)
            check_pools(cluster, branch)
            check()
        check_control_away(cluster, client)
        check_bad_bytes(cluster, client)
    finally:
        cluster.down()


def check_control_away(cluster, client):
    """Who connected before gets in; who is not known yet is told why not."""
    client.connect().close()
    control = cluster.control
    control.kill()
    try:
        client.connect().close()
        assert "connect" in client.refused(swap={client.host: "ep-not-asked-yet.db.test"})
    finally:
        control.start()


def check_bad_bytes(cluster, client):
    startup = struct.pack("!II", 9 + 9, 3 << 16) + b"user\0app\0\0"
    cases = {
        "a browser": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "a size below its own": struct.pack("!II", 4, 3 << 16),
        "a huge size": struct.pack("!II", 1 << 30, 3 << 16),
        "another protocol": struct.pack("!II", 8, 2 << 16),
        "bytes behind the request for TLS": struct.pack("!II", 8, 80877103) + startup,
        "TLS that is none": b"\x16\x03\x01\x00\x05hello",
        "no end of the parameters": struct.pack("!II", 12, 3 << 16) + b"user",
        "a cancel key of nobody": struct.pack("!IIII", 16, 80877102, 1, 2),
    }
    for what, sent in cases.items():
        with socket.create_connection(("127.0.0.1", client.port), timeout=30) as raw:
            raw.sendall(sent)
            received = b""
            while piece := raw.recv(65536): # it ends, whatever it says
                received += piece
            assert received[:1] in (b"E", b"S", b"\x15", b""), (what, received)
    context = ssl._create_unverified_context()
    with socket.create_connection(("127.0.0.1", client.port), timeout=30) as raw:
        raw.sendall(struct.pack("!II", 8, 80877103))
        assert raw.recv(1) == b"S"
        with context.wrap_socket(raw, server_hostname=client.host) as tls:
            tls.sendall(struct.pack("!II", 18, 3 << 16) + b"user\0app\0\0")
            assert tls.recv(1) == b"R"
            tls.sendall(b"Q\0\0\0\x0eSELECT 1\0\0") # a query before the log-in
            received = tls.recv(65536)
            while piece := tls.recv(65536):
                received += piece
            assert b"08P01" in received, received
    gateway = cluster.process("gateway")
    assert gateway.ready()
    metrics = http("GET", gateway.http_url + "/metrics", raw=True).decode()
    assert "gateway_logins_denied_total" in metrics and "gateway_sessions 0" in metrics
