/*
 * members.h - who votes on a branch's timeline, as its row says it, and how a change of that begins
 * and ends: docs/design/membership.md. Plain functions of the row and of what was answered.
 */
#pragma once

#include "control/model/model.h"

/* The newest membership that was written down: joint while a change is under way. */
struct membership branch_membership(const struct branch_row *row);

/* The greatest generation that a safekeeper may have heard of. */
uint64_t branch_generation(const struct branch_row *row);

/* Only the next set has it. */
bool membership_is_newcomer(const struct membership *membership, uint32_t index);

/* Who must not keep the timeline; of a branch that goes the newcomers too. At most LEFT_MAX. */
size_t branch_left(const struct branch *branch, uint64_t ids[LEFT_MAX]);

/* ERR_INVALID says why not. Does not look at the nodes; change_disks is the caller's. */
NODISCARD err_t
branch_begin_change(struct branch_row *row, const uint64_t *ids, size_t count, struct errmsg *msg);

/* The change is over, as `branch->reports` allow or because it was given up: false, not yet. */
bool branch_end_change(const struct branch *branch, struct branch_row *row);

struct change_judgement branch_judge(const struct branch *branch);
