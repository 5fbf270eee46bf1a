/*
 * heap2.c - redo of the second heap resource manager: prune and freeze, visibility, many inserts.
 *
 * Source: src/backend/access/heap/heapam.c, pruneheap.c, heapdesc.c of Postgres 17.
 */
#include "pageserver/redo/heap_tuple.h"
#include "pageserver/redo/visibility_map.h"

enum {
    HEAP2_OP_REWRITE = 0x00,
    HEAP2_OP_PRUNE_ON_ACCESS = 0x10,
    HEAP2_OP_PRUNE_VACUUM_SCAN = 0x20,
    HEAP2_OP_PRUNE_VACUUM_CLEANUP = 0x30,
    HEAP2_OP_VISIBLE = 0x40,
    HEAP2_OP_MULTI_INSERT = 0x50,
    HEAP2_OP_LOCK_UPDATED = 0x60,
    HEAP2_OP_NEW_CID = 0x70,
    HEAP2_OP_MASK = 0x70,
    HEAP2_OP_INIT_PAGE = 0x80
};

enum {
    PRUNE_CLEANUP_LOCK = 0x04, /* items may move */
    PRUNE_HAS_FREEZE_PLANS = 0x10,
    PRUNE_HAS_REDIRECTIONS = 0x20,
    PRUNE_HAS_DEAD_ITEMS = 0x40,
    PRUNE_HAS_UNUSED_ITEMS = 0x80
};
enum { FREEZE_XVAC = 0x02, INVALID_XVAC = 0x04 };
enum { INSERT_ALL_VISIBLE_CLEARED = 0x01, INSERT_ALL_FROZEN_SET = 0x20 };
enum { LOCK_ALL_FROZEN_CLEARED = 0x01 };

#define FREEZE_PLAN_SIZE 12
#define XID_FROZEN       2

/* The parts of a prune record, in the order in which they stand in the block's data. */
struct prune {
    unsigned flags;
    struct bytes plans;      /* FREEZE_PLAN_SIZE each */
    struct bytes redirected; /* pairs of u16: from, to */
    struct bytes dead;       /* u16 */
    struct bytes unused;     /* u16 */
    struct bytes frozen;     /* u16: for each plan as many as it says */
};

static struct bytes read_items(struct cursor *data, bool has, size_t size)
{
    size_t count = has ? cursor_u16(data) : 0;
    return cursor_array(data, count, size);
}

static err_t read_prune(struct redo *redo, struct prune *ret_prune)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    cursor_skip(&fields, 1); /* why it was written */
    unsigned flags = cursor_u8(&fields);
    struct cursor data = cursor_of(redo->block->data);
    *ret_prune = (struct prune){.flags = flags};
    if (flags & PRUNE_HAS_FREEZE_PLANS) {
        size_t count = cursor_u16(&data);
        cursor_skip(&data, 2);
        ret_prune->plans = cursor_array(&data, count, FREEZE_PLAN_SIZE);
    }
    ret_prune->redirected = read_items(&data, flags & PRUNE_HAS_REDIRECTIONS, 4);
    ret_prune->dead = read_items(&data, flags & PRUNE_HAS_DEAD_ITEMS, 2);
    ret_prune->unused = read_items(&data, flags & PRUNE_HAS_UNUSED_ITEMS, 2);
    ret_prune->frozen = cursor_bytes(&data, data.left);
    if (!cursor_is_good(&fields) || !cursor_is_good(&data)) {
        return redo_refuse_short(redo);
    }
    return ERR_OK;
}

/* Give line pointer `number` another state; its tuple, if any, loses its place. */
static err_t set_line_pointer(
    struct redo *redo, unsigned number, unsigned offset, enum line_pointer_state state)
{
    if (number == 0 || number > page_item_count(redo->page)) {
        return err_set(
            redo->msg, ERR_CORRUPT, "item %u of %u is pruned", number, page_item_count(redo->page));
    }
    page_set_line_pointer(redo->page, number, line_pointer_make(offset, state, 0));
    return ERR_OK;
}

static err_t prune_items(struct redo *redo, const struct prune *prune)
{
    for (size_t at = 0; at < prune->redirected.size; at += 4) {
        unsigned to = le_u16(prune->redirected.data + at + 2);
        if (to == 0 || to > page_item_count(redo->page)) {
            return redo_refuse(redo, "a redirection to no item");
        }
        TRY(set_line_pointer(redo, le_u16(prune->redirected.data + at), to, LP_REDIRECT));
    }
    for (size_t at = 0; at < prune->dead.size; at += 2) {
        TRY(set_line_pointer(redo, le_u16(prune->dead.data + at), 0, LP_DEAD));
    }
    for (size_t at = 0; at < prune->unused.size; at += 2) {
        TRY(set_line_pointer(redo, le_u16(prune->unused.data + at), 0, LP_UNUSED));
    }
    if (prune->flags & PRUNE_CLEANUP_LOCK) {
        return page_repair_fragmentation(redo->page, redo->msg);
    }
    page_truncate_line_pointers(redo->page);
    return ERR_OK;
}

/* How a plan leaves each of its tuples. */
struct freeze {
    uint32_t xmax;
    uint16_t infomask2, infomask;
    unsigned flags;
};

static err_t freeze_tuple(struct redo *redo, const struct freeze *freeze, unsigned number)
{
    uint8_t *tuple = NULL;
    size_t size = 0;
    TRY(heap_tuple(redo, number, &tuple, &size));
    page_set_u32(tuple, TUPLE_XMAX, freeze->xmax);
    if (freeze->flags & (FREEZE_XVAC | INVALID_XVAC)) {
        page_set_u32(tuple, TUPLE_CID, freeze->flags & INVALID_XVAC ? 0 : XID_FROZEN);
    }
    page_set_u16(tuple, TUPLE_INFOMASK, freeze->infomask);
    page_set_u16(tuple, TUPLE_INFOMASK2, freeze->infomask2);
    return ERR_OK;
}

static err_t freeze_by_plan(struct redo *redo, struct cursor *plans, struct cursor *numbers)
{
    struct freeze freeze = {.xmax = cursor_u32(plans)};
    freeze.infomask2 = cursor_u16(plans);
    freeze.infomask = cursor_u16(plans);
    freeze.flags = cursor_u8(plans);
    cursor_skip(plans, 1);
    for (unsigned count = cursor_u16(plans); count > 0; count--) {
        TRY(freeze_tuple(redo, &freeze, cursor_u16(numbers)));
    }
    return ERR_OK;
}

static err_t freeze_tuples(struct redo *redo, const struct prune *prune)
{
    struct cursor plans = cursor_of(prune->plans);
    struct cursor numbers = cursor_of(prune->frozen);
    while (plans.left > 0) {
        TRY(freeze_by_plan(redo, &plans, &numbers));
    }
    return ERR_OK;
}

static err_t prune(struct redo *redo)
{
    if (!heap_is_block(redo, 0)) {
        return redo_refuse_block(redo);
    }
    struct prune prune;
    TRY(read_prune(redo, &prune));
    TRY(page_check(redo->page, redo->msg));
    if (prune.redirected.size > 0 || prune.dead.size > 0 || prune.unused.size > 0) {
        TRY(prune_items(redo, &prune));
    }
    return freeze_tuples(redo, &prune);
}

/* Reference 0 is the map page, 1 the heap page. */
static err_t visible(struct redo *redo)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    cursor_skip(&fields, 4); /* xid for hot standby */
    unsigned bits = cursor_u8(&fields) & VM_ALL;
    if (!cursor_is_good(&fields)) {
        return redo_refuse_short(redo);
    }
    if (redo->block_index == 1) {
        /* pd_lsn moves too: wal_log_hints is always on for computes. */
        heap_set_all_visible(redo->page);
        return ERR_OK;
    }
    uint32_t heap_block = redo_block_number(redo, 1);
    if (redo->block_index != 0 || !vm_covers(redo->key.block, heap_block)) {
        return redo_refuse_block(redo);
    }
    if (page_is_new(redo->page)) {
        page_init(redo->page, 0);
    }
    redo->keep_lsn = !vm_set(redo->page, heap_block, bits);
    return ERR_OK;
}

static err_t multi_insert(struct redo *redo)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    unsigned flags = cursor_u8(&fields);
    cursor_skip(&fields, 1);
    unsigned count = cursor_u16(&fields);
    bool init = (redo->op & HEAP2_OP_INIT_PAGE) != 0;
    struct bytes numbers = cursor_array(&fields, init ? 0 : count, 2);
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
    if (init) {
        page_init_zeroed(redo->page, 0);
    }
    struct cursor data = cursor_of(redo->block->data);
    for (unsigned i = 0; i < count; i++) {
        cursor_skip(&data, (redo->block->data.size - data.left) % 2); /* each starts aligned */
        size_t data_size = cursor_u16(&data);
        struct tuple_header header = {.infomask2 = cursor_u16(&data)};
        header.infomask = cursor_u16(&data);
        header.hoff = cursor_u8(&data);
        struct bytes user = cursor_bytes(&data, data_size);
        if (!cursor_is_good(&data)) {
            return redo_refuse_short(redo);
        }
        size_t size = TUPLE_HEADER_SIZE + user.size;
        if (size > TUPLE_SIZE_MAX || header.hoff < TUPLE_HEADER_SIZE || header.hoff > size) {
            return redo_refuse(redo, "the tuple's size is out of range");
        }
        unsigned number = init ? i + 1 : le_u16(numbers.data + 2 * (size_t)i);
        uint8_t *tuple = NULL;
        TRY(page_add_room(
            redo->page, size, number, PAGE_ADD_OVERWRITE | PAGE_ADD_HEAP, &tuple, redo->msg));
        tuple_write_header(redo, tuple, header, redo->key.block, number);
        memcpy(tuple + TUPLE_HEADER_SIZE, user.data, user.size);
    }
    if (data.left != 0) {
        return redo_refuse(redo, "bytes are left behind the last tuple");
    }
    if (flags & INSERT_ALL_VISIBLE_CLEARED) {
        heap_clear_all_visible(redo->page);
    }
    if (flags & INSERT_ALL_FROZEN_SET) {
        heap_set_all_visible(redo->page);
    }
    return ERR_OK;
}

static err_t lock_updated(struct redo *redo)
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
    page_set_u32(tuple, TUPLE_XMAX, lock.xmax);
    return ERR_OK;
}

err_t heap2_redo(struct redo *redo)
{
    switch (redo->op & HEAP2_OP_MASK) {
    case HEAP2_OP_PRUNE_ON_ACCESS:
    case HEAP2_OP_PRUNE_VACUUM_SCAN:
    case HEAP2_OP_PRUNE_VACUUM_CLEANUP: return prune(redo);
    case HEAP2_OP_VISIBLE: return visible(redo);
    case HEAP2_OP_MULTI_INSERT: return multi_insert(redo);
    case HEAP2_OP_LOCK_UPDATED: return lock_updated(redo);
    case HEAP2_OP_NEW_CID: /* for logical decoding only */
    case HEAP2_OP_REWRITE: return redo_refuse_block(redo);
    default: return redo_refuse_op(redo);
    }
}
