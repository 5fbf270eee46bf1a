/* The reading half of page_store.h: versions over the ancestry. */
#include <stdlib.h>

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/wire/codec.h"
#include "pageserver/store/page_store_private.h"

struct page_reader {
    struct page_store *store;
    const struct page_path *path;
    struct kv_iter *versions; /* within one page's prefix; filters answer misses */
    struct kv_iter *keys;     /* total order: for listings; made on first use */
};

/* Where an iterator stands, taken apart. */
struct place {
    uint32_t timeline;
    struct page_key key;
    lsn_t lsn;
};

struct page_reader *page_reader_create(struct page_store *store, const struct page_path *path)
{
    ASSERT(path->count > 0);
    struct page_reader *reader = MEM_NEW(struct page_reader);
    reader->store = store;
    reader->path = path;
    reader->versions = kv_iter_create(store->kv, true);
    return reader;
}

void page_reader_destroy(struct page_reader *reader)
{
    if (reader != NULL) {
        kv_iter_destroy(reader->versions);
        kv_iter_destroy(reader->keys);
        mem_free(reader);
    }
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

static err_t malformed(uint32_t timeline, struct page_key key, lsn_t lsn, struct errmsg *msg)
{
    return err_set(
        msg, ERR_CORRUPT, "%s at " LSN_FMT " in timeline %" PRIu32 ": malformed value",
        page_key_text(key).text, LSN_ARGS(lsn), timeline);
}

static bool ends_a_read(uint8_t tag)
{
    return tag == VALUE_IMAGE || tag == VALUE_ZERO || tag == VALUE_INIT || tag == VALUE_STATE;
}

/* Copy one stored value; the sizes of pages are checked here, once for all that read them. */
static err_t versions_add(
    struct page_versions *versions,
    uint32_t timeline,
    struct page_key key,
    lsn_t lsn,
    struct bytes value,
    struct errmsg *msg)
{
    struct reader in = reader_of(value);
    uint8_t tag = get_u8(&in);
    bool has_record = tag == VALUE_DELTA || tag == VALUE_INIT;
    uint8_t block_index = has_record ? get_u8(&in) : 0;
    bool known = has_record || tag == VALUE_STATE || (tag == VALUE_IMAGE && in.left == PAGE_SIZE) ||
                 (tag == VALUE_ZERO && in.left == 0);
    if (in.bad || !known) {
        return malformed(timeline, key, lsn, msg);
    }
    if (in.left > PAGE_VERSIONS_BYTES_MAX - versions->bytes.size) {
        return err_set(
            msg, ERR_FULL, "%s: one read needs more than %zu bytes of history",
            page_key_text(key).text, (size_t)PAGE_VERSIONS_BYTES_MAX);
    }
    if (versions->count == versions->capacity) {
        versions->capacity = versions->capacity == 0 ? 64 : 2 * versions->capacity;
        versions->items =
            mem_realloc(versions->items, versions->capacity * sizeof(versions->items[0]));
    }
    versions->items[versions->count++] = (struct page_version){
        .timeline = timeline,
        .lsn = lsn,
        .tag = tag,
        .block_index = block_index,
        .begin = versions->bytes.size,
        .size = in.left,
    };
    buf_append(&versions->bytes, in.next, in.left);
    return ERR_OK;
}

/* Visits the versions of one key on the whole path, newest first, until it says stop. */
struct version_visitor {
    err_t (*visit)(
        struct version_visitor *visitor,
        const struct place *place,
        struct bytes value,
        bool *stop,
        struct errmsg *msg);
};

static err_t walk_span(
    struct page_reader *reader,
    const struct page_span *span,
    struct page_key key,
    lsn_t lsn,
    struct version_visitor *visitor,
    bool *stop,
    struct errmsg *msg)
{
    uint8_t from[PAGE_KEY_SIZE];
    page_key_encode(span->timeline, key, MIN_OF(lsn, span->max_lsn), from);
    struct kv_iter *iter = reader->versions;
    kv_iter_seek(iter, bytes_of(from, sizeof(from)));
    while (!*stop && kv_iter_valid(iter)) {
        struct bytes found = kv_iter_key(iter);
        if (found.size != PAGE_KEY_SIZE || memcmp(found.data, from, PAGE_KEY_PREFIX_SIZE) != 0) {
            return ERR_OK; /* stores without a filter may leave the prefix */
        }
        struct place place;
        TRY(page_key_decode(found, &place.timeline, &place.key, &place.lsn));
        TRY(visitor->visit(visitor, &place, kv_iter_value(iter), stop, msg));
        if (!*stop) {
            kv_iter_next(iter);
        }
    }
    return *stop ? ERR_OK : kv_iter_error(iter, msg);
}

static err_t walk_versions(
    struct page_reader *reader,
    struct page_key key,
    lsn_t lsn,
    struct version_visitor *visitor,
    struct errmsg *msg)
{
    bool stop = false;
    for (size_t i = 0; i < reader->path->count && !stop; i++) {
        TRY(walk_span(reader, &reader->path->spans[i], key, lsn, visitor, &stop, msg));
    }
    return ERR_OK;
}

struct collector {
    struct version_visitor visitor;
    struct page_versions *versions;
};

static err_t collect_one(
    struct version_visitor *visitor,
    const struct place *place,
    struct bytes value,
    bool *stop,
    struct errmsg *msg)
{
    struct collector *collector = CONTAINER_OF(visitor, struct collector, visitor);
    struct page_versions *versions = collector->versions;
    TRY(versions_add(versions, place->timeline, place->key, place->lsn, value, msg));
    *stop = ends_a_read(versions->items[versions->count - 1].tag);
    return ERR_OK;
}

err_t page_reader_collect(
    struct page_reader *reader,
    struct page_key key,
    lsn_t lsn,
    struct page_versions *versions,
    struct errmsg *msg)
{
    struct collector collector = {.visitor.visit = collect_one, .versions = versions};
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
    const struct place *place,
    struct bytes value,
    bool *stop,
    struct errmsg *msg)
{
    struct state_getter *getter = CONTAINER_OF(visitor, struct state_getter, visitor);
    if (value.size == 0 || value.data[0] != VALUE_STATE) {
        return malformed(place->timeline, place->key, place->lsn, msg);
    }
    buf_append(getter->to, value.data + 1, value.size - 1);
    getter->lsn = place->lsn;
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
    struct state_getter getter = {.visitor.visit = get_state, .to = to};
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
    const struct place *place,
    struct bytes value,
    bool *stop,
    struct errmsg *msg)
{
    struct size_getter *getter = CONTAINER_OF(visitor, struct size_getter, visitor);
    struct reader in = reader_of(value);
    uint8_t tag = get_u8(&in);
    uint8_t exists = get_u8(&in);
    uint32_t blocks = get_u32(&in);
    if (in.bad || in.left > 0 || tag != VALUE_STATE) {
        return malformed(place->timeline, place->key, place->lsn, msg);
    }
    getter->size = (struct fork_size){
        .exists = exists != 0, .blocks = exists != 0 ? blocks : 0, .lsn = place->lsn};
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
    struct size_getter getter = {.visitor.visit = get_size};
    TRY(walk_versions(reader, page_key_size_of(rel), lsn, &getter.visitor, msg));
    *ret_size = getter.size;
    return ERR_OK;
}

/* Keys found on several spans: gathered, sorted, visited once each. */
struct key_set {
    struct page_key *items;
    size_t count, capacity;
};

static void key_set_add(struct key_set *set, struct page_key key)
{
    if (set->count == set->capacity) {
        set->capacity = set->capacity == 0 ? 256 : 2 * set->capacity;
        set->items = mem_realloc(set->items, set->capacity * sizeof(set->items[0]));
    }
    set->items[set->count++] = key;
}

static int compare_keys(const void *left, const void *right)
{
    uint8_t a[PAGE_KEY_SIZE], b[PAGE_KEY_SIZE];
    page_key_encode(0, *(const struct page_key *)left, 0, a);
    page_key_encode(0, *(const struct page_key *)right, 0, b);
    return memcmp(a, b, sizeof(a));
}

static void key_set_sort(struct key_set *set)
{
    if (set->count == 0) {
        return;
    }
    qsort(set->items, set->count, sizeof(set->items[0]), compare_keys);
    size_t kept = 1;
    for (size_t i = 1; i < set->count; i++) {
        if (!page_key_equal(set->items[i], set->items[kept - 1])) {
            set->items[kept++] = set->items[i];
        }
    }
    set->count = kept;
}

/* Move the listing iterator to the first key at or behind {timeline, key}; *ret_found says if any.
 */
static err_t seek_key(
    struct page_reader *reader,
    uint32_t timeline,
    struct page_key key,
    lsn_t lsn,
    bool *ret_found,
    struct place *ret_place,
    struct errmsg *msg)
{
    if (reader->keys == NULL) {
        reader->keys = kv_iter_create(reader->store->kv, false);
    }
    uint8_t from[PAGE_KEY_SIZE];
    page_key_encode(timeline, key, lsn, from);
    kv_iter_seek(reader->keys, bytes_of(from, sizeof(from)));
    *ret_found = false;
    if (!kv_iter_valid(reader->keys)) {
        return kv_iter_error(reader->keys, msg);
    }
    TRY(page_key_decode(
        kv_iter_key(reader->keys), &ret_place->timeline, &ret_place->key, &ret_place->lsn));
    *ret_found = ret_place->timeline == timeline;
    return ERR_OK;
}

/* The fork behind `key` in key order; false behind the last there can be. */
static bool next_fork(struct page_key *key)
{
    key->block = 0;
    if (key->fork < UINT8_MAX) {
        key->fork++;
        return true;
    }
    key->fork = 0;
    if (key->rel < UINT32_MAX) {
        key->rel++;
        return true;
    }
    key->rel = 0;
    if (key->db < UINT32_MAX) {
        key->db++;
        return true;
    }
    key->db = 0;
    return key->spc++ < UINT32_MAX;
}

/* Two seeks a fork: one finds it, one jumps over its blocks to its size. */
static err_t gather_forks(
    struct page_reader *reader,
    uint32_t timeline,
    uint32_t spc,
    uint32_t db,
    struct key_set *set,
    struct errmsg *msg)
{
    bool all = spc == KEY_SPC_STATE;
    struct page_key at = {.spc = all ? KEY_SPC_STATE + 1 : spc, .db = all ? 0 : db};
    bool more = true;
    while (more) {
        struct place place;
        TRY(seek_key(reader, timeline, at, UINT64_MAX, &more, &place, msg));
        if (!more || (!all && (place.key.spc != spc || place.key.db != db))) {
            break;
        }
        at = place.key;
        at.block = 0;
        key_set_add(set, at);
        more = next_fork(&at);
    }
    return ERR_OK;
}

err_t page_reader_relations(
    struct page_reader *reader,
    uint32_t spc,
    uint32_t db,
    lsn_t lsn,
    page_relation_fn visit,
    void *context,
    struct errmsg *msg)
{
    struct key_set set = {0};
    err_t err = ERR_OK;
    for (size_t i = 0; i < reader->path->count && err == ERR_OK; i++) {
        err = gather_forks(reader, reader->path->spans[i].timeline, spc, db, &set, msg);
    }
    key_set_sort(&set);
    for (size_t i = 0; i < set.count && err == ERR_OK; i++) {
        struct fork_size size = {0};
        err = page_reader_rel_size(reader, set.items[i], lsn, &size, msg);
        if (err == ERR_OK && size.exists) {
            err = visit(set.items[i], size.blocks, context, msg);
        }
    }
    mem_free(set.items);
    return err;
}

static err_t gather_states(
    struct page_reader *reader,
    const struct page_span *span,
    enum state_kind kind,
    lsn_t lsn,
    struct key_set *set,
    struct errmsg *msg)
{
    lsn_t limit = MIN_OF(lsn, span->max_lsn);
    struct page_key at = page_key_state(kind, 0, 0);
    for (;;) {
        struct place place;
        bool found;
        TRY(seek_key(reader, span->timeline, at, limit, &found, &place, msg));
        if (!found || place.key.spc != KEY_SPC_STATE || place.key.db != (uint32_t)kind) {
            return ERR_OK;
        }
        if (place.lsn > limit) {
            at = place.key; /* its newest version is too new: look for an older one */
            continue;
        }
        key_set_add(set, place.key);
        at = place.key;
        if (at.block < UINT32_MAX) {
            at.block++;
        } else if (at.rel < UINT32_MAX) {
            at.rel++;
            at.block = 0;
        } else {
            return ERR_OK;
        }
    }
}

err_t page_reader_state_keys(
    struct page_reader *reader,
    enum state_kind kind,
    lsn_t lsn,
    err_t (*visit)(struct page_key key, void *context, struct errmsg *msg),
    void *context,
    struct errmsg *msg)
{
    struct key_set set = {0};
    err_t err = ERR_OK;
    for (size_t i = 0; i < reader->path->count && err == ERR_OK; i++) {
        err = gather_states(reader, &reader->path->spans[i], kind, lsn, &set, msg);
    }
    key_set_sort(&set);
    for (size_t i = 0; i < set.count && err == ERR_OK; i++) {
        err = visit(set.items[i], context, msg);
    }
    mem_free(set.items);
    return err;
}

static err_t commit_after_in_span(
    struct page_reader *reader,
    const struct page_span *span,
    uint64_t time,
    lsn_t lsn,
    lsn_t *ret_lsn,
    bool *ret_found,
    struct errmsg *msg)
{
    struct page_key at = page_key_state(STATE_COMMIT_TIME, (uint32_t)(time >> 32), (uint32_t)time);
    at.block++; /* strictly later */
    if (at.block == 0) {
        at.rel++;
    }
    struct place place;
    bool found;
    TRY(seek_key(reader, span->timeline, at, UINT64_MAX, &found, &place, msg));
    *ret_found = false;
    if (!found || place.key.spc != KEY_SPC_STATE || place.key.db != STATE_COMMIT_TIME ||
        place.lsn > MIN_OF(lsn, span->max_lsn)) {
        return ERR_OK; /* times only grow with the LSN: later ones lie beyond the limit as well */
    }
    struct reader in = reader_of(kv_iter_value(reader->keys));
    uint8_t tag = get_u8(&in);
    uint64_t start_lsn = get_u64(&in);
    if (in.bad || tag != VALUE_STATE) {
        return malformed(place.timeline, place.key, place.lsn, msg);
    }
    *ret_lsn = start_lsn;
    *ret_found = true;
    return ERR_OK;
}

err_t page_reader_commit_after(
    struct page_reader *reader, uint64_t time, lsn_t lsn, lsn_t *ret_lsn, struct errmsg *msg)
{
    for (size_t i = reader->path->count; i-- > 0;) {
        bool found = false;
        TRY(commit_after_in_span(reader, &reader->path->spans[i], time, lsn, ret_lsn, &found, msg));
        if (found) {
            return ERR_OK;
        }
    }
    return err_set(msg, ERR_NOT_FOUND, "no commit after that time");
}

/* From the last time of the span backwards: times only grow with the LSN. */
static err_t newest_commit_in_span(
    struct page_reader *reader,
    const struct page_span *span,
    lsn_t limit,
    uint64_t *ret_time,
    bool *ret_found,
    struct errmsg *msg)
{
    if (reader->keys == NULL) {
        reader->keys = kv_iter_create(reader->store->kv, false);
    }
    uint8_t last[PAGE_KEY_SIZE];
    page_key_encode(
        span->timeline, page_key_state(STATE_COMMIT_TIME, UINT32_MAX, UINT32_MAX), 0, last);
    struct kv_iter *iter = reader->keys;
    *ret_found = false;
    for (kv_iter_seek_for_prev(iter, bytes_of(last, sizeof(last))); kv_iter_valid(iter);
         kv_iter_prev(iter)) {
        struct place place;
        TRY(page_key_decode(kv_iter_key(iter), &place.timeline, &place.key, &place.lsn));
        if (place.timeline != span->timeline || place.key.spc != KEY_SPC_STATE ||
            place.key.db != STATE_COMMIT_TIME) {
            return ERR_OK;
        }
        if (place.lsn <= limit) {
            *ret_time = (uint64_t)place.key.rel << 32 | place.key.block;
            *ret_found = true;
            return ERR_OK;
        }
    }
    return kv_iter_error(iter, msg);
}

err_t page_reader_newest_commit(
    struct page_reader *reader, lsn_t lsn, uint64_t *ret_time, struct errmsg *msg)
{
    for (size_t i = 0; i < reader->path->count; i++) {
        const struct page_span *span = &reader->path->spans[i];
        bool found = false;
        TRY(newest_commit_in_span(reader, span, MIN_OF(lsn, span->max_lsn), ret_time, &found, msg));
        if (found) {
            return ERR_OK;
        }
    }
    return err_set(msg, ERR_NOT_FOUND, "no commit yet");
}
