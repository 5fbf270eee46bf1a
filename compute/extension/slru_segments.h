/*
 * slru_segments.h - old segments of pg_xact, pg_multixact and pg_commit_ts,
 * fetched when they are first needed.
 *
 * A compute starts with the names of those that only a look at an old row may
 * need: files with SLRU_COLD_TEXT. Before Postgres opens a file of an SLRU it
 * asks us, and in place of such a file we put the 32 pages that the pageserver
 * has. From then on it is a file as any: Postgres reads, writes and removes it.
 */
#pragma once

#include "postgres.h"

#include "storage/lwlock.h"

#define SLRU_SEGMENT_LOCKS 1

/* Once in each process that attaches to shared memory. */
extern void slru_segments_init(LWLockPadded *locks);

/* Set the hook. Only while libraries are preloaded. */
extern void slru_segments_install(void);
