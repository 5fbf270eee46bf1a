/*
 * loop.h - the event loop (libuv) that owns every object of a daemon.
 *
 * Threads: one loop runs on one thread; everything in common/io is loop only except what is marked
 * [any]. Nothing else in the tree includes uv.h, microhttpd.h or curl.h.
 */
#pragma once

#include "common/base/err.h"
#include "common/base/list.h"

struct loop;

NODISCARD err_t loop_create(struct loop **ret_loop, struct errmsg *msg);
void loop_destroy(struct loop *loop); /* after loop_run returned; closes what is left */

void loop_run(struct loop *loop);  /* until loop_stop() */
void loop_stop(struct loop *loop); /* [any] */

uint64_t loop_turn(const struct loop *loop); /* how often it has gone to look at the sockets */

/* Run task->run on the loop's thread soon, in the order of posting. [any] */
struct loop_task {
    void (*run)(struct loop_task *task);
    struct list_link link;
};
void loop_post(struct loop *loop, struct loop_task *task);
