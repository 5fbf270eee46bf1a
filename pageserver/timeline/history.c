#include "pageserver/timeline/history.h"

#include <pthread.h>

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "common/base/str.h"
#include "common/wire/codec.h"

METRIC_GAUGE(lease_count, "pageserver_leases", "leases that keep history");

#define LEASE_ROW_FORMAT 1
#define LEASE_ROW_FIELDS(X)                                                                        \
    X(u16, format)                                                                                 \
    X(u32, timeline)                                                                               \
    X(u64, lsn)                                                                                    \
    X(u64, expires_us)                                                                             \
    X(bytes, name)
WIRE_DECLARE(lease_row, LEASE_ROW_FIELDS);
WIRE_DEFINE(lease_row, LEASE_ROW_FIELDS)

#define RETENTION_ROW_FORMAT 1
#define RETENTION_ROW_FIELDS(X)                                                                    \
    X(u16, format)                                                                                 \
    X(u64, seconds)                                                                                \
    X(u64, wal_bytes)
WIRE_DECLARE(retention_row, RETENTION_ROW_FIELDS);
WIRE_DEFINE(retention_row, RETENTION_ROW_FIELDS)

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

static void lock(struct history *history)
{
    int result = pthread_mutex_lock(&history->lock);
    ASSERT(result == 0);
}

static void unlock(struct history *history)
{
    int result = pthread_mutex_unlock(&history->lock);
    ASSERT(result == 0);
}

/* -- the tree -- */

static size_t place_of(const struct history *history, uint32_t number)
{
    size_t begin = 0, end = history->timeline_count;
    while (begin < end) {
        size_t middle = begin + (end - begin) / 2;
        if (history->timelines[middle]->gc.number < number) {
            begin = middle + 1;
        } else {
            end = middle;
        }
    }
    return begin;
}

/* NULL: unknown. */
static struct history_timeline *find(const struct history *history, uint32_t number)
{
    size_t place = place_of(history, number);
    bool found = place < history->timeline_count && history->timelines[place]->gc.number == number;
    return found ? history->timelines[place] : NULL;
}

static const struct history_timeline *owner_of(
    const struct history *history, const struct history_timeline *tl, lsn_t lsn)
{
    while (lsn < tl->gc.start_lsn && tl->gc.parent_number != 0) {
        tl = find(history, tl->gc.parent_number);
        ASSERT(tl != NULL); /* a parent stays at least as a tombstone */
    }
    return tl;
}

/* -- what may be read; the lock is held -- */

static bool is_held_at(
    const struct history *history, const struct history_timeline *owner, lsn_t lsn)
{
    for (size_t i = 0; i < history->lease_count; i++) {
        const struct history_lease *lease = &history->leases[i];
        if (lease->lsn == lsn && owner_of(history, find(history, lease->timeline), lsn) == owner) {
            return true;
        }
    }
    LIST_FOR_EACH(&history->holds, link)
    {
        const struct history_hold *hold = CONTAINER_OF(link, struct history_hold, link);
        if (hold->lsn == lsn && owner_of(history, find(history, hold->timeline), lsn) == owner) {
            return true;
        }
    }
    return false;
}

/* Within what the owner keeps of itself, whatever is held besides. */
static err_t check_window(const struct history_timeline *owner, lsn_t lsn, struct errmsg *msg)
{
    if (lsn < owner->gc.start_lsn) {
        return err_set(
            msg, ERR_RANGE, "LSN " LSN_FMT " is below the begin of history " LSN_FMT, LSN_ARGS(lsn),
            LSN_ARGS(owner->gc.start_lsn));
    }
    if (owner->gc.is_tombstone) {
        return err_set(
            msg, ERR_RANGE, "LSN " LSN_FMT " lies in a timeline that was deleted", LSN_ARGS(lsn));
    }
    return lsn >= owner->gc.cutoff
               ? ERR_OK
               : err_set(
                     msg, ERR_RANGE,
                     "LSN " LSN_FMT " is not kept any more: history begins at " LSN_FMT,
                     LSN_ARGS(lsn), LSN_ARGS(owner->gc.cutoff));
}

static err_t check(
    const struct history *history, const struct history_timeline *tl, lsn_t lsn, struct errmsg *msg)
{
    const struct history_timeline *owner = owner_of(history, tl, lsn);
    err_t err = check_window(owner, lsn, msg);
    bool is_held = err != ERR_OK && lsn >= owner->gc.start_lsn && is_held_at(history, owner, lsn);
    return is_held ? ERR_OK : err;
}

err_t history_check_window(
    struct history *history, const struct history_timeline *tl, lsn_t lsn, struct errmsg *msg)
{
    lock(history);
    err_t err = check_window(owner_of(history, tl, lsn), lsn, msg);
    unlock(history);
    return err;
}

err_t history_check(
    struct history *history, const struct history_timeline *tl, lsn_t lsn, struct errmsg *msg)
{
    if (lsn >= tl->gc.start_lsn && lsn >= atomic_load(&tl->published)) {
        return ERR_OK;
    }
    lock(history);
    err_t err = check(history, tl, lsn, msg);
    unlock(history);
    return err;
}

err_t history_hold(
    struct history *history,
    const struct history_timeline *tl,
    lsn_t lsn,
    struct history_hold *hold,
    struct errmsg *msg)
{
    lock(history);
    err_t err = check(history, tl, lsn, msg);
    if (err == ERR_OK) {
        *hold = (struct history_hold){.timeline = tl->gc.number, .lsn = lsn};
        list_push_back(&history->holds, &hold->link);
    }
    unlock(history);
    return err;
}

void history_release(struct history *history, struct history_hold *hold)
{
    lock(history);
    list_remove(&hold->link);
    unlock(history);
}

/* -- the horizon -- */

static struct gc_tree *copy_tree(const struct history *history)
{
    size_t hold_count = history->lease_count;
    LIST_FOR_EACH(&history->holds, link)
    {
        hold_count++;
    }
    struct gc_tree *tree = MEM_NEW(struct gc_tree);
    struct gc_timeline *timelines = MEM_ARRAY(struct gc_timeline, history->timeline_count + 1);
    struct gc_hold *holds = MEM_ARRAY(struct gc_hold, hold_count + 1);
    for (size_t i = 0; i < history->timeline_count; i++) {
        timelines[i] = history->timelines[i]->gc;
    }
    size_t count = 0;
    for (; count < history->lease_count; count++) {
        const struct history_lease *lease = &history->leases[count];
        holds[count] = (struct gc_hold){.timeline = lease->timeline, .lsn = lease->lsn};
    }
    LIST_FOR_EACH(&history->holds, link)
    {
        const struct history_hold *hold = CONTAINER_OF(link, struct history_hold, link);
        holds[count++] = (struct gc_hold){.timeline = hold->timeline, .lsn = hold->lsn};
    }
    *tree = (struct gc_tree){
        .next_number = history->next_number,
        .timelines = timelines,
        .timeline_count = history->timeline_count,
        .holds = holds,
        .hold_count = hold_count,
    };
    return tree;
}

struct gc_tree *history_tree(struct history *history)
{
    lock(history);
    struct gc_tree *tree = copy_tree(history);
    unlock(history);
    return tree;
}

void history_tree_free(struct gc_tree *tree)
{
    mem_free((void *)tree->timelines);
    mem_free((void *)tree->holds);
    mem_free(tree);
}

static struct gc_horizon *take_horizon(struct gc_source *source)
{
    struct history *history = CONTAINER_OF(source, struct history, source);
    lock(history);
    struct gc_tree *tree = history->is_started ? copy_tree(history) : NULL;
    unlock(history);
    if (tree == NULL) {
        return NULL;
    }
    struct gc_horizon *horizon = gc_horizon_create(tree->timeline_count, tree->hold_count);
    gc_horizon_compute(tree, horizon);
    history_tree_free(tree);
    return horizon;
}

static void put_back_horizon(struct gc_source *source, struct gc_horizon *horizon)
{
    (void)source;
    gc_horizon_destroy(horizon);
}

struct gc_source *history_gc_source(struct history *history)
{
    return &history->source;
}

/* -- life -- */

struct history *history_create(struct history_retention defaults)
{
    struct history *history = MEM_NEW(struct history);
    int result = pthread_mutex_init(&history->lock, NULL);
    ASSERT(result == 0);
    history->source = (struct gc_source){.take = take_horizon, .put_back = put_back_horizon};
    history->retention = defaults;
    history->next_lease = 1;
    list_init(&history->holds);
    return history;
}

void history_destroy(struct history *history)
{
    if (history == NULL) {
        return;
    }
    metric_add(&lease_count, -(int64_t)history->lease_count);
    for (size_t i = 0; i < history->timeline_count; i++) {
        mem_free(history->timelines[i]);
    }
    mem_free(history->timelines);
    mem_free(history->leases);
    mem_free(history->loaded);
    int result = pthread_mutex_destroy(&history->lock);
    ASSERT(result == 0);
    mem_free(history);
}

static void append_lease(struct history *history, const struct history_lease *lease)
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

static err_t load_retention(struct history *history, struct page_store *store, struct errmsg *msg)
{
    struct buf bytes = {0};
    err_t err = page_store_meta_get(store, META_RETENTION, 0, &bytes, msg);
    if (err == ERR_OK) {
        struct retention_row row;
        struct reader in = reader_of(buf_view(&bytes));
        err = retention_row_decode(&row, &in);
        if (err != ERR_OK || row.format != RETENTION_ROW_FORMAT) {
            err = err_set(msg, ERR_CORRUPT, "row of the retention is malformed");
        } else {
            history->retention =
                (struct history_retention){.seconds = row.seconds, .wal_bytes = row.wal_bytes};
        }
    }
    buf_deinit(&bytes);
    return err == ERR_NOT_FOUND ? ERR_OK : err;
}

static err_t load_cutoff(uint32_t id, struct bytes value, void *context, struct errmsg *msg)
{
    struct history *history = context;
    struct reader in = reader_of(value);
    lsn_t lsn = get_u64(&in);
    if (in.bad || in.left > 0) {
        return err_set(msg, ERR_CORRUPT, "cutoff of timeline number %" PRIu32 " is malformed", id);
    }
    history->loaded =
        mem_realloc(history->loaded, (history->loaded_count + 1) * sizeof(history->loaded[0]));
    history->loaded[history->loaded_count++] = (struct cutoff_row){.timeline = id, .lsn = lsn};
    return ERR_OK;
}

static err_t load_lease(uint32_t id, struct bytes value, void *context, struct errmsg *msg)
{
    struct history *history = context;
    struct lease_row row;
    struct reader in = reader_of(value);
    err_t err = lease_row_decode(&row, &in);
    if (err != ERR_OK || row.format != LEASE_ROW_FORMAT || row.name.size >= LEASE_NAME_SIZE) {
        return err_set(msg, ERR_CORRUPT, "row of lease %" PRIu32 " is malformed", id);
    }
    struct history_lease lease = {
        .number = id, .timeline = row.timeline, .lsn = row.lsn, .expires_us = row.expires_us};
    memcpy(lease.name, row.name.data, row.name.size);
    append_lease(history, &lease);
    history->next_lease = MAX_OF(history->next_lease, id + 1);
    return ERR_OK;
}

err_t history_load(struct history *history, struct page_store *store, struct errmsg *msg)
{
    ASSERT(!history->is_started);
    TRY(load_retention(history, store, msg));
    TRY(page_store_meta_list(store, META_CUTOFF, load_cutoff, history, msg));
    return page_store_meta_list(store, META_LEASE, load_lease, history, msg);
}

/* Leases of timelines that are gone: their rows go when the versions are erased. */
static void void_leases_of(struct history *history, const struct history_timeline *gone)
{
    for (size_t i = 0; i < history->lease_count;) {
        const struct history_timeline *tl = find(history, history->leases[i].timeline);
        if (tl == gone) {
            remove_lease_at(history, i);
        } else {
            i++;
        }
    }
}

void history_start(struct history *history, uint32_t next_number)
{
    lock(history);
    ASSERT(!history->is_started);
    void_leases_of(history, NULL);
    for (size_t i = 0; i < history->timeline_count; i++) {
        if (history->timelines[i]->gc.is_tombstone) {
            void_leases_of(history, history->timelines[i]);
        }
    }
    history->next_number = MAX_OF(history->next_number, next_number);
    history->is_started = true;
    mem_free(history->loaded);
    history->loaded = NULL;
    history->loaded_count = 0;
    unlock(history);
}

/* Rows are listed in order of the number. */
static lsn_t loaded_cutoff(const struct history *history, uint32_t number)
{
    size_t begin = 0, end = history->loaded_count;
    while (begin < end) {
        size_t middle = begin + (end - begin) / 2;
        if (history->loaded[middle].timeline < number) {
            begin = middle + 1;
        } else {
            end = middle;
        }
    }
    bool found = begin < history->loaded_count && history->loaded[begin].timeline == number;
    return found ? history->loaded[begin].lsn : 0;
}

struct history_timeline *history_add(struct history *history, const struct gc_timeline *timeline)
{
    struct history_timeline *tl = MEM_NEW(struct history_timeline);
    lock(history);
    tl->gc = *timeline;
    lsn_t cutoff = MAX_OF(timeline->cutoff, loaded_cutoff(history, timeline->number));
    tl->gc.cutoff = MAX_OF(cutoff, timeline->start_lsn);
    atomic_store(&tl->published, timeline->is_tombstone ? UINT64_MAX : tl->gc.cutoff);
    if (history->timeline_count == history->timeline_capacity) {
        history->timeline_capacity =
            history->timeline_capacity == 0 ? 16 : 2 * history->timeline_capacity;
        history->timelines = mem_realloc(
            history->timelines, history->timeline_capacity * sizeof(history->timelines[0]));
    }
    size_t place = place_of(history, timeline->number);
    memmove(
        &history->timelines[place + 1], &history->timelines[place],
        (history->timeline_count - place) * sizeof(history->timelines[0]));
    history->timelines[place] = tl;
    history->timeline_count++;
    history->next_number = MAX_OF(history->next_number, timeline->number + 1);
    unlock(history);
    return tl;
}

void history_remove(struct history *history, struct history_timeline *tl)
{
    lock(history);
    void_leases_of(history, tl);
    size_t place = place_of(history, tl->gc.number);
    ASSERT(history->timelines[place] == tl);
    history->timeline_count--;
    memmove(
        &history->timelines[place], &history->timelines[place + 1],
        (history->timeline_count - place) * sizeof(history->timelines[0]));
    unlock(history);
    mem_free(tl);
}

void history_set_tombstone(struct history *history, struct history_timeline *tl)
{
    lock(history);
    tl->gc.is_tombstone = true;
    atomic_store(&tl->published, UINT64_MAX); /* no read without the lock any more */
    void_leases_of(history, tl);
    unlock(history);
}

void history_set_durable(struct history *history, struct history_timeline *tl, lsn_t lsn)
{
    lock(history);
    tl->gc.durable_lsn = MAX_OF(tl->gc.durable_lsn, lsn);
    unlock(history);
}

lsn_t history_cutoff(const struct history_timeline *tl)
{
    return atomic_load(&tl->published);
}

/* -- rows -- */

struct row_changes {
    struct meta_change *items;
    size_t count;
    uint32_t timeline;
};

static void add_change(struct row_changes *changes, struct meta_change change)
{
    changes->items = mem_realloc(changes->items, (changes->count + 1) * sizeof(changes->items[0]));
    changes->items[changes->count++] = change;
}

static err_t add_if_of_timeline(uint32_t id, struct bytes value, void *context, struct errmsg *msg)
{
    struct row_changes *changes = context;
    struct lease_row row;
    struct reader in = reader_of(value);
    if (lease_row_decode(&row, &in) != ERR_OK) {
        return err_set(msg, ERR_CORRUPT, "row of lease %" PRIu32 " is malformed", id);
    }
    if (row.timeline == changes->timeline) {
        add_change(changes, (struct meta_change){.kind = META_LEASE, .id = id});
    }
    return ERR_OK;
}

err_t history_erase_rows(
    struct history *history, struct page_store *store, uint32_t timeline, struct errmsg *msg)
{
    (void)history;
    struct row_changes changes = {.timeline = timeline};
    add_change(&changes, (struct meta_change){.kind = META_CUTOFF, .id = timeline});
    err_t err = page_store_meta_list(store, META_LEASE, add_if_of_timeline, &changes, msg);
    if (err == ERR_OK) {
        err = page_store_meta_write(store, changes.items, changes.count, msg);
    }
    mem_free(changes.items);
    return err;
}

static err_t write_lease(
    struct page_store *store, const struct history_lease *lease, struct errmsg *msg)
{
    struct lease_row row = {
        .format = LEASE_ROW_FORMAT,
        .timeline = lease->timeline,
        .lsn = lease->lsn,
        .expires_us = lease->expires_us,
        .name = bytes_of_str(lease->name),
    };
    struct buf bytes = {0};
    size_t size = lease_row_size(&row);
    struct writer out = {.next = buf_extend(&bytes, size), .left = size};
    lease_row_encode(&row, &out);
    struct meta_change change = {
        .kind = META_LEASE, .id = lease->number, .value = buf_view(&bytes)};
    err_t err = page_store_meta_write(store, &change, 1, msg);
    buf_deinit(&bytes);
    return err;
}

/* -- leases -- */

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
    TRY(check(history, tl, lease->lsn, msg));
    lease->number = history->next_lease++;
    append_lease(history, lease);
    return ERR_OK;
}

static void settle_lease(struct history *history, const struct history_lease *lease, bool is_kept)
{
    lock(history);
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
    unlock(history);
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
    lock(history);
    err_t err = prepare_lease(history, tl, &lease, &is_new, msg);
    unlock(history);
    TRY(err);
    err = write_lease(store, &lease, msg);
    if (err == ERR_OK || is_new) {
        settle_lease(history, &lease, err == ERR_OK);
    }
    return err;
}

/* What compactions may rely on from now on: after a crash, and in a copy of the store. */
static err_t write_settled(
    struct page_store *store, const struct meta_change *changes, size_t count, struct errmsg *msg)
{
    if (count == 0) {
        return ERR_OK;
    }
    TRY(page_store_meta_write(store, changes, count, msg));
    return page_store_meta_settle(store, msg);
}

/* The row first: a lease that comes back after a crash must still hold what it says. */
static err_t drop_leases(
    struct history *history,
    struct page_store *store,
    const struct history_lease *leases,
    size_t count,
    struct errmsg *msg)
{
    struct row_changes changes = {0};
    for (size_t i = 0; i < count; i++) {
        add_change(&changes, (struct meta_change){.kind = META_LEASE, .id = leases[i].number});
    }
    err_t err = write_settled(store, changes.items, count, msg);
    for (size_t i = 0; i < count && err == ERR_OK; i++) {
        settle_lease(history, &leases[i], false);
    }
    mem_free(changes.items);
    return err;
}

err_t history_lease_drop(
    struct history *history,
    struct page_store *store,
    const struct history_timeline *tl,
    const char *name,
    struct errmsg *msg)
{
    lock(history);
    const struct history_lease *found = find_lease(history, tl->gc.number, name);
    struct history_lease lease = found == NULL ? (struct history_lease){0} : *found;
    unlock(history);
    if (found == NULL) {
        return err_set(msg, ERR_NOT_FOUND, "no lease %s", name);
    }
    return drop_leases(history, store, &lease, 1, msg);
}

err_t history_leases_expire(
    struct history *history, struct page_store *store, uint64_t now_us, struct errmsg *msg)
{
    lock(history);
    struct history_lease *expired = MEM_ARRAY(struct history_lease, history->lease_count + 1);
    size_t count = 0;
    for (size_t i = 0; i < history->lease_count; i++) {
        if (history->leases[i].expires_us <= now_us) {
            expired[count++] = history->leases[i];
        }
    }
    unlock(history);
    err_t err = drop_leases(history, store, expired, count, msg);
    mem_free(expired);
    return err;
}

void history_leases(
    struct history *history,
    const struct history_timeline *tl,
    void (*visit)(const struct history_lease *lease, void *context),
    void *context)
{
    lock(history);
    for (size_t i = 0; i < history->lease_count; i++) {
        if (history->leases[i].timeline == tl->gc.number) {
            visit(&history->leases[i], context);
        }
    }
    unlock(history);
}

/* -- the window -- */

struct history_retention history_retention(struct history *history)
{
    lock(history);
    struct history_retention retention = history->retention;
    unlock(history);
    return retention;
}

err_t history_set_retention(
    struct history *history,
    struct page_store *store,
    struct history_retention retention,
    struct errmsg *msg)
{
    struct retention_row row = {
        .format = RETENTION_ROW_FORMAT,
        .seconds = retention.seconds,
        .wal_bytes = retention.wal_bytes,
    };
    uint8_t bytes[64];
    struct writer out = {.next = bytes, .left = sizeof(bytes)};
    retention_row_encode(&row, &out);
    struct meta_change change = {
        .kind = META_RETENTION, .value = bytes_of(bytes, retention_row_size(&row))};
    TRY(page_store_meta_write(store, &change, 1, msg));
    lock(history);
    history->retention = retention;
    unlock(history);
    return ERR_OK;
}

static void publish(struct history *history, uint32_t number, lsn_t cutoff)
{
    struct history_timeline *tl = find(history, number);
    if (tl != NULL && tl->gc.cutoff < cutoff && !tl->gc.is_tombstone) { /* NULL: it went */
        tl->gc.cutoff = cutoff;
        atomic_store(&tl->published, cutoff);
    }
}

err_t history_move_cutoffs(
    struct history *history,
    struct page_store *store,
    const struct gc_tree *tree,
    const lsn_t *wanted,
    struct errmsg *msg)
{
    struct meta_change *changes = MEM_ARRAY(struct meta_change, tree->timeline_count + 1);
    uint64_t *cutoffs = MEM_ARRAY(uint64_t, tree->timeline_count + 1);
    size_t count = 0;
    for (size_t i = 0; i < tree->timeline_count; i++) {
        const struct gc_timeline *timeline = &tree->timelines[i];
        lsn_t cutoff = gc_next_cutoff(timeline, wanted[i]);
        if (!timeline->is_tombstone && cutoff > timeline->cutoff) {
            cutoffs[count] = htole64(cutoff);
            changes[count] = (struct meta_change){
                .kind = META_CUTOFF,
                .id = timeline->number,
                .value = bytes_of(&cutoffs[count], sizeof(cutoffs[0])),
            };
            count++;
        }
    }
    err_t err = write_settled(store, changes, count, msg);
    if (err == ERR_OK) {
        lock(history);
        for (size_t i = 0; i < count; i++) {
            publish(history, changes[i].id, le64toh(cutoffs[i]));
        }
        unlock(history);
    }
    mem_free(changes);
    mem_free(cutoffs);
    return err;
}

/* -- why is this kept -- */

typedef void (*visit_holder_fn)(const struct history_holder *holder, void *context);

static void explain_children(
    const struct history *history,
    const struct history_timeline *tl,
    visit_holder_fn visit,
    void *context)
{
    for (size_t i = 0; i < history->timeline_count; i++) {
        const struct gc_timeline *child = &history->timelines[i]->gc;
        if (child->parent_number != 0 &&
            owner_of(history, find(history, child->parent_number), child->start_lsn) == tl) {
            visit(
                &(struct history_holder){
                    .reason = HISTORY_BRANCH,
                    .lsn = child->start_lsn,
                    .timeline = child->number,
                    .name = "",
                },
                context);
        }
    }
}

void history_explain(
    struct history *history,
    const struct history_timeline *tl,
    visit_holder_fn visit,
    void *context)
{
    lock(history);
    visit(
        &(struct history_holder){
            .reason = tl->gc.is_tombstone ? HISTORY_TOMBSTONE : HISTORY_CUTOFF,
            .lsn = tl->gc.is_tombstone ? tl->gc.durable_lsn : tl->gc.cutoff,
            .timeline = tl->gc.number,
            .name = "",
        },
        context);
    explain_children(history, tl, visit, context);
    for (size_t i = 0; i < history->lease_count; i++) {
        const struct history_lease *lease = &history->leases[i];
        if (owner_of(history, find(history, lease->timeline), lease->lsn) == tl) {
            visit(
                &(struct history_holder){
                    .reason = HISTORY_LEASE,
                    .lsn = lease->lsn,
                    .timeline = lease->timeline,
                    .name = lease->name,
                },
                context);
        }
    }
    LIST_FOR_EACH(&history->holds, link)
    {
        const struct history_hold *hold = CONTAINER_OF(link, struct history_hold, link);
        if (owner_of(history, find(history, hold->timeline), hold->lsn) == tl) {
            visit(
                &(struct history_holder){
                    .reason = HISTORY_HOLD,
                    .lsn = hold->lsn,
                    .timeline = hold->timeline,
                    .name = "",
                },
                context);
        }
    }
    unlock(history);
}
