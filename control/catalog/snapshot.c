#include "control/catalog/snapshot.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/clock.h"
#include "common/json/doc.h"

#define PIECE_BYTES  ((size_t)1 << 20)
#define POSITION_KEY "log/position" /* kinds of rows have other names */

/* ---- the position ---- */

static void encode_position(struct doc *doc, struct changelog_position position)
{
    doc_set_int(doc, "seq", (int64_t)position.seq);
    changelog_set_hash(doc, "hash", position.hash);
}

static err_t decode_position(
    struct bytes text, struct changelog_position *ret_position, struct errmsg *msg)
{
    struct doc *doc = NULL;
    TRY(doc_parse(text, &doc, msg));
    err_t err = doc_get_u64(doc, "seq", &ret_position->seq, msg);
    if (err == ERR_OK) {
        err = changelog_get_hash(doc, "hash", &ret_position->hash, msg);
    }
    doc_unref(doc);
    return err == ERR_OK ? ERR_OK : err_wrap(msg, ERR_CORRUPT, "position in the log");
}

void position_put(struct kv_batch *batch, struct changelog_position position)
{
    struct buf text = {0};
    struct doc *doc = doc_object();
    encode_position(doc, position);
    doc_print(doc, false, &text);
    kv_batch_put(batch, bytes_of_str(POSITION_KEY), buf_view(&text));
    doc_unref(doc);
    buf_deinit(&text);
}

err_t position_get(struct kv *kv, struct changelog_position *ret_position, struct errmsg *msg)
{
    struct buf text = {0};
    *ret_position = (struct changelog_position){0};
    err_t err = kv_get(kv, bytes_of_str(POSITION_KEY), &text, msg);
    if (err == ERR_OK) {
        err = decode_position(buf_view(&text), ret_position, msg);
    }
    buf_deinit(&text);
    return err == ERR_NOT_FOUND ? ERR_OK : err;
}

/* ---- writing ---- */

struct writer {
    struct objstore *store;
    uint64_t seq;
    uint64_t pieces, rows;
    struct doc *list; /* of the piece that is being filled */
    size_t list_bytes;
};

static void piece_name(uint64_t seq, uint64_t piece, char ret_name[LOG_NAME_SIZE])
{
    (void)snprintf(
        ret_name, LOG_NAME_SIZE, SNAPSHOT_PREFIX "%016" PRIx64 "/%016" PRIx64, seq, piece);
}

static void end_name(uint64_t seq, char ret_name[LOG_NAME_SIZE])
{
    (void)snprintf(ret_name, LOG_NAME_SIZE, SNAPSHOT_PREFIX "%016" PRIx64 "/end", seq);
}

static err_t put_doc(
    struct objstore *store, const char *name, const struct doc *doc, struct errmsg *msg)
{
    struct buf text = {0};
    doc_print(doc, false, &text);
    err_t err = objstore_put(store, name, buf_view(&text), msg);
    buf_deinit(&text);
    return err;
}

static err_t put_piece(struct writer *writer, struct errmsg *msg)
{
    char name[LOG_NAME_SIZE];
    piece_name(writer->seq, writer->pieces++, name);
    struct doc *doc = doc_set(doc_object(), "rows", writer->list);
    err_t err = put_doc(writer->store, name, doc, msg);
    doc_unref(doc);
    writer->list = doc_array();
    writer->list_bytes = 0;
    return err;
}

static err_t add_row(
    struct writer *writer, struct bytes key, struct bytes value, struct errmsg *msg)
{
    char text[256];
    struct doc *row = NULL;
    (void)snprintf(text, sizeof text, "%.*s", (int)key.size, (const char *)key.data);
    err_t err = doc_parse(value, &row, msg);
    if (err != ERR_OK) {
        return err_wrap(msg, ERR_CORRUPT, "catalog row %s", text);
    }
    doc_push(writer->list, doc_set(doc_set_str(doc_object(), "key", text), "value", row));
    writer->rows++;
    writer->list_bytes += key.size + value.size;
    return writer->list_bytes < PIECE_BYTES ? ERR_OK : put_piece(writer, msg);
}

/* The iterator sees one moment: the position that it meets is that of the rows. */
static err_t find_position(
    struct kv_iter *iter, struct changelog_position *ret_position, struct errmsg *msg)
{
    struct bytes key = bytes_of_str(POSITION_KEY);
    kv_iter_seek(iter, key);
    if (!kv_iter_valid(iter) || !bytes_equal(kv_iter_key(iter), key)) {
        *ret_position = (struct changelog_position){0};
        return kv_iter_valid(iter) ? ERR_OK : kv_iter_error(iter, msg);
    }
    return decode_position(kv_iter_value(iter), ret_position, msg);
}

static err_t write_rows(
    struct kv_iter *iter, struct writer *writer, const atomic_bool *canceled, struct errmsg *msg)
{
    err_t err = ERR_OK;
    for (kv_iter_seek(iter, bytes_of_str("")); kv_iter_valid(iter) && err == ERR_OK;
         kv_iter_next(iter)) {
        if (atomic_load(canceled)) {
            return err_set(msg, ERR_CANCELED, "canceled");
        }
        if (!bytes_equal(kv_iter_key(iter), bytes_of_str(POSITION_KEY))) {
            err = add_row(writer, kv_iter_key(iter), kv_iter_value(iter), msg);
        }
    }
    if (err == ERR_OK) {
        err = kv_iter_error(iter, msg);
    }
    return err == ERR_OK ? put_piece(writer, msg) : err;
}

static err_t put_end(
    const struct writer *writer, struct changelog_position position, struct errmsg *msg)
{
    char name[LOG_NAME_SIZE];
    end_name(writer->seq, name);
    struct doc *doc = doc_object();
    encode_position(doc, position);
    doc_set_int(doc, "pieces", (int64_t)writer->pieces);
    doc_set_int(doc, "rows", (int64_t)writer->rows);
    doc_set_time(doc, "written_at", clock_wall());
    err_t err = put_doc(writer->store, name, doc, msg);
    doc_unref(doc);
    return err == ERR_EXISTS ? ERR_OK : err; /* written at another time: the rows are the same */
}

err_t snapshot_write(
    struct kv *kv,
    struct objstore *store,
    const atomic_bool *canceled,
    struct changelog_position *ret_position,
    struct errmsg *msg)
{
    struct kv_iter *iter = kv_iter_create(kv, false);
    struct writer writer = {.store = store, .list = doc_array()};
    err_t err = find_position(iter, ret_position, msg);
    writer.seq = ret_position->seq;
    if (err == ERR_OK) {
        err = write_rows(iter, &writer, canceled, msg);
    }
    kv_iter_destroy(iter);
    if (err == ERR_OK) {
        err = put_end(&writer, *ret_position, msg);
    }
    doc_unref(writer.list);
    return err == ERR_OK ? ERR_OK : err_wrap(msg, err, "snapshot of the catalog");
}

/* ---- reading ---- */

struct finding {
    uint64_t before, newest;
};

static err_t take_newest(const struct objstore_entry *entry, void *context, struct errmsg *msg)
{
    (void)msg;
    struct finding *finding = context;
    char *end = NULL;
    uint64_t seq = strtoull(entry->name + strlen(SNAPSHOT_PREFIX), &end, 16);
    if (strcmp(end, "/end") == 0 && seq < finding->before) {
        finding->newest = MAX_OF(finding->newest, seq);
    }
    return ERR_OK;
}

err_t snapshot_find(struct objstore *store, uint64_t before, uint64_t *ret_seq, struct errmsg *msg)
{
    struct finding finding = {.before = before};
    TRY(objstore_list(
        store, &(struct objstore_query){.prefix = SNAPSHOT_PREFIX}, take_newest, &finding, msg));
    *ret_seq = finding.newest;
    return finding.newest > 0 ? ERR_OK : err_set(msg, ERR_NOT_FOUND, "no snapshot of a catalog");
}

static err_t get_doc(
    struct objstore *store, const char *name, struct doc **ret_doc, struct errmsg *msg)
{
    struct buf text = {0};
    err_t err = objstore_get(store, name, LOG_RECORD_MAX, &text, msg);
    if (err == ERR_OK && doc_parse(buf_view(&text), ret_doc, msg) != ERR_OK) {
        err = ERR_CORRUPT;
    }
    buf_deinit(&text);
    return err == ERR_OK ? ERR_OK : err_wrap(msg, err, "object %s", name);
}

static err_t take_rows(const struct doc *piece, struct kv *to, uint64_t *rows, struct errmsg *msg)
{
    struct doc *list = NULL;
    err_t err = doc_get_array(piece, "rows", &list, msg);
    struct kv_batch *batch = kv_batch_create();
    for (size_t i = 0; i < doc_count(list) && err == ERR_OK; i++) {
        const char *key = NULL;
        struct doc *value = NULL;
        struct buf text = {0};
        err = doc_get_str(doc_at(list, i), "key", &key, msg);
        if (err == ERR_OK) {
            err = doc_get_object(doc_at(list, i), "value", &value, msg);
        }
        if (err == ERR_OK) {
            doc_print(value, false, &text);
            kv_batch_put(batch, bytes_of_str(key), buf_view(&text));
            (*rows)++;
        }
        buf_deinit(&text);
    }
    if (err == ERR_OK) {
        err = kv_write(to, batch, KV_SYNCED, msg);
    }
    kv_batch_destroy(batch);
    return err;
}

static err_t read_end(
    struct objstore *store,
    uint64_t seq,
    struct changelog_position *ret_position,
    uint64_t *ret_pieces,
    uint64_t *ret_rows,
    struct errmsg *msg)
{
    char name[LOG_NAME_SIZE];
    struct doc *end = NULL;
    end_name(seq, name);
    TRY(get_doc(store, name, &end, msg));
    err_t err = doc_get_u64(end, "pieces", ret_pieces, msg);
    if (err == ERR_OK) {
        err = doc_get_u64(end, "rows", ret_rows, msg);
    }
    if (err == ERR_OK) {
        err = doc_get_u64(end, "seq", &ret_position->seq, msg);
    }
    if (err == ERR_OK) {
        err = changelog_get_hash(end, "hash", &ret_position->hash, msg);
    }
    if (err == ERR_OK && ret_position->seq != seq) {
        err = err_set(msg, ERR_CORRUPT, "it is of change %" PRIu64, ret_position->seq);
    }
    doc_unref(end);
    return err == ERR_OK ? ERR_OK : err_wrap(msg, ERR_CORRUPT, "object %s", name);
}

err_t snapshot_read(
    struct objstore *store,
    uint64_t seq,
    struct kv *to,
    struct changelog_position *ret_position,
    struct errmsg *msg)
{
    uint64_t pieces = 0, rows_wanted = 0, rows = 0;
    TRY(read_end(store, seq, ret_position, &pieces, &rows_wanted, msg));
    for (uint64_t i = 0; i < pieces; i++) {
        char name[LOG_NAME_SIZE];
        struct doc *piece = NULL;
        piece_name(seq, i, name);
        TRY(get_doc(store, name, &piece, msg));
        err_t err = take_rows(piece, to, &rows, msg);
        doc_unref(piece);
        if (err != ERR_OK) {
            return err_wrap(msg, err, "object %s", name);
        }
    }
    if (rows != rows_wanted) {
        return err_set(
            msg, ERR_CORRUPT, "snapshot %" PRIu64 " has %" PRIu64 " rows, its end says %" PRIu64,
            seq, rows, rows_wanted);
    }
    return ERR_OK;
}
