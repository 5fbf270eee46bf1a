/*
 * What versions a record makes. The store of the test is a list of versions, newest last; the
 * decoder's source answers from it.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/checksum.h"
#include "common/base/mark.h"
#include "common/base/mem.h"
#include "common/pg/page.h"
#include "common/pg/pg_control.h"
#include "common/pg/pg_version.h"
#include "common/pg/slot_message.h"
#include "pageserver/ingest/wal_decode.h"
#include "tests/lib/wal_builder.h"

struct version {
    struct page_key key;
    uint8_t tag, block_index;
    struct bytes value; /* owned */
    lsn_t lsn;
};

#define VERSIONS_MAX 4096

static struct version versions[VERSIONS_MAX];
static size_t version_count, record_begin; /* versions of the last record: from record_begin on */
static struct wal_builder builder;
static struct wal_record record;
static struct wal_state *state;
static struct errmsg msg;
static uint64_t newest_time;

static const struct page_key rel = {.spc = 1663, .db = 5, .rel = 16384};

/* -- the store -- */

static const struct version *newest(struct page_key key)
{
    for (size_t i = version_count; i-- > 0;) {
        if (page_key_equal(versions[i].key, key)) {
            return &versions[i];
        }
    }
    return NULL;
}

static void keep(struct page_key key, uint8_t tag, uint8_t block_index, struct bytes value)
{
    ck_assert_uint_lt(version_count, VERSIONS_MAX);
    versions[version_count++] = (struct version){
        .key = key,
        .tag = tag,
        .block_index = block_index,
        .value = {.data = mem_dup(value.data, value.size), .size = value.size},
        .lsn = record.end_lsn,
    };
}

static void put(
    struct wal_sink *sink,
    struct page_key key,
    uint8_t tag,
    uint8_t block_index,
    struct bytes value)
{
    (void)sink;
    for (size_t i = record_begin; i < version_count; i++) {
        ck_assert_msg(
            !page_key_equal(versions[i].key, key), "two versions of %s", page_key_text(key).text);
    }
    keep(key, tag, block_index, value);
}

static struct wal_sink sink = {.put = put};

static err_t source_rel_size(
    struct wal_state_source *source, struct page_key key, uint32_t *ret_blocks, struct errmsg *to)
{
    (void)source;
    (void)to;
    const struct version *version = newest(page_key_size_of(key));
    if (version == NULL || version->value.data[0] == 0) {
        return ERR_NOT_FOUND;
    }
    *ret_blocks = page_u32(version->value.data, 1);
    return ERR_OK;
}

static err_t source_state(
    struct wal_state_source *source, struct page_key key, struct buf *to, struct errmsg *message)
{
    (void)source;
    (void)message;
    const struct version *version = newest(key);
    if (version == NULL) {
        return ERR_NOT_FOUND;
    }
    buf_append(to, version->value.data, version->value.size);
    return ERR_OK;
}

static err_t source_relations(
    struct wal_state_source *source,
    uint32_t spc,
    uint32_t db,
    err_t (*visit)(struct page_key rel, uint32_t blocks, void *context, struct errmsg *msg),
    void *context,
    struct errmsg *to)
{
    for (size_t i = 0; i < version_count; i++) {
        struct page_key key = versions[i].key;
        uint32_t blocks;
        bool is_size = key.block == KEY_BLOCK_SIZE && key.spc == spc && key.db == db;
        if (is_size && newest(key) == &versions[i] &&
            source_rel_size(source, key, &blocks, to) == ERR_OK) {
            TRY(visit(key, blocks, context, to));
        }
    }
    return ERR_OK;
}

static err_t source_page(
    struct wal_state_source *source, struct page_key key, uint8_t *to, struct errmsg *message)
{
    (void)source;
    (void)message;
    const struct version *version = newest(key);
    if (version == NULL) {
        return ERR_NOT_FOUND;
    }
    memset(to, 0, PAGE_SIZE);
    if (version->tag == VALUE_IMAGE) {
        memcpy(to, version->value.data, PAGE_SIZE);
    }
    return ERR_OK;
}

static err_t source_newest_commit_time(
    struct wal_state_source *source, uint64_t *ret_time, struct errmsg *message)
{
    (void)source;
    (void)message;
    *ret_time = newest_time;
    return newest_time == 0 ? ERR_NOT_FOUND : ERR_OK;
}

static struct wal_state_source source = {
    .rel_size = source_rel_size,
    .state = source_state,
    .relations = source_relations,
    .page = source_page,
    .newest_commit_time = source_newest_commit_time,
};

/* -- given, when, then -- */

static void given_size(struct page_key key, uint32_t blocks)
{
    uint8_t value[5] = {1};
    page_set_u32(value, 1, blocks);
    keep(page_key_size_of(key), VALUE_STATE, 0, bytes_of(value, sizeof(value)));
}

static void given_state(enum state_kind kind, struct bytes value)
{
    keep(page_key_state(kind, 0, 0), VALUE_STATE, 0, value);
}

static void given_checkpoint(struct pg_checkpoint checkpoint)
{
    given_state(STATE_CHECKPOINT, bytes_of(&checkpoint, sizeof(checkpoint)));
}

static void given_control(bool track_commit_timestamp)
{
    struct pg_control control = {
        .control_version = PG_CONTROL_VERSION,
        .catalog_version = PG_CATALOG_VERSION,
        .checkpoint = {.next_xid = 700, .next_multi = 1},
        .max_align = 8,
        .float_format = 1234567.0,
        .page_size = PAGE_SIZE,
        .wal_page_size = 8192,
        .wal_segment_size = 16 << 20,
        .float8_by_value = 1,
        .track_commit_timestamp = track_commit_timestamp,
    };
    uint8_t file[PG_CONTROL_FILE_SIZE];
    pg_control_write(&control, file);
    given_state(STATE_CONTROL, bytes_of(file, sizeof(file)));
}

static void given_started(void)
{
    wal_state_destroy(state);
    state = NULL;
    ck_assert_int_eq(wal_state_create(&source, &state, &msg), ERR_OK);
}

static void setup(void)
{
    mark_reset_all();
    newest_time = 0;
    wal_builder_init(&builder, 0x1000100, (uint32_t)MIB);
    given_checkpoint((struct pg_checkpoint){
        .next_xid = 700, .next_oid = 16384, .next_multi = 1, .oldest_xid = 600, .oldest_multi = 1});
    given_started();
}

static void teardown(void)
{
    wal_state_destroy(state);
    state = NULL;
    for (size_t i = 0; i < version_count; i++) {
        mem_free((void *)versions[i].value.data);
    }
    version_count = 0;
    wal_builder_deinit(&builder);
}

static err_t decode(const struct wal_builder_record *made)
{
    wal_builder_add(&builder, made);
    wal_builder_decode(&builder, &record);
    record_begin = version_count;
    return wal_decode(state, &record, &sink, &msg);
}

static void when(const struct wal_builder_record *made)
{
    ck_assert_msg(decode(made) == ERR_OK, "%s", msg.text);
}

/* The version of `key` that the last record made; NULL: none. */
static const struct version *made(struct page_key key)
{
    const struct version *version = newest(key);
    return version != NULL && version >= &versions[record_begin] ? version : NULL;
}

static void assert_made(struct page_key key, uint8_t tag, uint8_t block_index)
{
    const struct version *version = made(key);
    ck_assert_msg(version != NULL, "no version of %s", page_key_text(key).text);
    ck_assert_msg(
        version->tag == tag, "%s is '%c', not '%c'", page_key_text(key).text, version->tag, tag);
    if (tag == VALUE_INIT || tag == VALUE_DELTA) {
        ck_assert_uint_eq(version->block_index, block_index);
        ck_assert(bytes_equal(version->value, record.bytes));
    }
}

static void assert_size(struct page_key key, bool exists, uint32_t blocks)
{
    const struct version *version = made(page_key_size_of(key));
    ck_assert_msg(version != NULL, "no size of %s", page_key_text(key).text);
    ck_assert_int_eq(version->tag, VALUE_STATE);
    ck_assert_uint_eq(version->value.size, REL_SIZE_VALUE_SIZE - 1);
    ck_assert_uint_eq(version->value.data[0], exists);
    ck_assert_uint_eq(page_u32(version->value.data, 1), blocks);
}

static void assert_made_count(size_t count)
{
    ck_assert_uint_eq(version_count - record_begin, count);
}

static uint64_t made_u64(enum state_kind kind)
{
    const struct version *version = made(page_key_state(kind, 0, 0));
    ck_assert(version != NULL && version->value.size == sizeof(uint64_t));
    uint64_t value;
    memcpy(&value, version->value.data, sizeof(value));
    return value;
}

static struct pg_checkpoint made_checkpoint(void)
{
    const struct version *version = made(page_key_state(STATE_CHECKPOINT, 0, 0));
    ck_assert(version != NULL && version->value.size == PG_CHECKPOINT_SIZE);
    struct pg_checkpoint checkpoint;
    memcpy(&checkpoint, version->value.data, sizeof(checkpoint));
    return checkpoint;
}

static struct page_key block_of(struct page_key key, uint32_t block)
{
    key.block = block;
    return key;
}

static struct page_key fork_of(struct page_key key, uint8_t fork)
{
    key.fork = fork;
    return key;
}

/* Fields of main data, little-endian. */
struct fields {
    uint8_t data[2048];
    size_t size;
};

static void add(struct fields *to, const void *data, size_t size)
{
    ck_assert_uint_le(to->size + size, sizeof(to->data));
    memcpy(to->data + to->size, data, size);
    to->size += size;
}

static void add_u8(struct fields *to, uint8_t value)
{
    add(to, &value, sizeof(value));
}

static void add_u16(struct fields *to, uint16_t value)
{
    add(to, &value, sizeof(value));
}

static void add_u32(struct fields *to, uint32_t value)
{
    add(to, &value, sizeof(value));
}

static void add_u64(struct fields *to, uint64_t value)
{
    add(to, &value, sizeof(value));
}

static struct wal_builder_record record_of(
    uint8_t rmgr, uint8_t info, uint32_t xid, const struct fields *main)
{
    return (struct wal_builder_record){
        .rmgr = rmgr, .info = info, .xid = xid, .main_data = bytes_of(main->data, main->size)};
}

/* Every shorter main data is refused. */
static void assert_prefixes_refused(struct wal_builder_record full)
{
    struct bytes main = full.main_data;
    for (size_t size = 0; size < main.size; size++) {
        full.main_data.size = size;
        ck_assert_msg(decode(&full) == ERR_CORRUPT, "%zu of %zu bytes", size, main.size);
    }
}

/* -- block references -- */

START_TEST(test_record_on_an_existing_block_is_a_delta)
{
    given_size(rel, 10);
    when(&(struct wal_builder_record){
        .rmgr = RM_BTREE, .block_count = 1, .blocks = {{.key = block_of(rel, 3)}}});
    assert_made(block_of(rel, 3), VALUE_DELTA, 0);
    assert_made_count(1);
}
END_TEST

START_TEST(test_block_made_from_nothing_is_an_init)
{
    given_size(rel, 10);
    when(&(struct wal_builder_record){
        .rmgr = RM_BTREE,
        .block_count = 2,
        .blocks = {{.key = block_of(rel, 3)}, {.key = block_of(rel, 4), .will_init = true}}});
    assert_made(block_of(rel, 3), VALUE_DELTA, 0);
    assert_made(block_of(rel, 4), VALUE_INIT, 1);
    assert_made_count(2);
}
END_TEST

START_TEST(test_block_at_the_end_extends_its_fork)
{
    given_size(rel, 3);
    when(&(struct wal_builder_record){
        .rmgr = RM_HEAP2, .info = 0x40, .block_count = 1, .blocks = {{.key = block_of(rel, 3)}}});
    assert_made(block_of(rel, 3), VALUE_INIT, 0); /* not a delta: an older life must not show */
    assert_size(rel, true, 4);
    assert_made_count(2);
}
END_TEST

START_TEST(test_block_of_an_unknown_relation_creates_it)
{
    when(&(struct wal_builder_record){
        .rmgr = RM_BTREE, .block_count = 1, .blocks = {{.key = rel, .will_init = true}}});
    assert_made(rel, VALUE_INIT, 0);
    assert_size(rel, true, 1);
}
END_TEST

START_TEST(test_skipped_blocks_are_zero)
{
    given_size(rel, 2);
    when(&(struct wal_builder_record){
        .rmgr = RM_HASH,
        .block_count = 2,
        .blocks = {{.key = block_of(rel, 6), .will_init = true}, {.key = block_of(rel, 4)}}});
    assert_made(block_of(rel, 2), VALUE_ZERO, 0);
    assert_made(block_of(rel, 3), VALUE_ZERO, 0);
    assert_made(block_of(rel, 4), VALUE_INIT, 1);
    assert_made(block_of(rel, 5), VALUE_ZERO, 0);
    assert_made(block_of(rel, 6), VALUE_INIT, 0);
    assert_size(rel, true, 7);
    assert_made_count(6);
}
END_TEST

START_TEST(test_huge_gap_is_refused)
{
    given_size(rel, 2);
    struct wal_builder_record bad = {
        .rmgr = RM_HASH, .block_count = 1, .blocks = {{.key = block_of(rel, UINT32_MAX - 1)}}};
    ck_assert_int_eq(decode(&bad), ERR_CORRUPT);
    ck_assert_uint_eq(mark_hits("wal_decode.huge_gap"), 1);
}
END_TEST

START_TEST(test_same_block_twice_is_refused)
{
    struct wal_builder_record bad = {
        .rmgr = RM_HASH, .block_count = 2, .blocks = {{.key = rel}, {.key = rel}}};
    ck_assert_int_eq(decode(&bad), ERR_CORRUPT);
    ck_assert_uint_eq(mark_hits("wal_decode.block_twice"), 1);
}
END_TEST

START_TEST(test_block_after_a_truncation_begins_anew)
{
    given_size(rel, 5);
    struct fields main = {0};
    add_u32(&main, 2);
    add_u32(&main, rel.spc);
    add_u32(&main, rel.db);
    add_u32(&main, rel.rel);
    add_u32(&main, 1);
    struct wal_builder_record truncate = record_of(RM_SMGR, 0x20, 0, &main);
    when(&truncate);
    assert_size(rel, true, 2);
    when(&(struct wal_builder_record){
        .rmgr = RM_HEAP,
        .info = 0x50, /* anything without a side effect */
        .block_count = 1,
        .blocks = {{.key = block_of(rel, 4)}}});
    assert_made(block_of(rel, 2), VALUE_ZERO, 0);
    assert_made(block_of(rel, 3), VALUE_ZERO, 0);
    assert_made(block_of(rel, 4), VALUE_INIT, 0);
    assert_size(rel, true, 5);
}
END_TEST

static void fill_page(uint8_t *page, bool is_new)
{
    memset(page, 7, PAGE_SIZE);
    page_set_u16(page, PAGE_UPPER, is_new ? 0 : 8000);
    page_set_lsn(page, 0x1234);
}

START_TEST(test_image_is_the_page_with_the_lsn_of_the_record)
{
    uint8_t page[PAGE_SIZE];
    fill_page(page, false);
    given_size(rel, 1);
    when(&(struct wal_builder_record){
        .rmgr = RM_HEAP,
        .info = 0x50,
        .block_count = 1,
        .blocks = {{.key = rel, .image = bytes_of(page, sizeof(page))}}});
    assert_made(rel, VALUE_IMAGE, 0);
    const uint8_t *stored = made(rel)->value.data;
    ck_assert_uint_eq(made(rel)->value.size, PAGE_SIZE);
    ck_assert_uint_eq(page_lsn(stored), record.end_lsn);
    page_set_lsn(page, record.end_lsn);
    ck_assert_mem_eq(stored, page, PAGE_SIZE);
    assert_made_count(1);
}
END_TEST

START_TEST(test_image_of_a_new_page_keeps_its_bytes)
{
    uint8_t page[PAGE_SIZE];
    fill_page(page, true);
    when(&(struct wal_builder_record){
        .rmgr = RM_XLOG,
        .info = 0xB0,
        .block_count = 1,
        .blocks = {{.key = rel, .image = bytes_of(page, sizeof(page))}}});
    ck_assert_mem_eq(made(rel)->value.data, page, PAGE_SIZE);
    assert_size(rel, true, 1);
}
END_TEST

START_TEST(test_image_for_checking_is_not_the_page)
{
    uint8_t page[PAGE_SIZE];
    fill_page(page, false);
    given_size(rel, 1);
    struct wal_builder_record checked = {
        .rmgr = RM_BTREE, .info = 0, .block_count = 1, .blocks = {{.key = rel}}};
    checked.blocks[0].image = bytes_of(page, 4096);
    checked.blocks[0].image_flags = WAL_IMAGE_HAS_HOLE;
    checked.blocks[0].hole_offset = 100;
    checked.blocks[0].hole_size = 4096;
    when(&checked);
    assert_made(rel, VALUE_DELTA, 0);
}
END_TEST

START_TEST(test_hash_and_gist_go_on_after_the_image)
{
    uint8_t page[PAGE_SIZE];
    fill_page(page, false);
    struct {
        uint8_t rmgr, info;
        size_t index;
    } cases[] = {
        {RM_HASH, 0x40, 0},
        {RM_HASH, 0x60, 0},
        {RM_HASH, 0x60, 1},
        {RM_GIST, 0x00, 1},
        {RM_GIST, 0x30, 0}};
    given_size(rel, 2);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct wal_builder_record two = {
            .rmgr = cases[i].rmgr,
            .info = cases[i].info,
            .block_count = 2,
            .blocks = {{.key = rel}, {.key = block_of(rel, 1)}}};
        two.blocks[cases[i].index].image = bytes_of(page, sizeof(page));
        when(&two);
        assert_made(block_of(rel, (uint32_t)cases[i].index), VALUE_INIT, (uint8_t)cases[i].index);
    }
}
END_TEST

START_TEST(test_bad_image_is_refused)
{
    uint8_t garbage[50] = {1, 2, 3};
    struct wal_builder_record bad = {
        .rmgr = RM_XLOG, .info = 0xB0, .block_count = 1, .blocks = {{.key = rel}}};
    bad.blocks[0].image = bytes_of(garbage, sizeof(garbage));
    bad.blocks[0].image_flags = WAL_IMAGE_APPLY | WAL_IMAGE_LZ4;
    ck_assert_int_eq(decode(&bad), ERR_CORRUPT);
}
END_TEST

START_TEST(test_hint_without_an_image_is_nothing)
{
    when(&(struct wal_builder_record){
        .rmgr = RM_XLOG, .info = 0xA0, .block_count = 1, .blocks = {{.key = rel}}});
    assert_made_count(0);
    struct wal_builder_record bad = {
        .rmgr = RM_XLOG, .info = 0xB0, .block_count = 1, .blocks = {{.key = rel}}};
    ck_assert_int_eq(decode(&bad), ERR_CORRUPT);
    ck_assert_uint_eq(mark_hits("wal_decode.fpi_without_image"), 1);
}
END_TEST

START_TEST(test_custom_resource_manager_is_stored)
{
    given_size(rel, 1);
    when(&(struct wal_builder_record){.rmgr = 150, .block_count = 1, .blocks = {{.key = rel}}});
    assert_made(rel, VALUE_DELTA, 0);
    struct wal_builder_record bad = {.rmgr = 50};
    ck_assert_int_eq(decode(&bad), ERR_CORRUPT);
    ck_assert_uint_eq(mark_hits("wal_decode.unknown_rmgr"), 1);
}
END_TEST

/* -- visibility map -- */

static struct wal_builder_record heap_record(uint8_t info, size_t flags_at, uint8_t flags)
{
    static uint8_t main[16];
    memset(main, 0, sizeof(main));
    main[flags_at] = flags;
    return (struct wal_builder_record){
        .rmgr = RM_HEAP,
        .info = info,
        .main_data = bytes_of(main, sizeof(main)),
        .block_count = 1,
        .blocks = {{.key = block_of(rel, 40000)}}};
}

START_TEST(test_cleared_visibility_is_a_delta_of_the_map)
{
    struct page_key map = block_of(fork_of(rel, FORK_VM), 1); /* 32672 heap blocks a page */
    given_size(rel, 50000);
    given_size(map, 2);
    struct {
        uint8_t rmgr, info;
        size_t flags_at;
    } cases[] = {{RM_HEAP, 0x00, 2},  {RM_HEAP, 0x10, 7}, {RM_HEAP, 0x60, 7}, {RM_HEAP2, 0x50, 0},
                 {RM_HEAP2, 0x60, 7}, {RM_HEAP, 0x20, 7}, {RM_HEAP, 0x40, 7}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct wal_builder_record heap = heap_record(cases[i].info, cases[i].flags_at, 1);
        heap.rmgr = cases[i].rmgr;
        when(&heap);
        assert_made(map, VALUE_DELTA, VALUE_BLOCK_IMPLIED);
        assert_made_count(2);

        heap = heap_record(cases[i].info, cases[i].flags_at, 0);
        heap.rmgr = cases[i].rmgr;
        when(&heap);
        assert_made_count(1);

        heap.main_data.size = cases[i].flags_at;
        ck_assert_int_eq(decode(&heap), ERR_CORRUPT);
    }
    ck_assert_uint_eq(mark_hits("wal_decode.short_heap_record"), ARRAY_LEN(cases));
}
END_TEST

START_TEST(test_named_map_page_is_not_implied)
{
    struct page_key map = block_of(fork_of(rel, FORK_VM), 1);
    given_size(rel, 50000);
    given_size(map, 2);
    struct wal_builder_record heap = heap_record(0x10, 7, 1);
    heap.block_count = 2;
    heap.blocks[1] = (struct wal_builder_block){.key = map};
    when(&heap);
    assert_made(map, VALUE_DELTA, 1);
    assert_made_count(2);

    heap = heap_record(0x20, 7, 3);
    heap.block_count = 2;
    heap.blocks[1] = (struct wal_builder_block){.key = map, .id = 3};
    when(&heap);
    assert_made(map, VALUE_DELTA, 3);
    assert_made_count(2);
}
END_TEST

/* Found by fuzzing: the heap block is itself a map page, so that both would be the same version. */
START_TEST(test_map_page_that_is_named_and_implied_is_refused)
{
    struct wal_builder_record heap = heap_record(0x00, 2, 1);
    heap.blocks[0].key = fork_of(rel, FORK_VM);
    ck_assert_int_eq(decode(&heap), ERR_CORRUPT);
    heap = heap_record(0x40, 7, 3);
    heap.block_count = 2;
    heap.blocks[1] = (struct wal_builder_block){.key = block_of(fork_of(rel, FORK_VM), 1), .id = 4};
    ck_assert_int_eq(decode(&heap), ERR_CORRUPT);
    ck_assert_uint_eq(mark_hits("wal_decode.vm_page_twice"), 2);
}
END_TEST

START_TEST(test_update_clears_the_maps_of_both_blocks)
{
    struct page_key map = fork_of(rel, FORK_VM);
    given_size(rel, 50000);
    given_size(map, 2);
    struct wal_builder_record update = heap_record(0x20, 7, 3); /* new: block 40000 */
    update.block_count = 2;
    update.blocks[1] = (struct wal_builder_block){.key = block_of(rel, 5)};
    when(&update);
    assert_made(block_of(map, 0), VALUE_DELTA, VALUE_BLOCK_IMPLIED);
    assert_made(block_of(map, 1), VALUE_DELTA, VALUE_BLOCK_IMPLIED);
    assert_made_count(4);

    update = heap_record(0x20, 7, 2); /* the new one alone */
    update.block_count = 2;
    update.blocks[1] = (struct wal_builder_block){.key = block_of(rel, 5)};
    when(&update);
    assert_made(block_of(map, 1), VALUE_DELTA, VALUE_BLOCK_IMPLIED);
    assert_made_count(3);

    update = heap_record(0x20, 7, 3); /* both on one page of the map */
    update.block_count = 2;
    update.blocks[1] = (struct wal_builder_block){.key = block_of(rel, 40001)};
    when(&update);
    assert_made(block_of(map, 1), VALUE_DELTA, VALUE_BLOCK_IMPLIED);
    assert_made_count(3);
}
END_TEST

START_TEST(test_map_page_that_does_not_exist_is_made)
{
    struct page_key map = fork_of(rel, FORK_VM);
    given_size(rel, 50000);
    struct wal_builder_record heap = heap_record(0x10, 7, 1);
    when(&heap);
    assert_made(block_of(map, 0), VALUE_ZERO, 0);
    assert_made(block_of(map, 1), VALUE_INIT, VALUE_BLOCK_IMPLIED);
    assert_size(map, true, 2);
}
END_TEST

/* -- relations -- */

static struct wal_builder_record smgr_create(struct page_key key)
{
    static struct fields main;
    main.size = 0;
    add_u32(&main, key.spc);
    add_u32(&main, key.db);
    add_u32(&main, key.rel);
    add_u32(&main, key.fork);
    return record_of(RM_SMGR, 0x10, 700, &main);
}

START_TEST(test_created_fork_is_empty)
{
    struct wal_builder_record create = smgr_create(fork_of(rel, FORK_INIT));
    when(&create);
    assert_size(fork_of(rel, FORK_INIT), true, 0);
    when(&create); /* again: nothing */
    assert_made_count(0);
    assert_prefixes_refused(create);
    ck_assert_uint_gt(mark_hits("wal_decode.short_smgr"), 0);
}
END_TEST

START_TEST(test_created_fork_with_blocks_keeps_them)
{
    given_size(rel, 4);
    struct wal_builder_record create = smgr_create(rel);
    create.xid = 0;
    when(&create);
    assert_made_count(0);
}
END_TEST

START_TEST(test_impossible_relations_are_refused)
{
    struct wal_builder_record bad = smgr_create((struct page_key){.spc = 0, .db = 3, .rel = 1});
    ck_assert_int_eq(decode(&bad), ERR_CORRUPT);
    bad = smgr_create((struct page_key){.spc = 1663, .db = 3, .rel = 0});
    ck_assert_int_eq(decode(&bad), ERR_CORRUPT);
    ck_assert_uint_eq(mark_hits("wal_decode.smgr_of_state"), 2);
    bad = smgr_create(fork_of(rel, 4));
    ck_assert_int_eq(decode(&bad), ERR_CORRUPT);
    ck_assert_uint_eq(mark_hits("wal_decode.create_bad_fork"), 1);
    bad.info = 0x30;
    ck_assert_int_eq(decode(&bad), ERR_CORRUPT);
    ck_assert_uint_eq(mark_hits("wal_decode.unknown_smgr"), 1);
}
END_TEST

static struct wal_builder_record smgr_truncate(uint32_t blocks, uint32_t flags)
{
    static struct fields main;
    main.size = 0;
    add_u32(&main, blocks);
    add_u32(&main, rel.spc);
    add_u32(&main, rel.db);
    add_u32(&main, rel.rel);
    add_u32(&main, flags);
    return record_of(RM_SMGR, 0x20, 0, &main);
}

START_TEST(test_truncation_cuts_all_forks)
{
    struct page_key map = fork_of(rel, FORK_VM), fsm = fork_of(rel, FORK_FSM);
    given_size(rel, 100000);
    given_size(map, 4);
    given_size(fsm, 2 + 25);
    struct wal_builder_record truncate = smgr_truncate(40000, 7);
    when(&truncate);
    assert_size(rel, true, 40000);
    assert_size(map, true, 2);
    assert_made(block_of(map, 1), VALUE_DELTA, VALUE_BLOCK_IMPLIED);
    assert_size(fsm, true, 2 + 9 + 1); /* root, middle, leaves 0 to 9; 4069 slots a leaf */
    assert_made(block_of(fsm, 2 + 9), VALUE_ZERO, 0);
    assert_made_count(5);
}
END_TEST

START_TEST(test_truncation_at_a_map_page_boundary_drops_whole_pages)
{
    struct page_key map = fork_of(rel, FORK_VM), fsm = fork_of(rel, FORK_FSM);
    given_size(rel, 100000);
    given_size(map, 4);
    given_size(fsm, 30);
    struct wal_builder_record truncate = smgr_truncate(2 * 32672, 2);
    when(&truncate);
    assert_size(map, true, 2);
    assert_made_count(1);
    truncate = smgr_truncate(4069 * 3, 4);
    when(&truncate);
    assert_size(fsm, true, 2 + 3);
    assert_made_count(1);
}
END_TEST

START_TEST(test_truncation_to_nothing)
{
    struct page_key map = fork_of(rel, FORK_VM), fsm = fork_of(rel, FORK_FSM);
    given_size(rel, 10);
    given_size(map, 1);
    given_size(fsm, 3);
    struct wal_builder_record truncate = smgr_truncate(0, 7);
    when(&truncate);
    assert_size(rel, true, 0);
    assert_size(map, true, 0);
    assert_size(fsm, true, 2);
    assert_made_count(3);
}
END_TEST

START_TEST(test_truncation_of_shorter_forks_is_nothing)
{
    struct page_key map = fork_of(rel, FORK_VM);
    given_size(rel, 100);
    given_size(map, 1);
    struct wal_builder_record truncate = smgr_truncate(40000, 7);
    when(&truncate);
    assert_made_count(0);
    truncate = smgr_truncate(101, 2); /* clears bits on the only page, which stays */
    when(&truncate);
    assert_made(block_of(map, 0), VALUE_DELTA, VALUE_BLOCK_IMPLIED);
    assert_made_count(1);
}
END_TEST

START_TEST(test_truncation_of_an_unknown_relation_makes_it)
{
    struct wal_builder_record truncate = smgr_truncate(10, 7);
    when(&truncate);
    assert_size(rel, true, 0);
    assert_made_count(1);
    assert_prefixes_refused(truncate);
}
END_TEST

START_TEST(test_free_space_map_pages_lie_depth_first)
{
    /* Behind 4069 leaves comes a second middle page. */
    struct page_key fsm = fork_of(rel, FORK_FSM);
    given_size(fsm, 5000);
    uint32_t heap_blocks = 4069u * 4069u + 1;
    struct wal_builder_record truncate = smgr_truncate(heap_blocks, 4);
    when(&truncate);
    assert_size(fsm, true, 1 + 2 + 4069 + 1);
    assert_made(block_of(fsm, 1 + 2 + 4069), VALUE_ZERO, 0);
}
END_TEST

/* -- transactions -- */

enum { HAS_INFO = 0x80 };

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
    ck_assert_int_eq(decode(&commit), ERR_CORRUPT);
    ck_assert_uint_eq(mark_hits("wal_decode.drop_of_state"), 1);
}
END_TEST

START_TEST(test_transaction_without_an_id_is_refused)
{
    struct fields main = {0};
    add_u64(&main, 1000);
    struct wal_builder_record commit = record_of(RM_XACT, 0x00, 0, &main);
    ck_assert_int_eq(decode(&commit), ERR_CORRUPT);
    commit = record_of(RM_XACT, 0x30, 700, &main); /* prepared, but which? */
    ck_assert_int_eq(decode(&commit), ERR_CORRUPT);
    ck_assert_uint_eq(mark_hits("wal_decode.xact_without_xid"), 2);
    commit = record_of(RM_XACT, 0x70, 700, &main);
    ck_assert_int_eq(decode(&commit), ERR_CORRUPT);
    ck_assert_uint_eq(mark_hits("wal_decode.unknown_xact"), 1);
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
    ck_assert_int_eq(decode(&prepare), ERR_CORRUPT);
    ck_assert_uint_eq(mark_hits("wal_decode.short_prepare"), 1);
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
        struct fields main = {0};
        add_u64(&main, cases[i].max);
        struct wal_builder_record zero = record_of(cases[i].rmgr, cases[i].info, 0, &main);
        when(&zero);
        assert_made(page_key_state(cases[i].kind, 0, cases[i].max), VALUE_ZERO, 0);
        assert_made_count(1);
        assert_prefixes_refused(zero);
        main.size = 0;
        add_u64(&main, (uint64_t)cases[i].max + 1);
        zero = record_of(cases[i].rmgr, cases[i].info, 0, &main);
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

static void assert_next_multi(uint32_t multi, uint32_t offset)
{
    const struct version *version = made(page_key_state(STATE_NEXT_MULTI, 0, 0));
    ck_assert_ptr_nonnull(version);
    ck_assert_uint_eq(version->value.size, 8);
    ck_assert_uint_eq(page_u32(version->value.data, 0), multi);
    ck_assert_uint_eq(page_u32(version->value.data, 4), offset);
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
    struct fields zero = {0};
    add_u64(&zero, 1);
    struct wal_builder_record zero_page = record_of(RM_MULTIXACT, 0x00, 0, &zero);
    when(&zero_page);
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

    struct fields zero = {0};
    add_u64(&zero, 1);
    struct wal_builder_record zero_page = record_of(RM_MULTIXACT, 0x00, 0, &zero);
    when(&zero_page); /* an older minor version zeroes it now: the offset must survive */
    assert_made_count(0);
    ck_assert_uint_eq(mark_hits("wal_decode.offsets_page_was_made"), 1);
    when(&zero_page);
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
    ck_assert_int_eq(decode(&create), ERR_CORRUPT);
    ck_assert_uint_eq(mark_hits("wal_decode.unknown_dbase"), 1);
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
    ck_assert_int_eq(decode(&drop), ERR_CORRUPT);
    ck_assert_uint_eq(mark_hits("wal_decode.dbase_of_state"), 1);
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
    ck_assert_int_eq(decode(&create), ERR_CORRUPT); /* onto itself */
    ck_assert_uint_eq(mark_hits("wal_decode.dbase_of_state"), 1);
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
    ck_assert_int_eq(decode(&create), ERR_CORRUPT);
    ck_assert_uint_eq(mark_hits("wal_decode.bad_tblspc"), 1);
    char path[1100];
    memset(path, 'x', sizeof(path) - 1);
    path[sizeof(path) - 1] = '\0';
    create = tblspc(0x00, 16384, path);
    ck_assert_int_eq(decode(&create), ERR_CORRUPT);
    ck_assert_uint_eq(mark_hits("wal_decode.long_tblspc"), 1);
    create = tblspc(0x20, 16384, "");
    ck_assert_int_eq(decode(&create), ERR_CORRUPT);
    ck_assert_uint_eq(mark_hits("wal_decode.unknown_tblspc"), 1);
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
    struct wal_builder_record shutdown = {
        .rmgr = RM_XLOG, .main_data = bytes_of(&checkpoint, sizeof(checkpoint))};
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
    ck_assert_int_eq(decode(&said), ERR_CORRUPT);
    ck_assert_uint_eq(mark_hits("wal_decode.slot_short"), 1);
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

int main(void)
{
    Suite *suite = suite_create("wal_decode");
    TCase *tcase = tcase_create("wal_decode");
    tcase_add_checked_fixture(tcase, setup, teardown);
    const TTest *tests[] = {
        test_record_on_an_existing_block_is_a_delta,
        test_block_made_from_nothing_is_an_init,
        test_block_at_the_end_extends_its_fork,
        test_block_of_an_unknown_relation_creates_it,
        test_skipped_blocks_are_zero,
        test_huge_gap_is_refused,
        test_same_block_twice_is_refused,
        test_block_after_a_truncation_begins_anew,
        test_image_is_the_page_with_the_lsn_of_the_record,
        test_image_of_a_new_page_keeps_its_bytes,
        test_image_for_checking_is_not_the_page,
        test_hash_and_gist_go_on_after_the_image,
        test_bad_image_is_refused,
        test_hint_without_an_image_is_nothing,
        test_custom_resource_manager_is_stored,
        test_cleared_visibility_is_a_delta_of_the_map,
        test_named_map_page_is_not_implied,
        test_map_page_that_is_named_and_implied_is_refused,
        test_update_clears_the_maps_of_both_blocks,
        test_map_page_that_does_not_exist_is_made,
        test_created_fork_is_empty,
        test_created_fork_with_blocks_keeps_them,
        test_impossible_relations_are_refused,
        test_truncation_cuts_all_forks,
        test_truncation_at_a_map_page_boundary_drops_whole_pages,
        test_truncation_to_nothing,
        test_truncation_of_shorter_forks_is_nothing,
        test_truncation_of_an_unknown_relation_makes_it,
        test_free_space_map_pages_lie_depth_first,
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
        test_commit_ts_truncation_moves_the_oldest,
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
        test_counters_of_the_store_win_over_the_checkpoint,
    };
    for (size_t i = 0; i < ARRAY_LEN(tests); i++) {
        tcase_add_test(tcase, tests[i]);
    }
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
