#include "safekeeper/timeline/feed.h"

#include "common/base/clock.h"
#include "common/base/mark.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "safekeeper/timeline/timeline_private.h"

METRIC_COUNTER(sent_bytes, "safekeeper_feed_bytes_total", "WAL bytes sent to pageservers");
METRIC_GAUGE(open_feeds, "safekeeper_feeds", "pageservers that are fed");

#define GATHER_MAX (64 * KIB) /* so much is worth a piece of its own */

struct feed {
    struct timeline *tl;
    struct link *link;
    struct feed_owner *owner;
    uint32_t channel;
    struct feed_info info;
    bool is_begun, is_broken;
    bool is_destroyed; /* a worker still has `read`: freed when it comes back */
    bool is_reading;   /* a worker has `read` */
    bool is_rewound;   /* begun anew meanwhile: what the worker brings is dropped */
    bool is_held;      /* a piece was read and waits until the link has room */
    lsn_t next_lsn;
    lsn_t window_lsn; /* nothing beyond it is wanted yet */
    lsn_t told_commit_lsn;
    struct timeline_read read;
    struct timer status_timer;
    struct timer gather_timer; /* until what has come since the last piece makes the next one */
    mono_ns_t sent_at;         /* the last piece */
    bool is_hurried;           /* somebody waits at the pageserver: the next commit goes at once */
    struct list_link in_timeline;
};

static void advance(struct feed *feed);

static lsn_t commit_lsn_of(const struct feed *feed)
{
    return feed->tl->acceptor.state.commit_lsn;
}

static lsn_t sendable_lsn(const struct feed *feed)
{
    return MIN_OF(commit_lsn_of(feed), feed->window_lsn);
}

static void send_status(struct feed *feed)
{
    struct feed_status status = {.commit_lsn = commit_lsn_of(feed)};
    LINK_SEND(
        feed->link, feed_status, &status, .type = FRAME_FEED_STATUS, .channel = feed->channel);
    feed->told_commit_lsn = status.commit_lsn;
}

static void break_feed(struct feed *feed, err_t err, const struct errmsg *msg)
{
    if (!feed->is_broken && !feed->is_destroyed) {
        feed->is_broken = true;
        timer_stop(&feed->status_timer);
        timer_stop(&feed->gather_timer);
        link_send_error(feed->link, feed->channel, 0, err, msg);
        feed->owner->on_broken(feed->owner); /* may destroy `feed` */
    }
}

static void send_wal(struct feed *feed)
{
    struct feed_wal piece = {
        .begin_lsn = feed->next_lsn,
        .commit_lsn = commit_lsn_of(feed),
        .wal = buf_view(&feed->read.wal),
    };
    LINK_SEND(feed->link, feed_wal, &piece, .type = FRAME_FEED_WAL, .channel = feed->channel);
    feed->next_lsn += piece.wal.size;
    feed->sent_at = clock_mono();
    feed->told_commit_lsn = piece.commit_lsn;
    feed->info.sent_lsn = feed->next_lsn;
    metric_add(&sent_bytes, (int64_t)piece.wal.size);
}

static void release(struct feed *feed)
{
    struct timeline *tl = feed->tl;
    timeline_read_deinit(&feed->read);
    mem_free(feed);
    timeline_unref(tl);
}

static void on_read_done(struct timeline_read *read, err_t result)
{
    struct feed *feed = CONTAINER_OF(read, struct feed, read);
    feed->is_reading = false;
    if (feed->is_destroyed) {
        release(feed);
        return;
    }
    bool is_wanted = !feed->is_rewound;
    feed->is_rewound = false;
    if (result == ERR_BUSY || feed->is_broken) {
        return; /* no file descriptor: the status timer tries again */
    }
    if (result != ERR_OK && is_wanted) {
        break_feed(feed, result, &read->msg);
        return;
    }
    feed->is_held = result == ERR_OK && is_wanted; /* many feeds may share the link */
    advance(feed);
}

static err_t check_begin(const struct feed *feed, lsn_t lsn, struct errmsg *msg)
{
    lsn_t begin_lsn = feed->tl->control.acceptor.begin_lsn;
    if (lsn >= begin_lsn) {
        return ERR_OK;
    }
    return err_set(
        msg, ERR_RANGE, "WAL from " LSN_FMT " is not here: this timeline begins at " LSN_FMT,
        LSN_ARGS(lsn), LSN_ARGS(begin_lsn));
}

/* Send what is committed and not yet sent, as long as the link takes it. */
static void advance(struct feed *feed)
{
    if (!feed->is_begun || feed->is_broken || feed->tl->state != TIMELINE_OPEN) {
        return;
    }
    if (feed->is_held && !link_is_congested(feed->link)) {
        feed->is_held = false;
        send_wal(feed);
    }
    while (!feed->is_reading && !feed->is_held && !link_is_congested(feed->link) &&
           feed->next_lsn < sendable_lsn(feed)) {
        feed->read.begin_lsn = feed->next_lsn;
        feed->read.end_lsn = MIN_OF(sendable_lsn(feed), feed->next_lsn + FEED_WAL_MAX);
        if (timeline_read_cached(feed->tl, &feed->read)) {
            send_wal(feed);
            continue;
        }
        MARK("feed.reads_files");
        feed->is_reading = true;
        feed->read.done = on_read_done;
        timeline_read_start(feed->tl, &feed->read);
    }
    if (!feed->is_reading && feed->next_lsn >= commit_lsn_of(feed) &&
        feed->told_commit_lsn < commit_lsn_of(feed)) {
        send_status(feed);
    }
}

/*
 * The first WAL after a silence goes at once; what follows it gathers for feed_gather_ms, because a
 * piece costs three processes more than what is in it does: two wakeups of the pageserver's threads
 * and its feedback.
 */
static void advance_soon(struct feed *feed)
{
    uint64_t gather_ms = feed->tl->env->feed_gather_ms;
    lsn_t end_lsn = sendable_lsn(feed);
    bool is_much = end_lsn > feed->next_lsn && end_lsn - feed->next_lsn >= GATHER_MAX;
    bool was_silent = clock_mono() - feed->sent_at >= gather_ms * NS_PER_MS;
    if (feed->is_hurried || is_much || (was_silent && !timer_is_started(&feed->gather_timer))) {
        feed->is_hurried = false;
        advance(feed);
    } else if (!timer_is_started(&feed->gather_timer) && feed->is_begun && !feed->is_broken) {
        timer_start(feed->tl->env->loop, &feed->gather_timer, gather_ms);
    }
}

static void on_gathered(struct timer *timer)
{
    advance(CONTAINER_OF(timer, struct feed, gather_timer));
}

/* A feed that has nothing to send keeps no file and no buffer. */
static void give_back(struct feed *feed)
{
    if (!feed->is_reading && !feed->is_held && feed->next_lsn >= sendable_lsn(feed)) {
        timeline_read_deinit(&feed->read);
    }
}

static void on_status_timer(struct timer *timer)
{
    struct feed *feed = CONTAINER_OF(timer, struct feed, status_timer);
    give_back(feed);
    if (!link_is_congested(feed->link)) {
        send_status(feed);
    }
    timer_start(feed->tl->env->loop, &feed->status_timer, feed->tl->env->feed_status_ms);
    advance(feed);
}

struct feed *feed_create(
    struct timeline *tl,
    struct link *link,
    uint32_t channel,
    node_id_t peer_id,
    generation_t generation,
    struct feed_owner *owner)
{
    ASSERT(tl->state == TIMELINE_OPEN);
    struct feed *feed = MEM_NEW(struct feed);
    feed->tl = timeline_ref(tl);
    feed->link = link;
    feed->channel = channel;
    feed->owner = owner;
    feed->info.peer_id = peer_id;
    feed->info.feedback.generation = generation;
    feed->window_lsn = UINT64_MAX;
    feed->status_timer.on_fire = on_status_timer;
    feed->gather_timer.on_fire = on_gathered;
    list_push_back(&tl->feeds, &feed->in_timeline);
    metric_add(&open_feeds, 1);
    return feed;
}

void feed_destroy(struct feed *feed)
{
    if (feed == NULL) {
        return;
    }
    ASSERT(!feed->is_destroyed);
    metric_add(&open_feeds, -1);
    list_remove(&feed->in_timeline);
    timer_stop(&feed->status_timer);
    timer_stop(&feed->gather_timer);
    feed->is_destroyed = true;
    if (!feed->is_reading) {
        release(feed);
    }
}

err_t feed_begin(struct feed *feed, lsn_t begin_lsn, struct errmsg *msg)
{
    TRY(check_begin(feed, begin_lsn, msg));
    feed->is_begun = true;
    feed->is_rewound = feed->is_reading;
    feed->is_held = false;
    feed->next_lsn = feed->info.sent_lsn = begin_lsn;
    feed->told_commit_lsn = LSN_NONE;
    timer_start(feed->tl->env->loop, &feed->status_timer, feed->tl->env->feed_status_ms);
    advance(feed);
    return ERR_OK;
}

void feed_window(struct feed *feed, lsn_t end_lsn)
{
    feed->window_lsn = end_lsn;
    feed->is_hurried = true;
    advance(feed);
}

void timeline_take_feedback(struct timeline_row *row, const struct timeline_feedback *feedback)
{
    if (feedback->generation < row->feedback.generation) {
        MARK("feed.feedback.old_generation");
        return;
    }
    lsn_t before_lsn = row->feedback.remote_lsn;
    row->feedback = *feedback; /* WAL is forgotten by it: forget.h */
    if (row->rest != NULL && before_lsn < row->forget_from_lsn &&
        feedback->remote_lsn >= row->forget_from_lsn && row->set != NULL) {
        MARK("feed.feedback.woken");
        (void)timeline_row_wake(row);
    }
}

void feed_feedback(struct feed *feed, const struct feed_feedback *feedback)
{
    feed->info.feedback = (struct timeline_feedback){
        .generation = feedback->generation,
        .received_lsn = feedback->received_lsn,
        .durable_lsn = feedback->durable_lsn,
        .remote_lsn = feedback->remote_lsn,
    };
    if (feed->tl->row != NULL) {
        timeline_take_feedback(feed->tl->row, &feed->info.feedback);
    }
}

void feed_drained(struct feed *feed)
{
    advance(feed);
}

void feeds_on_commit(struct timeline *tl)
{
    LIST_FOR_EACH(&tl->feeds, link)
    {
        advance_soon(CONTAINER_OF(link, struct feed, in_timeline));
    }
    watches_on_commit(tl);
}

/* By the horizon of the newest attachment: so it is an older one, or its disk is. */
void feeds_on_begin(struct timeline *tl)
{
    LIST_FOR_EACH(&tl->feeds, link)
    {
        struct feed *feed = CONTAINER_OF(link, struct feed, in_timeline);
        struct errmsg msg;
        err_t err = feed->is_begun ? check_begin(feed, feed->next_lsn, &msg) : ERR_OK;
        if (err != ERR_OK) {
            MARK("feed.forgotten");
            break_feed(feed, err, &msg);
        }
    }
}

void feeds_break(struct timeline *tl, err_t err, const struct errmsg *msg)
{
    LIST_FOR_EACH(&tl->feeds, link)
    {
        break_feed(CONTAINER_OF(link, struct feed, in_timeline), err, msg);
    }
    watches_end(tl, err);
}

struct timeline_feedback timeline_newest_feedback(const struct timeline *tl)
{
    return tl->row != NULL ? tl->row->feedback : (struct timeline_feedback){0};
}

size_t timeline_feed_count(const struct timeline *tl)
{
    size_t count = 0;
    LIST_FOR_EACH(&tl->feeds, link)
    {
        (void)link;
        count++;
    }
    return count;
}

struct feed_info timeline_feed_info(const struct timeline *tl, size_t index)
{
    LIST_FOR_EACH(&tl->feeds, link)
    {
        if (index-- == 0) {
            return CONTAINER_OF(link, struct feed, in_timeline)->info;
        }
    }
    return (struct feed_info){0};
}
