"""Branches: what one costs to make and to keep, from the first to the 100,000th, and a restart with all of them."""
import statistics

from smoke import fdatasync_ms, percentile


def cpu_ms(storage, path, count=10):
    """Of the pageserver, a call."""
    storage.request("GET", path)
    before = storage.cpu_s()
    for _ in range(count):
        storage.request("GET", path)
    return (storage.cpu_s() - before) * 1000 / count


def figures(storage, emit, levels=(1, 1_000, 10_000, 100_000), sample=200):
    tenant = storage.tenant(0xC0)
    root = storage.root(tenant)
    memory, disk, made = storage.memory(), storage.disk(tenant), 0
    medians = {}
    for level in levels:
        while made < level - 1:
            made += 1
            storage.branch(tenant, made + 1, root)
        durations, syncs = [], []
        for n in range(sample):
            made += 1
            durations.append(storage.branch(tenant, made + 1, root)[1])
            if n % 10 == 0:
                syncs += fdatasync_ms(storage.cluster.folder, 10)
        if level == 10_000: # what control asks for beside its polls, where something has changed
            size, poll = cpu_ms(storage, f"/v1/tenants/{tenant}/size"), cpu_ms(storage, f"/v1/tenants/{tenant}")
            emit(f"size_cpu_of_{made}_branches", size, "ms", "the list that a poll gets, ms", poll, size / poll, "<= 2 x", size <= 2 * poll)
        p99, sync = percentile(durations, 0.99), percentile(syncs, 0.99)
        medians[level] = statistics.median(durations)
        emit(f"branch_create_p99_at_{level}", p99, "ms", "p99 of fdatasync, ms", sync, p99 / (0.5 + 2 * sync),
             "<= 0.5 ms + 2 fdatasync p99", p99 <= 0.5 + 2 * sync)
    first, last = levels[0], levels[-1]
    emit("branch_create_slope", medians[last], "ms", f"median at {first} branches, ms", medians[first],
         medians[last] / medians[first], "flat: <= 1.5", medians[last] <= 1.5 * medians[first])
    seconds = storage.restart()
    emit(f"restart_with_{made}_branches", seconds, "s", "limit, s", 10, seconds / 10, "<= 10 s", seconds <= 10)
    per_disk = (storage.disk(tenant) - disk) / made
    emit("branch_disk_bytes", per_disk, "bytes", "limit, bytes", 1024, per_disk / 1024, "<= 1 KB", per_disk <= 1024)
    per_memory = (storage.memory() - memory) / made
    emit("branch_memory_bytes", per_memory, "bytes", "limit, bytes", 1024, per_memory / 1024, "<= 1 KB", per_memory <= 1024)
