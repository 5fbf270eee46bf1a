/* What a change leaves in the catalog, whoever else writes there. */
#include "tests/unit/api/api_fixture.h"

#define KEPT 1000 /* operations of a project */

static unsigned ended_count;
static struct nodes_user hearing;
static err_t expected; /* of the next commit */
static const char *recovered_branch;

static void on_done(struct mutation_then *then, err_t result, const struct errmsg *why)
{
    (void)then;
    ck_assert_msg(result == expected, "%d: %s", (int)result, why->text);
    loop_stop(api.loop);
}

static void commit(mutation_decide_fn decide)
{
    struct mutation_then then = {.done = on_done};
    mutation_submit(mutation_of_our_own(&api, decide, &then));
    loop_run(api.loop);
}

/* As the reconciler puts them, which drops none: of computes that it suspends, say. */
static err_t decide_ended(struct mutation *mutation, struct errmsg *why)
{
    (void)why;
    for (unsigned i = 0; i < ended_count; i++) {
        struct operation_row row = {
            .project_id = "p", .action = ACTION_SUSPEND_COMPUTE, .status = STATUS_FINISHED};
        name_operation(row.id);
        mutation_put(mutation, ROW_OPERATION, &row);
    }
    return ERR_OK;
}

static err_t decide_project(struct mutation *mutation, struct errmsg *why)
{
    struct project_row row = {.id = "p", .name = "p", .tenant = name_tenant()};
    mutation_put(mutation, ROW_PROJECT, &row);
    return decide_ended(mutation, why);
}

/* A compute is woken: a request, whose operation ends before the next one. */
static err_t decide_wake(struct mutation *mutation, struct errmsg *why)
{
    (void)why;
    FOR_EACH_RUNNING(model_project(api.model, "p"), operation)
    {
        struct operation_row row = operation->row;
        row.status = STATUS_FINISHED;
        mutation_put(mutation, ROW_OPERATION, &row);
    }
    mutation_operation(mutation, "p", ACTION_START_COMPUTE, "", "");
    return ERR_OK;
}

START_TEST(test_operations_of_a_project_stay_within_their_limit_whoever_makes_them)
{
    api_begin();
    ended_count = KEPT + 20;
    commit(decide_project);
    const struct project *project = model_project(api.model, "p");
    ck_assert_uint_eq(project->operation_count, KEPT + 20);
    ended_count = 1;
    for (unsigned i = 0; i < 20; i++) {
        commit(decide_wake);
        commit(decide_ended); /* and falls asleep again by itself */
    }
    ck_assert_uint_le(project->operation_count, KEPT + 1);
    ck_assert_uint_ge(project->operation_count, KEPT - 1); /* nor do more go than must */
    api_end();
}
END_TEST

/* ---- operations of a compute whose host does not answer ---- */

#define RUNNING_MAX 10 /* of one compute */

static enum operation_action asked_for;
static row_id_t got;

static err_t decide_compute(struct mutation *mutation, struct errmsg *why)
{
    (void)why;
    struct project_row project = {.id = "p", .name = "p", .tenant = name_tenant()};
    struct branch_row branch = {
        .id = "br", .name = "b", .project_id = "p", .timeline = name_timeline()};
    struct endpoint_row endpoint = {.id = "ep", .project_id = "p", .branch_id = "br"};
    mutation_put(mutation, ROW_PROJECT, &project);
    mutation_put(mutation, ROW_BRANCH, &branch);
    mutation_put(mutation, ROW_ENDPOINT, &endpoint);
    return ERR_OK;
}

/* As the route that starts it does for one that is to run already, or that changes a role. */
static err_t decide_once_more(struct mutation *mutation, struct errmsg *why)
{
    (void)why;
    mutation_operation(mutation, "p", asked_for, "br", "ep");
    ck_assert_uint_eq(mutation->operation_count, 1);
    memcpy(got, mutation->operations[0], sizeof got);
    return ERR_OK;
}

static err_t decide_something_else(struct mutation *mutation, struct errmsg *why)
{
    mutation_cancel_running(mutation, &model_endpoint(api.model, "ep")->running);
    return decide_once_more(mutation, why);
}

static size_t count_running(const struct endpoint *endpoint)
{
    size_t count = 0;
    FOR_EACH_RUNNING(endpoint, operation)
    {
        count += operation->row.status == STATUS_RUNNING;
    }
    return count;
}

static bool is_running(const char *operation_id)
{
    const struct operation *operation = model_operation(api.model, operation_id);
    return operation != NULL && operation->row.status == STATUS_RUNNING;
}

/* All of them end in one commit. */
START_TEST(test_who_asks_again_and_again_shares_an_operation)
{
    static const enum operation_action actions[] = {ACTION_START_COMPUTE, ACTION_APPLY_CONFIG};
    api_begin();
    commit(decide_compute);
    const struct endpoint *endpoint = model_endpoint(api.model, "ep");
    for (unsigned i = 0; i < 100; i++) {
        asked_for = actions[i % 2];
        commit(decide_once_more);
        ck_assert(is_running(got));
        ck_assert_int_eq(model_operation(api.model, got)->row.action, asked_for);
    }
    ck_assert_uint_le(count_running(endpoint), RUNNING_MAX);
    commit(decide_something_else); /* it shares none of those that it ends */
    ck_assert_uint_eq(count_running(endpoint), 1);
    ck_assert(is_running(got));
    api_end();
}
END_TEST

/* ---- ports of what comes back ---- */

static void put_branch_of(
    struct mutation *mutation, const char *project_id, const char *id, wall_us_t recoverable_until)
{
    struct branch_row row = {
        .state = BRANCH_READY,
        .timeline = name_timeline(),
        .deleted_at = recoverable_until == 0 ? 0 : 1,
        .recoverable_until = recoverable_until};
    (void)snprintf(row.id, sizeof row.id, "%s", id);
    (void)snprintf(row.name, sizeof row.name, "%s", id);
    (void)snprintf(row.project_id, sizeof row.project_id, "%s", project_id);
    mutation_put(mutation, ROW_BRANCH, &row);
}

static void put_port_of(
    struct mutation *mutation, const char *branch_id, const char *id, uint64_t agent, uint64_t port)
{
    struct endpoint_row row = {.wanted = ENDPOINT_IDLE, .agent = agent, .port = port};
    (void)snprintf(row.id, sizeof row.id, "%s", id);
    (void)snprintf(row.branch_id, sizeof row.branch_id, "%s", branch_id);
    (void)snprintf(row.project_id, sizeof row.project_id, "%c", branch_id[0]);
    mutation_put(mutation, ROW_ENDPOINT, &row);
}

/* Project d is deleted, and so is branch p-b: each with a port that is lost, and one that is not.
 */
static err_t decide_deleted(struct mutation *mutation, struct errmsg *why)
{
    (void)why;
    struct project_row used = {.id = "p", .name = "p", .tenant = name_tenant()};
    struct project_row deleted = {
        .id = "d",
        .name = "d",
        .tenant = name_tenant(),
        .deleted_at = 1,
        .recoverable_until = api_now(&api) + 3600000000};
    mutation_put(mutation, ROW_PROJECT, &used);
    mutation_put(mutation, ROW_PROJECT, &deleted);
    put_branch_of(mutation, "p", "p-a", 0);
    put_branch_of(mutation, "p", "p-b", deleted.recoverable_until);
    put_branch_of(mutation, "d", "d-a", 0);
    put_branch_of(mutation, "d", "d-b", deleted.recoverable_until);
    put_port_of(mutation, "p-a", "has-1", 1, 7501);
    put_port_of(mutation, "p-a", "has-2", 2, 7501);
    put_port_of(mutation, "p-a", "has-3", 1, 7502);
    put_port_of(mutation, "p-b", "b-lost", 1, 7502);
    put_port_of(mutation, "p-b", "b-keeps", 1, 7503);
    put_port_of(mutation, "d-a", "d-lost", 1, 7501);
    put_port_of(mutation, "d-a", "d-lost-away", 2, 7501);
    put_port_of(mutation, "d-a", "d-keeps", 1, 7504);
    put_port_of(mutation, "d-b", "d-stays", 1, 7507);
    return ERR_OK;
}

static err_t decide_recovery(struct mutation *mutation, struct errmsg *why)
{
    (void)snprintf(mutation->project_id, sizeof mutation->project_id, "%c", recovered_branch[0]);
    (void)snprintf(mutation->branch_id, sizeof mutation->branch_id, "%s", recovered_branch);
    return recovered_branch[1] == '\0' ? decide_project_recovery(mutation, why)
                                       : decide_branch_recovery(mutation, why);
}

static void recover(const char *branch_id, uint64_t port_last, err_t result)
{
    api.options.port_first = 7501;
    api.options.port_last = port_last;
    recovered_branch = branch_id;
    expected = result;
    commit(decide_recovery);
    expected = ERR_OK;
}

static uint64_t port_of(const char *id)
{
    return model_endpoint(api.model, id)->row.port;
}

/* There are four ports, and six computes of host 1: host 2 is known by nobody now. */
START_TEST(test_what_comes_back_takes_no_port_of_its_siblings)
{
    static const struct nodes_options only_one = {
        .safekeepers = "", .pageservers = "", .agents = "1@10.0.0.1:7440", .token = ""};
    api_begin();
    ck_assert_ok(nodes_create(api.loop, NULL, &only_one, &hearing, &api.nodes, &msg), &msg);
    commit(decide_deleted);
    recover("p-b", 7503, ERR_INVALID); /* its own other port is no port for it */
    ck_assert(branch_is_recoverable(model_branch(api.model, "p-b")));
    recover("p-b", 7504, ERR_OK); /* but that of what is still deleted is */
    ck_assert_uint_eq(port_of("b-lost"), 7504);
    ck_assert_uint_eq(port_of("b-keeps"), 7503);
    recover("d", 7504, ERR_INVALID);
    /* Two of host 1 have lost theirs now, and one of host 2; d-b stays deleted, so its port goes.
     */
    recover("d", 7507, ERR_OK);
    ck_assert_uint_ge(port_of("d-lost"), 7505);
    ck_assert_uint_ge(port_of("d-keeps"), 7505);
    ck_assert_uint_ne(port_of("d-lost"), port_of("d-keeps"));
    ck_assert_uint_ne(port_of("d-lost-away"), 7501);
    nodes_destroy(api.nodes);
    api_end();
}
END_TEST

/* ---- keys of what comes back ---- */

static void put_made(
    struct mutation *mutation, const char *project_id, const char *id, const char *key)
{
    struct branch_row row = {.state = BRANCH_READY, .timeline = name_timeline()};
    (void)snprintf(row.id, sizeof row.id, "%s", id);
    (void)snprintf(row.name, sizeof row.name, "%s", id);
    (void)snprintf(row.project_id, sizeof row.project_id, "%s", project_id);
    (void)snprintf(row.created_by, sizeof row.created_by, "%s", key);
    mutation_put(mutation, ROW_BRANCH, &row);
}

static void put_key(struct mutation *mutation, const char *id, uint64_t branches_max)
{
    struct key_row row = {.branches_max = branches_max};
    (void)snprintf(row.id, sizeof row.id, "%s", id);
    (void)snprintf(row.hash, sizeof row.hash, "hash of %s", id);
    mutation_put(mutation, ROW_KEY, &row);
}

/* d and e are deleted; one key may have three branches, one of each is its limit, one has none. */
static err_t decide_made(struct mutation *mutation, struct errmsg *why)
{
    (void)why;
    struct project_row rows[] = {
        {.id = "p", .name = "p"}, {.id = "d", .name = "d"}, {.id = "e", .name = "e"}};
    put_key(mutation, "three", 3);
    put_key(mutation, "one", 1);
    put_key(mutation, "any", 0);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        rows[i].tenant = name_tenant();
        rows[i].deleted_at = i == 0 ? 0 : 1;
        rows[i].recoverable_until = i == 0 ? 0 : api_now(&api) + 3600000000;
        mutation_put(mutation, ROW_PROJECT, &rows[i]);
    }
    put_made(mutation, "p", "p-1", "three");
    put_made(mutation, "p", "p-2", "any");
    put_made(mutation, "p", "p-3", "one");
    put_made(mutation, "d", "d-1", "three");
    put_made(mutation, "d", "d-2", "three");
    put_made(mutation, "d", "d-3", "any");
    put_made(mutation, "e", "e-1", "any");
    put_made(mutation, "e", "e-2", "one");
    put_made(mutation, "e", "e-3", "three");
    return ERR_OK;
}

START_TEST(test_project_comes_back_when_each_of_its_keys_has_room)
{
    api_begin();
    commit(decide_made);
    recover("e", 1, ERR_INVALID);
    ck_assert(project_is_recoverable(model_project(api.model, "e")));
    recover("d", 1, ERR_OK); /* what e has does not count, and who is full has nothing in d */
    ck_assert(project_is_shown(model_project(api.model, "d")));
    api_end();
}
END_TEST

UNIT_MAIN(
    "api_mutation",
    test_operations_of_a_project_stay_within_their_limit_whoever_makes_them,
    test_who_asks_again_and_again_shares_an_operation,
    test_what_comes_back_takes_no_port_of_its_siblings,
    test_project_comes_back_when_each_of_its_keys_has_room);
