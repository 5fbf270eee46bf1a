/* Who waits for a compute: nobody looks at it until something has changed, or the time is up. */
#include "tests/unit/api/agent_fixture.h"

#define CLIENTS 3

static char url[128];
static struct http_call calls[CLIENTS];
static unsigned waiting, asked, answered;
static bool is_told;
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

static void begin(void)
{
    agent_begin(routes, ARRAY_LEN(routes));
    (void)snprintf(url, sizeof url, "%s/v1/connect", base_url);
    timer.on_fire = on_time;
}

static void end(void)
{
    timer_stop(&timer);
    agent_end();
}

/* ---- the stories ---- */

static void tell(void)
{
    is_told = true;
    ck_assert_uint_eq(asked, 0);
    endpoint_changed(the_endpoint());
}

static void run_and_tell_later(void)
{
    the_endpoint()->seen = COMPUTE_RUNNING;
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
    (void)snprintf(the_endpoint()->seen_error, sizeof(row_long_t), "no room on the host");
    connect_for(1);
    expect_all(503, "did not come up in time: no room on the host");
    end();
}
END_TEST

static void suspend(void)
{
    the_endpoint()->row.wanted = ENDPOINT_IDLE;
    endpoint_changed(the_endpoint());
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
    connect_for(500);
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
