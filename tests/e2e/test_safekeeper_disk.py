"""What one safekeeper's disk does under load: every acknowledged commit is found, no node lies, what can comes back."""
import os
import shutil
import subprocess

from cluster import http, wait_for
from test_failures import Ledger


def lsn(text):
    high, low = text.split("/")
    return (int(high, 16) << 32) + int(low, 16)


def timelines(safekeeper):
    return {r["timeline"]: r for r in http("GET", safekeeper.http_url + "/v1/tenants")["timelines"]}


def load(cluster, name, seed):
    """A project with writers; its branch, the ledger, and its timeline as the first safekeeper has it."""
    before = timelines(cluster.safekeepers[0])
    main = cluster.create_project(name).main()
    uri = main.uri()
    ledger = Ledger(lambda: uri, 3, seed)
    ledger.create(main.connect)
    ledger.start()
    commits(ledger, 60)
    row = next(r for ident, r in timelines(cluster.safekeepers[0]).items() if ident not in before)
    return main, ledger, row, f"/v1/tenants/{row['tenant']}/timelines/{row['timeline']}"


def commits(ledger, more, timeout_s=120):
    before = ledger.count("ok")
    wait_for(f"{more} more commits", lambda: ledger.count("ok") > before + more, timeout_s)


def storage(safekeeper, path):
    return http("GET", safekeeper.http_url + path).get("storage", "")


def flip(file, at):
    with open(file, "r+b") as f:
        f.seek(at)
        byte = f.read(1)[0]
        f.seek(at)
        f.write(bytes([byte ^ 0x10]))


def fill(file):
    """To the last block."""
    fd = os.open(file, os.O_WRONLY | os.O_CREAT)
    try:
        while True:
            os.write(fd, bytes(4096))
    except OSError:
        os.close(fd)


def judge(main, ledger, safekeepers, path):
    assert ledger.stop() == 0
    with main.connect() as db:
        assert ledger.judge(db) == []
    def agree():
        states = [http("GET", s.http_url + path) for s in safekeepers]
        commit = min((s["commit_lsn"] for s in states), key=lsn)
        begin = max((s["retention"]["begin_lsn"] for s in states), key=lsn)
        digest = f"{path}/digest?from={begin}&to={commit}"
        return len({http("GET", s.http_url + digest)["crc"] for s in safekeepers}) == 1
    assert agree()


def test_safekeeper_with_damaged_wal_comes_back_by_itself(cluster):
    main, ledger, row, path = load(cluster, "rot", 21)
    first, second, third = cluster.safekeepers
    commits(ledger, 60)
    first.kill()
    wal = first.folder / row["tenant"] / row["timeline"] / "wal"
    start = lsn(row["start_lsn"])
    flip(min(wal.glob("0*[0-9A-F]")), start % row["segment_size"] + 200)
    first.start(ready=False)
    wait_for("the damaged one is repaired", lambda: storage(first, path) == "ok")
    first.kill()
    flip(min(wal.glob("*.crc")), 3 * 64 + 20) # what its bytes must be nobody can tell any more: it gets a new log
    first.start(ready=False)
    wait_for("its log is replaced", lambda: storage(first, path) == "ok")
    metrics = http("GET", first.http_url + "/metrics", raw=True).decode()
    assert "\nsafekeeper_wal_rebuilds_total 1\n" in metrics, [m for m in metrics.splitlines() if "rebuil" in m]
    second.kill() # now the one that was repaired is needed for every commit
    commits(ledger, 40)
    second.start()
    judge(main, ledger, [first, second, third], path)


def test_safekeeper_that_lost_its_promises_does_not_vote(cluster):
    main, ledger, row, path = load(cluster, "promise", 22)
    first, second, third = cluster.safekeepers
    first.kill()
    folder = first.folder / row["tenant"] / row["timeline"]
    flip(folder / "control.0", 90)
    first.start() # one slot is enough
    assert storage(first, path) == "ok"
    commits(ledger, 20)
    first.kill()
    flip(folder / "control.0", 90)
    flip(folder / "control.1", 90)
    first.start(ready=False)
    state = wait_for("it says so", lambda: http("GET", first.http_url + path))
    assert state["storage"].startswith("failed") and "newer generation" in state["repair"], state
    commits(ledger, 20) # the other two are a quorum
    main.suspend()
    main.start() # and elect
    commits(ledger, 20)
    judge(main, ledger, [second, third], path)
    cluster.api("DELETE", f"/projects/{main.project.id}") # the next test wants all timelines well
    wait_for("it is gone everywhere", lambda: (folder / "control.0").exists() is False)


def test_safekeeper_whose_disk_is_full_goes_on_when_there_is_space(cluster):
    """A small file system of its own, filled to the last block; the control file is written in place all the same."""
    if os.geteuid() != 0:
        print("left out: it mounts, which needs root")
        return
    main, ledger, row, path = load(cluster, "full", 23)
    first, second, third = cluster.safekeepers
    first.kill()
    folder, aside = first.folder, first.folder.with_suffix(".aside")
    used = sum(f.stat().st_blocks * 512 for f in folder.rglob("*") if f.is_file())
    folder.rename(aside)
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={used + (8 << 20)}", "tmpfs", str(folder)], check=True)
    try:
        subprocess.run(["cp", "-a", "--sparse=always", f"{aside}/.", str(folder)], check=True)
        shutil.rmtree(aside)
        first.start()
        commits(ledger, 20)
        fill(folder / "ballast")
        wait_for("it waits for space", lambda: storage(first, path).startswith("full"), 120)
        commits(ledger, 20) # the other two are a quorum
        term = http("GET", first.http_url + path)["term"]
        main.suspend()
        main.start()
        commits(ledger, 20)
        wait_for("it has promised the new term", lambda: http("GET", first.http_url + path)["term"] > term)
        os.remove(folder / "ballast")
        wait_for("it goes on", lambda: storage(first, path) == "ok", 120)
        second.kill()
        commits(ledger, 20)
        second.start()
        judge(main, ledger, [first, second, third], path)
    finally:
        first.kill()
        subprocess.run(["umount", "-l", str(folder)], check=True)
