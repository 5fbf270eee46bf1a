/*
 * storage.c - what the store says of a project or branch: how much history is kept, sizes, leases,
 * hashes over pages, what keeps history, what differs from another branch.
 *
 * The answers are the pageserver's, asked when the request comes; timelines in them get the id of
 * the branch or snapshot that they are. A lease is the pageserver's too, durable when it is
 * answered: it is given, renewed and ended by its name, so that a repetition does no harm.
 */
#include <stdio.h>

#include "common/base/mem.h"
#include "common/base/parse.h"
#include "control/api/access.h"
#include "control/api/api_private.h"

#define ASK_TIMEOUT_MS 50000 /* clients wait for a minute */
#define LEASE_NAME_MAX 60

struct storage_call {
    struct api *api;
    struct http_request *request;
    struct node_call call;
    row_id_t project_id;
};

/* ---- the answer ---- */

static void name_timeline_of(
    const struct api *api, const char *project_id, struct doc *doc, const char *key)
{
    const char *hex = doc_value_str(doc_get(doc, key));
    const struct branch *branch = hex == NULL ? NULL : model_branch_of_timeline(api->model, hex);
    if (branch == NULL || strcmp(branch->row.project_id, project_id) != 0) {
        return;
    }
    if (branch_is_shown(branch)) {
        doc_set_str(doc, "branch_id", branch->row.id);
    } else if (snapshot_is_shown(branch)) {
        doc_set_str(doc, "snapshot_id", branch->row.id);
    }
}

/* Lists of objects with a timeline, one level deep: that is how the pageserver answers. */
static void name_timelines(const struct storage_call *call, struct doc *answer)
{
    static const char *const lists[] = {"timelines", "kept_by", "branches"};
    for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
        const struct doc *list = doc_get(answer, lists[i]);
        for (size_t k = 0; k < doc_count(list); k++) {
            name_timeline_of(call->api, call->project_id, doc_at(list, k), "timeline");
        }
    }
}

static void on_answer(struct node_call *node_call)
{
    struct storage_call *call = CONTAINER_OF(node_call, struct storage_call, call);
    if (request_refuse_if_key_is_gone(call->api, call->request)) {
        mem_free(call);
        return;
    }
    if (node_call->status / 100 == 2) {
        struct doc *answer = doc_copy(node_call->body);
        name_timelines(call, answer);
        http_respond_json(call->request, 200, answer);
    } else if (node_call->status >= 400 && node_call->status < 500) {
        http_respond_problem(
            call->request, node_call->status,
            node_call->status == 404 ? "NOT_FOUND" : "STORAGE_REFUSED", node_call->msg.text);
    } else {
        http_respond_problem(call->request, 503, "STORAGE_AWAY", node_call->msg.text);
    }
    mem_free(call);
}

/* ---- the question ---- */

static bool is_plain(const char *text, const char *more)
{
    for (const char *at = text; *at != '\0'; at++) {
        bool plain = (*at >= '0' && *at <= '9') || (*at >= 'a' && *at <= 'z') ||
                     (*at >= 'A' && *at <= 'Z') || strchr(more, *at) != NULL;
        if (!plain) {
            return false;
        }
    }
    return text[0] != '\0';
}

/* What the request says behind the `?`, of what the pageserver understands. */
static bool take_query(struct http_request *request, const char *const *names, struct buf *path)
{
    bool first = true;
    for (; *names != NULL; names++) {
        const char *value = request_query(request, *names);
        if (value == NULL) {
            continue;
        }
        if (!is_plain(value, "/")) {
            char text[100];
            snprintf(text, sizeof text, "%s: expected a number, a word or an LSN", *names);
            http_respond_problem(request, 400, "BAD_REQUEST", text);
            return false;
        }
        buf_printf(path, "%s%s=%s", first ? "?" : "&", *names, value);
        first = false;
    }
    return true;
}

static void ask(
    struct api *api,
    struct http_request *request,
    const struct project *project,
    enum rpc_id id,
    const char *path,
    struct doc *body)
{
    struct node *node = nodes_find(api->nodes, NODE_PAGESERVER, project->row.pageserver);
    if (node == NULL || !node->reachable) {
        doc_unref(body);
        http_respond_problem(request, 503, "STORAGE_AWAY", "the pageserver does not answer");
        return;
    }
    struct storage_call *call = MEM_NEW(struct storage_call);
    *call = (struct storage_call){.api = api, .request = request, .call = {.done = on_answer}};
    memcpy(call->project_id, project->row.id, sizeof call->project_id);
    node_call_start(&call->call, node, id, path, body, ASK_TIMEOUT_MS);
}

static void print_path(enum rpc_id id, const struct branch *branch, struct buf *to)
{
    rpc_path(
        to, id, tenant_id_text(branch->project->row.tenant).text,
        timeline_id_text(branch->row.timeline).text);
}

static void get_of_branch(
    struct http_context *context,
    struct http_request *request,
    enum rpc_id id,
    const char *const *names)
{
    struct api *api = api_of(context);
    const struct branch *branch = request_branch(api, request);
    struct buf path = {0};
    if (branch == NULL) {
        return;
    }
    print_path(id, branch, &path);
    if (take_query(request, names, &path)) {
        ask(api, request, branch->project, id, buf_cstr(&path), NULL);
    }
    buf_deinit(&path);
}

static void get_of_project(
    struct http_context *context, struct http_request *request, enum rpc_id id)
{
    struct api *api = api_of(context);
    const struct project *project = request_project(api, request);
    struct buf path = {0};
    if (project != NULL) {
        rpc_path(&path, id, tenant_id_text(project->row.tenant).text);
        ask(api, request, project, id, buf_cstr(&path), NULL);
    }
    buf_deinit(&path);
}

/* ---- routes ---- */

static void get_retention(struct http_context *context, struct http_request *request)
{
    get_of_project(context, request, RPC_PAGESERVER_GET_RETENTION);
}

static void get_size(struct http_context *context, struct http_request *request)
{
    get_of_project(context, request, RPC_PAGESERVER_SIZE);
}

static void get_leases(struct http_context *context, struct http_request *request)
{
    static const char *const names[] = {NULL};
    get_of_branch(context, request, RPC_PAGESERVER_GET_LEASES, names);
}

static void get_digest(struct http_context *context, struct http_request *request)
{
    static const char *const names[] = {"lsn", "spc", "db", "rel", "fork", "block", NULL};
    get_of_branch(context, request, RPC_PAGESERVER_DIGEST, names);
}

static void get_why_kept(struct http_context *context, struct http_request *request)
{
    static const char *const names[] = {"lsn", "spc", "db", "rel", "fork", "block", NULL};
    get_of_branch(context, request, RPC_PAGESERVER_WHY_KEPT, names);
}

static void get_time_of_lsn(struct http_context *context, struct http_request *request)
{
    static const char *const names[] = {"lsn", NULL};
    get_of_branch(context, request, RPC_PAGESERVER_TIME_OF_LSN, names);
}

/* The other side is a branch of the project, the parent if nothing is said, or a snapshot. */
static const struct branch *other_side(
    struct api *api, struct http_request *request, const struct branch *branch)
{
    const char *id = request_query(request, "other");
    struct errmsg msg = {0};
    if (id == NULL) {
        if (branch->parent == NULL) {
            http_respond_problem(
                request, 400, "BAD_REQUEST", "the branch has no parent: say which `other`");
        }
        return branch->parent;
    }
    struct branch *other = NULL;
    if (find_branch(api, branch->row.project_id, id, &other, &msg) != ERR_OK &&
        find_snapshot(api, branch->row.project_id, id, &other, NULL) != ERR_OK) {
        answer_not_found(request, &msg);
        return NULL;
    }
    return other;
}

static void get_diff(struct http_context *context, struct http_request *request)
{
    static const char *const names[] = {"lsn", "other_lsn", NULL};
    struct api *api = api_of(context);
    const struct branch *branch = request_branch(api, request);
    const struct branch *other = branch == NULL ? NULL : other_side(api, request, branch);
    struct buf path = {0};
    if (other == NULL) {
        return; /* answered */
    }
    print_path(RPC_PAGESERVER_DIFF, branch, &path);
    size_t size = path.size;
    if (take_query(request, names, &path)) {
        buf_printf(
            &path, "%sother=%s", path.size == size ? "?" : "&",
            timeline_id_text(other->row.timeline).text);
        ask(api, request, branch->project, RPC_PAGESERVER_DIFF, buf_cstr(&path), NULL);
    }
    buf_deinit(&path);
}

/* False: it was answered. */
static bool lease_path(
    enum rpc_id id, const struct branch *branch, struct http_request *request, struct buf *path)
{
    const char *name = http_request_param(request, "lease");
    if (strlen(name) > LEASE_NAME_MAX || !is_plain(name, "_-.")) {
        http_respond_problem(
            request, 400, "NAME_INVALID",
            "a lease has a name of at most 60 letters, digits, dots, - and _");
        return false;
    }
    rpc_path(
        path, id, tenant_id_text(branch->project->row.tenant).text,
        timeline_id_text(branch->row.timeline).text, name);
    return true;
}

static void put_lease(struct http_context *context, struct http_request *request)
{
    struct api *api = api_of(context);
    const struct branch *branch = NULL;
    struct doc *body = NULL;
    struct buf path = {0};
    struct errmsg msg = {0};
    lsn_t lsn = LSN_NONE;
    uint64_t seconds = 0;
    const char *code = "BAD_REQUEST";
    err_t err = request_body(request, &body, &code, &msg);
    if (err == ERR_OK) {
        err = doc_get_lsn(body, "lsn", &lsn, &msg);
    }
    if (err == ERR_OK) {
        err = doc_get_u64(body, "seconds", &seconds, &msg);
    }
    if (err != ERR_OK) {
        http_respond_problem(request, 400, code, msg.text);
    } else if (
        (branch = request_branch(api, request)) != NULL &&
        lease_path(RPC_PAGESERVER_PUT_LEASE, branch, request, &path)) {
        struct doc *wish = doc_set_lsn(doc_object(), "lsn", lsn);
        doc_set_int(wish, "seconds", (int64_t)seconds);
        ask(api, request, branch->project, RPC_PAGESERVER_PUT_LEASE, buf_cstr(&path), wish);
    }
    doc_unref(body);
    buf_deinit(&path);
}

static void delete_lease(struct http_context *context, struct http_request *request)
{
    struct api *api = api_of(context);
    const struct branch *branch = request_branch(api, request);
    struct buf path = {0};
    if (branch != NULL && lease_path(RPC_PAGESERVER_DELETE_LEASE, branch, request, &path)) {
        ask(api, request, branch->project, RPC_PAGESERVER_DELETE_LEASE, buf_cstr(&path), NULL);
    }
    buf_deinit(&path);
}

#define P "/api/v2/projects/{project}"
#define B P "/branches/{branch}"
const struct http_route storage_routes[] = {
    ROUTE("GET", P "/retention", get_retention, "how much history is kept"),
    ROUTE("GET", P "/size", get_size, "logical, physical and synthetic size of all branches"),
    ROUTE("GET", B "/leases", get_leases, "LSNs of it that stay readable"),
    ROUTE("PUT", B "/leases/{lease}", put_lease, "{lsn, seconds}: keep an LSN readable, or longer"),
    ROUTE("DELETE", B "/leases/{lease}", delete_lease, "end a lease"),
    ROUTE("GET", B "/digest", get_digest, "hash over its pages; lsn, spc, db, rel, fork, block"),
    ROUTE(
        "GET",
        B "/why_kept",
        get_why_kept,
        "what keeps its history; lsn, spc, db, rel, fork, block"),
    ROUTE("GET", B "/time_of_lsn", get_time_of_lsn, "time of the newest commit at an LSN; lsn"),
    ROUTE("GET", B "/diff", get_diff, "relations and pages that differ; lsn, other, other_lsn"),
};
const size_t storage_route_count = ARRAY_LEN(storage_routes);
