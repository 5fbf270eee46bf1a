"""Pages that leave the buffer pool come back as they left, however far behind the pageserver is."""

import pq
from cluster import wait_for

EVICT = """SELECT count(*) FILTER (WHERE pg_buffercache_evict(bufferid)) FROM pg_buffercache
           WHERE relfilenode IN (pg_relation_filenode('t'), pg_relation_filenode('t_pkey'))"""


def evict(db):
    evicted = int(db.value(EVICT))
    assert evicted > 0, "no page left the buffer pool"


def count_by(db, scan):
    """By the table's pages, or by the index and the visibility map."""
    db.query(f"SET enable_seqscan = {'on' if scan == 'seq' else 'off'}; SET enable_bitmapscan = off;"
             f"SET enable_indexonlyscan = {'off' if scan == 'seq' else 'on'}; SET enable_indexscan = off")
    return db.value("SELECT count(*) FROM t WHERE i > 0")


def test_a_page_comes_back_as_it_left_while_ingest_is_slow(cluster):
    project = cluster.create_project("slow-ingest")
    branch = project.create_branch("no-cache", project.main(), endpoint=False)
    branch.add_endpoint(**{"anabranch.local_cache_mb": "0"}) # which would have every page
    uri = wait_for("it runs", lambda: branch.compute().get("superuser_uri"))
    with pq.connect(uri) as db:
        db.query("CREATE EXTENSION pg_buffercache; CREATE TABLE t (i int PRIMARY KEY, v int)")
        db.query("INSERT INTO t SELECT i, 0 FROM generate_series(1, 20000) i")
        db.query("VACUUM t")
        evict(db)
        assert count_by(db, "index only") == "20000"
        evict(db)
        try:
            cluster.pageserver.arm("wal_ingest.piece=pause:1500")
            db.query("DELETE FROM t WHERE i % 100 = 0") # clears bits of the map
            evict(db)
            counted = count_by(db, "index only")
            assert counted == "19800", counted
            db.query("DELETE FROM t WHERE i % 100 = 1")
            evict(db)
            counted = count_by(db, "seq")
            assert counted == "19600", counted
        finally:
            cluster.pageserver.arm("")
