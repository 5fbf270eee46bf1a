"""A tenant that floods with 64 connections, and what another one notices of it: its latencies alone and beside the flood.

Client, server and flood are three who want two cores, so what the server makes the neighbour wait for is told apart from
what the system does: `reply` ends when the reply lies in the neighbour's socket, however late the neighbour runs then;
`apart` has the server on one core and the clients on the other, where the neighbour runs before the flood, as if it had
a machine of its own. Beside them two processes that only compute: what any load costs it."""
import json
import os
import statistics
import subprocess
import sys

PG_PROC = 1255
SERVER_CORE, CLIENT_CORE = "0", "1"
SPIN = "import time\nend = time.monotonic() + {}\nwhile time.monotonic() < end: pass"


class Clients:
    def __init__(self, storage, seconds):
        self.storage, self.seconds = storage, seconds
        self.loud, self.quiet = storage.tenant(0xA1), storage.tenant(0xA2)
        self.timelines = {tenant: storage.root(tenant) for tenant in (self.loud, self.quiet)}
        self.blocks = storage.rel_size(self.quiet, self.timelines[self.quiet], PG_PROC)

    def ask(self, tenant, before=(), seconds=None):
        return self.storage.get_page(tenant, self.timelines[tenant], PG_PROC, self.blocks, seconds or self.seconds, before=before)

    def flood(self, before=()):
        return subprocess.Popen(
            [*before, str(self.storage.cluster.build / "tests/bench/flood"), self.storage.host, self.storage.port, self.loud,
             self.timelines[self.loud], "1663", "1", str(PG_PROC), str(self.blocks), "64", "16", str(self.seconds + 1)],
            stdout=subprocess.PIPE, text=True)

    def beside_a_flood(self, before_flood=(), before=()):
        """What the neighbour saw, and how many pages a second the flood got."""
        flood = self.flood(before_flood)
        seen = self.ask(self.quiet, before)
        return seen, json.loads(flood.communicate()[0])["count"] / (self.seconds + 1)

    def beside_spinning(self):
        spinning = [subprocess.Popen([sys.executable, "-c", SPIN.format(self.seconds + 1)]) for _ in range(2)]
        seen = self.ask(self.quiet)
        for process in spinning:
            process.wait()
        return seen

    def bind_server(self, cores):
        subprocess.run(["taskset", "-apc", cores, str(self.storage.process.pid)], stdout=subprocess.DEVNULL, check=True)


def p50_and_p99(rounds, kind=""):
    return tuple(statistics.median(seen[f"{kind}{name}"] for seen in rounds) for name in ("p50_us", "p99_us"))


def figures(storage, emit, rounds=4, seconds=3):
    clients = Clients(storage, seconds)
    for tenant in (clients.loud, clients.quiet):
        clients.ask(tenant, seconds=1) # warm
    seen = {name: [] for name in ("alone", "beside", "spinning", "apart alone", "apart beside")}
    rates = []
    apart = ("taskset", "-c", CLIENT_CORE)
    first = (*apart, *(("chrt", "-f", "10") if os.geteuid() == 0 else ()))
    for _ in range(rounds): # interleaved
        seen["alone"].append(clients.ask(clients.quiet))
        beside, rate = clients.beside_a_flood()
        seen["beside"].append(beside)
        rates.append(rate)
        seen["spinning"].append(clients.beside_spinning())
        clients.bind_server(SERVER_CORE)
        seen["apart alone"].append(clients.ask(clients.quiet, first))
        seen["apart beside"].append(clients.beside_a_flood(apart, first)[0])
        clients.bind_server(f"{SERVER_CORE},{CLIENT_CORE}")

    def compare(figure, with_flood, alone, kind=""):
        (p50, p99), (p50_alone, p99_alone) = p50_and_p99(seen[with_flood], kind), p50_and_p99(seen[alone], kind)
        emit(f"{figure}_p50", p50, "us", "the same alone, us", p50_alone, p50 / p50_alone, "none", True)
        emit(f"{figure}_p99", p99, "us", "the same alone, us", p99_alone, p99 / p99_alone, "<= 3 x alone", p99 <= 3 * p99_alone)
    compare("neighbour_beside_a_flood", "beside", "alone")
    compare("neighbour_reply_beside_a_flood", "beside", "alone", "arrived_")
    compare("neighbour_apart_beside_a_flood", "apart beside", "apart alone")
    p99, p99_alone = p50_and_p99(seen["spinning"])[1], p50_and_p99(seen["alone"])[1]
    emit("neighbour_beside_two_that_spin_p99", p99, "us", "the same alone, us", p99_alone, p99 / p99_alone, "none", True)
    emit("flood_rate", statistics.median(rates), "pages/s", "limit: none", 0, 0, "none", True)
