/*
 * page_cache.h - the newest page of a key, ready to send: a fixed number of slots, second chance.
 *
 * An entry holds a page that is right for every LSN from `lsn` (of its newest version) to the
 * timeline's last_record_lsn. Ingest removes the entry of a key before it advances past a change of
 * it. Only pages as of last_record_lsn may be put in. Threads: loop only.
 */
#pragma once

#include "common/pg/page.h"
#include "common/pg/page_key.h"

struct page_cache;

struct page_cache *page_cache_create(size_t bytes); /* 0: nothing is ever found */
void page_cache_destroy(struct page_cache *cache);
uint32_t page_cache_size(const struct page_cache *cache); /* in pages */

/* `timeline` is timeline_uid(). NULL, or the page: valid until the next put. */
const uint8_t *page_cache_get(
    struct page_cache *cache, uint64_t timeline, struct page_key key, lsn_t lsn);
void page_cache_put(
    struct page_cache *cache,
    uint64_t timeline,
    struct page_key key,
    lsn_t lsn,
    const uint8_t *page);
void page_cache_remove(struct page_cache *cache, uint64_t timeline, struct page_key key);
