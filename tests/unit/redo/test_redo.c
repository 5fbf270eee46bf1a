/* Dispatch, images, the pd_lsn rule, and the pages without a block reference. */
#include "tests/unit/redo/redo_fixture.h"

enum { XLOG_FPI_FOR_HINT = 0xA0, XLOG_FPI = 0xB0 };

static void given_image(uint8_t *image)
{
    struct wal_block *block = &fixture.record.blocks[0];
    given_block(0, heap_key(3));
    block->has_image = block->apply_image = true;
    block->image_flags = 2;
    block->image = bytes_of(image, PAGE_SIZE);
}

START_TEST(test_an_image_becomes_the_page_and_gets_the_end_lsn)
{
    static uint8_t image[PAGE_SIZE];
    given_record(RM_XLOG, XLOG_FPI);
    given_page(0);
    given_item(40, 1);
    memcpy(image, fixture.page, PAGE_SIZE);
    memset(fixture.page, 0xEE, PAGE_SIZE);
    given_image(image);

    ck_assert_ok(apply(0), &fixture.msg);

    page_set_lsn(image, FIXTURE_END);
    ck_assert_mem_eq(fixture.page, image, PAGE_SIZE);
}
END_TEST

START_TEST(test_an_image_of_an_uninitialised_page_stays_all_zeros)
{
    static uint8_t image[PAGE_SIZE];
    given_record(RM_XLOG, XLOG_FPI);
    given_image(image);

    ck_assert_ok(apply(0), &fixture.msg);

    ck_assert_mem_eq(fixture.page, image, PAGE_SIZE);
}
END_TEST

START_TEST(test_a_hint_without_an_image_changes_nothing)
{
    given_record(RM_XLOG, XLOG_FPI_FOR_HINT);
    given_page(0);
    given_block(0, heap_key(3));

    ck_assert_ok(apply(0), &fixture.msg);

    ck_assert_mem_eq(fixture.page, fixture.before, PAGE_SIZE);
}
END_TEST

START_TEST(test_a_page_that_has_the_change_already_is_left_alone)
{
    given_record(RM_HEAP, 0x50);
    given_page(0);
    page_set_lsn(fixture.page, FIXTURE_END);
    given_block(0, heap_key(3));

    ck_assert_ok(apply(0), &fixture.msg);

    ck_assert_mem_eq(fixture.page, fixture.before, PAGE_SIZE);
}
END_TEST

START_TEST(test_a_page_that_was_never_initialised_is_refused)
{
    given_record(RM_HEAP, 0x50);
    given_block(0, heap_key(3));
    ck_assert_refused(apply(0), "never initialised");
}
END_TEST

START_TEST(test_a_reference_that_does_not_exist_is_refused)
{
    given_record(RM_HEAP, 0x00);
    given_page(0);
    ck_assert_refused(apply_to(0, heap_key(3)), "block reference 0");
    ck_assert_refused(apply_to(33, heap_key(3)), "block reference 33");
    ck_assert_refused(apply_to(254, heap_key(3)), "block reference 254");
}
END_TEST

START_TEST(test_a_reference_to_another_page_is_refused)
{
    given_record(RM_HEAP, 0x50);
    given_page(0);
    given_block(0, heap_key(3));
    ck_assert_refused(apply_to(0, heap_key(4)), "another page");
}
END_TEST

START_TEST(test_what_is_not_understood_is_unsupported_and_named)
{
    given_record(RM_RELMAP, 0x00);
    given_page(0);
    given_block(0, heap_key(3));
    ck_assert_int_eq(apply(0), ERR_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(fixture.msg.text, "RelMap"));

    given_record(RM_CUSTOM_MIN, 0x00);
    given_page(0);
    given_block(0, heap_key(3));
    ck_assert_int_eq(apply(0), ERR_UNSUPPORTED);

    given_record(RM_BTREE, 0xF0);
    given_page(16);
    given_block(0, heap_key(3));
    ck_assert_int_eq(apply(0), ERR_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(fixture.msg.text, "Btree"));
}
END_TEST

/* A commit of FIXTURE_XID with these subtransactions. */
static void given_commit(const uint32_t *subxids, uint32_t count)
{
    uint8_t *at = fixture.main;
    given_record(RM_XACT, 0x80);
    put(&at, 8, 1234567);
    put(&at, 4, 0x2 | 0x20);
    put(&at, 4, count);
    put_bytes(&at, subxids, count * sizeof(uint32_t));
    put(&at, 8, 0xAABB);
    put(&at, 8, 7654321);
    main_ends(at);
    fixture.record.origin = 9;
}

START_TEST(test_a_commit_sets_the_bits_that_lie_on_this_clog_page)
{
    uint32_t subxids[] = {701, 32768 + 3};
    given_commit(subxids, 2);
    fixture.page[701 / 4] = 0xFF;

    ck_assert_ok(apply_implied(page_key_state(STATE_CLOG, 0, 0)), &fixture.msg);

    ck_assert_uint_eq(fixture.page[175], 0xF5); /* 700 and 701 committed, their neighbours kept */
    ck_assert_uint_eq(fixture.page[0], 0);

    memset(fixture.page, 0, PAGE_SIZE);
    ck_assert_ok(apply_implied(page_key_state(STATE_CLOG, 0, 1)), &fixture.msg);
    ck_assert_uint_eq(fixture.page[0], 0x40);
    ck_assert_uint_eq(fixture.page[175], 0);
}
END_TEST

START_TEST(test_an_abort_of_a_prepared_transaction_takes_the_xid_of_the_record)
{
    uint8_t *at = fixture.main;
    given_record(RM_XACT, 0x40 | 0x80);
    fixture.record.xid = 5000;
    put(&at, 8, 1);
    put(&at, 4, 0x10);
    put(&at, 4, 900);
    main_ends(at);

    ck_assert_ok(apply_implied(page_key_state(STATE_CLOG, 0, 0)), &fixture.msg);

    ck_assert_uint_eq(fixture.page[900 / 4], 2);
    ck_assert_uint_eq(fixture.page[5000 / 4], 0);
}
END_TEST

START_TEST(test_a_commit_time_is_that_of_the_origin_when_there_is_one)
{
    uint64_t time;
    uint16_t origin;
    given_commit(NULL, 0);

    ck_assert_ok(apply_implied(page_key_state(STATE_COMMIT_TS, 0, 0)), &fixture.msg);

    memcpy(&time, fixture.page + 7000, sizeof(time));
    memcpy(&origin, fixture.page + 7008, sizeof(origin));
    ck_assert_uint_eq(time, 7654321);
    ck_assert_uint_eq(origin, 9);
}
END_TEST

/* Postgres keeps 199 bytes of it, but what follows stands behind all of it. */
START_TEST(test_a_long_gid_is_skipped_to_its_end)
{
    uint64_t time;
    uint8_t *at = fixture.main;
    given_record(RM_XACT, 0x30 | 0x80);
    put(&at, 8, 1);
    put(&at, 4, 0x10 | 0x80 | 0x20);
    put(&at, 4, 900);
    memset(at, 'g', 300);
    at += 300;
    put(&at, 1, 0);
    put(&at, 8, 0xAABB);
    put(&at, 8, 7654321);
    main_ends(at);

    ck_assert_ok(apply_implied(page_key_state(STATE_COMMIT_TS, 0, 1)), &fixture.msg);

    memcpy(&time, fixture.page + (900 - 819) * 10, sizeof(time));
    ck_assert_uint_eq(time, 7654321);
}
END_TEST

START_TEST(test_a_commit_that_promises_more_subtransactions_is_refused)
{
    uint32_t subxids[] = {701, 702};
    given_commit(subxids, 2);
    uint32_t many = 0x40000000;
    memcpy(fixture.main + 12, &many, sizeof(many));
    ck_assert_refused(apply_implied(page_key_state(STATE_CLOG, 0, 0)), "too short");
}
END_TEST

static void given_multixact(uint32_t multi, uint32_t offset, uint32_t count, uint32_t status)
{
    uint8_t *at = fixture.main;
    given_record(RM_MULTIXACT, 0x20);
    put(&at, 4, multi);
    put(&at, 4, offset);
    put(&at, 4, count);
    for (uint32_t i = 0; i < count && i < 4; i++) {
        put(&at, 4, 800 + i);
        put(&at, 4, status);
    }
    main_ends(at);
}

START_TEST(test_a_multixact_writes_its_offset_and_the_next_one_across_pages)
{
    given_multixact(2047, 77, 2, 1);
    ck_assert_ok(apply_implied(page_key_state(STATE_MULTI_OFFSETS, 0, 0)), &fixture.msg);
    ck_assert_uint_eq(page_u32(fixture.page, 2047 * 4), 77);

    memset(fixture.page, 0, PAGE_SIZE);
    ck_assert_ok(apply_implied(page_key_state(STATE_MULTI_OFFSETS, 0, 1)), &fixture.msg);
    ck_assert_uint_eq(page_u32(fixture.page, 0), 79);
    ck_assert_uint_eq(page_u32(fixture.page, 2047 * 4), 0);
}
END_TEST

START_TEST(test_the_last_multixact_is_followed_by_one_and_offset_zero_is_skipped)
{
    given_multixact(UINT32_MAX, UINT32_MAX, 1, 1);
    ck_assert_ok(apply_implied(page_key_state(STATE_MULTI_OFFSETS, 0, 0)), &fixture.msg);
    ck_assert_uint_eq(page_u32(fixture.page, 4), 1);
}
END_TEST

START_TEST(test_multixact_members_stand_in_groups_of_four)
{
    given_multixact(5, 1634, 4, 3); /* two on page 0, two on page 1 */
    ck_assert_ok(apply_implied(page_key_state(STATE_MULTI_MEMBERS, 0, 0)), &fixture.msg);
    ck_assert_uint_eq(page_u32(fixture.page, 408 * 20), 0x03030000);
    ck_assert_uint_eq(page_u32(fixture.page, 408 * 20 + 4 + 8), 800);
    ck_assert_uint_eq(page_u32(fixture.page, 408 * 20 + 4 + 12), 801);

    memset(fixture.page, 0, PAGE_SIZE);
    ck_assert_ok(apply_implied(page_key_state(STATE_MULTI_MEMBERS, 0, 1)), &fixture.msg);
    ck_assert_uint_eq(page_u32(fixture.page, 0), 0x00000303);
    ck_assert_uint_eq(page_u32(fixture.page, 4), 802);
}
END_TEST

START_TEST(test_malformed_multixacts_are_refused)
{
    given_multixact(5, 10, 2, 6);
    ck_assert_refused(apply_implied(page_key_state(STATE_MULTI_MEMBERS, 0, 0)), "status");
    given_multixact(5, 10, UINT32_MAX, 1);
    ck_assert_refused(apply_implied(page_key_state(STATE_MULTI_MEMBERS, 0, 0)), "too short");
}
END_TEST

static void given_truncate(uint32_t blocks, uint32_t flags)
{
    uint8_t *at = fixture.main;
    given_record(RM_SMGR, 0x20);
    put(&at, 4, blocks);
    put(&at, 4, 1663);
    put(&at, 4, 5);
    put(&at, 4, 16384);
    put(&at, 4, flags);
    main_ends(at);
    given_page(0);
    memset(fixture.page + PAGE_HEADER_SIZE, 0xFF, PAGE_SIZE - PAGE_HEADER_SIZE);
}

START_TEST(test_a_truncation_clears_the_map_behind_the_new_end)
{
    given_truncate(32672 + 6, 7);

    ck_assert_ok(apply_implied(vm_key(1)), &fixture.msg);

    ck_assert_uint_eq(fixture.page[24], 0xFF);
    ck_assert_uint_eq(fixture.page[25], 0x0F);
    ck_assert_uint_eq(fixture.page[26], 0);
    ck_assert_uint_eq(fixture.page[PAGE_SIZE - 1], 0);
    ck_assert_uint_eq(page_lsn(fixture.page), OLD_LSN);
}
END_TEST

START_TEST(test_a_truncation_that_ends_on_another_map_page_is_refused)
{
    given_truncate(6, 7);
    ck_assert_refused(apply_implied(vm_key(1)), "does not end");
    given_truncate(6, 1);
    ck_assert_refused(apply_implied(vm_key(0)), "does not end");
}
END_TEST

START_TEST(test_a_sequence_record_is_the_whole_page)
{
    uint8_t *at = fixture.main;
    given_record(RM_SEQ, 0);
    put(&at, 8, 0);
    put(&at, 4, 0);
    memset(at, 0x77, 41);
    main_ends(at + 41);
    given_block(0, heap_key(0));
    fixture.record.blocks[0].will_init = true;

    ck_assert_ok(apply(0), &fixture.msg);

    ck_assert_uint_eq(page_u32(fixture.page, PAGE_SIZE - 8), 0x1717);
    ck_assert_uint_eq(item_count(), 1);
    ck_assert_uint_eq(item_size(1), 41);
    ck_assert_uint_eq(item(1)[40], 0x77);
    ck_assert_uint_eq(page_lsn(fixture.page), FIXTURE_END);
}
END_TEST

START_TEST(test_a_generic_piece_over_the_end_of_the_page_is_refused)
{
    given_record(RM_GENERIC, 0);
    given_page(0);
    uint8_t *at = given_block(0, heap_key(0));
    put(&at, 2, PAGE_SIZE - 2);
    put(&at, 2, 4);
    put(&at, 4, 0);
    data_ends(0, at);
    ck_assert_refused(apply(0), "over the end");
    data_ends(0, at - 2);
    ck_assert_refused(apply(0), "too short");
}
END_TEST

UNIT_MAIN(
    "redo",
    test_an_image_becomes_the_page_and_gets_the_end_lsn,
    test_an_image_of_an_uninitialised_page_stays_all_zeros,
    test_a_hint_without_an_image_changes_nothing,
    test_a_page_that_has_the_change_already_is_left_alone,
    test_a_page_that_was_never_initialised_is_refused,
    test_a_reference_that_does_not_exist_is_refused,
    test_a_reference_to_another_page_is_refused,
    test_what_is_not_understood_is_unsupported_and_named,
    test_a_commit_sets_the_bits_that_lie_on_this_clog_page,
    test_an_abort_of_a_prepared_transaction_takes_the_xid_of_the_record,
    test_a_commit_time_is_that_of_the_origin_when_there_is_one,
    test_a_long_gid_is_skipped_to_its_end,
    test_a_commit_that_promises_more_subtransactions_is_refused,
    test_a_multixact_writes_its_offset_and_the_next_one_across_pages,
    test_the_last_multixact_is_followed_by_one_and_offset_zero_is_skipped,
    test_multixact_members_stand_in_groups_of_four,
    test_malformed_multixacts_are_refused,
    test_a_truncation_clears_the_map_behind_the_new_end,
    test_a_truncation_that_ends_on_another_map_page_is_refused,
    test_a_sequence_record_is_the_whole_page,
    test_a_generic_piece_over_the_end_of_the_page_is_refused);
