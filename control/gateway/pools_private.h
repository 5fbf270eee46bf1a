/*
 * pools_private.h - for the files of pools.h:
 *
 *   pools.c          pools and their clients; does what the decisions say
 *   pooled_server.c  a connection to a compute
 *
 * Threads: loop only.
 */
#pragma once

#include "common/base/metric.h"
#include "control/gateway/pools.h"
#include "control/gateway/server_login.h"

#define POOLS_BUCKETS      1024
#define POOLS_GREETING_MAX MIB

enum pooled_server_state { SERVER_ROUTE, SERVER_CONNECT, SERVER_LOGIN, SERVER_READY, SERVER_GONE };

struct pooled_server {
    struct list_link link; /* in pools->servers */
    struct pools *pools;
    struct named_pool *pool; /* NULL: GONE */
    enum pooled_server_state state;
    struct pool_server place;
    struct exchange_server exchange;
    struct stream_user user;
    struct route_ask ask;
    struct server_login login;
    struct timer timer; /* limit of the log-in */
    struct buf in;      /* of the compute, before READY */
    struct buf welcome; /* its ParameterStatus messages */
    uint32_t pid, key;
    bool asking, retried, is_leaving, is_let_in;
};

/* The pools of one endpoint. */
struct shared_endpoint {
    struct list_link in_bucket, in_all;
    struct pool_endpoint core;
    char id[ADDRESS_NAME_SIZE];
    size_t holds; /* somebody works on it: decisions wait */
};

struct named_pool {
    struct list_link in_bucket;
    struct pool core;
    struct shared_endpoint *endpoint;
    struct statements statements;
    struct scram_verifier verifier;
    uint8_t client_key[SCRAM_KEY_SIZE];
    mono_ns_t asked_at; /* when control told the verifier */
    char role[PG_NAME_SIZE];
    struct buf startup;
    bool has_welcome;
    struct buf welcome; /* ParameterStatus messages of the last connection that was made */
    struct parameters defaults;
};

struct pools {
    struct loop *loop;
    struct routes *routes;
    struct pools_options options;
    struct list endpoints[POOLS_BUCKETS], pools[POOLS_BUCKETS];
    struct list all_endpoints;
    struct list servers;
    struct timer tick;
    void (*on_closed)(void *owner);
    void *owner;
};

/* pools.c */
void pools_count_linked(int64_t change); /* connections that clients have, for the metrics */
struct pooled_server *pooled_client_server(const struct pooled_client *client); /* or NULL */
struct pooled_client *pooled_server_client(const struct pooled_server *server); /* or NULL */
struct buf *pooled_client_out(const struct pooled_client *client);              /* or NULL */
void pooled_client_fail(
    struct pooled_client *client, const char *code, const char *text, struct bytes error);
/*
 * The client is read from while what it sends can go somewhere, and it takes what it is answered.
 */
void pooled_client_update_reading(const struct pooled_client *client);
/* The server has answered something that its next message may have waited for. */
void pooled_client_unstall(struct pooled_client *client);
/* The connection is free: others may have it. */
void pooled_client_give_back(struct pooled_client *client, struct pooled_server *server);
/* Who waits for a connection of the pool will not get it: all, or those of one address. */
void pools_fail_waiting(
    struct named_pool *pool,
    const char *address,
    const char *code,
    const char *text,
    struct bytes error);
/*
 * Every event is taken between the two: clients may be ended by it and connections closed. When
 * nobody holds the endpoint any more, what the decisions say is done until they say nothing more,
 * and what is unused is freed, the endpoint itself as well.
 */
void pools_hold(struct shared_endpoint *endpoint);
void pools_settle(struct pools *pools, struct shared_endpoint *endpoint);
void pools_finish_close(struct pools *pools); /* if all servers are gone */

/* pooled_server.c */
void pooled_server_open(struct pools *pools, struct named_pool *pool); /* a client waits there */
/* It counts no more; a client that had it has been told, or is about to be. May free it. */
void pooled_server_close(struct pooled_server *server);
void pooled_server_free_when_done(struct pooled_server *server);
