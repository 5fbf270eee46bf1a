/*
 * rel_size.h - sizes of relation forks by key: a bounded hash map. Threads: one owner.
 *
 * When it is full it is emptied: a cache may forget.
 */
#pragma once

#include "pageserver/store/page_store.h"

struct rel_size_cache {
    struct rel_size_entry *entries; /* open addressing; a power of two */
    size_t capacity, count;
};

#define REL_SIZES_MAX 65536

void rel_size_cache_deinit(struct rel_size_cache *cache);
void rel_size_cache_clear(struct rel_size_cache *cache);
bool rel_size_cache_get(
    const struct rel_size_cache *cache, struct page_key rel, struct fork_size *ret_size);
void rel_size_cache_put(struct rel_size_cache *cache, struct page_key rel, struct fork_size size);
