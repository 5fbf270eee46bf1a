/*
 * The meter with a catalog and one pageserver, which says of a project what the test says. Its
 * polls are the test's as well: nobody asks for them.
 */
#include "control/act/meter.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/base/log.h"
#include "common/io/http_server.h"
#include "control/act/sizes.h"
#include "control/model/name.h"
#include "control/plan/usage.h"
#include "tests/unit/unit.h"

#define LSN(number) (lsn_t)(0x1000000 + (number)*8)
#define HOUR        ((wall_us_t)3600 * 1000000)
#define DAY         (24 * HOUR)
#define BRANCHES    400

static char path[64];
static struct errmsg msg;
static struct loop *loop;
static struct executor *executor;
static struct http_client *client;
static struct http_server *pageserver;
static struct http_context context;
static struct store *store;
static struct nodes *nodes;
static struct reconciler *reconciler;
static struct reconcile_user user;
static struct meter *meter;
static struct store_watcher watcher;
static struct change change;
static struct timer timer;
static unsigned branch_count, asked;
static bool is_broken;
static lsn_t root_end; /* of br-0, which began at LSN(0) and keeps all; others are its children */
static uint64_t written_on_child;
static size_t rows_now, rows_max;
static bool is_busy; /* all write again while a commit is under way */
static struct loop_task counted;
static bool (*is_over)(void);

/* ---- the pageserver ---- */

static struct branch *branch_number(unsigned number)
{
    char id[32];
    (void)snprintf(id, sizeof id, "br-%u", number);
    return model_branch(store_model(store), id);
}

static struct project *the_project(void)
{
    return model_project(store_model(store), "p");
}

static struct doc *end_of(const struct branch *branch, const char *end_name)
{
    bool is_root = branch->parent == NULL;
    struct doc *doc = doc_set_timeline(doc_object(), "timeline", branch->row.timeline);
    doc_set_lsn(doc, "start_lsn", branch->row.start_lsn);
    doc_set_lsn(doc, "cutoff_lsn", is_root ? LSN(10) : branch->row.start_lsn);
    doc_set_lsn(doc, end_name, is_root ? root_end : branch->row.start_lsn + written_on_child);
    return doc;
}

/* Of the root 1 MB; of br-1 2 MB, which began within the window; br-2 is a snapshot before it. */
static void get_size(struct http_context *unused, struct http_request *request)
{
    struct doc *branches = doc_array();
    (void)unused;
    asked++;
    if (is_broken) {
        doc_unref(branches);
        http_respond_problem(request, 503, "AWAY", "the disk hangs");
        return;
    }
    FOR_EACH_BRANCH(the_project(), branch)
    {
        doc_push(
            branches, doc_set_int(
                          end_of(branch, "end_lsn"), "logical_bytes",
                          branch->parent == NULL ? 1000000 : 2000000));
    }
    struct doc *answer = doc_set_int(doc_object(), "synthetic_bytes", 3000000);
    http_respond_json(request, 200, doc_set(answer, "branches", branches));
}

static const struct http_route routes[] = {
    HTTP_ROUTE("GET", "/v1/tenants/{tenant}/size", get_size, "", true)};

static void hear_a_poll(void)
{
    struct doc *timelines = doc_array();
    struct node *node = nodes_find(nodes, NODE_PAGESERVER, 1);
    struct nodes_user *hears = reconciler_nodes_user(reconciler);
    FOR_EACH_BRANCH(the_project(), branch)
    {
        doc_push(timelines, end_of(branch, "durable_lsn"));
    }
    struct doc *tenant = doc_set_tenant(doc_object(), "tenant", the_project()->row.tenant);
    doc_set(tenant, "timelines", timelines);
    struct doc *body = doc_set(doc_object(), "tenants", doc_push(doc_array(), tenant));
    node->polls++;
    hears->on_poll(hears, node, body);
    doc_unref(body);
}

/* ---- the story ---- */

static void on_ended(struct reconcile_user *unused, struct operation *operation)
{
    (void)unused;
    (void)operation;
}

/* The rows of one commit come all at once. */
static void on_counted(struct loop_task *unused)
{
    (void)unused;
    rows_max = MAX_OF(rows_max, rows_now);
    rows_now = 0;
    FOR_EACH_BRANCH(the_project(), branch)
    {
        branch->used.written_bytes += is_busy ? 7 : 0;
    }
}

static void count_rows(void)
{
    if (rows_now++ == 0) {
        counted.run = on_counted;
        loop_post(loop, &counted);
    }
}

static void on_applied(struct store_watcher *unused, enum row_kind kind, void *object)
{
    (void)unused;
    (void)object;
    if (kind == ROW_USAGE) {
        count_rows();
    }
}

static void on_removed(struct store_watcher *unused, enum row_kind kind, const union any_row *row)
{
    (void)unused;
    (void)row;
    if (kind == ROW_USAGE) {
        count_rows();
    }
}

static err_t prepare(struct change *to, struct errmsg *why)
{
    struct project_row project = {
        .id = "p", .name = "p", .system_id = "1", .tenant = name_tenant(), .pageserver = 1};
    (void)why;
    store_put(store, to, ROW_PROJECT, &project);
    for (unsigned i = 0; i < branch_count; i++) {
        struct branch_row branch = {
            .project_id = "p",
            .timeline = name_timeline(),
            .state = BRANCH_READY,
            .start_lsn = i == 0   ? LSN(0)
                         : i == 1 ? LSN(15)
                                  : LSN(5),
            .is_snapshot = i == 2,
            .is_ephemeral = i == 2,
        };
        (void)snprintf(branch.id, sizeof branch.id, "br-%u", i);
        (void)snprintf(branch.name, sizeof branch.name, "%u", i);
        (void)snprintf(branch.parent_id, sizeof branch.parent_id, "%s", i == 0 ? "" : "br-0");
        store_put(store, to, ROW_BRANCH, &branch);
    }
    return ERR_OK;
}

static void on_prepared(struct change *unused, err_t result, const struct errmsg *why)
{
    (void)unused;
    ck_assert_ok(result, why);
    loop_stop(loop);
}

static void on_tick(struct timer *unused)
{
    (void)unused;
    if (is_over() && store_is_idle(store) && rows_now == 0) {
        loop_stop(loop);
    } else {
        timer_start(loop, &timer, 1);
    }
}

static void run_until(bool (*is_it)(void))
{
    is_over = is_it;
    timer_start(loop, &timer, 1);
    loop_run(loop);
}

static void begin_with(unsigned branches)
{
    static const struct reconcile_options options = {.operation_timeout_ms = 60000};
    const struct catalog_options catalog = {.path = path};
    struct nodes_options with = {
        .safekeepers = "", .agents = "", .token = "", .poll_interval_ms = 3600000};
    char address[64];
    branch_count = branches;
    asked = 0;
    rows_max = 0;
    is_broken = is_busy = false;
    root_end = LSN(20);
    written_on_child = 80;
    log_init("test", LOG_LEVEL_ERROR);
    unit_folder(path, sizeof(path), "test_meter");
    ck_assert_ok(loop_create(&loop, &msg), &msg);
    ck_assert_ok(executor_create(loop, 1, &executor, &msg), &msg);
    ck_assert_ok(http_client_create(loop, &client, &msg), &msg);
    ck_assert_ok(store_open(loop, executor, &catalog, &store, &msg), &msg);
    ck_assert_ok(
        http_server_open(loop, "127.0.0.1", 0, &(struct http_options){0}, &pageserver, &msg), &msg);
    http_server_add_routes(pageserver, routes, ARRAY_LEN(routes), &context);
    (void)snprintf(address, sizeof address, "1@127.0.0.1:1/%u", http_server_port(pageserver));
    with.pageservers = address;
    user.on_operation_ended = on_ended;
    reconciler = reconciler_create(loop, store, &options, &user);
    ck_assert_ok(
        nodes_create(loop, client, &with, reconciler_nodes_user(reconciler), &nodes, &msg), &msg);
    watcher = (struct store_watcher){.on_applied = on_applied, .on_removed = on_removed};
    store_watch(store, &watcher);
    timer.on_fire = on_tick;
    change = (struct change){.prepare = prepare, .done = on_prepared};
    store_submit(store, &change);
    loop_run(loop);
    reconciler_start(reconciler, nodes);
    meter = meter_start(loop, store, reconciler, nodes);
}

static void end(void)
{
    char command[128];
    timer_stop(&timer);
    meter_stop(meter);
    reconciler_stop(reconciler);
    store_unwatch(&watcher);
    http_client_destroy(client);
    http_server_close(pageserver);
    executor_destroy(executor);
    nodes_destroy(nodes);
    reconciler_destroy(reconciler);
    store_close(store);
    loop_destroy(loop);
    (void)snprintf(command, sizeof command, "rm -rf %s", path);
    ck_assert_int_eq(system(command), 0);
}

/* ---- how much is recorded at once ---- */

static bool all_is_recorded(void)
{
    FOR_EACH_BRANCH(the_project(), branch)
    {
        if (branch->used.written_bytes != 0) {
            return false;
        }
    }
    return the_project()->used.written_bytes == 0;
}

START_TEST(test_a_minute_is_recorded_in_commits_of_so_many_rows)
{
    begin_with(BRANCHES);
    the_project()->used.written_bytes = 7 * BRANCHES;
    FOR_EACH_BRANCH(the_project(), branch)
    {
        branch->used.written_bytes = 7;
    }
    meter_record(meter);
    run_until(all_is_recorded);
    ck_assert_uint_gt(rows_max, 1);
    ck_assert_uint_le(rows_max, METER_ROWS_MAX + USAGE_GRANULARITIES);
    FOR_EACH_BRANCH(the_project(), branch)
    {
        size_t count = 0;
        FOR_EACH_USAGE(branch, usage)
        {
            count++;
            ck_assert_uint_eq(usage->row.written_bytes, 7);
        }
        ck_assert_uint_eq(count, USAGE_GRANULARITIES);
    }
    end();
}
END_TEST

static bool has_everybody_a_row(void)
{
    FOR_EACH_BRANCH(the_project(), branch)
    {
        if (list_is_empty(&branch->usages)) {
            return false;
        }
    }
    return true;
}

/* The first would be recorded again and again, and the last never. */
START_TEST(test_who_writes_while_a_minute_is_recorded_is_recorded_once_in_it)
{
    begin_with(BRANCHES);
    is_busy = true;
    FOR_EACH_BRANCH(the_project(), branch)
    {
        branch->used.written_bytes = 7;
    }
    meter_record(meter);
    run_until(has_everybody_a_row);
    is_busy = false;
    meter_record(meter);
    run_until(all_is_recorded);
    end();
}
END_TEST

/* ---- what is stored ---- */

static bool is_measured(void)
{
    return the_project()->measured.is_known && !the_project()->measuring;
}

static bool is_on_record(void)
{
    FOR_EACH_BRANCH(the_project(), branch)
    {
        if (branch->measured.is_due) {
            return false;
        }
    }
    return !the_project()->measured.is_due;
}

static bool was_asked_and_answered(void)
{
    return asked > 0 && !the_project()->measuring;
}

static void measure(void)
{
    asked = 0;
    hear_a_poll();
    meter_record(meter);
    run_until(was_asked_and_answered);
}

static void record(void)
{
    meter_record(meter);
    run_until(is_on_record);
}

/* It would have been asked for when meter_record() returns. */
static void assert_is_not_measured(void)
{
    hear_a_poll();
    meter_record(meter);
    ck_assert(!the_project()->measuring);
}

static void assert_stored(const struct list *usages, enum stored_kind kind, uint64_t bytes)
{
    ck_assert_uint_eq(usage_stored(usages).of[kind], bytes);
}

START_TEST(test_what_is_stored_is_asked_for_and_recorded)
{
    begin_with(3);
    measure();
    ck_assert(is_measured());
    record();
    const struct project *project = the_project();
    assert_stored(&project->usages, STORED_SYNTHETIC, 3000000);
    assert_stored(&project->usages, STORED_LOGICAL, 1000000 + 2000000);
    assert_stored(&project->usages, STORED_ROOT, 1000000);
    assert_stored(&project->usages, STORED_RESTORE, 10 * 8);
    assert_stored(&project->usages, STORED_CHILD, 80);
    assert_stored(&project->usages, STORED_SNAPSHOT, 5 * 8);
    assert_stored(&branch_number(0)->usages, STORED_ROOT, 1000000);
    assert_stored(&branch_number(0)->usages, STORED_RESTORE, 10 * 8);
    assert_stored(&branch_number(1)->usages, STORED_CHILD, 80);
    ck_assert_uint_eq(branch_number(1)->logical_bytes, 2000000);
    ck_assert(list_is_empty(&branch_number(2)->usages)); /* a snapshot is its project's */
    end();
}
END_TEST

START_TEST(test_only_what_has_changed_is_asked_for_again_and_seldom)
{
    begin_with(2);
    measure();
    assert_is_not_measured();
    reconciler_set_clock_ahead(reconciler, HOUR);
    assert_is_not_measured(); /* nothing has changed */
    root_end = LSN(30);
    measure();
    record();
    assert_stored(&the_project()->usages, STORED_RESTORE, 20 * 8);
    root_end = LSN(40);
    assert_is_not_measured(); /* too soon */
    reconciler_set_clock_ahead(reconciler, HOUR + SIZES_EVERY_US);
    measure();
    reconciler_set_clock_ahead(reconciler, 2 * HOUR + SIZES_ALWAYS_US);
    measure(); /* a lease may have ended */
    end();
}
END_TEST

START_TEST(test_a_fresh_branch_has_no_rows)
{
    begin_with(2);
    written_on_child = 0;
    measure();
    record();
    ck_assert(branch_number(1)->measured.is_known);
    ck_assert_uint_eq(branch_number(1)->logical_bytes, 2000000);
    ck_assert(list_is_empty(&branch_number(1)->usages));
    end();
}
END_TEST

START_TEST(test_a_branch_that_is_as_it_was_gets_no_row)
{
    begin_with(2);
    measure();
    record();
    reconciler_set_clock_ahead(reconciler, 30 * DAY);
    root_end = LSN(30);
    measure();
    record();
    size_t of_root = 0, of_child = 0;
    FOR_EACH_USAGE(branch_number(0), usage)
    {
        of_root += usage->row.granularity == USAGE_DAILY;
    }
    FOR_EACH_USAGE(branch_number(1), usage)
    {
        of_child += usage->row.granularity == USAGE_DAILY;
    }
    ck_assert_uint_eq(of_root, 2);
    ck_assert_uint_eq(of_child, 1);
    end();
}
END_TEST

START_TEST(test_a_pageserver_without_an_answer_changes_nothing)
{
    begin_with(2);
    measure();
    record();
    root_end = LSN(30);
    is_broken = true;
    reconciler_set_clock_ahead(reconciler, HOUR);
    measure();
    ck_assert_uint_eq(asked, 1);
    ck_assert(is_on_record());
    assert_is_not_measured(); /* it is left alone for a while */
    is_broken = false;
    reconciler_set_clock_ahead(reconciler, HOUR + SIZES_EVERY_US);
    measure();
    record();
    assert_stored(&the_project()->usages, STORED_RESTORE, 20 * 8);
    end();
}
END_TEST

static size_t hours_of(const struct list *usages)
{
    size_t count = 0;
    LIST_FOR_EACH(usages, link)
    {
        count += CONTAINER_OF(link, struct usage, in_target)->row.granularity == USAGE_HOURLY;
    }
    return count;
}

static bool is_swept(void)
{
    return hours_of(&the_project()->usages) == 1 && hours_of(&branch_number(1)->usages) == 1;
}

/* Nothing new is recorded of them any more, and the size that holds is not forgotten. */
START_TEST(test_of_rows_that_are_too_old_the_last_size_stays)
{
    begin_with(2);
    measure();
    record();
    reconciler_set_clock_ahead(reconciler, HOUR);
    the_project()->used.written_bytes = branch_number(1)->used.written_bytes = 7;
    meter_record(meter);
    run_until(all_is_recorded);
    ck_assert_uint_eq(hours_of(&the_project()->usages), 2);
    reconciler_set_clock_ahead(reconciler, 9 * DAY);
    meter_record(meter);
    run_until(is_swept);
    assert_stored(&the_project()->usages, STORED_SYNTHETIC, 3000000);
    assert_stored(&branch_number(1)->usages, STORED_CHILD, 80);
    end();
}
END_TEST

UNIT_MAIN(
    "meter",
    test_a_minute_is_recorded_in_commits_of_so_many_rows,
    test_who_writes_while_a_minute_is_recorded_is_recorded_once_in_it,
    test_what_is_stored_is_asked_for_and_recorded,
    test_only_what_has_changed_is_asked_for_again_and_seldom,
    test_a_fresh_branch_has_no_rows,
    test_a_branch_that_is_as_it_was_gets_no_row,
    test_a_pageserver_without_an_answer_changes_nothing,
    test_of_rows_that_are_too_old_the_last_size_stays);
