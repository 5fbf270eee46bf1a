/*
 * proposer.c - connections, time, and changes of the membership; the step. How it is elected is in
 * proposer_election.c, how WAL gets to the acceptors in proposer_stream.c.
 */
#include "safekeeper/consensus/proposer.h"

#include "safekeeper/consensus/proposer_private.h"

struct proposer_action *proposer_emit(
    struct proposer_actions *out, enum proposer_action_kind kind, uint32_t peer)
{
    ASSERT(out->count < PROPOSER_ACTIONS_MAX);
    struct proposer_action *action = &out->items[out->count++];
    action->kind = kind;
    action->peer = peer;
    return action;
}

static void check_invariants(const struct proposer *proposer)
{
    ASSERT(proposer->term <= proposer->term_max);
    ASSERT(proposer->window_begin_lsn <= proposer->window_end_lsn);
    ASSERT(proposer->commit_lsn <= proposer->window_end_lsn);
    ASSERT(
        IMPLIES(proposer->ready && !MUTANT(6), proposer->commit_lsn >= proposer->term_start_lsn));
    for (uint32_t i = 0; i < proposer_member_count(proposer); i++) {
        const struct proposer_peer *peer = &proposer->peers[i];
        ASSERT((peer->connection != 0) == proposer_is_connected(peer));
        ASSERT(IMPLIES(peer->phase >= PEER_TOLD, proposer->phase != PROPOSER_CAMPAIGNING));
        ASSERT(IMPLIES(peer->read_id != 0, peer->phase == PEER_STREAMING));
    }
}

/* ---- connections and time ---- */

static void on_peer_down(struct proposer *proposer, uint32_t index)
{
    struct proposer_peer *peer = &proposer->peers[index];
    peer->connection = 0;
    peer->phase = PEER_OFFLINE;
    peer->read_id = 0;
    for (uint32_t i = 0; i < proposer_member_count(proposer); i++) {
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
    if (proposer_is_connected(peer)) {
        on_peer_down(proposer, event->peer); /* replaced before anybody noticed */
    }
    peer->connection = event->connection;
    peer->phase = PEER_GREETED;
    if (event->hello_term > proposer->term_max) {
        MARK("proposer.hello.higher_term");
        bool ours_is_over = proposer->phase != PROPOSER_COLLECTING;
        proposer_on_higher_term(proposer, event->hello_term, out);
        if (ours_is_over) {
            return;
        }
    }
    if (proposer->phase == PROPOSER_CAMPAIGNING || proposer->phase == PROPOSER_ELECTED) {
        proposer_ask(proposer, event->peer, out);
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
        proposer_back_off(proposer);
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
        proposer_back_off(proposer);
    } else if (proposer->phase == PROPOSER_ELECTED && !proposer->ready && over) {
        /* Whoever has the WAL below our start is gone; another donor may do. */
        MARK("proposer.repair.timeout");
        proposer_back_off(proposer);
    }
    for (uint32_t i = 0; i < proposer_member_count(proposer); i++) {
        struct proposer_peer *peer = &proposer->peers[i];
        if (proposer->now_ms < peer_deadline_ms(proposer, peer)) {
            continue;
        }
        if (peer->phase == PEER_STREAMING) {
            proposer_send_empty_append(proposer, i, out);
        } else {
            /* It may have promised a newer term between question and answer: hello will tell. */
            MARK("proposer.peer.silent");
            peer->asked_ms = proposer->now_ms;
            proposer_emit(out, PROPOSER_CLOSE, i)->why = "it does not answer";
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
    ASSERT(event->peer < proposer_member_count(proposer));
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
            proposer_on_vote_reply(proposer, event->peer, event->vote, out);
        }
        break;
    case PROPOSER_APPEND_REPLY:
        if (is_current(proposer, event)) {
            proposer_on_append_reply(proposer, event->peer, event->appended, out);
        }
        break;
    case PROPOSER_READ_WAL_REPLY:
    case PROPOSER_READ_WAL_FAILED:
        if (is_current(proposer, event)) {
            proposer_on_read_reply(proposer, event, out);
        }
        break;
    case PROPOSER_LOCAL_WAL:
        proposer_on_local_wal(proposer, event->local.end_lsn, event->local.record_lsn);
        proposer_advance_commit(
            proposer, out); /* a record may be everywhere before we knew of it */
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
    proposer_campaign_if_due(proposer, out);
    if (proposer->phase == PROPOSER_ELECTED) {
        for (uint32_t i = 0; i < proposer_member_count(proposer); i++) {
            proposer_pump(proposer, i, out);
        }
        proposer_trim_window(proposer);
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
        (proposer->phase == PROPOSER_COLLECTING && proposer_has_quorum_connected(proposer))) {
        deadline_ms = proposer->deadline_ms;
    }
    for (uint32_t i = 0; i < proposer_member_count(proposer); i++) {
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
