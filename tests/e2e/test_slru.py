"""A database that has been in use for long starts without its old SLRU segments, and has them when a row asks."""
import os
import signal
import threading

import pq
from cluster import ApiError, Project, http, running, wait_for
from old_cluster import MEMBERS_PER_SEGMENT, MULTIS_PER_SEGMENT, SEGMENT, XIDS_PER_SEGMENT, OldCluster

COLD = len("cold\n") # common/wire/page_proto.h
XIDS = 8 * XIDS_PER_SEGMENT - 200       # what a test does goes over these borders
MULTIS = 2 * MULTIS_PER_SEGMENT - 20
MEMBERS = 3 * MEMBERS_PER_SEGMENT - 30
TIMES_PER_SEGMENT = 32 * 819
SETTINGS = {"autovacuum": "off", "track_commit_timestamp": "on", "max_prepared_transactions": "8"}

# Transactions of each kind, below the border; then subtransactions, until the border of commit times is behind us too.
WORK = ["CREATE TABLE old (n int PRIMARY KEY, v text)", "CREATE TABLE locked (n int PRIMARY KEY)",
        "INSERT INTO locked SELECT generate_series(1, 40)",
        *(f"INSERT INTO old VALUES ({n}, 'committed')" for n in range(19)),
        "BEGIN; INSERT INTO old VALUES (100, 'rolled back'); ROLLBACK",
        "BEGIN; INSERT INTO old VALUES (200, 'parent'); SAVEPOINT s; INSERT INTO old VALUES (201, 'kept');"
        "SAVEPOINT t; INSERT INTO old VALUES (202, 'lost'); ROLLBACK TO t; COMMIT"]
BURN = f"""DO $$ BEGIN FOR i IN 1..{TIMES_PER_SEGMENT + 1000} LOOP BEGIN INSERT INTO old VALUES (1000 + i, 'sub');
EXCEPTION WHEN unique_violation THEN NULL; END; END LOOP; END $$"""
ROWS = "SELECT v, count(*) FROM old GROUP BY v ORDER BY v"
EXPECTED = [("committed", "20"), ("kept", "1"), ("parent", "1"), ("sub", str(TIMES_PER_SEGMENT + 1000))]


def superuser(branch):
    return pq.connect(wait_for("it runs", lambda: branch.compute()["state"] == "running" and branch.compute()["superuser_uri"]))


def sizes(branch, folder):
    """{segment: bytes} of a folder of the compute, as its files are."""
    data = branch.cluster.agent.folder / "computes" / branch.endpoint()["id"] / "pgdata" / folder
    return {int(p.name, 16): p.stat().st_size for p in data.iterdir() if len(p.name) == 4}


def cold(branch, folder):
    return {segment for segment, size in sizes(branch, folder).items() if size == COLD}


def status_in(segment):
    """What pg_xact says of a transaction in that segment: it looks at nothing else."""
    return f"SELECT pg_xact_status('{segment * XIDS_PER_SEGMENT + 1000}')"


def kill(branch):
    killed = branch.compute()["pids"]["postgres"]
    os.kill(killed, signal.SIGKILL)
    wait_for("it is back", lambda: branch.compute()["state"] == "running" and
             branch.compute()["pids"].get("postgres", killed) != killed)


def make_multixacts(branch):
    """One a row: the same two transactions would share one, so the second has a subtransaction for each."""
    with superuser(branch) as db, superuser(branch) as other:
        db.query("BEGIN")
        other.query("BEGIN")
        db.query("SELECT count(*) FROM (SELECT 1 FROM locked FOR KEY SHARE) l")
        for n in range(1, 41):
            other.query(f"SAVEPOINT s; SELECT 1 FROM locked WHERE n = {n} FOR KEY SHARE; RELEASE s")
        multis = db.query("SELECT xmax FROM locked ORDER BY n")
        db.query("COMMIT")
        other.query("COMMIT")
    assert int(multis[0][0]) < 2 * MULTIS_PER_SEGMENT < int(multis[-1][0]), "the border of multixacts was not crossed"
    return [multi for (multi,) in multis]


def check_start(branch):
    """Only what is in use at the end is whole, and the oldest multixacts."""
    # The seventh may have come already: the rows of roles and databases are as old as the tables here.
    assert cold(branch, "pg_xact") | {7} == set(range(8)), sizes(branch, "pg_xact")
    assert cold(branch, "pg_multixact/offsets") == {1}, sizes(branch, "pg_multixact/offsets")
    assert cold(branch, "pg_multixact/members") == {0, 1, 2}, sizes(branch, "pg_multixact/members")
    assert len(cold(branch, "pg_commit_ts")) == 1, sizes(branch, "pg_commit_ts")


def check_rows(branch, multis, first_xid):
    """Rows of which nobody has looked at the transaction since it ended; the segments are whole afterwards."""
    with superuser(branch) as db:
        assert db.query(ROWS) == EXPECTED
        for multi in (multis[0], multis[-1]):
            assert len(db.query(f"SELECT * FROM pg_get_multixact_members('{multi}')")) == 2
        assert db.value(f"SELECT pg_xact_commit_timestamp('{first_xid}') > now() - interval '1 hour'") == "t"
        assert db.value("SELECT count(*) FROM (SELECT 1 FROM locked FOR UPDATE NOWAIT) free") == "40"
        db.query("CHECKPOINT")
        db.query("CREATE OR REPLACE FUNCTION counters(OUT name text, OUT value bigint) RETURNS SETOF record "
                 "LANGUAGE c AS 'anabranch', 'anabranch_counters'")
        fetched = int(db.value("SELECT value FROM counters() WHERE name = 'slru_segments_fetched'"))
        assert fetched == 4, fetched # of each SLRU one
    assert sizes(branch, "pg_xact")[7] == SEGMENT
    assert cold(branch, "pg_xact") >= {1, 2, 3, 4, 5, 6}, "more than was asked for"
    assert sizes(branch, "pg_multixact/offsets")[1] == SEGMENT
    assert sizes(branch, "pg_multixact/members")[2] == SEGMENT
    assert not cold(branch, "pg_commit_ts")


def check_away(branch):
    """The pageserver is away: a cancel ends the wait, and when it is back the wait ends well."""
    pageserver = branch.cluster.pageserver
    with superuser(branch) as db:
        db.query(status_in(8)) # the statement is planned, and what that needs is at hand
        pageserver.kill()
        db.query("SET statement_timeout = '300ms'")
        try:
            db.query(status_in(2))
            raise AssertionError("it was answered by nobody")
        except pq.Error as error:
            assert "pg_xact/0002" in str(error) and "canceled" in str(error).lower(), error
        db.query("SET statement_timeout = 0")
        answers = []
        waiting = threading.Thread(target=lambda: answers.append(db.value(status_in(2))))
        waiting.start()
        pageserver.start()
        waiting.join()
        assert answers == ["committed"]
    assert sizes(branch, "pg_xact")[2] == SEGMENT and 3 in cold(branch, "pg_xact")


def check_many_at_once(branch):
    """Whoever comes first brings the segment; what another has fetched and changed is not put back."""
    connections = [superuser(branch) for _ in range(6)]
    answers = []

    def look(db, first):
        for page in range(8):
            answers.append(db.value(f"SELECT pg_xact_status('{3 * XIDS_PER_SEGMENT + (first + page) % 8 * 4 * 32768 + 7}')"))
    threads = [threading.Thread(target=look, args=(db, i)) for i, db in enumerate(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for db in connections:
        db.close()
    assert answers == ["committed"] * 48, answers


def check_prepared(branch):
    """From before the border: its segment is whole, and it commits with nobody to ask."""
    assert sizes(branch, "pg_xact")[8] < SEGMENT and not cold(branch, "pg_xact") & {7, 8}, sizes(branch, "pg_xact")
    with superuser(branch) as db:
        db.query("COMMIT PREPARED 'old'")
        assert db.value("SELECT count(*) FROM prepared") == "2"
        db.query("DROP TABLE prepared")


def check_truncation(branch):
    """What is frozen goes, cold or not: the files here, and the names of the next start."""
    with superuser(branch) as db:
        db.query("UPDATE pg_database SET datallowconn = true WHERE datname = 'template0'")
        names = [name for (name,) in db.query("SELECT datname FROM pg_database")]
    uri = branch.compute()["superuser_uri"]
    for name in names:
        with pq.connect(uri.replace("@/postgres?", f"@/{name}?")) as db:
            db.query("SET vacuum_freeze_min_age = 0")
            db.query("VACUUM FREEZE")
    assert set(sizes(branch, "pg_xact")) == {8}, sizes(branch, "pg_xact")
    assert set(sizes(branch, "pg_multixact/offsets")) == {2}, sizes(branch, "pg_multixact/offsets")
    assert set(sizes(branch, "pg_multixact/members")) == {3}, sizes(branch, "pg_multixact/members")
    kill(branch)
    for folder, segments in (("pg_xact", {8}), ("pg_multixact/offsets", {2}), ("pg_multixact/members", {3})):
        assert set(sizes(branch, folder)) == segments, sizes(branch, folder)
    with superuser(branch) as db:
        assert db.query(ROWS) == EXPECTED


def make_old(project):
    """A branch whose rows, multixacts and commit times lie below the borders, and a compute that is behind them."""
    branch = project.create_branch("works", project.main(), endpoint=False).add_endpoint(**SETTINGS)
    with superuser(branch) as db:
        for sql in WORK:
            db.query(sql)
        db.query("BEGIN; INSERT INTO old VALUES (19, 'committed')")
        first_xid = db.value("SELECT pg_current_xact_id()")
        db.query("COMMIT")
        db.query("BEGIN; CREATE TABLE prepared (n int); INSERT INTO prepared VALUES (1);"
                 "SAVEPOINT s; INSERT INTO prepared VALUES (2); PREPARE TRANSACTION 'old'")
    multis = make_multixacts(branch)
    with superuser(branch) as db:
        db.query(BURN)
    return branch, multis, first_xid


def create_project(cluster, old):
    """Its image cannot be imported at first: who asks for a base backup meanwhile is told so, as a compute that starts does."""
    old.put_object(b"no data directory")
    answer = cluster.api("POST", "/projects", {"project": {"name": "old"}})
    project = Project(cluster, answer["project"]["id"])

    status = f"{cluster.pageserver.http_url}/v1/status"
    path = wait_for("the import fails", lambda: next((
        f"{tenant['tenant']}/timelines/{timeline['timeline']}" for tenant in http("GET", status)["tenants"]
        for timeline in tenant["timelines"] if "import_error" in timeline), None))
    try:
        http("GET", f"{cluster.pageserver.http_url}/v1/tenants/{path}/base_backup?lsn=0/2000000", headers={"X-Timeout-Ms": "1"})
        raise AssertionError("a base backup of nothing")
    except ApiError as error:
        assert "bootstrap image" in str(error), error
    old.put(XIDS, MULTIS, MEMBERS)
    project.wait_operations(answer)
    return project


def test_old_segments_come_when_a_row_asks_for_them(build):
    with running(build) as cluster:
        cluster.create_project("makes-the-image").main().suspend()
        project = create_project(cluster, OldCluster(cluster))
        project.main().suspend()
        branch, multis, first_xid = make_old(project)
        kill(branch)
        check_prepared(branch)
        branch.suspend()
        child = project.create_branch("child", branch, endpoint=False)
        branch.start()
        with superuser(branch) as db:
            lsn = db.value("SELECT pg_current_wal_flush_lsn()")
        check_start(branch)
        check_rows(branch, multis, first_xid)
        check_away(branch)
        check_many_at_once(branch)
        kill(branch)
        with superuser(branch) as db:
            assert db.query(ROWS) == EXPECTED
            db.query("DELETE FROM old; DROP TABLE locked")
        for old in (child, project.create_branch("past", branch, endpoint=False, parent_lsn=lsn)):
            old.add_endpoint(**SETTINGS)
            check_start(old)
            check_rows(old, multis, first_xid)
        check_truncation(old)
