/*
 * objstore.h - immutable objects under names with slashes: in a directory, or in an S3 bucket.
 *
 *   dir:/path, or a plain path                     objstore_dir.c
 *   s3://bucket/prefix?endpoint=URL&region=...     objstore_s3.c; settings in s3_settings.h
 *
 * An object is written once, whole, and never changed. put is durable when it returns ERR_OK; the
 * same content again is fine (a retry), another content is ERR_EXISTS and changes nothing. Until
 * put is through, nobody sees the object, and what a killed put leaves behind is never an object:
 * objstore_sweep removes it.
 *
 * Every object carries its size and the xxh3-128 of its content. Reading a whole object checks
 * both: what does not match is ERR_CORRUPT and is not handed out. A range is checked for its place
 * and length only; who reads ranges has checksums inside.
 *
 * Errors: ERR_NOT_FOUND, ERR_EXISTS, ERR_CORRUPT, ERR_INVALID (name or setting), ERR_DENIED,
 * ERR_FULL (over the caller's limit, or out of space), ERR_BUSY (the store asks for less),
 * ERR_TIMEOUT (the deadline passed), ERR_CANCELED, ERR_IO. S3 calls have been retried by then, each
 * until its deadline. After an error other than ERR_EXISTS a put may have happened all the same.
 *
 * Names: 1 to 512 of [A-Za-z0-9._-/], no part empty or beginning with a dot.
 * Blocking: from workers. Threads: [any], except open and close.
 */
#pragma once

#include "common/base/bytes.h"
#include "common/base/checksum.h"

struct objstore;

/* Checks the setting; asks nothing of a remote store, which may be down when a daemon starts. */
NODISCARD err_t objstore_open(const char *url, struct objstore **ret_store, struct errmsg *msg);
/* No call may be under way. */
void objstore_close(struct objstore *store);
/* [any] What waits for a remote store ends with ERR_CANCELED within a second; so do later calls. */
void objstore_cancel(struct objstore *store);

NODISCARD err_t
objstore_put(struct objstore *store, const char *name, struct bytes data, struct errmsg *msg);
/* Upload a local file under the name; it must not change meanwhile. */
NODISCARD err_t
objstore_put_file(struct objstore *store, const char *name, const char *path, struct errmsg *msg);

/* Appends the content to `ret_data`; an object of more than size_max bytes is ERR_FULL. */
NODISCARD err_t objstore_get(
    struct objstore *store,
    const char *name,
    size_t size_max,
    struct buf *ret_data,
    struct errmsg *msg);
/* Download to a local file (durable, atomic). */
NODISCARD err_t
objstore_get_file(struct objstore *store, const char *name, const char *path, struct errmsg *msg);
/* Appends the bytes begin .. begin + size; ERR_RANGE when the object ends before. */
NODISCARD err_t objstore_get_range(
    struct objstore *store,
    const char *name,
    uint64_t begin,
    size_t size,
    struct buf *ret_data,
    struct errmsg *msg);

struct objstore_info {
    uint64_t size;
    struct hash128 hash;
};
NODISCARD err_t objstore_head(
    struct objstore *store, const char *name, struct objstore_info *ret_info, struct errmsg *msg);
NODISCARD err_t
objstore_exists(struct objstore *store, const char *name, bool *ret_exists, struct errmsg *msg);

/* What is not there is deleted already: ERR_OK. After an error some of many may be gone. */
NODISCARD err_t objstore_delete(struct objstore *store, const char *name, struct errmsg *msg);
NODISCARD err_t objstore_delete_many(
    struct objstore *store, const char *const *names, size_t count, struct errmsg *msg);

struct objstore_query {
    const char *prefix; /* any text that names begin with; NULL: all */
    const char *after;  /* only names behind this one, to go on where a listing ended; NULL: all */
    size_t count_max;   /* at most so many; 0: all */
};
struct objstore_entry {
    const char *name; /* until the visit returns */
    uint64_t size;
    wall_us_t modified; /* by the store's clock */
};
typedef err_t (*objstore_visit_fn)(
    const struct objstore_entry *entry, void *context, struct errmsg *msg);

/*
 * Objects in the order of their names (bytes). Remote stores are asked page by page, so that the
 * first are visited before the last are known. An error of `visit` ends the listing.
 */
NODISCARD err_t objstore_list(
    struct objstore *store,
    const struct objstore_query *query,
    objstore_visit_fn visit,
    void *context,
    struct errmsg *msg);

/*
 * Remove what killed uploads left (temporary files, unfinished multipart uploads) and is older than
 * this. It must be more than the longest upload takes: a younger one may be alive.
 */
NODISCARD err_t objstore_sweep(
    struct objstore *store, uint64_t older_than_ms, size_t *ret_count, struct errmsg *msg);
