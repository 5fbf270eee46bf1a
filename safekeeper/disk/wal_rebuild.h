/*
 * wal_rebuild.h - a log that cannot be repaired in place is copied anew, beside the damaged one.
 *
 * What is copied is WAL that another member has committed, up to what is known to be committed
 * here: there both logs are the same, so the copy needs no checksum of ours and no history.
 * Whatever stood behind it is not copied; how far that may have been acknowledged is what
 * wal_survey() finds out, for the vote. Nothing of the damaged log is touched until the copy is
 * whole and durable.
 *
 * The copy is written as any log (wal_store.h) into DIR.new. wal_rebuild_swap() makes it the log:
 *
 *   DIR -> DIR.old, DIR.new -> DIR, remove DIR.old
 *
 * Before that the control file says what is committed and what may be missing, so that a crash
 * between the two finds a log that is too short, not one that is believed.
 *
 * Threads: one owner, blocking: [worker].
 */
#pragma once

#include "safekeeper/disk/wal_store.h"

/* What the files of a damaged log still say about its end. */
struct wal_survey {
    lsn_t commit_lsn; /* committed, as the caller or any readable record says */
    lsn_t end_lsn;    /* nothing behind it was acknowledged; not before commit_lsn */
};

/* Of an end that nothing is left to tell: every log is shorter. */
#define WAL_END_UNKNOWN ((lsn_t)INT64_MAX)

NODISCARD err_t wal_survey(
    const struct wal_store_options *options, struct wal_survey *ret_survey, struct errmsg *msg);

struct wal_rebuild;

/*
 * Begin the copy of [begin_lsn, end_lsn), both ends of records; nothing to copy when they are the
 * same. What an earlier attempt left goes.
 */
NODISCARD err_t wal_rebuild_open(
    const struct wal_store_options *options,
    lsn_t begin_lsn,
    lsn_t end_lsn,
    struct wal_rebuild **ret_rebuild,
    struct errmsg *msg);
void wal_rebuild_close(struct wal_rebuild *rebuild); /* NULL is fine; what is on disk stays */

/* Where the next piece begins: end_lsn, when all of it is there and durable. */
lsn_t wal_rebuild_next_lsn(const struct wal_rebuild *rebuild);
NODISCARD err_t
wal_rebuild_append(struct wal_rebuild *rebuild, struct bytes wal, struct errmsg *msg);

/* The copy is complete and closed, and the control file says so. May be repeated. */
NODISCARD err_t wal_rebuild_swap(const char *dir, struct errmsg *msg);
/* What a crash left beside the log of `dir`, which is the one that counts. */
NODISCARD err_t wal_rebuild_clean(const char *dir, struct errmsg *msg);
