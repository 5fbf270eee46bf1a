/*
 * mutation.c - a request that changes something, from its body to its answer: decided at its turn,
 * committed with its operations, answered with what was made (api_private.h).
 */
#include <stdarg.h>
#include <stdio.h>

#include "common/base/checksum.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/parse.h"
#include "common/base/str.h"
#include "control/api/access.h"
#include "control/api/api_private.h"
#include "control/api/bodies.h"
#include "control/api/idempotency.h"
#include "control/model/name.h"

#define OPERATIONS_MAX     1000 /* kept for each project; the oldest ended ones go first */
#define PRUNED_AT_ONCE_MAX 4    /* for each that is added */
#define RUNNING_MAX        8    /* of a compute; one more for each kind that is not among them */

struct api *api_of(struct http_context *context)
{
    return CONTAINER_OF(context, struct api, http);
}

static void mutation_free(struct mutation *mutation)
{
    list_remove(&mutation->in_keyed);
    doc_unref(mutation->answered);
    doc_unref(mutation->own_body);
    doc_unref(mutation->deleted);
    mem_free(mutation);
}

static err_t prepare(struct change *change, struct errmsg *msg)
{
    struct mutation *mutation = CONTAINER_OF(change, struct mutation, change);
    if (mutation->request != NULL && request_key_is_gone(mutation->api, mutation->request)) {
        return mutation_refuse(
            mutation, 401, "UNAUTHORIZED", msg, "the API key was revoked meanwhile");
    }
    TRY(mutation->decide(mutation, msg));
    return idempotency_put(mutation, msg);
}

static void on_kept(struct change *change, err_t result, const struct errmsg *msg)
{
    struct mutation *mutation = CONTAINER_OF(change, struct mutation, change);
    if (result != ERR_OK) {
        log_warn(NULL, "an answer is not kept, a repetition is answered anew: %s", msg->text);
    }
    http_respond_json(mutation->request, mutation->ok_status, doc_ref(mutation->answered));
    mutation_free(mutation);
}

static err_t prepare_kept(struct change *change, struct errmsg *msg)
{
    (void)msg;
    idempotency_keep(CONTAINER_OF(change, struct mutation, change));
    return ERR_OK;
}

/* With a key the answer is durable before it is given. */
static void give_answer(struct mutation *mutation)
{
    mutation->answered = mutation->answer(mutation);
    if (idempotency_keeps(mutation)) {
        mutation->change = (struct change){.prepare = prepare_kept, .done = on_kept};
        mutation_submit(mutation);
        return;
    }
    http_respond_json(mutation->request, mutation->ok_status, doc_ref(mutation->answered));
    mutation_free(mutation);
}

static void on_done(struct change *change, err_t result, const struct errmsg *msg)
{
    struct mutation *mutation = CONTAINER_OF(change, struct mutation, change);
    if (result != ERR_OK) {
        mutation_fail(mutation, result, msg);
        return;
    }
    if (mutation->then != NULL) {
        struct mutation_then *then = mutation->then;
        memcpy(then->endpoint_id, mutation->endpoint_id, sizeof then->endpoint_id);
        mutation_free(mutation);
        then->done(then, ERR_OK, NULL);
        return;
    }
    give_answer(mutation);
}

err_t request_body(
    struct http_request *request, struct doc **ret_body, const char **ret_code, struct errmsg *msg)
{
    struct doc *body = NULL;
    TRY(http_request_json(request, &body, msg));
    if (!str_starts_with(http_request_route(request)->path, "/api/v2/")) {
        *ret_body = doc_ref(body); /* of other parts of the cluster: their handlers look at it */
        return ERR_OK;
    }
    return body_take(body_of_route(http_request_route(request)), body, ret_body, ret_code, msg);
}

struct mutation *mutation_of_our_own(
    struct api *api, mutation_decide_fn decide, struct mutation_then *then)
{
    struct mutation *mutation = MEM_NEW(struct mutation);
    mutation->api = api;
    mutation->decide = decide;
    mutation->then = then;
    mutation->own_body = mutation->body = doc_object();
    mutation->change = (struct change){.prepare = prepare, .done = on_done};
    return mutation;
}

static void take_param(const struct mutation *mutation, const char *name, row_id_t ret_id)
{
    char part[24];
    snprintf(part, sizeof part, "{%s}", name);
    if (strstr(http_request_route(mutation->request)->path, part) != NULL) {
        snprintf(ret_id, ROW_ID_SIZE, "%s", http_request_param(mutation->request, name));
    }
}

struct mutation *mutation_create(
    struct http_context *context,
    struct http_request *request,
    mutation_decide_fn decide,
    mutation_answer_fn answer,
    unsigned ok_status)
{
    struct mutation *mutation = MEM_NEW(struct mutation);
    struct errmsg msg = {0};
    mutation->api = api_of(context);
    mutation->request = request;
    mutation->decide = decide;
    mutation->answer = answer;
    mutation->ok_status = ok_status;
    take_param(mutation, "project", mutation->project_id);
    take_param(mutation, "branch", mutation->branch_id);
    take_param(mutation, "endpoint", mutation->endpoint_id);
    mutation->change = (struct change){.prepare = prepare, .done = on_done};
    err_t err = request_body(request, &mutation->own_body, &mutation->error_code, &msg);
    mutation->body = mutation->own_body;
    if (err != ERR_OK) {
        mutation->error_status = mutation->error_code == NULL ? 0 : 400;
        mutation_fail(mutation, err, &msg);
        return NULL;
    }
    switch (idempotency_begin(mutation)) {
    case KEY_FIRST: return mutation;
    case KEY_LOST: give_answer(mutation); return NULL;
    case KEY_ANSWERED: mutation_free(mutation); return NULL;
    }
    ASSERT(false);
    return NULL;
}

void mutation_submit(struct mutation *mutation)
{
    store_submit(mutation->api->store, &mutation->change);
}

void mutation_start(
    struct http_context *context,
    struct http_request *request,
    mutation_decide_fn decide,
    mutation_answer_fn answer,
    unsigned ok_status)
{
    struct mutation *mutation = mutation_create(context, request, decide, answer, ok_status);
    if (mutation != NULL) {
        mutation_submit(mutation);
    }
}

void mutation_fail(struct mutation *mutation, err_t err, const struct errmsg *msg)
{
    if (mutation->then != NULL) {
        mutation->then->status = mutation->error_status;
        mutation->then->code = mutation->error_code;
        mutation->then->done(mutation->then, err, msg);
    } else if (mutation->error_status != 0) {
        http_respond_problem(
            mutation->request, mutation->error_status, mutation->error_code, msg->text);
    } else if (err == ERR_NOT_FOUND) {
        answer_not_found(mutation->request, msg);
    } else {
        http_respond_error(mutation->request, err, msg);
    }
    mutation_free(mutation);
}

err_t mutation_refuse(
    struct mutation *mutation,
    unsigned status,
    const char *code,
    struct errmsg *msg,
    const char *format,
    ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(msg->text, sizeof msg->text, format, args);
    va_end(args);
    mutation->error_status = status;
    mutation->error_code = code;
    return ERR_INVALID;
}

/* "VERSION" or "VERSION.HASH": a change is made to a row, whatever else its view shows. */
static bool is_version(const char *etag, const struct row_head *row)
{
    char version[32];
    int size = snprintf(version, sizeof version, "\"%" PRIu64, row->version);
    return strncmp(etag, version, (size_t)size) == 0 &&
           (etag[size] == '.' || strcmp(etag + size, "\"") == 0);
}

err_t check_if_match(struct mutation *mutation, const struct row_head *row, struct errmsg *msg)
{
    const char *wanted = http_request_header(mutation->request, "If-Match");
    if (wanted == NULL || strcmp(wanted, "*") == 0 || is_version(wanted, row)) {
        return ERR_OK;
    }
    return mutation_refuse(
        mutation, 412, "PRECONDITION_FAILED", msg,
        "%s has changed since: it is at version %" PRIu64 " now", row->id, row->version);
}

void respond_with_etag(struct http_request *request, const struct row_head *row, struct doc *answer)
{
    char etag[64];
    struct buf text = {0};
    const char *known = http_request_header(request, "If-None-Match");
    doc_print(answer, false, &text);
    snprintf(
        etag, sizeof etag, "\"%" PRIu64 ".%016" PRIx64 "\"", row->version,
        hash64(text.data, text.size, 0));
    buf_deinit(&text);
    http_response_header(request, "ETag", etag);
    if (known != NULL && (strcmp(known, "*") == 0 || strstr(known, etag) != NULL)) {
        doc_unref(answer);
        http_respond_bytes(request, 304, "application/json", (struct bytes){0});
        return;
    }
    http_respond_json(request, 200, answer);
}

const struct api_key *mutation_key(const struct mutation *mutation)
{
    return mutation->request == NULL ? model_key(mutation->api->model, mutation->key_id)
                                     : request_key(mutation->api, mutation->request);
}

/* Who makes something new: its quota counts it. */
static void set_creator(const struct mutation *mutation, row_id_t created_by)
{
    const struct api_key *key = mutation_key(mutation);
    if (key != NULL && created_by[0] == '\0') {
        memcpy(created_by, key->row.id, sizeof key->row.id);
    }
}

void mutation_put(struct mutation *mutation, enum row_kind kind, void *row)
{
    if (((const struct row_head *)row)->version == 0) {
        if (kind == ROW_BRANCH) {
            set_creator(mutation, ((struct branch_row *)row)->created_by);
        } else if (kind == ROW_ENDPOINT) {
            set_creator(mutation, ((struct endpoint_row *)row)->created_by);
        }
    }
    store_put(mutation->api->store, &mutation->change, kind, row);
}

/*
 * Room for one more: drop the oldest that have ended. Also for those that the reconciler has put
 * since, which drops none: for each compute that it suspends somebody has started one.
 */
static void prune_operations(struct mutation *mutation, const struct project *project)
{
    size_t skip = mutation->pruned, dropped = 0;
    FOR_EACH_OPERATION(project, operation)
    {
        size_t there = project->operation_count + mutation->operation_count - mutation->pruned;
        if (there < OPERATIONS_MAX || dropped == PRUNED_AT_ONCE_MAX) {
            return;
        }
        if (operation->row.status == STATUS_RUNNING) {
            continue;
        }
        if (skip > 0) {
            skip--;
            continue;
        }
        store_delete(mutation->api->store, &mutation->change, ROW_OPERATION, &operation->row);
        mutation->pruned++;
        dropped++;
    }
}

static void note_operation(struct mutation *mutation, const char *operation_id)
{
    if (mutation->operation_count < OPERATIONS_PER_MUTATION_MAX) {
        memcpy(mutation->operations[mutation->operation_count++], operation_id, sizeof(row_id_t));
    }
}

/*
 * Those of one compute end together, and in one commit: who asks for the same again and again while
 * its host does not answer shares the newest. NULL: there is room for one more.
 */
static const struct operation *find_shared(
    const struct mutation *mutation, enum operation_action action, const char *endpoint_id)
{
    const struct endpoint *endpoint = model_endpoint(mutation->api->model, endpoint_id);
    const struct operation *shared = NULL;
    size_t count = 0;
    if (endpoint == NULL || mutation->has_cancelled) {
        return NULL;
    }
    FOR_EACH_RUNNING(endpoint, operation)
    {
        count++;
        shared = operation->row.action == action ? operation : shared;
    }
    return count < RUNNING_MAX ? NULL : shared;
}

void mutation_operation(
    struct mutation *mutation,
    const char *project_id,
    enum operation_action action,
    const char *branch_id,
    const char *endpoint_id)
{
    const struct operation *shared = find_shared(mutation, action, endpoint_id);
    if (shared != NULL) {
        note_operation(mutation, shared->row.id);
        return;
    }
    struct operation_row row = {.action = action, .status = STATUS_RUNNING};
    const struct project *project = model_project(mutation->api->model, project_id);
    if (project != NULL) {
        prune_operations(mutation, project);
    }
    name_operation(row.id);
    snprintf(row.project_id, sizeof row.project_id, "%s", project_id);
    snprintf(row.branch_id, sizeof row.branch_id, "%s", branch_id);
    snprintf(row.endpoint_id, sizeof row.endpoint_id, "%s", endpoint_id);
    mutation_put(mutation, ROW_OPERATION, &row);
    note_operation(mutation, row.id);
}

void mutation_cancel_running(struct mutation *mutation, struct list *running)
{
    LIST_FOR_EACH(running, link)
    {
        struct operation_row row = CONTAINER_OF(link, struct operation, in_target)->row;
        row.status = STATUS_CANCELLED;
        mutation_put(mutation, ROW_OPERATION, &row);
        mutation->has_cancelled = true;
    }
}

err_t wish_of(
    const struct doc *object, const char *key, const struct doc **ret_wish, struct errmsg *msg)
{
    static struct doc *empty; /* never changed, never freed */
    const struct doc *member = doc_get(object, key);
    if (empty == NULL) {
        empty = doc_object();
    }
    if (member != NULL && !doc_is_null(member) && !doc_is_object(member)) {
        return err_set(msg, ERR_INVALID, "%s: expected an object", key);
    }
    *ret_wish = doc_is_object(member) ? member : empty;
    return ERR_OK;
}

/* ---- lookups ---- */

err_t find_project(
    const struct api *api, const char *id, struct project **ret_project, struct errmsg *msg)
{
    struct project *project = model_project(api->model, id);
    if (project == NULL || !project_is_shown(project)) {
        return err_set(msg, ERR_NOT_FOUND, "project %s not found", id);
    }
    *ret_project = project;
    return ERR_OK;
}

err_t find_history(
    const struct api *api,
    const char *project_id,
    const char *id,
    struct branch **ret_branch,
    struct errmsg *msg)
{
    struct project *project = NULL;
    TRY(find_project(api, project_id, &project, msg));
    struct branch *branch = model_branch(api->model, id);
    if (branch == NULL || branch->project != project || !branch_is_live(branch)) {
        return err_set(msg, ERR_NOT_FOUND, "branch %s not found in project %s", id, project_id);
    }
    *ret_branch = branch;
    return ERR_OK;
}

err_t find_branch(
    const struct api *api,
    const char *project_id,
    const char *id,
    struct branch **ret_branch,
    struct errmsg *msg)
{
    struct branch *branch = NULL;
    TRY(find_history(api, project_id, id, &branch, msg));
    if (!branch_is_shown(branch)) {
        return err_set(msg, ERR_NOT_FOUND, "branch %s not found in project %s", id, project_id);
    }
    *ret_branch = branch;
    return ERR_OK;
}

err_t find_endpoint(
    const struct api *api,
    const char *project_id,
    const char *id,
    struct endpoint **ret_endpoint,
    struct errmsg *msg)
{
    struct project *project = NULL;
    TRY(find_project(api, project_id, &project, msg));
    struct endpoint *endpoint = model_endpoint(api->model, id);
    if (endpoint == NULL || endpoint->project != project || !endpoint_is_shown(endpoint)) {
        return err_set(msg, ERR_NOT_FOUND, "endpoint %s not found in project %s", id, project_id);
    }
    *ret_endpoint = endpoint;
    return ERR_OK;
}

/* "branch x not found" -> BRANCH_NOT_FOUND */
void answer_not_found(struct http_request *request, const struct errmsg *msg)
{
    static const struct {
        const char *prefix, *code;
    } codes[] = {
        {"project ", "PROJECT_NOT_FOUND"},   {"branch ", "BRANCH_NOT_FOUND"},
        {"endpoint ", "ENDPOINT_NOT_FOUND"}, {"operation ", "OPERATION_NOT_FOUND"},
        {"snapshot ", "SNAPSHOT_NOT_FOUND"}, {"role ", "ROLE_NOT_FOUND"},
        {"database ", "DATABASE_NOT_FOUND"},
    };
    const char *code = "NOT_FOUND";
    for (size_t i = 0; i < ARRAY_LEN(codes); i++) {
        if (str_starts_with(msg->text, codes[i].prefix)) {
            code = codes[i].code;
        }
    }
    http_respond_problem(request, 404, code, msg->text);
}

struct project *request_project(struct api *api, struct http_request *request)
{
    struct project *project = NULL;
    struct errmsg msg = {0};
    if (find_project(api, http_request_param(request, "project"), &project, &msg) != ERR_OK) {
        answer_not_found(request, &msg);
        return NULL;
    }
    return project;
}

struct branch *request_branch(struct api *api, struct http_request *request)
{
    struct branch *branch = NULL;
    struct errmsg msg = {0};
    const char *project_id = http_request_param(request, "project");
    const char *branch_id = http_request_param(request, "branch");
    if (find_branch(api, project_id, branch_id, &branch, &msg) != ERR_OK) {
        answer_not_found(request, &msg);
        return NULL;
    }
    return branch;
}

err_t page_of(
    struct http_request *request,
    uint64_t limit_default,
    uint64_t limit_max,
    struct page *ret_page,
    struct errmsg *msg)
{
    const char *limit = request_query(request, "limit");
    const char *cursor = request_query(request, "cursor");
    struct page page = {.limit = limit_default};
    if (limit != NULL && parse_u64(limit, 1, limit_max, &page.limit, msg) != ERR_OK) {
        return err_wrap(msg, ERR_INVALID, "limit");
    }
    if (cursor != NULL && parse_u64(cursor, 1, UINT64_MAX, &page.after, NULL) != ERR_OK) {
        return err_set(msg, ERR_INVALID, "cursor: expected the one that a page before has given");
    }
    *ret_page = page;
    return ERR_OK;
}

void set_cursor(struct doc *answer, const char *key, uint64_t seq)
{
    char text[24];
    snprintf(text, sizeof text, "%" PRIu64, seq);
    doc_set(answer, "pagination", doc_set_str(doc_object(), key, text));
}

const struct api_table api_tables[] = {
    {other_routes, &other_route_count},
    {project_routes, &project_route_count},
    {branch_list_routes, &branch_list_route_count},
    {branch_routes, &branch_route_count},
    {restore_routes, &restore_route_count},
    {safekeeper_routes, &safekeeper_route_count},
    {role_routes, &role_route_count},
    {endpoint_routes, &endpoint_route_count},
    {operation_routes, &operation_route_count},
    {snapshot_routes, &snapshot_route_count},
    {snapshot_restore_routes, &snapshot_restore_route_count},
    {schedule_routes, &schedule_route_count},
    {storage_routes, &storage_route_count},
    {consumption_routes, &consumption_route_count},
    {key_routes, &key_route_count},
    {schema_routes, &schema_route_count},
    {openapi_routes, &openapi_route_count},
    {recover_routes, &recover_route_count},
    {permission_routes, &permission_route_count},
    {rpc_routes, &rpc_route_count},
};
const size_t api_table_count = ARRAY_LEN(api_tables);

wall_us_t api_now(const struct api *api)
{
    return clock_wall() + api->clock_ahead;
}

void api_add_routes(struct api *api, struct http_server *server)
{
    list_init(&api->keyed);
    http_server_set_guard(server, api->guard == NULL ? NULL : access_guard_http(api->guard));
    for (size_t i = 0; i < api_table_count; i++) {
        http_server_add_routes(server, api_tables[i].routes, *api_tables[i].count, &api->http);
    }
}
