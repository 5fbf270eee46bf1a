/*
 * timeline_private.h - shared by timeline.c (consensus), timeline_disk.c (writing),
 * timeline_read.c, feed.c and watcher.c.
 */
#pragma once

#include "common/base/log.h"
#include "common/io/timer.h"
#include "safekeeper/disk/wal_store.h"
#include "safekeeper/timeline/feed.h"
#include "safekeeper/timeline/forget.h"
#include "safekeeper/timeline/timeline_set.h"
#include "safekeeper/timeline/wal_tail.h"

/* WAL that waits for the disk: exactly one commit group. */
struct wal_block {
    struct list_link link;
    struct buf wal;
    lsn_t begin_lsn, limit_lsn; /* where it begins; where it must end at the latest */
    lsn_t record_lsn;           /* last record end in it, or an older one */
    uint64_t epoch;
    mono_ns_t arrived;
};

enum disk_op {
    DISK_IDLE,
    DISK_GROUP,
    DISK_TRUNCATE,
    DISK_CERTIFY,
    DISK_REST,
};

struct timeline_disk {
    struct wal_store *store;
    enum disk_op op;
    bool is_waiting_for_space; /* the op is repeated by the timer */

    struct list blocks;   /* of wal_block, in order */
    size_t pending_bytes; /* in blocks and in `writing` */
    struct wal_block *writing;
    struct wal_block *spare;
    struct wal_group group;
    struct job segment_job, sidecar_job; /* the two halves of a group ... */
    bool is_small, is_by_kernel;         /* of the group: see start_group_in_place() */
    struct sync_request sync;            /* ... or their syncs, when they were written in place */
    bool is_segment_done, is_sidecar_done;
    unsigned halves_running;
    err_t group_result;
    struct errmsg group_msg;
    mono_ns_t group_begun;

    struct job op_job; /* truncate, rest */
    bool is_truncate_wanted, is_certify_wanted, is_rest_wanted;
    bool is_emptying; /* the truncation is to an empty log */
    lsn_t truncate_lsn;
    uint64_t truncate_epoch;
    lsn_t rest_commit_lsn; /* also of a certification */

    struct loop_task kick; /* end of the loop turn: write what arrived in it */
    bool is_kick_posted;
    struct timer retry;
    struct timer certify;
    struct timer idle;
    mono_ns_t used_at;

    struct job control_job;
    bool is_control_running, is_control_wanted, is_control_waiting_for_space;
    bool is_control_promise;               /* of what is being written */
    struct control_state *control_writing; /* the worker's copy, while it is running */
    mono_ns_t control_begun;
};

/*
 * A timeline in its set. While it rests this is all there is of it, so it is kept small. `tl` NULL:
 * it rests, or, without `rest`, nobody has looked at it since the process began.
 */
struct timeline_row {
    struct timeline_set *set;
    struct timeline_row *next_in_slot;
    uint32_t index; /* in the set */
    uint8_t catch_up_backoff;
    struct tenant_id tenant;
    struct timeline_id id;
    struct timeline *tl;
    struct timeline_rest *rest;
    lsn_t commit_lsn;          /* while it rests */
    struct list_link in_state; /* awake, or not yet looked at */
    mono_ns_t used_at;
    struct list_link in_due; /* for the next catch_up */
    mono_ns_t catch_up_at;
    lsn_t compared_lsn;  /* up to where the last checks have come */
    struct list watches; /* of pageservers: watcher.c */
    struct timeline_feedback feedback;
    lsn_t forget_from_lsn; /* while it rests: a remote_lsn that is worth being woken for */
};

struct timeline {
    const struct timeline_env *env;
    struct timeline_row *row; /* NULL: removed from the set */
    struct log log;
    unsigned refs;
    unsigned jobs; /* that touch it */
    enum timeline_state state;
    err_t failure;
    char dir[PATH_SIZE], wal_dir[PATH_SIZE];
    struct tenant_id tenant;
    struct timeline_id id;
    char storage_text[sizeof(struct errmsg) + 16];

    struct control_file control_file;
    struct control_state control; /* wanted; acceptor.state is the newest of its part */
    struct acceptor acceptor;     /* valid while OPEN or, for its positions, FAILED */
    bool has_acceptor;
    uint64_t promised_hash; /* of the promises that are on disk, to tell new ones */

    struct catch_up *catch_up;      /* NULL: none is under way */
    struct repair *repair;          /* NULL: none is under way */
    struct rebuild *rebuild;        /* NULL: none is under way */
    struct wal_damage_list *damage; /* what the last look found */
    bool is_tail_given_up;          /* by the next look, if nothing committed is lost with it */
    char repair_text[240];

    struct job open_job;
    struct wal_witness witness; /* of the start: what the log may have lost */
    bool is_created;
    struct list waiters;
    struct list report_waiters;
    struct loop_task report_task;
    bool is_report_posted;
    struct timeline_closing *closing;
    struct loop_task close_task;

    struct timeline_disk disk;
    struct wal_tail tail;
    struct list peers; /* of timeline_peer */
    struct list feeds;
    struct forgetting forgetting;
};

/* timeline.c */
struct timeline *timeline_create(const struct timeline_env *env, struct timeline_row *row);
/*
 * Begin to open what lies in DATA_DIR/TENANT/TIMELINE, or to create it from `create` when that is
 * not NULL. timeline_wait_ready() tells when it is open or failed.
 */
struct timeline *timeline_start(
    const struct timeline_env *env, struct timeline_row *row, const struct control_state *create);
/* Take up what `control` and the store say. */
NODISCARD err_t timeline_start_acceptor(struct timeline *tl, struct errmsg *msg);
void timeline_open_again(struct timeline *tl);   /* while it is OPENING and no job runs */
void timeline_verify_again(struct timeline *tl); /* FAILED, and no job runs: OPENING */
void timeline_step(struct timeline *tl, const struct acceptor_event *event);
void timeline_fail(struct timeline *tl, err_t err, const struct errmsg *msg);
void timeline_job_begun(struct timeline *tl);
void timeline_job_ended(struct timeline *tl); /* may free `tl` */
void timeline_update_storage_text(struct timeline *tl);
void timeline_update_pauses(struct timeline *tl); /* the queue grew or shrank */
struct wal_store_options timeline_store_options(const struct timeline *tl);

/* timeline_disk.c */
void disk_init(struct timeline *tl);
void disk_deinit(struct timeline *tl);
void disk_write(
    struct timeline *tl, lsn_t begin_lsn, struct bytes wal, lsn_t record_lsn, uint64_t epoch);
void disk_truncate(struct timeline *tl, lsn_t lsn, uint64_t epoch);
void disk_empty(struct timeline *tl, lsn_t lsn, uint64_t epoch);
void disk_persist(struct timeline *tl, const struct acceptor_state *state);
/* Of what a control file must never forget: everything but commit_lsn. */
uint64_t disk_promise_hash(const struct acceptor_state *state);
void disk_persist_addresses(struct timeline *tl);
void disk_touch(struct timeline *tl); /* something happened: the idle time begins anew */
void disk_rest(struct timeline *tl);
bool disk_is_settled(const struct timeline *tl); /* nothing queued, nothing running */
bool disk_is_at_rest(
    const struct timeline *tl);      /* nor will anything by itself; no file, no buffer */
void disk_stop(struct timeline *tl); /* forget what is queued */
bool disk_is_full(const struct timeline *tl);
void disk_reset(struct timeline *tl); /* FAILED, and no job runs: as if it had never been opened */

/* feed.c: feeds, and whoever else wants to hear of it */
void feeds_on_commit(struct timeline *tl);
void feeds_on_begin(struct timeline *tl); /* the log begins later: who reads below it hears so */
void feeds_break(struct timeline *tl, err_t err, const struct errmsg *msg);
/*
 * Of the newest attachment only: what an older one says about remote_lsn may not be true any more.
 */
void timeline_take_feedback(struct timeline_row *row, const struct timeline_feedback *feedback);

/* timeline_set.c */
struct timeline_row *timeline_set_row(
    const struct timeline_set *set, struct tenant_id tenant, struct timeline_id id);
struct timeline *timeline_row_wake(struct timeline_row *row);
/* When the next catch_up is due: in peer_check_ms, doubled `backoff` times. */
#define CATCH_UP_BACKOFF_MAX 8
void timeline_row_schedule(struct timeline_row *row, uint8_t backoff, mono_ns_t now);
void timeline_row_unschedule(struct timeline_row *row);
struct timeline_row *timeline_set_first_due(const struct timeline_set *set, mono_ns_t now);

/* timeline_rest.c */
bool timeline_may_rest(const struct timeline *tl); /* and it will, until somebody wants it */
void timeline_rest(struct timeline *tl);           /* frees it; its row has what is needed */
struct timeline *timeline_wake(const struct timeline_env *env, struct timeline_row *row);

/* watcher.c */
void watches_on_commit(struct timeline *tl); /* or it was opened */
void watches_end(struct timeline *tl, err_t err);
