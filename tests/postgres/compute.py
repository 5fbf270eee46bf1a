"""A compute of a local cluster under Postgres' own test drivers, which run as an ordinary user beside it."""
import os
import pathlib
import pwd
import re
import shutil
import signal
import subprocess

import pq
from cluster import wait_for


class Failure(Exception):
    pass


class Compute:
    """A branch made of the empty one, with a compute of these settings; superuser through its socket."""

    usual_sockets = set()  # links that were made, of all computes

    @classmethod
    def remove_links(cls):
        """Of computes whose part failed too: nothing is behind them when the cluster has ended."""
        for link in cls.usual_sockets:
            link.unlink(missing_ok=True)

    def __init__(self, project, name, parent=None, **settings):
        self.settle_in(project, name, settings)
        self.branch = project.create_branch(name, parent or project.main(), endpoint=False)
        project.wait_operations(project.api("POST", "/endpoints", {"endpoint": {
            "branch_id": self.branch.id, "type": "read_write", "settings": {"pg_settings": settings}}}))
        self.find()

    @classmethod
    def of(cls, branch, name):
        """The compute that a branch has, started anew, with the files of settings that the agent writes."""
        self = cls.__new__(cls)
        self.settle_in(branch.project, name, {})
        self.branch = branch
        branch.suspend()
        branch.start()
        self.find()
        return self

    def settle_in(self, project, name, settings):
        self.project, self.name, self.cluster, self.settings = project, name, project.cluster, settings
        self.killed = []  # processes of it that a test killed
        self.bin = self.cluster.postgres / "bin"
        self.suites = self.cluster.postgres / "share/anabranch-suites"
        self.user = pwd.getpwnam(self.cluster.run_as)
        self.work = self.cluster.folder / f"work-{name}"  # what the drivers write
        self.make_dir(self.work)

    def make_dir(self, path):
        """For the drivers to write in."""
        path.mkdir(exist_ok=True)
        os.chown(path, self.user.pw_uid, self.user.pw_gid)

    def find(self):
        """Where it is now, once it runs."""
        self.uri = wait_for("it runs", lambda: self.branch.compute().get("superuser_uri"))
        self.socket, self.port = re.search(r"host=([^&]+)&port=(\d+)", self.uri).groups()
        # dblink and the like connect from the server to itself, at the place that is built in.
        self.usual_socket = pathlib.Path(f"/tmp/.s.PGSQL.{self.port}")
        self.usual_socket.unlink(missing_ok=True)
        self.usual_sockets.add(self.usual_socket)
        self.usual_socket.symlink_to(f"{self.socket}/{self.usual_socket.name}")
        self.started = self.value("SELECT pg_postmaster_start_time()")

    def restart(self):
        self.branch.suspend()
        self.branch.start()
        self.find()

    def kill(self, which="postmaster"):
        """Postgres dies, as a whole or because a process of it did; the agent starts it anew from the quorum and the pageserver."""
        pids = self.branch.compute()["pids"]
        if which == "postmaster":
            os.kill(pids["postgres"], signal.SIGKILL)
        else:
            with pq.connect(self.uri) as victim:
                self.killed.append(victim.pid)
                os.kill(victim.pid, signal.SIGKILL)

        def another_runs():
            state = self.branch.compute()
            return state["state"] == "running" and state["pids"].get("postgres", pids["postgres"]) != pids["postgres"]
        wait_for("another postgres runs", another_runs, timeout_s=600)  # first the old data directory is removed
        self.find()

    def stop(self):
        self.branch.suspend()

    def environment(self):
        return {"PATH": f"{self.bin}:/usr/bin:/bin", "PGHOST": self.socket, "PGPORT": self.port, "PGUSER": "postgres",
                "PGDATABASE": "postgres", "LANG": "C.UTF-8", "HOME": str(self.work)}

    def run(self, *command, cwd=None, timeout=1800, **environment):
        """(exit code, what it said)"""
        identity = {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
        done = subprocess.run([str(part) for part in command], cwd=cwd or self.work, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace", timeout=timeout,
                              env=self.environment() | environment, **identity)
        return done.returncode, done.stdout

    def sql(self, text, database="postgres"):
        with pq.connect(self.uri.replace("/postgres?", f"/{database}?")) as db:
            return db.query(text)

    def value(self, text, database="postgres"):
        return self.sql(text, database)[0][0]

    def databases(self):
        return [row[0] for row in self.sql("SELECT datname FROM pg_database WHERE datallowconn ORDER BY oid")]

    def regress(self, folder, tests, *options, database, isolation=False, environment=None):
        """
        pg_regress on this compute: `tests` are names or a schedule. Returns {name: it passed} for every one of them; what
        differs is in self.diffs(folder).
        """
        driver = "isolation/pg_isolation_regress" if isolation else "regress/pg_regress"
        output = self.output_of(folder)
        names = tests
        if isinstance(tests, pathlib.Path):
            names = " ".join(re.findall(r"^test:(.*)$", tests.read_text(), re.M)).split()
            tests = [f"--schedule={tests}"]
        code, said = self.run(
            self.suites / driver, f"--inputdir={folder}", f"--expecteddir={folder}", f"--outputdir={output}",
            f"--bindir={self.bin}", f"--dlpath={self.suites / 'regress'}", f"--host={self.socket}", f"--port={self.port}",
            "--user=postgres", "--max-concurrent-tests=20", f"--dbname={database}", *options, *tests, cwd=output,
            **(environment or {}))
        (output / ("isolation.log" if isolation else "regress.log")).write_text(said)
        results = {name: True for name in re.findall(r"^ok \d+\s+[-+]\s+(\S+)", said, re.M)}
        results |= {name: False for name in re.findall(r"^not ok \d+\s+[-+]\s+(\S+)", said, re.M)}
        if set(results) != set(names):
            raise Failure(f"{folder.name}: {len(results)} of {len(set(names))} tests ran, exit {code}\n{said[-3000:]}")
        return results

    def output_of(self, folder):
        output = self.work / folder.name
        if not output.exists():
            output.mkdir()
            os.chown(output, self.user.pw_uid, self.user.pw_gid)
            for part in ("data", "sql"):  # some tests name their files from where the driver runs
                if (folder / part).exists():
                    (output / part).symlink_to(folder / part)
        return output

    def diffs(self, folder):
        output = self.output_of(folder)
        return "".join(path.read_text(errors="replace")
                       for name in ("regression.diffs", "output_iso/regression.diffs") if (path := output / name).exists())

    def check_health(self):
        """It is the server that was started, and nothing in its log says that it was in danger."""
        if self.value("SELECT pg_postmaster_start_time()") != self.started:
            raise Failure(f"{self.name}: the compute was restarted meanwhile")
        log = pathlib.Path(self.socket).parent / "log"
        dangers = re.compile(r"PANIC:|TRAP:|was terminated by signal|spill of this compute is full|does not exist in storage"
                             r"|invalid page in block")
        bad = [line for line in log.read_text(errors="replace").splitlines() if dangers.search(line)]
        bad = [line for line in bad if not any(f"(PID {pid}) was terminated by signal 9" in line for pid in self.killed)]
        if bad:
            raise Failure(f"{self.name}: {len(bad)} lines in {log}, first {bad[0][:400]}")

    def amcheck(self, *databases):
        """pg_amcheck of these databases (none: all), with the extension made where it is missing; what it complains of."""
        chosen = [part for name in databases for part in ("-d", name)] or ["--all"]
        code, said = self.run(self.bin / "pg_amcheck", *chosen, "--install-missing=public", "--heapallindexed", "--rootdescend",
                              "--jobs=2")
        return "" if code == 0 else said[-4000:] or f"exit {code}"

    def forget(self):
        """What the drivers wrote; the branch goes with its project."""
        self.usual_socket.unlink(missing_ok=True)
        shutil.rmtree(self.work)

    def remove(self):
        """The branch and what the drivers wrote."""
        self.branch.delete()
        self.forget()


def makefile_list(folder, name):
    """A list in a Makefile of a module, without what is made of other variables."""
    text = (folder / "Makefile").read_text() if (folder / "Makefile").exists() else (folder / "GNUmakefile").read_text()
    words = " ".join(re.findall(rf"^{name}\s*\+?=(.*)$", text.replace("\\\n", " "), re.M)).split()
    return [word for word in words if "$" not in word and "temp-config" not in word and "/" not in word]
