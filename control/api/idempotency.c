#include "control/api/idempotency.h"

#include <stdio.h>

#include "common/auth/token_hash.h"
#include "common/base/str.h"

#define KEPT_US           ((wall_us_t)24 * 3600 * 1000000)
#define KEY_BYTES_MAX     255
#define ANSWER_BYTES_MAX  (8 * KIB) /* a larger one is made anew: 40 MB of a caller at most */
#define EXPIRED_PER_PUT   4
#define REPLY_ID_SIZE     40 /* hex digits of the hash: 160 bits */
#define IS_KEYED(request) list_link_is_in(&(request)->in_keyed)

/* ---- which request it is ---- */

static bool is_printable(const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text < ' ' || *text > '~') {
            return false;
        }
    }
    return true;
}

static void identify(struct mutation *mutation, const char *key)
{
    const struct http_request *request = mutation->request;
    char hash[TOKEN_HASH_SIZE];
    struct buf text = {0};
    buf_printf(
        &text, "%s\n%s\n%s\n%s", http_request_actor(request), http_request_method(request),
        http_request_path(request), key);
    token_hash(buf_view(&text), hash);
    snprintf(mutation->reply_id, sizeof mutation->reply_id, "%.*s", REPLY_ID_SIZE, hash);
    buf_deinit(&text);
    struct bytes body = http_request_body(request);
    /* Some routes say what they want behind the `?`. */
    for (const struct body_field *field = query_of_route(http_request_route(request));
         field->name != NULL; field++) {
        const char *value = request_query(request, field->name);
        buf_printf(&text, "%s\n", value == NULL ? "" : value);
    }
    buf_append(&text, body.data, body.size);
    token_hash(buf_view(&text), hash);
    memcpy(mutation->reply_digest, hash, sizeof hash);
    buf_deinit(&text);
}

static struct mutation *under_way(struct api *api, const char *reply_id)
{
    LIST_FOR_EACH(&api->keyed, link)
    {
        struct mutation *mutation = CONTAINER_OF(link, struct mutation, in_keyed);
        if (strcmp(mutation->reply_id, reply_id) == 0) {
            return mutation;
        }
    }
    return NULL;
}

static struct reply *kept_reply(const struct mutation *mutation)
{
    struct reply *reply = model_reply(mutation->api->model, mutation->reply_id);
    return reply != NULL && reply->row.expires_at > api_now(mutation->api) ? reply : NULL;
}

/* ---- the answer once more ---- */

static void take_id(const struct doc *made, const char *key, row_id_t ret_id)
{
    const char *text = doc_value_str(doc_get(made, key));
    snprintf(ret_id, ROW_ID_SIZE, "%s", text == NULL ? "" : text);
}

static struct doc *made_by(const struct mutation *mutation)
{
    struct doc *made = doc_object(), *operations = doc_array();
    const struct {
        const char *key, *value;
    } texts[] = {
        {"project", mutation->project_id},
        {"branch", mutation->branch_id},
        {"endpoint", mutation->endpoint_id},
        {"name", mutation->name},
    };
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        if (texts[i].value[0] != '\0') {
            doc_set_str(made, texts[i].key, texts[i].value);
        }
    }
    for (size_t i = 0; i < mutation->operation_count; i++) {
        doc_push(operations, doc_str(mutation->operations[i]));
    }
    if (mutation->deleted != NULL && !mutation->is_secret) {
        doc_set(made, "deleted", doc_ref(mutation->deleted));
    }
    return doc_set(made, "operations", operations);
}

static void take_made(struct mutation *mutation, const struct doc *made)
{
    const struct doc *operations = doc_get(made, "operations");
    const char *name = doc_value_str(doc_get(made, "name"));
    struct doc *deleted = doc_get(made, "deleted");
    take_id(made, "project", mutation->project_id);
    take_id(made, "branch", mutation->branch_id);
    take_id(made, "endpoint", mutation->endpoint_id);
    snprintf(mutation->name, sizeof mutation->name, "%s", name == NULL ? "" : name);
    for (size_t i = 0; i < doc_count(operations) && i < OPERATIONS_PER_MUTATION_MAX; i++) {
        const char *id = doc_value_str(doc_at(operations, i));
        snprintf(mutation->operations[i], ROW_ID_SIZE, "%s", id == NULL ? "" : id);
        mutation->operation_count = i + 1;
    }
    if (deleted != NULL) {
        mutation->deleted = doc_ref(deleted);
    }
}

/* What the answer is about may have been deleted since. */
static bool is_still_there(const struct mutation *mutation)
{
    const struct model *model = mutation->api->model;
    const struct branch *branch = model_branch(model, mutation->branch_id);
    if ((mutation->project_id[0] != '\0' && model_project(model, mutation->project_id) == NULL) ||
        (mutation->branch_id[0] != '\0' && branch == NULL) ||
        (mutation->endpoint_id[0] != '\0' &&
         model_endpoint(model, mutation->endpoint_id) == NULL)) {
        return false;
    }
    return mutation->name[0] == '\0' || mutation->deleted != NULL || branch == NULL ||
           find_named(branch->row.roles, mutation->name) != NULL ||
           find_named(branch->row.databases, mutation->name) != NULL;
}

static enum idempotency repeat(struct mutation *mutation, const struct reply *reply)
{
    struct http_request *request = mutation->request;
    unsigned status = (unsigned)reply->row.status;
    if (reply->row.is_secret) {
        http_respond_problem(
            request, 409, "IDEMPOTENT_SECRET",
            "this was done by the first request with this Idempotency-Key; what it answered is "
            "shown once");
        return KEY_ANSWERED;
    }
    http_response_header(request, "Idempotent-Replayed", "true");
    if (reply->row.answer != NULL) {
        http_respond_json(request, status, doc_ref(reply->row.answer));
        return KEY_ANSWERED;
    }
    take_made(mutation, reply->row.made);
    if (!is_still_there(mutation)) {
        http_respond_problem(
            request, 409, "IDEMPOTENT_ANSWER_LOST",
            "this was done by the first request with this Idempotency-Key; its answer was lost, "
            "and what it was about is gone");
        return KEY_ANSWERED;
    }
    mutation->ok_status = status;
    list_push_back(&mutation->api->keyed, &mutation->in_keyed);
    return KEY_LOST;
}

/* ---- begin ---- */

static enum idempotency refuse(
    struct http_request *request, unsigned status, const char *code, const char *text)
{
    http_respond_problem(request, status, code, text);
    return KEY_ANSWERED;
}

enum idempotency idempotency_begin(struct mutation *mutation)
{
    struct http_request *request = mutation->request;
    const char *key = http_request_header(request, "Idempotency-Key");
    /* By the route: a HEAD is served as a GET. What that needs is no deed of the request. */
    const struct http_route *route = http_request_route(request);
    if (key == NULL || !str_starts_with(route->path, "/api/v2/") ||
        strcmp(route->method, "GET") == 0) {
        return KEY_FIRST;
    }
    if (key[0] == '\0' || strlen(key) > KEY_BYTES_MAX || !is_printable(key)) {
        return refuse(
            request, 400, "IDEMPOTENCY_KEY_INVALID",
            "Idempotency-Key: expected 1 to 255 printable ASCII characters");
    }
    identify(mutation, key);
    const struct mutation *first = under_way(mutation->api, mutation->reply_id);
    const struct reply *reply = kept_reply(mutation);
    const char *digest =
        first != NULL ? first->reply_digest : (reply != NULL ? reply->row.digest : NULL);
    if (digest == NULL) {
        list_push_back(&mutation->api->keyed, &mutation->in_keyed);
        return KEY_FIRST;
    }
    if (strcmp(digest, mutation->reply_digest) != 0) {
        return refuse(
            request, 422, "IDEMPOTENCY_KEY_REUSED",
            "this Idempotency-Key came with another body before: a key stands for one request");
    }
    if (first != NULL) {
        return refuse(
            request, 409, "IDEMPOTENCY_KEY_IN_USE",
            "the first request with this Idempotency-Key is still under way: try again");
    }
    return repeat(mutation, reply);
}

/* ---- put and keep ---- */

static void drop_expired(struct mutation *mutation)
{
    size_t dropped = 0;
    FOR_EACH_REPLY(mutation->api->model, reply)
    {
        if (reply->row.expires_at > api_now(mutation->api) || dropped == EXPIRED_PER_PUT) {
            return;
        }
        if (strcmp(reply->row.id, mutation->reply_id) != 0) {
            store_delete(mutation->api->store, &mutation->change, ROW_REPLY, &reply->row);
            dropped++;
        }
    }
}

static bool has_its_fill(const struct mutation *mutation, const char *caller)
{
    size_t count = 0;
    FOR_EACH_REPLY(mutation->api->model, reply)
    {
        count += strcmp(reply->row.caller, caller) == 0 &&
                 reply->row.expires_at > api_now(mutation->api);
    }
    return count >= REPLIES_PER_CALLER_MAX;
}

err_t idempotency_put(struct mutation *mutation, struct errmsg *msg)
{
    struct api *api = mutation->api;
    if (!IS_KEYED(mutation)) {
        return ERR_OK;
    }
    const char *caller = http_request_actor(mutation->request);
    if (has_its_fill(mutation, caller)) {
        return mutation_refuse(
            mutation, 429, "TOO_MANY_IDEMPOTENCY_KEYS", msg,
            "there are %d Idempotency-Keys of this caller, each is kept for 24 hours: send the "
            "request without one, or later",
            REPLIES_PER_CALLER_MAX);
    }
    drop_expired(mutation);
    struct reply_row row = {
        .status = mutation->ok_status,
        .is_secret = mutation->is_secret,
        .expires_at = api_now(api) + KEPT_US,
        .made = made_by(mutation),
    };
    const struct reply *expired = model_reply(api->model, mutation->reply_id);
    if (expired != NULL) {
        row.version = expired->row.version;
        row.seq = ++api->model->seq_last;
        row.created_at = api_now(api);
    }
    memcpy(row.id, mutation->reply_id, sizeof row.id);
    memcpy(row.digest, mutation->reply_digest, sizeof row.digest);
    snprintf(row.caller, sizeof row.caller, "%s", caller);
    store_put(api->store, &mutation->change, ROW_REPLY, &row);
    row_unref(ROW_REPLY, &row);
    return ERR_OK;
}

bool idempotency_keeps(const struct mutation *mutation)
{
    if (!IS_KEYED(mutation) || mutation->is_secret) {
        return false;
    }
    struct buf text = {0};
    doc_print(mutation->answered, false, &text);
    bool fits = text.size <= ANSWER_BYTES_MAX;
    buf_deinit(&text);
    return fits;
}

void idempotency_keep(struct mutation *mutation)
{
    const struct reply *reply = model_reply(mutation->api->model, mutation->reply_id);
    if (reply != NULL) {
        struct reply_row row = reply->row;
        row.answer = mutation->answered; /* borrowed: store_put takes its own references */
        store_put(mutation->api->store, &mutation->change, ROW_REPLY, &row);
    }
}
