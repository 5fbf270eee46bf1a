#include "common/io/listener.h"

#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "common/io/door_private.h"
#include "common/io/link_private.h"

METRIC_COUNTER(accepted, "listener_accepted_total", "Framed connections accepted.");
METRIC_COUNTER(
    refused, "listener_refused_total", "Framed connections refused, over the limit or unwanted.");

struct listener {
    struct door door;
    struct link_owner as_owner;
    struct link_options options;
    struct listener_user *user;
};

static void on_unused(struct door *door)
{
    mem_free(CONTAINER_OF(door, struct listener, door));
}

static void on_link_gone(struct link_owner *owner)
{
    door_left(&CONTAINER_OF(owner, struct listener, as_owner)->door);
}

static struct link_user *user_of(struct listener *listener, struct link *link)
{
    bool is_wanted = !door_is_full(&listener->door, link_peer(link)) && !listener->door.closed;
    return is_wanted ? listener->user->on_accept(listener->user, link) : NULL;
}

static void on_connection(struct door *door, uv_stream_t *server)
{
    struct listener *listener = CONTAINER_OF(door, struct listener, door);
    struct errmsg msg;
    struct link *link = NULL;
    err_t err =
        link_accept(door->loop, server, &listener->options, &listener->as_owner, &link, &msg);
    if (err != ERR_OK) {
        log_warn(NULL, "port %u: %s", door->port, msg.text);
        return;
    }
    struct link_user *user = user_of(listener, link);
    if (user == NULL) {
        metric_add(&refused, 1);
        link_refuse(link);
        return;
    }
    metric_add(&accepted, 1);
    link_begin(link, user);
}

err_t listener_open(
    struct loop *loop,
    const char *host,
    uint16_t port,
    size_t connections_max,
    const struct link_options *options,
    struct listener_user *user,
    struct listener **ret_listener,
    struct errmsg *msg)
{
    struct listener *listener = MEM_NEW(struct listener);
    listener->door.on_connection = on_connection;
    listener->door.on_unused = on_unused;
    listener->as_owner.on_gone = on_link_gone;
    listener->user = user;
    if (options != NULL) {
        listener->options = *options;
    }
    TRY(door_open(&listener->door, loop, host, port, connections_max, msg));
    *ret_listener = listener;
    return ERR_OK;
}

uint16_t listener_port(const struct listener *listener)
{
    return listener->door.port;
}

void listener_close(struct listener *listener)
{
    if (listener != NULL) {
        door_close(&listener->door);
    }
}
