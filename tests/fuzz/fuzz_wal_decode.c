/*
 * A record of any resource manager with any contents becomes versions or is refused: no reserved
 * key is written, no version is larger than what made it.
 */
#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/pg/page.h"
#include "common/pg/pg_control.h"
#include "common/pg/pg_version.h"
#include "pageserver/ingest/wal_decode.h"
#include "tests/fuzz/fuzz.h"

static struct wal_record record;
static size_t versions;

static err_t rel_size(
    struct wal_state_source *source, struct page_key rel, uint32_t *ret_blocks, struct errmsg *msg)
{
    (void)source;
    (void)msg;
    *ret_blocks = rel.rel % 7 * 10000;
    return rel.rel % 5 == 0 ? ERR_NOT_FOUND : ERR_OK;
}

static err_t state_value(
    struct wal_state_source *source, struct page_key key, struct buf *to, struct errmsg *msg)
{
    (void)source;
    (void)msg;
    if (key.db != STATE_CONTROL) {
        return ERR_NOT_FOUND;
    }
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
        .checkpoint.next_xid = 1000,
    };
    pg_control_write(&control, buf_extend(to, PG_CONTROL_FILE_SIZE));
    return ERR_OK;
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
    return visit(rel, 3, context, msg);
}

static err_t page(
    struct wal_state_source *source, struct page_key key, uint8_t *to, struct errmsg *msg)
{
    (void)source;
    (void)msg;
    memset(to, (int)(key.block % 2), PAGE_SIZE);
    return key.spc == KEY_SPC_STATE ? ERR_NOT_FOUND : ERR_OK;
}

static void put(
    struct wal_sink *sink,
    struct page_key key,
    uint8_t tag,
    uint8_t block_index,
    struct bytes value)
{
    (void)sink;
    versions++;
    bool is_state_kind = key.db > STATE_INGEST_LSN && key.db <= STATE_COMMIT_TS;
    ASSERT(IMPLIES(key.spc == KEY_SPC_STATE, is_state_kind));
    ASSERT(key.fork < FORK_COUNT);
    ASSERT(IMPLIES(tag == VALUE_IMAGE, value.size == PAGE_SIZE));
    ASSERT(IMPLIES(tag == VALUE_ZERO, value.size == 0));
    if (tag == VALUE_INIT || tag == VALUE_DELTA) {
        ASSERT(value.size == record.total_size);
        ASSERT(block_index == VALUE_BLOCK_IMPLIED || record.blocks[block_index].in_use);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < WAL_RECORD_HEADER_SIZE) {
        return 0;
    }
    struct errmsg msg;
    struct wal_state_source source = {
        .rel_size = rel_size, .state = state_value, .relations = relations, .page = page};
    struct wal_sink sink = {.put = put};
    struct wal_state *state;
    err_t err = wal_state_create(&source, &state, &msg);
    ASSERT(err == ERR_OK);

    uint8_t *bytes = mem_dup(data, size);
    page_set_u32(bytes, 0, (uint32_t)size);
    bytes[17] = (uint8_t)(bytes[17] % (RM_COUNT + 1));
    err = wal_record_decode(bytes_of(bytes, size), 0x1000100, 0x1000200, &record, &msg);
    if (err == ERR_OK) {
        versions = 0;
        err_ignore(wal_decode(state, &record, &sink, &msg), "any answer will do");
    }
    mem_free(bytes);
    wal_state_destroy(state);
    return 0;
}
