"""Bytes that no client of ours sends, against the API of a control that runs alone (access.Control).

After each case the same process has to answer an ordinary request at once; at the end it has grown by little, has no
connection of ours left and has written no secret. No case may end in a 5xx: what is wrong is the sender's doing.
"""
import contextlib
import pathlib
import resource
import socket
import urllib.parse

DEEP = 200000


def request(method, path, headers, body=b"", version="1.1"):
    lines = [f"{method} {path} HTTP/{version}", *(f"{n}: {v}" for n, v in headers)]
    return "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n" + body


class Catalogue:
    def __init__(self, control, token, project):
        self.control, self.project = control, project
        self.address = (urllib.parse.urlsplit(control.url).hostname, urllib.parse.urlsplit(control.url).port)
        self.auth = [("Host", "x"), ("Authorization", f"Bearer {token}")]

    def send(self, data):
        """All that comes back until the server closes; b"" when it just closes."""
        with socket.create_connection(self.address, timeout=40) as raw:
            received = b""
            try:
                raw.sendall(data)
                raw.shutdown(socket.SHUT_WR)
            except OSError:
                pass # it did not want to hear the rest, and may have said why
            try:
                while piece := raw.recv(65536):
                    received += piece
            except ConnectionResetError:
                pass
            return received

    def post(self, body, path="/api/v2/projects"):
        return self.send(request("POST", path, [*self.auth, ("Content-Type", "application/json"),
                                                ("Content-Length", len(body)), ("Connection", "close")], body))

    def statuses(self, received):
        return [int(line.split()[1]) for line in received.split(b"\r\n") if line.startswith(b"HTTP/1.")]

    def bodies(self):
        deep = b"[" * DEEP + b"]" * DEEP
        return {
            "deep arrays": b'{"project": ' + deep + b"}",
            "deep objects": b'{"project": ' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"}",
            "no end": b'{"project": {"name": "x"',
            "a key twice": b'{"project": {"name": "x"}, "project": {"name": "y"}}',
            "bad UTF-8": b'{"project": {"name": "\xff\xfe"}}',
            "a lone surrogate": b'{"project": {"name": "\\ud800"}}',
            "a NUL": b'{"project": {"name": "a\\u0000b"}}',
            "a byte order mark": b'\xef\xbb\xbf{"project": {}}',
            "UTF-16": '{"project": {}}'.encode("utf-16"),
            "an array": b"[]",
            "a number": b"7",
            "a huge number": b'{"project": {"history_retention_seconds": 1e400}}',
            "an endless number": b'{"project": {"history_retention_seconds": ' + b"9" * 100000 + b"}}",
            "a negative one": b'{"project": {"history_retention_seconds": -1}}',
            "a fraction": b'{"project": {"pg_version": 17.5}}',
            "not a number": b'{"project": {"pg_version": NaN}}',
            "a comment": b'{"project": {} /* x */}',
            "a long name": b'{"project": {"name": "' + b"x" * 100000 + b'"}}',
            "another type": b'{"project": [{"name": "x"}]}',
            "behind the end": b'{"project": []} {"project": {}}',
        }

    def raw(self):
        post = [*self.auth, ("Content-Type", "application/json")]
        good = b'{"project": 7}'
        return {
            "length and chunks": request("POST", "/api/v2/projects", [
                *post, ("Content-Length", 4), ("Transfer-Encoding", "chunked")], b"e\r\n" + good + b"\r\n0\r\n\r\n"),
            "two lengths": request("POST", "/api/v2/projects", [*post, ("Content-Length", 14), ("Content-Length", 3)], good),
            "a length of letters": request("POST", "/api/v2/projects", [*post, ("Content-Length", "all")], good),
            "a negative length": request("POST", "/api/v2/projects", [*post, ("Content-Length", "-1")], good),
            "an endless length": request("POST", "/api/v2/projects", [*post, ("Content-Length", "9" * 40)], good),
            "chunks without sizes": request("POST", "/api/v2/projects", [*post, ("Transfer-Encoding", "chunked")], b"zz\r\n"),
            "a chunk that overflows": request("POST", "/api/v2/projects", [
                *post, ("Transfer-Encoding", "chunked")], b"ffffffffffffffffff\r\nx"),
            "a header of 1 MB": request("GET", "/api/v2/users/me", [*self.auth, ("X-Long", "x" * 1000000)]),
            "10000 headers": request("GET", "/api/v2/users/me", [*self.auth, *((f"X-{i}", i) for i in range(10000))]),
            "a path of 100 KB": request("GET", "/api/v2/" + "x" * 100000, self.auth),
            "a path of many parts": request("GET", "/api/v2" + "/x" * 1000, [*self.auth, ("Connection", "close")]),
            "dots": request("GET", "/api/v2/projects/../../v1/nodes", [*self.auth, ("Connection", "close")]),
            "escaped dots": request("GET", "/api/v2/projects/%2e%2e%2f%2e%2e", [*self.auth, ("Connection", "close")]),
            "a NUL in the path": request("GET", "/api/v2/projects/a%00b", [*self.auth, ("Connection", "close")]),
            "a broken escape": request("GET", "/api/v2/projects/%zz", [*self.auth, ("Connection", "close")]),
            "no protocol": b"GET /api/v2/projects\r\n\r\n",
            "another protocol": b"GET /api/v2/projects HTTP/9.9\r\n\r\n",
            "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 500 + b"\r\n\r\n",
            "Postgres": b"\x00\x00\x00\x08\x04\xd2\x16\x2f",
            "zeros": b"\x00" * 10000,
            "a method of 10 KB": request("X" * 10000, "/api/v2/projects", self.auth),
            "a hundred at once": request("GET", "/api/v2/users/me", self.auth) * 100,
        }

    def lives(self, what):
        status, answer = self.control.call("GET", "/api/v2/users/me")
        assert status == 200, (what, status, answer)

    def rss_kb(self):
        text = pathlib.Path(f"/proc/{self.control.process.pid}/status").read_text()
        return int(next(line for line in text.splitlines() if line.startswith("VmRSS")).split()[1])

    def run(self):
        before, count = self.rss_kb(), len(self.control.ok("GET", "/api/v2/projects?limit=400")["projects"])
        for what, body in self.bodies().items():
            statuses = self.statuses(self.post(body))
            assert statuses and all(400 <= s < 500 for s in statuses), (what, statuses)
            self.lives(what)
        for what, data in self.raw().items():
            statuses = self.statuses(self.send(data))
            assert all(s < 500 or s == 505 for s in statuses), (what, statuses)
            assert all(s >= 400 for s in statuses) or what == "a hundred at once", (what, statuses)
            self.lives(what)
        projects = self.control.ok("GET", "/api/v2/projects?limit=400")["projects"]
        assert len(projects) == count, projects[count:] # nothing of all that made one
        assert self.rss_kb() - before < 64 * 1024, (before, self.rss_kb())

    def run_slow(self):
        """Many that send a part and wait: others are served meanwhile, also when all places are taken by them."""
        waiting = []
        try:
            for i in range(300):
                raw = socket.create_connection(self.address, timeout=40)
                raw.sendall(request("POST", "/api/v2/projects", [*self.auth, ("Content-Length", 100000)], b"{")
                            if i % 2 else b"GET /api/v2/users/me HTTP/1.1\r\nHost: x\r\nX-Slow: ")
                waiting.append(raw)
            self.lives("300 slow ones")
            before = self.rss_kb()
            for raw in waiting:
                raw.sendall(b"x")
            self.lives("300 slow ones that go on")
            assert self.rss_kb() - before < 32 * 1024
        finally:
            for raw in waiting:
                raw.close()
        self.lives("they are gone")

    def run_large(self):
        body = b'{"project": {"name": "' + b"x" * (9 << 20) + b'"}}'
        assert self.statuses(self.post(body)) in ([413], []), "9 MiB"
        chunks = b"".join(b"100000\r\n" + b"y" * 0x100000 + b"\r\n" for _ in range(9)) + b"0\r\n\r\n"
        received = self.send(request("POST", "/api/v2/projects", [
            *self.auth, ("Transfer-Encoding", "chunked"), ("Connection", "close")], chunks))
        assert self.statuses(received) in ([413], []), received[:200]
        self.lives("large ones")
        # One of 8 MiB took seconds to read and hundreds of MB; what is kept is shown again in every list.
        before = self.rss_kb()
        body = b'{"project": {"settings": {"a": [' + b"[]," * (1 << 20) + b"1]}}}"
        assert self.statuses(self.post(body)) == [413], "3 MiB of brackets"
        assert self.rss_kb() - before < 32 * 1024, (before, self.rss_kb())
        for member in ("settings", "default_endpoint_settings"):
            value = {"x": "y" * (100 << 10)}
            value = {"pg_settings": value} if member != "settings" else value
            status, answer = self.control.call("POST", "/api/v2/projects", {"project": {member: value}})
            assert status == 400 and "at most 64 KiB" in answer["message"], (member, status, answer)

    def run_all_places(self):
        """More slow ones than there are places, with a request that anybody may make: they go, for one who asks."""
        waiting, count = [], 1100
        files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(files, min(2 * count, most)), most)) # a login shell has 1,024
        try:
            for i in range(count):
                raw = socket.create_connection(self.address, timeout=40)
                with contextlib.suppress(OSError):
                    raw.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n" if i % 2 else b"GET /healthz")
                waiting.append(raw)
            self.lives("all places are taken by slow ones")
        finally:
            for raw in waiting:
                raw.close()
