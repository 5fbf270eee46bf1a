"""The ledger workload: writers that remember every answer, and the judge that compares memory with the database.

Each operation is one transaction: insert a unique entry and move an amount between two accounts. Its outcome is
  ok     COMMIT was answered: the entry must be there, exactly once, for ever
  fail   the server refused before COMMIT was sent, or said that it rolled back: it must not be there
  info   the connection died with the COMMIT under way: either is right
The sum over all accounts never changes. History lines: {process, op, id, outcome, start, end, error}.
"""
import json
import random
import threading
import time

import pq

ACCOUNTS, OPENING = 50, 1000

SCHEMA = f"""
CREATE TABLE ledger (id text PRIMARY KEY, source int NOT NULL, target int NOT NULL, amount int NOT NULL);
CREATE TABLE account (id int PRIMARY KEY, balance bigint NOT NULL);
INSERT INTO account SELECT i, {OPENING} FROM generate_series(0, {ACCOUNTS - 1}) i;
"""


class Ledger:
    def __init__(self, uri_of, writers, seed, history_path=None):
        self.uri_of, self.writers, self.seed = uri_of, writers, seed
        self.outcomes = {}          # id -> "ok" | "fail" | "info"
        self.commit_times = []      # monotonic times of answered commits
        self.stop_flag = threading.Event()
        self.lock = threading.Lock()
        self.history = open(history_path, "w") if history_path else None
        self.threads = []
        self.errors = {}

    def create(self, connect):
        with connect() as db:
            for statement in SCHEMA.split(";"):
                if statement.strip():
                    db.query(statement)

    def start(self):
        self.threads = [threading.Thread(target=self._write, args=(n,), daemon=True) for n in range(self.writers)]
        for thread in self.threads:
            thread.start()

    def stop(self, timeout_s=90):
        self.stop_flag.set()
        for thread in self.threads:
            thread.join(timeout_s)
        stuck = sum(t.is_alive() for t in self.threads)
        if self.history:
            self.history.flush()
        return stuck

    def _note(self, number, ident, outcome, start, error=None):
        with self.lock:
            self.outcomes[ident] = outcome
            if outcome == "ok":
                self.commit_times.append(time.monotonic())
            if error:
                self.errors[error[:120]] = self.errors.get(error[:120], 0) + 1
            if self.history:
                self.history.write(json.dumps({"process": number, "op": "transfer", "id": ident, "outcome": outcome,
                                               "start": start, "end": time.time(), "error": error}) + "\n")

    def _write(self, number):
        rng = random.Random(f"{self.seed}/{number}")
        db, count = None, 0
        while not self.stop_flag.is_set():
            if db is None:
                try:
                    db = pq.connect(self.uri_of(), timeout_s=5)
                    db.query("SET statement_timeout = '60s'")
                except Exception as error: # noqa: BLE001 - the control plane may be down: try again
                    with self.lock:
                        self.errors[f"connect: {error}"[:120]] = self.errors.get(f"connect: {error}"[:120], 0) + 1
                    self.stop_flag.wait(0.1)
                    continue
            count += 1
            ident, start = f"{self.seed}-{number}-{count}", time.time()
            source, target = rng.sample(range(ACCOUNTS), 2)
            low, high, amount = min(source, target), max(source, target), rng.randint(1, 9)
            sent_commit = False
            try:
                db.query("BEGIN")
                db.query(f"INSERT INTO ledger VALUES ('{ident}', {source}, {target}, {amount})")
                for account in (low, high): # in order: no deadlocks
                    sign = "-" if account == source else "+"
                    db.query(f"UPDATE account SET balance = balance {sign} {amount} WHERE id = {account}")
                sent_commit = True
                db.query("COMMIT")
                self._note(number, ident, "ok", start)
            except pq.Error as error:
                lost = error.sqlstate is None or error.sqlstate.startswith(("57P", "08"))
                self._note(number, ident, "info" if sent_commit else "fail", start, str(error))
                if not lost:
                    try:
                        db.query("ROLLBACK")
                    except pq.Error:
                        lost = True
                if lost:
                    db.close()
                    db = None
        if db:
            db.close()

    def count(self, outcome):
        with self.lock:
            return sum(o == outcome for o in self.outcomes.values())

    def longest_gap(self):
        with self.lock:
            times = sorted(self.commit_times)
        return max((b - a for a, b in zip(times, times[1:])), default=0.0)

    def judge(self, db, must_have=None):
        """Compare with what the database holds; a list of violations, empty when all is well.

        `must_have`: judge against this copy of the outcomes (of a branch: what was acknowledged before its LSN).
        """
        outcomes = dict(self.outcomes) if must_have is None else must_have
        found = {}
        for ident, times in db.query("SELECT id, count(*) FROM ledger GROUP BY id"):
            found[ident] = int(times)
        violations = []
        for ident, outcome in outcomes.items():
            times = found.get(ident, 0)
            if outcome == "ok" and times != 1:
                violations.append(f"acknowledged {ident} is there {times} times")
            if outcome == "fail" and times != 0:
                violations.append(f"refused {ident} is there")
            if outcome == "info" and times > 1:
                violations.append(f"unknown {ident} is there {times} times")
        if must_have is None:
            violations += [f"{ident} was never written" for ident in found if ident not in outcomes]
        total = int(db.value("SELECT sum(balance) FROM account"))
        if total != ACCOUNTS * OPENING:
            violations.append(f"sum of balances is {total}, not {ACCOUNTS * OPENING}")
        drift = db.query(
            "SELECT a.id, a.balance, e.expected FROM account a JOIN (SELECT a.id, "
            f"{OPENING} - coalesce((SELECT sum(amount) FROM ledger WHERE source = a.id), 0) "
            "+ coalesce((SELECT sum(amount) FROM ledger WHERE target = a.id), 0) AS expected FROM account a) e "
            "USING (id) WHERE a.balance <> e.expected")
        violations += [f"account {i}: balance {b}, its entries say {e}" for i, b, e in drift]
        index = db.value("SET enable_seqscan = off; SELECT count(id) FROM ledger WHERE id > ''")
        heap = db.value("SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off; "
                        "SET enable_seqscan = on; SELECT count(*) FROM ledger")
        if index != heap:
            violations.append(f"the index of ledger has {index} entries, the table {heap}")
        return violations
