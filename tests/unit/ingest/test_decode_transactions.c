/* What versions the records of transactions make, and what those of SLRUs do. */
#include "tests/unit/ingest/decode_fixture.h"

#include "common/base/checksum.h"

/* -- transactions -- */

static void add_subxids(struct fields *main, const uint32_t *xids, uint32_t count)
{
    add_u32(main, count);
    add(main, xids, count * sizeof(xids[0]));
}

START_TEST(test_commit_touches_its_clog_page)
{
    struct fields main = {0};
    add_u64(&main, 1000);
    struct wal_builder_record commit = record_of(RM_XACT, 0x00, 40000, &main);
    when(&commit);
    assert_made(page_key_state(STATE_CLOG, 0, 1), VALUE_DELTA, VALUE_BLOCK_IMPLIED);
    ck_assert_uint_eq(made_u64(STATE_NEXT_XID), 40001);
    const struct version *time = made(page_key_state(STATE_COMMIT_TIME, 0, 1000));
    ck_assert(time != NULL && bytes_equal(time->value, bytes_of(&record.lsn, sizeof(lsn_t))));
    assert_made_count(3);
    assert_prefixes_refused(commit);
    ck_assert_uint_gt(mark_hits("wal_decode.short_xact"), 0);
}
END_TEST

START_TEST(test_children_on_other_pages_touch_those_too)
{
    uint32_t xids[] = {32767, 32768, 32769, 70000};
    struct fields main = {0};
    add_u64(&main, 1000);
    add_u32(&main, 1 << 1);
    add_subxids(&main, xids, 4);
    struct wal_builder_record abort = record_of(RM_XACT, 0x20 | HAS_INFO, 32766, &main);
    when(&abort);
    assert_made(page_key_state(STATE_CLOG, 0, 0), VALUE_DELTA, VALUE_BLOCK_IMPLIED);
    assert_made(page_key_state(STATE_CLOG, 0, 1), VALUE_DELTA, VALUE_BLOCK_IMPLIED);
    assert_made(page_key_state(STATE_CLOG, 0, 2), VALUE_DELTA, VALUE_BLOCK_IMPLIED);
    ck_assert_uint_eq(made_u64(STATE_NEXT_XID), 70001);
    assert_made_count(5);
    assert_prefixes_refused(abort);
}
END_TEST

START_TEST(test_only_later_commit_times_are_kept)
{
    newest_time = 1000;
    given_started();
    uint64_t times[] = {999, 1000, 1001, 1000, UINT64_MAX};
    for (size_t i = 0; i < ARRAY_LEN(times); i++) {
        struct fields main = {0};
        add_u64(&main, times[i]);
        struct wal_builder_record commit = record_of(RM_XACT, 0x00, 650, &main);
        when(&commit);
        assert_made_count(times[i] == 1001 ? 2 : 1);
    }
}
END_TEST

START_TEST(test_dropped_relations_lose_all_forks)
{
    given_size(rel, 5);
    given_size(fork_of(rel, FORK_VM), 1);
    struct fields main = {0};
    add_u64(&main, 1000);
    add_u32(&main, 1 << 0 | 1 << 2);
    add_u64(&main, 0); /* database and tablespace */
    add_u32(&main, 1);
    add_u32(&main, rel.spc);
    add_u32(&main, rel.db);
    add_u32(&main, rel.rel);
    struct wal_builder_record commit = record_of(RM_XACT, 0x00 | HAS_INFO, 700, &main);
    when(&commit);
    assert_size(rel, false, 0);
    assert_size(fork_of(rel, FORK_VM), false, 0);
    ck_assert_ptr_null(made(page_key_size_of(fork_of(rel, FORK_FSM))));
    page_set_u32(main.data, 8 + 4 + 8 + 4, 0);
    commit = record_of(RM_XACT, 0x00 | HAS_INFO, 700, &main);
    assert_refused(&commit, "wal_decode.drop_of_state", 1);
}
END_TEST

START_TEST(test_transaction_without_an_id_is_refused)
{
    struct fields main = {0};
    add_u64(&main, 1000);
    struct wal_builder_record commit = record_of(RM_XACT, 0x00, 0, &main);
    ck_assert_int_eq(decode(&commit), ERR_CORRUPT);
    commit = record_of(RM_XACT, 0x30, 700, &main); /* prepared, but which? */
    assert_refused(&commit, "wal_decode.xact_without_xid", 2);
    commit = record_of(RM_XACT, 0x70, 700, &main);
    assert_refused(&commit, "wal_decode.unknown_xact", 1);
}
END_TEST

START_TEST(test_commit_timestamps_only_when_tracked)
{
    given_control(true);
    given_started();
    struct fields main = {0};
    add_u64(&main, 1000);
    struct wal_builder_record commit = record_of(RM_XACT, 0x00, 820, &main);
    when(&commit);
    assert_made(page_key_state(STATE_COMMIT_TS, 0, 1), VALUE_DELTA, VALUE_BLOCK_IMPLIED);
    ck_assert_uint_eq(made_checkpoint().newest_commit_ts_xid, 820);
    struct wal_builder_record abort = record_of(RM_XACT, 0x20, 821, &main);
    when(&abort);
    ck_assert_ptr_null(made(page_key_state(STATE_COMMIT_TS, 0, 1)));
}
END_TEST

/* A two-phase state file without its checksum. */
static void add_twophase(struct fields *main, uint32_t xid, uint32_t subxid)
{
    uint8_t header[72] = {0};
    page_set_u32(header, 0, 0x57F94534);
    page_set_u32(header, 4, 72 + 8 + 8 + 4);
    page_set_u32(header, 8, xid);
    page_set_u32(header, 28, 1);
    page_set_u16(header, 54, 3); /* "p1" */
    page_set_u32(header, 56, 0x5678);
    add(main, header, sizeof(header));
    add(main, "p1\0\0\0\0\0", 8);
    add_u32(main, subxid);
    add_u32(main, 0);
}

START_TEST(test_prepared_transaction_is_a_file_with_its_checksum)
{
    struct fields main = {0};
    add_twophase(&main, 710, 711);
    struct wal_builder_record prepare = record_of(RM_XACT, 0x10, 710, &main);
    prepare.origin = 4;
    when(&prepare);
    const struct version *file = made(page_key_state(STATE_TWOPHASE, 0, 710));
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(file->value.size, main.size + 4);
    ck_assert_mem_eq(file->value.data, main.data, main.size);
    ck_assert_uint_eq(page_u32(file->value.data, main.size), crc32c(0, main.data, main.size));
    ck_assert_uint_eq(made_u64(STATE_NEXT_XID), 712);
    ck_assert_ptr_nonnull(made(page_key_state(STATE_ORIGIN, 4, 0)));
    assert_prefixes_refused(prepare);
    ck_assert_uint_gt(mark_hits("wal_decode.bad_prepare"), 0);
    page_set_u32(main.data, 28, 100);
    prepare = record_of(RM_XACT, 0x10, 710, &main);
    assert_refused(&prepare, "wal_decode.short_prepare", 1);
}
END_TEST

START_TEST(test_end_of_a_prepared_transaction_removes_the_file)
{
    struct fields main = {0};
    add_u64(&main, 1000);
    add_u32(&main, 1 << 4 | 1 << 7);
    add_u32(&main, 690); /* below the next xid */
    add(&main, "p1", 3);
    for (uint8_t op = 0x30; op <= 0x40; op += 0x10) {
        struct wal_builder_record end = record_of(RM_XACT, op | HAS_INFO, 0, &main);
        when(&end);
        const struct version *file = made(page_key_state(STATE_TWOPHASE, 0, 690));
        ck_assert(file != NULL && file->value.size == 0);
        assert_made(page_key_state(STATE_CLOG, 0, 0), VALUE_DELTA, VALUE_BLOCK_IMPLIED);
        assert_prefixes_refused(end);
    }
}
END_TEST

START_TEST(test_next_xid_wraps_into_the_next_epoch)
{
    given_checkpoint((struct pg_checkpoint){.next_xid = ((uint64_t)2 << 32) + UINT32_MAX - 1});
    given_started();
    struct fields main = {0};
    when(&(struct wal_builder_record){.rmgr = RM_STANDBY, .xid = UINT32_MAX - 1});
    ck_assert_uint_eq(made_u64(STATE_NEXT_XID), ((uint64_t)2 << 32) + UINT32_MAX);
    when(&(struct wal_builder_record){.rmgr = RM_STANDBY, .xid = UINT32_MAX});
    ck_assert_uint_eq(made_u64(STATE_NEXT_XID), ((uint64_t)3 << 32) + 3);
    ck_assert_uint_eq(mark_hits("wal_decode.xid_wraparound"), 1);
    when(&(struct wal_builder_record){.rmgr = RM_STANDBY, .xid = UINT32_MAX - 5}); /* older */
    assert_made_count(0);

    add_twophase(&main, UINT32_MAX - 5, UINT32_MAX - 4); /* of the epoch before */
    struct wal_builder_record prepare = record_of(RM_XACT, 0x10, UINT32_MAX - 5, &main);
    when(&prepare);
    ck_assert_ptr_nonnull(made(page_key_state(STATE_TWOPHASE, 2, UINT32_MAX - 5)));
}
END_TEST

START_TEST(test_top_level_xid_counts)
{
    when(&(struct wal_builder_record){.rmgr = RM_STANDBY, .xid = 710, .top_xid = 712});
    ck_assert_uint_eq(made_u64(STATE_NEXT_XID), 713);
}
END_TEST

START_TEST(test_assigned_children_count)
{
    uint32_t xids[] = {720, 721};
    struct fields main = {0};
    add_u32(&main, 719);
    add_subxids(&main, xids, 2);
    struct wal_builder_record assignment = record_of(RM_XACT, 0x50, 0, &main);
    when(&assignment);
    ck_assert_uint_eq(made_u64(STATE_NEXT_XID), 722);
    assert_made_count(1);
    assert_prefixes_refused(assignment);
    ck_assert_uint_gt(mark_hits("wal_decode.short_assignment"), 0);
}
END_TEST

/* -- SLRUs -- */

static struct wal_builder_record zero_page(uint8_t rmgr, uint8_t info, uint64_t number)
{
    static struct fields main;
    main.size = 0;
    add_u64(&main, number);
    return record_of(rmgr, info, 0, &main);
}

START_TEST(test_zeroed_slru_pages)
{
    struct {
        uint8_t rmgr, info;
        enum state_kind kind;
        uint32_t max;
    } cases[] = {
        {RM_CLOG, 0x00, STATE_CLOG, UINT32_MAX / 32768},
        {RM_MULTIXACT, 0x00, STATE_MULTI_OFFSETS, UINT32_MAX / 2048},
        {RM_MULTIXACT, 0x10, STATE_MULTI_MEMBERS, UINT32_MAX / 1636},
        {RM_COMMIT_TS, 0x00, STATE_COMMIT_TS, UINT32_MAX / 819},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct wal_builder_record zero = zero_page(cases[i].rmgr, cases[i].info, cases[i].max);
        when(&zero);
        assert_made(page_key_state(cases[i].kind, 0, cases[i].max), VALUE_ZERO, 0);
        assert_made_count(1);
        assert_prefixes_refused(zero);
        zero = zero_page(cases[i].rmgr, cases[i].info, (uint64_t)cases[i].max + 1);
        ck_assert_int_eq(decode(&zero), ERR_CORRUPT);
    }
    ck_assert_uint_eq(mark_hits("wal_decode.slru_page_number"), ARRAY_LEN(cases));
}
END_TEST

static struct wal_builder_record multi_create(uint32_t multi, uint32_t offset, uint32_t count)
{
    static struct fields main;
    main.size = 0;
    add_u32(&main, multi);
    add_u32(&main, offset);
    add_u32(&main, count);
    for (uint32_t i = 0; i < count; i++) {
        add_u32(&main, 690 + i);
        add_u32(&main, 1);
    }
    return record_of(RM_MULTIXACT, 0x20, 0, &main);
}

START_TEST(test_multixact_touches_offsets_and_members)
{
    struct wal_builder_record create = multi_create(5, 1635, 3);
    when(&create);
    assert_made(page_key_state(STATE_MULTI_OFFSETS, 0, 0), VALUE_DELTA, VALUE_BLOCK_IMPLIED);
    assert_made(page_key_state(STATE_MULTI_MEMBERS, 0, 0), VALUE_DELTA, VALUE_BLOCK_IMPLIED);
    assert_made(page_key_state(STATE_MULTI_MEMBERS, 0, 1), VALUE_DELTA, VALUE_BLOCK_IMPLIED);
    assert_next_multi(6, 1638);
    assert_made_count(4);
    assert_prefixes_refused(create);
    ck_assert_uint_gt(mark_hits("wal_decode.short_slru"), 0);
}
END_TEST

START_TEST(test_members_wrap_around)
{
    given_checkpoint((struct pg_checkpoint){
        .next_xid = 700, .next_multi = 5, .next_multi_offset = UINT32_MAX - 1});
    given_started();
    struct wal_builder_record create = multi_create(5, UINT32_MAX - 1, 4);
    when(&create);
    assert_made(
        page_key_state(STATE_MULTI_MEMBERS, 0, UINT32_MAX / 1636), VALUE_DELTA,
        VALUE_BLOCK_IMPLIED);
    assert_made(page_key_state(STATE_MULTI_MEMBERS, 0, 0), VALUE_DELTA, VALUE_BLOCK_IMPLIED);
    assert_next_multi(6, 2);
    assert_made_count(4);
}
END_TEST

START_TEST(test_next_offset_on_a_page_that_exists)
{
    struct wal_builder_record zero = zero_page(RM_MULTIXACT, 0x00, 1);
    when(&zero);
    struct wal_builder_record create = multi_create(2047, 10, 2);
    when(&create);
    assert_made(page_key_state(STATE_MULTI_OFFSETS, 0, 0), VALUE_DELTA, VALUE_BLOCK_IMPLIED);
    assert_made(page_key_state(STATE_MULTI_OFFSETS, 0, 1), VALUE_DELTA, VALUE_BLOCK_IMPLIED);
}
END_TEST

START_TEST(test_next_offset_on_a_page_not_made_yet_makes_it)
{
    struct wal_builder_record create = multi_create(2047, 10, 2);
    when(&create);
    assert_made(page_key_state(STATE_MULTI_OFFSETS, 0, 1), VALUE_INIT, VALUE_BLOCK_IMPLIED);
    ck_assert_uint_eq(mark_hits("wal_decode.offsets_page_made_early"), 1);

    struct wal_builder_record zero = zero_page(RM_MULTIXACT, 0x00, 1);
    when(&zero); /* an older minor version zeroes it now: the offset must survive */
    assert_made_count(0);
    ck_assert_uint_eq(mark_hits("wal_decode.offsets_page_was_made"), 1);
    when(&zero);
    assert_made_count(1);
}
END_TEST

START_TEST(test_last_multixact_is_followed_by_the_first)
{
    given_checkpoint((struct pg_checkpoint){.next_xid = 700, .next_multi = UINT32_MAX});
    given_started();
    struct wal_builder_record create = multi_create(UINT32_MAX, 10, 2);
    when(&create);
    assert_made(
        page_key_state(STATE_MULTI_OFFSETS, 0, UINT32_MAX / 2048), VALUE_DELTA,
        VALUE_BLOCK_IMPLIED);
    ck_assert_ptr_nonnull(made(page_key_state(STATE_MULTI_OFFSETS, 0, 0)));
    assert_next_multi(1, 12);
}
END_TEST

START_TEST(test_truncations_move_the_oldest_values)
{
    struct fields clog = {0};
    add_u64(&clog, 0);
    add_u32(&clog, 650);
    add_u32(&clog, 5);
    struct wal_builder_record truncate = record_of(RM_CLOG, 0x10, 0, &clog);
    when(&truncate);
    ck_assert_uint_eq(made_checkpoint().oldest_xid, 650);
    ck_assert_uint_eq(made_checkpoint().oldest_xid_db, 5);
    when(&truncate);
    assert_made_count(0);
    assert_prefixes_refused(truncate);

    struct fields multi = {0};
    add_u32(&multi, 7);
    add_u32(&multi, 1);
    add_u32(&multi, 20);
    add_u64(&multi, 0);
    truncate = record_of(RM_MULTIXACT, 0x30, 0, &multi);
    when(&truncate);
    ck_assert_uint_eq(made_checkpoint().oldest_multi, 20);
    ck_assert_uint_eq(made_checkpoint().oldest_multi_db, 7);
    assert_prefixes_refused(truncate);

    uint8_t rmgrs[] = {RM_CLOG, RM_MULTIXACT, RM_COMMIT_TS};
    for (size_t i = 0; i < ARRAY_LEN(rmgrs); i++) {
        truncate = record_of(rmgrs[i], 0x70, 0, &multi);
        ck_assert_int_eq(decode(&truncate), ERR_CORRUPT);
    }
    ck_assert_uint_eq(mark_hits("wal_decode.unknown_slru"), 3);
}
END_TEST

START_TEST(test_commit_ts_truncation_moves_the_oldest)
{
    given_checkpoint((struct pg_checkpoint){.next_xid = 700, .oldest_commit_ts_xid = 600});
    given_started();
    struct fields main = {0};
    add_u64(&main, 0);
    add_u32(&main, 650);
    struct wal_builder_record truncate = record_of(RM_COMMIT_TS, 0x10, 0, &main);
    when(&truncate);
    ck_assert_uint_eq(made_checkpoint().oldest_commit_ts_xid, 650);
    assert_prefixes_refused(truncate);
}
END_TEST

UNIT_MAIN_WITH(
    decode_options,
    "decode_transactions",
    test_commit_touches_its_clog_page,
    test_children_on_other_pages_touch_those_too,
    test_only_later_commit_times_are_kept,
    test_dropped_relations_lose_all_forks,
    test_transaction_without_an_id_is_refused,
    test_commit_timestamps_only_when_tracked,
    test_prepared_transaction_is_a_file_with_its_checksum,
    test_end_of_a_prepared_transaction_removes_the_file,
    test_next_xid_wraps_into_the_next_epoch,
    test_top_level_xid_counts,
    test_assigned_children_count,
    test_zeroed_slru_pages,
    test_multixact_touches_offsets_and_members,
    test_members_wrap_around,
    test_next_offset_on_a_page_that_exists,
    test_next_offset_on_a_page_not_made_yet_makes_it,
    test_last_multixact_is_followed_by_the_first,
    test_truncations_move_the_oldest_values,
    test_commit_ts_truncation_moves_the_oldest);
