#include "safekeeper/serve/connection.h"

#include "common/auth/auth.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "common/io/timer.h"
#include "common/wire/hello_proto.h"
#include "common/wire/wal_proto.h"
#include "safekeeper/timeline/feed.h"

METRIC_COUNTER(hellos, "safekeeper_hellos_total", "channels opened");
METRIC_COUNTER(hellos_refused, "safekeeper_hellos_refused_total", "hellos that were refused");
METRIC_COUNTER(bad_frames, "safekeeper_bad_frames_total", "frames that ended their connection");

#define CHANNELS_MAX 65536 /* over the life of a connection; numbers are not reused */
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

struct connection {
    struct link_user as_link_user;
    struct server *server;
    struct list_link in_server;
    struct channel **channels; /* by number - 1; NULL: closed */
    uint32_t numbers_used, capacity, open_count;
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
    feed_destroy(channel->feed);
    if (channel->reads != NULL) {
        channel->reads->channel = NULL;
        if (!channel->reads->is_running) {
            reads_release(channel->reads);
        }
    }
    conn->channels[channel->number - 1] = NULL;
    conn->open_count--;
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
    if (conn->numbers_used == conn->capacity) {
        conn->capacity = MAX_OF(4u, 2 * conn->capacity);
        conn->channels = mem_realloc(conn->channels, conn->capacity * sizeof(struct channel *));
    }
    struct channel *channel = MEM_NEW(struct channel);
    conn->channels[conn->numbers_used++] = channel;
    conn->open_count++;
    channel->conn = conn;
    channel->number = conn->numbers_used;
    channel->tl = timeline_ref(tl);
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
    return role == HELLO_ROLE_FEED ? AUTH_FEED : AUTH_WAL;
}

/* What can be said before the timeline is known. */
static err_t check_hello(
    const struct connection *conn, const struct hello *hello, struct errmsg *msg)
{
    if (hello->protocol_min > PROTOCOL_VERSION_MAX || hello->protocol_max < PROTOCOL_VERSION_MIN) {
        return err_set(
            msg, ERR_UNSUPPORTED, "protocol versions %u to %u: this side speaks %u to %u",
            hello->protocol_min, hello->protocol_max, PROTOCOL_VERSION_MIN, PROTOCOL_VERSION_MAX);
    }
    if (hello->role != HELLO_ROLE_PROPOSER && hello->role != HELLO_ROLE_FEED &&
        hello->role != HELLO_ROLE_PEER) {
        return err_set(msg, ERR_UNSUPPORTED, "a safekeeper has no role %u", hello->role);
    }
    if (hello->shard_number != 0 || hello->shard_count != 1) {
        return err_set(
            msg, ERR_UNSUPPORTED, "shard %u of %u: timelines have one shard", hello->shard_number,
            hello->shard_count);
    }
    if (conn->numbers_used == CHANNELS_MAX) {
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
    if (channel->role != HELLO_ROLE_FEED && hello->generation != 0 &&
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
    }
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
        channel_destroy(channel, false);
        refuse_hello(conn, request_id, err, &msg);
        return;
    }
    const struct acceptor *acceptor = timeline_acceptor(channel->tl);
    struct hello_reply reply = {
        .protocol = PROTOCOL_VERSION_MAX,
        .channel = channel->number,
        .node_id = conn->server->options.node_id,
        .generation = timeline_control(channel->tl)->membership.generation,
        .term = acceptor->state.term,
        .lsn = acceptor->state.commit_lsn,
    };
    LINK_SEND(
        conn->as_link_user.link, hello_reply, &reply, .type = FRAME_HELLO_REPLY,
        .channel = channel->number, .request_id = channel->hello_id);
    metric_add(&hellos, 1);
    timer_stop(&conn->hello_timer);
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
    struct timeline *tl =
        timeline_set_find(conn->server->timelines, hello->tenant, hello->timeline);
    if (err == ERR_OK && tl == NULL) {
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
    if (timeline_state(tl) == TIMELINE_OPENING) {
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
    lsn_t start_lsn = timeline_control(reads->channel->tl)->acceptor.start_lsn;
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
    case FRAME_ELECTED: {
        struct elected elected;
        TRY(elected_decode(&elected, &in));
        timeline_elected(channel->tl, &channel->peer, frame->request_id, &elected);
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
    default: return ERR_UNSUPPORTED;
    }
}

static err_t on_peer_frame(struct channel *channel, const struct frame *frame)
{
    struct reader in = reader_of(frame->payload);
    struct read_wal message;
    if (frame->type != FRAME_READ_WAL) {
        return ERR_UNSUPPORTED;
    }
    TRY(read_wal_decode(&message, &in));
    on_read_wal(channel, frame, &message);
    return ERR_OK;
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
    struct channel *channel = frame->channel == 0 || frame->channel > conn->numbers_used
                                  ? NULL
                                  : conn->channels[frame->channel - 1];
    if (channel == NULL) {
        if (frame->channel != 0 && frame->channel <= conn->numbers_used) {
            return; /* sent before the peer read that the channel was refused */
        }
        err_t err = err_set(
            &msg, ERR_NOT_FOUND, "%s on channel %u, which no hello opened",
            frame_type_name(frame->type), frame->channel);
        end_with_error(conn, frame, err, &msg);
        return;
    }
    uint8_t role = (uint8_t)channel->role;
    err_t err = on_channel_frame(channel, frame);
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
    for (uint32_t i = 0; i < conn->numbers_used && !conn->is_closing; i++) {
        if (conn->channels[i] != NULL && conn->channels[i]->feed != NULL) {
            feed_drained(conn->channels[i]->feed);
        }
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
    for (uint32_t i = 0; i < conn->numbers_used; i++) {
        if (conn->channels[i] != NULL) {
            channel_destroy(conn->channels[i], true);
        }
    }
    list_remove(&conn->in_server);
    mem_free(conn->channels);
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
