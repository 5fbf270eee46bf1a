/*
 * timeline.h - one branch of history: its own WAL since start_lsn, older versions from its parent.
 *
 * A root starts from a bootstrap image at start_lsn; a branch shares everything up to start_lsn
 * (its branch LSN) with its parent. The path to the versions (page_path) never changes, so workers
 * read it without a lock.
 *
 * Positions: last_record_lsn is what readers may see; durable_lsn <= last_record_lsn survives a
 * crash. A timeline is ready once every ancestor has ingested the LSN where its child branched off;
 * until then reads wait.
 *
 * Threads: loop only, except what is marked [any].
 */
#pragma once

#include "common/base/id.h"
#include "common/base/log.h"
#include "common/io/timer.h"
#include "common/wire/codec.h"
#include "pageserver/store/page_store.h"

struct tenant;
struct timeline; /* shared, reference-counted */

enum timeline_state {
    TIMELINE_IMPORTING = 1, /* a root whose bootstrap image is not in the store yet */
    TIMELINE_ACTIVE = 2,
    TIMELINE_DELETING = 3,  /* gone for everybody; its versions are being erased */
    TIMELINE_TOMBSTONE = 4, /* gone for everybody, but children live on what is kept of it */
};

/* The row in the store (META_TIMELINE): all that is not a version. */
#define TIMELINE_ROW_FORMAT 1
#define TIMELINE_ROW_FIELDS(X)                                                                     \
    X(u16, format)                                                                                 \
    X(u8, state)                                                                                   \
    X(timeline, id)                                                                                \
    X(timeline, parent) /* none: a root */                                                         \
    X(u32, parent_number)                                                                          \
    X(u32, pg_version)                                                                             \
    X(u64, system_id)                                                                              \
    X(u64, start_lsn)                                                                              \
    X(u32, generation)                                                                             \
    X(u32, membership_generation)                                                                  \
    X(bytes, bootstrap_object) /* root only */                                                     \
    X(bytes, safekeepers)      /* "1@127.0.0.1:7411,2@..." */
WIRE_DECLARE(timeline_row, TIMELINE_ROW_FIELDS);

#define TIMELINE_TEXT_MAX 1024 /* of bootstrap_object and of safekeepers */

/*
 * The row in memory. Texts are those of who made it: shared_text.h for a timeline's own, a buffer
 * after decoding. NULL counts as empty when a timeline is made of it.
 */
struct timeline_info {
    enum timeline_state state;
    struct timeline_id id, parent;
    uint32_t number, parent_number;
    uint32_t pg_version;
    uint64_t system_id;
    lsn_t start_lsn;
    generation_t generation, membership_generation;
    const char *bootstrap_object, *safekeepers;
};

void timeline_info_encode(const struct timeline_info *info, struct buf *to);
struct timeline_texts {
    char bootstrap_object[TIMELINE_TEXT_MAX], safekeepers[TIMELINE_TEXT_MAX];
};
/* The texts of *ret_info are in `texts`. */
NODISCARD err_t timeline_info_decode(
    uint32_t number,
    struct bytes row,
    struct timeline_texts *texts,
    struct timeline_info *ret_info,
    struct errmsg *msg);

/* `parent` is NULL for a root. The timeline starts with `position`, all of it durable. */
struct timeline *timeline_create(
    struct tenant *tenant,
    const struct timeline_info *info,
    struct timeline *parent,
    struct ingest_position position);
struct timeline *timeline_ref(struct timeline *tl);
void timeline_unref(struct timeline *tl); /* NULL is fine */

const struct timeline_info *timeline_info(const struct timeline *tl); /* [any] but state, lists */
void timeline_update_info(struct timeline *tl, const struct timeline_info *info);
void timeline_set_state(struct timeline *tl, enum timeline_state state);
/* Who serves the timeline, to come back from it with CONTAINER_OF; NULL: nobody. */
struct timeline_user {
    /* A reader begins to wait for an LSN that is not here yet. May be NULL. */
    void (*on_wait)(struct timeline_user *user);
};
void timeline_set_user(struct timeline *tl, struct timeline_user *user);
struct timeline_user *timeline_user(const struct timeline *tl);

/* [any] A name for one line of log: good until the next call on the same thread. */
const struct log *timeline_log(const struct timeline *tl);
struct tenant *timeline_tenant(const struct timeline *tl);
struct timeline *timeline_parent(const struct timeline *tl); /* NULL: a root */
uint32_t timeline_number(const struct timeline *tl);         /* [any] */
uint64_t timeline_uid(const struct timeline *tl); /* unique in this process, for caches */
void timeline_forget_pages(struct timeline *tl);  /* a new uid: nothing cached counts any more */
struct page_store *timeline_store(const struct timeline *tl);     /* [any] */
const struct page_path *timeline_path(const struct timeline *tl); /* [any] */
lsn_t timeline_root_start_lsn(const struct timeline *tl);         /* [any] oldest readable LSN */

/* Who may read what; NULL, NULL: there is no GC. */
struct history;
struct history_timeline;
struct history_hold;
void timeline_set_history(
    struct timeline *tl, struct history *history, struct history_timeline *of_timeline);
struct history_timeline *timeline_history(const struct timeline *tl);
/* ERR_RANGE: before the begin of history, or not kept any more. To be asked again after a read. */
NODISCARD err_t timeline_check_lsn(const struct timeline *tl, lsn_t lsn, struct errmsg *msg);
/* The same, and from now on it is kept until it is released. */
NODISCARD err_t timeline_hold_lsn(
    const struct timeline *tl, lsn_t lsn, struct history_hold *hold, struct errmsg *msg);
void timeline_release_lsn(const struct timeline *tl, struct history_hold *hold);

lsn_t timeline_last_lsn(const struct timeline *tl);
lsn_t timeline_prev_record_lsn(const struct timeline *tl);
lsn_t timeline_durable_lsn(const struct timeline *tl);
lsn_t timeline_remote_lsn(const struct timeline *tl); /* in the object store; 0: nothing yet */
void timeline_set_remote_lsn(struct timeline *tl, lsn_t lsn);
/* Logical slots need the WAL from here on; LSN_NONE: there is none. */
lsn_t timeline_slots_lsn(const struct timeline *tl);
void timeline_set_slots_lsn(struct timeline *tl, lsn_t lsn);
/*
 * What safekeepers may forget: remote_lsn, but what slots need, up to tenants' slot_wal_keep_max.
 */
lsn_t timeline_unneeded_lsn(const struct timeline *tl);
lsn_t timeline_commit_lsn(const struct timeline *tl); /* seen from safekeepers */
void timeline_saw_commit_lsn(struct timeline *tl, lsn_t lsn);

/* Ingest reports that everything up to `position` is in the store: wakes readers. */
void timeline_advance(struct timeline *tl, struct ingest_position position);
/* A flush begins: remember how far it goes. It succeeded: that far is durable. */
void timeline_flush_begins(struct timeline *tl);
void timeline_flush_succeeded(struct timeline *tl);

/* Ingest stopped for good: what is there stays readable, waits for more fail with `why`. */
void timeline_fail(struct timeline *tl, const char *why);
const char *timeline_failure(const struct timeline *tl); /* NULL: none */

/* Imported, and all ancestors reach their child. */
bool timeline_is_ready(const struct timeline *tl);

/*
 * Between begin and end the versions are not erased. ERR_NOT_FOUND when the timeline was deleted.
 */
NODISCARD err_t timeline_read_begin(struct timeline *tl, struct errmsg *msg);
/* The same for what works on the timeline itself, also on a tombstone. */
void timeline_work_begin(struct timeline *tl);
void timeline_read_end(struct timeline *tl);
bool timeline_has_readers(const struct timeline *tl);

void timeline_rest(struct timeline *tl); /* nobody writes to it: caches give their memory back */

/* Sizes of forks as of last_record_lsn. A miss says nothing. */
bool timeline_cached_size(
    const struct timeline *tl, struct page_key rel, struct fork_size *ret_size);
/* `as_of` is the LSN at which the size was read; ignored when ingest has moved on since. */
void timeline_cache_size(
    struct timeline *tl, struct page_key rel, struct fork_size size, lsn_t as_of);
/* Ingest changed a size: before timeline_advance. */
void timeline_size_changed(struct timeline *tl, struct page_key rel, struct fork_size size);

/*
 * Wait until the timeline is ready and last_record_lsn >= lsn. `done` is called once, never from
 * inside start: ERR_OK; ERR_TIMEOUT; ERR_FAILED when ingest stopped; ERR_NOT_FOUND when it was
 * deleted; ERR_CANCELED after lsn_wait_cancel.
 */
struct lsn_wait {
    void (*done)(struct lsn_wait *wait, err_t result);
    struct timeline *timeline; /* referenced while waiting */
    lsn_t lsn;
    err_t result;
    struct timer timer;
    struct list_link link;
};

#define LSN_WAIT_FOREVER UINT64_MAX
void lsn_wait_start(
    struct lsn_wait *wait,
    struct timeline *tl,
    lsn_t lsn,
    uint64_t timeout_ms,
    void (*done)(struct lsn_wait *wait, err_t result));
void lsn_wait_cancel(struct lsn_wait *wait);       /* nothing when it is not waiting */
void timeline_cancel_waiters(struct timeline *tl); /* all of them, when the process stops */
bool timeline_has_waiters(const struct timeline *tl);
bool timeline_has_lsn(const struct timeline *tl, lsn_t lsn);
