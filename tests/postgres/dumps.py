"""pg_dump, pg_dumpall and pg_restore both ways between a stock server and a compute: the dump of what was restored is the dump
of what it was made of, in every format."""
import difflib
import pathlib
import re
import threading

import pq
from compute import Failure
from stock_server import StockServer

SQL = pathlib.Path(__file__).resolve().parent / "sql"
KEY = "--restrict-key=fixed"  # of \\restrict, which is random otherwise
TOTAL = "SELECT (SELECT sum(amount) FROM account) + (SELECT sum(amount) FROM other_account)"


class Tools:
    """The programs of Postgres on one of the servers."""

    def __init__(self, compute, name, **environment):
        self.compute, self.name, self.environment = compute, name, environment

    def run(self, program, *args, allowed=None):
        """What it printed; only lines of errors that match `allowed` may be there."""
        code, said = self.compute.run(self.compute.bin / program, *args, **self.environment)
        errors = [line for line in said.splitlines() if "ERROR" in line or "error:" in line]
        odd = [line for line in errors if allowed is None or not re.search(allowed, line)]
        if odd or (code != 0 and not errors):
            raise Failure(f"{program} {' '.join(map(str, args))} on {self.name}: exit {code}: {(odd or [said])[:10]}")
        return said

    def sql(self, file, database="postgres", allowed=None):
        options = [] if allowed else ["-v", "ON_ERROR_STOP=1"]
        self.run("psql", "-X", "-q", *options, "-d", database, "-f", file, allowed=allowed)

    def dump(self, database, *options):
        """As text."""
        path = self.compute.work / f"{self.name}-{database}.sql"
        self.run("pg_dump", KEY, "-f", path, *options, database)
        return path.read_text()

    def globals(self):
        """Those of the roles that the test made, each with its own lines."""
        path = self.compute.work / f"{self.name}-globals.sql"
        self.run("pg_dumpall", KEY, "--globals-only", "-f", path)
        return "".join(line + "\n" for line in path.read_text().splitlines() if "fid_" in line)


def same(name, first, second):
    if first == second:
        return name, True, ""
    lines = list(difflib.unified_diff(first.splitlines(), second.splitlines(), "source", "restored", lineterm="", n=1))
    return name, False, f"{name}\n" + "\n".join(lines[:200])


class Transfers:
    """Somebody moves money between two tables all the time; every snapshot has the same sum."""

    def __init__(self, uri):
        self.uri, self.ended, self.done = uri, threading.Event(), 0
        self.thread = threading.Thread(target=self.work)

    def work(self):
        with pq.connect(self.uri) as db:
            while not self.ended.is_set():
                n = self.done % 1000 + 1
                db.query(f"BEGIN; UPDATE account SET amount = amount - 1 WHERE n = {n};"
                         f"UPDATE other_account SET amount = amount + 1 WHERE n = {1001 - n}; COMMIT")
                self.done += 1

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()


def to_compute(stock, compute, work):
    """Every format from the stock server; yields comparisons, leaves the databases."""
    roles = work / "roles.sql"
    roles.write_text(stock.globals())
    compute.sql(roles)
    yield same("roles_to_compute", stock.globals(), compute.globals())
    stock.run("pg_dump", "-Fc", "-f", work / "custom", "everything")
    stock.run("pg_dump", "-Fd", "-j", "2", "-f", work / "directory", "everything")
    stock.run("pg_dump", "-Fp", KEY, "-f", work / "plain", "everything")
    compute.run("pg_restore", "--exit-on-error", "--create", "-d", "postgres", work / "custom")
    yield same("custom_to_compute", stock.dump("everything", "--create"), compute.dump("everything", "--create"))
    for database in ("from_directory", "from_plain"):
        compute.run("createdb", "-T", "template0", "-O", "fid_owner", database)
    compute.run("pg_restore", "--exit-on-error", "-j", "2", "-d", "from_directory", work / "directory")
    compute.sql(work / "plain", "from_plain")
    for kind in ("directory", "plain"):
        yield same(f"{kind}_to_compute", stock.dump("everything"), compute.dump(f"from_{kind}"))


def to_stock(stock, compute, work, uri):
    compute.run("pg_dump", "-Ft", "-f", work / "tar", "everything")
    stock.run("createdb", "-T", "template0", "-O", "fid_owner", "from_compute")
    stock.run("pg_restore", "--exit-on-error", "-d", "from_compute", work / "tar")
    yield same("tar_to_stock", compute.dump("everything"), stock.dump("from_compute"))
    with Transfers(uri.replace("/postgres?", "/from_directory?")) as transfers:
        compute.run("pg_dump", "-Fd", "-j", "3", "-f", work / "while_written", "from_directory")
    stock.run("createdb", "-T", "template0", "-O", "fid_owner", "while_written")
    stock.run("pg_restore", "--exit-on-error", "-j", "2", "-d", "while_written", work / "while_written")
    total = stock.run("psql", "-XAt", "-d", "while_written", "-c", TOTAL).strip()
    moved = f"{transfers.done} transfers, the sum is {total}"
    yield "directory_to_stock_while_written", total == "200000" and transfers.done > 0, moved


def whole_server(fresh, compute, work):
    """pg_dumpall of the compute, for a server that has nothing yet."""
    path = work / "all.sql"
    compute.run("pg_dumpall", KEY, "-f", path)
    fresh.sql(path, allowed='role "postgres" already exists')
    yield same("dumpall_to_stock", compute.dump("everything", "--create"), fresh.dump("everything", "--create"))
    yield same("dumpall_roles_to_stock", compute.globals(), fresh.globals())
    databases = "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database WHERE datallowconn AND datname <> 'app'"
    yield same("dumpall_databases", *(server.run("psql", "-XAt", "-c", databases) for server in (compute, fresh)))


def dumps(compute):
    on_compute = Tools(compute, "compute")
    with StockServer(compute.cluster, user="postgres") as server, StockServer(compute.cluster, user="postgres") as other:
        stock, fresh = (Tools(compute, name, PGHOST="127.0.0.1", PGPORT=str(s.port), PGUSER="postgres")
                        for name, s in (("stock", server), ("fresh", other)))
        stock.sql(SQL / "roles.sql")
        stock.sql(SQL / "everything.sql", "everything")
        yield from to_compute(stock, on_compute, compute.work)
        yield from to_stock(stock, on_compute, compute.work, compute.uri)
        yield from whole_server(fresh, on_compute, compute.work)
