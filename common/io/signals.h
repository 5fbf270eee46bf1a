/*
 * signals.h - Unix signals as events of the loop. SIGCHLD belongs to child.h.
 */
#pragma once

#include "common/io/loop.h"

struct signal_watch;

struct signal_user {
    void (*on_signal)(struct signal_user *user, int number);
};

/* Until signals_unwatch(); `user` must live so long. */
NODISCARD err_t signals_watch(
    struct loop *loop,
    int number,
    struct signal_user *user,
    struct signal_watch **ret_watch,
    struct errmsg *msg);
void signals_unwatch(struct signal_watch *watch); /* NULL is fine */
