#include "safekeeper/timeline/repair.h"

#include <stdarg.h>
#include <stdio.h>

#include "common/base/mark.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "safekeeper/disk/wal_repair.h"
#include "safekeeper/timeline/peer_link.h"
#include "safekeeper/timeline/rebuild.h"
#include "safekeeper/timeline/timeline_private.h"

METRIC_GAUGE(
    repairs_running, "safekeeper_wal_repairs_running", "timelines that are being repaired");
METRIC_COUNTER(repairs_done, "safekeeper_wal_repairs_total", "timelines that were repaired");

#define JOBS_WAIT_MS 10

enum repair_state {
    REPAIR_WAITING,  /* for running jobs to end, or for the next attempt */
    REPAIR_LOOKING,  /* the log is being verified; the list of damage comes with the failure */
    REPAIR_FETCHING, /* from members.. */
    REPAIR_PUTTING,  /* a worker writes what came */
};

struct repair {
    struct timeline *tl; /* referenced */
    enum repair_state state;
    bool is_over; /* freed when link and job are gone */
    struct timer timer;

    size_t next; /* index of the damage that is being repaired */
    struct buf wal;
    lsn_t next_lsn; /* of what is read next */

    uint32_t tries; /* members asked for this damage */
    struct peer_link peer;

    struct job job;
    bool is_job_running;
};

static void release_if_over(struct repair *repair)
{
    if (repair->is_over && !peer_link_is_open(&repair->peer) && !repair->is_job_running) {
        struct timeline *tl = repair->tl;
        buf_deinit(&repair->wal);
        mem_free(repair);
        timeline_unref(tl);
    }
}

static void say(struct repair *repair, const char *format, ...) PRINTF_LIKE(2, 3);
static void say(struct repair *repair, const char *format, ...)
{
    struct timeline *tl = repair->tl;
    va_list args;
    va_start(args, format);
    (void)vsnprintf(tl->repair_text, sizeof(tl->repair_text), format, args);
    va_end(args);
    log_info(&tl->log, "repair: %s", tl->repair_text);
}

static const struct wal_damage *damage_of(const struct repair *repair)
{
    return &repair->tl->damage->items[repair->next];
}

static void finish(struct repair *repair)
{
    struct timeline *tl = repair->tl;
    timer_stop(&repair->timer);
    tl->repair = NULL;
    metric_add(&repairs_running, -1);
    repair->is_over = true;
    peer_link_abort(&repair->peer);
    release_if_over(repair);
}

/* ---- looking ---- */

static void wait_and_look(struct repair *repair, uint64_t delay_ms)
{
    repair->state = REPAIR_WAITING;
    timer_start(repair->tl->env->loop, &repair->timer, delay_ms);
}

static void on_timer(struct timer *timer)
{
    struct repair *repair = CONTAINER_OF(timer, struct repair, timer);
    ASSERT(repair->state == REPAIR_WAITING);
    if (repair->tl->jobs > 0 || peer_link_is_open(&repair->peer)) {
        timer_start(repair->tl->env->loop, timer, JOBS_WAIT_MS);
        return;
    }
    repair->state = REPAIR_LOOKING;
    timeline_verify_again(repair->tl);
}

/* ---- fetching ---- */

static void ask_next_member(struct repair *repair);

static void ask_for_wal(struct repair *repair)
{
    struct read_wal request = {
        .begin_lsn = repair->next_lsn,
        .size =
            (uint32_t)MIN_OF(damage_of(repair)->end_lsn - repair->next_lsn, (lsn_t)WAL_APPEND_MAX),
    };
    LINK_SEND(
        repair->peer.user.link, read_wal, &request, .type = FRAME_READ_WAL,
        .channel = repair->peer.channel, .request_id = ++repair->peer.request_id);
}

static void begin_damage(struct repair *repair)
{
    struct wal_store_options options = timeline_store_options(repair->tl);
    repair->state = REPAIR_FETCHING;
    buf_clear(&repair->wal);
    repair->next_lsn = wal_repair_begin_lsn(&options, damage_of(repair));
}

static err_t run_put(struct job *job)
{
    struct repair *repair = CONTAINER_OF(job, struct repair, job);
    struct wal_store_options options = timeline_store_options(repair->tl);
    return wal_repair_put(&options, damage_of(repair), buf_view(&repair->wal), &job->msg);
}

static void on_put(struct job *job)
{
    struct repair *repair = CONTAINER_OF(job, struct repair, job);
    struct timeline *tl = repair->tl;
    repair->is_job_running = false;
    if (repair->is_over) {
        release_if_over(repair);
    } else if (job->result == ERR_CORRUPT) {
        repair->peer.trouble = job->msg;
        ask_next_member(repair);
    } else if (job->result != ERR_OK) { /* our disk: nobody else can help */
        say(repair, "%s", job->msg.text);
        wait_and_look(repair, tl->env->repair_retry_ms);
    } else if (++repair->next < tl->damage->count) {
        begin_damage(repair);
        if (peer_link_is_open(&repair->peer)) {
            repair->tries = 1;
            ask_for_wal(repair);
        } else {
            repair->tries = 0;
            ask_next_member(repair);
        }
    } else {
        wait_and_look(repair, 1); /* verified again, from the files; there may be more */
        peer_link_abort(&repair->peer);
    }
    timeline_job_ended(tl);
}

static void on_wal(struct repair *repair, const struct read_wal_reply *reply)
{
    lsn_t left = damage_of(repair)->end_lsn - repair->next_lsn;
    if (reply->begin_lsn != repair->next_lsn || reply->wal.size == 0 || reply->wal.size > left) {
        err_ignore(
            err_set(
                &repair->peer.trouble, ERR_RANGE, "WAL up to " LSN_FMT " is not committed there",
                LSN_ARGS(damage_of(repair)->end_lsn)),
            "it is said when nobody helped");
        ask_next_member(repair);
        return;
    }
    buf_append(&repair->wal, reply->wal.data, reply->wal.size);
    repair->next_lsn += reply->wal.size;
    if (repair->next_lsn < damage_of(repair)->end_lsn) {
        ask_for_wal(repair);
        return;
    }
    repair->state = REPAIR_PUTTING;
    repair->is_job_running = true;
    repair->job.run = run_put;
    repair->job.done = on_put;
    timeline_job_begun(repair->tl);
    executor_submit(repair->tl->env->executor, &repair->job);
}

static struct repair *repair_of(struct peer_link *peer)
{
    return CONTAINER_OF(peer, struct repair, peer);
}

static void on_peer_ready(struct peer_link *peer)
{
    ask_for_wal(repair_of(peer));
}

static err_t on_peer_frame(struct peer_link *peer, const struct frame *frame, struct errmsg *msg)
{
    struct repair *repair = repair_of(peer);
    struct reader in = reader_of(frame->payload);
    struct read_wal_reply reply;
    if (repair->is_over) {
        return ERR_OK;
    }
    if (frame->type != FRAME_READ_WAL_REPLY || frame->request_id != peer->request_id ||
        repair->state != REPAIR_FETCHING) {
        return err_set(msg, ERR_INVALID, "%s was not asked for", frame_type_name(frame->type));
    }
    TRY(read_wal_reply_decode(&reply, &in));
    on_wal(repair, &reply);
    return ERR_OK;
}

static void on_peer_gone(struct peer_link *peer)
{
    struct repair *repair = repair_of(peer);
    if (repair->is_over) {
        release_if_over(repair);
    } else if (repair->state == REPAIR_FETCHING) {
        ask_next_member(repair);
    }
}

static err_t connect_member(struct repair *repair, uint32_t member)
{
    say(repair, "reads " LSN_FMT ".." LSN_FMT " from safekeeper %" PRIu64,
        LSN_ARGS(damage_of(repair)->begin_lsn), LSN_ARGS(damage_of(repair)->end_lsn),
        repair->tl->control.membership.members[member]);
    return peer_link_connect(&repair->peer, member);
}

static void forget_damage(struct timeline *tl)
{
    mem_free(tl->damage);
    tl->damage = NULL;
    tl->is_tail_given_up = false;
}

/* Whoever was asked could not help. */
static void ask_next_member(struct repair *repair)
{
    struct timeline *tl = repair->tl;
    const struct membership *membership = &tl->control.membership;
    if (peer_link_is_open(&repair->peer)) { /* comes back when it is gone */
        repair->state = REPAIR_FETCHING;
        peer_link_abort(&repair->peer);
        return;
    }
    begin_damage(repair);
    while (repair->tries < membership->count) {
        repair->tries++;
        uint32_t member = (repair->peer.member + 1) % membership->count;
        repair->peer.member = member;
        if (membership->members[member] != tl->env->node_id &&
            connect_member(repair, member) == ERR_OK) {
            return;
        }
    }
    MARK("repair.nobody_helps");
    say(repair, "no member has " LSN_FMT ".." LSN_FMT "; the last one: %s",
        LSN_ARGS(damage_of(repair)->begin_lsn), LSN_ARGS(damage_of(repair)->end_lsn),
        repair->peer.trouble.text);
    bool is_tail = tl->damage->items[0].begin_lsn >= tl->control.acceptor.commit_lsn;
    if (is_tail && !tl->is_tail_given_up) {
        tl->is_tail_given_up = true;
        wait_and_look(repair, 1);
        return;
    }
    finish(repair);
    forget_damage(tl);
    rebuild_begin(tl); /* without what was never committed, or is needed no more, it may go */
}

/* ---- from outside ---- */

void repair_begin(struct timeline *tl)
{
    struct repair *repair = MEM_NEW(struct repair);
    repair->tl = repair->peer.tl = timeline_ref(tl);
    repair->peer.on_ready = on_peer_ready;
    repair->peer.on_frame = on_peer_frame;
    repair->peer.on_gone = on_peer_gone;
    repair->timer.on_fire = on_timer;
    tl->repair = repair;
    forget_damage(tl); /* of a repair that was given up */
    tl->damage = MEM_NEW(struct wal_damage_list);
    metric_add(&repairs_running, 1);
    wait_and_look(repair, 1);
}

void repair_on_failed(struct timeline *tl, err_t err)
{
    struct repair *repair = tl->repair;
    tl->repair_text[0] = '\0';
    if (tl->control.membership.count == 0 && err == ERR_CORRUPT) {
        MARK("repair.control_lost");
        (void)snprintf(
            tl->repair_text, sizeof(tl->repair_text),
            "its promises are lost, it must not vote under this membership again: delete it here, "
            "and admit it under a newer generation");
    } else if (tl->rebuild != NULL) {
        rebuild_on_failed(tl, err);
    } else if (err == ERR_CORRUPT && repair == NULL && tl->control.membership.count > 1) {
        repair_begin(tl);
    } else if (repair != NULL && err != ERR_CORRUPT) {
        MARK("repair.impossible");
        say(repair, "the other members cannot help: this is no damage to the bytes of a group");
        finish(repair);
        forget_damage(tl);
    } else if (repair != NULL && tl->damage->count == 0) {
        MARK("repair.no_group"); /* nothing here says any more what was written */
        finish(repair);
        forget_damage(tl);
        rebuild_begin(tl);
    } else if (repair != NULL) {
        repair->next = 0;
        repair->tries = 0;
        ask_next_member(repair);
    }
}

void repair_on_opened(struct timeline *tl)
{
    rebuild_on_opened(tl);
    if (tl->repair != NULL) {
        tl->repair_text[0] = '\0';
        metric_add(&repairs_done, 1);
        log_warn(&tl->log, "repaired from the other members, back in service");
        finish(tl->repair);
        forget_damage(tl);
    }
}

/* A worker may still be looking: the list goes with the timeline. */
void repair_stop(struct timeline *tl)
{
    rebuild_stop(tl);
    if (tl->repair != NULL) {
        finish(tl->repair);
    }
}
