/*
 * timeline_set.h - all timelines of a safekeeper, by tenant and id. Threads: loop only.
 */
#pragma once

#include "safekeeper/timeline/timeline.h"

struct timeline_set;

struct timeline_set *timeline_set_create(void);
void timeline_set_destroy(struct timeline_set *set); /* gives its references back */

/* Takes over the caller's reference. There is none with these ids. */
void timeline_set_add(struct timeline_set *set, struct timeline *tl);
/* Gives the set's reference back. */
void timeline_set_remove(struct timeline_set *set, struct timeline *tl);
/* Borrowed; NULL: there is none. */
struct timeline *timeline_set_find(
    const struct timeline_set *set, struct tenant_id tenant, struct timeline_id id);
size_t timeline_set_count(const struct timeline_set *set);

/* In no order. Nothing may be added or removed meanwhile. */
struct timeline *timeline_set_at(const struct timeline_set *set, size_t index);
