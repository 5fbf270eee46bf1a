"""A stock Postgres of the same build whose commits wait for two of three copies of its WAL: what one would take instead.

receivers(): three pg_receivewal --synchronous, which only keep WAL. standbys(): three hot standbys, which replay it too.
Both yield a connection string; fsync is on, and everything lies on the disk that ANABRANCH_TEST_DIR names (/tmp).
"""
import contextlib
import os
import pathlib
import re
import signal
import socket
import subprocess
import tempfile

import pq
from cluster import wait_for

SETTINGS = ("listen_addresses='127.0.0.1'\nmax_wal_senders=10\nshared_buffers=128MB\nmax_wal_size=4GB\n"
            "checkpoint_timeout=15min\nmax_connections=100\n")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Uri(str):
    """A connection string that knows its server."""
    primary = None


class Primary:
    """A Postgres in a folder of its own; Postgres refuses root, so it runs as another user then."""

    def __init__(self, postgres, run_as):
        self.postgres, self.port = postgres, free_port()
        self.folder = tempfile.mkdtemp(prefix="anabranch-stock-", dir=os.environ.get("ANABRANCH_TEST_DIR", "/tmp"))
        os.chmod(self.folder, 0o777)
        self.prefix = (["setpriv", f"--reuid={run_as}", f"--regid={run_as}", "--init-groups"] if os.geteuid() == 0 else [])
        self.data = f"{self.folder}/data"
        self.uri = Uri(f"postgresql://app@127.0.0.1:{self.port}/postgres")
        self.uri.primary = self

    def command(self, name, *args):
        return [*self.prefix, str(self.postgres / "bin" / name), *args]

    def tool(self, name, *args):
        subprocess.run(self.command(name, *args), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                       cwd=self.folder)

    def start(self):
        self.tool("initdb", "-D", self.data, "-U", "app", "-A", "trust", "--locale=C.UTF-8", "--no-sync")
        with open(f"{self.data}/postgresql.conf", "a") as conf:
            conf.write(f"port={self.port}\nunix_socket_directories='{self.folder}'\n{SETTINGS}")
        self.tool("pg_ctl", "-D", self.data, "-w", "-l", f"{self.folder}/log", "start")

    def wait_for_two_of(self, names):
        with pq.connect(self.uri) as db:
            db.query(f"ALTER SYSTEM SET synchronous_standby_names = 'ANY 2 ({', '.join(names)})'")
            db.query("SELECT pg_reload_conf()")
            wait_for("three synchronous copies", lambda: db.value(
                "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'quorum'") == "3")

    def trim_copies(self):
        """Receivers keep all WAL that there ever was: a long run would fill the disk with it, three times."""
        for folder in pathlib.Path(self.folder).glob("receiver*"):
            for segment in sorted(path for path in folder.iterdir() if len(path.name) == 24)[:-2]:
                segment.unlink()

    def stop(self):
        self.tool("pg_ctl", "-D", self.data, "-m", "immediate", "stop")

    def remove(self):
        subprocess.run(["rm", "-rf", self.folder], check=False)


@contextlib.contextmanager
def receivers(postgres, run_as):
    primary, running = Primary(postgres, run_as), []
    try:
        primary.start()
        for n in range(3):
            os.mkdir(f"{primary.folder}/receiver{n}")
            os.chmod(f"{primary.folder}/receiver{n}", 0o777)
            conninfo = f"host=127.0.0.1 port={primary.port} user=app dbname=postgres application_name=receiver{n}"
            primary.tool("pg_receivewal", "-d", conninfo, "-S", f"slot{n}", "--create-slot")
            running.append(subprocess.Popen(
                primary.command("pg_receivewal", "-d", conninfo, "-D", f"{primary.folder}/receiver{n}", "-S", f"slot{n}",
                                "--synchronous"), stderr=subprocess.DEVNULL, cwd=primary.folder))
        primary.wait_for_two_of([f"receiver{n}" for n in range(3)])
        yield primary.uri
    finally:
        for receiver in running:
            receiver.send_signal(signal.SIGINT)
        primary.stop()
        for receiver in running:
            receiver.wait(10)
        primary.remove()


@contextlib.contextmanager
def standbys(postgres, run_as):
    primary, running = Primary(postgres, run_as), []
    try:
        primary.start()
        for n in range(3):
            data, port = f"{primary.folder}/standby{n}", free_port()
            conninfo = f"host=127.0.0.1 port={primary.port} user=app application_name=standby{n}"
            primary.tool("pg_basebackup", "-d", conninfo, "-D", data, "-C", "-S", f"slot{n}", "-X", "stream", "-c", "fast")
            with open(f"{data}/postgresql.conf", "a") as conf:
                conf.write(f"port={port}\nprimary_conninfo='{conninfo}'\nprimary_slot_name='slot{n}'\n")
            open(f"{data}/standby.signal", "w").close()
            primary.tool("pg_ctl", "-D", data, "-w", "-l", f"{data}.log", "start")
            running.append(data)
        primary.wait_for_two_of([f"standby{n}" for n in range(3)])
        yield primary.uri
    finally:
        primary.stop() # first: nothing is to be shipped any more
        for data in running:
            primary.tool("pg_ctl", "-D", data, "-m", "immediate", "stop")
        primary.remove()


def pgbench(postgres, uri, *args):
    done = subprocess.run([str(postgres / "bin/pgbench"), *args, uri], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stdout)
    return done.stdout


def tps(output):
    found = re.search(r"tps = ([\d.]+)", output)
    if found is None:
        raise RuntimeError(f"pgbench ended no transaction: {output}")
    return float(found.group(1))


def latency_ms(output):
    return float(re.search(r"latency average = ([\d.]+)", output).group(1))
