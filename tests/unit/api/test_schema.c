/* What a schema's reader says, of what the agent said: as it stands, and what is wrong with it. */
#include "tests/unit/api/agent_fixture.h"

static unsigned agent_status;
static const char *agent_says[2]; /* one reading after the other */
static unsigned readings;
static struct http_call call;

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

static const struct http_route routes[] = {
    HTTP_ROUTE("POST", "/v1/computes/{id}/schema", post_schema, "", true)};

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
    the_endpoint()->seen = COMPUTE_RUNNING;
    (void)snprintf(url, sizeof url, "%s/api/v2/projects/p/branches/br/%s", base_url, what);
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
    get("schema?format=json");
    ck_assert_uint_eq(call.status, 200);
    ck_assert_str_eq(buf_cstr(&call.response), agent_says[0]);
    end();
}
END_TEST

START_TEST(test_sql_is_no_json)
{
    agent_status = 200;
    agent_says[0] = "{\"sql\":\"CREATE TABLE t ();\"}";
    get("schema?format=json"); /* of an agent that knows no other */
    ck_assert_uint_eq(call.status, 503);
    ck_assert_ptr_nonnull(strstr(buf_cstr(&call.response), "SCHEMA_NOT_READ"));
    end();
}
END_TEST

START_TEST(test_a_schema_that_is_too_large_is_the_clients_to_know)
{
    agent_status = 422;
    agent_says[0] = "the schema is larger than 8 MiB";
    get("schema?format=json");
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
    get("compare_schema?base_branch_id=br");
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
    get("compare_schema?base_branch_id=br");
    ck_assert_uint_eq(call.status, 503);
    end();
}
END_TEST

UNIT_MAIN(
    "api_schema",
    test_what_the_agent_wrote_is_handed_on,
    test_sql_is_no_json,
    test_a_schema_that_is_too_large_is_the_clients_to_know,
    test_two_schemas_are_compared,
    test_what_cannot_be_compared_is_an_error);
