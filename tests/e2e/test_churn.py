"""Space after tables were rebuilt again and again: what stays is the least that must (docs/design/history.md).

The long form: CHURN_CYCLES=100 python3 tests/e2e/run.py churn
"""
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile

from cluster import http, wait_for
from test_history import collect_up_to, position, set_window, storage

CYCLES = int(os.environ.get("CHURN_CYCLES", "3"))


def rebuild(db, number):
    db.query("REINDEX TABLE t")
    db.query("TRUNCATE scratch")
    db.query("INSERT INTO scratch SELECT i, i::text FROM generate_series(1, 2000) i")
    db.query("VACUUM FULL t")
    db.query(f"UPDATE t SET v = md5(v) WHERE i % 10 = {number % 10}")


def sorted_bytes(folder, pattern):
    return sum(path.stat().st_size for path in pathlib.Path(folder).rglob(pattern))


def kept_and_least(build, folder, cutoff):
    """Of a copy: [kept, least, superfluous pages, sizes, states, on disk, least on disk, missing]."""
    with tempfile.TemporaryDirectory() as temp:
        copy = shutil.copytree(folder, pathlib.Path(temp) / "store")
        line = subprocess.run([build / "tests/model/store/store_space", copy, cutoff], check=True,
                              stdout=subprocess.PIPE, text=True).stdout
    print("   " + line.strip())
    return [int(number) for number in re.findall(r"\d+", line)]


def test_churn_returns_to_the_least_that_must_be_kept(fresh_cluster):
    cluster, pageserver = fresh_cluster, fresh_cluster.pageserver
    pageserver.be_impatient()
    project = cluster.create_project("churn")
    main = project.main()
    set_window(project, main, 0)
    url, tenant = storage(cluster, main), storage(cluster, main, None)
    with main.connect() as db:
        db.query("CREATE TABLE t (i int PRIMARY KEY, v text); CREATE INDEX ON t (v)")
        db.query("CREATE TABLE scratch (i int PRIMARY KEY, t text)")
        db.query("INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, 5000) i")
        for number in range(CYCLES):
            rebuild(db, number)
    main.suspend()
    end = wait_for("ingest", lambda: (lambda answer: answer["last_record_lsn"] == answer["durable_lsn"]
                                      and answer["durable_lsn"])(http("GET", url)))
    before = http("GET", url)["physical_bytes"]
    cutoff = collect_up_to(cluster, main, end) # the call that moves the cutoff is enough
    stored, objects = next((pageserver.folder / "tenants").iterdir()), cluster.data / "objects/tenants"
    # An object has a trailer of its own; all but that is what the disk has.
    wait_for("the object store has what the disk has and no more", lambda: sorted_bytes(stored, "*.sst")
             <= sorted_bytes(objects, "*.sst-*") <= 1.02 * sorted_bytes(stored, "*.sst"), 60)
    pageserver.kill(signal.SIGTERM)
    kept, least, _, _, _, disk, disk_least, missing = kept_and_least(cluster.build, stored, cutoff)
    print(f"   {CYCLES} cycles: {before} bytes before GC, {disk} after, objects {sorted_bytes(objects, '*.sst-*')}")
    assert missing == 0 and kept == least and disk <= 1.02 * disk_least, (kept, least, disk, disk_least)
    pageserver.start()
    main.start()
    assert main.sql("SELECT count(*), count(DISTINCT i) FROM t") == [("5000", "5000")]
