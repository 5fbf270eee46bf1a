/*
 * decode_fixture.h - the store of a decoder's test: a list of versions, newest last, from which the
 * decoder's source answers; and how a test says what is given, what happens, and what was made.
 *
 * given_*() put versions as if they had been there before; when() and decode() feed one record;
 * made() and assert_*() look at the versions of the last record alone, newest() at all.
 */
#pragma once

#include "common/base/mark.h"
#include "common/base/mem.h"
#include "common/pg/page.h"
#include "common/pg/pg_control.h"
#include "common/pg/pg_version.h"
#include "pageserver/ingest/wal_decode.h"
#include "tests/lib/wal_builder.h"
#include "tests/unit/unit.h"

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

static inline const struct version *newest(struct page_key key)
{
    for (size_t i = version_count; i-- > 0;) {
        if (page_key_equal(versions[i].key, key)) {
            return &versions[i];
        }
    }
    return NULL;
}

static inline void keep(struct page_key key, uint8_t tag, uint8_t block_index, struct bytes value)
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

static inline void put(
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

static inline err_t source_rel_size(
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

static inline err_t source_state(
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

static inline err_t source_relations(
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

static inline err_t source_page(
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

static inline err_t source_newest_commit_time(
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

static inline void given_size(struct page_key key, uint32_t blocks)
{
    uint8_t value[5] = {1};
    page_set_u32(value, 1, blocks);
    keep(page_key_size_of(key), VALUE_STATE, 0, bytes_of(value, sizeof(value)));
}

static inline void given_state(enum state_kind kind, struct bytes value)
{
    keep(page_key_state(kind, 0, 0), VALUE_STATE, 0, value);
}

static inline void given_checkpoint(struct pg_checkpoint checkpoint)
{
    given_state(STATE_CHECKPOINT, bytes_of(&checkpoint, sizeof(checkpoint)));
}

static inline void given_control(bool track_commit_timestamp)
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

static inline void given_started(void)
{
    wal_state_destroy(state);
    state = NULL;
    ck_assert_int_eq(wal_state_create(&source, &state, &msg), ERR_OK);
}

static inline void setup(void)
{
    mark_reset_all();
    newest_time = 0;
    wal_builder_init(&builder, 0x1000100, (uint32_t)MIB);
    given_checkpoint((struct pg_checkpoint){
        .next_xid = 700, .next_oid = 16384, .next_multi = 1, .oldest_xid = 600, .oldest_multi = 1});
    given_started();
}

static inline void teardown(void)
{
    wal_state_destroy(state);
    state = NULL;
    for (size_t i = 0; i < version_count; i++) {
        mem_free((void *)versions[i].value.data);
    }
    version_count = 0;
    wal_builder_deinit(&builder);
}

static inline err_t decode(const struct wal_builder_record *made)
{
    wal_builder_add(&builder, made);
    wal_builder_decode(&builder, &record);
    record_begin = version_count;
    return wal_decode(state, &record, &sink, &msg);
}

static inline void when(const struct wal_builder_record *made)
{
    ck_assert_msg(decode(made) == ERR_OK, "%s", msg.text);
}

/* The version of `key` that the last record made; NULL: none. */
static inline const struct version *made(struct page_key key)
{
    const struct version *version = newest(key);
    return version != NULL && version >= &versions[record_begin] ? version : NULL;
}

static inline void assert_made(struct page_key key, uint8_t tag, uint8_t block_index)
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

static inline void assert_size(struct page_key key, bool exists, uint32_t blocks)
{
    const struct version *version = made(page_key_size_of(key));
    ck_assert_msg(version != NULL, "no size of %s", page_key_text(key).text);
    ck_assert_int_eq(version->tag, VALUE_STATE);
    ck_assert_uint_eq(version->value.size, REL_SIZE_VALUE_SIZE - 1);
    ck_assert_uint_eq(version->value.data[0], exists);
    ck_assert_uint_eq(page_u32(version->value.data, 1), blocks);
}

static inline void assert_made_count(size_t count)
{
    ck_assert_uint_eq(version_count - record_begin, count);
}

static inline uint64_t made_u64(enum state_kind kind)
{
    const struct version *version = made(page_key_state(kind, 0, 0));
    ck_assert(version != NULL && version->value.size == sizeof(uint64_t));
    uint64_t value;
    memcpy(&value, version->value.data, sizeof(value));
    return value;
}

static inline struct pg_checkpoint made_checkpoint(void)
{
    const struct version *version = made(page_key_state(STATE_CHECKPOINT, 0, 0));
    ck_assert(version != NULL && version->value.size == PG_CHECKPOINT_SIZE);
    struct pg_checkpoint checkpoint;
    memcpy(&checkpoint, version->value.data, sizeof(checkpoint));
    return checkpoint;
}

static inline struct page_key block_of(struct page_key key, uint32_t block)
{
    key.block = block;
    return key;
}

static inline struct page_key fork_of(struct page_key key, uint8_t fork)
{
    key.fork = fork;
    return key;
}

/* Fields of main data, little-endian. */
struct fields {
    uint8_t data[2048];
    size_t size;
};

static inline void add(struct fields *to, const void *data, size_t size)
{
    ck_assert_uint_le(to->size + size, sizeof(to->data));
    memcpy(to->data + to->size, data, size);
    to->size += size;
}

static inline void add_u8(struct fields *to, uint8_t value)
{
    add(to, &value, sizeof(value));
}

static inline void add_u16(struct fields *to, uint16_t value)
{
    add(to, &value, sizeof(value));
}

static inline void add_u32(struct fields *to, uint32_t value)
{
    add(to, &value, sizeof(value));
}

static inline void add_u64(struct fields *to, uint64_t value)
{
    add(to, &value, sizeof(value));
}

static inline struct wal_builder_record record_of(
    uint8_t rmgr, uint8_t info, uint32_t xid, const struct fields *main)
{
    return (struct wal_builder_record){
        .rmgr = rmgr, .info = info, .xid = xid, .main_data = bytes_of(main->data, main->size)};
}

/* Damaged, says the rule of this mark, which has refused `hits` with it. */
static inline void assert_refused(
    const struct wal_builder_record *bad, const char *mark, uint64_t hits)
{
    ck_assert_int_eq(decode(bad), ERR_CORRUPT);
    ck_assert_uint_eq(mark_hits(mark), hits);
}

/* Every shorter main data is refused. */
static inline void assert_prefixes_refused(struct wal_builder_record full)
{
    struct bytes main = full.main_data;
    for (size_t size = 0; size < main.size; size++) {
        full.main_data.size = size;
        ck_assert_msg(decode(&full) == ERR_CORRUPT, "%zu of %zu bytes", size, main.size);
    }
}

enum { HAS_INFO = 0x80 };

static inline void fill_page(uint8_t *page, bool is_new)
{
    memset(page, 7, PAGE_SIZE);
    page_set_u16(page, PAGE_UPPER, is_new ? 0 : 8000);
    page_set_lsn(page, 0x1234);
}

static inline void assert_next_multi(uint32_t multi, uint32_t offset)
{
    const struct version *version = made(page_key_state(STATE_NEXT_MULTI, 0, 0));
    ck_assert_ptr_nonnull(version);
    ck_assert_uint_eq(version->value.size, 8);
    ck_assert_uint_eq(page_u32(version->value.data, 0), multi);
    ck_assert_uint_eq(page_u32(version->value.data, 4), offset);
}

/* Each test with a fresh store. */
static const struct unit_options decode_options = {.setup = setup, .teardown = teardown};
