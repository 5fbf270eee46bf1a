/*
 * ingest_batch.h - what one piece of WAL makes: decoder's source and sink over the page store.
 *
 * Versions go straight into the timeline's open layer; nobody is told of their LSNs before the
 * piece is committed. A record that makes more than a layer should hold (CREATE DATABASE by file
 * copy) goes past it into files, which are in the store when the record ends.
 *
 * Where a page has image_after_records records since its last image, the record's version becomes
 * an image, before anybody is told of its LSN: so a read at any LSN applies fewer than that.
 *
 * Answers of the source are as of the end of the record before the one being decoded. The store may
 * hold later versions, from before a crash or a restart: they are not seen, so that ingest makes
 * the same versions again. Threads: one worker at a time.
 */
#pragma once

#include "pageserver/ingest/image_counts.h"
#include "pageserver/ingest/wal_decode.h"
#include "pageserver/ingest/wal_ingest.h"
#include "pageserver/timeline/rel_size.h"

struct size_change {
    struct page_key rel;
    struct fork_size size;
};

/* A page that the record being decoded changed. */
struct touched_page {
    struct page_key key;
    uint8_t tag;
};

struct ingest_batch {
    struct wal_state_source source;
    struct wal_sink sink;
    const struct wal_ingest_options *options;
    struct page_store *store;
    const struct page_path *path;
    uint32_t timeline;
    lsn_t lsn;                   /* end of the record being decoded: of the versions that are put */
    struct page_reader *reader;  /* of the piece; NULL: there was no need */
    lsn_t before_lsn;            /* end of the record before it: what the source answers for */
    struct page_writer *writer;  /* NULL before the first piece */
    struct page_import *import;  /* of the record being decoded; NULL: it is small */
    size_t record_bytes;         /* that it made so far */
    struct rel_size_cache sizes; /* newest ones, this batch included */
    struct image_counts counts;  /* this batch included */
    struct touched_page *touched;
    size_t touched_count, touched_capacity;

    /* For the loop: what to forget. */
    struct page_key *pages;
    size_t page_count, page_capacity;
    struct size_change *size_changes;
    size_t size_count, size_capacity;
    bool slots_changed; /* wal_ingest looks for what they need now */
    bool forget_pages;  /* all of the timeline's: too many to name */
};

void ingest_batch_init(struct ingest_batch *batch, const struct wal_ingest_options *options);
void ingest_batch_deinit(struct ingest_batch *batch);
/* Forget the last piece's changes. */
NODISCARD err_t ingest_batch_begin(struct ingest_batch *batch, struct errmsg *msg);
/* The record was decoded: what it made is in the store. */
NODISCARD err_t ingest_batch_end_record(struct ingest_batch *batch, struct errmsg *msg);
/* The position follows what is there: the next flush makes both durable. */
NODISCARD err_t ingest_batch_commit(
    struct ingest_batch *batch, struct ingest_position position, struct errmsg *msg);
/* The piece is over, committed or not: nothing of the store is held on to. */
void ingest_batch_end(struct ingest_batch *batch);
