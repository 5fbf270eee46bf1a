/*
 * gin.c - redo of GIN: an entry tree, a posting tree below frequent keys, a list of pending
 * entries.
 *
 * Source: src/backend/access/gin (ginxlog.c, gindatapage.c, ginpostinglist.c, ginutil.c),
 * src/include/access/ginblock.h of Postgres 17. Entry pages hold index tuples. Pages of a posting
 * tree have no line pointers: an inner one is an array of {child, key}, a leaf is a row of
 * compressed segments: first TID, size, then the distances to the next TIDs in 7 bits a byte.
 */
#include "pageserver/redo/redo_private.h"

enum {
    GIN_OP_CREATE_POSTING_TREE = 0x10,
    GIN_OP_INSERT = 0x20,
    GIN_OP_SPLIT = 0x30,
    GIN_OP_VACUUM_PAGE = 0x40,
    GIN_OP_DELETE_PAGE = 0x50,
    GIN_OP_UPDATE_META_PAGE = 0x60,
    GIN_OP_INSERT_LIST_PAGE = 0x70,
    GIN_OP_DELETE_LIST_PAGES = 0x80,
    GIN_OP_VACUUM_DATA_LEAF_PAGE = 0x90
};

#define GIN_SPECIAL_SIZE 8
enum {
    GIN_RIGHT_LINK = PAGE_SIZE - GIN_SPECIAL_SIZE,
    GIN_COUNT = GIN_RIGHT_LINK + 4, /* children of an inner page; rows of a pending page */
    GIN_FLAGS = GIN_RIGHT_LINK + 6
};
enum {
    GIN_DATA = 1,
    GIN_LEAF = 2,
    GIN_DELETED = 4,
    GIN_META = 8,
    GIN_LIST = 16,
    GIN_LIST_FULL_ROW = 32,
    GIN_INCOMPLETE_SPLIT = 64,
    GIN_COMPRESSED = 128
};

enum { INSERT_IS_DATA = 1, INSERT_IS_LEAF = 2 };
enum { SEGMENT_DELETE = 1, SEGMENT_INSERT = 2, SEGMENT_REPLACE = 3, SEGMENT_ADD_ITEMS = 4 };

/* A data page: the right bound, then children or segments. */
#define GIN_DATA_BEGIN (PAGE_HEADER_SIZE + 8)
#define GIN_DATA_END   GIN_RIGHT_LINK

#define META_SIZE           56
#define LOCATOR_SIZE        12
#define TID_SIZE            6
#define CHILD_SIZE          10 /* u16 block high, u16 block low, TID */
#define SEGMENT_HEADER_SIZE 8
#define TID_NUMBER_BITS     11
#define VARBYTE_SIZE_MAX    7

static err_t check_page(struct redo *redo)
{
    TRY(page_check(redo->page, redo->msg));
    if (page_u16(redo->page, PAGE_SPECIAL) != GIN_RIGHT_LINK) {
        return redo_refuse(redo, "this is no GIN page");
    }
    return ERR_OK;
}

/* A data page, leaf or inner; with all that is on it before pd_lower. */
static err_t check_data_page(struct redo *redo, unsigned kind)
{
    TRY(check_page(redo));
    unsigned flags = page_u16(redo->page, GIN_FLAGS);
    /* There are no tuples: pd_upper stays where it was when the page was made. */
    if ((flags & (GIN_DATA | GIN_LEAF | GIN_COMPRESSED)) != kind ||
        page_u16(redo->page, PAGE_LOWER) < GIN_DATA_BEGIN ||
        page_u16(redo->page, PAGE_UPPER) != GIN_DATA_END) {
        return redo_refuse(redo, "this is no such GIN data page");
    }
    if (kind == GIN_DATA &&
        page_u16(redo->page, GIN_COUNT) > (GIN_DATA_END - GIN_DATA_BEGIN) / CHILD_SIZE) {
        return redo_refuse(redo, "more children than fit on a page");
    }
    return ERR_OK;
}

static void init_page(uint8_t *page, unsigned flags)
{
    page_init_zeroed(page, GIN_SPECIAL_SIZE);
    page_set_u32(page, GIN_RIGHT_LINK, UINT32_MAX);
    page_set_u16(page, GIN_FLAGS, (uint16_t)flags);
}

static void set_flags(uint8_t *page, unsigned clear, unsigned set)
{
    page_set_u16(page, GIN_FLAGS, (uint16_t)((page_u16(page, GIN_FLAGS) & ~clear) | set));
}

static void set_data_size(uint8_t *page, size_t size)
{
    page_set_u16(page, PAGE_LOWER, (uint16_t)(GIN_DATA_BEGIN + size));
}

static err_t create_posting_tree(struct redo *redo)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    size_t size = cursor_u32(&fields);
    struct bytes segments = cursor_bytes(&fields, size);
    if (!cursor_is_good(&fields) || segments.size > GIN_DATA_END - GIN_DATA_BEGIN) {
        return redo_refuse_short(redo);
    }
    if (redo->block_index != 0) {
        return redo_refuse_block(redo);
    }
    init_page(redo->page, GIN_DATA | GIN_LEAF | GIN_COMPRESSED);
    memcpy(redo->page + GIN_DATA_BEGIN, segments.data, segments.size);
    set_data_size(redo->page, segments.size);
    return ERR_OK;
}

/* TIDs of a segment, one after the other, as numbers that sort like them. */
struct tid_reader {
    struct cursor data;
    uint64_t next; /* 0: there are no more */
};

static uint64_t tid_value(const uint8_t *tid)
{
    uint64_t block = (uint64_t)page_u16(tid, 0) << 16 | page_u16(tid, 2);
    return block << TID_NUMBER_BITS | page_u16(tid, 4);
}

static void tid_write(uint64_t value, uint8_t *to)
{
    uint64_t block = value >> TID_NUMBER_BITS;
    page_set_u16(to, 0, (uint16_t)(block >> 16));
    page_set_u16(to, 2, (uint16_t)block);
    page_set_u16(to, 4, (uint16_t)(value & ((1u << TID_NUMBER_BITS) - 1)));
}

/* Forward; false when the bytes make no sense. */
static bool tid_reader_step(struct tid_reader *reader)
{
    if (reader->data.left == 0) {
        reader->next = 0;
        return true;
    }
    uint64_t distance = 0;
    for (unsigned i = 0; i < VARBYTE_SIZE_MAX; i++) {
        uint64_t byte = cursor_u8(&reader->data);
        distance |= (byte & 0x7F) << (7 * i);
        if ((byte & 0x80) == 0) {
            break;
        }
    }
    reader->next += distance;
    return cursor_is_good(&reader->data) && distance > 0 &&
           reader->next >> (32 + TID_NUMBER_BITS) == 0;
}

/* A segment in the making, at its final place. */
struct tid_writer {
    uint8_t *segment;
    size_t size, size_max; /* of the bytes behind the header */
    uint64_t last;         /* 0: none yet */
};

static bool tid_writer_add(struct tid_writer *writer, uint64_t value)
{
    if (writer->last == 0) {
        tid_write(value, writer->segment);
        writer->last = value;
        return true;
    }
    if (value <= writer->last) {
        return false;
    }
    for (uint64_t distance = value - writer->last;; distance >>= 7) {
        if (writer->size == writer->size_max) {
            return false;
        }
        bool more = distance > 0x7F;
        writer->segment[SEGMENT_HEADER_SIZE + writer->size++] =
            (uint8_t)((distance & 0x7F) | (more ? 0x80 : 0));
        if (!more) {
            break;
        }
    }
    writer->last = value;
    return true;
}

static size_t align2(size_t size)
{
    return size + size % 2;
}

/* The next segment that `data` holds, whole; the cursor goes bad when there is none. */
static struct bytes read_segment(struct cursor *data)
{
    bool good = data->left >= SEGMENT_HEADER_SIZE;
    return cursor_bytes(
        data, good ? SEGMENT_HEADER_SIZE + align2(page_u16(data->at, TID_SIZE)) : SIZE_MAX);
}

/* An old segment and new TIDs, merged into a segment at `to`. */
static err_t merge_segment(
    struct redo *redo,
    struct bytes segment,
    struct bytes tids,
    uint8_t *to,
    size_t room,
    size_t *ret_size)
{
    struct tid_reader old = {.next = tid_value(segment.data)};
    struct cursor new = cursor_of(tids);
    if (room < SEGMENT_HEADER_SIZE || page_u16(segment.data, 4) >> TID_NUMBER_BITS != 0) {
        return redo_refuse(redo, "a segment does not fit or is malformed");
    }
    old.data =
        cursor_of(bytes_of(segment.data + SEGMENT_HEADER_SIZE, page_u16(segment.data, TID_SIZE)));
    struct tid_writer writer = {
        .segment = to,
        .size_max = MIN_OF(room, (size_t)PAGE_SIZE) - SEGMENT_HEADER_SIZE,
    };
    while (old.next != 0 || new.left > 0) {
        uint64_t value = new.left > 0 ? tid_value(new.at) : UINT64_MAX;
        bool take_new = new.left > 0 && (old.next == 0 || value < old.next);
        bool same = value == old.next;
        if (!tid_writer_add(&writer, take_new ? value : old.next) ||
            (!take_new && !tid_reader_step(&old))) {
            return redo_refuse(redo, "a segment does not fit or is malformed");
        }
        if (take_new || same) {
            cursor_skip(&new, TID_SIZE);
        }
    }
    if (writer.size % 2 != 0) {
        if (writer.size == writer.size_max) {
            return redo_refuse(redo, "a segment does not fit or is malformed");
        }
        to[SEGMENT_HEADER_SIZE + writer.size] = 0;
    }
    page_set_u16(to, TID_SIZE, (uint16_t)writer.size);
    *ret_size = SEGMENT_HEADER_SIZE + align2(writer.size);
    return ERR_OK;
}

/* What recompress() carries along: the old segments from a copy, the new ones on the page. */
struct recompress {
    struct cursor old;
    unsigned old_number; /* of the segment that comes next in `old` */
    uint8_t *to, *end;
};

static err_t put_segment(struct redo *redo, struct recompress *work, struct bytes segment)
{
    if (segment.size > (size_t)(work->end - work->to)) {
        return redo_refuse(redo, "the segments do not fit the page");
    }
    memcpy(work->to, segment.data, segment.size);
    work->to += segment.size;
    return ERR_OK;
}

/* The next old segment, or a refusal. */
static err_t next_segment(struct redo *redo, struct recompress *work, struct bytes *ret_segment)
{
    *ret_segment = read_segment(&work->old);
    work->old_number++;
    return cursor_is_good(&work->old) ? ERR_OK : redo_refuse(redo, "there is no such segment");
}

static err_t copy_segments(struct redo *redo, struct recompress *work, unsigned before)
{
    while (work->old_number < before) {
        struct bytes unchanged = {.data = NULL, .size = 0};
        TRY(next_segment(redo, work, &unchanged));
        TRY(put_segment(redo, work, unchanged));
    }
    return ERR_OK;
}

/* One action on segment `number`: delete it, put one before it, replace it, add TIDs to it. */
static err_t apply_action(struct redo *redo, struct recompress *work, struct cursor *actions)
{
    unsigned number = cursor_u8(actions);
    unsigned action = cursor_u8(actions);
    struct bytes segment = {.data = NULL, .size = 0};
    struct bytes tids = {.data = NULL, .size = 0};
    struct bytes old = {.data = NULL, .size = 0};
    if (action == SEGMENT_INSERT || action == SEGMENT_REPLACE) {
        segment = read_segment(actions);
    } else if (action == SEGMENT_ADD_ITEMS) {
        size_t count = cursor_u16(actions);
        tids = cursor_array(actions, count, TID_SIZE);
    } else if (action != SEGMENT_DELETE) {
        return redo_refuse(redo, "an action on a segment is not known");
    }
    if (!cursor_is_good(actions) || number < work->old_number) {
        return redo_refuse_short(redo);
    }
    TRY(copy_segments(redo, work, number));
    if (action == SEGMENT_INSERT) {
        return put_segment(redo, work, segment);
    }
    TRY(next_segment(redo, work, &old));
    if (action == SEGMENT_REPLACE) {
        return put_segment(redo, work, segment);
    }
    if (action == SEGMENT_ADD_ITEMS) {
        size_t size = 0;
        TRY(merge_segment(redo, old, tids, work->to, (size_t)(work->end - work->to), &size));
        work->to += size;
    }
    return ERR_OK;
}

/* Rewrite the segments of a leaf; what was behind the new end stays as it was. */
static err_t recompress(struct redo *redo, struct cursor actions)
{
    uint8_t old[PAGE_SIZE];
    unsigned flags = page_u16(redo->page, GIN_FLAGS);
    if (flags & GIN_LEAF && !(flags & GIN_COMPRESSED)) {
        return err_set(redo->msg, ERR_UNSUPPORTED, "a posting tree older than version 9.4");
    }
    TRY(check_data_page(redo, GIN_DATA | GIN_LEAF | GIN_COMPRESSED));
    size_t old_size = page_u16(redo->page, PAGE_LOWER) - (size_t)GIN_DATA_BEGIN;
    memcpy(old, redo->page + GIN_DATA_BEGIN, old_size);
    struct recompress work = {
        .old = cursor_of(bytes_of(old, old_size)),
        .to = redo->page + GIN_DATA_BEGIN,
        .end = redo->page + GIN_DATA_END,
    };
    unsigned count = cursor_u16(&actions);
    for (unsigned i = 0; i < count; i++) {
        TRY(apply_action(redo, &work, &actions));
    }
    if (!cursor_is_good(&actions)) {
        return redo_refuse_short(redo);
    }
    TRY(put_segment(redo, &work, bytes_of(work.old.at, work.old.left)));
    set_data_size(redo->page, (size_t)(work.to - (redo->page + GIN_DATA_BEGIN)));
    return ERR_OK;
}

static err_t clear_incomplete_split(struct redo *redo)
{
    TRY(check_page(redo));
    set_flags(redo->page, GIN_INCOMPLETE_SPLIT, 0);
    return ERR_OK;
}

static void set_block(uint8_t *to, uint32_t block)
{
    page_set_u16(to, 0, (uint16_t)(block >> 16));
    page_set_u16(to, 2, (uint16_t)block);
}

static err_t insert_entry(struct redo *redo, uint32_t right_child)
{
    struct cursor data = cursor_of(redo->block->data);
    unsigned number = cursor_u16(&data);
    bool replaces = cursor_u8(&data) != 0;
    cursor_skip(&data, 1);
    struct bytes tuple = index_tuple_read(&data);
    if (!cursor_is_good(&data)) {
        return redo_refuse_short(redo);
    }
    TRY(check_page(redo));
    if (right_child != UINT32_MAX) {
        uint8_t *old = NULL;
        size_t size = 0;
        TRY(page_item(redo->page, number, &old, &size, redo->msg));
        if (size < INDEX_TUPLE_HEADER_SIZE) {
            return redo_refuse(redo, "an index tuple is malformed");
        }
        set_block(old, right_child);
        page_set_u16(old, 4, 0);
    }
    if (replaces) {
        TRY(page_index_delete(redo->page, number, redo->msg));
    }
    return page_add_item(redo->page, tuple, number, 0, redo->msg);
}

/* A posting tree's inner page: the child at `number` was split; its right half takes its place. */
static err_t insert_child(struct redo *redo, uint32_t right_child)
{
    struct cursor data = cursor_of(redo->block->data);
    size_t number = cursor_u16(&data);
    struct bytes child = cursor_bytes(&data, CHILD_SIZE);
    if (!cursor_is_good(&data)) {
        return redo_refuse_short(redo);
    }
    TRY(check_data_page(redo, GIN_DATA));
    size_t count = page_u16(redo->page, GIN_COUNT);
    if (number == 0 || number > count || count + 1 > (GIN_DATA_END - GIN_DATA_BEGIN) / CHILD_SIZE) {
        return redo_refuse(redo, "no such child, or no room for another");
    }
    uint8_t *at = redo->page + GIN_DATA_BEGIN + (number - 1) * CHILD_SIZE;
    set_block(at, right_child);
    memmove(at + CHILD_SIZE, at, (count - number + 1) * CHILD_SIZE);
    memcpy(at, child.data, CHILD_SIZE);
    page_set_u16(redo->page, GIN_COUNT, (uint16_t)(count + 1));
    set_data_size(redo->page, (count + 1) * CHILD_SIZE);
    return ERR_OK;
}

static err_t insert(struct redo *redo)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    unsigned flags = cursor_u16(&fields);
    bool leaf = (flags & INSERT_IS_LEAF) != 0;
    uint32_t right_child = UINT32_MAX;
    if (!leaf) {
        cursor_skip(&fields, 4); /* the left child */
        uint32_t high = cursor_u16(&fields);
        right_child = high << 16 | cursor_u16(&fields);
    }
    if (!cursor_is_good(&fields)) {
        return redo_refuse_short(redo);
    }
    if (redo->block_index == 1 && !leaf) {
        return clear_incomplete_split(redo);
    }
    if (redo->block_index != 0) {
        return redo_refuse_block(redo);
    }
    if (!(flags & INSERT_IS_DATA)) {
        return insert_entry(redo, right_child);
    }
    return leaf ? recompress(redo, cursor_of(redo->block->data)) : insert_child(redo, right_child);
}

/* References: 0 the page, 1 its parent, 2 its left neighbour. */
static err_t delete_page(struct redo *redo)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    size_t number = cursor_u16(&fields);
    cursor_skip(&fields, 2);
    uint32_t right_link = cursor_u32(&fields);
    uint32_t xid = cursor_u32(&fields);
    if (!cursor_is_good(&fields)) {
        return redo_refuse_short(redo);
    }
    TRY(check_page(redo));
    switch (redo->block_index) {
    case 0:
        set_flags(redo->page, 0, GIN_DELETED);
        page_set_u32(redo->page, PAGE_PRUNE_XID, xid);
        return ERR_OK;
    case 1: break;
    case 2: page_set_u32(redo->page, GIN_RIGHT_LINK, right_link); return ERR_OK;
    default: return redo_refuse_block(redo);
    }
    TRY(check_data_page(redo, GIN_DATA));
    size_t count = page_u16(redo->page, GIN_COUNT);
    if (number == 0 || number > count) {
        return redo_refuse(redo, "there is no such child");
    }
    uint8_t *at = redo->page + GIN_DATA_BEGIN + (number - 1) * CHILD_SIZE;
    memmove(at, at + CHILD_SIZE, (count - number) * CHILD_SIZE);
    page_set_u16(redo->page, GIN_COUNT, (uint16_t)(count - 1));
    set_data_size(redo->page, (count - 1) * CHILD_SIZE);
    return ERR_OK;
}

static void write_meta(struct redo *redo, struct bytes meta)
{
    init_page(redo->page, GIN_META);
    memcpy(redo->page + PAGE_HEADER_SIZE, meta.data, META_SIZE);
    page_set_u16(redo->page, PAGE_LOWER, PAGE_HEADER_SIZE + META_SIZE);
}

static err_t append_tuples(struct redo *redo, struct cursor data, size_t count)
{
    unsigned number = page_item_count(redo->page) + 1;
    for (size_t i = 0; i < count; i++) {
        struct bytes tuple = index_tuple_read(&data);
        if (!cursor_is_good(&data)) {
            return redo_refuse_short(redo);
        }
        TRY(page_add_item(redo->page, tuple, number++, 0, redo->msg));
    }
    return ERR_OK;
}

/* References: 0 the meta page, 1 the tail of the pending list. */
static err_t update_meta_page(struct redo *redo)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    cursor_skip(&fields, LOCATOR_SIZE + 4);
    struct bytes meta = cursor_bytes(&fields, META_SIZE);
    uint32_t previous_tail = cursor_u32(&fields);
    uint32_t right_link = cursor_u32(&fields);
    int32_t count = (int32_t)cursor_u32(&fields);
    if (!cursor_is_good(&fields)) {
        return redo_refuse_short(redo);
    }
    if (redo->block_index == 0) {
        write_meta(redo, meta);
        return ERR_OK;
    }
    if (redo->block_index != 1 || (count <= 0 && previous_tail == UINT32_MAX)) {
        return redo_refuse_block(redo);
    }
    TRY(check_page(redo));
    if (count <= 0) {
        page_set_u32(redo->page, GIN_RIGHT_LINK, right_link);
        return ERR_OK;
    }
    TRY(append_tuples(redo, cursor_of(redo->block->data), (size_t)count));
    page_set_u16(redo->page, GIN_COUNT, (uint16_t)(page_u16(redo->page, GIN_COUNT) + 1));
    return ERR_OK;
}

static err_t insert_list_page(struct redo *redo)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    uint32_t right_link = cursor_u32(&fields);
    int32_t count = (int32_t)cursor_u32(&fields);
    if (!cursor_is_good(&fields) || count < 0) {
        return redo_refuse_short(redo);
    }
    if (redo->block_index != 0) {
        return redo_refuse_block(redo);
    }
    bool tail = right_link == UINT32_MAX;
    init_page(redo->page, GIN_LIST | (tail ? GIN_LIST_FULL_ROW : 0));
    page_set_u32(redo->page, GIN_RIGHT_LINK, right_link);
    page_set_u16(redo->page, GIN_COUNT, tail ? 1 : 0);
    return append_tuples(redo, cursor_of(redo->block->data), (size_t)count);
}

static err_t delete_list_pages(struct redo *redo)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    struct bytes meta = cursor_bytes(&fields, META_SIZE);
    uint32_t count = cursor_u32(&fields);
    if (!cursor_is_good(&fields)) {
        return redo_refuse_short(redo);
    }
    if (redo->block_index == 0) {
        write_meta(redo, meta);
        return ERR_OK;
    }
    if (redo->block_index > count) {
        return redo_refuse_block(redo);
    }
    init_page(redo->page, GIN_DELETED);
    return ERR_OK;
}

err_t gin_redo(struct redo *redo)
{
    if (redo->block == NULL) {
        return redo_refuse_block(redo);
    }
    switch (redo->op) {
    case GIN_OP_CREATE_POSTING_TREE: return create_posting_tree(redo);
    case GIN_OP_INSERT: return insert(redo);
    case GIN_OP_SPLIT:
        return redo->block_index == 3 ? clear_incomplete_split(redo)
                                      : redo_refuse(redo, "a split without an image of the page");
    case GIN_OP_VACUUM_PAGE: return redo_refuse(redo, "a vacuum without an image of the page");
    case GIN_OP_DELETE_PAGE: return delete_page(redo);
    case GIN_OP_UPDATE_META_PAGE: return update_meta_page(redo);
    case GIN_OP_INSERT_LIST_PAGE: return insert_list_page(redo);
    case GIN_OP_DELETE_LIST_PAGES: return delete_list_pages(redo);
    case GIN_OP_VACUUM_DATA_LEAF_PAGE:
        if (redo->block_index != 0) {
            return redo_refuse_block(redo);
        }
        TRY(check_page(redo));
        return recompress(redo, cursor_of(redo->block->data));
    default: return redo_refuse_op(redo);
    }
}
