/*
 * The reading half of page_store.h: versions over the ancestry. On each span the layers and the kv
 * are merged by LSN; a version that lies in several of them counts once, the newest place first.
 */
#include "common/base/assert.h"
#include "common/base/mark.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "common/wire/codec.h"
#include "pageserver/store/page_reader_private.h"

METRIC_COUNTER(
    spans_asked,
    "pageserver_store_spans_asked_total",
    "timelines that reads through branches asked for their page");

METRIC_COUNTER(
    seeks_saved,
    "pageserver_store_seeks_saved_total",
    "steps of a read over a timeline that has nothing of the page, as its filter said");

#define WALK_STEPS_MAX 8 /* over old versions; a seek costs as much as some ten of them */

static void end_walks(struct page_reader *reader)
{
    for (size_t i = 0; i < WALKS_MAX && reader->walks[i].iter != NULL; i++) {
        kv_iter_destroy(reader->walks[i].iter);
        reader->walks[i] = (struct page_walk){0};
    }
}

static void destroy_iterators(struct page_reader *reader)
{
    end_walks(reader);
    kv_iter_destroy(reader->versions);
    kv_iter_destroy(reader->keys);
    reader->versions = reader->keys = NULL;
}

/* As if it were made now. */
static void renew(struct page_reader *reader)
{
    destroy_iterators(reader);
    path_view_release(reader->view);
    reader->view = path_view_take(reader->store, reader->path);
}

/*
 * A span's layers stay referenced as long as the reader lives, and were referenced before its
 * iterators are made: a version is seen in the layer, in the kv, or in both.
 */
struct page_reader *page_reader_create(struct page_store *store, const struct page_path *path)
{
    ASSERT(path->count > 0);
    struct page_reader *reader = MEM_NEW(struct page_reader);
    reader->store = store;
    reader->path = path;
    reader->view = path_view_take(store, path);
    return reader;
}

/*
 * With the same layers and the same kv_lsn the iterators are as good as new ones: what was written
 * since lies in the open layer.
 */
void page_reader_refresh(struct page_reader *reader)
{
    if (!path_view_is_current(reader->store, reader->view)) {
        renew(reader);
    }
}

struct page_reader *page_reader_create_in_memory(
    struct page_store *store, const struct page_path *path)
{
    struct page_reader *reader = page_reader_create(store, path);
    reader->in_memory = true;
    return reader;
}

void page_reader_destroy(struct page_reader *reader)
{
    if (reader == NULL) {
        return;
    }
    destroy_iterators(reader);
    path_view_release(reader->view);
    mem_free(reader);
}

void page_reader_expect(struct page_reader *reader, struct page_key first, uint32_t count)
{
    ASSERT(count <= KEY_BLOCK_SIZE - first.block);
    end_walks(reader);
    reader->expected = first;
    reader->expected_count = count;
}

void page_versions_deinit(struct page_versions *versions)
{
    mem_free(versions->items);
    buf_deinit(&versions->bytes);
    *versions = (struct page_versions){0};
}

static void versions_clear(struct page_versions *versions)
{
    versions->count = 0;
    buf_clear(&versions->bytes);
}

err_t version_malformed(const struct found_version *found, struct errmsg *msg)
{
    return err_set(
        msg, ERR_CORRUPT, "%s at " LSN_FMT " in timeline %" PRIu32 ": malformed value",
        page_key_text(found->key).text, LSN_ARGS(found->lsn), found->timeline);
}

static bool ends_a_read(uint8_t tag)
{
    return tag == VALUE_IMAGE || tag == VALUE_ZERO || tag == VALUE_INIT || tag == VALUE_STATE;
}

/* Copy one value; the sizes of pages are checked here, once for all that read them. */
static err_t versions_add(
    struct page_versions *versions, const struct found_version *found, struct errmsg *msg)
{
    uint8_t tag = found->tag;
    bool known = tag == VALUE_DELTA || tag == VALUE_INIT || tag == VALUE_STATE ||
                 (tag == VALUE_IMAGE && found->value.size == PAGE_SIZE) ||
                 (tag == VALUE_ZERO && found->value.size == 0);
    if (!known) {
        return version_malformed(found, msg);
    }
    if (found->value.size > PAGE_VERSIONS_BYTES_MAX - versions->bytes.size) {
        return err_set(
            msg, ERR_FULL, "%s: one read needs more than %zu bytes of history",
            page_key_text(found->key).text, (size_t)PAGE_VERSIONS_BYTES_MAX);
    }
    if (versions->count == versions->capacity) {
        versions->capacity = versions->capacity == 0 ? 64 : 2 * versions->capacity;
        versions->items =
            mem_realloc(versions->items, versions->capacity * sizeof(versions->items[0]));
    }
    versions->items[versions->count++] = (struct page_version){
        .timeline = found->timeline,
        .lsn = found->lsn,
        .tag = tag,
        .block_index = found->block_index,
        .begin = versions->bytes.size,
        .size = found->value.size,
    };
    buf_append(&versions->bytes, found->value.data, found->value.size);
    return ERR_OK;
}

/* -- the merge on one span -- */

err_t found_in_kv(const struct kv_iter *iter, struct found_version *ret_found, struct errmsg *msg)
{
    TRY(page_key_decode(kv_iter_key(iter), &ret_found->timeline, &ret_found->key, &ret_found->lsn));
    struct reader in = reader_of(kv_iter_value(iter));
    ret_found->tag = get_u8(&in);
    bool has_record = ret_found->tag == VALUE_DELTA || ret_found->tag == VALUE_INIT;
    ret_found->block_index = has_record ? get_u8(&in) : 0;
    ret_found->value = bytes_of(in.next, in.left);
    return in.bad ? version_malformed(ret_found, msg) : ERR_OK;
}

struct merge {
    struct page_reader *reader;
    const struct span_layers *layers;
    uint32_t timeline;
    struct page_key key;
    lsn_t limit; /* the next version is at most this new */
    const struct layer_version *in_layers[LAYERS_OF_SPAN_MAX];
    bool kv_is_open, kv_has_more;
    struct kv_iter *iter; /* the reader's; only once kv_is_open */
};

static void begin_merge(struct merge *merge)
{
    for (size_t i = 0; i < merge->layers->count; i++) {
        const struct layer_page *page = open_layer_find(merge->layers->layers[i], merge->key);
        merge->in_layers[i] = page == NULL ? NULL : layer_page_at(page, merge->limit);
    }
}

static bool is_unknown(const struct span_layers *span)
{
    return span->kv_lsn == UINT64_MAX;
}

/*
 * What lies on branches that nobody has written to since the store was opened: their filters, so
 * that a step over them costs no seek from now on. The last span of a path is where reads end.
 */
static err_t learn_spans(struct page_reader *reader, struct errmsg *msg)
{
    if (reader->in_memory) {
        return err_set(msg, ERR_BUSY, "the keys of a branch are not in memory");
    }
    for (size_t i = 0; i + 1 < reader->path->count; i++) {
        struct timeline_layers *layers = NULL;
        if (is_unknown(&reader->view->spans[i])) {
            TRY(timeline_layers_get(reader->store, reader->path->spans[i].timeline, &layers, msg));
        }
    }
    return ERR_STALE; /* walk_versions begins again, with what there is now */
}

/* -- where the kv is looked into -- */

static bool is_expected(const struct page_reader *reader, struct page_key key)
{
    const struct page_key *first = &reader->expected;
    return reader->expected_count > 1 && !reader->in_memory && key.block >= first->block &&
           key.block - first->block < reader->expected_count && key.rel == first->rel &&
           key.fork == first->fork && key.db == first->db && key.spc == first->spc;
}

/*
 * Right after an iterator was made there may not have been a flush since the layers were taken: a
 * compaction could have dropped what lies below an image that this reader takes no notice of,
 * because it is above its kv_lsn and not in its layers. ERR_STALE: walk_versions begins again.
 */
static err_t check_new_iter(struct page_reader *reader)
{
    return path_view_has_kv(reader->store, reader->view) ? ERR_OK : ERR_STALE;
}

/* *ret_walk is NULL when other timelines walk already. */
static err_t find_walk(struct page_reader *reader, uint32_t timeline, struct page_walk **ret_walk)
{
    for (size_t i = 0; i < WALKS_MAX; i++) {
        struct page_walk *walk = &reader->walks[i];
        if (walk->iter == NULL) {
            struct page_key behind = reader->expected;
            behind.block += reader->expected_count;
            uint8_t end[PAGE_KEY_SIZE];
            page_key_encode(timeline, behind, UINT64_MAX, end);
            walk->timeline = timeline;
            walk->iter = kv_iter_create_until(reader->store->kv, bytes_of(end, sizeof(end)));
            *ret_walk = walk;
            return check_new_iter(reader);
        }
        if (walk->timeline == timeline) {
            *ret_walk = walk;
            return ERR_OK;
        }
    }
    *ret_walk = NULL;
    return ERR_OK;
}

/*
 * At the first key at or behind `from`: by steps, if it stands a little before it. On the same page
 * it may have gone on since it was asked.
 */
static void walk_to(struct page_walk *walk, const uint8_t from[PAGE_KEY_SIZE])
{
    bool is_behind = walk->is_begun && memcmp(walk->page, from, PAGE_KEY_PREFIX_SIZE) < 0;
    unsigned steps = 0;
    while (is_behind && kv_iter_valid(walk->iter)) {
        struct bytes at = kv_iter_key(walk->iter);
        if (memcmp(at.data, from, MIN_OF(at.size, (size_t)PAGE_KEY_SIZE)) >= 0) {
            break;
        }
        is_behind = steps++ < WALK_STEPS_MAX;
        kv_iter_next(walk->iter);
    }
    if (!is_behind) {
        kv_iter_seek(walk->iter, bytes_of(from, PAGE_KEY_SIZE));
    }
    memcpy(walk->page, from, PAGE_KEY_PREFIX_SIZE);
    walk->is_begun = true;
}

static err_t open_kv(struct merge *merge, const uint8_t from[PAGE_KEY_SIZE])
{
    struct page_reader *reader = merge->reader;
    struct page_walk *walk = NULL;
    if (is_expected(reader, merge->key)) {
        TRY(find_walk(reader, merge->timeline, &walk));
    }
    if (walk != NULL) {
        walk_to(walk, from);
        merge->iter = walk->iter;
        return ERR_OK;
    }
    if (reader->versions == NULL) {
        reader->versions = reader->in_memory ? kv_iter_create_in_memory(reader->store->kv)
                                             : kv_iter_create(reader->store->kv, true);
        TRY(check_new_iter(reader));
    }
    kv_iter_seek(reader->versions, bytes_of(from, PAGE_KEY_SIZE));
    merge->iter = reader->versions;
    return ERR_OK;
}

/* The iterator stands on the newest version of the page with LSN <= limit, or there is none. */
static err_t settle_kv(struct merge *merge, struct errmsg *msg)
{
    struct page_reader *reader = merge->reader;
    bool is_last = merge->layers == &reader->view->spans[reader->path->count - 1];
    if (!is_last && is_unknown(merge->layers)) {
        return learn_spans(reader, msg);
    }
    const struct key_filter *filter = merge->layers->filter;
    if (!is_last && !merge->kv_is_open && filter != NULL &&
        !key_filter_may_have(filter, reader->key_hash)) {
        merge->kv_is_open = true;
        reader->seeks_saved++;
        return ERR_OK;
    }
    uint8_t from[PAGE_KEY_SIZE];
    page_key_encode(merge->timeline, merge->key, merge->limit, from);
    if (!merge->kv_is_open) {
        TRY(open_kv(merge, from));
        merge->kv_is_open = merge->kv_has_more = true;
    }
    while (merge->kv_has_more) {
        if (!kv_iter_valid(merge->iter)) {
            merge->kv_has_more = false;
            return kv_iter_error(merge->iter, msg);
        }
        struct bytes at = kv_iter_key(merge->iter);
        /* Stores without a filter, and walks, leave the prefix. */
        merge->kv_has_more =
            at.size == PAGE_KEY_SIZE && memcmp(at.data, from, PAGE_KEY_PREFIX_SIZE) == 0;
        if (merge->kv_has_more && memcmp(at.data, from, PAGE_KEY_SIZE) >= 0) {
            return ERR_OK;
        }
        if (merge->kv_has_more) {
            kv_iter_next(merge->iter);
        }
    }
    return ERR_OK;
}

static const struct layer_version *newest_in_layers(struct merge *merge)
{
    const struct layer_version *newest = NULL;
    for (size_t i = 0; i < merge->layers->count; i++) {
        const struct layer_version *version = merge->in_layers[i];
        while (version != NULL && version->lsn > merge->limit) {
            version = layer_version_older(version); /* seen in a newer layer */
        }
        merge->in_layers[i] = version;
        if (version != NULL && (newest == NULL || version->lsn > newest->lsn)) {
            newest = version;
        }
    }
    return newest;
}

/* The next older version; *ret_more is false when there is none. */
static err_t next_version(
    struct merge *merge, struct found_version *ret_found, bool *ret_more, struct errmsg *msg)
{
    const struct layer_version *newest = newest_in_layers(merge);
    bool from_layer = newest != NULL;
    /* Above kv_lsn the layers have everything: see timeline_layers. */
    if (newest == NULL || newest->lsn <= merge->layers->kv_lsn) {
        TRY(settle_kv(merge, msg));
        if (merge->kv_has_more) {
            TRY(found_in_kv(merge->iter, ret_found, msg));
            from_layer = newest != NULL && newest->lsn >= ret_found->lsn;
        }
    }
    *ret_more = from_layer || (merge->kv_is_open && merge->kv_has_more);
    if (from_layer) {
        *ret_found = (struct found_version){
            .timeline = merge->timeline,
            .key = merge->key,
            .lsn = newest->lsn,
            .tag = newest->tag,
            .block_index = newest->block_index,
            .value = layer_version_value(newest),
        };
    }
    return ERR_OK;
}

/* Visits the versions of one key on the whole path, newest first, until it says stop. */
struct version_visitor {
    err_t (*visit)(
        struct version_visitor *visitor,
        const struct found_version *found,
        bool *stop,
        struct errmsg *msg);
    void (*restart)(struct version_visitor *visitor); /* forget what was visited */
};

static err_t walk_span(
    struct page_reader *reader,
    size_t at,
    struct page_key key,
    lsn_t lsn,
    struct version_visitor *visitor,
    bool *stop,
    struct errmsg *msg)
{
    const struct page_span *span = &reader->path->spans[at];
    struct merge merge = {
        .reader = reader,
        .layers = &reader->view->spans[at],
        .timeline = span->timeline,
        .key = key,
        .limit = MIN_OF(lsn, span->max_lsn),
    };
    begin_merge(&merge);
    while (!*stop) {
        struct found_version found;
        bool more = false;
        TRY(next_version(&merge, &found, &more, msg));
        if (!more) {
            return ERR_OK;
        }
        TRY(visitor->visit(visitor, &found, stop, msg));
        if (found.lsn == 0) {
            return ERR_OK;
        }
        merge.limit = found.lsn - 1;
    }
    return ERR_OK;
}

static err_t walk_spans(
    struct page_reader *reader,
    struct page_key key,
    lsn_t lsn,
    struct version_visitor *visitor,
    struct errmsg *msg)
{
    struct path_steps steps;
    path_steps_begin(&steps, reader->store, reader->view, reader->key_hash);
    bool stop = false;
    size_t at, visited = 0, passed = 0;
    while (!stop && path_steps_next(&steps, &at)) {
        TRY(walk_span(reader, at, key, lsn, visitor, &stop, msg));
        visited++;
        passed = at + 1;
    }
    reader->seeks_saved += (int64_t)(passed - visited);
    reader->spans_asked += (int64_t)visited;
    return ERR_OK;
}

static err_t walk_versions(
    struct page_reader *reader,
    struct page_key key,
    lsn_t lsn,
    struct version_visitor *visitor,
    struct errmsg *msg)
{
    reader->key_hash = reader->path->count > 1 ? key_filter_hash(key) : 0;
    err_t err = walk_spans(reader, key, lsn, visitor, msg);
    while (err == ERR_STALE) {
        MARK("page_reader.renewed");
        renew(reader);
        visitor->restart(visitor);
        err = walk_spans(reader, key, lsn, visitor, msg);
    }
    if (reader->path->count > 1) { /* an atomic addition is a part of what a read costs */
        metric_add(&seeks_saved, reader->seeks_saved);
        metric_add(&spans_asked, reader->spans_asked);
    }
    reader->seeks_saved = reader->spans_asked = 0;
    return err;
}

struct collector {
    struct version_visitor visitor;
    struct page_versions *versions;
};

static err_t collect_one(
    struct version_visitor *visitor,
    const struct found_version *found,
    bool *stop,
    struct errmsg *msg)
{
    struct collector *collector = CONTAINER_OF(visitor, struct collector, visitor);
    struct page_versions *versions = collector->versions;
    TRY(versions_add(versions, found, msg));
    *stop = ends_a_read(versions->items[versions->count - 1].tag);
    return ERR_OK;
}

static void forget_collected(struct version_visitor *visitor)
{
    versions_clear(CONTAINER_OF(visitor, struct collector, visitor)->versions);
}

/* Getters end with the first version that they see: then there was no need to go on. */
static void forget_nothing(struct version_visitor *visitor)
{
    (void)visitor;
}

err_t page_reader_collect(
    struct page_reader *reader,
    struct page_key key,
    lsn_t lsn,
    struct page_versions *versions,
    struct errmsg *msg)
{
    struct collector collector = {
        .visitor = {.visit = collect_one, .restart = forget_collected}, .versions = versions};
    versions_clear(versions);
    return walk_versions(reader, key, lsn, &collector.visitor, msg);
}

struct state_getter {
    struct version_visitor visitor;
    struct buf *to;
    lsn_t lsn;
    bool found;
};

static err_t get_state(
    struct version_visitor *visitor,
    const struct found_version *found,
    bool *stop,
    struct errmsg *msg)
{
    struct state_getter *getter = CONTAINER_OF(visitor, struct state_getter, visitor);
    if (found->tag != VALUE_STATE) {
        return version_malformed(found, msg);
    }
    buf_append(getter->to, found->value.data, found->value.size);
    getter->lsn = found->lsn;
    getter->found = *stop = true;
    return ERR_OK;
}

err_t page_reader_state(
    struct page_reader *reader,
    struct page_key key,
    lsn_t lsn,
    struct buf *to,
    lsn_t *ret_lsn,
    struct errmsg *msg)
{
    struct state_getter getter = {
        .visitor = {.visit = get_state, .restart = forget_nothing}, .to = to};
    TRY(walk_versions(reader, key, lsn, &getter.visitor, msg));
    if (!getter.found) {
        return err_set(
            msg, ERR_NOT_FOUND, "%s at " LSN_FMT " does not exist", page_key_text(key).text,
            LSN_ARGS(lsn));
    }
    if (ret_lsn != NULL) {
        *ret_lsn = getter.lsn;
    }
    return ERR_OK;
}

struct size_getter {
    struct version_visitor visitor;
    struct fork_size size;
};

static err_t get_size(
    struct version_visitor *visitor,
    const struct found_version *found,
    bool *stop,
    struct errmsg *msg)
{
    struct size_getter *getter = CONTAINER_OF(visitor, struct size_getter, visitor);
    struct reader in = reader_of(found->value);
    uint8_t exists = get_u8(&in);
    uint32_t blocks = get_u32(&in);
    if (in.bad || in.left > 0 || found->tag != VALUE_STATE) {
        return version_malformed(found, msg);
    }
    getter->size = (struct fork_size){
        .exists = exists != 0, .blocks = exists != 0 ? blocks : 0, .lsn = found->lsn};
    *stop = true;
    return ERR_OK;
}

err_t page_reader_rel_size(
    struct page_reader *reader,
    struct page_key rel,
    lsn_t lsn,
    struct fork_size *ret_size,
    struct errmsg *msg)
{
    struct size_getter getter = {.visitor = {.visit = get_size, .restart = forget_nothing}};
    TRY(walk_versions(reader, page_key_size_of(rel), lsn, &getter.visitor, msg));
    *ret_size = getter.size;
    return ERR_OK;
}
