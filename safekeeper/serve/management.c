#include "safekeeper/serve/management.h"

#include <stdio.h>

#include "common/base/checksum.h"
#include "common/base/log.h"
#include "common/base/mark.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "common/base/parse.h"
#include "common/io/file.h"
#include "safekeeper/disk/tombstone.h"
#include "safekeeper/serve/describe.h"
#include "safekeeper/serve/management_private.h"
#include "safekeeper/timeline/forget.h"

METRIC_COUNTER(lists, "safekeeper_lists_total", "lists of all timelines that were sent");
METRIC_COUNTER(
    lists_unchanged, "safekeeper_lists_unchanged_total", "lists that the asker knew already");

#define OPERATIONS_MAX 256 /* creations, deletions and digests under way */

static struct server *server_of(struct http_context *context)
{
    return CONTAINER_OF(context, struct server, http);
}

static err_t take_ids(
    const struct http_request *request,
    struct tenant_id *ret_tenant,
    struct timeline_id *ret_id,
    struct errmsg *msg)
{
    TRY(tenant_id_parse(http_request_param(request, "tenant"), ret_tenant, msg));
    return timeline_id_parse(http_request_param(request, "timeline"), ret_id, msg);
}

void handle_get_status(struct http_context *context, struct http_request *request)
{
    struct server *server = server_of(context);
    struct doc *body = doc_object();
    (void)doc_set_int(body, "node_id", (int64_t)server->options.node_id);
    (void)doc_set_str(body, "incarnation", server->incarnation);
    (void)doc_set_int(body, "listen_port", server_port(server));
    (void)doc_set_int(body, "timelines", (int64_t)timeline_set_count(server->timelines));
    (void)doc_set_int(body, "resting", (int64_t)timeline_set_resting_count(server->timelines));
    http_respond_json(request, 200, body);
}

struct list_visitor {
    struct timeline_visitor as_visitor;
    bool is_brief;
    struct doc *timelines;
};

static void list_timeline(
    struct timeline_visitor *visitor,
    struct tenant_id tenant,
    struct timeline_id id,
    struct timeline *tl)
{
    struct list_visitor *list = CONTAINER_OF(visitor, struct list_visitor, as_visitor);
    if (tl != NULL && !list->is_brief) {
        (void)doc_push(list->timelines, describe_timeline(tl));
        return;
    }
    struct doc *body = doc_object();
    (void)doc_set_tenant(body, "tenant", tenant);
    (void)doc_set_timeline(body, "timeline", id);
    if (tl == NULL) {
        (void)doc_set_str(body, "storage", "opening");
    }
    (void)doc_push(list->timelines, body);
}

/*
 * All timelines. Who asks again and again shows the digest of the last answer, and is told no more
 * than that it still holds; `brief`: the ids alone.
 */
void handle_get_tenants(struct http_context *context, struct http_request *request)
{
    struct server *server = server_of(context);
    const char *known = http_request_query(request, "known");
    char digest[17];
    (void)snprintf(
        digest, sizeof(digest), "%016" PRIx64,
        timeline_set_digest(server->timelines) ^
            hash64(server->incarnation, strlen(server->incarnation), 0)); /* no other disk's */
    struct doc *body = doc_set_str(doc_object(), "incarnation", server->incarnation);
    (void)doc_set_str(body, "digest", digest);
    if (known != NULL && strcmp(known, digest) == 0) {
        metric_add(&lists_unchanged, 1);
        http_respond_json(request, 200, doc_set_bool(body, "unchanged", true));
        return;
    }
    metric_add(&lists, 1);
    struct list_visitor visitor = {
        .as_visitor.visit = list_timeline,
        .is_brief = http_request_query(request, "brief") != NULL,
        .timelines = doc_array(),
    };
    timeline_set_visit(server->timelines, &visitor.as_visitor);
    http_respond_json(request, 200, doc_set(body, "timelines", visitor.timelines));
}

void handle_get_timeline(struct http_context *context, struct http_request *request)
{
    struct server *server = server_of(context);
    struct errmsg msg;
    struct tenant_id tenant;
    struct timeline_id id;
    err_t err = take_ids(request, &tenant, &id, &msg);
    struct timeline *tl = err == ERR_OK ? timeline_set_find(server->timelines, tenant, id) : NULL;
    if (err == ERR_OK && tl == NULL) {
        err = err_set(&msg, ERR_NOT_FOUND, "no timeline %s here", timeline_id_text(id).text);
    }
    if (err != ERR_OK) {
        http_respond_error(request, err, &msg);
        return;
    }
    http_respond_json(request, 200, describe_timeline(tl));
}

/* ---- operations: what does not answer at once ---- */

void operation_finish(struct operation *op)
{
    struct server *server = op->server;
    list_remove(&op->in_server);
    timeline_read_deinit(&op->read);
    buf_deinit(&op->digest_wal);
    timeline_unref(op->tl);
    mem_free(op);
    server_step_stopped(server);
}

/* It is closed. */
static void forget_timeline(struct operation *op)
{
    timeline_set_remove(op->server->timelines, op->tl);
    timeline_unref(op->tl);
    op->tl = NULL;
}

static void start_timeline(struct operation *op, const struct control_state *create)
{
    op->tl = timeline_ref(timeline_set_start(op->server->timelines, op->tenant, op->id, create));
}

void operation_finish_with_error(struct operation *op, err_t err, const struct errmsg *msg)
{
    http_respond_error(op->request, err, msg);
    operation_finish(op);
}

static void finish_with_status(struct operation *op, unsigned status)
{
    http_respond_json(op->request, status, describe_timeline(op->tl));
    operation_finish(op);
}

struct operation *operation_create(
    struct server *server, struct http_request *request, bool is_exclusive)
{
    struct errmsg msg;
    struct tenant_id tenant;
    struct timeline_id id;
    size_t count = 0;
    err_t err = take_ids(request, &tenant, &id, &msg);
    LIST_FOR_EACH(&server->operations, link)
    {
        struct operation *other = CONTAINER_OF(link, struct operation, in_server);
        count++;
        if (err == ERR_OK && is_exclusive && timeline_id_equal(other->id, id)) {
            err = err_set(&msg, ERR_BUSY, "another request changes this timeline, try again");
        }
    }
    if (err == ERR_OK && (count >= OPERATIONS_MAX || server->is_stopping)) {
        err = err_set(&msg, ERR_BUSY, "limit: %d operations under way", OPERATIONS_MAX);
    }
    if (err != ERR_OK) {
        http_respond_error(request, err, &msg);
        return NULL;
    }
    struct operation *op = MEM_NEW(struct operation);
    op->server = server;
    op->request = request;
    op->tenant = tenant;
    op->id = id;
    struct timeline *tl = timeline_set_find(server->timelines, tenant, id);
    op->tl = tl == NULL ? NULL : timeline_ref(tl);
    (void)snprintf(
        op->tenant_dir, sizeof(op->tenant_dir), "%.900s/%s", server->env.data_dir,
        tenant_id_text(tenant).text);
    list_push_back(&server->operations, &op->in_server);
    server->closing_left++;
    return op;
}

static void submit(struct operation *op, err_t (*run)(struct job *), void (*done)(struct job *))
{
    op->job.run = run;
    op->job.done = done;
    executor_submit(op->server->env.executor, &op->job);
}

/* ---- creation ---- */

/* What never changes; a membership does. */
static bool is_same(const struct control_state *a, const struct control_state *b)
{
    return a->params.system_id == b->params.system_id &&
           a->params.pg_version == b->params.pg_version &&
           a->params.segment_size == b->params.segment_size &&
           a->acceptor.start_lsn == b->acceptor.start_lsn;
}

static void on_report(struct timeline_report_waiter *waiter)
{
    struct operation *op = CONTAINER_OF(waiter, struct operation, report_waiter);
    struct errmsg msg;
    if (timeline_state(op->tl) == TIMELINE_OPEN) {
        finish_with_status(op, 200);
        return;
    }
    err_t err = err_set(&msg, ERR_FAILED, "storage: %s", timeline_storage_text(op->tl));
    operation_finish_with_error(op, err, &msg);
}

/* Answered when all of it is on disk: the answer is a promise. */
static void set_membership(struct operation *op)
{
    struct errmsg msg;
    err_t err = timeline_set_membership(
        op->tl, &op->wanted.membership, op->wanted.addresses, op->term, &msg);
    if (err != ERR_OK) {
        operation_finish_with_error(op, err, &msg);
        return;
    }
    op->report_waiter.on_report = on_report;
    timeline_wait_report(op->tl, &op->report_waiter);
}

static err_t check_existing(const struct operation *op, struct errmsg *msg)
{
    switch (timeline_state(op->tl)) {
    case TIMELINE_OPEN: return ERR_OK;
    case TIMELINE_FAILED:
        return err_set(msg, ERR_FAILED, "storage: %s", timeline_storage_text(op->tl));
    case TIMELINE_OPENING:
    case TIMELINE_CLOSED: break;
    }
    return err_set(msg, ERR_BUSY, "the timeline is being deleted");
}

static void answer_existing(struct operation *op)
{
    struct errmsg msg;
    err_t err = check_existing(op, &msg);
    if (err == ERR_OK && !is_same(timeline_control(op->tl), &op->wanted)) {
        err = err_set(&msg, ERR_EXISTS, "the timeline exists with other parameters");
    }
    if (err != ERR_OK) {
        operation_finish_with_error(op, err, &msg);
        return;
    }
    set_membership(op);
}

static void on_existing_ready(struct timeline_waiter *waiter)
{
    answer_existing(CONTAINER_OF(waiter, struct operation, waiter));
}

/* A creation that failed promised nothing: no trace of it stays. */
static err_t run_cleanup(struct job *job)
{
    struct operation *op = CONTAINER_OF(job, struct operation, job);
    char path[PATH_SIZE];
    TRY(str_format(path, sizeof(path), &job->msg, "%s.new", timeline_dir(op->tl)));
    TRY(dir_remove(path, &job->msg));
    return dir_remove(timeline_dir(op->tl), &job->msg);
}

static void on_cleaned_up(struct job *job)
{
    struct operation *op = CONTAINER_OF(job, struct operation, job);
    err_ignore(job->result, "what is left is found, and opened or removed, at the next start");
    forget_timeline(op);
    operation_finish_with_error(op, op->failure, &op->failure_msg);
}

static void on_failed_creation_closed(struct timeline_closing *closing)
{
    submit(CONTAINER_OF(closing, struct operation, closing), run_cleanup, on_cleaned_up);
}

/* Only now: before, the tombstone still had to stand for the case of a crash. */
static err_t run_forget_tombstone(struct job *job)
{
    struct operation *op = CONTAINER_OF(job, struct operation, job);
    return tombstone_remove(op->tenant_dir, op->id, &job->msg);
}

static void on_tombstone_forgotten(struct job *job)
{
    struct operation *op = CONTAINER_OF(job, struct operation, job);
    err_ignore(job->result, "an older tombstone does not count against a newer membership");
    finish_with_status(op, 201);
}

static void on_created(struct timeline_waiter *waiter)
{
    struct operation *op = CONTAINER_OF(waiter, struct operation, waiter);
    if (timeline_state(op->tl) == TIMELINE_OPEN) {
        if (op->generation != 0) {
            submit(op, run_forget_tombstone, on_tombstone_forgotten);
        } else {
            finish_with_status(op, 201);
        }
        return;
    }
    if (timeline_state(op->tl) == TIMELINE_CLOSED) { /* we stop */
        struct errmsg msg;
        err_t err = err_set(&msg, ERR_CANCELED, "the safekeeper stops");
        operation_finish_with_error(op, err, &msg);
        return;
    }
    op->failure = err_set(
        &op->failure_msg, timeline_failure(op->tl), "create timeline %s: %s",
        timeline_id_text(op->id).text, timeline_storage_text(op->tl));
    op->closing.on_closed = on_failed_creation_closed;
    timeline_close(op->tl, &op->closing);
}

static err_t run_look_for_tombstone(struct job *job)
{
    struct operation *op = CONTAINER_OF(job, struct operation, job);
    err_t err = tombstone_read(op->tenant_dir, op->tenant, op->id, &op->generation, &job->msg);
    return err == ERR_NOT_FOUND ? ERR_OK : err;
}

static void on_tombstone_looked_for(struct job *job)
{
    struct operation *op = CONTAINER_OF(job, struct operation, job);
    struct errmsg *msg = &job->msg;
    if (job->result != ERR_OK) {
        operation_finish_with_error(op, job->result, msg);
        return;
    }
    if (op->generation >= op->wanted.membership.generation) {
        MARK("management.put.tombstone");
        char text[160];
        (void)snprintf(
            text, sizeof(text), "timeline %s was deleted under generation %u",
            timeline_id_text(op->id).text, op->generation);
        http_respond_problem(op->request, 410, "deleted", text);
        operation_finish(op);
        return;
    }
    if (op->server->is_stopping ||
        timeline_set_count(op->server->timelines) >= op->server->options.timelines_max) {
        err_t err =
            err_set(msg, ERR_BUSY, "limit: timelines_max %zu", op->server->options.timelines_max);
        operation_finish_with_error(op, err, msg);
        return;
    }
    start_timeline(op, &op->wanted);
    op->waiter.on_ready = on_created;
    timeline_wait_ready(op->tl, &op->waiter);
}

void handle_put_timeline(struct http_context *context, struct http_request *request)
{
    struct operation *op = operation_create(server_of(context), request, true);
    struct errmsg msg;
    if (op == NULL) {
        return;
    }
    err_t err = take_wanted(op, &msg);
    if (err != ERR_OK) {
        operation_finish_with_error(op, err, &msg);
    } else if (op->tl == NULL) {
        submit(op, run_look_for_tombstone, on_tombstone_looked_for);
    } else if (timeline_state(op->tl) == TIMELINE_OPENING) {
        op->waiter.on_ready = on_existing_ready;
        timeline_wait_ready(op->tl, &op->waiter);
    } else {
        answer_existing(op);
    }
}

/* ---- membership: of a timeline that is here; nothing is created ---- */

static void answer_membership(struct operation *op)
{
    struct errmsg msg;
    err_t err = check_existing(op, &msg);
    if (err != ERR_OK) {
        operation_finish_with_error(op, err, &msg);
        return;
    }
    set_membership(op);
}

static void on_member_ready(struct timeline_waiter *waiter)
{
    answer_membership(CONTAINER_OF(waiter, struct operation, waiter));
}

static err_t take_new_membership(struct operation *op, struct errmsg *msg)
{
    struct doc *body = NULL;
    TRY(http_request_json(op->request, &body, msg));
    TRY(take_membership(body, &op->wanted, msg));
    return doc_opt_u64(body, "term", &op->term, msg);
}

void handle_put_membership(struct http_context *context, struct http_request *request)
{
    struct operation *op = operation_create(server_of(context), request, true);
    struct errmsg msg;
    if (op == NULL) {
        return;
    }
    err_t err = take_new_membership(op, &msg);
    if (err == ERR_OK && op->tl == NULL) {
        err = err_set(&msg, ERR_NOT_FOUND, "no timeline %s here", timeline_id_text(op->id).text);
    }
    if (err != ERR_OK) {
        operation_finish_with_error(op, err, &msg);
    } else if (timeline_state(op->tl) == TIMELINE_OPENING) {
        op->waiter.on_ready = on_member_ready;
        timeline_wait_ready(op->tl, &op->waiter);
    } else {
        answer_membership(op);
    }
}

/* ---- deletion ---- */

/* The tombstone first: from then on the timeline is gone, whenever we crash. */
static err_t run_delete(struct job *job)
{
    struct operation *op = CONTAINER_OF(job, struct operation, job);
    struct errmsg *msg = &job->msg;
    char dir[PATH_SIZE], removed[PATH_SIZE];
    generation_t known = 0;
    TRY(dir_create(op->tenant_dir, msg));
    TRY(file_sync_dir(op->server->env.data_dir, msg));
    err_t err = tombstone_read(op->tenant_dir, op->tenant, op->id, &known, msg);
    if (err != ERR_OK && err != ERR_NOT_FOUND) {
        return err;
    }
    TRY(tombstone_write(op->tenant_dir, op->tenant, op->id, MAX_OF(known, op->generation), msg));
    TRY(str_format(dir, sizeof(dir), msg, "%s/%s", op->tenant_dir, timeline_id_text(op->id).text));
    TRY(str_format(removed, sizeof(removed), msg, "%s.removed", dir));
    if (!file_exists(dir)) {
        return ERR_OK;
    }
    TRY(dir_remove(removed, msg));
    TRY(file_rename_durably(dir, removed, msg));
    return dir_remove(removed, msg);
}

static void on_deleted(struct job *job)
{
    struct operation *op = CONTAINER_OF(job, struct operation, job);
    if (op->tl != NULL) {
        forget_timeline(op);
    }
    if (job->result != ERR_OK) {
        operation_finish_with_error(op, job->result, &job->msg);
        return;
    }
    log_info(
        NULL, "deleted timeline %s under generation %u", timeline_id_text(op->id).text,
        op->generation);
    http_respond_json(op->request, 200, doc_object());
    operation_finish(op);
}

static void on_delete_closed(struct timeline_closing *closing)
{
    submit(CONTAINER_OF(closing, struct operation, closing), run_delete, on_deleted);
}

void handle_delete_timeline(struct http_context *context, struct http_request *request)
{
    struct operation *op = operation_create(server_of(context), request, true);
    struct errmsg msg;
    if (op == NULL) {
        return;
    }
    uint64_t generation = 0;
    const char *text = http_request_query(request, "generation");
    err_t err = text == NULL ? err_set(&msg, ERR_INVALID, "generation=N is missing")
                             : parse_u64(text, 1, UINT32_MAX, &generation, &msg);
    op->generation = (generation_t)generation;
    if (err == ERR_OK && op->tl != NULL) {
        enum timeline_state state = timeline_state(op->tl);
        if (state == TIMELINE_OPENING || state == TIMELINE_CLOSED) {
            err = err_set(&msg, ERR_BUSY, "the timeline is being opened or deleted, try again");
        } else if (generation < timeline_control(op->tl)->membership.generation) {
            err = err_set(
                &msg, ERR_STALE, "generation %" PRIu64 " is older than the membership's %u",
                generation, timeline_control(op->tl)->membership.generation);
        }
    }
    if (err != ERR_OK) {
        operation_finish_with_error(op, err, &msg);
    } else if (op->tl == NULL) {
        submit(op, run_delete, on_deleted);
    } else {
        op->closing.on_closed = on_delete_closed;
        timeline_close(op->tl, &op->closing);
    }
}

/* ---- reopen: after a failure of the disk, without a restart of the process ---- */

static void on_reopened(struct timeline_waiter *waiter)
{
    finish_with_status(CONTAINER_OF(waiter, struct operation, waiter), 200);
}

static void on_closed_to_reopen(struct timeline_closing *closing)
{
    struct operation *op = CONTAINER_OF(closing, struct operation, closing);
    struct server *server = op->server;
    if (server->is_stopping) {
        struct errmsg msg;
        err_t err = err_set(&msg, ERR_CANCELED, "the safekeeper stops");
        operation_finish_with_error(op, err, &msg);
        return;
    }
    forget_timeline(op);
    start_timeline(op, NULL);
    op->waiter.on_ready = on_reopened;
    timeline_wait_ready(op->tl, &op->waiter);
}

void handle_post_reopen(struct http_context *context, struct http_request *request)
{
    struct operation *op = operation_create(server_of(context), request, true);
    struct errmsg msg;
    if (op == NULL) {
        return;
    }
    if (op->tl == NULL) {
        err_t err =
            err_set(&msg, ERR_NOT_FOUND, "no timeline %s here", timeline_id_text(op->id).text);
        operation_finish_with_error(op, err, &msg);
    } else if (timeline_state(op->tl) != TIMELINE_FAILED) {
        finish_with_status(op, 200); /* nothing to do */
    } else {
        op->closing.on_closed = on_closed_to_reopen;
        timeline_close(op->tl, &op->closing);
    }
}

static const struct http_route routes[] = {RPC_SAFEKEEPER(RPC_ROUTE)};

void management_add_routes(struct server *server, struct http_server *http)
{
    http_server_add_routes(http, routes, ARRAY_LEN(routes), &server->http);
}
