"""An empty disk: from the attach of a tenant until its first page is answered, against a plain copy of the same bytes.

A compute fills a tenant; its objects are what a pageserver with an empty disk restores it from. Each round first copies
the tenant's data objects (read, write, fsync of each file), then starts a pageserver of its own, attaches the tenant
with a newer generation and asks for a page. Everything is downloaded before the tenant is there, so the first page and
the last are there at the same time: reading what is asked for only is not built. Medians of the rounds' ratios count.
"""
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import tempfile
import time

from cluster import Cluster, http, wait_for

ROUNDS, ROWS = 5, 300_000


def parse_lsn(text):
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


def fill(cluster):
    """A tenant whose files are all uploaded: (tenant, timeline, address of a page)."""
    main = cluster.create_project("restore").main()
    with main.connect() as db:
        db.query("CREATE TABLE t AS SELECT i, md5(i::text) || md5(random()::text) || md5(random()::text) ||"
                 f" md5(random()::text) || md5(random()::text) AS v FROM generate_series(1, {ROWS}) i")
        oid, node = db.query("SELECT oid, pg_relation_filenode('t') FROM pg_database WHERE datname = current_database()")[0]
        lsn = db.value("SELECT pg_current_wal_flush_lsn()")
    url = cluster.pageserver.http_url
    tenant = http("GET", url + "/v1/status")["tenants"][0]
    path = f"{url}/v1/tenants/{tenant['tenant']}"
    main.suspend()
    wait_for("ingest", lambda: parse_lsn(http("GET", f"{path}/timelines/{tenant['timelines'][0]['timeline']}")["durable_lsn"])
             >= parse_lsn(lsn), 120)
    http("POST", f"{path}/gc", timeout=120)

    def is_uploaded():
        remote = http("GET", f"{path}/remote")
        rests = not (remote["uploading"] or remote["waiting"] or remote["doomed_objects"])
        return rests and all(parse_lsn(t["remote_lsn"]) >= parse_lsn(lsn) for t in remote["timelines"])
    wait_for("uploaded, and what was rewritten is gone", is_uploaded, 120)
    cluster.pageserver.kill()
    page = f"spc=1663&db={oid}&rel={node}&block=7&lsn={lsn}"
    return tenant["tenant"], tenant["timelines"][0]["timeline"], page


def needed_objects(cluster, tenant):
    """The sorted files of the newest index: no others are left."""
    return sorted((cluster.data / "objects/tenants" / tenant / "data").rglob("*.sst-*"))


def copy(objects, folder, synced):
    begin = time.monotonic()
    for path in objects:
        source, target = os.open(path, os.O_RDONLY), os.open(folder / path.name, os.O_WRONLY | os.O_CREAT, 0o644)
        while data := os.read(source, 1 << 20):
            os.write(target, data)
        if synced:
            os.fsync(target)
        os.close(source)
        os.close(target)
    return time.monotonic() - begin


def restore(build, cluster, folder, tenant, timeline, page, generation):
    """(seconds until attached, until a page is answered)"""
    process = subprocess.Popen(
        [build / "pageserver/serve/pageserver", f"--data_dir={folder}", "--http_port=0", "--listen_port=0", "--node_id=9",
         f"--object_store=dir:{cluster.data}/objects"], stderr=subprocess.DEVNULL)
    try:
        port = wait_for("it listens", lambda: json.loads((folder / "ports.json").read_text())["http_port"], 30)
        url = f"http://127.0.0.1:{port}/v1/tenants/{tenant}"
        begin = time.monotonic()
        http("PUT", url, {"generation": generation}, timeout=120)
        attached = time.monotonic() - begin
        data = http("GET", f"{url}/timelines/{timeline}/page?{page}", raw=True)
        answered = time.monotonic() - begin
        assert len(data) == 8192 and any(data), "a page of a table that was filled"
        return attached, answered
    finally:
        process.kill()
        process.wait()


def run(build, emit):
    build = pathlib.Path(build).resolve()
    cluster = Cluster(build).up()
    rounds = []
    try:
        tenant, timeline, page = fill(cluster)
        objects = needed_objects(cluster, tenant)
        size = sum(path.stat().st_size for path in objects)
        for number in range(ROUNDS):
            with tempfile.TemporaryDirectory(prefix="anabranch-restore-", dir=cluster.folder) as temp:
                folders = [pathlib.Path(temp) / name for name in ("plain", "synced", "disk")]
                for folder in folders:
                    folder.mkdir()
                plain, synced = copy(objects, folders[0], False), copy(objects, folders[1], True)
                attached, answered = restore(build, cluster, folders[2], tenant, timeline, page, 100 + number)
            rounds.append((plain, synced, attached, answered))
    finally:
        cluster.down()
        shutil.rmtree(cluster.folder, ignore_errors=True)
    plain, synced, attached, answered = (statistics.median(column) for column in zip(*rounds))
    name = f"empty disk, {size / 1e6:.0f} MB in {len(objects)} objects"
    of_synced = statistics.median(r[3] / r[1] for r in rounds)
    of_plain = statistics.median(r[3] / r[0] for r in rounds)
    emit(f"{name}: attach to first page", answered, "s", "the same bytes copied and synced", synced, of_synced, "<= 3 x",
         of_synced <= 3)
    emit(f"{name}: attach to first page, not synced", answered, "s", "the same bytes copied", plain, of_plain, "none", True)
    emit(f"{name}: attach to all that there is", attached, "s", "the first page", answered, attached / answered, "none", True)
