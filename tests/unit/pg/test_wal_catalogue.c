/*
 * The bad-input catalogue of WAL as a table: records, images, page headers and streams that cannot
 * be. Each row is refused with a typed error that says what is wrong, or accepted because Postgres
 * does the same; the records before it come out whole, and reading in single bytes says the same.
 *
 * What a record may do to a page: tests/unit/redo/redo_catalogue.h.
 */
#include <lz4.h>
#include <zstd.h>

#include "common/base/mem.h"
#include "common/pg/page.h"
#include "common/pg/wal_reader.h"
#include "tests/lib/wal_builder.h"
#include "tests/unit/unit.h"

#define SEGMENT ((uint32_t)(64 * KIB))

static struct wal_builder builder;
static const struct page_key key = {.spc = 1663, .db = 5, .rel = 16384, .block = 7};

/* -- one record: as bytes, to be changed before it gets its place -- */

static void given_wal_at(lsn_t lsn)
{
    wal_builder_init(&builder, lsn, SEGMENT);
    wal_builder_add_sized(&builder, 104); /* what stands before it is read in any case */
}

static void record_of(struct wal_builder_block block)
{
    struct wal_builder_record record = {
        .rmgr = RM_HEAP, .main_data = bytes_of_str("main"), .block_count = 1, .blocks = {block}};
    given_wal_at(SEGMENT + 0x1000);
    wal_builder_add(&builder, &record);
}

/* Change a field of the last record; its checksum is right again. It lies on one page. */
static void set_field(size_t at, size_t size, uint64_t value)
{
    size_t record_size = builder.record.size;
    size_t padding = (8 - record_size % 8) % 8;
    uint8_t *record = builder.wal.data + builder.wal.size - padding - record_size;
    memcpy(record + at, &value, size);
    page_set_u32(record, 20, wal_record_crc(bytes_of(record, record_size)));
}

enum { TOTAL = 0, PREV = 8, RMGR = 17, BLOCK_ID = 24, BLOCK_FLAGS = 25, DATA_LENGTH = 26 };

static void block_reference_33(void)
{
    record_of((struct wal_builder_block){.key = key, .id = 33});
}
static void block_reference_200(void)
{
    record_of((struct wal_builder_block){.key = key, .id = 200});
}
static void same_relation_first(void)
{
    record_of((struct wal_builder_block){.key = key, .same_rel = true});
}
static void fork_4(void)
{
    record_of((struct wal_builder_block){.key = key});
    set_field(BLOCK_FLAGS, 1, 4);
}
static void fork_15(void)
{
    record_of((struct wal_builder_block){.key = key});
    set_field(BLOCK_FLAGS, 1, 15);
}
static void block_number_invalid(void)
{
    struct page_key bad = key;
    bad.block = UINT32_MAX;
    record_of((struct wal_builder_block){.key = bad});
}
static void relation_0(void)
{
    struct page_key bad = key;
    bad.rel = 0;
    record_of((struct wal_builder_block){.key = bad});
}
static void tablespace_0(void)
{
    struct page_key bad = key;
    bad.spc = 0;
    record_of((struct wal_builder_block){.key = bad});
}
static void references_out_of_order(void)
{
    given_wal_at(SEGMENT + 0x1000);
    wal_builder_add(
        &builder,
        &(struct wal_builder_record){
            .rmgr = RM_HEAP, .block_count = 2, .blocks = {{.key = key, .id = 3}, {.key = key}}});
    set_field(WAL_RECORD_HEADER_SIZE + 20, 1, 3);
}
static void data_length_too_long(void)
{
    record_of((struct wal_builder_block){.key = key, .data = bytes_of_str("tuple")});
    set_field(DATA_LENGTH, 2, 0xFFFF);
}
static void data_length_one_short(void)
{
    record_of((struct wal_builder_block){.key = key, .data = bytes_of_str("tuple")});
    set_field(DATA_LENGTH, 2, 4);
}
static void data_flag_without_data(void)
{
    record_of((struct wal_builder_block){.key = key});
    set_field(BLOCK_FLAGS, 1, 0x20);
}
static void main_length_too_long(void)
{
    record_of((struct wal_builder_block){.key = key});
    set_field(BLOCK_ID + 20 + 1, 1, 200);
}
static void header_id_unknown(void)
{
    record_of((struct wal_builder_block){.key = key});
    set_field(BLOCK_ID + 20, 1, 251);
}

static uint8_t image_bytes[PAGE_SIZE + 1000];
static void image_of(size_t size, unsigned flags, unsigned hole_offset, unsigned hole_size)
{
    record_of((struct wal_builder_block){
        .key = key,
        .image = bytes_of(image_bytes, size),
        .image_flags = (uint8_t)(flags | WAL_IMAGE_APPLY),
        .hole_offset = (uint16_t)hole_offset,
        .hole_size = (uint16_t)hole_size,
    });
}
enum { HOLE = WAL_IMAGE_HAS_HOLE, PGLZ = WAL_IMAGE_PGLZ, LZ4 = WAL_IMAGE_LZ4 };
static void two_compressions(void)
{
    image_of(100, PGLZ | LZ4, 0, 0);
}
static void three_compressions(void)
{
    image_of(100, WAL_IMAGE_COMPRESSED | HOLE, 100, 100);
}
static void image_flag_unknown(void)
{
    image_of(PAGE_SIZE, 0x40, 0, 0);
}
static void hole_past_the_page(void)
{
    image_of(4096, HOLE, 4097, 0);
}
static void hole_past_the_page_compressed(void)
{
    image_of(100, LZ4 | HOLE, 8000, 300);
}
static void hole_wraps_around(void)
{
    image_of(100, LZ4 | HOLE, 0xFFFF, 0xFFFF);
}
static void image_longer_than_a_page(void)
{
    image_of(PAGE_SIZE + 1, 0, 0, 0);
}
static void compressed_to_a_whole_page(void)
{
    image_of(PAGE_SIZE, LZ4, 0, 0);
}
static void image_shorter_than_a_page(void)
{
    image_of(8000, 0, 0, 0);
}

/* -- images that are only found out when they are undone -- */

static void pglz_of_garbage(void)
{
    memset(image_bytes, 0xFF, 100); /* back references before the first byte */
    image_of(100, PGLZ, 0, 0);
}
static void lz4_bomb(void)
{
    static char zeros[1000000];
    int size = LZ4_compress_default(zeros, (char *)image_bytes, sizeof(zeros), PAGE_SIZE - 1);
    ck_assert_int_gt(size, 0);
    image_of((size_t)size, LZ4 | HOLE, 100, 100);
}
static void zstd_bomb(void)
{
    static char zeros[10000000];
    size_t size = ZSTD_compress(image_bytes, PAGE_SIZE - 1, zeros, sizeof(zeros), 3);
    ck_assert(!ZSTD_isError(size));
    image_of(size, WAL_IMAGE_ZSTD, 0, 0);
}
static void zstd_one_byte_short(void)
{
    static char zeros[PAGE_SIZE - 1];
    size_t size = ZSTD_compress(image_bytes, PAGE_SIZE - 1, zeros, sizeof(zeros), 3);
    image_of(size, WAL_IMAGE_ZSTD, 0, 0);
}

/* -- record headers -- */

static void two_records(void)
{
    given_wal_at(SEGMENT + 0x1000);
    wal_builder_add_sized(&builder, 104);
}
static void total_0(void)
{
    two_records();
    set_field(TOTAL, 4, 0);
}
static void total_23(void)
{
    two_records();
    set_field(TOTAL, 4, 23);
}
static void total_over_1_gb(void)
{
    two_records();
    set_field(TOTAL, 4, 0x40000000);
}
static void total_over_our_limit(void)
{
    two_records();
    set_field(TOTAL, 4, 0x10000000);
}
static void rmgr_unknown(void)
{
    two_records();
    set_field(RMGR, 1, RM_COUNT);
}
static void prev_is_itself(void)
{
    two_records();
    set_field(PREV, 8, builder.last_begin);
}
static void prev_is_later(void)
{
    two_records();
    set_field(PREV, 8, builder.last_begin + 104);
}
static void prev_is_older(void) /* a record from before, at the place of a later one */
{
    two_records();
    wal_builder_add_sized(&builder, 104);
    set_field(PREV, 8, builder.begin_lsn);
}
static void crc_wrong(void)
{
    two_records();
    builder.wal.data[builder.wal.size - 1] ^= 1;
}

/* -- page headers: the second record crosses into a page -- */

/* The header of that page. */
static uint8_t *page(void)
{
    return builder.wal.data + 160;
}

static void record_across(lsn_t boundary, uint32_t size)
{
    given_wal_at(boundary - 160);
    wal_builder_add_sized(&builder, size);
}
static void in_segment(void)
{
    record_across(SEGMENT + WAL_PAGE_SIZE, 300);
}
static void at_segment(void)
{
    record_across(2 * SEGMENT, 300);
}
static void page_magic(void)
{
    in_segment();
    page_set_u16(page(), 0, WAL_PAGE_MAGIC - 1);
}
static void page_flags(void)
{
    in_segment();
    page_set_u16(page(), 2, 0x11);
}
static void page_long_in_segment(void)
{
    in_segment();
    page_set_u16(page(), 2, WAL_PAGE_FIRST_IS_CONTRECORD | WAL_PAGE_LONG_HEADER);
}
static void page_short_at_segment(void)
{
    at_segment();
    page_set_u16(page(), 2, WAL_PAGE_FIRST_IS_CONTRECORD);
}
static void page_timeline_back(void)
{
    at_segment();
    wal_builder_add_sized(&builder, WAL_PAGE_SIZE);
    page_set_u32(page(), 4, 7);
}
static void page_address_back(void)
{
    in_segment();
    page_set_u32(page(), 8, SEGMENT);
}
static void page_address_of_the_next(void)
{
    in_segment();
    page_set_u32(page(), 8, SEGMENT + 2 * WAL_PAGE_SIZE);
}
static void page_rest_too_short(void)
{
    in_segment();
    page_set_u32(page(), 16, page_u32(page(), 16) - 1);
}
static void page_rest_huge(void)
{
    in_segment();
    page_set_u32(page(), 16, UINT32_MAX);
}
static void page_system(void)
{
    at_segment();
    page_set_u32(page(), 24, 1);
}
static void page_segment_size(void)
{
    at_segment();
    page_set_u32(page(), 32, 2 * SEGMENT);
}
static void page_block_size(void)
{
    at_segment();
    page_set_u32(page(), 36, 16384);
}

/* -- streams -- */

static void contrecord_without_start(void)
{
    record_across(SEGMENT + WAL_PAGE_SIZE, 56); /* ends just before the page */
    wal_builder_add_sized(&builder, 104);
    page_set_u16(page(), 2, WAL_PAGE_FIRST_IS_CONTRECORD);
    page_set_u32(page(), 16, 104);
}
static void record_without_contrecord(void)
{
    in_segment();
    page_set_u16(page(), 2, 0);
}
static void overwrite_of_a_contrecord(void)
{
    given_wal_at(SEGMENT + WAL_PAGE_SIZE - 160);
    wal_builder_add_aborted(&builder, 300);
    wal_builder_add_sized(&builder, 104);
}
static void overwrite_of_nothing(void)
{
    record_across(SEGMENT + WAL_PAGE_SIZE, 56);
    wal_builder_add_sized(&builder, 104);
    page_set_u16(page(), 2, WAL_PAGE_FIRST_IS_OVERWRITE);
}
static void overwrite_that_continues(void)
{
    in_segment();
    page_set_u16(page(), 2, WAL_PAGE_FIRST_IS_OVERWRITE | WAL_PAGE_FIRST_IS_CONTRECORD);
}
static void switch_with_padding(void)
{
    given_wal_at(SEGMENT + 0x1000);
    size_t before = builder.wal.size;
    wal_builder_add_switch(&builder);
    memset(builder.wal.data + before + 24, 0xEE, builder.wal.size - before - 24);
    wal_builder_add_sized(&builder, 104);
}
static void switch_that_does_not_end(void)
{
    given_wal_at(SEGMENT + 0x1000);
    wal_builder_add_switch(&builder);
    builder.wal.size -= 8; /* what it ends has not come yet */
}
static void record_padding(void)
{
    given_wal_at(SEGMENT + 0x1000);
    wal_builder_add_sized(&builder, 26);
    memset(builder.wal.data + builder.wal.size - 6, 0xEE, 6);
    wal_builder_add_sized(&builder, 104);
}
static void older_wal_behind_the_end(void) /* the LSN goes backwards */
{
    given_wal_at(SEGMENT + WAL_PAGE_SIZE);
    while (builder.lsn < SEGMENT + 2 * WAL_PAGE_SIZE) {
        lsn_t left = SEGMENT + 2 * WAL_PAGE_SIZE - builder.lsn;
        wal_builder_add_sized(&builder, left >= 400 ? 200 : (uint32_t)left);
    }
    uint8_t older[WAL_PAGE_SIZE];
    memcpy(older, builder.wal.data, sizeof(older));
    buf_append(&builder.wal, older, sizeof(older));
}
static void zero_pages(void)
{
    given_wal_at(SEGMENT + 0x1000);
    memset(buf_extend(&builder.wal, MIB), 0, MIB);
}
static void zeros_inside_a_record(void)
{
    in_segment();
    memset(page(), 0, 64 * KIB < builder.wal.size - 160 ? 64 * KIB : builder.wal.size - 160);
}

/* -- the table -- */

#define ACCEPTED ERR_NOT_FOUND /* it was read to its end, and waits for more */

static const struct row {
    const char *entry;
    void (*given)(void);
    size_t records; /* that come out */
    err_t err;
    const char *says;
} rows[] = {
    {"block refs 33+", block_reference_33, 1, ERR_CORRUPT, "unknown header id"},
    {"block refs 33+", block_reference_200, 1, ERR_CORRUPT, "unknown header id"},
    {"same_rel first", same_relation_first, 1, ERR_CORRUPT, "but there is none"},
    {"fork > 3", fork_4, 1, ERR_CORRUPT, "no such fork"},
    {"fork > 3", fork_15, 1, ERR_CORRUPT, "no such fork"},
    {"blkno = InvalidBlockNumber", block_number_invalid, 1, ERR_CORRUPT, "no such block number"},
    {"relation 0", relation_0, 1, ERR_CORRUPT, "no such tablespace or relation"},
    {"tablespace 0", tablespace_0, 1, ERR_CORRUPT, "no such tablespace or relation"},
    {"block refs out of order", references_out_of_order, 1, ERR_CORRUPT, "out of order"},
    {"data length > record", data_length_too_long, 1, ERR_CORRUPT, "do not add up"},
    {"data length < record", data_length_one_short, 1, ERR_CORRUPT, "do not add up"},
    {"data flag, no data", data_flag_without_data, 1, ERR_CORRUPT, "disagree"},
    {"main length > record", main_length_too_long, 1, ERR_CORRUPT, "do not add up"},
    {"header id unknown", header_id_unknown, 1, ERR_CORRUPT, "unknown header id"},
    {"image with both COMPRESS bits", two_compressions, 1, ERR_CORRUPT, "two compression"},
    {"image with all COMPRESS bits", three_compressions, 1, ERR_CORRUPT, "two compression"},
    {"image flag unknown", image_flag_unknown, 1, ERR_CORRUPT, "unknown image flags"},
    {"hole_offset + len > 8192", hole_past_the_page, 1, ERR_CORRUPT, "hole past the page"},
    {"hole_offset + len > 8192", hole_past_the_page_compressed, 1, ERR_CORRUPT, "past the page"},
    {"hole_offset + len wraps", hole_wraps_around, 1, ERR_CORRUPT, "hole past the page"},
    {"image > page", image_longer_than_a_page, 1, ERR_CORRUPT, "image too long"},
    {"image > page", compressed_to_a_whole_page, 1, ERR_CORRUPT, "image too long"},
    {"image < page", image_shorter_than_a_page, 1, ERR_CORRUPT, "without a hole"},
    {"pglz: garbage", pglz_of_garbage, 1, ERR_CORRUPT, "does not decompress"},
    {"lz4 bomb", lz4_bomb, 1, ERR_CORRUPT, "does not decompress"},
    {"zstd bomb", zstd_bomb, 1, ERR_CORRUPT, "does not decompress"},
    {"zstd: too short", zstd_one_byte_short, 1, ERR_CORRUPT, "does not decompress"},
    {"total_len 0", total_0, 1, ERR_CORRUPT, "nothing was written here"},
    {"total_len < header", total_23, 1, ERR_CORRUPT, "length is 0x17"},
    {"total_len > 1 GB", total_over_1_gb, 1, ERR_CORRUPT, "length is 0x40000000"},
    {"total_len > our limit", total_over_our_limit, 1, ERR_FULL, "the limit is"},
    {"rmgr unknown", rmgr_unknown, 1, ERR_CORRUPT, "resource manager"},
    {"prev pointer loop", prev_is_itself, 1, ERR_CORRUPT, "prev-link"},
    {"prev pointer forward", prev_is_later, 1, ERR_CORRUPT, "prev-link"},
    {"prev pointer of older WAL", prev_is_older, 2, ERR_CORRUPT, "prev-link"},
    {"checksum wrong", crc_wrong, 1, ERR_CORRUPT, "checksum"},
    {"page header: magic", page_magic, 1, ERR_CORRUPT, "magic"},
    {"page header: flags", page_flags, 1, ERR_CORRUPT, "flags"},
    {"page header: long", page_long_in_segment, 1, ERR_CORRUPT, "flags"},
    {"page header: short", page_short_at_segment, 1, ERR_CORRUPT, "flags"},
    {"page header: tli back", page_timeline_back, 2, ERR_CORRUPT, "timeline 1 after 7"},
    {"page header: pageaddr", page_address_back, 1, ERR_CORRUPT, "page address"},
    {"page header: pageaddr", page_address_of_the_next, 1, ERR_CORRUPT, "page address"},
    {"page header: rem_len", page_rest_too_short, 1, ERR_CORRUPT, "rest of"},
    {"page header: rem_len", page_rest_huge, 1, ERR_CORRUPT, "rest of 4294967295"},
    {"page header: sysid", page_system, 1, ERR_CORRUPT, "system identifier"},
    {"page header: segment size", page_segment_size, 1, ERR_CORRUPT, "segment size"},
    {"page header: page size", page_block_size, 1, ERR_CORRUPT, "page size"},
    {"contrecord without start", contrecord_without_start, 2, ERR_CORRUPT, "none was begun"},
    {"start without contrecord", record_without_contrecord, 1, ERR_CORRUPT, "not continue"},
    {"overwrite_contrecord", overwrite_of_a_contrecord, 2, ACCEPTED, NULL},
    {"overwrite_contrecord of nothing", overwrite_of_nothing, 3, ACCEPTED, NULL},
    {"overwrite_contrecord, continued", overwrite_that_continues, 1, ERR_CORRUPT, "none was begun"},
    {"xlog switch padding", switch_with_padding, 3, ACCEPTED, NULL},
    {"xlog switch without its end", switch_that_does_not_end, 1, ACCEPTED, NULL},
    {"record padding", record_padding, 3, ACCEPTED, NULL},
    {"LSN going backwards", older_wal_behind_the_end, 41, ERR_CORRUPT, "page address"},
    {"huge gap of zero pages", zero_pages, 1, ERR_CORRUPT, "nothing was written here"},
    {"zeros inside a record", zeros_inside_a_record, 1, ERR_CORRUPT, "magic"},
};

struct pass {
    size_t records;
    err_t err;
    struct errmsg msg;
};

static err_t take_records(struct wal_reader *reader, struct pass *pass)
{
    const struct wal_record *record;
    uint8_t restored[PAGE_SIZE];
    err_t err;
    while ((err = wal_reader_next(reader, &record, &pass->msg)) == ERR_OK) {
        if (record->block_count > 0 && record->blocks[0].in_use && record->blocks[0].has_image) {
            memset(restored, 0xA5, sizeof(restored));
            err = wal_block_restore_image(&record->blocks[0], restored, &pass->msg);
            if (err != ERR_OK) { /* and nothing was written */
                ck_assert(restored[0] == 0xA5 && memcmp(restored, restored + 1, 8191) == 0);
                return err;
            }
        }
        pass->records++;
    }
    return err;
}

static void read_in(size_t piece, struct pass *pass)
{
    struct wal_reader *reader = wal_reader_create(&(struct wal_reader_options){
        .start_lsn = builder.begin_lsn,
        .segment_size = SEGMENT,
        .system_id = builder.system_id,
        .record_size_max = 64 * MIB,
    });
    *pass = (struct pass){.err = ERR_NOT_FOUND};
    for (size_t at = 0; at < builder.wal.size && pass->err == ERR_NOT_FOUND; at += piece) {
        size_t size = MIN_OF(piece, builder.wal.size - at);
        uint8_t *copy = mem_dup(builder.wal.data + at, size); /* of just its size */
        pass->err = wal_reader_feed(reader, bytes_of(copy, size), &pass->msg);
        pass->err = pass->err == ERR_OK ? take_records(reader, pass) : pass->err;
        mem_free(copy);
    }
    wal_reader_destroy(reader);
}

START_TEST(test_the_catalogue)
{
    const struct row *row = &rows[_i];
    struct pass whole, bytes;
    row->given();

    read_in(SIZE_MAX / 2, &whole);

    ck_assert_msg(whole.err == row->err, "%s: %s", row->entry, err_code(whole.err));
    ck_assert_msg(whole.records == row->records, "%s: %zu records", row->entry, whole.records);
    if (row->says != NULL) {
        bool says = strstr(whole.msg.text, row->says) != NULL;
        ck_assert_msg(says, "%s: it says: %s", row->entry, whole.msg.text);
    }
    read_in(1, &bytes);
    ck_assert_int_eq(bytes.err, whole.err);
    ck_assert_uint_eq(bytes.records, whole.records);
    if (row->says != NULL) {
        ck_assert_str_eq(bytes.msg.text, whole.msg.text);
    }
    wal_builder_deinit(&builder);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("wal_catalogue");
    TCase *tcase = tcase_create("wal_catalogue");
    tcase_add_loop_test(tcase, test_the_catalogue, 0, (int)ARRAY_LEN(rows));
    suite_add_tcase(suite, tcase);
    return unit_run_suite(suite);
}
