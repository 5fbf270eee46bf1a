#include "safekeeper/timeline/forget.h"

#include "common/base/clock.h"
#include "common/base/mark.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "safekeeper/timeline/peer_link.h"
#include "safekeeper/timeline/timeline_private.h"

METRIC_COUNTER(askings, "safekeeper_retention_checks_total", "times that members were asked");
METRIC_COUNTER(removed_bytes, "safekeeper_wal_removed_bytes_total", "of segments nobody needs");

#define BACKOFF_MAX   5
#define BEGUN_AT_ONCE 64 /* the others have their turn the next time */

/* One member after the other; then it is judged. */
struct forget_asking {
    struct timeline *tl; /* referenced */
    bool is_over;        /* freed when the link is gone */
    struct peer_link peer;
    uint32_t next; /* index of the member that is asked next */
    struct retention_view view;
};

struct find_job {
    struct timeline *tl;
    struct wal_store_options options;
    lsn_t lsn; /* the horizon; then the record end before it */
    struct job job;
};

struct remove_job {
    struct timeline *tl;
    struct wal_store_options options;
    uint64_t removed;
    struct job job;
};

static uint64_t segment_of(const struct timeline *tl, lsn_t lsn)
{
    return lsn / tl->control.params.segment_size;
}

lsn_t timeline_first_lsn(const struct timeline *tl)
{
    const struct acceptor_state *state = &tl->control.acceptor;
    lsn_t segment_lsn = segment_of(tl, state->begin_lsn) * tl->control.params.segment_size;
    return MAX_OF(state->start_lsn, segment_lsn);
}

/* ---- judging ---- */

static struct retention_view view_of(const struct timeline *tl)
{
    struct timeline_feedback feedback = timeline_newest_feedback(tl);
    return (struct retention_view){
        .begin_lsn = tl->acceptor.state.begin_lsn,
        .commit_lsn = tl->acceptor.state.commit_lsn,
        .consumer =
            {
                .generation = feedback.generation,
                .durable_lsn = feedback.durable_lsn,
                .remote_lsn = feedback.remote_lsn,
            },
        .keep_min = tl->env->wal_keep_min,
        .keep_max = tl->env->wal_keep_max,
    };
}

struct retention_verdict timeline_retention(const struct timeline *tl)
{
    struct retention_view view = view_of(tl);
    struct retention_verdict verdict = retention_judge(&view);
    const struct retention_verdict *last = &tl->forgetting.verdict;
    bool is_held = last->holder == RETENTION_MEMBER && last->horizon_lsn >= view.begin_lsn &&
                   last->horizon_lsn < verdict.horizon_lsn;
    return is_held ? *last : verdict;
}

/* A whole segment would go, and one that holds the end of the log stays. */
static bool is_worth_it(const struct timeline *tl, lsn_t lsn)
{
    const struct acceptor *acceptor = &tl->acceptor;
    return segment_of(tl, lsn) > segment_of(tl, acceptor->state.begin_lsn) &&
           lsn <= acceptor->state.commit_lsn &&
           (lsn < acceptor->flush_lsn || lsn % tl->control.params.segment_size != 0);
}

/* What is not needed, up to the end of a record; its place is in the sidecar. */
static err_t run_find_end(struct job *job)
{
    struct find_job *finding = CONTAINER_OF(job, struct find_job, job);
    return wal_store_record_end(&finding->options, finding->lsn, &finding->lsn, &job->msg);
}

static void on_end_found(struct job *job)
{
    struct find_job *finding = CONTAINER_OF(job, struct find_job, job);
    struct timeline *tl = finding->tl;
    tl->forgetting.is_finding = false;
    if (job->result != ERR_OK) {
        log_warn(&tl->log, "old WAL stays for now: %s", job->msg.text);
    } else if (tl->state == TIMELINE_OPEN && is_worth_it(tl, finding->lsn)) {
        struct acceptor_event event = {.kind = ACCEPTOR_WAL_UNNEEDED, .unneeded_lsn = finding->lsn};
        log_info(
            &tl->log, "WAL before " LSN_FMT " is in the object store and goes",
            LSN_ARGS(finding->lsn));
        timeline_step(tl, &event);
    }
    mem_free(finding);
    timeline_job_ended(tl);
}

/* Everybody who answers has been asked. */
static void judge(struct timeline *tl, const struct retention_view *view)
{
    struct forgetting *forgetting = &tl->forgetting;
    forgetting->verdict = retention_judge(view);
    if (!is_worth_it(tl, forgetting->verdict.horizon_lsn)) {
        forgetting->backoff = (uint8_t)MIN_OF(forgetting->backoff + 1, BACKOFF_MAX);
        return;
    }
    struct find_job *finding = MEM_NEW(struct find_job);
    forgetting->backoff = 0;
    forgetting->is_finding = true;
    finding->tl = tl;
    finding->lsn = forgetting->verdict.horizon_lsn;
    finding->options = timeline_store_options(tl);
    finding->job.run = run_find_end;
    finding->job.done = on_end_found;
    timeline_job_begun(tl);
    executor_submit(tl->env->executor, &finding->job);
}

/* ---- asking ---- */

static void ask_next(struct forget_asking *asking);

static struct forget_asking *asking_of(struct peer_link *peer)
{
    return CONTAINER_OF(peer, struct forget_asking, peer);
}

static void release_if_over(struct forget_asking *asking)
{
    if (asking->is_over && !peer_link_is_open(&asking->peer)) {
        struct timeline *tl = asking->tl;
        mem_free(asking);
        timeline_unref(tl);
    }
}

static void finish(struct forget_asking *asking)
{
    asking->tl->forgetting.asking = NULL;
    asking->is_over = true;
    peer_link_abort(&asking->peer);
    release_if_over(asking);
}

static void on_ready(struct peer_link *peer)
{
    struct vote_request request = {
        .generation = peer->tl->acceptor.state.generation,
        .proposer_id = peer->tl->env->node_id,
    }; /* term 0: a question, no vote */
    if (!asking_of(peer)->is_over) {
        LINK_SEND(
            peer->user.link, vote_request, &request, .type = FRAME_VOTE_REQUEST,
            .channel = peer->channel, .request_id = ++peer->request_id);
    }
}

static err_t on_frame(struct peer_link *peer, const struct frame *frame, struct errmsg *msg)
{
    struct forget_asking *asking = asking_of(peer);
    struct reader in = reader_of(frame->payload);
    struct vote_reply reply;
    if (frame->type != FRAME_VOTE_REPLY || frame->request_id != peer->request_id) {
        return err_set(msg, ERR_INVALID, "%s was not asked for", frame_type_name(frame->type));
    }
    TRY(vote_reply_decode(&reply, &in));
    if (!asking->is_over) {
        struct retention_member *member = &asking->view.members[asking->view.member_count - 1];
        member->answered = true;
        member->record_lsn = reply.record_lsn;
    }
    return err_set(msg, ERR_CANCELED, "it has answered"); /* the next one, when it is gone */
}

static void on_gone(struct peer_link *peer)
{
    struct forget_asking *asking = asking_of(peer);
    if (asking->is_over) {
        release_if_over(asking);
    } else {
        ask_next(asking);
    }
}

static void ask_next(struct forget_asking *asking)
{
    struct timeline *tl = asking->tl;
    const struct membership *membership = &tl->control.membership;
    while (asking->next < membership->count) {
        uint32_t member = asking->next++;
        if (membership->members[member] == tl->env->node_id) {
            continue;
        }
        asking->view.members[asking->view.member_count++].id = membership->members[member];
        if (peer_link_connect(&asking->peer, member) == ERR_OK) {
            return;
        }
    }
    struct retention_view view = asking->view;
    finish(asking);
    judge(tl, &view);
}

bool forget_is_busy(const struct timeline *tl)
{
    const struct forgetting *forgetting = &tl->forgetting;
    if (forgetting->asking != NULL || forgetting->is_finding || forgetting->is_removing) {
        return true;
    }
    if (tl->state != TIMELINE_OPEN || tl->env->retention_ms == 0 || forgetting->backoff > 0) {
        return false; /* members may hold it for days */
    }
    struct retention_view view = view_of(tl);
    return is_worth_it(tl, retention_judge(&view).horizon_lsn);
}

lsn_t forget_from_lsn(const struct timeline *tl)
{
    uint32_t segment_size = tl->control.params.segment_size;
    return (segment_of(tl, tl->acceptor.state.begin_lsn) + 1) * segment_size;
}

/* True: members are being asked. */
static bool begin_if_due(struct timeline *tl, mono_ns_t now)
{
    struct forgetting *forgetting = &tl->forgetting;
    if (tl->state != TIMELINE_OPEN || tl->env->retention_ms == 0 || forgetting->asking != NULL ||
        forgetting->is_finding || now < forgetting->look_at) {
        return false;
    }
    forgetting->look_at =
        now + (tl->env->retention_ms << forgetting->backoff) * (mono_ns_t)NS_PER_MS;
    struct retention_view view = view_of(tl);
    forgetting->verdict = retention_judge(&view);
    if (!is_worth_it(tl, forgetting->verdict.horizon_lsn)) {
        return false;
    }
    struct forget_asking *asking = MEM_NEW(struct forget_asking);
    forgetting->asking = asking;
    asking->tl = asking->peer.tl = timeline_ref(tl);
    asking->view = view;
    asking->peer.on_ready = on_ready;
    asking->peer.on_frame = on_frame;
    asking->peer.on_gone = on_gone;
    metric_add(&askings, 1);
    ask_next(asking);
    return true;
}

struct forget_visit {
    struct timeline_visitor visitor;
    mono_ns_t now;
    unsigned begun;
};

static void visit(
    struct timeline_visitor *visitor,
    struct tenant_id tenant,
    struct timeline_id id,
    struct timeline *tl)
{
    struct forget_visit *visit = CONTAINER_OF(visitor, struct forget_visit, visitor);
    (void)tenant;
    (void)id;
    if (visit->begun < BEGUN_AT_ONCE) {
        visit->begun += begin_if_due(tl, visit->now);
    }
}

void forget_begin_due(struct timeline_set *set, mono_ns_t now)
{
    struct forget_visit looking = {.visitor = {.visit = visit}, .now = now};
    timeline_set_visit_awake(set, &looking.visitor);
}

void forget_stop(struct timeline *tl)
{
    if (tl->forgetting.asking != NULL) {
        finish(tl->forgetting.asking);
    }
}

/* ---- removing ---- */

static err_t run_remove(struct job *job)
{
    struct remove_job *removal = CONTAINER_OF(job, struct remove_job, job);
    return wal_store_remove(&removal->options, &removal->removed, &job->msg);
}

static void start_removal(struct timeline *tl);

/* A file that does not go is no danger: the begin is known, and the next start tries again. */
static void on_removed(struct job *job)
{
    struct remove_job *removal = CONTAINER_OF(job, struct remove_job, job);
    struct timeline *tl = removal->tl;
    struct forgetting *forgetting = &tl->forgetting;
    metric_add(&removed_bytes, (int64_t)(removal->removed * tl->control.params.segment_size));
    if (job->result != ERR_OK) {
        MARK("forget.remove_failed");
        log_warn(&tl->log, "old WAL stays for now: %s", job->msg.text);
    }
    forgetting->is_removing = false;
    forgetting->removed_lsn = removal->options.begin_lsn;
    mem_free(removal);
    if (forgetting->remove_lsn > forgetting->removed_lsn && tl->state == TIMELINE_OPEN) {
        start_removal(tl);
    }
    timeline_job_ended(tl);
}

static void start_removal(struct timeline *tl)
{
    struct remove_job *removal = MEM_NEW(struct remove_job);
    tl->forgetting.is_removing = true;
    removal->tl = tl;
    removal->options = timeline_store_options(tl);
    removal->options.begin_lsn = tl->forgetting.remove_lsn;
    removal->job.run = run_remove;
    removal->job.done = on_removed;
    timeline_job_begun(tl);
    executor_submit(tl->env->executor, &removal->job);
}

void forget_remove(struct timeline *tl, lsn_t lsn)
{
    feeds_on_begin(tl);
    tl->forgetting.remove_lsn = lsn;
    if (!tl->forgetting.is_removing) {
        start_removal(tl);
    }
}
