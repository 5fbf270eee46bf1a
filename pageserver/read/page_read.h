/*
 * page_read.h - one request of a compute, from "decoded" to "answer in hand": pages, the size of a
 * relation fork, the size of a database.
 *
 * The read waits until the timeline has `not_modified_since`, then reads at min(lsn, last record).
 * A block at or beyond the end of its relation is zeros; a relation that does not exist is
 * ERR_NOT_FOUND. ERR_RANGE: lsn lies before what is kept, or not_modified_since was not reached in
 * time by a request for one LSN; ERR_TIMEOUT: nor by one for the head.
 *
 * Threads: loop only, except the job, which touches the store and the fields it fills.
 */
#pragma once

#include "common/base/clock.h"
#include "common/io/executor.h"
#include "common/wire/page_proto.h"
#include "pageserver/read/page_cache.h"
#include "pageserver/read/turns.h"
#include "pageserver/timeline/timeline.h"

struct page_read;
typedef void (*page_read_done_fn)(struct page_read *read, err_t result);

enum page_read_kind { PAGE_READ_PAGES, PAGE_READ_REL_SIZE, PAGE_READ_DB_SIZE };

enum page_read_state {
    PAGE_READ_IDLE,
    PAGE_READ_WAIT_LSN, /* until the timeline has ingested not_modified_since */
    PAGE_READ_WORK,     /* worker: size, image + records, redo */
};

/* What all reads share. */
struct page_read_service {
    struct executor *executor;
    struct page_cache *cache;
    struct memory_guess *guess; /* NULL: reads in memory are always tried */
    uint64_t wait_timeout_ms;
};

/* Embed it in your own request. Yours again once `done` has been called; reuse keeps its memory. */
struct page_read {
    /* request: filled in by the caller */
    enum page_read_kind kind;
    struct page_key key; /* first block; of a database: spc and db */
    uint32_t count;      /* of blocks, 1 .. GET_PAGE_COUNT_MAX */
    lsn_t lsn, not_modified_since;
    struct turn_share *share; /* the tenant's, joined for as long as it takes; NULL: no turns */

    /* answer */
    lsn_t read_lsn; /* the LSN that was used */
    struct fork_size size;
    uint32_t existing;
    uint64_t bytes;   /* of the database */
    struct buf pages; /* count * PAGE_SIZE */
    struct errmsg msg;

    /* private */
    enum page_read_state state;
    const struct page_read_service *service;
    struct timeline *timeline;
    mono_ns_t begin;
    page_read_done_fn done;
    struct lsn_wait wait;
    struct turn_job turn;
    lsn_t versions[GET_PAGE_COUNT_MAX]; /* LSN of the newest version of each page */
};

/* `done` is called once, never from inside start. */
void page_read_start(
    struct page_read *read,
    const struct page_read_service *service,
    struct timeline *tl,
    page_read_done_fn done);
/* Give up waiting for an LSN: done(ERR_CANCELED) comes from inside. A read at work goes on. */
void page_read_cancel(struct page_read *read);
void page_read_deinit(struct page_read *read); /* frees what reuse kept; only when it is idle */

/*
 * Answer at once from the caches: true when size and every page were there. *ret_pages then points
 * into the cache (count 1) or into `room`; it is valid until the next call into the cache.
 */
bool page_read_cached(
    struct page_read *read,
    const struct page_read_service *service,
    struct timeline *tl,
    struct buf *room,
    struct bytes *ret_pages);

/*
 * Answer one page at once from the layers and the blocks that are in memory, with the redo that it
 * takes: true when nothing had to be read from disk. *ret_pages points into read->pages.
 */
bool page_read_in_memory(
    struct page_read *read,
    const struct page_read_service *service,
    struct timeline *tl,
    struct bytes *ret_pages);
