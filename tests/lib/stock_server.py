"""A stock Postgres of the same build: what a compute publishes to, or subscribes from."""
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile

import pq
from cluster import wait_for


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class StockServer:
    """In a folder of its own; Postgres refuses root, so it runs as another user then."""

    def __init__(self, cluster, *settings, user="app"):
        self.postgres, self.port = cluster.postgres, free_port()
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="anabranch-stock-", dir=os.environ.get("ANABRANCH_TEST_DIR", "/tmp")))
        os.chmod(self.folder, 0o777)
        self.prefix = (["setpriv", f"--reuid={cluster.run_as}", f"--regid={cluster.run_as}", "--init-groups"]
                       if os.geteuid() == 0 else [])
        self.data, self.log = self.folder / "data", self.folder / "log"
        self.uri = f"postgresql://{user}@127.0.0.1:{self.port}/postgres"
        subprocess.run([*self.prefix, str(self.postgres / "bin/initdb"), "-D", str(self.data), "-U", user, "-A", "trust",
                        "--locale=C.UTF-8", "--no-sync"], check=True, stdout=subprocess.DEVNULL, cwd=self.folder)
        with open(self.data / "postgresql.conf", "a") as conf:
            conf.write("\n".join([f"port={self.port}", f"unix_socket_directories='{self.folder}'",
                                  "listen_addresses='127.0.0.1'", "fsync=off", *settings, ""]))
        self.process = None

    def __enter__(self):
        with open(self.log, "a") as log:
            self.process = subprocess.Popen([*self.prefix, str(self.postgres / "bin/postgres"), "-D", str(self.data)],
                                            stderr=log, cwd=self.folder)
        wait_for("stock Postgres", lambda: self.connect().close() or True)
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGINT)
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def connect(self):
        return pq.connect(self.uri)

    def query(self, sql):
        with self.connect() as db:
            return db.query(sql)

    def lsn(self):
        """Where its WAL ends now."""
        return self.query("SELECT pg_current_wal_flush_lsn()")[0][0]
