#include "pageserver/ingest/wal_receiver.h"

#include <stdio.h>

#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "common/base/parse.h"
#include "common/base/str.h"
#include "common/io/link.h"
#include "common/wire/feed_proto.h"
#include "common/wire/hello_proto.h"
#include "pageserver/timeline/tenant.h"

METRIC_COUNTER(
    received_bytes, "pageserver_feed_received_bytes_total", "WAL bytes from safekeepers");
METRIC_COUNTER(feed_starts, "pageserver_feed_starts_total", "streams begun at a safekeeper");
METRIC_GAUGE(feeds, "pageserver_feeds", "timelines that stream WAL from a safekeeper");

#define SOURCES_MAX    9
#define TICK_MS        500
#define PROBE_WAIT_MS  300  /* for slower answers, once one safekeeper has answered */
#define PROBE_MAX_MS   3000 /* then whoever answered must do, or it begins again */
#define BACKOFF_MIN_MS 100
#define BACKOFF_MAX_MS 5000
#define STALL_MS       1000 /* no news while readers wait: is another one ahead? */
#define IDLE_PROBE_MS  10000
#define PENALTY_MS     3000 /* a safekeeper that refused to stream is the last choice for so long */

enum source_state {
    SOURCE_OFF,
    SOURCE_CONNECTING, /* until it is open, then until it answered hello */
    SOURCE_READY,      /* said hello: commit_lsn is known */
    SOURCE_FEEDING,
    SOURCE_CLOSING,
};

/* One safekeeper of the timeline. */
struct source {
    struct wal_receiver *receiver;
    struct link_user user;
    enum source_state state;
    struct safekeeper_address address;
    uint32_t channel;
    lsn_t commit_lsn;
    mono_ns_t penalty_until;
    struct errmsg error; /* why it ended last */
};

struct wal_receiver {
    struct wal_receiver_options options;
    struct source sources[SOURCES_MAX];
    size_t source_count;
    struct source *feed; /* NULL: none */
    struct timer tick, decide;
    mono_ns_t probe_began; /* 0: no probe under way */
    mono_ns_t last_news, last_probe;
    uint64_t backoff_ms;
    uint64_t epoch;
    bool paused, reload, stopping, stopped;
    char status[sizeof(struct errmsg) + 64];
};

static void probe(struct wal_receiver *receiver);
static void check_stopped(struct wal_receiver *receiver);

/* -- addresses -- */

err_t safekeeper_address_take(
    const char **text, struct safekeeper_address *ret_address, struct errmsg *msg)
{
    if ((*text)[0] == '\0') {
        return ERR_NOT_FOUND;
    }
    char entry[200], *host, *port;
    size_t length = strcspn(*text, ",");
    if (length >= sizeof(entry)) {
        return err_set(msg, ERR_INVALID, "safekeepers: an entry of %zu bytes", length);
    }
    memcpy(entry, *text, length);
    entry[length] = '\0';
    *text += length + ((*text)[length] == ',' ? 1 : 0);
    host = strchr(entry, '@');
    port = strrchr(entry, ':');
    if (host == NULL || port == NULL || port < host) {
        return err_set(msg, ERR_INVALID, "safekeepers: \"%s\": expected ID@HOST:PORT", entry);
    }
    *host++ = '\0';
    *port++ = '\0';
    uint64_t number;
    TRY(parse_u64(entry, 1, UINT64_MAX, &ret_address->id, msg));
    TRY(parse_u64(port, 1, UINT16_MAX, &number, msg));
    ret_address->port = (uint16_t)number;
    return str_copy(ret_address->host, sizeof(ret_address->host), host, msg);
}

/* -- status -- */

static void set_status(struct wal_receiver *receiver)
{
    if (receiver->feed != NULL) {
        (void)snprintf(
            receiver->status, sizeof(receiver->status), "sk %" PRIu64, receiver->feed->address.id);
        return;
    }
    const struct source *last = NULL;
    for (size_t i = 0; i < receiver->source_count; i++) {
        if (receiver->sources[i].error.text[0] != '\0') {
            last = &receiver->sources[i];
        }
    }
    if (last == NULL) {
        (void)snprintf(receiver->status, sizeof(receiver->status), "none");
    } else {
        (void)snprintf(
            receiver->status, sizeof(receiver->status), "none: sk %" PRIu64 ": %s",
            last->address.id, last->error.text);
    }
}

const char *wal_receiver_status(const struct wal_receiver *receiver)
{
    return receiver->status;
}

/* -- one source -- */

static void source_close(struct source *source)
{
    if (source->receiver->feed == source) {
        source->receiver->feed = NULL;
        metric_add(&feeds, -1);
        set_status(source->receiver);
    }
    if (source->state != SOURCE_OFF && source->state != SOURCE_CLOSING) {
        source->state = SOURCE_CLOSING;
        link_abort(source->user.link);
    }
}

static void on_open(struct link_user *user)
{
    struct source *source = CONTAINER_OF(user, struct source, user);
    struct wal_receiver *receiver = source->receiver;
    const struct timeline_info *info = timeline_info(receiver->options.timeline);
    struct hello hello = {
        .protocol_min = PROTOCOL_VERSION_MIN,
        .protocol_max = PROTOCOL_VERSION_MAX,
        .role = HELLO_ROLE_FEED,
        .tenant = tenant_id(timeline_tenant(receiver->options.timeline)),
        .timeline = info->id,
        .shard_count = 1,
        .system_id = info->system_id,
        .generation = info->generation,
        .node_id = receiver->options.node_id,
        .connection_epoch = ++receiver->epoch,
        .token = bytes_of_str(receiver->options.token),
    };
    LINK_SEND(user->link, hello, &hello, .type = FRAME_HELLO, .request_id = 1);
}

void wal_receiver_send_feedback(struct wal_receiver *receiver)
{
    if (receiver->feed == NULL) {
        return;
    }
    struct timeline *tl = receiver->options.timeline;
    struct feed_feedback feedback = {
        .generation = timeline_info(tl)->generation,
        .received_lsn = timeline_last_lsn(tl),
        .durable_lsn = timeline_durable_lsn(tl),
        .remote_lsn = timeline_remote_lsn(receiver->options.timeline),
    };
    LINK_SEND(
        receiver->feed->user.link, feed_feedback, &feedback, .type = FRAME_FEED_FEEDBACK,
        .channel = receiver->feed->channel);
}

static void start_feed(struct source *source)
{
    struct wal_receiver *receiver = source->receiver;
    ASSERT(receiver->feed == NULL);
    receiver->feed = source;
    receiver->backoff_ms = BACKOFF_MIN_MS;
    receiver->last_news = clock_mono();
    receiver->paused = false;
    source->state = SOURCE_FEEDING;
    struct feed_start start = {.begin_lsn = wal_ingest_next_lsn(receiver->options.ingest)};
    LINK_SEND(
        source->user.link, feed_start, &start, .type = FRAME_FEED_START, .channel = source->channel,
        .request_id = 2);
    metric_add(&feed_starts, 1);
    metric_add(&feeds, 1);
    set_status(receiver);
    log_info(
        timeline_log(receiver->options.timeline),
        "WAL from " LSN_FMT " comes from safekeeper %" PRIu64, LSN_ARGS(start.begin_lsn),
        source->address.id);
    wal_receiver_send_feedback(receiver);
}

/* -- choosing -- */

static bool is_better(const struct source *a, const struct source *b, mono_ns_t now)
{
    bool a_penalty = a->penalty_until > now, b_penalty = b->penalty_until > now;
    return a_penalty != b_penalty ? b_penalty : a->commit_lsn > b->commit_lsn;
}

static struct source *best_ready(struct wal_receiver *receiver)
{
    struct source *best = NULL;
    mono_ns_t now = clock_mono();
    for (size_t i = 0; i < receiver->source_count; i++) {
        struct source *source = &receiver->sources[i];
        if (source->state == SOURCE_READY && (best == NULL || is_better(source, best, now))) {
            best = source;
        }
    }
    return best;
}

static size_t count_in(const struct wal_receiver *receiver, enum source_state state)
{
    size_t count = 0;
    for (size_t i = 0; i < receiver->source_count; i++) {
        count += receiver->sources[i].state == state ? 1 : 0;
    }
    return count;
}

static void close_all_but(struct wal_receiver *receiver, const struct source *kept)
{
    for (size_t i = 0; i < receiver->source_count; i++) {
        if (&receiver->sources[i] != kept) {
            source_close(&receiver->sources[i]);
        }
    }
}

/* The answers are in, or it is time: stream from the best one, or try again later. */
static void decide(struct wal_receiver *receiver)
{
    struct source *best = best_ready(receiver);
    struct source *current = receiver->feed;
    timer_stop(&receiver->decide);
    receiver->probe_began = 0;
    receiver->last_probe = clock_mono();
    if (current != NULL && (best == NULL || best->commit_lsn <= current->commit_lsn)) {
        close_all_but(receiver, current); /* nobody is ahead of it */
        return;
    }
    close_all_but(receiver, best);
    if (best != NULL) {
        timeline_saw_commit_lsn(receiver->options.timeline, best->commit_lsn);
        start_feed(best);
        return;
    }
    set_status(receiver);
    receiver->backoff_ms = MIN_OF(2 * receiver->backoff_ms, (uint64_t)BACKOFF_MAX_MS);
    timer_start(receiver->options.loop, &receiver->decide, receiver->backoff_ms);
}

static void on_decide_timer(struct timer *timer)
{
    struct wal_receiver *receiver = CONTAINER_OF(timer, struct wal_receiver, decide);
    if (receiver->probe_began != 0) {
        decide(receiver);
    } else {
        probe(receiver);
    }
}

/* A source answered or failed while a probe is under way. */
static void probe_progress(struct wal_receiver *receiver)
{
    if (receiver->probe_began == 0 || receiver->stopping) {
        return;
    }
    if (count_in(receiver, SOURCE_CONNECTING) == 0) {
        /* Not from inside a callback of a link that decide() may close. */
        timer_start(receiver->options.loop, &receiver->decide, 0);
    } else if (count_in(receiver, SOURCE_READY) > 0) {
        uint64_t waited_ms = (clock_mono() - receiver->probe_began) / NS_PER_MS;
        uint64_t left_ms = waited_ms >= PROBE_WAIT_MS ? 0 : PROBE_WAIT_MS - waited_ms;
        timer_start(receiver->options.loop, &receiver->decide, left_ms);
    }
}

/* -- frames -- */

static err_t on_hello_reply(struct source *source, struct reader *in)
{
    struct hello_reply reply;
    TRY(hello_reply_decode(&reply, in));
    source->channel = reply.channel;
    source->commit_lsn = reply.lsn;
    source->state = SOURCE_READY;
    probe_progress(source->receiver);
    return ERR_OK;
}

static err_t on_feed_wal(struct source *source, struct reader *in)
{
    struct wal_receiver *receiver = source->receiver;
    struct feed_wal wal;
    TRY(feed_wal_decode(&wal, in));
    receiver->last_news = clock_mono();
    source->commit_lsn = wal.commit_lsn;
    timeline_saw_commit_lsn(receiver->options.timeline, wal.commit_lsn);
    metric_add(&received_bytes, (int64_t)wal.wal.size);
    TRY(wal_ingest_feed(receiver->options.ingest, wal.begin_lsn, wal.wal, &source->error));
    if (wal_ingest_is_full(receiver->options.ingest) && !receiver->paused) {
        receiver->paused = true;
        link_pause(source->user.link);
    }
    return ERR_OK;
}

static err_t on_feed_status(struct source *source, struct reader *in)
{
    struct wal_receiver *receiver = source->receiver;
    struct feed_status status;
    TRY(feed_status_decode(&status, in));
    if (status.commit_lsn > source->commit_lsn) {
        receiver->last_news = clock_mono();
    }
    source->commit_lsn = status.commit_lsn;
    timeline_saw_commit_lsn(receiver->options.timeline, status.commit_lsn);
    wal_receiver_send_feedback(receiver);
    return ERR_OK;
}

static err_t on_error_frame(struct source *source, struct reader *in)
{
    struct error_reply reply;
    TRY(error_reply_decode(&reply, in));
    err_t code = reply.code < ERR_COUNT && reply.code != ERR_OK ? (err_t)reply.code : ERR_INVALID;
    source->penalty_until = clock_mono() + PENALTY_MS * NS_PER_MS;
    return err_set(
        &source->error, code, "%.*s", (int)MIN_OF(reply.message.size, (size_t)300),
        (const char *)reply.message.data);
}

static err_t dispatch(struct source *source, const struct frame *frame)
{
    struct reader in = reader_of(frame->payload);
    switch (frame->type) {
    case FRAME_ERROR: return on_error_frame(source, &in);
    case FRAME_HELLO_REPLY:
        return source->state == SOURCE_CONNECTING ? on_hello_reply(source, &in) : ERR_INVALID;
    case FRAME_FEED_WAL:
        return source->state == SOURCE_FEEDING ? on_feed_wal(source, &in) : ERR_INVALID;
    case FRAME_FEED_STATUS:
        return source->state == SOURCE_FEEDING ? on_feed_status(source, &in) : ERR_INVALID;
    default: return ERR_INVALID;
    }
}

static void on_frame(struct link_user *user, const struct frame *frame)
{
    struct source *source = CONTAINER_OF(user, struct source, user);
    if (source->state == SOURCE_CLOSING) {
        return;
    }
    err_t err = dispatch(source, frame);
    if (err == ERR_OK) {
        return;
    }
    if (frame->type != FRAME_ERROR && source->error.text[0] == '\0') {
        err_ignore(
            err_set(&source->error, err, "unexpected %s", frame_type_name(frame->type)),
            "said in the status");
    }
    bool was_feed = source->receiver->feed == source;
    log_write(
        timeline_log(source->receiver->options.timeline),
        was_feed ? LOG_LEVEL_WARN : LOG_LEVEL_DEBUG, "safekeeper %" PRIu64 ": %s",
        source->address.id, source->error.text);
    source_close(source);
    if (!was_feed) {
        probe_progress(source->receiver);
    }
}

static void on_closed(struct link_user *user, err_t reason, const struct errmsg *msg)
{
    struct source *source = CONTAINER_OF(user, struct source, user);
    struct wal_receiver *receiver = source->receiver;
    bool was_feed = receiver->feed == source;
    bool by_us = source->state == SOURCE_CLOSING;
    if (was_feed) {
        receiver->feed = NULL;
        metric_add(&feeds, -1);
    }
    source->state = SOURCE_OFF;
    if (!by_us && reason != ERR_OK) {
        source->error = *msg;
    }
    if (was_feed) {
        set_status(receiver);
        log_warn(
            timeline_log(receiver->options.timeline), "safekeeper %" PRIu64 " is gone: %s",
            source->address.id, msg == NULL ? "closed" : msg->text);
    }
    if (receiver->stopping) {
        check_stopped(receiver);
    } else if (receiver->probe_began != 0) {
        probe_progress(receiver);
    } else if (receiver->feed == NULL && !timer_is_started(&receiver->decide)) {
        timer_start(receiver->options.loop, &receiver->decide, receiver->backoff_ms);
    }
}

static const struct link_callbacks callbacks = {
    .on_open = on_open,
    .on_frame = on_frame,
    .on_closed = on_closed,
};

/* -- the list, probing, life -- */

static void load_sources(struct wal_receiver *receiver)
{
    const char *text = timeline_info(receiver->options.timeline)->safekeepers;
    struct errmsg msg;
    struct safekeeper_address address;
    receiver->source_count = 0;
    receiver->reload = false;
    while (receiver->source_count < SOURCES_MAX) {
        err_t err = safekeeper_address_take(&text, &address, &msg);
        if (err != ERR_OK) {
            ASSERT(err == ERR_NOT_FOUND); /* it was checked before it became a row */
            return;
        }
        receiver->sources[receiver->source_count++] =
            (struct source){.receiver = receiver, .user.callbacks = &callbacks, .address = address};
    }
}

static void connect_source(struct source *source)
{
    struct wal_receiver *receiver = source->receiver;
    struct link_options options = {
        .connect_timeout_ms = PROBE_MAX_MS, .idle_timeout_ms = receiver->options.silence_max_ms};
    source->error.text[0] = '\0';
    err_t err = link_connect(
        receiver->options.loop, source->address.host, source->address.port, &options, &source->user,
        &source->error);
    source->state = err == ERR_OK ? SOURCE_CONNECTING : SOURCE_OFF;
}

/* Hello to every safekeeper that is not in use; decide() follows. */
static void probe(struct wal_receiver *receiver)
{
    if (receiver->stopping) {
        return;
    }
    bool all_off = count_in(receiver, SOURCE_OFF) == receiver->source_count;
    if (receiver->reload && !all_off) {
        close_all_but(receiver, NULL);
        timer_start(receiver->options.loop, &receiver->decide, 10);
        return;
    }
    if (receiver->reload) {
        load_sources(receiver);
    }
    receiver->probe_began = clock_mono();
    for (size_t i = 0; i < receiver->source_count; i++) {
        if (receiver->sources[i].state == SOURCE_OFF) {
            connect_source(&receiver->sources[i]);
        }
    }
    timer_start(receiver->options.loop, &receiver->decide, PROBE_MAX_MS);
    probe_progress(receiver);
}

/* Is it time to ask whether another safekeeper is ahead of the one that we stream from? */
static void on_tick(struct timer *timer)
{
    struct wal_receiver *receiver = CONTAINER_OF(timer, struct wal_receiver, tick);
    timer_start(receiver->options.loop, timer, TICK_MS);
    if (receiver->feed == NULL || receiver->probe_began != 0 || receiver->paused) {
        return;
    }
    mono_ns_t now = clock_mono();
    mono_ns_t limit = timeline_has_waiters(receiver->options.timeline) ? STALL_MS : IDLE_PROBE_MS;
    if (now - receiver->last_news >= limit * NS_PER_MS &&
        now - receiver->last_probe >= limit * NS_PER_MS) {
        probe(receiver);
    }
}

struct wal_receiver *wal_receiver_create(const struct wal_receiver_options *options)
{
    struct wal_receiver *receiver = MEM_NEW(struct wal_receiver);
    receiver->options = *options;
    timeline_ref(options->timeline);
    receiver->backoff_ms = BACKOFF_MIN_MS;
    receiver->epoch = (uint64_t)clock_wall(); /* grows over restarts of this process */
    receiver->tick.on_fire = on_tick;
    receiver->decide.on_fire = on_decide_timer;
    load_sources(receiver);
    set_status(receiver);
    timer_start(options->loop, &receiver->tick, TICK_MS);
    timer_start(options->loop, &receiver->decide, 0);
    return receiver;
}

void wal_receiver_restart(struct wal_receiver *receiver)
{
    if (receiver->stopping) {
        return;
    }
    receiver->reload = true;
    receiver->probe_began = 0;
    close_all_but(receiver, NULL);
    timer_start(receiver->options.loop, &receiver->decide, 10);
}

void wal_receiver_resume(struct wal_receiver *receiver)
{
    if (receiver->paused) {
        receiver->paused = false;
        if (receiver->feed != NULL) {
            receiver->last_news = clock_mono();
            link_resume(receiver->feed->user.link);
        }
    }
}

static void check_stopped(struct wal_receiver *receiver)
{
    if (receiver->stopping && !receiver->stopped &&
        count_in(receiver, SOURCE_OFF) == receiver->source_count) {
        receiver->stopped = true;
        receiver->options.user->on_stopped(receiver->options.user);
    }
}

void wal_receiver_stop(struct wal_receiver *receiver)
{
    ASSERT(!receiver->stopping);
    receiver->stopping = true;
    timer_stop(&receiver->tick);
    timer_stop(&receiver->decide);
    close_all_but(receiver, NULL);
    check_stopped(receiver);
}

void wal_receiver_destroy(struct wal_receiver *receiver)
{
    if (receiver == NULL) {
        return;
    }
    ASSERT(receiver->stopped);
    timeline_unref(receiver->options.timeline);
    mem_free(receiver);
}
