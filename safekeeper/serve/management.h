/*
 * management.h - the HTTP routes of a safekeeper: control creates, looks at and deletes timelines.
 *
 * See docs/design/walking-skeleton.md. Every change is durable when it is answered, and may be
 * repeated. Threads: loop only.
 */
#pragma once

#include "safekeeper/serve/server.h"

void management_add_routes(struct server *server, struct http_server *http);
