/*
 * backpressure.h - hold writers back when storage cannot keep up.
 *
 * Two limits: WAL that the quorum has not acknowledged, and the soft limit of
 * the spill. A statement is held where it holds no lock that others need to
 * get on: when it starts, and before a relation grows. Cancel and terminate
 * work while it is held.
 */
#pragma once

#include "postgres.h"

extern int	backpressure_wal_ahead_mb;

extern void backpressure_install(void);

/* Does nothing in a critical section, below a lightweight lock, or in a system process. */
extern void backpressure_hold(void);
