#include "pageserver/store/page_index.h"

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/base/metric.h"

METRIC_GAUGE(
    memory_gauge,
    "pageserver_page_index_memory_bytes",
    "memory of the indexes from page to branch");

/* Small tables grow one at a time: nobody waits for a large one to be copied. */
#define SHARD_BITS 6
#define SHARDS     (1u << SHARD_BITS)
#define SLOTS_MIN  16
#define NOBODY     0u         /* a free slot: no timeline has this number */
#define MANY       UINT32_MAX /* nor this one: the page is on more than there is room for */

struct entry {
    uint32_t tag, timeline;
};

/* Open addressing; a page has one slot for each of its timelines. */
struct shard {
    struct entry *slots;
    size_t slot_count, used; /* at most half of them */
};

struct page_index {
    struct shard shards[SHARDS];
};

struct page_index *page_index_create(void)
{
    return MEM_NEW(struct page_index);
}

static void account(size_t slots_before, size_t slots_now)
{
    metric_add(
        &memory_gauge,
        ((int64_t)slots_now - (int64_t)slots_before) * (int64_t)sizeof(struct entry));
}

void page_index_destroy(struct page_index *index)
{
    if (index == NULL) {
        return;
    }
    for (size_t i = 0; i < SHARDS; i++) {
        account(index->shards[i].slot_count, 0);
        mem_free(index->shards[i].slots);
    }
    mem_free(index);
}

static size_t shard_of(uint64_t hash)
{
    return (size_t)(hash >> (64 - SHARD_BITS));
}

static uint32_t tag_of(uint64_t hash)
{
    return (uint32_t)hash;
}

/* From the tag alone, so that a table can grow without the whole hash. */
static size_t home_of(const struct shard *shard, uint32_t tag)
{
    return (size_t)(tag * UINT64_C(0x9E3779B97F4A7C15) >> 32) & (shard->slot_count - 1);
}

static void put(struct shard *shard, struct entry entry)
{
    size_t at = home_of(shard, entry.tag);
    while (shard->slots[at].timeline != NOBODY) {
        at = (at + 1) & (shard->slot_count - 1);
    }
    shard->slots[at] = entry;
    shard->used++;
}

/* All but those of `without`. */
static void rebuild(struct shard *shard, size_t slot_count, uint32_t without)
{
    struct shard made = {.slots = MEM_ARRAY(struct entry, slot_count), .slot_count = slot_count};
    for (size_t i = 0; i < shard->slot_count; i++) {
        uint32_t timeline = shard->slots[i].timeline;
        if (timeline != NOBODY && timeline != without) {
            put(&made, shard->slots[i]);
        }
    }
    account(shard->slot_count, slot_count);
    mem_free(shard->slots);
    *shard = made;
}

bool page_index_add(struct page_index *index, uint64_t hash, uint32_t timeline)
{
    ASSERT(timeline != NOBODY);
    ASSERT(timeline != MANY);
    struct shard *shard = &index->shards[shard_of(hash)];
    if (2 * (shard->used + 1) > shard->slot_count) {
        rebuild(shard, shard->slot_count == 0 ? SLOTS_MIN : 2 * shard->slot_count, NOBODY);
    }
    uint32_t tag = tag_of(hash);
    size_t count = 0;
    for (size_t at = home_of(shard, tag); shard->slots[at].timeline != NOBODY;
         at = (at + 1) & (shard->slot_count - 1)) {
        const struct entry *entry = &shard->slots[at];
        if (entry->tag == tag && (entry->timeline == timeline || entry->timeline == MANY)) {
            return false;
        }
        count += entry->tag == tag ? 1 : 0;
    }
    bool is_full = count == PAGE_INDEX_TIMELINES_MAX;
    put(shard, (struct entry){.tag = tag, .timeline = is_full ? MANY : timeline});
    return !is_full;
}

bool page_index_find(
    const struct page_index *index,
    uint64_t hash,
    uint32_t timelines[PAGE_INDEX_TIMELINES_MAX],
    size_t *ret_count)
{
    const struct shard *shard = &index->shards[shard_of(hash)];
    uint32_t tag = tag_of(hash);
    size_t count = 0;
    if (shard->slot_count > 0) {
        for (size_t at = home_of(shard, tag); shard->slots[at].timeline != NOBODY;
             at = (at + 1) & (shard->slot_count - 1)) {
            const struct entry *entry = &shard->slots[at];
            if (entry->tag != tag) {
                continue;
            }
            if (entry->timeline == MANY || count == PAGE_INDEX_TIMELINES_MAX) {
                return false;
            }
            timelines[count++] = entry->timeline;
        }
    }
    *ret_count = count;
    return true;
}

void page_index_forget(struct page_index *index, uint32_t timeline)
{
    for (size_t i = 0; i < SHARDS; i++) {
        struct shard *shard = &index->shards[i];
        bool has = false;
        for (size_t at = 0; at < shard->slot_count && !has; at++) {
            has = shard->slots[at].timeline == timeline;
        }
        if (has) {
            rebuild(shard, shard->slot_count, timeline);
        }
    }
}
