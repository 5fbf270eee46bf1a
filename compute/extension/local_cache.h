/*
 * local_cache.h - pages that were read or written, in a file beside the data
 * directory.
 *
 * An entry is the newest version of its page outside the buffer pool, or there
 * is none. Nothing else may ever be handed out, so every rule here serves that:
 *
 * - A page that leaves the buffer pool is put here or forgotten here, always.
 *   What WAL cannot rebuild is forgotten: the spill has it (page_rules.h). Free
 *   space maps are never here.
 * - What a reader got from the pageserver is only offered: it is taken if the
 *   block has no entry and its last-written LSN is not above the LSN that it
 *   was read at. Both are looked at below the lock that a put takes, and
 *   whoever writes raises the last-written LSN first. So a late reader (a
 *   parallel read past the buffer pool, the prewarming) never replaces or
 *   outlives a newer version.
 * - A block that is born (extend), cut off (truncate), or dies (unlink, DROP
 *   DATABASE) is forgotten.
 * - Readers ask the spill first: what it has is as new or newer.
 *
 * The unit of space is a chunk of 8 neighbours, found by a hash table in shared
 * memory, evicted by a clock. Every block has a checksum in the table, so that
 * a damaged file is noticed. An error of the file turns the cache off until the
 * server is started again, with a warning; it never fails a query.
 *
 * Locks: a partition lock for the chunks that hash to it, never two at a time,
 * below a lock of rel_state.h. Writes hold it, so that nobody reads what is
 * half written. Reads pin the chunk instead: a pinned chunk is not evicted, and
 * a block that is written or forgotten in the middle of a read no longer has
 * the checksum that the reader saw. Nothing here ERRORs or palloc()s; forgetting
 * is safe in a critical section.
 *
 * A clean stop leaves it to the next start (local_cache_index.c).
 *
 * On a standby the cache is empty and stays so.
 */
#pragma once

#include "postgres.h"

#include "access/xlogdefs.h"
#include "common/relpath.h"
#include "storage/block.h"
#include "storage/lwlock.h"
#include "storage/relfilelocator.h"

#define LOCAL_CACHE_PARTITIONS	128
#define LOCAL_CACHE_CALL_BLOCKS 32	/* at most, in one call; bit i of a mask is block + i */

extern void local_cache_define_settings(void);
extern Size local_cache_shmem_size(void);
extern void local_cache_shmem_init(LWLockPadded *partition_locks);

/* Reads those of the blocks that are in `wanted` and here; returns which ones. */
extern uint32 local_cache_get(const RelFileLocator *rlocator, ForkNumber fork, BlockNumber block,
							  void *const *pages, int count, uint32 wanted);

/* Which of the blocks are here. Only a hint: they may be gone at once. */
extern uint32 local_cache_has(const RelFileLocator *rlocator, ForkNumber fork, BlockNumber block,
							  int count);

/* Have the system read the part of the file where they are. */
extern void local_cache_will_need(const RelFileLocator *rlocator, ForkNumber fork,
								  BlockNumber block, int count);

/*
 * Who goes from end to end through a relation that does not fit would push out
 * each block right before its turn, this time and the next. With `passing` a
 * block takes a free place, or in one of so many cases (PASSING_IN) that of
 * another: so most of what is here stays, and is found by the next scan.
 */
extern bool local_cache_fits(BlockNumber blocks);

/* The block leaves the buffer pool. */
extern void local_cache_put(const RelFileLocator *rlocator, ForkNumber fork, BlockNumber block,
							const void *page, bool passing);

/* The blocks were read from the pageserver at `lsn`. The caller's rel_state entry is locked. */
extern void local_cache_offer(const RelFileLocator *rlocator, ForkNumber fork, BlockNumber block,
							  void *const *pages, int count, XLogRecPtr lsn, bool passing);

/* Blocks from `begin` up to but not including `end`; InvalidBlockNumber: all there are. */
extern void local_cache_forget(const RelFileLocator *rlocator, ForkNumber fork,
							   BlockNumber begin, BlockNumber end);
extern void local_cache_forget_database(Oid database);

/* In chunks' worth of blocks. */
extern uint64 local_cache_used(void);
extern uint64 local_cache_limit(void);

/* The working set was fetched after the start, or there was nothing to fetch. */
extern bool local_cache_is_filled(void);

/* Main loop of the process of the cache (cache_worker.c). */
extern PGDLLEXPORT void local_cache_worker_main(Datum arg);
