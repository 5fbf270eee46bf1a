#include "pageserver/timeline/gc_round.h"

#include "common/base/mem.h"
#include "common/pg/pg_version.h"

#define US_PER_S 1000000u

struct page_path *gc_path(const struct gc_tree *tree, size_t index)
{
    size_t count = 0;
    for (size_t at = index; at != SIZE_MAX; at = gc_find(tree, tree->timelines[at].parent_number)) {
        count++;
    }
    struct page_path *path = mem_zalloc(sizeof(*path) + count * sizeof(path->spans[0]));
    lsn_t max_lsn = UINT64_MAX;
    for (size_t at = index; at != SIZE_MAX; at = gc_find(tree, tree->timelines[at].parent_number)) {
        path->spans[path->count++] =
            (struct page_span){.timeline = tree->timelines[at].number, .max_lsn = max_lsn};
        max_lsn = MIN_OF(max_lsn, tree->timelines[at].start_lsn);
    }
    return path;
}

/* Microseconds since Postgres' epoch; times before it are all the same to us. */
static uint64_t window_time(struct history_retention retention, wall_us_t now)
{
    uint64_t us = now > PG_EPOCH_US ? (uint64_t)(now - PG_EPOCH_US) : 0;
    uint64_t window = MIN_OF(retention.seconds, UINT64_MAX / US_PER_S) * US_PER_S;
    return us > window ? us - window : 0;
}

err_t gc_window_begin(
    struct page_store *store,
    const struct gc_tree *tree,
    size_t index,
    struct history_retention retention,
    wall_us_t now,
    lsn_t *ret_lsn,
    struct errmsg *msg)
{
    const struct gc_timeline *timeline = &tree->timelines[index];
    lsn_t durable = timeline->durable_lsn;
    lsn_t begin = durable - MIN_OF(durable, retention.wal_bytes);
    if (retention.seconds > 0 && begin > timeline->cutoff) {
        struct page_path *path = gc_path(tree, index);
        struct page_reader *reader = page_reader_create(store, path);
        lsn_t commit = durable;
        err_t err =
            page_reader_commit_after(reader, window_time(retention, now), durable, &commit, msg);
        page_reader_destroy(reader);
        mem_free(path);
        if (err != ERR_OK && err != ERR_NOT_FOUND) { /* not found: nothing since then */
            return err;
        }
        begin = MIN_OF(begin, commit);
    }
    *ret_lsn = begin;
    return ERR_OK;
}

err_t gc_round(struct history *history, struct page_store *store, wall_us_t now, struct errmsg *msg)
{
    TRY(history_leases_expire(history, store, (uint64_t)now, msg));
    struct history_retention retention = history_retention(history);
    struct gc_tree *tree = history_tree(history);
    lsn_t *wanted = MEM_ARRAY(lsn_t, tree->timeline_count + 1);
    err_t err = ERR_OK;
    for (size_t i = 0; i < tree->timeline_count && err == ERR_OK; i++) {
        const struct gc_timeline *timeline = &tree->timelines[i];
        if (!timeline->is_tombstone && timeline->durable_lsn > timeline->cutoff) {
            err = gc_window_begin(store, tree, i, retention, now, &wanted[i], msg);
        }
    }
    if (err == ERR_OK) {
        err = history_move_cutoffs(history, store, tree, wanted, msg);
    }
    mem_free(wanted);
    history_tree_free(tree);
    return err;
}
