/*
 * rebuild.h - a timeline whose log cannot be repaired in place gets a new one from another member.
 *
 * For what repair.h leaves: a damaged or lost sidecar, so that nothing here says which bytes were
 * there; a damaged group that reaches behind what was ever committed; damage below the begin of
 * every other log, which nobody can read any more.
 *
 * Every member is asked what it has committed. From the one that has most, if that is at least what
 * is known to be committed here, WAL is copied into a new log: from our begin, or its begin when
 * that is later, up to what is known to be committed here. Then the control file says where the log
 * begins, what is committed, and up to where WAL may have been acknowledged that is not there
 * (suspect_lsn); then the copy takes the place of the log (safekeeper/disk/wal_rebuild.h), which is
 * verified and opened like any other. What is missing at the end comes from a leader or a catch-up,
 * as after a start that found a torn end. Until it is open the timeline does not vote.
 *
 * Threads: loop only.
 */
#pragma once

#include "safekeeper/timeline/timeline.h"

struct rebuild;

void rebuild_begin(struct timeline *tl); /* the timeline has failed, and no repair is under way */
/* What was verified after it was not good: in vain. It begins again later, if it is damage. */
void rebuild_on_failed(struct timeline *tl, err_t err);
void rebuild_on_opened(struct timeline *tl); /* the end, when there was one */
void rebuild_stop(struct timeline *tl);      /* the timeline is being closed */
