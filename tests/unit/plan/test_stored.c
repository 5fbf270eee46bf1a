/* What storage is said to be for. */
#include "control/plan/stored.h"

#include "tests/unit/unit.h"

#define MANY 1000000

static struct stored root(lsn_t cutoff_lsn, lsn_t end_lsn, uint64_t logical_bytes)
{
    struct stored_end end = {
        .start_lsn = 100,
        .cutoff_lsn = cutoff_lsn,
        .end_lsn = end_lsn,
        .logical_bytes = logical_bytes};
    return stored_of_branch(&end, false);
}

static struct stored child(lsn_t cutoff_lsn, lsn_t end_lsn, uint64_t logical_bytes)
{
    struct stored_end end = {
        .start_lsn = 100,
        .cutoff_lsn = cutoff_lsn,
        .end_lsn = end_lsn,
        .logical_bytes = logical_bytes};
    return stored_of_branch(&end, true);
}

START_TEST(test_a_root_is_what_it_shows_and_the_wal_of_its_window)
{
    struct stored stored = root(400, 1000, MANY);
    ck_assert_uint_eq(stored.of[STORED_ROOT], MANY);
    ck_assert_uint_eq(stored.of[STORED_RESTORE], 600);
    ck_assert_uint_eq(stored.of[STORED_CHILD], 0);
    ck_assert_uint_eq(stored.of[STORED_LOGICAL], MANY);
    ck_assert_uint_eq(root(1000, 1000, MANY).of[STORED_RESTORE], 0);
}
END_TEST

START_TEST(test_a_fresh_branch_costs_nothing)
{
    struct stored stored = child(100, 100, MANY);
    ck_assert_uint_eq(stored.of[STORED_ROOT], 0);
    ck_assert_uint_eq(stored.of[STORED_CHILD], 0);
    ck_assert_uint_eq(stored.of[STORED_RESTORE], 0);
    ck_assert_uint_eq(stored.of[STORED_LOGICAL], MANY);
}
END_TEST

START_TEST(test_a_branch_costs_what_was_written_on_it_and_at_most_what_it_shows)
{
    ck_assert_uint_eq(child(100, 350, MANY).of[STORED_CHILD], 250);
    ck_assert_uint_eq(child(100, 350, MANY).of[STORED_RESTORE], 0); /* it is that WAL already */
    ck_assert_uint_eq(child(350, 350, MANY).of[STORED_CHILD], 250);

    /* It was written more often than it is large: a copy, and the WAL of its window. */
    ck_assert_uint_eq(child(900, 1000, 50).of[STORED_CHILD], 50);
    ck_assert_uint_eq(child(900, 1000, 50).of[STORED_RESTORE], 100);
    ck_assert_uint_eq(child(100, 1000, 50).of[STORED_CHILD], 50);
    ck_assert_uint_eq(child(100, 1000, 50).of[STORED_RESTORE], 850);
}
END_TEST

static struct stored_snapshot snapshot(uint8_t of, lsn_t lsn, uint64_t logical_bytes)
{
    return (struct stored_snapshot){
        .of = {.bytes = {of}}, .lsn = lsn, .cutoff_lsn = 1000, .logical_bytes = logical_bytes};
}

START_TEST(test_snapshots_cost_what_is_kept_for_them_alone)
{
    struct stored_snapshot some[] = {
        snapshot(1, 700, MANY),                           /* 300 to the window */
        snapshot(1, 500, MANY),                           /* 200 to the one before */
        snapshot(1, 100, 70),                             /* a copy is less */
        snapshot(1, 1000, MANY), snapshot(1, 1200, MANY), /* within the window */
        snapshot(2, 990, MANY),                           /* 10, on another branch */
    };
    ck_assert_uint_eq(stored_of_snapshots(some, ARRAY_LEN(some)), 300 + 200 + 70 + 10);
    ck_assert_uint_eq(stored_of_snapshots(some, 0), 0);
}
END_TEST

UNIT_MAIN(
    "stored",
    test_a_root_is_what_it_shows_and_the_wal_of_its_window,
    test_a_fresh_branch_costs_nothing,
    test_a_branch_costs_what_was_written_on_it_and_at_most_what_it_shows,
    test_snapshots_cost_what_is_kept_for_them_alone);
