#include "pageserver/timeline/tenant_size.h"

#include <stdlib.h>

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "pageserver/timeline/gc_round.h"
#include "pageserver/timeline/tree_size.h"

/* An LSN of a timeline that matters. */
struct place {
    size_t index; /* in the tree */
    lsn_t lsn;
    bool is_needed;
};

struct places {
    struct place *items;
    size_t count;
};

static void add_place(struct places *places, size_t index, lsn_t lsn, bool is_needed)
{
    places->items[places->count++] =
        (struct place){.index = index, .lsn = lsn, .is_needed = is_needed};
}

static int compare_places(const void *left, const void *right)
{
    const struct place *a = left, *b = right;
    if (a->index != b->index) {
        return a->index < b->index ? -1 : 1;
    }
    return a->lsn < b->lsn ? -1 : a->lsn > b->lsn;
}

static void sort_places(struct places *places)
{
    qsort(places->items, places->count, sizeof(places->items[0]), compare_places);
    size_t kept = 0;
    for (size_t i = 0; i < places->count; i++) {
        if (kept > 0 && compare_places(&places->items[kept - 1], &places->items[i]) == 0) {
            places->items[kept - 1].is_needed |= places->items[i].is_needed;
        } else {
            places->items[kept++] = places->items[i];
        }
    }
    places->count = kept;
}

static size_t owner_of_start(const struct gc_tree *tree, size_t index)
{
    const struct gc_timeline *timeline = &tree->timelines[index];
    size_t parent = gc_find(tree, timeline->parent_number);
    return parent == SIZE_MAX ? SIZE_MAX : gc_owner(tree, parent, timeline->start_lsn);
}

/* Begin, cutoff and end of each timeline that is kept, branch points and holds. */
static void gather(
    const struct gc_tree *tree, const struct gc_horizon *horizon, struct places *places)
{
    for (size_t i = 0; i < tree->timeline_count; i++) {
        const struct gc_timeline *timeline = &tree->timelines[i];
        if (gc_horizon_find(horizon, timeline->number) == NULL) {
            continue;
        }
        add_place(places, i, timeline->start_lsn, false);
        size_t owner = owner_of_start(tree, i);
        if (owner != SIZE_MAX) {
            add_place(places, owner, timeline->start_lsn, false);
        }
        if (!timeline->is_tombstone) {
            add_place(places, i, timeline->cutoff, true);
            add_place(places, i, timeline->durable_lsn, true);
        }
    }
    for (size_t i = 0; i < tree->hold_count; i++) {
        size_t index = gc_find(tree, tree->holds[i].timeline);
        add_place(places, gc_owner(tree, index, tree->holds[i].lsn), tree->holds[i].lsn, true);
    }
    sort_places(places);
}

static size_t find_place(const struct places *places, size_t index, lsn_t lsn)
{
    const struct place key = {.index = index, .lsn = lsn};
    const struct place *found =
        bsearch(&key, places->items, places->count, sizeof(places->items[0]), compare_places);
    ASSERT(found != NULL); /* gather() puts each branch point */
    return (size_t)(found - places->items);
}

static void connect(
    const struct gc_tree *tree, const struct places *places, struct tree_node *nodes)
{
    for (size_t i = 0; i < places->count; i++) {
        const struct place *place = &places->items[i];
        nodes[i] = (struct tree_node){.parent = TREE_NO_PARENT, .is_needed = place->is_needed};
        if (i > 0 && places->items[i - 1].index == place->index) {
            nodes[i].parent = i - 1;
            nodes[i].wal_bytes = place->lsn - places->items[i - 1].lsn;
        } else if (owner_of_start(tree, place->index) != SIZE_MAX) {
            nodes[i].parent = find_place(places, owner_of_start(tree, place->index), place->lsn);
        }
    }
}

/* -- logical sizes -- */

static err_t add_blocks(struct page_key rel, uint32_t blocks, void *context, struct errmsg *msg)
{
    (void)rel;
    (void)msg;
    uint64_t *bytes = context;
    *bytes += (uint64_t)blocks * PAGE_SIZE;
    return ERR_OK;
}

static bool is_kept(const struct gc_keep *keep, lsn_t lsn)
{
    bool kept = lsn >= keep->cutoff;
    for (size_t i = 0; i < keep->point_count && !kept; i++) {
        kept = keep->points[i] == lsn;
    }
    return kept;
}

static err_t measure_place(
    struct page_store *store,
    const struct gc_tree *tree,
    const struct place *place,
    uint64_t *bytes,
    struct errmsg *msg)
{
    struct page_path *path = gc_path(tree, place->index);
    struct page_reader *reader = page_reader_create(store, path);
    err_t err = page_reader_relations(reader, KEY_SPC_STATE, 0, place->lsn, add_blocks, bytes, msg);
    page_reader_destroy(reader);
    mem_free(path);
    return err;
}

/* What comes first on a branch is as on its parent; parents come before their children. */
static bool is_as_parent(
    const struct places *places, const struct tree_node *nodes, size_t i, uint64_t *bytes)
{
    size_t parent = nodes[i].parent;
    bool is_same = parent != TREE_NO_PARENT && places->items[parent].lsn == places->items[i].lsn &&
                   nodes[parent].copy_bytes != UINT64_MAX;
    *bytes = is_same ? nodes[parent].copy_bytes : 0;
    return is_same;
}

/* What is not kept any more cannot be copied. */
static err_t measure_nodes(
    struct page_store *store,
    const struct gc_tree *tree,
    const struct gc_horizon *horizon,
    const struct places *places,
    struct tree_node *nodes,
    size_t *listings,
    struct errmsg *msg)
{
    for (size_t i = 0; i < places->count; i++) {
        const struct place *place = &places->items[i];
        const struct gc_keep *keep = gc_horizon_find(horizon, tree->timelines[place->index].number);
        if (keep == NULL || !is_kept(keep, place->lsn)) {
            nodes[i].copy_bytes = UINT64_MAX;
            continue;
        }
        if (is_as_parent(places, nodes, i, &nodes[i].copy_bytes)) {
            continue;
        }
        if (++*listings > TENANT_SIZE_LISTINGS_MAX) {
            return err_set(
                msg, ERR_BUSY, "the tree has more than %d states to be listed",
                TENANT_SIZE_LISTINGS_MAX);
        }
        TRY(measure_place(store, tree, place, &nodes[i].copy_bytes, msg));
    }
    return ERR_OK;
}

static void sum_up(
    const struct gc_tree *tree,
    const struct places *places,
    struct tree_node *nodes,
    struct tenant_size *size)
{
    size->ends = MEM_ARRAY(struct tenant_size_end, tree->timeline_count + 1);
    for (size_t i = 0; i < places->count; i++) {
        const struct gc_timeline *timeline = &tree->timelines[places->items[i].index];
        if (!timeline->is_tombstone && places->items[i].lsn == timeline->durable_lsn) {
            size->logical_bytes += nodes[i].copy_bytes;
            size->ends[size->timelines++] = (struct tenant_size_end){
                .number = timeline->number,
                .start_lsn = timeline->start_lsn,
                .cutoff_lsn = timeline->cutoff,
                .end_lsn = timeline->durable_lsn,
                .logical_bytes = nodes[i].copy_bytes,
            };
        }
    }
    size->synthetic_bytes = tree_size(nodes, places->count);
}

err_t tenant_size_measure(
    struct history *history,
    struct page_store *store,
    struct tenant_size *ret_size,
    struct errmsg *msg)
{
    struct gc_tree *tree = history_tree(history);
    struct gc_horizon *horizon = gc_horizon_create(tree->timeline_count, tree->hold_count);
    gc_horizon_compute(tree, horizon);
    struct places places = {
        .items = MEM_ARRAY(struct place, 4 * tree->timeline_count + tree->hold_count + 1)};
    gather(tree, horizon, &places);
    struct tree_node *nodes = MEM_ARRAY(struct tree_node, places.count + 1);
    connect(tree, &places, nodes);
    struct tenant_size size = {.timelines = 0};
    err_t err = measure_nodes(store, tree, horizon, &places, nodes, &size.listings, msg);
    if (err == ERR_OK) {
        sum_up(tree, &places, nodes, &size);
        *ret_size = size;
    }
    mem_free(nodes);
    mem_free(places.items);
    gc_horizon_destroy(horizon);
    history_tree_free(tree);
    return err;
}

void tenant_size_deinit(struct tenant_size *size)
{
    mem_free(size->ends);
    size->ends = NULL;
}
