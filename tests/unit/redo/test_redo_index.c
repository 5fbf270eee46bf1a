/* Index pages: the bad-input catalogue. What good input becomes is proven by tests/oracle. */
#include "tests/unit/redo/redo_fixture.h"

enum { BTREE_INSERT = 0x00, BTREE_SPLIT_R = 0x40, BTREE_INSERT_POST = 0x50, BTREE_DEDUP = 0x60 };
enum { BTREE_VACUUM = 0xC0, BTREE_NEWROOT = 0xA0 };

/* An index tuple of `size` bytes with TID (0, number). */
static void write_tuple(uint8_t *to, size_t size, unsigned number)
{
    memset(to, 0, size);
    page_set_u16(to, 4, (uint16_t)number);
    page_set_u16(to, 6, (uint16_t)size);
}

/* A rightmost leaf with three tuples of 16 bytes. */
static void given_leaf(void)
{
    given_page(16);
    page_set_u16(fixture.page, PAGE_SIZE - 4, 1);
    for (unsigned i = 1; i <= 3; i++) {
        write_tuple(given_item(16, 1), 16, i);
    }
}

/* Turn item `number` into a posting list at byte 16 with `count` TIDs. */
static void given_posting(unsigned number, unsigned at, unsigned count)
{
    uint8_t *tuple = item(number);
    page_set_u16(tuple, 0, 0);
    page_set_u16(tuple, 2, (uint16_t)at);
    page_set_u16(tuple, 4, (uint16_t)(0x2000 | count));
    page_set_u16(tuple, 6, page_u16(tuple, 6) | 0x2000);
}

static void given_btree(unsigned op, const void *main, size_t size)
{
    given_record(RM_BTREE, op);
    memcpy(fixture.main, main, size);
    main_ends(fixture.main + size);
    given_block(0, heap_key(7));
    given_leaf();
}

START_TEST(test_btree_insert_shifts_later_items)
{
    uint16_t number = 2;
    given_btree(BTREE_INSERT, &number, 2);
    write_tuple(fixture.data[0], 24, 9);
    data_ends(0, fixture.data[0] + 24);
    ck_assert_ok(apply(0), &fixture.msg);
    ck_assert_uint_eq(item_count(), 4);
    ck_assert_uint_eq(page_u16(item(2), 4), 9);
    ck_assert_uint_eq(page_u16(item(3), 4), 2);
}
END_TEST

START_TEST(test_btree_insert_of_nothing_or_on_another_kind_of_page_is_refused)
{
    uint16_t number = 2;
    given_btree(BTREE_INSERT, &number, 2);
    ck_assert_refused(apply(0), "does not fit");
    given_page(0);
    ck_assert_refused(apply(0), "no B-tree page");
}
END_TEST

static void given_posting_insert(unsigned number, unsigned posting_at)
{
    uint16_t main = (uint16_t)number;
    given_btree(BTREE_INSERT_POST, &main, 2);
    uint8_t *at = fixture.data[0];
    put(&at, 2, posting_at);
    write_tuple(at, 16, 9);
    data_ends(0, at + 16);
}

START_TEST(test_a_posting_list_that_leaves_its_tuple_is_refused)
{
    given_posting_insert(2, 1);
    given_posting(1, 8, 2); /* 8 + 2 * 6 > 16 */
    ck_assert_refused(apply(0), "posting list");
    given_posting_insert(2, 1);
    given_posting(1, 0, 1);
    ck_assert_refused(apply(0), "posting list");
    given_posting_insert(2, 1);
    given_posting(1, 0x4000, 2);
    ck_assert_refused(apply(0), "posting list");
}
END_TEST

START_TEST(test_a_posting_split_outside_of_the_list_is_refused)
{
    unsigned bad[] = {0, 1, 0xFFFF}; /* item 1 is no list: one TID */
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        given_posting_insert(2, bad[i]);
        ck_assert_refused(apply(0), "cannot be split");
    }
    given_posting_insert(1, 1);
    ck_assert_refused(apply(0), "item 0");
    given_posting_insert(0, 1);
    ck_assert_refused(apply(0), "malformed");
}
END_TEST

static void given_split(unsigned first_right, unsigned posting_at, unsigned new_number)
{
    uint8_t main[10];
    uint8_t *at = main;
    put(&at, 4, 0);
    put(&at, 2, first_right);
    put(&at, 2, new_number);
    put(&at, 2, posting_at);
    given_btree(BTREE_SPLIT_R, main, sizeof(main));
    given_block(1, heap_key(8));
    write_tuple(fixture.data[0], 16, 5);
    data_ends(0, fixture.data[0] + 16);
}

START_TEST(test_btree_split_keeps_the_items_before_first_right_under_the_new_high_key)
{
    given_split(3, 0, 4);
    page_set_u16(fixture.page, PAGE_SIZE - 2, 77); /* cycle id of a vacuum */
    ck_assert_ok(apply(0), &fixture.msg);
    ck_assert_uint_eq(page_u16(fixture.page, PAGE_SIZE - 2), 0);
    ck_assert_uint_eq(item_count(), 3);
    ck_assert_uint_eq(page_u16(item(1), 4), 5);
    ck_assert_uint_eq(page_u16(item(3), 4), 2);
    ck_assert_uint_eq(page_u32(fixture.page, PAGE_SIZE - 12), 8);
    ck_assert_uint_eq(page_u16(fixture.page, PAGE_SIZE - 4), 128 | 1);
}
END_TEST

START_TEST(test_btree_split_behind_the_last_item_is_refused)
{
    given_split(5, 0, 9);
    ck_assert_refused(apply(0), "item 4 of 3");
    given_split(0xFFFF, 0, 9);
    ck_assert_refused(apply(0), "item 4 of 3");
}
END_TEST

START_TEST(test_btree_split_with_a_malformed_high_key_is_refused)
{
    given_split(3, 0, 4);
    page_set_u16(fixture.data[0], 6, 0x1FFF);
    ck_assert_refused(apply(0), "malformed");
    given_split(3, 0, 4);
    page_set_u16(fixture.data[0], 6, 7);
    ck_assert_refused(apply(0), "malformed");
    given_split(3, 1, 3); /* a posting split, but no new item in the record */
    ck_assert_refused(apply(0), "malformed");
}
END_TEST

START_TEST(test_a_right_page_of_malformed_or_too_many_tuples_is_refused)
{
    given_split(3, 0, 4);
    memset(fixture.page, 0, PAGE_SIZE);
    fixture.record.blocks[1].will_init = true;
    write_tuple(fixture.data[1], 16, 1);
    data_ends(1, fixture.data[1] + 15);
    ck_assert_refused(apply(1), "malformed");

    static uint8_t many[PAGE_SIZE];
    for (size_t at = 0; at < sizeof(many); at += 8) {
        write_tuple(many + at, 8, 1);
    }
    fixture.record.blocks[1].data = bytes_of(many, sizeof(many));
    memset(fixture.page, 0, PAGE_SIZE);
    ck_assert_refused(apply(1), "more items");
}
END_TEST

static void given_dedup(unsigned count, unsigned base, unsigned items)
{
    uint16_t main = (uint16_t)count;
    given_btree(BTREE_DEDUP, &main, 2);
    uint8_t *at = fixture.data[0];
    put(&at, 2, base);
    put(&at, 2, items);
    data_ends(0, at);
}

START_TEST(test_dedup_joins_an_interval_into_a_posting_list)
{
    given_dedup(1, 2, 2);
    page_set_u16(fixture.page, PAGE_SIZE - 4, 1 | 64); /* has garbage */
    ck_assert_ok(apply(0), &fixture.msg);
    ck_assert_uint_eq(page_u16(fixture.page, PAGE_SIZE - 4), 1);
    ck_assert_uint_eq(item_count(), 2);
    ck_assert_uint_eq(item_size(2), 32);
    ck_assert_uint_eq(page_u16(item(2), 4), 0x2002);
    ck_assert_uint_eq(page_u16(item(2), 16 + 4), 2);
    ck_assert_uint_eq(page_u16(item(2), 16 + 10), 3);
}
END_TEST

START_TEST(test_dedup_intervals_that_do_not_fit_the_page_are_refused)
{
    given_dedup(1, 9, 2);
    ck_assert_refused(apply(0), "intervals");
    given_dedup(1, 3, 2); /* overlaps the end */
    ck_assert_refused(apply(0), "intervals");
    given_dedup(2, 1, 2);
    ck_assert_refused(apply(0), "too short");
}
END_TEST

static void given_vacuum(unsigned deleted, unsigned updated)
{
    uint16_t main[2] = {(uint16_t)deleted, (uint16_t)updated};
    given_btree(BTREE_VACUUM, main, sizeof(main));
}

START_TEST(test_btree_vacuum_of_items_that_do_not_exist_is_refused)
{
    given_vacuum(1, 0);
    uint8_t *at = fixture.data[0];
    put(&at, 2, 4);
    data_ends(0, at);
    ck_assert_refused(apply(0), "item 4 of 3");

    given_vacuum(3, 0);
    at = fixture.data[0];
    put(&at, 2, 2);
    put(&at, 2, 1);
    put(&at, 2, 3);
    data_ends(0, at);
    ck_assert_refused(apply(0), "not in order");

    given_vacuum(0xFFFF, 0);
    ck_assert_refused(apply(0), "too short");
}
END_TEST

START_TEST(test_btree_vacuum_deletes_from_posting_lists_only_what_is_there)
{
    given_vacuum(0, 1);
    uint8_t *at = fixture.data[0];
    put(&at, 2, 1);
    put(&at, 2, 1);
    put(&at, 2, 0);
    data_ends(0, at);
    ck_assert_refused(apply(0), "more TIDs"); /* item 1 is no list */
}
END_TEST

START_TEST(test_gin_segments_that_run_out_of_bytes_are_refused)
{
    uint8_t *at = fixture.main;
    given_record(RM_GIN, 0x90);
    main_ends(at);
    at = given_block(0, heap_key(7));
    put(&at, 2, 1);
    put(&at, 1, 0);
    put(&at, 1, 4); /* add items */
    put(&at, 2, 1);
    put(&at, 4, 0);
    put(&at, 2, 7);
    data_ends(0, at);
    given_page(8);
    page_set_u16(fixture.page, PAGE_SIZE - 2, 1 | 2 | 128);
    page_set_u16(fixture.page, PAGE_LOWER, 32 + 10);
    page_set_u16(fixture.page, 32 + 4, 1); /* first TID (0,1) */
    page_set_u16(fixture.page, 32 + 6, 1); /* one byte follows */
    fixture.page[32 + 8] = 0x02;
    ck_assert_ok(apply(0), &fixture.msg);
    ck_assert_uint_eq(page_u16(fixture.page, 32 + 6), 2);
    ck_assert_uint_eq(fixture.page[32 + 9], 0x04); /* (0,1) (0,3) (0,7) */

    page_set_lsn(fixture.page, OLD_LSN);
    fixture.page[32 + 9] = 0x80; /* a number that never ends */
    ck_assert_refused(apply(0), "segment");

    page_set_lsn(fixture.page, OLD_LSN);
    page_set_u16(fixture.page, 32 + 6, 0xFFF0); /* longer than the page */
    ck_assert_refused(apply(0), "no such segment");

    page_set_u16(fixture.page, PAGE_LOWER, 24);
    ck_assert_refused(apply(0), "no such GIN data page");
}
END_TEST

START_TEST(test_hash_bits_and_bitmaps_out_of_range_are_refused)
{
    uint8_t *at = fixture.main;
    given_record(RM_HASH, 0x30);
    put(&at, 2, 4096);
    put(&at, 1, 0);
    main_ends(at);
    given_block(0, heap_key(1));
    given_block(1, heap_key(2));
    for (unsigned i = 2; i <= 4; i++) {
        at = given_block(i, heap_key(i));
        put(&at, 4, 8152 * 8);
        data_ends(i, at);
    }
    given_page(16);
    ck_assert_refused(apply(2), "outside the bitmap");
    page_set_u32(fixture.page, 24 + 36, 98);
    ck_assert_refused(apply(4), "split point");
    page_set_u32(fixture.page, 24 + 36, 97);
    page_set_u32(fixture.page, 24 + 44, 1024);
    ck_assert_refused(apply(4), "no room for a bitmap");
    uint16_t bytes = 8153;
    memcpy(fixture.main, &bytes, sizeof(bytes));
    memset(fixture.page, 0, PAGE_SIZE);
    fixture.record.blocks[3].will_init = true;
    ck_assert_refused(apply(3), "does not fit");
}
END_TEST

START_TEST(test_gist_split_with_a_broken_tuple_is_refused)
{
    uint8_t *at = fixture.main;
    given_record(RM_GIST, 0x30);
    put(&at, 8, 0);
    put(&at, 8, 0);
    put(&at, 2, 1);
    put(&at, 2, 0xFFFF); /* pages */
    put(&at, 4, 0);
    main_ends(at);
    at = given_block(1, heap_key(7));
    fixture.record.blocks[1].will_init = true;
    put(&at, 4, 0x7FFFFFFF);
    write_tuple(at, 16, 1);
    page_set_u16(at, 6, 17);
    data_ends(1, at + 16);
    ck_assert_refused(apply(1), "too short");
}
END_TEST

START_TEST(test_spgist_links_to_nodes_that_do_not_exist_are_refused)
{
    uint8_t *at = fixture.main;
    given_record(RM_SPGIST, 0x10);
    put(&at, 2, 0);
    put(&at, 2, 1);
    put(&at, 2, 0);
    put(&at, 2, 1); /* parent */
    put(&at, 2, 3); /* its node */
    put(&at, 4, 16 << 2);
    put(&at, 8, 0);
    put(&at, 4, 0);
    main_ends(at);
    given_block(0, heap_key(3));
    given_block(1, heap_key(4));
    given_page(8);
    uint8_t *inner = given_item(24, 1);
    memset(inner, 0, 24);
    page_set_u32(inner, 0, 2 << 3);
    write_tuple(inner + 8, 8, 0);
    write_tuple(inner + 16, 8, 0);
    ck_assert_refused(apply(1), "no such node");
    page_set_u32(inner, 0, 4 << 3); /* more nodes than bytes */
    ck_assert_refused(apply(1), "no such node");
    page_set_u16(inner + 8, 6, 0); /* a node without size */
    ck_assert_refused(apply(1), "no such node");
}
END_TEST

START_TEST(test_spgist_replaces_placeholders_only)
{
    uint8_t *at = fixture.main;
    given_record(RM_SPGIST, 0x10);
    put(&at, 2, 0);
    put(&at, 2, 1);
    put(&at, 6, 0);
    put(&at, 4, 16 << 2);
    put(&at, 8, 0);
    put(&at, 4, 0);
    main_ends(at);
    given_block(0, heap_key(3));
    given_page(8);
    memset(given_item(16, 1), 0, 16);
    ck_assert_refused(apply(0), "no placeholder");
}
END_TEST

START_TEST(test_a_brin_range_without_pages_is_refused)
{
    uint8_t *at = fixture.main;
    given_record(RM_BRIN, 0x50);
    put(&at, 4, 0);
    put(&at, 4, 100);
    put(&at, 2, 1);
    main_ends(at);
    given_block(0, heap_key(1));
    given_page(8);
    ck_assert_refused(apply(0), "no pages");
}
END_TEST

UNIT_MAIN(
    "redo_index",
    test_btree_insert_shifts_later_items,
    test_btree_insert_of_nothing_or_on_another_kind_of_page_is_refused,
    test_a_posting_list_that_leaves_its_tuple_is_refused,
    test_a_posting_split_outside_of_the_list_is_refused,
    test_btree_split_keeps_the_items_before_first_right_under_the_new_high_key,
    test_btree_split_behind_the_last_item_is_refused,
    test_btree_split_with_a_malformed_high_key_is_refused,
    test_a_right_page_of_malformed_or_too_many_tuples_is_refused,
    test_dedup_joins_an_interval_into_a_posting_list,
    test_dedup_intervals_that_do_not_fit_the_page_are_refused,
    test_btree_vacuum_of_items_that_do_not_exist_is_refused,
    test_btree_vacuum_deletes_from_posting_lists_only_what_is_there,
    test_gin_segments_that_run_out_of_bytes_are_refused,
    test_hash_bits_and_bitmaps_out_of_range_are_refused,
    test_gist_split_with_a_broken_tuple_is_refused,
    test_spgist_links_to_nodes_that_do_not_exist_are_refused,
    test_spgist_replaces_placeholders_only,
    test_a_brin_range_without_pages_is_refused);
