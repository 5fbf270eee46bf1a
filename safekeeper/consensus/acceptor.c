/*
 * acceptor.c - votes, appends, what the disk reports, and changes of the membership. How the log
 * becomes that of a winner is apart, in acceptor_follow.c.
 */
#include "safekeeper/consensus/acceptor.h"

#include "safekeeper/consensus/acceptor_private.h"
#include "safekeeper/consensus/change.h"

/* After so much committed WAL its position is persisted: it bounds the scan at the next start. */
#define COMMIT_PERSIST_STEP (16 * MIB)

static_assert((ACCEPTOR_ENDS_MAX & (ACCEPTOR_ENDS_MAX - 1)) == 0, "indexes are masked");

static bool peer_equal(struct acceptor_peer a, struct acceptor_peer b)
{
    return a.proposer_id == b.proposer_id && a.connection == b.connection;
}

struct acceptor_action *acceptor_emit(
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

void acceptor_refuse(
    struct acceptor_actions *out, struct acceptor_peer to, err_t err, const char *why)
{
    struct acceptor_action *action = acceptor_emit(out, ACCEPTOR_REFUSE, to);
    action->refuse.err = err;
    action->refuse.why = why;
    action->refuse.generation = 0;
}

void acceptor_refuse_generation(
    struct acceptor_actions *out, struct acceptor_peer to, generation_t generation, const char *why)
{
    acceptor_refuse(out, to, ERR_STALE, why);
    out->items[out->count - 1].refuse.generation = generation;
}

void acceptor_persist(struct acceptor *acceptor, struct acceptor_actions *out)
{
    acceptor->state.sequence++;
    acceptor->commit_persist_lsn = acceptor->state.commit_lsn;
    acceptor_emit(out, ACCEPTOR_PERSIST_STATE, (struct acceptor_peer){0})->state = &acceptor->state;
}

term_t acceptor_followed_term(const struct acceptor *acceptor, struct acceptor_peer by)
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
    acceptor->vote_reply.followed_term = acceptor_followed_term(acceptor, to);
    acceptor_emit(out, ACCEPTOR_SEND_VOTE, to)->vote = &acceptor->vote_reply;
}

void acceptor_send_appended(
    struct acceptor *acceptor, struct acceptor_actions *out, struct acceptor_peer to)
{
    acceptor_emit(out, ACCEPTOR_SEND_APPENDED, to)->appended = (struct append_reply){
        .generation = acceptor->state.generation,
        .term = acceptor->state.term,
        .flush_lsn = MUTANT(3) ? acceptor->write_lsn : acceptor->flush_lsn,
        .record_lsn = MUTANT(3) ? acceptor->received_record_lsn : acceptor->record_lsn,
        .commit_lsn = acceptor->state.commit_lsn,
    };
}

enum acceptor_commit_news acceptor_advance_commit(
    struct acceptor *acceptor, struct acceptor_actions *out)
{
    lsn_t held_lsn = MUTANT(22) ? acceptor->received_record_lsn : acceptor->record_lsn;
    lsn_t commit_lsn = MIN_OF(acceptor->leader_commit_lsn, held_lsn);
    if (MUTANT(34)) {
        commit_lsn = acceptor->leader_commit_lsn;
    }
    if (commit_lsn <= acceptor->state.commit_lsn) {
        return ACCEPTOR_COMMIT_SAME;
    }
    const struct term_history *history = &acceptor->state.history;
    lsn_t term_start_lsn = history->items[history->count - 1].lsn;
    bool effective = acceptor->state.commit_lsn < term_start_lsn && commit_lsn >= term_start_lsn;
    acceptor->state.commit_lsn = commit_lsn;
    acceptor_emit(out, ACCEPTOR_RELEASE_COMMITTED, acceptor->leader)->commit_lsn = commit_lsn;

    /* That a term has become effective is remembered at once: a compute starts from there. */
    if (effective || commit_lsn - acceptor->commit_persist_lsn >= COMMIT_PERSIST_STEP) {
        MARK("acceptor.commit.persisted");
        acceptor_persist(acceptor, out);
    }
    return effective ? ACCEPTOR_COMMIT_EFFECTIVE : ACCEPTOR_COMMIT_MOVED;
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
        acceptor_persist(acceptor, out);
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
        acceptor_refuse_generation(
            out, from, vote->generation, "vote request of another membership");
        return;
    }
    bool newer = acceptor_is_older_term(acceptor->state.term, vote->term) ||
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
    acceptor_persist(acceptor, out);
    acceptor->vote_sequence = acceptor->state.sequence;
    if (MUTANT(1)) {
        acceptor->vote_pending = false;
        /* the granted reply would overwrite the denied one, they share a buffer */
        if (!rival_waits) {
            send_vote(acceptor, out, from, /* granted */ true);
        }
    }
}

/* ---- appends ---- */

static uint32_t end_slot(const struct acceptor *acceptor, uint32_t index)
{
    return (acceptor->ends_first + index) & (ACCEPTOR_ENDS_MAX - 1);
}

void acceptor_remember_end(struct acceptor *acceptor, lsn_t record_lsn)
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
        acceptor_refuse_generation(out, from, append->generation, "append of another membership");
        return;
    }
    if (acceptor_is_older_term(append->term, acceptor->state.term) && !MUTANT(4)) {
        MARK("acceptor.append.stale");
        acceptor_send_appended(acceptor, out, from); /* tells it the newer term */
        return;
    }
    const char *why = check_append(acceptor, append, from);
    if (why != NULL) {
        acceptor_refuse(out, from, ERR_INVALID, why);
        return;
    }
    if (append->wal.size > 0) {
        acceptor->write_lsn = append->begin_lsn + append->wal.size;
        acceptor_remember_end(acceptor, append->record_lsn);
        struct acceptor_action *action = acceptor_emit(out, ACCEPTOR_WRITE_WAL, from);
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
    enum acceptor_commit_news news = acceptor_advance_commit(acceptor, out);
    if ((append->wal.size == 0 && news != ACCEPTOR_COMMIT_MOVED) || MUTANT(3)) {
        acceptor_send_appended(acceptor, out, from);
    }
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
    acceptor_persist(acceptor, out);
    acceptor->forget_sequence = acceptor->state.sequence;
    if (MUTANT(333)) {
        acceptor_emit(out, ACCEPTOR_REMOVE_WAL, (struct acceptor_peer){0})->remove_lsn = lsn;
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
    acceptor_empty_if_durable(acceptor, out);
    if (acceptor->forget_sequence != 0 && acceptor->durable_sequence >= acceptor->forget_sequence) {
        acceptor->forget_sequence = 0;
        acceptor_emit(out, ACCEPTOR_REMOVE_WAL, (struct acceptor_peer){0})->remove_lsn =
            acceptor->state.begin_lsn;
    }
    if (acceptor->phase == ACCEPTOR_ADOPTING &&
        acceptor->durable_sequence >= acceptor->adopt_sequence) {
        end_suspicion(acceptor, out); /* the term begins at the end of our log, or before */
        acceptor_follow(acceptor, out);
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
        (void)acceptor_advance_commit(acceptor, out);
        acceptor_send_appended(acceptor, out, acceptor->leader);
    } else if (acceptor->phase == ACCEPTOR_CATCHING_UP) {
        (void)acceptor_advance_commit(acceptor, out);
        acceptor_end_catch_up(acceptor);
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
        acceptor_persist(acceptor, out);
    }
    if (acceptor->phase == ACCEPTOR_TRUNCATING && acceptor->wal_epoch_done == acceptor->wal_epoch) {
        acceptor_adopt(acceptor, out);
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
        acceptor_refuse_generation(out, acceptor->leader, old, "the membership has changed");
    }
    if (acceptor->vote_pending && !MUTANT(30)) {
        MARK("acceptor.membership.voting");
        acceptor->vote_pending = false;
        acceptor_refuse_generation(out, acceptor->vote_to, old, "the membership has changed");
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
    acceptor_persist(acceptor, out);
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
        acceptor_refuse(out, event->from, ERR_FAILED, "storage of this timeline is out of service");
        return;
    }
    if (event->kind == ACCEPTOR_VOTE_REQUESTED) {
        on_vote_requested(acceptor, event->vote, event->from, out);
    } else if (event->kind == ACCEPTOR_ELECTED) {
        acceptor_on_elected(acceptor, event->elected, event->begins_anew, event->from, out);
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
        acceptor_on_peer_answered(
            acceptor, event->peer.history, event->peer.commit_lsn, event->peer.begin_lsn, out);
    } else if (event->kind == ACCEPTOR_PEER_WAL) {
        acceptor_on_peer_wal(acceptor, event->peer_wal.begin_lsn, event->peer_wal.wal, out);
    } else if (event->kind == ACCEPTOR_WAL_UNNEEDED) {
        on_wal_unneeded(acceptor, event->unneeded_lsn, out);
    } else if (acceptor->commit_persist_lsn < acceptor->state.commit_lsn) {
        acceptor_persist(acceptor, out);
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
