/*
 * feed.h - committed WAL of one timeline to one pageserver, for as long as its channel lives.
 *
 * One piece is read at a time, from memory while the pageserver keeps up and from verified files
 * otherwise; the next one waits until the link has drained. While commits follow each other they
 * gather for a moment. See docs/protocol/feed.md.
 * Threads: loop only.
 */
#pragma once

#include "common/wire/feed_proto.h"
#include "safekeeper/timeline/timeline.h"

struct feed;

struct feed_owner {
    /* The feed cannot go on; FRAME_ERROR is queued. Stop it and close the channel. */
    void (*on_broken)(struct feed_owner *owner);
};

/* The pageserver's hello was accepted; nothing is sent before feed_begin(). */
struct feed *feed_create(
    struct timeline *tl,
    struct link *link,
    uint32_t channel,
    node_id_t peer_id,
    generation_t generation,
    struct feed_owner *owner);
void feed_destroy(struct feed *feed); /* NULL is fine */

/* ERR_RANGE: `begin_lsn` lies before the start of the timeline. A second time: begins anew. */
NODISCARD err_t feed_begin(struct feed *feed, lsn_t begin_lsn, struct errmsg *msg);
/*
 * Nothing beyond `end_lsn` is sent until a later one; without any there is no limit. What gathers
 * for the next piece is sent now, and the next commit as soon as it comes.
 */
void feed_window(struct feed *feed, lsn_t end_lsn);
void feed_feedback(struct feed *feed, const struct feed_feedback *feedback);
void feed_drained(struct feed *feed); /* the link has room again */

/* For status pages. */
struct feed_info {
    node_id_t peer_id;
    lsn_t sent_lsn;
    struct timeline_feedback feedback;
};
struct timeline_feedback timeline_newest_feedback(const struct timeline *tl);
size_t timeline_feed_count(const struct timeline *tl);
struct feed_info timeline_feed_info(const struct timeline *tl, size_t index);
