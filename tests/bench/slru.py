"""How long a start takes when many transactions are remembered: two bits each, and five bytes for a member of a multixact.

The empty cluster that roots begin from is rewritten in the object store (tests/lib/old_cluster.py): so many transactions
have been, and with the last of the counts also SLRU_MEMBERS members of multixacts. Then a project is made from it, and its
compute is started SLRU_STARTS times. Against the same with few transactions, in the same run. Beside it the base backup as
it would be with every segment in it. `vacuum_freeze_*` keeps 200 million in a database that is left to its defaults, and up
to 2 billion are possible.

An image has an end (512 MiB). SLRU_LOCKED members more are made by who makes them elsewhere too: LOCKERS sessions lock the
same rows (10 bytes of WAL a member).
"""
import os
import statistics
import time

import pq
from cluster import ApiError, http, running, wait_for
from old_cluster import XIDS_PER_SEGMENT, OldCluster
from parts.compute_work import cpu_seconds

XIDS = [int(x) for x in os.environ.get("SLRU_XIDS", "50000000,200000000,1000000000").split(",")]
MEMBERS = int(os.environ.get("SLRU_MEMBERS", "40000000"))
MEMBERS_EACH = 100
LOCKED = int(os.environ.get("SLRU_LOCKED", "0"))
LOCKERS = 96
STARTS = int(os.environ.get("SLRU_STARTS", "5"))
FETCHES = 5


class Backup:
    """Bytes of a base backup and the pageserver's CPU for one, in ms; None: it is refused."""

    def __init__(self, cluster, url):
        begin = cpu_seconds(cluster.pageserver.pid)
        try:
            for _ in range(FETCHES):
                self.size = len(http("GET", url, raw=True, timeout=600))
        except ApiError as error:
            print(f"      base backup with every segment: {error}", flush=True)
            self.size = None
        self.cpu = (cpu_seconds(cluster.pageserver.pid) - begin) * 1000 / FETCHES


def lock_rows(uri, members):
    """Every locker makes a multixact a row, of those before and himself. Not one for all rows: the second has a
    subtransaction for each."""
    rows = members // (LOCKERS * (LOCKERS + 1) // 2 - 1) + 1
    sessions = [pq.connect(uri) for _ in range(LOCKERS)]
    sessions[0].query(f"CREATE TABLE locked AS SELECT n FROM generate_series(1, {rows}) n; CREATE INDEX ON locked (n); ANALYZE locked")
    for number, session in enumerate(sessions):
        session.query("BEGIN")
        session.query("SELECT count(*) FROM (SELECT 1 FROM locked FOR KEY SHARE) l" if number != 1 else
                      f"DO $$ BEGIN FOR i IN 1..{rows} LOOP BEGIN PERFORM 1 FROM locked WHERE n = i FOR KEY SHARE;"
                      " EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP; END $$")
    for session in sessions:
        session.query("COMMIT")
        session.close()


class Starts:
    """Medians of whole start and its base backup in ms; the base backup as it is, and as it would be with all segments."""

    def __init__(self, cluster, name, first_look_at, locked=0):
        project = cluster.create_project(name)
        branch = project.create_branch("bench", project.main(), endpoint=False).add_endpoint(
            autovacuum="off", max_connections="150", autovacuum_freeze_max_age="2000000000",
            autovacuum_multixact_freeze_max_age="2000000000") # nobody freezes, not even where he must
        project.main().suspend()
        if locked:
            lock_rows(wait_for("it runs", lambda: branch.compute().get("superuser_uri")), locked)
        laps = []
        for _ in range(STARTS):
            branch.suspend()
            branch.start()
            laps.append(wait_for("it runs", lambda: (lambda c: c if c["state"] == "running" else None)(branch.compute())))
        median = {lap: statistics.median(each["started_ms"][lap] for each in laps) for lap in ("total", "base_backup")}
        self.total, self.backup_ms = median["total"], median["base_backup"]
        self.look_ms = self.first_look(branch, first_look_at)
        spec = http("GET", f"{cluster.agent.http_url}/v1/computes/{branch.endpoint()['id']}/spec")
        url = f"{spec['pageserver']['http_url']}/v1/tenants/{spec['tenant']}/timelines/{spec['timeline']}/base_backup"
        url += f"?lsn={laps[-1]['start_lsn']}&slrus="
        self.backup, self.whole = Backup(cluster, url + "on_demand"), Backup(cluster, url + "whole")
        branch.suspend()

    @staticmethod
    def first_look(branch, xids):
        """The mean time of a look at a segment that nobody has looked at, in ms; 0: none was asked for."""
        with branch.connect() as db:
            db.query("SELECT pg_xact_status(pg_current_xact_id())") # the connection, and what planning needs, are not meant
            begin = time.monotonic()
            for xid in xids:
                assert db.value(f"SELECT pg_xact_status('{xid}')") == "committed"
            return (time.monotonic() - begin) * 1000 / max(len(xids), 1)


def run(build, emit):
    with running(build) as cluster:
        cluster.create_project("makes-the-image").main().suspend()
        old = OldCluster(cluster)
        few = Starts(cluster, "few", [])
        for xids in XIDS:
            members = MEMBERS if xids == XIDS[-1] else 0
            old.put(xids, members // MEMBERS_EACH, members)
            locked = LOCKED if xids == XIDS[-1] else 0
            segments = range(1, min(xids // XIDS_PER_SEGMENT, 40))
            mine = Starts(cluster, f"x{xids}", [segment * XIDS_PER_SEGMENT + 5 for segment in segments], locked)
            label = f"{xids // 1000000}m_xids" + f"_{(members + locked) // 1000000}m_members" * bool(members + locked)
            aim = "<= 1.2" if xids <= 200000000 else "none"
            emit(f"start_{label}", mine.total, "ms", "few transactions, ms", few.total, mine.total / few.total, aim,
                 aim == "none" or mine.total <= 1.2 * few.total)
            emit(f"base_backup_{label}", mine.backup_ms, "ms", "few transactions, ms", few.backup_ms,
                 mine.backup_ms / max(few.backup_ms, 1), "none", True)
            emit(f"base_backup_cpu_{label}", mine.backup.cpu, "ms", "every segment in it, ms", mine.whole.cpu,
                 mine.backup.cpu / max(mine.whole.cpu, 1), "none", True)
            emit(f"base_backup_size_{label}", mine.backup.size / 1e6, "MB", "few transactions, MB", few.backup.size / 1e6,
                 mine.backup.size / few.backup.size, "none", True)
            if mine.whole.size:
                emit(f"base_backup_whole_{label}", mine.whole.size / 1e6, "MB", "on demand, MB", mine.backup.size / 1e6,
                     mine.whole.size / mine.backup.size, "none", True)
            emit(f"first_look_{label}", mine.look_ms, "ms", "none", 0, 0, "none", True)
