/*
 * connection_private.h - a connection from the inside:
 *
 *   connection.c           the link's callbacks, and the frames of each role
 *   connection_channel.c   the table of channels; how one begins and ends
 *   connection_hello.c     hello: who may open a channel, and what begins with it
 *   connection_reads.c     READ_WAL
 *
 * A connection ends in its link's last callback, which destroys the channels that are left: so a
 * connection that is closing is still there, and connection_close() may come from anywhere.
 * Threads: loop only.
 */
#pragma once

#include "common/io/timer.h"
#include "common/wire/hello_proto.h"
#include "common/wire/wal_proto.h"
#include "safekeeper/serve/connection.h"
#include "safekeeper/timeline/feed.h"
#include "safekeeper/timeline/forget.h"
#include "safekeeper/timeline/watcher.h"

#define CHANNELS_MAX 65535 /* at a time: see struct slot */
#define READS_MAX    16    /* READ_WAL that wait, each channel */

struct channel {
    struct connection *conn;
    uint32_t number;
    enum hello_role role;
    generation_t generation;
    node_id_t peer_id;
    struct timeline *tl;
    uint64_t hello_id;
    struct hello hello; /* `token` is void after the hello was checked */

    bool is_waiting; /* until the timeline is open */
    struct timeline_waiter waiter;

    bool is_attached; /* proposer */
    struct timeline_peer peer;

    struct feed *feed;
    struct feed_owner feed_owner;
    struct list_link in_feeds;

    struct wal_reads *reads;
};

/* READ_WAL requests of a channel, one after the other. It outlives the channel while one runs. */
struct wal_reads {
    struct channel *channel; /* NULL: gone */
    bool is_running;
    struct timeline_read read;
    size_t first, count;
    struct wal_read_request {
        uint64_t request_id;
        struct read_wal message;
    } requests[READS_MAX];
};

/*
 * A channel's number is that of its slot + 1, and above 16 bits how often the slot was used before:
 * a frame that was on its way to a channel that is gone never reaches the next one. A slot whose
 * numbers are used up stays empty.
 */
struct slot {
    struct channel *channel; /* NULL: free */
    uint16_t incarnation;    /* of the channel, or of the last one */
    uint16_t next_free;      /* slot + 1; 0: none */
};

struct connection {
    struct link_user as_link_user;
    struct server *server;
    struct list_link in_server;
    struct slot *slots;
    uint32_t slot_count, capacity, open_count;
    uint16_t first_free; /* slot + 1; 0: none */
    struct list feeds;   /* of channels: who was served last comes last */
    struct watcher *watcher;
    unsigned pauses; /* channels that want the link paused */
    bool is_closing;
    struct timer hello_timer;
};

/* -- connection.c -- */

void connection_close(struct connection *conn); /* again is fine */
/* While at least one channel wants it, nothing is read from the link. In pairs. */
void connection_set_paused(struct connection *conn, bool is_paused);

/* -- connection_channel.c -- */

/* With a reference to `tl`, which may be NULL. The caller has checked that there is room: a free
 * slot, or fewer than CHANNELS_MAX. */
struct channel *channel_create(struct connection *conn, struct timeline *tl);
/* `is_link_gone`: the last callback of the link is running. */
void channel_destroy(struct channel *channel, bool is_link_gone);
/* FRAME_ERROR is queued already; the channel is freed. A connection without one is closed. */
void channel_drop(struct channel *channel);
/* ERR_NOT_FOUND: no hello opened it. ERR_CANCELED: it was there once. */
NODISCARD err_t
channel_find(struct connection *conn, uint32_t number, struct channel **ret_channel);

/* -- connection_hello.c -- */

/* Opens a channel and answers, now or when its timeline is open; or says FRAME_ERROR. */
void connection_on_hello(
    struct connection *conn, const struct frame *frame, const struct hello *hello);

/* -- connection_reads.c -- */

/* Answered in order, each with its request_id; ERR_BUSY when READS_MAX wait. */
void channel_on_read_wal(
    struct channel *channel, const struct frame *frame, const struct read_wal *message);
void wal_reads_release(struct wal_reads *reads); /* frees it; none of its reads is running */
