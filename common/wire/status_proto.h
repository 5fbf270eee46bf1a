/*
 * status_proto.h - what a safekeeper tells a pageserver about all timelines that it watches.
 *
 * After hello (role status, without tenant and timeline, protocol 2) the pageserver names the
 * timelines that it wants to hear of, each with its own positions; the safekeeper reports where
 * each stands, and from then on what has moved. The same channel takes the pageserver's positions
 * when they move. See docs/protocol/feed.md.
 */
#pragma once

#include "common/wire/frame.h"

#define STATUS_ENTRIES_MAX 4096 /* in one frame */

/* I want to hear of this timeline, or go on to; this is how far I am with it. */
#define STATUS_WATCH_FIELDS(X)                                                                     \
    X(u64, key) /* the pageserver's name for it in reports; never another timeline's */            \
    X(tenant, tenant)                                                                              \
    X(timeline, timeline)                                                                          \
    X(u32, generation)   /* of the attachment */                                                   \
    X(u64, received_lsn) /* as in feed_feedback */                                                 \
    X(u64, durable_lsn)                                                                            \
    X(u64, remote_lsn)

#define STATUS_UNWATCH_FIELDS(X)                                                                   \
    X(tenant, tenant)                                                                              \
    X(timeline, timeline)

/* `code` is an err_t: but for ERR_OK the timeline is not watched (any more). */
#define STATUS_REPORT_FIELDS(X)                                                                    \
    X(u64, key)                                                                                    \
    X(u32, code)                                                                                   \
    X(u64, commit_lsn)

/* Encoded watches or reports, one after the other; a list of none is a sign of life. */
#define STATUS_LIST_FIELDS(X) X(bytes, entries)

WIRE_DECLARE(status_watch, STATUS_WATCH_FIELDS);
WIRE_DECLARE(status_unwatch, STATUS_UNWATCH_FIELDS);
WIRE_DECLARE(status_report, STATUS_REPORT_FIELDS);
WIRE_DECLARE(status_list, STATUS_LIST_FIELDS);

#define STATUS_WATCH_SIZE  68 /* encoded */
#define STATUS_REPORT_SIZE 20

void status_watch_append(struct buf *to, const struct status_watch *watch);
void status_report_append(struct buf *to, const struct status_report *report);
/*
 * Take the first entry of `*entries`. ERR_NOT_FOUND: none is left; ERR_CORRUPT: they are no whole
 * number of entries.
 */
NODISCARD err_t status_watch_take(struct bytes *entries, struct status_watch *ret_watch);
NODISCARD err_t status_report_take(struct bytes *entries, struct status_report *ret_report);
