/* What happens to a compute, step by step, and invariants over many random histories. */
#include "compute/agent/compute_plan.h"

#include <string.h>

#include "common/base/prng.h"
#include "tests/unit/unit.h"

static struct compute_plan plan;
static struct compute_actions actions;
static uint64_t now_ms;

static unsigned give_exit(enum compute_event_kind kind, int exit_code)
{
    struct compute_event event = {.kind = kind, .exit_code = exit_code, .now_ms = now_ms};
    compute_plan_step(&plan, &event, &actions);
    return actions.set;
}

static unsigned give(enum compute_event_kind kind)
{
    return give_exit(kind, 1);
}

static void expect_state(const char *state)
{
    ck_assert_str_eq(compute_plan_state(&plan), state);
}

static void bring_up(void)
{
    ck_assert_uint_eq(give(COMPUTE_EVENT_START) & COMPUTE_ACTION_SYNC, COMPUTE_ACTION_SYNC);
    ck_assert_uint_eq(give(COMPUTE_EVENT_WORK_DONE), COMPUTE_ACTION_BACKUP);
    ck_assert_uint_eq(give(COMPUTE_EVENT_WORK_DONE), COMPUTE_ACTION_UNPACK);
    ck_assert_uint_eq(give(COMPUTE_EVENT_WORK_DONE), COMPUTE_ACTION_LAUNCH);
    ck_assert_uint_eq(give(COMPUTE_EVENT_POSTGRES_READY), COMPUTE_ACTION_ROLES);
    expect_state("starting");
    ck_assert_uint_eq(give(COMPUTE_EVENT_WORK_DONE), 0);
    expect_state("running");
}

START_TEST(test_start_goes_through_its_steps_in_order)
{
    expect_state("stopped");
    bring_up();
    ck_assert_uint_eq(give(COMPUTE_EVENT_START), 0); /* runs already */
}
END_TEST

START_TEST(test_fast_stop_keeps_the_walproposer_until_postgres_has_ended)
{
    bring_up();
    unsigned set = give(COMPUTE_EVENT_STOP_FAST);
    ck_assert_uint_eq(set, COMPUTE_ACTION_STOP_FAST | COMPUTE_ACTION_TIMER);
    expect_state("stopping");
    ck_assert_uint_eq(give(COMPUTE_EVENT_POSTGRES_EXITED), COMPUTE_ACTION_STOP_PROPOSER);
    ck_assert_uint_eq(give_exit(COMPUTE_EVENT_PROPOSER_EXITED, 0), COMPUTE_ACTION_STOP_TIMER);
    expect_state("stopped");
}
END_TEST

START_TEST(test_immediate_stop_ends_both_at_once)
{
    bring_up();
    ck_assert_uint_eq(
        give(COMPUTE_EVENT_STOP_IMMEDIATE),
        COMPUTE_ACTION_STOP_IMMEDIATE | COMPUTE_ACTION_STOP_PROPOSER | COMPUTE_ACTION_TIMER);
}
END_TEST

START_TEST(test_stop_that_takes_too_long_gets_harder)
{
    bring_up();
    (void)give(COMPUTE_EVENT_STOP_FAST);
    unsigned set = give(COMPUTE_EVENT_TIMER);
    ck_assert_uint_eq(
        set, COMPUTE_ACTION_STOP_IMMEDIATE | COMPUTE_ACTION_STOP_PROPOSER | COMPUTE_ACTION_TIMER);
    ck_assert_uint_eq(give(COMPUTE_EVENT_TIMER), COMPUTE_ACTION_KILL | COMPUTE_ACTION_TIMER);
    ck_assert_uint_eq(give(COMPUTE_EVENT_TIMER), COMPUTE_ACTION_KILL | COMPUTE_ACTION_TIMER);
    (void)give_exit(COMPUTE_EVENT_PROPOSER_EXITED, -1);
    (void)give(COMPUTE_EVENT_POSTGRES_EXITED);
    expect_state("stopped");
}
END_TEST

START_TEST(test_immediate_stop_overtakes_a_fast_one)
{
    bring_up();
    (void)give(COMPUTE_EVENT_STOP_FAST);
    unsigned set = give(COMPUTE_EVENT_STOP_IMMEDIATE);
    ck_assert_uint_eq(
        set, COMPUTE_ACTION_STOP_IMMEDIATE | COMPUTE_ACTION_STOP_PROPOSER | COMPUTE_ACTION_TIMER);
    ck_assert_uint_eq(give(COMPUTE_EVENT_STOP_FAST), 0); /* no way back */
}
END_TEST

START_TEST(test_crashed_postgres_starts_anew_from_the_storage)
{
    bring_up();
    unsigned set = give(COMPUTE_EVENT_POSTGRES_EXITED);
    ck_assert(set & COMPUTE_ACTION_STOP_PROPOSER);
    expect_state("starting");
    set = give(COMPUTE_EVENT_PROPOSER_EXITED);
    ck_assert(set & COMPUTE_ACTION_TIMER);
    ck_assert_uint_eq(actions.timer_ms, 0); /* the first time at once */
    ck_assert(give(COMPUTE_EVENT_TIMER) & COMPUTE_ACTION_SYNC);
}
END_TEST

START_TEST(test_crashed_walproposer_takes_postgres_with_it)
{
    bring_up();
    ck_assert(give(COMPUTE_EVENT_PROPOSER_EXITED) & COMPUTE_ACTION_STOP_IMMEDIATE);
    (void)give(COMPUTE_EVENT_POSTGRES_EXITED);
    ck_assert(give(COMPUTE_EVENT_TIMER) & COMPUTE_ACTION_SYNC);
}
END_TEST

START_TEST(test_fenced_compute_stops_and_stays_so)
{
    bring_up();
    unsigned set = give_exit(COMPUTE_EVENT_PROPOSER_EXITED, COMPUTE_EXIT_FENCED);
    ck_assert(set & COMPUTE_ACTION_STOP_IMMEDIATE);
    expect_state("stopping");
    (void)give(COMPUTE_EVENT_POSTGRES_EXITED);
    expect_state("fenced");
    ck_assert_uint_eq(give(COMPUTE_EVENT_TIMER), 0);
    ck_assert_uint_eq(give(COMPUTE_EVENT_STOP_FAST), 0);
    expect_state("fenced");
    ck_assert(give(COMPUTE_EVENT_START) & COMPUTE_ACTION_SYNC); /* only when it is asked for */
}
END_TEST

START_TEST(test_fenced_wins_over_the_restart_that_is_under_way)
{
    bring_up();
    (void)give(COMPUTE_EVENT_POSTGRES_EXITED); /* the walproposer has sent it SIGQUIT */
    (void)give_exit(COMPUTE_EVENT_PROPOSER_EXITED, COMPUTE_EXIT_FENCED);
    expect_state("fenced");
}
END_TEST

START_TEST(test_stop_wins_over_fenced_and_restart)
{
    bring_up();
    (void)give(COMPUTE_EVENT_POSTGRES_EXITED);
    (void)give(COMPUTE_EVENT_STOP_FAST);
    (void)give_exit(COMPUTE_EVENT_PROPOSER_EXITED, COMPUTE_EXIT_FENCED);
    expect_state("stopped");
}
END_TEST

START_TEST(test_refused_settings_are_not_tried_again)
{
    (void)give(COMPUTE_EVENT_START);
    for (int i = 0; i < 3; i++) {
        (void)give(COMPUTE_EVENT_WORK_DONE);
    }
    ck_assert(give(COMPUTE_EVENT_POSTGRES_REFUSED) & COMPUTE_ACTION_STOP_PROPOSER);
    ck_assert_uint_eq(
        give(COMPUTE_EVENT_PROPOSER_EXITED) & COMPUTE_ACTION_STOP_TIMER, COMPUTE_ACTION_STOP_TIMER);
    expect_state("refused");
    ck_assert_uint_eq(give(COMPUTE_EVENT_TIMER), 0);
    ck_assert(give(COMPUTE_EVENT_START) & COMPUTE_ACTION_SYNC); /* only when it is asked for */
}
END_TEST

START_TEST(test_settings_that_no_session_takes_end_the_start)
{
    (void)give(COMPUTE_EVENT_START);
    for (int i = 0; i < 3; i++) {
        (void)give(COMPUTE_EVENT_WORK_DONE);
    }
    ck_assert(give(COMPUTE_EVENT_POSTGRES_READY) & COMPUTE_ACTION_ROLES);
    ck_assert(give(COMPUTE_EVENT_WORK_REFUSED) & COMPUTE_ACTION_STOP_IMMEDIATE);
    (void)give(COMPUTE_EVENT_POSTGRES_EXITED);
    (void)give(COMPUTE_EVENT_PROPOSER_EXITED);
    expect_state("refused");
    ck_assert(give(COMPUTE_EVENT_START) & COMPUTE_ACTION_SYNC);
}
END_TEST

START_TEST(test_failures_in_a_row_end_as_failed)
{
    (void)give(COMPUTE_EVENT_START);
    for (unsigned i = 1; i < COMPUTE_FAILURES_MAX; i++) {
        ck_assert(give(COMPUTE_EVENT_WORK_FAILED) & COMPUTE_ACTION_TIMER);
        ck_assert_uint_le(actions.timer_ms, 5000);
        ck_assert(i == 1 ? actions.timer_ms == 0 : actions.timer_ms > 0);
        ck_assert(give(COMPUTE_EVENT_TIMER) & COMPUTE_ACTION_SYNC);
    }
    (void)give(COMPUTE_EVENT_WORK_FAILED);
    expect_state("failed");
    ck_assert(give(COMPUTE_EVENT_START) & COMPUTE_ACTION_SYNC);
    ck_assert_uint_eq(plan.failures, 0);
}
END_TEST

START_TEST(test_steady_run_forgets_earlier_failures)
{
    bring_up();
    plan.failures = COMPUTE_FAILURES_MAX - 1;
    now_ms += 60000;
    (void)give(COMPUTE_EVENT_POSTGRES_EXITED);
    (void)give(COMPUTE_EVENT_PROPOSER_EXITED);
    expect_state("starting");
    ck_assert_uint_eq(plan.failures, 1);
}
END_TEST

START_TEST(test_stop_while_syncing_cancels_and_waits_for_the_work)
{
    (void)give(COMPUTE_EVENT_START);
    ck_assert(give(COMPUTE_EVENT_STOP_FAST) & COMPUTE_ACTION_CANCEL_WORK);
    expect_state("stopping");
    (void)give(COMPUTE_EVENT_WORK_DONE); /* it was done just before */
    expect_state("stopped");
}
END_TEST

START_TEST(test_start_during_a_stop_starts_again_afterwards)
{
    bring_up();
    (void)give(COMPUTE_EVENT_STOP_FAST);
    (void)give(COMPUTE_EVENT_START);
    expect_state("starting");
    (void)give(COMPUTE_EVENT_POSTGRES_EXITED);
    ck_assert(give(COMPUTE_EVENT_PROPOSER_EXITED) & COMPUTE_ACTION_SYNC);
}
END_TEST

START_TEST(test_delete_cleans_up_once_and_for_good)
{
    bring_up();
    (void)give(COMPUTE_EVENT_DELETE);
    (void)give(COMPUTE_EVENT_START); /* too late */
    (void)give(COMPUTE_EVENT_POSTGRES_EXITED);
    ck_assert(give(COMPUTE_EVENT_PROPOSER_EXITED) & COMPUTE_ACTION_CLEAN_UP);
    ck_assert_uint_eq(give(COMPUTE_EVENT_DELETE), 0);
    ck_assert_uint_eq(give(COMPUTE_EVENT_START), 0);
}
END_TEST

START_TEST(test_delete_of_a_stopped_compute_cleans_up_at_once)
{
    ck_assert(give(COMPUTE_EVENT_DELETE) & COMPUTE_ACTION_CLEAN_UP);
}
END_TEST

/*
 * Random histories: events that can happen in the state (what was started ends in any order, users
 * ask for anything). Checked: nothing starts while something of an earlier try is alive, no second
 * timer is needed to get out, and a stop always comes to an end.
 */
static struct {
    bool work, postgres, proposer, timer, deleted;
} world;

static void live(unsigned set)
{
    bool alive = world.work || world.postgres || world.proposer;
    if ((set & COMPUTE_ACTION_SYNC) != 0) {
        ck_assert(!alive);
        ck_assert(!world.deleted);
    }
    if ((set & COMPUTE_ACTION_LAUNCH) != 0) {
        ck_assert(!world.postgres && !world.proposer);
        world.postgres = world.proposer = true;
    }
    if ((set & (COMPUTE_ACTION_SYNC | COMPUTE_ACTION_BACKUP | COMPUTE_ACTION_UNPACK |
                COMPUTE_ACTION_ROLES)) != 0) {
        ck_assert(!world.work);
        world.work = true;
    }
    world.timer = (world.timer || (set & COMPUTE_ACTION_TIMER) != 0) &&
                  (set & COMPUTE_ACTION_STOP_TIMER) == 0; /* carried out in this order */
    if ((set & COMPUTE_ACTION_CLEAN_UP) != 0) {
        ck_assert(!alive && !world.deleted);
        world.deleted = true;
    }
}

static void random_event(struct prng *prng, bool users)
{
    static const int exits[] = {0, 1, 3, 4, -1};
    switch (prng_below(prng, users ? 9 : 5)) {
    case 0:
        if (world.work) {
            world.work = false;
            live(give(
                prng_below(prng, 4) != 0   ? COMPUTE_EVENT_WORK_DONE
                : prng_below(prng, 4) != 0 ? COMPUTE_EVENT_WORK_FAILED
                                           : COMPUTE_EVENT_WORK_REFUSED));
        }
        break;
    case 1:
        if (world.postgres && prng_below(prng, 4) == 0) {
            world.postgres = false;
            live(give(
                prng_below(prng, 8) == 0 ? COMPUTE_EVENT_POSTGRES_REFUSED
                                         : COMPUTE_EVENT_POSTGRES_EXITED));
        }
        break;
    case 2:
        if (world.proposer && prng_below(prng, 4) == 0) {
            world.proposer = false;
            live(give_exit(
                COMPUTE_EVENT_PROPOSER_EXITED, exits[prng_below(prng, ARRAY_LEN(exits))]));
        }
        break;
    case 3:
        if (world.timer) {
            world.timer = false;
            live(give(COMPUTE_EVENT_TIMER));
        }
        break;
    case 4:
        if (world.postgres) {
            live(give(COMPUTE_EVENT_POSTGRES_READY));
        }
        break;
    case 5:
    case 6: live(give(COMPUTE_EVENT_START)); break;
    case 7:
        live(give(
            prng_below(prng, 2) == 0 ? COMPUTE_EVENT_STOP_FAST : COMPUTE_EVENT_STOP_IMMEDIATE));
        break;
    case 8:
        if (prng_below(prng, 20) == 0) {
            live(give(COMPUTE_EVENT_DELETE));
        }
        break;
    }
}

START_TEST(test_random_histories_keep_the_invariants_and_come_to_rest)
{
    struct prng prng;
    prng_init(&prng, 7);
    for (int history = 0; history < 20000; history++) {
        plan = (struct compute_plan){0};
        memset(&world, 0, sizeof(world));
        for (int i = 0; i < 60; i++) {
            now_ms += prng_below(&prng, 20000);
            random_event(&prng, true);
        }
        live(give(COMPUTE_EVENT_STOP_IMMEDIATE));
        for (int i = 0; i < 2000 && plan.phase != COMPUTE_PHASE_OFF; i++) {
            random_event(&prng, false);
        }
        ck_assert_int_eq(plan.phase, COMPUTE_PHASE_OFF);
        ck_assert(!world.work && !world.postgres && !world.proposer && !world.timer);
        ck_assert_int_eq(world.deleted, plan.end == COMPUTE_END_DELETED);
    }
}
END_TEST

UNIT_MAIN(
    "compute_plan",
    test_start_goes_through_its_steps_in_order,
    test_fast_stop_keeps_the_walproposer_until_postgres_has_ended,
    test_immediate_stop_ends_both_at_once,
    test_stop_that_takes_too_long_gets_harder,
    test_immediate_stop_overtakes_a_fast_one,
    test_crashed_postgres_starts_anew_from_the_storage,
    test_crashed_walproposer_takes_postgres_with_it,
    test_fenced_compute_stops_and_stays_so,
    test_fenced_wins_over_the_restart_that_is_under_way,
    test_stop_wins_over_fenced_and_restart,
    test_refused_settings_are_not_tried_again,
    test_settings_that_no_session_takes_end_the_start,
    test_failures_in_a_row_end_as_failed,
    test_steady_run_forgets_earlier_failures,
    test_stop_while_syncing_cancels_and_waits_for_the_work,
    test_start_during_a_stop_starts_again_afterwards,
    test_delete_cleans_up_once_and_for_good,
    test_delete_of_a_stopped_compute_cleans_up_at_once,
    test_random_histories_keep_the_invariants_and_come_to_rest);
