/*
 * The bad-input catalogue of ingest as a table: what a record may say about sizes, SLRUs, databases
 * and transactions that cannot be. Each row is refused with a typed error that names the record and
 * what is wrong, or accepted, and then makes just the versions that the row says; nothing reserved
 * is ever written.
 *
 * The relation 1663/5/16384 has 10 blocks; nothing else exists.
 */
#include "common/base/mem.h"
#include "common/pg/cursor.h"
#include "common/pg/page.h"
#include "common/pg/pg_control.h"
#include "pageserver/ingest/wal_decode.h"
#include "tests/lib/wal_builder.h"
#include "tests/unit/unit.h"

#define REL_BLOCKS 10

static const struct page_key rel = {.spc = 1663, .db = 5, .rel = 16384};
static struct wal_builder_record record;
static uint8_t main_data[1024];
static size_t version_count;

/* -- the store -- */

static err_t source_rel_size(
    struct wal_state_source *source, struct page_key key, uint32_t *ret_blocks, struct errmsg *msg)
{
    (void)source;
    (void)msg;
    *ret_blocks = REL_BLOCKS;
    return page_key_equal(key, page_key_size_of(rel)) ? ERR_OK : ERR_NOT_FOUND;
}

static err_t source_state(
    struct wal_state_source *source, struct page_key key, struct buf *to, struct errmsg *msg)
{
    (void)source;
    (void)msg;
    struct pg_checkpoint checkpoint = {
        .next_xid = 1000, .next_multi = 1, .oldest_xid = 700, .oldest_multi = 1};
    if (key.db != STATE_CHECKPOINT) {
        return ERR_NOT_FOUND;
    }
    buf_append(to, &checkpoint, sizeof(checkpoint));
    return ERR_OK;
}

static err_t source_relations(
    struct wal_state_source *source,
    uint32_t spc,
    uint32_t db,
    err_t (*visit)(struct page_key rel, uint32_t blocks, void *context, struct errmsg *msg),
    void *context,
    struct errmsg *msg)
{
    bool is_ours = spc == rel.spc && db == rel.db;
    (void)source;
    return is_ours ? visit(page_key_size_of(rel), REL_BLOCKS, context, msg) : ERR_OK;
}

static err_t source_page(
    struct wal_state_source *source, struct page_key key, uint8_t *to, struct errmsg *msg)
{
    (void)source;
    (void)to;
    (void)msg;
    (void)key;
    return ERR_NOT_FOUND;
}

static void put(
    struct wal_sink *sink,
    struct page_key key,
    uint8_t tag,
    uint8_t block_index,
    struct bytes value)
{
    (void)sink;
    (void)tag;
    (void)block_index;
    (void)value;
    bool is_state_kind = key.db > STATE_INGEST_LSN && key.db <= STATE_COMMIT_TS;
    ck_assert(IMPLIES(key.spc == KEY_SPC_STATE, is_state_kind));
    version_count++;
}

/* -- records -- */

static void given(enum wal_rmgr rmgr, unsigned info)
{
    record = (struct wal_builder_record){.rmgr = (uint8_t)rmgr, .info = (uint8_t)info};
    record.main_data.data = main_data;
}

static void add(size_t size, uint64_t value)
{
    memcpy(main_data + record.main_data.size, &value, size);
    record.main_data.size += size;
}

static void block(struct page_key key)
{
    record.blocks[record.block_count++].key = key;
}

static void add_rel(struct page_key key)
{
    add(4, key.spc);
    add(4, key.db);
    add(4, key.rel);
}

static void slru_page(enum wal_rmgr rmgr, unsigned op, uint64_t page)
{
    given(rmgr, op);
    add(8, page);
}
static void clog_page_past_limits(void)
{
    slru_page(RM_CLOG, 0x00, UINT32_MAX / 32768 + 1);
}
static void clog_page_negative(void)
{
    slru_page(RM_CLOG, 0x00, UINT64_MAX);
}
static void commit_ts_page_past_limits(void)
{
    slru_page(RM_COMMIT_TS, 0x00, UINT32_MAX / 819 + 1);
}
static void offsets_page_past_limits(void)
{
    slru_page(RM_MULTIXACT, 0x00, UINT32_MAX / 2048 + 1);
}
static void members_page_past_limits(void)
{
    slru_page(RM_MULTIXACT, 0x10, UINT32_MAX / 1636 + 1);
}
static void slru_page_number_short(void)
{
    given(RM_CLOG, 0x00);
    add(4, 1);
}
static void clog_truncate_to(uint32_t oldest)
{
    given(RM_CLOG, 0x10);
    add(8, 99);
    add(4, oldest);
    add(4, 5);
}
static void clog_truncate_to_the_future(void)
{
    clog_truncate_to(2000000);
}
static void clog_truncate_to_the_past(void)
{
    clog_truncate_to(600);
}
static void truncate_to(uint32_t blocks, struct page_key key)
{
    given(RM_SMGR, 0x20);
    add(4, blocks);
    add_rel(key);
    add(4, 7);
}
static void truncate_to_the_future(void)
{
    truncate_to(UINT32_MAX, rel);
}
static void truncate_of_tablespace_0(void)
{
    truncate_to(0, (struct page_key){.db = STATE_INGEST_LSN, .rel = 1});
}
static void truncate_too_short(void)
{
    truncate_to(0, rel);
    record.main_data.size -= 1;
}
static void create_fork_4(void)
{
    given(RM_SMGR, 0x10);
    add_rel(rel);
    add(4, FORK_COUNT);
}
static void create_fork_negative(void)
{
    given(RM_SMGR, 0x10);
    add_rel(rel);
    add(4, UINT32_MAX);
}

static void relmap_of(size_t size, size_t logged)
{
    given(RM_RELMAP, 0x00);
    add(4, 5);
    add(4, 1663);
    add(4, size);
    record.main_data.size += logged;
}
static void relmap_of_0(void)
{
    relmap_of(0, 0);
}
static void relmap_of_512(void)
{
    relmap_of(512, 512);
}
static void relmap_of_525(void)
{
    relmap_of(525, 525);
}
static void relmap_of_4_gb(void)
{
    relmap_of(UINT32_MAX, 524);
}
static void relmap_cut(void)
{
    relmap_of(524, 523);
}
static void relmap_of_524(void)
{
    relmap_of(524, 524);
}

static void gap_of_a_billion(void)
{
    struct page_key far = rel;
    far.block = UINT32_MAX - 1;
    given(RM_HASH, 0x40);
    block(far);
}
static void block_twice(void)
{
    given(RM_HASH, 0x40);
    block(rel);
    block(rel);
}
static void map_page_named_and_implied(void)
{
    struct page_key map = rel;
    map.fork = FORK_VM;
    given(RM_HEAP, 0x00);
    block(map);
    add(2, 1);
    add(1, 1);
}
static void heap_without_a_block(void)
{
    given(RM_HEAP, 0x10);
    record.main_data.size = 8;
}
static void heap_without_flags(void)
{
    given(RM_HEAP, 0x10);
    block(rel);
    record.main_data.size = 7;
}
/* Long enough for ingest, which only looks at the flags, but not for redo of the map page. */
static void heap_update_cut(void)
{
    given(RM_HEAP, 0x20);
    block(rel);
    memset(main_data, 3, 13);
    record.main_data.size = 13;
}
static void multi_insert_without_numbers(void)
{
    given(RM_HEAP2, 0x50);
    block(rel);
    add(2, 1);
    add(2, 2);
    add(2, 1);
}
static void image_missing(void)
{
    given(RM_XLOG, 0xB0);
    block(rel);
}
static void image_of_garbage(void)
{
    given(RM_XLOG, 0xB0);
    block(rel);
    record.blocks[0].image = bytes_of(main_data, 100);
    record.blocks[0].image_flags = WAL_IMAGE_APPLY | WAL_IMAGE_ZSTD;
}

static void commit_with(uint32_t xinfo)
{
    given(RM_XACT, 0x80);
    record.xid = 1000;
    add(8, 1);
    add(4, xinfo);
}
static void subxids_huge(void)
{
    commit_with(2);
    add(4, UINT32_MAX);
    add(8, 0);
}
static void dropped_relations_huge(void)
{
    commit_with(4);
    add(4, 0x15555556); /* times 12 is 8 with 32 bits */
    add(8, 0);
}
static void drop_of_tablespace_0(void)
{
    commit_with(4);
    add(4, 1);
    add_rel((struct page_key){.db = STATE_CONTROL});
}
static void drop_of_the_same_twice(void)
{
    commit_with(4);
    add(4, 2);
    add_rel(rel);
    add_rel(rel);
}
static void commit_that_names_a_block(void) /* of the relation that it drops */
{
    commit_with(4);
    add(4, 1);
    add_rel(rel);
    block(rel);
    record.blocks[0].key.block = REL_BLOCKS;
}
static void truncate_that_names_a_block(void)
{
    truncate_to(0, rel);
    block(rel);
}
static void gid_without_an_end(void)
{
    given(RM_XACT, 0x30 | 0x80);
    record.xid = 1000;
    add(8, 1);
    add(4, 0x10 | 0x80);
    add(4, 900);
    memset(main_data + record.main_data.size, 'g', 250);
    record.main_data.size += 250;
}
static void abort_with_invalidations(void) /* the bit means nothing there, and nothing follows */
{
    commit_with(8);
    record.info = 0x20 | 0x80;
}
static void commit_without_xid(void)
{
    commit_with(0);
    record.xid = 0;
}
static void prepare_of(uint32_t said, uint16_t gid_size, uint32_t subxids)
{
    given(RM_XACT, 0x10);
    record.xid = 1000;
    record.main_data.size = 72;
    page_set_u32(main_data, 0, 0x57F94534);
    page_set_u32(main_data, 4, said);
    page_set_u32(main_data, 8, 1000);
    page_set_u32(main_data, 28, subxids);
    page_set_u16(main_data, 54, gid_size);
}
static void prepare_of_another_size(void)
{
    prepare_of(75, 0, 0);
}
static void prepare_gid_huge(void)
{
    prepare_of(76, 0xFFFF, 0);
}
static void prepare_subxids_huge(void)
{
    prepare_of(76, 0, 0x40000000);
}

static void multixact_of(uint32_t count)
{
    given(RM_MULTIXACT, 0x20);
    add(4, 5);
    add(4, UINT32_MAX);
    add(4, count);
    add(8, 0);
}
static void members_huge(void)
{
    multixact_of(0x20000001);
} /* times 8 is 8 with 32 bits */
static void members_wrap_around(void)
{
    multixact_of(1);
}
static void member_of_no_status(void)
{
    multixact_of(1);
    page_set_u32(main_data, 16, 6);
}
static void drop_of_databases_huge(void)
{
    given(RM_DBASE, 0x20);
    add(4, 5);
    add(4, 0x40000001);
    add(4, 1663);
}
static void copy_onto_itself(void)
{
    given(RM_DBASE, 0x00);
    add(4, 5);
    add(4, 1663);
    add(4, 5);
    add(4, 1663);
}
static void copy_from_tablespace_0(void)
{
    given(RM_DBASE, 0x00);
    add(4, 6);
    add(4, 1663);
    add(4, STATE_CLOG);
    add(4, 0);
}
static void copy_of_missing_pages(void)
{
    given(RM_DBASE, 0x00);
    add(4, 6);
    add(4, 1663);
    add(4, 5);
    add(4, 1663);
}
static void checkpoint_cut(void)
{
    given(RM_XLOG, 0x10);
    record.main_data.size = sizeof(struct pg_checkpoint) - 1;
}
static void origin_cut(void)
{
    given(RM_REPLORIGIN, 0x00);
    add(8, 1);
}
static void operation_unknown(void)
{
    given(RM_SMGR, 0x70);
}
static void rmgr_unknown(void)
{
    given((enum wal_rmgr)RM_COUNT, 0);
}

/* -- the table -- */

static const struct row {
    const char *entry;
    void (*given)(void);
    err_t err;
    const char *says;
    size_t versions; /* when it is accepted */
} rows[] = {
    {"SLRU page past limits: clog", clog_page_past_limits, ERR_CORRUPT, "no such page", 0},
    {"SLRU page past limits: negative", clog_page_negative, ERR_CORRUPT, "no such page", 0},
    {"SLRU page past limits: commit_ts", commit_ts_page_past_limits, ERR_CORRUPT, "no such page",
     0},
    {"SLRU page past limits: offsets", offsets_page_past_limits, ERR_CORRUPT, "no such page", 0},
    {"SLRU page past limits: members", members_page_past_limits, ERR_CORRUPT, "no such page", 0},
    {"SLRU page number cut", slru_page_number_short, ERR_CORRUPT, "too short", 0},
    /* It says what is still needed, which readers go by; pages are not erased. */
    {"truncate to future: clog", clog_truncate_to_the_future, ERR_OK, NULL, 1},
    {"truncate to past: clog", clog_truncate_to_the_past, ERR_OK, NULL, 0},
    {"truncate to future: relation", truncate_to_the_future, ERR_OK, NULL, 0},
    {"truncate of tablespace 0", truncate_of_tablespace_0, ERR_CORRUPT, "no such tablespace", 0},
    {"truncate cut", truncate_too_short, ERR_CORRUPT, "too short", 0},
    {"fork > 3", create_fork_4, ERR_CORRUPT, "no such fork", 0},
    {"fork negative", create_fork_negative, ERR_CORRUPT, "no such fork", 0},
    {"relmap size 0", relmap_of_0, ERR_CORRUPT, "no relation map", 0},
    {"relmap size 512", relmap_of_512, ERR_CORRUPT, "no relation map", 0},
    {"relmap size 525", relmap_of_525, ERR_CORRUPT, "no relation map", 0},
    {"relmap size 4 GB", relmap_of_4_gb, ERR_CORRUPT, "no relation map", 0},
    {"relmap cut", relmap_cut, ERR_CORRUPT, "no relation map", 0},
    {"relmap size 524", relmap_of_524, ERR_OK, NULL, 1},
    {"huge gap of zero pages", gap_of_a_billion, ERR_CORRUPT, "blocks behind its end", 0},
    {"same block twice", block_twice, ERR_CORRUPT, "the same block twice", 0},
    {"map page twice", map_page_named_and_implied, ERR_CORRUPT, "the same block twice", 0},
    {"heap record without a block", heap_without_a_block, ERR_CORRUPT, "without a heap block", 0},
    {"heap record cut", heap_without_flags, ERR_CORRUPT, "too short", 0},
    {"heap record cut for redo", heap_update_cut, ERR_CORRUPT, "too short", 0},
    {"heap record cut for redo", multi_insert_without_numbers, ERR_CORRUPT, "too short", 0},
    {"image missing", image_missing, ERR_CORRUPT, "without an image", 0},
    {"image of garbage", image_of_garbage, ERR_CORRUPT, "does not decompress", 0},
    {"subtransactions > record", subxids_huge, ERR_CORRUPT, "too short", 0},
    {"dropped relations > record", dropped_relations_huge, ERR_CORRUPT, "too short", 0},
    {"drop of tablespace 0", drop_of_tablespace_0, ERR_CORRUPT, "no tablespace", 0},
    /* CLOG, the size twice, the commit time, the next xid. */
    {"drop of the same twice", drop_of_the_same_twice, ERR_OK, NULL, 5},
    {"commit with a block", commit_that_names_a_block, ERR_CORRUPT, "a block reference", 0},
    {"truncation with a block", truncate_that_names_a_block, ERR_CORRUPT, "a block reference", 0},
    {"gid without an end", gid_without_an_end, ERR_CORRUPT, "too short", 0},
    {"abort with invalidations", abort_with_invalidations, ERR_OK, NULL, 3},
    {"commit without a xid", commit_without_xid, ERR_CORRUPT, "no transaction id", 0},
    {"prepare of another size", prepare_of_another_size, ERR_CORRUPT, "no two-phase state", 0},
    {"prepare: gid > record", prepare_gid_huge, ERR_CORRUPT, "too short", 0},
    {"prepare: subxids > record", prepare_subxids_huge, ERR_CORRUPT, "too short", 0},
    {"multixact members > record", members_huge, ERR_CORRUPT, "too short", 0},
    {"multixact offset wraps", members_wrap_around, ERR_OK, NULL, 3},
    {"multixact member status", member_of_no_status, ERR_CORRUPT, "no such status", 0},
    {"databases > record", drop_of_databases_huge, ERR_CORRUPT, "too short", 0},
    {"copy onto itself", copy_onto_itself, ERR_CORRUPT, "onto itself", 0},
    {"copy from tablespace 0", copy_from_tablespace_0, ERR_CORRUPT, "no such tablespace", 0},
    {"copy of missing pages", copy_of_missing_pages, ERR_NOT_FOUND, "Database", 0},
    {"checkpoint cut", checkpoint_cut, ERR_CORRUPT, "checkpoint", 0},
    {"origin cut", origin_cut, ERR_CORRUPT, "too short", 0},
    {"operation unknown", operation_unknown, ERR_CORRUPT, "unknown operation", 0},
    {"rmgr unknown", rmgr_unknown, ERR_CORRUPT, "no such resource manager", 0},
};

START_TEST(test_the_catalogue)
{
    const struct row *row = &rows[_i];
    struct wal_state_source source = {
        .rel_size = source_rel_size,
        .state = source_state,
        .relations = source_relations,
        .page = source_page,
    };
    struct wal_sink sink = {.put = put};
    struct wal_builder builder;
    struct wal_state *state = NULL;
    struct errmsg msg = {.text = ""};
    static struct wal_record decoded;
    ck_assert_ok(wal_state_create(&source, &state, &msg), &msg);
    row->given();
    wal_builder_init(&builder, 0x1000100, (uint32_t)MIB);
    wal_builder_add(&builder, &record);
    wal_builder_decode(&builder, &decoded);

    err_t err = wal_decode(state, &decoded, &sink, &msg);

    ck_assert_msg(err == row->err, "%s: %s: %s", row->entry, err_code(err), msg.text);
    if (err == ERR_OK) {
        ck_assert_msg(
            version_count == row->versions, "%s: %zu versions", row->entry, version_count);
    } else {
        bool says = strstr(msg.text, row->says) != NULL;
        ck_assert_msg(says, "%s: it says: %s", row->entry, msg.text);
        ck_assert_ptr_nonnull(strstr(msg.text, "0/1000100"));
    }
    wal_state_destroy(state);
    wal_builder_deinit(&builder);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("decode_catalogue");
    TCase *tcase = tcase_create("decode_catalogue");
    tcase_add_loop_test(tcase, test_the_catalogue, 0, (int)ARRAY_LEN(rows));
    suite_add_tcase(suite, tcase);
    return unit_run_suite(suite);
}
