/* Start-up packets and messages, whole, in pieces and damaged. */
#include "control/gateway/pg_wire.h"

#include "common/base/mem.h"
#include "common/base/prng.h"
#include "tests/unit/unit.h"

static const uint8_t session_packet[] = "\0\0\0\x27\0\x03\0\0user\0app\0database\0\0options\0-c\0";
#define SESSION_SIZE sizeof(session_packet) /* with the last NUL */

static struct errmsg msg;

START_TEST(test_session_packet_in_any_pieces)
{
    struct pg_startup startup;
    size_t taken = 1;
    ck_assert_uint_eq(SESSION_SIZE, 0x27);
    for (size_t size = 0; size < SESSION_SIZE; size++) {
        ck_assert_ok(
            pg_startup_parse(bytes_of(session_packet, size), &startup, &taken, &msg), &msg);
        ck_assert_uint_eq(taken, 0);
    }
    ck_assert_ok(
        pg_startup_parse(bytes_of(session_packet, SESSION_SIZE), &startup, &taken, &msg), &msg);
    ck_assert_uint_eq(taken, SESSION_SIZE);
    ck_assert_int_eq(startup.kind, PG_STARTUP_SESSION);
    ck_assert_str_eq(pg_startup_parameter(&startup, "user"), "app");
    ck_assert_str_eq(pg_startup_parameter(&startup, "database"), "");
    ck_assert_str_eq(pg_startup_parameter(&startup, "options"), "-c");
    ck_assert_ptr_null(pg_startup_parameter(&startup, "replication"));
    ck_assert(!pg_startup_wants_negotiation(&startup));
}
END_TEST

START_TEST(test_requests_for_encryption_and_cancel)
{
    static const uint8_t tls[] = {0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f};
    static const uint8_t gss[] = {0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30};
    static const uint8_t cancel[] = {0, 0, 0, 16, 0x04, 0xd2, 0x16, 0x2e, 0, 0, 1, 2, 0, 0, 3, 4};
    struct pg_startup startup;
    size_t taken = 0;
    ck_assert_ok(pg_startup_parse(bytes_of(tls, sizeof tls), &startup, &taken, &msg), &msg);
    ck_assert_int_eq(startup.kind, PG_STARTUP_TLS);
    ck_assert_ok(pg_startup_parse(bytes_of(gss, sizeof gss), &startup, &taken, &msg), &msg);
    ck_assert_int_eq(startup.kind, PG_STARTUP_GSS);
    ck_assert_ok(pg_startup_parse(bytes_of(cancel, sizeof cancel), &startup, &taken, &msg), &msg);
    ck_assert_int_eq(startup.kind, PG_STARTUP_CANCEL);
    ck_assert_uint_eq(startup.cancel_pid, 0x102);
    ck_assert_uint_eq(startup.cancel_key, 0x304);
    struct buf sent = {0};
    pg_put_cancel(&sent, 0x102, 0x304);
    ck_assert(bytes_equal(buf_view(&sent), bytes_of(cancel, sizeof cancel)));
    buf_deinit(&sent);
}
END_TEST

START_TEST(test_what_is_no_start_up_packet_is_refused)
{
    static const struct {
        const char *bytes;
        size_t size;
        err_t err;
    } cases[] = {
        {"\0\0\0\7\0\3\0\0", 8, ERR_INVALID},         /* smaller than itself */
        {"\0\1\0\0\0\3\0\0", 8, ERR_INVALID},         /* above the limit */
        {"GET / HTTP/1.1\r\n", 16, ERR_INVALID},      /* a browser */
        {"\0\0\0\x09\0\2\0\0\0", 9, ERR_UNSUPPORTED}, /* protocol 2 */
        {"\0\0\0\x08\0\3\0\0", 8, ERR_INVALID},       /* no end of the parameters */
        {"\0\0\0\x0e\0\3\0\0user\0\0", 14, ERR_INVALID},
        {"\0\0\0\x0d\0\3\0\0userx", 13, ERR_INVALID},
        {"\0\0\0\x0b\0\3\0\0\0a\0", 11, ERR_INVALID}, /* something behind the end */
        {"\0\0\0\x0c\x04\xd2\x16\x2f\0\0\0\0", 12, ERR_INVALID},
        {"\0\0\0\x0c\x04\xd2\x16\x2e\0\0\0\0", 12, ERR_INVALID},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct pg_startup startup;
        size_t taken = 0;
        err_t err =
            pg_startup_parse(bytes_of(cases[i].bytes, cases[i].size), &startup, &taken, &msg);
        ck_assert_msg(err == cases[i].err, "case %zu: %s", i, err_code(err));
    }
}
END_TEST

START_TEST(test_newer_minor_version_and_extensions_are_negotiated)
{
    static const uint8_t packet[] = "\0\0\0\x19\0\x03\0\x02user\0a\0_pq_.x\0y\0";
    struct pg_startup startup;
    struct pg_message message;
    struct buf answer = {0};
    size_t taken = 0;
    ck_assert_ok(pg_startup_parse(bytes_of(packet, sizeof packet), &startup, &taken, &msg), &msg);
    ck_assert_uint_eq(taken, sizeof packet);
    ck_assert(pg_startup_wants_negotiation(&startup));
    pg_put_negotiation(&answer, &startup);
    ck_assert_ok(pg_message_parse(buf_view(&answer), 1000, &message, &msg), &msg);
    ck_assert_uint_eq(message.type, 'v');
    ck_assert_uint_eq(pg_get_u32(message.body.data), 0x30000);
    ck_assert_uint_eq(pg_get_u32(message.body.data + 4), 1);
    ck_assert_str_eq((const char *)message.body.data + 8, "_pq_.x");
    buf_deinit(&answer);
}
END_TEST

START_TEST(test_error_can_be_read_back_and_damage_is_bounded)
{
    struct buf sent = {0};
    struct pg_message message;
    char code[6];
    char text[64];
    pg_put_fatal(&sent, "28P01", "no such luck", "try again");
    ck_assert_ok(pg_message_parse(buf_view(&sent), 1000, &message, &msg), &msg);
    ck_assert_uint_eq(message.size, sent.size);
    pg_error_fields(message.body, code, text, sizeof text);
    ck_assert_str_eq(code, "28P01");
    ck_assert_str_eq(text, "no such luck");
    for (size_t size = 0; size < message.body.size; size++) {
        pg_error_fields(bytes_of(message.body.data, size), code, text, sizeof text);
    }
    sent.data[1] = 0xff;
    ck_assert_int_eq(pg_message_parse(buf_view(&sent), 1000, &message, &msg), ERR_INVALID);
    buf_deinit(&sent);
}
END_TEST

START_TEST(test_a_setting_is_two_texts_and_no_more)
{
    static const struct {
        const char *body;
        size_t size;
    } bad[] = {{"", 0}, {"", 1}, {"name", 4}, {"name", 5}, {"name\0value", 10}, {"a\0b\0c", 6}};
    const char *name = NULL;
    const char *value = NULL;
    ck_assert(pg_parameter_parse(bytes_of("TimeZone\0UTC", 13), &name, &value));
    ck_assert_str_eq(name, "TimeZone");
    ck_assert_str_eq(value, "UTC");
    ck_assert(pg_parameter_parse(bytes_of("a\0", 3), &name, &value));
    ck_assert_str_eq(value, "");
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct bytes body = {0};
        uint8_t *copy = mem_dup(bad[i].body, MAX_OF(bad[i].size, 1)); /* its end is guarded */
        body = bytes_of(copy, bad[i].size);
        ck_assert(!pg_parameter_parse(body, &name, &value));
        mem_free(copy);
    }
    ck_assert(!pg_parameter_parse(bytes_of(NULL, 0), &name, &value));
}
END_TEST

START_TEST(test_random_bytes_are_refused_or_waited_for)
{
    struct prng prng;
    prng_init(&prng, 1);
    for (int round = 0; round < 20000; round++) {
        uint8_t bytes[64];
        size_t size = prng_below(&prng, sizeof bytes + 1);
        for (size_t i = 0; i < size; i++) {
            bytes[i] = (uint8_t)(prng_below(&prng, 4) == 0 ? prng_next(&prng) : 0);
        }
        if (size >= 8 && prng_below(&prng, 2) == 0) {
            memcpy(bytes, (const uint8_t[]){0, 0, 0, (uint8_t)size, 0, 3, 0, 0}, 8);
        }
        struct pg_startup startup = {0};
        size_t taken = 0;
        err_t err = pg_startup_parse(bytes_of(bytes, size), &startup, &taken, &msg);
        ck_assert_uint_le(taken, size);
        size_t at = 0;
        const char *name = NULL;
        const char *value = NULL;
        while (err == ERR_OK && taken > 0 && pg_startup_next(&startup, &at, &name, &value)) {
            ck_assert_uint_le(at, startup.parameters.size);
        }
    }
}
END_TEST

UNIT_MAIN(
    "pg_wire",
    test_session_packet_in_any_pieces,
    test_requests_for_encryption_and_cancel,
    test_what_is_no_start_up_packet_is_refused,
    test_newer_minor_version_and_extensions_are_negotiated,
    test_error_can_be_read_back_and_damage_is_bounded,
    test_a_setting_is_two_texts_and_no_more,
    test_random_bytes_are_refused_or_waited_for);
