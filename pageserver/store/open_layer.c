#include "pageserver/store/open_layer.h"

#include <stdlib.h>

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/base/metric.h"

METRIC_GAUGE(
    memory_gauge, "pageserver_layers_memory_bytes", "memory of all open and frozen layers");

#define CHUNK_BYTES_MIN (4 * KIB)
#define CHUNK_BYTES_MAX MIB
#define SLOTS_MIN       64
#define MARK_EVERY      32 /* versions of a page */

struct chunk {
    struct chunk *before;
    size_t size;
    uint8_t bytes[];
};

struct slot {
    struct layer_page *_Atomic page; /* NULL: free */
    uint32_t hash;                   /* written before the page */
};

/* Tables that were outgrown stay for the readers that are still in them. */
struct table {
    struct table *outgrown;
    size_t mask;
    struct slot slots[];
};

struct open_layer {
    _Atomic unsigned references;
    struct table *_Atomic table;
    struct layer_page *_Atomic states;
    _Atomic size_t bytes, count;
    _Atomic lsn_t max_lsn;

    /* The writer's. */
    size_t page_count, memory;
    struct chunk *chunks;
    uint8_t *free;
    size_t free_bytes, chunk_bytes;
    struct {
        const uint8_t *given, *kept;
        size_t size;
        lsn_t lsn;
    } record; /* the last one, to keep it once */
};

static _Atomic size_t all_memory;

static void count_memory(struct open_layer *layer, size_t bytes)
{
    layer->memory += bytes;
    atomic_fetch_add_explicit(&all_memory, bytes, memory_order_relaxed);
    metric_add(&memory_gauge, (int64_t)bytes);
}

size_t open_layers_memory(void)
{
    return atomic_load_explicit(&all_memory, memory_order_relaxed);
}

static struct table *table_create(struct open_layer *layer, size_t slot_count)
{
    size_t size = sizeof(struct table) + slot_count * sizeof(struct slot);
    struct table *table = mem_zalloc(size);
    table->mask = slot_count - 1;
    count_memory(layer, size);
    return table;
}

struct open_layer *open_layer_create(void)
{
    struct open_layer *layer = MEM_NEW(struct open_layer);
    atomic_init(&layer->references, 1);
    atomic_init(&layer->bytes, sizeof(struct open_layer));
    layer->chunk_bytes = CHUNK_BYTES_MIN;
    atomic_init(&layer->table, table_create(layer, SLOTS_MIN));
    return layer;
}

struct open_layer *open_layer_ref(struct open_layer *layer)
{
    unsigned before = atomic_fetch_add_explicit(&layer->references, 1, memory_order_relaxed);
    ASSERT(before > 0);
    return layer;
}

static void layer_free(struct open_layer *layer)
{
    for (struct table *table = layer->table, *outgrown; table != NULL; table = outgrown) {
        outgrown = table->outgrown;
        mem_free(table);
    }
    for (struct chunk *chunk = layer->chunks, *before; chunk != NULL; chunk = before) {
        before = chunk->before;
        mem_free(chunk);
    }
    atomic_fetch_sub_explicit(&all_memory, layer->memory, memory_order_relaxed);
    metric_add(&memory_gauge, -(int64_t)layer->memory);
    mem_free(layer);
}

void open_layer_unref(struct open_layer *layer)
{
    if (layer != NULL &&
        atomic_fetch_sub_explicit(&layer->references, 1, memory_order_acq_rel) == 1) {
        layer_free(layer);
    }
}

size_t open_layer_bytes(const struct open_layer *layer)
{
    return atomic_load_explicit(&layer->bytes, memory_order_relaxed);
}

size_t open_layer_count(const struct open_layer *layer)
{
    return atomic_load_explicit(&layer->count, memory_order_relaxed);
}

lsn_t open_layer_max_lsn(const struct open_layer *layer)
{
    return atomic_load_explicit(&layer->max_lsn, memory_order_relaxed);
}

/* -- the arena -- */

/* Chunks double, so that a layer with a few versions stays small. */
static void add_chunk(struct open_layer *layer, size_t wanted)
{
    size_t size = MAX_OF(layer->chunk_bytes, wanted);
    struct chunk *chunk = mem_alloc(sizeof(struct chunk) + size);
    chunk->size = size;
    chunk->before = layer->chunks;
    layer->chunks = chunk;
    layer->free = chunk->bytes;
    layer->free_bytes = size;
    layer->chunk_bytes = MIN_OF(2 * layer->chunk_bytes, CHUNK_BYTES_MAX);
    count_memory(layer, sizeof(struct chunk) + size);
}

static void *take(struct open_layer *layer, size_t size)
{
    size = (size + 7) & ~(size_t)7;
    if (size > layer->free_bytes) {
        add_chunk(layer, size);
    }
    void *taken = layer->free;
    layer->free += size;
    layer->free_bytes -= size;
    atomic_store_explicit(
        &layer->bytes, atomic_load_explicit(&layer->bytes, memory_order_relaxed) + size,
        memory_order_relaxed);
    return taken;
}

/* -- the table -- */

static uint32_t hash_of(struct page_key key)
{
    uint64_t value = (uint64_t)key.rel << 32 | key.block;
    value ^= ((uint64_t)key.db << 32 | key.spc) * 0x9E3779B97F4A7C15u;
    value = (value ^ value >> 29 ^ (uint64_t)key.fork << 57) * 0xBF58476D1CE4E5B9u;
    value = (value ^ value >> 32) * 0x94D049BB133111EBu;
    return (uint32_t)(value >> 32);
}

/* The slot of the page, or the free one where it belongs. */
static struct slot *find_slot(
    const struct table *table, struct page_key key, uint32_t hash, struct layer_page **ret_page)
{
    for (size_t at = hash & table->mask;; at = (at + 1) & table->mask) {
        struct slot *slot = (struct slot *)&table->slots[at];
        struct layer_page *page = atomic_load_explicit(&slot->page, memory_order_acquire);
        if (page == NULL || (slot->hash == hash && page_key_equal(page->key, key))) {
            *ret_page = page;
            return slot;
        }
    }
}

static void fill_slot(struct slot *slot, uint32_t hash, struct layer_page *page)
{
    slot->hash = hash;
    atomic_store_explicit(&slot->page, page, memory_order_release);
}

static void grow_table(struct open_layer *layer)
{
    struct table *old = atomic_load_explicit(&layer->table, memory_order_relaxed);
    struct table *table = table_create(layer, 2 * (old->mask + 1));
    table->outgrown = old;
    for (size_t i = 0; i <= old->mask; i++) {
        struct layer_page *page = atomic_load_explicit(&old->slots[i].page, memory_order_relaxed);
        if (page != NULL) {
            uint32_t hash = old->slots[i].hash;
            size_t at = hash & table->mask;
            while (atomic_load_explicit(&table->slots[at].page, memory_order_relaxed) != NULL) {
                at = (at + 1) & table->mask;
            }
            fill_slot(&table->slots[at], hash, page);
        }
    }
    atomic_store_explicit(&layer->table, table, memory_order_release);
}

const struct layer_page *open_layer_find(const struct open_layer *layer, struct page_key key)
{
    struct layer_page *page;
    (void)find_slot(
        atomic_load_explicit(&layer->table, memory_order_acquire), key, hash_of(key), &page);
    return page;
}

const struct layer_page *open_layer_states(const struct open_layer *layer)
{
    return atomic_load_explicit(&layer->states, memory_order_acquire);
}

/* -- versions -- */

static bool is_record(uint8_t tag)
{
    return tag == VALUE_INIT || tag == VALUE_DELTA;
}

static struct layer_version *make_version(
    struct open_layer *layer, lsn_t lsn, uint8_t tag, uint8_t block_index, struct bytes value)
{
    bool is_shared = is_record(tag) && value.size > sizeof(void *) && layer->record.lsn == lsn &&
                     layer->record.given == value.data && layer->record.size == value.size;
    size_t size = is_shared ? sizeof(void *) : value.size;
    struct layer_version *version = take(layer, offsetof(struct layer_version, bytes) + size);
    atomic_init(&version->older, NULL);
    version->lsn = lsn;
    version->size = (uint32_t)value.size;
    version->tag = tag;
    version->block_index = block_index;
    version->is_shared = is_shared;
    version->head[0] = is_record(tag) ? tag : 0;
    version->head[1] = is_record(tag) ? block_index : tag;
    if (is_shared) {
        memcpy(version->bytes, &layer->record.kept, sizeof(layer->record.kept));
        return version;
    }
    if (value.size > 0) {
        memcpy(version->bytes, value.data, value.size);
    }
    if (is_record(tag)) {
        layer->record.given = value.data;
        layer->record.kept = version->bytes;
        layer->record.size = value.size;
        layer->record.lsn = lsn;
    }
    return version;
}

struct bytes layer_version_value(const struct layer_version *version)
{
    const uint8_t *data = version->bytes;
    if (version->is_shared) {
        memcpy(&data, version->bytes, sizeof(data));
    }
    return bytes_of(data, version->size);
}

struct bytes layer_version_stored(const struct layer_version *version, struct buf *room)
{
    size_t head = is_record(version->tag) ? 2 : 1;
    const uint8_t *begin = version->head + sizeof(version->head) - head;
    if (!version->is_shared) {
        return bytes_of(begin, head + version->size);
    }
    struct bytes value = layer_version_value(version);
    buf_clear(room);
    buf_append(room, begin, head);
    buf_append(room, value.data, value.size);
    return buf_view(room);
}

/*
 * A mark's `far` jumps back over as many marks as the jump before it and the one before that
 * together, when these two are of one length; else it is the mark before. So from any mark the way
 * to any older one takes a logarithm of jumps, and adding one takes no walk.
 */
static struct layer_mark *far_from(struct layer_mark *newest)
{
    struct layer_mark *far = newest == NULL ? NULL : newest->far;
    bool doubles = far != NULL && far->far != NULL &&
                   newest->depth - far->depth == far->depth - far->far->depth;
    return doubles ? far->far : newest;
}

static void add_mark(
    struct open_layer *layer, struct layer_page *page, struct layer_version *version)
{
    struct layer_mark *newest = atomic_load_explicit(&page->marks, memory_order_relaxed);
    struct layer_mark *mark = take(layer, sizeof(struct layer_mark));
    mark->lsn = version->lsn;
    atomic_init(&mark->version, version);
    mark->older = newest;
    mark->far = far_from(newest);
    mark->depth = newest == NULL ? 0 : newest->depth + 1;
    atomic_store_explicit(&page->marks, mark, memory_order_release);
    page->unmarked = 0;
}

/* The oldest mark above `lsn`; NULL: there is none. */
static struct layer_mark *mark_above(const struct layer_page *page, lsn_t lsn)
{
    struct layer_mark *mark = atomic_load_explicit(&page->marks, memory_order_acquire);
    if (mark == NULL || mark->lsn <= lsn) {
        return NULL;
    }
    while (mark->older != NULL && mark->older->lsn > lsn) {
        mark = mark->far->lsn > lsn ? mark->far : mark->older;
    }
    return mark;
}

/* The mark of the version that was replaced, if it has one, goes over to the other. */
static void move_mark(struct layer_page *page, struct layer_version *to)
{
    const struct layer_mark *above = mark_above(page, to->lsn);
    struct layer_mark *mark =
        above != NULL ? above->older : atomic_load_explicit(&page->marks, memory_order_relaxed);
    if (mark != NULL && mark->lsn == to->lsn) {
        atomic_store_explicit(&mark->version, to, memory_order_release);
    }
}

/* Behind the newer versions, in place of one of the same LSN. */
static void link_version(
    struct open_layer *layer, struct layer_page *page, struct layer_version *version)
{
    struct layer_version *_Atomic *link = &page->newest;
    if (version->lsn > page->newest_lsn) { /* without a look at the others, far in memory */
        atomic_store_explicit(
            &version->older, atomic_load_explicit(link, memory_order_relaxed),
            memory_order_relaxed);
        atomic_store_explicit(link, version, memory_order_release);
        page->newest_lsn = version->lsn;
        if (++page->unmarked >= MARK_EVERY) {
            add_mark(layer, page, version);
        }
        return;
    }
    const struct layer_mark *above = mark_above(page, version->lsn);
    if (above != NULL) {
        link = &atomic_load_explicit(&above->version, memory_order_relaxed)->older;
    }
    struct layer_version *next = atomic_load_explicit(link, memory_order_relaxed);
    while (next != NULL && next->lsn > version->lsn) {
        link = &next->older;
        next = atomic_load_explicit(link, memory_order_relaxed);
    }
    bool replaces = next != NULL && next->lsn == version->lsn;
    if (replaces) {
        next = atomic_load_explicit(&next->older, memory_order_relaxed);
    }
    atomic_store_explicit(&version->older, next, memory_order_relaxed);
    atomic_store_explicit(link, version, memory_order_release);
    if (replaces) {
        move_mark(page, version);
    }
}

static void add_page(
    struct open_layer *layer, struct page_key key, uint32_t hash, struct layer_version *version)
{
    struct table *table = atomic_load_explicit(&layer->table, memory_order_relaxed);
    if (3 * layer->page_count >= 2 * table->mask) {
        grow_table(layer);
        table = atomic_load_explicit(&layer->table, memory_order_relaxed);
    }
    struct layer_page *page = take(layer, sizeof(struct layer_page));
    page->key = key;
    page->next = NULL;
    page->newest_lsn = version->lsn;
    page->unmarked = 1;
    atomic_init(&page->marks, NULL);
    atomic_init(&page->newest, version);
    struct layer_page *none;
    fill_slot(find_slot(table, key, hash, &none), hash, page);
    ASSERT(none == NULL);
    layer->page_count++;
    if (key.spc == KEY_SPC_STATE || key.block == KEY_BLOCK_SIZE) {
        page->next = atomic_load_explicit(&layer->states, memory_order_relaxed);
        atomic_store_explicit(&layer->states, page, memory_order_release);
    }
}

size_t open_layer_put(
    struct open_layer *layer,
    struct page_key key,
    lsn_t lsn,
    uint8_t tag,
    uint8_t block_index,
    struct bytes value)
{
    ASSERT(value.size <= UINT32_MAX);
    size_t bytes_before = open_layer_bytes(layer);
    struct layer_version *version = make_version(layer, lsn, tag, block_index, value);
    uint32_t hash = hash_of(key);
    struct layer_page *page;
    (void)find_slot(atomic_load_explicit(&layer->table, memory_order_relaxed), key, hash, &page);
    if (page == NULL) {
        add_page(layer, key, hash, version);
    } else {
        link_version(layer, page, version);
    }
    if (lsn > open_layer_max_lsn(layer)) {
        atomic_store_explicit(&layer->max_lsn, lsn, memory_order_relaxed);
    }
    atomic_store_explicit(&layer->count, open_layer_count(layer) + 1, memory_order_relaxed);
    return open_layer_bytes(layer) - bytes_before;
}

const struct layer_version *layer_page_at(const struct layer_page *page, lsn_t lsn)
{
    const struct layer_mark *above = mark_above(page, lsn);
    const struct layer_version *version =
        above != NULL ? atomic_load_explicit(&above->version, memory_order_acquire)
                      : atomic_load_explicit(&page->newest, memory_order_acquire);
    while (version != NULL && version->lsn > lsn) {
        version = layer_version_older(version);
    }
    return version;
}

/* -- key order -- */

/* A copy of the key: to compare pages where they lie is a miss of the cache each time. */
struct sorted_page {
    uint64_t place, relation;
    uint64_t block;
    struct layer_page *page;
};

static struct sorted_page sorted_page_of(struct layer_page *page)
{
    return (struct sorted_page){
        .place = (uint64_t)page->key.spc << 32 | page->key.db,
        .relation = (uint64_t)page->key.rel << 8 | page->key.fork,
        .block = page->key.block,
        .page = page,
    };
}

static int compare_pages(const void *left, const void *right)
{
    const struct sorted_page *a = left, *b = right;
    if (a->place != b->place) {
        return a->place < b->place ? -1 : 1;
    }
    if (a->relation != b->relation) {
        return a->relation < b->relation ? -1 : 1;
    }
    return a->block < b->block ? -1 : a->block > b->block;
}

err_t open_layer_visit(
    const struct open_layer *layer,
    err_t (*visit)(const struct layer_page *page, void *context, struct errmsg *msg),
    void *context,
    struct errmsg *msg)
{
    const struct table *table = atomic_load_explicit(&layer->table, memory_order_acquire);
    for (size_t i = 0; i <= table->mask; i++) {
        const struct layer_page *page =
            atomic_load_explicit(&table->slots[i].page, memory_order_acquire);
        if (page != NULL) {
            TRY(visit(page, context, msg));
        }
    }
    return ERR_OK;
}

struct layer_page **open_layer_sort(const struct open_layer *layer, size_t *ret_count)
{
    struct sorted_page *sorted = MEM_ARRAY(struct sorted_page, layer->page_count + 1);
    const struct table *table = atomic_load_explicit(&layer->table, memory_order_acquire);
    size_t count = 0;
    for (size_t i = 0; i <= table->mask; i++) {
        struct layer_page *page = atomic_load_explicit(&table->slots[i].page, memory_order_relaxed);
        if (page != NULL) {
            sorted[count++] = sorted_page_of(page);
        }
    }
    ASSERT(count == layer->page_count);
    qsort(sorted, count, sizeof(sorted[0]), compare_pages);
    struct layer_page **pages = MEM_ARRAY(struct layer_page *, count + 1);
    for (size_t i = 0; i < count; i++) {
        pages[i] = sorted[i].page;
    }
    mem_free(sorted);
    *ret_count = count;
    return pages;
}
