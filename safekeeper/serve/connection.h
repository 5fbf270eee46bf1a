/*
 * connection.h - one framed connection: a hello for each channel, then the conversation of its
 * role.
 *
 * Whatever a peer sends that does not fit is answered with FRAME_ERROR. A frame that cannot be
 * understood ends the connection; a refusal ends its channel, and the connection when it was the
 * last one. See docs/protocol/hello.md. Threads: loop only.
 */
#pragma once

#include "safekeeper/serve/server.h"

struct connection;

/* The connection of an accepted link; it lives as long as the link does. */
struct link_user *connection_create(struct server *server, struct link *link);

/* All of them: the process stops. */
void connections_close(struct server *server);
