"""Idempotency-Key: a request with one is done once, whatever dies, and a repetition gets the same answer.

Control runs alone, as for access.py: what is promised lies in its catalog.
"""
import http.client
import json
import pathlib
import threading
import urllib.error
import urllib.parse

DAY = 24 * 3600
OWNER = "owner-secret-of-the-test"


def keyed(key):
    return {"Idempotency-Key": key}


class Test:
    def __init__(self, make_control, build, folder):
        self.make = lambda: make_control(build, folder, "--key_requests_per_s=0")
        self.control = self.make()

    def stop(self):
        self.control.stop()

    def restart(self):
        self.control.process.wait(30)
        self.control.log.close()
        (pathlib.Path(self.control.folder) / "ports.json").unlink(missing_ok=True)
        self.control = self.make()

    def post(self, key, body, path="/api/v2/projects", method="POST", **options):
        return self.control.call(method, path, body, headers=keyed(key), **options)

    def named(self, name):
        return [p for p in self.control.ok("GET", "/api/v2/projects?limit=400")["projects"] if p["name"] == name]

    def test_a_repetition_gets_the_same_answer(self):
        body = {"project": {"name": "once"}}
        first = self.post("a", body)
        assert first[0] == 201 and self.post("a", body) == first
        self.control.ok("PATCH", f"/api/v2/projects/{first[1]['project']['id']}", {"project": {"name": "twice"}})
        assert self.post("a", body) == first, "as it was given, not as it would be now"
        assert not self.named("once") and len(self.named("twice")) == 1
        self.control.process.kill()
        self.restart()
        assert self.post("a", body) == first
        made = first[1]
        path = f"/api/v2/projects/{made['project']['id']}/branches/{made['branch']['id']}"
        for method, at, body in (("PATCH", path, {"branch": {"name": "trunk"}}),
                                 ("POST", path + "/roles", {"role": {"name": "r"}}),
                                 ("DELETE", path + "/roles/r", None),
                                 ("PATCH", f"/api/v2/projects/{made['project']['id']}", {"project": {"name": "x"}}),
                                 ("POST", f"/api/v2/projects/{made['project']['id']}/endpoints/"
                                          f"{made['endpoints'][0]['id']}/suspend", None)):
            first = self.post("of all", body, at, method)
            assert first[0] in (200, 201) and self.post("of all", body, at, method) == first, (method, at, first)

    def test_a_long_answer_is_made_anew(self):
        """What is not kept shows what is there by then, and nothing is done twice."""
        body = {"project": {"name": "long", "settings": {"filler": "x" * 10000}}}
        status, first = self.post("long", body)
        self.control.ok("PATCH", f"/api/v2/projects/{first['project']['id']}", {"project": {"name": "longer"}})
        again = self.post("long", body)
        assert (status, again[0]) == (201, 201) and again[1]["project"]["name"] == "longer", again
        assert again[1]["project"]["id"] == first["project"]["id"] and len(self.named("longer")) == 1
        self.control.ok("DELETE", f"/api/v2/projects/{first['project']['id']}")

    def test_another_body_is_refused(self):
        assert self.post("b", {"project": {"name": "one body"}})[0] == 201
        status, answer = self.post("b", {"project": {"name": "another body"}})
        assert (status, answer["code"]) == (422, "IDEMPOTENCY_KEY_REUSED"), answer
        assert not self.named("another body")

    def test_a_key_belongs_to_its_caller_and_route(self):
        made = self.control.ok("POST", "/api/v2/api_keys", {"key_name": "another caller"})
        body = {"project": {"name": "each"}}
        assert self.post("c", body)[0] == 201 and self.post("c", body, token=made["key"])[0] == 201
        assert len(self.named("each")) == 2
        status, answer = self.post("c", {"key_name": "each"}, "/api/v2/api_keys")
        assert status == 200 and answer["key"], answer

    def test_what_is_refused_leaves_no_trace(self):
        assert self.post("d", {"project": {"name": 7}})[0] == 400
        assert self.post("d", {"project": {"name": "after all"}})[0] == 201
        for key in ("", "x" * 256, "umlaut-\u00e4", "tab\tin it"):
            status, answer = self.post(key, {"project": {"name": "no"}})
            assert (status, answer["code"]) == (400, "IDEMPOTENCY_KEY_INVALID"), (key, status, answer)
        assert not self.named("no")

    def test_a_secret_is_not_kept(self):
        first = self.post("e", {"key_name": "shown once"}, "/api/v2/api_keys")
        assert first[0] == 200 and first[1]["key"]
        status, answer = self.post("e", {"key_name": "shown once"}, "/api/v2/api_keys")
        assert (status, answer["code"]) == (409, "IDEMPOTENT_SECRET"), answer
        keys = [k for k in self.control.ok("GET", "/api/v2/api_keys") if k["name"] == "shown once"]
        assert len(keys) == 1, keys
        for path in pathlib.Path(self.control.folder).rglob("*"):
            assert not path.is_file() or first[1]["key"].encode() not in path.read_bytes(), path

    def test_many_at_once_do_it_once(self):
        address = urllib.parse.urlsplit(self.control.url).netloc
        answers, body = [], json.dumps({"project": {"name": "at once"}})

        def ask():
            connection = http.client.HTTPConnection(address, timeout=30)
            connection.request("POST", "/api/v2/projects", body, {
                "Authorization": f"Bearer {OWNER}", "Content-Type": "application/json", **keyed("f")})
            answer = connection.getresponse()
            answers.append((answer.status, json.loads(answer.read())))
            connection.close()

        threads = [threading.Thread(target=ask) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        done = [a["project"]["id"] for status, a in answers if status == 201]
        others = [(status, a["code"]) for status, a in answers if status != 201]
        assert done and len(set(done)) == 1 and set(others) <= {(409, "IDEMPOTENCY_KEY_IN_USE")}, answers
        assert len(self.named("at once")) == 1

    def test_it_is_kept_for_a_day(self):
        body = {"project": {"name": "a day"}}
        first = self.post("g", body)
        try:
            self.control.ok("PUT", "/v1/clock", {"ahead_seconds": DAY - 60})
            assert self.post("g", body) == first
            self.control.ok("PUT", "/v1/clock", {"ahead_seconds": DAY + 60})
            second = self.post("g", body)
            assert second[0] == 201 and second[1]["project"]["id"] != first[1]["project"]["id"]
            assert self.post("g", body) == second
        finally:
            self.control.ok("PUT", "/v1/clock", {"ahead_seconds": 0})

    def test_a_death_at_any_point_does_it_once(self):
        # The first commit is what was asked for, the second keeps the answer; then it is given.
        for hit in (1, 2):
            name, key = f"killed {hit}", f"h{hit}"
            self.arm(f"catalog.after_write=crash@{hit}*1")
            try:
                self.post(key, {"project": {"name": name}})
                raise AssertionError(f"{hit}: it lives")
            except (urllib.error.URLError, http.client.HTTPException, ConnectionError):
                pass
            self.restart()
            assert len(self.named(name)) == 1, hit
            status, answer = self.post(key, {"project": {"name": name}})
            assert status == 201 and [p["id"] for p in self.named(name)] == [answer["project"]["id"]], (hit, answer)
            assert answer["connection_uris"] and answer["operations"], answer
            assert self.post(key, {"project": {"name": "another"}})[0] == 422

    def test_a_lost_answer_about_something_gone_says_so(self):
        made = self.control.ok("POST", "/api/v2/projects", {"project": {"name": "holder"}})
        path = f"/api/v2/projects/{made['project']['id']}/branches/{made['branch']['id']}/roles"
        self.arm("catalog.after_write=crash@1*1")
        try:
            self.post("i", {"role": {"name": "lost"}}, path)
            raise AssertionError("it lives")
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError):
            pass
        self.restart()
        self.control.ok("DELETE", path + "/lost")
        status, answer = self.post("i", {"role": {"name": "lost"}}, path)
        assert (status, answer["code"]) == (409, "IDEMPOTENT_ANSWER_LOST"), answer

    def arm(self, spec):
        connection = http.client.HTTPConnection(urllib.parse.urlsplit(self.control.url).netloc, timeout=30)
        connection.request("PUT", "/faults", spec, {"Authorization": f"Bearer {OWNER}"})
        assert connection.getresponse().status == 200
        connection.close()
