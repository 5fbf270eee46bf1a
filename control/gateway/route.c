#include "control/gateway/route_private.h"

#include <stdio.h>

#include "common/base/checksum.h"
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/rpc/rpc.h"

#define KEY_SIZE    (ADDRESS_NAME_SIZE + ADDRESS_MOMENT_SIZE + PG_NAME_SIZE + 64)
#define ENTRIES_MAX 16384 /* then the oldest go */

struct entry {
    struct list_link in_bucket, in_endpoint, in_age;
    char key[KEY_SIZE];
    struct route route;
};

err_t routes_create(
    struct loop *loop,
    struct http_client *client,
    const struct routes_options *options,
    struct routes **ret_routes,
    struct errmsg *msg)
{
    struct routes *routes = MEM_NEW(struct routes);
    routes->loop = loop;
    routes->client = client;
    routes->wake_timeout_ms = options->wake_timeout_ms;
    routes->keep_ms = options->keep_ms;
    list_init(&routes->by_age);
    list_init(&routes->hungry);
    for (size_t i = 0; i < ROUTE_BUCKETS; i++) {
        list_init(&routes->buckets[i]);
        list_init(&routes->endpoints[i]);
        list_init(&routes->groups[i]);
    }
    err_t err = str_format(
        routes->url, sizeof routes->url, msg, "%s%s", options->control_url,
        rpc_method(RPC_CONTROL_CONNECT)->path);
    err = err != ERR_OK ? err : str_copy(routes->token, sizeof routes->token, options->token, msg);
    if (err != ERR_OK) {
        routes_destroy(routes);
        return err;
    }
    *ret_routes = routes;
    return ERR_OK;
}

/* ---- what is remembered ---- */

static void make_key(
    const struct address *address, const char *role, const char *client, char ret_key[KEY_SIZE])
{
    (void)snprintf(ret_key, KEY_SIZE, "%s/%s/%s/%s", address->name, address->moment, client, role);
}

struct list *routes_bucket(struct list buckets[ROUTE_BUCKETS], const char *key)
{
    return &buckets[hash64(key, strlen(key), 0) % ROUTE_BUCKETS];
}

static struct entry *find(struct routes *routes, const char *key)
{
    LIST_FOR_EACH(routes_bucket(routes->buckets, key), link)
    {
        struct entry *entry = CONTAINER_OF(link, struct entry, in_bucket);
        if (strcmp(entry->key, key) == 0) {
            return entry;
        }
    }
    return NULL;
}

static void forget(struct routes *routes, struct entry *entry)
{
    list_remove(&entry->in_bucket);
    list_remove(&entry->in_endpoint);
    list_remove(&entry->in_age);
    routes->count--;
    mem_free(entry);
}

void routes_forget(
    struct routes *routes, const struct address *address, const char *role, const char *client)
{
    char key[KEY_SIZE];
    make_key(address, role, client, key);
    struct entry *entry = find(routes, key);
    if (entry != NULL) {
        forget(routes, entry);
    }
}

void routes_forget_endpoint(struct routes *routes, const char *endpoint_id)
{
    char *change = routes->changes[routes->forgotten++ % ROUTE_CHANGES_MAX];
    (void)snprintf(change, ADDRESS_NAME_SIZE, "%s", endpoint_id);
    LIST_FOR_EACH(routes_bucket(routes->endpoints, endpoint_id), link)
    {
        struct entry *entry = CONTAINER_OF(link, struct entry, in_endpoint);
        if (strcmp(entry->route.endpoint_id, endpoint_id) == 0) {
            forget(routes, entry);
        }
    }
}

void routes_forget_all(struct routes *routes)
{
    routes->forgotten += ROUTE_CHANGES_MAX + 1; /* nobody can say any more what has not changed */
    while (!list_is_empty(&routes->by_age)) {
        forget(routes, CONTAINER_OF(list_first(&routes->by_age), struct entry, in_age));
    }
}

void routes_destroy(struct routes *routes)
{
    if (routes != NULL) {
        routes_forget_all(routes);
        mem_free(routes);
    }
}

/* Has control said so since it was asked? Then the answer may be older than that. */
static bool has_changed(const struct route_ask *ask)
{
    const struct routes *routes = ask->routes;
    if (routes->forgotten - ask->forgotten > ROUTE_CHANGES_MAX) {
        return true;
    }
    for (uint64_t number = ask->forgotten; number < routes->forgotten; number++) {
        if (strcmp(routes->changes[number % ROUTE_CHANGES_MAX], ask->route.endpoint_id) == 0) {
            return true;
        }
    }
    return false;
}

void route_remember(struct route_ask *ask)
{
    struct routes *routes = ask->routes;
    if (has_changed(ask)) {
        return;
    }
    routes_forget(routes, &ask->address, ask->role, ask->client);
    if (routes->count >= ENTRIES_MAX) {
        forget(routes, CONTAINER_OF(list_first(&routes->by_age), struct entry, in_age));
    }
    struct entry *entry = MEM_NEW(struct entry);
    make_key(&ask->address, ask->role, ask->client, entry->key);
    entry->route = ask->route;
    list_push_back(routes_bucket(routes->buckets, entry->key), &entry->in_bucket);
    list_push_back(routes_bucket(routes->endpoints, entry->route.endpoint_id), &entry->in_endpoint);
    list_push_back(&routes->by_age, &entry->in_age);
    routes->count++;
}

bool route_recall(struct route_ask *ask)
{
    char key[KEY_SIZE];
    make_key(&ask->address, ask->role, ask->client, key);
    struct entry *entry = find(ask->routes, key);
    if (entry == NULL || clock_mono() - entry->route.asked_at > ask->routes->keep_ms * NS_PER_MS) {
        return false;
    }
    ask->route = entry->route;
    return true;
}
