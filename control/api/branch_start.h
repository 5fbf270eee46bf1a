/*
 * branch_start.h - from what a user asked for to the branch and LSN where a new branch begins.
 */
#pragma once

#include "control/api/api_private.h"

/*
 * Reads body.branch {parent_id, parent_lsn, parent_timestamp}, fills in mutation->parent_id,
 * start_lsn and parent_timestamp, and submits the mutation; or fails it.
 *
 * Without parent_id the default branch. Without an LSN or time the head. An LSN before the parent's
 * begin lies in an ancestor's history: the ancestor that covers it becomes the parent.
 */
void branch_start_find(struct mutation *mutation);
