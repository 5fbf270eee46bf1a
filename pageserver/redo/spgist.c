/*
 * spgist.c - redo of SP-GiST pages.
 *
 * Source: src/backend/access/spgist (spgxlog.c, spgdoinsert.c, spgutils.c), spgist_private.h of
 * Postgres 17. Tuples keep their numbers: one that moves away leaves a redirection or a placeholder
 * behind, and new ones take over placeholders.
 */
#include "pageserver/redo/redo_private.h"

enum {
    SPGIST_OP_ADD_LEAF = 0x10,
    SPGIST_OP_MOVE_LEAFS = 0x20,
    SPGIST_OP_ADD_NODE = 0x30,
    SPGIST_OP_SPLIT_TUPLE = 0x40,
    SPGIST_OP_PICK_SPLIT = 0x50,
    SPGIST_OP_VACUUM_LEAF = 0x60,
    SPGIST_OP_VACUUM_ROOT = 0x70,
    SPGIST_OP_VACUUM_REDIRECT = 0x80
};

#define SPGIST_SPECIAL_SIZE 8
enum {
    SPGIST_FLAGS = PAGE_SIZE - SPGIST_SPECIAL_SIZE,
    SPGIST_REDIRECTIONS = SPGIST_FLAGS + 2,
    SPGIST_PLACEHOLDERS = SPGIST_FLAGS + 4,
    SPGIST_PAGE_ID = SPGIST_FLAGS + 6
};
enum { SPGIST_LEAF = 4, SPGIST_NULLS = 8 };
#define SPGIST_PAGE_ID_VALUE 0xFF82

/* The two low bits of every tuple. */
enum { TUPLE_LIVE = 0, TUPLE_REDIRECT = 1, TUPLE_DEAD = 2, TUPLE_PLACEHOLDER = 3 };

/* A leaf tuple: u32 state and size, u16 next in chain, TID. A dead tuple: the same, then a xid. */
enum { LEAF_NEXT = 4, DEAD_POINTER = 6, DEAD_XID = 12 };
#define LEAF_HEADER_SIZE 12
#define DEAD_SIZE        16
#define NEXT_MASK        0x3FFF

/* An inner tuple: u32 state, node count and prefix size, u16 size; prefix; nodes. */
enum { INNER_SIZE = 4 };
#define INNER_HEADER_SIZE 8

/* How a record says what to leave behind for a deleted tuple. */
struct leftover {
    uint32_t xid;
    bool is_build; /* nobody can be on the way: no redirections */
};

/* Where a link to a lower page is: node `node` of inner tuple `number`. */
struct parent {
    unsigned number, node;
};

static err_t check_page(struct redo *redo)
{
    TRY(page_check(redo->page, redo->msg));
    if (page_u16(redo->page, PAGE_SPECIAL) != SPGIST_FLAGS) {
        return redo_refuse(redo, "this is no SP-GiST page");
    }
    return ERR_OK;
}

static void init_page(uint8_t *page, unsigned flags)
{
    page_init_zeroed(page, SPGIST_SPECIAL_SIZE);
    page_set_u16(page, SPGIST_FLAGS, (uint16_t)flags);
    page_set_u16(page, SPGIST_PAGE_ID, SPGIST_PAGE_ID_VALUE);
}

static void add_to_counter(uint8_t *page, size_t at, int change)
{
    page_set_u16(page, at, (uint16_t)(page_u16(page, at) + change));
}

static unsigned tuple_state(const uint8_t *tuple)
{
    return page_u32(tuple, 0) & 3;
}

/* The next leaf or inner tuple of a record; the cursor goes bad when there is none. */
static struct bytes read_leaf(struct cursor *data)
{
    size_t size = data->left >= LEAF_HEADER_SIZE ? page_u32(data->at, 0) >> 2 : SIZE_MAX;
    return cursor_bytes(data, size < LEAF_HEADER_SIZE ? SIZE_MAX : size);
}

static struct bytes read_inner(struct cursor *data)
{
    size_t size = data->left >= INNER_HEADER_SIZE ? page_u16(data->at, INNER_SIZE) : SIZE_MAX;
    return cursor_bytes(data, size < INNER_HEADER_SIZE ? SIZE_MAX : size);
}

static struct leftover read_leftover(struct cursor *fields)
{
    struct leftover leftover = {.xid = cursor_u32(fields)};
    leftover.is_build = cursor_u8(fields) != 0;
    cursor_skip(fields, 3);
    return leftover;
}

/* Any tuple on the page, with room for the header that we are going to read or write. */
static err_t page_tuple(
    struct redo *redo, unsigned number, size_t header_size, uint8_t **ret_tuple, size_t *ret_size)
{
    TRY(page_item(redo->page, number, ret_tuple, ret_size, redo->msg));
    return *ret_size >= header_size ? ERR_OK : redo_refuse(redo, "a tuple is too short");
}

/* Append, or take over a placeholder. */
static err_t add_or_replace(struct redo *redo, struct bytes tuple, unsigned number)
{
    if (number <= page_item_count(redo->page)) {
        uint8_t *old = NULL;
        size_t size = 0;
        TRY(page_tuple(redo, number, DEAD_SIZE, &old, &size));
        if (tuple_state(old) != TUPLE_PLACEHOLDER) {
            return redo_refuse(redo, "the tuple to replace is no placeholder");
        }
        add_to_counter(redo->page, SPGIST_PLACEHOLDERS, -1);
        TRY(page_index_delete(redo->page, number, redo->msg));
    }
    return page_add_item(redo->page, tuple, number, 0, redo->msg);
}

static err_t replace(struct redo *redo, struct bytes tuple, unsigned number)
{
    TRY(page_index_delete(redo->page, number, redo->msg));
    return page_add_item(redo->page, tuple, number, 0, redo->msg);
}

static err_t set_node_link(struct redo *redo, struct parent parent, uint32_t block, unsigned number)
{
    uint8_t *tuple = NULL;
    size_t size = 0;
    TRY(page_tuple(redo, parent.number, INNER_HEADER_SIZE, &tuple, &size));
    unsigned node_count = page_u32(tuple, 0) >> 3 & 0x1FFF;
    size_t at = INNER_HEADER_SIZE + (page_u32(tuple, 0) >> 16);
    for (unsigned node = 0; node < node_count && at + INDEX_TUPLE_HEADER_SIZE <= size; node++) {
        if (node == parent.node) {
            page_set_u16(tuple, at, (uint16_t)(block >> 16));
            page_set_u16(tuple, at + 2, (uint16_t)block);
            page_set_u16(tuple, at + 4, (uint16_t)number);
            return ERR_OK;
        }
        size_t node_size = index_tuple_size(tuple + at);
        if (node_size < INDEX_TUPLE_HEADER_SIZE) {
            break;
        }
        at += node_size;
    }
    return redo_refuse(redo, "the inner tuple has no such node");
}

static void make_dead(
    uint8_t *tuple, unsigned state, struct leftover leftover, uint32_t block, unsigned number)
{
    bool redirect = state == TUPLE_REDIRECT;
    page_set_u32(tuple, 0, state | (uint32_t)DEAD_SIZE << 2);
    page_set_u16(tuple, LEAF_NEXT, 0);
    page_set_u16(tuple, DEAD_POINTER, redirect ? (uint16_t)(block >> 16) : 0xFFFF);
    page_set_u16(tuple, DEAD_POINTER + 2, redirect ? (uint16_t)block : 0xFFFF);
    page_set_u16(tuple, DEAD_POINTER + 4, redirect ? (uint16_t)number : 0);
    page_set_u32(tuple, DEAD_XID, redirect ? leftover.xid : 0);
}

static void count_leftover(uint8_t *page, unsigned state)
{
    if (state == TUPLE_REDIRECT) {
        add_to_counter(page, SPGIST_REDIRECTIONS, 1);
    } else if (state == TUPLE_PLACEHOLDER) {
        add_to_counter(page, SPGIST_PLACEHOLDERS, 1);
    }
}

/* What deleted tuples become: the first one listed, and the others. */
struct becomes {
    unsigned first, rest;
    struct leftover leftover;
    uint32_t block; /* where a redirection points */
    unsigned number;
};

/* Item numbers of a record, sorted, without doubt about their number. */
static err_t sort_numbers(struct redo *redo, struct bytes numbers, uint16_t *sorted)
{
    size_t count = numbers.size / 2;
    if (count > INDEX_ITEMS_MAX) {
        return redo_refuse(redo, "more tuples are deleted than fit on a page");
    }
    for (size_t i = 0; i < count; i++) {
        uint16_t number = le_u16(numbers.data + 2 * i);
        size_t at = i;
        for (; at > 0 && sorted[at - 1] > number; at--) {
            sorted[at] = sorted[at - 1];
        }
        sorted[at] = number;
    }
    return ERR_OK;
}

/* Delete these tuples and put dead ones of minimal size at their numbers. */
static err_t delete_tuples(struct redo *redo, struct bytes numbers, const struct becomes *becomes)
{
    uint16_t sorted[INDEX_ITEMS_MAX];
    size_t count = numbers.size / 2;
    if (count == 0) {
        return ERR_OK;
    }
    TRY(sort_numbers(redo, numbers, sorted));
    TRY(page_index_delete_many(redo->page, bytes_of(sorted, count * 2), redo->msg));
    unsigned first = le_u16(numbers.data);
    for (size_t i = 0; i < count; i++) {
        unsigned state = sorted[i] == first ? becomes->first : becomes->rest;
        uint8_t *tuple = NULL;
        TRY(page_add_room(redo->page, DEAD_SIZE, sorted[i], 0, &tuple, redo->msg));
        make_dead(tuple, state, becomes->leftover, becomes->block, becomes->number);
        count_leftover(redo->page, state);
    }
    return ERR_OK;
}

/* The tuple is followed by another one in its chain. */
static err_t set_next(struct redo *redo, unsigned number, unsigned next)
{
    uint8_t *tuple = NULL;
    size_t size = 0;
    TRY(page_tuple(redo, number, LEAF_HEADER_SIZE, &tuple, &size));
    unsigned flags = page_u16(tuple, LEAF_NEXT) & ~(unsigned)NEXT_MASK;
    page_set_u16(tuple, LEAF_NEXT, (uint16_t)(flags | (next & NEXT_MASK)));
    return ERR_OK;
}

/* References: 0 the leaf page, 1 its parent. */
static err_t add_leaf(struct redo *redo)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    bool new_page = cursor_u8(&fields) != 0;
    bool nulls = cursor_u8(&fields) != 0;
    unsigned number = cursor_u16(&fields);
    unsigned head_number = cursor_u16(&fields);
    struct parent parent = {.number = cursor_u16(&fields)};
    parent.node = cursor_u16(&fields);
    struct bytes tuple = read_leaf(&fields);
    if (!cursor_is_good(&fields)) {
        return redo_refuse_short(redo);
    }
    if (redo->block_index == 1 && parent.number != 0) {
        TRY(check_page(redo));
        return set_node_link(redo, parent, redo_block_number(redo, 0), number);
    }
    if (redo->block_index != 0) {
        return redo_refuse_block(redo);
    }
    if (new_page) {
        init_page(redo->page, SPGIST_LEAF | (nulls ? SPGIST_NULLS : 0));
    }
    TRY(check_page(redo));
    if (number == head_number) {
        return replace(redo, tuple, number); /* a dead tuple */
    }
    TRY(add_or_replace(redo, tuple, number));
    return head_number != 0 ? set_next(redo, head_number, number) : ERR_OK;
}

/* References: 0 the page that the tuples leave, 1 the one that gets them, 2 the parent. */
static err_t move_leafs(struct redo *redo)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    size_t move_count = cursor_u16(&fields);
    bool new_page = cursor_u8(&fields) != 0;
    bool replaces_dead = cursor_u8(&fields) != 0;
    bool nulls = cursor_u8(&fields) != 0;
    cursor_skip(&fields, 1);
    struct parent parent = {.number = cursor_u16(&fields)};
    parent.node = cursor_u16(&fields);
    cursor_skip(&fields, 2);
    struct becomes becomes = {.leftover = read_leftover(&fields), .rest = TUPLE_PLACEHOLDER};
    size_t insert_count = replaces_dead ? 1 : move_count + 1;
    struct bytes deleted = cursor_array(&fields, move_count, 2);
    struct bytes inserted = cursor_array(&fields, insert_count, 2);
    if (!cursor_is_good(&fields)) {
        return redo_refuse_short(redo);
    }
    becomes.first = becomes.leftover.is_build ? TUPLE_PLACEHOLDER : TUPLE_REDIRECT;
    becomes.block = redo_block_number(redo, 1);
    becomes.number = le_u16(inserted.data + 2 * (insert_count - 1));
    if (redo->block_index == 1 && new_page) {
        init_page(redo->page, SPGIST_LEAF | (nulls ? SPGIST_NULLS : 0));
    }
    TRY(check_page(redo));
    switch (redo->block_index) {
    case 0: return delete_tuples(redo, deleted, &becomes);
    case 1: break;
    case 2: return set_node_link(redo, parent, becomes.block, becomes.number);
    default: return redo_refuse_block(redo);
    }
    for (size_t i = 0; i < insert_count; i++) {
        struct bytes tuple = read_leaf(&fields);
        if (!cursor_is_good(&fields)) {
            return redo_refuse_short(redo);
        }
        TRY(add_or_replace(redo, tuple, le_u16(inserted.data + 2 * i)));
    }
    return ERR_OK;
}

struct add_node {
    unsigned number, new_number;
    bool new_page;
    unsigned parent_page; /* the reference that is the parent's page; 0xFF: the link stays */
    struct parent parent;
    struct leftover leftover;
    struct bytes tuple;
};

/* The old inner tuple becomes a redirection to the new one on another page. */
static err_t leave_redirection(struct redo *redo, const struct add_node *add, uint32_t new_block)
{
    uint8_t *tuple = NULL;
    unsigned state = add->leftover.is_build ? TUPLE_PLACEHOLDER : TUPLE_REDIRECT;
    TRY(page_index_delete(redo->page, add->number, redo->msg));
    TRY(page_add_room(redo->page, DEAD_SIZE, add->number, 0, &tuple, redo->msg));
    make_dead(tuple, state, add->leftover, new_block, add->new_number);
    count_leftover(redo->page, state);
    return ERR_OK;
}

/* References: 0 the page of the inner tuple; when it moves: 1 the new page, 2 the parent's page. */
static err_t add_node(struct redo *redo)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    struct add_node add = {.number = cursor_u16(&fields)};
    add.new_number = cursor_u16(&fields);
    add.new_page = cursor_u8(&fields) != 0;
    add.parent_page = cursor_u8(&fields);
    add.parent.number = cursor_u16(&fields);
    add.parent.node = cursor_u16(&fields);
    cursor_skip(&fields, 2);
    add.leftover = read_leftover(&fields);
    add.tuple = read_inner(&fields);
    if (!cursor_is_good(&fields)) {
        return redo_refuse_short(redo);
    }
    uint32_t new_block = redo_block_number(redo, 1);
    if (redo->block_index == 1 && add.new_page) {
        init_page(redo->page, 0);
    }
    TRY(check_page(redo));
    if (new_block == UINT32_MAX) {
        return redo->block_index == 0 ? replace(redo, add.tuple, add.number)
                                      : redo_refuse_block(redo);
    }
    switch (redo->block_index) {
    case 0: TRY(leave_redirection(redo, &add, new_block)); break;
    case 1: TRY(add_or_replace(redo, add.tuple, add.new_number)); break;
    case 2: redo->keep_lsn = add.parent_page != 2; break;
    default: return redo_refuse_block(redo);
    }
    return add.parent_page == redo->block_index
               ? set_node_link(redo, add.parent, new_block, add.new_number)
               : ERR_OK;
}

/* References: 0 the page of the tuple, which becomes the prefix; 1 the page of the postfix. */
static err_t split_tuple(struct redo *redo)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    unsigned prefix_number = cursor_u16(&fields);
    unsigned postfix_number = cursor_u16(&fields);
    bool new_page = cursor_u8(&fields) != 0;
    bool same_page = cursor_u8(&fields) != 0;
    struct bytes prefix = read_inner(&fields);
    struct bytes postfix = read_inner(&fields);
    if (!cursor_is_good(&fields)) {
        return redo_refuse_short(redo);
    }
    if (redo->block_index == 1 && new_page) {
        init_page(redo->page, 0);
    }
    TRY(check_page(redo));
    switch (redo->block_index) {
    case 0:
        TRY(replace(redo, prefix, prefix_number));
        return same_page ? add_or_replace(redo, postfix, postfix_number) : ERR_OK;
    case 1:
        return same_page ? redo_refuse_block(redo) : add_or_replace(redo, postfix, postfix_number);
    default: return redo_refuse_block(redo);
    }
}

struct pick_split {
    bool root_split, init_source, init_dest, init_inner, nulls, inner_is_parent;
    size_t delete_count, insert_count;
    unsigned inner_number;
    struct parent parent;
    struct leftover leftover;
    struct bytes deleted, inserted, selectors;
    struct bytes inner;
    struct cursor leafs;
};

static err_t read_pick_split(struct redo *redo, struct pick_split *ret_split)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    ret_split->root_split = cursor_u8(&fields) != 0;
    cursor_skip(&fields, 1);
    ret_split->delete_count = cursor_u16(&fields);
    ret_split->insert_count = cursor_u16(&fields);
    ret_split->init_source = cursor_u8(&fields) != 0;
    ret_split->init_dest = cursor_u8(&fields) != 0;
    ret_split->inner_number = cursor_u16(&fields);
    ret_split->init_inner = cursor_u8(&fields) != 0;
    ret_split->nulls = cursor_u8(&fields) != 0;
    ret_split->inner_is_parent = cursor_u8(&fields) != 0;
    cursor_skip(&fields, 1);
    ret_split->parent.number = cursor_u16(&fields);
    ret_split->parent.node = cursor_u16(&fields);
    cursor_skip(&fields, 2);
    ret_split->leftover = read_leftover(&fields);
    ret_split->deleted = cursor_array(&fields, ret_split->delete_count, 2);
    ret_split->inserted = cursor_array(&fields, ret_split->insert_count, 2);
    ret_split->selectors = cursor_bytes(&fields, ret_split->insert_count);
    ret_split->inner = read_inner(&fields);
    ret_split->leafs = fields;
    return cursor_is_good(&fields) ? ERR_OK : redo_refuse_short(redo);
}

/* The leaf tuples that go to the source page (selector 0) or to the other one. */
static err_t add_split_leafs(struct redo *redo, struct pick_split *split, bool to_dest)
{
    for (size_t i = 0; i < split->insert_count; i++) {
        struct bytes tuple = read_leaf(&split->leafs);
        if (!cursor_is_good(&split->leafs)) {
            return redo_refuse_short(redo);
        }
        if ((split->selectors.data[i] != 0) != to_dest) {
            continue;
        }
        TRY(add_or_replace(redo, tuple, le_u16(split->inserted.data + 2 * i)));
    }
    return ERR_OK;
}

static err_t pick_split_source(struct redo *redo, struct pick_split *split, uint32_t inner_block)
{
    if (split->root_split) {
        return redo_refuse_block(redo);
    }
    if (!split->init_source) {
        bool is_build = split->leftover.is_build;
        struct becomes becomes = {
            .first = is_build ? TUPLE_PLACEHOLDER : TUPLE_REDIRECT,
            .rest = TUPLE_PLACEHOLDER,
            .leftover = split->leftover,
            .block = inner_block,
            .number = split->inner_number,
        };
        TRY(delete_tuples(redo, split->deleted, &becomes));
    }
    return add_split_leafs(redo, split, false);
}

/* References: 0 and 1 leaf pages, 2 the page of the new inner tuple, 3 that of its parent. */
static err_t pick_split(struct redo *redo)
{
    struct pick_split split;
    TRY(read_pick_split(redo, &split));
    uint32_t inner_block = redo_block_number(redo, 2);
    unsigned nulls = split.nulls ? SPGIST_NULLS : 0;
    if ((redo->block_index == 0 && split.init_source && !split.root_split) ||
        (redo->block_index == 1 && split.init_dest)) {
        init_page(redo->page, SPGIST_LEAF | nulls);
    } else if (redo->block_index == 2 && split.init_inner) {
        init_page(redo->page, nulls);
    }
    TRY(check_page(redo));
    switch (redo->block_index) {
    case 0: return pick_split_source(redo, &split, inner_block);
    case 1: return add_split_leafs(redo, &split, true);
    case 2:
        TRY(add_or_replace(redo, split.inner, split.inner_number));
        return split.inner_is_parent
                   ? set_node_link(redo, split.parent, inner_block, split.inner_number)
                   : ERR_OK;
    case 3: return set_node_link(redo, split.parent, inner_block, split.inner_number);
    default: return redo_refuse_block(redo);
    }
}

static err_t swap_line_pointers(struct redo *redo, struct bytes from, struct bytes to)
{
    unsigned count = page_item_count(redo->page);
    for (size_t at = 0; at < from.size; at += 2) {
        unsigned a = le_u16(from.data + at);
        unsigned b = le_u16(to.data + at);
        if (a == 0 || b == 0 || a > count || b > count) {
            return redo_refuse(redo, "a tuple to move does not exist");
        }
        uint32_t pointer = page_line_pointer(redo->page, a);
        page_set_line_pointer(redo->page, a, page_line_pointer(redo->page, b));
        page_set_line_pointer(redo->page, b, pointer);
    }
    return ERR_OK;
}

/* What becomes of which tuples of a leaf page: arrays of u16. */
struct vacuum_leaf {
    struct leftover leftover;
    struct bytes dead, placeholders;
    struct bytes move_from, move_to;
    struct bytes chain_from, chain_to;
};

static err_t read_vacuum_leaf(struct redo *redo, struct vacuum_leaf *ret_vacuum)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    size_t dead_count = cursor_u16(&fields);
    size_t placeholder_count = cursor_u16(&fields);
    size_t move_count = cursor_u16(&fields);
    size_t chain_count = cursor_u16(&fields);
    ret_vacuum->leftover = read_leftover(&fields);
    ret_vacuum->dead = cursor_array(&fields, dead_count, 2);
    ret_vacuum->placeholders = cursor_array(&fields, placeholder_count, 2);
    ret_vacuum->move_from = cursor_array(&fields, move_count, 2);
    ret_vacuum->move_to = cursor_array(&fields, move_count, 2);
    ret_vacuum->chain_from = cursor_array(&fields, chain_count, 2);
    ret_vacuum->chain_to = cursor_array(&fields, chain_count, 2);
    return cursor_is_good(&fields) ? ERR_OK : redo_refuse_short(redo);
}

static err_t vacuum_leaf(struct redo *redo)
{
    struct vacuum_leaf vacuum;
    TRY(read_vacuum_leaf(redo, &vacuum));
    if (redo->block_index != 0) {
        return redo_refuse_block(redo);
    }
    TRY(check_page(redo));
    struct becomes to_dead = {.first = TUPLE_DEAD, .rest = TUPLE_DEAD, .leftover = vacuum.leftover};
    struct becomes to_placeholder = {
        .first = TUPLE_PLACEHOLDER, .rest = TUPLE_PLACEHOLDER, .leftover = vacuum.leftover};
    TRY(delete_tuples(redo, vacuum.dead, &to_dead));
    TRY(delete_tuples(redo, vacuum.placeholders, &to_placeholder));
    TRY(swap_line_pointers(redo, vacuum.move_from, vacuum.move_to));
    TRY(delete_tuples(redo, vacuum.move_from, &to_placeholder));
    for (size_t at = 0; at < vacuum.chain_from.size; at += 2) {
        unsigned number = le_u16(vacuum.chain_from.data + at);
        TRY(set_next(redo, number, le_u16(vacuum.chain_to.data + at)));
    }
    return ERR_OK;
}

static err_t vacuum_root(struct redo *redo)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    size_t count = cursor_u16(&fields);
    cursor_skip(&fields, 2);
    (void)read_leftover(&fields);
    struct bytes numbers = cursor_array(&fields, count, 2);
    if (!cursor_is_good(&fields)) {
        return redo_refuse_short(redo);
    }
    if (redo->block_index != 0) {
        return redo_refuse_block(redo);
    }
    TRY(check_page(redo));
    return page_index_delete_many(redo->page, numbers, redo->msg);
}

/* Redirections become placeholders; placeholders from `first` to the end of the page go. */
static err_t vacuum_redirect(struct redo *redo)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    size_t count = cursor_u16(&fields);
    unsigned first = cursor_u16(&fields);
    cursor_skip(&fields, 4 + 2); /* xid for hot standby, catalog or not */
    struct bytes numbers = cursor_array(&fields, count, 2);
    if (!cursor_is_good(&fields)) {
        return redo_refuse_short(redo);
    }
    if (redo->block_index != 0) {
        return redo_refuse_block(redo);
    }
    TRY(check_page(redo));
    for (size_t at = 0; at < numbers.size; at += 2) {
        uint8_t *tuple = NULL;
        size_t size = 0;
        TRY(page_tuple(redo, le_u16(numbers.data + at), DEAD_SIZE, &tuple, &size));
        page_set_u32(tuple, 0, (page_u32(tuple, 0) & ~(uint32_t)3) | TUPLE_PLACEHOLDER);
        page_set_u32(tuple, DEAD_POINTER, UINT32_MAX);
        page_set_u16(tuple, DEAD_POINTER + 4, 0);
    }
    add_to_counter(redo->page, SPGIST_REDIRECTIONS, -(int)count);
    add_to_counter(redo->page, SPGIST_PLACEHOLDERS, (int)count);
    unsigned last = page_item_count(redo->page);
    if (first == 0 || first > last) {
        return ERR_OK;
    }
    uint16_t deleted[INDEX_ITEMS_MAX];
    size_t deleted_count = last - first + 1;
    if (deleted_count > INDEX_ITEMS_MAX) {
        return redo_refuse(redo, "more tuples are deleted than fit on a page");
    }
    for (size_t i = 0; i < deleted_count; i++) {
        deleted[i] = (uint16_t)(first + i);
    }
    add_to_counter(redo->page, SPGIST_PLACEHOLDERS, -(int)deleted_count);
    return page_index_delete_many(redo->page, bytes_of(deleted, deleted_count * 2), redo->msg);
}

err_t spgist_redo(struct redo *redo)
{
    if (redo->block == NULL) {
        return redo_refuse_block(redo);
    }
    switch (redo->op) {
    case SPGIST_OP_ADD_LEAF: return add_leaf(redo);
    case SPGIST_OP_MOVE_LEAFS: return move_leafs(redo);
    case SPGIST_OP_ADD_NODE: return add_node(redo);
    case SPGIST_OP_SPLIT_TUPLE: return split_tuple(redo);
    case SPGIST_OP_PICK_SPLIT: return pick_split(redo);
    case SPGIST_OP_VACUUM_LEAF: return vacuum_leaf(redo);
    case SPGIST_OP_VACUUM_ROOT: return vacuum_root(redo);
    case SPGIST_OP_VACUUM_REDIRECT: return vacuum_redirect(redo);
    default: return redo_refuse_op(redo);
    }
}
