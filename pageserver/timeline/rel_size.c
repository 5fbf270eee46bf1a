#include "pageserver/timeline/rel_size.h"

#include "common/base/assert.h"
#include "common/base/mem.h"

#define CAPACITY_MIN 8

struct rel_size_entry {
    bool used;
    struct page_key rel;
    struct fork_size size;
};

void rel_size_cache_deinit(struct rel_size_cache *cache)
{
    mem_free(cache->entries);
    *cache = (struct rel_size_cache){0};
}

void rel_size_cache_clear(struct rel_size_cache *cache)
{
    rel_size_cache_deinit(cache);
}

static bool same_fork(struct page_key a, struct page_key b)
{
    return a.rel == b.rel && a.fork == b.fork && a.db == b.db && a.spc == b.spc;
}

static uint64_t mix(uint64_t value)
{
    value ^= value >> 32;
    value *= 0x9E3779B97F4A7C15u;
    return value ^ value >> 29;
}

static uint64_t hash(struct page_key rel)
{
    uint64_t low = (uint64_t)rel.rel << 8 | rel.fork;
    uint64_t high = (uint64_t)rel.db << 32 | rel.spc;
    return mix(low + mix(high));
}

/* The entry of `rel`, or the free one where it belongs. */
static struct rel_size_entry *find(const struct rel_size_cache *cache, struct page_key rel)
{
    size_t mask = cache->capacity - 1;
    size_t at = hash(rel) & mask;
    while (cache->entries[at].used && !same_fork(cache->entries[at].rel, rel)) {
        at = (at + 1) & mask;
    }
    return &cache->entries[at];
}

static void grow(struct rel_size_cache *cache)
{
    struct rel_size_cache bigger = {
        .capacity = cache->capacity == 0 ? CAPACITY_MIN : 2 * cache->capacity};
    bigger.entries = MEM_ARRAY(struct rel_size_entry, bigger.capacity);
    for (size_t i = 0; i < cache->capacity; i++) {
        if (cache->entries[i].used) {
            *find(&bigger, cache->entries[i].rel) = cache->entries[i];
        }
    }
    bigger.count = cache->count;
    mem_free(cache->entries);
    *cache = bigger;
}

bool rel_size_cache_get(
    const struct rel_size_cache *cache, struct page_key rel, struct fork_size *ret_size)
{
    if (cache->capacity == 0) {
        return false;
    }
    const struct rel_size_entry *entry = find(cache, rel);
    if (entry->used) {
        *ret_size = entry->size;
    }
    return entry->used;
}

void rel_size_cache_put(struct rel_size_cache *cache, struct page_key rel, struct fork_size size)
{
    if (cache->count == REL_SIZES_MAX) {
        rel_size_cache_clear(cache);
    }
    if (cache->count * 2 >= cache->capacity) {
        grow(cache);
    }
    struct rel_size_entry *entry = find(cache, rel);
    cache->count += entry->used ? 0 : 1;
    *entry = (struct rel_size_entry){.used = true, .rel = rel, .size = size};
}
