/*
 * spill.h - pages that WAL cannot rebuild, or not yet, in a local file.
 *
 * A page in the spill is always its newest version outside the buffer pool.
 * The file lives as long as the server and is as large as its limit allows;
 * the index is in shared memory. A page is never dropped to stay within the
 * limit. From the soft limit on writers are held back, at the hard limit their
 * statements fail (backpressure.h). What is left above it is for those who
 * evict pages of others; when that is gone, too, the eviction fails and the
 * page stays in the buffer pool.
 *
 * Locks: one partition at a time, taken below a lock of rel_state.h.
 */
#pragma once

#include "postgres.h"

#include "common/relpath.h"
#include "storage/block.h"
#include "storage/lwlock.h"
#include "storage/relfilelocator.h"

#include "compute/extension/page_rules.h"

#define SPILL_PARTITIONS 64

extern Size spill_shmem_size(int limit_mb);
extern void spill_shmem_init(int limit_mb, LWLockPadded *partition_locks);

/* ERROR when there is no room at all, or the file failed: the page stays in its buffer then. */
extern void spill_put(const RelFileLocator *rlocator, ForkNumber fork, BlockNumber block,
					  const void *page, const PageVerdict *verdict);

/* false: it is not here */
extern bool spill_get(const RelFileLocator *rlocator, ForkNumber fork, BlockNumber block,
					  void *page);

/* Which of at most 32 blocks are here, bit i for block + i. Only a hint. */
extern uint32 spill_has(const RelFileLocator *rlocator, ForkNumber fork, BlockNumber block,
						int count);

/*
 * The next page of that fork from slot *slot on, which is moved behind it; false
 * at the end. A hint: spill_get() says whether it is still there.
 */
extern bool spill_next(uint32 *slot, ForkNumber fork, RelFileLocator *rlocator,
					   BlockNumber *block);

/* All three only free memory: they are safe in a critical section. */
extern void spill_forget(const RelFileLocator *rlocator, ForkNumber fork, BlockNumber block);
extern void spill_truncate(const RelFileLocator *rlocator, ForkNumber fork,
						   BlockNumber begin, BlockNumber end);
extern void spill_forget_database(Oid database, Oid tablespace);	/* invalid: in all */

/*
 * Give up the pages whose reason is over, looking at `count` slots from where
 * the last sweep ended. No partition lock may be held.
 */
extern void spill_sweep(int count, XLogRecPtr acked);

/* In pages. */
extern uint32 spill_used(void);
extern uint32 spill_peak(void);
extern uint32 spill_capacity(void);
extern uint32 spill_soft_limit(void);
extern uint32 spill_hard_limit(void);

/* ERROR: that the spill is full. */
extern void spill_refuse(void) pg_attribute_noreturn();
