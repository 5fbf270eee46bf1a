/* Taking a record apart: what the builder put in comes out, and lengths are never believed. */
#include "common/base/mark.h"
#include "common/base/mem.h"
#include "common/pg/page.h"
#include "common/pg/wal_image.h"
#include "common/pg/wal_record.h"
#include "tests/lib/wal_builder.h"
#include "tests/unit/unit.h"

static struct wal_builder builder;
static struct wal_record record;
static struct errmsg msg;
static const struct page_key key = {.spc = 1663, .db = 5, .rel = 16384, .block = 7};

static void setup(void)
{
    mark_reset_all();
    wal_builder_init(&builder, 0x1000100, (uint32_t)MIB);
}

static void teardown(void)
{
    wal_builder_deinit(&builder);
}

START_TEST(test_parts_come_out_as_they_went_in)
{
    uint8_t image[PAGE_SIZE] = {1, 2, 3};
    struct page_key other = {.spc = 1664, .rel = 1262, .fork = FORK_VM, .block = 1};
    wal_builder_add(
        &builder, &(struct wal_builder_record){
                      .rmgr = RM_HEAP,
                      .info = 0x20,
                      .xid = 700,
                      .top_xid = 699,
                      .origin = 3,
                      .main_data = bytes_of_str("main"),
                      .block_count = 3,
                      .blocks = {
                          {.key = key, .data = bytes_of_str("tuple")},
                          {.key = key, .same_rel = true, .will_init = true},
                          {.key = other, .id = 5, .image = bytes_of(image, sizeof(image))},
                      }});
    wal_builder_decode(&builder, &record);
    ck_assert_uint_eq(record.xid, 700);
    ck_assert_uint_eq(record.top_xid, 699);
    ck_assert_uint_eq(record.origin, 3);
    ck_assert_uint_eq(record.rmgr, RM_HEAP);
    ck_assert_uint_eq(record.info, 0x20);
    ck_assert(bytes_equal(record.main_data, bytes_of_str("main")));
    ck_assert_uint_eq(record.block_count, 6);
    ck_assert(bytes_equal(record.blocks[0].data, bytes_of_str("tuple")));
    ck_assert(page_key_equal(record.blocks[1].key, key));
    ck_assert(record.blocks[1].will_init);
    ck_assert(!record.blocks[2].in_use && !record.blocks[3].in_use && !record.blocks[4].in_use);
    ck_assert(page_key_equal(record.blocks[5].key, other));
    ck_assert(record.blocks[5].has_image && record.blocks[5].apply_image);
    ck_assert(bytes_equal(record.blocks[5].image, bytes_of(image, sizeof(image))));
    ck_assert_int_eq(wal_record_check_crc(record.bytes, &msg), ERR_OK);
    ck_assert_str_eq(wal_record_text(&record).text, "Heap/UPDATE");
}
END_TEST

START_TEST(test_long_main_data)
{
    uint8_t *main = mem_zalloc(100000);
    wal_builder_add(
        &builder,
        &(struct wal_builder_record){.rmgr = RM_XLOG, .main_data = bytes_of(main, 100000)});
    wal_builder_decode(&builder, &record);
    ck_assert_uint_eq(record.main_data.size, 100000);
    mem_free(main);
}
END_TEST

/* Decode bytes that lie at the very end of their memory, so that ASan sees a read beyond. */
static err_t decode_bytes(const uint8_t *bytes, size_t size)
{
    uint8_t *copy = mem_dup(bytes, size);
    if (size >= 4) {
        page_set_u32(copy, 0, (uint32_t)size);
    }
    err_t err = wal_record_decode(bytes_of(copy, size), 0x100, 0x200, &record, &msg);
    mem_free(copy);
    return err;
}

static uint8_t *rich_record(size_t *ret_size)
{
    uint8_t image[100] = {9};
    wal_builder_add(
        &builder, &(struct wal_builder_record){
                      .rmgr = RM_HEAP,
                      .top_xid = 699,
                      .origin = 3,
                      .main_data = bytes_of_str("main"),
                      .block_count = 2,
                      .blocks = {
                          {.key = key,
                           .data = bytes_of_str("tuple"),
                           .image = bytes_of(image, 100),
                           .image_flags = WAL_IMAGE_APPLY | WAL_IMAGE_LZ4 | WAL_IMAGE_HAS_HOLE,
                           .hole_offset = 30,
                           .hole_size = 4000},
                          {.key = key, .same_rel = true, .data = bytes_of_str("x")},
                      }});
    *ret_size = builder.record.size;
    return builder.record.data;
}

START_TEST(test_cut_record_never_reads_beyond)
{
    size_t size;
    uint8_t *bytes = rich_record(&size);
    ck_assert_int_eq(decode_bytes(bytes, size), ERR_OK);
    ck_assert_uint_eq(record.blocks[0].hole_size, 4000);
    size_t accepted = 0;
    for (size_t cut = 0; cut < size; cut++) {
        accepted += decode_bytes(bytes, cut) == ERR_OK;
    }
    /* Cut so that the payload announced by the first headers is just what is left: two blocks,
     * origin, top-level xid; and without anything behind the record header. */
    ck_assert_uint_eq(accepted, 5);
    ck_assert_uint_gt(mark_hits("wal_record.bad_payload_size"), 0);
    ck_assert_uint_gt(mark_hits("wal_record.bad_total_size"), 0);
}
END_TEST

START_TEST(test_changed_byte_never_reads_beyond)
{
    size_t size;
    uint8_t *bytes = rich_record(&size);
    for (size_t at = WAL_RECORD_HEADER_SIZE; at < 100; at++) {
        for (unsigned value = 0; value < 256; value++) {
            uint8_t before = bytes[at];
            bytes[at] = (uint8_t)value;
            (void)!decode_bytes(bytes, size);
            bytes[at] = before;
        }
    }
}
END_TEST

START_TEST(test_unusable_block_references_are_refused)
{
    struct {
        struct wal_builder_block block;
        const char *mark;
    } cases[] = {
        {{.key = key, .same_rel = true}, "wal_record.same_rel_first"},
        {{.key = {.spc = 0, .db = 1, .rel = 1}}, "wal_record.bad_relation"},
        {{.key = {.spc = 1663, .db = 1, .rel = 0}}, "wal_record.bad_relation"},
        {{.key = {.spc = 1663, .db = 1, .rel = 1, .fork = 4}}, "wal_record.bad_fork"},
        {{.key = {.spc = 1663, .db = 1, .rel = 1, .block = UINT32_MAX}},
         "wal_record.bad_block_number"},
        {{.key = key, .id = 33}, "wal_record.bad_id"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct wal_builder_record bad = {.rmgr = RM_HEAP, .block_count = 1};
        bad.blocks[0] = cases[i].block;
        wal_builder_add(&builder, &bad);
        struct buf *made = &builder.record;
        ck_assert_int_eq(decode_bytes(made->data, made->size), ERR_CORRUPT);
        ck_assert_msg(mark_hits(cases[i].mark) > 0, "%s", cases[i].mark);
    }
}
END_TEST

START_TEST(test_block_references_come_in_order)
{
    wal_builder_add(
        &builder,
        &(struct wal_builder_record){
            .rmgr = RM_HEAP, .block_count = 2, .blocks = {{.key = key, .id = 2}, {.key = key}}});
    builder.record.data[24 + 20] = 2; /* the second says 2 too */
    ck_assert_int_eq(decode_bytes(builder.record.data, builder.record.size), ERR_CORRUPT);
    ck_assert_uint_eq(mark_hits("wal_record.out_of_order_block"), 1);
}
END_TEST

START_TEST(test_block_header_cut_short_is_refused)
{
    uint8_t bytes[WAL_RECORD_HEADER_SIZE + 19] = {
        0}; /* id, flags, length, and not all of the rest */
    for (size_t size = WAL_RECORD_HEADER_SIZE + 1; size <= sizeof(bytes); size++) {
        ck_assert_int_eq(decode_bytes(bytes, size), ERR_CORRUPT);
    }
    ck_assert_uint_eq(mark_hits("wal_record.block_header_short"), 19);
}
END_TEST

START_TEST(test_data_flag_and_length_agree)
{
    wal_builder_add(
        &builder, &(struct wal_builder_record){
                      .rmgr = RM_HEAP,
                      .block_count = 1,
                      .blocks = {{.key = key, .data = bytes_of_str("tuple")}}});
    builder.record.data[25] = 0x00;
    ck_assert_int_eq(decode_bytes(builder.record.data, builder.record.size), ERR_CORRUPT);
    builder.record.data[25] = 0x20;
    builder.record.data[26] = 0;
    ck_assert_int_eq(decode_bytes(builder.record.data, builder.record.size), ERR_CORRUPT);
    ck_assert_uint_eq(mark_hits("wal_record.data_flag_mismatch"), 2);
}
END_TEST

START_TEST(test_impossible_images_are_refused)
{
    static uint8_t image[9000];
    enum { HOLE = WAL_IMAGE_HAS_HOLE, LZ4 = WAL_IMAGE_LZ4, APPLY = WAL_IMAGE_APPLY };
    struct {
        size_t size;
        unsigned flags, hole_offset, hole_size;
    } cases[] = {
        {8192, APPLY | 0x20, 0, 0},                /* flag from the future */
        {100, APPLY | LZ4 | WAL_IMAGE_ZSTD, 0, 0}, /* two compressions */
        {8192, APPLY | HOLE, 10, 0},               /* hole of nothing */
        {4096, APPLY | HOLE, 0, 0},                /* hole at 0 */
        {4096, APPLY, 0, 0},                       /* short, but no hole */
        {8192, APPLY, 7, 0},                       /* no hole, but an offset */
        {4096, APPLY | HOLE, 4097, 0},             /* hole past the page */
        {100, APPLY | LZ4 | HOLE, 8000, 300},      /* the same, compressed */
        {100, APPLY | LZ4 | HOLE, 30, 0},          /* hole of nothing, compressed */
        {8192, APPLY | LZ4, 0, 0},                 /* compressed to a whole page */
        {9000, APPLY, 0, 0},                       /* more than a page */
        {9000, APPLY | LZ4, 0, 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct wal_builder_record bad = {.rmgr = RM_XLOG, .info = 0xB0, .block_count = 1};
        bad.blocks[0] = (struct wal_builder_block){
            .key = key,
            .image = bytes_of(image, cases[i].size),
            .image_flags = (uint8_t)cases[i].flags,
            .hole_offset = (uint16_t)cases[i].hole_offset,
            .hole_size = (uint16_t)cases[i].hole_size,
        };
        wal_builder_add(&builder, &bad);
        uint64_t before = mark_hits("wal_record.bad_image_header");
        ck_assert_int_eq(decode_bytes(builder.record.data, builder.record.size), ERR_CORRUPT);
        ck_assert_msg(mark_hits("wal_record.bad_image_header") > before, "case %zu", i);
    }
}
END_TEST

START_TEST(test_crc_covers_header_and_data)
{
    size_t size;
    uint8_t *bytes = rich_record(&size);
    for (size_t at = 0; at < size; at++) {
        bytes[at] ^= 0x10;
        ck_assert_int_eq(wal_record_check_crc(bytes_of(bytes, size), &msg), ERR_CORRUPT);
        bytes[at] ^= 0x10;
    }
    ck_assert_int_eq(wal_record_check_crc(bytes_of(bytes, 23), &msg), ERR_CORRUPT);
    ck_assert_uint_eq(mark_hits("wal_record.crc_of_a_fragment"), 1);
    ck_assert_uint_eq(mark_hits("wal_record.bad_crc"), size);
}
END_TEST

START_TEST(test_text_names_the_operation)
{
    struct wal_record named = {.rmgr = RM_HEAP, .info = 0x80};
    ck_assert_str_eq(wal_record_text(&named).text, "Heap/INSERT+INIT");
    named = (struct wal_record){.rmgr = RM_XLOG, .info = 0xB0};
    ck_assert_str_eq(wal_record_text(&named).text, "XLOG/FPI");
    named = (struct wal_record){.rmgr = RM_GIN, .info = 0x30};
    ck_assert_str_eq(wal_record_text(&named).text, "Gin/0x30");
    named = (struct wal_record){.rmgr = RM_XACT, .info = 0x80};
    ck_assert_str_eq(wal_record_text(&named).text, "Transaction/COMMIT");
    ck_assert_str_eq(wal_rmgr_name(130), "Custom");
    ck_assert_str_eq(wal_rmgr_name(RM_COUNT), "Unknown");
}
END_TEST

static const struct unit_options options = {.setup = setup, .teardown = teardown};

UNIT_MAIN_WITH(
    options,
    "wal_record",
    test_parts_come_out_as_they_went_in,
    test_long_main_data,
    test_cut_record_never_reads_beyond,
    test_changed_byte_never_reads_beyond,
    test_unusable_block_references_are_refused,
    test_block_references_come_in_order,
    test_block_header_cut_short_is_refused,
    test_data_flag_and_length_agree,
    test_impossible_images_are_refused,
    test_crc_covers_header_and_data,
    test_text_names_the_operation);
