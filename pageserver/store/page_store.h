/*
 * page_store.h - the versions of everything that one tenant's timelines keep: the newest in layers
 * in memory, the rest in one kv.
 *
 * Keys and values: common/pg/page_key.h. A page_writer puts versions into its timeline's open
 * layer, where readers find them at once. A flush takes the layers of all timelines away from their
 * writers, writes them in key order into files, and takes these into the kv in one step: that step
 * carries each timeline's ingest position, so that after a crash the position never lies beyond the
 * versions: ingest goes on from it and writes the same keys again. What is no version (rows of
 * timelines, counters) is a meta record under timeline number 0: synced at once.
 *
 * Threads: [any], but a page_reader, a page_writer and a page_import belong to one thread at a
 * time. All calls block, but those marked [quick].
 */
#pragma once

#include "common/pg/page.h"
#include "common/pg/page_key.h"

#define TIMELINE_NUMBER_META 0u

struct gc_source;
struct page_store;
struct page_writer;
struct page_import;
struct page_reader;

struct page_store_options {
    size_t block_cache_bytes; /* shared by all stores of the process */
    struct gc_source *gc; /* what compactions must keep; NULL: everything. Outlives the store. */
};

NODISCARD err_t page_store_open(
    const char *path,
    const struct page_store_options *options,
    struct page_store **ret_store,
    struct errmsg *msg);
void page_store_close(struct page_store *store); /* NULL is fine; flush before */

/* How far a timeline's WAL is in the store. */
struct ingest_position {
    lsn_t lsn;             /* end of the last record */
    lsn_t prev_record_lsn; /* begin of that record: xl_prev of the next one */
};

/*
 * The way into a timeline's open layer. Several writers of one timeline are fine: each version is
 * put whole. Put and commit are [quick] and cannot fail: memory is bounded by whoever asks
 * page_store_open_bytes() before the next piece of work.
 */
NODISCARD err_t page_writer_open(
    struct page_store *store,
    uint32_t timeline,
    struct page_writer **ret_writer,
    struct errmsg *msg);
void page_writer_close(struct page_writer *writer); /* NULL is fine */
/*
 * `value` without tag and block index; the index is stored for VALUE_INIT and VALUE_DELTA only,
 * whose value is the record that ends at `lsn`.
 */
void page_writer_put(
    struct page_writer *writer,
    struct page_key key,
    lsn_t lsn,
    uint8_t tag,
    uint8_t block_index,
    struct bytes value);
void page_writer_put_rel_size(
    struct page_writer *writer, struct page_key rel, lsn_t lsn, bool exists, uint32_t blocks);
/* Everything up to `position` was put: the next flush makes that durable. */
NODISCARD err_t
page_writer_commit(struct page_writer *writer, struct ingest_position position, struct errmsg *msg);

/*
 * Many versions at one LSN that nobody reads before it ends: past the layers, straight into files,
 * in bounded memory. Nothing of it is there before page_import_finish(), everything durable after.
 */
struct page_import *page_import_create(struct page_store *store, uint32_t timeline, lsn_t lsn);
void page_import_destroy(struct page_import *import); /* NULL is fine; unfinished: it never was */
/* The first failure is kept, and told by every later call. */
NODISCARD err_t page_import_put(
    struct page_import *import,
    struct page_key key,
    uint8_t tag,
    struct bytes value,
    struct errmsg *msg);
NODISCARD err_t page_import_put_rel_size(
    struct page_import *import, struct page_key rel, uint32_t blocks, struct errmsg *msg);
/* `position` may be NULL: it is committed later, by whoever imports. */
NODISCARD err_t page_import_finish(
    struct page_import *import, const struct ingest_position *position, struct errmsg *msg);

/* Everything that was written before is durable when it returns. One at a time. */
NODISCARD err_t page_store_flush(struct page_store *store, struct errmsg *msg);
/*
 * A copy of the store as of now in the new folder `path`, by hard links: sorted files, and beside
 * them the small files that make a store of them. What no flush has taken is not in it.
 */
NODISCARD err_t
page_store_checkpoint(struct page_store *store, const char *path, struct errmsg *msg);
/* Compaction is behind: each flush now makes every read slower. */
bool page_store_is_behind(struct page_store *store);
/*
 * [quick] A full disk has stopped it. What reads goes on; a flush lets it go on when there is room.
 */
bool page_store_waits_for_room(const struct page_store *store);
/* A compaction runs, or is due. */
bool page_store_is_compacting(struct page_store *store);
/* [quick] Bytes in layers that no flush has taken yet. */
uint64_t page_store_open_bytes(const struct page_store *store);
/* [quick] Bytes that a flush took and has not finished with: it is at work, or it failed. */
uint64_t page_store_frozen_bytes(const struct page_store *store);
/* [quick] Memory of the layers of all stores of the process. */
size_t page_stores_memory(void);

/* ERR_NOT_FOUND when the timeline has none yet. */
NODISCARD err_t page_store_position(
    struct page_store *store,
    uint32_t timeline,
    struct ingest_position *ret_position,
    struct errmsg *msg);

/*
 * Every version of these timelines goes, and their disk space comes back. Nobody reads or writes
 * them any more; not at the same time as a flush.
 */
NODISCARD err_t page_store_erase(
    struct page_store *store, const uint32_t *timelines, size_t count, struct errmsg *msg);
/* Rewrite what is on disk without what the gc source does not keep; others work meanwhile. */
NODISCARD err_t page_store_compact(struct page_store *store, struct errmsg *msg);
/* A number that is another one when the set of sorted files is: flushes and compactions. */
uint64_t page_store_files_stamp(struct page_store *store);
void page_store_stop_compacting(struct page_store *store); /* now and for good */
uint64_t page_store_size(struct page_store *store);        /* of all timelines, on disk */
uint64_t page_store_size_of(struct page_store *store, uint32_t timeline); /* approximate */

/* Meta records: one synced write for the whole list; a value with data NULL deletes. */
enum meta_kind {
    META_TENANT = 1,      /* id 0 */
    META_NEXT_NUMBER = 2, /* id 0: the next timeline number */
    META_TIMELINE = 3,    /* id: timeline number */
    META_RETENTION = 4,   /* id 0: how much history is kept */
    META_CUTOFF = 5,      /* id: timeline number */
    META_LEASE = 6,       /* id: lease number */
    META_WORKING_SET = 7, /* id: timeline number */
};

struct meta_change {
    enum meta_kind kind;
    uint32_t id;
    struct bytes value;
};

NODISCARD err_t page_store_meta_write(
    struct page_store *store, const struct meta_change *changes, size_t count, struct errmsg *msg);
/*
 * Meta records that were written are in files: no checkpoint has what a compaction does later
 * without having them. Before compactions may drop what the records allow them to.
 */
NODISCARD err_t page_store_meta_settle(struct page_store *store, struct errmsg *msg);
/* The value is appended; ERR_NOT_FOUND. */
NODISCARD err_t page_store_meta_get(
    struct page_store *store, enum meta_kind kind, uint32_t id, struct buf *to, struct errmsg *msg);
/* In order of id. */
NODISCARD err_t page_store_meta_list(
    struct page_store *store,
    enum meta_kind kind,
    err_t (*visit)(uint32_t id, struct bytes value, void *context, struct errmsg *msg),
    void *context,
    struct errmsg *msg);

/*
 * Where a timeline finds its versions: itself first, then its ancestors, each only up to max_lsn
 * (the branch LSN of its child on the path; UINT64_MAX for the timeline itself). Immutable.
 */
struct page_span {
    uint32_t timeline;
    lsn_t max_lsn;
};

struct page_path {
    size_t count;
    struct page_span spans[];
};

/* The versions that one read needs, newest first; reused from read to read. */
struct page_version {
    uint32_t timeline; /* where it lies */
    lsn_t lsn;
    uint8_t tag, block_index;
    size_t begin, size; /* of the value (without tag and index) in `bytes` */
};

struct page_versions {
    struct page_version *items;
    size_t count, capacity;
    struct buf bytes;
};

#define PAGE_VERSIONS_BYTES_MAX (256 * MIB) /* of one read; more is ERR_FULL */

void page_versions_deinit(struct page_versions *versions);
static inline struct bytes page_version_value(
    const struct page_versions *versions, const struct page_version *version)
{
    return bytes_of(versions->bytes.data + version->begin, version->size);
}

/* [quick] Sees what was written before it was created. `path` must outlive it. */
struct page_reader *page_reader_create(struct page_store *store, const struct page_path *path);
/* The same for page_reader_collect, _state and _rel_size without I/O, [quick]: what is not in
 * memory is ERR_BUSY. */
struct page_reader *page_reader_create_in_memory(
    struct page_store *store, const struct page_path *path);
void page_reader_destroy(struct page_reader *reader);
/* [quick] It sees what was written before now; less work than a new one when no flush came between.
 * A reader that is kept keeps files that compaction has replaced: not for longer than a job. */
void page_reader_refresh(struct page_reader *reader);

/*
 * [quick] The pages from `first` on will be collected, mostly all of them and in order: then they
 * are walked over instead of being looked up one by one. It changes nothing else. At most as many
 * as there can be: first.block + count <= KEY_BLOCK_SIZE.
 */
void page_reader_expect(struct page_reader *reader, struct page_key first, uint32_t count);

/*
 * Versions of `key` with LSN <= lsn, newest first, up to and including the one that ends a
 * read. Nothing is fine: `count` 0. ERR_CORRUPT for a value that is none of ours.
 */
NODISCARD err_t page_reader_collect(
    struct page_reader *reader,
    struct page_key key,
    lsn_t lsn,
    struct page_versions *versions,
    struct errmsg *msg);

/*
 * The newest state of `key` at `lsn` without its tag, appended; ERR_NOT_FOUND when there is none.
 */
NODISCARD err_t page_reader_state(
    struct page_reader *reader,
    struct page_key key,
    lsn_t lsn,
    struct buf *to,
    lsn_t *ret_lsn,
    struct errmsg *msg);

struct fork_size {
    bool exists;
    uint32_t blocks;
    lsn_t lsn; /* of the version; 0: there is none */
};

/* A fork without any version does not exist: ERR_OK and exists false. */
NODISCARD err_t page_reader_rel_size(
    struct page_reader *reader,
    struct page_key rel,
    lsn_t lsn,
    struct fork_size *ret_size,
    struct errmsg *msg);

typedef err_t (*page_relation_fn)(
    struct page_key rel, uint32_t blocks, void *context, struct errmsg *msg);

/*
 * Every fork that exists at `lsn`, in key order: of one database, or of all when spc is
 * KEY_SPC_STATE.
 */
NODISCARD err_t page_reader_relations(
    struct page_reader *reader,
    uint32_t spc,
    uint32_t db,
    lsn_t lsn,
    page_relation_fn visit,
    void *context,
    struct errmsg *msg);

/*
 * Every page, and every fork's size (block KEY_BLOCK_SIZE), that has a version with from < LSN <=
 * to on the timeline of span `span` of the path. In no order; a key may come twice.
 */
NODISCARD err_t page_reader_written(
    struct page_reader *reader,
    size_t span,
    lsn_t from,
    lsn_t to,
    err_t (*visit)(struct page_key key, void *context, struct errmsg *msg),
    void *context,
    struct errmsg *msg);

/* Every key of one kind of state that has a version at `lsn`, in key order. */
NODISCARD err_t page_reader_state_keys(
    struct page_reader *reader,
    enum state_kind kind,
    lsn_t lsn,
    err_t (*visit)(struct page_key key, void *context, struct errmsg *msg),
    void *context,
    struct errmsg *msg);

/*
 * The same, but of each run of `run` blocks (block / run) that has any key, one or more are enough:
 * what has many pages is listed with a seek a run.
 */
NODISCARD err_t page_reader_state_runs(
    struct page_reader *reader,
    enum state_kind kind,
    uint32_t run,
    lsn_t lsn,
    err_t (*visit)(struct page_key key, void *context, struct errmsg *msg),
    void *context,
    struct errmsg *msg);

/*
 * The first key of STATE_COMMIT_TIME on the path whose time is > `time` (in LSN order, so the
 * oldest ancestor first): the start LSN of its record. ERR_NOT_FOUND when none is.
 */
NODISCARD err_t page_reader_commit_after(
    struct page_reader *reader, uint64_t time, lsn_t lsn, lsn_t *ret_lsn, struct errmsg *msg);

/* The newest time of STATE_COMMIT_TIME on the path at `lsn`; ERR_NOT_FOUND when there is none. */
NODISCARD err_t page_reader_newest_commit(
    struct page_reader *reader, lsn_t lsn, uint64_t *ret_time, struct errmsg *msg);
