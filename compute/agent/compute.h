/*
 * compute.h - one compute: its processes, its folder and its plan (compute_plan.h) put into deeds.
 *
 * Threads: loop only; files and SQL are worked on by the host's executors.
 */
#pragma once

#include "compute/agent/compute_cage.h"
#include "compute/agent/compute_files.h"
#include "compute/agent/compute_plan.h"

struct compute;

/* What all computes of an agent share; lives longer than they do. */
struct compute_host {
    const struct agent_conf *conf;
    struct loop *loop;
    struct executor *files;    /* blocking work that ends soon */
    struct executor *sessions; /* SQL: may wait for a quorum */
    struct http_client *http;
    struct run_as user;
    struct cage_host cages;
    char computes_dir[PATH_SIZE];
    char postgres[PATH_SIZE]; /* programs */
    char walproposer[PATH_SIZE];
    /* The compute is deleted and is freed after this. */
    void (*on_deleted)(struct compute_host *host, struct compute *compute);
    /* Its state changed; it may have come to rest. */
    void (*on_change)(struct compute_host *host, struct compute *compute);
};

/* Takes over `spec`. Nothing starts before compute_start(). */
NODISCARD err_t compute_create(
    struct compute_host *host,
    const char *id,
    struct compute_spec *spec,
    struct compute **ret_compute,
    struct errmsg *msg);

/* Only while it is off: the next start is with this spec. Takes over `spec`. */
void compute_set_spec(struct compute *compute, struct compute_spec *spec);
/*
 * Only while it runs: make its roles and databases so, too, and tell `waiter` when they are. Takes
 * over `spec`; false (and `spec` stays the caller's) while an earlier one is being applied.
 */
struct compute_waiter {
    void (*done)(struct compute_waiter *waiter, err_t result, const struct errmsg *msg); /* once */
};
bool compute_apply_spec(
    struct compute *compute, struct compute_spec *spec, struct compute_waiter *waiter);
/* The last attempt to make roles and databases so did not succeed: apply the same spec again. */
bool compute_is_unapplied(const struct compute *compute);

void compute_start(struct compute *compute);
void compute_stop(struct compute *compute, bool fast);
void compute_delete(struct compute *compute); /* on_deleted follows */

const char *compute_id(const struct compute *compute);
const struct compute_spec *compute_spec_of(const struct compute *compute);
/*
 * What a role's password is checked with, if it was read a moment ago: whoever woke it asks at
 * once. NULL: ask Postgres.
 */
const char *compute_verifier(const struct compute *compute, const char *role);
/* Where its Postgres listens for us; false while it does not run. */
bool compute_socket(const struct compute *compute, char dir[PATH_SIZE], uint16_t *ret_port);
const char *compute_state(const struct compute *compute); /* of compute_plan_state */
bool compute_is_off(const struct compute *compute);
bool compute_is_running(const struct compute *compute);
bool compute_is_going(const struct compute *compute);      /* being deleted */
struct doc *compute_status(const struct compute *compute); /* the caller's */
