/*
 * objstore_private.h - what a backend of the object store is.
 *
 * objstore.c checks names, verifies content and wraps errors; a backend moves bytes. Names that
 * reach a backend are valid.
 */
#pragma once

#include "common/objstore/objstore.h"
#include "common/objstore/source.h"

#define OBJSTORE_CHUNK         (8 * MIB) /* what one fetch asks for at most */
#define OBJSTORE_NAME_SIZE_MAX 512

/* One fetch: up to `size` bytes from `begin` on, with what the object says of itself. */
struct objstore_piece {
    uint64_t begin;
    size_t size;               /* wanted; less comes when the object ends before */
    struct buf data;           /* the bytes; the caller's to free */
    struct objstore_info info; /* of the whole object */
};

struct objstore_ops {
    void (*close)(struct objstore *store);
    void (*cancel)(struct objstore *store);
    /* ERR_EXISTS when the name is taken by another content. */
    err_t (*put)(
        struct objstore *store, const char *name, struct source *source, struct errmsg *msg);
    /* begin at or behind the end: no bytes, ERR_OK. The backend's own retries are over by then. */
    err_t (*fetch)(
        struct objstore *store, const char *name, struct objstore_piece *piece, struct errmsg *msg);
    err_t (*head)(
        struct objstore *store,
        const char *name,
        struct objstore_info *ret_info,
        struct errmsg *msg);
    err_t (*delete_many)(
        struct objstore *store, const char *const *names, size_t count, struct errmsg *msg);
    err_t (*list)(
        struct objstore *store,
        const struct objstore_query *query,
        objstore_visit_fn visit,
        void *context,
        struct errmsg *msg);
    err_t (*sweep)(
        struct objstore *store, uint64_t older_than_ms, size_t *ret_count, struct errmsg *msg);
};

/* Embedded in each backend's own struct, first. */
struct objstore {
    const struct objstore_ops *ops;
};

NODISCARD err_t
objstore_dir_open(const char *path, struct objstore **ret_store, struct errmsg *msg);
NODISCARD err_t objstore_s3_open(const char *url, struct objstore **ret_store, struct errmsg *msg);

/* For backends that find names of strangers. */
bool objstore_name_is_valid(const char *name);
