/*
 * visibility_map.h - two bits a heap block: all visible, all frozen.
 *
 * Source: src/backend/access/heap/visibilitymap.c of Postgres 17. A map page is a page header and
 * then nothing but bits, behind pd_lower: a map page is never "unused space". Threads: [any].
 */
#pragma once

#include "common/pg/page.h"

enum { VM_ALL_VISIBLE = 1, VM_ALL_FROZEN = 2, VM_ALL = VM_ALL_VISIBLE | VM_ALL_FROZEN };

#define VM_BYTES_PER_PAGE  (PAGE_SIZE - PAGE_HEADER_SIZE)
#define VM_BLOCKS_PER_BYTE 4u
#define VM_BLOCKS_PER_PAGE (VM_BYTES_PER_PAGE * VM_BLOCKS_PER_BYTE)

/* Is this heap block's pair of bits on map page `map_block`? */
static inline bool vm_covers(uint32_t map_block, uint32_t heap_block)
{
    return heap_block / VM_BLOCKS_PER_PAGE == map_block;
}

bool vm_clear(uint8_t *page, uint32_t heap_block, unsigned bits); /* true: some bit was set */
bool vm_set(uint8_t *page, uint32_t heap_block, unsigned bits);   /* true: the pair differed */

/* The heap now ends before `heap_blocks`, which lies on this page: clear what is behind. */
void vm_truncate(uint8_t *page, uint32_t heap_blocks);
