#!/usr/bin/env python3
"""Who may call which route: every route that control lists, by every kind of caller, cell by cell.

Control runs alone, its nodes are addresses where nobody listens: nothing here needs them. What is expected stands in
access.txt, one line a route with its class; a route without a line, or a line without a route, is a failure. Requests
name branches, endpoints and the like that do not exist, so that one that is let in changes nothing.
Also: keys are kept as hashes only, quotas, throttling, the record of changes, that no secret gets into a file, and what
bytes do that no client sends (malformed.py), that bodies are as our OpenAPI file says (bodies.py), and that what has an Idempotency-Key is done once (idempotent.py).
Prints `ok NAME` or `FAILED NAME`.
"""
import argparse
import http.server
import json
import pathlib
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import urllib.error
import urllib.parse
import urllib.request

import audit
import bodies
import idempotent
import malformed

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
OWNER = "owner-secret-of-the-test"
NODES = ["--safekeepers=1@127.0.0.1:1/2,2@127.0.0.1:3/4,3@127.0.0.1:5/6", "--pageservers=1@127.0.0.1:7/8",
         "--agents=1@127.0.0.1:9"]

# What each class means for each caller. "in": let in, whatever the handler says then.
CALLERS = ["nobody", "garbage", "no key", "revoked", "owner", "organisation", "organisation reads", "project",
           "project reads", "other project"]
OPEN = dict.fromkeys(CALLERS, "in")
KEYS_IN = {"nobody": 401, "garbage": 401, "no key": 401, "revoked": 401, "owner": "in"}
CLASSES = {
    "open": OPEN,
    "owner": {**KEYS_IN, **dict.fromkeys(CALLERS[5:], 403)},
    "any": {**KEYS_IN, **dict.fromkeys(CALLERS[5:], "in")},
    "organisation": {**KEYS_IN, "organisation": "in", "organisation reads": "reads", "project": 403,
                     "project reads": 403, "other project": 403},
    "project": {**KEYS_IN, "organisation": "in", "organisation reads": "reads", "project": "in",
                "project reads": "reads", "other project": 404},
}
SECRET = ("/reveal_password", "/connection_uri") # reading it is no mere reading


class Control:
    def __init__(self, build, folder, *settings):
        self.folder = pathlib.Path(folder)
        self.log = open(self.folder / "log", "a")
        self.process = subprocess.Popen(
            [str(pathlib.Path(build) / "control/control"), f"--data_dir={folder}", "--http_port=0",
             f"--http_token={OWNER}", "--faults", *NODES, *settings], stdout=self.log, stderr=self.log)
        ports = self.folder / "ports.json"
        deadline = time.monotonic() + 60
        self.url = None
        while self.url is None:
            assert self.process.poll() is None, (self.folder / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, "control does not start"
            if ports.exists() and str(self.process.pid) in ports.read_text():
                self.url = f"http://127.0.0.1:{json.loads(ports.read_text())['http_port']}"
            else:
                time.sleep(0.02)

    def call(self, *args, **options):
        return self.exchange(*args, **options)[:2]

    def exchange(self, method, path, body=None, token=OWNER, headers=()):
        """-> status, answer, its headers"""
        request = urllib.request.Request(
            self.url + path, method=method, data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {}),
                     **dict(headers)})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=30) as answer:
                return answer.status, json_or_text(answer.read()), answer.headers
        except urllib.error.HTTPError as error:
            return error.code, json_or_text(error.read()), error.headers

    def ok(self, method, path, body=None, **options):
        status, answer = self.call(method, path, body, **options)
        assert 200 <= status < 300, (method, path, status, answer)
        return answer

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
        self.log.close()


def json_or_text(content):
    try:
        return json.loads(content)
    except ValueError:
        return content.decode(errors="replace")


def table():
    rows = {}
    for line in (HERE / "access.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, method, path = line.split()
            rows[method, path] = name
    return rows


def filled(path, project):
    return re.sub(r"\{[a-z_]+\}", "no-such-1", path.replace("{project}", project).replace("{organization}", "org-local"))


def outcome(control, method, path, token):
    # A body that no handler accepts: what is let in is refused later, for what it says.
    status, answer = control.call(method, path, {"project": 7, "key_name": 7, "endpoint": 7, "role": 7, "branch": 7,
                                                 "database": 7, "source_branch_id": 7, "name": 7},
                                  token=token)
    if status in (401, 403):
        return status
    hidden = isinstance(answer, dict) and answer.get("code") == "PROJECT_NOT_FOUND"
    return 404 if status == 404 and hidden else "in"


def wait_until_used(control, ident):
    deadline = time.monotonic() + 30
    while not next(k for k in control.ok("GET", "/api/v2/api_keys") if k["id"] == ident)["last_used_at"]:
        assert time.monotonic() < deadline, "nobody has used it"


class Test:
    def __init__(self, control, build):
        self.control, self.build = control, pathlib.Path(build)
        project = [control.ok("POST", "/api/v2/projects", {"project": {"name": n}}) for n in ("own", "other")]
        self.own, self.other = (p["project"]["id"] for p in project)
        self.branch = project[0]["branch"]["id"]
        revoked = self.key("revoked")
        self.control.ok("DELETE", f"/api/v2/api_keys/{revoked['id']}")
        self.tokens = {
            "nobody": None, "garbage": "\x7f\u00e9 x", "no key": "ab_" + "0" * 64, "revoked": revoked["key"],
            "owner": OWNER, "organisation": self.key("o")["key"],
            "organisation reads": self.key("or", read_only=True)["key"],
            "project": self.key("p", project_id=self.own)["key"],
            "project reads": self.key("pr", project_id=self.own, read_only=True)["key"],
            "other project": self.key("op", project_id=self.other)["key"]}

    def key(self, name, **options):
        return self.control.ok("POST", "/api/v2/api_keys", {"key_name": name, **options})

    def routes(self):
        return [(r["method"], r["path"]) for r in self.control.ok("GET", "/")["routes"]]

    def test_every_route_has_a_row(self):
        rows, routes = table(), set(self.routes())
        assert routes - set(rows) == set(), f"not in access.txt: {sorted(routes - set(rows))}"
        assert set(rows) - routes == set(), f"no routes any more: {sorted(set(rows) - routes)}"

    def test_the_openapi_file_has_every_route(self):
        document = self.control.ok("GET", "/api/v2/openapi.json", token=self.tokens["project reads"])
        assert document["openapi"] == "3.1.0"
        listed = {(m.upper(), "/api/v2" + p): o for p, item in document["paths"].items() for m, o in item.items()}
        expected = {r for r in self.routes() if r[1].startswith("/api/v2/")}
        assert set(listed) == expected, set(listed) ^ expected
        for (method, path), operation in listed.items():
            assert operation["x-access"] == table()[method, path], (method, path)
            in_path = [p["name"] for p in operation["parameters"] if p["in"] == "path"]
            assert in_path == re.findall(r"\{([a-z_]+)\}", path), path
        text = json.dumps(document)
        for name in re.findall(r'"#/components/schemas/(\w+)"', text):
            assert name in document["components"]["schemas"], name

    def test_every_cell(self):
        wrong, cells = [], 0
        for (method, path), name in sorted(table().items(), key=lambda row: row[0][1]):
            for caller in CALLERS:
                want = CLASSES[name][caller]
                if (method, path) == ("DELETE", "/api/v2/projects/{project}") and want == "in":
                    continue # needs no body: it would go. See test_what_a_project_key_sees
                if want == "reads":
                    want = "in" if method == "GET" and not path.endswith(SECRET) else 403
                got = outcome(self.control, method, filled(path, self.own), self.tokens[caller])
                cells += 1
                if got != want:
                    wrong.append(f"{method} {path} by {caller}: {got}, expected {want}")
        print(f"   {cells} cells")
        assert cells > 500 and not wrong, "\n".join(wrong)

    def test_a_token_elsewhere_counts_for_nothing(self):
        token = self.tokens["organisation"]
        for path, headers in ((f"/api/v2/users/me?token={token}&access_token={token}", {}),
                              ("/api/v2/users/me", {"Cookie": f"zenith={token}"}),
                              ("/api/v2/users/me", {"Authorization": token}),
                              ("/api/v2/users/me", {"Authorization": f"Basic {token}"})):
            assert self.control.call("GET", path, token=None, headers=headers)[0] == 401, (path, headers)

    def test_what_a_project_key_sees(self):
        listed = self.control.ok("GET", "/api/v2/projects", token=self.tokens["project"])["projects"]
        assert [p["id"] for p in listed] == [self.own], listed
        listed = self.control.ok("GET", "/api/v2/projects?limit=400", token=self.tokens["organisation"])["projects"]
        assert {self.own, self.other} <= {p["id"] for p in listed}, listed
        path = f"/api/v2/projects/{self.own}/branches/{self.branch}/roles/app/reveal_password"
        assert self.control.ok("GET", path, token=self.tokens["project"])["password"]
        short = self.control.ok("POST", "/api/v2/projects", {"project": {}}, token=self.tokens["organisation"])
        token = self.key("of a short one", project_id=short["project"]["id"])["key"]
        self.control.ok("DELETE", f"/api/v2/projects/{short['project']['id']}", token=token)

    def test_quotas(self):
        token = self.key("quota", project_id=self.own, branches_max=2, computes_max=1)["key"]
        status, answer = self.control.call("POST", "/api/v2/projects", {"project": {}}, token=token)
        assert status == 403, answer
        token = self.key("quota of all", branches_max=1)["key"]
        self.control.ok("POST", "/api/v2/projects", {"project": {"name": "one"}}, token=token)
        status, answer = self.control.call("POST", "/api/v2/projects", {"project": {"name": "two"}}, token=token)
        assert (status, answer["code"]) == (422, "BRANCHES_LIMIT_EXCEEDED"), answer
        # A key with a limit makes no key without one, and takes nobody's away.
        status, answer = self.control.call("POST", "/api/v2/api_keys", {"key_name": "free"}, token=token)
        assert (status, answer["code"]) == (403, "FORBIDDEN"), answer
        status, answer = self.control.call("DELETE", "/api/v2/api_keys/1", token=token)
        assert (status, answer["code"]) == (403, "FORBIDDEN"), answer
        token = self.key("quota of computes", computes_max=1)["key"]
        made = self.control.ok("POST", "/api/v2/projects", {"project": {"name": "three"}}, token=token)
        status, answer = self.control.call("POST", "/api/v2/projects", {"project": {"name": "four"}}, token=token)
        assert (status, answer["code"]) == (422, "COMPUTES_LIMIT_EXCEEDED"), answer
        endpoint = f"/api/v2/projects/{made['project']['id']}/endpoints/{made['endpoints'][0]['id']}"
        self.control.ok("POST", endpoint + "/suspend", token=token)
        second = self.control.ok("POST", "/api/v2/projects", {"project": {"name": "four"}}, token=token)
        assert second["endpoints"], second
        branch = f"/api/v2/projects/{made['project']['id']}/branches/{made['branch']['id']}"
        for method, path, body in (("POST", endpoint + "/start", None), # also for others
                                   ("DELETE", branch + "/databases/app", None), # only a compute can drop it
                                   ("PATCH", branch + "/databases/app", {"database": {"name": "renamed"}})):
            status, answer = self.control.call(method, path, body, token=OWNER)
            assert (status, answer["code"]) == (422, "COMPUTES_LIMIT_EXCEEDED"), (path, answer)

    def test_a_key_cannot_take_all_connections(self):
        """With requests that wait: those beyond its share are refused, and others are served."""
        key, made = self.key("waits")["key"], self.control.ok("POST", "/api/v2/projects", {"project": {"name": "waited for"}})
        address, waiting = urllib.parse.urlsplit(self.control.url), []
        path = f"/api/v2/projects/{made['project']['id']}/operations/{made['operations'][0]['id']}?wait=50s"
        ask = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n".encode()
        try:
            for _ in range(120):
                waiting.append(socket.create_connection((address.hostname, address.port), timeout=30))
                waiting[-1].sendall(ask)
            assert self.control.call("GET", "/api/v2/users/me", token=key)[0] == 429
            refused = []
            while len(refused) < 20:
                refused = select.select(waiting, [], [], 30)[0]
                assert refused, "nobody is refused"
            assert len(refused) == 20 and all(r.recv(100).startswith(b"HTTP/1.1 429 ") for r in refused), len(refused)
            assert self.control.call("GET", "/api/v2/users/me", token=self.tokens["project"])[0] == 200
        finally:
            for one in waiting:
                one.close()

    def test_quotas_hold_for_many_at_once(self):
        token, answers = self.key("raced", branches_max=1, computes_max=1)["key"], []
        threads = [threading.Thread(target=lambda: answers.append(
            self.control.call("POST", "/api/v2/projects", {"project": {"name": "raced"}}, token=token)[0])) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(answers) == [201] + 7 * [422], answers

    def test_names_give_no_orders_to_terminals(self):
        made = self.control.ok("POST", "/api/v2/projects", {"project": {"name": "printed"}})
        project, branch = made["project"]["id"], made["branch"]["id"]
        base, name = f"/api/v2/projects/{project}", "a\x1b]0;title\x07\nrow"
        for method, path, body in (("POST", "/api/v2/projects", {"project": {"name": name}}),
                                   ("PATCH", base, {"project": {"name": "\u009b31m"}}),
                                   ("PATCH", f"{base}/branches/{branch}", {"branch": {"name": "a\x7f"}}),
                                   ("PATCH", f"{base}/endpoints/{made['endpoints'][0]['id']}", {"endpoint": {"name": name}}),
                                   ("POST", "/api/v2/api_keys", {"key_name": name})):
            status, answer = self.control.call(method, path, body)
            assert (status, answer["code"]) == (400, "NAME_INVALID"), (path, status, answer)

        class Elsewhere(http.server.BaseHTTPRequestHandler): # one that takes such names
            def do_GET(self):
                body = json.dumps({"projects": [{"id": "p-1", "name": name}]}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            said = subprocess.run([self.build / "tools/anabranch/anabranch", "projects", "list", "--api-url",
                                   f"http://127.0.0.1:{server.server_port}"], stdout=subprocess.PIPE, check=True).stdout
            server.shutdown()
        assert b"a?]0;title??row" in said and b"\x1b" not in said, said

    def test_a_revoked_key_changes_nothing_more(self):
        """Its headers had come, and its body takes its time."""
        key = self.key("revoked in between")
        body = json.dumps({"key_name": "of the revoked"}).encode()
        address = urllib.parse.urlsplit(self.control.url)
        with socket.create_connection((address.hostname, address.port), timeout=30) as raw:
            raw.sendall(f"POST /api/v2/api_keys HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key['key']}\r\n"
                        f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n".encode())
            assert raw.recv(100).startswith(b"HTTP/1.1 100 "), "it is let in"
            self.control.ok("DELETE", f"/api/v2/api_keys/{key['id']}")
            raw.sendall(body)
            assert raw.recv(100).startswith(b"HTTP/1.1 401 ")
        made, key = self.control.ok("POST", "/api/v2/projects", {"project": {"name": "revoked for"}}), self.key("waits")
        base = f"/api/v2/projects/{made['project']['id']}"
        start = next(o["id"] for o in made["operations"] if o["action"] == "start_compute")
        with socket.create_connection((address.hostname, address.port), timeout=30) as raw:
            ask = f"GET {base}/operations/{start}?wait=50s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key['key']}\r\n\r\n".encode()
            raw.sendall(ask)
            wait_until_used(self.control, key["id"])
            self.control.ok("DELETE", f"/api/v2/api_keys/{key['id']}")
            self.control.ok("POST", f"{base}/endpoints/{made['endpoints'][0]['id']}/suspend") # which ends the start
            assert raw.recv(10000).startswith(b"HTTP/1.1 401 "), "what it waited for is for others"
            raw.sendall(ask)
            assert raw.recv(10000).startswith(b"HTTP/1.1 401 "), "the same connection"
        assert "of the revoked" not in [k["name"] for k in self.control.ok("GET", "/api/v2/api_keys")]

    def test_malformed_bytes(self):
        catalogue = malformed.Catalogue(self.control, OWNER, self.own)
        catalogue.run()
        catalogue.run_slow()
        catalogue.run_large()
        catalogue.run_all_places()

    def test_bodies_are_as_described(self):
        bodies.check(self.control, lambda path: filled(path, self.own))

    def test_no_secret_is_in_any_file(self):
        secrets = [t for n, t in self.tokens.items() if t and n not in ("garbage", "no key")]
        self.control.call("GET", "/api/v2/users/me", headers={"Cookie": f"zenith={secrets[0]}"})
        for path in self.control.folder.rglob("*"):
            content = path.read_bytes() if path.is_file() else b""
            for secret in secrets:
                assert secret.encode() not in content, f"{path} has a key"

    def test_a_change_of_something_newer_is_refused(self):
        made = self.control.ok("POST", "/api/v2/projects", {"project": {"name": "etag"}})
        base = f"/api/v2/projects/{made['project']['id']}"
        for path, member in ((base, "project"), (f"{base}/branches/{made['branch']['id']}", "branch"),
                             (f"{base}/endpoints/{made['endpoints'][0]['id']}", "endpoint")):
            with urllib.request.urlopen(urllib.request.Request(
                    self.control.url + path, headers={"Authorization": f"Bearer {OWNER}"}), timeout=30) as answer:
                etag = {"If-Match": answer.headers["ETag"]}
            self.control.ok("PATCH", path, {member: {"name": "first"}}, headers=etag)
            for method, body in (("PATCH", {member: {"name": "second"}}), ("DELETE", None)):
                status, answer = self.control.call(method, path, body, headers=etag)
                assert (status, answer["code"]) == (412, "PRECONDITION_FAILED"), (method, path, answer)
            assert self.control.ok("GET", path)[member]["name"] == "first"
            self.control.ok("PATCH", path, {member: {"name": "third"}}, headers={"If-Match": "*"})
            self.control.ok("PATCH", path, {member: {"name": "fourth"}})

    def test_gateways_hear_of_what_changed(self):
        made = self.control.ok("POST", "/api/v2/projects", {"project": {"name": "heard of"}})
        project, endpoint = made["project"]["id"], made["endpoints"][0]["id"]

        def said(since):
            return self.control.ok("POST", "/v1/changes", {"since": since, "wait_ms": 0})
        assert said(0)["all"] and said(1 << 62)["all"] # of no control, and of another one
        for path in ("", f"/branches/{made['branch']['id']}", f"/endpoints/{endpoint}"):
            since, member = said(0)["next"], {"b": "branch", "e": "endpoint"}.get(path[1:2], "project")
            self.control.ok("PATCH", f"/api/v2/projects/{project}{path}", {member: {"name": "renamed"}})
            heard = said(since)
            assert not heard["all"] and endpoint in heard["endpoints"], (path, heard)

    def test_audit_of_every_route(self):
        audit.check_routes(self.control, self.own, self.branch)

    def test_audit_of_lists(self):
        audit.check_lists(self.control)

    def test_audit_of_pages(self):
        audit.check_pages(self.control)

    def test_audit_of_versions(self):
        audit.check_versions(self.control)

    def test_audit_of_what_passes(self):
        audit.check_what_passes(self.control)

    def test_audit_of_keys_of_readers(self):
        audit.check_keys_of_readers(self.control)

    def test_changes_are_recorded(self):
        key = self.key("auditor")
        path = f"/api/v2/projects/{self.own}"
        self.control.ok("PATCH", path, {"project": {"name": "audited"}}, token=key["key"])
        self.control.call("DELETE", "/api/v2/projects/no-such-1", token=self.tokens["project reads"])
        lines = [json.loads(line) for line in (self.control.folder / "audit.log").read_text().splitlines()]
        change = next(line for line in lines if line["method"] == "PATCH" and line["actor"] == f"key {key['id']}")
        assert change["path"] == path and change["status"] == 200 and change["address"] == "127.0.0.1", change
        assert lines[-1]["status"] == 404 and lines[-1]["method"] == "DELETE", lines[-1]
        used = next(k for k in self.control.ok("GET", "/api/v2/api_keys") if k["id"] == key["id"])
        assert used["last_used_from_addr"] == "127.0.0.1" and used["last_used_at"], used


def test_keys_live_on_and_are_throttled(build):
    with tempfile.TemporaryDirectory(prefix="anabranch-access-") as folder:
        control = Control(build, folder)
        try:
            key = control.ok("POST", "/api/v2/api_keys", {"key_name": "lives on"})["key"]
            dead = control.ok("POST", "/api/v2/api_keys", {"key_name": "does not"})
            control.ok("DELETE", f"/api/v2/api_keys/{dead['id']}")
        finally:
            control.stop()
        (control.folder / "ports.json").unlink(missing_ok=True)
        control = Control(build, folder, "--key_requests_per_s=1")
        try:
            assert control.call("GET", "/api/v2/users/me", token=dead["key"])[0] == 401
            statuses = [control.call("GET", "/api/v2/users/me", token=key)[0] for _ in range(40)]
            assert statuses[:4] == [200] * 4 and 429 in statuses, statuses
            assert control.call("GET", "/api/v2/users/me")[0] == 200 # the owner is not held up
        finally:
            control.stop()


def run_all(build):
    """(name, function) of each; they share one control."""
    with tempfile.TemporaryDirectory(prefix="anabranch-access-") as folder:
        control = Control(build, folder, "--key_requests_per_s=0")
        try:
            test = Test(control, build)
            for name in [n for n in dir(test) if n.startswith("test_")]:
                yield f"access: {name[5:].replace('_', ' ')}", getattr(test, name)
        finally:
            control.stop()
    with tempfile.TemporaryDirectory(prefix="anabranch-idempotent-") as folder:
        test = idempotent.Test(Control, build, folder)
        try:
            for name in [n for n in dir(test) if n.startswith("test_")]:
                yield f"access: idempotent: {name[5:].replace('_', ' ')}", getattr(test, name)
        finally:
            test.stop()
    yield "access: keys live on and are throttled", lambda: test_keys_live_on_and_are_throttled(build)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", default=str(ROOT / "build"))
    args, failed = parser.parse_args(), 0
    for name, function in run_all(args.build):
        try:
            function()
            print(f"ok {name}", flush=True)
        except Exception: # noqa: BLE001 - any failure is a failed test
            print(f"FAILED {name}")
            traceback.print_exc(file=sys.stdout)
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
