#include "control/catalog/catalog.h"

#include <stdlib.h>

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/kv/kv.h"

struct catalog {
    struct kv *kv;
};

err_t catalog_open(const char *path, struct catalog **ret_catalog, struct errmsg *msg)
{
    struct kv *kv = NULL;
    err_t err = kv_open(path, &(struct kv_options){0}, &kv, msg);
    if (err != ERR_OK) {
        return err_wrap(msg, err, "open catalog %s", path);
    }
    struct catalog *catalog = MEM_NEW(struct catalog);
    catalog->kv = kv;
    *ret_catalog = catalog;
    return ERR_OK;
}

void catalog_close(struct catalog *catalog)
{
    if (catalog != NULL) {
        kv_close(catalog->kv);
        mem_free(catalog);
    }
}

/* ---- loading ---- */

struct loaded {
    union any_row **rows;
    size_t count, capacity;
};

static void loaded_add(struct loaded *loaded, enum row_kind kind, const union any_row *row)
{
    if (loaded->count == loaded->capacity) {
        loaded->capacity = loaded->capacity == 0 ? 64 : loaded->capacity * 2;
        loaded->rows = mem_realloc(loaded->rows, loaded->capacity * sizeof(void *));
    }
    loaded->rows[loaded->count++] = mem_dup(row, row_size(kind));
}

static void loaded_deinit(struct loaded *loaded, enum row_kind kind)
{
    for (size_t i = 0; i < loaded->count; i++) {
        row_unref(kind, loaded->rows[i]);
        mem_free(loaded->rows[i]);
    }
    mem_free(loaded->rows);
    *loaded = (struct loaded){0};
}

static int by_creation(const void *left, const void *right)
{
    const union any_row *a = *(union any_row *const *)left;
    const union any_row *b = *(union any_row *const *)right;
    return (a->head.seq > b->head.seq) - (a->head.seq < b->head.seq);
}

static err_t read_row(
    enum row_kind kind, struct bytes value, struct loaded *loaded, struct errmsg *msg)
{
    struct doc *doc = NULL;
    TRY(doc_parse(value, &doc, msg));
    union any_row row;
    err_t err = row_decode(kind, doc, &row, msg);
    doc_unref(doc);
    if (err == ERR_OK) {
        loaded_add(loaded, kind, &row); /* it has taken over the references */
    }
    return err;
}

static err_t read_kind(
    struct catalog *catalog, enum row_kind kind, struct loaded *loaded, struct errmsg *msg)
{
    struct buf prefix = {0};
    buf_printf(&prefix, "%s/", row_kind_name(kind));
    struct kv_iter *iter = kv_iter_create(catalog->kv, false);
    err_t err = ERR_OK;
    for (kv_iter_seek(iter, buf_view(&prefix)); kv_iter_valid(iter); kv_iter_next(iter)) {
        struct bytes key = kv_iter_key(iter);
        if (key.size < prefix.size || memcmp(key.data, prefix.data, prefix.size) != 0) {
            break;
        }
        err = read_row(kind, kv_iter_value(iter), loaded, msg);
        if (err != ERR_OK) {
            err = err_wrap(msg, err, "catalog row %.*s", (int)key.size, (const char *)key.data);
            break;
        }
    }
    if (err == ERR_OK && !kv_iter_valid(iter)) {
        err = kv_iter_error(iter, msg); /* a failed read also looks like the end */
    }
    kv_iter_destroy(iter);
    buf_deinit(&prefix);
    return err;
}

err_t catalog_load(
    struct catalog *catalog, catalog_visit_fn visit, void *context, struct errmsg *msg)
{
    err_t err = ERR_OK;
    for (enum row_kind kind = 0; kind < ROW_KIND_COUNT && err == ERR_OK; kind++) {
        struct loaded loaded = {0};
        err = read_kind(catalog, kind, &loaded, msg);
        if (err == ERR_OK && loaded.count > 1) {
            qsort(loaded.rows, loaded.count, sizeof(void *), by_creation);
        }
        for (size_t i = 0; i < loaded.count && err == ERR_OK; i++) {
            err = visit(context, kind, loaded.rows[i], msg);
        }
        loaded_deinit(&loaded, kind);
    }
    return err;
}

/* ---- committing ---- */

static void print_key(struct buf *to, enum row_kind kind, const union any_row *row)
{
    ASSERT(row->head.id[0] != '\0');
    if (kind == ROW_PROJECT || kind == ROW_IMAGE) {
        buf_printf(to, "%s/%s", row_kind_name(kind), row->head.id);
    } else {
        ASSERT(row->head.project_id[0] != '\0');
        buf_printf(to, "%s/%s/%s", row_kind_name(kind), row->head.project_id, row->head.id);
    }
}

void catalog_entry_put(struct catalog_entry *entry, enum row_kind kind, const union any_row *row)
{
    *entry = (struct catalog_entry){.replaces_version = row->head.version};
    print_key(&entry->key, kind, row);
    struct doc *doc = row_encode(kind, row);
    doc_set_int(doc, "version", (int64_t)(row->head.version + 1));
    doc_print(doc, false, &entry->value);
    doc_unref(doc);
}

void catalog_entry_delete(struct catalog_entry *entry, enum row_kind kind, const union any_row *row)
{
    *entry = (struct catalog_entry){.replaces_version = row->head.version};
    print_key(&entry->key, kind, row);
}

void catalog_entry_deinit(struct catalog_entry *entry)
{
    buf_deinit(&entry->key);
    buf_deinit(&entry->value);
}

static err_t stored_version(
    struct catalog *catalog, struct bytes key, uint64_t *ret_version, struct errmsg *msg)
{
    struct buf value = {0};
    struct doc *doc = NULL;
    uint64_t version = 0;
    err_t err = kv_get(catalog->kv, key, &value, msg);
    if (err == ERR_OK) {
        err = doc_parse(buf_view(&value), &doc, msg);
    }
    if (err == ERR_OK) {
        err = doc_get_u64(doc, "version", &version, msg);
    }
    if (err == ERR_OK || err == ERR_NOT_FOUND) { /* absent is version 0 */
        *ret_version = version;
        err = ERR_OK;
    }
    doc_unref(doc);
    buf_deinit(&value);
    return err;
}

err_t catalog_commit(
    struct catalog *catalog, const struct catalog_entry *entries, size_t count, struct errmsg *msg)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t version = 0;
        struct bytes key = buf_view(&entries[i].key);
        TRY(stored_version(catalog, key, &version, msg));
        if (version != entries[i].replaces_version) {
            return err_set(
                msg, ERR_STALE,
                "catalog row %.*s is at version %" PRIu64 ", the change is for %" PRIu64,
                (int)key.size, (const char *)key.data, version, entries[i].replaces_version);
        }
    }
    struct kv_batch *batch = kv_batch_create();
    for (size_t i = 0; i < count; i++) {
        if (entries[i].value.size == 0) {
            kv_batch_delete(batch, buf_view(&entries[i].key));
        } else {
            kv_batch_put(batch, buf_view(&entries[i].key), buf_view(&entries[i].value));
        }
    }
    err_t err = kv_write(catalog->kv, batch, KV_SYNCED, msg);
    kv_batch_destroy(batch);
    return err == ERR_OK ? ERR_OK : err_wrap(msg, err, "write the catalog");
}
