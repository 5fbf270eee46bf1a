/* What a schema's reader says, of what the agent said: as it stands, and what is wrong with it. */
#include "tests/unit/api/agent_fixture.h"

static unsigned agent_status;
static const char *agent_says[2]; /* one reading after the other */
static unsigned readings;
static struct http_call call;
static struct http_guard *guard;

static void post_schema(struct http_context *context, struct http_request *request)
{
    (void)context;
    const char *text = agent_says[readings++];
    if (agent_status == 200) {
        http_respond_bytes(request, 200, "application/json", bytes_of_str(text));
    } else {
        http_respond_problem(request, agent_status, "SCHEMA_TOO_LARGE", text);
    }
}

static void get_of_store(struct http_context *context, struct http_request *request)
{
    (void)context;
    readings++;
    http_respond_json(request, 200, doc_set_int(doc_object(), "pages", 1));
}

static const struct http_route routes[] = {
    HTTP_ROUTE("POST", "/v1/computes/{id}/schema", post_schema, "", true),
    HTTP_ROUTE("GET", "/v1/tenants/{tenant}/timelines/{timeline}", get_of_store, "", true),
    HTTP_ROUTE("GET", "/v1/tenants/{tenant}/timelines/{timeline}/digest", get_of_store, "", true)};

static void on_answer(struct http_call *unused)
{
    (void)unused;
    loop_stop(api.loop);
}

/* GET of the branch, from a compute that runs. */
static void get(const char *what)
{
    char url[160];
    agent_begin(routes, ARRAY_LEN(routes));
    http_server_add_routes(server, schema_routes, schema_route_count, &api.http);
    http_server_add_routes(server, storage_routes, storage_route_count, &api.http);
    http_server_add_routes(server, branch_routes, branch_route_count, &api.http);
    http_server_set_guard(server, guard);
    nodes_find(api.nodes, NODE_PAGESERVER, 1)->reachable = true;
    the_endpoint()->seen = COMPUTE_RUNNING;
    (void)snprintf(url, sizeof url, "%s/api/v2/projects/p/branches/br%s", base_url, what);
    call = (struct http_call){.method = "GET", .url = url, .timeout_ms = 60000, .done = on_answer};
    http_call_start(client, &call);
    loop_run(api.loop);
    ck_assert_ok(call.result, &call.msg);
}

static void end(void)
{
    http_call_deinit(&call);
    agent_end();
}

/* Byte for byte: megabytes of it are nothing that control's loop takes apart and puts together. */
START_TEST(test_what_the_agent_wrote_is_handed_on)
{
    agent_status = 200;
    agent_says[0] = "{\"json\": {\"tables\" :  [ ]}}";
    get("/schema?format=json");
    ck_assert_uint_eq(call.status, 200);
    ck_assert_str_eq(buf_cstr(&call.response), agent_says[0]);
    end();
}
END_TEST

START_TEST(test_sql_is_no_json)
{
    agent_status = 200;
    agent_says[0] = "{\"sql\":\"CREATE TABLE t ();\"}";
    get("/schema?format=json"); /* of an agent that knows no other */
    ck_assert_uint_eq(call.status, 503);
    ck_assert_ptr_nonnull(strstr(buf_cstr(&call.response), "SCHEMA_NOT_READ"));
    end();
}
END_TEST

START_TEST(test_a_schema_that_is_too_large_is_the_clients_to_know)
{
    agent_status = 422;
    agent_says[0] = "the schema is larger than 8 MiB";
    get("/schema?format=json");
    ck_assert_uint_eq(call.status, 422);
    ck_assert_ptr_nonnull(strstr(buf_cstr(&call.response), "SCHEMA_TOO_LARGE"));
    ck_assert_ptr_nonnull(strstr(buf_cstr(&call.response), "larger than 8 MiB"));
    end();
}
END_TEST

START_TEST(test_two_schemas_are_compared)
{
    agent_status = 200;
    agent_says[0] = "{\"sql\":\"a\\nb\\n\"}";
    agent_says[1] = "{\"sql\":\"a\\nc\\n\"}";
    get("/compare_schema?base_branch_id=br");
    ck_assert_uint_eq(call.status, 200);
    ck_assert_ptr_nonnull(strstr(buf_cstr(&call.response), "\\n-c\\n+b\\n"));
    ck_assert_uint_eq(readings, 2);
    end();
}
END_TEST

START_TEST(test_what_cannot_be_compared_is_an_error)
{
    agent_status = 200;
    agent_says[0] = "{\"sql\":\"a\"}";
    agent_says[1] = "{\"sql\":\"a"; /* cut off */
    get("/compare_schema?base_branch_id=br");
    ck_assert_uint_eq(call.status, 503);
    end();
}
END_TEST

static bool admit(
    struct http_guard *unused, struct http_request *request, const struct http_route *route)
{
    (void)unused;
    if (!route->open) {
        http_request_set_actor(request, "key of nobody");
    }
    return true;
}

static void on_answered(
    struct http_guard *unused,
    const struct http_request *request,
    const struct http_route *route,
    unsigned status)
{
    (void)unused;
    (void)request;
    (void)route;
    (void)status;
}

/* It was good when the request came, and is not when the nodes have answered. */
START_TEST(test_who_comes_with_a_key_that_is_revoked_meanwhile_gets_nothing)
{
    static struct http_guard revoked = {.admit = admit, .answered = on_answered};
    static const char *const waited_for[] = {
        "/schema", "/compare_schema?base_branch_id=br", "/digest", ""};
    agent_status = 200;
    agent_says[0] = agent_says[1] = "{\"sql\":\"a\"}";
    guard = &revoked;
    for (size_t i = 0; i < ARRAY_LEN(waited_for); i++) {
        readings = 0;
        get(waited_for[i]);
        ck_assert_uint_gt(readings, 0);
        ck_assert_msg(call.status == 401, "%s: %u", waited_for[i], call.status);
        end();
    }
}
END_TEST

UNIT_MAIN(
    "api_schema",
    test_what_the_agent_wrote_is_handed_on,
    test_sql_is_no_json,
    test_a_schema_that_is_too_large_is_the_clients_to_know,
    test_two_schemas_are_compared,
    test_what_cannot_be_compared_is_an_error,
    test_who_comes_with_a_key_that_is_revoked_meanwhile_gets_nothing);
