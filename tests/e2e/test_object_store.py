"""A cluster whose objects are in S3, with a network in between that is not always kind."""
import contextlib
import os
import pathlib

import fault_http as fault
from cluster import Cluster
from s3_server import SECRET_KEY, S3Server

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


def test_cluster_with_its_objects_in_s3(build):
    with S3Server(secret_key=KEY) as server, fault.FaultProxy(server.port) as proxy:
        server.must("PUT", "/bucket")
        url = server.url("bucket/cluster", endpoint=proxy.endpoint, backoff_ms="10")
        with environment(server.environment()):
            # The first put of the image is lost, the first download damaged, and each is met by a busy server.
            proxy.add(fault.answer(503), "PUT", "/bootstrap/", 1)
            proxy.add(fault.lose_answer, "PUT", "/bootstrap/", 1)
            proxy.add(fault.answer(500), "GET", "/bootstrap/", 1)
            proxy.add(fault.damage_answer, "GET", "/bootstrap/", 1)
            cluster = Cluster(build, object_store=url)
            try:
                cluster.up()
                check(cluster, server)
                assert proxy.unused() == 0
            finally:
                cluster.down()


def check(cluster, server):
    main = cluster.create_project("s3").main()
    main.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) n")
    _, listing = server.must("GET", "/bucket", {"list-type": "2", "prefix": "cluster/bootstrap/"})
    assert listing.count(b"<Key>") == 1, listing
    assert not list((cluster.data / "objects").rglob("*.tar"))
    cluster.pageserver.kill()
    cluster.pageserver.start()
    main.suspend()
    main.start()
    assert main.value("SELECT sum(n) FROM t") == "500500"
    other = cluster.create_project("s3 again").main()
    assert other.value("SELECT 1") == "1"
    assert files_with(cluster.data / "conf", KEY) == [] and files_with(cluster.data / "logs", KEY) == []
    for process in cluster.rows():
        assert KEY.encode() not in pathlib.Path(f"/proc/{process['pid']}/cmdline").read_bytes()
