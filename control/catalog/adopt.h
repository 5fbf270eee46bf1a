/*
 * adopt.h - branches for timelines that no branch knows, when a catalog is rebuilt.
 *
 * A timeline that a tenant's newest index has and no row names was deleted, or the change that made
 * its branch is lost. The index says where it comes from and who has its WAL (docs/protocol/
 * remote_index.md), so it becomes a branch `found-TIMELINE`: protected, with the roles and
 * databases of its parent, its first compute in quarantine. It is created nowhere (`is_found` in
 * control/model/row.h): one that was deleted is not ready again, and waits to be deleted.
 * Threads: one at a time.
 */
#pragma once

#include "control/catalog/catalog.h"
#include "control/catalog/leftovers.h"

struct adopter;

struct adopter *adopter_create(void);
void adopter_destroy(struct adopter *adopter); /* NULL is fine */

/* Every row of the catalog, before adopter_run. */
void adopter_note(struct adopter *adopter, enum row_kind kind, const union any_row *row);
/* Commits what it makes, claims it in `leftovers`, and appends a line for each. */
NODISCARD err_t adopter_run(
    struct adopter *adopter,
    struct catalog *catalog,
    struct leftovers *leftovers,
    struct buf *report,
    struct errmsg *msg);
