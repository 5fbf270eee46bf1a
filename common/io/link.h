/*
 * link.h - one framed TCP connection (common/wire/frame.h), either end.
 *
 * The owner embeds a `struct link_user`, fills in the callbacks, and gets frames one at a time. A
 * damaged frame closes the link with ERR_CORRUPT; silence longer than the idle limit with
 * ERR_TIMEOUT. TCP keepalive, TCP_NODELAY and TCP_USER_TIMEOUT (20 s) are set. Threads: loop only.
 */
#pragma once

#include "common/io/loop.h"
#include "common/wire/frame.h"

struct link;
struct link_user;

struct link_callbacks {
    /* Outgoing links only: connected, frames may be sent. May be NULL. */
    void (*on_open)(struct link_user *user);
    /* frame->payload lives only until this returns. link_close() inside is fine. */
    void (*on_frame)(struct link_user *user, const struct frame *frame);
    /* The send queue fell below half of its limit after link_is_congested(). May be NULL. */
    void (*on_drained)(struct link_user *user);
    /*
     * The last callback, exactly once, never from inside link_close(): the link is gone. ERR_OK
     * when we closed it; otherwise why it ended (ERR_IO, ERR_CORRUPT, ERR_TIMEOUT, refused, ...).
     */
    void (*on_closed)(struct link_user *user, err_t reason, const struct errmsg *msg);
};

struct link_user {
    const struct link_callbacks *callbacks;
    struct link *link; /* NULL before open and after on_closed */
};

struct link_options {
    uint64_t connect_timeout_ms; /* 0: 5000 */
    uint64_t idle_timeout_ms;    /* close when nothing was received for so long; 0: never */
    /* Bytes; 0: 16 MiB. Above it link_is_congested(), above four times of it ERR_FULL ends it. */
    size_t send_queue_max;
    const char *source_host; /* outgoing: bind to this address first; NULL: any */
};

/* Connect; on_open or on_closed follows. Fails at once only for a malformed host. */
NODISCARD err_t link_connect(
    struct loop *loop,
    const char *host,
    uint16_t port,
    const struct link_options *options,
    struct link_user *user,
    struct errmsg *msg);

/*
 * Queue a frame (or several, already encoded in `frames`); written in order, batched per loop turn.
 */
void link_send(struct link *link, const struct frame *frame);
void link_send_encoded(struct link *link, struct bytes frames);
bool link_is_congested(const struct link *link); /* the sender should wait for on_drained */

/* Stop and go on with reading: back-pressure towards the peer. */
void link_pause(struct link *link);
void link_resume(struct link *link);

/* Flush what is queued (at most 1 s), close, then on_closed(ERR_OK). Repeated calls are fine. */
void link_close(struct link *link);
/* Drop what is queued and close. */
void link_abort(struct link *link);

const char *link_peer(const struct link *link); /* "127.0.0.1:41234" */

/* Send FRAME_ERROR as the reply to `request_id` on `channel`. */
void link_send_error(
    struct link *link, uint32_t channel, uint64_t request_id, err_t err, const struct errmsg *msg);

/* Encode a WIRE_DECLAREd message straight into the send queue:
 * LINK_SEND(link, vote_reply, &reply, .type = FRAME_VOTE_REPLY, .channel = c, .request_id = id); */
#define LINK_SEND(link_, message_type, message, ...)                                               \
    FRAME_APPEND_MESSAGE(link_send_buffer(link_), message_type, message, __VA_ARGS__)

/* The send queue itself; whatever is appended is written at the end of this loop turn. */
struct buf *link_send_buffer(struct link *link);
