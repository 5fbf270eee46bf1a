/*
 * touched.h - the pages that one WAL record changes: its block references and those it implies.
 *
 * A reader of its own, apart from the pageserver's decoder, so that a mistake there shows. It knows
 * pages only: no relation sizes, no other state. Threads: [any].
 */
#pragma once

#include "common/pg/wal_record.h"

#define TOUCHED_MAX 256

struct touched_page {
    struct page_key key;
    uint8_t block_index; /* or VALUE_BLOCK_IMPLIED */
    bool starts_empty;   /* the record makes the page from nothing */
};

struct touched {
    size_t count;
    bool overflow; /* more pages than TOUCHED_MAX: a commit with very many subtransactions */
    struct touched_page pages[TOUCHED_MAX];
    bool truncates; /* pages of `truncated` from block truncated.block on are gone */
    struct page_key truncated;
    uint32_t map_blocks; /* what is left of its visibility map */
};

void touched_by(const struct wal_record *record, bool commit_ts, struct touched *ret_touched);
