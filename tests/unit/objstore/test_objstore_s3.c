/*
 * What the S3 backend does while its server says nothing: the server here is a socket that accepts.
 * Everything else is tested with a real one, in tests/objstore.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/objstore/objstore.h"
#include "tests/unit/unit.h"

static int listener;
static struct objstore *store;
static struct errmsg msg;

static void open_store(const char *settings)
{
    char url[200];
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(listener, (struct sockaddr *)&address, size), 0);
    ck_assert_int_eq(listen(listener, 8), 0);
    ck_assert_int_eq(getsockname(listener, (struct sockaddr *)&address, &size), 0);
    ck_assert_int_eq(setenv("AWS_ACCESS_KEY_ID", "access", 1), 0);
    ck_assert_int_eq(setenv("AWS_SECRET_ACCESS_KEY", "secret", 1), 0);
    (void)snprintf(
        url, sizeof(url), "s3://bucket/prefix?endpoint=http://127.0.0.1:%u%s",
        ntohs(address.sin_port), settings);
    ck_assert_ok(objstore_open(url, &store, &msg), &msg);
}

static void close_store(void)
{
    objstore_close(store);
    ck_assert_int_eq(close(listener), 0);
}

static void *get_object(void *result)
{
    struct buf data = {0};
    *(err_t *)result = objstore_get(store, "a", 100, &data, NULL);
    buf_deinit(&data);
    return NULL;
}

START_TEST(test_cancel_ends_a_call_that_waits_for_the_server)
{
    open_store("&deadline_ms=1h&stall_timeout_ms=1h");
    pthread_t thread;
    err_t result = ERR_OK;
    ck_assert_int_eq(pthread_create(&thread, NULL, get_object, &result), 0);
    int connection = accept(listener, NULL, NULL); /* the call is under way */
    ck_assert_int_ge(connection, 0);
    objstore_cancel(store);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    ck_assert_int_eq(result, ERR_CANCELED);
    ck_assert_int_eq(close(connection), 0);
    close_store();
}
END_TEST

START_TEST(test_cancel_ends_a_pause_between_attempts)
{
    open_store("&deadline_ms=1h&backoff_ms=30min&backoff_max_ms=30min");
    pthread_t thread;
    err_t result = ERR_OK;
    ck_assert_int_eq(pthread_create(&thread, NULL, get_object, &result), 0);
    int connection = accept(listener, NULL, NULL);
    ck_assert_int_ge(connection, 0);
    ck_assert_int_eq(close(connection), 0); /* what follows is a pause of a quarter of an hour */
    objstore_cancel(store);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    ck_assert_int_eq(result, ERR_CANCELED);
    close_store();
}
END_TEST

START_TEST(test_calls_after_cancel_are_canceled)
{
    open_store("");
    struct buf data = {0};
    struct objstore_query all = {0};
    size_t count = 0;
    objstore_cancel(store);
    ck_assert_int_eq(objstore_get(store, "a", 100, &data, &msg), ERR_CANCELED);
    ck_assert_int_eq(objstore_put(store, "a", bytes_of_str("x"), &msg), ERR_CANCELED);
    ck_assert_int_eq(objstore_delete(store, "a", &msg), ERR_CANCELED);
    ck_assert_int_eq(objstore_list(store, &all, NULL, NULL, &msg), ERR_CANCELED);
    ck_assert_int_eq(objstore_sweep(store, 0, &count, &msg), ERR_CANCELED);
    close_store();
}
END_TEST

START_TEST(test_deadline_ends_a_call_that_waits_for_the_server)
{
    open_store("&deadline_ms=200&stall_timeout_ms=1h");
    struct buf data = {0};
    ck_assert_int_eq(objstore_get(store, "a", 100, &data, &msg), ERR_TIMEOUT);
    close_store();
}
END_TEST

START_TEST(test_open_asks_nobody)
{
    open_store(""); /* nobody accepts */
    close_store();
}
END_TEST

START_TEST(test_bad_setting_is_refused_at_open)
{
    ck_assert_int_eq(objstore_open("s3://bucket?x=y", &store, &msg), ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(msg.text, "object store"));
}
END_TEST

UNIT_MAIN(
    "objstore_s3",
    test_cancel_ends_a_call_that_waits_for_the_server,
    test_cancel_ends_a_pause_between_attempts,
    test_calls_after_cancel_are_canceled,
    test_deadline_ends_a_call_that_waits_for_the_server,
    test_open_asks_nobody,
    test_bad_setting_is_refused_at_open);
