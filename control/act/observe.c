/*
 * observe.c - polls of the nodes: what they hold against what the catalog says.
 *
 * A poll that crossed a step may be older than the step's answer. The worst that comes of it is one
 * more idempotent request.
 */
#include <stdio.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "control/act/reconcile_private.h"
#include "control/act/sizes.h"
#include "control/model/members.h"

/* ---- timelines, as listed by a safekeeper or a pageserver ---- */

struct listing {
    struct reconciler *reconciler;
    struct node *node;
    size_t unknown, lost;
    bool is_unchanged; /* the safekeeper has listed the same before, and nothing is listed now */
    bool is_settled;   /* nothing is on its way: the same list will need no other answer */
};

#define ORPHAN_TIMEOUT_MS 20000
/* A safekeeper is asked for its whole list now and then even if it says that it is the same. */
#define UNCHANGED_MAX 12

/* Index in seen_poll: 0 pageserver, then the safekeepers of the branch; -1: not on this node. */
static int slot_of(const struct branch *branch, const struct node *node)
{
    if (node->kind == NODE_PAGESERVER) {
        return branch->project->row.pageserver == node->id ? 0 : -1;
    }
    for (size_t i = 0; i < branch->row.safekeepers.count; i++) {
        if (branch->row.safekeepers.ids[i] == node->id) {
            return (int)i + 1;
        }
    }
    return -1;
}

static void note_timeline(
    struct listing *listing, const char *timeline, const struct doc *of_timeline)
{
    struct branch *branch = model_branch_of_timeline(listing->reconciler->model, timeline);
    int slot = branch == NULL ? -1 : slot_of(branch, listing->node);
    if (slot < 0) {
        listing->unknown++; /* not ours to delete: the catalog may be the one that is wrong */
        return;
    }
    branch->seen_poll[slot] = listing->node->polls;
    if (slot == 0) {
        lsn_t cutoff_lsn = LSN_NONE, durable_lsn = LSN_NONE;
        err_ignore(
            doc_opt_lsn(of_timeline, "last_record_lsn", &branch->last_lsn, NULL),
            "then nothing new is counted");
        err_ignore(doc_opt_lsn(of_timeline, "cutoff_lsn", &cutoff_lsn, NULL), "the same as before");
        err_ignore(
            doc_opt_lsn(of_timeline, "durable_lsn", &durable_lsn, NULL), "the same as before");
        sizes_listed_timeline(branch, cutoff_lsn, durable_lsn);
        /* What was told may have gone with a disk: the object store had an older row. */
        err_ignore(
            doc_opt_u64(of_timeline, "membership_generation", &branch->pageserver_generation, NULL),
            "then what it was told counts");
    }
}

static void note_deletions(
    const struct listing *listing, struct project *project, const struct doc *deleted)
{
    project->deletions_poll = deleted == NULL ? 0 : listing->node->polls;
    for (size_t i = 0; i < doc_count(deleted); i++) {
        const char *timeline = doc_value_str(doc_at(deleted, i));
        struct branch *branch =
            timeline == NULL ? NULL
                             : model_branch_of_timeline(listing->reconciler->model, timeline);
        if (branch != NULL && branch->project == project) {
            branch->stored_poll = listing->node->polls;
        }
    }
}

static void note_tenant(struct listing *listing, const char *tenant, const struct doc *of_tenant)
{
    struct project *project = model_project_of_tenant(listing->reconciler->model, tenant);
    if (project != NULL && listing->node->kind == NODE_PAGESERVER &&
        project->row.pageserver == listing->node->id) {
        uint64_t window = project->row.history_retention_seconds;
        uint64_t generation = project->row.generation;
        project->seen_poll = listing->node->polls;
        sizes_listed(project);
        err_ignore(
            doc_opt_u64(of_tenant, "history_retention_seconds", &window, NULL),
            "a pageserver that does not say has the right one");
        err_ignore(doc_opt_u64(of_tenant, "generation", &generation, NULL), "as above");
        project->seen_outdated = window != project->row.history_retention_seconds ||
                                 generation < project->row.generation;
        note_deletions(listing, project, doc_get(of_tenant, "deleted_timelines"));
    }
}

/* "HEX", {"timeline": "HEX"} or {"timeline_id": "HEX"}; the same for tenants. */
static const char *id_in(const struct doc *value, const char *key, const char *long_key)
{
    const char *text = doc_value_str(value);
    if (text == NULL) {
        text = doc_value_str(doc_get(value, key));
    }
    return text != NULL ? text : doc_value_str(doc_get(value, long_key));
}

static void note_timelines(struct listing *listing, const struct doc *timelines)
{
    for (size_t i = 0; i < doc_count(timelines); i++) {
        const char *timeline = id_in(doc_at(timelines, i), "timeline", "timeline_id");
        if (timeline != NULL) {
            note_timeline(listing, timeline, doc_at(timelines, i));
        }
    }
}

static void note_body(struct listing *listing, const struct doc *body)
{
    const struct doc *tenants = doc_is_array(body) ? body : doc_get(body, "tenants");
    note_timelines(listing, doc_get(body, "timelines"));
    for (size_t i = 0; i < doc_count(tenants); i++) {
        const struct doc *tenant = doc_at(tenants, i);
        const char *id = id_in(tenant, "tenant", "tenant_id");
        if (id != NULL) {
            note_tenant(listing, id, tenant);
        }
        if (doc_is_object(tenant)) {
            note_timelines(listing, doc_get(tenant, "timelines"));
        }
    }
}

static void compare_project(struct listing *listing, struct project *project)
{
    if (listing->node->kind == NODE_PAGESERVER && !project->attempt.running) {
        bool listed = project->seen_poll == listing->node->polls;
        project->on_pageserver = !listed                  ? SEEN_ABSENT
                                 : project->seen_outdated ? SEEN_UNKNOWN /* attach again */
                                                          : SEEN_PRESENT;
    }
    work_project(listing->reconciler, project);
}

/*
 * A pageserver whose disk is lost has what the object store says: a timeline that is deleted comes
 * back with it, until the newest index does without it.
 */
static bool is_forgotten(const struct listing *listing, const struct branch *branch, bool is_listed)
{
    uint64_t poll = listing->node->polls;
    return !is_listed && branch->project->deletions_poll == poll && branch->stored_poll != poll &&
           poll > branch->deleted_poll;
}

static void note_presence(const struct listing *listing, struct branch *branch, int slot)
{
    enum seen *seen = slot == 0 ? &branch->on_pageserver : &branch->on_safekeeper[slot - 1];
    const struct attempt *attempt =
        slot == 0 ? &branch->pageserver_attempt : &branch->safekeeper_attempts[slot - 1];
    bool listed = branch->seen_poll[slot] == listing->node->polls;
    if (!attempt->running) {
        *seen = listed ? SEEN_PRESENT : SEEN_ABSENT;
        if (slot == 0) {
            branch->is_forgotten = is_forgotten(listing, branch, listed);
        }
    }
    if (slot > 0) {
        /* Once may be a poll that is older than the creation. */
        uint8_t *missed = &branch->missed[slot - 1];
        bool *held = &branch->held[slot - 1];
        *held = listed || (*held && branch->row.state == BRANCH_READY); /* before, nobody writes */
        *missed = listed ? 0 : (uint8_t)MIN_OF(*missed + 1, 2);
    }
}

/* What it held and does not hold any more, it will not get again. */
static bool is_lost_there(const struct branch *branch, const struct node *node, int slot)
{
    return slot > 0 && branch->missed[slot - 1] == 2 && branch_is_live(branch) &&
           node_set_has(&branch->row.confirmed, node->id);
}

static void compare_branch(struct listing *listing, struct branch *branch)
{
    int slot = slot_of(branch, listing->node);
    if (slot < 0) {
        return;
    }
    if (!listing->is_unchanged) {
        note_presence(listing, branch, slot);
    }
    enum seen seen = slot == 0 ? branch->on_pageserver : branch->on_safekeeper[slot - 1];
    bool as_wanted = branch_is_live(branch) == (seen == SEEN_PRESENT);
    bool is_lost = is_lost_there(branch, listing->node, slot);
    bool is_running = slot > 0 && branch->safekeeper_attempts[slot - 1].running;
    listing->lost += is_lost;
    listing->is_settled &= (as_wanted || is_lost) && !is_running;
    if (!as_wanted || branch->row.state != BRANCH_READY ||
        branch->row.confirmed.count < branch->row.safekeepers.count) {
        work_branch(listing->reconciler, branch);
    }
}

/* What may be asked for next time. */
static void note_digest(const struct listing *listing, const struct doc *body)
{
    struct node *node = listing->node;
    const char *digest = doc_value_str(doc_get(body, "digest"));
    node->unchanged = listing->is_unchanged ? node->unchanged + 1 : 0;
    bool may_ask = node->unchanged < UNCHANGED_MAX && listing->is_settled && digest != NULL &&
                   strlen(digest) < sizeof node->known;
    snprintf(node->known, sizeof node->known, "%s", may_ask ? digest : "");
}

static void observe_timelines(
    struct reconciler *reconciler, struct node *node, const struct doc *body)
{
    struct listing listing = {
        .reconciler = reconciler,
        .node = node,
        .is_unchanged = doc_get(body, "unchanged") != NULL,
        .is_settled = true,
    };
    note_body(&listing, body);
    if (listing.unknown > 0 && node->polls == 1) {
        log_warn(
            NULL,
            "%s %" PRIu64
            " holds %zu timelines that the catalog does not know; they are left alone",
            node_kind_name(node->kind), node->id, listing.unknown);
    }
    FOR_EACH_PROJECT(reconciler->model, project)
    {
        compare_project(&listing, project);
        FOR_EACH_BRANCH(project, branch)
        {
            compare_branch(&listing, branch);
            if (branch_generation(&branch->row) > 1) {
                work_branch(reconciler, branch); /* a change, or what is left of one */
            }
        }
    }
    if (node->kind == NODE_SAFEKEEPER) {
        note_digest(&listing, body);
    }
    if (listing.lost != node->lost) {
        log_error(
            NULL,
            "%s %" PRIu64 " has lost %zu timelines that it held: they are not created again there, "
            "because it may have voted; the other safekeepers go on without it",
            node_kind_name(node->kind), node->id, listing.lost);
        node->lost = listing.lost;
    }
}

/* ---- computes, as listed by an agent ---- */

static enum compute_seen compute_state(const char *text)
{
    static const struct {
        const char *text;
        enum compute_seen seen;
    } states[] = {
        {"starting", COMPUTE_STARTING}, {"running", COMPUTE_RUNNING},
        {"stopping", COMPUTE_STOPPING}, {"stopped", COMPUTE_STOPPED},
        {"failed", COMPUTE_FAILED},     {"refused", COMPUTE_REFUSED},
        {"fenced", COMPUTE_FENCED},
    };
    for (size_t i = 0; i < ARRAY_LEN(states); i++) {
        if (text != NULL && strcmp(states[i].text, text) == 0) {
            return states[i].seen;
        }
    }
    return COMPUTE_UNKNOWN;
}

void observe_compute(struct endpoint *endpoint, const struct doc *status)
{
    enum compute_seen before = endpoint->seen;
    const char *step = doc_value_str(doc_get(status, "step"));
    const char *error = doc_value_str(doc_get(status, "error"));
    const char *timeline = doc_value_str(doc_get(status, "timeline"));
    endpoint->seen_timeline = (struct timeline_id){0};
    if (timeline != NULL) {
        err_ignore(
            timeline_id_parse(timeline, &endpoint->seen_timeline, NULL), "none: then not compared");
    }
    endpoint->seen = compute_state(doc_value_str(doc_get(status, "state")));
    snprintf(endpoint->seen_step, sizeof endpoint->seen_step, "%s", step == NULL ? "" : step);
    snprintf(endpoint->seen_error, sizeof endpoint->seen_error, "%s", error == NULL ? "" : error);
    if (endpoint->seen != COMPUTE_FAILED || before == COMPUTE_FAILED) {
        return;
    }
    /* It came up and fell, or never came up: start it again, but not in a circle. */
    endpoint->attempt.failures = (uint8_t)MIN_OF(endpoint->attempt.failures + 1, 200);
    uint64_t delay_ms = MIN_OF((uint64_t)200 << MIN_OF(endpoint->attempt.failures, 6), 10000);
    endpoint->attempt.next = clock_mono() + delay_ms * NS_PER_MS;
    log_warn(NULL, "%s: compute failed: %s", endpoint->row.id, endpoint->seen_error);
    LIST_FOR_EACH(&endpoint->running, link)
    {
        struct operation *operation = CONTAINER_OF(link, struct operation, in_target);
        operation->failures_count++;
        operation->retry_at = clock_wall() + (wall_us_t)delay_ms * 1000;
        snprintf(
            operation->failure.text, sizeof operation->failure.text, "%s", endpoint->seen_error);
    }
}

struct orphan_stop {
    struct node_call call;
    struct reconciler *reconciler;
};

static void on_orphan_stopped(struct node_call *call)
{
    struct orphan_stop *stop = CONTAINER_OF(call, struct orphan_stop, call);
    stop->reconciler->orphan_running = false;
    stop->reconciler->steps_running--;
    mem_free(stop);
}

/*
 * A compute of one of our tenants under an id that looks like ours but is in no row. Others are
 * left alone: somebody started them by hand, and the terms keep them harmless.
 */
static void stop_orphan(
    struct reconciler *reconciler, struct node *node, const char *id, const char *tenant)
{
    if (reconciler->orphan_running || reconciler->stopping || !str_starts_with(id, "ep-") ||
        tenant == NULL || model_project_of_tenant(reconciler->model, tenant) == NULL ||
        strlen(id) >= ROW_ID_SIZE) {
        return;
    }
    struct buf path = {0};
    rpc_path(&path, RPC_AGENT_DELETE_COMPUTE, id);
    log_warn(
        NULL, "agent %" PRIu64 " runs compute %s, which is not wanted: deleting it", node->id, id);
    struct orphan_stop *stop = MEM_NEW(struct orphan_stop);
    stop->reconciler = reconciler;
    stop->call.done = on_orphan_stopped;
    reconciler->orphan_running = true;
    reconciler->steps_running++;
    node_call_start(
        &stop->call, node, RPC_AGENT_DELETE_COMPUTE, buf_cstr(&path), NULL, ORPHAN_TIMEOUT_MS);
    buf_deinit(&path);
}

static void observe_computes(
    struct reconciler *reconciler, struct node *node, const struct doc *body)
{
    const struct doc *computes = doc_is_array(body) ? body : doc_get(body, "computes");
    for (size_t i = 0; i < doc_count(computes); i++) {
        const struct doc *status = doc_at(computes, i);
        const char *id = id_in(status, "id", "compute_id");
        struct endpoint *endpoint = id == NULL ? NULL : model_endpoint(reconciler->model, id);
        if (endpoint != NULL && endpoint->row.agent == node->id) {
            endpoint->seen_poll = node->polls;
            if (!endpoint->attempt.running) {
                observe_compute(endpoint, status);
            }
            endpoint->idle_ms = 0;
            err_ignore(
                doc_opt_u64(status, "idle_ms", &endpoint->idle_ms, NULL), "then it is not idle");
            if (endpoint_may_sleep(reconciler, endpoint)) {
                mark_for_commit(
                    reconciler, &(struct target){
                                    .project = endpoint->project,
                                    .branch = endpoint->branch,
                                    .endpoint = endpoint});
            }
        } else if (id != NULL) { /* nobody's, or it has moved to another host meanwhile */
            stop_orphan(reconciler, node, id, doc_value_str(doc_get(status, "tenant")));
        }
    }
    for (struct list_link *link; (link = list_pop_front(&reconciler->homeless)) != NULL;) {
        /* This one may take it. */
        work_endpoint(reconciler, CONTAINER_OF(link, struct endpoint, in_homeless));
    }
    FOR_EACH_PROJECT(reconciler->model, project)
    {
        FOR_EACH_ENDPOINT(project, endpoint)
        {
            if (endpoint->row.agent != node->id) {
                continue;
            }
            if (endpoint->seen_poll != node->polls && !endpoint->attempt.running) {
                endpoint->seen = COMPUTE_ABSENT;
            }
            work_endpoint(reconciler, endpoint);
            work_branch(reconciler, endpoint->branch);
        }
    }
}

void observe_poll(struct nodes_user *user, struct node *node, const struct doc *body)
{
    struct reconciler *reconciler = CONTAINER_OF(user, struct reconciler, nodes_user);
    if (reconciler->stopping || reconciler->nodes == NULL) {
        return;
    }
    if (node->kind == NODE_AGENT) {
        observe_computes(reconciler, node, body);
        if (reconciler->model->image.id[0] == '\0') {
            image_ensure(reconciler); /* before the first project asks for it */
        }
    } else {
        observe_timelines(reconciler, node, body);
    }
}
