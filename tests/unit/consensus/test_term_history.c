/* Where two logs part, and who makes a quorum. */
#include "safekeeper/consensus/membership.h"
#include "safekeeper/consensus/term_history.h"
#include "tests/unit/unit.h"

static struct term_history history_of(size_t count, const struct term_start *items)
{
    struct term_history history = {0};
    for (size_t i = 0; i < count; i++) {
        history.items[history.count++] = items[i];
    }
    return history;
}
#define HISTORY(...)                                                                               \
    history_of(                                                                                    \
        sizeof((struct term_start[]){__VA_ARGS__}) / sizeof(struct term_start),                    \
        (struct term_start[]){__VA_ARGS__})

START_TEST(test_logs_part_where_the_first_of_them_left_the_common_term)
{
    struct term_history leader = HISTORY({0, 100}, {1, 100}, {3, 200});
    struct term_history follower = HISTORY({0, 100}, {1, 100}, {2, 150});
    ck_assert_uint_eq(term_history_common_lsn(&leader, &follower, 0, 180, 100), 150);
    follower = HISTORY({0, 100}, {1, 100});
    ck_assert_uint_eq(term_history_common_lsn(&leader, &follower, 0, 180, 100), 180);
    ck_assert_uint_eq(term_history_common_lsn(&leader, &follower, 0, 230, 100), 200);
}
END_TEST

START_TEST(test_who_follows_the_same_term_is_common_to_its_end)
{
    struct term_history leader = HISTORY({0, 100}, {4, 120});
    ck_assert_uint_eq(term_history_common_lsn(&leader, &leader, 0, 500, 100), 500);
}
END_TEST

START_TEST(test_without_a_common_term_what_is_committed_is_common)
{
    struct term_history leader = HISTORY({7, 900});
    struct term_history follower = HISTORY({2, 100});
    ck_assert_uint_eq(term_history_common_lsn(&leader, &follower, 0, 800, 640), 640);
}
END_TEST

/* A log under repair ends before the terms that its leader's history remembers begin. */
START_TEST(test_what_a_log_follows_is_known_where_its_history_ends)
{
    struct term_history leader = HISTORY({7, 900}, {8, 950}, {9, 980});
    struct term_history none = {0};
    ck_assert_uint_eq(term_history_common_lsn(&leader, &none, 0, 800, 640), 640);
    ck_assert_uint_eq(term_history_common_lsn(&leader, &none, 9, 800, 640), 800);
    ck_assert_uint_eq(term_history_common_lsn(&leader, &none, 8, 990, 640), 980); /* its leader's */
    ck_assert_uint_eq(term_history_common_lsn(&leader, &none, 6, 800, 640), 640); /* forgotten */
}
END_TEST

START_TEST(test_a_full_history_loses_its_oldest_entry)
{
    struct term_history history = {0};
    for (term_t term = 1; term <= TERM_HISTORY_MAX + 1; term++) {
        term_history_push(&history, term, 100 * term);
    }
    ck_assert_uint_eq(history.count, TERM_HISTORY_MAX);
    ck_assert_uint_eq(history.items[0].term, 2);
    ck_assert_uint_eq(term_history_last_term(&history), TERM_HISTORY_MAX + 1);
    ck_assert(term_history_is_valid(&history));
}
END_TEST

/* A compute that only elects and stops, again and again, pushes nothing out. */
START_TEST(test_a_term_without_wal_is_replaced_by_the_next)
{
    struct term_history history = HISTORY({0, 100}, {1, 200});
    for (term_t term = 2; term <= 2 * TERM_HISTORY_MAX; term++) {
        term_history_push(&history, term, 300);
    }
    ck_assert_uint_eq(history.count, 3);
    ck_assert_uint_eq(history.items[1].term, 1);
    ck_assert_uint_eq(term_history_last_term(&history), 2 * TERM_HISTORY_MAX);
    ck_assert(term_history_is_valid(&history));
}
END_TEST

START_TEST(test_logs_part_at_the_same_place_without_the_terms_that_wrote_nothing)
{
    struct term_history leader = HISTORY({0, 100}, {1, 200}, {4, 300});
    struct term_history follower = HISTORY({0, 100}, {1, 200}, {2, 300}); /* and wrote */
    ck_assert_uint_eq(term_history_common_lsn(&leader, &follower, 0, 380, 100), 300);
}
END_TEST

START_TEST(test_clipping_keeps_a_term_that_begins_at_the_end)
{
    struct term_history history = HISTORY({0, 100}, {1, 200}, {2, 201});
    term_history_clip(&history, 200);
    ck_assert_uint_eq(term_history_last_term(&history), 1);
}
END_TEST

START_TEST(test_histories_ascend)
{
    struct term_history history = HISTORY({0, 100}, {2, 100}, {2, 200});
    ck_assert(!term_history_is_valid(&history));
    history = HISTORY({0, 100}, {2, 90});
    ck_assert(!term_history_is_valid(&history));
    history.count = 0;
    ck_assert(!term_history_is_valid(&history));
    history.count = TERM_HISTORY_MAX + 1;
    ck_assert(!term_history_is_valid(&history));
}
END_TEST

START_TEST(test_more_than_half_is_a_quorum)
{
    struct membership three = {.generation = 1, .count = 3, .members = {1, 2, 3}};
    ck_assert(!membership_has_quorum(&three, 0x1));
    ck_assert(membership_has_quorum(&three, 0x5));
    struct membership four = {.generation = 1, .count = 4, .members = {1, 2, 3, 4}};
    ck_assert(!membership_has_quorum(&four, 0x3));
    ck_assert(membership_has_quorum(&four, 0x7));
    struct membership one = {.generation = 1, .count = 1, .members = {1}};
    ck_assert(membership_has_quorum(&one, 0x1));
}
END_TEST

START_TEST(test_the_quorum_position_is_reached_by_a_quorum)
{
    struct membership three = {.generation = 1, .count = 3, .members = {1, 2, 3}};
    lsn_t lsns[MEMBERS_MAX] = {300, 100, 200};
    ck_assert_uint_eq(membership_quorum_lsn(&three, lsns), 200);
    lsns[2] = 0;
    ck_assert_uint_eq(membership_quorum_lsn(&three, lsns), 100);
    lsns[1] = 0;
    ck_assert_uint_eq(membership_quorum_lsn(&three, lsns), 0);
}
END_TEST

START_TEST(test_a_membership_names_each_member_once)
{
    struct errmsg msg;
    struct membership membership = {.generation = 1, .count = 2, .members = {5, 5}};
    ck_assert_int_eq(membership_check(&membership, &msg), ERR_INVALID);
    membership.members[1] = 0;
    ck_assert_int_eq(membership_check(&membership, &msg), ERR_INVALID);
    membership.members[1] = 6;
    ck_assert_ok(membership_check(&membership, &msg), &msg);
    membership.generation = 0;
    ck_assert_int_eq(membership_check(&membership, &msg), ERR_INVALID);
    membership = (struct membership){.generation = 1};
    ck_assert_int_eq(membership_check(&membership, &msg), ERR_INVALID);
}
END_TEST

UNIT_MAIN(
    "term_history",
    test_logs_part_where_the_first_of_them_left_the_common_term,
    test_who_follows_the_same_term_is_common_to_its_end,
    test_without_a_common_term_what_is_committed_is_common,
    test_what_a_log_follows_is_known_where_its_history_ends,
    test_a_full_history_loses_its_oldest_entry,
    test_a_term_without_wal_is_replaced_by_the_next,
    test_logs_part_at_the_same_place_without_the_terms_that_wrote_nothing,
    test_clipping_keeps_a_term_that_begins_at_the_end,
    test_histories_ascend,
    test_more_than_half_is_a_quorum,
    test_the_quorum_position_is_reached_by_a_quorum,
    test_a_membership_names_each_member_once);
