#include "pageserver/redo/page_items.h"

#include <assert.h>

static_assert(
    (PAGE_SIZE - PAGE_HEADER_SIZE) / (8 + 16 + LINE_POINTER_SIZE) == HEAP_ITEMS_MAX,
    "a heap tuple header is 23 bytes, aligned 24, and a line pointer");
static_assert(
    (PAGE_SIZE - PAGE_HEADER_SIZE) / (16 + LINE_POINTER_SIZE) == INDEX_ITEMS_MAX,
    "an index tuple is more than 8 bytes, aligned 16, and a line pointer");

#define PAGE_LAYOUT_VERSION 4

/* An item that stays on the page when the others go. */
struct kept_item {
    uint16_t number; /* where its line pointer is, or will be */
    uint16_t offset;
    uint16_t size; /* aligned */
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
    uint8_t *at = page + PAGE_HEADER_SIZE + (number - 1) * LINE_POINTER_SIZE;
    if (shift) {
        memmove(at + LINE_POINTER_SIZE, at, (limit - number) * LINE_POINTER_SIZE);
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
    uint8_t *room = NULL;
    TRY(page_add_room(page, item.size, number, flags, &room, msg));
    memcpy(room, item.data, item.size);
    return ERR_OK;
}

/*
 * Push the kept items to the end of the page, the first one highest, without gaps.
 *
 * When they already lie in that order, each moves up over what is gone or has moved before it, and
 * neighbours move together. In any other order one could land on another that has yet to move, so
 * they come out of a copy. Either way only bytes from the new pd_upper on are written: the hole
 * keeps what it had, as it does in Postgres.
 */
static void compact_items(uint8_t *page, const struct kept_item *kept, unsigned count, bool sorted)
{
    uint8_t copy[PAGE_SIZE];
    const uint8_t *from = page;
    unsigned upper = page_u16(page, PAGE_SPECIAL);
    unsigned i = 0;
    while (i < count && (unsigned)kept[i].offset + kept[i].size == upper) {
        upper = kept[i].offset;
        i++;
    }
    if (!sorted && i < count) {
        unsigned begin = page_u16(page, PAGE_UPPER);
        memcpy(copy + begin, page + begin, page_u16(page, PAGE_SPECIAL) - begin);
        from = copy;
    }
    while (i < count) {
        unsigned end = (unsigned)kept[i].offset + kept[i].size;
        unsigned begin = kept[i].offset;
        unsigned first = i;
        while (++i < count && (unsigned)kept[i].offset + kept[i].size == begin) {
            begin = kept[i].offset;
        }
        unsigned distance = upper - end; /* wraps around when an item moves down; so does the sum */
        upper -= end - begin;
        memmove(page + upper, from + begin, end - begin);
        for (unsigned j = first; j < i; j++) {
            uint32_t pointer = page_line_pointer(page, kept[j].number);
            page_set_line_pointer(
                page, kept[j].number,
                (pointer & ~(uint32_t)0x7FFF) | ((kept[j].offset + distance) & 0x7FFF));
        }
    }
    page_set_u16(page, PAGE_UPPER, (uint16_t)upper);
}

err_t page_repair_fragmentation(uint8_t *page, struct errmsg *msg)
{
    struct kept_item kept[HEAP_ITEMS_MAX];
    TRY(page_check(page, msg));
    unsigned lower = page_u16(page, PAGE_LOWER);
    unsigned upper = page_u16(page, PAGE_UPPER);
    unsigned special = page_u16(page, PAGE_SPECIAL);
    unsigned count = page_item_count(page);
    if (count > HEAP_ITEMS_MAX) {
        return err_set(msg, ERR_CORRUPT, "%u items on a heap page", count);
    }
    unsigned kept_count = 0;
    unsigned unused_count = 0;
    unsigned last_used = 0;
    unsigned last_offset = special;
    size_t total = 0;
    bool sorted = true;
    for (unsigned number = 1; number <= count; number++) {
        uint32_t pointer = page_line_pointer(page, number);
        if (line_pointer_state(pointer) == LP_UNUSED) {
            page_set_line_pointer(page, number, 0);
            unused_count++;
            continue;
        }
        last_used = number;
        unsigned size = line_pointer_size(pointer);
        if (size == 0) {
            continue;
        }
        unsigned offset = line_pointer_offset(pointer);
        size = (unsigned)ALIGN8(size);
        if (offset < upper || offset + size > special) {
            return err_set(msg, ERR_CORRUPT, "item %u lies at %u, size %u", number, offset, size);
        }
        sorted = sorted && offset < last_offset;
        last_offset = MIN_OF(offset, last_offset);
        kept[kept_count++] = (struct kept_item){(uint16_t)number, (uint16_t)offset, (uint16_t)size};
        total += size;
    }
    if (total > special - upper) {
        return err_set(msg, ERR_CORRUPT, "items overlap: %zu bytes in %u", total, special - upper);
    }
    compact_items(page, kept, kept_count, sorted);

    unused_count -= count - last_used;
    page_set_u16(page, PAGE_LOWER, (uint16_t)(lower - (count - last_used) * LINE_POINTER_SIZE));
    unsigned flags = page_u16(page, PAGE_FLAGS) & ~(unsigned)PD_HAS_FREE_LINES;
    page_set_u16(page, PAGE_FLAGS, (uint16_t)(flags | (unused_count > 0 ? PD_HAS_FREE_LINES : 0)));
    return ERR_OK;
}

void page_truncate_line_pointers(uint8_t *page)
{
    unsigned count = page_item_count(page);
    unsigned left = count;
    while (left > 1 && line_pointer_state(page_line_pointer(page, left)) == LP_UNUSED) {
        left--;
    }
    bool has_free = false;
    for (unsigned number = left; number >= 1 && !has_free; number--) {
        has_free = line_pointer_state(page_line_pointer(page, number)) == LP_UNUSED;
    }
    unsigned lower = page_u16(page, PAGE_LOWER);
    page_set_u16(page, PAGE_LOWER, (uint16_t)(lower - (count - left) * LINE_POINTER_SIZE));
    unsigned flags = page_u16(page, PAGE_FLAGS) & ~(unsigned)PD_HAS_FREE_LINES;
    page_set_u16(page, PAGE_FLAGS, (uint16_t)(flags | (has_free ? PD_HAS_FREE_LINES : 0)));
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

/* An item of an index page that is about to go or to change: inside, and aligned. */
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
    uint8_t *at = page + PAGE_HEADER_SIZE + (number - 1) * LINE_POINTER_SIZE;
    memmove(at, at + LINE_POINTER_SIZE, (count - number) * LINE_POINTER_SIZE);
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

err_t page_index_delete_many(uint8_t *page, struct bytes numbers, struct errmsg *msg)
{
    /* One or two are deleted singly, the last first. It leaves another order of the items. */
    size_t delete_count = numbers.size / 2;
    if (delete_count <= 2) {
        for (size_t i = delete_count; i-- > 0;) {
            TRY(page_index_delete(page, le_u16(numbers.data + 2 * i), msg));
        }
        return ERR_OK;
    }
    struct kept_item kept[INDEX_ITEMS_MAX];
    TRY(page_check(page, msg));
    unsigned upper = page_u16(page, PAGE_UPPER);
    unsigned special = page_u16(page, PAGE_SPECIAL);
    unsigned count = page_item_count(page);
    if (count > INDEX_ITEMS_MAX) {
        return err_set(msg, ERR_CORRUPT, "%u items on an index page", count);
    }
    unsigned kept_count = 0;
    unsigned last_offset = special;
    size_t deleted = 0;
    size_t total = 0;
    bool sorted = true;
    for (unsigned number = 1; number <= count; number++) {
        unsigned offset = 0;
        unsigned size = 0;
        TRY(index_item(page, number, &offset, &size, msg));
        if (deleted < delete_count && number == le_u16(numbers.data + 2 * deleted)) {
            deleted++;
            continue;
        }
        sorted = sorted && offset < last_offset;
        last_offset = MIN_OF(offset, last_offset);
        /* Line pointers only move down: the ones still to be read stay as they are. */
        page_set_line_pointer(page, kept_count + 1, page_line_pointer(page, number));
        kept[kept_count] =
            (struct kept_item){(uint16_t)(kept_count + 1), (uint16_t)offset, (uint16_t)size};
        kept_count++;
        total += size;
    }
    if (deleted != delete_count) {
        return err_set(msg, ERR_CORRUPT, "items to delete are missing or not in order");
    }
    if (total > special - upper) {
        return err_set(msg, ERR_CORRUPT, "items overlap: %zu bytes in %u", total, special - upper);
    }
    page_set_u16(page, PAGE_LOWER, (uint16_t)(PAGE_HEADER_SIZE + kept_count * LINE_POINTER_SIZE));
    compact_items(page, kept, kept_count, sorted);
    return ERR_OK;
}

err_t page_index_overwrite(uint8_t *page, unsigned number, struct bytes item, struct errmsg *msg)
{
    unsigned offset = 0;
    unsigned old_size = 0;
    TRY(index_item(page, number, &offset, &old_size, msg));
    unsigned room = page_u16(page, PAGE_UPPER) - page_u16(page, PAGE_LOWER);
    if (item.size > PAGE_SIZE || ALIGN8(item.size) > old_size + room) {
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
