/*
 * history_routes.c - HTTP routes about history: how much is kept, leases, GC on request, why
 * something is kept, and the time of an LSN (docs/design/history.md). Threads: loop only, except
 * the jobs' run functions.
 */
#include <stdio.h>
#include <stdlib.h>

#include "common/base/clock.h"
#include "common/base/parse.h"
#include "common/base/str.h"
#include "common/pg/pg_version.h"
#include "common/pg/wal_reader.h"
#include "pageserver/serve/management_private.h"
#include "pageserver/timeline/gc_round.h"
#include "pageserver/timeline/tenant_size.h"

#define US_PER_S      1000000u
#define SECONDS_MAX   (100ull * 365 * 24 * 3600) /* of a window or a lease */
#define LEASE_SECONDS 600                        /* when a request names none */

/* -- retention -- */

static struct doc *retention_doc(struct history *history)
{
    struct history_retention retention = history_retention(history);
    struct doc *doc = doc_object();
    doc_set_int(doc, "history_retention_seconds", (int64_t)retention.seconds);
    doc_set_int(doc, "history_retention_bytes", (int64_t)retention.wal_bytes);
    return doc;
}

void handle_get_retention(struct http_context *context, struct http_request *http)
{
    struct tenant *tenant;
    struct errmsg msg;
    err_t err = management_find_tenant(management_server(context), http, &tenant, &msg);
    if (err != ERR_OK) {
        http_respond_error(http, err, &msg);
        return;
    }
    http_respond_json(http, 200, retention_doc(tenant_history(tenant)));
}

static void on_retention_set(struct tenant_request *request, err_t result)
{
    struct call *call = CONTAINER_OF(request, struct call, tenant_request);
    if (result != ERR_OK) {
        call_fail(call, result, &request->msg);
        return;
    }
    http_respond_json(call->http, 200, retention_doc(tenant_history(request->tenant)));
    call_free(call);
}

static err_t body_retention(
    struct http_request *http, struct history_retention *retention, struct errmsg *msg)
{
    struct doc *body;
    TRY(http_request_json(http, &body, msg));
    TRY(doc_opt_u64(body, "history_retention_seconds", &retention->seconds, msg));
    TRY(doc_opt_u64(body, "history_retention_bytes", &retention->wal_bytes, msg));
    if (retention->seconds > SECONDS_MAX || retention->wal_bytes > INT64_MAX) {
        return err_set(msg, ERR_INVALID, "a window that is longer than anybody will see");
    }
    return ERR_OK;
}

void handle_put_retention(struct http_context *context, struct http_request *http)
{
    struct server *server = management_server(context);
    struct tenant *tenant;
    struct errmsg msg;
    struct history_retention retention = {0};
    err_t err = management_find_tenant(server, http, &tenant, &msg);
    if (err == ERR_OK) {
        retention = history_retention(tenant_history(tenant));
        err = body_retention(http, &retention, &msg);
    }
    if (err != ERR_OK) {
        http_respond_error(http, err, &msg);
        return;
    }
    struct call *call = call_create(server, http);
    call->tenant_request.done = on_retention_set;
    call->tenant_request.retention = retention;
    tenant_set_retention(tenant, &call->tenant_request);
}

/* -- GC on request -- */

static void on_collected(struct tenant_request *request, err_t result)
{
    struct call *call = CONTAINER_OF(request, struct call, tenant_request);
    if (result != ERR_OK) {
        call_fail(call, result, &request->msg);
        return;
    }
    struct doc *timelines = doc_array();
    for (struct timeline *tl = tenant_first_timeline(request->tenant); tl != NULL;
         tl = tenant_next_timeline(request->tenant, tl)) {
        struct doc *doc = doc_object();
        doc_set_timeline(doc, "timeline", timeline_info(tl)->id);
        doc_set_lsn(doc, "cutoff_lsn", history_cutoff(timeline_history(tl)));
        doc_push(timelines, doc);
    }
    http_respond_json(call->http, 200, doc_set(doc_object(), "timelines", timelines));
    call_free(call);
}

void handle_post_gc(struct http_context *context, struct http_request *http)
{
    struct server *server = management_server(context);
    struct tenant *tenant;
    struct errmsg msg;
    err_t err = management_find_tenant(server, http, &tenant, &msg);
    if (err != ERR_OK) {
        http_respond_error(http, err, &msg);
        return;
    }
    struct call *call = call_create(server, http);
    call->tenant_request.done = on_collected;
    tenant_collect(tenant, &call->tenant_request);
}

/* -- leases -- */

static struct doc *lease_doc(const struct history_lease *lease)
{
    struct doc *doc = doc_object();
    doc_set_str(doc, "name", lease->name);
    doc_set_lsn(doc, "lsn", lease->lsn);
    if (lease->expires_us != LEASE_FOREVER) {
        doc_set_time(doc, "expires_at", (wall_us_t)lease->expires_us);
    }
    return doc;
}

static void on_lease_put(struct tenant_request *request, err_t result)
{
    struct call *call = CONTAINER_OF(request, struct call, tenant_request);
    if (result != ERR_OK) {
        call_fail(call, result, &request->msg);
        return;
    }
    http_respond_json(call->http, 200, lease_doc(&request->lease));
    call_free(call);
}

static err_t lease_name(struct http_request *http, char to[LEASE_NAME_SIZE], struct errmsg *msg)
{
    const char *name = http_request_param(http, "lease");
    if (name[0] == '\0') {
        return err_set(msg, ERR_INVALID, "a lease has a name");
    }
    err_t err = str_copy(to, LEASE_NAME_SIZE, name, msg);
    return err == ERR_OK ? ERR_OK
                         : err_set(
                               msg, ERR_INVALID, "lease: a name of at most %d characters",
                               LEASE_NAME_SIZE - 1);
}

static err_t body_lease(struct http_request *http, struct history_lease *lease, struct errmsg *msg)
{
    struct doc *body;
    uint64_t seconds = LEASE_SECONDS;
    TRY(lease_name(http, lease->name, msg));
    TRY(http_request_json(http, &body, msg));
    TRY(doc_get_lsn(body, "lsn", &lease->lsn, msg));
    lease->lsn = lsn_canonical(lease->lsn, SEGMENT_SIZE); /* as reads do with what they are asked */
    TRY(doc_opt_u64(body, "seconds", &seconds, msg));
    if (seconds > SECONDS_MAX) {
        return err_set(
            msg, ERR_INVALID, "seconds: expected at most %llu; 0: for ever", SECONDS_MAX);
    }
    lease->expires_us = seconds == 0 ? LEASE_FOREVER : (uint64_t)clock_wall() + seconds * US_PER_S;
    return ERR_OK;
}

void handle_put_lease(struct http_context *context, struct http_request *http)
{
    struct server *server = management_server(context);
    struct errmsg msg;
    struct timeline *tl;
    struct history_lease lease = {0};
    err_t err = management_find_timeline(server, http, &tl, &msg);
    if (err == ERR_OK) {
        err = body_lease(http, &lease, &msg);
    }
    if (err == ERR_OK && lease.lsn > timeline_last_lsn(tl)) {
        err = err_set(
            &msg, ERR_RANGE, "LSN " LSN_FMT " is not there yet: the timeline is at " LSN_FMT,
            LSN_ARGS(lease.lsn), LSN_ARGS(timeline_last_lsn(tl)));
    }
    if (err != ERR_OK) {
        http_respond_error(http, err, &msg);
        return;
    }
    struct call *call = call_create(server, http);
    call->tenant_request.done = on_lease_put;
    call->tenant_request.lease = lease;
    tenant_put_lease(timeline_tenant(tl), &call->tenant_request, tl);
}

static void on_lease_dropped(struct tenant_request *request, err_t result)
{
    struct call *call = CONTAINER_OF(request, struct call, tenant_request);
    if (result != ERR_OK) {
        call_fail(call, result, &request->msg);
        return;
    }
    http_respond_json(call->http, 200, doc_object());
    call_free(call);
}

void handle_delete_lease(struct http_context *context, struct http_request *http)
{
    struct server *server = management_server(context);
    struct errmsg msg;
    struct timeline *tl;
    struct history_lease lease = {0};
    err_t err = management_find_timeline(server, http, &tl, &msg);
    if (err == ERR_OK) {
        err = lease_name(http, lease.name, &msg);
    }
    if (err != ERR_OK) {
        http_respond_error(http, err, &msg);
        return;
    }
    struct call *call = call_create(server, http);
    call->tenant_request.done = on_lease_dropped;
    call->tenant_request.lease = lease;
    tenant_drop_lease(timeline_tenant(tl), &call->tenant_request, tl);
}

static void push_lease(const struct history_lease *lease, void *context)
{
    doc_push(context, lease_doc(lease));
}

void handle_get_leases(struct http_context *context, struct http_request *http)
{
    struct errmsg msg;
    struct timeline *tl;
    err_t err = management_find_timeline(management_server(context), http, &tl, &msg);
    if (err != ERR_OK) {
        http_respond_error(http, err, &msg);
        return;
    }
    struct doc *leases = doc_array();
    history_leases(tenant_history(timeline_tenant(tl)), timeline_history(tl), push_lease, leases);
    http_respond_json(http, 200, doc_set(doc_object(), "leases", leases));
}

/* -- sizes of the tree -- */

static err_t measure_tree(struct job *job)
{
    struct call *call = CONTAINER_OF(job, struct call, job);
    struct tenant *tenant = call->held_tenant;
    struct page_store *store = tenant_store(tenant);
    struct tenant_size size;
    TRY(tenant_size_measure(tenant_history(tenant), store, &size, &job->msg));
    call->answer = doc_object();
    doc_set_int(call->answer, "timelines", (int64_t)size.timelines);
    doc_set_int(call->answer, "logical_bytes", (int64_t)size.logical_bytes);
    doc_set_int(call->answer, "synthetic_bytes", (int64_t)size.synthetic_bytes);
    doc_set_int(call->answer, "physical_bytes", (int64_t)page_store_size(store));
    buf_append(&call->buf, size.ends, size.timelines * sizeof(size.ends[0]));
    tenant_size_deinit(&size);
    return ERR_OK;
}

static int compare_number(const void *key, const void *end)
{
    uint32_t number = *(const uint32_t *)key;
    uint32_t other = ((const struct tenant_size_end *)end)->number;
    return number < other ? -1 : number > other;
}

/* On the loop, which knows their names: of those that are still there. */
static struct doc *ends_doc(const struct call *call)
{
    struct doc *branches = doc_array();
    size_t count = call->buf.size / sizeof(struct tenant_size_end);
    for (struct timeline *tl = tenant_first_timeline(call->held_tenant); tl != NULL && count > 0;
         tl = tenant_next_timeline(call->held_tenant, tl)) {
        uint32_t number = timeline_number(tl);
        const struct tenant_size_end *end =
            bsearch(&number, call->buf.data, count, sizeof(*end), compare_number);
        if (end != NULL) {
            struct doc *doc = doc_set_timeline(doc_object(), "timeline", timeline_info(tl)->id);
            doc_set_lsn(doc, "start_lsn", end->start_lsn);
            doc_set_lsn(doc, "cutoff_lsn", end->cutoff_lsn);
            doc_set_lsn(doc, "end_lsn", end->end_lsn);
            doc_push(branches, doc_set_int(doc, "logical_bytes", (int64_t)end->logical_bytes));
        }
    }
    return branches;
}

static void on_tree_measured(struct job *job)
{
    struct call *call = CONTAINER_OF(job, struct call, job);
    if (job->result == ERR_OK) {
        doc_set(call->answer, "branches", ends_doc(call));
    }
    tenant_read_end(&call->tenant_read);
    if (job->result != ERR_OK) {
        call_fail(call, job->result, &job->msg);
        return;
    }
    http_respond_json(call->http, 200, call->answer);
    call->answer = NULL;
    call_free(call);
}

static void on_tree_may_be_read(struct tenant_read *read, err_t result)
{
    struct call *call = CONTAINER_OF(read, struct call, tenant_read);
    if (result != ERR_OK) {
        call_fail(call, result, &read->msg);
        return;
    }
    call->job = (struct job){.run = measure_tree, .done = on_tree_measured};
    executor_submit(call->server->options.executor, &call->job);
}

void handle_get_size(struct http_context *context, struct http_request *http)
{
    struct server *server = management_server(context);
    struct tenant *tenant;
    struct errmsg msg;
    err_t err = management_find_tenant(server, http, &tenant, &msg);
    if (err != ERR_OK) {
        http_respond_error(http, err, &msg);
        return;
    }
    struct call *call = call_create(server, http);
    call->held_tenant = tenant;
    call->tenant_read.done = on_tree_may_be_read;
    tenant_read_begin(tenant, &call->tenant_read);
}

/* -- why is this kept -- */

#define HOLDERS_MAX 100 /* in one answer */

/* What was found out on a worker: it lies in call->buf. */
struct held {
    struct history_holder holder; /* without its name */
    char name[LEASE_NAME_SIZE];
};

/* A version at L is needed by reads at or above L only. */
static void note_holder(const struct history_holder *holder, void *context)
{
    struct call *call = context;
    if (call->lsn != LSN_HEAD && holder->reason != HISTORY_CUTOFF && holder->lsn < call->lsn) {
        return;
    }
    if (call->buf.size >= HOLDERS_MAX * sizeof(struct held)) {
        call->left_out++;
        return;
    }
    struct held held = {.holder = *holder};
    (void)snprintf(held.name, sizeof(held.name), "%s", holder->name);
    buf_append(&call->buf, &held, sizeof(held));
}

/* Does a read of the block at `at` use the version at `lsn`? */
static err_t is_used_at(
    struct call *call,
    struct page_reader *reader,
    struct page_versions *versions,
    lsn_t at,
    lsn_t lsn,
    bool *ret_used,
    struct errmsg *msg)
{
    struct fork_size size;
    *ret_used = false;
    TRY(page_reader_rel_size(reader, call->key, at, &size, msg));
    if (call->key.block >= size.blocks) {
        return ERR_OK; /* it is dead there */
    }
    TRY(page_reader_collect(reader, call->key, at, versions, msg));
    for (size_t i = 0; i < versions->count; i++) {
        *ret_used |= versions->items[i].lsn == lsn &&
                     versions->items[i].timeline == timeline_number(call->timeline);
    }
    return ERR_OK;
}

/* Of the holders, those whose read of the block needs the version that is found at the LSN. */
static err_t keep_holders_of_block(
    struct call *call, struct page_reader *reader, struct errmsg *msg)
{
    struct page_versions versions = {0};
    struct held *all = (struct held *)(void *)call->buf.data;
    size_t count = call->buf.size / sizeof(*all), kept = 0;
    err_t err = page_reader_collect(reader, call->key, call->lsn, &versions, msg);
    if (err == ERR_OK &&
        (versions.count == 0 || versions.items[0].timeline != timeline_number(call->timeline))) {
        err = err_set(
            msg, ERR_NOT_FOUND, "%s has no version of this timeline at " LSN_FMT,
            page_key_text(call->key).text, LSN_ARGS(call->lsn));
    }
    call->version_lsn = err == ERR_OK ? versions.items[0].lsn : 0;
    for (size_t i = 0; i < count && err == ERR_OK; i++) {
        const struct history_holder *holder = &all[i].holder;
        bool used = holder->reason == HISTORY_CUTOFF && holder->lsn < call->version_lsn;
        if (!used) {
            err = is_used_at(call, reader, &versions, holder->lsn, call->version_lsn, &used, msg);
        }
        if (used) {
            all[kept++] = all[i];
        }
    }
    call->buf.size = kept * sizeof(*all);
    page_versions_deinit(&versions);
    return err;
}

/* Where the window would begin now, by each of its two measures. */
static err_t measure_window(struct call *call, struct errmsg *msg)
{
    struct history *history = tenant_history(timeline_tenant(call->timeline));
    struct page_store *store = timeline_store(call->timeline);
    struct gc_tree *tree = history_tree(history);
    size_t index = gc_find(tree, timeline_number(call->timeline));
    struct history_retention retention = history_retention(history);
    struct history_retention by_time = {.seconds = retention.seconds};
    struct history_retention by_bytes = {.wal_bytes = retention.wal_bytes};
    lsn_t of_time = 0, of_bytes = 0;
    wall_us_t now = clock_wall();
    err_t err = gc_window_begin(store, tree, index, by_time, now, &of_time, msg);
    if (err == ERR_OK) {
        err = gc_window_begin(store, tree, index, by_bytes, now, &of_bytes, msg);
    }
    if (err == ERR_OK) {
        call->answer = retention_doc(history);
        doc_set_lsn(call->answer, "window_begin_by_time", of_time);
        doc_set_lsn(call->answer, "window_begin_by_bytes", of_bytes);
    }
    history_tree_free(tree);
    return err;
}

static err_t find_holders(struct job *job)
{
    struct call *call = CONTAINER_OF(job, struct call, job);
    struct timeline *tl = call->timeline;
    TRY(measure_window(call, &job->msg));
    history_explain(tenant_history(timeline_tenant(tl)), timeline_history(tl), note_holder, call);
    if (!call->has_key) {
        return ERR_OK;
    }
    struct page_reader *reader = page_reader_create(timeline_store(tl), timeline_path(tl));
    err_t err = keep_holders_of_block(call, reader, &job->msg);
    page_reader_destroy(reader);
    return err;
}

static const char *reason_text(enum history_reason reason)
{
    switch (reason) {
    case HISTORY_CUTOFF: return "window";
    case HISTORY_BRANCH: return "branch";
    case HISTORY_LEASE: return "lease";
    case HISTORY_HOLD: return "read or branch under way";
    case HISTORY_TOMBSTONE: return "on its way to a branch";
    }
    return "unknown";
}

static void set_timeline_of(struct doc *doc, struct tenant *tenant, uint32_t number)
{
    for (struct timeline *tl = tenant_first_timeline(tenant); tl != NULL;
         tl = tenant_next_timeline(tenant, tl)) {
        if (timeline_number(tl) == number) {
            doc_set_timeline(doc, "timeline", timeline_info(tl)->id);
            return;
        }
    }
}

static struct doc *holder_doc(const struct held *held, struct tenant *tenant)
{
    const struct history_holder *holder = &held->holder;
    struct doc *doc = doc_object();
    doc_set_str(doc, "reason", reason_text(holder->reason));
    doc_set_lsn(doc, holder->reason == HISTORY_CUTOFF ? "from_lsn" : "lsn", holder->lsn);
    doc_set_int(doc, "timeline_number", holder->timeline);
    set_timeline_of(doc, tenant, holder->timeline);
    if (held->name[0] != '\0') {
        doc_set_str(doc, "name", held->name);
    }
    return doc;
}

static void on_holders_found(struct job *job)
{
    struct call *call = CONTAINER_OF(job, struct call, job);
    struct timeline *tl = call->timeline;
    if (job->result != ERR_OK) {
        call_fail(call, job->result, &job->msg);
        return;
    }
    struct doc *holders = doc_array();
    const struct held *all = (const struct held *)(const void *)call->buf.data;
    for (size_t i = 0; i < call->buf.size / sizeof(*all); i++) {
        doc_push(holders, holder_doc(&all[i], timeline_tenant(tl)));
    }
    struct doc *doc = call->answer;
    call->answer = NULL;
    doc_set_lsn(doc, "cutoff_lsn", history_cutoff(timeline_history(tl)));
    doc_set_lsn(doc, "durable_lsn", timeline_durable_lsn(tl));
    if (call->lsn != LSN_HEAD) {
        doc_set_lsn(doc, "lsn", call->lsn);
        doc_set_bool(doc, "readable", timeline_check_lsn(tl, call->lsn, NULL) == ERR_OK);
    }
    if (call->has_key) {
        doc_set_lsn(doc, "version_lsn", call->version_lsn);
    }
    doc_set(doc, "kept_by", holders);
    doc_set_int(doc, "left_out", (int64_t)call->left_out);
    http_respond_json(call->http, 200, doc);
    call_free(call);
}

/* Of a timeline, of its versions as of an LSN, or of the version of one block that a read finds. */
void handle_get_why_kept(struct http_context *context, struct http_request *http)
{
    struct errmsg msg;
    lsn_t lsn;
    struct page_key key = {0};
    bool has_key = http_request_query(http, "rel") != NULL;
    err_t err = management_query_lsn(http, &lsn, &msg);
    if (err == ERR_OK && has_key) {
        err = management_query_key(http, &key, &msg);
    }
    if (err == ERR_OK && has_key && lsn == LSN_HEAD) {
        err = err_set(&msg, ERR_INVALID, "lsn: of a block it is needed");
    }
    if (err != ERR_OK) {
        http_respond_error(http, err, &msg);
        return;
    }
    struct call *call = call_begin(context, http);
    if (call == NULL) {
        return;
    }
    call->lsn = lsn;
    call->key = key;
    call->has_key = has_key;
    call->job = (struct job){.run = find_holders, .done = on_holders_found};
    executor_submit(call->server->options.executor, &call->job);
}

/* -- LSN to time -- */

static err_t find_time(struct job *job)
{
    struct call *call = CONTAINER_OF(job, struct call, job);
    struct page_reader *reader =
        page_reader_create(timeline_store(call->timeline), timeline_path(call->timeline));
    err_t err = page_reader_newest_commit(reader, call->lsn, &call->time, &job->msg);
    page_reader_destroy(reader);
    return err;
}

static void on_time_found(struct job *job)
{
    struct call *call = CONTAINER_OF(job, struct call, job);
    struct errmsg msg = job->msg;
    err_t result = timeline_check_lsn(call->timeline, call->lsn, &msg);
    if (result == ERR_OK && job->result != ERR_OK) {
        result = job->result;
        msg = job->msg;
    }
    if (result != ERR_OK) {
        call_fail(call, result, &msg);
        return;
    }
    struct doc *doc = doc_object();
    doc_set_lsn(doc, "lsn", call->lsn);
    doc_set_time(doc, "time", (wall_us_t)call->time + PG_EPOCH_US);
    http_respond_json(call->http, 200, doc);
    call_free(call);
}

void handle_get_time_of_lsn(struct http_context *context, struct http_request *http)
{
    struct errmsg msg;
    lsn_t lsn;
    err_t err = management_query_lsn(http, &lsn, &msg);
    if (err != ERR_OK) {
        http_respond_error(http, err, &msg);
        return;
    }
    struct call *call = call_begin(context, http);
    if (call == NULL) {
        return;
    }
    lsn_t last = timeline_last_lsn(call->timeline);
    call->lsn = lsn == LSN_HEAD ? last : lsn;
    if (call->lsn > last) {
        err = err_set(
            &msg, ERR_RANGE, "LSN " LSN_FMT " is not there yet: the timeline is at " LSN_FMT,
            LSN_ARGS(call->lsn), LSN_ARGS(last));
        call_fail(call, err, &msg);
        return;
    }
    call->job = (struct job){.run = find_time, .done = on_time_found};
    executor_submit(call->server->options.executor, &call->job);
}
