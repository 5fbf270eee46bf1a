#include "safekeeper/consensus/acceptor.h"

#include "common/base/mark.h"
#include "safekeeper/consensus/change.h"
#include "safekeeper/consensus/mutant.h"
#include "safekeeper/consensus/term_history.h"

/* After so much committed WAL its position is persisted: it bounds the scan at the next start. */
#define COMMIT_PERSIST_STEP (16 * MIB)

static_assert((ACCEPTOR_ENDS_MAX & (ACCEPTOR_ENDS_MAX - 1)) == 0, "indexes are masked");

static bool peer_equal(struct acceptor_peer a, struct acceptor_peer b)
{
    return a.proposer_id == b.proposer_id && a.connection == b.connection;
}

static struct acceptor_action *emit(
    struct acceptor_actions *out, enum acceptor_action_kind kind, struct acceptor_peer to)
{
    ASSERT(out->count < ACCEPTOR_ACTIONS_MAX);
    struct acceptor_action *action = &out->items[out->count++];
    action->kind = kind;
    action->to = to;
    return action;
}

static void check_invariants(const struct acceptor *acceptor)
{
    ASSERT(acceptor->flush_lsn <= acceptor->write_lsn);
    ASSERT(acceptor->record_lsn <= acceptor->flush_lsn);
    ASSERT(MUTANT(22) || MUTANT(34) || acceptor->state.commit_lsn <= acceptor->record_lsn);
    ASSERT(acceptor->state.start_lsn <= acceptor->state.begin_lsn);
    ASSERT(acceptor->state.begin_lsn <= acceptor->state.commit_lsn);
    ASSERT(acceptor->durable_sequence <= acceptor->state.sequence);
    ASSERT(acceptor->wal_epoch_done <= acceptor->wal_epoch);
}

static void refuse(
    struct acceptor_actions *out, struct acceptor_peer to, err_t err, const char *why)
{
    struct acceptor_action *action = emit(out, ACCEPTOR_REFUSE, to);
    action->refuse.err = err;
    action->refuse.why = why;
    action->refuse.generation = 0;
}

static void refuse_generation(
    struct acceptor_actions *out, struct acceptor_peer to, generation_t generation, const char *why)
{
    refuse(out, to, ERR_STALE, why);
    out->items[out->count - 1].refuse.generation = generation;
}

/* Mutant 36 compares terms as if they had 32 bits. */
static bool is_older_term(term_t a, term_t b)
{
    return MUTANT(36) ? (uint32_t)a < (uint32_t)b : a < b;
}

static void persist(struct acceptor *acceptor, struct acceptor_actions *out)
{
    acceptor->state.sequence++;
    acceptor->commit_persist_lsn = acceptor->state.commit_lsn;
    emit(out, ACCEPTOR_PERSIST_STATE, (struct acceptor_peer){0})->state = &acceptor->state;
}

/*
 * The winner whose log ours is a prefix of: its history is adopted when ours is cut to it, and only
 * then its bytes are appended. Who speaks an older protocol is not told, and computes without it.
 */
static term_t followed_term(const struct acceptor *acceptor, struct acceptor_peer by)
{
    term_t term =
        MUTANT(62) ? acceptor->state.term : term_history_last_term(&acceptor->state.history);
    return by.protocol >= PROTOCOL_FOLLOWED_TERM ? term : 0;
}

void acceptor_describe(const struct acceptor *acceptor, struct vote_reply *reply)
{
    reply->generation = acceptor->state.generation;
    reply->term = acceptor->state.term;
    reply->granted = false;
    reply->flush_lsn = MUTANT(18) ? acceptor->write_lsn : acceptor->flush_lsn;
    reply->record_lsn = MUTANT(18) ? acceptor->received_record_lsn : acceptor->record_lsn;
    reply->commit_lsn = acceptor->state.commit_lsn;
    reply->start_lsn = acceptor->state.begin_lsn;
    bool is_suspect = acceptor_is_suspect(acceptor) && !MUTANT(23);
    reply->suspect_lsn = is_suspect ? acceptor->state.suspect_lsn : LSN_NONE;
    reply->suspect_term = is_suspect ? acceptor->state.suspect_term : 0;
    reply->history = acceptor->state.history;
    if (!MUTANT(13)) {
        term_history_clip(&reply->history, acceptor->record_lsn);
    }
    reply->followed_term = 0;
}

static void send_vote(
    struct acceptor *acceptor, struct acceptor_actions *out, struct acceptor_peer to, bool granted)
{
    ASSERT(MUTANT(1) || IMPLIES(granted, acceptor->durable_sequence >= acceptor->vote_sequence));
    acceptor_describe(acceptor, &acceptor->vote_reply);
    acceptor->vote_reply.granted = granted;
    acceptor->vote_reply.followed_term = followed_term(acceptor, to);
    emit(out, ACCEPTOR_SEND_VOTE, to)->vote = &acceptor->vote_reply;
}

static void send_appended(
    struct acceptor *acceptor, struct acceptor_actions *out, struct acceptor_peer to)
{
    emit(out, ACCEPTOR_SEND_APPENDED, to)->appended = (struct append_reply){
        .generation = acceptor->state.generation,
        .term = acceptor->state.term,
        .flush_lsn = MUTANT(3) ? acceptor->write_lsn : acceptor->flush_lsn,
        .record_lsn = MUTANT(3) ? acceptor->received_record_lsn : acceptor->record_lsn,
        .commit_lsn = acceptor->state.commit_lsn,
    };
}

enum commit_news {
    COMMIT_SAME,
    COMMIT_MOVED,
    COMMIT_EFFECTIVE, /* it has reached the start of the leader's term */
};

/* What the leader committed, as far as we hold it durably. */
static enum commit_news advance_commit(struct acceptor *acceptor, struct acceptor_actions *out)
{
    lsn_t held_lsn = MUTANT(22) ? acceptor->received_record_lsn : acceptor->record_lsn;
    lsn_t commit_lsn = MIN_OF(acceptor->leader_commit_lsn, held_lsn);
    if (MUTANT(34)) {
        commit_lsn = acceptor->leader_commit_lsn;
    }
    if (commit_lsn <= acceptor->state.commit_lsn) {
        return COMMIT_SAME;
    }
    const struct term_history *history = &acceptor->state.history;
    lsn_t term_start_lsn = history->items[history->count - 1].lsn;
    bool effective = acceptor->state.commit_lsn < term_start_lsn && commit_lsn >= term_start_lsn;
    acceptor->state.commit_lsn = commit_lsn;
    emit(out, ACCEPTOR_RELEASE_COMMITTED, acceptor->leader)->commit_lsn = commit_lsn;

    /* That a term has become effective is remembered at once: a compute starts from there. */
    if (effective || commit_lsn - acceptor->commit_persist_lsn >= COMMIT_PERSIST_STEP) {
        MARK("acceptor.commit.persisted");
        persist(acceptor, out);
    }
    return effective ? COMMIT_EFFECTIVE : COMMIT_MOVED;
}

/* ---- suspicion ---- */

static bool is_suspect_at(const struct acceptor_state *state, lsn_t record_lsn)
{
    if (state->suspect_lsn <= record_lsn) {
        return false; /* none, or everything is here again */
    }
    struct term_history held = state->history;
    term_history_clip(&held, record_lsn);
    return term_history_last_term(&held) <= state->suspect_term;
}

bool acceptor_is_suspect(const struct acceptor *acceptor)
{
    return is_suspect_at(&acceptor->state, acceptor->record_lsn);
}

void acceptor_state_suspect(struct acceptor_state *state, lsn_t record_lsn, lsn_t suspect_lsn)
{
    ASSERT(suspect_lsn > record_lsn);
    term_t term = term_history_last_term(&state->history);
    bool is_already = is_suspect_at(state, record_lsn);
    state->suspect_lsn = is_already ? MAX_OF(state->suspect_lsn, suspect_lsn) : suspect_lsn;
    state->suspect_term = is_already ? MAX_OF(state->suspect_term, term) : term;
}

/* It is forgotten when it is over; on disk a little later, which only repeats the question. */
static void end_suspicion(struct acceptor *acceptor, struct acceptor_actions *out)
{
    if (acceptor->state.suspect_lsn != LSN_NONE && (!acceptor_is_suspect(acceptor) || MUTANT(56))) {
        MARK("acceptor.suspicion.ended");
        acceptor->state.suspect_lsn = LSN_NONE;
        acceptor->state.suspect_term = 0;
        persist(acceptor, out);
    }
}

/* ---- votes ---- */

static void on_vote_requested(
    struct acceptor *acceptor,
    const struct vote_request *vote,
    struct acceptor_peer from,
    struct acceptor_actions *out)
{
    if (!MUTANT(30) && vote->generation != acceptor->state.generation) {
        MARK("acceptor.vote.generation");
        refuse_generation(out, from, vote->generation, "vote request of another membership");
        return;
    }
    bool newer = is_older_term(acceptor->state.term, vote->term) ||
                 (MUTANT(2) && vote->term == acceptor->state.term);
    if (!newer) {
        /* Also how an elected proposer on a new connection learns where we are. */
        MARK("acceptor.vote.denied");
        send_vote(acceptor, out, from, /* granted */ false);
        return;
    }
    struct acceptor_peer rival = acceptor->vote_to;
    bool rival_waits = acceptor->vote_pending;
    acceptor->state.term = vote->term;
    acceptor->phase = ACCEPTOR_IDLE; /* the old term is over; a truncation may still be running */
    acceptor->vote_pending = true;
    acceptor->vote_to = from;
    if (rival_waits) {
        MARK("acceptor.vote.overtaken");
        send_vote(acceptor, out, rival, /* granted */ false);
    }
    persist(acceptor, out);
    acceptor->vote_sequence = acceptor->state.sequence;
    if (MUTANT(1)) {
        acceptor->vote_pending = false;
        /* the granted reply would overwrite the denied one, they share a buffer */
        if (!rival_waits) {
            send_vote(acceptor, out, from, /* granted */ true);
        }
    }
}

/* ---- elected ---- */

static void follow(struct acceptor *acceptor, struct acceptor_actions *out)
{
    if (acceptor->is_catching_up) {
        acceptor->phase = ACCEPTOR_CATCHING_UP;
        acceptor->leader_commit_lsn = acceptor->catch_up_lsn;
        (void)advance_commit(acceptor, out);
        return;
    }
    acceptor->phase = ACCEPTOR_FOLLOWING;
    acceptor->leader_commit_lsn = LSN_NONE;
    send_appended(acceptor, out, acceptor->leader); /* "stream" */
}

/* The log is the winner's now. Only from here on may it be called by the winner's history. */
static void adopt(struct acceptor *acceptor, struct acceptor_actions *out)
{
    acceptor->phase = ACCEPTOR_ADOPTING;
    if (!term_history_equal(&acceptor->state.history, &acceptor->elected_history)) {
        acceptor->state.history = acceptor->elected_history;
        persist(acceptor, out);
    }
    acceptor->adopt_sequence = acceptor->state.sequence;
    if (acceptor->durable_sequence >= acceptor->adopt_sequence) {
        MARK("acceptor.elected.known_already");
        follow(acceptor, out);
    }
}

/* The state that says that the files do not count is on disk: now they may go. */
static void empty_if_durable(struct acceptor *acceptor, struct acceptor_actions *out)
{
    if (acceptor->anew_sequence == 0 || acceptor->durable_sequence < acceptor->anew_sequence) {
        return;
    }
    acceptor->anew_sequence = 0;
    struct acceptor_action *action = emit(out, ACCEPTOR_EMPTY_WAL, acceptor->leader);
    action->truncate.lsn = acceptor->state.begin_lsn;
    action->truncate.epoch = acceptor->wal_epoch;
}

static void truncate_log(struct acceptor *acceptor, lsn_t lsn, struct acceptor_actions *out)
{
    acceptor->wal_epoch++;
    acceptor->write_lsn = lsn;
    acceptor->flush_lsn = lsn;
    acceptor->record_lsn = lsn;
    acceptor->received_record_lsn = lsn;
    acceptor->ends_count = 0;
    struct acceptor_action *action = emit(out, ACCEPTOR_TRUNCATE_WAL, acceptor->leader);
    action->truncate.lsn = lsn;
    action->truncate.epoch = acceptor->wal_epoch;
}

/*
 * The log ends before everything that somebody could complete it from. What it lacks up to `lsn` is
 * committed and consumed; so it is as if that had been copied here and forgotten again. One step on
 * disk takes the old log away and gives the empty one its history, whatever is left in the files
 * meanwhile.
 */
static void begin_anew(
    struct acceptor *acceptor,
    lsn_t lsn,
    const struct term_history *history,
    struct acceptor_actions *out)
{
    ASSERT(acceptor->wal_epoch_done == acceptor->wal_epoch);
    ASSERT(lsn > acceptor->state.begin_lsn && lsn > acceptor->state.commit_lsn);
    acceptor->wal_epoch++;
    acceptor->write_lsn = acceptor->flush_lsn = acceptor->record_lsn = lsn;
    acceptor->received_record_lsn = lsn;
    acceptor->ends_count = 0;
    acceptor->state.begin_lsn = acceptor->state.commit_lsn = lsn;
    acceptor->state.history = *history;
    acceptor->state.is_begun_anew = true;
    acceptor->forget_sequence = 0;
    persist(acceptor, out);
    acceptor->anew_sequence = acceptor->state.sequence;
    if (MUTANT(233)) {
        acceptor->anew_sequence = acceptor->durable_sequence;
    }
    empty_if_durable(acceptor, out);
}

/* ERR_OK, or why this winner must not begin the log anew. */
static err_t check_anew(
    const struct acceptor *acceptor,
    const struct elected *elected,
    lsn_t common_lsn,
    const char **ret_why)
{
    /* As below: since it was computed, the log may have been completed on another connection. */
    if (common_lsn >= elected->stream_lsn) {
        MARK("acceptor.anew.overtaken");
        *ret_why = "the log reaches to where it would begin anew: ask again";
        return ERR_STALE;
    }
    if (acceptor->state.commit_lsn >= elected->stream_lsn) {
        MARK("acceptor.anew.below_commit");
        *ret_why = "a new begin would drop committed WAL";
        return ERR_INVALID;
    }
    if (acceptor->wal_epoch_done != acceptor->wal_epoch) {
        MARK("acceptor.anew.still_truncating");
        *ret_why = "the log is still being cut for an earlier winner: ask again";
        return ERR_BUSY;
    }
    return ERR_OK;
}

/* ERR_OK, or why this winner must not touch the log. */
static err_t check_elected(
    struct acceptor *acceptor,
    const struct elected *elected,
    bool begins_anew,
    struct acceptor_peer from,
    const char **ret_why)
{
    if (!term_history_is_valid(&elected->history) ||
        term_history_last_term(&elected->history) != elected->term) {
        MARK("acceptor.elected.bad_history");
        *ret_why = "the history of the elected proposer does not end with its term";
        return ERR_INVALID;
    }
    /*
     * The proposer computed stream_lsn from an earlier vote reply. If it is not what our log says
     * now, the message was overtaken: since then the same proposer may have streamed on another
     * connection, and truncating would lose bytes that we have acknowledged.
     */
    struct term_history clipped = acceptor->state.history;
    term_history_clip(&clipped, acceptor->record_lsn);
    lsn_t common_lsn = term_history_common_lsn(
        &elected->history, &clipped, followed_term(acceptor, from), acceptor->record_lsn,
        acceptor->state.commit_lsn);
    if (begins_anew) {
        return check_anew(acceptor, elected, common_lsn, ret_why);
    }
    if (!MUTANT(10) && common_lsn != elected->stream_lsn) {
        MARK("acceptor.elected.overtaken");
        *ret_why = "stream_lsn is not where the logs part: ask again";
        return ERR_STALE;
    }
    if (!MUTANT(10) && elected->stream_lsn < acceptor->state.commit_lsn) {
        MARK("acceptor.elected.below_commit");
        *ret_why = "stream_lsn would truncate committed WAL";
        return ERR_INVALID;
    }
    if (elected->stream_lsn < acceptor->write_lsn &&
        acceptor->wal_epoch_done != acceptor->wal_epoch) {
        MARK("acceptor.elected.still_truncating");
        *ret_why = "the log is still being cut for an earlier winner: ask again";
        return ERR_BUSY;
    }
    return ERR_OK;
}

static void on_elected(
    struct acceptor *acceptor,
    const struct elected *elected,
    bool begins_anew,
    struct acceptor_peer from,
    struct acceptor_actions *out)
{
    if (!MUTANT(330) && elected->generation != acceptor->state.generation) {
        MARK("acceptor.elected.generation");
        refuse_generation(out, from, elected->generation, "elected by another membership");
        return;
    }
    if (is_older_term(elected->term, acceptor->state.term)) {
        MARK("acceptor.elected.stale");
        send_appended(acceptor, out, from); /* tells it the newer term */
        return;
    }
    const char *why = NULL;
    err_t err = check_elected(acceptor, elected, begins_anew, from, &why);
    if (err != ERR_OK) {
        refuse(out, from, err, why);
        return;
    }
    acceptor->state.term = elected->term;
    acceptor->vote_pending = false; /* decided without us */
    acceptor->is_catching_up = false;
    acceptor->leader = from;
    acceptor->elected_history = elected->history;
    acceptor->phase = ACCEPTOR_TRUNCATING;
    if (begins_anew) {
        MARK("acceptor.elected.anew");
        begin_anew(acceptor, elected->stream_lsn, &elected->history, out);
    } else if (elected->stream_lsn < acceptor->write_lsn && !MUTANT(11)) {
        MARK("acceptor.elected.truncated");
        truncate_log(acceptor, elected->stream_lsn, out);
    }
    if (acceptor->wal_epoch_done == acceptor->wal_epoch || MUTANT(12)) {
        adopt(acceptor, out);
    }
}

/* ---- appends ---- */

static uint32_t end_slot(const struct acceptor *acceptor, uint32_t index)
{
    return (acceptor->ends_first + index) & (ACCEPTOR_ENDS_MAX - 1);
}

static void remember_end(struct acceptor *acceptor, lsn_t record_lsn)
{
    if (record_lsn <= acceptor->received_record_lsn) {
        return;
    }
    acceptor->received_record_lsn = record_lsn;
    if (acceptor->ends_count == ACCEPTOR_ENDS_MAX) {
        MARK("acceptor.append.ends_coarsened");
        acceptor->ends[end_slot(acceptor, ACCEPTOR_ENDS_MAX - 1)] = record_lsn;
        return;
    }
    acceptor->ends[end_slot(acceptor, acceptor->ends_count++)] = record_lsn;
}

/* NULL, or what is wrong with an append of our term. */
static const char *check_append(
    const struct acceptor *acceptor, const struct append *append, struct acceptor_peer from)
{
    bool followed = acceptor->phase == ACCEPTOR_FOLLOWING && append->term == acceptor->state.term &&
                    peer_equal(acceptor->leader, from);
    if (!followed && !MUTANT_IN(4, 5)) {
        MARK("acceptor.append.before_elected");
        return "append before the reply to elected on this connection";
    }
    if (append->begin_lsn != acceptor->write_lsn && !MUTANT(17)) {
        MARK("acceptor.append.gap");
        return "append does not begin where the log ends";
    }
    if (append->wal.size > WAL_APPEND_MAX || append->wal.size > UINT64_MAX - append->begin_lsn) {
        MARK("acceptor.append.size");
        return "append is too large";
    }
    if (append->record_lsn > append->begin_lsn + append->wal.size) {
        MARK("acceptor.append.record_lsn");
        return "the record end of an append lies behind its bytes";
    }
    return NULL;
}

static void on_append_requested(
    struct acceptor *acceptor,
    const struct append *append,
    struct acceptor_peer from,
    struct acceptor_actions *out)
{
    if (!MUTANT(130) && append->generation != acceptor->state.generation) {
        MARK("acceptor.append.generation");
        refuse_generation(out, from, append->generation, "append of another membership");
        return;
    }
    if (is_older_term(append->term, acceptor->state.term) && !MUTANT(4)) {
        MARK("acceptor.append.stale");
        send_appended(acceptor, out, from); /* tells it the newer term */
        return;
    }
    const char *why = check_append(acceptor, append, from);
    if (why != NULL) {
        refuse(out, from, ERR_INVALID, why);
        return;
    }
    if (append->wal.size > 0) {
        acceptor->write_lsn = append->begin_lsn + append->wal.size;
        remember_end(acceptor, append->record_lsn);
        struct acceptor_action *action = emit(out, ACCEPTOR_WRITE_WAL, from);
        action->write.begin_lsn = append->begin_lsn;
        action->write.wal = append->wal;
        action->write.epoch = acceptor->wal_epoch;
    }
    acceptor->leader_commit_lsn = MAX_OF(acceptor->leader_commit_lsn, append->commit_lsn);
    /*
     * With WAL: answered when that is on disk. A heartbeat is answered at once, and so is the news
     * that the term is effective, because --sync waits for it. Other news of a commit is not: there
     * is some for every transaction, and nobody needs the answer.
     */
    enum commit_news news = advance_commit(acceptor, out);
    if ((append->wal.size == 0 && news != COMMIT_MOVED) || MUTANT(3)) {
        send_appended(acceptor, out, from);
    }
}

/* ---- catching up ---- */

static void end_catch_up(struct acceptor *acceptor)
{
    if (acceptor->phase == ACCEPTOR_CATCHING_UP && acceptor->record_lsn >= acceptor->catch_up_lsn) {
        MARK("acceptor.catch_up.done");
        acceptor->phase = ACCEPTOR_IDLE;
    }
}

static bool may_catch_up(const struct acceptor *acceptor)
{
    /*
     * Who was followed is gone, or who was read from in the middle of it. Should the leader be
     * there all the same, its next append is refused, and it asks again.
     */
    bool is_left = acceptor->phase == ACCEPTOR_FOLLOWING || acceptor->phase == ACCEPTOR_CATCHING_UP;
    bool is_quiet =
        acceptor->phase == ACCEPTOR_IDLE || (is_left && acceptor->write_lsn == acceptor->flush_lsn);
    return is_quiet && !acceptor->vote_pending && acceptor->wal_epoch_done == acceptor->wal_epoch;
}

static void on_peer_answered(
    struct acceptor *acceptor,
    const struct term_history *history,
    lsn_t commit_lsn,
    lsn_t begin_lsn,
    struct acceptor_actions *out)
{
    if (begin_lsn > commit_lsn || !may_catch_up(acceptor) || !term_history_is_valid(history) ||
        history->items[history->count - 1].lsn > commit_lsn) {
        MARK("acceptor.catch_up.not_now");
        return;
    }
    struct term_history ours = acceptor->state.history;
    term_history_clip(&ours, acceptor->record_lsn);
    lsn_t common_lsn = term_history_common_lsn(
        history, &ours, term_history_last_term(&acceptor->state.history), acceptor->record_lsn,
        acceptor->state.commit_lsn);
    acceptor->leader = (struct acceptor_peer){0}; /* nobody */
    acceptor->phase = ACCEPTOR_IDLE;
    if (common_lsn >= commit_lsn) {
        acceptor->leader_commit_lsn = commit_lsn; /* nothing to read, but it is news */
        (void)advance_commit(acceptor, out);
        return;
    }
    if (common_lsn < acceptor->state.commit_lsn) {
        MARK("acceptor.catch_up.below_commit");
        return; /* one of us is wrong about what is committed: nothing is cut for that */
    }
    MARK("acceptor.catch_up.begun");
    acceptor->state.term = MAX_OF(acceptor->state.term, term_history_last_term(history));
    acceptor->elected_history = *history;
    acceptor->is_catching_up = true;
    acceptor->catch_up_lsn = commit_lsn;
    acceptor->phase = ACCEPTOR_TRUNCATING;
    if (common_lsn < begin_lsn) {
        MARK("acceptor.catch_up.anew");
        begin_anew(acceptor, begin_lsn, history, out);
    } else if (common_lsn < acceptor->write_lsn && !MUTANT(58)) {
        MARK("acceptor.catch_up.truncated");
        truncate_log(acceptor, common_lsn, out);
    }
    if (acceptor->wal_epoch_done == acceptor->wal_epoch || MUTANT(59)) {
        adopt(acceptor, out);
    }
}

/* Where its records end is known of the last one only: before, nothing of it is counted. */
static void on_peer_wal(
    struct acceptor *acceptor, lsn_t begin_lsn, struct bytes wal, struct acceptor_actions *out)
{
    if (acceptor->phase != ACCEPTOR_CATCHING_UP || begin_lsn != acceptor->write_lsn ||
        wal.size == 0 || wal.size > acceptor->catch_up_lsn - begin_lsn) {
        MARK("acceptor.catch_up.old");
        return;
    }
    acceptor->write_lsn = begin_lsn + wal.size;
    if (acceptor->write_lsn == acceptor->catch_up_lsn) {
        remember_end(acceptor, acceptor->catch_up_lsn);
    }
    struct acceptor_action *action = emit(out, ACCEPTOR_WRITE_WAL, acceptor->leader);
    action->write.begin_lsn = begin_lsn;
    action->write.wal = wal;
    action->write.epoch = acceptor->wal_epoch;
}

/* ---- forgetting ---- */

static void on_wal_unneeded(struct acceptor *acceptor, lsn_t lsn, struct acceptor_actions *out)
{
    if (lsn <= acceptor->state.begin_lsn || lsn > acceptor->state.commit_lsn) {
        MARK("acceptor.unneeded.not_now");
        return;
    }
    MARK("acceptor.unneeded.forgotten");
    acceptor->state.begin_lsn = lsn;
    persist(acceptor, out);
    acceptor->forget_sequence = acceptor->state.sequence;
    if (MUTANT(333)) {
        emit(out, ACCEPTOR_REMOVE_WAL, (struct acceptor_peer){0})->remove_lsn = lsn;
    }
}

/* ---- the disk reports ---- */

static void on_state_persisted(
    struct acceptor *acceptor, uint64_t sequence, struct acceptor_actions *out)
{
    ASSERT(sequence <= acceptor->state.sequence);
    acceptor->durable_sequence = MAX_OF(acceptor->durable_sequence, sequence);
    if (acceptor->vote_pending && acceptor->durable_sequence >= acceptor->vote_sequence) {
        acceptor->vote_pending = false;
        send_vote(acceptor, out, acceptor->vote_to, /* granted */ true);
    }
    empty_if_durable(acceptor, out);
    if (acceptor->forget_sequence != 0 && acceptor->durable_sequence >= acceptor->forget_sequence) {
        acceptor->forget_sequence = 0;
        emit(out, ACCEPTOR_REMOVE_WAL, (struct acceptor_peer){0})->remove_lsn =
            acceptor->state.begin_lsn;
    }
    if (acceptor->phase == ACCEPTOR_ADOPTING &&
        acceptor->durable_sequence >= acceptor->adopt_sequence) {
        end_suspicion(acceptor, out); /* the term begins at the end of our log, or before */
        follow(acceptor, out);
    }
}

static void on_wal_flushed(
    struct acceptor *acceptor, lsn_t lsn, uint64_t epoch, struct acceptor_actions *out)
{
    ASSERT(epoch <= acceptor->wal_epoch);
    if (epoch != acceptor->wal_epoch) {
        MARK("acceptor.flushed.before_truncation");
        return;
    }
    ASSERT(MUTANT(17) || lsn <= acceptor->write_lsn);
    if (lsn <= acceptor->flush_lsn) {
        return;
    }
    acceptor->flush_lsn = lsn;
    while (acceptor->ends_count > 0 && acceptor->ends[acceptor->ends_first] <= lsn) {
        acceptor->record_lsn = acceptor->ends[acceptor->ends_first];
        acceptor->ends_first = end_slot(acceptor, 1);
        acceptor->ends_count--;
    }
    end_suspicion(acceptor, out);
    if (acceptor->phase == ACCEPTOR_FOLLOWING) {
        (void)advance_commit(acceptor, out);
        send_appended(acceptor, out, acceptor->leader);
    } else if (acceptor->phase == ACCEPTOR_CATCHING_UP) {
        (void)advance_commit(acceptor, out);
        end_catch_up(acceptor);
    }
}

static void on_wal_truncated(
    struct acceptor *acceptor, uint64_t epoch, struct acceptor_actions *out)
{
    ASSERT(epoch <= acceptor->wal_epoch);
    acceptor->wal_epoch_done = MAX_OF(acceptor->wal_epoch_done, epoch);
    if (acceptor->state.is_begun_anew && acceptor->wal_epoch_done == acceptor->wal_epoch &&
        !MUTANT(433)) {
        MARK("acceptor.anew.emptied");
        acceptor->state.is_begun_anew = false; /* from here on the files count again */
        persist(acceptor, out);
    }
    if (acceptor->phase == ACCEPTOR_TRUNCATING && acceptor->wal_epoch_done == acceptor->wal_epoch) {
        adopt(acceptor, out);
    }
}

/* ---- membership ---- */

/*
 * What goes on under the old membership is over: its leader hears why and learns the new one, a
 * vote that is not given yet never will be. WAL on its way to the disk still arrives there; nobody
 * is told. A truncation that runs goes on, as after a vote.
 */
static void leave_membership(struct acceptor *acceptor, struct acceptor_actions *out)
{
    generation_t old = acceptor->state.generation;
    bool is_led = acceptor->phase == ACCEPTOR_TRUNCATING || acceptor->phase == ACCEPTOR_ADOPTING;
    bool has_leader =
        (is_led && !acceptor->is_catching_up) || acceptor->phase == ACCEPTOR_FOLLOWING;
    if (has_leader && !MUTANT(130)) {
        MARK("acceptor.membership.led");
        refuse_generation(out, acceptor->leader, old, "the membership has changed");
    }
    if (acceptor->vote_pending && !MUTANT(30)) {
        MARK("acceptor.membership.voting");
        acceptor->vote_pending = false;
        refuse_generation(out, acceptor->vote_to, old, "the membership has changed");
    }
    if (!MUTANT(130)) {
        acceptor->phase = ACCEPTOR_IDLE;
    }
}

static void on_membership_changed(
    struct acceptor *acceptor, generation_t generation, term_t term, struct acceptor_actions *out)
{
    bool is_newer = generation > acceptor->state.generation;
    bool promises = generation >= acceptor->state.generation && term > acceptor->state.term;
    if (!is_newer && !promises) {
        MARK("acceptor.membership.known");
        return;
    }
    if (is_newer) {
        leave_membership(acceptor, out);
        acceptor->state.generation = generation;
    }
    if (promises) {
        MARK("acceptor.membership.promised");
        acceptor->state.term = term;
        acceptor->phase = ACCEPTOR_IDLE;
        if (acceptor->vote_pending) {
            acceptor->vote_pending = false;
            send_vote(acceptor, out, acceptor->vote_to, /* granted */ false);
        }
    }
    persist(acceptor, out);
}

bool acceptor_report(const struct acceptor *acceptor, struct change_report *ret_report)
{
    /* While TRUNCATING, the winner's term is in `state` and on its way to no disk yet. */
    if (acceptor->durable_sequence != acceptor->state.sequence ||
        acceptor->phase == ACCEPTOR_TRUNCATING || acceptor->phase == ACCEPTOR_FAILED) {
        return false;
    }
    struct term_history history = acceptor->state.history;
    term_history_clip(&history, acceptor->record_lsn);
    *ret_report = (struct change_report){
        .answered = true,
        .generation = acceptor->state.generation,
        .term = acceptor->state.term,
        .log_term = term_history_last_term(&history),
        .record_lsn = acceptor->record_lsn,
    };
    if (acceptor_is_suspect(acceptor)) {
        ret_report->suspect_term = acceptor->state.suspect_term;
        ret_report->suspect_lsn = acceptor->state.suspect_lsn;
    }
    return true;
}

/* ---- public ---- */

void acceptor_state_init(struct acceptor_state *state, generation_t generation, lsn_t start_lsn)
{
    ASSERT(generation != 0 && start_lsn != LSN_NONE);
    *state = (struct acceptor_state){
        .sequence = 1,
        .generation = generation,
        .start_lsn = start_lsn,
        .begin_lsn = start_lsn,
        .commit_lsn = start_lsn,
        .history = {.count = 1, .items = {{.term = 0, .lsn = start_lsn}}},
    };
}

err_t acceptor_init(
    struct acceptor *acceptor,
    const struct acceptor_state *durable,
    lsn_t flush_lsn,
    lsn_t record_lsn,
    struct errmsg *msg)
{
    if (!term_history_is_valid(&durable->history) || durable->generation == 0 ||
        term_history_last_term(&durable->history) > durable->term) {
        return err_set(msg, ERR_CORRUPT, "the consensus state contradicts itself");
    }
    if (durable->start_lsn == LSN_NONE || durable->start_lsn > durable->begin_lsn ||
        durable->begin_lsn > durable->commit_lsn || durable->commit_lsn > record_lsn ||
        record_lsn > flush_lsn) {
        return err_set(
            msg, ERR_CORRUPT,
            "positions contradict: start " LSN_FMT " begin " LSN_FMT " commit " LSN_FMT
            " record " LSN_FMT " flush " LSN_FMT,
            LSN_ARGS(durable->start_lsn), LSN_ARGS(durable->begin_lsn),
            LSN_ARGS(durable->commit_lsn), LSN_ARGS(record_lsn), LSN_ARGS(flush_lsn));
    }
    *acceptor = (struct acceptor){
        .state = *durable,
        .durable_sequence = durable->sequence,
        .write_lsn = flush_lsn,
        .flush_lsn = flush_lsn,
        .record_lsn = record_lsn,
        .received_record_lsn = record_lsn,
        .commit_persist_lsn = durable->commit_lsn,
    };
    check_invariants(acceptor);
    return ERR_OK;
}

static void on_message(
    struct acceptor *acceptor, const struct acceptor_event *event, struct acceptor_actions *out)
{
    if (acceptor->phase == ACCEPTOR_FAILED) {
        refuse(out, event->from, ERR_FAILED, "storage of this timeline is out of service");
        return;
    }
    if (event->kind == ACCEPTOR_VOTE_REQUESTED) {
        on_vote_requested(acceptor, event->vote, event->from, out);
    } else if (event->kind == ACCEPTOR_ELECTED) {
        on_elected(acceptor, event->elected, event->begins_anew, event->from, out);
    } else {
        on_append_requested(acceptor, event->append, event->from, out);
    }
}

static void on_disk_event(
    struct acceptor *acceptor, const struct acceptor_event *event, struct acceptor_actions *out)
{
    if (acceptor->phase == ACCEPTOR_FAILED) {
        return; /* what finishes now is not to be believed */
    }
    if (event->kind == ACCEPTOR_STATE_PERSISTED) {
        on_state_persisted(acceptor, event->sequence, out);
    } else if (event->kind == ACCEPTOR_WAL_FLUSHED) {
        on_wal_flushed(acceptor, event->wal.lsn, event->wal.epoch, out);
    } else if (event->kind == ACCEPTOR_WAL_TRUNCATED) {
        on_wal_truncated(acceptor, event->wal.epoch, out);
    } else if (event->kind == ACCEPTOR_MEMBERSHIP_CHANGED) {
        on_membership_changed(acceptor, event->membership.generation, event->membership.term, out);
    } else if (event->kind == ACCEPTOR_PEER_ANSWERED) {
        on_peer_answered(
            acceptor, event->peer.history, event->peer.commit_lsn, event->peer.begin_lsn, out);
    } else if (event->kind == ACCEPTOR_PEER_WAL) {
        on_peer_wal(acceptor, event->peer_wal.begin_lsn, event->peer_wal.wal, out);
    } else if (event->kind == ACCEPTOR_WAL_UNNEEDED) {
        on_wal_unneeded(acceptor, event->unneeded_lsn, out);
    } else if (acceptor->commit_persist_lsn < acceptor->state.commit_lsn) {
        persist(acceptor, out);
    }
}

void acceptor_step(
    struct acceptor *acceptor, const struct acceptor_event *event, struct acceptor_actions *out)
{
    check_invariants(acceptor);
    out->count = 0;
    switch (event->kind) {
    case ACCEPTOR_VOTE_REQUESTED:
    case ACCEPTOR_ELECTED:
    case ACCEPTOR_APPEND_REQUESTED: on_message(acceptor, event, out); break;
    case ACCEPTOR_STATE_PERSISTED:
    case ACCEPTOR_WAL_FLUSHED:
    case ACCEPTOR_WAL_TRUNCATED:
    case ACCEPTOR_MEMBERSHIP_CHANGED:
    case ACCEPTOR_PEER_ANSWERED:
    case ACCEPTOR_PEER_WAL:
    case ACCEPTOR_WAL_UNNEEDED:
    case ACCEPTOR_PERSIST_WANTED: on_disk_event(acceptor, event, out); break;
    case ACCEPTOR_STORAGE_FAILED:
        MARK("acceptor.storage.failed");
        acceptor->phase = ACCEPTOR_FAILED;
        acceptor->vote_pending = false;
        break;
    }
    check_invariants(acceptor);
}

err_t acceptor_readable_lsn(const struct acceptor *acceptor, term_t term, lsn_t *ret_lsn)
{
    if (acceptor->phase == ACCEPTOR_FAILED) {
        return ERR_FAILED;
    }
    if (term != 0 && term != acceptor->state.term && !MUTANT(38)) {
        return ERR_STALE;
    }
    *ret_lsn = term == 0 ? acceptor->state.commit_lsn : acceptor->record_lsn;
    return ERR_OK;
}

const char *acceptor_phase_name(enum acceptor_phase phase)
{
    switch (phase) {
    case ACCEPTOR_IDLE: return "idle";
    case ACCEPTOR_TRUNCATING: return "truncating";
    case ACCEPTOR_ADOPTING: return "adopting";
    case ACCEPTOR_FOLLOWING: return "following";
    case ACCEPTOR_CATCHING_UP: return "catching up";
    case ACCEPTOR_FAILED: return "failed";
    }
    return "unknown";
}
