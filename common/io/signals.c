/*
 * signals.c - one uv handle a watch, freed in its close callback.
 */
#include "common/io/signals.h"

#include <signal.h>

#include "common/base/mem.h"
#include "common/io/loop_private.h"

struct signal_watch {
    struct loop_object object;
    uv_signal_t handle;
    struct signal_user *user;
};

static void on_closed(uv_handle_t *handle)
{
    mem_free(CONTAINER_OF(handle, struct signal_watch, handle));
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct signal_watch *watch = CONTAINER_OF(handle, struct signal_watch, handle);
    watch->user->on_signal(watch->user, number);
}

static void on_shut(struct loop_object *object)
{
    signals_unwatch(CONTAINER_OF(object, struct signal_watch, object));
}

err_t signals_watch(
    struct loop *loop,
    int number,
    struct signal_user *user,
    struct signal_watch **ret_watch,
    struct errmsg *msg)
{
    ASSERT(number != SIGCHLD);
    struct signal_watch *watch = MEM_NEW(struct signal_watch);
    watch->object.shut = on_shut;
    watch->user = user;
    int rc = uv_signal_init(&loop->uv, &watch->handle);
    ASSERT(rc == 0);
    loop_add(loop, &watch->object);
    rc = uv_signal_start(&watch->handle, on_signal, number);
    if (rc < 0) {
        signals_unwatch(watch);
        return err_from_uv(msg, rc, "watch for signal %d", number);
    }
    *ret_watch = watch;
    return ERR_OK;
}

void signals_unwatch(struct signal_watch *watch)
{
    if (watch != NULL) {
        loop_remove(&watch->object);
        uv_close((uv_handle_t *)&watch->handle, on_closed);
    }
}
