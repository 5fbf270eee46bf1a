/* projects.c - projects: create, list, get, update, delete. */
#include <stdio.h>

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "control/api/access.h"
#include "control/api/allowed_ips.h"
#include "control/api/api_private.h"
#include "control/model/name.h"

#define RETENTION_DEFAULT_S 86400
#define RETENTION_MAX_S     3024000 /* 35 days */

/* ---- create ---- */

/* The root's one role and database: [{"name","password"}], [{"name","owner"}]. */
static err_t first_role_and_database(
    struct mutation *mutation, const struct doc *wish, struct branch_row *row, struct errmsg *msg)
{
    const char *role = "app", *database = "app";
    TRY(doc_opt_str(wish, "role_name", &role, msg));
    TRY(doc_opt_str(wish, "database_name", &database, msg));
    TRY(check_role_name(mutation, role, msg));
    TRY(check_database_name(mutation, database, msg));
    row->roles = doc_push(doc_array(), new_role(role));
    row->databases = doc_push(doc_array(), new_database(database, role));
    return ERR_OK;
}

static err_t put_root(
    struct mutation *mutation,
    const struct project_row *project,
    const struct doc *wish,
    struct errmsg *msg)
{
    const char *name = "main";
    struct branch_row row = {
        .state = BRANCH_INIT,
        .timeline = name_timeline(),
        .start_lsn = mutation->api->model->image.start_lsn, /* 0: set when the image is made */
        .is_default = true,
        .membership_generation = 1,
        .state_changed_at = clock_wall(),
    };
    TRY(doc_opt_str(wish, "name", &name, msg));
    TRY(check_name(mutation, "branch", name, msg));
    TRY(choose_safekeepers(mutation, &row.safekeepers, msg));
    name_branch(row.id);
    snprintf(row.name, sizeof row.name, "%s", name);
    snprintf(row.project_id, sizeof row.project_id, "%s", project->id);
    TRY(first_role_and_database(mutation, wish, &row, msg));
    mutation_put(mutation, ROW_BRANCH, &row);
    memcpy(mutation->branch_id, row.id, sizeof row.id);
    mutation_operation(mutation, project->id, ACTION_CREATE_TIMELINE, row.id, "");
    const struct doc *endpoint_wish = NULL;
    err_t err = wish_of(
        doc_get(mutation->body, "project"), "default_endpoint_settings", &endpoint_wish, msg);
    if (err == ERR_OK) {
        err = put_new_endpoint(mutation, &row, endpoint_wish, msg);
    }
    row_unref(ROW_BRANCH, &row);
    return err;
}

static err_t check_retention(
    struct mutation *mutation, const struct project_row *row, struct errmsg *msg)
{
    if (row->history_retention_seconds > RETENTION_MAX_S) {
        return mutation_refuse(
            mutation, 400, "RETENTION_INVALID", msg, "history_retention_seconds: expected 0 to %d",
            RETENTION_MAX_S);
    }
    return ERR_OK;
}

static err_t fill_project(
    struct mutation *mutation, const struct doc *wish, struct project_row *row, struct errmsg *msg)
{
    const struct api *api = mutation->api;
    const char *name = NULL, *region = api->options.region_id;
    const struct node *pageserver = place_on(api->model, api->nodes, NODE_PAGESERVER);
    row->pg_version = api->options.pg_version;
    row->history_retention_seconds = RETENTION_DEFAULT_S;
    TRY(doc_opt_str(wish, "name", &name, msg));
    TRY(doc_opt_str(wish, "region_id", &region, msg));
    TRY(doc_opt_u64(wish, "pg_version", &row->pg_version, msg));
    TRY(doc_opt_u64(wish, "history_retention_seconds", &row->history_retention_seconds, msg));
    if (row->pg_version != api->options.pg_version) {
        return mutation_refuse(
            mutation, 400, "PG_VERSION_UNSUPPORTED", msg,
            "pg_version %" PRIu64 " is not supported, only %" PRIu64, row->pg_version,
            api->options.pg_version);
    }
    TRY(check_retention(mutation, row, msg));
    if (pageserver == NULL) {
        return mutation_refuse(
            mutation, 503, "NO_PAGESERVER", msg,
            "the cluster has no pageserver: set `pageservers` of control");
    }
    name_project(row->id);
    if (model_project(api->model, row->id) != NULL) {
        return mutation_refuse(mutation, 503, "TRY_AGAIN", msg, "two ids collided, try again");
    }
    TRY(check_name(mutation, "project", name == NULL ? row->id : name, msg));
    snprintf(row->name, sizeof row->name, "%s", name == NULL ? row->id : name);
    snprintf(row->region_id, sizeof row->region_id, "%s", region);
    snprintf(row->system_id, sizeof row->system_id, "%s", api->model->image.system_id);
    snprintf(row->bootstrap_object, sizeof row->bootstrap_object, "%s", api->model->image.object);
    snprintf(row->incarnation, sizeof row->incarnation, "%s", pageserver->incarnation);
    row->tenant = name_tenant();
    row->pageserver = pageserver->id;
    row->generation = 1;
    return ERR_OK;
}

static err_t check_settings(
    struct mutation *mutation, const struct doc *settings, struct errmsg *msg)
{
    struct errmsg why;
    if (allowed_ips_check(doc_get(settings, "allowed_ips"), &why) != ERR_OK) {
        return mutation_refuse(mutation, 400, "INVALID", msg, "settings.allowed_ips%s", why.text);
    }
    return ERR_OK;
}

static err_t decide_create(struct mutation *mutation, struct errmsg *msg)
{
    const struct doc *wish = NULL, *branch_wish = NULL;
    struct project_row row = {.state = PROJECT_ACTIVE};
    TRY(wish_of(mutation->body, "project", &wish, msg));
    TRY(wish_of(wish, "branch", &branch_wish, msg));
    TRY(check_branch_quota(mutation, msg));
    TRY(fill_project(mutation, wish, &row, msg));
    TRY(check_settings(mutation, doc_get(wish, "settings"), msg));
    row.settings = doc_get(wish, "settings"); /* borrowed: mutation_put takes its own reference */
    mutation_put(mutation, ROW_PROJECT, &row);
    memcpy(mutation->project_id, row.id, sizeof row.id);
    return put_root(mutation, &row, branch_wish, msg);
}

static struct doc *answer_create(struct mutation *mutation)
{
    const struct api *api = mutation->api;
    const struct project *project = model_project(api->model, mutation->project_id);
    const struct branch *branch = model_branch(api->model, mutation->branch_id);
    struct doc *doc = doc_set(doc_object(), "project", view_project_doc(api, project));
    doc_set(doc, "connection_uris", view_connection_uris(api, branch));
    doc_set(doc, "roles", view_roles(branch));
    doc_set(doc, "databases", view_databases(branch));
    doc_set(doc, "operations", view_operations_of(mutation));
    doc_set(doc, "branch", view_branch_doc(api, branch));
    return doc_set(doc, "endpoints", view_endpoints_of(api, branch));
}

static void post_project(struct http_context *context, struct http_request *request)
{
    mutation_start(context, request, decide_create, answer_create, 201);
}

/* ---- read ---- */

static void list_projects(struct http_context *context, struct http_request *request)
{
    struct api *api = api_of(context);
    struct page page;
    struct errmsg msg = {0};
    const char *search = request_query(request, "search");
    const struct api_key *key = request_key(api, request);
    bool deleted = request_says(request, "recoverable");
    if (page_of(request, 10, 400, &page, &msg) != ERR_OK) {
        http_respond_problem(request, 400, "BAD_REQUEST", msg.text);
        return;
    }
    struct doc *array = doc_array();
    uint64_t last = 0;
    FOR_EACH_PROJECT(api->model, project)
    {
        bool is_seen = key == NULL || key->row.project_id[0] == '\0' ||
                       strcmp(key->row.project_id, project->row.id) == 0;
        bool fits = is_seen &&
                    (deleted ? project_is_recoverable(project) : project_is_shown(project)) &&
                    (search == NULL || strstr(project->row.name, search) != NULL ||
                     strstr(project->row.id, search) != NULL);
        if (project->row.seq > page.after && fits && doc_count(array) < page.limit) {
            doc_push(array, view_project_doc(api, project));
            last = project->row.seq;
        }
    }
    struct doc *doc = doc_set(doc_object(), "projects", array);
    doc_set(doc, "applications", doc_object());
    doc_set(doc, "integrations", doc_object());
    if (last != 0) { /* a full page without a cursor makes some clients loop for ever */
        set_cursor(doc, "cursor", last);
    }
    http_respond_json(request, 200, doc);
}

static void get_shared(struct http_context *context, struct http_request *request)
{
    (void)context;
    http_respond_json(request, 200, doc_set(doc_object(), "projects", doc_array()));
}

static void get_project(struct http_context *context, struct http_request *request)
{
    struct api *api = api_of(context);
    struct project *project = request_project(api, request);
    if (project != NULL) {
        struct doc *view = view_project_doc(api, project);
        respond_with_etag(request, HEAD_OF(project), doc_set(doc_object(), "project", view));
    }
}

/* ---- update ---- */

static err_t decide_update(struct mutation *mutation, struct errmsg *msg)
{
    struct project *project = NULL;
    const struct doc *wish = NULL;
    TRY(wish_of(mutation->body, "project", &wish, msg));
    TRY(find_project(mutation->api, mutation->project_id, &project, msg));
    TRY(check_if_match(mutation, HEAD_OF(project), msg));
    struct project_row row = project->row;
    const char *name = project->row.name;
    TRY(doc_opt_str(wish, "name", &name, msg));
    TRY(doc_opt_u64(wish, "history_retention_seconds", &row.history_retention_seconds, msg));
    TRY(check_retention(mutation, &row, msg));
    if (strcmp(name, project->row.name) != 0) { /* it may be older than the rules for names */
        TRY(check_name(mutation, "project", name, msg));
        snprintf(row.name, sizeof row.name, "%s", name);
    }
    if (doc_get(wish, "settings") != NULL) {
        TRY(check_settings(mutation, doc_get(wish, "settings"), msg));
        row.settings = doc_get(wish, "settings");
    }
    mutation_put(mutation, ROW_PROJECT, &row);
    return ERR_OK;
}

static struct doc *answer_project(struct mutation *mutation)
{
    const struct project *project = model_project(mutation->api->model, mutation->project_id);
    struct doc *doc = doc_set(doc_object(), "project", view_project_doc(mutation->api, project));
    return doc_set(doc, "operations", view_operations_of(mutation));
}

static void start_on_project(
    struct http_context *context, struct http_request *request, mutation_decide_fn decide)
{
    mutation_start(context, request, decide, answer_project, 200);
}

static void patch_project(struct http_context *context, struct http_request *request)
{
    start_on_project(context, request, decide_update);
}

/* ---- delete ---- */

/* Everything leaves in one commit; the reconciler takes it away in order. */
static void put_deletion(struct mutation *mutation, struct project *project)
{
    struct project_row row = project->row;
    row.state = PROJECT_DELETING;
    row.recoverable_until = 0;
    mutation_put(mutation, ROW_PROJECT, &row);
    mutation_cancel_running(mutation, &project->running);
    mutation_operation(mutation, row.id, ACTION_TENANT_DETACH, "", "");
    FOR_EACH_ENDPOINT(project, endpoint)
    {
        if (endpoint_is_live(endpoint)) {
            mutation_cancel_running(mutation, &endpoint->running);
            put_endpoint_deletion(mutation, endpoint);
        }
    }
    FOR_EACH_BRANCH(project, branch)
    {
        if (branch_is_live(branch)) {
            struct branch_row leaving = branch->row;
            leaving.state = BRANCH_DELETING;
            leaving.state_changed_at = clock_wall();
            mutation_cancel_running(mutation, &branch->running);
            mutation_put(mutation, ROW_BRANCH, &leaving);
        }
    }
}

/* With hard_delete also one that could still be recovered. */
static err_t decide_delete(struct mutation *mutation, struct errmsg *msg)
{
    struct project *project = model_project(mutation->api->model, mutation->project_id);
    bool is_hard = is_hard_delete(mutation);
    if (project == NULL || !is_hard || !project_is_recoverable(project)) {
        TRY(find_project(mutation->api, mutation->project_id, &project, msg));
    }
    TRY(check_if_match(mutation, HEAD_OF(project), msg));
    if (is_hard) {
        put_deletion(mutation, project);
    } else {
        put_project_aside(mutation, project);
    }
    return ERR_OK;
}

static void delete_project(struct http_context *context, struct http_request *request)
{
    start_on_project(context, request, decide_delete);
}

const struct http_route project_routes[] = {
    ROUTE("GET", "/api/v2/projects", list_projects, "list projects; limit, cursor, search"),
    ROUTE("POST", "/api/v2/projects", post_project, "create a project with branch and endpoint"),
    ROUTE("GET", "/api/v2/projects/shared", get_shared, "always empty"),
    ROUTE("GET", "/api/v2/projects/{project}", get_project, "one project"),
    ROUTE("PATCH", "/api/v2/projects/{project}", patch_project, "rename, settings"),
    ROUTE("DELETE", "/api/v2/projects/{project}", delete_project, "delete with all branches"),
};
const size_t project_route_count = ARRAY_LEN(project_routes);
