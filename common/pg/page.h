/*
 * page.h - the 8 KiB page of Postgres 17 on a little-endian 64-bit machine, as bytes.
 *
 * Source: src/include/storage/bufpage.h, itemid.h. Every offset that was read from a page is
 * untrusted: the accessors that follow one check it against the page and answer ERR_CORRUPT.
 */
#pragma once

#include <string.h>

#include "common/base/bytes.h"

#define PAGE_SIZE        8192
#define PAGE_HEADER_SIZE 24

/* Offsets in the page header. */
enum {
    PAGE_LSN = 0,       /* u32 high half, u32 low half */
    PAGE_CHECKSUM = 8,  /* u16 */
    PAGE_FLAGS = 10,    /* u16: PD_* */
    PAGE_LOWER = 12,    /* u16 */
    PAGE_UPPER = 14,    /* u16 */
    PAGE_SPECIAL = 16,  /* u16 */
    PAGE_VERSION = 18,  /* u16: PAGE_SIZE | 4 */
    PAGE_PRUNE_XID = 20 /* u32 */
};

enum { PD_HAS_FREE_LINES = 1, PD_PAGE_FULL = 2, PD_ALL_VISIBLE = 4 };

static inline uint16_t page_u16(const uint8_t *page, size_t at)
{
    uint16_t value;
    memcpy(&value, page + at, sizeof(value));
    return value;
}

static inline uint32_t page_u32(const uint8_t *page, size_t at)
{
    uint32_t value;
    memcpy(&value, page + at, sizeof(value));
    return value;
}

static inline void page_set_u16(uint8_t *page, size_t at, uint16_t value)
{
    memcpy(page + at, &value, sizeof(value));
}

static inline void page_set_u32(uint8_t *page, size_t at, uint32_t value)
{
    memcpy(page + at, &value, sizeof(value));
}

static inline lsn_t page_lsn(const uint8_t *page)
{
    return (lsn_t)page_u32(page, PAGE_LSN) << 32 | page_u32(page, PAGE_LSN + 4);
}

static inline void page_set_lsn(uint8_t *page, lsn_t lsn)
{
    page_set_u32(page, PAGE_LSN, (uint32_t)(lsn >> 32));
    page_set_u32(page, PAGE_LSN + 4, (uint32_t)lsn);
}

static inline bool page_is_new(const uint8_t *page)
{
    return page_u16(page, PAGE_UPPER) == 0;
}
