/*
 * redo.h - Postgres' redo, natively: one WAL record applied to one page.
 *
 * A pure function: block in, block out; no allocation, no system call, no globals, bounded time.
 * The record and the page are untrusted: every offset that comes out of them is checked, and a
 * record that does not fit its page is ERR_CORRUPT with the page left undefined (the caller drops
 * it). Byte for byte what Postgres 17 makes of it, pd_lsn included, pd_checksum excepted.
 * Sources: src/backend/access (heapam.c, nbtxlog.c, clog.c, multixact.c, sequence.c,
 * visibilitymap.c, xloginsert.c) of Postgres 17. Threads: [any].
 */
#pragma once

#include "common/pg/page.h"
#include "common/pg/wal_record.h"

/*
 * Apply `record` to the page `key`, which is block reference `block_index` of the record, or
 * VALUE_BLOCK_IMPLIED for a page that the record changes without a reference: SLRU pages (key.spc
 * == KEY_SPC_STATE), visibility map bits that a heap record clears.
 *
 * `page` is PAGE_SIZE bytes, in and out. For a record that initialises the page (VALUE_INIT) it
 * comes in zeroed. Images of the record are restored here too (apply_image). pd_lsn of a relation
 * page becomes record->end_lsn when the record changed it, as Postgres does; SLRU pages have none.
 *
 * ERR_UNSUPPORTED names resource manager and record; ERR_CORRUPT names record, LSN and what is
 * wrong.
 */
NODISCARD err_t redo_apply(
    const struct wal_record *record,
    uint8_t block_index,
    struct page_key key,
    uint8_t *page,
    struct errmsg *msg);
