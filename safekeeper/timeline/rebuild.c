#include "safekeeper/timeline/rebuild.h"

#include <stdarg.h>
#include <stdio.h>

#include "common/base/mark.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "safekeeper/consensus/term_history.h"
#include "safekeeper/disk/wal_rebuild.h"
#include "safekeeper/timeline/peer_link.h"
#include "safekeeper/timeline/repair.h"
#include "safekeeper/timeline/timeline_private.h"

METRIC_GAUGE(running, "safekeeper_wal_rebuilds_running", "timelines whose log is made anew");
METRIC_COUNTER(done, "safekeeper_wal_rebuilds_total", "logs that were made anew from a member");

#define JOBS_WAIT_MS 10

enum rebuild_state {
    REBUILD_SURVEYING, /* what the files say, on a worker, when no other job runs */
    REBUILD_ASKING,    /* one member after the other what it has committed */
    REBUILD_BEGINNING, /* a folder for the copy, on a worker */
    REBUILD_READING,   /* from the one that knows most.. */
    REBUILD_WRITING,   /* a worker writes what came */
    REBUILD_SWAPPING,  /* control file, then the files */
    REBUILD_VERIFYING, /* the timeline is opened */
    REBUILD_WAITING,   /* nobody could help: from the beginning, with a repair */
};

struct rebuild {
    struct timeline *tl; /* referenced */
    enum rebuild_state state;
    bool is_over; /* freed when link and job are gone */
    struct timer timer;

    struct wal_survey survey;
    uint32_t next; /* index of the member that is asked next */
    bool has_best;
    uint32_t best_member;
    lsn_t best_begin_lsn, best_commit_lsn;
    lsn_t begin_lsn; /* of the new log */

    struct peer_link peer;
    struct buf wal;
    struct wal_rebuild *copy;
    struct control_state *control; /* the worker's: what goes with the new log */

    struct job job;
    bool is_job_running;
};

static void release_if_over(struct rebuild *rebuild)
{
    if (rebuild->is_over && !peer_link_is_open(&rebuild->peer) && !rebuild->is_job_running) {
        struct timeline *tl = rebuild->tl;
        wal_rebuild_close(rebuild->copy);
        buf_deinit(&rebuild->wal);
        mem_free(rebuild->control);
        mem_free(rebuild);
        timeline_unref(tl);
    }
}

static void finish(struct rebuild *rebuild)
{
    timer_stop(&rebuild->timer);
    rebuild->tl->rebuild = NULL;
    metric_add(&running, -1);
    rebuild->is_over = true;
    peer_link_abort(&rebuild->peer);
    release_if_over(rebuild);
}

static void say(struct rebuild *rebuild, const char *format, ...) PRINTF_LIKE(2, 3);
static void say(struct rebuild *rebuild, const char *format, ...)
{
    struct timeline *tl = rebuild->tl;
    va_list args;
    va_start(args, format);
    (void)vsnprintf(tl->repair_text, sizeof(tl->repair_text), format, args);
    va_end(args);
    log_info(&tl->log, "repair: %s", tl->repair_text);
}

static void wait_in(struct rebuild *rebuild, enum rebuild_state state, uint64_t delay_ms)
{
    rebuild->state = state;
    peer_link_abort(&rebuild->peer);
    timer_start(rebuild->tl->env->loop, &rebuild->timer, delay_ms);
}

static void give_up_for_now(struct rebuild *rebuild, const char *why)
{
    MARK("rebuild.nobody_helps");
    say(rebuild, "no member has what is damaged here, nor a log to replace it: %s", why);
    wait_in(rebuild, REBUILD_WAITING, rebuild->tl->env->repair_retry_ms);
}

/* ---- jobs ---- */

static err_t run_survey(struct job *job)
{
    struct rebuild *rebuild = CONTAINER_OF(job, struct rebuild, job);
    struct wal_store_options options = timeline_store_options(rebuild->tl);
    return wal_survey(&options, &rebuild->survey, &job->msg);
}

static err_t run_begin(struct job *job)
{
    struct rebuild *rebuild = CONTAINER_OF(job, struct rebuild, job);
    struct wal_store_options options = timeline_store_options(rebuild->tl);
    wal_rebuild_close(rebuild->copy);
    rebuild->copy = NULL;
    return wal_rebuild_open(
        &options, rebuild->begin_lsn, rebuild->survey.commit_lsn, &rebuild->copy, &job->msg);
}

static err_t run_append(struct job *job)
{
    struct rebuild *rebuild = CONTAINER_OF(job, struct rebuild, job);
    return wal_rebuild_append(rebuild->copy, buf_view(&rebuild->wal), &job->msg);
}

/*
 * The order counts: who is interrupted after the first step finds a log that does not reach what
 * the control file says, and begins anew.
 */
static err_t run_swap(struct job *job)
{
    struct rebuild *rebuild = CONTAINER_OF(job, struct rebuild, job);
    struct timeline *tl = rebuild->tl;
    wal_rebuild_close(rebuild->copy);
    rebuild->copy = NULL;
    TRY(control_file_save(&tl->control_file, rebuild->control, /* is_promise */ true, &job->msg));
    return wal_rebuild_swap(tl->wal_dir, &job->msg);
}

static void on_job_done(struct job *job);

static void submit(struct rebuild *rebuild, enum rebuild_state state, err_t (*run)(struct job *))
{
    rebuild->state = state;
    rebuild->job.run = run;
    rebuild->job.done = on_job_done;
    rebuild->is_job_running = true;
    timeline_job_begun(rebuild->tl);
    executor_submit(rebuild->tl->env->executor, &rebuild->job);
}

static void swap(struct rebuild *rebuild)
{
    struct acceptor_state *state = &rebuild->tl->control.acceptor;
    lsn_t commit_lsn = rebuild->survey.commit_lsn;
    state->begin_lsn = MAX_OF(state->begin_lsn, rebuild->begin_lsn);
    state->commit_lsn = MAX_OF(state->commit_lsn, commit_lsn);
    if (rebuild->survey.end_lsn > commit_lsn) {
        acceptor_state_suspect(state, commit_lsn, rebuild->survey.end_lsn);
    }
    mem_free(rebuild->control);
    rebuild->control = mem_dup(&rebuild->tl->control, sizeof(rebuild->tl->control));
    submit(rebuild, REBUILD_SWAPPING, run_swap);
}

/* ---- asking ---- */

static void ask_next(struct rebuild *rebuild)
{
    const struct timeline *tl = rebuild->tl;
    const struct membership *membership = &tl->control.membership;
    while (rebuild->next < membership->count) {
        uint32_t member = rebuild->next++;
        if (membership->members[member] != tl->env->node_id &&
            peer_link_connect(&rebuild->peer, member) == ERR_OK) {
            return;
        }
    }
    if (!rebuild->has_best) {
        give_up_for_now(rebuild, "none has answered");
    } else if (rebuild->best_commit_lsn < rebuild->survey.commit_lsn) {
        give_up_for_now(rebuild, "none has committed as much as was committed here");
    } else {
        /* All below the other one's begin was consumed; so was ours, if it ended before. */
        lsn_t begin_lsn = MAX_OF(tl->control.acceptor.begin_lsn, rebuild->best_begin_lsn);
        rebuild->begin_lsn = MIN_OF(begin_lsn, rebuild->survey.commit_lsn);
        say(rebuild, "copies " LSN_FMT ".." LSN_FMT " from safekeeper %" PRIu64,
            LSN_ARGS(rebuild->begin_lsn), LSN_ARGS(rebuild->survey.commit_lsn),
            membership->members[rebuild->best_member]);
        submit(rebuild, REBUILD_BEGINNING, run_begin);
    }
}

static void take_answer(struct rebuild *rebuild, const struct vote_reply *reply)
{
    bool is_believable =
        term_history_is_valid(&reply->history) && reply->start_lsn <= reply->commit_lsn;
    if (is_believable && (!rebuild->has_best || reply->commit_lsn > rebuild->best_commit_lsn)) {
        rebuild->has_best = true;
        rebuild->best_member = rebuild->peer.member;
        rebuild->best_begin_lsn = reply->start_lsn;
        rebuild->best_commit_lsn = reply->commit_lsn;
    }
}

/* ---- reading ---- */

static void read_more(struct rebuild *rebuild)
{
    lsn_t next_lsn = wal_rebuild_next_lsn(rebuild->copy);
    lsn_t left = rebuild->survey.commit_lsn - next_lsn;
    struct read_wal request = {
        .begin_lsn = next_lsn,
        .size = (uint32_t)MIN_OF(left, (lsn_t)WAL_APPEND_MAX),
    };
    rebuild->state = REBUILD_READING;
    LINK_SEND(
        rebuild->peer.user.link, read_wal, &request, .type = FRAME_READ_WAL,
        .channel = rebuild->peer.channel, .request_id = ++rebuild->peer.request_id);
}

/* ---- the link ---- */

static struct rebuild *rebuild_of(struct peer_link *peer)
{
    return CONTAINER_OF(peer, struct rebuild, peer);
}

static void on_ready(struct peer_link *peer)
{
    struct rebuild *rebuild = rebuild_of(peer);
    if (rebuild->is_over) {
        return;
    }
    if (rebuild->state == REBUILD_READING) {
        read_more(rebuild);
        return;
    }
    struct vote_request request = {
        .generation = peer->tl->control.membership.generation,
        .proposer_id = peer->tl->env->node_id,
    }; /* term 0: a question, no vote */
    LINK_SEND(
        peer->user.link, vote_request, &request, .type = FRAME_VOTE_REQUEST,
        .channel = peer->channel, .request_id = ++peer->request_id);
}

static err_t on_frame(struct peer_link *peer, const struct frame *frame, struct errmsg *msg)
{
    struct rebuild *rebuild = rebuild_of(peer);
    struct reader in = reader_of(frame->payload);
    bool is_answer = frame->request_id == peer->request_id;
    if (rebuild->is_over) {
        return ERR_OK;
    }
    if (is_answer && frame->type == FRAME_VOTE_REPLY && rebuild->state == REBUILD_ASKING) {
        struct vote_reply reply;
        TRY(vote_reply_decode(&reply, &in));
        take_answer(rebuild, &reply);
        return err_set(msg, ERR_CANCELED, "it has answered"); /* the next one, when it is gone */
    }
    if (is_answer && frame->type == FRAME_READ_WAL_REPLY && rebuild->state == REBUILD_READING) {
        struct read_wal_reply reply;
        TRY(read_wal_reply_decode(&reply, &in));
        lsn_t next_lsn = wal_rebuild_next_lsn(rebuild->copy);
        if (reply.begin_lsn != next_lsn || reply.wal.size == 0 ||
            reply.wal.size > rebuild->survey.commit_lsn - next_lsn) {
            return err_set(msg, ERR_RANGE, "it has no WAL at " LSN_FMT, LSN_ARGS(next_lsn));
        }
        buf_clear(&rebuild->wal);
        buf_append(&rebuild->wal, reply.wal.data, reply.wal.size);
        submit(rebuild, REBUILD_WRITING, run_append);
        return ERR_OK;
    }
    return err_set(msg, ERR_INVALID, "%s was not asked for", frame_type_name(frame->type));
}

static void on_gone(struct peer_link *peer)
{
    struct rebuild *rebuild = rebuild_of(peer);
    if (rebuild->is_over) {
        release_if_over(rebuild);
    } else if (rebuild->state == REBUILD_ASKING) {
        ask_next(rebuild);
    } else if (rebuild->state == REBUILD_READING) {
        give_up_for_now(rebuild, peer->trouble.text);
    } /* while a worker writes: seen when it is done */
}

/* ---- one after the other ---- */

static void connect_best(struct rebuild *rebuild)
{
    rebuild->state = REBUILD_READING;
    if (peer_link_connect(&rebuild->peer, rebuild->best_member) != ERR_OK) {
        give_up_for_now(rebuild, rebuild->peer.trouble.text);
    }
}

/* Our disk: nobody else can help. */
static void on_job_failed(struct rebuild *rebuild)
{
    struct job *job = &rebuild->job;
    if (job->result == ERR_FULL || job->result == ERR_BUSY) {
        give_up_for_now(rebuild, job->msg.text);
    } else {
        MARK("rebuild.disk_failed"); /* for a re-open */
        say(rebuild, "%s", job->msg.text);
        finish(rebuild);
    }
}

static void on_job_done(struct job *job)
{
    struct rebuild *rebuild = CONTAINER_OF(job, struct rebuild, job);
    struct timeline *tl = rebuild->tl;
    rebuild->is_job_running = false;
    if (rebuild->is_over) {
        release_if_over(rebuild);
    } else if (job->result != ERR_OK) {
        on_job_failed(rebuild);
    } else if (rebuild->state == REBUILD_SURVEYING) {
        rebuild->state = REBUILD_ASKING;
        ask_next(rebuild);
    } else if (rebuild->state == REBUILD_SWAPPING) {
        wait_in(rebuild, REBUILD_VERIFYING, 1);
    } else if (wal_rebuild_next_lsn(rebuild->copy) == rebuild->survey.commit_lsn) {
        swap(rebuild);
    } else if (rebuild->state == REBUILD_BEGINNING) {
        connect_best(rebuild);
    } else if (peer_link_is_open(&rebuild->peer)) {
        read_more(rebuild);
    } else {
        give_up_for_now(rebuild, rebuild->peer.trouble.text);
    }
    timeline_job_ended(tl);
}

static void on_timer(struct timer *timer)
{
    struct rebuild *rebuild = CONTAINER_OF(timer, struct rebuild, timer);
    struct timeline *tl = rebuild->tl;
    if (tl->jobs > 0 || peer_link_is_open(&rebuild->peer)) {
        timer_start(tl->env->loop, timer, JOBS_WAIT_MS);
    } else if (rebuild->state == REBUILD_SURVEYING) {
        submit(rebuild, REBUILD_SURVEYING, run_survey);
    } else if (rebuild->state == REBUILD_VERIFYING) {
        timeline_verify_again(tl);
    } else {
        finish(rebuild);
        repair_begin(tl);
    }
}

/* ---- from outside ---- */

void rebuild_begin(struct timeline *tl)
{
    struct rebuild *rebuild = MEM_NEW(struct rebuild);
    ASSERT(tl->rebuild == NULL && tl->state == TIMELINE_FAILED);
    rebuild->tl = rebuild->peer.tl = timeline_ref(tl);
    rebuild->timer.on_fire = on_timer;
    rebuild->peer.on_ready = on_ready;
    rebuild->peer.on_frame = on_frame;
    rebuild->peer.on_gone = on_gone;
    tl->rebuild = rebuild;
    metric_add(&running, 1);
    wait_in(rebuild, REBUILD_SURVEYING, 1);
}

void rebuild_on_failed(struct timeline *tl, err_t err)
{
    MARK("rebuild.in_vain");
    ASSERT(tl->rebuild->state == REBUILD_VERIFYING);
    if (err == ERR_CORRUPT) {
        give_up_for_now(tl->rebuild, "what was copied does not verify");
    } else {
        finish(tl->rebuild);
    }
}

void rebuild_on_opened(struct timeline *tl)
{
    if (tl->rebuild != NULL) {
        tl->repair_text[0] = '\0';
        metric_add(&done, 1);
        log_warn(&tl->log, "its log was made anew from another member, back in service");
        finish(tl->rebuild);
    }
}

void rebuild_stop(struct timeline *tl)
{
    if (tl->rebuild != NULL) {
        finish(tl->rebuild);
    }
}
