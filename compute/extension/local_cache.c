#include "compute/extension/local_cache.h"

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "access/xlog.h"
#include "port/atomics.h"
#include "port/pg_bitutils.h"
#include "storage/bufpage.h"
#include "storage/fd.h"
#include "utils/guc.h"

#include "compute/extension/counters.h"
#include "compute/extension/last_written.h"
#include "compute/extension/local_cache_private.h"

int			local_cache_mb;
int			local_cache_max_mb;
char	   *local_cache_dir;

void
local_cache_define_settings(void)
{
	DefineCustomIntVariable("anabranch.local_cache_mb",
							"Most that cached pages may take on the local disk, 0 for no cache.",
							NULL, &local_cache_mb, 1024, 0, 1024 * 1024, PGC_SIGHUP,
							GUC_UNIT_MB, NULL, NULL, NULL);
	DefineCustomIntVariable("anabranch.local_cache_max_mb",
							"What anabranch.local_cache_mb can be raised to without a restart.",
							"Costs a thousandth of it in shared memory.",
							&local_cache_max_mb, 16 * 1024, 0, 1024 * 1024, PGC_POSTMASTER,
							GUC_UNIT_MB, NULL, NULL, NULL);
	DefineCustomStringVariable("anabranch.local_cache_dir",
							   "Folder of the cached pages; empty for the data directory.",
							   NULL, &local_cache_dir, "", PGC_POSTMASTER, 0,
							   NULL, NULL, NULL);
}

/* ---------------------------------------------------------------- parts of a request that lie in one chunk */

typedef struct Part
{
	CacheKey	key;
	uint32		bucket;
	int			first;			/* block of the request */
	int			at;				/* the same, in the chunk */
	int			count;
} Part;

/* The part that begins with block `first` of the request. */
static Part
part_of(const RelFileLocator *rlocator, ForkNumber fork, BlockNumber block, int first, int count)
{
	Part		part;

	part.key = cache_key_of(rlocator, fork, block + (BlockNumber) first);
	part.bucket = cache_bucket_of(&part.key);
	part.first = first;
	part.at = (int) ((block + (BlockNumber) first) % CHUNK_BLOCKS);
	part.count = Min(count - first, CHUNK_BLOCKS - part.at);
	return part;
}

static uint32
part_mask(const Part *part)
{
	return ((1U << part->count) - 1) << part->at;
}

/* The length of the run of ones in `mask` that begins with bit `at`. */
static int
run_length(uint32 mask, int at)
{
	int			length = 0;

	while (at + length < CHUNK_BLOCKS && (mask & (1U << (at + length))) != 0)
		length++;
	return length;
}

/* The file does not have what the table says: damage, or the block has changed since. */
static void
drop_damaged(const Part *part, int at, uint32 seen)
{
	CacheChunk *chunk;
	bool		damaged = false;

	LWLockAcquire(cache_lock_of(part->bucket), LW_EXCLUSIVE);
	chunk = cache_chunk_find(&part->key, part->bucket);
	if (chunk != NULL && (chunk->valid & (1U << at)) != 0 && chunk->checksums[at] == seen)
	{
		chunk->valid &= (uint8) ~(1U << at);
		damaged = true;
	}
	LWLockRelease(cache_lock_of(part->bucket));
	if (!damaged)
		return;
	counter_add(COUNTER_CACHE_DAMAGED, 1);
	ereport(WARNING,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("a page in file \"%s\" has a wrong checksum", cache_file_path),
			 errdetail("It is read from the pageserver again.")));
}

/* The chunk is pinned. Returns the blocks of the chunk that were read and are intact. */
static uint32
read_runs(const CacheChunk *chunk, const Part *part, uint32 mask, const uint32 *checksums,
		  void *const *pages)
{
	uint32		intact = 0;

	for (int at = 0; at < CHUNK_BLOCKS;)
	{
		struct iovec iov[CHUNK_BLOCKS];
		int			run = run_length(mask, at);
		int			error;

		if (run == 0)
		{
			at++;
			continue;
		}
		for (int i = 0; i < run; i++)
			iov[i] = (struct iovec)
		{
			.iov_base = pages[part->first + at + i - part->at], .iov_len = BLCKSZ
		};
		error = cache_file_read(chunk, at, iov, run);
		if (error > 0)
		{
			cache_turn_off("read", error);
			return 0;
		}
		for (int i = 0; i < run; i++)
		{
			if (error == 0 && cache_checksum_of(iov[i].iov_base) == checksums[at + i])
				intact |= 1U << (at + i);
			else if (error == 0)
				drop_damaged(part, at + i, checksums[at + i]);
		}
		at += run;
	}
	return intact;
}

static uint32
get_part(const Part *part, void *const *pages, uint32 wanted)
{
	uint32		checksums[CHUNK_BLOCKS];
	CacheChunk *chunk;
	uint32		mask = 0;

	LWLockAcquire(cache_lock_of(part->bucket), LW_SHARED);
	chunk = cache_chunk_find(&part->key, part->bucket);
	if (chunk != NULL)
		mask = chunk->valid & part_mask(part) & ((wanted >> part->first) << part->at);
	if (mask != 0)
	{
		pg_atomic_fetch_add_u32(&chunk->pins, 1);
		if (pg_atomic_read_u32(&chunk->heat) < CHUNK_HEAT_MAX)
			pg_atomic_write_u32(&chunk->heat, CHUNK_HEAT_MAX);
		memcpy(checksums, chunk->checksums, sizeof(checksums));
	}
	LWLockRelease(cache_lock_of(part->bucket));
	if (mask == 0)
		return 0;
	mask = read_runs(chunk, part, mask, checksums, pages);
	pg_atomic_fetch_sub_u32(&chunk->pins, 1);
	return (mask >> part->at) << part->first;
}

static bool
is_empty(void)
{
	return pg_atomic_read_u32(&cache_shared->used) == 0;
}

uint32
local_cache_get(const RelFileLocator *rlocator, ForkNumber fork, BlockNumber block,
				void *const *pages, int count, uint32 wanted)
{
	uint32		hits = 0;

	Assert(count <= LOCAL_CACHE_CALL_BLOCKS);
	if (is_empty() || cache_is_off() || RecoveryInProgress())
		return 0;
	for (int first = 0; first < count;)
	{
		Part		part = part_of(rlocator, fork, block, first, count);

		hits |= get_part(&part, pages, wanted);
		first += part.count;
	}
	if (hits != 0)
		counter_add(COUNTER_READ_CACHE, (uint64) pg_popcount32(hits));
	return hits;
}

uint32
local_cache_has(const RelFileLocator *rlocator, ForkNumber fork, BlockNumber block, int count)
{
	uint32		here = 0;

	Assert(count <= LOCAL_CACHE_CALL_BLOCKS);
	if (is_empty() || cache_is_off() || RecoveryInProgress())
		return 0;
	for (int first = 0; first < count;)
	{
		Part		part = part_of(rlocator, fork, block, first, count);
		CacheChunk *chunk;

		LWLockAcquire(cache_lock_of(part.bucket), LW_SHARED);
		chunk = cache_chunk_find(&part.key, part.bucket);
		if (chunk != NULL)
			here |= ((chunk->valid & part_mask(&part)) >> part.at) << first;
		LWLockRelease(cache_lock_of(part.bucket));
		first += part.count;
	}
	return here;
}

void
local_cache_will_need(const RelFileLocator *rlocator, ForkNumber fork, BlockNumber block,
					  int count)
{
	int			fd = cache_file();

	for (int first = 0; fd >= 0 && first < count;)
	{
		Part		part = part_of(rlocator, fork, block, first, count);
		CacheChunk *chunk;

		LWLockAcquire(cache_lock_of(part.bucket), LW_SHARED);
		chunk = cache_chunk_find(&part.key, part.bucket);
		LWLockRelease(cache_lock_of(part.bucket));
		if (chunk != NULL)		/* if it is evicted now, a little is read in vain */
			(void) posix_fadvise(fd, cache_offset_of(chunk, part.at), (off_t) part.count * BLCKSZ,
								 POSIX_FADV_WILLNEED);
		first += part.count;
	}
}

/* The lock is held exclusively. Returns the error's number. */
static int
write_run(CacheChunk *chunk, int at, const struct iovec *iov, int count)
{
	uint32		mask = ((1U << count) - 1) << at;
	int			error = cache_file_write(chunk, at, iov, count);

	if (error != 0)
	{
		chunk->valid &= (uint8) ~mask;
		return error;
	}
	for (int i = 0; i < count; i++)
		chunk->checksums[at + i] = cache_checksum_of(iov[i].iov_base);
	chunk->valid |= (uint8) mask;
	return 0;
}

void
local_cache_put(const RelFileLocator *rlocator, ForkNumber fork, BlockNumber block,
				const void *page, bool passing)
{
	Part		part = part_of(rlocator, fork, block, 0, 1);
	struct iovec iov = {.iov_base = unconstify(void *, page), .iov_len = BLCKSZ};
	CacheChunk *chunk = NULL;
	int			error;

	if (pg_atomic_read_u32(&cache_shared->limit) > 0 && !cache_is_off() && !RecoveryInProgress())
		chunk = cache_chunk_lock_made(&part.key, part.bucket, passing);
	if (chunk == NULL)
	{
		local_cache_forget(rlocator, fork, block, block + 1);
		return;
	}
	error = write_run(chunk, part.at, &iov, 1);
	LWLockRelease(cache_lock_of(part.bucket));
	if (error != 0)
		cache_turn_off("write", error);
	else
		counter_add(COUNTER_CACHE_PUT, 1);
}

/* The lock is held exclusively. Which blocks of the part may be taken, as bits of the chunk. */
static uint32
acceptable(const CacheChunk *chunk, const Part *part, void *const *pages, XLogRecPtr lsn)
{
	BlockNumber chunk_block = part->key.number * CHUNK_BLOCKS;
	uint32		mask = 0;

	for (int i = 0; i < part->count; i++)
	{
		int			at = part->at + i;

		if ((chunk->valid & (1U << at)) == 0 && !PageIsNew((Page) pages[part->first + i]) &&
			last_written_lookup(&part->key.rlocator, part->key.fork,
								chunk_block + (BlockNumber) at) <= lsn)
			mask |= 1U << at;
	}
	return mask;
}

static int
offer_part(const Part *part, void *const *pages, XLogRecPtr lsn, bool passing)
{
	CacheChunk *chunk = cache_chunk_lock_made(&part->key, part->bucket, passing);
	uint32		mask;
	int			error = 0;

	if (chunk == NULL)
		return 0;
	mask = acceptable(chunk, part, pages, lsn);
	for (int at = 0; at < CHUNK_BLOCKS && error == 0;)
	{
		struct iovec iov[CHUNK_BLOCKS];
		int			run = run_length(mask, at);

		for (int i = 0; i < run; i++)
			iov[i] = (struct iovec)
		{
			.iov_base = pages[part->first + at + i - part->at], .iov_len = BLCKSZ
		};
		if (run > 0)
			error = write_run(chunk, at, iov, run);
		at += Max(run, 1);
	}
	LWLockRelease(cache_lock_of(part->bucket));
	counter_add(COUNTER_CACHE_OFFER, (uint64) pg_popcount32(mask));
	return error;
}

void
local_cache_offer(const RelFileLocator *rlocator, ForkNumber fork, BlockNumber block,
				  void *const *pages, int count, XLogRecPtr lsn, bool passing)
{
	if (pg_atomic_read_u32(&cache_shared->limit) == 0 || cache_is_off() || RecoveryInProgress())
		return;
	for (int first = 0; first < count;)
	{
		Part		part = part_of(rlocator, fork, block, first, count);
		int			error = offer_part(&part, pages, lsn, passing);

		if (error != 0)
		{
			cache_turn_off("write", error);
			return;
		}
		first += part.count;
	}
}

/* ---------------------------------------------------------------- forgetting */

static void
forget_in_chunk(const CacheKey *key, uint32 mask)
{
	uint32		bucket = cache_bucket_of(key);
	CacheChunk *chunk;
	bool		here;

	/* most are not here: look with the weak lock first */
	LWLockAcquire(cache_lock_of(bucket), LW_SHARED);
	chunk = cache_chunk_find(key, bucket);
	here = chunk != NULL && (chunk->valid & mask) != 0;
	LWLockRelease(cache_lock_of(bucket));
	if (!here)
		return;

	LWLockAcquire(cache_lock_of(bucket), LW_EXCLUSIVE);
	chunk = cache_chunk_find(key, bucket);
	if (chunk != NULL)
	{
		chunk->valid &= (uint8) ~mask;
		if (chunk->valid == 0)
			pg_atomic_write_u32(&chunk->heat, 0);	/* the clock takes it first */
	}
	LWLockRelease(cache_lock_of(bucket));
}

/* Bits of the blocks of chunk `number` that are in begin..end. */
static uint32
mask_in_range(uint32 number, BlockNumber begin, BlockNumber end)
{
	uint64		first = (uint64) number * CHUNK_BLOCKS;
	uint32		mask = 0;

	for (int at = 0; at < CHUNK_BLOCKS; at++)
		if (first + at >= begin && first + at < end)
			mask |= 1U << at;
	return mask;
}

static void
forget_by_walk(const RelFileLocator *rlocator, ForkNumber fork, BlockNumber begin, BlockNumber end)
{
	for (uint32 i = 0; i < pg_atomic_read_u32(&cache_shared->limit_ever); i++)
	{
		CacheKey	key = cache_chunks[i].key;

		if (pg_atomic_read_u32(&cache_chunks[i].state) == CHUNK_HASHED && key.fork == fork &&
			RelFileLocatorEquals(key.rlocator, *rlocator))
			forget_in_chunk(&key, mask_in_range(key.number, begin, end));
	}
}

void
local_cache_forget(const RelFileLocator *rlocator, ForkNumber fork,
				   BlockNumber begin, BlockNumber end)
{
	uint32		first = begin / CHUNK_BLOCKS;
	uint32		last;

	if (begin >= end || is_empty())
		return;
	last = (end - 1) / CHUNK_BLOCKS;

	/* ask chunk by chunk, or look at every chunk: whatever is less */
	if (last - first > pg_atomic_read_u32(&cache_shared->used))
	{
		forget_by_walk(rlocator, fork, begin, end);
		return;
	}
	for (uint32 number = first; number <= last; number++)
	{
		CacheKey	key = cache_key_of(rlocator, fork, number * CHUNK_BLOCKS);

		forget_in_chunk(&key, mask_in_range(number, begin, end));
	}
}

void
local_cache_forget_database(Oid database)
{
	if (is_empty())
		return;
	for (uint32 i = 0; i < pg_atomic_read_u32(&cache_shared->limit_ever); i++)
	{
		CacheKey	key = cache_chunks[i].key;

		if (pg_atomic_read_u32(&cache_chunks[i].state) == CHUNK_HASHED &&
			key.rlocator.dbOid == database)
			forget_in_chunk(&key, UINT32_MAX);
	}
}

/* ---------------------------------------------------------------- size */

bool
local_cache_fits(BlockNumber blocks)
{
	return blocks / CHUNK_BLOCKS < pg_atomic_read_u32(&cache_shared->limit);
}

uint64
local_cache_used(void)
{
	return (uint64) pg_atomic_read_u32(&cache_shared->used) * CHUNK_BLOCKS;
}

bool
local_cache_is_filled(void)
{
	return pg_atomic_read_u32(&cache_shared->filled) != 0;
}

uint64
local_cache_limit(void)
{
	return cache_is_off() ? 0 : (uint64) pg_atomic_read_u32(&cache_shared->limit) * CHUNK_BLOCKS;
}

bool
cache_limit_apply(void)
{
	uint32		limit = Min(cache_chunks_of_mb(local_cache_mb), cache_shared->chunk_max);
	bool		done = true;
	int			fd = cache_file();

	/* in this order: nobody takes a chunk that those who walk over all do not look at */
	if (limit > pg_atomic_read_u32(&cache_shared->limit_ever))
		pg_atomic_write_u32(&cache_shared->limit_ever, limit);
	pg_memory_barrier();
	pg_atomic_write_u32(&cache_shared->limit, limit);
	for (uint32 i = limit; i < pg_atomic_read_u32(&cache_shared->limit_ever); i++)
	{
		CacheChunk *chunk = &cache_chunks[i];

		if (pg_atomic_read_u32(&chunk->state) != CHUNK_HASHED)
			continue;
		if (cache_chunk_evict(chunk, true))
			cache_chunk_give_back(chunk);
		else
			done = false;		/* pinned at the moment */
	}
	if (done && fd >= 0 && lseek(fd, 0, SEEK_END) > (off_t) limit * CHUNK_BYTES &&
		ftruncate(fd, (off_t) limit * CHUNK_BYTES) < 0)
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not truncate file \"%s\": %m", cache_file_path)));
	return done;
}
