"""No commit is answered or seen by others before a quorum has it, and no read goes on for ever without one."""
import contextlib
import os
import signal
import threading

import pq
from cluster import http, wait_for


@contextlib.contextmanager
def quorum_asleep(cluster):
    """Two of the three safekeepers hear nothing; afterwards they go on as if nothing had been."""
    asleep = [cluster.process(row["name"]) for row in cluster.rows() if row["name"].startswith("safekeeper")][:2]
    for safekeeper in asleep:
        safekeeper.kill(signal.SIGSTOP)
    try:
        yield
    finally:
        for safekeeper in asleep:
            safekeeper.kill(signal.SIGCONT)


class Statement(threading.Thread):
    """One statement of a session; `answer` is None while it waits, then rows or the pq.Error."""

    def __init__(self, db, sql):
        super().__init__(daemon=True)
        self.db, self.sql, self.answer = db, sql, None
        self.start()

    def run(self):
        try:
            self.answer = self.db.query(self.sql)
        except pq.Error as error:
            self.answer = error


def waits_for_quorum(observer, pid):
    return observer.value(f"SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND wait_event = 'SyncRep'") == "1"


def test_neither_cancel_nor_terminate_ends_the_wait_of_a_commit(cluster):
    main = cluster.create_project("honest").main()
    with main.connect() as observer:
        observer.query("CREATE TABLE seen (n int)")
        cancelled, ended, timed_out = main.connect(), main.connect(), main.connect()
        timed_out.query("SET statement_timeout = '100ms'")
        with quorum_asleep(cluster):
            statements = [Statement(db, f"INSERT INTO seen VALUES ({n})")
                          for n, db in enumerate((cancelled, ended, timed_out))]
            for statement in statements:
                wait_for("the commit waits", lambda pid=statement.db.pid: waits_for_quorum(observer, pid))
            assert observer.value(f"SELECT pg_cancel_backend({cancelled.pid})") == "t"
            assert observer.value(f"SELECT pg_terminate_backend({ended.pid}, 1000)") == "f"
            for statement in statements:
                assert statement.answer is None and waits_for_quorum(observer, statement.db.pid)
            assert observer.value("SELECT count(*) FROM seen") == "0"
        for statement in statements:
            statement.join(60)
            assert not statement.is_alive()
        # What was cancelled is committed all the same; what was terminated may end without an answer.
        assert statements[0].answer == [] and statements[2].answer == []
        assert statements[1].answer == [] or statements[1].answer.sqlstate in (None, "57P01")
        wait_for("all rows", lambda: observer.value("SELECT count(*) FROM seen") == "3")
        wait_for("the session ends", lambda: observer.value(
            f"SELECT count(*) FROM pg_stat_activity WHERE pid = {ended.pid}") == "0")


def test_a_compute_without_a_quorum_stops_reading_in_time_and_comes_back(fresh_cluster):
    agent = fresh_cluster.agent
    with open(fresh_cluster.data / "conf/compute-agent.conf", "a") as conf:
        conf.write("stale_reads_max_ms = 3000ms\n")
    os.kill(agent.pid, signal.SIGHUP)
    wait_for("the setting", lambda: b"stale_reads_max_ms = 3000ms" in http("GET", agent.http_url + "/config", raw=True))
    main = fresh_cluster.create_project("cut_off").main()
    with main.connect() as db:
        db.query("CREATE TABLE kept AS SELECT 1 AS n")
        with quorum_asleep(fresh_cluster):
            assert db.value("SELECT n FROM kept") == "1" # it reads for some time
            def refused():
                try:
                    db.query("SELECT n FROM kept")
                    return False
                except pq.Error:
                    return True
            wait_for("it reads no more", refused, 30)
            wait_for("the agent says why", lambda: "stale_reads_max" in (main.compute().get("error") or ""), 30)
    assert main.value("SELECT n FROM kept") == "1" # by itself, as soon as there is a quorum
    main.sql("INSERT INTO kept VALUES (2)")
