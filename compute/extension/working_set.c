#include "compute/extension/working_set.h"

#include <endian.h>

#include "access/xlog.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "common/base/checksum.h"
#include "compute/extension/counters.h"
#include "compute/extension/local_cache_private.h"
#include "compute/extension/page_client.h"
#include "compute/extension/position.h"
#include "compute/extension/rel_state.h"
#include "compute/extension/storage.h"

#define LIST_FORMAT 1
#define RANGES_MAX 10000		/* of a list: 240 kB */
#define STEP_CHUNKS 4			/* requests in flight */
#define FULL_PERCENT 90			/* then it is enough */

/* All u32, little-endian, as in the list. */
typedef struct ListHeader
{
	uint32		format;
	uint32		chunk_blocks;
} ListHeader;

typedef struct Range
{
	uint32		spc;
	uint32		db;
	uint32		rel;
	uint32		fork;
	uint32		first;			/* number of the first chunk */
	uint32		count;
} Range;

static int	prewarm_mb_per_s;
static uint64 saved_hash;		/* of the list that the pageserver has; 0: not known */

static struct
{
	Range	   *ranges;
	uint32		count;
	uint32		at;				/* range */
	uint32		done;			/* chunks of it */
	uint64		fetched;		/* blocks */
}			prewarm;

void
working_set_define_setting(void)
{
	DefineCustomIntVariable("anabranch.prewarm_mb_per_s",
							"How fast an empty local cache is filled after a start, 0 for not at all.",
							NULL, &prewarm_mb_per_s, 64, 0, 1024 * 1024, PGC_SIGHUP, 0,
							NULL, NULL, NULL);
}

/* ---------------------------------------------------------------- telling */

static int
compare_keys(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(CacheKey));
}

/* In an order in which neighbours are beside each other: big-endian numbers, compared as bytes. */
static CacheKey
sortable(const CacheKey *key)
{
	return (CacheKey)
	{
		.rlocator.spcOid = htobe32(key->rlocator.spcOid),
			.rlocator.dbOid = htobe32(key->rlocator.dbOid),
			.rlocator.relNumber = htobe32(key->rlocator.relNumber),
			.fork = (ForkNumber) htobe32((uint32) key->fork),
			.number = htobe32(key->number)
	};
}

static uint32
collect_keys(CacheKey *keys, uint32 max, uint32 heat_least)
{
	uint32		count = 0;

	for (uint32 i = 0; i < pg_atomic_read_u32(&cache_shared->limit_ever) && count < max; i++)
	{
		CacheChunk *chunk = &cache_chunks[i];

		if (pg_atomic_read_u32(&chunk->state) == CHUNK_HASHED && chunk->valid != 0 &&
			pg_atomic_read_u32(&chunk->heat) >= heat_least)
			keys[count++] = sortable(&chunk->key);
	}
	qsort(keys, count, sizeof(CacheKey), compare_keys);
	return count;
}

/* Returns how many ranges they make; only `max` of them are written. */
static uint32
make_ranges(const CacheKey *keys, uint32 key_count, Range *ranges, uint32 max)
{
	uint32		count = 0;
	uint32		next = 0;		/* number that continues the last range */

	for (uint32 i = 0; i < key_count; i++)
	{
		uint32		number = be32toh(keys[i].number);

		if (i == 0 || number != next ||
			memcmp(&keys[i], &keys[i - 1], offsetof(CacheKey, number)) != 0)
		{
			if (++count > max)
				continue;
			ranges[count - 1] = (Range)
			{
				.spc = htole32(be32toh(keys[i].rlocator.spcOid)),
					.db = htole32(be32toh(keys[i].rlocator.dbOid)),
					.rel = htole32(be32toh(keys[i].rlocator.relNumber)),
					.fork = htole32(be32toh((uint32) keys[i].fork)),
					.first = htole32(number)
			};
		}
		if (count <= max)
			ranges[count - 1].count = htole32(le32toh(ranges[count - 1].count) + 1);
		next = number + 1;
	}
	return count;
}

void
working_set_save(void)
{
	uint32		max = (uint32) (local_cache_used() / CHUNK_BLOCKS);
	CacheKey   *keys;
	char	   *list;
	ListHeader	header = {htole32(LIST_FORMAT), htole32(CHUNK_BLOCKS)};
	uint32		count;
	size_t		size;
	uint64		hash;

	if (max == 0 || RecoveryInProgress())
		return;
	keys = palloc_extended((Size) max * sizeof(CacheKey), MCXT_ALLOC_HUGE);
	list = palloc(sizeof(ListHeader) + RANGES_MAX * sizeof(Range));

	/* the hottest ones, if they are too many */
	for (uint32 heat = 0;; heat++)
	{
		count = make_ranges(keys, collect_keys(keys, max, heat),
							(Range *) (list + sizeof(ListHeader)), RANGES_MAX);
		if (count <= RANGES_MAX || heat == CHUNK_HEAT_MAX)
			break;
	}
	memcpy(list, &header, sizeof(header));
	size = sizeof(ListHeader) + Min(count, RANGES_MAX) * sizeof(Range);
	hash = hash64(list, size, 0);
	if (hash != saved_hash)
		page_client_put_working_set(list, size);
	saved_hash = hash;
	pfree(list);
	pfree(keys);
}

/* ---------------------------------------------------------------- fetching */

bool
working_set_begin(void)
{
	MemoryContext before = MemoryContextSwitchTo(TopMemoryContext);
	size_t		size;
	char	   *list;
	ListHeader	header;

	if (prewarm_mb_per_s == 0 || local_cache_limit() == 0 || cache_shared->restored ||
		RecoveryInProgress())
		return false;
	list = page_client_get_working_set(&size);
	MemoryContextSwitchTo(before);
	if (size < sizeof(ListHeader))
		return false;
	memcpy(&header, list, sizeof(header));
	if (le32toh(header.format) != LIST_FORMAT || le32toh(header.chunk_blocks) != CHUNK_BLOCKS)
		return false;
	prewarm.ranges = (Range *) (list + sizeof(ListHeader));
	prewarm.count = (uint32) ((size - sizeof(ListHeader)) / sizeof(Range));
	return prewarm.count > 0;
}

/* The next chunk that the list names. */
static bool
next_chunk(RelFileLocator *rlocator, ForkNumber *fork, BlockNumber *block)
{
	while (prewarm.at < prewarm.count)
	{
		const Range *range = &prewarm.ranges[prewarm.at];
		uint64		number = (uint64) le32toh(range->first) + prewarm.done;

		if (prewarm.done++ < le32toh(range->count) &&
			number < InvalidBlockNumber / CHUNK_BLOCKS && le32toh(range->fork) < REL_FORKS)
		{
			rlocator->spcOid = le32toh(range->spc);
			rlocator->dbOid = le32toh(range->db);
			rlocator->relNumber = le32toh(range->rel);
			*fork = (ForkNumber) le32toh(range->fork);
			*block = (BlockNumber) number * CHUNK_BLOCKS;
			return true;
		}
		prewarm.at++;
		prewarm.done = 0;
	}
	return false;
}

/* false: it is here, or it is not there any more, or it would have to be waited for. */
static bool
prepare_read(PageRead *read, char *room)
{
	RelFork		state;

	if (rel_state_is_local(&read->rlocator))
		return false;
	state = rel_state_fork(&read->rlocator, read->fork);
	if (state.blocks >= BLOCKS_UNKNOWN || read->block >= state.blocks)
		return false;
	read->count = (int) Min(CHUNK_BLOCKS, state.blocks - read->block);
	if (local_cache_has(&read->rlocator, read->fork, read->block, read->count) != 0)
		return false;
	read->since = rel_state_read_since(&read->rlocator, read->fork, &state, read->block,
									   read->count);
	for (int i = 0; i < read->count; i++)
		read->pages[i] = room + (Size) i * BLCKSZ;
	return read->since <= position_acked();
}

bool
working_set_step(long *rest_ms)
{
	static PGIOAlignedBlock room[STEP_CHUNKS * CHUNK_BLOCKS];
	PageRead	reads[STEP_CHUNKS];
	int			count = 0;
	int			looked_at = 0;
	bool		more = true;
	uint64		blocks = 0;

	while (more && count < STEP_CHUNKS && looked_at++ < 1000)
	{
		PageRead   *read = &reads[count];

		memset(read, 0, sizeof(*read));
		more = next_chunk(&read->rlocator, &read->fork, &read->block) &&
			local_cache_used() < local_cache_limit() * FULL_PERCENT / 100;
		if (more && prepare_read(read, room[count * CHUNK_BLOCKS].data))
			count++;
	}
	if (count > 0)
		page_client_read(reads, count);
	for (int i = 0; i < count; i++)
	{
		storage_offer_to_cache(&reads[i]);
		blocks += (uint64) reads[i].count;
	}
	counter_add(COUNTER_PREWARM, blocks);
	prewarm.fetched += blocks;
	*rest_ms = (long) (blocks * BLCKSZ * 1000 / ((uint64) Max(prewarm_mb_per_s, 1) * 1024 * 1024));
	if (!more)
		ereport(LOG,
				(errmsg("the local cache was filled with " UINT64_FORMAT " blocks of the working set",
						prewarm.fetched)));
	return more && prewarm_mb_per_s > 0;
}
