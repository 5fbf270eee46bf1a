#include "safekeeper/timeline/watcher.h"

#include "common/base/clock.h"
#include "common/base/mark.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "safekeeper/timeline/timeline_private.h"

METRIC_GAUGE(watchers, "safekeeper_watchers", "pageservers that hear of their timelines");
METRIC_GAUGE(watch_count, "safekeeper_watches", "timelines that are watched, once a pageserver");
METRIC_COUNTER(reports, "safekeeper_watch_reports_total", "times that one was told of a timeline");

struct watcher {
    const struct timeline_env *env;
    const struct timeline_set *set;
    struct link *link;
    uint32_t channel;
    struct list watches;
    struct list moved;      /* to be told of as soon as the link takes it */
    struct list moved_more; /* told of just now: with the next sign of life */
    struct loop_task task;
    struct timer timer;
    bool is_posted, is_destroyed;
};

/* Of a row, so that who is watched may rest. */
struct watch {
    struct watcher *watcher;
    const struct timeline_row *row; /* NULL once it has ended */
    uint64_t key;
    err_t end;         /* ERR_OK: it is watched; otherwise it goes once that was told */
    bool is_answered;  /* it was told where it stands */
    mono_ns_t told_at; /* that it has moved since */
    struct list_link in_watcher, in_row, in_moved;
};

static void watch_destroy(struct watch *watch)
{
    list_remove(&watch->in_watcher);
    list_remove(&watch->in_row);
    list_remove(&watch->in_moved);
    mem_free(watch);
    metric_add(&watch_count, -1);
}

/* Its positions are known: it rests, or is open. */
static bool is_known(const struct timeline_row *row)
{
    return row->tl == NULL ? row->rest != NULL : row->tl->state == TIMELINE_OPEN;
}

static lsn_t commit_lsn_of(const struct timeline_row *row)
{
    return row->tl == NULL ? row->commit_lsn : row->tl->acceptor.state.commit_lsn;
}

/* ---- telling ---- */

static void append_report(struct buf *entries, struct watch *watch)
{
    struct status_report report = {.key = watch->key, .code = watch->end};
    if (watch->end == ERR_OK) {
        report.commit_lsn = commit_lsn_of(watch->row);
    }
    status_report_append(entries, &report);
    /* The answer is no news: a timeline that moves right after it is told of at once. */
    watch->told_at = watch->is_answered ? clock_mono() : 0;
    watch->is_answered = true;
    list_remove(&watch->in_moved);
    if (watch->end != ERR_OK) {
        watch_destroy(watch);
    }
}

static void send_entries(struct watcher *watcher, const struct buf *entries)
{
    struct status_list list = {.entries = buf_view(entries)};
    LINK_SEND(
        watcher->link, status_list, &list, .type = FRAME_STATUS_REPORT,
        .channel = watcher->channel);
    metric_add(&reports, (int64_t)(entries->size / STATUS_REPORT_SIZE));
}

static void tell_moved(struct watcher *watcher)
{
    struct buf entries = {0};
    while (!list_is_empty(&watcher->moved) && !link_is_congested(watcher->link)) {
        buf_clear(&entries);
        for (unsigned i = 0; i < STATUS_ENTRIES_MAX && !list_is_empty(&watcher->moved); i++) {
            struct list_link *first = list_first(&watcher->moved);
            append_report(&entries, CONTAINER_OF(first, struct watch, in_moved));
        }
        send_entries(watcher, &entries);
    }
    buf_deinit(&entries);
}

static void post(struct watcher *watcher)
{
    if (!watcher->is_posted) {
        watcher->is_posted = true;
        loop_post(watcher->env->loop, &watcher->task);
    }
}

/* Now, or with the others when it was told of not long ago. */
static void tell(struct watch *watch)
{
    struct watcher *watcher = watch->watcher;
    bool is_told = clock_mono() - watch->told_at < watcher->env->feed_status_ms * NS_PER_MS;
    if (watch->end == ERR_OK && is_told) {
        if (!list_link_is_in(&watch->in_moved)) {
            list_push_back(&watcher->moved_more, &watch->in_moved);
        }
        return;
    }
    list_remove(&watch->in_moved);
    list_push_back(&watcher->moved, &watch->in_moved);
    post(watcher);
}

static void end_watch(struct watch *watch, err_t code)
{
    watch->end = code;
    watch->row = NULL;
    list_remove(&watch->in_row);
    tell(watch);
}

void watches_on_commit(struct timeline *tl)
{
    LIST_FOR_EACH(&tl->row->watches, link)
    {
        tell(CONTAINER_OF(link, struct watch, in_row));
    }
}

void watches_end(struct timeline *tl, err_t err)
{
    LIST_FOR_EACH(&tl->row->watches, link)
    {
        end_watch(
            CONTAINER_OF(link, struct watch, in_row),
            err == ERR_FAILED ? ERR_FAILED : ERR_NOT_FOUND);
    }
}

/* ---- being told ---- */

/* Few watch the same timeline. */
static struct watch *find_watch(const struct watcher *watcher, struct timeline_row *row)
{
    LIST_FOR_EACH(&row->watches, link)
    {
        struct watch *watch = CONTAINER_OF(link, struct watch, in_row);
        if (watch->watcher == watcher) {
            return watch;
        }
    }
    return NULL;
}

static struct watch *watch_create(struct watcher *watcher, struct timeline_row *row)
{
    struct watch *watch = MEM_NEW(struct watch);
    watch->watcher = watcher;
    watch->row = row;
    list_push_back(&watcher->watches, &watch->in_watcher);
    list_push_back(&row->watches, &watch->in_row);
    metric_add(&watch_count, 1);
    return watch;
}

/* The key may be new: the pageserver has let go of the timeline and taken it up again. */
static void watch_again(struct watch *watch, uint64_t key)
{
    if (watch->key != key) {
        watch->key = key;
        watch->told_at = 0;
        watch->is_answered = false;
        if (is_known(watch->row)) {
            tell(watch);
        }
    }
}

static void watch_one(
    struct watcher *watcher, const struct status_watch *message, struct buf *refusals)
{
    struct timeline_row *row = timeline_set_row(watcher->set, message->tenant, message->timeline);
    const struct timeline *tl = row == NULL ? NULL : row->tl;
    bool is_failed = tl != NULL && tl->state == TIMELINE_FAILED;
    if (row == NULL || is_failed || (tl != NULL && tl->state == TIMELINE_CLOSED)) {
        struct status_report report = {
            .key = message->key,
            .code = is_failed ? ERR_FAILED : ERR_NOT_FOUND,
        };
        status_report_append(refusals, &report);
        return;
    }
    timeline_take_feedback(
        row, &(struct timeline_feedback){
                 .generation = message->generation,
                 .received_lsn = message->received_lsn,
                 .durable_lsn = message->durable_lsn,
                 .remote_lsn = message->remote_lsn,
             });
    struct watch *watch = find_watch(watcher, row);
    if (watch != NULL) {
        watch_again(watch, message->key);
        return;
    }
    watch = watch_create(watcher, row);
    watch->key = message->key;
    if (is_known(row)) { /* otherwise it is told of when it has been opened */
        tell(watch);
    }
}

err_t watcher_watch(struct watcher *watcher, const struct status_list *list)
{
    struct bytes entries = list->entries;
    struct buf refusals = {0};
    struct status_watch message;
    if (entries.size > (size_t)STATUS_ENTRIES_MAX * STATUS_WATCH_SIZE) {
        return ERR_CORRUPT;
    }
    err_t err = status_watch_take(&entries, &message);
    while (err == ERR_OK) {
        watch_one(watcher, &message, &refusals);
        err = status_watch_take(&entries, &message);
    }
    if (refusals.size > 0) {
        MARK("watcher.unknown_timeline");
        send_entries(watcher, &refusals);
    }
    buf_deinit(&refusals);
    return err == ERR_NOT_FOUND ? ERR_OK : err;
}

void watcher_unwatch(struct watcher *watcher, const struct status_unwatch *message)
{
    struct timeline_row *row = timeline_set_row(watcher->set, message->tenant, message->timeline);
    struct watch *watch = row == NULL ? NULL : find_watch(watcher, row);
    if (watch != NULL) {
        watch_destroy(watch);
    }
}

void watcher_drained(struct watcher *watcher)
{
    tell_moved(watcher);
}

/* ---- life ---- */

static void on_posted(struct loop_task *task)
{
    struct watcher *watcher = CONTAINER_OF(task, struct watcher, task);
    watcher->is_posted = false;
    if (watcher->is_destroyed) {
        mem_free(watcher);
        return;
    }
    tell_moved(watcher);
}

/* What moved since it was told of, and in any case a sign of life. */
static void on_timer(struct timer *timer)
{
    struct watcher *watcher = CONTAINER_OF(timer, struct watcher, timer);
    struct list_link *first;
    timer_start(watcher->env->loop, timer, watcher->env->feed_status_ms);
    while ((first = list_pop_front(&watcher->moved_more)) != NULL) {
        list_push_back(&watcher->moved, first);
    }
    if (list_is_empty(&watcher->moved) && !link_is_congested(watcher->link)) {
        send_entries(watcher, &(struct buf){0});
    }
    tell_moved(watcher);
}

struct watcher *watcher_create(
    const struct timeline_env *env,
    const struct timeline_set *set,
    struct link *link,
    uint32_t channel)
{
    struct watcher *watcher = MEM_NEW(struct watcher);
    watcher->env = env;
    watcher->set = set;
    watcher->link = link;
    watcher->channel = channel;
    watcher->task.run = on_posted;
    watcher->timer.on_fire = on_timer;
    list_init(&watcher->watches);
    list_init(&watcher->moved);
    list_init(&watcher->moved_more);
    timer_start(env->loop, &watcher->timer, env->feed_status_ms);
    metric_add(&watchers, 1);
    return watcher;
}

void watcher_destroy(struct watcher *watcher)
{
    if (watcher == NULL) {
        return;
    }
    struct list_link *first;
    while ((first = list_first(&watcher->watches)) != NULL) {
        watch_destroy(CONTAINER_OF(first, struct watch, in_watcher));
    }
    timer_stop(&watcher->timer);
    metric_add(&watchers, -1);
    watcher->is_destroyed = true;
    if (!watcher->is_posted) {
        mem_free(watcher);
    }
}
