/*
 * loop_private.h - what the modules of common/io share about the loop. Not for other folders.
 */
#pragma once

#include <pthread.h>
#include <uv.h>

#include "common/io/loop.h"
#include "common/io/timer.h"

/*
 * Everything that holds a uv handle embeds one of these, so that loop_destroy() can close what is
 * left in the way that the owner of the handle wants it closed.
 */
struct loop_object {
    struct list_link link;
    void (*shut)(struct loop_object *object); /* it is out of the list already */
};

struct loop {
    uv_loop_t uv;
    uv_async_t wakeup;        /* another thread posted a task or asked to stop */
    uv_idle_t go_on;          /* there are tasks: look at the sockets, but do not wait */
    uv_prepare_t before_poll; /* end of the turn: queued frames are written here ... */
    uv_check_t after_poll;    /* ... and here, so that replies do not wait; tasks run first */
    uv_timer_t alarm;         /* rings for heap[1] */
    struct loop_task ring;    /* instead of it, for what is due already */
    uv_signal_t sigchld;

    /* Binary heap ordered by `at`; heap[0] is unused so that index 0 can mean "not started". */
    struct timer **heap;
    size_t heap_count;
    size_t heap_capacity;

    struct list objects;
    struct list dirty_links; /* links with something to do at the end of the turn */
    struct list dirty_streams;
    struct list children;

    uint64_t turn; /* how often it has gone to look at the sockets */

    /* Guards the rest: the only part that other threads touch. */
    pthread_mutex_t lock;
    struct list posted;
    bool stop_asked;
};

void loop_add(struct loop *loop, struct loop_object *object);
void loop_remove(struct loop_object *object);

/* Take back a task that did not run yet; fine when it is not posted. Loop only. */
void loop_unpost(struct loop *loop, struct loop_task *task);

/* Defined by link.c, stream.c and child.c; called by loop.c. */
void links_end_turn(struct loop *loop);
void streams_end_turn(struct loop *loop);
void children_reap(struct loop *loop);
void children_forget(struct loop *loop);

/* "connection refused" in err_t terms; `number` is a negative UV_E* code. */
NODISCARD err_t err_from_uv(struct errmsg *msg, int number, const char *format, ...)
    PRINTF_LIKE(3, 4);
