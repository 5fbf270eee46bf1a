/*
 * listener.c - counts its links; lives until it is closed and the last of them is gone.
 */
#include "common/io/listener.h"

#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "common/io/link_private.h"

METRIC_COUNTER(accepted, "listener_accepted_total", "Framed connections accepted.");
METRIC_COUNTER(
    refused, "listener_refused_total", "Framed connections refused, over the limit or unwanted.");

#define BACKLOG 1024

struct listener {
    struct loop_object object;
    struct link_owner as_owner;
    struct loop *loop;
    uv_tcp_t tcp;
    bool handle_open;
    uint16_t port;
    size_t connections_max;
    size_t connections;
    struct link_options options;
    struct listener_user *user; /* NULL: closed */
};

static void free_when_unused(struct listener *listener)
{
    if (!listener->handle_open && listener->connections == 0) {
        mem_free(listener);
    }
}

static void on_closed(uv_handle_t *handle)
{
    struct listener *listener = CONTAINER_OF(handle, struct listener, tcp);
    listener->handle_open = false;
    free_when_unused(listener);
}

static void on_link_gone(struct link_owner *owner)
{
    struct listener *listener = CONTAINER_OF(owner, struct listener, as_owner);
    listener->connections--;
    free_when_unused(listener);
}

static void on_connection(uv_stream_t *server, int status)
{
    struct listener *listener = CONTAINER_OF((uv_tcp_t *)server, struct listener, tcp);
    struct errmsg msg;
    struct link *link = NULL;
    if (status < 0) {
        log_warn(NULL, "port %u: cannot accept: %s", listener->port, uv_strerror(status));
        return;
    }
    listener->connections++; /* on_link_gone counts down, also when accepting fails */
    err_t err =
        link_accept(listener->loop, server, &listener->options, &listener->as_owner, &link, &msg);
    if (err != ERR_OK) {
        log_warn(NULL, "port %u: %s", listener->port, msg.text);
        return;
    }
    if (listener->connections > listener->connections_max) {
        log_warn(
            NULL, "port %u: refused %s: the limit is %zu connections", listener->port,
            link_peer(link), listener->connections_max);
        metric_add(&refused, 1);
        link_refuse(link);
        return;
    }
    struct link_user *user =
        listener->user == NULL ? NULL : listener->user->on_accept(listener->user, link);
    if (user == NULL) {
        metric_add(&refused, 1);
        link_refuse(link);
        return;
    }
    metric_add(&accepted, 1);
    link_begin(link, user);
}

static void on_shut(struct loop_object *object)
{
    listener_close(CONTAINER_OF(object, struct listener, object));
}

static err_t bind_and_listen(
    struct listener *listener, const char *host, uint16_t port, struct errmsg *msg)
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
    listener->object.shut = on_shut;
    listener->as_owner.on_gone = on_link_gone;
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
        listener_close(listener);
        return err;
    }
    *ret_listener = listener;
    return ERR_OK;
}

uint16_t listener_port(const struct listener *listener)
{
    return listener->port;
}

void listener_close(struct listener *listener)
{
    if (listener == NULL) {
        return;
    }
    ASSERT(!uv_is_closing((uv_handle_t *)&listener->tcp)); /* closed once */
    listener->user = NULL;
    loop_remove(&listener->object);
    uv_close((uv_handle_t *)&listener->tcp, on_closed);
}
