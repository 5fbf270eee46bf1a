"""A stock Postgres server for the oracles: one data directory and the commands on it, run as an ordinary user."""
import os
import pathlib
import pwd
import re
import subprocess

SQL = pathlib.Path(__file__).resolve().parent / "sql"


class Failure(Exception):
    pass


class Server:
    def __init__(self, prefix, folder, name="data"):
        self.prefix, self.bin, self.folder = prefix, prefix / "bin", folder
        self.user = pwd.getpwnam("postgres") if os.getuid() == 0 else None
        self.data, self.log = folder / name, folder / f"{name}.log"
        self.notes = []  # what a slice has to say besides its verdict

    def environment(self):
        return {"PATH": f"{self.bin}:/usr/bin:/bin", "PGHOST": str(self.folder), "PGDATABASE": "postgres",
                "PGUSER": "postgres", "LANG": "C.UTF-8", "HOME": str(self.folder)}

    def identity(self):
        if self.user is None:
            return {}
        return {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []}

    def own(self, path):
        if self.user is not None:
            os.chown(path, self.user.pw_uid, self.user.pw_gid)

    def run(self, *command, check=True, cwd=None, **options):
        command = [str(part) for part in command]
        done = subprocess.run(command, cwd=cwd or self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              errors="replace", env=self.environment(), **self.identity(), **options)
        if check and done.returncode != 0:
            raise Failure(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout[-2000:]}")
        return done.stdout

    def background(self, *command):
        return subprocess.Popen([str(part) for part in command], cwd=self.folder, stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL, env=self.environment(), **self.identity())

    def initdb(self, *options):
        self.run(self.bin / "initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-N", "--locale=C.UTF-8",
                 *options)

    def configure(self, settings):
        with open(self.data / "postgresql.auto.conf", "a") as conf:
            for name, value in settings.items():
                conf.write(f"{name} = {value if value.startswith(chr(39)) else chr(39) + value + chr(39)}\n")

    def start(self):
        self.run(self.bin / "pg_ctl", "-D", self.data, "-l", self.log, "-w", "-t", "300", "start",
                 "-o", f"-k {self.folder}")

    def stop(self, mode):
        self.run(self.bin / "pg_ctl", "-D", self.data, "-w", "-t", "300", "-m", mode, "stop")

    def abandon(self):
        """After a failure: whatever still runs here ends."""
        self.run(self.bin / "pg_ctl", "-D", self.data, "-m", "immediate", "stop", check=False)

    def sql_file(self, path, database="postgres"):
        # Statements may fail on purpose (conflicts, deadlocks): what matters is the WAL that they leave.
        return self.run("psql", "-X", "-q", "-d", database, "-f", path, check=False)

    def sql(self, text, database="postgres"):
        return self.run("psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", text).strip()

    def pgbench(self, path, clients, seconds, seed):
        return self.run("pgbench", "-n", "-c", clients, "-j", 2, "-T", seconds, "--random-seed", seed, "-f", path,
                        "--max-tries", 5, check=False)

    def suite(self, name):
        return self.prefix / "share/anabranch-suites" / name

    def regress(self, folder, tests, *options, isolation=False):
        """Postgres' own test driver on a running server. `tests` are names, or a schedule; every one of them must run.
        What passes is noted: an answer may differ for reasons of settings, the WAL counts all the same."""
        program = self.suite("isolation/pg_isolation_regress" if isolation else "regress/pg_regress")
        output = self.folder / f"regress-{folder.name}"
        output.mkdir(exist_ok=True)
        self.own(output)
        for part in ("data", "sql"):  # some tests name their files from where the driver runs
            if (folder / part).exists() and not (output / part).exists():
                (output / part).symlink_to(folder / part)
        names = tests
        if isinstance(tests, pathlib.Path):
            names = " ".join(re.findall(r"^test:(.*)$", tests.read_text(), re.M)).split()
            tests = [f"--schedule={tests}"]
        expected = len(names)
        said = self.run(program, f"--inputdir={folder}", f"--expecteddir={folder}", f"--outputdir={output}",
                        f"--bindir={self.bin}", f"--dlpath={self.suite('regress')}", f"--host={self.folder}", "--user=postgres",
                        "--max-concurrent-tests=20", *options, *tests, check=False, cwd=output, timeout=900)
        (output / "output").write_text(said)
        good = len(re.findall(r"^ok \d+ ", said, re.M))
        bad = re.findall(r"^not ok \d+\s+[-+]\s+(\S+)", said, re.M)
        if good + len(bad) != expected:
            raise Failure(f"{folder.name}: {good + len(bad)} of {expected} tests ran\n{said[-3000:]}")
        self.notes.append(f"{folder.name}{' isolation' if isolation else ''}: {good} of {expected} tests passed"
                          + (f", not {' '.join(bad)}" if bad else ""))


def makefile_list(folder, name):
    """A list in a Makefile of contrib or src/test/modules, without what is made of other variables."""
    text = (folder / "Makefile").read_text().replace("\\\n", " ")
    words = " ".join(re.findall(rf"^{name}\s*\+?=(.*)$", text, re.M)).split()
    return [word for word in words if "$" not in word and "temp-config" not in word and "/" not in word]
