/*
 * The listings of page_store.h: which keys there are. In the kv they are found by seeks; a layer
 * has a list of what is no page of a relation, and that is enough: a fork exists by its size.
 */
#include <stdlib.h>

#include "common/base/mem.h"
#include "common/wire/codec.h"
#include "pageserver/store/page_reader_private.h"

/* Where an iterator stands, taken apart. */
struct place {
    uint32_t timeline;
    struct page_key key;
    lsn_t lsn;
};

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

static bool is_fork_size(struct page_key key)
{
    return key.spc != KEY_SPC_STATE && key.block == KEY_BLOCK_SIZE;
}

/* The body sees every `page` in the lists of the span's layers. */
#define FOR_EACH_STATE(span, page)                                                                 \
    for (size_t state_at = 0; state_at < (span)->count; state_at++)                                \
        for (const struct layer_page *page = open_layer_states((span)->layers[state_at]);          \
             page != NULL; page = page->next)

static void gather_layer_forks(
    const struct span_layers *span, uint32_t spc, uint32_t db, struct key_set *set)
{
    bool all = spc == KEY_SPC_STATE;
    FOR_EACH_STATE(span, page)
    {
        struct page_key key = page->key;
        if (is_fork_size(key) && (all || (key.spc == spc && key.db == db))) {
            key.block = 0;
            key_set_add(set, key);
        }
    }
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
        gather_layer_forks(&reader->view->spans[i], spc, db, &set);
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

/* -- what was written in a range of LSNs -- */

struct written {
    lsn_t from, to;
    err_t (*visit)(struct page_key key, void *context, struct errmsg *msg);
    void *context;
};

static err_t visit_layer_page(const struct layer_page *page, void *context, struct errmsg *msg)
{
    const struct written *written = context;
    const struct layer_version *version = layer_page_at(page, written->to);
    bool counts = page->key.spc != KEY_SPC_STATE && version != NULL && version->lsn > written->from;
    return counts ? written->visit(page->key, written->context, msg) : ERR_OK;
}

/* One key behind another; false behind the last there can be. */
static bool next_key(struct page_key *key)
{
    if (key->block < UINT32_MAX) {
        key->block++;
        return true;
    }
    return next_fork(key);
}

/* A seek a page, two when its newest version is too new. */
static err_t visit_kv_pages(
    struct page_reader *reader,
    uint32_t timeline,
    const struct written *written,
    struct errmsg *msg)
{
    struct page_key at = {.spc = KEY_SPC_STATE + 1};
    for (bool more = true; more;) {
        struct place place;
        TRY(seek_key(reader, timeline, at, written->to, &more, &place, msg));
        if (!more) {
            break;
        }
        at = place.key;
        if (place.lsn > written->to) {
            continue; /* the seek went on to this page: once more, below `to` */
        }
        if (place.lsn > written->from) {
            TRY(written->visit(at, written->context, msg));
        }
        more = next_key(&at);
    }
    return ERR_OK;
}

err_t page_reader_written(
    struct page_reader *reader,
    size_t span,
    lsn_t from,
    lsn_t to,
    err_t (*visit)(struct page_key key, void *context, struct errmsg *msg),
    void *context,
    struct errmsg *msg)
{
    struct written written = {.from = from, .to = to, .visit = visit, .context = context};
    const struct span_layers *layers = &reader->view->spans[span];
    for (size_t i = 0; i < layers->count; i++) {
        TRY(open_layer_visit(layers->layers[i], visit_layer_page, &written, msg));
    }
    return visit_kv_pages(reader, reader->path->spans[span].timeline, &written, msg);
}

static bool is_state(struct page_key key, enum state_kind kind)
{
    return key.spc == KEY_SPC_STATE && key.db == (uint32_t)kind;
}

static void gather_layer_states(
    const struct span_layers *span, enum state_kind kind, lsn_t limit, struct key_set *set)
{
    FOR_EACH_STATE(span, page)
    {
        if (is_state(page->key, kind) && layer_page_at(page, limit) != NULL) {
            key_set_add(set, page->key);
        }
    }
}

/* The first block of the next run of `run`; false behind the last there can be. */
static bool next_run(struct page_key *key, uint32_t run)
{
    if (key->block / run < UINT32_MAX / run) {
        key->block = (key->block / run + 1) * run;
        return true;
    }
    key->block = 0;
    return key->rel++ < UINT32_MAX;
}

static err_t gather_states(
    struct page_reader *reader,
    const struct page_span *span,
    enum state_kind kind,
    uint32_t run,
    lsn_t limit,
    struct key_set *set,
    struct errmsg *msg)
{
    struct page_key at = page_key_state(kind, 0, 0);
    for (;;) {
        struct place place;
        bool found;
        TRY(seek_key(reader, span->timeline, at, limit, &found, &place, msg));
        if (!found || !is_state(place.key, kind)) {
            return ERR_OK;
        }
        if (place.lsn > limit) {
            at = place.key; /* its newest version is too new: look for an older one */
            continue;
        }
        key_set_add(set, place.key);
        at = place.key;
        if (!next_run(&at, run)) {
            return ERR_OK;
        }
    }
}

err_t page_reader_state_runs(
    struct page_reader *reader,
    enum state_kind kind,
    uint32_t run,
    lsn_t lsn,
    err_t (*visit)(struct page_key key, void *context, struct errmsg *msg),
    void *context,
    struct errmsg *msg)
{
    struct key_set set = {0};
    err_t err = ERR_OK;
    for (size_t i = 0; i < reader->path->count && err == ERR_OK; i++) {
        const struct page_span *span = &reader->path->spans[i];
        lsn_t limit = MIN_OF(lsn, span->max_lsn);
        gather_layer_states(&reader->view->spans[i], kind, limit, &set);
        err = gather_states(reader, span, kind, run, limit, &set, msg);
    }
    key_set_sort(&set);
    for (size_t i = 0; i < set.count && err == ERR_OK; i++) {
        err = visit(set.items[i], context, msg);
    }
    mem_free(set.items);
    return err;
}

err_t page_reader_state_keys(
    struct page_reader *reader,
    enum state_kind kind,
    lsn_t lsn,
    err_t (*visit)(struct page_key key, void *context, struct errmsg *msg),
    void *context,
    struct errmsg *msg)
{
    return page_reader_state_runs(reader, kind, 1, lsn, visit, context, msg);
}

/* -- times of commits -- */

/* One commit of a span: its key says when, its value where the record begins. */
struct commit {
    bool found;
    uint64_t time;
    lsn_t lsn, start_lsn;
};

static uint64_t time_of(struct page_key key)
{
    return (uint64_t)key.rel << 32 | key.block;
}

static err_t commit_value(
    uint32_t timeline,
    struct page_key key,
    lsn_t lsn,
    uint8_t tag,
    struct bytes value,
    struct commit *ret_commit,
    struct errmsg *msg)
{
    struct reader in = reader_of(value);
    uint64_t start_lsn = get_u64(&in);
    if (in.bad || tag != VALUE_STATE) {
        struct found_version found = {.timeline = timeline, .key = key, .lsn = lsn};
        return version_malformed(&found, msg);
    }
    *ret_commit =
        (struct commit){.found = true, .time = time_of(key), .lsn = lsn, .start_lsn = start_lsn};
    return ERR_OK;
}

static struct page_key key_of_time(uint64_t time)
{
    return page_key_state(STATE_COMMIT_TIME, (uint32_t)(time >> 32), (uint32_t)time);
}

/* The first of the span with a time > `time`, in the kv. */
static err_t kv_commit_after(
    struct page_reader *reader,
    uint32_t timeline,
    uint64_t time,
    struct commit *ret_commit,
    struct errmsg *msg)
{
    struct place place;
    bool found;
    if (time == UINT64_MAX) {
        return ERR_OK;
    }
    TRY(seek_key(reader, timeline, key_of_time(time + 1), UINT64_MAX, &found, &place, msg));
    if (!found || !is_state(place.key, STATE_COMMIT_TIME)) {
        return ERR_OK;
    }
    struct found_version version;
    TRY(found_in_kv(reader->keys, &version, msg));
    return commit_value(
        timeline, version.key, version.lsn, version.tag, version.value, ret_commit, msg);
}

static err_t layer_commit_after(
    const struct span_layers *span,
    uint32_t timeline,
    uint64_t time,
    struct commit *commit,
    struct errmsg *msg)
{
    FOR_EACH_STATE(span, page)
    {
        if (!is_state(page->key, STATE_COMMIT_TIME) || time_of(page->key) <= time ||
            (commit->found && time_of(page->key) > commit->time)) {
            continue;
        }
        const struct layer_version *version = layer_page_at(page, UINT64_MAX);
        struct bytes value = layer_version_value(version);
        TRY(commit_value(timeline, page->key, version->lsn, version->tag, value, commit, msg));
    }
    return ERR_OK;
}

err_t page_reader_commit_after(
    struct page_reader *reader, uint64_t time, lsn_t lsn, lsn_t *ret_lsn, struct errmsg *msg)
{
    for (size_t i = reader->path->count; i-- > 0;) {
        const struct page_span *span = &reader->path->spans[i];
        struct commit commit = {0};
        TRY(kv_commit_after(reader, span->timeline, time, &commit, msg));
        TRY(layer_commit_after(&reader->view->spans[i], span->timeline, time, &commit, msg));
        /* Times only grow with the LSN: behind one beyond the limit there is none below it. */
        if (commit.found && commit.lsn <= MIN_OF(lsn, span->max_lsn)) {
            *ret_lsn = commit.start_lsn;
            return ERR_OK;
        }
    }
    return err_set(msg, ERR_NOT_FOUND, "no commit after that time");
}

/* The first at or behind `time` that lies within the limit; times only grow with the LSN. */
static err_t kv_commit_within(
    struct page_reader *reader,
    uint32_t timeline,
    uint64_t time,
    lsn_t limit,
    struct commit *commit,
    bool *ret_found,
    struct errmsg *msg)
{
    struct place place;
    TRY(seek_key(reader, timeline, key_of_time(time), UINT64_MAX, ret_found, &place, msg));
    *ret_found = *ret_found && is_state(place.key, STATE_COMMIT_TIME) && place.lsn <= limit;
    if (*ret_found) {
        *commit = (struct commit){.found = true, .time = time_of(place.key)};
    }
    return ERR_OK;
}

/* The last of the timeline, if it lies within the limit: what ingest and reads of the head ask. */
static err_t kv_last_commit(
    struct page_reader *reader,
    uint32_t timeline,
    lsn_t limit,
    struct commit *commit,
    uint64_t *ret_last_time,
    struct errmsg *msg)
{
    if (reader->keys == NULL) {
        reader->keys = kv_iter_create(reader->store->kv, false);
    }
    uint8_t last[PAGE_KEY_SIZE];
    page_key_encode(timeline, key_of_time(UINT64_MAX), 0, last);
    kv_iter_seek_for_prev(reader->keys, bytes_of(last, sizeof(last)));
    *ret_last_time = 0;
    if (!kv_iter_valid(reader->keys)) {
        return kv_iter_error(reader->keys, msg);
    }
    struct place place;
    TRY(page_key_decode(kv_iter_key(reader->keys), &place.timeline, &place.key, &place.lsn));
    if (place.timeline == timeline && is_state(place.key, STATE_COMMIT_TIME)) {
        *ret_last_time = time_of(place.key);
        if (place.lsn <= limit) {
            *commit = (struct commit){.found = true, .time = time_of(place.key)};
        }
    }
    return ERR_OK;
}

/* Halve the times between the oldest, which lies within the limit, and the last, which does not. */
static err_t kv_newest_commit(
    struct page_reader *reader,
    uint32_t timeline,
    lsn_t limit,
    struct commit *commit,
    struct errmsg *msg)
{
    uint64_t end;
    bool found;
    TRY(kv_last_commit(reader, timeline, limit, commit, &end, msg));
    if (commit->found || end == 0) {
        return ERR_OK;
    }
    TRY(kv_commit_within(reader, timeline, 0, limit, commit, &found, msg));
    for (uint64_t begin = found ? commit->time + 1 : end; begin < end;) {
        uint64_t middle = begin + (end - begin) / 2;
        TRY(kv_commit_within(reader, timeline, middle, limit, commit, &found, msg));
        begin = found ? commit->time + 1 : begin;
        end = found ? end : middle;
    }
    return ERR_OK;
}

static void layer_newest_commit(const struct span_layers *span, lsn_t limit, struct commit *commit)
{
    FOR_EACH_STATE(span, page)
    {
        if (is_state(page->key, STATE_COMMIT_TIME) && layer_page_at(page, limit) != NULL &&
            (!commit->found || time_of(page->key) > commit->time)) {
            *commit = (struct commit){.found = true, .time = time_of(page->key)};
        }
    }
}

err_t page_reader_newest_commit(
    struct page_reader *reader, lsn_t lsn, uint64_t *ret_time, struct errmsg *msg)
{
    for (size_t i = 0; i < reader->path->count; i++) {
        const struct page_span *span = &reader->path->spans[i];
        lsn_t limit = MIN_OF(lsn, span->max_lsn);
        struct commit commit = {0};
        TRY(kv_newest_commit(reader, span->timeline, limit, &commit, msg));
        layer_newest_commit(&reader->view->spans[i], limit, &commit);
        if (commit.found) {
            *ret_time = commit.time;
            return ERR_OK;
        }
    }
    return err_set(msg, ERR_NOT_FOUND, "no commit yet");
}
