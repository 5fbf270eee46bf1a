/* pg_control and the start at any LSN: what is written can be read, as Postgres lays it out. */
#include "common/base/mark.h"
#include "common/pg/page.h"
#include "common/pg/pg_control.h"
#include "common/pg/pg_version.h"
#include "common/pg/wal_page.h"
#include "common/pg/wal_reader.h"
#include "tests/unit/unit.h"

#define SEGMENT ((uint32_t)(16 * MIB))

static struct pg_control control;
static struct errmsg msg;
static struct buf wal;
static uint8_t file[PG_CONTROL_FILE_SIZE];

static void setup(void)
{
    mark_reset_all();
    control = (struct pg_control){
        .system_id = 7000000000000000001,
        .control_version = PG_CONTROL_VERSION,
        .catalog_version = PG_CATALOG_VERSION,
        .state = PG_CONTROL_IN_PRODUCTION,
        .checkpoint = {.next_xid = ((uint64_t)1 << 32) + 750, .next_oid = 24576, .time = 5},
        .min_recovery_lsn = 77,
        .max_align = 8,
        .float_format = 1234567.0,
        .page_size = PAGE_SIZE,
        .wal_page_size = WAL_PAGE_SIZE,
        .wal_segment_size = SEGMENT,
        .float8_by_value = 1,
    };
}

static void teardown(void)
{
    buf_deinit(&wal);
}

START_TEST(test_control_file_round_trips)
{
    struct pg_control read;
    pg_control_write(&control, file);
    ck_assert_int_eq(pg_control_parse(bytes_of(file, sizeof(file)), &read, &msg), ERR_OK);
    control.crc = read.crc;
    ck_assert_mem_eq(&read, &control, sizeof(control));
}
END_TEST

START_TEST(test_changed_control_file_is_refused)
{
    struct pg_control read;
    pg_control_write(&control, file);
    for (size_t at = 12; at < 292; at++) {
        file[at] ^= 1;
        ck_assert_int_eq(pg_control_parse(bytes_of(file, sizeof(file)), &read, &msg), ERR_CORRUPT);
        file[at] ^= 1;
    }
    ck_assert_uint_gt(mark_hits("pg_control.bad_crc"), 0);
    ck_assert_int_eq(pg_control_parse(bytes_of(file, 295), &read, &msg), ERR_CORRUPT);
    ck_assert_uint_eq(mark_hits("pg_control.short"), 1);
}
END_TEST

START_TEST(test_foreign_control_file_is_refused)
{
    struct pg_control read, foreign;
    for (int which = 0; which < 5; which++) {
        foreign = control;
        switch (which) {
        case 0: foreign.control_version = 1300; break;
        case 1: foreign.page_size = 4096; break;
        case 2: foreign.catalog_version = 1; break;
        case 3: foreign.float_format = 1.0; break;
        default: foreign.wal_segment_size = 12345; break;
        }
        pg_control_write(&foreign, file);
        ck_assert_int_eq(
            pg_control_parse(bytes_of(file, sizeof(file)), &read, &msg), ERR_UNSUPPORTED);
    }
    ck_assert_uint_eq(mark_hits("pg_control.incompatible"), 4);
    ck_assert_uint_eq(mark_hits("pg_control.bad_segment_size"), 1);
}
END_TEST

START_TEST(test_checkpoint_of_another_size_is_refused)
{
    struct pg_checkpoint checkpoint;
    ck_assert_int_eq(pg_checkpoint_parse(bytes_of(file, 88), &checkpoint, &msg), ERR_OK);
    ck_assert_int_eq(pg_checkpoint_parse(bytes_of(file, 80), &checkpoint, &msg), ERR_CORRUPT);
    ck_assert_uint_eq(mark_hits("pg_control.checkpoint_size"), 1);
}
END_TEST

/* The WAL made for a start at `lsn` holds one record, found from there as a reader would. */
static void assert_starts_at(lsn_t lsn)
{
    lsn_t wal_lsn;
    buf_clear(&wal);
    ck_assert_int_eq(pg_control_start_at(&control, lsn, lsn - 64, &wal, &wal_lsn, &msg), ERR_OK);
    lsn_t begin = lsn_skip_header(lsn, SEGMENT);
    ck_assert_uint_eq(wal_lsn, begin - begin % SEGMENT);
    ck_assert_uint_eq(control.state, PG_CONTROL_SHUT_DOWN);
    ck_assert_uint_eq(control.checkpoint_lsn, begin);
    ck_assert_uint_eq(control.checkpoint.redo, begin);
    ck_assert_uint_eq(control.min_recovery_lsn, 0);

    struct wal_reader_options options = {
        .start_lsn = lsn,
        .segment_size = SEGMENT,
        .system_id = control.system_id,
        .record_size_max = MIB,
    };
    struct wal_reader *reader = wal_reader_create(&options);
    const struct wal_record *record;
    size_t skip = (size_t)(lsn - wal_lsn);
    struct bytes from_lsn = bytes_of(wal.data + skip, wal.size - skip);
    ck_assert_int_eq(wal_reader_feed(reader, from_lsn, &msg), ERR_OK);
    ck_assert_int_eq(wal_reader_next(reader, &record, &msg), ERR_OK);
    ck_assert_uint_eq(record->lsn, begin);
    ck_assert_uint_eq(record->prev_lsn, lsn - 64);
    ck_assert_uint_eq(record->end_lsn, wal_lsn + wal.size);
    ck_assert(bytes_equal(record->main_data, bytes_of(&control.checkpoint, PG_CHECKPOINT_SIZE)));
    ck_assert_int_eq(wal_reader_next(reader, &record, &msg), ERR_NOT_FOUND);
    wal_reader_destroy(reader);

    struct wal_page_header header;
    ck_assert_int_eq(
        wal_page_header_parse(wal.data, wal_lsn, SEGMENT, control.system_id, &header, &msg),
        ERR_OK);
    lsn_t page = begin - begin % WAL_PAGE_SIZE;
    ck_assert_int_eq(
        wal_page_header_parse(
            wal.data + (page - wal_lsn), page, SEGMENT, control.system_id, &header, &msg),
        ERR_OK);
    ck_assert_uint_eq(header.rest_size, begin - page - wal_page_header_size(page, SEGMENT));
}

START_TEST(test_start_anywhere)
{
    lsn_t segment = 3 * (lsn_t)SEGMENT;
    assert_starts_at(segment + 0x12348);                 /* in the middle of a page */
    assert_starts_at(segment + 0x4000);                  /* page boundary */
    assert_starts_at(segment);                           /* segment boundary */
    assert_starts_at(segment + 0x100);                   /* on a segment's first page */
    assert_starts_at(segment + 0x4000 - 64);             /* crossing a page */
    assert_starts_at(segment + 0x4000 - 8);              /* its header crossing a page */
    assert_starts_at(segment + SEGMENT - 64);            /* crossing a segment */
    assert_starts_at(segment + SEGMENT - 16);            /* its header crossing a segment */
    assert_starts_at(((lsn_t)1 << 32) + segment + 0x30); /* far away */
}
END_TEST

START_TEST(test_start_off_a_record_end_is_refused)
{
    lsn_t wal_lsn, bad[] = {3 * SEGMENT + 0x1001, 3 * SEGMENT + 24, 3 * SEGMENT + 0x2018, 0x1000};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        ck_assert_int_eq(
            pg_control_start_at(&control, bad[i], 1, &wal, &wal_lsn, &msg), ERR_INVALID);
    }
    lsn_t good = 3 * SEGMENT + 0x1000;
    ck_assert_int_eq(pg_control_start_at(&control, good, good, &wal, &wal_lsn, &msg), ERR_INVALID);
    ck_assert_uint_eq(mark_hits("pg_control.bad_start"), 5);
    ck_assert_uint_eq(wal.size, 0);
}
END_TEST

static const struct unit_options options = {.setup = setup, .teardown = teardown};

UNIT_MAIN_WITH(
    options,
    "pg_control",
    test_control_file_round_trips,
    test_changed_control_file_is_refused,
    test_foreign_control_file_is_refused,
    test_checkpoint_of_another_size_is_refused,
    test_start_anywhere,
    test_start_off_a_record_end_is_refused);
