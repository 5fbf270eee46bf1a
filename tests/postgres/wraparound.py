"""Transaction ids over a segment of pg_xact, up to the limits, and around: with src/test/modules/xid_wraparound, which hands
them out quickly, and a compute that is killed on the way."""
import pq
from compute import Failure
from stage import Stage

AROUND = 1 << 32
STEP = 500_000_000
REFUSED = "54000"


def consume(s, until):
    """Up to this id, without the thousands of warnings on the way. Checkpoints take what is in pg_subtrans, 4 bytes an id."""
    now = int(s.value("SELECT pg_current_xact_id()"))
    s.run("SET client_min_messages = error")
    for step in [*range(now + STEP, until, STEP), until]:
        s.run(f"SELECT consume_xids_until('{step}'::xid8)", "CHECKPOINT")
    s.run("RESET client_min_messages")


def freeze_all(s):
    code, said = s.compute.run(s.compute.bin / "vacuumdb", "--all", "--freeze", "--quiet")
    if code != 0:
        raise Failure(f"vacuumdb: {said[-2000:]}")


def segments(s):
    """Five million ids: 153 pages, five segments. Whoever committed did, and nobody else."""
    s.run("CREATE EXTENSION IF NOT EXISTS xid_wraparound SCHEMA public", "CREATE TABLE t (n int)")
    for n in range(5):
        s.run(f"INSERT INTO t VALUES ({n})", "BEGIN", f"INSERT INTO t VALUES ({n + 100})", "ROLLBACK")
        consume(s, int(s.value("SELECT pg_current_xact_id()")) + 1_000_000)
    s.run("BEGIN", "INSERT INTO t VALUES (5)", f"PREPARE TRANSACTION '{s.name}'")
    yield
    assert s.value("SELECT string_agg(n::text, ' ' ORDER BY n) FROM t") == "0 1 2 3 4"
    assert s.value(f"SELECT pg_xact_status((pg_current_xact_id()::text::int8 - {4_900_000})::text::xid8)") in ("aborted", "committed")
    s.run(f"COMMIT PREPARED '{s.name}'")
    yield
    assert s.value("SELECT string_agg(n::text, ' ' ORDER BY n) FROM t") == "0 1 2 3 4 5"
    s.run("ALTER DATABASE template0 ALLOW_CONNECTIONS true")
    freeze_all(s)
    assert int(s.value("SELECT min(datfrozenxid::text::int8) FROM pg_database")) > 5_000_000
    s.run("CHECKPOINT")
    yield
    assert s.value("SELECT string_agg(n::text, ' ' ORDER BY n) FROM t") == "0 1 2 3 4 5"


def limits(s):
    """At the limit nobody gets an id, also not after a crash; a vacuum is possible, and ends it."""
    s.run("CREATE TABLE t (at text)", "INSERT INTO t VALUES ('start')")
    old = s.session()
    old.query("BEGIN")
    old.query("INSERT INTO t VALUES ('left open')")
    consume(s, int(s.value("SELECT min(datfrozenxid::text::int8) FROM pg_database")) + 2_110_000_000)
    s.run("INSERT INTO t VALUES ('with a warning')", "SET client_min_messages = error")
    s.refused("SELECT consume_xids(100000000)", REFUSED)
    s.run("CHECKPOINT")  # which says how far they went: ids that nobody wrote are given out again after a crash
    yield
    s.run("SET client_min_messages = error")
    s.refused("INSERT INTO t VALUES ('refused')", REFUSED)
    assert s.value("SELECT string_agg(at, ', ' ORDER BY at) FROM t") == "start, with a warning"
    freeze_all(s)
    s.run("INSERT INTO t VALUES ('again')")
    yield
    assert s.value("SELECT string_agg(at, ', ' ORDER BY at) FROM t") == "again, start, with a warning"


def around(s):
    """Over 2^32: the epoch is 1, and rows of before are as old as they were."""
    s.run("CREATE TABLE t (at text, id xid8 DEFAULT pg_current_xact_id())", "INSERT INTO t VALUES ('before')")
    for until in (3_600_000_000, AROUND - 100):
        consume(s, until)
        s.run(f"INSERT INTO t VALUES ('{until}')")
        freeze_all(s)
    s.run("BEGIN", "INSERT INTO t VALUES ('prepared')", f"PREPARE TRANSACTION '{s.name}'")
    consume(s, AROUND + 2_000_000)
    s.run("INSERT INTO t VALUES ('after')", "BEGIN", "INSERT INTO t VALUES ('aborted')", "ROLLBACK")
    yield
    assert int(s.value("SELECT pg_current_xact_id()")) > AROUND + 2_000_000
    assert s.value("SELECT string_agg(at, ', ' ORDER BY id) FROM t") == f"before, 3600000000, {AROUND - 100}, after"
    s.run(f"COMMIT PREPARED '{s.name}'")
    assert s.value("SELECT count(*) FROM t WHERE id < '4294967296'") == "4"
    freeze_all(s)
    yield
    s.run("INSERT INTO t VALUES ('at the end')")
    assert s.value("SELECT string_agg(at, ', ' ORDER BY id) FROM t") == f"before, 3600000000, {AROUND - 100}, prepared, after, at the end"


def on_a_branch(s):
    """A branch has the epoch, too."""
    before = int(s.value("SELECT pg_current_xact_id()"))
    s.run("CREATE TABLE t (n int)", "INSERT INTO t VALUES (1)")
    yield
    assert int(s.value("SELECT pg_current_xact_id()")) > before > AROUND
    s.run("INSERT INTO t VALUES (2)")
    assert s.value("SELECT count(*) FROM t") == "2"
    assert s.value("SELECT count(*) FROM crash_around.t") == "6"


def wraparound(compute):
    for event, scenario in (("crash", segments), ("crash", limits), ("crash", around), ("branch", on_a_branch)):
        stage = Stage(compute, event)
        try:
            yield from stage.play([scenario])
        except pq.Error as error:
            yield f"{event}/{scenario.__name__}", False, str(error)
        finally:
            stage.end()
