/*
 * least.h - the least that a store must keep, found the slow way: play every read that is allowed,
 * and note which versions it uses. Knows nothing of how the store finds what may go.
 *
 * Allowed is, on each timeline that is not deleted, every LSN from its cutoff on, and each leased
 * LSN. A read goes to its timeline, then to the parents up to where the child left them; it takes
 * versions of one thing, newest first, down to the first that needs nothing older. Blocks are read
 * while they lie within the size of their fork at that LSN. Besides: the newest ingest position of
 * each timeline, and the newest commit time at each of these LSNs.
 *
 * A version that says "not there" is needed only where something older would show without it.
 */
#pragma once

#include "common/pg/page_key.h"

struct least_version {
    uint32_t timeline;
    struct page_key key;
    lsn_t lsn;
    uint8_t tag;
    bool is_absent;  /* it says that the thing does not exist */
    bool is_needed;  /* out */
    uint32_t blocks; /* of a fork */
    uint32_t bytes;  /* key and value */
};

struct least_timeline {
    uint32_t number, parent; /* parent 0: a root */
    lsn_t start, cutoff;
    bool is_deleted; /* children live on it, nobody else */
};

struct least_read {
    uint32_t timeline;
    lsn_t lsn;
};

struct least_world {
    struct least_version *versions; /* in any order; sorted by least_mark */
    size_t version_count;
    const struct least_timeline *timelines;
    size_t timeline_count;
    const struct least_read *leases;
    size_t lease_count;
};

/* What a value of the store says, for a version whose place is known. */
void least_version_set_value(struct least_version *version, struct bytes value);
/* By timeline, key, newest first: as the store orders its keys. */
int least_version_order(const void *left, const void *right);
void least_mark(struct least_world *world);
