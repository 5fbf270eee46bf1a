/*
 * pools.h - the server connections that clients of `-pooler` hosts share, one transaction each.
 *
 * Drives the decisions of pool.h over sockets: asks control where a compute runs (which wakes it),
 * connects and logs in as the clients' role with the key that one of their proofs revealed, and
 * has exchange.h pass messages between a client and the connection that is its for now. A key lives
 * as long as its pool: until nobody is connected and the last connection has been idle for long.
 *
 * Threads: loop only. Callbacks may end the client they are called for.
 */
#pragma once

#include "common/auth/scram.h"
#include "common/io/stream.h"
#include "control/gateway/exchange.h"
#include "control/gateway/pool.h"
#include "control/gateway/route.h"
#include "control/gateway/upstream.h"

struct pools;
struct pooled_client;
struct pooled_server;

struct pools_options {
    struct pool_limits limits;
    struct exchange_limits exchange;
    uint64_t login_timeout_ms; /* of a connection to a compute */
    const struct upstream_tls *upstream;
};

struct pools *pools_create(
    struct loop *loop, struct routes *routes, const struct pools_options *options);
/* No more connections; clients have left. `on_closed`, maybe at once, when all are gone. Frees. */
void pools_close(struct pools *pools, void (*on_closed)(void *owner), void *owner);

struct pooled_callbacks {
    /* Once, after pools_join(): pooled_client_put_greeting() has what to say. */
    void (*on_greeting)(struct pooled_client *client);
    /* It gets no further. `error` is a whole ErrorResponse of the compute, or empty. */
    void (*on_failed)(
        struct pooled_client *client, const char *code, const char *text, struct bytes error);
    void (*on_ended)(struct pooled_client *client); /* it said good-bye; or was told already */
};

/* Embedded by a session. */
struct pooled_client {
    const struct pooled_callbacks *callbacks;
    struct stream_user *user; /* of the client's stream */
    char address[64];         /* of the client, for control's IP allow list */
    struct address endpoint;  /* as the client named it */
    struct exchange_client exchange;

    struct pools *pools; /* private */
    struct pool_client place;
    bool is_greeted;
};

struct pool_spec {
    const char *endpoint_id;
    const char *role;
    struct bytes startup; /* the packet for a compute; part of what makes a pool */
    const struct scram_verifier *verifier;
    const uint8_t *client_key;
    mono_ns_t asked_at; /* when control told the verifier */
};

/* How many clients pools of this endpoint have, and how many of this role. */
void pools_count_clients(
    struct pools *pools,
    const char *endpoint_id,
    const char *role,
    size_t *ret_endpoint,
    size_t *ret_role);

void pools_join(struct pools *pools, const struct pool_spec *spec, struct pooled_client *client);
void pooled_client_put_greeting(struct pooled_client *client, struct buf *to);
void pooled_client_receive(struct pooled_client *client, struct bytes bytes);
void pooled_client_drained(struct pooled_client *client); /* its stream takes more again */
/* Amid an answer of the compute nothing of ours can be said. */
bool pooled_client_is_amid_answer(const struct pooled_client *client);
/* A transaction that it leaves open is lost with its connection. Fine when it never joined. */
void pooled_client_leave(struct pooled_client *client);
void pooled_client_deinit(struct pooled_client *client); /* after it has left */

/* ---- cancelling ---- */

struct pooled_target {
    const char *host; /* lives until pooled_cancel_end() */
    uint16_t port;
    uint32_t pid, key;
};

/* NULL: the client runs nothing. Otherwise the connection is given to nobody else until the end. */
struct pooled_server *pooled_cancel_begin(
    struct pooled_client *client, struct pooled_target *ret_target);
/* `is_sure`: the compute has taken the request, or never got it. */
void pooled_cancel_end(struct pooled_server *server, bool is_sure);
