/*
 * wal_receiver.h - brings the committed WAL of one timeline from its safekeepers to wal_ingest.
 *
 * It says hello to all of them and streams from the one with the highest commit_lsn. When that one
 * fails, falls silent, or stays behind while readers wait, it says hello to the others again and
 * goes on from wal_ingest_next_lsn() at a better one: committed WAL is the same everywhere.
 *
 * Threads: loop only.
 */
#pragma once

#include "pageserver/ingest/wal_ingest.h"

struct wal_receiver;

struct wal_receiver_user {
    /* After wal_receiver_stop(): no more calls will come; it may be destroyed. */
    void (*on_stopped)(struct wal_receiver_user *user);
};

struct wal_receiver_options {
    struct loop *loop;
    struct timeline *timeline; /* referenced */
    struct wal_ingest *ingest; /* outlives the receiver */
    struct wal_receiver_user *user;
    uint64_t node_id;
    const char *token;       /* of the hello; lives as long as the process */
    uint64_t silence_max_ms; /* a safekeeper says something once a second */
};

struct wal_receiver *wal_receiver_create(const struct wal_receiver_options *options);
/* The timeline's list of safekeepers changed (timeline_info), or WAL must be asked for anew. */
void wal_receiver_restart(struct wal_receiver *receiver);
/* Go on reading after wal_ingest_is_full(). */
void wal_receiver_resume(struct wal_receiver *receiver);
/* Tell the safekeeper how far we are. */
void wal_receiver_send_feedback(struct wal_receiver *receiver);
void wal_receiver_stop(struct wal_receiver *receiver); /* on_stopped follows, maybe at once */
void wal_receiver_destroy(struct wal_receiver *receiver);

/* "sk 2", or why there is none: "none: sk 1: connection refused". */
const char *wal_receiver_status(const struct wal_receiver *receiver);

/* One entry of "1@127.0.0.1:7411,2@[::1]:7411"; moves *text behind it. ERR_NOT_FOUND at the end. */
struct safekeeper_address {
    uint64_t id;
    char host[128];
    uint16_t port;
};
NODISCARD err_t safekeeper_address_take(
    const char **text, struct safekeeper_address *ret_address, struct errmsg *msg);
