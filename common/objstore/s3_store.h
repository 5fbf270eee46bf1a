/*
 * s3_store.h - the parts of the S3 backend (objstore_s3.c, s3_upload.c, s3_list.c) among each
 * other.
 */
#pragma once

#include <stdatomic.h>

#include "common/objstore/objstore_private.h"
#include "common/objstore/s3_client.h"

#define S3_HASH_HEADER_SIZE 64

enum s3_conditional { S3_CONDITIONAL_UNKNOWN, S3_CONDITIONAL_YES, S3_CONDITIONAL_NO };

struct s3_store {
    struct objstore store;
    struct s3_client *client;
    _Atomic enum s3_conditional conditional; /* does the server know If-None-Match with PUT? */
    atomic_bool bucket_seen;
};

/* "x-amz-meta-xxh3-128: .." for the headers of a request. */
void s3_hash_header(struct hash128 hash, char to[S3_HASH_HEADER_SIZE]);

NODISCARD err_t s3_head(
    struct s3_store *s3,
    const char *name,
    mono_ns_t deadline,
    struct objstore_info *ret_info,
    struct errmsg *msg);

/*
 * The name is taken: ERR_OK when by the same content, ERR_EXISTS when by another, ERR_NOT_FOUND
 * when it is free.
 */
NODISCARD err_t s3_compare(
    struct s3_store *s3,
    const char *name,
    const struct objstore_info *info,
    mono_ns_t deadline,
    struct errmsg *msg);

/* Does the ETag that the server answered belong to these bytes? ERR_CORRUPT when not. */
NODISCARD err_t
s3_check_etag(const struct s3_request *request, const char *md5_hex, struct errmsg *msg);

/* Parts, then their list; `conditional` when the server refuses a taken name by itself. */
NODISCARD err_t s3_upload(
    struct s3_store *s3,
    const char *name,
    struct source *source,
    bool conditional,
    mono_ns_t deadline,
    struct errmsg *msg);

/* Unfinished uploads that are older than this are aborted. */
NODISCARD err_t
s3_sweep(struct objstore *store, uint64_t older_than_ms, size_t *ret_count, struct errmsg *msg);

NODISCARD err_t s3_list(
    struct objstore *store,
    const struct objstore_query *query,
    objstore_visit_fn visit,
    void *context,
    struct errmsg *msg);
NODISCARD err_t
s3_delete_many(struct objstore *store, const char *const *names, size_t count, struct errmsg *msg);
