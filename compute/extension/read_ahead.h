/*
 * read_ahead.h - blocks that are asked for before they are wanted.
 *
 * Postgres prefetches in bitmap scans and ANALYZE only; sequential reads
 * (table scans, VACUUM, index scans of a fresh index) are recognised here, in
 * relations of which Postgres has not told lately. What the local cache has is
 * not asked for, but the system is told that its file will be read there.
 * Replies are parked in this process. A parked block may have been read,
 * changed and written by another backend meanwhile: it is used only if the
 * LSN it was read at covers what the caller demands, and asked for again, ahead,
 * by the next scan that comes to it. What Postgres told of is dropped when the
 * transaction ends; what a stream left may be where the next statement goes on.
 */
#pragma once

#include "postgres.h"

#include "compute/extension/rel_state.h"

extern int	read_ahead_blocks_max;

extern void read_ahead_init(void);

/* Postgres says that these blocks will be wanted. */
extern void read_ahead_ask(const RelFileLocator *rlocator, ForkNumber fork,
						   const RelFork *state, BlockNumber block, int count);

/* Has this fork been read in order for long? */
extern bool read_ahead_in_scan(const RelFileLocator *rlocator, ForkNumber fork);

/* These blocks are being read: if that goes on in order, ask for the next ones. */
extern void read_ahead_note(const RelFileLocator *rlocator, ForkNumber fork,
							const RelFork *state, BlockNumber block, int count);

/* Hand out a block that was asked for, waiting for it if need be, and the LSN it was read at. */
extern bool read_ahead_take(const RelFileLocator *rlocator, ForkNumber fork,
							BlockNumber block, XLogRecPtr since, void *page, XLogRecPtr *lsn);
