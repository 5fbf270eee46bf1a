/*
 * route_watch.h - control says what changed, and the routes forget it (POST /v1/changes).
 *
 * So a password that was replaced through control counts at once, and so do addresses that are let
 * in. While control is away, or where a password is changed in SQL, what is remembered is as old as
 * routes_options.keep_ms at most. A question that finds no control is asked again a second later,
 * for ever: it is no error. Threads: loop only.
 */
#pragma once

#include "control/gateway/route.h"

struct route_watch {
    /* private */
    struct loop *loop;
    struct http_client *client;
    struct routes *routes;
    char url[PATH_SIZE];
    char token[256];
    uint64_t since;
    struct http_call call;
    struct timer again;
    bool is_calling, is_stopping;
};

/*
 * Memory of the caller, who keeps it until the loop has ended. URL and token are copied;
 * ERR_INVALID: one of them is too long, and nothing was started.
 */
NODISCARD err_t route_watch_start(
    struct route_watch *watch,
    struct loop *loop,
    struct http_client *client,
    struct routes *routes,
    const struct routes_options *options,
    struct errmsg *msg);
void route_watch_stop(struct route_watch *watch); /* before routes_destroy; again is fine */
