/* Which segments of the SLRUs a base backup brings, which it names only, and which are not there.
 */
#include "pageserver/read/base_backup.h"

#include <archive.h>
#include <archive_entry.h>

#include "common/base/str.h"
#include "common/pg/pg_control.h"
#include "common/pg/pg_version.h"
#include "common/wire/page_proto.h"
#include "tests/unit/timeline/tenant_fixture.h"

#define BACKUP_LSN    (START_LSN + 0x1000)
#define SEGMENT_BYTES ((int64_t)PG_SLRU_PAGES_PER_SEGMENT * PAGE_SIZE)
#define COLD_BYTES    ((int64_t)sizeof(SLRU_COLD_TEXT) - 1)
#define ABSENT        (-1)

/* A segment's worth of what the pages of each SLRU count. */
enum {
    XIDS = PG_SLRU_PAGES_PER_SEGMENT * PG_CLOG_XIDS_PER_PAGE,
    MULTIS = PG_SLRU_PAGES_PER_SEGMENT * PG_MULTI_OFFSETS_PER_PAGE,
    MEMBERS = PG_SLRU_PAGES_PER_SEGMENT * PG_MULTI_MEMBERS_PER_PAGE,
    TIMES = PG_SLRU_PAGES_PER_SEGMENT * PG_COMMIT_TS_XIDS_PER_PAGE,
};

static struct page_batch *batch;
static struct pg_checkpoint checkpoint;
static struct buf tar;

static void put(struct page_key key, uint8_t tag, struct bytes value)
{
    page_batch_put(batch, timeline_number(find(1)), key, BACKUP_LSN, tag, 0, value);
}

static void put_state(enum state_kind kind, struct bytes value)
{
    put(page_key_state(kind, 0, 0), VALUE_STATE, value);
}

/* One page of each segment begin..end of an SLRU, filled with its number. */
static void given_segments(enum state_kind kind, uint32_t begin, uint32_t end)
{
    for (uint32_t segment = begin; segment < end; segment++) {
        uint8_t page[PAGE_SIZE];
        memset(page, (int)segment + 1, sizeof(page));
        put(page_key_state(kind, 0, segment * PG_SLRU_PAGES_PER_SEGMENT + 1), VALUE_IMAGE,
            bytes_of(page, sizeof(page)));
    }
}

static void given_prepared(uint64_t xid, const char *file)
{
    put(page_key_state(STATE_TWOPHASE, (uint32_t)(xid >> 32), (uint32_t)xid), VALUE_STATE,
        bytes_of_str(file));
}

/* A cluster of which nothing was frozen yet, four segments in. */
static void begin(void)
{
    fixture_begin_with_root();
    batch = page_batch_create();
    checkpoint = (struct pg_checkpoint){
        .next_xid = 4 * (uint64_t)XIDS + 5,
        .next_multi = 4 * MULTIS + 5,
        .next_multi_offset = 4 * MEMBERS + 5,
        .oldest_xid = 3,
        .oldest_multi = 1,
        .oldest_commit_ts_xid = 3,
        .newest_commit_ts_xid = 4 * TIMES + 4,
    };
    put(page_key_state(STATE_RELMAP, 0, PG_SPC_GLOBAL), VALUE_STATE, bytes_of_str("map"));
}

static void given_counters(void)
{
    struct pg_control control = {
        .control_version = PG_CONTROL_VERSION,
        .catalog_version = PG_CATALOG_VERSION,
        .max_align = 8,
        .float_format = 1234567.0,
        .page_size = PAGE_SIZE,
        .wal_page_size = PAGE_SIZE,
        .wal_segment_size = 16 << 20,
        .float8_by_value = 1,
    };
    uint8_t file[PG_CONTROL_FILE_SIZE];
    pg_control_write(&control, file);
    put_state(STATE_CONTROL, bytes_of(file, sizeof(file)));
    put_state(STATE_CHECKPOINT, bytes_of(&checkpoint, sizeof(checkpoint)));
    put_state(STATE_NEXT_XID, bytes_of(&checkpoint.next_xid, sizeof(checkpoint.next_xid)));
    uint32_t multi[] = {checkpoint.next_multi, checkpoint.next_multi_offset};
    put_state(STATE_NEXT_MULTI, bytes_of(multi, sizeof(multi)));
}

static void build(bool cold_slrus)
{
    struct timeline *tl = find(1);
    if (batch != NULL) {
        given_counters();
        ck_assert_ok(page_store_write(timeline_store(tl), batch, &msg), &msg);
        page_batch_destroy(batch);
        batch = NULL;
    }
    struct base_backup_options options = {
        .store = timeline_store(tl),
        .path = timeline_path(tl),
        .start_lsn = START_LSN,
        .lsn = BACKUP_LSN,
        .pg_version = 170011,
        .cold_slrus = cold_slrus,
    };
    buf_clear(&tar);
    ck_assert_ok(base_backup_build(&options, &tar, &msg), &msg);
}

static void end(void)
{
    buf_deinit(&tar);
    fixture_end();
}

/* The size of a file; ABSENT: there is none. `content` receives its first bytes. */
static int64_t size_of(const char *name, uint8_t *content, size_t content_size)
{
    int64_t size = ABSENT;
    struct archive_entry *entry;
    struct archive *archive = archive_read_new();
    ck_assert_int_eq(archive_read_support_format_tar(archive), ARCHIVE_OK);
    ck_assert_int_eq(archive_read_open_memory(archive, tar.data, tar.size), ARCHIVE_OK);
    while (size == ABSENT && archive_read_next_header(archive, &entry) == ARCHIVE_OK) {
        if (strcmp(archive_entry_pathname(entry), name) == 0) {
            size = archive_entry_size(entry);
            ck_assert_int_ge(archive_read_data(archive, content, content_size), 0);
        }
    }
    ck_assert_int_eq(archive_read_free(archive), ARCHIVE_OK);
    return size;
}

static void expect_sizes(const char *folder, size_t count, const int64_t expected[])
{
    for (size_t i = 0; i < count; i++) {
        char name[64];
        uint8_t first;
        ck_assert_ok(str_format(name, sizeof(name), &msg, "%s/%04zX", folder, i), &msg);
        int64_t size = size_of(name, &first, 1);
        ck_assert_msg(
            size == expected[i], "%s: %jd bytes, not %jd", name, (intmax_t)size,
            (intmax_t)expected[i]);
    }
}
#define EXPECT_SIZES(folder, ...)                                                                  \
    expect_sizes(                                                                                  \
        folder, sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t),                                \
        (const int64_t[]){__VA_ARGS__})

static void given_all_segments(void)
{
    given_segments(STATE_CLOG, 0, 5);
    given_segments(STATE_MULTI_OFFSETS, 0, 5);
    given_segments(STATE_MULTI_MEMBERS, 0, 5);
    given_segments(STATE_COMMIT_TS, 0, 5);
}

START_TEST(test_only_what_a_start_needs_is_in_and_the_rest_is_named)
{
    begin();
    given_all_segments();
    build(true);
    EXPECT_SIZES("pg_xact", COLD_BYTES, COLD_BYTES, COLD_BYTES, COLD_BYTES, PAGE_SIZE, ABSENT);
    EXPECT_SIZES(
        "pg_multixact/offsets", SEGMENT_BYTES, COLD_BYTES, COLD_BYTES, COLD_BYTES, PAGE_SIZE,
        ABSENT);
    EXPECT_SIZES(
        "pg_multixact/members", COLD_BYTES, COLD_BYTES, COLD_BYTES, COLD_BYTES, PAGE_SIZE, ABSENT);
    EXPECT_SIZES("pg_commit_ts", COLD_BYTES, COLD_BYTES, COLD_BYTES, COLD_BYTES, PAGE_SIZE, ABSENT);
    uint8_t text[16] = {0};
    ck_assert_int_eq(size_of("pg_xact/0000", text, sizeof(text)), COLD_BYTES);
    ck_assert_str_eq((char *)text, SLRU_COLD_TEXT);
    end();
}
END_TEST

START_TEST(test_without_being_asked_nothing_is_left_out)
{
    begin();
    given_all_segments();
    build(false);
    static uint8_t content[SEGMENT_BYTES];
    EXPECT_SIZES(
        "pg_xact", SEGMENT_BYTES, SEGMENT_BYTES, SEGMENT_BYTES, SEGMENT_BYTES, PAGE_SIZE, ABSENT);
    EXPECT_SIZES(
        "pg_multixact/members", SEGMENT_BYTES, SEGMENT_BYTES, SEGMENT_BYTES, SEGMENT_BYTES,
        PAGE_SIZE, ABSENT);
    ck_assert_int_eq(size_of("pg_xact/0002", content, sizeof(content)), SEGMENT_BYTES);
    ck_assert_uint_eq(content[PAGE_SIZE - 1], 0); /* a page that nobody wrote */
    ck_assert_uint_eq(content[PAGE_SIZE], 3);
    ck_assert_uint_eq(content[2 * PAGE_SIZE - 1], 3);
    ck_assert_uint_eq(content[2 * PAGE_SIZE], 0);
    end();
}
END_TEST

START_TEST(test_segments_from_the_oldest_prepared_transaction_on_are_in)
{
    begin();
    given_all_segments();
    given_prepared(3 * (uint64_t)XIDS + 9, "younger");
    given_prepared(2 * (uint64_t)XIDS + 9, "older");
    given_prepared(1 * (uint64_t)XIDS + 9, ""); /* finished */
    build(true);
    EXPECT_SIZES("pg_xact", COLD_BYTES, COLD_BYTES, SEGMENT_BYTES, SEGMENT_BYTES, PAGE_SIZE);
    end();
}
END_TEST

START_TEST(test_commit_times_of_a_prepared_transaction_are_written_too)
{
    begin();
    given_all_segments();
    given_prepared(3 * TIMES + 9, "prepared");
    build(true);
    EXPECT_SIZES("pg_commit_ts", COLD_BYTES, COLD_BYTES, COLD_BYTES, SEGMENT_BYTES, PAGE_SIZE);
    EXPECT_SIZES("pg_xact", SEGMENT_BYTES, SEGMENT_BYTES, SEGMENT_BYTES, SEGMENT_BYTES, PAGE_SIZE);
    end();
}
END_TEST

START_TEST(test_prepared_before_commit_times_were_kept_makes_all_of_them_hot)
{
    begin();
    given_all_segments();
    checkpoint.oldest_commit_ts_xid = 2 * TIMES;
    given_prepared(5, "prepared");
    build(true);
    EXPECT_SIZES("pg_commit_ts", ABSENT, ABSENT, SEGMENT_BYTES, SEGMENT_BYTES, PAGE_SIZE);
    end();
}
END_TEST

START_TEST(test_truncated_segments_have_no_name_and_missing_ones_neither)
{
    begin();
    checkpoint.oldest_xid = 1 * XIDS + 7;
    given_segments(STATE_CLOG, 0, 2);
    given_segments(STATE_CLOG, 3, 5);
    build(true);
    EXPECT_SIZES("pg_xact", ABSENT, COLD_BYTES, ABSENT, COLD_BYTES, PAGE_SIZE, ABSENT);
    end();
}
END_TEST

START_TEST(test_pages_before_the_oldest_are_zeros_and_nothing_lies_behind_the_next)
{
    begin();
    checkpoint.oldest_xid = 1 * XIDS + 2 * PG_CLOG_XIDS_PER_PAGE;
    checkpoint.next_xid = 2 * XIDS + 3 * PG_CLOG_XIDS_PER_PAGE;
    given_all_segments();
    build(false);
    static uint8_t content[SEGMENT_BYTES];
    EXPECT_SIZES("pg_xact", ABSENT, SEGMENT_BYTES, 4 * PAGE_SIZE, ABSENT);
    ck_assert_int_eq(size_of("pg_xact/0001", content, sizeof(content)), SEGMENT_BYTES);
    ck_assert_uint_eq(content[PAGE_SIZE], 0);
    ck_assert_int_eq(size_of("pg_xact/0002", content, sizeof(content)), 4 * PAGE_SIZE);
    ck_assert_uint_eq(content[PAGE_SIZE], 3);
    end();
}
END_TEST

START_TEST(test_page_of_the_next_one_is_in_even_if_nobody_wrote_it)
{
    begin();
    checkpoint.next_xid = 4 * (uint64_t)XIDS;
    given_segments(STATE_CLOG, 0, 4);
    build(true);
    EXPECT_SIZES("pg_xact", COLD_BYTES, COLD_BYTES, COLD_BYTES, COLD_BYTES, PAGE_SIZE, ABSENT);
    end();
}
END_TEST

/* The ring of transactions has 4096 segments; the next one is in the second of the next round. */
START_TEST(test_behind_the_wraparound_the_old_end_is_cold_and_the_new_begin_hot)
{
    begin();
    checkpoint.oldest_xid = 4094u * XIDS;
    checkpoint.next_xid = ((uint64_t)1 << 32) + XIDS + 5;
    given_segments(STATE_CLOG, 0, 3);
    given_segments(STATE_CLOG, 4093, 4096);
    given_prepared(((uint64_t)1 << 32) + 5, "prepared");
    build(true);
    uint8_t first;
    EXPECT_SIZES("pg_xact", SEGMENT_BYTES, PAGE_SIZE, ABSENT);
    ck_assert_int_eq(size_of("pg_xact/0FFD", &first, 1), ABSENT);
    ck_assert_int_eq(size_of("pg_xact/0FFE", &first, 1), COLD_BYTES);
    ck_assert_int_eq(size_of("pg_xact/0FFF", &first, 1), COLD_BYTES);
    end();
}
END_TEST

/* The ring of members ends within a segment: 82,041 pages. */
START_TEST(test_last_segment_of_the_members_is_as_long_as_the_ring)
{
    begin();
    uint32_t last = UINT32_MAX / PG_MULTI_MEMBERS_PER_PAGE / PG_SLRU_PAGES_PER_SEGMENT;
    uint8_t page[PAGE_SIZE] = {0};
    uint32_t offset = last * MEMBERS + 5;
    memcpy(page + PG_MULTI_FIRST * sizeof(offset), &offset, sizeof(offset));
    put(page_key_state(STATE_MULTI_OFFSETS, 0, 0), VALUE_IMAGE, bytes_of(page, sizeof(page)));
    checkpoint.next_multi_offset = MEMBERS + 5;
    given_segments(STATE_MULTI_MEMBERS, 0, 3);
    given_segments(STATE_MULTI_MEMBERS, last - 1, last + 1);
    char name[64];
    uint8_t first;
    ck_assert_ok(str_format(name, sizeof(name), &msg, "pg_multixact/members/%04X", last), &msg);
    build(true);
    EXPECT_SIZES("pg_multixact/members", COLD_BYTES, PAGE_SIZE, ABSENT);
    ck_assert_int_eq(size_of(name, &first, 1), COLD_BYTES);
    build(false);
    uint32_t pages = UINT32_MAX / PG_MULTI_MEMBERS_PER_PAGE + 1;
    EXPECT_SIZES("pg_multixact/members", SEGMENT_BYTES, PAGE_SIZE, ABSENT);
    ck_assert_int_eq(
        size_of(name, &first, 1), (int64_t)(pages - last * PG_SLRU_PAGES_PER_SEGMENT) * PAGE_SIZE);
    end();
}
END_TEST

UNIT_MAIN(
    "base_backup",
    test_only_what_a_start_needs_is_in_and_the_rest_is_named,
    test_without_being_asked_nothing_is_left_out,
    test_segments_from_the_oldest_prepared_transaction_on_are_in,
    test_commit_times_of_a_prepared_transaction_are_written_too,
    test_prepared_before_commit_times_were_kept_makes_all_of_them_hot,
    test_truncated_segments_have_no_name_and_missing_ones_neither,
    test_pages_before_the_oldest_are_zeros_and_nothing_lies_behind_the_next,
    test_page_of_the_next_one_is_in_even_if_nobody_wrote_it,
    test_behind_the_wraparound_the_old_end_is_cold_and_the_new_begin_hot,
    test_last_segment_of_the_members_is_as_long_as_the_ring);
