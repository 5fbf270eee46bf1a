/*
 * attachment.c - what runs for one timeline: the import of a root's bootstrap image, then, once its
 * ancestors have what it builds on, WAL ingest and the receiver that feeds it.
 *
 * The attachment counts as a reader of its timeline, so that nothing is erased under it. It ends
 * when import job, receiver and ingest have ended, in this order.
 */
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
METRIC_GAUGE(failed_count, "pageserver_timelines_failed", "timelines whose ingest stopped");
METRIC_COUNTER(imports, "pageserver_imports_total", "bootstrap images imported");

#define IMPORT_RETRY_MS 2000

struct attachment {
    struct server *server;
    struct timeline *timeline;
    struct timeline_user timeline_user;
    struct timer import_timer;
    struct job import_job;
    struct ingest_position imported;
    struct tenant_request imported_request;
    bool importing, finishing_import;
    struct errmsg import_error;
    struct lsn_wait ready_wait;
    struct wal_ingest_user ingest_user;
    struct wal_receiver_user receiver_user;
    struct wal_ingest *ingest;
    struct wal_receiver *receiver;
    bool receiver_running, ingest_running, stopping;
    struct list_link link;
};

/* -- the end -- */

static void free_when_over(struct attachment *attachment)
{
    if (!attachment->stopping || attachment->importing || attachment->finishing_import ||
        attachment->receiver_running || attachment->ingest_running) {
        return;
    }
    list_remove(&attachment->link);
    timeline_set_user(attachment->timeline, NULL);
    timer_stop(&attachment->import_timer);
    wal_receiver_destroy(attachment->receiver);
    wal_ingest_destroy(attachment->ingest);
    timeline_read_end(attachment->timeline);
    mem_free(attachment);
}

static void on_ingest_stopped(struct wal_ingest_user *user)
{
    struct attachment *attachment = CONTAINER_OF(user, struct attachment, ingest_user);
    attachment->ingest_running = false;
    /* Ingest may say so from inside wal_ingest_stop(): freeing is left to its caller then. */
    if (!attachment->receiver_running) {
        timer_start(attachment->server->options.loop, &attachment->import_timer, 0);
    }
}

static void on_receiver_stopped(struct wal_receiver_user *user)
{
    struct attachment *attachment = CONTAINER_OF(user, struct attachment, receiver_user);
    attachment->receiver_running = false;
    wal_ingest_stop(attachment->ingest);
}

void attachment_stop(struct attachment *attachment)
{
    if (attachment->stopping) {
        return;
    }
    attachment->stopping = true;
    timer_stop(&attachment->import_timer);
    lsn_wait_cancel(&attachment->ready_wait);
    if (attachment->receiver_running) {
        wal_receiver_stop(attachment->receiver);
    } else {
        timer_start(attachment->server->options.loop, &attachment->import_timer, 0);
    }
}

void attachments_stop_all(struct server *server)
{
    LIST_FOR_EACH(&server->attachments, link)
    {
        attachment_stop(CONTAINER_OF(link, struct attachment, link));
    }
}

/* -- ingest -- */

static void on_changed(struct wal_ingest_user *user, const struct page_key *keys, size_t count)
{
    struct attachment *attachment = CONTAINER_OF(user, struct attachment, ingest_user);
    uint64_t uid = timeline_uid(attachment->timeline);
    for (size_t i = 0; i < count; i++) {
        page_cache_remove(attachment->server->cache, uid, keys[i]);
    }
}

static void on_advanced(struct wal_ingest_user *user)
{
    struct attachment *attachment = CONTAINER_OF(user, struct attachment, ingest_user);
    wal_receiver_send_feedback(attachment->receiver);
}

static void on_room(struct wal_ingest_user *user)
{
    wal_receiver_resume(CONTAINER_OF(user, struct attachment, ingest_user)->receiver);
}

static void on_restart(struct wal_ingest_user *user)
{
    wal_receiver_restart(CONTAINER_OF(user, struct attachment, ingest_user)->receiver);
}

static err_t read_page(
    struct page_store *store,
    const struct page_path *path,
    struct page_key key,
    lsn_t lsn,
    uint8_t *page,
    struct errmsg *msg)
{
    struct reconstruct work;
    reconstruct_init(&work, store, path, lsn);
    err_t err = reconstruct_page(&work, key, page, NULL, msg);
    reconstruct_deinit(&work);
    return err;
}

static void start_ingest(struct attachment *attachment)
{
    const struct server_options *options = &attachment->server->options;
    attachment->ingest_user = (struct wal_ingest_user){
        .on_changed = on_changed,
        .on_advanced = on_advanced,
        .on_room = on_room,
        .on_restart = on_restart,
        .on_stopped = on_ingest_stopped,
    };
    attachment->ingest = wal_ingest_create(&(struct wal_ingest_options){
        .loop = options->loop,
        .executor = attachment->server->background,
        .copier = attachment->server->copier,
        .timeline = attachment->timeline,
        .user = &attachment->ingest_user,
        .queue_bytes_max = options->ingest_queue_bytes,
        .record_size_max = options->record_size_max,
        .records_bytes_max = options->records_bytes_max,
        .image_after_records = options->image_after_records,
        .read_page = read_page,
    });
    attachment->ingest_running = true;
    attachment->receiver_user.on_stopped = on_receiver_stopped;
    attachment->receiver = wal_receiver_create(&(struct wal_receiver_options){
        .loop = options->loop,
        .timeline = attachment->timeline,
        .ingest = attachment->ingest,
        .user = &attachment->receiver_user,
        .node_id = options->node_id,
        .token = options->secret,
        .silence_max_ms = options->safekeeper_silence_ms,
    });
    attachment->receiver_running = true;
}

static void on_ready(struct lsn_wait *wait, err_t result)
{
    struct attachment *attachment = CONTAINER_OF(wait, struct attachment, ready_wait);
    if (result == ERR_OK && !attachment->stopping) {
        start_ingest(attachment);
    }
    /* Otherwise the timeline is going away, or an ancestor failed and the timeline says so. */
}

/* Records build on what the ancestors hold at the branch LSN: ingest begins when that is there. */
static void start_when_ready(struct attachment *attachment)
{
    struct timeline *tl = attachment->timeline;
    lsn_wait_start(
        &attachment->ready_wait, tl, timeline_info(tl)->start_lsn, LSN_WAIT_FOREVER, on_ready);
}

/* -- import -- */

static void retry_import(struct attachment *attachment, const struct errmsg *msg)
{
    attachment->import_error = *msg;
    log_warn(
        timeline_log(attachment->timeline), "import: %s; will retry",
        attachment->import_error.text);
    timer_start(attachment->server->options.loop, &attachment->import_timer, IMPORT_RETRY_MS);
}

static void on_import_finished(struct tenant_request *request, err_t result)
{
    struct attachment *attachment = CONTAINER_OF(request, struct attachment, imported_request);
    attachment->finishing_import = false;
    if (attachment->stopping) {
        free_when_over(attachment);
    } else if (result == ERR_OK) {
        attachment->import_error.text[0] = '\0';
        metric_add(&imports, 1);
        start_when_ready(attachment);
    } else {
        retry_import(attachment, &request->msg);
    }
}

static void on_import_done(struct job *job)
{
    struct attachment *attachment = CONTAINER_OF(job, struct attachment, import_job);
    attachment->importing = false;
    if (attachment->stopping) {
        free_when_over(attachment);
    } else if (job->result == ERR_OK) {
        attachment->finishing_import = true;
        attachment->imported_request.done = on_import_finished;
        tenant_timeline_imported(
            timeline_tenant(attachment->timeline), &attachment->imported_request,
            attachment->timeline, attachment->imported);
    } else {
        retry_import(attachment, &job->msg);
    }
}

static err_t import(struct job *job)
{
    struct attachment *attachment = CONTAINER_OF(job, struct attachment, import_job);
    const struct timeline_info *info = timeline_info(attachment->timeline);
    struct bootstrap_options options = {
        .objects = attachment->server->objects,
        .object = info->bootstrap_object,
        .store = timeline_store(attachment->timeline),
        .timeline = info->number,
        .start_lsn = info->start_lsn,
        .system_id = info->system_id,
    };
    return bootstrap_import(&options, &attachment->imported, &job->msg);
}

static void on_import_timer(struct timer *timer)
{
    struct attachment *attachment = CONTAINER_OF(timer, struct attachment, import_timer);
    if (attachment->stopping) {
        free_when_over(attachment);
        return;
    }
    attachment->importing = true;
    attachment->import_job = (struct job){.run = import, .done = on_import_done};
    executor_submit(attachment->server->copier, &attachment->import_job);
}

/* -- for the server -- */

struct attachment *attachment_find(const struct timeline *tl)
{
    struct timeline_user *user = timeline_user(tl);
    return user == NULL ? NULL : CONTAINER_OF(user, struct attachment, timeline_user);
}

void attachment_start(struct server *server, struct timeline *tl)
{
    struct attachment *attachment = attachment_find(tl);
    if (attachment != NULL) {
        if (attachment->receiver_running) {
            wal_receiver_restart(attachment->receiver); /* maybe other safekeepers */
        }
        return;
    }
    attachment = MEM_NEW(struct attachment);
    attachment->server = server;
    attachment->timeline = tl;
    attachment->import_timer.on_fire = on_import_timer;
    list_push_back(&server->attachments, &attachment->link);
    timeline_set_user(tl, &attachment->timeline_user);
    timeline_work_begin(tl);
    if (timeline_info(tl)->state == TIMELINE_IMPORTING) {
        timer_start(server->options.loop, &attachment->import_timer, 0);
    } else {
        start_when_ready(attachment);
    }
}

const char *attachment_feed(const struct attachment *attachment)
{
    return attachment->receiver == NULL ? "none: waits for its ancestors"
                                        : wal_receiver_status(attachment->receiver);
}

const char *attachment_import_error(const struct attachment *attachment)
{
    return attachment->import_error.text[0] == '\0' ? NULL : attachment->import_error.text;
}

void attachment_flushed(struct server *server, struct tenant *tenant)
{
    LIST_FOR_EACH(&server->attachments, link)
    {
        struct attachment *attachment = CONTAINER_OF(link, struct attachment, link);
        if (timeline_tenant(attachment->timeline) == tenant && attachment->receiver_running) {
            wal_receiver_send_feedback(attachment->receiver);
        }
        if (attachment->ingest_running) {
            wal_ingest_room(attachment->ingest); /* the memory is everybody's */
        }
    }
}

void attachments_observe(struct server *server)
{
    int64_t lag = 0, failed = 0;
    LIST_FOR_EACH(&server->attachments, link)
    {
        struct timeline *tl = CONTAINER_OF(link, struct attachment, link)->timeline;
        lsn_t commit = timeline_commit_lsn(tl), last = timeline_last_lsn(tl);
        lag += commit > last ? (int64_t)(commit - last) : 0;
        failed += timeline_failure(tl) != NULL ? 1 : 0;
    }
    metric_set(&lag_bytes, lag);
    metric_set(&failed_count, failed);
}
