#include "compute/extension/cid_notes.h"

#include "common/hashfn.h"
#include "port/atomics.h"
#include "storage/shmem.h"

#include "compute/extension/page_rules.h"

#define CHUNK_BLOCKS 1024		/* blocks of one note: 8 MB */
#define BUCKET_NOTES 4			/* places that a chunk may take */
#define BUCKETS		 8192		/* 5 MB in all */

typedef struct Note
{
	RelFileLocator rlocator;	/* relNumber 0: never used */
	BlockNumber chunk;
	FullTransactionId xid;
	CommandId	cid;
	uint64		blocks[CHUNK_BLOCKS / 64];	/* a bit a block */
} Note;

typedef struct NotesShared
{
	pg_atomic_uint32 used;		/* notes that were ever used: 0 for most of the time */
	Note		notes[BUCKETS * BUCKET_NOTES];
} NotesShared;

static NotesShared *shared;
static LWLockPadded *locks;

Size
cid_notes_shmem_size(void)
{
	return sizeof(NotesShared);
}

void
cid_notes_shmem_init(LWLockPadded *partition_locks)
{
	bool		found;

	locks = partition_locks;
	shared = ShmemInitStruct("anabranch command ids", sizeof(NotesShared), &found);
	if (!found)
		memset(shared, 0, sizeof(NotesShared));
}

static bool
is_empty(void)
{
	return pg_atomic_read_u32(&shared->used) == 0;
}

static uint32
bucket_of(const RelFileLocator *rlocator, BlockNumber chunk)
{
	uint64		rel = ((uint64) rlocator->dbOid << 32) | rlocator->relNumber;

	return (uint32) (hash_combine64(murmurhash64(rel), murmurhash64(chunk)) % BUCKETS);
}

static LWLock *
lock_of(uint32 bucket)
{
	return &locks[bucket % CID_NOTE_PARTITIONS].lock;
}

static bool
is_of(const Note *note, const RelFileLocator *rlocator, BlockNumber chunk)
{
	return note->chunk == chunk && RelFileLocatorEquals(note->rlocator, *rlocator);
}

/* The lock of the bucket is held. */
static Note *
find(uint32 bucket, const RelFileLocator *rlocator, BlockNumber chunk)
{
	for (int i = 0; i < BUCKET_NOTES; i++)
		if (is_of(&shared->notes[bucket * BUCKET_NOTES + i], rlocator, chunk))
			return &shared->notes[bucket * BUCKET_NOTES + i];
	return NULL;
}

static bool
has_bits(const Note *note)
{
	for (int i = 0; i < CHUNK_BLOCKS / 64; i++)
		if (note->blocks[i] != 0)
			return true;
	return false;
}

/* May it be given to another transaction or chunk? */
static bool
is_over(const Note *note)
{
	PageHorizons now;

	if (!has_bits(note))
		return true;
	now = page_rules_horizons(InvalidXLogRecPtr);
	return FullTransactionIdPrecedes(note->xid, now.oldest_active);
}

static Note *
find_room(uint32 bucket)
{
	for (int i = 0; i < BUCKET_NOTES; i++)
	{
		Note	   *note = &shared->notes[bucket * BUCKET_NOTES + i];

		if (note->rlocator.relNumber == 0)
		{
			pg_atomic_fetch_add_u32(&shared->used, 1);
			return note;
		}
	}
	for (int i = 0; i < BUCKET_NOTES; i++)
		if (is_over(&shared->notes[bucket * BUCKET_NOTES + i]))
			return &shared->notes[bucket * BUCKET_NOTES + i];
	return NULL;
}

static void
set_bit(Note *note, BlockNumber block, bool value)
{
	uint64		bit = UINT64CONST(1) << (block % 64);
	uint64	   *word = &note->blocks[block % CHUNK_BLOCKS / 64];

	*word = value ? *word | bit : *word & ~bit;
}

bool
cid_notes_put(const RelFileLocator *rlocator, BlockNumber block,
			  FullTransactionId xid, CommandId cid)
{
	BlockNumber chunk = block / CHUNK_BLOCKS;
	uint32		bucket = bucket_of(rlocator, chunk);
	Note	   *note;

	LWLockAcquire(lock_of(bucket), LW_EXCLUSIVE);
	note = find(bucket, rlocator, chunk);
	if (note != NULL)
		set_bit(note, block, false);
	if (note == NULL || !FullTransactionIdEquals(note->xid, xid) || note->cid != cid)
	{
		if (note == NULL)
			note = find_room(bucket);
		else if (!is_over(note))
			note = NULL;
		if (note != NULL)
			*note = (Note)
		{
			.rlocator = *rlocator, .chunk = chunk, .xid = xid, .cid = cid
		};
	}
	if (note != NULL)
		set_bit(note, block, true);
	LWLockRelease(lock_of(bucket));
	return note != NULL;
}

static void
forget_in_chunk(const RelFileLocator *rlocator, BlockNumber chunk,
				BlockNumber begin, BlockNumber end)
{
	uint32		bucket = bucket_of(rlocator, chunk);
	Note	   *note;

	LWLockAcquire(lock_of(bucket), LW_EXCLUSIVE);
	note = find(bucket, rlocator, chunk);
	for (BlockNumber i = 0; note != NULL && i < CHUNK_BLOCKS; i++)
		if (chunk * CHUNK_BLOCKS + i >= begin && chunk * CHUNK_BLOCKS + i < end)
			set_bit(note, i, false);
	LWLockRelease(lock_of(bucket));
}

void
cid_notes_forget(const RelFileLocator *rlocator, BlockNumber begin, BlockNumber end)
{
	if (is_empty() || begin >= end)
		return;

	/* ask chunk by chunk, or look at every note: whatever is less */
	if ((end - 1) / CHUNK_BLOCKS - begin / CHUNK_BLOCKS < BUCKETS)
	{
		for (BlockNumber chunk = begin / CHUNK_BLOCKS; chunk <= (end - 1) / CHUNK_BLOCKS; chunk++)
			forget_in_chunk(rlocator, chunk, begin, end);
		return;
	}
	for (uint32 i = 0; i < BUCKETS * BUCKET_NOTES; i++)
	{
		Note		seen = shared->notes[i];	/* a hint: looked at again below the lock */

		if (RelFileLocatorEquals(seen.rlocator, *rlocator))
			forget_in_chunk(rlocator, seen.chunk, begin, end);
	}
}

void
cid_notes_forget_database(Oid database, Oid tablespace)
{
	if (is_empty())
		return;
	for (uint32 i = 0; i < BUCKETS * BUCKET_NOTES; i++)
	{
		Note		seen = shared->notes[i];

		if (seen.rlocator.dbOid == database && seen.rlocator.relNumber != 0 &&
			(!OidIsValid(tablespace) || seen.rlocator.spcOid == tablespace))
			forget_in_chunk(&seen.rlocator, seen.chunk, 0, InvalidBlockNumber);
	}
}

void
cid_notes_apply(const RelFileLocator *rlocator, BlockNumber block, Page page)
{
	BlockNumber chunk = block / CHUNK_BLOCKS;
	uint32		bucket;
	TransactionId xid = InvalidTransactionId;
	CommandId	cid = InvalidCommandId;
	Note	   *note;

	if (is_empty() || PageIsNew(page))
		return;
	bucket = bucket_of(rlocator, chunk);
	LWLockAcquire(lock_of(bucket), LW_SHARED);
	note = find(bucket, rlocator, chunk);
	if (note != NULL && (note->blocks[block % CHUNK_BLOCKS / 64] >> (block % 64) & 1) != 0)
	{
		xid = XidFromFullTransactionId(note->xid);
		cid = note->cid;
	}
	LWLockRelease(lock_of(bucket));
	if (TransactionIdIsValid(xid))
		page_rules_set_command_id(page, xid, cid);
}
