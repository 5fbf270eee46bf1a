/*
 * timeline.h - one timeline at a safekeeper: the driver of its acceptor.
 *
 * Messages of proposers go into the pure core (safekeeper/consensus/acceptor.h); what it wants done
 * is done here: WAL to disk in commit groups, state to the control file, replies to the links,
 * committed WAL to the feeds. Nothing here decides anything about consensus.
 *
 * A timeline that nobody writes to or reads from has no open file, no timer and no buffer, and
 * after env->rest_ms nothing but a row in the set (timeline_set.h): whoever finds it there wakes
 * it, at once and from memory. Who keeps it awake holds a reference.
 *
 * Storage: ERR_FULL is waited out (a timer tries again; unwritten WAL stays queued up to a limit,
 * then the proposer is not read from). Any other failure of the disk takes the timeline out of
 * service until everything was verified again: after a repair (repair.h), when it is asked for
 * (POST reopen), or in the next process.
 *
 * Threads: loop only.
 */
#pragma once

#include "common/io/executor.h"
#include "common/io/link.h"
#include "common/io/sync_queue.h"
#include "safekeeper/disk/control_file.h"

struct timeline;

/* Shared by all timelines of the process. */
struct timeline_env {
    struct loop *loop;
    struct executor *executor;
    struct sync_queue *syncs; /* of small groups; NULL: the executor does them all */
    char data_dir[PATH_SIZE];
    uint64_t certify_ms; /* without a write: the last group is proven by a record; 0: when idle */
    uint64_t idle_ms;    /* without a write: files are closed, memory is given back */
    uint64_t rest_ms;    /* without use: it is a row only; 0: never */
    uint64_t retry_ms;   /* after a full disk */
    uint64_t peer_check_ms;   /* first interval between questions to the other members */
    uint64_t repair_retry_ms; /* when no member had what is damaged here */
    node_id_t node_id;        /* of this safekeeper, and what it shows to the others */
    const char *secret;
    uint64_t feed_status_ms;  /* how often an idle feed hears of us */
    uint64_t feed_gather_ms;  /* for so long commits gather for the next piece of a busy one */
    uint64_t retention_ms;    /* how often is looked whether WAL may go; 0: it never does */
    uint64_t wal_keep_min;    /* bytes below commit_lsn that stay in any case */
    uint64_t wal_keep_max;    /* bytes at most that stay for a member that is behind or away */
    unsigned recycled_max;    /* segment files of each timeline that are kept for the next ones */
    size_t pending_bytes_max; /* WAL that waits for the disk, for each timeline */
};

enum timeline_state {
    TIMELINE_OPENING, /* being created, or read and verified */
    TIMELINE_OPEN,
    TIMELINE_FAILED, /* storage out of service: see timeline_storage_text() */
    TIMELINE_CLOSED, /* deleted, or the process stops */
};

/* Begun by timeline_set_start() and timeline_set_find(). */
struct timeline *timeline_ref(struct timeline *tl);
void timeline_unref(struct timeline *tl); /* NULL is fine; the last one wants it closed first */

/* Stop: refuse everything, let the disk finish, rest; then `on_closed`, once. */
struct timeline_closing {
    void (*on_closed)(struct timeline_closing *closing);
    struct list_link link;
};
void timeline_close(struct timeline *tl, struct timeline_closing *closing);

struct tenant_id timeline_tenant(const struct timeline *tl);
struct timeline_id timeline_id(const struct timeline *tl);
enum timeline_state timeline_state(const struct timeline *tl);
NODISCARD err_t timeline_failure(const struct timeline *tl); /* why it is FAILED */
/* "ok", "opening", "full: why", "failed: why" */
const char *timeline_storage_text(const struct timeline *tl);
/* What is done about a failure, or "". */
const char *timeline_repair_text(const struct timeline *tl);
const struct control_state *timeline_control(const struct timeline *tl);
const struct acceptor *timeline_acceptor(const struct timeline *tl); /* NULL unless it is open */
const char *timeline_dir(const struct timeline *tl);

/* Write new addresses of the same members; they are no promise. */
void timeline_set_addresses(struct timeline *tl, const struct member_address *addresses);

/*
 * Who votes from now on, while OPEN: a newer generation than the one it has (ERR_STALE for an older
 * one, ERR_EXISTS for other members under the same one). Proposers of the old one are refused, and
 * learn of this one. `term`: promise at least that; 0: as it is. See docs/design/membership.md.
 */
NODISCARD err_t timeline_set_membership(
    struct timeline *tl,
    const struct membership *membership,
    const struct member_address *addresses,
    term_t term,
    struct errmsg *msg);

/* What acceptor_report() says; false: not now. */
struct change_report;
bool timeline_report(const struct timeline *tl, struct change_report *ret_report);

/* Called once when there is a report, or the timeline is not OPEN any more; not from inside. */
struct timeline_report_waiter {
    void (*on_report)(struct timeline_report_waiter *waiter);
    struct list_link link;
};
void timeline_wait_report(struct timeline *tl, struct timeline_report_waiter *waiter);

/* Tell who asks under an older membership how to go on. */
void timeline_send_membership(const struct timeline *tl, struct link *link, uint32_t channel);

/* Called once when the timeline is no longer OPENING. */
struct timeline_waiter {
    void (*on_ready)(struct timeline_waiter *waiter);
    struct list_link link;
};
void timeline_wait_ready(struct timeline *tl, struct timeline_waiter *waiter);

/*
 * A proposer's channel. The owner embeds it, attaches it while the timeline is OPEN, and passes its
 * messages in; replies go straight to `link`.
 */
struct timeline_peer {
    /* filled in by the owner */
    struct link *link;
    uint32_t channel;
    struct acceptor_peer id;
    /* It was refused, or the timeline failed or was deleted; FRAME_ERROR is queued. Close it. */
    void (*on_refused)(struct timeline_peer *peer);
    /* Back-pressure towards this peer: stop or go on reading. */
    void (*on_pause)(struct timeline_peer *peer, bool is_paused);

    struct list_link in_timeline; /* private from here on */
    uint64_t request_id;
    bool is_paused;
};
void timeline_attach_peer(struct timeline *tl, struct timeline_peer *peer);
void timeline_detach_peer(struct timeline *tl, struct timeline_peer *peer);
void timeline_vote_request(
    struct timeline *tl,
    struct timeline_peer *peer,
    uint64_t request_id,
    const struct vote_request *vote);
void timeline_elected(
    struct timeline *tl,
    struct timeline_peer *peer,
    uint64_t request_id,
    const struct elected *elected,
    bool begins_anew);
void timeline_append(
    struct timeline *tl,
    struct timeline_peer *peer,
    uint64_t request_id,
    const struct append *append);

/* One read of WAL for a peer, a digest or a feed; embed it. */
struct timeline_read {
    /* filled in by the caller */
    lsn_t begin_lsn, end_lsn;
    term_t term; /* 0: committed WAL; otherwise also what is not, while the term lasts */
    void (*done)(struct timeline_read *read, err_t result); /* once, never from inside start */
    /* answer */
    struct buf wal; /* buf_deinit() is the caller's; may be reused for the next read */
    struct errmsg msg;

    struct job job; /* private from here on */
    struct timeline *tl;
    uint64_t wal_epoch;
    struct wal_store_reader *reader; /* kept for the next read; timeline_read_deinit() frees it */
};
/* True: it was in memory, the bytes are in read->wal and done is not called. */
bool timeline_read_cached(struct timeline *tl, struct timeline_read *read);
void timeline_read_start(struct timeline *tl, struct timeline_read *read);
void timeline_read_deinit(struct timeline_read *read);
/* Up to where `term` may read; see acceptor_readable_lsn(). */
NODISCARD err_t
timeline_readable_lsn(const struct timeline *tl, term_t term, lsn_t *ret_lsn, struct errmsg *msg);

/* What the pageserver that is attached says; kept when its feed ends. */
struct timeline_feedback {
    generation_t generation; /* 0: none yet */
    lsn_t received_lsn, durable_lsn, remote_lsn;
};
