"""Computes on several hosts: agents that register themselves, and one that is not heard of any more."""
import contextlib
import signal
import socket
import subprocess

import pq
from cluster import ApiError, http, wait_for


class Host:
    """An agent of its own address of this machine, as if it were another one."""

    def __init__(self, cluster, number, lease_ms=2000):
        self.cluster, self.number, self.address = cluster, number, f"127.0.0.{number}"
        with contextlib.closing(socket.socket()) as free:
            free.bind((self.address, 0))
            self.port = free.getsockname()[1]
        self.url = f"http://{self.address}:{self.port}"
        own = {"data_dir": cluster.data / f"host-{number}", "http_host": self.address, "http_port": self.port}
        lines = [line for line in open(cluster.agent.row["conf"]) if line.split("=")[0].strip() not in own]
        conf = cluster.data / f"conf/host-{number}.conf"
        conf.write_text("".join(lines) + "".join(f'{key} = "{value}"\n' for key, value in {
            **own, "control_url": cluster.control.http_url, "agent_id": number, "advertise_host": self.address,
            "compute_listen_host": self.address, "lease_ms": f"{lease_ms}ms"}.items()))
        log = open(cluster.data / f"logs/host-{number}.log", "w")
        self.process = subprocess.Popen([cluster.build / "compute/agent/compute-agent", "--config", conf],
                                        stdout=log, stderr=subprocess.STDOUT)

    def node(self):
        nodes = http("GET", self.cluster.control.http_url + "/v1/nodes")["nodes"]
        return next((n for n in nodes if n["kind"] == "agent" and n["id"] == self.number), None)

    def is_known(self):
        node = self.node()
        return node is not None and node["registered"] and node["reachable"]

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            self.process.wait(60)


def test_computes_of_a_host_that_is_cut_off_start_on_another_one(cluster):
    hosts = [Host(cluster, 7)]
    try:
        one = hosts[0]
        wait_for("the first host is known", one.is_known)
        cluster.create_project("at home") # so that no host has fewer computes than the new one
        project = cluster.create_project("hosts")
        main = project.main()
        assert one.address in main.uri(), main.uri()
        main.sql("CREATE TABLE t AS SELECT generate_series(1, 100) AS n")
        hosts.append(Host(cluster, 8))
        wait_for("the second host is known", hosts[1].is_known)
        try: # the first one's number
            http("PUT", cluster.control.http_url + "/v1/hosts/7", {"host": "127.0.0.9", "http_port": 1, "lease_ms": 2000})
            raise AssertionError("a host's number was taken from it")
        except ApiError as error:
            assert error.status == 409, error

        control, uri = cluster.control, main.uri()
        control.kill()
        control.start() # it has the hosts from its catalog, and their leases begin anew
        assert main.uri() == uri and main.value("SELECT count(*) FROM t") == "100"

        # Nobody hears of it; its Postgres and its proposer go on.
        session = main.connect()
        one.process.send_signal(signal.SIGSTOP)
        wait_for("its lease ends", lambda: one.node() is None, 30)
        wait_for("the compute is elsewhere", lambda: one.address not in main.uri(), 30)
        main.sql("INSERT INTO t VALUES (1000)")
        try:
            session.query("INSERT INTO t VALUES (2000)")
            raise AssertionError("the compute that was left behind has committed")
        except (pq.Error, OSError):
            pass
        assert main.value("SELECT count(*) FROM t") == "101"

        one.process.send_signal(signal.SIGCONT)
        wait_for("it is known again", one.is_known, 30)
        wait_for("what it still ran is gone", lambda: http("GET", one.url + "/v1/computes")["computes"] == [], 60)
        assert one.address not in main.uri() and main.value("SELECT max(n) FROM t") == "1000"
        project.delete()
    finally:
        for host in hosts:
            host.end()
