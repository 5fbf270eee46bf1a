/*
 * objstore.c - what both backends share: names, verified reading, words around errors.
 */
#include "common/objstore/objstore.h"

#include "common/base/assert.h"
#include "common/base/mark.h"
#include "common/base/metric.h"
#include "common/base/parse.h"
#include "common/base/str.h"
#include "common/io/file.h"
#include "common/objstore/objstore_private.h"

#define VERIFY_ATTEMPTS 3 /* bytes may have been hurt on their way: ask again before giving up */

METRIC_COUNTER(mismatches, "objstore_mismatches_total", "objects read that were not what was put");

static bool is_name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-' || c == '/';
}

/* Names come from the API: nothing may lead out of the store, nor into our temporary files. */
static err_t check_name(const char *name, struct errmsg *msg)
{
    size_t size = strlen(name);
    if (size == 0 || size > OBJSTORE_NAME_SIZE_MAX || name[0] == '/' || name[size - 1] == '/') {
        return err_set(
            msg, ERR_INVALID, "object name \"%.64s\": empty, too long or a folder", name);
    }
    bool at_part_begin = true;
    for (size_t i = 0; i < size; i++) {
        if (!is_name_char(name[i])) {
            return err_set(
                msg, ERR_INVALID, "object name \"%.64s\": only A-Z a-z 0-9 . _ - / are allowed",
                name);
        }
        if (at_part_begin && (name[i] == '.' || name[i] == '/')) {
            return err_set(
                msg, ERR_INVALID, "object name \"%.64s\": a part is empty or begins with a dot",
                name);
        }
        at_part_begin = name[i] == '/';
    }
    return ERR_OK;
}

bool objstore_name_is_valid(const char *name)
{
    return check_name(name, NULL) == ERR_OK;
}

err_t objstore_open(const char *url, struct objstore **ret_store, struct errmsg *msg)
{
    if (str_starts_with(url, "s3://")) {
        err_t err = objstore_s3_open(url, ret_store, msg);
        return err == ERR_OK ? ERR_OK : err_wrap(msg, err, "object store");
    }
    const char *path = str_starts_with(url, "dir:") ? url + strlen("dir:") : url;
    if (path[0] == '\0' || strstr(path, "://") != NULL) {
        return err_set(
            msg, ERR_INVALID,
            "object store \"%.100s\": expected dir:/path, a path or s3://bucket/prefix", url);
    }
    return objstore_dir_open(path, ret_store, msg);
}

void objstore_close(struct objstore *store)
{
    if (store != NULL) {
        store->ops->close(store);
    }
}

void objstore_cancel(struct objstore *store)
{
    store->ops->cancel(store);
}

static err_t put_source(
    struct objstore *store, const char *name, struct source *source, struct errmsg *msg)
{
    err_t err = store->ops->put(store, name, source, msg);
    return err == ERR_OK ? ERR_OK : err_wrap(msg, err, "put object %s", name);
}

err_t objstore_put(struct objstore *store, const char *name, struct bytes data, struct errmsg *msg)
{
    TRY(check_name(name, msg));
    struct source source;
    source_of_bytes(&source, data);
    err_t err = put_source(store, name, &source, msg);
    source_close(&source);
    return err;
}

err_t objstore_put_file(
    struct objstore *store, const char *name, const char *path, struct errmsg *msg)
{
    TRY(check_name(name, msg));
    struct source source;
    TRY(source_open_file(&source, path, msg));
    err_t err = put_source(store, name, &source, msg);
    source_close(&source);
    return err;
}

/* Reading: chunk after chunk, handed to a sink, with the hash of all of it in the end. */

struct sink {
    struct buf *data; /* NULL: the file */
    uint64_t size_max;
    int fd;
    const char *path;
};

/* Every attempt begins anew. */
static err_t sink_reset(struct sink *sink, size_t data_before, struct errmsg *msg)
{
    if (sink->data != NULL) {
        sink->data->size = data_before;
        return ERR_OK;
    }
    return file_resize(sink->fd, sink->path, 0, false, msg);
}

static err_t sink_write(struct sink *sink, uint64_t at, struct bytes piece, struct errmsg *msg)
{
    if (sink->data != NULL) {
        buf_append(sink->data, piece.data, piece.size);
        return ERR_OK;
    }
    return file_write_at(sink->fd, sink->path, piece, at, msg);
}

static err_t check_piece(
    const struct objstore_piece *piece,
    const struct objstore_info *first,
    uint64_t size_max,
    struct errmsg *msg)
{
    if (piece->begin > 0 &&
        (piece->info.size != first->size || !hash128_equal(piece->info.hash, first->hash))) {
        return err_set(msg, ERR_CORRUPT, "the object changed while it was read");
    }
    if (piece->info.size > size_max) {
        return err_set(
            msg, ERR_FULL, "it has %" PRIu64 " bytes, the limit is %" PRIu64, piece->info.size,
            size_max);
    }
    uint64_t expected = MIN_OF(piece->info.size - piece->begin, piece->size);
    if (piece->data.size != expected) {
        return err_set(
            msg, ERR_CORRUPT, "%zu bytes at %" PRIu64 " instead of %" PRIu64, piece->data.size,
            piece->begin, expected);
    }
    return ERR_OK;
}

static err_t check_hash(
    const struct objstore_info *info, struct hash128_stream *stream, struct errmsg *msg)
{
    char expected[33], found[33];
    struct hash128 hash = hash128_finish(stream);
    if (hash128_equal(hash, info->hash)) {
        return ERR_OK;
    }
    metric_add(&mismatches, 1);
    format_hex(info->hash.bytes, sizeof(info->hash.bytes), expected);
    format_hex(hash.bytes, sizeof(hash.bytes), found);
    return err_set(msg, ERR_CORRUPT, "xxh3-128 of the content is %s, not %s", found, expected);
}

static err_t read_chunks(
    struct objstore *store,
    const char *name,
    struct sink *sink,
    struct hash128_stream *stream,
    struct objstore_info *info,
    struct errmsg *msg)
{
    struct objstore_piece piece = {.size = OBJSTORE_CHUNK};
    err_t err = ERR_OK;
    do {
        buf_clear(&piece.data);
        err = store->ops->fetch(store, name, &piece, msg);
        if (err == ERR_OK) {
            err = check_piece(&piece, info, sink->size_max, msg);
        }
        if (err == ERR_OK) {
            *info = piece.info;
            hash128_feed(stream, buf_view(&piece.data));
            err = sink_write(sink, piece.begin, buf_view(&piece.data), msg);
        }
        piece.begin += piece.data.size;
    } while (err == ERR_OK && piece.begin < info->size);
    buf_deinit(&piece.data);
    return err;
}

static err_t read_once(
    struct objstore *store, const char *name, struct sink *sink, struct errmsg *msg)
{
    struct objstore_info info = {0};
    struct hash128_stream *stream = hash128_start();
    err_t err = read_chunks(store, name, sink, stream, &info, msg);
    if (err == ERR_OK) {
        return check_hash(&info, stream, msg);
    }
    struct hash128 unused = hash128_finish(stream);
    (void)unused;
    return err;
}

static err_t read_verified(
    struct objstore *store, const char *name, struct sink *sink, struct errmsg *msg)
{
    size_t before = sink->data == NULL ? 0 : sink->data->size;
    err_t err = ERR_OK;
    for (unsigned attempt = 0; attempt < VERIFY_ATTEMPTS; attempt++) {
        TRY(sink_reset(sink, before, msg));
        err = read_once(store, name, sink, msg);
        if (err != ERR_CORRUPT) {
            break;
        }
        MARK("objstore.read.corrupt");
    }
    if (err != ERR_OK && sink->data != NULL) {
        sink->data->size = before;
    }
    return err == ERR_OK ? ERR_OK : err_wrap(msg, err, "get object %s", name);
}

err_t objstore_get(
    struct objstore *store,
    const char *name,
    size_t size_max,
    struct buf *ret_data,
    struct errmsg *msg)
{
    TRY(check_name(name, msg));
    struct sink sink = {.data = ret_data, .size_max = size_max, .fd = -1};
    return read_verified(store, name, &sink, msg);
}

err_t objstore_get_file(
    struct objstore *store, const char *name, const char *path, struct errmsg *msg)
{
    char temp[PATH_SIZE];
    TRY(check_name(name, msg));
    TRY(str_format(temp, sizeof(temp), msg, "%s.new", path));
    TRY(file_remove(temp, msg));
    struct sink sink = {.size_max = UINT64_MAX, .fd = -1, .path = temp};
    err_t err = file_open(&sink.fd, temp, FILE_CREATE_NEW, msg);
    if (err != ERR_OK) {
        goto out;
    }
    err = read_verified(store, name, &sink, msg);
    if (err != ERR_OK) {
        goto out;
    }
    err = file_sync(sink.fd, temp, msg);
    if (err != ERR_OK) {
        goto out;
    }
    err = file_rename_durably(temp, path, msg);
out:
    file_close(&sink.fd);
    if (err != ERR_OK) {
        err_ignore(file_remove(temp, NULL), "the next download overwrites it");
    }
    return err;
}

static err_t fetch_range(
    struct objstore *store,
    const char *name,
    uint64_t begin,
    size_t size,
    struct buf *ret_data,
    struct errmsg *msg)
{
    struct objstore_piece piece = {0};
    struct objstore_info first = {0};
    err_t err = ERR_OK;
    for (size_t done = 0; done < size && err == ERR_OK; done += piece.data.size) {
        piece.begin = begin + done;
        piece.size = MIN_OF(size - done, OBJSTORE_CHUNK);
        buf_clear(&piece.data);
        err = store->ops->fetch(store, name, &piece, msg);
        if (err == ERR_OK && (piece.info.size < begin || piece.info.size - begin < size)) {
            err = err_set(msg, ERR_RANGE, "it has only %" PRIu64 " bytes", piece.info.size);
        }
        first = done == 0 ? piece.info : first;
        if (err == ERR_OK) {
            err = check_piece(&piece, &first, UINT64_MAX, msg);
        }
        if (err == ERR_OK) {
            buf_append(ret_data, piece.data.data, piece.data.size);
        }
    }
    buf_deinit(&piece.data);
    return err;
}

err_t objstore_get_range(
    struct objstore *store,
    const char *name,
    uint64_t begin,
    size_t size,
    struct buf *ret_data,
    struct errmsg *msg)
{
    TRY(check_name(name, msg));
    size_t before = ret_data->size;
    err_t err = ERR_OK;
    if (size > UINT64_MAX - begin) {
        err = err_set(msg, ERR_RANGE, "no object is so large");
    } else {
        err = fetch_range(store, name, begin, size, ret_data, msg);
    }
    if (err != ERR_OK) {
        ret_data->size = before;
        return err_wrap(msg, err, "get %zu bytes at %" PRIu64 " of object %s", size, begin, name);
    }
    return ERR_OK;
}

err_t objstore_head(
    struct objstore *store, const char *name, struct objstore_info *ret_info, struct errmsg *msg)
{
    TRY(check_name(name, msg));
    err_t err = store->ops->head(store, name, ret_info, msg);
    return err == ERR_OK ? ERR_OK : err_wrap(msg, err, "head of object %s", name);
}

err_t objstore_exists(
    struct objstore *store, const char *name, bool *ret_exists, struct errmsg *msg)
{
    struct objstore_info info;
    err_t err = objstore_head(store, name, &info, msg);
    if (err == ERR_OK || err == ERR_NOT_FOUND) {
        *ret_exists = err == ERR_OK;
        return ERR_OK;
    }
    return err;
}

err_t objstore_delete(struct objstore *store, const char *name, struct errmsg *msg)
{
    return objstore_delete_many(store, &name, 1, msg);
}

err_t objstore_delete_many(
    struct objstore *store, const char *const *names, size_t count, struct errmsg *msg)
{
    for (size_t i = 0; i < count; i++) {
        TRY(check_name(
            names[i], msg)); /* all or none: a bad one among them is a bug of the caller */
    }
    if (count == 0) {
        return ERR_OK;
    }
    err_t err = store->ops->delete_many(store, names, count, msg);
    if (err != ERR_OK) {
        return err_wrap(msg, err, "delete %zu objects from %s on", count, names[0]);
    }
    return ERR_OK;
}

err_t objstore_list(
    struct objstore *store,
    const struct objstore_query *query,
    objstore_visit_fn visit,
    void *context,
    struct errmsg *msg)
{
    struct objstore_query whole = *query;
    whole.prefix = query->prefix == NULL ? "" : query->prefix;
    whole.after = query->after == NULL ? "" : query->after;
    whole.count_max = query->count_max == 0 ? SIZE_MAX : query->count_max;
    for (const char *c = whole.prefix; *c != '\0'; c++) {
        if (!is_name_char(*c)) {
            return err_set(
                msg, ERR_INVALID, "no object's name begins with \"%.64s\"", query->prefix);
        }
    }
    if (whole.after[0] != '\0') {
        TRY(check_name(whole.after, msg));
    }
    return store->ops->list(store, &whole, visit, context, msg);
}

err_t objstore_sweep(
    struct objstore *store, uint64_t older_than_ms, size_t *ret_count, struct errmsg *msg)
{
    size_t count = 0;
    TRY(store->ops->sweep(store, older_than_ms, &count, msg));
    *ret_count = count;
    return ERR_OK;
}
