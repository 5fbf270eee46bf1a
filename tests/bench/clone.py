"""A copy of a database that can be worked with: ours against what is used instead, at CLONE_SIZES_GB (0.1,1; 10 is the long form).

ours:      POST a branch with a compute, until SELECT 1 has answered through the compute's own port
xfs:       pg_backup_start, `cp --reflink` of PGDATA on XFS (mounted from a file: root, xfsprogs), pg_backup_stop, pg_ctl
           start, until SELECT 1: what thin-clone tools do
template:  CREATE DATABASE ... TEMPLATE by both strategies, until SELECT 1; nobody may be connected to the template

All in the same run, in turns, medians of CLONE_ROUNDS (3). Bytes are what the disk holds more with one clone that has
answered: ours are the folders of the cluster, those of XFS the used blocks of its file system. The parent's rate is
that of pgbench (TPC-B, 2 clients, CLONE_SECONDS) while clones are made without a pause, against the same without.
"""
import contextlib
import os
import pathlib
import shutil
import statistics
import subprocess
import tempfile
import threading
import time

import pq
from cluster import running, wait_for
from parts import stock
from parts.compute_start import until_answered

SIZES = [float(size) for size in os.environ.get("CLONE_SIZES_GB", "0.1,1").split(",")]
ROUNDS = int(os.environ.get("CLONE_ROUNDS", "3"))
SECONDS = os.environ.get("CLONE_SECONDS", "5")
SCALE_OF_GB = 67 # of pgbench


def allocated(folder):
    """Bytes of blocks, as du counts them."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


class Ours:
    def __init__(self, cluster, scale):
        self.cluster, self.postgres, self.count = cluster, cluster.postgres, 0
        self.project = cluster.create_project(f"clone-{scale}")
        self.main = self.project.main()
        self.uri = self.main.uri()
        self.main.connect().close()
        stock.pgbench(self.postgres, self.uri, "-i", "-q", "-s", str(scale))

    def clone(self):
        self.count += 1
        branch = self.project.create_branch(f"clone-{self.count}", self.main, wait=False)
        until_answered(branch.uri())
        return branch

    def remove(self, branch):
        branch.delete()

    def used(self):
        return allocated(self.cluster.data)


class Xfs:
    """A stock server on a file system of its own, as large as it may need to be; only what is written takes room."""

    def __init__(self, primary, mount):
        self.primary, self.mount, self.postgres, self.uri = primary, mount, primary.postgres, primary.uri
        self.count = 0

    def clone(self):
        self.count += 1
        data, port = self.mount / f"clone{self.count}", stock.free_port()
        with pq.connect(self.uri) as db:
            db.query("SELECT pg_backup_start('clone', true)")
            # files may go meanwhile, as in any base backup
            subprocess.run(["cp", "-a", "--reflink=always", self.primary.data, data], check=False, stderr=subprocess.DEVNULL)
            (data / "postmaster.pid").unlink(missing_ok=True)
            label = db.value("SELECT labelfile FROM pg_backup_stop(false)")
            end = db.value("SELECT pg_walfile_name(pg_current_wal_lsn())")
            for segment in pathlib.Path(self.primary.data, "pg_wal").iterdir(): # written since the copy
                if len(segment.name) == 24 and segment.name <= end:
                    subprocess.run(["cp", "-a", "--reflink=always", segment, data / "pg_wal"], check=True)
        (data / "backup_label").write_text(label)
        shutil.chown(data / "backup_label", "postgres", "postgres")
        with open(data / "postgresql.auto.conf", "a") as conf:
            conf.write(f"port = {port}\n")
        self.primary.tool("pg_ctl", "-D", str(data), "-W", "-l", f"{data}.log", "start")
        until_answered(f"postgresql://app@127.0.0.1:{port}/postgres")
        return data

    def remove(self, data):
        self.primary.tool("pg_ctl", "-D", str(data), "-m", "immediate", "stop")
        shutil.rmtree(data)

    def used(self):
        os.sync()
        status = os.statvfs(self.mount)
        return (status.f_blocks - status.f_bfree) * status.f_frsize


class Template:
    """Databases beside the one that pgbench made, which is `postgres`."""

    def __init__(self, xfs, strategy):
        self.xfs, self.strategy, self.count = xfs, strategy, 0
        self.admin = xfs.uri.replace("/postgres", "/template1")

    def clone(self):
        self.count += 1
        name = f"{self.strategy}_{self.count}"
        with pq.connect(self.admin) as db:
            db.query(f"CREATE DATABASE {name} TEMPLATE postgres STRATEGY {self.strategy}")
        until_answered(self.xfs.uri.replace("/postgres", f"/{name}"))
        return name

    def remove(self, name):
        with pq.connect(self.admin) as db:
            db.query(f"DROP DATABASE {name} WITH (FORCE)")

    def used(self):
        with pq.connect(self.admin) as db:
            db.query("CHECKPOINT")
        return self.xfs.used()


@contextlib.contextmanager
def xfs_server(cluster, size_gb):
    """The file is sparse; mkfs.xfs wants 300 MB."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="anabranch-xfs-", dir=os.environ.get("ANABRANCH_TEST_DIR", "/tmp")))
    image, mount = folder / "image", folder / "mount"
    mount.mkdir()
    with open(image, "wb") as file:
        file.truncate(int((size_gb * 6 + 2) * 1e9))
    subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", image], check=True)
    os.chmod(folder, 0o755)
    subprocess.run(["mount", "-o", "loop", image, mount], check=True)
    os.chmod(mount, 0o777)
    before = os.environ.get("ANABRANCH_TEST_DIR")
    os.environ["ANABRANCH_TEST_DIR"] = str(mount)
    primary = stock.Primary(cluster.postgres, cluster.run_as)
    os.environ.pop("ANABRANCH_TEST_DIR")
    if before is not None:
        os.environ["ANABRANCH_TEST_DIR"] = before
    try:
        primary.start()
        yield primary, mount
    finally:
        primary.stop()
        subprocess.run(["umount", mount], check=True)
        shutil.rmtree(folder)


def one_clone(side):
    """(ms, bytes) of one, which is removed again."""
    before = side.used()
    begin = time.perf_counter()
    clone = side.clone()
    took = (time.perf_counter() - begin) * 1000
    grown = side.used() - before
    side.remove(clone)
    return took, grown


def rate(side, clones):
    """Of the parent, while clones are made or while none are; how many were."""
    done, made = threading.Event(), []

    def make():
        while not done.is_set():
            made.append(side.clone())
            side.remove(made[-1])
    thread = threading.Thread(target=make)
    if clones:
        thread.start()
    try:
        return stock.tps(stock.pgbench(side.postgres, side.uri, "-n", "-c", "2", "-j", "1", "-T", SECONDS)), len(made)
    finally:
        done.set()
        if clones:
            thread.join()


def measure(cluster, size, emit):
    scale, label = max(1, round(size * SCALE_OF_GB)), f"{size:g}gb"
    with xfs_server(cluster, size) as (primary, mount):
        ours, xfs = Ours(cluster, scale), Xfs(primary, mount)
        stock.pgbench(xfs.postgres, xfs.uri, "-i", "-q", "-s", str(scale))
        sides = {"ours": ours, "xfs": xfs, "wal_log": Template(xfs, "wal_log"), "file_copy": Template(xfs, "file_copy")}
        found = {name: [] for name in sides}
        for _ in range(ROUNDS):
            for name, side in sides.items():
                found[name].append(one_clone(side))
        mine, mine_bytes = (statistics.median(each[i] for each in found["ours"]) for i in (0, 1))
        for name in ("xfs", "wal_log", "file_copy"):
            peer, peer_bytes = (statistics.median(each[i] for each in found[name]) for i in (0, 1))
            emit(f"clone_{label}_against_{name}", mine, "ms", f"{name}, ms", peer, mine / peer, "none", True)
            emit(f"clone_bytes_{label}_against_{name}", mine_bytes / 1e6, "MB", f"{name}, MB", peer_bytes / 1e6,
                 mine_bytes / max(peer_bytes, 1), "none", True)
        kept = []
        for side in (ours, xfs):
            alone = statistics.median(rate(side, False)[0] for _ in range(2))
            busy, count = rate(side, True)
            kept.append(busy / alone)
            emit(f"parent_tps_{label}_{'ours' if side is ours else 'xfs'}", busy, "tps",
                 f"no clones are made, tps; {count} were made", alone, busy / alone, "none", True)
        emit(f"parent_keeps_{label}", kept[0], "of its rate", "xfs, of its rate", kept[1], kept[0] / kept[1], "none", True)


def run(build, emit):
    if os.geteuid() != 0 or shutil.which("mkfs.xfs") is None:
        raise SystemExit("clone: needs root (to mount) and xfsprogs")
    with running(build, local_cache_mb=1024) as cluster:
        for size in SIZES:
            measure(cluster, size, emit)
