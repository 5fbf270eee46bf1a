/*
 * btree.c - redo of B-tree pages.
 *
 * Source: src/backend/access/nbtree (nbtxlog.c, nbtdedup.c, nbtpage.c), src/include/access/nbtree.h
 * of Postgres 17. A page is line pointers, index tuples and 16 bytes of special space; a tuple on a
 * leaf may carry a posting list: many heap TIDs in ascending order behind one key.
 */
#include "pageserver/redo/redo_private.h"

enum {
    BTREE_OP_INSERT_LEAF = 0x00,
    BTREE_OP_INSERT_UPPER = 0x10,
    BTREE_OP_INSERT_META = 0x20,
    BTREE_OP_SPLIT_LEFT = 0x30, /* the new item is on the left page */
    BTREE_OP_SPLIT_RIGHT = 0x40,
    BTREE_OP_INSERT_POST = 0x50,
    BTREE_OP_DEDUP = 0x60,
    BTREE_OP_DELETE = 0x70,
    BTREE_OP_UNLINK_PAGE = 0x80,
    BTREE_OP_UNLINK_PAGE_META = 0x90,
    BTREE_OP_NEWROOT = 0xA0,
    BTREE_OP_MARK_PAGE_HALFDEAD = 0xB0,
    BTREE_OP_VACUUM = 0xC0,
    BTREE_OP_REUSE_PAGE = 0xD0,
    BTREE_OP_META_CLEANUP = 0xE0
};

/* The special space. */
#define BTREE_SPECIAL_SIZE 16
enum {
    BTREE_PREV = PAGE_SIZE - BTREE_SPECIAL_SIZE,
    BTREE_NEXT = BTREE_PREV + 4,
    BTREE_LEVEL = BTREE_PREV + 8,
    BTREE_FLAGS = BTREE_PREV + 12,
    BTREE_CYCLE_ID = BTREE_PREV + 14
};
enum {
    BTREE_LEAF = 1,
    BTREE_ROOT = 2,
    BTREE_DELETED = 4,
    BTREE_META = 8,
    BTREE_HALF_DEAD = 16,
    BTREE_HAS_GARBAGE = 64,
    BTREE_INCOMPLETE_SPLIT = 128,
    BTREE_HAS_FULL_XID = 256
};

/* The meta page, behind the page header. */
enum {
    META_MAGIC = PAGE_HEADER_SIZE,
    META_VERSION = META_MAGIC + 4,
    META_ROOT = META_MAGIC + 8,
    META_LEVEL = META_MAGIC + 12,
    META_FAST_ROOT = META_MAGIC + 16,
    META_FAST_LEVEL = META_MAGIC + 20,
    META_DELETED_PAGES = META_MAGIC + 24,
    META_HEAP_TUPLES = META_MAGIC + 32, /* a double, always -1 now */
    META_ALL_EQUAL_IMAGE = META_MAGIC + 40,
    META_END = META_MAGIC + 48
};
#define META_MAGIC_VALUE    0x053162
#define LOGGED_META_SIZE    28
#define MINUS_ONE_AS_DOUBLE 0xBFF0000000000000u

/* An index tuple: TID (u16 block high, u16 block low, u16 item), u16 info. */
#define TID_SIZE 6
enum { TUPLE_TID_BLOCK = 0, TUPLE_TID_NUMBER = 4, TUPLE_INFO = 6 };
enum { INFO_SIZE_MASK = 0x1FFF, INFO_ALT_TID = 0x2000 };
enum { NUMBER_COUNT_MASK = 0x0FFF, NUMBER_IS_POSTING = 0x2000 };
/* BTMaxItemSize: a third of a page less line pointers, special space and a heap TID. */
#define TUPLE_SIZE_MAX 2704

#define NO_PAGE    0
#define NUMBER_MAX 0xFFFF

static err_t refuse_tuple(struct redo *redo)
{
    return redo_refuse(redo, "an index tuple is malformed");
}

static uint32_t tuple_tid_block(const uint8_t *tuple)
{
    return (uint32_t)page_u16(tuple, TUPLE_TID_BLOCK) << 16 | page_u16(tuple, TUPLE_TID_BLOCK + 2);
}

static void tuple_set_tid_block(uint8_t *tuple, uint32_t block)
{
    page_set_u16(tuple, TUPLE_TID_BLOCK, (uint16_t)(block >> 16));
    page_set_u16(tuple, TUPLE_TID_BLOCK + 2, (uint16_t)block);
}

static void tuple_set_size(uint8_t *tuple, size_t size)
{
    unsigned info = page_u16(tuple, TUPLE_INFO) & ~(unsigned)INFO_SIZE_MASK;
    page_set_u16(tuple, TUPLE_INFO, (uint16_t)(info | size));
}

static bool tuple_is_posting(const uint8_t *tuple)
{
    return page_u16(tuple, TUPLE_INFO) & INFO_ALT_TID &&
           page_u16(tuple, TUPLE_TID_NUMBER) & NUMBER_IS_POSTING;
}

/* Where a tuple's key ends and its heap TIDs are: one in the header, or the posting list. */
struct posting {
    size_t key_size;
    const uint8_t *tids;
    unsigned count;
};

static err_t read_posting(
    struct redo *redo, const uint8_t *tuple, size_t size, struct posting *ret_posting)
{
    if (!tuple_is_posting(tuple)) {
        *ret_posting = (struct posting){.key_size = size, .tids = tuple, .count = 1};
        return ERR_OK;
    }
    size_t at = tuple_tid_block(tuple);
    unsigned count = page_u16(tuple, TUPLE_TID_NUMBER) & NUMBER_COUNT_MASK;
    if (at < INDEX_TUPLE_HEADER_SIZE || at != ALIGN8(at) || at > size || count < 2 ||
        count > (size - at) / TID_SIZE) {
        return redo_refuse(redo, "a posting list is malformed");
    }
    *ret_posting = (struct posting){.key_size = at, .tids = tuple + at, .count = count};
    return ERR_OK;
}

/* Turn a copied key of `key_size` bytes into a tuple with these TIDs; zero the alignment. */
static size_t finish_posting(uint8_t *tuple, size_t key_size, const uint8_t *tids, unsigned count)
{
    if (count == 1) {
        unsigned info = page_u16(tuple, TUPLE_INFO) & ~(unsigned)INFO_ALT_TID;
        page_set_u16(tuple, TUPLE_INFO, (uint16_t)info);
        tuple_set_size(tuple, key_size);
        memcpy(tuple, tids, TID_SIZE);
        return key_size;
    }
    size_t end = key_size + (size_t)count * TID_SIZE;
    size_t size = ALIGN8(end);
    memcpy(tuple + key_size, tids, (size_t)count * TID_SIZE);
    memset(tuple + end, 0, size - end);
    page_set_u16(tuple, TUPLE_INFO, page_u16(tuple, TUPLE_INFO) | INFO_ALT_TID);
    tuple_set_size(tuple, size);
    tuple_set_tid_block(tuple, (uint32_t)key_size);
    page_set_u16(tuple, TUPLE_TID_NUMBER, (uint16_t)(count | NUMBER_IS_POSTING));
    return size;
}

/* A page that has been written before: header sane, special space where we read it. */
static err_t check_btree_page(struct redo *redo)
{
    TRY(page_check(redo->page, redo->msg));
    if (page_u16(redo->page, PAGE_SPECIAL) != BTREE_PREV) {
        return redo_refuse(redo, "this is no B-tree page");
    }
    return ERR_OK;
}

/* Item `number` of `page` as an index tuple: its own idea of its size fits its line pointer. */
static err_t page_tuple(
    struct redo *redo, uint8_t *page, unsigned number, uint8_t **ret_tuple, size_t *ret_size)
{
    size_t size = 0;
    TRY(page_item(page, number, ret_tuple, &size, redo->msg));
    if (size < INDEX_TUPLE_HEADER_SIZE || index_tuple_size(*ret_tuple) < INDEX_TUPLE_HEADER_SIZE ||
        index_tuple_size(*ret_tuple) > size) {
        return refuse_tuple(redo);
    }
    *ret_size = size;
    return ERR_OK;
}

/* The next tuple in a record's data, with the padding behind it. */
static struct bytes read_tuple(struct cursor *data)
{
    struct bytes tuple = index_tuple_read(data);
    cursor_skip(data, ALIGN8(tuple.size) - tuple.size);
    tuple.size = ALIGN8(tuple.size);
    return tuple;
}

/* All items of a page that was split off: in the record they stand as on the page, last one first.
 */
static err_t restore_items(struct redo *redo, struct bytes items)
{
    uint16_t starts[INDEX_ITEMS_MAX];
    struct cursor data = cursor_of(items);
    unsigned count = 0;
    if (items.size > PAGE_SIZE) {
        return redo_refuse(redo, "more items than fit on a page");
    }
    while (data.left > 0) {
        if (count == INDEX_ITEMS_MAX) {
            return redo_refuse(redo, "more items than fit on a page");
        }
        starts[count++] = (uint16_t)(items.size - data.left);
        (void)read_tuple(&data);
    }
    if (!cursor_is_good(&data)) {
        return refuse_tuple(redo);
    }
    size_t end = items.size;
    for (unsigned number = 1; number <= count; number++) {
        size_t start = starts[count - number];
        TRY(page_add_item(
            redo->page, bytes_of(items.data + start, end - start), number, 0, redo->msg));
        end = start;
    }
    return ERR_OK;
}

static void init_page(uint8_t *page, uint32_t prev, uint32_t next, uint32_t level, unsigned flags)
{
    page_init_zeroed(page, BTREE_SPECIAL_SIZE);
    page_set_u32(page, BTREE_PREV, prev);
    page_set_u32(page, BTREE_NEXT, next);
    page_set_u32(page, BTREE_LEVEL, level);
    page_set_u16(page, BTREE_FLAGS, (uint16_t)flags);
}

static void set_flags(uint8_t *page, unsigned clear, unsigned set)
{
    unsigned flags = page_u16(page, BTREE_FLAGS);
    page_set_u16(page, BTREE_FLAGS, (uint16_t)((flags & ~clear) | set));
}

static err_t clear_incomplete_split(struct redo *redo)
{
    TRY(check_btree_page(redo));
    set_flags(redo->page, BTREE_INCOMPLETE_SPLIT, 0);
    return ERR_OK;
}

static err_t restore_meta(struct redo *redo)
{
    struct cursor data = cursor_of(redo->block->data);
    if (data.left != LOGGED_META_SIZE) {
        return redo_refuse_short(redo);
    }
    uint8_t *page = redo->page;
    init_page(page, 0, 0, 0, BTREE_META);
    page_set_u32(page, META_MAGIC, META_MAGIC_VALUE);
    page_set_u32(page, META_VERSION, cursor_u32(&data));
    page_set_u32(page, META_ROOT, cursor_u32(&data));
    page_set_u32(page, META_LEVEL, cursor_u32(&data));
    page_set_u32(page, META_FAST_ROOT, cursor_u32(&data));
    page_set_u32(page, META_FAST_LEVEL, cursor_u32(&data));
    page_set_u32(page, META_DELETED_PAGES, cursor_u32(&data));
    page_set_u32(page, META_HEAP_TUPLES, (uint32_t)MINUS_ONE_AS_DOUBLE);
    page_set_u32(page, META_HEAP_TUPLES + 4, (uint32_t)(MINUS_ONE_AS_DOUBLE >> 32));
    page[META_ALL_EQUAL_IMAGE] = cursor_u8(&data);
    page_set_u16(page, PAGE_LOWER, META_END);
    return ERR_OK;
}

/*
 * A new TID falls inside a posting list: it takes its place in the list, whose last TID goes into
 * the new tuple instead. The list stays as long as it was.
 */
static err_t swap_posting(struct redo *redo, uint8_t *new_tuple, uint8_t *list_tuple, unsigned at)
{
    struct posting list = {.count = 0};
    TRY(read_posting(redo, list_tuple, index_tuple_size(list_tuple), &list));
    if (at == 0 || at >= list.count) {
        return redo_refuse(redo, "the posting list cannot be split there");
    }
    uint8_t *gap = list_tuple + list.key_size + (size_t)at * TID_SIZE;
    size_t moved = (size_t)(list.count - at - 1) * TID_SIZE;
    uint8_t last[TID_SIZE];
    memcpy(last, gap + moved, TID_SIZE);
    memmove(gap + TID_SIZE, gap, moved);
    memcpy(gap, new_tuple, TID_SIZE);
    memcpy(new_tuple, last, TID_SIZE);
    return ERR_OK;
}

static err_t insert(struct redo *redo)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    unsigned number = cursor_u16(&fields);
    if (!cursor_is_good(&fields)) {
        return redo_refuse_short(redo);
    }
    if (redo->block_index == 1 && redo->op != BTREE_OP_INSERT_LEAF &&
        redo->op != BTREE_OP_INSERT_POST) {
        return clear_incomplete_split(redo);
    }
    if (redo->block_index == 2 && redo->op == BTREE_OP_INSERT_META) {
        return restore_meta(redo);
    }
    if (redo->block_index != 0) {
        return redo_refuse_block(redo);
    }
    TRY(check_btree_page(redo));
    struct cursor data = cursor_of(redo->block->data);
    if (redo->op != BTREE_OP_INSERT_POST) {
        return page_add_item(redo->page, redo->block->data, number, 0, redo->msg);
    }
    unsigned at = cursor_u16(&data);
    uint8_t new_tuple[TUPLE_SIZE_MAX];
    if (!cursor_is_good(&data) || data.left < INDEX_TUPLE_HEADER_SIZE ||
        data.left > sizeof(new_tuple)) {
        return redo_refuse_short(redo);
    }
    size_t new_size = data.left;
    memcpy(new_tuple, data.at, new_size);
    uint8_t *list_tuple = NULL;
    size_t list_size = 0;
    if (number == 0) {
        return refuse_tuple(redo);
    }
    TRY(page_tuple(redo, redo->page, number - 1, &list_tuple, &list_size));
    TRY(swap_posting(redo, new_tuple, list_tuple, at));
    return page_add_item(redo->page, bytes_of(new_tuple, new_size), number, 0, redo->msg);
}

struct split {
    uint32_t level;
    unsigned first_right; /* first item of the old page that goes to the right */
    unsigned new_number;  /* the new item's number on the old page */
    unsigned posting_at;  /* not 0: it splits the posting list of the item before it */
};

/* An empty page with the special space of the old one. */
static void begin_rebuild(struct redo *redo, uint8_t *old)
{
    memcpy(old, redo->page, PAGE_SIZE);
    page_init(redo->page, BTREE_SPECIAL_SIZE);
    memcpy(redo->page + BTREE_PREV, old + BTREE_PREV, BTREE_SPECIAL_SIZE);
}

static unsigned first_data_item(const uint8_t *page)
{
    return page_u32(page, BTREE_NEXT) == NO_PAGE ? 1 : 2; /* only the rightmost has no high key */
}

static err_t append_item(struct redo *redo, struct bytes item)
{
    return page_add_item(redo->page, item, page_item_count(redo->page) + 1, 0, redo->msg);
}

/* An old item onto the new page; with a posting list that swap_posting() changed, all of it. */
static err_t split_copy_item(
    struct redo *redo, const struct split *split, uint8_t *old, unsigned number)
{
    uint8_t *tuple = NULL;
    size_t size = 0;
    TRY(page_tuple(redo, old, number, &tuple, &size));
    if (split->posting_at != 0 && number + 1 == split->new_number) {
        size = ALIGN8(index_tuple_size(tuple));
    }
    return append_item(redo, bytes_of(tuple, size));
}

/* The left half: the new high key, then the items below first_right, the new one among them. */
static err_t split_left_items(
    struct redo *redo, const struct split *split, uint8_t *old, struct bytes new_item)
{
    bool on_left = redo->op == BTREE_OP_SPLIT_LEFT;
    unsigned number = first_data_item(old);
    for (; number < split->first_right; number++) {
        err_t err = on_left && number == split->new_number ? append_item(redo, new_item) : ERR_OK;
        TRY(err == ERR_OK ? split_copy_item(redo, split, old, number) : err);
    }
    return on_left && number == split->new_number ? append_item(redo, new_item) : ERR_OK;
}

static err_t split_left(struct redo *redo, const struct split *split)
{
    uint8_t old[PAGE_SIZE];
    uint8_t new_tuple[TUPLE_SIZE_MAX + INDEX_TUPLE_HEADER_SIZE];
    TRY(check_btree_page(redo));
    struct cursor data = cursor_of(redo->block->data);
    struct bytes new_item = {.data = NULL, .size = 0};
    if (redo->op == BTREE_OP_SPLIT_LEFT || split->posting_at != 0) {
        new_item = read_tuple(&data);
    }
    struct bytes high_key = read_tuple(&data);
    if (!cursor_is_good(&data) || data.left != 0) {
        return refuse_tuple(redo);
    }
    begin_rebuild(redo, old);
    if (split->posting_at != 0) {
        uint8_t *list_tuple = NULL;
        size_t list_size = 0;
        if (new_item.size > sizeof(new_tuple) || split->new_number == 0) {
            return refuse_tuple(redo);
        }
        memcpy(new_tuple, new_item.data, new_item.size);
        new_item.data = new_tuple;
        TRY(page_tuple(redo, old, split->new_number - 1, &list_tuple, &list_size));
        TRY(swap_posting(redo, new_tuple, list_tuple, split->posting_at));
    }
    TRY(append_item(redo, high_key));
    TRY(split_left_items(redo, split, old, new_item));
    unsigned flags = BTREE_INCOMPLETE_SPLIT | (split->level == 0 ? BTREE_LEAF : 0);
    page_set_u16(redo->page, BTREE_FLAGS, (uint16_t)flags);
    page_set_u32(redo->page, BTREE_NEXT, redo_block_number(redo, 1));
    page_set_u16(redo->page, BTREE_CYCLE_ID, 0);
    return ERR_OK;
}

static err_t split(struct redo *redo)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    struct split split = {.level = cursor_u32(&fields)};
    split.first_right = cursor_u16(&fields);
    split.new_number = cursor_u16(&fields);
    split.posting_at = cursor_u16(&fields);
    if (!cursor_is_good(&fields)) {
        return redo_refuse_short(redo);
    }
    uint32_t next = redo_block_number(redo, 2);
    switch (redo->block_index) {
    case 0: return split_left(redo, &split);
    case 1:
        init_page(
            redo->page, redo_block_number(redo, 0), next == UINT32_MAX ? NO_PAGE : next,
            split.level, split.level == 0 ? BTREE_LEAF : 0);
        return restore_items(redo, redo->block->data);
    case 2:
        TRY(check_btree_page(redo));
        page_set_u32(redo->page, BTREE_PREV, redo_block_number(redo, 1));
        return ERR_OK;
    case 3: return split.level != 0 ? clear_incomplete_split(redo) : redo_refuse_block(redo);
    default: return redo_refuse_block(redo);
    }
}

/* One tuple of the new page in the making: a base tuple and the TIDs of those that joined it. */
struct pending {
    struct bytes intervals; /* of the record: u16 first item, u16 how many */
    size_t intervals_done;
    const uint8_t *base;
    size_t base_size; /* of its line pointer */
    size_t key_size;
    unsigned base_number;
    unsigned item_count; /* 0: none yet */
    unsigned tid_count;
    uint8_t tids[TUPLE_SIZE_MAX];
};

static err_t pending_start(
    struct redo *redo, struct pending *pending, const uint8_t *tuple, unsigned number)
{
    struct posting posting = {.tids = tuple};
    size_t size = index_tuple_size(tuple);
    TRY(read_posting(redo, tuple, size, &posting));
    if (posting.count > sizeof(pending->tids) / TID_SIZE) {
        return redo_refuse(redo, "a posting list is too long");
    }
    pending->base = tuple;
    pending->base_size = size;
    pending->key_size = posting.key_size;
    pending->base_number = number;
    pending->item_count = 1;
    pending->tid_count = posting.count;
    memcpy(pending->tids, posting.tids, (size_t)posting.count * TID_SIZE);
    return ERR_OK;
}

static err_t pending_join(struct redo *redo, struct pending *pending, const uint8_t *tuple)
{
    struct posting posting = {.tids = tuple};
    TRY(read_posting(redo, tuple, index_tuple_size(tuple), &posting));
    size_t count = (size_t)pending->tid_count + posting.count;
    if (ALIGN8(pending->key_size + count * TID_SIZE) > TUPLE_SIZE_MAX) {
        return redo_refuse(redo, "a posting list is too long");
    }
    memcpy(
        pending->tids + (size_t)pending->tid_count * TID_SIZE, posting.tids,
        (size_t)posting.count * TID_SIZE);
    pending->tid_count += posting.count;
    pending->item_count++;
    return ERR_OK;
}

static err_t pending_finish(struct redo *redo, struct pending *pending)
{
    if (pending->item_count == 1) {
        return append_item(redo, bytes_of(pending->base, pending->base_size));
    }
    uint8_t *tuple = NULL;
    size_t size = ALIGN8(pending->key_size + (size_t)pending->tid_count * TID_SIZE);
    TRY(page_add_room(redo->page, size, page_item_count(redo->page) + 1, 0, &tuple, redo->msg));
    memcpy(tuple, pending->base, pending->key_size);
    (void)finish_posting(tuple, pending->key_size, pending->tids, pending->tid_count);
    pending->intervals_done++;
    return ERR_OK;
}

/* The next old item: it joins the pending tuple when the record's next interval says so. */
static err_t pending_take(
    struct redo *redo, struct pending *pending, const uint8_t *tuple, unsigned number)
{
    size_t at = pending->intervals_done * 4;
    bool joins = pending->item_count > 0 && at < pending->intervals.size &&
                 pending->base_number == le_u16(pending->intervals.data + at) &&
                 pending->item_count < le_u16(pending->intervals.data + at + 2);
    if (joins) {
        return pending_join(redo, pending, tuple);
    }
    if (pending->item_count > 0) {
        TRY(pending_finish(redo, pending));
    }
    return pending_start(redo, pending, tuple, number);
}

static err_t dedup_items(struct redo *redo, struct pending *pending, uint8_t *old)
{
    unsigned first = first_data_item(old);
    unsigned count = page_item_count(old);
    uint8_t *tuple = NULL;
    size_t size = 0;
    if (first == 2) { /* the high key */
        TRY(page_tuple(redo, old, 1, &tuple, &size));
        TRY(append_item(redo, bytes_of(tuple, size)));
    }
    for (unsigned number = first; number <= count; number++) {
        TRY(page_tuple(redo, old, number, &tuple, &size));
        TRY(pending_take(redo, pending, tuple, number));
    }
    if (pending->item_count == 0) {
        return redo_refuse(redo, "there is nothing to deduplicate");
    }
    return pending_finish(redo, pending);
}

/* The record lists intervals of items that merge. The others stay as they are. */
static err_t dedup(struct redo *redo)
{
    uint8_t old[PAGE_SIZE];
    struct pending pending;
    struct cursor fields = cursor_of(redo->record->main_data);
    struct cursor data = cursor_of(redo->block->data);
    size_t interval_count = cursor_u16(&fields);
    pending.intervals = cursor_array(&data, interval_count, 4);
    pending.intervals_done = pending.item_count = 0;
    if (!cursor_is_good(&fields) || !cursor_is_good(&data)) {
        return redo_refuse_short(redo);
    }
    if (redo->block_index != 0) {
        return redo_refuse_block(redo);
    }
    TRY(check_btree_page(redo));
    begin_rebuild(redo, old);
    TRY(dedup_items(redo, &pending, old));
    if (pending.intervals_done != interval_count) {
        return redo_refuse(redo, "the intervals do not fit the page");
    }
    set_flags(redo->page, BTREE_HAS_GARBAGE, 0);
    return ERR_OK;
}

/* Some TIDs of a posting list are gone: `deleted` are their ascending indexes, u16. */
static err_t update_posting(struct redo *redo, unsigned number, struct bytes deleted)
{
    uint8_t *old = NULL;
    size_t old_size = 0;
    struct posting posting = {.count = 0};
    uint8_t tids[PAGE_SIZE];
    uint8_t tuple[PAGE_SIZE + INDEX_TUPLE_HEADER_SIZE];
    TRY(page_tuple(redo, redo->page, number, &old, &old_size));
    TRY(read_posting(redo, old, index_tuple_size(old), &posting));
    size_t delete_count = deleted.size / 2;
    if (!tuple_is_posting(old) || delete_count >= posting.count) {
        return redo_refuse(redo, "more TIDs are deleted than there are");
    }
    size_t done = 0;
    unsigned kept = 0;
    for (unsigned i = 0; i < posting.count; i++) {
        if (done < delete_count && le_u16(deleted.data + 2 * done) == i) {
            done++;
            continue;
        }
        memcpy(tids + (size_t)kept * TID_SIZE, posting.tids + (size_t)i * TID_SIZE, TID_SIZE);
        kept++;
    }
    if (done != delete_count) {
        return redo_refuse(redo, "TIDs to delete are missing or not in order");
    }
    memcpy(tuple, old, posting.key_size);
    size_t size = ALIGN8(finish_posting(tuple, posting.key_size, tids, kept));
    return page_index_overwrite(redo->page, number, bytes_of(tuple, size), redo->msg);
}

/* Data: deleted items, updated items, then for each updated one its deleted TIDs. */
static err_t delete_items(struct redo *redo, size_t deleted_count, size_t updated_count)
{
    if (redo->block_index != 0) {
        return redo_refuse_block(redo);
    }
    TRY(check_btree_page(redo));
    struct cursor data = cursor_of(redo->block->data);
    struct bytes deleted = cursor_array(&data, deleted_count, 2);
    struct bytes updated = cursor_array(&data, updated_count, 2);
    if (!cursor_is_good(&data)) {
        return redo_refuse_short(redo);
    }
    for (size_t i = 0; i < updated_count; i++) {
        size_t tid_count = cursor_u16(&data);
        struct bytes tids = cursor_array(&data, tid_count, 2);
        if (!cursor_is_good(&data)) {
            return redo_refuse_short(redo);
        }
        TRY(update_posting(redo, le_u16(updated.data + 2 * i), tids));
    }
    if (deleted_count > 0) {
        TRY(page_index_delete_many(redo->page, deleted, redo->msg));
    }
    set_flags(redo->page, BTREE_HAS_GARBAGE, 0);
    return ERR_OK;
}

static err_t vacuum(struct redo *redo)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    size_t deleted_count = cursor_u16(&fields);
    size_t updated_count = cursor_u16(&fields);
    return cursor_is_good(&fields) ? delete_items(redo, deleted_count, updated_count)
                                   : redo_refuse_short(redo);
}

static err_t delete (struct redo *redo)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    cursor_skip(&fields, 4); /* xid for hot standby */
    size_t deleted_count = cursor_u16(&fields);
    size_t updated_count = cursor_u16(&fields);
    return cursor_is_good(&fields) ? delete_items(redo, deleted_count, updated_count)
                                   : redo_refuse_short(redo);
}

/* A leaf without items whose high key only names the top of the subtree that goes with it. */
static err_t write_half_dead_leaf(
    struct redo *redo, uint32_t prev, uint32_t next, uint32_t top_parent)
{
    init_page(redo->page, prev, next, 0, BTREE_HALF_DEAD | BTREE_LEAF);
    uint8_t *tuple = NULL;
    TRY(page_add_room(redo->page, INDEX_TUPLE_HEADER_SIZE, 1, 0, &tuple, redo->msg));
    tuple_set_tid_block(tuple, top_parent);
    page_set_u16(tuple, TUPLE_TID_NUMBER, 0);
    page_set_u16(tuple, TUPLE_INFO, INDEX_TUPLE_HEADER_SIZE | INFO_ALT_TID);
    return ERR_OK;
}

/* The parent's downlink takes over the child of the next one, which goes. */
static err_t unlink_in_parent(struct redo *redo, unsigned number)
{
    uint8_t *next = NULL;
    uint8_t *tuple = NULL;
    size_t size = 0;
    if (number == 0 || number >= NUMBER_MAX) {
        return refuse_tuple(redo);
    }
    TRY(check_btree_page(redo));
    TRY(page_tuple(redo, redo->page, number + 1, &next, &size));
    TRY(page_tuple(redo, redo->page, number, &tuple, &size));
    tuple_set_tid_block(tuple, tuple_tid_block(next));
    return page_index_delete(redo->page, number + 1, redo->msg);
}

static err_t mark_page_halfdead(struct redo *redo)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    unsigned number = cursor_u16(&fields);
    cursor_skip(&fields, 2 + 4); /* padding, the leaf itself */
    uint32_t prev = cursor_u32(&fields);
    uint32_t next = cursor_u32(&fields);
    uint32_t top_parent = cursor_u32(&fields);
    if (!cursor_is_good(&fields)) {
        return redo_refuse_short(redo);
    }
    switch (redo->block_index) {
    case 0: return write_half_dead_leaf(redo, prev, next, top_parent);
    case 1: return unlink_in_parent(redo, number);
    default: return redo_refuse_block(redo);
    }
}

static err_t unlink_page(struct redo *redo)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    uint32_t prev = cursor_u32(&fields);
    uint32_t next = cursor_u32(&fields);
    uint32_t level = cursor_u32(&fields);
    cursor_skip(&fields, 4);
    uint64_t safe_xid = cursor_u64(&fields);
    uint32_t leaf_prev = cursor_u32(&fields);
    uint32_t leaf_next = cursor_u32(&fields);
    uint32_t leaf_top_parent = cursor_u32(&fields);
    if (!cursor_is_good(&fields)) {
        return redo_refuse_short(redo);
    }
    uint8_t *page = redo->page;
    switch (redo->block_index) {
    case 0:
        init_page(
            page, prev, next, level,
            BTREE_DELETED | BTREE_HAS_FULL_XID | (level == 0 ? BTREE_LEAF : 0));
        page_set_u32(page, PAGE_HEADER_SIZE, (uint32_t)safe_xid);
        page_set_u32(page, PAGE_HEADER_SIZE + 4, (uint32_t)(safe_xid >> 32));
        page_set_u16(page, PAGE_LOWER, PAGE_HEADER_SIZE + 8);
        return ERR_OK;
    case 1:
        TRY(check_btree_page(redo));
        page_set_u32(page, BTREE_NEXT, next);
        return ERR_OK;
    case 2:
        TRY(check_btree_page(redo));
        page_set_u32(page, BTREE_PREV, prev);
        return ERR_OK;
    case 3: return write_half_dead_leaf(redo, leaf_prev, leaf_next, leaf_top_parent);
    case 4:
        return redo->op == BTREE_OP_UNLINK_PAGE_META ? restore_meta(redo) : redo_refuse_block(redo);
    default: return redo_refuse_block(redo);
    }
}

static err_t newroot(struct redo *redo)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    cursor_skip(&fields, 4); /* the root: reference 0 */
    uint32_t level = cursor_u32(&fields);
    if (!cursor_is_good(&fields)) {
        return redo_refuse_short(redo);
    }
    switch (redo->block_index) {
    case 0:
        init_page(redo->page, NO_PAGE, NO_PAGE, level, BTREE_ROOT | (level == 0 ? BTREE_LEAF : 0));
        return level > 0 ? restore_items(redo, redo->block->data) : ERR_OK;
    case 1: return level > 0 ? clear_incomplete_split(redo) : redo_refuse_block(redo);
    case 2: return restore_meta(redo);
    default: return redo_refuse_block(redo);
    }
}

err_t btree_redo(struct redo *redo)
{
    if (redo->block == NULL) {
        return redo_refuse_block(redo);
    }
    switch (redo->op) {
    case BTREE_OP_INSERT_LEAF:
    case BTREE_OP_INSERT_UPPER:
    case BTREE_OP_INSERT_META:
    case BTREE_OP_INSERT_POST: return insert(redo);
    case BTREE_OP_SPLIT_LEFT:
    case BTREE_OP_SPLIT_RIGHT: return split(redo);
    case BTREE_OP_DEDUP: return dedup(redo);
    case BTREE_OP_DELETE: return delete (redo);
    case BTREE_OP_VACUUM: return vacuum(redo);
    case BTREE_OP_MARK_PAGE_HALFDEAD: return mark_page_halfdead(redo);
    case BTREE_OP_UNLINK_PAGE:
    case BTREE_OP_UNLINK_PAGE_META: return unlink_page(redo);
    case BTREE_OP_NEWROOT: return newroot(redo);
    case BTREE_OP_META_CLEANUP:
        return redo->block_index == 0 ? restore_meta(redo) : redo_refuse_block(redo);
    case BTREE_OP_REUSE_PAGE: return redo_refuse_block(redo); /* for hot standby only */
    default: return redo_refuse_op(redo);
    }
}
