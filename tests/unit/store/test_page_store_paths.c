/* Reads through many branches: filters, the index of pages, and what is kept of long paths. */
#include "tests/unit/store/page_store_fixture.h"

/* -- filters of the pages in the kv -- */

static int64_t seeks_saved(void)
{
    return counter("pageserver_store_seeks_saved_total");
}

static int64_t spans_asked(void)
{
    return counter("pageserver_store_spans_asked_total");
}

#define CHAIN 20u

START_TEST(test_branches_without_the_page_cost_no_seek)
{
    begin();
    struct page_span spans[CHAIN];
    for (uint32_t i = 0; i < CHAIN; i++) {
        spans[i] = (struct page_span){.timeline = CHAIN - i, .max_lsn = UINT64_MAX};
        put(store, i + 1, page_of(1, i), 10 + i, VALUE_IMAGE, "x");
    }
    flush();
    int64_t before = seeks_saved();
    ck_assert_str_eq(collected(make_path(CHAIN, spans), page_of(1, 0), 99), "I10");
    ck_assert_int_ge(seeks_saved() - before, CHAIN - 2); /* one false "maybe" is allowed */
    ck_assert_str_eq(collected(make_path(CHAIN, spans), page_of(1, CHAIN - 1), 99), "I29");
    end();
}
END_TEST

START_TEST(test_filter_of_a_reopened_store_knows_what_is_there)
{
    begin();
    for (uint32_t block = 0; block < 500; block++) {
        put(store, CHILD, page_of(1, block), 30, VALUE_DELTA, "x");
        put(store, CHILD, page_of(1, block), 40, VALUE_DELTA, "x");
    }
    put(store, ROOT, page_of(1, 700), 10, VALUE_DELTA, "x");
    flush();
    page_store_close(store);
    store = open_in_folder();
    put(store, CHILD, page_of(2, 1), 50, VALUE_DELTA, "first put: the filter is made");
    for (uint32_t block = 0; block < 500; block++) {
        ck_assert_str_eq(collected(child_path(20), page_of(1, block), 99), "D40 D30");
    }
    int64_t before = seeks_saved();
    ck_assert_str_eq(collected(child_path(20), page_of(1, 700), 99), "D10");
    ck_assert_int_eq(seeks_saved() - before, 1);
    end();
}
END_TEST

/* -- long paths -- */

#define DEEP 1000u

/* Timeline `depth`, whose parent is the one before, and so on. */
static struct page_path *deep_path(uint32_t depth)
{
    static struct page_span spans[DEEP];
    for (uint32_t i = 0; i < depth; i++) {
        spans[i] = (struct page_span){
            .timeline = depth - i, .max_lsn = i == 0 ? UINT64_MAX : 10 + depth - i};
    }
    return make_path(depth, spans);
}

/* Each timeline has a page of its own, block 0 is the root's, block 5000 of every hundredth. */
static void make_deep(void)
{
    begin();
    for (uint32_t timeline = 1; timeline <= DEEP; timeline++) {
        put(store, timeline, page_of(1, timeline), 10 + timeline, VALUE_IMAGE, "x");
        if (timeline % 100 == 0) {
            put(store, timeline, page_of(1, 5000), 10 + timeline, VALUE_DELTA, "x");
        }
    }
    put(store, 1, page_of(1, 0), 10, VALUE_IMAGE, "x");
    flush();
}

START_TEST(test_a_read_asks_the_timelines_that_have_the_page_however_many_there_are)
{
    make_deep();
    ck_assert_str_eq(collected(deep_path(DEEP), page_of(1, 0), 5000), "I10");
    int64_t before = spans_asked();
    ck_assert_str_eq(collected(deep_path(DEEP), page_of(1, 0), 5000), "I10");
    ck_assert_int_le(spans_asked() - before, 5);
    ck_assert_str_eq(collected(deep_path(DEEP), page_of(1, 700), 5000), "I710");
    ck_assert_str_eq(collected(deep_path(600), page_of(1, 700), 5000), "");
    ck_assert_int_le(spans_asked() - before, 15);
    ck_assert_str_eq(
        collected(deep_path(DEEP), page_of(1, 5000), 5000),
        "D1010 D910 D810 D710 D610 D510 D410 D310 D210 D110");
    ck_assert_str_eq(collected(deep_path(450), page_of(1, 5000), 399), "D310 D210 D110");
    end();
}
END_TEST

START_TEST(test_what_is_written_amid_a_long_path_is_seen_at_once)
{
    make_deep();
    ck_assert_str_eq(collected(deep_path(DEEP), page_of(1, 0), 5000), "I10");
    put(store, 500, page_of(1, 0), 510, VALUE_DELTA, "it has no layer before that");
    ck_assert_str_eq(collected(deep_path(DEEP), page_of(1, 0), 5000), "D510 I10");
    flush();
    ck_assert_str_eq(collected(deep_path(DEEP), page_of(1, 0), 5000), "D510 I10");
    ck_assert_str_eq(collected(deep_path(499), page_of(1, 0), 5000), "I10");
    end();
}
END_TEST

START_TEST(test_page_on_more_branches_than_the_index_follows_is_found)
{
    make_deep();
    for (uint32_t timeline = 2; timeline <= 200; timeline++) {
        put(store, timeline, page_of(1, 0), 10 + timeline, VALUE_DELTA, "x");
    }
    put(store, 150, page_of(1, 0), 160, VALUE_IMAGE, "in place of the record");
    flush();
    ck_assert_str_eq(collected(deep_path(152), page_of(1, 0), 5000), "D162 D161 I160");
    ck_assert_str_eq(
        collected(deep_path(DEEP), page_of(1, 0), 172),
        "D172 D171 D170 D169 D168 D167 D166 D165 D164 D163 D162 D161 I160");
    end();
}
END_TEST

START_TEST(test_branch_with_more_pages_than_the_index_takes_is_always_asked)
{
    make_deep();
    for (uint32_t block = 0; block < 21000; block++) {
        put(store, 900, page_of(2, block), 910, VALUE_DELTA, "x");
    }
    flush();
    put(store, 900, page_of(2, 30000), 910, VALUE_DELTA, "x");
    flush();
    ck_assert_str_eq(collected(deep_path(DEEP), page_of(2, 20999), 5000), "D910");
    ck_assert_str_eq(collected(deep_path(DEEP), page_of(2, 30000), 5000), "D910");
    ck_assert_str_eq(collected(deep_path(DEEP), page_of(2, 30001), 5000), "");
    end();
}
END_TEST

START_TEST(test_reopened_store_reads_a_long_path)
{
    make_deep();
    page_store_close(store);
    store = open_in_folder();
    ck_assert_str_eq(collected(deep_path(DEEP), page_of(1, 0), 5000), "I10");
    ck_assert_str_eq(collected(deep_path(DEEP), page_of(1, 700), 5000), "I710");
    int64_t before = spans_asked();
    ck_assert_str_eq(collected(deep_path(DEEP), page_of(1, 0), 5000), "I10");
    ck_assert_int_le(spans_asked() - before, 5);
    end();
}
END_TEST

START_TEST(test_what_is_known_of_a_long_path_keeps_no_layer_in_memory)
{
    make_deep();
    size_t idle = page_stores_memory();
    put(store, 500, page_of(1, 0), 510, VALUE_DELTA, "x");
    ck_assert_str_eq(collected(deep_path(DEEP), page_of(1, 0), 5000), "D510 I10");
    ck_assert_uint_gt(page_stores_memory(), idle);
    flush();
    ck_assert_uint_eq(page_stores_memory(), idle);
    end();
}
END_TEST

UNIT_MAIN(
    "page_store_paths",
    test_branches_without_the_page_cost_no_seek,
    test_filter_of_a_reopened_store_knows_what_is_there,
    test_a_read_asks_the_timelines_that_have_the_page_however_many_there_are,
    test_what_is_written_amid_a_long_path_is_seen_at_once,
    test_page_on_more_branches_than_the_index_follows_is_found,
    test_branch_with_more_pages_than_the_index_takes_is_always_asked,
    test_reopened_store_reads_a_long_path,
    test_what_is_known_of_a_long_path_keeps_no_layer_in_memory);
