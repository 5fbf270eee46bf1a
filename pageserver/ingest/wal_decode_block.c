/*
 * wal_decode_block.c - block references to versions, and the sizes of the forks that they extend.
 *
 * Sources: xlogutils.c (XLogReadBufferForRedoExtended), heapam.c, visibilitymap.c of Postgres 17.
 * The size of a fork before the record decides whether a block is new; it is looked up once a fork.
 */
#include "pageserver/ingest/wal_decode_private.h"

/*
 * A hash index makes its buckets long before it writes to them, by the last page alone; nothing
 * else skips more than a few blocks. Zero pages are versions too, so there is an end to it.
 */
#define GAP_BLOCKS_MAX ((uint32_t)1 << 22)

enum { XLOG_OP_FPI_FOR_HINT = 0xA0, XLOG_OP_FPI = 0xB0 };
enum { HASH_OP_SPLIT_ALLOCATE_PAGE = 0x40, HASH_OP_SPLIT_COMPLETE = 0x60 };
enum { GIST_OP_PAGE_UPDATE = 0x00, GIST_OP_PAGE_SPLIT = 0x30 };

static bool same_fork(struct page_key a, struct page_key b)
{
    return a.rel == b.rel && a.fork == b.fork && a.db == b.db && a.spc == b.spc;
}

err_t fork_find(struct decoding *decoding, struct page_key rel, struct touched_fork **ret_fork)
{
    for (size_t i = 0; i < decoding->fork_count; i++) {
        if (same_fork(decoding->forks[i].rel, rel)) {
            *ret_fork = &decoding->forks[i];
            return ERR_OK;
        }
    }
    struct wal_state_source *source = decoding->state->source;
    uint32_t blocks = 0;
    rel = page_key_size_of(rel);
    err_t err = source->rel_size(source, rel, &blocks, decoding->msg);
    if (err != ERR_OK && err != ERR_NOT_FOUND) {
        return err;
    }
    ASSERT(decoding->fork_count < FORKS_MAX); /* one a block reference, and a few */
    struct touched_fork *fork = &decoding->forks[decoding->fork_count++];
    *fork = (struct touched_fork){
        .rel = rel,
        .old_blocks = err == ERR_OK ? blocks : 0,
        .new_blocks = err == ERR_OK ? blocks : 0,
        .exists = err == ERR_OK,
    };
    *ret_fork = fork;
    return ERR_OK;
}

/* The record writes this block: is it new, then? Grows the fork when it has to. */
static err_t note_block(struct decoding *decoding, struct page_key key, bool *ret_is_new)
{
    struct touched_fork *fork;
    TRY(fork_find(decoding, key, &fork));
    *ret_is_new = key.block >= fork->old_blocks;
    if (!*ret_is_new) {
        return ERR_OK;
    }
    if (key.block - fork->old_blocks > GAP_BLOCKS_MAX) {
        MARK("wal_decode.huge_gap");
        return err_set(
            decoding->msg, ERR_CORRUPT, "%s is %" PRIu32 " blocks behind its end, at most %" PRIu32,
            page_key_text(key).text, key.block - fork->old_blocks, GAP_BLOCKS_MAX);
    }
    ASSERT(decoding->born_count < FORKS_MAX);
    decoding->born[decoding->born_count++] = key;
    fork->new_blocks = MAX_OF(fork->new_blocks, key.block + 1);
    fork->changed = true;
    return ERR_OK;
}

static bool is_born(const struct decoding *decoding, struct page_key key)
{
    for (size_t i = 0; i < decoding->born_count; i++) {
        if (page_key_equal(decoding->born[i], key)) {
            return true;
        }
    }
    return false;
}

err_t flush_forks(struct decoding *decoding)
{
    for (size_t i = 0; i < decoding->fork_count; i++) {
        const struct touched_fork *fork = &decoding->forks[i];
        if (!fork->changed) {
            continue;
        }
        struct page_key key = fork->rel;
        for (key.block = fork->old_blocks; key.block < fork->new_blocks; key.block++) {
            if (!is_born(decoding, key)) {
                put_zero_page(decoding, key);
            }
        }
        put_rel_size(decoding, fork->rel, true, fork->new_blocks);
    }
    return ERR_OK;
}

/* Flags of these pages are set after the image was taken: redo applies the record to it as well. */
static bool redo_goes_on_after_image(const struct decoding *decoding, size_t index)
{
    switch (decoding->record->rmgr) {
    case RM_HASH:
        return (decoding->op == HASH_OP_SPLIT_ALLOCATE_PAGE && index == 0) ||
               (decoding->op == HASH_OP_SPLIT_COMPLETE && index <= 1);
    case RM_GIST:
        return (decoding->op == GIST_OP_PAGE_UPDATE && index == 1) ||
               (decoding->op == GIST_OP_PAGE_SPLIT && index == 0);
    default: return false;
    }
}

static err_t put_image(struct decoding *decoding, const struct wal_block *block)
{
    uint8_t page[PAGE_SIZE];
    TRY(wal_block_restore_image(block, page, decoding->msg));
    if (!page_is_new(page)) {
        page_set_lsn(page, decoding->record->end_lsn);
    }
    decoding->sink->put(decoding->sink, block->key, VALUE_IMAGE, 0, bytes_of(page, sizeof(page)));
    return ERR_OK;
}

static err_t decode_block(struct decoding *decoding, size_t index)
{
    const struct wal_record *record = decoding->record;
    const struct wal_block *block = &record->blocks[index];
    bool has_page = block->has_image && block->apply_image;
    if (record->rmgr == RM_XLOG && !has_page) {
        if (decoding->op == XLOG_OP_FPI_FOR_HINT) {
            return ERR_OK; /* full_page_writes is off: the hint is not kept */
        }
        MARK("wal_decode.fpi_without_image");
        return decode_refuse(decoding, "a full-page image without an image");
    }
    bool is_new;
    TRY(note_block(decoding, block->key, &is_new));
    bool goes_on = has_page && redo_goes_on_after_image(decoding, index);
    if (has_page && !goes_on) {
        return put_image(decoding, block);
    }
    uint8_t tag = is_new || block->will_init || goes_on ? VALUE_INIT : VALUE_DELTA;
    decoding->sink->put(decoding->sink, block->key, tag, (uint8_t)index, record->bytes);
    return ERR_OK;
}

/* One version a key: Postgres never names a page twice in a record. */
static bool is_named(const struct wal_record *record, size_t before, struct page_key key)
{
    for (size_t i = 0; i < before; i++) {
        if (record->blocks[i].in_use && page_key_equal(record->blocks[i].key, key)) {
            return true;
        }
    }
    return false;
}

err_t decode_blocks(struct decoding *decoding)
{
    const struct wal_record *record = decoding->record;
    for (size_t i = 0; i < record->block_count; i++) {
        if (!record->blocks[i].in_use) {
            continue;
        }
        if (is_named(record, i, record->blocks[i].key)) {
            MARK("wal_decode.block_twice");
            return decode_refuse(decoding, "the same block twice");
        }
        TRY(decode_block(decoding, i));
    }
    return ERR_OK;
}

/* -- visibility map pages that a heap record changes without naming them -- */

enum {
    HEAP_OP_MASK = 0x70,
    HEAP_OP_INSERT = 0x00,
    HEAP_OP_DELETE = 0x10,
    HEAP_OP_UPDATE = 0x20,
    HEAP_OP_HOT_UPDATE = 0x40,
    HEAP_OP_LOCK = 0x60,
    HEAP2_OP_MULTI_INSERT = 0x50,
    HEAP2_OP_LOCK_UPDATED = 0x60
};

/* Where the flags stand in the main data; bit 0 (and for updates 1): bits were cleared. */
enum {
    INSERT_FLAGS_AT = 2,
    MULTI_INSERT_FLAGS_AT = 0,
    MULTI_INSERT_COUNT_AT = 2,
    DELETE_FLAGS_AT = 7,
    UPDATE_FLAGS_AT = 7,
    LOCK_FLAGS_AT = 7
};
/* How long it is: redo reads all of it, and what ingest lets in it must be able to apply. */
enum { INSERT_SIZE = 3, DELETE_SIZE = 8, UPDATE_SIZE = 14, LOCK_SIZE = 8, MULTI_INSERT_SIZE = 4 };
enum { HEAP_OP_INIT_PAGE = 0x80 };
enum { VM_CLEARED = 0x01, VM_NEW_CLEARED = 0x02 };

/* Which references are which. */
enum { BLOCK_HEAP = 0, BLOCK_VM = 1, BLOCK_OLD_HEAP = 1, BLOCK_VM_NEW = 2, BLOCK_VM_OLD = 3 };

static struct page_key vm_page_of(struct page_key heap)
{
    heap.fork = FORK_VM;
    heap.block /= VM_BLOCKS_PER_PAGE;
    return heap;
}

static err_t put_vm_page(struct decoding *decoding, struct page_key key)
{
    bool is_new;
    if (is_named(decoding->record, decoding->record->block_count, key)) {
        MARK("wal_decode.vm_page_twice");
        return decode_refuse(decoding, "the same block twice, as the map page of a heap block");
    }
    TRY(note_block(decoding, key, &is_new));
    decoding->sink->put(
        decoding->sink, key, is_new ? VALUE_INIT : VALUE_DELTA, VALUE_BLOCK_IMPLIED,
        decoding->record->bytes);
    return ERR_OK;
}

static err_t heap_flags(
    const struct decoding *decoding, size_t at, size_t size_min, uint8_t *ret_flags)
{
    struct bytes main = decoding->record->main_data;
    if (main.size < size_min || !has_block(decoding->record, BLOCK_HEAP)) {
        MARK("wal_decode.short_heap_record");
        return decode_refuse(decoding, "too short, or without a heap block");
    }
    *ret_flags = main.data[at];
    return ERR_OK;
}

/* The record changes one heap block; 17.11 names the map page, older minor versions do not. */
static err_t decode_vm_of_one(struct decoding *decoding, size_t flags_at, size_t size_min)
{
    const struct wal_record *record = decoding->record;
    uint8_t flags = 0;
    TRY(heap_flags(decoding, flags_at, size_min, &flags));
    if ((flags & VM_CLEARED) == 0 || has_block(record, BLOCK_VM)) {
        return ERR_OK;
    }
    return put_vm_page(decoding, vm_page_of(record->blocks[BLOCK_HEAP].key));
}

static err_t decode_vm_of_update(struct decoding *decoding)
{
    const struct wal_record *record = decoding->record;
    uint8_t flags = 0;
    TRY(heap_flags(decoding, UPDATE_FLAGS_AT, UPDATE_SIZE, &flags));
    if ((flags & (VM_CLEARED | VM_NEW_CLEARED)) == 0 || has_block(record, BLOCK_VM_NEW) ||
        has_block(record, BLOCK_VM_OLD)) {
        return ERR_OK;
    }
    size_t old_index = has_block(record, BLOCK_OLD_HEAP) ? BLOCK_OLD_HEAP : BLOCK_HEAP;
    struct page_key old_page = vm_page_of(record->blocks[old_index].key);
    struct page_key new_page = vm_page_of(record->blocks[BLOCK_HEAP].key);
    bool old_cleared = (flags & VM_CLEARED) != 0, new_cleared = (flags & VM_NEW_CLEARED) != 0;
    if (old_cleared) {
        TRY(put_vm_page(decoding, old_page));
    }
    if (new_cleared && !(old_cleared && page_key_equal(old_page, new_page))) {
        TRY(put_vm_page(decoding, new_page));
    }
    return ERR_OK;
}

err_t decode_heap(struct decoding *decoding)
{
    switch (decoding->op & HEAP_OP_MASK) {
    case HEAP_OP_INSERT: return decode_vm_of_one(decoding, INSERT_FLAGS_AT, INSERT_SIZE);
    case HEAP_OP_DELETE: return decode_vm_of_one(decoding, DELETE_FLAGS_AT, DELETE_SIZE);
    case HEAP_OP_LOCK: return decode_vm_of_one(decoding, LOCK_FLAGS_AT, LOCK_SIZE);
    case HEAP_OP_UPDATE:
    case HEAP_OP_HOT_UPDATE: return decode_vm_of_update(decoding);
    default: return ERR_OK;
    }
}

/* A page that is not made anew has the number of each tuple's item behind the count. */
static size_t multi_insert_size(const struct decoding *decoding)
{
    struct bytes main = decoding->record->main_data;
    bool has_numbers = (decoding->op & HEAP_OP_INIT_PAGE) == 0 && main.size >= MULTI_INSERT_SIZE;
    size_t count = has_numbers ? le_u16(main.data + MULTI_INSERT_COUNT_AT) : 0;
    return MULTI_INSERT_SIZE + 2 * count;
}

err_t decode_heap2(struct decoding *decoding)
{
    switch (decoding->op & HEAP_OP_MASK) {
    case HEAP2_OP_MULTI_INSERT:
        return decode_vm_of_one(decoding, MULTI_INSERT_FLAGS_AT, multi_insert_size(decoding));
    case HEAP2_OP_LOCK_UPDATED: return decode_vm_of_one(decoding, LOCK_FLAGS_AT, LOCK_SIZE);
    default: return ERR_OK;
    }
}
