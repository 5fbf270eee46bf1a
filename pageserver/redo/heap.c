/*
 * heap.c - redo of the first heap resource manager: one tuple at a time.
 *
 * Source: src/backend/access/heap/heapam.c of Postgres 17. A record that clears visibility map
 * bits names the map page as a reference; those of older minor versions imply it.
 */
#include "pageserver/redo/heap_tuple.h"
#include "pageserver/redo/visibility_map.h"

/* Operations; 0x80 says that the page is new. */
enum {
    HEAP_OP_INSERT = 0x00,
    HEAP_OP_DELETE = 0x10,
    HEAP_OP_UPDATE = 0x20,
    HEAP_OP_TRUNCATE = 0x30,
    HEAP_OP_HOT_UPDATE = 0x40,
    HEAP_OP_CONFIRM = 0x50,
    HEAP_OP_LOCK = 0x60,
    HEAP_OP_INPLACE = 0x70,
    HEAP_OP_MASK = 0x70,
    HEAP_OP_INIT_PAGE = 0x80
};

enum { INSERT_ALL_VISIBLE_CLEARED = 0x01 };
enum { DELETE_ALL_VISIBLE_CLEARED = 0x01, DELETE_IS_SUPER = 0x08, DELETE_IS_PARTITION_MOVE = 0x10 };
enum {
    UPDATE_OLD_ALL_VISIBLE_CLEARED = 0x01,
    UPDATE_NEW_ALL_VISIBLE_CLEARED = 0x02,
    UPDATE_PREFIX_FROM_OLD = 0x20,
    UPDATE_SUFFIX_FROM_OLD = 0x40
};
enum { LOCK_ALL_FROZEN_CLEARED = 0x01 };

/* t_ctid of a tuple whose next version went to another partition. */
#define MOVED_PARTITIONS_BLOCK  UINT32_MAX
#define MOVED_PARTITIONS_NUMBER 0xFFFD

static struct tuple_header read_tuple_header(struct cursor *data)
{
    struct tuple_header header = {.infomask2 = cursor_u16(data)};
    header.infomask = cursor_u16(data);
    header.hoff = cursor_u8(data);
    return header;
}

static err_t insert(struct redo *redo)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    unsigned number = cursor_u16(&fields);
    unsigned flags = cursor_u8(&fields);
    if (!cursor_is_good(&fields)) {
        return redo_refuse_short(redo);
    }
    if (redo->key.fork == FORK_VM && redo->block_index != 0) {
        return flags & INSERT_ALL_VISIBLE_CLEARED ? heap_clear_vm(redo, VM_ALL)
                                                  : redo_refuse_block(redo);
    }
    if (!heap_is_block(redo, 0)) {
        return redo_refuse_block(redo);
    }
    struct cursor data = cursor_of(redo->block->data);
    struct tuple_header header = read_tuple_header(&data);
    if (!cursor_is_good(&data) || data.left == 0) {
        return redo_refuse_short(redo);
    }
    size_t size = TUPLE_HEADER_SIZE + data.left;
    if (size > TUPLE_SIZE_MAX || header.hoff < TUPLE_HEADER_SIZE || header.hoff > size) {
        return redo_refuse(redo, "the tuple's size is out of range");
    }
    if (redo->op & HEAP_OP_INIT_PAGE) {
        page_init_zeroed(redo->page, 0);
    }
    uint8_t *tuple = NULL;
    TRY(page_add_room(
        redo->page, size, number, PAGE_ADD_OVERWRITE | PAGE_ADD_HEAP, &tuple, redo->msg));
    tuple_write_header(redo, tuple, header, redo->key.block, number);
    memcpy(tuple + TUPLE_HEADER_SIZE, data.at, data.left);
    if (flags & INSERT_ALL_VISIBLE_CLEARED) {
        heap_clear_all_visible(redo->page);
    }
    return ERR_OK;
}

static err_t delete (struct redo *redo)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    uint32_t xmax = cursor_u32(&fields);
    unsigned number = cursor_u16(&fields);
    unsigned infobits = cursor_u8(&fields);
    unsigned flags = cursor_u8(&fields);
    if (!cursor_is_good(&fields)) {
        return redo_refuse_short(redo);
    }
    if (redo->key.fork == FORK_VM && redo->block_index != 0) {
        return flags & DELETE_ALL_VISIBLE_CLEARED ? heap_clear_vm(redo, VM_ALL)
                                                  : redo_refuse_block(redo);
    }
    if (!heap_is_block(redo, 0)) {
        return redo_refuse_block(redo);
    }
    uint8_t *tuple = NULL;
    size_t size = 0;
    TRY(heap_tuple(redo, number, &tuple, &size));
    tuple_apply_infobits(tuple, infobits);
    page_set_u16(
        tuple, TUPLE_INFOMASK2, page_u16(tuple, TUPLE_INFOMASK2) & (uint16_t)~HEAP_HOT_UPDATED);
    if (flags & DELETE_IS_SUPER) {
        page_set_u32(tuple, TUPLE_XMIN, 0); /* a speculative insertion is taken back */
    } else {
        page_set_u32(tuple, TUPLE_XMAX, xmax);
    }
    tuple_clear_command_id(tuple);
    heap_set_prunable(redo);
    if (flags & DELETE_ALL_VISIBLE_CLEARED) {
        heap_clear_all_visible(redo->page);
    }
    if (flags & DELETE_IS_PARTITION_MOVE) {
        tuple_set_ctid(tuple, MOVED_PARTITIONS_BLOCK, MOVED_PARTITIONS_NUMBER);
    } else {
        tuple_set_ctid(tuple, redo->key.block, number);
    }
    return ERR_OK;
}

struct update {
    uint32_t old_xmax, new_xmax;
    unsigned old_number, new_number;
    unsigned old_infobits, flags;
    uint32_t old_block, new_block;
};

/* References: 0 the new page, 1 the old page when it is another, 2 and 3 the map pages of both. */
enum { UPDATE_NEW = 0, UPDATE_OLD = 1, UPDATE_VM_NEW = 2, UPDATE_VM_OLD = 3 };

static err_t read_update(struct redo *redo, struct update *ret_update)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    ret_update->old_xmax = cursor_u32(&fields);
    ret_update->old_number = cursor_u16(&fields);
    ret_update->old_infobits = cursor_u8(&fields);
    ret_update->flags = cursor_u8(&fields);
    ret_update->new_xmax = cursor_u32(&fields);
    ret_update->new_number = cursor_u16(&fields);
    if (!cursor_is_good(&fields)) {
        return redo_refuse_short(redo);
    }
    ret_update->new_block = redo_block_number(redo, UPDATE_NEW);
    ret_update->old_block = redo_block_number(redo, UPDATE_OLD);
    if (ret_update->old_block == UINT32_MAX) {
        ret_update->old_block = ret_update->new_block;
    }
    return ERR_OK;
}

/*
 * Which of the two heap blocks loses its bits on this map page: reference VM_NEW is the new block's
 * page and, when the old block lies on it, the old one's too; VM_OLD is the old block's; no
 * reference: both as the flags say.
 */
static err_t update_vm(struct redo *redo, const struct update *update)
{
    uint32_t map_block = redo->key.block;
    bool implied = redo->block == NULL;
    bool old = update->flags & UPDATE_OLD_ALL_VISIBLE_CLEARED &&
               vm_covers(map_block, update->old_block) && redo->block_index >= UPDATE_VM_NEW;
    bool new =
        update->flags &UPDATE_NEW_ALL_VISIBLE_CLEARED &&vm_covers(map_block, update->new_block) &&
        (implied || redo->block_index == UPDATE_VM_NEW);
    if ((!old && !new) || (!new && redo->block_index == UPDATE_VM_NEW)) {
        return redo_refuse(redo, "the visibility map page is not that of the heap blocks");
    }
    bool cleared = old && vm_clear(redo->page, update->old_block, VM_ALL);
    cleared = (new &&vm_clear(redo->page, update->new_block, VM_ALL)) || cleared;
    redo->keep_lsn = implied || !cleared;
    return ERR_OK;
}

static err_t update_old(
    struct redo *redo, const struct update *update, uint8_t **ret_tuple, size_t *ret_size)
{
    uint8_t *tuple = NULL;
    size_t size = 0;
    TRY(heap_tuple(redo, update->old_number, &tuple, &size));
    tuple_apply_infobits(tuple, update->old_infobits);
    unsigned mask2 = page_u16(tuple, TUPLE_INFOMASK2) & ~(unsigned)HEAP_HOT_UPDATED;
    if ((redo->op & HEAP_OP_MASK) == HEAP_OP_HOT_UPDATE) {
        mask2 |= HEAP_HOT_UPDATED;
    }
    page_set_u16(tuple, TUPLE_INFOMASK2, (uint16_t)mask2);
    page_set_u32(tuple, TUPLE_XMAX, update->old_xmax);
    tuple_clear_command_id(tuple);
    tuple_set_ctid(tuple, update->new_block, update->new_number);
    heap_set_prunable(redo);
    if (update->flags & UPDATE_OLD_ALL_VISIBLE_CLEARED) {
        heap_clear_all_visible(redo->page);
    }
    *ret_tuple = tuple;
    *ret_size = size;
    return ERR_OK;
}

/* The new tuple: header and null bitmap of the record; user data = prefix, what is logged, suffix.
 */
static err_t update_new(
    struct redo *redo, const struct update *update, const uint8_t *old_tuple, size_t old_size)
{
    struct cursor data = cursor_of(redo->block->data);
    size_t prefix = update->flags & UPDATE_PREFIX_FROM_OLD ? cursor_u16(&data) : 0;
    size_t suffix = update->flags & UPDATE_SUFFIX_FROM_OLD ? cursor_u16(&data) : 0;
    struct tuple_header header = read_tuple_header(&data);
    if (!cursor_is_good(&data)) {
        return redo_refuse_short(redo);
    }
    size_t size = TUPLE_HEADER_SIZE + prefix + data.left + suffix;
    if (data.left > TUPLE_SIZE_MAX || size > TUPLE_SIZE_MAX || header.hoff < TUPLE_HEADER_SIZE ||
        header.hoff > size) {
        return redo_refuse(redo, "the tuple's size is out of range");
    }
    size_t old_user_size = old_tuple != NULL ? old_size - old_tuple[TUPLE_HOFF] : 0;
    if (prefix > old_user_size || suffix > old_user_size) {
        return redo_refuse(redo, "prefix or suffix is longer than the old tuple");
    }
    uint8_t *tuple = NULL;
    TRY(page_add_room(
        redo->page, size, update->new_number, PAGE_ADD_OVERWRITE | PAGE_ADD_HEAP, &tuple,
        redo->msg));
    tuple_write_header(redo, tuple, header, update->new_block, update->new_number);
    page_set_u32(tuple, TUPLE_XMAX, update->new_xmax);
    uint8_t *to = tuple + TUPLE_HEADER_SIZE;
    if (prefix > 0) {
        struct bytes bitmap = cursor_bytes(&data, header.hoff - TUPLE_HEADER_SIZE);
        if (!cursor_is_good(&data)) {
            return redo_refuse_short(redo);
        }
        if (bitmap.size > 0) {
            memcpy(to, bitmap.data, bitmap.size);
        }
        to += bitmap.size;
        memcpy(to, old_tuple + old_tuple[TUPLE_HOFF], prefix);
        to += prefix;
    }
    if (data.left > 0) {
        memcpy(to, data.at, data.left);
    }
    if (suffix > 0) {
        memcpy(to + data.left, old_tuple + old_size - suffix, suffix);
    }
    if (update->flags & UPDATE_NEW_ALL_VISIBLE_CLEARED) {
        heap_clear_all_visible(redo->page);
    }
    return ERR_OK;
}

static err_t update(struct redo *redo)
{
    struct update update = {.flags = 0};
    TRY(read_update(redo, &update));
    if (redo->key.fork == FORK_VM && redo->block_index >= UPDATE_VM_NEW) {
        return update_vm(redo, &update);
    }
    uint8_t *old_tuple = NULL;
    size_t old_size = 0;
    if (redo->block_index == UPDATE_OLD) {
        return update_old(redo, &update, &old_tuple, &old_size);
    }
    if (redo->block_index != UPDATE_NEW) {
        return redo_refuse_block(redo);
    }
    if (update.old_block == update.new_block) {
        TRY(update_old(redo, &update, &old_tuple, &old_size));
    } else if (redo->op & HEAP_OP_INIT_PAGE) {
        page_init_zeroed(redo->page, 0);
    }
    return update_new(redo, &update, old_tuple, old_size);
}

static err_t confirm(struct redo *redo)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    unsigned number = cursor_u16(&fields);
    if (!cursor_is_good(&fields)) {
        return redo_refuse_short(redo);
    }
    if (!heap_is_block(redo, 0)) {
        return redo_refuse_block(redo);
    }
    uint8_t *tuple = NULL;
    size_t size = 0;
    TRY(heap_tuple(redo, number, &tuple, &size));
    tuple_set_ctid(tuple, redo->key.block, number);
    return ERR_OK;
}

static err_t lock(struct redo *redo)
{
    struct heap_lock lock = {.number = 0};
    TRY(heap_lock_read(redo, &lock));
    if (redo->key.fork == FORK_VM && redo->block_index != 0) {
        return lock.flags & LOCK_ALL_FROZEN_CLEARED ? heap_clear_vm(redo, VM_ALL_FROZEN)
                                                    : redo_refuse_block(redo);
    }
    if (!heap_is_block(redo, 0)) {
        return redo_refuse_block(redo);
    }
    uint8_t *tuple = NULL;
    size_t size = 0;
    TRY(heap_tuple(redo, lock.number, &tuple, &size));
    tuple_apply_infobits(tuple, lock.infobits);
    if (tuple_is_locked_only(tuple)) {
        page_set_u16(
            tuple, TUPLE_INFOMASK2, page_u16(tuple, TUPLE_INFOMASK2) & (uint16_t)~HEAP_HOT_UPDATED);
        tuple_set_ctid(tuple, redo->key.block, lock.number);
    }
    page_set_u32(tuple, TUPLE_XMAX, lock.xmax);
    tuple_clear_command_id(tuple);
    return ERR_OK;
}

static err_t inplace(struct redo *redo)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    unsigned number = cursor_u16(&fields);
    if (!cursor_is_good(&fields)) {
        return redo_refuse_short(redo);
    }
    if (!heap_is_block(redo, 0)) {
        return redo_refuse_block(redo);
    }
    uint8_t *tuple = NULL;
    size_t size = 0;
    TRY(heap_tuple(redo, number, &tuple, &size));
    struct bytes data = redo->block->data;
    if (data.size != size - tuple[TUPLE_HOFF]) {
        return redo_refuse(redo, "the tuple has another length");
    }
    if (data.size > 0) {
        memcpy(tuple + tuple[TUPLE_HOFF], data.data, data.size);
    }
    return ERR_OK;
}

err_t heap_redo(struct redo *redo)
{
    switch (redo->op & HEAP_OP_MASK) {
    case HEAP_OP_INSERT: return insert(redo);
    case HEAP_OP_DELETE: return delete (redo);
    case HEAP_OP_UPDATE:
    case HEAP_OP_HOT_UPDATE: return update(redo);
    case HEAP_OP_CONFIRM: return confirm(redo);
    case HEAP_OP_LOCK: return lock(redo);
    case HEAP_OP_INPLACE: return inplace(redo);
    case HEAP_OP_TRUNCATE: return redo_refuse_block(redo); /* for logical decoding only */
    default: return redo_refuse_op(redo);
    }
}
