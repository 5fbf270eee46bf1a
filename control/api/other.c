/*
 * other.c - who am I, connection URIs, what clients expect to be there, and /v1.
 */
#include "common/base/fault.h"
#include "common/base/mem.h"
#include "control/act/meter.h"
#include "control/api/api_private.h"

#define CLOCK_AHEAD_MAX_S ((uint64_t)100 * 366 * 24 * 3600)

/* ---- the one user ---- */

static void get_me(struct http_context *context, struct http_request *request)
{
    (void)context;
    struct doc *doc = doc_set_str(doc_object(), "id", USER_ID);
    doc_set_str(doc, "login", "admin");
    doc_set_str(doc, "email", "admin@localhost");
    doc_set_str(doc, "name", "Admin");
    doc_set_str(doc, "last_name", "");
    doc_set_str(doc, "image", "");
    doc_set_str(doc, "plan", "local");
    doc_set(doc, "auth_accounts", doc_array());
    doc_set_int(doc, "active_seconds_limit", 0);
    doc_set_int(doc, "branches_limit", -1);
    doc_set_int(doc, "max_autoscaling_limit", 1);
    http_respond_json(request, 200, doc_set_int(doc, "projects_limit", -1));
}

/* It is as old as the cluster: its bootstrap image is the first thing that is made. */
static struct doc *organization_doc(const struct api *api)
{
    struct doc *doc = doc_set_str(doc_object(), "id", ORGANIZATION_ID);
    doc_set_str(doc, "name", "local");
    doc_set_str(doc, "handle", "local");
    doc_set_str(doc, "plan", "local");
    doc_set_str(doc, "managed_by", "console");
    doc_set_time(doc, "created_at", api->model->image.created_at);
    doc_set_time(doc, "updated_at", api->model->image.updated_at);
    return doc;
}

static void get_organizations(struct http_context *context, struct http_request *request)
{
    struct doc *organization = organization_doc(api_of(context));
    http_respond_json(
        request, 200, doc_set(doc_object(), "organizations", doc_push(doc_array(), organization)));
}

static void get_organization(struct http_context *context, struct http_request *request)
{
    http_respond_json(request, 200, organization_doc(api_of(context)));
}

static void get_auth(struct http_context *context, struct http_request *request)
{
    (void)context;
    struct doc *doc = doc_set_str(doc_object(), "account_id", USER_ID);
    http_respond_json(request, 200, doc_set_str(doc, "auth_method", "api_key_user"));
}

static void get_regions(struct http_context *context, struct http_request *request)
{
    struct api *api = api_of(context);
    struct doc *region = doc_set_str(doc_object(), "region_id", api->options.region_id);
    doc_set_str(region, "name", api->options.region_id);
    doc_set_bool(region, "default", true);
    doc_set_str(region, "geo_lat", ""); /* nobody has said where the cluster stands */
    doc_set_str(region, "geo_long", "");
    http_respond_json(
        request, 200, doc_set(doc_object(), "regions", doc_push(doc_array(), region)));
}

/* ---- connection URI ---- */

static struct endpoint *first_endpoint(const struct branch *branch)
{
    FOR_EACH_ENDPOINT_OF(branch, endpoint)
    {
        if (endpoint_is_live(endpoint)) {
            return endpoint;
        }
    }
    return NULL;
}

/* ?branch_id=&endpoint_id=&role_name=&database_name=&pooled=, each with the obvious default. */
static void get_connection_uri(struct http_context *context, struct http_request *request)
{
    struct api *api = api_of(context);
    struct project *project = request_project(api, request);
    if (project == NULL) {
        return;
    }
    struct errmsg msg = {0};
    struct branch *branch = project_default_branch(project);
    const char *branch_id = request_query(request, "branch_id");
    if (branch_id != NULL &&
        find_branch(api, project->row.id, branch_id, &branch, &msg) != ERR_OK) {
        answer_not_found(request, &msg);
        return;
    }
    struct endpoint *endpoint = branch == NULL ? NULL : first_endpoint(branch);
    const char *endpoint_id = request_query(request, "endpoint_id");
    if (endpoint_id != NULL &&
        find_endpoint(api, project->row.id, endpoint_id, &endpoint, &msg) != ERR_OK) {
        answer_not_found(request, &msg);
        return;
    }
    struct buf uri = {0};
    if (endpoint == NULL) {
        http_respond_problem(
            request, 404, "ENDPOINT_NOT_FOUND", "the branch has no endpoint: create one");
    } else if (!view_connection_uri(
                   api, endpoint, request_query(request, "role_name"),
                   request_query(request, "database_name"), request_says(request, "pooled"),
                   &uri)) {
        http_respond_problem(
            request, 404, "ROLE_NOT_FOUND", "the branch has no such role or database");
    } else {
        http_respond_json(request, 200, doc_set_str(doc_object(), "uri", buf_cstr(&uri)));
    }
    buf_deinit(&uri);
}

/* ---- lists that clients ask for and that are always empty here ---- */

static void answer_empty(
    struct http_context *context, struct http_request *request, const char *key)
{
    if (request_branch(api_of(context), request) != NULL) {
        http_respond_json(request, 200, doc_set(doc_object(), key, doc_array()));
    }
}

static void get_buckets(struct http_context *context, struct http_request *request)
{
    answer_empty(context, request, "buckets");
}

static void get_functions(struct http_context *context, struct http_request *request)
{
    answer_empty(context, request, "functions");
}

static void get_credentials(struct http_context *context, struct http_request *request)
{
    answer_empty(context, request, "credentials");
}

/* ---- /v1 ---- */

void handle_get_nodes(struct http_context *context, struct http_request *request)
{
    struct api *api = api_of(context);
    struct doc *array = doc_array();
    for (size_t i = 0; i < nodes_count(api->nodes); i++) {
        const struct node *node = nodes_at(api->nodes, i);
        if (node->gone) {
            continue;
        }
        struct doc *doc = doc_set_str(doc_object(), "kind", node_kind_name(node->kind));
        doc_set_int(doc, "id", (int64_t)node->id);
        doc_set_str(doc, "host", node->host);
        if (node->kind != NODE_AGENT) {
            doc_set_int(doc, "port", node->port);
        }
        doc_set_int(doc, "http_port", node->http_port);
        doc_set_bool(doc, "reachable", node->reachable && node->answered);
        if (node->kind == NODE_SAFEKEEPER) {
            doc_set_int(doc, "lost_timelines", (int64_t)node->lost);
        }
        if (node->registered) {
            doc_set_bool(doc, "registered", true);
        }
        if (!node->reachable) {
            doc_set_str(doc, "error", node->error.text);
        }
        doc_push(array, doc);
    }
    http_respond_json(request, 200, doc_set(doc_object(), "nodes", array));
}

/* A test lets days go by. Leaving the real time is for daemons that were started with --faults. */
static void put_clock(struct http_context *context, struct http_request *request)
{
    struct doc *body = NULL;
    struct errmsg msg = {0};
    uint64_t seconds = 0;
    err_t err = http_request_json(request, &body, &msg);
    if (err == ERR_OK) {
        err = doc_get_u64(body, "ahead_seconds", &seconds, &msg);
    }
    if (!fault_enabled) {
        http_respond_problem(
            request, 403, "FORBIDDEN", "only a control that was started with --faults has a clock");
    } else if (err != ERR_OK || seconds > CLOCK_AHEAD_MAX_S) {
        http_respond_problem(request, 400, "BAD_REQUEST", "ahead_seconds: expected a number");
    } else {
        api_of(context)->clock_ahead = (wall_us_t)seconds * 1000000;
        reconciler_set_clock_ahead(api_of(context)->reconciler, (wall_us_t)seconds * 1000000);
        schedules_look(api_of(context));
        meter_record(api_of(context)->meter);
        http_respond_json(request, 200, doc_object());
    }
}

#define P "/api/v2/projects/{project}"
#define B P "/branches/{branch}"
const struct http_route other_routes[] = {
    ROUTE("GET", "/api/v2/users/me", get_me, "the one user"),
    ROUTE("GET", "/api/v2/users/me/organizations", get_organizations, "the one organization"),
    ROUTE("GET", "/api/v2/organizations/{organization}", get_organization, "the one organization"),
    ROUTE("GET", "/api/v2/auth", get_auth, "how the caller was recognised"),
    ROUTE("GET", "/api/v2/regions", get_regions, "the one region"),
    ROUTE(
        "GET",
        P "/connection_uri",
        get_connection_uri,
        "URI with password; branch_id, endpoint_id, role_name, database_name"),
    ROUTE("GET", B "/buckets", get_buckets, "always empty"),
    ROUTE("GET", B "/functions", get_functions, "always empty"),
    ROUTE("GET", B "/credentials", get_credentials, "always empty"),
    ROUTE("PUT", "/v1/clock", put_clock, "{ahead_seconds}: of what goes by the calendar; in tests"),
};
const size_t other_route_count = ARRAY_LEN(other_routes);

const struct http_route rpc_routes[] = {RPC_CONTROL(RPC_ROUTE)};
const size_t rpc_route_count = ARRAY_LEN(rpc_routes);
