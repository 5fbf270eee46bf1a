#include "safekeeper/consensus/membership.h"

#include <string.h>

#include "safekeeper/consensus/mutant.h"

err_t membership_check(const struct membership *membership, struct errmsg *msg)
{
    if (membership->generation == 0) {
        return err_set(msg, ERR_INVALID, "a membership needs a generation");
    }
    if (membership->count == 0 || membership->count > MEMBERS_MAX) {
        return err_set(
            msg, ERR_INVALID, "%" PRIu32 " members, expected 1 to %d", membership->count,
            MEMBERS_MAX);
    }
    for (uint32_t i = 0; i < membership->count; i++) {
        if (membership->members[i] == 0) {
            return err_set(msg, ERR_INVALID, "0 is not a member id");
        }
        for (uint32_t k = 0; k < i; k++) {
            if (membership->members[k] == membership->members[i]) {
                return err_set(
                    msg, ERR_INVALID, "member %" PRIu64 " is listed twice", membership->members[i]);
            }
        }
    }
    uint32_t everyone = (1u << membership->count) - 1;
    bool is_single = membership->old_set == 0 && membership->new_set == 0;
    bool is_joint = membership->old_set != 0 && membership->new_set != 0 &&
                    (membership->old_set | membership->new_set) == everyone;
    if (!is_single && !is_joint) {
        return err_set(
            msg, ERR_INVALID, "a joint membership has two sets, and every member in one of them");
    }
    return ERR_OK;
}

bool membership_is_joint(const struct membership *membership)
{
    return membership->old_set != 0;
}

bool membership_equal(const struct membership *a, const struct membership *b)
{
    return a->generation == b->generation && a->count == b->count && a->old_set == b->old_set &&
           a->new_set == b->new_set &&
           memcmp(a->members, b->members, a->count * sizeof(a->members[0])) == 0;
}

uint32_t membership_index(const struct membership *membership, node_id_t member)
{
    uint32_t i = 0;
    while (i < membership->count && membership->members[i] != member) {
        i++;
    }
    return i;
}

bool membership_has_majority(uint32_t set, uint32_t agreed)
{
    uint32_t size = (uint32_t)__builtin_popcount(set);
    uint32_t majority = MUTANT(7) ? size / 2 : size / 2 + 1;
    return (uint32_t)__builtin_popcount(set & agreed) >= majority;
}

bool membership_has_quorum(const struct membership *membership, uint32_t agreed)
{
    uint32_t everyone = (1u << membership->count) - 1;
    ASSERT((agreed & ~everyone) == 0);
    if (!membership_is_joint(membership)) {
        return membership_has_majority(everyone, agreed);
    }
    return membership_has_majority(membership->old_set, agreed) &&
           (MUTANT(29) || membership_has_majority(membership->new_set, agreed));
}

lsn_t membership_quorum_lsn(const struct membership *membership, const lsn_t *lsns)
{
    lsn_t best = LSN_NONE;
    for (uint32_t i = 0; i < membership->count; i++) {
        uint32_t reached = 0;
        for (uint32_t k = 0; k < membership->count; k++) {
            reached |= (uint32_t)(lsns[k] >= lsns[i]) << k;
        }
        if (lsns[i] > best && membership_has_quorum(membership, reached)) {
            best = lsns[i];
        }
    }
    return best;
}
