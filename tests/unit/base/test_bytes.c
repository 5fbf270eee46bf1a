/* Views and the growing buffer. */
#include "common/base/bytes.h"

#include "tests/unit/unit.h"

START_TEST(test_buffer_grows_and_keeps_its_bytes)
{
    struct buf buf = {0};
    for (int i = 0; i < 10000; i++) {
        uint8_t byte = (uint8_t)(i * 7);
        buf_append(&buf, &byte, 1);
    }
    ck_assert_uint_eq(buf.size, 10000);
    for (int i = 0; i < 10000; i++) {
        ck_assert_uint_eq(buf.data[i], (uint8_t)(i * 7));
    }
    buf_deinit(&buf);
    ck_assert_ptr_null(buf.data);
    buf_append(&buf, "x", 1); /* usable again */
    buf_deinit(&buf);
}
END_TEST

START_TEST(test_consume_drops_from_the_front)
{
    struct buf buf = {0};
    buf_append(&buf, "abcdef", 6);
    buf_consume(&buf, 2);
    ck_assert(bytes_equal(buf_view(&buf), bytes_of_str("cdef")));
    buf_consume(&buf, 0);
    buf_consume(&buf, 4);
    ck_assert_uint_eq(buf.size, 0);
    buf_deinit(&buf);
}
END_TEST

START_TEST(test_consuming_more_than_there_is_aborts)
{
    struct buf buf = {0};
    buf_append(&buf, "a", 1);
    buf_consume(&buf, 2);
}
END_TEST

START_TEST(test_printf_appends_and_terminates)
{
    struct buf buf = {0};
    ck_assert_str_eq(buf_cstr(&buf), "");
    buf_printf(&buf, "%s-%d", "a", 12345);
    buf_printf(&buf, "%200d", 7);
    ck_assert_uint_eq(buf.size, 207);
    ck_assert_uint_eq(strlen(buf_cstr(&buf)), 207);
    buf_deinit(&buf);
}
END_TEST

START_TEST(test_empty_views_are_equal_whatever_they_point_to)
{
    ck_assert(bytes_equal((struct bytes){0}, bytes_of("x", 0)));
    ck_assert(!bytes_equal(bytes_of_str("a"), bytes_of_str("ab")));
    ck_assert(!bytes_equal(bytes_of_str("a"), bytes_of_str("b")));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("bytes");
    TCase *tcase = tcase_create("bytes");
    tcase_add_test(tcase, test_buffer_grows_and_keeps_its_bytes);
    tcase_add_test(tcase, test_consume_drops_from_the_front);
    tcase_add_test_raise_signal(tcase, test_consuming_more_than_there_is_aborts, 6);
    tcase_add_test(tcase, test_printf_appends_and_terminates);
    tcase_add_test(tcase, test_empty_views_are_equal_whatever_they_point_to);
    suite_add_tcase(suite, tcase);
    return unit_run_suite(suite);
}
