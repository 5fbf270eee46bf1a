#include "pageserver/store/page_store.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/fault.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "common/base/prng.h"
#include "common/io/file.h"
#include "tests/lib/page_batch.h"
#include "tests/unit/unit.h"

#define ROOT  1u
#define CHILD 2u

static char folder[64];
static struct page_store *store;
static struct errmsg msg;
static struct page_versions versions;

/* The path of a timeline without a parent, and of a branch of it. */
static struct page_path *make_path(size_t count, const struct page_span *spans)
{
    struct page_path *path = mem_zalloc(sizeof(*path) + count * sizeof(spans[0]));
    path->count = count;
    memcpy(path->spans, spans, count * sizeof(spans[0]));
    return path;
}

static struct page_path *root_path(void)
{
    struct page_span spans[] = {{.timeline = ROOT, .max_lsn = UINT64_MAX}};
    return make_path(1, spans);
}

static struct page_path *child_path(lsn_t branch_lsn)
{
    struct page_span spans[] = {
        {.timeline = CHILD, .max_lsn = UINT64_MAX}, {.timeline = ROOT, .max_lsn = branch_lsn}};
    return make_path(2, spans);
}

static void make_folder(void)
{
    (void)snprintf(folder, sizeof(folder), "/tmp/test_page_store.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
}

static struct page_store *open_in_folder(void)
{
    struct page_store *opened = NULL;
    struct page_store_options options = {0};
    ck_assert_ok(page_store_open(folder, &options, &opened, &msg), &msg);
    return opened;
}

static void begin(void)
{
    make_folder();
    store = open_in_folder();
}

static void end(void)
{
    page_versions_deinit(&versions);
    page_store_close(store);
    ck_assert_ok(dir_remove(folder, &msg), &msg);
}

static struct page_key page_of(uint32_t rel, uint32_t block)
{
    return (struct page_key){.spc = 1663, .db = 5, .rel = rel, .block = block};
}

static void put(
    struct page_store *to,
    uint32_t timeline,
    struct page_key key,
    lsn_t lsn,
    uint8_t tag,
    const char *text)
{
    struct page_batch *batch = page_batch_create();
    uint8_t page[PAGE_SIZE] = {0};
    struct bytes value = bytes_of_str(text);
    if (tag == VALUE_IMAGE) {
        memcpy(page, text, strlen(text));
        value = bytes_of(page, sizeof(page));
    }
    page_batch_put(batch, timeline, key, lsn, tag, 3, value);
    ck_assert_ok(page_store_write(to, batch, &msg), &msg);
    page_batch_destroy(batch);
}

/* "D30 D20 I10": tags and LSNs, newest first. */
static const char *collected(struct page_path *path, struct page_key key, lsn_t lsn)
{
    static struct buf text;
    struct page_reader *reader = page_reader_create(store, path);
    ck_assert_ok(page_reader_collect(reader, key, lsn, &versions, &msg), &msg);
    page_reader_destroy(reader);
    buf_clear(&text);
    for (size_t i = 0; i < versions.count; i++) {
        buf_printf(
            &text, "%s%c%" PRIu64, i == 0 ? "" : " ", versions.items[i].tag, versions.items[i].lsn);
    }
    mem_free(path);
    return buf_cstr(&text);
}

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

static void put_size(
    uint32_t timeline, struct page_key rel, lsn_t lsn, bool exists, uint32_t blocks)
{
    struct page_batch *batch = page_batch_create();
    page_batch_put_rel_size(batch, timeline, rel, lsn, exists, blocks);
    ck_assert_ok(page_store_write(store, batch, &msg), &msg);
    page_batch_destroy(batch);
}

static struct fork_size size_at(struct page_path *path, struct page_key rel, lsn_t lsn)
{
    struct fork_size size = {.blocks = 999};
    struct page_reader *reader = page_reader_create(store, path);
    ck_assert_ok(page_reader_rel_size(reader, rel, lsn, &size, &msg), &msg);
    page_reader_destroy(reader);
    mem_free(path);
    return size;
}

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

static void put_with_position(struct page_store *to, struct page_key key, lsn_t lsn)
{
    struct page_batch *batch = page_batch_create();
    page_batch_put(batch, ROOT, key, lsn, VALUE_ZERO, 0, (struct bytes){0});
    page_batch_put_position(
        batch, ROOT, (struct ingest_position){.lsn = lsn, .prev_record_lsn = lsn - 8});
    if (page_store_write(to, batch, &msg) != ERR_OK) {
        _exit(1);
    }
    page_batch_destroy(batch);
}

/* RocksDB's threads do not live on in a child, so the child is made before the first open. */
START_TEST(test_after_a_crash_position_and_versions_fit_together)
{
    make_folder();
    pid_t child = fork();
    if (child == 0) {
        struct page_store *crashing = open_in_folder();
        put_with_position(crashing, page_of(1, 1), 10);
        if (page_store_flush(crashing, &msg) != ERR_OK) {
            _exit(1);
        }
        put_with_position(crashing, page_of(1, 1), 20);
        _exit(0);
    }
    int status = -1;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    store = open_in_folder();
    struct ingest_position position = {0};
    ck_assert_ok(page_store_position(store, ROOT, &position, &msg), &msg);
    ck_assert_uint_eq(position.lsn, 10);
    ck_assert_uint_eq(position.prev_record_lsn, 2);
    ck_assert_str_eq(collected(root_path(), page_of(1, 1), 99), "Z10");
    end();
}
END_TEST

static void flush(void)
{
    ck_assert_ok(page_store_flush(store, &msg), &msg);
}

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

START_TEST(test_flush_that_failed_is_made_up_for_by_the_next)
{
    begin();
    struct page_key key = page_of(100, 7);
    fault_enable();
    put(store, ROOT, key, 10, VALUE_DELTA, "x");
    ck_assert_ok(fault_arm("page_store.before_ingest=full", &msg), &msg);
    ck_assert_int_eq(page_store_flush(store, &msg), ERR_FULL);
    ck_assert_uint_gt(page_store_frozen_bytes(store), 0);
    ck_assert_uint_eq(page_store_open_bytes(store), 0);
    put(store, ROOT, key, 20, VALUE_DELTA, "x");
    ck_assert_str_eq(collected(root_path(), key, 99), "D20 D10");
    ck_assert_int_eq(page_store_flush(store, &msg), ERR_FULL);
    ck_assert_ok(fault_arm("", &msg), &msg);
    flush();
    ck_assert_uint_eq(page_store_frozen_bytes(store), 0);
    ck_assert_str_eq(collected(root_path(), key, 99), "D20 D10");
    page_store_close(store);
    store = open_in_folder();
    ck_assert_str_eq(collected(root_path(), key, 99), "D20 D10");
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

/* -- filters of the pages in the kv -- */

static int64_t counter(const char *name)
{
    struct buf text = {0};
    char line[80];
    (void)snprintf(line, sizeof(line), "\n%s ", name);
    metric_print_all(&text);
    const char *at = strstr(buf_cstr(&text), line);
    ck_assert_ptr_nonnull(at);
    int64_t value = strtoll(strchr(at + 1, ' '), NULL, 10);
    buf_deinit(&text);
    return value;
}

static int64_t seeks_saved(void)
{
    return counter("pageserver_store_seeks_saved_total");
}

static int64_t spans_asked(void)
{
    return counter("pageserver_store_spans_asked_total");
}

#define CHAIN 20u

START_TEST(test_branches_without_the_page_cost_no_seek)
{
    begin();
    struct page_span spans[CHAIN];
    for (uint32_t i = 0; i < CHAIN; i++) {
        spans[i] = (struct page_span){.timeline = CHAIN - i, .max_lsn = UINT64_MAX};
        put(store, i + 1, page_of(1, i), 10 + i, VALUE_IMAGE, "x");
    }
    flush();
    int64_t before = seeks_saved();
    ck_assert_str_eq(collected(make_path(CHAIN, spans), page_of(1, 0), 99), "I10");
    ck_assert_int_ge(seeks_saved() - before, CHAIN - 2); /* one false "maybe" is allowed */
    ck_assert_str_eq(collected(make_path(CHAIN, spans), page_of(1, CHAIN - 1), 99), "I29");
    end();
}
END_TEST

START_TEST(test_filter_of_a_reopened_store_knows_what_is_there)
{
    begin();
    for (uint32_t block = 0; block < 500; block++) {
        put(store, CHILD, page_of(1, block), 30, VALUE_DELTA, "x");
        put(store, CHILD, page_of(1, block), 40, VALUE_DELTA, "x");
    }
    put(store, ROOT, page_of(1, 700), 10, VALUE_DELTA, "x");
    flush();
    page_store_close(store);
    store = open_in_folder();
    put(store, CHILD, page_of(2, 1), 50, VALUE_DELTA, "first put: the filter is made");
    for (uint32_t block = 0; block < 500; block++) {
        ck_assert_str_eq(collected(child_path(20), page_of(1, block), 99), "D40 D30");
    }
    int64_t before = seeks_saved();
    ck_assert_str_eq(collected(child_path(20), page_of(1, 700), 99), "D10");
    ck_assert_int_eq(seeks_saved() - before, 1);
    end();
}
END_TEST

/* -- long paths -- */

#define DEEP 1000u

/* Timeline `depth`, whose parent is the one before, and so on. */
static struct page_path *deep_path(uint32_t depth)
{
    static struct page_span spans[DEEP];
    for (uint32_t i = 0; i < depth; i++) {
        spans[i] = (struct page_span){
            .timeline = depth - i, .max_lsn = i == 0 ? UINT64_MAX : 10 + depth - i};
    }
    return make_path(depth, spans);
}

/* Each timeline has a page of its own, block 0 is the root's, block 5000 of every hundredth. */
static void make_deep(void)
{
    begin();
    for (uint32_t timeline = 1; timeline <= DEEP; timeline++) {
        put(store, timeline, page_of(1, timeline), 10 + timeline, VALUE_IMAGE, "x");
        if (timeline % 100 == 0) {
            put(store, timeline, page_of(1, 5000), 10 + timeline, VALUE_DELTA, "x");
        }
    }
    put(store, 1, page_of(1, 0), 10, VALUE_IMAGE, "x");
    flush();
}

START_TEST(test_a_read_asks_the_timelines_that_have_the_page_however_many_there_are)
{
    make_deep();
    ck_assert_str_eq(collected(deep_path(DEEP), page_of(1, 0), 5000), "I10");
    int64_t before = spans_asked();
    ck_assert_str_eq(collected(deep_path(DEEP), page_of(1, 0), 5000), "I10");
    ck_assert_int_le(spans_asked() - before, 5);
    ck_assert_str_eq(collected(deep_path(DEEP), page_of(1, 700), 5000), "I710");
    ck_assert_str_eq(collected(deep_path(600), page_of(1, 700), 5000), "");
    ck_assert_int_le(spans_asked() - before, 15);
    ck_assert_str_eq(
        collected(deep_path(DEEP), page_of(1, 5000), 5000),
        "D1010 D910 D810 D710 D610 D510 D410 D310 D210 D110");
    ck_assert_str_eq(collected(deep_path(450), page_of(1, 5000), 399), "D310 D210 D110");
    end();
}
END_TEST

START_TEST(test_what_is_written_amid_a_long_path_is_seen_at_once)
{
    make_deep();
    ck_assert_str_eq(collected(deep_path(DEEP), page_of(1, 0), 5000), "I10");
    put(store, 500, page_of(1, 0), 510, VALUE_DELTA, "it has no layer before that");
    ck_assert_str_eq(collected(deep_path(DEEP), page_of(1, 0), 5000), "D510 I10");
    flush();
    ck_assert_str_eq(collected(deep_path(DEEP), page_of(1, 0), 5000), "D510 I10");
    ck_assert_str_eq(collected(deep_path(499), page_of(1, 0), 5000), "I10");
    end();
}
END_TEST

START_TEST(test_page_on_more_branches_than_the_index_follows_is_found)
{
    make_deep();
    for (uint32_t timeline = 2; timeline <= 200; timeline++) {
        put(store, timeline, page_of(1, 0), 10 + timeline, VALUE_DELTA, "x");
    }
    put(store, 150, page_of(1, 0), 160, VALUE_IMAGE, "in place of the record");
    flush();
    ck_assert_str_eq(collected(deep_path(152), page_of(1, 0), 5000), "D162 D161 I160");
    ck_assert_str_eq(
        collected(deep_path(DEEP), page_of(1, 0), 172),
        "D172 D171 D170 D169 D168 D167 D166 D165 D164 D163 D162 D161 I160");
    end();
}
END_TEST

START_TEST(test_branch_with_more_pages_than_the_index_takes_is_always_asked)
{
    make_deep();
    for (uint32_t block = 0; block < 21000; block++) {
        put(store, 900, page_of(2, block), 910, VALUE_DELTA, "x");
    }
    flush();
    put(store, 900, page_of(2, 30000), 910, VALUE_DELTA, "x");
    flush();
    ck_assert_str_eq(collected(deep_path(DEEP), page_of(2, 20999), 5000), "D910");
    ck_assert_str_eq(collected(deep_path(DEEP), page_of(2, 30000), 5000), "D910");
    ck_assert_str_eq(collected(deep_path(DEEP), page_of(2, 30001), 5000), "");
    end();
}
END_TEST

START_TEST(test_reopened_store_reads_a_long_path)
{
    make_deep();
    page_store_close(store);
    store = open_in_folder();
    ck_assert_str_eq(collected(deep_path(DEEP), page_of(1, 0), 5000), "I10");
    ck_assert_str_eq(collected(deep_path(DEEP), page_of(1, 700), 5000), "I710");
    int64_t before = spans_asked();
    ck_assert_str_eq(collected(deep_path(DEEP), page_of(1, 0), 5000), "I10");
    ck_assert_int_le(spans_asked() - before, 5);
    end();
}
END_TEST

START_TEST(test_what_is_known_of_a_long_path_keeps_no_layer_in_memory)
{
    make_deep();
    size_t idle = page_stores_memory();
    put(store, 500, page_of(1, 0), 510, VALUE_DELTA, "x");
    ck_assert_str_eq(collected(deep_path(DEEP), page_of(1, 0), 5000), "D510 I10");
    ck_assert_uint_gt(page_stores_memory(), idle);
    flush();
    ck_assert_uint_eq(page_stores_memory(), idle);
    end();
}
END_TEST

/* -- imports -- */

static void import_pages(struct page_import *import, uint32_t count)
{
    uint8_t page[PAGE_SIZE];
    for (uint32_t i = 0; i < count; i++) {
        memset(page, (int)i, sizeof(page));
        ck_assert_ok(
            page_import_put(
                import, page_of(50, count - 1 - i), VALUE_IMAGE, bytes_of(page, sizeof(page)),
                &msg),
            &msg);
    }
    ck_assert_ok(page_import_put_rel_size(import, page_of(50, 0), count, &msg), &msg);
}

#define IMPORT_PAGES 6000u /* three chunks */

START_TEST(test_import_is_there_as_a_whole_or_not_at_all)
{
    begin();
    put(store, ROOT, page_of(50, 3), 5, VALUE_DELTA, "older");
    struct page_import *import = page_import_create(store, ROOT, 10);
    import_pages(import, IMPORT_PAGES);
    ck_assert_uint_lt(page_stores_memory(), 20 * MIB);
    ck_assert_str_eq(collected(root_path(), page_of(50, 3), 99), "D5");
    page_import_destroy(import);
    ck_assert_str_eq(collected(root_path(), page_of(50, 3), 99), "D5");

    import = page_import_create(store, ROOT, 10);
    import_pages(import, IMPORT_PAGES);
    struct ingest_position position = {.lsn = 10, .prev_record_lsn = 2}, found = {0};
    ck_assert_ok(page_import_finish(import, &position, &msg), &msg);
    page_import_destroy(import);
    ck_assert_str_eq(collected(root_path(), page_of(50, 3), 99), "I10");
    ck_assert_uint_eq(versions.bytes.data[0], (uint8_t)(IMPORT_PAGES - 4));
    put(store, ROOT, page_of(50, 3), 20, VALUE_DELTA, "newer");
    ck_assert_str_eq(collected(root_path(), page_of(50, 3), 99), "D20 I10");
    page_store_close(store); /* without a flush */
    store = open_in_folder();
    ck_assert_str_eq(collected(root_path(), page_of(50, 3), 99), "I10");
    ck_assert_uint_eq(size_at(root_path(), page_of(50, 0), 10).blocks, IMPORT_PAGES);
    ck_assert_ok(page_store_position(store, ROOT, &found, &msg), &msg);
    ck_assert_uint_eq(found.lsn, 10);
    end();
}
END_TEST

/* -- crashes at the steps of a flush -- */

/* A child flushes with the fault; what the next start finds. */
static void flush_and_crash(const char *fault)
{
    make_folder();
    pid_t child = fork();
    if (child == 0) {
        fault_enable();
        struct page_store *crashing = open_in_folder();
        put_with_position(crashing, page_of(1, 1), 10);
        if (page_store_flush(crashing, &msg) != ERR_OK || fault_arm(fault, &msg) != ERR_OK) {
            _exit(1);
        }
        put_with_position(crashing, page_of(1, 1), 20);
        put_with_position(crashing, page_of(1, 2), 30);
        err_ignore(page_store_flush(crashing, &msg), "it crashes inside");
        _exit(1);
    }
    int status = -1;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFSIGNALED(status));
    store = open_in_folder();
}

static lsn_t stored_lsn(void)
{
    struct ingest_position position = {0};
    ck_assert_ok(page_store_position(store, ROOT, &position, &msg), &msg);
    return position.lsn;
}

START_TEST(test_crash_before_the_files_are_taken_in_leaves_the_flush_before)
{
    flush_and_crash("page_store.before_ingest=crash");
    ck_assert_uint_eq(stored_lsn(), 10);
    ck_assert_str_eq(collected(root_path(), page_of(1, 1), 99), "Z10");
    ck_assert_str_eq(collected(root_path(), page_of(1, 2), 99), "");
    put_with_position(store, page_of(1, 1), 20); /* ingest comes again */
    flush();
    ck_assert_uint_eq(stored_lsn(), 20);
    end();
}
END_TEST

START_TEST(test_crash_behind_it_leaves_all_of_it)
{
    flush_and_crash("page_store.after_ingest=crash");
    ck_assert_uint_eq(stored_lsn(), 30);
    ck_assert_str_eq(collected(root_path(), page_of(1, 1), 99), "Z20");
    ck_assert_str_eq(collected(root_path(), page_of(1, 2), 99), "Z30");
    end();
}
END_TEST

static size_t incoming_files(void)
{
    char path[128];
    uint64_t bytes = 0;
    (void)snprintf(path, sizeof(path), "%s/incoming", folder);
    ck_assert_ok(dir_usage(path, &bytes, &msg), &msg);
    return bytes > 64 * KIB ? 1 : 0; /* a folder takes a block or two */
}

START_TEST(test_crash_amid_an_import_leaves_neither_versions_nor_files)
{
    make_folder();
    pid_t child = fork();
    if (child == 0) {
        fault_enable();
        store = open_in_folder();
        if (fault_arm("page_store.before_ingest=crash", &msg) != ERR_OK) {
            _exit(1);
        }
        struct page_import *import = page_import_create(store, ROOT, 10);
        import_pages(import, IMPORT_PAGES);
        err_ignore(page_import_finish(import, NULL, &msg), "it crashes inside");
        _exit(1);
    }
    int status = -1;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFSIGNALED(status));
    ck_assert_uint_eq(incoming_files(), 1);
    store = open_in_folder();
    ck_assert_uint_eq(incoming_files(), 0);
    ck_assert_str_eq(collected(root_path(), page_of(50, 3), 99), "");
    struct page_import *import = page_import_create(store, ROOT, 10);
    import_pages(import, IMPORT_PAGES);
    ck_assert_ok(page_import_finish(import, NULL, &msg), &msg);
    page_import_destroy(import);
    ck_assert_str_eq(collected(root_path(), page_of(50, 3), 99), "I10");
    end();
}
END_TEST

/*
 * Ingest, flushes and reads at once: one thread puts versions and publishes the head, one flushes
 * all the time, and what a read at the head finds is what was put: page and tag follow from the
 * LSN.
 */
#define RACE_PAGES 5u
#define RACE_STEPS 30000u

static _Atomic lsn_t race_head;
static atomic_bool race_over;

static uint8_t race_tag(lsn_t lsn)
{
    return lsn * 2654435761u % 11 == 0 ? VALUE_ZERO : VALUE_DELTA;
}

static uint32_t race_page(lsn_t lsn)
{
    return (uint32_t)(lsn * 40503u / 7 % RACE_PAGES);
}

static void *race_write(void *unused)
{
    struct page_writer *writer = NULL;
    struct errmsg error;
    ck_assert_ok(page_writer_open(store, ROOT, &writer, &error), &error);
    for (lsn_t lsn = 1; lsn <= RACE_STEPS; lsn++) {
        struct bytes value =
            race_tag(lsn) == VALUE_DELTA ? bytes_of_str("record") : (struct bytes){0};
        page_writer_put(writer, page_of(9, race_page(lsn)), lsn, race_tag(lsn), 0, value);
        if (lsn % 8 == 0) {
            struct ingest_position position = {.lsn = lsn};
            ck_assert_ok(page_writer_commit(writer, position, &error), &error);
            atomic_store(&race_head, lsn);
        }
    }
    page_writer_close(writer);
    atomic_store(&race_over, true);
    return unused;
}

static void *race_flush(void *unused)
{
    struct errmsg error;
    while (!atomic_load(&race_over)) {
        ck_assert_ok(page_store_flush(store, &error), &error);
    }
    return unused;
}

static void race_expect(uint32_t page, lsn_t lsn, struct buf *to)
{
    buf_clear(to);
    for (; lsn > 0; lsn--) {
        if (race_page(lsn) == page) {
            buf_printf(to, "%s%c%" PRIu64, to->size == 0 ? "" : " ", race_tag(lsn), lsn);
            if (race_tag(lsn) == VALUE_ZERO) {
                return;
            }
        }
    }
}

START_TEST(test_reads_beside_ingest_and_flushes_miss_nothing)
{
    begin();
    pthread_t writer, flusher;
    struct buf expected = {0};
    ck_assert_int_eq(pthread_create(&writer, NULL, race_write, NULL), 0);
    ck_assert_int_eq(pthread_create(&flusher, NULL, race_flush, NULL), 0);
    uint32_t reads = 0;
    while (!atomic_load(&race_over)) {
        lsn_t head = atomic_load(&race_head);
        uint32_t page = reads++ % RACE_PAGES;
        race_expect(page, head, &expected);
        ck_assert_str_eq(collected(root_path(), page_of(9, page), head), buf_cstr(&expected));
    }
    ck_assert_int_eq(pthread_join(writer, NULL), 0);
    ck_assert_int_eq(pthread_join(flusher, NULL), 0);
    buf_deinit(&expected);
    end();
}
END_TEST

/*
 * The model: timelines with parents, and for each page the LSNs of its versions; what a read must
 * find follows from the definition. Random puts, images in place of old records, branches, flushes
 * that succeed or fail, restarts, and reads; the seed is printed.
 */
#define MODEL_TIMELINES 12
#define MODEL_PAGES     6
#define MODEL_STEPS     4000

struct model_timeline {
    int parent; /* -1: none */
    lsn_t branch_lsn;
    lsn_t head;
    uint8_t tags[MODEL_PAGES][MODEL_STEPS + 1]; /* by LSN; 0: none */
};

static struct model_timeline *model;
static size_t model_count;

static void model_expect(int timeline, size_t page, lsn_t lsn, struct buf *to)
{
    buf_clear(to);
    while (timeline >= 0) {
        for (lsn_t at = lsn; at > 0; at--) {
            uint8_t tag = model[timeline].tags[page][at];
            if (tag != 0) {
                buf_printf(to, "%s%c%" PRIu64, to->size == 0 ? "" : " ", tag, at);
            }
            if (tag != 0 && tag != VALUE_DELTA) {
                return;
            }
        }
        lsn = MIN_OF(lsn, model[timeline].branch_lsn);
        timeline = model[timeline].parent;
    }
}

static struct page_path *model_path(int timeline)
{
    struct page_span spans[MODEL_TIMELINES];
    size_t count = 0;
    lsn_t max_lsn = UINT64_MAX;
    for (; timeline >= 0; timeline = model[timeline].parent) {
        spans[count++] = (struct page_span){.timeline = (uint32_t)timeline + 1, .max_lsn = max_lsn};
        max_lsn = MIN_OF(max_lsn, model[timeline].branch_lsn);
    }
    return make_path(count, spans);
}

static void model_commit(uint32_t timeline, lsn_t lsn)
{
    struct page_batch *batch = page_batch_create();
    page_batch_put_position(batch, timeline, (struct ingest_position){.lsn = lsn});
    ck_assert_ok(page_store_write(store, batch, &msg), &msg);
    page_batch_destroy(batch);
}

/* What a read does that had to apply many records. */
static void model_image(int timeline, size_t page, lsn_t lsn)
{
    while (lsn > 0 && model[timeline].tags[page][lsn] == 0) {
        lsn--;
    }
    if (lsn > 0) {
        model[timeline].tags[page][lsn] = VALUE_IMAGE;
        put(store, (uint32_t)timeline + 1, page_of(7, (uint32_t)page), lsn, VALUE_IMAGE, "r");
    }
}

static void model_flush(uint64_t dice)
{
    bool fails = dice % 3 == 0;
    ck_assert_ok(fault_arm(fails ? "page_store.before_ingest=full*1" : "", &msg), &msg);
    err_t err = page_store_flush(store, &msg);
    ck_assert_int_eq(err, fails && err != ERR_OK ? ERR_FULL : ERR_OK);
    ck_assert_ok(fault_arm("", &msg), &msg);
}

static void model_restart(void)
{
    flush();
    page_store_close(store);
    store = open_in_folder();
}

static void model_step(struct prng *prng, lsn_t step)
{
    static const uint8_t tags[] = {VALUE_DELTA, VALUE_DELTA, VALUE_DELTA,
                                   VALUE_IMAGE, VALUE_ZERO,  VALUE_INIT};
    int timeline = (int)prng_below(prng, model_count);
    uint64_t dice = prng_below(prng, 100);
    if (dice < 2 && model_count < MODEL_TIMELINES) {
        model[model_count++] =
            (struct model_timeline){.parent = timeline, .branch_lsn = prng_below(prng, step) + 1};
    } else if (dice < 6) {
        model_flush(prng_below(prng, 100));
    } else if (dice == 6 && prng_below(prng, 8) == 0) {
        model_restart();
    } else if (dice < 15) {
        model_image(timeline, prng_below(prng, MODEL_PAGES), prng_below(prng, step) + 1);
    } else if (step > model[timeline].branch_lsn) {
        size_t page = prng_below(prng, MODEL_PAGES);
        uint8_t tag = tags[prng_below(prng, ARRAY_LEN(tags))];
        model[timeline].tags[page][step] = tag;
        put(store, (uint32_t)timeline + 1, page_of(7, (uint32_t)page), step, tag,
            tag == VALUE_ZERO ? "" : "r");
        model_commit((uint32_t)timeline + 1, step);
    }
}

START_TEST(test_random_histories_read_as_the_model_says)
{
    begin();
    fault_enable();
    uint64_t seed = getenv("SEED") != NULL ? strtoull(getenv("SEED"), NULL, 10) : 20261122;
    printf("SEED=%" PRIu64 "\n", seed);
    struct prng prng;
    prng_init(&prng, seed);
    model = MEM_ARRAY(struct model_timeline, MODEL_TIMELINES);
    model[0] = (struct model_timeline){.parent = -1};
    model_count = 1;
    struct buf expected = {0};
    for (lsn_t step = 1; step <= MODEL_STEPS; step++) {
        model_step(&prng, step);
        int timeline = (int)prng_below(&prng, model_count);
        size_t page = prng_below(&prng, MODEL_PAGES);
        lsn_t lsn = prng_below(&prng, step) + 1;
        model_expect(timeline, page, lsn, &expected);
        ck_assert_str_eq(
            collected(model_path(timeline), page_of(7, (uint32_t)page), lsn), buf_cstr(&expected));
    }
    buf_deinit(&expected);
    mem_free(model);
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
    test_after_a_crash_position_and_versions_fit_together,
    test_reads_merge_layers_and_what_was_flushed,
    test_old_version_in_a_layer_hides_nothing_that_was_flushed,
    test_flush_that_failed_is_made_up_for_by_the_next,
    test_erased_timeline_leaves_no_layer_and_no_bytes,
    test_many_timelines_are_flushed_together,
    test_branches_without_the_page_cost_no_seek,
    test_filter_of_a_reopened_store_knows_what_is_there,
    test_a_read_asks_the_timelines_that_have_the_page_however_many_there_are,
    test_what_is_written_amid_a_long_path_is_seen_at_once,
    test_page_on_more_branches_than_the_index_follows_is_found,
    test_branch_with_more_pages_than_the_index_takes_is_always_asked,
    test_reopened_store_reads_a_long_path,
    test_what_is_known_of_a_long_path_keeps_no_layer_in_memory,
    test_import_is_there_as_a_whole_or_not_at_all,
    test_crash_before_the_files_are_taken_in_leaves_the_flush_before,
    test_crash_behind_it_leaves_all_of_it,
    test_crash_amid_an_import_leaves_neither_versions_nor_files,
    test_reads_beside_ingest_and_flushes_miss_nothing,
    test_random_histories_read_as_the_model_says);
