/* What the rows of a project are for people, as they come and go. */
#include <stdio.h>

#include "control/model/model.h"
#include "control/model/name.h"
#include "tests/unit/unit.h"

static struct errmsg msg;
static struct model model;

static void given_project(void)
{
    union any_row row = {.project = {.id = "p", .name = "p", .tenant = name_tenant()}};
    void *project = NULL;
    model_init(&model);
    ck_assert_ok(model_apply(&model, ROW_PROJECT, &row, &project, &msg), &msg);
}

static struct branch *put(const struct branch_row *branch)
{
    union any_row row = {.branch = *branch};
    void *object = NULL;
    ck_assert_ok(model_apply(&model, ROW_BRANCH, &row, &object, &msg), &msg);
    return object;
}

static struct branch *given_branch(unsigned number)
{
    struct branch_row row = {.project_id = "p", .state = BRANCH_READY, .timeline = name_timeline()};
    (void)snprintf(row.id, sizeof(row.id), "br-%u", number);
    (void)snprintf(row.name, sizeof(row.name), "b%u", number);
    return put(&row);
}

static struct branch *set_aside(const struct branch *branch)
{
    struct branch_row row = branch->row;
    branch_set_aside(&row, 1000, 2000);
    return put(&row);
}

START_TEST(test_a_project_sets_aside_so_many_branches_however_they_go)
{
    given_project();
    struct branch *more = given_branch(RECOVERABLE_BRANCHES_MAX);
    for (unsigned i = 0; i < RECOVERABLE_BRANCHES_MAX; i++) {
        ck_assert(branch_may_be_set_aside(more));
        set_aside(given_branch(i));
    }
    ck_assert(!branch_may_be_set_aside(more));

    struct branch_row back = model_branch(&model, "br-0")->row;
    back.deleted_at = back.recoverable_until = 0;
    put(&back);
    ck_assert(branch_may_be_set_aside(more));
    set_aside(more);
    ck_assert(!branch_may_be_set_aside(model_branch(&model, "br-0")));

    struct branch_row leaving = model_branch(&model, "br-1")->row;
    leaving.state = BRANCH_DELETING; /* with its project: it still says until when */
    put(&leaving);
    ck_assert(branch_may_be_set_aside(model_branch(&model, "br-0")));
    model_remove(&model, ROW_BRANCH, "br-1");
    model_remove(&model, ROW_BRANCH, "br-2");
    ck_assert_uint_eq(model_project(&model, "p")->recoverable_count, RECOVERABLE_BRANCHES_MAX - 2);
    model_deinit(&model);
}
END_TEST

START_TEST(test_only_what_people_know_as_a_branch_is_set_aside)
{
    given_project();
    struct branch *branch = given_branch(1);
    ck_assert(branch_may_be_set_aside(branch));
    ck_assert(!branch_may_be_set_aside(set_aside(branch))); /* it is already */
    struct branch_row snapshot = given_branch(2)->row;
    snapshot.is_ephemeral = snapshot.is_snapshot = true;
    ck_assert(!branch_may_be_set_aside(put(&snapshot)));
    struct branch_row retired = given_branch(3)->row;
    retired.is_retired = true;
    ck_assert(!branch_may_be_set_aside(put(&retired)));
    model_deinit(&model);
}
END_TEST

UNIT_MAIN(
    "plan_model",
    test_a_project_sets_aside_so_many_branches_however_they_go,
    test_only_what_people_know_as_a_branch_is_set_aside);
