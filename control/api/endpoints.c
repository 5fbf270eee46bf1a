/* endpoints.c - endpoints: create, list, get, update, start, suspend, restart, delete. */
#include <stdio.h>

#include "control/act/port.h"
#include "control/api/access.h"
#include "control/api/api_private.h"
#include "control/model/name.h"

#define ENDPOINTS_PER_BRANCH_MAX 20
#define SUSPEND_SECONDS_MAX      604800 /* a week */
#define UNITS_MAX                56

/* ---- create ---- */

err_t choose_port(
    struct mutation *mutation, struct port_wish *wish, uint64_t *ret_port, struct errmsg *msg)
{
    const struct api_options *options = &mutation->api->options;
    wish->first = MAX_OF(options->port_first, mutation->ports_taken + 1); /* of this change */
    wish->last = options->port_last;
    err_t err = port_choose(mutation->api->model, wish, ret_port, msg);
    if (err == ERR_FULL) {
        struct errmsg why = *msg;
        return mutation_refuse(mutation, 503, "NO_FREE_PORT", msg, "%s", why.text);
    }
    if (err == ERR_OK) {
        mutation->ports_taken = *ret_port;
    }
    return err;
}

/* -1: never; 0: as control is set; else so many seconds without work. */
static err_t read_suspend_timeout(
    struct mutation *mutation, const struct doc *wish, struct endpoint_row *row, struct errmsg *msg)
{
    int64_t seconds = row->never_suspends ? -1 : (int64_t)row->suspend_timeout_seconds;
    TRY(doc_opt_i64(wish, "suspend_timeout_seconds", &seconds, msg));
    if (seconds < -1 || seconds > SUSPEND_SECONDS_MAX) {
        return mutation_refuse(
            mutation, 400, "BAD_REQUEST", msg, "suspend_timeout_seconds: expected -1 to %d",
            SUSPEND_SECONDS_MAX);
    }
    row->never_suspends = seconds < 0;
    row->suspend_timeout_seconds = seconds < 0 ? 0 : (uint64_t)seconds;
    return ERR_OK;
}

/* In quarters. */
static err_t read_units(
    struct mutation *mutation,
    const struct doc *wish,
    const char *key,
    uint64_t *milli,
    struct errmsg *msg)
{
    double units = (double)*milli / 1000;
    TRY(doc_opt_real(wish, key, &units, msg));
    if (!(units >= 0 && units <= UNITS_MAX) || units * 4 != (double)(uint64_t)(units * 4)) {
        return mutation_refuse(
            mutation, 400, "BAD_REQUEST", msg,
            "%s: expected quarters from 0.25 to %d, or 0 for no limit", key, UNITS_MAX);
    }
    *milli = (uint64_t)(units * 1000);
    return ERR_OK;
}

/* There is no scaling: a compute has the larger of the two as its size from start to stop. */
static err_t read_size(
    struct mutation *mutation, const struct doc *wish, struct endpoint_row *row, struct errmsg *msg)
{
    TRY(read_units(mutation, wish, "autoscaling_limit_min_cu", &row->cu_min_milli, msg));
    TRY(read_units(mutation, wish, "autoscaling_limit_max_cu", &row->cu_max_milli, msg));
    if (row->cu_max_milli != 0 && row->cu_min_milli > row->cu_max_milli) {
        return mutation_refuse(
            mutation, 400, "BAD_REQUEST", msg,
            "autoscaling_limit_min_cu is above autoscaling_limit_max_cu");
    }
    return ERR_OK;
}

static err_t fill_endpoint(
    struct mutation *mutation, const struct doc *wish, struct endpoint_row *row, struct errmsg *msg)
{
    const char *name = "";
    const struct node *agent = place_on(mutation->api->model, mutation->api->nodes, NODE_AGENT);
    TRY(doc_opt_str(wish, "name", &name, msg));
    TRY(check_one_line(mutation, "endpoint", name, msg));
    if (agent == NULL) {
        return mutation_refuse(
            mutation, 503, "NO_COMPUTE_HOST", msg,
            "the cluster has no compute agent: set `agents` of control, or `control_url` of one");
    }
    struct port_wish port = {.agent = agent->id, .host = agent->host};
    TRY(choose_port(mutation, &port, &row->port, msg));
    row->agent = agent->id;
    row->settings = doc_get(wish, "pg_settings"); /* borrowed, see mutation_put */
    if (row->settings == NULL) {
        row->settings = doc_get(doc_get(wish, "settings"), "pg_settings");
    }
    if (row->settings != NULL && !doc_is_object(row->settings)) {
        return mutation_refuse(
            mutation, 400, "BAD_REQUEST", msg, "pg_settings: expected an object");
    }
    snprintf(row->name, sizeof row->name, "%s", name);
    TRY(read_size(mutation, wish, row, msg));
    return read_suspend_timeout(mutation, wish, row, msg);
}

err_t put_endpoint(
    struct mutation *mutation,
    const struct branch_row *branch,
    const struct doc *wish,
    struct endpoint_row *row,
    struct errmsg *msg)
{
    const struct api_key *key = request_key(mutation->api, mutation->request);
    TRY(check_compute_quota(mutation, key == NULL ? "" : key->row.id, msg));
    TRY(fill_endpoint(mutation, wish, row, msg));
    name_endpoint(row->id);
    memcpy(row->project_id, branch->project_id, sizeof row->project_id);
    memcpy(row->branch_id, branch->id, sizeof row->branch_id);
    mutation_put(mutation, ROW_ENDPOINT, row);
    memcpy(mutation->endpoint_id, row->id, sizeof row->id);
    mutation_operation(mutation, row->project_id, ACTION_START_COMPUTE, row->branch_id, row->id);
    return ERR_OK;
}

err_t put_new_endpoint(
    struct mutation *mutation,
    const struct branch_row *branch,
    const struct doc *wish,
    struct errmsg *msg)
{
    const char *type = "read_write";
    struct endpoint_row row = {.type = ENDPOINT_READ_WRITE, .wanted = ENDPOINT_ACTIVE};
    TRY(doc_opt_str(wish, "type", &type, msg));
    if (strcmp(type, "read_only") == 0) {
        return mutation_refuse(
            mutation, 501, "NOT_SUPPORTED", msg,
            "a read_only endpoint is made with POST .../endpoints and an lsn or a timestamp: one "
            "that follows the branch is not supported yet");
    }
    if (strcmp(type, "read_write") != 0) {
        return mutation_refuse(
            mutation, 400, "BAD_REQUEST", msg,
            "endpoint type \"%s\": expected read_write or read_only", type);
    }
    return put_endpoint(mutation, branch, wish, &row, msg);
}

/* One writer a branch; that two never both succeed is the safekeepers' doing, not this rule's. */
static err_t check_room(struct mutation *mutation, const struct branch *branch, struct errmsg *msg)
{
    size_t count = 0;
    FOR_EACH_ENDPOINT_OF(branch, endpoint)
    {
        count++;
        if (endpoint_is_live(endpoint) && endpoint->row.type == ENDPOINT_READ_WRITE) {
            return mutation_refuse(
                mutation, 409, "READ_WRITE_ENDPOINT_EXISTS", msg,
                "branch %s already has the read_write endpoint %s", branch->row.id,
                endpoint->row.id);
        }
    }
    if (count >= ENDPOINTS_PER_BRANCH_MAX) {
        return mutation_refuse(
            mutation, 423, "ENDPOINTS_LEAVING", msg,
            "branch %s: deleted endpoints have not stopped yet, try again", branch->row.id);
    }
    return ERR_OK;
}

static err_t decide_create(struct mutation *mutation, struct errmsg *msg)
{
    struct doc *wish = NULL;
    const char *branch_id = NULL;
    struct branch *branch = NULL;
    TRY(doc_get_object(mutation->body, "endpoint", &wish, msg));
    TRY(doc_get_str(wish, "branch_id", &branch_id, msg));
    TRY(find_branch(mutation->api, mutation->project_id, branch_id, &branch, msg));
    TRY(check_room(mutation, branch, msg));
    return put_new_endpoint(mutation, &branch->row, wish, msg);
}

static struct doc *answer_endpoint(struct mutation *mutation)
{
    const struct endpoint *endpoint = model_endpoint(mutation->api->model, mutation->endpoint_id);
    struct doc *doc = doc_object();
    if (endpoint != NULL) {
        doc_set(doc, "endpoint", view_endpoint_doc(mutation->api, endpoint));
    }
    return doc_set(doc, "operations", view_operations_of(mutation));
}

static void start_mutation(
    struct http_context *context, struct http_request *request, mutation_decide_fn decide)
{
    mutation_start(context, request, decide, answer_endpoint, 200);
}

static void post_endpoint(struct http_context *context, struct http_request *request)
{
    struct mutation *mutation =
        mutation_create(context, request, decide_create, answer_endpoint, 201);
    if (mutation == NULL) {
        return;
    }
    if (wish_is_read_only(mutation->body)) {
        post_read_only(mutation);
    } else {
        mutation_submit(mutation);
    }
}

/* ---- start, suspend, update, delete ---- */

static err_t want(
    struct mutation *mutation,
    enum endpoint_wanted wanted,
    enum operation_action action,
    struct errmsg *msg)
{
    struct endpoint *endpoint = NULL;
    TRY(find_endpoint(mutation->api, mutation->project_id, mutation->endpoint_id, &endpoint, msg));
    struct endpoint_row row = endpoint->row;
    if (row.type == ENDPOINT_READ_ONLY && wanted == ENDPOINT_IDLE) {
        put_read_only_deletion(mutation, endpoint); /* its branch goes with it */
        return ERR_OK;
    }
    bool is_there = wanted == ENDPOINT_ACTIVE ? endpoint->seen == COMPUTE_RUNNING
                                              : endpoint->seen == COMPUTE_STOPPED;
    if (row.wanted == wanted && is_there) {
        return ERR_OK; /* nothing to do, no operation */
    }
    if (wanted == ENDPOINT_ACTIVE && row.wanted == ENDPOINT_RESTARTING) {
        return ERR_OK; /* it will be */
    }
    if (wanted == ENDPOINT_ACTIVE && row.wanted != wanted) {
        TRY(check_compute_quota(mutation, row.created_by, msg));
    }
    if (row.wanted != wanted) {
        mutation_cancel_running(mutation, &endpoint->running);
    }
    row.wanted = wanted;
    row.last_error[0] = '\0';
    mutation_put(mutation, ROW_ENDPOINT, &row);
    mutation_operation(mutation, row.project_id, action, row.branch_id, row.id);
    return ERR_OK;
}

static err_t decide_start(struct mutation *mutation, struct errmsg *msg)
{
    return want(mutation, ENDPOINT_ACTIVE, ACTION_START_COMPUTE, msg);
}

/* One that sleeps is only started. */
static err_t decide_restart(struct mutation *mutation, struct errmsg *msg)
{
    struct endpoint *endpoint = NULL;
    TRY(find_endpoint(mutation->api, mutation->project_id, mutation->endpoint_id, &endpoint, msg));
    struct endpoint_row row = endpoint->row;
    if (row.wanted != ENDPOINT_ACTIVE) {
        return want(mutation, ENDPOINT_ACTIVE, ACTION_START_COMPUTE, msg);
    }
    mutation_cancel_running(mutation, &endpoint->running);
    row.wanted = ENDPOINT_RESTARTING;
    row.last_error[0] = '\0';
    mutation_put(mutation, ROW_ENDPOINT, &row);
    mutation_operation(mutation, row.project_id, ACTION_SUSPEND_COMPUTE, row.branch_id, row.id);
    mutation_operation(mutation, row.project_id, ACTION_START_COMPUTE, row.branch_id, row.id);
    return ERR_OK;
}

err_t endpoint_want_active(
    struct api *api,
    struct http_request *request,
    const struct endpoint *endpoint,
    struct mutation_then *then)
{
    struct mutation *mutation =
        mutation_create(&api->http, request, decide_start, answer_endpoint, 200);
    if (mutation == NULL) {
        return ERR_INVALID;
    }
    memcpy(mutation->project_id, endpoint->row.project_id, sizeof mutation->project_id);
    memcpy(mutation->endpoint_id, endpoint->row.id, sizeof mutation->endpoint_id);
    mutation->then = then;
    mutation_submit(mutation);
    return ERR_OK;
}

static err_t decide_suspend(struct mutation *mutation, struct errmsg *msg)
{
    return want(mutation, ENDPOINT_IDLE, ACTION_SUSPEND_COMPUTE, msg);
}

void put_endpoint_deletion(struct mutation *mutation, struct endpoint *endpoint)
{
    struct endpoint_row row = endpoint->row;
    row.wanted = ENDPOINT_DELETING;
    mutation_put(mutation, ROW_ENDPOINT, &row);
    mutation_operation(mutation, row.project_id, ACTION_SUSPEND_COMPUTE, row.branch_id, row.id);
}

void put_deletion_of_endpoints(struct mutation *mutation, const struct branch *branch)
{
    FOR_EACH_ENDPOINT_OF(branch, endpoint)
    {
        if (endpoint_is_live(endpoint)) {
            mutation_cancel_running(mutation, &endpoint->running);
            put_endpoint_deletion(mutation, endpoint);
        }
    }
}

static err_t decide_delete(struct mutation *mutation, struct errmsg *msg)
{
    struct endpoint *endpoint = NULL;
    TRY(find_endpoint(mutation->api, mutation->project_id, mutation->endpoint_id, &endpoint, msg));
    TRY(check_if_match(mutation, HEAD_OF(endpoint), msg));
    if (endpoint->row.type == ENDPOINT_READ_ONLY) {
        put_read_only_deletion(mutation, endpoint);
        return ERR_OK;
    }
    mutation_cancel_running(mutation, &endpoint->running);
    put_endpoint_deletion(mutation, endpoint);
    return ERR_OK;
}

/* Settings take effect at the next start. */
static err_t decide_update(struct mutation *mutation, struct errmsg *msg)
{
    struct endpoint *endpoint = NULL;
    struct doc *wish = NULL;
    TRY(doc_get_object(mutation->body, "endpoint", &wish, msg));
    TRY(find_endpoint(mutation->api, mutation->project_id, mutation->endpoint_id, &endpoint, msg));
    TRY(check_if_match(mutation, HEAD_OF(endpoint), msg));
    struct endpoint_row row = endpoint->row;
    const char *name = endpoint->row.name;
    const struct doc *settings = doc_get(wish, "settings");
    TRY(doc_opt_str(wish, "name", &name, msg));
    if (strcmp(name, endpoint->row.name) != 0) { /* it may be older than the rules for names */
        TRY(check_one_line(mutation, "endpoint", name, msg));
        if (strlen(name) >= sizeof row.name) {
            return mutation_refuse(mutation, 400, "BAD_REQUEST", msg, "name: too long");
        }
        memcpy(row.name, name, strlen(name) + 1);
    }
    TRY(read_suspend_timeout(mutation, wish, &row, msg));
    TRY(read_size(mutation, wish, &row, msg));
    if (doc_is_object(doc_get(settings, "pg_settings"))) {
        row.settings = doc_get(settings, "pg_settings");
    }
    mutation_put(mutation, ROW_ENDPOINT, &row);
    return renew_lease(mutation, endpoint, wish, msg);
}

static void post_start(struct http_context *context, struct http_request *request)
{
    start_mutation(context, request, decide_start);
}

static void post_restart(struct http_context *context, struct http_request *request)
{
    start_mutation(context, request, decide_restart);
}

static void post_suspend(struct http_context *context, struct http_request *request)
{
    start_mutation(context, request, decide_suspend);
}

static void patch_endpoint(struct http_context *context, struct http_request *request)
{
    start_mutation(context, request, decide_update);
}

static void delete_endpoint(struct http_context *context, struct http_request *request)
{
    start_mutation(context, request, decide_delete);
}

/* ---- read ---- */

static void list_endpoints(struct http_context *context, struct http_request *request)
{
    struct api *api = api_of(context);
    struct project *project = request_project(api, request);
    if (project == NULL) {
        return;
    }
    struct doc *array = doc_array();
    FOR_EACH_ENDPOINT(project, endpoint)
    {
        if (endpoint_is_shown(endpoint)) {
            doc_push(array, view_endpoint_doc(api, endpoint));
        }
    }
    http_respond_json(request, 200, doc_set(doc_object(), "endpoints", array));
}

static void list_endpoints_of_branch(struct http_context *context, struct http_request *request)
{
    struct api *api = api_of(context);
    struct branch *branch = request_branch(api, request);
    if (branch == NULL) {
        return;
    }
    struct doc *array = view_endpoints_of(api, branch);
    FOR_EACH_ENDPOINT(branch->project, other)
    {
        if (endpoint_is_live(other) && strcmp(other->row.source_branch_id, branch->row.id) == 0) {
            doc_push(array, view_endpoint_doc(api, other));
        }
    }
    http_respond_json(request, 200, doc_set(doc_object(), "endpoints", array));
}

static void get_endpoint(struct http_context *context, struct http_request *request)
{
    struct api *api = api_of(context);
    struct endpoint *endpoint = NULL;
    struct errmsg msg = {0};
    err_t err = find_endpoint(
        api, http_request_param(request, "project"), http_request_param(request, "endpoint"),
        &endpoint, &msg);
    if (err != ERR_OK) {
        answer_not_found(request, &msg);
        return;
    }
    struct doc *view = view_endpoint_doc(api, endpoint);
    respond_with_etag(request, HEAD_OF(endpoint), doc_set(doc_object(), "endpoint", view));
}

#define P "/api/v2/projects/{project}"
const struct http_route endpoint_routes[] = {
    ROUTE("GET", P "/endpoints", list_endpoints, "endpoints of a project"),
    ROUTE(
        "POST",
        P "/endpoints",
        post_endpoint,
        "create and start: read_write, or read_only at an lsn or timestamp"),
    ROUTE("GET", P "/endpoints/{endpoint}", get_endpoint, "one endpoint"),
    ROUTE(
        "PATCH",
        P "/endpoints/{endpoint}",
        patch_endpoint,
        "name, settings of the next start, lease_seconds"),
    ROUTE("DELETE", P "/endpoints/{endpoint}", delete_endpoint, "stop and delete"),
    ROUTE("POST", P "/endpoints/{endpoint}/start", post_start, "start the compute"),
    ROUTE("POST", P "/endpoints/{endpoint}/restart", post_restart, "stop the compute, start it"),
    ROUTE("POST", P "/endpoints/{endpoint}/suspend", post_suspend, "stop the compute"),
    ROUTE(
        "GET", P "/branches/{branch}/endpoints", list_endpoints_of_branch, "endpoints of a branch"),
};
const size_t endpoint_route_count = ARRAY_LEN(endpoint_routes);
