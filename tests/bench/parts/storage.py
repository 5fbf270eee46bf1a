"""A pageserver of its own, driven through its HTTP port, without computes and safekeepers: tenants, roots from the
bootstrap image, branches; and the GetPage client of tests/bench/getpage.c."""
import contextlib
import http.client
import json
import os
import pathlib
import signal
import subprocess
import time

from cluster import http as call, wait_for


class Storage:
    """Beside a running cluster, whose agent makes the bootstrap image."""

    def __init__(self, cluster, **settings):
        self.cluster, self.settings = cluster, settings
        self.image = call("POST", cluster.agent.http_url + "/v1/bootstrap_images", {"pg_version": 17, "locale": "C.UTF-8"})
        self.folder = cluster.folder / f"storage-{os.urandom(4).hex()}"
        self.start()

    def start(self):
        """Seconds until it is ready."""
        (self.folder / "ports.json").unlink(missing_ok=True)
        settings = {"data_dir": self.folder, "http_port": 0, "listen_port": 0,
                    "object_store": f"dir:{self.cluster.data}/objects", **self.settings}
        begin = time.perf_counter()
        with open(f"{self.folder}.log", "a") as log:
            self.process = subprocess.Popen(
                [self.cluster.pageserver.row["binary"], *(f"--{name}={value}" for name, value in settings.items())], stderr=log)
        ports = wait_for("it listens", lambda: json.loads((self.folder / "ports.json").read_text()), 120, 0.01)
        self.host, self.port, self.http_port = "127.0.0.1", str(ports["listen_port"]), ports["http_port"]
        wait_for("it is ready", lambda: call("GET", f"http://127.0.0.1:{self.http_port}/readyz", raw=True) is not None, 120, 0.01)
        seconds = time.perf_counter() - begin
        self.connection = http.client.HTTPConnection(self.host, self.http_port, timeout=120)
        return seconds

    def stop(self):
        self.connection.close()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)

    def request(self, method, path, body=None):
        """One call over the connection that stays open; its answer and how long it took in ms."""
        data = None if body is None else json.dumps(body)
        begin = time.perf_counter()
        self.connection.request(method, path, data, {"Content-Type": "application/json"})
        answer = self.connection.getresponse()
        content = answer.read()
        duration = (time.perf_counter() - begin) * 1000
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {content[:500]}")
        return json.loads(content), duration

    def tenant(self, number):
        ident = f"{number:032x}"
        self.request("PUT", f"/v1/tenants/{ident}", {"generation": 1})
        return ident

    def body(self, **where):
        return {"generation": 1, "pg_version": self.image["pg_version"], "system_id": self.image["system_id"],
                "safekeepers": [], "membership_generation": 1, **where}

    def root(self, tenant, number=1):
        ident = f"{number:032x}"
        path = f"/v1/tenants/{tenant}/timelines/{ident}"
        self.request("PUT", path, self.body(start_lsn=self.image["start_lsn"], bootstrap_object=self.image["object"]))
        wait_for("imported", lambda: self.request("GET", path)[0]["state"] == "active", 60)
        return ident

    def branch(self, tenant, number, parent):
        """Its id, and how long its creation took in ms."""
        ident = f"{number:032x}"
        _, duration = self.request("PUT", f"/v1/tenants/{tenant}/timelines/{ident}",
                                   self.body(parent=parent, branch_lsn=self.image["start_lsn"]))
        return ident, duration

    def restart(self):
        """Seconds from the start of the process until it is ready."""
        self.stop()
        return self.start()

    def memory(self):
        """Resident bytes of the process."""
        return int(pathlib.Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * 4096

    def threads(self):
        return len(os.listdir(f"/proc/{self.process.pid}/task"))

    def cpu_s(self):
        """CPU time of the process so far: what it did, however busy the machine is."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def disk(self, tenant):
        """Bytes on disk of a tenant's folder."""
        folder = self.folder / "tenants" / tenant
        return int(subprocess.check_output(["du", "-s", "-B1", str(folder)], text=True).split()[0])

    def get_page(self, tenant, timeline, rel, blocks, seconds, in_flight=1, before=()):
        """Latencies of random pages of a relation of template1, warm; a dict of tests/bench/getpage.c. `before`: words of
        the command in front of it, such as taskset."""
        done = subprocess.run([*before, str(self.cluster.build / "tests/bench/getpage"), self.host, self.port, tenant, timeline, "1663", "1",
                               str(rel), str(blocks), str(seconds), str(in_flight)],
                              stdout=subprocess.PIPE, text=True, check=True)
        return json.loads(done.stdout)

    def rel_size(self, tenant, timeline, rel):
        answer, _ = self.request("GET", f"/v1/tenants/{tenant}/timelines/{timeline}/rel_size?spc=1663&db=1&rel={rel}")
        return answer["blocks"]


@contextlib.contextmanager
def serving(cluster, **settings):
    storage = Storage(cluster, **settings)
    try:
        yield storage
    finally:
        storage.stop()
