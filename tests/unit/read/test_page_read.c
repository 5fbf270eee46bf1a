#include "pageserver/read/page_read.h"

#include "common/wire/frame.h"
#include "pageserver/read/digest.h"
#include "pageserver/read/relation_list.h"
#include "tests/unit/timeline/tenant_fixture.h"

static struct page_read_service service;

/* A root whose relation 100 has three blocks at START_LSN: 'a', 'b', zeros. */
static const struct page_key relation = {.spc = 1663, .db = 5, .rel = 100};

static struct page_key block(uint32_t number)
{
    struct page_key key = relation;
    key.block = number;
    return key;
}

static void put_image(
    struct page_batch *batch, uint32_t timeline, uint32_t number, lsn_t lsn, int fill)
{
    uint8_t page[PAGE_SIZE];
    memset(page, fill, sizeof(page));
    page_batch_put(
        batch, timeline, block(number), lsn, VALUE_IMAGE, 0, bytes_of(page, sizeof(page)));
}

static void write_batch(struct page_batch *batch)
{
    ck_assert_ok(page_store_write(timeline_store(find(1)), batch, &msg), &msg);
    page_batch_destroy(batch);
}

static void begin(void)
{
    fixture_begin_with_root();
    service = (struct page_read_service){
        .executor = fixture.executor, .cache = page_cache_create(1 * MIB), .wait_timeout_ms = 20};
    uint32_t number = timeline_number(find(1));
    struct page_batch *batch = page_batch_create();
    put_image(batch, number, 0, START_LSN, 'a');
    put_image(batch, number, 1, START_LSN, 'b');
    page_batch_put(batch, number, block(2), START_LSN, VALUE_ZERO, 0, (struct bytes){0});
    page_batch_put_rel_size(batch, number, relation, START_LSN, true, 3);
    write_batch(batch);
}

static void end(void)
{
    fixture_end();
    page_cache_destroy(service.cache);
}

static void on_read(struct page_read *read, err_t result)
{
    (void)read;
    fixture_done(result);
}

static err_t run(struct page_read *read, uint8_t timeline)
{
    page_read_start(read, &service, find(timeline), on_read);
    return fixture_run();
}

static struct page_read pages_at(uint32_t first, uint32_t count, lsn_t lsn)
{
    return (struct page_read){
        .kind = PAGE_READ_PAGES,
        .key = block(first),
        .count = count,
        .lsn = lsn,
        .not_modified_since = lsn == LSN_HEAD ? 0 : lsn,
    };
}

START_TEST(test_pages_come_with_the_lsn_that_was_used)
{
    begin();
    struct page_read read = pages_at(0, 2, LSN_HEAD);
    ck_assert_ok(run(&read, 1), &read.msg);
    ck_assert_uint_eq(read.read_lsn, START_LSN);
    ck_assert_uint_eq(read.existing, 2);
    ck_assert_uint_eq(read.pages.data[0], 'a');
    ck_assert_uint_eq(read.pages.data[2 * PAGE_SIZE - 1], 'b');
    page_read_deinit(&read);
    end();
}
END_TEST

START_TEST(test_blocks_behind_the_end_are_zeros)
{
    begin();
    struct page_read read = pages_at(1, 8, LSN_HEAD);
    ck_assert_ok(run(&read, 1), &read.msg);
    ck_assert_uint_eq(read.existing, 2);
    ck_assert_uint_eq(read.pages.size, 8 * PAGE_SIZE);
    ck_assert_uint_eq(read.pages.data[0], 'b');
    for (size_t i = PAGE_SIZE; i < 8 * PAGE_SIZE; i++) {
        ck_assert_uint_eq(read.pages.data[i], 0);
    }
    page_read_deinit(&read);
    end();
}
END_TEST

START_TEST(test_missing_relation_is_not_found)
{
    begin();
    struct page_read read = pages_at(0, 1, LSN_HEAD);
    read.key.rel = 999;
    ck_assert_int_eq(run(&read, 1), ERR_NOT_FOUND);
    read.kind = PAGE_READ_REL_SIZE;
    ck_assert_ok(run(&read, 1), &read.msg);
    ck_assert(!read.size.exists);
    page_read_deinit(&read);
    end();
}
END_TEST

START_TEST(test_lsn_outside_of_history_is_a_range_error)
{
    begin();
    struct page_read read = pages_at(0, 1, START_LSN - 8);
    ck_assert_int_eq(run(&read, 1), ERR_RANGE);
    page_read_deinit(&read);
    read = pages_at(0, 1, START_LSN + 8);
    ck_assert_int_eq(run(&read, 1), ERR_RANGE);
    page_read_deinit(&read);
    read = pages_at(0, 1, LSN_HEAD);
    read.not_modified_since = START_LSN + 8;
    ck_assert_int_eq(run(&read, 1), ERR_TIMEOUT);
    page_read_deinit(&read);
    end();
}
END_TEST

/* What ingest does: versions, then the caches, then the position. */
static void change_block(uint32_t number, lsn_t lsn, int fill)
{
    struct timeline *tl = find(1);
    struct page_batch *batch = page_batch_create();
    put_image(batch, timeline_number(tl), number, lsn, fill);
    write_batch(batch);
    page_cache_remove(service.cache, timeline_uid(tl), block(number));
    timeline_advance(tl, (struct ingest_position){.lsn = lsn});
}

static bool cached(struct page_read *read, struct bytes *ret_pages)
{
    static struct buf room;
    return page_read_cached(read, &service, find(1), &room, ret_pages);
}

START_TEST(test_second_read_is_answered_from_the_cache)
{
    begin();
    struct bytes pages = {0};
    struct page_read read = pages_at(0, 3, LSN_HEAD);
    ck_assert(!cached(&read, &pages));
    ck_assert_ok(run(&read, 1), &read.msg);
    ck_assert(cached(&read, &pages));
    ck_assert(bytes_equal(pages, buf_view(&read.pages)));
    read.count = 8; /* the end of the relation is known too */
    ck_assert(cached(&read, &pages));
    ck_assert_uint_eq(read.existing, 3);
    page_read_deinit(&read);
    end();
}
END_TEST

START_TEST(test_scan_of_what_takes_much_of_the_cache_leaves_it_alone)
{
    begin();
    struct page_cache *large = service.cache;
    service.cache = page_cache_create(11 * PAGE_SIZE); /* the relation has three pages */
    struct bytes pages = {0};
    struct page_read scan = pages_at(0, 3, LSN_HEAD);
    ck_assert_ok(run(&scan, 1), &scan.msg);
    ck_assert(!cached(&scan, &pages));
    struct page_read single = pages_at(1, 1, LSN_HEAD);
    ck_assert_ok(run(&single, 1), &single.msg);
    ck_assert(cached(&single, &pages));
    page_read_deinit(&scan);
    page_read_deinit(&single);
    page_cache_destroy(service.cache);
    service.cache = large;
    end();
}
END_TEST

START_TEST(test_read_of_a_size_caches_no_page)
{
    begin();
    struct bytes pages = {0};
    struct page_read read = pages_at(0, 1, LSN_HEAD);
    ck_assert_ok(run(&read, 1), &read.msg);
    read.kind = PAGE_READ_REL_SIZE; /* with the memory of the read before */
    read.key.block = 1;
    ck_assert_ok(run(&read, 1), &read.msg);
    read.kind = PAGE_READ_PAGES;
    ck_assert(!cached(&read, &pages));
    page_read_deinit(&read);
    end();
}
END_TEST

START_TEST(test_changed_page_is_read_anew_and_old_lsns_are_not_served_from_the_cache)
{
    begin();
    struct bytes pages = {0};
    struct page_read read = pages_at(0, 1, LSN_HEAD);
    ck_assert_ok(run(&read, 1), &read.msg);
    change_block(0, START_LSN + 8, 'A');
    ck_assert(!cached(&read, &pages));
    ck_assert_ok(run(&read, 1), &read.msg);
    ck_assert_uint_eq(read.pages.data[0], 'A');
    ck_assert(cached(&read, &pages));
    struct page_read old = pages_at(0, 1, START_LSN);
    ck_assert(!cached(&old, &pages));
    ck_assert_ok(run(&old, 1), &old.msg);
    ck_assert_uint_eq(old.pages.data[0], 'a');
    ck_assert(cached(&read, &pages));
    ck_assert_uint_eq(pages.data[0], 'A');
    page_read_deinit(&old);
    page_read_deinit(&read);
    end();
}
END_TEST

START_TEST(test_branch_reads_the_parent_as_of_the_branch_lsn)
{
    begin();
    change_block(1, START_LSN + 16, 'B');
    ck_assert_int_eq(put_timeline_(2, 1, START_LSN + 8), ERR_OK);
    struct page_read read = pages_at(1, 1, LSN_HEAD);
    ck_assert_ok(run(&read, 2), &read.msg);
    ck_assert_uint_eq(read.pages.data[0], 'b');
    ck_assert_ok(run(&read, 1), &read.msg);
    ck_assert_uint_eq(read.pages.data[0], 'B');
    page_read_deinit(&read);
    end();
}
END_TEST

START_TEST(test_parent_and_branch_have_their_own_pages_in_the_cache)
{
    begin();
    struct bytes pages = {0};
    change_block(1, START_LSN + 16, 'B');
    ck_assert_int_eq(put_timeline_(2, 1, START_LSN + 8), ERR_OK);
    struct page_read parent = pages_at(1, 1, LSN_HEAD), branch = pages_at(1, 1, LSN_HEAD);
    ck_assert_ok(run(&parent, 1), &parent.msg);
    ck_assert_ok(run(&branch, 2), &branch.msg);
    ck_assert(cached(&parent, &pages));
    ck_assert_uint_eq(pages.data[0], 'B');
    struct buf room = {0};
    ck_assert(page_read_cached(&branch, &service, find(2), &room, &pages));
    ck_assert_uint_eq(pages.data[0], 'b');
    buf_deinit(&room);
    page_read_deinit(&parent);
    page_read_deinit(&branch);
    end();
}
END_TEST

START_TEST(test_damaged_record_fails_its_page_only)
{
    begin();
    struct timeline *tl = find(1);
    struct page_batch *batch = page_batch_create();
    page_batch_put(
        batch, timeline_number(tl), block(1), START_LSN + 8, VALUE_DELTA, 0,
        bytes_of_str("no WAL record at all"));
    write_batch(batch);
    timeline_advance(tl, (struct ingest_position){.lsn = START_LSN + 8});
    struct page_read read = pages_at(1, 1, LSN_HEAD);
    ck_assert_int_eq(run(&read, 1), ERR_CORRUPT);
    page_read_deinit(&read);
    read = pages_at(0, 1, LSN_HEAD);
    ck_assert_ok(run(&read, 1), &read.msg);
    ck_assert_uint_eq(read.pages.data[0], 'a');
    page_read_deinit(&read);
    end();
}
END_TEST

START_TEST(test_deleted_timeline_is_not_found_and_a_given_up_wait_is_canceled)
{
    begin();
    ck_assert_int_eq(put_timeline_(2, 1, START_LSN), ERR_OK);
    struct timeline *tl = timeline_ref(find(2));
    struct page_read read = pages_at(0, 1, START_LSN + 8);
    service.wait_timeout_ms = 60000;
    page_read_start(&read, &service, tl, on_read);
    page_read_cancel(&read);
    ck_assert(fixture.done);
    ck_assert_int_eq(fixture.result, ERR_CANCELED);
    loop_run(fixture.loop); /* takes up the stop that fixture_done() asked for */
    ck_assert_int_eq(delete_timeline_(2), ERR_OK);
    page_read_start(&read, &service, tl, on_read);
    ck_assert_int_eq(fixture_run(), ERR_NOT_FOUND);
    page_read_deinit(&read);
    timeline_unref(tl);
    end();
}
END_TEST

START_TEST(test_database_size_is_the_sum_of_its_forks)
{
    begin();
    struct page_read read = {
        .kind = PAGE_READ_DB_SIZE, .key = {.spc = 1663, .db = 5}, .count = 1, .lsn = LSN_HEAD};
    ck_assert_ok(run(&read, 1), &read.msg);
    ck_assert_uint_eq(read.bytes, 3 * PAGE_SIZE);
    page_read_deinit(&read);
    end();
}
END_TEST

START_TEST(test_digest_depends_on_pages_and_lsn)
{
    begin();
    struct digest before, at_old, after;
    struct page_store *store = timeline_store(find(1));
    const struct page_path *path = timeline_path(find(1));
    ck_assert_ok(digest_at(store, path, START_LSN, DIGEST_ALL, relation, &before, &msg), &msg);
    change_block(2, START_LSN + 8, 'c');
    ck_assert_ok(digest_at(store, path, START_LSN, DIGEST_ALL, relation, &at_old, &msg), &msg);
    ck_assert_ok(digest_at(store, path, START_LSN + 8, DIGEST_ALL, relation, &after, &msg), &msg);
    ck_assert_uint_eq(before.pages, 3);
    ck_assert_uint_eq(before.hash, at_old.hash);
    ck_assert_uint_ne(before.hash, after.hash);
    end();
}
END_TEST

static struct digest digest_of(lsn_t lsn, enum digest_scope scope, struct page_key key)
{
    struct digest digest = {0};
    struct timeline *tl = find(1);
    ck_assert_ok(
        digest_at(timeline_store(tl), timeline_path(tl), lsn, scope, key, &digest, &msg), &msg);
    return digest;
}

START_TEST(test_digest_of_a_relation_a_fork_or_a_block_is_of_that_alone)
{
    begin();
    struct timeline *tl = find(1);
    struct page_key map = relation, other = relation, missing = block(3);
    struct digest digest;
    map.fork = FORK_VM;
    other.rel++;
    struct digest alone = digest_of(START_LSN, DIGEST_ALL, relation);
    ck_assert_uint_eq(digest_of(START_LSN, DIGEST_RELATION, relation).hash, alone.hash);
    struct page_batch *batch = page_batch_create();
    page_batch_put_rel_size(batch, timeline_number(tl), other, START_LSN + 8, true, 2);
    page_batch_put_rel_size(batch, timeline_number(tl), map, START_LSN + 8, true, 1);
    write_batch(batch);
    change_block(2, START_LSN + 16, 'c');
    struct digest both = digest_of(START_LSN + 8, DIGEST_RELATION, relation);
    ck_assert_uint_eq(both.relations, 2); /* forks */
    ck_assert_uint_eq(both.pages, 4);
    ck_assert_uint_eq(digest_of(START_LSN + 8, DIGEST_FORK, relation).hash, alone.hash);
    ck_assert_uint_eq(digest_of(START_LSN + 8, DIGEST_FORK, map).pages, 1);
    ck_assert_uint_eq(digest_of(START_LSN + 16, DIGEST_BLOCK, block(2)).pages, 1);
    ck_assert_uint_ne(
        digest_of(START_LSN + 16, DIGEST_BLOCK, block(2)).hash,
        digest_of(START_LSN + 8, DIGEST_BLOCK, block(2)).hash);
    ck_assert_uint_eq(
        digest_of(START_LSN + 16, DIGEST_BLOCK, block(1)).hash,
        digest_of(START_LSN + 8, DIGEST_BLOCK, block(1)).hash);
    ck_assert_int_eq(
        digest_at(
            timeline_store(tl), timeline_path(tl), START_LSN, DIGEST_BLOCK, missing, &digest, &msg),
        ERR_NOT_FOUND);
    ck_assert_int_eq(
        digest_at(
            timeline_store(tl), timeline_path(tl), START_LSN, DIGEST_RELATION, other, &digest,
            &msg),
        ERR_NOT_FOUND);
    end();
}
END_TEST

START_TEST(test_list_of_relations_is_that_of_the_lsn)
{
    begin();
    struct timeline *tl = find(1);
    struct page_key index = {.spc = 1663, .db = 5, .rel = 101};
    struct page_batch *batch = page_batch_create();
    page_batch_put_rel_size(batch, timeline_number(tl), relation, START_LSN + 8, false, 0);
    page_batch_put_rel_size(batch, timeline_number(tl), index, START_LSN + 8, true, 1);
    write_batch(batch);
    struct buf list = {0};
    ck_assert_ok(
        relation_list_at(timeline_store(tl), timeline_path(tl), START_LSN, &list, &msg), &msg);
    ck_assert_str_eq(buf_cstr(&list), "1663 5 100 0 3\n");
    buf_clear(&list);
    ck_assert_ok(
        relation_list_at(timeline_store(tl), timeline_path(tl), START_LSN + 8, &list, &msg), &msg);
    ck_assert_str_eq(buf_cstr(&list), "1663 5 101 0 1\n");
    buf_deinit(&list);
    end();
}
END_TEST

/* Two reads of a page, neither from the page cache. */
START_TEST(test_page_in_a_layer_or_a_cached_block_is_answered_at_once)
{
    begin();
    struct bytes pages = {0};
    struct page_read read = pages_at(1, 1, LSN_HEAD);
    ck_assert(page_read_in_memory(&read, &service, find(1), &pages));
    ck_assert_uint_eq(pages.size, PAGE_SIZE);
    ck_assert_uint_eq(pages.data[77], 'b');
    ck_assert_uint_eq(read.read_lsn, START_LSN);

    ck_assert_ok(page_store_flush(timeline_store(find(1)), &msg), &msg);
    struct page_read cold = pages_at(0, 1, LSN_HEAD);
    ck_assert(!page_read_in_memory(&cold, &service, find(1), &pages));
    ck_assert_ok(run(&cold, 1), &cold.msg);
    page_cache_destroy(service.cache);
    service.cache = page_cache_create(1 * MIB);
    ck_assert(page_read_in_memory(&cold, &service, find(1), &pages));
    ck_assert_uint_eq(pages.data[77], 'a');
    page_read_deinit(&read);
    page_read_deinit(&cold);
    end();
}
END_TEST

START_TEST(test_what_a_worker_must_say_is_not_answered_at_once)
{
    begin();
    struct bytes pages = {0};
    struct page_read missing = pages_at(0, 1, LSN_HEAD);
    missing.key.rel = 999;
    ck_assert(!page_read_in_memory(&missing, &service, find(1), &pages));
    ck_assert_int_eq(run(&missing, 1), ERR_NOT_FOUND);
    struct page_read later = pages_at(0, 1, LSN_HEAD);
    later.not_modified_since = START_LSN + 8;
    ck_assert(!page_read_in_memory(&later, &service, find(1), &pages));
    struct page_read many = pages_at(0, 2, LSN_HEAD);
    ck_assert(!page_read_in_memory(&many, &service, find(1), &pages));
    page_read_deinit(&missing);
    page_read_deinit(&later);
    page_read_deinit(&many);
    end();
}
END_TEST

/* Pages of an SLRU: 40 to 71, of which one has a version. */
static struct page_read slru_pages(void)
{
    struct page_read read = pages_at(40, GET_PAGE_COUNT_MAX, LSN_HEAD);
    read.key = page_key_state(STATE_MULTI_MEMBERS, 0, 40);
    return read;
}

static void put_slru_page(uint32_t number, lsn_t lsn, int fill)
{
    uint8_t page[PAGE_SIZE];
    memset(page, fill, sizeof(page));
    struct page_batch *batch = page_batch_create();
    page_batch_put(
        batch, timeline_number(find(1)), page_key_state(STATE_MULTI_MEMBERS, 0, number), lsn,
        VALUE_IMAGE, 0, bytes_of(page, sizeof(page)));
    write_batch(batch);
    timeline_advance(find(1), (struct ingest_position){.lsn = lsn});
}

START_TEST(test_pages_of_an_slru_need_no_size_and_those_that_nobody_wrote_are_zeros)
{
    begin();
    put_slru_page(42, START_LSN + 8, 'm');
    ck_assert_int_eq(put_timeline_(2, 1, START_LSN + 8), ERR_OK);
    for (uint8_t timeline = 1; timeline <= 2; timeline++) {
        struct page_read read = slru_pages();
        ck_assert_ok(run(&read, timeline), &read.msg);
        ck_assert_uint_eq(read.existing, GET_PAGE_COUNT_MAX);
        ck_assert_uint_eq(read.pages.size, GET_PAGE_COUNT_MAX * PAGE_SIZE);
        ck_assert_uint_eq(read.pages.data[2 * PAGE_SIZE - 1], 0);
        ck_assert_uint_eq(read.pages.data[2 * PAGE_SIZE], 'm');
        ck_assert_uint_eq(read.pages.data[3 * PAGE_SIZE - 1], 'm');
        ck_assert_uint_eq(read.pages.data[3 * PAGE_SIZE], 0);
        page_read_deinit(&read);
    }
    end();
}
END_TEST

/* Ingest removes from the caches what it changes of relations. */
START_TEST(test_pages_of_an_slru_are_not_kept_in_the_caches)
{
    begin();
    struct bytes pages = {0};
    put_slru_page(40, START_LSN + 8, 'm');
    struct page_read read = slru_pages();
    read.count = 1;
    ck_assert_ok(run(&read, 1), &read.msg);
    ck_assert(!cached(&read, &pages));
    put_slru_page(40, START_LSN + 16, 'n');
    ck_assert(page_read_in_memory(&read, &service, find(1), &pages));
    ck_assert_uint_eq(pages.data[0], 'n');
    ck_assert(!cached(&read, &pages));
    page_read_deinit(&read);
    end();
}
END_TEST

UNIT_MAIN(
    "page_read",
    test_pages_of_an_slru_need_no_size_and_those_that_nobody_wrote_are_zeros,
    test_pages_of_an_slru_are_not_kept_in_the_caches,
    test_page_in_a_layer_or_a_cached_block_is_answered_at_once,
    test_what_a_worker_must_say_is_not_answered_at_once,
    test_pages_come_with_the_lsn_that_was_used,
    test_blocks_behind_the_end_are_zeros,
    test_missing_relation_is_not_found,
    test_lsn_outside_of_history_is_a_range_error,
    test_second_read_is_answered_from_the_cache,
    test_scan_of_what_takes_much_of_the_cache_leaves_it_alone,
    test_read_of_a_size_caches_no_page,
    test_changed_page_is_read_anew_and_old_lsns_are_not_served_from_the_cache,
    test_branch_reads_the_parent_as_of_the_branch_lsn,
    test_parent_and_branch_have_their_own_pages_in_the_cache,
    test_damaged_record_fails_its_page_only,
    test_deleted_timeline_is_not_found_and_a_given_up_wait_is_canceled,
    test_database_size_is_the_sum_of_its_forks,
    test_digest_depends_on_pages_and_lsn,
    test_digest_of_a_relation_a_fork_or_a_block_is_of_that_alone,
    test_list_of_relations_is_that_of_the_lsn);
