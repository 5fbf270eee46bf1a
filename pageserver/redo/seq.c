/*
 * seq.c - redo of sequences: the record is the whole page, one tuple and a magic number.
 *
 * Source: src/backend/commands/sequence.c of Postgres 17.
 */
#include "pageserver/redo/redo_private.h"

enum { SEQ_OP_LOG = 0x00 };

#define SEQ_MAGIC        0x1717
#define SEQ_SPECIAL_SIZE 8
#define SEQ_LOCATOR_SIZE 12

err_t seq_redo(struct redo *redo)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    if (redo->op != SEQ_OP_LOG) {
        return redo_refuse_op(redo);
    }
    if (redo->block_index != 0) {
        return redo_refuse_block(redo);
    }
    cursor_skip(&fields, SEQ_LOCATOR_SIZE);
    if (!cursor_is_good(&fields)) {
        return redo_refuse_short(redo);
    }
    page_init_zeroed(redo->page, SEQ_SPECIAL_SIZE);
    page_set_u32(redo->page, PAGE_SIZE - SEQ_SPECIAL_SIZE, SEQ_MAGIC);
    return page_add_item(redo->page, bytes_of(fields.at, fields.left), 1, 0, redo->msg);
}
