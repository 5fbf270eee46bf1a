#include "tests/fuzz/mutate_page.h"

#define LINE_POINTER_SIZE 4
#define ITEMS_MAX         ((PAGE_SIZE - PAGE_HEADER_SIZE) / LINE_POINTER_SIZE)

static size_t item_count(const uint8_t *page)
{
    size_t lower = page_u16(page, PAGE_LOWER);
    size_t items = lower > PAGE_HEADER_SIZE ? (lower - PAGE_HEADER_SIZE) / LINE_POINTER_SIZE : 0;
    return MIN_OF(items, (size_t)ITEMS_MAX);
}

void mutation_hint_page(struct mutation *mutation, const uint8_t *page)
{
    uint32_t count = (uint32_t)item_count(page);
    mutation_hint(mutation, count);
    mutation_hint(mutation, count + 1);
    mutation_hint(mutation, count / 2);
    mutation_hint(mutation, page_u16(page, PAGE_LOWER));
    mutation_hint(mutation, page_u16(page, PAGE_UPPER));
    mutation_hint(mutation, page_u16(page, PAGE_SPECIAL));
    mutation_hint(mutation, (uint32_t)(page_u16(page, PAGE_UPPER) - page_u16(page, PAGE_LOWER)));
}

void mutation_hint_items(struct mutation *mutation, const uint8_t *page, struct bytes fields)
{
    size_t count = item_count(page);
    for (size_t at = 0; at + 2 <= fields.size && mutation->item_count < HINTS_MAX; at += 2) {
        uint16_t number = page_u16(fields.data, at);
        if (number > 0 && number <= count) {
            mutation->items[mutation->item_count++] = number;
        }
    }
}

static void mutate_page_header(struct mutation *mutation, uint8_t *page)
{
    static const uint8_t fields[] = {PAGE_FLAGS, PAGE_LOWER,   PAGE_LOWER,   PAGE_UPPER,
                                     PAGE_UPPER, PAGE_SPECIAL, PAGE_VERSION, PAGE_PRUNE_XID};
    mutate_field(mutation, page + fields[mutation_below(mutation, ARRAY_LEN(fields))], 2);
}

static uint8_t *pick_line_pointer(struct mutation *mutation, uint8_t *page)
{
    size_t count = item_count(page);
    size_t index = count > 0 ? mutation_below(mutation, count) : 0;
    if (mutation->item_count > 0 && !mutation_one_in(mutation, 4)) {
        index = mutation->items[mutation_below(mutation, mutation->item_count)] - 1u;
    }
    return page + PAGE_HEADER_SIZE + index * LINE_POINTER_SIZE;
}

/* u15 offset, u2 state, u15 size. */
static void mutate_line_pointer(struct mutation *mutation, uint8_t *page)
{
    uint8_t *at = pick_line_pointer(mutation, page);
    uint32_t pointer = page_u32(at, 0);
    uint32_t offset = pointer & 0x7FFF, state = pointer >> 15 & 3, size = pointer >> 17;
    switch (mutation_below(mutation, 6)) {
    case 0: state = (uint32_t)mutation_below(mutation, 4); break;
    case 1: offset = mutation_value(mutation); break;
    case 2: size = mutation_value(mutation); break;
    case 3: offset += 1 + (uint32_t)mutation_below(mutation, 8); break;
    case 4: size += 8; break;
    default:
        pointer = page_u32(pick_line_pointer(mutation, page), 0); /* two on one tuple */
        page_set_u32(at, 0, pointer);
        return;
    }
    page_set_u32(at, 0, (offset & 0x7FFF) | state << 15 | (size & 0x7FFF) << 17);
}

/* Fields that share their word with others: noise hardly ever makes one of them large alone. */
static void mutate_packed_field(struct mutation *mutation, uint8_t *tuple)
{
    uint32_t word = page_u32(tuple, 0), value = mutation_value(mutation);
    uint16_t info = page_u16(tuple, 6);
    switch (mutation_below(mutation, 6)) {
    case 0: /* B-tree: a posting list, of up to 4095 TIDs */
        page_set_u16(tuple, 4, (uint16_t)(0x2000 | (value & 0x0FFF)));
        page_set_u16(tuple, 6, info | 0x2000);
        break;
    case 1: /* ... and where it begins */
        page_set_u16(tuple, 2, (uint16_t)(value & ~7u));
        page_set_u16(tuple, 6, info | 0x2000);
        break;
    case 2: page_set_u16(tuple, 6, (uint16_t)((info & 0xE000) | (value & 0x1FFF))); break;
    case 3: page_set_u32(tuple, 0, (word & 3) | value << 2); break; /* SP-GiST: size of a leaf */
    case 4:                                                         /* ... how many nodes */
        page_set_u32(tuple, 0, (word & ~0xFFF8u) | (value & 0x1FFF) << 3);
        break;
    default: page_set_u32(tuple, 0, (word & ~3u) | (uint32_t)mutation_below(mutation, 4)); break;
    }
}

/* The header of a heap tuple (23 bytes), of an index tuple (8), or what stands behind it. */
static void mutate_item(struct mutation *mutation, uint8_t *page)
{
    uint32_t pointer = page_u32(pick_line_pointer(mutation, page), 0);
    size_t offset = pointer & 0x7FFF, size = pointer >> 17;
    if (offset >= PAGE_SIZE) {
        return;
    }
    size = MIN_OF(size, PAGE_SIZE - offset);
    if (size >= 8 && mutation_one_in(mutation, 3)) {
        mutate_packed_field(mutation, page + offset);
    } else if (mutation_one_in(mutation, 2)) {
        mutate_some_field(mutation, page + offset, MIN_OF(size, (size_t)24));
    } else {
        mutate_some_field(mutation, page + offset, size);
    }
}

/* One line pointer more or fewer; the tuples stay. */
static void mutate_item_count(struct mutation *mutation, uint8_t *page)
{
    unsigned lower = page_u16(page, PAGE_LOWER);
    switch (mutation_below(mutation, 4)) {
    case 0: lower += LINE_POINTER_SIZE; break;
    case 1: lower -= LINE_POINTER_SIZE; break;
    case 2: lower = PAGE_HEADER_SIZE; break;
    default: /* full to the last byte */ lower = page_u16(page, PAGE_UPPER); break;
    }
    page_set_u16(page, PAGE_LOWER, (uint16_t)lower);
}

void mutate_page(struct mutation *mutation, uint8_t *page)
{
    size_t special = page_u16(page, PAGE_SPECIAL);
    switch (mutation_below(mutation, 12)) {
    case 0: mutate_page_header(mutation, page); break;
    case 1:
    case 2:
    case 3: mutate_line_pointer(mutation, page); break;
    case 4:
    case 5:
    case 6: mutate_item(mutation, page); break;
    case 7: mutate_item_count(mutation, page); break;
    case 8:
        if (special < PAGE_SIZE) {
            mutate_some_field(mutation, page + special, PAGE_SIZE - special);
        }
        break;
    case 9: /* the contents of meta, map and posting tree pages */
    case 10:
        mutate_some_field(mutation, page + PAGE_HEADER_SIZE, PAGE_SIZE - PAGE_HEADER_SIZE);
        break;
    default: mutate_field(mutation, page + mutation_below(mutation, PAGE_SIZE / 2) * 2, 2); break;
    }
}
