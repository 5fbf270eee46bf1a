/*
 * ingest_batch.h - what one piece of WAL makes: decoder's source and sink over the page store.
 *
 * Answers of the source are as of the end of the record before the one being decoded, versions of
 * this batch included. The store may hold later versions, from before a crash: they are not seen,
 * so that ingest makes the same versions again. Threads: one worker at a time.
 */
#pragma once

#include "pageserver/ingest/wal_decode.h"
#include "pageserver/ingest/wal_ingest.h"
#include "pageserver/timeline/rel_size.h"

struct size_change {
    struct page_key rel;
    struct fork_size size;
};

struct ingest_batch {
    struct wal_state_source source;
    struct wal_sink sink;
    const struct wal_ingest_options *options;
    struct page_store *store;
    const struct page_path *path;
    uint32_t timeline;
    lsn_t lsn;        /* end of the record being decoded: of the versions that are put */
    lsn_t before_lsn; /* end of the record before it: what the source answers for */
    struct page_batch *batch;
    struct rel_size_cache sizes; /* newest ones, this batch included */

    /* For the loop: what to forget. */
    struct page_key *pages;
    size_t page_count, page_capacity;
    struct size_change *size_changes;
    size_t size_count, size_capacity;
};

void ingest_batch_init(struct ingest_batch *batch, const struct wal_ingest_options *options);
void ingest_batch_deinit(struct ingest_batch *batch);
void ingest_batch_begin(struct ingest_batch *batch); /* forget the last piece's changes */
/* Write what is there without the position: not visible to anybody before it is. */
NODISCARD err_t ingest_batch_write_part(struct ingest_batch *batch, struct errmsg *msg);
/* Write what is there and the position, atomically. */
NODISCARD err_t ingest_batch_commit(
    struct ingest_batch *batch, struct ingest_position position, struct errmsg *msg);
