/* Heap pages and their visibility map. */
#include "tests/unit/redo/redo_fixture.h"

enum {
    INSERT = 0x00,
    DELETE = 0x10,
    UPDATE = 0x20,
    HOT_UPDATE = 0x40,
    LOCK = 0x60,
    INPLACE = 0x70
};
enum { PRUNE = 0x20, VISIBLE = 0x40, MULTI_INSERT = 0x50 };
enum {
    TUPLE_XMIN = 0,
    TUPLE_XMAX = 4,
    TUPLE_CTID = 12,
    TUPLE_MASK2 = 18,
    TUPLE_MASK = 20,
    TUPLE_HOFF = 22
};

/* INSERT of a tuple with 9 user bytes at item `number`. */
static void given_insert(unsigned number, unsigned flags)
{
    uint8_t *at = fixture.main;
    given_record(RM_HEAP, INSERT);
    put(&at, 2, number);
    put(&at, 1, flags);
    main_ends(at);
    at = given_block(0, heap_key(0x12345));
    put(&at, 2, 2);
    put(&at, 2, 0x0902);
    put(&at, 1, 24);
    put_bytes(
        &at,
        "\0"
        "user data",
        10);
    data_ends(0, at);
}

/* A tuple of `size` bytes: 24 of header, then `fill`. */
static uint8_t *given_tuple(size_t size, uint8_t fill)
{
    uint8_t *tuple = given_item(size, 1);
    memset(tuple, 0, 24);
    memset(tuple + 24, fill, size - 24);
    tuple[TUPLE_HOFF] = 24;
    return tuple;
}

START_TEST(test_insert_builds_the_tuple_and_leaves_the_padding)
{
    given_insert(1, 0);
    given_page(0);
    memset(fixture.page + 8000, 0xCC, PAGE_SIZE - 8000);

    ck_assert_ok(apply(0), &fixture.msg);

    const uint8_t *tuple = item(1);
    ck_assert_uint_eq(item_size(1), 33);
    ck_assert_uint_eq(page_u32(tuple, TUPLE_XMIN), FIXTURE_XID);
    ck_assert_uint_eq(page_u32(tuple, TUPLE_XMAX), 0);
    ck_assert_uint_eq(page_u16(tuple, TUPLE_CTID), 1);
    ck_assert_uint_eq(page_u16(tuple, TUPLE_CTID + 2), 0x2345);
    ck_assert_uint_eq(page_u16(tuple, TUPLE_CTID + 4), 1);
    ck_assert_mem_eq(tuple + 24, "user data", 9);
    ck_assert_uint_eq(tuple[33], 0xCC);
    ck_assert_uint_eq(page_lsn(fixture.page), FIXTURE_END);
}
END_TEST

START_TEST(test_insert_on_a_new_page_writes_its_header)
{
    given_insert(1, 0);
    fixture.record.info |= 0x80;
    fixture.record.blocks[0].will_init = true;

    ck_assert_ok(apply(0), &fixture.msg);

    ck_assert_uint_eq(page_u16(fixture.page, PAGE_LOWER), 28);
    ck_assert_uint_eq(page_u16(fixture.page, PAGE_UPPER), PAGE_SIZE - 40);
    ck_assert_uint_eq(page_u16(fixture.page, PAGE_SPECIAL), PAGE_SIZE);
    ck_assert_uint_eq(page_u16(fixture.page, PAGE_VERSION), 0x2004);
}
END_TEST

START_TEST(test_insert_takes_over_only_an_unused_line_pointer)
{
    given_insert(1, 0);
    given_page(0);
    given_tuple(40, 1);
    given_tuple(40, 2);
    ck_assert_refused(apply(0), "in use");

    set_line_pointer(1, 0, 0, 0);
    ck_assert_ok(apply(0), &fixture.msg);
    ck_assert_uint_eq(item_count(), 2);
    ck_assert_mem_eq(item(1) + 24, "user data", 9);
}
END_TEST

START_TEST(test_insert_where_no_item_can_be_is_refused)
{
    unsigned numbers[] = {0, 2, 292, 0xFFFF};
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        given_insert(numbers[i], 0);
        given_page(0);
        ck_assert_refused(apply(0), "cannot be added");
    }
}
END_TEST

START_TEST(test_insert_of_a_malformed_tuple_is_refused)
{
    given_insert(1, 0);
    given_page(0);
    fixture.data[0][4] = 22; /* t_hoff inside of the fixed header */
    ck_assert_refused(apply(0), "size");
    fixture.data[0][4] = 34; /* behind the end */
    ck_assert_refused(apply(0), "size");
    fixture.record.blocks[0].data.size = 5;
    ck_assert_refused(apply(0), "too short");
    fixture.record.blocks[0].data.size = 3;
    ck_assert_refused(apply(0), "too short");
    given_insert(1, 0);
    given_page(0);
    fixture.record.main_data.size = 2;
    ck_assert_refused(apply(0), "too short");
}
END_TEST

START_TEST(test_a_damaged_page_header_is_refused)
{
    const uint16_t headers[][3] = {
        {20, 8192, 8192}, {8000, 7000, 8192}, {24, 8192, 8000}, {24, 8190, 8190}, {24, 9000, 9000}};
    for (size_t i = 0; i < ARRAY_LEN(headers); i++) {
        given_insert(1, 0);
        given_page(0);
        page_set_u16(fixture.page, PAGE_LOWER, headers[i][0]);
        page_set_u16(fixture.page, PAGE_UPPER, headers[i][1]);
        page_set_u16(fixture.page, PAGE_SPECIAL, headers[i][2]);
        ck_assert_refused(apply(0), "page header");
    }
}
END_TEST

START_TEST(test_an_insert_that_does_not_fit_is_refused)
{
    given_insert(1, 0);
    given_page(0);
    page_set_u16(fixture.page, PAGE_UPPER, 24 + 40);
    ck_assert_refused(apply(0), "does not fit");
}
END_TEST

static void given_delete(unsigned number, unsigned flags)
{
    uint8_t *at = fixture.main;
    given_record(RM_HEAP, DELETE);
    put(&at, 4, 999);
    put(&at, 2, number);
    put(&at, 1, 0x10);
    put(&at, 1, flags);
    main_ends(at);
    given_block(0, heap_key(5));
    given_page(0);
}

START_TEST(test_delete_marks_tuple_and_page)
{
    given_delete(1, 1);
    uint8_t *tuple = given_tuple(32, 1);
    page_set_u16(tuple, TUPLE_MASK, 0x0920);
    page_set_u16(tuple, TUPLE_MASK2, 0x4003);
    page_set_u16(fixture.page, PAGE_FLAGS, PD_ALL_VISIBLE);

    ck_assert_ok(apply(0), &fixture.msg);

    ck_assert_uint_eq(page_u32(tuple, TUPLE_XMAX), 999);
    ck_assert_uint_eq(page_u16(tuple, TUPLE_MASK), 0x0100);
    ck_assert_uint_eq(page_u16(tuple, TUPLE_MASK2), 0x2003);
    ck_assert_uint_eq(page_u16(tuple, TUPLE_CTID + 2), 5);
    ck_assert_uint_eq(page_u32(fixture.page, PAGE_PRUNE_XID), FIXTURE_XID);
    ck_assert_uint_eq(page_u16(fixture.page, PAGE_FLAGS), 0);
}
END_TEST

START_TEST(test_delete_keeps_an_older_prune_xid)
{
    given_delete(1, 0);
    given_tuple(32, 1);
    page_set_u32(fixture.page, PAGE_PRUNE_XID, FIXTURE_XID - 1);
    ck_assert_ok(apply(0), &fixture.msg);
    ck_assert_uint_eq(page_u32(fixture.page, PAGE_PRUNE_XID), FIXTURE_XID - 1);
}
END_TEST

START_TEST(test_delete_of_a_speculative_tuple_takes_its_xmin)
{
    given_delete(1, 0x08);
    uint8_t *tuple = given_tuple(32, 1);
    page_set_u32(tuple, TUPLE_XMIN, 12);
    page_set_u16(tuple, TUPLE_CTID + 4, 0xFFFE);
    ck_assert_ok(apply(0), &fixture.msg);
    ck_assert_uint_eq(page_u32(tuple, TUPLE_XMIN), 0);
    ck_assert_uint_eq(page_u32(tuple, TUPLE_XMAX), 0);
    ck_assert_uint_eq(page_u16(tuple, TUPLE_CTID + 4), 1);
}
END_TEST

START_TEST(test_delete_by_a_move_to_another_partition_says_so)
{
    given_delete(1, 0x10);
    uint8_t *tuple = given_tuple(32, 1);
    ck_assert_ok(apply(0), &fixture.msg);
    ck_assert_uint_eq(page_u32(tuple, TUPLE_CTID), UINT32_MAX);
    ck_assert_uint_eq(page_u16(tuple, TUPLE_CTID + 4), 0xFFFD);
}
END_TEST

START_TEST(test_delete_of_what_is_no_tuple_is_refused)
{
    given_delete(0, 0);
    given_tuple(32, 1);
    ck_assert_refused(apply(0), "item 0 of 1");
    given_delete(2, 0);
    given_tuple(32, 1);
    ck_assert_refused(apply(0), "item 2 of 1");
    given_delete(1, 0);
    given_item(32, 3);
    ck_assert_refused(apply(0), "no tuple");
    given_delete(1, 0);
    given_tuple(32, 1);
    set_line_pointer(1, 8180, 1, 32); /* over the end of the page */
    ck_assert_refused(apply(0), "lies at");
    set_line_pointer(1, 0, 1, 32); /* in the page header */
    ck_assert_refused(apply(0), "lies at");
    given_delete(1, 0);
    given_item(20, 1);
    ck_assert_refused(apply(0), "no tuple");
    given_delete(1, 0);
    given_tuple(32, 1)[TUPLE_HOFF] = 33;
    ck_assert_refused(apply(0), "no tuple");
}
END_TEST

/* HOT update of item 1 to item 2 with prefix and suffix of the old tuple. */
static uint8_t *given_update(size_t prefix, size_t suffix)
{
    uint8_t *at = fixture.main;
    given_record(RM_HEAP, HOT_UPDATE);
    put(&at, 4, 700);
    put(&at, 2, 1);
    put(&at, 1, 0);
    put(&at, 1, 0x60);
    put(&at, 4, 0);
    put(&at, 2, 2);
    main_ends(at);
    at = given_block(0, heap_key(0));
    put(&at, 2, prefix);
    put(&at, 2, suffix);
    put(&at, 2, 0x8002);
    put(&at, 2, 0x2802);
    put(&at, 1, 24);
    put_bytes(&at, "\0new", 4);
    data_ends(0, at);
    given_page(0);
    uint8_t *tuple = given_tuple(34, 0);
    memcpy(tuple + 24, "0123456789", 10);
    return tuple;
}

START_TEST(test_update_joins_prefix_new_bytes_and_suffix)
{
    uint8_t *old = given_update(4, 2);

    ck_assert_ok(apply(0), &fixture.msg);

    ck_assert_uint_eq(item_size(2), 24 + 4 + 3 + 2);
    ck_assert_mem_eq(item(2) + 24, "0123new89", 9);
    ck_assert_uint_eq(page_u16(old, TUPLE_MASK2) & 0x4000, 0x4000);
    ck_assert_uint_eq(page_u16(old, TUPLE_CTID + 4), 2);
    ck_assert_uint_eq(page_u16(item(2), TUPLE_CTID + 4), 2);
}
END_TEST

START_TEST(test_update_with_more_prefix_or_suffix_than_old_tuple_is_refused)
{
    given_update(11, 0);
    ck_assert_refused(apply(0), "longer than the old tuple");
    given_update(0, 11);
    ck_assert_refused(apply(0), "longer than the old tuple");
    given_update(0xFFFF, 0xFFFF);
    ck_assert_refused(apply(0), "size");
}
END_TEST

START_TEST(test_update_across_pages_has_no_prefix)
{
    given_update(4, 0);
    given_block(1, heap_key(1));
    ck_assert_refused(apply(0), "longer than the old tuple");
}
END_TEST

START_TEST(test_an_inplace_update_of_another_length_is_refused)
{
    uint8_t *at = fixture.main;
    given_record(RM_HEAP, INPLACE);
    put(&at, 2, 1);
    main_ends(at);
    data_ends(0, given_block(0, heap_key(0)) + 9);
    given_page(0);
    given_tuple(34, 0);
    ck_assert_refused(apply(0), "another length");
}
END_TEST

START_TEST(test_many_inserts_need_as_many_numbers_and_no_bytes_are_left)
{
    uint8_t *at = fixture.main;
    given_record(RM_HEAP2, MULTI_INSERT);
    put(&at, 2, 0);
    put(&at, 2, 2);
    put(&at, 2, 1);
    put(&at, 2, 2);
    main_ends(at);
    at = given_block(0, heap_key(0));
    for (int i = 0; i < 2; i++) {
        at += (at - fixture.data[0]) % 2;
        put(&at, 2, 4);
        put(&at, 2, 1);
        put(&at, 2, 0x0900);
        put(&at, 1, 24);
        put_bytes(&at, i == 0 ? "\0one" : "\0two", 4);
    }
    data_ends(0, at);
    given_page(0);
    ck_assert_ok(apply(0), &fixture.msg);
    ck_assert_uint_eq(item_count(), 2);
    ck_assert_mem_eq(item(2) + 24, "two", 3);

    given_page(0);
    data_ends(0, at + 1);
    ck_assert_refused(apply(0), "left behind");
    given_page(0);
    data_ends(0, at - 1);
    ck_assert_refused(apply(0), "too short");
    given_page(0);
    fixture.record.main_data.size = 7;
    ck_assert_refused(apply(0), "too short");
}
END_TEST

/* Prune: item 1 redirected to 3, item 2 unused. */
static void given_prune(unsigned from, unsigned to, unsigned unused)
{
    uint8_t *at = fixture.main;
    given_record(RM_HEAP2, PRUNE);
    put(&at, 1, 1);
    put(&at, 1, 0x04 | 0x20 | 0x80);
    main_ends(at);
    at = given_block(0, heap_key(0));
    put(&at, 2, 1);
    put(&at, 2, from);
    put(&at, 2, to);
    put(&at, 2, 1);
    put(&at, 2, unused);
    data_ends(0, at);
    given_page(0);
    for (uint8_t i = 1; i <= 4; i++) {
        given_tuple(32, i);
    }
}

START_TEST(test_prune_compacts_upwards_and_leaves_the_hole_as_it_was)
{
    given_prune(1, 3, 2);

    ck_assert_ok(apply(0), &fixture.msg);

    ck_assert_uint_eq(item_state(1), 2);
    ck_assert_uint_eq(line_pointer(1) & 0x7FFF, 3);
    ck_assert_uint_eq(line_pointer(2), 0);
    ck_assert_uint_eq(line_pointer(3) & 0x7FFF, PAGE_SIZE - 32);
    ck_assert_uint_eq(line_pointer(4) & 0x7FFF, PAGE_SIZE - 64);
    ck_assert_uint_eq(item(3)[24], 3);
    ck_assert_uint_eq(item(4)[24], 4);
    ck_assert_uint_eq(page_u16(fixture.page, PAGE_UPPER), PAGE_SIZE - 64);
    ck_assert_uint_eq(page_u16(fixture.page, PAGE_FLAGS), PD_HAS_FREE_LINES);
    ck_assert_mem_eq(fixture.page + PAGE_SIZE - 128, fixture.before + PAGE_SIZE - 128, 64);
}
END_TEST

START_TEST(test_prune_brings_items_back_into_the_order_of_their_numbers)
{
    given_prune(1, 3, 2);
    uint32_t third = line_pointer(3);
    set_line_pointer(3, line_pointer(4) & 0x7FFF, 1, 32);
    set_line_pointer(4, third & 0x7FFF, 1, 32);

    ck_assert_ok(apply(0), &fixture.msg);

    ck_assert_uint_eq(line_pointer(3) & 0x7FFF, PAGE_SIZE - 32);
    ck_assert_uint_eq(item(3)[24], 4);
    ck_assert_uint_eq(item(4)[24], 3);
}
END_TEST

START_TEST(test_prune_forgets_unused_line_pointers_at_the_end)
{
    given_prune(1, 3, 4);
    ck_assert_ok(apply(0), &fixture.msg);
    ck_assert_uint_eq(item_count(), 3);
    ck_assert_uint_eq(page_u16(fixture.page, PAGE_FLAGS), 0);
}
END_TEST

START_TEST(test_prune_of_items_that_do_not_exist_is_refused)
{
    given_prune(0, 3, 2);
    ck_assert_refused(apply(0), "item 0 of 4");
    given_prune(1, 5, 2);
    ck_assert_refused(apply(0), "no item");
    given_prune(1, 3, 0xFFFF);
    ck_assert_refused(apply(0), "item 65535 of 4");
}
END_TEST

START_TEST(test_prune_whose_arrays_are_longer_than_its_data_is_refused)
{
    given_prune(1, 3, 2);
    fixture.data[0][0] = 0xFF; /* redirections */
    ck_assert_refused(apply(0), "too short");
    given_prune(1, 3, 2);
    fixture.data[0][6] = 2; /* unused items */
    ck_assert_refused(apply(0), "too short");
}
END_TEST

START_TEST(test_prune_of_items_that_overlap_is_refused)
{
    given_prune(1, 3, 2);
    page_set_u16(fixture.page, PAGE_UPPER, PAGE_SIZE - 40);
    set_line_pointer(3, PAGE_SIZE - 40, 1, 40);
    set_line_pointer(4, PAGE_SIZE - 40, 1, 40);
    set_line_pointer(1, 0, 3, 0);
    set_line_pointer(2, 0, 3, 0);
    ck_assert_refused(apply(0), "overlap");
}
END_TEST

static void given_freeze(unsigned tuples, unsigned number)
{
    uint8_t *at = fixture.main;
    given_record(RM_HEAP2, PRUNE);
    put(&at, 1, 1);
    put(&at, 1, 0x10);
    main_ends(at);
    at = given_block(0, heap_key(0));
    put(&at, 4, 1);
    put(&at, 4, 0);
    put(&at, 2, 3);
    put(&at, 2, 0x0B00);
    put(&at, 2, 0);
    put(&at, 2, tuples);
    put(&at, 2, number);
    data_ends(0, at);
    given_page(0);
    given_tuple(32, 1);
}

START_TEST(test_freeze_writes_masks_and_xmax)
{
    given_freeze(1, 1);
    page_set_u32(item(1), TUPLE_XMAX, 55);
    ck_assert_ok(apply(0), &fixture.msg);
    ck_assert_uint_eq(page_u16(item(1), TUPLE_MASK), 0x0B00);
    ck_assert_uint_eq(page_u32(item(1), TUPLE_XMAX), 0);
}
END_TEST

START_TEST(test_freeze_of_more_tuples_than_numbers_is_refused)
{
    given_freeze(2, 1);
    ck_assert_refused(apply(0), "item 0");
    given_freeze(1, 2);
    ck_assert_refused(apply(0), "item 2 of 1");
}
END_TEST

static void given_visible(uint32_t heap_block, unsigned bits)
{
    uint8_t *at = fixture.main;
    given_record(RM_HEAP2, VISIBLE);
    put(&at, 4, 0);
    put(&at, 1, bits);
    main_ends(at);
    given_block(0, vm_key(heap_block / 32672));
    given_block(1, heap_key(heap_block));
}

START_TEST(test_visible_sets_two_bits_and_flag)
{
    given_visible(32672 + 5, 3);
    ck_assert_ok(apply(0), &fixture.msg); /* a map page of zeros is initialised */
    ck_assert_uint_eq(fixture.page[25], 0x0C);
    ck_assert_uint_eq(page_u16(fixture.page, PAGE_UPPER), PAGE_SIZE);
    ck_assert_uint_eq(page_lsn(fixture.page), FIXTURE_END);

    given_page(0);
    ck_assert_ok(apply(1), &fixture.msg);
    ck_assert_uint_eq(page_u16(fixture.page, PAGE_FLAGS), PD_ALL_VISIBLE);
    ck_assert_uint_eq(page_lsn(fixture.page), FIXTURE_END);
}
END_TEST

START_TEST(test_visible_that_changes_no_bit_leaves_the_lsn)
{
    given_visible(5, 3);
    given_page(0);
    fixture.page[25] = 0x0C;
    ck_assert_ok(apply(0), &fixture.msg);
    ck_assert_mem_eq(fixture.page, fixture.before, PAGE_SIZE);
}
END_TEST

START_TEST(test_a_map_page_of_other_heap_blocks_is_refused)
{
    given_visible(5, 3);
    given_block(0, vm_key(1));
    ck_assert_refused(apply(0), "block reference 0");
    given_insert(1, 1);
    given_page(0);
    ck_assert_refused(apply_implied(vm_key(1)), "not that of the heap block");
}
END_TEST

START_TEST(test_an_implied_map_page_loses_bits_but_keeps_its_lsn)
{
    given_insert(1, 1);
    given_page(0);
    uint32_t block = 0x12345 % 32672;
    fixture.page[24 + block / 4] = 0xFF;

    ck_assert_ok(apply_implied(vm_key(0x12345 / 32672)), &fixture.msg);

    ck_assert_uint_eq(fixture.page[24 + block / 4], (uint8_t) ~(3u << block % 4 * 2));
    ck_assert_uint_eq(page_lsn(fixture.page), OLD_LSN);
}
END_TEST

START_TEST(test_a_map_page_as_reference_gets_the_lsn_only_when_a_bit_was_set)
{
    given_insert(1, 1);
    given_block(1, vm_key(0x12345 / 32672));
    given_page(0);
    ck_assert_ok(apply(1), &fixture.msg);
    ck_assert_uint_eq(page_lsn(fixture.page), OLD_LSN);

    memset(fixture.page + 24, 0xFF, PAGE_SIZE - 24);
    ck_assert_ok(apply(1), &fixture.msg);
    ck_assert_uint_eq(page_lsn(fixture.page), FIXTURE_END);
}
END_TEST

UNIT_MAIN(
    "redo_heap",
    test_insert_builds_the_tuple_and_leaves_the_padding,
    test_insert_on_a_new_page_writes_its_header,
    test_insert_takes_over_only_an_unused_line_pointer,
    test_insert_where_no_item_can_be_is_refused,
    test_insert_of_a_malformed_tuple_is_refused,
    test_a_damaged_page_header_is_refused,
    test_an_insert_that_does_not_fit_is_refused,
    test_delete_marks_tuple_and_page,
    test_delete_keeps_an_older_prune_xid,
    test_delete_of_a_speculative_tuple_takes_its_xmin,
    test_delete_by_a_move_to_another_partition_says_so,
    test_delete_of_what_is_no_tuple_is_refused,
    test_update_joins_prefix_new_bytes_and_suffix,
    test_update_with_more_prefix_or_suffix_than_old_tuple_is_refused,
    test_update_across_pages_has_no_prefix,
    test_an_inplace_update_of_another_length_is_refused,
    test_many_inserts_need_as_many_numbers_and_no_bytes_are_left,
    test_prune_compacts_upwards_and_leaves_the_hole_as_it_was,
    test_prune_brings_items_back_into_the_order_of_their_numbers,
    test_prune_forgets_unused_line_pointers_at_the_end,
    test_prune_of_items_that_do_not_exist_is_refused,
    test_prune_whose_arrays_are_longer_than_its_data_is_refused,
    test_prune_of_items_that_overlap_is_refused,
    test_freeze_writes_masks_and_xmax,
    test_freeze_of_more_tuples_than_numbers_is_refused,
    test_visible_sets_two_bits_and_flag,
    test_visible_that_changes_no_bit_leaves_the_lsn,
    test_a_map_page_of_other_heap_blocks_is_refused,
    test_an_implied_map_page_loses_bits_but_keeps_its_lsn,
    test_a_map_page_as_reference_gets_the_lsn_only_when_a_bit_was_set);
