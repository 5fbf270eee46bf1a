/*
 * heap_tuple.h - the header of a tuple on a heap page, and what redo does to it.
 *
 * Source: src/include/access/htup_details.h, heapam_xlog.h of Postgres 17. Threads: [any].
 */
#pragma once

#include "pageserver/redo/redo_private.h"

#define TUPLE_HEADER_SIZE 23
/* MaxHeapTupleSize: what is left of a page with one line pointer. */
#define TUPLE_SIZE_MAX (PAGE_SIZE - ALIGN8(PAGE_HEADER_SIZE + LINE_POINTER_SIZE))

/* Offsets in the tuple. */
enum {
    TUPLE_XMIN = 0,
    TUPLE_XMAX = 4,
    TUPLE_CID = 8,   /* command id, or the xid of an old VACUUM FULL */
    TUPLE_CTID = 12, /* u16 block high, u16 block low, u16 item */
    TUPLE_INFOMASK2 = 18,
    TUPLE_INFOMASK = 20,
    TUPLE_HOFF = 22
};

enum {
    HEAP_COMBOCID = 0x0020,
    HEAP_XMAX_KEYSHR_LOCK = 0x0010,
    HEAP_XMAX_EXCL_LOCK = 0x0040,
    HEAP_XMAX_LOCK_ONLY = 0x0080,
    HEAP_LOCK_MASK = HEAP_XMAX_KEYSHR_LOCK | HEAP_XMAX_EXCL_LOCK,
    HEAP_XMAX_COMMITTED = 0x0400,
    HEAP_XMAX_INVALID = 0x0800,
    HEAP_XMAX_IS_MULTI = 0x1000,
    HEAP_MOVED = 0xC000,
    HEAP_XMAX_BITS = HEAP_XMAX_COMMITTED | HEAP_XMAX_INVALID | HEAP_XMAX_IS_MULTI | HEAP_LOCK_MASK |
                     HEAP_XMAX_LOCK_ONLY
};

enum { HEAP_KEYS_UPDATED = 0x2000, HEAP_HOT_UPDATED = 0x4000 }; /* infomask2 */

/*
 * A tuple's header as the record has it: infomask2, infomask, t_hoff; the rest is known otherwise.
 */
struct tuple_header {
    uint16_t infomask2, infomask;
    uint8_t hoff;
};
#define TUPLE_LOGGED_HEADER_SIZE 5

void tuple_set_ctid(uint8_t *tuple, uint32_t block, unsigned number);

/* Fill room for a new tuple up to its null bitmap: xmin of the record, command id 0, no xmax. */
void tuple_write_header(
    const struct redo *redo,
    uint8_t *tuple,
    struct tuple_header header,
    uint32_t block,
    unsigned number);

/*
 * xmax and its bits as a delete, update or lock record says them (`infobits` are its XLHL_ flags).
 */
void tuple_apply_infobits(uint8_t *tuple, unsigned infobits);
bool tuple_is_locked_only(const uint8_t *tuple);
void tuple_clear_command_id(uint8_t *tuple);

/* The tuple at a normal line pointer; its t_hoff lies inside. */
NODISCARD err_t
heap_tuple(struct redo *redo, unsigned number, uint8_t **ret_tuple, size_t *ret_size);

/* pd_prune_xid: the oldest xid whose end may leave something to prune. */
void heap_set_prunable(struct redo *redo);
void heap_clear_all_visible(uint8_t *page);
void heap_set_all_visible(uint8_t *page);

/* LOCK and LOCK_UPDATED have the same layout. */
struct heap_lock {
    uint32_t xmax;
    uint16_t number;
    uint8_t infobits, flags;
};
NODISCARD err_t heap_lock_read(struct redo *redo, struct heap_lock *ret_lock);

/*
 * The record's visibility map page, as a reference or implied, for records that change one heap
 * block: reference 0 names it.
 */
NODISCARD err_t heap_clear_vm(struct redo *redo, unsigned bits);

/* Is the page of this call reference `index`, and no map page? */
bool heap_is_block(const struct redo *redo, unsigned index);
