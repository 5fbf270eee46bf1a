/*
 * proposer_election.c - campaign, votes, and victory: until every acceptor that is there has been
 * told from where its log goes on.
 */
#include "safekeeper/consensus/proposer_private.h"

#define BACKOFF_FIRST_MS 8

/* ---- campaign ---- */

void proposer_ask(struct proposer *proposer, uint32_t index, struct proposer_actions *out)
{
    proposer->peers[index].phase = PEER_ASKED;
    proposer->peers[index].asked_ms = proposer->now_ms;
    proposer_emit(out, PROPOSER_SEND_VOTE_REQUEST, index)->vote = (struct vote_request){
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
    if (proposer_is_connected(peer)) {
        peer->phase = PEER_GREETED;
    }
}

void proposer_back_off(struct proposer *proposer)
{
    uint64_t span_ms = proposer->options.backoff_max_ms;
    if (proposer->attempts < 16) {
        span_ms = MIN_OF(span_ms, (uint64_t)BACKOFF_FIRST_MS << proposer->attempts);
    }
    proposer->attempts++;
    proposer->phase = PROPOSER_COLLECTING;
    proposer->deadline_ms = proposer->now_ms + 1 + proposer->entropy % MAX_OF(span_ms, 1);
    for (uint32_t i = 0; i < proposer_member_count(proposer); i++) {
        forget_term(&proposer->peers[i]);
    }
}

bool proposer_has_quorum_connected(const struct proposer *proposer)
{
    uint32_t connected = 0;
    for (uint32_t i = 0; i < proposer_member_count(proposer); i++) {
        connected |= (uint32_t)proposer_is_connected(&proposer->peers[i]) << i;
    }
    return membership_has_quorum(&proposer->options.membership, connected);
}

void proposer_campaign_if_due(struct proposer *proposer, struct proposer_actions *out)
{
    if (proposer->phase != PROPOSER_COLLECTING || proposer->now_ms < proposer->deadline_ms ||
        !proposer_has_quorum_connected(proposer)) {
        return;
    }
    proposer->phase = PROPOSER_CAMPAIGNING;
    proposer->term = ++proposer->term_max;
    proposer->deadline_ms = proposer->now_ms + proposer->options.election_timeout_ms;
    for (uint32_t i = 0; i < proposer_member_count(proposer); i++) {
        forget_term(&proposer->peers[i]);
        if (proposer_is_connected(&proposer->peers[i])) {
            proposer_ask(proposer, i, out);
        }
    }
}

void proposer_on_higher_term(struct proposer *proposer, term_t term, struct proposer_actions *out)
{
    proposer->term_max = MAX_OF(proposer->term_max, term);
    if (proposer->phase == PROPOSER_ELECTED) {
        if (MUTANT(16)) {
            return;
        }
        MARK("proposer.deposed");
        proposer->phase = PROPOSER_DEPOSED;
        proposer_emit(out, PROPOSER_STEP_DOWN, 0)->term = term;
    } else if (proposer->phase == PROPOSER_CAMPAIGNING) {
        MARK("proposer.campaign.higher_term");
        proposer_back_off(proposer);
    }
}

/* ---- what the logs are ---- */

lsn_t proposer_held_lsn(const struct proposer *proposer, uint32_t index)
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

lsn_t proposer_anew_lsn(const struct proposer *proposer, uint32_t index, lsn_t lsn)
{
    lsn_t best_lsn = LSN_NONE;
    if (lsn >= proposer->window_begin_lsn) {
        return LSN_NONE; /* the window has it */
    }
    for (uint32_t i = 0; i < proposer_member_count(proposer); i++) {
        lsn_t begin_lsn = proposer->peers[i].begin_lsn;
        if (i == index || proposer_held_lsn(proposer, i) <= lsn) {
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
    lsn_t begin_lsn = proposer_anew_lsn(proposer, index, peer->stream_lsn);
    if (begin_lsn != LSN_NONE) {
        MARK("proposer.told.anew");
        peer->stream_lsn = peer->begin_lsn = begin_lsn;
    }
    peer->phase = PEER_TOLD;
    peer->asked_ms = proposer->now_ms;
    struct proposer_action *action = proposer_emit(out, PROPOSER_SEND_ELECTED, index);
    action->elected.begins_anew = begin_lsn != LSN_NONE;
    action->elected.generation = proposer->options.membership.generation;
    action->elected.term = proposer->term;
    action->elected.stream_lsn = peer->stream_lsn;
    action->elected.history = &proposer->history;
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

/* UINT32_MAX: nobody has voted for us. */
static uint32_t best_donor(const struct proposer *proposer)
{
    uint32_t donor = UINT32_MAX;
    for (uint32_t i = 0; i < proposer_member_count(proposer); i++) {
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
    for (uint32_t i = 0; i < proposer_member_count(proposer); i++) {
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
    for (uint32_t i = 0; i < proposer_member_count(proposer); i++) {
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
    for (uint32_t i = 0; i < proposer_member_count(proposer); i++) {
        const struct proposer_peer *peer = &proposer->peers[i];
        bool counts = peer->granted && (peer->suspect_lsn == LSN_NONE || MUTANT(55) ||
                                        is_covered(&proposer->peers[donor], peer));
        counts = counts && (peer->history.count > 0 || !MUTANT(63));
        granted |= (uint32_t)peer->granted << i;
        counting |= (uint32_t)counts << i;
    }
    uint32_t everyone = (1u << proposer_member_count(proposer)) - 1;
    return granted == everyone ? granted : counting;
}

static void count_votes(struct proposer *proposer, struct proposer_actions *out)
{
    uint32_t granted = 0;
    bool waiting = false;
    for (uint32_t i = 0; i < proposer_member_count(proposer); i++) {
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
        proposer_back_off(proposer);
    }
}

void proposer_on_vote_reply(
    struct proposer *proposer,
    uint32_t index,
    const struct vote_reply *vote,
    struct proposer_actions *out)
{
    struct proposer_peer *peer = &proposer->peers[index];
    if (vote->term > proposer->term) {
        proposer_on_higher_term(proposer, vote->term, out);
        return;
    }
    if (vote->term < proposer->term || peer->phase != PEER_ASKED) {
        MARK("proposer.vote.old");
        return;
    }
    if (!vote_is_valid(proposer, vote)) {
        MARK("proposer.vote.invalid");
        proposer_emit(out, PROPOSER_CLOSE, index)->why = "its vote contradicts itself";
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
