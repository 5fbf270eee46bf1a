/*
 * hash.c - redo of hash indexes: a meta page, buckets, their overflow pages, and bitmaps of those.
 *
 * Source: src/backend/access/hash (hash_xlog.c, hashpage.c, hashovfl.c, hashutil.c) of Postgres 17.
 */
#include "pageserver/redo/redo_private.h"

enum {
    HASH_OP_INIT_META_PAGE = 0x00,
    HASH_OP_INIT_BITMAP_PAGE = 0x10,
    HASH_OP_INSERT = 0x20,
    HASH_OP_ADD_OVERFLOW_PAGE = 0x30,
    HASH_OP_SPLIT_ALLOCATE_PAGE = 0x40,
    HASH_OP_SPLIT_PAGE = 0x50,
    HASH_OP_SPLIT_COMPLETE = 0x60,
    HASH_OP_MOVE_PAGE_CONTENTS = 0x70,
    HASH_OP_SQUEEZE_PAGE = 0x80,
    HASH_OP_DELETE = 0x90,
    HASH_OP_SPLIT_CLEANUP = 0xA0,
    HASH_OP_UPDATE_META_PAGE = 0xB0,
    HASH_OP_VACUUM_ONE_PAGE = 0xC0
};

#define HASH_SPECIAL_SIZE 16
enum {
    HASH_PREV = PAGE_SIZE - HASH_SPECIAL_SIZE,
    HASH_NEXT = HASH_PREV + 4,
    HASH_BUCKET = HASH_PREV + 8,
    HASH_FLAGS = HASH_PREV + 12,
    HASH_PAGE_ID = HASH_PREV + 14
};
enum {
    HASH_OVERFLOW_PAGE = 1,
    HASH_BITMAP_PAGE = 4,
    HASH_META_PAGE = 8,
    HASH_NEEDS_SPLIT_CLEANUP = 64,
    HASH_HAS_DEAD_TUPLES = 128
};
#define HASH_PAGE_ID_VALUE 0xFF80
#define NO_BLOCK           UINT32_MAX
#define NO_BUCKET          UINT32_MAX

/* The meta page, behind the page header. */
enum {
    META_MAGIC = PAGE_HEADER_SIZE,
    META_VERSION = META_MAGIC + 4,
    META_TUPLES = META_MAGIC + 8, /* a double */
    META_FILL_FACTOR = META_MAGIC + 16,
    META_PAGE_BYTES = META_MAGIC + 18,
    META_BITMAP_BYTES = META_MAGIC + 20,
    META_BITMAP_SHIFT = META_MAGIC + 22,
    META_MAX_BUCKET = META_MAGIC + 24,
    META_HIGH_MASK = META_MAGIC + 28,
    META_LOW_MASK = META_MAGIC + 32,
    META_SPLIT_POINT = META_MAGIC + 36,
    META_FIRST_FREE = META_MAGIC + 40,
    META_BITMAP_COUNT = META_MAGIC + 44,
    META_PROCEDURE = META_MAGIC + 48,
    META_SPARES = META_MAGIC + 52,
    META_BITMAPS = META_SPARES + 4 * 98,
    META_END = META_BITMAPS + 4 * 1024 + 4
};
#define SPLIT_POINTS_MAX   98
#define BITMAPS_MAX        1024
#define META_MAGIC_VALUE   0x6440640
#define META_VERSION_VALUE 4
#define BITMAP_ROOM        (PAGE_SIZE - PAGE_HEADER_SIZE - HASH_SPECIAL_SIZE)
#define BITMAP_BYTES       4096 /* the largest power of two that fits */
#define BITMAP_SHIFT       15   /* its binary logarithm in bits */
#define BUCKETS_MAX        0x40000000u

/* Split points: one each for the first groups, then four phases a group (a quarter each). */
#define ONE_PHASE_GROUPS 10
#define PHASE_BITS       2
#define PHASE_MASK       3

enum { SPLIT_UPDATES_MASKS = 1, SPLIT_UPDATES_SPLIT_POINT = 2 };

static_assert(META_END - PAGE_HEADER_SIZE == 4544, "HashMetaPageData");

static err_t check_page(struct redo *redo)
{
    TRY(page_check(redo->page, redo->msg));
    if (page_u16(redo->page, PAGE_SPECIAL) != HASH_PREV) {
        return redo_refuse(redo, "this is no hash page");
    }
    return ERR_OK;
}

static double meta_tuples(const uint8_t *page)
{
    double tuples;
    memcpy(&tuples, page + META_TUPLES, sizeof(tuples));
    return tuples;
}

static void meta_set_tuples(uint8_t *page, double tuples)
{
    memcpy(page + META_TUPLES, &tuples, sizeof(tuples));
}

static void write_special(
    uint8_t *page, uint32_t prev, uint32_t next, uint32_t bucket, unsigned flags)
{
    page_set_u32(page, HASH_PREV, prev);
    page_set_u32(page, HASH_NEXT, next);
    page_set_u32(page, HASH_BUCKET, bucket);
    page_set_u16(page, HASH_FLAGS, (uint16_t)flags);
    page_set_u16(page, HASH_PAGE_ID, HASH_PAGE_ID_VALUE);
}

static void init_page(uint8_t *page, uint32_t prev, uint32_t bucket, unsigned flags)
{
    page_init_zeroed(page, HASH_SPECIAL_SIZE);
    write_special(page, prev, NO_BLOCK, bucket, flags);
}

static unsigned ceil_log2(uint32_t value)
{
    return value < 2 ? 0 : 32 - (unsigned)__builtin_clz(value - 1);
}

static unsigned split_point_of(uint32_t buckets)
{
    unsigned group = ceil_log2(buckets);
    if (group < ONE_PHASE_GROUPS) {
        return group;
    }
    unsigned phase = (buckets - 1) >> (group - (PHASE_BITS + 1)) & PHASE_MASK;
    return ONE_PHASE_GROUPS + ((group - ONE_PHASE_GROUPS) << PHASE_BITS) + phase;
}

/* How many buckets there are when this split point is complete. */
static uint32_t buckets_at(unsigned split_point)
{
    if (split_point < ONE_PHASE_GROUPS) {
        return 1u << split_point;
    }
    unsigned behind = split_point - ONE_PHASE_GROUPS;
    uint32_t before = 1u << (ONE_PHASE_GROUPS + (behind >> PHASE_BITS) - 1);
    return before + (before >> PHASE_BITS) * ((behind & PHASE_MASK) + 1);
}

static err_t init_meta_page(struct redo *redo)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    struct bytes logged_tuples = cursor_bytes(&fields, sizeof(double));
    uint32_t procedure = cursor_u32(&fields);
    unsigned fill_factor = cursor_u16(&fields);
    if (!cursor_is_good(&fields)) {
        return redo_refuse_short(redo);
    }
    double tuples;
    memcpy(&tuples, logged_tuples.data, sizeof(tuples));
    if (redo->block_index != 0) {
        return redo_refuse_block(redo);
    }
    if (fill_factor == 0 || !(tuples >= 0)) {
        return redo_refuse(redo, "the number of tuples or the fill factor is out of range");
    }
    double wanted = tuples / fill_factor;
    uint32_t buckets = 2;
    if (wanted >= (double)BUCKETS_MAX) {
        buckets = BUCKETS_MAX;
    } else if (wanted > 2.0) {
        buckets = buckets_at(split_point_of((uint32_t)wanted));
    }
    unsigned split_point = split_point_of(buckets);
    uint32_t high_mask = (1u << ceil_log2(buckets + 1)) - 1;
    uint8_t *page = redo->page;
    init_page(page, NO_BLOCK, NO_BUCKET, HASH_META_PAGE);
    page_set_u32(page, META_MAGIC, META_MAGIC_VALUE);
    page_set_u32(page, META_VERSION, META_VERSION_VALUE);
    page_set_u16(page, META_FILL_FACTOR, (uint16_t)fill_factor);
    page_set_u16(page, META_PAGE_BYTES, BITMAP_ROOM);
    page_set_u16(page, META_BITMAP_BYTES, BITMAP_BYTES);
    page_set_u16(page, META_BITMAP_SHIFT, BITMAP_SHIFT);
    page_set_u32(page, META_MAX_BUCKET, buckets - 1);
    page_set_u32(page, META_HIGH_MASK, high_mask);
    page_set_u32(page, META_LOW_MASK, high_mask >> 1);
    page_set_u32(page, META_SPLIT_POINT, split_point);
    page_set_u32(page, META_PROCEDURE, procedure);
    page_set_u32(page, META_SPARES + (size_t)split_point * 4, 1);
    page_set_u16(page, PAGE_LOWER, META_END);
    return ERR_OK;
}

static err_t init_bitmap(struct redo *redo, size_t bytes)
{
    if (bytes > BITMAP_ROOM) {
        return redo_refuse(redo, "the bitmap does not fit the page");
    }
    init_page(redo->page, NO_BLOCK, NO_BUCKET, HASH_BITMAP_PAGE);
    memset(redo->page + PAGE_HEADER_SIZE, 0xFF, bytes);
    page_set_u16(redo->page, PAGE_LOWER, (uint16_t)(PAGE_HEADER_SIZE + bytes));
    return ERR_OK;
}

static err_t meta_add_bitmap(struct redo *redo, uint32_t block)
{
    uint32_t count = page_u32(redo->page, META_BITMAP_COUNT);
    if (count >= BITMAPS_MAX) {
        return redo_refuse(redo, "the meta page has no room for a bitmap");
    }
    page_set_u32(redo->page, META_BITMAPS + (size_t)count * 4, block);
    page_set_u32(redo->page, META_BITMAP_COUNT, count + 1);
    return ERR_OK;
}

static err_t init_bitmap_page(struct redo *redo)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    size_t bytes = cursor_u16(&fields);
    if (!cursor_is_good(&fields)) {
        return redo_refuse_short(redo);
    }
    switch (redo->block_index) {
    case 0: return init_bitmap(redo, bytes);
    case 1:
        TRY(check_page(redo));
        return meta_add_bitmap(redo, page_u32(redo->page, META_MAX_BUCKET) + 2);
    default: return redo_refuse_block(redo);
    }
}

static err_t insert(struct redo *redo)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    unsigned number = cursor_u16(&fields);
    if (!cursor_is_good(&fields)) {
        return redo_refuse_short(redo);
    }
    TRY(check_page(redo));
    switch (redo->block_index) {
    case 0: return page_add_item(redo->page, redo->block->data, number, 0, redo->msg);
    case 1: meta_set_tuples(redo->page, meta_tuples(redo->page) + 1); return ERR_OK;
    default: return redo_refuse_block(redo);
    }
}

/* A u32 that the record has for this page. */
static err_t read_u32(struct redo *redo, uint32_t *ret_value)
{
    struct cursor data = cursor_of(redo->block->data);
    *ret_value = cursor_u32(&data);
    return cursor_is_good(&data) ? ERR_OK : redo_refuse_short(redo);
}

static err_t change_bitmap(struct redo *redo, bool set)
{
    uint32_t bit = 0;
    TRY(read_u32(redo, &bit));
    if (bit / 8 >= BITMAP_ROOM) {
        return redo_refuse(redo, "the bit lies outside the bitmap");
    }
    uint8_t *byte = redo->page + PAGE_HEADER_SIZE + bit / 8;
    unsigned mask = 1u << bit % 8;
    *byte = (uint8_t)(set ? *byte | mask : *byte & ~mask);
    return ERR_OK;
}

static err_t add_overflow_meta(struct redo *redo, bool bitmap_page_found)
{
    uint32_t first_free = 0;
    TRY(read_u32(redo, &first_free));
    page_set_u32(redo->page, META_FIRST_FREE, first_free);
    if (bitmap_page_found) {
        return ERR_OK;
    }
    uint32_t split_point = page_u32(redo->page, META_SPLIT_POINT);
    if (split_point >= SPLIT_POINTS_MAX) {
        return redo_refuse(redo, "the split point is out of range");
    }
    size_t spare = META_SPARES + (size_t)split_point * 4;
    uint32_t new_bitmap = redo_block_number(redo, 3);
    page_set_u32(redo->page, spare, page_u32(redo->page, spare) + 1);
    if (new_bitmap != UINT32_MAX) {
        TRY(meta_add_bitmap(redo, new_bitmap));
        page_set_u32(redo->page, spare, page_u32(redo->page, spare) + 1);
    }
    return ERR_OK;
}

/* References: 0 the new page, 1 the one it hangs on, 2 bitmap, 3 new bitmap, 4 meta page. */
static err_t add_overflow_page(struct redo *redo)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    size_t bitmap_bytes = cursor_u16(&fields);
    bool bitmap_page_found = cursor_u8(&fields) != 0;
    uint32_t bucket = 0;
    if (!cursor_is_good(&fields)) {
        return redo_refuse_short(redo);
    }
    switch (redo->block_index) {
    case 0:
        TRY(read_u32(redo, &bucket));
        init_page(redo->page, redo_block_number(redo, 1), bucket, HASH_OVERFLOW_PAGE);
        return ERR_OK;
    case 1:
        TRY(check_page(redo));
        page_set_u32(redo->page, HASH_NEXT, redo_block_number(redo, 0));
        return ERR_OK;
    case 2: TRY(check_page(redo)); return change_bitmap(redo, true);
    case 3: return init_bitmap(redo, bitmap_bytes);
    case 4: TRY(check_page(redo)); return add_overflow_meta(redo, bitmap_page_found);
    default: return redo_refuse_block(redo);
    }
}

struct split_allocate {
    uint32_t new_bucket;
    unsigned old_flags, new_flags, updates;
};

static err_t read_split_allocate(struct redo *redo, struct split_allocate *ret_split)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    ret_split->new_bucket = cursor_u32(&fields);
    ret_split->old_flags = cursor_u16(&fields);
    ret_split->new_flags = cursor_u16(&fields);
    ret_split->updates = cursor_u8(&fields);
    return cursor_is_good(&fields) ? ERR_OK : redo_refuse_short(redo);
}

static err_t split_old_bucket(struct redo *redo, const struct split_allocate *split)
{
    TRY(check_page(redo));
    page_set_u16(redo->page, HASH_FLAGS, (uint16_t)split->old_flags);
    page_set_u32(redo->page, HASH_PREV, split->new_bucket);
    return ERR_OK;
}

static err_t split_meta(struct redo *redo, const struct split_allocate *split)
{
    struct cursor data = cursor_of(redo->block->data);
    TRY(check_page(redo));
    page_set_u32(redo->page, META_MAX_BUCKET, split->new_bucket);
    if (split->updates & SPLIT_UPDATES_MASKS) {
        page_set_u32(redo->page, META_LOW_MASK, cursor_u32(&data));
        page_set_u32(redo->page, META_HIGH_MASK, cursor_u32(&data));
    }
    if (split->updates & SPLIT_UPDATES_SPLIT_POINT) {
        uint32_t split_point = cursor_u32(&data);
        uint32_t pages = cursor_u32(&data);
        if (split_point >= SPLIT_POINTS_MAX) {
            return redo_refuse(redo, "the split point is out of range");
        }
        page_set_u32(redo->page, META_SPARES + (size_t)split_point * 4, pages);
        page_set_u32(redo->page, META_SPLIT_POINT, split_point);
    }
    return cursor_is_good(&data) ? ERR_OK : redo_refuse_short(redo);
}

static err_t split_allocate_page(struct redo *redo)
{
    struct split_allocate split;
    TRY(read_split_allocate(redo, &split));
    switch (redo->block_index) {
    case 0: return split_old_bucket(redo, &split);
    case 1: init_page(redo->page, split.new_bucket, split.new_bucket, split.new_flags); break;
    case 2: return split_meta(redo, &split);
    default: return redo_refuse_block(redo);
    }
    return ERR_OK;
}

static err_t split_complete(struct redo *redo)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    uint16_t old_flags = cursor_u16(&fields);
    uint16_t new_flags = cursor_u16(&fields);
    if (!cursor_is_good(&fields)) {
        return redo_refuse_short(redo);
    }
    if (redo->block_index > 1) {
        return redo_refuse_block(redo);
    }
    TRY(check_page(redo));
    page_set_u16(redo->page, HASH_FLAGS, redo->block_index == 0 ? old_flags : new_flags);
    return ERR_OK;
}

/* The tuples that a page gets: where each goes, u16, then the tuples themselves. */
static err_t add_moved_tuples(struct redo *redo, size_t count)
{
    struct cursor data = cursor_of(redo->block->data);
    struct bytes numbers = cursor_array(&data, count, 2);
    for (size_t i = 0; i < count; i++) {
        struct bytes tuple = index_tuple_read(&data);
        cursor_skip(&data, ALIGN8(tuple.size) - tuple.size);
        if (!cursor_is_good(&data)) {
            return redo_refuse_short(redo);
        }
        tuple.size = ALIGN8(tuple.size);
        TRY(page_add_item(redo->page, tuple, le_u16(numbers.data + 2 * i), 0, redo->msg));
    }
    return data.left == 0 ? ERR_OK : redo_refuse_short(redo);
}

static err_t delete_moved_tuples(struct redo *redo)
{
    struct bytes numbers = redo->block->data;
    numbers.size -= numbers.size % 2;
    return numbers.size > 0 ? page_index_delete_many(redo->page, numbers, redo->msg) : ERR_OK;
}

/* References: 0 the bucket, only to lock it; 1 the page that gets the tuples; 2 the one they leave.
 */
static err_t move_page_contents(struct redo *redo)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    size_t count = cursor_u16(&fields);
    if (!cursor_is_good(&fields)) {
        return redo_refuse_short(redo);
    }
    TRY(check_page(redo));
    switch (redo->block_index) {
    case 0: redo->keep_lsn = true; return ERR_OK;
    case 1: return count > 0 ? add_moved_tuples(redo, count) : ERR_OK;
    case 2: return delete_moved_tuples(redo);
    default: return redo_refuse_block(redo);
    }
}

/*
 * References: 0 the bucket, only to lock it; 1 the page that gets the tuples; 2 the overflow page
 * that becomes free; 3 and 4 its neighbours; 5 bitmap; 6 meta page.
 */
static err_t squeeze_page(struct redo *redo)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    uint32_t prev = cursor_u32(&fields);
    uint32_t next = cursor_u32(&fields);
    size_t count = cursor_u16(&fields);
    cursor_skip(&fields, 1);
    bool writes_to_prev = cursor_u8(&fields) != 0;
    uint32_t first_free = 0;
    if (!cursor_is_good(&fields)) {
        return redo_refuse_short(redo);
    }
    TRY(check_page(redo));
    switch (redo->block_index) {
    case 0: redo->keep_lsn = true; return ERR_OK;
    case 1:
        redo->keep_lsn = count == 0 && !writes_to_prev;
        TRY(count > 0 ? add_moved_tuples(redo, count) : ERR_OK);
        if (writes_to_prev) {
            page_set_u32(redo->page, HASH_NEXT, next);
        }
        return ERR_OK;
    case 2:
        page_init(redo->page, HASH_SPECIAL_SIZE);
        write_special(redo->page, NO_BLOCK, NO_BLOCK, NO_BUCKET, 0);
        return ERR_OK;
    case 3: page_set_u32(redo->page, HASH_NEXT, next); return ERR_OK;
    case 4: page_set_u32(redo->page, HASH_PREV, prev); return ERR_OK;
    case 5: return change_bitmap(redo, false);
    case 6:
        TRY(read_u32(redo, &first_free));
        page_set_u32(redo->page, META_FIRST_FREE, first_free);
        return ERR_OK;
    default: return redo_refuse_block(redo);
    }
}

static void clear_flags(struct redo *redo, unsigned flags)
{
    page_set_u16(redo->page, HASH_FLAGS, (uint16_t)(page_u16(redo->page, HASH_FLAGS) & ~flags));
}

static err_t delete (struct redo *redo)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    bool clears_dead = cursor_u8(&fields) != 0;
    if (!cursor_is_good(&fields)) {
        return redo_refuse_short(redo);
    }
    TRY(check_page(redo));
    switch (redo->block_index) {
    case 0: redo->keep_lsn = true; return ERR_OK; /* the bucket, only to lock it */
    case 1:
        TRY(delete_moved_tuples(redo));
        clear_flags(redo, clears_dead ? HASH_HAS_DEAD_TUPLES : 0);
        return ERR_OK;
    default: return redo_refuse_block(redo);
    }
}

static err_t split_cleanup(struct redo *redo)
{
    if (redo->block_index != 0) {
        return redo_refuse_block(redo);
    }
    TRY(check_page(redo));
    clear_flags(redo, HASH_NEEDS_SPLIT_CLEANUP);
    return ERR_OK;
}

static err_t update_meta_page(struct redo *redo)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    struct bytes tuples = cursor_bytes(&fields, sizeof(double));
    if (!cursor_is_good(&fields)) {
        return redo_refuse_short(redo);
    }
    if (redo->block_index != 0) {
        return redo_refuse_block(redo);
    }
    TRY(check_page(redo));
    memcpy(redo->page + META_TUPLES, tuples.data, sizeof(double));
    return ERR_OK;
}

static err_t vacuum_one_page(struct redo *redo)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    cursor_skip(&fields, 4); /* xid for hot standby */
    size_t count = cursor_u16(&fields);
    cursor_skip(&fields, 2);
    struct bytes numbers = cursor_array(&fields, count, 2);
    if (!cursor_is_good(&fields)) {
        return redo_refuse_short(redo);
    }
    TRY(check_page(redo));
    switch (redo->block_index) {
    case 0:
        TRY(page_index_delete_many(redo->page, numbers, redo->msg));
        clear_flags(redo, HASH_HAS_DEAD_TUPLES);
        return ERR_OK;
    case 1: meta_set_tuples(redo->page, meta_tuples(redo->page) - (double)count); return ERR_OK;
    default: return redo_refuse_block(redo);
    }
}

err_t hash_redo(struct redo *redo)
{
    if (redo->block == NULL) {
        return redo_refuse_block(redo);
    }
    switch (redo->op) {
    case HASH_OP_INIT_META_PAGE: return init_meta_page(redo);
    case HASH_OP_INIT_BITMAP_PAGE: return init_bitmap_page(redo);
    case HASH_OP_INSERT: return insert(redo);
    case HASH_OP_ADD_OVERFLOW_PAGE: return add_overflow_page(redo);
    case HASH_OP_SPLIT_ALLOCATE_PAGE: return split_allocate_page(redo);
    case HASH_OP_SPLIT_PAGE: return redo_refuse(redo, "a split without an image of the page");
    case HASH_OP_SPLIT_COMPLETE: return split_complete(redo);
    case HASH_OP_MOVE_PAGE_CONTENTS: return move_page_contents(redo);
    case HASH_OP_SQUEEZE_PAGE: return squeeze_page(redo);
    case HASH_OP_DELETE: return delete (redo);
    case HASH_OP_SPLIT_CLEANUP: return split_cleanup(redo);
    case HASH_OP_UPDATE_META_PAGE: return update_meta_page(redo);
    case HASH_OP_VACUUM_ONE_PAGE: return vacuum_one_page(redo);
    default: return redo_refuse_op(redo);
    }
}

/* Images of buckets in a split were taken before their special space changed. */
err_t hash_redo_after_image(struct redo *redo)
{
    struct split_allocate split;
    if (redo->op == HASH_OP_SPLIT_COMPLETE) {
        return split_complete(redo);
    }
    if (redo->op == HASH_OP_SPLIT_ALLOCATE_PAGE && redo->block_index == 0) {
        TRY(read_split_allocate(redo, &split));
        return split_old_bucket(redo, &split);
    }
    return ERR_OK;
}
