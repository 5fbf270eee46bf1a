/*
 * local_cache_private.h - the local cache from the inside:
 *
 *   local_cache.c        the calls: reads, puts, offers, forgetting; its size
 *   local_cache_table.c  chunks in shared memory: found by their key, taken by a clock
 *   local_cache_pages.c  the file of the pages, and what an error of it does
 *   local_cache_index.c  what a clean stop leaves to the next start
 *   local_cache_check.c  every page compared with the pageserver's, for tests
 *   cache_worker.c       the process that fetches the working set and applies the size
 *
 * Locks and the rules of what may be here: local_cache.h.
 */
#pragma once

#include "compute/extension/local_cache.h"

#include <sys/uio.h>

#include "port/atomics.h"

#define CHUNK_BLOCKS 8
#define CHUNK_BYTES (CHUNK_BLOCKS * BLCKSZ)
#define CHUNK_HEAT_MAX 3		/* rounds of the clock that a chunk in use survives */

typedef struct CacheKey
{
	RelFileLocator rlocator;
	ForkNumber	fork;
	uint32		number;			/* block / CHUNK_BLOCKS */
} CacheKey;

/* Its place in the file is its index. All zero: free. */
typedef struct CacheChunk
{
	CacheKey	key;
	pg_atomic_uint32 state;
	uint32		next;			/* in its bucket: index + 1, 0 for none */
	pg_atomic_uint32 pins;		/* reads under way */
	pg_atomic_uint32 heat;
	uint8		valid;			/* bit i: block i is here */
	uint32		checksums[CHUNK_BLOCKS];
} CacheChunk;

enum
{
	CHUNK_FREE,					/* anybody may take it */
	CHUNK_TAKEN,				/* somebody is about to use it */
	CHUNK_HASHED,				/* can be found by its key; the partition lock guards it */
};

typedef struct CacheShared
{
	uint32		chunk_max;
	bool		restored;		/* a clean stop left the cache to this start */
	pg_atomic_uint32 limit;		/* chunks from here on are not to be taken */
	pg_atomic_uint32 limit_ever;	/* the highest limit so far */
	pg_atomic_uint32 used;		/* chunks that are hashed */
	pg_atomic_uint32 hand;		/* of the clock */
	pg_atomic_uint32 filled;	/* 1: the working set was fetched, or there was nothing to fetch */
	pg_atomic_uint32 off;		/* not 0: the file failed */
} CacheShared;

/* -- local_cache.c -- */

extern int	local_cache_mb;		/* the settings; cache_shared->limit is what holds now */
extern int	local_cache_max_mb;
extern char *local_cache_dir;

/* Take on the size that is set now. false: some chunks above it are in use, try again soon. */
extern bool cache_limit_apply(void);

/* -- local_cache_table.c -- */

extern CacheShared *cache_shared;
extern CacheChunk *cache_chunks;

extern uint32 cache_chunks_of_mb(int mb);
extern CacheKey cache_key_of(const RelFileLocator *rlocator, ForkNumber fork, BlockNumber block);

/* Where chunks with this key are linked, and the partition lock that guards them there. */
extern uint32 cache_bucket_of(const CacheKey *key);
extern LWLock *cache_lock_of(uint32 bucket);

/* NULL: not here. The lock is held. */
extern CacheChunk *cache_chunk_find(const CacheKey *key, uint32 bucket);

/* Found or made, its lock held exclusively; NULL and no lock if there is no room. */
extern CacheChunk *cache_chunk_lock_made(const CacheKey *key, uint32 bucket, bool passing);

/* On success the chunk is taken: the caller's. Without `wait` a busy lock is a failure. */
extern bool cache_chunk_evict(CacheChunk *chunk, bool wait);
extern void cache_chunk_give_back(CacheChunk *chunk);

/* At the start of the server only: what was at this place when it was stopped. */
extern void cache_chunk_restore(uint32 place, const CacheKey *key, uint8 valid,
								const uint32 *checksums);

/* -- local_cache_pages.c -- */

extern char cache_file_path[MAXPGPATH];

/* Its descriptor. -1: this process cannot open it, which may pass. */
extern int	cache_file(void);
extern off_t cache_offset_of(const CacheChunk *chunk, int at);

/* `count` pages from block `at` of the chunk on. 0, or the error's number. */
extern int	cache_file_write(const CacheChunk *chunk, int at, const struct iovec *pages, int count);

/* And -1: this process cannot open it. A file that is too short is zero there. */
extern int	cache_file_read(const CacheChunk *chunk, int at, const struct iovec *pages, int count);
extern uint32 cache_checksum_of(const void *page);

extern bool cache_is_off(void);

/* The file failed with `error`, an errno, at "read" or "write". No lock is held. */
extern void cache_turn_off(const char *what, int error);

/* -- local_cache_index.c -- */

/* At the start of the server, before anybody else is there. */
extern void cache_file_open_first(void);
