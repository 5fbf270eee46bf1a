/* What a gateway remembers of control's answers, and what it does not. */
#include "control/gateway/route_private.h"

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

#define HELD_MAX 2000

/* Questions about endpoints that sleep: "sleeping..." is answered when the test says so. */
static struct http_request *held[HELD_MAX];
static unsigned held_count;

static void answer_as(struct http_request *request, const char *name);

static void post_connect(struct http_context *unused, struct http_request *request)
{
    (void)unused;
    struct doc *body = NULL;
    const char *name = "";
    asked++;
    ck_assert_ok(http_request_json(request, &body, &msg), &msg);
    ck_assert_ok(doc_get_str(body, "name", &name, &msg), &msg);
    if (strncmp(name, "sleeping", strlen("sleeping")) == 0) {
        ck_assert_uint_lt(held_count, HELD_MAX);
        held[held_count++] = request;
        return;
    }
    answer_as(request, name);
}

static void answer_as(struct http_request *request, const char *name)
{
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
    held_count = asked = 0;
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

/* ---- many at once ---- */

#define CROWD 100

static struct route_ask crowd[CROWD], many[ROUTE_ASKS_MAX + 40];
static unsigned done_count;

static void on_one_done(struct route_ask *unused)
{
    (void)unused;
    done_count++;
}

static void begin_ask(struct route_ask *one, const char *name, unsigned role)
{
    *one = (struct route_ask){.done = on_one_done, .client = "127.0.0.1"};
    (void)snprintf(one->address.name, sizeof one->address.name, "%s", name);
    (void)snprintf(one->role, sizeof one->role, "role%u", role);
    route_ask_start(routes, one);
}

static struct timer watch;
static bool (*awaited)(void);

static void on_watch(struct timer *timer)
{
    if (awaited()) {
        loop_stop(loop);
    } else {
        timer_start(loop, timer, 1);
    }
}

static void run_until(bool (*condition)(void))
{
    awaited = condition;
    watch.on_fire = on_watch;
    timer_start(loop, &watch, 0);
    loop_run(loop);
}

static bool one_is_held(void)
{
    return held_count == 1;
}

static bool a_share_is_held(void)
{
    return held_count == ROUTE_ASKS_OF_ONE_MAX;
}

static bool control_has_enough(void)
{
    return held_count == ROUTE_ASKS_MAX;
}

static bool one_is_done(void)
{
    return done_count == 1;
}

static bool all_are_done(void)
{
    return done_count == CROWD;
}

static void answer_held(void)
{
    unsigned count = held_count;
    held_count = 0;
    for (unsigned i = 0; i < count; i++) {
        answer_as(held[i], "sleeping-a");
    }
}

/* A crowd that wakes an endpoint asks once. */
START_TEST(test_who_asks_the_same_gets_the_same_answer)
{
    begin();
    for (unsigned i = 0; i < CROWD; i++) {
        begin_ask(&crowd[i], "sleeping-a", 0);
    }
    run_until(one_is_held);
    answer_held();
    run_until(all_are_done);
    ck_assert_uint_eq(asked, 1);
    for (unsigned i = 0; i < CROWD; i++) {
        ck_assert_ok(crowd[i].result, &crowd[i].msg);
        ck_assert_str_eq(crowd[i].route.endpoint_id, "sleeping-a");
    }
    end();
}
END_TEST

/* The others do not lose their answer with the client that came first. */
START_TEST(test_another_one_asks_when_the_first_has_gone)
{
    begin();
    for (unsigned i = 0; i < CROWD; i++) {
        begin_ask(&crowd[i], "sleeping-a", 0);
    }
    run_until(one_is_held);
    struct http_request *of_nobody = held[0];
    route_ask_cancel(&crowd[0]);
    route_ask_cancel(&crowd[7]);
    held_count = 0;
    run_until(one_is_held);
    ck_assert_int_eq(crowd[0].result, ERR_CANCELED);
    ck_assert_int_eq(crowd[7].result, ERR_CANCELED);
    answer_held();
    run_until(all_are_done);
    ck_assert_uint_eq(asked, 2);
    ck_assert_ok(crowd[1].result, &crowd[1].msg);
    ck_assert_ok(crowd[CROWD - 1].result, &crowd[CROWD - 1].msg);
    answer_as(of_nobody, "sleeping-a");
    end();
}
END_TEST

static bool two_are_held(void)
{
    return held_count == 2;
}

static bool two_are_done(void)
{
    return done_count == 2;
}

/* An answer that may be older than a change that is known is nobody's who asks after it. */
START_TEST(test_who_asks_after_a_change_asks_anew)
{
    begin();
    begin_ask(&crowd[0], "sleeping-a", 0);
    run_until(one_is_held);
    routes_forget_endpoint(routes, "sleeping-a");
    begin_ask(&crowd[1], "sleeping-a", 0);
    run_until(two_are_held);
    answer_held();
    run_until(two_are_done);
    ck_assert_uint_eq(asked, 2);
    end();
}
END_TEST

static bool answers_until_all_are_done(void)
{
    ck_assert_uint_le(held_count, ROUTE_ASKS_OF_ONE_MAX);
    answer_held();
    return all_are_done();
}

/* One that never comes up takes no more of control than its share; others are answered. */
START_TEST(test_questions_about_one_name_have_a_share_of_control)
{
    begin();
    for (unsigned i = 0; i < CROWD - 1; i++) {
        begin_ask(&crowd[i], "sleeping-a", i);
    }
    run_until(a_share_is_held);
    begin_ask(&crowd[CROWD - 1], "ep-b", 0);
    run_until(one_is_done);
    ck_assert_ok(crowd[CROWD - 1].result, &crowd[CROWD - 1].msg);
    ck_assert_uint_eq(held_count, ROUTE_ASKS_OF_ONE_MAX);
    route_ask_cancel(&crowd[CROWD - 2]); /* one that waits for its turn */
    run_until(answers_until_all_are_done);
    ck_assert_int_eq(crowd[CROWD - 2].result, ERR_CANCELED);
    ck_assert_ok(crowd[CROWD - 3].result, &crowd[CROWD - 3].msg);
    ck_assert_uint_eq(asked, CROWD - 1); /* all but the canceled one */
    end();
}
END_TEST

static unsigned turn_of_last; /* how many were done when the last name had its first answer */

static bool answers_one_until_the_last_name_has_its_turn(void)
{
    if (held_count > 0) {
        answer_as(held[--held_count], "sleeping-a");
    }
    turn_of_last = done_count;
    return many[ARRAY_LEN(many) - 1].route.port != 0;
}

static bool answers_until_many_are_done(void)
{
    answer_held();
    return done_count == ARRAY_LEN(many);
}

/* Who comes last waits for a place, not for all that others have waiting. */
START_TEST(test_names_take_turns_when_control_has_enough)
{
    char name[32];
    begin();
    for (unsigned i = 0; i < ARRAY_LEN(many); i++) {
        bool is_last = i == ARRAY_LEN(many) - 1;
        (void)snprintf(name, sizeof name, "sleeping-%u", is_last ? 1000 : i / 20);
        begin_ask(&many[i], name, i);
    }
    run_until(control_has_enough);
    run_until(answers_one_until_the_last_name_has_its_turn);
    ck_assert_uint_lt(turn_of_last, 30);
    run_until(answers_until_many_are_done);
    ck_assert_uint_eq(asked, ARRAY_LEN(many));
    end();
}
END_TEST

UNIT_MAIN(
    "gateway_route",
    test_who_asks_the_same_gets_the_same_answer,
    test_another_one_asks_when_the_first_has_gone,
    test_who_asks_after_a_change_asks_anew,
    test_questions_about_one_name_have_a_share_of_control,
    test_names_take_turns_when_control_has_enough,
    test_only_the_endpoint_that_changed_is_forgotten,
    test_answer_under_way_is_remembered_unless_its_endpoint_changed);
