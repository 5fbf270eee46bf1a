/*
 * test_https.c - the HTTP server and client with TLS: who is trusted, what is refused, and that it
 * is the same server behind it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/mem.h"
#include "common/io/file.h"
#include "common/io/http_client.h"
#include "common/io/http_server.h"
#include "common/io/link_private.h"
#include "common/io/tls.h"
#include "tests/unit/unit.h"

static struct loop *loop;
static struct http_server *server;
static struct http_client *client;
static struct http_context context;
static struct http_request *waiting;
static struct errmsg msg;
static char folder[64], certificate[80], key[80], other_certificate[80], other_key[80];

static void post_echo(struct http_context *given, struct http_request *request)
{
    (void)given;
    http_respond_bytes(request, 200, "text/plain", http_request_body(request));
}

/* The first one waits for the second one: its connection is set aside meanwhile. */
static void get_later(struct http_context *given, struct http_request *request)
{
    (void)given;
    if (waiting == NULL) {
        waiting = request;
        return;
    }
    http_respond_json(waiting, 200, doc_object());
    http_respond_json(request, 200, doc_object());
}

static const struct http_route routes[] = {
    HTTP_ROUTE("POST", "/v1/echo", post_echo, "The body again.", false),
    HTTP_ROUTE("GET", "/v1/later", get_later, "Answers when two wait.", false),
};

static void make_certificates(void)
{
    unit_folder(folder, sizeof(folder), "test_https");
    (void)snprintf(certificate, sizeof(certificate), "%s/a.crt", folder);
    (void)snprintf(key, sizeof(key), "%s/a.key", folder);
    (void)snprintf(other_certificate, sizeof(other_certificate), "%s/b.crt", folder);
    (void)snprintf(other_key, sizeof(other_key), "%s/b.key", folder);
    ck_assert_ok(tls_certificate_write("localhost", certificate, key, &msg), &msg);
    ck_assert_ok(tls_certificate_write("localhost", other_certificate, other_key, &msg), &msg);
    ck_assert_ok(loop_create(&loop, &msg), &msg);
}

static err_t open_server(const char *with_certificate, const char *with_key)
{
    struct http_options options = {.tls_certificate = with_certificate, .tls_key = with_key};
    return http_server_open(loop, "127.0.0.1", 0, &options, &server, &msg);
}

static void open_all(void)
{
    make_certificates();
    ck_assert_ok(open_server(certificate, key), &msg);
    http_server_add_routes(server, routes, ARRAY_LEN(routes), &context);
    ck_assert_ok(http_client_create(loop, &client, &msg), &msg);
    http_client_trust(client, certificate);
}

static void close_all(void)
{
    http_client_destroy(client);
    http_server_close(server);
    loop_destroy(loop);
    ck_assert_ok(dir_remove(folder, &msg), &msg);
}

static unsigned calls_left;

static void on_done(struct http_call *call)
{
    (void)call;
    if (--calls_left == 0) {
        loop_stop(loop);
    }
}

static void begin(struct http_call *call, const char *method, const char *base, const char *path)
{
    char url[200];
    (void)snprintf(url, sizeof(url), "%s:%u%s", base, http_server_port(server), path);
    call->method = method;
    call->url = url;
    call->timeout_ms = 10000;
    call->done = on_done;
    calls_left++;
    http_call_start(client, call);
}

static err_t echo(const char *base, struct bytes body)
{
    struct http_call call = {.body = body};
    begin(&call, "POST", base, "/v1/echo");
    loop_run(loop);
    err_t result = call.result;
    msg = call.msg;
    if (result == ERR_OK) {
        ck_assert_uint_eq(call.status, 200);
        ck_assert(bytes_equal(buf_view(&call.response), body));
    }
    http_call_deinit(&call);
    return result;
}

START_TEST(test_bodies_travel_both_ways_and_answers_may_come_later)
{
    struct http_call calls[2] = {0};
    struct buf large = {0};
    open_all();
    ck_assert_ok(echo("https://localhost", bytes_of_str("hello")), &msg);
    memset(buf_extend(&large, 3 * MIB), 'x', 3 * MIB);
    ck_assert_ok(echo("https://localhost", buf_view(&large)), &msg);
    buf_deinit(&large);
    for (unsigned i = 0; i < 2; i++) {
        begin(&calls[i], "GET", "https://localhost", "/v1/later");
    }
    loop_run(loop);
    for (unsigned i = 0; i < 2; i++) {
        ck_assert_ok(calls[i].result, &calls[i].msg);
        ck_assert_uint_eq(calls[i].status, 200);
        http_call_deinit(&calls[i]);
    }
    close_all();
}
END_TEST

START_TEST(test_a_certificate_must_be_signed_by_who_is_trusted_and_of_the_name)
{
    open_all();
    ck_assert_int_eq(echo("https://127.0.0.1", bytes_of_str("x")), ERR_IO); /* of localhost */
    ck_assert_msg(strstr(msg.text, "certificate") != NULL, "%s", msg.text);
    http_client_trust(client, other_certificate);
    ck_assert_int_eq(echo("https://localhost", bytes_of_str("x")), ERR_IO);
    ck_assert_msg(strstr(msg.text, "certificate") != NULL, "%s", msg.text);
    http_client_trust(client, certificate);
    ck_assert_ok(echo("https://localhost", bytes_of_str("x")), &msg);
    close_all();
}
END_TEST

START_TEST(test_who_speaks_no_tls_gets_nothing_and_keeps_nobody_up)
{
    open_all();
    struct sockaddr_storage address;
    ck_assert_ok(address_resolve("127.0.0.1", http_server_port(server), &address, &msg), &msg);
    int silent = socket(AF_INET, SOCK_STREAM, 0);
    ck_assert_int_eq(connect(silent, (struct sockaddr *)&address, sizeof(struct sockaddr_in)), 0);
    ck_assert_int_ne(echo("http://localhost", bytes_of_str("x")), ERR_OK);
    ck_assert_ok(echo("https://localhost", bytes_of_str("x")), &msg);
    (void)close(silent);
    close_all();
}
END_TEST

static void expect_no_server(const char *with_certificate, const char *with_key, const char *why)
{
    ck_assert_int_ne(open_server(with_certificate, with_key), ERR_OK);
    ck_assert_msg(strstr(msg.text, why) != NULL, "%s", msg.text);
}

START_TEST(test_what_is_no_certificate_or_not_of_the_key_is_said_at_the_start)
{
    make_certificates();
    expect_no_server(certificate, "", "the key is missing");
    expect_no_server(NULL, key, "the certificate is missing");
    expect_no_server("/nowhere/a.crt", key, "/nowhere/a.crt");
    expect_no_server(key, key, "no certificate in PEM");
    expect_no_server(certificate, certificate, "no key in PEM");
    expect_no_server(certificate, other_key, "cannot be used together");
    loop_destroy(loop);
    ck_assert_ok(dir_remove(folder, &msg), &msg);
}
END_TEST

UNIT_MAIN(
    "https",
    test_bodies_travel_both_ways_and_answers_may_come_later,
    test_a_certificate_must_be_signed_by_who_is_trusted_and_of_the_name,
    test_who_speaks_no_tls_gets_nothing_and_keeps_nobody_up,
    test_what_is_no_certificate_or_not_of_the_key_is_said_at_the_start);
