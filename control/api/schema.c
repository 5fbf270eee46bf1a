/*
 * schema.c - the schema of a branch as SQL or JSON, now or at an LSN or time, and the difference of
 * two, as SQL.
 *
 * A read-write compute of the branch answers if one is wanted anyway, or is started if there is
 * one and nothing else is asked for; an earlier moment is shown by a read_only compute that is made
 * for the question, with a lease, so that it goes also when we die before we delete it.
 * States of one reading: COMPUTE (the wish is made durable), WAIT (until it runs), DUMP (the agent
 * reads it), then the compute made for it is deleted. A comparison is two readings, one after the
 * other, and then a worker's: a schema may have megabytes. One that is asked for is handed on as
 * the agent wrote it.
 */
#include <stdio.h>

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "control/api/access.h"
#include "control/api/api_private.h"
#include "control/api/compute_wait.h"
#include "control/api/text_diff.h"

#define WAIT_MAX_MS  50000 /* clients give up after a minute */
#define DUMP_TIME_MS 45000
#define LEASE_S      180

struct moment {
    row_id_t branch_id;
    const char *lsn, *timestamp; /* of the request: NULL, or one of both */
};

struct schema {
    struct api *api;
    struct http_request *request;
    row_text_t database;
    struct moment moments[2];
    size_t count, done;
    bool as_json;          /* then there is one moment */
    struct buf answers[2]; /* of the agent: {"json": ...} or {"sql": ...} */
    struct job comparison; /* of both */
    char base[ROW_ID_SIZE + 80], own[ROW_ID_SIZE + 80];
    struct buf diff;
    struct compute_wait wait; /* with the time that all of it may take */

    /* Of the reading under way; its endpoint is that of `wait`. */
    bool is_ours; /* a compute that was made for it */
    struct doc *wish;
    struct mutation_then then;
    struct node_call call;
};

static void begin_reading(struct schema *schema);

static void schema_free(struct schema *schema)
{
    for (size_t i = 0; i < schema->count; i++) {
        buf_deinit(&schema->answers[i]);
    }
    buf_deinit(&schema->diff);
    doc_unref(schema->wish);
    mem_free(schema);
}

/* ---- the compute that was made for a reading goes ---- */

static void on_gone(struct mutation_then *then, err_t result, const struct errmsg *msg)
{
    err_ignore(result, "its lease ends it");
    (void)msg;
    mem_free(then);
}

static void drop_compute(struct schema *schema)
{
    if (schema->is_ours) {
        struct mutation_then *farewell = MEM_NEW(struct mutation_then);
        farewell->done = on_gone;
        schema->is_ours = false;
        read_only_end(
            schema->api, http_request_param(schema->request, "project"), schema->wait.endpoint_id,
            farewell);
    }
}

static void fail(struct schema *schema, unsigned status, const char *code, const char *message)
{
    drop_compute(schema);
    http_respond_problem(schema->request, status, code, message);
    schema_free(schema);
}

/* ---- the answer ---- */

static void name_moment(const struct moment *moment, char *to, size_t size)
{
    const char *at = moment->lsn != NULL ? moment->lsn : moment->timestamp;
    snprintf(to, size, "%s%s%s", moment->branch_id, at == NULL ? "" : "@", at == NULL ? "" : at);
}

static err_t run_comparison(struct job *job)
{
    struct schema *schema = CONTAINER_OF(job, struct schema, comparison);
    struct doc *docs[2] = {0};
    const char *sql[2] = {0};
    err_t err = ERR_OK;
    for (size_t i = 0; i < ARRAY_LEN(docs) && err == ERR_OK; i++) {
        err = doc_parse(buf_view(&schema->answers[i]), &docs[i], &job->msg);
        if (err == ERR_OK) {
            err = doc_get_str(docs[i], "sql", &sql[i], &job->msg);
        }
    }
    if (err == ERR_OK) {
        text_diff(sql[1], sql[0], schema->base, schema->own, &schema->diff);
    }
    doc_unref(docs[0]);
    doc_unref(docs[1]);
    return err;
}

static void on_compared(struct job *job)
{
    struct schema *schema = CONTAINER_OF(job, struct schema, comparison);
    if (job->result != ERR_OK) {
        fail(schema, 503, "SCHEMA_NOT_READ", job->msg.text);
        return;
    }
    http_respond_json(
        schema->request, 200, doc_set_str(doc_object(), "diff", buf_cstr(&schema->diff)));
    schema_free(schema);
}

static void answer(struct schema *schema)
{
    if (request_refuse_if_key_is_gone(schema->api, schema->request)) {
        schema_free(schema);
        return;
    }
    if (schema->count == 1) {
        http_respond_buf(schema->request, 200, "application/json", &schema->answers[0]);
        schema_free(schema);
        return;
    }
    name_moment(&schema->moments[1], schema->base, sizeof schema->base);
    name_moment(&schema->moments[0], schema->own, sizeof schema->own);
    schema->comparison = (struct job){.run = run_comparison, .done = on_compared};
    executor_submit(schema->api->executor, &schema->comparison);
}

/* ---- DUMP ---- */

/* False: it is something else, as of a host of an earlier release that is asked for JSON. */
static bool is_what_was_asked(const struct schema *schema, const struct buf *text)
{
    struct bytes begin = bytes_of_str(schema->as_json ? "{\"json\":" : "{\"sql\":");
    return text->size > begin.size && memcmp(text->data, begin.data, begin.size) == 0;
}

/* Of what the agent says, as far as the client can do something about it. */
static void fail_as_agent(struct schema *schema, const struct node_call *call)
{
    switch (call->status) {
    case 404: fail(schema, 404, "DATABASE_NOT_FOUND", call->msg.text); break;
    case 422: fail(schema, 422, "SCHEMA_TOO_LARGE", call->msg.text); break;
    default: fail(schema, 503, "SCHEMA_NOT_READ", call->msg.text); break;
    }
}

static void on_dump(struct node_call *call)
{
    struct schema *schema = CONTAINER_OF(call, struct schema, call);
    struct buf *text = &schema->answers[schema->done];
    if (call->status != 200) {
        fail_as_agent(schema, call);
        return;
    }
    *text = call->text;
    call->text = (struct buf){0};
    if (!is_what_was_asked(schema, text)) {
        fail(schema, 503, "SCHEMA_NOT_READ", "the answer of the compute's host has no schema");
        return;
    }
    drop_compute(schema);
    schema->done++;
    if (schema->done == schema->count) {
        answer(schema);
    } else {
        begin_reading(schema);
    }
}

static void dump(struct schema *schema, const struct endpoint *endpoint)
{
    struct buf path = {0};
    struct node *agent = nodes_find(schema->api->nodes, NODE_AGENT, endpoint->row.agent);
    if (agent == NULL) {
        fail(schema, 503, "COMPUTE_NOT_READY", "the compute's host is not among `agents`");
        return;
    }
    schema->call.done = on_dump;
    schema->call.keeps_text = true;
    rpc_path(&path, RPC_AGENT_SCHEMA, endpoint->row.id);
    struct doc *body = doc_set_str(doc_object(), "database", schema->database);
    doc_set_str(body, "format", schema->as_json ? "json" : "sql");
    node_call_start(&schema->call, agent, RPC_AGENT_SCHEMA, buf_cstr(&path), body, DUMP_TIME_MS);
    buf_deinit(&path);
}

/* ---- WAIT ---- */

static void on_waited(struct compute_wait *wait, struct endpoint *endpoint)
{
    struct schema *schema = CONTAINER_OF(wait, struct schema, wait);
    if (endpoint == NULL) {
        fail(schema, wait->status, wait->code, wait->msg.text);
    } else {
        dump(schema, endpoint);
    }
}

/* ---- COMPUTE ---- */

static void on_compute(struct mutation_then *then, err_t result, const struct errmsg *msg)
{
    struct schema *schema = CONTAINER_OF(then, struct schema, then);
    if (result != ERR_OK) {
        schema->is_ours = false;
        unsigned status = then->status != 0 ? then->status : http_status_of(result);
        fail(schema, status, then->code != NULL ? then->code : err_code(result), msg->text);
        return;
    }
    memcpy(schema->wait.endpoint_id, then->endpoint_id, sizeof then->endpoint_id);
    compute_wait_start(&schema->wait);
}

static const struct endpoint *writer_of(const struct branch *branch)
{
    FOR_EACH_ENDPOINT_OF(branch, endpoint)
    {
        if (endpoint_is_live(endpoint)) {
            return endpoint;
        }
    }
    return NULL;
}

static void begin_reading(struct schema *schema)
{
    const struct moment *moment = &schema->moments[schema->done];
    const char *project_id = http_request_param(schema->request, "project");
    struct branch *branch = NULL;
    struct errmsg msg = {0};
    if (find_branch(schema->api, project_id, moment->branch_id, &branch, &msg) != ERR_OK) {
        fail(schema, 404, "BRANCH_NOT_FOUND", msg.text);
        return;
    }
    const struct endpoint *writer = writer_of(branch);
    schema->then = (struct mutation_then){.done = on_compute};
    if (moment->lsn == NULL && moment->timestamp == NULL && writer != NULL) {
        memcpy(schema->then.endpoint_id, writer->row.id, sizeof schema->then.endpoint_id);
        if (writer->row.wanted == ENDPOINT_ACTIVE) {
            on_compute(&schema->then, ERR_OK, NULL);
        } else if (
            endpoint_want_active(schema->api, schema->request, writer, &schema->then) != ERR_OK) {
            schema_free(schema); /* answered */
        }
        return;
    }
    struct doc *wish = doc_set_str(doc_object(), "branch_id", moment->branch_id);
    doc_set_str(wish, "type", "read_only");
    doc_set_int(wish, "lease_seconds", LEASE_S);
    if (moment->lsn != NULL) {
        doc_set_str(wish, "lsn", moment->lsn);
    } else if (moment->timestamp != NULL) {
        doc_set_str(wish, "timestamp", moment->timestamp);
    }
    doc_unref(schema->wish);
    schema->wish = doc_set(doc_object(), "endpoint", wish);
    schema->is_ours = true;
    if (!read_only_begin(schema->api, schema->request, project_id, schema->wish, &schema->then)) {
        schema_free(schema); /* answered */
    }
}

/* ---- the requests ---- */

/* The first database, unless the request names one. */
static const char *database_of(struct http_request *request, const struct branch *branch)
{
    const char *name = request_query(request, "db_name");
    const struct doc *first = doc_at(branch->row.databases, 0);
    return name != NULL ? name : doc_value_str(doc_get(first, "name"));
}

static struct schema *start(struct http_context *context, struct http_request *request)
{
    struct api *api = api_of(context);
    const struct branch *branch = request_branch(api, request);
    if (branch == NULL) {
        return NULL;
    }
    const char *database = database_of(request, branch);
    if (database == NULL || find_named(branch->row.databases, database) == NULL) {
        http_respond_problem(
            request, 404, "DATABASE_NOT_FOUND", "db_name: the branch has no such database");
        return NULL;
    }
    struct schema *schema = MEM_NEW(struct schema);
    schema->api = api;
    schema->request = request;
    (void)snprintf(schema->database, sizeof schema->database, "%s", database);
    schema->wait = (struct compute_wait){
        .api = api, .deadline = clock_mono() + WAIT_MAX_MS * NS_PER_MS, .done = on_waited};
    schema->count = 1;
    memcpy(schema->moments[0].branch_id, branch->row.id, sizeof(row_id_t));
    schema->moments[0].lsn = request_query(request, "lsn");
    schema->moments[0].timestamp = request_query(request, "timestamp");
    return schema;
}

static void get_schema(struct http_context *context, struct http_request *request)
{
    const char *format = request_query(request, "format"); /* one of the two, or none */
    struct schema *schema = start(context, request);
    if (schema != NULL) {
        schema->as_json = format != NULL && strcmp(format, "json") == 0;
        begin_reading(schema);
    }
}

/* Against base_branch_id, or the parent. */
static void compare_schema(struct http_context *context, struct http_request *request)
{
    struct schema *schema = start(context, request);
    if (schema == NULL) {
        return;
    }
    const struct branch *branch = model_branch(schema->api->model, schema->moments[0].branch_id);
    const char *base = request_query(request, "base_branch_id");
    if (base == NULL) {
        base = branch->row.parent_id;
    }
    if (base[0] == '\0' || strlen(base) >= sizeof(row_id_t)) {
        fail(
            schema, 400, "BAD_REQUEST",
            "base_branch_id: expected the id of a branch, since this one has no parent");
        return;
    }
    snprintf(schema->moments[1].branch_id, sizeof(row_id_t), "%s", base);
    schema->moments[1].lsn = request_query(request, "base_lsn");
    schema->moments[1].timestamp = request_query(request, "base_timestamp");
    schema->count = 2;
    begin_reading(schema);
}

#define B "/api/v2/projects/{project}/branches/{branch}"
const struct http_route schema_routes[] = {
    ROUTE("GET", B "/schema", get_schema, "format sql or json; db_name, lsn or timestamp"),
    ROUTE(
        "GET",
        B "/compare_schema",
        compare_schema,
        "unified diff; db_name, base_branch_id, lsn or timestamp, base_lsn or base_timestamp"),
};
const size_t schema_route_count = ARRAY_LEN(schema_routes);
