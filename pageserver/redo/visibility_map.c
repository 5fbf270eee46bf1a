#include "pageserver/redo/visibility_map.h"

static uint8_t *map_byte(uint8_t *page, uint32_t heap_block)
{
    return page + PAGE_HEADER_SIZE + heap_block % VM_BLOCKS_PER_PAGE / VM_BLOCKS_PER_BYTE;
}

static unsigned map_shift(uint32_t heap_block)
{
    return heap_block % VM_BLOCKS_PER_BYTE * 2;
}

bool vm_clear(uint8_t *page, uint32_t heap_block, unsigned bits)
{
    uint8_t *byte = map_byte(page, heap_block);
    unsigned mask = bits << map_shift(heap_block);
    if ((*byte & mask) == 0) {
        return false;
    }
    *byte &= (uint8_t)~mask;
    return true;
}

bool vm_set(uint8_t *page, uint32_t heap_block, unsigned bits)
{
    uint8_t *byte = map_byte(page, heap_block);
    if ((*byte >> map_shift(heap_block) & VM_ALL) == bits) {
        return false;
    }
    *byte |= (uint8_t)(bits << map_shift(heap_block));
    return true;
}

void vm_truncate(uint8_t *page, uint32_t heap_blocks)
{
    uint8_t *byte = map_byte(page, heap_blocks);
    *byte &= (uint8_t)((1u << map_shift(heap_blocks)) - 1);
    memset(byte + 1, 0, (size_t)(page + PAGE_SIZE - (byte + 1)));
}
