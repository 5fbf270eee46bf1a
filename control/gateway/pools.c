/*
 * pools.c - pools and their clients.
 *
 * pools_settle() does what the decisions say, when whatever has happened is over.
 */
#include <openssl/crypto.h>
#include <stdio.h>

#include "common/base/checksum.h"
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "control/gateway/pools_private.h"

METRIC_GAUGE(pools_open, "gateway_pools", "Pools of server connections.");
METRIC_GAUGE(clients_open, "gateway_pool_clients", "Clients of pools.");
METRIC_GAUGE(clients_waiting, "gateway_pool_clients_waiting", "Those that wait for a connection.");
METRIC_GAUGE(servers_linked, "gateway_pool_servers_linked", "Connections that a client has.");
METRIC_COUNTER(timeouts, "gateway_pool_timeouts_total", "Clients that waited too long.");
METRIC_COUNTER(handovers, "gateway_pool_handovers_total", "Connections given to a client.");
METRIC_COUNTER(
    reprepared, "gateway_pool_reprepared_total", "Statements prepared again on a connection.");
METRIC_HISTOGRAM(wait_seconds, "gateway_pool_wait_seconds", "Waits of clients for a connection.");

#define TICK_MS          100
#define CODE_TOO_MANY    "53300"
#define CODE_BAD_MESSAGE "08P01"

void pools_count_linked(int64_t change)
{
    metric_add(&servers_linked, change);
}

static struct named_pool *pool_of(const struct pooled_client *client)
{
    return CONTAINER_OF(client->place.pool, struct named_pool, core);
}

struct pooled_server *pooled_client_server(const struct pooled_client *client)
{
    return client->place.server == NULL
               ? NULL
               : CONTAINER_OF(client->place.server, struct pooled_server, place);
}

struct pooled_client *pooled_server_client(const struct pooled_server *server)
{
    return server->place.client == NULL
               ? NULL
               : CONTAINER_OF(server->place.client, struct pooled_client, place);
}

/* ---- pools and endpoints come and go ---- */

static struct list *bucket_of_endpoint(struct pools *pools, const char *id)
{
    return &pools->endpoints[hash64(id, strlen(id), 0) % POOLS_BUCKETS];
}

/* NULL: nobody is pooled there. */
static struct shared_endpoint *find_endpoint(struct pools *pools, const char *id)
{
    LIST_FOR_EACH(bucket_of_endpoint(pools, id), link)
    {
        struct shared_endpoint *endpoint = CONTAINER_OF(link, struct shared_endpoint, in_bucket);
        if (strcmp(endpoint->id, id) == 0) {
            return endpoint;
        }
    }
    return NULL;
}

static struct shared_endpoint *take_endpoint(struct pools *pools, const char *id)
{
    struct shared_endpoint *endpoint = find_endpoint(pools, id);
    if (endpoint != NULL) {
        return endpoint;
    }
    endpoint = MEM_NEW(struct shared_endpoint);
    (void)snprintf(endpoint->id, sizeof endpoint->id, "%s", id);
    pool_endpoint_init(&endpoint->core);
    list_push_back(bucket_of_endpoint(pools, id), &endpoint->in_bucket);
    list_push_back(&pools->all_endpoints, &endpoint->in_all);
    return endpoint;
}

static struct named_pool *take_pool(struct pools *pools, const struct pool_spec *spec)
{
    uint64_t seed = hash64(spec->endpoint_id, strlen(spec->endpoint_id), 0);
    struct list *bucket =
        &pools->pools[hash64(spec->startup.data, spec->startup.size, seed) % POOLS_BUCKETS];
    LIST_FOR_EACH(bucket, link)
    {
        struct named_pool *pool = CONTAINER_OF(link, struct named_pool, in_bucket);
        if (strcmp(pool->endpoint->id, spec->endpoint_id) == 0 &&
            bytes_equal(buf_view(&pool->startup), spec->startup)) {
            return pool;
        }
    }
    struct named_pool *pool = MEM_NEW(struct named_pool);
    pool->endpoint = take_endpoint(pools, spec->endpoint_id);
    pool_init(&pool->core, &pool->endpoint->core);
    (void)snprintf(pool->role, sizeof pool->role, "%s", spec->role);
    buf_append(&pool->startup, spec->startup.data, spec->startup.size);
    list_push_back(bucket, &pool->in_bucket);
    metric_add(&pools_open, 1);
    return pool;
}

static void free_pool(struct named_pool *pool)
{
    pool_deinit(&pool->core);
    list_remove(&pool->in_bucket);
    statements_deinit(&pool->statements);
    parameters_deinit(&pool->defaults);
    buf_deinit(&pool->startup);
    buf_deinit(&pool->welcome);
    OPENSSL_cleanse(pool, sizeof *pool);
    mem_free(pool);
    metric_add(&pools_open, -1);
}

static void free_unused(struct shared_endpoint *endpoint)
{
    LIST_FOR_EACH(&endpoint->core.pools, link)
    {
        struct pool *core = CONTAINER_OF(link, struct pool, in_endpoint);
        if (pool_is_unused(core)) {
            free_pool(CONTAINER_OF(core, struct named_pool, core));
        }
    }
    if (list_is_empty(&endpoint->core.pools)) {
        list_remove(&endpoint->in_bucket);
        list_remove(&endpoint->in_all);
        mem_free(endpoint);
    }
}

void pools_count_clients(
    struct pools *pools,
    const char *endpoint_id,
    const char *role,
    size_t *ret_endpoint,
    size_t *ret_role)
{
    *ret_endpoint = *ret_role = 0;
    const struct shared_endpoint *endpoint = find_endpoint(pools, endpoint_id);
    if (endpoint == NULL) {
        return;
    }
    LIST_FOR_EACH(&endpoint->core.pools, link)
    {
        const struct named_pool *pool =
            CONTAINER_OF(CONTAINER_OF(link, struct pool, in_endpoint), struct named_pool, core);
        *ret_endpoint += pool->core.client_count;
        *ret_role += strcmp(pool->role, role) == 0 ? pool->core.client_count : 0;
    }
}

void pools_finish_close(struct pools *pools)
{
    if (pools->on_closed != NULL && list_is_empty(&pools->servers)) {
        void (*on_closed)(void *owner) = pools->on_closed;
        void *owner = pools->owner;
        LIST_FOR_EACH(&pools->all_endpoints, link)
        {
            free_unused(CONTAINER_OF(link, struct shared_endpoint, in_all));
        }
        mem_free(pools);
        on_closed(owner);
    }
}

void pooled_client_fail(
    struct pooled_client *client, const char *code, const char *text, struct bytes error)
{
    client->callbacks->on_failed(client, code, text, error);
}

/* Whoever waits for one of this pool's connections will not get it. */
void pools_fail_waiting(
    struct named_pool *pool,
    const char *address,
    const char *code,
    const char *text,
    struct bytes error)
{
    LIST_FOR_EACH(&pool->core.waiting, link)
    {
        struct pooled_client *client = CONTAINER_OF(
            CONTAINER_OF(link, struct pool_client, in_waiting), struct pooled_client, place);
        if (address == NULL || strcmp(client->address, address) == 0) {
            pooled_client_fail(client, code, text, error);
        }
    }
}

/* ---- a client and its connection ---- */

struct buf *pooled_client_out(const struct pooled_client *client)
{
    return client->user->stream == NULL ? NULL : stream_send_buffer(client->user->stream);
}

/* The client is read from while what it sends can go somewhere, and it takes what it is answered:
 * some answers are ours, and no server is held back for them. */
void pooled_client_update_reading(const struct pooled_client *client)
{
    const struct pooled_server *server = pooled_client_server(client);
    if (client->user->stream == NULL) {
        return;
    }
    if (pool_client_waits(&client->place) || stream_is_congested(client->user->stream) ||
        (server != NULL &&
         (client->exchange.is_stalled || stream_is_congested(server->user.stream)))) {
        stream_pause(client->user->stream);
    } else {
        stream_resume(client->user->stream);
    }
}

static void ask_for_server(struct pooled_client *client)
{
    pool_client_asks(&client->place, clock_mono());
    metric_add(&clients_waiting, 1);
}

static void release(struct pooled_server *server)
{
    struct pools *pools = server->pools;
    mono_ns_t now = clock_mono();
    metric_add(&reprepared, (int64_t)server->exchange.reprepared);
    server->exchange.reprepared = 0;
    stream_resume(server->user.stream);
    if (server->exchange.is_spent ||
        pool_server_is_old(&server->place, &pools->options.limits, now)) {
        pooled_server_close(server);
    } else {
        pools_count_linked(-1);
        pool_server_released(&server->place, now);
    }
}

/* What the client has sent goes on as far as it can. Ends with the client maybe gone. */
static void feed(struct pooled_client *client, struct bytes bytes)
{
    struct errmsg msg;
    struct pooled_server *server = pooled_client_server(client);
    enum exchange_verdict verdict = exchange_from_client(
        &client->exchange, server == NULL ? NULL : &server->exchange, bytes,
        server == NULL ? NULL : stream_send_buffer(server->user.stream), pooled_client_out(client),
        &msg);
    switch (verdict) {
    case EXCHANGE_ON:
        if (server != NULL && exchange_is_free(&server->exchange, &client->exchange)) {
            release(server);
        }
        break;
    case EXCHANGE_WANTS_SERVER:
        if (!pool_client_waits(&client->place)) {
            ask_for_server(client);
        }
        break;
    case EXCHANGE_ENDS: client->callbacks->on_ended(client); return;
    case EXCHANGE_BROKEN:
        pooled_client_fail(client, CODE_BAD_MESSAGE, msg.text, bytes_of(NULL, 0));
        return;
    }
    pooled_client_update_reading(client);
}

void pooled_client_unstall(struct pooled_client *client)
{
    feed(client, bytes_of(NULL, 0));
}

void pooled_client_give_back(struct pooled_client *client, struct pooled_server *server)
{
    release(server);
    feed(client, bytes_of(NULL, 0)); /* the front of its next message may be here */
}

static void greet(struct pooled_client *client)
{
    client->is_greeted = true;
    client->callbacks->on_greeting(client);
    if (client->place.pool != NULL) {
        feed(client, bytes_of(NULL, 0));
    }
}

static void link_up(struct pooled_client *client, struct pooled_server *server)
{
    metric_add(&clients_waiting, -1);
    pools_count_linked(1);
    metric_add(&handovers, 1);
    metric_observe_ns(&wait_seconds, clock_mono() - client->place.asked_at);
    if (!client->is_greeted) { /* it only had to be seen that there is a compute, and its word */
        release(server);
        greet(client);
        return;
    }
    exchange_begin(&client->exchange, &server->exchange, stream_send_buffer(server->user.stream));
    feed(client, bytes_of(NULL, 0));
}

/* ---- decisions done ---- */

static void time_out(struct pools *pools, struct pooled_client *client)
{
    char text[160];
    metric_add(&clients_waiting, -1);
    metric_add(&timeouts, 1);
    (void)snprintf(
        text, sizeof text,
        "no connection of the pool became free within %" PRIu64
        " ms (at most %zu of it, %zu of the endpoint)",
        pools->options.limits.wait_max / NS_PER_MS, pools->options.limits.pool_servers_max,
        pools->options.limits.endpoint_servers_max);
    pooled_client_fail(client, CODE_TOO_MANY, text, bytes_of(NULL, 0));
}

static void act(struct pools *pools, const struct pool_action *action)
{
    switch (action->kind) {
    case POOL_LINK:
        link_up(
            CONTAINER_OF(action->client, struct pooled_client, place),
            CONTAINER_OF(action->server, struct pooled_server, place));
        break;
    case POOL_OPEN:
        pooled_server_open(pools, CONTAINER_OF(action->pool, struct named_pool, core));
        break;
    case POOL_CLOSE:
        pooled_server_close(CONTAINER_OF(action->server, struct pooled_server, place));
        break;
    case POOL_TIMEOUT:
        time_out(pools, CONTAINER_OF(action->client, struct pooled_client, place));
        break;
    case POOL_NOTHING: break;
    }
}

void pools_hold(struct shared_endpoint *endpoint)
{
    endpoint->holds++;
}

static void do_all(
    struct pools *pools,
    struct shared_endpoint *endpoint,
    struct pool_action (*decide)(
        struct pool_endpoint *endpoint, const struct pool_limits *limits, mono_ns_t now))
{
    struct pool_action action = {0};
    do {
        action = decide(&endpoint->core, &pools->options.limits, clock_mono());
        act(pools, &action);
    } while (action.kind != POOL_NOTHING);
}

void pools_settle(struct pools *pools, struct shared_endpoint *endpoint)
{
    if (endpoint->holds > 1) {
        endpoint->holds--;
        return;
    }
    if (pools->on_closed == NULL) {
        do_all(pools, endpoint, pool_step); /* still held: what it does settles nothing itself */
    }
    endpoint->holds--;
    free_unused(endpoint);
}

static void on_tick(struct timer *timer)
{
    struct pools *pools = CONTAINER_OF(timer, struct pools, tick);
    LIST_FOR_EACH(&pools->all_endpoints, link)
    {
        struct shared_endpoint *endpoint = CONTAINER_OF(link, struct shared_endpoint, in_all);
        pools_hold(endpoint);
        do_all(pools, endpoint, pool_expire);
        pools_settle(pools, endpoint);
    }
    timer_start(pools->loop, timer, TICK_MS);
}

/* ---- what sessions call ---- */

void pools_join(struct pools *pools, const struct pool_spec *spec, struct pooled_client *client)
{
    struct named_pool *pool = take_pool(pools, spec);
    if (spec->asked_at >= pool->asked_at) { /* the password may be another one by now */
        pool->verifier = *spec->verifier;
        memcpy(pool->client_key, spec->client_key, sizeof pool->client_key);
        pool->asked_at = spec->asked_at;
    }
    client->pools = pools;
    pools_hold(pool->endpoint);
    pool_client_joins(&pool->core, &client->place);
    metric_add(&clients_open, 1);
    if (pool->has_welcome) {
        greet(client);
    } else {
        ask_for_server(client);
        pooled_client_update_reading(client);
    }
    pools_settle(pools, pool->endpoint);
}

void pooled_client_put_greeting(struct pooled_client *client, struct buf *to)
{
    const struct named_pool *pool = pool_of(client);
    struct bytes rest = buf_view(&pool->welcome);
    struct pg_message message;
    struct errmsg msg;
    parameters_complete(&client->exchange.parameters, &pool->defaults);
    while (pg_message_parse(rest, POOLS_GREETING_MAX, &message, &msg) == ERR_OK &&
           message.size > 0) {
        const char *name = NULL;
        const char *value = NULL;
        bool is_sane = pg_parameter_parse(message.body, &name, &value);
        ASSERT(is_sane); /* take_parameter() refuses others */
        enum parameter parameter = parameter_find(name);
        if (parameter == PARAMETER_COUNT) {
            buf_append(to, rest.data, message.size);
        } else {
            pg_put_parameter(to, name, client->exchange.parameters.values[parameter]);
        }
        rest = bytes_of(rest.data + message.size, rest.size - message.size);
    }
}

void pooled_client_receive(struct pooled_client *client, struct bytes bytes)
{
    struct shared_endpoint *endpoint = pool_of(client)->endpoint;
    struct pools *pools = client->pools;
    if (!client->is_greeted || pool_client_waits(&client->place)) {
        buf_append(&client->exchange.held, bytes.data, bytes.size);
        return;
    }
    pools_hold(endpoint);
    feed(client, bytes);
    pools_settle(pools, endpoint);
}

void pooled_client_drained(struct pooled_client *client)
{
    struct pooled_server *server = pooled_client_server(client);
    if (server != NULL && server->user.stream != NULL) {
        stream_resume(server->user.stream);
    }
    pooled_client_update_reading(client);
}

bool pooled_client_is_amid_answer(const struct pooled_client *client)
{
    const struct pooled_server *server = pooled_client_server(client);
    return server != NULL && exchange_is_amid_answer(&server->exchange);
}

void pooled_client_leave(struct pooled_client *client)
{
    if (client->place.pool == NULL) {
        return;
    }
    struct shared_endpoint *endpoint = pool_of(client)->endpoint;
    struct pooled_server *server = pooled_client_server(client);
    metric_add(&clients_waiting, pool_client_waits(&client->place) ? -1 : 0);
    metric_add(&clients_open, -1);
    pools_hold(endpoint);
    if (server != NULL) {
        pooled_server_close(server);
    }
    bindings_deinit(&client->exchange.bindings); /* its statements are the pool's */
    pool_client_leaves(&client->place);
    pools_settle(client->pools, endpoint);
}

void pooled_client_deinit(struct pooled_client *client)
{
    ASSERT(client->place.pool == NULL);
    exchange_client_deinit(&client->exchange);
}

/* ---- cancelling ---- */

struct pooled_server *pooled_cancel_begin(
    struct pooled_client *client, struct pooled_target *ret_target)
{
    struct pooled_server *server = pooled_client_server(client);
    if (server == NULL || exchange_is_beginning(&server->exchange)) {
        return NULL;
    }
    pool_cancel_begins(&server->place);
    *ret_target = (struct pooled_target){
        .host = server->ask.route.host,
        .port = server->ask.route.port,
        .pid = server->pid,
        .key = server->key,
    };
    return server;
}

void pooled_cancel_end(struct pooled_server *server, bool is_sure)
{
    struct pools *pools = server->pools;
    if (server->state == SERVER_GONE) {
        server->place.cancels--;
        pooled_server_free_when_done(server);
        return;
    }
    struct shared_endpoint *endpoint = server->pool->endpoint;
    pools_hold(endpoint);
    server->exchange.is_spent = server->exchange.is_spent || !is_sure;
    bool was_held = server->place.state == POOL_SERVER_HELD;
    pool_cancel_ended(&server->place, clock_mono());
    if (was_held && server->place.cancels == 0 && server->exchange.is_spent) {
        pooled_server_close(server);
    }
    pools_settle(pools, endpoint);
}

/* ---- the whole ---- */

struct pools *pools_create(
    struct loop *loop, struct routes *routes, const struct pools_options *options)
{
    struct pools *pools = MEM_NEW(struct pools);
    pools->loop = loop;
    pools->routes = routes;
    pools->options = *options;
    for (size_t i = 0; i < POOLS_BUCKETS; i++) {
        list_init(&pools->endpoints[i]);
        list_init(&pools->pools[i]);
    }
    list_init(&pools->all_endpoints);
    list_init(&pools->servers);
    pools->tick.on_fire = on_tick;
    timer_start(loop, &pools->tick, TICK_MS);
    return pools;
}

void pools_close(struct pools *pools, void (*on_closed)(void *owner), void *owner)
{
    pools->on_closed = on_closed;
    pools->owner = owner;
    timer_stop(&pools->tick);
    if (list_is_empty(&pools->servers)) {
        pools_finish_close(pools);
        return;
    }
    struct list_link *link = list_first(&pools->servers);
    while (link != NULL) {
        struct pooled_server *server = CONTAINER_OF(link, struct pooled_server, link);
        link = link->next == &pools->servers.head ? NULL : link->next;
        pooled_server_close(server);
    }
}
