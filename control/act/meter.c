#include "control/act/meter.h"

#include <stdio.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "control/act/reconcile_private.h"
#include "control/act/sizes.h"
#include "control/plan/usage.h"

#define SAMPLE_MS       2000
#define RECORD_EVERY_NS (60 * NS_PER_S)
#define GAP_MAX_MS      60000 /* a sample that comes later says nothing about the time before */
#define TARGETS_MAX     200   /* in one commit */
#define US_PER_HOUR     ((wall_us_t)3600 * 1000000)

/* A project, or a branch of one: what is recorded. */
struct target_used {
    const struct project *project;
    const struct branch *branch; /* NULL: all of the project */
    struct used *used, *recording;
    struct measured *measured;
    const struct list *usages;
};

struct recorded {
    row_id_t id;
    bool is_branch;
};

struct meter {
    struct loop *loop;
    struct store *store;
    struct model *model;
    struct reconciler *reconciler;
    struct sizes *sizes;
    struct timer timer;
    wall_us_t began;
    mono_ns_t sampled_at, recorded_at;
    bool stopping;

    struct change change;
    bool recording, more;
    uint64_t pass;      /* a minute's commits: each is recorded once, or those of many had no end */
    bool sweeping;      /* what is too old goes, also of those of which there is nothing new ... */
    wall_us_t swept_at; /* ... once in an hour, which this is */
    struct recorded recorded[TARGETS_MAX];
    size_t count, row_count;
};

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

static struct target_used of_project(struct project *project)
{
    return (struct target_used){
        .project = project,
        .used = &project->used,
        .recording = &project->recording,
        .measured = &project->measured,
        .usages = &project->usages,
    };
}

static struct target_used of_branch(struct branch *branch)
{
    return (struct target_used){
        .project = branch->project,
        .branch = branch,
        .used = &branch->used,
        .recording = &branch->recording,
        .measured = &branch->measured,
        .usages = &branch->usages,
    };
}

static const char *id_of(const struct target_used *target)
{
    return target->branch == NULL ? target->project->row.id : target->branch->row.id;
}

static void put_period(
    struct meter *meter, const struct target_used *target, enum usage_granularity granularity)
{
    wall_us_t now = reconciler_calendar(meter->reconciler);
    wall_us_t begin = usage_begin(granularity, now);
    const struct used *used = target->recording;
    const struct measured *measured = target->measured;
    struct usage_row row = {.granularity = granularity, .begin = begin};
    char id[ROW_ID_SIZE];
    snprintf(
        id, sizeof id, "%.40s.%c%" PRId64, id_of(target), usage_granularity_names[granularity][0],
        begin / US_PER_HOUR);
    const struct usage *usage = model_usage(meter->model, id);
    if (usage != NULL) {
        row = usage->row;
    } else {
        memcpy(row.id, id, sizeof row.id);
        memcpy(row.project_id, target->project->row.id, sizeof row.project_id);
        if (target->branch != NULL) {
            memcpy(row.branch_id, target->branch->row.id, sizeof row.branch_id);
        }
    }
    row.active_ms += used->active_ms;
    row.compute_ms += used->compute_ms;
    row.written_bytes += used->written_bytes;
    usage_note(
        &row, usage_before(target->usages, granularity, begin),
        measured->is_known ? &measured->stored : NULL, now);
    store_put(meter->store, &meter->change, ROW_USAGE, &row);
    meter->row_count++;
}

/*
 * Of one that is too old. What was stored when the newest of them was written may count until now:
 * that one of each granularity stays.
 */
static bool may_go(const struct usage_row *row, const struct list *usages, wall_us_t now)
{
    LIST_FOR_EACH(usages, link)
    {
        const struct usage_row *other = &CONTAINER_OF(link, struct usage, in_target)->row;
        if (other->granularity == row->granularity && other->begin > row->begin &&
            usage_is_too_old(other, now)) {
            return true;
        }
    }
    return stored_is_nothing(&row->stored);
}

static size_t drop_old(struct meter *meter, const struct list *usages, bool only_count)
{
    wall_us_t now = reconciler_calendar(meter->reconciler);
    size_t count = 0;
    LIST_FOR_EACH(usages, link)
    {
        const struct usage *usage = CONTAINER_OF(link, struct usage, in_target);
        if (usage_is_too_old(&usage->row, now) && may_go(&usage->row, usages, now)) {
            count++;
            if (!only_count) {
                store_delete(meter->store, &meter->change, ROW_USAGE, &usage->row);
            }
        }
    }
    return count;
}

/* False: it is due and has no place in this commit any more. */
static bool put_target(struct meter *meter, const struct target_used *target)
{
    bool has_new = !is_nothing(target->used) || target->measured->is_due;
    if (target->measured->pass == meter->pass) {
        return true;
    }
    if (!has_new && !(meter->sweeping && drop_old(meter, target->usages, true) > 0)) {
        return true;
    }
    if (meter->row_count >= METER_ROWS_MAX || meter->count == TARGETS_MAX) {
        meter->more = true;
        return false;
    }
    struct recorded *recorded = &meter->recorded[meter->count++];
    snprintf(recorded->id, sizeof recorded->id, "%s", id_of(target));
    recorded->is_branch = target->branch != NULL;
    *target->recording = *target->used;
    for (unsigned i = 0; i < USAGE_GRANULARITIES && has_new; i++) {
        put_period(meter, target, (enum usage_granularity)i);
    }
    target->measured->recorded = target->measured->stored;
    target->measured->is_due = false;
    target->measured->pass = meter->pass;
    meter->row_count += drop_old(meter, target->usages, false);
    return true;
}

static err_t prepare(struct change *change, struct errmsg *msg)
{
    struct meter *meter = CONTAINER_OF(change, struct meter, change);
    (void)msg;
    meter->count = meter->row_count = 0;
    meter->more = false;
    FOR_EACH_PROJECT(meter->model, project)
    {
        struct target_used target = of_project(project);
        if (project->row.state != PROJECT_ACTIVE) {
            continue;
        }
        if (!put_target(meter, &target)) {
            return ERR_OK;
        }
        FOR_EACH_BRANCH(project, branch)
        {
            target = of_branch(branch);
            if (!put_target(meter, &target)) {
                return ERR_OK;
            }
        }
    }
    return ERR_OK;
}

static void on_recorded(struct change *change, err_t result, const struct errmsg *msg);

static void record(struct meter *meter)
{
    if (!meter->recording && !meter->stopping) {
        meter->recording = true;
        meter->recorded_at = clock_mono();
        meter->change = (struct change){.prepare = prepare, .done = on_recorded};
        store_submit(meter->store, &meter->change);
    }
}

/* What went meanwhile has taken its rows along. */
static void end_recorded(struct meter *meter, const struct recorded *recorded, err_t result)
{
    struct project *project =
        recorded->is_branch ? NULL : model_project(meter->model, recorded->id);
    struct branch *branch = recorded->is_branch ? model_branch(meter->model, recorded->id) : NULL;
    if (project == NULL && branch == NULL) {
        return;
    }
    struct target_used target = project != NULL ? of_project(project) : of_branch(branch);
    if (result == ERR_OK) {
        subtract(target.used, target.recording);
    } else {
        target.measured->is_due = target.measured->is_known;
    }
    *target.recording = (struct used){0};
}

static void on_recorded(struct change *change, err_t result, const struct errmsg *msg)
{
    struct meter *meter = CONTAINER_OF(change, struct meter, change);
    meter->recording = false;
    for (size_t i = 0; i < meter->count; i++) {
        end_recorded(meter, &meter->recorded[i], result);
    }
    if (result != ERR_OK) {
        log_warn(NULL, "what projects use is not recorded yet: %s", msg->text);
    } else if (meter->more) {
        record(meter);
    } else {
        meter->sweeping = false;
    }
}

void meter_record(struct meter *meter)
{
    wall_us_t now = reconciler_calendar(meter->reconciler);
    wall_us_t hour = usage_begin(USAGE_HOURLY, now);
    meter->sweeping |= hour != meter->swept_at;
    meter->swept_at = hour;
    sizes_look(meter->sizes, now);
    meter->pass += meter->recording ? 0 : 1;
    record(meter);
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
    } else {
        sizes_look(meter->sizes, reconciler_calendar(meter->reconciler));
    }
    timer_start(meter->loop, timer, SAMPLE_MS);
}

struct meter *meter_start(
    struct loop *loop, struct store *store, struct reconciler *reconciler, struct nodes *nodes)
{
    struct meter *meter = MEM_NEW(struct meter);
    *meter = (struct meter){
        .loop = loop,
        .store = store,
        .model = store_model(store),
        .reconciler = reconciler,
        .sizes = sizes_create(store_model(store), nodes),
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
        sizes_stop(meter->sizes);
        timer_stop(&meter->timer);
    }
}
