/*
 * sync_queue.h - fdatasync that needs no thread of ours: the kernel does it and wakes the loop.
 *
 * A sync on a worker costs two changes of thread there and two back, more than the sync itself when
 * the bytes lie over blocks that exist. Here it is one system call (io_submit), and the end of it
 * is one more thing that the loop's epoll tells. Where the kernel has none of this, or has enough
 * to do, sync_queue_start() says so and the caller takes the executor.
 *
 * Threads: loop only.
 */
#pragma once

#include "common/io/loop.h"

#define SYNC_FILES_MAX 2

struct sync_queue;

/* Files that are synced at the same time. The caller's, until `done`. */
struct sync_request {
    int fds[SYNC_FILES_MAX];           /* open at the start; may be closed meanwhile */
    const char *paths[SYNC_FILES_MAX]; /* for the message; they live as long as the request */
    unsigned count;
    /*
     * ERR_OK: all are durable. ERR_FAILED: one could not be synced, and must not be synced again
     * and believed. ERR_BUSY: not all of them were begun, and none failed.
     */
    void (*done)(struct sync_request *request, err_t result, const struct errmsg *msg);

    unsigned running; /* private, as is the rest */
    bool is_cut_short;
    err_t result;
    struct errmsg msg;
};

/* `requests_max` at a time. ERR_UNSUPPORTED: not with this kernel. */
NODISCARD err_t sync_queue_create(
    struct loop *loop, unsigned requests_max, struct sync_queue **ret_queue, struct errmsg *msg);
void sync_queue_destroy(struct sync_queue *queue); /* none is running any more; NULL is fine */

/* False: nothing was begun, `done` will not come. It never comes from inside this call. */
NODISCARD bool sync_queue_start(struct sync_queue *queue, struct sync_request *request);
