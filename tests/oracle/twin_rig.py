"""What getpage_twin.py runs on: a cluster of real daemons, and lines, each a timeline with a stock Postgres that writes it."""
import json
import os
import pathlib
import random
import subprocess
import threading
import time

from cluster import Cluster, http, wait_for
from twin_server import Failure, Primary, lsn_number, lsn_text

TENANT, TIMELINE = "a1" * 16, "b1" * 16
# Small: everything leaves the caches and comes back, and what grows without a limit is seen.
PAGESERVER = ["--block_cache=32MB", "--page_cache=8MB", "--layers_memory=32MB", "--flush_size=8MB"]


class Line:
    """A timeline, the data directory that its WAL begins with, and the Postgres and walproposer that write it."""

    def __init__(self, rig, name, timeline, start_lsn):
        self.rig, self.timeline, self.start_lsn = rig, timeline, start_lsn
        self.primary = Primary(rig.cluster.postgres, rig.folder, name)
        self.base = rig.folder / f"{name}.base"
        self.proposer = None
        self.wal_folder = self.primary.data / "pg_wal"

    def start(self):
        """The data directory is there: it is the base of the twins, too."""
        subprocess.run(["cp", "-a", self.primary.data, self.base], check=True)
        self.primary.configure()
        self.primary.start()
        folder = self.rig.folder / f"{self.primary.data.name}.walproposer"
        log = open(f"{folder}.log", "wb")
        self.proposer = subprocess.Popen(
            [self.rig.cluster.build / "compute/walproposer/walproposer", f"--data_dir={folder}", f"--tenant={TENANT}",
             f"--timeline={self.timeline}", f"--system_id={self.rig.system_id}", "--generation=1",
             f"--safekeepers={self.rig.keepers}", f"--postgres_conninfo=host={self.primary.sockets} user=postgres",
             "--http_port=0", f"--postmaster_pid_file={self.primary.data}/postmaster.pid",
             f"--start_lsn={lsn_text(self.start_lsn)}"],
            stdout=log, stderr=log)
        ports = wait_for("walproposer listens", lambda: json.loads((folder / "ports.json").read_text()))
        self.proposer_url = f"http://127.0.0.1:{ports['http_port']}"

    def last_record_lsn(self):
        return self.rig.last_record_lsn(self.timeline)

    def finish(self):
        """Ends the primary when the pageserver has all of its WAL."""
        begin = time.monotonic()
        end = lsn_number(self.primary.sql("SELECT pg_current_wal_flush_lsn()"))
        wait_for("the pageserver has it all", lambda: self.last_record_lsn() >= end, timeout_s=900)
        print(f"   ingest caught up {time.monotonic() - begin:.1f} s after the end of the work", flush=True)
        self.stop()

    def stop(self):
        self.primary.stop()
        if self.proposer is not None:
            self.proposer.kill()
            self.proposer.wait()


class Rig:
    """The cluster of one run and its lines; the first is the root."""

    def __init__(self, args):
        self.args = args
        self.random = random.Random(args.seed)
        self.cluster = Cluster(args.build).up()
        self.folder = self.cluster.folder
        self.pageserver = None  # the process
        self.address = self.cluster.pageserver.row
        self.lines = []
        self.peak_kb = 0
        self.cpu_s = 0.0  # of pageservers that were ended
        self.samples = 0
        self.sampling_failed = False
        self.restarting = threading.Lock()
        self.peak_lag = 0
        self.stopping = threading.Event()
        self.threads = []

    # -- the pageserver --

    @property
    def timelines_url(self):
        return f"http://{self.address['http']}/v1/tenants/{TENANT}/timelines"

    @property
    def port(self):
        return self.address["listen"].split(":")[1]

    def start_pageserver(self):
        """Ours instead of the cluster's: with the settings of this test."""
        if self.pageserver is None:
            self.cluster.pageserver.kill()
        else:
            self.pageserver.kill()
            self.pageserver.wait()
        log = open(self.folder / "pageserver.log", "ab")
        self.pageserver = subprocess.Popen([self.cluster.build / "pageserver/serve/pageserver", "--config",
                                            self.cluster.data / "conf/pageserver-1.conf", *PAGESERVER],
                                           stdout=log, stderr=log)
        def ready():
            if self.pageserver.poll() is not None:
                raise Failure(f"the pageserver ended: {(self.folder / 'pageserver.log').read_text()[-1000:]}")
            return http("GET", f"http://{self.address['http']}/readyz", raw=True) is not None
        wait_for("the pageserver is ready", ready)

    def get(self, path, timeline=TIMELINE):
        return http("GET", f"{self.timelines_url}/{timeline}/{path}".rstrip("/"), raw=True, timeout=300)

    def last_record_lsn(self, timeline=TIMELINE):
        tenants = http("GET", f"http://{self.address['http']}/v1/status")["tenants"]
        rows = [t for tenant in tenants for t in tenant["timelines"] if t["timeline"] == timeline]
        if rows and rows[0]["state"].startswith("failed"):
            raise Failure(f"ingest stopped: {rows[0]}")
        return lsn_number(rows[0]["last_record_lsn"]) if rows else 0

    def look_at_memory(self):
        """The peak of the process that runs now; kept when it is killed."""
        status = pathlib.Path(f"/proc/{self.pageserver.pid}/status").read_text()
        peak = next(line for line in status.split("\n") if line.startswith("VmHWM"))
        self.peak_kb = max(self.peak_kb, int(peak.split()[1]))
        return f"peak of memory so far {self.peak_kb >> 10} MB"

    def pageserver_cpu_s(self):
        fields = pathlib.Path(f"/proc/{self.pageserver.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def watch_lag(self):
        while not self.stopping.wait(0.5):
            try:
                written = lsn_number(http("GET", f"{self.lines[0].proposer_url}/v1/status")["commit_lsn"])
                self.peak_lag = max(self.peak_lag, written - self.last_record_lsn())
            except Exception:  # noqa: BLE001 - it is being killed or started just now
                continue

    def kill_pageserver(self):
        with self.restarting:
            before = self.last_record_lsn()
            self.look_at_memory()
            self.cpu_s += self.pageserver_cpu_s()
            self.start_pageserver()
        after = self.last_record_lsn()
        print(f"   pageserver killed at {lsn_text(before)}, back at {lsn_text(after)}", flush=True)

    def kill_safekeeper(self):
        """The one that feeds the pageserver, if that can be known: another one takes over."""
        feed = json.loads(self.get(""))["feed"]
        keeper = next((k for k in self.cluster.safekeepers if k.name.endswith(feed[-1:])), self.cluster.safekeepers[0])
        keeper.kill()
        keeper.start()
        print(f"   {keeper.name} killed, feed was {feed}", flush=True)

    # -- timelines --

    def create_timeline(self, timeline, start_lsn, origin, written=True):
        """`origin`: what the pageserver makes it of. The safekeepers know only what is written."""
        members = []
        for number, keeper in enumerate(self.cluster.safekeepers, 1):
            listen, http_address = keeper.row["listen"], keeper.row["http"]
            members.append({"id": number, "host": "127.0.0.1", "port": int(listen.split(":")[1]),
                            "http_host": "127.0.0.1", "http_port": int(http_address.split(":")[1])})
        for keeper in self.cluster.safekeepers if written else []:
            http("PUT", f"{keeper.http_url}/v1/tenants/{TENANT}/timelines/{timeline}",
                 {"start_lsn": lsn_text(start_lsn), "pg_version": 170000, "system_id": self.system_id,
                  "segment_size": 16 << 20, "membership": {"generation": 1, "members": members}})
        safekeepers = [{key: m[key] for key in ("id", "host", "port")} for m in members if written]
        http("PUT", f"{self.timelines_url}/{timeline}",
             {"generation": 1, "pg_version": 170000, "system_id": self.system_id, "membership_generation": 1,
              "safekeepers": safekeepers, **origin})
        self.keepers = ",".join(f"{m['id']}@127.0.0.1:{m['port']}" for m in members)

    def branch(self, name, parent, lsn, written=False):
        self.create_timeline(name, lsn, {"parent": parent, "branch_lsn": lsn_text(lsn)}, written)

    def up(self):
        self.start_pageserver()
        http("PUT", f"http://{self.address['http']}/v1/tenants/{TENANT}", {"generation": 1})
        image = http("POST", self.cluster.agent.http_url + "/v1/bootstrap_images",
                     {"pg_version": 17, "locale": "C.UTF-8"}, timeout=120)
        self.system_id, start_lsn = image["system_id"], lsn_number(image["start_lsn"])
        self.create_timeline(TIMELINE, start_lsn, {"start_lsn": image["start_lsn"], "bootstrap_object": image["object"]})
        root = Line(self, "root", TIMELINE, start_lsn)
        root.primary.unpack((self.cluster.data / "objects" / image["object"]).read_bytes(),
                            self.get(f"base_backup?lsn={image['start_lsn']}"))
        root.start()
        self.lines.append(root)
        for target in (self.watch_lag, self.make_checkpoints, self.sample_head):
            self.threads.append(threading.Thread(target=target, daemon=True))
            self.threads[-1].start()
        return root

    def write_on_branch(self, timeline, twin, lsn):
        """A line on a branch: the relations that a twin has at its LSN, and the base backup for all else."""
        line = Line(self, f"line{timeline[:2]}", timeline, lsn)
        line.primary.take_relations(twin.data)
        line.primary.unpack(self.get(f"base_backup?lsn={lsn_text(lsn)}", timeline))
        line.start()
        self.lines.append(line)
        return line

    def make_checkpoints(self):
        """Often: the twin writes its pages only when it has seen one (a restartpoint at its shutdown)."""
        while not self.stopping.wait(2):
            try:
                self.lines[0].primary.sql("CHECKPOINT")
            except Failure:
                continue

    def sample(self, *flags):
        return subprocess.run(
            [self.cluster.build / "tests/oracle/getpage_sample", "--port", self.port, "--tenant", TENANT, "--timeline",
             TIMELINE, "--samples", self.folder / "samples", *flags],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600)

    def sample_head(self):
        """Reads at the head while ingest goes on; they are read again when all is done."""
        (self.folder / "samples").touch()
        self.sampling_failed = True  # until it has ended well
        while not self.stopping.wait(0.5):
            with self.restarting:
                (self.folder / "sampled").write_bytes(self.get("relations"))
                done = self.sample("--relations", self.folder / "sampled", "--count", "1000", "--seed", str(self.samples))
            self.samples += 1
            if done.returncode != 0:
                print(f"   sampling: {done.stdout}")
                return
        self.sampling_failed = False

    def finish(self):
        """The root's work is done: nothing looks on any more."""
        self.stopping.set()
        for thread in self.threads:
            thread.join()
        self.lines[0].finish()
        self.cpu_s += self.pageserver_cpu_s()
        print(f"   {self.look_at_memory()}", flush=True)

    def down(self, failed):
        self.stopping.set()
        for line in self.lines:
            line.stop()
        if self.pageserver is not None:
            self.pageserver.kill()
            self.pageserver.wait()
        self.cluster.keep = failed or self.args.keep
        self.cluster.down()
        if self.cluster.keep:
            print(f"files are kept in {self.folder}")
