/* Text into numbers: the whole text or nothing. */
#include "common/base/parse.h"

#include <string.h>
#include <time.h>

#include "common/base/clock.h"
#include "common/base/id.h"
#include "tests/unit/unit.h"

static struct errmsg msg;

START_TEST(test_numbers)
{
    uint64_t value = 0;
    ck_assert_ok(parse_u64("0", 0, UINT64_MAX, &value, &msg), &msg);
    ck_assert_ok(parse_u64("18446744073709551615", 0, UINT64_MAX, &value, &msg), &msg);
    ck_assert_uint_eq(value, UINT64_MAX);
    static const char *const bad[] = {
        "", " 1", "1 ", "-1", "+1", "0x10", "1e3", "18446744073709551616", "one", "1.0"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        ck_assert_int_eq(parse_u64(bad[i], 0, UINT64_MAX, &value, &msg), ERR_INVALID);
    }
    ck_assert_int_eq(parse_u64("11", 1, 10, &value, &msg), ERR_INVALID);
    ck_assert_str_eq(msg.text, "\"11\" is not a number from 1 to 10");
    uint32_t small = 0;
    ck_assert_int_eq(parse_u32("4294967296", &small, &msg), ERR_INVALID);
    ck_assert_ok(parse_u32("4294967295", &small, &msg), &msg);
}
END_TEST

START_TEST(test_lsns)
{
    lsn_t lsn = 0;
    ck_assert_ok(parse_lsn("0/16B3748", &lsn, &msg), &msg);
    ck_assert_uint_eq(lsn, 0x16B3748);
    ck_assert_ok(parse_lsn("ffffffff/FFFFFFFF", &lsn, &msg), &msg);
    ck_assert_uint_eq(lsn, UINT64_MAX);
    static const char *const bad[] = {"",    "/",    "0/",   "/0",          "0",           "0/0/0",
                                      "0/g", " 0/0", "0/0 ", "000000000/0", "0/000000000", "-1/0"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        ck_assert_int_eq(parse_lsn(bad[i], &lsn, &msg), ERR_INVALID);
        ck_assert_uint_eq(lsn, UINT64_MAX); /* only written on success */
    }
}
END_TEST

START_TEST(test_sizes_and_durations)
{
    uint64_t value = 0;
    ck_assert_ok(parse_size("64MB", &value, &msg), &msg);
    ck_assert_uint_eq(value, 64 * MIB);
    ck_assert_ok(parse_size("3 kB", &value, &msg), &msg);
    ck_assert_uint_eq(value, 3072);
    ck_assert_ok(parse_size("17", &value, &msg), &msg);
    ck_assert_uint_eq(value, 17);
    ck_assert_int_eq(parse_size("1XB", &value, &msg), ERR_INVALID);
    ck_assert_int_eq(parse_size("99999999999TB", &value, &msg), ERR_INVALID);
    ck_assert_int_eq(parse_size("-1MB", &value, &msg), ERR_INVALID);
    ck_assert_ok(parse_duration("2min", &value, &msg), &msg);
    ck_assert_uint_eq(value, 120000);
    ck_assert_ok(parse_duration("250", &value, &msg), &msg);
    ck_assert_uint_eq(value, 250);
    ck_assert_int_eq(parse_duration("2 years", &value, &msg), ERR_INVALID);
}
END_TEST

START_TEST(test_text_of_a_time_is_the_date_of_the_c_library)
{
    /* 37 hours and a bit apart, from 1901 until 2250: every day of several leap years, centuries
     * too */
    for (int64_t seconds = -2177452800; seconds < 8835955200; seconds += 37 * 3600 + 1741) {
        char expected[40];
        struct tm tm;
        time_t at = (time_t)seconds;
        (void)gmtime_r(&at, &tm);
        (void)strftime(expected, sizeof(expected), "%Y-%m-%dT%H:%M:%S.000007Z", &tm);
        ck_assert_str_eq(time_text(seconds * 1000000 + 7).text, expected);
    }
    ck_assert_str_eq(time_text(-1).text, "1969-12-31T23:59:59.999999Z");
}
END_TEST

START_TEST(test_times)
{
    wall_us_t time = 0;
    ck_assert_ok(parse_time("1970-01-01T00:00:01Z", &time, &msg), &msg);
    ck_assert_int_eq(time, 1000000);
    ck_assert_ok(parse_time("2026-11-22T12:00:00.5+02:00", &time, &msg), &msg);
    wall_us_t utc = 0;
    ck_assert_ok(parse_time("2026-11-22 10:00:00.500000z", &utc, &msg), &msg);
    ck_assert_int_eq(time, utc);
    ck_assert_str_eq(time_text(utc).text, "2026-11-22T10:00:00.500000Z");
    ck_assert_ok(parse_time(time_text(1234567890123456).text, &time, &msg), &msg);
    ck_assert_int_eq(time, 1234567890123456);
    ck_assert_ok(parse_time("2028-02-29T23:59:60Z", &time, &msg), &msg); /* leap day and second */
    static const char *const bad[] = {
        "",
        "now",
        "2026-11-22",
        "2026-11-22T10:00:00",
        "2026-13-01T00:00:00Z",
        "2026-11-22T25:00:00Z",
        "2026-11-22T10:00:00+2",
        "2026-11-22T10:00:00Zx",
        "1969-01-01T00:00:00Z",
        "2026-02-29T00:00:00Z"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        ck_assert_msg(parse_time(bad[i], &time, &msg) == ERR_INVALID, "%s", bad[i]);
    }
}
END_TEST

START_TEST(test_booleans)
{
    bool value = false;
    ck_assert_ok(parse_bool("on", &value, &msg), &msg);
    ck_assert(value);
    ck_assert_ok(parse_bool("0", &value, &msg), &msg);
    ck_assert(!value);
    ck_assert_int_eq(parse_bool("TRUE ", &value, &msg), ERR_INVALID);
}
END_TEST

START_TEST(test_hex_and_ids)
{
    uint8_t bytes[2];
    char text[5];
    ck_assert_ok(parse_hex("aF09", bytes, 2, &msg), &msg);
    format_hex(bytes, 2, text);
    ck_assert_str_eq(text, "af09");
    ck_assert_int_eq(parse_hex("aF0", bytes, 2, &msg), ERR_INVALID);
    ck_assert_int_eq(parse_hex("aF091", bytes, 2, &msg), ERR_INVALID);
    ck_assert_int_eq(parse_hex("aF0g", bytes, 2, &msg), ERR_INVALID);
    struct tenant_id id;
    ck_assert_ok(tenant_id_parse("000102030405060708090a0b0c0d0e0f", &id, &msg), &msg);
    ck_assert_str_eq(tenant_id_text(id).text, "000102030405060708090a0b0c0d0e0f");
    ck_assert(!tenant_id_is_none(id));
    ck_assert_int_ne(tenant_id_parse("000102030405060708090a0b0c0d0e0", &id, &msg), ERR_OK);
    struct timeline_id none = {0};
    ck_assert(timeline_id_is_none(none) && timeline_id_equal(none, none));
}
END_TEST

UNIT_MAIN(
    "parse",
    test_numbers,
    test_lsns,
    test_sizes_and_durations,
    test_text_of_a_time_is_the_date_of_the_c_library,
    test_times,
    test_booleans,
    test_hex_and_ids);
