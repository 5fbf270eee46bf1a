"""WAL whose end is awkward: a huge record cut short, ends at a page and at a segment boundary, a switch at the end."""
import os
import signal
import threading

import pq
from cluster import wait_for

PAGE, SEGMENT = 8192, 16 * 1024 * 1024


def lsn(text):
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


def superuser(branch):
    """A superuser session through the compute's own socket folder."""
    state = branch.compute()
    return wait_for("superuser connect", lambda: pq.connect(state["superuser_uri"]))


def kill_compute(branch):
    """Postgres dies; the agent starts it anew from the quorum. Returns when it answers."""
    before = branch.compute()["pids"]["postgres"]
    os.kill(before, signal.SIGKILL)
    wait_for("another postgres runs", lambda: branch.compute()["state"] == "running"
             and branch.compute()["pids"]["postgres"] != before)


def test_compute_killed_inside_a_50_mb_record(cluster):
    main = cluster.create_project("huge").main()
    with main.connect() as db:
        db.query("CREATE TABLE kept (n int)")
        db.query("INSERT INTO kept VALUES (1)")

    def emit():
        try:
            with superuser(main) as other: # one record of 50 MB; its COMMIT is never answered
                other.query("SELECT pg_logical_emit_message(true, 'test', repeat('x', 50 * 1024 * 1024)::bytea)")
        except pq.Error:
            pass
    with superuser(main) as watch:
        begin = lsn(watch.value("SELECT pg_current_wal_insert_lsn()"))
        thread = threading.Thread(target=emit)
        thread.start()
        # It is under way once the safekeepers hold some of it, and cut short when the kill comes.
        wait_for("the record is being written", lambda: lsn(watch.value("SELECT pg_current_wal_insert_lsn()"))
                 > begin + 20 * 1024 * 1024, interval_s=0.001)
    kill_compute(main)
    thread.join()
    with main.connect() as db:
        assert db.query("SELECT n FROM kept") == [("1",)]
        db.query("INSERT INTO kept VALUES (2)")
    kill_compute(main)
    assert main.value("SELECT count(*) FROM kept") == "2"


def fill_to(db, boundary):
    """Write messages until a record ends exactly at the next multiple of `boundary`."""
    header = 24 if boundary == PAGE else 40
    for _ in range(4000):
        position = lsn(db.value("SELECT pg_current_wal_insert_lsn()"))
        left = boundary - position % boundary
        if left == boundary or position % boundary == header:
            return True
        overhead = 24 + 2 + 16 + 8 # record header, data header, message header and prefix, about
        if left > PAGE: # big steps first; page headers make the rest inexact
            size = min(left - PAGE // 2, 6 * 1024 * 1024)
            size = max(size - overhead - size // PAGE * 24 - 200, 16)
        else:
            size = max(left - overhead - 16, 1)
        before = position
        db.query(f"SELECT pg_logical_emit_message(false, 'p', repeat('x', {size})::bytea)")
        after = lsn(db.value("SELECT pg_current_wal_insert_lsn()"))
        if left <= PAGE: # close: correct the size by what it really took
            took = after - before
            if after // boundary == before // boundary and after % boundary:
                continue
            if took == left + header or after % boundary == header:
                return True
    return False


def ends_at(cluster, name, boundary):
    main = cluster.create_project(name).main()
    with main.connect() as db:
        db.query("CREATE TABLE kept (n int)")
        db.query("INSERT INTO kept VALUES (1)")
    with superuser(main) as db:
        for attempt in range(30): # background WAL may slip in between: try again at the next boundary
            if fill_to(db, boundary):
                break
        insert = lsn(db.value("SELECT pg_current_wal_insert_lsn()"))
        at_boundary = insert % boundary in (0, 24, 40)
        db.query("SELECT pg_logical_emit_message(true, 'p', 'flush')") if not at_boundary else None
    assert at_boundary, f"no record ended at a multiple of {boundary}"
    kill_compute(main)
    with main.connect() as db:
        assert db.query("SELECT n FROM kept") == [("1",)]
        db.query("INSERT INTO kept VALUES (2)")
    kill_compute(main)
    assert main.value("SELECT count(*) FROM kept") == "2"


def test_record_that_ends_at_a_page_boundary(cluster):
    ends_at(cluster, "page-end", PAGE)


def test_record_that_ends_at_a_segment_boundary(cluster):
    ends_at(cluster, "segment-end", SEGMENT)


def test_switch_is_the_last_record(cluster):
    main = cluster.create_project("switch").main()
    with main.connect() as db:
        db.query("CREATE TABLE kept (n int)")
        db.query("INSERT INTO kept VALUES (1)")
    with superuser(main) as db:
        db.query("SELECT pg_switch_wal()")
    kill_compute(main)
    branch = main.project.create_branch("after-switch", main)
    for b in (main, branch):
        with b.connect() as db:
            assert db.query("SELECT n FROM kept") == [("1",)]
            db.query("INSERT INTO kept VALUES (2)")
    kill_compute(branch)
    assert branch.value("SELECT count(*) FROM kept") == "2"
