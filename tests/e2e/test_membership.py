"""A branch's safekeepers are others while its compute writes: every acknowledged commit is found, Postgres is not restarted."""
from cluster import ApiError, Cluster, http, wait_for
from test_failures import Ledger
from test_safekeeper_disk import lsn


def commits(ledger, more, timeout_s=120):
    before = ledger.count("ok")
    wait_for(f"{more} more commits", lambda: ledger.count("ok") > before + more, timeout_s)


class Change:
    """One branch, its writers, and the API of its safekeepers."""

    def __init__(self, cluster, seed):
        self.cluster = cluster
        self.branch = cluster.create_project("members").main()
        self.path = f"/projects/{self.branch.project.id}/branches/{self.branch.id}/safekeepers"
        uri = self.branch.uri()
        self.ledger = Ledger(lambda: uri, 3, seed)
        self.ledger.create(self.branch.connect)
        self.ledger.start()
        commits(self.ledger, 40)

    def get(self):
        return self.cluster.api("GET", self.path)

    def ids(self):
        return [k["id"] for k in self.get()["safekeepers"]]

    def begin(self, **wish):
        return self.cluster.api("POST", self.path, wish)

    def settle(self):
        wait_for("the change to end", lambda: not self.get()["changing"], 120)

    def check(self):
        """Writers go on, nothing is lost, and everybody who votes has the same WAL."""
        commits(self.ledger, 40)
        self.ledger.stop()
        with self.branch.connect() as connection:
            violations = self.ledger.judge(connection)
        assert not violations, violations
        self.agree()

    def agree(self):
        by_id = {n + 1: k for n, k in enumerate(self.cluster.safekeepers)}
        members = [by_id[n] for n in self.ids()]

        def rows():
            found = []
            for keeper in members:
                found += [r for r in http("GET", keeper.http_url + "/v1/tenants")["timelines"]]
            lsns = {r["commit_lsn"] for r in found}
            return found if len(found) == len(members) and len(lsns) == 1 else None
        found = wait_for("the members to have the same commit_lsn", rows)
        row, begin = found[0], max((r["retention"]["begin_lsn"] for r in found), key=lsn)
        path = f"/v1/tenants/{row['tenant']}/timelines/{row['timeline']}"
        digests = {http("GET", f"{k.http_url}{path}/digest?from={begin}&to={row['commit_lsn']}")["crc"]
                   for k in members}
        assert len(digests) == 1, digests


def started_at(branch):
    with branch.connect() as connection:
        return connection.value("select pg_postmaster_start_time()")


def test_membership_a_safekeeper_is_replaced_under_load(build):
    """Five safekeepers, three members; then one more change with control killed in it, and one given up."""
    cluster = Cluster(build, safekeepers=5).up()
    try:
        change = Change(cluster, 7)
        before, old = started_at(change.branch), change.ids()
        spare = [n for n in range(1, 6) if n not in old]
        cluster.cli("branches", "safekeepers", change.branch.id, "--remove", str(old[0]), "--add", str(spare[0]))
        assert change.ids() == [old[1], old[2], spare[0]], change.get()
        commits(change.ledger, 20)
        wait_for("the former member to delete it", lambda: not change.get()["left"])

        # The old one is needed for nothing, and one of the new set may be away.
        cluster.safekeepers[old[0] - 1].kill()
        cluster.safekeepers[old[1] - 1].kill()
        commits(change.ledger, 20)
        cluster.safekeepers[old[1] - 1].start()
        cluster.safekeepers[old[0] - 1].start()

        # Control dies in the middle; the row says how it goes on. All three at once, one of them was there before.
        wait_for("control sees that it is back",
                 lambda: change.begin(safekeepers=[old[0], spare[0], spare[1]]))
        cluster.control.kill()
        commits(change.ledger, 20)
        cluster.control.start()
        change.settle()
        assert sorted(change.ids()) == sorted([old[0], spare[0], spare[1]])

        # A newcomer that is not there keeps a change waiting; it is given up.
        cluster.safekeepers[old[1] - 1].kill()
        try:
            change.begin(add=[old[1]])
            change.cluster.api("DELETE", change.path + "/change")
        except ApiError as refused:
            assert refused.status == 503, refused
        change.settle()
        assert sorted(change.ids()) == sorted([old[0], spare[0], spare[1]])
        assert started_at(change.branch) == before, "Postgres was restarted"
        change.check()
    finally:
        cluster.down()


def test_membership_changes_without_a_compute(build):
    """Nobody leads: the newcomer copies from the other members, and only then the one that leaves forgets its WAL."""
    cluster = Cluster(build, safekeepers=4).up()
    try:
        change = Change(cluster, 8)
        change.ledger.stop()
        change.branch.suspend()
        old = change.ids()
        spare = next(n for n in range(1, 5) if n not in old)
        change.begin(remove=[old[0]], add=[spare])
        change.settle()
        assert change.ids() == [old[1], old[2], spare], change.get()
        wait_for("the former member to delete it", lambda: not change.get()["left"])
        change.agree()
        cluster.safekeepers[old[1] - 1].kill() # the newcomer is needed, and has everything
        change.branch.start()
        with change.branch.connect() as connection:
            violations = change.ledger.judge(connection)
        assert not violations, violations
    finally:
        cluster.down()


def test_membership_a_change_is_given_up_and_one_goes_with_its_project(build):
    """Nothing of a newcomer stays: not of a change that is given up, not of one that is under way when the project goes."""
    cluster = Cluster(build, safekeepers=4).up()
    try:
        change = Change(cluster, 9)
        change.ledger.stop()
        change.branch.suspend() # so that the newcomer is not done at once
        old = change.ids()
        spare = next(n for n in range(1, 5) if n not in old)

        def held(number):
            return len(http("GET", cluster.safekeepers[number - 1].http_url + "/v1/tenants")["timelines"])

        change.begin(remove=[old[0]], add=[spare])
        try:
            change.begin(remove=[old[1]])
            raise AssertionError("two changes at once")
        except ApiError as refused:
            assert refused.status == 409, refused
        wait_for("the newcomer to have the timeline", lambda: held(spare) == 1)
        cluster.api("DELETE", change.path + "/change")
        change.settle()
        assert change.ids() == old, change.get()
        wait_for("the newcomer to have lost it", lambda: held(spare) == 0 and not change.get()["left"])

        change.begin(remove=[old[0]], add=[spare])
        wait_for("the newcomer to have it again", lambda: held(spare) == 1)
        cluster.api("DELETE", f"/projects/{change.branch.project.id}")
        wait_for("it to be gone everywhere", lambda: sum(held(n) for n in range(1, 5)) == 0)
    finally:
        cluster.down()
