/*
 * timeline_set.h - all timelines of a safekeeper, by tenant and id, most of them at rest.
 *
 * A timeline that nobody has used for env->rest_ms is a row: its ids, what its control file holds,
 * and where its log ends, together some hundred bytes; no file, no timer, no buffer. It is woken
 * from that row, at once and without reading anything, when somebody looks for it. What the row
 * says is on disk as well and nothing durable depends on it: a woken timeline stands where a
 * restart of the process would put it.
 *
 * What lies in the data folder at the start is opened and verified in the background, some at a
 * time, and before its turn when somebody looks for it. Threads: loop only.
 */
#pragma once

#include "safekeeper/timeline/timeline.h"

struct timeline_set;

struct timeline_set *timeline_set_create(const struct timeline_env *env);
void timeline_set_destroy(struct timeline_set *set); /* gives its references back */

/* One that lies in the data folder. There is none with these ids. */
void timeline_set_add(struct timeline_set *set, struct tenant_id tenant, struct timeline_id id);
/* Begin to open all that nobody has asked for yet. */
void timeline_set_open_all(struct timeline_set *set);
void timeline_set_stop(struct timeline_set *set); /* nothing is opened or put to rest any more */

/* Create, or open what is there when `create` is NULL; borrowed. There is none with these ids. */
struct timeline *timeline_set_start(
    struct timeline_set *set,
    struct tenant_id tenant,
    struct timeline_id id,
    const struct control_state *create);
/* It is closed. Gives the set's reference back. */
void timeline_set_remove(struct timeline_set *set, struct timeline *tl);
/* Borrowed until the end of the turn, or with timeline_ref(); NULL: there is none. Wakes it. */
struct timeline *timeline_set_find(
    struct timeline_set *set, struct tenant_id tenant, struct timeline_id id);

size_t timeline_set_count(const struct timeline_set *set);
/* Nobody has looked at them since the start. */
size_t timeline_set_unopened_count(const struct timeline_set *set);
size_t timeline_set_resting_count(const struct timeline_set *set);
uint64_t timeline_set_digest(const struct timeline_set *set); /* of their ids */

/*
 * In no order; `tl` NULL: nobody has looked at it yet. Nothing may be added or removed meanwhile.
 * One that rests is there for the call only, so that it may be looked at.
 */
struct timeline_visitor {
    void (*visit)(
        struct timeline_visitor *visitor,
        struct tenant_id tenant,
        struct timeline_id id,
        struct timeline *tl);
};
void timeline_set_visit(struct timeline_set *set, struct timeline_visitor *visitor);
/* Only those that do not rest: also all that are being opened, or have failed. */
void timeline_set_visit_awake(struct timeline_set *set, struct timeline_visitor *visitor);
