/*
 * wal_repair.h - put the bytes of a damaged group back.
 *
 * The bytes come from somebody else, who is not asked for the truth: the checksum in the group's
 * own sidecar record says whether they are the ones that were acknowledged here. So a repair
 * changes no position, no history and no promise, and it does not matter who had them.
 */
#pragma once

#include "safekeeper/disk/wal_store.h"

/* Where the bytes that have to be fetched begin: what stands before start_lsn is known. */
lsn_t wal_repair_begin_lsn(
    const struct wal_store_options *options, const struct wal_damage *damage);

/*
 * Write `wal`, which is [wal_repair_begin_lsn, damage->end_lsn), and sync it. The store is not
 * open. ERR_CORRUPT: these are other bytes, and nothing was written. [worker]
 */
NODISCARD err_t wal_repair_put(
    const struct wal_store_options *options,
    const struct wal_damage *damage,
    struct bytes wal,
    struct errmsg *msg);
