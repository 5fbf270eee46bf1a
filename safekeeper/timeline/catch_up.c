#include "safekeeper/timeline/catch_up.h"

#include <stdio.h>

#include "common/base/clock.h"
#include "common/base/mark.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "safekeeper/consensus/term_history.h"
#include "safekeeper/timeline/peer_link.h"
#include "safekeeper/timeline/timeline_private.h"

METRIC_GAUGE(running, "safekeeper_catch_ups_running", "timelines that ask other members");
METRIC_COUNTER(
    checks, "safekeeper_catch_up_checks_total", "times that the other members were asked");
METRIC_COUNTER(caught_up, "safekeeper_catch_ups_total", "logs that were completed from a member");
METRIC_COUNTER(caught_bytes, "safekeeper_catch_up_bytes_total", "WAL read from other members");
METRIC_COUNTER(
    compared_bytes, "safekeeper_compared_bytes_total", "committed WAL that a member had as well");
METRIC_COUNTER(
    conflicts, "safekeeper_commit_conflicts_total", "answers that contradict our committed WAL");

#define BEGUN_AT_ONCE    64 /* the others are due the next time */
#define EXAMINED_AT_ONCE 1024
#define PATIENCE_MS      10 /* how often is looked whether the disk has done its part */
#define PENDING_MAX      (1 * MIB)
#define COMPARED_PIECES  64 /* of 128 KiB, in one check */

enum catch_up_state {
    CATCH_UP_ASKING,    /* one member after the other */
    CATCH_UP_READING,   /* from the one that knows most */
    CATCH_UP_COMPARING, /* nobody knows more: a part of what both have */
};

struct catch_up {
    struct timeline *tl; /* referenced */
    enum catch_up_state state;
    bool is_over; /* freed when the link is gone */
    struct peer_link peer;
    uint32_t next; /* index of the member that is asked next */
    bool has_best;
    uint32_t best_member;
    struct vote_reply best; /* of the member that has committed most */
    bool is_read_sent;
    struct timer timer;

    lsn_t compare_end_lsn;
    unsigned pieces_left;
    struct timeline_read read; /* of our own bytes */
    bool is_reading;
};

static struct catch_up *catch_up_of(struct peer_link *peer)
{
    return CONTAINER_OF(peer, struct catch_up, peer);
}

static void release_if_over(struct catch_up *catch_up)
{
    if (catch_up->is_over && !peer_link_is_open(&catch_up->peer) && !catch_up->is_reading) {
        struct timeline *tl = catch_up->tl;
        timeline_read_deinit(&catch_up->read);
        mem_free(catch_up);
        timeline_unref(tl);
    }
}

static void finish(struct catch_up *catch_up)
{
    catch_up->tl->catch_up = NULL;
    catch_up->is_over = true;
    timer_stop(&catch_up->timer);
    metric_add(&running, -1);
    peer_link_abort(&catch_up->peer);
    release_if_over(catch_up);
}

static bool is_catching_up(const struct acceptor *acceptor)
{
    bool begins = acceptor->phase == ACCEPTOR_TRUNCATING || acceptor->phase == ACCEPTOR_ADOPTING;
    return acceptor->phase == ACCEPTOR_CATCHING_UP || (begins && acceptor->is_catching_up);
}

/* Somebody must act: two members call different bytes committed, and nobody here knows who errs. */
static void report_conflict(struct catch_up *catch_up, lsn_t lsn)
{
    struct timeline *tl = catch_up->tl;
    metric_add(&conflicts, 1);
    (void)snprintf(
        tl->repair_text, sizeof(tl->repair_text),
        "safekeeper %" PRIu64 " has other WAL committed than we at " LSN_FMT,
        tl->control.membership.members[catch_up->best_member], LSN_ARGS(lsn));
    log_error(&tl->log, "%s", tl->repair_text);
}

/* ---- asking ---- */

static void ask_next(struct catch_up *catch_up);

static void ask(struct catch_up *catch_up)
{
    struct vote_request request = {
        .generation = catch_up->tl->acceptor.state.generation,
        .proposer_id = catch_up->tl->env->node_id,
    }; /* term 0: a question, no vote */
    LINK_SEND(
        catch_up->peer.user.link, vote_request, &request, .type = FRAME_VOTE_REQUEST,
        .channel = catch_up->peer.channel, .request_id = ++catch_up->peer.request_id);
}

static bool is_believable(const struct vote_reply *reply)
{
    return term_history_is_valid(&reply->history) && reply->start_lsn <= reply->commit_lsn &&
           reply->commit_lsn <= reply->record_lsn;
}

static void take_answer(struct catch_up *catch_up, const struct vote_reply *reply)
{
    if (is_believable(reply) &&
        (!catch_up->has_best || reply->commit_lsn > catch_up->best.commit_lsn)) {
        catch_up->has_best = true;
        catch_up->best = *reply;
        catch_up->best_member = catch_up->peer.member;
        term_history_clip(&catch_up->best.history, reply->commit_lsn);
    }
}

/* ---- reading ---- */

static void read_more(struct catch_up *catch_up)
{
    const struct timeline *tl = catch_up->tl;
    const struct acceptor *acceptor = &tl->acceptor;
    if (!is_catching_up(acceptor)) {
        if (acceptor->phase == ACCEPTOR_IDLE && acceptor->record_lsn >= acceptor->catch_up_lsn) {
            metric_add(&caught_up, 1);
            log_info(
                &tl->log, "has caught up with safekeeper %" PRIu64 " at " LSN_FMT,
                tl->control.membership.members[catch_up->best_member],
                LSN_ARGS(acceptor->record_lsn));
        }
        finish(catch_up);
        return;
    }
    bool is_behind = acceptor->phase == ACCEPTOR_CATCHING_UP &&
                     acceptor->write_lsn < acceptor->catch_up_lsn &&
                     tl->disk.pending_bytes < PENDING_MAX;
    if (!is_behind) {
        timer_start(tl->env->loop, &catch_up->timer, PATIENCE_MS);
        return;
    }
    struct read_wal request = {
        .begin_lsn = acceptor->write_lsn,
        .size =
            (uint32_t)MIN_OF(acceptor->catch_up_lsn - acceptor->write_lsn, (lsn_t)WAL_APPEND_MAX),
    };
    catch_up->is_read_sent = true;
    LINK_SEND(
        catch_up->peer.user.link, read_wal, &request, .type = FRAME_READ_WAL,
        .channel = catch_up->peer.channel, .request_id = ++catch_up->peer.request_id);
}

/* ---- comparing ---- */

static void ask_for_compared(struct catch_up *catch_up)
{
    struct read_wal request = {
        .begin_lsn = catch_up->read.begin_lsn,
        .size = (uint32_t)(catch_up->read.end_lsn - catch_up->read.begin_lsn),
    };
    catch_up->is_read_sent = true;
    LINK_SEND(
        catch_up->peer.user.link, read_wal, &request, .type = FRAME_READ_WAL,
        .channel = catch_up->peer.channel, .request_id = ++catch_up->peer.request_id);
}

/* Ours is verified by its checksums on the way; if it is damaged the repair has begun by now. */
static void on_own_read(struct timeline_read *read, err_t result)
{
    struct catch_up *catch_up = CONTAINER_OF(read, struct catch_up, read);
    catch_up->is_reading = false;
    if (catch_up->is_over) {
        release_if_over(catch_up);
    } else if (result != ERR_OK || catch_up->peer.channel == 0) {
        finish(catch_up);
    } else {
        ask_for_compared(catch_up);
    }
}

static void compare_more(struct catch_up *catch_up)
{
    struct timeline *tl = catch_up->tl;
    if (catch_up->pieces_left == 0 || tl->row->compared_lsn >= catch_up->compare_end_lsn) {
        finish(catch_up);
        return;
    }
    catch_up->pieces_left--;
    catch_up->read.begin_lsn = tl->row->compared_lsn;
    catch_up->read.end_lsn =
        MIN_OF(catch_up->compare_end_lsn, tl->row->compared_lsn + WAL_APPEND_MAX);
    catch_up->read.term = 0;
    catch_up->read.done = on_own_read;
    catch_up->is_reading = true;
    timeline_read_start(tl, &catch_up->read);
}

static void take_compared(struct catch_up *catch_up, const struct read_wal_reply *reply)
{
    struct timeline *tl = catch_up->tl;
    catch_up->is_read_sent = false;
    if (!bytes_equal(reply->wal, buf_view(&catch_up->read.wal))) {
        MARK("catch_up.other_bytes");
        report_conflict(catch_up, catch_up->read.begin_lsn);
        finish(catch_up);
        return;
    }
    metric_add(&compared_bytes, (int64_t)reply->wal.size);
    tl->row->compared_lsn = catch_up->read.end_lsn;
    compare_more(catch_up);
}

/* It goes on where the last one ended, and begins anew at the end of the log. */
static void begin_to_compare(struct catch_up *catch_up)
{
    struct timeline *tl = catch_up->tl;
    const struct acceptor *acceptor = &tl->acceptor;
    lsn_t end_lsn = MIN_OF(acceptor->state.commit_lsn, catch_up->best.commit_lsn);
    lsn_t start_lsn = MAX_OF(acceptor->state.begin_lsn, catch_up->best.start_lsn);
    if (tl->row->compared_lsn < start_lsn || tl->row->compared_lsn >= end_lsn) {
        tl->row->compared_lsn = start_lsn;
    }
    catch_up->compare_end_lsn = end_lsn;
    catch_up->pieces_left = COMPARED_PIECES;
    catch_up->state = CATCH_UP_COMPARING;
    if (tl->row->compared_lsn >= end_lsn ||
        peer_link_connect(&catch_up->peer, catch_up->best_member) != ERR_OK) {
        finish(catch_up);
    }
}

static void on_timer(struct timer *timer)
{
    struct catch_up *catch_up = CONTAINER_OF(timer, struct catch_up, timer);
    if (catch_up->peer.channel == 0 || catch_up->is_read_sent || catch_up->is_reading) {
        return;
    }
    if (catch_up->state == CATCH_UP_COMPARING) {
        compare_more(catch_up);
    } else {
        read_more(catch_up);
    }
}

static void take_wal(struct catch_up *catch_up, const struct read_wal_reply *reply)
{
    struct acceptor_event event = {
        .kind = ACCEPTOR_PEER_WAL,
        .peer_wal = {.begin_lsn = reply->begin_lsn, .wal = reply->wal},
    };
    catch_up->is_read_sent = false;
    metric_add(&caught_bytes, (int64_t)reply->wal.size);
    timeline_step(catch_up->tl, &event);
    if (!catch_up->is_over) { /* the disk may have failed */
        read_more(catch_up);
    }
}

/* Everybody was asked. */
static void judge(struct catch_up *catch_up)
{
    struct timeline *tl = catch_up->tl;
    lsn_t commit_lsn = tl->acceptor.state.commit_lsn;
    if (!catch_up->has_best) {
        finish(catch_up);
        return;
    }
    if (catch_up->best.commit_lsn <= commit_lsn) { /* there is nothing that we do not know */
        begin_to_compare(catch_up);
        return;
    }
    struct acceptor_event event = {
        .kind = ACCEPTOR_PEER_ANSWERED,
        .peer =
            {
                .history = &catch_up->best.history,
                .commit_lsn = catch_up->best.commit_lsn,
                .begin_lsn = catch_up->best.start_lsn,
            },
    };
    timeline_step(tl, &event);
    const struct acceptor *acceptor = &tl->acceptor;
    bool was_asked = acceptor->phase == ACCEPTOR_IDLE && !acceptor->vote_pending &&
                     acceptor->wal_epoch_done == acceptor->wal_epoch;
    if (was_asked && acceptor->state.commit_lsn < catch_up->best.commit_lsn) {
        report_conflict(catch_up, commit_lsn);
    }
    if (!is_catching_up(&tl->acceptor)) {
        finish(catch_up);
        return;
    }
    log_info(
        &tl->log, "is behind at " LSN_FMT ", reads up to " LSN_FMT " from safekeeper %" PRIu64,
        LSN_ARGS(tl->acceptor.record_lsn), LSN_ARGS(tl->acceptor.catch_up_lsn),
        tl->control.membership.members[catch_up->best_member]);
    catch_up->state = CATCH_UP_READING;
    if (peer_link_connect(&catch_up->peer, catch_up->best_member) != ERR_OK) {
        finish(catch_up);
    }
}

static void ask_next(struct catch_up *catch_up)
{
    const struct membership *membership = &catch_up->tl->control.membership;
    while (catch_up->next < membership->count) {
        uint32_t member = catch_up->next++;
        if (membership->members[member] != catch_up->tl->env->node_id &&
            peer_link_connect(&catch_up->peer, member) == ERR_OK) {
            return;
        }
    }
    judge(catch_up);
}

/* ---- the link ---- */

static void on_ready(struct peer_link *peer)
{
    struct catch_up *catch_up = catch_up_of(peer);
    if (catch_up->is_over) {
        return;
    }
    if (catch_up->state == CATCH_UP_ASKING) {
        ask(catch_up);
    } else {
        timer_start(peer->tl->env->loop, &catch_up->timer, 0); /* it may free us */
    }
}

static err_t on_frame(struct peer_link *peer, const struct frame *frame, struct errmsg *msg)
{
    struct catch_up *catch_up = catch_up_of(peer);
    struct reader in = reader_of(frame->payload);
    if (catch_up->is_over) {
        return ERR_OK;
    }
    if (frame->request_id == peer->request_id && frame->type == FRAME_VOTE_REPLY &&
        catch_up->state == CATCH_UP_ASKING) {
        struct vote_reply reply;
        TRY(vote_reply_decode(&reply, &in));
        take_answer(catch_up, &reply);
        return err_set(msg, ERR_CANCELED, "it has answered"); /* the next one, when it is gone */
    }
    if (frame->request_id == peer->request_id && frame->type == FRAME_READ_WAL_REPLY &&
        catch_up->is_read_sent) {
        struct read_wal_reply reply;
        TRY(read_wal_reply_decode(&reply, &in));
        if (reply.wal.size == 0) {
            return err_set(msg, ERR_RANGE, "it has nothing more");
        }
        if (catch_up->state == CATCH_UP_COMPARING) {
            take_compared(catch_up, &reply);
        } else {
            take_wal(catch_up, &reply);
        }
        return ERR_OK;
    }
    return err_set(msg, ERR_INVALID, "%s was not asked for", frame_type_name(frame->type));
}

static void on_gone(struct peer_link *peer)
{
    struct catch_up *catch_up = catch_up_of(peer);
    if (catch_up->is_over) {
        release_if_over(catch_up);
    } else if (catch_up->state == CATCH_UP_ASKING) {
        ask_next(catch_up);
    } else if (catch_up->state == CATCH_UP_COMPARING) {
        finish(catch_up); /* the next check goes on from there */
    } else {
        MARK("catch_up.source_gone"); /* the next check begins it anew */
        log_info(&peer->tl->log, "catching up is interrupted: %s", peer->trouble.text);
        catch_up_soon(peer->tl);
        finish(catch_up);
    }
}

/* ---- from outside ---- */

void catch_up_soon(struct timeline *tl)
{
    if (tl->row == NULL) {
        return; /* it is being deleted */
    }
    if (tl->control.membership.count > 1 && tl->env->peer_check_ms > 0) {
        timeline_row_schedule(tl->row, 0, clock_mono());
    } else {
        timeline_row_unschedule(tl->row);
    }
}

/* One that rests is open, and has no peers. */
static bool may_begin(const struct timeline *tl)
{
    return tl == NULL ||
           (tl->state == TIMELINE_OPEN && tl->catch_up == NULL && list_is_empty(&tl->peers));
}

static void begin(struct timeline *tl)
{
    struct catch_up *catch_up = MEM_NEW(struct catch_up);
    tl->catch_up = catch_up;
    catch_up->tl = catch_up->peer.tl = timeline_ref(tl);
    catch_up->timer.on_fire = on_timer;
    catch_up->peer.on_ready = on_ready;
    catch_up->peer.on_frame = on_frame;
    catch_up->peer.on_gone = on_gone;
    metric_add(&running, 1);
    metric_add(&checks, 1);
    ask_next(catch_up);
}

unsigned catch_up_begin_due(struct timeline_set *set, mono_ns_t now)
{
    unsigned begun = 0;
    struct timeline_row *row = timeline_set_first_due(set, now);
    for (unsigned i = 0; i < EXAMINED_AT_ONCE && begun < BEGUN_AT_ONCE && row != NULL; i++) {
        if (may_begin(row->tl)) {
            uint8_t backoff = (uint8_t)MIN_OF(row->catch_up_backoff + 1, CATCH_UP_BACKOFF_MAX);
            timeline_row_schedule(row, backoff, now);
            begin(timeline_row_wake(row));
            begun++;
        } else {
            timeline_row_schedule(row, row->catch_up_backoff, now);
        }
        row = timeline_set_first_due(set, now);
    }
    return begun;
}

void catch_up_stop(struct timeline *tl)
{
    if (tl->catch_up != NULL) {
        finish(tl->catch_up);
    }
}
