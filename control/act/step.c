/*
 * step.c - one step of a plan: which node, which request, what its answer means.
 *
 * Every request is idempotent. An answer only updates what was seen; then the target is planned
 * again, and so is what waited for it.
 */
#include <stdio.h>

#include "common/base/clock.h"
#include "common/base/fault.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "control/act/reconcile_private.h"
#include "control/model/members.h"

#define STEP_TIMEOUT_MS   20000
#define IMAGE_TIMEOUT_MS  180000
#define BACKOFF_FIRST_MS  50
#define BACKOFF_MAX_MS    5000
#define BACKOFF_BUSY_MS   200
#define ASK_WAIT_MS       2000 /* so long the agent may wait for a compute to change */
#define ASK_AGAIN_MS      200  /* when it did not wait */
#define TELL_AGAIN_MS     100  /* a new member that still copies */
#define ERASED_AGAIN_MS   500  /* a tenant of which something is left in the object store */
#define ERASED_DOUBLINGS  5    /* which may be away for hours: asked ever more rarely */
#define WAL_SEGMENT_SIZE  (16 * MIB)
#define COMPUTE_STOP_MODE "fast"
#define UNIT_MEMORY_MB    4096 /* of a compute unit, which is one processor */

METRIC_COUNTER(steps_total, "control_steps_total", "steps sent to nodes");
METRIC_COUNTER(
    steps_failed_total, "control_steps_failed_total", "steps that failed and are retried");

static struct node *member_node(
    struct reconciler *reconciler, const struct plan_step *planned, const struct branch *branch)
{
    uint64_t left[LEFT_MAX];
    if (planned->kind == PLAN_DELETE_LEFT) {
        size_t count = branch_left(branch, left);
        ASSERT(planned->safekeeper < count);
        return nodes_find(reconciler->nodes, NODE_SAFEKEEPER, left[planned->safekeeper]);
    }
    struct membership membership = branch_membership(&branch->row);
    ASSERT(planned->safekeeper < membership.count);
    return nodes_find(reconciler->nodes, NODE_SAFEKEEPER, membership.members[planned->safekeeper]);
}

struct node *step_node(
    struct reconciler *reconciler, const struct plan_step *planned, const struct target *target)
{
    switch (planned->kind) {
    case PLAN_ATTACH_TENANT:
    case PLAN_DETACH_TENANT:
    case PLAN_CREATE_ON_PAGESERVER:
    case PLAN_DELETE_ON_PAGESERVER:
        return nodes_find(reconciler->nodes, NODE_PAGESERVER, target->project->row.pageserver);
    case PLAN_CREATE_ON_SAFEKEEPER:
    case PLAN_DELETE_ON_SAFEKEEPER:
        return nodes_find(
            reconciler->nodes, NODE_SAFEKEEPER,
            target->branch->row.safekeepers.ids[planned->safekeeper]);
    case PLAN_JOIN_SAFEKEEPER:
    case PLAN_TELL_SAFEKEEPER:
    case PLAN_DELETE_LEFT: return member_node(reconciler, planned, target->branch);
    case PLAN_START_COMPUTE:
    case PLAN_STOP_COMPUTE:
    case PLAN_DELETE_COMPUTE:
    case PLAN_ASK_COMPUTE:
        return nodes_find(reconciler->nodes, NODE_AGENT, target->endpoint->row.agent);
    case PLAN_MAKE_IMAGE: return nodes_first(reconciler->nodes, NODE_AGENT);
    case PLAN_RENEW_GENERATION:
    case PLAN_GIVE_WAY:
    case PLAN_MOVE_COMPUTE:
    case PLAN_CONFIRM:
    case PLAN_END_CHANGE:
    case PLAN_FORGET_LEFT:
    case PLAN_COMMIT:
    case PLAN_PURGE: break;
    }
    return NULL;
}

/* ---- bodies ---- */

/* {id, host, port}, with the HTTP address too when `with_http`. */
static struct doc *member_doc(struct reconciler *reconciler, uint64_t id, bool with_http)
{
    const struct node *node = nodes_find(reconciler->nodes, NODE_SAFEKEEPER, id);
    struct doc *member = doc_set_int(doc_object(), "id", (int64_t)id);
    doc_set_str(member, "host", node == NULL ? "" : node->host);
    doc_set_int(member, "port", node == NULL ? 0 : node->port);
    if (with_http) {
        doc_set_str(member, "http_host", node == NULL ? "" : node->host);
        doc_set_int(member, "http_port", node == NULL ? 0 : node->http_port);
    }
    return member;
}

static struct doc *safekeepers_doc(
    struct reconciler *reconciler, const struct branch *branch, bool with_http)
{
    struct doc *array = doc_array();
    for (size_t i = 0; i < branch->row.safekeepers.count; i++) {
        doc_push(array, member_doc(reconciler, branch->row.safekeepers.ids[i], with_http));
    }
    return array;
}

static struct doc *tenant_body(const struct project *project)
{
    struct doc *body = doc_set_int(doc_object(), "generation", (int64_t)project->row.generation);
    return doc_set_int(
        body, "history_retention_seconds", (int64_t)project->row.history_retention_seconds);
}

static struct doc *pageserver_timeline_body(
    struct reconciler *reconciler, const struct branch *branch)
{
    const struct project *project = branch->project;
    struct doc *body = tenant_body(project);
    doc_set_int(body, "pg_version", (int64_t)project->row.pg_version);
    doc_set_str(body, "system_id", project->row.system_id);
    if (branch->parent == NULL) {
        doc_set_lsn(body, "start_lsn", branch->row.start_lsn);
        doc_set_str(body, "bootstrap_object", project->row.bootstrap_object);
    } else {
        doc_set_timeline(body, "parent", branch->parent->row.timeline);
        doc_set_lsn(body, "branch_lsn", branch->row.start_lsn);
    }
    doc_set(body, "safekeepers", safekeepers_doc(reconciler, branch, false));
    doc_set_int(body, "membership_generation", (int64_t)branch->row.membership_generation);
    return body;
}

static struct doc *membership_doc(struct reconciler *reconciler, const struct branch *branch)
{
    struct membership membership = branch_membership(&branch->row);
    struct doc *members = doc_array();
    for (uint32_t i = 0; i < membership.count; i++) {
        struct doc *member = member_doc(reconciler, membership.members[i], true);
        bool is_old = (membership.old_set & 1u << i) != 0;
        bool is_new = (membership.new_set & 1u << i) != 0;
        if (is_old != is_new) {
            doc_set_str(member, "set", is_old ? "old" : "new");
        }
        doc_push(members, member);
    }
    struct doc *doc = doc_set_int(doc_object(), "generation", (int64_t)membership.generation);
    return doc_set(doc, "members", members);
}

static struct doc *safekeeper_timeline_body(
    struct reconciler *reconciler, const struct branch *branch)
{
    struct doc *body = doc_set_lsn(doc_object(), "start_lsn", branch->row.start_lsn);
    doc_set_int(body, "pg_version", (int64_t)branch->project->row.pg_version);
    doc_set_str(body, "system_id", branch->project->row.system_id);
    doc_set_int(body, "segment_size", (int64_t)WAL_SEGMENT_SIZE);
    return doc_set(body, "membership", membership_doc(reconciler, branch));
}

/* For a newcomer: only on the disk that it had when the change began. */
static struct doc *join_body(const struct step *step, const struct branch *branch)
{
    char id[24];
    struct doc *body = safekeeper_timeline_body(step->reconciler, branch);
    snprintf(id, sizeof id, "%" PRIu64, step->node_id);
    const char *disk = doc_value_str(doc_get(branch->row.change_disks, id));
    return disk == NULL ? body : doc_set_str(body, "incarnation", disk);
}

static struct doc *tell_body(const struct step *step, const struct branch *branch)
{
    struct doc *body = doc_object();
    if (branch->row.change_generation != 0) {
        doc_set_int(body, "term", (int64_t)branch_judge(branch).term);
    }
    return doc_set(body, "membership", membership_doc(step->reconciler, branch));
}

/* A read_only compute shows its LSN; that a user who asks for it may write there harms nobody. */
static struct doc *compute_settings(const struct endpoint *endpoint)
{
    struct doc *settings =
        endpoint->row.settings == NULL ? doc_object() : doc_copy(endpoint->row.settings);
    if (endpoint->row.type == ENDPOINT_READ_ONLY) {
        doc_set_str(settings, "default_transaction_read_only", "on");
        doc_set_str(settings, "autovacuum", "off");
    }
    return settings;
}

static struct doc *compute_body(struct reconciler *reconciler, const struct endpoint *endpoint)
{
    const struct branch *branch = endpoint->branch;
    const struct project *project = endpoint->project;
    const struct node *pageserver =
        nodes_find(reconciler->nodes, NODE_PAGESERVER, project->row.pageserver);
    const struct node *agent = nodes_find(reconciler->nodes, NODE_AGENT, endpoint->row.agent);
    struct doc *body = doc_set_tenant(doc_object(), "tenant", project->row.tenant);
    doc_set_timeline(body, "timeline", branch->row.timeline);
    doc_set_str(body, "system_id", project->row.system_id);
    doc_set_int(body, "pg_version", (int64_t)project->row.pg_version);
    doc_set_int(body, "port", (int64_t)endpoint->row.port);
    doc_set_str(
        body, "listen_host",
        agent != NULL && agent->listen_host[0] != '\0' ? agent->listen_host
                                                       : reconciler->options.compute_listen_host);
    doc_set(body, "safekeepers", safekeepers_doc(reconciler, branch, true));
    doc_set_int(body, "membership_generation", (int64_t)branch->row.membership_generation);
    doc_set_int(body, "generation", (int64_t)project->row.generation);
    if (pageserver != NULL) {
        struct buf url = {0};
        node_url(pageserver, "", &url);
        struct doc *address = doc_set_str(doc_object(), "host", pageserver->host);
        doc_set_int(address, "port", pageserver->port);
        doc_set_str(address, "http_url", buf_cstr(&url));
        buf_deinit(&url);
        doc_set(body, "pageserver", address);
    }
    if (branch->parent != NULL) {
        doc_set_bool(body, "branch", true);
        doc_set_bool(body, "quarantine", !branch->row.is_cut_off);
    }
    doc_set(body, "settings", compute_settings(endpoint));
    if (endpoint->row.cu_max_milli != 0) {
        uint64_t milli = endpoint->row.cu_max_milli;
        struct doc *size = doc_set_int(doc_object(), "cpu_milli", (int64_t)milli);
        doc_set(
            body, "size", doc_set_int(size, "memory_mb", (int64_t)(milli * UNIT_MEMORY_MB / 1000)));
    }
    doc_set(body, "roles", branch->row.roles == NULL ? doc_array() : doc_copy(branch->row.roles));
    doc_set(
        body, "databases",
        branch->row.databases == NULL ? doc_array() : doc_copy(branch->row.databases));
    if (branch->row.dropped != NULL) {
        doc_set(body, "dropped", doc_copy(branch->row.dropped));
    }
    return body;
}

/* ---- answers ---- */

static bool is_success(const struct step *step)
{
    unsigned status = step->call.status;
    switch (step->kind) {
    case PLAN_DETACH_TENANT:
    case PLAN_DELETE_ON_PAGESERVER:
    case PLAN_DELETE_ON_SAFEKEEPER:
    case PLAN_DELETE_LEFT:
    case PLAN_DELETE_COMPUTE:
    case PLAN_STOP_COMPUTE:
    case PLAN_ASK_COMPUTE:
        return status / 100 == 2 || status == 404 || status == 410; /* it is gone */
    case PLAN_START_COMPUTE: return status / 100 == 2 || status == 409;
    case PLAN_ATTACH_TENANT:
    case PLAN_CREATE_ON_PAGESERVER:
    case PLAN_CREATE_ON_SAFEKEEPER:
    case PLAN_JOIN_SAFEKEEPER:
    case PLAN_TELL_SAFEKEEPER:
    case PLAN_MAKE_IMAGE:
    case PLAN_RENEW_GENERATION:
    case PLAN_GIVE_WAY:
    case PLAN_MOVE_COMPUTE:
    case PLAN_CONFIRM:
    case PLAN_END_CHANGE:
    case PLAN_FORGET_LEFT:
    case PLAN_COMMIT:
    case PLAN_PURGE: break;
    }
    return status / 100 == 2;
}

static void take_compute_answer(struct step *step)
{
    struct endpoint *endpoint = step->target.endpoint;
    unsigned status = step->call.status;
    if (step->kind == PLAN_START_COMPUTE && status == 409) {
        endpoint->recreate = true; /* it is there with other settings */
    } else if (status == 404 || status == 410) {
        endpoint->seen = COMPUTE_ABSENT;
        endpoint->recreate = false;
    } else if (step->kind == PLAN_DELETE_COMPUTE) {
        /* Gone only when the agent says 404: it may have to stop Postgres first. */
        endpoint->seen = COMPUTE_STOPPING;
    } else {
        observe_compute(endpoint, step->call.body);
        endpoint->told = step->kind == PLAN_START_COMPUTE ? step->wish : endpoint->told;
    }
}

/*
 * A compute that was told to go somewhere is asked after until it is there, and the agent answers
 * when it is: nobody waits for a timer, nor when it is being deleted. One that answers at once that
 * nothing has changed (it has too many who wait) is left alone for a while.
 */
static void pace_compute(struct step *step)
{
    struct endpoint *endpoint = step->target.endpoint;
    mono_ns_t now = clock_mono();
    bool waited = now - step->begun >= ASK_WAIT_MS / 2 * NS_PER_MS;
    if (plan_asks_in_vain(step->kind, step->seen, endpoint->seen, waited)) {
        step->attempt->next = now + ASK_AGAIN_MS * NS_PER_MS;
    }
}

void step_stop_asking(struct reconciler *reconciler, const struct endpoint *endpoint)
{
    LIST_FOR_EACH(&reconciler->asks, link)
    {
        struct step *step = CONTAINER_OF(link, struct step, in_asks);
        if (endpoint == NULL || step->target.endpoint == endpoint) {
            node_call_cancel(&step->call);
        }
    }
}

static void forget_timelines(struct reconciler *reconciler, struct project *project)
{
    FOR_EACH_BRANCH(project, branch)
    {
        branch->on_pageserver = SEEN_ABSENT;
        work_branch(reconciler, branch);
    }
}

static void take_erasure(struct step *step)
{
    struct project *project = step->target.project;
    project->is_erased = step->call.status == 404;
    if (project->is_erased) {
        project->erasures_asked = 0;
        return;
    }
    uint64_t pause_ms = (uint64_t)ERASED_AGAIN_MS << project->erasures_asked;
    project->erasures_asked = (uint8_t)MIN_OF(project->erasures_asked + 1, ERASED_DOUBLINGS);
    step->attempt->next = clock_mono() + pause_ms * NS_PER_MS;
}

static err_t read_report(const struct doc *body, struct change_report *ret, struct errmsg *msg)
{
    const struct doc *report = doc_get(body, "report");
    uint64_t generation = 0;
    struct change_report said = {.answered = true};
    TRY(doc_get_u64(report, "generation", &generation, msg));
    TRY(doc_get_u64(report, "term", &said.term, msg));
    TRY(doc_get_u64(report, "log_term", &said.log_term, msg));
    TRY(doc_get_lsn(report, "record_lsn", &said.record_lsn, msg));
    TRY(doc_get_u64(report, "suspect_term", &said.suspect_term, msg));
    TRY(doc_get_lsn(report, "suspect_lsn", &said.suspect_lsn, msg));
    said.generation = (generation_t)MIN_OF(generation, (uint64_t)UINT32_MAX);
    *ret = said;
    return ERR_OK;
}

/* The membership may have changed while the step ran: then the answer is about another one. */
static void take_report(struct step *step)
{
    struct branch *branch = step->target.branch;
    struct membership membership = branch_membership(&branch->row);
    uint32_t index = membership_index(&membership, step->node_id);
    struct change_report report;
    struct errmsg msg;
    if (index == membership.count || step->generation != membership.generation) {
        return;
    }
    if (read_report(step->call.body, &report, &msg) != ERR_OK) {
        step->attempt->next = clock_mono() + TELL_AGAIN_MS * NS_PER_MS; /* it has none just now */
        return;
    }
    branch->reports[index] = report;
    step->attempt->next = clock_mono() + TELL_AGAIN_MS * NS_PER_MS;
}

static void take_left(struct step *step)
{
    uint64_t left[LEFT_MAX];
    size_t count = branch_left(step->target.branch, left);
    for (size_t i = 0; i < count; i++) {
        if (left[i] == step->node_id) {
            step->target.branch->on_left[i] = SEEN_ABSENT;
        }
    }
}

static void take_answer(struct step *step)
{
    struct reconciler *reconciler = step->reconciler;
    struct project *project = step->target.project;
    struct branch *branch = step->target.branch;
    bool is_timeline =
        step->kind == PLAN_CREATE_ON_PAGESERVER || step->kind == PLAN_DELETE_ON_PAGESERVER ||
        step->kind == PLAN_CREATE_ON_SAFEKEEPER || step->kind == PLAN_DELETE_ON_SAFEKEEPER ||
        step->kind == PLAN_JOIN_SAFEKEEPER || step->kind == PLAN_TELL_SAFEKEEPER ||
        step->kind == PLAN_DELETE_LEFT;
    ASSERT(IMPLIES(is_timeline, branch != NULL));
    switch (step->kind) {
    case PLAN_ATTACH_TENANT:
        project->on_pageserver = SEEN_PRESENT;
        work_all_of(reconciler, project);
        break;
    case PLAN_DETACH_TENANT:
        project->on_pageserver = SEEN_ABSENT;
        take_erasure(step);
        forget_timelines(reconciler, project);
        break;
    case PLAN_CREATE_ON_PAGESERVER:
        branch->on_pageserver = SEEN_PRESENT;
        branch->pageserver_generation = step->membership_generation;
        work_children(reconciler, branch);
        break;
    case PLAN_DELETE_ON_PAGESERVER:
        branch->on_pageserver = SEEN_ABSENT;
        branch->is_forgotten = false;
        branch->deleted_poll = step->call.node->polls + 1; /* one may be on its way */
        if (branch->parent != NULL) {
            work_branch(reconciler, branch->parent);
        }
        break;
    case PLAN_CREATE_ON_SAFEKEEPER:
        branch->on_safekeeper[step->safekeeper] = SEEN_PRESENT;
        branch->held[step->safekeeper] = true;
        break;
    case PLAN_DELETE_ON_SAFEKEEPER: branch->on_safekeeper[step->safekeeper] = SEEN_ABSENT; break;
    case PLAN_JOIN_SAFEKEEPER:
    case PLAN_TELL_SAFEKEEPER: take_report(step); break;
    case PLAN_DELETE_LEFT: take_left(step); break;
    case PLAN_START_COMPUTE:
    case PLAN_STOP_COMPUTE:
    case PLAN_DELETE_COMPUTE:
    case PLAN_ASK_COMPUTE:
        take_compute_answer(step);
        pace_compute(step);
        work_branch(reconciler, branch); /* one that leaves waits for its computes */
        work_project(reconciler, project);
        break;
    case PLAN_MAKE_IMAGE:
    case PLAN_RENEW_GENERATION:
    case PLAN_GIVE_WAY:
    case PLAN_MOVE_COMPUTE:
    case PLAN_CONFIRM:
    case PLAN_END_CHANGE:
    case PLAN_FORGET_LEFT:
    case PLAN_COMMIT:
    case PLAN_PURGE: break;
    }
}

/* A node that is only busy ("try later") is asked again sooner than one that refuses or is away. */
static void back_off(struct attempt *attempt, bool busy)
{
    uint64_t delay_ms = BACKOFF_FIRST_MS << MIN_OF(attempt->failures, 7);
    uint64_t limit_ms = busy ? BACKOFF_BUSY_MS : BACKOFF_MAX_MS;
    attempt->failures = (uint8_t)MIN_OF(attempt->failures + 1, 200);
    attempt->next = clock_mono() + MIN_OF(delay_ms, limit_ms) * NS_PER_MS;
}

static void tell_operations(struct step *step, struct list *running)
{
    uint64_t delay_ns = step->attempt->next - clock_mono();
    LIST_FOR_EACH(running, link)
    {
        struct operation *operation = CONTAINER_OF(link, struct operation, in_target);
        operation->failures_count++;
        operation->retry_at = clock_wall() + (wall_us_t)(delay_ns / 1000);
        operation->failure = step->call.msg;
    }
}

static void take_failure(struct step *step)
{
    struct target *target = &step->target;
    struct attempt *attempt = step->attempt;
    back_off(attempt, step->call.status == 503);
    metric_add(&steps_failed_total, 1);
    /* The first of a row, then ever more rarely: a node may be away for hours. */
    if ((attempt->failures & (attempt->failures - 1)) == 0) {
        log_warn(
            NULL, "%s: %s (attempt %u, goes on)",
            target->endpoint != NULL ? target->endpoint->row.id
            : target->branch != NULL ? target->branch->row.id
                                     : target->project->row.id,
            step->call.msg.text, (unsigned)attempt->failures);
    }
    if (target->endpoint != NULL) {
        snprintf(
            target->endpoint->seen_error, sizeof target->endpoint->seen_error, "%s",
            step->call.msg.text);
    }
    if (step->kind == PLAN_START_COMPUTE && step->call.status == 400) {
        target->endpoint->seen = COMPUTE_REFUSED; /* the agent would say so every time */
        target->endpoint->told = step->wish;
    }
    tell_operations(
        step, target->endpoint != NULL ? &target->endpoint->running
              : target->branch != NULL ? &target->branch->running
                                       : &target->project->running);
}

/* For tests that kill control there. Looking again at a compute is no step of an operation. */
#define PASS(step, point)                                                                          \
    do {                                                                                           \
        if ((step)->kind != PLAN_ASK_COMPUTE) {                                                    \
            err_ignore(FAULT(point), "only a death makes a difference");                           \
        }                                                                                          \
    } while (0)

static void on_step_done(struct node_call *call)
{
    struct step *step = CONTAINER_OF(call, struct step, call);
    PASS(step, "step.after_answer");
    struct reconciler *reconciler = step->reconciler;
    step->attempt->running = false;
    reconciler->steps_running--;
    bool is_ask = step->kind == PLAN_ASK_COMPUTE;
    if (is_ask) {
        call->node->asks_running--;
        list_remove(&step->in_asks);
    } else {
        call->node->steps_running--;
    }
    if (step->kind == PLAN_DELETE_ON_PAGESERVER) {
        step->target.project->erasures_running--;
    }
    bool is_restored = step->target.branch != NULL &&
                       !timeline_id_equal(step->timeline, step->target.branch->row.timeline);
    bool is_moved =
        step->target.endpoint != NULL && step->target.endpoint->row.agent != step->node_id;
    bool is_ended = is_ask && call->http.result == ERR_CANCELED;
    if (is_restored || is_moved || is_ended) {
        step->attempt->next = 0; /* what was asked is no longer what is wanted: planned anew */
    } else if (is_success(step)) {
        step->attempt->next = 0;
        take_answer(step);
        if (step->target.endpoint == NULL || step->target.endpoint->seen == COMPUTE_RUNNING) {
            step->attempt->failures = 0; /* a compute that only began to start has not succeeded */
        }
    } else {
        take_failure(step);
    }
    if (step->target.endpoint != NULL) {
        work_endpoint(reconciler, step->target.endpoint);
    } else if (step->target.branch != NULL) {
        work_branch(reconciler, step->target.branch);
    } else {
        work_project(reconciler, step->target.project);
    }
    mem_free(step);
}

/* ---- requests ---- */

struct request {
    enum rpc_id id;
    struct buf path; /* with a query */
    struct doc *body;
};

static void of_project(const struct step *step, enum rpc_id id, struct request *ret)
{
    ret->id = id;
    rpc_path(&ret->path, id, tenant_id_text(step->target.project->row.tenant).text);
}

static void of_branch(const struct step *step, enum rpc_id id, struct request *ret)
{
    ret->id = id;
    rpc_path(
        &ret->path, id, tenant_id_text(step->target.project->row.tenant).text,
        timeline_id_text(step->target.branch->row.timeline).text);
}

static void of_compute(const struct step *step, enum rpc_id id, struct request *ret)
{
    ret->id = id;
    rpc_path(&ret->path, id, step->target.endpoint->row.id);
}

static void under_generation(uint64_t generation, struct request *ret)
{
    buf_printf(&ret->path, "?generation=%" PRIu64, generation);
}

/* Answered when it has arrived, not when we happen to ask. */
static void wait_while_it_moves(const struct endpoint *endpoint, struct request *ret)
{
    if (endpoint->seen == COMPUTE_STARTING || endpoint->seen == COMPUTE_STOPPING) {
        buf_printf(
            &ret->path, "?while=%s&wait_ms=%d",
            endpoint->seen == COMPUTE_STARTING ? "starting" : "stopping", ASK_WAIT_MS);
    }
}

static void make_request(const struct step *step, struct request *ret)
{
    struct reconciler *reconciler = step->reconciler;
    const struct project *project = step->target.project;
    const struct branch *branch = step->target.branch;
    switch (step->kind) {
    case PLAN_ATTACH_TENANT:
        of_project(step, RPC_PAGESERVER_PUT_TENANT, ret);
        ret->body = tenant_body(project);
        break;
    case PLAN_DETACH_TENANT:
        of_project(step, RPC_PAGESERVER_DELETE_TENANT, ret);
        under_generation(project->row.generation, ret);
        break;
    case PLAN_CREATE_ON_PAGESERVER:
        of_branch(step, RPC_PAGESERVER_PUT_TIMELINE, ret);
        ret->body = pageserver_timeline_body(reconciler, branch);
        break;
    case PLAN_DELETE_ON_PAGESERVER:
        of_branch(step, RPC_PAGESERVER_DELETE_TIMELINE, ret);
        under_generation(project->row.generation, ret);
        break;
    case PLAN_CREATE_ON_SAFEKEEPER:
        of_branch(step, RPC_SAFEKEEPER_PUT_TIMELINE, ret);
        ret->body = safekeeper_timeline_body(reconciler, branch);
        break;
    case PLAN_JOIN_SAFEKEEPER:
        of_branch(step, RPC_SAFEKEEPER_PUT_TIMELINE, ret);
        ret->body = join_body(step, branch);
        break;
    case PLAN_TELL_SAFEKEEPER:
        of_branch(step, RPC_SAFEKEEPER_PUT_MEMBERSHIP, ret);
        ret->body = tell_body(step, branch);
        break;
    case PLAN_DELETE_ON_SAFEKEEPER:
    case PLAN_DELETE_LEFT:
        of_branch(step, RPC_SAFEKEEPER_DELETE_TIMELINE, ret);
        under_generation(branch_generation(&branch->row), ret);
        break;
    case PLAN_START_COMPUTE:
        of_compute(step, RPC_AGENT_PUT_COMPUTE, ret);
        ret->body = compute_body(reconciler, step->target.endpoint);
        break;
    case PLAN_STOP_COMPUTE:
        of_compute(step, RPC_AGENT_STOP, ret);
        ret->body = doc_set_str(doc_object(), "mode", COMPUTE_STOP_MODE);
        break;
    case PLAN_DELETE_COMPUTE:
        of_compute(step, RPC_AGENT_DELETE_COMPUTE, ret);
        buf_printf(&ret->path, "?wait_ms=%d", ASK_WAIT_MS);
        break;
    case PLAN_ASK_COMPUTE:
        of_compute(step, RPC_AGENT_GET_COMPUTE, ret);
        wait_while_it_moves(step->target.endpoint, ret);
        break;
    case PLAN_MAKE_IMAGE:
    case PLAN_RENEW_GENERATION:
    case PLAN_MOVE_COMPUTE:
    case PLAN_GIVE_WAY:
    case PLAN_CONFIRM:
    case PLAN_END_CHANGE:
    case PLAN_FORGET_LEFT:
    case PLAN_COMMIT:
    case PLAN_PURGE: ASSERT(false);
    }
}

void step_start(struct step *step)
{
    struct request request = {0};
    struct plan_step planned = {.kind = step->kind, .safekeeper = step->safekeeper};
    struct node *node = step_node(step->reconciler, &planned, &step->target);
    make_request(step, &request);
    metric_add(&steps_total, 1);
    PASS(step, "step.before_send");
    if (step->kind == PLAN_ASK_COMPUTE) {
        list_push_back(&step->reconciler->asks, &step->in_asks);
    }
    if (step->target.endpoint != NULL) {
        step->seen = step->target.endpoint->seen;
        step->begun = clock_mono();
    }
    step->call.done = on_step_done;
    node_call_start(
        &step->call, node, request.id, buf_cstr(&request.path), request.body, STEP_TIMEOUT_MS);
    buf_deinit(&request.path);
}

/* ---- the bootstrap image: one step for all projects ---- */

static err_t read_image(const struct doc *body, struct image_row *ret_image, struct errmsg *msg)
{
    const char *object = NULL, *system_id = NULL;
    TRY(doc_get_str(body, "object", &object, msg));
    TRY(doc_get_str(body, "system_id", &system_id, msg));
    TRY(doc_get_u64(body, "pg_version", &ret_image->pg_version, msg));
    TRY(doc_get_lsn(body, "start_lsn", &ret_image->start_lsn, msg));
    TRY(str_copy(ret_image->object, sizeof ret_image->object, object, msg));
    TRY(str_copy(ret_image->system_id, sizeof ret_image->system_id, system_id, msg));
    if (ret_image->start_lsn == LSN_NONE) {
        return err_set(msg, ERR_INVALID, "start_lsn is 0/0");
    }
    snprintf(ret_image->id, sizeof ret_image->id, "pg%" PRIu64, ret_image->pg_version);
    return ERR_OK;
}

static void on_image_made(struct node_call *call)
{
    struct step *step = CONTAINER_OF(call, struct step, call);
    struct reconciler *reconciler = step->reconciler;
    struct image_row image = {0};
    err_t err = ERR_IO;
    reconciler->image_attempt.running = false;
    reconciler->steps_running--;
    if (call->status / 100 == 2) {
        err = read_image(call->body, &image, &call->msg);
    }
    if (err == ERR_OK) {
        reconciler->image_attempt.failures = 0;
        reconciler->image_made = image;
        log_info(NULL, "bootstrap image %s", image.object);
        commit_soon(reconciler);
    } else {
        back_off(&reconciler->image_attempt, false);
        log_warn(NULL, "bootstrap image: %s (goes on)", call->msg.text);
    }
    mem_free(step);
}

void image_ensure(struct reconciler *reconciler)
{
    struct node *node = nodes_first(reconciler->nodes, NODE_AGENT);
    bool known = reconciler->model->image.id[0] != '\0';
    if (known && reconciler->image_made.id[0] == '\0') {
        reconciler->image_made = reconciler->model->image; /* for projects that came before it */
        commit_soon(reconciler);
        return;
    }
    if (known || reconciler->image_made.id[0] != '\0' || reconciler->image_attempt.running ||
        reconciler->stopping || node == NULL || !node->reachable ||
        clock_mono() < reconciler->image_attempt.next) {
        return; /* polls of the agent come back to it */
    }
    struct step *step = MEM_NEW(struct step);
    step->reconciler = reconciler;
    step->kind = PLAN_MAKE_IMAGE;
    step->call.done = on_image_made;
    reconciler->image_attempt.running = true;
    reconciler->steps_running++;
    struct doc *body =
        doc_set_int(doc_object(), "pg_version", (int64_t)reconciler->options.pg_version);
    doc_set_str(body, "locale", reconciler->options.locale);
    struct buf path = {0};
    rpc_path(&path, RPC_AGENT_MAKE_IMAGE);
    node_call_start(
        &step->call, node, RPC_AGENT_MAKE_IMAGE, buf_cstr(&path), body, IMAGE_TIMEOUT_MS);
    buf_deinit(&path);
}
