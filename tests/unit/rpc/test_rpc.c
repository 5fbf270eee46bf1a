/* The table of calls: the page says what it says, and no two calls are one. */
#include "common/rpc/rpc.h"

#include <stdio.h>

#include "common/base/assert.h"
#include "common/json/shape.h"
#include "tests/unit/unit.h"

START_TEST(test_page_is_what_the_table_says)
{
    struct buf printed = {0}, page = {0};
    rpc_print(&printed);
    FILE *file = fopen(RPC_PAGE, "rb");
    ck_assert_ptr_nonnull(file);
    page.size = fread(buf_extend(&page, 256 * KIB), 1, 256 * KIB, file);
    (void)fclose(file);
    ck_assert_msg(
        bytes_equal(buf_view(&printed), buf_view(&page)),
        "write it anew: build/tools/rpcdoc/rpcdoc > docs/protocol/rpc.md");
    buf_deinit(&printed);
    buf_deinit(&page);
}
END_TEST

START_TEST(test_no_two_calls_of_a_server_are_one)
{
    for (enum rpc_id a = 0; a < RPC_COUNT; a++) {
        for (enum rpc_id b = a + 1; b < RPC_COUNT; b++) {
            const struct rpc_method *first = rpc_method(a), *second = rpc_method(b);
            if (first->server == second->server) {
                ck_assert_str_ne(first->name, second->name);
                ck_assert(
                    strcmp(first->path, second->path) != 0 ||
                    strcmp(first->verb, second->verb) != 0);
            }
        }
    }
}
END_TEST

/* Who only reads may be asked by anybody who lost the answer; a PUT or DELETE never only reads. */
START_TEST(test_verbs_say_what_sending_again_does)
{
    for (enum rpc_id id = 0; id < RPC_COUNT; id++) {
        const struct rpc_method *method = rpc_method(id);
        bool is_get = strcmp(method->verb, "GET") == 0, is_post = strcmp(method->verb, "POST") == 0;
        ck_assert_msg(
            is_post || is_get == (method->repeat == RPC_READ), "%s %s", method->verb, method->path);
        ck_assert_msg(IMPLIES(is_get, method->body[0] == '\0'), "%s", method->path);
    }
}
END_TEST

START_TEST(test_path_has_its_parameters)
{
    struct buf path = {0};
    rpc_path(&path, RPC_PAGESERVER_PUT_LEASE, "aa", "bb", "backup");
    ck_assert_str_eq(buf_cstr(&path), "/v1/tenants/aa/timelines/bb/leases/backup");
    buf_clear(&path);
    rpc_path(&path, RPC_AGENT_COMPUTES);
    ck_assert_str_eq(buf_cstr(&path), "/v1/computes");
    buf_deinit(&path);
}
END_TEST

static err_t check_body(enum rpc_id id, const char *text, struct errmsg *msg)
{
    struct doc *body = NULL;
    ck_assert_ok(doc_parse(bytes_of_str(text), &body, msg), msg);
    err_t err = shape_check(rpc_method(id)->body, body, msg);
    doc_unref(body);
    return err;
}

START_TEST(test_body_is_refused_by_the_field_that_is_wrong)
{
    struct errmsg msg;
    enum rpc_id id = RPC_SAFEKEEPER_PUT_MEMBERSHIP;
    ck_assert_ok(check_body(id, "{\"membership\": {}, \"term\": 4}", &msg), &msg);
    ck_assert_ok(check_body(id, "{\"membership\": {}, \"term\": null, \"new\": []}", &msg), &msg);
    ck_assert_int_eq(check_body(id, "{\"term\": 4}", &msg), ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(msg.text, "membership: missing"));
    ck_assert_int_eq(check_body(id, "{\"membership\": null}", &msg), ERR_INVALID);
    ck_assert_int_eq(check_body(id, "{\"membership\": [], \"term\": 4}", &msg), ERR_INVALID);
    ck_assert_int_eq(check_body(id, "{\"membership\": {}, \"term\": -1}", &msg), ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(msg.text, "term"));
    id = RPC_PAGESERVER_PUT_LEASE;
    ck_assert_int_eq(check_body(id, "{\"lsn\": \"yesterday\"}", &msg), ERR_INVALID);
    ck_assert_ok(check_body(id, "{\"lsn\": \"0/16B3748\"}", &msg), &msg);
}
END_TEST

START_TEST(test_every_shape_can_be_read)
{
    struct errmsg msg;
    for (enum rpc_id id = 0; id < RPC_COUNT; id++) {
        struct doc *nothing = doc_object();
        struct shape_field field;
        bool wants = false;
        const char *shape = rpc_method(id)->body;
        while (shape_next(&shape, &field)) {
            ck_assert_str_ne(field.type, "");
            wants = wants || field.is_required;
        }
        ck_assert_int_eq(
            shape_check(rpc_method(id)->body, nothing, &msg), wants ? ERR_INVALID : ERR_OK);
        doc_unref(nothing);
    }
}
END_TEST

UNIT_MAIN(
    "rpc",
    test_page_is_what_the_table_says,
    test_no_two_calls_of_a_server_are_one,
    test_verbs_say_what_sending_again_does,
    test_path_has_its_parameters,
    test_body_is_refused_by_the_field_that_is_wrong,
    test_every_shape_can_be_read);
