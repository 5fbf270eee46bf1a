/*
 * retention.h - up to where nobody needs the WAL of a timeline any more, and who needs what
 * follows, as a pure judgement.
 *
 * WAL is there for a pageserver that loses its disk: it has in the object store what is below the
 * remote_lsn that it says, and it says so once control has confirmed that its attachment is the
 * newest (docs/design/models.md). What only its disk has counts for nothing here. Members that are
 * behind are waited for up to a limit; beyond it their log begins anew (acceptor.h), which loses
 * nothing.
 */
#pragma once

#include "safekeeper/consensus/membership.h"

enum retention_holder {
    RETENTION_NONE,       /* nothing is kept for anybody */
    RETENTION_PAGESERVER, /* it has not said that the object store has what follows */
    RETENTION_SLOTS,      /* a logical slot of the compute reads from there */
    RETENTION_MEMBER,     /* it is behind, or away */
    RETENTION_MINIMUM,    /* as the settings want it */
};

/* What the pageserver of the newest attachment says. */
struct retention_consumer {
    generation_t generation; /* 0: nobody was heard yet */
    lsn_t durable_lsn;       /* on its disk */
    lsn_t remote_lsn;        /* in the object store, and confirmed; 0: nothing yet */
};

struct retention_member {
    node_id_t id;
    bool answered;
    lsn_t record_lsn; /* end of its log */
};

struct retention_view {
    lsn_t begin_lsn, commit_lsn; /* of our log */
    struct retention_consumer consumer;
    lsn_t slots_lsn;       /* 0: there is no slot */
    uint32_t member_count; /* of those that were asked */
    struct retention_member members[MEMBERS_MAX];
    uint64_t keep_min; /* bytes below commit_lsn */
    uint64_t keep_max; /* for members */
};

struct retention_verdict {
    lsn_t horizon_lsn; /* nothing below it is needed; it may lie inside a record */
    enum retention_holder holder;
    node_id_t member; /* of RETENTION_MEMBER */
};

/* It has said something; what an older attachment than the newest says is of no account. */
void retention_take(struct retention_consumer *consumer, const struct retention_consumer *said);

struct retention_verdict retention_judge(const struct retention_view *view);

const char *retention_holder_name(enum retention_holder holder);
