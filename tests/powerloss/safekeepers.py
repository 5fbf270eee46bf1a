"""The safekeepers lose power, one, two or all, in the middle of a change of their disk, under pgbench and the ledger."""
import random
import subprocess
import threading
import time

from cluster import http, wait_for
from ledger import Ledger
from rig import SAFEKEEPERS, lsn_text, lsn_value, place_of

DIGEST_BYTES = 4 << 20  # of WAL that is compared after each cut; at the end all of it


def make_plan(seed, count):
    """Steps of who loses power after how many changes of its disk, from nothing but the seed."""
    rng = random.Random(f"safekeepers {seed}")
    plan = []
    for number in range(count):
        targets = rng.sample(SAFEKEEPERS, rng.choice([1, 1, 2, 3]))
        plan.append([(target, rng.randint(1, rng.choice([3, 20, 80])), seed * 1000000 + number * 10 + place)
                     for place, target in enumerate(targets)])
    return plan


class Benchmark:
    """pgbench for as long as it is wanted, again when its connections are gone."""

    def __init__(self, branch, rate=None):
        self.branch, self.wanted, self.runs, self.process = branch, True, 0, None
        self.limit = ["-R", str(rate)] if rate else []
        branch.pgbench("-i", "-s", "1", "-q")
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        command = [str(self.branch.cluster.postgres / "bin/pgbench"), "-n", "-c", "2", *self.limit, "-T", "3600", self.branch.uri()]
        while self.wanted:
            self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            self.runs += 1
            self.process.wait()

    def stop(self):
        self.wanted = False
        self.process.terminate()
        self.thread.join(60)

    def judge(self, db):
        sums = {db.value(f"SELECT coalesce(sum({column}), 0) FROM pgbench_{table}") for table, column in
                (("accounts", "abalance"), ("tellers", "tbalance"), ("branches", "bbalance"), ("history", "delta"))}
        return [] if len(sums) == 1 else [f"the sums of pgbench differ: {sums}"]


class Safekeepers:
    def __init__(self, cluster, branch, seed, benchmark=None):
        self.cluster, self.branch = cluster, branch
        self.violations = []
        self.deaths_at_change = self.deaths = 0
        tenant, timeline = place_of(cluster, branch)
        self.path = f"/v1/tenants/{tenant['tenant']}/timelines/{timeline}"
        uri = branch.uri()
        self.ledger = Ledger(lambda: uri, 3, seed)
        self.ledger.create(branch.connect)
        self.benchmark = benchmark
        self.ledger.start()
        self.wait_for_commits()

    def wait_for_commits(self):
        before = self.ledger.count("ok")
        wait_for("commits go on", lambda: self.ledger.count("ok") > before + 3, 120, 0.02)

    def state(self, name):
        return http("GET", self.cluster.process(name).http_url + self.path)

    def opened_state(self, name):
        state = self.state(name)
        return None if state["storage"] == "opening" else state

    def digest(self, name, begin, end):
        return http("GET", f"{self.cluster.process(name).http_url}{self.path}/digest?from={begin}&to={end}")["crc"]

    def strike(self, step):
        """All of the step die, lose what they had not synced, and come back."""
        before = {target: self.state(target) for target, _, _ in step}
        dying = [threading.Thread(target=self._die, args=(target, changes)) for target, changes, _ in step]
        for thread in dying:
            thread.start()
        for thread in dying:
            thread.join()
        for target, _, seed in step:
            self.cluster.cut(target, seed)
        for target, _, _ in step:
            self.cluster.process(target).start(ready=False)
        for target, _, _ in step:
            self.check_node(target, before[target])
        self.wait_for_commits()
        self.check_digests(step, before)

    def _die(self, target, changes):
        self.deaths_at_change += self.cluster.die(target, changes)
        self.deaths += 1

    def check_node(self, name, before):
        """It says nothing less than before: a promise was made with every answer."""
        after = wait_for(f"{name} has opened its timeline", lambda: self.opened_state(name), 20)
        if after["storage"] != "ok":
            self.violations.append(f"{name} is out of service: {after['storage']}")
            return
        if after["term"] < before["term"]:
            self.violations.append(f"{name} has term {after['term']}, it promised {before['term']}")
        if after["history"] == before["history"]:
            for lsn in ("flush_lsn", "record_lsn"):
                if lsn_value(after[lsn]) < lsn_value(before[lsn]):
                    self.violations.append(f"{name} has {lsn} {after[lsn]}, it acknowledged {before[lsn]}")
        if lsn_value(after["commit_lsn"]) > lsn_value(after["flush_lsn"]):
            self.violations.append(f"{name} says that more is committed than it has: {after}")

    def fail_a_sync(self, name):
        """The node is out of service at once, says which file, and comes back with all that it acknowledged."""
        syncs = http("GET", self.cluster.process(name).http_url + "/metrics", raw=True).decode()
        if "\nsync_queue_syncs_total 0\n" in syncs:
            self.violations.append(f"{name}: the kernel synced nothing for it, so this is another check than it seems")
        self.cluster.disks[name].command("fail sync EIO 1 */wal/*")
        failed = wait_for(f"{name} is out of service", lambda: next(
            (state for state in [self.state(name)] if state["storage"].startswith("failed")), None), 20)
        if "fdatasync" not in failed["storage"] or "/wal/" not in failed["storage"]:
            self.violations.append(f"{name} does not say which file could not be synced: {failed['storage']}")
        self.wait_for_commits()
        self.cluster.kill(name)
        self.cluster.process(name).start(ready=False)
        self.check_node(name, failed)
        self.wait_for_commits()

    def check_digests(self, step, before):
        commit = max(lsn_value(state["commit_lsn"]) for state in before.values())
        start = max(lsn_value(state["retention"]["begin_lsn"]) for state in before.values())
        self.compare(max(start, commit - DIGEST_BYTES), commit)

    def compare(self, begin, end):
        def all_have_it():
            return all(lsn_value(self.state(name)["commit_lsn"]) >= end for name in SAFEKEEPERS)
        try:
            wait_for("all safekeepers know it as committed", all_have_it, 60)
        except TimeoutError:
            self.violations.append(f"not all have {lsn_text(end)}: {[self.state(name) for name in SAFEKEEPERS]}")
            return
        digests = {name: self.digest(name, lsn_text(begin), lsn_text(end)) for name in SAFEKEEPERS}
        if len(set(digests.values())) != 1:
            self.violations.append(f"safekeepers disagree on [{lsn_text(begin)}, {lsn_text(end)}): {digests}")

    def stop(self):
        if self.benchmark:
            self.benchmark.stop()
        if self.ledger.stop():
            self.violations.append("writers never came back")

    def judge(self):
        """Every acknowledged commit, once; sums; all three the same bytes from the beginning on."""
        self.stop()
        self.branch.suspend()  # the new compute has nothing but what the safekeepers kept
        self.branch.start()
        with self.branch.connect() as db:
            self.violations += self.ledger.judge(db)
            self.violations += self.benchmark.judge(db) if self.benchmark else []
        states = [self.state(name) for name in SAFEKEEPERS]
        commit = min(lsn_value(state["commit_lsn"]) for state in states)
        self.compare(max(lsn_value(state["retention"]["begin_lsn"]) for state in states), commit)
        return commit - lsn_value(states[0]["start_lsn"])


def run(cluster, branch, seed, count, rate):
    """Returns one line that says what happened; raises when an acknowledged commit or a node is not as it was."""
    begin = time.monotonic()
    plan = make_plan(seed, count)
    safekeepers = Safekeepers(cluster, branch, seed, Benchmark(branch, rate))
    try:
        for number, step in enumerate(plan):
            safekeepers.strike(step)
            if safekeepers.violations:
                raise AssertionError(f"cut {number} {step}: {safekeepers.violations[:5]}")
        safekeepers.fail_a_sync(SAFEKEEPERS[seed % len(SAFEKEEPERS)])
        wal_bytes = safekeepers.judge()
    finally:
        safekeepers.stop()
    assert not safekeepers.violations, safekeepers.violations[:10]
    disks = [cluster.disks[name].status() for name in SAFEKEEPERS]
    lost, torn = (sum(disk[key] for disk in disks) for key in ("lost", "torn"))
    ledger = safekeepers.ledger
    line = (f"{count} power cuts of {safekeepers.deaths} safekeepers ({safekeepers.deaths_at_change} in a change of their disk) "
            f"in {time.monotonic() - begin:.0f} s: {ledger.count('ok')} commits acknowledged, {ledger.count('info')} unknown, all found; "
            f"{wal_bytes >> 20} MiB of WAL the same on all three; {lost} unsynced changes lost, {torn} torn, "
            f"longest gap {ledger.longest_gap():.1f} s")
    assert ledger.count("ok") > 3 * count and lost > 0, f"it proves nothing: {line}"
    return line


def lying_disk_is_noticed(cluster, branch, seed):
    """A disk that answers syncs and keeps nothing: the node that comes back must not go unnoticed."""
    safekeepers = Safekeepers(cluster, branch, seed)
    target = SAFEKEEPERS[0]
    cluster.disks[target].command("lie on")
    safekeepers.wait_for_commits()
    wait_for("it acknowledges more", lambda: cluster.disks[target].status()["unsynced"] > 20)
    before = safekeepers.state(target)
    cluster.die(target, 1)
    cluster.disks[target].command("cut 1 0")
    cluster.disks[target].command("lie off")
    cluster.process(target).start(ready=False)
    safekeepers.check_node(target, before)
    safekeepers.ledger.stop()
    assert safekeepers.violations, "nobody noticed"
