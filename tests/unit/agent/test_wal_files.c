/* WAL from before the start: where it lies, and what it says of rewritten catalogs. */
#include "compute/agent/wal_files.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "common/base/mark.h"
#include "common/base/str.h"
#include "common/io/file.h"
#include "common/pg/page.h"
#include "common/pg/wal_page.h"
#include "tests/lib/wal_builder.h"
#include "tests/unit/unit.h"

#define SEGMENT (16 * MIB)
#define BEGIN   ((lsn_t)3 * SEGMENT + 5 * WAL_PAGE_SIZE + 600)

static struct errmsg msg;
static char dir[64];
static struct run_as nobody;
static struct wal_builder builder;
static struct wal_files files;
static struct buf text;

static void setup(void)
{
    unit_folder(dir, sizeof(dir), "anabranch-wal-files");
    const char *const folders[] = {"pgdata/pg_wal", "pgdata/pg_logical/mappings"};
    for (size_t i = 0; i < ARRAY_LEN(folders); i++) {
        char path[PATH_SIZE];
        ck_assert_ok(str_format(path, sizeof(path), &msg, "%s/%s", dir, folders[i]), &msg);
        ck_assert_ok(dir_create(path, &msg), &msg);
    }
    wal_builder_init(&builder, BEGIN, SEGMENT);
    files = (struct wal_files){.user = &nobody, .dir = dir, .system_id = WAL_BUILDER_SYSTEM_ID};
    wal_files_init(&files, BEGIN, BEGIN);
}

static void teardown(void)
{
    wal_files_deinit(&files);
    wal_builder_deinit(&builder);
    buf_deinit(&text);
    ck_assert_ok(dir_remove(dir, &msg), &msg);
}

static void put_all(lsn_t from)
{
    for (lsn_t lsn = from; lsn < builder.lsn;) {
        lsn_t end = wal_files_piece_end(lsn, builder.lsn);
        struct bytes wal = bytes_of(builder.wal.data + (lsn - BEGIN), end - lsn);
        ck_assert_ok(wal_files_put(&files, lsn, wal, &msg), &msg);
        lsn = end;
    }
}

static const struct buf *file_in(const char *name)
{
    char path[PATH_SIZE];
    ck_assert_ok(str_format(path, sizeof(path), &msg, "%s/pgdata/%s", dir, name), &msg);
    buf_deinit(&text); /* reading replaces it */
    return file_read_all(path, SEGMENT, &text, &msg) == ERR_OK ? &text : NULL;
}

START_TEST(test_pieces_begin_at_a_page_and_end_with_their_segment)
{
    ck_assert_uint_eq(wal_files_begin(BEGIN, 0), BEGIN - 600);
    ck_assert_uint_eq(wal_files_begin(BEGIN, BEGIN - 8), BEGIN - 8);
    lsn_t last = 4 * SEGMENT - 100;
    ck_assert_uint_eq(wal_files_piece_end(last, 9 * SEGMENT), 4 * SEGMENT);
    ck_assert_uint_eq(wal_files_piece_end(SEGMENT, 9 * SEGMENT), SEGMENT + WAL_FILES_PIECE);
    ck_assert_uint_eq(wal_files_piece_end(SEGMENT, SEGMENT + 8), SEGMENT + 8);
}
END_TEST

START_TEST(test_segments_are_whole_and_begin_with_a_header)
{
    wal_builder_fill_to(&builder, 4 * SEGMENT + 3 * WAL_PAGE_SIZE);
    put_all(BEGIN);
    const struct buf *first = file_in("pg_wal/000000010000000000000003");
    ck_assert_ptr_nonnull(first);
    ck_assert_uint_eq(first->size, SEGMENT);
    struct wal_page_header header;
    ck_assert_ok(
        wal_page_header_parse(
            first->data, 3 * SEGMENT, SEGMENT, WAL_BUILDER_SYSTEM_ID, &header, &msg),
        &msg);
    lsn_t page_lsn = BEGIN - 600; /* its header did not come */
    ck_assert_ok(
        wal_page_header_parse(
            first->data + page_lsn % SEGMENT, page_lsn, SEGMENT, WAL_BUILDER_SYSTEM_ID, &header,
            &msg),
        &msg);
    ck_assert_int_eq(
        memcmp(first->data + BEGIN % SEGMENT, builder.wal.data, 4 * SEGMENT - BEGIN), 0);
    const struct buf *second = file_in("pg_wal/000000010000000000000004");
    ck_assert_ptr_nonnull(second);
    ck_assert_uint_eq(second->size, SEGMENT);
    ck_assert_int_eq(
        memcmp(second->data, builder.wal.data + (4 * SEGMENT - BEGIN), 3 * WAL_PAGE_SIZE), 0);
}
END_TEST

struct rewrite {
    uint32_t mapped_xid, db, rel, unused;
    uint64_t offset;
    uint32_t count, unused_too;
    uint64_t start_lsn;
    uint8_t mappings[2 * 36];
};

static void add_rewrite(const struct rewrite *rewrite, size_t size)
{
    wal_builder_add(
        &builder, &(struct wal_builder_record){
                      .rmgr = RM_HEAP2, .xid = 0x2f0, .main_data = bytes_of(rewrite, size)});
}

START_TEST(test_mappings_are_those_that_the_records_say)
{
    const char *name = "pg_logical/mappings/map-5-4eb-1_ABC-2ee-2f0";
    struct rewrite rewrite = {
        .mapped_xid = 0x2ee, .db = 5, .rel = 0x4eb, .count = 2, .start_lsn = 0x100000ABC};
    memset(rewrite.mappings, 'a', sizeof(rewrite.mappings));
    add_rewrite(&rewrite, sizeof(rewrite));
    rewrite.offset = 36; /* what was behind it is written anew */
    rewrite.count = 1;
    memset(rewrite.mappings, 'b', sizeof(rewrite.mappings));
    add_rewrite(&rewrite, sizeof(rewrite) - 36);
    put_all(BEGIN);
    const struct buf *file = file_in(name);
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(file->size, 72);
    ck_assert_int_eq(file->data[35], 'a');
    ck_assert_int_eq(file->data[36], 'b');
}
END_TEST

START_TEST(test_behind_a_gap_wal_is_put_and_no_mappings_are_made)
{
    struct rewrite rewrite = {.db = 5, .count = 0, .start_lsn = 8};
    wal_builder_fill_to(&builder, 4 * SEGMENT + WAL_PAGE_SIZE);
    add_rewrite(&rewrite, sizeof(rewrite) - 72);
    put_all(4 * SEGMENT);
    ck_assert_ptr_nonnull(file_in("pg_wal/000000010000000000000004"));
    ck_assert_ptr_null(file_in("pg_wal/000000010000000000000003"));
    ck_assert_ptr_null(file_in("pg_logical/mappings/map-5-0-0_8-0-2f0"));
    ck_assert_uint_eq(mark_hits("wal_files.gap"), 1);
}
END_TEST

START_TEST(test_what_cannot_be_read_is_put_for_postgres_to_say_so)
{
    struct rewrite rewrite = {.db = 5, .count = 7, .start_lsn = 8}; /* more than there are */
    add_rewrite(&rewrite, sizeof(rewrite));
    put_all(BEGIN);
    ck_assert_uint_eq(mark_hits("wal_files.mapping_malformed"), 1);
    ck_assert_uint_eq(mark_hits("wal_files.unreadable"), 1);
    ck_assert_ptr_nonnull(file_in("pg_wal/000000010000000000000003"));
    struct bytes wal = bytes_of(builder.wal.data, 8);
    ck_assert_int_eq(wal_files_put(&files, 4 * SEGMENT - 4, wal, &msg), ERR_CORRUPT);
}
END_TEST

static const struct unit_options options = {.setup = setup, .teardown = teardown};

UNIT_MAIN_WITH(
    options,
    "wal_files",
    test_pieces_begin_at_a_page_and_end_with_their_segment,
    test_segments_are_whole_and_begin_with_a_header,
    test_mappings_are_those_that_the_records_say,
    test_behind_a_gap_wal_is_put_and_no_mappings_are_made,
    test_what_cannot_be_read_is_put_for_postgres_to_say_so);
