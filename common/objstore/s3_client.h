/*
 * s3_client.h - one signed request to an S3 server, with its retries.
 *
 * Threads: [any]; a few connections are kept between calls.
 */
#pragma once

#include "common/base/checksum.h"
#include "common/base/log.h"
#include "common/objstore/s3_digest.h"
#include "common/objstore/s3_settings.h"

#define S3_URL_SIZE 1536 /* endpoint, bucket, prefix and name */
#define S3_CODE_MAX 64

struct s3_client;

NODISCARD err_t
s3_client_open(const struct s3_place *place, struct s3_client **ret_client, struct errmsg *msg);
void s3_client_close(struct s3_client *client);
void s3_client_cancel(struct s3_client *client); /* [any] */
const struct s3_place *s3_client_place(const struct s3_client *client);
mono_ns_t s3_client_deadline(const struct s3_client *client); /* of a call that begins now */

struct s3_request {
    /* request */
    const char *method;
    const char *name;  /* object below the prefix, or NULL: the bucket */
    const char *query; /* sorted by name, encoded; NULL: none */
    struct bytes body;
    const struct s3_digest *digest; /* of `body`; NULL: computed here */
    const char *headers[6];         /* besides those of the signature; NULL ends them */
    size_t response_max;            /* 0: what an error or an XML answer needs */
    mono_ns_t deadline;
    /* Reads a 2xx body; an error of it is the attempt's. NULL: the caller looks at `response`. */
    err_t (*parse)(struct s3_request *request, struct errmsg *msg);

    /* answer */
    unsigned status;
    char code[S3_CODE_MAX]; /* S3's error code, "NoSuchKey"; "" when there is none */
    struct buf response;    /* s3_request_deinit frees */
    char etag[128];         /* without quotes */
    char content_range[96];
    char hash[33]; /* x-amz-meta-xxh3-128 */
    uint64_t content_length;
    bool opaque_etag; /* encrypted with a key: the ETag is no MD5 */
};

/*
 * ERR_OK for a 2xx answer. What may pass by itself (no answer, 5xx, SlowDown, a body hurt on its
 * way) is tried again with growing pauses, until the deadline; then the last cause is the error.
 * ERR_NOT_FOUND is an object or upload that is not there; a bucket that is not is ERR_INVALID.
 */
NODISCARD err_t s3_call(struct s3_client *client, struct s3_request *request, struct errmsg *msg);
void s3_request_deinit(struct s3_request *request);

/* "name=value" to a query, "&" before it when it is not the first. */
void s3_query_add(struct buf *query, const char *name, const char *value);
