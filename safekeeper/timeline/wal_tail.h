/*
 * wal_tail.h - the newest durable WAL of a timeline in memory, so that feeds that keep up read no
 * files. A ring of fixed size, allocated by the first append. Threads: one owner.
 */
#pragma once

#include "common/base/bytes.h"

#define WAL_TAIL_SIZE (1 * MIB)

struct wal_tail {
    uint8_t *ring; /* NULL: empty; byte at LSN x is ring[x % WAL_TAIL_SIZE] */
    lsn_t begin_lsn, end_lsn;
};

void wal_tail_deinit(struct wal_tail *tail); /* frees; empty and usable again */

/* Bytes that do not begin at the end of what is there start the tail anew. */
void wal_tail_append(struct wal_tail *tail, lsn_t begin_lsn, struct bytes wal);
void wal_tail_truncate(struct wal_tail *tail, lsn_t lsn);

/* Append [begin_lsn, end_lsn) to `to`; false: not all of it is here. */
bool wal_tail_read(const struct wal_tail *tail, lsn_t begin_lsn, lsn_t end_lsn, struct buf *to);
