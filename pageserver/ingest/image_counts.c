#include "pageserver/ingest/image_counts.h"

#include "common/base/mem.h"

#define CAPACITY_MIN 256
#define COUNT_BITS   8

void image_counts_deinit(struct image_counts *counts)
{
    mem_free(counts->slots);
    *counts = (struct image_counts){0};
}

void image_counts_clear(struct image_counts *counts)
{
    image_counts_deinit(counts);
}

static uint64_t mix(uint64_t value)
{
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9u;
    value = (value ^ value >> 27) * 0x94D049BB133111EBu;
    return value ^ value >> 31;
}

/* The low bits, where the count goes, are 0. */
static uint64_t name_of(struct page_key key)
{
    uint64_t low = (uint64_t)key.rel << 32 | key.block;
    uint64_t high = (uint64_t)key.db << 32 | key.spc;
    return mix(low + mix(high + mix(key.fork + 1u))) << COUNT_BITS;
}

static size_t place_of(const struct image_counts *counts, uint64_t name)
{
    return (size_t)(name >> (64 - 32)) & (counts->capacity - 1);
}

/* The slot of the page, or the free one where it belongs. */
static uint64_t *find(const struct image_counts *counts, uint64_t name)
{
    size_t mask = counts->capacity - 1;
    size_t at = place_of(counts, name);
    while (counts->slots[at] != 0 && counts->slots[at] >> COUNT_BITS != name >> COUNT_BITS) {
        at = (at + 1) & mask;
    }
    return &counts->slots[at];
}

static void grow(struct image_counts *counts)
{
    struct image_counts bigger = {
        .capacity = counts->capacity == 0 ? CAPACITY_MIN : 2 * counts->capacity,
        .count = counts->count,
    };
    bigger.slots = MEM_ARRAY(uint64_t, bigger.capacity);
    for (size_t i = 0; i < counts->capacity; i++) {
        if (counts->slots[i] != 0) {
            *find(&bigger, counts->slots[i]) = counts->slots[i];
        }
    }
    mem_free(counts->slots);
    *counts = bigger;
}

void image_counts_prefetch(const struct image_counts *counts, struct page_key key)
{
    if (counts->capacity > 0) {
        __builtin_prefetch(&counts->slots[place_of(counts, name_of(key))]);
    }
}

bool image_counts_get(const struct image_counts *counts, struct page_key key, unsigned *ret_records)
{
    if (counts->capacity == 0) {
        return false;
    }
    uint64_t slot = *find(counts, name_of(key));
    if (slot != 0) {
        *ret_records = (unsigned)(slot & UINT8_MAX) - 1;
    }
    return slot != 0;
}

void image_counts_set(struct image_counts *counts, struct page_key key, unsigned records)
{
    if (2 * counts->count >= counts->capacity) {
        if (counts->count >= IMAGE_PAGES_MAX) {
            image_counts_clear(counts);
        }
        grow(counts);
    }
    uint64_t name = name_of(key);
    uint64_t *slot = find(counts, name);
    counts->count += *slot == 0 ? 1 : 0;
    *slot = name | (MIN_OF(records, IMAGE_COUNT_MAX) + 1);
}
