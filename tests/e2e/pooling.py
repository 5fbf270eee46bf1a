"""The checks of hosts with -pooler: sessions that share server connections, transaction by transaction.

They run against a gateway of their own beside the cluster's (a gateway keeps nothing): with few connections and short
times, so that what limits do is seen.
"""
import base64
import contextlib
import hashlib
import hmac
import http.server as http_server
import json
import os
import pathlib
import re
import resource
import select
import shutil
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
import urllib.parse

import pq
from cluster import http, wait_for


class Gateway:
    """A second one, with settings of its own."""

    def __init__(self, cluster, limit=None, **settings):
        first = cluster.process("gateway")
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="gateway-", dir=cluster.folder))
        control_url = cluster.control.http_url
        settings = {"data_dir": self.folder, "http_port": 0, "listen_port": 0, "control_url": control_url,
                    "domain": "db.test", **settings}
        self.log = open(self.folder / "gateway.log", "wb")
        self.process = subprocess.Popen([first.row["binary"], *(f"--{name}={value}" for name, value in settings.items())],
                                        stdout=self.log, stderr=subprocess.STDOUT, preexec_fn=limit)
        ports = self.folder / "ports.json"
        wait_for("the gateway listens", ports.exists)
        self.ports = wait_for("its ports", lambda: json.loads(ports.read_text()))

    def metrics(self):
        """Counters and gauges by name."""
        text = http("GET", f"http://127.0.0.1:{self.ports['http_port']}/metrics", raw=True).decode()
        return {line.split()[0]: float(line.split()[1]) for line in text.splitlines() if not line.startswith("#")}

    def stop(self):
        self.process.terminate()
        code = self.process.wait(30)
        self.log.close()
        assert code == 0, (code, (self.folder / "gateway.log").read_text()[-2000:])
        shutil.rmtree(self.folder)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind: # the test has failed already: show why, hide nothing
            print((self.folder / "gateway.log").read_text()[-3000:])
            self.process.kill()
            self.process.wait()
        else:
            self.stop()


class Pooled:
    """How a client reaches a branch's endpoint through `gateway`, at its -pooler host."""

    def __init__(self, gateway, branch):
        self.parts = urllib.parse.urlsplit(branch.uri())
        self.gateway = gateway
        self.name = self.parts.hostname.split(".")[0]
        self.port = gateway.ports["listen_port"]

    def uri(self, user="app", password=None, database="app", host=None, **more):
        more = {"sslmode": "require", "channel_binding": "require", "hostaddr": "127.0.0.1", **more}
        options = "&".join(f"{name}={urllib.parse.quote(str(value))}" for name, value in more.items())
        host = host or f"{self.name}-pooler.db.test"
        return (f"postgresql://{user}:{password or self.parts.password}@{host}:{self.port}/{database}"
                f"?{options}")

    def connect(self, **more):
        return pq.connect(self.uri(**more), timeout_s=60)

    def refused(self, **more):
        try:
            self.connect(**more).close()
        except pq.Error as error:
            return str(error)
        raise AssertionError(f"let in with {more}")


def backend(db):
    return db.value("SELECT pg_backend_pid()")


def failure(function, *args, **more):
    try:
        function(*args, **more)
    except pq.Error as error:
        return error
    raise AssertionError(f"{args}: no error")


def check_shares(client):
    """Two clients, one connection: it is a client's for a transaction, and what is set follows the client."""
    with client.connect(application_name="one", options="-c geqo=on") as one, \
            client.connect(application_name="two", options="-c geqo=on") as two:
        pid = backend(one)
        assert backend(two) == pid
        assert one.value("SHOW application_name") == "one" and two.value("SHOW application_name") == "two"
        one.query("SET TimeZone = 'Europe/Berlin'; SET DateStyle = 'SQL, DMY'")
        assert two.value("SHOW TimeZone") != "Europe/Berlin" and two.parameter("DateStyle") == "ISO, MDY"
        assert one.value("SHOW TimeZone") == "Europe/Berlin" and one.value("SHOW DateStyle") == "SQL, DMY"
        assert one.parameter("TimeZone") == "Europe/Berlin" and two.parameter("TimeZone") != "Europe/Berlin"
        one.query("SET application_name = 'it''s \\ odd'")
        assert two.value("SHOW application_name") == "two"
        assert one.value("SHOW application_name") == "it's \\ odd"
        one.query("BEGIN")
        mine = backend(one)
        assert backend(two) != mine and backend(one) == mine # it is held to the end of the transaction
        one.query("COMMIT")
    with client.connect(options="-c geqo=off") as other: # a pool of its own
        assert other.value("SHOW geqo") == "off"
    assert "unrecognized configuration parameter" in client.refused(options="-c nonsense=1")
    assert 'database "nope" does not exist' in client.refused(database="nope")
    assert "password authentication failed" in client.refused(password="wrong")
    assert "replication needs a session of its own" in client.refused(replication="database")
    with client.connect(application_name="x") as db:
        assert 'invalid value for parameter "TimeZone"' in str(failure(db.query, "SET TimeZone = 'Nowhere/Else'"))


def check_prepared(client):
    """Names are a client's own, whatever connection it gets; errors skip to Sync as without a pool."""
    with client.connect() as one, client.connect() as two:
        one.prepare("s", "SELECT $1::int + 1")
        two.prepare("s", "SELECT $1::int * 100")
        assert one.execute("s", 4) == [("5",)] and two.execute("s", 4) == [("400",)]
        one.query("BEGIN") # now two gets another connection, where nothing is prepared
        assert one.execute("s", 5) == [("6",)] and two.execute("s", 5) == [("500",)]
        one.query("COMMIT")
        assert one.describe("s") == 1
        assert failure(one.prepare, "s", "SELECT 1").sqlstate == "42P05"
        assert one.execute("s", 6) == [("7",)]
        assert failure(one.execute, "none").sqlstate == "26000"
        one.close_prepared("s")
        assert failure(one.execute, "s", 1).sqlstate == "26000"
        assert two.execute("s", 6) == [("600",)]
        assert failure(one.prepare, "bad", "SELEC 1").sqlstate == "42601"
        one.prepare("bad", "SELECT 7")
        assert one.execute("bad") == [("7",)]
        one.query("DEALLOCATE ALL")
        assert failure(one.execute, "bad").sqlstate == "26000"
        assert two.execute("s", 7) == [("700",)] # prepared again
        one.query("CREATE TEMP TABLE gone (i int)")


def check_pipeline(client):
    with client.connect() as db:
        got = db.pipeline(
            ("prepare", "a", "SELECT $1::int"), ("execute", "a", 1), ("execute", "a", 2), ("sync",),
            ("params", "SELECT 1/0"), ("prepare", "b", "SELECT 5"), ("execute", "a", 3), ("sync",),
            ("prepare", "b", "SELECT 6"), ("execute", "b"), ("prepare", "b", "SELECT 6"), ("execute", "a", 4), ("sync",),
            ("execute", "a", 5), ("sync",))
        assert got[:4] == [[], [("1",)], [("2",)], "sync"], got
        assert got[4].sqlstate == "22012" and got[5:8] == ["skipped", "skipped", "sync"], got
        assert got[8:10] == [[], [("6",)]] and got[10].sqlstate == "42P05" and got[11:13] == ["skipped", "sync"], got
        assert got[13:] == [[("5",)], "sync"], got
        # What stands between two Syncs is one transaction also when its error is one of the pool.
        db.query("DROP TABLE IF EXISTS pipelined; CREATE TABLE pipelined (i int)")
        db.prepare("insert", "INSERT INTO pipelined VALUES ($1)")
        got = db.pipeline(("execute", "insert", 1), ("prepare", "insert", "SELECT 1"), ("sync",))
        assert got[0] == [] and got[1].sqlstate == "42P05", got
        assert db.value("SELECT count(*) FROM pipelined") == "0"
        # Long enough that both directions have to be held back.
        many = [("params", "SELECT $1::int, repeat('x', 2000)", n) for n in range(3000)]
        got = db.pipeline(*many, ("sync",))
        assert [row[0][0] for row in got[:-1]] == [str(n) for n in range(3000)]


def check_copy(client):
    with client.connect() as db:
        db.query("DROP TABLE IF EXISTS copied; CREATE TABLE copied (i int, t text)")
        lines = [b"%d\t%s\n" % (n, b"y" * 500) for n in range(5000)]
        db.copy_in("COPY copied FROM STDIN", lines)
        assert db.copy_out("COPY copied TO STDOUT") == lines
        db.query("TRUNCATE copied")
        db.copy_in("COPY copied FROM STDIN", lines[:10], extended=True)
        assert db.value("SELECT count(*) FROM copied") == "10"
        assert failure(db.copy_in, "COPY copied FROM STDIN", lines[:10], fail="changed my mind").sqlstate == "57014"
        for extended in (False, True):
            assert failure(db.copy_in, "COPY copied FROM STDIN", [b"x\ty\n"] * 3, extended=extended).sqlstate == "22P02"
        assert db.value("SELECT count(*) FROM copied") == "10"
        db.copy_in("COPY copied FROM STDIN", lines[:1], extended=True)
        assert db.value("SELECT count(*) FROM copied") == "11"
        assert len(db.value("SELECT repeat('x', 20000000)")) == 20000000
        assert db.params("SELECT length($1)", "z" * 3000000) == [("3000000",)]
        db.prepare("long", "SELECT length($1) -- " + "-" * 100000)
        assert db.execute("long", "z" * 3000000) == [("3000000",)]
        assert failure(db.prepare, "longer", "SELECT 1 -- " + "-" * 2000000).sqlstate == "54000"
        assert db.value("SELECT 1") == "1"


def sleeper(db, sql="SELECT pg_sleep(60)"):
    said = []

    def sleep():
        try:
            db.query(sql)
            said.append(None)
        except pq.Error as error:
            said.append(error.sqlstate)

    thread = threading.Thread(target=sleep)
    thread.start()
    return thread, said


def sleeping(client, count=1):
    return lambda: client.watch.value(
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'") == str(count)


def check_cancel(client):
    with client.connect() as one, client.connect() as two:
        thread, said = sleeper(one)
        wait_for("it sleeps", sleeping(client))
        two.cancel() # runs nothing: nobody is hit
        assert two.value("SELECT 1") == "1" and not said
        one.cancel()
        thread.join(30)
        assert said == ["57014"], said
        assert one.value("SELECT 1") == "1"
        # Over and over on one connection that others use at once: only who asked for it is cancelled.
        for _ in range(20):
            thread, said = sleeper(one)
            wait_for("it sleeps", sleeping(client))
            one.cancel()
            assert two.value("SELECT count(*) FROM generate_series(1, 20000)") == "20000"
            thread.join(30)
            assert said == ["57014"], said


def check_waiting(client):
    """All connections of the pool are taken: who comes next waits, and not forever."""
    limit = 2
    with client.connect() as waits:
        taken = [client.connect() for _ in range(limit)]
        for db in taken:
            db.query("BEGIN")
        pid = backend(taken[0])
        before = client.gateway.metrics()
        thread, said = sleeper(waits, "SELECT 1")
        wait_for("it waits", lambda: client.gateway.metrics()["gateway_pool_clients_waiting"] == 1)
        assert client.gateway.metrics()["gateway_pool_servers_linked"] == limit
        taken[0].query("COMMIT")
        thread.join(30)
        assert said == [None] and backend(waits) == pid
        taken[0].query("BEGIN")
        error = failure(waits.first, "SELECT 1")
        assert "no connection of the pool became free" in str(error), error
        assert client.gateway.metrics()["gateway_pool_timeouts_total"] == before["gateway_pool_timeouts_total"] + 1
        for db in taken: # one leaves in the middle of its transaction
            db.close()
    with client.connect() as db:
        assert db.value("SELECT 1") == "1"
        assert db.value("SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'") == "0"


def check_server_dies(client):
    with client.connect() as one, client.connect() as two:
        one.query("BEGIN")
        pid = backend(one)
        two.query("BEGIN")
        servers = client.gateway.metrics()["gateway_pool_servers"]
        client.watch.query(f"SELECT pg_terminate_backend({pid})")
        error = failure(one.first, "SELECT 1")
        assert "terminating connection" in str(error) or "was lost" in str(error), error
        assert two.value("SELECT 1") == "1" # another connection, another client
        two.query("COMMIT")
        wait_for("the first is gone", lambda: client.gateway.metrics()["gateway_pool_servers"] < servers)
        free = backend(two)
        client.watch.query(f"SELECT pg_terminate_backend({free})")
        wait_for("it is gone", lambda: client.gateway.metrics()["gateway_pool_servers"] < servers - 1)
        assert two.value("SELECT 1") == "1" # nobody had that one


def check_limits(client):
    wait_for("the others are gone", lambda: client.gateway.metrics()["gateway_pool_clients"] == 0)
    first = [client.connect() for _ in range(6)]
    assert "too many pooled connections to this endpoint through the gateway: at most 6" in client.refused()
    for db in first:
        db.close()
    wait_for("they are gone", lambda: client.gateway.metrics()["gateway_pool_clients"] == 0)
    client.connect().close()


def check_idle(client, branch):
    """Connections that nobody uses keep no compute awake; its clients stay, and wake it."""
    path = f"/endpoints/{branch.endpoint()['id']}"
    with client.connect() as db:
        assert db.value("SELECT 1") == "1"
        assert client.gateway.metrics()["gateway_pool_servers"] >= 1
        branch.project.api("PATCH", path, {"endpoint": {"suspend_timeout_seconds": 1}})
        wait_for("it sleeps", lambda: branch.endpoint()["current_state"] == "idle", 60)
        branch.project.api("PATCH", path, {"endpoint": {"suspend_timeout_seconds": -1}})
        wait_for("they are gone", lambda: client.gateway.metrics()["gateway_pool_servers"] == 0)
        assert db.value("SELECT 1") == "1"
        assert branch.endpoint()["current_state"] == "active"
        wait_for("one that is idle for long is closed",
                 lambda: client.gateway.metrics()["gateway_pool_servers"] == 0)
        assert db.value("SELECT 1") == "1"


def check_pgbench(cluster, gateway, branch):
    """64 clients over 8 connections, the sums agree."""
    client = Pooled(gateway, branch)

    def pgbench(*args):
        answer = subprocess.run([str(cluster.postgres / "bin/pgbench"), *args, client.uri()], capture_output=True, text=True,
                                timeout=120)
        assert answer.returncode == 0, answer.stdout + answer.stderr
        return answer.stdout

    pgbench("-i", "-q", "-s", "1")
    for mode, threads in (("prepared", "64"), ("extended", "2")): # -M prepared waits inside of a thread
        assert "256/256" in pgbench("-n", "-M", mode, "-c", "64", "-t", "4", "-j", threads)
    with client.connect() as db:
        sums = {db.value(f"SELECT sum({column}) FROM pgbench_{table}") for table, column in
                (("accounts", "abalance"), ("tellers", "tbalance"), ("branches", "bbalance"), ("history", "delta"))}
        assert len(sums) == 1, sums
        assert db.value("SELECT count(*) FROM pgbench_history") == "512"
    assert gateway.metrics()["gateway_pool_servers"] <= 8


def startup(**parameters):
    body = struct.pack("!I", 3 << 16) + b"".join(f"{k}\0{v}\0".encode() for k, v in parameters.items()) + b"\0"
    return struct.pack("!I", len(body) + 4) + body


def until_closed(raw):
    received = b""
    try:
        while piece := raw.recv(65536):
            received += piece
    except ConnectionResetError:
        pass
    return received


def few_files():
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))


def check_exhaustion(cluster, branch):
    """Who says nothing, little, or too much is ended by itself; others are served meanwhile and after it."""
    plain = struct.pack("!II", 8, 80877103)
    with Gateway(cluster, limit=few_files, tls_required="false", startup_timeout_ms="1s", login_timeout_ms="3s") as gateway:
        client = Pooled(gateway, branch)

        def raw():
            return socket.create_connection(("127.0.0.1", client.port), timeout=60)

        with client.connect() as db:
            hello = startup(user="app", database="app", options=f"endpoint={client.name}")
            slow = {b"": b"", hello[:1]: b"no start-up packet", hello[:-1]: b"no start-up packet", plain: b"", b"\x16\x03": b"",
                    hello: b"took too long"} # in the middle of TLS nothing can be said; the last one gives no proof
            waiting = [(raw(), sent, why) for sent, why in slow.items()]
            for one, sent, _ in waiting:
                one.sendall(sent)
            for one, sent, why in waiting:
                with one:
                    assert why in until_closed(one), sent
            for message in (b"p\0\1\1\1", b"Q\0\0\0\4", b"p\0\0\0\3"):
                with raw() as one:
                    one.sendall(hello + message)
                    assert b"08P01" in until_closed(one), message
            assert db.value("SELECT 1") == "1"
            taken = [raw() for _ in range(80)] # more than it has descriptors
            wait_for("it has let go of them", lambda: client.connect().close() is None, 60)
            assert db.value("SELECT 1") == "1"
            for one in taken:
                one.close()
        for message in (b"!\0\0\0\4", b"E\x7f\0\0\0", b"Q\0\0\0\3"): # of a client that is logged in
            with client.connect(sslmode="disable", channel_binding="disable", host="localhost",
                                options=f"endpoint={client.name}-pooler") as db:
                os.write(db.socket(), message)
                error = failure(db.first, "SELECT 1")
                assert error.sqlstate == "08P01" and "a message of type" in str(error), error
        check_answers_that_nobody_reads(client)


def check_answers_that_nobody_reads(client):
    """Those that the gateway makes up: who does not read them is not read from for ever either."""
    with client.connect(sslmode="disable", channel_binding="disable", host="localhost",
                        options=f"endpoint={client.name}-pooler") as db:
        fd = db.socket()
        parse = b"P\0\0\0\x11a\0SELECT 1\0\0\0"
        os.write(fd, parse + b"S\0\0\0\4")
        os.set_blocking(fd, False)
        block, written = (b"C\0\0\0\7Sa\0" + parse) * 2000, 0
        while written < 96 << 20 and select.select([], [fd], [], 2)[1]:
            written += os.write(fd, block[written % len(block):])
        assert written < 96 << 20, "it takes all that is sent, and keeps the answers"


def check_strangers_go_first(cluster, branch):
    """Who does not log in cannot take all places; who has logged in keeps its own."""
    with Gateway(cluster, connections_max=24, startup_timeout_ms="120s", login_timeout_ms="120s") as gateway:
        client = Pooled(gateway, branch)
        with client.connect() as db:
            hello = struct.pack("!II", 8, 80877103)
            taken = []
            for i in range(80):
                taken.append(socket.create_connection(("127.0.0.1", client.port), timeout=60))
                taken[-1].sendall(hello[:4 * (i % 3)])
            with client.connect() as other:
                assert other.value("SELECT 1") == db.value("SELECT 1") == "1"
            assert gateway.metrics()["gateway_strangers_ended_total"] >= 50
            for one in taken:
                one.close()


def send_password_message(raw, body):
    raw.sendall(b"p" + struct.pack("!I", len(body) + 4) + body)


def come_to_the_proof(gateway, endpoint, role):
    """-> the connection, and what it was told: as far as one comes without a password."""
    raw = socket.create_connection(("127.0.0.1", gateway.ports["listen_port"]), timeout=60)
    raw.sendall(startup(user=role, database="app", options=f"endpoint={endpoint}"))
    assert raw.recv(4096)[:1] == b"R"
    first = b"n,,n=,r=abc"
    send_password_message(raw, b"SCRAM-SHA-256\0" + struct.pack("!I", len(first)) + first)
    return raw, raw.recv(4096)[9:]


def prove(raw, told, password):
    nonce, salt = re.fullmatch(rb"r=([^,]+),s=([^,]+),i=4096", told).groups()
    final = b"c=biws,r=" + nonce
    client = hmac.digest(hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(salt), 4096), b"Client Key", "sha256")
    signed = hmac.digest(hashlib.sha256(client).digest(), b"n=,r=abc," + told + b"," + final, "sha256")
    send_password_message(raw, final + b",p=" + base64.b64encode(bytes(a ^ b for a, b in zip(client, signed))))


def salt_of(gateway, endpoint, role):
    """What a client sees before it proves anything."""
    raw, told = come_to_the_proof(gateway, endpoint, role)
    raw.close()
    return re.search(rb",s=([^,]+),i=4096", told)[1]


def check_strangers_take_no_place_of_an_endpoint(cluster, branch):
    """Who knows its name and that of a role only keeps nobody out; whoever proves it later finds the place taken."""
    with Gateway(cluster, tls_required="false", connections_per_role_max=1, login_timeout_ms="120s") as gateway:
        client = Pooled(gateway, branch)
        direct = {"host": f"{client.name}.db.test"}
        raw, told = come_to_the_proof(gateway, client.name, "app")
        with raw, client.connect(**direct) as db:
            assert db.value("SELECT 1") == "1"
            assert "too many connections of this role" in client.refused(**direct)
            prove(raw, told, client.parts.password)
            assert b"too many connections of this role" in until_closed(raw)
            assert db.value("SELECT 1") == "1"


def check_unknown_roles_look_like_others(cluster, branch):
    """Their salts are as lasting, and as different from project to project, as those of roles that there are."""
    key, certificate = (str(next(cluster.process("gateway").folder.glob(f"*.{kind}"))) for kind in ("key", "crt"))
    here, there = (one.endpoint()["id"] for one in (branch, cluster.create_project("without roles").main()))
    settings = {"tls_required": "false", "tls_certificate": certificate, "tls_key": key}
    with Gateway(cluster, **settings) as gateway:
        salts = [salt_of(gateway, at, role) for at in (here, there) for role in ("app", "nobody", "none")]
        assert len(set(salts)) == 6, salts
    with Gateway(cluster, **settings) as gateway: # started anew
        assert [salt_of(gateway, at, role) for at in (here, there) for role in ("app", "nobody", "none")] == salts


class TlsCompute:
    """A compute that speaks TLS: a relay in front of a real one, and a control that says that it is the compute."""

    def __init__(self, cluster, certificate, key, speaks=True):
        relay = self
        self.context, self.speaks = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), speaks
        self.context.load_cert_chain(certificate, key)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port, self.sessions = 0, 0
        threading.Thread(target=self.accept, daemon=True).start()

        class Control(http_server.BaseHTTPRequestHandler):
            def do_POST(self):
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                answer = http("POST", cluster.control.http_url + self.path, asked)
                if "port" in answer: # of a compute: not what control says has changed
                    relay.port, answer["port"], answer["host"] = answer["port"], relay.listener.getsockname()[1], "localhost"
                body = json.dumps(answer).encode()
                with contextlib.suppress(BrokenPipeError): # the gateway has ended
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.control = http_server.ThreadingHTTPServer(("127.0.0.1", 0), Control)
        self.control_url = f"http://127.0.0.1:{self.control.server_port}"
        threading.Thread(target=self.control.serve_forever, daemon=True).start()

    def accept(self):
        while True:
            try:
                client = self.listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        assert client.recv(8, socket.MSG_WAITALL) == struct.pack("!II", 8, 80877103), "it asks for TLS first"
        client.sendall(b"S" if self.speaks else b"N")
        try:
            inner = self.context.wrap_socket(client, server_side=True)
        except (ssl.SSLError, OSError):
            client.close()
            return
        self.sessions += 1
        with inner, socket.create_connection(("127.0.0.1", self.port)) as outer:
            first = inner.recv(65536)
            if first[4:8] == struct.pack("!I", 80877102): # to cancel: whatever is said to that means nothing
                inner.sendall(b"S")
            outer.sendall(first)
            back = threading.Thread(target=self.pump, args=(outer, inner), daemon=True)
            back.start()
            self.pump(inner, outer)
            back.join()

    @staticmethod
    def pump(source, target):
        try:
            while piece := source.recv(65536):
                target.sendall(piece)
        except (OSError, ssl.SSLError):
            pass
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self.listener.close()
        self.control.shutdown()
        self.control.server_close()


def check_tls_to_compute(cluster, branch):
    """compute_sslmode: what goes to a compute is encrypted, and it is the right one, or nothing goes there."""
    with Gateway(cluster, domain="localhost") as maker, Gateway(cluster, domain="elsewhere.test") as other:
        files = [str(one.folder / f"gateway.{kind}") for one in (maker, other) for kind in ("crt", "key")]
        right, wrong = TlsCompute(cluster, *files[:2]), TlsCompute(cluster, *files[2:])
        mute = TlsCompute(cluster, *files[:2], speaks=False)

        def through(compute, mode, authorities=""):
            return Gateway(cluster, control_url=compute.control_url, compute_sslmode=mode, compute_tls_authorities=authorities)

        with through(right, "verify-full", files[0]) as gateway:
            client = Pooled(gateway, branch)
            for host in (None, f"{client.name}.db.test"): # shared, and a session's own
                with client.connect(**({"host": host} if host else {})) as db:
                    assert len(db.value("SELECT repeat('x', 3000000)")) == 3000000
                    thread, said = sleeper(db)
                    client.watch = db
                    with client.connect() as client.watch:
                        wait_for("it sleeps", sleeping(client))
                    db.cancel()
                    thread.join(30)
                    assert said == ["57014"], said
        assert right.sessions >= 4, right.sessions # requests to cancel as well
        for compute, mode, authorities, why in ((wrong, "require", "", None), (wrong, "verify-ca", files[0], "not trusted"),
                                                (wrong, "verify-full", files[2], "not trusted"),
                                                (wrong, "verify-ca", files[2], None), (mute, "require", "", "does not speak TLS")):
            with through(compute, mode, authorities) as gateway:
                client = Pooled(gateway, branch)
                for host in (f"{client.name}-pooler.db.test", f"{client.name}.db.test"):
                    if why is None:
                        client.connect(host=host).close()
                    else:
                        assert why in client.refused(host=host), (mode, why)
        for compute in (right, wrong, mute):
            compute.close()


def check_pools(cluster, branch):
    check_exhaustion(cluster, branch)
    check_strangers_go_first(cluster, branch)
    check_strangers_take_no_place_of_an_endpoint(cluster, branch)
    check_unknown_roles_look_like_others(cluster, branch)
    check_tls_to_compute(cluster, branch)
    with Gateway(cluster, pool_size_max=8) as gateway:
        check_pgbench(cluster, gateway, branch)
    with Gateway(cluster, pool_size_max=2, pool_wait_ms="1s", pool_idle_ms="2s", pool_clients_per_endpoint_max=6) as gateway:
        client = Pooled(gateway, branch)
        with client.connect(host=f"{client.name}.db.test") as client.watch: # a session of its own
            check_shares(client)
            check_prepared(client)
            check_pipeline(client)
            check_copy(client)
            check_cancel(client)
            check_waiting(client)
            check_server_dies(client)
            check_limits(client)
    with Gateway(cluster, pool_idle_ms="2s") as gateway:
        check_idle(Pooled(gateway, branch), branch)
