/*
 * proposer_private.h - the proposer from the inside:
 *
 *   proposer.c            connections, time, the membership; the step
 *   proposer_election.c   campaign, votes, victory: until every acceptor is told from where
 *   proposer_stream.c     appends, repair from other acceptors, what is committed
 *
 * Pure, as proposer.h says. A function changes the proposer at once and adds to `out` what is to be
 * done for that; a step has room for all of it (the assertion below). on_*() are the events of a
 * step. `index` and `peer` are an acceptor's place in the membership.
 */
#pragma once

#include "common/base/mark.h"
#include "safekeeper/consensus/mutant.h"
#include "safekeeper/consensus/proposer.h"
#include "safekeeper/consensus/term_history.h"

#define PROPOSER_PUMP_BUDGET 8 /* appends to one acceptor in one step; then `more` */

static_assert((PROPOSER_ENDS_MAX & (PROPOSER_ENDS_MAX - 1)) == 0, "indexes are masked");
static_assert(
    PROPOSER_ACTIONS_MAX >= MEMBERS_MAX * PROPOSER_PUMP_BUDGET + 8, "a step always has room");

static inline uint32_t proposer_member_count(const struct proposer *proposer)
{
    return proposer->options.membership.count;
}

static inline bool proposer_is_connected(const struct proposer_peer *peer)
{
    return peer->phase != PEER_OFFLINE;
}

/* -- proposer.c -- */

/* The caller fills in what belongs to the kind, before the next action is added. */
struct proposer_action *proposer_emit(
    struct proposer_actions *out, enum proposer_action_kind kind, uint32_t peer);

/* -- proposer_election.c -- */

/* A vote request of the current term; after the election it asks for the positions. */
void proposer_ask(struct proposer *proposer, uint32_t index, struct proposer_actions *out);
/*
 * Give the term up and campaign for another one after a random while, so that rivals do not meet.
 */
void proposer_back_off(struct proposer *proposer);
/* Connected, whatever they have answered. */
bool proposer_has_quorum_connected(const struct proposer *proposer);
/* A new term and its vote requests: when a quorum is there and no backoff runs. */
void proposer_campaign_if_due(struct proposer *proposer, struct proposer_actions *out);
/* Somebody is newer. After a victory this is the end: the newest start of a compute wins. */
void proposer_on_higher_term(struct proposer *proposer, term_t term, struct proposer_actions *out);
/* A vote, or the positions of one who comes back; an old one is dropped, an invalid one closes. */
void proposer_on_vote_reply(
    struct proposer *proposer,
    uint32_t index,
    const struct vote_reply *vote,
    struct proposer_actions *out);

/* Up to where this acceptor's log is known to be ours. */
lsn_t proposer_held_lsn(const struct proposer *proposer, uint32_t index);
/*
 * Where the log of `index`, which ends at `lsn` or is ours up to there, has to begin anew, because
 * WAL from there on is kept by nobody who has more; LSN_NONE: it can be completed, or nobody is
 * there to tell.
 */
lsn_t proposer_anew_lsn(const struct proposer *proposer, uint32_t index, lsn_t lsn);

/* -- proposer_stream.c -- */

/* A heartbeat, or the news of a commit. */
void proposer_send_empty_append(
    struct proposer *proposer, uint32_t index, struct proposer_actions *out);
/* Send what this acceptor lacks, from the window or from another acceptor. */
void proposer_pump(struct proposer *proposer, uint32_t index, struct proposer_actions *out);
/* Keep what a live acceptor or the quorum still needs; a slow one reads from its peers instead. */
void proposer_trim_window(struct proposer *proposer);
/* What a quorum has on disk, from the start of the term on, is committed. */
void proposer_advance_commit(struct proposer *proposer, struct proposer_actions *out);
/* The same for what it has on disk of this term. */
void proposer_on_append_reply(
    struct proposer *proposer,
    uint32_t index,
    const struct append_reply *appended,
    struct proposer_actions *out);
/* WAL of one acceptor for another, or why there is none: then it is tried again, elsewhere. */
void proposer_on_read_reply(
    struct proposer *proposer, const struct proposer_event *event, struct proposer_actions *out);
/* Postgres has written up to `end_lsn`; the last whole record ends at `record_lsn`. */
void proposer_on_local_wal(struct proposer *proposer, lsn_t end_lsn, lsn_t record_lsn);
