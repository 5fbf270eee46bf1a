/*
 * image_counts.h - how many records lie on each page since its last image: what decides when ingest
 * makes the next one. Pure memory. Threads: one owner.
 *
 * A page is known by 56 bits of a hash of its key: two pages that share them would count together,
 * once in 10^10 pairs of pages. When it is full it forgets everything: who needs a count that is
 * not there looks into the store.
 */
#pragma once

#include "common/pg/page_key.h"

struct image_counts {
    uint64_t *slots; /* hash << 8 | count + 1; 0: free; open addressing, a power of two */
    size_t capacity, count;
};

#define IMAGE_COUNT_MAX 254u
#define IMAGE_PAGES_MAX (512 * 1024) /* 8 MiB */

void image_counts_deinit(struct image_counts *counts);
void image_counts_clear(struct image_counts *counts);
bool image_counts_get(
    const struct image_counts *counts, struct page_key key, unsigned *ret_records);
/* It will be asked for soon: by then it lies in the cache. */
void image_counts_prefetch(const struct image_counts *counts, struct page_key key);
/* Values above IMAGE_COUNT_MAX are kept as that. */
void image_counts_set(struct image_counts *counts, struct page_key key, unsigned records);
