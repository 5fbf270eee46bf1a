/* The row of a branch while its safekeepers change. */
#include "control/model/members.h"
#include "tests/unit/unit.h"

static struct errmsg msg;
static struct branch branch;

/* Safekeepers 1 2 3 under generation 1, all confirmed; from there to 1 2 4. */
static void given_change(void)
{
    const uint64_t wanted[] = {1, 2, 4};
    branch = (struct branch){
        .row = {
            .state = BRANCH_READY,
            .membership_generation = 1,
            .safekeepers = {.ids = {1, 2, 3}, .count = 3},
            .confirmed = {.ids = {1, 2, 3}, .count = 3}}};
    ck_assert_ok(branch_begin_change(&branch.row, wanted, 3, &msg), &msg);
}

static void answer(uint32_t index, lsn_t record_lsn)
{
    branch.reports[index] = (struct change_report){
        .answered = true, .generation = 2, .term = 1, .log_term = 1, .record_lsn = record_lsn};
}

START_TEST(test_a_change_keeps_the_old_row_for_who_starts_a_compute)
{
    given_change();
    struct membership joint = branch_membership(&branch.row);
    ck_assert(membership_is_joint(&joint));
    ck_assert_uint_eq(joint.generation, 2);
    ck_assert_uint_eq(joint.count, 4);
    ck_assert(membership_is_newcomer(&joint, 3) && !membership_is_newcomer(&joint, 2));
    ck_assert_uint_eq(branch.row.membership_generation, 1);
    ck_assert_uint_eq(branch.row.safekeepers.ids[2], 3);
    ck_assert_uint_eq(branch_generation(&branch.row), 2);
}
END_TEST

START_TEST(test_a_change_ends_only_when_it_may)
{
    given_change();
    struct branch_row row = branch.row;
    answer(0, 100);
    answer(1, 100);
    ck_assert(!branch_end_change(&branch, &row)); /* the newcomer has not answered */
    answer(3, 50);
    ck_assert(branch_end_change(&branch, &row));
    ck_assert_uint_eq(row.membership_generation, 3);
    ck_assert_uint_eq(row.change_generation, 0);
    ck_assert_uint_eq(row.safekeepers.count, 3);
    ck_assert(node_set_has(&row.safekeepers, 4) && node_set_has(&row.confirmed, 4));
    ck_assert(!node_set_has(&row.confirmed, 3));
    ck_assert_uint_eq(row.left_safekeepers.count, 1);
    ck_assert_uint_eq(row.left_safekeepers.ids[0], 3);
}
END_TEST

START_TEST(test_a_change_that_is_given_up_leaves_the_newcomer)
{
    given_change();
    struct branch_row row = branch.row;
    row.change_given_up = true;
    ck_assert(branch_end_change(&branch, &row));
    ck_assert_uint_eq(row.membership_generation, 3);
    ck_assert_uint_eq(row.safekeepers.ids[2], 3);
    ck_assert_uint_eq(row.confirmed.count, 3);
    ck_assert_uint_eq(row.left_safekeepers.ids[0], 4);
}
END_TEST

START_TEST(test_one_change_at_a_time)
{
    const uint64_t wanted[] = {1, 2, 5};
    given_change();
    ck_assert_int_eq(branch_begin_change(&branch.row, wanted, 3, &msg), ERR_EXISTS);
}
END_TEST

START_TEST(test_a_former_member_that_is_wanted_again_is_not_deleted)
{
    const uint64_t back[] = {1, 2, 3};
    given_change();
    answer(0, 100);
    answer(1, 100);
    answer(3, 100);
    struct branch_row row = branch.row;
    ck_assert(branch_end_change(&branch, &row));
    ck_assert_ok(branch_begin_change(&row, back, 3, &msg), &msg);
    ck_assert_uint_eq(row.left_safekeepers.count, 0);
}
END_TEST

START_TEST(test_a_branch_that_goes_takes_the_newcomers_along)
{
    uint64_t left[LEFT_MAX];
    given_change();
    ck_assert_uint_eq(branch_left(&branch, left), 0);
    branch.row.state = BRANCH_DELETING;
    ck_assert_uint_eq(branch_left(&branch, left), 1);
    ck_assert_uint_eq(left[0], 4);
}
END_TEST

UNIT_MAIN(
    "members",
    test_a_change_keeps_the_old_row_for_who_starts_a_compute,
    test_a_change_ends_only_when_it_may,
    test_a_change_that_is_given_up_leaves_the_newcomer,
    test_one_change_at_a_time,
    test_a_former_member_that_is_wanted_again_is_not_deleted,
    test_a_branch_that_goes_takes_the_newcomers_along);
