/*
 * term_history.h - which term wrote which part of a log.
 *
 * Entry i says that bytes from items[i].lsn up to items[i + 1].lsn (the last: to the end of the
 * log) were written by items[i].term. Terms ascend strictly, LSNs weakly: a term that wrote nothing
 * leaves an entry too. At most one proposer is elected in a term, so a term that stands in two
 * histories has the same LSN in both, and below it the two logs are identical.
 *
 * Trimming: a history that would exceed TERM_HISTORY_MAX loses its oldest entry. A log whose
 * entries were all trimmed from the other history shares no term with it; then only what is
 * committed is known to be common, and that is always enough: see term_history_common_lsn().
 */
#pragma once

#include "common/wire/wal_proto.h"

/* Ascending, not empty, not too long; nothing is known about a peer's history before this. */
bool term_history_is_valid(const struct term_history *history);

/* The term of the last byte below (or entry at) the end of the log; 0 when empty. */
term_t term_history_last_term(const struct term_history *history);

/* Append an entry; a full history loses its oldest one. `term` is newer than all others. */
void term_history_push(struct term_history *history, term_t term, lsn_t lsn);

/*
 * Drop entries that begin behind `end_lsn`. An entry that begins exactly there stays: who has the
 * whole log below a term's start and knows of that term is as complete as that term was elected.
 */
void term_history_clip(struct term_history *history, lsn_t end_lsn);

bool term_history_equal(const struct term_history *a, const struct term_history *b);

/*
 * Up to where the follower's log is a prefix of the leader's: the follower's log ends at
 * `follower_end_lsn` and `follower_commit_lsn` of it is known to be committed. `follower` must be
 * clipped to its end. A log that is still being completed can end before its newest terms begin,
 * even before all that its leader's history remembers; what it follows is known all the same:
 * `followed_term`, the last term of its history before it was clipped (0: not known).
 */
lsn_t term_history_common_lsn(
    const struct term_history *leader,
    const struct term_history *follower,
    term_t followed_term,
    lsn_t follower_end_lsn,
    lsn_t follower_commit_lsn);
