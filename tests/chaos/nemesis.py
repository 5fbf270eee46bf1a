"""What a chaos plan can do to a cluster. Every action knows how to undo itself and whether it did bite."""
import contextlib
import os
import signal
import subprocess
import time

from cluster import http, wait_for

COMMENT = f"anabranch-chaos-{os.getpid()}"


def can_cut():
    """Cutting the network needs iptables and root (or sudo without a password)."""
    return _iptables("-L", "INPUT", "-n", check=False)


def _iptables(*args, check=True):
    command = (["sudo", "-n"] if os.geteuid() != 0 else []) + ["iptables", "-w", "5", *args]
    try:
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=check)
    except (OSError, subprocess.CalledProcessError):
        if check:
            raise
        return False
    return done.returncode == 0


def _drop_rules(port):
    # Loopback only: a server port of ours, both directions of its connections.
    for direction in ("--dport", "--sport"):
        yield ["INPUT", "-i", "lo", "-p", "tcp", direction, str(port), "-m", "comment", "--comment", COMMENT,
               "-j", "DROP"]


def heal_cuts(ports):
    for port in ports:
        for rule in _drop_rules(port):
            while _iptables("-D", *rule, check=False):
                pass


def listen_port(process):
    return int(process.row["listen"].rsplit(":", 1)[1])


def compute_pid(branch, which):
    return branch.compute()["pids"][which]


def process_alive(pid):
    with contextlib.suppress(OSError):
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def kill(cluster, branch, step):
    """SIGKILL; daemons are started again after `down_s`, what belongs to a compute is the agent's to restart."""
    target = step["target"]
    if target in ("walproposer", "postgres"):
        pid = compute_pid(branch, target)
        os.kill(pid, signal.SIGKILL)
        wait_for(f"{target} {pid} ends", lambda: not process_alive(pid))
        return True
    process = cluster.process(target)
    process.kill()
    time.sleep(step["down_s"])
    process.start()
    return True


def pause(cluster, branch, step):
    target = step["target"]
    pid = compute_pid(branch, target) if target in ("walproposer", "postgres") else cluster.process(target).pid
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(step["down_s"])
        return process_alive(pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def cut(cluster, branch, step):
    port = listen_port(cluster.process(step["target"]))
    rules = list(_drop_rules(port))
    try:
        for rule in rules:
            _iptables("-A", *rule)
        time.sleep(step["down_s"])
        return True
    finally:
        heal_cuts([port])


ACTIONS = {"kill": kill, "pause": pause, "cut": cut}


def status_of_safekeepers(cluster, tenant, timeline):
    answers = []
    for process in cluster.safekeepers:
        answers.append(http("GET", f"{process.http_url}/v1/tenants/{tenant}/timelines/{timeline}"))
    return answers
