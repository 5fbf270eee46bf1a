/*
 * key_filter.h - which pages a timeline may have in the kv: a set that answers "no" or "maybe".
 *
 * A read that steps over a branch without the page asks here first: tens of nanoseconds instead of
 * a seek. Bloom filters of doubling size, each filled up before the next begins, so that it grows
 * with the branch and a small one costs a few hundred bytes. What is in never leaves: a page that
 * GC has dropped costs a seek.
 *
 * One writer at a time; readers need no lock. A page is added before its versions are ingested.
 */
#pragma once

#include "common/pg/page_key.h"

struct key_filter;

struct key_filter *key_filter_create(void);
void key_filter_destroy(struct key_filter *filter); /* NULL is fine */
/* Of the page, without its LSN: made once, for many filters. */
uint64_t key_filter_hash(struct page_key key);
void key_filter_add(struct key_filter *filter, uint64_t hash);
bool key_filter_may_have(const struct key_filter *filter, uint64_t hash); /* [any] */
/* False once it is full: it says "maybe" to everything, and takes no more memory. */
bool key_filter_is_useful(const struct key_filter *filter);
