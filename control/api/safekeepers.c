/*
 * safekeepers.c - which safekeepers a branch has, and a change of that: docs/design/membership.md.
 *
 * POST writes the joint membership down and answers; the reconciler does the rest while computes
 * write. DELETE gives a change up.
 */
#include <stdio.h>

#include "control/api/api_private.h"
#include "control/model/members.h"

/* ---- view ---- */

static struct doc *view_members(const struct api *api, const struct branch *branch)
{
    struct membership membership = branch_membership(&branch->row);
    struct doc *array = doc_array();
    for (uint32_t i = 0; i < membership.count; i++) {
        const struct change_report *report = &branch->reports[i];
        const struct node *node = nodes_find(api->nodes, NODE_SAFEKEEPER, membership.members[i]);
        struct doc *member = doc_set_int(doc_object(), "id", (int64_t)membership.members[i]);
        doc_set_bool(member, "reachable", node != NULL && node->reachable);
        if (membership_is_joint(&membership)) {
            bool is_old = (membership.old_set & 1u << i) != 0;
            bool is_new = (membership.new_set & 1u << i) != 0;
            doc_set_str(member, "set", is_old && is_new ? "both" : is_old ? "old" : "new");
        }
        if (report->answered) {
            doc_set_int(member, "generation", report->generation);
            doc_set_int(member, "term", (int64_t)report->term);
            doc_set_lsn(member, "record_lsn", report->record_lsn);
        }
        doc_push(array, member);
    }
    return array;
}

static const char *change_text(const struct branch *branch)
{
    if (branch->row.change_given_up) {
        return "is given up";
    }
    switch (branch_judge(branch).verdict) {
    case CHANGE_WAIT_OLD: return "waits for a majority of the old safekeepers";
    case CHANGE_WAIT_NEW: return "waits for the new safekeepers to have everything";
    case CHANGE_MAY_FINISH: return "is about to end";
    case CHANGE_SUPERSEDED: break;
    }
    return "stands: a safekeeper has a membership that is not ours";
}

static struct doc *view_safekeepers(const struct api *api, const struct branch *branch)
{
    struct doc *left = doc_array();
    struct doc *doc = doc_set(doc_object(), "safekeepers", view_members(api, branch));
    doc_set_int(doc, "generation", (int64_t)branch_generation(&branch->row));
    doc_set_bool(doc, "changing", branch->row.change_generation != 0);
    if (branch->row.change_generation != 0) {
        doc_set_str(doc, "change", change_text(branch));
    }
    for (size_t i = 0; i < branch->row.left_safekeepers.count; i++) {
        struct doc *item =
            doc_set_int(doc_object(), "id", (int64_t)branch->row.left_safekeepers.ids[i]);
        doc_push(left, item);
    }
    return doc_set(doc, "left", left);
}

static void get_safekeepers(struct http_context *context, struct http_request *request)
{
    struct branch *branch = request_branch(api_of(context), request);
    if (branch != NULL) {
        http_respond_json(request, 200, view_safekeepers(api_of(context), branch));
    }
}

static struct doc *answer_change(struct mutation *mutation)
{
    const struct branch *branch = model_branch(mutation->api->model, mutation->branch_id);
    struct doc *doc = view_safekeepers(mutation->api, branch);
    return doc_set(doc, "operations", view_operations_of(mutation));
}

/* ---- begin ---- */

static err_t take_ids(
    struct mutation *mutation, const char *key, struct node_set *set, struct errmsg *msg)
{
    struct doc *holder = doc_object();
    const struct doc *list = doc_get(mutation->body, key);
    err_t err = ERR_OK;
    set->count = 0;
    for (size_t i = 0; i < doc_count(list) && err == ERR_OK; i++) {
        doc_set(holder, "id", doc_ref(doc_at(list, i)));
        if (set->count == SAFEKEEPERS_MAX ||
            doc_get_u64(holder, "id", &set->ids[set->count++], msg) != ERR_OK) {
            err = mutation_refuse(
                mutation, 400, "BAD_REQUEST", msg, "%s: expected at most %d ids of safekeepers",
                key, SAFEKEEPERS_MAX);
        }
    }
    doc_unref(holder);
    return err;
}

/* {"safekeepers": [the new set]}, or {"add": [..], "remove": [..]}. */
static err_t take_wanted(
    struct mutation *mutation,
    const struct branch *branch,
    struct node_set *ret_wanted,
    struct errmsg *msg)
{
    struct node_set wanted, add, remove;
    TRY(take_ids(mutation, "safekeepers", &wanted, msg));
    TRY(take_ids(mutation, "add", &add, msg));
    TRY(take_ids(mutation, "remove", &remove, msg));
    if (wanted.count > 0 && add.count + remove.count > 0) {
        return mutation_refuse(
            mutation, 400, "BAD_REQUEST", msg, "safekeepers, or add and remove, not both");
    }
    for (size_t i = 0; i < branch->row.safekeepers.count && add.count + remove.count > 0; i++) {
        if (!node_set_has(&remove, branch->row.safekeepers.ids[i])) {
            wanted.ids[wanted.count++] = branch->row.safekeepers.ids[i];
        }
    }
    for (size_t i = 0; i < add.count; i++) {
        if (wanted.count == SAFEKEEPERS_MAX) {
            return mutation_refuse(
                mutation, 400, "BAD_REQUEST", msg, "limit: %d safekeepers a branch",
                SAFEKEEPERS_MAX);
        }
        wanted.ids[wanted.count++] = add.ids[i];
    }
    for (size_t i = 0; i < remove.count; i++) {
        if (!node_set_has(&branch->row.safekeepers, remove.ids[i])) {
            return mutation_refuse(
                mutation, 400, "BAD_REQUEST", msg, "safekeeper %" PRIu64 " is no member",
                remove.ids[i]);
        }
    }
    *ret_wanted = wanted;
    return ERR_OK;
}

/* A newcomer is taken with the disk that it has now: another one is somebody else. */
static err_t take_disks(
    struct mutation *mutation, const struct branch_row *row, struct doc *disks, struct errmsg *msg)
{
    for (size_t i = 0; i < row->next_safekeepers.count; i++) {
        uint64_t id = row->next_safekeepers.ids[i];
        const struct node *node = nodes_find(mutation->api->nodes, NODE_SAFEKEEPER, id);
        char key[24];
        if (node_set_has(&row->safekeepers, id)) {
            continue;
        }
        if (node == NULL) {
            return mutation_refuse(
                mutation, 404, "SAFEKEEPER_NOT_FOUND", msg, "there is no safekeeper %" PRIu64, id);
        }
        if (!node->reachable || node->incarnation[0] == '\0') {
            return mutation_refuse(
                mutation, 503, "SAFEKEEPER_AWAY", msg, "safekeeper %" PRIu64 " does not answer",
                id);
        }
        snprintf(key, sizeof key, "%" PRIu64, id);
        doc_set_str(disks, key, node->incarnation);
    }
    return ERR_OK;
}

static err_t put_change(
    struct mutation *mutation, struct branch *branch, struct branch_row *row, struct errmsg *msg)
{
    struct doc *disks = doc_object();
    err_t err = take_disks(mutation, row, disks, msg);
    if (err == ERR_OK) {
        row->change_disks = disks; /* borrowed: mutation_put takes its own reference */
        mutation_cancel_running(mutation, &branch->running);
        mutation_put(mutation, ROW_BRANCH, row);
        mutation_operation(
            mutation, row->project_id, ACTION_CHANGE_SAFEKEEPERS, branch->row.id, "");
    }
    doc_unref(disks);
    return err;
}

static err_t decide_change(struct mutation *mutation, struct errmsg *msg)
{
    struct branch *branch = NULL;
    struct node_set wanted;
    TRY(find_branch(mutation->api, mutation->project_id, mutation->branch_id, &branch, msg));
    if (branch->row.state != BRANCH_READY) {
        return mutation_refuse(
            mutation, 423, "BRANCH_NOT_READY", msg, "branch %s is still being created, try again",
            branch->row.id);
    }
    TRY(take_wanted(mutation, branch, &wanted, msg));
    struct branch_row row = branch->row;
    struct errmsg why;
    err_t err = branch_begin_change(&row, wanted.ids, wanted.count, &why);
    if (err == ERR_EXISTS) {
        return mutation_refuse(mutation, 409, "CHANGE_UNDER_WAY", msg, "%s", why.text);
    }
    if (err != ERR_OK) {
        return mutation_refuse(mutation, 400, "BAD_REQUEST", msg, "%s", why.text);
    }
    return put_change(mutation, branch, &row, msg);
}

static err_t decide_give_up(struct mutation *mutation, struct errmsg *msg)
{
    struct branch *branch = NULL;
    TRY(find_branch(mutation->api, mutation->project_id, mutation->branch_id, &branch, msg));
    if (branch->row.change_generation == 0) {
        return mutation_refuse(
            mutation, 409, "NO_CHANGE", msg, "no change of the safekeepers is under way");
    }
    struct branch_row row = branch->row;
    row.change_given_up = true;
    mutation_cancel_running(mutation, &branch->running);
    mutation_put(mutation, ROW_BRANCH, &row);
    mutation_operation(mutation, row.project_id, ACTION_CHANGE_SAFEKEEPERS, branch->row.id, "");
    return ERR_OK;
}

static void start(
    struct http_context *context, struct http_request *request, mutation_decide_fn decide)
{
    mutation_start(context, request, decide, answer_change, 200);
}

static void post_safekeepers(struct http_context *context, struct http_request *request)
{
    start(context, request, decide_change);
}

static void delete_change(struct http_context *context, struct http_request *request)
{
    start(context, request, decide_give_up);
}

const struct http_route safekeeper_routes[] = {
    ROUTE(
        "GET",
        "/api/v2/projects/{project}/branches/{branch}/safekeepers",
        get_safekeepers,
        "who holds its WAL, and where each stands"),
    ROUTE(
        "POST",
        "/api/v2/projects/{project}/branches/{branch}/safekeepers",
        post_safekeepers,
        "{safekeepers: [ids]} or {add: [ids], remove: [ids]}: others from now on"),
    ROUTE(
        "DELETE",
        "/api/v2/projects/{project}/branches/{branch}/safekeepers/change",
        delete_change,
        "give up the change that is under way"),
};
const size_t safekeeper_route_count = ARRAY_LEN(safekeeper_routes);
