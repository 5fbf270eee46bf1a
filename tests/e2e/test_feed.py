"""WAL to the pageserver: few connections whatever the number of branches, and another safekeeper when one does not bring it."""
import os
import pathlib
import re
import signal
from concurrent.futures import ThreadPoolExecutor

from cluster import http, wait_for


def metric(process, name):
    text = http("GET", process.http_url + "/metrics", raw=True).decode()
    return int(re.search(rf"^{name} (-?\d+)$", text, re.M).group(1))


def connections_to_safekeepers(cluster):
    """Established TCP connections of the pageserver to the framed ports of safekeepers. The kernel's list may lack one
    when others come and go meanwhile.
    """
    ports = {int(s.row["listen"].rsplit(":", 1)[1]) for s in cluster.safekeepers}
    own = set()
    for entry in pathlib.Path(f"/proc/{cluster.pageserver.pid}/fd").iterdir():
        try:
            own.add(os.readlink(entry))
        except FileNotFoundError:
            pass
    count = 0
    for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        remote_port, state, inode = int(fields[2].split(":")[1], 16), fields[3], fields[9]
        count += remote_port in ports and state == "01" and f"socket:[{inode}]" in own
    return count


def threads_of(process):
    return len(os.listdir(f"/proc/{process.pid}/task"))


def files_of(process):
    return len(os.listdir(f"/proc/{process.pid}/fd"))


class Timeline:
    """The only one of the cluster's only project."""

    def __init__(self, cluster):
        self.cluster = cluster
        tenant = http("GET", cluster.pageserver.http_url + "/v1/status")["tenants"][0]
        self.tenant, self.id = tenant["tenant"], tenant["timelines"][0]["timeline"]
        self.path = f"/v1/tenants/{self.tenant}/timelines/"

    def get(self, ident=None):
        return http("GET", self.cluster.pageserver.http_url + self.path + (ident or self.id))

    def feed(self):
        return self.get()["feed"]

    def feeding(self):
        """The safekeeper that feeds the pageserver right now; None: none does."""
        found = re.fullmatch(r"sk (\d+)", self.feed())
        return found and next(s for s in self.cluster.safekeepers if s.name.endswith(found.group(1)))


def caught_up(main, timeline):
    """What is committed by now has come to the pageserver."""
    lsn = main.value("SELECT pg_current_wal_flush_lsn()")
    high, low = (int(part, 16) for part in lsn.split("/"))

    def arrived():
        got = timeline.get()["last_record_lsn"].split("/")
        return (int(got[0], 16), int(got[1], 16)) >= (high, low)
    wait_for(f"the pageserver has {lsn}", arrived, 60)


def test_idle_branches_share_a_connection_and_cost_no_thread(fresh_cluster):
    main = fresh_cluster.create_project("many").main()
    main.sql("CREATE TABLE filled AS SELECT generate_series(1, 1000) AS n")
    timeline = Timeline(fresh_cluster)
    caught_up(main, timeline)
    pageserver, keepers = fresh_cluster.pageserver, fresh_cluster.safekeepers
    template = http("GET", keepers[0].http_url + timeline.path + timeline.id)
    row = timeline.get()
    members = template["membership"]["members"]
    pages = {"generation": row["generation"], "pg_version": template["pg_version"], "system_id": template["system_id"],
             "membership_generation": row["membership_generation"], "parent": timeline.id, "branch_lsn": row["start_lsn"],
             "safekeepers": [{"id": m["id"], "host": m["host"], "port": m["port"]} for m in members]}
    wal = {name: template[name] for name in ("membership", "pg_version", "system_id", "segment_size")}
    wal["start_lsn"] = row["start_lsn"]
    count = 1000

    def create(n):
        path = timeline.path + f"{0xFEED0000 + n:032x}"
        http("PUT", pageserver.http_url + path, pages)
        for keeper in keepers:
            http("PUT", keeper.http_url + path, wal)
    create(0)
    threads, files = threads_of(pageserver), files_of(pageserver)
    keeper_files = [files_of(s) for s in keepers]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(create, range(1, count)))
    for keeper in keepers:
        wait_for("all are watched", lambda k=keeper: metric(k, "safekeeper_watches") > count)
    assert metric(pageserver, "pageserver_feed_watches") > count
    wait_for("a connection to each", lambda: connections_to_safekeepers(fresh_cluster) == len(keepers))
    assert threads_of(pageserver) <= threads
    for keeper, before in zip(keepers, keeper_files):
        wait_for("files of what was created are closed", lambda k=keeper, b=before: files_of(k) <= b + 8, 30)
    assert files_of(pageserver) <= files + 8

    # The one that is written to gets its WAL among all the others, over the same connections.
    main.sql("INSERT INTO filled SELECT generate_series(1, 20000)")
    caught_up(main, timeline)
    assert metric(pageserver, "pageserver_wal_receivers") <= 1
    wait_for("a connection to each", lambda: connections_to_safekeepers(fresh_cluster) == len(keepers))

    # A restarted pageserver asks for all of them again.
    pageserver.kill()
    pageserver.start()
    main.sql("INSERT INTO filled SELECT generate_series(1, 1000)")
    caught_up(main, timeline)
    for keeper in keepers:
        wait_for("all are watched", lambda k=keeper: metric(k, "safekeeper_watches") > count)
    wait_for("a connection to each", lambda: connections_to_safekeepers(fresh_cluster) == len(keepers))
    last = timeline.get(f"{0xFEED0000 + count - 1:032x}")
    assert last["feed"] == "idle", last


def test_idle_timeline_wakes_up(fresh_cluster):
    main = fresh_cluster.create_project("sleeper").main()
    main.sql("CREATE TABLE woken (n int)")
    timeline = Timeline(fresh_cluster)
    main.suspend()
    wait_for("it is idle", lambda: timeline.feed() == "idle")
    assert metric(fresh_cluster.pageserver, "pageserver_wal_receivers") == 0
    for keeper in fresh_cluster.safekeepers:
        wait_for("no feed", lambda k=keeper: metric(k, "safekeeper_feeds") == 0)
    main.start()
    main.sql("INSERT INTO woken VALUES (1)")
    caught_up(main, timeline)
    assert re.fullmatch(r"sk \d", timeline.feed()), timeline.feed()
    main.suspend()
    main.start() # reads everything from the pageserver
    assert main.sql("SELECT n FROM woken") == [("1",)]


def feed_moves(cluster, break_it, mend_it):
    main = cluster.create_project("moved").main()
    timeline = Timeline(cluster)
    with main.connect() as db:
        db.query("CREATE TABLE fed (n int)")

        def fed():
            db.query("INSERT INTO fed SELECT generate_series(1, 100)")
            return timeline.feeding()
        first = wait_for("it is fed", fed)
        break_it(first)
        try:
            for _ in range(20):
                db.query("INSERT INTO fed SELECT generate_series(1, 100)")
            caught_up(main, timeline)
            second = wait_for("another one feeds", lambda: (f := fed()) and f.name != first.name and f)
        finally:
            mend_it(first)
        break_it(second) # the first is back, and has what it missed or not: the third has it
        try:
            for _ in range(20):
                db.query("INSERT INTO fed SELECT generate_series(1, 100)")
            caught_up(main, timeline)
        finally:
            mend_it(second)
    return second


def test_feed_moves_when_its_safekeeper_is_killed(fresh_cluster):
    feed_moves(fresh_cluster, lambda keeper: keeper.kill(), lambda keeper: keeper.start())


def test_feed_moves_when_its_safekeeper_falls_silent(fresh_cluster):
    """Stopped, not dead: its connections stay open, and nothing comes."""
    feed_moves(fresh_cluster, lambda keeper: keeper.kill(signal.SIGSTOP), lambda keeper: keeper.kill(signal.SIGCONT))
    wait_for("all are connected again", lambda: metric(fresh_cluster.pageserver, "pageserver_safekeepers") == 3)
    wait_for("a connection to each", lambda: connections_to_safekeepers(fresh_cluster) == 3)
