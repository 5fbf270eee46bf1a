/* JSON values: strict in, exact out, and errors that name the member. */
#include <string.h>

#include "common/json/doc.h"
#include "tests/unit/unit.h"

static struct errmsg msg;

static struct doc *parse(const char *text)
{
    struct doc *doc = NULL;
    ck_assert_ok(doc_parse(bytes_of_str(text), &doc, &msg), &msg);
    return doc;
}

START_TEST(test_built_document_prints_in_order_of_setting)
{
    struct doc *doc = doc_object();
    (void)doc_set_int(doc_set_str(doc, "name", "branch \"a\""), "count", -3);
    (void)doc_set_bool(doc_set_lsn(doc, "lsn", 0x16B3748), "ready", true);
    (void)doc_set_time(doc, "at", 1000000);
    (void)doc_set(doc, "list", doc_push(doc_push(doc_array(), doc_null()), doc_real(0.5)));
    (void)doc_set_tenant(doc, "tenant", (struct tenant_id){{0x7A}});
    struct buf text = {0};
    doc_print(doc, false, &text);
    ck_assert_str_eq(
        buf_cstr(&text),
        "{\"name\":\"branch \\\"a\\\"\",\"count\":-3,\"lsn\":\"0/16B3748\",\"ready\":true,"
        "\"at\":\"1970-01-01T00:00:01.000000Z\",\"list\":[null,0.5],"
        "\"tenant\":\"7a000000000000000000000000000000\"}");
    struct doc *again = parse(buf_cstr(&text));
    struct buf second = {0};
    doc_print(again, false, &second);
    ck_assert(bytes_equal(buf_view(&text), buf_view(&second)));
    buf_deinit(&text);
    buf_deinit(&second);
    doc_unref(again);
    doc_unref(doc);
}
END_TEST

START_TEST(test_bad_text_is_refused_with_its_place)
{
    static const char *const bad[] = {
        "",
        "{",
        "{\"a\":1,\"a\":2}",
        "{\"a\":1}x",
        "\"\xff\"",
        "[1,]",
        "nul",
        "{\"a\":\"\\u0000\"}",
        "123456789012345678901234567890",
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct doc *doc = NULL;
        ck_assert_int_eq(doc_parse(bytes_of_str(bad[i]), &doc, &msg), ERR_INVALID);
        ck_assert_ptr_nonnull(strstr(msg.text, "line 1"));
        ck_assert_ptr_null(doc);
    }
    char deep[201];
    memset(deep, '[', 100);
    memset(deep + 100, ']', 100);
    deep[200] = '\0';
    struct doc *doc = NULL;
    ck_assert_int_eq(doc_parse(bytes_of_str(deep), &doc, &msg), ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(msg.text, "nested"));
}
END_TEST

START_TEST(test_brackets_inside_of_texts_do_not_nest)
{
    char text[300] = "[\"";
    memset(text + 2, '[', 200);
    (void)strcat(text, "\\\"{\"]");
    struct doc *doc = parse(text);
    ck_assert_uint_eq(doc_count(doc), 1);
    doc_unref(doc);
}
END_TEST

START_TEST(test_required_members_name_what_is_wrong)
{
    struct doc *doc = parse("{\"text\":\"x\",\"number\":7,\"minus\":-1,\"yes\":true,\"none\":null,"
                            "\"lsn\":\"0/10\",\"object\":{},\"array\":[1]}");
    const char *text = NULL;
    uint64_t number = 0;
    bool yes = false;
    lsn_t lsn = 0;
    struct doc *inner = NULL;
    ck_assert_ok(doc_get_str(doc, "text", &text, &msg), &msg);
    ck_assert_ok(doc_get_u64(doc, "number", &number, &msg), &msg);
    ck_assert_ok(doc_get_bool(doc, "yes", &yes, &msg), &msg);
    ck_assert_ok(doc_get_lsn(doc, "lsn", &lsn, &msg), &msg);
    ck_assert_ok(doc_get_object(doc, "object", &inner, &msg), &msg);
    ck_assert_ok(doc_get_array(doc, "array", &inner, &msg), &msg);
    ck_assert_uint_eq(number, 7);
    ck_assert_uint_eq(lsn, 16);
    ck_assert(yes);

    ck_assert_int_eq(doc_get_str(doc, "absent", &text, &msg), ERR_INVALID);
    ck_assert_str_eq(msg.text, "absent: missing, expected a string");
    ck_assert_int_eq(doc_get_str(doc, "none", &text, &msg), ERR_INVALID);
    ck_assert_int_eq(doc_get_u64(doc, "minus", &number, &msg), ERR_INVALID);
    ck_assert_str_eq(msg.text, "minus: expected a whole number from 0 on");
    ck_assert_int_eq(doc_get_u64(doc, "text", &number, &msg), ERR_INVALID);
    ck_assert_int_eq(doc_get_bool(doc, "number", &yes, &msg), ERR_INVALID);
    ck_assert_int_eq(doc_get_lsn(doc, "text", &lsn, &msg), ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(msg.text, "text: \"x\" is not an LSN"));
    ck_assert_int_eq(doc_get_object(doc, "array", &inner, &msg), ERR_INVALID);
    ck_assert_int_eq(doc_get_array(doc, "object", &inner, &msg), ERR_INVALID);
    ck_assert_int_eq(doc_get_str(doc_get(doc, "array"), "x", &text, &msg), ERR_INVALID);
    ck_assert_int_eq(doc_get_str(NULL, "x", &text, &msg), ERR_INVALID);
    doc_unref(doc);
}
END_TEST

START_TEST(test_absent_optional_members_keep_the_default)
{
    struct doc *doc = parse("{\"none\":null,\"text\":1}");
    const char *text = "default";
    uint64_t number = 5;
    ck_assert_ok(doc_opt_str(doc, "none", &text, &msg), &msg);
    ck_assert_ok(doc_opt_str(doc, "absent", &text, &msg), &msg);
    ck_assert_ok(doc_opt_u64(doc, "absent", &number, &msg), &msg);
    ck_assert_str_eq(text, "default");
    ck_assert_uint_eq(number, 5);
    ck_assert_int_eq(doc_opt_str(doc, "text", &text, &msg), ERR_INVALID);
    ck_assert_int_eq(doc_opt_str(doc_get(doc, "text"), "x", &text, &msg), ERR_INVALID);
    doc_unref(doc);
}
END_TEST

START_TEST(test_text_that_is_not_utf8_is_replaced)
{
    struct doc *doc = doc_str("caf\xe9");
    ck_assert_str_eq(doc_value_str(doc), "caf?");
    doc_unref(doc);
}
END_TEST

START_TEST(test_iteration_sees_every_member_once)
{
    struct doc *doc = parse("{\"a\":1,\"b\":\"x\",\"c\":[]}");
    char keys[8] = "";
    DOC_FOR_EACH(doc, key, value)
    {
        ck_assert_ptr_eq(value, doc_get(doc, key));
        (void)strcat(keys, key);
    }
    ck_assert_str_eq(keys, "abc");
    doc_remove(doc, "b");
    struct doc *copy = doc_copy(doc);
    doc_remove(doc, "a");
    ck_assert_ptr_nonnull(doc_get(copy, "a"));
    ck_assert_ptr_null(doc_get(copy, "b"));
    doc_unref(copy);
    doc_unref(doc);
    doc_unref(NULL);
}
END_TEST

UNIT_MAIN(
    "doc",
    test_built_document_prints_in_order_of_setting,
    test_bad_text_is_refused_with_its_place,
    test_brackets_inside_of_texts_do_not_nest,
    test_required_members_name_what_is_wrong,
    test_absent_optional_members_keep_the_default,
    test_text_that_is_not_utf8_is_replaced,
    test_iteration_sees_every_member_once);
