/* Where the log begins: what is before goes, what is behind stays, and old bytes are no WAL. */
#include "tests/unit/disk/disk_lab.h"

#include <stdio.h>

#include "common/base/fault.h"
#include "common/base/mark.h"
#include "common/base/mem.h"
#include "common/io/file.h"
#include "common/pg/wal_page.h"
#include "common/wire/codec.h"
#include "safekeeper/disk/wal_repair.h"

static struct errmsg msg;

#define FIRST_BOUNDARY  (LAB_START_LSN - LAB_START_LSN % LAB_SEGMENT_SIZE + LAB_SEGMENT_SIZE)
#define SECOND_BOUNDARY (FIRST_BOUNDARY + LAB_SEGMENT_SIZE)
#define THIRD_BOUNDARY  (SECOND_BOUNDARY + LAB_SEGMENT_SIZE)

struct listener {
    struct wal_witness witness;
    lsn_t end_lsn;
};

static err_t on_suspect(
    struct wal_witness *witness, lsn_t record_lsn, lsn_t end_lsn, struct errmsg *reason)
{
    (void)record_lsn;
    (void)reason;
    CONTAINER_OF(witness, struct listener, witness)->end_lsn = end_lsn;
    return ERR_OK;
}

/* Nothing of what is there may look as if it had been acknowledged and lost. */
static struct wal_store *reopen_without_doubt(struct wal_store *store)
{
    struct listener listener = {.witness.on_suspect = on_suspect};
    struct wal_store_options options = lab_options();
    options.witness = &listener.witness;
    wal_store_close(store);
    ck_assert_ok(wal_store_open(&options, &store, &msg), &msg);
    ck_assert_uint_eq(listener.end_lsn, LSN_NONE);
    return store;
}

static void fill_up_to(struct wal_store *store, lsn_t lsn)
{
    while (wal_store_flush_lsn(store) < lsn) {
        size_t left = (size_t)(lsn - wal_store_flush_lsn(store));
        lab_append(store, MIN_OF(MIN_OF(wal_store_group_room(store), left), 100 * KIB), 1);
    }
}

/* The log ends some bytes behind the second boundary. */
static struct wal_store *given_three_segments(void)
{
    lab_make_dir();
    struct wal_store *store = lab_open();
    fill_up_to(store, SECOND_BOUNDARY + 5000);
    return store;
}

static void when_removed(lsn_t begin_lsn, uint64_t expected)
{
    uint64_t removed = 0;
    lab_begin_lsn = begin_lsn;
    struct wal_store_options options = lab_options();
    ck_assert_ok(wal_store_remove(&options, &removed, &msg), &msg);
    ck_assert_uint_eq(removed, expected);
}

static err_t read_at(lsn_t begin_lsn, lsn_t end_lsn)
{
    struct wal_store_options options = lab_options();
    struct wal_store_reader *reader = wal_store_reader_create(&options);
    struct buf wal = {0};
    err_t err = wal_store_reader_read(reader, begin_lsn, end_lsn, &wal, &msg);
    buf_deinit(&wal);
    wal_store_reader_destroy(reader);
    return err;
}

static const char *recycled_path(void)
{
    static char path[PATH_SIZE];
    (void)snprintf(path, sizeof(path), "%.900s/recycled.0", lab_dir);
    return path;
}

START_TEST(test_segments_before_the_begin_go_and_the_rest_comes_back)
{
    struct wal_store *store = given_three_segments();
    lsn_t begin_lsn = FIRST_BOUNDARY + 80000, end_lsn = wal_store_flush_lsn(store);
    when_removed(begin_lsn, 1);
    ck_assert(!file_exists(lab_path(LAB_START_LSN, "")));
    ck_assert(!file_exists(lab_path(LAB_START_LSN, ".crc")));
    lab_append(store, 700, 1); /* the writer does not mind */
    store = reopen_without_doubt(store);
    ck_assert_uint_eq(wal_store_flush_lsn(store), end_lsn + 700);
    lab_append(store, 300, 1);
    store = reopen_without_doubt(store);
    wal_store_close(store);
    lab_assert_bytes(begin_lsn, end_lsn + 1000, 1);
    lab_assert_bytes(FIRST_BOUNDARY, begin_lsn, 1); /* its segment is there as a whole */
    ck_assert_int_eq(read_at(FIRST_BOUNDARY - 8, begin_lsn), ERR_RANGE);
}
END_TEST

START_TEST(test_an_interrupted_removal_is_finished_at_the_start)
{
    struct wal_store *store = given_three_segments();
    lsn_t end_lsn = wal_store_flush_lsn(store);
    lab_begin_lsn = SECOND_BOUNDARY + 80; /* durable in the control file, and then the crash */
    store = reopen_without_doubt(store);
    ck_assert_uint_eq(wal_store_flush_lsn(store), end_lsn);
    wal_store_close(store);
    ck_assert(!file_exists(lab_path(LAB_START_LSN, "")));
    ck_assert(!file_exists(lab_path(FIRST_BOUNDARY, "")));
    lab_assert_bytes(lab_begin_lsn, end_lsn, 1);
}
END_TEST

START_TEST(test_a_log_may_be_cut_to_its_begin)
{
    struct wal_store *store = given_three_segments();
    when_removed(SECOND_BOUNDARY, 2); /* a record that ends with its segment */
    store = reopen_without_doubt(store);
    ck_assert_ok(wal_store_truncate(store, SECOND_BOUNDARY, &msg), &msg);
    store = reopen_without_doubt(store);
    ck_assert_uint_eq(wal_store_flush_lsn(store), SECOND_BOUNDARY);
    ck_assert_uint_eq(wal_store_record_lsn(store), SECOND_BOUNDARY);
    lab_append(store, 400, 2);
    store = reopen_without_doubt(store);
    wal_store_close(store);
    lab_assert_bytes(SECOND_BOUNDARY, SECOND_BOUNDARY + 400, 2);
}
END_TEST

START_TEST(test_damage_to_what_is_forgotten_is_none)
{
    struct wal_store *store = given_three_segments();
    lsn_t end_lsn = wal_store_flush_lsn(store);
    when_removed(FIRST_BOUNDARY + 300000, 1);
    wal_store_close(store);
    lab_flip(lab_path(FIRST_BOUNDARY, ""), 50000);
    ck_assert_ok(lab_try_open(end_lsn, &msg), &msg);
    lab_flip(lab_path(FIRST_BOUNDARY, ""), 500000);
    ck_assert_int_eq(lab_try_open(end_lsn, &msg), ERR_CORRUPT);
}
END_TEST

START_TEST(test_the_last_record_end_before_a_position_is_found)
{
    struct wal_store *store = given_three_segments();
    struct wal_store_options options = lab_options();
    lsn_t end_lsn = wal_store_flush_lsn(store), found_lsn = LSN_NONE;
    wal_store_close(store);
    ck_assert_ok(wal_store_record_end(&options, end_lsn, &found_lsn, &msg), &msg);
    ck_assert_uint_eq(found_lsn, end_lsn / 8 * 8);
    /* Groups have 100 KiB, and one begins at each boundary. */
    ck_assert_ok(wal_store_record_end(&options, FIRST_BOUNDARY + 150000, &found_lsn, &msg), &msg);
    ck_assert_uint_eq(found_lsn, FIRST_BOUNDARY + 100 * KIB);
    ck_assert_ok(wal_store_record_end(&options, FIRST_BOUNDARY + 9, &found_lsn, &msg), &msg);
    ck_assert_uint_eq(found_lsn, FIRST_BOUNDARY); /* of the segment before */
    ck_assert_ok(wal_store_record_end(&options, LAB_START_LSN + 9, &found_lsn, &msg), &msg);
    ck_assert_uint_eq(found_lsn, LAB_START_LSN);
}
END_TEST

/* ---- recycled segments ---- */

START_TEST(test_a_new_segment_takes_an_old_file)
{
    lab_recycled_max = 1;
    struct wal_store *store = given_three_segments();
    when_removed(FIRST_BOUNDARY + 80000, 1);
    ck_assert(file_exists(recycled_path()));
    fill_up_to(store, THIRD_BOUNDARY + 5000);
    ck_assert_uint_gt(mark_hits("wal_store.reused_segment"), 0);
    ck_assert(!file_exists(recycled_path()));
    lsn_t end_lsn = wal_store_flush_lsn(store);
    store = reopen_without_doubt(store);
    ck_assert_uint_eq(wal_store_flush_lsn(store), end_lsn);
    lab_append(store, 800, 1);
    wal_store_close(store);
    lab_assert_bytes(lab_begin_lsn, end_lsn + 800, 1);
    ck_assert_int_eq(read_at(end_lsn, end_lsn + 1600), ERR_CORRUPT); /* the old life's bytes */
}
END_TEST

/* A crash between the new name and the first group: there is no WAL in it. */
START_TEST(test_an_old_file_under_a_new_name_is_no_wal)
{
    lab_recycled_max = 1;
    struct wal_store *store = given_three_segments();
    when_removed(FIRST_BOUNDARY + 80000, 1);
    fill_up_to(store, THIRD_BOUNDARY);
    ck_assert_ok(file_rename_durably(recycled_path(), lab_path(THIRD_BOUNDARY, ""), &msg), &msg);
    store = reopen_without_doubt(store);
    ck_assert_uint_eq(wal_store_flush_lsn(store), THIRD_BOUNDARY);
    lab_append(store, 100, 3);
    store = reopen_without_doubt(store);
    wal_store_close(store);
    lab_assert_bytes(THIRD_BOUNDARY, THIRD_BOUNDARY + 100, 3);
}
END_TEST

START_TEST(test_a_torn_group_in_an_old_file_is_cut)
{
    lab_recycled_max = 1;
    struct wal_store *store = given_three_segments();
    when_removed(FIRST_BOUNDARY + 80000, 1);
    fill_up_to(store, THIRD_BOUNDARY + 1000);
    lab_append(store, 1000, 1);
    wal_store_close(store);
    lab_flip(lab_path(THIRD_BOUNDARY, ""), 1500);
    store = lab_open();
    ck_assert_uint_eq(wal_store_flush_lsn(store), THIRD_BOUNDARY + 1000);
    wal_store_close(store);
    struct buf file = {0};
    ck_assert_ok(file_read_all(lab_path(THIRD_BOUNDARY, ""), LAB_SEGMENT_SIZE, &file, &msg), &msg);
    ck_assert_uint_eq(file.data[1000], 0);
    ck_assert_uint_eq(file.data[1999], 0);
    buf_deinit(&file);
}
END_TEST

static void put_page_header(const char *path, unsigned page, lsn_t address)
{
    uint8_t header[16] = {0};
    struct writer out = {.next = header, .left = sizeof(header)};
    int fd = -1;
    put_u16(&out, WAL_PAGE_MAGIC);
    put_u16(&out, 0);
    put_u32(&out, 1);
    put_u64(&out, address);
    ck_assert_ok(file_open(&fd, path, FILE_WRITE, &msg), &msg);
    struct bytes bytes = bytes_of(header, sizeof(header));
    ck_assert_ok(file_write_at(fd, path, bytes, page * WAL_PAGE_SIZE, &msg), &msg);
    file_close(&fd);
}

/* Pages that say that they are of another place need not be zeroed, whatever their number. */
START_TEST(test_pages_of_an_old_life_stay)
{
    lab_recycled_max = 1;
    struct wal_store *store = given_three_segments();
    when_removed(FIRST_BOUNDARY + 80000, 1);
    put_page_header(recycled_path(), 10, FIRST_BOUNDARY - 10 * WAL_PAGE_SIZE);
    put_page_header(recycled_path(), 12, THIRD_BOUNDARY + 12 * WAL_PAGE_SIZE);
    fill_up_to(store, THIRD_BOUNDARY + 1000);
    store = reopen_without_doubt(store);
    wal_store_close(store);
    struct buf file = {0};
    ck_assert_ok(file_read_all(lab_path(THIRD_BOUNDARY, ""), LAB_SEGMENT_SIZE, &file, &msg), &msg);
    ck_assert_uint_ne(file.data[10 * WAL_PAGE_SIZE], 0); /* it names another place */
    ck_assert_uint_eq(file.data[11 * WAL_PAGE_SIZE], 0); /* this one names none */
    ck_assert_uint_eq(file.data[12 * WAL_PAGE_SIZE], 0); /* this one could be taken for WAL */
    ck_assert_uint_eq(file.data[1000], 0); /* the rest of a page that has been begun */
    buf_deinit(&file);
}
END_TEST

START_TEST(test_a_resting_timeline_keeps_no_old_file)
{
    lab_recycled_max = 1;
    struct wal_store *store = given_three_segments();
    when_removed(FIRST_BOUNDARY + 80000, 1);
    ck_assert_ok(wal_store_rest(store, lab_begin_lsn, &msg), &msg);
    wal_store_close(store);
    ck_assert(!file_exists(recycled_path()));
}
END_TEST

/* ---- a log that begins anew ---- */

START_TEST(test_a_log_that_begins_anew_is_empty_there)
{
    struct wal_store *store = given_three_segments();
    lsn_t begin_lsn = SECOND_BOUNDARY + 3 * (lsn_t)LAB_SEGMENT_SIZE + 20488;
    ck_assert_ok(wal_store_empty(store, begin_lsn, &msg), &msg);
    ck_assert_uint_eq(wal_store_flush_lsn(store), begin_lsn);
    ck_assert_uint_eq(wal_store_record_lsn(store), begin_lsn);
    lab_begin_lsn = begin_lsn;
    store = reopen_without_doubt(store);
    ck_assert_uint_eq(wal_store_flush_lsn(store), begin_lsn);
    lab_append(store, 3000, 4);
    lab_append(store, 3000, 4);
    store = reopen_without_doubt(store);
    ck_assert_uint_eq(wal_store_flush_lsn(store), begin_lsn + 6000);
    wal_store_close(store);
    lab_assert_bytes(begin_lsn, begin_lsn + 6000, 4);
    ck_assert(!file_exists(lab_path(SECOND_BOUNDARY, "")));
}
END_TEST

/* The control file said that it begins anew, then the power went: nothing that is there counts. */
START_TEST(test_what_was_there_before_a_new_begin_never_counts)
{
    struct wal_store *store = given_three_segments();
    lab_begin_lsn = FIRST_BOUNDARY + 80000; /* the old log goes on behind it, with other bytes */
    struct wal_store_options options = lab_options();
    options.is_emptied = true;
    options.certified_lsn = lab_begin_lsn;
    wal_store_close(store);
    ck_assert_ok(wal_store_open(&options, &store, &msg), &msg);
    ck_assert_uint_eq(wal_store_flush_lsn(store), lab_begin_lsn);
    lab_append(store, 100, 5);
    store = reopen_without_doubt(store);
    ck_assert_uint_eq(wal_store_flush_lsn(store), lab_begin_lsn + 100);
    wal_store_close(store);
}
END_TEST

START_TEST(test_the_first_group_of_a_new_begin_can_be_put_back)
{
    struct wal_store *store = given_three_segments();
    lab_begin_lsn = SECOND_BOUNDARY + 20488;
    ck_assert_ok(wal_store_empty(store, lab_begin_lsn, &msg), &msg);
    lab_append(store, 3000, 4);
    lab_append(store, 3000, 4);
    wal_store_close(store);
    lab_flip(lab_path(SECOND_BOUNDARY, ""), 8192 + 3); /* what tools read before the begin */
    struct wal_damage_list list = {0};
    struct wal_store_options options = lab_options();
    options.damage = &list;
    ck_assert_int_eq(wal_store_open(&options, &store, &msg), ERR_CORRUPT);
    ck_assert_uint_eq(list.count, 1);
    lsn_t from_lsn = wal_repair_begin_lsn(&options, &list.items[0]);
    size_t size = (size_t)(list.items[0].end_lsn - from_lsn);
    uint8_t *wal = mem_alloc(size); /* another member has WAL where we have what tools read */
    lab_fill(wal, from_lsn, size, 4);
    ck_assert_ok(wal_repair_put(&options, &list.items[0], bytes_of(wal, size), &msg), &msg);
    mem_free(wal);
    ck_assert_ok(lab_try_open(LSN_NONE, &msg), &msg);
}
END_TEST

UNIT_MAIN(
    "wal_begin",
    test_segments_before_the_begin_go_and_the_rest_comes_back,
    test_an_interrupted_removal_is_finished_at_the_start,
    test_a_log_may_be_cut_to_its_begin,
    test_damage_to_what_is_forgotten_is_none,
    test_the_last_record_end_before_a_position_is_found,
    test_a_new_segment_takes_an_old_file,
    test_an_old_file_under_a_new_name_is_no_wal,
    test_a_torn_group_in_an_old_file_is_cut,
    test_pages_of_an_old_life_stay,
    test_a_resting_timeline_keeps_no_old_file,
    test_a_log_that_begins_anew_is_empty_there,
    test_what_was_there_before_a_new_begin_never_counts,
    test_the_first_group_of_a_new_begin_can_be_put_back);
