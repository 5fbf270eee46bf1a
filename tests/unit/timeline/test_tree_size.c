#include "pageserver/timeline/tree_size.h"

#include "common/base/prng.h"
#include "tests/unit/unit.h"

enum { NODES = 7 };

/* Try every set of states that are there: each is a copy, or comes from one before it that is. */
static uint64_t cheapest(const struct tree_node *nodes, size_t count)
{
    uint64_t best = UINT64_MAX;
    for (unsigned there = 0; there < 1u << count; there++) {
        uint64_t sum = 0;
        bool keeps_promises = true;
        for (size_t i = 0; i < count; i++) {
            bool is_there = (there >> i & 1) != 0;
            keeps_promises &= is_there || !nodes[i].is_needed;
            if (is_there) {
                bool has_parent =
                    nodes[i].parent != TREE_NO_PARENT && (there >> nodes[i].parent & 1) != 0;
                sum += has_parent ? MIN_OF(nodes[i].copy_bytes, nodes[i].wal_bytes)
                                  : nodes[i].copy_bytes;
            }
        }
        best = keeps_promises ? MIN_OF(best, sum) : best;
    }
    return best;
}

START_TEST(test_it_is_the_cheapest_of_all_ways)
{
    struct prng prng;
    prng_init(&prng, 20261126);
    for (int round = 0; round < 5000; round++) {
        struct tree_node nodes[NODES];
        size_t count = 1 + (size_t)prng_below(&prng, NODES);
        for (size_t i = 0; i < count; i++) {
            nodes[i] = (struct tree_node){
                .parent = i == 0 || prng_below(&prng, 6) == 0 ? TREE_NO_PARENT
                                                              : (size_t)prng_below(&prng, i),
                .wal_bytes = prng_below(&prng, 100),
                .copy_bytes = prng_below(&prng, 100),
                .is_needed = prng_below(&prng, 2) == 0,
            };
        }
        ck_assert_uint_eq(tree_size(nodes, count), cheapest(nodes, count));
    }
}
END_TEST

START_TEST(test_a_branch_costs_what_was_written_on_it)
{
    struct tree_node nodes[] = {
        {.parent = TREE_NO_PARENT, .copy_bytes = 1000, .is_needed = true}, /* begin of history */
        {.parent = 0, .wal_bytes = 50, .copy_bytes = 1000},                /* branch point */
        {.parent = 1, .wal_bytes = 30, .copy_bytes = 1000, .is_needed = true}, /* end */
        {.parent = 1, .wal_bytes = 0, .copy_bytes = 1000, .is_needed = true},  /* branch */
        {.parent = 3, .wal_bytes = 7, .copy_bytes = 1000, .is_needed = true},  /* its end */
    };
    ck_assert_uint_eq(tree_size(nodes, 3), 1080);
    ck_assert_uint_eq(tree_size(nodes, 5), 1087);
    nodes[2].wal_bytes = 5000; /* much was written and little is left: a copy is cheaper */
    nodes[2].copy_bytes = 100;
    ck_assert_uint_eq(tree_size(nodes, 5), 1000 + 50 + 100 + 7);
    ck_assert_uint_eq(tree_size(nodes, 0), 0);
}
END_TEST

UNIT_MAIN(
    "tree_size", test_it_is_the_cheapest_of_all_ways, test_a_branch_costs_what_was_written_on_it);
