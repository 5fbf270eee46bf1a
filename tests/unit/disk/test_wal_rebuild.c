/* A log that is copied anew beside a damaged one, and what the damaged one still says. */
#include "tests/unit/disk/disk_lab.h"

#include "common/base/fault.h"
#include "common/io/file.h"
#include "safekeeper/disk/wal_rebuild.h"

#define SLOT(number) (64 * (number))

static struct errmsg msg;

/* In a folder of its own: what stands beside it is part of the game. */
static struct wal_store_options given_options(void)
{
    static char dir[PATH_SIZE];
    struct wal_store_options options = lab_options();
    ck_assert_ok(str_format(dir, sizeof(dir), &msg, "%s/wal", lab_dir), &msg);
    options.dir = dir;
    return options;
}

static struct wal_store *open_log(const struct wal_store_options *options)
{
    struct wal_store *store = NULL;
    ck_assert_ok(wal_store_open(options, &store, &msg), &msg);
    return store;
}

static const char *sidecar(const char *dir)
{
    static char path[PATH_SIZE];
    ck_assert_ok(
        str_format(path, sizeof(path), &msg, "%s/%s", dir, "000000010000000000000030.crc"), &msg);
    return path;
}

static struct wal_survey survey_of(const struct wal_store_options *options)
{
    struct wal_survey survey = {0};
    ck_assert_ok(wal_survey(options, &survey, &msg), &msg);
    return survey;
}

/* Four groups of 1,000 bytes; the last record says that two are committed. */
static lsn_t given_log(const struct wal_store_options *options)
{
    struct wal_store *store = open_log(options);
    for (unsigned i = 0; i < 4; i++) {
        lab_append(store, 1000, 1);
    }
    ck_assert_ok(wal_store_rest(store, LAB_START_LSN + 2000, &msg), &msg);
    wal_store_close(store);
    return LAB_START_LSN + 4000;
}

START_TEST(test_survey_finds_commit_and_end_around_damage)
{
    lab_make_dir();
    struct wal_store_options options = given_options();
    lsn_t end_lsn = given_log(&options);
    lab_flip(sidecar(options.dir), SLOT(2) + 20);
    lab_flip(sidecar(options.dir), 20);
    struct wal_survey survey = survey_of(&options);
    ck_assert_uint_eq(survey.commit_lsn, LAB_START_LSN + 2000);
    ck_assert_uint_eq(survey.end_lsn, end_lsn);
}
END_TEST

/* Its last record cannot be read, or the file is gone: anything may have been there. */
START_TEST(test_survey_of_an_unreadable_end_is_the_segment)
{
    lab_make_dir();
    struct wal_store_options options = given_options();
    (void)given_log(&options);
    if (_i == 0) {
        lab_flip(sidecar(options.dir), SLOT(5) + 20);
    } else {
        ck_assert_ok(file_remove(sidecar(options.dir), &msg), &msg);
    }
    ck_assert_uint_eq(
        survey_of(&options).end_lsn,
        LAB_START_LSN - LAB_START_LSN % LAB_SEGMENT_SIZE + LAB_SEGMENT_SIZE);
}
END_TEST

START_TEST(test_survey_of_lost_files_has_no_end)
{
    lab_make_dir();
    struct wal_store_options options = given_options();
    (void)given_log(&options);
    options.certified_lsn = LAB_START_LSN + 2 * LAB_SEGMENT_SIZE; /* more than there is */
    struct wal_survey survey = survey_of(&options);
    ck_assert_uint_eq(survey.commit_lsn, options.certified_lsn);
    ck_assert_uint_eq(survey.end_lsn, WAL_END_UNKNOWN);
}
END_TEST

/* Pieces of any size, over the end of a segment. */
static void copy(const struct wal_store_options *options, lsn_t begin_lsn, lsn_t end_lsn)
{
    static uint8_t piece[100000];
    struct wal_rebuild *rebuild = NULL;
    ck_assert_ok(wal_rebuild_open(options, begin_lsn, end_lsn, &rebuild, &msg), &msg);
    while (wal_rebuild_next_lsn(rebuild) < end_lsn) {
        lsn_t next_lsn = wal_rebuild_next_lsn(rebuild);
        size_t size = (size_t)MIN_OF(end_lsn - next_lsn, (lsn_t)sizeof(piece));
        lab_fill(piece, next_lsn, size, 1);
        ck_assert_ok(wal_rebuild_append(rebuild, bytes_of(piece, size), &msg), &msg);
    }
    wal_rebuild_close(rebuild);
}

static void assert_log(const struct wal_store_options *options, lsn_t begin_lsn, lsn_t end_lsn)
{
    struct wal_store_options opening = *options;
    opening.begin_lsn = begin_lsn;
    opening.certified_lsn = end_lsn;
    struct wal_store *store = open_log(&opening);
    ck_assert_uint_eq(wal_store_flush_lsn(store), end_lsn);
    ck_assert_uint_eq(wal_store_record_lsn(store), end_lsn);
    ck_assert_uint_eq(wal_store_commit_lsn(store), begin_lsn == end_lsn ? LSN_NONE : end_lsn);
    wal_store_close(store);
    if (begin_lsn == end_lsn) {
        return;
    }
    struct wal_store_reader *reader = wal_store_reader_create(&opening);
    struct buf expected = {0};
    struct buf wal = {0};
    ck_assert_ok(wal_store_reader_read(reader, begin_lsn, end_lsn, &wal, &msg), &msg);
    lab_fill(
        buf_extend(&expected, (size_t)(end_lsn - begin_lsn)), begin_lsn,
        (size_t)(end_lsn - begin_lsn), 1);
    ck_assert(bytes_equal(buf_view(&wal), buf_view(&expected)));
    buf_deinit(&wal);
    buf_deinit(&expected);
    wal_store_reader_destroy(reader);
}

START_TEST(test_the_copy_takes_the_place_of_the_log)
{
    lab_make_dir();
    struct wal_store_options options = given_options();
    (void)given_log(&options);
    lab_flip(sidecar(options.dir), SLOT(2) + 20);
    lsn_t end_lsn = LAB_START_LSN + 3 * LAB_SEGMENT_SIZE;
    copy(&options, LAB_START_LSN, end_lsn);
    ck_assert_ok(wal_rebuild_swap(options.dir, &msg), &msg);
    assert_log(&options, LAB_START_LSN, end_lsn);
}
END_TEST

/* From the begin of who it is copied from; and when that is behind everything, of nothing. */
START_TEST(test_the_copy_may_begin_later)
{
    lab_make_dir();
    struct wal_store_options options = given_options();
    (void)given_log(&options);
    lsn_t end_lsn = LAB_START_LSN + 2 * LAB_SEGMENT_SIZE;
    lsn_t begin_lsn = _i == 0 ? LAB_START_LSN + LAB_SEGMENT_SIZE + 800 : end_lsn;
    copy(&options, begin_lsn, end_lsn);
    ck_assert_ok(wal_rebuild_swap(options.dir, &msg), &msg);
    assert_log(&options, begin_lsn, end_lsn);
}
END_TEST

START_TEST(test_an_interrupted_copy_leaves_the_log_alone)
{
    lab_make_dir();
    struct wal_store_options options = given_options();
    lsn_t end_lsn = given_log(&options);
    copy(&options, LAB_START_LSN, LAB_START_LSN + LAB_SEGMENT_SIZE);
    ck_assert_ok(wal_rebuild_clean(options.dir, &msg), &msg);
    struct wal_store *store = open_log(&options);
    ck_assert_uint_eq(wal_store_flush_lsn(store), end_lsn);
    wal_store_close(store);
}
END_TEST

/* Between the renames there is no log: it is too short, and that is noticed. */
START_TEST(test_an_interrupted_swap_is_no_shorter_log)
{
    lab_make_dir();
    struct wal_store_options options = given_options();
    struct wal_store *store = NULL;
    lsn_t end_lsn = given_log(&options);
    copy(&options, LAB_START_LSN, end_lsn);
    fault_enable();
    ck_assert_ok(fault_arm("wal_rebuild.in_swap=failed", &msg), &msg);
    ck_assert_int_eq(wal_rebuild_swap(options.dir, &msg), ERR_FAILED);
    ck_assert_ok(fault_arm("", &msg), &msg);
    options.certified_lsn = end_lsn;
    ck_assert_int_eq(wal_store_open(&options, &store, &msg), ERR_CORRUPT);
    copy(&options, LAB_START_LSN, end_lsn);
    ck_assert_ok(wal_rebuild_swap(options.dir, &msg), &msg);
    assert_log(&options, LAB_START_LSN, end_lsn);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("wal_rebuild");
    TCase *tcase = tcase_create("wal_rebuild");
    tcase_set_timeout(tcase, UNIT_TIMEOUT_S);
    tcase_add_test(tcase, test_survey_finds_commit_and_end_around_damage);
    tcase_add_loop_test(tcase, test_survey_of_an_unreadable_end_is_the_segment, 0, 2);
    tcase_add_test(tcase, test_survey_of_lost_files_has_no_end);
    tcase_add_test(tcase, test_the_copy_takes_the_place_of_the_log);
    tcase_add_loop_test(tcase, test_the_copy_may_begin_later, 0, 2);
    tcase_add_test(tcase, test_an_interrupted_copy_leaves_the_log_alone);
    tcase_add_test(tcase, test_an_interrupted_swap_is_no_shorter_log);
    suite_add_tcase(suite, tcase);
    return unit_run_suite(suite);
}
