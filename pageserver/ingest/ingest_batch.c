#include "pageserver/ingest/ingest_batch.h"

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "common/wire/codec.h"

METRIC_COUNTER(
    records_imported,
    "pageserver_ingest_imported_records_total",
    "WAL records that were too large for a layer");

METRIC_COUNTER(
    images_made, "pageserver_images_made_total", "page images made at ingest, for short reads");
METRIC_COUNTER(
    images_failed,
    "pageserver_images_failed_total",
    "page images that redo could not make; the page cannot be read either");
METRIC_COUNTER(
    counts_looked_up,
    "pageserver_image_counts_looked_up_total",
    "pages whose number of records since their image was read from the store");

#define SIZES_KEPT         32768     /* between two batches; within one it may grow */
#define LARGE_RECORD_BYTES (4 * MIB) /* of versions */

static struct ingest_batch *batch_of_source(struct wal_state_source *source)
{
    return CONTAINER_OF(source, struct ingest_batch, source);
}

/* -- source: the store as of now -- */

/* As of now. One for all of a piece: an iterator over many files is dear to make. */
static struct page_reader *reader_of_now(struct ingest_batch *batch)
{
    if (batch->reader == NULL) {
        batch->reader = page_reader_create(batch->store, batch->path);
    } else {
        page_reader_refresh(batch->reader);
    }
    return batch->reader;
}

static void drop_reader(struct ingest_batch *batch)
{
    page_reader_destroy(batch->reader);
    batch->reader = NULL;
}

static err_t look_up_size(
    struct ingest_batch *batch, struct page_key rel, struct fork_size *ret_size, struct errmsg *msg)
{
    if (rel_size_cache_get(&batch->sizes, rel, ret_size)) {
        return ERR_OK; /* sizes of this batch are all in here */
    }
    TRY(page_reader_rel_size(reader_of_now(batch), rel, batch->before_lsn, ret_size, msg));
    rel_size_cache_put(&batch->sizes, rel, *ret_size);
    return ERR_OK;
}

static err_t source_rel_size(
    struct wal_state_source *source, struct page_key rel, uint32_t *ret_blocks, struct errmsg *msg)
{
    struct fork_size size;
    TRY(look_up_size(batch_of_source(source), rel, &size, msg));
    if (!size.exists) {
        return err_set(msg, ERR_NOT_FOUND, "%s does not exist", page_key_text(rel).text);
    }
    *ret_blocks = size.blocks;
    return ERR_OK;
}

static err_t source_state(
    struct wal_state_source *source, struct page_key key, struct buf *to, struct errmsg *msg)
{
    struct ingest_batch *batch = batch_of_source(source);
    return page_reader_state(reader_of_now(batch), key, batch->before_lsn, to, NULL, msg);
}

static err_t source_relations(
    struct wal_state_source *source,
    uint32_t spc,
    uint32_t db,
    err_t (*visit)(struct page_key rel, uint32_t blocks, void *context, struct errmsg *msg),
    void *context,
    struct errmsg *msg)
{
    struct ingest_batch *batch = batch_of_source(source);
    struct page_reader *reader = page_reader_create(batch->store, batch->path);
    err_t err = page_reader_relations(reader, spc, db, batch->before_lsn, visit, context, msg);
    page_reader_destroy(reader);
    return err;
}

static err_t source_page(
    struct wal_state_source *source, struct page_key key, uint8_t *to, struct errmsg *msg)
{
    struct ingest_batch *batch = batch_of_source(source);
    return batch->options->read_page(reader_of_now(batch), key, batch->before_lsn, to, msg);
}

static err_t source_newest_commit_time(
    struct wal_state_source *source, uint64_t *ret_time, struct errmsg *msg)
{
    struct ingest_batch *batch = batch_of_source(source);
    return page_reader_newest_commit(reader_of_now(batch), batch->before_lsn, ret_time, msg);
}

/* -- sink -- */

static void note_page(struct ingest_batch *batch, struct page_key key)
{
    if (batch->page_count == batch->page_capacity) {
        batch->page_capacity = batch->page_capacity == 0 ? 256 : 2 * batch->page_capacity;
        batch->pages = mem_realloc(batch->pages, batch->page_capacity * sizeof(batch->pages[0]));
    }
    batch->pages[batch->page_count++] = key;
}

static void note_size(struct ingest_batch *batch, struct page_key rel, struct fork_size size)
{
    rel_size_cache_put(&batch->sizes, rel, size);
    if (batch->size_count == batch->size_capacity) {
        batch->size_capacity = batch->size_capacity == 0 ? 64 : 2 * batch->size_capacity;
        batch->size_changes =
            mem_realloc(batch->size_changes, batch->size_capacity * sizeof(batch->size_changes[0]));
    }
    batch->size_changes[batch->size_count++] = (struct size_change){.rel = rel, .size = size};
}

static struct fork_size size_of(const struct ingest_batch *batch, struct bytes value)
{
    struct reader in = reader_of(value);
    bool exists = get_u8(&in) != 0;
    uint32_t blocks = get_u32(&in);
    ASSERT(!in.bad && in.left == 0); /* the decoder's own format */
    return (struct fork_size){.exists = exists, .blocks = exists ? blocks : 0, .lsn = batch->lsn};
}

/* Once a record is known to be large, the rest of it goes past the layer. */
static void put_version(
    struct ingest_batch *batch,
    struct page_key key,
    uint8_t tag,
    uint8_t block_index,
    struct bytes value)
{
    bool is_record = tag == VALUE_DELTA || tag == VALUE_INIT;
    batch->record_bytes += is_record ? 0 : value.size;
    if (batch->record_bytes >= LARGE_RECORD_BYTES && batch->import == NULL) {
        batch->import = page_import_create(batch->store, batch->timeline, batch->lsn);
        batch->forget_pages = true;
        metric_add(&records_imported, 1);
    }
    if (batch->import == NULL || is_record) {
        page_writer_put(batch->writer, key, batch->lsn, tag, block_index, value);
    } else {
        err_ignore(
            page_import_put(batch->import, key, tag, value, NULL), "told when the record ends");
    }
}

static void note_touched(struct ingest_batch *batch, struct page_key key, uint8_t tag)
{
    if (batch->touched_count == batch->touched_capacity) {
        batch->touched_capacity = batch->touched_capacity == 0 ? 64 : 2 * batch->touched_capacity;
        batch->touched =
            mem_realloc(batch->touched, batch->touched_capacity * sizeof(batch->touched[0]));
    }
    batch->touched[batch->touched_count++] = (struct touched_page){.key = key, .tag = tag};
}

static void sink_put(
    struct wal_sink *sink,
    struct page_key key,
    uint8_t tag,
    uint8_t block_index,
    struct bytes value)
{
    struct ingest_batch *batch = CONTAINER_OF(sink, struct ingest_batch, sink);
    image_counts_prefetch(&batch->counts, key);
    put_version(batch, key, tag, block_index, value);
    if (tag != VALUE_STATE && batch->import == NULL && batch->options->image_after_records > 0) {
        note_touched(batch, key, tag);
    }
    if (key.spc == KEY_SPC_STATE) {
        batch->slots_changed |= key.db == STATE_SLOT;
        return;
    }
    if (key.block == KEY_BLOCK_SIZE) {
        key.block = 0;
        note_size(batch, key, size_of(batch, value));
    } else if (!batch->forget_pages) {
        note_page(batch, key);
    }
}

/* -- images -- */

/* Records that a read of the page would apply, as of the record before; its ancestors' included. */
static err_t look_up_records(
    struct ingest_batch *batch, struct page_key key, unsigned *ret_records, struct errmsg *msg)
{
    struct page_versions versions = {0};
    err_t err = page_reader_collect(reader_of_now(batch), key, batch->before_lsn, &versions, msg);
    unsigned records = 0;
    for (size_t i = 0; i < versions.count && records < IMAGE_COUNT_MAX; i++) {
        uint8_t tag = versions.items[i].tag;
        records += tag == VALUE_DELTA || tag == VALUE_INIT ? 1 : 0;
    }
    page_versions_deinit(&versions);
    metric_add(&counts_looked_up, 1);
    *ret_records = records;
    return err;
}

static err_t count_records(
    struct ingest_batch *batch,
    const struct touched_page *page,
    unsigned *ret_records,
    struct errmsg *msg)
{
    unsigned before = 0;
    if (page->tag == VALUE_DELTA && !image_counts_get(&batch->counts, page->key, &before)) {
        TRY(look_up_records(batch, page->key, &before, msg));
    }
    *ret_records = page->tag == VALUE_DELTA ? before + 1 : page->tag == VALUE_INIT ? 1 : 0;
    return ERR_OK;
}

/* In place of the record. A page that redo cannot make is left alone: reads will say so. */
static err_t make_image(struct ingest_batch *batch, struct page_key key, struct errmsg *msg)
{
    uint8_t page[PAGE_SIZE];
    err_t err = batch->options->read_page(reader_of_now(batch), key, batch->lsn, page, msg);
    if (err == ERR_CORRUPT || err == ERR_UNSUPPORTED) {
        metric_add(&images_failed, 1);
        return ERR_OK;
    }
    TRY(err);
    page_writer_put(batch->writer, key, batch->lsn, VALUE_IMAGE, 0, bytes_of(page, sizeof(page)));
    metric_add(&images_made, 1);
    return ERR_OK;
}

static err_t make_due_images(struct ingest_batch *batch, struct errmsg *msg)
{
    for (size_t i = 0; i < batch->touched_count; i++) {
        const struct touched_page *page = &batch->touched[i];
        unsigned records = 0;
        TRY(count_records(batch, page, &records, msg));
        if (records >= batch->options->image_after_records) {
            TRY(make_image(batch, page->key, msg));
            records = 0;
        }
        image_counts_set(&batch->counts, page->key, records);
    }
    batch->touched_count = 0;
    return ERR_OK;
}

void ingest_batch_init(struct ingest_batch *batch, const struct wal_ingest_options *options)
{
    *batch = (struct ingest_batch){
        .source =
            {
                .rel_size = source_rel_size,
                .state = source_state,
                .relations = source_relations,
                .page = source_page,
                .newest_commit_time = source_newest_commit_time,
            },
        .sink.put = sink_put,
        .options = options,
        .store = timeline_store(options->timeline),
        .path = timeline_path(options->timeline),
        .timeline = timeline_number(options->timeline),
    };
}

void ingest_batch_deinit(struct ingest_batch *batch)
{
    drop_reader(batch);
    page_writer_close(batch->writer);
    page_import_destroy(batch->import);
    rel_size_cache_deinit(&batch->sizes);
    image_counts_deinit(&batch->counts);
    mem_free(batch->touched);
    mem_free(batch->pages);
    mem_free(batch->size_changes);
}

err_t ingest_batch_begin(struct ingest_batch *batch, struct errmsg *msg)
{
    ASSERT(batch->import == NULL);
    batch->page_count = 0;
    batch->size_count = 0;
    batch->forget_pages = false;
    batch->slots_changed = false;
    batch->touched_count = 0;
    if (batch->sizes.count > SIZES_KEPT) {
        rel_size_cache_clear(&batch->sizes);
    }
    return batch->writer != NULL
               ? ERR_OK
               : page_writer_open(batch->store, batch->timeline, &batch->writer, msg);
}

err_t ingest_batch_end_record(struct ingest_batch *batch, struct errmsg *msg)
{
    batch->record_bytes = 0;
    if (batch->import == NULL) {
        return make_due_images(batch, msg);
    }
    image_counts_clear(&batch->counts); /* the import's pages are not counted one by one */
    batch->touched_count = 0;
    err_t err = page_import_finish(batch->import, NULL, msg);
    drop_reader(batch); /* it does not see what came past the layers */
    page_import_destroy(batch->import);
    batch->import = NULL;
    return err;
}

err_t ingest_batch_commit(
    struct ingest_batch *batch, struct ingest_position position, struct errmsg *msg)
{
    return page_writer_commit(batch->writer, position, msg);
}

void ingest_batch_end(struct ingest_batch *batch)
{
    drop_reader(batch);
}
