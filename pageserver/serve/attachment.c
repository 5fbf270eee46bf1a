/*
 * attachment.c - what runs for one timeline: the import of a root's bootstrap image, then, once its
 * ancestors have what it builds on, a watch of what its safekeepers say, and while they have WAL
 * that it lacks, ingest and the receiver that feeds it. A timeline that rests has nothing but its
 * watch.
 *
 * The attachment counts as a reader of its timeline, so that nothing is erased under it. It ends
 * when import, receiver and ingest have ended.
 */
#include <stdio.h>

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "common/base/str.h"
#include "pageserver/ingest/wal_receiver.h"
#include "pageserver/read/reconstruct.h"
#include "pageserver/remote/bootstrap.h"
#include "pageserver/serve/server.h"

METRIC_GAUGE(
    lag_bytes,
    "pageserver_ingest_lag_bytes",
    "committed WAL that is known of and not ingested yet, all timelines");
METRIC_GAUGE(
    queue_bytes, "pageserver_ingest_queue_bytes", "WAL that was received and waits for ingest");
METRIC_GAUGE(
    remote_lag_bytes,
    "pageserver_remote_lag_bytes",
    "WAL that is durable here and not in the object store, all timelines");
METRIC_GAUGE(
    reads_waiting, "pageserver_read_jobs_waiting", "jobs in front of the workers that read");
METRIC_GAUGE(
    background_waiting,
    "pageserver_background_jobs_waiting",
    "pieces of WAL and flushes in front of their workers");
METRIC_GAUGE(rows_waiting, "pageserver_row_jobs_waiting", "rows in front of their workers");
METRIC_GAUGE(
    copies_waiting, "pageserver_copy_jobs_waiting", "copies and imports in front of their worker");
METRIC_GAUGE(
    uploads_waiting,
    "pageserver_upload_jobs_waiting",
    "rounds of uploads and deletions in front of their workers");
METRIC_GAUGE(failed_count, "pageserver_timelines_failed", "timelines whose ingest stopped");
METRIC_COUNTER(imports, "pageserver_imports_total", "bootstrap images imported");

#define IMPORT_RETRY_MS 2000

/* The import of a bootstrap image, while it is under way. */
struct image_import {
    struct attachment *attachment;
    struct timer timer;
    struct job job;
    struct ingest_position position;
    struct tenant_request request;
    bool running; /* the job, or then the request */
    struct errmsg error;
};

/* Ingest and what feeds it, while there is WAL. */
struct activity {
    struct attachment *attachment;
    struct wal_ingest_user ingest_user;
    struct wal_receiver_user receiver_user;
    struct wal_ingest *ingest;
    struct wal_receiver *receiver; /* NULL: it ends */
    bool ingest_running, is_ending;
    struct timer end_timer;
    struct list_link link;
};

/* Until the ancestors have what the timeline builds on. */
struct ready_wait {
    struct attachment *attachment;
    struct lsn_wait wait;
};

struct attachment {
    struct server *server;
    struct timeline *timeline;
    struct timeline_user timeline_user;
    struct image_import *import; /* NULL: none is needed (any more) */
    struct lsn_wait *ready_wait; /* NULL: its ancestors have what it builds on */
    struct feed_watch watch;
    struct activity *activity; /* NULL: there is no WAL to ingest */
    bool stopping;
    struct list_link link;
};

/* -- the end -- */

static void end_import(struct attachment *attachment);
static void end_activity(struct activity *activity);
static void on_report(struct feed_watch *watch);

static void free_when_over(struct attachment *attachment)
{
    if (!attachment->stopping || attachment->import != NULL || attachment->activity != NULL ||
        attachment->ready_wait != NULL) {
        return;
    }
    list_remove(&attachment->link);
    timeline_set_user(attachment->timeline, NULL);
    feed_watch_stop(&attachment->watch);
    timeline_read_end(attachment->timeline);
    mem_free(attachment);
}

void attachment_stop(struct attachment *attachment)
{
    if (attachment->stopping) {
        return;
    }
    attachment->stopping = true;
    if (attachment->ready_wait != NULL) {
        lsn_wait_cancel(attachment->ready_wait); /* frees it */
    }
    if (attachment->import != NULL && !attachment->import->running) {
        end_import(attachment);
    }
    if (attachment->activity != NULL) {
        end_activity(attachment->activity);
    }
    free_when_over(attachment);
}

void attachments_stop_all(struct server *server)
{
    LIST_FOR_EACH(&server->attachments, link)
    {
        attachment_stop(CONTAINER_OF(link, struct attachment, link));
    }
}

/* -- ingest -- */

static struct activity *activity_of(struct wal_ingest_user *user)
{
    return CONTAINER_OF(user, struct activity, ingest_user);
}

static void on_changed(struct wal_ingest_user *user, const struct page_key *keys, size_t count)
{
    struct attachment *attachment = activity_of(user)->attachment;
    uint64_t uid = timeline_uid(attachment->timeline);
    for (size_t i = 0; i < count; i++) {
        page_cache_remove(attachment->server->cache, uid, keys[i]);
    }
}

static void on_advanced(struct wal_ingest_user *user)
{
    struct activity *activity = activity_of(user);
    if (activity->receiver != NULL) {
        wal_receiver_advanced(activity->receiver);
        feed_watch_moved(&activity->attachment->watch);
    }
}

static void on_room(struct wal_ingest_user *user)
{
    struct activity *activity = activity_of(user);
    if (activity->receiver != NULL) {
        wal_receiver_advanced(activity->receiver);
    }
}

static void on_restart(struct wal_ingest_user *user)
{
    struct activity *activity = activity_of(user);
    if (activity->receiver != NULL) {
        wal_receiver_restart(activity->receiver);
    }
}

static void on_ingest_stopped(struct wal_ingest_user *user)
{
    struct activity *activity = activity_of(user);
    activity->ingest_running = false;
    timer_start(activity->attachment->server->options.loop, &activity->end_timer, 0);
}

/* The receiver ends from the loop as well: it may be the one that says that it is idle. */
static void end_activity(struct activity *activity)
{
    if (!activity->is_ending) {
        activity->is_ending = true;
        timer_start(activity->attachment->server->options.loop, &activity->end_timer, 0);
    }
}

static void on_end_timer(struct timer *timer)
{
    struct activity *activity = CONTAINER_OF(timer, struct activity, end_timer);
    struct attachment *attachment = activity->attachment;
    if (activity->receiver != NULL) {
        wal_receiver_destroy(activity->receiver);
        activity->receiver = NULL;
        wal_ingest_stop(activity->ingest); /* on_ingest_stopped follows, maybe at once */
        return;
    }
    ASSERT(!activity->ingest_running);
    list_remove(&activity->link);
    wal_ingest_destroy(activity->ingest);
    mem_free(activity);
    attachment->activity = NULL;
    timeline_rest(attachment->timeline);
    if (attachment->stopping) {
        free_when_over(attachment);
    } else {
        on_report(&attachment->watch); /* of what came meanwhile */
    }
}

static err_t read_page(
    struct page_reader *reader, struct page_key key, lsn_t lsn, uint8_t *page, struct errmsg *msg)
{
    struct reconstruct work;
    reconstruct_init_with(&work, reader, lsn);
    err_t err = reconstruct_page(&work, key, page, NULL, msg);
    reconstruct_deinit(&work);
    return err;
}

static void on_idle(struct wal_receiver_user *user)
{
    end_activity(CONTAINER_OF(user, struct activity, receiver_user));
}

static void on_forgotten(struct wal_receiver_user *user)
{
    struct attachment *attachment = CONTAINER_OF(user, struct activity, receiver_user)->attachment;
    give_up_begin(attachment->server, attachment->timeline);
}

static void start_activity(struct attachment *attachment)
{
    const struct server_options *options = &attachment->server->options;
    struct activity *activity = MEM_NEW(struct activity);
    activity->attachment = attachment;
    activity->end_timer.on_fire = on_end_timer;
    activity->ingest_user = (struct wal_ingest_user){
        .on_changed = on_changed,
        .on_advanced = on_advanced,
        .on_room = on_room,
        .on_restart = on_restart,
        .on_stopped = on_ingest_stopped,
    };
    activity->ingest = wal_ingest_create(&(struct wal_ingest_options){
        .loop = options->loop,
        .executor = attachment->server->background,
        .copier = attachment->server->copier,
        .timeline = attachment->timeline,
        .user = &activity->ingest_user,
        .queue_bytes_max = options->ingest_queue_bytes,
        .record_size_max = options->record_size_max,
        .records_bytes_max = options->records_bytes_max,
        .image_after_records = options->image_after_records,
        .read_page = read_page,
    });
    activity->ingest_running = true;
    activity->receiver_user.on_idle = on_idle;
    activity->receiver_user.on_forgotten = on_forgotten;
    attachment->activity = activity;
    list_push_back(&attachment->server->activities, &activity->link);
    activity->receiver = wal_receiver_create(&(struct wal_receiver_options){
        .loop = options->loop,
        .timeline = attachment->timeline,
        .watch = &attachment->watch,
        .ingest = activity->ingest,
        .user = &activity->receiver_user,
        .queue_bytes_max = options->ingest_queue_bytes,
        .idle_ms = options->feed_idle_ms,
    });
}

/* A safekeeper says where the timeline stands. */
static void on_report(struct feed_watch *watch)
{
    struct attachment *attachment = CONTAINER_OF(watch, struct attachment, watch);
    if (attachment->stopping) {
        return;
    }
    if (attachment->activity == NULL && feed_watch_has_wal(watch)) {
        start_activity(attachment);
    } else if (attachment->activity != NULL && attachment->activity->receiver != NULL) {
        wal_receiver_consider(attachment->activity->receiver);
    }
}

static void start_watch(struct attachment *attachment)
{
    attachment->watch.on_report = on_report;
    feed_watch_start(&attachment->watch, attachment->server->feeds, attachment->timeline);
}

static void on_ready(struct lsn_wait *wait, err_t result)
{
    struct ready_wait *ready = CONTAINER_OF(wait, struct ready_wait, wait);
    struct attachment *attachment = ready->attachment;
    attachment->ready_wait = NULL;
    mem_free(ready);
    if (attachment->stopping) {
        return; /* canceled from attachment_stop() */
    }
    if (result == ERR_OK) {
        start_watch(attachment);
    }
    /* Otherwise the timeline is going away, or an ancestor failed and the timeline says so. */
}

/* Records build on what the ancestors hold at the branch LSN: ingest begins when that is there. */
static void start_when_ready(struct attachment *attachment)
{
    struct timeline *tl = attachment->timeline;
    lsn_t start_lsn = timeline_info(tl)->start_lsn;
    if (timeline_has_lsn(tl, start_lsn)) {
        start_watch(attachment);
        return;
    }
    struct ready_wait *ready = MEM_NEW(struct ready_wait);
    ready->attachment = attachment;
    attachment->ready_wait = &ready->wait;
    lsn_wait_start(&ready->wait, tl, start_lsn, LSN_WAIT_FOREVER, on_ready);
}

/* -- import -- */

static void end_import(struct attachment *attachment)
{
    timer_stop(&attachment->import->timer);
    mem_free(attachment->import);
    attachment->import = NULL;
}

static void retry_import(struct image_import *import, const struct errmsg *msg)
{
    struct attachment *attachment = import->attachment;
    import->error = *msg;
    log_warn(timeline_log(attachment->timeline), "import: %s; will retry", import->error.text);
    timer_start(attachment->server->options.loop, &import->timer, IMPORT_RETRY_MS);
}

/* True: the attachment ends; do not touch it any more. */
static bool import_is_unwanted(struct image_import *import)
{
    struct attachment *attachment = import->attachment;
    import->running = false;
    if (!attachment->stopping) {
        return false;
    }
    end_import(attachment);
    free_when_over(attachment);
    return true;
}

static void on_import_finished(struct tenant_request *request, err_t result)
{
    struct image_import *import = CONTAINER_OF(request, struct image_import, request);
    struct attachment *attachment = import->attachment;
    if (import_is_unwanted(import)) {
        return;
    }
    if (result != ERR_OK) {
        retry_import(import, &request->msg);
        return;
    }
    metric_add(&imports, 1);
    end_import(attachment);
    start_when_ready(attachment);
}

static void on_import_done(struct job *job)
{
    struct image_import *import = CONTAINER_OF(job, struct image_import, job);
    struct attachment *attachment = import->attachment;
    if (import_is_unwanted(import)) {
        return;
    }
    if (job->result != ERR_OK) {
        retry_import(import, &job->msg);
        return;
    }
    import->running = true;
    import->request.done = on_import_finished;
    tenant_timeline_imported(
        timeline_tenant(attachment->timeline), &import->request, attachment->timeline,
        import->position);
}

static err_t run_import(struct job *job)
{
    struct image_import *import = CONTAINER_OF(job, struct image_import, job);
    struct attachment *attachment = import->attachment;
    const struct timeline_info *info = timeline_info(attachment->timeline);
    struct bootstrap_options options = {
        .objects = attachment->server->objects,
        .object = info->bootstrap_object,
        .store = timeline_store(attachment->timeline),
        .timeline = info->number,
        .start_lsn = info->start_lsn,
        .system_id = info->system_id,
    };
    return bootstrap_import(&options, &import->position, &job->msg);
}

static void on_import_timer(struct timer *timer)
{
    struct image_import *import = CONTAINER_OF(timer, struct image_import, timer);
    import->running = true;
    import->job = (struct job){.run = run_import, .done = on_import_done};
    executor_submit(import->attachment->server->copier, &import->job);
}

static void start_import(struct attachment *attachment)
{
    struct image_import *import = MEM_NEW(struct image_import);
    import->attachment = attachment;
    import->timer.on_fire = on_import_timer;
    attachment->import = import;
    timer_start(attachment->server->options.loop, &import->timer, 0);
}

/* -- for the server -- */

struct attachment *attachment_find(const struct timeline *tl)
{
    struct timeline_user *user = timeline_user(tl);
    return user == NULL ? NULL : CONTAINER_OF(user, struct attachment, timeline_user);
}

static void on_wait(struct timeline_user *user)
{
    struct attachment *attachment = CONTAINER_OF(user, struct attachment, timeline_user);
    if (attachment->activity != NULL && attachment->activity->receiver != NULL) {
        wal_receiver_hurry(attachment->activity->receiver);
    }
}

/* Its row has changed: maybe other safekeepers. */
static void update(struct attachment *attachment)
{
    if (attachment->watch.feeds == NULL) {
        return;
    }
    feed_watch_update(&attachment->watch);
    if (attachment->activity != NULL && attachment->activity->receiver != NULL) {
        wal_receiver_restart(attachment->activity->receiver);
    }
}

void attachment_start(struct server *server, struct timeline *tl)
{
    struct attachment *attachment = attachment_find(tl);
    if (attachment != NULL) {
        update(attachment);
        return;
    }
    attachment = MEM_NEW(struct attachment);
    attachment->server = server;
    attachment->timeline = tl;
    list_push_back(&server->attachments, &attachment->link);
    attachment->timeline_user.on_wait = on_wait;
    timeline_set_user(tl, &attachment->timeline_user);
    timeline_work_begin(tl);
    if (timeline_info(tl)->state == TIMELINE_IMPORTING) {
        start_import(attachment);
    } else {
        start_when_ready(attachment);
    }
}

void attachment_describe_feed(const struct attachment *attachment, char *to, size_t to_size)
{
    const struct activity *activity = attachment->activity;
    if (attachment->watch.feeds == NULL) {
        (void)snprintf(to, to_size, "none: waits for its ancestors");
    } else if (
        activity == NULL || activity->receiver == NULL ||
        !wal_receiver_describe(activity->receiver, to, to_size)) {
        feed_watch_describe(&attachment->watch, to, to_size);
    }
}

const char *attachment_import_error(const struct attachment *attachment)
{
    bool has_failed = attachment->import != NULL && attachment->import->error.text[0] != '\0';
    return has_failed ? attachment->import->error.text : NULL;
}

void attachment_moved(struct timeline *tl)
{
    struct attachment *attachment = attachment_find(tl);
    if (attachment == NULL) {
        return;
    }
    feed_watch_moved(&attachment->watch);
    if (attachment->activity != NULL && attachment->activity->receiver != NULL) {
        wal_receiver_advanced(attachment->activity->receiver);
    }
}

/* The memory is everybody's, whoever's flush gave it back. */
void attachments_room(struct server *server)
{
    LIST_FOR_EACH(&server->activities, link)
    {
        struct activity *activity = CONTAINER_OF(link, struct activity, link);
        if (activity->receiver != NULL) {
            wal_ingest_room(activity->ingest);
        }
    }
}

void attachments_observe(struct server *server)
{
    int64_t lag = 0, failed = 0, remote_lag = 0, queued = 0;
    LIST_FOR_EACH(&server->attachments, link)
    {
        struct timeline *tl = CONTAINER_OF(link, struct attachment, link)->timeline;
        lsn_t commit = timeline_commit_lsn(tl), last = timeline_last_lsn(tl);
        lag += commit > last ? (int64_t)(commit - last) : 0;
        failed += timeline_failure(tl) != NULL ? 1 : 0;
        lsn_t remote = MAX_OF(timeline_remote_lsn(tl), timeline_info(tl)->start_lsn);
        lsn_t durable = timeline_durable_lsn(tl);
        remote_lag += durable > remote ? (int64_t)(durable - remote) : 0;
    }
    LIST_FOR_EACH(&server->activities, link)
    {
        queued += (int64_t)wal_ingest_queued(CONTAINER_OF(link, struct activity, link)->ingest);
    }
    metric_set(&queue_bytes, queued);
    metric_set(&remote_lag_bytes, remote_lag);
    metric_set(&reads_waiting, (int64_t)executor_queued(server->options.executor));
    metric_set(&background_waiting, (int64_t)executor_queued(server->background));
    metric_set(&rows_waiting, (int64_t)executor_queued(server->rows));
    metric_set(&copies_waiting, (int64_t)executor_queued(server->copier));
    metric_set(&uploads_waiting, (int64_t)executor_queued(server->uploads));
    metric_set(&lag_bytes, lag);
    metric_set(&failed_count, failed);
}
