/*
 * wal_source.h - the replication connection to our Postgres (libpq): its WAL in, replies out.
 *
 * Connects, checks the system identifier, sends START_REPLICATION and hands the WAL on, in order
 * and without a gap; when the connection ends it does all of that again, from where the user is by
 * then. Positions are reported as write = flush = apply, at once when they move: a commit in
 * Postgres waits for exactly that.
 */
#pragma once

#include "common/base/bytes.h"
#include "common/base/log.h"
#include "common/io/poll.h"
#include "common/io/timer.h"

struct wal_source_user;

struct wal_source_callbacks {
    lsn_t (*next_lsn)(struct wal_source_user *user); /* where the stream has to (re)start */
    bool (*wants_wal)(struct wal_source_user *user); /* false: wal_source_resume() follows */
    /* WAL from next_lsn on. The view lives until this returns. */
    void (*on_wal)(struct wal_source_user *user, struct bytes wal);
    void (*on_drained)(struct wal_source_user *user); /* that was all there is for now */
    /* Another cluster answers, or it has removed the WAL that comes next: this cannot heal. */
    void (*on_lost)(struct wal_source_user *user, const struct errmsg *msg);
};

struct wal_source_user {
    const struct wal_source_callbacks *callbacks;
};

enum wal_source_state {
    SOURCE_STOPPED,
    SOURCE_WAITING, /* for the next attempt */
    SOURCE_CONNECTING,
    SOURCE_IDENTIFYING,
    SOURCE_STARTING,
    SOURCE_STREAMING,
};

struct pg_conn; /* PGconn: libpq-fe.h stays in wal_source.c */

struct wal_source {
    enum wal_source_state state;
    struct loop *loop;
    struct log *log;
    struct wal_source_user *user;
    const char *conninfo;
    uint64_t system_id;
    struct pg_conn *conn;
    struct poll_user poll_user;
    int socket;
    struct timer timer; /* next attempt, time limit of an attempt, or the regular reply */
    uint64_t attempts, connections;
    lsn_t reply_lsn;  /* what we report */
    lsn_t server_lsn; /* newest WAL that the server said it has */
    bool draining;
    bool is_held; /* not read from, and libpq may hold messages: wal_source_resume() goes on */
    struct errmsg last_error;
};

/* `conninfo` lives as long as the source. Nothing happens before wal_source_start(). */
void wal_source_init(
    struct wal_source *source,
    struct loop *loop,
    struct log *log,
    const char *conninfo,
    uint64_t system_id,
    struct wal_source_user *user);
void wal_source_start(struct wal_source *source);
void wal_source_stop(struct wal_source *source); /* no callback comes after this */

void wal_source_resume(struct wal_source *source);
void wal_source_report(struct wal_source *source, lsn_t lsn); /* monotone */

const char *wal_source_state_name(enum wal_source_state state);
