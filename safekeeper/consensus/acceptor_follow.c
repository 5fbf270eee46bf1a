/*
 * acceptor_follow.c - whose log ours becomes: that of an elected proposer, or, while nobody leads,
 * the committed part of another safekeeper's.
 *
 * The order is the same for both: the log is cut to where the two part (or begins anew where the
 * other one begins), then the history is adopted, and only then bytes are taken. Each step waits
 * until the one before it is durable; docs/design/consensus.md says what breaks otherwise.
 */
#include "safekeeper/consensus/acceptor_private.h"

/* ---- the steps ---- */

static void truncate_log(struct acceptor *acceptor, lsn_t lsn, struct acceptor_actions *out)
{
    acceptor->wal_epoch++;
    acceptor->write_lsn = lsn;
    acceptor->flush_lsn = lsn;
    acceptor->record_lsn = lsn;
    acceptor->received_record_lsn = lsn;
    acceptor->ends_count = 0;
    struct acceptor_action *action = acceptor_emit(out, ACCEPTOR_TRUNCATE_WAL, acceptor->leader);
    action->truncate.lsn = lsn;
    action->truncate.epoch = acceptor->wal_epoch;
}

/* The state that says that the files do not count is on disk: now they may go. */
void acceptor_empty_if_durable(struct acceptor *acceptor, struct acceptor_actions *out)
{
    if (acceptor->anew_sequence == 0 || acceptor->durable_sequence < acceptor->anew_sequence) {
        return;
    }
    acceptor->anew_sequence = 0;
    struct acceptor_action *action = acceptor_emit(out, ACCEPTOR_EMPTY_WAL, acceptor->leader);
    action->truncate.lsn = acceptor->state.begin_lsn;
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
    acceptor_persist(acceptor, out);
    acceptor->anew_sequence = acceptor->state.sequence;
    if (MUTANT(233)) {
        acceptor->anew_sequence = acceptor->durable_sequence;
    }
    acceptor_empty_if_durable(acceptor, out);
}

/* The log is the winner's now. Only from here on may it be called by the winner's history. */
void acceptor_adopt(struct acceptor *acceptor, struct acceptor_actions *out)
{
    acceptor->phase = ACCEPTOR_ADOPTING;
    if (!term_history_equal(&acceptor->state.history, &acceptor->elected_history)) {
        acceptor->state.history = acceptor->elected_history;
        acceptor_persist(acceptor, out);
    }
    acceptor->adopt_sequence = acceptor->state.sequence;
    if (acceptor->durable_sequence >= acceptor->adopt_sequence) {
        MARK("acceptor.elected.known_already");
        acceptor_follow(acceptor, out);
    }
}

void acceptor_follow(struct acceptor *acceptor, struct acceptor_actions *out)
{
    if (acceptor->is_catching_up) {
        acceptor->phase = ACCEPTOR_CATCHING_UP;
        acceptor->leader_commit_lsn = acceptor->catch_up_lsn;
        (void)acceptor_advance_commit(acceptor, out);
        return;
    }
    acceptor->phase = ACCEPTOR_FOLLOWING;
    acceptor->leader_commit_lsn = LSN_NONE;
    acceptor_send_appended(acceptor, out, acceptor->leader); /* "stream" */
}

/* ---- an elected proposer ---- */

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
        &elected->history, &clipped, acceptor_followed_term(acceptor, from), acceptor->record_lsn,
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

void acceptor_on_elected(
    struct acceptor *acceptor,
    const struct elected *elected,
    bool begins_anew,
    struct acceptor_peer from,
    struct acceptor_actions *out)
{
    if (!MUTANT(330) && elected->generation != acceptor->state.generation) {
        MARK("acceptor.elected.generation");
        acceptor_refuse_generation(out, from, elected->generation, "elected by another membership");
        return;
    }
    if (acceptor_is_older_term(elected->term, acceptor->state.term)) {
        MARK("acceptor.elected.stale");
        acceptor_send_appended(acceptor, out, from); /* tells it the newer term */
        return;
    }
    const char *why = NULL;
    err_t err = check_elected(acceptor, elected, begins_anew, from, &why);
    if (err != ERR_OK) {
        acceptor_refuse(out, from, err, why);
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
        acceptor_adopt(acceptor, out);
    }
}

/* ---- another safekeeper, while nobody leads ---- */

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

void acceptor_on_peer_answered(
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
        (void)acceptor_advance_commit(acceptor, out);
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
        acceptor_adopt(acceptor, out);
    }
}

/* Where its records end is known of the last one only: before, nothing of it is counted. */
void acceptor_on_peer_wal(
    struct acceptor *acceptor, lsn_t begin_lsn, struct bytes wal, struct acceptor_actions *out)
{
    if (acceptor->phase != ACCEPTOR_CATCHING_UP || begin_lsn != acceptor->write_lsn ||
        wal.size == 0 || wal.size > acceptor->catch_up_lsn - begin_lsn) {
        MARK("acceptor.catch_up.old");
        return;
    }
    acceptor->write_lsn = begin_lsn + wal.size;
    if (acceptor->write_lsn == acceptor->catch_up_lsn) {
        acceptor_remember_end(acceptor, acceptor->catch_up_lsn);
    }
    struct acceptor_action *action = acceptor_emit(out, ACCEPTOR_WRITE_WAL, acceptor->leader);
    action->write.begin_lsn = begin_lsn;
    action->write.wal = wal;
    action->write.epoch = acceptor->wal_epoch;
}

void acceptor_end_catch_up(struct acceptor *acceptor)
{
    if (acceptor->phase == ACCEPTOR_CATCHING_UP && acceptor->record_lsn >= acceptor->catch_up_lsn) {
        MARK("acceptor.catch_up.done");
        acceptor->phase = ACCEPTOR_IDLE;
    }
}
