#include "pageserver/store/gc_pass.h"

#include "tests/unit/store/page_store_fixture.h"

/* -- what must be kept: set by each test -- */

static lsn_t points[4];
static struct gc_keep keeps[2];
static struct gc_horizon horizon = {.next_number = 10, .keeps = keeps};

static struct gc_horizon *take(struct gc_source *source)
{
    (void)source;
    return &horizon;
}

static void put_back(struct gc_source *source, struct gc_horizon *taken)
{
    (void)source;
    ck_assert_ptr_eq(taken, &horizon);
}

static struct gc_source source = {.take = take, .put_back = put_back};

static void keep_root(lsn_t cutoff, size_t point_count)
{
    keeps[0] = (struct gc_keep){
        .timeline = ROOT, .cutoff = cutoff, .points = points, .point_count = point_count};
    horizon.keep_count = 1;
}

static void keep_child(lsn_t start, lsn_t cutoff)
{
    keeps[1] =
        (struct gc_keep){.timeline = CHILD, .parent = ROOT, .start_lsn = start, .cutoff = cutoff};
    horizon.keep_count = 2;
}

/* -- a store -- */

static void begin_collected(void)
{
    store_options.gc = &source;
    begin();
}

static void put_version(uint32_t timeline, struct page_key key, lsn_t lsn, uint8_t tag)
{
    static const uint8_t page[PAGE_SIZE];
    struct page_batch *batch = page_batch_create();
    size_t size = tag == VALUE_IMAGE ? sizeof(page) : tag == VALUE_ZERO ? 0 : 8;
    page_batch_put(batch, timeline, key, lsn, tag, 0, bytes_of(page, size));
    ck_assert_ok(page_store_write(store, batch, &msg), &msg);
    page_batch_destroy(batch);
}

static void collect_garbage(void)
{
    ck_assert_ok(page_store_compact(store, &msg), &msg);
}

static const char *found(struct page_key key, lsn_t lsn)
{
    return collected(root_path(), key, lsn);
}

/* -- tests -- */

START_TEST(test_a_compaction_keeps_the_window_and_the_points)
{
    struct page_key key = page_of(7, 0);
    begin_collected();
    put_size(ROOT, page_of(7, 0), 5, true, 1);
    put_version(ROOT, key, 10, VALUE_INIT);
    put_version(ROOT, key, 20, VALUE_DELTA);
    put_version(ROOT, key, 30, VALUE_INIT);
    put_version(ROOT, key, 40, VALUE_DELTA);
    put_version(ROOT, key, 50, VALUE_INIT);
    put_version(ROOT, key, 60, VALUE_DELTA);
    flush();
    points[0] = 15;
    keep_root(45, 1);
    collect_garbage();
    ck_assert_str_eq(found(key, 99), "D60 W50");
    ck_assert_str_eq(found(key, 45), "D40 W30");
    ck_assert_str_eq(found(key, 15), "W10");
    ck_assert_str_eq(found(key, 29), "W10"); /* 20 went: nobody may read there */
    end();
}
END_TEST

START_TEST(test_a_dead_timeline_goes)
{
    begin_collected();
    put_version(ROOT, page_of(7, 0), 10, VALUE_INIT);
    put_version(CHILD, page_of(7, 0), 20, VALUE_INIT);
    flush();
    keep_root(5, 0);
    collect_garbage();
    ck_assert_str_eq(found(page_of(7, 0), 99), "W10");
    ck_assert_str_eq(collected(child_path(10), page_of(7, 0), 99), "W10"); /* its own is gone */
    end();
}
END_TEST

START_TEST(test_blocks_that_are_dead_at_the_cutoff_go_but_for_points_before)
{
    begin_collected();
    put_size(ROOT, page_of(7, 0), 10, true, 2);
    put_version(ROOT, page_of(7, 0), 10, VALUE_INIT);
    put_version(ROOT, page_of(7, 1), 10, VALUE_INIT);
    put_version(ROOT, page_of(7, 1), 12, VALUE_DELTA);
    put_size(ROOT, page_of(7, 0), 20, true, 1);  /* truncated */
    put_size(ROOT, page_of(7, 0), 30, false, 0); /* dropped */
    put_size(ROOT, page_of(7, 0), 60, true, 1);  /* the same number again */
    put_version(ROOT, page_of(7, 0), 60, VALUE_ZERO);
    flush();
    points[0] = 11;
    keep_root(25, 1);
    collect_garbage();
    ck_assert_str_eq(found(page_of(7, 0), 25), "W10");
    ck_assert_str_eq(found(page_of(7, 1), 11), "W10");
    ck_assert_str_eq(found(page_of(7, 1), 13), "W10"); /* 12 went */
    keep_root(40, 0);
    collect_garbage();
    ck_assert_str_eq(found(page_of(7, 0), 40), "");
    ck_assert_str_eq(found(page_of(7, 1), 11), "");
    ck_assert_str_eq(found(page_of(7, 0), 99), "Z60");
    end();
}
END_TEST

START_TEST(test_a_size_in_the_parent_tells_of_blocks_in_the_child)
{
    begin_collected();
    put_size(ROOT, page_of(7, 0), 10, true, 1);
    put_version(ROOT, page_of(7, 0), 10, VALUE_INIT);
    put_version(CHILD, page_of(7, 0), 30, VALUE_INIT); /* no size of its own */
    put_version(CHILD, page_of(8, 0), 30, VALUE_INIT); /* of no relation that is known: stays */
    flush();
    points[0] = 20;
    keep_root(25, 1);
    keep_child(20, 50);
    collect_garbage();
    ck_assert_str_eq(collected(child_path(20), page_of(7, 0), 50), "W30");
    ck_assert_str_eq(collected(child_path(20), page_of(8, 0), 50), "W30");
    ck_assert_str_eq(collected(child_path(20), page_of(7, 0), 20), "W10");
    end();
}
END_TEST

static lsn_t size_lsn(uint32_t timeline, uint32_t rel, lsn_t lsn)
{
    struct page_path *path = timeline == CHILD ? child_path(20) : root_path();
    return size_at(path, page_of(rel, 0), lsn).lsn;
}

START_TEST(test_the_size_of_a_dropped_fork_goes_after_all_that_it_hides)
{
    begin_collected();
    put_size(ROOT, page_of(7, 0), 10, true, 1);
    put_version(ROOT, page_of(7, 0), 10, VALUE_INIT);
    put_size(ROOT, page_of(7, 0), 30, false, 0);
    put_size(CHILD, page_of(7, 0), 30, false, 0); /* of the parent's fork */
    put_size(CHILD, page_of(8, 0), 30, true, 1);  /* of its own */
    put_size(CHILD, page_of(8, 0), 40, false, 0);
    flush();
    points[0] = 20;
    keep_root(50, 1);
    keep_child(20, 50);
    collect_garbage();
    ck_assert_uint_eq(size_lsn(ROOT, 7, 50), 30); /* the child may read at 20 */
    ck_assert_uint_eq(size_lsn(CHILD, 7, 50), 30);
    ck_assert_uint_eq(size_lsn(CHILD, 8, 50), 0);
    keep_root(50, 0); /* the child's begin is not read any more, but what is there would show */
    keep_child(20, 50);
    collect_garbage(); /* first what was there, then the root's "not there", then the child's */
    ck_assert_uint_eq(size_lsn(ROOT, 7, 50), 0);
    ck_assert_str_eq(found(page_of(7, 0), 20), "");
    ck_assert_uint_eq(size_lsn(CHILD, 7, 50), 0);
    end();
}
END_TEST

START_TEST(test_a_size_stays_while_blocks_of_the_fork_are_left)
{
    begin_collected();
    put_size(ROOT, page_of(7, 0), 30, false, 0);
    /* Of its next life, whose size is still to come. */
    put_version(ROOT, page_of(7, 3), 60, VALUE_INIT);
    flush();
    keep_root(50, 0);
    collect_garbage();
    ck_assert_uint_eq(size_lsn(ROOT, 7, 50), 30);
    end();
}
END_TEST

/*
 * A reader has layers from before a flush. Meanwhile another read leaves an image in a newer layer,
 * all is flushed, and a compaction drops what lies below the image. The reader must not miss both.
 */
START_TEST(test_a_reader_from_before_a_flush_finds_a_whole_history)
{
    struct page_key key = page_of(7, 0);
    begin_collected();
    put_size(ROOT, page_of(7, 0), 5, true, 1);
    put_version(ROOT, key, 10, VALUE_INIT);
    flush();
    put_version(ROOT, key, 20, VALUE_DELTA);
    struct page_path *path = root_path();
    struct page_reader *reader = page_reader_create(store, path);
    flush();
    put_version(ROOT, key, 20, VALUE_IMAGE);
    flush();
    keep_root(20, 0);
    collect_garbage();
    const char *text = read_by(reader, key, 99);
    ck_assert_msg(
        strcmp(text, "I20") == 0 || strcmp(text, "D20 W10") == 0, "the read found %s", text);
    page_reader_destroy(reader);
    mem_free(path);
    end();
}
END_TEST

UNIT_MAIN(
    "gc_pass",
    test_a_compaction_keeps_the_window_and_the_points,
    test_a_dead_timeline_goes,
    test_blocks_that_are_dead_at_the_cutoff_go_but_for_points_before,
    test_a_size_in_the_parent_tells_of_blocks_in_the_child,
    test_the_size_of_a_dropped_fork_goes_after_all_that_it_hides,
    test_a_size_stays_while_blocks_of_the_fork_are_left,
    test_a_reader_from_before_a_flush_finds_a_whole_history);
