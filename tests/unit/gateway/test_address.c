/* Which endpoint a client means. */
#include "control/gateway/address.h"

#include "tests/unit/unit.h"

static struct address address;
static struct buf rest;
static struct errmsg msg;

static err_t parse(const char *server_name, const char *options)
{
    buf_clear(&rest);
    return address_of(server_name, options, &address, &rest, &msg);
}

START_TEST(test_the_host_name_says_it)
{
    ck_assert_ok(parse("ep-calm-sea-1a2b3c4d.db.example.org", NULL), &msg);
    ck_assert_str_eq(address.name, "ep-calm-sea-1a2b3c4d");
    ck_assert(!address.pooled);
    ck_assert_ok(parse("EP-Calm-Sea-1a2b3c4d-Pooler.db.example.org", NULL), &msg);
    ck_assert_str_eq(address.name, "ep-calm-sea-1a2b3c4d");
    ck_assert(address.pooled);
    ck_assert_ok(parse("br-old-bird-5e6f7a8b.x", NULL), &msg);
    ck_assert_str_eq(address.name, "br-old-bird-5e6f7a8b");
}
END_TEST

START_TEST(test_another_host_name_says_nothing)
{
    static const char *const names[] = {"", "localhost", "db.example.org", "ep-x", "127.0.0.1"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        ck_assert_ok(parse(names[i], NULL), &msg);
        ck_assert_str_eq(address.name, "");
    }
}
END_TEST

START_TEST(test_the_options_say_it_and_the_rest_stays)
{
    ck_assert_ok(parse("", " -c geqo=off  endpoint=ep-a-b-1-pooler -c search_path=a\\ b"), &msg);
    ck_assert_str_eq(address.name, "ep-a-b-1");
    ck_assert(address.pooled);
    ck_assert_str_eq(buf_cstr(&rest), "-c geqo=off -c search_path=a\\ b");
    ck_assert_ok(parse("", "-c a=endpoint=x"), &msg);
    ck_assert_str_eq(address.name, "");
    ck_assert_ok(parse("ep-a-b-1-pooler.x", "endpoint=ep-a-b-1"), &msg);
    ck_assert(address.pooled);
}
END_TEST

START_TEST(test_the_options_may_name_a_moment)
{
    ck_assert_ok(parse("br-a-b-1.x", "neon_lsn:0/16B3748"), &msg);
    ck_assert_str_eq(address.moment, "0/16B3748");
    ck_assert(address.moment_is_lsn);
    ck_assert_uint_eq(rest.size, 0);
    ck_assert_ok(parse("", "project=ep-a-b-1 timestamp=2026-11-22T10:00:00Z -c geqo=off"), &msg);
    ck_assert_str_eq(address.name, "ep-a-b-1");
    ck_assert_str_eq(address.moment, "2026-11-22T10:00:00Z");
    ck_assert(!address.moment_is_lsn);
    ck_assert_str_eq(buf_cstr(&rest), "-c geqo=off");
    ck_assert_ok(parse("ep-a-b-1-pooler.x", "neon_timestamp:2026-11-22T10:00:00Z"), &msg);
    ck_assert(address.pooled);
    ck_assert_ok(parse("ep-a-b-1.x", ""), &msg);
    ck_assert_str_eq(address.moment, "");
    ck_assert_int_eq(parse("ep-a-b-1.x", "lsn=yesterday"), ERR_INVALID);
    ck_assert_int_eq(parse("ep-a-b-1.x", "timestamp=yesterday"), ERR_INVALID);
    ck_assert_int_eq(parse("ep-a-b-1.x", "lsn=0/1 lsn=0/2"), ERR_INVALID);
    ck_assert_int_eq(
        parse("ep-a-b-1.x", "timestamp=2026-11-22T10:00:00.000000000000000000000000Z"),
        ERR_INVALID);
}
END_TEST

START_TEST(test_contradiction_and_bad_names_are_refused)
{
    char huge[2000];
    memset(huge, 'a', sizeof huge);
    memcpy(huge, "ep-", 3);
    memcpy(huge + sizeof huge - 3, ".x", 3);
    ck_assert_int_eq(parse("ep-a-b-1.x", "endpoint=ep-a-b-2"), ERR_INVALID);
    ck_assert_int_eq(parse("", "endpoint="), ERR_INVALID);
    ck_assert_int_eq(parse("", "endpoint=postgres"), ERR_INVALID);
    ck_assert_int_eq(parse("ep-a_b.x", NULL), ERR_INVALID);
    ck_assert_int_eq(parse("ep-a/../b.x", NULL), ERR_INVALID);
    ck_assert_int_eq(parse(huge, NULL), ERR_INVALID);
}
END_TEST

UNIT_MAIN(
    "address",
    test_the_host_name_says_it,
    test_another_host_name_says_nothing,
    test_the_options_say_it_and_the_rest_stays,
    test_the_options_may_name_a_moment,
    test_contradiction_and_bad_names_are_refused);
