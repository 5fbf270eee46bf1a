/* stream_listener.c - accepts connections of plain bytes and hands each to its owner. */
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "common/io/door_private.h"
#include "common/io/stream_private.h"

METRIC_COUNTER(accepted, "stream_accepted_total", "Connections of plain bytes accepted.");
METRIC_COUNTER(
    refused, "stream_refused_total", "Connections of plain bytes refused, over the limit.");

struct stream_listener {
    struct door door;
    struct stream_owner as_owner;
    struct stream_options options;
    struct stream_listener_user *user;
};

static void on_unused(struct door *door)
{
    mem_free(CONTAINER_OF(door, struct stream_listener, door));
}

static void on_stream_gone(struct stream_owner *owner)
{
    door_left(&CONTAINER_OF(owner, struct stream_listener, as_owner)->door);
}

static struct stream_user *user_of(struct stream_listener *listener, struct stream *stream)
{
    bool is_wanted = !door_is_full(&listener->door, stream_peer(stream)) && !listener->door.closed;
    return is_wanted ? listener->user->on_accept(listener->user, stream) : NULL;
}

static void on_connection(struct door *door, uv_stream_t *server)
{
    struct stream_listener *listener = CONTAINER_OF(door, struct stream_listener, door);
    struct errmsg msg = {0};
    struct stream *stream = NULL;
    err_t err =
        stream_accept(door->loop, server, &listener->options, &listener->as_owner, &stream, &msg);
    if (err != ERR_OK) {
        log_warn(NULL, "port %u: %s", door->port, msg.text);
        return;
    }
    struct stream_user *user = user_of(listener, stream);
    if (user == NULL) {
        metric_add(&refused, 1);
        stream_abort(stream);
        return;
    }
    metric_add(&accepted, 1);
    stream_begin(stream, user);
}

err_t stream_listener_open(
    struct loop *loop,
    const char *host,
    uint16_t port,
    size_t connections_max,
    const struct stream_options *options,
    struct stream_listener_user *user,
    struct stream_listener **ret_listener,
    struct errmsg *msg)
{
    struct stream_listener *listener = MEM_NEW(struct stream_listener);
    listener->door.on_connection = on_connection;
    listener->door.on_unused = on_unused;
    listener->as_owner.on_gone = on_stream_gone;
    listener->user = user;
    if (options != NULL) {
        listener->options = *options;
    }
    TRY(door_open(&listener->door, loop, host, port, connections_max, msg));
    *ret_listener = listener;
    return ERR_OK;
}

uint16_t stream_listener_port(const struct stream_listener *listener)
{
    return listener->door.port;
}

void stream_listener_close(struct stream_listener *listener)
{
    if (listener != NULL) {
        door_close(&listener->door);
    }
}
