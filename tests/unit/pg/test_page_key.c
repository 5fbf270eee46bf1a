/* Keys of the store: their bytes, their order, their text. */
#include "common/pg/page_key.h"
#include "tests/unit/unit.h"

static const struct page_key key = {.spc = 1663, .db = 5, .rel = 16384, .block = 7};

START_TEST(test_key_round_trips)
{
    struct page_key forked = key;
    forked.fork = FORK_VM;
    uint8_t bytes[PAGE_KEY_SIZE];
    page_key_encode(42, forked, 0x16B3748, bytes);
    uint32_t timeline;
    struct page_key decoded;
    lsn_t lsn;
    ck_assert_int_eq(
        page_key_decode(bytes_of(bytes, sizeof(bytes)), &timeline, &decoded, &lsn), ERR_OK);
    ck_assert_uint_eq(timeline, 42);
    ck_assert(page_key_equal(decoded, forked));
    ck_assert_uint_eq(lsn, 0x16B3748);
}
END_TEST

START_TEST(test_key_of_another_size_is_refused)
{
    uint8_t bytes[PAGE_KEY_SIZE + 1] = {0};
    uint32_t timeline;
    struct page_key decoded;
    lsn_t lsn;
    for (size_t size = 0; size <= sizeof(bytes); size++) {
        err_t err = page_key_decode(bytes_of(bytes, size), &timeline, &decoded, &lsn);
        ck_assert_int_eq(err, size == PAGE_KEY_SIZE ? ERR_OK : ERR_CORRUPT);
    }
}
END_TEST

static int compare(
    uint32_t timeline_a,
    struct page_key a,
    lsn_t lsn_a,
    uint32_t timeline_b,
    struct page_key b,
    lsn_t lsn_b)
{
    uint8_t bytes_a[PAGE_KEY_SIZE], bytes_b[PAGE_KEY_SIZE];
    page_key_encode(timeline_a, a, lsn_a, bytes_a);
    page_key_encode(timeline_b, b, lsn_b, bytes_b);
    return memcmp(bytes_a, bytes_b, PAGE_KEY_SIZE);
}

START_TEST(test_newest_version_comes_first)
{
    ck_assert_int_lt(compare(1, key, 0x200, 1, key, 0x100), 0);
    ck_assert_int_lt(compare(1, key, (lsn_t)1 << 32, 1, key, UINT32_MAX), 0);
}
END_TEST

START_TEST(test_size_stands_behind_the_blocks_of_its_fork)
{
    struct page_key last = key, next_fork = key;
    last.block = KEY_BLOCK_SIZE - 1;
    next_fork.fork = FORK_FSM;
    next_fork.block = 0;
    ck_assert_int_lt(compare(1, last, 1, 1, page_key_size_of(key), UINT64_MAX), 0);
    ck_assert_int_lt(compare(1, page_key_size_of(key), 1, 1, next_fork, UINT64_MAX), 0);
    ck_assert_int_lt(compare(1, key, 1, 2, key, UINT64_MAX), 0);
}
END_TEST

START_TEST(test_text_says_what_it_is)
{
    ck_assert_str_eq(page_key_text(key).text, "rel 1663/5/16384 main block 7");
    ck_assert_str_eq(page_key_text(page_key_size_of(key)).text, "rel 1663/5/16384 main size");
    ck_assert_str_eq(page_key_text(page_key_state(STATE_CLOG, 0, 3)).text, "clog page 3");
    ck_assert_str_eq(page_key_text(page_key_state(STATE_NEXT_XID, 0, 0)).text, "next xid");
    ck_assert_str_eq(page_key_text(page_key_state(STATE_RELMAP, 5, 1663)).text, "relmap 5/1663");
    struct page_key longest = {
        .spc = UINT32_MAX, .db = UINT32_MAX, .rel = UINT32_MAX, .fork = 9, .block = UINT32_MAX - 1};
    ck_assert_str_eq(
        page_key_text(longest).text, "rel 4294967295/4294967295/4294967295 fork? block 4294967294");
}
END_TEST

UNIT_MAIN(
    "page_key",
    test_key_round_trips,
    test_key_of_another_size_is_refused,
    test_newest_version_comes_first,
    test_size_stands_behind_the_blocks_of_its_fork,
    test_text_says_what_it_is);
