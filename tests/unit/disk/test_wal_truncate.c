/* What is cut off the end of the log is gone for good, however often the cut is interrupted. */
#include "tests/unit/disk/disk_lab.h"

#include "common/base/fault.h"
#include "common/io/file.h"

static struct errmsg msg;

START_TEST(test_truncation_inside_a_group_is_durable_and_zeroes)
{
    lab_make_dir();
    struct wal_store *store = lab_open();
    lab_append(store, 1000, 1);
    lab_append(store, 5000, 1);
    lab_append(store, 5000, 1);
    lsn_t cut_lsn = LAB_START_LSN + 1600;
    ck_assert_ok(wal_store_truncate(store, cut_lsn, &msg), &msg);
    ck_assert_uint_eq(wal_store_flush_lsn(store), cut_lsn);
    ck_assert_uint_eq(wal_store_record_lsn(store), cut_lsn);
    ck_assert(lab_is_zero_behind(cut_lsn));
    wal_store_close(store);

    store = lab_open();
    ck_assert_uint_eq(wal_store_flush_lsn(store), cut_lsn);
    ck_assert_uint_eq(wal_store_record_lsn(store), cut_lsn);
    lab_append(store, 40, 2);
    wal_store_close(store);
    ck_assert_ok(lab_try_open(cut_lsn + 40, &msg), &msg);
    lab_assert_bytes(LAB_START_LSN, cut_lsn, 1);
    lab_assert_bytes(cut_lsn, cut_lsn + 40, 2);
    /* What is left of the cut group is certified by the truncation. */
    lab_flip(lab_path(cut_lsn, ""), cut_lsn % LAB_SEGMENT_SIZE - 1);
    ck_assert_int_eq(lab_try_open(LSN_NONE, &msg), ERR_CORRUPT);
}
END_TEST

START_TEST(test_truncation_removes_later_segments)
{
    lab_make_dir();
    struct wal_store *store = lab_open();
    lab_fill_to_segment_end(store, 1);
    lsn_t boundary = wal_store_flush_lsn(store);
    lab_fill_to_segment_end(store, 1);
    lab_append(store, 500, 1);
    lsn_t cut_lsn = _i == 0 ? boundary : boundary - 8;
    ck_assert_ok(wal_store_truncate(store, cut_lsn, &msg), &msg);
    ck_assert(!file_exists(lab_path(boundary, "")));
    ck_assert(!file_exists(lab_path(boundary + LAB_SEGMENT_SIZE, ".crc")));
    lab_append(store, 8, 2);
    lab_append(store, 700, 2);
    wal_store_close(store);
    store = lab_open();
    ck_assert_uint_eq(wal_store_flush_lsn(store), cut_lsn + 708);
    wal_store_close(store);
    lab_assert_bytes(LAB_START_LSN, cut_lsn, 1);
    lab_assert_bytes(cut_lsn, cut_lsn + 708, 2);
}
END_TEST

START_TEST(test_interrupted_truncation_is_finished_at_the_next_start)
{
    static const char *const faults[] = {
        "wal_store.truncate_before_zero=io", "wal_store.truncate_before_remove=io"};
    lab_make_dir();
    struct wal_store *store = lab_open();
    lab_fill_to_segment_end(store, 1);
    lsn_t boundary = wal_store_flush_lsn(store);
    lab_append(store, 500, 1);
    lsn_t cut_lsn = boundary - 4000;
    fault_enable();
    ck_assert_ok(fault_arm(faults[_i], &msg), &msg);
    ck_assert_int_eq(wal_store_truncate(store, cut_lsn, &msg), ERR_IO);
    wal_store_close(store);
    ck_assert_ok(fault_arm("", &msg), &msg);

    store = lab_open();
    ck_assert_uint_eq(wal_store_flush_lsn(store), cut_lsn);
    ck_assert(lab_is_zero_behind(cut_lsn));
    ck_assert(!file_exists(lab_path(boundary, "")));
    wal_store_close(store);
}
END_TEST

START_TEST(test_truncation_that_found_no_space_is_repeated)
{
    static const char *const faults[] = {
        "wal_store.before_truncate=full*1",
        "wal_sidecar.before_sync=full*1",
        "wal_store.truncate_before_zero=full*1",
        "wal_store.truncate_before_remove=full*1",
    };
    lab_make_dir();
    struct wal_store *store = lab_open();
    lab_fill_to_segment_end(store, 1);
    lsn_t boundary = wal_store_flush_lsn(store);
    lab_append(store, 500, 1);
    lsn_t cut_lsn = _i < 4 ? boundary - 4000 : boundary + 80;
    fault_enable();
    ck_assert_ok(fault_arm(faults[_i % 4], &msg), &msg);
    ck_assert_int_eq(wal_store_truncate(store, cut_lsn, &msg), ERR_FULL);
    ck_assert_ok(wal_store_truncate(store, cut_lsn, &msg), &msg);
    lab_append(store, 300, 2);
    wal_store_close(store);
    store = lab_open();
    ck_assert_uint_eq(wal_store_flush_lsn(store), cut_lsn + 300);
    wal_store_close(store);
    lab_assert_bytes(LAB_START_LSN, cut_lsn, 1);
    lab_assert_bytes(cut_lsn, cut_lsn + 300, 2);
}
END_TEST

START_TEST(test_truncation_to_the_start)
{
    lab_make_dir();
    struct wal_store *store = lab_open();
    lab_append(store, 500, 1);
    lab_append(store, 500, 1);
    ck_assert_ok(wal_store_truncate(store, LAB_START_LSN, &msg), &msg);
    wal_store_close(store);
    store = lab_open();
    ck_assert_uint_eq(wal_store_flush_lsn(store), LAB_START_LSN);
    ck_assert_uint_eq(wal_store_record_lsn(store), LAB_START_LSN);
    lab_append(store, 24, 2);
    wal_store_close(store);
    store = lab_open();
    ck_assert_uint_eq(wal_store_flush_lsn(store), LAB_START_LSN + 24);
    wal_store_close(store);
    lab_assert_bytes(LAB_START_LSN, LAB_START_LSN + 24, 2);
}
END_TEST

START_TEST(test_truncation_does_not_certify_damage)
{
    lab_make_dir();
    struct wal_store *store = lab_open();
    lab_append(store, 1000, 1);
    lab_append(store, 1000, 1);
    lab_flip(lab_path(LAB_START_LSN, ""), LAB_START_LSN % LAB_SEGMENT_SIZE + 10);
    ck_assert_int_eq(wal_store_truncate(store, LAB_START_LSN + 504, &msg), ERR_CORRUPT);
    wal_store_close(store);
}
END_TEST

/* An attempt that ran out of space left a valid record; another leader then wrote other bytes. */
START_TEST(test_group_that_was_given_up_never_comes_back)
{
    lab_make_dir();
    struct wal_store *store = lab_open();
    if (_i == 1) {
        lab_append(store, 1000, 1);
    } else if (_i == 2) {
        lab_fill_to_segment_end(store, 1); /* the attempt begins a segment */
    }
    lsn_t flush_lsn = wal_store_flush_lsn(store);
    fault_enable();
    ck_assert_ok(fault_arm("wal_store.after_sync=full*1", &msg), &msg);
    ck_assert_int_eq(lab_try_append(store, 800, 7, &msg), ERR_FULL);
    ck_assert_uint_eq(wal_store_flush_lsn(store), flush_lsn);
    ck_assert_ok(wal_store_truncate(store, flush_lsn, &msg), &msg);
    wal_store_close(store);
    store = lab_open();
    ck_assert_uint_eq(wal_store_flush_lsn(store), flush_lsn);
    ck_assert(lab_is_zero_behind(flush_lsn));
    lab_append(store, 80, 2);
    wal_store_close(store);
    ck_assert_ok(lab_try_open(flush_lsn + 80, &msg), &msg);
    lab_assert_bytes(flush_lsn, flush_lsn + 80, 2);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("wal_truncate");
    TCase *tcase = tcase_create("wal_truncate");
    tcase_set_timeout(tcase, UNIT_TIMEOUT_S);
    tcase_add_test(tcase, test_truncation_inside_a_group_is_durable_and_zeroes);
    tcase_add_loop_test(tcase, test_truncation_removes_later_segments, 0, 2);
    tcase_add_loop_test(tcase, test_interrupted_truncation_is_finished_at_the_next_start, 0, 2);
    tcase_add_loop_test(tcase, test_truncation_that_found_no_space_is_repeated, 0, 8);
    tcase_add_test(tcase, test_truncation_to_the_start);
    tcase_add_test(tcase, test_truncation_does_not_certify_damage);
    tcase_add_loop_test(tcase, test_group_that_was_given_up_never_comes_back, 0, 3);
    suite_add_tcase(suite, tcase);
    return unit_run_suite(suite);
}
