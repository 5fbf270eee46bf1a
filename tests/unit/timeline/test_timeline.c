#include "pageserver/timeline/timeline.h"

#include "tests/unit/timeline/tenant_fixture.h"

static void on_wait(struct lsn_wait *wait, err_t result)
{
    (void)wait;
    fixture_done(result);
}

static err_t wait_for(struct timeline *tl, lsn_t lsn, uint64_t timeout_ms)
{
    struct lsn_wait wait = {0};
    lsn_wait_start(&wait, tl, lsn, timeout_ms, on_wait);
    return fixture_run();
}

START_TEST(test_wait_for_what_is_there_ends_at_once)
{
    fixture_begin_with_root();
    ck_assert_int_eq(wait_for(find(1), START_LSN, 0), ERR_OK);
    fixture_end();
}
END_TEST

START_TEST(test_wait_ends_when_ingest_reaches_the_lsn)
{
    fixture_begin_with_root();
    struct lsn_wait wait = {0};
    fixture.done = false;
    lsn_wait_start(&wait, find(1), START_LSN + 16, LSN_WAIT_FOREVER, on_wait);
    timeline_advance(find(1), (struct ingest_position){.lsn = START_LSN + 8});
    ck_assert(!fixture.done);
    timeline_advance(find(1), (struct ingest_position){.lsn = START_LSN + 24});
    ck_assert(fixture.done);
    ck_assert_int_eq(fixture.result, ERR_OK);
    fixture_end();
}
END_TEST

static unsigned waits_told;

static void note_wait(struct timeline_user *user)
{
    (void)user;
    waits_told++;
}

START_TEST(test_who_serves_it_hears_of_a_wait_for_what_is_not_there)
{
    struct timeline_user user = {.on_wait = note_wait};
    struct lsn_wait wait = {0};
    fixture_begin_with_root();
    timeline_set_user(find(1), &user);
    ck_assert_int_eq(wait_for(find(1), START_LSN, 0), ERR_OK);
    ck_assert_uint_eq(waits_told, 0); /* it is there */
    lsn_wait_start(&wait, find(1), START_LSN + 16, LSN_WAIT_FOREVER, on_wait);
    ck_assert_uint_eq(waits_told, 1);
    lsn_wait_cancel(&wait);
    timeline_set_user(find(1), NULL);
    fixture_end();
}
END_TEST

START_TEST(test_wait_for_the_future_times_out)
{
    fixture_begin_with_root();
    ck_assert_int_eq(wait_for(find(1), START_LSN + 8, 5), ERR_TIMEOUT);
    ck_assert(!timeline_has_waiters(find(1)));
    fixture_end();
}
END_TEST

START_TEST(test_failed_ingest_ends_waits_and_keeps_what_is_there)
{
    fixture_begin_with_root();
    timeline_fail(find(1), "a record of nonsense");
    ck_assert_int_eq(wait_for(find(1), START_LSN + 8, LSN_WAIT_FOREVER), ERR_FAILED);
    ck_assert_int_eq(wait_for(find(1), START_LSN, LSN_WAIT_FOREVER), ERR_OK);
    ck_assert_str_eq(timeline_failure(find(1)), "a record of nonsense");
    fixture_end();
}
END_TEST

START_TEST(test_branch_ahead_of_its_parent_waits_for_it)
{
    fixture_begin_with_root();
    ck_assert_int_eq(put_timeline_(2, 1, START_LSN + 64), ERR_OK);
    ck_assert_int_eq(put_timeline_(3, 2, START_LSN + 64), ERR_OK);
    ck_assert_int_eq(wait_for(find(3), START_LSN, 5), ERR_TIMEOUT);
    timeline_advance(find(1), (struct ingest_position){.lsn = START_LSN + 64});
    ck_assert_int_eq(wait_for(find(3), START_LSN, 5), ERR_OK);
    fixture_end();
}
END_TEST

START_TEST(test_path_of_a_branch_cuts_each_ancestor_at_its_branch_lsn)
{
    fixture_begin_with_root();
    timeline_advance(find(1), (struct ingest_position){.lsn = START_LSN + 800});
    ck_assert_int_eq(put_timeline_(2, 1, START_LSN + 800), ERR_OK);
    ck_assert_int_eq(put_timeline_(3, 2, START_LSN + 400), ERR_OK); /* below its parent's start */
    const struct page_path *path = timeline_path(find(3)); /* nothing of timeline 2 is in it */
    ck_assert_uint_eq(path->count, 2);
    ck_assert_uint_eq(path->spans[0].timeline, 3);
    ck_assert_uint_eq(path->spans[0].max_lsn, UINT64_MAX);
    ck_assert_uint_eq(path->spans[1].timeline, 1);
    ck_assert_uint_eq(path->spans[1].max_lsn, START_LSN + 400);
    timeline_advance(find(2), (struct ingest_position){.lsn = START_LSN + 880});
    ck_assert_int_eq(put_timeline_(4, 2, START_LSN + 840), ERR_OK);
    path = timeline_path(find(4));
    ck_assert_uint_eq(path->count, 3);
    ck_assert_uint_eq(path->spans[1].timeline, 2);
    ck_assert_uint_eq(path->spans[1].max_lsn, START_LSN + 840);
    ck_assert_uint_eq(path->spans[2].timeline, 1);
    ck_assert_uint_eq(path->spans[2].max_lsn, START_LSN + 800);
    ck_assert_uint_eq(timeline_root_start_lsn(find(3)), START_LSN);
    fixture_end();
}
END_TEST

START_TEST(test_durable_lsn_is_what_a_finished_flush_began_with)
{
    fixture_begin_with_root();
    struct timeline *tl = find(1);
    timeline_advance(tl, (struct ingest_position){.lsn = START_LSN + 8});
    timeline_flush_begins(tl);
    timeline_advance(tl, (struct ingest_position){.lsn = START_LSN + 16});
    ck_assert_uint_eq(timeline_durable_lsn(tl), START_LSN);
    timeline_flush_succeeded(tl);
    ck_assert_uint_eq(timeline_durable_lsn(tl), START_LSN + 8);
    fixture_end();
}
END_TEST

START_TEST(test_size_read_before_ingest_moved_on_is_not_cached)
{
    fixture_begin_with_root();
    struct timeline *tl = find(1);
    struct page_key rel = {.spc = 1663, .db = 5, .rel = 100};
    struct fork_size size = {.exists = true, .blocks = 3, .lsn = START_LSN}, found;
    timeline_advance(tl, (struct ingest_position){.lsn = START_LSN + 8});
    timeline_cache_size(tl, rel, size, START_LSN);
    ck_assert(!timeline_cached_size(tl, rel, &found));
    timeline_cache_size(tl, rel, size, START_LSN + 8);
    ck_assert(timeline_cached_size(tl, rel, &found));
    size.blocks = 4;
    timeline_size_changed(tl, rel, size);
    ck_assert(timeline_cached_size(tl, rel, &found));
    ck_assert_uint_eq(found.blocks, 4);
    fixture_end();
}
END_TEST

START_TEST(test_row_survives_encoding)
{
    struct timeline_info info = info_of(9, 4, START_LSN + 8), decoded;
    struct timeline_texts texts;
    struct buf row = {0};
    info.state = TIMELINE_ACTIVE;
    info.number = 12;
    info.parent_number = 3;
    timeline_info_encode(&info, &row);
    ck_assert_ok(timeline_info_decode(12, buf_view(&row), &texts, &decoded, &msg), &msg);
    ck_assert_uint_eq(decoded.parent_number, 3);
    ck_assert_uint_eq(decoded.start_lsn, START_LSN + 8);
    ck_assert_str_eq(decoded.safekeepers, info.safekeepers);
    ck_assert(timeline_id_equal(decoded.parent, info.parent));
    for (size_t size = 0; size < row.size; size++) {
        ck_assert_int_eq(
            timeline_info_decode(12, bytes_of(row.data, size), &texts, &decoded, &msg),
            ERR_CORRUPT);
    }
    buf_deinit(&row);
}
END_TEST

UNIT_MAIN(
    "timeline",
    test_wait_for_what_is_there_ends_at_once,
    test_wait_ends_when_ingest_reaches_the_lsn,
    test_who_serves_it_hears_of_a_wait_for_what_is_not_there,
    test_wait_for_the_future_times_out,
    test_failed_ingest_ends_waits_and_keeps_what_is_there,
    test_branch_ahead_of_its_parent_waits_for_it,
    test_path_of_a_branch_cuts_each_ancestor_at_its_branch_lsn,
    test_durable_lsn_is_what_a_finished_flush_began_with,
    test_size_read_before_ingest_moved_on_is_not_cached,
    test_row_survives_encoding);
