"""A cluster whose objects are in S3, with a network in between that is not always kind."""
import contextlib
import os
import pathlib
import shutil
import signal
import threading

import fault_http as fault
from cluster import ApiError, Cluster, http, wait_for
from s3_server import SECRET_KEY, S3Server
from test_remote import Tenant, flushed_lsn, metric, work

KEY = "Secret/" + SECRET_KEY # something that occurs nowhere by chance


@contextlib.contextmanager
def environment(values):
    old = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(old)


def files_with(folder, text):
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


@contextlib.contextmanager
def cluster_in_s3(build, **settings):
    """-> cluster, server, proxy between them"""
    with S3Server(secret_key=KEY) as server, fault.FaultProxy(server.port) as proxy:
        server.must("PUT", "/bucket")
        url = server.url("bucket/cluster", endpoint=proxy.endpoint, backoff_ms="10", **settings)
        with environment(server.environment()):
            cluster = Cluster(build, object_store=url)
            try:
                yield cluster, server, proxy
            finally:
                cluster.down()


def test_cluster_with_its_objects_in_s3(build):
    with cluster_in_s3(build) as (cluster, server, proxy):
        # The first put of the image is lost, the first download damaged, and each is met by a busy server.
        proxy.add(fault.answer(503), "PUT", "/bootstrap/", 1)
        proxy.add(fault.lose_answer, "PUT", "/bootstrap/", 1)
        proxy.add(fault.answer(500), "GET", "/bootstrap/", 1)
        proxy.add(fault.damage_answer, "GET", "/bootstrap/", 1)
        cluster.up()
        main = cluster.create_project("s3").main()
        main.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) n")
        assert proxy.unused() == 0
        _, listing = server.must("GET", "/bucket", {"list-type": "2", "prefix": "cluster/bootstrap/"})
        assert listing.count(b"<Key>") == 1, listing
        assert not list((cluster.data / "objects").rglob("*.tar"))
        assert main.value("SELECT sum(n) FROM t") == "500500"
        assert files_with(cluster.data / "conf", KEY) == [] and files_with(cluster.data / "logs", KEY) == []
        for process in cluster.rows():
            assert KEY.encode() not in pathlib.Path(f"/proc/{process['pid']}/cmdline").read_bytes()


def test_an_empty_disk_is_filled_from_s3(build):
    """What test_remote shows with a folder, over a network that loses, cuts and damages."""
    with cluster_in_s3(build) as (cluster, _, proxy):
        cluster.up()
        for action in (fault.answer(503), fault.cut_request, fault.lose_answer, fault.damage_request):
            proxy.add(action, "PUT", "/data/", 1)
            proxy.add(action, "PUT", "/index/", 1)
        main = cluster.create_project("s3").main()
        main.sql("CREATE TABLE kept (i int, t text)")
        work(main, 20000)
        lsn = flushed_lsn(main)
        pageserver = cluster.pageserver
        tenant = Tenant(pageserver.http_url)
        tenant.wait_uploaded(lsn)
        before = tenant.digest(lsn)
        work(main, 3000) # this is on the safekeepers only, or is being uploaded
        newest = flushed_lsn(main)
        newest_digest = tenant.digest(newest)
        pageserver.kill()
        assert proxy.unused() == 0
        shutil.rmtree(pageserver.folder)
        for action in (fault.answer(500), fault.cut_answer, fault.damage_answer, fault.shorten_answer):
            proxy.add(action, "GET", "/data/", 1)
            proxy.add(action, "GET", "/index/", 1)
        pageserver.start()
        wait_for("the tenant is back",
                 lambda: http("GET", pageserver.http_url + tenant.timeline)["state"] == "active", 90)
        assert proxy.unused() == 0
        assert metric(pageserver.http_url, "pageserver_remote_downloaded_files_total") > 0
        assert metric(pageserver.http_url, "pageserver_imports_total") == 0, "it was restored, not made anew"
        assert tenant.digest(lsn) == before
        assert tenant.digest(newest) == newest_digest
        main.suspend()
        main.start()
        assert main.value("SELECT count(*), count(*) FILTER (WHERE t = upper(t)) FROM kept") == "23000"


def test_nobody_who_stops_waits_for_a_silent_store(build):
    """They would wait for half an hour here, were they not ended after half a minute, which their log says."""
    with cluster_in_s3(build, deadline_ms="30min", stall_timeout_ms="30min") as (cluster, _, proxy):
        cluster.up()
        log = pathlib.Path(cluster.control.row["log"])
        wait_for("control's first image is made: one at a time", lambda: "bootstrap image" in log.read_text())

        def stop_while_it_waits(victim, method, ask):
            reached = threading.Event()

            def hold(exchange):
                reached.set()
                exchange.wait_for_hangup()

            def ask_in_vain():
                with contextlib.suppress(ApiError, OSError):
                    ask()
            proxy.add(hold, method, "/bootstrap/")
            asking = threading.Thread(target=ask_in_vain)
            asking.start()
            assert reached.wait(60), (method, proxy.seen)
            victim.kill(signal.SIGTERM)
            assert "did not stop within" not in pathlib.Path(victim.row["log"]).read_text()
            proxy.clear()
            asking.join(60)
            victim.start()
        stop_while_it_waits(cluster.agent, "PUT", lambda: http(
            "POST", cluster.agent.http_url + "/v1/bootstrap_images", {"locale": "C"})) # made anew: another locale
        stop_while_it_waits(cluster.pageserver, "GET", lambda: cluster.api(
            "POST", "/projects", {"project": {"name": "silent"}}))
