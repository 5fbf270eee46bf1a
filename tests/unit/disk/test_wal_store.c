/* The WAL on disk: what is acknowledged comes back; what could not be written is not acknowledged.
 */
#include "tests/unit/disk/disk_lab.h"

#include <errno.h>

#include "common/base/mark.h"
#include "common/io/file.h"
#include "common/pg/wal_page.h"

static struct errmsg msg;

START_TEST(test_timeline_without_wal_has_no_files)
{
    lab_make_dir();
    struct wal_store *store = lab_open();
    ck_assert_uint_eq(wal_store_flush_lsn(store), LAB_START_LSN);
    ck_assert_uint_eq(wal_store_record_lsn(store), LAB_START_LSN);
    wal_store_close(store);
    ck_assert(!file_exists(lab_path(LAB_START_LSN, "")));
    ck_assert(!file_exists(lab_path(LAB_START_LSN, ".crc")));
}
END_TEST

START_TEST(test_groups_come_back_after_a_restart)
{
    lab_make_dir();
    struct wal_store *store = lab_open();
    lab_append(store, 100, 1);
    lab_append(store, 8192, 1);
    lab_append(store, 3, 1);
    lsn_t end_lsn = wal_store_flush_lsn(store);
    wal_store_close(store);

    store = lab_open();
    ck_assert_uint_eq(wal_store_flush_lsn(store), end_lsn);
    ck_assert_uint_eq(end_lsn, LAB_START_LSN + 100 + 8192 + 3);
    ck_assert_uint_eq(wal_store_record_lsn(store), end_lsn / 8 * 8);
    wal_store_close(store);
    lab_assert_bytes(LAB_START_LSN, end_lsn, 1);
}
END_TEST

START_TEST(test_a_group_ends_at_the_segment_end_and_the_next_segment_follows)
{
    lab_make_dir();
    struct wal_store *store = lab_open();
    lab_fill_to_segment_end(store, 1);
    lsn_t boundary = wal_store_flush_lsn(store);
    wal_store_close(store);
    store = lab_open(); /* exactly between two segments */
    ck_assert_uint_eq(wal_store_flush_lsn(store), boundary);
    lab_append(store, 500, 1);
    wal_store_close(store);
    store = lab_open();
    ck_assert_uint_eq(wal_store_flush_lsn(store), boundary + 500);
    wal_store_close(store);
    lab_assert_bytes(LAB_START_LSN, boundary + 500, 1);
}
END_TEST

START_TEST(test_segment_file_can_be_read_by_tools)
{
    lab_make_dir();
    struct wal_store *store = lab_open();
    lab_append(store, 100, 1);
    wal_store_close(store);
    struct buf file = {0};
    struct wal_page_header header;
    ck_assert_ok(file_read_all(lab_path(LAB_START_LSN, ""), LAB_SEGMENT_SIZE, &file, &msg), &msg);
    ck_assert_uint_eq(file.size, LAB_SEGMENT_SIZE);
    lsn_t segment = LAB_START_LSN - LAB_START_LSN % LAB_SEGMENT_SIZE;
    for (lsn_t page = segment; page < LAB_START_LSN; page += WAL_PAGE_SIZE) {
        ck_assert_ok(
            wal_page_header_parse(
                file.data + (page - segment), page, LAB_SEGMENT_SIZE, lab_options().system_id,
                &header, &msg),
            &msg);
        ck_assert_uint_eq(
            header.flags & WAL_PAGE_FIRST_IS_CONTRECORD, WAL_PAGE_FIRST_IS_CONTRECORD);
    }
    /* The last page before the start says how far the start is. */
    lsn_t last_page = LAB_START_LSN - LAB_START_LSN % WAL_PAGE_SIZE;
    ck_assert_uint_eq(header.rest_size, LAB_START_LSN - last_page - WAL_PAGE_HEADER_SHORT);
    buf_deinit(&file);
}
END_TEST

START_TEST(test_rest_keeps_commit_lsn_and_writing_goes_on)
{
    lab_make_dir();
    struct wal_store *store = lab_open();
    lab_append(store, 1000, 1);
    lsn_t commit_lsn = wal_store_record_lsn(store);
    ck_assert_ok(wal_store_rest(store, commit_lsn, &msg), &msg);
    lab_append(store, 1000, 1);
    wal_store_close(store);
    store = lab_open();
    ck_assert_uint_eq(wal_store_commit_lsn(store), commit_lsn);
    ck_assert_uint_eq(wal_store_flush_lsn(store), LAB_START_LSN + 2000);
    wal_store_close(store);
}
END_TEST

static struct vfs real;
static unsigned failing_calls;

static ssize_t pwrite_without_space(int fd, const void *from, size_t size, off_t at)
{
    if (failing_calls > 0) {
        failing_calls--;
        size /= 2; /* part of it still fits */
        if (size == 0 || failing_calls % 2 == 0) {
            errno = ENOSPC;
            return -1;
        }
    }
    return real.pwrite(fd, from, size, at);
}

START_TEST(test_full_disk_is_waited_out)
{
    lab_make_dir();
    struct wal_store *store = lab_open();
    lab_append(store, 1000, 1);
    real = vfs;
    vfs.pwrite = pwrite_without_space;
    failing_calls = 30;
    unsigned refused = 0;
    err_t err = ERR_FULL;
    while (err == ERR_FULL) { /* the same group again and again */
        err = lab_try_append(store, 70 * KIB, 1, &msg);
        refused += err == ERR_FULL;
        ck_assert_uint_eq(
            wal_store_flush_lsn(store), LAB_START_LSN + 1000 + (err == ERR_OK ? 70 * KIB : 0));
    }
    ck_assert_ok(err, &msg);
    ck_assert_uint_gt(refused, 3);
    wal_store_close(store);
    ck_assert_ok(lab_try_open(LAB_START_LSN + 1000 + 70 * KIB, &msg), &msg);
    lab_assert_bytes(LAB_START_LSN, LAB_START_LSN + 1000 + 70 * KIB, 1);
}
END_TEST

static int fdatasync_fails(int fd)
{
    (void)fd;
    errno = EIO;
    return -1;
}

START_TEST(test_failed_sync_is_a_failure_not_a_retry)
{
    lab_make_dir();
    struct wal_store *store = lab_open();
    lab_append(store, 1000, 1);
    real = vfs;
    vfs.fdatasync = fdatasync_fails;
    ck_assert_int_eq(lab_try_append(store, 1000, 1, &msg), ERR_FAILED);
    ck_assert_uint_eq(wal_store_flush_lsn(store), LAB_START_LSN + 1000);
    vfs = real;
    wal_store_close(store);
}
END_TEST

START_TEST(test_reader_refuses_what_is_not_there)
{
    lab_make_dir();
    struct wal_store *store = lab_open();
    lab_append(store, 1000, 1);
    struct wal_store_options options = lab_options();
    struct wal_store_reader *reader = wal_store_reader_create(&options);
    struct buf wal = {0};
    ck_assert_int_eq(
        wal_store_reader_read(reader, LAB_START_LSN - 8, LAB_START_LSN + 8, &wal, &msg), ERR_RANGE);
    ck_assert_int_eq(
        wal_store_reader_read(reader, LAB_START_LSN, LAB_START_LSN + 1001, &wal, &msg),
        ERR_CORRUPT);
    ck_assert_ok(
        wal_store_reader_read(reader, LAB_START_LSN + 10, LAB_START_LSN + 10, &wal, &msg), &msg);
    ck_assert_uint_eq(wal.size, 0);
    buf_deinit(&wal);
    wal_store_reader_destroy(reader);
    wal_store_close(store);
}
END_TEST

START_TEST(test_reader_follows_the_writer_and_its_truncations)
{
    lab_make_dir();
    struct wal_store *store = lab_open();
    struct wal_store_options options = lab_options();
    struct wal_store_reader *reader = wal_store_reader_create(&options);
    struct buf wal = {0};
    lab_append(store, 1000, 1);
    ck_assert_ok(
        wal_store_reader_read(reader, LAB_START_LSN, LAB_START_LSN + 1000, &wal, &msg), &msg);
    ck_assert_ok(wal_store_truncate(store, LAB_START_LSN + 504, &msg), &msg);
    lab_append(store, 1000, 2);
    buf_clear(&wal);
    ck_assert_ok(
        wal_store_reader_read(reader, LAB_START_LSN, LAB_START_LSN + 1504, &wal, &msg), &msg);
    ck_assert_uint_eq(wal.size, 1504);
    ck_assert_uint_gt(mark_hits("wal_store_reader.reload"), 0);
    lab_assert_bytes(LAB_START_LSN, LAB_START_LSN + 504, 1);
    lab_assert_bytes(LAB_START_LSN + 504, LAB_START_LSN + 1504, 2);
    buf_deinit(&wal);
    wal_store_reader_destroy(reader);
    wal_store_close(store);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("wal_store");
    TCase *tcase = tcase_create("wal_store");
    tcase_set_timeout(tcase, UNIT_TIMEOUT_S);
    tcase_add_test(tcase, test_timeline_without_wal_has_no_files);
    tcase_add_test(tcase, test_groups_come_back_after_a_restart);
    tcase_add_test(tcase, test_a_group_ends_at_the_segment_end_and_the_next_segment_follows);
    tcase_add_test(tcase, test_segment_file_can_be_read_by_tools);
    tcase_add_test(tcase, test_rest_keeps_commit_lsn_and_writing_goes_on);
    tcase_add_test(tcase, test_full_disk_is_waited_out);
    tcase_add_test(tcase, test_failed_sync_is_a_failure_not_a_retry);
    tcase_add_test(tcase, test_reader_refuses_what_is_not_there);
    tcase_add_test(tcase, test_reader_follows_the_writer_and_its_truncations);
    suite_add_tcase(suite, tcase);
    return unit_run_suite(suite);
}
