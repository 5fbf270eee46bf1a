/*
 * catalog.h - the durable truth of control: rows of control/model/row.h as JSON in one kv.
 *
 * Keys are "KIND/PROJECT/ID" ("project/ID", "image/ID"). A commit is one atomic, synced batch; each
 * row in it names the version that it replaces, and the whole commit is refused with ERR_STALE when
 * one of them has moved: what was decided on an old row is decided again.
 * Blocking; commits come from one worker at a time (a lane). Threads: one at a time.
 */
#pragma once

#include "control/model/row.h"

struct catalog;

NODISCARD err_t catalog_open(const char *path, struct catalog **ret_catalog, struct errmsg *msg);
void catalog_close(struct catalog *catalog); /* NULL is fine */

/* Every row, kind after kind, and within a kind in order of creation. Stops at the first error. */
typedef err_t (*catalog_visit_fn)(
    void *context, enum row_kind kind, const union any_row *row, struct errmsg *msg);
NODISCARD err_t
catalog_load(struct catalog *catalog, catalog_visit_fn visit, void *context, struct errmsg *msg);

/* A write or delete of one row, already encoded, so that a worker needs no rows. */
struct catalog_entry {
    struct buf key;
    struct buf value;          /* empty: delete */
    uint64_t replaces_version; /* 0: there must be none */
};

/* `row->head.version` is the version that is replaced; what is written carries the next one. */
void catalog_entry_put(struct catalog_entry *entry, enum row_kind kind, const union any_row *row);
void catalog_entry_delete(
    struct catalog_entry *entry, enum row_kind kind, const union any_row *row);
void catalog_entry_deinit(struct catalog_entry *entry);

NODISCARD err_t catalog_commit(
    struct catalog *catalog, const struct catalog_entry *entries, size_t count, struct errmsg *msg);
