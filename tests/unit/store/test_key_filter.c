#include "pageserver/store/key_filter.h"

#include "tests/unit/unit.h"

static struct page_key page_of(uint32_t rel, uint32_t block)
{
    return (struct page_key){.spc = 1663, .db = 5, .rel = rel, .block = block};
}

START_TEST(test_what_was_added_may_be_there_and_almost_nothing_else)
{
    struct key_filter *filter = key_filter_create();
    ck_assert(!key_filter_may_have(filter, key_filter_hash(page_of(1, 1))));
    for (uint32_t block = 0; block < 50000; block++) {
        key_filter_add(filter, key_filter_hash(page_of(1, block)));
        ck_assert(key_filter_may_have(filter, key_filter_hash(page_of(1, block))));
    }
    unsigned wrong = 0;
    for (uint32_t block = 0; block < 50000; block++) {
        ck_assert(key_filter_may_have(filter, key_filter_hash(page_of(1, block))));
        wrong += key_filter_may_have(filter, key_filter_hash(page_of(2, block))) ? 1 : 0;
    }
    ck_assert_uint_lt(wrong, 50000 / 50);
    struct page_key map = page_of(1, 7);
    map.fork = FORK_VM;
    ck_assert(!key_filter_may_have(filter, key_filter_hash(map)));
    ck_assert(key_filter_is_useful(filter));
    key_filter_destroy(filter);
}
END_TEST

START_TEST(test_full_filter_says_maybe_to_everything)
{
    struct key_filter *filter = key_filter_create();
    uint32_t block = 0;
    while (key_filter_is_useful(filter)) {
        key_filter_add(filter, key_filter_hash(page_of(1, block++)));
    }
    ck_assert_uint_gt(block, 1000000);
    ck_assert(key_filter_may_have(filter, key_filter_hash(page_of(1, block))));
    ck_assert(key_filter_may_have(filter, key_filter_hash(page_of(2, 1))));
    key_filter_destroy(filter);
}
END_TEST

UNIT_MAIN(
    "key_filter",
    test_what_was_added_may_be_there_and_almost_nothing_else,
    test_full_filter_says_maybe_to_everything);
