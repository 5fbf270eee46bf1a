/*
 * pool.h - who gets which server connection: the decisions of transaction pooling.
 *
 * A pool is what clients of one endpoint, role, database and set of start-up parameters share; the
 * pools of an endpoint share the limit of its connections. Clients wait in the order in which they
 * asked. Links are embedded by the owner (pools.c), which does what pool_step() and
 * pool_expire() say until they say nothing more. Pure: no clock, no sockets, no allocation.
 */
#pragma once

#include "common/base/list.h"
#include "common/base/types.h"

struct pool_limits {
    size_t pool_servers_max;     /* of one pool */
    size_t endpoint_servers_max; /* of all pools of an endpoint */
    mono_ns_t wait_max;          /* of a client for a connection */
    mono_ns_t idle_max;          /* of a connection without a client */
    mono_ns_t age_max;           /* older ones are closed when they are free; 0: no limit */
    mono_ns_t retry_after;       /* between attempts to connect, after one that failed */
};

struct pool_endpoint {
    struct list pools;
    size_t server_count;
};

struct pool {
    struct list_link in_endpoint;
    struct pool_endpoint *endpoint;
    struct list idle;    /* servers; the one used last first */
    struct list waiting; /* clients; who asked first first */
    size_t client_count, server_count, opening_count, waiting_count, idle_count;
    mono_ns_t retry_at; /* no connection is tried before */
};

enum pool_server_state {
    POOL_SERVER_OPENING,
    POOL_SERVER_IDLE,
    POOL_SERVER_LINKED, /* a client has it */
    POOL_SERVER_HELD,   /* free, but a cancel request for its last client is under way */
    POOL_SERVER_GONE,   /* counts no more */
};

struct pool_client;

struct pool_server {
    struct list_link in_idle;
    struct pool *pool;
    enum pool_server_state state;
    struct pool_client *client;
    size_t cancels; /* under way */
    mono_ns_t opened_at, idle_since;
};

struct pool_client {
    struct list_link in_waiting;
    struct pool *pool;
    struct pool_server *server;
    mono_ns_t asked_at;
};

void pool_endpoint_init(struct pool_endpoint *endpoint);
void pool_init(struct pool *pool, struct pool_endpoint *endpoint);
void pool_deinit(struct pool *pool); /* no clients, no servers */
bool pool_is_unused(const struct pool *pool);

/* ---- what happens ---- */

void pool_client_joins(struct pool *pool, struct pool_client *client);
void pool_client_asks(struct pool_client *client, mono_ns_t now); /* it has none and did not ask */
bool pool_client_waits(const struct pool_client *client);
/* It must have given its server back, or told it gone. */
void pool_client_leaves(struct pool_client *client);

/* After POOL_OPEN: the connection that is made. */
void pool_server_opens(struct pool *pool, struct pool_server *server);
void pool_server_opened(struct pool_server *server, mono_ns_t now);
/* The client is through with it; nothing of its transaction is left. */
void pool_server_released(struct pool_server *server, mono_ns_t now);
/* In any state; a client that had it is told by the owner. */
void pool_server_gone(struct pool_server *server);
void pool_open_failed(struct pool *pool, const struct pool_limits *limits, mono_ns_t now);

/*
 * A request to cancel the client's query goes out, and has arrived or failed. What it hits must be
 * the query it was meant for: until then the connection is given to nobody else.
 */
void pool_cancel_begins(struct pool_server *server);
void pool_cancel_ended(struct pool_server *server, mono_ns_t now);

/* ---- what is to be done ---- */

enum pool_action_kind {
    POOL_NOTHING,
    POOL_LINK,    /* `server` is `client`'s now: they are linked already */
    POOL_OPEN,    /* a connection for `pool`: pool_server_opens() */
    POOL_CLOSE,   /* `server`: counts no more */
    POOL_TIMEOUT, /* `client` waited too long; it waits no more */
};

struct pool_action {
    enum pool_action_kind kind;
    struct pool *pool;
    struct pool_client *client;
    struct pool_server *server;
};

/* POOL_LINK, POOL_OPEN, POOL_CLOSE: after anything above has happened. */
struct pool_action pool_step(
    struct pool_endpoint *endpoint, const struct pool_limits *limits, mono_ns_t now);
/* POOL_TIMEOUT, POOL_CLOSE: every now and then. */
struct pool_action pool_expire(
    struct pool_endpoint *endpoint, const struct pool_limits *limits, mono_ns_t now);
/* Old enough to be closed when its client gives it back. */
bool pool_server_is_old(
    const struct pool_server *server, const struct pool_limits *limits, mono_ns_t now);
