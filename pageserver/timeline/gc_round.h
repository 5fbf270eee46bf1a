/*
 * gc_round.h - one round of GC for a tenant: leases that are over go, and each cutoff moves to
 * where the retention window begins now. Blocking, in the tenant's lane.
 */
#pragma once

#include "common/base/clock.h"
#include "pageserver/timeline/history.h"

/* Where the timeline with this index finds its versions; free it. */
struct page_path *gc_path(const struct gc_tree *tree, size_t index);

NODISCARD err_t
gc_round(struct history *history, struct page_store *store, wall_us_t now, struct errmsg *msg);

/*
 * Where the window of a timeline of the tree begins: the state as of `retention.seconds` ago, or
 * `retention.wal_bytes` before what is durable, whichever is older. Before gc_next_cutoff().
 */
NODISCARD err_t gc_window_begin(
    struct page_store *store,
    const struct gc_tree *tree,
    size_t index,
    struct history_retention retention,
    wall_us_t now,
    lsn_t *ret_lsn,
    struct errmsg *msg);
