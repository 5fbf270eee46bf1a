#include "pageserver/store/gc_pass.h"

#include <stdatomic.h>

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "common/kv/kv.h"
#include "common/wire/codec.h"

METRIC_COUNTER(
    versions_seen, "pageserver_gc_versions_seen_total", "versions that compactions looked at");
METRIC_COUNTER(
    versions_dropped, "pageserver_gc_versions_dropped_total", "versions that nobody can read");
METRIC_COUNTER(
    bytes_dropped, "pageserver_gc_dropped_bytes_total", "bytes of versions that nobody can read");

struct gc_passes {
    struct kv_filter filter;
    struct gc_source *source;
    _Atomic(struct kv *) kv; /* NULL: not started */
    _Atomic uint64_t dropped, hid, hiding;
};

struct gc_pass {
    struct kv_filter_pass pass;
    struct gc_lookup lookup;
    struct gc_passes *passes;
    struct gc_horizon *horizon;
    struct gc_filter filter;
    struct kv *kv;
    struct kv_iter *versions; /* within the prefix of one key; both are made on first use */
    struct kv_iter *keys;     /* total order */
};

/* -- looking things up: in the kv alone, for no cutoff lies beyond what is durable -- */

/* Most passes look nothing up. */
static void make_iterators(struct gc_pass *pass)
{
    if (pass->versions == NULL) {
        pass->versions = kv_iter_create_in_pass(pass->kv, true);
        pass->keys = kv_iter_create_in_pass(pass->kv, false);
    }
}

/* The newest size of the fork on one timeline at `lsn`; ret_lsn 0: there is none. */
static err_t size_in_timeline(
    struct gc_pass *pass,
    uint32_t timeline,
    struct page_key fork,
    lsn_t lsn,
    uint32_t *ret_blocks,
    lsn_t *ret_lsn)
{
    uint8_t from[PAGE_KEY_SIZE];
    struct kv_iter *iter = pass->versions;
    page_key_encode(timeline, page_key_size_of(fork), lsn, from);
    kv_iter_seek(iter, bytes_of(from, sizeof(from)));
    *ret_lsn = 0;
    if (!kv_iter_valid(iter)) {
        return kv_iter_error(iter, NULL);
    }
    struct page_key found;
    TRY(page_key_decode(kv_iter_key(iter), &timeline, &found, ret_lsn));
    if (memcmp(kv_iter_key(iter).data, from, PAGE_KEY_PREFIX_SIZE) != 0) {
        *ret_lsn = 0; /* a store without filters leaves the prefix */
        return ERR_OK;
    }
    struct reader in = reader_of(kv_iter_value(iter));
    uint8_t tag = get_u8(&in);
    bool exists = get_u8(&in) != 0;
    uint32_t blocks = get_u32(&in);
    *ret_blocks = exists ? blocks : 0;
    return in.bad || in.left > 0 || tag != VALUE_STATE ? ERR_CORRUPT : ERR_OK;
}

/*
 * Along the parents that are kept: one that is not has nothing that its children see. ret_valid_to:
 * the answer is the same down to this LSN.
 */
static bool size_at(
    struct gc_pass *pass,
    uint32_t timeline,
    struct page_key fork,
    lsn_t lsn,
    uint32_t *ret_blocks,
    lsn_t *ret_valid_to)
{
    const struct gc_keep *keep = gc_horizon_find(pass->horizon, timeline);
    *ret_blocks = UINT32_MAX;
    *ret_valid_to = 0;
    for (; keep != NULL; keep = gc_horizon_find(pass->horizon, keep->parent)) {
        if (size_in_timeline(pass, keep->timeline, fork, lsn, ret_blocks, ret_valid_to) != ERR_OK) {
            return false;
        }
        if (*ret_valid_to != 0) {
            return true;
        }
        lsn = MIN_OF(lsn, keep->start_lsn);
    }
    return true;
}

/* Newest first: all LSNs down to the size's own are answered by one look. */
static bool blocks_at(
    struct gc_lookup *lookup,
    uint32_t timeline,
    struct page_key fork,
    const lsn_t *lsns,
    size_t count,
    uint32_t *ret_blocks)
{
    struct gc_pass *pass = CONTAINER_OF(lookup, struct gc_pass, lookup);
    make_iterators(pass);
    lsn_t valid_to = UINT64_MAX;
    uint32_t blocks = 0;
    for (size_t i = count; i-- > 0;) {
        if (lsns[i] < valid_to && !size_at(pass, timeline, fork, lsns[i], &blocks, &valid_to)) {
            return false;
        }
        ret_blocks[i] = blocks;
    }
    return true;
}

static bool next_commit(
    struct gc_lookup *lookup, uint32_t timeline, struct page_key key, lsn_t *ret_lsn)
{
    struct gc_pass *pass = CONTAINER_OF(lookup, struct gc_pass, lookup);
    make_iterators(pass);
    uint8_t from[PAGE_KEY_SIZE];
    page_key_encode(timeline, key, 0, from); /* its oldest possible version: others are behind */
    struct kv_iter *iter = pass->keys;
    kv_iter_seek(iter, bytes_of(from, sizeof(from)));
    *ret_lsn = UINT64_MAX;
    while (kv_iter_valid(iter)) {
        uint32_t found_timeline;
        struct page_key found;
        lsn_t lsn;
        if (page_key_decode(kv_iter_key(iter), &found_timeline, &found, &lsn) != ERR_OK) {
            return false;
        }
        if (found_timeline != timeline || found.spc != key.spc || found.db != key.db) {
            return true;
        }
        if (!page_key_equal(found, key)) {
            *ret_lsn = lsn;
            return true;
        }
        kv_iter_next(iter);
    }
    return kv_iter_error(iter, NULL) == ERR_OK;
}

/* Is there a version of the key on the timeline at or below `lsn`? */
static err_t has_version(
    struct gc_pass *pass, uint32_t timeline, struct page_key key, lsn_t lsn, bool *ret_has)
{
    uint8_t from[PAGE_KEY_SIZE];
    page_key_encode(timeline, key, lsn, from);
    kv_iter_seek(pass->versions, bytes_of(from, sizeof(from)));
    *ret_has = kv_iter_valid(pass->versions) &&
               memcmp(kv_iter_key(pass->versions).data, from, PAGE_KEY_PREFIX_SIZE) == 0;
    return kv_iter_valid(pass->versions) ? ERR_OK : kv_iter_error(pass->versions, NULL);
}

/* Blocks of a fork stand before its size. */
static err_t has_blocks(
    struct gc_pass *pass, uint32_t timeline, struct page_key size_key, bool *ret_has)
{
    struct page_key first = size_key, found;
    uint8_t from[PAGE_KEY_SIZE];
    lsn_t lsn;
    uint32_t found_timeline;
    first.block = 0;
    *ret_has = false;
    page_key_encode(timeline, first, UINT64_MAX, from);
    kv_iter_seek(pass->keys, bytes_of(from, sizeof(from)));
    if (!kv_iter_valid(pass->keys)) {
        return kv_iter_error(pass->keys, NULL);
    }
    TRY(page_key_decode(kv_iter_key(pass->keys), &found_timeline, &found, &lsn));
    *ret_has = found_timeline == timeline && found.block != KEY_BLOCK_SIZE &&
               page_key_equal(page_key_size_of(found), size_key);
    return ERR_OK;
}

/* Blocks on a parent have a size there. */
static bool hides_something(
    struct gc_lookup *lookup, uint32_t timeline, struct page_key key, lsn_t lsn, bool *ret_hides)
{
    struct gc_pass *pass = CONTAINER_OF(lookup, struct gc_pass, lookup);
    make_iterators(pass);
    bool hides = false;
    err_t err = ERR_OK;
    if (key.spc != KEY_SPC_STATE) {
        err = has_blocks(pass, timeline, key, &hides);
    }
    lsn--; /* older than itself */
    const struct gc_keep *keep = gc_horizon_find(pass->horizon, timeline);
    for (; keep != NULL && err == ERR_OK && !hides;
         keep = gc_horizon_find(pass->horizon, keep->parent)) {
        err = has_version(pass, keep->timeline, key, lsn, &hides);
        lsn = MIN_OF(lsn, keep->start_lsn);
    }
    *ret_hides = hides;
    return err == ERR_OK;
}

/* -- a pass -- */

static bool drops(struct kv_filter_pass *kv_pass, struct bytes key, struct bytes value)
{
    struct gc_pass *pass = CONTAINER_OF(kv_pass, struct gc_pass, pass);
    return gc_filter_drops(&pass->filter, key, value);
}

static void end(struct kv_filter_pass *kv_pass)
{
    struct gc_pass *pass = CONTAINER_OF(kv_pass, struct gc_pass, pass);
    metric_add(&versions_seen, (int64_t)pass->filter.seen);
    metric_add(&versions_dropped, (int64_t)pass->filter.dropped);
    metric_add(&bytes_dropped, (int64_t)pass->filter.dropped_bytes);
    atomic_fetch_add(&pass->passes->dropped, pass->filter.dropped);
    atomic_fetch_add(&pass->passes->hid, pass->filter.hid);
    atomic_fetch_add(&pass->passes->hiding, pass->filter.hiding);
    kv_iter_destroy(pass->versions);
    kv_iter_destroy(pass->keys);
    gc_filter_deinit(&pass->filter);
    pass->passes->source->put_back(pass->passes->source, pass->horizon);
    mem_free(pass);
}

static struct kv_filter_pass *begin(struct kv_filter *filter)
{
    struct gc_passes *passes = CONTAINER_OF(filter, struct gc_passes, filter);
    struct kv *kv = atomic_load(&passes->kv);
    struct gc_horizon *horizon = kv == NULL ? NULL : passes->source->take(passes->source);
    if (horizon == NULL) {
        return NULL;
    }
    struct gc_pass *pass = MEM_NEW(struct gc_pass);
    pass->pass = (struct kv_filter_pass){.drops = drops, .end = end};
    pass->lookup = (struct gc_lookup){
        .blocks_at = blocks_at,
        .next_commit = next_commit,
        .hides_something = hides_something,
    };
    pass->passes = passes;
    pass->kv = kv;
    pass->horizon = horizon;
    gc_filter_init(&pass->filter, horizon, &pass->lookup);
    return &pass->pass;
}

struct gc_passes *gc_passes_create(struct gc_source *source)
{
    struct gc_passes *passes = MEM_NEW(struct gc_passes);
    passes->filter.begin = begin;
    passes->source = source;
    return passes;
}

void gc_passes_destroy(struct gc_passes *passes)
{
    mem_free(passes);
}

struct kv_filter *gc_passes_filter(struct gc_passes *passes)
{
    return passes == NULL ? NULL : &passes->filter;
}

void gc_passes_start(struct gc_passes *passes, struct kv *kv)
{
    if (passes != NULL) {
        atomic_store(&passes->kv, kv);
    }
}

struct gc_counts gc_passes_counts(const struct gc_passes *passes)
{
    struct gc_counts counts = {0};
    if (passes != NULL) {
        counts.dropped = atomic_load(&passes->dropped);
        counts.hid = atomic_load(&passes->hid);
        counts.hiding = atomic_load(&passes->hiding);
    }
    return counts;
}
