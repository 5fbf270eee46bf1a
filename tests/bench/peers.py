"""pgbench TPC-B on a compute against a stock Postgres that is durable the same way, at 1, 8 and 64 clients, interleaved.

The peers: three `pg_receivewal --synchronous`, and three streaming standbys; commits wait for two of the three.
`PEERS_ROUNDS` (3) rounds of `PEERS_SECONDS` (10) each; medians. One peer stands at a time, so that it has the machine's
memory and disk to itself when its turn comes; an idle one costs nothing that matters.
"""
import os
import statistics

from cluster import running
from parts import stock

ROUNDS, SECONDS = int(os.environ.get("PEERS_ROUNDS", "3")), os.environ.get("PEERS_SECONDS", "10")
CLIENTS = ("1", "8", "64")
SCALE = "20"
PEERS = {"receivers": ("stock, ANY 2 (3) pg_receivewal --synchronous", stock.receivers),
         "standbys": ("stock, ANY 2 (3) streaming standbys", stock.standbys)}


def against(name, cluster, branch, emit):
    what, start = PEERS[name]
    with start(cluster.postgres, cluster.run_as) as peer_uri:
        stock.pgbench(cluster.postgres, peer_uri, "-i", "-q", "-s", SCALE)
        for clients in CLIENTS:
            def run(uri, clients=clients):
                return stock.tps(stock.pgbench(cluster.postgres, uri, "-n", "-c", clients, "-j", "2", "-T", SECONDS))
            ours, theirs = [], []
            for _ in range(ROUNDS):
                ours.append(run(branch.uri()))
                theirs.append(run(peer_uri))
            value, peer = statistics.median(ours), statistics.median(theirs)
            emit(f"tpcb_c{clients}_against_{name}", value, "tps", what, peer, value / peer, ">= 1.0 x stock", value >= peer)


def run(build, emit):
    with running(build, local_cache_mb=1024) as cluster:
        main = cluster.create_project("peers").main()
        main.connect().close()
        main.pgbench("-i", "-q", "-s", SCALE)
        for name in PEERS:
            against(name, cluster, main, emit)
