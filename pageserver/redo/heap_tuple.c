#include "pageserver/redo/heap_tuple.h"

#include "pageserver/redo/visibility_map.h"

enum {
    INFOBIT_MULTI = 0x01,
    INFOBIT_LOCK_ONLY = 0x02,
    INFOBIT_EXCL_LOCK = 0x04,
    INFOBIT_KEYSHR_LOCK = 0x08,
    INFOBIT_KEYS_UPDATED = 0x10
};

void tuple_set_ctid(uint8_t *tuple, uint32_t block, unsigned number)
{
    page_set_u16(tuple, TUPLE_CTID, (uint16_t)(block >> 16));
    page_set_u16(tuple, TUPLE_CTID + 2, (uint16_t)block);
    page_set_u16(tuple, TUPLE_CTID + 4, (uint16_t)number);
}

void tuple_write_header(
    const struct redo *redo,
    uint8_t *tuple,
    struct tuple_header header,
    uint32_t block,
    unsigned number)
{
    page_set_u32(tuple, TUPLE_XMIN, redo->record->xid);
    page_set_u32(tuple, TUPLE_XMAX, 0);
    page_set_u32(tuple, TUPLE_CID, 0);
    tuple_set_ctid(tuple, block, number);
    page_set_u16(tuple, TUPLE_INFOMASK2, header.infomask2);
    page_set_u16(tuple, TUPLE_INFOMASK, header.infomask & (uint16_t)~HEAP_COMBOCID);
    tuple[TUPLE_HOFF] = header.hoff;
}

void tuple_apply_infobits(uint8_t *tuple, unsigned infobits)
{
    unsigned mask = page_u16(tuple, TUPLE_INFOMASK) & ~(unsigned)(HEAP_XMAX_BITS | HEAP_MOVED);
    unsigned mask2 = page_u16(tuple, TUPLE_INFOMASK2) & ~(unsigned)HEAP_KEYS_UPDATED;
    mask |= infobits & INFOBIT_MULTI ? HEAP_XMAX_IS_MULTI : 0;
    mask |= infobits & INFOBIT_LOCK_ONLY ? HEAP_XMAX_LOCK_ONLY : 0;
    mask |= infobits & INFOBIT_EXCL_LOCK ? HEAP_XMAX_EXCL_LOCK : 0;
    mask |= infobits & INFOBIT_KEYSHR_LOCK ? HEAP_XMAX_KEYSHR_LOCK : 0;
    mask2 |= infobits & INFOBIT_KEYS_UPDATED ? HEAP_KEYS_UPDATED : 0;
    page_set_u16(tuple, TUPLE_INFOMASK, (uint16_t)mask);
    page_set_u16(tuple, TUPLE_INFOMASK2, (uint16_t)mask2);
}

bool tuple_is_locked_only(const uint8_t *tuple)
{
    unsigned mask = page_u16(tuple, TUPLE_INFOMASK);
    return (mask & HEAP_XMAX_LOCK_ONLY) != 0 ||
           (mask & (HEAP_XMAX_IS_MULTI | HEAP_LOCK_MASK)) == HEAP_XMAX_EXCL_LOCK;
}

void tuple_clear_command_id(uint8_t *tuple)
{
    page_set_u32(tuple, TUPLE_CID, 0);
    page_set_u16(tuple, TUPLE_INFOMASK, page_u16(tuple, TUPLE_INFOMASK) & (uint16_t)~HEAP_COMBOCID);
}

err_t heap_tuple(struct redo *redo, unsigned number, uint8_t **ret_tuple, size_t *ret_size)
{
    uint8_t *tuple = NULL;
    size_t size = 0;
    TRY(page_item(redo->page, number, &tuple, &size, redo->msg));
    if (line_pointer_state(page_line_pointer(redo->page, number)) != LP_NORMAL ||
        size < TUPLE_HEADER_SIZE || tuple[TUPLE_HOFF] < TUPLE_HEADER_SIZE ||
        tuple[TUPLE_HOFF] > size) {
        return err_set(redo->msg, ERR_CORRUPT, "item %u is no tuple", number);
    }
    *ret_tuple = tuple;
    *ret_size = size;
    return ERR_OK;
}

void heap_set_prunable(struct redo *redo)
{
    uint32_t old = page_u32(redo->page, PAGE_PRUNE_XID);
    if (old == 0 || xid_precedes(redo->record->xid, old)) {
        page_set_u32(redo->page, PAGE_PRUNE_XID, redo->record->xid);
    }
}

void heap_clear_all_visible(uint8_t *page)
{
    page_set_u16(page, PAGE_FLAGS, page_u16(page, PAGE_FLAGS) & (uint16_t)~PD_ALL_VISIBLE);
}

void heap_set_all_visible(uint8_t *page)
{
    page_set_u16(page, PAGE_FLAGS, page_u16(page, PAGE_FLAGS) | PD_ALL_VISIBLE);
}

err_t heap_lock_read(struct redo *redo, struct heap_lock *ret_lock)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    ret_lock->xmax = cursor_u32(&fields);
    ret_lock->number = cursor_u16(&fields);
    ret_lock->infobits = cursor_u8(&fields);
    ret_lock->flags = cursor_u8(&fields);
    return cursor_is_good(&fields) ? ERR_OK : redo_refuse_short(redo);
}

/*
 * A reference: pd_lsn moves when a bit was set. Implied (a record of a minor version that did not
 * name the map page, or the bits were clear already): Postgres leaves pd_lsn alone.
 */
err_t heap_clear_vm(struct redo *redo, unsigned bits)
{
    uint32_t heap_block = redo_block_number(redo, 0);
    if (!vm_covers(redo->key.block, heap_block)) {
        return redo_refuse(redo, "the visibility map page is not that of the heap block");
    }
    bool cleared = vm_clear(redo->page, heap_block, bits);
    redo->keep_lsn = redo->block == NULL || !cleared;
    return ERR_OK;
}

bool heap_is_block(const struct redo *redo, unsigned index)
{
    return redo->block_index == index && redo->key.fork != FORK_VM;
}
