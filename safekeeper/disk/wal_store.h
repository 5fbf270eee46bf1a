/*
 * wal_store.h - the WAL of one timeline on disk: Postgres' segment files, each with a sidecar.
 *
 * The unit of writing is the commit group: everything that arrived while the group before it was
 * being synced. A group is one write to the segment and one sidecar record, both synced; the two
 * halves touch different files and may run at the same time on two workers:
 *
 *   loop:    wal_store_group_begin
 *   worker:  wal_store_write_segment  |  worker: wal_store_write_sidecar
 *   loop:    wal_store_group_end      when both are done; only now flush_lsn moves
 *
 * One group is in flight at a time, and nothing else that writes. So each sidecar record proves
 * that all groups before it are durable. At the start every group is checked: bytes of the last,
 * unproven group that do not match were torn by a crash, or acknowledged and damaged since: they
 * are cut and reported as suspect. A mismatch anywhere else is ERR_CORRUPT and the timeline stays
 * out of service, because a shorter log would be amnesia.
 *
 * Errors: ERR_FULL (no space): nothing is lost, repeat the same half later. Anything else: the
 * storage has failed until the store is closed, opened again and verified.
 *
 * A new segment takes a recycled file, if there is one: `recycled.N`, a removed segment without its
 * sidecar, in which no block has to be allocated. Its old bytes are no WAL, because no record of
 * the new sidecar speaks of them.
 *
 * Files are open only between the first write and wal_store_rest(); a timeline without WAL has
 * none. Threads: one owner; the functions marked [worker] block.
 */
#pragma once

#include "common/base/bytes.h"
#include "common/base/id.h"
#include "common/base/str.h"

struct wal_store;

/* Hears, before anything is cut, that records up to `end_lsn` may have been acknowledged. */
struct wal_witness {
    err_t (*on_suspect)(
        struct wal_witness *witness, lsn_t record_lsn, lsn_t end_lsn, struct errmsg *msg);
};

/* Groups whose bytes do not match their records, although they were durable: see wal_repair.h. */
#define WAL_DAMAGE_MAX 256
struct wal_damage {
    lsn_t begin_lsn, end_lsn;
    uint32_t wal_crc;
};
struct wal_damage_list {
    size_t count; /* there may be more when it is full */
    struct wal_damage items[WAL_DAMAGE_MAX];
};

struct wal_store_options {
    const char *dir; /* of the segments; created when missing */
    struct tenant_id tenant;
    struct timeline_id timeline;
    lsn_t start_lsn; /* of the timeline; a record end */
    /* Of the log: segments before the one that holds it do not count. 0: start_lsn. */
    lsn_t begin_lsn;
    /* Of wal_store_open: what is there does not count, the log ends at begin_lsn. */
    bool is_emptied;
    unsigned recycled_max; /* segment files that may be kept for the next ones */
    uint64_t system_id;
    uint32_t segment_size;
    lsn_t certified_lsn;         /* known from elsewhere to have been durable; 0: nothing */
    struct wal_witness *witness; /* of wal_store_open; NULL: nobody wants to know */
    /*
     * With `damage`: when all of it lies behind everything that is known to be committed, cut the
     * log before it and report it as suspect, instead of ERR_CORRUPT. Nobody else has it committed.
     */
    bool is_tail_given_up;
    struct wal_damage_list *damage; /* of wal_store_open: filled when it is ERR_CORRUPT; or NULL */
};

/* Verify everything, cut a torn end, leave zeros behind the end. [worker] */
NODISCARD err_t wal_store_open(
    const struct wal_store_options *options, struct wal_store **ret_store, struct errmsg *msg);
void wal_store_close(struct wal_store *store); /* NULL is fine */

/*
 * What a store that is at rest knows, for who closes it only to save memory: opened with it again,
 * in the same process, nothing is read or verified. At rest: no group was begun, no cut is half
 * done, no file is open.
 */
struct wal_store_position {
    lsn_t flush_lsn, record_lsn, commit_lsn;
    uint64_t sequence, end_segment;
    uint32_t end_slots;
    bool is_last_proven;
};
bool wal_store_is_at_rest(const struct wal_store *store);
struct wal_store_position wal_store_position(const struct wal_store *store);
NODISCARD err_t wal_store_open_at(
    const struct wal_store_options *options,
    const struct wal_store_position *position,
    struct wal_store **ret_store,
    struct errmsg *msg);

lsn_t wal_store_flush_lsn(const struct wal_store *store);  /* end of the durable bytes */
lsn_t wal_store_record_lsn(const struct wal_store *store); /* last record end at or before it */
lsn_t wal_store_commit_lsn(const struct wal_store *store); /* newest that a record carries; or 0 */

#define WAL_GROUP_MAX (1 * MIB)

struct wal_group {
    /* filled in by the caller; begin_lsn is flush_lsn; `wal` lives until group_end */
    struct bytes wal;
    lsn_t record_lsn; /* last record end at or before the end of `wal` */
    lsn_t commit_lsn;

    /* private */
    lsn_t begin_lsn, end_lsn;
    uint32_t slot;
    uint64_t sequence;
};

/* How many bytes the next group may have: it ends at the end of its segment at the latest. */
size_t wal_store_group_room(const struct wal_store *store);

void wal_store_group_begin(struct wal_store *store, struct wal_group *group);
NODISCARD err_t wal_store_write_segment(
    struct wal_store *store, const struct wal_group *group, struct errmsg *msg); /* [worker] */
NODISCARD err_t wal_store_write_sidecar(
    struct wal_store *store, const struct wal_group *group, struct errmsg *msg); /* [worker] */
void wal_store_group_end(struct wal_store *store, const struct wal_group *group);

/* A small group that falls on blocks which exist, in files that are open. */
bool wal_store_is_in_place(const struct wal_store *store, const struct wal_group *group);
/*
 * Instead of the two, for such a group: write both halves and sync neither. That is a copy into the
 * system's cache and waits for no disk, so it may be done on the loop. ERR_OK: the caller has
 * `ret_files` synced, both, before it ends the group. Anything else: the group is still to be
 * written, by the two.
 */
struct wal_store_files {
    int fds[2];
    const char *paths[2]; /* the store's */
};
NODISCARD err_t wal_store_write_in_place(
    struct wal_store *store,
    const struct wal_group *group,
    struct wal_store_files *ret_files,
    struct errmsg *msg);

/*
 * Cut the log to `lsn`, a record end in start_lsn .. flush_lsn; a group that was begun and never
 * ended is dropped. When it answers ERR_OK the cut is durable and zeros stand behind it. [worker]
 */
NODISCARD err_t wal_store_truncate(struct wal_store *store, lsn_t lsn, struct errmsg *msg);

/*
 * Prove the last group by a record of its own, so that damage to it is not taken for a torn end.
 * One sync of the sidecar; nothing else may be written meanwhile. [worker]
 */
NODISCARD err_t wal_store_certify(struct wal_store *store, lsn_t commit_lsn, struct errmsg *msg);
bool wal_store_is_proven(const struct wal_store *store); /* there is nothing to certify */

/*
 * The timeline became idle: prove the last group by a record of its own, keep commit_lsn, and close
 * the files. [worker]
 */
NODISCARD err_t wal_store_rest(struct wal_store *store, lsn_t commit_lsn, struct errmsg *msg);

/*
 * The log ends at `lsn` and is empty, wherever it ended before. Segments go newest first, so what a
 * crash leaves is told from the control file alone: open it with is_emptied. [worker]
 */
NODISCARD err_t wal_store_empty(struct wal_store *store, lsn_t lsn, struct errmsg *msg);

/*
 * WAL before options->begin_lsn will not be read any more: its segments become recycled ones, as
 * many as may be kept, or go. Beside the writer, one at a time. [worker]
 */
NODISCARD err_t wal_store_remove(
    const struct wal_store_options *options, uint64_t *ret_removed, struct errmsg *msg);
/*
 * The last end of a record at or before `lsn` that a sidecar knows of, not before begin_lsn: there
 * is one in each commit group. Beside the writer; `lsn` is durable. [worker]
 */
NODISCARD err_t wal_store_record_end(
    const struct wal_store_options *options, lsn_t lsn, lsn_t *ret_lsn, struct errmsg *msg);
/* The log begins there; while nothing is being written. */
void wal_store_set_begin(struct wal_store *store, lsn_t begin_lsn);

/*
 * Reads with verification, independent of the writer. A reader remembers where it was, so a
 * sequential one opens each segment once.
 */
struct wal_store_reader;
struct wal_store_reader *wal_store_reader_create(const struct wal_store_options *options);
void wal_store_reader_destroy(struct wal_store_reader *reader); /* NULL is fine */

/*
 * Append [begin_lsn, end_lsn) to `to`; the caller knows that the range is durable and will not be
 * truncated. ERR_RANGE: before the start of the timeline, or of the segment in which the log
 * begins. ERR_CORRUPT: damaged, or removed since the reader was made. [worker]
 */
NODISCARD err_t wal_store_reader_read(
    struct wal_store_reader *reader,
    lsn_t begin_lsn,
    lsn_t end_lsn,
    struct buf *to,
    struct errmsg *msg);
