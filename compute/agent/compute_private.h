/*
 * compute_private.h - one compute from the inside, shared by compute.c and the files of its steps:
 *
 *   compute.c           the plan put into deeds, its ends, what the agent calls
 *   compute_prepare.c   before Postgres runs: its folder, the election, base backup, older WAL
 *   compute_launch.c    Postgres and the walproposer, from their start to their exit
 *   compute_roles.c     roles and databases, at a start and of a new spec
 *   compute_status.c    what it says of itself
 *
 * A step starts by a compute_start_*() and ends by exactly one compute_post() or
 * compute_work_failed(), which may come from inside of the start. Of a process that has exited,
 * exit_status is what it returned, or -1 and `number` the signal that ended it.
 *
 * Threads: loop only; the runs of its jobs, on a worker, touch what belongs to their step.
 */
#pragma once

#include "common/base/log.h"
#include "common/io/child.h"
#include "common/io/timer.h"
#include "compute/agent/backup_fetch.h"
#include "compute/agent/compute.h"
#include "compute/agent/wal_fetch.h"

#define COMPUTE_EVENTS_MAX 8

struct compute {
    struct compute_host *host;
    char id[COMPUTE_ID_SIZE];
    char dir[PATH_SIZE];
    struct log log;
    struct compute_spec *spec;
    struct compute_plan plan;

    struct compute_event events[COMPUTE_EVENTS_MAX];
    size_t event_count;
    bool stepping;

    struct child_user sync, postgres, proposer;
    struct backup_fetch backup;
    err_t backup_result;      /* of the last fetch, when none runs */
    struct errmsg backup_msg; /* why it failed */
    bool backup_wanted;       /* it is its turn: before, one is fetched beside the election */
    struct wal_fetch wal_fetch;
    struct job job; /* prepare, bring back or clean up */
    struct job roles_job, remove_job;
    struct job apply_job; /* of a spec that came while it ran */
    struct compute_spec *applying;
    struct compute_waiter *waiter; /* of `applying` */
    bool unapplied;                /* roles and databases are not yet as the spec wants */
    bool sync_canceled, sync_late, synced, ready_late;
    bool removing, prepare_waits; /* an earlier data directory; a start waits for its end */
    bool clean_up_waits;
    struct errmsg sync_error;
    struct timer plan_timer, probe_timer, limit_timer;

    lsn_t start_lsn;
    uint16_t port;
    struct doc *verifiers; /* role: stored password, as they were at the start: roles_job's .. */
    mono_ns_t verifiers_until;         /* .. while it runs. To be told until then; 0: no more */
    uint64_t log_begin;                /* of this try */
    struct errmsg error, last_failure; /* the latter stays while it runs again */
    struct compute_size size;
    struct cage cage;
    uint64_t memory_kills; /* of the cage, when this try began */
    wall_us_t created_at;
    mono_ns_t asked_at, try_at, step_at; /* asked_at: of the request that led to this start */
    uint64_t sync_ms, backup_ms, postgres_ms, total_ms;
};

/* -- compute.c -- */

/* Feed the plan; exit_code: of an exit, or 0. Inside of a step the event waits for its end. */
void compute_post(struct compute *compute, enum compute_event_kind kind, int exit_code);
/* The work that the plan asked for has failed; `why` is logged, unless that was the wish. */
void compute_work_failed(struct compute *compute, const struct errmsg *why);
/* Remove the folder and free the compute, as soon as no job needs it any more. */
void compute_clean_up(struct compute *compute);

/* It is in its teardown: whatever exits or fails now was meant to. */
static inline bool compute_is_expected_end(const struct compute *compute)
{
    return compute->plan.phase == COMPUTE_PHASE_TEARDOWN;
}

/* A path in the compute's folder, into to[PATH_SIZE]; returns `to`. */
const char *compute_path(const struct compute *compute, char *to, const char *name);
/* Milliseconds since the last call, or since the try began. */
uint64_t compute_lap_ms(struct compute *compute);

/* -- compute_prepare.c -- */

/* The try begins: the folder is prepared, then walproposer --sync says where the WAL ends. */
void compute_start_sync(struct compute *compute);
/* The data directory as it was at start_lsn; one that was fetched beside the election counts. */
void compute_start_backup(struct compute *compute);
/* What else belongs into the data directory: statistics of the last try, WAL before start_lsn. */
void compute_start_unpack(struct compute *compute);
/* The data directory of the try before goes while the compute runs. */
void compute_remove_old(struct compute *compute);
void compute_on_sync_exit(struct child_user *user, int exit_status, int number);

/* -- compute_launch.c -- */

/* Both processes, and the probe: it ends with POSTGRES_READY, or as one of the two does. */
void compute_launch(struct compute *compute);
/* `user` is compute->proposer or ->sync; stdout_path may be NULL. Fails as child_start() does. */
NODISCARD err_t compute_start_proposer(
    struct compute *compute,
    const char *flag,
    const char *stdout_path,
    struct child_user *user,
    struct errmsg *msg);
/* "postgres ended with status 1: ", and what was logged last as fatal: the best reason there is. */
void compute_describe_exit(
    const struct compute *compute,
    const char *what,
    int exit_status,
    int number,
    struct errmsg *to);
void compute_on_postgres_exit(struct child_user *user, int exit_status, int number);
void compute_on_proposer_exit(struct child_user *user, int exit_status, int number);
void compute_on_probe(struct timer *timer);

/* -- compute_roles.c -- */

/* By SQL, once Postgres is ready; WORK_REFUSED: it does not take a setting of the spec. */
void compute_start_roles(struct compute *compute);
