#include "safekeeper/consensus/change.h"

#include "common/base/mark.h"
#include "safekeeper/consensus/mutant.h"

/* Of two ends of logs, the one that contains everything the other may have committed. */
static bool is_ahead(term_t a_term, lsn_t a_lsn, term_t b_term, lsn_t b_lsn)
{
    return a_term != b_term ? a_term > b_term : a_lsn > b_lsn;
}

static void raise(struct change_judgement *judged, term_t log_term, lsn_t record_lsn)
{
    if (is_ahead(log_term, record_lsn, judged->log_term, judged->record_lsn)) {
        judged->log_term = log_term;
        judged->record_lsn = record_lsn;
    }
}

/* Members that answered under the generation that is judged; false: somebody has a newer one. */
static bool take_answered(
    const struct membership *joint, const struct change_report *reports, uint32_t *ret_answered)
{
    *ret_answered = 0;
    for (uint32_t i = 0; i < joint->count; i++) {
        if (reports[i].answered && reports[i].generation > joint->generation) {
            return false;
        }
        bool current = reports[i].generation == joint->generation || MUTANT(230);
        *ret_answered |= (uint32_t)(reports[i].answered && current) << i;
    }
    return true;
}

struct change_judgement change_judge(
    const struct membership *joint, const struct change_report *reports)
{
    struct change_judgement judged = {.verdict = CHANGE_WAIT_OLD, .behind = joint->new_set};
    uint32_t answered = 0, reached = 0;
    ASSERT(membership_is_joint(joint));
    if (!take_answered(joint, reports, &answered)) {
        MARK("change.judge.superseded");
        judged.verdict = CHANGE_SUPERSEDED;
        return judged;
    }
    if (!membership_has_majority(joint->old_set, answered)) {
        return judged;
    }
    /*
     * From here on nothing can be decided by the old set alone. What it may have decided before was
     * promised and stored by a majority of it, and one of those has answered.
     */
    for (uint32_t i = 0; i < joint->count; i++) {
        const struct change_report *report = &reports[i];
        if ((joint->old_set & answered & 1u << i) == 0) {
            continue;
        }
        judged.term = MAX_OF(judged.term, report->term);
        raise(&judged, report->log_term, report->record_lsn);
        if (report->suspect_lsn != LSN_NONE) {
            MARK("change.judge.suspect");
            raise(&judged, report->suspect_term, report->suspect_lsn);
        }
    }
    for (uint32_t i = 0; i < joint->count; i++) {
        const struct change_report *report = &reports[i];
        bool promised = report->term >= judged.term || MUTANT(131);
        bool copied =
            !is_ahead(judged.log_term, judged.record_lsn, report->log_term, report->record_lsn);
        copied = copied || MUTANT(31);
        reached |= (uint32_t)(promised && copied) << i;
    }
    reached &= answered & joint->new_set;
    judged.behind = joint->new_set & ~reached;
    /* After the end nobody may create a timeline there any more: it would be taken for a member. */
    bool all_came = (joint->new_set & ~joint->old_set & ~answered) == 0;
    judged.verdict = all_came && membership_has_majority(joint->new_set, reached)
                         ? CHANGE_MAY_FINISH
                         : CHANGE_WAIT_NEW;
    return judged;
}

struct membership change_finish(const struct membership *joint, bool is_given_up)
{
    uint32_t set = is_given_up ? joint->old_set : joint->new_set;
    struct membership next = {.generation = joint->generation + 1};
    ASSERT(membership_is_joint(joint) && next.generation != 0);
    for (uint32_t i = 0; i < joint->count; i++) {
        if ((set & 1u << i) != 0) {
            next.members[next.count++] = joint->members[i];
        }
    }
    return next;
}

err_t change_begin(
    const struct membership *from,
    const node_id_t *members,
    uint32_t count,
    struct membership *ret_joint,
    struct errmsg *msg)
{
    struct membership joint = *from;
    ASSERT(!membership_is_joint(from));
    if (from->generation >= UINT32_MAX - 1) {
        return err_set(msg, ERR_INVALID, "no generation is left");
    }
    joint.generation++;
    joint.old_set = (1u << from->count) - 1;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t at = membership_index(&joint, members[i]);
        if (at == MEMBERS_MAX) {
            return err_set(
                msg, ERR_INVALID, "limit: %d safekeepers in both sets together", MEMBERS_MAX);
        }
        if (at == joint.count) {
            joint.members[joint.count++] = members[i];
        }
        if ((joint.new_set & 1u << at) != 0) {
            return err_set(msg, ERR_INVALID, "member %" PRIu64 " is listed twice", members[i]);
        }
        joint.new_set |= 1u << at;
    }
    if (joint.new_set == joint.old_set) {
        return err_set(msg, ERR_INVALID, "these are the members already");
    }
    TRY(membership_check(&joint, msg));
    *ret_joint = joint;
    return ERR_OK;
}
