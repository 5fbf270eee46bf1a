/* What versions records make that are about databases, the cluster, and logical slots. */
#include "tests/unit/ingest/decode_fixture.h"

#include <stdio.h>

#include "common/base/checksum.h"
#include "common/pg/slot_message.h"

/* -- databases -- */

static struct wal_builder_record dbase(uint8_t info, const uint32_t *values, size_t count)
{
    static struct fields main;
    main.size = 0;
    add(&main, values, count * sizeof(values[0]));
    return record_of(RM_DBASE, info, 0, &main);
}

START_TEST(test_database_by_wal_is_a_state)
{
    struct wal_builder_record create = dbase(0x10, (uint32_t[]){16500, 1663}, 2);
    when(&create);
    const struct version *version = made(page_key_state(STATE_DATABASE, 16500, 1663));
    ck_assert(version != NULL && bytes_equal(version->value, bytes_of_str("117\n")));
    assert_prefixes_refused(create);
    create.info = 0x30;
    assert_refused(&create, "wal_decode.unknown_dbase", 1);
}
END_TEST

START_TEST(test_dropped_database_takes_its_relations)
{
    struct page_key other = {.spc = 1663, .db = 6, .rel = 1};
    given_size(rel, 5);
    given_size(fork_of(rel, FORK_VM), 1);
    given_size(other, 1);
    struct wal_builder_record drop = dbase(0x20, (uint32_t[]){5, 1, 1663}, 3);
    when(&drop);
    assert_size(rel, false, 0);
    assert_size(fork_of(rel, FORK_VM), false, 0);
    ck_assert_uint_eq(made(page_key_state(STATE_DATABASE, 5, 1663))->value.size, 0);
    ck_assert_uint_eq(made(page_key_state(STATE_RELMAP, 5, 1663))->value.size, 0);
    assert_made_count(4);
    assert_prefixes_refused(drop);
    ck_assert_uint_gt(mark_hits("wal_decode.short_dbase"), 0);
    drop = dbase(0x20, (uint32_t[]){STATE_CLOG, 1, 0}, 3);
    assert_refused(&drop, "wal_decode.dbase_of_state", 1);
}
END_TEST

START_TEST(test_database_by_file_copy_has_the_pages_of_its_source)
{
    struct page_key copy = rel, leftover = {.spc = 1663, .db = 16500, .rel = 99};
    copy.db = 16500;
    uint8_t page[PAGE_SIZE];
    fill_page(page, false);
    given_size(rel, 2);
    keep(block_of(rel, 0), VALUE_IMAGE, 0, bytes_of(page, sizeof(page)));
    keep(block_of(rel, 1), VALUE_ZERO, 0, bytes_of(page, 0));
    given_size(fork_of(rel, FORK_FSM), 0);
    given_size(leftover, 3);
    given_size(copy, 7); /* a leftover of the same name */
    keep(page_key_state(STATE_RELMAP, 5, 1663), VALUE_STATE, 0, bytes_of_str("map"));

    struct wal_builder_record create = dbase(0x00, (uint32_t[]){16500, 1663, 5, 1663}, 4);
    when(&create);
    assert_made(block_of(copy, 0), VALUE_IMAGE, 0);
    ck_assert_mem_eq(made(block_of(copy, 0))->value.data, page, PAGE_SIZE); /* old pd_lsn */
    assert_made(block_of(copy, 1), VALUE_ZERO, 0);
    assert_size(copy, true, 2);
    assert_size(fork_of(copy, FORK_FSM), true, 0);
    assert_size(leftover, false, 0);
    ck_assert(
        bytes_equal(made(page_key_state(STATE_RELMAP, 16500, 1663))->value, bytes_of_str("map")));
    ck_assert_ptr_nonnull(made(page_key_state(STATE_DATABASE, 16500, 1663)));
    assert_made_count(7);

    create = dbase(0x00, (uint32_t[]){5, 1663, 5, 1663}, 4);
    assert_refused(&create, "wal_decode.dbase_of_state", 1); /* onto itself */
}
END_TEST

static struct wal_builder_record tblspc(uint8_t info, uint32_t spc, const char *path)
{
    static struct fields main;
    main.size = 0;
    add_u32(&main, spc);
    if (path != NULL) {
        add(&main, path, strlen(path) + 1);
    }
    return record_of(RM_TBLSPC, info, 0, &main);
}

START_TEST(test_tablespace_is_a_state_until_it_is_dropped)
{
    struct page_key key = page_key_state(STATE_TABLESPACE, 16384, 0);
    struct wal_builder_record create = tblspc(0x00, 16384, "");
    when(&create);
    ck_assert(made(key) != NULL && bytes_equal(made(key)->value, bytes_of_str("1")));
    assert_prefixes_refused(create);
    ck_assert_uint_eq(mark_hits("wal_decode.short_tblspc"), 1);
    create = tblspc(0x00, 16384, "/srv/fast");
    when(&create);
    ck_assert(bytes_equal(made(key)->value, bytes_of_str("1/srv/fast")));

    struct wal_builder_record drop = tblspc(0x10, 16384, NULL);
    when(&drop);
    ck_assert(made(key) != NULL && made(key)->value.size == 0);
    assert_prefixes_refused(drop);
}
END_TEST

START_TEST(test_tablespace_that_cannot_be_is_refused)
{
    struct wal_builder_record create = tblspc(0x00, 0, "");
    assert_refused(&create, "wal_decode.bad_tblspc", 1);
    char path[1100];
    memset(path, 'x', sizeof(path) - 1);
    path[sizeof(path) - 1] = '\0';
    create = tblspc(0x00, 16384, path);
    assert_refused(&create, "wal_decode.long_tblspc", 1);
    create = tblspc(0x20, 16384, "");
    assert_refused(&create, "wal_decode.unknown_tblspc", 1);
}
END_TEST

START_TEST(test_relation_map_is_a_state)
{
    struct fields main = {0};
    add_u32(&main, 5);
    add_u32(&main, 1663);
    add_u32(&main, 524);
    uint8_t map[524] = {1, 2, 3};
    add(&main, map, sizeof(map));
    struct wal_builder_record update = record_of(RM_RELMAP, 0, 0, &main);
    when(&update);
    const struct version *version = made(page_key_state(STATE_RELMAP, 5, 1663));
    ck_assert(version != NULL && bytes_equal(version->value, bytes_of(map, sizeof(map))));
    assert_prefixes_refused(update);
    ck_assert_uint_eq(mark_hits("wal_decode.bad_relmap"), main.size);
}
END_TEST

/* -- the cluster -- */

START_TEST(test_next_oid_is_kept_in_the_checkpoint)
{
    struct fields main = {0};
    add_u32(&main, 24576);
    struct wal_builder_record next_oid = record_of(RM_XLOG, 0x30, 0, &main);
    when(&next_oid);
    ck_assert_uint_eq(made_checkpoint().next_oid, 24576);
    ck_assert_uint_eq(made_checkpoint().oldest_xid, 600);
    assert_prefixes_refused(next_oid);
    ck_assert_uint_gt(mark_hits("wal_decode.short_xlog"), 0);
}
END_TEST

static struct wal_builder_record checkpoint_record(
    uint8_t info, const struct pg_checkpoint *checkpoint)
{
    return (struct wal_builder_record){
        .rmgr = RM_XLOG, .info = info, .main_data = bytes_of(checkpoint, sizeof(*checkpoint))};
}

START_TEST(test_shutdown_checkpoint_is_believed)
{
    struct pg_checkpoint exact = {
        .next_xid = 650,
        .next_oid = 20000,
        .next_multi = 3,
        .next_multi_offset = 9,
        .oldest_xid = 500};
    struct wal_builder_record shutdown = checkpoint_record(0x00, &exact);
    when(&shutdown);
    ck_assert_mem_eq(
        made(page_key_state(STATE_CHECKPOINT, 0, 0))->value.data, &exact, sizeof(exact));
    ck_assert_uint_eq(made_u64(STATE_NEXT_XID), 650); /* even backwards */
    assert_next_multi(3, 9);
    assert_prefixes_refused(shutdown);
}
END_TEST

START_TEST(test_online_checkpoint_only_moves_forward)
{
    given_checkpoint((struct pg_checkpoint){
        .next_xid = 700,
        .next_oid = 30000,
        .next_multi = 10,
        .next_multi_offset = 50,
        .oldest_xid = 600,
        .oldest_multi = 4,
        .oldest_commit_ts_xid = 610,
        .newest_commit_ts_xid = 690});
    given_started();
    struct pg_checkpoint old = {
        .redo = 0x1000,
        .next_xid = 690,
        .next_oid = 20000,
        .next_multi = 9,
        .next_multi_offset = 49,
        .oldest_xid = 500,
        .oldest_multi = 3,
        .oldest_commit_ts_xid = 600,
        .newest_commit_ts_xid = 680};
    struct wal_builder_record online = checkpoint_record(0x10, &old);
    when(&online);
    struct pg_checkpoint after = made_checkpoint();
    ck_assert_uint_eq(after.redo, 0x1000);
    ck_assert_uint_eq(after.next_oid, 30000);
    ck_assert_uint_eq(after.oldest_xid, 600);
    ck_assert_uint_eq(after.oldest_multi, 4);
    ck_assert_uint_eq(after.oldest_commit_ts_xid, 610);
    ck_assert_uint_eq(after.newest_commit_ts_xid, 690);
    assert_made_count(1);

    old.next_xid = 710;
    old.next_multi = 11;
    old.next_multi_offset = 60;
    online = checkpoint_record(0x10, &old);
    when(&online);
    ck_assert_uint_eq(made_u64(STATE_NEXT_XID), 710);
    assert_next_multi(11, 60);
}
END_TEST

START_TEST(test_settings_change_the_control_file)
{
    given_control(false);
    given_started();
    struct fields main = {0};
    for (uint32_t i = 0; i < 5; i++) {
        add_u32(&main, 100 + i);
    }
    add_u32(&main, PG_WAL_LEVEL_LOGICAL);
    add_u8(&main, 1);
    add_u8(&main, 1);
    struct wal_builder_record change = record_of(RM_XLOG, 0x60, 0, &main);
    when(&change);
    struct pg_control control;
    ck_assert_int_eq(
        pg_control_parse(made(page_key_state(STATE_CONTROL, 0, 0))->value, &control, &msg), ERR_OK);
    ck_assert_int_eq(control.max_connections, 100);
    ck_assert_int_eq(control.max_locks_per_transaction, 104);
    ck_assert_int_eq(control.wal_level, PG_WAL_LEVEL_LOGICAL);
    ck_assert(control.wal_log_hints && control.track_commit_timestamp);
    /* Commit timestamps begin at the next transaction, on a page that no record makes. */
    assert_made(page_key_state(STATE_COMMIT_TS, 0, 700 / 819), VALUE_ZERO, 0);
    ck_assert_uint_eq(made_checkpoint().oldest_commit_ts_xid, 700);
    assert_prefixes_refused(change);

    when(&change); /* nothing new: only the file */
    assert_made_count(1);
    main.data[main.size - 1] = 0;
    change = record_of(RM_XLOG, 0x60, 0, &main);
    when(&change);
    ck_assert_uint_eq(made_checkpoint().oldest_commit_ts_xid, 0);
    ck_assert_uint_eq(mark_hits("wal_decode.commit_ts_switched"), 2);
}
END_TEST

START_TEST(test_other_checkpoint_fields)
{
    struct fields fpw = {0};
    add_u8(&fpw, 1);
    struct wal_builder_record change = record_of(RM_XLOG, 0x80, 0, &fpw);
    when(&change);
    ck_assert_uint_eq(made_checkpoint().full_page_writes, 1);

    struct fields end = {0};
    add_u64(&end, 1);
    add_u32(&end, 1);
    add_u32(&end, 1);
    add_u32(&end, PG_WAL_LEVEL_REPLICA);
    change = record_of(RM_XLOG, 0x90, 0, &end);
    when(&change);
    ck_assert_int_eq(made_checkpoint().wal_level, PG_WAL_LEVEL_REPLICA);
    assert_prefixes_refused(change);
}
END_TEST

START_TEST(test_records_that_change_nothing)
{
    struct {
        uint8_t rmgr, info;
    } cases[] = {{RM_XLOG, 0x20},    {RM_XLOG, 0x40}, {RM_XLOG, 0x50},    {RM_XLOG, 0x70},
                 {RM_XLOG, 0xD0},    {RM_XLOG, 0xE0}, {RM_STANDBY, 0x00}, {RM_STANDBY, 0x10},
                 {RM_STANDBY, 0x20}, {RM_XACT, 0x60}, {RM_HEAP, 0x30},    {RM_HEAP2, 0x70},
                 {RM_HEAP2, 0x00}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        when(&(struct wal_builder_record){
            .rmgr = cases[i].rmgr, .info = cases[i].info, .main_data = bytes_of_str("abcdefgh")});
        assert_made_count(0);
    }
}
END_TEST

static void commit_of_origin(uint16_t origin, lsn_t remote_lsn)
{
    struct fields main = {0};
    add_u64(&main, 1);
    add_u32(&main, 1 << 5);
    add_u64(&main, remote_lsn);
    add_u64(&main, 1);
    struct wal_builder_record commit = record_of(RM_XACT, 0x00 | HAS_INFO, 650, &main);
    commit.origin = origin;
    when(&commit);
}

START_TEST(test_origin_moves_forward_only_unless_forced)
{
    struct page_key key = page_key_state(STATE_ORIGIN, 3, 0);
    commit_of_origin(3, 100);
    ck_assert_ptr_nonnull(made(key));
    commit_of_origin(3, 90);
    ck_assert_ptr_null(made(key));
    commit_of_origin(0xFFFF, 500);
    ck_assert_ptr_null(made(page_key_state(STATE_ORIGIN, 0xFFFF, 0)));

    struct fields main = {0};
    add_u64(&main, 50);
    add_u16(&main, 3);
    add_u8(&main, 1);
    struct wal_builder_record set = record_of(RM_REPLORIGIN, 0x00, 0, &main);
    when(&set);
    ck_assert_ptr_nonnull(made(key));
    assert_prefixes_refused(set);

    struct fields drop_main = {0};
    add_u16(&drop_main, 3);
    struct wal_builder_record drop = record_of(RM_REPLORIGIN, 0x10, 0, &drop_main);
    when(&drop);
    ck_assert_uint_eq(made(key)->value.size, 0);
    assert_prefixes_refused(drop);
    commit_of_origin(3, 10); /* the id is used again: its past does not count */
    ck_assert_ptr_nonnull(made(key));
}
END_TEST

/* -- slots in logical messages -- */

static struct page_key slot_key(const char *name)
{
    uint64_t hash = hash64(name, strlen(name), 0);
    return page_key_state(STATE_SLOT, (uint32_t)(hash >> 32), (uint32_t)hash | 1);
}

static const struct page_key reservations = {.spc = KEY_SPC_STATE, .db = STATE_SLOT};

static void add_message(
    struct fields *main, uint32_t database, const char *prefix, struct bytes message)
{
    add_u32(main, database);
    add_u32(main, 0);
    add_u64(main, strlen(prefix) + 1);
    add_u64(main, message.size);
    add(main, prefix, strlen(prefix) + 1);
    add(main, message.data, message.size);
}

/* `saved` empty: dropped. */
static void slot_says(const char *name, const char *saved, uint32_t flags)
{
    struct fields message = {0}, main = {0};
    struct slot_message head = {
        .version = SLOT_MESSAGE_VERSION, .state_size = (uint32_t)strlen(saved), .flags = flags};
    (void)snprintf(head.name, sizeof(head.name), "%s", name);
    add(&message, &head, sizeof(head));
    add(&message, saved, strlen(saved));
    add_message(&main, 0, SLOT_MESSAGE_PREFIX, bytes_of(message.data, message.size));
    struct wal_builder_record said = record_of(RM_LOGICALMSG, 0x00, 0, &main);
    when(&said);
}

START_TEST(test_newest_state_of_a_slot_is_kept)
{
    slot_says("a", "first", 0);
    slot_says("b", "other", 0);
    slot_says("a", "second!", 0);
    ck_assert_uint_eq(made(slot_key("a"))->value.size, sizeof(struct slot_message) + 7);
    ck_assert_ptr_null(made(reservations));
    slot_says("a", "", 0);
    ck_assert_uint_eq(made(slot_key("a"))->value.size, 0);
    ck_assert_uint_gt(newest(slot_key("b"))->value.size, 0);
}
END_TEST

START_TEST(test_reservations_end_with_their_server)
{
    slot_says("a", "x", SLOT_MESSAGE_RESERVES);
    lsn_t since = record.end_lsn;
    ck_assert_mem_eq(made(reservations)->value.data, &since, sizeof(since));
    slot_says("b", "x", SLOT_MESSAGE_RESERVES);
    ck_assert_ptr_null(made(reservations)); /* the first of them counts */
    struct pg_checkpoint checkpoint = {.next_xid = 700};
    struct wal_builder_record shutdown = checkpoint_record(0x00, &checkpoint);
    when(&shutdown);
    ck_assert_uint_eq(made(reservations)->value.size, 0);
    when(&shutdown);
    ck_assert_ptr_null(made(reservations));
}
END_TEST

START_TEST(test_messages_of_users_change_nothing)
{
    struct {
        uint32_t database;
        const char *prefix;
    } cases[] = {{5, SLOT_MESSAGE_PREFIX}, {0, "anabranch.tols"}, {0, "mine"}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct fields main = {0};
        add_message(&main, cases[i].database, cases[i].prefix, bytes_of_str("hello"));
        struct wal_builder_record said = record_of(RM_LOGICALMSG, 0x00, 0, &main);
        when(&said);
        assert_made_count(0);
    }
}
END_TEST

START_TEST(test_malformed_slot_is_refused)
{
    struct slot_message good = {.version = SLOT_MESSAGE_VERSION, .name = "a"};
    struct slot_message cases[4] = {good, good, good, good};
    cases[0].version = 77;
    cases[1].name[0] = '\0';
    memset(cases[2].name, 'x', sizeof(cases[2].name));
    cases[3].snapshot_size = UINT32_MAX;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct fields main = {0};
        add_message(&main, 0, SLOT_MESSAGE_PREFIX, bytes_of(&cases[i], sizeof(cases[i])));
        struct wal_builder_record said = record_of(RM_LOGICALMSG, 0x00, 0, &main);
        ck_assert_int_eq(decode(&said), ERR_CORRUPT);
    }
    ck_assert_uint_eq(mark_hits("wal_decode.slot_malformed"), 4);
    struct fields main = {0};
    add_message(&main, 0, SLOT_MESSAGE_PREFIX, bytes_of(&good, sizeof(good)));
    assert_prefixes_refused(record_of(RM_LOGICALMSG, 0x00, 0, &main));
    struct fields short_main = {0};
    add_message(&short_main, 0, SLOT_MESSAGE_PREFIX, bytes_of(&good, 80));
    struct wal_builder_record said = record_of(RM_LOGICALMSG, 0x00, 0, &short_main);
    assert_refused(&said, "wal_decode.slot_short", 1);
}
END_TEST

/* -- the state between records -- */

START_TEST(test_timeline_without_a_checkpoint_does_not_start)
{
    teardown();
    ck_assert_int_eq(wal_state_create(&source, &state, &msg), ERR_NOT_FOUND);
    ck_assert_uint_eq(mark_hits("wal_decode.no_checkpoint"), 1);
    setup();
}
END_TEST

START_TEST(test_malformed_counters_do_not_start)
{
    struct wal_state *other;
    given_state(STATE_NEXT_XID, bytes_of_str("abc"));
    ck_assert_int_eq(wal_state_create(&source, &other, &msg), ERR_CORRUPT);
    ck_assert_uint_eq(mark_hits("wal_decode.short_counter"), 1);
}
END_TEST

START_TEST(test_counters_of_the_store_win_over_the_checkpoint)
{
    uint64_t next_xid = 800;
    given_state(STATE_NEXT_XID, bytes_of(&next_xid, sizeof(next_xid)));
    given_started();
    when(&(struct wal_builder_record){.rmgr = RM_STANDBY, .xid = 750});
    assert_made_count(0);
    when(&(struct wal_builder_record){.rmgr = RM_STANDBY, .xid = 800});
    ck_assert_uint_eq(made_u64(STATE_NEXT_XID), 801);
}
END_TEST

UNIT_MAIN_WITH(
    decode_options,
    "decode_cluster",
    test_database_by_wal_is_a_state,
    test_dropped_database_takes_its_relations,
    test_database_by_file_copy_has_the_pages_of_its_source,
    test_tablespace_is_a_state_until_it_is_dropped,
    test_tablespace_that_cannot_be_is_refused,
    test_relation_map_is_a_state,
    test_next_oid_is_kept_in_the_checkpoint,
    test_shutdown_checkpoint_is_believed,
    test_online_checkpoint_only_moves_forward,
    test_settings_change_the_control_file,
    test_other_checkpoint_fields,
    test_records_that_change_nothing,
    test_origin_moves_forward_only_unless_forced,
    test_newest_state_of_a_slot_is_kept,
    test_reservations_end_with_their_server,
    test_messages_of_users_change_nothing,
    test_malformed_slot_is_refused,
    test_timeline_without_a_checkpoint_does_not_start,
    test_malformed_counters_do_not_start,
    test_counters_of_the_store_win_over_the_checkpoint);
