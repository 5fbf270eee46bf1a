#include "control/gateway/route.h"

#include <stdio.h>

#include "common/base/checksum.h"
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "common/rpc/rpc.h"

METRIC_COUNTER(
    asked, "gateway_routes_asked_total", "Questions to control: where does an endpoint run?");
METRIC_COUNTER(remembered, "gateway_routes_remembered_total", "Routes that were known.");
METRIC_HISTOGRAM(
    ask_seconds, "gateway_route_seconds", "Time of control's answer, waking included.");

#define KEY_SIZE        (ADDRESS_NAME_SIZE + ADDRESS_MOMENT_SIZE + PG_NAME_SIZE + 64)
#define BUCKETS         4096
#define ENTRIES_MAX     16384 /* then the oldest go */
#define CHANGES_MAX     1024  /* that are told apart: as many as control tells at once */
#define CANCEL_SLACK_MS 5000  /* control answers within wake_timeout_ms; we wait a little longer */

struct entry {
    struct list_link in_bucket, in_endpoint, in_age;
    char key[KEY_SIZE];
    struct route route;
};

struct routes {
    struct loop *loop;
    struct http_client *client;
    struct list buckets[BUCKETS];
    struct list endpoints[BUCKETS]; /* by the endpoint where they lead */
    struct list by_age;             /* oldest first */
    size_t count;
    /* How often control said that something has changed, and the last ones: at number % MAX. */
    uint64_t forgotten;
    char changes[CHANGES_MAX][ADDRESS_NAME_SIZE];
    uint64_t wake_timeout_ms, keep_ms;
    char url[PATH_SIZE];
    char token[256];
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
    for (size_t i = 0; i < BUCKETS; i++) {
        list_init(&routes->buckets[i]);
        list_init(&routes->endpoints[i]);
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

static struct list *bucket_of(struct routes *routes, const char *key)
{
    return &routes->buckets[hash64(key, strlen(key), 0) % BUCKETS];
}

static struct list *bucket_of_endpoint(struct routes *routes, const char *endpoint_id)
{
    return &routes->endpoints[hash64(endpoint_id, strlen(endpoint_id), 0) % BUCKETS];
}

static struct entry *find(struct routes *routes, const char *key)
{
    LIST_FOR_EACH(bucket_of(routes, key), link)
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
    char *change = routes->changes[routes->forgotten++ % CHANGES_MAX];
    (void)snprintf(change, ADDRESS_NAME_SIZE, "%s", endpoint_id);
    LIST_FOR_EACH(bucket_of_endpoint(routes, endpoint_id), link)
    {
        struct entry *entry = CONTAINER_OF(link, struct entry, in_endpoint);
        if (strcmp(entry->route.endpoint_id, endpoint_id) == 0) {
            forget(routes, entry);
        }
    }
}

void routes_forget_all(struct routes *routes)
{
    routes->forgotten += CHANGES_MAX + 1; /* nobody can say any more what has not changed */
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

static void remember(struct route_ask *ask)
{
    struct routes *routes = ask->routes;
    routes_forget(routes, &ask->address, ask->role, ask->client);
    if (routes->count >= ENTRIES_MAX) {
        forget(routes, CONTAINER_OF(list_first(&routes->by_age), struct entry, in_age));
    }
    struct entry *entry = MEM_NEW(struct entry);
    make_key(&ask->address, ask->role, ask->client, entry->key);
    entry->route = ask->route;
    list_push_back(bucket_of(routes, entry->key), &entry->in_bucket);
    list_push_back(bucket_of_endpoint(routes, entry->route.endpoint_id), &entry->in_endpoint);
    list_push_back(&routes->by_age, &entry->in_age);
    routes->count++;
}

/* Has control said so since it was asked? Then the answer may be older than that. */
static bool has_changed(const struct route_ask *ask)
{
    const struct routes *routes = ask->routes;
    if (routes->forgotten - ask->forgotten > CHANGES_MAX) {
        return true;
    }
    for (uint64_t number = ask->forgotten; number < routes->forgotten; number++) {
        if (strcmp(routes->changes[number % CHANGES_MAX], ask->route.endpoint_id) == 0) {
            return true;
        }
    }
    return false;
}

static bool recall(struct route_ask *ask)
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

/* ---- asking ---- */

static err_t read_answer(struct route_ask *ask, const struct doc *body, struct errmsg *msg)
{
    const char *endpoint_id = NULL;
    const char *host = NULL;
    const char *verifier = "", *project_id = "";
    uint64_t port = 0;
    struct route *route = &ask->route;
    TRY(doc_get_str(body, "endpoint_id", &endpoint_id, msg));
    TRY(doc_get_str(body, "host", &host, msg));
    TRY(doc_get_u64(body, "port", &port, msg));
    TRY(doc_opt_str(body, "verifier", &verifier, msg));
    TRY(doc_opt_str(body, "project_id", &project_id, msg));
    TRY(str_copy(route->endpoint_id, sizeof route->endpoint_id, endpoint_id, msg));
    TRY(str_copy(route->project_id, sizeof route->project_id, project_id, msg));
    TRY(str_copy(route->host, sizeof route->host, host, msg));
    TRY(str_copy(route->verifier, sizeof route->verifier, verifier, msg));
    if (port == 0 || port > UINT16_MAX) {
        return err_set(msg, ERR_INVALID, "port %" PRIu64, port);
    }
    route->port = (uint16_t)port;
    route->asked_at = clock_mono();
    return ERR_OK;
}

static void on_answer(struct http_call *call)
{
    struct route_ask *ask = CONTAINER_OF(call, struct route_ask, call);
    struct doc *body = NULL;
    ask->calling = false;
    ask->result = http_call_json(call, &body, &ask->msg);
    if (ask->result == ERR_OK) {
        err_t err = read_answer(ask, body, &ask->msg);
        ask->result = err == ERR_OK ? ERR_OK : err_wrap(&ask->msg, err, "answer of control");
        doc_unref(body);
    }
    http_call_deinit(call);
    if (ask->result == ERR_OK && !has_changed(ask)) {
        remember(ask);
    }
    ask->done(ask);
}

static void on_remembered(struct timer *timer)
{
    struct route_ask *ask = CONTAINER_OF(timer, struct route_ask, soon);
    ask->result = ERR_OK;
    ask->done(ask);
}

void route_ask_start(struct routes *routes, struct route_ask *ask)
{
    ask->routes = routes;
    if (!ask->again && recall(ask)) {
        metric_add(&remembered, 1);
        ask->soon.on_fire = on_remembered;
        timer_start(routes->loop, &ask->soon, 0);
        return;
    }
    metric_add(&asked, 1);
    ask->forgotten = routes->forgotten;
    struct buf text = {0};
    struct doc *body = doc_object();
    doc_set_str(body, "name", ask->address.name);
    doc_set_str(body, "role", ask->role);
    doc_set_str(body, "client", ask->client);
    if (ask->address.moment[0] != '\0') {
        doc_set_str(body, ask->address.moment_is_lsn ? "lsn" : "timestamp", ask->address.moment);
    }
    doc_set_int(body, "wait_ms", (int64_t)routes->wake_timeout_ms);
    doc_print(body, false, &text);
    doc_unref(body);
    ask->call = (struct http_call){
        .method = "POST",
        .url = routes->url,
        .body = buf_view(&text),
        .token = routes->token[0] == '\0' ? NULL : routes->token,
        .timeout_ms = routes->wake_timeout_ms + CANCEL_SLACK_MS,
        .done = on_answer,
    };
    ask->calling = true;
    http_call_start(routes->client, &ask->call);
    buf_deinit(&text);
}

void route_ask_cancel(struct route_ask *ask)
{
    if (ask->calling) {
        http_call_cancel(&ask->call);
    }
}
