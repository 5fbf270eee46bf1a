#include "pageserver/ingest/wal_ingest.h"

#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/fault.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "common/pg/wal_reader.h"
#include "pageserver/ingest/ingest_batch.h"
#include "pageserver/timeline/slots.h"
#include "pageserver/timeline/tenant.h"

METRIC_COUNTER(records, "pageserver_ingest_records_total", "WAL records ingested");
METRIC_COUNTER(wal_bytes, "pageserver_ingest_wal_bytes_total", "WAL bytes ingested");
METRIC_COUNTER(restarts, "pageserver_ingest_restarts_total", "ingests that began again: disk full");
METRIC_GAUGE(
    partial_bytes,
    "pageserver_ingest_partial_record_bytes",
    "bytes kept of incomplete WAL records");
METRIC_GAUGE(
    copying_count,
    "pageserver_ingest_copies",
    "ingests that copy a database, or wait for their turn");
METRIC_GAUGE(waiting_count, "pageserver_ingest_waiting", "ingests that wait for a flush");
METRIC_COUNTER(waits, "pageserver_ingest_waits_total", "times that an ingest waited for a flush");
METRIC_HISTOGRAM(piece_seconds, "pageserver_ingest_batch_seconds", "time of one ingest batch");

#define PIECE_BYTES  (256 * KIB) /* of WAL: one job, one batch, one advance */
#define SEGMENT_SIZE (16 * MIB)
#define RETRY_MS     1000

struct wal_ingest {
    struct wal_ingest_options options;
    struct job job;
    struct timer retry;
    struct buf queue; /* WAL that came; the bytes before queue_begin were taken */
    size_t queue_begin;
    lsn_t queue_lsn; /* of the byte at queue_begin */
    bool was_full, running, restarting, stopping;
    bool waiting;         /* for memory: the layers are full */
    size_t partial_bytes; /* this timeline's part of partial.bytes */

    /* The job's while it runs. */
    struct buf piece;
    lsn_t piece_lsn;
    struct wal_reader *reader;
    const struct wal_record *held; /* copies a database: for the copier; in the reader */
    bool is_copying;               /* the job runs on the copier */
    struct wal_state *state;
    struct ingest_batch batch;
    struct ingest_position position, reached;
    uint64_t record_count;
    lsn_t slots_lsn;    /* when batch.slots_changed */
    err_t record_error; /* a record that cannot be ingested: those before it were */
    struct errmsg record_msg;
};

/* Incomplete records of the process; loop only. */
static struct {
    size_t bytes;
    const struct wal_ingest *privileged; /* may go on above the limit; NULL: nobody needs it */
} partial;

static void pump(struct wal_ingest *ingest);

static size_t queued_bytes(const struct wal_ingest *ingest)
{
    return ingest->queue.size - ingest->queue_begin;
}

static void clear_queue(struct wal_ingest *ingest)
{
    buf_clear(&ingest->queue);
    ingest->queue_begin = 0;
}

/* -- the job -- */

static err_t open_reader(struct wal_ingest *ingest, struct errmsg *msg)
{
    if (ingest->reader != NULL) {
        return ERR_OK;
    }
    struct wal_reader_options options = {
        .start_lsn = ingest->position.lsn,
        .segment_size = SEGMENT_SIZE,
        .system_id = timeline_info(ingest->options.timeline)->system_id,
        .record_size_max = ingest->options.record_size_max,
    };
    ingest->batch.before_lsn = ingest->position.lsn;
    TRY(wal_state_create(&ingest->batch.source, &ingest->state, msg));
    ingest->reader = wal_reader_create(&options);
    return ERR_OK;
}

static err_t ingest_record(
    struct wal_ingest *ingest, const struct wal_record *record, struct errmsg *msg)
{
    struct ingest_batch *batch = &ingest->batch;
    batch->before_lsn = ingest->reached.lsn;
    batch->lsn = record->end_lsn;
    TRY(wal_decode(ingest->state, record, &batch->sink, msg));
    TRY(ingest_batch_end_record(batch, msg));
    ingest->reached =
        (struct ingest_position){.lsn = record->end_lsn, .prev_record_lsn = record->lsn};
    ingest->record_count++;
    return ERR_OK;
}

static bool ends_by_itself(err_t err)
{
    return err == ERR_FULL || err == ERR_BUSY;
}

static err_t next_record(
    struct wal_ingest *ingest, const struct wal_record **ret_record, struct errmsg *msg)
{
    if (ingest->held != NULL) {
        *ret_record = ingest->held;
        ingest->held = NULL;
        return ERR_OK;
    }
    return wal_reader_next(ingest->reader, ret_record, msg);
}

/*
 * Records of the piece, until they end, one is bad or one copies a database: that takes as long as
 * the database is large, and the copier has a thread for it. Store errors are returned, bad records
 * kept.
 */
static err_t ingest_piece(struct wal_ingest *ingest, struct errmsg *msg)
{
    err_t err = ERR_OK;
    if (ingest->held == NULL) {
        ASSERT(ingest->piece_lsn == wal_reader_next_lsn(ingest->reader));
        err = wal_reader_feed(ingest->reader, buf_view(&ingest->piece), msg);
    }
    const struct wal_record *record = NULL;
    while (err == ERR_OK) {
        err = next_record(ingest, &record, msg);
        if (err == ERR_OK && !ingest->is_copying && ingest->options.copier != NULL &&
            wal_decode_copies_database(record)) {
            ingest->held = record;
            return ERR_OK;
        }
        if (err == ERR_OK) {
            err = ingest_record(ingest, record, msg);
            if (err != ERR_OK) {
                err = err_wrap(
                    msg, err, "record %s at " LSN_FMT, wal_record_text(record).text,
                    LSN_ARGS(record->lsn));
            }
        }
    }
    if (err == ERR_NOT_FOUND) {
        return ERR_OK; /* all records were taken */
    }
    if (ends_by_itself(err)) {
        return err;
    }
    ingest->record_error = err;
    ingest->record_msg = *msg;
    return ERR_OK;
}

static err_t run_piece(struct wal_ingest *ingest, struct errmsg *msg)
{
    ingest->record_count = 0;
    ingest->record_error = ERR_OK;
    ingest->reached = ingest->position;
    TRY(ingest_batch_begin(&ingest->batch, msg));
    err_t fault = FAULT("wal_ingest.piece");
    if (fault != ERR_OK) {
        return err_set(msg, fault, "wal ingest: injected failure");
    }
    TRY(open_reader(ingest, msg));
    TRY(ingest_piece(ingest, msg));
    if (ingest->reached.lsn > ingest->position.lsn) {
        TRY(ingest_batch_commit(&ingest->batch, ingest->reached, msg));
    }
    if (!ingest->batch.slots_changed) {
        return ERR_OK;
    }
    return slots_needed_lsn(
        ingest->batch.store, ingest->batch.timeline, ingest->reached.lsn, &ingest->slots_lsn, msg);
}

static err_t run(struct job *job)
{
    struct wal_ingest *ingest = CONTAINER_OF(job, struct wal_ingest, job);
    mono_ns_t begin = clock_mono();
    err_t err = run_piece(ingest, &job->msg);
    ingest_batch_end(&ingest->batch);
    if (err == ERR_OK) {
        metric_observe_ns(&piece_seconds, clock_mono() - begin);
    }
    return err;
}

/* -- the loop's side -- */

static void set_partial(struct wal_ingest *ingest, size_t bytes)
{
    partial.bytes += bytes - ingest->partial_bytes;
    ingest->partial_bytes = bytes;
    metric_set(&partial_bytes, (int64_t)partial.bytes);
    if (bytes <= PIECE_BYTES && partial.privileged == ingest) {
        partial.privileged = NULL;
    }
}

/* False: too much of the process's memory is in incomplete records, and another one goes first. */
static bool may_keep_partial(struct wal_ingest *ingest)
{
    set_partial(ingest, (size_t)(wal_reader_next_lsn(ingest->reader) - ingest->reached.lsn));
    if (partial.bytes <= ingest->options.records_bytes_max ||
        ingest->partial_bytes <= PIECE_BYTES) {
        return true;
    }
    if (partial.privileged == NULL) {
        partial.privileged = ingest;
    }
    return partial.privileged == ingest;
}

static void drop_work(struct wal_ingest *ingest)
{
    set_partial(ingest, 0);
    wal_reader_destroy(ingest->reader);
    wal_state_destroy(ingest->state);
    ingest->reader = NULL;
    ingest->held = NULL;
    ingest->state = NULL;
    ingest_batch_deinit(&ingest->batch);
    ingest_batch_init(&ingest->batch, &ingest->options);
}

static void on_retry(struct timer *timer)
{
    struct wal_ingest *ingest = CONTAINER_OF(timer, struct wal_ingest, retry);
    ingest->restarting = false;
    ingest->options.user->on_restart(ingest->options.user);
}

/* As after a crash: nothing in memory counts, the position in the store does. */
static void restart_later(struct wal_ingest *ingest, const char *why)
{
    struct timeline *tl = ingest->options.timeline;
    log_warn(
        timeline_log(tl), "ingest waits at " LSN_FMT ": %s", LSN_ARGS(timeline_last_lsn(tl)), why);
    metric_add(&restarts, 1);
    drop_work(ingest);
    clear_queue(ingest);
    ingest->queue_lsn = timeline_last_lsn(tl);
    ingest->restarting = true;
    timer_start(ingest->options.loop, &ingest->retry, RETRY_MS);
}

static void publish(struct wal_ingest *ingest)
{
    struct timeline *tl = ingest->options.timeline;
    struct ingest_batch *batch = &ingest->batch;
    if (ingest->reached.lsn == ingest->position.lsn) {
        return; /* a piece of a long record */
    }
    for (size_t i = 0; i < batch->size_count; i++) {
        timeline_size_changed(tl, batch->size_changes[i].rel, batch->size_changes[i].size);
    }
    ingest->options.user->on_changed(ingest->options.user, batch->pages, batch->page_count);
    if (batch->forget_pages) {
        timeline_forget_pages(tl);
    }
    metric_add(&records, (int64_t)ingest->record_count);
    metric_add(&wal_bytes, (int64_t)(ingest->reached.lsn - ingest->position.lsn));
    if (batch->slots_changed) {
        timeline_set_slots_lsn(tl, ingest->slots_lsn);
    }
    ingest->position = ingest->reached;
    timeline_advance(tl, ingest->position);
    tenant_written(timeline_tenant(tl));
    ingest->options.user->on_advanced(ingest->options.user);
}

static void finish_stop(struct wal_ingest *ingest)
{
    timer_stop(&ingest->retry);
    ingest->options.user->on_stopped(ingest->options.user);
}

static void on_done(struct job *job)
{
    struct wal_ingest *ingest = CONTAINER_OF(job, struct wal_ingest, job);
    ingest->running = false;
    metric_add(&copying_count, ingest->is_copying ? -1 : 0);
    ingest->is_copying = false;
    if (ingest->stopping) {
        finish_stop(ingest);
        return;
    }
    if (job->result == ERR_OK) {
        publish(ingest);
        if (ingest->record_error != ERR_OK) {
            timeline_fail(ingest->options.timeline, ingest->record_msg.text);
            set_partial(ingest, 0);
            clear_queue(ingest);
        } else if (!may_keep_partial(ingest)) {
            restart_later(ingest, "too much memory is in incomplete records of other timelines");
        }
    } else if (ends_by_itself(job->result)) {
        restart_later(ingest, job->msg.text);
    } else {
        timeline_fail(ingest->options.timeline, job->msg.text);
        clear_queue(ingest);
    }
    pump(ingest);
}

/* Taken bytes are dropped only when they are more than what is left: each byte moves once at most.
 */
static void take_piece(struct wal_ingest *ingest)
{
    size_t size = MIN_OF(queued_bytes(ingest), PIECE_BYTES);
    buf_clear(&ingest->piece);
    buf_append(&ingest->piece, ingest->queue.data + ingest->queue_begin, size);
    ingest->piece_lsn = ingest->queue_lsn;
    ingest->queue_begin += size;
    ingest->queue_lsn += size;
    if (ingest->queue_begin > queued_bytes(ingest)) {
        buf_consume(&ingest->queue, ingest->queue_begin);
        ingest->queue_begin = 0;
    }
}

static void set_waiting(struct wal_ingest *ingest, bool waiting)
{
    if (ingest->waiting != waiting) {
        ingest->waiting = waiting;
        metric_add(&waiting_count, waiting ? 1 : -1);
        metric_add(&waits, waiting ? 1 : 0);
    }
}

/*
 * One job at a time, only once the ancestors have what this timeline builds on, and only while
 * there is room in memory: WAL that waits here fills the queue, then the receiver reads no more.
 */
static void pump(struct wal_ingest *ingest)
{
    struct timeline *tl = ingest->options.timeline;
    if (ingest->running || ingest->restarting || ingest->stopping ||
        (queued_bytes(ingest) == 0 && ingest->held == NULL) || timeline_failure(tl) != NULL ||
        !timeline_is_ready(tl)) {
        return;
    }
    set_waiting(ingest, !tenant_has_room(timeline_tenant(tl)));
    if (ingest->waiting) {
        return;
    }
    ingest->is_copying = ingest->held != NULL;
    metric_add(&copying_count, ingest->is_copying ? 1 : 0);
    if (!ingest->is_copying) {
        take_piece(ingest);
    }
    ingest->running = true;
    ingest->position = (struct ingest_position){
        .lsn = timeline_last_lsn(tl), .prev_record_lsn = timeline_prev_record_lsn(tl)};
    ingest->job = (struct job){.run = run, .done = on_done};
    executor_submit(
        ingest->is_copying ? ingest->options.copier : ingest->options.executor, &ingest->job);
    if (ingest->was_full && queued_bytes(ingest) < ingest->options.queue_bytes_max / 2) {
        ingest->was_full = false;
        ingest->options.user->on_room(ingest->options.user);
    }
}

struct wal_ingest *wal_ingest_create(const struct wal_ingest_options *options)
{
    struct wal_ingest *ingest = MEM_NEW(struct wal_ingest);
    ingest->options = *options;
    timeline_ref(options->timeline);
    ingest->queue_lsn = timeline_last_lsn(options->timeline);
    ingest->retry.on_fire = on_retry;
    ingest_batch_init(&ingest->batch, &ingest->options);
    return ingest;
}

void wal_ingest_stop(struct wal_ingest *ingest)
{
    ASSERT(!ingest->stopping);
    ingest->stopping = true;
    set_waiting(ingest, false);
    if (!ingest->running) {
        finish_stop(ingest);
    }
}

void wal_ingest_destroy(struct wal_ingest *ingest)
{
    if (ingest == NULL) {
        return;
    }
    ASSERT(ingest->stopping && !ingest->running);
    set_partial(ingest, 0);
    wal_reader_destroy(ingest->reader);
    wal_state_destroy(ingest->state);
    ingest_batch_deinit(&ingest->batch);
    buf_deinit(&ingest->queue);
    buf_deinit(&ingest->piece);
    timeline_unref(ingest->options.timeline);
    mem_free(ingest);
}

lsn_t wal_ingest_next_lsn(const struct wal_ingest *ingest)
{
    return ingest->queue_lsn + queued_bytes(ingest);
}

void wal_ingest_room(struct wal_ingest *ingest)
{
    if (ingest->waiting) {
        pump(ingest);
    }
}

size_t wal_ingest_queued(const struct wal_ingest *ingest)
{
    return queued_bytes(ingest);
}

bool wal_ingest_is_idle(const struct wal_ingest *ingest)
{
    return !ingest->running && !ingest->restarting && ingest->held == NULL &&
           queued_bytes(ingest) == 0;
}

bool wal_ingest_is_full(const struct wal_ingest *ingest)
{
    return queued_bytes(ingest) >= ingest->options.queue_bytes_max;
}

err_t wal_ingest_feed(struct wal_ingest *ingest, lsn_t begin, struct bytes wal, struct errmsg *msg)
{
    lsn_t next = wal_ingest_next_lsn(ingest);
    if (ingest->stopping || ingest->restarting || timeline_failure(ingest->options.timeline)) {
        return ERR_OK;
    }
    if (begin > next) {
        return err_set(
            msg, ERR_CORRUPT, "WAL from " LSN_FMT ", wanted " LSN_FMT, LSN_ARGS(begin),
            LSN_ARGS(next));
    }
    lsn_t known = next - begin;
    if (known >= wal.size) {
        return ERR_OK;
    }
    buf_append(&ingest->queue, wal.data + known, wal.size - (size_t)known);
    ingest->was_full |= wal_ingest_is_full(ingest);
    pump(ingest);
    return ERR_OK;
}
