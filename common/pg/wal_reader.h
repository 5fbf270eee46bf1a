/*
 * wal_reader.h - WAL bytes in, whole records out; resumable at any byte. And, for the proposer and
 * the acceptor, only where records end.
 *
 * Source: src/include/access/xlog_internal.h, xlogreader.c of Postgres 17. Pages of 8 KiB with a
 * short header (24 bytes) or, at a segment's begin, a long one (40). Records are 8-byte aligned and
 * may cross pages and segments; XLOG_SWITCH ends its segment. Pure; bounded memory: a record larger
 * than `record_size_max` is ERR_FULL. Threads: one owner.
 */
#pragma once

#include "common/pg/wal_record.h"

#define WAL_PAGE_SIZE         8192
#define WAL_PAGE_HEADER_SHORT 24
#define WAL_PAGE_HEADER_LONG  40
#define WAL_PAGE_MAGIC        0xD116 /* XLOG_PAGE_MAGIC of 17 */

struct wal_reader;

struct wal_reader_options {
    lsn_t start_lsn;        /* a record end or begin: reading starts at the record there */
    uint32_t segment_size;  /* 16 MiB */
    uint64_t system_id;     /* checked in long page headers; 0: not checked */
    size_t record_size_max; /* bytes buffered for one record */
    bool ends_only;         /* find record ends; do not keep the bytes nor check the CRC */
};

struct wal_reader *wal_reader_create(const struct wal_reader_options *options);
void wal_reader_destroy(struct wal_reader *reader);

/* The next byte that feed() must bring. Starts at start_lsn. */
lsn_t wal_reader_next_lsn(const struct wal_reader *reader);

/* End of the last complete record (EndRecPtr), or start_lsn. */
lsn_t wal_reader_record_lsn(const struct wal_reader *reader);

/*
 * It failed where a record would begin, because there is nothing: the end of a preallocated file.
 */
bool wal_reader_at_zeros(const struct wal_reader *reader);

/*
 * Add WAL bytes that begin at wal_reader_next_lsn(); the reader copies what it has to keep, but may
 * also point into `wal` until wal_reader_next() said ERR_NOT_FOUND. Take all records before feeding
 * again. (ends_only: feeding is enough; ask wal_reader_record_lsn.)
 */
NODISCARD err_t wal_reader_feed(struct wal_reader *reader, struct bytes wal, struct errmsg *msg);

/*
 * The next whole record, decoded, valid until the next call. ERR_NOT_FOUND: feed more.
 * ERR_CORRUPT (page header, CRC, length, prev-link) is final: the message names the LSN.
 */
NODISCARD err_t wal_reader_next(
    struct wal_reader *reader, const struct wal_record **ret_record, struct errmsg *msg);

/*
 * LSN arithmetic. lsn_skip_header: where the next record at a record end really begins (past a page
 * header at a page boundary). lsn_canonical: the same position as a record end: aligned down to 8
 * and, from inside or just behind a page header, back to the page boundary.
 */
lsn_t lsn_skip_header(lsn_t lsn, uint32_t segment_size);
lsn_t lsn_canonical(lsn_t lsn, uint32_t segment_size);

/* "000000010000000000000001" for the segment that holds `lsn`. */
struct wal_segment_name {
    char text[25];
};
struct wal_segment_name wal_segment_name(lsn_t lsn, uint32_t segment_size);
