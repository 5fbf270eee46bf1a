/*
 * sync_queue.c - Linux AIO's IOCB_CMD_FDSYNC (Linux 4.18), told to the loop through an eventfd.
 *
 * Each file is an iocb of its own; its `aio_data` is the request, and in the lowest bit which of
 * the files it is. The kernel copies the iocb and keeps the file open.
 */
#include "common/io/sync_queue.h"

#include <errno.h>
#include <linux/aio_abi.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "common/base/mem.h"
#include "common/base/metric.h"
#include "common/io/poll.h"

METRIC_COUNTER(syncs, "sync_queue_syncs_total", "Files synced by the kernel for the loop.");

#define EVENTS_AT_ONCE 64

static_assert(SYNC_FILES_MAX == 2, "the lowest bit of aio_data says which file");

struct sync_queue {
    struct poll_user poll_user;
    int event_fd;
    aio_context_t context;
    unsigned running, requests_max;
    bool is_off; /* the kernel does not know the call */
};

static void end_one(struct sync_queue *queue, const struct io_event *event)
{
    struct sync_request *request = (struct sync_request *)(uintptr_t)(event->data & ~UINT64_C(1));
    if (event->res != 0 && request->result == ERR_OK) {
        errno = (int)-event->res;
        request->result =
            err_set(&request->msg, ERR_FAILED, "fdatasync %s: %m", request->paths[event->data & 1]);
    }
    if (--request->running > 0) {
        return;
    }
    queue->running--;
    if (request->result == ERR_OK && request->is_cut_short) {
        request->result =
            err_set(&request->msg, ERR_BUSY, "the kernel syncs too many files for another one");
    }
    request->done(request, request->result, &request->msg); /* may start it again, or free it */
}

static void on_ended(struct poll_user *user, bool readable, bool writable)
{
    struct sync_queue *queue = CONTAINER_OF(user, struct sync_queue, poll_user);
    (void)writable;
    uint64_t ended = 0;
    if (!readable || read(queue->event_fd, &ended, sizeof(ended)) != sizeof(ended)) {
        return; /* taken already */
    }
    struct io_event events[EVENTS_AT_ONCE];
    struct timespec at_once = {0};
    long count = 0;
    do {
        count = syscall(SYS_io_getevents, queue->context, 0, EVENTS_AT_ONCE, events, &at_once);
        for (long i = 0; i < count; i++) {
            end_one(queue, &events[i]);
        }
    } while (count == EVENTS_AT_ONCE);
}

err_t sync_queue_create(
    struct loop *loop, unsigned requests_max, struct sync_queue **ret_queue, struct errmsg *msg)
{
    ASSERT(requests_max > 0);
    struct sync_queue *queue = MEM_NEW(struct sync_queue);
    queue->event_fd = -1;
    queue->requests_max = requests_max;
    queue->poll_user.on_ready = on_ended;
    err_t err = ERR_OK;
    if (syscall(SYS_io_setup, requests_max * SYNC_FILES_MAX, &queue->context) != 0) {
        err = err_set(msg, ERR_UNSUPPORTED, "io_setup: %m");
        goto out;
    }
    queue->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (queue->event_fd < 0) {
        err = err_set(msg, err_from_errno(errno), "eventfd: %m");
        goto out;
    }
    err = poll_open(loop, queue->event_fd, &queue->poll_user, msg);
    if (err == ERR_OK) {
        poll_want(queue->poll_user.poll, /* readable */ true, /* writable */ false);
    }
out:
    if (err != ERR_OK) {
        sync_queue_destroy(queue);
        return err;
    }
    *ret_queue = queue;
    return ERR_OK;
}

void sync_queue_destroy(struct sync_queue *queue)
{
    if (queue == NULL) {
        return;
    }
    poll_close(queue->poll_user.poll);
    if (queue->context != 0) {
        (void)syscall(SYS_io_destroy, queue->context);
    }
    if (queue->event_fd >= 0) {
        (void)close(queue->event_fd);
    }
    mem_free(queue);
}

static void fill_in(const struct sync_queue *queue, struct sync_request *request, struct iocb *to)
{
    for (unsigned i = 0; i < request->count; i++) {
        to[i] = (struct iocb){
            .aio_data = (uint64_t)(uintptr_t)request | i,
            .aio_lio_opcode = IOCB_CMD_FDSYNC,
            .aio_fildes = (uint32_t)request->fds[i],
            .aio_flags = IOCB_FLAG_RESFD,
            .aio_resfd = (uint32_t)queue->event_fd,
        };
    }
}

bool sync_queue_start(struct sync_queue *queue, struct sync_request *request)
{
    struct iocb iocbs[SYNC_FILES_MAX];
    struct iocb *list[SYNC_FILES_MAX] = {&iocbs[0], &iocbs[1]};
    ASSERT(request->count > 0 && request->count <= SYNC_FILES_MAX);
    if (queue->is_off || queue->running == queue->requests_max) {
        return false;
    }
    fill_in(queue, request, iocbs);
    request->result = ERR_OK;
    request->msg.text[0] = '\0';
    long begun = syscall(SYS_io_submit, queue->context, (long)request->count, list);
    if (begun <= 0) {
        queue->is_off = begun < 0 && errno == EINVAL;
        return false;
    }
    request->running = (unsigned)begun;
    request->is_cut_short = request->running < request->count;
    queue->running++;
    metric_add(&syncs, begun);
    return true;
}
