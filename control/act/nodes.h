/*
 * nodes.h - the safekeepers, pageservers and agents of the cluster, and calls to them.
 *
 * The list is a setting, and agents that registered themselves (hosts.h). A node counts as
 * reachable until a call gets no answer; then only polls are sent to it until one is answered.
 * Threads: loop only.
 */
#pragma once

#include "common/base/str.h"
#include "common/io/http_client.h"
#include "common/io/timer.h"
#include "common/rpc/rpc.h"
#include "control/model/row.h"

enum node_kind { NODE_SAFEKEEPER, NODE_PAGESERVER, NODE_AGENT };

#define NODE_HOST_SIZE 64

struct nodes;

struct node {
    enum node_kind kind;
    uint64_t id;
    char host[NODE_HOST_SIZE];
    uint16_t port, http_port;         /* of an agent only the HTTP port */
    char listen_host[NODE_HOST_SIZE]; /* of an agent's computes; "": as control's setting says */
    bool registered;                  /* an agent that is in no setting */
    bool gone;            /* it was, and its lease is over: found by nobody, never freed */
    bool reachable;       /* until a call got no answer */
    bool answered;        /* a poll since our start */
    char incarnation[64]; /* not of an agent: changes with its disk; "" before the first answer */
    struct errmsg error;  /* of the last call that got no answer */
    size_t steps_running, asks_running; /* of the reconciler: limited, see reconcile.c */
    mono_ns_t size_at; /* of a pageserver: asked for the next size not before: sizes.h */
    size_t lost;       /* timelines that a safekeeper held and lost, at the last poll */
    uint64_t polls;    /* answered; stamps what they listed */
    /*
     * Of a safekeeper: the digest of its last list, if nothing is to be expected of it while it
     * stays as it is; "": the whole list is wanted. unchanged: answered so, since then.
     */
    char known[24];
    unsigned unchanged;

    struct nodes *nodes; /* private from here on */
    struct http_call poll;
    bool polling;
    mono_ns_t poll_began, poll_at;
};

/* Told when a poll of a node was answered; `body` lives until it returns. */
struct nodes_user {
    void (*on_poll)(struct nodes_user *user, struct node *node, const struct doc *body);
};

struct nodes_options {
    const char *safekeepers; /* "1@127.0.0.1:7411/7421,2@..." id@host:framed/http */
    const char *pageservers; /* the same */
    const char *agents;      /* "1@127.0.0.1:7440" id@host:http */
    const char *token;       /* bearer token for all of them; may be empty */
    bool has_tls;            /* on their HTTP ports */
    uint64_t poll_interval_ms;
};

NODISCARD err_t nodes_create(
    struct loop *loop,
    struct http_client *client,
    const struct nodes_options *options,
    struct nodes_user *user,
    struct nodes **ret_nodes,
    struct errmsg *msg);
void nodes_destroy(struct nodes *nodes); /* after the http client was destroyed */

void nodes_start_polls(struct nodes *nodes);
void nodes_stop_polls(struct nodes *nodes);
/* Look again now, not at the end of the interval. */
void node_poll_soon(struct node *node);

/*
 * An agent that registered itself, anew or at another address, and one whose lease is over. Calls
 * to it that are under way end as they may. ERR_EXISTS: the setting has one with this id, or
 * another one has this address.
 */
NODISCARD err_t
nodes_check_agent(const struct nodes *nodes, const struct host_row *row, struct errmsg *msg);
NODISCARD err_t
nodes_put_agent(struct nodes *nodes, const struct host_row *row, struct errmsg *msg);
void nodes_drop_agent(struct nodes *nodes, uint64_t id);

/* Also those that are gone. */
size_t nodes_count(const struct nodes *nodes);
struct node *nodes_at(const struct nodes *nodes, size_t index);
struct node *nodes_find(const struct nodes *nodes, enum node_kind kind, uint64_t id); /* or NULL */
struct node *nodes_first(const struct nodes *nodes, enum node_kind kind);             /* or NULL */
const char *node_kind_name(enum node_kind kind);
void node_url(const struct node *node, const char *path, struct buf *to); /* of its HTTP port */

/*
 * One call to a node: embed it. `path` (rpc_path, and a query) is copied; `body` may be NULL (taken
 * over). The token and the reachability of the node are handled here. done(): `status` is 0 when
 * there was no answer, `body` is never NULL for a 2xx answer and is freed after done().
 */
struct node_call {
    void (*done)(struct node_call *call);
    /* Not to parse megabytes on the loop: `text` is a 2xx answer as it came, and `body` is NULL. */
    bool keeps_text;
    struct node *node;
    unsigned status;
    struct doc *body;
    struct buf text;   /* the caller's from done() on */
    struct errmsg msg; /* unless 2xx: what went wrong, with the node's name */
    struct http_call http;
};

void node_call_start(
    struct node_call *call,
    struct node *node,
    enum rpc_id id,
    const char *path,
    struct doc *body,
    uint64_t timeout_ms);
void node_call_cancel(struct node_call *call); /* done() follows */
