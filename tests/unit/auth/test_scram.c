/* Verifiers as Postgres stores them. */
#include "common/auth/scram.h"

#include <string.h>

#include "tests/unit/unit.h"

/* RFC 7677 section 3: user "user", password "pencil". */
static const char rfc[] =
    "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY="
    ":wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

START_TEST(test_verifier_of_the_rfc_matches_its_password_only)
{
    ck_assert(scram_matches(rfc, "pencil"));
    ck_assert(!scram_matches(rfc, "pencils"));
    ck_assert(!scram_matches(rfc, ""));
}
END_TEST

START_TEST(test_anything_else_does_not_match)
{
    static const char *const bad[] = {
        "",
        "md5d41d8cd98f00b204e9800998ecf8427e",
        "SCRAM-SHA-256$",
        "SCRAM-SHA-256$4096",
        "SCRAM-SHA-256$4096:",
        "SCRAM-SHA-256$0:W22ZaJ0SNY7soEsUEjb6gQ==$a:b",
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$a:b",
        "SCRAM-SHA-256$99999999999:W22ZaJ0SNY7soEsUEjb6gQ==$a:b",
        "SCRAM-SHA-256$4096:!!!!$a:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        ck_assert_msg(!scram_matches(bad[i], "pencil"), "%s", bad[i]);
    }
    for (size_t cut = 0; cut < strlen(rfc); cut++) {
        char copy[sizeof(rfc)];
        memcpy(copy, rfc, cut);
        copy[cut] = '\0';
        ck_assert(!scram_matches(copy, "pencil"));
    }
    ck_assert(!scram_matches(rfc, "penc\xC3\xAFl")); /* not normalised here */
}
END_TEST

/* The client key of "pencil" with the verifier of the RFC. */
static const uint8_t pencil_key[SCRAM_KEY_SIZE] = {
    0xa6, 0x0f, 0xc9, 0x23, 0xd6, 0x7e, 0x86, 0x44, 0xa9, 0x2d, 0x16, 0xb9, 0x6e, 0xda, 0x5e, 0xf4,
    0x65, 0x6b, 0x0c, 0x72, 0x5c, 0x48, 0x43, 0x74, 0xbe, 0x25, 0x53, 0x55, 0x76, 0x99, 0x6e, 0x8b,
};

struct exchange {
    struct scram_verifier verifier;
    struct scram_server server;
    struct scram_client client;
    struct buf to_server, to_client;
    struct errmsg msg;
};

static void begin(struct exchange *exchange)
{
    *exchange = (struct exchange){0};
    ck_assert_ok(scram_verifier_parse(rfc, &exchange->verifier, &exchange->msg), &exchange->msg);
    exchange->server.verifier = &exchange->verifier;
    exchange->client.verifier = &exchange->verifier;
    memcpy(exchange->client.client_key, pencil_key, sizeof pencil_key);
    memset(exchange->server.nonce, 7, sizeof exchange->server.nonce);
    memset(exchange->client.nonce, 9, sizeof exchange->client.nonce);
    scram_client_first(&exchange->client, &exchange->to_server);
}

static void end(struct exchange *exchange)
{
    buf_deinit(&exchange->to_server);
    buf_deinit(&exchange->to_client);
}

static err_t step(struct exchange *exchange)
{
    buf_clear(&exchange->to_client);
    err_t err = scram_server_step(
        &exchange->server, buf_view(&exchange->to_server), &exchange->to_client, &exchange->msg);
    buf_clear(&exchange->to_server);
    return err;
}

START_TEST(test_client_key_is_as_good_as_the_password_and_is_learned)
{
    struct exchange one;
    begin(&one);
    ck_assert_ok(step(&one), &one.msg);
    ck_assert_ok(
        scram_client_final(&one.client, buf_view(&one.to_client), &one.to_server, &one.msg),
        &one.msg);
    ck_assert_ok(step(&one), &one.msg);
    ck_assert_int_eq(one.server.state, SCRAM_DONE);
    ck_assert_ok(scram_client_check(&one.client, buf_view(&one.to_client), &one.msg), &one.msg);
    ck_assert(memcmp(scram_server_client_key(&one.server), pencil_key, SCRAM_KEY_SIZE) == 0);
    ck_assert_int_eq(step(&one), ERR_INVALID); /* nothing follows */
    end(&one);
}
END_TEST

START_TEST(test_wrong_key_is_denied)
{
    struct exchange one;
    begin(&one);
    one.client.client_key[3] ^= 1;
    ck_assert_ok(step(&one), &one.msg);
    ck_assert_ok(
        scram_client_final(&one.client, buf_view(&one.to_client), &one.to_server, &one.msg),
        &one.msg);
    ck_assert_int_eq(step(&one), ERR_DENIED);
    ck_assert_int_ne(one.server.state, SCRAM_DONE);
    end(&one);
}
END_TEST

START_TEST(test_any_changed_byte_of_the_exchange_is_noticed)
{
    for (size_t at = 0; at < 200; at++) {
        struct exchange one;
        begin(&one);
        ck_assert_ok(step(&one), &one.msg);
        ck_assert_ok(
            scram_client_final(&one.client, buf_view(&one.to_client), &one.to_server, &one.msg),
            &one.msg);
        if (at < one.to_server.size) {
            one.to_server.data[at] = (uint8_t)(one.to_server.data[at] == 'A' ? 'B' : 'A');
            ck_assert_int_ne(step(&one), ERR_OK);
        }
        end(&one);
    }
}
END_TEST

START_TEST(test_mock_verifier_is_steady_and_nothing_fits)
{
    struct scram_verifier first, second, other;
    struct bytes secret = bytes_of_str("of this process");
    scram_verifier_mock(secret, "nobody", &first);
    scram_verifier_mock(secret, "nobody", &second);
    scram_verifier_mock(secret, "somebody", &other);
    ck_assert(memcmp(&first, &second, sizeof first) == 0);
    ck_assert(memcmp(first.salt, other.salt, first.salt_size) != 0);
    struct exchange one;
    begin(&one);
    one.server.verifier = &first;
    one.client.verifier = &first;
    ck_assert_ok(step(&one), &one.msg);
    ck_assert_ok(
        scram_client_final(&one.client, buf_view(&one.to_client), &one.to_server, &one.msg),
        &one.msg);
    ck_assert_int_eq(step(&one), ERR_DENIED);
    end(&one);
}
END_TEST

START_TEST(test_another_salt_says_that_the_password_was_changed)
{
    struct exchange one;
    struct scram_verifier changed;
    begin(&one);
    changed = one.verifier;
    changed.salt[0] ^= 1;
    one.server.verifier = &changed;
    ck_assert_ok(step(&one), &one.msg);
    ck_assert_int_eq(
        scram_client_final(&one.client, buf_view(&one.to_client), &one.to_server, &one.msg),
        ERR_STALE);
    end(&one);
}
END_TEST

/* What a client says first, with or without TLS and the mechanism with a binding. */
START_TEST(test_channel_binding_flag_has_to_fit)
{
    static const struct {
        const char *first;
        bool secure, plus;
        err_t err;
    } cases[] = {
        {"n,,n=,r=abc", false, false, ERR_OK},
        {"n,,n=,r=abc", true, false, ERR_OK},
        {"y,,n=,r=abc", false, false, ERR_OK},
        {"y,,n=,r=abc", true, false, ERR_DENIED}, /* somebody hid what we offered */
        {"p=tls-server-end-point,,n=,r=abc", true, true, ERR_OK},
        {"p=tls-server-end-point,,n=,r=abc", true, false, ERR_INVALID},
        {"p=tls-unique,,n=,r=abc", true, true, ERR_INVALID},
        {"n,,n=,r=abc", true, true, ERR_INVALID},
        {"n,a=x,n=,r=abc", true, false, ERR_INVALID},
        {"n,,m=x,n=,r=abc", true, false, ERR_INVALID},
        {"n,,n=,r=", true, false, ERR_INVALID},
        {"n", true, false, ERR_INVALID},
        {"", true, false, ERR_INVALID},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct exchange one;
        begin(&one);
        one.server.plus = cases[i].plus;
        one.server.binding = cases[i].secure ? bytes_of("digest", 6) : bytes_of(NULL, 0);
        buf_clear(&one.to_server);
        buf_printf(&one.to_server, "%s", cases[i].first);
        err_t err = step(&one);
        ck_assert_msg(err == cases[i].err, "case %zu: %s", i, err_code(err));
        end(&one);
    }
}
END_TEST

/* What a client in the middle would have to say: the digest of its own certificate. */
START_TEST(test_another_certificate_is_noticed_before_the_proof_counts)
{
    static const struct {
        const char *binding, *why; /* base64 of the header and the digest */
    } cases[] = {
        {"cD10bHMtc2VydmVyLWVuZC1wb2ludCwsZGlnZXN0",
         "the password is wrong"}, /* "digest": only the proof is missing */
        {"cD10bHMtc2VydmVyLWVuZC1wb2ludCwsZm9yZ2Vk",
         "SCRAM: channel binding check failed"},                                     /* "forged" */
        {"cD10bHMtc2VydmVyLWVuZC1wb2ludCws", "SCRAM: channel binding check failed"}, /* nothing */
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct exchange one;
        begin(&one);
        one.server.plus = true;
        one.server.binding = bytes_of("digest", 6);
        buf_clear(&one.to_server);
        buf_printf(&one.to_server, "p=tls-server-end-point,,n=,r=abc");
        ck_assert_ok(step(&one), &one.msg);
        buf_printf(
            &one.to_server,
            "c=%s,r=%s,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", cases[i].binding,
            one.server.full_nonce);
        ck_assert_int_eq(step(&one), ERR_DENIED);
        ck_assert_str_eq(one.msg.text, cases[i].why);
        end(&one);
    }
}
END_TEST

UNIT_MAIN(
    "scram",
    test_verifier_of_the_rfc_matches_its_password_only,
    test_anything_else_does_not_match,
    test_client_key_is_as_good_as_the_password_and_is_learned,
    test_wrong_key_is_denied,
    test_any_changed_byte_of_the_exchange_is_noticed,
    test_mock_verifier_is_steady_and_nothing_fits,
    test_another_salt_says_that_the_password_was_changed,
    test_channel_binding_flag_has_to_fit,
    test_another_certificate_is_noticed_before_the_proof_counts);
