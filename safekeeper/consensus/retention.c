#include "safekeeper/consensus/retention.h"

#include "common/base/mark.h"
#include "safekeeper/consensus/mutant.h"

void retention_take(struct retention_consumer *consumer, const struct retention_consumer *said)
{
    if (said->generation < consumer->generation) {
        MARK("retention.older_attachment");
        return;
    }
    *consumer = *said;
}

static void hold(
    struct retention_verdict *verdict, lsn_t lsn, enum retention_holder holder, node_id_t member)
{
    if (lsn < verdict->horizon_lsn) {
        *verdict = (struct retention_verdict){
            .horizon_lsn = lsn,
            .holder = holder,
            .member = member,
        };
    }
}

struct retention_verdict retention_judge(const struct retention_view *view)
{
    struct retention_verdict verdict = {.horizon_lsn = view->commit_lsn};
    lsn_t remote_lsn = view->consumer.remote_lsn;
    if (MUTANT(33)) {
        remote_lsn = view->consumer.durable_lsn;
    }
    hold(&verdict, MAX_OF(remote_lsn, view->begin_lsn), RETENTION_PAGESERVER, 0);
    if (view->slots_lsn != LSN_NONE) {
        hold(&verdict, MAX_OF(view->slots_lsn, view->begin_lsn), RETENTION_SLOTS, 0);
    }
    lsn_t span = view->commit_lsn - view->begin_lsn;
    hold(&verdict, view->commit_lsn - MIN_OF(span, (lsn_t)view->keep_min), RETENTION_MINIMUM, 0);
    lsn_t limit_lsn = view->commit_lsn - MIN_OF(span, (lsn_t)view->keep_max);
    for (uint32_t i = 0; i < view->member_count; i++) {
        const struct retention_member *member = &view->members[i];
        lsn_t lsn = member->answered ? member->record_lsn : LSN_NONE;
        if (lsn < limit_lsn) {
            MARK("retention.member_given_up");
            lsn = limit_lsn;
        }
        hold(&verdict, lsn, RETENTION_MEMBER, member->id);
    }
    return verdict;
}

const char *retention_holder_name(enum retention_holder holder)
{
    switch (holder) {
    case RETENTION_NONE: return "nobody";
    case RETENTION_PAGESERVER: return "pageserver";
    case RETENTION_SLOTS: return "slots";
    case RETENTION_MEMBER: return "member";
    case RETENTION_MINIMUM: return "minimum";
    }
    return "unknown";
}
