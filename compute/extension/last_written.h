/*
 * last_written.h - up to which LSN a page that left the buffer pool was changed.
 *
 * A read of that page must be answered with this LSN or newer. The memory is
 * an array without keys: a page's slot holds the highest LSN of all pages
 * that share it. A shared slot can only make a read wait for a little more
 * WAL than it needs, never for too little; nothing is evicted and nothing is
 * locked. Only LSNs that the quorum has acknowledged matter here: a page with
 * a newer one is in the spill and is not read from the pageserver.
 */
#pragma once

#include "postgres.h"

#include "access/xlogdefs.h"
#include "common/relpath.h"
#include "storage/block.h"
#include "storage/relfilelocator.h"

extern Size last_written_shmem_size(void);
extern void last_written_shmem_init(void);

extern void last_written_raise(const RelFileLocator *rlocator, ForkNumber fork,
							   BlockNumber block, XLogRecPtr lsn);

/* InvalidXLogRecPtr: not written since the server started */
extern XLogRecPtr last_written_lookup(const RelFileLocator *rlocator, ForkNumber fork,
									  BlockNumber block);

/* Of `count` neighbours, at least one. */
extern XLogRecPtr last_written_newest(const RelFileLocator *rlocator, ForkNumber fork,
									  BlockNumber block, int count);
