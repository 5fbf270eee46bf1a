/*
 * objstore.h - immutable objects under names with slashes; a directory for now, S3 later.
 *
 * An object is written once, whole, and never changed: putting another content under the same name
 * is ERR_EXISTS. put is durable when it returns (temp file, sync, rename, sync of the folder).
 * Blocking: from workers. Names: [A-Za-z0-9._-/], no "..", no leading slash. Threads: [any].
 */
#pragma once

#include "common/base/bytes.h"

struct objstore;

/* "dir:/path" or a plain path. */
NODISCARD err_t objstore_open(const char *url, struct objstore **ret_store, struct errmsg *msg);
void objstore_close(struct objstore *store);

NODISCARD err_t
objstore_put(struct objstore *store, const char *name, struct bytes data, struct errmsg *msg);
/* Upload a local file under the name. */
NODISCARD err_t
objstore_put_file(struct objstore *store, const char *name, const char *path, struct errmsg *msg);
NODISCARD err_t objstore_get(
    struct objstore *store,
    const char *name,
    size_t size_max,
    struct buf *ret_data,
    struct errmsg *msg);
/* Download to a local file (durable, atomic). */
NODISCARD err_t
objstore_get_file(struct objstore *store, const char *name, const char *path, struct errmsg *msg);
NODISCARD err_t objstore_delete(struct objstore *store, const char *name, struct errmsg *msg);
NODISCARD err_t
objstore_exists(struct objstore *store, const char *name, bool *ret_exists, struct errmsg *msg);
/* Names below the prefix, sorted. */
NODISCARD err_t objstore_list(
    struct objstore *store,
    const char *prefix,
    err_t (*visit)(const char *name, uint64_t size, void *context, struct errmsg *msg),
    void *context,
    struct errmsg *msg);
