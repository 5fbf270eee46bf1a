/*
 * connect.c - what a gateway asks before it lets a client through: POST /v1/connect with the name
 * of an endpoint or branch, a role and the client's address. An endpoint that sleeps is started, as
 * if by POST .../start; the answer comes when its compute runs, with its address and the role's
 * verifier as the compute has it.
 *
 * With an `lsn` or a `timestamp` it is a read-only endpoint at that moment, made for it: who comes
 * next for the same one shares it, and it is deleted when nobody has worked there for a while
 * (read_only.c, branch_has_expired()). At most MOMENTS_MAX of a branch.
 *
 * States in their order: START (the wish is made durable), WAIT (until the compute runs), VERIFIER
 * (the agent reads it). The endpoint may go at any time, so it is looked up again by id.
 */
#include <stdio.h>

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "control/api/allowed_ips.h"
#include "control/api/api_private.h"
#include "control/api/compute_wait.h"

#define WAIT_MAX_MS      55000
#define MOMENT_IDLE_S    60 /* without work; and the least that it lives */
#define MOMENT_NAME      "connections at "
#define ASK_AGAIN_MS     50
#define VERIFIER_TIME_MS 10000

enum connect_state { CONNECT_START, CONNECT_WAIT, CONNECT_VERIFIER };

struct connect {
    struct api *api;
    struct http_request *request;
    enum connect_state state;
    struct compute_wait wait; /* with the endpoint, and the time that all of it may take */
    char role[64];
    struct doc *wish; /* for a moment: the read-only endpoint */
    struct mutation_then then;
    struct timer timer;
    struct node_call call;
};

static void connect_free(struct connect *connect)
{
    doc_unref(connect->wish);
    mem_free(connect);
}

static void fail(struct connect *connect, unsigned status, const char *code, const char *message)
{
    http_respond_problem(connect->request, status, code, message);
    connect_free(connect);
}

/* ---- VERIFIER ---- */

static void on_verifier(struct node_call *call)
{
    struct connect *connect = CONTAINER_OF(call, struct connect, call);
    if (call->status != 200 && clock_mono() < connect->wait.deadline) {
        connect->state = CONNECT_WAIT; /* it went down a moment ago: nobody has told us yet */
        timer_start(connect->api->loop, &connect->timer, ASK_AGAIN_MS);
        return;
    }
    if (call->status != 200) {
        fail(connect, 503, "COMPUTE_NOT_READY", call->msg.text);
        return;
    }
    struct endpoint *endpoint = model_endpoint(connect->api->model, connect->wait.endpoint_id);
    if (endpoint == NULL || !endpoint_is_shown(endpoint)) {
        fail(connect, 404, "ENDPOINT_NOT_FOUND", "the endpoint was deleted");
        return;
    }
    endpoint->connected_at = clock_mono();
    const struct node *agent = nodes_find(connect->api->nodes, NODE_AGENT, endpoint->row.agent);
    const char *verifier = doc_value_str(doc_get(call->body, "verifier"));
    struct doc *doc = doc_object();
    doc_set_str(doc, "endpoint_id", endpoint->row.id);
    doc_set_str(doc, "branch_id", endpoint->row.branch_id);
    doc_set_str(doc, "project_id", endpoint->row.project_id);
    doc_set_str(doc, "host", agent == NULL ? "localhost" : agent->host);
    doc_set_int(doc, "port", (int64_t)endpoint->row.port);
    doc_set_str(doc, "verifier", verifier == NULL ? "" : verifier);
    http_respond_json(connect->request, 200, doc);
    connect_free(connect);
}

static void ask_verifier(struct connect *connect, const struct endpoint *endpoint)
{
    struct buf path = {0};
    struct node *agent = nodes_find(connect->api->nodes, NODE_AGENT, endpoint->row.agent);
    if (agent == NULL) {
        fail(
            connect, 503, "COMPUTE_NOT_READY",
            "the compute's host is not among `agents` of control");
        return;
    }
    connect->state = CONNECT_VERIFIER;
    connect->call.done = on_verifier;
    rpc_path(&path, RPC_AGENT_VERIFIER, endpoint->row.id);
    node_call_start(
        &connect->call, agent, RPC_AGENT_VERIFIER, buf_cstr(&path),
        doc_set_str(doc_object(), "role", connect->role), VERIFIER_TIME_MS);
    buf_deinit(&path);
}

/* ---- WAIT ---- */

static void on_waited(struct compute_wait *wait, struct endpoint *endpoint)
{
    struct connect *connect = CONTAINER_OF(wait, struct connect, wait);
    if (endpoint == NULL) {
        fail(connect, wait->status, wait->code, wait->msg.text);
    } else {
        ask_verifier(connect, endpoint);
    }
}

static void on_ask_again(struct timer *timer)
{
    compute_wait_start(&CONTAINER_OF(timer, struct connect, timer)->wait);
}

/* ---- START ---- */

static void on_wish(struct mutation_then *then, err_t result, const struct errmsg *msg)
{
    struct connect *connect = CONTAINER_OF(then, struct connect, then);
    if (result != ERR_OK) {
        unsigned status = then->status != 0 ? then->status : http_status_of(result);
        fail(connect, status, then->code != NULL ? then->code : err_code(result), msg->text);
        return;
    }
    if (connect->wish != NULL) {
        memcpy(connect->wait.endpoint_id, then->endpoint_id, sizeof then->endpoint_id);
    }
    connect->state = CONNECT_WAIT;
    compute_wait_start(&connect->wait);
}

static void start(struct connect *connect, const struct endpoint *endpoint)
{
    if (endpoint->row.wanted == ENDPOINT_ACTIVE || endpoint->row.wanted == ENDPOINT_RESTARTING) {
        on_wish(&connect->then, ERR_OK, NULL);
        return;
    }
    connect->then.done = on_wish;
    err_t err = endpoint_want_active(connect->api, connect->request, endpoint, &connect->then);
    if (err != ERR_OK) {
        connect_free(connect); /* answered */
    }
}

/* ---- a moment ---- */

struct moment {
    const char *lsn, *timestamp; /* one of them, or neither: now */
};

static bool is_moment(const struct moment *moment)
{
    return moment->lsn != NULL || moment->timestamp != NULL;
}

static void name_moment(const struct moment *moment, row_text_t ret_name)
{
    (void)snprintf(
        ret_name, sizeof(row_text_t), MOMENT_NAME "%.60s",
        moment->lsn != NULL ? moment->lsn : moment->timestamp);
}

const struct endpoint *find_moment(const struct branch *branch, const char *name, size_t *ret_count)
{
    const struct endpoint *found = NULL;
    *ret_count = 0;
    FOR_EACH_ENDPOINT(branch->project, endpoint)
    {
        if (!endpoint_is_live(endpoint) || endpoint->row.type != ENDPOINT_READ_ONLY ||
            strcmp(endpoint->row.source_branch_id, branch->row.id) != 0 ||
            strncmp(endpoint->row.name, MOMENT_NAME, strlen(MOMENT_NAME)) != 0) {
            continue;
        }
        ++*ret_count;
        found = strcmp(endpoint->row.name, name) == 0 ? endpoint : found;
    }
    return found;
}

static void make_moment(
    struct connect *connect, const struct branch *branch, const struct moment *moment)
{
    row_text_t name;
    struct doc *wish = doc_set_str(doc_object(), "branch_id", branch->row.id);
    name_moment(moment, name);
    doc_set_str(wish, "type", "read_only");
    doc_set_str(wish, "name", name);
    doc_set_int(wish, "lease_seconds", MOMENT_IDLE_S);
    doc_set_int(wish, "suspend_timeout_seconds", MOMENT_IDLE_S);
    doc_set_str(
        wish, moment->lsn != NULL ? "lsn" : "timestamp",
        moment->lsn != NULL ? moment->lsn : moment->timestamp);
    connect->wish = doc_set(doc_object(), "endpoint", wish);
    connect->then.done = on_wish;
    if (!read_only_begin(
            connect->api, connect->request, branch->row.project_id, connect->wish,
            &connect->then)) {
        connect_free(connect); /* answered */
    }
}

static void start_moment(
    struct connect *connect, const struct endpoint *endpoint, const struct moment *moment)
{
    row_text_t name;
    size_t count = 0;
    name_moment(moment, name);
    if (endpoint->row.type == ENDPOINT_READ_ONLY) {
        fail(connect, 400, "BAD_REQUEST", "the endpoint shows one moment of its branch already");
        return;
    }
    const struct endpoint *other = find_moment(endpoint->branch, name, &count);
    if (other != NULL) {
        memcpy(connect->wait.endpoint_id, other->row.id, sizeof other->row.id);
        start(connect, other);
    } else {
        make_moment(connect, endpoint->branch, moment);
    }
}

/* ---- the request ---- */

static struct endpoint *find_endpoint_named(const struct api *api, const char *name)
{
    struct endpoint *endpoint = model_endpoint(api->model, name);
    const struct branch *branch = model_branch(api->model, name);
    if (endpoint == NULL && branch != NULL && branch_is_live(branch)) {
        FOR_EACH_ENDPOINT_OF(branch, one)
        {
            endpoint =
                endpoint_is_live(one) && one->row.type == ENDPOINT_READ_WRITE ? one : endpoint;
        }
    }
    return endpoint != NULL && endpoint_is_shown(endpoint) ? endpoint : NULL;
}

static err_t read_request(
    struct http_request *request,
    const char **ret_name,
    const char **ret_role,
    const char **ret_client,
    uint64_t *ret_wait_ms,
    struct moment *ret_moment,
    struct errmsg *msg)
{
    struct doc *body = NULL;
    uint64_t wait_ms = WAIT_MAX_MS;
    TRY(http_request_json(request, &body, msg));
    TRY(doc_get_str(body, "name", ret_name, msg));
    TRY(doc_get_str(body, "role", ret_role, msg));
    TRY(doc_opt_str(body, "client", ret_client, msg));
    TRY(doc_opt_u64(body, "wait_ms", &wait_ms, msg));
    TRY(doc_opt_str(body, "lsn", &ret_moment->lsn, msg));
    TRY(doc_opt_str(body, "timestamp", &ret_moment->timestamp, msg));
    if (strlen(*ret_role) >= sizeof((struct connect *)NULL)->role) {
        return err_set(msg, ERR_INVALID, "body.role: too long");
    }
    *ret_wait_ms = MIN_OF(wait_ms, WAIT_MAX_MS);
    return ERR_OK;
}

void handle_post_connect(struct http_context *context, struct http_request *request)
{
    struct api *api = api_of(context);
    struct errmsg msg = {0};
    const char *name = NULL;
    const char *role = NULL;
    const char *client = "";
    uint64_t wait_ms = 0;
    struct moment moment = {0};
    err_t err = read_request(request, &name, &role, &client, &wait_ms, &moment, &msg);
    if (err != ERR_OK) {
        http_respond_error(request, err, &msg);
        return;
    }
    const struct endpoint *endpoint = find_endpoint_named(api, name);
    if (endpoint == NULL) {
        char text[160];
        (void)snprintf(text, sizeof text, "there is no endpoint \"%.80s\"", name);
        http_respond_problem(request, 404, "ENDPOINT_NOT_FOUND", text);
        return;
    }
    if (!allowed_ips_let_in(api->model, endpoint, client)) { /* before it is woken */
        char text[200];
        (void)snprintf(
            text, sizeof text, "the project's allowed_ips have no place for the address \"%.64s\"",
            client);
        http_respond_problem(request, 403, "ADDRESS_NOT_ALLOWED", text);
        return;
    }
    struct connect *connect = MEM_NEW(struct connect);
    connect->api = api;
    connect->request = request;
    connect->timer.on_fire = on_ask_again;
    connect->wait = (struct compute_wait){
        .api = api, .deadline = clock_mono() + wait_ms * NS_PER_MS, .done = on_waited};
    memcpy(connect->wait.endpoint_id, endpoint->row.id, sizeof endpoint->row.id);
    (void)snprintf(connect->role, sizeof connect->role, "%s", role);
    if (is_moment(&moment)) {
        start_moment(connect, endpoint, &moment);
    } else {
        start(connect, endpoint);
    }
}
