/*
 * redo_fixture.h - one record and one page, built by hand: what a test says, nothing else.
 */
#pragma once

#include "common/base/mark.h"
#include "pageserver/redo/redo.h"
#include "tests/unit/unit.h"

#define FIXTURE_LSN ((lsn_t)0x2000100)
#define FIXTURE_END ((lsn_t)0x2000180)
#define OLD_LSN     ((lsn_t)0x1000000)
#define FIXTURE_XID 700u

struct fixture {
    struct wal_record record;
    uint8_t main[512], data[WAL_BLOCKS_MAX][1024];
    uint8_t page[PAGE_SIZE], before[PAGE_SIZE];
    struct errmsg msg;
};

static struct fixture fixture;

/* Little-endian fields, one behind the other: put(&at, 2, 0x1234). */
static inline void put(uint8_t **at, size_t size, uint64_t value)
{
    memcpy(*at, &value, size);
    *at += size;
}

static inline void put_bytes(uint8_t **at, const void *bytes, size_t size)
{
    if (size > 0) {
        memcpy(*at, bytes, size);
    }
    *at += size;
}

static inline struct page_key heap_key(uint32_t block)
{
    return (struct page_key){.spc = 1663, .db = 5, .rel = 16384, .block = block};
}

static inline struct page_key vm_key(uint32_t block)
{
    struct page_key key = heap_key(block);
    key.fork = FORK_VM;
    return key;
}

static inline void given_record(enum wal_rmgr rmgr, unsigned info)
{
    memset(&fixture, 0, sizeof(fixture));
    fixture.record.rmgr = (uint8_t)rmgr;
    fixture.record.info = (uint8_t)info;
    fixture.record.xid = FIXTURE_XID;
    fixture.record.lsn = FIXTURE_LSN;
    fixture.record.end_lsn = FIXTURE_END;
    fixture.record.main_data.data = fixture.main;
}

static inline uint8_t *given_block(unsigned index, struct page_key key)
{
    fixture.record.blocks[index] = (struct wal_block){.in_use = true, .key = key};
    fixture.record.blocks[index].data.data = fixture.data[index];
    fixture.record.block_count = MAX_OF(fixture.record.block_count, (size_t)index + 1);
    return fixture.data[index];
}

static inline void main_ends(const uint8_t *at)
{
    fixture.record.main_data.size = (size_t)(at - fixture.main);
}

static inline void data_ends(unsigned index, const uint8_t *at)
{
    fixture.record.blocks[index].data.size = (size_t)(at - fixture.data[index]);
}

/* An empty page with this special space, as an older record left it. */
static inline void given_page(size_t special_size)
{
    memset(fixture.page, 0, PAGE_SIZE);
    page_set_lsn(fixture.page, OLD_LSN);
    page_set_u16(fixture.page, PAGE_LOWER, PAGE_HEADER_SIZE);
    page_set_u16(fixture.page, PAGE_UPPER, (uint16_t)(PAGE_SIZE - special_size));
    page_set_u16(fixture.page, PAGE_SPECIAL, (uint16_t)(PAGE_SIZE - special_size));
    page_set_u16(fixture.page, PAGE_VERSION, PAGE_SIZE | 4);
}

static inline unsigned item_count(void)
{
    return (page_u16(fixture.page, PAGE_LOWER) - PAGE_HEADER_SIZE) / 4u;
}

/* Behind the last item: `state` as in a line pointer. */
static inline uint8_t *given_item(size_t size, unsigned state)
{
    unsigned upper = page_u16(fixture.page, PAGE_UPPER) - (unsigned)((size + 7) & ~(size_t)7);
    unsigned lower = page_u16(fixture.page, PAGE_LOWER);
    page_set_u32(fixture.page, lower, upper | state << 15 | (uint32_t)size << 17);
    page_set_u16(fixture.page, PAGE_LOWER, (uint16_t)(lower + 4));
    page_set_u16(fixture.page, PAGE_UPPER, (uint16_t)upper);
    return fixture.page + upper;
}

static inline uint32_t line_pointer(unsigned number)
{
    return page_u32(fixture.page, PAGE_HEADER_SIZE + (number - 1) * 4);
}

static inline void set_line_pointer(unsigned number, unsigned offset, unsigned state, unsigned size)
{
    page_set_u32(
        fixture.page, PAGE_HEADER_SIZE + (number - 1) * 4,
        offset | state << 15 | (uint32_t)size << 17);
}

static inline uint8_t *item(unsigned number)
{
    return fixture.page + (line_pointer(number) & 0x7FFF);
}

static inline unsigned item_size(unsigned number)
{
    return line_pointer(number) >> 17;
}

static inline unsigned item_state(unsigned number)
{
    return line_pointer(number) >> 15 & 3;
}

static inline err_t apply_to(uint8_t block_index, struct page_key key)
{
    memcpy(fixture.before, fixture.page, PAGE_SIZE);
    return redo_apply(&fixture.record, block_index, key, fixture.page, &fixture.msg);
}

/* Block reference `index`, on its own page. */
static inline err_t apply(uint8_t index)
{
    return apply_to(index, fixture.record.blocks[index].key);
}

static inline err_t apply_implied(struct page_key key)
{
    return apply_to(VALUE_BLOCK_IMPLIED, key);
}

/* Refused, and the message says record, LSN and `what`. */
#define ck_assert_refused(expression, what)                                                        \
    do {                                                                                           \
        err_t refused_err = (expression);                                                          \
        ck_assert_int_eq(refused_err, ERR_CORRUPT);                                                \
        ck_assert_msg(strstr(fixture.msg.text, (what)) != NULL, "it says: %s", fixture.msg.text);  \
        ck_assert_ptr_nonnull(strstr(fixture.msg.text, "0/2000100"));                              \
    } while (0)
