/*
 * activity.h - since when nobody works on a compute: what control suspends idle ones by.
 *
 * Work is a client's backend that is not idle, a walsender of a subscriber, or an autovacuum
 * worker; the end of a client's last statement is remembered. Asked of Postgres every few seconds:
 * a session that comes and goes in between is not seen (control also counts log-ins through the
 * gateway).
 *
 * Threads: loop only; Postgres is asked on `sessions`.
 */
#pragma once

#include "common/io/executor.h"
#include "common/io/timer.h"
#include "compute/agent/compute.h"

struct activity;

struct activity_user {
    /* NULL: there is none of that id, or it does not run. Called between two questions. */
    const struct compute *(*find_running)(struct activity_user *user, const char *id);
    void (*each_id)(struct activity_user *user, struct activity *activity);
};

struct activity *activity_create(
    struct loop *loop, struct executor *sessions, uint64_t interval_ms, struct activity_user *user);
void activity_stop(struct activity *activity); /* no more questions */

/* Called by each_id: ask about this one, if it runs and no question about it is open. */
void activity_ask(struct activity *activity, const char *id);
void activity_forget(struct activity *activity, const char *id); /* the compute is gone */

/* Milliseconds without work when it was last asked; 0: it worked, or nothing is known yet. */
uint64_t activity_idle_ms(const struct activity *activity, const char *id);
