"""Control and gateway: branches made, listed and deleted by REST, computes woken by a connection, what a gateway costs.

CONTROL_PARTS names the parts (create deletes wake gateway list: all), CONTROL_ROUNDS (30) is how often a compute is started or
woken, CONTROL_SECONDS (10) how long a run of pgbench lasts, CONTROL_BRANCHES (10000) how many are listed. Waking and
starting are timed from the first byte of libpq until SELECT 1 has answered through the gateway, in turns with the same
Postgres started stock. The gateway is compared with the compute's own port and with Debian's PgBouncer (session pooling),
each with TLS to the client and without, in turns; PgBouncer is installed when it is missing.
"""
import concurrent.futures
import contextlib
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.parse

import pq
from cluster import Cluster, http as call, wait_for
from parts import bouncer, stock
from parts.compute_start import go_along, percentile, start_stock
from smoke import fdatasync_ms

ROUNDS = int(os.environ.get("CONTROL_ROUNDS", "30"))
SECONDS = os.environ.get("CONTROL_SECONDS", "10")
BRANCHES = int(os.environ.get("CONTROL_BRANCHES", "10000"))
PER_PAGE = 1000
TABLE = "CREATE TABLE item (i int PRIMARY KEY, name text)"
ROWS = "INSERT INTO item SELECT i, 'name ' || i AS name FROM generate_series(1, 10000) i"


@contextlib.contextmanager
def cluster_behind_gateway(build):
    """Connection URIs lead through the gateway."""
    cluster = Cluster(build, local_cache_mb=1024)
    try:
        cluster.cli("local", "up", "--binaries", str(cluster.build), "--postgres", str(cluster.postgres),
                    "--gateway", "127.0.0.1", "--local-cache-mb", "1024")
        go_along(cluster)
        yield cluster
    finally:
        cluster.down()


def timed(work):
    begin = time.perf_counter()
    result = work()
    return (time.perf_counter() - begin) * 1000, result


def until_selected(uri):
    with pq.connect(uri, timeout_s=60) as db:
        db.value("SELECT 1")


def processor_ms(pid):
    """CPU of all threads of a process so far."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def stock_server(cluster):
    primary = stock.Primary(cluster.postgres, cluster.run_as)
    try:
        primary.start()
        primary.tool("pg_ctl", "-D", primary.data, "-m", "fast", "stop")
        yield primary
    finally:
        primary.remove()


# ---- branches ----

def create(cluster, project, main, emit):
    times, syncs = [], []
    for number in range(100):
        times.append(timed(lambda: project.create_branch(f"bare-{number}", main, endpoint=False, wait=False))[0]) # noqa: B023
        syncs += fdatasync_ms(str(cluster.folder), 5)
    value, sync = percentile(times, 0.99), percentile(syncs, 0.99)
    emit("branch_create_p99", value, "ms", "p99 of one fdatasync, ms", sync, value / (20 + 2 * sync),
         "<= 20 ms + 2 fdatasync p99", value <= 20 + 2 * sync)
    ours, peer = [], []
    with stock_server(cluster) as primary:
        for number in range(ROUNDS):
            def branch_with_compute():
                branch = project.create_branch(f"computing-{number}", main, wait=False) # noqa: B023
                until_selected(branch.answer["connection_uris"][0]["connection_uri"])
                return branch
            took, branch = timed(branch_with_compute)
            ours.append(took)
            branch.delete()
            peer.append(start_stock(primary))
    p50, base = statistics.median(ours), statistics.median(peer)
    emit("branch_with_compute_p50", p50, "ms", "stock start, ms", base, p50 / base, "<= 300 ms", p50 <= 300)
    emit("branch_with_compute_p99", percentile(ours, 0.99), "ms", "stock start, ms", percentile(peer, 0.99),
         percentile(ours, 0.99) / percentile(peer, 0.99), "none", True)


def deletes(_cluster, project, main, emit):
    """30 branches, all asked for at once, until the last operation has ended; one alone beside it."""
    one = []
    for number in range(3):
        branch = project.create_branch(f"alone-{number}", main, endpoint=False)
        one.append(timed(branch.delete)[0])
    branches = [project.create_branch(f"many-{number}", main, endpoint=False) for number in range(30)]

    def delete_all():
        for branch in branches:
            branch.gone = project.api("DELETE", f"/branches/{branch.id}")
        for branch in branches:
            project.wait_operations(branch.gone)
    took, alone = timed(delete_all)[0], statistics.median(one)
    emit("delete_30_branches", took, "ms", "one alone, ms", alone, took / alone, "none", True)


# ---- waking ----

def wake(cluster, _project, main, emit):
    uri, ours, peer, laps = main.uri(), [], [], []
    with stock_server(cluster) as primary:
        for _ in range(ROUNDS):
            main.suspend()
            ours.append(timed(lambda: until_selected(uri))[0])
            laps.append(main.compute()["started_ms"]["total"])
            peer.append(start_stock(primary))
    p50, base = statistics.median(ours), statistics.median(peer)
    emit("wake_on_connect_p50", p50, "ms", "stock start, ms", base, p50 / base, "<= 250 ms", p50 <= 250)
    emit("wake_on_connect_p99", percentile(ours, 0.99), "ms", "stock start, ms", percentile(peer, 0.99),
         percentile(ours, 0.99) / percentile(peer, 0.99), "none", True)
    emit("wake_outside_the_agent_p50", statistics.median(a - b for a, b in zip(ours, laps)), "ms", "the agent's start, ms",
         statistics.median(laps), p50 / statistics.median(laps), "none", True)


# ---- the gateway ----

@contextlib.contextmanager
def plain_gateway(cluster):
    """A second gateway, which lets clients choose whether they want TLS. Yields (process, port)."""
    folder = cluster.folder / "gateway2"
    process = subprocess.Popen(
        [str(cluster.build / "control/gateway/gateway"), f"--data_dir={folder}", "--http_port=0", "--listen_port=0",
         f"--control_url={cluster.control.http_url}", "--tls_required=false"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        ports = wait_for("the second gateway", lambda: json.loads((folder / "ports.json").read_text()))
        yield process, ports["listen_port"]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def with_tls(uri, wanted):
    """The URI without channel binding, so that both sides log in alike, with TLS or without."""
    parts = urllib.parse.urlsplit(uri)
    query = [(key, value) for key, value in urllib.parse.parse_qsl(parts.query) if key not in ("sslmode", "channel_binding")]
    query.append(("sslmode", "require" if wanted else "disable"))
    return urllib.parse.urlunsplit(parts._replace(query=urllib.parse.urlencode(query, quote_via=urllib.parse.quote)))


class Load:
    def __init__(self, cluster, folder):
        self.cluster, self.folder = cluster, folder
        (folder / "select.sql").write_text("\\set i random(1, 10000)\nSELECT name FROM item WHERE i = :i;\n")

    def median_us(self, uri):
        """Of one client's queries, each as it was logged."""
        for old in self.folder.glob("log.*"):
            old.unlink()
        subprocess.run([str(self.cluster.postgres / "bin/pgbench"), "-n", "-c", "1", "-T", "3", "-M", "prepared", "-f", "select.sql",
                        "-l", "--log-prefix=log", uri], cwd=self.folder, check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        lines = [line for path in self.folder.glob("log.*") for line in path.read_text().splitlines()]
        return statistics.median(int(line.split()[2]) for line in lines)

    def rate(self, uri, clients, pid=None):
        """(queries/s, CPU of `pid` in us a query)"""
        before = processor_ms(pid) if pid else 0
        output = stock.pgbench(self.cluster.postgres, uri, "-n", "-c", str(clients), "-j", "2", "-T", SECONDS, "-M", "prepared",
                               "-f", str(self.folder / "select.sql"))
        count = int(output.split("number of transactions actually processed: ")[1].split()[0].split("/")[0])
        return stock.tps(output), ((processor_ms(pid) - before) * 1000 / count if pid else 0)


def added_latency(load, direct, ours, peer, label, emit):
    rounds = {"direct": [], "ours": [], "peer": []}
    for _ in range(5):
        for name, uri in (("direct", direct), ("ours", ours), ("peer", peer)):
            rounds[name].append(load.median_us(uri))
    added = statistics.median(a - b for a, b in zip(rounds["ours"], rounds["direct"]))
    other = statistics.median(a - b for a, b in zip(rounds["peer"], rounds["direct"]))
    emit(f"gateway_adds_p50{label}", added, "us", "PgBouncer adds, us", other, added / max(other, 1), "<= 60 us", added <= 60)
    emit(f"gateway_select_p50{label}", statistics.median(rounds["ours"]), "us", "the compute's own port without TLS, us",
         statistics.median(rounds["direct"]), statistics.median(rounds["ours"]) / statistics.median(rounds["direct"]), "none", True)


def throughput(load, ours, ours_pid, peer, label, emit):
    for clients in (8, 64):
        mine, theirs = [], []
        for number in range(4): # each goes first as often as the other
            turns = [(mine, ours, ours_pid), (theirs, peer.uri_tls if label else peer.uri_plain, peer.process.pid)]
            for into, uri, pid in turns if number % 2 == 0 else reversed(turns):
                into.append(load.rate(uri, clients, pid))
        value, other = (statistics.median(rate for rate, _ in each) for each in (mine, theirs))
        emit(f"gateway_rate_c{clients}{label}", value, "1/s", "PgBouncer, 1/s", other, value / other, ">= PgBouncer",
             value >= other)
        cpu, other = (statistics.median(cpu for _, cpu in each) for each in (mine, theirs))
        emit(f"gateway_cpu_c{clients}{label}", cpu, "us/query", "PgBouncer, us/query", other, cpu / max(other, 0.001), "none", True)


def gateway(cluster, project, main, emit):
    # PgBouncer keeps its connections to the server when its clients have gone
    project.api("PATCH", f"/endpoints/{main.endpoint()['id']}", {"endpoint": {"settings": {"pg_settings": {"max_connections": "400"}}}})
    main.suspend()
    main.sql("SELECT count(*) FROM item")
    parts = urllib.parse.urlsplit(main.uri())
    folder = pathlib.Path(tempfile.mkdtemp(prefix="anabranch-control-"))
    server_port = main.compute()["port"]
    direct = f"postgresql://{parts.username}:{parts.password}@127.0.0.1:{server_port}{parts.path}?sslmode=disable"
    load = Load(cluster, folder)
    try:
        with plain_gateway(cluster) as (process, port), bouncer.running(
                cluster.run_as, server_port, parts.username, parts.password, parts.path[1:]) as peer:
            ours = main.uri().replace(f":{parts.port}/", f":{port}/")
            peer.uri_plain, peer.uri_tls = with_tls(peer.uri, False), with_tls(peer.uri, True)
            for label, tls in (("", False), ("_tls", True)):
                added_latency(load, direct, with_tls(ours, tls), peer.uri_tls if tls else peer.uri_plain, label, emit)
                throughput(load, with_tls(ours, tls), process.pid, peer, label, emit)
    finally:
        shutil.rmtree(folder)


# ---- the list ----

@contextlib.contextmanager
def plain_server(size):
    """As many bytes over HTTP from a server that does nothing else: what loopback and a client in Python take."""
    listener = socket.create_server(("127.0.0.1", 0))
    body = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size + b" " * size

    def serve():
        with contextlib.suppress(OSError):
            while True:
                conn = listener.accept()[0]
                conn.recv(65536)
                conn.sendall(body)
                conn.close()
    threading.Thread(target=serve, daemon=True).start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    listener.close()


def list_in_pages(project):
    """As a client that wants pages: one connection, `cursor` until there is no next one."""
    host = urllib.parse.urlsplit(project.cluster.control.http_url)
    conn = http.client.HTTPConnection(host.hostname, host.port)
    cursor, count, first = "", 0, 0.0
    begin = time.perf_counter()
    while True:
        conn.request("GET", f"/api/v2/projects/{project.id}/branches?limit={PER_PAGE}" + (f"&cursor={cursor}" if cursor else ""))
        page = json.loads(conn.getresponse().read())
        count += len(page["branches"])
        first = first or (time.perf_counter() - begin) * 1000
        cursor = page.get("pagination", {}).get("next", "")
        if not cursor:
            conn.close()
            return count, first


def list_branches(cluster, project, main, emit):
    have = len(project.branches())
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: project.create_branch(f"listed-{n}", main, endpoint=False, wait=False), range(BRANCHES - have)))
    wait_for("all are ready", lambda: all(b["current_state"] == "ready" for b in project.branches()), 600, 2)
    url, pid = f"{cluster.control.http_url}/api/v2/projects/{project.id}/branches", cluster.control.pid
    whole, pages, first, plain, cpu = [], [], [], [], []
    body = call("GET", url, raw=True)
    with plain_server(len(body)) as other:
        for _ in range(9):
            before = processor_ms(pid)
            whole.append(timed(lambda: call("GET", url, raw=True))[0])
            cpu.append(processor_ms(pid) - before)
            plain.append(timed(lambda: call("GET", other, raw=True))[0])
            took, (count, first_ms) = timed(lambda: list_in_pages(project))
            pages.append(took)
            first.append(first_ms)
            assert count == len(json.loads(body)["branches"]) >= BRANCHES, count
    value, base = statistics.median(whole), statistics.median(plain)
    emit(f"list_{BRANCHES}_branches", value, "ms", f"{len(body)} bytes from a server that only sends them, ms", base, value / base,
         "<= 200 ms", value <= 200)
    emit(f"list_{BRANCHES}_branches_cpu", statistics.median(cpu), "ms of control", "the whole, ms", value,
         statistics.median(cpu) / value, "none", True)
    emit(f"list_{BRANCHES}_branches_in_pages", statistics.median(pages), "ms", f"the first page of {PER_PAGE}, ms",
         statistics.median(first), statistics.median(pages) / statistics.median(first), "none", True)


PARTS = {"create": create, "deletes": deletes, "wake": wake, "gateway": gateway, "list": list_branches}


def run(build, emit):
    with cluster_behind_gateway(build) as cluster:
        project = cluster.create_project("control")
        main = project.main()
        main.sql(TABLE)
        main.sql(ROWS)
        for name in os.environ.get("CONTROL_PARTS", ",".join(PARTS)).split(","):
            PARTS[name](cluster, project, main, emit)
