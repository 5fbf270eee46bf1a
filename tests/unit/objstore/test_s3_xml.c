#include "common/base/mark.h"
#include "common/objstore/s3_xml.h"
#include "tests/unit/unit.h"

static struct errmsg msg;

static err_t append(const char *path, const char *text, void *context, struct errmsg *error)
{
    if (strcmp(text, "refuse") == 0) {
        return err_set(error, ERR_STALE, "refused");
    }
    buf_printf(context, "%s=%s;", path, text);
    return ERR_OK;
}

static err_t try_text(const char *text, struct buf *found)
{
    return s3_xml_read(bytes_of_str(text), append, found, &msg);
}

static void expect(const char *text, const char *expected)
{
    struct buf found = {0};
    ck_assert_ok(try_text(text, &found), &msg);
    ck_assert_str_eq(buf_cstr(&found), expected);
    buf_deinit(&found);
}

START_TEST(test_elements_come_with_path_and_text)
{
    expect(
        "<?xml version='1.0' encoding='UTF-8'?>\n<List xmlns=\"http://s3/\"><Item a='b'>"
        "<Key>a&amp;&lt;b&#x2F;</Key><Size>5</Size></Item><Item/>t</List>",
        "List/Item/Key=a&<b/;List/Item/Size=5;List/Item=;List/Item=;List=t;");
}
END_TEST

START_TEST(test_what_is_not_whole_xml_is_corrupt)
{
    const char *texts[] = {"", "x", "<a>", "<a></b>", "<a/><b/>", "<a>&b;</a>", "<a>\x01</a>"};
    struct buf found = {0};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        ck_assert_msg(try_text(texts[i], &found) == ERR_CORRUPT, "\"%s\"", texts[i]);
    }
    buf_deinit(&found);
}
END_TEST

START_TEST(test_doctype_is_refused)
{
    struct buf found = {0};
    ck_assert_int_eq(try_text("<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", &found), ERR_CORRUPT);
    ck_assert_uint_eq(mark_hits("s3_xml.doctype"), 1);
    ck_assert_uint_eq(found.size, 0);
    buf_deinit(&found);
}
END_TEST

static err_t try_depth(unsigned depth)
{
    struct buf text = {0}, found = {0};
    for (unsigned i = 0; i < depth; i++) {
        buf_printf(&text, "<a>");
    }
    for (unsigned i = 0; i < depth; i++) {
        buf_printf(&text, "</a>");
    }
    err_t err = try_text(buf_cstr(&text), &found);
    buf_deinit(&text);
    buf_deinit(&found);
    return err;
}

START_TEST(test_depth_is_limited)
{
    ck_assert_ok(try_depth(S3_XML_DEPTH_MAX), &msg);
    ck_assert_int_eq(try_depth(S3_XML_DEPTH_MAX + 1), ERR_CORRUPT);
    ck_assert_uint_eq(mark_hits("s3_xml.deep"), 1);
}
END_TEST

static err_t try_text_size(size_t name_size, size_t text_size)
{
    struct buf text = {0}, found = {0};
    buf_printf(&text, "<");
    memset(buf_extend(&text, name_size), 'a', name_size);
    buf_printf(&text, ">");
    memset(buf_extend(&text, text_size), 'x', text_size);
    buf_printf(&text, "</");
    memset(buf_extend(&text, name_size), 'a', name_size);
    buf_printf(&text, ">");
    err_t err = try_text(buf_cstr(&text), &found);
    buf_deinit(&text);
    buf_deinit(&found);
    return err;
}

START_TEST(test_text_and_names_are_limited)
{
    ck_assert_ok(try_text_size(1, S3_XML_TEXT_MAX), &msg);
    ck_assert_int_eq(try_text_size(1, S3_XML_TEXT_MAX + 1), ERR_CORRUPT);
    ck_assert_uint_eq(mark_hits("s3_xml.long_text"), 1);
    ck_assert_ok(try_text_size(S3_XML_PATH_SIZE - 2, 1), &msg);
    ck_assert_int_eq(try_text_size(S3_XML_PATH_SIZE - 1, 1), ERR_CORRUPT);
}
END_TEST

START_TEST(test_error_of_the_visitor_is_the_result)
{
    struct buf found = {0};
    ck_assert_int_eq(try_text("<a><b>refuse</b><c>x</c></a>", &found), ERR_STALE);
    ck_assert_str_eq(msg.text, "refused");
    ck_assert_uint_eq(found.size, 0);
    buf_deinit(&found);
}
END_TEST

START_TEST(test_text_that_is_written_is_read_back)
{
    struct buf text = {0};
    buf_printf(&text, "<a>");
    s3_xml_append_text(&text, "a<b>&\"c\"");
    buf_printf(&text, "</a>");
    expect(buf_cstr(&text), "a=a<b>&\"c\";");
    buf_deinit(&text);
}
END_TEST

UNIT_MAIN(
    "s3_xml",
    test_elements_come_with_path_and_text,
    test_what_is_not_whole_xml_is_corrupt,
    test_doctype_is_refused,
    test_depth_is_limited,
    test_text_and_names_are_limited,
    test_error_of_the_visitor_is_the_result,
    test_text_that_is_written_is_read_back);
