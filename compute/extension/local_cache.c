#include "compute/extension/local_cache.h"

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "access/xlog.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "port/pg_bitutils.h"
#include "port/pg_iovec.h"
#include "storage/bufpage.h"
#include "storage/fd.h"
#include "storage/shmem.h"
#include "utils/guc.h"
#include "utils/wait_event.h"

#include "common/base/checksum.h"
#include "compute/extension/counters.h"
#include "compute/extension/last_written.h"
#include "compute/extension/local_cache_private.h"

#define CLOCK_STEPS_MAX 128		/* then the newcomer is not cached */
#define PASSING_IN 16

int			local_cache_mb;
int			local_cache_max_mb;
char	   *local_cache_dir;

CacheShared *cache_shared;
CacheChunk *cache_chunks;
static uint32 *buckets;			/* index + 1 of the first chunk, 0: none */
static LWLockPadded *locks;
static uint32 bucket_count;
static int	cache_fd = -1;

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

/* ---------------------------------------------------------------- memory */

static uint32
chunks_of_mb(int mb)
{
	return (uint32) mb * (1024 * 1024 / CHUNK_BYTES);
}

static Size
buckets_size(void)
{
	return pg_nextpower2_32(Max(chunks_of_mb(local_cache_max_mb), LOCAL_CACHE_PARTITIONS)) *
		sizeof(uint32);
}

Size
local_cache_shmem_size(void)
{
	Size		size = add_size(sizeof(CacheShared), buckets_size());

	return add_size(size, mul_size(chunks_of_mb(local_cache_max_mb), sizeof(CacheChunk)));
}

/*
 * Chunks and buckets are right when they are zero, and so is memory of a server
 * that starts: touching all of it would cost more than the rest of the start.
 */
void
local_cache_shmem_init(LWLockPadded *partition_locks)
{
	bool		found;
	bool		first;

	locks = partition_locks;
	bucket_count = (uint32) (buckets_size() / sizeof(uint32));
	cache_shared = ShmemInitStruct("anabranch local cache", sizeof(CacheShared), &found);
	if (!found)
	{
		cache_shared->restored = false;
		cache_shared->chunk_max = chunks_of_mb(local_cache_max_mb);
		pg_atomic_init_u32(&cache_shared->limit,
						   Min(chunks_of_mb(local_cache_mb), cache_shared->chunk_max));
		pg_atomic_init_u32(&cache_shared->limit_ever, pg_atomic_read_u32(&cache_shared->limit));
		pg_atomic_init_u32(&cache_shared->used, 0);
		pg_atomic_init_u32(&cache_shared->hand, 0);
		pg_atomic_init_u32(&cache_shared->filled, 0);
		pg_atomic_init_u32(&cache_shared->off, 0);
	}
	first = !found;
	buckets = ShmemInitStruct("anabranch local cache buckets", buckets_size(), &found);
	cache_chunks = ShmemInitStruct("anabranch local cache chunks",
								   cache_shared->chunk_max * sizeof(CacheChunk), &found);
	if (first)
		cache_file_open_first();
}

static CacheKey
key_of(const RelFileLocator *rlocator, ForkNumber fork, BlockNumber block)
{
	StaticAssertStmt(sizeof(CacheKey) == 5 * sizeof(uint32), "no padding: the key is hashed as bytes");
	return (CacheKey)
	{
		.rlocator = *rlocator, .fork = fork, .number = block / CHUNK_BLOCKS
	};
}

static uint32
bucket_of(const CacheKey *key)
{
	return hash_bytes((const unsigned char *) key, sizeof(*key)) & (bucket_count - 1);
}

static LWLock *
lock_of(uint32 bucket)
{
	return &locks[bucket % LOCAL_CACHE_PARTITIONS].lock;
}

static bool
key_equals(const CacheKey *a, const CacheKey *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}

/* The lock is held. */
static CacheChunk *
chunk_find(const CacheKey *key, uint32 bucket)
{
	for (uint32 link = buckets[bucket]; link != 0; link = cache_chunks[link - 1].next)
		if (key_equals(&cache_chunks[link - 1].key, key))
			return &cache_chunks[link - 1];
	return NULL;
}

/* The lock is held exclusively. */
static void
chunk_link(CacheChunk *chunk, const CacheKey *key, uint32 bucket)
{
	chunk->key = *key;
	chunk->valid = 0;
	chunk->next = buckets[bucket];
	pg_atomic_write_u32(&chunk->heat, 1);
	buckets[bucket] = (uint32) (chunk - cache_chunks) + 1;
	pg_atomic_write_u32(&chunk->state, CHUNK_HASHED);
	pg_atomic_fetch_add_u32(&cache_shared->used, 1);
}

static void
chunk_unlink(CacheChunk *chunk, uint32 bucket)
{
	uint32	   *link = &buckets[bucket];

	while (*link != (uint32) (chunk - cache_chunks) + 1)
		link = &cache_chunks[*link - 1].next;
	*link = chunk->next;
	chunk->valid = 0;
	pg_atomic_write_u32(&chunk->state, CHUNK_TAKEN);
	pg_atomic_fetch_sub_u32(&cache_shared->used, 1);
}

void
cache_chunk_restore(uint32 place, const CacheKey *key, uint8 valid, const uint32 *checksums)
{
	CacheChunk *chunk = &cache_chunks[place];
	uint32		bucket = bucket_of(key);

	if (pg_atomic_read_u32(&chunk->state) != CHUNK_FREE || chunk_find(key, bucket) != NULL)
		return;
	chunk_link(chunk, key, bucket);
	chunk->valid = valid;
	memcpy(chunk->checksums, checksums, sizeof(chunk->checksums));
}

static void
chunk_give_back(CacheChunk *chunk)
{
	pg_atomic_write_u32(&chunk->state, CHUNK_FREE);
}

bool
cache_chunk_evict(CacheChunk *chunk, bool wait)
{
	CacheKey	key = chunk->key;	/* may be torn: looked at again below the lock */
	uint32		bucket = bucket_of(&key);
	bool		evicted = false;

	if (wait)
		LWLockAcquire(lock_of(bucket), LW_EXCLUSIVE);
	else if (!LWLockConditionalAcquire(lock_of(bucket), LW_EXCLUSIVE))
		return false;
	if (chunk_find(&key, bucket) == chunk && pg_atomic_read_u32(&chunk->pins) == 0)
	{
		chunk_unlink(chunk, bucket);
		evicted = true;
	}
	LWLockRelease(lock_of(bucket));
	return evicted;
}

static bool
chunk_cool_down(CacheChunk *chunk)
{
	uint32		heat = pg_atomic_read_u32(&chunk->heat);

	while (heat > 0)
		if (pg_atomic_compare_exchange_u32(&chunk->heat, &heat, heat - 1))
			return true;
	return false;
}

/* A chunk that nobody else can reach, or NULL. No lock is held. */
static CacheChunk *
chunk_take(void)
{
	uint32		limit = pg_atomic_read_u32(&cache_shared->limit);

	for (int step = 0; limit > 0 && step < CLOCK_STEPS_MAX; step++)
	{
		CacheChunk *chunk =
			&cache_chunks[pg_atomic_fetch_add_u32(&cache_shared->hand, 1) % limit];
		uint32		state = CHUNK_FREE;

		if (pg_atomic_read_u32(&chunk->state) == CHUNK_FREE &&
			pg_atomic_compare_exchange_u32(&chunk->state, &state, CHUNK_TAKEN))
			return chunk;
		if (pg_atomic_read_u32(&chunk->state) != CHUNK_HASHED || chunk_cool_down(chunk))
			continue;
		if (cache_chunk_evict(chunk, false))
		{
			counter_add(COUNTER_CACHE_EVICT, 1);
			return chunk;
		}
	}
	return NULL;
}

bool
local_cache_fits(BlockNumber blocks)
{
	return blocks / CHUNK_BLOCKS < pg_atomic_read_u32(&cache_shared->limit);
}

static bool
has_free_chunks(void)
{
	return pg_atomic_read_u32(&cache_shared->used) < pg_atomic_read_u32(&cache_shared->limit);
}

/* Found or made, its lock held exclusively; NULL and no lock if there is no room. */
static CacheChunk *
chunk_lock_made(const CacheKey *key, uint32 bucket, bool passing)
{
	static uint32 passed;		/* chunks that found no place */
	CacheChunk *chunk;
	CacheChunk *taken;

	LWLockAcquire(lock_of(bucket), LW_EXCLUSIVE);
	chunk = chunk_find(key, bucket);
	if (chunk != NULL)
		return chunk;
	LWLockRelease(lock_of(bucket));

	if (passing && !has_free_chunks() && ++passed % PASSING_IN != 0)
		return NULL;
	taken = chunk_take();
	if (taken == NULL)
		return NULL;
	LWLockAcquire(lock_of(bucket), LW_EXCLUSIVE);
	chunk = chunk_find(key, bucket);
	if (chunk != NULL)
	{
		chunk_give_back(taken);
		return chunk;
	}
	chunk_link(taken, key, bucket);
	return taken;
}

/* ---------------------------------------------------------------- the file */

/* -1: this process cannot open it, which may pass. */
static int
cache_file(void)
{
	if (cache_fd < 0)
	{
		cache_fd = BasicOpenFile(cache_file_path, O_RDWR | O_CREAT | O_CLOEXEC | PG_BINARY);
		if (cache_fd >= 0)
			ReserveExternalFD();
	}
	return cache_fd;
}

static bool
is_off(void)
{
	return pg_atomic_read_u32(&cache_shared->off) != 0;
}

/* No lock is held. */
static void
turn_off(const char *what, int error)
{
	uint32		on = 0;

	if (!pg_atomic_compare_exchange_u32(&cache_shared->off, &on, 1))
		return;
	if (cache_fd >= 0 && ftruncate(cache_fd, 0) < 0)
		elog(DEBUG1, "could not truncate file \"%s\": %m", cache_file_path);
	errno = error;
	ereport(WARNING,
			(errcode_for_file_access(),
			 errmsg("could not %s file \"%s\": %m", what, cache_file_path),
			 errdetail("The local cache is off until this server is started again.")));
}

static off_t
offset_of(const CacheChunk *chunk, int at)
{
	return (off_t) (chunk - cache_chunks) * CHUNK_BYTES + (off_t) at * BLCKSZ;
}

/* 0, or the error's number */
static int
file_write(const CacheChunk *chunk, int at, const struct iovec *pages, int count)
{
	int			fd = cache_file();
	ssize_t		written;

	if (fd < 0)
		return errno;
	errno = 0;
	pgstat_report_wait_start(WAIT_EVENT_BUFFILE_WRITE);
	written = pg_pwritev(fd, pages, count, offset_of(chunk, at));
	pgstat_report_wait_end();
	if (written == (ssize_t) count * BLCKSZ)
		return 0;
	return errno != 0 ? errno : ENOSPC;
}

/* 0, or the error's number; -1: this process cannot open it. A file that is too short is zero there. */
static int
file_read(const CacheChunk *chunk, int at, const struct iovec *pages, int count)
{
	int			fd = cache_file();
	ssize_t		got;

	if (fd < 0)
		return -1;
	pgstat_report_wait_start(WAIT_EVENT_BUFFILE_READ);
	got = pg_preadv(fd, pages, count, offset_of(chunk, at));
	pgstat_report_wait_end();
	if (got < 0)
		return errno;
	for (int i = (int) (got / BLCKSZ); i < count; i++)
		memset(pages[i].iov_base, 0, BLCKSZ);
	return 0;
}

static uint32
checksum_of(const void *page)
{
	return (uint32) hash64(page, BLCKSZ, 0);
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

	part.key = key_of(rlocator, fork, block + (BlockNumber) first);
	part.bucket = bucket_of(&part.key);
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

	LWLockAcquire(lock_of(part->bucket), LW_EXCLUSIVE);
	chunk = chunk_find(&part->key, part->bucket);
	if (chunk != NULL && (chunk->valid & (1U << at)) != 0 && chunk->checksums[at] == seen)
	{
		chunk->valid &= (uint8) ~(1U << at);
		damaged = true;
	}
	LWLockRelease(lock_of(part->bucket));
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
		error = file_read(chunk, at, iov, run);
		if (error > 0)
		{
			turn_off("read", error);
			return 0;
		}
		for (int i = 0; i < run; i++)
		{
			if (error == 0 && checksum_of(iov[i].iov_base) == checksums[at + i])
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

	LWLockAcquire(lock_of(part->bucket), LW_SHARED);
	chunk = chunk_find(&part->key, part->bucket);
	if (chunk != NULL)
		mask = chunk->valid & part_mask(part) & ((wanted >> part->first) << part->at);
	if (mask != 0)
	{
		pg_atomic_fetch_add_u32(&chunk->pins, 1);
		if (pg_atomic_read_u32(&chunk->heat) < CHUNK_HEAT_MAX)
			pg_atomic_write_u32(&chunk->heat, CHUNK_HEAT_MAX);
		memcpy(checksums, chunk->checksums, sizeof(checksums));
	}
	LWLockRelease(lock_of(part->bucket));
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
	if (is_empty() || is_off() || RecoveryInProgress())
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
	if (is_empty() || is_off() || RecoveryInProgress())
		return 0;
	for (int first = 0; first < count;)
	{
		Part		part = part_of(rlocator, fork, block, first, count);
		CacheChunk *chunk;

		LWLockAcquire(lock_of(part.bucket), LW_SHARED);
		chunk = chunk_find(&part.key, part.bucket);
		if (chunk != NULL)
			here |= ((chunk->valid & part_mask(&part)) >> part.at) << first;
		LWLockRelease(lock_of(part.bucket));
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

		LWLockAcquire(lock_of(part.bucket), LW_SHARED);
		chunk = chunk_find(&part.key, part.bucket);
		LWLockRelease(lock_of(part.bucket));
		if (chunk != NULL)		/* if it is evicted now, a little is read in vain */
			(void) posix_fadvise(fd, offset_of(chunk, part.at), (off_t) part.count * BLCKSZ,
								 POSIX_FADV_WILLNEED);
		first += part.count;
	}
}

/* The lock is held exclusively. Returns the error's number. */
static int
write_run(CacheChunk *chunk, int at, const struct iovec *iov, int count)
{
	uint32		mask = ((1U << count) - 1) << at;
	int			error = file_write(chunk, at, iov, count);

	if (error != 0)
	{
		chunk->valid &= (uint8) ~mask;
		return error;
	}
	for (int i = 0; i < count; i++)
		chunk->checksums[at + i] = checksum_of(iov[i].iov_base);
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

	if (pg_atomic_read_u32(&cache_shared->limit) > 0 && !is_off() && !RecoveryInProgress())
		chunk = chunk_lock_made(&part.key, part.bucket, passing);
	if (chunk == NULL)
	{
		local_cache_forget(rlocator, fork, block, block + 1);
		return;
	}
	error = write_run(chunk, part.at, &iov, 1);
	LWLockRelease(lock_of(part.bucket));
	if (error != 0)
		turn_off("write", error);
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
	CacheChunk *chunk = chunk_lock_made(&part->key, part->bucket, passing);
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
	LWLockRelease(lock_of(part->bucket));
	counter_add(COUNTER_CACHE_OFFER, (uint64) pg_popcount32(mask));
	return error;
}

void
local_cache_offer(const RelFileLocator *rlocator, ForkNumber fork, BlockNumber block,
				  void *const *pages, int count, XLogRecPtr lsn, bool passing)
{
	if (pg_atomic_read_u32(&cache_shared->limit) == 0 || is_off() || RecoveryInProgress())
		return;
	for (int first = 0; first < count;)
	{
		Part		part = part_of(rlocator, fork, block, first, count);
		int			error = offer_part(&part, pages, lsn, passing);

		if (error != 0)
		{
			turn_off("write", error);
			return;
		}
		first += part.count;
	}
}

/* ---------------------------------------------------------------- forgetting */

static void
forget_in_chunk(const CacheKey *key, uint32 mask)
{
	uint32		bucket = bucket_of(key);
	CacheChunk *chunk;
	bool		here;

	/* most are not here: look with the weak lock first */
	LWLockAcquire(lock_of(bucket), LW_SHARED);
	chunk = chunk_find(key, bucket);
	here = chunk != NULL && (chunk->valid & mask) != 0;
	LWLockRelease(lock_of(bucket));
	if (!here)
		return;

	LWLockAcquire(lock_of(bucket), LW_EXCLUSIVE);
	chunk = chunk_find(key, bucket);
	if (chunk != NULL)
	{
		chunk->valid &= (uint8) ~mask;
		if (chunk->valid == 0)
			pg_atomic_write_u32(&chunk->heat, 0);	/* the clock takes it first */
	}
	LWLockRelease(lock_of(bucket));
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
		CacheKey	key = key_of(rlocator, fork, number * CHUNK_BLOCKS);

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
	return is_off() ? 0 : (uint64) pg_atomic_read_u32(&cache_shared->limit) * CHUNK_BLOCKS;
}

bool
cache_limit_apply(void)
{
	uint32		limit = Min(chunks_of_mb(local_cache_mb), cache_shared->chunk_max);
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
			chunk_give_back(chunk);
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
