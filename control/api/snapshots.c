/*
 * snapshots.c - a branch as it was at a moment, kept under a name.
 *
 * A snapshot is a branch that nobody sees and nobody writes to: it begins at the LSN, so GC keeps
 * what it shows for as long as it is there, whatever the project's retention says, and what follows
 * from it (a restore) is a child of it like any other. A branch that has snapshots, or a snapshot
 * that something was restored from, is retired when it is deleted: it goes with the last of them.
 */
#include <stdio.h>

#include "common/base/clock.h"
#include "common/base/parse.h"
#include "common/base/str.h"
#include "control/api/api_private.h"
#include "control/api/branch_start.h"
#include "control/model/name.h"

#define SNAPSHOTS_PER_PROJECT_MAX 2000

struct compact_time compact_time(wall_us_t time)
{
    struct time_text full = time_text(time);
    struct compact_time compact = {0};
    size_t size = 0;
    for (const char *at = full.text; *at != '\0' && *at != '.'; at++) {
        if (*at != '-' && *at != ':' && *at != 'Z' && size + 2 < sizeof compact.text) {
            compact.text[size++] = *at;
        }
    }
    compact.text[size] = 'Z';
    return compact;
}

err_t find_snapshot(
    const struct api *api,
    const char *project_id,
    const char *id,
    struct branch **ret_snapshot,
    struct errmsg *msg)
{
    struct project *project = NULL;
    TRY(find_project(api, project_id, &project, msg));
    struct branch *snapshot = model_branch(api->model, id);
    if (snapshot == NULL || snapshot->project != project || !snapshot_is_shown(snapshot)) {
        return err_set(msg, ERR_NOT_FOUND, "snapshot %s not found in project %s", id, project_id);
    }
    *ret_snapshot = snapshot;
    return ERR_OK;
}

struct doc *view_snapshot(const struct branch *snapshot)
{
    const struct branch_row *row = &snapshot->row;
    struct doc *doc = doc_set_str(doc_object(), "id", row->id);
    doc_set_str(doc, "project_id", row->project_id);
    doc_set_str(doc, "name", row->snapshot_name);
    doc_set_str(doc, "source_branch_id", row->source_branch_id);
    doc_set_lsn(doc, "lsn", row->start_lsn);
    doc_set_time(
        doc, "timestamp", row->parent_timestamp != 0 ? row->parent_timestamp : row->created_at);
    doc_set_bool(doc, "manual", row->is_manual);
    doc_set_str(doc, "state", row->state == BRANCH_INIT ? "init" : "ready");
    if (row->expires_at != 0) {
        doc_set_time(doc, "expires_at", row->expires_at);
    }
    doc_set_time(doc, "created_at", row->created_at);
    return doc;
}

/* ---- create ---- */

static const struct branch *snapshot_named(const struct project *project, const char *name)
{
    FOR_EACH_BRANCH(project, branch)
    {
        if (snapshot_is_shown(branch) && strcmp(branch->row.snapshot_name, name) == 0) {
            return branch;
        }
    }
    return NULL;
}

static err_t check_snapshot_name(
    struct mutation *mutation, const struct project *project, const char *name, struct errmsg *msg)
{
    TRY(check_name(mutation, "snapshot", name, msg));
    if (snapshot_named(project, name) != NULL) {
        return mutation_refuse(
            mutation, 409, "SNAPSHOT_ALREADY_EXISTS", msg, "snapshot \"%s\" already exists", name);
    }
    return ERR_OK;
}

static err_t check_room(
    struct mutation *mutation, const struct project *project, struct errmsg *msg)
{
    size_t count = 0;
    FOR_EACH_BRANCH(project, branch)
    {
        count += branch->row.is_snapshot;
    }
    if (count >= SNAPSHOTS_PER_PROJECT_MAX) {
        return mutation_refuse(
            mutation, 422, "SNAPSHOTS_LIMIT_EXCEEDED", msg, "a project has at most %d snapshots",
            SNAPSHOTS_PER_PROJECT_MAX);
    }
    return ERR_OK;
}

err_t put_snapshot(
    struct mutation *mutation,
    const struct branch *source,
    struct branch_row *row,
    struct errmsg *msg)
{
    struct branch *parent = NULL;
    TRY(branch_start_parent(mutation, &parent, msg));
    TRY(check_room(mutation, source->project, msg));
    TRY(check_branch_quota(mutation, msg));
    TRY(choose_safekeepers(mutation, &row->safekeepers, msg));
    name_snapshot(row->id);
    memcpy(row->name, row->id, sizeof row->id);
    memcpy(row->project_id, source->row.project_id, sizeof row->project_id);
    memcpy(row->parent_id, parent->row.id, sizeof row->parent_id);
    memcpy(row->source_branch_id, source->row.id, sizeof row->source_branch_id);
    row->state = BRANCH_INIT;
    row->timeline = name_timeline();
    row->start_lsn = mutation->start_lsn;
    row->parent_timestamp = mutation->parent_timestamp;
    row->membership_generation = 1;
    row->state_changed_at = clock_wall();
    row->is_ephemeral = row->is_snapshot = true;
    row->roles = source->row.roles; /* borrowed: mutation_put takes its own references */
    row->databases = source->row.databases;
    row->dropped = source->row.dropped;
    mutation_put(mutation, ROW_BRANCH, row);
    mutation_operation(mutation, row->project_id, ACTION_CREATE_BRANCH, row->id, "");
    return ERR_OK;
}

static err_t read_expiry(
    struct mutation *mutation, const char *text, wall_us_t *ret_time, struct errmsg *msg)
{
    if (parse_time(text, ret_time, msg) != ERR_OK) {
        return err_wrap(msg, ERR_INVALID, "expires_at");
    }
    if (*ret_time <= api_now(mutation->api)) {
        return mutation_refuse(
            mutation, 400, "BAD_REQUEST", msg, "expires_at %s is in the past", text);
    }
    return ERR_OK;
}

/* The second one of a second gets a number. */
static void name_by_time(
    const struct mutation *mutation, const struct branch *source, row_text_t ret_name)
{
    struct compact_time now = compact_time(api_now(mutation->api));
    int prefix = str_prefix(source->row.name, 90);
    snprintf(ret_name, sizeof(row_text_t), "%.*s_%s", prefix, source->row.name, now.text);
    for (unsigned n = 2; snapshot_named(source->project, ret_name) != NULL; n++) {
        snprintf(ret_name, sizeof(row_text_t), "%.*s_%s_%u", prefix, source->row.name, now.text, n);
    }
}

static err_t decide_create(struct mutation *mutation, struct errmsg *msg)
{
    struct branch *source = NULL;
    struct branch_row row = {.is_manual = true};
    const char *name = request_query(mutation->request, "name");
    const char *expires_at = request_query(mutation->request, "expires_at");
    TRY(find_branch(mutation->api, mutation->project_id, mutation->branch_id, &source, msg));
    if (expires_at != NULL) {
        TRY(read_expiry(mutation, expires_at, &row.expires_at, msg));
    }
    if (name == NULL) {
        name_by_time(mutation, source, row.snapshot_name);
    } else {
        TRY(check_snapshot_name(mutation, source->project, name, msg));
        snprintf(row.snapshot_name, sizeof row.snapshot_name, "%s", name);
    }
    TRY(put_snapshot(mutation, source, &row, msg));
    memcpy(mutation->branch_id, row.id, sizeof row.id);
    return ERR_OK;
}

static struct doc *answer_snapshot(struct mutation *mutation)
{
    const struct branch *snapshot = model_branch(mutation->api->model, mutation->branch_id);
    struct doc *doc = doc_set(doc_object(), "snapshot", view_snapshot(snapshot));
    return doc_set(doc, "operations", view_operations_of(mutation));
}

/* What the request says stands behind the `?`. */
static void take_query(struct mutation *mutation, const char *key)
{
    const char *value = request_query(mutation->request, key);
    if (value != NULL) {
        doc_set_str(mutation->body, key, value);
    }
}

static void post_snapshot(struct http_context *context, struct http_request *request)
{
    static const struct branch_start_keys keys = {
        .parent = "branch_id", .lsn = "lsn", .time = "timestamp"};
    struct mutation *mutation =
        mutation_create(context, request, decide_create, answer_snapshot, 200);
    if (mutation == NULL) {
        return;
    }
    doc_set_str(mutation->body, "branch_id", mutation->branch_id);
    take_query(mutation, "lsn");
    take_query(mutation, "timestamp");
    branch_start_find(mutation, &keys); /* then mutation_submit */
}

/* ---- list, rename, delete ---- */

static void list_snapshots(struct http_context *context, struct http_request *request)
{
    const struct project *project = request_project(api_of(context), request);
    struct page page;
    struct errmsg msg = {0};
    if (project == NULL) {
        return;
    }
    if (page_of(request, UINT64_MAX, 10000, &page, &msg) != ERR_OK) {
        http_respond_problem(request, 400, "BAD_REQUEST", msg.text);
        return;
    }
    struct doc *array = doc_array();
    uint64_t last = 0;
    bool more = false;
    FOR_EACH_BRANCH(project, branch)
    {
        if (branch->row.seq > page.after && snapshot_is_shown(branch)) {
            more = doc_count(array) >= page.limit;
            if (more) {
                break;
            }
            doc_push(array, view_snapshot(branch));
            last = branch->row.seq;
        }
    }
    struct doc *doc = doc_set(doc_object(), "snapshots", array);
    if (more && last != 0) {
        set_cursor(doc, "next", last);
    }
    http_respond_json(request, 200, doc);
}

static void get_snapshot(struct http_context *context, struct http_request *request)
{
    struct branch *snapshot = NULL;
    struct errmsg msg = {0};
    if (find_snapshot(
            api_of(context), http_request_param(request, "project"),
            http_request_param(request, "snapshot"), &snapshot, &msg) != ERR_OK) {
        answer_not_found(request, &msg);
        return;
    }
    respond_with_etag(
        request, HEAD_OF(snapshot), doc_set(doc_object(), "snapshot", view_snapshot(snapshot)));
}

static err_t update_expiry(
    struct mutation *mutation, const struct doc *wish, struct branch_row *row, struct errmsg *msg)
{
    const struct doc *value = doc_get(wish, "expires_at");
    const char *text = NULL;
    if (value == NULL) {
        return ERR_OK;
    }
    if (doc_is_null(value)) {
        row->expires_at = 0;
        return ERR_OK;
    }
    TRY(doc_get_str(wish, "expires_at", &text, msg));
    return read_expiry(mutation, text, &row->expires_at, msg);
}

static err_t decide_update(struct mutation *mutation, struct errmsg *msg)
{
    struct branch *snapshot = NULL;
    struct doc *wish = NULL;
    TRY(find_snapshot(mutation->api, mutation->project_id, mutation->branch_id, &snapshot, msg));
    TRY(doc_get_object(mutation->body, "snapshot", &wish, msg));
    TRY(check_if_match(mutation, HEAD_OF(snapshot), msg));
    struct branch_row row = snapshot->row;
    const char *name = snapshot->row.snapshot_name;
    TRY(doc_opt_str(wish, "name", &name, msg));
    TRY(update_expiry(mutation, wish, &row, msg));
    if (strcmp(name, snapshot->row.snapshot_name) != 0) {
        TRY(check_snapshot_name(mutation, snapshot->project, name, msg));
        snprintf(row.snapshot_name, sizeof row.snapshot_name, "%s", name);
    }
    mutation_put(mutation, ROW_BRANCH, &row);
    return ERR_OK;
}

static err_t decide_delete(struct mutation *mutation, struct errmsg *msg)
{
    struct branch *snapshot = NULL;
    TRY(find_snapshot(mutation->api, mutation->project_id, mutation->branch_id, &snapshot, msg));
    TRY(check_if_match(mutation, HEAD_OF(snapshot), msg));
    struct branch_row row = snapshot->row;
    branch_take_leave(snapshot, &row); /* what was restored from it stays */
    row.state_changed_at = clock_wall();
    mutation_cancel_running(mutation, &snapshot->running);
    mutation_put(mutation, ROW_BRANCH, &row);
    if (!row.is_retired) {
        mutation_operation(mutation, row.project_id, ACTION_DELETE_TIMELINE, row.id, "");
    }
    return ERR_OK;
}

static void start_mutation(
    struct http_context *context,
    struct http_request *request,
    mutation_decide_fn decide,
    unsigned ok_status)
{
    struct mutation *mutation =
        mutation_create(context, request, decide, answer_snapshot, ok_status);
    if (mutation != NULL) {
        snprintf(
            mutation->branch_id, sizeof mutation->branch_id, "%s",
            http_request_param(request, "snapshot"));
        mutation_submit(mutation);
    }
}

static void patch_snapshot(struct http_context *context, struct http_request *request)
{
    start_mutation(context, request, decide_update, 200);
}

static void delete_snapshot(struct http_context *context, struct http_request *request)
{
    start_mutation(context, request, decide_delete, 202);
}

#define P "/api/v2/projects/{project}"
const struct http_route snapshot_routes[] = {
    ROUTE(
        "POST",
        P "/branches/{branch}/snapshot",
        post_snapshot,
        "?name=&lsn= or timestamp=&expires_at=: keep the branch as it is or was"),
    ROUTE("GET", P "/snapshots", list_snapshots, "snapshots; limit, cursor"),
    ROUTE("GET", P "/snapshots/{snapshot}", get_snapshot, "one snapshot"),
    ROUTE("PATCH", P "/snapshots/{snapshot}", patch_snapshot, "name, expires_at"),
    ROUTE("DELETE", P "/snapshots/{snapshot}", delete_snapshot, "delete; what was restored stays"),
};
const size_t snapshot_route_count = ARRAY_LEN(snapshot_routes);
