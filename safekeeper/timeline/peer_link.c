#include "safekeeper/timeline/peer_link.h"

#include "common/wire/hello_proto.h"
#include "safekeeper/timeline/timeline_private.h"

#define LINK_TIMEOUT_MS 5000 /* to connect, and without an answer */

static struct peer_link *peer_of(struct link_user *user)
{
    return CONTAINER_OF(user, struct peer_link, user);
}

static void on_link_open(struct link_user *user)
{
    const struct timeline *tl = peer_of(user)->tl;
    struct hello hello = {
        .protocol_min = PROTOCOL_VERSION_MIN,
        .protocol_max = PROTOCOL_VERSION_MAX,
        .role = HELLO_ROLE_PEER,
        .tenant = tl->tenant,
        .timeline = tl->id,
        .shard_count = 1,
        .system_id = tl->control.params.system_id,
        .node_id = tl->env->node_id,
        .token = bytes_of_str(tl->env->secret),
    };
    LINK_SEND(user->link, hello, &hello, .type = FRAME_HELLO);
}

static err_t take_frame(struct peer_link *peer, const struct frame *frame, struct errmsg *msg)
{
    struct reader in = reader_of(frame->payload);
    if (frame->type == FRAME_ERROR) {
        struct error_reply error;
        TRY(error_reply_decode(&error, &in));
        return err_set(
            msg, ERR_INVALID, "%.*s", (int)MIN_OF(error.message.size, (size_t)200),
            (const char *)error.message.data);
    }
    if (peer->channel != 0) {
        return peer->on_frame(peer, frame, msg);
    }
    struct hello_reply reply;
    if (frame->type != FRAME_HELLO_REPLY || hello_reply_decode(&reply, &in) != ERR_OK) {
        return err_set(msg, ERR_INVALID, "no answer to the hello");
    }
    if (reply.node_id != peer->tl->control.membership.members[peer->member]) {
        return err_set(msg, ERR_INVALID, "it is node %" PRIu64, reply.node_id);
    }
    peer->channel = reply.channel;
    peer->on_ready(peer);
    return ERR_OK;
}

static void on_link_frame(struct link_user *user, const struct frame *frame)
{
    struct peer_link *peer = peer_of(user);
    struct errmsg msg = {0};
    if (take_frame(peer, frame, &msg) != ERR_OK) {
        peer->trouble = msg;
        link_abort(user->link);
    }
}

static void on_link_closed(struct link_user *user, err_t reason, const struct errmsg *msg)
{
    struct peer_link *peer = peer_of(user);
    user->link = NULL;
    peer->channel = 0;
    if (reason != ERR_OK && peer->trouble.text[0] == '\0') {
        peer->trouble = *msg;
    }
    peer->on_gone(peer);
}

static const struct link_callbacks callbacks = {
    .on_open = on_link_open,
    .on_frame = on_link_frame,
    .on_closed = on_link_closed,
};

err_t peer_link_connect(struct peer_link *peer, uint32_t member)
{
    const struct timeline *tl = peer->tl;
    const struct member_address *address = &tl->control.addresses[member];
    struct link_options options = {
        .connect_timeout_ms = LINK_TIMEOUT_MS,
        .idle_timeout_ms = LINK_TIMEOUT_MS,
    };
    ASSERT(peer->user.link == NULL);
    peer->user.callbacks = &callbacks;
    peer->member = member;
    peer->channel = 0;
    peer->trouble.text[0] = '\0';
    return link_connect(
        tl->env->loop, address->host, address->port, &options, &peer->user, &peer->trouble);
}

bool peer_link_is_open(const struct peer_link *peer)
{
    return peer->user.link != NULL;
}

void peer_link_abort(struct peer_link *peer)
{
    if (peer->user.link != NULL) {
        link_abort(peer->user.link);
    }
}
