#include "safekeeper/consensus/proposer.h"

#include "common/base/mark.h"
#include "safekeeper/consensus/mutant.h"
#include "safekeeper/consensus/term_history.h"

#define BACKOFF_FIRST_MS 8
#define READ_RETRY_MS    50
#define PUMP_BUDGET      8 /* appends to one acceptor in one step; then `more` */

static_assert((PROPOSER_ENDS_MAX & (PROPOSER_ENDS_MAX - 1)) == 0, "indexes are masked");
static_assert(PROPOSER_ACTIONS_MAX >= MEMBERS_MAX * PUMP_BUDGET + 8, "a step always has room");

static struct proposer_action *emit(
    struct proposer_actions *out, enum proposer_action_kind kind, uint32_t peer)
{
    ASSERT(out->count < PROPOSER_ACTIONS_MAX);
    struct proposer_action *action = &out->items[out->count++];
    action->kind = kind;
    action->peer = peer;
    return action;
}

static uint32_t member_count(const struct proposer *proposer)
{
    return proposer->options.membership.count;
}

static bool is_connected(const struct proposer_peer *peer)
{
    return peer->phase != PEER_OFFLINE;
}

static void check_invariants(const struct proposer *proposer)
{
    ASSERT(proposer->term <= proposer->term_max);
    ASSERT(proposer->window_begin_lsn <= proposer->window_end_lsn);
    ASSERT(proposer->commit_lsn <= proposer->window_end_lsn);
    ASSERT(
        IMPLIES(proposer->ready && !MUTANT(6), proposer->commit_lsn >= proposer->term_start_lsn));
    for (uint32_t i = 0; i < member_count(proposer); i++) {
        const struct proposer_peer *peer = &proposer->peers[i];
        ASSERT((peer->connection != 0) == is_connected(peer));
        ASSERT(IMPLIES(peer->phase >= PEER_TOLD, proposer->phase != PROPOSER_CAMPAIGNING));
        ASSERT(IMPLIES(peer->read_id != 0, peer->phase == PEER_STREAMING));
    }
}

/* ---- campaign ---- */

static void ask(struct proposer *proposer, uint32_t index, struct proposer_actions *out)
{
    proposer->peers[index].phase = PEER_ASKED;
    proposer->peers[index].asked_ms = proposer->now_ms;
    emit(out, PROPOSER_SEND_VOTE_REQUEST, index)->vote = (struct vote_request){
        .generation = proposer->options.membership.generation,
        .term = proposer->term,
        .proposer_id = proposer->options.proposer_id,
    };
}

static void forget_term(struct proposer_peer *peer)
{
    peer->replied = peer->granted = false;
    peer->flush_lsn = peer->record_lsn = peer->commit_lsn = LSN_NONE;
    peer->read_id = 0;
    if (is_connected(peer)) {
        peer->phase = PEER_GREETED;
    }
}

/* Give the term up and campaign for another one after a random while, so that rivals do not meet.
 */
static void back_off(struct proposer *proposer)
{
    uint64_t span_ms = proposer->options.backoff_max_ms;
    if (proposer->attempts < 16) {
        span_ms = MIN_OF(span_ms, (uint64_t)BACKOFF_FIRST_MS << proposer->attempts);
    }
    proposer->attempts++;
    proposer->phase = PROPOSER_COLLECTING;
    proposer->deadline_ms = proposer->now_ms + 1 + proposer->entropy % MAX_OF(span_ms, 1);
    for (uint32_t i = 0; i < member_count(proposer); i++) {
        forget_term(&proposer->peers[i]);
    }
}

static bool has_quorum_connected(const struct proposer *proposer)
{
    uint32_t connected = 0;
    for (uint32_t i = 0; i < member_count(proposer); i++) {
        connected |= (uint32_t)is_connected(&proposer->peers[i]) << i;
    }
    return membership_has_quorum(&proposer->options.membership, connected);
}

static void campaign_if_due(struct proposer *proposer, struct proposer_actions *out)
{
    if (proposer->phase != PROPOSER_COLLECTING || proposer->now_ms < proposer->deadline_ms ||
        !has_quorum_connected(proposer)) {
        return;
    }
    proposer->phase = PROPOSER_CAMPAIGNING;
    proposer->term = ++proposer->term_max;
    proposer->deadline_ms = proposer->now_ms + proposer->options.election_timeout_ms;
    for (uint32_t i = 0; i < member_count(proposer); i++) {
        forget_term(&proposer->peers[i]);
        if (is_connected(&proposer->peers[i])) {
            ask(proposer, i, out);
        }
    }
}

/* Somebody is newer. After a victory this is the end: the newest start of a compute wins. */
static void on_higher_term(struct proposer *proposer, term_t term, struct proposer_actions *out)
{
    proposer->term_max = MAX_OF(proposer->term_max, term);
    if (proposer->phase == PROPOSER_ELECTED) {
        if (MUTANT(16)) {
            return;
        }
        MARK("proposer.deposed");
        proposer->phase = PROPOSER_DEPOSED;
        emit(out, PROPOSER_STEP_DOWN, 0)->term = term;
    } else if (proposer->phase == PROPOSER_CAMPAIGNING) {
        MARK("proposer.campaign.higher_term");
        back_off(proposer);
    }
}

/* ---- election ---- */

static bool is_better_donor(const struct proposer_peer *a, const struct proposer_peer *b)
{
    term_t a_term = term_history_last_term(&a->history);
    term_t b_term = term_history_last_term(&b->history);
    if (a_term != b_term && !MUTANT(8)) {
        return a_term > b_term;
    }
    return !MUTANT(9) && a->vote_record_lsn > b->vote_record_lsn;
}

/* Up to where this acceptor's log is known to be ours. */
static lsn_t held_lsn(const struct proposer *proposer, uint32_t index)
{
    const struct proposer_peer *peer = &proposer->peers[index];
    if (peer->phase == PEER_STREAMING) {
        return peer->record_lsn;
    }
    if (index == proposer->donor && peer->phase >= PEER_VOTED) {
        return MIN_OF(peer->vote_record_lsn, proposer->term_start_lsn);
    }
    return LSN_NONE;
}

/*
 * Where the log of `index`, which ends at `lsn` or is ours up to there, has to begin anew, because
 * WAL from there on is kept by nobody who has more; LSN_NONE: it can be completed, or nobody is
 * there to tell.
 */
static lsn_t anew_lsn(const struct proposer *proposer, uint32_t index, lsn_t lsn)
{
    lsn_t best_lsn = LSN_NONE;
    if (lsn >= proposer->window_begin_lsn) {
        return LSN_NONE; /* the window has it */
    }
    for (uint32_t i = 0; i < member_count(proposer); i++) {
        lsn_t begin_lsn = proposer->peers[i].begin_lsn;
        if (i == index || held_lsn(proposer, i) <= lsn) {
            continue;
        }
        if (begin_lsn <= lsn) {
            return LSN_NONE;
        }
        bool is_better = best_lsn == LSN_NONE || begin_lsn < best_lsn;
        best_lsn = is_better && begin_lsn <= proposer->commit_lsn ? begin_lsn : best_lsn;
    }
    return best_lsn;
}

/* Say from where we stream: up to there its log is a prefix of ours, the rest is cut off. */
static void tell(struct proposer *proposer, uint32_t index, struct proposer_actions *out)
{
    struct proposer_peer *peer = &proposer->peers[index];
    peer->stream_lsn = term_history_common_lsn(
        &proposer->history, &peer->history, peer->followed_term, peer->vote_record_lsn,
        peer->vote_commit_lsn);
    lsn_t begin_lsn = anew_lsn(proposer, index, peer->stream_lsn);
    if (begin_lsn != LSN_NONE) {
        MARK("proposer.told.anew");
        peer->stream_lsn = peer->begin_lsn = begin_lsn;
    }
    peer->phase = PEER_TOLD;
    peer->asked_ms = proposer->now_ms;
    struct proposer_action *action = emit(out, PROPOSER_SEND_ELECTED, index);
    action->elected.begins_anew = begin_lsn != LSN_NONE;
    action->elected.generation = proposer->options.membership.generation;
    action->elected.term = proposer->term;
    action->elected.stream_lsn = peer->stream_lsn;
    action->elected.history = &proposer->history;
}

/* UINT32_MAX: nobody has voted for us. */
static uint32_t best_donor(const struct proposer *proposer)
{
    uint32_t donor = UINT32_MAX;
    for (uint32_t i = 0; i < member_count(proposer); i++) {
        const struct proposer_peer *peer = &proposer->peers[i];
        if (peer->granted &&
            (donor == UINT32_MAX || is_better_donor(peer, &proposer->peers[donor]))) {
            donor = i;
        }
    }
    return donor;
}

/* The donor has at least what the log of this voter may have been. */
static bool is_covered(const struct proposer_peer *donor, const struct proposer_peer *suspect)
{
    term_t term = term_history_last_term(&donor->history);
    return term > suspect->suspect_term ||
           (term == suspect->suspect_term && donor->vote_record_lsn >= suspect->suspect_lsn);
}

static void win(struct proposer *proposer, struct proposer_actions *out)
{
    uint32_t donor = best_donor(proposer);
    lsn_t commit_lsn = LSN_NONE;
    for (uint32_t i = 0; i < member_count(proposer); i++) {
        if (proposer->peers[i].granted) {
            commit_lsn = MAX_OF(commit_lsn, proposer->peers[i].vote_commit_lsn);
        }
    }
    ASSERT(donor != UINT32_MAX);
    proposer->phase = PROPOSER_ELECTED;
    proposer->deadline_ms = proposer->now_ms + proposer->options.election_timeout_ms;
    proposer->donor = donor;
    proposer->term_start_lsn = MUTANT(19) ? commit_lsn : proposer->peers[donor].vote_record_lsn;
    proposer->history = proposer->peers[donor].history;
    term_history_push(&proposer->history, proposer->term, proposer->term_start_lsn);
    proposer->commit_lsn = commit_lsn;
    proposer->window_begin_lsn = proposer->window_end_lsn = proposer->term_start_lsn;
    for (uint32_t i = 0; i < member_count(proposer); i++) {
        if (proposer->peers[i].phase == PEER_VOTED) {
            tell(proposer, i, out);
        }
    }
}

static bool vote_is_valid(const struct proposer *proposer, const struct vote_reply *vote)
{
    if (vote->history.count > 0 && !term_history_is_valid(&vote->history)) {
        return false;
    }
    bool positions_fit = vote->start_lsn <= vote->commit_lsn &&
                         vote->commit_lsn <= vote->record_lsn &&
                         vote->record_lsn <= vote->flush_lsn;
    uint32_t count = vote->history.count; /* 0: its terms are forgotten, see counting_votes() */
    bool history_fits =
        MUTANT(13) || count == 0 || vote->history.items[count - 1].lsn <= vote->record_lsn;
    /* A refusal may come from who follows another winner of our term already. */
    term_t last_term = term_history_last_term(&vote->history);
    term_t newest_term = MAX_OF(last_term, vote->followed_term);
    bool term_fits = vote->granted ? newest_term < proposer->term : newest_term <= proposer->term;
    bool follows_history = vote->followed_term == 0 || vote->followed_term >= last_term;
    bool suspicion_fits = vote->suspect_lsn == LSN_NONE || vote->suspect_lsn > vote->record_lsn;
    return positions_fit && history_fits && (term_fits || MUTANT(62)) && follows_history &&
           suspicion_fits;
}

/*
 * Who lost WAL that it may have acknowledged cannot stand for the quorum that committed it. Its
 * vote counts when a voter has that WAL; and when every member voted: then whoever else
 * acknowledged it is among them.
 *
 * A history that is empty follows somebody whose history begins behind the end of its log; nobody
 * knows which term that end is of. It counts as the oldest log that there is: the terms that were
 * pushed out of the history, and those in it, were written in, so each was on a quorum, which this
 * voter did not belong to; one of that quorum is among the voters, and is the better donor.
 */
static uint32_t counting_votes(const struct proposer *proposer)
{
    uint32_t granted = 0, counting = 0;
    uint32_t donor = best_donor(proposer);
    for (uint32_t i = 0; i < member_count(proposer); i++) {
        const struct proposer_peer *peer = &proposer->peers[i];
        bool counts = peer->granted && (peer->suspect_lsn == LSN_NONE || MUTANT(55) ||
                                        is_covered(&proposer->peers[donor], peer));
        counts = counts && (peer->history.count > 0 || !MUTANT(63));
        granted |= (uint32_t)peer->granted << i;
        counting |= (uint32_t)counts << i;
    }
    uint32_t everyone = (1u << member_count(proposer)) - 1;
    return granted == everyone ? granted : counting;
}

static void count_votes(struct proposer *proposer, struct proposer_actions *out)
{
    uint32_t granted = 0;
    bool waiting = false;
    for (uint32_t i = 0; i < member_count(proposer); i++) {
        granted |= (uint32_t)proposer->peers[i].granted << i;
        waiting = waiting || proposer->peers[i].phase == PEER_ASKED;
    }
    if (membership_has_quorum(&proposer->options.membership, counting_votes(proposer))) {
        win(proposer, out);
        return;
    }
    bool is_suspect = membership_has_quorum(&proposer->options.membership, granted);
    if (is_suspect) {
        MARK("proposer.campaign.suspect_vote");
    }
    if (!waiting) {
        MARK("proposer.campaign.split");
        back_off(proposer);
    }
}

static void on_vote_reply(
    struct proposer *proposer,
    uint32_t index,
    const struct vote_reply *vote,
    struct proposer_actions *out)
{
    struct proposer_peer *peer = &proposer->peers[index];
    if (vote->term > proposer->term) {
        on_higher_term(proposer, vote->term, out);
        return;
    }
    if (vote->term < proposer->term || peer->phase != PEER_ASKED) {
        MARK("proposer.vote.old");
        return;
    }
    if (!vote_is_valid(proposer, vote)) {
        MARK("proposer.vote.invalid");
        emit(out, PROPOSER_CLOSE, index)->why = "its vote contradicts itself";
        return;
    }
    peer->phase = PEER_VOTED;
    peer->replied = true;
    peer->granted = peer->granted || vote->granted; /* a vote stays given */
    peer->vote_record_lsn = vote->record_lsn;
    peer->vote_commit_lsn = vote->commit_lsn;
    peer->begin_lsn = vote->start_lsn;
    peer->suspect_lsn = vote->suspect_lsn;
    peer->suspect_term = vote->suspect_term;
    peer->history = vote->history;
    peer->followed_term = vote->followed_term;
    if (vote->suspect_lsn != LSN_NONE) { /* what it had acknowledged to us may be lost */
        MARK("proposer.vote.suspect");
        peer->flush_lsn = MIN_OF(peer->flush_lsn, vote->flush_lsn);
        peer->record_lsn = MIN_OF(peer->record_lsn, vote->record_lsn);
        peer->commit_lsn = MIN_OF(peer->commit_lsn, vote->commit_lsn);
    }
    if (proposer->phase == PROPOSER_CAMPAIGNING) {
        count_votes(proposer, out);
    } else {
        tell(proposer, index, out);
    }
}

/* ---- streaming ---- */

/* The last record end that we know of at or before `end_lsn`. Too early is safe, only slower. */
static lsn_t last_record_end(const struct proposer *proposer, lsn_t end_lsn)
{
    lsn_t best_lsn = LSN_NONE;
    for (uint32_t i = proposer->ends_count; i > 0 && best_lsn == LSN_NONE; i--) {
        uint32_t slot = (proposer->ends_first + i - 1) & (PROPOSER_ENDS_MAX - 1);
        best_lsn = proposer->ends[slot] <= end_lsn ? proposer->ends[slot] : LSN_NONE;
    }
    if (proposer->term_start_lsn <= end_lsn) {
        best_lsn = MAX_OF(best_lsn, proposer->term_start_lsn);
    }
    return proposer->commit_lsn <= end_lsn ? MAX_OF(best_lsn, proposer->commit_lsn) : best_lsn;
}

static void send_append(
    struct proposer *proposer,
    uint32_t index,
    struct bytes wal,
    lsn_t record_lsn,
    struct proposer_actions *out)
{
    struct proposer_peer *peer = &proposer->peers[index];
    emit(out, PROPOSER_SEND_APPEND, index)->append = (struct append){
        .generation = proposer->options.membership.generation,
        .term = proposer->term,
        .begin_lsn = peer->sent_lsn,
        .record_lsn = record_lsn,
        .commit_lsn = proposer->commit_lsn,
        .wal = wal,
    };
    peer->sent_lsn += wal.size;
    peer->sent_commit_lsn = proposer->commit_lsn;
    peer->sent_at_ms = proposer->now_ms;
}

static void send_empty_append(
    struct proposer *proposer, uint32_t index, struct proposer_actions *out)
{
    lsn_t record_lsn = last_record_end(proposer, proposer->peers[index].sent_lsn);
    send_append(proposer, index, (struct bytes){0}, record_lsn, out);
}

/* WAL that is older than the window comes from whoever has most of it. */
static void read_for(struct proposer *proposer, uint32_t index, struct proposer_actions *out)
{
    struct proposer_peer *peer = &proposer->peers[index];
    if (peer->read_id != 0 || proposer->now_ms < peer->read_retry_ms) {
        return;
    }
    uint32_t source = index;
    lsn_t end_lsn = peer->sent_lsn;
    for (uint32_t i = 0; i < member_count(proposer); i++) {
        bool is_kept = proposer->peers[i].begin_lsn <= peer->sent_lsn;
        if (i != index && is_kept && held_lsn(proposer, i) > end_lsn) {
            source = i;
            end_lsn = held_lsn(proposer, i);
        }
    }
    if (source == index && anew_lsn(proposer, index, peer->sent_lsn) != LSN_NONE) {
        MARK("proposer.read.not_kept");
        peer->read_retry_ms = proposer->now_ms + READ_RETRY_MS; /* it goes, or is asked to again */
        emit(out, PROPOSER_CLOSE, index)->why = "what follows its log is not kept: it begins anew";
        return;
    }
    if (source == index) {
        MARK("proposer.read.no_source");
        return; /* a peer that comes or acknowledges more starts this again */
    }
    end_lsn = MIN_OF(end_lsn, MAX_OF(proposer->window_begin_lsn, proposer->term_start_lsn));
    peer->read_id = ++proposer->read_id_last;
    peer->read_source = source;
    struct proposer_action *action = emit(out, PROPOSER_SEND_READ_WAL, source);
    action->read.id = peer->read_id;
    action->read.target = index;
    action->read.request = (struct read_wal){
        .term = proposer->term,
        .begin_lsn = peer->sent_lsn,
        .size = (uint32_t)MIN_OF(end_lsn - peer->sent_lsn, WAL_APPEND_MAX),
    };
}

static void pump(struct proposer *proposer, uint32_t index, struct proposer_actions *out)
{
    struct proposer_peer *peer = &proposer->peers[index];
    for (int budget = PUMP_BUDGET - 1; peer->phase == PEER_STREAMING; budget--) {
        lsn_t inflight = peer->sent_lsn - MIN_OF(peer->flush_lsn, peer->sent_lsn);
        if (inflight >= proposer->options.inflight_max ||
            peer->sent_lsn >= proposer->window_end_lsn) {
            break;
        }
        if (peer->sent_lsn < proposer->window_begin_lsn) {
            read_for(proposer, index, out);
            break;
        }
        if (budget == 0) {
            out->more = true;
            return;
        }
        size_t size = MIN_OF(proposer->window_end_lsn - peer->sent_lsn, WAL_APPEND_MAX);
        lsn_t record_lsn = last_record_end(proposer, peer->sent_lsn + size);
        send_append(proposer, index, bytes_of(NULL, size), record_lsn, out);
    }
    /* With WAL on its way an answer comes soon, and the news rides on what is sent then. */
    bool quiet = peer->phase == PEER_STREAMING && peer->sent_lsn <= peer->flush_lsn;
    if (quiet && peer->sent_commit_lsn < proposer->commit_lsn) {
        send_empty_append(proposer, index, out);
    }
}

/* Keep what a live acceptor or the quorum still needs; a slow one reads from its peers instead. */
static void trim_window(struct proposer *proposer)
{
    lsn_t keep_lsn = proposer->commit_lsn;
    for (uint32_t i = 0; i < member_count(proposer); i++) {
        const struct proposer_peer *peer = &proposer->peers[i];
        if (is_connected(peer) && peer->record_lsn != LSN_NONE) {
            keep_lsn = MIN_OF(keep_lsn, peer->record_lsn);
        }
    }
    lsn_t end_lsn = proposer->window_end_lsn;
    if (end_lsn - keep_lsn >= proposer->options.window_max) {
        MARK("proposer.window.slow_acceptor");
        lsn_t half_lsn = end_lsn - proposer->options.window_max / 2;
        keep_lsn = MAX_OF(keep_lsn, MIN_OF(proposer->commit_lsn, half_lsn));
    }
    if (keep_lsn > proposer->window_begin_lsn) {
        proposer->window_begin_lsn = MIN_OF(keep_lsn, end_lsn);
    }
}

static void advance_commit(struct proposer *proposer, struct proposer_actions *out)
{
    lsn_t lsns[MEMBERS_MAX] = {0};
    uint32_t told = 0;
    for (uint32_t i = 0; i < member_count(proposer); i++) {
        const struct proposer_peer *peer = &proposer->peers[i];
        /*
         * Bytes of an older term do not count before our term begins: on a quorum or not, a rival
         * with a longer history of an older term could still replace them.
         */
        if (peer->record_lsn >= proposer->term_start_lsn || MUTANT(6)) {
            /*
             * After a crash an acceptor may find a record whole of which we sent only a part: what
             * was missing were zeros. It is right, but we do not know of that record end yet.
             */
            lsn_t end_lsn = proposer->window_end_lsn;
            bool known = peer->record_lsn <= end_lsn;
            lsns[i] = known ? peer->record_lsn : last_record_end(proposer, end_lsn);
        }
        told |= (uint32_t)(peer->commit_lsn >= proposer->term_start_lsn) << i;
    }
    lsn_t lsn = membership_quorum_lsn(&proposer->options.membership, lsns);
    if (!proposer->ready && lsn >= proposer->term_start_lsn) {
        proposer->ready = true;
        proposer->attempts = 0;
        emit(out, PROPOSER_READY, 0)->lsn = proposer->term_start_lsn;
    }
    if (lsn > proposer->commit_lsn) {
        proposer->commit_lsn = lsn;
        emit(out, PROPOSER_COMMITTED, 0)->lsn = lsn;
    }
    if (proposer->ready && !proposer->synced &&
        membership_has_quorum(&proposer->options.membership, told)) {
        proposer->synced = true;
        emit(out, PROPOSER_SYNCED, 0)->lsn = proposer->term_start_lsn;
    }
}

/* NULL, or why this acknowledgement cannot be. */
static const char *check_appended(
    const struct proposer_peer *peer, const struct append_reply *appended)
{
    if (appended->record_lsn > appended->flush_lsn || appended->commit_lsn > appended->record_lsn) {
        return "its positions contradict each other";
    }
    if (peer->phase == PEER_TOLD &&
        (appended->record_lsn != peer->stream_lsn || appended->flush_lsn != peer->stream_lsn)) {
        return "its log does not end where it was told";
    }
    if (appended->record_lsn < peer->record_lsn && !MUTANT(18)) {
        return "it lost WAL that it had acknowledged";
    }
    if (peer->phase == PEER_STREAMING && appended->flush_lsn > peer->sent_lsn) {
        return "it has WAL that was never sent";
    }
    return NULL;
}

static void on_append_reply(
    struct proposer *proposer,
    uint32_t index,
    const struct append_reply *appended,
    struct proposer_actions *out)
{
    struct proposer_peer *peer = &proposer->peers[index];
    if (appended->term > proposer->term) {
        on_higher_term(proposer, appended->term, out);
        return;
    }
    bool foreign = appended->term < proposer->term && !MUTANT(15);
    if (foreign || proposer->phase != PROPOSER_ELECTED || peer->phase < PEER_TOLD) {
        MARK("proposer.appended.old");
        return;
    }
    const char *why = check_appended(peer, appended);
    if (why != NULL && !MUTANT_IN(14, 15)) {
        MARK("proposer.appended.invalid");
        emit(out, PROPOSER_CLOSE, index)->why = why;
        return;
    }
    if (peer->phase == PEER_TOLD) {
        peer->phase = PEER_STREAMING;
        peer->sent_lsn = peer->stream_lsn;
        peer->flush_lsn = LSN_NONE;
        peer->sent_commit_lsn = LSN_NONE;
        peer->sent_at_ms = proposer->now_ms;
        peer->read_retry_ms = 0;
    }
    peer->flush_lsn = MAX_OF(peer->flush_lsn, appended->flush_lsn);
    peer->record_lsn = MAX_OF(peer->record_lsn, appended->record_lsn);
    peer->commit_lsn = MAX_OF(peer->commit_lsn, appended->commit_lsn);
    if (!proposer->ready) {
        proposer->deadline_ms = proposer->now_ms + proposer->options.election_timeout_ms;
    }
    advance_commit(proposer, out);
}

static struct proposer_peer *find_reading(
    struct proposer *proposer, uint32_t source, uint64_t id, uint32_t *ret_index)
{
    for (uint32_t i = 0; i < member_count(proposer); i++) {
        struct proposer_peer *peer = &proposer->peers[i];
        if (id != 0 && peer->read_id == id && peer->read_source == source) {
            *ret_index = i;
            return peer;
        }
    }
    return NULL;
}

static void on_read_reply(
    struct proposer *proposer, const struct proposer_event *event, struct proposer_actions *out)
{
    uint32_t index = 0;
    struct proposer_peer *peer = find_reading(proposer, event->peer, event->read.id, &index);
    if (peer == NULL) {
        MARK("proposer.read.old");
        return;
    }
    peer->read_id = 0;
    const struct read_wal_reply *reply = event->read.reply;
    lsn_t source_end_lsn = held_lsn(proposer, event->peer);
    bool failed = event->kind == PROPOSER_READ_WAL_FAILED;
    if (failed && event->read.err == ERR_RANGE) {
        MARK("proposer.read.forgotten");
        emit(out, PROPOSER_CLOSE, event->peer)->why = "it has forgotten WAL: where does it begin?";
    }
    if (failed || reply->begin_lsn != peer->sent_lsn || reply->wal.size == 0 ||
        reply->wal.size > WAL_APPEND_MAX || source_end_lsn < peer->sent_lsn ||
        reply->wal.size > source_end_lsn - peer->sent_lsn) {
        MARK("proposer.read.failed");
        peer->read_retry_ms = proposer->now_ms + READ_RETRY_MS;
        return;
    }
    lsn_t end_lsn = peer->sent_lsn + reply->wal.size;
    lsn_t record_lsn = last_record_end(proposer, end_lsn);
    if (event->read.record_lsn <= end_lsn) {
        record_lsn = MAX_OF(record_lsn, event->read.record_lsn);
    }
    send_append(proposer, index, reply->wal, record_lsn, out);
}

static void on_local_wal(struct proposer *proposer, lsn_t end_lsn, lsn_t record_lsn)
{
    ASSERT(proposer->ready && end_lsn > proposer->window_end_lsn && record_lsn <= end_lsn);
    proposer->window_end_lsn = end_lsn;
    uint32_t last = (proposer->ends_first + proposer->ends_count - 1) & (PROPOSER_ENDS_MAX - 1);
    if (record_lsn <= proposer->term_start_lsn ||
        (proposer->ends_count > 0 && record_lsn <= proposer->ends[last])) {
        return; /* no record ended */
    }
    if (proposer->ends_count == PROPOSER_ENDS_MAX) {
        proposer->ends_first = (proposer->ends_first + 1) & (PROPOSER_ENDS_MAX - 1);
        proposer->ends_count--;
    }
    uint32_t slot = (proposer->ends_first + proposer->ends_count++) & (PROPOSER_ENDS_MAX - 1);
    proposer->ends[slot] = record_lsn;
}

/* ---- connections and time ---- */

static void on_peer_down(struct proposer *proposer, uint32_t index)
{
    struct proposer_peer *peer = &proposer->peers[index];
    peer->connection = 0;
    peer->phase = PEER_OFFLINE;
    peer->read_id = 0;
    for (uint32_t i = 0; i < member_count(proposer); i++) {
        if (proposer->peers[i].read_source == index) {
            proposer->peers[i].read_id = 0;
        }
    }
}

static void on_peer_up(
    struct proposer *proposer, const struct proposer_event *event, struct proposer_actions *out)
{
    struct proposer_peer *peer = &proposer->peers[event->peer];
    ASSERT(event->connection != 0);
    if (is_connected(peer)) {
        on_peer_down(proposer, event->peer); /* replaced before anybody noticed */
    }
    peer->connection = event->connection;
    peer->phase = PEER_GREETED;
    if (event->hello_term > proposer->term_max) {
        MARK("proposer.hello.higher_term");
        bool ours_is_over = proposer->phase != PROPOSER_COLLECTING;
        on_higher_term(proposer, event->hello_term, out);
        if (ours_is_over) {
            return;
        }
    }
    if (proposer->phase == PROPOSER_CAMPAIGNING || proposer->phase == PROPOSER_ELECTED) {
        ask(proposer, event->peer, out);
    }
}

/*
 * Another set votes now. A leader stays what it is: whoever is elected under any later generation
 * has promises from a majority that is in the way of this term, and the other way round. But what
 * was acknowledged under the old generation counts no more: a member that came back with an empty
 * disk has nothing of it. Everybody is asked again, in the same term.
 */
static void on_membership_changed(struct proposer *proposer, const struct membership *membership)
{
    struct membership old = proposer->options.membership;
    struct proposer_peer peers[MEMBERS_MAX];
    if (membership->generation <= old.generation) {
        MARK("proposer.membership.known");
        return;
    }
    ASSERT(membership_check(membership, NULL) == ERR_OK);
    memcpy(peers, proposer->peers, sizeof(peers));
    memset(proposer->peers, 0, sizeof(proposer->peers));
    proposer->options.membership = *membership;
    for (uint32_t i = 0; MUTANT(32) && i < membership->count; i++) {
        uint32_t at = membership_index(&old, membership->members[i]);
        if (at < old.count) {
            proposer->peers[i].flush_lsn = peers[at].flush_lsn;
            proposer->peers[i].record_lsn = peers[at].record_lsn;
        }
    }
    bool has_donor = proposer->phase == PROPOSER_ELECTED && proposer->donor < old.count;
    uint32_t donor = has_donor ? membership_index(membership, old.members[proposer->donor]) : 0;
    proposer->donor = has_donor && donor < membership->count ? donor : MEMBERS_MAX;
    if (proposer->phase == PROPOSER_CAMPAIGNING ||
        (proposer->phase == PROPOSER_ELECTED && !proposer->ready)) {
        MARK("proposer.membership.campaign");
        back_off(proposer);
    } else if (proposer->phase == PROPOSER_ELECTED) {
        MARK("proposer.membership.led");
    }
}

/* When something must be done about this one: a heartbeat, or its silence has lasted too long. */
static uint64_t peer_deadline_ms(const struct proposer *proposer, const struct proposer_peer *peer)
{
    if (peer->phase == PEER_STREAMING) {
        return peer->sent_at_ms + proposer->options.heartbeat_ms;
    }
    if (proposer->phase == PROPOSER_ELECTED &&
        (peer->phase == PEER_ASKED || peer->phase == PEER_TOLD)) {
        return peer->asked_ms + proposer->options.election_timeout_ms;
    }
    return UINT64_MAX;
}

static void on_tick(struct proposer *proposer, struct proposer_actions *out)
{
    bool over = proposer->now_ms >= proposer->deadline_ms;
    if (proposer->phase == PROPOSER_CAMPAIGNING && over) {
        MARK("proposer.campaign.timeout");
        back_off(proposer);
    } else if (proposer->phase == PROPOSER_ELECTED && !proposer->ready && over) {
        /* Whoever has the WAL below our start is gone; another donor may do. */
        MARK("proposer.repair.timeout");
        back_off(proposer);
    }
    for (uint32_t i = 0; i < member_count(proposer); i++) {
        struct proposer_peer *peer = &proposer->peers[i];
        if (proposer->now_ms < peer_deadline_ms(proposer, peer)) {
            continue;
        }
        if (peer->phase == PEER_STREAMING) {
            send_empty_append(proposer, i, out);
        } else {
            /* It may have promised a newer term between question and answer: hello will tell. */
            MARK("proposer.peer.silent");
            peer->asked_ms = proposer->now_ms;
            emit(out, PROPOSER_CLOSE, i)->why = "it does not answer";
        }
    }
}

/* ---- public ---- */

void proposer_init(struct proposer *proposer, const struct proposer_options *options)
{
    *proposer = (struct proposer){.options = *options};
    ASSERT(membership_check(&options->membership, NULL) == ERR_OK);
    ASSERT(options->window_max > 0 && options->inflight_max > 0 && options->proposer_id != 0);
    check_invariants(proposer);
}

/* Of the connection that is current, in our membership: everything else is void. */
static bool is_current(const struct proposer *proposer, const struct proposer_event *event)
{
    ASSERT(event->peer < member_count(proposer));
    generation_t generation = proposer->options.membership.generation;
    if (event->kind == PROPOSER_VOTE_REPLY && !MUTANT(30)) {
        generation = event->vote->generation;
    } else if (event->kind == PROPOSER_APPEND_REPLY && !MUTANT(130) && !MUTANT(330)) {
        generation = event->appended->generation;
    }
    if (generation != proposer->options.membership.generation) {
        MARK("proposer.reply.generation");
        return false;
    }
    bool current = proposer->peers[event->peer].connection == event->connection;
    if (!current) {
        MARK("proposer.reply.old_connection");
    }
    return current || (MUTANT(14) && event->kind == PROPOSER_APPEND_REPLY);
}

static void dispatch(
    struct proposer *proposer, const struct proposer_event *event, struct proposer_actions *out)
{
    switch (event->kind) {
    case PROPOSER_PEER_UP: on_peer_up(proposer, event, out); break;
    case PROPOSER_PEER_DOWN:
        if (is_current(proposer, event)) {
            on_peer_down(proposer, event->peer);
        }
        break;
    case PROPOSER_VOTE_REPLY:
        if (is_current(proposer, event)) {
            on_vote_reply(proposer, event->peer, event->vote, out);
        }
        break;
    case PROPOSER_APPEND_REPLY:
        if (is_current(proposer, event)) {
            on_append_reply(proposer, event->peer, event->appended, out);
        }
        break;
    case PROPOSER_READ_WAL_REPLY:
    case PROPOSER_READ_WAL_FAILED:
        if (is_current(proposer, event)) {
            on_read_reply(proposer, event, out);
        }
        break;
    case PROPOSER_LOCAL_WAL:
        on_local_wal(proposer, event->local.end_lsn, event->local.record_lsn);
        advance_commit(proposer, out); /* a record may be everywhere before we knew of it */
        break;
    case PROPOSER_MEMBERSHIP_CHANGED: on_membership_changed(proposer, event->membership); break;
    case PROPOSER_TICK: on_tick(proposer, out); break;
    case PROPOSER_CONTINUE: break;
    }
}

void proposer_step(
    struct proposer *proposer, const struct proposer_event *event, struct proposer_actions *out)
{
    out->count = 0;
    out->more = false;
    proposer->now_ms = MAX_OF(proposer->now_ms, event->now_ms);
    proposer->entropy = event->entropy;
    if (proposer->phase == PROPOSER_DEPOSED) {
        return;
    }
    check_invariants(proposer);
    dispatch(proposer, event, out);
    campaign_if_due(proposer, out);
    if (proposer->phase == PROPOSER_ELECTED) {
        for (uint32_t i = 0; i < member_count(proposer); i++) {
            pump(proposer, i, out);
        }
        trim_window(proposer);
    }
    check_invariants(proposer);
}

uint64_t proposer_deadline_ms(const struct proposer *proposer)
{
    uint64_t deadline_ms = UINT64_MAX;
    if (proposer->phase == PROPOSER_DEPOSED) {
        return deadline_ms;
    }
    if (proposer->phase == PROPOSER_CAMPAIGNING ||
        (proposer->phase == PROPOSER_ELECTED && !proposer->ready) ||
        (proposer->phase == PROPOSER_COLLECTING && has_quorum_connected(proposer))) {
        deadline_ms = proposer->deadline_ms;
    }
    for (uint32_t i = 0; i < member_count(proposer); i++) {
        const struct proposer_peer *peer = &proposer->peers[i];
        deadline_ms = MIN_OF(deadline_ms, peer_deadline_ms(proposer, peer));
        if (peer->read_retry_ms > proposer->now_ms) {
            deadline_ms = MIN_OF(deadline_ms, peer->read_retry_ms);
        }
    }
    return deadline_ms;
}

/* Between the commit position and the end of the window there is a record's end. */
static bool holds_record_end(const struct proposer *proposer)
{
    uint32_t last = (proposer->ends_first + proposer->ends_count - 1) & (PROPOSER_ENDS_MAX - 1);
    return proposer->ends_count > 0 && proposer->ends[last] > proposer->commit_lsn;
}

/*
 * Nothing of a record is committed before its end is there: one that is larger than the window,
 * or the rest of a segment behind XLOG_SWITCH, has to be taken as a whole.
 */
bool proposer_wants_wal(const struct proposer *proposer)
{
    return proposer->phase == PROPOSER_ELECTED && proposer->ready && !proposer->options.sync &&
           (proposer->window_end_lsn - proposer->commit_lsn < proposer->options.window_max ||
            !holds_record_end(proposer));
}

const char *proposer_phase_name(enum proposer_phase phase)
{
    switch (phase) {
    case PROPOSER_COLLECTING: return "collecting";
    case PROPOSER_CAMPAIGNING: return "campaigning";
    case PROPOSER_ELECTED: return "elected";
    case PROPOSER_DEPOSED: return "deposed";
    }
    return "unknown";
}

const char *proposer_peer_phase_name(enum proposer_peer_phase phase)
{
    switch (phase) {
    case PEER_OFFLINE: return "offline";
    case PEER_GREETED: return "greeted";
    case PEER_ASKED: return "asked";
    case PEER_VOTED: return "voted";
    case PEER_TOLD: return "told";
    case PEER_STREAMING: return "streaming";
    }
    return "unknown";
}
