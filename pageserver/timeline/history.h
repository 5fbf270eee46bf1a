/*
 * history.h - how much history a tenant keeps, and who may read which part of it: cutoffs, leases
 * and short-lived holds, and the horizon that GC works with.
 *
 * The order that keeps readers right:
 *   - A cutoff is durable before it is published, and published before a compaction may use it.
 *   - A lease or hold is registered first and validated then, under the lock under which a
 *     compaction copies what it must keep: either the compaction sees it, or it sees a cutoff that
 *     already forbids it.
 *   - A lease is answered once it is durable, and forgotten once its row is gone for good.
 *   - A reader checks its LSN again after it has collected (history_check), or holds it.
 * A cutoff never goes back, and never beyond what is durable: a crash must not lead below it.
 *
 * Threads: [any]. What takes a store blocks on it; such calls come one at a time, from the tenant's
 * lane.
 */
#pragma once

#include <stdatomic.h>

#include "common/base/list.h"
#include "pageserver/store/gc_pass.h"
#include "pageserver/store/page_store.h"
#include "pageserver/timeline/gc_horizon.h"

#define LEASES_MAX      10000 /* of one tenant */
#define LEASE_NAME_SIZE 64    /* with its NUL */
#define LEASE_FOREVER   UINT64_MAX

/* History is kept as long as either of the two asks for it. */
struct history_retention {
    uint64_t seconds;   /* of commit time, before now */
    uint64_t wal_bytes; /* of WAL, before the end of what is durable */
};

struct history;
struct history_timeline; /* one timeline in it; valid until history_remove */

struct history *history_create(struct history_retention defaults);
void history_destroy(struct history *history); /* NULL is fine; after the store was closed */
struct gc_source *history_gc_source(struct history *history);

/* Rows of retention, cutoffs and leases. Then add all timelines (parents first), then start. */
NODISCARD err_t history_load(struct history *history, struct page_store *store, struct errmsg *msg);
/* From here on compactions may drop. `next_number`: no timeline had this or a larger number. */
void history_start(struct history *history, uint32_t next_number);

/* Durable, or about to be: before the first version of it is written. */
struct history_timeline *history_add(struct history *history, const struct gc_timeline *timeline);
/* Its row says deleted, nobody reads it any more: its versions may go, and its leases are void. */
void history_remove(struct history *history, struct history_timeline *tl);
/* Its row says deleted, but children live on it. */
void history_set_tombstone(struct history *history, struct history_timeline *tl);
void history_set_durable(struct history *history, struct history_timeline *tl, lsn_t lsn);
lsn_t history_cutoff(const struct history_timeline *tl);
/* The versions are erased: so are the rows. */
NODISCARD err_t history_erase_rows(
    struct history *history, struct page_store *store, uint32_t timeline, struct errmsg *msg);

/* ERR_RANGE: the LSN is not kept any more. Cheap at and above the cutoff. */
NODISCARD err_t history_check(
    struct history *history, const struct history_timeline *tl, lsn_t lsn, struct errmsg *msg);

/* The same without leases and holds. A time leads to an LSN only in here: of what went before it,
 * the times went as well. */
NODISCARD err_t history_check_window(
    struct history *history, const struct history_timeline *tl, lsn_t lsn, struct errmsg *msg);

/* Keeps an LSN readable while this process lives: a branch being made, a long read. */
struct history_hold {
    uint32_t timeline;
    lsn_t lsn;
    struct list_link link;
};
NODISCARD err_t history_hold(
    struct history *history,
    const struct history_timeline *tl,
    lsn_t lsn,
    struct history_hold *hold,
    struct errmsg *msg);
void history_release(struct history *history, struct history_hold *hold); /* not held is fine */

/* -- leases -- */

struct history_lease {
    uint32_t number;
    uint32_t timeline;
    lsn_t lsn;
    uint64_t expires_us; /* wall clock; LEASE_FOREVER */
    char name[LEASE_NAME_SIZE];
};

/*
 * Create or renew the lease of that name: an existing one of the same LSN gets the new end.
 * ERR_EXISTS: it is of another LSN; ERR_RANGE: not kept any more; ERR_BUSY: too many.
 */
NODISCARD err_t history_lease_put(
    struct history *history,
    struct page_store *store,
    const struct history_timeline *tl,
    const struct history_lease *lease,
    struct errmsg *msg);
/* ERR_NOT_FOUND. */
NODISCARD err_t history_lease_drop(
    struct history *history,
    struct page_store *store,
    const struct history_timeline *tl,
    const char *name,
    struct errmsg *msg);
NODISCARD err_t history_leases_expire(
    struct history *history, struct page_store *store, uint64_t now_us, struct errmsg *msg);

/* Those of one timeline, in no order. Under the lock: do not call back. */
void history_leases(
    struct history *history,
    const struct history_timeline *tl,
    void (*visit)(const struct history_lease *lease, void *context),
    void *context);

/* -- the window -- */

struct history_retention history_retention(struct history *history);
NODISCARD err_t history_set_retention(
    struct history *history,
    struct page_store *store,
    struct history_retention retention,
    struct errmsg *msg);

/* A copy of the tree: timelines, and holds and leases as holds. Free it. */
struct gc_tree *history_tree(struct history *history);
void history_tree_free(struct gc_tree *tree);
/* Move the cutoffs of the tree's timelines to where `wanted` (one each) allows it, and publish. */
NODISCARD err_t history_move_cutoffs(
    struct history *history,
    struct page_store *store,
    const struct gc_tree *tree,
    const lsn_t *wanted,
    struct errmsg *msg);

/* -- why is this kept -- */

enum history_reason {
    HISTORY_CUTOFF,    /* everything from here on is within the window */
    HISTORY_BRANCH,    /* a child begins here */
    HISTORY_LEASE,     /* a lease, of this timeline or of one that begins later */
    HISTORY_HOLD,      /* a branch being made, or a read under way */
    HISTORY_TOMBSTONE, /* deleted, but it has not ingested its children's branch LSNs yet */
};

struct history_holder {
    enum history_reason reason;
    lsn_t lsn;
    uint32_t timeline; /* of the child, or of the lease */
    const char *name;  /* of the lease; or "" */
};
/* All that keeps anything of this timeline, in no order. Under the lock: do not call back. */
void history_explain(
    struct history *history,
    const struct history_timeline *tl,
    void (*visit)(const struct history_holder *holder, void *context),
    void *context);
