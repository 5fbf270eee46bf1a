"""The schema of a branch as JSON: every kind of thing that the published shape has a place for, and what it leaves out."""
import concurrent.futures
import urllib.parse

import pq
from cluster import ApiError, wait_for
from snapshots import refused

STRUCTURE = '''
CREATE SCHEMA "Lager ""Süd""";
CREATE TYPE "Lager ""Süd"""."Größe" AS ENUM ('klein', 'groß');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN whole AS int NOT NULL;
CREATE DOMAIN positive AS whole CHECK (VALUE > 0);
CREATE SEQUENCE numbers;
CREATE TABLE kinds (
    id int GENERATED ALWAYS AS IDENTITY, gone text, code varchar(10) NOT NULL, name text DEFAULT 'x',
    price numeric(10, 2), tags text[], at timestamptz(3) NOT NULL DEFAULT now(), many positive, size "Lager ""Süd"""."Größe",
    sizes "Lager ""Süd"""."Größe"[], two pair, of_sequence bigint DEFAULT nextval('numbers'),
    twice numeric GENERATED ALWAYS AS (price * 2) STORED,
    PRIMARY KEY (id), CONSTRAINT "b by name" UNIQUE (name, code), CONSTRAINT a_code UNIQUE (code) INCLUDE (name),
    CHECK (price > 0), EXCLUDE USING btree (price WITH =));
ALTER TABLE kinds DROP gone;
CREATE UNIQUE INDEX ON kinds (lower(name));
CREATE VIEW seen AS SELECT * FROM kinds;
CREATE MATERIALIZED VIEW kept AS SELECT 1 AS n;
CREATE TABLE "Lager ""Süd"""."Fächer \\ 東" (
    "Nr." int, "Art ""A""" text, "Art 'B'" varchar(10), oben int,
    CONSTRAINT pk PRIMARY KEY ("Nr."), CONSTRAINT zur_art FOREIGN KEY ("Art 'B'", "Art ""A""") REFERENCES kinds (code, name),
    CONSTRAINT darüber FOREIGN KEY (oben) REFERENCES "Lager ""Süd"""."Fächer \\ 東");
CREATE TABLE events (id int, day date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
CREATE TABLE notes (event int, day date, CONSTRAINT of_event FOREIGN KEY (event, day) REFERENCES events) PARTITION BY HASH (event);
CREATE TABLE notes_1 PARTITION OF notes FOR VALUES WITH (MODULUS 1, REMAINDER 0);
CREATE TABLE "no columns" ();
CREATE UNLOGGED TABLE brief (n int);
CREATE FOREIGN DATA WRAPPER far;
CREATE SERVER there FOREIGN DATA WRAPPER far;
CREATE FOREIGN TABLE elsewhere (n int NOT NULL) SERVER there;
CREATE TABLE of_extension (n int);
ALTER EXTENSION plpgsql ADD TABLE of_extension;
'''


def column(name, kind, nullable=True, generated=False):
    return {"name": name, "type": kind, "nullable": nullable, "generated": generated}


def key(kind, name, *columns, to=None):
    target = {"referenced_table": {"schema": to[0], "table": to[1], "columns": to[2]}} if to else {}
    return {"type": kind, "name": name, "columns": list(columns), **target}


def table(schema, name, columns, constraints=()):
    return {"schema": schema, "name": name, "columns": columns, "constraints": list(constraints)}


SOUTH, SIZE, SHELVES = 'Lager "Süd"', '"Lager ""Süd"""."Größe"', "Fächer \\ 東"
EVENT = [column("id", "integer", False), column("day", "date", False)]
NOTE = [[column("event", "integer"), column("day", "date")],
        [key("foreign_key", "of_event", "event", "day", to=("public", "events", ["id", "day"]))]]
EXPECTED = [
    table(SOUTH, SHELVES, [
        column("Nr.", "integer", False), column('Art "A"', "text"), column("Art 'B'", "character varying(10)"),
        column("oben", "integer")], [
        key("primary_key", "pk", "Nr."), key("foreign_key", "darüber", "oben", to=(SOUTH, SHELVES, ["Nr."])),
        key("foreign_key", "zur_art", "Art 'B'", 'Art "A"', to=("public", "kinds", ["code", "name"]))]),
    table("public", "brief", [column("n", "integer")]),
    table("public", "elsewhere", [column("n", "integer", False)]),
    table("public", "events", EVENT, [key("primary_key", "events_pkey", "id", "day")]),
    table("public", "events_1", EVENT, [key("primary_key", "events_1_pkey", "id", "day")]),
    table("public", "events_2", EVENT, [key("primary_key", "events_2_pkey", "id", "day")]),
    table("public", "kinds", [
        column("id", "integer", False), column("code", "character varying(10)", False), column("name", "text"),
        column("price", "numeric(10,2)"), column("tags", "text[]"), column("at", "timestamp(3) with time zone", False),
        column("many", "public.positive", False), column("size", SIZE), column("sizes", SIZE + "[]"),
        column("two", "public.pair"), column("of_sequence", "bigint"), column("twice", "numeric", generated=True)], [
        key("primary_key", "kinds_pkey", "id"), key("unique", "a_code", "code"),
        key("unique", "b by name", "name", "code")]),
    table("public", "no columns", []),
    table("public", "notes", *NOTE),
    table("public", "notes_1", *NOTE),
]


def schema(branch, database="app", **query):
    said = urllib.parse.urlencode({"db_name": database, "format": "json", **query})
    answer = branch.project.api("GET", f"/branches/{branch.id}/schema?{said}")
    assert list(answer) == ["json"] and list(answer["json"]) == ["tables"], answer
    return answer["json"]["tables"]


def superuser(branch, database):
    branch.value("SELECT 1") # it runs
    uri = branch.compute()["superuser_uri"].replace("@/postgres?", f"@/{database}?")
    return pq.connect(uri + "&hostaddr=") # by its socket, whatever PGHOSTADDR says


def not_read(why, call, *args):
    try:
        answer = call(*args)
    except ApiError as error:
        assert (error.status, error.body["code"]) == (503, "SCHEMA_NOT_READ") and why in error.body["message"], error.body
        return
    raise AssertionError(f"expected a failure, {why}: {len(answer)} tables")


def check_a_drop_meanwhile(branch):
    """The reader has its snapshot and waits for a lock; then a table that it sees is gone with the type of its column."""
    with superuser(branch, "app") as db, concurrent.futures.ThreadPoolExecutor(1) as threads:
        db.query("CREATE TYPE brief_kind AS ENUM ('x'); CREATE TABLE brief_one (kind brief_kind)")
        db.query("BEGIN; LOCK TABLE pg_constraint; DROP TABLE brief_one; DROP TYPE brief_kind")
        reader = threads.submit(schema, branch)
        wait_for("it waits", lambda: db.query("SELECT FROM pg_locks WHERE relation = 'pg_constraint'::regclass AND NOT granted"))
        db.query("COMMIT")
        not_read("a table was dropped meanwhile", reader.result)
    assert schema(branch) == EXPECTED


def check_the_limit(branch, database):
    """Names that are six times as long as JSON: twelve wide tables are below 8 MiB, thirteen above."""
    with superuser(branch, urllib.parse.quote(database)) as db:
        db.query("DO $$ BEGIN EXECUTE 'CREATE TABLE wide_1 (' || (SELECT string_agg(format('%I int', repeat(chr(1), 58) || i), ',')"
                 " FROM generate_series(1, 1600) i) || ')';"
                 " FOR i IN 2..13 LOOP EXECUTE format('CREATE TABLE wide_%s (LIKE wide_1)', i); END LOOP; END $$")
        said = refused(422, "SCHEMA_TOO_LARGE", schema, branch, database)
        assert "8 MiB" in said["message"], said
        db.query("DROP TABLE wide_13")
        wide = schema(branch, database)
        assert len(wide) == 13 and [len(t["columns"]) for t in wide] == [1] + 12 * [1600], [t["name"] for t in wide]
        assert wide[12]["columns"][1599] == column("\1" * 58 + "1600", "integer")
        # As SQL, which has comments, too: 16 MiB.
        db.query("DO $$ BEGIN EXECUTE format('COMMENT ON TABLE wide_1 IS %L', repeat('x', 17000000)); END $$")
        path = f"/branches/{branch.id}/schema?{urllib.parse.urlencode({'db_name': database})}"
        said = refused(422, "SCHEMA_TOO_LARGE", branch.project.api, "GET", path)
        assert "16 MiB" in said["message"], said
        db.query("COMMENT ON TABLE wide_1 IS 'short'")
        assert "IS 'short';" in branch.project.api("GET", path)["sql"]


def test_a_schema_as_json(cluster):
    project = cluster.create_project("structure")
    main = project.main()
    path = f"/branches/{main.id}/databases"
    assert schema(main) == []
    empty_at = main.value("SELECT pg_current_wal_lsn()")
    with superuser(main, "app") as db:
        db.query("CREATE FUNCTION no() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'nobody comes in'; END $$;"
                 # What a session of the database begins with changes nothing, nor what somebody has of the same names.
                 "ALTER DATABASE app SET search_path = public; ALTER DATABASE app SET client_encoding = 'LATIN1';"
                 "CREATE TABLE public.pg_class (oid oid); DROP TABLE public.pg_class; CREATE TEMP TABLE of_a_session (n int);"
                 "CREATE FUNCTION public.format_type(oid, int) RETURNS text LANGUAGE sql AS $$ SELECT 'wrong' $$")
        db.query(STRUCTURE)
        shown = schema(main) # while the temporary table is there
        db.query("CREATE EVENT TRIGGER no ON login EXECUTE FUNCTION no()")
        db.query("ALTER EVENT TRIGGER no ENABLE ALWAYS")
        assert schema(main) == shown
        db.query("DROP EVENT TRIGGER no")
    for want, got in zip(EXPECTED, shown):
        assert got == want, f"\n{got}\n{want}"
    assert len(shown) == len(EXPECTED), [t["name"] for t in shown]

    # Earlier, while it sleeps, in another database, in none.
    assert schema(main, lsn=empty_at) == []
    main.suspend()
    assert schema(main) == EXPECTED
    other = 'Zwei "東"'
    project.wait_operations(project.api("POST", path, {"database": {"name": other, "owner_name": "app"}}))
    with superuser(main, urllib.parse.quote(other)) as db:
        db.query("CREATE TABLE only_here (n int PRIMARY KEY)")
    assert schema(main, other) == [table("public", "only_here", [column("n", "integer", False)], [
        key("primary_key", "only_here_pkey", "n")])]
    refused(404, "DATABASE_NOT_FOUND", schema, main, "no-such")
    check_the_limit(main, other)
    check_a_drop_meanwhile(main)
    with superuser(main, "app") as db: # which control has not heard of
        db.query("SET client_encoding = 'UTF8'")
        db.query('ALTER DATABASE "Zwei ""東""" RENAME TO away')
    refused(404, "DATABASE_NOT_FOUND", schema, main, other)
    refused(400, "BAD_REQUEST", project.api, "GET", f"/branches/{main.id}/schema?db_name=app&format=xml")
    project.delete()
