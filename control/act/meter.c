#include "control/act/meter.h"

#include <stdio.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "control/act/reconcile_private.h"
#include "control/plan/calendar.h"

#define SAMPLE_MS       2000
#define RECORD_EVERY_NS (60 * NS_PER_S)
#define GAP_MAX_MS      60000 /* a sample that comes later says nothing about the time before */
#define PROJECTS_MAX    60    /* in one commit */
#define US_PER_HOUR     ((wall_us_t)3600 * 1000000)

struct meter {
    struct loop *loop;
    struct store *store;
    struct model *model;
    struct reconciler *reconciler;
    struct timer timer;
    wall_us_t began;
    mono_ns_t sampled_at, recorded_at;
    bool stopping;

    struct change change;
    bool recording, more;
    row_id_t recorded[PROJECTS_MAX];
    size_t count;
};

/* ---- periods ---- */

static const enum frequency frequencies[] = {
    [USAGE_HOURLY] = FREQUENCY_HOURLY,
    [USAGE_DAILY] = FREQUENCY_DAILY,
    [USAGE_MONTHLY] = FREQUENCY_MONTHLY,
};

wall_us_t usage_begin(enum usage_granularity granularity, wall_us_t time)
{
    struct calendar_rule rule = {.frequency = frequencies[granularity], .day = 1, .month = 1};
    return calendar_last(&rule, time);
}

wall_us_t usage_end(enum usage_granularity granularity, wall_us_t begin)
{
    static const int64_t hours[] = {
        [USAGE_HOURLY] = 1, [USAGE_DAILY] = 24, [USAGE_MONTHLY] = 32 * 24};
    return usage_begin(granularity, begin + hours[granularity] * US_PER_HOUR);
}

static bool is_too_old(const struct usage_row *row, wall_us_t now)
{
    static const int64_t hours[] = {
        [USAGE_HOURLY] = USAGE_HOURS,
        [USAGE_DAILY] = USAGE_DAYS * 24,
        [USAGE_MONTHLY] = USAGE_MONTHS * 31 * 24};
    return row->begin + hours[row->granularity] * US_PER_HOUR <= now;
}

/* ---- samples ---- */

static void add(struct used *to, const struct used *more)
{
    to->active_ms += more->active_ms;
    to->compute_ms += more->compute_ms;
    to->written_bytes += more->written_bytes;
}

static void subtract(struct used *from, const struct used *less)
{
    from->active_ms -= less->active_ms;
    from->compute_ms -= less->compute_ms;
    from->written_bytes -= less->written_bytes;
}

static bool is_nothing(const struct used *used)
{
    return used->active_ms == 0 && used->written_bytes == 0;
}

/* What shows a moment of a branch is used by that branch. */
static struct branch *counted_for(const struct meter *meter, const struct endpoint *endpoint)
{
    struct branch *source = model_branch(meter->model, endpoint->row.source_branch_id);
    return source != NULL ? source : endpoint->branch;
}

static void count_computes(const struct meter *meter, struct project *project, uint64_t elapsed_ms)
{
    FOR_EACH_ENDPOINT(project, endpoint)
    {
        if (endpoint->seen == COMPUTE_RUNNING) {
            uint64_t milli = endpoint->row.cu_max_milli;
            struct used more = {
                .active_ms = elapsed_ms,
                .compute_ms = elapsed_ms * (milli == 0 ? 1000 : milli) / 1000,
            };
            add(&project->used, &more);
            add(&counted_for(meter, endpoint)->used, &more);
        }
    }
}

/*
 * Of a branch that is older than this process it is not known what was counted before, nor of one
 * that a restore has left an old timeline to.
 */
static void count_writes(const struct meter *meter, struct project *project)
{
    FOR_EACH_BRANCH(project, branch)
    {
        const struct branch_row *row = &branch->row;
        if (branch->last_lsn == LSN_NONE) {
            continue;
        }
        if (branch->metered_lsn == LSN_NONE) {
            bool is_new = branch->is_timeline_new && row->start_lsn != LSN_NONE &&
                          MAX_OF(row->created_at, row->last_reset_at) >= meter->began;
            branch->metered_lsn = is_new ? row->start_lsn : branch->last_lsn;
        }
        if (branch->last_lsn > branch->metered_lsn) {
            struct used more = {.written_bytes = branch->last_lsn - branch->metered_lsn};
            add(&project->used, &more);
            add(&branch->used, &more);
            branch->metered_lsn = branch->last_lsn;
        }
    }
}

/* ---- recording ---- */

/* Of the branch, or of all of the project. */
static void put_period(
    struct meter *meter,
    const struct project *project,
    const struct branch *branch,
    enum usage_granularity granularity)
{
    wall_us_t begin = usage_begin(granularity, reconciler_calendar(meter->reconciler));
    const struct used *used = branch == NULL ? &project->recording : &branch->recording;
    struct usage_row row = {.granularity = granularity, .begin = begin};
    char id[ROW_ID_SIZE];
    snprintf(
        id, sizeof id, "%.40s.%c%" PRId64, branch == NULL ? project->row.id : branch->row.id,
        usage_granularity_names[granularity][0], begin / US_PER_HOUR);
    const struct usage *usage = model_usage(meter->model, id);
    if (usage != NULL) {
        row = usage->row;
    } else {
        memcpy(row.id, id, sizeof row.id);
        memcpy(row.project_id, project->row.id, sizeof row.project_id);
        if (branch != NULL) {
            memcpy(row.branch_id, branch->row.id, sizeof row.branch_id);
        }
    }
    row.active_ms += used->active_ms;
    row.compute_ms += used->compute_ms;
    row.written_bytes += used->written_bytes;
    store_put(meter->store, &meter->change, ROW_USAGE, &row);
}

static bool is_due(const struct project *project)
{
    return project->row.state == PROJECT_ACTIVE && !is_nothing(&project->used);
}

static void drop_old(struct meter *meter, const struct list *usages)
{
    wall_us_t now = reconciler_calendar(meter->reconciler);
    LIST_FOR_EACH(usages, link)
    {
        const struct usage *usage = CONTAINER_OF(link, struct usage, in_target);
        if (is_too_old(&usage->row, now)) {
            store_delete(meter->store, &meter->change, ROW_USAGE, &usage->row);
        }
    }
}

static void put_project(struct meter *meter, struct project *project)
{
    project->recording = project->used;
    for (unsigned i = 0; i < USAGE_GRANULARITIES; i++) {
        put_period(meter, project, NULL, (enum usage_granularity)i);
    }
    drop_old(meter, &project->usages);
    FOR_EACH_BRANCH(project, branch)
    {
        branch->recording = branch->used;
        for (unsigned i = 0; i < USAGE_GRANULARITIES && !is_nothing(&branch->used); i++) {
            put_period(meter, project, branch, (enum usage_granularity)i);
        }
        drop_old(meter, &branch->usages);
    }
}

static err_t prepare(struct change *change, struct errmsg *msg)
{
    struct meter *meter = CONTAINER_OF(change, struct meter, change);
    (void)msg;
    meter->count = 0;
    meter->more = false;
    FOR_EACH_PROJECT(meter->model, project)
    {
        if (!is_due(project)) {
            continue;
        }
        if (meter->count == PROJECTS_MAX) {
            meter->more = true;
            return ERR_OK;
        }
        memcpy(meter->recorded[meter->count++], project->row.id, sizeof project->row.id);
        put_project(meter, project);
    }
    return ERR_OK;
}

/* A branch that was made meanwhile has nothing in the change. */
static void record(struct project *project)
{
    subtract(&project->used, &project->recording);
    FOR_EACH_BRANCH(project, branch)
    {
        subtract(&branch->used, &branch->recording);
        branch->recording = (struct used){0};
    }
}

static void on_recorded(struct change *change, err_t result, const struct errmsg *msg)
{
    struct meter *meter = CONTAINER_OF(change, struct meter, change);
    meter->recording = false;
    if (result != ERR_OK) {
        log_warn(NULL, "what projects use is not recorded yet: %s", msg->text);
        return;
    }
    for (size_t i = 0; i < meter->count; i++) {
        struct project *project = model_project(meter->model, meter->recorded[i]);
        if (project != NULL) {
            record(project);
        }
    }
    if (meter->more) {
        meter_record(meter);
    }
}

void meter_record(struct meter *meter)
{
    if (!meter->recording && !meter->stopping) {
        meter->recording = true;
        meter->recorded_at = clock_mono();
        meter->change = (struct change){.prepare = prepare, .done = on_recorded};
        store_submit(meter->store, &meter->change);
    }
}

static void on_sample(struct timer *timer)
{
    struct meter *meter = CONTAINER_OF(timer, struct meter, timer);
    mono_ns_t now = clock_mono();
    uint64_t elapsed_ms = (now - meter->sampled_at) / NS_PER_MS;
    meter->sampled_at += elapsed_ms * NS_PER_MS;
    FOR_EACH_PROJECT(meter->model, project)
    {
        count_computes(meter, project, elapsed_ms <= GAP_MAX_MS ? elapsed_ms : 0);
        count_writes(meter, project);
    }
    if (now - meter->recorded_at >= RECORD_EVERY_NS) {
        meter_record(meter);
    }
    timer_start(meter->loop, timer, SAMPLE_MS);
}

struct meter *meter_start(struct loop *loop, struct store *store, struct reconciler *reconciler)
{
    struct meter *meter = MEM_NEW(struct meter);
    *meter = (struct meter){
        .loop = loop,
        .store = store,
        .model = store_model(store),
        .reconciler = reconciler,
        .began = clock_wall(),
        .sampled_at = clock_mono(),
        .recorded_at = clock_mono(),
        .timer = {.on_fire = on_sample},
    };
    timer_start(loop, &meter->timer, SAMPLE_MS);
    return meter;
}

void meter_stop(struct meter *meter)
{
    if (meter != NULL) {
        meter->stopping = true;
        timer_stop(&meter->timer);
    }
}
