/*
 * slots.h - logical replication slots of a timeline: STATE_SLOT as wal_decode left it.
 *
 * A slot is its timeline's own: a branch has none of its parent's. From the least restart_lsn of
 * all on, the safekeepers keep the WAL (timeline_unneeded_lsn). docs/design/logical-slots.md.
 * Threads: [any]; these block.
 */
#pragma once

#include "common/pg/slot_message.h"
#include "pageserver/store/page_store.h"

struct slot_view {
    struct slot_message head;
    struct bytes state, snapshot; /* point into the value */
};

/* A value that is not empty. ERR_CORRUPT: it would not make a good file name, or is cut short. */
NODISCARD err_t slot_parse(struct bytes value, struct slot_view *ret_slot, struct errmsg *msg);

/*
 * Where the WAL begins that slots of `timeline` need, as of `lsn`; LSN_NONE: there is none. Slots
 * that are still being made count, if the compute that makes them has not ended since.
 */
NODISCARD err_t slots_needed_lsn(
    struct page_store *store,
    uint32_t timeline,
    lsn_t lsn,
    lsn_t *ret_needed_lsn,
    struct errmsg *msg);
