/*
 * wal_decode.h - one WAL record to the list of versions that it makes. Pure.
 *
 * Threads: one owner per decoder state. The driver (wal_ingest) puts the list into the store; what
 * depends on more than the record (sizes of relations, newest xid, running checkpoint) is kept in
 * `struct wal_state`, which is loaded from the store at start and changes only here.
 * Sources: heapam.c, xact.c, storage.c, dbcommands_xlog.h, relmapper.h, multixact.h, clog.h,
 * standbydefs.h, pg_control.h of Postgres 17.
 */
#pragma once

#include "common/pg/wal_record.h"

struct wal_state;

/* What the decoder asks the driver for; each answer may come from a cache. */
struct wal_state_source {
    /* Size of a fork as of now: ERR_NOT_FOUND when it does not exist. */
    err_t (*rel_size)(
        struct wal_state_source *source,
        struct page_key rel,
        uint32_t *ret_blocks,
        struct errmsg *msg);
    /* Newest value of a state key, appended to `to`; ERR_NOT_FOUND when there is none. */
    err_t (*state)(
        struct wal_state_source *source, struct page_key key, struct buf *to, struct errmsg *msg);
    /* All relation forks of a database (for drop and file copy), each passed to `visit`. */
    err_t (*relations)(
        struct wal_state_source *source,
        uint32_t spc,
        uint32_t db,
        err_t (*visit)(struct page_key rel, uint32_t blocks, void *context, struct errmsg *msg),
        void *context,
        struct errmsg *msg);
    /*
     * A page as of now, or ERR_NOT_FOUND: for the file copy of a database (relation pages below
     * their size), and to see whether a page of STATE_MULTI_OFFSETS was ever made.
     */
    err_t (*page)(
        struct wal_state_source *source, struct page_key key, uint8_t *to, struct errmsg *msg);
    /* The largest time among the keys of STATE_COMMIT_TIME; ERR_NOT_FOUND when there is none. May
     * be NULL in tests: nothing was committed yet. */
    err_t (*newest_commit_time)(
        struct wal_state_source *source, uint64_t *ret_time, struct errmsg *msg);
};

/*
 * Where the versions go: put copies. Every version has the LSN record->end_lsn. The sizes that
 * wal_state_source tells must include what was put for earlier records; within a record the decoder
 * keeps count itself, and never puts two different versions of one key (a malformed record may name
 * one thing twice). `block_index` counts for VALUE_INIT and VALUE_DELTA only.
 */
struct wal_sink {
    void (*put)(
        struct wal_sink *sink,
        struct page_key key,
        uint8_t tag,
        uint8_t block_index,
        struct bytes value); /* tag and block index as in page_key.h; value without them */
};

/*
 * Load next xid, next multixact, checkpoint, newest commit time from the source, which must outlive
 * the state. ERR_NOT_FOUND: there is neither STATE_CHECKPOINT nor STATE_CONTROL.
 */
NODISCARD err_t
wal_state_create(struct wal_state_source *source, struct wal_state **ret_state, struct errmsg *msg);
void wal_state_destroy(struct wal_state *state);

/* CREATE DATABASE by file copy: reads and emits every page of a database. */
bool wal_decode_copies_database(const struct wal_record *record);

/*
 * Emit everything that `record` changes:
 *
 *   block reference with an image to apply     VALUE_IMAGE, pd_lsn set (not on a new page)
 *     ... if redo goes on after the image      VALUE_INIT (hash splits, GiST follow-right)
 *   block that the record makes from nothing   VALUE_INIT
 *   block at or behind the end of its fork     VALUE_INIT: no older life of the block shows through
 *   any other block                            VALUE_DELTA
 *   fork that grows                            its size, VALUE_ZERO for blocks that were skipped
 *   page without a reference (VM bits, SLRU)   VALUE_DELTA, VALUE_BLOCK_IMPLIED
 *   truncated fork                             its size; on the map page that it now ends in: VM
 *                                              VALUE_DELTA (implied), free space map VALUE_ZERO
 *
 * The free space map is a hint: a page of zeros is always right. ERR_CORRUPT: the record is
 * malformed, nothing usable was emitted, the timeline's ingest stops here and says so. Records of
 * resource managers without redo yet are stored; a read that needs them fails (redo_apply).
 */
NODISCARD err_t wal_decode(
    struct wal_state *state,
    const struct wal_record *record,
    struct wal_sink *sink,
    struct errmsg *msg);
