#include "pageserver/store/page_index.h"

#include <stdio.h>
#include <string.h>

#include "common/base/prng.h"
#include "tests/unit/unit.h"

static uint64_t hash_of(uint64_t page)
{
    struct prng prng;
    prng_init(&prng, page);
    return prng_next(&prng);
}

/* "1 4 7" in ascending order; "many". */
static const char *found(const struct page_index *index, uint64_t page)
{
    static char text[1024];
    uint32_t timelines[PAGE_INDEX_TIMELINES_MAX];
    size_t count = 0;
    if (!page_index_find(index, hash_of(page), timelines, &count)) {
        return "many";
    }
    size_t size = 0;
    text[0] = '\0';
    for (uint32_t next = 0; next < 1000; next++) {
        for (size_t i = 0; i < count; i++) {
            if (timelines[i] == next) {
                size += (size_t)snprintf(
                    text + size, sizeof(text) - size, size == 0 ? "%u" : " %u", next);
            }
        }
    }
    return text;
}

START_TEST(test_each_timeline_of_a_page_is_found_once)
{
    struct page_index *index = page_index_create();
    ck_assert_str_eq(found(index, 1), "");
    for (uint64_t page = 0; page < 5000; page++) {
        ck_assert(page_index_add(index, hash_of(page), 7));
        ck_assert(!page_index_add(index, hash_of(page), 7));
        if (page % 2 == 0) {
            ck_assert(page_index_add(index, hash_of(page), 4));
        }
    }
    for (uint64_t page = 0; page < 5000; page++) {
        ck_assert_str_eq(found(index, page), page % 2 == 0 ? "4 7" : "7");
    }
    ck_assert_str_eq(found(index, 5000), "");
    page_index_destroy(index);
}
END_TEST

START_TEST(test_page_on_too_many_timelines_says_so)
{
    struct page_index *index = page_index_create();
    for (uint32_t timeline = 1; timeline <= PAGE_INDEX_TIMELINES_MAX; timeline++) {
        ck_assert(page_index_add(index, hash_of(1), timeline));
    }
    ck_assert_str_ne(found(index, 1), "many");
    ck_assert(!page_index_add(index, hash_of(1), 1));
    ck_assert_str_ne(found(index, 1), "many");
    ck_assert(!page_index_add(index, hash_of(1), 900));
    ck_assert_str_eq(found(index, 1), "many");
    ck_assert(!page_index_add(index, hash_of(1), 901));
    ck_assert_str_eq(found(index, 1), "many");
    page_index_destroy(index);
}
END_TEST

START_TEST(test_timeline_that_is_gone_leaves_what_others_have)
{
    struct page_index *index = page_index_create();
    for (uint64_t page = 0; page < 3000; page++) {
        page_index_add(index, hash_of(page), 1 + (uint32_t)(page % 3));
        page_index_add(index, hash_of(page), 9);
    }
    page_index_forget(index, 9);
    page_index_forget(index, 2);
    page_index_forget(index, 50);
    for (uint64_t page = 0; page < 3000; page++) {
        ck_assert_str_eq(found(index, page), page % 3 == 0 ? "1" : page % 3 == 1 ? "" : "3");
    }
    page_index_destroy(index);
}
END_TEST

UNIT_MAIN(
    "page_index",
    test_each_timeline_of_a_page_is_found_once,
    test_page_on_too_many_timelines_says_so,
    test_timeline_that_is_gone_leaves_what_others_have);
