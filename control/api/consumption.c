/*
 * consumption.c - what projects have used, by the hour, the day or the month (control/act/meter.h).
 */
#include <stdio.h>

#include "common/base/mem.h"
#include "common/base/parse.h"
#include "control/act/meter.h"
#include "control/api/api_private.h"

#define PERIOD_ID    "6f0d3c5a-2f4e-4b52-9d3e-0a1b2c3d4e5f" /* there is one, without an end */
#define PERIOD_PLAN  "local"
#define PROJECTS_MAX 100
#define BRANCHES_MAX 1000

struct question {
    enum usage_granularity granularity;
    wall_us_t from, to;
    const char *project_ids; /* "a,b"; NULL: all */
    const char *branch_ids;  /* the same */
    const char *metrics;     /* the same */
    bool by_metric;          /* as of v2 */
};

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
static bool read_question(struct http_request *request, bool by_metric, struct question *ret)
{
    struct errmsg msg = {0};
    struct question question = {.by_metric = by_metric};
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

static bool is_in(const struct question *question, const struct usage_row *row)
{
    return row->granularity == question->granularity &&
           row->begin >= usage_begin(question->granularity, question->from) &&
           row->begin < question->to;
}

static struct doc *view_frame(const struct question *question, const struct usage_row *row)
{
    const struct {
        const char *name;
        uint64_t value;
    } metrics[] = {
        {"active_time_seconds", row->active_ms / 1000},
        {"compute_time_seconds", row->compute_ms / 1000},
        {"compute_unit_seconds", row->compute_ms / 1000}, /* as v2 calls it */
        {"written_data_bytes", row->written_bytes},
    };
    struct doc *doc = doc_object(), *list = doc_array();
    doc_set_time(doc, "timeframe_start", row->begin);
    doc_set_time(doc, "timeframe_end", usage_end(question->granularity, row->begin));
    for (size_t i = 0; i < ARRAY_LEN(metrics); i++) {
        struct doc *metric = doc_set_str(doc_object(), "metric_name", metrics[i].name);
        doc_set_int(metric, "value", (int64_t)metrics[i].value);
        if (is_in_list(question->metrics, metrics[i].name)) {
            doc_push(list, doc_ref(metric));
        }
        doc_unref(metric);
        if (!question->by_metric) {
            doc_set_int(doc, metrics[i].name, (int64_t)metrics[i].value);
        }
    }
    if (question->by_metric) {
        doc_set(doc, "metrics", doc_ref(list));
    } else {
        doc_set_int(doc, "synthetic_storage_size_bytes", 0); /* clients insist on it */
    }
    doc_unref(list);
    return doc;
}

static struct doc *periods_of(wall_us_t begin, struct doc *frames)
{
    struct doc *period = doc_set_str(doc_object(), "period_id", PERIOD_ID);
    doc_set_str(period, "period_plan", PERIOD_PLAN);
    doc_set_time(period, "period_start", begin);
    return doc_push(doc_array(), doc_set(period, "consumption", frames));
}

static struct doc *frames_of(const struct question *question, const struct list *usages)
{
    struct doc *frames = doc_array();
    LIST_FOR_EACH(usages, link)
    {
        const struct usage *usage = CONTAINER_OF(link, struct usage, in_target);
        if (is_in(question, &usage->row)) {
            doc_push(frames, view_frame(question, &usage->row));
        }
    }
    return frames;
}

static struct doc *view_project(const struct question *question, const struct project *project)
{
    struct doc *doc = doc_set_str(doc_object(), "project_id", project->row.id);
    struct doc *frames = frames_of(question, &project->usages);
    return doc_set(doc, "periods", periods_of(project->row.created_at, frames));
}

static struct doc *view_branch(const struct question *question, const struct branch *branch)
{
    struct doc *doc = doc_set_str(doc_object(), "project_id", branch->row.project_id);
    struct doc *frames = frames_of(question, &branch->usages);
    doc_set_str(doc, "branch_id", branch->row.id);
    return doc_set(doc, "periods", periods_of(branch->row.created_at, frames));
}

static void answer_projects(
    struct http_context *context, struct http_request *request, bool by_metric)
{
    struct api *api = api_of(context);
    struct question question;
    struct page page;
    struct errmsg msg = {0};
    if (!read_question(request, by_metric, &question)) {
        return;
    }
    question.project_ids = request_query_list(request, "project_ids");
    question.metrics = request_query_list(request, "metrics");
    if (page_of(request, 10, PROJECTS_MAX, &page, &msg) != ERR_OK) {
        http_respond_problem(request, 400, "BAD_REQUEST", msg.text);
        return;
    }
    struct doc *array = doc_array();
    uint64_t last = 0;
    FOR_EACH_PROJECT(api->model, project)
    {
        if (project->row.seq > page.after && doc_count(array) < page.limit &&
            project_is_shown(project) && is_in_list(question.project_ids, project->row.id)) {
            doc_push(array, view_project(&question, project));
            last = project->row.seq;
        }
    }
    struct doc *doc = doc_set(doc_object(), "projects", array);
    if (last != 0) {
        set_cursor(doc, "cursor", last);
    }
    http_respond_json(request, 200, doc);
}

static void get_projects(struct http_context *context, struct http_request *request)
{
    answer_projects(context, request, false);
}

static void get_projects_v2(struct http_context *context, struct http_request *request)
{
    answer_projects(context, request, true);
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

static void get_branches(struct http_context *context, struct http_request *request)
{
    struct question question;
    struct page page;
    struct errmsg msg = {0};
    if (!read_question(request, true, &question)) {
        return;
    }
    question.project_ids = request_query_list(request, "project_ids");
    question.branch_ids = request_query_list(request, "branch_ids");
    question.metrics = request_query_list(request, "metrics");
    if (page_of(request, 100, BRANCHES_MAX, &page, &msg) != ERR_OK) {
        http_respond_problem(request, 400, "BAD_REQUEST", msg.text);
        return;
    }
    struct selection *selection = MEM_NEW(struct selection);
    FOR_EACH_PROJECT(api_of(context)->model, project)
    {
        if (!project_is_shown(project) || !is_in_list(question.project_ids, project->row.id)) {
            continue;
        }
        FOR_EACH_BRANCH(project, branch)
        {
            if (branch_is_shown(branch) && branch->row.seq > page.after &&
                is_in_list(question.branch_ids, branch->row.id)) {
                select_branch(selection, &page, branch);
            }
        }
    }
    struct doc *array = doc_array(), *doc = doc_set(doc_object(), "branches", array);
    for (size_t i = 0; i < selection->count; i++) {
        doc_push(array, view_branch(&question, selection->branches[i]));
    }
    if (selection->count > 0) {
        set_cursor(doc, "cursor", selection->branches[selection->count - 1]->row.seq);
    }
    mem_free(selection);
    http_respond_json(request, 200, doc);
}

/* ---- all of them together ---- */

/* Periods in order of time; there are few of them, however many projects. */
struct sums {
    struct usage_row rows[USAGE_ROWS_MAX];
    size_t count;
};

static void add_usage(struct sums *sums, const struct usage_row *row)
{
    size_t at = sums->count;
    while (at > 0 && sums->rows[at - 1].begin > row->begin) {
        at--;
    }
    if (at == 0 || sums->rows[at - 1].begin != row->begin) {
        if (sums->count == USAGE_ROWS_MAX) {
            return; /* a project has no more periods than that */
        }
        memmove(&sums->rows[at + 1], &sums->rows[at], (sums->count - at) * sizeof sums->rows[0]);
        sums->rows[at] = (struct usage_row){.begin = row->begin, .granularity = row->granularity};
        sums->count++;
        at++;
    }
    sums->rows[at - 1].active_ms += row->active_ms;
    sums->rows[at - 1].compute_ms += row->compute_ms;
    sums->rows[at - 1].written_bytes += row->written_bytes;
}

static void get_account(struct http_context *context, struct http_request *request)
{
    struct api *api = api_of(context);
    struct question question;
    if (!read_question(request, false, &question)) {
        return;
    }
    struct sums *sums = MEM_NEW(struct sums);
    FOR_EACH_PROJECT(api->model, project)
    {
        FOR_EACH_USAGE(project, usage)
        {
            if (is_in(&question, &usage->row)) {
                add_usage(sums, &usage->row);
            }
        }
    }
    struct doc *frames = doc_array();
    for (size_t i = 0; i < sums->count; i++) {
        doc_push(frames, view_frame(&question, &sums->rows[i]));
    }
    mem_free(sums);
    http_respond_json(
        request, 200,
        doc_set(doc_object(), "periods", periods_of(api->model->image.created_at, frames)));
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
