/*
 * A block that was truncated or dropped begins a new life when it is written again, and no version
 * of an older life may ever be read. Random records against a model that knows when each block was
 * born.
 */
#include "common/base/mem.h"
#include "common/base/prng.h"
#include "common/pg/page.h"
#include "common/pg/pg_control.h"
#include "pageserver/ingest/wal_decode.h"
#include "tests/lib/wal_builder.h"
#include "tests/unit/unit.h"

enum { RELS = 3, BLOCKS = 40, VERSIONS_MAX = 200000, RECORDS = 3000 };

struct version {
    uint8_t rel, fork, tag;
    uint32_t block;
    lsn_t lsn;
};

/* What is true by the rules of Postgres. */
struct model {
    bool exists;
    uint32_t blocks;
    lsn_t born[BLOCKS + 1];
};

static struct version *versions;
static size_t version_count;
static struct model model[RELS][FORK_COUNT];  /* main and VM are used */
static struct model stored[RELS][FORK_COUNT]; /* as the decoder says: exists and blocks */
static struct wal_builder builder;
static struct wal_record record;
static struct prng prng;

static struct page_key key_of(uint32_t rel, uint8_t fork, uint32_t block)
{
    return (struct page_key){.spc = 1663, .db = 5, .rel = 1000 + rel, .fork = fork, .block = block};
}

static err_t source_rel_size(
    struct wal_state_source *source, struct page_key key, uint32_t *ret_blocks, struct errmsg *msg)
{
    (void)source;
    (void)msg;
    const struct model *size = &stored[key.rel - 1000][key.fork];
    *ret_blocks = size->blocks;
    return size->exists ? ERR_OK : ERR_NOT_FOUND;
}

static err_t source_state(
    struct wal_state_source *source, struct page_key key, struct buf *to, struct errmsg *msg)
{
    (void)source;
    (void)msg;
    struct pg_checkpoint checkpoint = {.next_xid = 100, .next_multi = 1};
    if (key.db != STATE_CHECKPOINT) {
        return ERR_NOT_FOUND;
    }
    buf_append(to, &checkpoint, sizeof(checkpoint));
    return ERR_OK;
}

static void put(
    struct wal_sink *sink,
    struct page_key key,
    uint8_t tag,
    uint8_t block_index,
    struct bytes value)
{
    (void)sink;
    (void)block_index;
    if (key.spc == KEY_SPC_STATE) {
        return;
    }
    if (key.block == KEY_BLOCK_SIZE) {
        struct model *size = &stored[key.rel - 1000][key.fork];
        size->exists = value.data[0] != 0;
        size->blocks = page_u32(value.data, 1);
        return;
    }
    ck_assert_uint_lt(version_count, VERSIONS_MAX);
    versions[version_count++] = (struct version){
        .rel = (uint8_t)(key.rel - 1000),
        .fork = key.fork,
        .tag = tag,
        .block = key.block,
        .lsn = record.end_lsn,
    };
}

/* -- records, and what they do to the model -- */

static void model_write(uint32_t rel, uint8_t fork, uint32_t block, lsn_t lsn)
{
    struct model *size = &model[rel][fork];
    size->exists = true;
    while (size->blocks <= block) {
        size->born[size->blocks++] = lsn;
    }
}

static lsn_t write_blocks(void)
{
    struct wal_builder_record made = {.rmgr = RM_BTREE, .xid = 100};
    uint32_t rel = (uint32_t)prng_below(&prng, RELS);
    uint32_t near = model[rel][FORK_MAIN].blocks + 4;
    size_t count = 1 + (size_t)prng_below(&prng, 3);
    for (size_t i = 0; i < count; i++) {
        uint32_t block = (uint32_t)prng_below(&prng, MIN_OF(near, (uint32_t)BLOCKS));
        bool is_named = false;
        for (size_t j = 0; j < made.block_count; j++) {
            is_named |= made.blocks[j].key.block == block;
        }
        if (!is_named) {
            made.blocks[made.block_count++] = (struct wal_builder_block){
                .key = key_of(rel, FORK_MAIN, block), .will_init = prng_below(&prng, 4) == 0};
        }
    }
    lsn_t lsn = wal_builder_add(&builder, &made);
    for (size_t i = 0; i < made.block_count; i++) {
        model_write(rel, FORK_MAIN, made.blocks[i].key.block, lsn);
    }
    return lsn;
}

/* A delete on a block that was all visible: the map page is not named. */
static lsn_t clear_visibility(void)
{
    static const uint8_t main[8] = {[7] = 1};
    uint32_t rel = (uint32_t)prng_below(&prng, RELS);
    uint32_t block = (uint32_t)prng_below(&prng, BLOCKS);
    lsn_t lsn = wal_builder_add(
        &builder, &(struct wal_builder_record){
                      .rmgr = RM_HEAP,
                      .info = 0x10,
                      .xid = 100,
                      .main_data = bytes_of(main, sizeof(main)),
                      .block_count = 1,
                      .blocks = {{.key = key_of(rel, FORK_MAIN, block)}}});
    model_write(rel, FORK_MAIN, block, lsn);
    model_write(rel, FORK_VM, 0, lsn);
    return lsn;
}

static lsn_t truncate_rel(void)
{
    uint32_t rel = (uint32_t)prng_below(&prng, RELS);
    uint32_t blocks = (uint32_t)prng_below(&prng, BLOCKS);
    uint32_t main[5] = {blocks, 1663, 5, 1000 + rel, 7};
    lsn_t lsn = wal_builder_add(
        &builder, &(struct wal_builder_record){
                      .rmgr = RM_SMGR, .info = 0x20, .main_data = bytes_of(main, sizeof(main))});
    struct model *size = &model[rel][FORK_MAIN];
    size->exists = true;
    size->blocks = MIN_OF(size->blocks, blocks);
    if (blocks == 0) {
        model[rel][FORK_VM].blocks = 0;
    }
    return lsn;
}

static lsn_t drop_rel(void)
{
    uint32_t rel = (uint32_t)prng_below(&prng, RELS);
    uint32_t main[7] = {1, 0, 1 << 2, 1, 1663, 5, 1000 + rel};
    lsn_t lsn = wal_builder_add(
        &builder,
        &(struct wal_builder_record){
            .rmgr = RM_XACT, .info = 0x80, .xid = 100, .main_data = bytes_of(main, sizeof(main))});
    memset(model[rel], 0, sizeof(model[rel]));
    return lsn;
}

static lsn_t create_rel(void)
{
    uint32_t rel = (uint32_t)prng_below(&prng, RELS);
    uint32_t main[4] = {1663, 5, 1000 + rel, FORK_MAIN};
    lsn_t lsn = wal_builder_add(
        &builder, &(struct wal_builder_record){
                      .rmgr = RM_SMGR, .info = 0x10, .main_data = bytes_of(main, sizeof(main))});
    model[rel][FORK_MAIN].exists = true;
    return lsn;
}

static void add_random_record(void)
{
    switch (prng_below(&prng, 12)) {
    case 0: truncate_rel(); break;
    case 1: drop_rel(); break;
    case 2: create_rel(); break;
    case 3: clear_visibility(); break;
    default: write_blocks(); break;
    }
}

/* -- a read -- */

/* Newest version first, down to one that needs nothing below it. */
static void assert_read_stays_in_this_life(uint32_t rel, uint8_t fork, uint32_t block)
{
    lsn_t born = model[rel][fork].born[block];
    for (size_t i = version_count; i-- > 0;) {
        const struct version *version = &versions[i];
        if (version->rel != rel || version->fork != fork || version->block != block) {
            continue;
        }
        ck_assert_msg(
            version->lsn >= born, "block %" PRIu32 " shows a version of an older life", block);
        if (version->tag != VALUE_DELTA) {
            return;
        }
    }
    ck_abort_msg("block %" PRIu32 " has no version to begin with", block);
}

static void assert_as_the_model_says(void)
{
    for (uint32_t rel = 0; rel < RELS; rel++) {
        for (uint8_t fork = FORK_MAIN; fork <= FORK_VM; fork++) {
            const struct model *expected = &model[rel][fork];
            ck_assert_uint_eq(stored[rel][fork].exists, expected->exists);
            ck_assert_uint_eq(stored[rel][fork].blocks, expected->blocks);
            for (uint32_t block = 0; block < expected->blocks; block++) {
                assert_read_stays_in_this_life(rel, fork, block);
            }
        }
    }
}

START_TEST(test_no_version_of_an_older_life_is_read)
{
    struct wal_state_source source = {.rel_size = source_rel_size, .state = source_state};
    struct wal_sink sink = {.put = put};
    struct wal_state *state;
    struct errmsg msg;
    versions = MEM_ARRAY(struct version, VERSIONS_MAX);
    version_count = 0;
    memset(model, 0, sizeof(model));
    memset(stored, 0, sizeof(stored));
    prng_init(&prng, (uint64_t)_i);
    wal_builder_init(&builder, 0x1000100, (uint32_t)MIB);
    ck_assert_int_eq(wal_state_create(&source, &state, &msg), ERR_OK);
    for (int i = 0; i < RECORDS; i++) {
        add_random_record();
        wal_builder_decode(&builder, &record);
        ck_assert_msg(wal_decode(state, &record, &sink, &msg) == ERR_OK, "%s", msg.text);
        if (i % 16 == 0) {
            assert_as_the_model_says();
        }
        buf_clear(&builder.wal);
    }
    wal_state_destroy(state);
    wal_builder_deinit(&builder);
    mem_free(versions);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("block_lives");
    TCase *tcase = tcase_create("block_lives");
    tcase_set_timeout(tcase, 60);
    tcase_add_loop_test(tcase, test_no_version_of_an_older_life_is_read, 1, 9);
    suite_add_tcase(suite, tcase);
    return unit_run_suite(suite);
}
