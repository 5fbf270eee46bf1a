/*
 * history_private.h - the history of a tenant from the inside:
 *
 *   history.c          the tree, what may be read, the horizon of GC, cutoffs
 *   history_rows.c     what of it is on disk: rows of cutoffs, leases and the retention
 *   history_leases.c   leases: put, dropped, expired
 *
 * Threads: [any]; each section below says whether its caller holds the lock. What writes rows waits
 * for a disk, so it comes without the lock, and from the tenant's lane only (history.h).
 */
#pragma once

#include <pthread.h>

#include "common/base/assert.h"
#include "pageserver/timeline/history.h"

struct history_timeline {
    struct gc_timeline gc;    /* under the lock, but number, parent and start, which stay */
    _Atomic(lsn_t) published; /* = gc.cutoff, for those who do not take the lock */
};

struct cutoff_row {
    uint32_t timeline;
    lsn_t lsn;
};

struct history {
    pthread_mutex_t lock; /* guards the rest, but what says otherwise */
    struct gc_source source;
    struct history_retention retention;
    struct history_timeline **timelines; /* by number */
    size_t timeline_count, timeline_capacity;
    struct history_lease *leases;
    size_t lease_count, lease_capacity;
    uint32_t next_lease;
    struct list holds;
    uint32_t next_number;
    bool is_started;

    struct cutoff_row *loaded; /* by timeline; between load and start */
    size_t loaded_count;
};

static inline void history_lock(struct history *history)
{
    int result = pthread_mutex_lock(&history->lock);
    ASSERT(result == 0);
}

static inline void history_unlock(struct history *history)
{
    int result = pthread_mutex_unlock(&history->lock);
    ASSERT(result == 0);
}

/* -- history.c; the lock is held -- */

struct history_timeline *history_find(const struct history *history, uint32_t number); /* or NULL */
/* Whose own WAL the LSN of a timeline lies in: the timeline, or one of its ancestors. */
const struct history_timeline *history_owner_of(
    const struct history *history, const struct history_timeline *tl, lsn_t lsn);
/* history_check() of history.h: ERR_RANGE, unless a lease or a hold keeps the LSN. */
NODISCARD err_t history_check_locked(
    const struct history *history,
    const struct history_timeline *tl,
    lsn_t lsn,
    struct errmsg *msg);

/* -- history_rows.c; without the lock; errors are the store's -- */

/* Durable when it returns; an older row of the same number is replaced. */
NODISCARD err_t history_write_lease(
    struct page_store *store, const struct history_lease *lease, struct errmsg *msg);
/* What compactions may rely on from now on: after a crash, and in a copy of the store. */
NODISCARD err_t history_write_settled(
    struct page_store *store, const struct meta_change *changes, size_t count, struct errmsg *msg);

/* -- history_leases.c; the lock is held -- */

/* Copied. Who puts a new one has looked at LEASES_MAX, and for one of the same name. */
void history_append_lease(struct history *history, const struct history_lease *lease);
/* Leases of timelines that are gone: their rows go when the versions are erased. NULL: of all that
 * the history does not know. */
void history_void_leases_of(struct history *history, const struct history_timeline *gone);
/* With the history: nobody comes any more. */
void history_free_leases(struct history *history);
