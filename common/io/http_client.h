/*
 * http_client.h - HTTP calls (libcurl multi inside the loop). One struct a call; embed it.
 *
 * To our own daemons: JSON both ways, no redirects, no proxies, 5 s to connect. What is not ours is
 * talked to through http_session.h. Threads: loop only, but for http_call_blocking().
 */
#pragma once

#include "common/io/loop.h"
#include "common/json/doc.h"

/* Every call says how long it waits for the answer: later there is nobody to give one to. */
#define HTTP_TIMEOUT_HEADER "X-Timeout-Ms"

struct http_client;
struct http_call;

NODISCARD err_t
http_client_create(struct loop *loop, struct http_client **ret_client, struct errmsg *msg);
/*
 * PEM file of who signs the certificates of https:// addresses, for calls from now on; "": those
 * that the system trusts. A certificate must be of the name or address in the URL.
 */
void http_client_trust(struct http_client *client, const char *authorities);
void http_client_destroy(struct http_client *client); /* cancels what is open */

typedef void (*http_call_done_fn)(struct http_call *call);

struct http_call {
    /* request: filled in by the caller; the texts are copied by http_call_start */
    const char *method;
    const char *url;
    struct bytes body;       /* sent as application/json when not empty */
    const char *token;       /* bearer token, may be NULL */
    const char *authorities; /* of a blocking call, as of http_client_trust; may be NULL */
    uint64_t timeout_ms;     /* for all of it, and told to the server; 0: 60000, and not told */
    size_t response_max;     /* bytes; 0: 64 MiB; a longer body is ERR_FULL */
    /*
     * When set, a 2xx body goes to this file instead of `response`: of any size, replaced, not
     * synced; after an error a part of it may be there. An error of the file is the result.
     */
    const char *save_path;
    http_call_done_fn done; /* once, never from inside start; then the call is the caller's */

    /* answer */
    /* ERR_OK: an HTTP answer with any status. Else there is none, and msg says why: ERR_TIMEOUT,
     * ERR_CANCELED, ERR_FULL, ERR_INVALID (the URL), ERR_IO. */
    err_t result;
    struct errmsg msg;
    unsigned status;
    struct buf response; /* http_call_deinit frees */

    void *client_private;
};

void http_call_start(struct http_client *client, struct http_call *call);
void http_call_cancel(struct http_call *call); /* done(ERR_CANCELED) follows */
void http_call_deinit(struct http_call *call);

/*
 * ERR_OK for a 2xx answer with JSON (or empty: `*ret_body` is an empty object); otherwise an error
 * made from the problem+json body. Frees nothing; `*ret_body` is the caller's (doc_unref).
 */
NODISCARD err_t
http_call_json(const struct http_call *call, struct doc **ret_body, struct errmsg *msg);

/*
 * The same call, blocking, for command line tools and tests: start, wait, return its result. No
 * loop needed. [any]
 */
NODISCARD err_t http_call_blocking(struct http_call *call, struct errmsg *msg);
