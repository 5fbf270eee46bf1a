/*
 * Hosts that register themselves: rows of a catalog, nodes, and watchers that hear of both. No
 * agent runs: polls are not started.
 */
#include "control/act/hosts.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/base/log.h"
#include "tests/unit/unit.h"

static char path[64];
static struct errmsg msg;
static struct loop *loop;
static struct executor *executor;
static struct http_client *client;
static struct store *store;
static struct nodes *nodes;
static struct hosts *hosts;

/* What a second watcher heard, and when the loop is left. */
static struct listening {
    struct store_watcher watcher;
    unsigned applied, removed;
    bool node_was_there; /* when it heard of the row: watchers are told in their order */
    bool stops_at_removal;
} listening;

static void on_applied(struct store_watcher *watcher, enum row_kind kind, void *object)
{
    (void)watcher;
    struct host *host = object;
    ck_assert_uint_eq(kind, ROW_HOST);
    listening.applied++;
    listening.node_was_there = nodes_find(nodes, NODE_AGENT, host->row.number) != NULL;
}

static void on_removed(struct store_watcher *watcher, enum row_kind kind, const union any_row *row)
{
    (void)watcher;
    ck_assert_uint_eq(kind, ROW_HOST);
    ck_assert_uint_eq(row->host.number, 7);
    listening.removed++;
    if (listening.stops_at_removal) {
        loop_stop(loop);
    }
}

static void begin(void)
{
    const struct catalog_options catalog = {.path = path};
    const struct nodes_options none = {
        .safekeepers = "", .pageservers = "", .agents = "1@127.0.0.1:7440", .token = ""};
    ck_assert_ok(loop_create(&loop, &msg), &msg);
    ck_assert_ok(executor_create(loop, 1, &executor, &msg), &msg);
    ck_assert_ok(http_client_create(loop, &client, &msg), &msg);
    ck_assert_ok(store_open(loop, executor, &catalog, &store, &msg), &msg);
    ck_assert_ok(nodes_create(loop, client, &none, NULL, &nodes, &msg), &msg);
    hosts = hosts_create(loop, store, nodes);
    listening = (struct listening){.watcher = {.on_applied = on_applied, .on_removed = on_removed}};
    store_watch(store, &listening.watcher);
}

static void end(void)
{
    store_unwatch(&listening.watcher);
    hosts_destroy(hosts);
    http_client_destroy(client);
    nodes_destroy(nodes);
    executor_destroy(executor);
    store_close(store);
    loop_destroy(loop);
}

static void new_folder(void)
{
    log_init("test", LOG_LEVEL_ERROR);
    unit_folder(path, sizeof(path), "test_hosts");
}

static void remove_folder(void)
{
    char command[128];
    (void)snprintf(command, sizeof command, "rm -rf %s", path);
    ck_assert_int_eq(system(command), 0);
}

struct attempted {
    struct registration registration;
    err_t result;
    bool done, waited;
};

static void on_done(struct registration *registration, err_t result, const struct errmsg *why)
{
    struct attempted *attempted = CONTAINER_OF(registration, struct attempted, registration);
    attempted->result = result;
    attempted->done = true;
    msg = *why;
    if (attempted->waited) {
        loop_stop(loop);
    }
}

static err_t say(uint64_t number, const char *address, uint64_t http_port, uint64_t lease_ms)
{
    struct attempted attempted = {
        .registration = {
            .done = on_done,
            .row = {.number = number, .http_port = http_port, .lease_ms = lease_ms}}};
    (void)snprintf(
        attempted.registration.row.address, sizeof attempted.registration.row.address, "%s",
        address);
    host_register(hosts, &attempted.registration);
    if (!attempted.done) {
        attempted.waited = true;
        loop_run(loop);
    }
    return attempted.result;
}

START_TEST(test_host_is_a_node_before_others_hear_of_it_and_after_a_restart)
{
    new_folder();
    begin();
    ck_assert_ok(say(7, "10.0.0.7", 7440, 60000), &msg);
    ck_assert_uint_eq(listening.applied, 1);
    ck_assert(listening.node_was_there);
    ck_assert_str_eq(nodes_find(nodes, NODE_AGENT, 7)->host, "10.0.0.7");
    ck_assert_ok(say(7, "10.0.0.7", 7440, 60000), &msg); /* alive: nothing is written */
    ck_assert_uint_eq(listening.applied, 1);
    end();
    begin();
    ck_assert_ptr_nonnull(nodes_find(nodes, NODE_AGENT, 7));
    end();
    remove_folder();
}
END_TEST

START_TEST(test_number_and_address_belong_together_until_the_lease_is_over)
{
    new_folder();
    begin();
    ck_assert_ok(say(7, "10.0.0.7", 7440, 60000), &msg);
    ck_assert_int_eq(say(7, "10.0.0.9", 7440, 60000), ERR_EXISTS); /* somebody else's number */
    ck_assert_int_eq(say(8, "10.0.0.7", 7440, 60000), ERR_EXISTS); /* one agent, two numbers */
    ck_assert_int_eq(say(1, "10.0.0.1", 7440, 60000), ERR_EXISTS); /* of the setting */
    ck_assert_int_eq(say(9, "127.0.0.1", 7440, 60000), ERR_EXISTS);
    ck_assert_ok(say(8, "10.0.0.7", 7441, 60000), &msg);
    ck_assert_ok(say(7, "10.0.0.7", 7440, 30000), &msg); /* the same place, another lease */
    ck_assert_uint_eq(listening.applied, 3);
    end();
    remove_folder();
}
END_TEST

START_TEST(test_lease_that_is_over_ends_with_its_row_and_its_node)
{
    new_folder();
    begin();
    ck_assert_ok(say(7, "10.0.0.7", 7440, 1), &msg);
    ck_assert_ok(say(8, "10.0.0.8", 7440, 60000), &msg); /* lives: it is not us who is cut off */
    listening.stops_at_removal = true;
    loop_run(loop); /* until the lease has been ended */
    ck_assert_uint_eq(listening.removed, 1);
    ck_assert_ptr_null(nodes_find(nodes, NODE_AGENT, 7));
    ck_assert_ptr_null(model_host(store_model(store), "7"));
    listening.stops_at_removal = false;
    ck_assert_ok(say(7, "10.0.0.9", 7440, 60000), &msg); /* free again, for any address */
    ck_assert_str_eq(nodes_find(nodes, NODE_AGENT, 7)->host, "10.0.0.9");
    end();
    begin();
    ck_assert_str_eq(nodes_find(nodes, NODE_AGENT, 7)->host, "10.0.0.9");
    end();
    remove_folder();
}
END_TEST

static void on_enough(struct timer *timer)
{
    (void)timer;
    loop_stop(loop);
}

/* Control may be cut off from all of them: the first that is heard again must not get everything.
 */
START_TEST(test_no_lease_ends_while_nobody_is_heard)
{
    struct timer enough = {.on_fire = on_enough};
    new_folder();
    begin();
    ck_assert_ok(say(7, "10.0.0.7", 7440, 1), &msg);
    ck_assert_ok(say(8, "10.0.0.8", 7440, 1), &msg);
    timer_start(loop, &enough, 700); /* some looks at the leases */
    loop_run(loop);
    ck_assert_uint_eq(listening.removed, 0);
    ck_assert_ptr_nonnull(nodes_find(nodes, NODE_AGENT, 7));
    ck_assert_ok(say(7, "10.0.0.9", 7440, 1), &msg); /* though its number is free for another */
    end();
    remove_folder();
}
END_TEST

UNIT_MAIN(
    "hosts",
    test_host_is_a_node_before_others_hear_of_it_and_after_a_restart,
    test_number_and_address_belong_together_until_the_lease_is_over,
    test_lease_that_is_over_ends_with_its_row_and_its_node,
    test_no_lease_ends_while_nobody_is_heard);
