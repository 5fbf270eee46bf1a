/*
 * api.h - the REST routes of control: /api/v2 for people, /v1 for the other parts.
 *
 * A request that changes something is a mutation: decided at its turn against the model, committed
 * in one batch, answered with the objects and their operations. What then has to happen on nodes is
 * the reconciler's. Every GET is a memory read. Threads: loop only.
 */
#pragma once

#include "common/io/executor.h"
#include "common/io/http_server.h"
#include "control/act/hosts.h"
#include "control/act/reconcile.h"
#include "control/act/store.h"

struct api_options {
    uint64_t pg_version;
    uint64_t port_first, port_last; /* of computes */
    const char *region_id;
    const char *gateway_host; /* clients connect there; "": straight to the compute */
    uint64_t gateway_port;
    uint64_t safekeepers_per_branch;
    uint64_t recovery_window_ms; /* what is deleted can be recovered for so long */
};

struct access_guard;
struct schedules;
struct meter;
struct changes;

struct api {
    struct http_context http;
    const char *owner_token; /* of the daemon's `http_token`; "": everybody is the owner */
    struct access_guard *guard;
    struct schedules *schedules;
    struct meter *meter;
    struct changes *changes;
    struct loop *loop;
    struct executor *executor; /* for what would hold up the loop */
    struct store *store;
    struct model *model;
    struct nodes *nodes;
    struct hosts *hosts;
    struct reconciler *reconciler;
    struct api_options options;
    struct list keyed;     /* mutations with an Idempotency-Key that are under way */
    wall_us_t clock_ahead; /* for tests: see api_now */
};

/* What is due by the calendar goes by it: the wall clock, moved by tests (PUT /v1/clock). */
wall_us_t api_now(const struct api *api);

/* Sets the guard of the server too, if there is one. */
void api_add_routes(struct api *api, struct http_server *server);

/* Snapshots by the calendar, from now on. */
void schedules_start(struct api *api);
void schedules_stop(struct api *api);

/* What gateways may have to forget, from now on. */
void changes_start(struct api *api);
void changes_stop(struct api *api);

/* Answers the long polls of an operation that has ended. */
void operations_ended(struct operation *operation);

/* Whoever waits for its compute looks at it (compute_wait.h). */
void endpoint_changed(struct endpoint *endpoint);
