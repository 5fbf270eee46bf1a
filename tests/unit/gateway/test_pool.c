/* Who gets which connection, in which order, and what limits and time do. */
#include "control/gateway/pool.h"

#include "tests/unit/unit.h"

#define CLIENTS 8
#define SERVERS 8

static const struct pool_limits limits = {
    .pool_servers_max = 2,
    .endpoint_servers_max = 3,
    .wait_max = 100,
    .idle_max = 1000,
    .age_max = 10000,
    .retry_after = 50,
};

static struct pool_endpoint endpoint;
static struct pool a, b;
static struct pool_client clients[CLIENTS];
static struct pool_server servers[SERVERS];
static size_t server_count;

static void setup(void)
{
    pool_endpoint_init(&endpoint);
    pool_init(&a, &endpoint);
    pool_init(&b, &endpoint);
    server_count = 0;
    for (size_t i = 0; i < CLIENTS; i++) {
        pool_client_joins(i < CLIENTS / 2 ? &a : &b, &clients[i]);
    }
}

static struct pool_action step(mono_ns_t now)
{
    return pool_step(&endpoint, &limits, now);
}

/* Whoever asks is expected to be answered with a new connection. */
static struct pool_server *open_for(struct pool_client *client, mono_ns_t now)
{
    struct pool_server *server = &servers[server_count++];
    pool_client_asks(client, now);
    struct pool_action action = step(now);
    ck_assert_int_eq(action.kind, POOL_OPEN);
    ck_assert_ptr_eq(action.pool, client->pool);
    pool_server_opens(client->pool, server);
    ck_assert_int_eq(step(now).kind, POOL_NOTHING); /* one is on its way */
    pool_server_opened(server, now);
    action = step(now);
    ck_assert_int_eq(action.kind, POOL_LINK);
    ck_assert_ptr_eq(action.client, client);
    ck_assert_ptr_eq(action.server, server);
    return server;
}

START_TEST(test_who_asked_first_gets_the_one_that_comes_free)
{
    setup();
    struct pool_server *first = open_for(&clients[0], 1);
    (void)open_for(&clients[1], 2);
    pool_client_asks(&clients[2], 3);
    pool_client_asks(&clients[3], 4);
    ck_assert_int_eq(step(5).kind, POOL_NOTHING); /* the pool has its two */
    pool_server_released(first, 6);
    struct pool_action action = step(6);
    ck_assert_int_eq(action.kind, POOL_LINK);
    ck_assert_ptr_eq(action.client, &clients[2]);
    ck_assert_ptr_eq(action.server, first);
    ck_assert_ptr_eq(clients[2].server, first);
    ck_assert_ptr_null(clients[0].server);
    ck_assert(pool_client_waits(&clients[3]));
}
END_TEST

START_TEST(test_the_connection_used_last_is_used_next)
{
    setup();
    struct pool_server *first = open_for(&clients[0], 1);
    struct pool_server *second = open_for(&clients[1], 1);
    pool_server_released(second, 2);
    pool_server_released(first, 3);
    pool_client_asks(&clients[2], 4);
    ck_assert_ptr_eq(step(4).server, first);
    /* ... so that the other one becomes idle for long and goes. */
    struct pool_action action = pool_expire(&endpoint, &limits, 1002);
    ck_assert_int_eq(action.kind, POOL_CLOSE);
    ck_assert_ptr_eq(action.server, second);
    ck_assert_uint_eq(endpoint.server_count, 1);
    ck_assert_int_eq(pool_expire(&endpoint, &limits, 1002).kind, POOL_NOTHING);
}
END_TEST

START_TEST(test_who_waits_too_long_waits_no_more)
{
    setup();
    (void)open_for(&clients[0], 1);
    (void)open_for(&clients[1], 1);
    pool_client_asks(&clients[2], 10);
    ck_assert_int_eq(pool_expire(&endpoint, &limits, 109).kind, POOL_NOTHING);
    struct pool_action action = pool_expire(&endpoint, &limits, 110);
    ck_assert_int_eq(action.kind, POOL_TIMEOUT);
    ck_assert_ptr_eq(action.client, &clients[2]);
    ck_assert(!pool_client_waits(&clients[2]));
    ck_assert_uint_eq(a.waiting_count, 0);
}
END_TEST

START_TEST(test_an_idle_connection_makes_place_for_another_pool)
{
    setup();
    (void)open_for(&clients[0], 1);
    struct pool_server *idle = open_for(&clients[1], 1);
    (void)open_for(&clients[4], 1); /* three of three */
    pool_server_released(idle, 2);
    pool_client_asks(&clients[5], 3);
    struct pool_action action = step(3);
    ck_assert_int_eq(action.kind, POOL_CLOSE);
    ck_assert_ptr_eq(action.server, idle);
    ck_assert_int_eq(idle->state, POOL_SERVER_GONE);
    action = step(3);
    ck_assert_int_eq(action.kind, POOL_OPEN);
    ck_assert_ptr_eq(action.pool, &b);
}
END_TEST

START_TEST(test_a_pool_without_any_connection_does_not_starve)
{
    struct pool c;
    struct pool_client other;
    setup();
    pool_init(&c, &endpoint);
    pool_client_joins(&c, &other);
    struct pool_server *first = open_for(&clients[0], 1);
    (void)open_for(&clients[1], 1);
    (void)open_for(&clients[4], 1);
    pool_client_asks(&other, 2);
    pool_client_asks(&clients[2], 3); /* of the pool that has two */
    pool_server_released(first, 4);
    struct pool_action action = step(4);
    ck_assert_int_eq(action.kind, POOL_CLOSE); /* not given to who asked later */
    ck_assert_ptr_eq(action.server, first);
    action = step(4);
    ck_assert_int_eq(action.kind, POOL_OPEN);
    ck_assert_ptr_eq(action.pool, &c);
}
END_TEST

START_TEST(test_a_place_made_for_who_starves_is_taken_by_nobody_else)
{
    struct pool_limits one = limits;
    one.endpoint_servers_max = 1;
    setup();
    struct pool_server *server = open_for(&clients[0], 1);
    pool_client_asks(&clients[4], 2); /* of b, which has none */
    pool_client_asks(&clients[1], 3); /* of a, whose only one this is */
    pool_server_released(server, 4);
    struct pool_action action = pool_step(&endpoint, &one, 4);
    ck_assert_int_eq(action.kind, POOL_CLOSE);
    ck_assert_ptr_eq(action.server, server);
    action = pool_step(&endpoint, &one, 4); /* a has none either now */
    ck_assert_int_eq(action.kind, POOL_OPEN);
    ck_assert_ptr_eq(action.pool, &b);
    pool_server_opens(&b, &servers[1]);
    ck_assert_int_eq(pool_step(&endpoint, &one, 5).kind, POOL_NOTHING);
    pool_server_opened(&servers[1], 5);
    ck_assert_ptr_eq(pool_step(&endpoint, &one, 5).client, &clients[4]);
    pool_server_released(&servers[1], 6); /* and back, for who starves now */
    ck_assert_int_eq(pool_step(&endpoint, &one, 6).kind, POOL_CLOSE);
    action = pool_step(&endpoint, &one, 6);
    ck_assert_int_eq(action.kind, POOL_OPEN);
    ck_assert_ptr_eq(action.pool, &a);
}
END_TEST

START_TEST(test_a_connection_is_held_while_a_cancel_request_is_under_way)
{
    setup();
    struct pool_server *server = open_for(&clients[0], 1);
    (void)open_for(&clients[1], 1);
    pool_cancel_begins(server);
    pool_cancel_begins(server);
    pool_client_asks(&clients[2], 2);
    pool_server_released(server, 3);
    ck_assert_int_eq(step(3).kind, POOL_NOTHING); /* it would hit the next one's query */
    pool_cancel_ended(server, 4);
    ck_assert_int_eq(step(4).kind, POOL_NOTHING);
    pool_cancel_ended(server, 5);
    struct pool_action action = step(5);
    ck_assert_int_eq(action.kind, POOL_LINK);
    ck_assert_ptr_eq(action.client, &clients[2]);
}
END_TEST

START_TEST(test_after_a_failure_the_next_attempt_waits)
{
    setup();
    pool_client_asks(&clients[0], 1);
    ck_assert_int_eq(step(1).kind, POOL_OPEN);
    pool_server_opens(&a, &servers[0]);
    pool_server_gone(&servers[0]);
    pool_open_failed(&a, &limits, 2);
    ck_assert_uint_eq(a.server_count, 0);
    ck_assert_int_eq(step(51).kind, POOL_NOTHING);
    ck_assert_int_eq(step(52).kind, POOL_OPEN);
}
END_TEST

START_TEST(test_no_more_connections_are_opened_than_clients_wait)
{
    setup();
    pool_client_asks(&clients[0], 1);
    ck_assert_int_eq(step(1).kind, POOL_OPEN);
    pool_server_opens(&a, &servers[0]);
    ck_assert_int_eq(step(1).kind, POOL_NOTHING);
    pool_client_asks(&clients[1], 1);
    ck_assert_int_eq(step(1).kind, POOL_OPEN);
    pool_server_opens(&a, &servers[1]);
    pool_client_asks(&clients[2], 1);
    ck_assert_int_eq(step(1).kind, POOL_NOTHING); /* the limit of the pool */
    pool_client_leaves(&clients[2]);
    pool_client_leaves(&clients[1]);
    pool_server_opened(&servers[1], 2);
    ck_assert_ptr_eq(step(2).client, &clients[0]);
    pool_server_opened(&servers[0], 2); /* nobody wants it any more: it is there */
    ck_assert_int_eq(step(2).kind, POOL_NOTHING);
    ck_assert_uint_eq(a.idle_count, 1);
}
END_TEST

START_TEST(test_old_connections_are_told_apart)
{
    setup();
    struct pool_server *server = open_for(&clients[0], 5);
    ck_assert(!pool_server_is_old(server, &limits, 10004));
    ck_assert(pool_server_is_old(server, &limits, 10005));
    pool_server_gone(server);
    ck_assert_ptr_null(clients[0].server);
    for (size_t i = 0; i < CLIENTS; i++) {
        pool_client_leaves(&clients[i]);
    }
    ck_assert(pool_is_unused(&a) && pool_is_unused(&b));
    pool_deinit(&a);
    pool_deinit(&b);
    ck_assert(list_is_empty(&endpoint.pools));
}
END_TEST

UNIT_MAIN(
    "gateway_pool",
    test_who_asked_first_gets_the_one_that_comes_free,
    test_the_connection_used_last_is_used_next,
    test_who_waits_too_long_waits_no_more,
    test_an_idle_connection_makes_place_for_another_pool,
    test_a_pool_without_any_connection_does_not_starve,
    test_a_place_made_for_who_starves_is_taken_by_nobody_else,
    test_a_connection_is_held_while_a_cancel_request_is_under_way,
    test_after_a_failure_the_next_attempt_waits,
    test_no_more_connections_are_opened_than_clients_wait,
    test_old_connections_are_told_apart);
