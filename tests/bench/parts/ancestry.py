"""GetPage of a page that nobody has touched since the root, through longer and longer ancestries: collected and rebuilt
each time, because the pageserver is given no cache of finished pages."""
PG_PROC = 1255


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
