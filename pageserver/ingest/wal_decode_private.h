/*
 * wal_decode_private.h - what the files of the decoder share: the state between records, the record
 * in progress, and one function a resource manager that has effects besides its block references.
 *
 * Threads: one owner.
 */
#pragma once

#include "common/base/mark.h"
#include "common/pg/cursor.h"
#include "common/pg/page.h"
#include "common/pg/pg_control.h"
#include "common/pg/pg_version.h"
#include "pageserver/ingest/wal_decode.h"

#define PAGE_NONE (-1)

/* A fork of a relation, as wal_state_source tells it. */
struct rel_entry {
    struct page_key rel;
    uint32_t blocks;
};

struct wal_state {
    struct wal_state_source *source;
    uint64_t next_xid; /* with its epoch */
    uint32_t next_multi, next_offset;
    uint64_t newest_commit_time;
    struct pg_checkpoint checkpoint;
    struct pg_control control;
    bool has_control;

    /*
     * Minor versions before 17.8 write the offset of the next multixact only with that one; redo of
     * a newer one writes it at once, on a page that may not have been made yet. Then it makes it,
     * and the record that would make it is skipped.
     */
    int64_t zeroed_offsets_page;  /* the last one; PAGE_NONE: not known since the start */
    int64_t premade_offsets_page; /* made here before its record; PAGE_NONE: none */

    struct buf room;        /* scratch for values */
    struct rel_entry *rels; /* scratch for databases */
    size_t rels_count, rels_capacity;
};

/* A fork that the record touches: its size before the record, and as the record leaves it. */
struct touched_fork {
    struct page_key rel;
    uint32_t old_blocks, new_blocks;
    bool exists, changed;
};

#define FORKS_MAX (WAL_BLOCKS_MAX + 4) /* and implied map pages */

struct decoding {
    struct wal_state *state;
    const struct wal_record *record;
    struct wal_sink *sink;
    struct errmsg *msg;
    uint8_t op; /* info without the bits of the WAL machinery */
    bool checkpoint_changed, multi_changed;
    size_t fork_count;
    size_t born_count; /* blocks that began to exist with this record */
    struct touched_fork forks[FORKS_MAX];
    struct page_key born[FORKS_MAX];
};

/* ERR_CORRUPT; the caller of wal_decode adds record and LSN. */
NODISCARD err_t decode_refuse(const struct decoding *decoding, const char *what);

/* -- wal_decode.c: what everybody emits -- */

void put_state(struct decoding *decoding, struct page_key key, struct bytes value);
void put_rel_size(struct decoding *decoding, struct page_key rel, bool exists, uint32_t blocks);
/* The record itself, for a page that it changes without a reference. */
void put_implied(struct decoding *decoding, struct page_key key);
void put_zero_page(struct decoding *decoding, struct page_key key);
void note_xid(struct decoding *decoding, uint32_t xid); /* the next xid lies behind it */
uint64_t full_xid(const struct wal_state *state, uint32_t xid);
/* The newest value of a state key in state->room; ERR_NOT_FOUND. */
NODISCARD err_t load_state(struct decoding *decoding, struct page_key key);

/* -- wal_decode_block.c: pages of relations -- */

NODISCARD err_t
fork_find(struct decoding *decoding, struct page_key rel, struct touched_fork **ret_fork);
NODISCARD err_t decode_blocks(struct decoding *decoding);
NODISCARD err_t decode_heap(struct decoding *decoding); /* visibility map pages */
NODISCARD err_t decode_heap2(struct decoding *decoding);
/* Emit the sizes that changed, and zero pages for the gaps. */
NODISCARD err_t flush_forks(struct decoding *decoding);

/* -- one a resource manager -- */

NODISCARD err_t decode_xlog(struct decoding *decoding);
NODISCARD err_t decode_xact(struct decoding *decoding);
NODISCARD err_t decode_smgr(struct decoding *decoding);
NODISCARD err_t decode_dbase(struct decoding *decoding);
NODISCARD err_t decode_tblspc(struct decoding *decoding);
NODISCARD err_t decode_relmap(struct decoding *decoding);
NODISCARD err_t decode_clog(struct decoding *decoding);
NODISCARD err_t decode_multixact(struct decoding *decoding);
NODISCARD err_t decode_commit_ts(struct decoding *decoding);
NODISCARD err_t decode_replorigin(struct decoding *decoding);
NODISCARD err_t decode_logical_message(struct decoding *decoding);
/* Slots that were still being made went with their server. */
NODISCARD err_t end_reservations(struct decoding *decoding);

/* The position of a replication origin moves: forward only, unless `force`. */
NODISCARD err_t
put_origin(struct decoding *decoding, uint16_t origin, lsn_t remote_lsn, bool force);

/* How many heap blocks one page of the visibility map covers: two bits each. */
#define VM_BLOCKS_PER_PAGE ((PAGE_SIZE - PAGE_HEADER_SIZE) * 4u)

static inline bool has_block(const struct wal_record *record, size_t index)
{
    return index < record->block_count && record->blocks[index].in_use;
}

/* Transaction ids, multixacts and their offsets are compared on a circle. */
static inline bool precedes(uint32_t a, uint32_t b)
{
    return (int32_t)(a - b) < 0;
}
