#include "pageserver/timeline/history.h"

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/pg/pg_version.h"
#include "pageserver/timeline/gc_round.h"
#include "tests/unit/timeline/tenant_fixture.h"

#define SECOND 1000000ll

/* -- what a WAL would have done -- */

static void write_record(struct timeline *tl, lsn_t lsn, wall_us_t commit_time)
{
    struct page_batch *batch = page_batch_create();
    struct ingest_position position = {.lsn = lsn, .prev_record_lsn = lsn - 8};
    if (commit_time != 0) {
        uint64_t time = (uint64_t)(commit_time - PG_EPOCH_US), start = htole64(lsn - 8);
        page_batch_put(
            batch, timeline_number(tl),
            page_key_state(STATE_COMMIT_TIME, (uint32_t)(time >> 32), (uint32_t)time), lsn,
            VALUE_STATE, 0, bytes_of(&start, sizeof(start)));
    }
    page_batch_put_position(batch, timeline_number(tl), position);
    ck_assert_ok(page_store_write(timeline_store(tl), batch, &msg), &msg);
    page_batch_destroy(batch);
    timeline_advance(tl, position);
}

static err_t set_retention(uint64_t seconds, uint64_t bytes)
{
    struct tenant_request request = {
        .done = fixture_on_request, .retention = {.seconds = seconds, .wal_bytes = bytes}};
    tenant_set_retention(the_tenant(), &request);
    return fixture_run();
}

static err_t collect(void)
{
    struct tenant_request request = {.done = fixture_on_request};
    tenant_collect(the_tenant(), &request);
    return fixture_run();
}

static err_t lease(uint8_t timeline, const char *name, lsn_t lsn, uint64_t expires_us)
{
    struct tenant_request request = {
        .done = fixture_on_request, .lease = {.lsn = lsn, .expires_us = expires_us}};
    (void)snprintf(request.lease.name, sizeof(request.lease.name), "%s", name);
    tenant_put_lease(the_tenant(), &request, find(timeline));
    return fixture_run();
}

static err_t end_lease(uint8_t timeline, const char *name)
{
    struct tenant_request request = {.done = fixture_on_request};
    (void)snprintf(request.lease.name, sizeof(request.lease.name), "%s", name);
    tenant_drop_lease(the_tenant(), &request, find(timeline));
    return fixture_run();
}

static err_t bury(uint8_t id)
{
    struct tenant_request request = {.done = fixture_on_request};
    tenant_delete_timeline(the_tenant(), &request, find(id), true);
    return fixture_run();
}

static lsn_t cutoff(uint8_t id)
{
    return history_cutoff(timeline_history(find(id)));
}

static err_t check(uint8_t id, lsn_t lsn)
{
    return timeline_check_lsn(find(id), lsn, &msg);
}

/* Timeline 1 with a record a second up to `now`, durable; LSNs START + 100, 200 ... */
static void begin_with_commits(wall_us_t now, int count)
{
    fixture_begin_with_root();
    for (int i = 1; i <= count; i++) {
        write_record(find(1), START_LSN + (lsn_t)i * 100, now - (count - i) * SECOND);
    }
    fixture_reopen(); /* flushes */
    ck_assert_uint_eq(timeline_durable_lsn(find(1)), START_LSN + (lsn_t)count * 100);
}

/* -- flushes -- */

static unsigned told_durable[4]; /* by number */

static void on_timeline_durable(struct tenants_user *user, struct timeline *tl)
{
    (void)user;
    ck_assert_uint_lt(timeline_number(tl), ARRAY_LEN(told_durable));
    told_durable[timeline_number(tl)]++;
}

START_TEST(test_a_flush_tells_only_of_what_was_written)
{
    fixture_flush_bytes = 1;
    begin_with_commits(clock_wall(), 1);
    fixture.user.on_timeline_durable = on_timeline_durable;
    ck_assert_int_eq(put_timeline_(2, 1, START_LSN + 100), ERR_OK);
    ck_assert_int_eq(put_timeline_(3, 1, START_LSN + 100), ERR_OK);
    memset(told_durable, 0, sizeof(told_durable));
    for (lsn_t lsn = START_LSN + 200; lsn <= START_LSN + 300; lsn += 100) {
        unsigned before = told_durable[2];
        write_record(find(2), lsn, 0);
        tenant_written(the_tenant());
        fixture_settle();
        ck_assert_uint_eq(timeline_durable_lsn(find(2)), lsn);
        ck_assert_uint_gt(told_durable[2], before);
    }
    ck_assert_uint_eq(told_durable[1], 0);
    ck_assert_uint_eq(told_durable[3], 0);
    ck_assert_uint_eq(timeline_durable_lsn(find(3)), START_LSN + 100);
    fixture_end();
}
END_TEST

/* -- the window -- */

START_TEST(test_the_window_begins_with_the_first_commit_after_its_time)
{
    wall_us_t now = clock_wall();
    begin_with_commits(now, 10);
    struct gc_tree *tree = history_tree(tenant_history(the_tenant()));
    struct page_store *store = timeline_store(find(1));
    lsn_t begin = 0;
    struct history_retention retention = {.seconds = 3};
    ck_assert_ok(gc_window_begin(store, tree, 0, retention, now, &begin, &msg), &msg);
    ck_assert_uint_eq(begin, START_LSN + 800 - 8); /* the first after 7 */
    retention = (struct history_retention){.seconds = 3, .wal_bytes = 450};
    ck_assert_ok(gc_window_begin(store, tree, 0, retention, now, &begin, &msg), &msg);
    ck_assert_uint_eq(begin, START_LSN + 550); /* bytes ask for more */
    retention = (struct history_retention){.seconds = 3600};
    ck_assert_ok(gc_window_begin(store, tree, 0, retention, now, &begin, &msg), &msg);
    ck_assert_uint_eq(begin, START_LSN + 92); /* before the first: nothing is known */
    retention = (struct history_retention){.seconds = 1};
    ck_assert_ok(gc_window_begin(store, tree, 0, retention, now + 60 * SECOND, &begin, &msg), &msg);
    ck_assert_uint_eq(begin, START_LSN + 1000); /* nothing since: the state as of the end */
    history_tree_free(tree);
    fixture_end();
}
END_TEST

START_TEST(test_reads_and_branches_below_the_cutoff_are_refused_also_after_a_restart)
{
    begin_with_commits(clock_wall(), 10);
    ck_assert_int_eq(check(1, START_LSN + 100), ERR_OK);
    ck_assert_int_eq(set_retention(0, 300), ERR_OK);
    ck_assert_int_eq(collect(), ERR_OK);
    ck_assert_uint_eq(cutoff(1), START_LSN + 700);
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(check(1, START_LSN + 699), ERR_RANGE);
        ck_assert_int_eq(check(1, START_LSN + 700), ERR_OK);
        ck_assert_int_eq(put_timeline_((uint8_t)(2 + i), 1, START_LSN + 696), ERR_RANGE);
        ck_assert_int_eq(put_timeline_((uint8_t)(4 + i), 1, START_LSN + 704), ERR_OK);
        fixture_reopen();
    }
    ck_assert_uint_eq(history_retention(tenant_history(the_tenant())).wal_bytes, 300);
    ck_assert_int_eq(set_retention(0, 900), ERR_OK); /* a longer window brings nothing back */
    ck_assert_int_eq(collect(), ERR_OK);
    ck_assert_uint_eq(cutoff(1), START_LSN + 700);
    fixture_end();
}
END_TEST

START_TEST(test_the_cutoff_stays_within_what_is_durable)
{
    begin_with_commits(clock_wall(), 2);
    write_record(find(1), START_LSN + 900, 0);
    ck_assert_int_eq(set_retention(0, 0), ERR_OK);
    ck_assert_int_eq(collect(), ERR_OK);
    ck_assert_uint_eq(cutoff(1), START_LSN + 200);
    fixture_end();
}
END_TEST

/* -- leases -- */

START_TEST(test_a_lease_keeps_its_lsn_until_it_ends)
{
    begin_with_commits(clock_wall(), 10);
    ck_assert_int_eq(lease(1, "report", START_LSN + 100, LEASE_FOREVER), ERR_OK);
    ck_assert_int_eq(lease(1, "report", START_LSN + 100, LEASE_FOREVER), ERR_OK);
    ck_assert_int_eq(lease(1, "report", START_LSN + 200, LEASE_FOREVER), ERR_EXISTS);
    ck_assert_int_eq(lease(1, "short", START_LSN + 200, 1), ERR_OK); /* long over */
    ck_assert_int_eq(set_retention(0, 0), ERR_OK);
    ck_assert_int_eq(collect(), ERR_OK);
    fixture_reopen();
    ck_assert_int_eq(check(1, START_LSN + 100), ERR_OK);
    ck_assert_int_eq(check(1, START_LSN + 101), ERR_RANGE);
    ck_assert_int_eq(check(1, START_LSN + 200), ERR_RANGE);
    ck_assert_int_eq(lease(1, "late", START_LSN + 200, LEASE_FOREVER), ERR_RANGE);
    ck_assert_int_eq(lease(1, "also", START_LSN + 100, LEASE_FOREVER), ERR_OK);
    ck_assert_int_eq(put_timeline_(2, 1, START_LSN + 100), ERR_OK);
    ck_assert_int_eq(end_lease(1, "report"), ERR_OK);
    ck_assert_int_eq(end_lease(1, "report"), ERR_NOT_FOUND);
    ck_assert_int_eq(check(1, START_LSN + 100), ERR_OK); /* the other one */
    ck_assert_int_eq(end_lease(1, "also"), ERR_OK);
    ck_assert_int_eq(check(1, START_LSN + 100), ERR_RANGE);
    fixture_end();
}
END_TEST

START_TEST(test_a_lease_is_no_part_of_the_window)
{
    begin_with_commits(clock_wall(), 10);
    struct history *history = tenant_history(the_tenant());
    ck_assert_int_eq(lease(1, "report", START_LSN + 100, LEASE_FOREVER), ERR_OK);
    ck_assert_int_eq(set_retention(0, 0), ERR_OK);
    ck_assert_int_eq(collect(), ERR_OK);
    struct history_timeline *tl = timeline_history(find(1));
    ck_assert_int_eq(history_check(history, tl, START_LSN + 100, &msg), ERR_OK);
    ck_assert_int_eq(history_check_window(history, tl, START_LSN + 100, &msg), ERR_RANGE);
    ck_assert_int_eq(history_check_window(history, tl, START_LSN + 1000, &msg), ERR_OK);
    fixture_end();
}
END_TEST

START_TEST(test_leases_of_a_deleted_timeline_are_gone)
{
    begin_with_commits(clock_wall(), 3);
    ck_assert_int_eq(put_timeline_(2, 1, START_LSN + 200), ERR_OK);
    ck_assert_int_eq(lease(2, "mine", START_LSN + 200, LEASE_FOREVER), ERR_OK);
    ck_assert_int_eq(delete_timeline_(2), ERR_OK);
    fixture_settle();
    struct buf row = {0};
    ck_assert_int_eq(
        page_store_meta_get(timeline_store(find(1)), META_LEASE, 1, &row, &msg), ERR_NOT_FOUND);
    fixture_reopen();
    struct gc_tree *tree = history_tree(tenant_history(the_tenant()));
    ck_assert_uint_eq(tree->hold_count, 0);
    ck_assert_uint_eq(tree->timeline_count, 1);
    history_tree_free(tree);
    fixture_end();
}
END_TEST

/* -- files that were written anew -- */

START_TEST(test_a_compaction_on_request_is_told)
{
    begin_with_commits(clock_wall(), 3);
    ck_assert_uint_eq(fixture.rewritten, 0);
    ck_assert_int_eq(collect(), ERR_OK);
    ck_assert_uint_eq(fixture.rewritten, 1);
    fixture_end();
}
END_TEST

START_TEST(test_a_round_of_gc_tells_that_files_were_rewritten)
{
    fixture_gc_period_ms = 1;
    begin_with_commits(clock_wall(), 3);
    while (fixture.rewritten == 0) { /* the first round only looks */
        ck_assert_ok(page_store_compact(timeline_store(find(1)), &msg), &msg);
        fixture_settle();
    }
    fixture_end();
}
END_TEST

/* -- tombstones -- */

static size_t known_timelines(void)
{
    struct gc_tree *tree = history_tree(tenant_history(the_tenant()));
    size_t count = tree->timeline_count;
    history_tree_free(tree);
    return count;
}

START_TEST(test_a_deleted_parent_is_gone_for_users_and_there_for_its_children)
{
    begin_with_commits(clock_wall(), 5);
    ck_assert_int_eq(put_timeline_(2, 1, START_LSN + 300), ERR_OK);
    ck_assert_int_eq(bury(1), ERR_OK);
    for (int i = 0; i < 2; i++) {
        ck_assert_ptr_null(find(1));
        ck_assert_ptr_eq(tenant_first_timeline(the_tenant()), find(2));
        ck_assert_ptr_null(tenant_next_timeline(the_tenant(), find(2)));
        ck_assert_int_eq(put_timeline_(1, 0, START_LSN), ERR_EXISTS);
        ck_assert_int_eq(put_timeline_(3, 1, START_LSN + 300), ERR_NOT_FOUND);
        ck_assert_int_eq(check(2, START_LSN + 300), ERR_OK);
        ck_assert_int_eq(check(2, START_LSN + 200), ERR_RANGE); /* the parent's own past */
        ck_assert_uint_eq(known_timelines(), 2);
        ck_assert(timeline_is_ready(find(2)));
        fixture_reopen();
    }
    ck_assert_int_eq(delete_timeline_(2), ERR_OK);
    fixture_settle();
    ck_assert_uint_eq(known_timelines(), 0);
    ck_assert_int_eq(put_timeline_(1, 0, START_LSN), ERR_OK); /* the name is free again */
    fixture_end();
}
END_TEST

START_TEST(test_a_deleted_parent_goes_on_until_the_branch_lsn_is_in_the_object_store)
{
    begin_with_commits(clock_wall(), 2);
    ck_assert_int_eq(put_timeline_(2, 1, START_LSN + 400), ERR_OK);
    struct timeline *parent = find(1);
    timeline_set_user(parent, &(struct timeline_user){0}); /* somebody feeds it */
    ck_assert_int_eq(bury(1), ERR_OK);
    ck_assert_uint_eq(fixture.timelines_gone, 0);
    ck_assert(!timeline_is_ready(find(2)));
    write_record(parent, START_LSN + 400, 0);
    ck_assert(timeline_is_ready(find(2)));
    fixture.timelines_seen = 0;
    timeline_set_user(parent, NULL);
    fixture_reopen();                             /* flushes */
    ck_assert_uint_eq(fixture.timelines_seen, 2); /* who knows what is up there */
    parent = tenant_find_member(the_tenant(), timeline_number_id(1));
    timeline_set_user(parent, &(struct timeline_user){0});
    ck_assert_uint_eq(timeline_durable_lsn(parent), START_LSN + 400);
    ck_assert(timeline_is_ready(find(2)));
    const lsn_t uploaded[] = {0, START_LSN + 399, START_LSN + 400};
    for (unsigned i = 0; i < ARRAY_LEN(uploaded); i++) {
        timeline_set_remote_lsn(parent, uploaded[i]);
        tenant_uploaded(the_tenant());
        ck_assert_uint_eq(fixture.timelines_gone, i < 2 ? 0 : 1);
    }
    timeline_set_user(parent, NULL);
    fixture_end();
}
END_TEST

START_TEST(test_a_chain_of_deleted_parents_goes_with_the_last_child)
{
    begin_with_commits(clock_wall(), 2);
    ck_assert_int_eq(put_timeline_(2, 1, START_LSN + 100), ERR_OK);
    ck_assert_int_eq(put_timeline_(3, 2, START_LSN + 100), ERR_OK);
    ck_assert_int_eq(bury(1), ERR_OK);
    ck_assert_int_eq(bury(2), ERR_OK);
    ck_assert_uint_eq(known_timelines(), 3);
    ck_assert_int_eq(check(3, START_LSN + 100), ERR_OK);
    ck_assert_int_eq(bury(3), ERR_OK); /* without children: an ordinary deletion */
    fixture_settle();
    ck_assert_uint_eq(known_timelines(), 0);
    fixture_reopen();
    ck_assert_uint_eq(known_timelines(), 0);
    fixture_end();
}
END_TEST

UNIT_MAIN(
    "history",
    test_a_flush_tells_only_of_what_was_written,
    test_the_window_begins_with_the_first_commit_after_its_time,
    test_reads_and_branches_below_the_cutoff_are_refused_also_after_a_restart,
    test_the_cutoff_stays_within_what_is_durable,
    test_a_lease_keeps_its_lsn_until_it_ends,
    test_a_lease_is_no_part_of_the_window,
    test_leases_of_a_deleted_timeline_are_gone,
    test_a_compaction_on_request_is_told,
    test_a_round_of_gc_tells_that_files_were_rewritten,
    test_a_deleted_parent_is_gone_for_users_and_there_for_its_children,
    test_a_deleted_parent_goes_on_until_the_branch_lsn_is_in_the_object_store,
    test_a_chain_of_deleted_parents_goes_with_the_last_child);
