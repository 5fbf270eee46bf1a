#include "tools/walreplay/page_mask.h"

/* The last two bytes of a page, by access method; GIN has flags there, B-tree a small number. */
enum {
    BRIN_META = 0xF091,
    BRIN_REVMAP = 0xF092,
    BRIN_REGULAR = 0xF093,
    GENERIC_ID_MIN = 0xFF00,
    HASH_ID = 0xFF80,
    GIST_ID = 0xFF81,
    SPGIST_ID = 0xFF82
};
#define SEQUENCE_MAGIC 0x1717u

#define PD_HINTS (PD_HAS_FREE_LINES | PD_PAGE_FULL)

static void clear_hole(uint8_t *page)
{
    unsigned lower = page_u16(page, PAGE_LOWER);
    unsigned upper = page_u16(page, PAGE_UPPER);
    if (lower >= PAGE_HEADER_SIZE && lower <= upper && upper <= PAGE_SIZE) {
        memset(page + lower, 0, upper - lower);
    }
}

static void clear_u16(uint8_t *page, size_t at, unsigned bits)
{
    page_set_u16(page, at, (uint16_t)(page_u16(page, at) & ~bits));
}

static void clear_contents(uint8_t *page)
{
    memset(page + PAGE_HEADER_SIZE, 0, PAGE_SIZE - PAGE_HEADER_SIZE);
    page_set_u32(page, PAGE_LOWER, 0);
}

static unsigned item_count(const uint8_t *page)
{
    unsigned lower = page_u16(page, PAGE_LOWER);
    unsigned upper = page_u16(page, PAGE_UPPER);
    return lower < PAGE_HEADER_SIZE || lower > upper || upper > PAGE_SIZE
               ? 0
               : (lower - PAGE_HEADER_SIZE) / 4;
}

static void mask_heap_tuple(uint8_t *tuple, struct page_key key, unsigned number)
{
    unsigned mask = page_u16(tuple, 20);
    bool frozen = (mask & 0x0300) == 0x0300;
    clear_u16(tuple, 20, frozen ? 0x0C00 : 0xFFF0u & 0x0F00);
    page_set_u32(tuple, 8, 0);           /* command id */
    if (page_u16(tuple, 16) == 0xFFFE) { /* a speculative token */
        page_set_u16(tuple, 12, (uint16_t)(key.block >> 16));
        page_set_u16(tuple, 14, (uint16_t)key.block);
        page_set_u16(tuple, 16, (uint16_t)number);
    }
    clear_u16(tuple, 20, 0x0020); /* combo command id */
}

static void mask_heap(uint8_t *page, struct page_key key)
{
    for (unsigned number = 1; number <= item_count(page); number++) {
        uint32_t pointer = page_u32(page, PAGE_HEADER_SIZE + (number - 1) * 4);
        unsigned offset = pointer & 0x7FFF;
        unsigned size = pointer >> 17;
        if (size == 0 || offset + size > PAGE_SIZE) {
            continue;
        }
        if ((pointer >> 15 & 3) == 1 && size >= 23) {
            mask_heap_tuple(page + offset, key, number);
        }
        unsigned padding = MIN_OF((8 - size % 8) % 8, PAGE_SIZE - offset - size);
        memset(page + offset + size, 0, padding);
    }
}

static void clear_line_pointer_flags(uint8_t *page)
{
    for (unsigned number = 1; number <= item_count(page); number++) {
        size_t at = PAGE_HEADER_SIZE + (number - 1) * 4;
        page_set_u32(page, at, page_u32(page, at) & ~(uint32_t)0x18000);
    }
}

static void mask_btree(uint8_t *page)
{
    unsigned flags = page_u16(page, PAGE_SIZE - 4);
    if (flags & 1) {
        clear_line_pointer_flags(page);
    }
    clear_u16(page, PAGE_SIZE - 4, 64 | 32); /* has garbage, split end */
    page_set_u16(page, PAGE_SIZE - 2, 0);    /* vacuum cycle */
}

static void mask_hash(uint8_t *page)
{
    unsigned type = page_u16(page, PAGE_SIZE - 4) & 0xF;
    if (type == 0) {
        clear_contents(page);
    } else if (type == 1 || type == 2) {
        clear_line_pointer_flags(page);
        clear_u16(page, PAGE_SIZE - 4, 128); /* has dead tuples */
    }
}

static void mask_gist(uint8_t *page)
{
    memset(page + PAGE_SIZE - 16, 0, 8); /* NSN: a kind of LSN */
    if (page_u16(page, PAGE_SIZE - 4) & 1) {
        clear_line_pointer_flags(page);
    }
    clear_u16(page, PAGE_SIZE - 4, 8 | 16); /* follow right, has garbage */
}

static void mask_gin(uint8_t *page)
{
    if (page_u16(page, PAGE_SIZE - 2) & 4) { /* deleted */
        clear_contents(page);
    }
}

/* Regular pages have a hole; a revmap page has its contents there; the metapage of an index that
 * was made before version 10 has no usable pd_lower. */
static void mask_brin(uint8_t *page)
{
    unsigned type = page_u16(page, PAGE_SIZE - 2);
    if (type == BRIN_REGULAR ||
        (type == BRIN_META && page_u16(page, PAGE_LOWER) > PAGE_HEADER_SIZE)) {
        clear_hole(page);
    }
    clear_u16(page, PAGE_SIZE - 4, 1); /* evacuate */
}

static void mask_gin_hole(uint8_t *page)
{
    if (page_u16(page, PAGE_LOWER) > PAGE_HEADER_SIZE) {
        clear_hole(page);
    }
}

void page_mask(uint8_t *page, uint8_t rmgr, struct page_key key)
{
    page_set_lsn(page, 0);
    page_set_u16(page, PAGE_CHECKSUM, 0);
    if (key.fork == FORK_VM) {
        return;
    }
    if (rmgr != RM_GENERIC && rmgr != RM_SEQ) {
        page_set_u32(page, PAGE_PRUNE_XID, 0);
        clear_u16(page, PAGE_FLAGS, PD_HINTS);
    }
    switch (rmgr) {
    case RM_BRIN: mask_brin(page); return;
    case RM_GIN:
        mask_gin_hole(page);
        mask_gin(page);
        return;
    default: clear_hole(page);
    }
    switch (rmgr) {
    case RM_HEAP:
    case RM_HEAP2: mask_heap(page, key); break;
    case RM_BTREE: mask_btree(page); break;
    case RM_HASH: mask_hash(page); break;
    case RM_GIST: mask_gist(page); break;
    default: break;
    }
}

uint8_t page_rmgr(const uint8_t *page)
{
    unsigned special = page_u16(page, PAGE_SPECIAL);
    unsigned id = page_u16(page, PAGE_SIZE - 2);
    switch (PAGE_SIZE - special) {
    case 16: return id == GIST_ID ? RM_GIST : id == HASH_ID ? RM_HASH : RM_BTREE;
    case 8:
        if (page_u32(page, special) == SEQUENCE_MAGIC && page_u32(page, special + 4) == 0) {
            return RM_SEQ;
        }
        if (id >= BRIN_META && id <= BRIN_REGULAR) {
            return RM_BRIN;
        }
        return id == SPGIST_ID ? RM_SPGIST : id >= GENERIC_ID_MIN ? RM_GENERIC : RM_GIN;
    default: return RM_HEAP;
    }
}
