/* What is damaged on disk is refused or put back, and never taken for a shorter log. */
#include "tests/unit/disk/disk_lab.h"

#include <stdio.h>

#include "common/base/mark.h"
#include "common/base/mem.h"
#include "common/io/file.h"
#include "safekeeper/disk/wal_repair.h"

static struct errmsg msg;

START_TEST(test_torn_last_group_is_cut_and_leaves_zeros)
{
    lab_make_dir();
    struct wal_store *store = lab_open();
    lab_append(store, 1000, 1);
    lsn_t certain_lsn = wal_store_flush_lsn(store);
    lsn_t certain_record_lsn = wal_store_record_lsn(store);
    lab_append(store, 1000, 1);
    wal_store_close(store);
    lab_flip(lab_path(certain_lsn, ""), certain_lsn % LAB_SEGMENT_SIZE + 700);

    store = lab_open();
    ck_assert_uint_eq(wal_store_flush_lsn(store), certain_lsn);
    ck_assert_uint_eq(wal_store_record_lsn(store), certain_record_lsn);
    ck_assert_uint_gt(mark_hits("wal_recovery.torn_group"), 0);
    ck_assert(lab_is_zero_behind(certain_lsn));
    lab_append(store, 300, 2);
    wal_store_close(store);
    store = lab_open();
    ck_assert_uint_eq(wal_store_flush_lsn(store), certain_lsn + 300);
    wal_store_close(store);
    lab_assert_bytes(certain_lsn, certain_lsn + 300, 2);
}
END_TEST

struct listener {
    struct wal_witness witness;
    lsn_t record_lsn, end_lsn;
    err_t answer;
};

static err_t on_suspect(
    struct wal_witness *witness, lsn_t record_lsn, lsn_t end_lsn, struct errmsg *why)
{
    struct listener *listener = CONTAINER_OF(witness, struct listener, witness);
    listener->record_lsn = record_lsn;
    listener->end_lsn = end_lsn;
    return listener->answer == ERR_OK ? ERR_OK : err_set(why, listener->answer, "planted");
}

static err_t open_with(struct listener *listener)
{
    struct wal_store_options options = lab_options();
    struct wal_store *store = NULL;
    listener->witness.on_suspect = on_suspect;
    options.witness = &listener->witness;
    err_t err = wal_store_open(&options, &store, &msg);
    wal_store_close(store);
    return err;
}

START_TEST(test_torn_last_group_is_suspect_until_somebody_has_noted_it)
{
    lab_make_dir();
    struct wal_store *store = lab_open();
    lab_append(store, 1000, 1);
    lsn_t record_lsn = wal_store_record_lsn(store);
    lsn_t certain_lsn = wal_store_flush_lsn(store);
    lab_append(store, 1003, 1);
    lsn_t lost_record_lsn = wal_store_record_lsn(store);
    wal_store_close(store);
    lab_flip(lab_path(certain_lsn, ""), certain_lsn % LAB_SEGMENT_SIZE + 700);

    struct listener listener = {.answer = ERR_FULL};
    ck_assert_int_eq(open_with(&listener), ERR_FULL);
    ck_assert(!lab_is_zero_behind(certain_lsn)); /* or it would be forgotten */
    listener = (struct listener){0};
    ck_assert_int_eq(open_with(&listener), ERR_OK);
    ck_assert_uint_eq(listener.record_lsn, record_lsn);
    ck_assert_uint_eq(listener.end_lsn, lost_record_lsn);
    ck_assert(lab_is_zero_behind(certain_lsn));
    listener = (struct listener){0};
    ck_assert_int_eq(open_with(&listener), ERR_OK);
    ck_assert_uint_eq(listener.end_lsn, LSN_NONE);
}
END_TEST

START_TEST(test_unreadable_last_record_is_suspect_for_the_greatest_group)
{
    lab_make_dir();
    struct wal_store *store = lab_open();
    lab_append(store, 1000, 1);
    lsn_t certain_lsn = wal_store_flush_lsn(store);
    lab_append(store, 1000, 1);
    wal_store_close(store);
    lab_flip(lab_path(certain_lsn, ".crc"), 2 * 64 + 20);

    struct listener listener = {0};
    ck_assert_int_eq(open_with(&listener), ERR_OK);
    lsn_t segment_end = certain_lsn - certain_lsn % LAB_SEGMENT_SIZE + LAB_SEGMENT_SIZE;
    ck_assert_uint_eq(listener.end_lsn, MIN_OF(certain_lsn + WAL_GROUP_MAX, segment_end));
}
END_TEST

/* The record of a segment's first group shares its sector with the header. */
START_TEST(test_unreadable_first_record_of_a_segment_is_suspect)
{
    lab_make_dir();
    struct wal_store *store = lab_open();
    lab_fill_to_segment_end(store, 1);
    lsn_t boundary = wal_store_flush_lsn(store);
    lab_append(store, 1000, 1);
    wal_store_close(store);
    lab_flip(lab_path(boundary, ".crc"), 64 + 20);
    lab_flip(lab_path(boundary, ".crc"), 20);

    struct listener listener = {0};
    ck_assert_int_eq(open_with(&listener), ERR_OK);
    ck_assert_uint_eq(listener.end_lsn, boundary + WAL_GROUP_MAX);
}
END_TEST

/* A crash tears one write: more than one group was there, and was acknowledged. */
START_TEST(test_two_unreadable_records_at_the_end_are_refused)
{
    lab_make_dir();
    struct wal_store *store = lab_open();
    for (unsigned i = 0; i < 4; i++) {
        lab_append(store, 1000, 1);
    }
    wal_store_close(store);
    lab_flip(lab_path(LAB_START_LSN, ".crc"), 3 * 64 + 20);
    lab_flip(lab_path(LAB_START_LSN, ".crc"), 4 * 64 + 20);
    ck_assert_int_eq(lab_try_open(LSN_NONE, &msg), ERR_CORRUPT);
}
END_TEST

START_TEST(test_log_that_ends_between_groups_is_not_suspect)
{
    lab_make_dir();
    struct wal_store *store = lab_open();
    lab_append(store, 1000, 1);
    lab_append(store, 1000, 1);
    ck_assert_ok(wal_store_truncate(store, LAB_START_LSN + 1504, &msg), &msg);
    wal_store_close(store);
    struct listener listener = {0};
    ck_assert_int_eq(open_with(&listener), ERR_OK);
    ck_assert_uint_eq(listener.end_lsn, LSN_NONE);
}
END_TEST

START_TEST(test_flipped_bit_in_a_certified_group_is_refused)
{
    lab_make_dir();
    struct wal_store *store = lab_open();
    lab_append(store, 1000, 1);
    lsn_t first_end = wal_store_flush_lsn(store);
    lab_append(store, 1000, 1);
    wal_store_close(store);
    lab_flip(lab_path(first_end, ""), first_end % LAB_SEGMENT_SIZE - 1);
    ck_assert_int_eq(lab_try_open(LSN_NONE, &msg), ERR_CORRUPT);
    ck_assert_uint_gt(mark_hits("wal_recovery.certified_damage"), 0);
}
END_TEST

/* The store's damage is put back by bytes that the sidecar proves, and by no others. */
static void repair_all(unsigned salt)
{
    struct wal_damage_list list = {0};
    struct wal_store_options options = lab_options();
    struct wal_store *store = NULL;
    options.damage = &list;
    ck_assert_int_eq(wal_store_open(&options, &store, &msg), ERR_CORRUPT);
    ck_assert_uint_gt(list.count, 0);
    for (size_t i = 0; i < list.count; i++) {
        lsn_t begin_lsn = wal_repair_begin_lsn(&options, &list.items[i]);
        size_t size = (size_t)(list.items[i].end_lsn - begin_lsn);
        uint8_t *wal = mem_alloc(size);
        lab_fill(wal, begin_lsn, size, salt + 1);
        ck_assert_int_eq(
            wal_repair_put(&options, &list.items[i], bytes_of(wal, size), &msg), ERR_CORRUPT);
        lab_fill(wal, begin_lsn, size, salt);
        ck_assert_ok(wal_repair_put(&options, &list.items[i], bytes_of(wal, size), &msg), &msg);
        mem_free(wal);
    }
}

START_TEST(test_damaged_groups_are_put_back)
{
    lab_make_dir();
    struct wal_store *store = lab_open();
    lab_append(store, 1000, 1);
    lab_append(store, 70000, 1);
    lab_fill_to_segment_end(store, 1);
    lsn_t boundary = wal_store_flush_lsn(store);
    lab_append(store, 500, 1);
    ck_assert_ok(wal_store_truncate(store, boundary + 304, &msg), &msg);
    lab_append(store, 500, 1);
    lab_append(store, 500, 1);
    lsn_t end_lsn = wal_store_flush_lsn(store);
    wal_store_close(store);
    lab_flip(lab_path(LAB_START_LSN, ""), 3); /* before the start: the first group covers it */
    lab_flip(lab_path(LAB_START_LSN, ""), (LAB_START_LSN + 50000) % LAB_SEGMENT_SIZE);
    lab_flip(lab_path(boundary, ""), 303); /* what a truncation left */

    repair_all(1);
    store = lab_open();
    ck_assert_uint_eq(wal_store_flush_lsn(store), end_lsn);
    wal_store_close(store);
    lab_assert_bytes(LAB_START_LSN, end_lsn, 1);
}
END_TEST

START_TEST(test_lost_segment_file_is_put_back)
{
    lab_make_dir();
    struct wal_store *store = lab_open();
    lab_fill_to_segment_end(store, 1);
    lab_fill_to_segment_end(store, 1);
    lab_append(store, 10, 1);
    lsn_t end_lsn = wal_store_flush_lsn(store);
    wal_store_close(store);
    ck_assert_ok(file_remove(lab_path(LAB_START_LSN + LAB_SEGMENT_SIZE, ""), &msg), &msg);
    repair_all(1);
    ck_assert_ok(lab_try_open(end_lsn, &msg), &msg);
    lab_assert_bytes(LAB_START_LSN, end_lsn, 1);
}
END_TEST

/* Unproven by a record, but known to be committed: it was durable, and can be put back. */
START_TEST(test_last_group_that_was_committed_is_put_back)
{
    lab_make_dir();
    struct wal_store *store = lab_open();
    lab_append(store, 1000, 1);
    lab_append(store, 1000, 1);
    lsn_t end_lsn = wal_store_flush_lsn(store);
    wal_store_close(store);
    lab_flip(lab_path(end_lsn, ""), end_lsn % LAB_SEGMENT_SIZE - 10);
    struct wal_damage_list list = {0};
    struct wal_store_options options = lab_options();
    options.damage = &list;
    options.certified_lsn = end_lsn;
    ck_assert_int_eq(wal_store_open(&options, &store, &msg), ERR_CORRUPT);
    ck_assert_uint_eq(list.count, 1);
    ck_assert_uint_eq(list.items[0].end_lsn, end_lsn);
    uint8_t wal[1000];
    lab_fill(wal, end_lsn - 1000, sizeof(wal), 1);
    ck_assert_ok(wal_repair_put(&options, &list.items[0], bytes_of(wal, 1000), &msg), &msg);
    ck_assert_ok(lab_try_open(end_lsn, &msg), &msg);
}
END_TEST

/* Certified, but not known to be committed, and nobody has it: cut, and reported as suspect. */
START_TEST(test_damaged_tail_can_be_given_up)
{
    lab_make_dir();
    struct wal_store *store = lab_open();
    lab_fill_to_segment_end(store, 1);
    lsn_t commit_lsn = wal_store_record_lsn(store);
    lab_append(store, 1004, 1);
    lsn_t whole_lsn = wal_store_record_lsn(store), damage_lsn = wal_store_flush_lsn(store);
    lab_append(store, 1000, 1);
    lab_fill_to_segment_end(store, 1);
    lab_append(store, 1000, 1);
    lsn_t lost_lsn = wal_store_record_lsn(store);
    ck_assert_ok(wal_store_certify(store, commit_lsn, &msg), &msg);
    wal_store_close(store);
    lab_flip(lab_path(damage_lsn, ""), damage_lsn % LAB_SEGMENT_SIZE + 500);

    struct listener listener = {.witness = {.on_suspect = on_suspect}};
    struct wal_damage_list list;
    struct wal_store_options options = lab_options();
    options.witness = &listener.witness;
    options.damage = &list;
    ck_assert_int_eq(wal_store_open(&options, &store, &msg), ERR_CORRUPT);
    ck_assert_uint_eq(listener.end_lsn, LSN_NONE);
    options.is_tail_given_up = true;
    options.certified_lsn = damage_lsn + 8; /* committed: never */
    ck_assert_int_eq(wal_store_open(&options, &store, &msg), ERR_CORRUPT);
    options.certified_lsn = commit_lsn;
    ck_assert_ok(wal_store_open(&options, &store, &msg), &msg);
    ck_assert_uint_eq(listener.record_lsn, whole_lsn);
    ck_assert_uint_eq(listener.end_lsn, lost_lsn);
    ck_assert_uint_eq(wal_store_flush_lsn(store), whole_lsn);
    lab_append(store, 300, 2);
    wal_store_close(store);
    ck_assert_ok(lab_try_open(whole_lsn + 296, &msg), &msg);
    lab_assert_bytes(LAB_START_LSN, whole_lsn, 1);
    lab_assert_bytes(whole_lsn, whole_lsn + 300, 2);
}
END_TEST

START_TEST(test_flipped_bit_before_the_start_is_refused)
{
    lab_make_dir();
    struct wal_store *store = lab_open();
    lab_append(store, 1000, 1);
    lab_append(store, 1000, 1);
    wal_store_close(store);
    lab_flip(lab_path(LAB_START_LSN, ""), 3);
    ck_assert_int_eq(lab_try_open(LSN_NONE, &msg), ERR_CORRUPT);
}
END_TEST

START_TEST(test_last_group_is_proven_by_a_record_of_its_own)
{
    lab_make_dir();
    struct wal_store *store = lab_open();
    lab_append(store, 1000, 1);
    lsn_t end_lsn = wal_store_flush_lsn(store);
    ck_assert(!wal_store_is_proven(store));
    if (_i == 0) {
        ck_assert_ok(wal_store_rest(store, LAB_START_LSN, &msg), &msg);
    } else {
        ck_assert_ok(wal_store_certify(store, LAB_START_LSN, &msg), &msg);
    }
    ck_assert(wal_store_is_proven(store));
    wal_store_close(store);
    ck_assert_ok(lab_try_open(LSN_NONE, &msg), &msg);
    lab_flip(lab_path(end_lsn, ""), end_lsn % LAB_SEGMENT_SIZE - 5);
    ck_assert_int_eq(lab_try_open(LSN_NONE, &msg), ERR_CORRUPT);
}
END_TEST

START_TEST(test_shorter_log_than_committed_is_refused)
{
    lab_make_dir();
    struct wal_store *store = lab_open();
    lab_append(store, 1000, 1);
    lsn_t first_end = wal_store_flush_lsn(store);
    lab_append(store, 1000, 1);
    lsn_t commit_lsn = wal_store_flush_lsn(store);
    wal_store_close(store);
    lab_flip(lab_path(first_end, ""), first_end % LAB_SEGMENT_SIZE + 1);
    ck_assert_int_eq(lab_try_open(commit_lsn, &msg), ERR_CORRUPT);
    ck_assert_uint_gt(mark_hits("wal_recovery.shorter_than_certified"), 0);
    ck_assert_ok(lab_try_open(first_end, &msg), &msg);
}
END_TEST

START_TEST(test_damaged_sidecar_record_is_refused)
{
    lab_make_dir();
    struct wal_store *store = lab_open();
    for (unsigned i = 0; i < 4; i++) {
        lab_append(store, 1000, 1);
    }
    wal_store_close(store);
    lab_flip(lab_path(LAB_START_LSN, ".crc"), 2 * 64 + 20);
    ck_assert_int_eq(lab_try_open(LSN_NONE, &msg), ERR_CORRUPT);
}
END_TEST

/* Of a log whose end is proven, no byte can change and be taken for less, or for something else. */
START_TEST(test_any_flipped_byte_is_refused_or_harmless)
{
    lab_make_dir();
    struct wal_store *store = lab_open();
    lab_append(store, 100, 1);
    lab_append(store, 900, 1);
    ck_assert_ok(wal_store_truncate(store, LAB_START_LSN + 504, &msg), &msg);
    lab_append(store, 300, 1);
    lsn_t end_lsn = wal_store_flush_lsn(store);
    ck_assert_ok(wal_store_rest(store, LAB_START_LSN, &msg), &msg);
    wal_store_close(store);
    unsigned refused = 0;
    for (uint64_t at = 0; at < 8 * 64; at++) { /* header, 5 records, and free slots */
        struct buf before = {0};
        char path[PATH_SIZE];
        (void)snprintf(path, sizeof(path), "%s", lab_path(LAB_START_LSN, ".crc"));
        ck_assert_ok(file_read_all(path, 1 * MIB, &before, &msg), &msg);
        lab_flip(path, at);
        struct wal_store_options options = lab_options();
        err_t err = wal_store_open(&options, &store, &msg);
        refused += err == ERR_CORRUPT;
        ck_assert_msg(err == ERR_OK || err == ERR_CORRUPT, "byte %" PRIu64 ": %s", at, msg.text);
        if (err == ERR_OK) {
            ck_assert_uint_eq(wal_store_flush_lsn(store), end_lsn);
            wal_store_close(store);
            lab_assert_bytes(LAB_START_LSN, end_lsn, 1);
        }
        ck_assert_ok(file_write_durably(path, buf_view(&before), &msg), &msg);
        buf_deinit(&before);
    }
    ck_assert_uint_ge(refused, 5 * 64); /* all but those of the last record and of free slots */
}
END_TEST

START_TEST(test_missing_file_in_the_middle_is_refused)
{
    lab_make_dir();
    struct wal_store *store = lab_open();
    lab_fill_to_segment_end(store, 1);
    lab_fill_to_segment_end(store, 1);
    lab_append(store, 10, 1);
    wal_store_close(store);
    const char *suffix = _i == 0 ? "" : ".crc";
    ck_assert_ok(file_remove(lab_path(LAB_START_LSN + LAB_SEGMENT_SIZE, suffix), &msg), &msg);
    ck_assert_int_eq(lab_try_open(LSN_NONE, &msg), ERR_CORRUPT);
}
END_TEST

START_TEST(test_sidecar_of_another_timeline_does_not_count)
{
    lab_make_dir();
    struct wal_store *store = lab_open();
    lab_append(store, 1000, 1);
    lab_append(store, 1000, 1);
    wal_store_close(store);
    struct wal_store_options options = lab_options();
    options.timeline.bytes[5] = 9;
    options.certified_lsn = LAB_START_LSN + 8;
    ck_assert_int_eq(wal_store_open(&options, &store, &msg), ERR_CORRUPT);
}
END_TEST

START_TEST(test_reader_finds_damage)
{
    lab_make_dir();
    struct wal_store *store = lab_open();
    lab_append(store, 1000, 1);
    lab_append(store, 1000, 1);
    lab_flip(lab_path(LAB_START_LSN, ""), LAB_START_LSN % LAB_SEGMENT_SIZE + 1500);
    struct wal_store_options options = lab_options();
    struct wal_store_reader *reader = wal_store_reader_create(&options);
    struct buf wal = {0};
    ck_assert_ok(
        wal_store_reader_read(reader, LAB_START_LSN, LAB_START_LSN + 900, &wal, &msg), &msg);
    ck_assert_int_eq(
        wal_store_reader_read(reader, LAB_START_LSN, LAB_START_LSN + 1001, &wal, &msg),
        ERR_CORRUPT);
    buf_deinit(&wal);
    wal_store_reader_destroy(reader);
    wal_store_close(store);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("wal_damage");
    TCase *tcase = tcase_create("wal_damage");
    tcase_set_timeout(tcase, UNIT_TIMEOUT_S);
    tcase_add_test(tcase, test_torn_last_group_is_cut_and_leaves_zeros);
    tcase_add_test(tcase, test_torn_last_group_is_suspect_until_somebody_has_noted_it);
    tcase_add_test(tcase, test_unreadable_last_record_is_suspect_for_the_greatest_group);
    tcase_add_test(tcase, test_unreadable_first_record_of_a_segment_is_suspect);
    tcase_add_test(tcase, test_two_unreadable_records_at_the_end_are_refused);
    tcase_add_test(tcase, test_log_that_ends_between_groups_is_not_suspect);
    tcase_add_test(tcase, test_flipped_bit_in_a_certified_group_is_refused);
    tcase_add_test(tcase, test_damaged_groups_are_put_back);
    tcase_add_test(tcase, test_lost_segment_file_is_put_back);
    tcase_add_test(tcase, test_last_group_that_was_committed_is_put_back);
    tcase_add_test(tcase, test_damaged_tail_can_be_given_up);
    tcase_add_test(tcase, test_flipped_bit_before_the_start_is_refused);
    tcase_add_loop_test(tcase, test_last_group_is_proven_by_a_record_of_its_own, 0, 2);
    tcase_add_test(tcase, test_shorter_log_than_committed_is_refused);
    tcase_add_test(tcase, test_damaged_sidecar_record_is_refused);
    tcase_add_test(tcase, test_any_flipped_byte_is_refused_or_harmless);
    tcase_add_loop_test(tcase, test_missing_file_in_the_middle_is_refused, 0, 2);
    tcase_add_test(tcase, test_sidecar_of_another_timeline_does_not_count);
    tcase_add_test(tcase, test_reader_finds_damage);
    suite_add_tcase(suite, tcase);
    return unit_run_suite(suite);
}
