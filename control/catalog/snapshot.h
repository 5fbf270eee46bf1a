/*
 * snapshot.h - every row of a catalog at one position of its log, in the object store
 * (changelog.h).
 *
 * In pieces, so that neither side needs it in memory as a whole. Without its end it is no snapshot.
 * Blocking. Threads: [any]; commits go on meanwhile.
 */
#pragma once

#include "common/kv/kv.h"
#include "control/catalog/changelog.h"

/* The catalog as it is now, and the position that it is at. `canceled` ends it early. */
NODISCARD err_t snapshot_write(
    struct kv *kv,
    struct objstore *store,
    const atomic_bool *canceled,
    struct changelog_position *ret_position,
    struct errmsg *msg);

/* The newest whole one of before this number; ERR_NOT_FOUND: there is none. */
NODISCARD err_t
snapshot_find(struct objstore *store, uint64_t before, uint64_t *ret_seq, struct errmsg *msg);
/* All its rows, in batches, and the position. An error names the object. */
NODISCARD err_t snapshot_read(
    struct objstore *store,
    uint64_t seq,
    struct kv *to,
    struct changelog_position *ret_position,
    struct errmsg *msg);

/* The row of the kv that says where in the log it is: no row of the catalog's own. */
void position_put(struct kv_batch *batch, struct changelog_position position);
/* Zero when there is none. */
NODISCARD err_t
position_get(struct kv *kv, struct changelog_position *ret_position, struct errmsg *msg);
