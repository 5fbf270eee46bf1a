/*
 * history.c - the tree of timelines: whose an LSN is, whether it may still be read, and what GC has
 * to keep for that.
 */
#include "pageserver/timeline/history.h"

#include <endian.h>

#include "common/base/mem.h"
#include "common/base/str.h"
#include "pageserver/timeline/history_private.h"

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

struct history_timeline *history_find(const struct history *history, uint32_t number)
{
    size_t place = place_of(history, number);
    bool found = place < history->timeline_count && history->timelines[place]->gc.number == number;
    return found ? history->timelines[place] : NULL;
}

const struct history_timeline *history_owner_of(
    const struct history *history, const struct history_timeline *tl, lsn_t lsn)
{
    while (lsn < tl->gc.start_lsn && tl->gc.parent_number != 0) {
        tl = history_find(history, tl->gc.parent_number);
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
        if (lease->lsn == lsn &&
            history_owner_of(history, history_find(history, lease->timeline), lsn) == owner) {
            return true;
        }
    }
    LIST_FOR_EACH(&history->holds, link)
    {
        const struct history_hold *hold = CONTAINER_OF(link, struct history_hold, link);
        if (hold->lsn == lsn &&
            history_owner_of(history, history_find(history, hold->timeline), lsn) == owner) {
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

err_t history_check_locked(
    const struct history *history, const struct history_timeline *tl, lsn_t lsn, struct errmsg *msg)
{
    const struct history_timeline *owner = history_owner_of(history, tl, lsn);
    err_t err = check_window(owner, lsn, msg);
    bool is_held = err != ERR_OK && lsn >= owner->gc.start_lsn && is_held_at(history, owner, lsn);
    return is_held ? ERR_OK : err;
}

err_t history_check_window(
    struct history *history, const struct history_timeline *tl, lsn_t lsn, struct errmsg *msg)
{
    history_lock(history);
    err_t err = check_window(history_owner_of(history, tl, lsn), lsn, msg);
    history_unlock(history);
    return err;
}

err_t history_check(
    struct history *history, const struct history_timeline *tl, lsn_t lsn, struct errmsg *msg)
{
    if (lsn >= tl->gc.start_lsn && lsn >= atomic_load(&tl->published)) {
        return ERR_OK;
    }
    history_lock(history);
    err_t err = history_check_locked(history, tl, lsn, msg);
    history_unlock(history);
    return err;
}

err_t history_hold(
    struct history *history,
    const struct history_timeline *tl,
    lsn_t lsn,
    struct history_hold *hold,
    struct errmsg *msg)
{
    history_lock(history);
    err_t err = history_check_locked(history, tl, lsn, msg);
    if (err == ERR_OK) {
        *hold = (struct history_hold){.timeline = tl->gc.number, .lsn = lsn};
        list_push_back(&history->holds, &hold->link);
    }
    history_unlock(history);
    return err;
}

void history_release(struct history *history, struct history_hold *hold)
{
    history_lock(history);
    list_remove(&hold->link);
    history_unlock(history);
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
    history_lock(history);
    struct gc_tree *tree = copy_tree(history);
    history_unlock(history);
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
    history_lock(history);
    struct gc_tree *tree = history->is_started ? copy_tree(history) : NULL;
    history_unlock(history);
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
    for (size_t i = 0; i < history->timeline_count; i++) {
        mem_free(history->timelines[i]);
    }
    mem_free(history->timelines);
    history_free_leases(history);
    mem_free(history->loaded);
    int result = pthread_mutex_destroy(&history->lock);
    ASSERT(result == 0);
    mem_free(history);
}

void history_start(struct history *history, uint32_t next_number)
{
    history_lock(history);
    ASSERT(!history->is_started);
    history_void_leases_of(history, NULL);
    for (size_t i = 0; i < history->timeline_count; i++) {
        if (history->timelines[i]->gc.is_tombstone) {
            history_void_leases_of(history, history->timelines[i]);
        }
    }
    history->next_number = MAX_OF(history->next_number, next_number);
    history->is_started = true;
    mem_free(history->loaded);
    history->loaded = NULL;
    history->loaded_count = 0;
    history_unlock(history);
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
    history_lock(history);
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
    history_unlock(history);
    return tl;
}

void history_remove(struct history *history, struct history_timeline *tl)
{
    history_lock(history);
    history_void_leases_of(history, tl);
    size_t place = place_of(history, tl->gc.number);
    ASSERT(history->timelines[place] == tl);
    history->timeline_count--;
    memmove(
        &history->timelines[place], &history->timelines[place + 1],
        (history->timeline_count - place) * sizeof(history->timelines[0]));
    history_unlock(history);
    mem_free(tl);
}

void history_set_tombstone(struct history *history, struct history_timeline *tl)
{
    history_lock(history);
    tl->gc.is_tombstone = true;
    atomic_store(&tl->published, UINT64_MAX); /* no read without the lock any more */
    history_void_leases_of(history, tl);
    history_unlock(history);
}

void history_set_durable(struct history *history, struct history_timeline *tl, lsn_t lsn)
{
    history_lock(history);
    tl->gc.durable_lsn = MAX_OF(tl->gc.durable_lsn, lsn);
    history_unlock(history);
}

/* -- the window -- */

struct history_retention history_retention(struct history *history)
{
    history_lock(history);
    struct history_retention retention = history->retention;
    history_unlock(history);
    return retention;
}

lsn_t history_cutoff(const struct history_timeline *tl)
{
    return atomic_load(&tl->published);
}

static void publish(struct history *history, uint32_t number, lsn_t cutoff)
{
    struct history_timeline *tl = history_find(history, number);
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
    err_t err = history_write_settled(store, changes, count, msg);
    if (err == ERR_OK) {
        history_lock(history);
        for (size_t i = 0; i < count; i++) {
            publish(history, changes[i].id, le64toh(cutoffs[i]));
        }
        history_unlock(history);
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
            history_owner_of(
                history, history_find(history, child->parent_number), child->start_lsn) == tl) {
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
    history_lock(history);
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
        if (history_owner_of(history, history_find(history, lease->timeline), lease->lsn) == tl) {
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
        if (history_owner_of(history, history_find(history, hold->timeline), hold->lsn) == tl) {
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
    history_unlock(history);
}
