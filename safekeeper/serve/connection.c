/* connection.c - the callbacks of a link, and the frames of each role. */
#include "safekeeper/serve/connection.h"

#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "safekeeper/serve/connection_private.h"

METRIC_COUNTER(bad_frames, "safekeeper_bad_frames_total", "frames that ended their connection");

void connection_close(struct connection *conn)
{
    if (!conn->is_closing) {
        conn->is_closing = true;
        timer_stop(&conn->hello_timer);
        link_close(conn->as_link_user.link);
    }
}

void connection_set_paused(struct connection *conn, bool is_paused)
{
    conn->pauses += is_paused ? 1u : -1u;
    if (is_paused && conn->pauses == 1) {
        link_pause(conn->as_link_user.link);
    } else if (!is_paused && conn->pauses == 0 && !conn->is_closing) {
        link_resume(conn->as_link_user.link);
    }
}

/* ---- frames ---- */

static void end_with_error(
    struct connection *conn, const struct frame *frame, err_t err, const struct errmsg *msg)
{
    metric_add(&bad_frames, 1);
    log_info(NULL, "closed %s: %s", link_peer(conn->as_link_user.link), msg->text);
    link_send_error(conn->as_link_user.link, frame->channel, frame->request_id, err, msg);
    connection_close(conn);
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

/*
 * From a proposer that learned it elsewhere. When it is news, every proposer is refused, this too.
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
    channel_drop(channel);
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
        channel_on_read_wal(channel, frame, &message);
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
            channel_drop(channel);
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
        channel_drop(channel);
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
        channel_on_read_wal(channel, frame, &message);
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
        connection_on_hello(conn, frame, &hello);
        return;
    }
    struct channel *channel = NULL;
    err_t err = channel_find(conn, frame->channel, &channel);
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

/* ---- the link ---- */

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
        connection_close(CONTAINER_OF(link, struct connection, in_server));
    }
}
