/*
 * poll.c - one uv_poll handle a descriptor, freed in its close callback.
 */
#include "common/io/poll.h"

#include "common/base/mem.h"
#include "common/io/loop_private.h"

struct poll {
    struct loop_object object;
    uv_poll_t handle;
    struct poll_user *user;
    int events;
};

static void on_closed(uv_handle_t *handle)
{
    mem_free(CONTAINER_OF(handle, struct poll, handle));
}

static void on_events(uv_poll_t *handle, int status, int events)
{
    struct poll *poll = CONTAINER_OF(handle, struct poll, handle);
    bool broken = status < 0; /* whoever reads or writes next will find out why */
    poll->user->on_ready(
        poll->user, broken || (events & UV_READABLE) != 0, broken || (events & UV_WRITABLE) != 0);
}

static void on_shut(struct loop_object *object)
{
    poll_close(CONTAINER_OF(object, struct poll, object));
}

err_t poll_open(struct loop *loop, int fd, struct poll_user *user, struct errmsg *msg)
{
    struct poll *poll = MEM_NEW(struct poll);
    int rc = uv_poll_init(&loop->uv, &poll->handle, fd);
    if (rc < 0) {
        mem_free(poll);
        return err_from_uv(msg, rc, "watch descriptor %d", fd);
    }
    poll->object.shut = on_shut;
    poll->user = user;
    user->poll = poll;
    loop_add(loop, &poll->object);
    return ERR_OK;
}

void poll_want(struct poll *poll, bool readable, bool writable)
{
    int events = (readable ? UV_READABLE : 0) | (writable ? UV_WRITABLE : 0);
    if (events == poll->events) {
        return;
    }
    poll->events = events;
    int rc =
        events == 0 ? uv_poll_stop(&poll->handle) : uv_poll_start(&poll->handle, events, on_events);
    ASSERT(rc == 0);
}

void poll_close(struct poll *poll)
{
    if (poll != NULL) {
        poll->user->poll = NULL;
        loop_remove(&poll->object);
        uv_close((uv_handle_t *)&poll->handle, on_closed);
    }
}
