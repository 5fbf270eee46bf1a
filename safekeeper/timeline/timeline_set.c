#include "safekeeper/timeline/timeline_set.h"

#include "common/base/checksum.h"
#include "common/base/mem.h"
#include "safekeeper/timeline/timeline_private.h"

/*
 * An array for walking and an index over it: open addressing, linear probing, at most half full.
 * Removal moves the last timeline into the gap and builds the index anew.
 */
struct timeline_set {
    struct timeline **items;
    size_t count, capacity;
    uint32_t *slots;   /* index + 1 into items; 0: free */
    size_t slot_count; /* power of two */
};

#define SLOTS_MIN 64

struct timeline_set *timeline_set_create(void)
{
    struct timeline_set *set = MEM_NEW(struct timeline_set);
    set->slot_count = SLOTS_MIN;
    set->slots = MEM_ARRAY(uint32_t, set->slot_count);
    return set;
}

void timeline_set_destroy(struct timeline_set *set)
{
    for (size_t i = 0; i < set->count; i++) {
        timeline_unref(set->items[i]);
    }
    mem_free(set->items);
    mem_free(set->slots);
    mem_free(set);
}

static size_t first_slot(
    const struct timeline_set *set, struct tenant_id tenant, struct timeline_id id)
{
    uint64_t hash = hash64(tenant.bytes, ID_SIZE, 0);
    return (size_t)hash64(id.bytes, ID_SIZE, hash) & (set->slot_count - 1);
}

static void index_item(struct timeline_set *set, size_t index)
{
    const struct timeline *tl = set->items[index];
    size_t slot = first_slot(set, tl->tenant, tl->id);
    while (set->slots[slot] != 0) {
        slot = (slot + 1) & (set->slot_count - 1);
    }
    set->slots[slot] = (uint32_t)index + 1;
}

static void build_index(struct timeline_set *set)
{
    memset(set->slots, 0, set->slot_count * sizeof(*set->slots));
    for (size_t i = 0; i < set->count; i++) {
        index_item(set, i);
    }
}

struct timeline *timeline_set_find(
    const struct timeline_set *set, struct tenant_id tenant, struct timeline_id id)
{
    size_t slot = first_slot(set, tenant, id);
    while (set->slots[slot] != 0) {
        struct timeline *tl = set->items[set->slots[slot] - 1];
        if (tenant_id_equal(tl->tenant, tenant) && timeline_id_equal(tl->id, id)) {
            return tl;
        }
        slot = (slot + 1) & (set->slot_count - 1);
    }
    return NULL;
}

void timeline_set_add(struct timeline_set *set, struct timeline *tl)
{
    ASSERT(timeline_set_find(set, tl->tenant, tl->id) == NULL);
    if (set->count == set->capacity) {
        set->capacity = MAX_OF((size_t)16, 2 * set->capacity);
        set->items = mem_realloc(set->items, set->capacity * sizeof(struct timeline *));
    }
    set->items[set->count++] = tl;
    if (2 * set->count <= set->slot_count) {
        index_item(set, set->count - 1);
        return;
    }
    set->slot_count *= 2;
    mem_free(set->slots);
    set->slots = MEM_ARRAY(uint32_t, set->slot_count);
    build_index(set);
}

void timeline_set_remove(struct timeline_set *set, struct timeline *tl)
{
    for (size_t i = 0; i < set->count; i++) {
        if (set->items[i] == tl) {
            set->items[i] = set->items[--set->count];
            build_index(set); /* deletions are rare */
            timeline_unref(tl);
            return;
        }
    }
    ASSERT(false);
}

size_t timeline_set_count(const struct timeline_set *set)
{
    return set->count;
}

struct timeline *timeline_set_at(const struct timeline_set *set, size_t index)
{
    ASSERT(index < set->count);
    return set->items[index];
}
