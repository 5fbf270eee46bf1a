/*
 * s3_settings.h - where an S3 store is, and every limit of talking to it.
 *
 *   s3://bucket/prefix?endpoint=https://s3.example.net&region=eu-central-1&part_size=32MB
 *
 * Keys are never part of it: a setting is logged and shown. They come from the environment or from
 * a file that nobody else may read.
 */
#pragma once

#include "common/conf/conf.h"

/* clang-format off */
#define S3_SETTINGS(X)                                                                             \
    X(str,  endpoint, "", RESTART, "http:// or https:// and host; empty: Amazon's in the region")  \
    X(str,  region, "us-east-1", RESTART, "what signatures are for")                               \
    X(str,  credentials, "", RESTART, "file with the keys; empty: the environment")                \
    X(str,  ca, "", RESTART, "file of certificates to trust; empty: the system's")                 \
    X(str,  conditional_put, "probe", RESTART,                                                     \
      "does the server know If-None-Match with PUT: yes, no, or probe: try")                       \
    X(size, part_size, "16MB", RESTART, "larger objects go up in parts of this; kept in memory")   \
    X(ms,   connect_timeout_ms, "5s", RESTART, "for a connection")                                 \
    X(ms,   stall_timeout_ms, "20s", RESTART, "less than 1 KiB/s for so long: another attempt")    \
    X(ms,   deadline_ms, "120s", RESTART, "for a call with all its attempts")                      \
    X(u64,  attempts_max, "10", RESTART, "of one request")                                         \
    X(ms,   backoff_ms, "100", RESTART, "before the second attempt; then twice as long each time") \
    X(ms,   backoff_max_ms, "10s", RESTART, "longest wait between attempts")                       \
    X(u64,  list_page_count, "1000", RESTART, "names asked for at once")                           \
    X(u64,  delete_batch_count, "1000", RESTART, "names deleted at once; 1: one by one")
/* clang-format on */

struct s3_settings {
    S3_SETTINGS(CONF_FIELD)
};

#define S3_BUCKET_SIZE 64
#define S3_PREFIX_SIZE 257

struct s3_place {
    char bucket[S3_BUCKET_SIZE];
    char prefix[S3_PREFIX_SIZE]; /* "" or "a/b/" */
    struct s3_settings settings;
};

/* The whole URL, "s3://..". Every value is checked. */
NODISCARD err_t s3_place_parse(const char *url, struct s3_place *ret_place, struct errmsg *msg);

struct s3_keys {
    char *access, *secret;
    char *session_token; /* NULL: none */
};

/*
 * AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN; or from a file in the format of
 * the AWS tools, section [default]. A file that others may read is refused.
 */
NODISCARD err_t s3_keys_load(const char *path, struct s3_keys *ret_keys, struct errmsg *msg);
void s3_keys_deinit(struct s3_keys *keys); /* overwrites them */
