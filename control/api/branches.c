/*
 * branches.c - branches: create, list, get, update, set as default, delete.
 *
 * Creating: parent and LSN first (branch_start.c: it may ask safekeepers and the pageserver), then
 * one commit of the branch with its LSN, its endpoints and operations. The parent may have changed
 * in between, so the commit checks it again.
 */
#include <stdio.h>

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/parse.h"
#include "control/api/access.h"
#include "control/api/api_private.h"
#include "control/api/branch_start.h"
#include "control/model/name.h"

#define BRANCHES_PER_PROJECT_MAX 200000
#define SIZES_TIMEOUT_MS         2000

err_t check_one_line(
    struct mutation *mutation, const char *what, const char *name, struct errmsg *msg)
{
    return str_has_control(name) ? mutation_refuse(
                                       mutation, 400, "NAME_INVALID", msg,
                                       "%s name: expected no control characters", what)
                                 : ERR_OK;
}

err_t check_name(struct mutation *mutation, const char *what, const char *name, struct errmsg *msg)
{
    if (name[0] == '\0' || strlen(name) >= sizeof(row_text_t)) {
        return mutation_refuse(
            mutation, 400, "NAME_INVALID", msg, "%s name: expected 1 to %zu bytes", what,
            sizeof(row_text_t) - 1);
    }
    return check_one_line(mutation, what, name, msg);
}

/* ---- create: the commit ---- */

err_t check_branch_name_is_free(
    struct mutation *mutation, const struct project *project, const char *name, struct errmsg *msg)
{
    if (project_branch_named(project, name) != NULL) {
        return mutation_refuse(
            mutation, 409, "BRANCH_ALREADY_EXISTS", msg, "branch \"%s\" already exists", name);
    }
    return ERR_OK;
}

err_t check_branch_name(
    struct mutation *mutation, const struct project *project, const char *name, struct errmsg *msg)
{
    TRY(check_name(mutation, "branch", name, msg));
    return check_branch_name_is_free(mutation, project, name, msg);
}

err_t check_new_branch(
    struct mutation *mutation, const struct project *project, const char *name, struct errmsg *msg)
{
    TRY(check_branch_name(mutation, project, name, msg));
    TRY(check_branch_quota(mutation, msg));
    if (project->branch_count >= BRANCHES_PER_PROJECT_MAX) {
        return mutation_refuse(
            mutation, 422, "BRANCHES_LIMIT_EXCEEDED", msg, "a project has at most %d branches",
            BRANCHES_PER_PROJECT_MAX);
    }
    return ERR_OK;
}

static err_t fill_branch(
    struct mutation *mutation,
    const struct branch *parent,
    struct branch_row *row,
    struct errmsg *msg)
{
    const struct doc *wish = NULL;
    const char *name = row->id, *expires_at = NULL;
    TRY(wish_of(mutation->body, "branch", &wish, msg));
    TRY(doc_opt_str(wish, "name", &name, msg));
    TRY(doc_opt_str(wish, "expires_at", &expires_at, msg));
    TRY(doc_opt_bool(wish, "protected", &row->is_protected, msg));
    if (expires_at != NULL) {
        TRY(parse_time(expires_at, &row->expires_at, msg));
    }
    TRY(check_new_branch(mutation, parent->project, name, msg));
    snprintf(row->name, sizeof row->name, "%s", name);
    memcpy(row->project_id, parent->row.project_id, sizeof row->project_id);
    memcpy(row->parent_id, parent->row.id, sizeof row->parent_id);
    row->roles = parent->row.roles; /* borrowed: mutation_put takes its own references */
    row->databases = parent->row.databases;
    row->dropped = parent->row.dropped;
    return choose_safekeepers(mutation, &row->safekeepers, msg);
}

static err_t put_endpoints(
    struct mutation *mutation, const struct branch_row *branch, struct errmsg *msg)
{
    const struct doc *wishes = doc_get(mutation->body, "endpoints");
    if (doc_count(wishes) > 1) {
        return mutation_refuse(
            mutation, 400, "BAD_REQUEST", msg,
            "endpoints: a branch has one read_write endpoint, others are not supported yet");
    }
    for (size_t i = 0; i < doc_count(wishes); i++) {
        if (!doc_is_object(doc_at(wishes, i))) {
            return mutation_refuse(
                mutation, 400, "BAD_REQUEST", msg, "endpoints: expected a list of objects");
        }
        TRY(put_new_endpoint(mutation, branch, doc_at(wishes, i), msg));
    }
    return ERR_OK;
}

static err_t decide_create(struct mutation *mutation, struct errmsg *msg)
{
    struct branch *parent = NULL;
    TRY(branch_start_parent(mutation, &parent, msg));
    struct branch_row row = {
        .state = BRANCH_INIT,
        .timeline = name_timeline(),
        .start_lsn = mutation->start_lsn,
        .parent_timestamp = mutation->parent_timestamp,
        .membership_generation = 1,
        .state_changed_at = clock_wall(),
    };
    name_branch(row.id);
    TRY(fill_branch(mutation, parent, &row, msg));
    memcpy(mutation->branch_id, row.id, sizeof row.id);
    mutation_put(mutation, ROW_BRANCH, &row);
    mutation_operation(mutation, row.project_id, ACTION_CREATE_BRANCH, row.id, "");
    return put_endpoints(mutation, &row, msg);
}

static struct doc *answer_create(struct mutation *mutation)
{
    const struct api *api = mutation->api;
    const struct branch *branch = model_branch(api->model, mutation->branch_id);
    struct doc *doc = doc_set(doc_object(), "branch", view_branch_doc(api, branch));
    doc_set(doc, "endpoints", view_endpoints_of(api, branch));
    doc_set(doc, "operations", view_operations_of(mutation));
    doc_set(doc, "roles", view_roles(branch));
    doc_set(doc, "databases", view_databases(branch));
    return doc_set(doc, "connection_uris", view_connection_uris(api, branch));
}

static void post_branch(struct http_context *context, struct http_request *request)
{
    struct mutation *mutation =
        mutation_create(context, request, decide_create, answer_create, 201);
    if (mutation != NULL) {
        static const struct branch_start_keys keys = {
            .object = "branch",
            .parent = "parent_id",
            .lsn = "parent_lsn",
            .time = "parent_timestamp"};
        branch_start_find(mutation, &keys); /* then mutation_submit */
    }
}

/* ---- read ---- */

/* The sizes come from the pageserver; without its answer the rest is still true. */
struct branch_get {
    struct api *api;
    struct http_request *request;
    struct node_call call;
};

static void answer_branch_get(const struct branch_get *get, const struct doc *timeline)
{
    struct branch *branch = request_branch(get->api, get->request);
    uint64_t logical, physical;
    if (branch == NULL) {
        return; /* deleted meanwhile; answered */
    }
    struct doc *view = view_branch_doc(get->api, branch);
    if (timeline != NULL && doc_get_u64(timeline, "logical_bytes", &logical, NULL) == ERR_OK &&
        doc_get_u64(timeline, "physical_bytes", &physical, NULL) == ERR_OK) {
        doc_set_int(view, "logical_size", (int64_t)logical);
        doc_set_int(view, "physical_size", (int64_t)physical);
    } /* otherwise as it was measured last, if it was */
    struct doc *doc = doc_set(doc_object(), "branch", view);
    struct doc *object = doc_set_str(doc_object(), "type", "console/branch");
    doc_set_str(object, "id", branch->row.id);
    struct doc *annotation = doc_set(doc_object(), "object", object);
    doc_set(annotation, "value", doc_object()); /* nothing is noted about a branch */
    respond_with_etag(get->request, HEAD_OF(branch), doc_set(doc, "annotation", annotation));
}

static void on_sizes(struct node_call *call)
{
    struct branch_get *get = CONTAINER_OF(call, struct branch_get, call);
    if (!request_refuse_if_key_is_gone(get->api, get->request)) {
        answer_branch_get(get, call->status == 200 ? call->body : NULL);
    }
    mem_free(get);
}

static void get_branch(struct http_context *context, struct http_request *request)
{
    struct api *api = api_of(context);
    struct branch *branch = request_branch(api, request);
    if (branch == NULL) {
        return;
    }
    struct branch_get *get = MEM_NEW(struct branch_get);
    *get = (struct branch_get){.api = api, .request = request, .call = {.done = on_sizes}};
    struct node *node = nodes_find(api->nodes, NODE_PAGESERVER, branch->project->row.pageserver);
    if (node == NULL || !node->reachable || branch->row.state != BRANCH_READY) {
        answer_branch_get(get, NULL);
        mem_free(get);
        return;
    }
    struct buf path = {0};
    rpc_path(
        &path, RPC_PAGESERVER_GET_TIMELINE, tenant_id_text(branch->project->row.tenant).text,
        timeline_id_text(branch->row.timeline).text);
    node_call_start(
        &get->call, node, RPC_PAGESERVER_GET_TIMELINE, buf_cstr(&path), NULL, SIZES_TIMEOUT_MS);
    buf_deinit(&path);
}

/* ---- update, set as default, delete ---- */

static struct doc *answer_branch(struct mutation *mutation)
{
    const struct branch *branch = model_branch(mutation->api->model, mutation->branch_id);
    struct doc *doc = doc_set(doc_object(), "branch", view_branch_doc(mutation->api, branch));
    return doc_set(doc, "operations", view_operations_of(mutation));
}

static void start_mutation(
    struct http_context *context, struct http_request *request, mutation_decide_fn decide)
{
    mutation_start(context, request, decide, answer_branch, 200);
}

/* null clears, absent keeps. */
static err_t update_expiry(const struct doc *wish, struct branch_row *row, struct errmsg *msg)
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
    return parse_time(text, &row->expires_at, msg);
}

static err_t decide_update(struct mutation *mutation, struct errmsg *msg)
{
    struct branch *branch = NULL;
    struct doc *wish = NULL;
    TRY(doc_get_object(mutation->body, "branch", &wish, msg));
    TRY(find_branch(mutation->api, mutation->project_id, mutation->branch_id, &branch, msg));
    TRY(check_if_match(mutation, HEAD_OF(branch), msg));
    struct branch_row row = branch->row;
    const char *name = branch->row.name;
    TRY(doc_opt_str(wish, "name", &name, msg));
    TRY(doc_opt_bool(wish, "protected", &row.is_protected, msg));
    TRY(update_expiry(wish, &row, msg));
    if (strcmp(name, branch->row.name) != 0) {
        TRY(check_branch_name(mutation, branch->project, name, msg));
        snprintf(row.name, sizeof row.name, "%s", name);
    }
    mutation_put(mutation, ROW_BRANCH, &row);
    return ERR_OK;
}

static err_t decide_default(struct mutation *mutation, struct errmsg *msg)
{
    struct branch *branch = NULL;
    TRY(find_branch(mutation->api, mutation->project_id, mutation->branch_id, &branch, msg));
    FOR_EACH_BRANCH(branch->project, other)
    {
        if (other->row.is_default != (other == branch) && branch_is_live(other)) {
            struct branch_row row = other->row;
            row.is_default = other == branch;
            mutation_put(mutation, ROW_BRANCH, &row);
        }
    }
    return ERR_OK;
}

static err_t check_deletion(
    struct mutation *mutation, const struct branch *branch, struct errmsg *msg)
{
    size_t children = branch_shown_children(branch);
    FOR_EACH_CHILD(branch, child)
    {
        if (child->row.is_ephemeral && !child->row.is_snapshot && branch_is_live(child)) {
            return mutation_refuse(
                mutation, 422, "BRANCH_HAS_CHILDREN", msg,
                "branch %s is shown by read_only endpoints: stop them first", branch->row.id);
        }
    }
    if (children > 0) {
        return mutation_refuse(
            mutation, 422, "BRANCH_HAS_CHILDREN", msg,
            "branch %s has %zu child branches, their history lies in it: delete them first",
            branch->row.id, children);
    }
    if (branch->row.is_default) {
        return mutation_refuse(
            mutation, 422, "BRANCH_IS_DEFAULT", msg,
            "branch %s is the default branch: make another one the default first, or delete the "
            "project",
            branch->row.id);
    }
    if (branch->row.is_protected) {
        return mutation_refuse(
            mutation, 422, "BRANCH_IS_PROTECTED", msg,
            "branch %s is protected: remove the protection first", branch->row.id);
    }
    return ERR_OK;
}

/* With hard_delete also one that could still be recovered. */
static err_t find_branch_to_delete(
    struct mutation *mutation, struct branch **ret_branch, struct errmsg *msg)
{
    struct project *project = NULL;
    struct branch *branch = model_branch(mutation->api->model, mutation->branch_id);
    TRY(find_project(mutation->api, mutation->project_id, &project, msg));
    if (is_hard_delete(mutation) && branch != NULL && branch->project == project &&
        branch_is_recoverable(branch)) {
        *ret_branch = branch;
        return ERR_OK;
    }
    return find_branch(mutation->api, mutation->project_id, mutation->branch_id, ret_branch, msg);
}

static err_t decide_delete(struct mutation *mutation, struct errmsg *msg)
{
    struct branch *branch = NULL;
    TRY(find_branch_to_delete(mutation, &branch, msg));
    TRY(check_if_match(mutation, HEAD_OF(branch), msg));
    TRY(check_deletion(mutation, branch, msg));
    if (!is_hard_delete(mutation) && branch_may_be_set_aside(branch)) {
        put_branch_aside(mutation, branch);
        return ERR_OK;
    }
    struct branch_row row = branch->row;
    branch_take_leave(branch, &row); /* snapshots of it stay */
    row.state_changed_at = clock_wall();
    mutation_cancel_running(mutation, &branch->running);
    put_deletion_of_endpoints(mutation, branch);
    mutation_put(mutation, ROW_BRANCH, &row);
    if (!row.is_retired) {
        mutation_operation(mutation, row.project_id, ACTION_DELETE_TIMELINE, row.id, "");
    }
    return ERR_OK;
}

static void patch_branch(struct http_context *context, struct http_request *request)
{
    start_mutation(context, request, decide_update);
}

static void post_default(struct http_context *context, struct http_request *request)
{
    start_mutation(context, request, decide_default);
}

static void delete_branch(struct http_context *context, struct http_request *request)
{
    start_mutation(context, request, decide_delete);
}

#define P "/api/v2/projects/{project}"
const struct http_route branch_routes[] = {
    ROUTE(
        "POST",
        P "/branches",
        post_branch,
        "create from a parent at its head, at parent_lsn or at parent_timestamp"),
    ROUTE("GET", P "/branches/{branch}", get_branch, "one branch"),
    ROUTE("PATCH", P "/branches/{branch}", patch_branch, "name, protected, expires_at"),
    ROUTE("DELETE", P "/branches/{branch}", delete_branch, "delete; not with children"),
    ROUTE("POST", P "/branches/{branch}/set_as_default", post_default, "make it the default"),
};
const size_t branch_route_count = ARRAY_LEN(branch_routes);
