#include "compute/extension/last_written.h"

#include "common/hashfn.h"
#include "port/atomics.h"
#include "storage/shmem.h"

#ifdef PG_HAVE_ATOMIC_U64_SIMULATION
#error "slots of zeros are no atomics here"
#endif

#define SLOT_COUNT (512 * 1024) /* 4 MB */
#define BLOCKS_PER_SLOT 16		/* neighbours are written together */

static pg_atomic_uint64 *slots;

Size
last_written_shmem_size(void)
{
	return sizeof(pg_atomic_uint64) * SLOT_COUNT;
}

void
last_written_shmem_init(void)
{
	bool		found;

	/* Slots are right when they are zero, and so is memory of a server that starts. */
	StaticAssertStmt(InvalidXLogRecPtr == 0, "nothing was written yet");
	slots = ShmemInitStruct("anabranch last written", last_written_shmem_size(), &found);
}

static pg_atomic_uint64 *
slot_of_group(const RelFileLocator *rlocator, ForkNumber fork, BlockNumber group)
{
	uint64		rel = ((uint64) rlocator->dbOid << 32) | rlocator->relNumber;
	uint64		of_fork = ((uint64) fork << 32) | group;

	return &slots[hash_combine64(murmurhash64(rel), murmurhash64(of_fork)) % SLOT_COUNT];
}

static pg_atomic_uint64 *
slot_of(const RelFileLocator *rlocator, ForkNumber fork, BlockNumber block)
{
	return slot_of_group(rlocator, fork, block / BLOCKS_PER_SLOT);
}

void
last_written_raise(const RelFileLocator *rlocator, ForkNumber fork,
				   BlockNumber block, XLogRecPtr lsn)
{
	pg_atomic_uint64 *slot = slot_of(rlocator, fork, block);
	uint64		seen = pg_atomic_read_u64(slot);

	while (seen < lsn && !pg_atomic_compare_exchange_u64(slot, &seen, lsn))
		;
}

XLogRecPtr
last_written_lookup(const RelFileLocator *rlocator, ForkNumber fork, BlockNumber block)
{
	return pg_atomic_read_u64(slot_of(rlocator, fork, block));
}

XLogRecPtr
last_written_newest(const RelFileLocator *rlocator, ForkNumber fork,
					BlockNumber block, int count)
{
	BlockNumber last = (block + (BlockNumber) count - 1) / BLOCKS_PER_SLOT;
	XLogRecPtr	newest = InvalidXLogRecPtr;

	for (BlockNumber group = block / BLOCKS_PER_SLOT; group <= last; group++)
		newest = Max(newest, pg_atomic_read_u64(slot_of_group(rlocator, fork, group)));
	return newest;
}
