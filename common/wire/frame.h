/*
 * frame.h - the unit of every framed connection between compute, safekeeper and pageserver.
 *
 *   offset size
 *    0     4   magic "ANB1"
 *    4     4   size of the payload, at most FRAME_PAYLOAD_MAX
 *    8     2   type (enum frame_type): never reuse a number
 *   10     1   version of the protocol that both sides agreed on in hello (0 in hello itself)
 *   11     1   flags, zero for now
 *   12     4   channel: given by hello_reply; 0 in hello. A connection may carry many channels.
 *   16     8   request id: a reply carries the id of its request; replies may come out of order
 *   24     4   reserved, zero
 *   28     4   CRC32C of bytes 0..27 and the payload
 *
 * Everything is little-endian. See docs/protocol/frame.md.
 */
#pragma once

#include "common/wire/codec.h"

#define FRAME_MAGIC       0x31424E41u /* "ANB1" */
#define FRAME_HEADER_SIZE 32
#define FRAME_PAYLOAD_MAX (1 * MIB - FRAME_HEADER_SIZE)

#define PROTOCOL_VERSION_MIN 1
#define PROTOCOL_VERSION_MAX 3 /* 2: status, and windows of feeds; 3: followed_term of a vote */

#define FRAME_TYPES(X)                                                                             \
    X(FRAME_HELLO, 1) /* hello_proto.h, any connection */                                          \
    X(FRAME_HELLO_REPLY, 2)                                                                        \
    X(FRAME_ERROR, 3)         /* reply to any request, or the reason before a close */             \
    X(FRAME_VOTE_REQUEST, 16) /* wal_proto.h: proposer -> acceptor */                              \
    X(FRAME_VOTE_REPLY, 17)                                                                        \
    X(FRAME_ELECTED, 18)                                                                           \
    X(FRAME_APPEND, 19)                                                                            \
    X(FRAME_APPEND_REPLY, 20)                                                                      \
    X(FRAME_READ_WAL, 21) /* proposer or peer reads a donor's log */                               \
    X(FRAME_READ_WAL_REPLY, 22)                                                                    \
    X(FRAME_MEMBERSHIP, 23)   /* who votes now: to whoever has an older membership */              \
    X(FRAME_ELECTED_ANEW, 24) /* as ELECTED, to a log that begins anew at stream_lsn */            \
    X(FRAME_FEED_START, 32)   /* feed_proto.h: pageserver -> safekeeper */                         \
    X(FRAME_FEED_WAL, 33)                                                                          \
    X(FRAME_FEED_STATUS, 34)                                                                       \
    X(FRAME_FEED_FEEDBACK, 35)                                                                     \
    X(FRAME_FEED_WINDOW, 36)                                                                       \
    X(FRAME_FEED_STOP, 37)    /* without payload, both ways */                                     \
    X(FRAME_STATUS_WATCH, 40) /* status_proto.h: pageserver -> safekeeper */                       \
    X(FRAME_STATUS_UNWATCH, 41)                                                                    \
    X(FRAME_STATUS_REPORT, 42)                                                                     \
    X(FRAME_GET_PAGE, 48) /* page_proto.h: compute -> pageserver */                                \
    X(FRAME_GET_PAGE_REPLY, 49)                                                                    \
    X(FRAME_REL_SIZE, 50)                                                                          \
    X(FRAME_REL_SIZE_REPLY, 51)                                                                    \
    X(FRAME_DB_SIZE, 52)                                                                           \
    X(FRAME_DB_SIZE_REPLY, 53)                                                                     \
    X(FRAME_PUT_WORKING_SET, 54)                                                                   \
    X(FRAME_PUT_WORKING_SET_REPLY, 55)                                                             \
    X(FRAME_GET_WORKING_SET, 56)                                                                   \
    X(FRAME_GET_WORKING_SET_REPLY, 57)

enum frame_type {
#define X(name, number) name = number,
    FRAME_TYPES(X)
#undef X
};

const char *frame_type_name(uint16_t type); /* "FRAME_APPEND", or "unknown" */

struct frame {
    uint16_t type;
    uint8_t version;
    uint32_t channel;
    uint64_t request_id;
    struct bytes payload; /* a view */
};

/*
 * Append header + payload to `out`. The payload is at most FRAME_PAYLOAD_MAX (our side: asserted).
 */
void frame_append(struct buf *out, const struct frame *frame);

/*
 * Take one frame from the front of `in`.
 *
 * ERR_OK: `*ret_frame` views into `in`, `*ret_size` is how many bytes it took; *ret_size == 0 means
 * that more bytes are needed. ERR_CORRUPT: bad magic, size, or checksum; the connection is lost.
 */
NODISCARD err_t
frame_parse(struct bytes in, struct frame *ret_frame, size_t *ret_size, struct errmsg *msg);

/* Encode a message of WIRE_DECLARE and append it as a frame: FRAME_APPEND_MESSAGE(out,
 * vote_request, &msg, .type = FRAME_VOTE_REQUEST, .channel = channel, .request_id = id). */
#define FRAME_APPEND_MESSAGE(out, message_type, message, ...)                                      \
    do {                                                                                           \
        struct buf *frame_out = (out); /* once: it may be a call */                                \
        size_t frame_message_size = message_type##_size(message);                                  \
        size_t frame_begin = frame_begin_(frame_out, frame_message_size);                          \
        struct writer frame_writer = {                                                             \
            .next = frame_out->data + frame_begin + FRAME_HEADER_SIZE,                             \
            .left = frame_message_size};                                                           \
        message_type##_encode((message), &frame_writer);                                           \
        ASSERT(frame_writer.left == 0);                                                            \
        frame_finish_(                                                                             \
            frame_out, frame_begin,                                                                \
            &(struct frame){.version = PROTOCOL_VERSION_MAX, __VA_ARGS__});                        \
    } while (0)

/* Private to the macro: reserve header + payload, later fill in the header. */
size_t frame_begin_(struct buf *out, size_t payload_size);
void frame_finish_(struct buf *out, size_t begin, const struct frame *frame);
