/*
 * smgr.c - truncation of a relation, on the map page that it ends in; and full-page images.
 *
 * Source: src/backend/catalog/storage.c, visibilitymap.c, src/backend/access/transam/xlog.c of
 * Postgres 17. The free space map is not kept byte for byte: it is a hint that is never logged.
 */
#include "pageserver/redo/redo_private.h"
#include "pageserver/redo/visibility_map.h"

enum { SMGR_OP_CREATE = 0x10, SMGR_OP_TRUNCATE = 0x20 };
enum { SMGR_TRUNCATE_VM = 2 };
enum { XLOG_OP_FPI_FOR_HINT = 0xA0, XLOG_OP_FPI = 0xB0 };

err_t smgr_redo(struct redo *redo)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    uint32_t heap_blocks = cursor_u32(&fields);
    cursor_skip(&fields, 12); /* the relation */
    uint32_t flags = cursor_u32(&fields);
    if (redo->op != SMGR_OP_TRUNCATE || redo->block != NULL || redo->key.fork != FORK_VM) {
        return redo_refuse_block(redo);
    }
    if (!cursor_is_good(&fields)) {
        return redo_refuse_short(redo);
    }
    if (!(flags & SMGR_TRUNCATE_VM) || !vm_covers(redo->key.block, heap_blocks)) {
        return redo_refuse(redo, "the truncation does not end on this page");
    }
    redo->keep_lsn = true;
    if (heap_blocks % VM_BLOCKS_PER_PAGE == 0) {
        return ERR_OK; /* the whole page goes */
    }
    if (page_is_new(redo->page)) {
        page_init(redo->page, 0);
    }
    vm_truncate(redo->page, heap_blocks);
    return ERR_OK;
}

/* Images were restored before; a hint record without one (full_page_writes off) changes nothing. */
err_t xlog_redo(struct redo *redo)
{
    redo->keep_lsn = true;
    if (redo->block != NULL && redo->op == XLOG_OP_FPI_FOR_HINT) {
        return ERR_OK;
    }
    if (redo->block != NULL && redo->op == XLOG_OP_FPI) {
        return redo_refuse(redo, "a full-page image without an image");
    }
    return redo_refuse_block(redo);
}
