/*
 * compute_roles.c - roles and databases: made as the spec wants them at a start, and once more for
 * a spec that comes while it runs.
 */
#include "compute/agent/compute_private.h"

#include "common/base/clock.h"
#include "compute/agent/compute_sql.h"

#define VERIFIERS_FRESH_MS 2000 /* gateways remember what they were told for longer */

/* -- at a start -- */

/* What cannot be dropped keeps no compute from starting; the one who wants it gone is told. */
static err_t run_roles(struct job *job)
{
    struct compute *compute = CONTAINER_OF(job, struct compute, roles_job);
    char path[PATH_SIZE];
    struct errmsg msg;
    struct compute_sql sql = {
        .spec = compute->spec,
        .socket_dir = compute_path(compute, path, "s"),
        .port = compute->port,
        .quarantine = compute->spec->quarantine,
        .ret_verifiers = &compute->verifiers};
    TRY(compute_sql_try_settings(&sql, &job->msg));
    TRY(compute_sql_apply(&sql, &job->msg));
    err_t err = compute_sql_drop(&sql, &msg);
    compute->unapplied = err != ERR_OK;
    if (err != ERR_OK) {
        log_warn(&compute->log, "%s", msg.text);
    }
    return ERR_OK;
}

static void done_roles(struct job *job)
{
    struct compute *compute = CONTAINER_OF(job, struct compute, roles_job);
    if (job->result == ERR_INVALID && !compute_is_expected_end(compute)) {
        compute->error = job->msg;
        log_warn(&compute->log, "%s", job->msg.text);
        compute_post(compute, COMPUTE_EVENT_WORK_REFUSED, 0);
        return;
    }
    if (job->result != ERR_OK) {
        compute_work_failed(compute, &job->msg);
        return;
    }
    compute->spec->quarantine = false; /* from now on what is there is its own */
    compute->verifiers_until = clock_mono() + VERIFIERS_FRESH_MS * NS_PER_MS;
    compute->postgres_ms = compute_lap_ms(compute);
    compute_post(compute, COMPUTE_EVENT_WORK_DONE, 0);
}

void compute_start_roles(struct compute *compute)
{
    timer_stop(&compute->limit_timer);
    doc_unref(compute->verifiers);
    compute->verifiers = NULL;
    compute->roles_job.run = run_roles;
    compute->roles_job.done = done_roles;
    executor_submit(compute->host->sessions, &compute->roles_job);
}

const char *compute_verifier(const struct compute *compute, const char *role)
{
    bool is_fresh = compute_is_running(compute) && clock_mono() <= compute->verifiers_until;
    return is_fresh ? doc_value_str(doc_get(compute->verifiers, role)) : NULL;
}

/* -- of a new spec -- */

static err_t run_apply(struct job *job)
{
    struct compute *compute = CONTAINER_OF(job, struct compute, apply_job);
    char path[PATH_SIZE];
    struct compute_sql sql = {
        .spec = compute->applying,
        .socket_dir = compute_path(compute, path, "s"),
        .port = compute->port};
    TRY(compute_sql_drop(&sql, &job->msg));
    return compute_sql_apply(&sql, &job->msg);
}

static void done_apply(struct job *job)
{
    struct compute *compute = CONTAINER_OF(job, struct compute, apply_job);
    struct compute_waiter *waiter = compute->waiter;
    if (job->result != ERR_OK) {
        log_warn(&compute->log, "roles and databases of the new spec: %s", job->msg.text);
    }
    compute->unapplied = job->result != ERR_OK;
    compute_spec_destroy(compute->applying);
    compute->applying = NULL;
    compute->waiter = NULL;
    waiter->done(waiter, job->result, &job->msg);
    if (compute->clean_up_waits) {
        compute_clean_up(compute);
    }
}

bool compute_apply_spec(
    struct compute *compute, struct compute_spec *spec, struct compute_waiter *waiter)
{
    ASSERT(compute_is_running(compute));
    if (compute->applying != NULL) {
        return false;
    }
    /* The job keeps a spec of its own: the compute's may be replaced while it works. */
    struct errmsg msg;
    err_t err = compute_spec_parse(spec->body, &compute->applying, &msg);
    ASSERT(err == ERR_OK);
    compute_spec_destroy(compute->spec);
    compute->spec = spec;
    compute->waiter = waiter;
    compute->verifiers_until = 0; /* it may change them */
    compute->apply_job.run = run_apply;
    compute->apply_job.done = done_apply;
    executor_submit(compute->host->sessions, &compute->apply_job);
    return true;
}

bool compute_is_unapplied(const struct compute *compute)
{
    return compute->unapplied || compute->applying != NULL;
}
