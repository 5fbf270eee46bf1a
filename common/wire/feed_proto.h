/*
 * feed_proto.h - committed WAL from a safekeeper to a pageserver.
 *
 * After hello (role feed) the pageserver names the LSN it wants to go on from; the safekeeper sends
 * committed WAL from there on for as long as the channel lives, and a status when there is nothing
 * to send. No byte beyond the safekeeper's commit_lsn is ever sent, and none beyond the window: a
 * connection that many feeds share is not stopped for one of them. See docs/protocol/feed.md.
 */
#pragma once

#include "common/wire/frame.h"

#define FEED_WAL_MAX (256 * KIB)

#define FEED_START_FIELDS(X) X(u64, begin_lsn)

#define FEED_WAL_FIELDS(X)                                                                         \
    X(u64, begin_lsn)                                                                              \
    X(u64, commit_lsn)                                                                             \
    X(bytes, wal)

/* Sent when commit_lsn advanced without WAL to send, and once a second. */
#define FEED_STATUS_FIELDS(X) X(u64, commit_lsn)

#define FEED_FEEDBACK_FIELDS(X)                                                                    \
    X(u32, generation)   /* of the pageserver's attachment */                                      \
    X(u64, received_lsn) /* ingested into memory: readers see it */                                \
    X(u64, durable_lsn)  /* survives a crash of the pageserver */                                  \
    X(u64, remote_lsn)   /* survives the loss of the pageserver: WAL below may go */

/* Protocol 2: send up to here. Without one before FEED_START there is no limit. */
#define FEED_WINDOW_FIELDS(X) X(u64, end_lsn)

WIRE_DECLARE(feed_start, FEED_START_FIELDS);
WIRE_DECLARE(feed_wal, FEED_WAL_FIELDS);
WIRE_DECLARE(feed_status, FEED_STATUS_FIELDS);
WIRE_DECLARE(feed_feedback, FEED_FEEDBACK_FIELDS);
WIRE_DECLARE(feed_window, FEED_WINDOW_FIELDS);
