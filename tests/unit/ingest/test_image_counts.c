#include "pageserver/ingest/image_counts.h"

#include "tests/unit/unit.h"

static struct page_key page_of(uint32_t rel, uint32_t block)
{
    return (struct page_key){.spc = 1663, .db = 5, .rel = rel, .block = block};
}

START_TEST(test_counts_are_kept_by_page)
{
    struct image_counts counts = {0};
    unsigned records = 99;
    ck_assert(!image_counts_get(&counts, page_of(1, 1), &records));
    for (uint32_t block = 0; block < 10000; block++) {
        image_counts_set(&counts, page_of(1, block), block % 200);
    }
    struct page_key map = page_of(1, 7);
    map.fork = FORK_VM;
    ck_assert(!image_counts_get(&counts, map, &records));
    ck_assert(!image_counts_get(&counts, page_of(2, 7), &records));
    for (uint32_t block = 0; block < 10000; block++) {
        ck_assert(image_counts_get(&counts, page_of(1, block), &records));
        ck_assert_uint_eq(records, block % 200);
    }
    image_counts_set(&counts, page_of(1, 7), 0);
    ck_assert(image_counts_get(&counts, page_of(1, 7), &records));
    ck_assert_uint_eq(records, 0);
    image_counts_set(&counts, page_of(1, 7), 100000);
    ck_assert(image_counts_get(&counts, page_of(1, 7), &records));
    ck_assert_uint_eq(records, IMAGE_COUNT_MAX);
    ck_assert_uint_eq(counts.count, 10000);
    image_counts_deinit(&counts);
}
END_TEST

START_TEST(test_memory_is_bounded_and_what_is_left_is_right)
{
    struct image_counts counts = {0};
    unsigned records = 0;
    for (uint32_t block = 0; block < 3 * IMAGE_PAGES_MAX; block++) {
        image_counts_set(&counts, page_of(1, block), block % 200);
        ck_assert_uint_le(counts.capacity, 2 * IMAGE_PAGES_MAX);
    }
    size_t known = 0;
    for (uint32_t block = 0; block < 3 * IMAGE_PAGES_MAX; block++) {
        if (image_counts_get(&counts, page_of(1, block), &records)) {
            ck_assert_uint_eq(records, block % 200);
            known++;
        }
    }
    ck_assert_uint_eq(known, counts.count);
    ck_assert_uint_gt(known, 0);
    image_counts_deinit(&counts);
}
END_TEST

UNIT_MAIN(
    "image_counts", test_counts_are_kept_by_page, test_memory_is_bounded_and_what_is_left_is_right);
