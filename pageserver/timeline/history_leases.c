/*
 * history_leases.c - leases: LSNs that stay readable until a time.
 *
 * One is registered and validated under one lock and durable afterwards; it is gone from disk
 * before it is gone from memory. So whoever was told of a lease has it, after a crash too.
 */
#include "pageserver/timeline/history_private.h"

#include "common/base/mem.h"
#include "common/base/metric.h"

METRIC_GAUGE(lease_count, "pageserver_leases", "leases that keep history");

/* -- in memory; the lock is held -- */

void history_append_lease(struct history *history, const struct history_lease *lease)
{
    if (history->lease_count == history->lease_capacity) {
        history->lease_capacity = history->lease_capacity == 0 ? 16 : 2 * history->lease_capacity;
        history->leases =
            mem_realloc(history->leases, history->lease_capacity * sizeof(history->leases[0]));
    }
    history->leases[history->lease_count++] = *lease;
    metric_add(&lease_count, 1);
}

static void remove_lease_at(struct history *history, size_t index)
{
    history->leases[index] = history->leases[--history->lease_count];
    metric_add(&lease_count, -1);
}

void history_free_leases(struct history *history)
{
    metric_add(&lease_count, -(int64_t)history->lease_count);
    mem_free(history->leases);
}

void history_void_leases_of(struct history *history, const struct history_timeline *gone)
{
    for (size_t i = 0; i < history->lease_count;) {
        const struct history_timeline *tl = history_find(history, history->leases[i].timeline);
        if (tl == gone) {
            remove_lease_at(history, i);
        } else {
            i++;
        }
    }
}

static struct history_lease *find_lease(
    struct history *history, uint32_t timeline, const char *name)
{
    for (size_t i = 0; i < history->lease_count; i++) {
        struct history_lease *lease = &history->leases[i];
        if (lease->timeline == timeline && strcmp(lease->name, name) == 0) {
            return lease;
        }
    }
    return NULL;
}

/* -- put -- */

/* Registered and validated, not durable; an existing one as it will be. */
static err_t prepare_lease(
    struct history *history,
    const struct history_timeline *tl,
    struct history_lease *lease,
    bool *ret_is_new,
    struct errmsg *msg)
{
    const struct history_lease *existing = find_lease(history, tl->gc.number, lease->name);
    lease->timeline = tl->gc.number;
    *ret_is_new = existing == NULL;
    if (existing != NULL) {
        lease->number = existing->number;
        return existing->lsn == lease->lsn ? ERR_OK
                                           : err_set(
                                                 msg, ERR_EXISTS, "lease %s is of LSN " LSN_FMT,
                                                 lease->name, LSN_ARGS(existing->lsn));
    }
    if (tl->gc.is_tombstone) {
        return err_set(msg, ERR_NOT_FOUND, "the timeline was deleted");
    }
    if (history->lease_count >= LEASES_MAX) {
        return err_set(msg, ERR_BUSY, "limit of %d leases of a tenant", LEASES_MAX);
    }
    TRY(history_check_locked(history, tl, lease->lsn, msg));
    lease->number = history->next_lease++;
    history_append_lease(history, lease);
    return ERR_OK;
}

static void settle_lease(struct history *history, const struct history_lease *lease, bool is_kept)
{
    history_lock(history);
    for (size_t i = 0; i < history->lease_count; i++) {
        if (history->leases[i].number == lease->number) {
            if (is_kept) {
                history->leases[i] = *lease;
            } else {
                remove_lease_at(history, i);
            }
            break; /* none: its timeline was deleted meanwhile */
        }
    }
    history_unlock(history);
}

err_t history_lease_put(
    struct history *history,
    struct page_store *store,
    const struct history_timeline *tl,
    const struct history_lease *wanted,
    struct errmsg *msg)
{
    struct history_lease lease = *wanted;
    bool is_new;
    history_lock(history);
    err_t err = prepare_lease(history, tl, &lease, &is_new, msg);
    history_unlock(history);
    TRY(err);
    err = history_write_lease(store, &lease, msg);
    if (err == ERR_OK || is_new) {
        settle_lease(history, &lease, err == ERR_OK);
    }
    return err;
}

/* -- dropped -- */

/* The row first: a lease that comes back after a crash must still hold what it says. */
static err_t drop_leases(
    struct history *history,
    struct page_store *store,
    const struct history_lease *leases,
    size_t count,
    struct errmsg *msg)
{
    struct meta_change *changes = MEM_ARRAY(struct meta_change, count + 1);
    for (size_t i = 0; i < count; i++) {
        changes[i] = (struct meta_change){.kind = META_LEASE, .id = leases[i].number};
    }
    err_t err = history_write_settled(store, changes, count, msg);
    for (size_t i = 0; i < count && err == ERR_OK; i++) {
        settle_lease(history, &leases[i], false);
    }
    mem_free(changes);
    return err;
}

err_t history_lease_drop(
    struct history *history,
    struct page_store *store,
    const struct history_timeline *tl,
    const char *name,
    struct errmsg *msg)
{
    history_lock(history);
    const struct history_lease *found = find_lease(history, tl->gc.number, name);
    struct history_lease lease = found == NULL ? (struct history_lease){0} : *found;
    history_unlock(history);
    if (found == NULL) {
        return err_set(msg, ERR_NOT_FOUND, "no lease %s", name);
    }
    return drop_leases(history, store, &lease, 1, msg);
}

err_t history_leases_expire(
    struct history *history, struct page_store *store, uint64_t now_us, struct errmsg *msg)
{
    history_lock(history);
    struct history_lease *expired = MEM_ARRAY(struct history_lease, history->lease_count + 1);
    size_t count = 0;
    for (size_t i = 0; i < history->lease_count; i++) {
        if (history->leases[i].expires_us <= now_us) {
            expired[count++] = history->leases[i];
        }
    }
    history_unlock(history);
    err_t err = drop_leases(history, store, expired, count, msg);
    mem_free(expired);
    return err;
}

/* -- listed -- */

void history_leases(
    struct history *history,
    const struct history_timeline *tl,
    void (*visit)(const struct history_lease *lease, void *context),
    void *context)
{
    history_lock(history);
    for (size_t i = 0; i < history->lease_count; i++) {
        if (history->leases[i].timeline == tl->gc.number) {
            visit(&history->leases[i], context);
        }
    }
    history_unlock(history);
}
