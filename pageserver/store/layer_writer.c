/*
 * layer_writer.c - layers become files, files become part of the kv: a flush, and imports that are
 * too large for a layer.
 *
 * Order of a flush: the layers are frozen, timeline by timeline; their versions are written in key
 * order; the files are ingested in one step; then, under the store's lock, the layers go and kv_lsn
 * moves. A reader that came before holds references and sees versions twice, one that comes after
 * opens its iterator on a kv that has them.
 */
#include <stdlib.h>

#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/fault.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "common/base/str.h"
#include "common/io/file.h"
#include "pageserver/store/page_store_private.h"

METRIC_HISTOGRAM(flush_seconds, "pageserver_store_flush_seconds", "time of a flush to disk");
METRIC_HISTOGRAM(ingest_seconds, "pageserver_store_ingest_seconds", "time to take files into a kv");
METRIC_COUNTER(files_ingested, "pageserver_store_files_total", "files taken into page stores");
METRIC_COUNTER(
    file_bytes, "pageserver_store_file_bytes_total", "bytes of the files taken into page stores");
METRIC_COUNTER(
    imported_bytes, "pageserver_store_imported_bytes_total", "bytes that went past the layers");

#define FILE_BYTES_MAX     (64 * MIB)
#define FILE_BYTES_MIN     (4 * MIB)  /* a timeline gets a file of its own behind so much */
#define IMPORT_CHUNK_BYTES (16 * MIB) /* sorted in memory, then a file */

/* -- files -- */

void layer_files_init(struct layer_files *files, struct page_store *store)
{
    *files = (struct layer_files){.store = store};
}

void layer_files_deinit(struct layer_files *files)
{
    kv_file_destroy(files->file);
    for (size_t i = 0; i < files->count; i++) {
        err_ignore(file_remove(files->paths[i], NULL), "the next start empties the folder");
        mem_free(files->paths[i]);
    }
    mem_free(files->paths);
    buf_deinit(&files->value);
    *files = (struct layer_files){.store = files->store};
}

static err_t begin_file(struct layer_files *files, struct errmsg *msg)
{
    struct page_store *store = files->store;
    char path[PATH_SIZE];
    TRY(str_format(
        path, sizeof(path), msg, "%s/%" PRIu64 ".sst", store->folder,
        atomic_fetch_add(&store->file_number, 1)));
    if (files->count == files->capacity) {
        files->capacity = files->capacity == 0 ? 8 : 2 * files->capacity;
        files->paths = mem_realloc(files->paths, files->capacity * sizeof(files->paths[0]));
    }
    files->paths[files->count++] = mem_strdup(path);
    return kv_file_create(store->kv, path, &files->file, msg);
}

err_t layer_files_end_file(struct layer_files *files, struct errmsg *msg)
{
    if (files->file == NULL) {
        return ERR_OK;
    }
    err_t err = kv_file_finish(files->file, msg);
    metric_add(&file_bytes, (int64_t)kv_file_size(files->file));
    kv_file_destroy(files->file);
    files->file = NULL;
    return err;
}

static err_t put(
    struct layer_files *files, uint8_t *key_bytes, struct bytes value, struct errmsg *msg)
{
    if (files->file == NULL) {
        TRY(begin_file(files, msg));
    }
    return kv_file_put(files->file, bytes_of(key_bytes, PAGE_KEY_SIZE), value, msg);
}

static err_t put_position(
    struct layer_files *files,
    uint32_t timeline,
    struct ingest_position position,
    struct errmsg *msg)
{
    uint8_t key[PAGE_KEY_SIZE], value[1 + POSITION_VALUE_SIZE] = {VALUE_STATE};
    page_key_encode(timeline, page_key_state(STATE_INGEST_LSN, 0, 0), position.lsn, key);
    position_encode(position, value + 1);
    return put(files, key, bytes_of(value, sizeof(value)), msg);
}

static err_t put_version(
    struct layer_files *files,
    uint32_t timeline,
    struct page_key key,
    const struct layer_version *version,
    struct errmsg *msg)
{
    uint8_t key_bytes[PAGE_KEY_SIZE];
    page_key_encode(timeline, key, version->lsn, key_bytes);
    return put(files, key_bytes, layer_version_stored(version, &files->value), msg);
}

/* So few at a time that the writer hardly waits, so many that it seldom does. */
static void learn_pages(
    struct page_store *store,
    struct timeline_layers *layers,
    struct layer_page *const *pages,
    size_t count)
{
    struct page_key keys[LEARNED_AT_ONCE];
    for (size_t i = 0; i < count && layers->filter != NULL; i += LEARNED_AT_ONCE) {
        size_t some = MIN_OF(count - i, (size_t)LEARNED_AT_ONCE);
        for (size_t at = 0; at < some; at++) {
            keys[at] = pages[i + at]->key;
        }
        (void)pthread_mutex_lock(&layers->writing);
        timeline_layers_learn(store, layers, keys, some);
        (void)pthread_mutex_unlock(&layers->writing);
    }
}

/* Versions lie in the order of their LSNs, far from each other: the next one is fetched early. */
static err_t put_page(
    struct layer_files *files,
    struct timeline_layers *layers,
    const struct layer_page *page,
    struct errmsg *msg)
{
    for (const struct layer_version *version = layer_page_at(page, UINT64_MAX), *older;
         version != NULL; version = older) {
        older = layer_version_older(version);
        layer_version_prefetch(older);
        TRY(put_version(files, layers->timeline, page->key, version, msg));
    }
    bool is_full = files->file != NULL && kv_file_size(files->file) >= FILE_BYTES_MAX;
    return is_full ? layer_files_end_file(files, msg) : ERR_OK;
}

err_t layer_files_add(
    struct layer_files *files,
    struct timeline_layers *layers,
    const struct open_layer *layer,
    struct ingest_position position,
    struct errmsg *msg)
{
    if (files->file != NULL && kv_file_size(files->file) >= FILE_BYTES_MIN) {
        TRY(layer_files_end_file(files, msg));
    }
    if (position.lsn != 0) {
        TRY(put_position(
            files, layers->timeline, position, msg)); /* the smallest key of a timeline */
    }
    size_t count = 0;
    struct layer_page **pages = open_layer_sort(layer, &count);
    learn_pages(files->store, layers, pages, count);
    err_t err = ERR_OK;
    for (size_t i = 0; i < count && err == ERR_OK; i++) {
        __builtin_prefetch(pages[MIN_OF(i + 4, count - 1)]);
        layer_version_prefetch(layer_page_at(pages[MIN_OF(i + 1, count - 1)], UINT64_MAX));
        err = put_page(files, layers, pages[i], msg);
    }
    mem_free(pages);
    return err;
}

err_t layer_files_ingest(struct layer_files *files, struct errmsg *msg)
{
    TRY(layer_files_end_file(files, msg));
    if (files->count == 0) {
        return ERR_OK;
    }
    err_t fault = FAULT("page_store.before_ingest");
    if (fault != ERR_OK) {
        return err_set(msg, fault, "page store: injected failure before files are taken in");
    }
    mono_ns_t begin = clock_mono();
    TRY(kv_ingest(files->store->kv, (const char *const *)files->paths, files->count, msg));
    metric_observe_ns(&ingest_seconds, clock_mono() - begin);
    metric_add(&files_ingested, (int64_t)files->count);
    for (size_t i = 0; i < files->count; i++) {
        mem_free(files->paths[i]); /* moved */
    }
    files->count = 0;
    fault = FAULT("page_store.after_ingest");
    return fault == ERR_OK
               ? ERR_OK
               : err_set(msg, fault, "page store: injected failure behind files taken in");
}

/* -- flush -- */

static int compare_timelines(const void *left, const void *right)
{
    uint32_t a = (*(struct timeline_layers *const *)left)->timeline;
    uint32_t b = (*(struct timeline_layers *const *)right)->timeline;
    return a < b ? -1 : a > b;
}

/* The layer and the position that belongs to it are taken at one moment. */
static void freeze(struct page_store *store, struct timeline_layers *layers)
{
    (void)pthread_mutex_lock(&layers->writing);
    (void)pthread_mutex_lock(&store->lock);
    ASSERT(layers->frozen == NULL);
    layers->frozen = layers->open;
    layers->frozen_position = layers->position;
    layers->open = NULL;
    store->layer_changes++;
    list_remove(&layers->dirty_link);
    (void)pthread_mutex_unlock(&store->lock);
    (void)pthread_mutex_unlock(&layers->writing);
    size_t bytes = open_layer_bytes(layers->frozen);
    atomic_fetch_add_explicit(&store->frozen_bytes, bytes, memory_order_relaxed);
    atomic_fetch_sub_explicit(&store->open_bytes, bytes, memory_order_relaxed);
}

static void freeze_all(struct page_store *store)
{
    ASSERT(store->frozen_count == 0);
    (void)pthread_mutex_lock(&store->lock);
    store->frozen =
        mem_realloc(store->frozen, (store->timeline_count + 1) * sizeof(store->frozen[0]));
    LIST_FOR_EACH(&store->dirty, link)
    {
        store->frozen[store->frozen_count++] =
            CONTAINER_OF(link, struct timeline_layers, dirty_link);
    }
    (void)pthread_mutex_unlock(&store->lock);
    for (size_t i = 0; i < store->frozen_count; i++) {
        freeze(store, store->frozen[i]);
    }
    qsort(store->frozen, store->frozen_count, sizeof(store->frozen[0]), compare_timelines);
}

static void drop_frozen(struct page_store *store)
{
    for (size_t i = 0; i < store->frozen_count; i++) {
        struct timeline_layers *layers = store->frozen[i];
        (void)pthread_mutex_lock(&store->lock);
        struct open_layer *layer = layers->frozen;
        lsn_t lsn = MAX_OF(open_layer_max_lsn(layer), layers->frozen_position.lsn);
        layers->kv_lsn = MAX_OF(layers->kv_lsn, lsn);
        layers->frozen = NULL;
        store->layer_changes++;
        (void)pthread_mutex_unlock(&store->lock);
        atomic_fetch_sub_explicit(
            &store->frozen_bytes, open_layer_bytes(layer), memory_order_relaxed);
        open_layer_unref(layer);
    }
    store->frozen_count = 0;
}

static err_t write_frozen(struct page_store *store, struct errmsg *msg)
{
    struct layer_files files;
    layer_files_init(&files, store);
    err_t err = ERR_OK;
    for (size_t i = 0; i < store->frozen_count && err == ERR_OK; i++) {
        struct timeline_layers *layers = store->frozen[i];
        err = layer_files_add(&files, layers, layers->frozen, layers->frozen_position, msg);
    }
    if (err == ERR_OK) {
        err = layer_files_ingest(&files, msg);
    }
    layer_files_deinit(&files);
    if (err == ERR_OK) {
        drop_frozen(store);
    }
    return err;
}

err_t page_store_flush(struct page_store *store, struct errmsg *msg)
{
    err_t fault = FAULT("page_store.flush");
    if (fault != ERR_OK) {
        return err_set(msg, fault, "page store: injected failure of a flush");
    }
    mono_ns_t begin = clock_mono();
    bool others = atomic_exchange(&store->is_flushing, true);
    ASSERT(!others);
    err_t err = kv_waits_for_room(store->kv) ? kv_flush(store->kv, msg) : ERR_OK;
    if (err == ERR_OK && store->frozen_count > 0) {
        err = write_frozen(store, msg); /* a flush before this one failed */
    }
    if (err == ERR_OK) {
        freeze_all(store);
        err = write_frozen(store, msg);
    }
    atomic_store(&store->is_flushing, false);
    metric_observe_ns(&flush_seconds, clock_mono() - begin);
    return err;
}

/* -- imports -- */

struct page_import {
    struct layer_files files;
    struct open_layer *chunk; /* nobody else sees it */
    uint32_t timeline;
    lsn_t lsn;
    err_t failure;
    struct errmsg failure_msg;
};

struct page_import *page_import_create(struct page_store *store, uint32_t timeline, lsn_t lsn)
{
    ASSERT(timeline != TIMELINE_NUMBER_META);
    struct page_import *import = MEM_NEW(struct page_import);
    layer_files_init(&import->files, store);
    import->chunk = open_layer_create();
    import->timeline = timeline;
    import->lsn = lsn;
    return import;
}

void page_import_destroy(struct page_import *import)
{
    if (import != NULL) {
        layer_files_deinit(&import->files);
        open_layer_unref(import->chunk);
        mem_free(import);
    }
}

static err_t fail(struct page_import *import, struct errmsg *msg)
{
    if (msg != NULL) {
        *msg = import->failure_msg;
    }
    return import->failure;
}

/* The chunk becomes a file of its own: chunks may come in any order. */
static void write_chunk(struct page_import *import, struct ingest_position position)
{
    struct errmsg *msg = &import->failure_msg;
    metric_add(&imported_bytes, (int64_t)open_layer_bytes(import->chunk));
    struct timeline_layers *layers = NULL;
    import->failure = timeline_layers_get(import->files.store, import->timeline, &layers, msg);
    if (import->failure == ERR_OK) {
        import->failure = layer_files_add(&import->files, layers, import->chunk, position, msg);
    }
    if (import->failure == ERR_OK) {
        import->failure = layer_files_end_file(&import->files, msg);
    }
    open_layer_unref(import->chunk);
    import->chunk = open_layer_create();
}

err_t page_import_put(
    struct page_import *import,
    struct page_key key,
    uint8_t tag,
    struct bytes value,
    struct errmsg *msg)
{
    ASSERT(tag != VALUE_DELTA && tag != VALUE_INIT);
    if (import->failure == ERR_OK) {
        (void)open_layer_put(import->chunk, key, import->lsn, tag, 0, value);
        if (open_layer_bytes(import->chunk) >= IMPORT_CHUNK_BYTES) {
            write_chunk(import, (struct ingest_position){0});
        }
    }
    return fail(import, msg);
}

err_t page_import_put_rel_size(
    struct page_import *import, struct page_key rel, uint32_t blocks, struct errmsg *msg)
{
    uint8_t value[REL_SIZE_VALUE_SIZE - 1] = {1};
    blocks = htole32(blocks);
    memcpy(value + 1, &blocks, sizeof(blocks));
    return page_import_put(
        import, page_key_size_of(rel), VALUE_STATE, bytes_of(value, sizeof(value)), msg);
}

err_t page_import_finish(
    struct page_import *import, const struct ingest_position *position, struct errmsg *msg)
{
    struct page_store *store = import->files.store;
    err_t fault = FAULT("page_store.import");
    if (fault != ERR_OK) {
        return err_set(msg, fault, "page store: injected failure of an import");
    }
    if (import->failure == ERR_OK) {
        write_chunk(import, position == NULL ? (struct ingest_position){0} : *position);
    }
    if (import->failure == ERR_OK) {
        import->failure = layer_files_ingest(&import->files, &import->failure_msg);
    }
    if (import->failure == ERR_OK) {
        (void)pthread_mutex_lock(&store->lock);
        struct timeline_layers *layers = timeline_layers_find(store, import->timeline);
        if (layers != NULL) {
            layers->kv_lsn = MAX_OF(layers->kv_lsn, import->lsn);
            store->layer_changes++;
        }
        (void)pthread_mutex_unlock(&store->lock);
    }
    return fail(import, msg);
}
