/*
 * keys.c - API keys: 256 random bits that are shown once; kept is their SHA-256.
 *
 * A key may belong to one project, may be for reading only, and may be limited in how many branches
 * it has made at a time and how many of its computes run.
 */
#include <stdio.h>

#include "common/auth/token_hash.h"
#include "common/base/mem.h"
#include "common/base/parse.h"
#include "common/base/prng.h"
#include "control/api/access.h"
#include "control/api/api_private.h"

#define KEYS_MAX     10000
#define KEY_NAME_MAX 64

static struct doc *view_creator(void)
{
    struct doc *doc = doc_set_str(doc_object(), "id", USER_ID);
    doc_set_str(doc, "name", "Admin");
    return doc_set_str(doc, "image", "");
}

static struct doc *view_key(const struct api_key *key, struct doc *creator)
{
    const struct key_row *row = &key->row;
    struct doc *doc = doc_object();
    uint64_t id = 0;
    err_ignore(parse_u64(row->id, 0, UINT64_MAX, &id, NULL), "we have printed it");
    doc_set_int(doc, "id", (int64_t)id);
    doc_set_str(doc, "name", row->name);
    doc_set_time(doc, "created_at", row->created_at);
    doc_set(doc, "created_by", creator);
    wall_us_t used = MAX_OF(key->used_at, row->last_used_at);
    if (used == 0) {
        doc_set(doc, "last_used_at", doc_null());
    } else {
        doc_set_time(doc, "last_used_at", used);
    }
    doc_set_str(
        doc, "last_used_from_addr", key->used_at != 0 ? key->used_from : row->last_used_from);
    if (row->project_id[0] != '\0') {
        doc_set_str(doc, "project_id", row->project_id);
    }
    doc_set_bool(doc, "read_only", row->is_read_only);
    doc_set_int(doc, "branches_max", (int64_t)row->branches_max);
    return doc_set_int(doc, "computes_max", (int64_t)row->computes_max);
}

/* ---- create ---- */

static err_t fill_key(struct mutation *mutation, struct key_row *row, struct errmsg *msg)
{
    const char *name = NULL, *project_id = NULL;
    struct project *project = NULL;
    TRY(doc_get_str(mutation->body, "key_name", &name, msg));
    TRY(doc_opt_str(mutation->body, "project_id", &project_id, msg));
    TRY(doc_opt_bool(mutation->body, "read_only", &row->is_read_only, msg));
    TRY(doc_opt_u64(mutation->body, "branches_max", &row->branches_max, msg));
    TRY(doc_opt_u64(mutation->body, "computes_max", &row->computes_max, msg));
    if (name[0] == '\0' || strlen(name) > KEY_NAME_MAX) {
        return mutation_refuse(
            mutation, 400, "NAME_INVALID", msg, "key_name: expected 1 to %d bytes", KEY_NAME_MAX);
    }
    TRY(check_one_line(mutation, "key", name, msg));
    if (mutation->api->model->keys.count >= KEYS_MAX) {
        return mutation_refuse(
            mutation, 422, "KEYS_LIMIT_EXCEEDED", msg, "there are at most %d keys", KEYS_MAX);
    }
    if (project_id != NULL) {
        TRY(find_project(mutation->api, project_id, &project, msg));
        memcpy(row->project_id, project->row.id, sizeof row->project_id);
    }
    snprintf(row->name, sizeof row->name, "%s", name);
    return ERR_OK;
}

static err_t decide_create(struct mutation *mutation, struct errmsg *msg)
{
    struct key_row row = {0};
    uint8_t random[32];
    uint64_t id = 0;
    char hex[2 * sizeof random + 1], text[sizeof hex + sizeof KEY_PREFIX];
    char hash[TOKEN_HASH_SIZE];
    TRY(fill_key(mutation, &row, msg));
    prng_secure(random, sizeof random);
    prng_secure(&id, sizeof id);
    format_hex(random, sizeof random, hex);
    snprintf(text, sizeof text, KEY_PREFIX "%s", hex);
    token_hash(bytes_of_str(text), hash);
    snprintf(row.hash, sizeof row.hash, "%s", hash);
    snprintf(row.id, sizeof row.id, "%" PRIu64, (id >> 16) + 1); /* exact in every JSON reader */
    if (model_key(mutation->api->model, row.id) != NULL) {
        return mutation_refuse(mutation, 503, "TRY_AGAIN", msg, "two ids collided, try again");
    }
    mutation_put(mutation, ROW_KEY, &row);
    snprintf(mutation->name, sizeof mutation->name, "%s", row.id);
    mutation->deleted = doc_set_str(doc_object(), "key", text);
    return ERR_OK;
}

static struct doc *answer_create(struct mutation *mutation)
{
    const struct api_key *key = model_key(mutation->api->model, mutation->name);
    struct doc *doc = view_key(key, doc_str(USER_ID));
    return doc_set_str(doc, "key", doc_value_str(doc_get(mutation->deleted, "key")));
}

static void post_key(struct http_context *context, struct http_request *request)
{
    struct mutation *mutation =
        mutation_create(context, request, decide_create, answer_create, 200);
    if (mutation != NULL) {
        mutation->is_secret = true;
        mutation_submit(mutation);
    }
}

/* ---- list, revoke ---- */

static void list_keys(struct http_context *context, struct http_request *request)
{
    struct doc *array = doc_array();
    FOR_EACH_KEY(api_of(context)->model, key)
    {
        doc_push(array, view_key(key, view_creator()));
    }
    http_respond_json(request, 200, array); /* not wrapped: clients expect it so */
}

static err_t decide_revoke(struct mutation *mutation, struct errmsg *msg)
{
    const struct api_key *key = model_key(mutation->api->model, mutation->name);
    if (key == NULL) {
        return mutation_refuse(mutation, 404, "KEY_NOT_FOUND", msg, "there is no such API key");
    }
    mutation->deleted = doc_set_bool(view_key(key, doc_str(USER_ID)), "revoked", true);
    store_delete(mutation->api->store, &mutation->change, ROW_KEY, &key->row);
    return ERR_OK;
}

static struct doc *answer_revoke(struct mutation *mutation)
{
    return doc_ref(mutation->deleted);
}

static void delete_key(struct http_context *context, struct http_request *request)
{
    struct mutation *mutation =
        mutation_create(context, request, decide_revoke, answer_revoke, 200);
    if (mutation != NULL) {
        snprintf(mutation->name, sizeof mutation->name, "%s", http_request_param(request, "key"));
        mutation_submit(mutation);
    }
}

/* ---- what a key may have ---- */

/* Of what a key made: what is there for people. What they can have back is not. */
static bool is_counted(const struct branch *branch)
{
    return branch_is_live(branch) && !branch_is_recoverable(branch);
}

static err_t check_count(
    struct mutation *mutation,
    const struct api_key *key,
    uint64_t count,
    uint64_t more,
    struct errmsg *msg)
{
    if (key->row.branches_max == 0 || more == 0 || count + more <= key->row.branches_max) {
        return ERR_OK;
    }
    return mutation_refuse(
        mutation, 422, "BRANCHES_LIMIT_EXCEEDED", msg,
        "this key has made %" PRIu64 " branches that are still there, its limit is %" PRIu64, count,
        key->row.branches_max);
}

static err_t check_branches_of(
    struct mutation *mutation, const struct api_key *key, uint64_t more, struct errmsg *msg)
{
    uint64_t count = 0;
    if (key == NULL || key->row.branches_max == 0) {
        return ERR_OK;
    }
    FOR_EACH_PROJECT(mutation->api->model, project)
    {
        if (project_is_recoverable(project)) {
            continue;
        }
        FOR_EACH_BRANCH(project, branch)
        {
            count += is_counted(branch) && strcmp(branch->row.created_by, key->row.id) == 0;
        }
    }
    return check_count(mutation, key, count, more, msg);
}

err_t check_branch_quota(struct mutation *mutation, struct errmsg *msg)
{
    return check_branches_of(mutation, mutation_key(mutation), 1, msg);
}

err_t check_quota_of_key(
    struct mutation *mutation, const char *key_id, uint64_t more, struct errmsg *msg)
{
    return check_branches_of(mutation, model_key(mutation->api->model, key_id), more, msg);
}

static void count_of_project(
    const struct model *model, const struct project *project, bool comes_back)
{
    FOR_EACH_BRANCH(project, branch)
    {
        struct api_key *key = is_counted(branch) ? model_key(model, branch->row.created_by) : NULL;
        if (key != NULL) {
            key->made += !comes_back;
            key->comes_back += comes_back;
        }
    }
}

/* One walk for all keys: there may be as many of them as there are branches. */
err_t check_quota_of_project(
    struct mutation *mutation, const struct project *recovered, struct errmsg *msg)
{
    const struct model *model = mutation->api->model;
    FOR_EACH_KEY(model, key)
    {
        key->made = key->comes_back = 0;
    }
    FOR_EACH_PROJECT(model, project)
    {
        if (project == recovered || !project_is_recoverable(project)) {
            count_of_project(model, project, project == recovered);
        }
    }
    FOR_EACH_KEY(model, key)
    {
        TRY(check_count(mutation, key, key->made, key->comes_back, msg));
    }
    return ERR_OK;
}

err_t check_compute_quota(struct mutation *mutation, const char *key_id, struct errmsg *msg)
{
    const struct api_key *key = model_key(mutation->api->model, key_id);
    uint64_t count = 0;
    if (key == NULL || key->row.computes_max == 0) {
        return ERR_OK;
    }
    FOR_EACH_PROJECT(mutation->api->model, project)
    {
        FOR_EACH_ENDPOINT(project, endpoint)
        {
            count += (endpoint->row.wanted == ENDPOINT_ACTIVE ||
                      endpoint->row.wanted == ENDPOINT_RESTARTING) &&
                     strcmp(endpoint->row.created_by, key->row.id) == 0;
        }
    }
    if (count >= key->row.computes_max) {
        return mutation_refuse(
            mutation, 422, "COMPUTES_LIMIT_EXCEEDED", msg,
            "%" PRIu64 " computes of this key run, its limit: suspend or delete one", count);
    }
    return ERR_OK;
}

#define ORGANISATION_KEYS "/api/v2/organizations/{organization}/api_keys"
const struct http_route key_routes[] = {
    ROUTE("GET", "/api/v2/api_keys", list_keys, "API keys, without their secrets"),
    ROUTE(
        "POST",
        "/api/v2/api_keys",
        post_key,
        "{key_name, project_id, read_only, branches_max, computes_max}: the key is shown once"),
    ROUTE("DELETE", "/api/v2/api_keys/{key}", delete_key, "revoke: it is refused from now on"),
    ROUTE("GET", ORGANISATION_KEYS, list_keys, "the same"),
    ROUTE("POST", ORGANISATION_KEYS, post_key, "the same"),
    ROUTE("DELETE", ORGANISATION_KEYS "/{key}", delete_key, "the same"),
};
const size_t key_route_count = ARRAY_LEN(key_routes);
