#include "pageserver/read/reconstruct.h"

#include "common/base/assert.h"
#include "common/base/metric.h"
#include "common/pg/wal_record.h"
#include "pageserver/redo/redo.h"

METRIC_COUNTER(
    records_applied, "pageserver_redo_records_total", "WAL records applied to pages for reads");
METRIC_COUNTER(
    pages_failed, "pageserver_redo_failures_total", "pages that could not be rebuilt from WAL");
METRIC_GAUGE(
    records_max, "pageserver_read_records_max", "most WAL records that one page of a read took");

static void note_records(int64_t count)
{
    int64_t most = atomic_load_explicit(&records_max.value, memory_order_relaxed);
    while (count > most &&
           !atomic_compare_exchange_weak_explicit(
               &records_max.value, &most, count, memory_order_relaxed, memory_order_relaxed)) {
    }
}

void reconstruct_init(
    struct reconstruct *work, struct page_store *store, const struct page_path *path, lsn_t lsn)
{
    *work = (struct reconstruct){.reader = page_reader_create(store, path), .lsn = lsn};
}

void reconstruct_init_in_memory(
    struct reconstruct *work, struct page_store *store, const struct page_path *path, lsn_t lsn)
{
    *work = (struct reconstruct){.reader = page_reader_create_in_memory(store, path), .lsn = lsn};
}

void reconstruct_init_with(struct reconstruct *work, struct page_reader *reader, lsn_t lsn)
{
    *work = (struct reconstruct){.reader = reader, .is_borrowed = true, .lsn = lsn};
}

void reconstruct_deinit(struct reconstruct *work)
{
    if (!work->is_borrowed) {
        page_reader_destroy(work->reader);
    }
    page_versions_deinit(&work->versions);
    *work = (struct reconstruct){0};
}

static err_t apply_record(
    const struct page_version *version,
    struct bytes value,
    struct page_key key,
    uint8_t *page,
    struct errmsg *msg)
{
    struct wal_record record;
    TRY(wal_record_decode(value, version->lsn, version->lsn, &record, msg));
    return redo_apply(&record, version->block_index, key, page, msg);
}

/* On top of the older ones. Below the oldest there are zeros, unless it is an image. */
static err_t apply_version(
    const struct page_version *version,
    struct bytes value,
    struct page_key key,
    uint8_t *page,
    struct errmsg *msg)
{
    switch (version->tag) {
    case VALUE_IMAGE: memcpy(page, value.data, PAGE_SIZE); return ERR_OK;
    case VALUE_ZERO: return ERR_OK;
    case VALUE_INIT:
    case VALUE_DELTA: return apply_record(version, value, key, page, msg);
    default: return err_set(msg, ERR_CORRUPT, "a state value under a page");
    }
}

err_t reconstruct_apply(
    const struct page_versions *versions, struct page_key key, uint8_t *page, struct errmsg *msg)
{
    const struct page_version *items = versions->items;
    size_t count = versions->count;
    bool has_image = count > 0 && items[count - 1].tag == VALUE_IMAGE; /* images end a read */
    bool has_zeros = count > 0 && items[count - 1].tag == VALUE_ZERO;
    if (!has_image) {
        memset(page, 0, PAGE_SIZE);
    }
    for (size_t i = count; i-- > 0;) {
        err_t err =
            apply_version(&items[i], page_version_value(versions, &items[i]), key, page, msg);
        if (err != ERR_OK) {
            metric_add(&pages_failed, 1);
            return err_wrap(
                msg, err, "%s: version at " LSN_FMT, page_key_text(key).text,
                LSN_ARGS(items[i].lsn));
        }
    }
    /* Once a page: an atomic addition costs a tenth of a record. */
    int64_t records = (int64_t)count - (has_image || has_zeros);
    metric_add(&records_applied, records);
    note_records(records);
    return ERR_OK;
}

err_t reconstruct_page(
    struct reconstruct *work,
    struct page_key key,
    uint8_t *page,
    lsn_t *ret_lsn,
    struct errmsg *msg)
{
    struct page_versions *versions = &work->versions;
    TRY(page_reader_collect(work->reader, key, work->lsn, versions, msg));
    TRY(reconstruct_apply(versions, key, page, msg));
    if (ret_lsn != NULL) {
        *ret_lsn = versions->count == 0 ? 0 : versions->items[0].lsn;
    }
    return ERR_OK;
}
