#include "common/kv/kv.h"

#include "common/base/assert.h"
#include "common/base/checksum.h"
#include "common/base/mem.h"
#include "common/kv/kv_private.h"

#define BLOCK_CACHE_DEFAULT  (32 * MIB)
#define WRITE_BUFFER_DEFAULT (4 * MIB)
#define BLOCK_SIZE           (16 * KIB)
#define FILTER_BITS          10.0
#define OPEN_FILES_MAX       512
#define CHECKSUM_XXH3        4
#define BLOCK_CACHE_TIER     1
#define INFO_LOG_FATAL       4
#define NOT_IN_MEMORY        "Result incomplete"
#define ITER_END_MAX         64

/* Options that have no setter in the C API; they must come before all setters. */
#define OPTIONS_TEXT                                                                               \
    "periodic_compaction_seconds=172800;compaction_pri=kMinOverlappingRatio;"                      \
    "avoid_unnecessary_blocking_io=true;allow_fallocate=false"

struct kv_batch {
    rocksdb_writebatch_t *writes;
    size_t bytes;
};

struct kv_iter {
    rocksdb_iterator_t *iter; /* NULL: there is nothing to see, `failure` says why */
    struct kv *kv;
    bool is_inside; /* the gate */
    err_t failure;
    struct errmsg *why;
    rocksdb_readoptions_t *options; /* its own, or NULL */
    uint8_t end[ITER_END_MAX];      /* RocksDB looks at it as long as it lives */
};

struct kv_file {
    rocksdb_sstfilewriter_t *writer;
    rocksdb_envoptions_t *env_options;
    const struct kv *kv;
};

/* What all stores of the process share: made by the first kv_open, never freed. */
static pthread_once_t shared_once = PTHREAD_ONCE_INIT;
static rocksdb_env_t *shared_env;
static rocksdb_cache_t *shared_cache;
static _Atomic size_t shared_cache_bytes;

static void shared_init(void)
{
    shared_env = rocksdb_create_default_env();
    rocksdb_env_set_background_threads(shared_env, 2);               /* compactions */
    rocksdb_env_set_high_priority_background_threads(shared_env, 1); /* flushes */
    rocksdb_lru_cache_options_t *options = rocksdb_lru_cache_options_create();
    rocksdb_lru_cache_options_set_capacity(options, shared_cache_bytes);
    rocksdb_lru_cache_options_set_num_shard_bits(options, 4);
    shared_cache = rocksdb_cache_create_lru_opts(options);
    rocksdb_lru_cache_options_destroy(options);
}

/* A full disk is back-pressure and ends by itself: kv_gate.c. */
err_t kv_take_error(const struct kv *kv, char *text, struct errmsg *msg)
{
    if (text == NULL) {
        return ERR_OK;
    }
    err_t err = ERR_IO;
    if (strstr(text, "No space left") != NULL || strstr(text, "quota exceeded") != NULL) {
        err = ERR_FULL;
    } else if (strncmp(text, "Corruption", strlen("Corruption")) == 0) {
        err = ERR_CORRUPT;
    } else if (
        strstr(text, "/LOCK: ") != NULL ||
        strncmp(text, NOT_IN_MEMORY, strlen(NOT_IN_MEMORY)) == 0) {
        err = ERR_BUSY;
    }
    err = err_set(msg, err, "store %s: %s", kv->path, text);
    rocksdb_free(text);
    return err;
}

static uint64_t background_errors(struct kv *kv)
{
    uint64_t errors = 0;
    return rocksdb_property_int(kv->db, "rocksdb.background-errors", &errors) == 0 ? errors : 0;
}

/* Inside; not any more when it returns. */
static err_t take_write_error(struct kv *kv, char *text, struct errmsg *msg)
{
    if (text != NULL) {
        kv_look_whether_stopped(kv, false);
    }
    err_t err = kv_take_error(kv, text, msg);
    kv_leave(kv);
    return err;
}

static void set_table_options(rocksdb_options_t *options, size_t prefix_size)
{
    rocksdb_block_based_table_options_t *table = rocksdb_block_based_options_create();
    rocksdb_block_based_options_set_format_version(table, 5);
    rocksdb_block_based_options_set_checksum(table, CHECKSUM_XXH3);
    rocksdb_block_based_options_set_block_size(table, BLOCK_SIZE);
    rocksdb_block_based_options_set_filter_policy(
        table, rocksdb_filterpolicy_create_ribbon_hybrid(FILTER_BITS, 1));
    rocksdb_block_based_options_set_whole_key_filtering(table, prefix_size == 0);
    rocksdb_block_based_options_set_block_cache(table, shared_cache);
    rocksdb_block_based_options_set_cache_index_and_filter_blocks(table, 1);
    rocksdb_block_based_options_set_cache_index_and_filter_blocks_with_high_priority(table, 1);
    rocksdb_block_based_options_set_pin_l0_filter_and_index_blocks_in_cache(table, 1);
    rocksdb_block_based_options_set_pin_top_level_index_and_filter(table, 1);
    rocksdb_options_set_block_based_table_factory(options, table); /* copies */
    rocksdb_block_based_options_destroy(table);
}

static void set_options(rocksdb_options_t *options, const struct kv_options *wanted)
{
    size_t write_buffer =
        wanted->write_buffer_bytes == 0 ? WRITE_BUFFER_DEFAULT : wanted->write_buffer_bytes;
    rocksdb_options_set_create_if_missing(options, 1);
    rocksdb_options_set_env(options, shared_env);
    rocksdb_options_set_max_open_files(options, OPEN_FILES_MAX);
    rocksdb_options_set_skip_stats_update_on_db_open(options, 1);
    rocksdb_options_set_max_file_opening_threads(options, 1);
    rocksdb_options_set_table_cache_numshardbits(options, 2);
    rocksdb_options_set_write_buffer_size(options, write_buffer);
    rocksdb_options_set_max_write_buffer_number(options, 2); /* flushes stay in order */
    rocksdb_options_set_compaction_style(options, rocksdb_level_compaction);
    rocksdb_options_set_num_levels(options, 7);
    rocksdb_options_set_level_compaction_dynamic_level_bytes(options, 1);
    rocksdb_options_set_level0_file_num_compaction_trigger(options, 4);
    /* Whoever ingests files watches their number; the few small writes are not to wait for it. */
    rocksdb_options_set_level0_slowdown_writes_trigger(options, 1000);
    rocksdb_options_set_level0_stop_writes_trigger(options, 2000);
    rocksdb_options_set_target_file_size_base(options, 64 * MIB);
    rocksdb_options_set_max_bytes_for_level_base(options, 512 * MIB);
    rocksdb_options_set_max_compaction_bytes(options, 2 * GIB);
    rocksdb_options_set_max_subcompactions(options, 1);
    rocksdb_options_set_max_background_jobs(options, 2);
    rocksdb_options_set_compression(options, rocksdb_lz4_compression);
    rocksdb_options_set_advise_random_on_open(options, 0); /* the system sees who reads in order */
    rocksdb_options_set_bytes_per_sync(options, MIB);
    rocksdb_options_compaction_readahead_size(options, 2 * MIB);
    rocksdb_options_set_optimize_filters_for_hits(options, 0);
    rocksdb_options_set_enable_blob_files(options, 0);
    rocksdb_options_set_stats_dump_period_sec(options, 0);
    rocksdb_options_set_stats_persist_period_sec(options, 0);
    rocksdb_options_set_keep_log_file_num(options, 2);
    rocksdb_options_set_max_log_file_size(options, 4 * MIB);
    /* Its text log has the options and no more: on a full disk the second line is an assertion of
     * Debian's build. What goes wrong the calls say. */
    rocksdb_options_set_info_log_level(options, INFO_LOG_FATAL);
    rocksdb_options_set_max_manifest_file_size(options, 8 * MIB);
    if (wanted->prefix_size > 0) {
        rocksdb_options_set_prefix_extractor(
            options, rocksdb_slicetransform_create_fixed_prefix(wanted->prefix_size));
    }
    if (wanted->filter != NULL) {
        rocksdb_options_set_compaction_filter_factory(options, kv_filter_factory(wanted->filter));
    }
    set_table_options(options, wanted->prefix_size);
}

static err_t open_db(struct kv *kv, const struct kv_options *wanted, struct errmsg *msg)
{
    char *text = NULL;
    if (!kv_has_room(kv->path)) {
        return err_set(msg, ERR_FULL, "store %s: no room on the disk to open it", kv->path);
    }
    rocksdb_options_t *base = rocksdb_options_create();
    kv->options = rocksdb_options_create();
    rocksdb_get_options_from_string(base, OPTIONS_TEXT, kv->options, &text);
    rocksdb_options_destroy(base);
    if (text != NULL) {
        return kv_take_error(kv, text, msg);
    }
    set_options(kv->options, wanted);
    kv->db = rocksdb_open(kv->options, kv->path, &text);
    return kv_take_error(kv, text, msg);
}

err_t kv_open(
    const char *path, const struct kv_options *options, struct kv **ret_kv, struct errmsg *msg)
{
    size_t cache =
        options->block_cache_bytes == 0 ? BLOCK_CACHE_DEFAULT : options->block_cache_bytes;
    size_t none = 0;
    atomic_compare_exchange_strong(&shared_cache_bytes, &none, cache);
    pthread_once(&shared_once, shared_init);

    struct kv *kv = MEM_NEW(struct kv);
    kv->path = mem_strdup(path);
    kv_gate_init(kv);
    err_t err = open_db(kv, options, msg);
    if (err != ERR_OK) {
        kv_close(kv);
        return err;
    }
    kv->write_synced = rocksdb_writeoptions_create();
    rocksdb_writeoptions_set_sync(kv->write_synced, 1);
    kv->write_volatile = rocksdb_writeoptions_create();
    rocksdb_writeoptions_disable_WAL(kv->write_volatile, 1);
    kv->read_total = rocksdb_readoptions_create();
    rocksdb_readoptions_set_total_order_seek(kv->read_total, 1);
    kv->read_prefix = rocksdb_readoptions_create();
    if (options->prefix_size > 0) {
        rocksdb_readoptions_set_prefix_same_as_start(kv->read_prefix, 1);
    }
    kv->read_in_memory = rocksdb_readoptions_create();
    rocksdb_readoptions_set_read_tier(kv->read_in_memory, BLOCK_CACHE_TIER);
    if (options->prefix_size > 0) {
        rocksdb_readoptions_set_prefix_same_as_start(kv->read_in_memory, 1);
    }
    kv->flush = rocksdb_flushoptions_create();
    rocksdb_flushoptions_set_wait(kv->flush, 1);
    kv->ingest = rocksdb_ingestexternalfileoptions_create();
    rocksdb_ingestexternalfileoptions_set_move_files(kv->ingest, 1);
    *ret_kv = kv;
    return ERR_OK;
}

void kv_close(struct kv *kv)
{
    if (kv == NULL) {
        return;
    }
    if (kv->db != NULL) {
        rocksdb_close(kv->db);
    }
    if (kv->write_synced != NULL) {
        rocksdb_writeoptions_destroy(kv->write_synced);
        rocksdb_writeoptions_destroy(kv->write_volatile);
        rocksdb_readoptions_destroy(kv->read_total);
        rocksdb_readoptions_destroy(kv->read_prefix);
        rocksdb_readoptions_destroy(kv->read_in_memory);
        rocksdb_flushoptions_destroy(kv->flush);
        rocksdb_ingestexternalfileoptions_destroy(kv->ingest);
    }
    rocksdb_options_destroy(kv->options);
    kv_gate_deinit(kv);
    mem_free(kv->path);
    mem_free(kv);
}

struct kv_batch *kv_batch_create(void)
{
    struct kv_batch *batch = MEM_NEW(struct kv_batch);
    batch->writes = rocksdb_writebatch_create();
    return batch;
}

void kv_batch_destroy(struct kv_batch *batch)
{
    if (batch != NULL) {
        rocksdb_writebatch_destroy(batch->writes);
        mem_free(batch);
    }
}

void kv_batch_clear(struct kv_batch *batch)
{
    rocksdb_writebatch_clear(batch->writes);
    batch->bytes = 0;
}

/* RocksDB wants a pointer even for nothing. */
static const char *chars(struct bytes bytes)
{
    return bytes.data == NULL ? "" : (const char *)bytes.data;
}

void kv_batch_put(struct kv_batch *batch, struct bytes key, struct bytes value)
{
    rocksdb_writebatch_put(batch->writes, chars(key), key.size, chars(value), value.size);
    batch->bytes += key.size + value.size;
}

void kv_batch_delete(struct kv_batch *batch, struct bytes key)
{
    rocksdb_writebatch_delete(batch->writes, chars(key), key.size);
    batch->bytes += key.size;
}

void kv_batch_delete_range(struct kv_batch *batch, struct bytes begin, struct bytes end)
{
    rocksdb_writebatch_delete_range(batch->writes, chars(begin), begin.size, chars(end), end.size);
    batch->bytes += begin.size + end.size;
}

size_t kv_batch_count(const struct kv_batch *batch)
{
    return (size_t)rocksdb_writebatch_count(batch->writes);
}

size_t kv_batch_bytes(const struct kv_batch *batch)
{
    return batch->bytes;
}

err_t kv_write(
    struct kv *kv, struct kv_batch *batch, enum kv_durability durability, struct errmsg *msg)
{
    char *text = NULL;
    TRY(kv_enter_to_write(kv, msg));
    rocksdb_write(
        kv->db, durability == KV_SYNCED ? kv->write_synced : kv->write_volatile, batch->writes,
        &text);
    return take_write_error(kv, text, msg);
}

err_t kv_put(struct kv *kv, struct bytes key, struct bytes value, struct errmsg *msg)
{
    char *text = NULL;
    TRY(kv_enter_to_write(kv, msg));
    rocksdb_put(kv->db, kv->write_synced, chars(key), key.size, chars(value), value.size, &text);
    return take_write_error(kv, text, msg);
}

err_t kv_delete(struct kv *kv, struct bytes key, struct errmsg *msg)
{
    char *text = NULL;
    TRY(kv_enter_to_write(kv, msg));
    rocksdb_delete(kv->db, kv->write_synced, chars(key), key.size, &text);
    return take_write_error(kv, text, msg);
}

err_t kv_get(struct kv *kv, struct bytes key, struct buf *to, struct errmsg *msg)
{
    char *text = NULL;
    TRY(kv_enter(kv, msg));
    rocksdb_pinnableslice_t *value =
        rocksdb_get_pinned(kv->db, kv->read_total, chars(key), key.size, &text);
    err_t err = kv_take_error(kv, text, msg);
    if (err == ERR_OK && value == NULL) {
        err = err_set(msg, ERR_NOT_FOUND, "store %s: no such key", kv->path);
    } else if (err == ERR_OK) {
        size_t size;
        const char *data = rocksdb_pinnableslice_value(value, &size);
        buf_append(to, data, size);
        rocksdb_pinnableslice_destroy(value);
    }
    kv_leave(kv);
    return err;
}

err_t kv_flush(struct kv *kv, struct errmsg *msg)
{
    char *text = NULL;
    TRY(kv_enter_to_write(kv, msg));
    rocksdb_flush(kv->db, kv->flush, &text);
    return take_write_error(kv, text, msg);
}

static struct kv_iter *open_iter(
    struct kv_iter *iter,
    struct kv *kv,
    const rocksdb_readoptions_t *options,
    err_t (*enter)(struct kv *, struct errmsg *))
{
    struct errmsg why;
    iter->kv = kv;
    iter->failure = enter(kv, &why);
    if (iter->failure != ERR_OK) {
        iter->why = MEM_NEW(struct errmsg);
        *iter->why = why;
        return iter;
    }
    iter->is_inside = true;
    iter->iter = rocksdb_create_iterator(kv->db, options);
    return iter;
}

struct kv_iter *kv_iter_create(struct kv *kv, bool within_prefix)
{
    return open_iter(
        MEM_NEW(struct kv_iter), kv, within_prefix ? kv->read_prefix : kv->read_total, kv_enter);
}

struct kv_iter *kv_iter_create_until(struct kv *kv, struct bytes end)
{
    struct kv_iter *iter = MEM_NEW(struct kv_iter);
    ASSERT(end.size <= sizeof(iter->end));
    memcpy(iter->end, end.data, end.size);
    iter->options = rocksdb_readoptions_create();
    rocksdb_readoptions_set_total_order_seek(iter->options, 1);
    rocksdb_readoptions_set_iterate_upper_bound(iter->options, (char *)iter->end, end.size);
    return open_iter(iter, kv, iter->options, kv_enter);
}

struct kv_iter *kv_iter_create_in_memory(struct kv *kv)
{
    return open_iter(MEM_NEW(struct kv_iter), kv, kv->read_in_memory, kv_try_enter);
}

/* A compaction is over before the store is closed, and may begin before it is open for all. */
struct kv_iter *kv_iter_create_in_pass(struct kv *kv, bool within_prefix)
{
    struct kv_iter *iter = MEM_NEW(struct kv_iter);
    rocksdb_t *db = kv->db;
    iter->kv = kv;
    iter->failure = db == NULL ? ERR_BUSY : ERR_OK;
    if (db != NULL) {
        iter->iter = rocksdb_create_iterator(db, within_prefix ? kv->read_prefix : kv->read_total);
    }
    return iter;
}

void kv_iter_destroy(struct kv_iter *iter)
{
    if (iter == NULL) {
        return;
    }
    if (iter->iter != NULL) {
        rocksdb_iter_destroy(iter->iter);
    }
    if (iter->is_inside) {
        kv_leave(iter->kv);
    }
    if (iter->options != NULL) {
        rocksdb_readoptions_destroy(iter->options);
    }
    mem_free(iter->why);
    mem_free(iter);
}

void kv_iter_seek(struct kv_iter *iter, struct bytes key)
{
    if (iter->iter != NULL) {
        rocksdb_iter_seek(iter->iter, chars(key), key.size);
    }
}

void kv_iter_seek_for_prev(struct kv_iter *iter, struct bytes key)
{
    if (iter->iter != NULL) {
        rocksdb_iter_seek_for_prev(iter->iter, chars(key), key.size);
    }
}

void kv_iter_next(struct kv_iter *iter)
{
    ASSERT(kv_iter_valid(iter));
    rocksdb_iter_next(iter->iter);
}

void kv_iter_prev(struct kv_iter *iter)
{
    ASSERT(kv_iter_valid(iter));
    rocksdb_iter_prev(iter->iter);
}

bool kv_iter_valid(const struct kv_iter *iter)
{
    return iter->iter != NULL && rocksdb_iter_valid(iter->iter) != 0;
}

struct bytes kv_iter_key(const struct kv_iter *iter)
{
    size_t size;
    const char *data = rocksdb_iter_key(iter->iter, &size);
    return bytes_of(data, size);
}

struct bytes kv_iter_value(const struct kv_iter *iter)
{
    size_t size;
    const char *data = rocksdb_iter_value(iter->iter, &size);
    return bytes_of(data, size);
}

err_t kv_iter_error(const struct kv_iter *iter, struct errmsg *msg)
{
    char *text = NULL;
    if (iter->iter == NULL) {
        return err_set(
            msg, iter->failure, "%s", iter->why == NULL ? "it is not open" : iter->why->text);
    }
    rocksdb_iter_get_error(iter->iter, &text);
    return kv_take_error(iter->kv, text, msg);
}

static err_t drop_files(struct kv *kv, const struct kv_range *range, struct errmsg *msg)
{
    char *text = NULL;
    TRY(kv_enter_to_write(kv, msg));
    rocksdb_delete_file_in_range(
        kv->db, chars(range->begin), range->begin.size, chars(range->end), range->end.size, &text);
    return take_write_error(kv, text, msg);
}

/*
 * Files that lie wholly inside go at once. The range tombstones come after them: they are in the
 * log and synced, so that the erased keys do not come back after a crash; the compaction then makes
 * room.
 */
err_t kv_erase_ranges(
    struct kv *kv, const struct kv_range *ranges, size_t count, struct errmsg *msg)
{
    for (size_t i = 0; i < count; i++) {
        TRY(drop_files(kv, &ranges[i], msg));
    }
    struct kv_batch *batch = kv_batch_create();
    for (size_t i = 0; i < count; i++) {
        kv_batch_delete_range(batch, ranges[i].begin, ranges[i].end);
    }
    err_t err = kv_write(kv, batch, KV_SYNCED, msg);
    kv_batch_destroy(batch);
    TRY(err);
    TRY(kv_flush(kv, msg));
    TRY(kv_enter_to_write(kv, msg));
    for (size_t i = 0; i < count; i++) {
        const struct kv_range *range = &ranges[i];
        rocksdb_compact_range(
            kv->db, chars(range->begin), range->begin.size, chars(range->end), range->end.size);
    }
    kv_leave(kv);
    return ERR_OK;
}

/* The call itself cannot fail; what went wrong in the background the store counts. */
err_t kv_compact(struct kv *kv, struct errmsg *msg)
{
    TRY(kv_enter_to_write(kv, msg));
    uint64_t before = background_errors(kv);
    rocksdb_compactoptions_t *options = rocksdb_compactoptions_create();
    rocksdb_compactoptions_set_exclusive_manual_compaction(options, 0);
    /* A compaction that is at work began with an older rule; what it writes is passed over, because
     * it looks like what our own has just written. Those that begin from now on have the new rule.
     */
    uint64_t running = 0;
    bool is_alone =
        rocksdb_property_int(kv->db, "rocksdb.num-running-compactions", &running) == 0 &&
        running == 0;
    rocksdb_compact_range_opt(kv->db, options, NULL, 0, NULL, 0);
    if (!is_alone) {
        rocksdb_compact_range_opt(kv->db, options, NULL, 0, NULL, 0);
    }
    rocksdb_compactoptions_destroy(options);
    uint64_t errors = background_errors(kv) - before;
    bool runs = atomic_load(&kv->health) == KV_RUNS; /* else it was cut short: kv_gate.c */
    kv_leave(kv);
    if (!runs) {
        return err_set(msg, ERR_FULL, "store %s: the disk was full meanwhile", kv->path);
    }
    if (errors > 0) {
        return err_set(
            msg, kv_has_room(kv->path) ? ERR_IO : ERR_FULL,
            "store %s: %" PRIu64 " background errors%s", kv->path, errors,
            kv_has_room(kv->path) ? "" : ", there is no room on the disk");
    }
    return ERR_OK;
}

void kv_stop_compacting(struct kv *kv)
{
    atomic_store(&kv->is_ending, true);
    if (kv_try_enter(kv, NULL) == ERR_OK) {
        rocksdb_disable_manual_compaction(kv->db);
        kv_leave(kv);
    }
}

uint64_t kv_size_of_range(struct kv *kv, struct bytes begin, struct bytes end)
{
    const char *begins[] = {chars(begin)};
    const char *ends[] = {chars(end)};
    size_t begin_sizes[] = {begin.size};
    size_t end_sizes[] = {end.size};
    uint64_t sizes[] = {0};
    char *text = NULL;
    if (kv_enter(kv, NULL) != ERR_OK) {
        return 0;
    }
    rocksdb_approximate_sizes(kv->db, 1, begins, begin_sizes, ends, end_sizes, sizes, &text);
    err_ignore(kv_take_error(kv, text, NULL), "an estimate for people; 0 says that there is none");
    kv_leave(kv);
    return sizes[0];
}

/* -- sorted files -- */

err_t kv_file_create(struct kv *kv, const char *path, struct kv_file **ret_file, struct errmsg *msg)
{
    struct kv_file *file = MEM_NEW(struct kv_file);
    file->kv = kv;
    file->env_options = rocksdb_envoptions_create();
    file->writer = rocksdb_sstfilewriter_create(file->env_options, kv->options);
    char *text = NULL;
    rocksdb_sstfilewriter_open(file->writer, path, &text);
    err_t err = kv_take_error(kv, text, msg);
    if (err != ERR_OK) {
        kv_file_destroy(file);
        return err;
    }
    *ret_file = file;
    return ERR_OK;
}

/* RocksDB's words for keys out of order and for a file without keys: the caller's mistake. */
static err_t take_file_error(const struct kv_file *file, char *text, struct errmsg *msg)
{
    if (text != NULL && strncmp(text, "Invalid argument", strlen("Invalid argument")) == 0) {
        err_t err = err_set(msg, ERR_INVALID, "store %s: sorted file: %s", file->kv->path, text);
        rocksdb_free(text);
        return err;
    }
    return kv_take_error(file->kv, text, msg);
}

err_t kv_file_put(struct kv_file *file, struct bytes key, struct bytes value, struct errmsg *msg)
{
    char *text = NULL;
    rocksdb_sstfilewriter_put(file->writer, chars(key), key.size, chars(value), value.size, &text);
    return text == NULL ? ERR_OK : take_file_error(file, text, msg);
}

uint64_t kv_file_size(struct kv_file *file)
{
    uint64_t size = 0;
    rocksdb_sstfilewriter_file_size(file->writer, &size);
    return size;
}

err_t kv_file_finish(struct kv_file *file, struct errmsg *msg)
{
    char *text = NULL;
    rocksdb_sstfilewriter_finish(file->writer, &text);
    return take_file_error(file, text, msg);
}

void kv_file_destroy(struct kv_file *file)
{
    if (file != NULL) {
        rocksdb_sstfilewriter_destroy(file->writer);
        rocksdb_envoptions_destroy(file->env_options);
        mem_free(file);
    }
}

/* A stop in the background that nobody has seen would be fatal here: see kv_gate.c. */
err_t kv_ingest(struct kv *kv, const char *const *paths, size_t count, struct errmsg *msg)
{
    char *text = NULL;
    TRY(kv_enter_to_write(kv, msg));
    kv_look_whether_stopped(kv, true);
    if (atomic_load(&kv->health) != KV_RUNS) {
        kv_leave(kv);
        TRY(kv_enter_to_write(kv, msg)); /* it says why not */
    }
    rocksdb_ingest_external_file(kv->db, paths, count, kv->ingest, &text);
    return take_write_error(kv, text, msg);
}

uint64_t kv_level0_files(struct kv *kv)
{
    if (kv_enter(kv, NULL) != ERR_OK) {
        return 0;
    }
    char *text = rocksdb_property_value(kv->db, "rocksdb.num-files-at-level0");
    kv_leave(kv);
    ASSERT(text != NULL); /* RocksDB knows the property */
    uint64_t count = 0;
    for (const char *at = text; *at >= '0' && *at <= '9'; at++) {
        count = 10 * count + (uint64_t)(*at - '0');
    }
    rocksdb_free(text);
    return count;
}

bool kv_is_compacting(struct kv *kv)
{
    uint64_t running = 0, pending = 0;
    return rocksdb_property_int(kv->db, "rocksdb.num-running-compactions", &running) != 0 ||
           rocksdb_property_int(kv->db, "rocksdb.compaction-pending", &pending) != 0 ||
           running + pending > 0;
}

uint64_t kv_files_stamp(struct kv *kv)
{
    if (kv_enter(kv, NULL) != ERR_OK) {
        return 0;
    }
    const rocksdb_livefiles_t *files = rocksdb_livefiles(kv->db);
    kv_leave(kv);
    struct buf names = {0};
    for (int i = 0; i < rocksdb_livefiles_count(files); i++) {
        const char *name = rocksdb_livefiles_name(files, i); /* with a number that is used once */
        buf_append(&names, name, strlen(name));
    }
    uint64_t stamp = hash64(names.data, names.size, 0);
    buf_deinit(&names);
    rocksdb_livefiles_destroy(files);
    return stamp;
}

err_t kv_checkpoint(struct kv *kv, const char *path, struct errmsg *msg)
{
    char *text = NULL;
    TRY(kv_enter_to_write(kv, msg));
    rocksdb_checkpoint_t *checkpoint = rocksdb_checkpoint_object_create(kv->db, &text);
    if (text == NULL) {
        rocksdb_checkpoint_create(checkpoint, path, 0, &text); /* 0: with what is in memory */
    }
    if (checkpoint != NULL) {
        rocksdb_checkpoint_object_destroy(checkpoint);
    }
    return take_write_error(kv, text, msg);
}
