#include "pageserver/store/page_store.h"

#include "common/base/assert.h"
#include "common/base/fault.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "common/base/str.h"
#include "common/io/file.h"
#include "common/wire/codec.h"
#include "pageserver/store/gc_pass.h"
#include "pageserver/store/path_view.h"

#define META_BUFFER_BYTES MIB /* only meta records pass through the memtable */
#define INCOMING_FOLDER   "incoming"
#define BUCKETS_MIN       16
#define LEVEL0_FILES_MAX  12
#define FILTER_PAGES_MAX  20000
#define INDEX_FROM        2u    /* timelines: the first ones are asked for every page */
#define INDEX_PAGES_MAX   20000 /* of one timeline */
#define COMPACTIONS_MAX   4 /* of one request; generations of "not there" that hide each other */

METRIC_COUNTER(
    row_writes, "pageserver_store_row_writes_total", "synced writes of rows, however many in each");

static err_t make_incoming(const char *path, char **ret_folder, struct errmsg *msg)
{
    char folder[PATH_SIZE];
    TRY(str_format(folder, sizeof(folder), msg, "%s/" INCOMING_FOLDER, path));
    TRY(dir_remove(folder, msg)); /* files that a crash left before they were ingested */
    TRY(dir_create(folder, msg));
    *ret_folder = mem_strdup(folder);
    return ERR_OK;
}

err_t page_store_open(
    const char *path,
    const struct page_store_options *options,
    struct page_store **ret_store,
    struct errmsg *msg)
{
    struct kv_options kv_options = {
        .prefix_size = PAGE_KEY_PREFIX_SIZE,
        .block_cache_bytes = options->block_cache_bytes,
        .write_buffer_bytes = META_BUFFER_BYTES,
    };
    struct kv *kv = NULL;
    char *folder = NULL;
    struct gc_passes *gc = options->gc == NULL ? NULL : gc_passes_create(options->gc);
    kv_options.filter = gc_passes_filter(gc);
    err_t err = kv_open(path, &kv_options, &kv, msg);
    if (err == ERR_OK) {
        err = make_incoming(path, &folder, msg);
    }
    if (err != ERR_OK) {
        kv_close(kv);
        gc_passes_destroy(gc);
        return err;
    }
    gc_passes_start(gc, kv);
    struct page_store *store = MEM_NEW(struct page_store);
    store->kv = kv;
    store->gc = gc;
    store->folder = folder;
    (void)pthread_mutex_init(&store->lock, NULL);
    list_init(&store->dirty);
    store->index = page_index_create();
    store->bucket_count = BUCKETS_MIN;
    store->buckets = MEM_ARRAY(struct timeline_layers *, store->bucket_count);
    *ret_store = store;
    return ERR_OK;
}

void page_store_close(struct page_store *store)
{
    if (store == NULL) {
        return;
    }
    for (size_t i = 0; i < store->bucket_count; i++) {
        for (struct timeline_layers *layers = store->buckets[i], *next; layers != NULL;
             layers = next) {
            next = layers->next_in_bucket;
            timeline_layers_free(layers);
        }
    }
    path_views_forget(store);
    page_index_destroy(store->index);
    (void)pthread_mutex_destroy(&store->lock);
    mem_free(store->buckets);
    mem_free(store->frozen);
    mem_free(store->folder);
    kv_close(store->kv);
    gc_passes_destroy(store->gc);
    mem_free(store);
}

bool page_store_waits_for_room(const struct page_store *store)
{
    return kv_waits_for_room(store->kv);
}

uint64_t page_store_open_bytes(const struct page_store *store)
{
    return atomic_load_explicit(&store->open_bytes, memory_order_relaxed);
}

uint64_t page_store_frozen_bytes(const struct page_store *store)
{
    return atomic_load_explicit(&store->frozen_bytes, memory_order_relaxed);
}

size_t page_stores_memory(void)
{
    return open_layers_memory();
}

err_t page_store_checkpoint(struct page_store *store, const char *path, struct errmsg *msg)
{
    return kv_checkpoint(store->kv, path, msg);
}

bool page_store_is_behind(struct page_store *store)
{
    return kv_level0_files(store->kv) >= LEVEL0_FILES_MAX;
}

bool page_store_is_compacting(struct page_store *store)
{
    return kv_is_compacting(store->kv);
}

/* -- positions: newest first, like all versions -- */

void position_encode(struct ingest_position position, uint8_t to[POSITION_VALUE_SIZE])
{
    struct writer out = {.next = to, .left = POSITION_VALUE_SIZE};
    put_u64(&out, position.lsn);
    put_u64(&out, position.prev_record_lsn);
}

static err_t position_decode(
    struct bytes value, uint32_t timeline, struct ingest_position *ret_position, struct errmsg *msg)
{
    struct reader in = reader_of(value);
    uint8_t tag = get_u8(&in);
    struct ingest_position position = {.lsn = get_u64(&in), .prev_record_lsn = get_u64(&in)};
    if (in.bad || in.left > 0 || tag != VALUE_STATE) {
        return err_set(
            msg, ERR_CORRUPT, "ingest position of timeline %" PRIu32 " is malformed", timeline);
    }
    *ret_position = position;
    return ERR_OK;
}

/* As the last flush left it. */
static err_t stored_position(
    struct page_store *store,
    uint32_t timeline,
    struct ingest_position *ret_position,
    struct errmsg *msg)
{
    uint8_t key[PAGE_KEY_SIZE];
    page_key_encode(timeline, page_key_state(STATE_INGEST_LSN, 0, 0), UINT64_MAX, key);
    struct kv_iter *iter = kv_iter_create(store->kv, true);
    kv_iter_seek(iter, bytes_of(key, sizeof(key)));
    err_t err = ERR_OK;
    if (kv_iter_valid(iter) && kv_iter_key(iter).size == sizeof(key) &&
        memcmp(kv_iter_key(iter).data, key, PAGE_KEY_PREFIX_SIZE) == 0) {
        err = position_decode(kv_iter_value(iter), timeline, ret_position, msg);
    } else {
        err = kv_iter_error(iter, msg);
        if (err == ERR_OK) {
            err = err_set(
                msg, ERR_NOT_FOUND, "timeline %" PRIu32 " has no ingest position", timeline);
        }
    }
    kv_iter_destroy(iter);
    return err;
}

err_t page_store_position(
    struct page_store *store,
    uint32_t timeline,
    struct ingest_position *ret_position,
    struct errmsg *msg)
{
    (void)pthread_mutex_lock(&store->lock);
    struct timeline_layers *layers = timeline_layers_find(store, timeline);
    (void)pthread_mutex_unlock(&store->lock);
    struct ingest_position position = {0};
    if (layers != NULL) {
        (void)pthread_mutex_lock(&layers->writing);
        position = layers->position;
        (void)pthread_mutex_unlock(&layers->writing);
    }
    if (position.lsn == 0) {
        return stored_position(store, timeline, ret_position, msg);
    }
    *ret_position = position;
    return ERR_OK;
}

/* -- the layers of timelines -- */

static struct timeline_layers **bucket_of(const struct page_store *store, uint32_t timeline)
{
    return &store->buckets[timeline & (store->bucket_count - 1)]; /* numbers are dense */
}

struct timeline_layers *timeline_layers_find(struct page_store *store, uint32_t timeline)
{
    struct timeline_layers *layers = *bucket_of(store, timeline);
    while (layers != NULL && layers->timeline != timeline) {
        layers = layers->next_in_bucket;
    }
    return layers;
}

void timeline_layers_free(struct timeline_layers *layers)
{
    open_layer_unref(layers->open);
    open_layer_unref(layers->frozen);
    key_filter_destroy(layers->filter);
    (void)pthread_mutex_destroy(&layers->writing);
    mem_free(layers);
}

static void grow_buckets(struct page_store *store)
{
    size_t old_count = store->bucket_count;
    struct timeline_layers **old = store->buckets;
    store->bucket_count *= 2;
    store->buckets = MEM_ARRAY(struct timeline_layers *, store->bucket_count);
    for (size_t i = 0; i < old_count; i++) {
        for (struct timeline_layers *layers = old[i], *next; layers != NULL; layers = next) {
            next = layers->next_in_bucket;
            struct timeline_layers **bucket = bucket_of(store, layers->timeline);
            layers->next_in_bucket = *bucket;
            *bucket = layers;
        }
    }
    mem_free(old);
}

/* One that has more pages than are worth it leaves the index: it is asked for every page again. */
static void index_pages(
    struct page_store *store, struct timeline_layers *layers, const uint64_t *hashes, size_t count)
{
    (void)pthread_mutex_lock(&store->lock);
    for (size_t i = 0; i < count && layers->is_indexed; i++) {
        layers->indexed_pages += page_index_add(store->index, hashes[i], layers->timeline) ? 1 : 0;
        layers->is_indexed = layers->indexed_pages <= INDEX_PAGES_MAX;
        store->layer_changes += layers->is_indexed ? 0 : 1;
    }
    (void)pthread_mutex_unlock(&store->lock);
}

void timeline_layers_learn(
    struct page_store *store,
    struct timeline_layers *layers,
    const struct page_key *keys,
    size_t count)
{
    uint64_t hashes[LEARNED_AT_ONCE];
    ASSERT(count <= LEARNED_AT_ONCE);
    for (size_t i = 0; i < count; i++) {
        hashes[i] = key_filter_hash(keys[i]);
        if (layers->filter != NULL) {
            key_filter_add(layers->filter, hashes[i]);
        }
    }
    if (layers->is_indexed) {
        index_pages(store, layers, hashes, count);
    }
}

/*
 * Which pages of the timeline lie in the kv, by a seek each. NULL: more than are worth that, as on
 * a root, whose reads end there anyway.
 */
static err_t make_filter(
    struct page_store *store, struct timeline_layers *layers, struct errmsg *msg)
{
    uint32_t timeline = layers->timeline;
    struct kv_iter *iter = kv_iter_create(store->kv, false);
    struct page_key key = {0};
    uint8_t from[PAGE_KEY_SIZE];
    page_key_encode(timeline, key, UINT64_MAX, from);
    kv_iter_seek(iter, bytes_of(from, sizeof(from)));
    err_t err = ERR_OK;
    size_t count = 0;
    while (err == ERR_OK && kv_iter_valid(iter) && count <= FILTER_PAGES_MAX) {
        uint32_t found = 0;
        lsn_t lsn;
        err = page_key_decode(kv_iter_key(iter), &found, &key, &lsn);
        if (err != ERR_OK || found != timeline) {
            break;
        }
        timeline_layers_learn(store, layers, &key, 1);
        count++;
        page_key_encode(timeline, key, 0, from); /* behind its oldest version */
        kv_iter_seek(iter, bytes_of(from, sizeof(from)));
        if (kv_iter_valid(iter) && bytes_equal(kv_iter_key(iter), bytes_of(from, sizeof(from)))) {
            kv_iter_next(iter);
        }
    }
    if (err == ERR_OK && !kv_iter_valid(iter)) {
        err = kv_iter_error(iter, msg);
    }
    kv_iter_destroy(iter);
    if (err != ERR_OK || count > FILTER_PAGES_MAX) {
        key_filter_destroy(layers->filter);
        layers->filter = NULL;
        layers->is_indexed = false;
    }
    return err;
}

/* Two threads may have made them at once: the first ones stay. */
static struct timeline_layers *add_layers(struct page_store *store, struct timeline_layers *made)
{
    struct timeline_layers *layers = timeline_layers_find(store, made->timeline);
    if (layers != NULL) {
        timeline_layers_free(made);
        return layers;
    }
    if (store->timeline_count == store->bucket_count) {
        grow_buckets(store);
    }
    struct timeline_layers **bucket = bucket_of(store, made->timeline);
    made->next_in_bucket = *bucket;
    *bucket = made;
    store->timeline_count++;
    store->layer_changes++;
    return made;
}

err_t timeline_layers_get(
    struct page_store *store,
    uint32_t timeline,
    struct timeline_layers **ret_layers,
    struct errmsg *msg)
{
    ASSERT(timeline != TIMELINE_NUMBER_META);
    (void)pthread_mutex_lock(&store->lock);
    struct timeline_layers *layers = timeline_layers_find(store, timeline);
    bool is_indexed = store->timeline_count >= INDEX_FROM;
    (void)pthread_mutex_unlock(&store->lock);
    if (layers != NULL) {
        *ret_layers = layers;
        return ERR_OK;
    }
    struct ingest_position position = {0};
    err_t err = stored_position(store, timeline, &position, msg);
    if (err != ERR_OK && err != ERR_NOT_FOUND) {
        return err;
    }
    struct timeline_layers *made = MEM_NEW(struct timeline_layers);
    made->timeline = timeline;
    made->filter = key_filter_create();
    made->is_indexed = is_indexed;
    made->kv_lsn = position.lsn;
    (void)pthread_mutex_init(&made->writing, NULL);
    err = make_filter(store, made, msg);
    if (err != ERR_OK) {
        timeline_layers_free(made);
        return err;
    }
    (void)pthread_mutex_lock(&store->lock);
    *ret_layers = add_layers(store, made);
    (void)pthread_mutex_unlock(&store->lock);
    return ERR_OK;
}

static void drop_layers(struct page_store *store, uint32_t timeline)
{
    (void)pthread_mutex_lock(&store->lock);
    struct timeline_layers *layers = timeline_layers_find(store, timeline);
    if (layers != NULL) {
        struct timeline_layers **link = bucket_of(store, timeline);
        while (*link != layers) {
            link = &(*link)->next_in_bucket;
        }
        *link = layers->next_in_bucket;
        store->timeline_count--;
        store->layer_changes++;
        list_remove(&layers->dirty_link);
    }
    (void)pthread_mutex_unlock(&store->lock);
    if (layers != NULL) {
        for (size_t i = 0; i < store->frozen_count; i++) {
            if (store->frozen[i] == layers) {
                atomic_fetch_sub(&store->frozen_bytes, open_layer_bytes(layers->frozen));
                memmove(
                    &store->frozen[i], &store->frozen[i + 1],
                    (--store->frozen_count - i) * sizeof(store->frozen[0]));
                break;
            }
        }
        if (layers->open != NULL) {
            atomic_fetch_sub(&store->open_bytes, open_layer_bytes(layers->open));
        }
        if (layers->is_indexed || layers->indexed_pages > 0) {
            (void)pthread_mutex_lock(&store->lock);
            page_index_forget(store->index, timeline);
            (void)pthread_mutex_unlock(&store->lock);
        }
        timeline_layers_free(layers);
    }
}

/* The whole key range of one timeline; numbers end before UINT32_MAX, so `+ 1` never wraps. */
static void timeline_range(
    uint32_t timeline, uint8_t begin[PAGE_KEY_PREFIX_SIZE], uint8_t end[PAGE_KEY_PREFIX_SIZE])
{
    ASSERT(timeline < UINT32_MAX);
    memset(begin, 0, PAGE_KEY_PREFIX_SIZE);
    memset(end, 0, PAGE_KEY_PREFIX_SIZE);
    uint32_t big_endian = htobe32(timeline);
    memcpy(begin, &big_endian, sizeof(big_endian));
    big_endian = htobe32(timeline + 1);
    memcpy(end, &big_endian, sizeof(big_endian));
}

struct timeline_bounds {
    uint8_t begin[PAGE_KEY_PREFIX_SIZE], end[PAGE_KEY_PREFIX_SIZE];
};

err_t page_store_erase(
    struct page_store *store, const uint32_t *timelines, size_t count, struct errmsg *msg)
{
    struct timeline_bounds *bounds = MEM_ARRAY(struct timeline_bounds, count);
    struct kv_range *ranges = MEM_ARRAY(struct kv_range, count);
    for (size_t i = 0; i < count; i++) {
        ASSERT(timelines[i] != TIMELINE_NUMBER_META);
        timeline_range(timelines[i], bounds[i].begin, bounds[i].end);
        ranges[i] = (struct kv_range){
            .begin = bytes_of(bounds[i].begin, PAGE_KEY_PREFIX_SIZE),
            .end = bytes_of(bounds[i].end, PAGE_KEY_PREFIX_SIZE)};
        drop_layers(store, timelines[i]);
    }
    err_t err = kv_erase_ranges(store->kv, ranges, count, msg);
    mem_free(ranges);
    mem_free(bounds);
    return err;
}

err_t page_store_compact(struct page_store *store, struct errmsg *msg)
{
    err_t fault = FAULT("page_store.compact");
    if (fault != ERR_OK) {
        return err_set(msg, fault, "page store: injected failure of a compaction");
    }
    /*
     * What says "not there" goes when what it hides has gone: with the compaction after that. The
     * first drops whatever has become superfluous, all others such versions alone.
     */
    bool goes_on = true;
    for (unsigned round = 0; round < COMPACTIONS_MAX && goes_on; round++) {
        struct gc_counts before = gc_passes_counts(store->gc);
        TRY(kv_compact(store->kv, msg));
        struct gc_counts after = gc_passes_counts(store->gc);
        bool has_dropped = round == 0 ? after.dropped > before.dropped : after.hid > before.hid;
        goes_on = has_dropped && after.hiding > before.hiding;
    }
    return ERR_OK;
}

uint64_t page_store_files_stamp(struct page_store *store)
{
    return kv_files_stamp(store->kv);
}

void page_store_stop_compacting(struct page_store *store)
{
    kv_stop_compacting(store->kv);
}

uint64_t page_store_size(struct page_store *store)
{
    uint8_t begin[PAGE_KEY_PREFIX_SIZE] = {0}, end[PAGE_KEY_PREFIX_SIZE];
    memset(end, 0xFF, sizeof(end));
    return kv_size_of_range(store->kv, bytes_of(begin, sizeof(begin)), bytes_of(end, sizeof(end)));
}

uint64_t page_store_size_of(struct page_store *store, uint32_t timeline)
{
    uint8_t begin[PAGE_KEY_PREFIX_SIZE], end[PAGE_KEY_PREFIX_SIZE];
    timeline_range(timeline, begin, end);
    (void)pthread_mutex_lock(&store->lock);
    const struct timeline_layers *layers = timeline_layers_find(store, timeline);
    uint64_t bytes = layers == NULL || layers->open == NULL ? 0 : open_layer_bytes(layers->open);
    bytes += layers == NULL || layers->frozen == NULL ? 0 : open_layer_bytes(layers->frozen);
    (void)pthread_mutex_unlock(&store->lock);
    return bytes +
           kv_size_of_range(store->kv, bytes_of(begin, sizeof(begin)), bytes_of(end, sizeof(end)));
}

static void meta_key(enum meta_kind kind, uint32_t id, uint8_t to[PAGE_KEY_SIZE])
{
    page_key_encode(
        TIMELINE_NUMBER_META, (struct page_key){.db = (uint32_t)kind, .rel = id}, 0, to);
}

err_t page_store_meta_write(
    struct page_store *store, const struct meta_change *changes, size_t count, struct errmsg *msg)
{
    err_t fault = FAULT("page_store.rows");
    if (fault != ERR_OK) {
        return err_set(msg, fault, "page store: injected failure of a write of rows");
    }
    struct kv_batch *batch = kv_batch_create();
    for (size_t i = 0; i < count; i++) {
        uint8_t key[PAGE_KEY_SIZE];
        meta_key(changes[i].kind, changes[i].id, key);
        if (changes[i].value.data == NULL) {
            kv_batch_delete(batch, bytes_of(key, sizeof(key)));
        } else {
            kv_batch_put(batch, bytes_of(key, sizeof(key)), changes[i].value);
        }
    }
    err_t err = kv_write(store->kv, batch, KV_SYNCED, msg);
    kv_batch_destroy(batch);
    metric_add(&row_writes, 1);
    return err;
}

err_t page_store_meta_settle(struct page_store *store, struct errmsg *msg)
{
    return kv_flush(store->kv, msg);
}

err_t page_store_meta_get(
    struct page_store *store, enum meta_kind kind, uint32_t id, struct buf *to, struct errmsg *msg)
{
    uint8_t key[PAGE_KEY_SIZE];
    meta_key(kind, id, key);
    return kv_get(store->kv, bytes_of(key, sizeof(key)), to, msg);
}

err_t page_store_meta_list(
    struct page_store *store,
    enum meta_kind kind,
    err_t (*visit)(uint32_t id, struct bytes value, void *context, struct errmsg *msg),
    void *context,
    struct errmsg *msg)
{
    uint8_t begin[PAGE_KEY_SIZE];
    meta_key(kind, 0, begin);
    struct kv_iter *iter = kv_iter_create(store->kv, false);
    err_t err = ERR_OK;
    kv_iter_seek(iter, bytes_of(begin, PAGE_KEY_PREFIX_SIZE));
    while (err == ERR_OK && kv_iter_valid(iter)) {
        uint32_t timeline;
        struct page_key key;
        lsn_t lsn;
        err = page_key_decode(kv_iter_key(iter), &timeline, &key, &lsn);
        if (err != ERR_OK || timeline != TIMELINE_NUMBER_META || key.db != (uint32_t)kind) {
            break;
        }
        err = visit(key.rel, kv_iter_value(iter), context, msg);
        kv_iter_next(iter);
    }
    if (err == ERR_OK) {
        err = kv_iter_error(iter, msg);
    }
    kv_iter_destroy(iter);
    return err;
}
