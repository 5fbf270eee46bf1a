/*
 * pooled_server.c - states of a connection to a compute, in their order:
 *
 *   ROUTE    control is asked where the compute runs
 *   CONNECT  to it
 *   LOGIN    SCRAM, the greeting, up to the first ReadyForQuery
 *   READY    a client's, or nobody's: see pool.h
 *   GONE     counts no more; freed when stream, question and requests to cancel are
 */
#include <openssl/crypto.h>
#include <stdio.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "control/gateway/pools_private.h"

METRIC_GAUGE(servers_open, "gateway_pool_servers", "Server connections of pools.");
METRIC_COUNTER(opened, "gateway_pool_servers_opened_total", "Server connections that were made.");
METRIC_COUNTER(
    open_failures, "gateway_pool_open_failures_total", "Attempts to connect that failed.");
METRIC_COUNTER(lost, "gateway_pool_lost_total", "Connections lost while a client had them.");

#define CODE_LOST       "08006"
#define CODE_NO_COMPUTE "57P03"
#define CODE_PASSWORD   "28P01"
#define CODE_DENIED     "28000"
#define CODE_UNKNOWN    "08004"

static void ask_route(struct pooled_server *server);

/* ---- a server connection ends ---- */

void pooled_server_free_when_done(struct pooled_server *server)
{
    if (server->state != SERVER_GONE || server->user.stream != NULL || server->asking ||
        server->place.cancels > 0) {
        return;
    }
    struct pools *pools = server->pools;
    list_remove(&server->link);
    mem_free(server);
    pools_finish_close(pools);
}

/* It counts no more; a client that had it has been told, or is about to be. */
static void let_go(struct pooled_server *server)
{
    if (server->state == SERVER_GONE) {
        return;
    }
    bool was_linked = server->place.state == POOL_SERVER_LINKED;
    server->state = SERVER_GONE;
    timer_stop(&server->timer);
    pool_server_gone(&server->place);
    server->pool = NULL;
    metric_add(&servers_open, -1);
    pools_count_linked(was_linked ? -1 : 0);
    exchange_server_deinit(&server->exchange);
    OPENSSL_cleanse(&server->login, sizeof server->login);
    buf_deinit(&server->in);
    buf_deinit(&server->welcome);
    if (server->asking) {
        route_ask_cancel(&server->ask);
    }
}

void pooled_server_close(struct pooled_server *server)
{
    let_go(server);
    if (server->user.stream != NULL) {
        pg_put(stream_send_buffer(server->user.stream), PG_TERMINATE, bytes_of(NULL, 0));
        stream_close(server->user.stream);
    }
    pooled_server_free_when_done(server);
}

static void open_failed(
    struct pooled_server *server, const char *code, const char *text, struct bytes error)
{
    struct pools *pools = server->pools;
    struct named_pool *pool = server->pool;
    struct shared_endpoint *endpoint = pool->endpoint;
    bool is_denied = strcmp(code, CODE_DENIED) == 0 && error.size == 0;
    struct buf copy = {0};
    char address[sizeof server->ask.client];
    memcpy(address, server->ask.client, sizeof address);
    buf_append(&copy, error.data, error.size); /* it stands in server->in */
    log_info(NULL, "pool of %s at %s: no connection, %s: %s", pool->role, endpoint->id, code, text);
    metric_add(&open_failures, 1);
    pools_hold(endpoint);
    pooled_server_close(server);
    if (is_denied) { /* of this client's address: others may be let in */
        pools_fail_waiting(pool, address, code, text, buf_view(&copy));
    } else {
        pool_open_failed(&pool->core, &pools->options.limits, clock_mono());
        if (pool->core.server_count == 0) {
            pools_fail_waiting(pool, NULL, code, text, buf_view(&copy));
        }
    }
    buf_deinit(&copy);
    pools_settle(pools, endpoint);
}

/* ---- making a server connection ---- */

static void fail_open_msg(struct pooled_server *server, err_t err, const struct errmsg *msg)
{
    const char *code = err == ERR_NOT_FOUND ? CODE_UNKNOWN
                       : err == ERR_DENIED  ? CODE_DENIED
                       : err == ERR_STALE   ? CODE_PASSWORD
                                            : CODE_NO_COMPUTE;
    char text[sizeof msg->text];
    (void)snprintf(text, sizeof text, "%s", msg->text); /* it may stand in the server */
    open_failed(server, code, text, bytes_of(NULL, 0));
}

static void on_login_timeout(struct timer *timer)
{
    struct pooled_server *server = CONTAINER_OF(timer, struct pooled_server, timer);
    open_failed(
        server, CODE_NO_COMPUTE, "the log-in to the compute took too long", bytes_of(NULL, 0));
}

static void connect_server(struct pooled_server *server)
{
    struct errmsg msg;
    const struct route *route = &server->ask.route;
    server->state = SERVER_CONNECT;
    err_t err =
        stream_connect(server->pools->loop, route->host, route->port, NULL, &server->user, &msg);
    if (err != ERR_OK) {
        fail_open_msg(server, err, &msg);
    }
}

static void on_routed(struct route_ask *ask)
{
    struct pooled_server *server = CONTAINER_OF(ask, struct pooled_server, ask);
    server->asking = false;
    if (server->state == SERVER_GONE) {
        pooled_server_free_when_done(server);
    } else if (ask->result != ERR_OK) {
        fail_open_msg(server, ask->result, &ask->msg);
    } else {
        connect_server(server);
    }
}

static void ask_route(struct pooled_server *server)
{
    server->state = SERVER_ROUTE;
    server->asking = true;
    server->ask.again = server->retried;
    route_ask_start(server->pools->routes, &server->ask);
}

/* Nobody listens where the compute was, or it goes down: control starts it, or knows another place.
 */
static void lost_before_ready(struct pooled_server *server, const struct errmsg *msg)
{
    bool can_retry = !server->retried && !server->is_let_in;
    routes_forget(
        server->pools->routes, &server->ask.address, server->ask.role, server->ask.client);
    if (can_retry) {
        server->retried = true;
        server->is_leaving = false;
        buf_clear(&server->in);
        buf_clear(&server->welcome);
        ask_route(server);
        return;
    }
    fail_open_msg(server, ERR_IO, msg);
}

static void begin_ready(struct pooled_server *server)
{
    struct named_pool *pool = server->pool;
    server->state = SERVER_READY;
    timer_stop(&server->timer);
    OPENSSL_cleanse(&server->login, sizeof server->login);
    buf_deinit(&server->in);
    buf_deinit(&pool->welcome);
    pool->welcome = server->welcome;
    server->welcome = (struct buf){0};
    parameters_deinit(&pool->defaults);
    parameters_complete(&pool->defaults, &server->exchange.parameters);
    pool->has_welcome = true;
    metric_add(&opened, 1);
    pools_hold(pool->endpoint);
    pool_server_opened(&server->place, clock_mono());
    pools_settle(server->pools, pool->endpoint);
}

/* A setting that the compute has: for clients, and to be compared. */
static err_t take_parameter(
    struct pooled_server *server, const struct pg_message *message, struct errmsg *msg)
{
    const char *name = NULL;
    const char *value = NULL;
    struct bytes whole = bytes_of(message->body.data - PG_HEADER_SIZE, message->size);
    if (!pg_parameter_parse(message->body, &name, &value)) {
        return err_set(msg, ERR_CORRUPT, "the compute sent a malformed setting");
    }
    if (whole.size > POOLS_GREETING_MAX - server->welcome.size) {
        return err_set(
            msg, ERR_CORRUPT, "the compute greets with settings of more than %zu bytes",
            (size_t)POOLS_GREETING_MAX);
    }
    buf_append(&server->welcome, whole.data, whole.size);
    return exchange_from_server(&server->exchange, NULL, whole, NULL, msg);
}

static void take_login_error(struct pooled_server *server, const struct pg_message *message)
{
    char code[6];
    char text[200];
    pg_error_fields(message->body, code, text, sizeof text);
    if (strcmp(code, CODE_NO_COMPUTE) == 0 && !server->is_let_in && !server->retried) {
        server->is_leaving = true; /* suspended a moment ago, or starting */
        stream_abort(server->user.stream);
        return;
    }
    routes_forget(
        server->pools->routes, &server->ask.address, server->ask.role, server->ask.client);
    open_failed(server, code, text, bytes_of(server->in.data, message->size));
}

/* True: look again. */
static bool take_login(struct pooled_server *server)
{
    struct pg_message message;
    struct errmsg msg;
    err_t err = pg_message_parse(buf_view(&server->in), POOLS_GREETING_MAX, &message, &msg);
    if (err == ERR_OK && message.size == 0) {
        return false;
    }
    if (err == ERR_OK && message.type == PG_AUTHENTICATION) {
        bool done = false;
        err = server_login_step(
            &server->login, message.body, stream_send_buffer(server->user.stream), &done, &msg);
        server->is_let_in = server->is_let_in || done;
    } else if (err == ERR_OK && message.type == PG_PARAMETER_STATUS) {
        err = take_parameter(server, &message, &msg);
    }
    if (err != ERR_OK) {
        routes_forget(/* ERR_STALE: the verifier is another one by now */
                      server->pools->routes, &server->ask.address, server->ask.role,
                      server->ask.client);
        fail_open_msg(server, err, &msg);
        return false;
    }
    switch (message.type) {
    case PG_ERROR_RESPONSE: take_login_error(server, &message); return false;
    case PG_READY_FOR_QUERY: begin_ready(server); return false;
    case PG_BACKEND_KEY_DATA:
        if (message.body.size == 8) {
            server->pid = pg_get_u32(message.body.data);
            server->key = pg_get_u32(message.body.data + 4);
        }
        break;
    default: break; /* notices */
    }
    buf_consume(&server->in, message.size);
    return true;
}

/* ---- with a client ---- */

/* Its connection is not one any more. */
static void lose(struct pooled_server *server, const char *code, const char *text)
{
    struct pooled_client *client = pooled_server_client(server);
    struct shared_endpoint *endpoint = server->pool->endpoint;
    struct pools *pools = server->pools;
    bool is_told = server->exchange.is_told;
    bool is_amid = exchange_is_amid_answer(&server->exchange);
    pools_hold(endpoint);
    pooled_server_close(server);
    if (client != NULL) {
        metric_add(&lost, 1);
        if (is_told || is_amid) {
            client->callbacks->on_ended(client);
        } else {
            pooled_client_fail(client, code, text, bytes_of(NULL, 0));
        }
    }
    pools_settle(pools, endpoint);
}

/* The client has got what the server sent. */
static void go_on(struct pooled_client *client, struct pooled_server *server)
{
    if (client->user->stream != NULL && stream_is_congested(client->user->stream)) {
        stream_pause(server->user.stream);
    }
    if (client->exchange.is_stalled) {
        pooled_client_unstall(client);
    } else if (exchange_is_free(&server->exchange, &client->exchange)) {
        pooled_client_give_back(client, server);
    } else {
        pooled_client_update_reading(client);
    }
}

static void take_bytes(struct pooled_server *server, struct bytes bytes)
{
    struct errmsg msg;
    struct pooled_client *client = pooled_server_client(server);
    struct buf *out = client == NULL ? NULL : pooled_client_out(client);
    struct shared_endpoint *endpoint = server->pool->endpoint;
    struct pools *pools = server->pools;
    err_t err = exchange_from_server(
        &server->exchange, client == NULL ? NULL : &client->exchange, bytes, out, &msg);
    if (err == ERR_FAILED) { /* the client's own settings */
        char code[6];
        memcpy(code, server->exchange.failure_code, sizeof code);
        lose(server, code, msg.text);
    } else if (err != ERR_OK) {
        log_warn(NULL, "pool of %s: %s", endpoint->id, msg.text);
        lose(server, CODE_LOST, msg.text);
    } else if (client != NULL) {
        pools_hold(endpoint);
        go_on(client, server);
        pools_settle(pools, endpoint);
    }
}

/* ---- its stream ---- */

static void server_on_secured(struct stream_user *user)
{
    struct pooled_server *server = CONTAINER_OF(user, struct pooled_server, user);
    if (server->state == SERVER_CONNECT) {
        server->state = SERVER_LOGIN;
        stream_send(user->stream, buf_view(&server->pool->startup));
    }
}

static void server_on_open(struct stream_user *user)
{
    struct pooled_server *server = CONTAINER_OF(user, struct pooled_server, user);
    if (upstream_is_ready(server->pools->options.upstream, user->stream)) {
        server_on_secured(user);
    }
}

static void take_tls_answer(struct pooled_server *server, struct bytes bytes)
{
    struct errmsg msg;
    err_t err = upstream_take_answer(
        server->pools->options.upstream, server->user.stream, server->ask.route.host, bytes, &msg);
    if (err != ERR_OK) {
        fail_open_msg(server, err, &msg);
    }
}

static void server_on_bytes(struct stream_user *user, struct bytes bytes)
{
    struct pooled_server *server = CONTAINER_OF(user, struct pooled_server, user);
    if (server->state == SERVER_READY) {
        take_bytes(server, bytes);
    } else if (server->state == SERVER_CONNECT) {
        take_tls_answer(server, bytes);
    } else if (server->state == SERVER_LOGIN && !server->is_leaving) {
        buf_append(&server->in, bytes.data, bytes.size);
        while (server->state == SERVER_LOGIN && take_login(server)) {
        }
    }
}

static void server_on_drained(struct stream_user *user)
{
    struct pooled_server *server = CONTAINER_OF(user, struct pooled_server, user);
    if (pooled_server_client(server) != NULL) {
        pooled_client_update_reading(pooled_server_client(server));
    }
}

static void server_on_closed(
    struct stream_user *user, err_t reason, bool ended, const struct errmsg *msg)
{
    struct pooled_server *server = CONTAINER_OF(user, struct pooled_server, user);
    (void)reason;
    (void)ended;
    if (server->state == SERVER_CONNECT || server->state == SERVER_LOGIN) {
        lost_before_ready(server, msg);
    } else if (server->state == SERVER_READY) {
        lose(server, CODE_LOST, "the connection to the compute was lost");
    } else {
        pooled_server_free_when_done(server);
    }
}

static const struct stream_callbacks server_callbacks = {
    .on_open = server_on_open,
    .on_secured = server_on_secured,
    .on_bytes = server_on_bytes,
    .on_drained = server_on_drained,
    .on_closed = server_on_closed,
};

void pooled_server_open(struct pools *pools, struct named_pool *pool)
{
    struct pooled_server *server = MEM_NEW(struct pooled_server);
    const struct pooled_client *first = CONTAINER_OF(
        CONTAINER_OF(list_first(&pool->core.waiting), struct pool_client, in_waiting),
        struct pooled_client, place);
    server->pools = pools;
    server->pool = pool;
    server->user.callbacks = &server_callbacks;
    list_push_back(&pools->servers, &server->link);
    metric_add(&servers_open, 1);
    exchange_server_init(&server->exchange, &pool->statements, &pools->options.exchange);
    server->login.verifier = pool->verifier;
    memcpy(server->login.client_key, pool->client_key, sizeof pool->client_key);
    server->ask.done = on_routed;
    server->ask.address = first->endpoint; /* a compute of the past may be another one by now */
    (void)snprintf(server->ask.role, sizeof server->ask.role, "%s", pool->role);
    (void)snprintf(server->ask.client, sizeof server->ask.client, "%s", first->address);
    pool_server_opens(&pool->core, &server->place);
    server->timer.on_fire = on_login_timeout;
    timer_start(pools->loop, &server->timer, pools->options.login_timeout_ms);
    ask_route(server);
}
