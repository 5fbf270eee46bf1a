"""A local cluster under test: `anabranch local up` in a folder of its own, its REST API, and its processes.

Everything goes through the same doors as a user: the CLI and HTTP. Ends only processes that it started.
"""
import contextlib
import json
import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

import pq

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


class ApiError(Exception):
    def __init__(self, status, body):
        super().__init__(f"HTTP {status}: {body.get('message', body) if isinstance(body, dict) else body}")
        self.status, self.body = status, body


def http(method, url, body=None, timeout=60, raw=False, headers=()):
    """One JSON call; ApiError for any status that is not 2xx."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method, headers={
        "Content-Type": "application/json", **dict(headers)})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=timeout) as answer:
            content = answer.read()
            return content if raw else json.loads(content or b"{}")
    except urllib.error.HTTPError as error:
        content = error.read()
        try:
            content = json.loads(content)
        except ValueError:
            content = content.decode(errors="replace")
        raise ApiError(error.code, content) from None


def wait_for(what, check, timeout_s=60, interval_s=0.05):
    """Poll `check` until it returns something true; the one place that waits, for an event and not for a time."""
    deadline = time.monotonic() + timeout_s
    last = None
    while time.monotonic() < deadline:
        try:
            value = check()
            if value:
                return value
        except (ApiError, pq.Error, OSError) as error:
            last = error
        time.sleep(interval_s)
    raise TimeoutError(f"{what}: not within {timeout_s} s (last: {last})")


class Process:
    """One daemon of the cluster, by its row in cluster.json."""

    def __init__(self, cluster, name):
        self.cluster, self.name = cluster, name

    @property
    def row(self):
        return next(p for p in self.cluster.rows() if p["name"] == self.name)

    @property
    def pid(self):
        return self.row["pid"]

    @property
    def http_url(self):
        return f"http://{self.row['http']}"

    @property
    def folder(self):
        return pathlib.Path(self.row["dir"])

    def alive(self):
        """A killed process holds its locks and ports until its last thread has ended, longer than it is none by its state."""
        try:
            os.kill(self.pid, 0)
            proc = pathlib.Path(f"/proc/{self.pid}")
            return (proc / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z" or len(os.listdir(proc / "task")) > 1
        except (ProcessLookupError, FileNotFoundError):
            return False

    def kill(self, number=signal.SIGKILL):
        os.kill(self.pid, number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            wait_for(f"{self.name} ends", lambda: not self.alive())

    def arm(self, spec):
        """Failpoints, as common/base/fault.h reads them; "" disarms all."""
        request = urllib.request.Request(self.http_url + "/faults", data=spec.encode(), method="PUT")
        with urllib.request.urlopen(request, timeout=30):
            pass

    def set(self, **settings):
        """Settings that `anabranch local` does not know, from its next start on, which is now."""
        conf = pathlib.Path(self.row["conf"])
        conf.with_suffix(".own.conf").write_text("".join(f"{name} = {value}\n" for name, value in settings.items()))
        self.kill(signal.SIGTERM)
        self.start()

    def be_impatient(self):
        """What a pageserver waits for for seconds elsewhere, to gather work, comes at once here."""
        self.set(upload_interval="100ms", flush_age="300ms")

    def wipe(self):
        """Its disk is lost, and another one takes its place."""
        self.kill()
        shutil.rmtree(self.folder)
        self.start()

    def start(self, ready=True):
        """Start it again with the ports it had; returns when it is ready, or with ready=False when it answers at all."""
        if ready:
            self.cluster.cli("local", "restart", self.name)
            return
        before = self.pid
        waiting = self.cluster.cli_in_background("local", "restart", self.name)
        # It may answer before its pid is written down; who is killed next must not be the one before.
        wait_for(f"{self.name} answers", lambda: self.pid != before and
                 http("GET", self.http_url + "/healthz", raw=True) is not None)
        waiting.kill() # it would go on waiting for /readyz
        waiting.wait()

    def ready(self):
        return http("GET", self.http_url + "/readyz", raw=True) is not None


class Cluster:
    """Computes have no local cache unless it is asked for: with one, pages come back from their own disk, and what the
    pageserver makes of them is not looked at."""

    def __init__(self, build, keep=None, object_store=None, safekeepers=3, local_cache_mb=0):
        self.local_cache_mb = local_cache_mb
        self.safekeeper_count = safekeepers
        self.object_store = object_store # a URL; None: a folder of the cluster
        self.build = pathlib.Path(build).resolve()
        base = keep or tempfile.mkdtemp(prefix="anabranch-", dir=os.environ.get("ANABRANCH_TEST_DIR", "/tmp"))
        self.folder = pathlib.Path(base)
        os.chmod(self.folder, 0o755) # Postgres runs as another user when we are root
        self.data = self.folder / "cluster"
        self.postgres = pathlib.Path(os.environ["POSTGRES_DIR"])
        self.keep = keep is not None
        self.run_as = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name

    def cli(self, *args, check=True, timeout=180, env=None):
        command = [str(self.build / "tools/anabranch/anabranch"), *args]
        env = {**os.environ, "ANABRANCH_DATA": str(self.data), **(env or {})}
        result = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                timeout=timeout)
        if check and result.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: exit {result.returncode}\n{result.stdout}")
        return result

    def cli_in_background(self, *args):
        return subprocess.Popen([str(self.build / "tools/anabranch/anabranch"), *args],
                                env={**os.environ, "ANABRANCH_DATA": str(self.data)},
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def up(self):
        store = ["--object-store", self.object_store] if self.object_store else []
        self.cli("local", "up", "--binaries", str(self.build), "--postgres", str(self.postgres),
                 "--local-cache-mb", str(self.local_cache_mb),
                 *(["--safekeepers", str(self.safekeeper_count)] if self.safekeeper_count != 3 else []), *store)
        return self

    def down(self):
        self.cli("local", "down", check=False)
        if not self.keep:
            shutil.rmtree(self.folder, ignore_errors=True)

    def rows(self):
        return json.loads((self.data / "cluster.json").read_text())["processes"]

    def process(self, name):
        return Process(self, name)

    @property
    def safekeepers(self):
        return [self.process(p["name"]) for p in self.rows() if p["name"].startswith("safekeeper")]

    @property
    def pageserver(self):
        return self.process(next(p["name"] for p in self.rows() if p["name"].startswith("pageserver")))

    @property
    def control(self):
        return self.process("control")

    @property
    def agent(self):
        return self.process(next(p["name"] for p in self.rows() if "agent" in p["name"]))

    # --- REST, as a user sees it ---
    def api(self, method, path, body=None, timeout=60):
        return http(method, self.control.http_url + "/api/v2" + path, body, timeout)

    def create_project(self, name):
        answer = self.api("POST", "/projects", {"project": {"name": name}})
        project = Project(self, answer["project"]["id"])
        project.wait_operations(answer)
        return project


class Project:
    def __init__(self, cluster, ident):
        self.cluster, self.id = cluster, ident

    def api(self, method, path, body=None):
        return self.cluster.api(method, f"/projects/{self.id}{path}", body)

    def wait_operations(self, answer, timeout_s=90):
        for operation in answer.get("operations", []):
            def finished(ident=operation["id"]):
                state = self.api("GET", f"/operations/{ident}")["operation"]
                if state["status"] in ("failed", "error", "cancelled"):
                    raise RuntimeError(f"operation {state['action']}: {state.get('error')}")
                return state["status"] in ("finished", "skipped")
            wait_for(f"operation {operation['action']}", finished, timeout_s)
        return answer

    def branches(self):
        return self.api("GET", "/branches")["branches"]

    def main(self):
        return Branch(self, next(b for b in self.branches() if b["default"])["id"])

    def create_branch(self, name, parent=None, endpoint=True, wait=True, **at):
        body = {"branch": {"name": name, **({"parent_id": parent.id} if parent else {}), **at}}
        if endpoint:
            body["endpoints"] = [{"type": "read_write"}]
        answer = self.api("POST", "/branches", body)
        if wait:
            self.wait_operations(answer)
        return Branch(self, answer["branch"]["id"], answer)

    def delete(self):
        self.wait_operations_of_cluster(self.api("DELETE", ""))

    def wait_operations_of_cluster(self, answer):
        return answer


class Branch:
    def __init__(self, project, ident, answer=None):
        self.project, self.id, self.answer = project, ident, answer

    @property
    def cluster(self):
        return self.project.cluster

    def get(self):
        return self.project.api("GET", f"/branches/{self.id}")["branch"]

    def endpoint(self):
        endpoints = self.project.api("GET", f"/branches/{self.id}/endpoints")["endpoints"]
        return endpoints[0]

    def add_endpoint(self, **pg_settings):
        """A compute with settings of its own."""
        self.project.wait_operations(self.project.api("POST", "/endpoints", {"endpoint": {
            "branch_id": self.id, "type": "read_write", "settings": {"pg_settings": pg_settings}}}))
        return self

    def uri(self):
        answer = self.project.api(
            "GET", f"/connection_uri?branch_id={self.id}&database_name=app&role_name=app")
        return answer["uri"]

    def connect(self, timeout_s=60):
        """A connection, as soon as the compute takes one."""
        return wait_for("connect", lambda: pq.connect(self.uri()), timeout_s)

    def sql(self, sql):
        with self.connect() as db:
            return db.query(sql)

    def value(self, sql):
        return self.sql(sql)[0][0]

    def suspend(self):
        return self.project.wait_operations(
            self.project.api("POST", f"/endpoints/{self.endpoint()['id']}/suspend"))

    def start(self):
        return self.project.wait_operations(
            self.project.api("POST", f"/endpoints/{self.endpoint()['id']}/start"))

    def delete(self):
        return self.project.wait_operations(self.project.api("DELETE", f"/branches/{self.id}"))

    def compute(self):
        """What the agent says of this branch's compute: {state, port, pids, ...}."""
        return http("GET", f"{self.cluster.agent.http_url}/v1/computes/{self.endpoint()['id']}")

    def pgbench(self, *args, timeout=600):
        command = [str(self.cluster.postgres / "bin/pgbench"), *args, self.uri()]
        result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout)
        if result.returncode != 0:
            raise RuntimeError(f"pgbench {' '.join(args)}: {result.stdout[-2000:]}")
        return result.stdout


@contextlib.contextmanager
def running(build, keep=None, **options):
    cluster = Cluster(build, keep, **options)
    try:
        yield cluster.up()
    finally:
        cluster.down()
