/*
 * server.h - what one safekeeper process is: its timelines, its framed port, its routes.
 *
 * Timelines are created and deleted by control's HTTP calls alone (management.h); a hello for one
 * that is not here is refused, so that no lost or mistyped id brings an empty log to life.
 * Threads: loop only.
 */
#pragma once

#include "common/io/http_server.h"
#include "common/io/listener.h"
#include "common/io/timer.h"
#include "safekeeper/serve/node_file.h"
#include "safekeeper/timeline/timeline_set.h"

struct server_options {
    node_id_t node_id;
    const char *host;
    uint16_t port; /* 0: any */
    size_t connections_max;
    size_t timelines_max;
    uint64_t hello_timeout_ms; /* a connection without a channel is closed after this */
    unsigned kernel_syncs;     /* 0: workers sync everything */
    const char *secret;        /* of common/auth; empty: everything is allowed */
};

struct server {
    struct timeline_env env;
    struct server_options options;
    char incarnation[INCARNATION_TEXT_SIZE];
    struct timeline_set *timelines;
    struct listener *listener;
    struct listener_user listener_user;
    struct list connections;
    uint64_t last_connection; /* number of the newest proposer channel: never reused */
    struct http_context http;
    struct timer peer_timer;      /* timelines ask the other members */
    struct timer retention_timer; /* it is looked whether WAL may go */
    struct list operations;       /* of management: one at a time for each timeline */

    bool is_stopping;
    size_t closing_left; /* timelines that still close; operations that still run */
    void (*on_stopped)(struct server *server);
};

/*
 * Find the timelines in env->data_dir and begin to open them, listen, add the routes. The options'
 * texts must live as long as the server. Blocking: reads the data folder.
 */
NODISCARD err_t server_start(
    struct server *server,
    const struct timeline_env *env,
    const struct server_options *options,
    struct http_server *http,
    struct errmsg *msg);
uint16_t server_port(const struct server *server);
/* Close everything in order, then on_stopped; at once when there is nothing to wait for. */
void server_stop(struct server *server, void (*on_stopped)(struct server *server));
void server_deinit(struct server *server);

/* Append a line for every timeline that is not in service or not verified yet. */
void server_not_ready(const struct server *server, struct buf *reasons);

/* Private to the folder. */
void server_step_stopped(struct server *server); /* one of what closing_left counts is done */
NODISCARD err_t server_scan(struct server *server, struct errmsg *msg);
