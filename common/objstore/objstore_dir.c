/*
 * objstore_dir.c - objects as files below a folder.
 *
 * A file is the content and behind it a trailer with size and checksum (docs/protocol/objects.md).
 * It is written under ".tmp", synced, linked to its name and the folders are synced: what has a
 * name is whole. Nothing waits for a network, so that cancel has nothing to do.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/prng.h"
#include "common/base/str.h"
#include "common/io/file.h"
#include "common/objstore/objstore_private.h"
#include "common/wire/codec.h"

#define COPY_CHUNK    (1 * MIB)
#define TEMP_FOLDER   ".tmp" /* below the root: the same filesystem, so that link() is atomic */
#define DEPTH_MAX     16
#define TRAILER_SIZE  40
#define TRAILER_MAGIC 0x314A424F424E41ULL /* "ANBOBJ1" and a NUL */

#define KNOWN_FOLDERS 256

struct dir_store {
    struct objstore store;
    char *root;
    /* [any] Hashes of folders whose own names we have synced: nobody removes a folder. */
    _Atomic uint64_t known[KNOWN_FOLDERS];
};

static struct dir_store *dir_of(struct objstore *store)
{
    return CONTAINER_OF(store, struct dir_store, store);
}

static err_t object_path(
    struct dir_store *dir, const char *name, char to[PATH_SIZE], struct errmsg *msg)
{
    return str_format(to, PATH_SIZE, msg, "%s/%s", dir->root, name);
}

/* The trailer: magic u64, size u64, xxh3-128, crc32c u32 of what is before, 0 u32. */

static void trailer_encode(const struct objstore_info *info, uint8_t to[TRAILER_SIZE])
{
    struct writer out = {.next = to, .left = TRAILER_SIZE};
    put_u64(&out, TRAILER_MAGIC);
    put_u64(&out, info->size);
    writer_put(&out, info->hash.bytes, sizeof(info->hash.bytes));
    put_u32(&out, crc32c(0, to, TRAILER_SIZE - out.left));
    put_u32(&out, 0);
    ASSERT(out.left == 0);
}

static err_t trailer_decode(
    const uint8_t from[TRAILER_SIZE],
    uint64_t content_size,
    struct objstore_info *ret_info,
    struct errmsg *msg)
{
    struct reader in = reader_of(bytes_of(from, TRAILER_SIZE));
    struct objstore_info info = {0};
    uint64_t magic = get_u64(&in);
    info.size = get_u64(&in);
    memcpy(info.hash.bytes, reader_take(&in, sizeof(info.hash.bytes)), sizeof(info.hash.bytes));
    uint32_t expected = crc32c(0, from, TRAILER_SIZE - in.left);
    if (magic != TRAILER_MAGIC || get_u32(&in) != expected || get_u32(&in) != 0) {
        return err_set(msg, ERR_CORRUPT, "no valid trailer at %" PRIu64, content_size);
    }
    if (info.size != content_size) {
        return err_set(
            msg, ERR_CORRUPT, "%" PRIu64 " bytes of content, the trailer says %" PRIu64,
            content_size, info.size);
    }
    *ret_info = info;
    return ERR_OK;
}

static err_t read_info(int fd, const char *path, struct objstore_info *ret_info, struct errmsg *msg)
{
    uint64_t size = 0;
    uint8_t trailer[TRAILER_SIZE];
    TRY(file_size(fd, path, &size, msg));
    if (size < TRAILER_SIZE) {
        return err_set(msg, ERR_CORRUPT, "%s has %" PRIu64 " bytes: no trailer", path, size);
    }
    TRY(file_read_at(fd, path, trailer, sizeof(trailer), size - TRAILER_SIZE, msg));
    err_t err = trailer_decode(trailer, size - TRAILER_SIZE, ret_info, msg);
    return err == ERR_OK ? ERR_OK : err_wrap(msg, err, "%s", path);
}

/* Writing. */

static err_t copy_content(
    struct source *source,
    int fd,
    const char *path,
    struct hash128_stream *stream,
    struct errmsg *msg)
{
    for (uint64_t at = 0; at < source->size;) {
        size_t size = (size_t)MIN_OF(source->size - at, COPY_CHUNK);
        struct bytes piece = {0};
        TRY(source_read(source, at, size, &piece, msg));
        TRY(file_write_at(fd, path, piece, at, msg));
        hash128_feed(stream, piece);
        at += size;
    }
    return ERR_OK;
}

static err_t write_temp(
    struct source *source, const char *path, struct objstore_info *ret_info, struct errmsg *msg)
{
    int fd = -1;
    uint8_t trailer[TRAILER_SIZE];
    struct objstore_info info = {.size = source->size};
    struct hash128_stream *stream = hash128_start();
    err_t err = file_open(&fd, path, FILE_CREATE_NEW, msg);
    if (err == ERR_OK) {
        err = copy_content(source, fd, path, stream, msg);
    }
    info.hash = hash128_finish(stream);
    if (err != ERR_OK) {
        goto out;
    }
    trailer_encode(&info, trailer);
    err = file_write_at(fd, path, bytes_of(trailer, sizeof(trailer)), source->size, msg);
    if (err != ERR_OK) {
        goto out;
    }
    err = file_sync(fd, path, msg);
    if (err != ERR_OK) {
        goto out;
    }
    *ret_info = info;
out:
    file_close(&fd);
    return err;
}

/* The folder of `path`, cut in place. */
static void cut_last_part(char *path)
{
    char *slash = strrchr(path, '/');
    ASSERT(slash != NULL);
    *slash = '\0';
}

/*
 * Folders made on the way must be durable as well: each is synced up to the root, but once only,
 * since a sync is a flush of the disk.
 */
static err_t sync_folders(struct dir_store *dir, const char *path, struct errmsg *msg)
{
    char folder[PATH_SIZE];
    TRY(str_copy(folder, sizeof(folder), path, msg));
    cut_last_part(folder);
    uint64_t hash = hash64(folder, strlen(folder), 0);
    _Atomic uint64_t *known = &dir->known[hash % KNOWN_FOLDERS];
    TRY(file_sync_dir(folder, msg));
    if (atomic_load(known) == hash) {
        return ERR_OK;
    }
    while (strlen(folder) > strlen(dir->root)) {
        cut_last_part(folder);
        TRY(file_sync_dir(folder, msg));
    }
    atomic_store(known, hash);
    return ERR_OK;
}

static err_t dir_head(
    struct objstore *store, const char *name, struct objstore_info *ret_info, struct errmsg *msg)
{
    char path[PATH_SIZE];
    int fd = -1;
    TRY(object_path(dir_of(store), name, path, msg));
    TRY(file_open(&fd, path, FILE_READ, msg));
    err_t err = read_info(fd, path, ret_info, msg);
    file_close(&fd);
    return err;
}

static err_t compare_object(
    struct dir_store *dir, const char *name, const struct objstore_info *info, struct errmsg *msg)
{
    struct objstore_info theirs;
    TRY(dir_head(&dir->store, name, &theirs, msg));
    if (theirs.size != info->size || !hash128_equal(theirs.hash, info->hash)) {
        return err_set(msg, ERR_EXISTS, "it exists with another content");
    }
    return ERR_OK;
}

/*
 * link() instead of rename(): it refuses an existing name, so that two writers of one object cannot
 * replace each other's content unseen. Folders are synced for a name that is there already, too:
 * who linked it may have died before.
 */
static err_t publish(
    struct dir_store *dir,
    const char *name,
    const char *temp,
    const struct objstore_info *info,
    struct errmsg *msg)
{
    char path[PATH_SIZE], folder[PATH_SIZE];
    TRY(object_path(dir, name, path, msg));
    TRY(str_copy(folder, sizeof(folder), path, msg));
    cut_last_part(folder);
    TRY(dir_create(folder, msg));
    if (link(temp, path) != 0) {
        if (errno != EEXIST) {
            return err_set(msg, err_from_errno(errno), "link %s: %m", path);
        }
        TRY(compare_object(dir, name, info, msg));
    }
    return sync_folders(dir, path, msg);
}

static err_t dir_put(
    struct objstore *store, const char *name, struct source *source, struct errmsg *msg)
{
    struct dir_store *dir = dir_of(store);
    char temp[PATH_SIZE];
    struct objstore_info info;
    uint64_t unique;
    prng_secure(&unique, sizeof(unique));
    TRY(str_format(temp, sizeof(temp), msg, "%s/" TEMP_FOLDER "/%016" PRIx64, dir->root, unique));
    err_t err = write_temp(source, temp, &info, msg);
    if (err == ERR_OK) {
        err = publish(dir, name, temp, &info, msg);
    }
    err_ignore(file_remove(temp, NULL), "a stale temporary file is swept later");
    return err;
}

/* Reading. */

static err_t dir_fetch(
    struct objstore *store, const char *name, struct objstore_piece *piece, struct errmsg *msg)
{
    char path[PATH_SIZE];
    int fd = -1;
    TRY(object_path(dir_of(store), name, path, msg));
    err_t err = file_open(&fd, path, FILE_READ, msg);
    if (err != ERR_OK) {
        goto out;
    }
    err = read_info(fd, path, &piece->info, msg);
    if (err != ERR_OK) {
        goto out;
    }
    if (piece->begin < piece->info.size) {
        size_t size = (size_t)MIN_OF(piece->info.size - piece->begin, piece->size);
        uint8_t *to = buf_extend(&piece->data, size);
        err = file_read_at(fd, path, to, size, piece->begin, msg);
    }
out:
    file_close(&fd);
    return err;
}

static err_t dir_delete_many(
    struct objstore *store, const char *const *names, size_t count, struct errmsg *msg)
{
    char path[PATH_SIZE], folder[PATH_SIZE] = "";
    for (size_t i = 0; i < count; i++) {
        TRY(object_path(dir_of(store), names[i], path, msg));
        if (!file_exists(path)) {
            continue; /* deleting again is fine: retries do */
        }
        TRY(file_remove(path, msg));
        cut_last_part(path);
        if (folder[0] != '\0' && strcmp(folder, path) != 0) {
            TRY(file_sync_dir(folder, msg));
        }
        TRY(str_copy(folder, sizeof(folder), path, msg));
    }
    return folder[0] == '\0' ? ERR_OK : file_sync_dir(folder, msg);
}

/* Names that were found; folders sort otherwise than the names below them, so all are sorted. */
struct found {
    char *name;
    uint64_t size;
    wall_us_t modified;
};

struct listing {
    struct dir_store *dir;
    const struct objstore_query *query;
    char folder[PATH_SIZE]; /* relative to the root: "" or "a/b/" */
    unsigned depth;
    struct found *items;
    size_t count, capacity;
};

static err_t list_folder(struct listing *listing, struct errmsg *msg);

static wall_us_t modified_us(const struct stat *status)
{
    return (wall_us_t)status->st_mtim.tv_sec * 1000000 + status->st_mtim.tv_nsec / 1000;
}

static void add_found(struct listing *listing, const char *name, const struct stat *status)
{
    if (listing->count == listing->capacity) {
        listing->capacity = listing->capacity == 0 ? 64 : 2 * listing->capacity;
        listing->items = mem_realloc(listing->items, listing->capacity * sizeof(listing->items[0]));
    }
    uint64_t size = (uint64_t)status->st_size;
    listing->items[listing->count++] = (struct found){
        .name = mem_strdup(name),
        .size = size < TRAILER_SIZE ? 0 : size - TRAILER_SIZE, /* damaged, but there */
        .modified = modified_us(status),
    };
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
    if (folder_can_match(listing->folder, listing->query->prefix)) {
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
    TRY(object_path(listing->dir, name, path, msg));
    struct stat status;
    if (stat(path, &status) != 0) {
        return errno == ENOENT ? ERR_OK : err_set(msg, err_from_errno(errno), "stat %s: %m", path);
    }
    if (S_ISDIR(status.st_mode)) {
        return enter_folder(listing, name, msg);
    }
    if (str_starts_with(name, listing->query->prefix) && strcmp(name, listing->query->after) > 0) {
        add_found(listing, name, &status);
    }
    return ERR_OK;
}

static err_t list_folder(struct listing *listing, struct errmsg *msg)
{
    char path[PATH_SIZE];
    if (listing->depth > DEPTH_MAX) {
        return err_set(msg, ERR_CORRUPT, "object store: folder %s is too deep", listing->folder);
    }
    TRY(object_path(listing->dir, listing->folder, path, msg));
    return dir_list(path, list_entry, listing, msg);
}

static int compare_found(const void *left, const void *right)
{
    return strcmp(((const struct found *)left)->name, ((const struct found *)right)->name);
}

static err_t dir_list_objects(
    struct objstore *store,
    const struct objstore_query *query,
    objstore_visit_fn visit,
    void *context,
    struct errmsg *msg)
{
    struct listing listing = {.dir = dir_of(store), .query = query};
    err_t err = list_folder(&listing, msg);
    if (listing.count > 0) {
        qsort(listing.items, listing.count, sizeof(listing.items[0]), compare_found);
    }
    for (size_t i = 0; i < listing.count && i < query->count_max && err == ERR_OK; i++) {
        const struct found *item = &listing.items[i];
        struct objstore_entry entry = {
            .name = item->name, .size = item->size, .modified = item->modified};
        err = visit(&entry, context, msg);
    }
    for (size_t i = 0; i < listing.count; i++) {
        mem_free(listing.items[i].name);
    }
    mem_free(listing.items);
    return err;
}

/* Sweeping. */

struct sweep {
    struct dir_store *dir;
    wall_us_t before;
    size_t count;
};

static err_t sweep_entry(const char *entry, void *context, struct errmsg *msg)
{
    struct sweep *sweep = context;
    char path[PATH_SIZE];
    struct stat status;
    TRY(str_format(path, sizeof(path), msg, "%s/" TEMP_FOLDER "/%s", sweep->dir->root, entry));
    if (stat(path, &status) != 0 || modified_us(&status) > sweep->before) {
        return ERR_OK; /* just ended, or alive */
    }
    TRY(file_remove(path, msg));
    sweep->count++;
    return ERR_OK;
}

static err_t dir_sweep(
    struct objstore *store, uint64_t older_than_ms, size_t *ret_count, struct errmsg *msg)
{
    struct sweep sweep = {.dir = dir_of(store)};
    char path[PATH_SIZE];
    uint64_t age_us = MIN_OF(older_than_ms, (uint64_t)INT64_MAX / 2000) * 1000;
    sweep.before = clock_wall() - (wall_us_t)age_us;
    TRY(object_path(sweep.dir, TEMP_FOLDER, path, msg));
    TRY(dir_list(path, sweep_entry, &sweep, msg));
    *ret_count = sweep.count;
    return ERR_OK;
}

static void dir_cancel(struct objstore *store)
{
    (void)store;
}

static void dir_close(struct objstore *store)
{
    struct dir_store *dir = dir_of(store);
    mem_free(dir->root);
    mem_free(dir);
}

static const struct objstore_ops dir_ops = {
    .close = dir_close,
    .cancel = dir_cancel,
    .put = dir_put,
    .fetch = dir_fetch,
    .head = dir_head,
    .delete_many = dir_delete_many,
    .list = dir_list_objects,
    .sweep = dir_sweep,
};

err_t objstore_dir_open(const char *path, struct objstore **ret_store, struct errmsg *msg)
{
    char temp[PATH_SIZE];
    TRY(str_format(temp, sizeof(temp), msg, "%s/" TEMP_FOLDER, path));
    TRY(dir_create(temp, msg));
    struct dir_store *dir = MEM_NEW(struct dir_store);
    dir->store.ops = &dir_ops;
    dir->root = mem_strdup(path);
    *ret_store = &dir->store;
    return ERR_OK;
}
