/*
 * stream.h - one TCP connection of plain bytes, either end; both may begin TLS.
 *
 * For protocols that are not ours (Postgres'); our own travel in frames, see link.h. What is sent
 * during one turn of the loop is written, and encrypted, together at its end. TCP keepalive and
 * TCP_NODELAY are set; a peer that does not read for a while (a pager, a write held back) is left
 * alone, one whose host answers nothing is given up: ERR_TIMEOUT. Threads: loop only.
 */
#pragma once

#include "common/base/bytes.h"
#include "common/io/loop.h"
#include "common/io/tls.h"

struct stream;
struct stream_user;
struct stream_listener;

struct stream_callbacks {
    /* Outgoing streams only: connected. May be NULL. */
    void (*on_open)(struct stream_user *user);
    /* The TLS handshake is done; server name and protocol are known. May be NULL without TLS. */
    void (*on_secured)(struct stream_user *user);
    /*
     * Plain bytes, never none, in any pieces; they live until this returns. Closing inside is fine.
     */
    void (*on_bytes)(struct stream_user *user, struct bytes bytes);
    /* The send queue fell below half of its limit after stream_is_congested(). May be NULL. */
    void (*on_drained)(struct stream_user *user);
    /*
     * The last callback, exactly once, never from inside stream_close(): the stream is gone. ERR_OK
     * when we closed it; otherwise why it ended. `ended`: the peer has closed it in an orderly way.
     */
    void (*on_closed)(struct stream_user *user, err_t reason, bool ended, const struct errmsg *msg);
};

struct stream_user {
    const struct stream_callbacks *callbacks;
    struct stream *stream; /* NULL before open and after on_closed */
};

struct stream_options {
    uint64_t connect_timeout_ms; /* 0: 5000 */
    size_t send_queue_max;       /* bytes; 0: 256 KiB; above it stream_is_congested() */
    unsigned silence_max_ms;     /* without an answer to what was sent; 0: 20000 */
};

/* Connect; on_open or on_closed follows. Fails at once only for a malformed host. */
NODISCARD err_t stream_connect(
    struct loop *loop,
    const char *host,
    uint16_t port,
    const struct stream_options *options,
    struct stream_user *user,
    struct errmsg *msg);

/*
 * From here on everything received is TLS of a client; `first` was received already. What was sent
 * before goes out in plain.
 */
void stream_start_tls(struct stream *stream, struct tls_context *context, struct bytes first);
/* The client's end, from an on_bytes that has taken all: we speak first, on_secured follows. */
void stream_start_client_tls(struct stream *stream, struct tls_context *context, const char *host);
bool stream_is_secure(const struct stream *stream);                /* the handshake is done */
const struct tls_session *stream_tls(const struct stream *stream); /* NULL: plain */

void stream_send(struct stream *stream, struct bytes bytes);
/* Whatever is appended to it is sent at the end of this turn. */
struct buf *stream_send_buffer(struct stream *stream);
bool stream_is_congested(const struct stream *stream); /* the sender should wait for on_drained */

/* Stop and go on with reading: back-pressure towards the peer. */
void stream_pause(struct stream *stream);
void stream_resume(struct stream *stream);

/* Flush what is queued (at most 1 s), close, then on_closed(ERR_OK). Repeated calls are fine. */
void stream_close(struct stream *stream);
/* Drop what is queued and close. */
void stream_abort(struct stream *stream);

const char *stream_peer(const struct stream *stream);              /* "127.0.0.1:41234" */
void stream_peer_host(const struct stream *stream, char host[64]); /* "127.0.0.1" */

/* ---- accepting ---- */

struct stream_listener_user {
    /* The user of the new stream, its callbacks set; or NULL to refuse it. */
    struct stream_user *(*on_accept)(struct stream_listener_user *user, struct stream *stream);
};

/* port 0: the system picks one. connections_max: more are refused and counted. */
NODISCARD err_t stream_listener_open(
    struct loop *loop,
    const char *host,
    uint16_t port,
    size_t connections_max,
    const struct stream_options *options,
    struct stream_listener_user *user,
    struct stream_listener **ret_listener,
    struct errmsg *msg);
uint16_t stream_listener_port(const struct stream_listener *listener);
/* Its streams live on; NULL is fine. */
void stream_listener_close(struct stream_listener *listener);
