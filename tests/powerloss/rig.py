"""A local cluster whose safekeepers, pageserver and object store have their folders on lossyfs, each on a disk of its own."""
import contextlib
import os
import pathlib
import shutil
import signal
import time

import lossy_disk
from cluster import Cluster, http, wait_for

SAFEKEEPERS = ["safekeeper-1", "safekeeper-2", "safekeeper-3"]
PAGESERVER = "pageserver-1"
OBJECTS = "objects"


def lsn_value(text):
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


def lsn_text(number):
    return f"{number >> 32:X}/{number & 0xFFFFFFFF:X}"


def place_of(cluster, branch):
    """The tenant that the branch's timeline belongs to, as its pageserver lists it, and the timeline's id."""
    timeline = branch.get()["timeline_id"]
    tenants = http("GET", f"{cluster.pageserver.http_url}/v1/status")["tenants"]
    return next(t for t in tenants if timeline in [row["timeline"] for row in t["timelines"]]), timeline


def wait_until_gone(pid):
    """A killed process holds its locks and ports until its last thread has ended, longer than it counts as alive."""
    def gone():
        try:
            with open(f"/proc/{pid}/stat") as stat:
                return stat.read().rsplit(")", 1)[1].split()[0] == "Z" and len(os.listdir(f"/proc/{pid}/task")) == 1
        except (FileNotFoundError, ProcessLookupError):
            return True
    wait_for(f"process {pid} ends", gone, 20, 0.01)


class LossyCluster(Cluster):
    def __init__(self, build, names="strict"):
        super().__init__(build)
        self.disks, self.running = {}, False
        try:
            for name in [*SAFEKEEPERS, PAGESERVER, OBJECTS]:
                self.disks[name] = lossy_disk.Disk(self.build, self.data / name, names)
        except Exception:
            self.down()
            raise

    def up(self):
        self.running = True
        return super().up()

    def down(self, evidence=False):
        self.cli("local", "down", check=False)
        if evidence:
            self.keep_evidence()
        for disk in self.disks.values():
            disk.unmount()
        super().down()

    def keep_evidence(self):
        """What the disks hold and what the daemons said, in a folder that outlives the cluster."""
        kept = pathlib.Path(f"{self.folder}-kept")
        shutil.copytree(self.folder, kept, ignore_dangling_symlinks=True, ignore=shutil.ignore_patterns(".s.*"))
        print(f"   files and logs are kept in {kept}", flush=True)

    def die(self, name, changes, wait_s=1.5):
        """SIGKILL at the `changes`-th change of its disk from now on; False: it made none for so long and was just killed."""
        process = self.process(name)
        self.disks[name].command(f"kill {changes} {process.pid}")
        with contextlib.suppress(TimeoutError):
            wait_for("its last change", lambda: not process.alive(), wait_s, 0.01)
        at_change = not process.alive()
        self.disks[name].command("kill 0 2")
        self.kill(name)
        return at_change

    def kill(self, name):
        pid = self.process(name).pid
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        wait_until_gone(pid)

    def cut(self, name, seed):
        """The power is cut on a node whose process is gone."""
        self.disks[name].command(f"cut {seed}")


@contextlib.contextmanager
def stopped(*pids):
    """They stand still meanwhile."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
