#include "pageserver/store/page_store.h"

#include <stdatomic.h>

#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/fault.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "common/kv/kv.h"
#include "common/wire/codec.h"
#include "pageserver/store/page_store_private.h"

METRIC_COUNTER(
    versions_written, "pageserver_store_versions_written_total", "versions put into page stores");
METRIC_COUNTER(bytes_written, "pageserver_store_written_bytes_total", "bytes put into page stores");
METRIC_HISTOGRAM(flush_seconds, "pageserver_store_flush_seconds", "time of a flush to disk");

struct page_batch {
    struct kv_batch *writes;
    struct buf room; /* of the value being put */
};

err_t page_store_open(
    const char *path,
    const struct page_store_options *options,
    struct page_store **ret_store,
    struct errmsg *msg)
{
    struct kv_options kv_options = {
        .prefix_size = PAGE_KEY_PREFIX_SIZE,
        .block_cache_bytes = options->block_cache_bytes,
        .write_buffer_bytes = options->write_buffer_bytes,
    };
    struct kv *kv = NULL;
    TRY(kv_open(path, &kv_options, &kv, msg));
    struct page_store *store = MEM_NEW(struct page_store);
    store->kv = kv;
    *ret_store = store;
    return ERR_OK;
}

void page_store_close(struct page_store *store)
{
    if (store != NULL) {
        kv_close(store->kv);
        mem_free(store);
    }
}

struct page_batch *page_batch_create(void)
{
    struct page_batch *batch = MEM_NEW(struct page_batch);
    batch->writes = kv_batch_create();
    return batch;
}

void page_batch_destroy(struct page_batch *batch)
{
    if (batch != NULL) {
        kv_batch_destroy(batch->writes);
        buf_deinit(&batch->room);
        mem_free(batch);
    }
}

void page_batch_clear(struct page_batch *batch)
{
    kv_batch_clear(batch->writes);
}

size_t page_batch_bytes(const struct page_batch *batch)
{
    return kv_batch_bytes(batch->writes);
}

size_t page_batch_count(const struct page_batch *batch)
{
    return kv_batch_count(batch->writes);
}

void page_batch_put(
    struct page_batch *batch,
    uint32_t timeline,
    struct page_key key,
    lsn_t lsn,
    uint8_t tag,
    uint8_t block_index,
    struct bytes value)
{
    ASSERT(timeline != TIMELINE_NUMBER_META);
    uint8_t key_bytes[PAGE_KEY_SIZE];
    page_key_encode(timeline, key, lsn, key_bytes);
    buf_clear(&batch->room);
    buf_append(&batch->room, &tag, sizeof(tag));
    if (tag == VALUE_DELTA || tag == VALUE_INIT) {
        buf_append(&batch->room, &block_index, sizeof(block_index));
    }
    buf_append(&batch->room, value.data, value.size);
    kv_batch_put(batch->writes, bytes_of(key_bytes, sizeof(key_bytes)), buf_view(&batch->room));
}

void page_batch_put_rel_size(
    struct page_batch *batch,
    uint32_t timeline,
    struct page_key rel,
    lsn_t lsn,
    bool exists,
    uint32_t blocks)
{
    uint8_t value[REL_SIZE_VALUE_SIZE - 1];
    struct writer out = {.next = value, .left = sizeof(value)};
    put_u8(&out, exists ? 1 : 0);
    put_u32(&out, blocks);
    page_batch_put(
        batch, timeline, page_key_size_of(rel), lsn, VALUE_STATE, 0,
        bytes_of(value, sizeof(value)));
}

/* One key a timeline, overwritten: at LSN 0, so that it does not grow into a history. */
void page_batch_put_position(
    struct page_batch *batch, uint32_t timeline, struct ingest_position position)
{
    uint8_t value[2 * sizeof(uint64_t)];
    struct writer out = {.next = value, .left = sizeof(value)};
    put_u64(&out, position.lsn);
    put_u64(&out, position.prev_record_lsn);
    page_batch_put(
        batch, timeline, page_key_state(STATE_INGEST_LSN, 0, 0), 0, VALUE_STATE, 0,
        bytes_of(value, sizeof(value)));
}

err_t page_store_write(struct page_store *store, struct page_batch *batch, struct errmsg *msg)
{
    err_t fault = FAULT("page_store.write");
    if (fault != ERR_OK) {
        return err_set(msg, fault, "page store: injected failure of a write");
    }
    TRY(kv_write(store->kv, batch->writes, KV_VOLATILE, msg));
    size_t bytes = page_batch_bytes(batch);
    atomic_fetch_add(&store->unflushed_bytes, bytes);
    metric_add(&versions_written, (int64_t)page_batch_count(batch));
    metric_add(&bytes_written, (int64_t)bytes);
    return ERR_OK;
}

err_t page_store_flush(struct page_store *store, struct errmsg *msg)
{
    err_t fault = FAULT("page_store.flush");
    if (fault != ERR_OK) {
        return err_set(msg, fault, "page store: injected failure of a flush");
    }
    mono_ns_t begin = clock_mono();
    uint64_t bytes = atomic_load(&store->unflushed_bytes);
    TRY(kv_flush(store->kv, msg));
    atomic_fetch_sub(&store->unflushed_bytes, bytes);
    metric_observe_ns(&flush_seconds, clock_mono() - begin);
    return ERR_OK;
}

uint64_t page_store_unflushed_bytes(const struct page_store *store)
{
    return atomic_load(&store->unflushed_bytes);
}

err_t page_store_position(
    struct page_store *store,
    uint32_t timeline,
    struct ingest_position *ret_position,
    struct errmsg *msg)
{
    uint8_t key[PAGE_KEY_SIZE];
    page_key_encode(timeline, page_key_state(STATE_INGEST_LSN, 0, 0), 0, key);
    struct buf value = {0};
    err_t err = kv_get(store->kv, bytes_of(key, sizeof(key)), &value, msg);
    if (err == ERR_OK) {
        struct reader in = reader_of(buf_view(&value));
        uint8_t tag = get_u8(&in);
        struct ingest_position position = {.lsn = get_u64(&in), .prev_record_lsn = get_u64(&in)};
        if (in.bad || in.left > 0 || tag != VALUE_STATE) {
            err = err_set(
                msg, ERR_CORRUPT, "ingest position of timeline %" PRIu32 " is malformed", timeline);
        } else {
            *ret_position = position;
        }
    }
    buf_deinit(&value);
    return err;
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

err_t page_store_erase(struct page_store *store, uint32_t timeline, struct errmsg *msg)
{
    ASSERT(timeline != TIMELINE_NUMBER_META);
    uint8_t begin[PAGE_KEY_PREFIX_SIZE], end[PAGE_KEY_PREFIX_SIZE];
    timeline_range(timeline, begin, end);
    return kv_erase_range(
        store->kv, bytes_of(begin, sizeof(begin)), bytes_of(end, sizeof(end)), msg);
}

uint64_t page_store_size_of(struct page_store *store, uint32_t timeline)
{
    uint8_t begin[PAGE_KEY_PREFIX_SIZE], end[PAGE_KEY_PREFIX_SIZE];
    timeline_range(timeline, begin, end);
    return kv_size_of_range(store->kv, bytes_of(begin, sizeof(begin)), bytes_of(end, sizeof(end)));
}

static void meta_key(enum meta_kind kind, uint32_t id, uint8_t to[PAGE_KEY_SIZE])
{
    page_key_encode(
        TIMELINE_NUMBER_META, (struct page_key){.db = (uint32_t)kind, .rel = id}, 0, to);
}

err_t page_store_meta_write(
    struct page_store *store, const struct meta_change *changes, size_t count, struct errmsg *msg)
{
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
    return err;
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
