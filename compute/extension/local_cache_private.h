/*
 * local_cache_private.h - what the files of the local cache share.
 */
#pragma once

#include "compute/extension/local_cache.h"

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

extern int	local_cache_mb;
extern int	local_cache_max_mb;
extern char *local_cache_dir;
extern CacheShared *cache_shared;
extern CacheChunk *cache_chunks;
extern char cache_file_path[MAXPGPATH];

/* At the start of the server, before anybody else is there. */
extern void cache_file_open_first(void);

/* Only then: what was at this place when the server was stopped. */
extern void cache_chunk_restore(uint32 place, const CacheKey *key, uint8 valid,
								const uint32 *checksums);

/* On success the chunk is taken: the caller's. Without `wait` a busy lock is a failure. */
extern bool cache_chunk_evict(CacheChunk *chunk, bool wait);

/* Take on the size that is set now. false: some chunks above it are in use, try again soon. */
extern bool cache_limit_apply(void);
