/*
 * stream_listener.c - counts its streams; lives until it is closed and the last of them is gone.
 */
#include <arpa/inet.h>

#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "common/io/stream_private.h"

METRIC_COUNTER(accepted, "stream_accepted_total", "Connections of plain bytes accepted.");
METRIC_COUNTER(
    refused, "stream_refused_total", "Connections of plain bytes refused, over the limit.");

#define BACKLOG 1024

struct stream_listener {
    struct loop_object object;
    struct stream_owner as_owner;
    struct loop *loop;
    uv_tcp_t tcp;
    bool handle_open;
    uint16_t port;
    size_t connections_max;
    size_t connections;
    struct stream_options options;
    struct stream_listener_user *user; /* NULL: closed */
};

static void free_when_unused(struct stream_listener *listener)
{
    if (!listener->handle_open && listener->connections == 0) {
        mem_free(listener);
    }
}

static void on_closed(uv_handle_t *handle)
{
    struct stream_listener *listener = CONTAINER_OF(handle, struct stream_listener, tcp);
    listener->handle_open = false;
    free_when_unused(listener);
}

static void on_stream_gone(struct stream_owner *owner)
{
    struct stream_listener *listener = CONTAINER_OF(owner, struct stream_listener, as_owner);
    listener->connections--;
    free_when_unused(listener);
}

static void on_connection(uv_stream_t *server, int status)
{
    struct stream_listener *listener =
        CONTAINER_OF((uv_tcp_t *)server, struct stream_listener, tcp);
    struct errmsg msg = {0};
    struct stream *stream = NULL;
    if (status < 0) {
        log_warn(NULL, "port %u: cannot accept: %s", listener->port, uv_strerror(status));
        return;
    }
    listener->connections++; /* on_stream_gone counts down, also when accepting fails */
    err_t err = stream_accept(
        listener->loop, server, &listener->options, &listener->as_owner, &stream, &msg);
    if (err != ERR_OK) {
        log_warn(NULL, "port %u: %s", listener->port, msg.text);
        return;
    }
    struct stream_user *user = NULL;
    if (listener->connections > listener->connections_max) {
        log_warn(
            NULL, "port %u: refused %s: the limit is %zu connections", listener->port,
            stream_peer(stream), listener->connections_max);
    } else if (listener->user != NULL) {
        user = listener->user->on_accept(listener->user, stream);
    }
    if (user == NULL) {
        metric_add(&refused, 1);
        stream_abort(stream);
        return;
    }
    metric_add(&accepted, 1);
    stream_begin(stream, user);
}

static void on_shut(struct loop_object *object)
{
    stream_listener_close(CONTAINER_OF(object, struct stream_listener, object));
}

static err_t bind_and_listen(
    struct stream_listener *listener, const char *host, uint16_t port, struct errmsg *msg)
{
    struct sockaddr_storage address;
    TRY(address_resolve(host, port, &address, msg));
    int rc = uv_tcp_bind(&listener->tcp, (const struct sockaddr *)&address, 0);
    if (rc == 0) {
        rc = uv_listen((uv_stream_t *)&listener->tcp, BACKLOG, on_connection);
    }
    if (rc < 0) {
        return err_from_uv(msg, rc, "listen on %s:%u", host, port);
    }
    return socket_own_port(&listener->tcp, &listener->port, msg);
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
    listener->object.shut = on_shut;
    listener->as_owner.on_gone = on_stream_gone;
    listener->loop = loop;
    listener->connections_max = connections_max;
    listener->user = user;
    if (options != NULL) {
        listener->options = *options;
    }
    int rc = uv_tcp_init(&loop->uv, &listener->tcp);
    ASSERT(rc == 0);
    listener->handle_open = true;
    loop_add(loop, &listener->object);
    err_t err = bind_and_listen(listener, host, port, msg);
    if (err != ERR_OK) {
        stream_listener_close(listener);
        return err;
    }
    *ret_listener = listener;
    return ERR_OK;
}

uint16_t stream_listener_port(const struct stream_listener *listener)
{
    return listener->port;
}

void stream_listener_close(struct stream_listener *listener)
{
    if (listener == NULL) {
        return;
    }
    ASSERT(!uv_is_closing((uv_handle_t *)&listener->tcp)); /* closed once */
    listener->user = NULL;
    loop_remove(&listener->object);
    uv_close((uv_handle_t *)&listener->tcp, on_closed);
}
