/*
 * management.c - the HTTP API of the pageserver (docs/protocol/rpc.md).
 *
 * A handler checks what it was asked, starts what takes time in a `struct call`, and answers from
 * the callback that ends it. Threads: loop only, except the jobs' run functions.
 */
#include <stdio.h>

#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/parse.h"
#include "common/base/str.h"
#include "common/io/http_server.h"
#include "common/pg/pg_version.h"
#include "common/pg/wal_reader.h"
#include "pageserver/serve/management_private.h"
#include "pageserver/timeline/safekeeper_address.h"

static struct management management; /* one server a process */

struct server *management_server(struct http_context *context)
{
    return CONTAINER_OF(context, struct management, http)->server;
}

struct call *call_create(struct server *server, struct http_request *http)
{
    struct call *call = MEM_NEW(struct call);
    call->server = server;
    call->http = http;
    return call;
}

void call_free(struct call *call)
{
    if (call->timeline != NULL) {
        timeline_release_lsn(call->timeline, &call->hold);
        timeline_read_end(call->timeline);
    }
    doc_unref(call->answer);
    page_read_deinit(&call->read);
    buf_deinit(&call->buf);
    mem_free(call);
}

void call_fail(struct call *call, err_t err, const struct errmsg *msg)
{
    http_respond_error(call->http, err, msg);
    call_free(call);
}

/* -- what requests name -- */

err_t management_find_tenant(
    struct server *server,
    struct http_request *http,
    struct tenant **ret_tenant,
    struct errmsg *msg)
{
    struct tenant_id id;
    TRY(tenant_id_parse(http_request_param(http, "tenant"), &id, msg));
    *ret_tenant = tenants_find(server->tenants, id);
    return *ret_tenant == NULL ? tenants_why_missing(server->tenants, id, msg) : ERR_OK;
}

err_t management_find_timeline(
    struct server *server, struct http_request *http, struct timeline **ret_tl, struct errmsg *msg)
{
    struct tenant *tenant;
    struct timeline_id id;
    TRY(management_find_tenant(server, http, &tenant, msg));
    TRY(timeline_id_parse(http_request_param(http, "timeline"), &id, msg));
    *ret_tl = tenant_find_timeline(tenant, id);
    return *ret_tl == NULL
               ? err_set(msg, ERR_NOT_FOUND, "no timeline %s here", timeline_id_text(id).text)
               : ERR_OK;
}

/* A query parameter that is an LSN: absent is the head. */
err_t management_query_lsn(struct http_request *http, lsn_t *ret_lsn, struct errmsg *msg)
{
    const char *text = http_request_query(http, "lsn");
    if (text == NULL) {
        *ret_lsn = LSN_HEAD;
        return ERR_OK;
    }
    lsn_t lsn;
    TRY(parse_lsn(text, &lsn, msg));
    *ret_lsn = lsn_canonical(lsn, SEGMENT_SIZE);
    return ERR_OK;
}

/* A call about a timeline that keeps it from being erased. */
struct call *call_begin(struct http_context *context, struct http_request *http)
{
    struct server *server = management_server(context);
    struct errmsg msg;
    struct timeline *tl;
    err_t err = management_find_timeline(server, http, &tl, &msg);
    if (err == ERR_OK && server->stopping) { /* nobody would cancel its wait any more */
        err = err_set(&msg, ERR_CANCELED, "the pageserver is stopping");
    }
    if (err == ERR_OK) {
        err = timeline_read_begin(tl, &msg);
    }
    if (err != ERR_OK) {
        http_respond_error(http, err, &msg);
        return NULL;
    }
    struct call *call = call_create(server, http);
    call->timeline = tl;
    return call;
}

/* -- bodies -- */

static err_t body_generation(
    const struct doc *body, const char *key, generation_t *ret_generation, struct errmsg *msg)
{
    uint64_t value;
    TRY(doc_get_u64(body, key, &value, msg));
    if (value == 0 || value > UINT32_MAX) {
        return err_set(msg, ERR_INVALID, "%s: expected 1 to 4294967295", key);
    }
    *ret_generation = (generation_t)value;
    return ERR_OK;
}

/* [{id,host,port}] to "1@host:port,..." */
static err_t body_safekeepers(
    const struct doc *body, char to[TIMELINE_TEXT_MAX], struct errmsg *msg)
{
    struct doc *list;
    TRY(doc_get_array(body, "safekeepers", &list, msg));
    to[0] = '\0';
    for (size_t i = 0; i < doc_count(list); i++) {
        const struct doc *entry = doc_at(list, i);
        uint64_t id, port;
        const char *host;
        TRY(doc_get_u64(entry, "id", &id, msg));
        TRY(doc_get_str(entry, "host", &host, msg));
        TRY(doc_get_u64(entry, "port", &port, msg));
        size_t used = strlen(to);
        TRY(str_format(
            to + used, TIMELINE_TEXT_MAX - used, msg, "%s%" PRIu64 "@%s:%" PRIu64,
            i == 0 ? "" : ",", id, host, port));
    }
    const char *text = to;
    struct safekeeper_address address;
    err_t err;
    while ((err = safekeeper_address_take(&text, &address, msg)) == ERR_OK) {
    }
    return err == ERR_NOT_FOUND ? ERR_OK : err;
}

static err_t body_timeline(
    const struct doc *body,
    struct timeline_id id,
    struct timeline_texts *texts,
    struct timeline_info *info,
    struct errmsg *msg)
{
    uint64_t pg_version, membership = 0;
    const char *system_id, *text = NULL;
    info->id = id;
    TRY(body_generation(body, "generation", &info->generation, msg));
    TRY(doc_get_u64(body, "pg_version", &pg_version, msg));
    uint64_t major = pg_version >= 10000 ? pg_version / 10000 : pg_version;
    if (major != PG_MAJOR_VERSION) {
        return err_set(msg, ERR_UNSUPPORTED, "pg_version: only %d", PG_MAJOR_VERSION);
    }
    info->pg_version = (uint32_t)pg_version;
    TRY(doc_get_str(body, "system_id", &system_id, msg));
    TRY(parse_u64(system_id, 1, UINT64_MAX, &info->system_id, msg));
    TRY(doc_opt_u64(body, "membership_generation", &membership, msg));
    info->membership_generation = (generation_t)MIN_OF(membership, (uint64_t)UINT32_MAX);
    TRY(body_safekeepers(body, texts->safekeepers, msg));
    info->safekeepers = texts->safekeepers;
    TRY(doc_opt_str(body, "parent", &text, msg));
    if (text != NULL) {
        TRY(timeline_id_parse(text, &info->parent, msg));
        TRY(doc_get_lsn(body, "branch_lsn", &info->start_lsn, msg));
    } else {
        TRY(doc_get_lsn(body, "start_lsn", &info->start_lsn, msg));
        TRY(doc_get_str(body, "bootstrap_object", &text, msg));
        TRY(str_copy(texts->bootstrap_object, sizeof(texts->bootstrap_object), text, msg));
        info->bootstrap_object = texts->bootstrap_object;
    }
    if (timeline_id_equal(info->parent, id)) {
        return err_set(msg, ERR_INVALID, "parent: a timeline is not its own parent");
    }
    if (info->start_lsn == 0 || lsn_canonical(info->start_lsn, SEGMENT_SIZE) != info->start_lsn) {
        return err_set(
            msg, ERR_INVALID, "LSN " LSN_FMT " is no record end", LSN_ARGS(info->start_lsn));
    }
    return ERR_OK;
}

/* -- tenants -- */

static struct doc *brief_timeline(const struct timeline *tl)
{
    const struct timeline_info *info = timeline_info(tl);
    const struct attachment *attachment = attachment_find(tl);
    char state[sizeof(struct errmsg) + 32];
    if (timeline_failure(tl) != NULL) {
        (void)snprintf(state, sizeof(state), "failed: %s", timeline_failure(tl));
    } else {
        bool importing = info->state == TIMELINE_IMPORTING;
        (void)snprintf(state, sizeof(state), "%s", importing ? "importing" : "active");
    }
    struct doc *doc = doc_object();
    doc_set_timeline(doc, "timeline", info->id);
    doc_set_int(doc, "timeline_number", info->number);
    doc_set_str(doc, "state", state);
    if (!timeline_id_is_none(info->parent)) {
        doc_set_timeline(doc, "parent", info->parent);
    }
    doc_set_int(doc, "generation", info->generation);
    doc_set_int(doc, "membership_generation", info->membership_generation);
    doc_set_lsn(doc, "start_lsn", info->start_lsn);
    doc_set_lsn(doc, "cutoff_lsn", history_cutoff(timeline_history(tl)));
    doc_set_lsn(doc, "last_record_lsn", timeline_last_lsn(tl));
    doc_set_lsn(doc, "durable_lsn", timeline_durable_lsn(tl));
    if (timeline_slots_lsn(tl) != LSN_NONE) {
        doc_set_lsn(doc, "slots_lsn", timeline_slots_lsn(tl)); /* they need WAL from here on */
    }
    if (attachment != NULL && attachment_import_error(attachment) != NULL) {
        doc_set_str(doc, "import_error", attachment_import_error(attachment));
    }
    return doc;
}

/* Absent: it is not known which the object store may still have. */
static void set_deletions(struct doc *doc, const struct tenant *tenant)
{
    const struct mirror *mirror = mirror_find(tenant);
    const struct timeline_id *ids = NULL;
    size_t count = 0;
    if (mirror == NULL || !mirror_deletions(mirror, &ids, &count)) {
        return;
    }
    struct doc *deleted = doc_array();
    for (size_t i = 0; i < count; i++) {
        doc_push(deleted, doc_str(timeline_id_text(ids[i]).text));
    }
    doc_set(doc, "deleted_timelines", deleted);
}

static struct doc *tenant_doc(struct tenant *tenant)
{
    struct doc *doc = doc_object();
    struct doc *timelines = doc_array();
    doc_set_tenant(doc, "tenant", tenant_id(tenant));
    doc_set_int(doc, "generation", tenant_generation(tenant));
    doc_set_int(
        doc, "history_retention_seconds",
        (int64_t)history_retention(tenant_history(tenant)).seconds);
    for (struct timeline *tl = tenant_first_timeline(tenant); tl != NULL;
         tl = tenant_next_timeline(tenant, tl)) {
        doc_push(timelines, brief_timeline(tl));
    }
    doc_set(doc, "timelines", timelines);
    set_deletions(doc, tenant);
    return doc;
}

void handle_get_status(struct http_context *context, struct http_request *http)
{
    struct server *server = management_server(context);
    struct doc *doc = doc_object();
    struct doc *tenants = doc_array();
    doc_set_int(doc, "node_id", (int64_t)server->options.node_id);
    doc_set_str(doc, "incarnation", server->incarnation);
    doc_set_int(doc, "listen_port", server_port(server));
    for (struct tenant *tenant = tenants_first(server->tenants); tenant != NULL;
         tenant = tenants_next(server->tenants, tenant)) {
        doc_push(tenants, tenant_doc(tenant));
    }
    doc_set(doc, "tenants", tenants);
    http_respond_json(http, 200, doc);
}

void handle_get_tenant(struct http_context *context, struct http_request *http)
{
    struct server *server = management_server(context);
    struct tenant *tenant;
    struct errmsg msg;
    err_t err = management_find_tenant(server, http, &tenant, &msg);
    if (err != ERR_OK) {
        http_respond_error(http, err, &msg);
        return;
    }
    http_respond_json(http, 200, tenant_doc(tenant));
}

static void answer_attached(struct tenant_request *request, err_t result)
{
    struct call *call = CONTAINER_OF(request, struct call, tenant_request);
    struct tenant *tenant = tenants_find(call->server->tenants, call->tenant);
    if (result != ERR_OK || tenant == NULL) {
        call_fail(call, result == ERR_OK ? ERR_NOT_FOUND : result, &request->msg);
        return;
    }
    http_respond_json(call->http, call->created ? 201 : 200, tenant_doc(tenant));
    call_free(call);
}

/* Then the time that its history is kept for, when the request names another one. */
static void on_attached(struct tenant_request *request, err_t result)
{
    struct call *call = CONTAINER_OF(request, struct call, tenant_request);
    struct tenant *tenant = tenants_find(call->server->tenants, call->tenant);
    call->created = request->created;
    if (result == ERR_OK && tenant != NULL) {
        struct history_retention retention = history_retention(tenant_history(tenant));
        if (call->retention_seconds != UINT64_MAX && call->retention_seconds != retention.seconds) {
            retention.seconds = call->retention_seconds;
            call->tenant_request =
                (struct tenant_request){.done = answer_attached, .retention = retention};
            tenant_set_retention(tenant, &call->tenant_request);
            return;
        }
    }
    answer_attached(request, result);
}

void handle_put_tenant(struct http_context *context, struct http_request *http)
{
    struct server *server = management_server(context);
    struct errmsg msg;
    struct tenant_id id;
    struct doc *body;
    generation_t generation = 0;
    uint64_t retention_seconds = UINT64_MAX; /* as it is */
    err_t err = tenant_id_parse(http_request_param(http, "tenant"), &id, &msg);
    if (err == ERR_OK) {
        err = http_request_json(http, &body, &msg);
    }
    if (err == ERR_OK) {
        err = body_generation(body, "generation", &generation, &msg);
    }
    if (err == ERR_OK) {
        err = doc_opt_u64(body, "history_retention_seconds", &retention_seconds, &msg);
    }
    if (err == ERR_OK && tenant_id_is_none(id)) {
        err = err_set(&msg, ERR_INVALID, "tenant: all zeros is no tenant");
    }
    if (err != ERR_OK) {
        http_respond_error(http, err, &msg);
        return;
    }
    struct call *call = call_create(server, http);
    call->tenant_request.done = on_attached;
    call->tenant = id;
    call->retention_seconds = retention_seconds;
    err = give_up_or_attach(server, &call->tenant_request, id, generation, &msg);
    if (err != ERR_OK) {
        call_fail(call, err, &msg);
    }
}

void call_answer_done(struct tenant_request *request, err_t result)
{
    struct call *call = CONTAINER_OF(request, struct call, tenant_request);
    if (result != ERR_OK) {
        call_fail(call, result, &request->msg);
        return;
    }
    http_respond_json(call->http, 200, doc_object());
    call_free(call);
}

void call_for_tenant(
    struct http_context *context,
    struct http_request *http,
    void (*start)(struct tenants *tenants, struct tenant_request *request, struct tenant_id id))
{
    struct server *server = management_server(context);
    struct errmsg msg;
    struct tenant_id id;
    err_t err = tenant_id_parse(http_request_param(http, "tenant"), &id, &msg);
    if (err != ERR_OK) {
        http_respond_error(http, err, &msg);
        return;
    }
    struct call *call = call_create(server, http);
    call->tenant_request.done = call_answer_done;
    start(server->tenants, &call->tenant_request, id);
}

void handle_delete_tenant(struct http_context *context, struct http_request *http)
{
    call_for_tenant(context, http, tenant_delete);
}

/* -- timelines -- */

static void on_timeline_put(struct tenant_request *request, err_t result)
{
    struct call *call = CONTAINER_OF(request, struct call, tenant_request);
    if (result != ERR_OK) {
        call_fail(call, result, &request->msg);
        return;
    }
    http_respond_json(call->http, request->created ? 201 : 200, brief_timeline(request->timeline));
    call_free(call);
}

void handle_put_timeline(struct http_context *context, struct http_request *http)
{
    struct server *server = management_server(context);
    struct errmsg msg;
    struct tenant *tenant;
    struct timeline_id id;
    struct doc *body;
    struct timeline_texts texts;
    struct timeline_info info = {0};
    err_t err = management_find_tenant(server, http, &tenant, &msg);
    if (err == ERR_OK) {
        err = timeline_id_parse(http_request_param(http, "timeline"), &id, &msg);
    }
    if (err == ERR_OK && timeline_id_is_none(id)) {
        err = err_set(&msg, ERR_INVALID, "timeline: all zeros is no timeline");
    }
    if (err == ERR_OK) {
        err = http_request_json(http, &body, &msg);
    }
    if (err == ERR_OK) {
        err = body_timeline(body, id, &texts, &info, &msg);
    }
    if (err == ERR_OK && info.generation != tenant_generation(tenant)) {
        err = err_set(
            &msg, ERR_STALE, "generation %" PRIu32 ", the tenant is attached with %" PRIu32,
            info.generation, tenant_generation(tenant));
    }
    if (err != ERR_OK) {
        http_respond_error(http, err, &msg);
        return;
    }
    struct call *call = call_create(server, http);
    call->tenant_request.done = on_timeline_put;
    tenant_put_timeline(tenant, &call->tenant_request, &info);
}

void handle_delete_timeline(struct http_context *context, struct http_request *http)
{
    struct server *server = management_server(context);
    struct errmsg msg;
    struct timeline *tl;
    err_t err = management_find_timeline(server, http, &tl, &msg);
    const char *children = http_request_query(http, "children");
    bool keeps_children = children != NULL && strcmp(children, "keep") == 0;
    if (err == ERR_OK && children != NULL && !keeps_children) {
        err = err_set(&msg, ERR_INVALID, "children: expected keep");
    }
    if (err != ERR_OK) {
        http_respond_error(http, err, &msg);
        return;
    }
    struct call *call = call_create(server, http);
    call->tenant_request.done = call_answer_done;
    tenant_delete_timeline(timeline_tenant(tl), &call->tenant_request, tl, keeps_children);
}

static err_t add_blocks(struct page_key rel, uint32_t blocks, void *context, struct errmsg *msg)
{
    (void)rel;
    (void)msg;
    uint64_t *bytes = context;
    *bytes += (uint64_t)blocks * PAGE_SIZE;
    return ERR_OK;
}

static err_t measure_sizes(struct job *job)
{
    struct call *call = CONTAINER_OF(job, struct call, job);
    struct page_store *store = timeline_store(call->timeline);
    struct page_reader *reader = page_reader_create(store, timeline_path(call->timeline));
    err_t err = page_reader_relations(
        reader, KEY_SPC_STATE, 0, call->lsn, add_blocks, &call->logical_bytes, &job->msg);
    page_reader_destroy(reader);
    call->physical_bytes = page_store_size_of(store, timeline_number(call->timeline));
    return err;
}

static void on_sizes(struct job *job)
{
    struct call *call = CONTAINER_OF(job, struct call, job);
    struct timeline *tl = call->timeline;
    if (job->result != ERR_OK) {
        call_fail(call, job->result, &job->msg);
        return;
    }
    struct attachment *attachment = attachment_find(tl);
    struct doc *doc = brief_timeline(tl);
    doc_set_lsn(doc, "commit_lsn", timeline_commit_lsn(tl));
    doc_set_int(doc, "logical_bytes", (int64_t)call->logical_bytes);
    doc_set_int(doc, "physical_bytes", (int64_t)call->physical_bytes);
    char feed[sizeof(struct errmsg) + 64] = "none";
    if (attachment != NULL) {
        attachment_describe_feed(attachment, feed, sizeof(feed));
    }
    doc_set_str(doc, "feed", feed);
    http_respond_json(call->http, 200, doc);
    call_free(call);
}

void handle_get_timeline(struct http_context *context, struct http_request *http)
{
    struct call *call = call_begin(context, http);
    if (call == NULL) {
        return;
    }
    call->lsn = timeline_last_lsn(call->timeline);
    call->job = (struct job){.run = measure_sizes, .done = on_sizes};
    executor_submit(call->server->options.executor, &call->job);
}

/* -- time to LSN -- */

static err_t find_lsn(struct job *job)
{
    struct call *call = CONTAINER_OF(job, struct call, job);
    struct page_reader *reader =
        page_reader_create(timeline_store(call->timeline), timeline_path(call->timeline));
    lsn_t head = call->lsn;
    err_t err = page_reader_commit_after(reader, call->time, head, &call->lsn, &job->msg);
    page_reader_destroy(reader);
    return err;
}

static void on_lsn_found(struct job *job)
{
    struct call *call = CONTAINER_OF(job, struct call, job);
    err_t result = job->result;
    if (result == ERR_NOT_FOUND) {
        wall_us_t now = clock_wall() - PG_EPOCH_US;
        result = (int64_t)call->time <= now
                     ? ERR_OK /* nothing was committed since: the head it is */
                     : err_set(&job->msg, ERR_RANGE, "the time lies in the future");
    }
    if (result != ERR_OK) {
        call_fail(call, result, &job->msg);
        return;
    }
    lsn_t lsn = lsn_canonical(call->lsn, SEGMENT_SIZE);
    lsn = MAX_OF(lsn, timeline_root_start_lsn(call->timeline));
    result = history_check_window(
        tenant_history(timeline_tenant(call->timeline)), timeline_history(call->timeline), lsn,
        &job->msg);
    if (result != ERR_OK) {
        call_fail(call, result, &job->msg);
        return;
    }
    struct doc *doc = doc_object();
    doc_set_lsn(doc, "lsn", lsn);
    http_respond_json(call->http, 200, doc);
    call_free(call);
}

void handle_post_lsn_at_time(struct http_context *context, struct http_request *http)
{
    struct errmsg msg;
    struct doc *body;
    const char *text;
    wall_us_t time = 0;
    err_t err = http_request_json(http, &body, &msg);
    if (err == ERR_OK) {
        err = doc_get_str(body, "time", &text, &msg);
    }
    if (err == ERR_OK) {
        err = parse_time(text, &time, &msg);
    }
    if (err != ERR_OK) {
        http_respond_error(http, err, &msg);
        return;
    }
    struct call *call = call_begin(context, http);
    if (call == NULL) {
        return;
    }
    call->time = time > PG_EPOCH_US ? (uint64_t)(time - PG_EPOCH_US) : 0;
    call->lsn = timeline_last_lsn(call->timeline);
    call->job = (struct job){.run = find_lsn, .done = on_lsn_found};
    executor_submit(call->server->options.executor, &call->job);
}

static const struct http_route routes[] = {RPC_PAGESERVER(RPC_ROUTE)};

void management_add_routes(struct server *server, struct http_server *http)
{
    management.server = server;
    http_server_add_routes(http, routes, ARRAY_LEN(routes), &management.http);
}
