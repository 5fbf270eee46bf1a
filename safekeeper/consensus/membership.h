/*
 * membership.h - who votes on a timeline: a set of safekeepers under a generation.
 *
 * Only quorum rules live here; addresses belong to the drivers. Today a membership is one fixed
 * set. A change of the set will pass through a joint membership that needs a majority of both sets,
 * so nobody but membership_has_quorum() and membership_quorum_lsn() may count votes.
 */
#pragma once

#include "common/base/assert.h"
#include "common/base/err.h"

#define MEMBERS_MAX 7

struct membership {
    generation_t generation;
    uint32_t count;
    node_id_t members[MEMBERS_MAX];
};

/* ERR_INVALID: no generation, no member, too many, a member 0 or twice. */
NODISCARD err_t membership_check(const struct membership *membership, struct errmsg *msg);

/* `agreed` has one bit for each index of `members`. */
bool membership_has_quorum(const struct membership *membership, uint32_t agreed);

/* The greatest LSN that a quorum has reached; `lsns` is parallel to `members`. */
lsn_t membership_quorum_lsn(const struct membership *membership, const lsn_t *lsns);
