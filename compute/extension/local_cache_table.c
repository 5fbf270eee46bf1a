/*
 * local_cache_table.c - the chunks of the cache: found by what they hold, taken by a clock.
 *
 * A chunk is free, taken by somebody who is about to use it, or hashed. Who
 * takes one has it alone, without a lock; only while it is hashed does the
 * partition lock of its key guard it. The clock passes chunks of other
 * partitions, so it looks without their locks, and again below one before it
 * evicts.
 */
#include "compute/extension/local_cache_private.h"

#include "common/hashfn.h"
#include "port/pg_bitutils.h"
#include "storage/shmem.h"

#include "compute/extension/counters.h"

#define CLOCK_STEPS_MAX 128		/* then the newcomer is not cached */
#define PASSING_IN 16

CacheShared *cache_shared;
CacheChunk *cache_chunks;
static uint32 *buckets;			/* index + 1 of the first chunk, 0: none */
static LWLockPadded *locks;
static uint32 bucket_count;

/* ---------------------------------------------------------------- memory */

uint32
cache_chunks_of_mb(int mb)
{
	return (uint32) mb * (1024 * 1024 / CHUNK_BYTES);
}

static Size
buckets_size(void)
{
	return pg_nextpower2_32(Max(cache_chunks_of_mb(local_cache_max_mb), LOCAL_CACHE_PARTITIONS)) *
		sizeof(uint32);
}

Size
local_cache_shmem_size(void)
{
	Size		size = add_size(sizeof(CacheShared), buckets_size());

	return add_size(size, mul_size(cache_chunks_of_mb(local_cache_max_mb), sizeof(CacheChunk)));
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
		cache_shared->chunk_max = cache_chunks_of_mb(local_cache_max_mb);
		pg_atomic_init_u32(&cache_shared->limit,
						   Min(cache_chunks_of_mb(local_cache_mb), cache_shared->chunk_max));
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

/* ---------------------------------------------------------------- chunks */

CacheKey
cache_key_of(const RelFileLocator *rlocator, ForkNumber fork, BlockNumber block)
{
	StaticAssertStmt(sizeof(CacheKey) == 5 * sizeof(uint32), "no padding: the key is hashed as bytes");
	return (CacheKey)
	{
		.rlocator = *rlocator, .fork = fork, .number = block / CHUNK_BLOCKS
	};
}

uint32
cache_bucket_of(const CacheKey *key)
{
	return hash_bytes((const unsigned char *) key, sizeof(*key)) & (bucket_count - 1);
}

LWLock *
cache_lock_of(uint32 bucket)
{
	return &locks[bucket % LOCAL_CACHE_PARTITIONS].lock;
}

static bool
key_equals(const CacheKey *a, const CacheKey *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}

/* The lock is held. */
CacheChunk *
cache_chunk_find(const CacheKey *key, uint32 bucket)
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
	uint32		bucket = cache_bucket_of(key);

	if (pg_atomic_read_u32(&chunk->state) != CHUNK_FREE || cache_chunk_find(key, bucket) != NULL)
		return;
	chunk_link(chunk, key, bucket);
	chunk->valid = valid;
	memcpy(chunk->checksums, checksums, sizeof(chunk->checksums));
}

void
cache_chunk_give_back(CacheChunk *chunk)
{
	pg_atomic_write_u32(&chunk->state, CHUNK_FREE);
}

bool
cache_chunk_evict(CacheChunk *chunk, bool wait)
{
	CacheKey	key = chunk->key;	/* may be torn: looked at again below the lock */
	uint32		bucket = cache_bucket_of(&key);
	bool		evicted = false;

	if (wait)
		LWLockAcquire(cache_lock_of(bucket), LW_EXCLUSIVE);
	else if (!LWLockConditionalAcquire(cache_lock_of(bucket), LW_EXCLUSIVE))
		return false;
	if (cache_chunk_find(&key, bucket) == chunk && pg_atomic_read_u32(&chunk->pins) == 0)
	{
		chunk_unlink(chunk, bucket);
		evicted = true;
	}
	LWLockRelease(cache_lock_of(bucket));
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

static bool
has_free_chunks(void)
{
	return pg_atomic_read_u32(&cache_shared->used) < pg_atomic_read_u32(&cache_shared->limit);
}

CacheChunk *
cache_chunk_lock_made(const CacheKey *key, uint32 bucket, bool passing)
{
	static uint32 passed;		/* chunks that found no place */
	CacheChunk *chunk;
	CacheChunk *taken;

	LWLockAcquire(cache_lock_of(bucket), LW_EXCLUSIVE);
	chunk = cache_chunk_find(key, bucket);
	if (chunk != NULL)
		return chunk;
	LWLockRelease(cache_lock_of(bucket));

	if (passing && !has_free_chunks() && ++passed % PASSING_IN != 0)
		return NULL;
	taken = chunk_take();
	if (taken == NULL)
		return NULL;
	LWLockAcquire(cache_lock_of(bucket), LW_EXCLUSIVE);
	chunk = cache_chunk_find(key, bucket);
	if (chunk != NULL)
	{
		cache_chunk_give_back(taken);
		return chunk;
	}
	chunk_link(taken, key, bucket);
	return taken;
}
