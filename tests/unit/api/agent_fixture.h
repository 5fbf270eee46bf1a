/*
 * agent_fixture.h - an API with one agent and one pageserver, all in one server on the loop of
 * api_fixture.h, and a catalog of one project p, whose branch br has the database d and the
 * endpoint ep. What the nodes answer is the test's: routes of its own. The endpoint is wanted, and
 * nothing was seen of it.
 */
#pragma once

#include "tests/unit/api/api_fixture.h"

#include "common/io/http_client.h"
#include "common/io/http_server.h"

static char base_url[64];
static struct http_server *server;
static struct http_client *client;
static struct nodes_user hearing;

static inline void on_rows(struct mutation_then *then, err_t result, const struct errmsg *why)
{
    (void)then;
    ck_assert_ok(result, why);
    loop_stop(api.loop);
}

static inline err_t decide_rows(struct mutation *mutation, struct errmsg *why)
{
    (void)why;
    struct doc *databases = doc_push(
        doc_array(), doc_set_str(doc_set_str(doc_object(), "name", "d"), "owner_name", "o"));
    struct project_row project = {.id = "p", .name = "p", .tenant = name_tenant(), .pageserver = 1};
    struct branch_row branch = {
        .id = "br",
        .name = "b",
        .project_id = "p",
        .timeline = name_timeline(),
        .state = BRANCH_READY,
        .databases = databases};
    struct endpoint_row endpoint = {
        .id = "ep", .project_id = "p", .branch_id = "br", .wanted = ENDPOINT_ACTIVE, .agent = 1};
    mutation_put(mutation, ROW_PROJECT, &project);
    mutation_put(mutation, ROW_BRANCH, &branch);
    mutation_put(mutation, ROW_ENDPOINT, &endpoint);
    doc_unref(databases);
    return ERR_OK;
}

static inline struct endpoint *the_endpoint(void)
{
    return model_endpoint(api.model, "ep");
}

static inline void agent_begin(const struct http_route *routes, size_t count)
{
    struct nodes_options only_one = {.safekeepers = "", .token = ""};
    struct mutation_then then = {.done = on_rows};
    char agent[64], pageserver[64];
    api_begin();
    api.executor = executor;
    ck_assert_ok(http_client_create(api.loop, &client, &msg), &msg);
    ck_assert_ok(
        http_server_open(api.loop, "127.0.0.1", 0, &(struct http_options){0}, &server, &msg), &msg);
    http_server_add_routes(server, routes, count, &api.http);
    unsigned port = http_server_port(server);
    (void)snprintf(agent, sizeof agent, "1@127.0.0.1:%u", port);
    (void)snprintf(pageserver, sizeof pageserver, "1@127.0.0.1:%u/%u", port, port);
    (void)snprintf(base_url, sizeof base_url, "http://127.0.0.1:%u", port);
    only_one.agents = agent;
    only_one.pageservers = pageserver;
    ck_assert_ok(nodes_create(api.loop, client, &only_one, &hearing, &api.nodes, &msg), &msg);
    mutation_submit(mutation_of_our_own(&api, decide_rows, &then));
    loop_run(api.loop);
}

static inline void agent_end(void)
{
    http_client_destroy(client);
    http_server_close(server);
    nodes_destroy(api.nodes);
    api_end();
}
