#include "control/gateway/pool.h"

void pool_endpoint_init(struct pool_endpoint *endpoint)
{
    *endpoint = (struct pool_endpoint){0};
    list_init(&endpoint->pools);
}

void pool_init(struct pool *pool, struct pool_endpoint *endpoint)
{
    *pool = (struct pool){.endpoint = endpoint};
    list_init(&pool->idle);
    list_init(&pool->waiting);
    list_push_back(&endpoint->pools, &pool->in_endpoint);
}

bool pool_is_unused(const struct pool *pool)
{
    return pool->client_count == 0 && pool->server_count == 0;
}

void pool_deinit(struct pool *pool)
{
    ASSERT(pool_is_unused(pool));
    list_remove(&pool->in_endpoint);
}

/* ---- clients ---- */

void pool_client_joins(struct pool *pool, struct pool_client *client)
{
    *client = (struct pool_client){.pool = pool};
    pool->client_count++;
}

bool pool_client_waits(const struct pool_client *client)
{
    return list_link_is_in(&client->in_waiting);
}

static void stop_waiting(struct pool_client *client)
{
    if (pool_client_waits(client)) {
        list_remove(&client->in_waiting);
        client->pool->waiting_count--;
    }
}

void pool_client_asks(struct pool_client *client, mono_ns_t now)
{
    ASSERT(client->server == NULL);
    ASSERT(!pool_client_waits(client));
    client->asked_at = now;
    list_push_back(&client->pool->waiting, &client->in_waiting);
    client->pool->waiting_count++;
}

void pool_client_leaves(struct pool_client *client)
{
    ASSERT(client->server == NULL);
    if (client->pool != NULL) {
        stop_waiting(client);
        client->pool->client_count--;
        client->pool = NULL;
    }
}

/* ---- servers ---- */

void pool_server_opens(struct pool *pool, struct pool_server *server)
{
    *server = (struct pool_server){.pool = pool, .state = POOL_SERVER_OPENING};
    pool->server_count++;
    pool->opening_count++;
    pool->endpoint->server_count++;
}

static void become_idle(struct pool_server *server, mono_ns_t now)
{
    server->state = POOL_SERVER_IDLE;
    server->idle_since = now;
    list_push_front(&server->pool->idle, &server->in_idle);
    server->pool->idle_count++;
}

static void leave_idle(struct pool_server *server)
{
    list_remove(&server->in_idle);
    server->pool->idle_count--;
}

void pool_server_opened(struct pool_server *server, mono_ns_t now)
{
    ASSERT(server->state == POOL_SERVER_OPENING);
    server->pool->opening_count--;
    server->pool->retry_at = 0;
    server->opened_at = now;
    become_idle(server, now);
}

static void unlink_client(struct pool_server *server)
{
    if (server->client != NULL) {
        server->client->server = NULL;
        server->client = NULL;
    }
}

void pool_server_released(struct pool_server *server, mono_ns_t now)
{
    ASSERT(server->state == POOL_SERVER_LINKED);
    unlink_client(server);
    if (server->cancels > 0) {
        server->state = POOL_SERVER_HELD;
    } else {
        become_idle(server, now);
    }
}

void pool_server_gone(struct pool_server *server)
{
    if (server->state == POOL_SERVER_GONE) {
        return;
    }
    if (server->state == POOL_SERVER_IDLE) {
        leave_idle(server);
    }
    server->pool->opening_count -= server->state == POOL_SERVER_OPENING;
    unlink_client(server);
    server->state = POOL_SERVER_GONE;
    server->pool->server_count--;
    server->pool->endpoint->server_count--;
}

void pool_open_failed(struct pool *pool, const struct pool_limits *limits, mono_ns_t now)
{
    pool->retry_at = now + limits->retry_after;
}

void pool_cancel_begins(struct pool_server *server)
{
    server->cancels++;
}

void pool_cancel_ended(struct pool_server *server, mono_ns_t now)
{
    ASSERT(server->cancels > 0);
    server->cancels--;
    if (server->state == POOL_SERVER_HELD && server->cancels == 0) {
        become_idle(server, now);
    }
}

/* ---- decisions ---- */

static struct pool_client *first_waiting(const struct pool *pool)
{
    struct list_link *link = list_first(&pool->waiting);
    return link == NULL ? NULL : CONTAINER_OF(link, struct pool_client, in_waiting);
}

static struct pool_server *last_used(const struct pool *pool)
{
    return CONTAINER_OF(list_first(&pool->idle), struct pool_server, in_idle);
}

static struct pool_server *idle_longest(const struct pool *pool)
{
    return CONTAINER_OF(pool->idle.head.prev, struct pool_server, in_idle);
}

static struct pool_action close_server(struct pool_server *server)
{
    pool_server_gone(server);
    return (struct pool_action){.kind = POOL_CLOSE, .pool = server->pool, .server = server};
}

static struct pool_action link_up(struct pool_client *client, struct pool_server *server)
{
    leave_idle(server);
    stop_waiting(client);
    server->state = POOL_SERVER_LINKED;
    server->client = client;
    client->server = server;
    return (struct pool_action){
        .kind = POOL_LINK, .pool = client->pool, .client = client, .server = server};
}

/*
 * Somebody asked before `client` in a pool that has no connection at all: it goes first, also
 * before who has none either, whose last one may just have been closed for it. Of those the one
 * that asked first is held up by nobody.
 */
static bool is_other_starving(
    const struct pool_endpoint *endpoint, const struct pool_client *client, mono_ns_t now)
{
    LIST_FOR_EACH(&endpoint->pools, link)
    {
        const struct pool *pool = CONTAINER_OF(link, struct pool, in_endpoint);
        const struct pool_client *first = first_waiting(pool);
        if (first != NULL && pool->server_count == 0 && now >= pool->retry_at &&
            first->asked_at < client->asked_at) {
            return true;
        }
    }
    return false;
}

/* The connection that has been idle longest, in a pool where nobody waits. NULL: none. */
static struct pool_server *find_spare(const struct pool_endpoint *endpoint)
{
    struct pool_server *found = NULL;
    LIST_FOR_EACH(&endpoint->pools, link)
    {
        const struct pool *pool = CONTAINER_OF(link, struct pool, in_endpoint);
        if (pool->idle_count > 0 && pool->waiting_count == 0) {
            struct pool_server *server = idle_longest(pool);
            found = found == NULL || server->idle_since < found->idle_since ? server : found;
        }
    }
    return found;
}

static struct pool_action step_waiting(
    struct pool *pool, const struct pool_limits *limits, mono_ns_t now)
{
    struct pool_endpoint *endpoint = pool->endpoint;
    bool is_full = endpoint->server_count >= limits->endpoint_servers_max;
    struct pool_client *client = first_waiting(pool);
    if (client == NULL) {
        return (struct pool_action){0};
    }
    if (pool->idle_count > 0) {
        return is_full && is_other_starving(endpoint, client, now)
                   ? close_server(idle_longest(pool))
                   : link_up(client, last_used(pool));
    }
    if (pool->opening_count >= pool->waiting_count || now < pool->retry_at ||
        pool->server_count >= limits->pool_servers_max ||
        is_other_starving(endpoint, client, now)) {
        return (struct pool_action){0};
    }
    if (!is_full) {
        return (struct pool_action){.kind = POOL_OPEN, .pool = pool};
    }
    struct pool_server *spare = find_spare(endpoint);
    return spare == NULL ? (struct pool_action){0} : close_server(spare);
}

struct pool_action pool_step(
    struct pool_endpoint *endpoint, const struct pool_limits *limits, mono_ns_t now)
{
    struct pool_action action = {0};
    LIST_FOR_EACH(&endpoint->pools, link)
    {
        action = step_waiting(CONTAINER_OF(link, struct pool, in_endpoint), limits, now);
        if (action.kind != POOL_NOTHING) {
            return action;
        }
    }
    return action;
}

/* ---- what time does ---- */

static bool is_over(mono_ns_t since, mono_ns_t limit, mono_ns_t now)
{
    return limit > 0 && now >= since && now - since >= limit;
}

bool pool_server_is_old(
    const struct pool_server *server, const struct pool_limits *limits, mono_ns_t now)
{
    return is_over(server->opened_at, limits->age_max, now);
}

static struct pool_action expire(struct pool *pool, const struct pool_limits *limits, mono_ns_t now)
{
    struct pool_client *client = first_waiting(pool);
    if (client != NULL && is_over(client->asked_at, limits->wait_max, now)) {
        stop_waiting(client);
        return (struct pool_action){.kind = POOL_TIMEOUT, .pool = pool, .client = client};
    }
    LIST_FOR_EACH(&pool->idle, link)
    {
        struct pool_server *server = CONTAINER_OF(link, struct pool_server, in_idle);
        if (pool_server_is_old(server, limits, now) ||
            is_over(server->idle_since, limits->idle_max, now)) {
            return close_server(server);
        }
    }
    return (struct pool_action){0};
}

struct pool_action pool_expire(
    struct pool_endpoint *endpoint, const struct pool_limits *limits, mono_ns_t now)
{
    struct pool_action action = {0};
    LIST_FOR_EACH(&endpoint->pools, link)
    {
        action = expire(CONTAINER_OF(link, struct pool, in_endpoint), limits, now);
        if (action.kind != POOL_NOTHING) {
            return action;
        }
    }
    return action;
}
