"""The pageserver's disk is full for a while, and the object store's: it waits, is read meanwhile, and goes on by itself.

Where room ends is chance: a file that a flush writes, the log of a row, a manifest, a compaction, a checkpoint, an object, a
download. A second pageserver on a disk of its own has all pages to compare with. Nobody is started again.
"""
import random
import shutil
import time

from cluster import ApiError, http, wait_for
from pageserver import SETTINGS, Run
from rig import OBJECTS, PAGESERVER, lsn_text, lsn_value


def reasons(run):
    """What /readyz says; empty: it is ready."""
    try:
        http("GET", run.subject.url.removesuffix("/v1") + "/readyz", raw=True)
        return ""
    except ApiError as error:
        return str(error)


def metric(run, name):
    lines = http("GET", run.subject.url.removesuffix("/v1") + "/metrics", raw=True).decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.split(" ")[0] == name)


class Full:
    """No more than `room` bytes beyond what lies on the disk, also when something is deleted: tighten() takes that as well."""

    def __init__(self, disk, room):
        self.disk, self.room, self.capacity = disk, room, 1 << 60

    def tighten(self):
        self.capacity = min(self.capacity, self.disk.status()["bytes"] + self.room)
        self.disk.command(f"capacity {self.capacity}")

    def __enter__(self):
        self.tighten()
        return self

    def __exit__(self, *_):
        self.disk.command("heal")


def look(run):
    """What it has now, while nobody gives it anything, is what the other one has."""
    with run.operator.pause:
        with run.silence():
            found = run.look()
    run.compare(found)
    assert not run.violations, run.violations[:5]


def page_store_is_full(run, room):
    disk, process = run.cluster.disks[PAGESERVER], run.subject.process
    run.wait_for_life()
    with Full(disk, room) as full:
        def waits():
            full.tighten()
            text = reasons(run)
            # Both, before a compaction makes room for one more flush.
            return "waits for room" in text and metric(run, "pageserver_tenants_disk_full") == 1 and text
        why = wait_for("it says that it waits", waits, 120, 0.02)
        look(run)
    wait_for("it is ready again", lambda: reasons(run) == "", 60, 0.02)
    run.wait_for_life()
    assert run.subject.process is process and run.subject.alive()
    look(run)
    print(f"   {room} bytes left: {why[why.index('waits'):][:150]}", flush=True)


def object_store_is_full(run):
    disk = run.cluster.disks[OBJECTS]
    run.uploaded()
    with Full(disk, 20000) as full:
        def fail():
            full.tighten()
            return "No space" in (http("GET", f"{run.tenant_url}/remote").get("error") or "")
        wait_for("uploads fail", fail, 60, 0.02)
        run.wait_for_life() # nobody waits for the object store
    run.uploaded()
    scrub = wait_for("no upload is in its way", lambda: http("POST", f"{run.tenant_url}/remote/scrub"))
    assert not scrub["dangling"], scrub


def download_finds_no_room(run):
    """An empty disk that is too small for the tenant, until it is not."""
    disk = run.cluster.disks[PAGESERVER]
    remote = run.uploaded()
    with run.operator.pause:
        run.subject.kill()
        shutil.rmtree(run.subject.folder / "tenants")
        disk.command("cut 1 100") # what was deleted and could come back takes room no more
        with Full(disk, 300000):
            run.subject.start()
            failures = wait_for("attaching fails", lambda: attach(run), 60, 0.05)
            assert "No space" in failures or "no room" in failures, failures
        wait_for("restored", lambda: run.get()["state"] == "active", 90)
        wait_for("its WAL", lambda: lsn_value(run.get()["last_record_lsn"]) >= lsn_value(remote), 60)
        end = lsn_value(run.get()["last_record_lsn"])
        run.compare([(run.timeline, end, run.digest(run.subject, run.timeline, lsn_text(end)))])
    assert not run.violations, run.violations[:5]


def attach(run):
    """As control does it; the error, as soon as there is one."""
    try:
        http("PUT", run.tenant_url, {"generation": run.generation + 1})
    except ApiError as error:
        return str(error) if error.status == 503 else None
    return None


def run(cluster, project, seed, rounds):
    begin = time.monotonic()
    rng = random.Random(f"full {seed}")
    settings = [*SETTINGS, "--disk_reserve=0"] # else RocksDB would seldom be the one who finds out
    checked = Run(cluster, project, seed, settings)
    try:
        for _ in range(rounds):
            page_store_is_full(checked, rng.choice([2000, 20000, 100000, 400000]))
        reopened = metric(checked, "kv_reopened_total")
        object_store_is_full(checked)
        download_finds_no_room(checked)
    finally:
        cluster.disks[PAGESERVER].command("heal")
        cluster.disks[OBJECTS].command("heal")
        checked.down()
    cluster.pageserver.start()
    return (f"{rounds} times full in {time.monotonic() - begin:.0f} s, the store opened again in place {reopened:.0f} times; "
            f"{checked.digests} digests as the witness has them")
