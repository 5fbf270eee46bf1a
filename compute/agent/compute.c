/*
 * compute.c - carries out what compute_plan.c decides and reports back what happened.
 *
 * Callbacks of children, jobs, calls and timers only store their result and post an event; events
 * are taken one at a time, so that an action that fails at once (a program that is missing) becomes
 * the next event and not a call within a call. The steps themselves: compute_private.h.
 */
#include "compute/agent/compute.h"

#include <signal.h>
#include <stdio.h>

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "common/io/file.h"
#include "compute/agent/compute_private.h"

METRIC_COUNTER(starts_total, "agent_compute_starts_total", "Computes that reached running.");
METRIC_COUNTER(retries_total, "agent_compute_retries_total", "Tries that ended before running.");
METRIC_HISTOGRAM(
    start_seconds, "agent_compute_start_seconds", "From the request to running, first try or not.");

#define SOCKET_PATH_MAX 107 /* sizeof(sun_path) - 1 */

/* -- for the steps -- */

uint64_t compute_lap_ms(struct compute *compute)
{
    mono_ns_t now = clock_mono();
    uint64_t lap = (now - compute->step_at) / NS_PER_MS;
    compute->step_at = now;
    return lap;
}

void compute_work_failed(struct compute *compute, const struct errmsg *why)
{
    if (compute->plan.phase != COMPUTE_PHASE_TEARDOWN) {
        compute->error = *why;
        log_warn(&compute->log, "%s", why->text);
    }
    compute_post(compute, COMPUTE_EVENT_WORK_FAILED, 0);
}

/* The folder's name was checked to leave room. */
const char *compute_path(const struct compute *compute, char *to, const char *name)
{
    struct errmsg msg;
    if (str_format(to, PATH_SIZE, &msg, "%s/%s", compute->dir, name) != ERR_OK) {
        fatal("%s", msg.text);
    }
    return to;
}

/* -- ends -- */

static void on_limit(struct timer *timer)
{
    struct compute *compute = CONTAINER_OF(timer, struct compute, limit_timer);
    if (compute->sync.child != NULL) {
        compute->sync_late = true;
        child_signal_group(compute->sync.child, SIGKILL);
    } else if (compute->postgres.child != NULL) {
        compute->ready_late = true;
        child_signal(compute->postgres.child, SIGQUIT);
    }
}

static void cancel_work(struct compute *compute)
{
    compute->sync_canceled = true;
    timer_stop(&compute->limit_timer);
    if (compute->sync.child != NULL) {
        child_signal_group(compute->sync.child, SIGKILL); /* an election may be cut at any point */
    }
    backup_fetch_cancel(&compute->backup);
    wal_fetch_cancel(&compute->wal_fetch);
}

static void signal_postgres(struct compute *compute, int number)
{
    timer_stop(&compute->probe_timer);
    timer_stop(&compute->limit_timer);
    if (compute->postgres.child != NULL) {
        child_signal(compute->postgres.child, number);
    }
}

static err_t run_clean_up(struct job *job)
{
    struct compute *compute = CONTAINER_OF(job, struct compute, job);
    cage_remove(&compute->host->cages, compute->id);
    return dir_remove(compute->dir, &job->msg);
}

static void compute_free(struct compute *compute)
{
    timer_stop(&compute->plan_timer);
    timer_stop(&compute->probe_timer);
    timer_stop(&compute->limit_timer);
    backup_fetch_deinit(&compute->backup);
    doc_unref(compute->verifiers);
    compute_spec_destroy(compute->spec);
    mem_free(compute);
}

static void done_clean_up(struct job *job)
{
    struct compute *compute = CONTAINER_OF(job, struct compute, job);
    if (job->result != ERR_OK) {
        log_error(&compute->log, "its folder stays: %s", job->msg.text);
    }
    log_info(&compute->log, "deleted");
    compute->host->on_deleted(compute->host, compute);
    compute_free(compute);
}

void compute_clean_up(struct compute *compute)
{
    compute->clean_up_waits = compute->applying != NULL || compute->removing;
    if (compute->clean_up_waits) {
        return; /* its session is just ending; no job must outlive the compute */
    }
    compute->job.run = run_clean_up;
    compute->job.done = done_clean_up;
    executor_submit(compute->host->files, &compute->job);
}

static void on_plan_timer(struct timer *timer)
{
    compute_post(CONTAINER_OF(timer, struct compute, plan_timer), COMPUTE_EVENT_TIMER, 0);
}

/* -- the plan put into deeds -- */

static void carry_out_stops(struct compute *compute, unsigned actions)
{
    if ((actions & COMPUTE_ACTION_CANCEL_WORK) != 0) {
        cancel_work(compute);
    }
    if ((actions & COMPUTE_ACTION_STOP_FAST) != 0) {
        signal_postgres(compute, SIGINT);
    }
    if ((actions & COMPUTE_ACTION_STOP_IMMEDIATE) != 0) {
        signal_postgres(compute, SIGQUIT);
    }
    if ((actions & COMPUTE_ACTION_STOP_PROPOSER) != 0 && compute->proposer.child != NULL) {
        child_signal(compute->proposer.child, SIGTERM);
    }
    if ((actions & COMPUTE_ACTION_KILL) != 0) {
        signal_postgres(compute, SIGKILL);
        if (compute->proposer.child != NULL) {
            child_signal(compute->proposer.child, SIGKILL);
        }
    }
}

static void carry_out_starts(struct compute *compute, unsigned actions)
{
    if ((actions & COMPUTE_ACTION_SYNC) != 0) {
        compute_start_sync(compute);
    }
    if ((actions & COMPUTE_ACTION_BACKUP) != 0) {
        compute_start_backup(compute);
    }
    if ((actions & COMPUTE_ACTION_UNPACK) != 0) {
        compute_start_unpack(compute);
    }
    if ((actions & COMPUTE_ACTION_LAUNCH) != 0) {
        compute_launch(compute);
    }
    if ((actions & COMPUTE_ACTION_ROLES) != 0) {
        compute_start_roles(compute);
    }
    if ((actions & COMPUTE_ACTION_CLEAN_UP) != 0) {
        compute_clean_up(compute);
    }
}

static void report_change(struct compute *compute, enum compute_phase before)
{
    const struct compute_plan *plan = &compute->plan;
    if (plan->phase == before) {
        return;
    }
    if (plan->phase == COMPUTE_PHASE_RUN) {
        mono_ns_t now = clock_mono();
        compute->total_ms = (now - compute->try_at) / NS_PER_MS;
        metric_add(&starts_total, 1);
        metric_observe_ns(&start_seconds, now - compute->asked_at);
        compute->last_failure = compute->error;
        compute->error.text[0] = '\0';
        log_info(
            &compute->log,
            "running on port %u from " LSN_FMT ": sync %" PRIu64 " ms, base backup %" PRIu64
            " ms, postgres %" PRIu64 " ms",
            compute->port, LSN_ARGS(compute->start_lsn), compute->sync_ms, compute->backup_ms,
            compute->postgres_ms);
        compute_remove_old(compute);
    } else if (plan->phase == COMPUTE_PHASE_BACKOFF) {
        metric_add(&retries_total, 1);
    } else if (plan->phase == COMPUTE_PHASE_OFF) {
        cage_remove(&compute->host->cages, compute->id);
        log_info(&compute->log, "%s", compute_plan_state(plan));
    }
    compute->host->on_change(compute->host, compute);
}

static void step(struct compute *compute, const struct compute_event *event)
{
    struct compute_actions actions;
    enum compute_phase before = compute->plan.phase;
    compute_plan_step(&compute->plan, event, &actions);
    report_change(compute, before);
    carry_out_stops(compute, actions.set);
    if ((actions.set & COMPUTE_ACTION_TIMER) != 0) {
        timer_start(compute->host->loop, &compute->plan_timer, actions.timer_ms);
    }
    if ((actions.set & COMPUTE_ACTION_STOP_TIMER) != 0) {
        timer_stop(&compute->plan_timer);
    }
    carry_out_starts(compute, actions.set);
}

void compute_post(struct compute *compute, enum compute_event_kind kind, int exit_code)
{
    ASSERT(compute->event_count < COMPUTE_EVENTS_MAX);
    compute->events[compute->event_count++] = (struct compute_event){
        .kind = kind, .exit_code = exit_code, .now_ms = clock_mono() / NS_PER_MS};
    if (compute->stepping) {
        return; /* the loop below takes it */
    }
    compute->stepping = true;
    while (compute->event_count > 0) {
        struct compute_event event = compute->events[0];
        compute->event_count--;
        for (size_t i = 0; i < compute->event_count; i++) {
            compute->events[i] = compute->events[i + 1];
        }
        step(compute, &event);
    }
    compute->stepping = false;
}

/* -- what the agent calls -- */

err_t compute_create(
    struct compute_host *host,
    const char *id,
    struct compute_spec *spec,
    struct compute **ret_compute,
    struct errmsg *msg)
{
    char dir[PATH_SIZE];
    TRY(compute_id_check(id, msg));
    TRY(str_format(dir, sizeof(dir), msg, "%s/%s", host->computes_dir, id));
    size_t socket_size = strlen(dir) + strlen("/s/.s.PGSQL.65535");
    if (socket_size > SOCKET_PATH_MAX) {
        return err_set(
            msg, ERR_INVALID,
            "data_dir is too long: the socket of this compute would have %zu bytes, %d are "
            "possible",
            socket_size, SOCKET_PATH_MAX);
    }
    struct compute *compute = MEM_NEW(struct compute);
    compute->host = host;
    compute->spec = spec;
    compute->created_at = clock_wall();
    memcpy(compute->dir, dir, sizeof(dir));
    (void)snprintf(compute->id, sizeof(compute->id), "%s", id);
    log_name(&compute->log, "compute %s", id);
    compute->sync.on_exit = compute_on_sync_exit;
    compute->postgres.on_exit = compute_on_postgres_exit;
    compute->proposer.on_exit = compute_on_proposer_exit;
    compute->plan_timer.on_fire = on_plan_timer;
    compute->probe_timer.on_fire = compute_on_probe;
    compute->limit_timer.on_fire = on_limit;
    *ret_compute = compute;
    return ERR_OK;
}

void compute_set_spec(struct compute *compute, struct compute_spec *spec)
{
    ASSERT(compute_is_off(compute));
    compute_spec_destroy(compute->spec);
    compute->spec = spec;
}

void compute_start(struct compute *compute)
{
    compute->asked_at = clock_mono();
    compute_post(compute, COMPUTE_EVENT_START, 0);
}

void compute_stop(struct compute *compute, bool fast)
{
    compute_post(compute, fast ? COMPUTE_EVENT_STOP_FAST : COMPUTE_EVENT_STOP_IMMEDIATE, 0);
}

void compute_delete(struct compute *compute)
{
    compute_post(compute, COMPUTE_EVENT_DELETE, 0);
}

const char *compute_id(const struct compute *compute)
{
    return compute->id;
}

const struct compute_spec *compute_spec_of(const struct compute *compute)
{
    return compute->spec;
}

bool compute_socket(const struct compute *compute, char dir[PATH_SIZE], uint16_t *ret_port)
{
    if (!compute_is_running(compute)) {
        return false;
    }
    (void)compute_path(compute, dir, "s");
    *ret_port = compute->port;
    return true;
}

const char *compute_state(const struct compute *compute)
{
    return compute_plan_state(&compute->plan);
}

bool compute_is_off(const struct compute *compute)
{
    return compute->plan.phase == COMPUTE_PHASE_OFF;
}

bool compute_is_running(const struct compute *compute)
{
    return compute->plan.phase == COMPUTE_PHASE_RUN;
}

bool compute_is_going(const struct compute *compute)
{
    return compute->plan.end == COMPUTE_END_DELETED;
}
