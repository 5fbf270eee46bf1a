/*
 * brin.c - redo of BRIN: a meta page, a map from block ranges to tuples (revmap), tuple pages.
 *
 * Source: src/backend/access/brin (brin_xlog.c, brin_pageops.c, brin_revmap.c) of Postgres 17.
 */
#include "pageserver/redo/redo_private.h"

enum {
    BRIN_OP_CREATE_INDEX = 0x00,
    BRIN_OP_INSERT = 0x10,
    BRIN_OP_UPDATE = 0x20,
    BRIN_OP_SAMEPAGE_UPDATE = 0x30,
    BRIN_OP_REVMAP_EXTEND = 0x40,
    BRIN_OP_DESUMMARIZE = 0x50,
    BRIN_OP_MASK = 0x70,
    BRIN_OP_INIT_PAGE = 0x80
};

#define BRIN_SPECIAL_SIZE 8
#define BRIN_TYPE         (PAGE_SIZE - 2)
enum { BRIN_TYPE_META = 0xF091, BRIN_TYPE_REVMAP = 0xF092, BRIN_TYPE_REGULAR = 0xF093 };

/* The meta page, behind the page header. */
enum {
    META_MAGIC = PAGE_HEADER_SIZE,
    META_VERSION = META_MAGIC + 4,
    META_PAGES_PER_RANGE = META_MAGIC + 8,
    META_LAST_REVMAP_PAGE = META_MAGIC + 12,
    META_END = META_MAGIC + 16
};
#define META_MAGIC_VALUE 0xA8109CFA

#define REVMAP_TID_SIZE  6
#define REVMAP_PAGE_TIDS ((PAGE_SIZE - PAGE_HEADER_SIZE - BRIN_SPECIAL_SIZE) / REVMAP_TID_SIZE)

static err_t check_page(struct redo *redo)
{
    TRY(page_check(redo->page, redo->msg));
    if (page_u16(redo->page, PAGE_SPECIAL) != PAGE_SIZE - BRIN_SPECIAL_SIZE) {
        return redo_refuse(redo, "this is no BRIN page");
    }
    return ERR_OK;
}

static void init_page(uint8_t *page, unsigned type)
{
    page_init_zeroed(page, BRIN_SPECIAL_SIZE);
    page_set_u16(page, BRIN_TYPE, (uint16_t)type);
}

static err_t create_index(struct redo *redo)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    uint32_t pages_per_range = cursor_u32(&fields);
    uint32_t version = cursor_u16(&fields);
    if (!cursor_is_good(&fields)) {
        return redo_refuse_short(redo);
    }
    if (redo->block_index != 0) {
        return redo_refuse_block(redo);
    }
    init_page(redo->page, BRIN_TYPE_META);
    page_set_u32(redo->page, META_MAGIC, META_MAGIC_VALUE);
    page_set_u32(redo->page, META_VERSION, version);
    page_set_u32(redo->page, META_PAGES_PER_RANGE, pages_per_range);
    page_set_u16(redo->page, PAGE_LOWER, META_END);
    return ERR_OK;
}

static err_t set_revmap_tid(
    struct redo *redo,
    uint32_t heap_block,
    uint32_t pages_per_range,
    uint32_t tid_block,
    unsigned tid_number)
{
    TRY(check_page(redo));
    if (pages_per_range == 0) {
        return redo_refuse(redo, "a range has no pages");
    }
    size_t index = heap_block / pages_per_range % REVMAP_PAGE_TIDS;
    uint8_t *tid = redo->page + PAGE_HEADER_SIZE + index * REVMAP_TID_SIZE;
    page_set_u16(tid, 0, (uint16_t)(tid_block >> 16));
    page_set_u16(tid, 2, (uint16_t)tid_block);
    page_set_u16(tid, 4, (uint16_t)tid_number);
    return ERR_OK;
}

/* References: 0 the tuple's page, 1 the revmap page, 2 the page that the old tuple leaves. */
static err_t insert_or_update(struct redo *redo)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    bool update = (redo->op & BRIN_OP_MASK) == BRIN_OP_UPDATE;
    unsigned old_number = update ? cursor_u16(&fields) : 0;
    cursor_skip(&fields, update ? 2 : 0);
    uint32_t heap_block = cursor_u32(&fields);
    uint32_t pages_per_range = cursor_u32(&fields);
    unsigned number = cursor_u16(&fields);
    if (!cursor_is_good(&fields)) {
        return redo_refuse_short(redo);
    }
    switch (redo->block_index) {
    case 0:
        if (redo->op & BRIN_OP_INIT_PAGE) {
            init_page(redo->page, BRIN_TYPE_REGULAR);
        }
        return page_add_item(redo->page, redo->block->data, number, PAGE_ADD_OVERWRITE, redo->msg);
    case 1:
        return set_revmap_tid(
            redo, heap_block, pages_per_range, redo_block_number(redo, 0), number);
    case 2:
        return update ? page_index_delete_no_compact(redo->page, old_number, redo->msg)
                      : redo_refuse_block(redo);
    default: return redo_refuse_block(redo);
    }
}

static err_t samepage_update(struct redo *redo)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    unsigned number = cursor_u16(&fields);
    if (!cursor_is_good(&fields)) {
        return redo_refuse_short(redo);
    }
    if (redo->block_index != 0) {
        return redo_refuse_block(redo);
    }
    return page_index_overwrite(redo->page, number, redo->block->data, redo->msg);
}

static err_t revmap_extend(struct redo *redo)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    uint32_t target = cursor_u32(&fields);
    if (!cursor_is_good(&fields)) {
        return redo_refuse_short(redo);
    }
    switch (redo->block_index) {
    case 0:
        TRY(check_page(redo));
        page_set_u32(redo->page, META_LAST_REVMAP_PAGE, target);
        page_set_u16(redo->page, PAGE_LOWER, META_END);
        return ERR_OK;
    case 1: init_page(redo->page, BRIN_TYPE_REVMAP); return ERR_OK;
    default: return redo_refuse_block(redo);
    }
}

static err_t desummarize(struct redo *redo)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    uint32_t pages_per_range = cursor_u32(&fields);
    uint32_t heap_block = cursor_u32(&fields);
    unsigned number = cursor_u16(&fields);
    if (!cursor_is_good(&fields)) {
        return redo_refuse_short(redo);
    }
    switch (redo->block_index) {
    case 0: return set_revmap_tid(redo, heap_block, pages_per_range, UINT32_MAX, 0);
    case 1: return page_index_delete_no_compact(redo->page, number, redo->msg);
    default: return redo_refuse_block(redo);
    }
}

err_t brin_redo(struct redo *redo)
{
    if (redo->block == NULL) {
        return redo_refuse_block(redo);
    }
    switch (redo->op & BRIN_OP_MASK) {
    case BRIN_OP_CREATE_INDEX: return create_index(redo);
    case BRIN_OP_INSERT:
    case BRIN_OP_UPDATE: return insert_or_update(redo);
    case BRIN_OP_SAMEPAGE_UPDATE: return samepage_update(redo);
    case BRIN_OP_REVMAP_EXTEND: return revmap_extend(redo);
    case BRIN_OP_DESUMMARIZE: return desummarize(redo);
    default: return redo_refuse_op(redo);
    }
}
