/*
 * management_private.h - shared by management*.c and history_routes.c: calls that are answered
 * later, and what requests name.
 */
#pragma once

#include "common/io/http_server.h"
#include "common/rpc/rpc.h"
#include "pageserver/read/digest.h"
#include "pageserver/serve/server.h"

#define SEGMENT_SIZE (16 * MIB)

struct management {
    struct http_context http;
    struct server *server;
};

/* One request that is answered later. */
struct call {
    struct server *server;
    struct http_request *http;
    struct timeline *timeline; /* between timeline_read_begin and _end; NULL: none */
    struct tenant_request tenant_request;
    struct tenant_id tenant;    /* being attached ... */
    uint64_t retention_seconds; /* ... with this window; UINT64_MAX: as it is */
    struct page_read read;
    struct lsn_wait wait;
    struct job job;
    lsn_t lsn;
    lsn_t prev_record_lsn;
    uint64_t time; /* us since Postgres' epoch */
    uint64_t logical_bytes, physical_bytes;
    struct digest digest;
    enum digest_scope digest_scope;
    struct buf buf;
    bool created;
    bool cold_slrus;            /* of a base backup */
    struct history_hold hold;   /* of `timeline`, while a job reads at an LSN */
    struct tenant *held_tenant; /* while a job works on it */
    struct tenant_read tenant_read;
    struct page_key key; /* has_key: the block that is asked about */
    bool has_key;
    bool is_walk; /* the job looks at all pages, maybe */
    lsn_t version_lsn;
    size_t left_out;
    struct doc *answer; /* made by a job; NULL: none */
};

/*
 * What may look at all pages of a timeline takes as long as it takes, and who asks for it may ask
 * again: it has a thread of its own, so that no read of anybody waits for it, and few may wait for
 * that. `done` of the job calls walk_ended().
 */
NODISCARD err_t walk_submit(struct server *server, struct job *job, struct errmsg *msg);
void walk_ended(struct server *server);

struct server *management_server(struct http_context *context);
struct call *call_create(struct server *server, struct http_request *http);
/*
 * A call about a timeline that keeps it from being erased; NULL: there is none, and that was said.
 */
struct call *call_begin(struct http_context *context, struct http_request *http);
void call_free(struct call *call);
void call_fail(struct call *call, err_t err, const struct errmsg *msg);
/* `done` of tenant requests whose answer is an empty object. */
void call_answer_done(struct tenant_request *request, err_t result);
/* A request about the tenant that the path names, also of one that is not here; answered so. */
void call_for_tenant(
    struct http_context *context,
    struct http_request *http,
    void (*start)(struct tenants *tenants, struct tenant_request *request, struct tenant_id id));

NODISCARD err_t management_find_tenant(
    struct server *server,
    struct http_request *http,
    struct tenant **ret_tenant,
    struct errmsg *msg);
NODISCARD err_t management_find_timeline(
    struct server *server, struct http_request *http, struct timeline **ret_tl, struct errmsg *msg);
/* A query parameter that is an LSN: absent is the head. */
NODISCARD err_t management_query_lsn(struct http_request *http, lsn_t *ret_lsn, struct errmsg *msg);
/* Waits for the LSN of the query, then runs the job at it; NULL: it was answered. Nothing has
 * happened yet when it returns: what else the job needs is still to be filled in. */
struct call *management_start_at_lsn(
    struct http_context *context, struct http_request *http, struct job job);
/* spc, db, rel, fork and block of a page. */
NODISCARD err_t
management_query_key(struct http_request *http, struct page_key *ret_key, struct errmsg *msg);

RPC_PAGESERVER(RPC_HANDLER)
