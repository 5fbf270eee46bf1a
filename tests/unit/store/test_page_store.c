/* What reads of a page store find: versions, sizes, lists; over a path, layers, and files. */
#include "tests/unit/store/page_store_fixture.h"

#include "common/base/fault.h"

START_TEST(test_read_collects_down_to_the_newest_image)
{
    begin();
    struct page_key key = page_of(100, 7);
    put(store, ROOT, key, 10, VALUE_IMAGE, "old");
    put(store, ROOT, key, 20, VALUE_DELTA, "a");
    put(store, ROOT, key, 30, VALUE_IMAGE, "new");
    put(store, ROOT, key, 40, VALUE_DELTA, "b");
    put(store, ROOT, page_of(100, 8), 35, VALUE_DELTA, "neighbour");
    ck_assert_str_eq(collected(root_path(), key, 100), "D40 I30");
    ck_assert_str_eq(collected(root_path(), key, 39), "I30");
    ck_assert_str_eq(collected(root_path(), key, 29), "D20 I10");
    ck_assert_str_eq(collected(root_path(), key, 10), "I10");
    ck_assert_str_eq(collected(root_path(), key, 9), "");
    end();
}
END_TEST

/* "7: D30 I10; 8: I20": as collected(), of some pages by one reader that expects `count` of them.
 */
static const char *walked(struct page_path *path, uint32_t count, const uint32_t *blocks, size_t n)
{
    static struct buf text;
    struct page_reader *reader = page_reader_create(store, path);
    page_reader_expect(reader, page_of(100, 0), count);
    buf_clear(&text);
    for (size_t i = 0; i < n; i++) {
        ck_assert_ok(
            page_reader_collect(reader, page_of(100, blocks[i]), 100, &versions, &msg), &msg);
        buf_printf(&text, "%s%" PRIu32 ":", i == 0 ? "" : "; ", blocks[i]);
        for (size_t at = 0; at < versions.count; at++) {
            const struct page_version *version = &versions.items[at];
            buf_printf(&text, " %c%" PRIu64, version->tag, version->lsn);
        }
    }
    page_reader_destroy(reader);
    mem_free(path);
    return buf_cstr(&text);
}

START_TEST(test_walk_finds_what_single_reads_find)
{
    begin();
    put(store, ROOT, page_of(99, 9), 10, VALUE_IMAGE, "before");
    put(store, ROOT, page_of(100, 0), 10, VALUE_IMAGE, "x");
    put(store, ROOT, page_of(100, 1), 10, VALUE_IMAGE, "x");
    for (lsn_t lsn = 11; lsn < 40; lsn++) { /* old ones, more than one steps over */
        put(store, ROOT, page_of(100, 1), lsn, VALUE_DELTA, "old");
    }
    put(store, ROOT, page_of(100, 1), 50, VALUE_IMAGE, "x");
    put(store, ROOT, page_of(100, 1), 101, VALUE_IMAGE, "newer than the read");
    put(store, ROOT, page_of(100, 3), 30, VALUE_IMAGE, "x");
    put(store, ROOT, page_of(100, 4), 30, VALUE_IMAGE, "x");
    put(store, ROOT, page_of(100, 4), 40, VALUE_DELTA, "read again, it stands behind this");
    ck_assert_ok(page_store_flush(store, &msg), &msg);
    put(store, ROOT, page_of(100, 3), 60, VALUE_DELTA, "in a layer");
    uint32_t in_order[] = {0, 1, 2, 3, 4};
    ck_assert_str_eq(
        walked(root_path(), 5, in_order, 5), "0: I10; 1: I50; 2:; 3: D60 I30; 4: D40 I30");
    uint32_t again[] = {3, 3, 0, 4, 4};
    ck_assert_str_eq(
        walked(root_path(), 5, again, 5), "3: D60 I30; 3: D60 I30; 0: I10; 4: D40 I30; 4: D40 I30");
    ck_assert_str_eq(
        walked(root_path(), 3, in_order, 5), "0: I10; 1: I50; 2:; 3: D60 I30; 4: D40 I30");
    end();
}
END_TEST

START_TEST(test_walk_goes_over_a_branch_and_its_parent)
{
    begin();
    for (uint32_t block = 0; block < 6; block++) {
        put(store, ROOT, page_of(100, block), 10, VALUE_IMAGE, "x");
        put(store, ROOT, page_of(100, block), 40, VALUE_DELTA, "after the branch");
    }
    put(store, CHILD, page_of(100, 1), 28, VALUE_DELTA, "x");
    put(store, CHILD, page_of(100, 4), 28, VALUE_IMAGE, "x");
    ck_assert_ok(page_store_flush(store, &msg), &msg);
    uint32_t blocks[] = {0, 1, 2, 4, 5, 6};
    ck_assert_str_eq(
        walked(child_path(25), 6, blocks, 6), "0: I10; 1: D28 I10; 2: I10; 4: I28; 5: I10; 6:");
    end();
}
END_TEST

/* A flush comes between the reader and its iterator: a walk that did not notice would miss it. */
START_TEST(test_walk_begun_before_a_flush_sees_what_it_took)
{
    begin();
    put(store, ROOT, page_of(100, 0), 10, VALUE_IMAGE, "x");
    put(store, ROOT, page_of(100, 1), 10, VALUE_IMAGE, "x");
    struct page_path *path = root_path();
    struct page_reader *reader = page_reader_create(store, path);
    page_reader_expect(reader, page_of(100, 0), 2);
    ck_assert_ok(page_reader_collect(reader, page_of(100, 0), 100, &versions, &msg), &msg);
    ck_assert_ok(page_store_flush(store, &msg), &msg);
    put(store, ROOT, page_of(100, 1), 20, VALUE_IMAGE, "new");
    ck_assert_ok(page_store_flush(store, &msg), &msg);
    ck_assert_ok(page_reader_collect(reader, page_of(100, 1), 15, &versions, &msg), &msg);
    ck_assert_uint_eq(versions.count, 1);
    ck_assert_uint_eq(versions.items[0].lsn, 10);
    page_reader_destroy(reader);
    mem_free(path);
    end();
}
END_TEST

START_TEST(test_values_come_back_with_their_block_index)
{
    begin();
    put(store, ROOT, page_of(1, 1), 10, VALUE_DELTA, "record");
    ck_assert_str_eq(collected(root_path(), page_of(1, 1), 10), "D10");
    ck_assert_uint_eq(versions.items[0].block_index, 3);
    ck_assert(
        bytes_equal(page_version_value(&versions, &versions.items[0]), bytes_of_str("record")));
    end();
}
END_TEST

START_TEST(test_branch_sees_its_parent_only_up_to_the_branch_lsn)
{
    begin();
    struct page_key key = page_of(100, 7);
    put(store, ROOT, key, 10, VALUE_IMAGE, "x");
    put(store, ROOT, key, 20, VALUE_DELTA, "x");
    put(store, ROOT, key, 30, VALUE_DELTA, "after the branch");
    put(store, CHILD, key, 28, VALUE_DELTA, "own");
    ck_assert_str_eq(collected(child_path(25), key, 100), "D28 D20 I10");
    ck_assert_str_eq(collected(child_path(25), key, 27), "D20 I10");
    ck_assert_str_eq(collected(root_path(), key, 100), "D30 D20 I10");
    end();
}
END_TEST

START_TEST(test_image_in_the_branch_hides_the_parent)
{
    begin();
    struct page_key key = page_of(100, 7);
    put(store, ROOT, key, 20, VALUE_DELTA, "x");
    put(store, CHILD, key, 28, VALUE_ZERO, "");
    ck_assert_str_eq(collected(child_path(25), key, 100), "Z28");
    end();
}
END_TEST

START_TEST(test_malformed_value_is_corrupt)
{
    begin();
    struct page_key key = page_of(100, 7);
    put(store, ROOT, key, 20, VALUE_ZERO, "a page of zeros has no bytes");
    struct page_path *path = root_path();
    struct page_reader *reader = page_reader_create(store, path);
    ck_assert_int_eq(page_reader_collect(reader, key, 30, &versions, &msg), ERR_CORRUPT);
    page_reader_destroy(reader);
    mem_free(path);
    end();
}
END_TEST

START_TEST(test_size_is_the_newest_at_the_lsn)
{
    begin();
    struct page_key rel = page_of(100, 0);
    put_size(ROOT, rel, 10, true, 3);
    put_size(ROOT, rel, 20, true, 5);
    put_size(ROOT, rel, 30, false, 0);
    ck_assert_uint_eq(size_at(root_path(), rel, 15).blocks, 3);
    ck_assert_uint_eq(size_at(root_path(), rel, 25).blocks, 5);
    ck_assert(!size_at(root_path(), rel, 35).exists);
    ck_assert(!size_at(root_path(), rel, 5).exists);
    ck_assert_uint_eq(size_at(child_path(22), rel, 99).blocks, 5);
    end();
}
END_TEST

static err_t append_relation(
    struct page_key rel, uint32_t blocks, void *context, struct errmsg *error)
{
    (void)error;
    buf_printf(context, "%u/%u/%u.%u=%u ", rel.spc, rel.db, rel.rel, rel.fork, blocks);
    return ERR_OK;
}

static const char *relations(struct page_path *path, uint32_t spc, uint32_t db, lsn_t lsn)
{
    static struct buf text;
    buf_clear(&text);
    struct page_reader *reader = page_reader_create(store, path);
    ck_assert_ok(page_reader_relations(reader, spc, db, lsn, append_relation, &text, &msg), &msg);
    page_reader_destroy(reader);
    mem_free(path);
    return buf_cstr(&text);
}

START_TEST(test_relations_are_listed_over_the_path_once_each)
{
    begin();
    struct page_key other_db = {.spc = 1663, .db = 6, .rel = 1};
    struct page_key map = {.spc = 1663, .db = 5, .rel = 100, .fork = FORK_VM};
    put_size(ROOT, page_of(100, 0), 10, true, 3);
    put_size(ROOT, map, 10, true, 1);
    put_size(ROOT, page_of(200, 0), 10, true, 2);
    put_size(ROOT, other_db, 10, true, 9);
    put(store, ROOT, page_of(100, 1), 10, VALUE_ZERO, "");
    put_size(CHILD, page_of(100, 0), 30, true, 4);
    put_size(CHILD, page_of(200, 0), 30, false, 0);
    put_size(CHILD, page_of(300, 0), 30, true, 1);
    ck_assert_str_eq(
        relations(child_path(20), 1663, 5, 99), "1663/5/100.0=4 1663/5/100.2=1 1663/5/300.0=1 ");
    ck_assert_str_eq(
        relations(child_path(20), 1663, 5, 25), "1663/5/100.0=3 1663/5/100.2=1 1663/5/200.0=2 ");
    ck_assert_str_eq(
        relations(root_path(), KEY_SPC_STATE, 0, 99),
        "1663/5/100.0=3 1663/5/100.2=1 1663/5/200.0=2 1663/6/1.0=9 ");
    end();
}
END_TEST

static err_t append_key(struct page_key key, void *context, struct errmsg *error)
{
    (void)error;
    buf_printf(context, "%u ", key.block);
    return ERR_OK;
}

START_TEST(test_state_keys_are_those_with_a_version_at_the_lsn)
{
    begin();
    struct buf text = {0};
    put(store, ROOT, page_key_state(STATE_CLOG, 0, 1), 10, VALUE_ZERO, "");
    put(store, ROOT, page_key_state(STATE_CLOG, 0, 2), 20, VALUE_ZERO, "");
    put(store, ROOT, page_key_state(STATE_CLOG, 0, 2), 40, VALUE_ZERO, "");
    put(store, ROOT, page_key_state(STATE_CLOG, 0, 3), 30, VALUE_ZERO, "");
    put(store, CHILD, page_key_state(STATE_CLOG, 0, 5), 35, VALUE_ZERO, "");
    put(store, ROOT, page_key_state(STATE_MULTI_OFFSETS, 0, 9), 10, VALUE_ZERO, "");
    struct page_path *path = child_path(25);
    struct page_reader *reader = page_reader_create(store, path);
    ck_assert_ok(page_reader_state_keys(reader, STATE_CLOG, 99, append_key, &text, &msg), &msg);
    ck_assert_str_eq(buf_cstr(&text), "1 2 5 ");
    page_reader_destroy(reader);
    mem_free(path);
    buf_deinit(&text);
    end();
}
END_TEST

static void list_runs(uint32_t timeline_lsn, lsn_t lsn, struct buf *text)
{
    struct page_path *path = child_path(timeline_lsn);
    struct page_reader *reader = page_reader_create(store, path);
    buf_clear(text);
    ck_assert_ok(page_reader_state_runs(reader, STATE_CLOG, 10, lsn, append_key, text, &msg), &msg);
    page_reader_destroy(reader);
    mem_free(path);
}

START_TEST(test_state_runs_are_those_of_which_some_block_has_a_version)
{
    begin();
    struct buf text = {0};
    put(store, ROOT, page_key_state(STATE_CLOG, 0, 3), 30, VALUE_ZERO, ""); /* too new */
    put(store, ROOT, page_key_state(STATE_CLOG, 0, 5), 10, VALUE_ZERO, "");
    put(store, ROOT, page_key_state(STATE_CLOG, 0, 6), 10, VALUE_ZERO, "");
    put(store, ROOT, page_key_state(STATE_CLOG, 0, 12), 30, VALUE_ZERO, ""); /* too new */
    put(store, ROOT, page_key_state(STATE_CLOG, 0, 29), 10, VALUE_ZERO, "");
    put(store, ROOT, page_key_state(STATE_CLOG, 0, UINT32_MAX - 1), 10, VALUE_ZERO, "");
    put(store, ROOT, page_key_state(STATE_MULTI_OFFSETS, 0, 9), 10, VALUE_ZERO, "");
    put(store, CHILD, page_key_state(STATE_CLOG, 0, 31), 26, VALUE_ZERO, "");
    ck_assert_ok(page_store_flush(store, &msg), &msg);
    list_runs(25, 99, &text);
    ck_assert_str_eq(buf_cstr(&text), "5 29 31 4294967294 ");
    list_runs(25, 9, &text);
    ck_assert_str_eq(buf_cstr(&text), "");
    buf_deinit(&text);
    end();
}
END_TEST

static void put_commit(uint32_t timeline, uint64_t time, lsn_t start, lsn_t lsn)
{
    struct page_batch *batch = page_batch_create();
    page_batch_put(
        batch, timeline, page_key_state(STATE_COMMIT_TIME, (uint32_t)(time >> 32), (uint32_t)time),
        lsn, VALUE_STATE, 0, bytes_of(&start, sizeof(start)));
    ck_assert_ok(page_store_write(store, batch, &msg), &msg);
    page_batch_destroy(batch);
}

START_TEST(test_time_leads_to_the_first_later_commit_in_lsn_order)
{
    begin();
    lsn_t lsn = 0;
    uint64_t time = 0;
    put_commit(ROOT, 1000, 100, 110);
    put_commit(ROOT, UINT32_MAX, 200, 210);
    put_commit(ROOT, 5ull << 32, 300, 310); /* after the branch */
    put_commit(CHILD, 6ull << 32, 400, 410);
    struct page_path *path = child_path(250);
    struct page_reader *reader = page_reader_create(store, path);
    ck_assert_ok(page_reader_commit_after(reader, 5, 999, &lsn, &msg), &msg);
    ck_assert_uint_eq(lsn, 100);
    ck_assert_ok(page_reader_commit_after(reader, 1000, 999, &lsn, &msg), &msg);
    ck_assert_uint_eq(lsn, 200);
    ck_assert_ok(page_reader_commit_after(reader, UINT32_MAX, 999, &lsn, &msg), &msg);
    ck_assert_uint_eq(lsn, 400);
    ck_assert_int_eq(page_reader_commit_after(reader, 6ull << 32, 999, &lsn, &msg), ERR_NOT_FOUND);
    ck_assert_int_eq(page_reader_commit_after(reader, UINT32_MAX, 400, &lsn, &msg), ERR_NOT_FOUND);
    ck_assert_ok(page_reader_newest_commit(reader, 999, &time, &msg), &msg);
    ck_assert_uint_eq(time, 6ull << 32);
    ck_assert_ok(page_reader_newest_commit(reader, 409, &time, &msg), &msg);
    ck_assert_uint_eq(time, UINT32_MAX);
    ck_assert_int_eq(page_reader_newest_commit(reader, 109, &time, &msg), ERR_NOT_FOUND);
    page_reader_destroy(reader);
    mem_free(path);
    end();
}
END_TEST

START_TEST(test_meta_records_are_there_after_reopen)
{
    begin();
    struct buf value = {0};
    struct meta_change changes[] = {
        {.kind = META_TIMELINE, .id = 7, .value = bytes_of_str("seven")},
        {.kind = META_TIMELINE, .id = 8, .value = bytes_of_str("eight")},
    };
    ck_assert_ok(page_store_meta_write(store, changes, 2, &msg), &msg);
    changes[0].value = (struct bytes){0};
    ck_assert_ok(page_store_meta_write(store, changes, 1, &msg), &msg);
    page_store_close(store);
    store = open_in_folder();
    ck_assert_int_eq(page_store_meta_get(store, META_TIMELINE, 7, &value, &msg), ERR_NOT_FOUND);
    ck_assert_ok(page_store_meta_get(store, META_TIMELINE, 8, &value, &msg), &msg);
    ck_assert_str_eq(buf_cstr(&value), "eight");
    buf_deinit(&value);
    end();
}
END_TEST

START_TEST(test_erased_timeline_has_no_versions_and_others_keep_theirs)
{
    begin();
    struct page_key key = page_of(100, 7);
    put(store, ROOT, key, 10, VALUE_IMAGE, "x");
    put(store, CHILD, key, 30, VALUE_IMAGE, "x");
    ck_assert_ok(page_store_erase(store, &(uint32_t){CHILD}, 1, &msg), &msg);
    ck_assert_str_eq(collected(child_path(20), key, 99), "I10");
    end();
}
END_TEST

START_TEST(test_reads_merge_layers_and_what_was_flushed)
{
    begin();
    struct page_key key = page_of(100, 7);
    put(store, ROOT, key, 10, VALUE_IMAGE, "x");
    put(store, ROOT, key, 20, VALUE_DELTA, "x");
    flush();
    put(store, ROOT, key, 30, VALUE_DELTA, "x");
    ck_assert_str_eq(collected(root_path(), key, 99), "D30 D20 I10");
    ck_assert_str_eq(collected(root_path(), key, 29), "D20 I10");
    flush();
    ck_assert_str_eq(collected(root_path(), key, 99), "D30 D20 I10");
    end();
}
END_TEST

/* A read writes the image of an old page: versions that were flushed are newer than the layer's. */
START_TEST(test_old_version_in_a_layer_hides_nothing_that_was_flushed)
{
    begin();
    struct page_key key = page_of(100, 7);
    put(store, ROOT, key, 10, VALUE_DELTA, "x");
    put(store, ROOT, key, 20, VALUE_DELTA, "x");
    put(store, ROOT, key, 30, VALUE_DELTA, "x");
    flush();
    put(store, ROOT, key, 20, VALUE_IMAGE, "x");
    ck_assert_str_eq(collected(root_path(), key, 99), "D30 I20");
    flush();
    ck_assert_str_eq(collected(root_path(), key, 99), "D30 I20");
    put(store, ROOT, key, 20, VALUE_DELTA, "x"); /* and ingest comes by again */
    ck_assert_str_eq(collected(root_path(), key, 99), "D30 D20 D10");
    end();
}
END_TEST

START_TEST(test_erased_timeline_leaves_no_layer_and_no_bytes)
{
    begin();
    fault_enable();
    put(store, CHILD, page_of(1, 1), 10, VALUE_DELTA, "x");
    put(store, ROOT, page_of(1, 1), 10, VALUE_DELTA, "x");
    ck_assert_ok(fault_arm("page_store.before_ingest=full", &msg), &msg);
    ck_assert_int_eq(page_store_flush(store, &msg), ERR_FULL);
    ck_assert_ok(fault_arm("", &msg), &msg);
    put(store, CHILD, page_of(1, 1), 20, VALUE_DELTA, "x");
    ck_assert_ok(page_store_erase(store, &(uint32_t){CHILD}, 1, &msg), &msg);
    ck_assert_uint_eq(page_store_open_bytes(store), 0);
    flush();
    ck_assert_uint_eq(page_store_frozen_bytes(store), 0);
    struct page_span spans[] = {{.timeline = CHILD, .max_lsn = UINT64_MAX}};
    ck_assert_str_eq(collected(make_path(1, spans), page_of(1, 1), 99), "");
    ck_assert_str_eq(collected(root_path(), page_of(1, 1), 99), "D10");
    end();
}
END_TEST

START_TEST(test_many_timelines_are_flushed_together)
{
    begin();
    for (uint32_t timeline = 1; timeline <= 300; timeline++) {
        put(store, timeline, page_of(1, timeline), 10, VALUE_DELTA, "x");
    }
    flush();
    ck_assert_uint_eq(page_stores_memory(), 0);
    for (uint32_t timeline = 1; timeline <= 300; timeline++) {
        struct page_span spans[] = {{.timeline = timeline, .max_lsn = UINT64_MAX}};
        ck_assert_str_eq(collected(make_path(1, spans), page_of(1, timeline), 99), "D10");
    }
    end();
}
END_TEST

UNIT_MAIN(
    "page_store",
    test_read_collects_down_to_the_newest_image,
    test_walk_finds_what_single_reads_find,
    test_walk_goes_over_a_branch_and_its_parent,
    test_walk_begun_before_a_flush_sees_what_it_took,
    test_values_come_back_with_their_block_index,
    test_branch_sees_its_parent_only_up_to_the_branch_lsn,
    test_image_in_the_branch_hides_the_parent,
    test_malformed_value_is_corrupt,
    test_size_is_the_newest_at_the_lsn,
    test_relations_are_listed_over_the_path_once_each,
    test_state_keys_are_those_with_a_version_at_the_lsn,
    test_state_runs_are_those_of_which_some_block_has_a_version,
    test_time_leads_to_the_first_later_commit_in_lsn_order,
    test_meta_records_are_there_after_reopen,
    test_erased_timeline_has_no_versions_and_others_keep_theirs,
    test_reads_merge_layers_and_what_was_flushed,
    test_old_version_in_a_layer_hides_nothing_that_was_flushed,
    test_erased_timeline_leaves_no_layer_and_no_bytes,
    test_many_timelines_are_flushed_together);
