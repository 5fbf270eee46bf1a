#include "control/act/nodes.h"

#include <stdio.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/parse.h"

#define POLL_TIMEOUT_MS     5000
#define POLL_UNREACHABLE_MS 500
#define POLL_TICK_MS        100
#define POLL_AGENT_MS       500 /* a compute that died is down until we look */
#define NODES_MAX           10000
/* A poll may take at most this part of the time: with very many timelines they come less often. */
#define POLL_SHARE 20

struct nodes {
    struct loop *loop;
    struct http_client *client;
    struct nodes_user *user;
    char *token;
    bool has_tls;
    uint64_t poll_interval_ms;
    struct node **nodes;
    size_t count;
    struct timer tick;
};

const char *node_kind_name(enum node_kind kind)
{
    switch (kind) {
    case NODE_SAFEKEEPER: return "safekeeper";
    case NODE_PAGESERVER: return "pageserver";
    case NODE_AGENT: return "agent";
    }
    return "node";
}

/* ---- the setting ---- */

static err_t parse_port(const char *text, uint16_t *ret_port, struct errmsg *msg)
{
    uint64_t port = 0;
    TRY(parse_u64(text, 1, 65535, &port, msg));
    *ret_port = (uint16_t)port;
    return ERR_OK;
}

/* `text` is "1@127.0.0.1:7411/7421" or, for an agent, "1@127.0.0.1:7440"; it is cut into pieces. */
static err_t parse_node(char *text, struct node *node, struct errmsg *msg)
{
    char *at = strchr(text, '@');
    char *colon = strrchr(text, ':');
    char *slash = strrchr(text, '/');
    if (at == NULL || colon == NULL || colon < at ||
        (slash == NULL) != (node->kind == NODE_AGENT)) {
        return err_set(
            msg, ERR_INVALID, "\"%s\": expected %s", text,
            node->kind == NODE_AGENT ? "ID@HOST:HTTP_PORT" : "ID@HOST:PORT/HTTP_PORT");
    }
    *at = *colon = '\0';
    TRY(parse_u64(text, 1, INT64_MAX, &node->id, msg));
    TRY(str_copy(node->host, sizeof node->host, at + 1, msg));
    if (slash == NULL) {
        return parse_port(colon + 1, &node->http_port, msg);
    }
    *slash = '\0';
    TRY(parse_port(colon + 1, &node->port, msg));
    return parse_port(slash + 1, &node->http_port, msg);
}

static err_t add_node(struct nodes *nodes, enum node_kind kind, char *text, struct errmsg *msg)
{
    struct node parsed = {.kind = kind, .nodes = nodes, .reachable = true};
    err_t err = parse_node(text, &parsed, msg);
    if (err != ERR_OK) {
        return err_wrap(msg, err, "setting %ss", node_kind_name(kind));
    }
    if (nodes_find(nodes, kind, parsed.id) != NULL) {
        return err_set(
            msg, ERR_INVALID, "setting %ss: id %" PRIu64 " twice", node_kind_name(kind), parsed.id);
    }
    nodes->nodes = mem_realloc(nodes->nodes, (nodes->count + 1) * sizeof(void *));
    nodes->nodes[nodes->count++] = mem_dup(&parsed, sizeof parsed);
    return ERR_OK;
}

static err_t add_list(
    struct nodes *nodes, enum node_kind kind, const char *text, struct errmsg *msg)
{
    char *copy = mem_strdup(text);
    char *rest = copy;
    err_t err = ERR_OK;
    while (rest != NULL && err == ERR_OK) {
        char *item = strsep(&rest, ",");
        item += strspn(item, " ");
        item[strcspn(item, " ")] = '\0';
        if (item[0] != '\0') {
            err = add_node(nodes, kind, item, msg);
        }
    }
    mem_free(copy);
    return err;
}

static void on_tick(struct timer *timer);

err_t nodes_create(
    struct loop *loop,
    struct http_client *client,
    const struct nodes_options *options,
    struct nodes_user *user,
    struct nodes **ret_nodes,
    struct errmsg *msg)
{
    struct nodes *nodes = MEM_NEW(struct nodes);
    nodes->loop = loop;
    nodes->client = client;
    nodes->user = user;
    nodes->token = mem_strdup(options->token);
    nodes->has_tls = options->has_tls;
    nodes->poll_interval_ms = options->poll_interval_ms;
    nodes->tick.on_fire = on_tick;
    err_t err = add_list(nodes, NODE_SAFEKEEPER, options->safekeepers, msg);
    if (err == ERR_OK) {
        err = add_list(nodes, NODE_PAGESERVER, options->pageservers, msg);
    }
    if (err == ERR_OK) {
        err = add_list(nodes, NODE_AGENT, options->agents, msg);
    }
    if (err != ERR_OK) {
        nodes_destroy(nodes);
        return err;
    }
    *ret_nodes = nodes;
    return ERR_OK;
}

void nodes_destroy(struct nodes *nodes)
{
    if (nodes == NULL) {
        return;
    }
    timer_stop(&nodes->tick);
    for (size_t i = 0; i < nodes->count; i++) {
        mem_free(nodes->nodes[i]);
    }
    mem_free(nodes->nodes);
    mem_free(nodes->token);
    mem_free(nodes);
}

static struct node *find_any(const struct nodes *nodes, enum node_kind kind, uint64_t id)
{
    for (size_t i = 0; i < nodes->count; i++) {
        if (nodes->nodes[i]->kind == kind && nodes->nodes[i]->id == id) {
            return nodes->nodes[i];
        }
    }
    return NULL;
}

/* Under two numbers, each would have what the other one runs deleted. */
err_t nodes_check_agent(const struct nodes *nodes, const struct host_row *row, struct errmsg *msg)
{
    if (find_any(nodes, NODE_AGENT, row->number) == NULL && nodes->count >= NODES_MAX) {
        return err_set(
            msg, ERR_FULL, "limit: %d nodes, also those that are gone, since control has started",
            NODES_MAX);
    }
    for (size_t i = 0; i < nodes->count; i++) {
        const struct node *node = nodes->nodes[i];
        if (node->kind != NODE_AGENT || node->gone) {
            continue;
        }
        if (node->id == row->number && !node->registered) {
            return err_set(
                msg, ERR_EXISTS, "agent %" PRIu64 " is in the setting `agents` of control",
                row->number);
        }
        if (node->id != row->number && node->http_port == row->http_port &&
            strcmp(node->host, row->address) == 0) {
            return err_set(
                msg, ERR_EXISTS, "agent %" PRIu64 " has the address %s:%" PRIu64, node->id,
                row->address, row->http_port);
        }
    }
    return ERR_OK;
}

err_t nodes_put_agent(struct nodes *nodes, const struct host_row *row, struct errmsg *msg)
{
    struct node *node = find_any(nodes, NODE_AGENT, row->number);
    TRY(nodes_check_agent(nodes, row, msg));
    if (node == NULL) {
        node = MEM_NEW(struct node);
        *node = (struct node){
            .kind = NODE_AGENT, .id = row->number, .nodes = nodes, .registered = true};
        nodes->nodes = mem_realloc(nodes->nodes, (nodes->count + 1) * sizeof(void *));
        nodes->nodes[nodes->count++] = node;
    }
    TRY(str_copy(node->host, sizeof node->host, row->address, msg));
    TRY(str_copy(node->listen_host, sizeof node->listen_host, row->listen_host, msg));
    node->http_port = (uint16_t)row->http_port;
    node->gone = false;
    node->reachable = true;
    node->poll_at = 0;
    return ERR_OK;
}

void nodes_drop_agent(struct nodes *nodes, uint64_t id)
{
    struct node *node = find_any(nodes, NODE_AGENT, id);
    if (node != NULL && node->registered) {
        node->gone = true;
        node->reachable = node->answered = false;
    }
}

size_t nodes_count(const struct nodes *nodes)
{
    return nodes->count;
}

struct node *nodes_at(const struct nodes *nodes, size_t index)
{
    ASSERT(index < nodes->count);
    return nodes->nodes[index];
}

struct node *nodes_find(const struct nodes *nodes, enum node_kind kind, uint64_t id)
{
    struct node *node = find_any(nodes, kind, id);
    return node == NULL || node->gone ? NULL : node;
}

struct node *nodes_first(const struct nodes *nodes, enum node_kind kind)
{
    for (size_t i = 0; i < nodes->count; i++) {
        if (nodes->nodes[i]->kind == kind && !nodes->nodes[i]->gone) {
            return nodes->nodes[i];
        }
    }
    return NULL;
}

/* ---- reachability ---- */

static void note_answer(struct node *node, bool answered, const struct errmsg *msg)
{
    if (node->gone) {
        return; /* an answer that was under way */
    }
    if (answered != node->reachable) {
        node->reachable = answered;
        if (answered) {
            log_info(NULL, "%s %" PRIu64 " answers again", node_kind_name(node->kind), node->id);
        } else {
            log_warn(
                NULL, "%s %" PRIu64 " does not answer, its steps wait: %s",
                node_kind_name(node->kind), node->id, msg->text);
        }
    }
    if (!answered) {
        node->error = *msg;
        node_poll_soon(node);
    }
}

void node_url(const struct node *node, const char *path, struct buf *to)
{
    bool is_v6 = strchr(node->host, ':') != NULL;
    buf_printf(
        to, "%s://%s%s%s:%u%s", node->nodes->has_tls ? "https" : "http", is_v6 ? "[" : "",
        node->host, is_v6 ? "]" : "", (unsigned)node->http_port, path);
}

/* ---- calls ---- */

static void on_call_done(struct http_call *http)
{
    struct node_call *call = CONTAINER_OF(http, struct node_call, http);
    struct node *node = call->node;
    struct errmsg msg = {0};
    call->status = http->result == ERR_OK ? http->status : 0;
    call->body = NULL;
    err_t err = http->result;
    if (err == ERR_OK && call->keeps_text && call->status / 100 == 2) {
        call->text = http->response;
        http->response = (struct buf){0};
    } else if (err == ERR_OK) {
        err = http_call_json(http, &call->body, &msg);
        if (err != ERR_OK && call->status / 100 == 2) {
            call->status = 0; /* an answer that cannot be read is none */
        }
    } else {
        msg = http->msg;
    }
    if (err != ERR_OK) {
        err_ignore(
            err_set(
                &call->msg, err, "%s %" PRIu64 ": %.300s", node_kind_name(node->kind), node->id,
                msg.text),
            "the caller looks at `status`");
    }
    if (http->result != ERR_CANCELED) {
        note_answer(node, http->result == ERR_OK, &msg);
    }
    http_call_deinit(http);
    struct doc *body = call->body; /* `call` may be gone after done() */
    call->done(call);
    doc_unref(body);
}

void node_call_start(
    struct node_call *call,
    struct node *node,
    enum rpc_id id,
    const char *path,
    struct doc *body,
    uint64_t timeout_ms)
{
    struct buf url = {0}, text = {0};
    node_url(node, path, &url);
    if (body != NULL) {
        doc_print(body, false, &text);
        doc_unref(body);
    }
    call->node = node;
    call->msg = (struct errmsg){0};
    call->http = (struct http_call){
        .method = rpc_method(id)->verb,
        .url = buf_cstr(&url),
        .body = buf_view(&text),
        .token = node->nodes->token[0] == '\0' ? NULL : node->nodes->token,
        .timeout_ms = timeout_ms,
        .done = on_call_done,
    };
    http_call_start(node->nodes->client, &call->http);
    buf_deinit(&url);
    buf_deinit(&text);
}

void node_call_cancel(struct node_call *call)
{
    http_call_cancel(&call->http);
}

/* ---- polls ---- */

static enum rpc_id poll_path(const struct node *node, struct buf *to)
{
    static const enum rpc_id ids[] = {
        [NODE_SAFEKEEPER] = RPC_SAFEKEEPER_LIST,
        [NODE_PAGESERVER] = RPC_PAGESERVER_STATUS,
        [NODE_AGENT] = RPC_AGENT_COMPUTES,
    };
    rpc_path(to, ids[node->kind]);
    if (node->kind == NODE_SAFEKEEPER) {
        buf_printf(to, "?brief=true%s%s", node->known[0] == '\0' ? "" : "&known=", node->known);
    }
    return ids[node->kind];
}

static uint64_t next_poll_ms(const struct node *node, mono_ns_t now)
{
    uint64_t took_ms = (now - node->poll_began) / NS_PER_MS;
    uint64_t interval_ms = node->nodes->poll_interval_ms;
    if (!node->reachable) {
        interval_ms = MIN_OF(interval_ms, POLL_UNREACHABLE_MS);
    } else if (node->kind == NODE_AGENT) {
        interval_ms = MIN_OF(interval_ms, POLL_AGENT_MS);
    }
    return MAX_OF(interval_ms, took_ms * POLL_SHARE);
}

static void take_incarnation(struct node *node, const struct doc *body)
{
    const char *incarnation = doc_value_str(doc_get(body, "incarnation"));
    snprintf(
        node->incarnation, sizeof node->incarnation, "%s", incarnation == NULL ? "" : incarnation);
}

static void on_polled(struct http_call *http)
{
    struct node *node = CONTAINER_OF(http, struct node, poll);
    struct errmsg msg = {0};
    struct doc *body = NULL;
    node->polling = false;
    err_t err = http->result;
    if (err == ERR_OK) {
        err = http_call_json(http, &body, &msg);
    } else {
        msg = http->msg;
    }
    http_call_deinit(http);
    if (err == ERR_CANCELED) {
        return; /* we stop */
    }
    if (node->gone) {
        doc_unref(body);
        return;
    }
    if (err == ERR_OK) {
        node->answered = true;
        node->polls++;
        if (node->kind != NODE_AGENT) {
            take_incarnation(node, body);
        }
    }
    note_answer(node, http->result == ERR_OK, &msg);
    if (err == ERR_OK) {
        node->nodes->user->on_poll(node->nodes->user, node, body);
        doc_unref(body);
    } else if (http->result == ERR_OK) {
        log_warn(
            NULL, "%s %" PRIu64 ": cannot be compared: %s", node_kind_name(node->kind), node->id,
            msg.text);
    }
    mono_ns_t now = clock_mono();
    node->poll_at = now + next_poll_ms(node, now) * NS_PER_MS;
}

static void start_poll(struct node *node, mono_ns_t now)
{
    struct buf url = {0}, path = {0};
    enum rpc_id id = poll_path(node, &path);
    node_url(node, buf_cstr(&path), &url);
    node->polling = true;
    node->poll_began = now;
    node->poll = (struct http_call){
        .method = rpc_method(id)->verb,
        .url = buf_cstr(&url),
        .token = node->nodes->token[0] == '\0' ? NULL : node->nodes->token,
        .timeout_ms = POLL_TIMEOUT_MS,
        .done = on_polled,
    };
    http_call_start(node->nodes->client, &node->poll);
    buf_deinit(&url);
    buf_deinit(&path);
}

static void on_tick(struct timer *timer)
{
    struct nodes *nodes = CONTAINER_OF(timer, struct nodes, tick);
    mono_ns_t now = clock_mono();
    for (size_t i = 0; i < nodes->count; i++) {
        if (!nodes->nodes[i]->polling && !nodes->nodes[i]->gone &&
            nodes->nodes[i]->poll_at <= now) {
            start_poll(nodes->nodes[i], now);
        }
    }
    timer_start(nodes->loop, timer, POLL_TICK_MS);
}

void nodes_start_polls(struct nodes *nodes)
{
    on_tick(&nodes->tick);
}

void nodes_stop_polls(struct nodes *nodes)
{
    timer_stop(&nodes->tick);
}

void node_poll_soon(struct node *node)
{
    node->poll_at = MIN_OF(node->poll_at, clock_mono() + POLL_UNREACHABLE_MS * NS_PER_MS);
}
