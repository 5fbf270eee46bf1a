#include "pageserver/ingest/wal_ingest.h"

#include <sched.h>
#include <stdatomic.h>

#include "common/base/fault.h"
#include "common/base/mem.h"
#include "common/base/prng.h"
#include "common/pg/pg_control.h"
#include "tests/lib/wal_builder.h"
#include "tests/unit/timeline/tenant_fixture.h"

#define SEGMENT_SIZE (16 * (uint32_t)MIB)

static const struct page_key relation = {.spc = 1663, .db = 5, .rel = 100};

/* One ingest and what it told its user. */
static struct {
    struct wal_ingest_user user;
    struct wal_ingest *ingest;
    struct wal_builder builder;
    unsigned advanced, restarts, changed;
    bool stopped;
} driver;

static void on_changed(struct wal_ingest_user *user, const struct page_key *keys, size_t count)
{
    (void)user;
    (void)keys;
    driver.changed += (unsigned)count;
}

static void on_advanced(struct wal_ingest_user *user)
{
    (void)user;
    driver.advanced++;
}

static void on_nothing(struct wal_ingest_user *user)
{
    (void)user;
}

static void feed_all(size_t piece_max, struct prng *prng);

static void on_restart(struct wal_ingest_user *user)
{
    (void)user;
    driver.restarts++;
    feed_all(1 * MIB, NULL);
}

static void on_stopped(struct wal_ingest_user *user)
{
    (void)user;
    driver.stopped = true;
    loop_stop(fixture.loop);
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

static _Atomic bool copy_began, copy_may_go_on = true;

/* Images only: redo is another folder's. */
static err_t read_page(
    struct page_reader *reader, struct page_key key, lsn_t lsn, uint8_t *page, struct errmsg *error)
{
    atomic_store(&copy_began, true);
    while (!atomic_load(&copy_may_go_on)) {
        (void)sched_yield();
    }
    struct page_versions versions = {0};
    err_t err = page_reader_collect(reader, key, lsn, &versions, error);
    ck_assert_uint_eq(versions.count, 1);
    ck_assert_uint_eq(versions.items[0].tag, VALUE_IMAGE);
    memcpy(page, page_version_value(&versions, &versions.items[0]).data, PAGE_SIZE);
    page_versions_deinit(&versions);
    return err;
}

static void begin_with_limit(size_t records_bytes_max)
{
    fixture_begin();
    ck_assert_int_eq(attach(1, 1), ERR_OK);
    struct timeline_info info = info_of(1, 0, START_LSN);
    info.system_id = WAL_BUILDER_SYSTEM_ID;
    ck_assert_int_eq(put_info(&info), ERR_OK);
    import_root(1);
    put_checkpoint();
    driver.user = (struct wal_ingest_user){
        .on_changed = on_changed,
        .on_advanced = on_advanced,
        .on_room = on_nothing,
        .on_restart = on_restart,
        .on_stopped = on_stopped,
    };
    driver.ingest = wal_ingest_create(&(struct wal_ingest_options){
        .loop = fixture.loop,
        .executor = fixture.executor,
        .timeline = find(1),
        .user = &driver.user,
        .queue_bytes_max = 8 * MIB,
        .record_size_max = 64 * MIB,
        .records_bytes_max = records_bytes_max,
        .read_page = read_page,
    });
    wal_builder_init(&driver.builder, START_LSN, SEGMENT_SIZE);
}

static void begin(void)
{
    begin_with_limit(64 * MIB);
}

static void end(void)
{
    wal_ingest_stop(driver.ingest);
    if (!driver.stopped) {
        loop_run(fixture.loop);
    }
    wal_ingest_destroy(driver.ingest);
    driver.ingest = NULL;
    wal_builder_deinit(&driver.builder);
    fixture_end();
}

/* A whole page: the simplest record that makes a version. */
static lsn_t add_page(uint32_t block, uint8_t fill)
{
    uint8_t page[PAGE_SIZE];
    memset(page, fill, sizeof(page));
    struct page_key key = relation;
    key.block = block;
    struct wal_builder_record record = {
        .rmgr = RM_XLOG,
        .info = 0xB0, /* XLOG_FPI */
        .blocks = {{.key = key, .image = bytes_of(page, sizeof(page))}},
        .block_count = 1,
    };
    return wal_builder_add(&driver.builder, &record);
}

/* The WAL from where ingest wants it on, in pieces of random size when there is a prng. */
static void feed_all(size_t piece_max, struct prng *prng)
{
    struct bytes wal = buf_view(&driver.builder.wal);
    lsn_t lsn = wal_ingest_next_lsn(driver.ingest);
    while (lsn < driver.builder.begin_lsn + wal.size) {
        size_t at = (size_t)(lsn - driver.builder.begin_lsn);
        size_t size = prng == NULL ? piece_max : (size_t)prng_below(prng, piece_max) + 1;
        size = MIN_OF(size, wal.size - at);
        ck_assert_ok(
            wal_ingest_feed(driver.ingest, lsn, bytes_of(wal.data + at, size), &msg), &msg);
        lsn += size;
    }
}

static void on_wait(struct lsn_wait *wait, err_t result)
{
    (void)wait;
    fixture_done(result);
}

static err_t wait_for(lsn_t lsn)
{
    struct lsn_wait wait = {0};
    lsn_wait_start(&wait, find(1), lsn, 20000, on_wait);
    return fixture_run();
}

static uint32_t blocks_of(struct page_key rel)
{
    struct fork_size size = {0};
    struct page_reader *reader =
        page_reader_create(timeline_store(find(1)), timeline_path(find(1)));
    ck_assert_ok(page_reader_rel_size(reader, rel, timeline_last_lsn(find(1)), &size, &msg), &msg);
    page_reader_destroy(reader);
    return size.blocks;
}

static uint32_t blocks_now(void)
{
    return blocks_of(relation);
}

START_TEST(test_records_become_versions_and_readers_hear_of_it)
{
    begin();
    for (uint32_t i = 0; i < 10; i++) {
        (void)add_page(i, (uint8_t)i);
    }
    feed_all(1 * MIB, NULL);
    ck_assert_int_eq(wait_for(driver.builder.lsn), ERR_OK);
    ck_assert_uint_eq(blocks_now(), 10);
    ck_assert_uint_ge(driver.changed, 10);
    ck_assert_uint_eq(timeline_prev_record_lsn(find(1)), driver.builder.last_begin);
    end();
}
END_TEST

/* 0x20 of RM_SMGR: truncate to `blocks`, all forks. */
static lsn_t add_truncation(uint32_t blocks)
{
    uint32_t main[5] = {blocks, relation.spc, relation.db, relation.rel, 7};
    struct wal_builder_record record = {
        .rmgr = RM_SMGR, .info = 0x20, .main_data = bytes_of(main, sizeof(main))};
    return wal_builder_add(&driver.builder, &record);
}

START_TEST(test_a_cached_size_follows_the_wal)
{
    struct fork_size size = {0};
    begin();
    (void)add_page(9, 1);
    feed_all(1 * MIB, NULL);
    ck_assert_int_eq(wait_for(driver.builder.lsn), ERR_OK);
    timeline_cache_size(
        find(1), relation,
        (struct fork_size){.exists = true, .blocks = 10, .lsn = driver.builder.lsn},
        driver.builder.lsn);
    (void)add_truncation(4);
    feed_all(1 * MIB, NULL);
    ck_assert_int_eq(wait_for(driver.builder.lsn), ERR_OK);
    ck_assert(timeline_cached_size(find(1), relation, &size));
    ck_assert_uint_eq(size.blocks, 4);
    end();
}
END_TEST

START_TEST(test_pieces_of_any_size_lead_to_the_same_end)
{
    begin();
    struct prng prng;
    prng_init(&prng, 20261122);
    for (uint32_t i = 0; i < 40; i++) {
        (void)add_page(i, (uint8_t)i);
        (void)wal_builder_add_sized(&driver.builder, 300 + (uint32_t)prng_below(&prng, 20000));
    }
    feed_all(3000, &prng);
    ck_assert_int_eq(wait_for(driver.builder.lsn), ERR_OK);
    ck_assert_uint_eq(blocks_now(), 40);
    end();
}
END_TEST

START_TEST(test_wal_that_is_known_already_is_skipped_and_a_gap_is_refused)
{
    begin();
    (void)add_page(0, 1);
    struct bytes wal = buf_view(&driver.builder.wal);
    ck_assert_ok(wal_ingest_feed(driver.ingest, START_LSN, bytes_of(wal.data, 100), &msg), &msg);
    ck_assert_ok(wal_ingest_feed(driver.ingest, START_LSN, bytes_of(wal.data, 60), &msg), &msg);
    ck_assert_uint_eq(wal_ingest_next_lsn(driver.ingest), START_LSN + 100);
    ck_assert_int_eq(
        wal_ingest_feed(driver.ingest, START_LSN + 101, bytes_of(wal.data + 101, 10), &msg),
        ERR_CORRUPT);
    ck_assert_ok(wal_ingest_feed(driver.ingest, START_LSN, wal, &msg), &msg);
    ck_assert_int_eq(wait_for(driver.builder.lsn), ERR_OK);
    end();
}
END_TEST

START_TEST(test_damaged_record_stops_ingest_behind_the_last_good_one)
{
    begin();
    lsn_t good = add_page(0, 1);
    (void)add_page(1, 2);
    driver.builder.wal.data[good - START_LSN + 200] ^= 1;
    feed_all(1 * MIB, NULL);
    ck_assert_int_eq(wait_for(driver.builder.lsn), ERR_FAILED);
    ck_assert_uint_eq(timeline_last_lsn(find(1)), good);
    ck_assert_uint_eq(blocks_now(), 1);
    ck_assert_ptr_nonnull(timeline_failure(find(1)));
    end();
}
END_TEST

START_TEST(test_full_disk_is_waited_out)
{
    begin();
    fault_enable();
    ck_assert_ok(fault_arm("page_store.write=full*2", &msg), &msg);
    for (uint32_t i = 0; i < 3; i++) {
        (void)add_page(i, (uint8_t)i);
    }
    feed_all(1 * MIB, NULL);
    ck_assert_int_eq(wait_for(driver.builder.lsn), ERR_OK);
    ck_assert_uint_eq(driver.restarts, 2);
    ck_assert_uint_eq(blocks_now(), 3);
    ck_assert_ptr_null(timeline_failure(find(1)));
    end();
}
END_TEST

#define FLUSH_BYTES MIB /* of the fixture */

static size_t open_bytes_max;

static void on_advanced_watch(struct wal_ingest_user *user)
{
    on_advanced(user);
    open_bytes_max = MAX_OF(open_bytes_max, page_store_open_bytes(timeline_store(find(1))));
}

static void on_flushed_go_on(struct tenants_user *user, struct tenant *tenant)
{
    (void)user;
    (void)tenant;
    if (driver.ingest != NULL) {
        wal_ingest_room(driver.ingest);
    }
}

START_TEST(test_ingest_waits_for_a_flush_instead_of_memory)
{
    begin();
    fixture.user.on_flushed = on_flushed_go_on;
    driver.user.on_advanced = on_advanced_watch;
    fault_enable();
    ck_assert_ok(fault_arm("page_store.flush=busy*3", &msg), &msg);
    for (uint32_t i = 0; i < 1000; i++) {
        (void)add_page(i, (uint8_t)i);
    }
    ck_assert_uint_gt(driver.builder.wal.size, 6 * FLUSH_BYTES);
    feed_all(1 * MIB, NULL);
    ck_assert_int_eq(wait_for(driver.builder.lsn), ERR_OK);
    ck_assert_uint_eq(blocks_now(), 1000);
    ck_assert_uint_eq(driver.restarts, 0);
    ck_assert_uint_ge(open_bytes_max, 2 * FLUSH_BYTES);
    ck_assert_uint_lt(open_bytes_max, 2 * FLUSH_BYTES + 512 * KIB);
    end();
}
END_TEST

/* CREATE DATABASE by file copy: more than a layer should hold. */
static void add_file_copy(uint32_t db)
{
    uint32_t fields[] = {db, 1663, 5, 1663};
    struct wal_builder_record record = {
        .rmgr = RM_DBASE, .info = 0, .main_data = bytes_of(fields, sizeof(fields))};
    (void)wal_builder_add(&driver.builder, &record);
}

START_TEST(test_copied_database_goes_past_the_layers_and_can_be_written_at_once)
{
    begin();
    fixture.user.on_flushed = on_flushed_go_on;
    for (uint32_t i = 0; i < 1500; i++) {
        (void)add_page(i, (uint8_t)i);
    }
    add_file_copy(6);
    struct page_key copied = relation;
    copied.db = 6;
    uint8_t page[PAGE_SIZE];
    memset(page, 'n', sizeof(page));
    copied.block = 1500;
    struct wal_builder_record record = {
        .rmgr = RM_XLOG,
        .info = 0xB0, /* XLOG_FPI */
        .blocks = {{.key = copied, .image = bytes_of(page, sizeof(page))}},
        .block_count = 1,
    };
    (void)wal_builder_add(&driver.builder, &record); /* most likely in the same piece */
    uint64_t uid = timeline_uid(find(1));
    feed_all(1 * MIB, NULL);
    ck_assert_int_eq(wait_for(driver.builder.lsn), ERR_OK);
    ck_assert_uint_eq(blocks_now(), 1500);
    copied.block = 0;
    ck_assert_uint_eq(blocks_of(copied), 1501);
    ck_assert_uint_ne(timeline_uid(find(1)), uid); /* whatever was cached of db 6 is forgotten */
    copied.block = 77;
    struct page_reader *reader =
        page_reader_create(timeline_store(find(1)), timeline_path(find(1)));
    ck_assert_ok(read_page(reader, copied, timeline_last_lsn(find(1)), page, &msg), &msg);
    page_reader_destroy(reader);
    ck_assert_uint_eq(page[PAGE_SIZE - 1], 77);
    end();
}
END_TEST

/* One thread for ingest: a copy of one timeline that does not end leaves it to the others. */
START_TEST(test_copied_database_keeps_no_other_timeline_waiting)
{
    struct executor *one = NULL, *copier = NULL;
    fixture_begin_with_root();
    put_checkpoint();
    ck_assert_ok(executor_create(fixture.loop, 1, &one, &msg), &msg);
    ck_assert_ok(executor_create(fixture.loop, 1, &copier, &msg), &msg);
    atomic_store(&copy_may_go_on, false);
    ck_assert_int_eq(put_timeline_(2, 1, START_LSN), ERR_OK);
    struct wal_ingest *ingests[2];
    struct wal_builder builders[2];
    driver.user = (struct wal_ingest_user){
        .on_changed = on_changed,
        .on_advanced = on_advanced,
        .on_room = on_nothing,
        .on_restart = on_restart,
        .on_stopped = on_nothing,
    };
    for (uint8_t i = 0; i < 2; i++) {
        struct timeline_info info = *timeline_info(find(i + 1));
        info.system_id = WAL_BUILDER_SYSTEM_ID;
        timeline_update_info(find(i + 1), &info);
        ingests[i] = wal_ingest_create(&(struct wal_ingest_options){
            .loop = fixture.loop,
            .executor = one,
            .copier = copier,
            .timeline = find(i + 1),
            .user = &driver.user,
            .queue_bytes_max = 8 * MIB,
            .record_size_max = 64 * MIB,
            .records_bytes_max = 64 * MIB,
            .read_page = read_page,
        });
        wal_builder_init(&driver.builder, START_LSN, SEGMENT_SIZE);
        (void)add_page(0, 1);
        if (i == 0) {
            add_file_copy(6);
        }
        (void)add_page(1, 1);
        builders[i] = driver.builder;
        ck_assert_ok(
            wal_ingest_feed(ingests[i], START_LSN, buf_view(&builders[i].wal), &msg), &msg);
    }
    struct lsn_wait wait = {0};
    lsn_wait_start(&wait, find(2), builders[1].lsn, 20000, on_wait);
    ck_assert_int_eq(fixture_run(), ERR_OK);
    while (!atomic_load(&copy_began)) {
        (void)sched_yield();
    }
    ck_assert_uint_lt(timeline_last_lsn(find(1)), builders[0].lsn);
    atomic_store(&copy_may_go_on, true);
    lsn_wait_start(&wait, find(1), builders[0].lsn, 20000, on_wait);
    ck_assert_int_eq(fixture_run(), ERR_OK);
    struct page_key copied = relation;
    copied.db = 6;
    ck_assert_uint_eq(blocks_of(copied), 1);
    ck_assert_uint_eq(blocks_now(), 2);
    for (size_t i = 0; i < 2; i++) {
        wal_ingest_stop(ingests[i]);
        wal_ingest_destroy(ingests[i]);
        wal_builder_deinit(&builders[i]);
    }
    executor_destroy(one);
    executor_destroy(copier);
    fixture_end();
}
END_TEST

START_TEST(test_full_disk_amid_a_copied_database_is_waited_out)
{
    begin();
    fixture.user.on_flushed = on_flushed_go_on;
    fault_enable();
    for (uint32_t i = 0; i < 600; i++) {
        (void)add_page(i, (uint8_t)i);
    }
    lsn_t before = driver.builder.lsn;
    feed_all(1 * MIB, NULL);
    ck_assert_int_eq(wait_for(before), ERR_OK);
    fixture_settle();
    add_file_copy(6);
    ck_assert_ok(fault_arm("page_store.import=full*1", &msg), &msg);
    feed_all(1 * MIB, NULL);
    ck_assert_int_eq(wait_for(driver.builder.lsn), ERR_OK);
    ck_assert_uint_eq(driver.restarts, 1);
    struct page_key copied = relation;
    copied.db = 6;
    ck_assert_uint_eq(blocks_of(copied), 600);
    end();
}
END_TEST

START_TEST(test_record_larger_than_all_limits_of_pieces_passes_alone)
{
    begin_with_limit(1 * MIB);
    (void)add_page(0, 1);
    (void)wal_builder_add_sized(&driver.builder, 5 * MIB); /* nobody else wants the memory */
    (void)add_page(1, 1);
    feed_all(200 * KIB, NULL);
    ck_assert_int_eq(wait_for(driver.builder.lsn), ERR_OK);
    ck_assert_uint_eq(blocks_now(), 2);
    ck_assert_uint_eq(driver.restarts, 0);
    end();
}
END_TEST

START_TEST(test_stop_while_a_piece_is_at_work_waits_for_it)
{
    begin();
    for (uint32_t i = 0; i < 200; i++) {
        (void)add_page(i, (uint8_t)i);
    }
    feed_all(1 * MIB, NULL);
    end(); /* asserts inside that nothing runs any more */
}
END_TEST

UNIT_MAIN(
    "wal_ingest",
    test_records_become_versions_and_readers_hear_of_it,
    test_a_cached_size_follows_the_wal,
    test_pieces_of_any_size_lead_to_the_same_end,
    test_wal_that_is_known_already_is_skipped_and_a_gap_is_refused,
    test_damaged_record_stops_ingest_behind_the_last_good_one,
    test_full_disk_is_waited_out,
    test_ingest_waits_for_a_flush_instead_of_memory,
    test_copied_database_goes_past_the_layers_and_can_be_written_at_once,
    test_copied_database_keeps_no_other_timeline_waiting,
    test_full_disk_amid_a_copied_database_is_waited_out,
    test_record_larger_than_all_limits_of_pieces_passes_alone,
    test_stop_while_a_piece_is_at_work_waits_for_it);
