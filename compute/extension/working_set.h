/*
 * working_set.h - what this compute has in its cache, for the next one.
 *
 * The pageserver keeps a list of chunks for the timeline. A compute that starts
 * with an empty local cache, on whatever host, or on a branch that has no list
 * of its own yet, fetches what the list names, at most
 * anabranch.prewarm_mb_per_s, until the cache is nearly full. What it fetches is
 * only offered to the cache (local_cache.h): it never replaces anything, and a
 * list that is old or wrong costs some reads.
 *
 * The list (docs/protocol/page.md) is a hint in both directions: its loss costs
 * nothing but time.
 *
 * Only in the process of the local cache.
 */
#pragma once

#include "postgres.h"

extern void working_set_define_setting(void);

/* Tell the pageserver, unless it knows this list already. May ERROR. */
extern void working_set_save(void);

/* Ask for the list. May ERROR. false: there is nothing to fetch. */
extern bool working_set_begin(void);

/* Fetch a little; *rest_ms is how long to rest then. May ERROR. false: this was the last of it. */
extern bool working_set_step(long *rest_ms);
