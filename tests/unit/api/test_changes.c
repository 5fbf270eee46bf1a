/* What gateways hear of changes, also from a control that stops. */
#include "tests/unit/api/api_fixture.h"

#include "common/io/http_client.h"
#include "common/io/http_server.h"

static char url[128], body[128];
static struct http_server *server;
static struct http_client *client;
static struct http_call call;
static unsigned asked;
static void (*when_asked)(void);

/* ---- control, and a gateway ---- */

static void post_changes(struct http_context *context, struct http_request *request)
{
    asked++;
    handle_post_changes(context, request);
    if (when_asked != NULL) {
        when_asked();
    }
}

static const struct http_route routes[] = {
    HTTP_ROUTE("POST", "/v1/changes", post_changes, "", true)};

static void on_answer(struct http_call *unused)
{
    (void)unused;
    loop_stop(api.loop);
}

static void ask(uint64_t since)
{
    (void)snprintf(body, sizeof body, "{\"since\": %" PRIu64 ", \"wait_ms\": 50000}", since);
    call = (struct http_call){
        .method = "POST",
        .url = url,
        .body = bytes_of(body, strlen(body)),
        .timeout_ms = 60000,
        .done = on_answer};
    http_call_start(client, &call);
    loop_run(api.loop);
    ck_assert_ok(call.result, &call.msg);
}

/* The number to ask with next. */
static uint64_t next_of_answer(void)
{
    struct doc *answer = NULL;
    uint64_t next = 0;
    ck_assert_ok(http_call_json(&call, &answer, &msg), &msg);
    ck_assert_ok(doc_get_u64(answer, "next", &next, &msg), &msg);
    doc_unref(answer);
    http_call_deinit(&call);
    return next;
}

static void begin(void)
{
    api_begin();
    ck_assert_ok(http_client_create(api.loop, &client, &msg), &msg);
    ck_assert_ok(
        http_server_open(api.loop, "127.0.0.1", 0, &(struct http_options){0}, &server, &msg), &msg);
    http_server_add_routes(server, routes, ARRAY_LEN(routes), &api.http);
    (void)snprintf(
        url, sizeof url, "http://127.0.0.1:%u/v1/changes", (unsigned)http_server_port(server));
    changes_start(&api);
}

static void end(void)
{
    http_client_destroy(client);
    http_server_close(server);
    api_end();
}

/* ---- the story ---- */

static void stop(void)
{
    changes_stop(&api);
}

/* A question that is not answered ends the test: nobody would wait that long. */
START_TEST(test_control_that_stops_holds_no_gateway)
{
    begin();
    ask(0);
    uint64_t next = next_of_answer();
    when_asked = stop; /* while it waits */
    ask(next);
    ck_assert_uint_eq(next_of_answer(), next);
    when_asked = NULL;
    ask(next);
    ck_assert_uint_eq(call.status, 503); /* not 200, after which it asks again at once */
    http_call_deinit(&call);
    ck_assert_uint_eq(asked, 3);
    end();
}
END_TEST

UNIT_MAIN("api_changes", test_control_that_stops_holds_no_gateway);
