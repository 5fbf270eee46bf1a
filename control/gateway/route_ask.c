/*
 * route_ask.c - questions to control: who asks the same gets the same answer, and who has to wait
 * for a turn.
 */
#include <stdio.h>

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "common/rpc/rpc.h"
#include "control/gateway/route_private.h"

METRIC_COUNTER(
    asked, "gateway_routes_asked_total", "Questions to control: where does an endpoint run?");
METRIC_COUNTER(remembered, "gateway_routes_remembered_total", "Routes that were known.");
METRIC_COUNTER(
    shared, "gateway_routes_shared_total", "Routes that another one was asking for already.");
METRIC_GAUGE(waiting_now, "gateway_routes_waiting", "Questions that wait until control has fewer.");
METRIC_HISTOGRAM(
    ask_seconds, "gateway_route_seconds", "Time of control's answer, waking included.");

#define CANCEL_SLACK_MS 5000 /* control answers within wake_timeout_ms; we wait a little longer */

/* ---- all questions about one name ---- */

static struct route_group *group_of(struct routes *routes, const char *name)
{
    struct list *bucket = routes_bucket(routes->groups, name);
    LIST_FOR_EACH(bucket, link)
    {
        struct route_group *group = CONTAINER_OF(link, struct route_group, in_bucket);
        if (strcmp(group->name, name) == 0) {
            return group;
        }
    }
    struct route_group *group = MEM_NEW(struct route_group);
    (void)snprintf(group->name, sizeof group->name, "%s", name);
    list_init(&group->put);
    list_init(&group->waiting);
    list_push_back(bucket, &group->in_bucket);
    return group;
}

static void free_if_empty(struct route_group *group)
{
    if (group->put_count == 0 && list_is_empty(&group->waiting)) {
        list_remove(&group->in_bucket);
        list_remove(&group->in_hungry);
        mem_free(group);
    }
}

/* ---- the answer ---- */

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

/* Not from inside of whoever asks. */
static void finish_soon(struct route_ask *ask, err_t result)
{
    ask->result = result;
    timer_start(ask->routes->loop, &ask->soon, 0);
}

static void on_soon(struct timer *timer)
{
    struct route_ask *ask = CONTAINER_OF(timer, struct route_ask, soon);
    ask->done(ask);
}

static void wait_for_turn(struct route_group *group, struct route_ask *ask)
{
    ask->waits = true;
    list_push_back(&group->waiting, &ask->in_asks);
    metric_add(&waiting_now, 1);
}

static void end_wait(struct route_ask *ask)
{
    ask->waits = false;
    list_remove(&ask->in_asks);
    metric_add(&waiting_now, -1);
}

/* When who asked does not wait for it any longer, one of them asks. */
static void tell_followers(struct route_group *group, struct route_ask *ask)
{
    for (struct list_link *link; (link = list_pop_front(&ask->followers)) != NULL;) {
        struct route_ask *follower = CONTAINER_OF(link, struct route_ask, in_asks);
        if (ask->result == ERR_CANCELED) {
            wait_for_turn(group, follower);
            continue;
        }
        follower->route = ask->route;
        follower->msg = ask->msg;
        finish_soon(follower, ask->result);
    }
}

static void serve_waiting(struct routes *routes, struct route_group *group);

static void on_answer(struct http_call *call)
{
    struct route_ask *ask = CONTAINER_OF(call, struct route_ask, call);
    struct routes *routes = ask->routes;
    struct route_group *group = group_of(routes, ask->address.name);
    struct doc *body = NULL;
    ask->calling = false;
    list_remove(&ask->in_asks);
    group->put_count--;
    routes->put_count--;
    metric_observe_ns(&ask_seconds, clock_mono() - ask->put_at);
    ask->result = http_call_json(call, &body, &ask->msg);
    if (ask->result == ERR_OK) {
        err_t err = read_answer(ask, body, &ask->msg);
        ask->result = err == ERR_OK ? ERR_OK : err_wrap(&ask->msg, err, "answer of control");
        doc_unref(body);
    }
    http_call_deinit(call);
    if (ask->result == ERR_OK) {
        route_remember(ask);
    }
    tell_followers(group, ask);
    serve_waiting(routes, group);
    ask->done(ask);
}

/* ---- asking ---- */

static void put(struct route_group *group, struct route_ask *ask)
{
    struct routes *routes = ask->routes;
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
    ask->put_at = clock_mono();
    list_push_back(&group->put, &ask->in_asks);
    group->put_count++;
    routes->put_count++;
    http_call_start(routes->client, &ask->call);
    buf_deinit(&text);
}

static bool is_same(const struct route_ask *one, const struct route_ask *other)
{
    return strcmp(one->address.moment, other->address.moment) == 0 &&
           strcmp(one->role, other->role) == 0 && strcmp(one->client, other->client) == 0;
}

/* One that is put, and whose answer cannot be older than what we know; NULL: none. */
static struct route_ask *leader_of(const struct route_group *group, const struct route_ask *ask)
{
    LIST_FOR_EACH(&group->put, link)
    {
        struct route_ask *other = CONTAINER_OF(link, struct route_ask, in_asks);
        if (!ask->again && other->forgotten == ask->routes->forgotten && is_same(ask, other)) {
            return other;
        }
    }
    return NULL;
}

/* False: it has to wait for its turn. */
static bool begin(struct route_group *group, struct route_ask *ask)
{
    if (!ask->again && route_recall(ask)) {
        metric_add(&remembered, 1);
        finish_soon(ask, ERR_OK);
        return true;
    }
    struct route_ask *leader = leader_of(group, ask);
    if (leader != NULL) {
        metric_add(&shared, 1);
        list_push_back(&leader->followers, &ask->in_asks);
        return true;
    }
    if (ask->routes->put_count < ROUTE_ASKS_MAX && group->put_count < ROUTE_ASKS_OF_ONE_MAX) {
        put(group, ask);
        return true;
    }
    return false;
}

/* What waits only because control has enough gets its turn when a place becomes free. */
static void note_hungry(struct routes *routes, struct route_group *group)
{
    bool is_hungry = !list_is_empty(&group->waiting) && group->put_count < ROUTE_ASKS_OF_ONE_MAX;
    if (is_hungry && !list_link_is_in(&group->in_hungry)) {
        list_push_back(&routes->hungry, &group->in_hungry);
    }
}

/* In their order, as many as may begin. */
static void serve(struct routes *routes, struct route_group *group)
{
    for (struct list_link *link; (link = list_first(&group->waiting)) != NULL;) {
        struct route_ask *ask = CONTAINER_OF(link, struct route_ask, in_asks);
        end_wait(ask);
        if (!begin(group, ask)) {
            ask->waits = true;
            list_push_front(&group->waiting, link);
            metric_add(&waiting_now, 1);
            break;
        }
    }
    note_hungry(routes, group);
}

/* A place has become free: names take turns. */
static void serve_waiting(struct routes *routes, struct route_group *group)
{
    note_hungry(routes, group);
    free_if_empty(group);
    while (routes->put_count < ROUTE_ASKS_MAX && !list_is_empty(&routes->hungry)) {
        struct route_group *next =
            CONTAINER_OF(list_pop_front(&routes->hungry), struct route_group, in_hungry);
        serve(routes, next);
        free_if_empty(next);
    }
}

void route_ask_start(struct routes *routes, struct route_ask *ask)
{
    struct route_group *group = group_of(routes, ask->address.name);
    ask->routes = routes;
    ask->soon.on_fire = on_soon;
    list_init(&ask->followers);
    if (!begin(group, ask)) {
        wait_for_turn(group, ask);
        note_hungry(routes, group);
    }
    free_if_empty(group);
}

void route_ask_cancel(struct route_ask *ask)
{
    if (ask->calling) {
        http_call_cancel(&ask->call);
    } else if (list_link_is_in(&ask->in_asks)) {
        if (ask->waits) {
            end_wait(ask);
            free_if_empty(group_of(ask->routes, ask->address.name));
        }
        list_remove(&ask->in_asks);
        finish_soon(ask, err_set(&ask->msg, ERR_CANCELED, "canceled"));
    }
}
