"""What a transaction that is larger than everything keeps of pages that WAL cannot rebuild: peaks of the spill, and its end.

With 1 MB of shared buffers and no local cache, so that every page leaves. SPILL_COPY_GB (1; 20 is the long form, and wants five
times as much disk for copies of WAL and pages) is copied into a new table in one transaction; SPILL_ROWS (1000000) are updated
twice in one transaction; and the server is killed in the middle of another one. Each on a server of its own: a peak is that of
its life. The limit is anabranch.spill_limit_mb, 1 GB as it comes.
"""
import os
import pathlib
import signal

import pq
from cluster import running, wait_for

COPY_GB = float(os.environ.get("SPILL_COPY_GB", "1"))
ROWS = int(os.environ.get("SPILL_ROWS", "1000000"))
ROW_BYTES = 140 # of a page, with what its rows have beside them
PAGE = 8192
MEGABYTE = 1 << 20


class Server:
    def __init__(self, branch):
        self.branch = branch
        self.pid = None
        self.find()

    def find(self):
        """Another one than before."""
        state = wait_for("it runs", lambda: (lambda c: c if c["state"] == "running" and c["pids"].get("postgres", self.pid) != self.pid
                                             else None)(self.branch.compute()), timeout_s=300)
        self.pid, self.uri = state["pids"]["postgres"], state["superuser_uri"]

    def connect(self):
        return pq.connect(self.uri)

    def restart(self):
        self.branch.suspend()
        self.branch.start()
        self.find()

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        self.find()

    def spill_file_mb(self):
        path = pathlib.Path(f"/proc/{self.pid}/cwd/anabranch.spill")
        return path.stat().st_size / MEGABYTE if path.exists() else 0


def count(db, name):
    return int(db.value(f"SELECT value FROM counters() WHERE name = '{name}'"))


def megabytes(blocks):
    return blocks * PAGE / MEGABYTE


def copy(db, table, rows):
    db.query(f"CREATE TABLE {table} (i int, v int, pad text)")
    db.query(f"COPY {table} FROM PROGRAM 'seq 1 {rows} | sed \"s/.*/&\\t0\\t{'c' * 100}/\"'")


def state_of(db):
    return db.value("SELECT count(*) || ' ' || sum(i) || ' ' || sum(v) FROM t")


def copy_once(server, emit):
    with server.connect() as db:
        copy(db, "large", int(COPY_GB * 1e9 / ROW_BYTES))
        peak, limit = megabytes(count(db, "spill_blocks_peak")), megabytes(count(db, "spill_blocks_max"))
        size = int(db.value("SELECT pg_relation_size('large')")) / MEGABYTE
        emit("spill_peak_copy", peak, "MB", f"a table of MB (limit {limit:.0f})", size, peak / size, "< limit", peak < limit)
        kept = megabytes(count(db, "spill_command_id_blocks"))
        emit("spill_command_ids_copy", kept, "MB", "none is needed", 0, 0, "0", kept == 0)
        db.query("DROP TABLE large")


def update_twice(server, emit):
    with server.connect() as db:
        copy(db, "t", ROWS)
    server.restart()
    with server.connect() as db:
        db.query("BEGIN; UPDATE t SET v = 1; UPDATE t SET v = v + 1; COMMIT")
        peak, limit = megabytes(count(db, "spill_blocks_peak")), megabytes(count(db, "spill_blocks_max"))
        size = int(db.value("SELECT pg_relation_size('t')")) / MEGABYTE
        right = state_of(db) == f"{ROWS} {ROWS * (ROWS + 1) // 2} {2 * ROWS}"
        emit("spill_peak_update_twice", peak, "MB", f"a table of MB (limit {limit:.0f})", size, peak / size, "< limit, rows right",
             right and peak < limit)


def killed(server, emit):
    """In the middle of a transaction that spilled: the next server begins without, and has what was committed."""
    with server.connect() as db:
        before = state_of(db)
        db.query("BEGIN; UPDATE t SET v = 5; UPDATE t SET v = v + 1 WHERE i % 2 = 0")
        spilled = megabytes(count(db, "spill_blocks_now"))
        file = server.spill_file_mb()
        server.kill()
    with server.connect() as db:
        left = megabytes(count(db, "spill_blocks_peak"))
        emit("spill_left_after_kill", max(left, server.spill_file_mb()), "MB", f"before it, in a file of {file:.0f} MB", spilled,
             left / max(spilled, 0.001), "< 1, rows as committed", spilled > 1 and left < 1 and state_of(db) == before)


def run(build, emit):
    with running(build) as cluster:
        project = cluster.create_project("spill")
        branch = project.create_branch("bench", project.main(), endpoint=False).add_endpoint(
            shared_buffers="1MB", **{"anabranch.local_cache_mb": "0"})
        server = Server(branch)
        with server.connect() as db:
            db.query("CREATE FUNCTION counters(OUT name text, OUT value int8) RETURNS SETOF record"
                     " AS 'anabranch', 'anabranch_counters' LANGUAGE C STRICT")
        copy_once(server, emit)
        update_twice(server, emit)
        killed(server, emit)
