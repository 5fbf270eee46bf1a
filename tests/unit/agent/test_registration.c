#include "compute/agent/registration.h"

#include "tests/unit/unit.h"

/* Control heard the first of them when it began; its answer was as late as it may be. */
START_TEST(test_two_calls_that_hang_leave_time_for_a_third)
{
    static const uint64_t leases_ms[] = {1000, 2000, 10000, 3600000};
    for (size_t i = 0; i < ARRAY_LEN(leases_ms); i++) {
        uint64_t lease_ms = leases_ms[i];
        uint64_t timeout_ms = registration_timeout_ms(lease_ms);
        uint64_t at_ms = timeout_ms + registration_pause_ms(lease_ms, true, timeout_ms);
        for (int hung = 0; hung < 2; hung++) {
            at_ms += timeout_ms + registration_pause_ms(lease_ms, false, timeout_ms);
        }
        ck_assert_uint_le(at_ms, lease_ms * 9 / 10);
    }
}
END_TEST

/* A machine that slept through its call must not wait for ages. */
START_TEST(test_what_took_longer_than_the_pause_is_said_again_at_once)
{
    ck_assert_uint_eq(registration_pause_ms(3000, true, 0), 1000);
    ck_assert_uint_eq(registration_pause_ms(3000, true, 400), 600);
    ck_assert_uint_eq(registration_pause_ms(3000, true, 100000), 0);
}
END_TEST

UNIT_MAIN(
    "registration",
    test_two_calls_that_hang_leave_time_for_a_third,
    test_what_took_longer_than_the_pause_is_said_again_at_once);
