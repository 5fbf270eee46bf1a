/* What a tenant is measured to be, and how much work that is. */
#include "pageserver/timeline/tenant_size.h"

#include "tests/unit/timeline/tenant_fixture.h"

static const struct page_key table = {.spc = 1663, .db = 5, .rel = 16384};

/* Durable when the tenant is idle; while an earlier flush is at work no other one begins. */
static void grow_until(struct timeline *tl, lsn_t lsn, uint32_t blocks)
{
    fixture_settle();
    struct page_batch *batch = page_batch_create();
    page_batch_put_rel_size(batch, timeline_number(tl), table, lsn, true, blocks);
    ck_assert_ok(page_store_write(timeline_store(tl), batch, &msg), &msg);
    page_batch_destroy(batch);
    ingest_until(tl, lsn);
}

static struct tenant_size measured(void)
{
    struct tenant_size size;
    struct tenant *tenant = the_tenant();
    ck_assert_ok(
        tenant_size_measure(tenant_history(tenant), tenant_store(tenant), &size, &msg), &msg);
    return size;
}

START_TEST(test_each_branch_is_what_it_shows_at_its_end)
{
    const lsn_t branched = START_LSN + 0x100, end = START_LSN + 0x200;
    fixture_flush_bytes = 1; /* what is written becomes durable at once */
    fixture_begin_with_root();
    grow_until(find(1), branched, 10);
    fixture_settle();
    ck_assert_int_eq(put_timeline_(2, 1, branched), ERR_OK);
    grow_until(find(1), end, 30);
    fixture_settle();
    struct tenant_size size = measured();
    ck_assert_uint_eq(size.timelines, 2);
    ck_assert_uint_eq(size.ends[0].number, timeline_number(find(1)));
    ck_assert_uint_eq(size.ends[0].start_lsn, START_LSN);
    ck_assert_uint_eq(size.ends[0].end_lsn, end);
    ck_assert_uint_eq(size.ends[0].logical_bytes, 30 * PAGE_SIZE);
    ck_assert_uint_eq(size.ends[1].number, timeline_number(find(2)));
    ck_assert_uint_eq(size.ends[1].start_lsn, branched);
    ck_assert_uint_eq(size.ends[1].end_lsn, branched);
    ck_assert_uint_eq(size.ends[1].logical_bytes, 10 * PAGE_SIZE);
    ck_assert_uint_eq(size.logical_bytes, 40 * PAGE_SIZE);
    tenant_size_deinit(&size);
    fixture_end();
}
END_TEST

/* Or a project with many fresh branches could not be measured. */
START_TEST(test_what_branches_begin_with_is_listed_once)
{
    const lsn_t branched = START_LSN + 0x100;
    fixture_flush_bytes = 1; /* what is written becomes durable at once */
    fixture_begin_with_root();
    grow_until(find(1), branched, 10);
    fixture_settle();
    struct tenant_size alone = measured();
    for (uint8_t id = 2; id < 22; id++) {
        ck_assert_int_eq(put_timeline_(id, id == 21 ? 2 : 1, branched), ERR_OK);
    }
    struct tenant_size size = measured();
    ck_assert_uint_eq(size.timelines, 21);
    ck_assert_uint_eq(size.logical_bytes, 21 * 10 * PAGE_SIZE);
    ck_assert_uint_eq(size.listings, alone.listings);
    ck_assert_uint_eq(size.synthetic_bytes, alone.synthetic_bytes);
    tenant_size_deinit(&alone);
    tenant_size_deinit(&size);
    fixture_end();
}
END_TEST

UNIT_MAIN(
    "tenant_size",
    test_each_branch_is_what_it_shows_at_its_end,
    test_what_branches_begin_with_is_listed_once);
