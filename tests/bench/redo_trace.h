/*
 * redo_trace.h - WAL for measuring: walked record by record, or kept as the changes that it makes.
 *
 * The walk goes from the checkpoint of a cold copy of a data directory to the end that was asked
 * for, reading segments as they are on disk. A trace keeps every change of a page with its record
 * already decoded, in the order of the WAL or sorted by page. Threads: one owner.
 */
#pragma once

#include "common/pg/wal_record.h"
#include "tools/walreplay/decoded.h"

struct wal_source {
    const char *base_dir, *wal_dir;
    lsn_t end_lsn;
};

struct wal_visitor {
    err_t (*visit)(
        struct wal_visitor *visitor, const struct wal_record *record, struct errmsg *msg);
};

/* ERR_NOT_FOUND: the WAL ends before end_lsn. */
NODISCARD err_t
wal_walk(const struct wal_source *source, struct wal_visitor *visitor, struct errmsg *msg);

NODISCARD err_t
wal_source_system_id(const struct wal_source *source, uint64_t *ret_system_id, struct errmsg *msg);

/* What one record makes of one page. */
struct change {
    struct page_key key;
    uint8_t tag, block_index;        /* as in page_key.h; never VALUE_STATE */
    uint32_t number;                 /* in the order of the WAL */
    const struct wal_record *record; /* with only as many blocks as it has */
    const uint8_t *image;            /* VALUE_IMAGE */
};

/* The page before, and behind it the page after. */
NODISCARD err_t change_apply(const struct change *change, uint8_t *page, struct errmsg *msg);

/* Replays records through the pageserver's decoder, in WAL order, onto pages in memory. */
struct replayer {
    struct wal_visitor visitor;
    struct page_map *map;
    struct decoded *decoded;
    uint64_t records, bytes, changes;
    struct trace *trace; /* not NULL: changes are kept there as well */
    /* Not NULL: told before a change is applied. */
    void (*before)(struct replayer *replayer, const struct change *change, const uint8_t *page);
};

NODISCARD err_t replayer_init(struct replayer *replayer, const char *base_dir, struct errmsg *msg);
void replayer_deinit(struct replayer *replayer);

struct trace {
    struct change *changes;
    size_t count, capacity;
    struct trace_chunk *chunks; /* records and images lie there, one behind the other */
};

void trace_deinit(struct trace *trace);
/*
 * By page; the changes of a page stay in the order of the WAL. Records are laid out anew in that
 * order, as they are behind a read that has collected them.
 */
NODISCARD err_t trace_sort(struct trace *trace, struct errmsg *msg);
