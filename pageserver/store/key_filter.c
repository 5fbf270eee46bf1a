#include "pageserver/store/key_filter.h"

#include <stdatomic.h>

#include "common/base/assert.h"
#include "common/base/checksum.h"
#include "common/base/mem.h"
#include "common/base/metric.h"

METRIC_GAUGE(memory_gauge, "pageserver_key_filters_memory_bytes", "memory of key filters");

#define KEYS_OF_FIRST 128u
#define LEVELS_MAX    13u /* a million pages: 2 MiB */
#define BITS_PER_KEY  16u
#define PROBES        6u
#define BLOCK_BITS    512u /* one cache line answers for one level */
#define BLOCK_WORDS   (BLOCK_BITS / 64)

struct key_filter {
    _Atomic unsigned level_count;
    uint32_t keys_in_last; /* the writer's */
    atomic_bool is_full;
    _Atomic uint64_t *levels[LEVELS_MAX];
};

static uint32_t keys_of(unsigned level)
{
    return KEYS_OF_FIRST << level;
}

static size_t blocks_of(unsigned level)
{
    return (size_t)keys_of(level) * BITS_PER_KEY / BLOCK_BITS;
}

uint64_t key_filter_hash(struct page_key key)
{
    uint8_t bytes[PAGE_KEY_SIZE];
    page_key_encode(0, key, 0, bytes);
    return hash64(bytes, PAGE_KEY_PREFIX_SIZE, 0);
}

struct key_filter *key_filter_create(void)
{
    return MEM_NEW(struct key_filter);
}

void key_filter_destroy(struct key_filter *filter)
{
    if (filter == NULL) {
        return;
    }
    unsigned count = atomic_load(&filter->level_count);
    for (unsigned level = 0; level < count; level++) {
        metric_add(&memory_gauge, -(int64_t)(blocks_of(level) * BLOCK_BITS / 8));
        mem_free((void *)filter->levels[level]);
    }
    mem_free(filter);
}

bool key_filter_is_useful(const struct key_filter *filter)
{
    return !atomic_load_explicit(&filter->is_full, memory_order_acquire);
}

/* The high half of the hash chooses the block, the low half six bits in it. */
static bool level_has(const struct key_filter *filter, unsigned level, uint64_t hash)
{
    const _Atomic uint64_t *block =
        filter->levels[level] + (hash >> 32) % blocks_of(level) * BLOCK_WORDS;
    uint64_t bits = hash & UINT32_MAX;
    for (unsigned i = 0; i < PROBES; i++) {
        unsigned bit = (unsigned)(bits & (BLOCK_BITS - 1));
        uint64_t word = atomic_load_explicit(&block[bit / 64], memory_order_relaxed);
        if ((word >> bit % 64 & 1) == 0) {
            return false;
        }
        bits = (bits * 0x9E3779B97F4A7C15u) >> 17;
    }
    return true;
}

static void level_add(struct key_filter *filter, unsigned level, uint64_t hash)
{
    _Atomic uint64_t *block = filter->levels[level] + (hash >> 32) % blocks_of(level) * BLOCK_WORDS;
    uint64_t bits = hash & UINT32_MAX;
    for (unsigned i = 0; i < PROBES; i++) {
        unsigned bit = (unsigned)(bits & (BLOCK_BITS - 1));
        atomic_fetch_or_explicit(&block[bit / 64], UINT64_C(1) << bit % 64, memory_order_release);
        bits = (bits * 0x9E3779B97F4A7C15u) >> 17;
    }
}

static bool has(const struct key_filter *filter, uint64_t hash)
{
    unsigned count = atomic_load_explicit(&filter->level_count, memory_order_acquire);
    while (count-- > 0) {
        if (level_has(filter, count, hash)) {
            return true;
        }
    }
    return false;
}

bool key_filter_may_have(const struct key_filter *filter, uint64_t hash)
{
    return !key_filter_is_useful(filter) || has(filter, hash);
}

void key_filter_add(struct key_filter *filter, uint64_t hash)
{
    unsigned count = atomic_load_explicit(&filter->level_count, memory_order_relaxed);
    if (!key_filter_is_useful(filter) || has(filter, hash)) {
        return;
    }
    if (count == 0 || filter->keys_in_last == keys_of(count - 1)) {
        if (count == LEVELS_MAX) {
            atomic_store_explicit(&filter->is_full, true, memory_order_release);
            return;
        }
        size_t bytes = blocks_of(count) * BLOCK_BITS / 8;
        filter->levels[count] = mem_zalloc(bytes);
        filter->keys_in_last = 0;
        metric_add(&memory_gauge, (int64_t)bytes);
        atomic_store_explicit(&filter->level_count, ++count, memory_order_release);
    }
    level_add(filter, count - 1, hash);
    filter->keys_in_last++;
}
