/*
 * connection_hello.c - hello: who may open a channel, and what begins with it.
 *
 * A timeline that is still being opened keeps its hello waiting; the answer comes when it is known
 * whether it is in service.
 */
#include "safekeeper/serve/connection_private.h"

#include "common/auth/auth.h"
#include "common/base/log.h"
#include "common/base/metric.h"

METRIC_COUNTER(hellos, "safekeeper_hellos_total", "channels opened");
METRIC_COUNTER(hellos_refused, "safekeeper_hellos_refused_total", "hellos that were refused");

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
        connection_close(conn);
    }
}

/* ---- who may ---- */

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

/* ---- what begins ---- */

static void on_peer_refused(struct timeline_peer *peer)
{
    channel_drop(CONTAINER_OF(peer, struct channel, peer));
}

static void on_peer_pause(struct timeline_peer *peer, bool is_paused)
{
    connection_set_paused(CONTAINER_OF(peer, struct channel, peer)->conn, is_paused);
}

static void on_feed_broken(struct feed_owner *owner)
{
    channel_drop(CONTAINER_OF(owner, struct channel, feed_owner));
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

/* ---- accepted or refused ---- */

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

void connection_on_hello(
    struct connection *conn, const struct frame *frame, const struct hello *hello)
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
