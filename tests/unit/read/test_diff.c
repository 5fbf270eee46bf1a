#include "pageserver/read/diff.h"

#include "tests/unit/timeline/tenant_fixture.h"

static const struct page_key first = {.spc = 1663, .db = 5, .rel = 100};
static const struct page_key second = {.spc = 1663, .db = 5, .rel = 200};

/* A page of `rel` filled with one byte. */
static void put(uint8_t timeline, struct page_key rel, uint32_t block, lsn_t lsn, int fill)
{
    struct page_batch *batch = page_batch_create();
    uint8_t page[PAGE_SIZE];
    memset(page, fill, sizeof(page));
    rel.block = block;
    page_batch_put(
        batch, timeline_number(find(timeline)), rel, lsn, VALUE_IMAGE, 0,
        bytes_of(page, sizeof(page)));
    ck_assert_ok(page_store_write(timeline_store(find(timeline)), batch, &msg), &msg);
    page_batch_destroy(batch);
}

static void put_size(uint8_t timeline, struct page_key rel, lsn_t lsn, bool exists, uint32_t blocks)
{
    struct page_batch *batch = page_batch_create();
    page_batch_put_rel_size(batch, timeline_number(find(timeline)), rel, lsn, exists, blocks);
    ck_assert_ok(page_store_write(timeline_store(find(timeline)), batch, &msg), &msg);
    page_batch_destroy(batch);
}

/* Root 1 with two relations of three blocks, branch 2 at START_LSN + 8. */
static void begin(void)
{
    fixture_begin_with_root();
    for (uint32_t block = 0; block < 3; block++) {
        put(1, first, block, START_LSN, 'a');
        put(1, second, block, START_LSN, 'b');
    }
    put_size(1, first, START_LSN, true, 3);
    put_size(1, second, START_LSN, true, 3);
    ck_assert_int_eq(put_timeline_(2, 1, START_LSN + 8), ERR_OK);
}

static struct diff compare(uint8_t left, lsn_t left_lsn, uint8_t right, lsn_t right_lsn)
{
    struct diff diff = {.count = 0};
    struct diff_side sides[] = {
        {.path = timeline_path(find(left)), .lsn = left_lsn},
        {.path = timeline_path(find(right)), .lsn = right_lsn},
    };
    ck_assert_ok(diff_at(timeline_store(find(1)), sides, &diff, &msg), &msg);
    return diff;
}

static void flush(void)
{
    ck_assert_ok(page_store_flush(timeline_store(find(1)), &msg), &msg);
}

START_TEST(test_a_new_branch_does_not_differ_from_its_parent)
{
    begin();
    struct diff diff = compare(1, START_LSN + 8, 2, START_LSN + 8);
    ck_assert_uint_eq(diff.count, 0);
    ck_assert_uint_eq(diff.pages_compared, 0); /* nothing was read to find that out */
    diff_deinit(&diff);
    fixture_end();
}
END_TEST

START_TEST(test_what_either_side_wrote_differs)
{
    for (int flushed = 0; flushed < 2; flushed++) {
        begin();
        put(1, first, 1, START_LSN + 16, 'P');  /* the parent, behind the branch */
        put(2, second, 2, START_LSN + 24, 'C'); /* the child */
        put(2, first, 0, START_LSN + 32, 'a');  /* the child, what was there already */
        if (flushed == 1) {
            flush();
        }
        struct diff diff = compare(1, START_LSN + 100, 2, START_LSN + 100);
        ck_assert_uint_eq(diff.count, 2);
        ck_assert_uint_eq(diff.relations[0].rel.rel, first.rel);
        ck_assert_uint_eq(diff.relations[0].pages, 1);
        ck_assert_uint_eq(diff.relations[0].blocks[0], 1);
        ck_assert_uint_eq(diff.relations[1].rel.rel, second.rel);
        ck_assert_uint_eq(diff.relations[1].pages, 1);
        ck_assert_uint_eq(diff.relations[1].blocks[0], 2);
        ck_assert_uint_eq(diff.pages_compared, 3);
        diff_deinit(&diff);
        fixture_end();
    }
}
END_TEST

START_TEST(test_one_branch_at_two_moments)
{
    begin();
    put(1, first, 1, START_LSN + 16, 'x');
    put(1, first, 1, START_LSN + 24, 'a'); /* and back */
    put(1, first, 2, START_LSN + 24, 'y');
    flush();
    put(1, first, 0, START_LSN + 64, 'z'); /* later than both */
    struct diff diff = compare(1, START_LSN + 8, 1, START_LSN + 32);
    ck_assert_uint_eq(diff.count, 1);
    ck_assert_uint_eq(diff.relations[0].pages, 1);
    ck_assert_uint_eq(diff.relations[0].blocks[0], 2);
    diff_deinit(&diff);
    fixture_end();
}
END_TEST

START_TEST(test_sizes_and_existence_differ)
{
    static const struct page_key third = {.spc = 1663, .db = 5, .rel = 300};
    begin();
    put_size(2, first, START_LSN + 16, true, 1);   /* truncated */
    put_size(2, second, START_LSN + 24, false, 0); /* dropped */
    put_size(2, third, START_LSN + 32, true, 1);   /* made */
    put(2, third, 0, START_LSN + 32, 'n');
    struct diff diff = compare(1, START_LSN + 100, 2, START_LSN + 100);
    ck_assert_uint_eq(diff.count, 3);
    ck_assert_uint_eq(diff.relations[0].sizes[0].blocks, 3);
    ck_assert_uint_eq(diff.relations[0].sizes[1].blocks, 1);
    ck_assert_uint_eq(diff.relations[0].pages, 2);
    ck_assert(!diff.relations[1].sizes[1].exists);
    ck_assert_uint_eq(diff.relations[1].pages, 3);
    ck_assert(!diff.relations[2].sizes[0].exists);
    ck_assert_uint_eq(diff.relations[2].pages, 1);
    diff_deinit(&diff);
    fixture_end();
}
END_TEST

UNIT_MAIN(
    "diff",
    test_a_new_branch_does_not_differ_from_its_parent,
    test_what_either_side_wrote_differs,
    test_one_branch_at_two_moments,
    test_sizes_and_existence_differ);
