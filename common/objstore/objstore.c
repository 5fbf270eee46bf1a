#include "common/objstore/objstore.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/base/prng.h"
#include "common/base/str.h"
#include "common/io/file.h"

#define COPY_CHUNK    (1 * MIB)
#define TEMP_FOLDER   ".tmp" /* below the root: the same filesystem, so that link() is atomic */
#define DEPTH_MAX     16
#define NAME_SIZE_MAX 512

struct objstore {
    char *root;
};

static bool is_name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-' || c == '/';
}

/* Names come from the API: nothing may lead out of the folder, nor into our temporary files. */
static err_t check_name(const char *name, struct errmsg *msg)
{
    size_t size = strlen(name);
    if (size == 0 || size > NAME_SIZE_MAX || name[0] == '/' || name[size - 1] == '/') {
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

static err_t object_path(
    struct objstore *store, const char *name, char to[PATH_SIZE], struct errmsg *msg)
{
    TRY(check_name(name, msg));
    return str_format(to, PATH_SIZE, msg, "%s/%s", store->root, name);
}

err_t objstore_open(const char *url, struct objstore **ret_store, struct errmsg *msg)
{
    const char *path = str_starts_with(url, "dir:") ? url + strlen("dir:") : url;
    if (path[0] == '\0' || strstr(path, "://") != NULL) {
        return err_set(
            msg, ERR_INVALID, "object store \"%s\": expected dir:/path or a plain path", url);
    }
    char temp[PATH_SIZE];
    TRY(str_format(temp, sizeof(temp), msg, "%s/" TEMP_FOLDER, path));
    TRY(dir_create(temp, msg));
    struct objstore *store = MEM_NEW(struct objstore);
    store->root = mem_strdup(path);
    *ret_store = store;
    return ERR_OK;
}

void objstore_close(struct objstore *store)
{
    if (store != NULL) {
        mem_free(store->root);
        mem_free(store);
    }
}

/* A source of bytes: a view in memory or a local file. */
struct source {
    struct bytes data;
    int fd; /* -1: `data` is everything */
    const char *path;
    uint64_t size;
};

static err_t source_read(
    const struct source *source,
    uint64_t at,
    size_t size,
    struct buf *room,
    struct bytes *ret_part,
    struct errmsg *msg)
{
    if (source->fd < 0) {
        *ret_part = bytes_of(source->data.data + at, size);
        return ERR_OK;
    }
    buf_clear(room);
    uint8_t *to = buf_extend(room, size);
    TRY(file_read_at(source->fd, source->path, to, size, at, msg));
    *ret_part = bytes_of(to, size);
    return ERR_OK;
}

static err_t copy_to_file(const struct source *source, int fd, const char *path, struct errmsg *msg)
{
    struct buf room = {0};
    err_t err = ERR_OK;
    for (uint64_t at = 0; at < source->size && err == ERR_OK;) {
        size_t size = (size_t)MIN_OF(source->size - at, COPY_CHUNK);
        struct bytes part = {0};
        err = source_read(source, at, size, &room, &part, msg);
        if (err == ERR_OK) {
            err = file_write_at(fd, path, part, at, msg);
        }
        at += size;
    }
    buf_deinit(&room);
    return err;
}

static err_t write_temp(const struct source *source, const char *path, struct errmsg *msg)
{
    int fd = -1;
    err_t err = file_open(&fd, path, FILE_CREATE_NEW, msg);
    if (err != ERR_OK) {
        goto out;
    }
    err = copy_to_file(source, fd, path, msg);
    if (err != ERR_OK) {
        goto out;
    }
    err = file_sync(fd, path, msg);
out:
    file_close(&fd);
    return err;
}

/* ERR_OK when the object holds exactly the source's bytes; ERR_EXISTS when it holds others. */
static err_t compare_object(
    const struct source *source, const char *name, const char *path, struct errmsg *msg)
{
    int fd = -1;
    struct buf theirs = {0}, room = {0};
    uint64_t size = 0;
    err_t err = file_open(&fd, path, FILE_READ, msg);
    if (err != ERR_OK) {
        goto out;
    }
    err = file_size(fd, path, &size, msg);
    bool same = err == ERR_OK && size == source->size;
    for (uint64_t at = 0; same && at < size && err == ERR_OK;) {
        size_t part_size = (size_t)MIN_OF(size - at, COPY_CHUNK);
        struct bytes part = {0};
        buf_clear(&theirs);
        err = file_read_at(fd, path, buf_extend(&theirs, part_size), part_size, at, msg);
        if (err == ERR_OK) {
            err = source_read(source, at, part_size, &room, &part, msg);
        }
        same = err == ERR_OK && bytes_equal(part, buf_view(&theirs));
        at += part_size;
    }
    if (err == ERR_OK && !same) {
        err = err_set(msg, ERR_EXISTS, "object %s exists with another content", name);
    }
out:
    file_close(&fd);
    buf_deinit(&theirs);
    buf_deinit(&room);
    return err;
}

/* The folder of `path`, cut in place. */
static void cut_last_part(char *path)
{
    char *slash = strrchr(path, '/');
    ASSERT(slash != NULL);
    *slash = '\0';
}

/* Folders made on the way must be durable as well: sync each up to the root. */
static err_t sync_folders(struct objstore *store, const char *path, struct errmsg *msg)
{
    char folder[PATH_SIZE];
    TRY(str_copy(folder, sizeof(folder), path, msg));
    do {
        cut_last_part(folder);
        TRY(file_sync_dir(folder, msg));
    } while (strlen(folder) > strlen(store->root));
    return ERR_OK;
}

/*
 * link() instead of rename(): it refuses an existing name, so that two writers of one object cannot
 * replace each other's content unseen.
 */
static err_t publish(
    struct objstore *store,
    const struct source *source,
    const char *name,
    const char *temp,
    const char *path,
    struct errmsg *msg)
{
    char folder[PATH_SIZE];
    TRY(str_copy(folder, sizeof(folder), path, msg));
    cut_last_part(folder);
    TRY(dir_create(folder, msg));
    if (link(temp, path) != 0) {
        if (errno == EEXIST) {
            return compare_object(source, name, path, msg);
        }
        return err_set(msg, err_from_errno(errno), "link %s: %m", path);
    }
    return sync_folders(store, path, msg);
}

static err_t put_source(
    struct objstore *store, const char *name, const struct source *source, struct errmsg *msg)
{
    char path[PATH_SIZE], temp[PATH_SIZE];
    uint64_t unique;
    prng_secure(&unique, sizeof(unique));
    TRY(object_path(store, name, path, msg));
    TRY(str_format(temp, sizeof(temp), msg, "%s/" TEMP_FOLDER "/%016" PRIx64, store->root, unique));
    err_t err = write_temp(source, temp, msg);
    if (err == ERR_OK) {
        err = publish(store, source, name, temp, path, msg);
    }
    err_ignore(file_remove(temp, NULL), "a stale temporary file has a name of its own");
    return err == ERR_OK ? ERR_OK : err_wrap(msg, err, "put object");
}

err_t objstore_put(struct objstore *store, const char *name, struct bytes data, struct errmsg *msg)
{
    struct source source = {.data = data, .fd = -1, .size = data.size};
    return put_source(store, name, &source, msg);
}

err_t objstore_put_file(
    struct objstore *store, const char *name, const char *path, struct errmsg *msg)
{
    struct source source = {.fd = -1, .path = path};
    err_t err = file_open(&source.fd, path, FILE_READ, msg);
    if (err != ERR_OK) {
        goto out;
    }
    err = file_size(source.fd, path, &source.size, msg);
    if (err != ERR_OK) {
        goto out;
    }
    err = put_source(store, name, &source, msg);
out:
    file_close(&source.fd);
    return err;
}

static err_t open_object(
    struct objstore *store,
    const char *name,
    struct source *source,
    char path[PATH_SIZE],
    struct errmsg *msg)
{
    TRY(object_path(store, name, path, msg));
    source->path = path;
    err_t err = file_open(&source->fd, path, FILE_READ, msg);
    if (err != ERR_OK) {
        return err_wrap(msg, err, "get object %s", name);
    }
    return file_size(source->fd, path, &source->size, msg);
}

err_t objstore_get(
    struct objstore *store,
    const char *name,
    size_t size_max,
    struct buf *ret_data,
    struct errmsg *msg)
{
    char path[PATH_SIZE];
    struct source source = {.fd = -1};
    err_t err = open_object(store, name, &source, path, msg);
    if (err != ERR_OK) {
        goto out;
    }
    if (source.size > size_max) {
        err = err_set(
            msg, ERR_FULL, "object %s has %" PRIu64 " bytes, the limit is %zu", name, source.size,
            size_max);
        goto out;
    }
    size_t before = ret_data->size;
    uint8_t *to = buf_extend(ret_data, (size_t)source.size);
    err = file_read_at(source.fd, path, to, (size_t)source.size, 0, msg);
    if (err != ERR_OK) {
        ret_data->size = before;
    }
out:
    file_close(&source.fd);
    return err;
}

err_t objstore_get_file(
    struct objstore *store, const char *name, const char *path, struct errmsg *msg)
{
    char object[PATH_SIZE], temp[PATH_SIZE];
    struct source source = {.fd = -1};
    TRY(str_format(temp, sizeof(temp), msg, "%s.new", path));
    err_t err = open_object(store, name, &source, object, msg);
    if (err != ERR_OK) {
        goto out;
    }
    err = file_remove(temp, msg);
    if (err != ERR_OK) {
        goto out;
    }
    err = write_temp(&source, temp, msg);
    if (err != ERR_OK) {
        goto out;
    }
    err = file_rename_durably(temp, path, msg);
out:
    file_close(&source.fd);
    return err;
}

err_t objstore_delete(struct objstore *store, const char *name, struct errmsg *msg)
{
    char path[PATH_SIZE];
    TRY(object_path(store, name, path, msg));
    if (!file_exists(path)) {
        return ERR_OK; /* deleting again is fine: retries do */
    }
    TRY(file_remove(path, msg));
    cut_last_part(path);
    return file_sync_dir(path, msg);
}

err_t objstore_exists(
    struct objstore *store, const char *name, bool *ret_exists, struct errmsg *msg)
{
    char path[PATH_SIZE];
    TRY(object_path(store, name, path, msg));
    struct stat status;
    if (stat(path, &status) == 0) {
        *ret_exists = S_ISREG(status.st_mode);
        return ERR_OK;
    }
    if (errno != ENOENT && errno != ENOTDIR) {
        return err_set(msg, err_from_errno(errno), "stat %s: %m", path);
    }
    *ret_exists = false;
    return ERR_OK;
}

/* Names that were found; folders sort otherwise than the names below them, so all are sorted. */
struct found {
    char *name;
    uint64_t size;
};

struct listing {
    struct objstore *store;
    const char *prefix;
    char folder[PATH_SIZE]; /* relative to the root: "" or "a/b/" */
    unsigned depth;
    struct found *items;
    size_t count, capacity;
};

static err_t list_folder(struct listing *listing, struct errmsg *msg);

static void add_found(struct listing *listing, const char *name, uint64_t size)
{
    if (listing->count == listing->capacity) {
        listing->capacity = listing->capacity == 0 ? 64 : 2 * listing->capacity;
        listing->items = mem_realloc(listing->items, listing->capacity * sizeof(listing->items[0]));
    }
    listing->items[listing->count++] = (struct found){.name = mem_strdup(name), .size = size};
}

/* Can anything in this folder match? ("a/b/" with prefix "a/", or "a/" with prefix "a/b") */
static bool folder_can_match(const char *folder, const char *prefix)
{
    return str_starts_with(folder, prefix) || str_starts_with(prefix, folder);
}

static err_t enter_folder(struct listing *listing, const char *name, struct errmsg *msg)
{
    size_t size = strlen(listing->folder);
    TRY(str_format(listing->folder, sizeof(listing->folder), msg, "%s/", name));
    err_t err = ERR_OK;
    if (folder_can_match(listing->folder, listing->prefix)) {
        listing->depth++;
        err = list_folder(listing, msg);
        listing->depth--;
    }
    listing->folder[size] = '\0';
    return err;
}

static err_t list_entry(const char *entry, void *context, struct errmsg *msg)
{
    struct listing *listing = context;
    char name[PATH_SIZE], path[PATH_SIZE];
    if (entry[0] == '.') {
        return ERR_OK; /* temporary files; no object begins with a dot */
    }
    TRY(str_format(name, sizeof(name), msg, "%s%s", listing->folder, entry));
    TRY(str_format(path, sizeof(path), msg, "%s/%s", listing->store->root, name));
    struct stat status;
    if (stat(path, &status) != 0) {
        return errno == ENOENT ? ERR_OK : err_set(msg, err_from_errno(errno), "stat %s: %m", path);
    }
    if (S_ISDIR(status.st_mode)) {
        return enter_folder(listing, name, msg);
    }
    if (str_starts_with(name, listing->prefix)) {
        add_found(listing, name, (uint64_t)status.st_size);
    }
    return ERR_OK;
}

static err_t list_folder(struct listing *listing, struct errmsg *msg)
{
    char path[PATH_SIZE];
    if (listing->depth > DEPTH_MAX) {
        return err_set(msg, ERR_CORRUPT, "object store: folder %s is too deep", listing->folder);
    }
    TRY(str_format(path, sizeof(path), msg, "%s/%s", listing->store->root, listing->folder));
    return dir_list(path, list_entry, listing, msg);
}

static int compare_found(const void *left, const void *right)
{
    return strcmp(((const struct found *)left)->name, ((const struct found *)right)->name);
}

err_t objstore_list(
    struct objstore *store,
    const char *prefix,
    err_t (*visit)(const char *name, uint64_t size, void *context, struct errmsg *msg),
    void *context,
    struct errmsg *msg)
{
    struct listing listing = {.store = store, .prefix = prefix};
    err_t err = list_folder(&listing, msg);
    if (listing.count > 0) {
        qsort(listing.items, listing.count, sizeof(listing.items[0]), compare_found);
    }
    for (size_t i = 0; i < listing.count && err == ERR_OK; i++) {
        err = visit(listing.items[i].name, listing.items[i].size, context, msg);
    }
    for (size_t i = 0; i < listing.count; i++) {
        mem_free(listing.items[i].name);
    }
    mem_free(listing.items);
    return err;
}
