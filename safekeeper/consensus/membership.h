/*
 * membership.h - who votes on a timeline: a set of safekeepers under a generation.
 *
 * A change of the set passes through a joint membership: the old and the new set together, under
 * one generation, and whatever is decided needs a majority of both. Only quorum rules live here,
 * addresses belong to the drivers; nobody but membership_has_quorum() and membership_quorum_lsn()
 * may count votes. When a change may end: change.h. The whole of it: docs/design/membership.md.
 */
#pragma once

#include "common/base/assert.h"
#include "common/base/err.h"

#define MEMBERS_MAX 7 /* of both sets together */

struct membership {
    generation_t generation;
    uint32_t count;
    node_id_t members[MEMBERS_MAX];
    /*
     * Joint: who belongs to which set, one bit for each index of `members`; each is in one of them
     * or in both. Both 0: no change is under way, and everybody is in the one set.
     */
    uint32_t old_set, new_set;
};

/* ERR_INVALID: no generation, no member, too many, a member 0 or twice, or in neither set. */
NODISCARD err_t membership_check(const struct membership *membership, struct errmsg *msg);

bool membership_is_joint(const struct membership *membership);
bool membership_equal(const struct membership *a, const struct membership *b);

/* Index of `member`, or `count` when it is none. */
uint32_t membership_index(const struct membership *membership, node_id_t member);

/* A majority of `set` (bits of indexes) is among `agreed`. */
bool membership_has_majority(uint32_t set, uint32_t agreed);

/* `agreed` has one bit for each index of `members`. */
bool membership_has_quorum(const struct membership *membership, uint32_t agreed);

/* The greatest LSN that a quorum has reached; `lsns` is parallel to `members`. */
lsn_t membership_quorum_lsn(const struct membership *membership, const lsn_t *lsns);
