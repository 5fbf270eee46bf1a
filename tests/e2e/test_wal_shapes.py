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

    def another_runs():
        state = branch.compute()
        return state["state"] == "running" and state["pids"].get("postgres", before) != before
    wait_for("another postgres runs", another_runs)


def commits(branch, first, number):
    """A commit behind the statement is answered. (In a thread: nothing ends its wait for the quorum.)"""
    done = []

    def insert():
        with superuser(branch) as db:
            db.query(first)
        with branch.connect() as db:
            db.query(f"INSERT INTO kept VALUES ({number})")
        done.append(number)
    threading.Thread(target=insert, daemon=True).start()
    wait_for(f"the commit behind {first[:40]}", lambda: done)


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


# A logical message with prefix "p": record header 24, header of the main data 5 (2 when it is shorter than 256), fixed
# part 24, prefix and its NUL 2. Not transactional and flushed at once: it takes no xid and adds nothing else to the WAL.
OVERHEAD = 24 + 5 + 24 + 2


def position(db):
    return lsn(db.value("SELECT pg_current_wal_insert_lsn()"))


def emit(db, size):
    db.query(f"SELECT pg_logical_emit_message(false, 'p', repeat('x', {size})::bytea, true)")


def end_record_at(db, boundary):
    """Write messages so that a record ends exactly at a multiple of `boundary`; False: other WAL slipped in."""
    left = boundary - position(db) % boundary
    if left > PAGE: # into the last page, or nearly: of each page on the way, 24 bytes are its header
        emit(db, max(left - left // PAGE * 24 - PAGE // 2 - OVERHEAD, 1))
    for _ in range(10):
        left = PAGE - position(db) % PAGE
        if left < OVERHEAD + 256: # too little for the long form: over the page's end, and another try there
            if boundary == SEGMENT:
                return False
            emit(db, PAGE // 2)
            continue
        if boundary == SEGMENT and (position(db) + left) % SEGMENT != 0:
            emit(db, PAGE // 2)
            continue
        emit(db, left - OVERHEAD)
        return position(db) % boundary in (24, 40) # what comes next stands behind a page header
    return False


def ends_at(cluster, name, boundary):
    main = cluster.create_project(name).main()
    with main.connect() as db:
        db.query("CREATE TABLE kept (n int)")
        db.query("INSERT INTO kept VALUES (1)")
    with superuser(main) as db: # a checkpoint may slip in between: then again at the next boundary
        assert any(end_record_at(db, boundary) for _ in range(8)), f"no record ended at a multiple of {boundary}"
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
    # The rest of a segment is more than the walproposer's window, and nothing in it ends a record.
    commits(main, "SELECT pg_switch_wal()", "3")
    commits(main, "SELECT pg_switch_wal()", "4")


def test_record_larger_than_the_window_of_the_walproposer(cluster):
    main = cluster.create_project("large").main()
    with main.connect() as db:
        db.query("CREATE TABLE kept (n int)")
    commits(main, "SELECT pg_logical_emit_message(true, 'test', repeat('x', 50 * 1024 * 1024)::bytea)", "1")
    kill_compute(main)
    with main.connect() as db:
        assert db.query("SELECT n FROM kept") == [("1",)]
