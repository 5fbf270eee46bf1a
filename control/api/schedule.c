/*
 * schedule.c - snapshots of a branch by the calendar.
 *
 * The schedule is in the branch's row, and up to when it was carried out. Every few seconds the
 * rules are asked when they were due last (control/plan/calendar.h); what lies between the two is
 * made: head of the branch, then the snapshots and the new time in one commit, so that a death
 * neither loses one nor makes it twice. After a long rest each rule is made up for once.
 *
 * A few branches at a time, and those first who have waited longest (control/plan/turns.h): a
 * branch whose snapshot cannot be made is tried ever more seldom, GET of its schedule says why.
 */
#include <stdio.h>

#include "common/base/clock.h"
#include "common/base/fault.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/str.h"
#include "control/act/head.h"
#include "control/api/api_private.h"
#include "control/plan/calendar.h"
#include "control/plan/turns.h"

#define TICK_MS               5000
#define RULES_MAX             10
#define RETENTION_SECONDS_MIN 3600
#define RETENTION_SECONDS_MAX ((uint64_t)100 * 366 * 24 * 3600)
#define JOBS_MAX              8 /* a safekeeper that hangs holds up one of them */
#define AGAIN_FIRST_MS        2000
#define AGAIN_MAX_MS          600000
#define WARN_EVERY_NS         (60 * NS_PER_S)

/* The snapshots of one branch that are due. */
struct schedule_job {
    struct schedules *schedules;
    bool is_running;
    row_id_t branch_id;
    struct head_query head;
    struct mutation_then then;
};

struct schedules {
    struct api *api;
    struct timer timer;
    bool stopping;
    mono_ns_t warned_at;
    struct turns round; /* count 0: none is under way */
    size_t next;        /* in the round */
    struct schedule_job jobs[JOBS_MAX];
};

/* ---- rules ---- */

static err_t read_frequency(
    const struct doc *doc, enum frequency *ret_frequency, struct errmsg *msg)
{
    const char *text = NULL;
    TRY(doc_get_str(doc, "frequency", &text, msg));
    for (enum frequency f = FREQUENCY_HOURLY; f <= FREQUENCY_YEARLY; f++) {
        if (strcmp(text, frequency_names[f]) == 0) {
            *ret_frequency = f;
            return ERR_OK;
        }
    }
    return err_set(
        msg, ERR_INVALID, "frequency \"%s\": expected hourly, daily, weekly, monthly or yearly",
        text);
}

static err_t read_part(
    const struct doc *doc,
    const char *key,
    uint64_t first,
    uint64_t last,
    unsigned *value,
    struct errmsg *msg)
{
    uint64_t number = first;
    TRY(doc_opt_u64(doc, key, &number, msg));
    if (number < first || number > last) {
        return err_set(msg, ERR_INVALID, "%s: expected %" PRIu64 " to %" PRIu64, key, first, last);
    }
    *value = (unsigned)number;
    return ERR_OK;
}

static err_t read_rule(
    const struct doc *doc, struct calendar_rule *ret_rule, uint64_t *ret_keep_s, struct errmsg *msg)
{
    struct calendar_rule rule = {0};
    uint64_t keep_s = 0;
    if (!doc_is_object(doc)) {
        return err_set(msg, ERR_INVALID, "schedule: expected a list of objects");
    }
    TRY(read_frequency(doc, &rule.frequency, msg));
    TRY(read_part(doc, "hour", 0, 23, &rule.hour, msg));
    TRY(read_part(doc, "day", 1, rule.frequency == FREQUENCY_WEEKLY ? 7 : 31, &rule.day, msg));
    TRY(read_part(doc, "month", 1, 12, &rule.month, msg));
    TRY(doc_opt_u64(doc, "retention_seconds", &keep_s, msg));
    bool is_said = doc_get(doc, "retention_seconds") != NULL;
    if (is_said && (keep_s < RETENTION_SECONDS_MIN || keep_s > RETENTION_SECONDS_MAX)) {
        return err_set(
            msg, ERR_INVALID, "retention_seconds: expected %d to %" PRIu64, RETENTION_SECONDS_MIN,
            RETENTION_SECONDS_MAX);
    }
    *ret_rule = rule;
    *ret_keep_s = keep_s;
    return ERR_OK;
}

/* As it was said, without what we do not know. */
static struct doc *plain_rule(const struct doc *doc, const struct calendar_rule *rule)
{
    static const char *const numbers[] = {"hour", "day", "month", "retention_seconds"};
    struct doc *plain = doc_set_str(doc_object(), "frequency", frequency_names[rule->frequency]);
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        uint64_t number = 0;
        if (doc_get(doc, numbers[i]) != NULL &&
            doc_opt_u64(doc, numbers[i], &number, NULL) == ERR_OK) {
            doc_set_int(plain, numbers[i], (int64_t)number);
        }
    }
    return plain;
}

/* ---- routes ---- */

/* Why what is due was not made at the last try. */
static struct doc *view_failure(const struct branch *branch)
{
    const struct attempt *attempt = &branch->schedule_attempt;
    mono_ns_t now = clock_mono();
    wall_us_t wait_us =
        attempt->next > now ? (wall_us_t)((attempt->next - now) * 1000 / NS_PER_MS) : (wall_us_t)0;
    struct doc *failure = doc_set_str(doc_object(), "error", branch->schedule_error);
    doc_set_int(failure, "failures_count", attempt->failures);
    return doc_set_time(failure, "retry_at", clock_wall() + wait_us);
}

static void get_schedule(struct http_context *context, struct http_request *request)
{
    const struct branch *branch = request_branch(api_of(context), request);
    if (branch == NULL) {
        return;
    }
    struct doc *rules = branch->row.schedule == NULL ? doc_array() : doc_ref(branch->row.schedule);
    struct doc *doc = doc_set(doc_object(), "schedule", rules);
    if (branch->schedule_error != NULL) {
        doc_set(doc, "failure", view_failure(branch));
    }
    http_respond_json(request, 200, doc);
}

static err_t read_schedule(struct mutation *mutation, struct doc *to, struct errmsg *msg)
{
    struct doc *rules = NULL;
    TRY(doc_get_array(mutation->body, "schedule", &rules, msg));
    if (doc_count(rules) > RULES_MAX) {
        return mutation_refuse(
            mutation, 400, "BAD_REQUEST", msg, "schedule: at most %d rules", RULES_MAX);
    }
    for (size_t i = 0; i < doc_count(rules); i++) {
        struct calendar_rule rule;
        uint64_t keep_s = 0;
        struct errmsg why;
        if (read_rule(doc_at(rules, i), &rule, &keep_s, &why) != ERR_OK) {
            return mutation_refuse(mutation, 400, "BAD_REQUEST", msg, "schedule: %s", why.text);
        }
        doc_push(to, plain_rule(doc_at(rules, i), &rule));
    }
    return ERR_OK;
}

static err_t decide_put(struct mutation *mutation, struct errmsg *msg)
{
    struct branch *branch = NULL;
    TRY(find_branch(mutation->api, mutation->project_id, mutation->branch_id, &branch, msg));
    struct doc *rules = doc_array();
    err_t err = read_schedule(mutation, rules, msg);
    if (err == ERR_OK) {
        const struct api_key *key = mutation_key(mutation);
        struct branch_row row = branch->row;
        row.schedule = doc_count(rules) == 0 ? NULL : rules;
        row.scheduled_at = api_now(mutation->api); /* from now on */
        snprintf(row.scheduled_by, sizeof row.scheduled_by, "%s", key == NULL ? "" : key->row.id);
        mutation_put(mutation, ROW_BRANCH, &row);
    }
    doc_unref(rules);
    return err;
}

static void forget_failure(struct branch *branch)
{
    branch->schedule_attempt = (struct attempt){.running = branch->schedule_attempt.running};
    mem_free(branch->schedule_error);
    branch->schedule_error = NULL;
}

/* What failed before was the schedule before. */
static struct doc *answer_put(struct mutation *mutation)
{
    struct branch *branch = model_branch(mutation->api->model, mutation->branch_id);
    if (branch != NULL) {
        forget_failure(branch);
    }
    return doc_object();
}

static void put_schedule(struct http_context *context, struct http_request *request)
{
    mutation_start(context, request, decide_put, answer_put, 200);
}

/* ---- carrying them out ---- */

static void start_jobs(struct schedules *schedules);

static bool is_due(const struct branch *branch, const struct doc *doc, wall_us_t now)
{
    struct calendar_rule rule;
    uint64_t keep_s = 0;
    return read_rule(doc, &rule, &keep_s, NULL) == ERR_OK &&
           calendar_last(&rule, now) > branch->row.scheduled_at;
}

static bool branch_is_due(const struct branch *branch, wall_us_t now)
{
    bool due = false;
    for (size_t i = 0; i < doc_count(branch->row.schedule); i++) {
        due = due || is_due(branch, doc_at(branch->row.schedule, i), now);
    }
    return due && branch_is_shown(branch) && branch->row.state == BRANCH_READY;
}

static err_t put_due(
    struct mutation *mutation,
    const struct branch *branch,
    const struct doc *doc,
    wall_us_t now,
    struct errmsg *msg)
{
    struct calendar_rule rule;
    uint64_t keep_s = 0;
    struct branch_row row = {0};
    TRY(read_rule(doc, &rule, &keep_s, msg));
    wall_us_t due = calendar_last(&rule, now);
    row.expires_at = keep_s == 0 ? 0 : due + (wall_us_t)keep_s * 1000000;
    if (row.expires_at != 0 && row.expires_at <= now) {
        return ERR_OK; /* made up for too late to be kept at all */
    }
    snprintf(
        row.snapshot_name, sizeof row.snapshot_name, "%.*s_%s_%s", str_prefix(branch->row.name, 80),
        branch->row.name, frequency_names[rule.frequency], compact_time(due).text);
    return put_snapshot(mutation, branch, &row, msg);
}

static err_t decide_due(struct mutation *mutation, struct errmsg *msg)
{
    struct branch *branch = NULL;
    wall_us_t now = api_now(mutation->api);
    TRY(find_branch(mutation->api, mutation->project_id, mutation->branch_id, &branch, msg));
    if (!branch_is_due(branch, now)) {
        return ERR_OK;
    }
    for (size_t i = 0; i < doc_count(branch->row.schedule); i++) {
        const struct doc *doc = doc_at(branch->row.schedule, i);
        if (is_due(branch, doc, now)) {
            TRY(put_due(mutation, branch, doc, now, msg));
        }
    }
    struct branch_row row = branch->row;
    row.scheduled_at = now;
    mutation_put(mutation, ROW_BRANCH, &row);
    return ERR_OK;
}

static void fail_branch(
    struct schedules *schedules, struct branch *branch, const struct errmsg *msg)
{
    mono_ns_t now = clock_mono();
    attempt_put_off(&branch->schedule_attempt, now, AGAIN_FIRST_MS, AGAIN_MAX_MS);
    mem_free(branch->schedule_error);
    branch->schedule_error = mem_strdup(msg->text);
    if (schedules->warned_at == 0 || now - schedules->warned_at > WARN_EVERY_NS) {
        schedules->warned_at = now;
        log_warn(NULL, "branch %s: its snapshot is not made yet: %s", branch->row.id, msg->text);
    }
}

static void end_job(struct schedule_job *job, err_t result, const struct errmsg *msg)
{
    struct schedules *schedules = job->schedules;
    struct branch *branch = model_branch(schedules->api->model, job->branch_id);
    job->is_running = false;
    if (branch != NULL) {
        branch->schedule_attempt.running = false;
        if (result == ERR_OK) {
            forget_failure(branch);
        } else {
            fail_branch(schedules, branch, msg);
        }
    }
    start_jobs(schedules);
}

static void on_made(struct mutation_then *then, err_t result, const struct errmsg *msg)
{
    end_job(CONTAINER_OF(then, struct schedule_job, then), result, msg);
}

static void on_head(struct head_query *query, err_t result)
{
    struct schedule_job *job = CONTAINER_OF(query, struct schedule_job, head);
    struct api *api = job->schedules->api;
    const struct branch *branch = model_branch(api->model, job->branch_id);
    if (result == ERR_OK) {
        result = FAULT("schedule.after_head");
        snprintf(query->msg.text, sizeof query->msg.text, "failpoint");
    }
    if (result != ERR_OK || branch == NULL) {
        end_job(job, branch == NULL ? ERR_OK : result, &query->msg);
        return;
    }
    job->then.done = on_made;
    struct mutation *mutation = mutation_of_our_own(api, decide_due, &job->then);
    memcpy(mutation->project_id, branch->row.project_id, sizeof mutation->project_id);
    memcpy(mutation->branch_id, branch->row.id, sizeof mutation->branch_id);
    memcpy(mutation->parent_id, branch->row.id, sizeof mutation->parent_id);
    memcpy(mutation->key_id, branch->row.scheduled_by, sizeof mutation->key_id);
    mutation->parent_timeline = query->timeline;
    mutation->start_lsn = query->head;
    mutation_submit(mutation);
}

static void start_job(struct schedule_job *job, struct branch *branch)
{
    struct api *api = job->schedules->api;
    job->is_running = branch->schedule_attempt.running = true;
    memcpy(job->branch_id, branch->row.id, sizeof job->branch_id);
    job->head.done = on_head;
    head_query_start(&job->head, api->loop, api->nodes, branch, 0);
}

/* The next of the round that still has something due; NULL: the round has no more. */
static struct branch *next_of_round(struct schedules *schedules)
{
    const struct api *api = schedules->api;
    while (schedules->next < schedules->round.count) {
        struct branch *branch =
            model_branch(api->model, schedules->round.turns[schedules->next++].id);
        if (branch != NULL && branch_is_due(branch, api_now(api)) &&
            !branch->schedule_attempt.running) {
            return branch;
        }
    }
    return NULL;
}

static void start_jobs(struct schedules *schedules)
{
    bool was_full = schedules->round.count == TURNS_MAX, is_running = false;
    for (size_t i = 0; i < JOBS_MAX && !schedules->stopping; i++) {
        struct schedule_job *job = &schedules->jobs[i];
        struct branch *branch = job->is_running ? NULL : next_of_round(schedules);
        if (branch != NULL) {
            start_job(job, branch);
        }
        is_running = is_running || job->is_running;
    }
    if (!is_running && !schedules->stopping) {
        schedules->round.count = 0;
        timer_start(schedules->api->loop, &schedules->timer, was_full ? 0 : TICK_MS);
    }
}

static void on_tick(struct timer *timer)
{
    struct schedules *schedules = CONTAINER_OF(timer, struct schedules, timer);
    wall_us_t now = api_now(schedules->api);
    schedules->round.count = schedules->next = 0;
    FOR_EACH_PROJECT(schedules->api->model, project)
    {
        FOR_EACH_BRANCH(project, branch)
        {
            if (branch->row.schedule != NULL && project_is_shown(project) &&
                branch_is_due(branch, now)) {
                turns_offer(
                    &schedules->round, branch->row.id, &branch->schedule_attempt, clock_mono());
            }
        }
    }
    start_jobs(schedules);
}

void schedules_start(struct api *api)
{
    api->schedules = MEM_NEW(struct schedules);
    api->schedules->api = api;
    api->schedules->timer.on_fire = on_tick;
    for (size_t i = 0; i < JOBS_MAX; i++) {
        api->schedules->jobs[i].schedules = api->schedules;
    }
    timer_start(api->loop, &api->schedules->timer, TICK_MS);
}

void schedules_stop(struct api *api)
{
    if (api->schedules != NULL) {
        api->schedules->stopping = true;
        timer_stop(&api->schedules->timer);
    }
}

void schedules_look(struct api *api)
{
    if (timer_is_started(&api->schedules->timer)) {
        timer_start(api->loop, &api->schedules->timer, 0);
    }
}

#define SCHEDULE "/api/v2/projects/{project}/branches/{branch}/backup_schedule"
const struct http_route schedule_routes[] = {
    ROUTE("GET", SCHEDULE, get_schedule, "when snapshots of it are made"),
    ROUTE(
        "PUT",
        SCHEDULE,
        put_schedule,
        "{schedule: [{frequency, hour, day, month, retention_seconds}]}; empty: none"),
};
const size_t schedule_route_count = ARRAY_LEN(schedule_routes);
