#include "common/base/clock.h"
#include "common/base/parse.h"
#include "control/plan/calendar.h"
#include "tests/unit/unit.h"

static wall_us_t at(const char *text)
{
    wall_us_t time = 0;
    struct errmsg msg = {0};
    ck_assert_ok(parse_time(text, &time, &msg), &msg);
    return time;
}

static const struct {
    struct calendar_rule rule;
    const char *now, *due;
} cases[] = {
    {{FREQUENCY_HOURLY, 0, 1, 1}, "2026-11-27T10:59:59.999Z", "2026-11-27T10:00:00Z"},
    {{FREQUENCY_HOURLY, 0, 1, 1}, "2026-11-27T11:00:00Z", "2026-11-27T11:00:00Z"},
    {{FREQUENCY_DAILY, 3, 1, 1}, "2026-11-27T02:59:59Z", "2026-11-26T03:00:00Z"},
    {{FREQUENCY_DAILY, 3, 1, 1}, "2026-11-27T03:00:00Z", "2026-11-27T03:00:00Z"},
    {{FREQUENCY_DAILY, 0, 1, 1}, "2027-01-01T00:00:00Z", "2027-01-01T00:00:00Z"},
    {{FREQUENCY_DAILY, 1, 1, 1}, "2027-01-01T00:00:00Z", "2026-12-31T01:00:00Z"},
    /* 2026-11-27 is a Friday. */
    {{FREQUENCY_WEEKLY, 0, 5, 1}, "2026-11-27T00:00:00Z", "2026-11-27T00:00:00Z"},
    {{FREQUENCY_WEEKLY, 1, 5, 1}, "2026-11-27T00:00:00Z", "2026-11-20T01:00:00Z"},
    {{FREQUENCY_WEEKLY, 0, 1, 1}, "2026-11-27T12:00:00Z", "2026-11-23T00:00:00Z"},
    {{FREQUENCY_WEEKLY, 0, 6, 1}, "2026-11-27T12:00:00Z", "2026-11-21T00:00:00Z"},
    {{FREQUENCY_WEEKLY, 23, 7, 1}, "2026-03-01T22:00:00Z", "2026-02-22T23:00:00Z"},
    {{FREQUENCY_MONTHLY, 0, 27, 1}, "2026-11-27T00:00:00Z", "2026-11-27T00:00:00Z"},
    {{FREQUENCY_MONTHLY, 0, 28, 1}, "2026-11-27T00:00:00Z", "2026-10-28T00:00:00Z"},
    {{FREQUENCY_MONTHLY, 0, 31, 1}, "2026-03-30T00:00:00Z", "2026-02-28T00:00:00Z"},
    {{FREQUENCY_MONTHLY, 0, 31, 1}, "2028-03-30T00:00:00Z", "2028-02-29T00:00:00Z"},
    {{FREQUENCY_MONTHLY, 0, 31, 1}, "2026-01-30T00:00:00Z", "2025-12-31T00:00:00Z"},
    {{FREQUENCY_YEARLY, 6, 29, 2}, "2027-02-28T06:00:00Z", "2027-02-28T06:00:00Z"},
    {{FREQUENCY_YEARLY, 6, 29, 2}, "2027-02-28T05:00:00Z", "2026-02-28T06:00:00Z"},
    {{FREQUENCY_YEARLY, 6, 29, 2}, "2029-01-01T00:00:00Z", "2028-02-29T06:00:00Z"},
    {{FREQUENCY_YEARLY, 0, 1, 1}, "2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"},
    {{FREQUENCY_YEARLY, 0, 31, 12}, "2100-12-30T00:00:00Z", "2099-12-31T00:00:00Z"},
};

START_TEST(test_what_was_due_last)
{
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        wall_us_t due = calendar_last(&cases[i].rule, at(cases[i].now));
        ck_assert_str_eq(time_text(due).text, time_text(at(cases[i].due)).text);
    }
}
END_TEST

/* From one moment to the next nothing is left out, and nothing comes twice. */
START_TEST(test_the_last_is_not_after_now_and_never_goes_back)
{
    wall_us_t begin = at("2026-01-01T00:00:00Z"), end = at("2030-01-01T00:00:00Z");
    for (unsigned f = 0; f <= FREQUENCY_YEARLY; f++) {
        struct calendar_rule rule = {.frequency = f, .hour = 5, .day = 7, .month = 3};
        wall_us_t before = 0;
        for (wall_us_t now = begin; now < end; now += (wall_us_t)37 * 60 * 1000000) {
            wall_us_t due = calendar_last(&rule, now);
            ck_assert_int_le(due, now);
            ck_assert_int_ge(due, before);
            ck_assert_int_eq(calendar_last(&rule, due), due);
            before = due;
        }
    }
}
END_TEST

UNIT_MAIN("calendar", test_what_was_due_last, test_the_last_is_not_after_now_and_never_goes_back);
