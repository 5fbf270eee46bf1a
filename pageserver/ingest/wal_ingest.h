/*
 * wal_ingest.h - turns the WAL of one timeline into versions: read, decode, write, advance.
 *
 * WAL bytes are queued on the loop; one job at a time takes a piece of them on a worker, puts the
 * versions into the timeline's open layer and commits the ingest position; then the loop forgets
 * what it had cached about the changed pages, advances the timeline and so wakes readers. While the
 * layers are full no piece is taken: wal_ingest_room() goes on.
 *
 * Failures: a full disk or a memory limit is waited out: what was decoded is dropped and ingest
 * begins again at the timeline's position, exactly as after a crash. Anything else (a record that
 * cannot be read) stops this timeline for good: timeline_fail().
 *
 * Threads: loop only; the job owns reader, decoder and batch while it runs.
 */
#pragma once

#include "common/io/executor.h"
#include "pageserver/timeline/timeline.h"

struct wal_ingest;

struct wal_ingest_user {
    /* These pages are about to change: forget them. Before the timeline advances. */
    void (*on_changed)(struct wal_ingest_user *user, const struct page_key *keys, size_t count);
    void (*on_advanced)(struct wal_ingest_user *user);
    /* The queue has room again after wal_ingest_is_full(). */
    void (*on_room)(struct wal_ingest_user *user);
    /* The queue was dropped: bring WAL from wal_ingest_next_lsn() on. */
    void (*on_restart)(struct wal_ingest_user *user);
    /* After wal_ingest_stop(): no more calls will come; it may be destroyed. */
    void (*on_stopped)(struct wal_ingest_user *user);
};

struct wal_ingest_options {
    struct loop *loop;
    struct executor *executor;
    struct executor *copier;   /* where databases are copied, not to stall others; NULL: the same */
    struct timeline *timeline; /* referenced */
    struct wal_ingest_user *user;
    size_t queue_bytes_max;
    size_t record_size_max; /* bytes kept for one record that is not complete yet */
    /* Bytes of incomplete records of all timelines of the process. Above it one timeline may go on,
     * the others drop theirs and wait: so that there is always one that finishes. */
    size_t records_bytes_max;
    /* Records on a page without an image between them; 0: as many as come. At most 254. */
    unsigned image_after_records;
    /* A page as of `lsn`: for images, and for CREATE DATABASE by file copy. On a worker. */
    err_t (*read_page)(
        struct page_reader *reader,
        struct page_key key,
        lsn_t lsn,
        uint8_t *page,
        struct errmsg *msg);
};

struct wal_ingest *wal_ingest_create(const struct wal_ingest_options *options);
void wal_ingest_stop(struct wal_ingest *ingest);
void wal_ingest_destroy(struct wal_ingest *ingest); /* only after on_stopped; NULL is fine */

/* The byte that wal_ingest_feed() wants next. */
lsn_t wal_ingest_next_lsn(const struct wal_ingest *ingest);
void wal_ingest_room(struct wal_ingest *ingest); /* a flush made room */
bool wal_ingest_is_full(const struct wal_ingest *ingest);
size_t wal_ingest_queued(const struct wal_ingest *ingest); /* bytes that wait */
bool wal_ingest_is_idle(const struct wal_ingest *ingest);  /* nothing waits, nothing runs */

/*
 * Queue WAL that begins at `begin`; what was queued before is skipped. ERR_CORRUPT: it begins
 * behind wal_ingest_next_lsn(). After a failure of the timeline everything is ignored.
 */
NODISCARD err_t
wal_ingest_feed(struct wal_ingest *ingest, lsn_t begin, struct bytes wal, struct errmsg *msg);
