/*
 * commit.c - what the reconciler writes into the catalog: goals reached, generations, purges.
 *
 * Runs at the change's turn and plans each object once more, because other changes may have come
 * first. A row is put at most once a commit: an object is in one list, an operation has one target.
 */
#include <stdio.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "control/act/placement.h"
#include "control/act/port.h"
#include "control/act/reconcile_private.h"
#include "control/model/members.h"
#include "control/model/name.h"

/*
 * In one commit, so that a request never waits behind a huge one: objects that are looked at, and
 * rows, of which a branch or a project that goes takes many with it. The last one may be above it.
 */
#define COMMIT_OBJECTS_MAX 200
#define COMMIT_ROWS_MAX    500

struct committing {
    struct reconciler *reconciler;
    struct change *change;
    wall_us_t now;
    bool full; /* no more rows in this commit */
};

static void end_operation(
    const struct committing *committing,
    const struct operation *operation,
    enum operation_status status,
    const char *error)
{
    struct operation_row row = operation->row;
    row.status = status;
    snprintf(row.error, sizeof row.error, "%s", error);
    store_put(committing->reconciler->store, committing->change, ROW_OPERATION, &row);
}

static bool is_expired(const struct committing *committing, const struct operation *operation)
{
    wall_us_t limit = (wall_us_t)committing->reconciler->options.operation_timeout_ms * 1000;
    return committing->now - operation->row.created_at > limit;
}

/* Not reached: give up those that took too long. The reconciler itself goes on. */
static void expire_operations(const struct committing *committing, struct list *running)
{
    LIST_FOR_EACH(running, link)
    {
        struct operation *operation = CONTAINER_OF(link, struct operation, in_target);
        if (is_expired(committing, operation)) {
            const char *error = operation->failure.text;
            end_operation(
                committing, operation, STATUS_FAILED, error[0] == '\0' ? "timed out" : error);
        }
    }
}

static void end_operations(
    const struct committing *committing,
    struct list *running,
    enum operation_status status,
    const char *error)
{
    LIST_FOR_EACH(running, link)
    {
        end_operation(committing, CONTAINER_OF(link, struct operation, in_target), status, error);
    }
}

static bool plan_has(const struct plan *plan, enum plan_step_kind kind)
{
    for (size_t i = 0; i < plan->count; i++) {
        if (plan->steps[i].kind == kind) {
            return true;
        }
    }
    return false;
}

/* ---- the image ---- */

static void commit_image(const struct committing *committing)
{
    struct reconciler *reconciler = committing->reconciler;
    struct image_row *image = &reconciler->image_made;
    image->version = reconciler->model->image.version;
    image->seq = reconciler->model->image.seq;
    store_put(reconciler->store, committing->change, ROW_IMAGE, image);
    FOR_EACH_PROJECT(reconciler->model, project)
    {
        if (project->row.system_id[0] != '\0') {
            continue;
        }
        struct project_row row = project->row;
        snprintf(row.system_id, sizeof row.system_id, "%s", image->system_id);
        snprintf(row.bootstrap_object, sizeof row.bootstrap_object, "%s", image->object);
        store_put(reconciler->store, committing->change, ROW_PROJECT, &row);
        FOR_EACH_BRANCH(project, branch)
        {
            struct branch_row root = branch->row;
            if (branch->parent == NULL && root.start_lsn == LSN_NONE) {
                root.start_lsn = image->start_lsn;
                store_put(reconciler->store, committing->change, ROW_BRANCH, &root);
            }
        }
    }
    *image = (struct image_row){0};
}

/* ---- projects ---- */

/* K3: the generation is durable before anybody hears of it, and never issued twice. */
static void renew_generation(const struct committing *committing, const struct project *project)
{
    const struct node *node =
        nodes_find(committing->reconciler->nodes, NODE_PAGESERVER, project->row.pageserver);
    struct project_row row = project->row;
    row.generation++;
    snprintf(row.incarnation, sizeof row.incarnation, "%s", node->incarnation);
    log_info(
        NULL, "project %s: the pageserver's disk is a new one, attaching with generation %" PRIu64,
        row.id, row.generation);
    store_put(committing->reconciler->store, committing->change, ROW_PROJECT, &row);
}

/* Until here its keys could ask for its operations; now there is nothing that they open. */
static void purge_project(const struct committing *committing, struct project *project)
{
    FOR_EACH_OPERATION(project, operation)
    {
        store_delete(
            committing->reconciler->store, committing->change, ROW_OPERATION, &operation->row);
    }
    FOR_EACH_USAGE(project, usage)
    {
        store_delete(committing->reconciler->store, committing->change, ROW_USAGE, &usage->row);
    }
    FOR_EACH_KEY(committing->reconciler->model, key)
    {
        if (strcmp(key->row.project_id, project->row.id) == 0) {
            store_delete(committing->reconciler->store, committing->change, ROW_KEY, &key->row);
        }
    }
    store_delete(committing->reconciler->store, committing->change, ROW_PROJECT, &project->row);
    list_push_back(&committing->reconciler->purges, &project->in_purge);
}

bool project_has_expired(const struct project *project, wall_us_t now)
{
    return project_is_recoverable(project) && project->row.recoverable_until <= now;
}

static void new_operation(
    const struct committing *committing,
    const char *project_id,
    enum operation_action action,
    const char *branch_id,
    const char *endpoint_id)
{
    struct operation_row row = {.action = action, .status = STATUS_RUNNING};
    name_operation(row.id);
    snprintf(row.project_id, sizeof row.project_id, "%s", project_id);
    snprintf(row.branch_id, sizeof row.branch_id, "%s", branch_id);
    snprintf(row.endpoint_id, sizeof row.endpoint_id, "%s", endpoint_id);
    store_put(committing->reconciler->store, committing->change, ROW_OPERATION, &row);
}

/* The same rows that a DELETE for good puts: everything leaves in one commit. */
static void expire_project(const struct committing *committing, struct project *project)
{
    struct project_row row = project->row;
    row.state = PROJECT_DELETING;
    row.recoverable_until = 0;
    log_info(NULL, "project %s (%s) can be recovered no more: deleting it", row.id, row.name);
    store_put(committing->reconciler->store, committing->change, ROW_PROJECT, &row);
    end_operations(committing, &project->running, STATUS_CANCELLED, "");
    new_operation(committing, row.id, ACTION_TENANT_DETACH, "", "");
    FOR_EACH_ENDPOINT(project, endpoint)
    {
        if (endpoint_is_live(endpoint)) {
            struct endpoint_row leaving = endpoint->row;
            leaving.wanted = ENDPOINT_DELETING;
            store_put(committing->reconciler->store, committing->change, ROW_ENDPOINT, &leaving);
            end_operations(committing, &endpoint->running, STATUS_CANCELLED, "");
        }
    }
    FOR_EACH_BRANCH(project, branch)
    {
        if (branch_is_live(branch)) {
            struct branch_row leaving = branch->row;
            leaving.state = BRANCH_DELETING;
            leaving.state_changed_at = committing->now;
            store_put(committing->reconciler->store, committing->change, ROW_BRANCH, &leaving);
            end_operations(committing, &branch->running, STATUS_CANCELLED, "");
        }
    }
}

static void commit_project(struct committing *committing, struct project *project)
{
    struct plan_project_view view;
    struct plan plan;
    view_project(committing->reconciler, project, &view);
    plan_project(&view, &plan);
    if (project_has_expired(project, reconciler_calendar(committing->reconciler))) {
        committing->full = true; /* it touches rows of other objects: alone in its commit */
        if (committing->change->count == 0) {
            expire_project(committing, project);
        } else {
            list_push_back(&committing->reconciler->commit_projects, &project->in_commit);
        }
    } else if (plan_has(&plan, PLAN_RENEW_GENERATION)) {
        renew_generation(committing, project);
    } else if (plan_has(&plan, PLAN_COMMIT)) {
        struct project_row row = project->row;
        row.state = PROJECT_DELETED;
        row.deleted_at = reconciler_calendar(committing->reconciler);
        store_put(committing->reconciler->store, committing->change, ROW_PROJECT, &row);
        end_operations(committing, &project->running, STATUS_FINISHED, "");
    } else if (plan_has(&plan, PLAN_PURGE) && !project->attempt.running) {
        purge_project(committing, project);
    } else {
        expire_operations(committing, &project->running);
    }
}

/* ---- branches ---- */

static bool branch_has_steps(const struct branch *branch)
{
    bool running = branch->pageserver_attempt.running;
    for (size_t i = 0; i < SAFEKEEPERS_MAX; i++) {
        running = running || branch->safekeeper_attempts[i].running;
    }
    for (size_t i = 0; i < MEMBERS_MAX; i++) {
        running = running || branch->member_attempts[i].running;
    }
    for (size_t i = 0; i < LEFT_MAX; i++) {
        running = running || branch->left_attempts[i].running;
    }
    return running;
}

/* The safekeepers that hold it now, or did since the last commit, have held it, for ever. */
static void confirm_safekeepers(const struct branch *branch, struct branch_row *row)
{
    for (size_t i = 0; i < row->safekeepers.count; i++) {
        uint64_t id = row->safekeepers.ids[i];
        bool held = branch->on_safekeeper[i] == SEEN_PRESENT || branch->held[i];
        if (held && !node_set_has(&row->confirmed, id)) {
            row->confirmed.ids[row->confirmed.count++] = id;
        }
    }
}

static void end_change(const struct committing *committing, struct branch *branch)
{
    struct branch_row row = branch->row;
    if (!branch_end_change(branch, &row)) {
        return; /* planned again with the next answer */
    }
    log_info(
        NULL, "branch %s: membership generation %" PRIu64 ", %s", row.id, row.membership_generation,
        branch->row.change_given_up ? "the change was given up" : "the change is done");
    store_put(committing->reconciler->store, committing->change, ROW_BRANCH, &row);
    end_operations(committing, &branch->running, STATUS_FINISHED, "");
}

static void forget_left(const struct committing *committing, struct branch *branch)
{
    struct branch_row row = branch->row;
    row.left_safekeepers = (struct node_set){0};
    for (size_t i = 0; i < branch->row.left_safekeepers.count; i++) {
        if (branch->on_left[i] != SEEN_ABSENT) {
            row.left_safekeepers.ids[row.left_safekeepers.count++] =
                branch->row.left_safekeepers.ids[i];
        }
    }
    store_put(committing->reconciler->store, committing->change, ROW_BRANCH, &row);
}

/* As far as the agent has seen, and a gateway has let nobody in since. */
static uint64_t idle_ms_of(const struct endpoint *endpoint)
{
    return endpoint->connected_at == 0
               ? endpoint->idle_ms
               : MIN_OF(endpoint->idle_ms, (clock_mono() - endpoint->connected_at) / NS_PER_MS);
}

/*
 * The past that a read-only endpoint with a suspend timeout shows: it comes up, or somebody has
 * worked there within that time. Its lease is the least that it lives, not the most.
 */
static bool is_at_work(const struct branch *branch)
{
    FOR_EACH_ENDPOINT_OF(branch, endpoint)
    {
        bool is_up = endpoint->seen == COMPUTE_RUNNING &&
                     idle_ms_of(endpoint) < endpoint->row.suspend_timeout_seconds * 1000;
        bool works = endpoint->row.wanted == ENDPOINT_RESTARTING ||
                     (endpoint->row.wanted == ENDPOINT_ACTIVE &&
                      (is_up || !list_is_empty(&endpoint->running)));
        if (branch->row.is_ephemeral && endpoint->row.suspend_timeout_seconds != 0 && works) {
            return true;
        }
    }
    return false;
}

bool branch_has_an_end(const struct branch *branch)
{
    const struct branch_row *row = &branch->row;
    return branch_is_live(branch) &&
           (row->expires_at != 0 || row->recoverable_until != 0 || row->is_retired);
}

/*
 * A branch that others hang on, or that is protected meanwhile, stays until that has changed. One
 * that is retired goes when nothing hangs on it any more.
 */
bool branch_has_expired(const struct branch *branch, wall_us_t now)
{
    const struct branch_row *row = &branch->row;
    if (branch_is_recoverable(branch)) {
        return row->recoverable_until <= now;
    }
    if (!branch_is_live(branch) || row->is_default || row->is_protected) {
        return false;
    }
    if (row->is_retired) {
        return branch_live_children(branch) == 0;
    }
    return row->expires_at != 0 && row->expires_at <= now && branch_shown_children(branch) == 0 &&
           !is_at_work(branch) && !project_is_recoverable(branch->project);
}

/* The same rows that a DELETE of the branch puts, which leaves it recoverable. */
static void set_branch_aside(
    const struct committing *committing, struct branch *branch, wall_us_t window)
{
    wall_us_t now = reconciler_calendar(committing->reconciler);
    struct branch_row row = branch->row;
    branch_set_aside(&row, now, now + window);
    row.has_expired = true;
    log_info(
        NULL, "branch %s (%s) has expired: it can be recovered until %s", row.id, row.name,
        time_text(row.recoverable_until).text);
    store_put(committing->reconciler->store, committing->change, ROW_BRANCH, &row);
    FOR_EACH_ENDPOINT_OF(branch, endpoint)
    {
        if (endpoint_is_live(endpoint) && endpoint->row.wanted != ENDPOINT_IDLE) {
            struct endpoint_row idle = endpoint->row;
            idle.wanted = ENDPOINT_IDLE;
            store_put(committing->reconciler->store, committing->change, ROW_ENDPOINT, &idle);
            end_operations(committing, &endpoint->running, STATUS_CANCELLED, "");
            new_operation(
                committing, row.project_id, ACTION_SUSPEND_COMPUTE, row.id, endpoint->row.id);
        }
    }
}

/* The same rows that a DELETE of the branch puts, which may set it aside or be for good. */
static void expire_branch(const struct committing *committing, struct branch *branch)
{
    wall_us_t window = (wall_us_t)committing->reconciler->options.recovery_window_ms * 1000;
    struct branch_row row = branch->row;
    if (window != 0 && branch_may_be_set_aside(branch)) {
        set_branch_aside(committing, branch, window);
        return;
    }
    branch_take_leave(branch, &row);
    row.state_changed_at = committing->now;
    log_info(NULL, "branch %s (%s) has expired: deleting it", row.id, row.name);
    store_put(committing->reconciler->store, committing->change, ROW_BRANCH, &row);
    end_operations(committing, &branch->running, STATUS_CANCELLED, "");
    if (!row.is_retired) {
        new_operation(committing, row.project_id, ACTION_DELETE_TIMELINE, row.id, "");
    }
    FOR_EACH_ENDPOINT_OF(branch, endpoint)
    {
        if (endpoint_is_live(endpoint)) {
            struct endpoint_row leaving = endpoint->row;
            leaving.wanted = ENDPOINT_DELETING;
            store_put(committing->reconciler->store, committing->change, ROW_ENDPOINT, &leaving);
            end_operations(committing, &endpoint->running, STATUS_CANCELLED, "");
            new_operation(
                committing, row.project_id, ACTION_SUSPEND_COMPUTE, row.id, endpoint->row.id);
        }
    }
}

static void commit_branch(struct committing *committing, struct branch *branch)
{
    struct plan_branch_view view;
    struct plan plan;
    view_branch(branch, &view);
    plan_branch(&view, &plan);
    if (branch_has_expired(branch, reconciler_calendar(committing->reconciler))) {
        committing->full = true; /* it touches rows of other objects: alone in its commit */
        if (committing->change->count == 0) {
            expire_branch(committing, branch);
        } else {
            list_push_back(&committing->reconciler->commit_branches, &branch->in_commit);
        }
    } else if (plan_has(&plan, PLAN_COMMIT)) {
        struct branch_row row = branch->row;
        row.state = row.state == BRANCH_INIT ? BRANCH_READY : BRANCH_DELETED;
        row.state_changed_at = committing->now;
        confirm_safekeepers(branch, &row);
        store_put(committing->reconciler->store, committing->change, ROW_BRANCH, &row);
        end_operations(committing, &branch->running, STATUS_FINISHED, "");
    } else if (plan_has(&plan, PLAN_END_CHANGE)) {
        end_change(committing, branch);
    } else if (plan_has(&plan, PLAN_FORGET_LEFT)) {
        forget_left(committing, branch);
    } else if (plan_has(&plan, PLAN_CONFIRM)) {
        struct branch_row row = branch->row;
        confirm_safekeepers(branch, &row);
        row.is_cut_off = row.is_cut_off || view.cuts_off;
        store_put(committing->reconciler->store, committing->change, ROW_BRANCH, &row);
    } else if (plan_has(&plan, PLAN_PURGE) && !branch_has_steps(branch)) {
        FOR_EACH_USAGE(branch, usage)
        {
            store_delete(committing->reconciler->store, committing->change, ROW_USAGE, &usage->row);
        }
        store_delete(committing->reconciler->store, committing->change, ROW_BRANCH, &branch->row);
        list_push_back(&committing->reconciler->purges, &branch->in_purge);
    } else {
        expire_operations(committing, &branch->running);
    }
}

/* ---- endpoints ---- */

static void give_way(const struct committing *committing, struct endpoint *endpoint)
{
    struct endpoint_row row = endpoint->row;
    row.wanted = ENDPOINT_IDLE;
    row.suspended_at = committing->now;
    if (endpoint->seen == COMPUTE_REFUSED) {
        snprintf(
            row.last_error, sizeof row.last_error, "its settings are refused: %.*s",
            (int)(sizeof row.last_error - sizeof "its settings are refused: "),
            endpoint->seen_error);
    } else {
        snprintf(
            row.last_error, sizeof row.last_error,
            "fenced: another compute writes to this branch; start the endpoint to take over");
    }
    log_warn(NULL, "endpoint %s: %s", row.id, row.last_error);
    store_put(committing->reconciler->store, committing->change, ROW_ENDPOINT, &row);
    end_operations(committing, &endpoint->running, STATUS_FAILED, row.last_error);
}

/* To the host with the fewest computes; without one it stays wanted, and waits for one. */
static void move_compute(const struct committing *committing, struct endpoint *endpoint)
{
    struct reconciler *reconciler = committing->reconciler;
    const struct node *agent = place_on(reconciler->model, reconciler->nodes, NODE_AGENT);
    struct endpoint_row row = endpoint->row;
    struct errmsg msg;
    /* The next poll of any agent plans it again: there may be no room, and a commit can fail. */
    if (!list_link_is_in(&endpoint->in_homeless)) {
        list_push_back(&reconciler->homeless, &endpoint->in_homeless);
    }
    if (agent == NULL || !agent->reachable) {
        expire_operations(committing, &endpoint->running);
        return;
    }
    const struct port_wish wish = {
        .agent = agent->id,
        .host = agent->host,
        .first = reconciler->options.port_first,
        .last = reconciler->options.port_last};
    if (port_choose(reconciler->model, &wish, &row.port, &msg) != ERR_OK) {
        log_warn(NULL, "endpoint %s cannot move to another host: %s", row.id, msg.text);
        expire_operations(committing, &endpoint->running);
        return;
    }
    row.agent = agent->id;
    log_warn(
        NULL, "endpoint %s: its host %" PRIu64 " is gone, starting it on host %" PRIu64, row.id,
        endpoint->row.agent, row.agent);
    store_put(reconciler->store, committing->change, ROW_ENDPOINT, &row);
}

/* It has stopped; now it is to run. */
static void half_restart(const struct committing *committing, struct endpoint *endpoint)
{
    struct endpoint_row row = endpoint->row;
    row.wanted = ENDPOINT_ACTIVE;
    row.suspended_at = committing->now;
    store_put(committing->reconciler->store, committing->change, ROW_ENDPOINT, &row);
    FOR_EACH_RUNNING(endpoint, operation)
    {
        if (operation->row.action == ACTION_SUSPEND_COMPUTE) {
            end_operation(committing, operation, STATUS_FINISHED, "");
        }
    }
}

static void record_endpoint(const struct committing *committing, struct endpoint *endpoint)
{
    struct endpoint_row row = endpoint->row;
    bool started = false;
    if (row.wanted == ENDPOINT_RESTARTING) {
        half_restart(committing, endpoint);
        return;
    }
    LIST_FOR_EACH(&endpoint->running, link)
    {
        const struct operation *operation = CONTAINER_OF(link, struct operation, in_target);
        started = started || operation->row.action == ACTION_START_COMPUTE;
    }
    if (row.wanted == ENDPOINT_ACTIVE) {
        row.started_at = started ? committing->now : row.started_at;
        row.last_error[0] = '\0';
    } else {
        row.suspended_at = committing->now;
    }
    store_put(committing->reconciler->store, committing->change, ROW_ENDPOINT, &row);
    end_operations(committing, &endpoint->running, STATUS_FINISHED, "");
}

/* Nobody has worked on it, and no gateway has let anybody in, for as long as its endpoint says. */
bool endpoint_may_sleep(const struct reconciler *reconciler, const struct endpoint *endpoint)
{
    uint64_t after_ms = endpoint->row.suspend_timeout_seconds * 1000;
    uint64_t idle_ms = idle_ms_of(endpoint);
    if (after_ms == 0) {
        after_ms = reconciler->options.suspend_after_ms;
    }
    return endpoint->row.wanted == ENDPOINT_ACTIVE && endpoint->seen == COMPUTE_RUNNING &&
           list_is_empty(&endpoint->running) && !endpoint->row.never_suspends && after_ms != 0 &&
           idle_ms >= after_ms;
}

/* The same rows that a POST .../suspend puts. */
static void put_to_sleep(const struct committing *committing, struct endpoint *endpoint)
{
    struct endpoint_row row = endpoint->row;
    row.wanted = ENDPOINT_IDLE;
    row.last_error[0] = '\0';
    log_info(
        NULL, "endpoint %s: no work for %" PRIu64 " s, suspending it", row.id,
        endpoint->idle_ms / 1000);
    endpoint->idle_ms = 0;
    store_put(committing->reconciler->store, committing->change, ROW_ENDPOINT, &row);
    new_operation(
        committing, row.project_id, ACTION_SUSPEND_COMPUTE, endpoint->branch->row.id, row.id);
}

/* Reached with everything that the branch wants: what it wanted gone is gone. */
static bool forgets_dropped(const struct endpoint *endpoint)
{
    return endpoint->row.type == ENDPOINT_READ_WRITE && endpoint->row.wanted == ENDPOINT_ACTIVE &&
           endpoint->branch->row.dropped != NULL;
}

static void forget_dropped(const struct committing *committing, const struct branch *branch)
{
    struct branch_row row = branch->row;
    row.dropped = NULL;
    store_put(committing->reconciler->store, committing->change, ROW_BRANCH, &row);
}

static void commit_endpoint(struct committing *committing, struct endpoint *endpoint)
{
    struct plan_endpoint_view view;
    struct plan plan;
    view_endpoint(committing->reconciler, endpoint, &view);
    plan_endpoint(&view, &plan);
    if (plan_has(&plan, PLAN_MOVE_COMPUTE)) {
        committing->full = true; /* the next one's port and place depend on it */
        if (committing->change->count == 0) {
            move_compute(committing, endpoint);
        } else {
            list_push_back(&committing->reconciler->commit_endpoints, &endpoint->in_commit);
        }
    } else if (plan_has(&plan, PLAN_GIVE_WAY)) {
        give_way(committing, endpoint);
    } else if (endpoint_may_sleep(committing->reconciler, endpoint)) {
        put_to_sleep(committing, endpoint);
    } else if (plan_has(&plan, PLAN_COMMIT) && forgets_dropped(endpoint)) {
        committing->full = true; /* it touches another object's row: alone in its commit */
        if (committing->change->count == 0) {
            record_endpoint(committing, endpoint);
            forget_dropped(committing, endpoint->branch);
        } else {
            list_push_back(&committing->reconciler->commit_endpoints, &endpoint->in_commit);
        }
    } else if (plan_has(&plan, PLAN_COMMIT)) {
        record_endpoint(committing, endpoint);
    } else if (plan_has(&plan, PLAN_PURGE) && !endpoint->attempt.running) {
        end_operations(committing, &endpoint->running, STATUS_FINISHED, "");
        store_delete(
            committing->reconciler->store, committing->change, ROW_ENDPOINT, &endpoint->row);
        list_push_back(&committing->reconciler->purges, &endpoint->in_purge);
    } else {
        expire_operations(committing, &endpoint->running);
    }
}

err_t commit_prepare(struct change *change, struct errmsg *msg)
{
    (void)msg;
    struct reconciler *reconciler = CONTAINER_OF(change, struct reconciler, commit);
    struct committing committing = {
        .reconciler = reconciler, .change = change, .now = clock_wall()};
    struct list_link *link = NULL;
    if (reconciler->image_made.id[0] != '\0') {
        commit_image(&committing); /* alone: it touches rows that may also be in the lists */
        return ERR_OK;
    }
    for (size_t i = 0;
         i < COMMIT_OBJECTS_MAX && change->count < COMMIT_ROWS_MAX && !committing.full; i++) {
        if ((link = list_pop_front(&reconciler->commit_endpoints)) != NULL) {
            commit_endpoint(&committing, CONTAINER_OF(link, struct endpoint, in_commit));
        } else if ((link = list_pop_front(&reconciler->commit_branches)) != NULL) {
            commit_branch(&committing, CONTAINER_OF(link, struct branch, in_commit));
        } else if ((link = list_pop_front(&reconciler->commit_projects)) != NULL) {
            commit_project(&committing, CONTAINER_OF(link, struct project, in_commit));
        } else {
            break;
        }
    }
    return ERR_OK;
}
