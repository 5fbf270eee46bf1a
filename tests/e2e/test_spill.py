"""Pages that WAL cannot rebuild: every kind comes back as it left, and what they may take is limited."""
import os
import signal
import threading

import pq
from cluster import Branch, wait_for

LIMIT_EXCEEDED = "53400"
REASONS = ["spill_unacked_blocks", "spill_unlogged_blocks", "spill_command_id_blocks", "spill_sequence_blocks",
           "spill_btree_cycle_blocks", "spill_fsm_blocks", "command_id_noted_blocks"]


def small_compute(cluster, project, name, spill_mb, **settings):
    branch = project.create_branch(name, project.main(), endpoint=False)
    branch.add_endpoint(**{"shared_buffers": "1MB", "anabranch.local_cache_mb": "0",
                           "anabranch.spill_limit_mb": str(spill_mb)} | settings)
    return wait_for("it runs", lambda: branch.compute().get("superuser_uri"))


def count(db, name):
    return int(db.value(f"SELECT value FROM counters() WHERE name = '{name}'"))


def make_counters(db):
    db.query("CREATE FUNCTION counters(OUT name text, OUT value int8) RETURNS SETOF record"
             " AS 'anabranch', 'anabranch_counters' LANGUAGE C STRICT")


def rows_of(db, table):
    return db.value(f"SELECT count(*) || ' ' || sum(i) || ' ' || sum(v) FROM {table}")


def wash(db):
    """Everything else leaves the 128 buffers. (The ring of a sequential scan would not do that.)"""
    db.query("SET enable_seqscan = off; SELECT count(pad) FROM ballast WHERE i > 0; RESET enable_seqscan")


def ballast(db):
    make_counters(db)
    db.query("CREATE TABLE ballast AS SELECT i, repeat('b', 900) AS pad FROM generate_series(1, 5000) i;"
             "CREATE INDEX ON ballast (i); ANALYZE ballast")


def test_full_spill_fails_who_writes_and_loses_nothing(cluster):
    project = cluster.create_project("full")
    uri = small_compute(cluster, project, "full-spill", 16)
    with pq.connect(uri) as db, pq.connect(uri) as other:
        ballast(db)
        db.query("CREATE TABLE t (i int, v int, pad text)")
        db.query("INSERT INTO t SELECT i, 0, repeat('x', 300) FROM generate_series(1, 60000) i")
        other.query("CREATE TABLE u (i int)")
        started, before = db.value("SELECT pg_postmaster_start_time()"), rows_of(db, "t")
        capacity = count(db, "spill_blocks_max")
        assert capacity == 2048
        # Larger than the spill, and never the first command: the command id of uniform pages is noted.
        db.query("BEGIN; CREATE TABLE l AS SELECT * FROM t; INSERT INTO l SELECT * FROM l")
        assert rows_of(db, "l").split()[0] == "120000"
        db.query("UPDATE l SET v = 1 WHERE i % 1000 = 0; COMMIT")
        assert rows_of(db, "l").split()[2] == "120"
        assert count(db, "command_id_noted_blocks") > capacity

        db.query("BEGIN; UPDATE t SET v = 1")
        try:
            db.query("UPDATE t SET v = v + 1") # what it replaces has two command ids, in this backend's memory
            raise AssertionError("a spill of 2048 pages took 2700")
        except pq.Error as error:
            assert error.sqlstate == LIMIT_EXCEEDED, f"{error.sqlstate}: {error}"
        db.query("ROLLBACK")
        peak = count(other, "spill_blocks_peak")
        print(f"   spill of {capacity} pages: peak {peak}, throttled {count(other, 'throttled_statements')} times"
              f" for {count(other, 'throttled_us') // 1000} ms")
        assert capacity * 3 // 4 <= peak <= capacity, peak

        other.query("INSERT INTO u SELECT generate_series(1, 1000)") # the room is there again
        assert rows_of(db, "t") == before
        db.query("UPDATE t SET v = v + 1") # the first command of its transaction needs none
        assert rows_of(db, "t").split()[2] == "60000"
        assert db.value("SELECT pg_postmaster_start_time()") == started


def command_ids(db):
    db.query("BEGIN; CREATE TABLE c AS SELECT i, 0 AS v, repeat('x', 300) AS pad FROM generate_series(1, 3000) i")
    db.query("INSERT INTO c SELECT * FROM c")
    assert db.value("SELECT count(*) FROM c") == "6000"
    db.query("DECLARE before NO SCROLL CURSOR FOR SELECT i FROM c")
    db.query("UPDATE c SET v = v + 1; DELETE FROM c WHERE i % 2 = 0; INSERT INTO c SELECT i, 9, 'y' FROM generate_series(1, 500) i")
    wash(db)
    assert len(db.query("FETCH ALL FROM before")) == 6000 # as it was when the cursor was opened
    db.query("COMMIT")
    assert rows_of(db, "c") == "3500 4625250 7500"


def late_logged_indexes(db):
    db.query("CREATE TABLE shapes AS SELECT i, point(i % 211, i % 199) AS p, ARRAY[i % 97, i % 89] AS a"
             " FROM generate_series(1, 20000) i")
    queries = ["SELECT count(*) FROM shapes WHERE p <@ box '((10,10),(90,120))'", "SELECT count(*) FROM shapes WHERE a @> ARRAY[5, 7]"]
    expected = [db.value(query) for query in queries]
    db.query("CREATE INDEX ON shapes USING gin (a); CREATE INDEX ON shapes USING spgist (p);"
             "CREATE INDEX ON shapes USING gist (p, (i::int8::text::circle)) WHERE false")
    db.query("CREATE INDEX by_gist ON shapes USING gist (p) WITH (buffering = on)")
    db.query("SET enable_seqscan = off")
    assert [db.value(query) for query in queries] == expected
    db.query("RESET enable_seqscan")


def sequences(db):
    db.query("CREATE SEQUENCE s")
    for expected in range(1, 40):
        assert db.value("SELECT nextval('s')") == str(expected)
        if expected % 13 == 0:
            wash(db)


def free_space(db):
    db.query("CREATE TABLE holes AS SELECT i, repeat('h', 200) AS pad FROM generate_series(1, 20000) i; DELETE FROM holes WHERE i % 2 = 0")

    def vacuum(): # an ANALYZE of autovacuum's may still see what was deleted
        db.query("VACUUM holes")
        return db.value("SELECT n_dead_tup FROM pg_stat_all_tables WHERE relname = 'holes'") == "0"

    wait_for("no row that was deleted is left", vacuum)
    wash(db)
    size = db.value("SELECT pg_relation_size('holes')")
    db.query("INSERT INTO holes SELECT i, repeat('h', 200) FROM generate_series(1, 5000) i")
    assert db.value("SELECT pg_relation_size('holes')") == size, "the free space was not found"


def cycle_ids(db, uri):
    """Pages that split while a vacuum of the index runs. It is run again until one of them left the buffers."""
    db.query("CREATE EXTENSION amcheck; CREATE TABLE b (k text)")
    db.query("INSERT INTO b SELECT md5(i::text) FROM generate_series(1, 40000) i; CREATE INDEX b_k ON b (k)")

    def vacuum():
        with pq.connect(uri) as vacuuming:
            # a nap for each page that it changes: time for splits while it goes through the index
            vacuuming.query("SET vacuum_cost_delay = '2ms'; SET vacuum_cost_limit = 20; SET vacuum_cost_page_dirty = 20;"
                            "SET vacuum_cost_page_hit = 0; SET vacuum_cost_page_miss = 0")
            vacuuming.query("VACUUM (INDEX_CLEANUP on) b")

    batch = 0
    while count(db, "spill_btree_cycle_blocks") == 0:
        assert batch < 400, "no split was ever met by a vacuum"
        db.query("DELETE FROM b WHERE random() < 0.1")
        running = threading.Thread(target=vacuum)
        running.start()
        while running.is_alive():
            batch += 1
            db.query(f"INSERT INTO b SELECT md5({batch} || 'b' || i) FROM generate_series(1, 2000) i")
        running.join()
    db.query("SELECT bt_index_parent_check('b_k', true, true)")


def unacknowledged(cluster, db):
    """Without a quorum, who does not wait for it reads back what he wrote."""
    stopped = cluster.safekeepers[:2]
    try:
        for process in stopped:
            os.kill(process.pid, signal.SIGSTOP)
        db.query("SET synchronous_commit = off; CREATE TABLE ahead AS SELECT i, repeat('a', 300) AS pad FROM generate_series(1, 5000) i")
        assert db.value("SELECT count(*) || ' ' || sum(i) FROM ahead") == "5000 12502500"
    finally:
        for process in stopped:
            os.kill(process.pid, signal.SIGCONT)
    db.query("RESET synchronous_commit; INSERT INTO ahead VALUES (1, 'acknowledged')")
    assert db.value("SELECT count(*) FROM ahead") == "5001"


def test_whatever_wal_cannot_rebuild_comes_back(fresh_cluster):
    project = fresh_cluster.create_project("reasons")
    uri = small_compute(fresh_cluster, project, "reasons", 64)
    with pq.connect(uri) as db:
        ballast(db)
        command_ids(db)
        late_logged_indexes(db)
        sequences(db)
        free_space(db)
        cycle_ids(db, uri)
        unacknowledged(fresh_cluster, db)
        met = {name: count(db, name) for name in REASONS}
        print(f"   pages that went to the spill: {met}, peak {count(db, 'spill_blocks_peak')} of {count(db, 'spill_blocks_max')}")
        assert all(met.values()), met


def test_copy_is_not_kept_and_a_second_update_is(cluster):
    rows = int(os.environ.get("ANABRANCH_SPILL_ROWS", "100000"))
    copied_rows = int(os.environ.get("ANABRANCH_COPY_ROWS", rows)) # in a table of its own if there are more
    project = cluster.create_project("large")
    uri = small_compute(cluster, project, "large", 1024)
    branch = Branch(project, next(b["id"] for b in project.branches() if b["name"] == "large"))
    with pq.connect(uri) as db:
        make_counters(db)
        def copy(table, rows):
            db.query(f"CREATE TABLE {table} (i int, v int, pad text)")
            db.query(f"COPY {table} FROM PROGRAM 'seq 1 {rows} | sed \"s/.*/&\\t0\\t{'c' * 100}/\"'")
        if copied_rows > rows:
            copy("large", copied_rows)
            print(f"   COPY of {int(db.value('SELECT pg_relation_size($$large$$)')) / 1e9:.1f} GB:"
                  f" peak {count(db, 'spill_blocks_peak')} pages")
            db.query("DROP TABLE large")
        copy("t", rows)
        assert count(db, "spill_command_id_blocks") == 0, "the first command of a transaction needs no keeping"
        copied = count(db, "spill_blocks_peak")
        db.query("BEGIN; UPDATE t SET v = 1; UPDATE t SET v = v + 1")
        assert rows_of(db, "t") == f"{rows} {rows * (rows + 1) // 2} {2 * rows}"
        db.query("COMMIT")
        kept = count(db, "spill_command_id_blocks")
        print(f"   {rows} rows: peak of COPY {copied} pages, of UPDATE after UPDATE {count(db, 'spill_blocks_peak')} pages;"
              f" the table has {int(db.value('SELECT pg_relation_size(chr(116))')) // 8192}")
        assert kept > 0
        assert rows_of(db, "t") == f"{rows} {rows * (rows + 1) // 2} {2 * rows}"
        db.query("BEGIN; UPDATE t SET v = 7; UPDATE t SET v = v + 1 WHERE i % 2 = 0")
        peak = count(db, "spill_blocks_peak")
        assert count(db, "spill_blocks_now") > 100
        written = os.stat(f"/proc/{branch.compute()['pids']['postgres']}/cwd/anabranch.spill").st_size // 8192
        assert written >= peak, f"{peak} pages are said to have been in a file that never had more than {written}"
        kill(branch)
    with pq.connect(branch.compute()["superuser_uri"]) as db: # the next server begins without, and misses nothing of it
        assert count(db, "spill_blocks_peak") < 100
        assert rows_of(db, "t") == f"{rows} {rows * (rows + 1) // 2} {2 * rows}"


def kill(branch):
    killed = branch.compute()["pids"]["postgres"]
    os.kill(killed, signal.SIGKILL)
    wait_for("it is back", lambda: branch.compute()["state"] == "running" and
             branch.compute()["pids"].get("postgres", killed) != killed)
