/*
 * generic.c - redo of generic WAL, which extensions use: pieces of bytes at offsets of the page.
 *
 * Source: src/backend/access/transam/generic_xlog.c of Postgres 17. The pieces say nothing about
 * the hole, so it ends up as zeros.
 */
#include "pageserver/redo/redo_private.h"

err_t generic_redo(struct redo *redo)
{
    if (redo->block == NULL) {
        return redo_refuse_block(redo);
    }
    struct cursor data = cursor_of(redo->block->data);
    while (data.left > 0) {
        size_t offset = cursor_u16(&data);
        size_t size = cursor_u16(&data);
        struct bytes piece = cursor_bytes(&data, size);
        if (!cursor_is_good(&data)) {
            return redo_refuse_short(redo);
        }
        if (offset > PAGE_SIZE || size > PAGE_SIZE - offset) {
            return redo_refuse(redo, "a piece reaches over the end of the page");
        }
        if (size > 0) {
            memcpy(redo->page + offset, piece.data, size);
        }
    }
    TRY(page_check(redo->page, redo->msg));
    unsigned lower = page_u16(redo->page, PAGE_LOWER);
    memset(redo->page + lower, 0, page_u16(redo->page, PAGE_UPPER) - lower);
    return ERR_OK;
}
