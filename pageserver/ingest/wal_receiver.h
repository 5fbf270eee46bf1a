/*
 * wal_receiver.h - brings committed WAL of one timeline to wal_ingest, while there is some.
 *
 * It streams from the safekeeper of the timeline's feed_watch that reports the highest commit_lsn.
 * When that one refuses, is lost, or stays behind while another one has more, it goes on from
 * wal_ingest_next_lsn() there: committed WAL is the same everywhere. A window keeps a safekeeper
 * from sending more than ingest has room for, so that nobody else on the connection waits.
 *
 * Threads: loop only.
 */
#pragma once

#include "pageserver/ingest/feeds.h"
#include "pageserver/ingest/wal_ingest.h"

struct wal_receiver;

struct wal_receiver_user {
    /* No WAL came for idle_ms and none is known of: it may be destroyed now, from the loop. */
    void (*on_idle)(struct wal_receiver_user *user);
    /*
     * No safekeeper that can be used has the WAL any more that the timeline needs next: it was
     * forgotten because the object store has what became of it. May be called again and again.
     */
    void (*on_forgotten)(struct wal_receiver_user *user);
};

struct wal_receiver_options {
    struct loop *loop;
    struct timeline *timeline; /* referenced */
    struct feed_watch *watch;  /* of the timeline; outlives the receiver */
    struct wal_ingest *ingest; /* outlives the receiver */
    struct wal_receiver_user *user;
    size_t queue_bytes_max; /* of ingest */
    uint64_t idle_ms;
};

struct wal_receiver *wal_receiver_create(const struct wal_receiver_options *options);
void wal_receiver_destroy(struct wal_receiver *receiver); /* NULL is fine */
/* The watch has news. */
void wal_receiver_consider(struct wal_receiver *receiver);
/* The row of the timeline has changed, or ingest has dropped its queue: begin anew. */
void wal_receiver_restart(struct wal_receiver *receiver);
/* Ingest has taken some: go on. Tells the safekeeper how far we are. */
void wal_receiver_advanced(struct wal_receiver *receiver);

/* A reader waits: the safekeeper sends what it has, and the next commit as soon as it comes. */
void wal_receiver_hurry(struct wal_receiver *receiver);

/* "sk 2"; false: from none right now. */
bool wal_receiver_describe(const struct wal_receiver *receiver, char *to, size_t to_size);
