/*
 * link.c - framed TCP over libuv.
 *
 * Writes: everything that is sent during one turn of the loop gathers in `out`; at the end of the
 * turn one write() takes it. Only what the socket does not take is handed to libuv (`writing`), and
 * `out` gathers again behind it.
 * Reads: straight into `in`, which grows to one frame at most; frames are views into it.
 * Lifetime: link_end() begins the close of the handle; its callback calls on_closed and frees. So
 * whatever a callback of the owner does, the link is valid until we return to the loop.
 */
#include "common/io/link.h"

#include <stdio.h>

#include "common/base/mem.h"
#include "common/base/metric.h"
#include "common/base/str.h"
#include "common/io/link_private.h"
#include "common/wire/hello_proto.h"

METRIC_COUNTER(frames_received, "link_frames_received_total", "Frames received.");
METRIC_COUNTER(bytes_received, "link_received_bytes_total", "Bytes received on framed links.");
METRIC_COUNTER(bytes_sent, "link_sent_bytes_total", "Bytes written to framed links.");
METRIC_GAUGE(links_open, "link_open", "Framed connections that exist.");

#define CONNECT_TIMEOUT_MS 5000
#define SEND_QUEUE_MAX     (16 * MIB)
#define SEND_QUEUE_LIMITS  4 /* times send_queue_max: then the link is lost, not our memory */
#define READ_SPACE_MIN     (64 * KIB)
#define KEEP_IN_MAX        (128 * KIB) /* an idle link gives more than this back */
#define LINGER_MS          1000
#define UNREAD_MAX_MS      20000

enum link_state {
    LINK_RESOLVING,
    LINK_CONNECTING,
    LINK_READY, /* accepted, link_begin() not yet called */
    LINK_OPEN,
    LINK_CLOSING, /* link_close(): flush, shut down our side, wait for the peer's, at most 1 s */
    LINK_ENDED,   /* the handle closes; on_closed follows */
};

struct link {
    struct loop_object object;
    struct loop *loop;
    struct link_user *user;
    struct link_owner *owner; /* accepted links only */
    enum link_state state;
    uv_tcp_t tcp;
    uv_connect_t connect;
    uv_getaddrinfo_t resolve;
    uv_shutdown_t shutdown;
    uv_write_t write;
    bool handle_open; /* uv_tcp_init succeeded */
    bool resolving;   /* uv holds `resolve` */
    bool write_pending, shutdown_sent;
    bool reading, paused, congested;

    struct list_link dirty; /* in loop->dirty_links: something to do at the end of the turn */
    struct buf out, writing, in;
    struct buf discard; /* takes what is sent after link_close() */
    size_t in_begin;    /* bytes of `in` that were taken already */

    struct timer timer; /* connecting: its limit; open: idle limit; closing: linger limit */
    uint64_t received_ms;
    struct link_options options;
    char source_host[64];
    uint16_t port;
    err_t reason;
    struct errmsg reason_msg;
    char peer[SOCKET_PEER_SIZE];
};

static void mark_dirty(struct link *link)
{
    if (!list_link_is_in(&link->dirty)) {
        list_push_back(&link->loop->dirty_links, &link->dirty);
    }
}

/* The end of the link's life. */

static void finish_if_free(struct link *link)
{
    if (link->handle_open || link->resolving) {
        return;
    }
    metric_add(&links_open, -1);
    struct link_user *user = link->user;
    if (user != NULL) {
        user->link = NULL;
        user->callbacks->on_closed(user, link->reason, &link->reason_msg);
    }
    if (link->owner != NULL) {
        link->owner->on_gone(link->owner);
    }
    buf_deinit(&link->out);
    buf_deinit(&link->writing);
    buf_deinit(&link->in);
    buf_deinit(&link->discard);
    mem_free(link);
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct link *link = CONTAINER_OF(handle, struct link, tcp);
    link->handle_open = false;
    finish_if_free(link);
}

/* Begin the end; `reason` counts unless an earlier one was given. on_closed follows later. */
static void link_end(struct link *link)
{
    if (link->state == LINK_ENDED) {
        return;
    }
    link->state = LINK_ENDED;
    timer_stop(&link->timer);
    list_remove(&link->dirty);
    loop_remove(&link->object);
    if (link->resolving) {
        (void)uv_cancel((uv_req_t *)&link->resolve);
    }
    uv_close((uv_handle_t *)&link->tcp, on_handle_closed);
}

static void link_fail(struct link *link, err_t reason, const struct errmsg *msg)
{
    if (link->state == LINK_CLOSING || link->state == LINK_ENDED) {
        link_end(link); /* we wanted it closed: how it ended does not matter any more */
        return;
    }
    link->reason = reason;
    link->reason_msg = *msg;
    link_end(link);
}

static void fail_uv(struct link *link, int number, const char *what)
{
    struct errmsg msg;
    err_t reason = err_from_uv(&msg, number, "%s %s", what, link->peer);
    link_fail(link, reason, &msg);
}

static void on_object_shut(struct loop_object *object)
{
    link_abort(CONTAINER_OF(object, struct link, object));
}

/* Writing. */

static size_t queued_bytes(const struct link *link)
{
    size_t in_uv =
        link->write_pending ? uv_stream_get_write_queue_size((const uv_stream_t *)&link->tcp) : 0;
    return link->out.size + in_uv;
}

static void on_written(uv_write_t *write, int status);

static void flush(struct link *link)
{
    /* Also while a write is pending: that is how a peer which reads nothing looks. */
    if (link->out.size > SEND_QUEUE_LIMITS * link->options.send_queue_max) {
        struct errmsg msg;
        err_t err = err_set(
            &msg, ERR_FULL, "%s does not read: %zu bytes wait to be sent", link->peer,
            link->out.size);
        link_fail(link, err, &msg);
        return;
    }
    if (link->write_pending || link->out.size == 0) {
        return;
    }
    uv_buf_t piece = uv_buf_init((char *)link->out.data, (unsigned)MIN_OF(link->out.size, GIB));
    int rc = uv_try_write((uv_stream_t *)&link->tcp, &piece, 1);
    if (rc < 0 && rc != UV_EAGAIN) {
        fail_uv(link, rc, "send to");
        return;
    }
    size_t written = rc < 0 ? 0 : (size_t)rc;
    metric_add(&bytes_sent, (int64_t)written);
    if (written == link->out.size) {
        buf_clear(&link->out);
        return;
    }
    /* The rest waits in uv; new frames gather behind it in the other buffer. */
    struct buf spare = link->writing;
    link->writing = link->out;
    link->out = spare;
    buf_clear(&link->out);
    piece =
        uv_buf_init((char *)link->writing.data + written, (unsigned)(link->writing.size - written));
    rc = uv_write(&link->write, (uv_stream_t *)&link->tcp, &piece, 1, on_written);
    if (rc < 0) {
        fail_uv(link, rc, "send to");
        return;
    }
    metric_add(&bytes_sent, (int64_t)piece.len);
    link->write_pending = true;
}

static void tell_drained(struct link *link)
{
    if (link->state == LINK_OPEN && link->congested &&
        queued_bytes(link) < link->options.send_queue_max / 2) {
        link->congested = false;
        if (link->user->callbacks->on_drained != NULL) {
            link->user->callbacks->on_drained(link->user);
        }
    }
}

static void on_shut_down(uv_shutdown_t *shutdown, int status)
{
    (void)shutdown; /* the peer's end of stream, or the linger timer, ends the link */
    (void)status;
}

static void close_when_flushed(struct link *link)
{
    if (link->state == LINK_CLOSING && !link->write_pending && link->out.size == 0 &&
        !link->shutdown_sent) {
        link->shutdown_sent = true;
        if (uv_shutdown(&link->shutdown, (uv_stream_t *)&link->tcp, on_shut_down) < 0) {
            link_end(link);
        }
    }
}

static void on_written(uv_write_t *write, int status)
{
    struct link *link = CONTAINER_OF(write, struct link, write);
    link->write_pending = false;
    buf_clear(&link->writing);
    if (link->state == LINK_ENDED) {
        return;
    }
    if (status < 0) {
        fail_uv(link, status, "send to");
        return;
    }
    flush(link);
    close_when_flushed(link);
    tell_drained(link);
}

/* Reading. */

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    (void)suggested;
    struct link *link = CONTAINER_OF(handle, struct link, tcp);
    struct buf *in = &link->in;
    if (in->capacity - in->size < READ_SPACE_MIN && link->in_begin > 0) {
        buf_consume(in, link->in_begin);
        link->in_begin = 0;
    }
    size_t wanted = READ_SPACE_MIN;
    size_t have = in->size - link->in_begin;
    if (have >= FRAME_HEADER_SIZE) { /* a frame that is not complete: make room for all of it */
        struct reader header = reader_of(bytes_of(in->data + link->in_begin, have));
        (void)get_u32(&header);
        size_t frame_size = FRAME_HEADER_SIZE + (size_t)get_u32(&header);
        if (frame_size <= FRAME_HEADER_SIZE + FRAME_PAYLOAD_MAX && frame_size > have) {
            wanted = MAX_OF(wanted, frame_size - have);
        }
    }
    buf_reserve(in, wanted);
    *buf = uv_buf_init((char *)in->data + in->size, (unsigned)(in->capacity - in->size));
}

static void take_frames(struct link *link)
{
    size_t last_size = 0;
    while (link->state == LINK_OPEN && !link->paused) {
        struct frame frame;
        size_t taken = 0;
        struct errmsg msg;
        struct bytes view =
            bytes_of(link->in.data + link->in_begin, link->in.size - link->in_begin);
        err_t err = frame_parse(view, &frame, &taken, &msg);
        if (err != ERR_OK) {
            err = err_wrap(&msg, err, "from %s", link->peer);
            link_fail(link, err, &msg);
            return;
        }
        if (taken == 0) {
            break;
        }
        link->in_begin += taken;
        last_size = taken;
        metric_add(&frames_received, 1);
        link->user->callbacks->on_frame(link->user, &frame);
    }
    if (link->in_begin == link->in.size) {
        link->in_begin = 0;
        buf_clear(&link->in);
        if (link->in.capacity > KEEP_IN_MAX && last_size < READ_SPACE_MIN) {
            buf_deinit(&link->in);
        }
    }
}

static void on_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *buf)
{
    (void)buf;
    struct link *link = CONTAINER_OF((uv_tcp_t *)stream, struct link, tcp);
    if (size == 0 || link->state == LINK_ENDED) {
        return;
    }
    if (size < 0) {
        if (size == UV_EOF && link->in.size > link->in_begin) {
            struct errmsg msg;
            err_t err = err_set(
                &msg, ERR_IO, "%s closed the connection in the middle of a frame", link->peer);
            link_fail(link, err, &msg);
            return;
        }
        fail_uv(link, (int)size, "receive from");
        return;
    }
    if (link->state != LINK_OPEN) {
        return; /* lingering: what the peer still sends is not wanted */
    }
    metric_add(&bytes_received, size);
    link->in.size += (size_t)size;
    link->received_ms = uv_now(&link->loop->uv);
    take_frames(link);
}

static void start_reading(struct link *link)
{
    if (!link->reading) {
        int rc = uv_read_start((uv_stream_t *)&link->tcp, on_alloc, on_read);
        if (rc < 0) {
            fail_uv(link, rc, "receive from");
            return;
        }
        link->reading = true;
    }
}

static void stop_reading(struct link *link)
{
    if (link->reading) {
        (void)uv_read_stop((uv_stream_t *)&link->tcp);
        link->reading = false;
    }
}

static void end_turn(struct link *link)
{
    if (link->state == LINK_OPEN || link->state == LINK_CLOSING) {
        flush(link);
        close_when_flushed(link);
        tell_drained(link);
    }
}

static bool goes_on(const struct link *link)
{
    return link->state == LINK_OPEN && !link->paused && !link->reading;
}

static void go_on(struct link *link)
{
    take_frames(link); /* those that came before the pause */
    if (link->state == LINK_OPEN && !link->paused) {
        start_reading(link);
    }
}

/* Writes what has gathered; links that were resumed go to `resumed`. */
static void write_gathered(struct loop *loop, struct list *resumed)
{
    for (struct list_link *item = list_pop_front(&loop->dirty_links); item != NULL;
         item = list_pop_front(&loop->dirty_links)) {
        struct link *link = CONTAINER_OF(item, struct link, dirty);
        if (goes_on(link)) {
            list_push_back(resumed, item);
        } else {
            end_turn(link);
        }
    }
}

/*
 * Called when a turn of the loop ends: gathered frames are written, then resumed links go on. In
 * this order: what is ready to be sent does not wait for the work of those who were held back.
 */
void links_end_turn(struct loop *loop)
{
    struct list resumed;
    list_init(&resumed);
    do {
        write_gathered(loop, &resumed);
        struct list_link *item = list_pop_front(&resumed);
        if (item != NULL) {
            struct link *link = CONTAINER_OF(item, struct link, dirty);
            if (goes_on(link)) {
                go_on(link);
            }
            end_turn(link);
        }
    } while (!list_is_empty(&loop->dirty_links) || !list_is_empty(&resumed));
}

/* Opening. */

static void on_timer(struct timer *timer)
{
    struct link *link = CONTAINER_OF(timer, struct link, timer);
    struct errmsg msg;
    if (link->state == LINK_CLOSING) {
        link_end(link);
        return;
    }
    if (link->state == LINK_RESOLVING || link->state == LINK_CONNECTING) {
        err_t err = err_set(
            &msg, ERR_TIMEOUT, "connect to %s: no answer for %" PRIu64 " ms", link->peer,
            link->options.connect_timeout_ms);
        link_fail(link, err, &msg);
        return;
    }
    uint64_t limit_ms = link->options.idle_timeout_ms;
    uint64_t silent_ms = uv_now(&link->loop->uv) - link->received_ms;
    if (link->paused || silent_ms < limit_ms) { /* a paused link cannot hear its peer */
        timer_start(link->loop, timer, link->paused ? limit_ms : limit_ms - silent_ms);
        return;
    }
    err_t err =
        err_set(&msg, ERR_TIMEOUT, "%s was silent for %" PRIu64 " ms", link->peer, silent_ms);
    link_fail(link, err, &msg);
}

static struct link *link_new(struct loop *loop, const struct link_options *options)
{
    struct link *link = MEM_NEW(struct link);
    link->loop = loop;
    link->object.shut = on_object_shut;
    link->timer.on_fire = on_timer;
    if (options != NULL) {
        link->options = *options;
    }
    link->options.source_host = NULL; /* the caller's text may be gone later */
    if (link->options.connect_timeout_ms == 0) {
        link->options.connect_timeout_ms = CONNECT_TIMEOUT_MS;
    }
    if (link->options.send_queue_max == 0) {
        link->options.send_queue_max = SEND_QUEUE_MAX;
    }
    metric_add(&links_open, 1);
    return link;
}

static void go_open(struct link *link)
{
    socket_set_options(&link->tcp, UNREAD_MAX_MS);
    link->state = LINK_OPEN;
    link->received_ms = uv_now(&link->loop->uv);
    timer_stop(&link->timer);
    if (link->options.idle_timeout_ms > 0) {
        timer_start(link->loop, &link->timer, link->options.idle_timeout_ms);
    }
    if (!link->paused) {
        start_reading(link);
    }
    if (link->out.size > 0) {
        mark_dirty(link);
    }
}

static void on_connected(uv_connect_t *connect, int status)
{
    struct link *link = CONTAINER_OF(connect, struct link, connect);
    if (link->state != LINK_CONNECTING) {
        return; /* ended meanwhile */
    }
    if (status < 0) {
        fail_uv(link, status, "connect to");
        return;
    }
    socket_name_peer(&link->tcp, link->peer);
    go_open(link);
    if (link->state == LINK_OPEN && link->user->callbacks->on_open != NULL) {
        link->user->callbacks->on_open(link->user);
    }
}

static void start_connect(struct link *link, const struct sockaddr_storage *address)
{
    link->state = LINK_CONNECTING;
    int rc = 0;
    if (link->source_host[0] != '\0') {
        struct sockaddr_storage source;
        bool valid = address_parse(link->source_host, 0, &source);
        rc = valid ? uv_tcp_bind(&link->tcp, (const struct sockaddr *)&source, 0) : UV_EINVAL;
    }
    if (rc == 0) {
        rc = uv_tcp_connect(
            &link->connect, &link->tcp, (const struct sockaddr *)address, on_connected);
    }
    if (rc < 0) {
        fail_uv(link, rc, "connect to");
    }
}

static void on_resolved(uv_getaddrinfo_t *resolve, int status, struct addrinfo *found)
{
    struct link *link = CONTAINER_OF(resolve, struct link, resolve);
    link->resolving = false;
    if (link->state == LINK_ENDED) {
        finish_if_free(link);
    } else if (status < 0) {
        fail_uv(link, status, "find the host of");
    } else {
        struct sockaddr_storage address;
        address_take(found, &address);
        start_connect(link, &address);
    }
    uv_freeaddrinfo(found);
}

err_t link_connect(
    struct loop *loop,
    const char *host,
    uint16_t port,
    const struct link_options *options,
    struct link_user *user,
    struct errmsg *msg)
{
    ASSERT(user->link == NULL && user->callbacks->on_frame != NULL);
    ASSERT(user->callbacks->on_closed != NULL);
    if (host[0] == '\0' || strlen(host) > 100 || strpbrk(host, " /\t\n") != NULL || port == 0) {
        return err_set(
            msg, ERR_INVALID, "\"%.60s\" port %u is not an address to connect to", host, port);
    }
    struct link *link = link_new(loop, options);
    if (options != NULL && options->source_host != NULL) {
        (void)snprintf(link->source_host, sizeof(link->source_host), "%s", options->source_host);
    }
    link->port = port;
    (void)snprintf(link->peer, sizeof(link->peer), "%s:%u", host, port);
    int rc = uv_tcp_init(&loop->uv, &link->tcp);
    ASSERT(rc == 0);
    link->handle_open = true;
    link->user = user;
    user->link = link;
    loop_add(loop, &link->object);
    timer_start(loop, &link->timer, link->options.connect_timeout_ms);

    struct sockaddr_storage address;
    if (address_parse(host, port, &address)) {
        start_connect(link, &address);
        return ERR_OK; /* a failure arrives in on_closed */
    }
    link->state = LINK_RESOLVING;
    char service[8];
    (void)snprintf(service, sizeof(service), "%u", port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    rc = uv_getaddrinfo(&loop->uv, &link->resolve, on_resolved, host, service, &hints);
    if (rc < 0) {
        fail_uv(link, rc, "find the host of");
    } else {
        link->resolving = true;
    }
    return ERR_OK;
}

err_t link_accept(
    struct loop *loop,
    uv_stream_t *server,
    const struct link_options *options,
    struct link_owner *owner,
    struct link **ret_link,
    struct errmsg *msg)
{
    struct link *link = link_new(loop, options);
    int rc = uv_tcp_init(&loop->uv, &link->tcp);
    ASSERT(rc == 0);
    link->handle_open = true;
    link->owner = owner;
    link->state = LINK_READY;
    loop_add(loop, &link->object);
    rc = uv_accept(server, (uv_stream_t *)&link->tcp);
    if (rc < 0) {
        link_end(link);
        return err_from_uv(msg, rc, "accept a connection");
    }
    socket_name_peer(&link->tcp, link->peer);
    *ret_link = link;
    return ERR_OK;
}

void link_begin(struct link *link, struct link_user *user)
{
    ASSERT(user->callbacks->on_frame != NULL && user->callbacks->on_closed != NULL);
    link->user = user;
    user->link = link;
    go_open(link);
}

void link_refuse(struct link *link)
{
    link_end(link);
}

/* What owners call. */

struct buf *link_send_buffer(struct link *link)
{
    if (link->state == LINK_CLOSING || link->state == LINK_ENDED) {
        buf_clear(&link->discard);
        return &link->discard;
    }
    if (link->state == LINK_OPEN) {
        mark_dirty(link);
    }
    return &link->out;
}

void link_send(struct link *link, const struct frame *frame)
{
    frame_append(link_send_buffer(link), frame);
}

void link_send_encoded(struct link *link, struct bytes frames)
{
    buf_append(link_send_buffer(link), frames.data, frames.size);
}

bool link_is_congested(const struct link *link)
{
    bool congested = queued_bytes(link) > link->options.send_queue_max;
    if (congested) {
        ((struct link *)link)->congested = true; /* the owner will wait for on_drained */
    }
    return congested;
}

void link_pause(struct link *link)
{
    link->paused = true;
    if (link->state == LINK_OPEN) {
        stop_reading(link);
    }
}

void link_resume(struct link *link)
{
    if (link->paused) {
        link->paused = false;
        link->received_ms = uv_now(&link->loop->uv);
        if (link->state == LINK_OPEN) {
            mark_dirty(link); /* frames that wait are taken at the end of the turn */
        }
    }
}

void link_close(struct link *link)
{
    if (link->state == LINK_CLOSING || link->state == LINK_ENDED) {
        return;
    }
    bool open = link->state == LINK_OPEN;
    link->reason = ERR_OK;
    if (!open) {
        link_end(link);
        return;
    }
    /*
     * Shut down our side and wait for the peer's before closing: closing with unread bytes in the
     * socket makes the kernel send a reset, which would destroy what we sent last, such as the
     * FRAME_ERROR that says why.
     */
    link->state = LINK_CLOSING;
    timer_start(link->loop, &link->timer, LINGER_MS);
    start_reading(link);
    mark_dirty(link);
}

void link_abort(struct link *link)
{
    link_end(link);
}

const char *link_peer(const struct link *link)
{
    return link->peer;
}

void link_send_error(
    struct link *link, uint32_t channel, uint64_t request_id, err_t err, const struct errmsg *msg)
{
    struct error_reply reply = {
        .code = (uint32_t)err,
        .message = bytes_of_str(msg != NULL && msg->text[0] != '\0' ? msg->text : err_name(err)),
    };
    LINK_SEND(
        link, error_reply, &reply, .type = FRAME_ERROR, .channel = channel,
        .request_id = request_id);
}
