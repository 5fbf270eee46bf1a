/*
 * gateway.h - Postgres' protocol for people: TLS, routing by host name, SCRAM, waking what sleeps.
 *
 * One session a connection. It is logged in by the gateway itself, with the verifier that the
 * compute has for the role and the channel bound to the gateway's certificate; then the gateway
 * logs in to the compute as that role with the client key that the proof revealed
 * (common/auth/scram.h), and passes bytes on. No password is known to it, and nothing of it has to
 * be trusted by a compute.
 *
 * Threads: loop only.
 */
#pragma once

#include "common/auth/token_hash.h"
#include "common/io/stream.h"
#include "control/gateway/pools.h"
#include "control/gateway/route.h"
#include "control/gateway/upstream.h"

struct gateway;

struct gateway_options {
    const char *listen_host;
    uint16_t listen_port; /* 0: any */
    size_t connections_max;
    size_t connections_per_endpoint_max; /* 0: no limit of ours; so the next three */
    size_t connections_per_role_max;     /* of one endpoint */
    size_t pool_clients_per_endpoint_max;
    size_t pool_clients_per_role_max; /* of one endpoint */
    uint64_t startup_timeout_ms;      /* from the first byte to the start-up packet, TLS included */
    uint64_t login_timeout_ms;        /* from there to the first query, waking included */
    bool tls_required;
    char mock_secret[TOKEN_HASH_SIZE]; /* of verifiers for roles that do not exist; lasts */
};

NODISCARD err_t gateway_open(
    struct loop *loop,
    struct routes *routes,
    struct pools *pools,     /* becomes the gateway's */
    struct tls_context *tls, /* NULL: TLS is not offered */
    const struct upstream_tls *upstream,
    const struct gateway_options *options,
    struct gateway **ret_gateway,
    struct errmsg *msg);
uint16_t gateway_port(const struct gateway *gateway);
/* No more sessions; those that exist are told and ended. `on_closed` when the last is gone. */
void gateway_close(struct gateway *gateway, void (*on_closed)(void));
