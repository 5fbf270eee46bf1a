/*
 * diff.h - which relations and pages differ between two moments of a tenant: two branches, or one
 * branch at two LSNs.
 *
 * Only what was written on one side and not on the other is looked at: on the timelines that one
 * path has and the other has not, or up to another LSN. Each such page is read on both sides and
 * compared byte for byte, pd_checksum left out. Both sides share whatever came before.
 *
 * Blocking: on workers.
 */
#pragma once

#include "pageserver/store/page_store.h"

#define DIFF_PAGES_MAX   8000000 /* candidates; more is ERR_FULL */
#define DIFF_BLOCKS_KEPT 64      /* block numbers that are listed, a relation */

struct diff_side {
    const struct page_path *path;
    lsn_t lsn;
};

struct diff_relation {
    struct page_key rel;               /* block 0 */
    struct fork_size sizes[2];         /* on either side */
    uint64_t pages;                    /* that differ, or are there on one side only */
    uint32_t blocks[DIFF_BLOCKS_KEPT]; /* the first of them */
};

struct diff {
    struct diff_relation *relations; /* those that differ, in key order */
    size_t count, capacity;
    uint64_t pages_compared;
};

/* A failure leaves nothing to free. */
NODISCARD err_t diff_at(
    struct page_store *store,
    const struct diff_side sides[2],
    struct diff *ret_diff,
    struct errmsg *msg);
void diff_deinit(struct diff *diff);
