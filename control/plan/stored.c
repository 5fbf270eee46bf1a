#include "control/plan/stored.h"

#include <stdlib.h>
#include <string.h>

static uint64_t distance(lsn_t from, lsn_t to)
{
    return to > from ? to - from : 0;
}

/*
 * What it takes to have all states from the cutoff to the end: the state at the cutoff, as a copy
 * or, with a parent, as the WAL that led there, and the WAL from there on. Of that, the end alone
 * is the branch; the rest is for going back.
 */
struct stored stored_of_branch(const struct stored_end *end, bool has_parent)
{
    uint64_t logical = end->logical_bytes;
    uint64_t window = distance(MAX_OF(end->start_lsn, end->cutoff_lsn), end->end_lsn);
    if (!has_parent) {
        return (struct stored){
            .of = {[STORED_ROOT] = logical, [STORED_RESTORE] = window, [STORED_LOGICAL] = logical}};
    }
    uint64_t end_alone = MIN_OF(logical, distance(end->start_lsn, end->end_lsn));
    uint64_t with_window = MIN_OF(logical, distance(end->start_lsn, end->cutoff_lsn)) + window;
    return (struct stored){
        .of = {
            [STORED_CHILD] = end_alone,
            [STORED_RESTORE] = with_window - end_alone,
            [STORED_LOGICAL] = logical}};
}

static int compare_snapshots(const void *left, const void *right)
{
    const struct stored_snapshot *a = left, *b = right;
    int order = memcmp(&a->of, &b->of, sizeof a->of);
    return order != 0 ? order : a->lsn < b->lsn ? -1 : a->lsn > b->lsn;
}

uint64_t stored_of_snapshots(struct stored_snapshot *snapshots, size_t count)
{
    uint64_t sum = 0;
    qsort(snapshots, count, sizeof snapshots[0], compare_snapshots);
    for (size_t i = 0; i < count; i++) {
        const struct stored_snapshot *here = &snapshots[i], *next = here + 1;
        bool has_next = i + 1 < count && timeline_id_equal(next->of, here->of);
        lsn_t until = has_next ? MIN_OF(next->lsn, here->cutoff_lsn) : here->cutoff_lsn;
        sum += MIN_OF(here->logical_bytes, distance(here->lsn, until));
    }
    return sum;
}

void stored_add(struct stored *to, const struct stored *more)
{
    for (size_t i = 0; i < STORED_KINDS; i++) {
        to->of[i] += more->of[i];
    }
}
