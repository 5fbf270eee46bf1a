/* Images made at ingest: whatever LSN is read, it takes one image and fewer records than the limit.
 */
#include "common/base/fault.h"
#include "common/base/mem.h"
#include "common/base/prng.h"
#include "common/pg/pg_control.h"
#include "pageserver/ingest/wal_ingest.h"
#include "pageserver/read/reconstruct.h"
#include "tests/lib/wal_builder.h"
#include "tests/unit/timeline/tenant_fixture.h"

#define SEGMENT_SIZE (16 * (uint32_t)MIB)
#define LIMIT        8u
#define BLOCKS       4u
#define RECORDS_MAX  400u
#define COUNTER_AT   PAGE_HEADER_SIZE /* in the page: the record that changed it last */

static const struct page_key relation = {.spc = 1663, .db = 5, .rel = 100};

static struct {
    struct wal_ingest_user user;
    struct wal_ingest *ingest;
    struct wal_builder builder;
    uint8_t timeline;
    unsigned restarts;
} driver;

/* Every record that was built: its end, its page, its number. */
static struct {
    lsn_t lsn;
    uint32_t block;
    uint16_t number;
} history[2 * RECORDS_MAX];
static size_t history_count;

static err_t read_page(
    struct page_reader *reader, struct page_key key, lsn_t lsn, uint8_t *page, struct errmsg *error)
{
    struct reconstruct work;
    reconstruct_init_with(&work, reader, lsn);
    err_t err = reconstruct_page(&work, key, page, NULL, error);
    reconstruct_deinit(&work);
    return err;
}

static void on_changed(struct wal_ingest_user *user, const struct page_key *keys, size_t count)
{
    (void)user;
    (void)keys;
    (void)count;
}

static void on_nothing(struct wal_ingest_user *user)
{
    (void)user;
}

static void feed_all(void)
{
    struct bytes wal = buf_view(&driver.builder.wal);
    size_t at = (size_t)(wal_ingest_next_lsn(driver.ingest) - driver.builder.begin_lsn);
    ck_assert_ok(
        wal_ingest_feed(
            driver.ingest, driver.builder.begin_lsn + at, bytes_of(wal.data + at, wal.size - at),
            &msg),
        &msg);
}

static void on_restart(struct wal_ingest_user *user)
{
    (void)user;
    driver.restarts++;
    feed_all();
}

static void start_ingest(uint8_t timeline)
{
    driver.timeline = timeline;
    driver.user = (struct wal_ingest_user){
        .on_changed = on_changed,
        .on_advanced = on_nothing,
        .on_room = on_nothing,
        .on_restart = on_restart,
        .on_stopped = on_nothing, /* it is idle when it is stopped: that is at once */
    };
    driver.ingest = wal_ingest_create(&(struct wal_ingest_options){
        .loop = fixture.loop,
        .executor = fixture.executor,
        .timeline = find(timeline),
        .user = &driver.user,
        .queue_bytes_max = 8 * MIB,
        .record_size_max = 64 * MIB,
        .records_bytes_max = 64 * MIB,
        .image_after_records = LIMIT,
        .read_page = read_page,
    });
}

static void stop_ingest(void)
{
    fixture_settle();
    wal_ingest_stop(driver.ingest);
    wal_ingest_destroy(driver.ingest);
    driver.ingest = NULL;
}

static void put_checkpoint(void)
{
    struct pg_checkpoint checkpoint = {.next_xid = 700, .next_oid = 20000, .next_multi = 1};
    struct page_batch *batch = page_batch_create();
    page_batch_put(
        batch, timeline_number(find(1)), page_key_state(STATE_CHECKPOINT, 0, 0), START_LSN,
        VALUE_STATE, 0, bytes_of(&checkpoint, sizeof(checkpoint)));
    ck_assert_ok(page_store_write(timeline_store(find(1)), batch, &msg), &msg);
    page_batch_destroy(batch);
}

static void note(lsn_t lsn, uint32_t block, uint16_t number)
{
    ck_assert_uint_lt(history_count, ARRAY_LEN(history));
    history[history_count].lsn = lsn;
    history[history_count].block = block;
    history[history_count++].number = number;
}

static void add_image(uint32_t block)
{
    uint8_t page[PAGE_SIZE] = {0};
    page_set_u16(page, PAGE_LOWER, COUNTER_AT + 64);
    page_set_u16(page, PAGE_UPPER, PAGE_SIZE);
    page_set_u16(page, PAGE_SPECIAL, PAGE_SIZE);
    page_set_u16(page, PAGE_VERSION, PAGE_SIZE | 4);
    struct page_key key = relation;
    key.block = block;
    struct wal_builder_record record = {
        .rmgr = RM_XLOG,
        .info = 0xB0, /* XLOG_FPI */
        .blocks = {{.key = key, .image = bytes_of(page, sizeof(page))}},
        .block_count = 1,
    };
    note(wal_builder_add(&driver.builder, &record), block, 0);
}

/* A generic record that writes `number` into the page. */
static void add_record(uint32_t block, uint16_t number)
{
    uint16_t piece[] = {COUNTER_AT, sizeof(number), number};
    struct page_key key = relation;
    key.block = block;
    struct wal_builder_record record = {
        .rmgr = RM_GENERIC,
        .blocks = {{.key = key, .data = bytes_of(piece, sizeof(piece))}},
        .block_count = 1,
    };
    note(wal_builder_add(&driver.builder, &record), block, number);
}

static void begin(void)
{
    fixture_begin();
    ck_assert_int_eq(attach(1, 1), ERR_OK);
    struct timeline_info info = info_of(1, 0, START_LSN);
    info.system_id = WAL_BUILDER_SYSTEM_ID;
    ck_assert_int_eq(put_info(&info), ERR_OK);
    import_root(1);
    put_checkpoint();
    history_count = 0;
    start_ingest(1);
    wal_builder_init(&driver.builder, START_LSN, SEGMENT_SIZE);
    for (uint32_t block = 0; block < BLOCKS; block++) {
        add_image(block);
    }
}

static void end(void)
{
    stop_ingest();
    wal_builder_deinit(&driver.builder);
    fixture_end();
}

static void add_records(struct prng *prng, uint16_t first, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        add_record((uint32_t)prng_below(prng, BLOCKS), (uint16_t)(first + i));
    }
}

static void on_wait(struct lsn_wait *wait, err_t result)
{
    (void)wait;
    fixture_done(result);
}

static void ingest_all(void)
{
    struct lsn_wait wait = {0};
    feed_all();
    lsn_wait_start(&wait, find(driver.timeline), driver.builder.lsn, 20000, on_wait);
    ck_assert_int_eq(fixture_run(), ERR_OK);
}

/* One page at one LSN: the number in it, and how many records the read took. */
static uint16_t number_at(uint8_t timeline, uint32_t block, lsn_t lsn, unsigned *ret_records)
{
    uint8_t page[PAGE_SIZE];
    struct page_key key = relation;
    key.block = block;
    struct reconstruct work;
    reconstruct_init(&work, timeline_store(find(timeline)), timeline_path(find(timeline)), lsn);
    ck_assert_ok(reconstruct_page(&work, key, page, NULL, &msg), &msg);
    *ret_records = 0;
    for (size_t i = 0; i < work.versions.count; i++) {
        *ret_records += work.versions.items[i].tag == VALUE_DELTA ? 1 : 0;
    }
    reconstruct_deinit(&work);
    return page_u16(page, COUNTER_AT);
}

/* At every LSN of the history and just behind it, for the page that changed there and all others.
 */
static void check_all(uint8_t timeline)
{
    uint16_t expected[BLOCKS] = {0};
    unsigned most = 0;
    for (size_t i = 0; i < history_count; i++) {
        expected[history[i].block] = history[i].number;
        for (uint32_t block = 0; i >= BLOCKS && block < BLOCKS; block++) {
            unsigned records = 0;
            ck_assert_uint_eq(
                number_at(timeline, block, history[i].lsn + i % 2, &records), expected[block]);
            most = MAX_OF(most, records);
        }
    }
    ck_assert_uint_eq(most, LIMIT - 1); /* the bound holds, and is used */
}

START_TEST(test_no_read_takes_as_many_records_as_the_limit)
{
    struct prng prng;
    prng_init(&prng, 1);
    begin();
    add_records(&prng, 1, RECORDS_MAX);
    ingest_all();
    check_all(1);
    end();
}
END_TEST

START_TEST(test_bound_holds_over_flushes_and_new_starts_of_ingest)
{
    struct prng prng;
    prng_init(&prng, 2);
    begin();
    for (uint16_t round = 0; round < 20; round++) {
        add_records(&prng, (uint16_t)(1 + 17 * round), 17);
        ingest_all();
        if (round % 3 == 0) {
            stop_ingest(); /* what it knew of pages is lost */
            ck_assert_ok(page_store_flush(timeline_store(find(1)), &msg), &msg);
            start_ingest(1);
        }
    }
    check_all(1);
    end();
}
END_TEST

START_TEST(test_bound_holds_when_records_are_ingested_again)
{
    struct prng prng;
    prng_init(&prng, 3);
    begin();
    fault_enable();
    for (uint16_t round = 0; round < 3; round++) {
        add_records(&prng, (uint16_t)(1 + 50 * round), 50);
        ck_assert_ok(fault_arm("page_store.write=full*1", &msg), &msg);
        ingest_all();
        ck_assert_uint_eq(driver.restarts, round + 1u);
    }
    check_all(1);
    end();
}
END_TEST

/* Records of the parent below the branch count for the child's pages. */
START_TEST(test_bound_holds_on_a_branch_that_inherits_records)
{
    struct prng prng;
    prng_init(&prng, 4);
    begin();
    add_records(&prng, 1, 101);
    ingest_all();
    stop_ingest();
    struct timeline_info info = info_of(2, 1, driver.builder.lsn);
    info.system_id = WAL_BUILDER_SYSTEM_ID;
    ck_assert_int_eq(put_info(&info), ERR_OK);
    lsn_t branch_lsn = driver.builder.lsn;
    start_ingest(2);
    add_records(&prng, 102, 60);
    feed_all();
    ingest_all();
    ck_assert_uint_eq(timeline_last_lsn(find(1)), branch_lsn);
    check_all(2);
    end();
}
END_TEST

UNIT_MAIN(
    "images",
    test_no_read_takes_as_many_records_as_the_limit,
    test_bound_holds_over_flushes_and_new_starts_of_ingest,
    test_bound_holds_when_records_are_ingested_again,
    test_bound_holds_on_a_branch_that_inherits_records);
