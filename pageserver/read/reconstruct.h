/*
 * reconstruct.h - the page of one key at one LSN: newest image + the records above it.
 *
 * Blocking: on workers. One `struct reconstruct` serves any number of reads of one thread, one
 * after the other.
 */
#pragma once

#include "pageserver/store/page_store.h"

struct reconstruct {
    struct page_reader *reader;
    bool is_borrowed; /* the reader is the caller's */
    lsn_t lsn;
    struct page_versions versions;
};

void reconstruct_init(
    struct reconstruct *work, struct page_store *store, const struct page_path *path, lsn_t lsn);
/* Without I/O: ERR_BUSY when something is not in memory. For the loop: an image and few records. */
void reconstruct_init_in_memory(
    struct reconstruct *work, struct page_store *store, const struct page_path *path, lsn_t lsn);
/* With a reader of the caller's, who keeps it. */
void reconstruct_init_with(struct reconstruct *work, struct page_reader *reader, lsn_t lsn);
void reconstruct_deinit(struct reconstruct *work);

/*
 * `page` is PAGE_SIZE bytes. *ret_lsn (may be NULL) is the LSN of the newest version, 0 when there
 * is none: then the page is zeros. ERR_CORRUPT and ERR_UNSUPPORTED come from redo and name the
 * record; ERR_FULL: too much history for one read.
 */
NODISCARD err_t reconstruct_page(
    struct reconstruct *work,
    struct page_key key,
    uint8_t *page,
    lsn_t *ret_lsn,
    struct errmsg *msg);

/* Redo alone: what page_reader_collect() found for `key`, put together in `page`. [any] */
NODISCARD err_t reconstruct_apply(
    const struct page_versions *versions, struct page_key key, uint8_t *page, struct errmsg *msg);
