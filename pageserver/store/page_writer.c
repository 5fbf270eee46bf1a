/* page_writer of page_store.h: versions into the open layer of one timeline. */
#include "common/base/assert.h"
#include "common/base/fault.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "common/wire/codec.h"
#include "pageserver/store/page_store_private.h"

METRIC_COUNTER(
    versions_written, "pageserver_store_versions_written_total", "versions put into page stores");
METRIC_COUNTER(bytes_written, "pageserver_store_written_bytes_total", "bytes put into page stores");

struct page_writer {
    struct page_store *store;
    struct timeline_layers *layers;
    int64_t versions, bytes; /* not counted in the metrics yet */
};

err_t page_writer_open(
    struct page_store *store,
    uint32_t timeline,
    struct page_writer **ret_writer,
    struct errmsg *msg)
{
    struct timeline_layers *layers = NULL;
    TRY(timeline_layers_get(store, timeline, &layers, msg));
    struct page_writer *writer = MEM_NEW(struct page_writer);
    writer->store = store;
    writer->layers = layers;
    *ret_writer = writer;
    return ERR_OK;
}

static void count(struct page_writer *writer)
{
    metric_add(&versions_written, writer->versions);
    metric_add(&bytes_written, writer->bytes);
    writer->versions = writer->bytes = 0;
}

void page_writer_close(struct page_writer *writer)
{
    if (writer != NULL) {
        count(writer);
        mem_free(writer);
    }
}

/* The layer exists for readers before it has its first version. Under `writing`. */
static struct open_layer *open_layer_of(struct page_writer *writer)
{
    struct timeline_layers *layers = writer->layers;
    if (layers->open == NULL) {
        struct open_layer *layer = open_layer_create();
        atomic_fetch_add_explicit(
            &writer->store->open_bytes, open_layer_bytes(layer), memory_order_relaxed);
        (void)pthread_mutex_lock(&writer->store->lock);
        layers->open = layer;
        writer->store->layer_changes++;
        list_push_back(&writer->store->dirty, &layers->dirty_link);
        (void)pthread_mutex_unlock(&writer->store->lock);
    }
    return layers->open;
}

void page_writer_put(
    struct page_writer *writer,
    struct page_key key,
    lsn_t lsn,
    uint8_t tag,
    uint8_t block_index,
    struct bytes value)
{
    (void)pthread_mutex_lock(&writer->layers->writing);
    size_t bytes = open_layer_put(open_layer_of(writer), key, lsn, tag, block_index, value);
    atomic_fetch_add_explicit(&writer->store->open_bytes, bytes, memory_order_relaxed);
    (void)pthread_mutex_unlock(&writer->layers->writing);
    writer->versions++;
    writer->bytes += (int64_t)bytes;
}

void page_writer_put_rel_size(
    struct page_writer *writer, struct page_key rel, lsn_t lsn, bool exists, uint32_t blocks)
{
    uint8_t value[REL_SIZE_VALUE_SIZE - 1];
    struct writer out = {.next = value, .left = sizeof(value)};
    put_u8(&out, exists ? 1 : 0);
    put_u32(&out, blocks);
    page_writer_put(
        writer, page_key_size_of(rel), lsn, VALUE_STATE, 0, bytes_of(value, sizeof(value)));
}

/* The layer's position is a field: one key a flush, however often it moves. */
err_t page_writer_commit(
    struct page_writer *writer, struct ingest_position position, struct errmsg *msg)
{
    err_t fault = FAULT("page_store.write");
    if (fault != ERR_OK) {
        return err_set(msg, fault, "page store: injected failure of a write");
    }
    struct timeline_layers *layers = writer->layers;
    (void)pthread_mutex_lock(&layers->writing);
    ASSERT(position.lsn >= layers->position.lsn);
    (void)open_layer_of(
        writer); /* an empty layer is dirty as well: its position is to be flushed */
    layers->position = position;
    (void)pthread_mutex_unlock(&layers->writing);
    count(writer);
    return ERR_OK;
}
