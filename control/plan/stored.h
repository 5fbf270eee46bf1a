/*
 * stored.h - what a project's storage is kept for, in the words that clients know, from what its
 * pageserver has measured (docs/design/history.md, "Sizes").
 *
 *   root      what a branch without a parent shows
 *   child     of one with a parent: what it shows, or the WAL since it began, if that is less
 *   restore   of both, what being able to go back within the window takes besides
 *   snapshot  of the project: what is kept for its snapshots alone
 *   synthetic of the project: the least that answers all that is promised (the pageserver's word)
 *   logical   what a branch shows; of the project, what all of them but the snapshots do
 *
 * Pure: no clock, no I/O.
 */
#pragma once

#include "control/model/row.h"

/* Of one timeline, as it was measured. */
struct stored_end {
    lsn_t start_lsn, cutoff_lsn, end_lsn;
    uint64_t logical_bytes;
};

/* Of a branch that is no snapshot. */
struct stored stored_of_branch(const struct stored_end *end, bool has_parent);

/* A snapshot: of this timeline at this LSN, which keeps its history from `cutoff_lsn` on. */
struct stored_snapshot {
    struct timeline_id of;
    lsn_t lsn, cutoff_lsn;
    uint64_t logical_bytes;
};

/*
 * Within the window it costs nothing; before it, what it shows, or the WAL up to the next snapshot
 * of the same timeline or to the window, if that is less. Sorts them.
 */
uint64_t stored_of_snapshots(struct stored_snapshot *snapshots, size_t count);

void stored_add(struct stored *to, const struct stored *more);
