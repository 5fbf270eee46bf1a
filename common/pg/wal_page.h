/*
 * wal_page.h - the header of a WAL page, read and written.
 *
 * Source: XLogPageHeaderData and XLogLongPageHeaderData in src/include/access/xlog_internal.h of
 * Postgres 17. The first page of a segment has the long form. Threads: [any].
 */
#pragma once

#include "common/pg/wal_reader.h"

enum {
    WAL_PAGE_FIRST_IS_CONTRECORD = 0x0001, /* the page begins in the middle of a record */
    WAL_PAGE_LONG_HEADER = 0x0002,
    WAL_PAGE_BKP_REMOVABLE = 0x0004,
    WAL_PAGE_FIRST_IS_OVERWRITE = 0x0008, /* the record before was given up: a new one begins */
    WAL_PAGE_FLAGS_KNOWN = 0x000F
};

struct wal_page_header {
    uint16_t flags; /* WAL_PAGE_* */
    uint32_t tli;
    lsn_t lsn;          /* of the page */
    uint32_t rest_size; /* xlp_rem_len: bytes of the record that continues here, on all pages */
    uint64_t system_id; /* these two in the long form only */
    uint32_t segment_size;
};

/* 24 or 40: how long the header of the page at `lsn` is. */
static inline size_t wal_page_header_size(lsn_t page_lsn, uint32_t segment_size)
{
    return page_lsn % segment_size == 0 ? WAL_PAGE_HEADER_LONG : WAL_PAGE_HEADER_SHORT;
}

/*
 * Parse and validate the header of the page at `page_lsn`: `from` has wal_page_header_size() bytes.
 * system_id 0 is not compared. ERR_CORRUPT names the field.
 */
NODISCARD err_t wal_page_header_parse(
    const uint8_t *from,
    lsn_t page_lsn,
    uint32_t segment_size,
    uint64_t system_id,
    struct wal_page_header *ret_header,
    struct errmsg *msg);

/* Writes wal_page_header_size() bytes and returns how many; the long flag is set as needed. */
size_t wal_page_header_write(const struct wal_page_header *header, uint8_t *to);
