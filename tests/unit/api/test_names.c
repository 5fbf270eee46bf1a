/* Names that were given before there were rules for them: they stay, and hinder nothing. */
#include "tests/unit/api/agent_fixture.h"

#define OLD "an\told\x1b[31m name"

static struct http_call call;

static err_t decide_old(struct mutation *mutation, struct errmsg *why)
{
    (void)why;
    struct project_row project = model_project(api.model, "p")->row;
    struct branch_row branch = model_branch(api.model, "br")->row;
    struct endpoint_row endpoint = the_endpoint()->row;
    struct branch_row deleted = {
        .id = "br-deleted",
        .name = OLD,
        .project_id = "p",
        .timeline = name_timeline(),
        .state = BRANCH_READY,
        .deleted_at = 1,
        .recoverable_until = api_now(&api) + (wall_us_t)3600 * 1000000};
    (void)snprintf(project.name, sizeof project.name, OLD);
    (void)snprintf(branch.name, sizeof branch.name, OLD " of br");
    (void)snprintf(endpoint.name, sizeof endpoint.name, OLD);
    mutation_put(mutation, ROW_PROJECT, &project);
    mutation_put(mutation, ROW_BRANCH, &branch);
    mutation_put(mutation, ROW_ENDPOINT, &endpoint);
    mutation_put(mutation, ROW_BRANCH, &deleted);
    return ERR_OK;
}

static void begin(void)
{
    struct mutation_then then = {.done = on_rows};
    agent_begin(project_routes, project_route_count);
    api.options.gateway_host = api.options.region_id = "";
    http_server_add_routes(server, branch_routes, branch_route_count, &api.http);
    http_server_add_routes(server, endpoint_routes, endpoint_route_count, &api.http);
    http_server_add_routes(server, recover_routes, recover_route_count, &api.http);
    mutation_submit(mutation_of_our_own(&api, decide_old, &then));
    loop_run(api.loop);
}

static void on_answer(struct http_call *unused)
{
    (void)unused;
    loop_stop(api.loop);
}

static void expect(unsigned status, const char *method, const char *path, const char *body)
{
    char url[160];
    (void)snprintf(url, sizeof url, "%s/api/v2/projects/p%s", base_url, path);
    call = (struct http_call){
        .method = method,
        .url = url,
        .body = bytes_of_str(body),
        .timeout_ms = 60000,
        .done = on_answer};
    http_call_start(client, &call);
    loop_run(api.loop);
    ck_assert_ok(call.result, &call.msg);
    ck_assert_msg(call.status == status, "%u: %s", call.status, buf_cstr(&call.response));
    http_call_deinit(&call);
}

START_TEST(test_what_has_an_old_name_can_be_changed)
{
    begin();
    expect(200, "PATCH", "", "{\"project\": {\"history_retention_seconds\": 7200}}");
    expect(200, "PATCH", "/branches/br", "{\"branch\": {\"protected\": true}}");
    expect(200, "PATCH", "/endpoints/ep", "{\"endpoint\": {\"suspend_timeout_seconds\": 600}}");
    ck_assert_str_eq(the_endpoint()->row.name, OLD);
    ck_assert_uint_eq(the_endpoint()->row.suspend_timeout_seconds, 600);
    agent_end();
}
END_TEST

START_TEST(test_what_has_an_old_name_can_be_recovered)
{
    begin();
    expect(200, "POST", "/branches/br-deleted/recover", "");
    ck_assert(branch_is_shown(model_branch(api.model, "br-deleted")));
    agent_end();
}
END_TEST

START_TEST(test_a_new_name_is_checked)
{
    begin();
    expect(400, "PATCH", "", "{\"project\": {\"name\": \"a\\nb\"}}");
    expect(400, "PATCH", "/branches/br", "{\"branch\": {\"name\": \"a\\nb\"}}");
    expect(400, "PATCH", "/endpoints/ep", "{\"endpoint\": {\"name\": \"a\\nb\"}}");
    expect(200, "PATCH", "/endpoints/ep", "{\"endpoint\": {\"name\": \"a b\"}}");
    ck_assert_str_eq(the_endpoint()->row.name, "a b");
    agent_end();
}
END_TEST

UNIT_MAIN(
    "api_names",
    test_what_has_an_old_name_can_be_changed,
    test_what_has_an_old_name_can_be_recovered,
    test_a_new_name_is_checked);
