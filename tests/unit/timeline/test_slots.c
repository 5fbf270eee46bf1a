/* Which WAL the slots of a timeline need, and what safekeepers hear of it. */
#include "pageserver/timeline/slots.h"

#include "common/base/mark.h"
#include "tests/unit/timeline/tenant_fixture.h"

#define SLOT_A 1u
#define SLOT_B 2u

static void put_value(uint8_t timeline, uint32_t block, lsn_t lsn, struct bytes value)
{
    struct timeline *tl = find(timeline);
    struct page_writer *writer = NULL;
    ck_assert_ok(page_writer_open(timeline_store(tl), timeline_number(tl), &writer, &msg), &msg);
    page_writer_put(writer, page_key_state(STATE_SLOT, 0, block), lsn, VALUE_STATE, 0, value);
    struct ingest_position position = {.lsn = lsn};
    ck_assert_ok(page_writer_commit(writer, position, &msg), &msg);
    page_writer_close(writer);
    timeline_advance(tl, position);
}

static void put_slot(uint8_t timeline, uint32_t block, lsn_t lsn, lsn_t restart_lsn, uint32_t flags)
{
    struct slot_message head = {
        .version = SLOT_MESSAGE_VERSION, .name = "a", .restart_lsn = restart_lsn, .flags = flags};
    put_value(timeline, block, lsn, bytes_of(&head, sizeof(head)));
}

static lsn_t needed_at(uint8_t timeline, lsn_t lsn)
{
    struct timeline *tl = find(timeline);
    lsn_t needed = LSN_NONE;
    ck_assert_ok(
        slots_needed_lsn(timeline_store(tl), timeline_number(tl), lsn, &needed, &msg), &msg);
    return needed;
}

START_TEST(test_the_slot_that_is_furthest_behind_counts)
{
    fixture_begin_with_root();
    ck_assert_uint_eq(needed_at(1, START_LSN), LSN_NONE);
    put_slot(1, SLOT_A, START_LSN + 100, START_LSN + 50, 0);
    put_slot(1, SLOT_B, START_LSN + 200, START_LSN + 40, 0);
    ck_assert_uint_eq(needed_at(1, START_LSN + 200), START_LSN + 40);
    ck_assert_uint_eq(needed_at(1, START_LSN + 150), START_LSN + 50);
    put_value(1, SLOT_B, START_LSN + 300, bytes_of(NULL, 0)); /* dropped */
    ck_assert_uint_eq(needed_at(1, START_LSN + 300), START_LSN + 50);
    put_slot(1, SLOT_A, START_LSN + 400, LSN_NONE, 0); /* invalidated */
    ck_assert_uint_eq(needed_at(1, START_LSN + 400), LSN_NONE);
    fixture_end();
}
END_TEST

START_TEST(test_a_branch_has_no_slots_of_its_parent)
{
    fixture_begin_with_root();
    put_slot(1, SLOT_A, START_LSN + 104, START_LSN + 50, 0);
    ck_assert_int_eq(put_timeline_(2, 1, START_LSN + 104), ERR_OK);
    ck_assert_uint_eq(needed_at(2, START_LSN + 104), LSN_NONE);
    put_slot(2, SLOT_A, START_LSN + 200, START_LSN + 150, 0);
    ck_assert_uint_eq(needed_at(2, START_LSN + 200), START_LSN + 150);
    fixture_end();
}
END_TEST

START_TEST(test_slots_being_made_count_while_their_server_lives)
{
    fixture_begin_with_root();
    lsn_t since = START_LSN + 100;
    put_slot(1, SLOT_A, START_LSN + 100, START_LSN + 50, SLOT_MESSAGE_RESERVES);
    ck_assert_uint_eq(needed_at(1, START_LSN + 100), LSN_NONE); /* of a server that has ended */
    put_value(1, 0, since, bytes_of(&since, sizeof(since)));
    ck_assert_uint_eq(needed_at(1, START_LSN + 100), START_LSN + 50);
    put_value(1, 0, START_LSN + 200, bytes_of(NULL, 0));
    ck_assert_uint_eq(needed_at(1, START_LSN + 200), LSN_NONE);
    since = START_LSN + 300;
    put_slot(1, SLOT_B, since, START_LSN + 280, SLOT_MESSAGE_RESERVES);
    put_value(1, 0, since, bytes_of(&since, sizeof(since)));
    ck_assert_uint_eq(needed_at(1, since), START_LSN + 280); /* not the one from before */
    fixture_end();
}
END_TEST

START_TEST(test_a_malformed_slot_is_refused)
{
    struct slot_view slot;
    struct slot_message head = {.version = SLOT_MESSAGE_VERSION, .name = "../up"};
    ck_assert_int_eq(slot_parse(bytes_of(&head, 10), &slot, &msg), ERR_CORRUPT);
    ck_assert_uint_eq(mark_hits("slots.short"), 1);
    ck_assert_int_eq(slot_parse(bytes_of(&head, sizeof(head)), &slot, &msg), ERR_CORRUPT);
    ck_assert_uint_eq(mark_hits("slots.name"), 1);
    (void)snprintf(head.name, sizeof(head.name), "up");
    ck_assert_ok(slot_parse(bytes_of(&head, sizeof(head)), &slot, &msg), &msg);
    head.snapshot_size = 1;
    ck_assert_int_eq(slot_parse(bytes_of(&head, sizeof(head)), &slot, &msg), ERR_CORRUPT);
    ck_assert_uint_eq(mark_hits("slots.sizes"), 1);
}
END_TEST

START_TEST(test_safekeepers_keep_what_slots_need_up_to_the_limit)
{
    fixture_slot_wal_keep_max = 1000;
    fixture_begin_with_root();
    put_slot(1, SLOT_A, START_LSN + 5000, START_LSN + 4500, 0);
    fixture_reopen(); /* flushes, and finds the slot again */
    struct timeline *tl = find(1);
    ck_assert_uint_eq(timeline_slots_lsn(tl), START_LSN + 4500);
    ck_assert_uint_eq(timeline_unneeded_lsn(tl), LSN_NONE); /* nothing is in the object store */
    timeline_set_remote_lsn(tl, START_LSN + 4000);
    ck_assert_uint_eq(timeline_unneeded_lsn(tl), START_LSN + 4000);
    timeline_set_remote_lsn(tl, START_LSN + 5000);
    ck_assert_uint_eq(timeline_unneeded_lsn(tl), START_LSN + 4500);
    timeline_set_slots_lsn(tl, START_LSN + 100);
    ck_assert_uint_eq(timeline_unneeded_lsn(tl), START_LSN + 4000);
    timeline_set_slots_lsn(tl, LSN_NONE);
    ck_assert_uint_eq(timeline_unneeded_lsn(tl), START_LSN + 5000);
    fixture_end();
    fixture_slot_wal_keep_max = 0;
}
END_TEST

UNIT_MAIN(
    "slots",
    test_the_slot_that_is_furthest_behind_counts,
    test_a_branch_has_no_slots_of_its_parent,
    test_slots_being_made_count_while_their_server_lives,
    test_a_malformed_slot_is_refused,
    test_safekeepers_keep_what_slots_need_up_to_the_limit);
