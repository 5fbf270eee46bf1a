/*
 * loop.c - libuv underneath; tasks from other threads come in through one async handle.
 *
 * All tasks run when the sockets have been looked at. What the loop itself posts needs no system
 * call for it: they run in the same turn or, posted later in it, after a look that does not wait.
 */
#include "common/io/loop.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/base/mem.h"
#include "common/io/loop_private.h"

err_t err_from_uv(struct errmsg *msg, int number, const char *format, ...)
{
    ASSERT(number < 0);
    if (msg != NULL) {
        va_list args;
        va_start(args, format);
        (void)vsnprintf(msg->text, sizeof(msg->text), format, args);
        va_end(args);
        size_t used = strlen(msg->text);
        (void)snprintf(
            msg->text + used, sizeof(msg->text) - used, ": %s",
            number == UV_EOF ? "closed by the peer" : uv_strerror(number));
    }
    return number == UV_EOF ? ERR_IO : err_from_errno(-number);
}

void loop_add(struct loop *loop, struct loop_object *object)
{
    list_push_back(&loop->objects, &object->link);
}

void loop_remove(struct loop_object *object)
{
    list_remove(&object->link);
}

static bool take_posted(struct loop *loop, struct list *to)
{
    list_init(to);
    (void)pthread_mutex_lock(&loop->lock);
    for (struct list_link *link = list_pop_front(&loop->posted); link != NULL;
         link = list_pop_front(&loop->posted)) {
        list_push_back(to, link);
    }
    bool stop = loop->stop_asked;
    (void)pthread_mutex_unlock(&loop->lock);
    return stop;
}

static _Thread_local const struct loop *running; /* of this thread */

static void on_wakeup(uv_async_t *handle)
{
    (void)handle; /* it ends the wait; run_posted() comes next */
}

static void on_going_on(uv_idle_t *handle)
{
    (void)handle;
}

static void run_posted(struct loop *loop)
{
    struct list tasks;
    (void)uv_idle_stop(&loop->go_on); /* a task may post again */
    bool stop = take_posted(loop, &tasks);
    for (struct list_link *link = list_pop_front(&tasks); link != NULL;
         link = list_pop_front(&tasks)) {
        struct loop_task *task = CONTAINER_OF(link, struct loop_task, link);
        task->run(task); /* may free itself, post again, or take another task back */
    }
    if (stop) {
        uv_stop(&loop->uv);
    }
}

static void on_before_poll(uv_prepare_t *handle)
{
    struct loop *loop = CONTAINER_OF(handle, struct loop, before_poll);
    loop->turn++;
    links_end_turn(loop);
    streams_end_turn(loop);
}

static void on_after_poll(uv_check_t *handle)
{
    struct loop *loop = CONTAINER_OF(handle, struct loop, after_poll);
    run_posted(loop);
    links_end_turn(loop);
    streams_end_turn(loop);
}

static void on_sigchld(uv_signal_t *handle, int number)
{
    (void)number;
    children_reap(CONTAINER_OF(handle, struct loop, sigchld));
}

err_t loop_create(struct loop **ret_loop, struct errmsg *msg)
{
    struct loop *loop = MEM_NEW(struct loop);
    int rc = uv_loop_init(&loop->uv);
    if (rc < 0) {
        mem_free(loop);
        return err_from_uv(msg, rc, "create the event loop");
    }
    list_init(&loop->objects);
    list_init(&loop->dirty_links);
    list_init(&loop->dirty_streams);
    list_init(&loop->children);
    list_init(&loop->posted);
    (void)pthread_mutex_init(&loop->lock, NULL);
    /* None of these can fail but for want of file descriptors: then nothing could run anyway. */
    rc = uv_async_init(&loop->uv, &loop->wakeup, on_wakeup);
    rc = rc < 0 ? rc : uv_idle_init(&loop->uv, &loop->go_on);
    rc = rc < 0 ? rc : uv_prepare_init(&loop->uv, &loop->before_poll);
    rc = rc < 0 ? rc : uv_prepare_start(&loop->before_poll, on_before_poll);
    rc = rc < 0 ? rc : uv_check_init(&loop->uv, &loop->after_poll);
    rc = rc < 0 ? rc : uv_check_start(&loop->after_poll, on_after_poll);
    rc = rc < 0 ? rc : uv_timer_init(&loop->uv, &loop->alarm);
    rc = rc < 0 ? rc : uv_signal_init(&loop->uv, &loop->sigchld);
    rc = rc < 0 ? rc : uv_signal_start(&loop->sigchld, on_sigchld, SIGCHLD);
    if (rc < 0) {
        fatal("create the event loop: %s", uv_strerror(rc));
    }
    *ret_loop = loop;
    return ERR_OK;
}

void loop_run(struct loop *loop)
{
    running = loop;
    (void)uv_run(&loop->uv, UV_RUN_DEFAULT);
    running = NULL;
    (void)pthread_mutex_lock(&loop->lock);
    loop->stop_asked = false; /* it may run again: tests do */
    (void)pthread_mutex_unlock(&loop->lock);
}

void loop_stop(struct loop *loop)
{
    (void)pthread_mutex_lock(&loop->lock);
    loop->stop_asked = true;
    (void)pthread_mutex_unlock(&loop->lock);
    (void)uv_async_send(&loop->wakeup);
}

uint64_t loop_turn(const struct loop *loop)
{
    return loop->turn;
}

void loop_post(struct loop *loop, struct loop_task *task)
{
    (void)pthread_mutex_lock(&loop->lock);
    bool first = list_is_empty(&loop->posted);
    list_push_back(&loop->posted, &task->link);
    (void)pthread_mutex_unlock(&loop->lock);
    if (running == loop) {
        (void)uv_idle_start(&loop->go_on, on_going_on);
    } else if (first) {
        (void)uv_async_send(&loop->wakeup);
    }
}

void loop_unpost(struct loop *loop, struct loop_task *task)
{
    (void)pthread_mutex_lock(&loop->lock);
    list_remove(&task->link);
    (void)pthread_mutex_unlock(&loop->lock);
}

static void close_handle(uv_handle_t *handle, void *context)
{
    (void)context;
    if (!uv_is_closing(handle)) {
        uv_close(handle, NULL);
    }
}

void loop_destroy(struct loop *loop)
{
    if (loop == NULL) {
        return;
    }
    for (struct list_link *link = list_pop_front(&loop->objects); link != NULL;
         link = list_pop_front(&loop->objects)) {
        struct loop_object *object = CONTAINER_OF(link, struct loop_object, link);
        object->shut(object);
    }
    children_forget(loop); /* they go on without us unless they die with us */
    while (loop->heap_count > 0) {
        timer_stop(loop->heap[1]);
    }
    close_handle((uv_handle_t *)&loop->wakeup, NULL);
    close_handle((uv_handle_t *)&loop->go_on, NULL);
    close_handle((uv_handle_t *)&loop->before_poll, NULL);
    close_handle((uv_handle_t *)&loop->after_poll, NULL);
    close_handle((uv_handle_t *)&loop->alarm, NULL);
    close_handle((uv_handle_t *)&loop->sigchld, NULL);
    uv_walk(&loop->uv, close_handle, NULL);
    (void)uv_run(&loop->uv, UV_RUN_DEFAULT); /* the close callbacks */
    int rc = uv_loop_close(&loop->uv);
    ASSERT(rc == 0);
    (void)pthread_mutex_destroy(&loop->lock);
    mem_free(loop->heap);
    mem_free(loop);
}
