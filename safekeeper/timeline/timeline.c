#include "safekeeper/timeline/timeline_private.h"

#include <stdio.h>

#include "common/base/mark.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "common/io/file.h"
#include "safekeeper/consensus/change.h"
#include "safekeeper/disk/wal_rebuild.h"
#include "safekeeper/timeline/catch_up.h"
#include "safekeeper/timeline/repair.h"

METRIC_COUNTER(append_count, "safekeeper_appends_total", "append messages received");
METRIC_COUNTER(append_bytes, "safekeeper_append_bytes_total", "WAL bytes received");
METRIC_COUNTER(refusals, "safekeeper_refusals_total", "messages of proposers that were refused");
METRIC_COUNTER(failures, "safekeeper_storage_failures_total", "timelines put out of service");
METRIC_COUNTER(pauses, "safekeeper_pauses_total", "proposers not read from: WAL queue full");
METRIC_COUNTER(
    suspicions,
    "safekeeper_wal_suspicions_total",
    "starts that cut WAL which may have been acknowledged");
METRIC_GAUGE(awake, "safekeeper_timelines_awake", "timelines that are more than a row");

/* ---- life ---- */

struct timeline *timeline_ref(struct timeline *tl)
{
    tl->refs++;
    return tl;
}

void timeline_unref(struct timeline *tl)
{
    if (tl == NULL || --tl->refs > 0) {
        return;
    }
    ASSERT(tl->jobs == 0 && list_is_empty(&tl->peers) && list_is_empty(&tl->feeds));
    metric_add(&awake, -1);
    disk_deinit(tl);
    wal_tail_deinit(&tl->tail);
    mem_free(tl->damage);
    mem_free(tl);
}

void timeline_job_begun(struct timeline *tl)
{
    tl->jobs++;
    (void)timeline_ref(tl);
}

static void finish_close_if_quiet(struct timeline *tl)
{
    if (tl->state == TIMELINE_CLOSED && tl->jobs == 0 && tl->closing != NULL) {
        struct timeline_closing *closing = tl->closing;
        tl->closing = NULL;
        wal_store_close(tl->disk.store);
        tl->disk.store = NULL;
        closing->on_closed(closing);
    }
}

void timeline_job_ended(struct timeline *tl)
{
    ASSERT(tl->jobs > 0);
    tl->jobs--;
    finish_close_if_quiet(tl);
    timeline_unref(tl);
}

static void wake_waiters(struct timeline *tl)
{
    for (struct list_link *link = list_pop_front(&tl->waiters); link != NULL;
         link = list_pop_front(&tl->waiters)) {
        struct timeline_waiter *waiter = CONTAINER_OF(link, struct timeline_waiter, link);
        waiter->on_ready(waiter);
    }
}

void timeline_wait_ready(struct timeline *tl, struct timeline_waiter *waiter)
{
    ASSERT(tl->state == TIMELINE_OPENING);
    list_push_back(&tl->waiters, &waiter->link);
}

/* ---- open ---- */

struct wal_store_options timeline_store_options(const struct timeline *tl)
{
    return (struct wal_store_options){
        .dir = tl->wal_dir,
        .tenant = tl->tenant,
        .timeline = tl->id,
        .start_lsn = tl->control.acceptor.start_lsn,
        .system_id = tl->control.params.system_id,
        .segment_size = tl->control.params.segment_size,
        .begin_lsn = tl->control.acceptor.begin_lsn,
        .certified_lsn = tl->control.acceptor.commit_lsn,
        .recycled_max = tl->env->recycled_max,
    };
}

/* Complete under another name first: a folder with the right name has a valid control file. */
static err_t create_folder(struct timeline *tl, struct errmsg *msg)
{
    char temp[PATH_SIZE], tenant_dir[PATH_SIZE];
    TRY(str_format(temp, sizeof(temp), msg, "%s.new", tl->dir));
    TRY(str_format(
        tenant_dir, sizeof(tenant_dir), msg, "%s/%s", tl->env->data_dir,
        tenant_id_text(tl->tenant).text));
    TRY(dir_create(tenant_dir, msg));
    TRY(file_sync_dir(tl->env->data_dir, msg));
    TRY(dir_remove(temp, msg));
    TRY(dir_create(temp, msg));
    TRY(control_file_create(&tl->control_file, temp, &tl->control, msg));
    TRY(file_rename_durably(temp, tl->dir, msg));
    return str_copy(tl->control_file.dir, sizeof(tl->control_file.dir), tl->dir, msg);
}

static err_t check_params(const struct control_state *control, struct errmsg *msg)
{
    uint32_t size = control->params.segment_size;
    if (size < MIB || size > GIB || (size & (size - 1)) != 0) {
        return err_set(msg, ERR_INVALID, "segment_size %u is not a power of two of MiB", size);
    }
    if (control->acceptor.start_lsn == LSN_NONE || control->acceptor.start_lsn % 8 != 0) {
        return err_set(
            msg, ERR_INVALID, "start_lsn " LSN_FMT " is not the end of a record",
            LSN_ARGS(control->acceptor.start_lsn));
    }
    return membership_check(&control->membership, msg);
}

/*
 * What is cut may have been acknowledged. That must be remembered before it is cut, or the next
 * start would find a clean, shorter log and vote as if there had never been more.
 */
static err_t on_suspect(
    struct wal_witness *witness, lsn_t record_lsn, lsn_t end_lsn, struct errmsg *msg)
{
    struct timeline *tl = CONTAINER_OF(witness, struct timeline, witness);
    metric_add(&suspicions, 1);
    log_warn(
        &tl->log, "the log ends at " LSN_FMT ", up to " LSN_FMT " may have been acknowledged",
        LSN_ARGS(record_lsn), LSN_ARGS(end_lsn));
    acceptor_state_suspect(&tl->control.acceptor, record_lsn, end_lsn);
    return control_file_save(&tl->control_file, &tl->control, /* is_promise */ true, msg);
}

static err_t run_open(struct job *job)
{
    struct timeline *tl = CONTAINER_OF(job, struct timeline, open_job);
    struct errmsg *msg = &job->msg;
    if (tl->is_created) {
        TRY(check_params(&tl->control, msg));
        TRY(create_folder(tl, msg));
    } else {
        TRY(control_file_load(&tl->control_file, tl->dir, tl->tenant, tl->id, &tl->control, msg));
        TRY(check_params(&tl->control, msg));
        if (tl->control_file.is_slot_bad) { /* before the other one follows */
            log_warn(&tl->log, "one slot of the control file was damaged and is written anew");
            TRY(control_file_save(&tl->control_file, &tl->control, /* is_promise */ false, msg));
        }
    }
    struct wal_store_options options = timeline_store_options(tl);
    options.witness = &tl->witness;
    options.damage = tl->damage;
    options.is_tail_given_up = tl->damage != NULL && tl->is_tail_given_up;
    options.is_emptied = tl->control.acceptor.is_begun_anew;
    TRY(wal_store_open(&options, &tl->disk.store, msg));
    TRY(wal_rebuild_clean(tl->wal_dir, msg));
    if (tl->control.acceptor.is_begun_anew) { /* it is empty by now: from here on the files count */
        MARK("timeline.open.begun_anew");
        tl->control.acceptor.is_begun_anew = false;
        return control_file_save(&tl->control_file, &tl->control, /* is_promise */ true, msg);
    }
    return ERR_OK;
}

err_t timeline_start_acceptor(struct timeline *tl, struct errmsg *msg)
{
    struct acceptor_state *durable = &tl->control.acceptor;
    durable->commit_lsn = MAX_OF(durable->commit_lsn, wal_store_commit_lsn(tl->disk.store));
    TRY(acceptor_init(
        &tl->acceptor, durable, wal_store_flush_lsn(tl->disk.store),
        wal_store_record_lsn(tl->disk.store), msg));
    tl->has_acceptor = true;
    tl->promised_hash = disk_promise_hash(durable);
    return ERR_OK;
}

static void finish_open(struct timeline *tl, err_t err, struct errmsg *msg)
{
    if (err == ERR_OK) {
        err = timeline_start_acceptor(tl, msg);
    }
    tl->state = TIMELINE_OPEN;
    if (err != ERR_OK) {
        timeline_fail(tl, err, msg);
        return;
    }
    timeline_update_storage_text(tl);
    repair_on_opened(tl);
    catch_up_soon(tl);
    watches_on_commit(tl);
    log_info(
        &tl->log, "%s at " LSN_FMT ", term %" PRIu64, tl->is_created ? "created" : "opened",
        LSN_ARGS(tl->acceptor.flush_lsn), tl->acceptor.state.term);
}

static void on_open_done(struct job *job);

void timeline_open_again(struct timeline *tl)
{
    tl->open_job.run = run_open;
    tl->open_job.done = on_open_done;
    timeline_job_begun(tl);
    executor_submit(tl->env->executor, &tl->open_job);
}

void timeline_verify_again(struct timeline *tl)
{
    ASSERT(tl->state == TIMELINE_FAILED && tl->jobs == 0);
    ASSERT(list_is_empty(&tl->peers) && list_is_empty(&tl->feeds));
    disk_reset(tl);
    tl->state = TIMELINE_OPENING;
    tl->failure = ERR_OK;
    tl->is_created = false;
    timeline_update_storage_text(tl);
    timeline_open_again(tl);
}

/* A want of space or of file descriptors ends by itself; a creation is answered with it instead. */
static void on_open_done(struct job *job)
{
    struct timeline *tl = CONTAINER_OF(job, struct timeline, open_job);
    bool is_passing = (job->result == ERR_FULL || job->result == ERR_BUSY) && !tl->is_created;
    if (tl->state == TIMELINE_OPENING && is_passing) {
        MARK("timeline.open.again");
        log_warn(&tl->log, "cannot be opened yet: %s", job->msg.text);
        timer_start(tl->env->loop, &tl->disk.retry, tl->env->retry_ms);
    } else {
        if (tl->state == TIMELINE_OPENING) {
            finish_open(tl, job->result, &job->msg);
        }
        wake_waiters(tl);
    }
    timeline_job_ended(tl);
}

static void on_close_posted(struct loop_task *task)
{
    struct timeline *tl = CONTAINER_OF(task, struct timeline, close_task);
    wake_waiters(tl);
    timeline_job_ended(tl);
}

static void on_report_posted(struct loop_task *task)
{
    struct timeline *tl = CONTAINER_OF(task, struct timeline, report_task);
    struct change_report report;
    tl->is_report_posted = false;
    while (!list_is_empty(&tl->report_waiters) &&
           (tl->state != TIMELINE_OPEN || timeline_report(tl, &report))) {
        struct list_link *link = list_pop_front(&tl->report_waiters);
        struct timeline_report_waiter *waiter =
            CONTAINER_OF(link, struct timeline_report_waiter, link);
        waiter->on_report(waiter);
    }
    timeline_job_ended(tl);
}

/* Somebody waits for a report, and something has happened: look at the end of the turn. */
static void look_for_report(struct timeline *tl)
{
    if (!list_is_empty(&tl->report_waiters) && !tl->is_report_posted) {
        tl->is_report_posted = true;
        timeline_job_begun(tl);
        loop_post(tl->env->loop, &tl->report_task);
    }
}

struct timeline *timeline_create(const struct timeline_env *env, struct timeline_row *row)
{
    struct tenant_id tenant = row->tenant;
    struct timeline_id id = row->id;
    struct timeline *tl = MEM_NEW(struct timeline);
    tl->env = env;
    tl->row = row;
    tl->refs = 1;
    tl->tenant = tenant;
    tl->id = id;
    tl->close_task.run = on_close_posted;
    tl->report_task.run = on_report_posted;
    tl->witness.on_suspect = on_suspect;
    log_name(
        &tl->log, "timeline %.8s of %.8s", timeline_id_text(id).text, tenant_id_text(tenant).text);
    (void)snprintf(
        tl->dir, sizeof(tl->dir), "%.900s/%s/%s", env->data_dir, tenant_id_text(tenant).text,
        timeline_id_text(id).text);
    (void)snprintf(tl->wal_dir, sizeof(tl->wal_dir), "%.1000s/wal", tl->dir);
    list_init(&tl->peers);
    list_init(&tl->feeds);
    list_init(&tl->waiters);
    list_init(&tl->report_waiters);
    disk_init(tl);
    timeline_update_storage_text(tl);
    metric_add(&awake, 1);
    return tl;
}

struct timeline *timeline_start(
    const struct timeline_env *env, struct timeline_row *row, const struct control_state *create)
{
    struct timeline *tl = timeline_create(env, row);
    if (create != NULL) {
        tl->control = *create;
        tl->is_created = true;
    }
    timeline_open_again(tl);
    return tl;
}

/* ---- failure and end ---- */

void timeline_update_storage_text(struct timeline *tl)
{
    const char *text = tl->state == TIMELINE_OPENING  ? "opening"
                       : tl->state == TIMELINE_CLOSED ? "closed"
                                                      : "ok";
    if (tl->state != TIMELINE_FAILED && !disk_is_full(tl)) {
        (void)snprintf(tl->storage_text, sizeof(tl->storage_text), "%s", text);
    }
}

static void refuse_peer(struct timeline_peer *peer, err_t err, const struct errmsg *msg)
{
    metric_add(&refusals, 1);
    link_send_error(peer->link, peer->channel, peer->request_id, err, msg);
    peer->on_refused(peer);
}

static void refuse_all(struct timeline *tl, err_t err, const struct errmsg *msg)
{
    LIST_FOR_EACH(&tl->peers, link)
    {
        refuse_peer(CONTAINER_OF(link, struct timeline_peer, in_timeline), err, msg);
    }
    feeds_break(tl, err, msg);
}

void timeline_fail(struct timeline *tl, err_t err, const struct errmsg *msg)
{
    if (tl->state == TIMELINE_FAILED || tl->state == TIMELINE_CLOSED) {
        return;
    }
    struct errmsg reason = *msg;
    metric_add(&failures, 1);
    log_error(&tl->log, "storage is out of service (%s): %s", err_name(err), reason.text);
    tl->state = TIMELINE_FAILED;
    tl->failure = err;
    disk_stop(tl);
    (void)snprintf(tl->storage_text, sizeof(tl->storage_text), "failed: %s", reason.text);
    if (tl->has_acceptor) {
        struct acceptor_actions actions;
        struct acceptor_event event = {.kind = ACCEPTOR_STORAGE_FAILED};
        acceptor_step(&tl->acceptor, &event, &actions);
    }
    look_for_report(tl);
    refuse_all(tl, ERR_FAILED, &reason);
    catch_up_stop(tl);
    forget_stop(tl);
    repair_on_failed(tl, err);
}

void timeline_close(struct timeline *tl, struct timeline_closing *closing)
{
    ASSERT(tl->closing == NULL);
    bool was_open = tl->state == TIMELINE_OPEN;
    struct errmsg msg;
    err_t err = err_set(&msg, ERR_CANCELED, "the timeline is being closed");
    if (was_open) {
        disk_rest(tl);
    }
    tl->state = TIMELINE_CLOSED;
    tl->closing = closing;
    catch_up_stop(tl);
    forget_stop(tl);
    repair_stop(tl);
    timer_stop(&tl->disk.retry);
    timer_stop(&tl->disk.certify);
    timer_stop(&tl->disk.idle);
    look_for_report(tl);
    refuse_all(tl, err, &msg);
    (void)snprintf(tl->storage_text, sizeof(tl->storage_text), "closed");
    /* on_closed never comes from inside */
    timeline_job_begun(tl);
    loop_post(tl->env->loop, &tl->close_task);
}

/* ---- looking at it ---- */

enum timeline_state timeline_state(const struct timeline *tl)
{
    return tl->state;
}

err_t timeline_failure(const struct timeline *tl)
{
    return tl->failure;
}

struct tenant_id timeline_tenant(const struct timeline *tl)
{
    return tl->tenant;
}

struct timeline_id timeline_id(const struct timeline *tl)
{
    return tl->id;
}

const char *timeline_storage_text(const struct timeline *tl)
{
    return tl->storage_text;
}

const char *timeline_repair_text(const struct timeline *tl)
{
    return tl->repair_text;
}

const struct control_state *timeline_control(const struct timeline *tl)
{
    return &tl->control;
}

const struct acceptor *timeline_acceptor(const struct timeline *tl)
{
    return tl->has_acceptor ? &tl->acceptor : NULL;
}

const char *timeline_dir(const struct timeline *tl)
{
    return tl->dir;
}

void timeline_set_addresses(struct timeline *tl, const struct member_address *addresses)
{
    memcpy(tl->control.addresses, addresses, sizeof(tl->control.addresses));
    if (tl->state == TIMELINE_OPEN) {
        disk_persist_addresses(tl);
    }
}

/* ---- membership ---- */

void timeline_send_membership(const struct timeline *tl, struct link *link, uint32_t channel)
{
    const struct control_state *control = &tl->control;
    struct membership_notice notice = {
        .generation = control->membership.generation,
        .members = {.count = control->membership.count},
    };
    for (uint32_t i = 0; i < control->membership.count; i++) {
        struct member_entry *entry = &notice.members.items[i];
        entry->id = control->membership.members[i];
        entry->is_old = (control->membership.old_set & 1u << i) != 0;
        entry->is_new = (control->membership.new_set & 1u << i) != 0;
        entry->port = control->addresses[i].port;
        memcpy(entry->host, control->addresses[i].host, sizeof(entry->host));
    }
    LINK_SEND(link, membership_notice, &notice, .type = FRAME_MEMBERSHIP, .channel = channel);
}

bool timeline_report(const struct timeline *tl, struct change_report *ret_report)
{
    return tl->state == TIMELINE_OPEN && acceptor_report(&tl->acceptor, ret_report);
}

void timeline_wait_report(struct timeline *tl, struct timeline_report_waiter *waiter)
{
    list_push_back(&tl->report_waiters, &waiter->link);
    look_for_report(tl);
}

/* Whoever is connected said the old generation in its hello. */
static void refuse_older(struct timeline *tl, generation_t old)
{
    struct errmsg msg;
    err_t err = err_set(
        &msg, ERR_STALE, "membership generation %u, this safekeeper has %u", old,
        tl->control.membership.generation);
    LIST_FOR_EACH(&tl->peers, link)
    {
        struct timeline_peer *peer = CONTAINER_OF(link, struct timeline_peer, in_timeline);
        timeline_send_membership(tl, peer->link, peer->channel);
        refuse_peer(peer, err, &msg);
    }
}

err_t timeline_set_membership(
    struct timeline *tl,
    const struct membership *membership,
    const struct member_address *addresses,
    term_t term,
    struct errmsg *msg)
{
    const struct membership old = tl->control.membership;
    ASSERT(tl->state == TIMELINE_OPEN);
    if (membership->generation < old.generation) {
        return err_set(
            msg, ERR_STALE, "membership generation %u, this safekeeper has %u",
            membership->generation, old.generation);
    }
    bool is_newer = membership->generation > old.generation;
    if (!is_newer && !membership_equal(membership, &old)) {
        return err_set(
            msg, ERR_EXISTS, "generation %u has other members here", membership->generation);
    }
    bool has_moved = memcmp(tl->control.addresses, addresses, sizeof(tl->control.addresses)) != 0;
    tl->control.membership = *membership;
    memcpy(tl->control.addresses, addresses, sizeof(tl->control.addresses));
    struct acceptor_event event = {
        .kind = ACCEPTOR_MEMBERSHIP_CHANGED,
        .membership = {.generation = membership->generation, .term = term},
    };
    timeline_step(tl, &event);
    if (is_newer && tl->state == TIMELINE_OPEN) {
        log_info(
            &tl->log, "membership generation %u: %u members%s", membership->generation,
            membership->count, membership_is_joint(membership) ? ", joint" : "");
        refuse_older(tl, old.generation);
        catch_up_stop(tl);
        catch_up_soon(tl); /* the others are others now, and hear us */
    } else if (has_moved && tl->state == TIMELINE_OPEN) {
        disk_persist_addresses(tl);
    }
    return ERR_OK;
}

/* ---- consensus ---- */

void timeline_attach_peer(struct timeline *tl, struct timeline_peer *peer)
{
    ASSERT(tl->state == TIMELINE_OPEN);
    list_push_back(&tl->peers, &peer->in_timeline);
}

void timeline_detach_peer(struct timeline *tl, struct timeline_peer *peer)
{
    list_remove(&peer->in_timeline);
    if (list_is_empty(&tl->peers)) {
        catch_up_soon(tl);
    }
}

/* NULL: its connection is gone, and what is sent to it is dropped. */
static struct timeline_peer *find_peer(struct timeline *tl, struct acceptor_peer id)
{
    LIST_FOR_EACH(&tl->peers, link)
    {
        struct timeline_peer *peer = CONTAINER_OF(link, struct timeline_peer, in_timeline);
        if (peer->id.connection == id.connection) {
            return peer;
        }
    }
    return NULL;
}

static void send_vote(struct timeline *tl, const struct acceptor_action *action)
{
    struct timeline_peer *peer = find_peer(tl, action->to);
    if (peer != NULL) {
        LINK_SEND(
            peer->link, vote_reply, action->vote, .type = FRAME_VOTE_REPLY,
            .channel = peer->channel, .request_id = peer->request_id);
    }
}

static void send_appended(struct timeline *tl, const struct acceptor_action *action)
{
    struct timeline_peer *peer = find_peer(tl, action->to);
    if (peer != NULL) {
        struct append_reply reply = action->appended;
        struct timeline_feedback feedback = timeline_newest_feedback(tl);
        reply.received_lsn = feedback.received_lsn;
        reply.durable_lsn = feedback.durable_lsn;
        reply.remote_lsn = feedback.remote_lsn;
        LINK_SEND(
            peer->link, append_reply, &reply, .type = FRAME_APPEND_REPLY, .channel = peer->channel,
            .request_id = peer->request_id);
    }
}

static void send_refusal(struct timeline *tl, const struct acceptor_action *action)
{
    struct timeline_peer *peer = find_peer(tl, action->to);
    if (peer != NULL) {
        struct errmsg msg;
        err_t err = err_set(&msg, action->refuse.err, "%s", action->refuse.why);
        if (action->refuse.generation != 0) {
            err = err_wrap(
                &msg, err, "generation %u, this safekeeper has %u", action->refuse.generation,
                tl->acceptor.state.generation);
            timeline_send_membership(tl, peer->link, peer->channel);
        }
        log_info(&tl->log, "refused proposer at %s: %s", link_peer(peer->link), msg.text);
        refuse_peer(peer, err, &msg);
    }
}

static void act(
    struct timeline *tl, const struct acceptor_action *action, const struct acceptor_event *event)
{
    switch (action->kind) {
    case ACCEPTOR_PERSIST_STATE: disk_persist(tl, action->state); break;
    case ACCEPTOR_TRUNCATE_WAL:
        disk_truncate(tl, action->truncate.lsn, action->truncate.epoch);
        break;
    case ACCEPTOR_EMPTY_WAL:
        log_warn(
            &tl->log, "the log ended before what the others keep: it begins anew at " LSN_FMT,
            LSN_ARGS(action->truncate.lsn));
        disk_empty(tl, action->truncate.lsn, action->truncate.epoch);
        feeds_on_begin(tl);
        break;
    case ACCEPTOR_REMOVE_WAL: forget_remove(tl, action->remove_lsn); break;
    case ACCEPTOR_WRITE_WAL:
        ASSERT(event->kind == ACCEPTOR_APPEND_REQUESTED || event->kind == ACCEPTOR_PEER_WAL);
        disk_write(
            tl, action->write.begin_lsn, action->write.wal,
            event->kind == ACCEPTOR_APPEND_REQUESTED ? event->append->record_lsn
                                                     : tl->acceptor.received_record_lsn,
            action->write.epoch);
        break;
    case ACCEPTOR_SEND_VOTE: send_vote(tl, action); break;
    case ACCEPTOR_SEND_APPENDED: send_appended(tl, action); break;
    case ACCEPTOR_REFUSE: send_refusal(tl, action); break;
    case ACCEPTOR_RELEASE_COMMITTED:
        disk_touch(tl);
        feeds_on_commit(tl);
        break;
    }
}

void timeline_step(struct timeline *tl, const struct acceptor_event *event)
{
    if (tl->state != TIMELINE_OPEN) {
        return;
    }
    struct acceptor_actions actions;
    acceptor_step(&tl->acceptor, event, &actions);
    for (size_t i = 0; i < actions.count; i++) {
        act(tl, &actions.items[i], event);
    }
    look_for_report(tl);
}

/* Back-pressure: the proposer that fills the queue is not read from until half of it is gone. */
void timeline_update_pauses(struct timeline *tl)
{
    size_t pending = tl->disk.pending_bytes;
    LIST_FOR_EACH(&tl->peers, link)
    {
        struct timeline_peer *peer = CONTAINER_OF(link, struct timeline_peer, in_timeline);
        bool is_paused = peer->is_paused ? pending > tl->env->pending_bytes_max / 2
                                         : pending > tl->env->pending_bytes_max;
        if (is_paused != peer->is_paused) {
            peer->is_paused = is_paused;
            metric_add(&pauses, is_paused ? 1 : 0);
            peer->on_pause(peer, is_paused);
        }
    }
}

static void on_message(
    struct timeline *tl,
    struct timeline_peer *peer,
    uint64_t request_id,
    struct acceptor_event event)
{
    event.from = peer->id;
    peer->request_id = request_id;
    timeline_step(tl, &event);
}

void timeline_vote_request(
    struct timeline *tl,
    struct timeline_peer *peer,
    uint64_t request_id,
    const struct vote_request *vote)
{
    on_message(
        tl, peer, request_id,
        (struct acceptor_event){.kind = ACCEPTOR_VOTE_REQUESTED, .vote = vote});
}

void timeline_elected(
    struct timeline *tl,
    struct timeline_peer *peer,
    uint64_t request_id,
    const struct elected *elected,
    bool begins_anew)
{
    on_message(
        tl, peer, request_id,
        (struct acceptor_event){
            .kind = ACCEPTOR_ELECTED, .elected = elected, .begins_anew = begins_anew});
}

void timeline_append(
    struct timeline *tl,
    struct timeline_peer *peer,
    uint64_t request_id,
    const struct append *append)
{
    metric_add(&append_count, 1);
    metric_add(&append_bytes, (int64_t)append->wal.size);
    on_message(
        tl, peer, request_id,
        (struct acceptor_event){.kind = ACCEPTOR_APPEND_REQUESTED, .append = append});
    if (tl->disk.pending_bytes > tl->env->pending_bytes_max) {
        timeline_update_pauses(tl);
    }
}
