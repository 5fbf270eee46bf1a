/*
 * recover.c - what was deleted comes back, within the window that control is set to.
 *
 * A project or branch that is deleted while the window is open is only set aside: its rows say
 * until when, no list and no lookup shows it, its computes sleep, and the nodes keep what they
 * have. Its name is free at once and it counts for no quota. Recovered, it is what it was; after
 * the window the reconciler deletes it for good (control/act/commit.c), with the same rows as a
 * DELETE with hard_delete=true. It takes its space until then, so the window is 0 unless it is set.
 */
#include "control/act/port.h"
#include "control/api/api_private.h"

/* ---- deletions that can be taken back ---- */

bool is_hard_delete(const struct mutation *mutation)
{
    return mutation->api->options.recovery_window_ms == 0 ||
           request_says(mutation->request, "hard_delete");
}

static wall_us_t window_of(const struct mutation *mutation)
{
    return (wall_us_t)mutation->api->options.recovery_window_ms * 1000;
}

static void put_to_sleep(struct mutation *mutation, struct endpoint *endpoint)
{
    if (!endpoint_is_live(endpoint) || endpoint->row.wanted == ENDPOINT_IDLE) {
        return;
    }
    struct endpoint_row row = endpoint->row;
    row.wanted = ENDPOINT_IDLE;
    row.last_error[0] = '\0';
    mutation_cancel_running(mutation, &endpoint->running);
    mutation_put(mutation, ROW_ENDPOINT, &row);
    mutation_operation(mutation, row.project_id, ACTION_SUSPEND_COMPUTE, row.branch_id, row.id);
}

void put_branch_aside(struct mutation *mutation, const struct branch *branch)
{
    wall_us_t now = api_now(mutation->api);
    struct branch_row row = branch->row;
    branch_set_aside(&row, now, now + window_of(mutation));
    mutation_put(mutation, ROW_BRANCH, &row);
    FOR_EACH_ENDPOINT_OF(branch, endpoint)
    {
        put_to_sleep(mutation, endpoint);
    }
}

/* Computes that show a moment go at once: they are made for whoever looks. */
void put_project_aside(struct mutation *mutation, const struct project *project)
{
    struct project_row row = project->row;
    row.deleted_at = api_now(mutation->api);
    row.recoverable_until = row.deleted_at + window_of(mutation);
    mutation_put(mutation, ROW_PROJECT, &row);
    FOR_EACH_ENDPOINT(project, endpoint)
    {
        if (endpoint_is_live(endpoint) && endpoint->row.type == ENDPOINT_READ_ONLY) {
            put_read_only_deletion(mutation, endpoint);
        } else {
            put_to_sleep(mutation, endpoint);
        }
    }
}

/* ---- and are taken back ---- */

static err_t find_deleted_project(
    struct mutation *mutation, struct project **ret_project, struct errmsg *msg)
{
    struct project *project = model_project(mutation->api->model, mutation->project_id);
    if (project == NULL) {
        return err_set(msg, ERR_NOT_FOUND, "project %s not found", mutation->project_id);
    }
    if (project_is_shown(project)) {
        return mutation_refuse(
            mutation, 409, "NOT_DELETED", msg, "project %s is not deleted", project->row.id);
    }
    if (!project_is_recoverable(project)) {
        return err_set(
            msg, ERR_NOT_FOUND, "project %s is deleted for good: it can be recovered no more",
            project->row.id);
    }
    *ret_project = project;
    return ERR_OK;
}

/*
 * A port that was given to another one meanwhile is the other's. The next one is for a host that is
 * away, too: it may come back before its compute is to start on another.
 */
static err_t put_endpoint_back(
    struct mutation *mutation,
    const struct endpoint *endpoint,
    const struct branch *recovered,
    struct errmsg *msg)
{
    if (!endpoint_is_live(endpoint) || !endpoint_lost_port(mutation->api->model, endpoint)) {
        return ERR_OK;
    }
    const struct node *agent = nodes_find(mutation->api->nodes, NODE_AGENT, endpoint->row.agent);
    struct endpoint_row row = endpoint->row;
    struct port_wish wish = {
        .agent = row.agent,
        .host = agent == NULL ? NULL : agent->host,
        .project = endpoint->project,
        .branch = recovered};
    TRY(choose_port(mutation, &wish, &row.port, msg));
    mutation_put(mutation, ROW_ENDPOINT, &row);
    return ERR_OK;
}

err_t decide_project_recovery(struct mutation *mutation, struct errmsg *msg)
{
    struct project *project = NULL;
    TRY(find_deleted_project(mutation, &project, msg));
    TRY(check_quota_of_project(mutation, project, msg));
    struct project_row row = project->row;
    row.deleted_at = row.recoverable_until = 0;
    FOR_EACH_ENDPOINT(project, endpoint)
    {
        if (!branch_is_recoverable(endpoint->branch)) {
            TRY(put_endpoint_back(mutation, endpoint, NULL, msg));
        }
    }
    mutation_put(mutation, ROW_PROJECT, &row);
    return ERR_OK;
}

static struct doc *answer_project(struct mutation *mutation)
{
    const struct api *api = mutation->api;
    const struct project *project = model_project(api->model, mutation->project_id);
    struct doc *branches = doc_array();
    FOR_EACH_BRANCH(project, branch)
    {
        if (branch_is_shown(branch)) {
            doc_push(branches, view_branch_doc(api, branch));
        }
    }
    struct doc *doc = doc_set(doc_object(), "project", view_project_doc(api, project));
    doc_set(doc, "branches", branches);
    return doc_set(doc, "operations", view_operations_of(mutation));
}

err_t decide_branch_recovery(struct mutation *mutation, struct errmsg *msg)
{
    struct project *project = NULL;
    const char *id = mutation->branch_id;
    TRY(find_project(mutation->api, mutation->project_id, &project, msg));
    const struct branch *branch = model_branch(mutation->api->model, id);
    if (branch == NULL || branch->project != project) {
        return err_set(msg, ERR_NOT_FOUND, "branch %s not found", id);
    }
    if (branch_is_shown(branch)) {
        return mutation_refuse(mutation, 409, "NOT_DELETED", msg, "branch %s is not deleted", id);
    }
    if (!branch_is_recoverable(branch)) {
        return err_set(
            msg, ERR_NOT_FOUND, "branch %s is deleted for good: it can be recovered no more", id);
    }
    TRY(check_branch_name_is_free(mutation, project, branch->row.name, msg));
    TRY(check_quota_of_key(mutation, branch->row.created_by, 1, msg));
    struct branch_row row = branch->row;
    row.deleted_at = row.recoverable_until = 0;
    row.has_expired = false;
    if (row.schedule != NULL) {
        row.scheduled_at = api_now(mutation->api); /* what was due meanwhile is not made up for */
    }
    mutation_put(mutation, ROW_BRANCH, &row);
    FOR_EACH_ENDPOINT_OF(branch, endpoint)
    {
        TRY(put_endpoint_back(mutation, endpoint, branch, msg));
    }
    return ERR_OK;
}

static struct doc *answer_branch(struct mutation *mutation)
{
    const struct branch *branch = model_branch(mutation->api->model, mutation->branch_id);
    struct doc *doc = doc_set(doc_object(), "branch", view_branch_doc(mutation->api, branch));
    doc_set(doc, "endpoints", view_endpoints_of(mutation->api, branch));
    return doc_set(doc, "operations", view_operations_of(mutation));
}

static void recover_project(struct http_context *context, struct http_request *request)
{
    mutation_start(context, request, decide_project_recovery, answer_project, 200);
}

static void recover_branch(struct http_context *context, struct http_request *request)
{
    mutation_start(context, request, decide_branch_recovery, answer_branch, 200);
}

#define P "/api/v2/projects/{project}"
const struct http_route recover_routes[] = {
    ROUTE("POST", P "/recover", recover_project, "it was deleted a short while ago: have it back"),
    ROUTE(
        "POST",
        P "/branches/{branch}/recover",
        recover_branch,
        "it was deleted a short while ago: have it back"),
};
const size_t recover_route_count = ARRAY_LEN(recover_routes);
