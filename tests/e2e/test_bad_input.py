"""Garbage and lies on every port: a clear error, no crash, nothing acknowledged is lost."""
import json
import os
import pathlib
import random
import signal
import socket
import socketserver
import struct
import threading

import pq
from cluster import ApiError, http, wait_for

_main = {}


def main_branch(cluster):
    if cluster not in _main:
        _main[cluster] = cluster.create_project("bad-input").main()
        _main[cluster].sql("CREATE TABLE kept AS SELECT generate_series(1, 100) AS n")
    return _main[cluster]


def refused(status, words, function, *args):
    """The call is refused with that status and a message that holds all words."""
    try:
        function(*args)
    except ApiError as error:
        assert error.status in (status if isinstance(status, tuple) else (status,)), error
        text = json.dumps(error.body)
        assert all(w.lower() in text.lower() for w in words), text
        assert isinstance(error.body, dict) and error.body.get("message") and error.body.get("code"), error.body
        return
    raise AssertionError("it was accepted")


def everything_lives(cluster):
    for row in cluster.rows():
        process = cluster.process(row["name"])
        assert process.alive(), f"{row['name']} died"
        assert http("GET", process.http_url + "/healthz", raw=True) is not None
    assert main_branch(cluster).value("SELECT count(*) FROM kept") == "100"


def test_unknown_ids(cluster):
    project = main_branch(cluster).project
    refused(404, ["project"], cluster.api, "GET", "/projects/no-such-12345678")
    refused(404, ["branch"], project.api, "GET", "/branches/br-no-such-00000000")
    refused(404, ["endpoint"], project.api, "GET", "/endpoints/ep-no-such-00000000")
    refused(404, [], cluster.api, "GET", "/no/such/route")
    nobody = "00112233445566778899aabbccddeeff"
    for process in [cluster.pageserver, *cluster.safekeepers]:
        refused(404, [nobody[:8]], http, "GET", f"{process.http_url}/v1/tenants/{nobody}/timelines/{nobody}")
        refused(400, ["tenant"], http, "GET", f"{process.http_url}/v1/tenants/..%2f..%2fetc/timelines/{nobody}")


def test_malformed_and_impossible_lsns(cluster):
    project = main_branch(cluster).project
    def create(**at):
        return project.api("POST", "/branches", {"branch": {"name": "bad", **at}})
    refused(400, ["lsn", "zzz"], lambda: create(parent_lsn="zzz"))
    refused(400, ["lsn"], lambda: create(parent_lsn="1/2/3"))
    refused(400, ["lsn"], lambda: create(parent_lsn="FFFFFFFF/FFFFFFFF")) # in the future
    refused(400, ["lsn"], lambda: create(parent_lsn="0/8"))               # below what is kept
    refused(400, ["time"], lambda: create(parent_timestamp="yesterday"))
    refused(400, ["time"], lambda: create(parent_timestamp="2999-01-01T00:00:00Z"))
    refused(400, ["time"], lambda: create(parent_timestamp="1999-01-01T00:00:00Z"))
    refused(404, ["br-no-such"], lambda: create(parent_id="br-no-such-00000000"))
    assert "bad" not in [b["name"] for b in project.branches()]


def test_malformed_json_and_names(cluster):
    project = main_branch(cluster).project
    url = cluster.control.http_url + "/api/v2/projects"
    for body in (b"{", b"[]", b'{"project": 7}', b'{"project": {"name": 7}}', b"\xff\xfe", b'{"a":' * 5000):
        try:
            answer = raw_http(url, body)
        except OSError as error:
            raise AssertionError(f"{body[:20]}: {error}") from None
        assert b" 400 " in answer.split(b"\r\n", 1)[0], answer[:200]
        assert b'"message"' in answer
    refused((400, 409), ["main"], lambda: project.api("POST", "/branches", {"branch": {"name": "main"}}))
    refused(400, ["name"], lambda: project.api("POST", "/branches", {"branch": {"name": "x" * 5000}}))


def raw_http(url, body):
    host, port = url.split("/")[2].split(":")
    with socket.create_connection((host, int(port)), timeout=20) as s:
        path = "/" + url.split("/", 3)[3]
        s.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
                  "Connection: close\r\n\r\n".encode() + body)
        return read_all(s)


def read_all(s):
    answer = b""
    try:
        while piece := s.recv(65536):
            answer += piece
    except (ConnectionResetError, TimeoutError):
        pass
    return answer


CRC32C_TABLE = []
for i in range(256):
    c = i
    for _ in range(8):
        c = c >> 1 ^ (0x82F63B78 if c & 1 else 0)
    CRC32C_TABLE.append(c)


def crc32c(data):
    c = 0xFFFFFFFF
    for byte in data:
        c = c >> 8 ^ CRC32C_TABLE[(c ^ byte) & 255]
    return c ^ 0xFFFFFFFF


def frame(kind, payload, channel=0, request=1, size=None, magic=0x31424E41):
    header = struct.pack("<IIHBBIQI", magic, len(payload) if size is None else size, kind, 1, 0, channel, request, 0)
    return header + struct.pack("<I", crc32c(header + payload)) + payload


def hello(tenant=b"\x11" * 16, timeline=b"\x22" * 16, role=1, low=1, high=1):
    return (struct.pack("<HHB", low, high, role) + tenant + timeline + struct.pack("<HHIQIQQ", 0, 1, 170000, 0, 0, 1, 1)
            + struct.pack("<I", 0))


def test_garbage_on_every_framed_port(cluster):
    main_branch(cluster)
    rng = random.Random(1)
    for process in [cluster.pageserver, *cluster.safekeepers]:
        host, port = process.row["listen"].split(":")
        stranger = frame(1, hello(role=1 if process.name.startswith("pageserver") else 3))
        pieces = [stranger, b"GET / HTTP/1.1\r\n\r\n", rng.randbytes(5000), b"", b"ANB1", frame(1, b"")[:20], frame(1, b"x" * 10),
                  frame(1, b"", size=0xFFFFFFFF), frame(999, b"hi"), frame(48, b"\x00" * 37, channel=77),
                  frame(19, rng.randbytes(300), channel=3), frame(1, hello()), frame(1, hello(role=9)),
                  frame(1, hello(low=7, high=9)), frame(1, hello())[:-3], frame(1, hello()) + rng.randbytes(100)]
        flipped = bytearray(frame(1, hello()))
        flipped[40] ^= 1
        for piece in [*pieces, bytes(flipped)]:
            with socket.create_connection((host, int(port)), timeout=10) as s:
                s.sendall(piece)
                s.shutdown(socket.SHUT_WR)
                answer = read_all(s)
                if piece == stranger: # well-formed, unknown tenant: told so
                    assert struct.unpack_from("<H", answer, 8)[0] == 3, answer[:60]
                    assert b"tenant" in answer.lower() or b"timeline" in answer.lower(), answer[32:]
    everything_lives(cluster)


class LyingPageserver(socketserver.BaseRequestHandler):
    """Passes on what a compute and the pageserver say; behind every page comes garbage, in the same piece."""

    def handle(self):
        with socket.create_connection(self.server.pageserver) as pageserver:
            threading.Thread(target=self.ask, args=(pageserver,), daemon=True).start()
            answers = pageserver.makefile("rb")
            while len(header := answers.read(32)) == 32:
                size, kind = struct.unpack_from("<IH", header, 4)
                piece = header + answers.read(size)
                if kind == 49: # GET_PAGE_REPLY
                    self.server.lies += 1
                    piece += b"garbage?" * 8
                try:
                    self.request.sendall(piece)
                except OSError:
                    break

    def ask(self, pageserver):
        try:
            while piece := self.request.recv(65536):
                pageserver.sendall(piece)
            pageserver.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass # one of them hung up


def test_garbage_behind_an_answer_costs_no_query(cluster):
    """The answer counts; who sent garbage is left, and asked anew only for what comes next."""
    host, port = cluster.pageserver.row["listen"].split(":")
    branch = main_branch(cluster).project.create_branch("lied-to", main_branch(cluster), endpoint=False)
    branch.add_endpoint(**{"anabranch.local_cache_mb": "0"}) # which would have every page
    uri = wait_for("it runs", lambda: branch.compute().get("superuser_uri"))
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), LyingPageserver) as liar, pq.connect(uri) as db:
        liar.daemon_threads, liar.pageserver, liar.lies = True, (host, int(port)), 0
        threading.Thread(target=liar.serve_forever, daemon=True).start()
        db.query("CREATE EXTENSION pg_buffercache; CREATE TABLE lied AS SELECT generate_series(1, 5000) AS n")
        conf = pathlib.Path(db.value("SHOW config_file"))
        honest = conf.read_text()
        conf.write_text(honest + f"anabranch.pageserver_port = {liar.server_address[1]}\n")
        db.query("SELECT pg_reload_conf()")
        wait_for("it asks the liar", lambda: db.value("SHOW anabranch.pageserver_port") == str(liar.server_address[1]))
        for _ in range(5):
            db.query("SELECT pg_buffercache_evict(bufferid) FROM pg_buffercache"
                     " WHERE relfilenode = pg_relation_filenode('lied')")
            assert db.value("SELECT sum(n) FROM lied") == str(5000 * 5001 // 2)
        conf.write_text(honest)
        db.query("SELECT pg_reload_conf()")
        wait_for("it asks the pageserver", lambda: db.value("SHOW anabranch.pageserver_port") == port)
        liar.shutdown()
        assert liar.lies >= 5, liar.lies


def test_garbage_on_every_http_port(cluster):
    main_branch(cluster)
    rng = random.Random(2)
    for row in cluster.rows():
        host, port = row["http"].split(":")
        for piece in (rng.randbytes(3000), b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"POST /v1 HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
                      b"GET /" + b"a" * 100000 + b" HTTP/1.1\r\n\r\n", b"PUT /v1/tenants/zz HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n{{{",
                      b"GET /%00%ff/..%2f HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"):
            with socket.create_connection((host, int(port)), timeout=20) as s:
                try:
                    s.sendall(piece)
                    s.shutdown(socket.SHUT_WR)
                    read_all(s)
                except OSError:
                    pass # it hung up first: fine
    everything_lives(cluster)


def test_flipped_bit_in_a_wal_segment_is_reported_not_served_and_repaired(fresh_cluster):
    project = fresh_cluster.create_project("rot")
    main = project.main()
    with main.connect() as db:
        db.query("CREATE TABLE kept AS SELECT i, md5(i::text) FROM generate_series(1, 20000) i")
        for _ in range(3): # later commits prove that what lies before them was durable: it cannot be a torn tail
            db.query("CREATE TEMPORARY TABLE later AS SELECT 1")
            db.query("DROP TABLE later")
    safekeeper = fresh_cluster.safekeepers[0]
    safekeeper.kill()
    segment = next(p for p in sorted(safekeeper.folder.rglob("0000000100000000*")) if p.suffix == "")
    with open(segment, "r+b") as file: # inside the WAL that was written and acknowledged
        data = file.read()
        at = len(data.rstrip(b"\x00")) - 200000
        file.seek(at)
        file.write(bytes([data[at] ^ 0x10]))
    others = fresh_cluster.safekeepers[1:]
    for other in others: # otherwise they have repaired it before anybody looks
        other.kill(signal.SIGSTOP)
    safekeeper.start(ready=False) # one timeline is out of service, and it says so
    def says_so():
        states = [t["storage"] for t in http("GET", safekeeper.http_url + "/v1/tenants")["timelines"]]
        return next((s for s in states if s not in ("ok", "opening")), None)
    why = wait_for("the safekeeper reports the damage", says_so)
    assert "failed" in why and ("checksum" in why or "crc" in why.lower()), why
    for other in others:
        other.kill(signal.SIGCONT)
    with main.connect() as db: # the other two go on
        db.query("INSERT INTO kept VALUES (0, 'after')")
        assert db.value("SELECT count(*) FROM kept") == "20001"
    wait_for("the others have repaired it", lambda: says_so() is None)
    assert segment.read_bytes()[at] == data[at]


def test_full_disk_at_a_safekeeper_is_back_pressure(fresh_cluster):
    """One member's disk is full: the others go on, it says so, and catches up by itself when space returns."""
    project = fresh_cluster.create_project("full")
    main = project.main()
    with main.connect() as db:
        db.query("CREATE TABLE kept (n int)")
        safekeeper = fresh_cluster.safekeepers[0]
        safekeeper.arm("wal_store.before_write=full")
        for n in range(50):
            db.query(f"INSERT INTO kept VALUES ({n})")

        def state():
            return [http("GET", s.http_url + "/v1/tenants")["timelines"][0] for s in fresh_cluster.safekeepers]
        assert state()[0]["flush_lsn"] != state()[1]["flush_lsn"]
        assert safekeeper.alive()
        safekeeper.arm("")
        wait_for("it catches up", lambda: len({s["flush_lsn"] for s in state()}) == 1)
        assert db.value("SELECT count(*) FROM kept") == "50"


def test_damaged_tenant_is_out_of_service_alone(fresh_cluster):
    """What cannot be opened says so; all others are served, and it comes back by itself once it can be opened."""
    pageserver = fresh_cluster.pageserver
    hurt, well = (fresh_cluster.create_project(name).main() for name in ("hurt", "well"))
    for branch in (hurt, well):
        branch.sql("CREATE TABLE kept AS SELECT i FROM generate_series(1, 1000) i")
    timeline = hurt.get()["timeline_id"]
    tenant = next(t["tenant"] for t in http("GET", pageserver.http_url + "/v1/status")["tenants"]
                  if timeline in [row["timeline"] for row in t["timelines"]])
    pageserver.kill()
    current = pageserver.folder / "tenants" / tenant / "CURRENT"
    content = current.read_text()
    current.write_text("MANIFEST-999999\n")
    pageserver.start(ready=False)

    def refusal(url):
        try:
            http("GET", url, raw=True)
        except ApiError as error:
            return error.status, str(error)
        return None, ""
    status, said = wait_for("it is not ready", lambda: refusal(pageserver.http_url + "/readyz"))
    assert status == 503 and tenant in said and "MANIFEST-999999" in said, (status, said)
    status, said = refusal(f"{pageserver.http_url}/v1/tenants/{tenant}")
    assert status == 503 and "out of service" in said, (status, said)
    assert well.value("SELECT count(*) FROM kept") == "1000"
    well.sql("INSERT INTO kept VALUES (0)")
    current.write_text(content)
    wait_for("it is attached again", lambda: pageserver.ready(), 60)
    assert hurt.value("SELECT count(*) FROM kept") == "1000"
    hurt.sql("INSERT INTO kept VALUES (0)")
    # What cannot be mended is given up, and comes from the object store and the safekeepers.
    pageserver.kill()
    current.write_text("MANIFEST-999999\n")
    pageserver.start(ready=False)
    said = wait_for("it says so again", lambda: refusal(pageserver.http_url + "/readyz")[1])
    assert "POST /v1/tenants/TENANT/remote/restore" in said, said
    http("POST", f"{pageserver.http_url}/v1/tenants/{tenant}/remote/restore")
    wait_for("it is attached again", lambda: pageserver.ready(), 60)
    wait_for("it has caught up", lambda: http("GET", f"{pageserver.http_url}/v1/tenants/{tenant}")["timelines"])
    assert hurt.value("SELECT count(*) FROM kept") == "1001"
