/*
 * tree_size.h - what a tree of branches is worth in bytes: the least that anybody would have to
 * store to answer everything that is promised. Pure.
 *
 * The tree's nodes are LSNs: of each timeline its begin of history, its branch points, leases, and
 * its end. A state can be had as a copy (its logical size) or from the state before it (the WAL in
 * between). What many branches share is counted once, and a branch costs what was written on it.
 */
#pragma once

#include "common/base/types.h"

#define TREE_NO_PARENT SIZE_MAX

struct tree_node {
    size_t parent;       /* a smaller index; TREE_NO_PARENT */
    uint64_t wal_bytes;  /* from there to here */
    uint64_t copy_bytes; /* the whole state here */
    bool is_needed;      /* promised; otherwise it only leads to others */

    /* private: the cheapest for all of its children, when it is there and when it is not */
    uint64_t children_with, children_without;
};

uint64_t tree_size(struct tree_node *nodes, size_t count);
