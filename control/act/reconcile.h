/*
 * reconcile.h - makes the nodes what the catalog says, for ever: plan, run the steps, look, again.
 *
 * Level-triggered: nothing is remembered about how far an operation came. After a start, a change,
 * a step's answer and every poll of a node the objects concerned are planned again
 * (control/plan/plan.h), so a crash of control or of a node, a lost answer and an emptied disk are
 * one case. Operations are finished when the plan of their target says "reached".
 * Threads: loop only.
 */
#pragma once

#include "control/act/nodes.h"
#include "control/act/store.h"

struct reconciler;

struct reconcile_options {
    const char *compute_listen_host; /* computes listen here */
    const char *locale;              /* of bootstrap images */
    uint64_t port_first, port_last;  /* of computes that move to another host */
    uint64_t pg_version;
    uint64_t operation_timeout_ms; /* an operation that is not done by then is reported as failed */
    uint64_t suspend_after_ms;     /* computes without work, unless their endpoint says; 0: never */
    uint64_t project_keep_ms;      /* operations of a deleted project can be asked for so long */
    uint64_t recovery_window_ms; /* what has expired can be recovered for so long; 0: it is gone */
};

/* Told when an operation has ended, and when a row of an endpoint or what was seen of it may
 * differ. */
struct reconcile_user {
    void (*on_operation_ended)(struct reconcile_user *user, struct operation *operation);
    void (*on_endpoint_changed)(struct reconcile_user *user, struct endpoint *endpoint);
};

/* The reconciler watches the store, from here on. Then nodes_create with its nodes_user. */
struct reconciler *reconciler_create(
    struct loop *loop,
    struct store *store,
    const struct reconcile_options *options,
    struct reconcile_user *user);
struct nodes_user *reconciler_nodes_user(struct reconciler *reconciler);
void reconciler_start(struct reconciler *reconciler, struct nodes *nodes);
void reconciler_stop(struct reconciler *reconciler); /* no new steps; those under way end */
/* What expires goes by the wall clock, which tests move ahead. */
void reconciler_set_clock_ahead(struct reconciler *reconciler, wall_us_t ahead);
void reconciler_set_recovery_window(struct reconciler *reconciler, uint64_t window_ms);
bool reconciler_is_idle(const struct reconciler *reconciler); /* no step and no commit under way */
void reconciler_destroy(struct reconciler *reconciler);
