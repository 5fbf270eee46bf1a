"""The pageserver dies at random changes of its disk, and every second time the power goes with it.

Meanwhile WAL comes in, branches and leases are made, history is collected and everything is uploaded, all of it often. A
second pageserver, which never falls, reads the same WAL: what comes back must be one of the states that it went through.
"""
import contextlib
import itertools
import json
import os
import pathlib
import random
import shutil
import subprocess
import tempfile
import threading
import time

from cluster import ApiError, http, wait_for
from rig import PAGESERVER, SAFEKEEPERS, lsn_text, lsn_value, place_of, stopped

# Small, so that all that is rare happens all the time.
SETTINGS = ["--flush_size=256KB", "--flush_age=300ms", "--upload_interval=500ms", "--gc_period=1s", "--image_after_records=8",
            "--layers_memory=32MB", "--page_cache=8MB", "--block_cache=32MB"]
LEASES_MAX = 20
FAULTS = ["fail sync EIO 1 *.sst", "fail sync EIO 1 *.log", "fail sync EIO 1 */MANIFEST*", "fail write ENOSPC 1 *.sst",
          "fail write EIO 1 *.log", "fail read EIO 1 *.sst"]


class Daemon:
    """A pageserver of our own, with the ports of the cluster's or with free ones."""

    def __init__(self, cluster, folder, settings, config=None):
        self.binary = cluster.build / "pageserver/serve/pageserver"
        self.folder, self.settings = folder, settings
        self.command = [self.binary, *(["--config", config] if config else []), f"--data_dir={folder}", *settings]
        self.log = cluster.data / "logs" / f"{folder.name}.log"
        self.process = None

    def start(self):
        with contextlib.suppress(FileNotFoundError):
            (self.folder / "ports.json").unlink() # of the one before
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)
        ports = wait_for(f"{self.folder.name} listens", self._ports, 30, 0.01)
        self.url = f"http://127.0.0.1:{ports['http_port']}/v1"

    def _ports(self):
        if self.process.poll() is not None:
            raise AssertionError(f"the pageserver ended by itself: {self.log.read_text()[-1500:]}")
        with contextlib.suppress(FileNotFoundError, ValueError):
            return json.loads((self.folder / "ports.json").read_text())

    def alive(self):
        return self.process.poll() is None

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()


class Operator(threading.Thread):
    """Makes branches and leases, drops some, asks for GC; remembers what was acknowledged, and what it does not know."""

    def __init__(self, run):
        super().__init__(daemon=True)
        self.run_of, self.rng = run, random.Random(f"operator {run.seed}")
        self.branches, self.leases, self.unknown = {}, {}, set()
        self.durable = 0 # the highest position that was reported as durable
        self.acknowledged = 0
        self.numbers = itertools.count(1)
        self.ended = threading.Event()
        self.pause = threading.Lock()
        self.broken = None

    def run(self):
        while not self.ended.is_set():
            with self.pause:
                try:
                    self.do_something()
                except (OSError, ApiError):
                    pass # it is dead: what was being asked for is unknown
                except Exception as error: # noqa: BLE001 - a bug of the test must not look like peace
                    self.broken = error
                    return
            self.ended.wait(0.02)

    def do_something(self):
        run = self.run_of
        state = run.get()
        self.durable = max(self.durable, lsn_value(state["durable_lsn"]))
        begin, end = lsn_value(state["cutoff_lsn"]), lsn_value(state["last_record_lsn"])
        lsn = lsn_text(self.rng.randint(begin // 8, end // 8) * 8)
        dice = self.rng.randrange(10)
        if dice < 3:
            self.make_branch(lsn)
        elif dice < 7 and len(self.leases) < LEASES_MAX:
            self.make_lease(lsn)
        elif dice < 8 and self.leases:
            self.drop_lease(self.rng.choice(sorted(self.leases)))
        elif dice == 9:
            http("POST", f"{run.tenant_url}/gc")

    def make_branch(self, lsn):
        run, name = self.run_of, f"{next(self.numbers):032x}"
        self.unknown.add(name)
        answer = http("PUT", f"{run.tenant_url}/timelines/{name}", run.branch_body(lsn))
        self.branches[name] = answer["start_lsn"]
        self.unknown.discard(name)
        self.acknowledged += 1

    def make_lease(self, lsn):
        name = f"lease-{next(self.numbers)}"
        self.unknown.add(name)
        try:
            answer = http("PUT", f"{self.run_of.timeline_url}/leases/{name}", {"lsn": lsn, "seconds": 0})
        except ApiError: # the cutoff has passed it meanwhile
            self.unknown.discard(name)
            raise
        self.leases[name] = answer["lsn"]
        self.unknown.discard(name)
        self.acknowledged += 1

    def drop_lease(self, name):
        self.unknown.add(name)
        del self.leases[name]
        http("DELETE", f"{self.run_of.timeline_url}/leases/{name}")


class Run:
    def __init__(self, cluster, project, seed, settings=SETTINGS):
        self.cluster, self.seed = cluster, seed
        self.rng = random.Random(f"pageserver {seed}")
        self.violations = []
        self.deaths_at_change = self.cuts = self.digests = 0
        project.api("PATCH", "", {"project": {"history_retention_seconds": 1}})
        tenant, timeline = place_of(cluster, project.main())
        self.tenant, self.timeline, self.generation = tenant["tenant"], timeline, tenant["generation"]
        cluster.kill(PAGESERVER)
        self.subject = Daemon(cluster, cluster.data / PAGESERVER, settings, cluster.data / f"conf/{PAGESERVER}.conf")
        # It has acknowledged a tenant and its first timeline, and nothing else has synced a folder since.
        cluster.disks[PAGESERVER].command("cut 1 0")
        with self.silence():
            self.subject.start()
            wait_for("the timeline that was just made is there", self.get, 10)
        # RocksDB renames CURRENT before the name of the MANIFEST that it leads to is synced; the file is. From here on a
        # synced file keeps its name, as it does on every file system that anybody runs this on.
        cluster.disks[PAGESERVER].command("names linux")
        self.witness_folder = pathlib.Path(tempfile.mkdtemp(prefix="witness-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
        self.start_witness()
        self.operator = Operator(self)
        self.operator.start()

    # -- what is asked --

    @property
    def tenant_url(self):
        return f"{self.subject.url}/tenants/{self.tenant}"

    @property
    def timeline_url(self):
        return f"{self.tenant_url}/timelines/{self.timeline}"

    def get(self):
        return http("GET", self.timeline_url, timeout=10)

    def branch_body(self, lsn, generation=None):
        return {"generation": generation or self.generation, "pg_version": 170000, "system_id": self.system_id,
                "parent": self.timeline, "branch_lsn": lsn, "safekeepers": [], "membership_generation": 1}

    def digest(self, daemon, timeline, lsn):
        answer = http("GET", f"{daemon.url}/tenants/{self.tenant}/timelines/{timeline}/digest?lsn={lsn}")
        return answer["pages"], answer["hash"], answer["relations"]

    # -- the one that never falls: same WAL, all of history --

    def start_witness(self):
        objects = self.witness_folder / "objects"
        shutil.copytree(self.cluster.data / "objects/bootstrap", objects / "bootstrap")
        self.witness = Daemon(self.cluster, self.witness_folder / "witness",
                              ["--http_port=0", "--listen_port=0", f"--object_store=dir:{objects}", "--upload_interval=1h", "--gc_period=0"])
        self.witness.start()
        image = http("POST", self.cluster.agent.http_url + "/v1/bootstrap_images", {"pg_version": 17, "locale": "C.UTF-8"})
        members = http("GET", f"{self.cluster.safekeepers[0].http_url}/v1/tenants/{self.tenant}/timelines/{self.timeline}")
        self.system_id = image["system_id"]
        http("PUT", f"{self.witness.url}/tenants/{self.tenant}", {"generation": 1})
        http("PUT", f"{self.witness.url}/tenants/{self.tenant}/timelines/{self.timeline}",
             {"generation": 1, "pg_version": 170000, "system_id": self.system_id, "membership_generation": 1,
              "safekeepers": [{key: m[key] for key in ("id", "host", "port")} for m in members["membership"]["members"]],
              "start_lsn": image["start_lsn"], "bootstrap_object": image["object"]})

    # -- one death --

    def silence(self):
        """Nobody gives it anything until it has been looked at: neither WAL nor what it should have."""
        return stopped(*(self.cluster.process(name).pid for name in [*SAFEKEEPERS, "control"]))

    def strike(self, number):
        self.wait_for_life()
        changes = self.rng.randint(1, self.rng.choice([10, 60, 400]))
        disk = self.cluster.disks[PAGESERVER]
        disk.command(f"kill {changes} {self.subject.process.pid}")
        with contextlib.suppress(TimeoutError):
            wait_for("its last change", lambda: not self.subject.alive(), 3, 0.005)
        self.deaths_at_change += not self.subject.alive()
        with_cut = self.rng.random() < 0.5
        self.cuts += with_cut
        self.fall(f"cut {self.seed * 1000000 + number}" if with_cut else "kill 0 2")

    def fall(self, command):
        """It ends, if it has not yet, the disk does as told, and what comes back is judged."""
        with self.operator.pause: # what the operator was asking for has been answered or has failed
            self.subject.kill()
            self.cluster.disks[PAGESERVER].command(command)
            with self.silence():
                self.subject.start()
                found = self.look()
        self.compare(found)

    def life(self):
        """Two numbers that move when something new is on disk, and when something new was acknowledged."""
        if self.operator.broken:
            raise self.operator.broken
        return self.operator.durable, self.operator.acknowledged

    def wait_for_life(self):
        begin = self.life()
        wait_for("positions move", lambda: all(now > then for now, then in zip(self.life(), begin)), 180, 0.01)

    def what_it_says(self):
        """"goes on", or what it gives as the reason why not."""
        begin = self.life()

        def answer():
            if all(now > then for now, then in zip(self.life(), begin)):
                return "goes on"
            try:
                http("GET", self.subject.url.removesuffix("/v1") + "/readyz", raw=True)
            except ApiError as error:
                return str(error)[:170]
        return wait_for("it goes on or says why not", answer, 60, 0.02)

    def look(self):
        """What is there, before anything can come: [(timeline, lsn, digest)] to compare with the witness."""
        operator, state = self.operator, wait_for("the timeline is open", self.get, 30, 0.01)
        if state["state"] != "active":
            self.violations.append(f"the timeline is {state['state']}")
            return []
        end, begin = lsn_value(state["last_record_lsn"]), lsn_value(state["cutoff_lsn"])
        if end < operator.durable:
            self.violations.append(f"it has {lsn_text(end)}, it had reported {lsn_text(operator.durable)} as durable")
        self.check_leases()
        points = [(self.timeline, end)]
        points += [(self.timeline, lsn_value(lsn)) for lsn in self.some(operator.leases.values())]
        points += [(name, lsn_value(operator.branches[name])) for name in self.some(self.check_branches())]
        found = [(name, lsn, self.digest(self.subject, name, lsn_text(lsn))) for name, lsn in points if lsn <= end]
        return found + self.look_within_the_window(begin, end)

    def look_within_the_window(self, begin, end):
        lsn = self.rng.randint(begin // 8, end // 8) * 8
        try:
            return [(self.timeline, lsn, self.digest(self.subject, self.timeline, lsn_text(lsn)))]
        except ApiError:
            if lsn >= lsn_value(self.get()["cutoff_lsn"]):
                raise
            return [] # the window has moved meanwhile

    def some(self, of):
        of = sorted(of)
        return self.rng.sample(of, min(2, len(of)))

    def check_leases(self):
        rows = http("GET", f"{self.timeline_url}/leases")["leases"]
        found = {row["name"]: row["lsn"] for row in rows}
        for name, lsn in self.operator.leases.items():
            if found.get(name) != lsn:
                self.violations.append(f"acknowledged {name} at {lsn} is {found.get(name, 'not there')}")
        for name in found:
            if name not in self.operator.leases and name not in self.operator.unknown:
                self.violations.append(f"{name} was never made, or dropped")
                self.operator.unknown.add(name)

    def check_branches(self):
        rows = next(t for t in http("GET", f"{self.subject.url}/status")["tenants"] if t["tenant"] == self.tenant)["timelines"]
        found = {row["timeline"]: row["start_lsn"] for row in rows}
        for name, lsn in self.operator.branches.items():
            if found.get(name) != lsn:
                self.violations.append(f"acknowledged branch {name} at {lsn} is {found.get(name, 'not there')}")
        unheard = set(found) - set(self.operator.branches) - self.operator.unknown - {self.timeline}
        if unheard:
            self.violations.append(f"branches that nobody made: {unheard}")
        return [name for name in self.operator.branches if name in found]

    def compare(self, found):
        for name, lsn, digest in found:
            if name != self.timeline:
                http("PUT", f"{self.witness.url}/tenants/{self.tenant}/timelines/{name}", self.branch_body(lsn_text(lsn), 1))
            expected = self.digest(self.witness, name, lsn_text(lsn))
            self.digests += 1
            if digest != expected:
                self.violations.append(f"timeline {name} at {lsn_text(lsn)} has {digest}, the one that never fell {expected}")

    # -- calls that fail --

    def suffer(self, fault):
        """It is told of a failure, a failed sync loses what it was about; then it ends, with a power cut."""
        disk = self.cluster.disks[PAGESERVER]
        self.wait_for_life()
        disk.command(fault)
        wait_for(f"{fault}: it bites", lambda: disk.status()["failures_left"] == 0, 60, 0.01)
        print(f"   {fault}: {self.what_it_says()}", flush=True)
        self.fall(f"cut {self.seed}")

    # -- the end --

    def finish(self):
        """Everything that was uploaded in between is whole, and enough to begin from an empty disk."""
        self.operator.ended.set()
        self.operator.join(60)
        remote = wait_for("uploads go on", self.uploaded, 60)
        scrub = wait_for("no upload is in its way", lambda: http("POST", f"{self.tenant_url}/remote/scrub"))
        if scrub["dangling"]:
            self.violations.append(f"the object store lacks what its index names: {scrub}")
        self.subject.kill()
        shutil.rmtree(self.subject.folder / "tenants")
        self.subject.start()
        state = wait_for("restored", lambda: (state := self.get())["state"] == "active" and state, 60)
        wait_for("its WAL", lambda: lsn_value(self.get()["last_record_lsn"]) >= lsn_value(remote), 60)
        end = lsn_value(self.get()["last_record_lsn"])
        self.compare([(self.timeline, end, self.digest(self.subject, self.timeline, lsn_text(end)))])
        return state

    def uploaded(self):
        """The remote position once it has moved since it was asked first."""
        def position():
            rows = http("GET", f"{self.tenant_url}/remote")["timelines"]
            return next(row for row in rows if row["timeline"] == self.timeline)["remote_lsn"]
        begin = position()
        return wait_for("the next upload", lambda: lsn_value(position()) > lsn_value(begin) and position(), 30)

    def down(self):
        self.operator.ended.set()
        self.subject.kill()
        self.witness.kill()
        shutil.rmtree(self.witness_folder, ignore_errors=True)


def run(cluster, project, seed, count, faults):
    """One line that says what happened; raises when something came back that is no state from before."""
    begin = time.monotonic()
    checked = Run(cluster, project, seed)
    try:
        for number in range(count):
            checked.strike(number)
            if checked.violations:
                raise AssertionError(f"death {number}: {checked.violations[:5]}")
        for fault in faults:
            checked.suffer(fault)
            assert not checked.violations, (fault, checked.violations[:5])
        checked.finish()
        assert not checked.violations, checked.violations[:10]
    finally:
        checked.down()
    cluster.pageserver.start()
    status, operator = cluster.disks[PAGESERVER].status(), checked.operator
    line = (f"{count} deaths of the pageserver ({checked.deaths_at_change} in a change of its disk, {checked.cuts} with a power cut) in "
            f"{time.monotonic() - begin:.0f} s: {len(operator.branches)} branches and {len(operator.leases)} leases acknowledged and there, "
            f"{checked.digests} digests as the witness has them; {status['lost']} unsynced changes lost, {status['torn']} torn, "
            f"{status['names_lost']} names lost")
    assert status["cuts"] == 0 or status["lost"] > 0, f"it proves nothing: {line}"
    return line


def lying_disk_is_noticed(cluster, project, seed):
    """What was acknowledged was never on disk: somebody must say so."""
    checked = Run(cluster, project, seed)
    try:
        cluster.disks[PAGESERVER].command("lie on")
        made = len(checked.operator.branches)
        wait_for("more branches", lambda: len(checked.operator.branches) > made + 2, 60, 0.01)
        with checked.operator.pause:
            checked.subject.kill()
            cluster.disks[PAGESERVER].command("cut 1 0")
            cluster.disks[PAGESERVER].command("lie off")
            with checked.silence():
                checked.subject.start()
                try:
                    checked.look()
                except (ApiError, TimeoutError) as error:
                    checked.violations.append(f"nothing there: {error}")
    finally:
        checked.down()
    assert checked.violations, "nobody noticed"
