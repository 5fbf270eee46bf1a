/* The history of a tenant: what its timelines tell it, rounds of GC, and requests about it. */
#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/metric.h"
#include "pageserver/timeline/gc_round.h"
#include "pageserver/timeline/tenant_private.h"

METRIC_HISTOGRAM(round_seconds, "pageserver_gc_round_seconds", "time to move a tenant's cutoffs");
METRIC_COUNTER(round_failures, "pageserver_gc_round_failures_total", "rounds that failed");
METRIC_HISTOGRAM(
    compaction_seconds, "pageserver_gc_compaction_seconds", "time of a compaction on request");

struct history *tenant_history(struct tenant *tenant)
{
    return tenant->history;
}

void tenant_know_timeline(struct tenant *tenant, struct timeline *tl)
{
    struct gc_timeline timeline = {
        .number = tl->info.number,
        .parent_number = tl->info.parent_number,
        .start_lsn = tl->info.start_lsn,
        .durable_lsn = tl->durable_lsn,
        .is_tombstone = tl->info.state == TIMELINE_TOMBSTONE,
    };
    timeline_set_history(tl, tenant->history, history_add(tenant->history, &timeline));
}

void tenant_forget_timeline(struct tenant *tenant, struct timeline *tl)
{
    if (tl->in_history != NULL) { /* NULL: its erasure is being tried again */
        history_remove(tenant->history, tl->in_history);
        timeline_set_history(tl, NULL, NULL);
    }
}

void tenant_tell_durable(struct tenant *tenant, const struct timeline *tl)
{
    history_set_durable(tenant->history, tl->in_history, tl->durable_lsn);
}

/* -- rounds -- */

static err_t run_round(struct tenant *tenant, struct errmsg *msg)
{
    mono_ns_t begin = clock_mono();
    err_t err = gc_round(tenant->history, tenant->store, clock_wall(), msg);
    metric_observe_ns(&round_seconds, clock_mono() - begin);
    metric_add(&round_failures, err == ERR_OK ? 0 : 1);
    return err;
}

static err_t collect(struct job *job)
{
    struct tenant *tenant = CONTAINER_OF(job, struct tenant, gc_job);
    TRY(run_round(tenant, &job->msg));
    tenant->files_stamp = page_store_files_stamp(tenant->store);
    return ERR_OK;
}

static void tell_rewritten(struct tenant *tenant)
{
    struct tenants_user *user = tenant->tenants->options.user;
    bool is_first = tenant->files_stamp_told == 0; /* who serves it has looked at its start */
    bool is_told = tenant->files_stamp_told == tenant->files_stamp;
    tenant->files_stamp_told = tenant->files_stamp;
    if (!is_first && !is_told && user->on_rewritten != NULL) {
        user->on_rewritten(user, tenant);
    }
}

static void on_collected(struct job *job)
{
    struct tenant *tenant = CONTAINER_OF(job, struct tenant, gc_job);
    tenant->collecting = false;
    if (job->result != ERR_OK) {
        log_warn(&tenant->log, "gc: %s; the next round tries again", job->msg.text);
    } else {
        tell_rewritten(tenant);
    }
}

void tenant_collect_if_due(struct tenant *tenant, mono_ns_t now)
{
    uint64_t period_ms = tenant->tenants->options.gc_period_ms;
    if (period_ms == 0 || tenant->collecting || tenant->deleting || now < tenant->gc_at) {
        return;
    }
    if (tenant->gc_at != 0) { /* not in the first moments: there is enough to do at a start */
        tenant->collecting = true;
        tenant->gc_job = (struct job){.run = collect, .done = on_collected};
        lane_submit(&tenant->lane, &tenant->gc_job);
    }
    tenant->gc_at = now + period_ms * NS_PER_MS;
}

/* -- requests -- */

static err_t put_lease(struct job *job)
{
    struct tenant_request *request = CONTAINER_OF(job, struct tenant_request, job);
    return history_lease_put(
        request->tenant->history, request->tenant->store, request->timeline->in_history,
        &request->lease, &job->msg);
}

static err_t drop_lease(struct job *job)
{
    struct tenant_request *request = CONTAINER_OF(job, struct tenant_request, job);
    return history_lease_drop(
        request->tenant->history, request->tenant->store, request->timeline->in_history,
        request->lease.name, &job->msg);
}

/* A copy of the store elsewhere should hold it soon, and not only when something is written. */
static void tell_promise(const struct tenant_request *request, const struct job *job)
{
    struct tenants_user *user = request->tenants->options.user;
    if (job->result == ERR_OK && user->on_promise != NULL) {
        user->on_promise(user, request->tenant);
    }
}

static void on_lease_done(struct job *job)
{
    struct tenant_request *request = CONTAINER_OF(job, struct tenant_request, job);
    request->msg = job->msg;
    tell_promise(request, job);
    timeline_read_end(request->timeline);
    tenant_request_finish(request, job->result);
}

/* As a reader of the timeline, so that its history is not taken away meanwhile. */
static void start_lease_job(
    struct tenant *tenant,
    struct tenant_request *request,
    struct timeline *tl,
    err_t (*run)(struct job *job))
{
    tenant_request_begin(request, tenant->tenants, tenant);
    err_t err = timeline_read_begin(tl, &request->msg);
    if (err != ERR_OK) {
        tenant_request_answer(request, err);
        return;
    }
    request->timeline = tl;
    request->job = (struct job){.run = run, .done = on_lease_done};
    lane_submit(&tenant->lane, &request->job);
}

void tenant_put_lease(struct tenant *tenant, struct tenant_request *request, struct timeline *tl)
{
    start_lease_job(tenant, request, tl, put_lease);
}

void tenant_drop_lease(struct tenant *tenant, struct tenant_request *request, struct timeline *tl)
{
    start_lease_job(tenant, request, tl, drop_lease);
}

static void on_done(struct job *job)
{
    struct tenant_request *request = CONTAINER_OF(job, struct tenant_request, job);
    request->msg = job->msg;
    tenant_request_finish(request, job->result);
}

static err_t set_retention(struct job *job)
{
    struct tenant_request *request = CONTAINER_OF(job, struct tenant_request, job);
    struct tenant *tenant = request->tenant;
    return history_set_retention(tenant->history, tenant->store, request->retention, &job->msg);
}

static void on_retention_set(struct job *job)
{
    tell_promise(CONTAINER_OF(job, struct tenant_request, job), job);
    on_done(job);
}

void tenant_set_retention(struct tenant *tenant, struct tenant_request *request)
{
    tenant_request_begin(request, tenant->tenants, tenant);
    request->job = (struct job){.run = set_retention, .done = on_retention_set};
    lane_submit(&tenant->lane, &request->job);
}

static err_t compact(struct job *job)
{
    struct tenant_request *request = CONTAINER_OF(job, struct tenant_request, job);
    mono_ns_t begin = clock_mono();
    TRY(page_store_compact(request->tenant->store, &job->msg));
    metric_observe_ns(&compaction_seconds, clock_mono() - begin);
    return ERR_OK;
}

static void on_compacted(struct job *job)
{
    struct tenant_request *request = CONTAINER_OF(job, struct tenant_request, job);
    struct tenants_user *user = request->tenants->options.user;
    if (job->result == ERR_OK && user->on_rewritten != NULL) {
        user->on_rewritten(user, request->tenant);
    }
    on_done(job);
}

/* Not in the lane: rows and flushes go on meanwhile. */
static void on_round_done(struct job *job)
{
    struct tenant_request *request = CONTAINER_OF(job, struct tenant_request, job);
    if (job->result != ERR_OK) {
        on_done(job);
        return;
    }
    request->job = (struct job){.run = compact, .done = on_compacted};
    executor_submit(request->tenants->options.executor, &request->job);
}

static err_t run_requested_round(struct job *job)
{
    struct tenant_request *request = CONTAINER_OF(job, struct tenant_request, job);
    return run_round(request->tenant, &job->msg);
}

void tenant_collect(struct tenant *tenant, struct tenant_request *request)
{
    tenant_request_begin(request, tenant->tenants, tenant);
    request->job = (struct job){.run = run_requested_round, .done = on_round_done};
    lane_submit(&tenant->lane, &request->job);
}

void tenants_stop_collecting(struct tenants *tenants)
{
    LIST_FOR_EACH(&tenants->list, link)
    {
        struct tenant *tenant = CONTAINER_OF(link, struct tenant, link);
        if (tenant->store != NULL) {
            page_store_stop_compacting(tenant->store);
        }
    }
}
