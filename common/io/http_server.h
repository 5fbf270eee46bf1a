/*
 * http_server.h - HTTP/1.1 (libmicrohttpd inside the loop): routes, JSON in, JSON out.
 *
 * A handler runs on the loop and answers at once or later (from the loop) with exactly one
 * http_respond_*. Errors are problem+json with message, code and request_id. Limits: body 8 MiB,
 * all bodies 128 MiB, headers 32 KiB, connections, and a time-out for slow clients; each answers or
 * closes, none grows.
 */
#pragma once

#include "common/io/loop.h"
#include "common/json/doc.h"

struct http_server;
struct http_request;

/* `context` of the route table comes back here; embed it: CONTAINER_OF(context, struct x, http). */
struct http_context {
    char unused;
};

typedef void (*http_handler_fn)(struct http_context *context, struct http_request *request);

struct http_route {
    const char *method; /* "GET" */
    const char *path;   /* "/v1/tenants/{tenant}/timelines/{timeline}" */
    http_handler_fn handler;
    const char *help; /* one line; listed by GET / */
    bool open;        /* answered without a token (healthz, metrics) */
    /* Looked at before the handler runs (common/json/shape.h); NULL: the handler does it. */
    const char *query; /* "from! to! limit": those with ! must be there */
    const char *body;
};
#define HTTP_ROUTE(method_, path_, handler_, help_, open_)                                         \
    {                                                                                              \
        .method = (method_), .path = (path_), .handler = (handler_), .help = (help_),              \
        .open = (open_)                                                                            \
    }

/*
 * Asked after the route and its parameters are known and before the body is read, instead of the
 * token of http_options; answers the request itself when it refuses, and returns false. `answered`
 * is told the status of every request that had a route. Embed it. May be NULL again.
 */
struct http_guard {
    bool (*admit)(
        struct http_guard *guard, struct http_request *request, const struct http_route *route);
    void (*answered)(
        struct http_guard *guard,
        const struct http_request *request,
        const struct http_route *route,
        unsigned status);
};

/* In `admit`: larger bodies of this request get 413; without it 8 MiB. */
void http_request_limit_body(struct http_request *request, size_t size_max);

struct http_options {
    size_t connections_max; /* 0: 1000 */
    const char *token; /* when set, routes that are not open want Authorization: Bearer TOKEN */
    unsigned idle_timeout_s; /* 0: 30; a connection that is silent for so long is closed */
    /* TLS 1.2 and later, and no plain HTTP: PEM files of its chain and key. NULL or "": plain. */
    const char *tls_certificate, *tls_key;
};

/* ERR_INVALID: certificate and key are none, or do not belong together. */
NODISCARD err_t http_server_open(
    struct loop *loop,
    const char *host,
    uint16_t port,
    const struct http_options *options,
    struct http_server **ret_server,
    struct errmsg *msg);
uint16_t http_server_port(const struct http_server *server);
/* The table must live as long as the server. Several tables may be added; first match wins. */
void http_server_add_routes(
    struct http_server *server,
    const struct http_route *routes,
    size_t count,
    struct http_context *context);
void http_server_set_guard(struct http_server *server, struct http_guard *guard);
const char *http_server_token(const struct http_server *server); /* "" : none */
void http_server_close(struct http_server *server);              /* open requests get 503 */

/* All live until the request is answered. */
const struct http_route *http_request_route(const struct http_request *request);
const char *http_request_method(const struct http_request *request);
const char *http_request_path(const struct http_request *request);
const char *http_request_param(const struct http_request *request, const char *name); /* {name} */
const char *http_request_query(const struct http_request *request, const char *name); /* or NULL */
/* All that it was said with, in order: "a,b" of ?name=a&name=b and of ?name=a,b. Or NULL. */
const char *http_request_query_list(const struct http_request *request, const char *name);
const char *http_request_header(const struct http_request *request, const char *name); /* or NULL */
const char *http_request_id(const struct http_request *request); /* for logs and errors */
void http_request_peer(const struct http_request *request, char ret_address[64]); /* or "" */
/* Who makes the request, as the guard found out; "" at first. Kept until it is answered. */
void http_request_set_actor(struct http_request *request, const char *actor);
const char *http_request_actor(const struct http_request *request);
/* Its requests that wait for an answer, this one too. */
size_t http_request_count_of_actor(const struct http_request *request);
/* "Authorization: Bearer TOKEN"; empty when there is none. */
struct bytes http_request_bearer(const struct http_request *request);
/* What the caller still waits, as it said (http_client.h says it); at most `most_ms`. */
uint64_t http_request_timeout_ms(const struct http_request *request, uint64_t most_ms);
struct bytes http_request_body(const struct http_request *request);
/* The body as a JSON object ({} when empty); owned by the request. ERR_INVALID says where. */
NODISCARD err_t
http_request_json(struct http_request *request, struct doc **ret_body, struct errmsg *msg);

/* Takes over `body`. */
void http_respond_json(struct http_request *request, unsigned status, struct doc *body);
void http_respond_bytes(
    struct http_request *request, unsigned status, const char *content_type, struct bytes body);
/* The same for large bodies: takes over the memory; `*body` is empty afterwards. */
void http_respond_buf(
    struct http_request *request, unsigned status, const char *content_type, struct buf *body);
/* Add a header to the answer; before http_respond_*. */
void http_response_header(struct http_request *request, const char *name, const char *value);

/*
 * problem+json: {type,title,status,detail,message,code,request_id}. What passes by itself (423,
 * 429, 503) has a Retry-After of a second, unless another one was said.
 */
void http_respond_problem(
    struct http_request *request, unsigned status, const char *code, const char *message);
/*
 * The status and code that fit err_t: NOT_FOUND 404, EXISTS 409, INVALID 400, RANGE too, ...
 */
void http_respond_error(struct http_request *request, err_t err, const struct errmsg *msg);
unsigned http_status_of(err_t err);
