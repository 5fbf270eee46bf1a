/*
 * page_index.h - which timelines of a store have a page in the kv: from the page to the timelines,
 * where a key_filter answers for one timeline.
 *
 * A read through a thousand branches asks here once instead of a thousand filters. It knows pages
 * by a hash of 38 bits, so it may name a timeline too many; it never leaves one out that was added.
 * A page that is on very many timelines is not followed any further: it answers "too many", and
 * whoever asks goes from timeline to timeline.
 *
 * Threads: none of its own; the store's lock is held around every call.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE_INDEX_TIMELINES_MAX 64 /* of one page */

struct page_index;

struct page_index *page_index_create(void);
void page_index_destroy(struct page_index *index); /* NULL is fine */
/* `hash`: key_filter_hash() of the page. False: it was there, or the page is on too many. */
bool page_index_add(struct page_index *index, uint64_t hash, uint32_t timeline);
/* In no order. False: too many to say. */
bool page_index_find(
    const struct page_index *index,
    uint64_t hash,
    uint32_t timelines[PAGE_INDEX_TIMELINES_MAX],
    size_t *ret_count);
/* The timeline is gone, and its number never comes back. Looks at all that there is. */
void page_index_forget(struct page_index *index, uint32_t timeline);
