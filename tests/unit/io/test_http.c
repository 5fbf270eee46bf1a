/* The HTTP server and client against each other. */
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/mem.h"
#include "common/io/executor.h"
#include "common/io/file.h"
#include "common/io/http_client.h"
#include "common/io/http_server.h"
#include "common/io/timer.h"
#include "tests/unit/unit.h"

static struct loop *loop;
static struct http_server *server;
static struct http_client *client;
static struct errmsg msg;
static struct http_context context;
static struct http_request *waiting[64];
static size_t waiting_count;
static int calls_left;

static void get_timeline(struct http_context *given, struct http_request *request)
{
    ck_assert_ptr_eq(given, &context);
    struct doc *body = doc_object();
    (void)doc_set_str(body, "tenant", http_request_param(request, "tenant"));
    (void)doc_set_str(body, "timeline", http_request_param(request, "timeline"));
    (void)doc_set_str(body, "at", http_request_query(request, "at"));
    (void)doc_set_str(body, "of", http_request_query_list(request, "of"));
    (void)doc_set_str(body, "header", http_request_header(request, "X-Test"));
    http_respond_json(request, 200, body);
}

static void put_timeline(struct http_context *given, struct http_request *request)
{
    (void)given;
    struct doc *body = NULL;
    lsn_t lsn = 0;
    err_t err = http_request_json(request, &body, &msg);
    if (err == ERR_OK) {
        err = doc_get_lsn(body, "start_lsn", &lsn, &msg);
    }
    if (err != ERR_OK) {
        http_respond_error(request, err, &msg);
        return;
    }
    http_response_header(request, "X-Lsn", "evil\r\nX-Injected: 1");
    http_respond_json(request, 201, doc_set_lsn(doc_object(), "start_lsn", lsn));
}

static void post_echo(struct http_context *given, struct http_request *request)
{
    (void)given;
    http_respond_bytes(request, 200, "application/octet-stream", http_request_body(request));
}

static void get_later(struct http_context *given, struct http_request *request)
{
    (void)given;
    waiting[waiting_count++] = request;
    if (waiting_count == 3) {
        for (size_t i = 3; i > 0; i--) {
            http_respond_json(waiting[i - 1], 200, doc_object());
        }
    }
}

static void get_never(struct http_context *given, struct http_request *request)
{
    (void)given;
    waiting[waiting_count++] = request;
    loop_stop(loop);
}

static void get_healthz(struct http_context *given, struct http_request *request)
{
    (void)given;
    http_respond_json(request, 200, doc_object());
}

static void get_empty(struct http_context *given, struct http_request *request)
{
    (void)given;
    http_respond_bytes(request, 200, "application/json", (struct bytes){0});
}

/* As long as the caller waits, and no longer than 20 seconds. */
static void post_shaped(struct http_context *given, struct http_request *request)
{
    (void)given;
    struct doc *doc = doc_object();
    doc_set_int(doc, "timeout_ms", (int64_t)http_request_timeout_ms(request, 20000));
    http_respond_json(request, 200, doc);
}

static const struct http_route routes[] = {
    {.method = "POST",
     .path = "/v1/shaped",
     .handler = post_shaped,
     .help = "Only what has its shape.",
     .query = "from! to",
     .body = "generation:u64! name:str"},
    HTTP_ROUTE(
        "GET", "/v1/tenants/{tenant}/timelines/{timeline}", get_timeline, "One timeline.", false),
    HTTP_ROUTE(
        "PUT", "/v1/tenants/{tenant}/timelines/{timeline}", put_timeline, "Create it.", false),
    HTTP_ROUTE("POST", "/v1/echo", post_echo, "The body again.", false),
    HTTP_ROUTE("GET", "/v1/later", get_later, "Answers when three wait.", false),
    HTTP_ROUTE("GET", "/v1/never", get_never, "Never answers.", false),
    HTTP_ROUTE("GET", "/v1/empty", get_empty, "Nothing.", false),
    HTTP_ROUTE("GET", "/healthz", get_healthz, "Open.", true),
};

static void open_all(const struct http_options *options)
{
    ck_assert_ok(loop_create(&loop, &msg), &msg);
    ck_assert_ok(http_server_open(loop, "127.0.0.1", 0, options, &server, &msg), &msg);
    http_server_add_routes(server, routes, ARRAY_LEN(routes), &context);
    ck_assert_ok(http_client_create(loop, &client, &msg), &msg);
}

static void close_all(void)
{
    http_client_destroy(client);
    http_server_close(server);
    loop_destroy(loop);
}

static void on_done(struct http_call *call)
{
    (void)call;
    if (--calls_left == 0) {
        loop_stop(loop);
    }
}

static char url[8][300];
static unsigned url_count;

static void begin_call_for(
    struct http_call *call, const char *method, const char *path, uint64_t timeout_ms)
{
    char *text = url[url_count++ % ARRAY_LEN(url)];
    (void)snprintf(text, sizeof(url[0]), "http://127.0.0.1:%u%s", http_server_port(server), path);
    call->method = method;
    call->url = text;
    call->timeout_ms = timeout_ms;
    call->done = on_done;
    calls_left++;
    http_call_start(client, call);
    ck_assert_int_gt(calls_left, 0); /* done is never called from inside start */
}

static void begin_call(struct http_call *call, const char *method, const char *path)
{
    begin_call_for(call, method, path, 10000);
}

static struct doc *run_call(
    struct http_call *call, const char *method, const char *path, const char *body, unsigned status)
{
    call->body = body != NULL ? bytes_of_str(body) : (struct bytes){0};
    begin_call(call, method, path);
    loop_run(loop);
    ck_assert_msg(call->result == ERR_OK, "%s", call->msg.text);
    ck_assert_uint_eq(call->status, status);
    struct doc *answer = NULL;
    ck_assert_ok(doc_parse(buf_view(&call->response), &answer, &msg), &msg);
    return answer;
}

static void expect_member(const struct doc *doc, const char *key, const char *value)
{
    const char *text = NULL;
    ck_assert_ok(doc_get_str(doc, key, &text, &msg), &msg);
    ck_assert_str_eq(text, value);
}

static void expect_refusal(const char *path, const char *body, const char *why)
{
    struct http_call call = {0};
    struct doc *answer = run_call(&call, "POST", path, body, 400);
    const char *message = doc_value_str(doc_get(answer, "message"));
    ck_assert_msg(strstr(message, why) != NULL, "%s", message);
    expect_member(answer, "code", "ERR_INVALID");
    doc_unref(answer);
    http_call_deinit(&call);
}

START_TEST(test_request_without_its_shape_does_not_reach_the_handler)
{
    open_all(NULL);
    expect_refusal("/v1/shaped", "{\"generation\": 1}", "query parameter from is missing");
    expect_refusal("/v1/shaped?from=a", "{}", "generation: missing");
    expect_refusal("/v1/shaped?from=a", NULL, "generation: missing");
    expect_refusal("/v1/shaped?from=a", "{\"generation\": \"1\"}", "generation: expected");
    expect_refusal("/v1/shaped?from=a", "{\"generation\": 1, \"name\": 2}", "name: expected");
    expect_refusal("/v1/shaped?from=a", "[1]", "expected a JSON object");
    struct http_call call = {0};
    doc_unref(run_call(
        &call, "POST", "/v1/shaped?from=a", "{\"generation\": 1, \"of_tomorrow\": []}", 200));
    http_call_deinit(&call);
    close_all();
}
END_TEST

START_TEST(test_server_knows_how_long_its_caller_waits)
{
    static const uint64_t waits[][2] = {{10000, 10000}, {60000, 20000}};
    open_all(NULL);
    for (size_t i = 0; i < ARRAY_LEN(waits); i++) {
        struct http_call call = {.body = bytes_of_str("{\"generation\": 1}")};
        begin_call_for(&call, "POST", "/v1/shaped?from=a", waits[i][0]);
        loop_run(loop);
        struct doc *answer = NULL;
        uint64_t timeout_ms = 0;
        ck_assert_ok(http_call_json(&call, &answer, &msg), &msg);
        ck_assert_ok(doc_get_u64(answer, "timeout_ms", &timeout_ms, &msg), &msg);
        ck_assert_uint_eq(timeout_ms, waits[i][1]);
        doc_unref(answer);
        http_call_deinit(&call);
    }
    close_all();
}
END_TEST

START_TEST(test_path_and_query_parameters_are_decoded)
{
    open_all(NULL);
    struct http_call call = {0};
    struct doc *answer = run_call(
        &call, "GET", "/v1/tenants/a%2Fb/timelines/x%20y?at=2026-11-22T10%3A00%3A00%2B02%3A00",
        NULL, 200);
    expect_member(answer, "tenant", "a/b");
    expect_member(answer, "timeline", "x y");
    expect_member(answer, "at", "2026-11-22T10:00:00+02:00");
    doc_unref(answer);
    http_call_deinit(&call);
    close_all();
}
END_TEST

START_TEST(test_arguments_that_come_again_are_one_list)
{
    open_all(NULL);
    struct http_call call = {0};
    struct doc *answer = run_call(
        &call, "GET", "/v1/tenants/a/timelines/b?of=x&at=1&of=y%2Cz&of=&office=no&of=%20", NULL,
        200);
    expect_member(answer, "of", "x,y,z, ");
    doc_unref(answer);
    http_call_deinit(&call);
    close_all();
}
END_TEST

START_TEST(test_json_body_and_its_errors)
{
    open_all(NULL);
    struct http_call call = {0};
    struct doc *answer =
        run_call(&call, "PUT", "/v1/tenants/a/timelines/b", "{\"start_lsn\":\"0/16B3748\"}", 201);
    expect_member(answer, "start_lsn", "0/16B3748");
    doc_unref(answer);
    answer = run_call(&call, "PUT", "/v1/tenants/a/timelines/b", "{\"start_lsn\":7}", 400);
    expect_member(answer, "message", "start_lsn: expected a string");
    expect_member(answer, "code", "ERR_INVALID");
    doc_unref(answer);
    answer = run_call(&call, "PUT", "/v1/tenants/a/timelines/b", "{\"start_lsn\":", 400);
    const char *text = NULL;
    ck_assert_ok(doc_get_str(answer, "message", &text, &msg), &msg);
    ck_assert_ptr_nonnull(strstr(text, "request body: not JSON: line 1"));
    ck_assert_ok(doc_get_str(answer, "request_id", &text, &msg), &msg);
    doc_unref(answer);
    answer = run_call(&call, "PUT", "/v1/tenants/a/timelines/b", "[1]", 400);
    expect_member(answer, "message", "request body: expected a JSON object");
    doc_unref(answer);
    http_call_deinit(&call);
    close_all();
}
END_TEST

START_TEST(test_unknown_path_and_method_say_what_there_is)
{
    open_all(NULL);
    struct http_call call = {0};
    struct doc *answer = run_call(&call, "GET", "/v1/nothing", NULL, 404);
    expect_member(answer, "code", "ERR_NOT_FOUND");
    doc_unref(answer);
    answer = run_call(&call, "PATCH", "/v1/tenants/a/timelines/b", "{}", 405);
    const char *text = NULL;
    ck_assert_ok(doc_get_str(answer, "message", &text, &msg), &msg);
    ck_assert_ptr_nonnull(strstr(text, "GET, PUT"));
    doc_unref(answer);
    answer = run_call(&call, "GET", "/", NULL, 200);
    ck_assert_uint_eq(doc_count(doc_get(answer, "routes")), ARRAY_LEN(routes));
    doc_unref(answer);
    http_call_deinit(&call);
    close_all();
}
END_TEST

START_TEST(test_token_is_wanted_except_on_open_routes)
{
    struct http_options options = {.token = "river"};
    open_all(&options);
    struct http_call call = {0};
    struct doc *answer = run_call(&call, "GET", "/v1/tenants/a/timelines/b", NULL, 401);
    doc_unref(answer);
    call.token = "rive";
    answer = run_call(&call, "GET", "/v1/tenants/a/timelines/b", NULL, 401);
    ck_assert_ptr_null(strstr(buf_cstr(&call.response), "rive"));
    doc_unref(answer);
    call.token = "river";
    answer = run_call(&call, "GET", "/v1/tenants/a/timelines/b", NULL, 200);
    doc_unref(answer);
    call.token = NULL;
    answer = run_call(&call, "GET", "/healthz", NULL, 200);
    doc_unref(answer);
    http_call_deinit(&call);
    close_all();
}
END_TEST

START_TEST(test_answers_may_come_later_and_in_any_order)
{
    open_all(NULL);
    struct http_call calls[3] = {0};
    for (size_t i = 0; i < 3; i++) {
        begin_call(&calls[i], "GET", "/v1/later");
    }
    loop_run(loop);
    for (size_t i = 0; i < 3; i++) {
        ck_assert_uint_eq(calls[i].status, 200);
        http_call_deinit(&calls[i]);
    }
    close_all();
}
END_TEST

START_TEST(test_large_body_travels_and_too_large_is_413)
{
    open_all(NULL);
    struct buf big = {0};
    memset(buf_extend(&big, 8 * MIB), 'x', 8 * MIB);
    struct http_call call = {.body = buf_view(&big)};
    begin_call(&call, "POST", "/v1/echo");
    loop_run(loop);
    ck_assert_uint_eq(call.status, 200);
    ck_assert(bytes_equal(buf_view(&call.response), buf_view(&big)));
    buf_append(&big, "y", 1);
    call.body = buf_view(&big);
    begin_call(&call, "POST", "/v1/echo");
    loop_run(loop);
    ck_assert_uint_eq(call.status, 413);
    http_call_deinit(&call);
    buf_deinit(&big);
    close_all();
}
END_TEST

START_TEST(test_answer_over_the_limit_is_refused_by_the_client)
{
    open_all(NULL);
    struct buf big = {0};
    memset(buf_extend(&big, 100000), 'x', 100000);
    struct http_call call = {.body = buf_view(&big), .response_max = 50000};
    begin_call(&call, "POST", "/v1/echo");
    loop_run(loop);
    ck_assert_int_eq(call.result, ERR_FULL);
    http_call_deinit(&call);
    buf_deinit(&big);
    close_all();
}
END_TEST

START_TEST(test_body_is_saved_to_a_file_only_on_success)
{
    open_all(NULL);
    char path[UNIT_FOLDER_SIZE];
    int fd = unit_file(path, sizeof(path), "anabranch-http");
    (void)close(fd);
    ck_assert_ok(file_remove(path, &msg), &msg);
    struct http_call call = {.save_path = path};
    begin_call(&call, "GET", "/v1/nothing");
    loop_run(loop);
    ck_assert_uint_eq(call.status, 404);
    ck_assert(!file_exists(path));
    ck_assert_uint_gt(call.response.size, 0);
    call.body = bytes_of_str("a base backup");
    begin_call(&call, "POST", "/v1/echo");
    loop_run(loop);
    ck_assert_uint_eq(call.status, 200);
    struct buf data = {0};
    ck_assert_ok(file_read_all(path, KIB, &data, &msg), &msg);
    ck_assert(bytes_equal(buf_view(&data), call.body));
    buf_deinit(&data);
    ck_assert_ok(file_remove(path, &msg), &msg);
    call.save_path = "/tmp/anabranch-no-such-folder/backup.tar";
    begin_call(&call, "POST", "/v1/echo");
    loop_run(loop);
    ck_assert_int_eq(call.result, ERR_NOT_FOUND); /* what went wrong with the file, not just that */
    http_call_deinit(&call);
    close_all();
}
END_TEST

START_TEST(test_no_server_is_an_error_and_not_a_status)
{
    open_all(NULL);
    struct http_call call = {
        .method = "GET", .url = "http://127.0.0.1:1/", .timeout_ms = 2000, .done = on_done};
    calls_left = 1;
    http_call_start(client, &call);
    loop_run(loop);
    ck_assert_int_eq(call.result, ERR_IO);
    ck_assert_uint_eq(call.status, 0);
    struct doc *body = NULL;
    ck_assert_int_eq(http_call_json(&call, &body, &msg), ERR_IO);
    call.url = "ftp://127.0.0.1/";
    calls_left = 1;
    http_call_start(client, &call);
    ck_assert_int_eq(calls_left, 1);
    loop_run(loop);
    ck_assert_int_eq(call.result, ERR_INVALID);
    http_call_deinit(&call);
    close_all();
}
END_TEST

static void cancel_soon(struct timer *timer);
static struct http_call cancelable;
static struct timer cancel_timer = {.on_fire = cancel_soon};

static void cancel_soon(struct timer *timer)
{
    (void)timer;
    http_call_cancel(&cancelable);
    http_call_cancel(&cancelable); /* twice is once */
    ck_assert_int_eq(calls_left, 1);
}

START_TEST(test_canceled_call_is_done_once_as_canceled)
{
    open_all(NULL);
    begin_call(&cancelable, "GET", "/v1/later"); /* the only one: waits for ever */
    timer_start(loop, &cancel_timer, 5);
    loop_run(loop);
    ck_assert_int_eq(cancelable.result, ERR_CANCELED);
    ck_assert_int_eq(calls_left, 0);
    http_call_deinit(&cancelable);
    close_all();
}
END_TEST

START_TEST(test_call_times_out)
{
    open_all(NULL);
    struct http_call call = {0};
    begin_call(&call, "GET", "/v1/later");
    http_call_cancel(&call);
    loop_run(loop);
    call.method = "GET";
    call.timeout_ms = 30;
    calls_left = 1;
    http_call_start(client, &call);
    loop_run(loop);
    ck_assert_int_eq(call.result, ERR_TIMEOUT);
    http_call_deinit(&call);
    close_all();
}
END_TEST

START_TEST(test_closing_server_answers_503_and_outlives_its_handlers)
{
    open_all(NULL);
    struct http_call call = {0};
    begin_call(&call, "GET", "/v1/never");
    loop_run(loop);
    ck_assert_uint_eq(waiting_count, 1);
    http_server_close(server);
    loop_run(loop);
    ck_assert_uint_eq(call.status, 503);
    http_respond_json(waiting[0], 200, doc_object()); /* nobody hears it; nothing breaks */
    http_call_deinit(&call);
    http_client_destroy(client);
    loop_destroy(loop);
}
END_TEST

START_TEST(test_problem_body_becomes_the_error_that_it_was)
{
    struct http_call call = {.status = 409, .method = "PUT", .url = "http://x/"};
    struct doc *body = NULL;
    buf_printf(
        &call.response, "{\"code\":\"ERR_STALE\",\"message\":\"generation 3 is older than 4\"}");
    ck_assert_int_eq(http_call_json(&call, &body, &msg), ERR_STALE);
    ck_assert_str_eq(msg.text, "generation 3 is older than 4");
    buf_clear(&call.response);
    buf_printf(&call.response, "<html>");
    ck_assert_int_eq(http_call_json(&call, &body, &msg), ERR_EXISTS);
    ck_assert_ptr_nonnull(strstr(msg.text, "409"));
    buf_clear(&call.response);
    call.status = 204;
    ck_assert_ok(http_call_json(&call, &body, &msg), &msg);
    ck_assert(doc_is_object(body));
    doc_unref(body);
    http_call_deinit(&call);
}
END_TEST

START_TEST(test_port_in_use_is_a_clear_error)
{
    open_all(NULL);
    struct http_server *second = NULL;
    ck_assert_int_ne(
        http_server_open(loop, "127.0.0.1", http_server_port(server), NULL, &second, &msg), ERR_OK);
    ck_assert_ptr_nonnull(strstr(msg.text, "Address already in use"));
    close_all();
}
END_TEST

START_TEST(test_empty_answer_is_an_empty_object)
{
    open_all(NULL);
    struct http_call call = {0};
    begin_call(&call, "GET", "/v1/empty");
    loop_run(loop);
    struct doc *body = NULL;
    ck_assert_ok(http_call_json(&call, &body, &msg), &msg);
    ck_assert(doc_is_object(body));
    doc_unref(body);
    http_call_deinit(&call);
    close_all();
}
END_TEST

/* A blocking client beside the loop: sends, closes its side, reads to the end. */
struct half_closer {
    struct job job;
    char answer[4096];
};

static err_t run_half_closer(struct job *job)
{
    struct half_closer *closer = CONTAINER_OF(job, struct half_closer, job);
    static const char request[] = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    struct sockaddr_in to = {
        .sin_family = AF_INET,
        .sin_port = htons(http_server_port(server)),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    const struct timeval limit = {.tv_sec = 20};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    ssize_t got = -1;
    size_t size = 0;
    if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) == 0 &&
        connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0 &&
        send(fd, request, strlen(request), MSG_MORE) > 0 && shutdown(fd, SHUT_WR) == 0) {
        do {
            got = recv(fd, closer->answer + size, sizeof(closer->answer) - 1 - size, 0);
            size += got > 0 ? (size_t)got : 0;
        } while (got > 0);
    }
    (void)close(fd);
    return got == 0 ? ERR_OK : err_set(&job->msg, ERR_TIMEOUT, "not closed: %m");
}

static void done_half_closer(struct job *job)
{
    (void)job;
    loop_stop(loop);
}

START_TEST(test_half_closed_connection_is_answered_and_closed)
{
    open_all(NULL);
    struct executor *executor = NULL;
    ck_assert_ok(executor_create(loop, 1, &executor, &msg), &msg);
    struct half_closer closer = {.job = {.run = run_half_closer, .done = done_half_closer}};
    executor_submit(executor, &closer.job);
    loop_run(loop);
    ck_assert_ok(closer.job.result, &closer.job.msg);
    ck_assert_ptr_nonnull(strstr(closer.answer, "200 OK"));
    executor_destroy(executor);
    close_all();
}
END_TEST

UNIT_MAIN(
    "http",
    test_path_and_query_parameters_are_decoded,
    test_arguments_that_come_again_are_one_list,
    test_request_without_its_shape_does_not_reach_the_handler,
    test_server_knows_how_long_its_caller_waits,
    test_json_body_and_its_errors,
    test_unknown_path_and_method_say_what_there_is,
    test_token_is_wanted_except_on_open_routes,
    test_answers_may_come_later_and_in_any_order,
    test_large_body_travels_and_too_large_is_413,
    test_answer_over_the_limit_is_refused_by_the_client,
    test_body_is_saved_to_a_file_only_on_success,
    test_no_server_is_an_error_and_not_a_status,
    test_canceled_call_is_done_once_as_canceled,
    test_call_times_out,
    test_closing_server_answers_503_and_outlives_its_handlers,
    test_problem_body_becomes_the_error_that_it_was,
    test_port_in_use_is_a_clear_error,
    test_empty_answer_is_an_empty_object,
    test_half_closed_connection_is_answered_and_closed);
