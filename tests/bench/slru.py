"""How long a start takes when many transactions are remembered: the base backup brings all of pg_xact.

The empty cluster that roots begin from is rewritten in the object store: pg_control says that SLRU_XIDS transactions have
been, and pg_xact that all of them committed (two bits each). Then a project is made from it, and its compute is started
SLRU_STARTS times. Against the same with few transactions, in the same run. `vacuum_freeze_*` keeps 200 million in a
database that is left to its defaults, and up to 2 billion are possible.
"""
import io
import os
import statistics
import struct
import subprocess
import tarfile
import tempfile

from cluster import http, running, wait_for
from parts.compute_work import cpu_seconds

XIDS = [int(x) for x in os.environ.get("SLRU_XIDS", "50000000,200000000,1000000000").split(",")]
STARTS = int(os.environ.get("SLRU_STARTS", "5"))
FETCHES = 5
SEGMENT, XIDS_PER_SEGMENT = 32 * 8192, 32 * 8192 * 4
NEXT_XID_AT, CRC_AT = 64, 288 # in pg_control: common/pg/pg_control.h


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def with_transactions(image, xids):
    """The tar `image` with so many committed transactions."""
    old, out = tarfile.open(fileobj=io.BytesIO(image)), io.BytesIO()
    new = tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT)

    def add(name, data):
        info = tarfile.TarInfo(name)
        info.size = len(data)
        new.addfile(info, io.BytesIO(data))
    for member in old:
        data = old.extractfile(member).read() if member.isfile() else b""
        if member.name.endswith("pg_control"):
            head = data[:NEXT_XID_AT] + struct.pack("<Q", xids) + data[NEXT_XID_AT + 8:CRC_AT]
            data = head + struct.pack("<I", crc32c(head)) + data[CRC_AT + 4:]
        if member.isfile() and "pg_xact/" not in member.name:
            add(member.name, data)
        elif member.isdir():
            new.addfile(member)
    prefix = next(m.name for m in old.getmembers() if "pg_xact" in m.name).split("pg_xact")[0]
    for segment in range(xids // XIDS_PER_SEGMENT + 1):
        left = min(xids - segment * XIDS_PER_SEGMENT, XIDS_PER_SEGMENT)
        add(f"{prefix}pg_xact/{segment:04X}", (b"\x55" * (left // 4)).ljust(SEGMENT, b"\0"))
    new.close()
    return out.getvalue()


def put(build, cluster, path, image):
    """In place of the object that is there."""
    path.unlink()
    with tempfile.NamedTemporaryFile() as file:
        file.write(image)
        file.flush()
        store = cluster.data / "objects"
        subprocess.run([f"{build}/tests/objstore/objtool", str(store), "put", str(path.relative_to(store)), file.name],
                       check=True, stdout=subprocess.DEVNULL)


def starts(cluster, name):
    """Medians: whole start and its base backup in ms, size of the backup in bytes, the pageserver's CPU for one in ms."""
    project = cluster.create_project(name)
    branch = project.create_branch("bench", project.main(), endpoint=False).add_endpoint(autovacuum="off")
    project.main().suspend()
    laps = []
    for _ in range(STARTS):
        branch.suspend()
        branch.start()
        laps.append(wait_for("it runs", lambda: (lambda c: c if c["state"] == "running" else None)(branch.compute())))
    spec = http("GET", f"{cluster.agent.http_url}/v1/computes/{branch.endpoint()['id']}/spec")
    url = f"{spec['pageserver']['http_url']}/v1/tenants/{spec['tenant']}/timelines/{spec['timeline']}/base_backup"
    begin = cpu_seconds(cluster.pageserver.pid)
    for _ in range(FETCHES):
        size = len(http("GET", f"{url}?lsn={laps[-1]['start_lsn']}", raw=True))
    spent = (cpu_seconds(cluster.pageserver.pid) - begin) * 1000 / FETCHES
    median = {lap: statistics.median(each["started_ms"][lap] for each in laps) for lap in ("total", "base_backup")}
    return median["total"], median["base_backup"], size, spent


def run(build, emit):
    with running(build) as cluster:
        cluster.create_project("makes-the-image").main().suspend()
        path = next(p for p in cluster.data.rglob("*.tar") if "bootstrap" in str(p.parent))
        image = path.read_bytes() # and a trailer, which ends no tar
        total, backup, few, few_cpu = starts(cluster, "few")
        for xids in XIDS:
            put(build, cluster, path, with_transactions(image, xids))
            mine, mine_backup, size, cpu = starts(cluster, f"x{xids}")
            label = f"{xids // 1000000}m_xids"
            emit(f"start_{label}", mine, "ms", "few transactions, ms", total, mine / total, "none", True)
            emit(f"base_backup_{label}", mine_backup, "ms", "few transactions, ms", backup, mine_backup / max(backup, 1),
                 "none", True)
            emit(f"base_backup_cpu_{label}", cpu, "ms", "few transactions, ms", few_cpu, cpu / max(few_cpu, 1), "none", True)
            emit(f"base_backup_size_{label}", size / 1e6, "MB", "few transactions, MB", few / 1e6, size / few, "none", True)
