/*
 * turns.h - many tenants share one loop and its workers: each gets its turn.
 *
 * On the loop a tenant may have so many requests answered in one turn, however many connections it
 * has; its connections stop reading then and go on in the next turns, one after the other. On the
 * workers only few jobs are queued at a time; the others wait with their tenant, and tenants are
 * served round robin. A tenant that is alone is hardly held back.
 *
 * Threads: loop only.
 */
#pragma once

#include "common/base/id.h"
#include "common/io/executor.h"
#include "common/io/loop.h"

struct turns;
struct turn_share; /* of one tenant: as long as anybody has joined it */

/* `jobs_max`: how many jobs are with the executor at a time; a few more than it has threads. */
struct turns *turns_create(struct loop *loop, struct executor *executor, size_t jobs_max);
void turns_destroy(struct turns *turns); /* nobody has joined any more */

struct turn_share *turns_join(struct turns *turns, struct tenant_id tenant);
void turns_leave(struct turn_share *share);

/*
 * One request is about to be answered on the loop. False: that was the tenant's last of this turn,
 * no more should be read before on_turn.
 */
bool turn_take(struct turn_share *share);

/* Embed it in what stops reading; `on_turn` comes once, in a later turn. */
struct turn_wait {
    void (*on_turn)(struct turn_wait *wait);
    struct turn_share *share; /* NULL: not waiting */
    struct list_link link;
};
/* Waiting already is fine. */
void turn_wait_start(struct turn_wait *wait, struct turn_share *share);
void turn_wait_stop(struct turn_wait *wait);

/* A job of the tenant: as executor_submit(), when its turn comes. Whoever submits has joined. */
struct turn_job {
    struct job job;                          /* its run */
    void (*done)(struct turn_job *turn_job); /* loop; job.result and job.msg say how it ended */
    struct turn_share *share;
};
void turn_submit(struct turn_share *share, struct turn_job *turn_job);
