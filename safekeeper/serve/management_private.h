/*
 * management_private.h - shared by management*.c: requests that are not answered at once, and what
 * their bodies say. Threads: loop only, except the jobs' run functions.
 */
#pragma once

#include "common/io/http_server.h"
#include "common/rpc/rpc.h"
#include "safekeeper/serve/server.h"

struct operation {
    struct list_link in_server;
    struct server *server;
    struct http_request *request;
    struct tenant_id tenant;
    struct timeline_id id;
    char tenant_dir[PATH_SIZE];
    struct control_state wanted; /* creation */
    generation_t generation;     /* deletion: from here on; also read from a tombstone */
    term_t term;                 /* to promise with a membership; 0: none */
    struct timeline_report_waiter report_waiter;
    struct timeline *tl; /* referenced, so it does not rest while we run */
    struct timeline_waiter waiter;
    struct timeline_closing closing;
    struct job job;
    err_t failure; /* of a creation that is being cleaned up */
    struct errmsg failure_msg;

    struct timeline_read read; /* digest */
    lsn_t digest_end_lsn;
    uint32_t digest_crc;
    bool wants_wal; /* the bytes themselves */
    struct buf digest_wal;
};

/* NULL: answered already. An exclusive one is the only one of its timeline. */
struct operation *operation_create(
    struct server *server, struct http_request *request, bool is_exclusive);
/* After the answer. */
void operation_finish(struct operation *op);
void operation_finish_with_error(struct operation *op, err_t err, const struct errmsg *msg);

/* management_body.c: into `wanted` */
NODISCARD err_t take_membership(struct doc *body, struct control_state *to, struct errmsg *msg);
NODISCARD err_t take_wanted(struct operation *op, struct errmsg *msg);

RPC_SAFEKEEPER(RPC_HANDLER)
