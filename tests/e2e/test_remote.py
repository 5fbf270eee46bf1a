"""The object store outlives the pageserver's disk, and an owner that was replaced harms nobody."""
import hashlib
import json
import os
import shutil
import signal
import subprocess

from cluster import http, wait_for


def objects_of(cluster):
    """Name and content of every object of every tenant."""
    folder = cluster.data / "objects"
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in (folder / "tenants").rglob("*") if path.is_file()}


def metric(url, name):
    for line in http("GET", url + "/metrics", raw=True).decode().splitlines():
        if line.startswith(name + " "):
            return float(line.split()[1])
    raise KeyError(name)


def parse_lsn(text):
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


class Tenant:
    """The one tenant of a cluster with one project, as a pageserver's HTTP port shows it."""

    def __init__(self, url):
        self.url = url
        tenants = http("GET", url + "/v1/status")["tenants"]
        self.path = f"/v1/tenants/{tenants[0]['tenant']}"
        self.timeline = f"{self.path}/timelines/{tenants[0]['timelines'][0]['timeline']}"

    def remote(self):
        return http("GET", self.url + self.path + "/remote")

    def wait_uploaded(self, lsn):
        """Everything up to this LSN is in the object store."""
        wait_for("uploaded", lambda: all(parse_lsn(t["remote_lsn"]) >= parse_lsn(lsn)
                                         for t in self.remote()["timelines"]), 90)

    def timelines(self):
        return [f"{self.path}/timelines/{t['timeline']}" for t in http("GET", self.url + self.path)["timelines"]]

    def is_indexed(self, count):
        """The object store knows that there are so many timelines."""
        known = [t for t in self.remote()["timelines"] if parse_lsn(t["remote_lsn"]) > 0]
        return len(known) == count and http("GET", self.url + self.path)["deleted_timelines"] == []

    def digest(self, lsn, url=None):
        return http("GET", f"{url or self.url}{self.timeline}/digest?lsn={lsn}")["hash"]


def flushed_lsn(branch):
    return branch.value("SELECT pg_current_wal_flush_lsn()")


def work(branch, count):
    branch.sql(f"INSERT INTO kept SELECT i, md5(i::text) FROM generate_series(1, {count}) i")
    branch.sql("UPDATE kept SET t = upper(t) WHERE i % 3 = 0")
    branch.sql("VACUUM kept")


def test_an_empty_disk_is_filled_from_the_object_store(fresh_cluster):
    pageserver = fresh_cluster.pageserver
    pageserver.be_impatient()
    project = fresh_cluster.create_project("remote")
    main = project.main()
    main.sql("CREATE TABLE kept (i int, t text)")
    work(main, 20000)
    lsn = flushed_lsn(main)
    tenant = Tenant(pageserver.http_url)
    tenant.wait_uploaded(lsn)
    before = tenant.digest(lsn)
    work(main, 3000) # this is on the safekeepers only, or is being uploaded
    newest = flushed_lsn(main)
    newest_digest = tenant.digest(newest)
    pageserver.wipe()
    wait_for("the tenant is back", lambda: http("GET", pageserver.http_url + tenant.timeline)["state"] == "active", 60)
    assert metric(pageserver.http_url, "pageserver_remote_downloaded_files_total") > 0
    assert metric(pageserver.http_url, "pageserver_imports_total") == 0, "it was restored, not made anew"
    assert tenant.digest(lsn) == before
    assert tenant.digest(newest) == newest_digest
    main.suspend()
    main.start()
    assert main.value("SELECT count(*), count(*) FILTER (WHERE t = upper(t)) FROM kept") == "23000"
    # What goes missing up there is noticed, and uploaded again from the disk.
    wait_for("a round has ended", lambda: tenant.remote()["sequence"] > 0, 60)
    victim = next(path for path in sorted((fresh_cluster.data / "objects/tenants").rglob("*.sst-*")))
    victim.unlink()
    result = wait_for("no round is under way",
                      lambda: http("POST", pageserver.http_url + tenant.path + "/remote/scrub"), 60)
    assert result["dangling"] <= 1 and result["repaired"] == result["dangling"], result
    # What was deleted does not come back with a disk that is lost before the object store knew of the deletion.
    doomed = project.create_branch("doomed", main, endpoint=False)
    work(main, 100)
    wait_for("it is in the object store", lambda: tenant.is_indexed(2), 60)
    pageserver.arm("uploader.before_index=io")
    doomed.delete()
    assert tenant.timelines() == [tenant.timeline]
    pageserver.wipe()
    wait_for("the tenant is back", lambda: tenant.timeline in tenant.timelines(), 60)
    wait_for("the deleted branch has gone again", lambda: tenant.remote()["sequence"] > 0
             and tenant.timelines() == [tenant.timeline], 60)
    wait_for("also in the object store", lambda: tenant.is_indexed(1), 60)
    # Nor with a disk that comes back after another one stood in for it, and the stand-in's work is not undone.
    doomed = project.create_branch("doomed", main, endpoint=False)
    aside = pageserver.folder.with_suffix(".aside")
    pageserver.kill()
    pageserver.folder.rename(aside)
    pageserver.start()
    wait_for("the tenant is back", lambda: len(tenant.timelines()) == 2, 60)
    doomed.delete()
    wait_for("the stand-in is the owner", lambda: tenant.is_indexed(1), 60)
    pageserver.kill()
    shutil.rmtree(pageserver.folder)
    aside.rename(pageserver.folder)
    current, = (pageserver.folder / "tenants").glob("*/CURRENT") # it cannot be opened at first
    whole = current.read_bytes()
    current.write_bytes(b"MANIFEST-999999\n")
    pageserver.start(ready=False)
    assert not http("GET", pageserver.http_url + "/v1/status")["tenants"]
    current.write_bytes(whole)
    wait_for("its successor's index is taken", lambda: metric(
        pageserver.http_url, "pageserver_disks_given_up_total") == 1, 60)
    wait_for("it uploads again, without the deleted branch",
             lambda: tenant.is_indexed(1) and tenant.timelines() == [tenant.timeline], 60)
    assert tenant.digest(newest) == newest_digest
    # A deleted project leaves nothing, also when the disk is lost before its objects are gone.
    pageserver.arm("doomed_tenants.erase=io")
    fresh_cluster.api("DELETE", f"/projects/{project.id}")
    wait_for("it is deleted", lambda: not http("GET", pageserver.http_url + "/v1/status")["tenants"], 30)
    assert objects_of(fresh_cluster)
    pageserver.wipe()
    wait_for("its objects are gone", lambda: not objects_of(fresh_cluster), 60)
    wait_for("its folder is gone", lambda: not list((pageserver.folder / "tenants").iterdir()), 60)


def start_second_pageserver(cluster, folder):
    """Another process with a disk of its own and the same object store; not known to `anabranch local`."""
    first = cluster.pageserver
    settings = [f"--data_dir={folder}", "--http_port=0", "--listen_port=0", "--node_id=1",
                f"--object_store=dir:{cluster.data}/objects", f"--control_url={cluster.control.http_url}"]
    with open(cluster.folder / "second.log", "w") as log:
        process = subprocess.Popen([first.row["binary"], *settings], stderr=log)
    ports = wait_for("the second pageserver listens", lambda: json.loads((folder / "ports.json").read_text()), 30)
    return process, ports


def restart_control_with(cluster, pageserver):
    control = cluster.control
    control.kill()
    with open(cluster.folder / "control-2.log", "w") as log:
        process = subprocess.Popen(
            [control.row["binary"], "--config", control.row["conf"], f"--pageservers={pageserver}"], stderr=log)
    wait_for("control is ready", control.ready, 30)
    return process


def test_an_owner_that_was_replaced_while_it_slept_harms_nothing(fresh_cluster):
    cluster = fresh_cluster
    main = cluster.create_project("zombie").main()
    main.sql("CREATE TABLE kept (i int, t text)")
    work(main, 20000)
    lsn = flushed_lsn(main)
    old = cluster.pageserver
    tenant = Tenant(old.http_url)
    tenant.wait_uploaded(lsn)
    digest = tenant.digest(lsn)
    old.kill(signal.SIGSTOP)
    processes = []
    try:
        second, ports = start_second_pageserver(cluster, cluster.folder / "second")
        processes.append(second)
        url = f"http://127.0.0.1:{ports['http_port']}"
        # Control finds another disk where pageserver 1 was: a new generation, and this process gets it.
        processes.append(restart_control_with(
            cluster, f"1@127.0.0.1:{ports['listen_port']}/{ports['http_port']}"))
        wait_for("the successor has the tenant", lambda: http("GET", url + tenant.timeline)["state"] == "active", 60)
        assert http("GET", url + tenant.path)["generation"] == 2
        assert metric(url, "pageserver_remote_downloaded_files_total") > 0
        assert tenant.digest(lsn, url) == digest
        seen = objects_of(cluster)
        old.kill(signal.SIGCONT)
        # The sleeper ingests, flushes and uploads on; what it wants to delete, control refuses.
        work(main, 20000)
        newest = flushed_lsn(main)
        new_digest = tenant.digest(newest, url)
        wait_for("the successor has uploaded", lambda: all(
            parse_lsn(t["remote_lsn"]) >= parse_lsn(newest)
            for t in http("GET", url + tenant.path + "/remote")["timelines"]), 90)
        wait_for("the sleeper has uploaded, or knows that it may not", lambda: tenant.remote()["error"] or all(
            parse_lsn(t["remote_lsn"]) >= parse_lsn(newest) for t in tenant.remote()["timelines"]), 90)
        assert tenant.digest(newest) == new_digest # a prefix of the same history, at the same LSN
        now = objects_of(cluster)
        assert not {name for name in seen if name in now and now[name] != seen[name]}, "an object was overwritten"
        second.kill()
        second.wait()
        shutil.rmtree(cluster.folder / "second")
        second, ports = start_second_pageserver(cluster, cluster.folder / "second")
        processes.append(second)
        url = f"http://127.0.0.1:{ports['http_port']}"
        http("PUT", url + tenant.path, {"generation": 3}) # a third owner finds everything
        assert metric(url, "pageserver_remote_downloaded_files_total") > 0
        assert tenant.digest(newest, url) == new_digest
    finally:
        if old.alive():
            os.kill(old.pid, signal.SIGCONT)
        for process in processes:
            process.kill()
            process.wait()
