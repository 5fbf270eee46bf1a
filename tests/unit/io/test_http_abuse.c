/*
 * Clients that are broken, hostile or slow: every one gets an answer or a closed connection, and a
 * good client is served all the while.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/prng.h"
#include "common/io/http_client.h"
#include "common/io/http_server.h"
#include "tests/unit/unit.h"

static struct loop *loop;
static struct http_server *server;
static struct errmsg msg;
static struct http_context context;
static pthread_t server_thread;

static void post_echo(struct http_context *given, struct http_request *request)
{
    (void)given;
    struct doc *body = NULL;
    err_t err = http_request_json(request, &body, &msg);
    if (err != ERR_OK) {
        http_respond_error(request, err, &msg);
        return;
    }
    http_respond_json(request, 200, doc_copy(body));
}

static const struct http_route routes[] = {
    HTTP_ROUTE("POST", "/v1/echo/{name}", post_echo, "The body again.", false),
};

static void *serve(void *unused)
{
    (void)unused;
    loop_run(loop);
    return NULL;
}

static void open_server(const struct http_options *options)
{
    ck_assert_ok(loop_create(&loop, &msg), &msg);
    ck_assert_ok(http_server_open(loop, "127.0.0.1", 0, options, &server, &msg), &msg);
    http_server_add_routes(server, routes, ARRAY_LEN(routes), &context);
    ck_assert_int_eq(pthread_create(&server_thread, NULL, serve, NULL), 0);
}

static void close_server(void)
{
    loop_stop(loop);
    ck_assert_int_eq(pthread_join(server_thread, NULL), 0);
    http_server_close(server);
    loop_destroy(loop);
}

static int plain_connect(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons(http_server_port(server)),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

/* Sends and reads to the end; the answer (maybe empty) is in `to`. */
static void exchange(struct bytes data, char *to, size_t to_size)
{
    int fd = plain_connect();
    struct timeval limit = {.tv_sec = 5};
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    ssize_t ignored = send(fd, data.data, data.size, MSG_NOSIGNAL);
    (void)ignored; /* a server that closed early is what we are here for */
    size_t used = 0;
    while (used + 1 < to_size) {
        ssize_t got = recv(fd, to + used, to_size - 1 - used, 0);
        if (got <= 0) {
            break;
        }
        used += (size_t)got;
    }
    to[used] = '\0';
    (void)close(fd);
}

/* Sends and goes away. */
static void send_and_leave(struct bytes data)
{
    int fd = plain_connect();
    ssize_t ignored = send(fd, data.data, data.size, MSG_NOSIGNAL);
    (void)ignored;
    (void)close(fd);
}

static void expect_good_client_is_served(void)
{
    char url[80];
    (void)snprintf(url, sizeof(url), "http://127.0.0.1:%u/v1/echo/a", http_server_port(server));
    struct http_call call = {
        .method = "POST", .url = url, .body = bytes_of_str("{\"a\":1}"), .timeout_ms = 5000};
    ck_assert_ok(http_call_blocking(&call, &msg), &msg);
    ck_assert_uint_eq(call.status, 200);
    http_call_deinit(&call);
}

START_TEST(test_malformed_requests_get_an_answer_or_a_close)
{
    static const char *const bad[] = {
        "\r\n\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "POST /v1/echo/a HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        "POST /v1/echo/a HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "POST /v1/echo/a HTTP/1.1\r\nHost: x\r\nContent-Length: abc\r\n\r\n",
        "POST /v1/echo/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "POST /v1/echo/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff"
        "f\r\n",
        "POST /v1/echo/%zz HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        "POST /v1/echo/%00 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        "GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "GET /v1/echo/a?=&&%=%&a=%zz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "GET //////////////////////////////////////// HTTP/1.1\r\nHost: x\r\nConnection: "
        "close\r\n\r\n",
        "VERYLONGMETHODNAMETHATNOBODYHAS / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nno colon here\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nX-Request-Id: \x01\x02\r\nConnection: close\r\n\r\n",
    };
    struct http_options options = {.idle_timeout_s = 1};
    open_server(&options);
    char answer[4096];
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        exchange(bytes_of_str(bad[i]), answer, sizeof(answer));
        ck_assert_msg(
            answer[0] == '\0' || strncmp(answer, "HTTP/1.", 7) == 0, "%zu: %.60s", i, answer);
    }
    exchange(bytes_of_str(bad[8]), answer, sizeof(answer));
    ck_assert_ptr_nonnull(strstr(answer, " 400 "));
    ck_assert_ptr_nonnull(strstr(answer, "application/problem+json"));
    exchange(bytes_of_str(bad[10]), answer, sizeof(answer));
    ck_assert_ptr_nonnull(strstr(answer, " 404 "));
    expect_good_client_is_served();
    close_server();
}
END_TEST

/* Where a request ends must be said once, and as everybody reads it. */
START_TEST(test_requests_with_two_ends_are_refused_alone)
{
    static const char *const headers[] = {
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Content-Length: 7\r\nContent-Length: 0\r\n",
        "Content-Length: 0\r\nContent-Length: 7\r\n",
        "Content-Length : 7\r\n",
        "Content-Length: 0\r\nX Y: 1\r\n",
        "Content-Length: 0\r\nHost: y\r\n",
    };
    open_server(NULL);
    for (size_t i = 0; i < ARRAY_LEN(headers); i++) {
        char request[400], answer[4096];
        (void)snprintf(
            request, sizeof(request),
            "POST /v1/echo/a HTTP/1.1\r\nHost: x\r\n%s\r\n0\r\n\r\n"
            "GET /smuggled HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            headers[i]);
        exchange(bytes_of_str(request), answer, sizeof(answer));
        ck_assert_msg(strncmp(answer, "HTTP/1.1 400 ", 13) == 0, "%zu: %.60s", i, answer);
        ck_assert_msg(strstr(answer, "smuggled") == NULL, "%zu: %s", i, answer);
    }
    expect_good_client_is_served();
    close_server();
}
END_TEST

START_TEST(test_every_truncation_of_a_request_is_harmless)
{
    static const char request[] = "POST /v1/echo/a HTTP/1.1\r\nHost: x\r\nContent-Type: "
                                  "application/json\r\nContent-Length: 7\r\n\r\n{\"a\":1}";
    open_server(NULL);
    for (size_t size = 0; size < strlen(request); size++) {
        send_and_leave(bytes_of(request, size));
    }
    expect_good_client_is_served();
    close_server();
}
END_TEST

START_TEST(test_random_bytes_are_harmless)
{
    open_server(NULL);
    struct prng prng;
    prng_init(&prng, 42);
    for (int round = 0; round < 300; round++) {
        uint8_t noise[600];
        size_t size = prng_below(&prng, sizeof(noise));
        for (size_t i = 0; i < size; i++) {
            noise[i] = (uint8_t)prng_next(&prng);
        }
        if (round % 2 == 0 && size > 40) { /* a good beginning */
            memcpy(noise, "POST /v1/echo/a HTTP/1.1\r\nHost: ", 32);
        }
        send_and_leave(bytes_of(noise, size));
    }
    expect_good_client_is_served();
    close_server();
}
END_TEST

START_TEST(test_headers_over_the_limit_are_refused)
{
    open_server(NULL);
    struct buf request = {0};
    buf_printf(&request, "GET / HTTP/1.1\r\nHost: x\r\nX-Large: ");
    memset(buf_extend(&request, 100000), 'a', 100000);
    buf_printf(&request, "\r\n\r\n");
    char answer[4096];
    exchange(buf_view(&request), answer, sizeof(answer));
    ck_assert(answer[0] == '\0' || strstr(answer, " 431 ") != NULL || strstr(answer, " 413 "));
    buf_deinit(&request);
    expect_good_client_is_served();
    close_server();
}
END_TEST

START_TEST(test_chunked_body_over_the_limit_is_413)
{
    open_server(NULL);
    struct buf request = {0};
    buf_printf(
        &request, "POST /v1/echo/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
                  "Connection: close\r\n\r\n");
    for (int i = 0; i < 9; i++) {
        buf_printf(&request, "100000\r\n");
        memset(buf_extend(&request, MIB), ' ', MIB);
        buf_printf(&request, "\r\n");
    }
    buf_printf(&request, "0\r\n\r\n");
    char answer[4096];
    exchange(buf_view(&request), answer, sizeof(answer));
    ck_assert_msg(strstr(answer, " 413 ") != NULL, "%.100s", answer);
    buf_deinit(&request);
    close_server();
}
END_TEST

START_TEST(test_silent_client_is_closed_and_others_are_served)
{
    struct http_options options = {.idle_timeout_s = 1};
    open_server(&options);
    int fd = plain_connect();
    ck_assert_int_eq(send(fd, "POST /v1/ec", 11, MSG_NOSIGNAL), 11);
    expect_good_client_is_served();
    char answer[512];
    while (recv(fd, answer, sizeof(answer), 0) > 0) {
        /* an answer 408 may come; the end must */
    }
    (void)close(fd);
    close_server();
}
END_TEST

START_TEST(test_connections_over_the_limit_do_not_hurt)
{
    struct http_options options = {.connections_max = 10, .idle_timeout_s = 1};
    open_server(&options);
    int fds[40];
    for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
        fds[i] = plain_connect();
    }
    for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
        (void)close(fds[i]);
    }
    expect_good_client_is_served();
    close_server();
}
END_TEST

static void expect_status(const char *headers, const char *status)
{
    char request[400], answer[4096];
    (void)snprintf(
        request, sizeof(request),
        "POST /v1/echo/a HTTP/1.1\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n"
        "Connection: close\r\n%s\r\n{}",
        headers);
    exchange(bytes_of_str(request), answer, sizeof(answer));
    ck_assert_msg(strncmp(answer + 9, status, 3) == 0, "%s: %.60s", headers, answer);
}

/* Without a token it is enough to reach us, and every page in a browser on this machine does. */
START_TEST(test_pages_of_other_sites_are_refused_without_a_token)
{
    open_server(NULL);
    expect_status("Host: 127.0.0.1:80\r\nOrigin: http://site.example\r\n", "403");
    expect_status("Host: 127.0.0.1:80\r\nOrigin: http://127.0.0.1:81\r\n", "403");
    expect_status("Host: 127.0.0.1:80\r\nOrigin: null\r\n", "403");
    expect_status("Host: rebound.example:80\r\nAccept-Language: en\r\n", "403");
    expect_status("Host: 10.1.example\r\nAccept-Language: en\r\n", "403");
    expect_status("Host: 127.0.0.1:80\r\nOrigin: http://127.0.0.1:80\r\n", "200");
    expect_status("Host: 127.0.0.1:80\r\nAccept-Language: en\r\n", "200");
    expect_status("Host: [::1]:80\r\nAccept-Language: en\r\n", "200");
    expect_status("Host: localhost:80\r\nAccept-Language: en\r\n", "200");
    expect_status("Host: node1\r\nAccept-Language: en\r\n", "200");
    expect_status("Host: control.example\r\n", "200"); /* no browser */
    close_server();
    struct http_options options = {.token = "secret"};
    open_server(&options);
    expect_status(
        "Host: control.example\r\nOrigin: http://site.example\r\nAuthorization: Bearer secret\r\n",
        "200");
    close_server();
}
END_TEST

/* Each byte begins MHD's time-out anew. */
START_TEST(test_headers_that_trickle_in_are_given_up)
{
    struct http_options options = {.idle_timeout_s = 1};
    open_server(&options);
    int fd = plain_connect();
    struct timeval limit = {.tv_usec = 200000};
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    ck_assert_int_eq(send(fd, "GET / HTTP/1.1\r\nX: ", 19, MSG_NOSIGNAL), 19);
    ssize_t got = -1;
    int tries = 0;
    for (char byte; got < 0 && tries < 300 && send(fd, "x", 1, MSG_NOSIGNAL) == 1; tries++) {
        got = recv(fd, &byte, 1, 0);
    }
    ck_assert_int_lt(tries, 300);
    (void)close(fd);
    expect_good_client_is_served();
    close_server();
}
END_TEST

/* All places are taken by clients that would keep them: one of them goes for one who asks. */
START_TEST(test_slow_clients_cannot_take_all_places)
{
    static const char *const slow[] = {
        "", "GET / HT", "GET / HTTP/1.1\r\nHost: x\r\nX: ",
        "POST /v1/echo/a HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
        "GET /v1/nothing HTTP/1.1\r\nHost: x\r\n\r\n"};
    struct http_options options = {.connections_max = 20};
    open_server(&options);
    int fds[60];
    for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
        const char *part = slow[i % ARRAY_LEN(slow)];
        fds[i] = plain_connect();
        ssize_t ignored = send(fds[i], part, strlen(part), MSG_NOSIGNAL);
        (void)ignored; /* some are closed by then */
    }
    for (int i = 0; i < 10; i++) {
        expect_good_client_is_served();
    }
    for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
        (void)close(fds[i]);
    }
    close_server();
}
END_TEST

UNIT_MAIN(
    "http_abuse",
    test_requests_with_two_ends_are_refused_alone,
    test_pages_of_other_sites_are_refused_without_a_token,
    test_headers_that_trickle_in_are_given_up,
    test_slow_clients_cannot_take_all_places,
    test_malformed_requests_get_an_answer_or_a_close,
    test_every_truncation_of_a_request_is_harmless,
    test_random_bytes_are_harmless,
    test_headers_over_the_limit_are_refused,
    test_chunked_body_over_the_limit_is_413,
    test_silent_client_is_closed_and_others_are_served,
    test_connections_over_the_limit_do_not_hurt);
