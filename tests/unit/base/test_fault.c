/* Failpoints: off by default, exact when armed. */
#include "common/base/fault.h"

#include <string.h>

#include "common/base/clock.h"
#include "tests/unit/unit.h"

static struct errmsg msg;

START_TEST(test_without_enable_nothing_acts_and_arming_is_refused)
{
    ck_assert_int_eq(fault_arm("a=io", &msg), ERR_DENIED);
    ck_assert_int_eq(FAULT("a"), ERR_OK);
}
END_TEST

START_TEST(test_armed_name_returns_its_error_others_do_not)
{
    fault_enable();
    ck_assert_ok(fault_arm("store.before_sync=io;store.after_write=full", &msg), &msg);
    ck_assert_int_eq(FAULT("store.before_sync"), ERR_IO);
    ck_assert_int_eq(FAULT("store.after_write"), ERR_FULL);
    ck_assert_int_eq(FAULT("store.before"), ERR_OK);
    ck_assert_ok(fault_arm("", &msg), &msg); /* a new spec replaces the old one */
    ck_assert_int_eq(FAULT("store.before_sync"), ERR_OK);
}
END_TEST

START_TEST(test_times_and_every)
{
    fault_enable();
    ck_assert_ok(fault_arm("a=busy*2;b=stale%3", &msg), &msg);
    int acted = 0;
    for (int i = 0; i < 10; i++) {
        acted += FAULT("a") == ERR_BUSY ? 1 : 0;
    }
    ck_assert_int_eq(acted, 2);
    acted = 0;
    for (int i = 0; i < 9; i++) {
        acted += FAULT("b") == ERR_STALE ? 1 : 0;
    }
    ck_assert_int_eq(acted, 3);
}
END_TEST

START_TEST(test_first_hits_can_be_let_through)
{
    fault_enable();
    ck_assert_ok(fault_arm("a=io@4*1;b=io@2%3", &msg), &msg);
    for (int i = 1; i <= 8; i++) {
        ck_assert_int_eq(FAULT("a"), i == 4 ? ERR_IO : ERR_OK);
        ck_assert_int_eq(FAULT("b"), i == 2 || i == 5 || i == 8 ? ERR_IO : ERR_OK);
    }
}
END_TEST

START_TEST(test_pause_delays_and_is_no_error)
{
    fault_enable();
    ck_assert_ok(fault_arm("a=pause:20*1", &msg), &msg);
    mono_ns_t begin = clock_mono();
    ck_assert_int_eq(FAULT("a"), ERR_OK);
    ck_assert_uint_ge(clock_mono() - begin, 20 * NS_PER_MS);
}
END_TEST

START_TEST(test_bad_specs_are_refused_and_keep_the_old_one)
{
    fault_enable();
    ck_assert_ok(fault_arm("a=io", &msg), &msg);
    ck_assert_int_eq(fault_arm("a", &msg), ERR_INVALID);
    ck_assert_int_eq(fault_arm("a=nonsense", &msg), ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(msg.text, "nonsense"));
    ck_assert_int_eq(FAULT("a"), ERR_IO);
}
END_TEST

UNIT_MAIN(
    "fault",
    test_without_enable_nothing_acts_and_arming_is_refused,
    test_armed_name_returns_its_error_others_do_not,
    test_times_and_every,
    test_first_hits_can_be_let_through,
    test_pause_delays_and_is_no_error,
    test_bad_specs_are_refused_and_keep_the_old_one);
