"""A cluster on several machines, as docs/cluster.md says: what `tools/dev dist` gathers, started with configs/cluster.

Each machine is an address of this one, and every daemon listens on its own machine's only.
"""
import json
import os
import pathlib
import random
import re
import secrets
import shutil
import ssl
import subprocess
import tempfile
import urllib.error
import urllib.request

from cluster import ROOT, wait_for

MACHINES = { # daemon, number among its like: last byte of its address
    "safekeeper-1": 11, "safekeeper-2": 12, "safekeeper-3": 13, "pageserver-1": 21, "control-1": 31, "gateway-1": 32,
    "compute-agent-1": 41, "compute-agent-2": 42,
}
FIRST = {"safekeeper": 11, "compute-agent": 41} # the address in the file of what there are several of


class Machines:
    def __init__(self, build):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="anabranch-m-"))
        self.folder.chmod(0o755)
        self.net = f"127.{random.randrange(64, 250)}.{random.randrange(1, 250)}"
        self.tokens = {name: secrets.token_hex(16) for name in ("OWNER-TOKEN", "NODE-TOKEN", "DATA-TOKEN")}
        self.dist = self.folder / "opt"
        environment = {**os.environ, "NO_ARCHIVE": "1", "ANABRANCH_BUILD": str(build)}
        subprocess.run([ROOT / "tools/lib/dist", self.dist], env=environment, check=True, stdout=subprocess.DEVNULL)
        self.certificates = self.folder / "certificates"
        subprocess.run([self.dist / "configs/cluster/make-certificates", self.certificates, *map(self.address, MACHINES)],
                       check=True, stdout=subprocess.DEVNULL)
        self.processes = {name: self.start(name) for name in MACHINES}

    def address(self, name):
        return f"{self.net}.{MACHINES[name]}"

    def configuration(self, name):
        daemon, number = name.rsplit("-", 1)
        text = (self.dist / f"configs/cluster/{daemon}.conf").read_text()
        if daemon in FIRST:
            text = text.replace(f"10.0.0.{FIRST[daemon]}", self.address(name)).replace("_id = 1", f"_id = {number}")
        for word, token in self.tokens.items():
            text = text.replace(word, token)
        text = re.sub('"s3://.*"', f'"dir:{self.folder}/objects"', text)
        for theirs, ours in (("/etc/anabranch/node.", f"{self.certificates}/{self.address(name)}."),
                             ("/etc/anabranch/authority.", f"{self.certificates}/authority."),
                             ("/var/lib/anabranch/", f"{self.folder}/{MACHINES[name]}/"), ("/opt/anabranch", str(self.dist)),
                             ("10.0.0.", f"{self.net}.")):
            text = text.replace(theirs, ours)
        assert not [line for line in text.splitlines() if "/etc/" in line and not line.startswith("#")], text
        return text

    def start(self, name):
        daemon = name.rsplit("-", 1)[0]
        conf = self.folder / f"{name}.conf"
        conf.write_text(self.configuration(name))
        (self.folder / str(MACHINES[name])).mkdir(exist_ok=True)
        with open(self.folder / f"{name}.log", "a") as log:
            return subprocess.Popen([self.dist / "bin" / daemon, "--config", conf], stderr=log, stdout=log)

    def url(self, name, port):
        return f"https://{self.address(name)}:{port}"

    def get(self, url, token=None, authority=True):
        context = ssl.create_default_context(cafile=self.certificates / "authority.crt" if authority else None)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
        headers = {"Authorization": f"Bearer {self.tokens[token]}"} if token else {}
        try:
            with opener.open(urllib.request.Request(url, headers=headers), timeout=20) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def cli(self, *words):
        done = subprocess.run(
            [self.dist / "bin/anabranch", *words, "-o", "json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "ANABRANCH_API_URL": self.url("control-1", 7400), "ANABRANCH_API_KEY": self.tokens["OWNER-TOKEN"],
                 "ANABRANCH_API_CA": str(self.certificates / "authority.crt")})
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return json.loads(done.stdout)

    def sql(self, uri, text):
        """Through the gateway, whose certificate nobody signed: bound to the password all the same."""
        environment = {**os.environ, "PGHOSTADDR": self.address("gateway-1"), "PGCHANNELBINDING": "require"}
        done = subprocess.run([self.dist / "postgres/bin/psql", uri, "-qAtc", text], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, env=environment)
        assert done.returncode == 0, (uri, done.stderr)
        return done.stdout.strip()

    def down(self):
        for process in reversed(self.processes.values()):
            process.terminate()
        for process in self.processes.values():
            process.wait(60)
        shutil.rmtree(self.folder)


def nodes(machines):
    status, body = machines.get(machines.url("control-1", 7400) + "/v1/nodes", "OWNER-TOKEN")
    return {(n["kind"], n["id"]) for n in json.loads(body)["nodes"] if n["reachable"]} if status == 200 else set()


def check_who_is_let_in(machines):
    keeper = machines.url("safekeeper-2", 7421)
    assert machines.get(keeper + "/v1/tenants")[0] == 401
    assert machines.get(keeper + "/v1/tenants", "DATA-TOKEN")[0] == 401
    assert machines.get(keeper + "/v1/tenants", "NODE-TOKEN")[0] == 200
    assert machines.get(machines.url("control-1", 7400) + "/api/v2/projects")[0] == 401
    for url, authority in ((keeper.replace("https", "http"), True), (keeper, False)): # in plain; signed by a stranger
        try:
            machines.get(url + "/healthz", authority=authority)
            raise AssertionError(f"{url} answered")
        except (OSError, ssl.SSLError):
            pass


def test_a_cluster_on_several_machines(build):
    machines = Machines(build)
    try:
        wanted = {("safekeeper", 1), ("safekeeper", 2), ("safekeeper", 3), ("pageserver", 1), ("agent", 1), ("agent", 2)}
        wait_for("control knows all nodes", lambda: nodes(machines) == wanted, 60)
        check_who_is_let_in(machines)
        made = machines.cli("projects", "create", "--name", "shop")
        project, uri = made["project"]["id"], made["connection_uris"][0]["connection_uri"]
        assert ".db.example.org" in uri, uri
        wait_for("the database answers", lambda: machines.sql(uri, "SELECT 1") == "1", 60)
        machines.sql(uri, "CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
        machines.cli("branches", "create", "--name", "dev", "--project", project)
        dev = machines.cli("connection-string", "dev", "--project", project)["uri"]
        machines.sql(dev, "DELETE FROM t WHERE n > 10")
        assert machines.sql(dev, "SELECT count(*) FROM t") == "10" and machines.sql(uri, "SELECT count(*) FROM t") == "1000"
        # Each host has one of the two computes, and a database sees who came over TLS.
        assert machines.sql(dev, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") == "t"
        hosts = {machines.sql(u, "SELECT inet_server_addr()") for u in (uri, dev)}
        assert hosts == {machines.address(f"compute-agent-{n}") for n in (1, 2)}, hosts
        machines.cli("projects", "delete", project)
    except Exception:
        for name in MACHINES:
            print(f"--- {name}\n" + "\n".join((machines.folder / f"{name}.log").read_text().splitlines()[-8:]))
        raise
    finally:
        machines.down()


def test_a_unit_takes_over_no_folder_but_its_own():
    """systemd gives the folder, with all that is in it, to the unit's user: on a shared machine those are several."""
    units = {"compute-agent": "anabranch-compute-agent.service"}
    for daemon in sorted({name.rsplit("-", 1)[0] for name in MACHINES}):
        unit = (ROOT / "configs/systemd" / units.get(daemon, "anabranch@.service")).read_text()
        folder = re.search("^StateDirectory=(.*)$", unit, re.M).group(1).replace("%i", daemon)
        assert f'data_dir = "/var/lib/{folder}"' in (ROOT / f"configs/cluster/{daemon}.conf").read_text(), (daemon, folder)
