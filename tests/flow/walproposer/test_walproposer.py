#!/usr/bin/env python3
"""The walproposer between a stock Postgres and three real safekeepers, over loopback.

    test_walproposer.py [TEST ...]      WALPROPOSER, SAFEKEEPER: the binaries

Each test is a rule. Wherever WAL was written, it ends by comparing the bytes of all three safekeepers.
Exit code 77 (skipped) where tools/build-postgres has not built a Postgres.
"""
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent.parent
sys.path.insert(0, str(ROOT / "tests/lib"))
from cluster import http, wait_for  # noqa: E402

TENANT, TIMELINE = "11" * 16, "22" * 16
KEEPERS = (1, 2, 3)
SPARES = (4, 5, 6)  # members after a change
CHECKPOINT_SIZE = 120  # a shutdown checkpoint record, aligned


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()


def lsn_number(text):
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


def lsn_text(number):
    return f"{number >> 32:X}/{number & 0xFFFFFFFF:X}"


class Rig:
    def __init__(self, postgres):
        self.bin = postgres / "bin"
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="anabranch-wal-", dir=os.environ.get("ANABRANCH_TEST_DIR", "/tmp")))
        self.dir.chmod(0o777)
        everybody = KEEPERS + SPARES
        ports = free_ports(2 * len(everybody) + 2)
        self.framed = dict(zip(everybody, ports[0:6]))
        self.http = dict(zip(everybody, ports[6:12]))
        self.postgres_port, self.status_port = ports[12:14]
        self.members = KEEPERS
        self.processes = {}
        self.log = open(self.dir / "log", "ab")

    def spawn(self, name, argv):
        self.processes[name] = subprocess.Popen(argv, stdout=self.log, stderr=self.log)

    def as_user(self, argv):
        if os.geteuid() == 0:
            return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", *argv]
        return argv

    def tool(self, name, *args):
        return subprocess.run(self.as_user([str(self.bin / name), *args]), check=True, stdout=subprocess.PIPE,
                              stderr=self.log, text=True).stdout

    # ---- safekeepers ----

    def start_keeper(self, number):
        self.spawn(number, [os.environ["SAFEKEEPER"], f"--data_dir={self.dir}/keeper{number}", f"--node_id={number}",
                            f"--listen_port={self.framed[number]}", f"--http_port={self.http[number]}"])
        wait_for(f"safekeeper {number}", lambda: http("GET", f"http://127.0.0.1:{self.http[number]}/v1/status"))

    def keeper_url(self, number):
        return f"http://127.0.0.1:{self.http[number]}/v1/tenants/{TENANT}/timelines/{TIMELINE}"

    def membership(self, generation, old, new=None):
        """One set, or a joint one when there is `new`."""
        members = []
        for n in sorted({*old, *(new or old)}):
            member = {"id": n, "host": "127.0.0.1", "port": self.framed[n], "http_host": "127.0.0.1",
                      "http_port": self.http[n]}
            if new is not None and (n in old) != (n in new):
                member["set"] = "old" if n in old else "new"
            members.append(member)
        return {"generation": generation, "members": members}

    def create_timeline(self, numbers=KEEPERS, membership=None):
        for number in numbers:
            http("PUT", self.keeper_url(number),
                 {"start_lsn": self.start_lsn, "pg_version": 170000, "system_id": self.system_id,
                  "segment_size": 16 << 20, "membership": membership or self.membership(1, KEEPERS)})

    def tell(self, number, membership, term=0):
        """The answer is about what is on its disk."""
        return http("PUT", self.keeper_url(number) + "/membership", {"membership": membership, "term": term})["report"]

    def change_members(self, new, generation):
        """What control does, without its catalog: docs/design/membership.md."""
        old, joint = self.members, self.membership(generation, self.members, new)
        self.create_timeline([n for n in new if n not in old], joint)
        reports = {n: self.tell(n, joint) for n in old}
        term = max(r["term"] for r in reports.values())
        end = max((r["log_term"], lsn_number(r["record_lsn"])) for r in reports.values())

        def copied():
            said = [self.tell(n, joint, term) for n in new]
            return all((r["log_term"], lsn_number(r["record_lsn"])) >= end for r in said)
        wait_for("the new members to have everything", copied)
        final = self.membership(generation + 1, new)
        for number in new:
            self.tell(number, final)
        for number in set(old) - set(new):
            http("DELETE", f"{self.keeper_url(number)}?generation={generation + 1}")
        self.members = new

    def signal(self, name, number):
        self.processes[name].send_signal(number)

    def kill(self, name):
        self.processes[name].kill()
        self.processes[name].wait()

    # ---- Postgres ----

    def init_postgres(self):
        data = self.dir / "pgdata"
        self.tool("initdb", "-D", str(data), "-A", "trust", "-U", "postgres", "-N", "--locale=C.UTF-8")
        control = self.tool("pg_controldata", str(data))
        self.system_id = re.search(r"system identifier:\s+(\d+)", control)[1]
        checkpoint = re.search(r"Latest checkpoint location:\s+(\S+)", control)[1]
        self.start_lsn = lsn_text(lsn_number(checkpoint) + CHECKPOINT_SIZE)
        with open(data / "postgresql.conf", "a") as conf:
            conf.write(f"port = {self.postgres_port}\nlisten_addresses = ''\nunix_socket_directories = '{self.dir}'\n"
                       "fsync = off\nfull_page_writes = off\nsynchronous_standby_names = 'walproposer'\n"
                       "wal_keep_size = 1GB\nmax_wal_size = 4GB\nrestart_after_crash = off\n")

    def start_postgres(self):
        self.spawn("postgres", self.as_user([str(self.bin / "postgres"), "-D", str(self.dir / "pgdata")]))
        wait_for("Postgres", lambda: self.sql("select 1", synchronous=False) == "1")

    def stop_postgres(self):
        self.signal("postgres", signal.SIGINT)
        self.processes["postgres"].wait(30)

    def psql(self, query):
        return self.as_user([str(self.bin / "psql"), "-h", str(self.dir), "-p", str(self.postgres_port), "-U",
                             "postgres", "-XAtqc", query, "postgres"])

    def sql(self, query, synchronous=True):
        result = subprocess.run(self.psql(query), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=90)
        if result.returncode != 0:
            if synchronous:
                raise RuntimeError(result.stderr)
            return None
        return result.stdout.strip()

    def sql_in_background(self, query):
        return subprocess.Popen(self.psql(query), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    # ---- walproposer ----

    def proposer_argv(self, name, *flags):
        keepers = ",".join(f"{n}@127.0.0.1:{self.framed[n]}" for n in KEEPERS)
        return [os.environ["WALPROPOSER"], f"--data_dir={self.dir}/{name}", f"--tenant={TENANT}",
                f"--timeline={TIMELINE}", f"--system_id={self.system_id}", "--generation=1",
                f"--safekeepers={keepers}", "--link_timeout=3s",
                f"--postgres_conninfo=host={self.dir} port={self.postgres_port} user=postgres",
                f"--postmaster_pid_file={self.dir}/pgdata/postmaster.pid", *flags]

    def sync(self):
        result = subprocess.run(self.proposer_argv("sync", "--sync"), stdout=subprocess.PIPE, stderr=self.log,
                                text=True, timeout=30)
        assert result.returncode == 0, f"--sync exits with {result.returncode}"
        return re.fullmatch(r"LSN (\S+)\n", result.stdout)[1]

    def start_proposer(self, *flags):
        self.spawn("walproposer", self.proposer_argv("stream", f"--http_port={self.status_port}", *flags))

    def status(self):
        return http("GET", f"http://127.0.0.1:{self.status_port}/v1/status")

    def check_equal(self):
        """Everything is everywhere, byte for byte."""
        def settled():
            status = self.status()
            same = all(k["record_lsn"] == status["commit_lsn"] for k in status["safekeepers"])
            return status["commit_lsn"] if same else None
        commit_lsn = wait_for("the safekeepers to be equal", settled)
        digests = {json.dumps(http("GET", f"{self.keeper_url(n)}/digest?from={self.start_lsn}&to={commit_lsn}"))
                   for n in self.members}
        assert len(digests) == 1, f"digests differ: {digests}"

    def up(self):
        self.init_postgres()
        for number in KEEPERS:
            self.start_keeper(number)
        self.create_timeline()
        return self

    def running(self):
        self.up()
        self.start_proposer(f"--start_lsn={self.start_lsn}")
        self.start_postgres()
        self.sql("create table t (i int, filler text)")
        return self

    def down(self, failed):
        for name, process in self.processes.items():
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.send_signal(signal.SIGQUIT if name == "postgres" else signal.SIGKILL)
                process.wait()
        self.log.close()
        if failed:
            print(f"files are kept in {self.dir}")
        else:
            shutil.rmtree(self.dir, ignore_errors=True)


def insert(megabytes, letter="x"):
    return f"insert into t select i, repeat('{letter}', 1000) from generate_series(1, {megabytes * 900}) i"


# ---- tests ----

def test_an_empty_log_ends_where_it_begins(rig):
    rig.up()
    assert rig.sync() == rig.start_lsn
    assert rig.sync() == rig.start_lsn


def test_a_commit_returns_when_two_have_it(rig):
    rig.running()
    rig.kill(2)
    rig.sql("insert into t values (1, 'two are enough')")
    rig.kill(3)
    waiting = rig.sql_in_background("insert into t values (2, 'one is not')")
    try:
        waiting.wait(1.5)
        raise AssertionError("a commit returned without a quorum")
    except subprocess.TimeoutExpired:
        pass
    rig.start_keeper(3)
    assert waiting.wait(30) == 0
    rig.start_keeper(2)
    rig.check_equal()


def test_a_slow_safekeeper_holds_nobody_and_catches_up_from_its_peers(rig):
    rig.running()
    rig.signal(2, signal.SIGSTOP)
    rig.sql(insert(60))  # far more than the window
    rig.signal(2, signal.SIGCONT)
    rig.check_equal()


def test_without_a_quorum_postgres_is_held_in_bounded_memory(rig):
    rig.running()
    for number in (1, 3):
        rig.signal(number, signal.SIGSTOP)
    writing = rig.sql_in_background(insert(60))
    wait_for("back-pressure", lambda: rig.status()["back_pressure"])
    status = rig.status()
    held = lsn_number(status["window_end_lsn"]) - lsn_number(status["window_begin_lsn"])
    assert held <= 17 << 20, f"{held} bytes"
    for number in (1, 3):
        rig.signal(number, signal.SIGCONT)
    assert writing.wait(60) == 0
    rig.check_equal()


def test_a_broken_replication_connection_loses_nothing(rig):
    rig.running()
    writing = rig.sql_in_background(insert(60))
    for _ in range(5):
        rig.sql("select pg_terminate_backend(pid) from pg_stat_replication", synchronous=False)
        count = rig.status()["postgres"]["connections"]
        wait_for("a new connection", lambda: rig.status()["postgres"]["connections"] > count
                 or writing.poll() is not None)
    assert writing.wait(60) == 0
    rig.check_equal()


def test_a_restart_of_everything_keeps_every_row(rig):
    rig.running()
    rig.sql(insert(5))
    for number in KEEPERS:
        rig.kill(number)
    for number in KEEPERS:
        rig.start_keeper(number)
    rig.sql(insert(1, "y"))
    rig.stop_postgres()
    rig.start_postgres()
    rig.sql(insert(1, "z"))
    rig.check_equal()
    assert rig.sql("select count(*) from t") == str(7 * 900)


def test_wal_that_postgres_removed_ends_the_compute(rig):
    rig.running()
    for setting in ("wal_keep_size = 0", "min_wal_size = '32MB'", "max_wal_size = '32MB'"):
        rig.sql(f"alter system set {setting}")
    rig.sql("select pg_reload_conf()")
    rig.signal("walproposer", signal.SIGSTOP)
    for _ in range(3):
        rig.sql("set synchronous_commit = off; " + insert(20) + "; select pg_switch_wal()")
    rig.sql("select pg_terminate_backend(pid) from pg_stat_replication")
    rig.sql("checkpoint")
    rig.sql("checkpoint")
    rig.signal("walproposer", signal.SIGCONT)
    assert rig.processes["walproposer"].wait(20) == 1


def test_a_newer_one_fences_and_postgres_quits(rig):
    rig.running()
    rig.sql(insert(1))
    before = rig.status()["commit_lsn"]
    assert lsn_number(rig.sync()) >= lsn_number(before)
    assert rig.processes["walproposer"].wait(15) == 3
    rig.processes["postgres"].wait(15)
    assert rig.sync() == rig.sync()


def test_a_log_that_has_moved_on_wants_a_new_base_backup(rig):
    rig.running()
    rig.sql(insert(1))
    rig.sync()
    rig.processes["walproposer"].wait(15)
    rig.start_proposer(f"--start_lsn={rig.start_lsn}")
    assert rig.processes["walproposer"].wait(15) == 4


def test_a_safekeeper_is_replaced_while_postgres_writes(rig):
    rig.running()
    for number in SPARES:
        rig.start_keeper(number)
    writing = rig.sql_in_background(insert(30))
    rig.change_members((1, 2, 4), generation=2)
    assert writing.wait(60) == 0
    rig.kill(3)
    rig.sql(insert(1, "y"))
    status = rig.status()
    assert (status["generation"], status["joint"], status["term"]) == (3, False, 1), status
    assert [k["id"] for k in status["safekeepers"]] == [1, 2, 4]
    rig.check_equal()


def test_all_safekeepers_are_replaced_while_postgres_writes(rig):
    rig.running()
    for number in SPARES:
        rig.start_keeper(number)
    writing = rig.sql_in_background(insert(30))
    rig.change_members(SPARES, generation=2)
    rig.change_members((4, 5, 1), generation=4)  # a removed one comes back, empty
    assert writing.wait(60) == 0
    rig.sql(insert(1, "y"))
    assert rig.status()["generation"] == 5
    rig.check_equal()
    assert rig.sql("select count(*) from t") == str(31 * 900)


def test_one_safekeeper_that_knows_is_enough_for_all(rig):
    """Control dies after it has told the first member: the walproposer brings the news to the others."""
    rig.running()
    rig.start_keeper(4)
    joint = rig.membership(2, KEEPERS, (1, 2, 4))
    rig.create_timeline([4], joint)
    rig.tell(1, joint)
    rig.sql(insert(1))
    wait_for("everybody to know", lambda: {http("GET", rig.keeper_url(n))["report"]["generation"]
                                           for n in (1, 2, 3, 4)} == {2})
    rig.members = (1, 2, 3, 4)
    rig.check_equal()


def test_an_old_membership_elects_nobody_and_learns_the_new_one(rig):
    rig.running()
    rig.start_keeper(4)
    rig.sql(insert(1))
    rig.change_members((1, 2, 4), generation=2)
    rig.stop_postgres()
    rig.kill("walproposer")
    assert lsn_number(rig.sync()) > lsn_number(rig.start_lsn)  # told generation 1 and safekeeper 3
    late = rig.membership(1, KEEPERS)
    try:
        rig.tell(1, late)
        raise AssertionError("an older membership is taken")
    except Exception as refused:
        assert "generation 1" in str(refused), refused


def main():
    located = subprocess.run([ROOT / "tools/build-postgres", "--print-path"], stdout=subprocess.PIPE,
                             stderr=subprocess.DEVNULL, text=True)
    if located.returncode != 0:
        print("no Postgres: tools/build-postgres builds one")
        return 77
    tests = {name: test for name, test in globals().items() if name.startswith("test_")}
    failures = 0
    for name in sys.argv[1:] or tests:
        rig = Rig(pathlib.Path(located.stdout.strip()))
        error = None
        try:
            tests[name](rig)
        except Exception as caught:  # the next test has its own rig
            error = caught
        rig.down(failed=error is not None)
        print(f"{'ok' if error is None else 'FAILED'}  {name}" + (f": {error!r}" if error else ""), flush=True)
        failures += error is not None
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
