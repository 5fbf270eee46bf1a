#include "pageserver/redo/page_items.h"

#include <assert.h>

static_assert(
    (PAGE_SIZE - PAGE_HEADER_SIZE) / (8 + 16 + LINE_POINTER_SIZE) == HEAP_ITEMS_MAX,
    "a heap tuple header is 23 bytes, aligned 24, and a line pointer");
static_assert(
    (PAGE_SIZE - PAGE_HEADER_SIZE) / (16 + LINE_POINTER_SIZE) == INDEX_ITEMS_MAX,
    "an index tuple is more than 8 bytes, aligned 16, and a line pointer");

#define PAGE_LAYOUT_VERSION 4

/* An item that stays on the page when others go. */
struct kept_item {
    uint16_t number; /* where its line pointer is, or will be */
    uint16_t offset;
    uint16_t size; /* aligned */
};

/* All that stay, in the order of their numbers. Not zeroed: the array is large. */
struct kept_items {
    unsigned count;
    unsigned last_offset; /* the lowest so far */
    size_t total;         /* bytes */
    bool sorted;          /* each lies below the one before it */
    struct kept_item items[INDEX_ITEMS_MAX];
};

err_t page_check(const uint8_t *page, struct errmsg *msg)
{
    unsigned lower = page_u16(page, PAGE_LOWER);
    unsigned upper = page_u16(page, PAGE_UPPER);
    unsigned special = page_u16(page, PAGE_SPECIAL);
    if (lower < PAGE_HEADER_SIZE || lower > upper || upper > special || special > PAGE_SIZE ||
        special != ALIGN8(special)) {
        return err_set(
            msg, ERR_CORRUPT, "page header: lower %u, upper %u, special %u", lower, upper, special);
    }
    return ERR_OK;
}

static size_t line_pointers_size(unsigned count)
{
    return (size_t)count * LINE_POINTER_SIZE;
}

static uint8_t *line_pointer_at(uint8_t *page, unsigned number)
{
    return page + PAGE_HEADER_SIZE + line_pointers_size(number - 1);
}

void page_init_zeroed(uint8_t *page, size_t special_size)
{
    uint16_t special = (uint16_t)(PAGE_SIZE - ALIGN8(special_size));
    page_set_u16(page, PAGE_LOWER, PAGE_HEADER_SIZE);
    page_set_u16(page, PAGE_UPPER, special);
    page_set_u16(page, PAGE_SPECIAL, special);
    page_set_u16(page, PAGE_VERSION, PAGE_SIZE | PAGE_LAYOUT_VERSION);
}

void page_init(uint8_t *page, size_t special_size)
{
    memset(page, 0, PAGE_SIZE);
    page_init_zeroed(page, special_size);
}

err_t page_item(
    uint8_t *page, unsigned number, uint8_t **ret_item, size_t *ret_size, struct errmsg *msg)
{
    TRY(page_check(page, msg));
    if (number == 0 || number > page_item_count(page)) {
        return err_set(msg, ERR_CORRUPT, "item %u of %u", number, page_item_count(page));
    }
    uint32_t pointer = page_line_pointer(page, number);
    unsigned offset = line_pointer_offset(pointer);
    unsigned size = line_pointer_size(pointer);
    if (size == 0 || offset < page_u16(page, PAGE_UPPER) ||
        offset + size > page_u16(page, PAGE_SPECIAL)) {
        return err_set(msg, ERR_CORRUPT, "item %u lies at %u, size %u", number, offset, size);
    }
    *ret_item = page + offset;
    *ret_size = size;
    return ERR_OK;
}

err_t page_add_room(
    uint8_t *page,
    size_t size,
    unsigned number,
    unsigned flags,
    uint8_t **ret_item,
    struct errmsg *msg)
{
    TRY(page_check(page, msg));
    unsigned limit = page_item_count(page) + 1;
    if (number == 0 || number > limit || (flags & PAGE_ADD_HEAP && number > HEAP_ITEMS_MAX)) {
        return err_set(msg, ERR_CORRUPT, "item %u cannot be added behind %u", number, limit - 1);
    }
    bool shift = number < limit;
    if (shift && flags & PAGE_ADD_OVERWRITE) {
        uint32_t pointer = page_line_pointer(page, number);
        if (line_pointer_state(pointer) != LP_UNUSED || line_pointer_size(pointer) != 0) {
            return err_set(msg, ERR_CORRUPT, "item %u is in use", number);
        }
        shift = false;
    }
    unsigned lower = page_u16(page, PAGE_LOWER);
    unsigned upper = page_u16(page, PAGE_UPPER);
    unsigned new_lower = number == limit || shift ? lower + LINE_POINTER_SIZE : lower;
    if (size == 0 || size > PAGE_SIZE || new_lower + ALIGN8(size) > upper) {
        return err_set(
            msg, ERR_CORRUPT, "item %u of %zu bytes does not fit in %u", number, size,
            upper - lower);
    }
    if (shift) {
        uint8_t *at = line_pointer_at(page, number);
        memmove(at + LINE_POINTER_SIZE, at, line_pointers_size(limit - number));
    }
    upper -= (unsigned)ALIGN8(size);
    page_set_line_pointer(page, number, line_pointer_make(upper, LP_NORMAL, size));
    page_set_u16(page, PAGE_LOWER, (uint16_t)new_lower);
    page_set_u16(page, PAGE_UPPER, (uint16_t)upper);
    *ret_item = page + upper;
    return ERR_OK;
}

err_t page_add_item(
    uint8_t *page, struct bytes item, unsigned number, unsigned flags, struct errmsg *msg)
{
    uint8_t *room = page;
    TRY(page_add_room(page, item.size, number, flags, &room, msg));
    memcpy(room, item.data, item.size);
    return ERR_OK;
}

static void keep_none(struct kept_items *kept, const uint8_t *page)
{
    kept->count = 0;
    kept->last_offset = page_u16(page, PAGE_SPECIAL);
    kept->total = 0;
    kept->sorted = true;
}

static void keep(struct kept_items *kept, unsigned number, unsigned offset, unsigned size)
{
    kept->sorted = kept->sorted && offset < kept->last_offset;
    kept->last_offset = MIN_OF(offset, kept->last_offset);
    kept->total += size;
    kept->items[kept->count++] =
        (struct kept_item){(uint16_t)number, (uint16_t)offset, (uint16_t)size};
}

/*
 * Push the kept items to the end of the page, the first one highest, without gaps.
 *
 * When they already lie in that order, each moves up over what is gone or has moved before it, and
 * neighbours move together. In any other order one could land on another that has yet to move, so
 * they come out of a copy. Either way only bytes from the new pd_upper on are written: the hole
 * keeps what it had, as it does in Postgres.
 */
static err_t compact_items(uint8_t *page, const struct kept_items *kept, struct errmsg *msg)
{
    uint8_t copy[PAGE_SIZE];
    const struct kept_item *items = kept->items;
    const uint8_t *from = page;
    unsigned lowest = page_u16(page, PAGE_UPPER);
    unsigned upper = page_u16(page, PAGE_SPECIAL);
    if (kept->total > upper - lowest) {
        return err_set(
            msg, ERR_CORRUPT, "items overlap: %zu bytes in %u", kept->total, upper - lowest);
    }
    unsigned i = 0;
    while (i < kept->count && (unsigned)items[i].offset + items[i].size == upper) {
        upper = items[i].offset;
        i++;
    }
    if (!kept->sorted && i < kept->count) {
        memcpy(copy + lowest, page + lowest, page_u16(page, PAGE_SPECIAL) - lowest);
        from = copy;
    }
    while (i < kept->count) {
        unsigned end = (unsigned)items[i].offset + items[i].size;
        unsigned begin = items[i].offset;
        unsigned first = i;
        while (++i < kept->count && (unsigned)items[i].offset + items[i].size == begin) {
            begin = items[i].offset;
        }
        unsigned distance = upper - end; /* wraps around when an item moves down; so does the sum */
        upper -= end - begin;
        memmove(page + upper, from + begin, end - begin);
        for (unsigned j = first; j < i; j++) {
            uint32_t pointer = page_line_pointer(page, items[j].number) & ~(uint32_t)0x7FFF;
            unsigned offset = (items[j].offset + distance) & 0x7FFF;
            page_set_line_pointer(page, items[j].number, pointer | offset);
        }
    }
    page_set_u16(page, PAGE_UPPER, (uint16_t)upper);
    return ERR_OK;
}

/* The line pointer array ends behind `count`; some of it may be unused. */
static void end_line_pointers(uint8_t *page, unsigned count, bool has_unused)
{
    unsigned flags = page_u16(page, PAGE_FLAGS) & ~(unsigned)PD_HAS_FREE_LINES;
    page_set_u16(page, PAGE_LOWER, (uint16_t)(PAGE_HEADER_SIZE + line_pointers_size(count)));
    page_set_u16(page, PAGE_FLAGS, (uint16_t)(flags | (has_unused ? PD_HAS_FREE_LINES : 0)));
}

err_t page_repair_fragmentation(uint8_t *page, struct errmsg *msg)
{
    struct kept_items kept;
    TRY(page_check(page, msg));
    unsigned upper = page_u16(page, PAGE_UPPER);
    unsigned special = page_u16(page, PAGE_SPECIAL);
    unsigned count = page_item_count(page);
    unsigned used_count = 0;
    unsigned last_used = 0;
    if (count > HEAP_ITEMS_MAX) {
        return err_set(msg, ERR_CORRUPT, "%u items on a heap page", count);
    }
    keep_none(&kept, page);
    for (unsigned number = 1; number <= count; number++) {
        uint32_t pointer = page_line_pointer(page, number);
        if (line_pointer_state(pointer) == LP_UNUSED) {
            page_set_line_pointer(page, number, 0);
            continue;
        }
        last_used = number;
        used_count++;
        unsigned offset = line_pointer_offset(pointer);
        unsigned size = (unsigned)ALIGN8(line_pointer_size(pointer));
        if (size == 0) {
            continue;
        }
        if (offset < upper || offset + size > special) {
            return err_set(msg, ERR_CORRUPT, "item %u lies at %u, size %u", number, offset, size);
        }
        keep(&kept, number, offset, size);
    }
    TRY(compact_items(page, &kept, msg));
    end_line_pointers(page, last_used, used_count < last_used);
    return ERR_OK;
}

void page_truncate_line_pointers(uint8_t *page)
{
    unsigned left = page_item_count(page);
    while (left > 1 && line_pointer_state(page_line_pointer(page, left)) == LP_UNUSED) {
        left--;
    }
    bool has_unused = false;
    for (unsigned number = left; number >= 1 && !has_unused; number--) {
        has_unused = line_pointer_state(page_line_pointer(page, number)) == LP_UNUSED;
    }
    end_line_pointers(page, left, has_unused);
}

/* Items at or below `offset` have moved by `distance`. */
static void shift_line_pointers(uint8_t *page, unsigned count, unsigned offset, int distance)
{
    for (unsigned number = 1; number <= count; number++) {
        uint32_t pointer = page_line_pointer(page, number);
        unsigned old = line_pointer_offset(pointer);
        if (line_pointer_size(pointer) != 0 && old <= offset) {
            unsigned moved = (unsigned)((int)old + distance) & 0x7FFF;
            page_set_line_pointer(page, number, (pointer & ~(uint32_t)0x7FFF) | moved);
        }
    }
}

/* Item `number` of an index page whose header was checked: inside, and aligned. */
static err_t index_item_place(
    const uint8_t *page,
    unsigned number,
    unsigned *ret_offset,
    unsigned *ret_size,
    struct errmsg *msg)
{
    uint32_t pointer = page_line_pointer(page, number);
    unsigned offset = line_pointer_offset(pointer);
    unsigned size = (unsigned)ALIGN8(line_pointer_size(pointer));
    if (offset < page_u16(page, PAGE_UPPER) || offset + size > page_u16(page, PAGE_SPECIAL) ||
        offset != ALIGN8(offset)) {
        return err_set(msg, ERR_CORRUPT, "item %u lies at %u, size %u", number, offset, size);
    }
    *ret_offset = offset;
    *ret_size = size;
    return ERR_OK;
}

/* An item of an index page that is about to go or to change. */
static err_t index_item(
    const uint8_t *page,
    unsigned number,
    unsigned *ret_offset,
    unsigned *ret_size,
    struct errmsg *msg)
{
    TRY(page_check(page, msg));
    if (number == 0 || number > page_item_count(page)) {
        return err_set(msg, ERR_CORRUPT, "item %u of %u", number, page_item_count(page));
    }
    return index_item_place(page, number, ret_offset, ret_size, msg);
}

/* Everything below the item at `offset` moves up by `distance` (down when negative). */
static void move_below(uint8_t *page, unsigned offset, int distance)
{
    unsigned upper = page_u16(page, PAGE_UPPER);
    memmove(page + (int)upper + distance, page + upper, offset - upper);
    page_set_u16(page, PAGE_UPPER, (uint16_t)((int)upper + distance));
}

err_t page_index_delete(uint8_t *page, unsigned number, struct errmsg *msg)
{
    unsigned offset = 0;
    unsigned size = 0;
    TRY(index_item(page, number, &offset, &size, msg));
    unsigned count = page_item_count(page);
    uint8_t *at = line_pointer_at(page, number);
    memmove(at, at + LINE_POINTER_SIZE, line_pointers_size(count - number));
    move_below(page, offset, (int)size);
    page_set_u16(page, PAGE_LOWER, (uint16_t)(page_u16(page, PAGE_LOWER) - LINE_POINTER_SIZE));
    shift_line_pointers(page, count - 1, offset, (int)size);
    return ERR_OK;
}

err_t page_index_delete_no_compact(uint8_t *page, unsigned number, struct errmsg *msg)
{
    unsigned offset = 0;
    unsigned size = 0;
    TRY(index_item(page, number, &offset, &size, msg));
    unsigned count = page_item_count(page);
    if (number < count) {
        page_set_line_pointer(page, number, 0);
    } else {
        count--;
        page_set_u16(page, PAGE_LOWER, (uint16_t)(page_u16(page, PAGE_LOWER) - LINE_POINTER_SIZE));
    }
    move_below(page, offset, (int)size);
    shift_line_pointers(page, count, offset, (int)size);
    return ERR_OK;
}

/* One or two are deleted singly, the last first. It leaves another order of the items. */
static err_t delete_few(uint8_t *page, struct bytes numbers, struct errmsg *msg)
{
    for (size_t at = numbers.size; at >= 2; at -= 2) {
        TRY(page_index_delete(page, le_u16(numbers.data + at - 2), msg));
    }
    return ERR_OK;
}

err_t page_index_delete_many(uint8_t *page, struct bytes numbers, struct errmsg *msg)
{
    struct kept_items kept;
    struct cursor deleted = cursor_of(numbers);
    if (numbers.size / 2 <= 2) {
        return delete_few(page, numbers, msg);
    }
    TRY(page_check(page, msg));
    unsigned count = page_item_count(page);
    if (count > INDEX_ITEMS_MAX) {
        return err_set(msg, ERR_CORRUPT, "%u items on an index page", count);
    }
    keep_none(&kept, page);
    for (unsigned number = 1; number <= count; number++) {
        unsigned offset = 0;
        unsigned size = 0;
        TRY(index_item_place(page, number, &offset, &size, msg));
        if (deleted.left >= 2 && number == le_u16(deleted.at)) {
            cursor_skip(&deleted, 2);
            continue;
        }
        /* Line pointers only move down: the ones still to be read stay as they are. */
        keep(&kept, kept.count + 1, offset, size);
        page_set_line_pointer(page, kept.count, page_line_pointer(page, number));
    }
    if (deleted.left >= 2) {
        return err_set(msg, ERR_CORRUPT, "items to delete are missing or not in order");
    }
    page_set_u16(page, PAGE_LOWER, (uint16_t)(PAGE_HEADER_SIZE + line_pointers_size(kept.count)));
    return compact_items(page, &kept, msg);
}

err_t page_index_overwrite(uint8_t *page, unsigned number, struct bytes item, struct errmsg *msg)
{
    unsigned offset = 0;
    unsigned old_size = 0;
    TRY(index_item(page, number, &offset, &old_size, msg));
    unsigned room = page_u16(page, PAGE_UPPER) - page_u16(page, PAGE_LOWER);
    if (item.size == 0 || item.size > PAGE_SIZE || ALIGN8(item.size) > old_size + room) {
        return err_set(msg, ERR_CORRUPT, "item %u cannot grow to %zu bytes", number, item.size);
    }
    int distance = (int)old_size - (int)ALIGN8(item.size);
    if (distance != 0) {
        move_below(page, offset, distance);
        shift_line_pointers(page, page_item_count(page), offset, distance);
    }
    offset = (unsigned)((int)offset + distance);
    uint32_t pointer = page_line_pointer(page, number);
    page_set_line_pointer(
        page, number, line_pointer_make(offset, line_pointer_state(pointer), item.size));
    memcpy(page + offset, item.data, item.size);
    return ERR_OK;
}
