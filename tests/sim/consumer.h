/*
 * consumer.h - the simulated pageservers of a timeline, and the object store: who needs WAL, and
 * what is forgotten by it.
 *
 * One owner at a time takes WAL to its disk, puts an index into the object store that says how far
 * it is, asks control whether its generation is the newest, and tells safekeepers. It may be
 * replaced between any two steps, and go on all the same; its successor has nothing but the newest
 * index that it finds. Whatever a safekeeper forgets must be in the index that a successor would
 * find right now, and on the disk of the owner. What is judged is the code of the daemons:
 * safekeeper/consensus/retention.h.
 */
#pragma once

#include "safekeeper/consensus/retention.h"

struct world;

#define OWNERS_MAX 12

struct owner {
    lsn_t restored_lsn;  /* where it began */
    lsn_t disk_lsn;      /* what it has ingested */
    lsn_t index_lsn;     /* of the last index that it has put; 0: none */
    lsn_t confirmed_lsn; /* the one that control has confirmed; 0: none */
};

struct consumer {
    uint64_t every_us;               /* mean time between two steps; 0: WAL is kept for ever */
    uint64_t keep_max;               /* for members */
    uint32_t owner_count;            /* all there ever were: generation - 1 */
    struct owner owners[OWNERS_MAX]; /* the last one is the newest */
};

void consumer_begin(struct world *world);
void consumer_on_event(struct world *world);

/* A safekeeper is about to remove WAL below `lsn`. */
void consumer_on_removed(struct world *world, uint32_t node, lsn_t lsn);
