/*
 * wal_preamble.h - what stands before the start of a timeline in its first segment file.
 *
 * A timeline that starts in the middle of a segment has no WAL before its start; readers of the
 * file (pg_waldump) still want valid page headers from the segment's begin on. Each page before the
 * start gets one; it says that all of it continues a record that ends at the start, so that readers
 * skip to there. Source: xlog_internal.h and XLogFindNextRecord() of Postgres 17. Pure.
 */
#pragma once

#include "common/base/bytes.h"

struct wal_preamble_options {
    lsn_t start_lsn;
    uint32_t segment_size;
    uint64_t system_id;
};

/* Append the bytes of [begin of the segment, start_lsn). */
void wal_preamble_append(const struct wal_preamble_options *options, struct buf *to);
