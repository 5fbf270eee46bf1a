/*
 * branch_start.h - from what a user asked for to the branch and LSN where a new branch begins.
 */
#pragma once

#include "control/api/api_private.h"

/* Where the request says it: a create in body.branch, a restore in the body itself. */
struct branch_start_keys {
    const char *object; /* member of the body that holds the others; NULL: the body */
    const char *parent, *lsn, *time;
};

/*
 * Reads the members, fills in mutation->parent_id, start_lsn and parent_timestamp, and submits the
 * mutation; or fails it.
 *
 * Without a parent the default branch. Without an LSN or time the head. An LSN before the parent's
 * begin lies in an ancestor's history: the ancestor that covers it becomes the parent. `keys` are
 * named in what is refused, and outlive the request.
 */
void branch_start_find(struct mutation *mutation, const struct branch_start_keys *keys);

/*
 * In decide: the branch that was found. An LSN means something in one history only, so 409
 * PARENT_CHANGED when the branch has another timeline by now: it was restored or reset meanwhile.
 */
NODISCARD err_t
branch_start_parent(struct mutation *mutation, struct branch **ret_parent, struct errmsg *msg);
