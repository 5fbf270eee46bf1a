"""The stock servers of getpage_twin.py: the primary that works, and the twin that only recovers."""
import io
import os
import pathlib
import pwd
import re
import shutil
import subprocess
import tarfile

from cluster import wait_for

SEGMENT_SIZE = 16 << 20

# As the agent forces them upon a compute, where it matters for WAL; nothing is waited for.
PRIMARY = {
    "listen_addresses": "", "fsync": "off", "full_page_writes": "off", "wal_log_hints": "on", "wal_level": "replica",
    "wal_keep_size": "64GB", "max_wal_size": "4GB", "max_prepared_transactions": "64", "max_connections": "60",
    "track_commit_timestamp": "on", "synchronous_commit": "off", "wal_recycle": "off", "wal_init_zero": "off",
    "wal_compression": "lz4", "autovacuum_naptime": "1s", "restart_after_crash": "off", "shared_buffers": "128MB",
    "log_min_messages": "warning", "deadlock_timeout": "100ms", "log_timezone": "UTC", "timezone": "UTC",
}
TWIN = {
    "listen_addresses": "", "fsync": "off", "hot_standby": "off", "recovery_target_inclusive": "off",
    "recovery_target_action": "shutdown", "recovery_target_timeline": "current", "checkpoint_timeout": "1h",
    "max_wal_size": "64GB", "shared_buffers": "256MB", "log_checkpoints": "on", "max_prepared_transactions": "64",
    "track_commit_timestamp": "on", "wal_recycle": "off", "full_page_writes": "off", "wal_log_hints": "on",
    "allow_in_place_tablespaces": "on",
}


class Failure(Exception):
    pass


def lsn_number(text):
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


def lsn_text(number):
    return f"{number >> 32:X}/{number & 0xFFFFFFFF:X}"


class Server:
    """One data directory, and programs run on it as an ordinary user: Postgres refuses root."""

    def __init__(self, prefix, folder, name):
        self.bin, self.suites = prefix / "bin", prefix / "share/anabranch-suites"
        self.folder, self.data, self.log = folder, folder / name, folder / f"{name}.log"
        self.user = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
        self.sockets = folder / "sockets"
        self.make_folder(self.sockets)

    def make_folder(self, path):
        path.mkdir(exist_ok=True)
        self.give(path)

    def give(self, path):
        if self.user is not None:
            os.chown(path, self.user.pw_uid, self.user.pw_gid)

    def options(self):
        env = {"PATH": f"{self.bin}:/usr/bin:/bin", "PGHOST": str(self.sockets), "PGUSER": "postgres",
               "PGDATABASE": "postgres", "LANG": "C.UTF-8", "HOME": str(self.sockets)}
        user = {} if self.user is None else {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []}
        return {"cwd": self.sockets, "env": env, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, **user}

    def run(self, *command, check=True, timeout=900):
        command = [str(part) for part in command]
        done = subprocess.run(command, timeout=timeout, **self.options())
        if check and done.returncode != 0:
            raise Failure(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout[-2000:]}")
        return done.stdout

    def write_settings(self, settings):
        text = "".join(f"{name} = '{value}'\n" for name, value in settings.items())
        for name, content in (("postgresql.conf", text), ("pg_hba.conf", "local all all trust\nlocal replication all trust\n"),
                              ("pg_ident.conf", "")):
            (self.data / name).write_text(content)
            self.give(self.data / name)


class Primary(Server):
    def __init__(self, prefix, folder, name):
        super().__init__(prefix, folder, name)
        self.running = False
        self.tests_ok = 0

    def take_relations(self, twin):
        """The relations of another data directory: all else of it is what the base backup brings."""
        subprocess.run(["cp", "-a", twin, self.data], check=True)
        for name in ("recovery.signal", "pg_wal", "pg_xact", "pg_multixact", "pg_commit_ts", "pg_subtrans", "pg_twophase",
                     "pg_logical"):
            path = self.data / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def unpack(self, *archives):
        """A bootstrap image, or nothing, and over it what a compute gets: pg_control and one checkpoint in WAL."""
        self.make_folder(self.data)
        for content in archives:
            with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                archive.extractall(self.data)
        (self.data / "anabranch.json").unlink()
        for segment in (self.data / "pg_wal").glob("0000*"):
            os.truncate(segment, SEGMENT_SIZE)
        for path in [self.data, *self.data.rglob("*")]:
            self.give(path)
            path.chmod(0o700 if path.is_dir() else 0o600)

    def configure(self):
        self.write_settings(PRIMARY)

    def start(self):
        self.give_log()
        self.run("pg_ctl", "-D", self.data, "-l", self.log, "-w", "-t", "120", "start", "-o", f"-k {self.sockets}")
        self.running = True

    def give_log(self):
        self.log.touch()
        self.give(self.log)

    def stop(self):
        if self.running:
            self.running = False
            self.run("pg_ctl", "-D", self.data, "-w", "-t", "120", "-m", "fast", "stop", check=False)

    def crash(self):
        """Ends without a checkpoint and recovers; its WAL goes on behind the end-of-recovery checkpoint."""
        self.run("pg_ctl", "-D", self.data, "-w", "-t", "120", "-m", "immediate", "stop")
        self.start()

    def sql(self, text, database="postgres"):
        commands = [part for line in text.split(";") if line.strip() for part in ("-c", line)]
        return self.run("psql", "-XqAt", "-v", "ON_ERROR_STOP=1", *commands, database).strip()

    def sql_file(self, path):
        # Statements may fail on purpose (conflicts, deadlocks): what matters is the WAL that they leave.
        return self.run("psql", "-Xq", "-f", path, check=False)

    def pgbench(self, *args):
        return self.run("pgbench", "-n", "-j", 2, *args) if "-i" not in args else self.run("pgbench", *args)

    def regress(self, events):
        """The core regression tests; `events`: what to call after how many of them."""
        suite = self.suites / "regress"
        output = self.folder / "regress"
        self.make_folder(output)
        command = [suite / "pg_regress", f"--host={self.sockets}", f"--bindir={self.bin}",
                   f"--inputdir={suite}", f"--expecteddir={suite}", f"--outputdir={output}", f"--dlpath={suite}",
                   f"--schedule={suite}/parallel_schedule", "--max-connections=20", "--dbname=regression"]
        process = subprocess.Popen([str(part) for part in command], bufsize=1, **(self.options() | {"cwd": output}))
        failed = []
        for line in process.stdout:
            if re.match(r"(not )?ok \d+", line):
                failed += [line.strip()] if line.startswith("not") else []
                self.tests_ok += not line.startswith("not")
                events.get(self.tests_ok + len(failed), lambda: None)()
        process.wait()
        print(f"   {self.tests_ok} regression tests ok, {len(failed)} not: {' '.join(failed)}", flush=True)
        if self.tests_ok == 0:
            raise Failure("pg_regress ran nothing")


class Twin(Server):
    """Archive recovery of the base up to an LSN: a fresh one each time, so that no record is ever replayed twice."""

    def __init__(self, line):
        super().__init__(line.primary.bin.parent, line.rig.folder, "twin")
        self.base, self.archive = line.base, line.wal_folder

    def recover(self, stop_lsn):
        """Every record that begins before stop_lsn, then a restartpoint that writes all pages, and the end."""
        shutil.rmtree(self.data, ignore_errors=True)
        subprocess.run(["cp", "-a", self.base, self.data], check=True)
        # A link costs nothing; Postgres removes links from pg_wal and never writes through them in recovery.
        self.write_settings({**TWIN, "restore_command": f"test -f {self.archive}/%f && ln -sf {self.archive}/%f %p",
                             "recovery_target_lsn": lsn_text(stop_lsn)})
        (self.data / "recovery.signal").touch()
        self.give(self.data / "recovery.signal")
        output = self.run(self.bin / "postgres", "-D", self.data, "-k", self.sockets, check=False)
        self.log.write_text(output)
        for sign in (f'recovery stopping before WAL location (LSN) "{lsn_text(stop_lsn)}"', "shutdown at recovery target",
                     "recovery restart point at"):
            if sign not in output:
                raise Failure(f"the twin of {lsn_text(stop_lsn)} did not say \"{sign}\":\n{output[-3000:]}")

    def counters(self):
        """pg_control after the twin became a server of its own at the same place: which xid, oid, multixact comes next.

        It replays from its restartpoint over pages that are newer: without full page images that leaves references to pages
        that are gone by now. The counters do not depend on pages.
        """
        copy = Twin.__new__(Twin)
        copy.__dict__ |= self.__dict__ | {"data": self.folder / "promoted"}
        shutil.rmtree(copy.data, ignore_errors=True)
        subprocess.run(["cp", "-a", self.data, copy.data], check=True)
        with open(copy.data / "postgresql.conf", "a") as conf:
            conf.write("recovery_target_action = 'promote'\nautovacuum = 'off'\nignore_invalid_pages = 'on'\n")
        self.run("pg_ctl", "-D", copy.data, "-l", self.sockets / "promoted.log", "-w", "-t", "120", "start", "-o",
                 f"-k {self.sockets}")
        wait_for("the promoted twin", lambda: self.run("psql", "-XAtc", "SELECT NOT pg_is_in_recovery()", check=False) == "t\n")
        self.run("pg_ctl", "-D", copy.data, "-w", "-t", "120", "-m", "immediate", "stop")
        return (copy.data / "global/pg_control").read_bytes()

    def keep_as(self, path):
        self.data.rename(path)
        self.data = path
