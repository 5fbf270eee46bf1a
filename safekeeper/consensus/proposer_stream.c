/*
 * proposer_stream.c - appends to each acceptor, from the window or read from another acceptor, and
 * what is committed by that.
 */
#include "safekeeper/consensus/proposer_private.h"

#define READ_RETRY_MS 50

/* ---- sending ---- */

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
    proposer_emit(out, PROPOSER_SEND_APPEND, index)->append = (struct append){
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

void proposer_send_empty_append(
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
    for (uint32_t i = 0; i < proposer_member_count(proposer); i++) {
        bool is_kept = proposer->peers[i].begin_lsn <= peer->sent_lsn;
        if (i != index && is_kept && proposer_held_lsn(proposer, i) > end_lsn) {
            source = i;
            end_lsn = proposer_held_lsn(proposer, i);
        }
    }
    if (source == index && proposer_anew_lsn(proposer, index, peer->sent_lsn) != LSN_NONE) {
        MARK("proposer.read.not_kept");
        peer->read_retry_ms = proposer->now_ms + READ_RETRY_MS; /* it goes, or is asked to again */
        proposer_emit(out, PROPOSER_CLOSE, index)->why =
            "what follows its log is not kept: it begins anew";
        return;
    }
    if (source == index) {
        MARK("proposer.read.no_source");
        return; /* a peer that comes or acknowledges more starts this again */
    }
    end_lsn = MIN_OF(end_lsn, MAX_OF(proposer->window_begin_lsn, proposer->term_start_lsn));
    peer->read_id = ++proposer->read_id_last;
    peer->read_source = source;
    struct proposer_action *action = proposer_emit(out, PROPOSER_SEND_READ_WAL, source);
    action->read.id = peer->read_id;
    action->read.target = index;
    action->read.request = (struct read_wal){
        .term = proposer->term,
        .begin_lsn = peer->sent_lsn,
        .size = (uint32_t)MIN_OF(end_lsn - peer->sent_lsn, WAL_APPEND_MAX),
    };
}

void proposer_pump(struct proposer *proposer, uint32_t index, struct proposer_actions *out)
{
    struct proposer_peer *peer = &proposer->peers[index];
    for (int budget = PROPOSER_PUMP_BUDGET - 1; peer->phase == PEER_STREAMING; budget--) {
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
        proposer_send_empty_append(proposer, index, out);
    }
}

void proposer_trim_window(struct proposer *proposer)
{
    lsn_t keep_lsn = proposer->commit_lsn;
    for (uint32_t i = 0; i < proposer_member_count(proposer); i++) {
        const struct proposer_peer *peer = &proposer->peers[i];
        if (proposer_is_connected(peer) && peer->record_lsn != LSN_NONE) {
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

/* ---- what comes back ---- */

void proposer_advance_commit(struct proposer *proposer, struct proposer_actions *out)
{
    lsn_t lsns[MEMBERS_MAX] = {0};
    uint32_t told = 0;
    for (uint32_t i = 0; i < proposer_member_count(proposer); i++) {
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
        proposer_emit(out, PROPOSER_READY, 0)->lsn = proposer->term_start_lsn;
    }
    if (lsn > proposer->commit_lsn) {
        proposer->commit_lsn = lsn;
        proposer_emit(out, PROPOSER_COMMITTED, 0)->lsn = lsn;
    }
    if (proposer->ready && !proposer->synced &&
        membership_has_quorum(&proposer->options.membership, told)) {
        proposer->synced = true;
        proposer_emit(out, PROPOSER_SYNCED, 0)->lsn = proposer->term_start_lsn;
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

void proposer_on_append_reply(
    struct proposer *proposer,
    uint32_t index,
    const struct append_reply *appended,
    struct proposer_actions *out)
{
    struct proposer_peer *peer = &proposer->peers[index];
    if (appended->term > proposer->term) {
        proposer_on_higher_term(proposer, appended->term, out);
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
        proposer_emit(out, PROPOSER_CLOSE, index)->why = why;
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
    proposer_advance_commit(proposer, out);
}

static struct proposer_peer *find_reading(
    struct proposer *proposer, uint32_t source, uint64_t id, uint32_t *ret_index)
{
    for (uint32_t i = 0; i < proposer_member_count(proposer); i++) {
        struct proposer_peer *peer = &proposer->peers[i];
        if (id != 0 && peer->read_id == id && peer->read_source == source) {
            *ret_index = i;
            return peer;
        }
    }
    return NULL;
}

void proposer_on_read_reply(
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
    lsn_t source_end_lsn = proposer_held_lsn(proposer, event->peer);
    bool failed = event->kind == PROPOSER_READ_WAL_FAILED;
    if (failed && event->read.err == ERR_RANGE) {
        MARK("proposer.read.forgotten");
        proposer_emit(out, PROPOSER_CLOSE, event->peer)->why =
            "it has forgotten WAL: where does it begin?";
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

/* ---- what Postgres brings ---- */

void proposer_on_local_wal(struct proposer *proposer, lsn_t end_lsn, lsn_t record_lsn)
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
