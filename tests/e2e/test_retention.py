"""WAL goes when everybody has come past it: disks shrink, and whoever is behind, wiped, damaged or new still comes back."""
import shutil
import subprocess

from cluster import Cluster, http, wait_for

MIB = 1 << 20


def lsn(text):
    high, low = text.split("/")
    return (int(high, 16) << 32) + int(low, 16)


class Tuned:
    """A daemon of the cluster with settings of its own, which `anabranch local` would write over."""

    def __init__(self, cluster, name, **settings):
        self.row = cluster.process(name).row
        self.cluster, self.folder, self.http_url = cluster, cluster.process(name).folder, cluster.process(name).http_url
        self.settings = [f"--{key}={value}" for key, value in settings.items()]
        cluster.process(name).kill()
        self.start()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def start(self, ready=True):
        with open(self.cluster.data / "logs" / f"{self.row['name']}.tuned.log", "a") as log:
            self.process = subprocess.Popen([self.row["binary"], "--config", self.row["conf"], *self.settings], stderr=log)
        wait_for("it runs", lambda: http("GET", self.http_url + ("/readyz" if ready else "/healthz"), raw=True) is not None)


class Rig:
    """A branch with a compute, on safekeepers that forget soon and a pageserver that uploads soon."""

    def __init__(self, build, safekeepers=3, keep_max="1GB"):
        self.cluster = Cluster(build, safekeepers=safekeepers).up()
        self.pageserver = Tuned(self.cluster, "pageserver-1", flush_age="500ms", upload_interval="500ms")
        self.keepers = {n: Tuned(self.cluster, f"safekeeper-{n}", retention_interval="200ms", wal_keep_min="0",
                                 wal_keep_max=keep_max, peer_check_interval="500ms")
                        for n in range(1, safekeepers + 1)}
        self.main = self.cluster.create_project("retention").main()
        self.main.sql("CREATE TABLE kept (i int PRIMARY KEY, t text)")
        self.rows = 0
        state = http("GET", self.keeper(self.ids()[0]).http_url + "/v1/tenants")["timelines"][0]
        self.path = f"/v1/tenants/{state['tenant']}/timelines/{state['timeline']}"
        self.folder = f"{state['tenant']}/{state['timeline']}/wal"
        self.start_lsn = lsn(state["start_lsn"])

    def keeper(self, number):
        return self.keepers[number]

    def down(self):
        self.cluster.down()
        for process in [self.pageserver, *self.keepers.values()]:
            process.kill()

    def members_path(self):
        return f"/projects/{self.main.project.id}/branches/{self.main.id}/safekeepers"

    def ids(self):
        return [k["id"] for k in self.cluster.api("GET", self.members_path())["safekeepers"]]

    def state(self, number):
        return http("GET", self.keeper(number).http_url + self.path)

    def begin(self, number):
        return lsn(self.state(number)["retention"]["begin_lsn"])

    def work(self, mib):
        """So much WAL, with something in the table for each piece."""
        for _ in range(mib // 4):
            self.main.sql("SELECT length(pg_logical_emit_message(false, 'bulk', repeat('x', 4 << 20))::text)")
            self.main.sql(f"INSERT INTO kept SELECT i, md5(i::text) FROM generate_series({self.rows + 1}, {self.rows + 50}) i")
            self.rows += 50
        self.main.sql("CHECKPOINT")

    def count(self, branch=None):
        return int((branch or self.main).value("SELECT count(*) FROM kept WHERE t = md5(i::text)"))

    def head(self):
        return self.main.value("SELECT pg_current_wal_flush_lsn()")

    def wait_forgotten(self, numbers, upto):
        """The log begins within the last segment before `upto`, on all of these, and the files say so."""
        def is_forgotten(number):
            self.main.sql("SELECT 1")
            begin = self.begin(number)
            oldest = min(f.name for f in (self.keeper(number).folder / self.folder).glob("0*[0-9A-F]"))
            return begin >= upto - 20 * MIB and int(oldest[16:], 16) == begin // (16 * MIB)
        for number in numbers:
            wait_for(f"safekeeper {number} forgets", lambda n=number: is_forgotten(n), 90)

    def agree(self):
        """All members have the same WAL from where the last of them begins."""
        def same():
            states = [self.state(n) for n in self.ids()]
            if len({s["commit_lsn"] for s in states}) > 1:
                return False
            begin = max((s["retention"]["begin_lsn"] for s in states), key=lsn)
            found = {http("GET", f"{self.keeper(n).http_url}{self.path}/digest?from={begin}&to={states[0]['commit_lsn']}")["crc"]
                     for n in self.ids()}
            return len(found) == 1
        wait_for("the members agree", same, 90)

    def pages(self, at):
        return http("GET", f"{self.pageserver.http_url}{self.path}/digest?lsn={at}")["hash"]


def test_retention_disks_shrink_and_everything_goes_on(build):
    rig = Rig(build, safekeepers=4, keep_max="24MB")
    try:
        members = rig.ids()
        rig.work(64)
        early, pages = rig.head(), rig.pages(rig.head())
        rig.wait_forgotten(members, lsn(early))
        used = sum(f.stat().st_blocks * 512 for f in (rig.keeper(members[0]).folder / rig.folder).iterdir())
        assert used < 52 * MIB, f"{used / MIB} MiB of at least 64 are still there" # 20 MiB may touch three segments

        # All at once, and again: what is left is a log of its own.
        for number in members:
            rig.keeper(number).kill()
        for number in members:
            rig.keeper(number).start()
        rig.work(4)
        assert rig.count() == rig.rows

        # Damage in what is kept is put back by the others, whose logs do not begin at the start either.
        number = members[0]
        rig.keeper(number).kill()
        victim = min((rig.keeper(number).folder / rig.folder).glob("0*[0-9A-F]"))
        with open(victim, "r+b") as file:
            file.seek(rig.begin(members[1]) % (16 * MIB) + 100)
            byte = file.read(1)[0]
            file.seek(-1, 1)
            file.write(bytes([byte ^ 0x10]))
        rig.keeper(number).start(ready=False)
        wait_for("it is repaired", lambda: rig.state(number)["storage"] == "ok", 90)
        rig.agree()

        # One is away for longer than the others wait: its log begins anew where theirs begin.
        away = rig.keeper(members[1])
        before = rig.begin(members[2])
        away.kill()
        rig.work(64)
        wait_for("the others forget without it", lambda: rig.begin(members[2]) > before + 24 * MIB, 90)
        away.start()
        rig.work(4)
        rig.agree()
        assert rig.begin(members[1]) >= before + 16 * MIB
        assert rig.count() == rig.rows

        # A member's disk is lost: another one takes its place, and has what nobody has forgotten.
        lost, spare = members[2], next(n for n in rig.keepers if n not in members)
        rig.keeper(lost).kill()
        shutil.rmtree(rig.keeper(lost).folder)
        rig.cluster.api("POST", rig.members_path(), {"remove": [lost], "add": [spare]})
        wait_for("the change ends", lambda: not rig.cluster.api("GET", rig.members_path())["changing"], 120)
        assert spare in rig.ids() and lost not in rig.ids()
        assert rig.begin(spare) > rig.start_lsn
        rig.work(4)
        rig.agree()

        # A branch of the past, and one of now; the pageserver has what the safekeepers have not.
        past = rig.main.project.create_branch("past", parent=rig.main, parent_lsn=early)
        now = rig.main.project.create_branch("now", parent=rig.main)
        assert rig.count(past) < rig.count(now) == rig.rows
        assert rig.pages(early) == pages

        # Its disk is lost, too: the object store and what is left of the WAL are everything.
        newest, pages_now = rig.head(), rig.pages(rig.head())
        pageserver = rig.pageserver
        pageserver.kill()
        shutil.rmtree(pageserver.folder)
        pageserver.start()
        wait_for("it has all of it", lambda: rig.pages(newest) == pages_now, 90)
        assert rig.pages(early) == pages
        rig.main.suspend()
        rig.main.start()
        assert rig.count() == rig.rows
        metrics = http("GET", rig.keeper(members[0]).http_url + "/metrics", raw=True).decode()
        assert "\nsafekeeper_wal_removed_segments_total 0\n" not in metrics
    finally:
        rig.down()


def test_retention_a_pageserver_with_an_old_disk_gives_it_up(build):
    """Its folder is a copy from before; what it lacks is in the object store, and WAL that nobody has any more."""
    rig = Rig(build)
    try:
        rig.work(4)
        rig.main.value("SELECT pg_logical_emit_message(false, 'settle', 'x')")
        disk, copy = rig.pageserver.folder, rig.pageserver.folder.with_suffix(".old")
        rig.pageserver.kill()
        shutil.copytree(disk, copy)
        rig.pageserver.start()
        old_head = rig.head()
        rig.work(64)
        rig.wait_forgotten(rig.ids(), lsn(rig.head()))
        assert all(rig.begin(n) > lsn(old_head) for n in rig.ids())
        rig.main.suspend()
        head = max((rig.state(n)["commit_lsn"] for n in rig.ids()), key=lsn)
        pages = rig.pages(head)

        rig.pageserver.kill()
        shutil.rmtree(disk)
        copy.rename(disk)
        rig.pageserver.start()
        def given_up():
            text = http("GET", rig.pageserver.http_url + "/metrics", raw=True).decode()
            return "\npageserver_disks_given_up_total 1\n" in text
        wait_for("the old disk is given up", given_up, 90)
        wait_for("all of it is back", lambda: rig.pages(head) == pages, 90)
        rig.main.start()
        assert rig.count() == rig.rows
        rig.work(4)
        assert rig.count() == rig.rows
        assert not list((disk / "tenants").glob("*.outdated"))
    finally:
        rig.down()
