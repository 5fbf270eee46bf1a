/* The small ones: lists, strings, marks, metrics, random numbers. */
#include <string.h>

#include "common/base/list.h"
#include "common/base/mark.h"
#include "common/base/metric.h"
#include "common/base/prng.h"
#include "common/base/str.h"
#include "tests/unit/unit.h"

static struct errmsg msg;

struct item {
    struct list_link link;
    int number;
};

START_TEST(test_list_keeps_order_and_allows_removal_while_walking)
{
    struct list list;
    struct item items[5] = {0};
    list_init(&list);
    ck_assert(list_is_empty(&list));
    for (int i = 0; i < 5; i++) {
        items[i].number = i;
        list_push_back(&list, &items[i].link);
    }
    int expected = 0;
    LIST_FOR_EACH(&list, link)
    {
        struct item *item = CONTAINER_OF(link, struct item, link);
        ck_assert_int_eq(item->number, expected++);
        if (item->number % 2 == 0) {
            list_remove(link);
            list_remove(link); /* twice is fine */
        }
    }
    ck_assert_ptr_eq(list_pop_front(&list), &items[1].link);
    ck_assert_ptr_eq(list_pop_front(&list), &items[3].link);
    ck_assert_ptr_null(list_pop_front(&list));
}
END_TEST

START_TEST(test_text_that_does_not_fit_is_refused_whole)
{
    char to[6];
    ck_assert_ok(str_copy(to, sizeof(to), "12345", &msg), &msg);
    ck_assert_int_eq(str_copy(to, sizeof(to), "123456", &msg), ERR_INVALID);
    ck_assert_str_eq(to, "");
    ck_assert_ok(str_format(to, sizeof(to), &msg, "%d", 12345), &msg);
    ck_assert_int_eq(str_format(to, sizeof(to), &msg, "%d", 123456), ERR_INVALID);
    ck_assert_str_eq(to, "");
    ck_assert(str_starts_with("anabranch", "ana") && !str_starts_with("an", "ana"));
    ck_assert(str_ends_with("a.tar", ".tar") && !str_ends_with("tar", ".tar"));
}
END_TEST

static void reach(bool twice)
{
    MARK("small.reached");
    if (twice) {
        MARK("small.reached");
    }
}

START_TEST(test_a_prefix_ends_with_a_character)
{
    const char *text = "a\xC3\xA9\xE2\x82\xAC"; /* 1, 2 and 3 bytes */
    static const int expected[] = {0, 1, 1, 3, 3, 3, 6, 6};
    for (int max = 0; max < (int)ARRAY_LEN(expected); max++) {
        ck_assert_int_eq(str_prefix(text, max), expected[max]);
    }
    ck_assert_int_eq(str_prefix("", 5), 0);
}
END_TEST

START_TEST(test_marks_count_by_name)
{
    ck_assert_uint_eq(mark_hits("small.reached"), 0);
    reach(false);
    reach(true);
    ck_assert_uint_eq(mark_hits("small.reached"), 3);
    mark_reset_all();
    ck_assert_uint_eq(mark_hits("small.reached"), 0);
}
END_TEST

METRIC_COUNTER(pages_read, "test_pages_read_total", "Pages.");
METRIC_HISTOGRAM(read_seconds, "test_read_seconds", "Time.");

START_TEST(test_metrics_print_as_prometheus_reads_them)
{
    metric_add(&pages_read, 3);
    metric_observe_ns(&read_seconds, 1500);
    metric_observe_ns(&read_seconds, 3000000000);
    struct buf text = {0};
    metric_print_all(&text);
    ck_assert_ptr_nonnull(strstr(buf_cstr(&text), "# TYPE test_pages_read_total counter\n"));
    ck_assert_ptr_nonnull(strstr(buf_cstr(&text), "test_pages_read_total 3\n"));
    ck_assert_ptr_nonnull(strstr(buf_cstr(&text), "test_read_seconds_bucket{le=\"0.000002\"} 1\n"));
    ck_assert_ptr_nonnull(strstr(buf_cstr(&text), "test_read_seconds_bucket{le=\"+Inf\"} 2\n"));
    ck_assert_ptr_nonnull(strstr(buf_cstr(&text), "test_read_seconds_count 2\n"));
    buf_deinit(&text);
}
END_TEST

START_TEST(test_random_numbers_repeat_from_their_seed)
{
    struct prng a;
    struct prng b;
    prng_init(&a, 9);
    prng_init(&b, 9);
    for (int i = 0; i < 100; i++) {
        ck_assert_uint_eq(prng_next(&a), prng_next(&b));
        ck_assert_uint_lt(prng_below(&a, 7), 7);
        (void)prng_below(&b, 7);
    }
    prng_init(&b, 10);
    ck_assert_uint_ne(prng_next(&a), prng_next(&b));
    uint64_t first = 0;
    uint64_t second = 0;
    prng_secure(&first, sizeof(first));
    prng_secure(&second, sizeof(second));
    ck_assert_uint_ne(first, second);
}
END_TEST

START_TEST(test_control_characters_are_found)
{
    ck_assert(!str_has_control(""));
    ck_assert(!str_has_control("a b \xC3\xA4 \xC2\xA0 \xF0\x9F\x98\x80"));
    ck_assert(str_has_control("a\nb"));
    ck_assert(str_has_control("\x1B[31m"));
    ck_assert(str_has_control("a\x7F"));
    ck_assert(str_has_control("a\xC2\x9B"
                              "31m"));
    ck_assert_uint_eq(str_control("\xC2\x85"), 2);
    ck_assert_uint_eq(str_control("\t"), 1);
    ck_assert_uint_eq(str_control("\xC2"), 0);
    ck_assert_uint_eq(str_control(""), 0);
}
END_TEST

UNIT_MAIN(
    "small",
    test_list_keeps_order_and_allows_removal_while_walking,
    test_text_that_does_not_fit_is_refused_whole,
    test_a_prefix_ends_with_a_character,
    test_control_characters_are_found,
    test_marks_count_by_name,
    test_metrics_print_as_prometheus_reads_them,
    test_random_numbers_repeat_from_their_seed);
