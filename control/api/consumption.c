/*
 * consumption.c - what projects have used, by the hour, the day or the month (control/act/meter.h,
 * control/plan/usage.h). What each metric means here stands in docs/api.md.
 *
 * The loop gathers the figures, a worker makes the answer of them: a week of many branches in hours
 * is a long text.
 */
#include <stdio.h>

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/base/parse.h"
#include "control/api/api_private.h"
#include "control/plan/stored.h"
#include "control/plan/usage.h"

#define PERIOD_ID    "6f0d3c5a-2f4e-4b52-9d3e-0a1b2c3d4e5f" /* there is one, without an end */
#define PERIOD_PLAN  "local"
#define PROJECTS_MAX 100
#define BRANCHES_MAX 1000

/* Of branches in an answer: the page ends with the branch that reaches it. A page that nobody asks
 * to be longer has fewer. */
#define FRAMES_MAX 20000

struct question {
    enum usage_granularity granularity;
    wall_us_t from, to, now;
    const char *project_ids; /* "a,b"; NULL: all */
    const char *branch_ids;  /* the same */
    const char *metrics;     /* the same */
    unsigned asked;          /* IN_V1, IN_V2 or IN_BRANCHES */
};

/* ---- the metrics ---- */

#define IN_V1       1u /* a member of each frame; the others in a list */
#define IN_V2       2u
#define IN_BRANCHES 4u
#define IN_ALL      (IN_V1 | IN_V2 | IN_BRANCHES)

enum source { ACTIVE_SECONDS, COMPUTE_SECONDS, WRITTEN, STORED, BYTE_HOURS };

/* What is stored is as it was at the end of the frame; what is stored for so long adds up in it. */
static const struct metric {
    const char *name;
    enum source source;
    enum stored_kind kind;
    unsigned in;
    bool if_named; /* and not otherwise, as is published */
} metrics[] = {
    {"active_time_seconds", .source = ACTIVE_SECONDS, .in = IN_ALL},
    {"compute_time_seconds", .source = COMPUTE_SECONDS, .in = IN_ALL},
    {"compute_unit_seconds", .source = COMPUTE_SECONDS, .in = IN_V2 | IN_BRANCHES},
    {"written_data_bytes", .source = WRITTEN, .in = IN_ALL},
    {"synthetic_storage_size_bytes", STORED, STORED_SYNTHETIC, .in = IN_V1 | IN_V2},
    {"data_storage_bytes_hour", BYTE_HOURS, STORED_SYNTHETIC, IN_V1 | IN_V2, .if_named = true},
    {"logical_size_bytes", STORED, STORED_LOGICAL, IN_V1 | IN_V2, .if_named = true},
    {"logical_size_bytes_hour", BYTE_HOURS, STORED_LOGICAL, IN_V1 | IN_V2, .if_named = true},
    {"root_branch_bytes_month", BYTE_HOURS, STORED_ROOT, .in = IN_V2 | IN_BRANCHES},
    {"child_branch_bytes_month", BYTE_HOURS, STORED_CHILD, .in = IN_V2 | IN_BRANCHES},
    {"instant_restore_bytes_month", BYTE_HOURS, STORED_RESTORE, .in = IN_V2 | IN_BRANCHES},
    {"snapshot_storage_bytes_month", BYTE_HOURS, STORED_SNAPSHOT, .in = IN_V2},
};

static uint64_t value_of(const struct metric *metric, const struct usage_row *row)
{
    switch (metric->source) {
    case ACTIVE_SECONDS: return row->active_ms / 1000;
    case COMPUTE_SECONDS: return row->compute_ms / 1000;
    case WRITTEN: return row->written_bytes;
    case STORED: return row->stored.of[metric->kind];
    case BYTE_HOURS: return row->byte_hours.of[metric->kind];
    }
    ASSERT(false);
    return 0;
}

/* ---- the question ---- */

static err_t read_granularity(
    struct http_request *request, enum usage_granularity *ret_granularity, struct errmsg *msg)
{
    const char *text = request_query(request, "granularity");
    for (unsigned i = 0; text != NULL && i < USAGE_GRANULARITIES; i++) {
        if (strcmp(text, usage_granularity_names[i]) == 0) {
            *ret_granularity = (enum usage_granularity)i;
            return ERR_OK;
        }
    }
    return err_set(msg, ERR_INVALID, "granularity: expected hourly, daily or monthly");
}

static err_t read_time(
    struct http_request *request, const char *name, wall_us_t *ret_time, struct errmsg *msg)
{
    const char *text = request_query(request, name);
    if (text == NULL || parse_time(text, ret_time, NULL) != ERR_OK || *ret_time <= 0) {
        return err_set(msg, ERR_INVALID, "%s: expected a time as of RFC 3339", name);
    }
    return ERR_OK;
}

/* False: it was answered. */
static bool read_question(
    const struct api *api, struct http_request *request, unsigned asked, struct question *ret)
{
    struct errmsg msg = {0};
    struct question question = {.asked = asked, .now = api_now(api)};
    err_t err = read_granularity(request, &question.granularity, &msg);
    if (err == ERR_OK) {
        err = read_time(request, "from", &question.from, &msg);
    }
    if (err == ERR_OK) {
        err = read_time(request, "to", &question.to, &msg);
    }
    if (err == ERR_OK && question.from >= question.to) {
        err = err_set(&msg, ERR_INVALID, "from: expected a time before `to`");
    }
    if (err != ERR_OK) {
        http_respond_problem(request, 400, "BAD_REQUEST", msg.text);
        return false;
    }
    *ret = question;
    return true;
}

/* Of a list "a,b"; NULL and "" have everything. */
static bool is_in_list(const char *list, const char *name)
{
    size_t size = strlen(name);
    if (list == NULL || list[0] == '\0') {
        return true;
    }
    for (const char *at = list; at != NULL;
         at = strchr(at, ',') == NULL ? NULL : strchr(at, ',') + 1) {
        if (strncmp(at, name, size) == 0 && (at[size] == ',' || at[size] == '\0')) {
            return true;
        }
    }
    return false;
}

/* ---- the answer ---- */

/* v1 has what it is known for in any case: clients insist on it. */
static bool is_shown(const struct question *question, const struct metric *metric)
{
    bool is_named = question->metrics != NULL && is_in_list(question->metrics, metric->name);
    bool by_default = !metric->if_named && (question->asked == IN_V1 || question->metrics == NULL);
    return (metric->in & question->asked) != 0 && (is_named || by_default);
}

/* A period of a target, with all metrics, shown or not. */
struct frame {
    wall_us_t begin;
    int64_t values[ARRAY_LEN(metrics)];
};

/* A project or a branch; of an account one without names. */
struct target {
    row_id_t project_id, branch_id;
    wall_us_t created_at;
    size_t frame_count;
};

struct report {
    struct http_request *request;
    struct job job;
    enum usage_granularity granularity;
    unsigned asked;
    bool is_shown[ARRAY_LEN(metrics)];
    struct target *targets;
    size_t target_count;
    struct frame *frames; /* of all targets, one after the other */
    size_t frame_count, frame_capacity;
    const char *key; /* of the list; NULL: it is one of an account */
    uint64_t cursor; /* 0: the last page */
    struct buf text;
};

/* On a worker: it has all that it needs. */
static struct doc *view_frame(const struct report *report, const struct frame *frame)
{
    struct doc *doc = doc_object(), *list = doc_array();
    doc_set_time(doc, "timeframe_start", frame->begin);
    doc_set_time(doc, "timeframe_end", usage_end(report->granularity, frame->begin));
    for (size_t i = 0; i < ARRAY_LEN(metrics); i++) {
        if (report->is_shown[i] && report->asked == IN_V1) {
            doc_set_int(doc, metrics[i].name, frame->values[i]);
        } else if (report->is_shown[i]) {
            struct doc *metric = doc_set_str(doc_object(), "metric_name", metrics[i].name);
            doc_push(list, doc_set_int(metric, "value", frame->values[i]));
        }
    }
    if (report->asked != IN_V1) {
        doc_set(doc, "metrics", doc_ref(list));
    }
    doc_unref(list);
    return doc;
}

static struct doc *view_target(
    const struct report *report, const struct target *target, const struct frame *frames)
{
    struct doc *doc = doc_object(), *list = doc_array();
    struct doc *period = doc_set_str(doc_object(), "period_id", PERIOD_ID);
    for (size_t i = 0; i < target->frame_count; i++) {
        doc_push(list, view_frame(report, &frames[i]));
    }
    doc_set_str(period, "period_plan", PERIOD_PLAN);
    doc_set_time(period, "period_start", target->created_at);
    doc_set(period, "consumption", list);
    if (target->project_id[0] != '\0') {
        doc_set_str(doc, "project_id", target->project_id);
    }
    if (target->branch_id[0] != '\0') {
        doc_set_str(doc, "branch_id", target->branch_id);
    }
    return doc_set(doc, "periods", doc_push(doc_array(), period));
}

static err_t run_report(struct job *job)
{
    struct report *report = CONTAINER_OF(job, struct report, job);
    struct doc *array = doc_array();
    const struct frame *frames = report->frames;
    for (size_t i = 0; i < report->target_count; i++) {
        doc_push(array, view_target(report, &report->targets[i], frames));
        frames += report->targets[i].frame_count;
    }
    struct doc *answer = report->key == NULL ? doc_ref(doc_at(array, 0)) : doc_object();
    if (report->key != NULL) {
        doc_set(answer, report->key, doc_ref(array));
    }
    if (report->cursor != 0) {
        set_cursor(answer, "cursor", report->cursor);
    }
    doc_print(answer, false, &report->text);
    doc_unref(array);
    doc_unref(answer);
    return ERR_OK;
}

static void on_report(struct job *job)
{
    struct report *report = CONTAINER_OF(job, struct report, job);
    http_respond_buf(report->request, 200, "application/json", &report->text);
    buf_deinit(&report->text);
    mem_free(report->targets);
    mem_free(report->frames);
    mem_free(report);
}

/* Of at most so many targets; report_answer() ends it. */
static struct report *report_create(
    struct http_request *request, const struct question *question, size_t targets_max)
{
    struct report *report = MEM_NEW(struct report);
    *report = (struct report){
        .request = request,
        .job = {.run = run_report, .done = on_report},
        .granularity = question->granularity,
        .asked = question->asked,
        .targets = MEM_ARRAY(struct target, targets_max),
    };
    for (size_t i = 0; i < ARRAY_LEN(metrics); i++) {
        report->is_shown[i] = is_shown(question, &metrics[i]);
    }
    return report;
}

static void report_answer(struct report *report, const struct api *api)
{
    executor_submit(api->executor, &report->job);
}

static struct target *add_target(struct report *report, wall_us_t created_at)
{
    struct target *target = &report->targets[report->target_count++];
    target->created_at = created_at;
    return target;
}

/* Of the last target. */
static void add_frame(struct report *report, const struct usage_row *row)
{
    if (report->frame_count == report->frame_capacity) {
        report->frame_capacity = MAX_OF(2 * report->frame_capacity, (size_t)USAGE_ROWS_MAX);
        report->frames =
            mem_realloc(report->frames, report->frame_capacity * sizeof report->frames[0]);
    }
    struct frame *frame = &report->frames[report->frame_count++];
    frame->begin = row->begin;
    for (size_t i = 0; i < ARRAY_LEN(metrics); i++) {
        frame->values[i] = (int64_t)value_of(&metrics[i], row);
    }
    report->targets[report->target_count - 1].frame_count++;
}

static size_t find_frames(
    const struct question *question,
    const struct list *usages,
    wall_us_t now,
    struct usage_row rows[USAGE_ROWS_MAX])
{
    return usage_frames(
        usages, question->granularity, question->from, question->to, now, rows, USAGE_ROWS_MAX);
}

static void add_frames(
    struct report *report, const struct question *question, const struct list *usages)
{
    struct usage_row *rows = MEM_ARRAY(struct usage_row, USAGE_ROWS_MAX);
    size_t count = find_frames(question, usages, question->now, rows);
    for (size_t i = 0; i < count; i++) {
        add_frame(report, &rows[i]);
    }
    mem_free(rows);
}

/* ---- projects ---- */

static void answer_projects(
    struct http_context *context, struct http_request *request, unsigned asked)
{
    struct api *api = api_of(context);
    struct question question;
    struct page page;
    struct errmsg msg = {0};
    if (page_of(request, 10, PROJECTS_MAX, &page, &msg) != ERR_OK) {
        http_respond_problem(request, 400, "BAD_REQUEST", msg.text);
        return;
    }
    if (!read_question(api, request, asked, &question)) {
        return;
    }
    question.project_ids = request_query_list(request, "project_ids");
    question.metrics = request_query_list(request, "metrics");
    struct report *report = report_create(request, &question, page.limit);
    report->key = "projects";
    FOR_EACH_PROJECT(api->model, project)
    {
        if (project->row.seq > page.after && report->target_count < page.limit &&
            project_is_shown(project) && is_in_list(question.project_ids, project->row.id)) {
            struct target *target = add_target(report, project->row.created_at);
            memcpy(target->project_id, project->row.id, sizeof target->project_id);
            add_frames(report, &question, &project->usages);
            report->cursor = project->row.seq;
        }
    }
    report_answer(report, api);
}

static void get_projects(struct http_context *context, struct http_request *request)
{
    answer_projects(context, request, IN_V1);
}

static void get_projects_v2(struct http_context *context, struct http_request *request)
{
    answer_projects(context, request, IN_V2);
}

/* ---- branches ---- */

/* Those of the page, in order of creation across projects: the first `limit` after its cursor. */
struct selection {
    const struct branch *branches[BRANCHES_MAX];
    size_t count;
};

static void select_branch(
    struct selection *selection, const struct page *page, const struct branch *branch)
{
    size_t at = selection->count;
    while (at > 0 && selection->branches[at - 1]->row.seq > branch->row.seq) {
        at--;
    }
    if (at == page->limit) {
        return;
    }
    selection->count -= selection->count == page->limit;
    memmove(
        &selection->branches[at + 1], &selection->branches[at],
        (selection->count - at) * sizeof selection->branches[0]);
    selection->branches[at] = branch;
    selection->count++;
}

static void select_branches(
    struct selection *selection,
    const struct question *question,
    const struct page *page,
    const struct model *model)
{
    FOR_EACH_PROJECT(model, project)
    {
        if (!project_is_shown(project) || !is_in_list(question->project_ids, project->row.id)) {
            continue;
        }
        FOR_EACH_BRANCH(project, branch)
        {
            if (branch_is_shown(branch) && branch->row.seq > page->after &&
                is_in_list(question->branch_ids, branch->row.id)) {
                select_branch(selection, page, branch);
            }
        }
    }
}

static void get_branches(struct http_context *context, struct http_request *request)
{
    struct question question;
    struct page page;
    struct errmsg msg = {0};
    if (page_of(request, 100, BRANCHES_MAX, &page, &msg) != ERR_OK) {
        http_respond_problem(request, 400, "BAD_REQUEST", msg.text);
        return;
    }
    if (!read_question(api_of(context), request, IN_BRANCHES, &question)) {
        return;
    }
    question.project_ids = request_query_list(request, "project_ids");
    question.branch_ids = request_query_list(request, "branch_ids");
    question.metrics = request_query_list(request, "metrics");
    struct selection *selection = MEM_NEW(struct selection);
    select_branches(selection, &question, &page, api_of(context)->model);
    struct report *report = report_create(request, &question, page.limit);
    report->key = "branches";
    for (size_t i = 0; i < selection->count && report->frame_count < FRAMES_MAX; i++) {
        const struct branch *branch = selection->branches[i];
        struct target *target = add_target(report, branch->row.created_at);
        memcpy(target->project_id, branch->row.project_id, sizeof target->project_id);
        memcpy(target->branch_id, branch->row.id, sizeof target->branch_id);
        add_frames(report, &question, &branch->usages);
        report->cursor = branch->row.seq;
    }
    mem_free(selection);
    report_answer(report, api_of(context));
}

/* ---- all of them together ---- */

/* Periods in order of time; there are few of them, however many projects. */
struct sums {
    struct usage_row rows[USAGE_ROWS_MAX];
    size_t count;
};

/* `at`: where the one before it lies; projects have the same periods in the same order. */
static size_t add_usage(struct sums *sums, size_t at, const struct usage_row *row)
{
    while (at < sums->count && sums->rows[at].begin < row->begin) {
        at++;
    }
    if (at == sums->count || sums->rows[at].begin != row->begin) {
        if (sums->count == USAGE_ROWS_MAX) {
            return at; /* no more periods than that are shown */
        }
        memmove(&sums->rows[at + 1], &sums->rows[at], (sums->count - at) * sizeof sums->rows[0]);
        sums->rows[at] = (struct usage_row){.begin = row->begin, .granularity = row->granularity};
        sums->count++;
    }
    struct usage_row *sum = &sums->rows[at];
    sum->active_ms += row->active_ms;
    sum->compute_ms += row->compute_ms;
    sum->written_bytes += row->written_bytes;
    stored_add(&sum->stored, &row->stored);
    stored_add(&sum->byte_hours, &row->byte_hours);
    return at;
}

static void get_account(struct http_context *context, struct http_request *request)
{
    struct api *api = api_of(context);
    struct question question;
    if (!read_question(api, request, IN_V1, &question)) {
        return;
    }
    struct sums *sums = MEM_NEW(struct sums);
    struct usage_row *rows = MEM_ARRAY(struct usage_row, USAGE_ROWS_MAX);
    FOR_EACH_PROJECT(api->model, project)
    {
        bool is_gone = project->row.state != PROJECT_ACTIVE; /* nothing is stored since then */
        wall_us_t until = is_gone ? MIN_OF(project->row.updated_at, question.now) : question.now;
        size_t count = find_frames(&question, &project->usages, until, rows);
        for (size_t i = 0, at = 0; i < count; i++) {
            if (!usage_is_too_old(&rows[i], question.now)) { /* those of what is gone may be */
                at = add_usage(sums, at, &rows[i]);
            }
        }
    }
    struct report *report = report_create(request, &question, 1);
    add_target(report, api->model->image.created_at);
    for (size_t i = 0; i < sums->count; i++) {
        add_frame(report, &sums->rows[i]);
    }
    mem_free(rows);
    mem_free(sums);
    report_answer(report, api);
}

#define HISTORY "/api/v2/consumption_history"
const struct http_route consumption_routes[] = {
    ROUTE(
        "GET",
        HISTORY "/projects",
        get_projects,
        "what each project used; from, to, granularity, project_ids, limit, cursor"),
    ROUTE("GET", HISTORY "/v2/projects", get_projects_v2, "the same as a list of metrics"),
    ROUTE("GET", HISTORY "/v2/branches", get_branches, "the same of each branch of some projects"),
    ROUTE("GET", HISTORY "/account", get_account, "all projects; from, to, granularity"),
};
const size_t consumption_route_count = ARRAY_LEN(consumption_routes);
