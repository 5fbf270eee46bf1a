#include "safekeeper/serve/management.h"

#include <stdio.h>

#include "common/base/checksum.h"
#include "common/base/log.h"
#include "common/base/mark.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "common/base/parse.h"
#include "common/io/file.h"
#include "safekeeper/consensus/change.h"
#include "safekeeper/disk/tombstone.h"
#include "safekeeper/timeline/feed.h"
#include "safekeeper/timeline/forget.h"

METRIC_COUNTER(lists, "safekeeper_lists_total", "lists of all timelines that were sent");
METRIC_COUNTER(
    lists_unchanged, "safekeeper_lists_unchanged_total", "lists that the asker knew already");

#define SEGMENT_SIZE_DEFAULT (16 * MIB)
#define DIGEST_PIECE         (1 * MIB)
#define DIGEST_MAX           ((lsn_t)16 * GIB)
#define WAL_MAX              (16 * MIB) /* of one answer */
#define OPERATIONS_MAX       256        /* creations, deletions and digests under way */

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

/* ---- descriptions ---- */

static struct doc *describe_membership(const struct control_state *control)
{
    struct doc *members = doc_array();
    for (uint32_t i = 0; i < control->membership.count; i++) {
        const struct member_address *address = &control->addresses[i];
        struct doc *member = doc_object();
        (void)doc_set_int(member, "id", (int64_t)control->membership.members[i]);
        (void)doc_set_str(member, "host", address->host);
        (void)doc_set_int(member, "port", address->port);
        (void)doc_set_str(member, "http_host", address->http_host);
        (void)doc_set_int(member, "http_port", address->http_port);
        bool is_old = (control->membership.old_set & 1u << i) != 0;
        bool is_new = (control->membership.new_set & 1u << i) != 0;
        if (is_old != is_new) {
            (void)doc_set_str(member, "set", is_old ? "old" : "new");
        }
        (void)doc_push(members, member);
    }
    struct doc *membership = doc_object();
    (void)doc_set_int(membership, "generation", control->membership.generation);
    (void)doc_set_bool(membership, "joint", membership_is_joint(&control->membership));
    return doc_set(membership, "members", members);
}

static struct doc *describe_history(const struct term_history *history)
{
    struct doc *items = doc_array();
    for (uint32_t i = 0; i < history->count; i++) {
        struct doc *item = doc_object();
        (void)doc_set_int(item, "term", (int64_t)history->items[i].term);
        (void)doc_set_lsn(item, "lsn", history->items[i].lsn);
        (void)doc_push(items, item);
    }
    return items;
}

static struct doc *describe_feedback(const struct timeline_feedback *feedback)
{
    struct doc *doc = doc_object();
    (void)doc_set_int(doc, "generation", feedback->generation);
    (void)doc_set_lsn(doc, "received_lsn", feedback->received_lsn);
    (void)doc_set_lsn(doc, "durable_lsn", feedback->durable_lsn);
    return doc_set_lsn(doc, "remote_lsn", feedback->remote_lsn);
}

static struct doc *describe_feeds(const struct timeline *tl)
{
    struct doc *feeds = doc_array();
    for (size_t i = 0; i < timeline_feed_count(tl); i++) {
        struct feed_info info = timeline_feed_info(tl, i);
        struct doc *feed = describe_feedback(&info.feedback);
        (void)doc_set_int(feed, "peer", (int64_t)info.peer_id);
        (void)doc_set_lsn(feed, "sent_lsn", info.sent_lsn);
        (void)doc_push(feeds, feed);
    }
    return feeds;
}

/* For who changes the membership; absent while something is on its way to the disk. */
static void describe_report(const struct timeline *tl, struct doc *body)
{
    struct change_report report;
    if (!timeline_report(tl, &report)) {
        return;
    }
    struct doc *doc = doc_set_int(doc_object(), "generation", report.generation);
    (void)doc_set_int(doc, "term", (int64_t)report.term);
    (void)doc_set_int(doc, "log_term", (int64_t)report.log_term);
    (void)doc_set_lsn(doc, "record_lsn", report.record_lsn);
    (void)doc_set_int(doc, "suspect_term", (int64_t)report.suspect_term);
    (void)doc_set_lsn(doc, "suspect_lsn", report.suspect_lsn);
    (void)doc_set(body, "report", doc);
}

/* Where the log begins, and why not later: who needs the WAL from which LSN on. */
static struct doc *describe_retention(const struct timeline *tl)
{
    struct retention_verdict verdict = timeline_retention(tl);
    struct doc *doc = doc_object();
    (void)doc_set_lsn(doc, "begin_lsn", timeline_acceptor(tl)->state.begin_lsn);
    (void)doc_set_lsn(doc, "horizon_lsn", verdict.horizon_lsn);
    (void)doc_set_str(doc, "held_by", retention_holder_name(verdict.holder));
    if (verdict.holder == RETENTION_MEMBER) {
        (void)doc_set_int(doc, "member", (int64_t)verdict.member);
    }
    return doc;
}

/* Positions are absent while the log is not verified: nobody may take them for the truth. */
static struct doc *describe(const struct timeline *tl)
{
    char system_id[24];
    const struct control_state *control = timeline_control(tl);
    const struct acceptor *acceptor = timeline_acceptor(tl);
    struct doc *body = doc_object();
    (void)doc_set_tenant(body, "tenant", timeline_tenant(tl));
    (void)doc_set_timeline(body, "timeline", timeline_id(tl));
    (void)doc_set_str(body, "storage", timeline_storage_text(tl));
    if (timeline_repair_text(tl)[0] != '\0') {
        (void)doc_set_str(body, "repair", timeline_repair_text(tl));
    }
    if (timeline_state(tl) == TIMELINE_OPENING) {
        return body; /* a worker has the rest */
    }
    (void)snprintf(system_id, sizeof(system_id), "%" PRIu64, control->params.system_id);
    (void)doc_set_str(body, "system_id", system_id);
    (void)doc_set_int(body, "pg_version", control->params.pg_version);
    (void)doc_set_int(body, "segment_size", control->params.segment_size);
    (void)doc_set_lsn(body, "start_lsn", control->acceptor.start_lsn);
    (void)doc_set(body, "membership", describe_membership(control));
    if (acceptor == NULL) {
        return body;
    }
    (void)doc_set_str(body, "phase", acceptor_phase_name(acceptor->phase));
    (void)doc_set_int(body, "term", (int64_t)acceptor->state.term);
    (void)doc_set(body, "history", describe_history(&acceptor->state.history));
    (void)doc_set_lsn(body, "write_lsn", acceptor->write_lsn);
    (void)doc_set_lsn(body, "flush_lsn", acceptor->flush_lsn);
    (void)doc_set_lsn(body, "record_lsn", acceptor->record_lsn);
    (void)doc_set_lsn(body, "commit_lsn", acceptor->state.commit_lsn);
    if (acceptor_is_suspect(acceptor)) {
        (void)doc_set_lsn(body, "suspect_lsn", acceptor->state.suspect_lsn);
        (void)doc_set_int(body, "suspect_term", (int64_t)acceptor->state.suspect_term);
    }
    struct timeline_feedback feedback = timeline_newest_feedback(tl);
    (void)doc_set(body, "feedback", describe_feedback(&feedback));
    (void)doc_set(body, "retention", describe_retention(tl));
    describe_report(tl, body);
    return doc_set(body, "feeds", describe_feeds(tl));
}

static void on_get_status(struct http_context *context, struct http_request *request)
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
        (void)doc_push(list->timelines, describe(tl));
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
static void on_get_tenants(struct http_context *context, struct http_request *request)
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

static void on_get_timeline(struct http_context *context, struct http_request *request)
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
    http_respond_json(request, 200, describe(tl));
}

/* ---- operations: what does not answer at once ---- */

struct operation {
    struct list_link in_server;
    struct server *server;
    struct http_request *request;
    struct tenant_id tenant;
    struct timeline_id id;
    char tenant_dir[PATH_SIZE];
    struct control_state wanted; /* creation */
    generation_t generation;     /* deletion: from here on; also read from a tombstone */
    term_t term;                 /* to promise with a membership; 0: none */
    struct timeline_report_waiter report_waiter;
    struct timeline *tl; /* referenced, so it does not rest while we run */
    struct timeline_waiter waiter;
    struct timeline_closing closing;
    struct job job;
    err_t failure; /* of a creation that is being cleaned up */
    struct errmsg failure_msg;

    struct timeline_read read; /* digest */
    lsn_t digest_end_lsn;
    uint32_t digest_crc;
    bool wants_wal; /* the bytes themselves */
    struct buf digest_wal;
};

static void finish(struct operation *op)
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

static void finish_with_error(struct operation *op, err_t err, const struct errmsg *msg)
{
    http_respond_error(op->request, err, msg);
    finish(op);
}

static void finish_with_status(struct operation *op, unsigned status)
{
    http_respond_json(op->request, status, describe(op->tl));
    finish(op);
}

/* NULL: answered already. */
static struct operation *operation_create(
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

static err_t take_host(const struct doc *member, const char *key, char *to, struct errmsg *msg)
{
    const char *host = NULL;
    TRY(doc_get_str(member, key, &host, msg));
    return str_copy(to, CONTROL_HOST_SIZE, host, msg);
}

static err_t take_port(const struct doc *member, const char *key, uint16_t *to, struct errmsg *msg)
{
    uint64_t port = 0;
    TRY(doc_get_u64(member, key, &port, msg));
    if (port > UINT16_MAX) {
        return err_set(msg, ERR_INVALID, "%s %" PRIu64 " is no port", key, port);
    }
    *to = (uint16_t)port;
    return ERR_OK;
}

/* "old", "new": only there. */
static err_t take_set(const char *set, uint32_t index, struct membership *sets, struct errmsg *msg)
{
    if (set == NULL) {
        return ERR_OK;
    }
    if (strcmp(set, "old") == 0) {
        sets->old_set |= 1u << index;
    } else if (strcmp(set, "new") == 0) {
        sets->new_set |= 1u << index;
    } else {
        return err_set(msg, ERR_INVALID, "set \"%.20s\": expected old or new", set);
    }
    return ERR_OK;
}

static err_t take_membership(struct doc *body, struct control_state *to, struct errmsg *msg)
{
    struct doc *membership = NULL;
    struct doc *members = NULL;
    uint64_t generation = 0;
    TRY(doc_get_object(body, "membership", &membership, msg));
    TRY(doc_get_u64(membership, "generation", &generation, msg));
    TRY(doc_get_array(membership, "members", &members, msg));
    if (generation == 0 || generation > UINT32_MAX) {
        return err_set(msg, ERR_INVALID, "membership.generation %" PRIu64, generation);
    }
    if (doc_count(members) > MEMBERS_MAX) {
        return err_set(msg, ERR_INVALID, "limit: %d members", MEMBERS_MAX);
    }
    to->membership.generation = (generation_t)generation;
    to->membership.count = (uint32_t)doc_count(members);
    struct membership sets = {0};
    for (uint32_t i = 0; i < to->membership.count; i++) {
        const struct doc *member = doc_at(members, i);
        const char *set = NULL;
        TRY(doc_get_u64(member, "id", &to->membership.members[i], msg));
        TRY(doc_opt_str(member, "set", &set, msg));
        TRY(take_set(set, i, &sets, msg));
        TRY(take_host(member, "host", to->addresses[i].host, msg));
        TRY(take_port(member, "port", &to->addresses[i].port, msg));
        TRY(take_host(member, "http_host", to->addresses[i].http_host, msg));
        TRY(take_port(member, "http_port", &to->addresses[i].http_port, msg));
    }
    /* Who names no set is in both, if there are two. */
    if (sets.old_set != 0 || sets.new_set != 0) {
        uint32_t everyone = (1u << to->membership.count) - 1;
        to->membership.old_set = everyone & ~sets.new_set;
        to->membership.new_set = everyone & ~sets.old_set;
    }
    return membership_check(&to->membership, msg);
}

/*
 * Who creates a timeline says for which disk, if it knows: another one may have held it before, and
 * an empty timeline must not be taken for that.
 */
static err_t check_incarnation(const struct operation *op, struct doc *body, struct errmsg *msg)
{
    const char *incarnation = NULL;
    TRY(doc_opt_str(body, "incarnation", &incarnation, msg));
    if (incarnation != NULL && strcmp(incarnation, op->server->incarnation) != 0) {
        return err_set(
            msg, ERR_STALE, "this is disk %s, the timeline is for disk %.40s",
            op->server->incarnation, incarnation);
    }
    return ERR_OK;
}

static err_t take_wanted(struct operation *op, struct errmsg *msg)
{
    struct doc *body = NULL;
    struct control_state *wanted = &op->wanted;
    const char *system_id = NULL;
    uint64_t pg_version = 0, segment_size = SEGMENT_SIZE_DEFAULT;
    lsn_t start_lsn = LSN_NONE;
    TRY(http_request_json(op->request, &body, msg));
    TRY(doc_get_lsn(body, "start_lsn", &start_lsn, msg));
    TRY(doc_get_u64(body, "pg_version", &pg_version, msg));
    TRY(doc_get_str(body, "system_id", &system_id, msg));
    TRY(doc_opt_u64(body, "segment_size", &segment_size, msg));
    TRY(take_membership(body, wanted, msg));
    TRY(check_incarnation(op, body, msg));
    wanted->params.tenant = op->tenant;
    wanted->params.timeline = op->id;
    TRY(parse_u64(system_id, 0, UINT64_MAX, &wanted->params.system_id, msg));
    if (pg_version == 0 || pg_version > UINT32_MAX) {
        return err_set(msg, ERR_INVALID, "pg_version %" PRIu64, pg_version);
    }
    if (segment_size < MIB || segment_size > GIB || (segment_size & (segment_size - 1)) != 0) {
        return err_set(msg, ERR_INVALID, "segment_size %" PRIu64, segment_size);
    }
    if (start_lsn == LSN_NONE || start_lsn % 8 != 0) {
        return err_set(
            msg, ERR_INVALID, "start_lsn " LSN_FMT " is not the end of a record",
            LSN_ARGS(start_lsn));
    }
    wanted->params.pg_version = (uint32_t)pg_version;
    wanted->params.segment_size = (uint32_t)segment_size;
    acceptor_state_init(&wanted->acceptor, wanted->membership.generation, start_lsn);
    return ERR_OK;
}

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
    finish_with_error(op, err, &msg);
}

/* Answered when all of it is on disk: the answer is a promise. */
static void set_membership(struct operation *op)
{
    struct errmsg msg;
    err_t err = timeline_set_membership(
        op->tl, &op->wanted.membership, op->wanted.addresses, op->term, &msg);
    if (err != ERR_OK) {
        finish_with_error(op, err, &msg);
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
        finish_with_error(op, err, &msg);
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
    finish_with_error(op, op->failure, &op->failure_msg);
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
        finish_with_error(op, err, &msg);
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
        finish_with_error(op, job->result, msg);
        return;
    }
    if (op->generation >= op->wanted.membership.generation) {
        MARK("management.put.tombstone");
        char text[160];
        (void)snprintf(
            text, sizeof(text), "timeline %s was deleted under generation %u",
            timeline_id_text(op->id).text, op->generation);
        http_respond_problem(op->request, 410, "deleted", text);
        finish(op);
        return;
    }
    if (op->server->is_stopping ||
        timeline_set_count(op->server->timelines) >= op->server->options.timelines_max) {
        err_t err =
            err_set(msg, ERR_BUSY, "limit: timelines_max %zu", op->server->options.timelines_max);
        finish_with_error(op, err, msg);
        return;
    }
    start_timeline(op, &op->wanted);
    op->waiter.on_ready = on_created;
    timeline_wait_ready(op->tl, &op->waiter);
}

static void on_put_timeline(struct http_context *context, struct http_request *request)
{
    struct operation *op = operation_create(server_of(context), request, true);
    struct errmsg msg;
    if (op == NULL) {
        return;
    }
    err_t err = take_wanted(op, &msg);
    if (err != ERR_OK) {
        finish_with_error(op, err, &msg);
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
        finish_with_error(op, err, &msg);
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

static void on_put_membership(struct http_context *context, struct http_request *request)
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
        finish_with_error(op, err, &msg);
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
        finish_with_error(op, job->result, &job->msg);
        return;
    }
    log_info(
        NULL, "deleted timeline %s under generation %u", timeline_id_text(op->id).text,
        op->generation);
    http_respond_json(op->request, 200, doc_object());
    finish(op);
}

static void on_delete_closed(struct timeline_closing *closing)
{
    submit(CONTAINER_OF(closing, struct operation, closing), run_delete, on_deleted);
}

static void on_delete_timeline(struct http_context *context, struct http_request *request)
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
        finish_with_error(op, err, &msg);
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
        finish_with_error(op, err, &msg);
        return;
    }
    forget_timeline(op);
    start_timeline(op, NULL);
    op->waiter.on_ready = on_reopened;
    timeline_wait_ready(op->tl, &op->waiter);
}

static void on_post_reopen(struct http_context *context, struct http_request *request)
{
    struct operation *op = operation_create(server_of(context), request, true);
    struct errmsg msg;
    if (op == NULL) {
        return;
    }
    if (op->tl == NULL) {
        err_t err =
            err_set(&msg, ERR_NOT_FOUND, "no timeline %s here", timeline_id_text(op->id).text);
        finish_with_error(op, err, &msg);
    } else if (timeline_state(op->tl) != TIMELINE_FAILED) {
        finish_with_status(op, 200); /* nothing to do */
    } else {
        op->closing.on_closed = on_closed_to_reopen;
        timeline_close(op->tl, &op->closing);
    }
}

/* ---- digest ---- */

static void digest_advance(struct operation *op);

static void digest_add(struct operation *op)
{
    op->digest_crc = crc32c(op->digest_crc, op->read.wal.data, op->read.wal.size);
    if (op->wants_wal) {
        buf_append(&op->digest_wal, op->read.wal.data, op->read.wal.size);
    }
    op->read.begin_lsn = op->read.end_lsn;
}

static void on_digest_read(struct timeline_read *read, err_t result)
{
    struct operation *op = CONTAINER_OF(read, struct operation, read);
    if (result != ERR_OK) {
        finish_with_error(op, result, &read->msg);
        return;
    }
    digest_add(op);
    digest_advance(op);
}

static void digest_advance(struct operation *op)
{
    if (op->read.begin_lsn < op->digest_end_lsn) {
        op->read.end_lsn = MIN_OF(op->digest_end_lsn, op->read.begin_lsn + DIGEST_PIECE);
        op->read.done = on_digest_read;
        timeline_read_start(op->tl, &op->read); /* the files, never the memory: it is an audit */
        return;
    }
    if (op->wants_wal) {
        http_respond_buf(op->request, 200, "application/octet-stream", &op->digest_wal);
        finish(op);
        return;
    }
    char crc[12];
    (void)snprintf(crc, sizeof(crc), "%08x", op->digest_crc);
    http_respond_json(op->request, 200, doc_set_str(doc_object(), "crc", crc));
    finish(op);
}

static err_t prepare_digest(struct operation *op, struct errmsg *msg)
{
    const char *from = http_request_query(op->request, "from");
    const char *to = http_request_query(op->request, "to");
    lsn_t commit_lsn = LSN_NONE;
    if (op->tl == NULL) {
        return err_set(msg, ERR_NOT_FOUND, "no timeline %s here", timeline_id_text(op->id).text);
    }
    if (from == NULL || to == NULL) {
        return err_set(msg, ERR_INVALID, "from=LSN and to=LSN are needed");
    }
    TRY(parse_lsn(from, &op->read.begin_lsn, msg));
    TRY(parse_lsn(to, &op->digest_end_lsn, msg));
    TRY(timeline_readable_lsn(op->tl, 0, &commit_lsn, msg));
    lsn_t start_lsn = timeline_control(op->tl)->acceptor.begin_lsn;
    if (op->wants_wal && op->digest_end_lsn > commit_lsn) {
        return err_set(msg, ERR_BUSY, "committed is " LSN_FMT " here", LSN_ARGS(commit_lsn));
    }
    if (op->read.begin_lsn < start_lsn || op->read.begin_lsn > op->digest_end_lsn ||
        op->digest_end_lsn > commit_lsn) {
        return err_set(
            msg, ERR_RANGE, "committed WAL is " LSN_FMT ".." LSN_FMT, LSN_ARGS(start_lsn),
            LSN_ARGS(commit_lsn));
    }
    if (op->digest_end_lsn - op->read.begin_lsn > DIGEST_MAX) {
        return err_set(msg, ERR_INVALID, "limit: a digest of 16 GiB");
    }
    if (op->wants_wal && op->digest_end_lsn - op->read.begin_lsn > WAL_MAX) {
        return err_set(msg, ERR_INVALID, "limit: 16 MiB of WAL");
    }
    return ERR_OK;
}

static void start_digest(struct http_context *context, struct http_request *request, bool wants_wal)
{
    struct operation *op = operation_create(server_of(context), request, false);
    struct errmsg msg;
    if (op == NULL) {
        return;
    }
    op->wants_wal = wants_wal;
    err_t err = prepare_digest(op, &msg);
    if (err != ERR_OK) {
        finish_with_error(op, err, &msg);
        return;
    }
    digest_advance(op);
}

static void on_get_digest(struct http_context *context, struct http_request *request)
{
    start_digest(context, request, false);
}

static void on_get_wal(struct http_context *context, struct http_request *request)
{
    start_digest(context, request, true);
}

static const struct http_route routes[] = {
    {"GET", "/v1/status", on_get_status, "node id, port, number of timelines", false},
    {"GET", "/v1/tenants", on_get_tenants,
     "all timelines; ?known=DIGEST: if they are others, &brief=true: the ids", false},
    {"PUT", "/v1/tenants/{tenant}/timelines/{timeline}", on_put_timeline, "create", false},
    {"GET", "/v1/tenants/{tenant}/timelines/{timeline}", on_get_timeline, "positions", false},
    {"DELETE", "/v1/tenants/{tenant}/timelines/{timeline}", on_delete_timeline,
     "delete, ?generation=N", false},
    {"PUT", "/v1/tenants/{tenant}/timelines/{timeline}/membership", on_put_membership,
     "who votes: {membership, term}; answered when it is on disk, with positions", false},
    {"POST", "/v1/tenants/{tenant}/timelines/{timeline}/reopen", on_post_reopen,
     "open and verify again what is out of service", false},
    {"GET", "/v1/tenants/{tenant}/timelines/{timeline}/digest", on_get_digest,
     "CRC32C of committed WAL, ?from=LSN&to=LSN", false},
    {"GET", "/v1/tenants/{tenant}/timelines/{timeline}/wal", on_get_wal,
     "committed WAL itself, up to 16 MiB, ?from=LSN&to=LSN", false},
};

void management_add_routes(struct server *server, struct http_server *http)
{
    http_server_add_routes(http, routes, ARRAY_LEN(routes), &server->http);
}
