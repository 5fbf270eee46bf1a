/*
 * gc_filter.h - which versions nobody can ever ask for again. Pure: it decides key by key, in the
 * order in which a compaction shows them, and what it must look up elsewhere it asks for.
 *
 * A timeline is read at every LSN from its cutoff on, and below that only at its retained points
 * (where children branch off, leases). A version at L is needed by a read at p when L <= p, when no
 * version that ends a read (an image) lies in (L, p], and when the thing exists at p. It is kept
 * while it is needed by one of the points, by the cutoff, or lies above the cutoff.
 *
 * A compaction shows any part of a page's versions, newest first. That is enough: a version goes
 * only because an image above it was in the same view, or because its block does not exist at any
 * LSN that could need it; an image that let others go is itself only let go for a newer one. So
 * every allowed read finds its image before it could reach what is missing.
 *
 * A block that is dead at the cutoff (its relation was dropped or truncated) may be born again
 * later; the first version of a new life ends every read (see
 * tests/unit/ingest/test_block_lives.c), so nothing above the cutoff reaches back to the old life.
 *
 * By kind: pages of relations and SLRUs, and sizes and other states (which all end a read) follow
 * the rule; of an ingest position only the newest stays; a commit time stays while it is the newest
 * at some point, at the cutoff, or lies above the cutoff. A version that only says that something
 * is not there (a dropped fork, a finished prepared transaction) goes when nothing is left in the
 * store that it hides: for every read, nothing and "not there" are the same. What else the same
 * compaction drops is still in the store, so that takes another one: `hiding` counts what stayed
 * for that reason, `hid` what went.
 */
#pragma once

#include "common/pg/page_key.h"

#define GC_NO_CUTOFF UINT64_MAX /* only the points are read: a deleted timeline with children */

/* What is still read of one timeline. */
struct gc_keep {
    uint32_t timeline;
    uint32_t parent; /* the ancestor that owns start_lsn; 0: none. Older versions lie there. */
    lsn_t start_lsn;
    lsn_t cutoff;
    const lsn_t *points; /* below the cutoff, ascending, each once */
    size_t point_count;
};

/* Of a whole tenant, immutable. Timelines below next_number that are not in it are dead. */
struct gc_horizon {
    uint32_t next_number;
    size_t keep_count;
    struct gc_keep *keeps; /* by ascending timeline */
    size_t point_count;
    lsn_t *points;
};
/* NULL: the timeline is dead, or not known here. */
const struct gc_keep *gc_horizon_find(const struct gc_horizon *horizon, uint32_t timeline);

/* What the filter looks up in the store as it is, past the view of its compaction. */
struct gc_lookup {
    /*
     * Blocks of `fork` on `timeline` at each of `lsns` (ascending): 0 when it does not exist,
     * UINT32_MAX when nothing is known. False: could not be read; then nothing of it goes.
     */
    bool (*blocks_at)(
        struct gc_lookup *lookup,
        uint32_t timeline,
        struct page_key fork,
        const lsn_t *lsns,
        size_t count,
        uint32_t *ret_blocks);
    /* LSN of the commit time behind `key` on the timeline; UINT64_MAX: there is none. */
    bool (*next_commit)(
        struct gc_lookup *lookup, uint32_t timeline, struct page_key key, lsn_t *ret_lsn);
    /*
     * The version of `key` at `lsn` says "not there". Would anything show without it: an older
     * version here or on the parents, or blocks of the fork?
     */
    bool (*hides_something)(
        struct gc_lookup *lookup,
        uint32_t timeline,
        struct page_key key,
        lsn_t lsn,
        bool *ret_hides);
};

/* One pass over ascending keys; embed it. Belongs to one thread. */
struct gc_filter {
    const struct gc_horizon *horizon;
    struct gc_lookup *lookup;
    uint64_t seen, dropped, dropped_bytes, hiding, hid;

    /* private */
    bool has_timeline, has_page, has_blocks, blocks_known;
    bool is_foreign;            /* of the meta records or a timeline newer than the horizon */
    uint32_t timeline;          /* of the last key ... */
    const struct gc_keep *keep; /* ... and what is kept of it; NULL: nothing */
    struct page_key page;       /* of the last key */
    lsn_t image_lsn;            /* lowest image of the page so far; UINT64_MAX: none */
    struct page_key fork;       /* whose sizes are in `blocks`: at each point, then the cutoff */
    uint32_t *blocks;
    lsn_t *lsns;
};

void gc_filter_init(
    struct gc_filter *filter, const struct gc_horizon *horizon, struct gc_lookup *lookup);
void gc_filter_deinit(struct gc_filter *filter);
/* The next key of the compaction and its value. True: drop it. What is malformed stays. */
bool gc_filter_drops(struct gc_filter *filter, struct bytes key, struct bytes value);
