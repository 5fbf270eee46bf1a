/*
 * read_only.c - computes that show a branch as it was at an LSN or a time.
 *
 * Such a compute is an ordinary one on an ephemeral branch, which only its endpoint knows: it
 * begins at the LSN, so that GC keeps what it shows, and what the compute writes by itself (hint
 * bits have WAL) stays there. Endpoint and branch are put and taken away in one commit: whoever
 * dies in between, either both are wanted or neither, and the reconciler does the rest. The lease
 * is the expiry of the branch: PATCH of the endpoint renews it.
 */
#include <stdio.h>

#include "common/base/clock.h"
#include "common/base/parse.h"
#include "control/api/api_private.h"
#include "control/api/branch_start.h"
#include "control/model/name.h"

bool wish_is_read_only(const struct doc *body)
{
    const char *type = doc_value_str(doc_get(doc_get(body, "endpoint"), "type"));
    return type != NULL && strcmp(type, endpoint_type_names[ENDPOINT_READ_ONLY]) == 0;
}

static bool is_given(const struct doc *wish, const char *key)
{
    const struct doc *value = doc_get(wish, key);
    return value != NULL && !doc_is_null(value);
}

err_t read_lease(
    struct mutation *mutation, const struct doc *wish, wall_us_t *ret_until, struct errmsg *msg)
{
    uint64_t seconds = 0;
    if (!is_given(wish, "lease_seconds")) {
        return ERR_OK;
    }
    TRY(doc_opt_u64(wish, "lease_seconds", &seconds, msg));
    if (seconds > LEASE_SECONDS_MAX) {
        return mutation_refuse(
            mutation, 400, "BAD_REQUEST", msg, "lease_seconds: at most %d", LEASE_SECONDS_MAX);
    }
    *ret_until = seconds == 0 ? 0 : clock_wall() + (wall_us_t)seconds * 1000000;
    return ERR_OK;
}

static err_t decide_create(struct mutation *mutation, struct errmsg *msg)
{
    struct branch *parent = NULL;
    const struct doc *wish = doc_get(mutation->body, "endpoint");
    TRY(branch_start_parent(mutation, &parent, msg));
    struct branch_row row = {
        .state = BRANCH_INIT,
        .timeline = name_timeline(),
        .start_lsn = mutation->start_lsn,
        .parent_timestamp = mutation->parent_timestamp,
        .membership_generation = 1,
        .state_changed_at = clock_wall(),
        .is_ephemeral = true,
        .roles = parent->row.roles, /* borrowed: mutation_put takes its own references */
        .databases = parent->row.databases,
    };
    struct endpoint_row endpoint = {.type = ENDPOINT_READ_ONLY, .wanted = ENDPOINT_ACTIVE};
    name_branch(row.id);
    snprintf(row.name, sizeof row.name, "%s", row.id);
    memcpy(row.project_id, parent->row.project_id, sizeof row.project_id);
    memcpy(row.parent_id, parent->row.id, sizeof row.parent_id);
    TRY(read_lease(mutation, wish, &row.expires_at, msg));
    TRY(check_new_branch(mutation, parent->project, row.name, msg));
    TRY(choose_safekeepers(mutation, &row.safekeepers, msg));
    mutation_put(mutation, ROW_BRANCH, &row);
    mutation_operation(mutation, row.project_id, ACTION_CREATE_BRANCH, row.id, "");
    /* Of the branch that was asked for; the parent may be an ancestor that has the LSN. */
    memcpy(endpoint.source_branch_id, mutation->branch_id, sizeof endpoint.source_branch_id);
    return put_endpoint(mutation, &row, wish, &endpoint, msg);
}

static void start_read_only(struct mutation *mutation)
{
    static const struct branch_start_keys keys = {
        .object = "endpoint", .parent = "branch_id", .lsn = "lsn", .time = "timestamp"};
    const struct doc *wish = doc_get(mutation->body, "endpoint");
    const char *branch_id = NULL;
    struct branch *branch = NULL;
    struct errmsg msg = {0};
    err_t err = doc_get_str(wish, "branch_id", &branch_id, &msg);
    if (err == ERR_OK) {
        err = find_branch(mutation->api, mutation->project_id, branch_id, &branch, &msg);
    }
    if (err != ERR_OK) {
        mutation_fail(mutation, err, &msg);
        return;
    }
    memcpy(mutation->branch_id, branch->row.id, sizeof mutation->branch_id);
    branch_start_find(mutation, &keys); /* then mutation_submit */
}

void post_read_only(struct mutation *mutation)
{
    const struct doc *wish = doc_get(mutation->body, "endpoint");
    struct errmsg msg = {0};
    if (is_given(wish, "lsn") || is_given(wish, "timestamp")) {
        mutation->decide = decide_create;
        start_read_only(mutation);
        return;
    }
    err_t err = mutation_refuse(
        mutation, 501, "NOT_SUPPORTED", &msg,
        "a read_only endpoint shows a branch at an `lsn` or a `timestamp`: one that follows the "
        "branch is not supported yet");
    mutation_fail(mutation, err, &msg);
}

/* ---- for a question of ours ---- */

static err_t decide_end(struct mutation *mutation, struct errmsg *msg)
{
    struct endpoint *endpoint = NULL;
    TRY(find_endpoint(mutation->api, mutation->project_id, mutation->endpoint_id, &endpoint, msg));
    put_read_only_deletion(mutation, endpoint);
    return ERR_OK;
}

/* Many come at once: none of them was there when each of them looked. */
static err_t decide_moment(struct mutation *mutation, struct errmsg *msg)
{
    struct branch *branch = NULL;
    size_t count = 0;
    const char *name = doc_value_str(doc_get(doc_get(mutation->body, "endpoint"), "name"));
    TRY(find_history(mutation->api, mutation->project_id, mutation->branch_id, &branch, msg));
    const struct endpoint *other = find_moment(branch, name, &count);
    if (other != NULL) {
        memcpy(mutation->endpoint_id, other->row.id, sizeof mutation->endpoint_id);
        return ERR_OK;
    }
    if (count >= MOMENTS_MAX) {
        return mutation_refuse(
            mutation, 429, "TOO_MANY_MOMENTS", msg,
            "connections to %d moments of branch %s are open or were a moment ago: at most so many",
            MOMENTS_MAX, mutation->branch_id);
    }
    return decide_create(mutation, msg);
}

bool read_only_begin(
    struct api *api,
    struct http_request *request,
    const char *project_id,
    struct doc *body,
    struct mutation_then *then)
{
    struct mutation *mutation = mutation_create(&api->http, request, decide_moment, NULL, 200);
    if (mutation != NULL) {
        snprintf(mutation->project_id, sizeof mutation->project_id, "%s", project_id);
        mutation->then = then;
        mutation->body = body;
        start_read_only(mutation);
    }
    return mutation != NULL;
}

void read_only_end(
    struct api *api, const char *project_id, const char *endpoint_id, struct mutation_then *then)
{
    struct mutation *mutation = mutation_of_our_own(api, decide_end, then);
    snprintf(mutation->project_id, sizeof mutation->project_id, "%s", project_id);
    snprintf(mutation->endpoint_id, sizeof mutation->endpoint_id, "%s", endpoint_id);
    mutation_submit(mutation);
}

void put_read_only_deletion(struct mutation *mutation, struct endpoint *endpoint)
{
    struct branch_row row = endpoint->branch->row;
    mutation_cancel_running(mutation, &endpoint->running);
    put_endpoint_deletion(mutation, endpoint);
    mutation_cancel_running(mutation, &endpoint->branch->running);
    row.state = BRANCH_DELETING;
    row.state_changed_at = clock_wall();
    mutation_put(mutation, ROW_BRANCH, &row);
    mutation_operation(mutation, row.project_id, ACTION_DELETE_TIMELINE, row.id, "");
}

err_t renew_lease(
    struct mutation *mutation,
    const struct endpoint *endpoint,
    const struct doc *wish,
    struct errmsg *msg)
{
    if (!is_given(wish, "lease_seconds")) {
        return ERR_OK;
    }
    if (endpoint->row.type != ENDPOINT_READ_ONLY) {
        return mutation_refuse(
            mutation, 400, "BAD_REQUEST", msg, "lease_seconds: only read_only endpoints have one");
    }
    struct branch_row row = endpoint->branch->row;
    TRY(read_lease(mutation, wish, &row.expires_at, msg));
    mutation_put(mutation, ROW_BRANCH, &row);
    return ERR_OK;
}
