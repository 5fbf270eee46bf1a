/*
 * page_items.h - line pointers and the items behind them.
 *
 * Source: src/backend/storage/page/bufpage.c, src/include/storage/itemid.h of Postgres 17. What
 * these functions leave behind is byte for byte what bufpage.c leaves, also in the hole between
 * pd_lower and pd_upper and in the padding of an item: neither is ever cleared, so a byte there is
 * the last one that some older item had at that place.
 *
 * The page is untrusted: each function checks the header and every line pointer that it follows.
 * Threads: [any].
 */
#pragma once

#include "common/pg/cursor.h"
#include "common/pg/page.h"

#define LINE_POINTER_SIZE 4
/* MaxHeapTuplesPerPage, MaxIndexTuplesPerPage. */
#define HEAP_ITEMS_MAX  291
#define INDEX_ITEMS_MAX 408

#define ALIGN8(size) (((size) + 7u) & ~(size_t)7)

enum line_pointer_state { LP_UNUSED = 0, LP_NORMAL = 1, LP_REDIRECT = 2, LP_DEAD = 3 };

/* A line pointer: 15 bits of offset, 2 of state, 15 of length. */
static inline uint32_t line_pointer_make(unsigned offset, unsigned state, size_t size)
{
    return (uint32_t)offset | (uint32_t)state << 15 | (uint32_t)size << 17;
}

static inline unsigned line_pointer_offset(uint32_t pointer)
{
    return pointer & 0x7FFF;
}

static inline unsigned line_pointer_state(uint32_t pointer)
{
    return pointer >> 15 & 3;
}

static inline unsigned line_pointer_size(uint32_t pointer)
{
    return pointer >> 17;
}

/* Items are numbered from 1. No check: the number is between 1 and page_item_count(). */
static inline uint32_t page_line_pointer(const uint8_t *page, unsigned number)
{
    return page_u32(page, PAGE_HEADER_SIZE + (number - 1) * LINE_POINTER_SIZE);
}

static inline void page_set_line_pointer(uint8_t *page, unsigned number, uint32_t pointer)
{
    page_set_u32(page, PAGE_HEADER_SIZE + (number - 1) * LINE_POINTER_SIZE, pointer);
}

/* An index tuple says its size itself: 13 bits behind its TID. It must be 8 bytes long to ask. */
#define INDEX_TUPLE_HEADER_SIZE 8

static inline size_t index_tuple_size(const uint8_t *tuple)
{
    return page_u16(tuple, 6) & 0x1FFF;
}

/* The next index tuple in a record's data; the cursor goes bad when there is none. */
static inline struct bytes index_tuple_read(struct cursor *data)
{
    bool good = data->left >= INDEX_TUPLE_HEADER_SIZE &&
                index_tuple_size(data->at) >= INDEX_TUPLE_HEADER_SIZE;
    return cursor_bytes(data, good ? index_tuple_size(data->at) : SIZE_MAX);
}

/* How many line pointers there are. Only of a page that passed page_check(). */
static inline unsigned page_item_count(const uint8_t *page)
{
    unsigned lower = page_u16(page, PAGE_LOWER);
    return lower <= PAGE_HEADER_SIZE ? 0 : (lower - PAGE_HEADER_SIZE) / LINE_POINTER_SIZE;
}

/* pd_lower <= pd_upper <= pd_special <= 8192, pd_special aligned. */
NODISCARD err_t page_check(const uint8_t *page, struct errmsg *msg);

/* The header of an empty page; `page` is all zeros already. */
void page_init_zeroed(uint8_t *page, size_t special_size);
void page_init(uint8_t *page, size_t special_size); /* clears it first */

/* Item `number`, which must have storage inside the page. `number` comes from a record or page. */
NODISCARD err_t
page_item(uint8_t *page, unsigned number, uint8_t **ret_item, size_t *ret_size, struct errmsg *msg);

enum {
    PAGE_ADD_OVERWRITE = 1, /* take over an unused line pointer; else later ones move up by one */
    PAGE_ADD_HEAP = 2       /* at most HEAP_ITEMS_MAX line pointers */
};

/* Room for an item of `size` bytes as number `number`; the caller fills it. */
NODISCARD err_t page_add_room(
    uint8_t *page,
    size_t size,
    unsigned number,
    unsigned flags,
    uint8_t **ret_item,
    struct errmsg *msg);
NODISCARD err_t page_add_item(
    uint8_t *page, struct bytes item, unsigned number, unsigned flags, struct errmsg *msg);

/* Heap: close the gaps that pruned items left (PageRepairFragmentation). */
NODISCARD err_t page_repair_fragmentation(uint8_t *page, struct errmsg *msg);
/* Heap: forget unused line pointers at the end, but never the first one. */
void page_truncate_line_pointers(uint8_t *page);

/* Index pages: the line pointer goes too (except no_compact), items below move up. */
NODISCARD err_t page_index_delete(uint8_t *page, unsigned number, struct errmsg *msg);
NODISCARD err_t page_index_delete_no_compact(uint8_t *page, unsigned number, struct errmsg *msg);
/* `numbers` are u16, ascending. */
NODISCARD err_t page_index_delete_many(uint8_t *page, struct bytes numbers, struct errmsg *msg);
NODISCARD err_t
page_index_overwrite(uint8_t *page, unsigned number, struct bytes item, struct errmsg *msg);
