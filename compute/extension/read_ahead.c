#include "compute/extension/read_ahead.h"

#include "access/xact.h"
#include "port/pg_bitutils.h"

#include "common/base/mem.h"
#include "compute/extension/counters.h"
#include "compute/extension/local_cache.h"
#include "compute/extension/page_client.h"
#include "compute/extension/position.h"
#include "compute/extension/spill.h"

#define SLOT_COUNT 256
#define PARKED_BLOCKS_MAX 512	/* 4 MB a backend, under way and arrived */
#define TOLD_AGE_MAX (16 * SLOT_COUNT)	/* told of so long ago: whoever wanted it has gone */
#define CHUNK_BLOCKS 16
#define STREAM_COUNT 8
#define STREAM_MIN_BLOCKS 3		/* read in order before it counts as a stream */
#define STREAM_SCAN_BLOCKS 64	/* read in order before it counts as a scan of the whole */
#define STREAM_TOLD_READS 64	/* reads for which it is left to Postgres, which told us of some */

int			read_ahead_blocks_max;

typedef struct Slot
{
	uint64		request_id;		/* 0: free */
	RelFileLocator rlocator;
	ForkNumber	fork;
	BlockNumber block;
	int			count;
	uint32		left;			/* bit i: block + i is not handed out yet */
	bool		told;			/* by Postgres, not by a stream */
	uint64		asked_at;		/* of `clock_ticks` */
	XLogRecPtr	lsn;			/* at least so new; once arrived, just what it was read at */
	char	   *pages;			/* NULL: under way */
	int			place;			/* in `taken` */
} Slot;

typedef struct Stream
{
	RelFileLocator rlocator;
	ForkNumber	fork;
	BlockNumber next;			/* where the next read is expected */
	BlockNumber asked_end;
	uint32		run;			/* blocks read in order so far */
	uint32		told;			/* reads to come that are Postgres' to tell of */
	uint64		last_use;
} Stream;

static Slot slots[SLOT_COUNT];
static Slot *taken[SLOT_COUNT]; /* those that are not free, in no order */
static int	taken_count;
static int	parked_blocks;
static Stream streams[STREAM_COUNT];
static uint64 use_count;
static uint64 clock_ticks;		/* chunks asked for or wanted, blocks taken */
static bool told_of_some;		/* by Postgres, in this transaction */

static void
slot_free(Slot *slot)
{
	if (slot->left != 0)
		counter_add(COUNTER_READ_AHEAD_WASTED, (uint64) pg_popcount32(slot->left));
	parked_blocks -= slot->count;
	mem_free(slot->pages);
	taken[slot->place] = taken[--taken_count];
	taken[slot->place]->place = slot->place;
	memset(slot, 0, sizeof(*slot));
}

static void
on_reply(uint64 request_id, XLogRecPtr lsn, const char *pages, int count)
{
	for (int i = 0; i < taken_count; i++)
	{
		Slot	   *slot = taken[i];

		if (slot->request_id != request_id)
			continue;
		if (count != slot->count)
		{
			slot_free(slot);	/* refused */
			return;
		}
		slot->pages = mem_dup(pages, (size_t) count * BLCKSZ);
		slot->lsn = lsn;
		return;
	}
}

static void
on_lost(void)
{
	while (taken_count > 0)
		slot_free(taken[0]);
}

/* No scan outlives its transaction: nobody will want what Postgres told of for one. */
static void
on_xact(XactEvent event, void *arg)
{
	if (!told_of_some)
		return;
	if (event == XACT_EVENT_PRE_COMMIT || event == XACT_EVENT_PARALLEL_PRE_COMMIT ||
		event == XACT_EVENT_PRE_PREPARE)
		return;
	told_of_some = false;
	for (int i = taken_count - 1; i >= 0; i--)
		if (taken[i]->told)
			slot_free(taken[i]);
	for (int i = 0; i < STREAM_COUNT; i++)
		streams[i].told = 0;
}

void
read_ahead_init(void)
{
	page_client_ahead_init(on_reply, on_lost);
	RegisterXactCallback(on_xact, NULL);
}

static Slot *
slot_find(const RelFileLocator *rlocator, ForkNumber fork, BlockNumber block)
{
	for (int i = 0; i < taken_count; i++)
	{
		Slot	   *slot = taken[i];

		if (block >= slot->block && block - slot->block < (BlockNumber) slot->count &&
			slot->fork == fork && RelFileLocatorEquals(slot->rlocator, *rlocator) &&
			(slot->left & (1U << (block - slot->block))) != 0)
			return slot;
	}
	return NULL;
}

/*
 * Which of these blocks are parked, or on their way? Chunks that have become
 * too old for them are dropped, or their blocks would be waited for, one by one.
 */
static uint32
parked_of(const RelFileLocator *rlocator, ForkNumber fork, const RelFork *state,
		  BlockNumber block, int count)
{
	uint32		parked = 0;

	for (int i = taken_count - 1; i >= 0; i--)
	{
		Slot	   *slot = taken[i];
		int64		shift = (int64) slot->block - block;
		uint32		common;

		if (shift <= -slot->count || shift >= count || slot->fork != fork ||
			!RelFileLocatorEquals(slot->rlocator, *rlocator))
			continue;
		common = shift >= 0 ? slot->left << shift : slot->left >> -shift;
		if (common == 0)
			continue;
		if (slot->lsn >= rel_state_read_since(rlocator, fork, state, block, count))
			parked |= common;
		else
			slot_free(slot);
	}
	return parked;
}

/* Whose blocks are to be dropped for others: the oldest that may be, or NULL. */
static Slot *
find_victim(void)
{
	Slot	   *oldest = NULL;

	for (int i = 0; i < taken_count; i++)
	{
		Slot	   *slot = taken[i];

		if (slot->told && clock_ticks - slot->asked_at < TOLD_AGE_MAX)
			continue;
		if (oldest == NULL || slot->asked_at < oldest->asked_at)
			oldest = slot;
	}
	return oldest;
}

/*
 * What Postgres has told of lately will be wanted: the newcomer is refused then,
 * and read when its turn comes. To drop the oldest instead would drop each block
 * right before its turn, if Postgres tells of more than there is room for. A
 * stream may have ended anywhere: its blocks give way.
 */
static bool
make_room(int count)
{
	while (parked_blocks + count > PARKED_BLOCKS_MAX || taken_count == SLOT_COUNT)
	{
		Slot	   *victim = find_victim();

		if (victim == NULL)
			return false;
		slot_free(victim);
	}
	return true;
}

static Slot *
slot_take(void)
{
	/* of a few chunks at a time, the first slots are enough */
	for (int i = 0; i < SLOT_COUNT; i++)
		if (slots[i].request_id == 0)
		{
			taken[taken_count] = &slots[i];
			slots[i].place = taken_count++;
			return &slots[i];
		}
	pg_unreachable();			/* make_room() was asked */
}

static void
ask_chunk(const RelFileLocator *rlocator, ForkNumber fork, const RelFork *state,
		  BlockNumber block, int count, bool told)
{
	XLogRecPtr	since = rel_state_read_since(rlocator, fork, state, block, count);
	uint64		request_id;
	Slot	   *slot;

	clock_ticks++;
	if (since > position_acked())
		return;					/* do not make anyone wait for our own WAL */
	if (!make_room(count))
		return;
	request_id = page_client_ahead(rlocator, fork, block, count, since);
	if (request_id == 0)
		return;
	slot = slot_take();
	*slot = (Slot)
	{
		.request_id = request_id, .rlocator = *rlocator, .fork = fork, .block = block,
			.count = count, .told = told, .asked_at = clock_ticks, .lsn = since,
			.left = count == 32 ? UINT32_MAX : (1U << count) - 1, .place = slot->place
	};
	parked_blocks += count;
}

/* Those blocks of the chunk that are neither parked, nor in the local cache, nor in the spill. */
static void
ask_missing(const RelFileLocator *rlocator, ForkNumber fork, const RelFork *state,
			BlockNumber block, int count, bool told)
{
	uint32		here = local_cache_has(rlocator, fork, block, count);
	int			begin = 0;

	if (here != 0)
		local_cache_will_need(rlocator, fork, block, count);
	here |= parked_of(rlocator, fork, state, block, count);
	here |= spill_has(rlocator, fork, block, count);

	for (int i = 0; i <= count; i++)
	{
		if (i < count && (here & (1U << i)) == 0)
			continue;
		if (i > begin)
			ask_chunk(rlocator, fork, state, block + (BlockNumber) begin, i - begin, told);
		begin = i + 1;
	}
}

static void
ask(const RelFileLocator *rlocator, ForkNumber fork, const RelFork *state,
	BlockNumber block, int count, bool told)
{
	while (count > 0)
	{
		int			chunk = Min(count, CHUNK_BLOCKS);

		ask_missing(rlocator, fork, state, block, chunk, told);
		block += (BlockNumber) chunk;
		count -= chunk;
	}
}

static Stream *
stream_find(const RelFileLocator *rlocator, ForkNumber fork)
{
	Stream	   *least = &streams[0];

	for (int i = 0; i < STREAM_COUNT; i++)
	{
		Stream	   *stream = &streams[i];

		if (stream->last_use != 0 && RelFileLocatorEquals(stream->rlocator, *rlocator) &&
			stream->fork == fork)
		{
			stream->last_use = ++use_count;
			return stream;
		}
		if (stream->last_use < least->last_use)
			least = stream;
	}
	*least = (Stream)
	{
		.rlocator = *rlocator, .fork = fork, .next = InvalidBlockNumber, .last_use = ++use_count
	};
	return least;
}

bool
read_ahead_in_scan(const RelFileLocator *rlocator, ForkNumber fork)
{
	return read_ahead_blocks_max > 0 && stream_find(rlocator, fork)->run >= STREAM_SCAN_BLOCKS;
}

void
read_ahead_ask(const RelFileLocator *rlocator, ForkNumber fork,
			   const RelFork *state, BlockNumber block, int count)
{
	if (read_ahead_blocks_max == 0)
		return;
	stream_find(rlocator, fork)->told = STREAM_TOLD_READS;
	told_of_some = true;
	ask(rlocator, fork, state, block, count, true);
}

/* The distance grows with the run, so that a short scan asks for little that nobody wants. */
void
read_ahead_note(const RelFileLocator *rlocator, ForkNumber fork,
				const RelFork *state, BlockNumber block, int count)
{
	Stream	   *stream;
	BlockNumber distance;
	BlockNumber end;

	if (read_ahead_blocks_max == 0)
		return;
	stream = stream_find(rlocator, fork);
	if (stream->told > 0)
	{
		stream->told--;
		stream->run = 0;
		stream->next = InvalidBlockNumber;
		return;
	}
	if (stream->next != block)
	{
		stream->next = block + (BlockNumber) count;
		stream->asked_end = stream->next;
		stream->run = (uint32) count;
		return;
	}
	stream->next += (BlockNumber) count;
	stream->run += (uint32) count;
	if (stream->run < STREAM_MIN_BLOCKS)
		return;

	distance = Min(stream->run, (uint32) read_ahead_blocks_max);
	end = Min(stream->next + distance, state->blocks);
	stream->asked_end = Max(stream->asked_end, stream->next);
	if (end <= stream->asked_end)
		return;
	/* not block by block, unless the relation ends */
	if (end - stream->asked_end < Min(distance / 2, CHUNK_BLOCKS) && end < state->blocks)
		return;
	ask(rlocator, fork, state, stream->asked_end, (int) (end - stream->asked_end), false);
	stream->asked_end = end;
}

bool
read_ahead_take(const RelFileLocator *rlocator, ForkNumber fork,
				BlockNumber block, XLogRecPtr since, void *page, XLogRecPtr *lsn)
{
	Slot	   *slot = slot_find(rlocator, fork, block);
	uint64		request_id;
	int			index;
	bool		usable;

	clock_ticks++;
	if (slot == NULL)
		return false;
	request_id = slot->request_id;
	if (slot->pages == NULL)
		page_client_ahead_wait(request_id);
	if (slot->request_id != request_id)
		return false;			/* refused, or lost with the connection */
	if (slot->pages == NULL)
	{
		slot_free(slot);
		return false;
	}
	index = (int) (block - slot->block);
	usable = slot->lsn >= since;
	*lsn = slot->lsn;
	if (usable)
		memcpy(page, slot->pages + (size_t) index * BLCKSZ, BLCKSZ);
	counter_add(usable ? COUNTER_READ_AHEAD_HIT : COUNTER_READ_AHEAD_STALE, 1);
	slot->left &= ~(1U << index);
	if (slot->left == 0)
		slot_free(slot);
	return usable;
}
