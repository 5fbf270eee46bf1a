/*
 * door_private.h - a port that takes connections, counts them, and lives until it is closed and the
 * last of them is gone. What a connection becomes is its owner's: listener.c (links) and
 * stream_listener.c (streams) embed one. Threads: loop only.
 */
#pragma once

#include "common/io/loop_private.h"
#include "common/io/socket_private.h"

struct door {
    /* Take one off `server`'s backlog. It is counted already: door_left when it is gone. */
    void (*on_connection)(struct door *door, uv_stream_t *server);
    /* Closed and without connections: the owner's memory may go. */
    void (*on_unused)(struct door *door);

    /* private, but for reading */
    struct loop_object object;
    struct loop *loop;
    uv_tcp_t tcp;
    bool handle_open, closed;
    uint16_t port;
    size_t connections_max;
    size_t connections;
};

/* Callbacks are set. On failure on_unused comes later: the door is closed. */
NODISCARD err_t door_open(
    struct door *door,
    struct loop *loop,
    const char *host,
    uint16_t port,
    size_t connections_max,
    struct errmsg *msg);
void door_close(struct door *door);
void door_left(struct door *door);
/* One too many; says so. */
bool door_is_full(const struct door *door, const char *peer);
