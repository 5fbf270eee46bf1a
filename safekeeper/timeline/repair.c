#include "safekeeper/timeline/repair.h"

#include <stdarg.h>
#include <stdio.h>

#include "common/base/mark.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "common/wire/hello_proto.h"
#include "safekeeper/disk/wal_repair.h"
#include "safekeeper/timeline/timeline_private.h"

METRIC_GAUGE(
    repairs_running, "safekeeper_wal_repairs_running", "timelines that are being repaired");
METRIC_COUNTER(repairs_done, "safekeeper_wal_repairs_total", "timelines that were repaired");

#define LINK_TIMEOUT_MS 5000 /* to connect, and without an answer */
#define JOBS_WAIT_MS    10

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

    uint32_t member; /* index of who is asked */
    uint32_t tries;  /* members asked for this damage */
    uint32_t channel;
    uint64_t request_id;
    struct link_user link_user; /* link NULL: not connected */
    struct errmsg trouble;      /* why the member that was asked last did not help */

    struct job job;
    bool is_job_running;
};

static void release_if_over(struct repair *repair)
{
    if (repair->is_over && repair->link_user.link == NULL && !repair->is_job_running) {
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
    if (repair->link_user.link != NULL) {
        link_abort(repair->link_user.link);
    }
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
    if (repair->tl->jobs > 0 || repair->link_user.link != NULL) {
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
        repair->link_user.link, read_wal, &request, .type = FRAME_READ_WAL,
        .channel = repair->channel, .request_id = ++repair->request_id);
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
        repair->trouble = job->msg;
        ask_next_member(repair);
    } else if (job->result != ERR_OK) { /* our disk: nobody else can help */
        say(repair, "%s", job->msg.text);
        wait_and_look(repair, tl->env->repair_retry_ms);
    } else if (++repair->next < tl->damage->count) {
        begin_damage(repair);
        if (repair->link_user.link != NULL) {
            repair->tries = 1;
            ask_for_wal(repair);
        } else {
            repair->tries = 0;
            ask_next_member(repair);
        }
    } else {
        wait_and_look(repair, 1); /* verified again, from the files; there may be more */
        if (repair->link_user.link != NULL) {
            link_abort(repair->link_user.link);
        }
    }
    timeline_job_ended(tl);
}

static void on_wal(struct repair *repair, const struct read_wal_reply *reply)
{
    lsn_t left = damage_of(repair)->end_lsn - repair->next_lsn;
    if (reply->begin_lsn != repair->next_lsn || reply->wal.size == 0 || reply->wal.size > left) {
        err_ignore(
            err_set(
                &repair->trouble, ERR_RANGE, "WAL up to " LSN_FMT " is not committed there",
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

static struct repair *repair_of(struct link_user *user)
{
    return CONTAINER_OF(user, struct repair, link_user);
}

static void on_link_open(struct link_user *user)
{
    const struct timeline *tl = repair_of(user)->tl;
    struct hello hello = {
        .protocol_min = PROTOCOL_VERSION_MIN,
        .protocol_max = PROTOCOL_VERSION_MAX,
        .role = HELLO_ROLE_PEER,
        .tenant = tl->tenant,
        .timeline = tl->id,
        .shard_count = 1,
        .system_id = tl->control.params.system_id,
        .node_id = tl->env->node_id,
        .token = bytes_of_str(tl->env->secret),
    };
    LINK_SEND(user->link, hello, &hello, .type = FRAME_HELLO);
}

static err_t take_frame(struct repair *repair, const struct frame *frame, struct errmsg *msg)
{
    struct reader in = reader_of(frame->payload);
    if (frame->type == FRAME_ERROR) {
        struct error_reply error;
        TRY(error_reply_decode(&error, &in));
        return err_set(
            msg, ERR_INVALID, "%.*s", (int)MIN_OF(error.message.size, (size_t)200),
            (const char *)error.message.data);
    }
    if (frame->type == FRAME_HELLO_REPLY && repair->channel == 0) {
        struct hello_reply reply;
        TRY(hello_reply_decode(&reply, &in));
        if (reply.node_id != repair->tl->control.membership.members[repair->member]) {
            return err_set(msg, ERR_INVALID, "it is node %" PRIu64, reply.node_id);
        }
        repair->channel = reply.channel;
        ask_for_wal(repair);
        return ERR_OK;
    }
    if (frame->type == FRAME_READ_WAL_REPLY && frame->request_id == repair->request_id &&
        repair->state == REPAIR_FETCHING) {
        struct read_wal_reply reply;
        TRY(read_wal_reply_decode(&reply, &in));
        on_wal(repair, &reply);
        return ERR_OK;
    }
    return err_set(msg, ERR_INVALID, "%s was not asked for", frame_type_name(frame->type));
}

static void on_link_frame(struct link_user *user, const struct frame *frame)
{
    struct repair *repair = repair_of(user);
    struct errmsg msg = {0};
    if (!repair->is_over && take_frame(repair, frame, &msg) != ERR_OK) {
        repair->trouble = msg;
        link_abort(user->link);
    }
}

static void on_link_closed(struct link_user *user, err_t reason, const struct errmsg *msg)
{
    struct repair *repair = repair_of(user);
    user->link = NULL;
    repair->channel = 0;
    if (repair->is_over) {
        release_if_over(repair);
    } else if (repair->state == REPAIR_FETCHING) {
        if (reason != ERR_OK && repair->trouble.text[0] == '\0') {
            repair->trouble = *msg;
        }
        ask_next_member(repair);
    }
}

static const struct link_callbacks link_callbacks = {
    .on_open = on_link_open,
    .on_frame = on_link_frame,
    .on_closed = on_link_closed,
};

static err_t connect_member(struct repair *repair)
{
    const struct timeline *tl = repair->tl;
    const struct member_address *address = &tl->control.addresses[repair->member];
    struct link_options options = {
        .connect_timeout_ms = LINK_TIMEOUT_MS,
        .idle_timeout_ms = LINK_TIMEOUT_MS,
    };
    repair->link_user.callbacks = &link_callbacks;
    repair->trouble.text[0] = '\0';
    say(repair, "reads " LSN_FMT ".." LSN_FMT " from safekeeper %" PRIu64,
        LSN_ARGS(damage_of(repair)->begin_lsn), LSN_ARGS(damage_of(repair)->end_lsn),
        tl->control.membership.members[repair->member]);
    return link_connect(
        tl->env->loop, address->host, address->port, &options, &repair->link_user,
        &repair->trouble);
}

/* Whoever was asked could not help. */
static void ask_next_member(struct repair *repair)
{
    const struct timeline *tl = repair->tl;
    const struct membership *membership = &tl->control.membership;
    if (repair->link_user.link != NULL) { /* comes back when it is gone */
        repair->state = REPAIR_FETCHING;
        link_abort(repair->link_user.link);
        return;
    }
    begin_damage(repair);
    while (repair->tries < membership->count) {
        repair->tries++;
        repair->member = (repair->member + 1) % membership->count;
        if (membership->members[repair->member] != tl->env->node_id &&
            connect_member(repair) == ERR_OK) {
            return;
        }
    }
    MARK("repair.nobody_helps");
    say(repair, "no member has " LSN_FMT ".." LSN_FMT "; the last one: %s",
        LSN_ARGS(damage_of(repair)->begin_lsn), LSN_ARGS(damage_of(repair)->end_lsn),
        repair->trouble.text);
    wait_and_look(repair, tl->env->repair_retry_ms);
}

/* ---- from outside ---- */

static void forget_damage(struct timeline *tl)
{
    mem_free(tl->damage);
    tl->damage = NULL;
}

static void begin(struct timeline *tl)
{
    struct repair *repair = MEM_NEW(struct repair);
    repair->tl = timeline_ref(tl);
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
    } else if (err == ERR_CORRUPT && repair == NULL && tl->control.membership.count > 1) {
        begin(tl);
    } else if (repair != NULL && (err != ERR_CORRUPT || tl->damage->count == 0)) {
        MARK("repair.impossible");
        say(repair, "the other members cannot help: this is no damage to the bytes of a group");
        finish(repair);
        forget_damage(tl);
    } else if (repair != NULL) {
        repair->next = 0;
        repair->tries = 0;
        ask_next_member(repair);
    }
}

void repair_on_opened(struct timeline *tl)
{
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
    if (tl->repair != NULL) {
        finish(tl->repair);
    }
}
