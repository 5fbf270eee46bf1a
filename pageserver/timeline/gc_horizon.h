/*
 * gc_horizon.h - what must be kept of each timeline of a tenant: from the tree of branches, leases
 * and retention windows to cutoffs and retained points. Pure.
 *
 * An LSN of a timeline belongs to its owner: the timeline itself from its start on, below that an
 * ancestor. Each timeline keeps all LSNs from its cutoff on; the cutoff only grows. A timeline that
 * was deleted while children live on it (a tombstone) keeps only what they see: once it has
 * ingested all their branch LSNs it has no cutoff any more. A timeline whose own data nobody needs
 * is not in the horizon at all: its versions go.
 */
#pragma once

#include "pageserver/store/gc_filter.h"

struct gc_timeline {
    uint32_t number, parent_number; /* parent 0: a root; parents have smaller numbers */
    lsn_t start_lsn;
    lsn_t cutoff; /* published; start_lsn at first */
    lsn_t durable_lsn;
    bool is_tombstone;
};

/* An LSN that is read though it may lie below the cutoff: lease, branch being made, long read. */
struct gc_hold {
    uint32_t timeline;
    lsn_t lsn;
};

struct gc_tree {
    uint32_t next_number;
    const struct gc_timeline *timelines; /* by ascending number */
    size_t timeline_count;
    const struct gc_hold *holds; /* of timelines in the tree */
    size_t hold_count;
};

/* Where a window that wants to begin at `wanted` may begin: never back, never beyond what a crash
 * leaves, never before the timeline itself. */
lsn_t gc_next_cutoff(const struct gc_timeline *timeline, lsn_t wanted);

/* Index of the owner of `lsn` of the timeline with this index. */
size_t gc_owner(const struct gc_tree *tree, size_t index, lsn_t lsn);
/* SIZE_MAX: not in the tree. */
size_t gc_find(const struct gc_tree *tree, uint32_t number);

/* Room for the horizon of so many timelines and holds. */
struct gc_horizon *gc_horizon_create(size_t timeline_count, size_t hold_count);
void gc_horizon_destroy(struct gc_horizon *horizon);
void gc_horizon_compute(const struct gc_tree *tree, struct gc_horizon *horizon);
