/*
 * page_batch.h - versions of any timelines, gathered and then put into a page store: what the tests
 * of everything above the store begin with.
 */
#pragma once

#include <endian.h>

#include "common/base/mem.h"
#include "pageserver/store/page_store.h"

struct page_batch_entry {
    uint32_t timeline;
    struct page_key key;
    lsn_t lsn;
    uint8_t tag, block_index;
    struct bytes value; /* a copy of its own */
    bool is_position;
    struct ingest_position position;
};

struct page_batch {
    struct page_batch_entry *entries;
    size_t count;
};

static inline struct page_batch *page_batch_create(void)
{
    return MEM_NEW(struct page_batch);
}

static inline void page_batch_clear(struct page_batch *batch)
{
    for (size_t i = 0; i < batch->count; i++) {
        mem_free((void *)(uintptr_t)batch->entries[i].value.data);
    }
    batch->count = 0;
}

static inline void page_batch_destroy(struct page_batch *batch)
{
    page_batch_clear(batch);
    mem_free(batch->entries);
    mem_free(batch);
}

static inline struct page_batch_entry *page_batch_add(struct page_batch *batch, uint32_t timeline)
{
    batch->entries =
        mem_realloc(batch->entries, (batch->count + 1) * sizeof(struct page_batch_entry));
    struct page_batch_entry *entry = &batch->entries[batch->count++];
    *entry = (struct page_batch_entry){.timeline = timeline};
    return entry;
}

static inline void page_batch_put(
    struct page_batch *batch,
    uint32_t timeline,
    struct page_key key,
    lsn_t lsn,
    uint8_t tag,
    uint8_t block_index,
    struct bytes value)
{
    struct page_batch_entry *entry = page_batch_add(batch, timeline);
    entry->key = key;
    entry->lsn = lsn;
    entry->tag = tag;
    entry->block_index = block_index;
    entry->value = bytes_of(value.size == 0 ? NULL : mem_dup(value.data, value.size), value.size);
}

static inline void page_batch_put_rel_size(
    struct page_batch *batch,
    uint32_t timeline,
    struct page_key rel,
    lsn_t lsn,
    bool exists,
    uint32_t blocks)
{
    uint8_t value[REL_SIZE_VALUE_SIZE - 1] = {exists};
    blocks = htole32(blocks);
    memcpy(value + 1, &blocks, sizeof(blocks));
    page_batch_put(
        batch, timeline, page_key_size_of(rel), lsn, VALUE_STATE, 0,
        bytes_of(value, sizeof(value)));
}

static inline void page_batch_put_position(
    struct page_batch *batch, uint32_t timeline, struct ingest_position position)
{
    struct page_batch_entry *entry = page_batch_add(batch, timeline);
    entry->is_position = true;
    entry->position = position;
}

static inline err_t page_batch_write_entry(
    struct page_store *store, const struct page_batch_entry *entry, struct errmsg *msg)
{
    struct page_writer *writer = NULL;
    TRY(page_writer_open(store, entry->timeline, &writer, msg));
    err_t err = ERR_OK;
    if (entry->is_position) {
        err = page_writer_commit(writer, entry->position, msg);
    } else {
        page_writer_put(
            writer, entry->key, entry->lsn, entry->tag, entry->block_index, entry->value);
    }
    page_writer_close(writer);
    return err;
}

static inline err_t page_store_write(
    struct page_store *store, const struct page_batch *batch, struct errmsg *msg)
{
    for (size_t i = 0; i < batch->count; i++) {
        TRY(page_batch_write_entry(store, &batch->entries[i], msg));
    }
    return ERR_OK;
}
