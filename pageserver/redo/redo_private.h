/*
 * redo_private.h - what the files of this folder share: the call in progress, and one function a
 * resource manager.
 *
 * Each function applies the record to the one page of the call; its other pages are other calls.
 * The first line of a refusal is written where it is found (err_set); redo_apply() adds record, LSN
 * and page. Threads: [any].
 */
#pragma once

#include "common/pg/cursor.h"
#include "pageserver/redo/page_items.h"
#include "pageserver/redo/redo.h"

struct redo {
    const struct wal_record *record;
    const struct wal_block *block; /* NULL: the page is implied */
    uint8_t block_index;
    uint8_t op; /* info without the low 4 bits */
    struct page_key key;
    uint8_t *page;
    bool keep_lsn; /* set it: Postgres leaves pd_lsn as it is */
    struct errmsg *msg;
};

/* Bits 0x0F of info belong to the WAL machinery, not to the resource manager. */
#define REDO_OP_MASK 0xF0

NODISCARD err_t xlog_redo(struct redo *redo);
NODISCARD err_t xact_redo(struct redo *redo);
NODISCARD err_t smgr_redo(struct redo *redo);
NODISCARD err_t clog_redo(struct redo *redo);
NODISCARD err_t multixact_redo(struct redo *redo);
NODISCARD err_t commit_ts_redo(struct redo *redo);
NODISCARD err_t heap_redo(struct redo *redo);
NODISCARD err_t heap2_redo(struct redo *redo);
NODISCARD err_t btree_redo(struct redo *redo);
NODISCARD err_t hash_redo(struct redo *redo);
NODISCARD err_t gin_redo(struct redo *redo);
NODISCARD err_t gist_redo(struct redo *redo);
NODISCARD err_t seq_redo(struct redo *redo);
NODISCARD err_t spgist_redo(struct redo *redo);
NODISCARD err_t brin_redo(struct redo *redo);
NODISCARD err_t generic_redo(struct redo *redo);

/* Some changes are made on top of an image of the page, too. */
NODISCARD err_t hash_redo_after_image(struct redo *redo);
NODISCARD err_t gist_redo_after_image(struct redo *redo);

/* The refusals that every resource manager needs. */
NODISCARD err_t redo_refuse(struct redo *redo, const char *what);
NODISCARD err_t redo_refuse_short(struct redo *redo); /* the record is too short for its fields */
NODISCARD err_t redo_refuse_block(struct redo *redo); /* no such block reference in this record */
NODISCARD err_t redo_refuse_op(struct redo *redo);    /* an operation that 17 does not know */

/* The block number of reference `index`, or of no reference at all: UINT32_MAX. */
static inline uint32_t redo_block_number(const struct redo *redo, unsigned index)
{
    const struct wal_record *record = redo->record;
    bool has = index < record->block_count && record->blocks[index].in_use;
    return has ? record->blocks[index].key.block : UINT32_MAX;
}

/* Postgres compares transaction ids on a circle; 0, 1 and 2 are permanent and older than all. */
static inline bool xid_precedes(uint32_t a, uint32_t b)
{
    if (a < 3 || b < 3) {
        return a < b;
    }
    return (int32_t)(a - b) < 0;
}
