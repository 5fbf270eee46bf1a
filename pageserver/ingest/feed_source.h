/*
 * feed_source.h - one safekeeper, and the one connection to it: a status channel that tells of all
 * timelines, and a channel for each timeline that streams WAL right now.
 *
 * It connects by itself, again and again, for as long as a set of safekeepers (feeds.h) has it.
 * After each connect every timeline is watched anew, page by page, as fast as the link takes it.
 * Threads: loop only.
 */
#pragma once

#include "common/io/link.h"
#include "common/io/timer.h"
#include "common/wire/feed_proto.h"
#include "common/wire/status_proto.h"
#include "pageserver/timeline/safekeeper_address.h"

struct feeds;
struct feed_watch;
struct timeline;

enum feed_source_state {
    FEED_SOURCE_OFF,        /* the timer connects it again */
    FEED_SOURCE_CONNECTING, /* until the reply to the status channel's hello */
    FEED_SOURCE_READY,
    FEED_SOURCE_CLOSING,
};

#define FEED_SOURCE_BUCKETS 64

struct feed_source {
    struct feeds *feeds;
    struct safekeeper_address address;
    unsigned references; /* of sets; without any it closes and frees itself */
    enum feed_source_state state;
    struct link_user user;
    struct timer timer;
    uint64_t backoff_ms;
    uint64_t last_request_id, status_request_id;
    uint32_t status_channel;
    uint32_t watched;   /* slots below it were watched on this connection */
    struct buf unknown; /* slots that it does not have: asked for again */
    struct timer unknown_timer;
    uint64_t unknown_ms;
    struct buf positions;                  /* encoded watches, until the turn of feeds ends */
    struct list greeting;                  /* channels whose hello is not answered */
    struct list open[FEED_SOURCE_BUCKETS]; /* channels by number */
    struct errmsg error;                   /* why it ended last; empty while it is ready */
    struct list_link link;                 /* in feeds */
};

struct feed_source *feed_source_create(
    struct feeds *feeds, const struct safekeeper_address *address);
void feed_source_unref(struct feed_source *source);
/* For good: it is OFF once its link is gone. */
void feed_source_stop(struct feed_source *source);
void feed_source_watch(struct feed_source *source, const struct feed_watch *watch);
void feed_source_unwatch(struct feed_source *source, const struct feed_watch *watch);
void feed_source_ask_later(struct feed_source *source, uint32_t slot);
void feed_source_add_position(struct feed_source *source, const struct feed_watch *watch);
void feed_source_send_positions(struct feed_source *source);

/* One timeline's stream of WAL; embed it. */
struct feed_channel;
struct feed_channel_callbacks {
    void (*on_wal)(struct feed_channel *channel, const struct feed_wal *wal);
    void (*on_status)(struct feed_channel *channel, lsn_t commit_lsn);
    /*
     * It is over: refused, broken, or its connection went. Never from inside open or close.
     * ERR_RANGE: the safekeeper has no WAL any more from where the channel was to go on.
     */
    void (*on_lost)(
        struct feed_channel *channel, struct feed_source *source, err_t err, const char *why);
};

struct feed_channel {
    const struct feed_channel_callbacks *callbacks;
    struct feed_source *source; /* NULL: closed */
    uint64_t request_id;        /* of its hello */
    uint32_t number;            /* 0: hello was not answered yet */
    lsn_t begin_lsn, window_lsn;
    struct list_link link;
};

/* The source is READY, the channel closed. */
void feed_channel_open(
    struct feed_channel *channel,
    struct feed_source *source,
    const struct timeline *tl,
    lsn_t begin_lsn,
    lsn_t window_lsn);
void feed_channel_close(struct feed_channel *channel); /* closed is fine */
void feed_channel_move_window(struct feed_channel *channel, lsn_t window_lsn);
void feed_channel_send_feedback(struct feed_channel *channel, const struct feed_feedback *feedback);
