/* What is answered about consumption, of rows that are in the model. */
#include "tests/unit/api/api_fixture.h"

#include "common/base/clock.h"
#include "common/io/http_client.h"
#include "common/io/http_server.h"
#include "control/plan/usage.h"

#define HOUR     ((wall_us_t)3600 * 1000000)
#define BRANCHES 130
#define SIZE     1000
#define WEEK     "?granularity=hourly&from=2020-01-01T00:00:00Z&to=2090-01-01T00:00:00Z"

static struct http_server *server;
static struct http_client *client;
static struct http_call call;
static wall_us_t now;

/* ---- rows ---- */

static void apply(enum row_kind kind, const union any_row *row)
{
    void *object = NULL;
    ck_assert_ok(model_apply(api.model, kind, row, &object, &msg), &msg);
}

static void put_project(const char *id, enum project_state state, wall_us_t updated_at)
{
    union any_row row = {
        .project = {.tenant = name_tenant(), .state = state, .seq = 1, .updated_at = updated_at}};
    (void)snprintf(row.project.id, sizeof row.project.id, "%s", id);
    apply(ROW_PROJECT, &row);
}

static void put_branch(unsigned number)
{
    union any_row row = {
        .branch = {
            .project_id = "p",
            .timeline = name_timeline(),
            .state = BRANCH_READY,
            .seq = 10 + number,
        }};
    (void)snprintf(row.branch.id, sizeof row.branch.id, "br-%u", number);
    (void)snprintf(row.branch.name, sizeof row.branch.name, "%u", number);
    apply(ROW_BRANCH, &row);
}

/* Since so many hours ago SIZE bytes are stored. */
static void put_usage(const char *project, const char *branch, int64_t hours)
{
    union any_row row = {
        .usage = {
            .granularity = USAGE_HOURLY,
            .begin = usage_begin(USAGE_HOURLY, now - hours * HOUR),
            .active_ms = 5000,
            .stored_at = usage_begin(USAGE_HOURLY, now - hours * HOUR),
            .stored = {.of = {[STORED_CHILD] = SIZE, [STORED_SYNTHETIC] = SIZE}},
        }};
    (void)snprintf(
        row.usage.id, sizeof row.usage.id, "%.20s.%.20s.%d", project, branch, (int)hours);
    (void)snprintf(row.usage.project_id, sizeof row.usage.project_id, "%s", project);
    (void)snprintf(row.usage.branch_id, sizeof row.usage.branch_id, "%s", branch);
    apply(ROW_USAGE, &row);
}

/* ---- a client ---- */

static void on_answer(struct http_call *unused)
{
    (void)unused;
    loop_stop(api.loop);
}

static struct doc *ask(const char *path)
{
    char url[400];
    struct doc *answer = NULL;
    (void)snprintf(
        url, sizeof url, "http://127.0.0.1:%u/api/v2/consumption_history%s",
        (unsigned)http_server_port(server), path);
    call = (struct http_call){.method = "GET", .url = url, .timeout_ms = 60000, .done = on_answer};
    http_call_start(client, &call);
    loop_run(api.loop);
    ck_assert_ok(call.result, &call.msg);
    ck_assert_ok(http_call_json(&call, &answer, &msg), &msg);
    ck_assert_uint_eq(call.status, 200);
    http_call_deinit(&call);
    return answer;
}

static const struct doc *frames_of(const struct doc *of)
{
    return doc_get(doc_at(doc_get(of, "periods"), 0), "consumption");
}

static int64_t number_of(const struct doc *frame, const char *name)
{
    int64_t number = -1;
    ck_assert_ok(doc_opt_i64(frame, name, &number, &msg), &msg);
    return number;
}

static void begin(void)
{
    api_begin();
    api.executor = executor;
    now = usage_begin(USAGE_HOURLY, clock_wall()) + HOUR / 2; /* no hour ends meanwhile */
    api.clock_ahead = now - clock_wall();
    ck_assert_ok(http_client_create(api.loop, &client, &msg), &msg);
    ck_assert_ok(
        http_server_open(api.loop, "127.0.0.1", 0, &(struct http_options){0}, &server, &msg), &msg);
    http_server_add_routes(server, consumption_routes, consumption_route_count, &api.http);
}

static void end(void)
{
    http_client_destroy(client);
    http_server_close(server);
    api_end();
}

/* ---- pages ---- */

static size_t count_of_page(const char *cursor, char *ret_cursor, size_t size)
{
    char path[300];
    (void)snprintf(
        path, sizeof path, "/v2/branches" WEEK "&project_ids=p&limit=1000&cursor=%s", cursor);
    struct doc *answer = ask(path);
    const struct doc *branches = doc_get(answer, "branches");
    for (size_t i = 0; i < doc_count(branches); i++) {
        ck_assert_uint_eq(doc_count(frames_of(doc_at(branches, i))), USAGE_HOURS);
    }
    const char *next = doc_value_str(doc_get(doc_get(answer, "pagination"), "cursor"));
    (void)snprintf(ret_cursor, size, "%s", next == NULL ? "" : next);
    size_t count = doc_count(branches);
    doc_unref(answer);
    return count;
}

START_TEST(test_a_page_of_many_frames_ends_early_and_the_next_has_the_rest)
{
    char id[32], cursor[64];
    begin();
    put_project("p", PROJECT_ACTIVE, now);
    for (unsigned i = 0; i < BRANCHES; i++) {
        put_branch(i);
        (void)snprintf(id, sizeof id, "br-%u", i);
        put_usage("p", id, 1000);
    }
    size_t first = count_of_page("", cursor, sizeof cursor);
    ck_assert_uint_lt(first, BRANCHES);
    ck_assert_uint_ge(first * USAGE_HOURS, 20000);
    ck_assert_uint_lt((first - 1) * USAGE_HOURS, 20000);
    ck_assert_uint_eq(count_of_page(cursor, cursor, sizeof cursor), BRANCHES - first);
    ck_assert_uint_eq(count_of_page(cursor, cursor, sizeof cursor), 0);
    end();
}
END_TEST

START_TEST(test_a_project_that_is_gone_stores_nothing_more)
{
    begin();
    put_project("p", PROJECT_ACTIVE, now);
    put_project("gone", PROJECT_DELETED, now - 10 * HOUR);
    put_usage("p", "", 12);
    put_usage("gone", "", 12);
    struct doc *answer = ask("/account" WEEK);
    const struct doc *frames = frames_of(answer);
    ck_assert_uint_eq(doc_count(frames), 13);
    ck_assert_int_eq(number_of(doc_at(frames, 0), "active_time_seconds"), 10);
    ck_assert_int_eq(number_of(doc_at(frames, 1), "synthetic_storage_size_bytes"), 2 * SIZE);
    for (size_t i = 3; i < 13; i++) {
        ck_assert_int_eq(number_of(doc_at(frames, i), "synthetic_storage_size_bytes"), SIZE);
    }
    doc_unref(answer);
    end();
}
END_TEST

/* Its deletion may take days, while a store is away: the periods of others are not to suffer. */
START_TEST(test_what_is_gone_shows_no_older_periods_than_others)
{
    begin();
    put_project("gone", PROJECT_DELETING, now - 100 * HOUR);
    put_project("p", PROJECT_ACTIVE, now);
    put_usage("gone", "", 1000);
    put_usage("p", "", 1000);
    struct doc *answer = ask("/account" WEEK);
    const struct doc *frames = frames_of(answer);
    ck_assert_uint_eq(doc_count(frames), USAGE_HOURS);
    for (size_t i = 0; i < USAGE_HOURS; i++) {
        ck_assert_int_eq(
            number_of(doc_at(frames, i), "synthetic_storage_size_bytes"),
            i < USAGE_HOURS - 100 ? 2 * SIZE : SIZE);
    }
    doc_unref(answer);
    end();
}
END_TEST

/* ---- metrics ---- */

static struct doc *second_frame(const char *path, struct doc **answer)
{
    *answer = ask(path);
    const struct doc *projects = doc_get(*answer, "projects");
    ck_assert_uint_eq(doc_count(projects), 1);
    ck_assert_uint_eq(doc_count(frames_of(doc_at(projects, 0))), 3);
    return doc_at(frames_of(doc_at(projects, 0)), 1);
}

static void given_three_hours(void)
{
    begin();
    put_project("p", PROJECT_ACTIVE, now);
    put_usage("p", "", 2);
}

START_TEST(test_v1_has_its_four_and_what_is_named)
{
    struct doc *answer;
    given_three_hours();
    const struct doc *frame = second_frame("/projects" WEEK, &answer);
    ck_assert_int_eq(number_of(frame, "active_time_seconds"), 0);
    ck_assert_int_eq(number_of(frame, "compute_time_seconds"), 0);
    ck_assert_int_eq(number_of(frame, "written_data_bytes"), 0);
    ck_assert_int_eq(number_of(frame, "synthetic_storage_size_bytes"), SIZE);
    ck_assert_int_eq(number_of(frame, "data_storage_bytes_hour"), -1);
    ck_assert_int_eq(number_of(frame, "child_branch_bytes_month"), -1);
    doc_unref(answer);
    frame = second_frame("/projects" WEEK "&metrics=data_storage_bytes_hour", &answer);
    ck_assert_int_eq(number_of(frame, "data_storage_bytes_hour"), SIZE);
    ck_assert_int_eq(number_of(frame, "synthetic_storage_size_bytes"), SIZE);
    ck_assert_int_eq(number_of(frame, "logical_size_bytes"), -1);
    doc_unref(answer);
    end();
}
END_TEST

START_TEST(test_v2_has_what_is_named_and_is_measured)
{
    struct doc *answer;
    given_three_hours();
    const struct doc *frame = second_frame(
        "/v2/projects" WEEK
        "&metrics=child_branch_bytes_month,public_network_transfer_bytes&metrics="
        "data_storage_bytes_hour",
        &answer);
    const struct doc *metrics = doc_get(frame, "metrics");
    ck_assert_uint_eq(doc_count(metrics), 2);
    ck_assert_str_eq(
        doc_value_str(doc_get(doc_at(metrics, 0), "metric_name")), "data_storage_bytes_hour");
    ck_assert_str_eq(
        doc_value_str(doc_get(doc_at(metrics, 1), "metric_name")), "child_branch_bytes_month");
    ck_assert_int_eq(number_of(doc_at(metrics, 1), "value"), SIZE);
    ck_assert_int_eq(number_of(frame, "active_time_seconds"), -1);
    doc_unref(answer);
    end();
}
END_TEST

UNIT_MAIN(
    "api_consumption",
    test_a_page_of_many_frames_ends_early_and_the_next_has_the_rest,
    test_a_project_that_is_gone_stores_nothing_more,
    test_what_is_gone_shows_no_older_periods_than_others,
    test_v1_has_its_four_and_what_is_named,
    test_v2_has_what_is_named_and_is_measured);
