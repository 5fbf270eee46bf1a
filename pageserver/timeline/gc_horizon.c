#include "pageserver/timeline/gc_horizon.h"

#include <stdlib.h>

#include "common/base/assert.h"
#include "common/base/mem.h"

lsn_t gc_next_cutoff(const struct gc_timeline *timeline, lsn_t wanted)
{
    lsn_t possible = MIN_OF(wanted, timeline->durable_lsn);
    return MAX_OF(MAX_OF(timeline->cutoff, timeline->start_lsn), possible);
}

size_t gc_find(const struct gc_tree *tree, uint32_t number)
{
    size_t begin = 0, end = tree->timeline_count;
    while (begin < end) {
        size_t middle = begin + (end - begin) / 2;
        if (tree->timelines[middle].number < number) {
            begin = middle + 1;
        } else {
            end = middle;
        }
    }
    bool found = begin < tree->timeline_count && tree->timelines[begin].number == number;
    return found ? begin : SIZE_MAX;
}

size_t gc_owner(const struct gc_tree *tree, size_t index, lsn_t lsn)
{
    const struct gc_timeline *timeline = &tree->timelines[index];
    while (lsn < timeline->start_lsn && timeline->parent_number != 0) {
        ASSERT(timeline->parent_number < timeline->number);
        index = gc_find(tree, timeline->parent_number);
        ASSERT(index != SIZE_MAX);
        timeline = &tree->timelines[index];
    }
    return index;
}

struct point {
    size_t index; /* of the timeline */
    lsn_t lsn;
};

struct gc_horizon *gc_horizon_create(size_t timeline_count, size_t hold_count)
{
    struct gc_horizon *horizon = MEM_NEW(struct gc_horizon);
    horizon->keeps = MEM_ARRAY(struct gc_keep, timeline_count + 1);
    horizon->points = MEM_ARRAY(lsn_t, timeline_count + hold_count + 1);
    return horizon;
}

void gc_horizon_destroy(struct gc_horizon *horizon)
{
    if (horizon != NULL) {
        mem_free(horizon->keeps);
        mem_free(horizon->points);
        mem_free(horizon);
    }
}

static int compare_points(const void *left, const void *right)
{
    const struct point *a = left, *b = right;
    if (a->index != b->index) {
        return a->index < b->index ? -1 : 1;
    }
    return a->lsn < b->lsn ? -1 : a->lsn > b->lsn;
}

struct point_list {
    struct point *items;
    size_t count;
};

static void add_point(
    const struct gc_tree *tree, struct point_list *list, bool *is_needed, size_t index, lsn_t lsn)
{
    size_t owner = gc_owner(tree, index, lsn);
    is_needed[owner] = true;
    list->items[list->count++] = (struct point){.index = owner, .lsn = lsn};
}

/* Children have larger numbers: from the back, so that each knows all that needs it. */
static void gather_points(const struct gc_tree *tree, struct point_list *list, bool *is_needed)
{
    for (size_t i = 0; i < tree->hold_count; i++) {
        size_t index = gc_find(tree, tree->holds[i].timeline);
        ASSERT(index != SIZE_MAX);
        add_point(tree, list, is_needed, index, tree->holds[i].lsn);
    }
    for (size_t i = tree->timeline_count; i-- > 0;) {
        const struct gc_timeline *timeline = &tree->timelines[i];
        is_needed[i] = is_needed[i] || !timeline->is_tombstone;
        if (is_needed[i] && timeline->parent_number != 0) {
            size_t parent = gc_find(tree, timeline->parent_number);
            ASSERT(parent != SIZE_MAX);
            add_point(tree, list, is_needed, parent, timeline->start_lsn);
        }
    }
}

static lsn_t cutoff_of(const struct gc_timeline *timeline, const struct point *newest)
{
    if (!timeline->is_tombstone) {
        return timeline->cutoff;
    }
    ASSERT(newest != NULL); /* it is only kept because somebody needs a point of it */
    /* Until the last branch LSN is here and durable, what leads to it is still to come. */
    return newest->lsn <= timeline->durable_lsn ? GC_NO_CUTOFF
                                                : MAX_OF(timeline->cutoff, timeline->durable_lsn);
}

/* The points of `sorted` that lie below the cutoff, once each. */
static void keep_points(
    struct gc_horizon *horizon, struct gc_keep *keep, const struct point *sorted, size_t count)
{
    keep->points = &horizon->points[horizon->point_count];
    for (size_t i = 0; i < count && sorted[i].lsn < keep->cutoff; i++) {
        if (keep->point_count == 0 || keep->points[keep->point_count - 1] != sorted[i].lsn) {
            horizon->points[horizon->point_count++] = sorted[i].lsn;
            keep->point_count++;
        }
    }
}

static uint32_t owner_of_start(const struct gc_tree *tree, size_t index)
{
    const struct gc_timeline *timeline = &tree->timelines[index];
    if (timeline->parent_number == 0) {
        return 0;
    }
    size_t parent = gc_find(tree, timeline->parent_number);
    ASSERT(parent != SIZE_MAX);
    return tree->timelines[gc_owner(tree, parent, timeline->start_lsn)].number;
}

void gc_horizon_compute(const struct gc_tree *tree, struct gc_horizon *horizon)
{
    bool *is_needed = MEM_ARRAY(bool, tree->timeline_count + 1);
    struct point_list list = {
        .items = MEM_ARRAY(struct point, tree->timeline_count + tree->hold_count + 1)};
    gather_points(tree, &list, is_needed);
    qsort(list.items, list.count, sizeof(list.items[0]), compare_points);
    horizon->next_number = tree->next_number;
    horizon->keep_count = horizon->point_count = 0;
    for (size_t i = 0, begin = 0; i < tree->timeline_count; i++) {
        size_t end = begin;
        while (end < list.count && list.items[end].index == i) {
            end++;
        }
        if (is_needed[i]) {
            struct gc_keep *keep = &horizon->keeps[horizon->keep_count++];
            *keep = (struct gc_keep){
                .timeline = tree->timelines[i].number,
                .parent = owner_of_start(tree, i),
                .start_lsn = tree->timelines[i].start_lsn,
                .cutoff = cutoff_of(&tree->timelines[i], end > begin ? &list.items[end - 1] : NULL),
            };
            keep_points(horizon, keep, &list.items[begin], end - begin);
        }
        begin = end;
    }
    mem_free(list.items);
    mem_free(is_needed);
}
