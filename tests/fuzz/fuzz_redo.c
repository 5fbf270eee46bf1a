/*
 * Redo of one record on one page, both from anywhere: an answer, twice the same one.
 *
 * An input that begins with 'P' is a pair of walreplay --pairs: a real page and a real record that
 * was applied to it (tests/oracle/redo_damage.c damages them). Any other input makes up a record
 * and a page of its own. The stack is filled with other bytes before the second run, so that a byte
 * that was never written shows.
 */
#include "common/base/assert.h"
#include "common/pg/cursor.h"
#include "pageserver/redo/redo.h"
#include "tests/fuzz/fuzz.h"

/* 'P', u8 block index, u8 fork, padding; u32 spc, db, rel, block; u64 begin, end; page; record. */
#define PAIR_HEADER_SIZE (4 + 4 * 4 + 2 * 8)

static struct wal_record record;

__attribute__((noinline)) static void fill_stack(uint8_t byte)
{
    volatile uint8_t room[64 * 1024];
    for (size_t i = 0; i < sizeof(room); i++) {
        room[i] = byte;
    }
}

static void apply_twice(uint8_t block_index, struct page_key key, const uint8_t *page)
{
    static uint8_t pages[2][PAGE_SIZE];
    struct errmsg msg;
    err_t errs[2];
    for (int i = 0; i < 2; i++) {
        memcpy(pages[i], page, PAGE_SIZE);
        fill_stack(i == 0 ? 0xA5 : 0x5A);
        errs[i] = redo_apply(&record, block_index, key, pages[i], &msg);
    }
    ASSERT(errs[0] == errs[1]);
    ASSERT(IMPLIES(errs[0] == ERR_OK, memcmp(pages[0], pages[1], PAGE_SIZE) == 0));
}

static void run_pair(const uint8_t *data, size_t size)
{
    struct cursor fields = cursor_of(bytes_of(data, size));
    struct errmsg msg;
    cursor_skip(&fields, 1);
    uint8_t block_index = cursor_u8(&fields);
    struct page_key key = {.fork = cursor_u8(&fields)};
    cursor_skip(&fields, 1);
    key.spc = cursor_u32(&fields);
    key.db = cursor_u32(&fields);
    key.rel = cursor_u32(&fields);
    key.block = cursor_u32(&fields);
    lsn_t begin = cursor_u64(&fields);
    lsn_t end = cursor_u64(&fields);
    struct bytes page = cursor_bytes(&fields, PAGE_SIZE);
    struct bytes bytes = cursor_bytes(&fields, fields.left);
    if (cursor_is_good(&fields) && wal_record_decode(bytes, begin, end, &record, &msg) == ERR_OK) {
        apply_twice(block_index, key, page.data);
    }
}

/* A page with items of index-tuple shape, as many and as broken as the input wants. */
static void make_page(struct cursor *input, uint8_t *page)
{
    static const uint16_t SPECIALS[] = {0, 8, 16, 4};
    unsigned shape = cursor_u8(input);
    unsigned count = cursor_u8(input) % 64;
    unsigned special = PAGE_SIZE - SPECIALS[shape % 4];
    memset(page, 0, PAGE_SIZE);
    struct bytes tail = cursor_bytes(input, MIN_OF((size_t)SPECIALS[shape % 4], input->left));
    if (tail.size > 0) {
        memcpy(page + special, tail.data, tail.size);
    }
    unsigned upper = special & ~7u;
    for (unsigned i = 0; i < count; i++) {
        unsigned size = 8 + cursor_u8(input) % 64;
        unsigned state = shape & 0x80 ? cursor_u8(input) % 4 : 1;
        upper -= (size + 7) & ~7u;
        page_set_u32(page, PAGE_HEADER_SIZE + 4 * (size_t)i, upper | state << 15 | size << 17);
        struct bytes item = cursor_bytes(input, MIN_OF((size_t)size, input->left));
        if (item.size > 0) {
            memcpy(page + upper, item.data, item.size);
        }
        page_set_u16(page, upper + 6, (uint16_t)((page_u16(page, upper + 6) & 0xE000) | size));
        if (size >= 24) {
            page[upper + 22] = 24;
        }
    }
    page_set_u16(page, PAGE_LOWER, (uint16_t)(PAGE_HEADER_SIZE + 4 * count));
    page_set_u16(page, PAGE_UPPER, (uint16_t)upper);
    page_set_u16(page, PAGE_SPECIAL, (uint16_t)special);
    page_set_u16(page, PAGE_VERSION, PAGE_SIZE | 4);
    if (shape & 0x40) {
        page_set_u16(page, cursor_u8(input) % 24, cursor_u16(input));
    }
}

static void run_made_up(const uint8_t *data, size_t size)
{
    static uint8_t page[PAGE_SIZE];
    struct cursor input = cursor_of(bytes_of(data, size));
    struct page_key key = {.spc = 1663, .db = 5, .rel = 16384};
    memset(&record, 0, sizeof(record));
    record.rmgr = cursor_u8(&input) % RM_COUNT;
    record.info = cursor_u8(&input);
    record.xid = 1000;
    record.lsn = 0x1000000;
    record.end_lsn = 0x1000100;
    uint8_t block_index = cursor_u8(&input) % 8;
    unsigned kind = cursor_u8(&input);
    size_t main_size = cursor_u8(&input) % 64;
    record.main_data = cursor_bytes(&input, MIN_OF(main_size, input.left));
    if (record.rmgr == RM_XACT || record.rmgr == RM_MULTIXACT || record.rmgr == RM_SMGR ||
        block_index == 7) {
        block_index = VALUE_BLOCK_IMPLIED;
        key = record.rmgr == RM_HEAP || record.rmgr == RM_HEAP2 || record.rmgr == RM_SMGR
                  ? key
                  : page_key_state(STATE_CLOG + kind % 4, 0, kind / 64);
    }
    key.fork = block_index != 0 && kind & 1 && key.spc != KEY_SPC_STATE ? FORK_VM : FORK_MAIN;
    make_page(&input, page);
    record.block_count = 7;
    for (unsigned i = 0; i < 7; i++) {
        record.blocks[i] = (struct wal_block){.in_use = (kind >> i & 1) != 0 || i == block_index};
        record.blocks[i].key = key;
        record.blocks[i].data = bytes_of(input.at, input.left);
    }
    if (block_index < 7) {
        record.blocks[block_index].will_init = (kind & 2) != 0;
        if (kind & 2) {
            memset(page, 0, PAGE_SIZE);
        }
    }
    apply_twice(block_index, key, page);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 0 && data[0] == 'P') {
        run_pair(data, size);
    } else if (size > 0) {
        run_made_up(data, size);
    }
    return 0;
}
