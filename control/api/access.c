#include "control/api/access.h"

#include <stdio.h>

#include "common/auth/auth.h"
#include "common/auth/token_hash.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "common/base/str.h"
#include "common/io/file.h"
#include "control/api/api_private.h"

#define BURST_SECONDS  4
#define OPEN_MAX       100 /* requests of a key at once: those that wait keep connections */
#define TOUCH_EVERY_US ((wall_us_t)3600 * 1000000) /* last_used_at is written so often */
#define AUDIT_SIZE_MAX (64 * MIB) /* then it is audit.log.1, and the one before goes */
#define ACTOR_PREFIX   "key "
#define API            "/api/v2/"
#define BODY_MAX       (256 * KIB) /* parsing one keeps all others waiting */

METRIC_COUNTER(denied, "control_requests_denied_total", "requests without a right to their route");
METRIC_COUNTER(
    throttled, "control_requests_throttled_total", "requests of keys that came too fast");

struct access_guard {
    struct http_guard http;
    struct api *api;
    uint64_t requests_per_s;
    char audit_path[PATH_SIZE];
    int audit_fd;
    uint64_t audit_size;
    bool audit_failed; /* said once */
};

/* ---- classes ---- */

static bool is_path(const struct http_route *route, const char *path)
{
    return strcmp(route->path, path) == 0;
}

enum access access_of(const struct http_route *route)
{
    static const char *const for_any[] = {
        API "users/me",
        API "users/me/organizations",
        API "auth",
        API "regions",
        API "openapi.json",
        API "projects/shared",
        API "organizations/{organization}"};
    bool reads = strcmp(route->method, "GET") == 0;
    for (size_t i = 0; i < ARRAY_LEN(for_any); i++) {
        if (reads && is_path(route, for_any[i])) {
            return ACCESS_ANY_KEY;
        }
    }
    if (is_path(route, API "projects")) {
        return reads ? ACCESS_ANY_KEY : ACCESS_ORGANISATION; /* the list shows what the key has */
    }
    if (str_starts_with(route->path, API "projects/{project}")) {
        /* Where WAL lives is the owner's. */
        return strstr(route->path, "/safekeepers") != NULL && !reads ? ACCESS_OWNER
                                                                     : ACCESS_PROJECT;
    }
    bool of_organisation =
        str_starts_with(route->path, API "api_keys") ||
        str_starts_with(route->path, API "consumption_history/") ||
        str_starts_with(route->path, API "organizations/{organization}/api_keys");
    return of_organisation ? ACCESS_ORGANISATION : ACCESS_OWNER;
}

const char *access_name(enum access access)
{
    static const char *const names[] = {"owner", "any", "organisation", "project"};
    return names[access];
}

bool access_is_secret(const struct http_route *route)
{
    return str_ends_with(route->path, "/reveal_password") ||
           str_ends_with(route->path, "/connection_uri");
}

/* ---- admitting ---- */

struct api_key *request_key(const struct api *api, const struct http_request *request)
{
    const char *actor = request == NULL ? "" : http_request_actor(request);
    return str_starts_with(actor, ACTOR_PREFIX)
               ? model_key(api->model, actor + strlen(ACTOR_PREFIX))
               : NULL;
}

bool request_key_is_gone(const struct api *api, const struct http_request *request)
{
    return str_starts_with(http_request_actor(request), ACTOR_PREFIX) &&
           request_key(api, request) == NULL;
}

bool request_refuse_if_key_is_gone(const struct api *api, struct http_request *request)
{
    bool is_gone = request_key_is_gone(api, request);
    if (is_gone) {
        http_respond_problem(request, 401, "UNAUTHORIZED", "the API key was revoked meanwhile");
    }
    return is_gone;
}

static bool refuse(
    struct http_request *request, unsigned status, const char *code, const char *text)
{
    metric_add(&denied, 1);
    if (status == 401) {
        http_response_header(request, "WWW-Authenticate", "Bearer");
    }
    http_respond_problem(request, status, code, text);
    return false;
}

/* A bucket of tokens that fills with the rate. */
static bool is_too_fast(const struct access_guard *guard, struct api_key *key)
{
    double rate = (double)guard->requests_per_s, full = rate * BURST_SECONDS;
    mono_ns_t now = clock_mono();
    if (guard->requests_per_s == 0) {
        return false;
    }
    double more = (double)(now - key->tokens_at) / (double)NS_PER_S * rate;
    key->tokens = key->tokens_at == 0 ? full : MIN_OF(key->tokens + more, full);
    key->tokens_at = now;
    if (key->tokens < 1) {
        return true;
    }
    key->tokens -= 1;
    return false;
}

/* So that the last use is known also after a restart, if not to the minute. */
struct touch {
    struct change change;
    struct api *api;
    row_id_t key_id;
};

static err_t prepare_touch(struct change *change, struct errmsg *msg)
{
    struct touch *touch = CONTAINER_OF(change, struct touch, change);
    const struct api_key *key = model_key(touch->api->model, touch->key_id);
    (void)msg;
    if (key != NULL) {
        struct key_row row = key->row;
        row.last_used_at = key->used_at;
        memcpy(row.last_used_from, key->used_from, sizeof row.last_used_from);
        store_put(touch->api->store, change, ROW_KEY, &row);
    }
    return ERR_OK;
}

static void on_touched(struct change *change, err_t result, const struct errmsg *msg)
{
    err_ignore(result, "the next use tries again");
    (void)msg;
    mem_free(CONTAINER_OF(change, struct touch, change));
}

static void note_use(struct access_guard *guard, struct http_request *request, struct api_key *key)
{
    char peer[64];
    http_request_peer(request, peer);
    snprintf(key->used_from, sizeof key->used_from, "%s", peer);
    bool is_due = clock_wall() - MAX_OF(key->used_at, key->row.last_used_at) > TOUCH_EVERY_US;
    key->used_at = clock_wall();
    if (is_due) {
        struct touch *touch = MEM_NEW(struct touch);
        touch->api = guard->api;
        touch->change = (struct change){.prepare = prepare_touch, .done = on_touched};
        memcpy(touch->key_id, key->row.id, sizeof touch->key_id);
        store_submit(guard->api->store, &touch->change);
    }
}

static bool may(
    const struct api_key *key, struct http_request *request, const struct http_route *route)
{
    enum access access = access_of(route);
    bool of_project = key->row.project_id[0] != '\0';
    if (access == ACCESS_OWNER) {
        return refuse(
            request, 403, "FORBIDDEN", "this route is for the owner of the cluster, not for keys");
    }
    if (access == ACCESS_PROJECT && of_project &&
        strcmp(key->row.project_id, http_request_param(request, "project")) != 0) {
        /* As if it were not there: a key is no means to learn what else there is. */
        return refuse(request, 404, "PROJECT_NOT_FOUND", "project not found");
    }
    if (access == ACCESS_ORGANISATION && of_project) {
        return refuse(
            request, 403, "FORBIDDEN", "this key belongs to one project; this needs one of all");
    }
    bool reads = strcmp(route->method, "GET") == 0 && !access_is_secret(route);
    bool is_limited = key->row.branches_max > 0 || key->row.computes_max > 0;
    if (is_limited && !reads && strstr(route->path, "/api_keys") != NULL) {
        return refuse(request, 403, "FORBIDDEN", "a key with limits makes and revokes no keys");
    }
    if (key->row.is_read_only && !reads) {
        return refuse(request, 403, "FORBIDDEN", "this key may only read");
    }
    return true;
}

static bool admit_key(
    struct access_guard *guard,
    struct http_request *request,
    const struct http_route *route,
    struct bytes token)
{
    char hash[TOKEN_HASH_SIZE];
    char actor[ROW_ID_SIZE];
    token_hash(token, hash);
    struct api_key *key = model_key_of_hash(guard->api->model, hash);
    if (key == NULL) {
        return refuse(request, 401, "UNAUTHORIZED", "the API key is not valid");
    }
    int size = snprintf(actor, sizeof actor, ACTOR_PREFIX "%.40s", key->row.id);
    ASSERT(size > 0);
    http_request_set_actor(request, actor);
    if (http_request_count_of_actor(request) > OPEN_MAX) {
        metric_add(&throttled, 1);
        http_respond_problem(
            request, 429, "TOO_MANY_REQUESTS", "too many requests of this key are open: try again");
        return false;
    }
    if (is_too_fast(guard, key)) {
        metric_add(&throttled, 1);
        http_respond_problem(
            request, 429, "TOO_MANY_REQUESTS", "too many requests with this key: try again");
        return false;
    }
    note_use(guard, request, key);
    return may(key, request, route);
}

static bool recognise(
    struct access_guard *guard, struct http_request *request, const struct http_route *route)
{
    struct bytes token = http_request_bearer(request);
    const char *secret = guard->api->owner_token;
    size_t prefix = strlen(KEY_PREFIX);
    /* A Bearer text ends with a NUL behind its bytes: bytes_of_str made it. */
    if (token.size > prefix && memcmp(token.data, KEY_PREFIX, prefix) == 0) {
        return admit_key(guard, request, route, token);
    }
    if (auth_check(secret, token, AUTH_MANAGE, (struct tenant_id){0}, NULL) != ERR_OK) {
        return refuse(
            request, 401, "UNAUTHORIZED", "a valid key is needed: Authorization: Bearer KEY");
    }
    http_request_set_actor(request, "owner");
    return true;
}

/* Before anything is looked up; for callers with a right to the route. */
static bool check_request(struct http_request *request, const struct http_route *route)
{
    const char *code = NULL;
    struct errmsg msg = {0};
    if (!str_starts_with(route->path, API)) {
        return true;
    }
    http_request_limit_body(request, BODY_MAX);
    if (query_check(request, &code, &msg) != ERR_OK) {
        http_respond_problem(request, 400, code, msg.text);
        return false;
    }
    bool in_path = strstr(route->path, "{organization}") != NULL;
    const char *organization = in_path ? http_request_param(request, "organization")
                                       : http_request_query(request, "org_id");
    bool is_ours = organization == NULL || (organization[0] == '\0' && !in_path) ||
                   strcmp(organization, ORGANIZATION_ID) == 0;
    if (!is_ours) {
        http_respond_problem(
            request, 404, "ORGANIZATION_NOT_FOUND",
            "the one organization here is " ORGANIZATION_ID);
    }
    return is_ours;
}

static bool admit(
    struct http_guard *http, struct http_request *request, const struct http_route *route)
{
    struct access_guard *guard = CONTAINER_OF(http, struct access_guard, http);
    return recognise(guard, request, route) && check_request(request, route);
}

/* ---- the record ---- */

static void open_audit(struct access_guard *guard)
{
    struct errmsg msg = {0};
    err_t err = file_open(&guard->audit_fd, guard->audit_path, FILE_CREATE, &msg);
    if (err == ERR_OK) {
        err = file_size(guard->audit_fd, guard->audit_path, &guard->audit_size, &msg);
    }
    if (err != ERR_OK && !guard->audit_failed) {
        guard->audit_failed = true;
        log_error(NULL, "changes are not recorded: %s", msg.text);
    }
}

static void write_audit(struct access_guard *guard, struct bytes line)
{
    struct errmsg msg = {0};
    if (guard->audit_size > AUDIT_SIZE_MAX) {
        char older[PATH_SIZE];
        file_close(&guard->audit_fd);
        err_t err = str_format(older, sizeof older, &msg, "%.1000s.1", guard->audit_path);
        if (err == ERR_OK) {
            err = file_rename_durably(guard->audit_path, older, &msg);
        }
        err_ignore(err, "then the one that is there goes on growing");
    }
    if (guard->audit_fd < 0) {
        open_audit(guard);
    }
    if (guard->audit_fd >= 0) {
        err_t err =
            file_write_at(guard->audit_fd, guard->audit_path, line, guard->audit_size, &msg);
        guard->audit_size += err == ERR_OK ? line.size : 0;
        if (err != ERR_OK && !guard->audit_failed) {
            guard->audit_failed = true;
            log_error(NULL, "a change was not recorded: %s", msg.text);
        }
    }
}

/* What changes something, or tried to with a key; never a token, a body or a password. */
static void answered(
    struct http_guard *http,
    const struct http_request *request,
    const struct http_route *route,
    unsigned status)
{
    struct access_guard *guard = CONTAINER_OF(http, struct access_guard, http);
    const char *actor = http_request_actor(request);
    bool reads = strcmp(route->method, "GET") == 0 && !access_is_secret(route);
    if (reads || actor[0] == '\0' || !str_starts_with(route->path, API)) {
        return;
    }
    char peer[64];
    struct buf line = {0};
    http_request_peer(request, peer);
    struct doc *doc = doc_object();
    doc_set_time(doc, "time", clock_wall());
    doc_set_str(doc, "actor", actor);
    doc_set_str(doc, "address", peer);
    doc_set_str(doc, "method", http_request_method(request));
    doc_set_str(doc, "path", http_request_path(request));
    doc_set_int(doc, "status", status);
    doc_set_str(doc, "request_id", http_request_id(request));
    doc_print(doc, false, &line);
    buf_append(&line, "\n", 1);
    write_audit(guard, buf_view(&line));
    buf_deinit(&line);
    doc_unref(doc);
}

struct access_guard *access_guard_create(struct api *api, const struct access_options *options)
{
    struct access_guard *guard = MEM_NEW(struct access_guard);
    guard->http = (struct http_guard){.admit = admit, .answered = answered};
    guard->api = api;
    guard->requests_per_s = options->requests_per_s;
    guard->audit_fd = -1;
    snprintf(guard->audit_path, sizeof guard->audit_path, "%s", options->audit_path);
    open_audit(guard);
    return guard;
}

void access_guard_destroy(struct access_guard *guard)
{
    if (guard != NULL) {
        file_close(&guard->audit_fd);
        mem_free(guard);
    }
}

struct http_guard *access_guard_http(struct access_guard *guard)
{
    return &guard->http;
}
