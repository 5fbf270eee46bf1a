/*
 * route.h - where a client's endpoint runs, and the verifier of its role: asked of control, which
 * starts the compute when it sleeps (POST /v1/connect), and remembered for a while.
 *
 * An answer counts for one client's address: the project may have a list of those that it lets in.
 * What is remembered only saves the question: a session that finds it wrong (nobody listens there,
 * the password does not fit) forgets it and asks once more. So computes that run can be reached
 * while control is away.
 *
 * A question lasts for as long as the compute takes to wake. Who asks the same meanwhile gets the
 * same answer, and of those that differ (in role or address) only so many are put at once for one
 * address of an endpoint, and for all: the rest waits, so that a compute that never comes up takes
 * neither all of control's connections nor all of ours. Threads: loop only.
 */
#pragma once

#include "common/base/str.h"
#include "common/io/http_client.h"
#include "common/io/timer.h"
#include "control/gateway/address.h"
#include "control/gateway/pg_wire.h"

struct routes;
struct route_ask;

struct route {
    char endpoint_id[ADDRESS_NAME_SIZE];
    char project_id[ADDRESS_NAME_SIZE]; /* "": of an older control */
    char host[64];
    uint16_t port;
    char verifier[256]; /* of the role, as in pg_authid; "": no such role, or it has no password */
    mono_ns_t asked_at;
};

struct routes_options {
    const char *control_url; /* "http://127.0.0.1:7400" */
    const char *token;       /* bearer token of control's /v1; may be empty */
    uint64_t wake_timeout_ms;
    uint64_t keep_ms; /* how long an answer is remembered */
};

NODISCARD err_t routes_create(
    struct loop *loop,
    struct http_client *client,
    const struct routes_options *options,
    struct routes **ret_routes,
    struct errmsg *msg);
void routes_destroy(struct routes *routes); /* no question may be open */

/* One question: embed it, fill in the first part. */
struct route_ask {
    void (*done)(struct route_ask *ask); /* once, never from inside route_ask_start */
    struct address address;
    char role[PG_NAME_SIZE];
    char client[64]; /* its address, for control's IP allow list */
    bool again;      /* what is remembered was wrong */

    /* answer */
    err_t result; /* ERR_OK; ERR_NOT_FOUND, ERR_DENIED, ERR_BUSY (not up in time), ... */
    struct errmsg msg;
    struct route route;

    struct routes *routes; /* private */
    struct http_call call;
    struct timer soon;
    bool calling, waits;
    mono_ns_t put_at;
    uint64_t forgotten; /* of the routes, when it was asked */
    struct list_link
        in_asks;           /* those that are put, that wait for a turn, or for another's answer */
    struct list followers; /* of one that is put: they want the same answer */
};

void route_ask_start(struct routes *routes, struct route_ask *ask);
void route_ask_cancel(struct route_ask *ask); /* done() follows soon */
void routes_forget(
    struct routes *routes, const struct address *address, const char *role, const char *client);
/* Control says that it has changed; nor are answers remembered that are under way to it. */
void routes_forget_endpoint(struct routes *routes, const char *endpoint_id);
void routes_forget_all(struct routes *routes);
