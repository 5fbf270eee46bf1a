/*
 * backpressure.h - hold writers back when storage cannot keep up.
 *
 * Three limits: WAL that the quorum has not acknowledged, the soft limit of
 * the spill, and WAL that the pageserver has not ingested. A statement is held
 * where it holds no lock that others need to get on: when it starts, and
 * before a relation grows; for the third limit also where a statement that has
 * written reads, because VACUUM and an update in place grow nothing.
 * Cancel and terminate work while it is held. At the
 * hard limit of the spill it fails instead: waiting would not help whoever
 * filled it.
 *
 * The last one is a token bucket: written WAL takes a token a byte, ingest
 * brings them back, the bucket holds the limit. Who finds it empty asks the
 * pageserver to answer when there are tokens again: nobody naps, unless it is
 * the quorum that is behind. How far it has
 * come is learned from every reply, so that the bucket costs a computation as
 * long as there are reads.
 */
#pragma once

#include "postgres.h"

extern int	backpressure_wal_ahead_mb;
extern int	backpressure_ingest_lag_mb;

extern void backpressure_install(void);

/* Does nothing in a critical section, below a lightweight lock, or in a system process. */
extern void backpressure_hold(void);

/* The same for the third limit alone, and for those only who have written in this transaction. */
extern void backpressure_hold_reading_writer(void);
