"""What Postgres' recovery tests are about, as scenarios of a stage (stage.py): numbers are those of src/test/recovery/t.

The tests themselves work on data directories, which a compute has not; what they want to know of a server is asked here.
"""
import threading

import pq
from cluster import wait_for

COPY_THREE = "COPY {} FROM PROGRAM 'printf \"100001,1\\n100002,2\\n100003,3\\n\"' DELIMITER ','"


def many(table, count):
    return f"INSERT INTO {table} (n) SELECT generate_series(1, {count})"


# 018: changes within the transaction that made or emptied the table. (name, statements of one transaction, query, answer)
ONE_TRANSACTION = [
    ("empty_truncated", ["CREATE TABLE {} (id serial PRIMARY KEY, n int)", "TRUNCATE {}"], "SELECT count(*) FROM {}", "0"),
    ("truncated_then_written", ["CREATE TABLE {} (id serial PRIMARY KEY, n int)", many("{}", 1), "TRUNCATE {}", many("{}", 1)],
     "SELECT count(*) || ' ' || min(id) FROM {}", "1 2"),
    ("written_only", ["CREATE TABLE {} (id serial PRIMARY KEY, n int)", many("{}", 20000)], "SELECT count(*) FROM {}", "20000"),
    ("truncated_inserted_copied", ["CREATE TABLE {} (id serial PRIMARY KEY, n int)", many("{}", 10000), "TRUNCATE {}",
                                   many("{}", 1), COPY_THREE, many("{}", 1)],
     "SELECT count(*) || ' ' || sum(n) FROM {}", "5 8"),
    ("truncated_copied", ["CREATE TABLE {} (id serial PRIMARY KEY, n int)", many("{}", 3000), "TRUNCATE {}", COPY_THREE],
     "SELECT count(*) FROM {}", "3"),
    ("tablespace_rolled_back", ["CREATE TABLE {} (id serial PRIMARY KEY, n int)", many("{}", 3000), "TRUNCATE {}", "SAVEPOINT s",
                                "ALTER TABLE {} SET TABLESPACE beside", "ROLLBACK TO s", COPY_THREE], "SELECT count(*) FROM {}", "3"),
    ("tablespace_released", ["CREATE TABLE {} (id serial PRIMARY KEY, n int)", many("{}", 3000), "TRUNCATE {}", "SAVEPOINT s",
                             "ALTER TABLE {} SET TABLESPACE beside", "RELEASE s", COPY_THREE], "SELECT count(*) FROM {}", "3"),
    ("tablespace_nested", ["CREATE TABLE {} (id serial PRIMARY KEY, n int)", many("{}", 3000), "TRUNCATE {}", "SAVEPOINT s",
                           "ALTER TABLE {} SET TABLESPACE beside", "SAVEPOINT t", "ALTER TABLE {} SET TABLESPACE pg_default",
                           "ROLLBACK TO t", "SAVEPOINT t", "ALTER TABLE {} SET TABLESPACE pg_default", "RELEASE t", "ROLLBACK TO s",
                           COPY_THREE], "SELECT count(*) FROM {}", "3"),
    ("hints_after_tablespace", ["CREATE TABLE {} (n int)", many("{}", 1), "ALTER TABLE {} SET TABLESPACE beside", "CHECKPOINT",
                                "SELECT * FROM {}", many("{}", 1)], "SELECT count(*) FROM {}", "2"),
    ("updated_and_deleted", ["CREATE TABLE {} (id serial PRIMARY KEY, n int)", many("{}", 10000), COPY_THREE,
                             "UPDATE {} SET n = n + 1", "DELETE FROM {}"], "SELECT count(*) FROM {}", "0"),
    ("inserted_copied", ["CREATE TABLE {} (id serial PRIMARY KEY, n int)", many("{}", 1), COPY_THREE],
     "SELECT count(*) FROM {}", "4"),
    ("logged_now", ["CREATE UNLOGGED TABLE {} (id serial PRIMARY KEY, n int)", many("{}", 2000), "ALTER TABLE {} SET LOGGED",
                    many("{}", 500)], "SELECT count(*) || ' ' || max(id) FROM {}", "2500 2500"),
    ("rewritten", ["CREATE TABLE {} (id serial PRIMARY KEY, n int)", many("{}", 2000), "ALTER TABLE {} ALTER n TYPE numeric",
                   "CREATE INDEX ON {} (n)", "CLUSTER {} USING {}_pkey", many("{}", 10)], "SELECT count(*) || ' ' || sum(n) FROM {}",
     "2010 2001055"),
    ("frozen", ["CREATE TABLE {} (id serial, n int)", COPY_THREE.replace("DELIMITER ','", "WITH (DELIMITER ',', FREEZE)")],
     "SELECT count(*) FROM {}", "3"),
]
TRIGGERS = """
    CREATE TABLE noisy (id serial PRIMARY KEY, n text);
    CREATE FUNCTION more() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.n NOT LIKE 'by %' THEN INSERT INTO noisy (n) VALUES ('by ' || TG_WHEN || NEW.n); END IF;
        RETURN NEW;
    END $$;
    CREATE FUNCTION one_more() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO noisy (n) VALUES ('by ' || TG_WHEN);
        RETURN NULL;
    END $$;
    CREATE TRIGGER a BEFORE INSERT ON noisy FOR EACH ROW EXECUTE FUNCTION more();
    CREATE TRIGGER b AFTER INSERT ON noisy FOR EACH ROW EXECUTE FUNCTION more();
    CREATE TRIGGER c BEFORE TRUNCATE ON noisy EXECUTE FUNCTION one_more();
    CREATE TRIGGER d AFTER TRUNCATE ON noisy EXECUTE FUNCTION one_more()"""


def one_transaction(s):
    """018, with everything logged: a compute knows no wal_level minimal."""
    s.run("SET allow_in_place_tablespaces = on")
    if s.value("SELECT count(*) FROM pg_tablespace WHERE spcname = 'beside'") == "0":
        s.run("CREATE TABLESPACE beside LOCATION ''")
    for name, statements, _, _ in ONE_TRANSACTION:
        s.run("BEGIN", *(text.replace("{}", name) for text in statements), "COMMIT")
    s.run("BEGIN", TRIGGERS, "INSERT INTO noisy (n) VALUES ('x')", "TRUNCATE noisy", COPY_THREE.format("noisy (id, n)"), "COMMIT")
    s.run("BEGIN", "CREATE TABLE prepared_truncate (id serial PRIMARY KEY, n int)", many("prepared_truncate", 10),
          "TRUNCATE prepared_truncate", many("prepared_truncate", 1), f"PREPARE TRANSACTION '{s.name}'",
          f"COMMIT PREPARED '{s.name}'")
    s.run("BEGIN", "CREATE TABLE dead_entry (n int PRIMARY KEY)", "SAVEPOINT q", many("dead_entry", 1), "ROLLBACK TO q", "CHECKPOINT",
          many("dead_entry", 2), "COMMIT", "CREATE TEMP TABLE temporary (n int)", many("temporary", 100))
    yield
    for name, _, query, answer in ONE_TRANSACTION:
        found = s.value(query.replace("{}", name))
        assert found == answer, f"{name}: {found}, not {answer}"
    assert s.value("SELECT count(*) FROM noisy") == "10"  # one of a truncation that follows it, and three with two others each
    assert s.value("SELECT count(*) || ' ' || min(id) FROM prepared_truncate") == "1 11"
    s.refused("INSERT INTO dead_entry VALUES (2)", "23505")
    s.refused("SELECT * FROM temporary", "42P01")
    s.run("CREATE TEMP TABLE temporary (n int)", many("temporary", 100))


def two_phase(s):
    """009, 023: prepared transactions are there again, with their locks, and end either way."""
    s.run("CREATE TABLE t (n int)", "CREATE TABLE locked (n int)")

    def prepare(name, number, *more):
        s.run("BEGIN", f"INSERT INTO t VALUES ({number})", "SAVEPOINT s", f"INSERT INTO t VALUES ({number + 1})", *more,
              f"PREPARE TRANSACTION '{s.name} {name}'")

    def end(verb, name):
        s.run(f"{verb} PREPARED '{s.name} {name}'")
    prepare("before a checkpoint", 10)
    prepare("rolls back", 20, "CREATE TABLE never (n int)")
    s.run("CHECKPOINT")
    prepare("after", 30, "CREATE TABLE made (n int)", "INSERT INTO made VALUES (1)", "LOCK TABLE locked IN ACCESS EXCLUSIVE MODE")
    prepare("twice", 40)
    end("COMMIT", "twice")
    prepare("twice", 50)
    prepare("ended", 60)
    end("COMMIT", "ended")
    prepare("large", 70, "DO $$ BEGIN FOR i IN 1..300 LOOP EXECUTE format('CREATE TABLE large_%s (n int)', i); END LOOP; END $$")
    horizon = int(s.value("SELECT pg_current_xact_id()"))
    yield
    names = "SELECT string_agg(substr(gid, strpos(gid, ' ') + 1), ',' ORDER BY gid) FROM pg_prepared_xacts WHERE gid LIKE '%s %%'"
    assert s.value(names % s.name) == "after,before a checkpoint,large,rolls back,twice"
    assert int(s.value("SELECT pg_current_xact_id()")) > horizon, "a transaction id was given out again"
    assert s.value("SELECT string_agg(n::text, ' ' ORDER BY n) FROM t") == "40 41 60 61"
    s.run("SET lock_timeout = 1")
    s.refused("SELECT * FROM locked", "55P03")
    s.run("RESET lock_timeout")
    prepare("ended", 80)
    end("ROLLBACK", "ended")
    end("COMMIT", "before a checkpoint")
    yield
    for name in ("after", "twice", "large"):
        end("COMMIT", name)
    end("ROLLBACK", "rolls back")
    yield
    assert s.value("SELECT string_agg(n::text, ' ' ORDER BY n) FROM t") == "10 11 30 31 40 41 50 51 60 61 70 71"
    assert s.value("SELECT n FROM made") == "1"
    assert s.value("SELECT count(*) FROM locked") == "0"
    s.refused("SELECT * FROM never", "42P01")
    assert s.value(f"SELECT count(*) FROM pg_tables WHERE schemaname = '{s.name}' AND tablename LIKE 'large_%'") == "300"
    assert s.value(names % s.name) is None


DEEP = """
    CREATE FUNCTION deep(n int) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        BEGIN
            INSERT INTO t VALUES (n);
            IF n > 1 THEN PERFORM deep(n - 1); END IF;
            IF n % 50 = 0 THEN RAISE EXCEPTION 'back'; END IF;
        EXCEPTION WHEN raise_exception THEN NULL;
        END;
    END $$"""


def subtransactions(s):
    """012: more of them than a backend's cache holds, inside each other, and prepared."""
    s.run("CREATE TABLE t (n int)", DEEP)
    s.run("BEGIN", "SELECT deep(127)", f"PREPARE TRANSACTION '{s.name} kept'")
    s.run("BEGIN", "SELECT deep(127)", f"PREPARE TRANSACTION '{s.name} dropped'")
    s.run("BEGIN", "SELECT deep(127)", "COMMIT")
    left = s.session()
    left.query("BEGIN")
    left.query("SELECT deep(127)")
    yield
    # whatever a multiple of 50 called is gone with it: those above 100 are left
    assert s.value("SELECT count(*) || ' ' || min(n) FROM t") == "27 101"
    s.run(f"COMMIT PREPARED '{s.name} kept'", f"ROLLBACK PREPARED '{s.name} dropped'")
    yield
    assert s.value("SELECT count(*) || ' ' || min(n) FROM t") == "54 101"


def row_visibility(s):
    """021: what was committed is seen, and nothing else: not what was open, aborted or prepared."""
    s.run("CREATE TABLE t (n int PRIMARY KEY, v text)", "INSERT INTO t VALUES (1, 'first'), (2, 'first'), (3, 'first'), (4, 'first')")
    s.run("BEGIN", "INSERT INTO t VALUES (10, 'aborted')", "UPDATE t SET v = 'aborted' WHERE n = 1", "ROLLBACK")
    s.run("BEGIN", "INSERT INTO t VALUES (20, 'prepared')", "UPDATE t SET v = 'prepared' WHERE n = 2", f"PREPARE TRANSACTION '{s.name}'")
    left = s.session()
    for statement in ("BEGIN", "INSERT INTO t VALUES (30, 'open')", "UPDATE t SET v = 'open' WHERE n = 3", "DELETE FROM t WHERE n = 4"):
        left.query(statement)
    s.run("INSERT INTO t VALUES (40, 'committed')")
    seen = "SELECT string_agg(n || v, ' ' ORDER BY n) FROM t"
    assert s.value(seen) == "1first 2first 3first 4first 40committed"
    yield
    assert s.value(seen) == "1first 2first 3first 4first 40committed"
    s.run("SET lock_timeout = 1")
    s.refused("DELETE FROM t WHERE n = 2", "55P03")
    s.run("RESET lock_timeout", "UPDATE t SET v = v WHERE n IN (3, 4)", f"COMMIT PREPARED '{s.name}'", "INSERT INTO t VALUES (30, 'again')")
    yield
    assert s.value(seen) == "1first 2prepared 3first 4first 20prepared 30again 40committed"


def fsm_after_truncation(s):
    """008: the free space map may know of blocks that the relation has no longer; who inserts is not misled."""
    s.run("CREATE TABLE t (n int, pad char(100))", "ALTER TABLE t SET (autovacuum_enabled = off)",
          "INSERT INTO t SELECT i, 'x' FROM generate_series(1, 2000) i", "VACUUM t", "CHECKPOINT", "DELETE FROM t WHERE n % 2 = 0",
          "VACUUM t", "DELETE FROM t WHERE n > 600", "VACUUM t")
    assert int(s.value("SELECT pg_relation_size('t') / 8192")) < 15
    yield
    s.run("INSERT INTO t SELECT i, 'y' FROM generate_series(1, 3000) i")
    yield
    assert s.value("SELECT count(*) || ' ' || sum(n) FROM t") == "3300 4591500"
    s.run("VACUUM t", "DELETE FROM t", "VACUUM t", "INSERT INTO t VALUES (1, 'z')")
    yield
    assert s.value("SELECT string_agg(n || trim(pad), ' ') FROM t") == "1z"


def truncated_and_dropped(s):
    """036: blocks that were cut off, and relations that are gone, though older WAL speaks of them."""
    s.run("CREATE TABLE gone (n int, pad text)", "CREATE TABLE cut (n int, pad text)", "CREATE TABLE grown (n int, pad text)")
    for table in ("gone", "cut", "grown"):
        s.run(f"ALTER TABLE {table} SET (autovacuum_enabled = off)",
              f"INSERT INTO {table} SELECT i, repeat('x', 400) FROM generate_series(1, 4000) i", f"CREATE INDEX ON {table} (n)")
    s.run("CHECKPOINT")
    for table in ("gone", "cut", "grown"):
        s.run(f"UPDATE {table} SET pad = repeat('y', 400) WHERE n > 3000", f"DELETE FROM {table} WHERE n > 100", f"VACUUM {table}")
    s.run("DROP TABLE gone", "INSERT INTO grown SELECT i, repeat('z', 400) FROM generate_series(1, 6000) i")
    s.run("CREATE TABLE rolled (n int)", many("rolled", 50000), "BEGIN", "TRUNCATE rolled", many("rolled", 10), "ROLLBACK")
    yield
    assert s.value("SELECT count(*) || ' ' || max(n) FROM cut") == "100 100"
    assert s.value("SELECT count(*) || ' ' || sum(n) FROM grown") == f"6100 {6000 * 6001 // 2 + 5050}"
    assert s.value("SELECT count(*) FROM rolled") == "50000"
    s.run("INSERT INTO cut SELECT i, repeat('w', 400) FROM generate_series(101, 5000) i", "TRUNCATE rolled")
    yield
    assert s.value("SELECT count(*) || ' ' || sum(n) || ' ' || count(DISTINCT pad) FROM cut") == f"5000 {5000 * 5001 // 2} 2"
    assert s.value("SELECT count(*) || ' ' || pg_relation_size('rolled') FROM rolled") == "0 0"


def in_flight(s):
    """013, 018: whatever was going on is undone: rewrites, index builds, large loads."""
    s.run("CREATE TABLE t (n int PRIMARY KEY, v int)", "INSERT INTO t SELECT i, i FROM generate_series(1, 5000) i",
          "CREATE TABLE c (n int)", many("c", 1000))
    rewrites, loads, builds, blocks = s.session(), s.session(), s.session(), s.session()
    for statement in ("BEGIN", "ALTER TABLE t ALTER v TYPE int8", "CREATE INDEX t_v ON t (v)", "INSERT INTO t VALUES (0, 0)"):
        rewrites.query(statement)
    loads.query("BEGIN")
    loads.query("CREATE TABLE loaded AS SELECT i FROM generate_series(1, 20000) i")
    blocks.query("BEGIN")
    blocks.query("INSERT INTO c VALUES (0)")

    def build():  # waits for `blocks` with an invalid index in the catalog
        try:
            builds.query("CREATE INDEX CONCURRENTLY c_n ON c (n)")
        except pq.Error:
            pass
    thread = threading.Thread(target=build)
    thread.start()
    invalid = f"SELECT count(*) FROM pg_index WHERE indexrelid = to_regclass('{s.name}.c_n') AND NOT indisvalid"
    wait_for("the index is in the catalog", lambda: s.value(invalid) == "1")

    def let_go():  # on a branch the build of the parent is still there, and would wait for sessions of others
        if s.event == "branch":
            builds.cancel()
        blocks.close()
        thread.join()
    s.before_close.append(let_go)
    yield
    assert s.value("SELECT count(*) || ' ' || sum(v) FROM t") == f"5000 {5000 * 5001 // 2}"
    assert s.value("SELECT pg_typeof(v) FROM t LIMIT 1") == "integer"
    s.refused("SELECT * FROM loaded", "42P01")
    if s.value(invalid) == "1":
        s.run("REINDEX INDEX CONCURRENTLY c_n")
    s.run("CREATE INDEX t_v ON t (v)", "DROP INDEX c_n")
    yield
    s.run("SET enable_seqscan = off")
    assert s.value("SELECT v FROM t WHERE v = 77") == "77"


def unlogged(s):
    """014, 054: unlogged relations begin empty, each with what it was made with."""
    s.run("CREATE UNLOGGED TABLE t (id serial PRIMARY KEY, n int, doc tsvector)", "CREATE INDEX ON t USING gin (doc)",
          "CREATE UNLOGGED SEQUENCE q START 5", "CREATE UNLOGGED TABLE i (n int GENERATED ALWAYS AS IDENTITY)",
          "CREATE TABLE turned (n int)", many("turned", 100), "ALTER TABLE turned SET UNLOGGED", many("turned", 5),
          "INSERT INTO t (n, doc) SELECT g, 'a b c' FROM generate_series(1, 500) g", "SELECT nextval('q')", "SELECT nextval('q')",
          "INSERT INTO i SELECT FROM generate_series(1, 3)", "CREATE TABLE logged_again (n int)", many("logged_again", 10),
          "ALTER TABLE logged_again SET UNLOGGED", "ALTER TABLE logged_again SET LOGGED", "CHECKPOINT")
    yield
    assert s.value("SELECT (SELECT count(*) FROM t) || ' ' || (SELECT count(*) FROM i) || ' ' || (SELECT count(*) FROM turned)"
                   " || ' ' || (SELECT count(*) FROM logged_again)") == "0 0 0 10"
    assert s.value("SELECT nextval('q')") == "5"
    s.run("INSERT INTO t (n, doc) VALUES (1, 'a')", "INSERT INTO i DEFAULT VALUES", "SET enable_seqscan = off")
    assert s.value("SELECT id || ' ' || n FROM t WHERE doc @@ 'a'") == "1 1"
    assert s.value("SELECT n FROM i") == "1"
    yield
    assert s.value("SELECT count(*) FROM t") == "0"
    s.run("INSERT INTO t (n) VALUES (1)")


def temporary_files(s):
    """022: files of sorts and of temporary tables are gone."""
    left = s.session()
    for statement in ("SET work_mem = '64kB'", "BEGIN", "CREATE TEMP TABLE own AS SELECT generate_series(1, 10000) AS n",
                      "DECLARE c CURSOR FOR SELECT i FROM generate_series(1, 200000) i ORDER BY i % 1000", "FETCH 1 FROM c"):
        left.query(statement)
    assert int(s.value("SELECT count(*) FROM pg_ls_tmpdir()")) > 0
    yield
    assert s.value("SELECT count(*) FROM pg_ls_tmpdir()") == "0"
    s.run("CREATE TEMP TABLE own AS SELECT 1 AS n")


# Every row is locked by a subtransaction of its own besides the first locker, or all would share one multixact.
LOCK_EACH = """
    DO $$ BEGIN
        FOR i IN 1..{} LOOP
            BEGIN
                PERFORM 1 FROM t WHERE n = i FOR SHARE;
            EXCEPTION WHEN raise_exception THEN NULL;
            END;
        END LOOP;
    END $$"""


def multixacts(s, rows=300):
    """Members of before are known, and no id is given out twice; an update beside lockers stays."""
    s.run("CREATE TABLE t (n int PRIMARY KEY, v int)", f"INSERT INTO t SELECT i, 0 FROM generate_series(1, {rows}) i")
    first = s.session()
    first.query("BEGIN")
    first.query("SELECT count(*) FROM (SELECT 1 FROM t FOR KEY SHARE) locked")
    s.run("BEGIN", LOCK_EACH.format(rows), "COMMIT", f"UPDATE t SET v = 7 WHERE n = {rows}")
    s.run("BEGIN", "SELECT 1 FROM t WHERE n = 1 FOR SHARE", f"PREPARE TRANSACTION '{s.name}'")
    members = f"SELECT (pg_get_multixact_members(xmax)).mode FROM t WHERE n = {rows // 2} ORDER BY 1"
    assert [row[0] for row in s.query(members)] == ["keysh", "sh"]
    newest = int(s.value(f"SELECT max(xmax::text::bigint) FROM t WHERE n BETWEEN 2 AND {rows - 1}"))
    yield
    assert s.value("SELECT count(*) FILTER (WHERE v = 7) || ' ' || count(*) FROM t") == f"1 {rows}"
    assert [row[0] for row in s.query(members)] == ["keysh", "sh"]
    s.run("SET lock_timeout = 1")
    s.refused("UPDATE t SET v = 1 WHERE n = 1", "55P03")
    s.run("RESET lock_timeout", f"COMMIT PREPARED '{s.name}'", "BEGIN", "SELECT count(*) FROM (SELECT 1 FROM t FOR UPDATE NOWAIT) free", "COMMIT")
    a, b = s.session(), s.session()
    for db in (a, b):
        db.query("BEGIN")
        db.query("SELECT 1 FROM t WHERE n = 2 FOR SHARE")
    assert int(s.value("SELECT xmax FROM t WHERE n = 2")) > newest, "a multixact id was given out again"
    yield
    s.run("UPDATE t SET v = v + 1", "VACUUM (FREEZE) t")
    assert s.value("SELECT count(*) FROM t WHERE v = 8") == "1"


def multixact_segments(s):
    """70,000 multixacts of two members each: more than a segment of offsets and two of members."""
    yield from multixacts(s, 70000)


def commit_timestamps(s):
    """What src/test/modules/commit_ts asks of a restart."""
    s.run("CREATE TABLE t (n int)", "INSERT INTO t VALUES (1)", "BEGIN", "INSERT INTO t VALUES (2)", "SAVEPOINT s",
          "INSERT INTO t VALUES (3)", "COMMIT", "BEGIN", "INSERT INTO t VALUES (4)", f"PREPARE TRANSACTION '{s.name}'",
          f"COMMIT PREPARED '{s.name}'")
    asked = "SELECT string_agg(n || ' ' || pg_xact_commit_timestamp(xmin)::text, ',' ORDER BY n) FROM t"
    before = s.value(asked)
    assert before is not None and before.count(",") == 3, before
    last = s.value("SELECT timestamp FROM pg_last_committed_xact()")
    yield
    assert s.value(asked) == before
    s.run("INSERT INTO t VALUES (5)")
    assert s.value("SELECT bool_and(pg_xact_commit_timestamp(xmin) > %s) FROM t WHERE n = 5" % f"'{last}'") == "t"
    before = s.value(asked)
    yield
    assert s.value(asked) == before


def databases(s):
    """033, 034: made by both strategies, renamed, moved and dropped, with what was in them."""
    plain = f"{s.name}_wal", f"{s.name}_files", f"{s.name}_late"
    s.run(f'CREATE DATABASE {plain[0]}')
    with_table = s.session(plain[0])
    with_table.query("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
    with_table.query("CREATE SEQUENCE q")
    with_table.query("SELECT nextval('q')")
    with_table.close()
    s.run(f"CREATE DATABASE {plain[1]} TEMPLATE {plain[0]} STRATEGY file_copy", f"CREATE DATABASE {plain[2]} TEMPLATE {plain[1]}",
          f"ALTER DATABASE {plain[2]} RENAME TO {plain[2]}r", f"CREATE DATABASE {s.name}_gone TEMPLATE {plain[0]} STRATEGY file_copy",
          "SET allow_in_place_tablespaces = on", f"CREATE TABLESPACE {s.name}_space LOCATION ''",
          f"ALTER DATABASE {plain[1]} SET TABLESPACE {s.name}_space", f"DROP DATABASE {s.name}_gone",
          f"CREATE TABLESPACE {s.name}_short LOCATION ''", f"DROP TABLESPACE {s.name}_short")
    yield
    for name in (plain[0], plain[1], plain[2] + "r"):
        db = s.session(name)
        assert db.value("SELECT count(*) || ' ' || sum(n) FROM t") == "1000 500500", name
        assert int(db.value("SELECT nextval('q')")) > 1
        db.query("INSERT INTO t VALUES (0)")
        db.close()
    assert s.value(f"SELECT count(*) FROM pg_database WHERE datname LIKE '{s.name}_gone'") == "0"
    assert s.value(f"SELECT count(*) FROM pg_tablespace WHERE spcname LIKE '{s.name}_short'") == "0"
    s.refused(f"DROP TABLESPACE {s.name}_space", "55000")
    s.run(f"DROP DATABASE {plain[2]}r", f"ALTER DATABASE {plain[1]} SET TABLESPACE pg_default", f"DROP TABLESPACE {s.name}_space")
    yield
    for name in plain[:2]:
        db = s.session(name)
        assert db.value("SELECT count(*) FROM t") == "1001"
        db.close()
        s.run(f"DROP DATABASE {name}")


def relation_numbers_used_again(s):
    """032: a database with the number of one that was dropped, whose relations have the same numbers, too."""
    oid = {"crash": 500001, "restart": 500002, "branch": 500003}[s.event]
    name = f"{s.name}_again"
    s.run(f"CREATE DATABASE {s.name}_from")
    db = s.session(f"{s.name}_from")
    db.query("CREATE TABLE large AS SELECT i AS n, repeat('x', 300) AS pad FROM generate_series(1, 2000) i")
    db.close()

    def fill(value):
        with_it = s.session(name)
        with_it.query(f"UPDATE large SET n = {value}")
        with_it.query("CHECKPOINT")
        assert with_it.query("SELECT n, count(*) FROM large GROUP BY 1") == [(str(value), "2000")]
        with_it.close()

    def again(strategy):
        s.run(f"DROP DATABASE IF EXISTS {name}", f"CREATE DATABASE {name} TEMPLATE {s.name}_from STRATEGY {strategy} OID {oid}")
    again("file_copy")
    fill(1)
    again("wal_log")
    fill(2)
    again("file_copy")
    yield
    db = s.session(name)
    assert db.value("SELECT count(DISTINCT n) || ' ' || sum(n) FROM large") == "2000 2001000"
    db.close()
    fill(3)
    again("wal_log")
    db = s.session(name)
    assert db.value("SELECT count(DISTINCT n) || ' ' || sum(n) FROM large") == "2000 2001000"
    db.close()
    fill(4)
    yield
    db = s.session(name)
    assert db.query("SELECT n, count(*) FROM large GROUP BY 1") == [("4", "2000")]
    db.query("VACUUM FULL large")
    db.close()
    s.run(f"DROP DATABASE {name}", f"DROP DATABASE {s.name}_from")


def invalid_database(s):
    """037: a DROP DATABASE that was interrupted leaves a database that can only be dropped."""
    name = f"{s.name}_half"
    s.run(f"CREATE DATABASE {name}", f"UPDATE pg_database SET datconnlimit = -2 WHERE datname = '{name}'")
    yield
    try:
        s.session(name)
        raise AssertionError("an invalid database lets somebody in")
    except pq.Error as error:
        assert "invalid database" in str(error), error
    s.refused(f"ALTER DATABASE {name} CONNECTION LIMIT 10", None)  # which ends the session
    s.close()
    s.refused(f"CREATE DATABASE {name}_2 TEMPLATE {name}", "55000")
    s.run(f"DROP DATABASE {name}")
    # One that is interrupted for real, at the lock of pg_tablespace that a prepared transaction has.
    s.run(f"CREATE DATABASE {name}", "BEGIN", "LOCK TABLE pg_tablespace", f"PREPARE TRANSACTION '{s.name}'", "SET lock_timeout = 200")
    s.refused(f"DROP DATABASE {name}", "55P03")
    s.run("RESET lock_timeout", f"ROLLBACK PREPARED '{s.name}'")
    assert s.value(f"SELECT datconnlimit FROM pg_database WHERE datname = '{name}'") == "-2"
    yield
    s.run(f"DROP DATABASE {name}")
    assert s.value(f"SELECT count(*) FROM pg_database WHERE datname = '{name}'") == "0"


def session_state(s):
    """What belongs to sessions ends with them: exported snapshots, advisory locks, LISTEN, held cursors."""
    s.run("CREATE TABLE t (n int)", "INSERT INTO t VALUES (1)")
    other = s.session()
    s.run("BEGIN ISOLATION LEVEL REPEATABLE READ")
    snapshot = s.value("SELECT pg_export_snapshot()")
    third = s.session()
    third.query("INSERT INTO t VALUES (2)")
    other.query("BEGIN ISOLATION LEVEL REPEATABLE READ")
    other.query(f"SET TRANSACTION SNAPSHOT '{snapshot}'")
    assert other.value("SELECT count(*) FROM t") == s.value("SELECT count(*) FROM t") == "1"
    third.query("SELECT pg_advisory_lock(hashtext(current_schema))")
    third.query("LISTEN news")
    third.query("DECLARE held CURSOR WITH HOLD FOR SELECT n FROM t")
    yield
    s.run("BEGIN ISOLATION LEVEL REPEATABLE READ")
    s.refused(f"SET TRANSACTION SNAPSHOT '{snapshot}'", "42704", "22023")
    s.run("ROLLBACK")
    assert s.value("SELECT pg_try_advisory_lock(hashtext(current_schema))") == "t"
    assert s.value("SELECT count(*) FROM pg_listening_channels()") == "0"
    s.run("NOTIFY news, 'nobody'", "SELECT pg_advisory_unlock_all()")
    assert s.value("SELECT count(*) FROM t") == "2"


def large_objects_and_sequences(s):
    """Large objects as they were; sequences go on and give no value again."""
    s.run("CREATE SEQUENCE q CACHE 3", "CREATE TABLE ids (n int8)", "CREATE TABLE owns (lo oid)",
          "INSERT INTO owns SELECT lo_from_bytea(0, convert_to(repeat('large ', 5000), 'UTF8'))",
          "INSERT INTO ids SELECT nextval('q') FROM generate_series(1, 50)")
    s.run("BEGIN", "SELECT lo_put(lo, 100000, '\\x6162') FROM owns", "COMMIT", "BEGIN", "SELECT lo_put(lo, 0, '\\x00') FROM owns", "ROLLBACK")
    asked = "SELECT md5(lo_get(lo)) || length(lo_get(lo)) FROM owns"
    before = s.value(asked)
    yield
    assert s.value(asked) == before
    s.run("INSERT INTO ids SELECT nextval('q') FROM generate_series(1, 50)")
    assert s.value("SELECT count(DISTINCT n) FROM ids") == "100"
    assert int(s.value("SELECT max(n) FROM ids")) <= 100 + 64 + 3, "more than the values that were logged ahead were skipped"
    yield
    s.run("SELECT lo_unlink(lo) FROM owns")
    assert s.value("SELECT count(*) FROM pg_largeobject_metadata m JOIN owns ON m.oid = lo") == "0"


# Those that vacuum come first, before others leave transactions open.
QUICK = [fsm_after_truncation, truncated_and_dropped, one_transaction, two_phase, subtransactions, row_visibility, in_flight, unlogged,
         temporary_files, multixacts, commit_timestamps, databases, relation_numbers_used_again, invalid_database, session_state,
         large_objects_and_sequences]
FULL = [multixact_segments]
