/*
 * repair.h - a timeline whose WAL is damaged gets it back from the other members, without a
 * compute.
 *
 * It begins when the timeline failed with ERR_CORRUPT and its control file, which knows the
 * members, is whole. The log is verified again to learn which groups are damaged; each is read from
 * a member that has it committed, and put back if its bytes have the checksum that was noted here
 * when they were written (safekeeper/disk/wal_repair.h). When the log verifies, the timeline is
 * open. Until then it is out of service: it does not vote and acknowledges nothing.
 *
 * WAL at the end of the log that no member knows to be committed, and we do not either, is given up
 * after everybody was asked once: it is cut, and the vote says what may be lost (suspect_lsn), as
 * after damage to the last group. A leader, or a catch-up, brings it back if anybody has it.
 *
 * What cannot be repaired like that, since a sidecar is damaged or no member has all bytes of a
 * group, is for a new log (rebuild.h). When that cannot be had either, this begins again after
 * `repair_retry`. A damaged control file stays out of service and says so.
 * Threads: loop only.
 */
#pragma once

#include "safekeeper/timeline/timeline.h"

struct repair;

void repair_begin(struct timeline *tl); /* it has failed with ERR_CORRUPT: see what can be done */

/* The timeline has failed; begins, or goes on after it was verified again. */
void repair_on_failed(struct timeline *tl, err_t err);
void repair_on_opened(struct timeline *tl); /* the end, when there was one */
void repair_stop(struct timeline *tl);      /* the timeline is being closed */
