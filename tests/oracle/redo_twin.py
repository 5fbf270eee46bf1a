#!/usr/bin/env python3
"""Prove the native redo against stock Postgres: `redo_twin.py --build DIR`.

A scenario is one server and one kind of workload. Its data directory is copied while it is stopped (the base); the
server goes on, writes WAL, and is killed. Then (a) stock Postgres recovers a copy of the base from that WAL, without a
single reader, and (b) tools/redocheck replays the same WAL with our redo. Every page of every relation and SLRU must be
the same, byte for byte; pd_checksum and free space maps excepted. The images that wal_consistency_checking puts into
the WAL are compared on the way. Then (c) the same through the pageserver's decoder, sizes of relations included, and
(d) redo on damaged copies of those pages and records: it must refuse, not crash. Prints `ok NAME` or `FAILED NAME`; a
failed scenario keeps its folder.

  --only NAME   one scenario      --keep   keep all folders      --regress DIR   add src/test/regress of a source tree
"""
import argparse
import os
import pathlib
import pwd
import shutil
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent

COMMON = {
    "listen_addresses": "''", "fsync": "off", "full_page_writes": "off", "shared_buffers": "64MB",
    "max_wal_size": "64GB", "wal_keep_size": "64GB", "checkpoint_timeout": "1h", "max_prepared_transactions": "10",
    "allow_in_place_tablespaces": "on", "autovacuum_naptime": "1s", "autovacuum_vacuum_threshold": "50",
    "autovacuum_vacuum_scale_factor": "0.02", "autovacuum_vacuum_cost_delay": "0", "hot_standby": "off",
    "log_min_messages": "warning", "max_connections": "40", "deadlock_timeout": "100ms",
}
CHECKED = {"wal_consistency_checking": "all", "wal_log_hints": "on", "track_commit_timestamp": "on"}
PLAIN = {"wal_log_hints": "off", "wal_compression": "lz4", "full_page_writes": "on", "wal_level": "logical"}

# name, settings, files of tests/oracle/sql before the base copy and after it, pgbench scripts after it
SCENARIOS = {
    "heap_and_btree": (CHECKED, ["schema.sql"], ["heap.sql", "btree.sql", "xact.sql"], ["churn.pgb", "locks.pgb", "race.pgb"]),
    "hints_off_images_on": (PLAIN, ["schema.sql"], ["heap.sql", "btree.sql", "gist_killed.sql"],
                            ["churn.pgb", "locks.pgb", "race.pgb"]),
    "index_methods": (CHECKED, ["schema.sql", "methods_schema.sql"], ["methods.sql"], ["methods.pgb"]),
}


class Failure(Exception):
    pass


class Server:
    """One data directory and the commands on it, run as an ordinary user."""

    def __init__(self, prefix, folder, user, name="data"):
        self.bin, self.folder, self.user = prefix / "bin", folder, user
        self.data, self.log = folder / name, folder / f"{name}.log"

    def run(self, *command, check=True, **options):
        command = [str(part) for part in command]
        if self.user is not None:
            options |= {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []}
        done = subprocess.run(command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              env=self.environment(), **options)
        if check and done.returncode != 0:
            raise Failure(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout[-2000:]}")
        return done.stdout

    def environment(self):
        env = {"PATH": f"{self.bin}:/usr/bin:/bin", "PGHOST": str(self.folder), "PGDATABASE": "postgres",
               "PGUSER": "postgres", "LANG": "C.UTF-8", "HOME": str(self.folder)}
        return env

    def configure(self, settings):
        with open(self.data / "postgresql.auto.conf", "a") as conf:
            for name, value in settings.items():
                conf.write(f"{name} = {value if value.startswith(chr(39)) else chr(39) + value + chr(39)}\n")

    def start(self):
        self.run(self.bin / "pg_ctl", "-D", self.data, "-l", self.log, "-w", "-t", "120", "start",
                 "-o", f"-k {self.folder}")

    def stop(self, mode):
        self.run(self.bin / "pg_ctl", "-D", self.data, "-w", "-t", "120", "-m", mode, "stop")

    def sql_file(self, path):
        # Statements may fail on purpose (conflicts, deadlocks): what matters is the WAL that they leave.
        return self.run("psql", "-X", "-q", "-f", path, check=False)

    def sql(self, text):
        return self.run("psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", text).strip()

    def pgbench(self, path, clients, seconds, seed):
        return self.run("pgbench", "-n", "-c", clients, "-j", 2, "-T", seconds, "--random-seed", seed, "-f", path,
                        "--max-tries", 5, check=False)


def copy(source, target):
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)


def regress(server, folder):
    """The SQL of Postgres' own regression tests, in their order, without looking at the answers."""
    env = {"PG_ABS_SRCDIR": str(folder), "PG_LIBDIR": str(folder), "PG_DLSUFFIX": ".so",
           "PG_ABS_BUILDDIR": str(server.folder), "PGOPTIONS": "-c intervalstyle=postgres_verbose"}
    (server.folder / "results").mkdir(exist_ok=True)
    os.chmod(server.folder / "results", 0o777)
    for line in (folder / "parallel_schedule").read_text().split("\n"):
        if not line.startswith("test: "):
            continue
        running = []
        for name in line[6:].split():
            options = {}
            if server.user is not None:
                options = {"user": server.user.pw_uid, "group": server.user.pw_gid, "extra_groups": []}
            running.append(subprocess.Popen(
                ["psql", "-X", "-a", "-q", "-d", "regression", "-f", str(folder / "sql" / f"{name}.sql")],
                cwd=server.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                env=server.environment() | env, **options))
        for process in running:
            process.wait(timeout=300)


def prepare(server, settings, before):
    server.run(server.bin / "initdb", "-D", server.data, "-U", "postgres", "-A", "trust", "-N", "--locale=C.UTF-8")
    server.configure(COMMON | settings)
    server.start()
    for name in before:
        server.sql_file(HERE / "sql" / name)
    server.stop("fast")


def work(server, files, scripts, seconds, seed, regress_dir):
    server.start()
    if regress_dir is not None:
        server.sql("CREATE DATABASE regression TEMPLATE template0")
        server.sql("ALTER DATABASE regression SET lc_messages TO 'C'")
        regress(server, regress_dir)
    for name in files:
        server.sql_file(HERE / "sql" / name)
    for name in scripts:
        server.pgbench(HERE / "sql" / name, 8, seconds, seed)
    # The twin writes its pages at the end only if it has seen a checkpoint; what follows is replayed on top of it.
    server.sql("CHECKPOINT")
    for name in scripts:
        server.pgbench(HERE / "sql" / name, 8, 1, seed + 1)
    end = server.sql("SELECT pg_create_restore_point('end')")
    server.sql("SELECT pg_switch_wal()")
    server.stop("immediate")
    return end


def recover(twin, wal):
    """Stock recovery up to the restore point; the server shuts itself down there."""
    twin.configure({"restore_command": f"cp {wal}/%f %p", "recovery_target_name": "end",
                    "recovery_target_action": "shutdown", "wal_consistency_checking": "", "autovacuum": "off"})
    (twin.data / "recovery.signal").touch()
    if twin.user is not None:
        os.chown(twin.data / "recovery.signal", twin.user.pw_uid, twin.user.pw_gid)
    output = twin.run(twin.bin / "postgres", "-D", twin.data, "-k", twin.folder, check=False, timeout=600)
    if "recovery stopping at restore point" not in output + (twin.log.read_text() if twin.log.exists() else ""):
        if "shutdown at recovery target" not in output:
            raise Failure(f"the twin did not reach the end:\n{output[-2000:]}")


def check(folder, name, command):
    """One program's verdict: (name, it was satisfied, what it said)."""
    command = [str(part) for part in command]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900)
    (folder / f"{name}.log").write_text(" ".join(command) + "\n" + done.stdout)
    return name, done.returncode == 0, done.stdout


def scenario(name, prefix, build, folder, user, args):
    settings, before, after, scripts = SCENARIOS[name]
    server = Server(prefix, folder, user)
    begin = time.monotonic()

    def step(what):
        if args.verbose:
            print(f"{time.monotonic() - begin:5.1f} s: {what}", flush=True)

    prepare(server, settings, before)
    step("the server is prepared")
    copy(server.data, folder / "base")
    copy(server.data, folder / "twin")
    end = work(server, after, scripts, args.seconds, args.seed, args.regress)
    step("the work is done")
    twin = Server(prefix, folder, user, "twin")
    recover(twin, server.data / "pg_wal")
    step("the twin has recovered")
    pairs = folder / "pairs"
    pairs.mkdir()
    redocheck = [build / "tools/redocheck/redocheck", "--base", folder / "base", "--wal", server.data / "pg_wal",
                 "--twin", twin.data, "--end", end]
    yield check(folder, f"redo_{name}", redocheck + ["--pairs", pairs])
    yield check(folder, f"redo_{name}_decoded", redocheck + ["--decode"])
    if name == "heap_and_btree":
        yield check(folder, f"redo_{name}_vm_implied", redocheck + ["--decode", "--imply-vm"])
    damage = build / "tests/unit/redo/redo_damage"
    if damage.exists():
        yield check(folder, f"redo_{name}_damaged", [damage, "--runs", args.runs, "--seed", args.seed, pairs])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build", required=True, type=pathlib.Path)
    parser.add_argument("--postgres", type=pathlib.Path, help="install prefix (default: tools/build-postgres)")
    parser.add_argument("--only", action="append")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--seconds", type=int, default=2, help="of each pgbench script")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--regress", type=pathlib.Path)
    parser.add_argument("--runs", type=int, default=50000, help="of redo on damaged pages and records")
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    prefix = args.postgres
    if prefix is None:
        prefix = subprocess.check_output([ROOT / "tools/build-postgres"], text=True).strip().split("\n")[-1]
    user = pwd.getpwnam("postgres") if os.getuid() == 0 else None
    failed = 0
    for name in args.only or SCENARIOS:
        folder = pathlib.Path(tempfile.mkdtemp(prefix=f"redo-{name}-", dir="/tmp"))
        if user is not None:
            os.chown(folder, user.pw_uid, user.pw_gid)
        begin, bad = time.monotonic(), 0
        try:
            for verdict, good, output in scenario(name, pathlib.Path(prefix), args.build.resolve(), folder, user, args):
                if not good or args.verbose:
                    print(output)
                print(f"{'ok' if good else 'FAILED'} {verdict} ({time.monotonic() - begin:.0f} s)"
                      + ("" if good else f", see {folder}"), flush=True)
                bad += not good
        except (Failure, subprocess.TimeoutExpired) as problem:
            print(f"{problem}\nFAILED redo_{name}, see {folder}", flush=True)
            bad += 1
            subprocess.run([f"{prefix}/bin/pg_ctl", "-D", folder / "data", "-m", "immediate", "stop"], check=False,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        failed += bad
        if not bad and not args.keep:
            shutil.rmtree(folder)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
