/*
 * page_proto.h - what a compute asks a pageserver.
 *
 * Every request carries `lsn` (LSN_HEAD from a primary, the pinned LSN from a static reader, the
 * replay LSN from a replica) and `not_modified_since`. The pageserver waits, up to its deadline,
 * until last_record_lsn >= not_modified_since, then reads at min(lsn, last_record_lsn): never newer
 * than lsn. The reply carries the LSN used. Retention is judged by lsn. A failure is FRAME_ERROR
 * with the same request id (hello_proto.h). See docs/protocol/page.md.
 */
#pragma once

#include "common/wire/frame.h"

#define PAGE_BYTES         8192
#define GET_PAGE_COUNT_MAX 32 /* blocks in one request */

/*
 * Content of a segment of an SLRU that a base backup has left out: the compute puts the pages in
 * its place when it needs one. Postgres itself writes no file of this size.
 */
#define SLRU_COLD_TEXT "cold\n"

/*
 * spc, db, rel, fork: RelFileLocator and ForkNumber of Postgres. Or pages of an SLRU: 0, enum
 * state_kind (common/pg/page_key.h), 0, 0; `block` is the page then, and what is in no page is
 * zeros.
 */
#define GET_PAGE_FIELDS(X)                                                                         \
    X(u32, spc)                                                                                    \
    X(u32, db)                                                                                     \
    X(u32, rel)                                                                                    \
    X(u8, fork)                                                                                    \
    X(u32, block)                                                                                  \
    X(u32, count) /* 1 .. GET_PAGE_COUNT_MAX blocks from `block` on */                             \
    X(u64, lsn)                                                                                    \
    X(u64, not_modified_since)

/*
 * `pages` is count * PAGE_BYTES. A block at or beyond the relation's end at that LSN is all zero
 * and `existing` counts only the blocks before the end; a relation that does not exist is
 * ERR_NOT_FOUND.
 */
#define GET_PAGE_REPLY_FIELDS(X)                                                                   \
    X(u64, lsn)                                                                                    \
    X(u32, existing)                                                                               \
    X(bytes, pages)

#define REL_SIZE_FIELDS(X)                                                                         \
    X(u32, spc)                                                                                    \
    X(u32, db)                                                                                     \
    X(u32, rel)                                                                                    \
    X(u8, fork)                                                                                    \
    X(u64, lsn)                                                                                    \
    X(u64, not_modified_since)

#define REL_SIZE_REPLY_FIELDS(X)                                                                   \
    X(u64, lsn)                                                                                    \
    X(u8, exists)                                                                                  \
    X(u32, blocks)

#define DB_SIZE_FIELDS(X)                                                                          \
    X(u32, spc)                                                                                    \
    X(u32, db)                                                                                     \
    X(u64, lsn)                                                                                    \
    X(u64, not_modified_since)

#define DB_SIZE_REPLY_FIELDS(X)                                                                    \
    X(u64, lsn)                                                                                    \
    X(u64, bytes)

/*
 * What a compute has in its cache, for the next one: a hint, and the pageserver does not look into
 * it. An empty answer: none was kept.
 */
#define PUT_WORKING_SET_FIELDS(X)       X(bytes, list) /* at most WORKING_SET_BYTES_MAX */
#define PUT_WORKING_SET_REPLY_FIELDS(X) X(u32, size)
#define GET_WORKING_SET_FIELDS(X)       X(u32, size_max) /* a larger one is not sent */
#define GET_WORKING_SET_REPLY_FIELDS(X) X(bytes, list)
#define WORKING_SET_BYTES_MAX           (256 * KIB)

WIRE_DECLARE(get_page, GET_PAGE_FIELDS);
WIRE_DECLARE(get_page_reply, GET_PAGE_REPLY_FIELDS);
WIRE_DECLARE(rel_size, REL_SIZE_FIELDS);
WIRE_DECLARE(rel_size_reply, REL_SIZE_REPLY_FIELDS);
WIRE_DECLARE(db_size, DB_SIZE_FIELDS);
WIRE_DECLARE(db_size_reply, DB_SIZE_REPLY_FIELDS);
WIRE_DECLARE(put_working_set, PUT_WORKING_SET_FIELDS);
WIRE_DECLARE(put_working_set_reply, PUT_WORKING_SET_REPLY_FIELDS);
WIRE_DECLARE(get_working_set, GET_WORKING_SET_FIELDS);
WIRE_DECLARE(get_working_set_reply, GET_WORKING_SET_REPLY_FIELDS);
