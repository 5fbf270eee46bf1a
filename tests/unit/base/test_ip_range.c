#include "common/base/ip_range.h"

#include "tests/unit/unit.h"

static struct errmsg msg;

static bool has(const char *text, const char *address)
{
    struct ip_range range;
    ck_assert_ok(ip_range_parse(text, &range, &msg), &msg);
    return ip_range_has(&range, address);
}

START_TEST(test_one_address_is_itself)
{
    ck_assert(has("192.0.2.7", "192.0.2.7"));
    ck_assert(!has("192.0.2.7", "192.0.2.8"));
    ck_assert(has("2001:db8::1", "2001:0db8:0:0:0:0:0:1"));
    ck_assert(!has("2001:db8::1", "2001:db8::2"));
}
END_TEST

START_TEST(test_prefix_covers_its_network_and_no_more)
{
    ck_assert(has("192.0.2.77/24", "192.0.2.0") && has("192.0.2.77/24", "192.0.2.255"));
    ck_assert(!has("192.0.2.77/24", "192.0.1.255") && !has("192.0.2.77/24", "192.0.3.0"));
    ck_assert(has("10.0.0.128/25", "10.0.0.128") && !has("10.0.0.128/25", "10.0.0.127"));
    ck_assert(has("0.0.0.0/0", "255.255.255.255") && has("::/0", "2001:db8::1"));
    ck_assert(has("2001:db8::/33", "2001:db8:7fff::") && !has("2001:db8::/33", "2001:db8:8000::"));
    ck_assert(has("192.0.2.7/32", "192.0.2.7") && !has("192.0.2.7/32", "192.0.2.6"));
}
END_TEST

START_TEST(test_range_has_both_its_ends)
{
    ck_assert(has("10.0.0.250-10.0.1.5", "10.0.0.250") && has("10.0.0.250-10.0.1.5", "10.0.1.5"));
    ck_assert(has("10.0.0.250-10.0.1.5", "10.0.1.0"));
    ck_assert(!has("10.0.0.250-10.0.1.5", "10.0.0.249") && !has("10.0.0.250-10.0.1.5", "10.0.1.6"));
}
END_TEST

START_TEST(test_families_are_kept_apart_but_for_mapped_addresses)
{
    ck_assert(!has("0.0.0.0/0", "::1") && !has("::/0", "192.0.2.1"));
    ck_assert(has("192.0.2.0/24", "::ffff:192.0.2.9"));
    ck_assert(has("::ffff:192.0.2.9", "192.0.2.9"));
    ck_assert(!has("0.0.0.0/0", "") && !has("0.0.0.0/0", "localhost"));
}
END_TEST

START_TEST(test_what_is_no_range_is_refused)
{
    static const char *const bad[] = {
        "",
        "localhost",
        "10.0.0",
        "10.0.0.1/33",
        "10.0.0.1/",
        "10.0.0.1/x",
        "10.0.0.1/-1",
        "10.0.0.9-10.0.0.1",
        "10.0.0.1-::1",
        "10.0.0.1-",
        "::1/129",
        "10.0.0.1/8/8",
        " 10.0.0.1",
        "10.0.0.1-10.0.0.2-1",
        "*"};
    struct ip_range range;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        ck_assert_msg(ip_range_parse(bad[i], &range, &msg) == ERR_INVALID, "%s", bad[i]);
    }
}
END_TEST

UNIT_MAIN(
    "ip_range",
    test_one_address_is_itself,
    test_prefix_covers_its_network_and_no_more,
    test_range_has_both_its_ends,
    test_families_are_kept_apart_but_for_mapped_addresses,
    test_what_is_no_range_is_refused);
