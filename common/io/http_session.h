/*
 * http_session.h - blocking HTTP calls, one after the other, over a connection that is kept.
 *
 * For workers that talk to a server which is not ours (the object store): headers both ways, AWS
 * signatures, and a limit on every wait. Redirects are not followed, proxies are not asked, an
 * answer that ends early is an error. Our own daemons are called through http_client.h.
 *
 * The process ignores SIGPIPE: a TLS peer that goes away would end it otherwise.
 * Threads: a session belongs to one thread at a time.
 */
#pragma once

#include <stdatomic.h>

#include "common/base/bytes.h"

struct http_session;

struct http_session *http_session_create(void);
void http_session_destroy(struct http_session *session);

/* Signature version 4 by libcurl. Header names must not be prefixes of each other: it misorders. */
struct http_signer {
    const char *access_key, *secret_key;
    const char *scope; /* "aws:amz:us-east-1:s3" */
};

struct http_limits {
    uint64_t connect_timeout_ms;
    /* Less than a KiB a second for so long ends the call; whole seconds. */
    uint64_t stall_timeout_ms;
    const char *ca_path; /* certificates to trust; NULL: the system's */
};

struct http_exchange {
    /* request */
    const char *method;
    const char *url;            /* path and query encoded as they are to be signed */
    const char *const *headers; /* "Name: value" */
    size_t header_count;
    struct bytes body;                /* sent with PUT and POST */
    const struct http_signer *signer; /* NULL: unsigned */
    const struct http_limits *limits;
    uint64_t timeout_ms;         /* for all of it */
    size_t response_max;         /* bytes; a longer body is ERR_FULL */
    const atomic_bool *canceled; /* NULL, or ERR_CANCELED within a second after it is set */

    /* answer */
    unsigned status;
    struct buf response; /* the caller frees */
};

/* ERR_OK: an answer with any status. ERR_TIMEOUT, ERR_CANCELED, ERR_FULL, ERR_INVALID, ERR_IO. */
NODISCARD err_t
http_exchange(struct http_session *session, struct http_exchange *exchange, struct errmsg *msg);

/* A header of the last answer (its last value), until the next call; NULL when it has none. */
const char *http_session_header(struct http_session *session, const char *name);
