/*
 * stream_private.h - what the listener needs of a stream, and the loop of both.
 */
#pragma once

#include "common/io/loop_private.h"
#include "common/io/socket_private.h"
#include "common/io/stream.h"

/* Called when an accepted stream is gone; embedded by the listener. */
struct stream_owner {
    void (*on_gone)(struct stream_owner *owner);
};

/* Take a connection off `server`'s backlog; it does not read until stream_begin(). */
NODISCARD err_t stream_accept(
    struct loop *loop,
    uv_stream_t *server,
    const struct stream_options *options,
    struct stream_owner *owner,
    struct stream **ret_stream,
    struct errmsg *msg);
void stream_begin(struct stream *stream, struct stream_user *user);
