/*
 * hello_proto.h - the first exchange on every channel, whatever the conversation.
 *
 * The caller says who it is and what it wants; the answer is a channel number, or FRAME_ERROR and
 * the connection closes. A connection may say hello again for another timeline: each gets its own
 * channel. See docs/protocol/hello.md.
 */
#pragma once

#include "common/wire/frame.h"

enum hello_role {
    HELLO_ROLE_PAGES = 1,    /* compute -> pageserver: page_proto */
    HELLO_ROLE_PROPOSER = 2, /* walproposer -> safekeeper: wal_proto */
    HELLO_ROLE_FEED = 3,     /* pageserver -> safekeeper: feed_proto */
    HELLO_ROLE_PEER = 4,     /* safekeeper -> safekeeper: wal_proto, but only questions */
    HELLO_ROLE_STATUS = 5, /* pageserver -> safekeeper: status_proto; of no timeline; protocol 2 */
};

#define HELLO_FIELDS(X)                                                                            \
    X(u16, protocol_min)                                                                           \
    X(u16, protocol_max)                                                                           \
    X(u8, role)                                                                                    \
    X(tenant, tenant)                                                                              \
    X(timeline, timeline)                                                                          \
    X(u16, shard_number)     /* 0 */                                                               \
    X(u16, shard_count)      /* 1 */                                                               \
    X(u32, pg_version)       /* 170011 style; 0: not known to the caller */                        \
    X(u64, system_id)        /* of the cluster, from pg_control; 0: not known */                   \
    X(u32, generation)       /* proposer, peer: membership; pages, feed: attachment; 0 any */      \
    X(u64, node_id)          /* of the caller; a proposer's is random per process */               \
    X(u64, connection_epoch) /* grows with every connection of this caller to this peer */         \
    X(bytes, token)          /* authorisation; empty while auth is off */

#define HELLO_REPLY_FIELDS(X)                                                                      \
    X(u16, protocol)                                                                               \
    X(u32, channel)                                                                                \
    X(u64, node_id)                                                                                \
    X(u32, generation)                                                                             \
    X(u64, term) /* safekeeper: highest term promised; else 0 */                                   \
    X(u64, lsn)  /* safekeeper: commit_lsn; pageserver: last_record_lsn */

/* code is an err_t. Before the channel is known (hello refused) the frame's channel is 0. */
#define ERROR_REPLY_FIELDS(X)                                                                      \
    X(u32, code)                                                                                   \
    X(bytes, message)

/* Of what both speak; the ranges meet. */
static inline uint16_t hello_protocol(uint16_t protocol_max)
{
    return MIN_OF(protocol_max, (uint16_t)PROTOCOL_VERSION_MAX);
}

WIRE_DECLARE(hello, HELLO_FIELDS);

/* ERR_UNSUPPORTED: there is no version that both sides speak. */
NODISCARD err_t hello_check_protocol(const struct hello *hello, struct errmsg *msg);

WIRE_DECLARE(hello_reply, HELLO_REPLY_FIELDS);
WIRE_DECLARE(error_reply, ERROR_REPLY_FIELDS);
