#!/usr/bin/env python3
"""Computes that publish and subscribe are killed at random moments, and nothing may be lost or come twice.

Stock `a` -> compute -> stock `b`: the compute subscribes to a table of `a` and publishes it to `b`, and writers write on `a` and
on the compute. In each round the compute's Postgres is killed, stopped, or all safekeepers are while it goes on. At the end
all three agree with what was acknowledged. `sweep.py --build DIR [--rounds N] [--seed N]`; prints `ok` or `FAILED`.
"""
import argparse
import os
import pathlib
import random
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(ROOT / "tests/lib"), str(ROOT / "tests/e2e")]

import pq # noqa: E402
from cluster import running, wait_for # noqa: E402
from stock_server import StockServer # noqa: E402
from test_logical import kill, publisher, restart, superuser, superuser_uri # noqa: E402

SCHEMA = "CREATE TABLE far (n bigint PRIMARY KEY); CREATE TABLE near (n bigint PRIMARY KEY, xid text)"


class Writer(threading.Thread):
    """Inserts numbers, one a transaction; `sure` are those whose commit was answered."""

    def __init__(self, connect, table):
        super().__init__(daemon=True)
        self.connect, self.table, self.sure, self.next, self.ends = connect, table, [], 0, False

    def run(self):
        while not self.ends:
            try:
                with self.connect() as db:
                    while not self.ends:
                        self.next += 1
                        db.query(f"INSERT INTO {self.table} (n) VALUES ({self.next})")
                        self.sure.append(str(self.next))
            except (pq.Error, OSError, KeyError, TimeoutError):
                time.sleep(0.05) # its server is away

    def end(self):
        self.ends = True
        self.join()


def lose_quorum(cluster, branch, chance):
    for keeper in cluster.safekeepers:
        keeper.kill()
    time.sleep(chance.uniform(0, 1))
    killed = branch.compute()["pids"]["postgres"]
    os.kill(killed, 9)
    for keeper in cluster.safekeepers:
        keeper.start()
    wait_for("it is back", lambda: (lambda c: c["state"] == "running" and c["pids"]["postgres"] != killed)(branch.compute()))


def sweep(cluster, rounds, chance):
    branch = publisher(cluster)
    with StockServer(cluster, "wal_level=logical") as a, StockServer(cluster) as b:
        a.query(SCHEMA + "; CREATE PUBLICATION far FOR TABLE far")
        b.query(SCHEMA)
        with superuser(branch) as db:
            db.query(SCHEMA + "; CREATE PUBLICATION everything FOR TABLE far, near")
            db.query(f"CREATE SUBSCRIPTION far CONNECTION '{a.uri}' PUBLICATION far")
        b.query(f"CREATE SUBSCRIPTION both_of_them CONNECTION '{superuser_uri(branch)}' PUBLICATION everything")
        writers = [Writer(a.connect, "far"), Writer(lambda: superuser(branch), "near")]
        for writer in writers:
            writer.start()
        for number in range(rounds):
            time.sleep(chance.uniform(0, 2))
            what = chance.choice(["kill", "kill", "kill", "restart", "quorum"])
            print(f"round {number}: {what}, {[len(w.sure) for w in writers]} commits", flush=True)
            if what == "quorum":
                lose_quorum(cluster, branch, chance)
            else:
                (kill if what == "kill" else restart)(branch)
            if chance.random() < 0.3: # catalogs are rewritten while it decodes
                with superuser(branch) as db:
                    db.query("ALTER TABLE near ALTER xid SET DEFAULT 'x'")
                    db.query("VACUUM FULL pg_class")
            b.query(f"ALTER SUBSCRIPTION both_of_them CONNECTION '{superuser_uri(branch)}'")
        for writer in writers:
            writer.end()
        check(branch, a, b, *writers)


def check(branch, a, b, far, near):
    with superuser(branch) as db:
        for table, source, writer in (("far", a, far), ("near", db, near)):
            rows = f"SELECT n FROM {table} ORDER BY n"
            want = source.query(rows)
            missing = set(writer.sure) - {row[0] for row in want}
            assert not missing, f"{table}: acknowledged and lost: {sorted(missing)[:5]}"
            for name, server in (("the compute", db), ("its subscriber", b)):
                wait_for(f"{name} has all of {table}", lambda: server.query(rows) == want, 120)
        print(f"{len(far.sure)} and {len(near.sure)} commits; all agree")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", default=str(ROOT / "build"))
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    args = parser.parse_args()
    os.environ.setdefault("POSTGRES_DIR", os.popen(f"{ROOT}/tools/build-postgres").read().split()[-1])
    print(f"tests/logical/sweep.py --seed {args.seed} --rounds {args.rounds}", flush=True)
    try:
        with running(args.build) as cluster:
            sweep(cluster, args.rounds, random.Random(args.seed))
        print("ok logical_sweep")
    except Exception as error: # noqa: BLE001 - any failure is a failed test
        print(f"FAILED logical_sweep: {error}")
        raise


if __name__ == "__main__":
    main()
