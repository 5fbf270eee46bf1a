"""Tablespaces without disks, and sizes of what is not on the disk."""
import pq
from cluster import wait_for


def superuser(branch, database="postgres"):
    uri = wait_for("it runs", lambda: branch.compute().get("superuser_uri"))
    return wait_for("it takes connections", lambda: pq.connect(uri.replace("/postgres?", f"/{database}?")))


def refusal(db, sql):
    try:
        db.query(sql)
    except pq.Error as error:
        return str(error)
    raise AssertionError(f"{sql} was not refused")


def check_contents(branch):
    with superuser(branch, "app") as db:
        assert db.value("SELECT count(*) || ' ' || sum(i) FROM elsewhere") == "20000 200010000"
        assert db.value("SELECT i FROM elsewhere WHERE i = 777") == "777"
        db.query("SELECT count(*) FROM elsewhere_unlogged")
        assert "is not empty" in refusal(db, "DROP TABLESPACE space")
    with superuser(branch, "moved") as db:
        assert db.value("SELECT count(*) FROM kept") == "5000"
        assert db.value("SELECT spcname FROM pg_database d JOIN pg_tablespace t ON t.oid = dattablespace"
                        " WHERE datname = 'moved'") == "space"


def test_tablespace_outlives_its_compute(cluster):
    project = cluster.create_project("space")
    branch = project.main()
    with superuser(branch, "app") as db:
        assert "has no location" in refusal(db, "CREATE TABLESPACE space LOCATION '/tmp'")
        db.query("SET allow_in_place_tablespaces = on")
        db.query("CREATE TABLESPACE space LOCATION ''")
        db.query("CREATE TABLESPACE empty LOCATION ''")
        db.query("CREATE TABLE elsewhere (i int PRIMARY KEY USING INDEX TABLESPACE space) TABLESPACE space")
        db.query("INSERT INTO elsewhere SELECT generate_series(1, 20000)")
        db.query("CREATE UNLOGGED TABLE elsewhere_unlogged (i int) TABLESPACE space")
        db.query("CREATE DATABASE moved STRATEGY file_copy")
    with superuser(branch, "moved") as db:
        db.query("CREATE TABLE kept AS SELECT generate_series(1, 5000) i")
    with superuser(branch) as db:
        db.query("ALTER DATABASE moved SET TABLESPACE space")
    check_contents(branch)
    branch.suspend()
    branch.start()
    check_contents(branch)
    check_contents(project.create_branch("child", branch))

    with superuser(branch) as db:  # what Postgres finds out by looking into folders, after a start from nothing
        db.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname IN ('app', 'moved')")
        db.query("CREATE DATABASE copied TEMPLATE app STRATEGY file_copy")
        db.query("ALTER DATABASE moved SET TABLESPACE pg_default")
    with superuser(branch, "copied") as db:
        assert db.value("SELECT sum(i) FROM elsewhere") == "200010000"
    with superuser(branch, "moved") as db:
        assert db.value("SELECT count(*) FROM kept") == "5000"
    with superuser(branch) as db:
        db.query("DROP DATABASE copied")
        db.query("DROP TABLESPACE empty")
        assert "is not empty" in refusal(db, "DROP TABLESPACE space")
    with superuser(branch, "app") as db:
        db.query("DROP TABLE elsewhere, elsewhere_unlogged")
        db.query("DROP TABLESPACE space")


def test_sizes_count_what_the_pageserver_has(cluster):
    branch = cluster.create_project("sizes").main()
    with superuser(branch, "app") as db:
        db.query("CREATE TABLE big AS SELECT i, repeat('x', 500) AS t FROM generate_series(1, 20000) i")
        table = int(db.value("SELECT pg_table_size('big')"))
        relations = int(db.value("SELECT sum(pg_table_size(oid)) FROM pg_class WHERE relkind IN ('r', 't', 'm') AND NOT relisshared"))
        database = int(db.value("SELECT pg_database_size('app')"))
        assert relations >= table > 10_000_000
        assert table < database < relations * 2, (table, relations, database)
        everything = int(db.value("SELECT sum(pg_database_size(oid)) FROM pg_database"))
        tablespace = int(db.value("SELECT pg_tablespace_size('pg_default')"))
        assert abs(tablespace - everything) < 1_000_000, (tablespace, everything)
        assert int(db.value("SELECT pg_tablespace_size('pg_global')")) > 100_000
        db.query("DROP TABLE big")
        assert int(db.value("SELECT pg_database_size('app')")) < database - table + 1_000_000
