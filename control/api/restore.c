/*
 * restore.c - a branch gets the data of another moment, its own or another branch's.
 *
 * The branch keeps its id, name, endpoints and their ports; what changes is its timeline: a new one
 * that begins at the wanted LSN. The old timeline stays under a new branch (preserve_under_name),
 * and so do the children, whose history lies in it; without a name it is deleted. One commit; then
 * the reconciler makes the new timeline and starts the computes on it.
 */
#include <stdio.h>

#include "common/base/clock.h"
#include "control/api/api_private.h"
#include "control/api/branch_start.h"
#include "control/model/name.h"

static err_t check_restore(
    struct mutation *mutation,
    const struct branch *branch,
    const char *preserve,
    struct errmsg *msg)
{
    bool is_own_past = strcmp(mutation->parent_id, branch->row.id) == 0;
    if (branch->row.state != BRANCH_READY) {
        return mutation_refuse(
            mutation, 423, "BRANCH_NOT_READY", msg, "branch %s is still being created, try again",
            branch->row.id);
    }
    if (preserve == NULL && (is_own_past || branch_shown_children(branch) > 0)) {
        return mutation_refuse(
            mutation, 400, "PRESERVE_NAME_REQUIRED", msg, "preserve_under_name is required: %s",
            is_own_past ? "the restored data lies in the history of the branch itself"
                        : "the history of its child branches lies in it");
    }
    return preserve == NULL ? ERR_OK : check_new_branch(mutation, branch->project, preserve, msg);
}

/* The branch that takes over the old timeline, or takes it away. */
static void fill_successor(
    const struct branch *branch, const char *preserve, struct branch_row *row)
{
    *row = branch->row;
    row->version = 0;
    row->is_default = false;
    row->is_protected = false;
    row->expires_at = 0;
    row->state_changed_at = clock_wall();
    row->schedule = NULL;
    row->restored_from[0] = row->restored_as[0] = '\0';
    if (preserve == NULL) {
        branch_take_leave(branch, row);
    } else {
        row->created_by[0] = '\0'; /* it counts for who restores, whose quota was asked */
    }
    name_branch(row->id);
    snprintf(row->name, sizeof row->name, "%s", preserve == NULL ? row->id : preserve);
}

static void put_children(
    struct mutation *mutation, const struct branch *branch, const char *successor_id)
{
    FOR_EACH_CHILD(branch, child)
    {
        struct branch_row row = child->row;
        snprintf(row.parent_id, sizeof row.parent_id, "%s", successor_id);
        mutation_put(mutation, ROW_BRANCH, &row);
    }
}

static void put_operations(struct mutation *mutation, struct branch *branch)
{
    mutation_cancel_running(mutation, &branch->running);
    mutation_operation(mutation, branch->row.project_id, ACTION_CREATE_BRANCH, branch->row.id, "");
    FOR_EACH_ENDPOINT_OF(branch, endpoint)
    {
        if (endpoint->row.wanted == ENDPOINT_ACTIVE) {
            mutation_cancel_running(mutation, &endpoint->running);
            mutation_operation(
                mutation, branch->row.project_id, ACTION_START_COMPUTE, branch->row.id,
                endpoint->row.id);
        }
    }
}

static err_t decide_restore(struct mutation *mutation, struct errmsg *msg)
{
    struct branch *branch = NULL, *source = NULL;
    const char *preserve = NULL;
    struct branch_row row, successor;
    const char *project_id = mutation->project_id;
    TRY(find_branch(mutation->api, project_id, mutation->branch_id, &branch, msg));
    TRY(branch_start_parent(mutation, &source, msg));
    TRY(doc_opt_str(mutation->body, "preserve_under_name", &preserve, msg));
    TRY(check_restore(mutation, branch, preserve, msg));
    fill_successor(branch, preserve, &successor);
    row = branch->row;
    row.timeline = name_timeline();
    row.start_lsn = mutation->start_lsn;
    row.parent_timestamp = mutation->parent_timestamp;
    row.state = BRANCH_INIT;
    row.state_changed_at = row.last_reset_at = clock_wall();
    row.membership_generation = 1;
    row.is_cut_off = row.is_found = false;
    row.confirmed = (struct node_set){0};
    row.change_generation = 0; /* a change that is under way goes on with the successor */
    row.change_given_up = false;
    row.next_safekeepers = row.left_safekeepers = (struct node_set){0};
    row.change_disks = NULL;
    row.roles = source->row.roles; /* borrowed: mutation_put takes its own references */
    row.databases = source->row.databases;
    row.dropped = source->row.dropped;
    TRY(choose_safekeepers(mutation, &row.safekeepers, msg));
    snprintf(
        row.parent_id, sizeof row.parent_id, "%s",
        source == branch ? successor.id : source->row.id);
    mutation_put(mutation, ROW_BRANCH, &row); /* first: it gives the old timeline free */
    mutation_put(mutation, ROW_BRANCH, &successor);
    put_children(mutation, branch, successor.id);
    put_operations(mutation, branch);
    return ERR_OK;
}

static struct doc *answer_restore(struct mutation *mutation)
{
    const struct branch *branch = model_branch(mutation->api->model, mutation->branch_id);
    struct doc *doc = doc_set(doc_object(), "branch", view_branch_doc(mutation->api, branch));
    return doc_set(doc, "operations", view_operations_of(mutation));
}

static void post_restore(struct http_context *context, struct http_request *request)
{
    static const struct branch_start_keys keys = {
        .parent = "source_branch_id", .lsn = "source_lsn", .time = "source_timestamp"};
    struct mutation *mutation =
        mutation_create(context, request, decide_restore, answer_restore, 200);
    struct branch *branch = NULL;
    struct errmsg msg = {0};
    if (mutation == NULL) {
        return;
    }
    const char *project_id = http_request_param(request, "project");
    const char *branch_id = http_request_param(request, "branch");
    const char *source_id = doc_value_str(doc_get(mutation->body, "source_branch_id"));
    bool says_when = doc_get(mutation->body, "source_lsn") != NULL ||
                     doc_get(mutation->body, "source_timestamp") != NULL;
    err_t err = find_branch(mutation->api, project_id, branch_id, &branch, &msg);
    if (err != ERR_OK) {
        mutation_fail(mutation, err, &msg);
        return;
    }
    if (source_id == NULL) {
        err = mutation_refuse(
            mutation, 400, "BAD_REQUEST", &msg, "source_branch_id: expected the id of a branch");
    } else if (strcmp(source_id, branch_id) == 0 && !says_when) {
        err = mutation_refuse(
            mutation, 400, "BAD_REQUEST", &msg,
            "a branch is restored from itself at source_lsn or source_timestamp: say which");
    }
    if (err != ERR_OK) {
        mutation_fail(mutation, err, &msg);
        return;
    }
    branch_start_find(mutation, &keys); /* then mutation_submit */
}

const struct http_route restore_routes[] = {
    ROUTE(
        "POST",
        "/api/v2/projects/{project}/branches/{branch}/restore",
        post_restore,
        "{source_branch_id, source_lsn or source_timestamp, preserve_under_name}"),
};
const size_t restore_route_count = ARRAY_LEN(restore_routes);
