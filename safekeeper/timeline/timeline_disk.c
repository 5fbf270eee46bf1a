/*
 * timeline_disk.c - what the acceptor wants on disk, done on workers.
 *
 * WAL: one operation at a time (a group, a truncation, a rest), so that the store's rule "one group
 * in flight" holds by construction; what arrives meanwhile gathers in blocks, each of which becomes
 * one group. All appends of one loop turn are one block, hence one write and one sync.
 * A small group on blocks that exist is copied to the files on the loop and synced by the kernel
 * (common/io/sync_queue.h), without a change of thread; all others are written by two workers.
 * State: the newest wanted control file, beside the WAL and independent of it.
 */
#include "safekeeper/timeline/timeline_private.h"

#include <stdio.h>

#include "common/base/checksum.h"
#include "common/base/clock.h"
#include "common/base/mark.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "safekeeper/disk/sync_choice.h"

METRIC_HISTOGRAM(
    group_seconds, "safekeeper_wal_group_seconds", "write and sync of one commit group");
METRIC_HISTOGRAM(
    commit_seconds,
    "safekeeper_wal_commit_seconds",
    "from the arrival of the first byte of a group until it is durable");
METRIC_HISTOGRAM(control_seconds, "safekeeper_control_file_seconds", "write of a control file");
METRIC_COUNTER(full_waits, "safekeeper_disk_full_waits_total", "operations put off: no space");

#define SPARE_MAX (1 * MIB)

static struct sync_choice sync_choice; /* of all timelines; loop only */

static void advance_wal(struct timeline *tl);
static void advance_control(struct timeline *tl);

static struct timeline *of_kick(struct loop_task *task)
{
    return CONTAINER_OF(task, struct timeline, disk.kick);
}

static void on_kick(struct loop_task *task)
{
    struct timeline *tl = of_kick(task);
    tl->disk.is_kick_posted = false;
    advance_wal(tl);
    timeline_job_ended(tl);
}

/* ---- waiting for space ---- */

static void wait_for_space(struct timeline *tl, const char *what, const struct errmsg *msg)
{
    MARK("timeline.disk.full");
    metric_add(&full_waits, 1);
    if (!timer_is_started(&tl->disk.retry)) {
        timer_start(tl->env->loop, &tl->disk.retry, tl->env->retry_ms);
    }
    if (strncmp(tl->storage_text, "full", 4) != 0) {
        log_warn(&tl->log, "%s waits for space: %s", what, msg->text);
    }
    (void)snprintf(tl->storage_text, sizeof(tl->storage_text), "full: %s", msg->text);
}

static void start_group_halves(struct timeline *tl);

static void on_retry(struct timer *timer)
{
    struct timeline *tl = CONTAINER_OF(timer, struct timeline, disk.retry);
    struct timeline_disk *disk = &tl->disk;
    if (tl->state == TIMELINE_OPENING) {
        timeline_open_again(tl);
        return;
    }
    if (disk->is_control_waiting_for_space) {
        disk->is_control_waiting_for_space = false;
        advance_control(tl);
    }
    if (disk->is_waiting_for_space && disk->op == DISK_GROUP) {
        disk->is_waiting_for_space = false;
        start_group_halves(tl);
    } else if (disk->is_waiting_for_space) {
        disk->is_waiting_for_space = false;
        disk->op = DISK_IDLE;
        advance_wal(tl);
    }
}

bool disk_is_full(const struct timeline *tl)
{
    return tl->disk.is_waiting_for_space || tl->disk.is_control_waiting_for_space;
}

/* Returns true when the operation is over for now: failed, or waiting for space. */
static bool went_wrong(
    struct timeline *tl, err_t result, const char *what, const struct errmsg *msg, bool *is_waiting)
{
    if (tl->state == TIMELINE_FAILED) {
        return true;
    }
    if (result == ERR_FULL || result == ERR_BUSY) { /* no space, no file descriptor */
        *is_waiting = true;
        wait_for_space(tl, what, msg);
        return true;
    }
    if (result != ERR_OK) {
        timeline_fail(tl, result, msg);
        return true;
    }
    timeline_update_storage_text(tl);
    return false;
}

/* ---- groups ---- */

static struct wal_block *take_block(struct timeline *tl)
{
    struct wal_block *block = tl->disk.spare;
    tl->disk.spare = NULL;
    return block != NULL ? block : MEM_NEW(struct wal_block);
}

static void give_block(struct timeline *tl, struct wal_block *block)
{
    if (tl->disk.spare == NULL && block->wal.capacity <= SPARE_MAX) {
        buf_clear(&block->wal);
        tl->disk.spare = block;
        return;
    }
    buf_deinit(&block->wal);
    mem_free(block);
}

static void drop_blocks(struct timeline *tl)
{
    struct timeline_disk *disk = &tl->disk;
    for (struct list_link *link = list_pop_front(&disk->blocks); link != NULL;
         link = list_pop_front(&disk->blocks)) {
        struct wal_block *block = CONTAINER_OF(link, struct wal_block, link);
        disk->pending_bytes -= block->wal.size;
        give_block(tl, block);
    }
}

static struct wal_block *block_for(struct timeline *tl, lsn_t lsn, uint64_t epoch)
{
    struct timeline_disk *disk = &tl->disk;
    if (!list_is_empty(&disk->blocks)) {
        struct wal_block *last = CONTAINER_OF(disk->blocks.head.prev, struct wal_block, link);
        ASSERT(last->begin_lsn + last->wal.size == lsn && last->epoch == epoch);
        if (lsn < last->limit_lsn) {
            return last;
        }
    }
    uint32_t segment_size = tl->control.params.segment_size;
    struct wal_block *block = take_block(tl);
    lsn_t segment_end = lsn - lsn % segment_size + segment_size;
    block->begin_lsn = lsn;
    block->limit_lsn = MIN_OF(segment_end, lsn + WAL_GROUP_MAX);
    block->record_lsn = LSN_NONE;
    block->epoch = epoch;
    block->arrived = clock_mono();
    list_push_back(&disk->blocks, &block->link);
    return block;
}

void disk_write(
    struct timeline *tl, lsn_t begin_lsn, struct bytes wal, lsn_t record_lsn, uint64_t epoch)
{
    struct timeline_disk *disk = &tl->disk;
    while (wal.size > 0) {
        struct wal_block *block = block_for(tl, begin_lsn, epoch);
        size_t size = MIN_OF(wal.size, (size_t)(block->limit_lsn - begin_lsn));
        buf_append(&block->wal, wal.data, size);
        begin_lsn += size;
        wal = bytes_of(wal.data + size, wal.size - size);
        disk->pending_bytes += size;
        if (record_lsn <= begin_lsn) {
            block->record_lsn = MAX_OF(block->record_lsn, record_lsn);
        }
    }
    if (disk->op == DISK_IDLE && !disk->is_kick_posted) {
        disk->is_kick_posted = true;
        timeline_job_begun(tl);
        loop_post(tl->env->loop, &disk->kick);
    }
}

static err_t run_segment(struct job *job)
{
    struct timeline *tl = CONTAINER_OF(job, struct timeline, disk.segment_job);
    return wal_store_write_segment(tl->disk.store, &tl->disk.group, &job->msg);
}

static err_t run_sidecar(struct job *job)
{
    struct timeline *tl = CONTAINER_OF(job, struct timeline, disk.sidecar_job);
    return wal_store_write_sidecar(tl->disk.store, &tl->disk.group, &job->msg);
}

/* While one group follows the other, each proves the one before it; the last one needs a record. */
static void want_certification(struct timeline *tl)
{
    uint64_t delay_ms = tl->env->certify_ms;
    if (delay_ms > 0 && tl->state == TIMELINE_OPEN && !timer_is_started(&tl->disk.certify)) {
        timer_start(tl->env->loop, &tl->disk.certify, delay_ms);
    }
}

static void on_certify(struct timer *timer)
{
    struct timeline *tl = CONTAINER_OF(timer, struct timeline, disk.certify);
    uint64_t quiet_ms = (clock_mono() - tl->disk.used_at) / NS_PER_MS;
    if (tl->state != TIMELINE_OPEN || wal_store_is_proven(tl->disk.store)) {
        return;
    }
    if (quiet_ms < tl->env->certify_ms || !disk_is_settled(tl)) {
        want_certification(tl);
        return;
    }
    tl->disk.is_certify_wanted = true;
    advance_wal(tl);
}

/* Everything up to the end of the group is durable. */
static void finish_group(struct timeline *tl)
{
    struct timeline_disk *disk = &tl->disk;
    struct wal_block *block = disk->writing;
    mono_ns_t now = clock_mono();
    metric_observe_ns(&group_seconds, now - disk->group_begun);
    if (disk->is_small) {
        sync_choice_note(&sync_choice, disk->is_by_kernel, now - disk->group_begun);
    }
    metric_observe_ns(&commit_seconds, now - block->arrived);
    wal_store_group_end(disk->store, &disk->group);
    wal_tail_append(&tl->tail, block->begin_lsn, buf_view(&block->wal));
    disk->used_at = now;
    disk->op = DISK_IDLE;
    disk->writing = NULL;
    disk->pending_bytes -= block->wal.size;
    want_certification(tl);
    struct acceptor_event event = {
        .kind = ACCEPTOR_WAL_FLUSHED,
        .wal = {.lsn = wal_store_flush_lsn(disk->store), .epoch = block->epoch},
    };
    give_block(tl, block);
    advance_wal(tl); /* the disk first: it works while we answer */
    timeline_step(tl, &event);
    timeline_update_pauses(tl);
}

static void on_half_done(struct timeline *tl, struct job *job, bool *is_done)
{
    struct timeline_disk *disk = &tl->disk;
    disk->halves_running--;
    *is_done = job->result == ERR_OK;
    if (job->result != ERR_OK && (disk->group_result == ERR_OK || job->result != ERR_FULL)) {
        disk->group_result = job->result; /* a failure weighs more than a full disk */
        disk->group_msg = job->msg;
    }
    if (disk->halves_running == 0) {
        if (!went_wrong(
                tl, disk->group_result, "WAL", &disk->group_msg, &disk->is_waiting_for_space)) {
            finish_group(tl);
        } else if (disk->is_waiting_for_space && disk->is_truncate_wanted) {
            advance_wal(tl);
        }
    }
    timeline_job_ended(tl);
}

static void on_segment_done(struct job *job)
{
    struct timeline *tl = CONTAINER_OF(job, struct timeline, disk.segment_job);
    on_half_done(tl, job, &tl->disk.is_segment_done);
}

static void on_sidecar_done(struct job *job)
{
    struct timeline *tl = CONTAINER_OF(job, struct timeline, disk.sidecar_job);
    on_half_done(tl, job, &tl->disk.is_sidecar_done);
}

static void begin_half(
    struct timeline *tl, struct job *job, err_t (*run)(struct job *), void (*done)(struct job *))
{
    job->run = run;
    job->done = done;
    tl->disk.halves_running++;
    timeline_job_begun(tl);
}

static void start_group_halves(struct timeline *tl)
{
    struct timeline_disk *disk = &tl->disk;
    disk->group_result = ERR_OK;
    disk->group_begun = clock_mono();
    if (!disk->is_segment_done) {
        begin_half(tl, &disk->segment_job, run_segment, on_segment_done);
    }
    if (!disk->is_sidecar_done) {
        begin_half(tl, &disk->sidecar_job, run_sidecar, on_sidecar_done);
    }
    if (!disk->is_segment_done && !disk->is_sidecar_done) {
        executor_submit_pair(tl->env->executor, &disk->segment_job, &disk->sidecar_job);
    } else { /* the other one was done before the disk was full */
        executor_submit(
            tl->env->executor, disk->is_segment_done ? &disk->sidecar_job : &disk->segment_job);
    }
}

static void on_synced(struct sync_request *request, err_t result, const struct errmsg *msg)
{
    struct timeline *tl = CONTAINER_OF(request, struct timeline, disk.sync);
    struct timeline_disk *disk = &tl->disk;
    disk->halves_running--;
    if (result == ERR_BUSY && tl->state != TIMELINE_FAILED) {
        MARK("timeline.disk.synced_in_part");
        disk->is_small = false; /* it tells nothing about either */
        start_group_halves(tl); /* the same bytes at the same places */
    } else if (!went_wrong(tl, result, "WAL", msg, &disk->is_waiting_for_space)) {
        finish_group(tl);
    }
    timeline_job_ended(tl);
}

/* Written here, synced by the kernel; false: it is for the workers. */
static bool start_group_in_place(struct timeline *tl)
{
    struct timeline_disk *disk = &tl->disk;
    struct wal_store_files files;
    struct errmsg msg;
    disk->group_begun = clock_mono();
    disk->is_by_kernel = false;
    disk->is_small = wal_store_is_in_place(disk->store, &disk->group);
    if (tl->env->syncs == NULL || !disk->is_small || !sync_choice_is_kernel(&sync_choice) ||
        wal_store_write_in_place(disk->store, &disk->group, &files, &msg) != ERR_OK) {
        return false;
    }
    disk->sync = (struct sync_request){
        .fds = {files.fds[0], files.fds[1]},
        .paths = {files.paths[0], files.paths[1]},
        .count = 2,
        .done = on_synced,
    };
    if (!sync_queue_start(tl->env->syncs, &disk->sync)) {
        return false;
    }
    disk->is_by_kernel = true;
    disk->halves_running++;
    timeline_job_begun(tl);
    return true;
}

static void start_group(struct timeline *tl)
{
    struct timeline_disk *disk = &tl->disk;
    struct list_link *link = list_pop_front(&disk->blocks);
    struct wal_block *block = CONTAINER_OF(link, struct wal_block, link);
    ASSERT(block->begin_lsn == wal_store_flush_lsn(disk->store));
    disk->op = DISK_GROUP;
    disk->writing = block;
    disk->group = (struct wal_group){
        .wal = buf_view(&block->wal),
        .record_lsn = MAX_OF(block->record_lsn, wal_store_record_lsn(disk->store)),
        .commit_lsn = tl->acceptor.state.commit_lsn,
    };
    disk->is_segment_done = disk->is_sidecar_done = false;
    wal_store_group_begin(disk->store, &disk->group);
    disk_touch(tl);
    if (!start_group_in_place(tl)) {
        start_group_halves(tl);
    }
}

/* ---- truncation and rest ---- */

static err_t run_truncate(struct job *job)
{
    struct timeline *tl = CONTAINER_OF(job, struct timeline, disk.op_job);
    return tl->disk.is_emptying
               ? wal_store_empty(tl->disk.store, tl->disk.truncate_lsn, &job->msg)
               : wal_store_truncate(tl->disk.store, tl->disk.truncate_lsn, &job->msg);
}

static void on_truncated(struct job *job)
{
    struct timeline *tl = CONTAINER_OF(job, struct timeline, disk.op_job);
    struct timeline_disk *disk = &tl->disk;
    if (!went_wrong(tl, job->result, "truncation", &job->msg, &disk->is_waiting_for_space)) {
        struct acceptor_event event = {
            .kind = ACCEPTOR_WAL_TRUNCATED,
            .wal = {.epoch = disk->truncate_epoch},
        };
        disk->op = DISK_IDLE;
        disk->is_truncate_wanted = false;
        if (disk->is_emptying) {
            wal_tail_deinit(&tl->tail);
        }
        wal_tail_truncate(&tl->tail, disk->truncate_lsn);
        log_info(&tl->log, "cut the log to " LSN_FMT, LSN_ARGS(disk->truncate_lsn));
        timeline_step(tl, &event);
        advance_wal(tl);
    }
    timeline_job_ended(tl);
}

static err_t run_rest(struct job *job)
{
    struct timeline *tl = CONTAINER_OF(job, struct timeline, disk.op_job);
    return wal_store_rest(tl->disk.store, tl->disk.rest_commit_lsn, &job->msg);
}

static void on_rested(struct job *job)
{
    struct timeline *tl = CONTAINER_OF(job, struct timeline, disk.op_job);
    tl->disk.op = DISK_IDLE;
    if (job->result != ERR_OK && job->result != ERR_FULL && job->result != ERR_BUSY &&
        tl->state != TIMELINE_FAILED) { /* without space it rests unproven, which is allowed */
        timeline_fail(tl, job->result, &job->msg);
    }
    advance_wal(tl);
    timeline_job_ended(tl);
}

static err_t run_certify(struct job *job)
{
    struct timeline *tl = CONTAINER_OF(job, struct timeline, disk.op_job);
    return wal_store_certify(tl->disk.store, tl->disk.rest_commit_lsn, &job->msg);
}

static void start_op(
    struct timeline *tl, enum disk_op op, err_t (*run)(struct job *), void (*done)(struct job *))
{
    struct timeline_disk *disk = &tl->disk;
    disk->op = op;
    disk->op_job.run = run;
    disk->op_job.done = done;
    timeline_job_begun(tl);
    executor_submit(tl->env->executor, &disk->op_job);
}

/* A group that cannot be written for want of space and is to be truncated is given up. */
static void give_up_group(struct timeline *tl)
{
    struct timeline_disk *disk = &tl->disk;
    MARK("timeline.disk.group_given_up");
    disk->is_waiting_for_space = false;
    disk->op = DISK_IDLE;
    disk->pending_bytes -= disk->writing->wal.size;
    give_block(tl, disk->writing);
    disk->writing = NULL;
}

static void advance_wal(struct timeline *tl)
{
    struct timeline_disk *disk = &tl->disk;
    if (tl->state != TIMELINE_OPEN && tl->state != TIMELINE_CLOSED) {
        return;
    }
    if (disk->op == DISK_GROUP && disk->is_waiting_for_space && disk->is_truncate_wanted) {
        give_up_group(tl);
    }
    if (disk->op != DISK_IDLE) {
        return;
    }
    if (!disk->is_truncate_wanted) {
        wal_store_set_begin(disk->store, tl->forgetting.remove_lsn);
    }
    if (disk->is_truncate_wanted) {
        start_op(tl, DISK_TRUNCATE, run_truncate, on_truncated);
    } else if (!list_is_empty(&disk->blocks)) {
        start_group(tl);
    } else if (disk->is_certify_wanted) {
        disk->is_certify_wanted = false;
        disk->rest_commit_lsn = tl->acceptor.state.commit_lsn;
        start_op(tl, DISK_CERTIFY, run_certify, on_rested);
    } else if (disk->is_rest_wanted) {
        disk->is_rest_wanted = false;
        disk->rest_commit_lsn = tl->acceptor.state.commit_lsn;
        start_op(tl, DISK_REST, run_rest, on_rested);
    }
}

static void cut(struct timeline *tl, lsn_t lsn, uint64_t epoch, bool is_emptying)
{
    drop_blocks(tl);
    tl->disk.is_emptying = is_emptying;
    timeline_update_pauses(tl);
    tl->disk.is_truncate_wanted = true;
    tl->disk.truncate_lsn = lsn;
    tl->disk.truncate_epoch = epoch;
    disk_touch(tl);
    advance_wal(tl);
}

/* All that waits was written by the term that is being cut off, and begins behind the cut. */
void disk_truncate(struct timeline *tl, lsn_t lsn, uint64_t epoch)
{
    cut(tl, lsn, epoch, /* is_emptying */ false);
}

void disk_empty(struct timeline *tl, lsn_t lsn, uint64_t epoch)
{
    cut(tl, lsn, epoch, /* is_emptying */ true);
}

/* ---- control file ---- */

static err_t run_control(struct job *job)
{
    struct timeline *tl = CONTAINER_OF(job, struct timeline, disk.control_job);
    return control_file_save(
        &tl->control_file, tl->disk.control_writing, tl->disk.is_control_promise, &job->msg);
}

static void on_control_saved(struct job *job)
{
    struct timeline *tl = CONTAINER_OF(job, struct timeline, disk.control_job);
    struct timeline_disk *disk = &tl->disk;
    disk->is_control_running = false;
    if (!went_wrong(
            tl, job->result, "control file", &job->msg, &disk->is_control_waiting_for_space)) {
        metric_observe_ns(&control_seconds, clock_mono() - disk->control_begun);
        const struct acceptor_state *persisted = &disk->control_writing->acceptor;
        struct acceptor_event event = {
            .kind = ACCEPTOR_STATE_PERSISTED,
            .sequence = persisted->sequence,
        };
        tl->promised_hash = disk_promise_hash(persisted);
        mem_free(disk->control_writing);
        disk->control_writing = NULL;
        advance_control(tl);
        timeline_step(tl, &event);
    } else {
        disk->is_control_wanted = true;
        mem_free(disk->control_writing);
        disk->control_writing = NULL;
    }
    timeline_job_ended(tl);
}

uint64_t disk_promise_hash(const struct acceptor_state *state)
{
    uint64_t hash = hash64(&state->term, sizeof(state->term), state->generation);
    hash = hash64(&state->begin_lsn, sizeof(state->begin_lsn), hash + state->is_begun_anew);
    hash = hash64(&state->suspect_lsn, sizeof(state->suspect_lsn), hash);
    hash = hash64(&state->suspect_term, sizeof(state->suspect_term), hash);
    return hash64(
        state->history.items, state->history.count * sizeof(state->history.items[0]), hash);
}

static void advance_control(struct timeline *tl)
{
    struct timeline_disk *disk = &tl->disk;
    if (!disk->is_control_wanted || disk->is_control_running ||
        disk->is_control_waiting_for_space || tl->state == TIMELINE_FAILED) {
        return;
    }
    disk->is_control_wanted = false;
    disk->is_control_running = true;
    disk->is_control_promise = disk_promise_hash(&tl->control.acceptor) != tl->promised_hash;
    disk->control_writing = mem_dup(&tl->control, sizeof(tl->control));
    disk->control_job.run = run_control;
    disk->control_job.done = on_control_saved;
    disk->control_begun = clock_mono();
    timeline_job_begun(tl);
    executor_submit(tl->env->executor, &disk->control_job);
}

void disk_persist(struct timeline *tl, const struct acceptor_state *state)
{
    tl->control.acceptor = *state;
    tl->disk.is_control_wanted = true;
    advance_control(tl);
}

void disk_persist_addresses(struct timeline *tl)
{
    tl->disk.is_control_wanted = true;
    advance_control(tl);
}

/* ---- idle ---- */

static void on_idle(struct timer *timer)
{
    struct timeline *tl = CONTAINER_OF(timer, struct timeline, disk.idle);
    uint64_t quiet_ms = (clock_mono() - tl->disk.used_at) / NS_PER_MS;
    if (tl->state != TIMELINE_OPEN) {
        return;
    }
    if (quiet_ms < tl->env->idle_ms || !disk_is_settled(tl)) {
        timer_start(tl->env->loop, timer, tl->env->idle_ms);
        return;
    }
    disk_rest(tl);
}

void disk_touch(struct timeline *tl)
{
    if (!timer_is_started(&tl->disk.idle) && tl->state == TIMELINE_OPEN) {
        tl->disk.used_at = clock_mono();
        timer_start(tl->env->loop, &tl->disk.idle, tl->env->idle_ms);
    }
}

void disk_rest(struct timeline *tl)
{
    struct timeline_disk *disk = &tl->disk;
    struct acceptor_event event = {.kind = ACCEPTOR_PERSIST_WANTED};
    timeline_step(tl, &event);
    wal_tail_deinit(&tl->tail);
    if (disk->spare != NULL) {
        buf_deinit(&disk->spare->wal);
        mem_free(disk->spare);
        disk->spare = NULL;
    }
    disk->is_rest_wanted = true;
    advance_wal(tl);
}

bool disk_is_settled(const struct timeline *tl)
{
    const struct timeline_disk *disk = &tl->disk;
    return disk->op == DISK_IDLE && list_is_empty(&disk->blocks) && !disk->is_truncate_wanted &&
           !disk->is_control_running && !disk->is_control_wanted;
}

bool disk_is_at_rest(const struct timeline *tl)
{
    const struct timeline_disk *disk = &tl->disk;
    return disk_is_settled(tl) && !disk->is_kick_posted && !disk->is_certify_wanted &&
           !disk->is_rest_wanted && !timer_is_started(&disk->retry) &&
           !timer_is_started(&disk->certify) && !timer_is_started(&disk->idle) &&
           disk->writing == NULL && disk->spare == NULL && tl->tail.ring == NULL;
}

void disk_stop(struct timeline *tl)
{
    struct timeline_disk *disk = &tl->disk;
    timer_stop(&disk->retry);
    timer_stop(&disk->certify);
    timer_stop(&disk->idle);
    drop_blocks(tl);
    disk->is_certify_wanted = false;
    disk->is_truncate_wanted = disk->is_control_wanted = disk->is_rest_wanted = false;
    disk->is_control_waiting_for_space = false;
    if (disk->is_waiting_for_space && disk->op == DISK_GROUP) {
        give_up_group(tl);
    } else if (disk->is_waiting_for_space) {
        disk->is_waiting_for_space = false;
        disk->op = DISK_IDLE;
    }
}

void disk_reset(struct timeline *tl)
{
    struct timeline_disk *disk = &tl->disk;
    ASSERT(tl->jobs == 0 && list_is_empty(&disk->blocks) && disk->halves_running == 0);
    if (disk->writing != NULL) {
        disk->pending_bytes -= disk->writing->wal.size;
        give_block(tl, disk->writing);
        disk->writing = NULL;
    }
    disk->op = DISK_IDLE;
    disk->is_waiting_for_space = false;
    wal_store_close(disk->store);
    disk->store = NULL;
    wal_tail_deinit(&tl->tail);
}

void disk_init(struct timeline *tl)
{
    list_init(&tl->disk.blocks);
    tl->disk.kick.run = on_kick;
    tl->disk.retry.on_fire = on_retry;
    tl->disk.certify.on_fire = on_certify;
    tl->disk.idle.on_fire = on_idle;
}

void disk_deinit(struct timeline *tl)
{
    struct timeline_disk *disk = &tl->disk;
    timer_stop(&disk->retry);
    timer_stop(&disk->certify);
    timer_stop(&disk->idle);
    drop_blocks(tl);
    if (disk->writing != NULL) {
        buf_deinit(&disk->writing->wal);
        mem_free(disk->writing);
    }
    if (disk->spare != NULL) {
        buf_deinit(&disk->spare->wal);
        mem_free(disk->spare);
    }
    wal_store_close(disk->store);
}
