"""GetPage of a page that nobody has touched since the root, through longer and longer ancestries: collected and rebuilt
each time, because the pageserver is given no cache of finished pages."""
import json
import subprocess
import tempfile

PG_PROC = 1255


def with_data(build, emit, depths=(1, 10, 100, 1000)):
    """The same at the store's own door, each branch with 20 pages of its own: tests/bench/store_depth.c."""
    measured = {}
    for _ in range(3): # the best of each: the machine is shared
        with tempfile.TemporaryDirectory(prefix="anabranch-depth-") as folder:
            done = subprocess.run([f"{build}/tests/bench/store_depth", folder, *map(str, depths)], stdout=subprocess.PIPE,
                                  text=True, check=True)
        for depth, value in json.loads(done.stdout).items():
            measured[int(depth)] = min(value, measured.get(int(depth), value))
    first = measured[depths[0]]
    for depth in depths:
        value = measured[depth]
        emit(f"collect_at_depth_{depth}", value, "us of CPU", f"depth {depths[0]}, us", first, value / first,
             "<= 2 x depth 1", value <= 2 * first)


def figures(storage, emit, depths=(1, 10, 100, 1000), seconds=3):
    tenant = storage.tenant(0xD0)
    parent, number = storage.root(tenant), 1
    blocks = storage.rel_size(tenant, parent, PG_PROC)
    measured = {}
    leaves = {}
    while number <= depths[-1]:
        number += 1
        parent, _ = storage.branch(tenant, number, parent)
        if number - 1 in depths:
            leaves[number - 1] = parent
    for _ in range(3): # interleaved, the best of each: the machine is shared
        for depth, leaf in leaves.items():
            p50 = storage.get_page(tenant, leaf, PG_PROC, blocks, seconds)["p50_us"]
            measured[depth] = min(p50, measured.get(depth, p50))
    for depth in depths:
        ratio = measured[depth] / measured[depths[0]]
        emit(f"getpage_at_depth_{depth}", measured[depth], "us", f"depth {depths[0]}, us", measured[depths[0]], ratio,
             "<= 2 x depth 1", ratio <= 2)
