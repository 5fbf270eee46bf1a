/*
 * forget.h - WAL that nobody needs any more goes: when, and the files.
 *
 * Cheap while there is nothing to do: a timeline is looked at now and then, and only when the
 * pageserver has a whole segment in the object store the other members are asked where they stand
 * (safekeeper/consensus/retention.h judges). Then the acceptor moves the begin of the log; when
 * that is durable the segments before it are removed on a worker, beside the writer.
 *
 * The begin has to be a record end: the last one before the horizon that a sidecar knows of.
 *
 * Threads: loop only.
 */
#pragma once

#include "safekeeper/consensus/retention.h"
#include "safekeeper/timeline/timeline.h"

struct forget_asking;
struct timeline_set;

/* Of a timeline. */
struct forgetting {
    lsn_t candidate_lsn;              /* 0: none */
    mono_ns_t look_at;                /* not before */
    uint8_t backoff;                  /* members hold it: they are asked at growing intervals */
    struct retention_verdict verdict; /* of the last look; holder NONE before it */
    struct forget_asking *asking;     /* NULL: nobody is being asked */
    bool is_finding, is_removing;
    lsn_t removed_lsn, remove_lsn; /* done; wanted */
};

/* Look at those that are awake whether something may go. */
void forget_begin_due(struct timeline_set *set, mono_ns_t now);
bool forget_is_busy(const struct timeline *tl); /* it has something to do: no time to rest */
/* What the pageserver must have in the object store so that a look is worth it. */
lsn_t forget_from_lsn(const struct timeline *tl);
void forget_stop(struct timeline *tl); /* it is closed, or has failed */

/* The acceptor's REMOVE_WAL. */
void forget_remove(struct timeline *tl, lsn_t lsn);

/* The first byte that may be read: the files have the whole segment in which the log begins. */
lsn_t timeline_first_lsn(const struct timeline *tl);
/* What a status page says of it now: who holds the WAL behind which LSN. */
struct retention_verdict timeline_retention(const struct timeline *tl);
