#include "control/model/members.h"

#include "common/base/assert.h"

static bool has(uint32_t set, uint32_t index)
{
    return (set & 1u << index) != 0;
}

bool membership_is_newcomer(const struct membership *membership, uint32_t index)
{
    return has(membership->new_set, index) && !has(membership->old_set, index);
}

static struct membership single_of(const struct branch_row *row)
{
    struct membership membership = {.generation = (generation_t)row->membership_generation};
    for (size_t i = 0; i < row->safekeepers.count; i++) {
        membership.members[membership.count++] = row->safekeepers.ids[i];
    }
    return membership;
}

struct membership branch_membership(const struct branch_row *row)
{
    struct membership single = single_of(row), joint;
    if (row->change_generation == 0) {
        return single;
    }
    struct errmsg msg;
    err_t err = change_begin(
        &single, row->next_safekeepers.ids, (uint32_t)row->next_safekeepers.count, &joint, &msg);
    ASSERT(err == ERR_OK); /* the row was checked when it was written */
    ASSERT(joint.generation == row->change_generation);
    return joint;
}

uint64_t branch_generation(const struct branch_row *row)
{
    return MAX_OF(row->membership_generation, row->change_generation);
}

size_t branch_left(const struct branch *branch, uint64_t ids[LEFT_MAX])
{
    size_t count = 0;
    const struct branch_row *row = &branch->row;
    for (size_t i = 0; i < row->left_safekeepers.count; i++) {
        ids[count++] = row->left_safekeepers.ids[i];
    }
    for (size_t i = 0; i < row->next_safekeepers.count && !branch_is_live(branch); i++) {
        if (!node_set_has(&row->safekeepers, row->next_safekeepers.ids[i])) {
            ids[count++] = row->next_safekeepers.ids[i];
        }
    }
    return count;
}

static void drop(struct node_set *set, uint64_t id)
{
    size_t kept = 0;
    for (size_t i = 0; i < set->count; i++) {
        if (set->ids[i] != id) {
            set->ids[kept++] = set->ids[i];
        }
    }
    set->count = kept;
}

err_t branch_begin_change(
    struct branch_row *row, const uint64_t *ids, size_t count, struct errmsg *msg)
{
    struct membership single = single_of(row), joint;
    size_t leaving = 0, coming = 0;
    if (row->change_generation != 0) {
        return err_set(msg, ERR_EXISTS, "a change of the safekeepers is under way");
    }
    if (count > SAFEKEEPERS_MAX) {
        return err_set(msg, ERR_INVALID, "limit: %d safekeepers a branch", SAFEKEEPERS_MAX);
    }
    TRY(change_begin(&single, ids, (uint32_t)count, &joint, msg));
    struct branch_row next = *row;
    next.change_generation = joint.generation;
    next.change_given_up = false;
    next.next_safekeepers = (struct node_set){0};
    for (size_t i = 0; i < count; i++) {
        next.next_safekeepers.ids[next.next_safekeepers.count++] = ids[i];
        drop(&next.left_safekeepers, ids[i]); /* it is wanted again, with what it has */
    }
    for (uint32_t i = 0; i < joint.count; i++) {
        leaving += !has(joint.new_set, i);
        coming += membership_is_newcomer(&joint, i);
    }
    if (next.left_safekeepers.count + MAX_OF(leaving, coming) > SAFEKEEPERS_MAX) {
        return err_set(
            msg, ERR_BUSY, "limit: %d former safekeepers that have not deleted the timeline yet",
            SAFEKEEPERS_MAX);
    }
    *row = next;
    return ERR_OK;
}

struct change_judgement branch_judge(const struct branch *branch)
{
    struct membership joint = branch_membership(&branch->row);
    return change_judge(&joint, branch->reports);
}

bool branch_end_change(const struct branch *branch, struct branch_row *row)
{
    struct membership joint = branch_membership(&branch->row);
    if (!membership_is_joint(&joint) ||
        (!row->change_given_up && branch_judge(branch).verdict != CHANGE_MAY_FINISH)) {
        return false;
    }
    struct membership next = change_finish(&joint, row->change_given_up);
    struct node_set confirmed = {0};
    row->safekeepers = (struct node_set){0};
    for (uint32_t i = 0; i < joint.count; i++) {
        uint64_t id = joint.members[i];
        if (membership_index(&next, id) == next.count) {
            row->left_safekeepers.ids[row->left_safekeepers.count++] = id;
            continue;
        }
        row->safekeepers.ids[row->safekeepers.count++] = id;
        /* Whoever answered has held it: it is never filled again. */
        if (node_set_has(&row->confirmed, id) || branch->reports[i].answered) {
            confirmed.ids[confirmed.count++] = id;
        }
    }
    row->confirmed = confirmed;
    row->membership_generation = next.generation;
    row->change_generation = 0;
    row->change_given_up = false;
    row->next_safekeepers = (struct node_set){0};
    row->change_disks = NULL;
    return true;
}
