/*
 * Records of any resource manager with any contents, one after the other in one decoder, become
 * versions or are refused: no reserved key is written, no version is larger than what made it, no
 * key gets two different versions from one record, and a page that the record changes without a
 * reference can be made from it (redo refuses nothing that ingest let in).
 *
 * The input is records, each with its length in front of it as in WAL. What the store answers is
 * chosen by the first one's CRC field, which the decoder does not look at: with a right CRC it is a
 * sane store, else one that says anything, failures among it.
 */
#include <stdlib.h>

#include "common/base/assert.h"
#include "common/base/checksum.h"
#include "common/base/mem.h"
#include "common/pg/cursor.h"
#include "common/pg/page.h"
#include "common/pg/pg_control.h"
#include "common/pg/pg_version.h"
#include "pageserver/ingest/wal_decode.h"
#include "pageserver/redo/redo.h"
#include "tests/fuzz/mutate_record.h"

#define RECORDS_MAX  16
#define VERSIONS_MAX 256 /* of one record that are compared with each other */

struct put_version {
    struct page_key key;
    uint64_t digest;
    bool is_implied;
};

static struct wal_record record;
static struct put_version versions[VERSIONS_MAX];
static size_t version_count;
static uint32_t world; /* 0: sane */

/* -- what the store answers -- */

/* The same question is answered the same way all the time. */
static uint32_t answer(struct page_key key, uint32_t salt)
{
    uint32_t parts[] = {world, key.spc, key.db, key.rel, key.fork, key.block, salt};
    return (uint32_t)hash64(parts, sizeof(parts), 0);
}

static err_t some_failure(uint32_t chance, struct errmsg *msg)
{
    switch (chance % 16) {
    case 0: return err_set(msg, ERR_IO, "the disk is gone");
    case 1: return err_set(msg, ERR_CORRUPT, "a file is damaged");
    case 2: return err_set(msg, ERR_BUSY, "later");
    case 3:
    case 4: return ERR_NOT_FOUND;
    default: return ERR_OK;
    }
}

/* The highest block of this fork that the record in progress names, or implies (a map page); 0:
 * none.
 */
static uint32_t named_block(struct page_key rel)
{
    uint32_t block = 0;
    for (size_t i = 0; i < record.block_count; i++) {
        struct page_key key = record.blocks[i].key;
        if (!record.blocks[i].in_use || key.rel != rel.rel) {
            continue;
        }
        bool is_implied = rel.fork == FORK_VM && key.fork != FORK_VM;
        block = is_implied ? MAX_OF(block, key.block / 32672) : block;
        block = key.fork == rel.fork ? MAX_OF(block, key.block) : block;
    }
    return block;
}

/* Mostly near the block that is about to be written: a large gap is a million zero pages. */
static err_t rel_size(
    struct wal_state_source *source, struct page_key rel, uint32_t *ret_blocks, struct errmsg *msg)
{
    static const uint32_t sizes[] = {0, 1, 2, 3, 7, 8, 100, 32672, 131072, 0x7FFFFFFF, UINT32_MAX};
    static const int32_t distances[] = {0, 0, 1, 1, 2, 100, -1, -3, -70};
    (void)source;
    uint32_t chance = answer(rel, 1);
    uint32_t block = named_block(rel);
    *ret_blocks = block + (uint32_t)distances[chance / 16 % ARRAY_LEN(distances)];
    if (world == 0) {
        return rel.rel % 5 == 0 && block < 1000 ? ERR_NOT_FOUND : ERR_OK;
    }
    uint32_t size = sizes[chance / 16 % ARRAY_LEN(sizes)];
    if (chance >> 28 == 0 && (size > block || block < 1000 || chance >> 20 == 0)) {
        *ret_blocks = size;
    }
    err_t err = some_failure(chance, msg);
    return err == ERR_NOT_FOUND && block > 1000 ? ERR_OK : err;
}

static void put_control(struct buf *to)
{
    struct pg_control control = {
        .control_version = PG_CONTROL_VERSION,
        .catalog_version = PG_CATALOG_VERSION,
        .max_align = 8,
        .float_format = 1234567.0,
        .page_size = PAGE_SIZE,
        .wal_page_size = 8192,
        .wal_segment_size = 16 << 20,
        .float8_by_value = 1,
        .track_commit_timestamp = 1,
        .checkpoint.next_xid = world == 0 ? 1000 : answer(page_key_state(STATE_CONTROL, 0, 0), 2),
    };
    pg_control_write(&control, buf_extend(to, PG_CONTROL_FILE_SIZE));
}

static err_t state_value(
    struct wal_state_source *source, struct page_key key, struct buf *to, struct errmsg *msg)
{
    (void)source;
    uint32_t chance = answer(key, 3);
    if (key.db == STATE_CONTROL && (world == 0 || chance % 8 != 0)) {
        put_control(to);
        return ERR_OK;
    }
    if (world == 0 || chance % 4 == 0) {
        return ERR_NOT_FOUND;
    }
    static const size_t sizes[] = {0, 1, 4, 7, 8, 9, 12, 88, 96, 524, 8192};
    size_t size = sizes[chance / 16 % ARRAY_LEN(sizes)];
    if (size > 0) {
        memset(buf_extend(to, size), (int)(chance >> 8 & 0xFF), size);
    }
    return some_failure(chance, msg);
}

static err_t relations(
    struct wal_state_source *source,
    uint32_t spc,
    uint32_t db,
    err_t (*visit)(struct page_key rel, uint32_t blocks, void *context, struct errmsg *msg),
    void *context,
    struct errmsg *msg)
{
    (void)source;
    struct page_key rel = {.spc = spc, .db = db, .rel = 1000};
    uint32_t count = world == 0 ? 1 : answer(rel, 4) % 6;
    for (uint32_t i = 0; i < count; i++) {
        rel.rel = 1000 + i / 2;
        rel.fork = (uint8_t)(i % 2);
        uint32_t blocks = world == 0 ? 3 : answer(rel, 5) % 5;
        TRY(visit(rel, blocks, context, msg));
    }
    return world == 0 ? ERR_OK : some_failure(answer(rel, 6), msg);
}

static err_t page(
    struct wal_state_source *source, struct page_key key, uint8_t *to, struct errmsg *msg)
{
    (void)source;
    memset(to, (int)(key.block % 2), PAGE_SIZE);
    if (world == 0) {
        return key.spc == KEY_SPC_STATE ? ERR_NOT_FOUND : ERR_OK;
    }
    return some_failure(answer(key, 7), msg);
}

static err_t newest_commit_time(
    struct wal_state_source *source, uint64_t *ret_time, struct errmsg *msg)
{
    (void)source;
    *ret_time = (uint64_t)answer(page_key_state(STATE_COMMIT_TIME, 0, 0), 8) << 20;
    return world == 0 ? ERR_NOT_FOUND : some_failure(answer(page_key_state(1, 0, 0), 9), msg);
}

/* -- what becomes of the records -- */

static void put(
    struct wal_sink *sink,
    struct page_key key,
    uint8_t tag,
    uint8_t block_index,
    struct bytes value)
{
    (void)sink;
    bool is_state_kind = key.db > STATE_INGEST_LSN && key.db <= STATE_COMMIT_TS;
    ASSERT(IMPLIES(key.spc == KEY_SPC_STATE, is_state_kind));
    ASSERT(key.fork < FORK_COUNT);
    ASSERT(IMPLIES(tag == VALUE_IMAGE, value.size == PAGE_SIZE));
    ASSERT(IMPLIES(tag == VALUE_ZERO, value.size == 0));
    if (tag == VALUE_INIT || tag == VALUE_DELTA) {
        ASSERT(value.size == record.total_size);
        ASSERT(block_index == VALUE_BLOCK_IMPLIED || record.blocks[block_index].in_use);
    }
    if (version_count < VERSIONS_MAX) {
        uint64_t digest = value.size > 0 ? hash64(value.data, value.size, tag) : tag;
        bool has_index = tag == VALUE_INIT || tag == VALUE_DELTA;
        digest = digest << 8 | (has_index ? block_index : 0u);
        versions[version_count++] = (struct put_version){
            .key = key,
            .digest = digest,
            .is_implied = has_index && block_index == VALUE_BLOCK_IMPLIED,
        };
    }
}

static int compare_versions(const void *a, const void *b)
{
    uint8_t x[PAGE_KEY_SIZE], y[PAGE_KEY_SIZE];
    page_key_encode(1, ((const struct put_version *)a)->key, 1, x);
    page_key_encode(1, ((const struct put_version *)b)->key, 1, y);
    return memcmp(x, y, sizeof(x));
}

/* The store keeps one of two versions with the same key and LSN: they had better be the same. */
static void check_versions(void)
{
    if (version_count > 1) {
        qsort(versions, version_count, sizeof(versions[0]), compare_versions);
    }
    for (size_t i = 1; i < version_count; i++) {
        bool same_key = compare_versions(&versions[i - 1], &versions[i]) == 0;
        ASSERT(IMPLIES(same_key, versions[i - 1].digest == versions[i].digest));
    }
}

/* What is on such a page does not matter to redo: SLRU pages and map bits have no structure. */
static void check_implied(void)
{
    uint8_t content[PAGE_SIZE] = {0};
    struct errmsg msg;
    for (size_t i = 0; i < version_count; i++) {
        if (versions[i].is_implied) {
            err_t err = redo_apply(&record, VALUE_BLOCK_IMPLIED, versions[i].key, content, &msg);
            ASSERT(err == ERR_OK);
        }
    }
}

static void decode_one(struct wal_state *state, struct bytes bytes, lsn_t lsn)
{
    struct wal_sink sink = {.put = put};
    struct errmsg msg;
    uint8_t *exact = mem_dup(bytes.data, bytes.size);
    page_set_u32(exact, 0, (uint32_t)bytes.size);
    exact[17] = (uint8_t)(exact[17] % (RM_COUNT + 1));
    version_count = 0;
    if (wal_record_decode(bytes_of(exact, bytes.size), lsn, lsn + 8, &record, &msg) == ERR_OK &&
        wal_decode(state, &record, &sink, &msg) == ERR_OK) {
        check_versions();
        check_implied();
    }
    mem_free(exact);
}

/* How long the record at `at` is: what it says, or all that is left. */
static size_t record_size(const uint8_t *at, size_t left)
{
    uint32_t said = le_u32(at);
    return said >= WAL_RECORD_HEADER_SIZE && said <= left ? said : left;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < WAL_RECORD_HEADER_SIZE) {
        return 0;
    }
    struct errmsg msg;
    struct wal_state_source source = {
        .rel_size = rel_size,
        .state = state_value,
        .relations = relations,
        .page = page,
        .newest_commit_time = newest_commit_time,
    };
    uint32_t crc = wal_record_crc(bytes_of(data, record_size(data, size)));
    world = crc == le_u32(data + 20) ? 0 : le_u32(data + 20) | 1;
    struct wal_state *state = NULL;
    if (wal_state_create(&source, &state, &msg) != ERR_OK) {
        ASSERT(world != 0);
        return 0;
    }
    size_t at = 0;
    for (size_t i = 0; i < RECORDS_MAX && size - at >= WAL_RECORD_HEADER_SIZE; i++) {
        size_t part = record_size(data + at, size - at);
        decode_one(state, bytes_of(data + at, part), 0x1000000 + at / 8 * 8);
        at += part;
    }
    wal_state_destroy(state);
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t size_max, unsigned seed)
{
    struct mutation mutation;
    mutation_init(&mutation, seed);
    if (size < WAL_RECORD_HEADER_SIZE) {
        return LLVMFuzzerMutate(data, size, size_max);
    }
    if (mutation_one_in(&mutation, 8)) { /* another world, or the sane one */
        size_t first = record_size(data, size);
        page_set_u32(data, 0, (uint32_t)first);
        uint32_t crc = wal_record_crc(bytes_of(data, first));
        bool sane = mutation_one_in(&mutation, 4);
        page_set_u32(data, 20, sane ? crc : (uint32_t)prng_next(&mutation.prng));
        return size;
    }
    /* One of the records; the others stay, and the world. */
    uint32_t kept_world = le_u32(data + 20);
    bool sane = wal_record_crc(bytes_of(data, record_size(data, size))) == kept_world;
    size_t begin = 0, part = record_size(data, size);
    while (begin + part + WAL_RECORD_HEADER_SIZE <= size && !mutation_one_in(&mutation, 3)) {
        begin += part;
        part = record_size(data + begin, size - begin);
    }
    size_t tail_size = size - begin - part;
    uint8_t *tail = mem_dup(data + begin + part, tail_size);
    part = mutate_record(&mutation, data + begin, part, size_max - begin - tail_size);
    memcpy(data + begin + part, tail, tail_size);
    mem_free(tail);
    if (!sane && part >= WAL_RECORD_HEADER_SIZE) {
        page_set_u32(data, 20, kept_world);
    }
    return begin + part + tail_size;
}

/* Two records of two inputs, one behind the other. */
size_t LLVMFuzzerCustomCrossOver(
    const uint8_t *data1,
    size_t size1,
    const uint8_t *data2,
    size_t size2,
    uint8_t *out,
    size_t out_size_max,
    unsigned seed)
{
    (void)seed;
    if (size1 < WAL_RECORD_HEADER_SIZE || size1 + size2 > out_size_max || size1 + size2 > 4096) {
        return 0;
    }
    memcpy(out, data1, size1);
    memcpy(out + size1, data2, size2);
    return size1 + size2;
}
