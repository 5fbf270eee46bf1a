#include "safekeeper/serve/connection.h"

#include "common/auth/auth.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "common/io/timer.h"
#include "common/wire/hello_proto.h"
#include "common/wire/wal_proto.h"
#include "safekeeper/timeline/feed.h"
#include "safekeeper/timeline/forget.h"
#include "safekeeper/timeline/watcher.h"

METRIC_COUNTER(hellos, "safekeeper_hellos_total", "channels opened");
METRIC_COUNTER(hellos_refused, "safekeeper_hellos_refused_total", "hellos that were refused");
METRIC_COUNTER(bad_frames, "safekeeper_bad_frames_total", "frames that ended their connection");

#define CHANNELS_MAX 65535 /* at a time: see struct slot */
#define READS_MAX    16    /* READ_WAL that wait, each channel */

struct channel {
    struct connection *conn;
    uint32_t number;
    enum hello_role role;
    generation_t generation;
    node_id_t peer_id;
    struct timeline *tl;
    uint64_t hello_id;
    struct hello hello; /* `token` is void after the hello was checked */

    bool is_waiting; /* until the timeline is open */
    struct timeline_waiter waiter;

    bool is_attached; /* proposer */
    struct timeline_peer peer;

    struct feed *feed;
    struct feed_owner feed_owner;
    struct list_link in_feeds;

    struct wal_reads *reads;
};

/* READ_WAL requests of a channel, one after the other. It outlives the channel while one runs. */
struct wal_reads {
    struct channel *channel; /* NULL: gone */
    bool is_running;
    struct timeline_read read;
    size_t first, count;
    struct wal_read_request {
        uint64_t request_id;
        struct read_wal message;
    } requests[READS_MAX];
};

/*
 * A channel's number is that of its slot + 1, and above 16 bits how often the slot was used before:
 * a frame that was on its way to a channel that is gone never reaches the next one. A slot whose
 * numbers are used up stays empty.
 */
struct slot {
    struct channel *channel; /* NULL: free */
    uint16_t incarnation;    /* of the channel, or of the last one */
    uint16_t next_free;      /* slot + 1; 0: none */
};

struct connection {
    struct link_user as_link_user;
    struct server *server;
    struct list_link in_server;
    struct slot *slots;
    uint32_t slot_count, capacity, open_count;
    uint16_t first_free; /* slot + 1; 0: none */
    struct list feeds;   /* of channels: who was served last comes last */
    struct watcher *watcher;
    unsigned pauses; /* channels that want the link paused */
    bool is_closing;
    struct timer hello_timer;
};

static void close_connection(struct connection *conn)
{
    if (!conn->is_closing) {
        conn->is_closing = true;
        timer_stop(&conn->hello_timer);
        link_close(conn->as_link_user.link);
    }
}

/* ---- channels ---- */

static void set_paused(struct connection *conn, bool is_paused)
{
    conn->pauses += is_paused ? 1u : -1u;
    if (is_paused && conn->pauses == 1) {
        link_pause(conn->as_link_user.link);
    } else if (!is_paused && conn->pauses == 0 && !conn->is_closing) {
        link_resume(conn->as_link_user.link);
    }
}

static void reads_release(struct wal_reads *reads)
{
    timeline_read_deinit(&reads->read);
    mem_free(reads);
}

static uint32_t slot_of(uint32_t number)
{
    return (number & UINT16_MAX) - 1;
}

static void free_slot(struct connection *conn, uint32_t number)
{
    struct slot *slot = &conn->slots[slot_of(number)];
    slot->channel = NULL;
    conn->open_count--;
    if (slot->incarnation < UINT16_MAX) {
        slot->next_free = conn->first_free;
        conn->first_free = (uint16_t)(slot_of(number) + 1);
    }
}

static struct slot *take_slot(struct connection *conn)
{
    if (conn->first_free != 0) {
        struct slot *slot = &conn->slots[conn->first_free - 1];
        conn->first_free = slot->next_free;
        slot->incarnation++;
        return slot;
    }
    if (conn->slot_count == conn->capacity) {
        conn->capacity = MAX_OF(4u, 2 * conn->capacity);
        conn->slots = mem_realloc(conn->slots, conn->capacity * sizeof(struct slot));
    }
    conn->slots[conn->slot_count] = (struct slot){0};
    return &conn->slots[conn->slot_count++];
}

/* ERR_CANCELED: it was there once. */
static err_t find_channel(struct connection *conn, uint32_t number, struct channel **ret_channel)
{
    uint32_t index = slot_of(number);
    if ((number & UINT16_MAX) == 0 || index >= conn->slot_count ||
        number >> 16 > conn->slots[index].incarnation) {
        return ERR_NOT_FOUND;
    }
    struct channel *channel = conn->slots[index].channel;
    if (channel == NULL || channel->number != number) {
        return ERR_CANCELED;
    }
    *ret_channel = channel;
    return ERR_OK;
}

/* `is_link_gone`: the last callback of the link is running. */
static void channel_destroy(struct channel *channel, bool is_link_gone)
{
    struct connection *conn = channel->conn;
    list_remove(&channel->waiter.link);
    if (channel->is_attached) {
        timeline_detach_peer(channel->tl, &channel->peer);
        if (channel->peer.is_paused && !is_link_gone) {
            set_paused(conn, false);
        }
    }
    list_remove(&channel->in_feeds);
    feed_destroy(channel->feed);
    if (channel->role == HELLO_ROLE_STATUS) {
        watcher_destroy(conn->watcher);
        conn->watcher = NULL;
    }
    if (channel->reads != NULL) {
        channel->reads->channel = NULL;
        if (!channel->reads->is_running) {
            reads_release(channel->reads);
        }
    }
    free_slot(conn, channel->number);
    timeline_unref(channel->tl);
    mem_free(channel);
}

/* FRAME_ERROR is queued already. A connection without a channel is of no use. */
static void drop_channel(struct channel *channel)
{
    struct connection *conn = channel->conn;
    channel_destroy(channel, false);
    if (conn->open_count == 0) {
        close_connection(conn);
    }
}

static struct channel *channel_create(struct connection *conn, struct timeline *tl)
{
    struct channel *channel = MEM_NEW(struct channel);
    struct slot *slot = take_slot(conn);
    slot->channel = channel;
    conn->open_count++;
    channel->conn = conn;
    channel->number = (uint32_t)(slot - conn->slots) + 1 + ((uint32_t)slot->incarnation << 16);
    channel->tl = tl == NULL ? NULL : timeline_ref(tl);
    return channel;
}

static void on_peer_refused(struct timeline_peer *peer)
{
    drop_channel(CONTAINER_OF(peer, struct channel, peer));
}

static void on_peer_pause(struct timeline_peer *peer, bool is_paused)
{
    set_paused(CONTAINER_OF(peer, struct channel, peer)->conn, is_paused);
}

static void on_feed_broken(struct feed_owner *owner)
{
    drop_channel(CONTAINER_OF(owner, struct channel, feed_owner));
}

/* ---- hello ---- */

static void refuse_hello(
    struct connection *conn, uint64_t request_id, err_t err, const struct errmsg *msg)
{
    metric_add(&hellos_refused, 1);
    /* Who asks for a deleted timeline asks again and again. */
    log_write(
        NULL, err == ERR_NOT_FOUND ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO, "refused hello of %s: %s",
        link_peer(conn->as_link_user.link), msg->text);
    link_send_error(conn->as_link_user.link, 0, request_id, err, msg);
    if (conn->open_count == 0) {
        close_connection(conn);
    }
}

static enum auth_scope scope_of(enum hello_role role)
{
    return role == HELLO_ROLE_FEED || role == HELLO_ROLE_STATUS ? AUTH_FEED : AUTH_WAL;
}

/* What can be said before the timeline is known. */
static err_t check_hello(
    const struct connection *conn, const struct hello *hello, struct errmsg *msg)
{
    TRY(hello_check_protocol(hello, msg));
    if (hello->role != HELLO_ROLE_PROPOSER && hello->role != HELLO_ROLE_FEED &&
        hello->role != HELLO_ROLE_PEER && hello->role != HELLO_ROLE_STATUS) {
        return err_set(msg, ERR_UNSUPPORTED, "a safekeeper has no role %u", hello->role);
    }
    if (hello->role == HELLO_ROLE_STATUS && hello->protocol_max < 2) {
        return err_set(msg, ERR_UNSUPPORTED, "status is spoken from protocol version 2 on");
    }
    if (hello->role == HELLO_ROLE_STATUS && conn->watcher != NULL) {
        return err_set(msg, ERR_BUSY, "limit: one status channel a connection");
    }
    if (hello->shard_number != 0 || hello->shard_count != 1) {
        return err_set(
            msg, ERR_UNSUPPORTED, "shard %u of %u: timelines have one shard", hello->shard_number,
            hello->shard_count);
    }
    if (conn->first_free == 0 && conn->slot_count == CHANNELS_MAX) {
        return err_set(msg, ERR_BUSY, "limit: %d channels a connection", CHANNELS_MAX);
    }
    return auth_check(
        conn->server->options.secret, hello->token, scope_of((enum hello_role)hello->role),
        hello->tenant, msg);
}

static err_t check_timeline(const struct channel *channel, struct errmsg *msg)
{
    const struct timeline *tl = channel->tl;
    const struct hello *hello = &channel->hello;
    const struct control_state *control = timeline_control(tl);
    switch (timeline_state(tl)) {
    case TIMELINE_OPEN: break;
    case TIMELINE_FAILED: return err_set(msg, ERR_FAILED, "storage: %s", timeline_storage_text(tl));
    case TIMELINE_OPENING:
    case TIMELINE_CLOSED: return err_set(msg, ERR_NOT_FOUND, "the timeline is being deleted");
    }
    /* A proposer of a newer membership is heard: it brings it (FRAME_MEMBERSHIP). */
    bool brings_newer =
        channel->role == HELLO_ROLE_PROPOSER && hello->generation > control->membership.generation;
    if (channel->role != HELLO_ROLE_FEED && hello->generation != 0 && !brings_newer &&
        hello->generation != control->membership.generation) {
        return err_set(
            msg, ERR_STALE, "membership generation %u, this safekeeper has %u", hello->generation,
            control->membership.generation);
    }
    if (hello->system_id != 0 && hello->system_id != control->params.system_id) {
        return err_set(
            msg, ERR_INVALID, "system id %" PRIu64 ", the timeline has %" PRIu64, hello->system_id,
            control->params.system_id);
    }
    if (hello->pg_version != 0 && hello->pg_version / 10000 != control->params.pg_version / 10000) {
        return err_set(
            msg, ERR_INVALID, "Postgres %u, the timeline has %u", hello->pg_version,
            control->params.pg_version);
    }
    return ERR_OK;
}

static void begin_role(struct channel *channel)
{
    struct connection *conn = channel->conn;
    if (channel->role == HELLO_ROLE_PROPOSER) {
        channel->peer = (struct timeline_peer){
            .link = conn->as_link_user.link,
            .channel = channel->number,
            .id =
                {
                    .proposer_id = channel->peer_id,
                    .connection = ++conn->server->last_connection,
                    .protocol = hello_protocol(channel->hello.protocol_max),
                },
            .on_refused = on_peer_refused,
            .on_pause = on_peer_pause,
        };
        channel->is_attached = true;
        timeline_attach_peer(channel->tl, &channel->peer);
    } else if (channel->role == HELLO_ROLE_FEED) {
        channel->feed_owner.on_broken = on_feed_broken;
        channel->feed = feed_create(
            channel->tl, conn->as_link_user.link, channel->number, channel->peer_id,
            channel->generation, &channel->feed_owner);
        list_push_back(&conn->feeds, &channel->in_feeds);
    }
}

static void send_hello_reply(struct channel *channel, struct hello_reply *reply)
{
    struct connection *conn = channel->conn;
    reply->protocol = hello_protocol(channel->hello.protocol_max);
    reply->channel = channel->number;
    reply->node_id = conn->server->options.node_id;
    LINK_SEND(
        conn->as_link_user.link, hello_reply, reply, .type = FRAME_HELLO_REPLY,
        .channel = channel->number, .request_id = channel->hello_id);
    metric_add(&hellos, 1);
    timer_stop(&conn->hello_timer);
}

static void begin_status(struct channel *channel)
{
    struct connection *conn = channel->conn;
    send_hello_reply(channel, &(struct hello_reply){0});
    conn->watcher = watcher_create(
        &conn->server->env, conn->server->timelines, conn->as_link_user.link, channel->number);
}

static bool is_of_older_membership(const struct channel *channel)
{
    return channel->role == HELLO_ROLE_PROPOSER && timeline_state(channel->tl) == TIMELINE_OPEN &&
           channel->hello.generation < timeline_control(channel->tl)->membership.generation;
}

/* The timeline is no longer opening: accept or refuse. */
static void finish_hello(struct channel *channel)
{
    struct connection *conn = channel->conn;
    struct errmsg msg;
    channel->is_waiting = false;
    err_t err = check_timeline(channel, &msg);
    if (err != ERR_OK) {
        err = err_wrap(&msg, err, "timeline %s", timeline_id_text(timeline_id(channel->tl)).text);
        uint64_t request_id = channel->hello_id;
        if (is_of_older_membership(channel)) {
            timeline_send_membership(channel->tl, conn->as_link_user.link, 0);
        }
        channel_destroy(channel, false);
        refuse_hello(conn, request_id, err, &msg);
        return;
    }
    const struct acceptor *acceptor = timeline_acceptor(channel->tl);
    struct hello_reply reply = {
        .generation = timeline_control(channel->tl)->membership.generation,
        .term = acceptor->state.term,
        .lsn = acceptor->state.commit_lsn,
    };
    send_hello_reply(channel, &reply);
    begin_role(channel);
}

static void on_timeline_ready(struct timeline_waiter *waiter)
{
    struct channel *channel = CONTAINER_OF(waiter, struct channel, waiter);
    if (channel->conn->is_closing) {
        channel->is_waiting = false;
        return;
    }
    finish_hello(channel);
}

static void on_hello(struct connection *conn, const struct frame *frame, const struct hello *hello)
{
    struct errmsg msg;
    err_t err = check_hello(conn, hello, &msg);
    bool is_status = hello->role == HELLO_ROLE_STATUS;
    struct timeline *tl = NULL;
    if (err == ERR_OK && !is_status) { /* who may not ask wakes nothing */
        tl = timeline_set_find(conn->server->timelines, hello->tenant, hello->timeline);
    }
    if (err == ERR_OK && tl == NULL && !is_status) {
        err = err_set(
            &msg, ERR_NOT_FOUND, "tenant %s has no timeline %s here",
            tenant_id_text(hello->tenant).text, timeline_id_text(hello->timeline).text);
    }
    if (err != ERR_OK) {
        refuse_hello(conn, frame->request_id, err, &msg);
        return;
    }
    struct channel *channel = channel_create(conn, tl);
    channel->role = (enum hello_role)hello->role;
    channel->generation = hello->generation;
    channel->peer_id = hello->node_id;
    channel->hello_id = frame->request_id;
    channel->hello = *hello;
    channel->hello.token = bytes_of(NULL, 0);
    if (is_status) {
        begin_status(channel);
    } else if (timeline_state(tl) == TIMELINE_OPENING) {
        channel->is_waiting = true;
        channel->waiter.on_ready = on_timeline_ready;
        timeline_wait_ready(tl, &channel->waiter);
    } else {
        finish_hello(channel);
    }
}

/* ---- READ_WAL ---- */

static void reads_advance(struct wal_reads *reads);

static void reads_answer(struct wal_reads *reads, err_t result, const struct errmsg *msg)
{
    struct channel *channel = reads->channel;
    struct wal_read_request *request = &reads->requests[reads->first];
    struct link *link = channel->conn->as_link_user.link;
    if (result == ERR_OK) {
        struct read_wal_reply reply = {
            .begin_lsn = request->message.begin_lsn,
            .flush_lsn = timeline_acceptor(channel->tl)->flush_lsn,
            .wal = buf_view(&reads->read.wal),
        };
        LINK_SEND(
            link, read_wal_reply, &reply, .type = FRAME_READ_WAL_REPLY, .channel = channel->number,
            .request_id = request->request_id);
    } else {
        link_send_error(link, channel->number, request->request_id, result, msg);
    }
    reads->first = (reads->first + 1) % READS_MAX;
    reads->count--;
}

static void on_wal_read(struct timeline_read *read, err_t result)
{
    struct wal_reads *reads = CONTAINER_OF(read, struct wal_reads, read);
    reads->is_running = false;
    if (reads->channel == NULL) {
        reads_release(reads);
        return;
    }
    reads_answer(reads, result, &read->msg);
    reads_advance(reads);
}

static err_t prepare_read(struct wal_reads *reads, struct errmsg *msg)
{
    const struct read_wal *request = &reads->requests[reads->first].message;
    lsn_t readable_lsn = LSN_NONE;
    TRY(timeline_readable_lsn(reads->channel->tl, request->term, &readable_lsn, msg));
    lsn_t start_lsn = timeline_first_lsn(reads->channel->tl);
    if (request->begin_lsn < start_lsn || request->begin_lsn > readable_lsn) {
        return err_set(
            msg, ERR_RANGE, LSN_FMT " is not in " LSN_FMT ".." LSN_FMT,
            LSN_ARGS(request->begin_lsn), LSN_ARGS(start_lsn), LSN_ARGS(readable_lsn));
    }
    lsn_t size = MIN_OF((lsn_t)request->size, (lsn_t)WAL_APPEND_MAX);
    reads->read.term = request->term;
    reads->read.begin_lsn = request->begin_lsn;
    reads->read.end_lsn = request->begin_lsn + MIN_OF(size, readable_lsn - request->begin_lsn);
    return ERR_OK;
}

/* A reader that has come to the end of the log will hardly ask again soon. */
static void give_back(struct wal_reads *reads)
{
    lsn_t commit_lsn = timeline_acceptor(reads->channel->tl)->state.commit_lsn;
    if (reads->count == 0 && !reads->is_running && reads->read.end_lsn >= commit_lsn) {
        timeline_read_deinit(&reads->read);
    }
}

static void reads_advance(struct wal_reads *reads)
{
    while (reads->count > 0 && !reads->is_running) {
        struct errmsg msg;
        err_t err = prepare_read(reads, &msg);
        if (err == ERR_OK && !timeline_read_cached(reads->channel->tl, &reads->read)) {
            reads->is_running = true;
            reads->read.done = on_wal_read;
            timeline_read_start(reads->channel->tl, &reads->read);
            return;
        }
        reads_answer(reads, err, &msg);
    }
    give_back(reads);
}

static void on_read_wal(
    struct channel *channel, const struct frame *frame, const struct read_wal *message)
{
    if (channel->reads == NULL) {
        channel->reads = MEM_NEW(struct wal_reads);
        channel->reads->channel = channel;
    }
    struct wal_reads *reads = channel->reads;
    if (reads->count == READS_MAX) {
        struct errmsg msg;
        err_t err = err_set(&msg, ERR_BUSY, "limit: %d reads wait on a channel", READS_MAX);
        link_send_error(
            channel->conn->as_link_user.link, channel->number, frame->request_id, err, &msg);
        return;
    }
    size_t last = (reads->first + reads->count++) % READS_MAX;
    reads->requests[last] =
        (struct wal_read_request){.request_id = frame->request_id, .message = *message};
    reads_advance(reads);
}

/* ---- frames ---- */

static void end_with_error(
    struct connection *conn, const struct frame *frame, err_t err, const struct errmsg *msg)
{
    metric_add(&bad_frames, 1);
    log_info(NULL, "closed %s: %s", link_peer(conn->as_link_user.link), msg->text);
    link_send_error(conn->as_link_user.link, frame->channel, frame->request_id, err, msg);
    close_connection(conn);
}

static err_t take_membership(
    const struct membership_notice *notice,
    struct membership *membership,
    struct member_address *addresses,
    struct errmsg *msg)
{
    if (notice->members.count > MEMBERS_MAX) {
        return err_set(msg, ERR_INVALID, "limit: %d members", MEMBERS_MAX);
    }
    *membership =
        (struct membership){.generation = notice->generation, .count = notice->members.count};
    for (uint32_t i = 0; i < membership->count; i++) {
        const struct member_entry *entry = &notice->members.items[i];
        membership->members[i] = entry->id;
        membership->old_set |= (uint32_t)entry->is_old << i;
        membership->new_set |= (uint32_t)entry->is_new << i;
        memcpy(addresses[i].host, entry->host, sizeof(addresses[i].host));
        addresses[i].port = entry->port;
    }
    return membership_check(membership, msg);
}

/* From a proposer that learned it elsewhere. When it is news, every proposer is refused, this too.
 */
static void on_membership(
    struct channel *channel, const struct frame *frame, const struct membership_notice *notice)
{
    struct member_address addresses[MEMBERS_MAX] = {0};
    struct link *link = channel->conn->as_link_user.link;
    struct membership membership;
    struct errmsg msg;
    generation_t known = timeline_control(channel->tl)->membership.generation;
    err_t err = take_membership(notice, &membership, addresses, &msg);
    if (err == ERR_OK && membership.generation > known &&
        timeline_state(channel->tl) == TIMELINE_OPEN) {
        err = timeline_set_membership(channel->tl, &membership, addresses, 0, &msg);
        ASSERT(err == ERR_OK); /* it is newer */
        return;
    }
    if (err == ERR_OK) {
        err = err_set(
            &msg, ERR_STALE, "membership generation %u, this safekeeper has %u", notice->generation,
            known);
    }
    link_send_error(link, channel->number, frame->request_id, err, &msg);
    drop_channel(channel);
}

static err_t on_proposer_frame(struct channel *channel, const struct frame *frame)
{
    struct reader in = reader_of(frame->payload);
    switch (frame->type) {
    case FRAME_VOTE_REQUEST: {
        struct vote_request vote;
        TRY(vote_request_decode(&vote, &in));
        timeline_vote_request(channel->tl, &channel->peer, frame->request_id, &vote);
        return ERR_OK;
    }
    case FRAME_ELECTED:
    case FRAME_ELECTED_ANEW: {
        struct elected elected;
        bool begins_anew = frame->type == FRAME_ELECTED_ANEW;
        TRY(elected_decode(&elected, &in));
        timeline_elected(channel->tl, &channel->peer, frame->request_id, &elected, begins_anew);
        return ERR_OK;
    }
    case FRAME_APPEND: {
        struct append append;
        TRY(append_decode(&append, &in));
        timeline_append(channel->tl, &channel->peer, frame->request_id, &append);
        return ERR_OK;
    }
    case FRAME_READ_WAL: {
        struct read_wal message;
        TRY(read_wal_decode(&message, &in));
        on_read_wal(channel, frame, &message);
        return ERR_OK;
    }
    case FRAME_MEMBERSHIP: {
        struct membership_notice notice;
        TRY(membership_notice_decode(&notice, &in));
        on_membership(channel, frame, &notice);
        return ERR_OK;
    }
    default: return ERR_UNSUPPORTED;
    }
}

static err_t on_feed_frame(struct channel *channel, const struct frame *frame)
{
    struct reader in = reader_of(frame->payload);
    switch (frame->type) {
    case FRAME_FEED_START: {
        struct feed_start start;
        struct errmsg msg;
        TRY(feed_start_decode(&start, &in));
        err_t err = feed_begin(channel->feed, start.begin_lsn, &msg);
        if (err != ERR_OK) {
            link_send_error(
                channel->conn->as_link_user.link, channel->number, frame->request_id, err, &msg);
            drop_channel(channel);
        }
        return ERR_OK;
    }
    case FRAME_FEED_FEEDBACK: {
        struct feed_feedback feedback;
        TRY(feed_feedback_decode(&feedback, &in));
        feed_feedback(channel->feed, &feedback);
        return ERR_OK;
    }
    case FRAME_FEED_WINDOW: {
        struct feed_window window;
        TRY(feed_window_decode(&window, &in));
        feed_window(channel->feed, window.end_lsn);
        return ERR_OK;
    }
    case FRAME_FEED_STOP:
        link_send(
            channel->conn->as_link_user.link,
            &(struct frame){.type = FRAME_FEED_STOP, .channel = channel->number});
        drop_channel(channel);
        return ERR_OK;
    default: return ERR_UNSUPPORTED;
    }
}

static err_t on_status_frame(struct channel *channel, const struct frame *frame)
{
    struct reader in = reader_of(frame->payload);
    switch (frame->type) {
    case FRAME_STATUS_WATCH: {
        struct status_list list;
        TRY(status_list_decode(&list, &in));
        return watcher_watch(channel->conn->watcher, &list);
    }
    case FRAME_STATUS_UNWATCH: {
        struct status_unwatch unwatch;
        TRY(status_unwatch_decode(&unwatch, &in));
        watcher_unwatch(channel->conn->watcher, &unwatch);
        return ERR_OK;
    }
    default: return ERR_UNSUPPORTED;
    }
}

static err_t answer_peer(struct channel *channel, const struct frame *frame)
{
    struct link *link = channel->conn->as_link_user.link;
    struct vote_reply reply;
    lsn_t commit_lsn = LSN_NONE;
    struct errmsg msg;
    err_t err = timeline_readable_lsn(channel->tl, 0, &commit_lsn, &msg);
    if (err != ERR_OK) {
        link_send_error(link, channel->number, frame->request_id, err, &msg);
        return ERR_OK;
    }
    acceptor_describe(timeline_acceptor(channel->tl), &reply);
    LINK_SEND(
        link, vote_reply, &reply, .type = FRAME_VOTE_REPLY, .channel = channel->number,
        .request_id = frame->request_id);
    return ERR_OK;
}

static err_t on_peer_frame(struct channel *channel, const struct frame *frame)
{
    struct reader in = reader_of(frame->payload);
    switch (frame->type) {
    case FRAME_READ_WAL: {
        struct read_wal message;
        TRY(read_wal_decode(&message, &in));
        on_read_wal(channel, frame, &message);
        return ERR_OK;
    }
    case FRAME_VOTE_REQUEST: { /* of no term: it asks where we are */
        struct vote_request question;
        TRY(vote_request_decode(&question, &in));
        return question.term == 0 ? answer_peer(channel, frame) : ERR_UNSUPPORTED;
    }
    default: return ERR_UNSUPPORTED;
    }
}

/* ERR_CORRUPT: it cannot be decoded. ERR_UNSUPPORTED: not of this role. The channel may be gone. */
static err_t on_channel_frame(struct channel *channel, const struct frame *frame)
{
    if (channel->is_waiting) {
        return ERR_UNSUPPORTED; /* before the reply to its hello */
    }
    switch (channel->role) {
    case HELLO_ROLE_PROPOSER: return on_proposer_frame(channel, frame);
    case HELLO_ROLE_FEED: return on_feed_frame(channel, frame);
    case HELLO_ROLE_PEER: return on_peer_frame(channel, frame);
    case HELLO_ROLE_STATUS: return on_status_frame(channel, frame);
    case HELLO_ROLE_PAGES: break;
    }
    return ERR_UNSUPPORTED;
}

static void on_frame(struct link_user *user, const struct frame *frame)
{
    struct connection *conn = CONTAINER_OF(user, struct connection, as_link_user);
    struct errmsg msg;
    if (conn->is_closing) {
        return;
    }
    if (frame->type == FRAME_HELLO) {
        struct hello hello;
        struct reader in = reader_of(frame->payload);
        if (hello_decode(&hello, &in) != ERR_OK) {
            err_t err = err_set(&msg, ERR_CORRUPT, "hello cannot be decoded");
            end_with_error(conn, frame, err, &msg);
            return;
        }
        on_hello(conn, frame, &hello);
        return;
    }
    struct channel *channel = NULL;
    err_t err = find_channel(conn, frame->channel, &channel);
    if (err == ERR_CANCELED) {
        return; /* sent before the peer read that the channel was refused */
    }
    if (err != ERR_OK) {
        err = err_set(
            &msg, err, "%s on channel %u, which no hello opened", frame_type_name(frame->type),
            frame->channel);
        end_with_error(conn, frame, err, &msg);
        return;
    }
    uint8_t role = (uint8_t)channel->role;
    err = on_channel_frame(channel, frame);
    if (err != ERR_OK) {
        err = err_set(
            &msg, err, "%s (%u) %s role %u", frame_type_name(frame->type), frame->type,
            err == ERR_CORRUPT ? "cannot be decoded in" : "is no message of", role);
        end_with_error(conn, frame, err, &msg);
    }
}

static void on_drained(struct link_user *user)
{
    struct connection *conn = CONTAINER_OF(user, struct connection, as_link_user);
    if (conn->watcher != NULL) {
        watcher_drained(conn->watcher);
    }
    for (uint32_t left = conn->open_count; left > 0 && !conn->is_closing; left--) {
        struct list_link *first = list_first(&conn->feeds);
        if (first == NULL || link_is_congested(conn->as_link_user.link)) {
            break;
        }
        list_remove(first);
        list_push_back(&conn->feeds, first);
        feed_drained(CONTAINER_OF(first, struct channel, in_feeds)->feed);
    }
}

static void on_closed(struct link_user *user, err_t reason, const struct errmsg *msg)
{
    struct connection *conn = CONTAINER_OF(user, struct connection, as_link_user);
    if (reason == ERR_CORRUPT) {
        metric_add(&bad_frames, 1);
        log_info(NULL, "connection lost: %s", msg->text);
    }
    conn->is_closing = true;
    timer_stop(&conn->hello_timer);
    for (uint32_t i = 0; i < conn->slot_count; i++) {
        if (conn->slots[i].channel != NULL) {
            channel_destroy(conn->slots[i].channel, true);
        }
    }
    list_remove(&conn->in_server);
    mem_free(conn->slots);
    mem_free(conn);
}

static void on_hello_timeout(struct timer *timer)
{
    struct connection *conn = CONTAINER_OF(timer, struct connection, hello_timer);
    struct errmsg msg;
    if (conn->open_count > 0) {
        return; /* it waits for us: the timeline is being opened */
    }
    err_t err = err_set(&msg, ERR_TIMEOUT, "no hello");
    end_with_error(conn, &(struct frame){0}, err, &msg);
}

struct link_user *connection_create(struct server *server, struct link *link)
{
    static const struct link_callbacks callbacks = {
        .on_frame = on_frame,
        .on_drained = on_drained,
        .on_closed = on_closed,
    };
    struct connection *conn = MEM_NEW(struct connection);
    conn->as_link_user.callbacks = &callbacks;
    conn->as_link_user.link = link;
    conn->server = server;
    list_init(&conn->feeds);
    conn->hello_timer.on_fire = on_hello_timeout;
    timer_start(server->env.loop, &conn->hello_timer, server->options.hello_timeout_ms);
    list_push_back(&server->connections, &conn->in_server);
    return &conn->as_link_user;
}

void connections_close(struct server *server)
{
    LIST_FOR_EACH(&server->connections, link)
    {
        close_connection(CONTAINER_OF(link, struct connection, in_server));
    }
}
