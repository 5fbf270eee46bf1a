#include "tools/walreplay/page_mask.h"

#include "tests/unit/unit.h"

static uint8_t ours[PAGE_SIZE], theirs[PAGE_SIZE];
static const struct page_key main_key = {.spc = 1663, .db = 5, .rel = 16384};

static void make_pages(unsigned special_size, unsigned last)
{
    memset(ours, 0, sizeof(ours));
    page_set_u16(ours, PAGE_LOWER, PAGE_HEADER_SIZE);
    page_set_u16(ours, PAGE_UPPER, (uint16_t)(PAGE_SIZE - special_size));
    page_set_u16(ours, PAGE_SPECIAL, (uint16_t)(PAGE_SIZE - special_size));
    page_set_u16(ours, PAGE_VERSION, PAGE_SIZE | 4);
    if (special_size > 0) {
        page_set_u16(ours, PAGE_SIZE - 2, (uint16_t)last);
    }
    memcpy(theirs, ours, sizeof(ours));
}

static bool same(uint8_t rmgr, struct page_key key)
{
    page_mask(ours, rmgr, key);
    page_mask(theirs, rmgr, key);
    return memcmp(ours, theirs, PAGE_SIZE) == 0;
}

START_TEST(test_entry_of_a_brin_revmap_is_compared)
{
    make_pages(8, 0xF092);
    theirs[PAGE_HEADER_SIZE + 6] = 1;
    ck_assert(!same(RM_BRIN, main_key));
}
END_TEST

START_TEST(test_hole_of_a_regular_brin_page_is_not)
{
    make_pages(8, 0xF093);
    theirs[PAGE_HEADER_SIZE + 6] = 1;
    theirs[PAGE_SIZE - 4] = 1; /* being evacuated */
    ck_assert(same(RM_BRIN, main_key));
}
END_TEST

START_TEST(test_bit_of_the_visibility_map_is_compared)
{
    struct page_key key = main_key;
    key.fork = FORK_VM;
    make_pages(0, 0);
    theirs[PAGE_HEADER_SIZE + 100] = 1;
    ck_assert(!same(RM_HEAP2, key));
}
END_TEST

START_TEST(test_all_visible_is_compared_and_hints_are_not)
{
    make_pages(0, 0);
    page_set_u16(theirs, PAGE_FLAGS, PD_HAS_FREE_LINES | PD_PAGE_FULL);
    page_set_u32(theirs, PAGE_PRUNE_XID, 742);
    ck_assert(same(RM_HEAP, main_key));
    make_pages(0, 0);
    page_set_u16(theirs, PAGE_FLAGS, PD_ALL_VISIBLE);
    ck_assert(!same(RM_HEAP, main_key));
}
END_TEST

/* Generic records are deltas of whole pages: the header is as the primary has it. */
START_TEST(test_header_of_a_generic_page_is_compared)
{
    make_pages(8, 0xFF83);
    page_set_u32(theirs, PAGE_PRUNE_XID, 742);
    ck_assert(!same(RM_GENERIC, main_key));
}
END_TEST

START_TEST(test_only_hint_bits_of_a_tuple_are_masked)
{
    make_pages(0, 0);
    unsigned offset = PAGE_SIZE - 32;
    page_set_u16(ours, PAGE_LOWER, PAGE_HEADER_SIZE + 4);
    page_set_u16(ours, PAGE_UPPER, (uint16_t)offset);
    page_set_u32(ours, PAGE_HEADER_SIZE, offset | 1u << 15 | 32u << 17);
    memcpy(theirs, ours, sizeof(ours));
    page_set_u16(theirs, offset + 20, 0x0900); /* xmin committed, xmax invalid */
    ck_assert(same(RM_HEAP, main_key));
    page_set_u16(theirs, offset + 20, 0x1000); /* xmax is a multixact */
    ck_assert(!same(RM_HEAP, main_key));
}
END_TEST

START_TEST(test_owner_of_a_page_is_told_by_its_special_space)
{
    make_pages(0, 0);
    ck_assert_uint_eq(page_rmgr(ours), RM_HEAP);
    make_pages(16, 0);
    ck_assert_uint_eq(page_rmgr(ours), RM_BTREE);
    make_pages(16, 0xFF80);
    ck_assert_uint_eq(page_rmgr(ours), RM_HASH);
    make_pages(8, 0xF091);
    ck_assert_uint_eq(page_rmgr(ours), RM_BRIN);
    make_pages(8, 0xFF82);
    ck_assert_uint_eq(page_rmgr(ours), RM_SPGIST);
    make_pages(8, 2);
    ck_assert_uint_eq(page_rmgr(ours), RM_GIN);
    make_pages(8, 0);
    page_set_u32(ours, PAGE_SIZE - 8, 0x1717);
    ck_assert_uint_eq(page_rmgr(ours), RM_SEQ);
}
END_TEST

UNIT_MAIN(
    "page_mask",
    test_entry_of_a_brin_revmap_is_compared,
    test_hole_of_a_regular_brin_page_is_not,
    test_bit_of_the_visibility_map_is_compared,
    test_all_visible_is_compared_and_hints_are_not,
    test_header_of_a_generic_page_is_compared,
    test_only_hint_bits_of_a_tuple_are_masked,
    test_owner_of_a_page_is_told_by_its_special_space);
