/*
 * stream.c - bytes over TCP, in plain or in TLS.
 *
 * Writes: plain bytes gather in `out` during one turn of the loop. At its end they go, encrypted
 * when there is a session, into `wire`, and one write() takes that; what the socket does not take
 * is handed to libuv (`writing`). Reads: into one buffer of the thread, and out of it before the
 * next read. Lifetime: stream_end() begins the close of the handle; its callback calls on_closed
 * and frees. So whatever a callback of the owner does, the stream is valid until we return to the
 * loop.
 */
#include "common/io/stream.h"

#include <stdio.h>

#include "common/base/mem.h"
#include "common/base/metric.h"
#include "common/io/stream_private.h"

METRIC_COUNTER(bytes_received, "stream_received_bytes_total", "Bytes received on plain streams.");
METRIC_COUNTER(bytes_sent, "stream_sent_bytes_total", "Bytes written to plain streams.");
METRIC_GAUGE(streams_open, "stream_open", "Connections of plain bytes that exist.");

#define CONNECT_TIMEOUT_MS 5000
#define SEND_QUEUE_MAX     (256 * KIB)
#define SEND_QUEUE_LIMIT   (64 * MIB) /* then the stream is lost, not our memory */
#define READ_SPACE         (64 * KIB)
#define KEEP_BUFFER_MAX    (16 * KIB) /* an idle stream gives more than this back */
#define LINGER_MS          1000
#define SILENCE_MAX_MS     20000

enum stream_state {
    STREAM_RESOLVING,
    STREAM_CONNECTING,
    STREAM_READY, /* accepted, stream_begin() not yet called */
    STREAM_OPEN,
    STREAM_CLOSING, /* stream_close(): flush, shut down our side, wait for the peer's, at most 1 s
                     */
    STREAM_ENDED,   /* the handle closes; on_closed follows */
};

struct stream {
    struct loop_object object;
    struct loop *loop;
    struct stream_user *user;
    struct stream_owner *owner; /* accepted streams only */
    enum stream_state state;
    uv_tcp_t tcp;
    uv_connect_t connect;
    uv_getaddrinfo_t resolve;
    uv_shutdown_t shutdown;
    uv_write_t write;
    bool handle_open, resolving, write_pending, shutdown_sent;
    bool reading, paused, congested, secured, ended;

    struct list_link dirty; /* in loop->dirty_streams: something to write at the end of the turn */
    struct tls_session *tls;
    struct buf out;     /* plain bytes of this turn */
    struct buf wire;    /* what the socket shall get */
    struct buf writing; /* what libuv holds */
    struct buf discard; /* takes what is sent after stream_close() */

    struct timer timer;   /* connecting, lingering: their limits */
    struct timer watcher; /* while something was sent: is the peer still there? */
    bool silent;          /* when it was looked at last */
    struct stream_options options;
    uint16_t port;
    err_t reason;
    struct errmsg reason_msg;
    char peer[SOCKET_PEER_SIZE];
};

static _Thread_local uint8_t read_space[READ_SPACE];

static void mark_dirty(struct stream *stream)
{
    if (!list_link_is_in(&stream->dirty)) {
        list_push_back(&stream->loop->dirty_streams, &stream->dirty);
    }
}

/* ---- the end of the stream's life ---- */

static void finish_if_free(struct stream *stream)
{
    if (stream->handle_open || stream->resolving) {
        return;
    }
    metric_add(&streams_open, -1);
    struct stream_user *user = stream->user;
    if (user != NULL) {
        user->stream = NULL;
        user->callbacks->on_closed(user, stream->reason, stream->ended, &stream->reason_msg);
    }
    if (stream->owner != NULL) {
        stream->owner->on_gone(stream->owner);
    }
    tls_session_destroy(stream->tls);
    buf_deinit(&stream->out);
    buf_deinit(&stream->wire);
    buf_deinit(&stream->writing);
    buf_deinit(&stream->discard);
    mem_free(stream);
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct stream *stream = CONTAINER_OF(handle, struct stream, tcp);
    stream->handle_open = false;
    finish_if_free(stream);
}

static void stream_end(struct stream *stream)
{
    if (stream->state == STREAM_ENDED) {
        return;
    }
    stream->state = STREAM_ENDED;
    timer_stop(&stream->timer);
    timer_stop(&stream->watcher);
    list_remove(&stream->dirty);
    loop_remove(&stream->object);
    if (stream->resolving) {
        (void)uv_cancel((uv_req_t *)&stream->resolve);
    }
    uv_close((uv_handle_t *)&stream->tcp, on_handle_closed);
}

/* Begin the end; `reason` counts unless we wanted it closed. on_closed follows later. */
static void stream_fail(struct stream *stream, err_t reason, const struct errmsg *msg)
{
    if (stream->state != STREAM_CLOSING && stream->state != STREAM_ENDED) {
        stream->reason = reason;
        stream->reason_msg = *msg;
    }
    stream_end(stream);
}

static void fail_uv(struct stream *stream, int number, const char *what)
{
    struct errmsg msg;
    err_t reason = err_from_uv(&msg, number, "%s %s", what, stream->peer);
    stream_fail(stream, reason, &msg);
}

static void on_object_shut(struct loop_object *object)
{
    stream_abort(CONTAINER_OF(object, struct stream, object));
}

/* ---- writing ---- */

static size_t queued_bytes(const struct stream *stream)
{
    return stream->out.size + stream->wire.size + stream->writing.size;
}

static void give_back(struct buf *buf)
{
    buf_clear(buf);
    if (buf->capacity > KEEP_BUFFER_MAX) {
        buf_deinit(buf);
    }
}

/*
 * Keepalive does not look after a connection on which bytes are under way, and the kernel would
 * retransmit them for a quarter of an hour: so long would a client wait for a compute whose host is
 * lost.
 */
static void watch_peer(struct stream *stream)
{
    if (!timer_is_started(&stream->watcher)) {
        timer_start(stream->loop, &stream->watcher, stream->options.silence_max_ms / 2);
    }
}

static void on_watch(struct timer *timer)
{
    struct stream *stream = CONTAINER_OF(timer, struct stream, watcher);
    enum socket_peer peer = socket_ask_about_peer(&stream->tcp, stream->options.silence_max_ms);
    bool was_silent = stream->silent;
    stream->silent = peer == SOCKET_PEER_SILENT;
    if (stream->silent && was_silent) {
        struct errmsg msg;
        err_t err = err_set(
            &msg, ERR_TIMEOUT, "%s does not answer for more than %u ms", stream->peer,
            stream->options.silence_max_ms);
        stream_fail(stream, err, &msg);
    } else if (peer != SOCKET_PEER_HAS_ALL || stream->write_pending) {
        watch_peer(stream);
    }
}

/* Move what gathered to `wire`. False: the stream has ended. */
static bool seal(struct stream *stream)
{
    if (stream->tls == NULL) {
        if (stream->wire.size == 0) {
            struct buf empty = stream->wire;
            stream->wire = stream->out;
            stream->out = empty;
        } else {
            buf_append(&stream->wire, stream->out.data, stream->out.size);
        }
        buf_clear(&stream->out);
        return true;
    }
    if (stream->out.size == 0 || !stream->secured) {
        return true;
    }
    struct errmsg msg;
    err_t err = tls_session_send(stream->tls, buf_view(&stream->out), &stream->wire, &msg);
    if (err != ERR_OK) {
        err = err_wrap(&msg, err, "send to %s", stream->peer);
        stream_fail(stream, err, &msg);
        return false;
    }
    give_back(&stream->out);
    return true;
}

static void on_written(uv_write_t *write, int status);

static void write_rest(struct stream *stream, size_t written)
{
    struct buf spare = stream->writing;
    stream->writing = stream->wire;
    stream->wire = spare;
    uv_buf_t piece = uv_buf_init(
        (char *)stream->writing.data + written, (unsigned)(stream->writing.size - written));
    int rc = uv_write(&stream->write, (uv_stream_t *)&stream->tcp, &piece, 1, on_written);
    if (rc < 0) {
        fail_uv(stream, rc, "send to");
        return;
    }
    metric_add(&bytes_sent, (int64_t)piece.len);
    stream->write_pending = true;
}

static void flush(struct stream *stream)
{
    size_t waiting = stream->out.size + stream->wire.size;
    if (waiting > SEND_QUEUE_LIMIT) { /* also while a write is pending: that may be for ever */
        struct errmsg msg;
        err_t err = err_set(
            &msg, ERR_FULL, "%s does not read: %zu bytes wait to be sent", stream->peer, waiting);
        stream_fail(stream, err, &msg);
        return;
    }
    if (stream->write_pending || !seal(stream) || stream->wire.size == 0) {
        return;
    }
    uv_buf_t piece = uv_buf_init((char *)stream->wire.data, (unsigned)stream->wire.size);
    int rc = uv_try_write((uv_stream_t *)&stream->tcp, &piece, 1);
    if (rc < 0 && rc != UV_EAGAIN) {
        fail_uv(stream, rc, "send to");
        return;
    }
    size_t written = rc < 0 ? 0 : (size_t)rc;
    metric_add(&bytes_sent, (int64_t)written);
    watch_peer(stream);
    if (written == stream->wire.size) {
        give_back(&stream->wire);
    } else {
        write_rest(stream, written);
    }
}

static void tell_drained(struct stream *stream)
{
    if (stream->state == STREAM_OPEN && stream->congested &&
        queued_bytes(stream) < stream->options.send_queue_max / 2) {
        stream->congested = false;
        if (stream->user->callbacks->on_drained != NULL) {
            stream->user->callbacks->on_drained(stream->user);
        }
    }
}

static void on_shut_down(uv_shutdown_t *shutdown, int status)
{
    (void)shutdown; /* the peer's end, or the linger timer, ends the stream */
    (void)status;
}

static void close_when_flushed(struct stream *stream)
{
    if (stream->state == STREAM_CLOSING && !stream->write_pending && stream->out.size == 0 &&
        stream->wire.size == 0 && !stream->shutdown_sent) {
        stream->shutdown_sent = true;
        if (uv_shutdown(&stream->shutdown, (uv_stream_t *)&stream->tcp, on_shut_down) < 0) {
            stream_end(stream);
        }
    }
}

static void end_turn(struct stream *stream)
{
    if (stream->state == STREAM_OPEN || stream->state == STREAM_CLOSING) {
        flush(stream);
        close_when_flushed(stream);
        tell_drained(stream);
    }
}

static void on_written(uv_write_t *write, int status)
{
    struct stream *stream = CONTAINER_OF(write, struct stream, write);
    stream->write_pending = false;
    give_back(&stream->writing);
    if (stream->state == STREAM_ENDED) {
        return;
    }
    if (status < 0) {
        fail_uv(stream, status, "send to");
        return;
    }
    end_turn(stream);
}

void streams_end_turn(struct loop *loop)
{
    for (struct list_link *item = list_pop_front(&loop->dirty_streams); item != NULL;
         item = list_pop_front(&loop->dirty_streams)) {
        end_turn(CONTAINER_OF(item, struct stream, dirty));
    }
}

/* ---- reading ---- */

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    (void)handle;
    (void)suggested;
    *buf = uv_buf_init((char *)read_space, sizeof read_space);
}

static void hand_over(struct stream *stream, struct bytes plain)
{
    if (stream->state == STREAM_OPEN && plain.size > 0) {
        stream->user->callbacks->on_bytes(stream->user, plain);
    }
}

/* Of a session: decrypt, tell of the handshake, hand over; then see whether it has ended. */
static void receive_sealed(struct stream *stream, struct bytes bytes)
{
    struct buf plain = {0};
    struct errmsg msg = {0};
    err_t err = tls_session_receive(stream->tls, bytes, &plain, &stream->wire, &msg);
    if (!stream->secured && tls_session_is_secure(stream->tls)) {
        stream->secured = true;
        if (stream->user->callbacks->on_secured != NULL) {
            stream->user->callbacks->on_secured(stream->user);
        }
    }
    if (stream->wire.size > 0 || stream->out.size > 0) {
        mark_dirty(stream);
    }
    hand_over(stream, buf_view(&plain));
    buf_deinit(&plain);
    if (err != ERR_OK && stream->state == STREAM_OPEN) {
        stream->ended = err == ERR_IO;
        flush(stream); /* an alert tells the peer why */
        err = err_wrap(&msg, err, "from %s", stream->peer);
        stream_fail(stream, err, &msg);
    }
}

static void on_read(uv_stream_t *handle, ssize_t size, const uv_buf_t *buf)
{
    struct stream *stream = CONTAINER_OF((uv_tcp_t *)handle, struct stream, tcp);
    if (size == 0 || stream->state == STREAM_ENDED) {
        return;
    }
    if (size < 0) {
        stream->ended = size == UV_EOF;
        fail_uv(stream, (int)size, "receive from");
        return;
    }
    metric_add(&bytes_received, size);
    struct bytes bytes = bytes_of(buf->base, (size_t)size);
    if (stream->state != STREAM_OPEN) {
        return; /* lingering: what the peer still sends is not wanted */
    }
    if (stream->tls != NULL) {
        receive_sealed(stream, bytes);
    } else {
        hand_over(stream, bytes);
    }
}

static void start_reading(struct stream *stream)
{
    if (!stream->reading) {
        int rc = uv_read_start((uv_stream_t *)&stream->tcp, on_alloc, on_read);
        if (rc < 0) {
            fail_uv(stream, rc, "receive from");
            return;
        }
        stream->reading = true;
    }
}

/* ---- opening ---- */

static void on_timer(struct timer *timer)
{
    struct stream *stream = CONTAINER_OF(timer, struct stream, timer);
    struct errmsg msg;
    err_t err = err_set(
        &msg, ERR_TIMEOUT, "connect to %s: no answer for %" PRIu64 " ms", stream->peer,
        stream->options.connect_timeout_ms);
    stream_fail(stream, err, &msg);
}

static struct stream *stream_new(struct loop *loop, const struct stream_options *options)
{
    struct stream *stream = MEM_NEW(struct stream);
    stream->loop = loop;
    stream->object.shut = on_object_shut;
    stream->timer.on_fire = on_timer;
    stream->watcher.on_fire = on_watch;
    if (options != NULL) {
        stream->options = *options;
    }
    if (stream->options.connect_timeout_ms == 0) {
        stream->options.connect_timeout_ms = CONNECT_TIMEOUT_MS;
    }
    if (stream->options.send_queue_max == 0) {
        stream->options.send_queue_max = SEND_QUEUE_MAX;
    }
    if (stream->options.silence_max_ms == 0) {
        stream->options.silence_max_ms = SILENCE_MAX_MS;
    }
    int rc = uv_tcp_init(&loop->uv, &stream->tcp);
    ASSERT(rc == 0);
    stream->handle_open = true;
    loop_add(loop, &stream->object);
    metric_add(&streams_open, 1);
    return stream;
}

static void go_open(struct stream *stream)
{
    socket_set_options(&stream->tcp, 0); /* a reader may take its time */
    socket_name_peer(&stream->tcp, stream->peer);
    stream->state = STREAM_OPEN;
    timer_stop(&stream->timer);
    if (!stream->paused) {
        start_reading(stream);
    }
    if (stream->out.size > 0) {
        mark_dirty(stream);
    }
}

static void on_connected(uv_connect_t *connect, int status)
{
    struct stream *stream = CONTAINER_OF(connect, struct stream, connect);
    if (stream->state != STREAM_CONNECTING) {
        return; /* ended meanwhile */
    }
    if (status < 0) {
        fail_uv(stream, status, "connect to");
        return;
    }
    go_open(stream);
    if (stream->state == STREAM_OPEN && stream->user->callbacks->on_open != NULL) {
        stream->user->callbacks->on_open(stream->user);
    }
}

static void start_connect(struct stream *stream, const struct sockaddr_storage *address)
{
    stream->state = STREAM_CONNECTING;
    int rc = uv_tcp_connect(
        &stream->connect, &stream->tcp, (const struct sockaddr *)address, on_connected);
    if (rc < 0) {
        fail_uv(stream, rc, "connect to");
    }
}

static void on_resolved(uv_getaddrinfo_t *resolve, int status, struct addrinfo *found)
{
    struct stream *stream = CONTAINER_OF(resolve, struct stream, resolve);
    stream->resolving = false;
    if (stream->state == STREAM_ENDED) {
        finish_if_free(stream);
    } else if (status < 0) {
        fail_uv(stream, status, "find the host of");
    } else {
        struct sockaddr_storage address;
        address_take(found, &address);
        start_connect(stream, &address);
    }
    uv_freeaddrinfo(found);
}

err_t stream_connect(
    struct loop *loop,
    const char *host,
    uint16_t port,
    const struct stream_options *options,
    struct stream_user *user,
    struct errmsg *msg)
{
    ASSERT(user->stream == NULL);
    if (host[0] == '\0' || strlen(host) > 100 || strpbrk(host, " /\t\n") != NULL || port == 0) {
        return err_set(
            msg, ERR_INVALID, "\"%.60s\" port %u is not an address to connect to", host, port);
    }
    struct stream *stream = stream_new(loop, options);
    stream->port = port;
    (void)snprintf(stream->peer, sizeof stream->peer, "%s:%u", host, port);
    stream->user = user;
    user->stream = stream;
    timer_start(loop, &stream->timer, stream->options.connect_timeout_ms);

    struct sockaddr_storage address;
    if (address_parse(host, port, &address)) {
        start_connect(stream, &address);
        return ERR_OK; /* a failure arrives in on_closed */
    }
    stream->state = STREAM_RESOLVING;
    char service[8];
    (void)snprintf(service, sizeof service, "%u", port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    int rc = uv_getaddrinfo(&loop->uv, &stream->resolve, on_resolved, host, service, &hints);
    if (rc < 0) {
        fail_uv(stream, rc, "find the host of");
    } else {
        stream->resolving = true;
    }
    return ERR_OK;
}

err_t stream_accept(
    struct loop *loop,
    uv_stream_t *server,
    const struct stream_options *options,
    struct stream_owner *owner,
    struct stream **ret_stream,
    struct errmsg *msg)
{
    struct stream *stream = stream_new(loop, options);
    stream->owner = owner;
    stream->state = STREAM_READY;
    int rc = uv_accept(server, (uv_stream_t *)&stream->tcp);
    if (rc < 0) {
        stream_end(stream);
        return err_from_uv(msg, rc, "accept a connection");
    }
    socket_name_peer(&stream->tcp, stream->peer);
    *ret_stream = stream;
    return ERR_OK;
}

void stream_begin(struct stream *stream, struct stream_user *user)
{
    stream->user = user;
    user->stream = stream;
    go_open(stream);
}

/* ---- what owners call ---- */

void stream_start_tls(struct stream *stream, struct tls_context *context, struct bytes first)
{
    ASSERT(stream->tls == NULL);
    (void)seal(stream); /* the answer to the request for TLS is the last plain byte */
    stream->tls = tls_session_create(context);
    mark_dirty(stream);
    if (first.size > 0) {
        receive_sealed(stream, first);
    }
}

void stream_start_client_tls(struct stream *stream, struct tls_context *context, const char *host)
{
    ASSERT(stream->tls == NULL);
    (void)seal(stream); /* what was asked for in plain is out already */
    stream->tls = tls_client_session_create(context, host);
    receive_sealed(stream, bytes_of(NULL, 0));
}

bool stream_is_secure(const struct stream *stream)
{
    return stream->secured;
}

const struct tls_session *stream_tls(const struct stream *stream)
{
    return stream->tls;
}

struct buf *stream_send_buffer(struct stream *stream)
{
    if (stream->state == STREAM_CLOSING || stream->state == STREAM_ENDED) {
        buf_clear(&stream->discard);
        return &stream->discard;
    }
    if (stream->state == STREAM_OPEN) {
        mark_dirty(stream);
    }
    return &stream->out;
}

void stream_send(struct stream *stream, struct bytes bytes)
{
    buf_append(stream_send_buffer(stream), bytes.data, bytes.size);
}

bool stream_is_congested(const struct stream *stream)
{
    bool congested = queued_bytes(stream) > stream->options.send_queue_max;
    if (congested) {
        ((struct stream *)stream)->congested = true; /* the owner will wait for on_drained */
    }
    return congested;
}

void stream_pause(struct stream *stream)
{
    stream->paused = true;
    if (stream->state == STREAM_OPEN && stream->reading) {
        (void)uv_read_stop((uv_stream_t *)&stream->tcp);
        stream->reading = false;
    }
}

void stream_resume(struct stream *stream)
{
    stream->paused = false;
    if (stream->state == STREAM_OPEN) {
        start_reading(stream);
    }
}

static void on_linger_over(struct timer *timer)
{
    stream_end(CONTAINER_OF(timer, struct stream, timer));
}

/*
 * Our side is shut down, then the peer's is waited for: closing with unread bytes in the socket
 * makes the kernel send a reset, which would destroy what we sent last, such as the error that says
 * why.
 */
void stream_close(struct stream *stream)
{
    if (stream->state == STREAM_CLOSING || stream->state == STREAM_ENDED) {
        return;
    }
    stream->reason = ERR_OK;
    if (stream->state != STREAM_OPEN) {
        stream_end(stream);
        return;
    }
    if (seal(stream)) {
        if (stream->tls != NULL) {
            tls_session_close(stream->tls, &stream->wire);
            buf_clear(&stream->out); /* before the handshake: nothing can be sent */
        }
        stream->state = STREAM_CLOSING;
        stream->timer.on_fire = on_linger_over;
        timer_start(stream->loop, &stream->timer, LINGER_MS);
        start_reading(stream);
        mark_dirty(stream);
    }
}

void stream_abort(struct stream *stream)
{
    stream_end(stream);
}

const char *stream_peer(const struct stream *stream)
{
    return stream->peer;
}

void stream_peer_host(const struct stream *stream, char host[64])
{
    const char *colon = strrchr(stream->peer, ':');
    int size = colon == NULL ? (int)strlen(stream->peer) : (int)(colon - stream->peer);
    (void)snprintf(host, 64, "%.*s", MIN_OF(size, 63), stream->peer);
}
