#include "pageserver/ingest/wal_receiver.h"

#include <stdio.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/metric.h"

METRIC_COUNTER(
    received_bytes, "pageserver_feed_received_bytes_total", "WAL bytes from safekeepers");
METRIC_COUNTER(
    switches, "pageserver_feed_switches_total", "streams left for a safekeeper that has more");
METRIC_GAUGE(receivers, "pageserver_wal_receivers", "timelines for which WAL is being brought");

#define TICK_MS    500
#define STALL_MS   1000 /* no news while readers wait, or after all that this one has */
#define SLOW_MS    3000 /* no news although it has some */
#define PENALTY_MS 2000 /* a safekeeper that refused or stalled is not asked for so long */

struct wal_receiver {
    struct wal_receiver_options options;
    struct feed_channel channel;
    struct timer tick;
    mono_ns_t last_news;
    mono_ns_t penalty_until[SAFEKEEPERS_MAX]; /* as the sources of the watch's set */
    uint32_t forgotten;                       /* bits of those that have said so since WAL came */
    bool is_idle, is_hurried;
};

static size_t queued_bytes(const struct wal_receiver *receiver)
{
    const struct wal_ingest *ingest = receiver->options.ingest;
    return MIN_OF(wal_ingest_queued(ingest), receiver->options.queue_bytes_max);
}

static lsn_t next_lsn(const struct wal_receiver *receiver)
{
    return wal_ingest_next_lsn(receiver->options.ingest);
}

static lsn_t room_lsn(const struct wal_receiver *receiver)
{
    return next_lsn(receiver) + receiver->options.queue_bytes_max - queued_bytes(receiver);
}

/* -- the window -- */

/* In quarters of the queue; but when the window is used up, with whatever there is. */
static void move_window(struct wal_receiver *receiver)
{
    struct feed_channel *channel = &receiver->channel;
    lsn_t room = room_lsn(receiver);
    if (channel->source == NULL || room <= channel->window_lsn) {
        return;
    }
    if (room - channel->window_lsn >= receiver->options.queue_bytes_max / 4 ||
        next_lsn(receiver) >= channel->window_lsn) {
        feed_channel_move_window(channel, room);
    }
}

static void send_feedback(struct wal_receiver *receiver)
{
    const struct timeline *tl = receiver->options.timeline;
    struct feed_feedback feedback = {
        .generation = timeline_info(tl)->generation,
        .received_lsn = timeline_last_lsn(tl),
        .durable_lsn = timeline_durable_lsn(tl),
        .remote_lsn = timeline_unneeded_lsn(tl),
    };
    feed_channel_send_feedback(&receiver->channel, &feedback);
}

void wal_receiver_hurry(struct wal_receiver *receiver)
{
    struct feed_channel *channel = &receiver->channel;
    if (channel->source != NULL && channel->number != 0 && !receiver->is_hurried) {
        receiver->is_hurried = true; /* until WAL comes: those who wait by then wait for it */
        feed_channel_move_window(channel, channel->window_lsn);
    }
}

void wal_receiver_advanced(struct wal_receiver *receiver)
{
    send_feedback(receiver);
    move_window(receiver);
}

/* -- choosing -- */

/* SAFEKEEPERS_MAX: the timeline has moved elsewhere. */
static size_t index_of(const struct wal_receiver *receiver, const struct feed_source *source)
{
    const struct feed_set *set = receiver->options.watch->set;
    for (size_t i = 0; i < set->count; i++) {
        if (set->sources[i] == source) {
            return i;
        }
    }
    return SAFEKEEPERS_MAX;
}

/* Of all but `not_this`, the one with the most WAL, if that is more than we have; SAFEKEEPERS_MAX:
 * none. */
static size_t best_source(const struct wal_receiver *receiver, size_t not_this)
{
    const struct feed_watch *watch = receiver->options.watch;
    mono_ns_t now = clock_mono();
    size_t best = SAFEKEEPERS_MAX;
    lsn_t best_lsn = next_lsn(receiver);
    for (size_t i = 0; i < watch->set->count; i++) {
        lsn_t commit_lsn = watch->standings[i].commit_lsn;
        if (i != not_this && feed_watch_can_use(watch, i) && receiver->penalty_until[i] <= now &&
            commit_lsn > best_lsn) {
            best = i;
            best_lsn = commit_lsn;
        }
    }
    return best;
}

static void punish(struct wal_receiver *receiver, size_t index)
{
    if (index < SAFEKEEPERS_MAX) {
        receiver->penalty_until[index] = clock_mono() + PENALTY_MS * NS_PER_MS;
    }
}

static void open_best(struct wal_receiver *receiver)
{
    struct timeline *tl = receiver->options.timeline;
    size_t best = best_source(receiver, SAFEKEEPERS_MAX);
    if (best == SAFEKEEPERS_MAX || receiver->is_idle || timeline_failure(tl) != NULL) {
        return;
    }
    struct feed_source *source = receiver->options.watch->set->sources[best];
    receiver->is_hurried = false;
    receiver->last_news = clock_mono();
    feed_channel_open(&receiver->channel, source, tl, next_lsn(receiver), room_lsn(receiver));
    log_debug(
        timeline_log(tl), "WAL from " LSN_FMT " comes from safekeeper %" PRIu64,
        LSN_ARGS(next_lsn(receiver)), source->address.id);
}

/* Another one has more, and from this one nothing came for too long, though there was room. */
static void leave_if_stalled(struct wal_receiver *receiver)
{
    size_t index = index_of(receiver, receiver->channel.source);
    size_t best = best_source(receiver, index);
    if (best == SAFEKEEPERS_MAX || receiver->channel.window_lsn <= next_lsn(receiver)) {
        return;
    }
    const struct feed_watch *watch = receiver->options.watch;
    bool is_drained =
        index < SAFEKEEPERS_MAX && watch->standings[index].commit_lsn <= next_lsn(receiver);
    bool is_urgent = is_drained || timeline_has_waiters(receiver->options.timeline);
    mono_ns_t limit = is_urgent ? STALL_MS : SLOW_MS;
    if (clock_mono() - receiver->last_news >= limit * NS_PER_MS) {
        metric_add(&switches, 1);
        log_warn(
            timeline_log(receiver->options.timeline),
            "safekeeper %" PRIu64 " stays behind, %" PRIu64 " has more",
            receiver->channel.source->address.id, watch->set->sources[best]->address.id);
        feed_channel_close(&receiver->channel);
        punish(receiver, index);
    }
}

void wal_receiver_consider(struct wal_receiver *receiver)
{
    if (receiver->channel.source != NULL) {
        leave_if_stalled(receiver);
    }
    if (receiver->channel.source == NULL) {
        open_best(receiver);
    }
}

void wal_receiver_restart(struct wal_receiver *receiver)
{
    feed_channel_close(&receiver->channel);
    memset(receiver->penalty_until, 0, sizeof(receiver->penalty_until));
    open_best(receiver);
}

/* -- what comes -- */

static struct wal_receiver *receiver_of(struct feed_channel *channel)
{
    return CONTAINER_OF(channel, struct wal_receiver, channel);
}

static void saw_commit_lsn(struct wal_receiver *receiver, lsn_t commit_lsn)
{
    size_t index = index_of(receiver, receiver->channel.source);
    if (index < SAFEKEEPERS_MAX) {
        receiver->options.watch->standings[index].commit_lsn = commit_lsn;
    }
    timeline_saw_commit_lsn(receiver->options.timeline, commit_lsn);
}

static void on_wal(struct feed_channel *channel, const struct feed_wal *wal)
{
    struct wal_receiver *receiver = receiver_of(channel);
    struct errmsg msg;
    receiver->last_news = clock_mono();
    receiver->is_hurried = false;
    receiver->forgotten = 0;
    saw_commit_lsn(receiver, wal->commit_lsn);
    metric_add(&received_bytes, (int64_t)wal->wal.size);
    if (wal_ingest_feed(receiver->options.ingest, wal->begin_lsn, wal->wal, &msg) != ERR_OK) {
        log_warn(
            timeline_log(receiver->options.timeline), "safekeeper %" PRIu64 ": %s",
            channel->source->address.id, msg.text);
        punish(receiver, index_of(receiver, receiver->channel.source));
        feed_channel_close(channel);
        open_best(receiver);
        return;
    }
    move_window(receiver);
}

static void on_status(struct feed_channel *channel, lsn_t commit_lsn)
{
    struct wal_receiver *receiver = receiver_of(channel);
    saw_commit_lsn(receiver, commit_lsn);
    wal_receiver_advanced(receiver);
}

/* Somebody who is away may still have it; then the others do not hurry us. */
static void note_forgotten(struct wal_receiver *receiver, const struct feed_source *source)
{
    const struct feed_watch *watch = receiver->options.watch;
    size_t index = index_of(receiver, source);
    if (index == SAFEKEEPERS_MAX) {
        return;
    }
    receiver->forgotten |= 1u << index;
    for (size_t i = 0; i < watch->set->count; i++) {
        bool may_have_it = feed_watch_can_use(watch, i) &&
                           watch->standings[i].commit_lsn > next_lsn(receiver) &&
                           (receiver->forgotten & 1u << i) == 0;
        if (may_have_it) {
            return;
        }
    }
    receiver->options.user->on_forgotten(receiver->options.user);
}

static void on_lost(
    struct feed_channel *channel, struct feed_source *source, err_t err, const char *why)
{
    struct wal_receiver *receiver = receiver_of(channel);
    if (err == ERR_RANGE) {
        note_forgotten(receiver, source);
    }
    log_warn(
        timeline_log(receiver->options.timeline), "safekeeper %" PRIu64 ": %s", source->address.id,
        why);
    if (source->state == FEED_SOURCE_READY) {
        punish(receiver, index_of(receiver, source));
    }
    open_best(receiver);
}

/* -- time -- */

/* All that anybody has was received and ingested, some time ago. */
static bool is_at_rest(const struct wal_receiver *receiver)
{
    return clock_mono() - receiver->last_news >= receiver->options.idle_ms * NS_PER_MS &&
           wal_ingest_is_idle(receiver->options.ingest) &&
           feed_watch_commit_lsn(receiver->options.watch) <= next_lsn(receiver);
}

static void on_tick(struct timer *timer)
{
    struct wal_receiver *receiver = CONTAINER_OF(timer, struct wal_receiver, tick);
    bool is_failed = timeline_failure(receiver->options.timeline) != NULL;
    if (is_failed || is_at_rest(receiver)) {
        receiver->is_idle = true;
        feed_channel_close(&receiver->channel);
        receiver->options.watch->seen_lsn = next_lsn(receiver);
        receiver->options.user->on_idle(receiver->options.user);
        return;
    }
    timer_start(receiver->options.loop, timer, TICK_MS);
    move_window(receiver);
    wal_receiver_consider(receiver);
}

/* -- life -- */

struct wal_receiver *wal_receiver_create(const struct wal_receiver_options *options)
{
    static const struct feed_channel_callbacks callbacks = {
        .on_wal = on_wal, .on_status = on_status, .on_lost = on_lost};
    struct wal_receiver *receiver = MEM_NEW(struct wal_receiver);
    receiver->options = *options;
    receiver->channel.callbacks = &callbacks;
    receiver->last_news = clock_mono();
    receiver->tick.on_fire = on_tick;
    timeline_ref(options->timeline);
    metric_add(&receivers, 1);
    timer_start(options->loop, &receiver->tick, TICK_MS);
    open_best(receiver);
    return receiver;
}

void wal_receiver_destroy(struct wal_receiver *receiver)
{
    if (receiver == NULL) {
        return;
    }
    metric_add(&receivers, -1);
    timer_stop(&receiver->tick);
    feed_channel_close(&receiver->channel);
    timeline_unref(receiver->options.timeline);
    mem_free(receiver);
}

bool wal_receiver_describe(const struct wal_receiver *receiver, char *to, size_t to_size)
{
    const struct feed_channel *channel = &receiver->channel;
    if (channel->source == NULL || channel->number == 0) {
        return false;
    }
    (void)snprintf(to, to_size, "sk %" PRIu64, channel->source->address.id);
    return true;
}
