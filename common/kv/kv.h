/*
 * kv.h - an ordered key-value store in a folder (RocksDB), the only place that includes
 * rocksdb/c.h.
 *
 * Keys order by memcmp. All calls block: use them from workers or at start. Threads: [any] on one
 * kv, but an iterator belongs to one thread. Destroy every iterator before kv_close().
 *
 * A full disk is ERR_FULL and ends by itself: what writes is refused, what reads goes on. When
 * there is room again the next write opens the store anew in place; readers wait for the moment
 * that this takes, and it waits for iterators to be destroyed. Any other failure that stops RocksDB
 * is ERR_FAILED from then on: close the store and open it again.
 */
#pragma once

#include "common/base/bytes.h"
#include "common/kv/kv_filter.h"

struct kv;
struct kv_batch;
struct kv_iter;

struct kv_options {
    size_t prefix_size;        /* 0: none; else bloom/ribbon filters on this fixed key prefix */
    size_t block_cache_bytes;  /* 0: 32 MiB; shared by all kvs that were opened with cache NULL */
    size_t write_buffer_bytes; /* 0: 4 MiB */
    struct kv_filter *filter;  /* NULL: compactions keep everything; must outlive the kv */
};

NODISCARD err_t
kv_open(const char *path, const struct kv_options *options, struct kv **ret_kv, struct errmsg *msg);
void kv_close(struct kv *kv); /* NULL is fine */

enum kv_durability {
    KV_SYNCED,   /* in the write-ahead log and synced before it returns; group commit inside */
    KV_VOLATILE, /* no log: durable only after kv_flush; a crash loses a suffix, never the middle */
};

struct kv_batch *kv_batch_create(void);
void kv_batch_destroy(struct kv_batch *batch);
void kv_batch_clear(struct kv_batch *batch);
void kv_batch_put(struct kv_batch *batch, struct bytes key, struct bytes value);
void kv_batch_delete(struct kv_batch *batch, struct bytes key);
void kv_batch_delete_range(struct kv_batch *batch, struct bytes begin, struct bytes end);
size_t kv_batch_count(const struct kv_batch *batch);
size_t kv_batch_bytes(const struct kv_batch *batch);

/* All of the batch or nothing. */
NODISCARD err_t
kv_write(struct kv *kv, struct kv_batch *batch, enum kv_durability durability, struct errmsg *msg);
NODISCARD err_t kv_put(struct kv *kv, struct bytes key, struct bytes value, struct errmsg *msg);
NODISCARD err_t kv_delete(struct kv *kv, struct bytes key, struct errmsg *msg);

/* ERR_NOT_FOUND when absent. The value is appended to `to`. */
NODISCARD err_t kv_get(struct kv *kv, struct bytes key, struct buf *to, struct errmsg *msg);

/* Make everything that was written before durable (memtable to disk, synced). */
NODISCARD err_t kv_flush(struct kv *kv, struct errmsg *msg);

/*
 * within_prefix: only keys that share the first prefix_size bytes with the seek key are seen, and
 * filters are used; else total order.
 */
struct kv_iter *kv_iter_create(struct kv *kv, bool within_prefix);
/*
 * Within a prefix, and without I/O: what is not in memory ends the iteration with ERR_BUSY from
 * kv_iter_error(). Does not block: for the loop.
 */
struct kv_iter *kv_iter_create_in_memory(struct kv *kv);
/*
 * In total order, and it ends before `end`: for a walk over neighbours. Filters are not asked, and
 * no block behind the end is read. `end` is copied; at most 64 bytes.
 */
struct kv_iter *kv_iter_create_until(struct kv *kv, struct bytes end);
/* For a pass of the store's own filter. Its error may be that the store is being opened. */
struct kv_iter *kv_iter_create_in_pass(struct kv *kv, bool within_prefix);
void kv_iter_destroy(struct kv_iter *iter);
void kv_iter_seek(struct kv_iter *iter, struct bytes key);          /* first key >= key */
void kv_iter_seek_for_prev(struct kv_iter *iter, struct bytes key); /* last key <= key */
void kv_iter_next(struct kv_iter *iter);
void kv_iter_prev(struct kv_iter *iter);
bool kv_iter_valid(const struct kv_iter *iter);
struct bytes kv_iter_key(const struct kv_iter *iter); /* a view until the iterator moves */
struct bytes kv_iter_value(const struct kv_iter *iter);
/* Check after the iterator became invalid: a failed read also looks like the end. */
NODISCARD err_t kv_iter_error(const struct kv_iter *iter, struct errmsg *msg);

/*
 * Sorted files beside the log: written apart, then taken in by the store as they are, so that the
 * bytes pass neither through a memtable nor through the log. `path` lies in the file system of the
 * store. One writer belongs to one thread.
 */
struct kv_file;

NODISCARD err_t
kv_file_create(struct kv *kv, const char *path, struct kv_file **ret_file, struct errmsg *msg);
/* Keys strictly ascending; anything else is ERR_INVALID. */
NODISCARD err_t
kv_file_put(struct kv_file *file, struct bytes key, struct bytes value, struct errmsg *msg);
uint64_t kv_file_size(struct kv_file *file); /* bytes written so far */
/* The file is whole and synced. ERR_INVALID when it has no key. */
NODISCARD err_t kv_file_finish(struct kv_file *file, struct errmsg *msg);
void kv_file_destroy(struct kv_file *file); /* NULL is fine; the file stays where it is */

/*
 * The files become part of the store, all or none, durable when it returns; they are moved. What
 * they hold is newer than everything that was there. Their key ranges must not overlap each other.
 */
NODISCARD err_t
kv_ingest(struct kv *kv, const char *const *paths, size_t count, struct errmsg *msg);
/* Files that every read has to look into until compaction has merged them. */
uint64_t kv_level0_files(struct kv *kv);
/* A compaction runs, or is due. */
bool kv_is_compacting(struct kv *kv);
/* A number that is another one when the set of sorted files is. */
uint64_t kv_files_stamp(struct kv *kv);

/* A consistent copy of the store in a new folder of the same file system, by hard links. */
NODISCARD err_t kv_checkpoint(struct kv *kv, const char *path, struct errmsg *msg);

/* The keys of [begin, end). */
struct kv_range {
    struct bytes begin, end;
};
/* Drop the ranges now: whole files at once, the rest by a range delete and a compaction. */
NODISCARD err_t
kv_erase_ranges(struct kv *kv, const struct kv_range *ranges, size_t count, struct errmsg *msg);
/* Bytes on disk in [begin, end), approximate. */
uint64_t kv_size_of_range(struct kv *kv, struct bytes begin, struct bytes end);

/*
 * Rewrite all files now, through the filter as it is at the call; others read and write meanwhile.
 */
NODISCARD err_t kv_compact(struct kv *kv, struct errmsg *msg);
void kv_stop_compacting(struct kv *kv); /* kv_compact() ends soon, now and later */

/* [any], does not block: it is stopped by a full disk. A write, also an empty one, may mend it. */
bool kv_waits_for_room(const struct kv *kv);
