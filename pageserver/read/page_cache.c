#include "pageserver/read/page_cache.h"

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/base/metric.h"

METRIC_COUNTER(hits, "pageserver_page_cache_hits_total", "pages found ready in the page cache");
METRIC_COUNTER(misses, "pageserver_page_cache_misses_total", "pages not found in the page cache");

#define NONE UINT32_MAX

struct slot {
    uint64_t timeline;
    struct page_key key;
    lsn_t lsn;
    uint32_t next; /* in its bucket, or NONE */
    bool used, touched;
};

struct page_cache {
    uint32_t slot_count, bucket_count; /* buckets: a power of two */
    uint32_t hand;                     /* of the clock that looks for a victim */
    struct slot *slots;
    uint32_t *buckets;
    uint8_t *pages;
};

struct page_cache *page_cache_create(size_t bytes)
{
    struct page_cache *cache = MEM_NEW(struct page_cache);
    cache->slot_count = (uint32_t)MIN_OF(bytes / PAGE_SIZE, (size_t)NONE / 2);
    if (cache->slot_count == 0) {
        return cache;
    }
    cache->bucket_count = 1;
    while (cache->bucket_count < cache->slot_count) {
        cache->bucket_count *= 2;
    }
    cache->slots = MEM_ARRAY(struct slot, cache->slot_count);
    cache->buckets = MEM_ARRAY(uint32_t, cache->bucket_count);
    cache->pages = mem_alloc((size_t)cache->slot_count * PAGE_SIZE); /* touched on first use */
    memset(cache->buckets, 0xFF, cache->bucket_count * sizeof(cache->buckets[0]));
    return cache;
}

void page_cache_destroy(struct page_cache *cache)
{
    if (cache != NULL) {
        mem_free(cache->slots);
        mem_free(cache->buckets);
        mem_free(cache->pages);
        mem_free(cache);
    }
}

uint32_t page_cache_size(const struct page_cache *cache)
{
    return cache->slot_count;
}

static uint64_t mix(uint64_t value)
{
    value ^= value >> 32;
    value *= 0x9E3779B97F4A7C15u;
    return value ^ value >> 29;
}

static uint32_t *bucket_of(const struct page_cache *cache, uint64_t timeline, struct page_key key)
{
    uint64_t hash = mix(timeline + ((uint64_t)key.db << 32 | key.spc));
    hash = mix(hash + ((uint64_t)key.rel << 8 | key.fork));
    hash = mix(hash + key.block);
    return &cache->buckets[hash & (cache->bucket_count - 1)];
}

/* The link that leads to the slot, in the bucket or in the slot before; it reads NONE when absent.
 */
static uint32_t *find_link(const struct page_cache *cache, uint64_t timeline, struct page_key key)
{
    uint32_t *link = bucket_of(cache, timeline, key);
    while (*link != NONE) {
        struct slot *slot = &cache->slots[*link];
        if (slot->timeline == timeline && page_key_equal(slot->key, key)) {
            break;
        }
        link = &slot->next;
    }
    return link;
}

const uint8_t *page_cache_get(
    struct page_cache *cache, uint64_t timeline, struct page_key key, lsn_t lsn)
{
    uint32_t at = cache->slot_count == 0 ? NONE : *find_link(cache, timeline, key);
    if (at == NONE || cache->slots[at].lsn > lsn) {
        metric_add(&misses, 1);
        return NULL;
    }
    metric_add(&hits, 1);
    cache->slots[at].touched = true;
    return cache->pages + (size_t)at * PAGE_SIZE;
}

static void unlink_slot(uint32_t *link, struct slot *slot)
{
    *link = slot->next;
    slot->used = false;
}

/* Clock: a slot that was touched since the hand last passed gets another round. */
static uint32_t take_slot(struct page_cache *cache)
{
    for (;;) {
        uint32_t at = cache->hand;
        struct slot *slot = &cache->slots[at];
        cache->hand = at + 1 == cache->slot_count ? 0 : at + 1;
        if (!slot->used) {
            return at;
        }
        if (!slot->touched) {
            unlink_slot(find_link(cache, slot->timeline, slot->key), slot);
            return at;
        }
        slot->touched = false;
    }
}

void page_cache_put(
    struct page_cache *cache,
    uint64_t timeline,
    struct page_key key,
    lsn_t lsn,
    const uint8_t *page)
{
    if (cache->slot_count == 0) {
        return;
    }
    uint32_t at = *find_link(cache, timeline, key);
    if (at == NONE) {
        at = take_slot(cache);
        uint32_t *bucket = bucket_of(cache, timeline, key);
        cache->slots[at] =
            (struct slot){.timeline = timeline, .key = key, .next = *bucket, .used = true};
        *bucket = at;
    }
    cache->slots[at].lsn = lsn;
    memcpy(cache->pages + (size_t)at * PAGE_SIZE, page, PAGE_SIZE);
}

void page_cache_remove(struct page_cache *cache, uint64_t timeline, struct page_key key)
{
    if (cache->slot_count == 0) {
        return;
    }
    uint32_t *link = find_link(cache, timeline, key);
    if (*link != NONE) {
        unlink_slot(link, &cache->slots[*link]);
    }
}
