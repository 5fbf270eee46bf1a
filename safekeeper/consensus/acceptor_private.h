/*
 * acceptor_private.h - the acceptor from the inside:
 *
 *   acceptor.c          votes, appends, what the disk reports, the membership; the step
 *   acceptor_follow.c   whose log ours becomes: an elected proposer's, or another safekeeper's
 *
 * Pure, as acceptor.h says. A function changes the acceptor at once and adds to `out` what is to be
 * done for that; a step has room for all of it. on_*() are the events of a step: what does not fit
 * the moment is refused to who sent it, or dropped.
 */
#pragma once

#include "common/base/mark.h"
#include "safekeeper/consensus/acceptor.h"
#include "safekeeper/consensus/mutant.h"
#include "safekeeper/consensus/term_history.h"

/* -- acceptor.c -- */

/* The caller fills in what belongs to the kind, before the next action is added. */
struct acceptor_action *acceptor_emit(
    struct acceptor_actions *out, enum acceptor_action_kind kind, struct acceptor_peer to);
/* Its connection is closed. `why` is a constant text. */
void acceptor_refuse(
    struct acceptor_actions *out, struct acceptor_peer to, err_t err, const char *why);
/* The same with ERR_STALE; `generation` is that of the message which is refused. */
void acceptor_refuse_generation(
    struct acceptor_actions *out,
    struct acceptor_peer to,
    generation_t generation,
    const char *why);

/* `state` as it is now is to be on disk; its sequence says when it is. */
void acceptor_persist(struct acceptor *acceptor, struct acceptor_actions *out);
/* Our positions to a proposer: "stream" once, then what is on disk. */
void acceptor_send_appended(
    struct acceptor *acceptor, struct acceptor_actions *out, struct acceptor_peer to);

enum acceptor_commit_news {
    ACCEPTOR_COMMIT_SAME,
    ACCEPTOR_COMMIT_MOVED,
    ACCEPTOR_COMMIT_EFFECTIVE, /* it has reached the start of the leader's term */
};

/* What the leader committed, as far as we hold it durably. */
enum acceptor_commit_news acceptor_advance_commit(
    struct acceptor *acceptor, struct acceptor_actions *out);

/* Mutant 36 compares terms as if they had 32 bits. */
static inline bool acceptor_is_older_term(term_t a, term_t b)
{
    return MUTANT(36) ? (uint32_t)a < (uint32_t)b : a < b;
}

/*
 * The winner whose log ours is a prefix of: its history is adopted when ours is cut to it, and only
 * then its bytes are appended. Who speaks an older protocol is not told, and computes without it.
 */
term_t acceptor_followed_term(const struct acceptor *acceptor, struct acceptor_peer by);

/* A record that is written ends here, or an older one; record_lsn gets there with the flush. */
void acceptor_remember_end(struct acceptor *acceptor, lsn_t record_lsn);

/* -- acceptor_follow.c -- */

/* `begins_anew`: the log is emptied, and begins at elected->stream_lsn. */
void acceptor_on_elected(
    struct acceptor *acceptor,
    const struct elected *elected,
    bool begins_anew,
    struct acceptor_peer from,
    struct acceptor_actions *out);
/* What another safekeeper has committed: [begin_lsn, commit_lsn) under this history. */
void acceptor_on_peer_answered(
    struct acceptor *acceptor,
    const struct term_history *history,
    lsn_t commit_lsn,
    lsn_t begin_lsn,
    struct acceptor_actions *out);
/* Bytes of it, in order. `wal` lives until the driver has carried out the actions of the step. */
void acceptor_on_peer_wal(
    struct acceptor *acceptor, lsn_t begin_lsn, struct bytes wal, struct acceptor_actions *out);

/*
 * The steps to a log that is followed, each when the one before it is durable: the files go if it
 * begins anew, the winner's history is taken, appends (or the bytes of a peer) are let in.
 */
void acceptor_empty_if_durable(struct acceptor *acceptor, struct acceptor_actions *out);
void acceptor_adopt(struct acceptor *acceptor, struct acceptor_actions *out);
void acceptor_follow(struct acceptor *acceptor, struct acceptor_actions *out);
/* Idle again, if all that was committed there is on our disk. */
void acceptor_end_catch_up(struct acceptor *acceptor);
