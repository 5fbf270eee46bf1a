/*
 * leftovers.h - what the tenants' own objects say: generations that have written, timelines.
 *
 * Reads the names under tenants/ and the newest index of each tenant (docs/protocol/
 * remote_index.md, docs/protocol/objects.md). What the catalog knows is claimed; the rest is
 * reported: it was deleted, or its change was lost. Threads: one at a time; find blocks.
 */
#pragma once

#include "common/base/id.h"
#include "common/objstore/objstore.h"

#define LEFT_MEMBERS_MAX 9

struct left_timeline {
    struct timeline_id id;
    lsn_t lsn; /* WAL up to here is in the object store */
    bool claimed;

    bool has_lineage; /* not of an index of the first format: then the rest is unknown */
    bool is_deleted;  /* children live on what is left of it */
    struct timeline_id parent;
    lsn_t start_lsn;
    uint64_t membership_generation;
    size_t member_count;
    uint64_t members[LEFT_MEMBERS_MAX];
};

struct leftovers;

NODISCARD err_t
leftovers_find(struct objstore *store, struct leftovers **ret_leftovers, struct errmsg *msg);
void leftovers_destroy(struct leftovers *leftovers); /* NULL is fine */

/* The highest generation that has written an object of the tenant; 0: there is none. */
uint64_t leftovers_claim_tenant(struct leftovers *leftovers, struct tenant_id tenant);
void leftovers_claim_timeline(struct leftovers *leftovers, struct timeline_id timeline);

/* Every timeline of the tenant that nobody has claimed yet, one after the other; NULL: no more. */
struct left_timeline *leftovers_next_timeline(
    struct leftovers *leftovers, struct tenant_id tenant, const struct left_timeline *after);

/* A line for each tenant and timeline that nobody claimed, appended. */
void leftovers_report(const struct leftovers *leftovers, struct buf *to);
