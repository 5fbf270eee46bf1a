"""GetPage over loopback: a page from the cache, and a page that is put together from ten records each time.

One row a page: the record that makes the page, and nine row locks, each a transaction of its own. The pageserver is
started again without a cache of finished pages for the second half; its own metrics say how many records it applied.
"""
import contextlib
import json
import os
import pathlib
import re
import subprocess

from cluster import http, running, wait_for

PAGES, LOCKS, SECONDS = 2000, 9, 5
RECORDS = 1 + LOCKS


def make_table(db):
    db.query("CREATE TABLE pages (n int, pad text) WITH (autovacuum_enabled = off)")
    db.query("ALTER TABLE pages ALTER pad SET STORAGE PLAIN")
    db.query(f"INSERT INTO pages SELECT n, repeat('x', 7000) FROM generate_series(1, {PAGES}) n")
    for _ in range(LOCKS):
        db.query("SELECT count(*) FROM (SELECT n FROM pages FOR UPDATE) locked")
    return db.query("SELECT 1663, (SELECT oid FROM pg_database WHERE datname = current_database()), "
                    "pg_relation_filenode('pages'), pg_relation_size('pages') / 8192, pg_current_wal_flush_lsn()")[0]


class Reader:
    """Asks the cluster's pageserver for random pages of the table."""

    def __init__(self, cluster, branch, where):
        self.cluster, self.where, self.pid = cluster, where, cluster.pageserver.pid
        spec = http("GET", f"{cluster.agent.http_url}/v1/computes/{branch.endpoint()['id']}/spec")
        self.tenant, self.timeline = spec["tenant"], spec["timeline"]

    def ask(self, seconds, in_flight):
        host, port = self.cluster.pageserver.row["listen"].split(":")
        done = subprocess.run([str(self.cluster.build / "tests/bench/getpage"), host, port, self.tenant, self.timeline,
                               *map(str, self.where), str(seconds), str(in_flight)], stdout=subprocess.PIPE, text=True, check=True)
        return json.loads(done.stdout)

    def counter(self, name):
        text = http("GET", self.cluster.pageserver.http_url + "/metrics", raw=True).decode()
        return float(re.search(rf"^{name} (\S+)$", text, re.M).group(1))

    def cpu_s(self):
        fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def wait_until(self, lsn):
        def there():
            row = http("GET", f"{self.cluster.pageserver.http_url}/v1/tenants/{self.tenant}/timelines/{self.timeline}")
            high, low = (int(part, 16) for part in row["last_record_lsn"].split("/"))
            wanted_high, wanted_low = (int(part, 16) for part in lsn.split("/"))
            return (high, low) >= (wanted_high, wanted_low)
        wait_for("the pageserver has it all", there, 120)

    def go_ahead(self):
        """The pageserver leads a session: with tools/bench --ahead it goes ahead as well."""
        ours = pathlib.Path("/proc/self/autogroup")
        if ours.exists() and ours.read_text().split()[-1] != "0":
            pathlib.Path(f"/proc/{self.pid}/autogroup").write_text(ours.read_text().split()[-1])

    @contextlib.contextmanager
    def without_page_cache(self):
        """Another one in its place, on the same ports."""
        row = self.cluster.pageserver.row
        self.cluster.pageserver.kill()
        with open(self.cluster.folder / "pageserver.log", "wb") as log:
            process = subprocess.Popen([row["binary"], "--config", row["conf"], "--page_cache=0"], stdout=log, stderr=log)
        self.pid = process.pid
        try:
            wait_for("the pageserver is ready", self.cluster.pageserver.ready)
            self.go_ahead()
            yield
        finally:
            process.terminate()
            process.wait(60)


def cached(reader, emit):
    reader.ask(2, 16) # warm
    one = reader.ask(SECONDS, 1)
    for name, target in (("p50_us", 40), ("p99_us", 150)):
        emit(f"getpage_cached_{name[:3]}", one[name], "us", "echo of as many bytes, us", one[f"echo_{name}"],
             one[name] / one[f"echo_{name}"], f"<= {target} us", one[name] <= target)
    before = reader.cpu_s()
    rate = reader.ask(SECONDS, 32)["count"] / (reader.cpu_s() - before)
    emit("getpage_cached_rate", rate, "pages/s for a core of the server", "limit", 40_000, rate / 40_000, ">= 40,000/s", rate >= 40_000)


def from_records(reader, emit):
    reader.ask(2, 16) # blocks into the cache
    applied, pages = reader.counter("pageserver_redo_records_total"), reader.counter("pageserver_pages_read_total")
    one = reader.ask(SECONDS, 1)
    applied = reader.counter("pageserver_redo_records_total") - applied
    pages = reader.counter("pageserver_pages_read_total") - pages
    emit("getpage_records_applied", applied / pages, "records/page", "in the table", RECORDS, applied / pages / RECORDS,
         "what was asked for", abs(applied / pages - RECORDS) < 0.5)
    for name, target in (("p50_us", 60), ("p99_us", None)):
        emit(f"getpage_of_{RECORDS}_records_{name[:3]}", one[name], "us", "echo of as many bytes, us", one[f"echo_{name}"],
             one[name] / one[f"echo_{name}"], "none" if target is None else f"<= {target} us", target is None or one[name] <= target)
    before = reader.cpu_s()
    rate = reader.ask(SECONDS, 32)["count"] / (reader.cpu_s() - before)
    emit(f"getpage_of_{RECORDS}_records_rate", rate, "pages/s for a core of the server", "none", 0, 0, "none", True)


def run(build, emit):
    with running(build, local_cache_mb=1024) as cluster:
        main = cluster.create_project("bench").main()
        with main.connect() as db:
            *where, lsn = make_table(db)
        reader = Reader(cluster, main, where)
        reader.wait_until(lsn)
        reader.go_ahead()
        cached(reader, emit)
        with reader.without_page_cache():
            reader.wait_until(lsn)
            from_records(reader, emit)
