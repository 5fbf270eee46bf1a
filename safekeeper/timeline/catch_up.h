/*
 * catch_up.h - a log that has fallen behind is completed from the other members, without a compute.
 *
 * After a start, and after a proposer has left, a timeline asks every other member what it has
 * committed, again and again at growing intervals. Who knows of more than we have is read from, up
 * to there. What is done with the answer is decided by the acceptor (PEER_ANSWERED); any vote or
 * winner ends it. Two members that disagree on committed WAL are reported, and nothing is cut.
 *
 * When nobody has more, the next 8 MiB of what both have are read on both sides and compared: a bit
 * that has flipped where nobody reads is found by the checksums of its owner, who repairs itself.
 *
 * Threads: loop only. A timeline that is not being checked has nothing but the time of the next
 * one, in its row; the check wakes it.
 */
#pragma once

#include "safekeeper/timeline/timeline_set.h"

struct catch_up;

/* Who leads has changed, or nobody does any more: the intervals begin anew. */
void catch_up_soon(struct timeline *tl);
/*
 * Begin the checks that are due, where nobody is connected who might lead: some at a time. Returns
 * how many.
 */
unsigned catch_up_begin_due(struct timeline_set *set, mono_ns_t now);
void catch_up_stop(struct timeline *tl); /* it is closed, or has failed */
