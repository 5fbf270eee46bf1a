#include "pageserver/read/working_set.h"

#include "tests/unit/timeline/tenant_fixture.h"

static void on_done(struct working_set *set, err_t result)
{
    msg = set->msg;
    fixture_done(result);
}

static err_t put(struct timeline *tl, const char *text)
{
    struct working_set set = {.is_put = true};
    buf_append(&set.list, text, strlen(text));
    working_set_start(&set, fixture.executor, tl, on_done);
    err_t result = fixture_run();
    working_set_deinit(&set);
    return result;
}

static void expect(struct timeline *tl, uint32_t size_max, const char *text)
{
    struct working_set set = {.size_max = size_max};
    working_set_start(&set, fixture.executor, tl, on_done);
    ck_assert_int_eq(fixture_run(), ERR_OK);
    ck_assert_uint_eq(set.list.size, strlen(text));
    ck_assert_mem_eq(buf_cstr(&set.list), text, strlen(text));
    working_set_deinit(&set);
}

START_TEST(test_the_last_list_is_kept_over_a_restart)
{
    fixture_begin_with_root();
    expect(find(1), 100, "");
    ck_assert_int_eq(put(find(1), "first"), ERR_OK);
    ck_assert_int_eq(put(find(1), "second"), ERR_OK);
    fixture_reopen();
    expect(find(1), 100, "second");
    expect(find(1), 5, ""); /* too large for who asks */
    fixture_end();
}
END_TEST

START_TEST(test_a_branch_is_given_its_ancestors_until_it_has_one)
{
    fixture_begin_with_root();
    ck_assert_int_eq(put_timeline_(2, 1, START_LSN), ERR_OK);
    ck_assert_int_eq(put_timeline_(3, 2, START_LSN), ERR_OK);
    ck_assert_int_eq(put(find(1), "of the root"), ERR_OK);
    expect(find(3), 100, "of the root");
    ck_assert_int_eq(put(find(3), "its own"), ERR_OK);
    expect(find(3), 100, "its own");
    expect(find(2), 100, "of the root");
    fixture_end();
}
END_TEST

START_TEST(test_a_list_goes_with_its_timeline)
{
    struct buf found = {0};
    fixture_begin_with_root();
    ck_assert_int_eq(put_timeline_(2, 1, START_LSN), ERR_OK);
    struct timeline *tl = timeline_ref(find(2));
    ck_assert_int_eq(put(tl, "its own"), ERR_OK);
    ck_assert_int_eq(delete_timeline_(2), ERR_OK);
    ck_assert_int_eq(put(tl, "too late"), ERR_NOT_FOUND);
    fixture_settle();
    ck_assert_int_eq(
        page_store_meta_get(
            timeline_store(tl), META_WORKING_SET, timeline_number(tl), &found, &msg),
        ERR_NOT_FOUND);
    timeline_unref(tl);
    buf_deinit(&found);
    fixture_end();
}
END_TEST

UNIT_MAIN(
    "working_set",
    test_the_last_list_is_kept_over_a_restart,
    test_a_branch_is_given_its_ancestors_until_it_has_one,
    test_a_list_goes_with_its_timeline);
