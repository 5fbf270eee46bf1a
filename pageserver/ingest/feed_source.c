#include "pageserver/ingest/feed_source.h"

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "common/wire/hello_proto.h"
#include "pageserver/ingest/feeds.h"
#include "pageserver/timeline/tenant.h"

METRIC_GAUGE(ready_count, "pageserver_safekeepers", "safekeepers that are connected");
METRIC_COUNTER(connects, "pageserver_safekeeper_connects_total", "connections to safekeepers");
METRIC_GAUGE(open_channels, "pageserver_feeds", "timelines that stream WAL from a safekeeper");
METRIC_COUNTER(feed_starts, "pageserver_feed_starts_total", "streams begun at a safekeeper");

#define CONNECT_MAX_MS 3000
#define BACKOFF_MIN_MS 100
#define BACKOFF_MAX_MS 5000

static void resync(struct feed_source *source);

static struct link *link_of(const struct feed_source *source)
{
    return source->user.link;
}

/* -- channels -- */

static struct list *bucket_of(struct feed_source *source, uint32_t number)
{
    return &source->open[number % FEED_SOURCE_BUCKETS];
}

static struct feed_channel *find_open(struct feed_source *source, uint32_t number)
{
    LIST_FOR_EACH(bucket_of(source, number), link)
    {
        struct feed_channel *channel = CONTAINER_OF(link, struct feed_channel, link);
        if (channel->number == number) {
            return channel;
        }
    }
    return NULL;
}

static struct feed_channel *find_greeting(struct feed_source *source, uint64_t request_id)
{
    LIST_FOR_EACH(&source->greeting, link)
    {
        struct feed_channel *channel = CONTAINER_OF(link, struct feed_channel, link);
        if (channel->request_id == request_id) {
            return channel;
        }
    }
    return NULL;
}

static void forget_channel(struct feed_channel *channel)
{
    metric_add(&open_channels, channel->number != 0 ? -1 : 0);
    list_remove(&channel->link);
    channel->source = NULL;
    channel->number = 0;
}

static void lose_channel(struct feed_channel *channel, err_t err, const char *why)
{
    struct feed_source *source = channel->source;
    forget_channel(channel);
    channel->callbacks->on_lost(channel, source, err, why);
}

static void lose_list(struct list *list, const char *why)
{
    struct list_link *first;
    while ((first = list_first(list)) != NULL) {
        lose_channel(CONTAINER_OF(first, struct feed_channel, link), ERR_IO, why);
    }
}

static struct hello hello_of(const struct feed_source *source, enum hello_role role)
{
    const struct feeds_options *options = feeds_options(source->feeds);
    return (struct hello){
        .protocol_min = 2,
        .protocol_max = PROTOCOL_VERSION_MAX,
        .role = (uint8_t)role,
        .shard_count = 1,
        .node_id = options->node_id,
        .connection_epoch = (uint64_t)clock_wall(), /* grows over restarts of this process */
        .token = bytes_of_str(options->token),
    };
}

void feed_channel_open(
    struct feed_channel *channel,
    struct feed_source *source,
    const struct timeline *tl,
    lsn_t begin_lsn,
    lsn_t window_lsn)
{
    ASSERT(source->state == FEED_SOURCE_READY);
    ASSERT(channel->source == NULL);
    const struct timeline_info *info = timeline_info(tl);
    struct hello hello = hello_of(source, HELLO_ROLE_FEED);
    hello.tenant = tenant_id(timeline_tenant(tl));
    hello.timeline = info->id;
    hello.system_id = info->system_id;
    hello.generation = info->generation;
    channel->source = source;
    channel->number = 0;
    channel->request_id = ++source->last_request_id;
    channel->begin_lsn = begin_lsn;
    channel->window_lsn = window_lsn;
    list_push_back(&source->greeting, &channel->link);
    LINK_SEND(
        link_of(source), hello, &hello, .type = FRAME_HELLO, .request_id = channel->request_id);
}

static void send_stop(struct feed_source *source, uint32_t number)
{
    link_send(link_of(source), &(struct frame){.type = FRAME_FEED_STOP, .channel = number});
}

void feed_channel_close(struct feed_channel *channel)
{
    struct feed_source *source = channel->source;
    uint32_t number = channel->number;
    if (source == NULL) {
        return;
    }
    forget_channel(channel);
    if (number != 0) {
        send_stop(source, number); /* otherwise when the reply comes */
    }
}

static void send_window(struct feed_channel *channel)
{
    struct feed_window window = {.end_lsn = channel->window_lsn};
    LINK_SEND(
        link_of(channel->source), feed_window, &window, .type = FRAME_FEED_WINDOW,
        .channel = channel->number);
}

void feed_channel_move_window(struct feed_channel *channel, lsn_t window_lsn)
{
    channel->window_lsn = window_lsn;
    if (channel->number != 0) {
        send_window(channel);
    }
}

void feed_channel_send_feedback(struct feed_channel *channel, const struct feed_feedback *feedback)
{
    if (channel->number != 0) {
        LINK_SEND(
            link_of(channel->source), feed_feedback, feedback, .type = FRAME_FEED_FEEDBACK,
            .channel = channel->number);
    }
}

static void begin_channel(struct feed_channel *channel, uint32_t number)
{
    struct feed_source *source = channel->source;
    list_remove(&channel->link);
    channel->number = number;
    list_push_back(bucket_of(source, number), &channel->link);
    metric_add(&open_channels, 1);
    metric_add(&feed_starts, 1);
    send_window(channel);
    struct feed_start start = {.begin_lsn = channel->begin_lsn};
    LINK_SEND(
        link_of(source), feed_start, &start, .type = FRAME_FEED_START, .channel = number,
        .request_id = ++source->last_request_id);
}

/* -- status -- */

static struct status_watch status_watch_of(
    const struct feed_source *source, const struct feed_watch *watch)
{
    const struct timeline *tl = watch->timeline;
    return (struct status_watch){
        .key = feeds_key(source->feeds, watch->slot),
        .tenant = tenant_id(timeline_tenant(tl)),
        .timeline = timeline_info(tl)->id,
        .generation = timeline_info(tl)->generation,
        .received_lsn = timeline_last_lsn(tl),
        .durable_lsn = timeline_durable_lsn(tl),
        .remote_lsn = timeline_unneeded_lsn(tl),
    };
}

static void send_watches(struct feed_source *source, struct buf *entries)
{
    if (entries->size > 0) {
        struct status_list list = {.entries = buf_view(entries)};
        LINK_SEND(
            link_of(source), status_list, &list, .type = FRAME_STATUS_WATCH,
            .channel = source->status_channel);
        buf_clear(entries);
    }
}

static void add_watch(
    struct feed_source *source, struct buf *entries, const struct feed_watch *watch)
{
    struct status_watch entry = status_watch_of(source, watch);
    status_watch_append(entries, &entry);
    if (entries->size == (size_t)STATUS_ENTRIES_MAX * STATUS_WATCH_SIZE) {
        send_watches(source, entries);
    }
}

/* On with watching all timelines, until the link has enough. */
static void resync(struct feed_source *source)
{
    struct buf entries = {0};
    while (source->watched < feeds_slots(source->feeds) && !link_is_congested(link_of(source))) {
        const struct feed_watch *watch = feeds_watch_in(source->feeds, source->watched++);
        if (watch != NULL && feed_watch_has(watch, source)) {
            add_watch(source, &entries, watch);
        }
    }
    send_watches(source, &entries);
    buf_deinit(&entries);
}

void feed_source_watch(struct feed_source *source, const struct feed_watch *watch)
{
    if (source->state != FEED_SOURCE_READY || watch->slot >= source->watched) {
        if (source->state == FEED_SOURCE_READY && !link_is_congested(link_of(source))) {
            resync(source);
        }
        return; /* resync() comes to it, or came just now */
    }
    source->unknown_ms = BACKOFF_MIN_MS; /* control may be creating it there right now */
    if (timer_is_started(&source->unknown_timer)) {
        timer_start(feeds_options(source->feeds)->loop, &source->unknown_timer, source->unknown_ms);
    }
    feed_source_add_position(source, watch);
    feed_source_send_positions(source);
}

void feed_source_unwatch(struct feed_source *source, const struct feed_watch *watch)
{
    if (source->state == FEED_SOURCE_READY) {
        struct status_unwatch unwatch = {
            .tenant = tenant_id(timeline_tenant(watch->timeline)),
            .timeline = timeline_info(watch->timeline)->id,
        };
        LINK_SEND(
            link_of(source), status_unwatch, &unwatch, .type = FRAME_STATUS_UNWATCH,
            .channel = source->status_channel);
    }
}

void feed_source_add_position(struct feed_source *source, const struct feed_watch *watch)
{
    add_watch(source, &source->positions, watch);
}

void feed_source_send_positions(struct feed_source *source)
{
    if (source->state == FEED_SOURCE_READY) {
        send_watches(source, &source->positions);
    }
    buf_deinit(&source->positions);
}

void feed_source_ask_later(struct feed_source *source, uint32_t slot)
{
    buf_append(&source->unknown, &slot, sizeof(slot));
    if (!timer_is_started(&source->unknown_timer)) {
        timer_start(feeds_options(source->feeds)->loop, &source->unknown_timer, source->unknown_ms);
        source->unknown_ms = MIN_OF(2 * source->unknown_ms, (uint64_t)BACKOFF_MAX_MS);
    }
}

/* A slot may have changed hands meanwhile: to be asked for once more is harmless. */
static void on_unknown_timer(struct timer *timer)
{
    struct feed_source *source = CONTAINER_OF(timer, struct feed_source, unknown_timer);
    struct buf slots = source->unknown;
    source->unknown = (struct buf){0};
    for (size_t at = 0; at < slots.size && source->state == FEED_SOURCE_READY;
         at += sizeof(uint32_t)) {
        uint32_t slot;
        memcpy(&slot, slots.data + at, sizeof(slot));
        struct feed_watch *watch = feeds_watch_in(source->feeds, slot);
        if (link_is_congested(link_of(source))) {
            feed_source_ask_later(source, slot);
        } else if (watch != NULL && feed_watch_ask_again(watch, source)) {
            feed_source_add_position(source, watch);
        }
    }
    buf_deinit(&slots);
    feed_source_send_positions(source);
}

/* -- the connection -- */

static void begin_close(struct feed_source *source)
{
    if (source->state == FEED_SOURCE_CONNECTING || source->state == FEED_SOURCE_READY) {
        metric_add(&ready_count, source->state == FEED_SOURCE_READY ? -1 : 0);
        source->state = FEED_SOURCE_CLOSING;
        link_abort(link_of(source));
    }
}

static void lose_channels(struct feed_source *source, const char *why)
{
    lose_list(&source->greeting, why);
    for (size_t i = 0; i < FEED_SOURCE_BUCKETS; i++) {
        lose_list(&source->open[i], why);
    }
}

static void connect_source(struct feed_source *source)
{
    struct link_options options = {
        .connect_timeout_ms = CONNECT_MAX_MS,
        .idle_timeout_ms = feeds_options(source->feeds)->silence_max_ms,
    };
    metric_add(&connects, 1);
    source->state = FEED_SOURCE_CONNECTING;
    err_t err = link_connect(
        feeds_options(source->feeds)->loop, source->address.host, source->address.port, &options,
        &source->user, &source->error);
    if (err != ERR_OK) {
        source->state = FEED_SOURCE_OFF;
        timer_start(feeds_options(source->feeds)->loop, &source->timer, BACKOFF_MAX_MS);
    }
}

static void on_timer(struct timer *timer)
{
    connect_source(CONTAINER_OF(timer, struct feed_source, timer));
}

static void on_open(struct link_user *user)
{
    struct feed_source *source = CONTAINER_OF(user, struct feed_source, user);
    struct hello hello = hello_of(source, HELLO_ROLE_STATUS);
    source->status_request_id = ++source->last_request_id;
    LINK_SEND(
        user->link, hello, &hello, .type = FRAME_HELLO, .request_id = source->status_request_id);
}

static void release(struct feed_source *source)
{
    ASSERT(source->references == 0);
    timer_stop(&source->timer);
    timer_stop(&source->unknown_timer);
    feeds_forget_source(source->feeds, source);
    buf_deinit(&source->unknown);
    buf_deinit(&source->positions);
    mem_free(source);
}

static void on_closed(struct link_user *user, err_t reason, const struct errmsg *msg)
{
    struct feed_source *source = CONTAINER_OF(user, struct feed_source, user);
    bool was_ready = source->state == FEED_SOURCE_READY;
    bool by_us = source->state == FEED_SOURCE_CLOSING;
    metric_add(&ready_count, was_ready ? -1 : 0);
    source->state = FEED_SOURCE_OFF;
    timer_stop(&source->unknown_timer);
    buf_deinit(&source->unknown);
    if (!by_us && reason != ERR_OK) {
        source->error = *msg;
    } else if (source->error.text[0] == '\0') {
        err_ignore(
            err_set(&source->error, ERR_IO, "closed by %s", by_us ? "us" : "the safekeeper"),
            "said in the status");
    }
    if (was_ready) {
        log_warn(NULL, "safekeeper %" PRIu64 ": %s", source->address.id, source->error.text);
    }
    if (source->references > 0 && source->backoff_ms > 0) {
        timer_start(feeds_options(source->feeds)->loop, &source->timer, source->backoff_ms);
        source->backoff_ms = MIN_OF(2 * source->backoff_ms, (uint64_t)BACKOFF_MAX_MS);
    }
    source->references++; /* the channels may lead to our end */
    lose_channels(source, source->error.text);
    if (--source->references == 0) {
        release(source);
    }
}

/* -- frames -- */

static void on_status_open(struct feed_source *source, uint32_t channel)
{
    source->status_channel = channel;
    source->state = FEED_SOURCE_READY;
    source->backoff_ms = BACKOFF_MIN_MS;
    source->unknown_ms = BACKOFF_MIN_MS;
    source->watched = 0;
    source->error.text[0] = '\0';
    metric_add(&ready_count, 1);
    log_info(
        NULL, "safekeeper %" PRIu64 " at %s is connected", source->address.id,
        link_peer(link_of(source)));
    resync(source);
}

static err_t on_hello_reply(struct feed_source *source, const struct frame *frame)
{
    struct hello_reply reply;
    struct reader in = reader_of(frame->payload);
    TRY(hello_reply_decode(&reply, &in));
    if (reply.protocol < 2) {
        return ERR_UNSUPPORTED;
    }
    if (source->state == FEED_SOURCE_CONNECTING) {
        if (frame->request_id != source->status_request_id) {
            return ERR_INVALID;
        }
        on_status_open(source, reply.channel);
        return ERR_OK;
    }
    struct feed_channel *channel = find_greeting(source, frame->request_id);
    if (channel == NULL) {
        send_stop(source, reply.channel); /* closed before it was open */
    } else if (reply.channel == 0 || find_open(source, reply.channel) != NULL) {
        return ERR_INVALID;
    } else {
        begin_channel(channel, reply.channel);
    }
    return ERR_OK;
}

static err_t on_error_frame(struct feed_source *source, const struct frame *frame)
{
    struct error_reply reply;
    struct reader in = reader_of(frame->payload);
    TRY(error_reply_decode(&reply, &in));
    err_t code = reply.code < ERR_COUNT && reply.code != ERR_OK ? (err_t)reply.code : ERR_INVALID;
    struct errmsg msg;
    code = err_set(
        &msg, code, "%.*s", (int)MIN_OF(reply.message.size, (size_t)300),
        (const char *)reply.message.data);
    struct feed_channel *channel = frame->channel == 0 ? find_greeting(source, frame->request_id)
                                                       : find_open(source, frame->channel);
    if (channel != NULL) {
        lose_channel(channel, code, msg.text);
        return ERR_OK;
    }
    if (source->state == FEED_SOURCE_CONNECTING || frame->channel == source->status_channel) {
        source->error = msg;
        return code;
    }
    return ERR_OK; /* of a channel that we have closed */
}

static err_t on_feed_frame(struct feed_source *source, const struct frame *frame)
{
    struct feed_channel *channel = find_open(source, frame->channel);
    struct reader in = reader_of(frame->payload);
    if (frame->type == FRAME_FEED_WAL) {
        struct feed_wal wal;
        TRY(feed_wal_decode(&wal, &in));
        if (channel != NULL) {
            channel->callbacks->on_wal(channel, &wal);
        }
    } else if (frame->type == FRAME_FEED_STATUS) {
        struct feed_status status;
        TRY(feed_status_decode(&status, &in));
        if (channel != NULL) {
            channel->callbacks->on_status(channel, status.commit_lsn);
        }
    }
    return ERR_OK; /* the end of a channel that we have closed, or late WAL of it */
}

static err_t on_status_frame(struct feed_source *source, const struct frame *frame)
{
    struct status_list list;
    struct reader in = reader_of(frame->payload);
    TRY(status_list_decode(&list, &in));
    return feeds_on_reports(source->feeds, source, &list);
}

static err_t dispatch(struct feed_source *source, const struct frame *frame)
{
    bool is_ready = source->state == FEED_SOURCE_READY;
    switch (frame->type) {
    case FRAME_HELLO_REPLY: return on_hello_reply(source, frame);
    case FRAME_ERROR: return on_error_frame(source, frame);
    case FRAME_FEED_WAL:
    case FRAME_FEED_STATUS:
    case FRAME_FEED_STOP: return is_ready ? on_feed_frame(source, frame) : ERR_INVALID;
    case FRAME_STATUS_REPORT: return is_ready ? on_status_frame(source, frame) : ERR_INVALID;
    default: return ERR_INVALID;
    }
}

static void on_frame(struct link_user *user, const struct frame *frame)
{
    struct feed_source *source = CONTAINER_OF(user, struct feed_source, user);
    if (source->state == FEED_SOURCE_CLOSING) {
        return;
    }
    err_t err = dispatch(source, frame);
    if (err == ERR_OK) {
        return;
    }
    if (source->error.text[0] == '\0') {
        err_ignore(
            err_set(&source->error, err, "unexpected %s", frame_type_name(frame->type)),
            "said in the status");
    }
    log_warn(NULL, "safekeeper %" PRIu64 ": %s", source->address.id, source->error.text);
    begin_close(source);
}

static void on_drained(struct link_user *user)
{
    struct feed_source *source = CONTAINER_OF(user, struct feed_source, user);
    if (source->state == FEED_SOURCE_READY) {
        resync(source);
    }
}

/* -- life -- */

struct feed_source *feed_source_create(
    struct feeds *feeds, const struct safekeeper_address *address)
{
    static const struct link_callbacks callbacks = {
        .on_open = on_open, .on_frame = on_frame, .on_drained = on_drained, .on_closed = on_closed};
    struct feed_source *source = MEM_NEW(struct feed_source);
    source->feeds = feeds;
    source->address = *address;
    source->references = 1;
    source->user.callbacks = &callbacks;
    source->timer.on_fire = on_timer;
    source->unknown_timer.on_fire = on_unknown_timer;
    source->backoff_ms = BACKOFF_MIN_MS;
    source->unknown_ms = BACKOFF_MIN_MS;
    list_init(&source->greeting);
    for (size_t i = 0; i < FEED_SOURCE_BUCKETS; i++) {
        list_init(&source->open[i]);
    }
    timer_start(feeds_options(feeds)->loop, &source->timer, 0);
    return source;
}

void feed_source_stop(struct feed_source *source)
{
    source->backoff_ms = 0;
    timer_stop(&source->timer);
    timer_stop(&source->unknown_timer);
    begin_close(source);
}

void feed_source_unref(struct feed_source *source)
{
    ASSERT(source->references > 0);
    if (--source->references > 0) {
        return;
    }
    feed_source_stop(source);
    if (source->state == FEED_SOURCE_OFF) {
        release(source);
    }
}
