#include "safekeeper/consensus/membership.h"

#include "safekeeper/consensus/mutant.h"

static uint32_t majority(const struct membership *membership)
{
    return MUTANT(7) ? membership->count / 2 : membership->count / 2 + 1;
}

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
    return ERR_OK;
}

bool membership_has_quorum(const struct membership *membership, uint32_t agreed)
{
    uint32_t everyone = (1u << membership->count) - 1;
    ASSERT((agreed & ~everyone) == 0);
    return (uint32_t)__builtin_popcount(agreed) >= majority(membership);
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
