#include "pageserver/read/page_cache.h"

#include "tests/unit/unit.h"

#define UID 7

static struct page_key block(uint32_t number)
{
    return (struct page_key){.spc = 1663, .db = 5, .rel = 100, .block = number};
}

static void put(struct page_cache *cache, uint64_t uid, uint32_t number, lsn_t lsn, uint8_t fill)
{
    uint8_t page[PAGE_SIZE];
    memset(page, fill, sizeof(page));
    page_cache_put(cache, uid, block(number), lsn, page);
}

START_TEST(test_page_is_found_from_its_lsn_on)
{
    struct page_cache *cache = page_cache_create(8 * PAGE_SIZE);
    put(cache, UID, 1, 50, 'a');
    ck_assert_ptr_null(page_cache_get(cache, UID, block(1), 49));
    const uint8_t *page = page_cache_get(cache, UID, block(1), 50);
    ck_assert_ptr_nonnull(page);
    ck_assert_uint_eq(page[PAGE_SIZE - 1], 'a');
    page_cache_destroy(cache);
}
END_TEST

START_TEST(test_timelines_do_not_see_each_others_pages)
{
    struct page_cache *cache = page_cache_create(8 * PAGE_SIZE);
    put(cache, UID, 1, 50, 'a');
    ck_assert_ptr_null(page_cache_get(cache, UID + 1, block(1), 99));
    page_cache_destroy(cache);
}
END_TEST

START_TEST(test_removed_page_is_gone_and_the_rest_stays)
{
    struct page_cache *cache = page_cache_create(64 * PAGE_SIZE);
    for (uint32_t i = 0; i < 50; i++) {
        put(cache, UID, i, 10, (uint8_t)i);
    }
    page_cache_remove(cache, UID, block(20));
    page_cache_remove(cache, UID, block(999));
    for (uint32_t i = 0; i < 50; i++) {
        const uint8_t *page = page_cache_get(cache, UID, block(i), 10);
        ck_assert(i == 20 ? page == NULL : page != NULL && page[0] == i);
    }
    page_cache_destroy(cache);
}
END_TEST

START_TEST(test_full_cache_forgets_what_was_not_used)
{
    struct page_cache *cache = page_cache_create(4 * PAGE_SIZE);
    for (uint32_t i = 0; i < 4; i++) {
        put(cache, UID, i, 10, (uint8_t)i);
    }
    ck_assert_ptr_nonnull(page_cache_get(cache, UID, block(2), 10));
    put(cache, UID, 10, 10, 10);
    put(cache, UID, 11, 10, 11);
    put(cache, UID, 12, 10, 12);
    ck_assert_ptr_nonnull(page_cache_get(cache, UID, block(2), 10));
    ck_assert_ptr_nonnull(page_cache_get(cache, UID, block(12), 10));
    ck_assert_ptr_null(page_cache_get(cache, UID, block(0), 10));
    page_cache_destroy(cache);
}
END_TEST

START_TEST(test_cache_of_no_bytes_never_finds_anything)
{
    struct page_cache *cache = page_cache_create(0);
    put(cache, UID, 1, 10, 1);
    page_cache_remove(cache, UID, block(1));
    ck_assert_ptr_null(page_cache_get(cache, UID, block(1), 10));
    page_cache_destroy(cache);
}
END_TEST

UNIT_MAIN(
    "page_cache",
    test_page_is_found_from_its_lsn_on,
    test_timelines_do_not_see_each_others_pages,
    test_removed_page_is_gone_and_the_rest_stays,
    test_full_cache_forgets_what_was_not_used,
    test_cache_of_no_bytes_never_finds_anything);
