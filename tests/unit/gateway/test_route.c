/* What a gateway remembers of control's answers, and what it does not. */
#include "control/gateway/route.h"

#include <stdio.h>

#include "common/base/log.h"
#include "common/io/http_server.h"
#include "tests/unit/unit.h"

static struct errmsg msg;
static struct loop *loop;
static struct http_server *server;
static struct http_client *client;
static struct http_context context;
static struct routes *routes;
static struct route_ask ask;
static unsigned asked;
static void (*while_asked)(void);

/* ---- control: each endpoint is called as in the address ---- */

static void post_connect(struct http_context *unused, struct http_request *request)
{
    (void)unused;
    struct doc *body = NULL;
    const char *name = "";
    asked++;
    ck_assert_ok(http_request_json(request, &body, &msg), &msg);
    ck_assert_ok(doc_get_str(body, "name", &name, &msg), &msg);
    struct doc *answer = doc_set_str(doc_object(), "endpoint_id", name);
    doc_set_str(answer, "host", "127.0.0.1");
    doc_set_int(answer, "port", 7500);
    if (while_asked != NULL) {
        while_asked();
    }
    http_respond_json(request, 200, answer);
}

static const struct http_route control_routes[] = {
    HTTP_ROUTE("POST", "/v1/connect", post_connect, "", true)};

/* ---- a gateway ---- */

static void on_done(struct route_ask *unused)
{
    (void)unused;
    loop_stop(loop);
}

static void connect_to(const char *endpoint_id)
{
    ask = (struct route_ask){.done = on_done, .role = "app", .client = "127.0.0.1"};
    (void)snprintf(ask.address.name, sizeof ask.address.name, "%s", endpoint_id);
    route_ask_start(routes, &ask);
    loop_run(loop);
    ck_assert_ok(ask.result, &ask.msg);
    ck_assert_str_eq(ask.route.endpoint_id, endpoint_id);
}

/* Did control have to say where it runs? */
static bool asks_for(const char *endpoint_id)
{
    unsigned before = asked;
    connect_to(endpoint_id);
    return asked > before;
}

static void begin(void)
{
    char url[64];
    log_init("test", LOG_LEVEL_ERROR);
    ck_assert_ok(loop_create(&loop, &msg), &msg);
    ck_assert_ok(http_client_create(loop, &client, &msg), &msg);
    ck_assert_ok(
        http_server_open(loop, "127.0.0.1", 0, &(struct http_options){0}, &server, &msg), &msg);
    http_server_add_routes(server, control_routes, ARRAY_LEN(control_routes), &context);
    (void)snprintf(url, sizeof url, "http://127.0.0.1:%u", (unsigned)http_server_port(server));
    const struct routes_options options = {
        .control_url = url, .token = "", .wake_timeout_ms = 60000, .keep_ms = 600000};
    ck_assert_ok(routes_create(loop, client, &options, &routes, &msg), &msg);
    while_asked = NULL;
}

static void end(void)
{
    routes_destroy(routes);
    http_client_destroy(client);
    http_server_close(server);
    loop_destroy(loop);
}

/* ---- the stories ---- */

START_TEST(test_only_the_endpoint_that_changed_is_forgotten)
{
    begin();
    ck_assert(asks_for("ep-a"));
    ck_assert(asks_for("ep-b"));
    ck_assert(!asks_for("ep-a"));
    routes_forget_endpoint(routes, "ep-a");
    ck_assert(!asks_for("ep-b"));
    ck_assert(asks_for("ep-a"));
    routes_forget_all(routes);
    ck_assert(asks_for("ep-b"));
    ck_assert(asks_for("ep-a"));
    end();
}
END_TEST

static void change_another(void)
{
    routes_forget_endpoint(routes, "ep-b");
}

static void change_it(void)
{
    change_another();
    routes_forget_endpoint(routes, "ep-a");
    change_another();
}

static void change_it_first(void)
{
    routes_forget_endpoint(routes, "ep-a");
    change_another();
}

static void change_all(void)
{
    routes_forget_all(routes);
}

/* More than anybody can tell apart: then nothing is remembered. */
static void change_many(void)
{
    routes_forget_endpoint(routes, "ep-a");
    for (unsigned i = 0; i < 100000; i++) {
        change_another();
    }
}

START_TEST(test_answer_under_way_is_remembered_unless_its_endpoint_changed)
{
    void (*const changes[])(void) = {change_it, change_it_first, change_all, change_many};
    begin();
    while_asked = change_another;
    ck_assert(asks_for("ep-a"));
    ck_assert(!asks_for("ep-a"));
    for (size_t i = 0; i < ARRAY_LEN(changes); i++) {
        routes_forget_all(routes);
        while_asked = changes[i];
        ck_assert(asks_for("ep-a"));
        while_asked = NULL;
        ck_assert(asks_for("ep-a")); /* the answer was older than the change */
        ck_assert(!asks_for("ep-a"));
    }
    end();
}
END_TEST

UNIT_MAIN(
    "gateway_route",
    test_only_the_endpoint_that_changed_is_forgotten,
    test_answer_under_way_is_remembered_unless_its_endpoint_changed);
