/*
 * The reconciler with a catalog and one agent, which answers as the test says. The catalog's disk
 * is as slow as the test wants: its one worker waits.
 */
#include "control/act/reconcile.h"

#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/io/http_server.h"
#include "control/model/name.h"
#include "tests/unit/unit.h"

static char path[64];
static struct errmsg msg;
static struct loop *loop;
static struct executor *executor;
static struct http_client *client;
static struct http_server *agent;
static struct http_context context;
static struct store *store;
static struct nodes *nodes;
static struct reconciler *reconciler;
static struct reconcile_user user;
static struct reconcile_options options;
static struct store_watcher watcher;
static struct change change, later;
static struct timer timer;
static unsigned deletions, ticks;
static bool removed, stops_when_running;
static size_t rows_now, rows_max;
static struct loop_task counted;
static struct nodes_options only_agent = {
    .safekeepers = "", .pageservers = "", .token = "", .poll_interval_ms = 60000};

/* ---- a disk that hangs ---- */

static sem_t may_go_on;
static struct job held;

static err_t run_held(struct job *job)
{
    (void)job;
    while (sem_wait(&may_go_on) != 0) {
    }
    return ERR_OK;
}

static void done_held(struct job *job)
{
    (void)job;
}

static void hold_the_disk(void)
{
    held = (struct job){.run = run_held, .done = done_held};
    executor_submit(executor, &held);
}

/* ---- the agent ---- */

/* The compute is gone; from here on the disk hangs, so that its row goes only when it may. */
static void delete_compute(struct http_context *unused, struct http_request *request)
{
    (void)unused;
    if (deletions++ == 0) {
        hold_the_disk();
        http_respond_problem(request, 404, "NOT_FOUND", "there is no such compute");
    } /* what comes after is answered by nobody */
}

/* ---- and the pageserver: its generations of the tenant of p, and of br-1 ---- */

static char own_address[64]; /* where it is, for nodes_options */
static uint64_t held_generation, held_membership;
static unsigned timelines_put;
static bool holds_at_put; /* the catalog's disk hangs when the first one has come */
static unsigned polls_in_vain;
static bool was_lost;

static void put_tenant(struct http_context *unused, struct http_request *request)
{
    (void)unused;
    held_generation = model_project(store_model(store), "p")->row.generation;
    http_respond_json(request, 200, doc_object());
}

static void put_timeline(struct http_context *unused, struct http_request *request)
{
    (void)unused;
    if (timelines_put++ == 0 && holds_at_put) {
        hold_the_disk();
    }
    held_membership = model_branch(store_model(store), "br-1")->row.membership_generation;
    http_respond_json(request, 200, doc_object());
}

static unsigned erasures; /* asked for */
static bool is_erased;

static void delete_tenant(struct http_context *unused, struct http_request *request)
{
    (void)unused;
    erasures++;
    if (is_erased) {
        http_respond_problem(request, 404, "NOT_FOUND", "nothing is left of it");
    } else {
        http_respond_json(request, 200, doc_object());
    }
}

static const struct http_route routes[] = {
    HTTP_ROUTE("DELETE", "/v1/tenants/{tenant}", delete_tenant, "", true),
    HTTP_ROUTE("DELETE", "/v1/computes/{id}", delete_compute, "", true),
    HTTP_ROUTE("PUT", "/v1/tenants/{tenant}", put_tenant, "", true),
    HTTP_ROUTE("PUT", "/v1/tenants/{tenant}/timelines/{timeline}", put_timeline, "", true)};

/* ---- the story ---- */

static void on_ended(struct reconcile_user *unused, struct operation *operation)
{
    (void)unused;
    (void)operation;
}

static void on_changed(struct reconcile_user *unused, struct endpoint *endpoint)
{
    (void)unused;
    if (stops_when_running && endpoint->seen == COMPUTE_RUNNING) {
        loop_stop(loop);
    }
}

static void on_applied(struct store_watcher *unused, enum row_kind kind, void *object)
{
    (void)unused;
    (void)kind;
    (void)object;
}

static void on_removed(struct store_watcher *unused, enum row_kind kind, const union any_row *row)
{
    (void)unused;
    (void)row;
    removed = kind == ROW_ENDPOINT;
    loop_stop(loop);
}

/* The rows of one commit come all at once. */
static void on_counted(struct loop_task *unused)
{
    (void)unused;
    rows_max = MAX_OF(rows_max, rows_now);
    rows_now = 0;
}

static void count_removed(
    struct store_watcher *unused, enum row_kind kind, const union any_row *row)
{
    (void)unused;
    (void)kind;
    (void)row;
    if (rows_now++ == 0) {
        counted.run = on_counted;
        loop_post(loop, &counted);
    }
}

/* A list that the agent made before it deleted the compute. */
static void hear_an_old_list(void)
{
    struct doc *compute = doc_set_str(doc_object(), "id", "ep-1");
    doc_set_str(compute, "state", "running");
    struct doc *list = doc_set(doc_object(), "computes", doc_push(doc_array(), compute));
    struct nodes_user *hears = reconciler_nodes_user(reconciler);
    hears->on_poll(hears, nodes_find(nodes, NODE_AGENT, 1), list);
    doc_unref(list);
}

/* Each tick is a turn of the loop: the commit that takes the row away has begun by the third. */
static void on_tick(struct timer *unused)
{
    (void)unused;
    ticks += !store_is_idle(store);
    if (ticks == 3) {
        hear_an_old_list();
    } else if (ticks == 6) {
        ck_assert_int_eq(sem_post(&may_go_on), 0);
    }
    timer_start(loop, &timer, 1);
}

/* A project with one branch, br-1, and a compute of it on host 1, ep-1. */
static void put_project(struct change *to, const char *id, enum endpoint_wanted wanted)
{
    struct project_row project = {.system_id = "1", .tenant = name_tenant()};
    struct branch_row branch = {
        .id = "br-1", .name = "b", .timeline = name_timeline(), .state = BRANCH_READY};
    struct endpoint_row endpoint = {
        .id = "ep-1", .branch_id = "br-1", .wanted = wanted, .agent = 1};
    (void)snprintf(project.id, sizeof project.id, "%s", id);
    (void)snprintf(project.name, sizeof project.name, "%s", id);
    (void)snprintf(branch.project_id, sizeof branch.project_id, "%s", id);
    (void)snprintf(endpoint.project_id, sizeof endpoint.project_id, "%s", id);
    store_put(store, to, ROW_PROJECT, &project);
    store_put(store, to, ROW_BRANCH, &branch);
    store_put(store, to, ROW_ENDPOINT, &endpoint);
}

static err_t prepare(struct change *to, struct errmsg *why)
{
    (void)why;
    struct image_row image = {.id = "pg17"};
    store_put(store, to, ROW_IMAGE, &image);
    put_project(to, "p", ENDPOINT_DELETING);
    return ERR_OK;
}

/* It finds the catalog as it does after a start of control. */
static void on_prepared(struct change *unused, err_t result, const struct errmsg *why)
{
    (void)unused;
    ck_assert_ok(result, why);
    reconciler = reconciler_create(loop, store, &options, &user);
    ck_assert_ok(
        nodes_create(loop, client, &only_agent, reconciler_nodes_user(reconciler), &nodes, &msg),
        &msg);
    store_watch(store, &watcher);
    reconciler_start(reconciler, nodes);
    timer_start(loop, &timer, 1);
}

static void begin_with(
    const char *agents_or_none,
    uint64_t operation_timeout_ms,
    err_t (*prepares)(struct change *change, struct errmsg *why),
    void (*ticks_by)(struct timer *timer))
{
    const struct catalog_options catalog = {.path = path};
    static char agents[64];
    options = (struct reconcile_options){.operation_timeout_ms = operation_timeout_ms};
    log_init("test", LOG_LEVEL_ERROR);
    unit_folder(path, sizeof(path), "test_reconcile");
    ck_assert_int_eq(sem_init(&may_go_on, 0, 0), 0);
    ck_assert_ok(loop_create(&loop, &msg), &msg);
    ck_assert_ok(executor_create(loop, 1, &executor, &msg), &msg);
    ck_assert_ok(http_client_create(loop, &client, &msg), &msg);
    ck_assert_ok(store_open(loop, executor, &catalog, &store, &msg), &msg);
    ck_assert_ok(
        http_server_open(loop, "127.0.0.1", 0, &(struct http_options){0}, &agent, &msg), &msg);
    http_server_add_routes(agent, routes, ARRAY_LEN(routes), &context);
    (void)snprintf(agents, sizeof agents, "1@127.0.0.1:%u", http_server_port(agent));
    (void)snprintf(own_address, sizeof own_address, "1@127.0.0.1:1/%u", http_server_port(agent));
    user =
        (struct reconcile_user){.on_operation_ended = on_ended, .on_endpoint_changed = on_changed};
    only_agent.agents = agents_or_none == NULL ? agents : agents_or_none;
    watcher = (struct store_watcher){.on_applied = on_applied, .on_removed = on_removed};
    timer.on_fire = ticks_by;
    change = (struct change){.prepare = prepares, .done = on_prepared};
    store_submit(store, &change);
}

static void end(void)
{
    char command[128];
    timer_stop(&timer);
    reconciler_stop(reconciler);
    store_unwatch(&watcher);
    http_client_destroy(client);
    http_server_close(agent);
    executor_destroy(executor);
    nodes_destroy(nodes);
    reconciler_destroy(reconciler);
    store_close(store);
    loop_destroy(loop);
    (void)snprintf(command, sizeof command, "rm -rf %s", path);
    ck_assert_int_eq(system(command), 0);
}

START_TEST(test_no_step_begins_for_what_the_commit_under_way_takes_away)
{
    begin_with(NULL, 60000, prepare, on_tick);
    loop_run(loop);
    ck_assert(removed);
    end();
    ck_assert_uint_eq(deletions, 1);
}
END_TEST

/* ---- what is told ---- */

static err_t prepare_wanted(struct change *to, struct errmsg *why)
{
    (void)why;
    put_project(to, "p", ENDPOINT_ACTIVE);
    return ERR_OK;
}

/* Once it is planned as it was found. */
static void on_tick_running(struct timer *unused)
{
    (void)unused;
    if (ticks++ == 3) {
        hear_an_old_list();
    }
    timer_start(loop, &timer, 1);
}

/* Who is not told waits for ever. */
START_TEST(test_a_compute_that_is_seen_to_run_is_told)
{
    stops_when_running = true;
    begin_with(NULL, 60000, prepare_wanted, on_tick_running);
    loop_run(loop);
    end();
}
END_TEST

/* ---- while no agent answers ---- */

static void put_branch_with_an_end(
    struct change *to, const char *id, wall_us_t expires_at, wall_us_t recoverable_until)
{
    struct branch_row branch = {
        .project_id = "q",
        .timeline = name_timeline(),
        .state = BRANCH_READY,
        .expires_at = expires_at,
        .recoverable_until = recoverable_until};
    (void)snprintf(branch.id, sizeof branch.id, "%s", id);
    (void)snprintf(branch.name, sizeof branch.name, "%s", id);
    store_put(store, to, ROW_BRANCH, &branch);
}

/*
 * p and a branch of q could be recovered until a while ago, and another one has had its time; a
 * compute of q is to start.
 */
static err_t prepare_expired(struct change *to, struct errmsg *why)
{
    (void)why;
    struct project_row gone = {
        .id = "p", .name = "p", .tenant = name_tenant(), .deleted_at = 1, .recoverable_until = 2};
    struct operation_row operation = {
        .id = "op-1",
        .project_id = "q",
        .branch_id = "br-1",
        .endpoint_id = "ep-1",
        .action = ACTION_START_COMPUTE,
        .status = STATUS_RUNNING};
    store_put(store, to, ROW_PROJECT, &gone);
    put_project(to, "q", ENDPOINT_ACTIVE);
    put_branch_with_an_end(to, "br-old", 2, 0);
    put_branch_with_an_end(to, "br-aside", 0, 2);
    put_branch_with_an_end(to, "br-young", INT64_MAX, 0);
    store_put(store, to, ROW_OPERATION, &operation);
    return ERR_OK;
}

/* Another one, once the first has ended: it is not looked for only once. */
static err_t prepare_later(struct change *unused, struct errmsg *why)
{
    (void)why;
    struct operation_row operation = {
        .id = "op-2",
        .project_id = "q",
        .branch_id = "br-1",
        .endpoint_id = "ep-1",
        .action = ACTION_START_COMPUTE,
        .status = STATUS_RUNNING};
    store_put(store, unused, ROW_OPERATION, &operation);
    put_branch_with_an_end(unused, "br-later", 2, 0);
    return ERR_OK;
}

static void on_prepared_later(struct change *unused, err_t result, const struct errmsg *why)
{
    (void)unused;
    ck_assert_ok(result, why);
}

static bool has_failed(const char *operation_id)
{
    const struct operation *operation = model_operation(store_model(store), operation_id);
    return operation != NULL && operation->row.status == STATUS_FAILED;
}

static enum branch_state state_of(const char *branch_id)
{
    return model_branch(store_model(store), branch_id)->row.state;
}

/* Until all have ended, and then until nothing is under way. */
static void on_tick_expired(struct timer *unused)
{
    (void)unused;
    if (has_failed("op-1") && later.done == NULL) {
        later = (struct change){.prepare = prepare_later, .done = on_prepared_later};
        store_submit(store, &later);
    }
    if (model_project(store_model(store), "p")->row.state != PROJECT_ACTIVE && has_failed("op-2") &&
        state_of("br-old") == BRANCH_DELETING && state_of("br-aside") == BRANCH_DELETING &&
        state_of("br-later") == BRANCH_DELETING) {
        reconciler_stop(reconciler);
        if (reconciler_is_idle(reconciler) && store_is_idle(store)) {
            loop_stop(loop);
            return;
        }
    }
    timer_start(loop, &timer, 1);
}

START_TEST(test_time_limits_end_what_they_limit_while_no_agent_answers)
{
    later = (struct change){0};
    begin_with(NULL, 1, prepare_expired, on_tick_expired); /* it has no list of computes */
    loop_run(loop);
    ck_assert_int_eq(state_of("br-young"), BRANCH_READY);
    end();
}
END_TEST

START_TEST(test_time_limits_end_what_they_limit_while_there_is_no_host)
{
    later = (struct change){0};
    begin_with("", 1, prepare_expired, on_tick_expired);
    loop_run(loop);
    ck_assert_int_eq(model_endpoint(store_model(store), "ep-1")->row.wanted, ENDPOINT_ACTIVE);
    end();
}
END_TEST

/* ---- how much goes at once ---- */

#define BRANCHES        100
#define USAGES          10
#define COMMIT_ROWS_MAX (500 + USAGES) /* and the branch that was the last to fit */

static err_t prepare_deleted(struct change *unused, struct errmsg *why)
{
    (void)why;
    struct project_row project = {
        .id = "p", .name = "p", .system_id = "1", .tenant = name_tenant(), .pageserver = 1};
    store_put(store, unused, ROW_PROJECT, &project);
    for (unsigned i = 0; i < BRANCHES; i++) {
        struct branch_row branch = {
            .project_id = "p", .timeline = name_timeline(), .state = BRANCH_DELETED};
        (void)snprintf(branch.id, sizeof branch.id, "br-%u", i);
        (void)snprintf(branch.name, sizeof branch.name, "%u", i);
        store_put(store, unused, ROW_BRANCH, &branch);
        for (unsigned j = 0; j < USAGES; j++) {
            struct usage_row usage = {.project_id = "p", .begin = j};
            (void)snprintf(usage.id, sizeof usage.id, "br-%u.h%u", i, j);
            (void)snprintf(usage.branch_id, sizeof usage.branch_id, "br-%u", i);
            store_put(store, unused, ROW_USAGE, &usage);
        }
    }
    return ERR_OK;
}

static void hear(struct node *node, struct doc *list)
{
    struct nodes_user *hears = reconciler_nodes_user(reconciler);
    node->polls++;
    hears->on_poll(hears, node, list);
    doc_unref(list);
}

/* The pageserver lists the tenant, without timelines. NULL: it does not know what is stored. */
static void poll_pageserver(struct doc *deleted_timelines)
{
    struct project *project = model_project(store_model(store), "p");
    struct doc *tenant = doc_set_tenant(doc_object(), "tenant", project->row.tenant);
    if (deleted_timelines != NULL) {
        doc_set(tenant, "deleted_timelines", deleted_timelines);
    }
    hear(
        nodes_find(nodes, NODE_PAGESERVER, 1),
        doc_set(doc_object(), "tenants", doc_push(doc_array(), tenant)));
}

/* No branch is left: stop, when nothing is under way any more. True: it did. */
static bool stops_without_branches(void)
{
    if (model_project(store_model(store), "p")->branch_count > 0 || rows_now > 0) {
        return false;
    }
    reconciler_stop(reconciler);
    if (!reconciler_is_idle(reconciler) || !store_is_idle(store)) {
        return false;
    }
    loop_stop(loop);
    return true;
}

/* Neither the pageserver nor its object store has anything of it: everything may go. */
static void on_tick_deleted(struct timer *unused)
{
    (void)unused;
    if (ticks++ == 0) {
        poll_pageserver(doc_array());
    }
    if (!stops_without_branches()) {
        timer_start(loop, &timer, 1);
    }
}

START_TEST(test_a_commit_counts_what_goes_with_a_branch)
{
    only_agent.pageservers = "1@127.0.0.1:1/1";
    begin_with("", 60000, prepare_deleted, on_tick_deleted);
    watcher.on_removed = count_removed;
    loop_run(loop);
    ck_assert_uint_gt(rows_max, 0);
    ck_assert_uint_le(rows_max, COMMIT_ROWS_MAX);
    end();
}
END_TEST

#define TICKS_OF_A_POLL 20 /* what may go has gone by then */

static bool were_alone; /* the rows of which it is not known that the timeline cannot come back */

/*
 * As the object store's index follows: unknown, then one that it still has, then none. Another one
 * was deleted so late that the second list may be older than that.
 */
static void on_tick_stored(struct timer *unused)
{
    (void)unused;
    struct project *project = model_project(store_model(store), "p");
    struct branch *kept = model_branch(store_model(store), "br-7");
    switch (ticks++) {
    case 0:
        poll_pageserver(NULL);
        model_branch(store_model(store), "br-8")->deleted_poll =
            nodes_find(nodes, NODE_PAGESERVER, 1)->polls + 1;
        break;
    case TICKS_OF_A_POLL:
        ck_assert_uint_eq(project->branch_count, BRANCHES);
        poll_pageserver(doc_push(doc_array(), doc_str(timeline_id_text(kept->row.timeline).text)));
        break;
    default: break;
    }
    bool is_other_kept = model_branch(store_model(store), "br-8") != NULL;
    if (ticks > TICKS_OF_A_POLL && project->branch_count == 2 && kept != NULL && is_other_kept) {
        were_alone = true;
        poll_pageserver(doc_array());
    }
    if (!stops_without_branches()) {
        timer_start(loop, &timer, 1);
    }
}

START_TEST(test_the_row_of_a_deleted_branch_stays_while_the_object_store_may_have_its_timeline)
{
    only_agent.pageservers = "1@127.0.0.1:1/1";
    begin_with("", 60000, prepare_deleted, on_tick_stored);
    watcher.on_removed = count_removed;
    loop_run(loop);
    ck_assert(were_alone);
    ck_assert_ptr_null(model_branch(store_model(store), "br-7"));
    end();
}
END_TEST

/* ---- a deleted project of which something is left, as long as the object store is away ---- */

#define ERASURES_IN_VAIN 6

static uint64_t pauses[ERASURES_IN_VAIN]; /* after an answer, in ns */

static err_t prepare_erasing(struct change *to, struct errmsg *why)
{
    (void)why;
    struct project_row project = {
        .id = "p",
        .name = "p",
        .system_id = "1",
        .tenant = name_tenant(),
        .pageserver = 1,
        .state = PROJECT_DELETED};
    store_put(store, to, ROW_PROJECT, &project);
    return ERR_OK;
}

/* No pause is waited for. */
static void on_tick_erasing(struct timer *unused)
{
    (void)unused;
    struct project *project = model_project(store_model(store), "p");
    struct node *pageserver = nodes_find(nodes, NODE_PAGESERVER, 1);
    if (erasures == 0) {
        pageserver->answered = pageserver->reachable = true;
        hear(pageserver, doc_set(doc_object(), "tenants", doc_array()));
    } else if (
        project != NULL && !project->attempt.running &&
        ticks < MIN_OF(erasures, ERASURES_IN_VAIN)) {
        mono_ns_t now = clock_mono(), next = project->attempt.next;
        pauses[ticks++] = next > now ? next - now : 0;
        is_erased = ticks == ERASURES_IN_VAIN;
        project->attempt.next = 0;
    }
    timer_start(loop, &timer, 1);
}

START_TEST(test_what_is_left_of_deleted_projects_is_asked_for_ever_more_rarely)
{
    begin_with("", 60000, prepare_erasing, on_tick_erasing);
    only_agent.pageservers = own_address;
    loop_run(loop); /* until its row goes */
    ck_assert_uint_eq(erasures, ERASURES_IN_VAIN + 1);
    ck_assert_uint_gt(pauses[0], 0);
    ck_assert_uint_gt(pauses[ERASURES_IN_VAIN - 1], 10 * NS_PER_S);
    end();
}
END_TEST

/* ---- what a pageserver holds under older generations than it was told ---- */

#define GENERATION 3
#define MEMBERSHIP 2
#define POLLS_MAX  50 /* after so many it would never be told */

static err_t prepare_held(struct change *to, struct errmsg *why)
{
    (void)why;
    struct project_row project = {
        .id = "p",
        .name = "p",
        .system_id = "1",
        .tenant = name_tenant(),
        .pageserver = 1,
        .generation = GENERATION};
    struct branch_row branch = {
        .id = "br-1",
        .project_id = "p",
        .name = "b",
        .timeline = name_timeline(),
        .start_lsn = 8,
        .state = BRANCH_READY,
        .membership_generation = MEMBERSHIP};
    store_put(store, to, ROW_PROJECT, &project);
    store_put(store, to, ROW_BRANCH, &branch);
    return ERR_OK;
}

static void poll_what_it_holds(void)
{
    struct doc *timeline = doc_set_timeline(
        doc_object(), "timeline", model_branch(store_model(store), "br-1")->row.timeline);
    doc_set_int(timeline, "membership_generation", (int64_t)held_membership);
    struct doc *tenant =
        doc_set_tenant(doc_object(), "tenant", model_project(store_model(store), "p")->row.tenant);
    doc_set_int(tenant, "generation", (int64_t)held_generation);
    doc_set(tenant, "timelines", doc_push(doc_array(), timeline));
    struct node *pageserver = nodes_find(nodes, NODE_PAGESERVER, 1);
    pageserver->answered = pageserver->reachable = true;
    hear(pageserver, doc_set(doc_object(), "tenants", doc_push(doc_array(), tenant)));
}

/* It is told, loses its disk between two polls, and has what its object store knew. */
static void on_tick_held(struct timer *unused)
{
    (void)unused;
    bool is_told = held_generation == GENERATION && held_membership == MEMBERSHIP;
    if (is_told && was_lost) {
        loop_stop(loop);
        return;
    }
    if (is_told) {
        was_lost = true;
        polls_in_vain = 0;
        held_generation = GENERATION - 1;
        held_membership = MEMBERSHIP - 1;
    }
    ck_assert_uint_lt(polls_in_vain++, POLLS_MAX);
    poll_what_it_holds();
    timer_start(loop, &timer, 1);
}

START_TEST(test_a_pageserver_with_older_generations_than_it_was_told_is_told_again)
{
    held_generation = held_membership = 1;
    begin_with("", 60000, prepare_held, on_tick_held);
    only_agent.pageservers = own_address;
    loop_run(loop);
    end();
}
END_TEST

/* ---- a safekeeper that loses its disk before the catalog has that it held the timeline ---- */

static err_t prepare_young(struct change *to, struct errmsg *why)
{
    (void)why;
    struct image_row image = {.id = "pg17"};
    struct project_row project = {
        .id = "p", .name = "p", .system_id = "1", .tenant = name_tenant()};
    struct branch_row branch = {
        .id = "br-1",
        .project_id = "p",
        .name = "b",
        .timeline = name_timeline(),
        .start_lsn = 8,
        .state = BRANCH_READY,
        .safekeepers = {.ids = {1}, .count = 1},
        .membership_generation = 1};
    store_put(store, to, ROW_IMAGE, &image);
    store_put(store, to, ROW_PROJECT, &project);
    store_put(store, to, ROW_BRANCH, &branch);
    return ERR_OK;
}

/* It got it once, and then the disks hang: the catalog's, and its own is lost. */
static void on_tick_young(struct timer *unused)
{
    (void)unused;
    const struct branch *branch = model_branch(store_model(store), "br-1");
    bool is_recorded = node_set_has(&branch->row.confirmed, 1);
    ticks += ticks > 0 || branch->on_safekeeper[0] == SEEN_PRESENT;
    if (ticks > 0) {
        hear(
            nodes_find(nodes, NODE_SAFEKEEPER, 1), doc_set(doc_object(), "timelines", doc_array()));
    }
    if (ticks == TICKS_OF_A_POLL) {
        ck_assert(!is_recorded);
        ck_assert_int_eq(sem_post(&may_go_on), 0);
    } else if (is_recorded && ticks > 2 * TICKS_OF_A_POLL) {
        loop_stop(loop);
        return;
    }
    timer_start(loop, &timer, 1);
}

/* It may have voted: filled again, it would vote once more. */
START_TEST(test_a_safekeeper_that_was_seen_to_hold_a_timeline_gets_it_once)
{
    only_agent.pageservers = "";
    holds_at_put = true;
    begin_with("", 60000, prepare_young, on_tick_young);
    only_agent.safekeepers = own_address;
    loop_run(loop);
    ck_assert_uint_eq(timelines_put, 1);
    end();
}
END_TEST

UNIT_MAIN(
    "reconcile",
    test_what_is_left_of_deleted_projects_is_asked_for_ever_more_rarely,
    test_a_pageserver_with_older_generations_than_it_was_told_is_told_again,
    test_a_safekeeper_that_was_seen_to_hold_a_timeline_gets_it_once,
    test_the_row_of_a_deleted_branch_stays_while_the_object_store_may_have_its_timeline,
    test_no_step_begins_for_what_the_commit_under_way_takes_away,
    test_a_compute_that_is_seen_to_run_is_told,
    test_time_limits_end_what_they_limit_while_no_agent_answers,
    test_time_limits_end_what_they_limit_while_there_is_no_host,
    test_a_commit_counts_what_goes_with_a_branch);
