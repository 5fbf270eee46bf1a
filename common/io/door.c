/* door.c - what listener.c and stream_listener.c have in common: a port and its connections. */
#include "common/base/log.h"
#include "common/io/door_private.h"

#define BACKLOG 1024

static void tell_when_unused(struct door *door)
{
    if (!door->handle_open && door->connections == 0) {
        door->on_unused(door);
    }
}

static void on_closed(uv_handle_t *handle)
{
    struct door *door = CONTAINER_OF((uv_tcp_t *)handle, struct door, tcp);
    door->handle_open = false;
    tell_when_unused(door);
}

static void on_connection(uv_stream_t *server, int status)
{
    struct door *door = CONTAINER_OF((uv_tcp_t *)server, struct door, tcp);
    if (status < 0) {
        log_warn(NULL, "port %u: cannot accept: %s", door->port, uv_strerror(status));
        return;
    }
    door->connections++; /* before it is taken: failing to take it counts down, too */
    door->on_connection(door, server);
}

static void on_shut(struct loop_object *object)
{
    door_close(CONTAINER_OF(object, struct door, object));
}

static err_t bind_and_listen(struct door *door, const char *host, uint16_t port, struct errmsg *msg)
{
    struct sockaddr_storage address;
    TRY(address_resolve(host, port, &address, msg));
    int rc = uv_tcp_bind(&door->tcp, (const struct sockaddr *)&address, 0);
    if (rc == 0) {
        rc = uv_listen((uv_stream_t *)&door->tcp, BACKLOG, on_connection);
    }
    if (rc < 0) {
        return err_from_uv(msg, rc, "listen on %s:%u", host, port);
    }
    return socket_own_port(&door->tcp, &door->port, msg);
}

err_t door_open(
    struct door *door,
    struct loop *loop,
    const char *host,
    uint16_t port,
    size_t connections_max,
    struct errmsg *msg)
{
    door->object.shut = on_shut;
    door->loop = loop;
    door->connections_max = connections_max;
    int rc = uv_tcp_init(&loop->uv, &door->tcp);
    ASSERT(rc == 0);
    door->handle_open = true;
    loop_add(loop, &door->object);
    err_t err = bind_and_listen(door, host, port, msg);
    if (err != ERR_OK) {
        door_close(door);
    }
    return err;
}

void door_close(struct door *door)
{
    ASSERT(!door->closed); /* once */
    door->closed = true;
    loop_remove(&door->object);
    uv_close((uv_handle_t *)&door->tcp, on_closed);
}

void door_left(struct door *door)
{
    door->connections--;
    tell_when_unused(door);
}

bool door_is_full(const struct door *door, const char *peer)
{
    if (door->connections <= door->connections_max) {
        return false;
    }
    log_warn(
        NULL, "port %u: refused %s: the limit is %zu connections", door->port, peer,
        door->connections_max);
    return true;
}
