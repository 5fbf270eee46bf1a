/*
 * snapshot_restore.c - a branch from a snapshot, and its step into the place of another one.
 *
 * In two steps, as clients know it: the restored branch is there to be looked at, then it takes the
 * name, the computes, the default and the protection of its target, which stays under another name.
 * Or both in one commit. The computes are started again on the restored data: the reconciler sees
 * that their branch has another timeline.
 */
#include <stdio.h>

#include "common/base/clock.h"
#include "common/base/str.h"
#include "control/api/api_private.h"
#include "control/model/name.h"

/* ---- taking the place ---- */

static err_t choose_old_name(
    struct mutation *mutation,
    const struct branch *target,
    const char *wanted,
    struct branch_row *old,
    struct errmsg *msg)
{
    if (wanted == NULL) {
        snprintf(
            old->name, sizeof old->name, "%.*s_old_%s", str_prefix(target->row.name, 90),
            target->row.name, compact_time(api_now(mutation->api)).text);
        wanted = old->name;
    }
    TRY(check_branch_name(mutation, target->project, wanted, msg));
    if (wanted != old->name) {
        snprintf(old->name, sizeof old->name, "%s", wanted);
    }
    return ERR_OK;
}

static void move_computes(
    struct mutation *mutation, const struct branch *target, const struct branch_row *restored)
{
    FOR_EACH_ENDPOINT_OF(target, endpoint)
    {
        struct endpoint_row row = endpoint->row;
        if (!endpoint_is_live(endpoint)) {
            continue;
        }
        memcpy(row.branch_id, restored->id, sizeof row.branch_id);
        mutation_put(mutation, ROW_ENDPOINT, &row);
        if (row.wanted == ENDPOINT_ACTIVE) {
            mutation_cancel_running(mutation, &endpoint->running);
            mutation_operation(
                mutation, row.project_id, ACTION_START_COMPUTE, restored->id, row.id);
        }
    }
}

/* Puts the restored row too: after the target's, which gives the name free. */
static err_t put_in_place(
    struct mutation *mutation,
    const struct branch *target,
    const char *old_name,
    struct branch_row *restored,
    struct errmsg *msg)
{
    struct branch_row old = target->row;
    TRY(choose_old_name(mutation, target, old_name, &old, msg));
    memcpy(restored->name, target->row.name, sizeof restored->name);
    restored->is_default |= target->row.is_default; /* it may have become it by itself */
    restored->is_protected |= target->row.is_protected;
    restored->expires_at = target->row.expires_at;
    if (restored->schedule == NULL) {
        restored->schedule = target->row.schedule; /* borrowed */
        restored->scheduled_at = target->row.scheduled_at;
        memcpy(restored->scheduled_by, target->row.scheduled_by, sizeof restored->scheduled_by);
    }
    restored->is_finalized = true;
    old.is_default = old.is_protected = false;
    old.expires_at = 0;
    old.schedule = NULL;
    mutation_put(mutation, ROW_BRANCH, &old);
    mutation_put(mutation, ROW_BRANCH, restored);
    move_computes(mutation, target, restored);
    return ERR_OK;
}

/* ---- restore ---- */

static err_t find_target(
    struct mutation *mutation,
    const struct branch *snapshot,
    struct branch **ret_target,
    struct errmsg *msg)
{
    const char *id = NULL;
    TRY(doc_opt_str(mutation->body, "target_branch_id", &id, msg));
    if (id != NULL) {
        return find_branch(mutation->api, mutation->project_id, id, ret_target, msg);
    }
    struct branch *source = model_branch(mutation->api->model, snapshot->row.source_branch_id);
    *ret_target = source != NULL && branch_is_shown(source) ? source : NULL;
    return ERR_OK;
}

static err_t choose_name(
    struct mutation *mutation,
    const struct branch *snapshot,
    struct branch_row *row,
    struct errmsg *msg)
{
    const char *name = request_query(mutation->request, "name");
    TRY(doc_opt_str(mutation->body, "name", &name, msg));
    if (name == NULL) {
        snprintf(
            row->name, sizeof row->name, "%.*s_restored_%s",
            str_prefix(snapshot->row.snapshot_name, 90), snapshot->row.snapshot_name,
            compact_time(api_now(mutation->api)).text);
        name = row->name;
    }
    TRY(check_new_branch(mutation, snapshot->project, name, msg));
    if (name != row->name) {
        snprintf(row->name, sizeof row->name, "%s", name);
    }
    return ERR_OK;
}

static err_t fill_restored(
    struct mutation *mutation,
    const struct branch *snapshot,
    const struct branch *target,
    struct branch_row *row,
    struct errmsg *msg)
{
    TRY(choose_name(mutation, snapshot, row, msg));
    TRY(choose_safekeepers(mutation, &row->safekeepers, msg));
    name_branch(row->id);
    memcpy(row->project_id, snapshot->row.project_id, sizeof row->project_id);
    memcpy(row->parent_id, snapshot->row.id, sizeof row->parent_id);
    memcpy(row->restored_from, snapshot->row.id, sizeof row->restored_from);
    if (target != NULL) {
        memcpy(row->restored_as, target->row.id, sizeof row->restored_as);
    }
    row->timeline = name_timeline();
    row->start_lsn = snapshot->row.start_lsn;
    row->state = BRANCH_INIT;
    row->state_changed_at = clock_wall();
    row->membership_generation = 1;
    row->roles = snapshot->row.roles; /* borrowed: mutation_put takes its own references */
    row->databases = snapshot->row.databases;
    row->dropped = snapshot->row.dropped;
    return ERR_OK;
}

static err_t decide_restore(struct mutation *mutation, struct errmsg *msg)
{
    struct branch *snapshot = NULL, *target = NULL;
    struct branch_row row = {0};
    bool finalizes = false;
    TRY(find_snapshot(mutation->api, mutation->project_id, mutation->parent_id, &snapshot, msg));
    TRY(doc_opt_bool(mutation->body, "finalize_restore", &finalizes, msg));
    TRY(find_target(mutation, snapshot, &target, msg));
    TRY(fill_restored(mutation, snapshot, target, &row, msg));
    if (finalizes && target == NULL) {
        return mutation_refuse(
            mutation, 422, "RESTORE_TARGET_GONE", msg,
            "the branch that the snapshot was made of is gone: say target_branch_id, or restore "
            "without finalize_restore");
    }
    if (finalizes) {
        TRY(put_in_place(mutation, target, NULL, &row, msg));
    } else {
        mutation_put(mutation, ROW_BRANCH, &row);
    }
    mutation_operation(mutation, row.project_id, ACTION_CREATE_BRANCH, row.id, "");
    memcpy(mutation->branch_id, row.id, sizeof row.id);
    return ERR_OK;
}

static struct doc *answer_restored(struct mutation *mutation)
{
    const struct api *api = mutation->api;
    const struct branch *branch = model_branch(api->model, mutation->branch_id);
    struct doc *doc = doc_set(doc_object(), "branch", view_branch_doc(api, branch));
    doc_set(doc, "endpoints", view_endpoints_of(api, branch));
    return doc_set(doc, "operations", view_operations_of(mutation));
}

static void post_restore(struct http_context *context, struct http_request *request)
{
    struct mutation *mutation =
        mutation_create(context, request, decide_restore, answer_restored, 200);
    if (mutation != NULL) {
        snprintf(
            mutation->parent_id, sizeof mutation->parent_id, "%s",
            http_request_param(request, "snapshot"));
        mutation_submit(mutation);
    }
}

/* ---- finalize ---- */

static err_t decide_finalize(struct mutation *mutation, struct errmsg *msg)
{
    struct branch *branch = NULL;
    const char *name = NULL;
    TRY(find_branch(mutation->api, mutation->project_id, mutation->branch_id, &branch, msg));
    TRY(doc_opt_str(mutation->body, "name", &name, msg));
    struct branch *target = model_branch(mutation->api->model, branch->row.restored_as);
    if (branch->row.restored_from[0] == '\0' || branch->row.is_finalized) {
        return mutation_refuse(
            mutation, 422, "BRANCH_NOT_RESTORED", msg,
            "branch %s is not one that was restored from a snapshot and waits to take a place",
            branch->row.id);
    }
    if (target == NULL || !branch_is_shown(target)) {
        return mutation_refuse(
            mutation, 422, "RESTORE_TARGET_GONE", msg,
            "the branch whose place it would take is gone");
    }
    struct branch_row row = branch->row;
    TRY(put_in_place(mutation, target, name, &row, msg));
    put_deletion_of_endpoints(mutation, branch); /* those of the target come */
    return ERR_OK;
}

static void post_finalize(struct http_context *context, struct http_request *request)
{
    mutation_start(context, request, decide_finalize, answer_restored, 200);
}

#define P "/api/v2/projects/{project}"
const struct http_route snapshot_restore_routes[] = {
    ROUTE(
        "POST",
        P "/snapshots/{snapshot}/restore",
        post_restore,
        "{name, target_branch_id, finalize_restore}: a branch from it"),
    ROUTE(
        "POST",
        P "/branches/{branch}/finalize_restore",
        post_finalize,
        "{name}: take the place of the branch that it was restored for"),
};
const size_t snapshot_restore_route_count = ARRAY_LEN(snapshot_restore_routes);
