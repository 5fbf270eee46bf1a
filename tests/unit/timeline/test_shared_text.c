#include "pageserver/timeline/shared_text.h"

#include <stdio.h>

#include "tests/unit/unit.h"

START_TEST(test_equal_texts_are_one_for_as_long_as_one_is_held)
{
    char text[16] = "sk 1";
    const char *first = shared_text_ref(text);
    text[3] = '2'; /* it is a copy */
    ck_assert_str_eq(first, "sk 1");
    const char *other = shared_text_ref(text);
    ck_assert_ptr_ne(other, first);
    ck_assert_ptr_eq(shared_text_ref("sk 1"), first);
    shared_text_unref(first);
    ck_assert_ptr_eq(shared_text_ref("sk 1"), first);
    shared_text_unref(first);
    shared_text_unref(first);
    shared_text_unref(other);
}
END_TEST

START_TEST(test_no_text_is_the_empty_one)
{
    ck_assert_str_eq(shared_text_ref(NULL), "");
    ck_assert_ptr_eq(shared_text_ref(""), shared_text_ref(NULL));
    shared_text_unref(shared_text_ref(""));
    shared_text_unref(NULL);
}
END_TEST

START_TEST(test_many_texts_are_all_found_again)
{
    enum { COUNT = 1000 };
    static const char *held[COUNT];
    char text[16];
    for (unsigned i = 0; i < COUNT; i++) {
        (void)snprintf(text, sizeof(text), "text %u", i);
        held[i] = shared_text_ref(text);
    }
    for (unsigned i = 0; i < COUNT; i++) {
        (void)snprintf(text, sizeof(text), "text %u", i);
        ck_assert_ptr_eq(shared_text_ref(text), held[i]);
        ck_assert_str_eq(held[i], text);
    }
    for (unsigned i = 0; i < COUNT; i++) {
        shared_text_unref(held[i]);
        shared_text_unref(held[i]);
    }
}
END_TEST

UNIT_MAIN(
    "shared_text",
    test_equal_texts_are_one_for_as_long_as_one_is_held,
    test_no_text_is_the_empty_one,
    test_many_texts_are_all_found_again);
