/*
 * link_private.h - what the listener needs of a link.
 */
#pragma once

#include "common/io/link.h"
#include "common/io/loop_private.h"
#include "common/io/socket_private.h"

/* Called when an accepted link is gone; embedded by the listener. */
struct link_owner {
    void (*on_gone)(struct link_owner *owner);
};

/*
 * Take a connection off `server`'s backlog. The link does not read until link_begin(); without a
 * user it is ended by link_refuse().
 */
NODISCARD err_t link_accept(
    struct loop *loop,
    uv_stream_t *server,
    const struct link_options *options,
    struct link_owner *owner,
    struct link **ret_link,
    struct errmsg *msg);
void link_begin(struct link *link, struct link_user *user);
void link_refuse(struct link *link);
