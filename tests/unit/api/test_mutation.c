/* What a change leaves in the catalog, whoever else writes there. */
#include <stdio.h>
#include <stdlib.h>

#include "common/base/log.h"
#include "control/api/api_private.h"
#include "control/model/name.h"
#include "tests/unit/unit.h"

#define KEPT 1000 /* operations of a project */

static char path[64];
static struct errmsg msg;
static struct executor *executor;
static struct api api;
static unsigned ended_count;

static void begin(void)
{
    const struct catalog_options catalog = {.path = path};
    log_init("test", LOG_LEVEL_ERROR);
    (void)snprintf(path, sizeof path, "/tmp/test_mutation.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(path));
    ck_assert_ok(loop_create(&api.loop, &msg), &msg);
    ck_assert_ok(executor_create(api.loop, 1, &executor, &msg), &msg);
    ck_assert_ok(store_open(api.loop, executor, &catalog, &api.store, &msg), &msg);
    api.model = store_model(api.store);
    list_init(&api.keyed);
}

static void end(void)
{
    char command[128];
    executor_destroy(executor);
    store_close(api.store);
    loop_destroy(api.loop);
    (void)snprintf(command, sizeof command, "rm -rf %s", path);
    ck_assert_int_eq(system(command), 0);
}

static void on_done(struct mutation_then *then, err_t result, const struct errmsg *why)
{
    (void)then;
    ck_assert_ok(result, why);
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
    begin();
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
    end();
}
END_TEST

UNIT_MAIN("api_mutation", test_operations_of_a_project_stay_within_their_limit_whoever_makes_them);
