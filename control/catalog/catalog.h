/*
 * catalog.h - the durable truth of control: rows of control/model/row.h as JSON in one kv.
 *
 * Keys are "KIND/PROJECT/ID" ("project/ID", "image/ID", "key/ID", "host/ID"). A commit is one
 * atomic, synced batch; each row in it names the version that it replaces, and the whole commit is
 * refused with ERR_STALE when one of them has moved: what was decided on an old row is decided
 * again.
 *
 * With an object store every commit is an object there (changelog.h) before it is in the kv, and
 * from time to time all rows are: a lost disk loses nothing that was answered, and the kv is only
 * what the log says. Opening compares the two and writes a record of its own:
 *
 * - The log is ahead (control died in between, or the disk is an old copy): the kv follows.
 * - The log is behind the disk, or says something else: ERR_FAILED. It is an older copy, or another
 *   cluster's; what was issued since (generations) would be issued twice.
 * - The disk is empty, the log is not: ERR_NOT_FOUND says how to rebuild it (catalog_rebuild).
 * - Another control opens the same log: the next commit or confirmation of this one is ERR_STALE,
 *   as are all later.
 *
 * A store that does not answer holds the commit back until it does: what was sent may be there.
 * Blocking; commits come from one worker at a time (a lane), snapshots from another. Threads: one
 * at a time, but for what says [any].
 */
#pragma once

#include <stdatomic.h>

#include "control/model/row.h"

struct catalog;

struct catalog_options {
    const char *path;         /* folder of the kv */
    const char *object_store; /* as of objstore_open; "": no log, the disk is all there is */
    uint64_t snapshot_after;  /* commits; 0: 1,000 */
};

NODISCARD err_t catalog_open(
    const struct catalog_options *options, struct catalog **ret_catalog, struct errmsg *msg);
/* [any] A commit or snapshot that waits for the object store ends with ERR_CANCELED. */
void catalog_cancel(struct catalog *catalog);
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

/*
 * A commit of nothing: at some moment of the call nobody else had written the log. ERR_STALE:
 * another control has. Without a log it is ERR_OK. What must not be said by a control that was
 * replaced is said after it.
 */
NODISCARD err_t catalog_confirm(struct catalog *catalog, struct errmsg *msg);

/* [any] So many commits have been made since the last snapshot that another one is due. */
bool catalog_wants_snapshot(const struct catalog *catalog);
/* From any worker, one at a time, beside commits. Older ones go, and what of the log they cover. */
NODISCARD err_t catalog_snapshot(struct catalog *catalog, struct errmsg *msg);

/* [any] Why a commit is being held back, appended; nothing when none is. */
void catalog_trouble(struct catalog *catalog, struct buf *to);

/*
 * A new kv from the log, for a disk that was lost. `path` must not exist or be empty; it appears
 * whole. Any control that still writes is fenced off as soon as the new one opens it. Appends to
 * `report` what was found, a line each.
 */
NODISCARD err_t
catalog_rebuild(const struct catalog_options *options, struct buf *report, struct errmsg *msg);
