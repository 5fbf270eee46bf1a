"""A tenant that floods with 64 connections, and what another one notices of it: latencies alone and beside it."""
import json
import statistics
import subprocess

PG_PROC = 1255


def figures(storage, emit, rounds=4, seconds=4):
    loud, quiet = storage.tenant(0xA1), storage.tenant(0xA2)
    timelines = {tenant: storage.root(tenant) for tenant in (loud, quiet)}
    blocks = storage.rel_size(quiet, timelines[quiet], PG_PROC)
    for tenant in (loud, quiet):
        storage.get_page(tenant, timelines[tenant], PG_PROC, blocks, 1) # warm
    alone, beside, flood = [], [], []
    for _ in range(rounds): # interleaved
        alone.append(storage.get_page(quiet, timelines[quiet], PG_PROC, blocks, seconds)["p99_us"])
        process = subprocess.Popen(
            [str(storage.cluster.build / "tests/bench/flood"), storage.host, storage.port, loud,
             timelines[loud], "1663", "1", str(PG_PROC), str(blocks), "64", "16", str(seconds + 2)],
            stdout=subprocess.PIPE, text=True)
        beside.append(storage.get_page(quiet, timelines[quiet], PG_PROC, blocks, seconds)["p99_us"])
        flood.append(json.loads(process.communicate()[0])["count"] / (seconds + 2))
    solo, value = statistics.median(alone), statistics.median(beside)
    emit("neighbour_p99_beside_a_flood", value, "us", "the same alone, us", solo, value / solo, "<= 3 x alone", value <= 3 * solo)
    emit("flood_rate", statistics.median(flood), "pages/s", "limit: none", 0, 0, "none", True)
