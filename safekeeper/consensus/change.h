/*
 * change.h - when the change of a membership may end, as a pure judgement.
 *
 * Whoever changes a membership (control) writes down the joint membership under a new generation,
 * brings it to the safekeepers, and asks each of them where it stands. This says from the answers
 * whether the new set may stand alone. Why these rules: docs/design/membership.md.
 *
 * Every answer is about what is on disk there, given after the joint membership was (see
 * acceptor_report()). An answer stays true, so answers of different times may be judged together.
 * Giving a change up needs no judgement: nothing was decided without a majority of the old set.
 */
#pragma once

#include "safekeeper/consensus/membership.h"

/* What one safekeeper says of itself. */
struct change_report {
    bool answered;
    generation_t generation; /* of its membership */
    term_t term;             /* highest promised */
    term_t log_term;         /* last term of its log */
    lsn_t record_lsn;        /* end of its log */
    term_t suspect_term;     /* it may have acknowledged more and lost it: up to here, ... */
    lsn_t suspect_lsn;       /* ... written by no later term; 0: nothing */
};

enum change_verdict {
    CHANGE_WAIT_OLD,   /* no majority of the old set has the joint membership yet */
    CHANGE_WAIT_NEW,   /* the new set has not everything that the old one may have decided, or a
                          newcomer has not answered: it may not even have the timeline */
    CHANGE_MAY_FINISH, /* the new set may stand alone under the next generation */
    CHANGE_SUPERSEDED, /* somebody has a newer generation: this change is not ours any more */
};

struct change_judgement {
    enum change_verdict verdict;
    /* From WAIT_NEW on, what a majority of the new set must reach: ... */
    term_t term;     /* ... promise, so that no term is won twice; may be asked for ... */
    term_t log_term; /* ... and, by (log_term, record_lsn), have copied */
    lsn_t record_lsn;
    uint32_t behind; /* bits of the members of the new set that have not */
};

/* `reports` is parallel to joint->members. */
struct change_judgement change_judge(
    const struct membership *joint, const struct change_report *reports);

/* The next membership: the new set alone, or the old one when the change is given up. */
struct membership change_finish(const struct membership *joint, bool is_given_up);

/*
 * The first step: `from` (not joint) and `members` under the next generation. ERR_INVALID: nothing
 * would change, or there are too many.
 */
NODISCARD err_t change_begin(
    const struct membership *from,
    const node_id_t *members,
    uint32_t count,
    struct membership *ret_joint,
    struct errmsg *msg);
