#include "pageserver/timeline/tree_size.h"

#include "common/base/assert.h"

static uint64_t add(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

/* The cheapest for the node and all behind it. */
static uint64_t cost(const struct tree_node *node, bool has_parent)
{
    uint64_t from_parent = has_parent ? node->wal_bytes : UINT64_MAX;
    uint64_t here = add(MIN_OF(node->copy_bytes, from_parent), node->children_with);
    return node->is_needed ? here : MIN_OF(here, node->children_without);
}

/* From the leaves on: parents have smaller indexes. */
uint64_t tree_size(struct tree_node *nodes, size_t count)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < count; i++) {
        nodes[i].children_with = nodes[i].children_without = 0;
    }
    for (size_t i = count; i-- > 0;) {
        const struct tree_node *node = &nodes[i];
        if (node->parent == TREE_NO_PARENT) {
            sum = add(sum, cost(node, false));
            continue;
        }
        ASSERT(node->parent < i);
        struct tree_node *parent = &nodes[node->parent];
        parent->children_with = add(parent->children_with, cost(node, true));
        parent->children_without = add(parent->children_without, cost(node, false));
    }
    return sum;
}
