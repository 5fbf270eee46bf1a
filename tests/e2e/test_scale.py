"""Slopes of the page store at a twentieth of the scale that `tools/bench scale` measures at.

What is compared is work (CPU time of the process, bytes, threads) of the same thing among few and among many, never time
on the clock: a busy machine changes nothing.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

from cluster import ROOT

sys.path.insert(0, str(ROOT / "tests/bench/parts"))

from storage import serving # noqa: E402

PG_PROC = 1255


def cpu_of(storage, work, count):
    """CPU seconds of the pageserver for each of `count` calls of work(n)."""
    before = storage.cpu_s()
    for n in range(count):
        work(n)
    return (storage.cpu_s() - before) / count


def test_a_branch_costs_the_same_among_few_and_among_many(cluster):
    with serving(cluster) as storage:
        tenant = storage.tenant(0xC1)
        root = storage.root(tenant)
        disk = storage.disk(tenant)

        def make(first):
            return lambda n: storage.branch(tenant, first + n, root)
        few = cpu_of(storage, make(2), 500)
        for n in range(4000):
            storage.branch(tenant, 502 + n, root)
        many = cpu_of(storage, make(4502), 500)
        assert many <= 3 * few + 0.0005, (few, many) # the clock of CPU time ticks every 10 ms
        storage.restart()
        assert (storage.disk(tenant) - disk) / 5000 <= 1024, storage.disk(tenant) - disk


def test_a_page_of_the_root_costs_the_same_through_many_ancestors(cluster):
    with serving(cluster, page_cache="0") as storage:
        tenant = storage.tenant(0xD1)
        parent = root = storage.root(tenant)
        for n in range(50):
            parent, _ = storage.branch(tenant, 2 + n, parent)
        blocks = storage.rel_size(tenant, root, PG_PROC)

        def each(timeline):
            before = storage.cpu_s()
            pages = storage.get_page(tenant, timeline, PG_PROC, blocks, 2)["count"]
            return (storage.cpu_s() - before) / pages
        each(root), each(parent) # warm
        near, far = each(root), each(parent)
        assert far <= 3 * near, (near, far)


def test_an_idle_tenant_takes_little_memory_and_no_thread(cluster):
    with serving(cluster) as storage:
        storage.root(storage.tenant(0xF10000))
        memory, threads = storage.memory(), storage.threads()
        for n in range(50):
            storage.tenant(0xF10001 + n)
        assert (storage.memory() - memory) / 50 <= 400 * 1024, storage.memory() - memory
        assert storage.threads() <= threads


def test_a_relation_costs_the_same_among_few_and_among_many(cluster):
    def measure(count):
        with tempfile.TemporaryDirectory() as folder:
            program = pathlib.Path(cluster.build) / "tests/bench/store_relations"
            return json.loads(subprocess.check_output([program, folder, str(count)]))
    few, many = measure(500), measure(5000)
    for name in ("create_us", "size_us", "list_us", "drop_us"):
        assert many[name] <= 5 * few[name] + 5, (name, few, many) # deeper trees, colder caches; not 10 times


def test_an_old_version_of_a_page_costs_the_same_among_few_and_among_many(cluster):
    """All of them in one open layer: 150,000 records of 100 bytes and few images."""
    def measure(count):
        with tempfile.TemporaryDirectory() as folder:
            program = pathlib.Path(cluster.build) / "tests/bench/store_hot_page"
            return json.loads(subprocess.check_output([program, folder, str(count), "254"], stderr=subprocess.DEVNULL))
    few, many = (measure(count)["in_layers"]["cpu_p50_us"] for count in (15_000, 150_000))
    assert many <= 3 * few + 50, (few, many)
