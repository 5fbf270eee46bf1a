/*
 * gist.c - redo of GiST pages.
 *
 * Source: src/backend/access/gist (gistxlog.c, gistutil.c), src/include/access/gist.h of
 * Postgres 17. A split leaves "follow right" on the left page until its downlink is in the parent;
 * then the record that inserts the downlink also gives the left page its node sequence number
 * (NSN), which is the end LSN of that record.
 */
#include "pageserver/redo/redo_private.h"

enum {
    GIST_OP_PAGE_UPDATE = 0x00,
    GIST_OP_DELETE = 0x10,
    GIST_OP_PAGE_REUSE = 0x20,
    GIST_OP_PAGE_SPLIT = 0x30,
    GIST_OP_PAGE_DELETE = 0x60,
    GIST_OP_ASSIGN_LSN = 0x70
};

#define GIST_SPECIAL_SIZE 16
enum {
    GIST_NSN = PAGE_SIZE - GIST_SPECIAL_SIZE, /* u32 high half, u32 low half */
    GIST_RIGHT_LINK = GIST_NSN + 8,
    GIST_FLAGS = GIST_NSN + 12,
    GIST_PAGE_ID = GIST_NSN + 14
};
enum {
    GIST_LEAF = 1,
    GIST_DELETED = 2,
    GIST_TUPLES_DELETED = 4,
    GIST_FOLLOW_RIGHT = 8,
    GIST_HAS_GARBAGE = 16
};
#define GIST_PAGE_ID_VALUE 0xFF81
#define GIST_ROOT_BLOCK    0

static err_t check_page(struct redo *redo)
{
    TRY(page_check(redo->page, redo->msg));
    if (page_u16(redo->page, PAGE_SPECIAL) != GIST_NSN) {
        return redo_refuse(redo, "this is no GiST page");
    }
    return ERR_OK;
}

static void set_flags(uint8_t *page, unsigned clear, unsigned set)
{
    page_set_u16(page, GIST_FLAGS, (uint16_t)((page_u16(page, GIST_FLAGS) & ~clear) | set));
}

static void set_nsn(uint8_t *page, uint64_t nsn)
{
    page_set_u32(page, GIST_NSN, (uint32_t)(nsn >> 32));
    page_set_u32(page, GIST_NSN + 4, (uint32_t)nsn);
}

static err_t clear_follow_right(struct redo *redo)
{
    TRY(check_page(redo));
    set_nsn(redo->page, redo->record->end_lsn);
    set_flags(redo->page, GIST_FOLLOW_RIGHT, 0);
    return ERR_OK;
}

/* Append the tuples that `data` holds, one behind the other. */
static err_t append_tuples(struct redo *redo, struct cursor *data)
{
    unsigned number = page_item_count(redo->page) + 1;
    while (data->left > 0) {
        struct bytes tuple = index_tuple_read(data);
        if (!cursor_is_good(data)) {
            return redo_refuse_short(redo);
        }
        TRY(page_add_item(redo->page, tuple, number++, 0, redo->msg));
    }
    return ERR_OK;
}

static err_t page_update(struct redo *redo)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    size_t delete_count = cursor_u16(&fields);
    size_t insert_count = cursor_u16(&fields);
    if (!cursor_is_good(&fields)) {
        return redo_refuse_short(redo);
    }
    if (redo->block_index == 1) {
        return clear_follow_right(redo);
    }
    if (redo->block_index != 0) {
        return redo_refuse_block(redo);
    }
    TRY(check_page(redo));
    struct cursor data = cursor_of(redo->block->data);
    struct bytes deleted = cursor_array(&data, delete_count, 2);
    if (!cursor_is_good(&data)) {
        return redo_refuse_short(redo);
    }
    if (delete_count == 1 && insert_count == 1) {
        struct bytes tuple = index_tuple_read(&data);
        if (!cursor_is_good(&data)) {
            return redo_refuse_short(redo);
        }
        TRY(page_index_overwrite(redo->page, le_u16(deleted.data), tuple, redo->msg));
    } else if (delete_count > 0) {
        TRY(page_index_delete_many(redo->page, deleted, redo->msg));
        if (page_u16(redo->page, GIST_FLAGS) & GIST_LEAF) {
            set_flags(redo->page, 0, GIST_TUPLES_DELETED);
        }
    }
    return append_tuples(redo, &data);
}

static err_t delete (struct redo *redo)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    cursor_skip(&fields, 4); /* xid for hot standby */
    size_t count = cursor_u16(&fields);
    cursor_skip(&fields, 2);
    struct bytes numbers = cursor_array(&fields, count, 2);
    if (!cursor_is_good(&fields)) {
        return redo_refuse_short(redo);
    }
    if (redo->block_index != 0) {
        return redo_refuse_block(redo);
    }
    TRY(check_page(redo));
    TRY(page_index_delete_many(redo->page, numbers, redo->msg));
    set_flags(redo->page, GIST_HAS_GARBAGE, GIST_TUPLES_DELETED);
    return ERR_OK;
}

/* References: 0 the left child whose split this finishes, if any; then the pages, left to right. */
static err_t page_split(struct redo *redo)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    uint32_t right_link = cursor_u32(&fields);
    cursor_skip(&fields, 4);
    uint64_t nsn = cursor_u64(&fields);
    bool leaf = cursor_u8(&fields) != 0;
    cursor_skip(&fields, 1);
    unsigned page_count = cursor_u16(&fields);
    bool follow_right = cursor_u8(&fields) != 0;
    if (!cursor_is_good(&fields)) {
        return redo_refuse_short(redo);
    }
    if (redo->block_index == 0) {
        return clear_follow_right(redo);
    }
    if (redo->block_index > page_count) {
        return redo_refuse_block(redo);
    }
    bool is_root = redo->key.block == GIST_ROOT_BLOCK;
    bool is_last = redo->block_index == page_count;
    bool root_split = redo_block_number(redo, 1) == GIST_ROOT_BLOCK;
    if (is_root) {
        right_link = UINT32_MAX;
    } else if (!is_last) {
        right_link = redo_block_number(redo, redo->block_index + 1u);
    }
    follow_right = follow_right && !is_root && !is_last && !root_split;
    page_init_zeroed(redo->page, GIST_SPECIAL_SIZE);
    page_set_u32(redo->page, GIST_RIGHT_LINK, right_link);
    page_set_u16(redo->page, GIST_PAGE_ID, GIST_PAGE_ID_VALUE);
    set_nsn(redo->page, nsn);
    set_flags(
        redo->page, 0, (leaf && !is_root ? GIST_LEAF : 0) | (follow_right ? GIST_FOLLOW_RIGHT : 0));
    struct cursor data = cursor_of(redo->block->data);
    cursor_skip(&data, 4); /* how many */
    if (!cursor_is_good(&data)) {
        return redo_refuse_short(redo);
    }
    return append_tuples(redo, &data);
}

static err_t page_delete(struct redo *redo)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    uint64_t xid = cursor_u64(&fields);
    unsigned number = cursor_u16(&fields);
    if (!cursor_is_good(&fields)) {
        return redo_refuse_short(redo);
    }
    TRY(check_page(redo));
    switch (redo->block_index) {
    case 0:
        set_flags(redo->page, 0, GIST_DELETED);
        page_set_u32(redo->page, PAGE_HEADER_SIZE, (uint32_t)xid);
        page_set_u32(redo->page, PAGE_HEADER_SIZE + 4, (uint32_t)(xid >> 32));
        page_set_u16(redo->page, PAGE_LOWER, PAGE_HEADER_SIZE + 8);
        return ERR_OK;
    case 1: return page_index_delete(redo->page, number, redo->msg);
    default: return redo_refuse_block(redo);
    }
}

err_t gist_redo(struct redo *redo)
{
    if (redo->block == NULL) {
        return redo_refuse_block(redo);
    }
    switch (redo->op) {
    case GIST_OP_PAGE_UPDATE: return page_update(redo);
    case GIST_OP_DELETE: return delete (redo);
    case GIST_OP_PAGE_SPLIT: return page_split(redo);
    case GIST_OP_PAGE_DELETE: return page_delete(redo);
    case GIST_OP_PAGE_REUSE: /* for hot standby only */
    case GIST_OP_ASSIGN_LSN: return redo_refuse_block(redo);
    default: return redo_refuse_op(redo);
    }
}

/* The image of a left child was taken before its flag and NSN changed. */
err_t gist_redo_after_image(struct redo *redo)
{
    bool left_child = (redo->op == GIST_OP_PAGE_UPDATE && redo->block_index == 1) ||
                      (redo->op == GIST_OP_PAGE_SPLIT && redo->block_index == 0);
    return left_child ? clear_follow_right(redo) : ERR_OK;
}
