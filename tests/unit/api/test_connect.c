/* Who waits for a compute: nobody looks at it until something has changed, or the time is up. */
#include "tests/unit/api/api_fixture.h"

#include "common/io/http_client.h"
#include "common/io/http_server.h"

#define CLIENTS 3

static char url[128];
static struct http_server *server;
static struct http_client *client;
static struct http_call calls[CLIENTS];
static unsigned waiting, asked, answered;
static bool is_told;
static struct nodes_user hearing;
static struct timer timer;
static void (*when_waiting)(void), (*when_time)(void);

/* ---- control, and the agent in the same server ---- */

static void post_connect(struct http_context *context, struct http_request *request)
{
    handle_post_connect(context, request);
    if (++waiting == CLIENTS && when_waiting != NULL) {
        when_waiting();
    }
}

static void post_verifier(struct http_context *context, struct http_request *request)
{
    (void)context;
    asked++;
    http_respond_json(request, 200, doc_set_str(doc_object(), "verifier", "SCRAM"));
}

static const struct http_route routes[] = {
    HTTP_ROUTE("POST", "/v1/connect", post_connect, "", true),
    HTTP_ROUTE("POST", "/v1/computes/{id}/verifier", post_verifier, "", true)};

static void on_answer(struct http_call *unused)
{
    (void)unused;
    if (++answered == CLIENTS) {
        loop_stop(api.loop);
    }
}

static void on_time(struct timer *unused)
{
    (void)unused;
    when_time();
}

/* All clients ask at once, and all are answered. */
static void connect_for(uint64_t wait_ms)
{
    char body[128];
    (void)snprintf(
        body, sizeof body, "{\"name\": \"ep\", \"role\": \"r\", \"wait_ms\": %" PRIu64 "}",
        wait_ms);
    for (size_t i = 0; i < CLIENTS; i++) {
        calls[i] = (struct http_call){
            .method = "POST",
            .url = url,
            .body = bytes_of(body, strlen(body)),
            .timeout_ms = 60000,
            .done = on_answer};
        http_call_start(client, &calls[i]);
    }
    loop_run(api.loop);
}

static void expect_all(unsigned status, const char *text)
{
    for (size_t i = 0; i < CLIENTS; i++) {
        ck_assert_ok(calls[i].result, &calls[i].msg);
        ck_assert_uint_eq(calls[i].status, status);
        ck_assert_ptr_nonnull(strstr(buf_cstr(&calls[i].response), text));
        http_call_deinit(&calls[i]);
    }
}

static void on_done(struct mutation_then *then, err_t result, const struct errmsg *why)
{
    (void)then;
    ck_assert_ok(result, why);
    loop_stop(api.loop);
}

static err_t decide_endpoint(struct mutation *mutation, struct errmsg *why)
{
    (void)why;
    struct project_row project = {.id = "p", .name = "p", .tenant = name_tenant()};
    struct branch_row branch = {
        .id = "br",
        .name = "b",
        .project_id = "p",
        .timeline = name_timeline(),
        .state = BRANCH_READY};
    struct endpoint_row endpoint = {
        .id = "ep", .project_id = "p", .branch_id = "br", .wanted = ENDPOINT_ACTIVE, .agent = 1};
    mutation_put(mutation, ROW_PROJECT, &project);
    mutation_put(mutation, ROW_BRANCH, &branch);
    mutation_put(mutation, ROW_ENDPOINT, &endpoint);
    return ERR_OK;
}

static void begin(void)
{
    struct nodes_options only_one = {.safekeepers = "", .pageservers = "", .token = ""};
    struct mutation_then then = {.done = on_done};
    char agents[64];
    api_begin();
    ck_assert_ok(http_client_create(api.loop, &client, &msg), &msg);
    ck_assert_ok(
        http_server_open(api.loop, "127.0.0.1", 0, &(struct http_options){0}, &server, &msg), &msg);
    http_server_add_routes(server, routes, ARRAY_LEN(routes), &api.http);
    (void)snprintf(agents, sizeof agents, "1@127.0.0.1:%u", (unsigned)http_server_port(server));
    (void)snprintf(
        url, sizeof url, "http://127.0.0.1:%u/v1/connect", (unsigned)http_server_port(server));
    only_one.agents = agents;
    ck_assert_ok(nodes_create(api.loop, client, &only_one, &hearing, &api.nodes, &msg), &msg);
    mutation_submit(mutation_of_our_own(&api, decide_endpoint, &then));
    loop_run(api.loop);
    timer.on_fire = on_time;
}

static void end(void)
{
    timer_stop(&timer);
    http_client_destroy(client);
    http_server_close(server);
    nodes_destroy(api.nodes);
    api_end();
}

static struct endpoint *endpoint_now(void)
{
    return model_endpoint(api.model, "ep");
}

/* ---- the stories ---- */

static void tell(void)
{
    is_told = true;
    ck_assert_uint_eq(asked, 0);
    endpoint_changed(endpoint_now());
}

static void run_and_tell_later(void)
{
    endpoint_now()->seen = COMPUTE_RUNNING;
    when_time = tell;
    timer_start(api.loop, &timer, 20);
}

/* They look once when they come, and what comes first then is told to nobody. */
static void wait_a_turn(void)
{
    when_time = run_and_tell_later;
    timer_start(api.loop, &timer, 1);
}

START_TEST(test_who_waits_looks_when_it_is_told)
{
    begin();
    when_waiting = wait_a_turn;
    connect_for(50000);
    ck_assert(is_told); /* and nobody has looked before */
    expect_all(200, "\"verifier\":\"SCRAM\"");
    ck_assert_uint_eq(asked, CLIENTS);
    end();
}
END_TEST

START_TEST(test_a_wait_ends_with_its_time_and_says_why)
{
    begin();
    (void)snprintf(endpoint_now()->seen_error, sizeof(row_long_t), "no room on the host");
    connect_for(1);
    expect_all(503, "did not come up in time: no room on the host");
    end();
}
END_TEST

static void suspend(void)
{
    endpoint_now()->row.wanted = ENDPOINT_IDLE;
    endpoint_changed(endpoint_now());
}

static void suspend_soon(void)
{
    when_time = suspend;
    timer_start(api.loop, &timer, 1);
}

START_TEST(test_who_waits_hears_that_it_is_suspended)
{
    begin();
    when_waiting = suspend_soon;
    connect_for(50000);
    expect_all(503, "ENDPOINT_SUSPENDED");
    end();
}
END_TEST

static void take_away(void)
{
    model_remove(api.model, ROW_ENDPOINT, "ep");
}

static void take_away_soon(void)
{
    when_time = take_away;
    timer_start(api.loop, &timer, 1);
}

START_TEST(test_what_goes_without_a_word_is_missed_when_the_time_is_up)
{
    begin();
    when_waiting = take_away_soon;
    connect_for(50);
    expect_all(404, "ENDPOINT_NOT_FOUND");
    end();
}
END_TEST

UNIT_MAIN(
    "api_connect",
    test_who_waits_looks_when_it_is_told,
    test_a_wait_ends_with_its_time_and_says_why,
    test_who_waits_hears_that_it_is_suspended,
    test_what_goes_without_a_word_is_missed_when_the_time_is_up);
