/*
 * store.h - model and catalog as one: every change of the model goes through here.
 *
 * Changes take turns. At its turn a change looks at the model and puts rows (prepare), a worker
 * commits them, and only then the model has them and the change is done. So a prepare always sees
 * every earlier change, and nothing is visible or acted upon that is not durable.
 * Threads: loop only.
 */
#pragma once

#include "common/io/executor.h"
#include "common/io/timer.h"
#include "control/catalog/catalog.h"
#include "control/model/model.h"

struct store;

struct change {
    /* Look at the model and put rows. An error ends the change with it; no rows is fine. */
    err_t (*prepare)(struct change *change, struct errmsg *msg);
    /*
     * Also without rows it is done only when no other control writes the catalog, else ERR_STALE.
     */
    bool confirms;
    /* Once, on the loop, never from inside store_submit. Then the change is the caller's again. */
    void (*done)(struct change *change, err_t result, const struct errmsg *msg);

    /* private */
    struct list_link link;
    struct change_row *rows;
    size_t count, capacity;
};

/* Told of every object after it changed or went, and before the change is done. */
struct store_watcher {
    struct list_link in_store; /* private */
    void (*on_applied)(struct store_watcher *watcher, enum row_kind kind, void *object);
    void (*on_removed)(struct store_watcher *watcher, enum row_kind kind, const union any_row *row);
};

/* Blocking: opens and loads the catalog. */
NODISCARD err_t store_open(
    struct loop *loop,
    struct executor *executor,
    const struct catalog_options *options,
    struct store **ret_store,
    struct errmsg *msg);
void store_close(struct store *store); /* it must be idle */

struct model *store_model(struct store *store);
bool store_is_idle(const struct store *store);
/* What waits for the object store ends: its change is made, or not, at the next start. */
void store_cancel(struct store *store);
/* Why no change is made, appended; nothing when all is well. */
void store_trouble(struct store *store, struct buf *to);
/* Watchers are told in the order in which they came. */
void store_watch(struct store *store, struct store_watcher *watcher);
void store_unwatch(struct store_watcher *watcher);

void store_submit(struct store *store, struct change *change);

/*
 * Inside prepare. The row is copied with references. A new row (version 0) gets its seq here; the
 * times are set here too. One change puts a row at most once.
 */
void store_put(struct store *store, struct change *change, enum row_kind kind, void *row);
void store_delete(struct store *store, struct change *change, enum row_kind kind, const void *row);
