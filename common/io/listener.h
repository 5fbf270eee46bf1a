/*
 * listener.h - accepts framed connections and hands each to its owner as a link.
 */
#pragma once

#include "common/io/link.h"

struct listener;

struct listener_user {
    /*
     * Return the user for the new link (its callbacks set), or NULL to refuse it. `link` is already
     * usable for link_send in the callbacks, not yet inside this call.
     */
    struct link_user *(*on_accept)(struct listener_user *user, struct link *link);
};

/*
 * port 0: the system picks one, see listener_port(). connections_max: more are refused and counted.
 */
NODISCARD err_t listener_open(
    struct loop *loop,
    const char *host,
    uint16_t port,
    size_t connections_max,
    const struct link_options *options,
    struct listener_user *user,
    struct listener **ret_listener,
    struct errmsg *msg);
uint16_t listener_port(const struct listener *listener);
void listener_close(struct listener *listener); /* its links live on; NULL is fine */
