#include "control/act/store.h"

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/metric.h"

METRIC_COUNTER(changes_total, "control_catalog_changes_total", "changes committed to the catalog");
METRIC_HISTOGRAM(
    commit_seconds, "control_catalog_commit_seconds", "time of one synced commit of the catalog");

struct change_row {
    enum row_kind kind;
    bool deleted;
    union any_row *row; /* row_size(kind) bytes, with references */
    void *object;       /* once it was applied */
};

struct store {
    struct loop *loop;
    struct executor *executor;
    struct catalog *catalog;
    struct model model;
    struct list watchers;

    struct list waiting;
    struct change *current; /* its rows are being committed */
    struct loop_task turn;
    bool turn_posted;

    struct job job;
    struct catalog_entry *entries;
    size_t entry_count;
    mono_ns_t commit_began;
    struct timer held_timer; /* while a commit runs */
    struct job snapshot_job;
    bool snapshot_runs;
};

/*
 * A commit that takes this long is held back by the object store or a full disk. Changes that wait
 * for their turn have decided nothing yet: they are told to come again.
 */
#define HELD_AFTER_MS 5000
#define HELD_AGAIN_MS 1000

static void on_turn(struct loop_task *task);
static void on_held(struct timer *timer);

static err_t load_row(
    void *context, enum row_kind kind, const union any_row *row, struct errmsg *msg)
{
    void *object = NULL;
    return model_apply(context, kind, row, &object, msg);
}

err_t store_open(
    struct loop *loop,
    struct executor *executor,
    const struct catalog_options *options,
    struct store **ret_store,
    struct errmsg *msg)
{
    struct store *store = MEM_NEW(struct store);
    store->loop = loop;
    store->executor = executor;
    store->turn.run = on_turn;
    store->held_timer.on_fire = on_held;
    list_init(&store->waiting);
    list_init(&store->watchers);
    model_init(&store->model);
    err_t err = catalog_open(options, &store->catalog, msg);
    if (err == ERR_OK) {
        err = catalog_load(store->catalog, load_row, &store->model, msg);
    }
    if (err == ERR_OK) {
        err = model_link_all(&store->model, msg);
    }
    if (err != ERR_OK) {
        store_close(store);
        return err;
    }
    *ret_store = store;
    return ERR_OK;
}

void store_close(struct store *store)
{
    if (store != NULL) {
        ASSERT(store->current == NULL && !store->snapshot_runs);
        catalog_close(store->catalog);
        model_deinit(&store->model);
        mem_free(store);
    }
}

struct model *store_model(struct store *store)
{
    return &store->model;
}

bool store_is_idle(const struct store *store)
{
    return store->current == NULL && list_is_empty(&store->waiting) && !store->snapshot_runs;
}

void store_cancel(struct store *store)
{
    catalog_cancel(store->catalog);
}

void store_trouble(struct store *store, struct buf *to)
{
    catalog_trouble(store->catalog, to);
}

void store_watch(struct store *store, struct store_watcher *watcher)
{
    list_push_back(&store->watchers, &watcher->in_store);
}

void store_unwatch(struct store_watcher *watcher)
{
    list_remove(&watcher->in_store);
}

static void take_turn(struct store *store)
{
    if (store->current == NULL && !store->turn_posted && !list_is_empty(&store->waiting)) {
        store->turn_posted = true;
        loop_post(store->loop, &store->turn);
    }
}

void store_submit(struct store *store, struct change *change)
{
    change->rows = NULL;
    change->count = change->capacity = 0;
    list_push_back(&store->waiting, &change->link);
    take_turn(store);
}

static struct change_row *add_row(struct change *change, enum row_kind kind, const void *row)
{
    if (change->count == change->capacity) {
        change->capacity = change->capacity == 0 ? 4 : change->capacity * 2;
        change->rows = mem_realloc(change->rows, change->capacity * sizeof change->rows[0]);
    }
    struct change_row *added = &change->rows[change->count++];
    *added = (struct change_row){.kind = kind, .row = mem_dup(row, row_size(kind))};
    row_ref(kind, added->row);
    return added;
}

void store_put(struct store *store, struct change *change, enum row_kind kind, void *row)
{
    struct row_head *head = row;
    head->updated_at = clock_wall();
    if (head->version == 0) {
        head->seq = ++store->model.seq_last;
        head->created_at = head->updated_at;
    }
    add_row(change, kind, row);
}

void store_delete(struct store *store, struct change *change, enum row_kind kind, const void *row)
{
    (void)store;
    add_row(change, kind, row)->deleted = true;
}

static void drop_rows(struct change *change)
{
    for (size_t i = 0; i < change->count; i++) {
        row_unref(change->rows[i].kind, change->rows[i].row);
        mem_free(change->rows[i].row);
    }
    mem_free(change->rows);
    change->rows = NULL;
    change->count = change->capacity = 0;
}

static void apply(struct store *store, struct change_row *row)
{
    struct errmsg msg = {0};
    if (row->deleted) {
        model_remove(&store->model, row->kind, row->row->head.id);
        return;
    }
    row->row->head.version++;
    if (model_apply(&store->model, row->kind, row->row, &row->object, &msg) != ERR_OK) {
        fatal("a committed row does not fit into the model: %s", msg.text);
    }
}

static void tell_watchers(struct store *store, const struct change_row *row)
{
    LIST_FOR_EACH(&store->watchers, link)
    {
        struct store_watcher *watcher = CONTAINER_OF(link, struct store_watcher, in_store);
        if (row->deleted) {
            watcher->on_removed(watcher, row->kind, row->row);
        } else if (row->object != NULL) {
            watcher->on_applied(watcher, row->kind, row->object);
        }
    }
}

/* All rows, then their links, and only then is anybody told: it would look at half a change. */
static void apply_all(struct store *store, struct change *change)
{
    struct errmsg msg = {0};
    for (size_t i = 0; i < change->count; i++) {
        apply(store, &change->rows[i]);
    }
    for (size_t i = 0; i < change->count; i++) {
        const struct change_row *row = &change->rows[i];
        if (row->kind == ROW_BRANCH && !row->deleted &&
            model_link(&store->model, row->object, &msg) != ERR_OK) {
            fatal("a committed row does not fit into the model: %s", msg.text);
        }
    }
    for (size_t i = 0; i < change->count; i++) {
        tell_watchers(store, &change->rows[i]);
    }
}

static void finish(struct store *store, struct change *change, err_t result, struct errmsg *msg)
{
    drop_rows(change);
    change->done(change, result, msg); /* it may be gone from here on */
    take_turn(store);
}

static void on_held(struct timer *timer)
{
    struct store *store = CONTAINER_OF(timer, struct store, held_timer);
    struct buf why = {0};
    struct errmsg msg;
    catalog_trouble(store->catalog, &why);
    err_ignore(
        err_set(&msg, ERR_BUSY, "%s", why.size > 0 ? buf_cstr(&why) : "the catalog is slow"),
        "for those that wait");
    buf_deinit(&why);
    timer_start(store->loop, timer, HELD_AGAIN_MS);
    struct list held;
    list_init(&held);
    struct list_link *link;
    while ((link = list_pop_front(&store->waiting)) != NULL) {
        list_push_back(&held, link);
    }
    while ((link = list_pop_front(&held)) != NULL) {
        struct change *change = CONTAINER_OF(link, struct change, link);
        change->done(change, ERR_BUSY, &msg); /* it may come again at once: then it waits */
    }
}

static err_t run_snapshot(struct job *job)
{
    return catalog_snapshot(CONTAINER_OF(job, struct store, snapshot_job)->catalog, &job->msg);
}

static void on_snapshot(struct job *job)
{
    struct store *store = CONTAINER_OF(job, struct store, snapshot_job);
    store->snapshot_runs = false;
    if (job->result != ERR_OK) {
        log_warn(NULL, "catalog: %s; the next one is due after as many changes", job->msg.text);
    }
}

static void snapshot_when_due(struct store *store)
{
    if (!store->snapshot_runs && catalog_wants_snapshot(store->catalog)) {
        store->snapshot_runs = true;
        store->snapshot_job = (struct job){.run = run_snapshot, .done = on_snapshot};
        executor_submit(store->executor, &store->snapshot_job);
    }
}

static err_t run_commit(struct job *job)
{
    struct store *store = CONTAINER_OF(job, struct store, job);
    return store->entry_count == 0
               ? catalog_confirm(store->catalog, &job->msg)
               : catalog_commit(store->catalog, store->entries, store->entry_count, &job->msg);
}

static void on_committed(struct job *job)
{
    struct store *store = CONTAINER_OF(job, struct store, job);
    struct change *change = store->current;
    if (store->entry_count > 0) {
        metric_observe_ns(&commit_seconds, clock_mono() - store->commit_began);
        metric_add(&changes_total, job->result == ERR_OK ? 1 : 0);
    }
    timer_stop(&store->held_timer);
    for (size_t i = 0; i < store->entry_count; i++) {
        catalog_entry_deinit(&store->entries[i]);
    }
    mem_free(store->entries);
    store->entries = NULL;
    store->current = NULL;
    if (job->result == ERR_OK) {
        apply_all(store, change);
        snapshot_when_due(store);
    } else {
        log_error(NULL, "catalog: %s", job->msg.text);
    }
    finish(store, change, job->result, &job->msg);
}

static void on_turn(struct loop_task *task)
{
    struct store *store = CONTAINER_OF(task, struct store, turn);
    store->turn_posted = false;
    struct list_link *first = store->current == NULL ? list_pop_front(&store->waiting) : NULL;
    if (first == NULL) {
        return;
    }
    struct change *change = CONTAINER_OF(first, struct change, link);
    struct errmsg msg = {0};
    err_t err = change->prepare(change, &msg);
    if (err != ERR_OK || (change->count == 0 && !change->confirms)) {
        finish(store, change, err, &msg);
        return;
    }
    store->current = change;
    store->entry_count = change->count;
    store->entries = MEM_ARRAY(struct catalog_entry, change->count);
    for (size_t i = 0; i < change->count; i++) {
        const struct change_row *row = &change->rows[i];
        if (row->deleted) {
            catalog_entry_delete(&store->entries[i], row->kind, row->row);
        } else {
            catalog_entry_put(&store->entries[i], row->kind, row->row);
        }
    }
    store->commit_began = clock_mono();
    timer_start(store->loop, &store->held_timer, HELD_AFTER_MS);
    store->job = (struct job){.run = run_commit, .done = on_committed};
    executor_submit(store->executor, &store->job);
}
