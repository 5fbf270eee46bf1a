#include "safekeeper/consensus/term_history.h"

#include "common/base/mark.h"
#include "safekeeper/consensus/mutant.h"

bool term_history_is_valid(const struct term_history *history)
{
    if (history->count == 0 || history->count > TERM_HISTORY_MAX) {
        return false;
    }
    for (uint32_t i = 1; i < history->count; i++) {
        const struct term_start *entry = &history->items[i];
        if (entry->term <= entry[-1].term || entry->lsn < entry[-1].lsn) {
            return false;
        }
    }
    return true;
}

term_t term_history_last_term(const struct term_history *history)
{
    return history->count == 0 ? 0 : history->items[history->count - 1].term;
}

void term_history_push(struct term_history *history, term_t term, lsn_t lsn)
{
    ASSERT(history->count <= TERM_HISTORY_MAX);
    if (history->count > 0) {
        ASSERT(history->items[history->count - 1].term < term);
        ASSERT(history->items[history->count - 1].lsn <= lsn);
    }
    /*
     * A term that begins where the one before began: that one has no byte in this log, and whoever
     * has bytes of it parts from this log here with or without its entry. So only terms that were
     * written in push the oldest out, and those are on a quorum.
     */
    if (history->count > 1 && history->items[history->count - 1].lsn == lsn && !MUTANT(60)) {
        MARK("term_history.push.replaced");
        history->count--;
    }
    if (history->count == TERM_HISTORY_MAX) {
        MARK("term_history.push.trimmed");
        history->count--;
        memmove(&history->items[0], &history->items[1], history->count * sizeof(history->items[0]));
    }
    history->items[history->count++] = (struct term_start){.term = term, .lsn = lsn};
}

void term_history_clip(struct term_history *history, lsn_t end_lsn)
{
    while (history->count > 0 && history->items[history->count - 1].lsn > end_lsn) {
        history->count--;
    }
}

bool term_history_equal(const struct term_history *a, const struct term_history *b)
{
    return a->count == b->count && memcmp(a->items, b->items, a->count * sizeof(a->items[0])) == 0;
}

/* Where the part of entry `index` ends in a log that ends at `end_lsn`. */
static lsn_t entry_end_lsn(const struct term_history *history, uint32_t index, lsn_t end_lsn)
{
    return index + 1 < history->count ? history->items[index + 1].lsn : end_lsn;
}

/* Where the leader's log parts from what the winner of `term` wrote or copied; false: not known. */
static bool leaves_term(const struct term_history *leader, term_t term, lsn_t *ret_lsn)
{
    uint32_t i = leader->count;
    while (i > 0 && leader->items[i - 1].term != term) {
        i--;
    }
    if (i > 0) {
        *ret_lsn = entry_end_lsn(leader, i - 1, LSN_HEAD);
    }
    return i > 0;
}

lsn_t term_history_common_lsn(
    const struct term_history *leader,
    const struct term_history *follower,
    term_t followed_term,
    lsn_t follower_end_lsn,
    lsn_t follower_commit_lsn)
{
    lsn_t parted_lsn = LSN_NONE;
    if (!MUTANT(61) && followed_term > term_history_last_term(follower) &&
        leaves_term(leader, followed_term, &parted_lsn)) {
        MARK("term_history.common.followed");
        return MIN_OF(parted_lsn, follower_end_lsn);
    }
    uint32_t l = leader->count, f = follower->count;
    while (l > 0 && f > 0) {
        term_t leader_term = leader->items[l - 1].term;
        term_t follower_term = follower->items[f - 1].term;
        if (leader_term == follower_term) {
            break;
        }
        if (leader_term > follower_term) {
            l--;
        } else {
            f--;
        }
    }
    if (l == 0 || f == 0) {
        MARK("term_history.common.none");
        return follower_commit_lsn;
    }
    lsn_t leader_end_lsn = entry_end_lsn(leader, l - 1, LSN_HEAD);
    lsn_t end_lsn = entry_end_lsn(follower, f - 1, follower_end_lsn);
    if (MUTANT(28)) {
        return follower_end_lsn;
    }
    return MIN_OF(leader_end_lsn, end_lsn);
}
