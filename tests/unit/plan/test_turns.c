#include "control/plan/turns.h"

#include <stdio.h>

#include "common/base/prng.h"
#include "tests/unit/unit.h"

#define COUNT   300
#define FAILING 200 /* more than there are turns in a round */

struct who {
    row_id_t id;
    struct attempt attempt;
    size_t tries;
    bool is_done;
};

static void name_all(struct who *all)
{
    for (size_t i = 0; i < COUNT; i++) {
        snprintf(all[i].id, sizeof all[i].id, "br-%zu", i);
    }
}

static void run_round(struct who *all, mono_ns_t now, size_t failing)
{
    struct turns turns = {0};
    for (size_t i = 0; i < COUNT; i++) {
        if (!all[i].is_done) {
            turns_offer(&turns, all[i].id, &all[i].attempt, now);
        }
    }
    for (size_t turn = 0; turn < turns.count; turn++) {
        ck_assert(turn == 0 || turns.turns[turn - 1].since <= turns.turns[turn].since);
        size_t i = (size_t)atoi(turns.turns[turn].id + 3);
        all[i].tries++;
        if (i < failing) {
            attempt_put_off(&all[i].attempt, now, 5000, 600000);
        } else {
            all[i].is_done = true;
        }
    }
}

START_TEST(test_those_who_fail_for_ever_keep_nobody_waiting)
{
    static struct who all[COUNT];
    mono_ns_t now = 1000 * NS_PER_S;
    memset(all, 0, sizeof all);
    name_all(all);
    for (size_t round = 0; round < 5; round++, now += 5 * NS_PER_S) {
        run_round(all, now, FAILING); /* as they stand: those who fail are offered first */
    }
    for (size_t i = FAILING; i < COUNT; i++) {
        ck_assert_uint_eq(all[i].tries, 1);
    }
}
END_TEST

START_TEST(test_those_who_fail_have_their_turns_too_but_ever_more_seldom)
{
    static struct who all[COUNT];
    mono_ns_t now = 1000 * NS_PER_S;
    memset(all, 0, sizeof all);
    name_all(all);
    for (size_t round = 0; round < 720; round++, now += 5 * NS_PER_S) { /* an hour */
        run_round(all, now, COUNT);
    }
    for (size_t i = 0; i < COUNT; i++) {
        ck_assert_uint_ge(all[i].tries, 8);
        ck_assert_uint_le(all[i].tries, 16);
    }
}
END_TEST

START_TEST(test_who_is_under_way_or_not_due_has_no_turn)
{
    struct turns turns = {0};
    struct attempt due = {.next = 7}, later = {.next = 8}, running = {.running = true};
    turns_offer(&turns, "later", &later, 7);
    turns_offer(&turns, "running", &running, 7);
    turns_offer(&turns, "due", &due, 7);
    ck_assert_uint_eq(turns.count, 1);
    ck_assert_str_eq(turns.turns[0].id, "due");
}
END_TEST

START_TEST(test_a_full_round_gives_way_to_who_has_waited_longer)
{
    struct turns turns = {0};
    struct attempt recent = {.next = 50}, old = {.next = 20};
    row_id_t id;
    for (int i = 0; i < TURNS_MAX + 3; i++) {
        snprintf(id, sizeof id, "recent %d", i);
        turns_offer(&turns, id, &recent, 100);
    }
    turns_offer(&turns, "old", &old, 100);
    ck_assert_uint_eq(turns.count, TURNS_MAX);
    ck_assert_str_eq(turns.turns[0].id, "old");
    ck_assert_str_eq(turns.turns[1].id, "recent 0");
    ck_assert_str_eq(turns.turns[TURNS_MAX - 1].id, "recent 62");
}
END_TEST

UNIT_MAIN(
    "turns",
    test_those_who_fail_for_ever_keep_nobody_waiting,
    test_those_who_fail_have_their_turns_too_but_ever_more_seldom,
    test_who_is_under_way_or_not_due_has_no_turn,
    test_a_full_round_gives_way_to_who_has_waited_longer);
