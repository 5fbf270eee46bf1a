/*
 * http_private.h - one HTTP request from the inside:
 *
 *   http_server.c     libmicrohttpd in the loop; the story of a request from its first header on
 *   http_peers.c      connections for which nobody works, and which of them have to go
 *   http_request.c    what a handler reads: route, parameters, query, headers, body
 *   http_response.c   what it answers
 *   http_tls.c        certificate and key
 *
 * A request has two sides: MHD's (the connection) and the handler's (who owes the answer). Each may
 * end first: a server that closes while a handler still works answers 503 and keeps the request
 * until the handler is done with it. Threads: loop only.
 */
#pragma once

#include <microhttpd.h>

#include "common/base/bytes.h"
#include "common/base/clock.h"
#include "common/base/list.h"
#include "common/io/http_server.h"
#include "common/io/loop_private.h"
#include "common/io/timer.h"

#define HTTP_SEGMENTS_MAX      24
#define HTTP_ADDED_HEADERS_MAX 8
#define HTTP_TABLES_MAX        32

struct route_table {
    const struct http_route *routes;
    size_t count;
    struct http_context *context;
};

/* A connection. Freed when MHD is done with it. */
struct http_peer {
    struct list_link in_waiting; /* not in it: a handler works for it */
    struct MHD_Connection *connection;
    mono_ns_t since; /* it waits for the next request, its rest, or to be rid of an answer */
    bool in_request; /* the headers have come */
};

/* What libmicrohttpd is told; it keeps pointers into it. Zeros: plain HTTP. */
struct http_tls {
    struct buf certificate, key;
    struct MHD_OptionItem options[4]; /* the last one ends them */
};

bool http_options_have_tls(const struct http_options *options);
NODISCARD err_t
http_tls_load(const struct http_options *options, struct http_tls *tls, struct errmsg *msg);
void http_tls_deinit(struct http_tls *tls);

struct http_server {
    struct loop_object object;
    struct loop *loop;
    struct MHD_Daemon *daemon;
    uv_poll_t poll;
    struct timer timer;      /* MHD's own time-outs */
    struct loop_task resume; /* run MHD after requests were answered */
    bool resume_posted, running, closing;
    size_t connections_max;
    unsigned timeout_s;
    char said[400]; /* by libmicrohttpd, last */
    mono_ns_t headers_max_ns;
    struct list waiting; /* peers for which nobody works; who has been so for longest is first */
    size_t bodies_size;  /* of all requests that are open */
    uint16_t port;
    char *token;
    struct http_tls tls;
    struct http_guard *guard;
    struct route_table tables[HTTP_TABLES_MAX];
    size_t table_count;
    struct list requests;
    uint64_t request_count;
    char id_prefix[9]; /* of request ids; differs with every start */
};

struct added_header {
    char name[64];
    char value[256];
};

struct http_request {
    struct list_link link; /* in server->requests */
    struct http_server *server;
    struct MHD_Connection *connection; /* NULL: MHD is done with it */
    bool owed;                         /* a handler has it and did not answer yet */
    bool suspended;
    bool given_up; /* 503 was sent because the server closed: the handler's answer is dropped */
    bool too_large;
    bool too_many; /* bodies at once: this one was dropped */
    mono_ns_t began;
    const struct route_table *table;
    const struct http_route *route;
    char method[16];
    char *path;                             /* as it came, without the query */
    char *segments;                         /* the path again, cut at slashes and percent-decoded */
    const char *segment[HTTP_SEGMENTS_MAX]; /* into `segments` */
    size_t segment_count;
    char id[33];
    char actor[64];
    size_t body_max;
    struct buf body;
    struct doc *json;
    struct list query_values; /* texts that were given out */

    unsigned status; /* 0: no answer yet */
    char content_type[64];
    struct buf answer;
    struct added_header headers[HTTP_ADDED_HEADERS_MAX];
    size_t header_count;
};

/* -- http_server.c -- */

/* The answer is complete: MHD takes it when it asks again. This may free the request. */
void http_request_answered(struct http_request *request);
/* It goes, unless MHD or a handler still has it. */
void http_request_free_if_done(struct http_request *request);

/* -- http_peers.c -- */

struct http_peer *http_peer_of(struct MHD_Connection *connection);
/* Nobody works for it, from now on. */
void http_peer_waits(struct http_server *server, struct http_peer *peer, bool in_request);
/* A handler does. */
void http_peer_is_served(struct http_peer *peer);
/* Of MHD: one has come, or goes. */
void http_peer_on_change(
    void *context,
    struct MHD_Connection *connection,
    void **slot,
    enum MHD_ConnectionNotificationCode code);
/* Those whose headers take too long; the one that has waited for longest when there is no place. */
void http_peers_evict(struct http_server *server, bool is_full);

/* -- http_request.c -- */

/* Who stands in front of us cannot read it as another request. */
bool http_request_is_framed_well(const struct http_request *request);

/*
 * A browser sends it for a page of another site: one that says so (Origin), or one whose name was
 * made to lead to us. Who asks for no token lets in whoever can reach it, and a page of anybody's
 * in a browser on this machine can.
 */
bool http_request_is_of_strange_page(const struct http_request *request);
/* Cuts and decodes the path, once. False: a broken escape, or more than HTTP_SEGMENTS_MAX. */
bool http_request_split_path(struct http_request *request);
/* Sets the route and its table. Or not: `allow` got "GET, PUT", the methods of the path, if any. */
void http_request_find_route(struct http_request *request, struct buf *allow);
/* Frees what http_request_query() gave out. */
void http_request_forget_query(struct http_request *request);

/* -- http_response.c -- */

/* One that http_response_header() has added. */
bool http_request_has_header(const struct http_request *request, const char *name);
/* The body of a problem+json; the caller's. */
struct doc *http_problem_doc(
    const struct http_request *request, unsigned status, const char *code, const char *message);
