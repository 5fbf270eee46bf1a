/*
 * poll.h - readiness of a file descriptor that somebody else owns (libpq's socket).
 *
 * The descriptor must stay open until poll_close(). Level-triggered: on_ready comes again while
 * there is something left to do.
 */
#pragma once

#include "common/io/loop.h"

struct poll;

struct poll_user {
    /* poll_close() inside is fine. An error of the descriptor shows as both. */
    void (*on_ready)(struct poll_user *user, bool readable, bool writable);
    struct poll *poll; /* NULL before open and after close */
};

NODISCARD err_t poll_open(struct loop *loop, int fd, struct poll_user *user, struct errmsg *msg);

/* What to wait for from now on; nothing at first. Cheap when nothing changes. */
void poll_want(struct poll *poll, bool readable, bool writable);

/* No callback comes after this; user->poll is NULL. NULL is fine. */
void poll_close(struct poll *poll);
