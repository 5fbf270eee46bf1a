/* The WAL reader: whole records out of bytes that come in any pieces, and nothing from bad ones. */
#include "common/base/assert.h"
#include "common/base/checksum.h"
#include "common/base/mark.h"
#include "common/base/mem.h"
#include "common/pg/wal_reader.h"
#include "tests/lib/wal_builder.h"
#include "tests/unit/unit.h"

#define SEGMENT  ((uint32_t)(64 * KIB)) /* small, so that a test crosses many */
#define ENDS_MAX 4096

static struct wal_builder builder;
static struct errmsg msg;

/* What one pass over the WAL found. */
struct pass {
    size_t count;
    lsn_t begins[ENDS_MAX], ends[ENDS_MAX];
    uint64_t digest; /* over the bytes of all records */
    err_t err;
    lsn_t record_lsn;
};

static struct wal_reader_options options_at(lsn_t start_lsn)
{
    return (struct wal_reader_options){
        .start_lsn = start_lsn,
        .segment_size = SEGMENT,
        .system_id = WAL_BUILDER_SYSTEM_ID,
        .record_size_max = 1 * MIB,
    };
}

static void given_wal_at(lsn_t lsn)
{
    wal_builder_init(&builder, lsn, SEGMENT);
}

static void setup(void)
{
    mark_reset_all();
}

static void teardown(void)
{
    wal_builder_deinit(&builder);
}

static err_t take_all(struct wal_reader *reader, struct pass *pass)
{
    const struct wal_record *record;
    err_t err;
    while ((err = wal_reader_next(reader, &record, &msg)) == ERR_OK) {
        ck_assert_uint_lt(pass->count, ENDS_MAX);
        pass->begins[pass->count] = record->lsn;
        pass->ends[pass->count++] = record->end_lsn;
        pass->digest = hash64(record->bytes.data, record->bytes.size, pass->digest);
        ck_assert_uint_eq(wal_reader_record_lsn(reader), record->end_lsn);
    }
    return err;
}

/* Feed `wal` in pieces of `piece` bytes; each piece lies in memory of its own (for ASan). */
static void read_in_pieces(lsn_t start_lsn, struct bytes wal, size_t piece, struct pass *pass)
{
    struct wal_reader_options options = options_at(start_lsn);
    struct wal_reader *reader = wal_reader_create(&options);
    *pass = (struct pass){.err = ERR_NOT_FOUND};
    for (size_t at = 0; at < wal.size && pass->err == ERR_NOT_FOUND; at += piece) {
        size_t size = MIN_OF(piece, wal.size - at);
        uint8_t *copy = mem_dup(wal.data + at, size);
        ck_assert_uint_eq(wal_reader_next_lsn(reader), start_lsn + at);
        pass->err = wal_reader_feed(reader, bytes_of(copy, size), &msg);
        if (pass->err == ERR_OK) {
            pass->err = take_all(reader, pass);
        }
        mem_free(copy);
    }
    pass->record_lsn = wal_reader_record_lsn(reader);
    wal_reader_destroy(reader);
}

static void read_whole(struct pass *pass)
{
    read_in_pieces(builder.begin_lsn, buf_view(&builder.wal), builder.wal.size, pass);
}

static lsn_t end_found_in_pieces(size_t piece)
{
    struct wal_reader_options options = options_at(builder.begin_lsn);
    options.ends_only = true;
    struct wal_reader *reader = wal_reader_create(&options);
    for (size_t at = 0; at < builder.wal.size; at += piece) {
        size_t size = MIN_OF(piece, builder.wal.size - at);
        ck_assert_int_eq(
            wal_reader_feed(reader, bytes_of(builder.wal.data + at, size), &msg), ERR_OK);
    }
    lsn_t lsn = wal_reader_record_lsn(reader);
    wal_reader_destroy(reader);
    return lsn;
}

/* Every split in two, and small pieces, find the same records as one piece. */
static void assert_pieces_do_not_matter(void)
{
    static struct pass whole, split;
    read_whole(&whole);
    ck_assert_int_eq(whole.err, ERR_NOT_FOUND);
    ck_assert_uint_eq(whole.record_lsn, builder.lsn);
    for (size_t piece = 1; piece < 64; piece += 1 + piece / 8) {
        read_in_pieces(builder.begin_lsn, buf_view(&builder.wal), piece, &split);
        ck_assert_int_eq(split.err, ERR_NOT_FOUND);
        ck_assert_uint_eq(split.count, whole.count);
        ck_assert_uint_eq(split.digest, whole.digest);
        ck_assert_mem_eq(split.ends, whole.ends, whole.count * sizeof(lsn_t));
        ck_assert_mem_eq(split.begins, whole.begins, whole.count * sizeof(lsn_t));
        ck_assert_uint_eq(end_found_in_pieces(piece), whole.record_lsn);
    }
    for (size_t first = 1; first < builder.wal.size; first++) {
        read_in_pieces(builder.begin_lsn, buf_view(&builder.wal), first, &split);
        ck_assert_uint_eq(split.count, whole.count);
        ck_assert_uint_eq(split.digest, whole.digest);
    }
}

START_TEST(test_split_at_every_byte_finds_the_same_records)
{
    given_wal_at(SEGMENT * 3);
    for (uint32_t size = 24; size < 2000; size += 1 + size / 3) {
        uint32_t possible = size == 25 ? 26 : size >= 282 && size < 285 ? 285 : size;
        wal_builder_add_sized(&builder, possible);
    }
    wal_builder_add_sized(&builder, 9000); /* crosses a page */
    wal_builder_add_sized(&builder, 40);
    assert_pieces_do_not_matter();
}
END_TEST

START_TEST(test_record_larger_than_a_segment_is_whole)
{
    given_wal_at(SEGMENT * 3 + 0x2000 - 64);
    wal_builder_add_sized(&builder, 3 * SEGMENT);
    wal_builder_add_sized(&builder, 30);
    static struct pass pass;
    read_whole(&pass);
    ck_assert_uint_eq(pass.count, 2);
    ck_assert_uint_eq(end_found_in_pieces(1000), builder.lsn);
    uint64_t digest = pass.digest;
    for (size_t piece = 1; piece < 100; piece += 13) {
        read_in_pieces(builder.begin_lsn, buf_view(&builder.wal), piece, &pass);
        ck_assert_uint_eq(pass.digest, digest);
    }
}
END_TEST

START_TEST(test_header_may_cross_a_page)
{
    /* 8 and 16 bytes before a page and before a segment. */
    for (lsn_t boundary = SEGMENT + WAL_PAGE_SIZE; boundary <= 2 * SEGMENT;
         boundary += SEGMENT - WAL_PAGE_SIZE) {
        for (uint32_t room = 8; room <= 16; room += 8) {
            given_wal_at(boundary - room);
            wal_builder_add_sized(&builder, 100);
            wal_builder_add_sized(&builder, 24);
            assert_pieces_do_not_matter();
            wal_builder_deinit(&builder);
        }
    }
}
END_TEST

START_TEST(test_end_at_a_page_boundary_stands_before_the_header)
{
    given_wal_at(SEGMENT + 0x1000);
    wal_builder_fill_to(&builder, SEGMENT + WAL_PAGE_SIZE);
    ck_assert_uint_eq(builder.lsn, SEGMENT + WAL_PAGE_SIZE);
    ck_assert_uint_eq(end_found_in_pieces(7), SEGMENT + WAL_PAGE_SIZE);

    lsn_t end = wal_builder_add_sized(&builder, 64);
    ck_assert_uint_eq(end, SEGMENT + WAL_PAGE_SIZE + WAL_PAGE_HEADER_SHORT + 64);
    assert_pieces_do_not_matter();
}
END_TEST

START_TEST(test_end_at_a_segment_boundary_stands_before_the_header)
{
    given_wal_at(2 * SEGMENT - 0x1000);
    wal_builder_fill_to(&builder, 2 * SEGMENT);
    ck_assert_uint_eq(end_found_in_pieces(7), 2 * SEGMENT);
    lsn_t end = wal_builder_add_sized(&builder, 64);
    ck_assert_uint_eq(end, 2 * SEGMENT + WAL_PAGE_HEADER_LONG + 64);
    assert_pieces_do_not_matter();
}
END_TEST

START_TEST(test_record_counts_only_with_its_padding)
{
    given_wal_at(SEGMENT + 0x1000);
    wal_builder_add_sized(&builder, 30); /* 2 bytes of padding */
    static struct pass pass;
    for (size_t size = 30; size < 32; size++) {
        read_in_pieces(builder.begin_lsn, bytes_of(builder.wal.data, size), 99, &pass);
        ck_assert_uint_eq(pass.count, 0);
        ck_assert_uint_eq(pass.record_lsn, builder.begin_lsn);
    }
    read_whole(&pass);
    ck_assert_uint_eq(pass.count, 1);
}
END_TEST

START_TEST(test_start_at_a_page_or_segment_boundary)
{
    given_wal_at(4 * SEGMENT);
    wal_builder_add_sized(&builder, 50);
    assert_pieces_do_not_matter();
    wal_builder_deinit(&builder);

    given_wal_at(4 * SEGMENT + 3 * WAL_PAGE_SIZE);
    wal_builder_add_sized(&builder, 50);
    assert_pieces_do_not_matter();
}
END_TEST

START_TEST(test_start_right_behind_a_header_needs_none)
{
    given_wal_at(4 * SEGMENT + WAL_PAGE_HEADER_LONG);
    wal_builder_add_sized(&builder, 50);
    static struct pass pass;
    read_whole(&pass);
    ck_assert_uint_eq(pass.count, 1);
    ck_assert_uint_eq(pass.begins[0], 4 * SEGMENT + WAL_PAGE_HEADER_LONG);
}
END_TEST

START_TEST(test_switch_ends_its_segment)
{
    given_wal_at(SEGMENT + 0x2100);
    wal_builder_add_sized(&builder, 100);
    lsn_t end = wal_builder_add_switch(&builder);
    ck_assert_uint_eq(end, 2 * SEGMENT);
    wal_builder_add_sized(&builder, 100);
    static struct pass pass;
    read_whole(&pass);
    ck_assert_uint_eq(pass.count, 3);
    ck_assert_uint_eq(pass.ends[1], 2 * SEGMENT);
    ck_assert_uint_eq(pass.begins[2], 2 * SEGMENT + WAL_PAGE_HEADER_LONG);
    uint64_t digest = pass.digest;
    for (size_t piece = 1; piece < 70000; piece = piece * 3 + 1) {
        read_in_pieces(builder.begin_lsn, buf_view(&builder.wal), piece, &pass);
        ck_assert_uint_eq(pass.count, 3);
        ck_assert_uint_eq(pass.digest, digest);
        ck_assert_uint_eq(end_found_in_pieces(piece), builder.lsn);
    }
}
END_TEST

START_TEST(test_switch_that_fills_its_segment_skips_nothing)
{
    given_wal_at(2 * SEGMENT - 24);
    ck_assert_uint_eq(wal_builder_add_switch(&builder), 2 * SEGMENT);
    wal_builder_add_sized(&builder, 100);
    assert_pieces_do_not_matter();
}
END_TEST

START_TEST(test_rest_of_the_switched_segment_is_not_looked_at)
{
    given_wal_at(SEGMENT + 0x2100);
    wal_builder_add_switch(&builder);
    memset(builder.wal.data + 24, 0xFF, builder.wal.size - 24);
    static struct pass pass;
    read_whole(&pass);
    ck_assert_uint_eq(pass.count, 1);
    ck_assert_uint_eq(pass.record_lsn, 2 * SEGMENT);
}
END_TEST

START_TEST(test_aborted_record_is_skipped)
{
    given_wal_at(SEGMENT + 0x1000);
    wal_builder_add_sized(&builder, 100);
    wal_builder_add_aborted(&builder, 20000);
    wal_builder_add_sized(&builder, 60);
    wal_builder_add_sized(&builder, 70);
    static struct pass pass;
    read_whole(&pass);
    ck_assert_int_eq(pass.err, ERR_NOT_FOUND);
    ck_assert_uint_eq(pass.count, 3);
    ck_assert_uint_eq(pass.begins[1], SEGMENT + WAL_PAGE_SIZE + WAL_PAGE_HEADER_SHORT);
    ck_assert_uint_gt(mark_hits("wal_reader.overwritten_contrecord"), 0);
    assert_pieces_do_not_matter();
}
END_TEST

START_TEST(test_aborted_record_with_its_header_cut_is_skipped)
{
    given_wal_at(SEGMENT + WAL_PAGE_SIZE - 16);
    wal_builder_add_aborted(&builder, 300);
    wal_builder_add_sized(&builder, 60);
    assert_pieces_do_not_matter();
    ck_assert_uint_gt(mark_hits("wal_reader.overwritten_contrecord"), 0);
}
END_TEST

/* Three records on two pages; the third crosses. */
static void given_three_records(void)
{
    given_wal_at(SEGMENT + WAL_PAGE_SIZE - 512);
    wal_builder_add_sized(&builder, 104);
    wal_builder_add_sized(&builder, 104);
    wal_builder_add_sized(&builder, 1000);
}

START_TEST(test_any_flipped_bit_is_noticed)
{
    given_three_records();
    static struct pass whole, pass;
    read_whole(&whole);
    ck_assert_uint_eq(whole.count, 3);
    for (size_t bit = 0; bit < builder.wal.size * 8; bit++) {
        size_t in_page = (size_t)((builder.begin_lsn + bit / 8) % WAL_PAGE_SIZE);
        bool ignored = in_page >= 4 && in_page < 8; /* timeline: only may not go back */
        ignored |= in_page >= 20 && in_page < 24;   /* padding of the page header */
        ignored |= (bit / 8) % 104 >= 18 && (bit / 8) % 104 < 20 && bit / 8 < 208; /* of a record */
        ignored |= in_page == 2 && (bit % 8 == 2 || bit % 8 == 3); /* flags without meaning here */
        if (ignored) {
            continue;
        }
        builder.wal.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        read_whole(&pass);
        bool noticed = pass.count < 3 && (pass.err == ERR_CORRUPT || pass.err == ERR_FULL);
        /* A length that became too long waits for more: nothing false comes out either. */
        ck_assert_msg(
            noticed || (pass.err == ERR_NOT_FOUND && pass.count < 3), "bit %zu of byte %zu",
            bit % 8, bit / 8);
        builder.wal.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}
END_TEST

static err_t read_with_byte(size_t at, uint8_t value)
{
    static struct pass pass;
    uint8_t before = builder.wal.data[at];
    builder.wal.data[at] = value;
    read_whole(&pass);
    builder.wal.data[at] = before;
    return pass.err;
}

START_TEST(test_bad_record_headers_are_named)
{
    given_wal_at(SEGMENT + 0x1000);
    wal_builder_add_sized(&builder, 104);
    wal_builder_add_sized(&builder, 104);
    ck_assert_int_eq(read_with_byte(0, 0), ERR_CORRUPT);
    ck_assert_uint_gt(mark_hits("wal_reader.zeros"), 0);
    ck_assert_int_eq(read_with_byte(0, 23), ERR_CORRUPT);
    ck_assert_int_eq(read_with_byte(3, 0x7F), ERR_CORRUPT);
    ck_assert_uint_eq(mark_hits("wal_reader.bad_length"), 2);
    ck_assert_int_eq(read_with_byte(3, 0x10), ERR_FULL);
    ck_assert_uint_gt(mark_hits("wal_reader.record_too_large"), 0);
    ck_assert_int_eq(read_with_byte(17, RM_COUNT), ERR_CORRUPT);
    ck_assert_uint_gt(mark_hits("wal_reader.bad_rmgr"), 0);
    ck_assert_int_eq(read_with_byte(104 + 8, 1), ERR_CORRUPT);
    ck_assert_int_eq(read_with_byte(8 + 7, 1), ERR_CORRUPT);
    ck_assert_uint_eq(mark_hits("wal_reader.bad_prev_link"), 2);
    ck_assert_int_eq(read_with_byte(60, 0), ERR_CORRUPT);
    ck_assert_uint_gt(mark_hits("wal_record.bad_crc"), 0);
}
END_TEST

START_TEST(test_bad_page_headers_are_named)
{
    given_wal_at(2 * SEGMENT);
    wal_builder_add_sized(&builder, 10000);
    struct {
        size_t at;
        const char *mark;
    } cases[] = {
        {0, "wal_page.bad_magic"},
        {3, "wal_page.bad_flags"},
        {2, "wal_page.bad_flags"},
        {10, "wal_page.other_address"},
        {24, "wal_page.other_system"},
        {34, "wal_page.other_segment_size"},
        {37, "wal_page.other_page_size"},
        {WAL_PAGE_SIZE + 2, "wal_reader.contrecord_mismatch"},
        {WAL_PAGE_SIZE + 16, "wal_reader.bad_rest_size"},
        {WAL_PAGE_SIZE + 4, "wal_reader.timeline_back"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint8_t value = cases[i].at == 3 ? 0x80 : 0;
        ck_assert_int_eq(read_with_byte(cases[i].at, value), ERR_CORRUPT);
        ck_assert_msg(mark_hits(cases[i].mark) > 0, "%s", cases[i].mark);
    }
}
END_TEST

START_TEST(test_page_that_continues_nothing_is_refused)
{
    given_wal_at(2 * SEGMENT);
    wal_builder_add_sized(&builder, 100);
    ck_assert_int_eq(
        read_with_byte(2, WAL_PAGE_LONG_HEADER | WAL_PAGE_FIRST_IS_CONTRECORD), ERR_CORRUPT);
    ck_assert_uint_gt(mark_hits("wal_reader.contrecord_mismatch"), 0);
}
END_TEST

START_TEST(test_failure_is_sticky)
{
    given_wal_at(SEGMENT + 0x1000);
    wal_builder_add_sized(&builder, 104);
    struct wal_reader_options options = options_at(builder.begin_lsn);
    struct wal_reader *reader = wal_reader_create(&options);
    uint8_t zeros[64] = {0};
    const struct wal_record *record;
    ck_assert_int_eq(wal_reader_feed(reader, bytes_of(zeros, sizeof(zeros)), &msg), ERR_OK);
    ck_assert_int_eq(wal_reader_next(reader, &record, &msg), ERR_CORRUPT);
    ck_assert(wal_reader_at_zeros(reader));
    ck_assert_int_eq(wal_reader_feed(reader, buf_view(&builder.wal), &msg), ERR_CORRUPT);
    ck_assert_int_eq(wal_reader_next(reader, &record, &msg), ERR_CORRUPT);
    ck_assert_uint_gt(mark_hits("wal_reader.sticky"), 0);
    wal_reader_destroy(reader);
}
END_TEST

START_TEST(test_garbage_ends_with_an_error)
{
    given_wal_at(SEGMENT);
    srand(7);
    for (int round = 0; round < 2000; round++) {
        uint8_t garbage[256];
        for (size_t i = 0; i < sizeof(garbage); i++) {
            garbage[i] = (uint8_t)rand();
        }
        static struct pass pass;
        read_in_pieces(SEGMENT + 0x1000, bytes_of(garbage, sizeof(garbage)), 50, &pass);
        ck_assert_uint_eq(pass.count, 0);
        ck_assert(pass.err == ERR_CORRUPT || pass.err == ERR_FULL);
    }
}
END_TEST

START_TEST(test_lsn_arithmetic_knows_the_headers)
{
    lsn_t segment = 5 * (lsn_t)SEGMENT, page = segment + WAL_PAGE_SIZE;
    ck_assert_uint_eq(lsn_skip_header(segment, SEGMENT), segment + 40);
    ck_assert_uint_eq(lsn_skip_header(page, SEGMENT), page + 24);
    ck_assert_uint_eq(lsn_skip_header(page + 8, SEGMENT), page + 8);
    ck_assert_uint_eq(lsn_canonical(page + 23, SEGMENT), page);
    ck_assert_uint_eq(lsn_canonical(page + 24, SEGMENT), page);
    ck_assert_uint_eq(lsn_canonical(page + 32, SEGMENT), page + 32);
    ck_assert_uint_eq(lsn_canonical(page + 39, SEGMENT), page + 32);
    ck_assert_uint_eq(lsn_canonical(segment + 40, SEGMENT), segment);
    ck_assert_uint_eq(lsn_canonical(segment + 48, SEGMENT), segment + 48);
    ck_assert_uint_eq(lsn_canonical(segment, SEGMENT), segment);
    ck_assert_str_eq(
        wal_segment_name(0x1016B3748, (uint32_t)(16 * MIB)).text, "000000010000000100000001");
}
END_TEST

static const struct unit_options options = {.setup = setup, .teardown = teardown, .timeout_s = 60};

UNIT_MAIN_WITH(
    options,
    "wal_reader",
    test_split_at_every_byte_finds_the_same_records,
    test_record_larger_than_a_segment_is_whole,
    test_header_may_cross_a_page,
    test_end_at_a_page_boundary_stands_before_the_header,
    test_end_at_a_segment_boundary_stands_before_the_header,
    test_record_counts_only_with_its_padding,
    test_start_at_a_page_or_segment_boundary,
    test_start_right_behind_a_header_needs_none,
    test_switch_ends_its_segment,
    test_switch_that_fills_its_segment_skips_nothing,
    test_rest_of_the_switched_segment_is_not_looked_at,
    test_aborted_record_is_skipped,
    test_aborted_record_with_its_header_cut_is_skipped,
    test_any_flipped_bit_is_noticed,
    test_bad_record_headers_are_named,
    test_bad_page_headers_are_named,
    test_page_that_continues_nothing_is_refused,
    test_failure_is_sticky,
    test_garbage_ends_with_an_error,
    test_lsn_arithmetic_knows_the_headers);
