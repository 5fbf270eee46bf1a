#include "compute/extension/spill.h"

#include <fcntl.h>
#include <unistd.h>

#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/shmem.h"
#include "storage/spin.h"
#include "utils/hsearch.h"
#include "utils/wait_event.h"

#include "compute/extension/counters.h"
#include "compute/extension/position.h"
#include "compute/extension/shared_table.h"

#define SPILL_FILE "anabranch.spill"
#define SWEEP_EVERY 64			/* writes */
#define SWEEP_SLOTS 256			/* slots looked at then */

typedef struct SpillKey
{
	RelFileLocator rlocator;
	ForkNumber	fork;
	BlockNumber block;
} SpillKey;

typedef struct SpillEntry
{
	SpillKey	key;
	uint32		slot;			/* where in the file, in blocks */
	PageVerdict verdict;
} SpillEntry;

typedef struct SpillShared
{
	uint32		capacity;
	pg_atomic_uint32 sweep_hand;
	pg_atomic_uint32 write_count;
	slock_t		mutex;			/* what follows */
	uint32		high_water;		/* slots from here on were never used */
	uint32		used;			/* slots that are in use */
	uint32		peak;			/* most slots that were ever used at once */
	uint32		free_count;		/* below high_water */
	uint32		free_slots[FLEXIBLE_ARRAY_MEMBER];
} SpillShared;

static SpillShared *shared;
static SpillKey *slot_keys;		/* a hint for the sweep: read without a lock */
static HTAB *spill_index;
static LWLockPadded *locks;
static int	spill_fd = -1;

static Size
spill_slots(int limit_mb)
{
	return (Size) limit_mb * (1024 * 1024 / BLCKSZ);
}

Size
spill_shmem_size(int limit_mb)
{
	Size		slots = spill_slots(limit_mb);
	Size		size = offsetof(SpillShared, free_slots);

	size = add_size(size, mul_size(slots, sizeof(uint32)));
	size = add_size(size, mul_size(slots, sizeof(SpillKey)));
	return add_size(size, shared_table_size((long) slots, sizeof(SpillEntry)));
}

void
spill_shmem_init(int limit_mb, LWLockPadded *partition_locks)
{
	Size		slots = spill_slots(limit_mb);
	HASHCTL		control = {
		.keysize = sizeof(SpillKey),
		.entrysize = sizeof(SpillEntry),
		.num_partitions = SPILL_PARTITIONS,
	};
	bool		found;

	locks = partition_locks;
	shared = ShmemInitStruct("anabranch spill",
							 offsetof(SpillShared, free_slots) + slots * sizeof(uint32), &found);
	if (!found)
	{
		shared->capacity = (uint32) slots;
		pg_atomic_init_u32(&shared->sweep_hand, 0);
		pg_atomic_init_u32(&shared->write_count, 0);
		SpinLockInit(&shared->mutex);
		shared->high_water = 0;
		shared->used = shared->peak = 0;
		shared->free_count = 0;
		if (unlink(SPILL_FILE) < 0 && errno != ENOENT)
			ereport(FATAL,
					(errcode_for_file_access(),
					 errmsg("could not remove file \"%s\": %m", SPILL_FILE)));
	}
	slot_keys = ShmemInitStruct("anabranch spill keys", slots * sizeof(SpillKey), &found);
	/* A key of zeros is no key, and so is memory of a server that starts. */
	spill_index = shared_table_init(SHARED_TABLE_SPILL, "anabranch spill index", (long) slots, &control);
}

static SpillKey
key_of(const RelFileLocator *rlocator, ForkNumber fork, BlockNumber block)
{
	StaticAssertStmt(sizeof(SpillKey) == 5 * sizeof(uint32), "no padding: the key is hashed as bytes");
	return (SpillKey)
	{
		.rlocator = *rlocator, .fork = fork, .block = block
	};
}

static LWLock *
lock_of(uint32 hash)
{
	return &locks[hash % SPILL_PARTITIONS].lock;
}

/* The descriptor is opened on first use in each process and kept. */
static int
spill_file(void)
{
	if (spill_fd < 0)
	{
		spill_fd = BasicOpenFile(SPILL_FILE, O_RDWR | O_CREAT | O_CLOEXEC | PG_BINARY);
		if (spill_fd < 0)
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not open file \"%s\": %m", SPILL_FILE)));
		ReserveExternalFD();
	}
	return spill_fd;
}

static bool
slot_take(uint32 *slot)
{
	bool		taken = true;

	SpinLockAcquire(&shared->mutex);
	if (shared->free_count > 0)
		*slot = shared->free_slots[--shared->free_count];
	else if (shared->high_water < shared->capacity)
		*slot = shared->high_water++;
	else
		taken = false;
	if (taken)
	{
		shared->used++;
		shared->peak = Max(shared->peak, shared->used);
	}
	SpinLockRelease(&shared->mutex);
	return taken;
}

static void
slot_give_back(uint32 slot)
{
	SpinLockAcquire(&shared->mutex);
	shared->free_slots[shared->free_count++] = slot;
	shared->used--;
	SpinLockRelease(&shared->mutex);
}

static uint32
slots_ever_used(void)
{
	return *(volatile uint32 *) &shared->high_water;
}

bool
spill_next(uint32 *slot, ForkNumber fork, RelFileLocator *rlocator, BlockNumber *block)
{
	for (uint32 end = slots_ever_used(); *slot < end; ++*slot)
	{
		SpillKey	key = slot_keys[*slot];

		if (key.fork == fork && key.rlocator.relNumber != InvalidRelFileNumber)
		{
			*rlocator = key.rlocator;
			*block = key.block;
			++*slot;
			return true;
		}
	}
	return false;
}

/* The partition lock is held exclusively. */
static void
entry_remove(SpillEntry *entry, uint32 hash)
{
	uint32		slot = entry->slot;

	hash_search_with_hash_value(spill_index, &entry->key, hash, HASH_REMOVE, NULL);
	slot_give_back(slot);
}

static SpillEntry *
entry_make(const SpillKey *key, uint32 hash)
{
	SpillEntry *entry;
	uint32		slot;
	bool		found;

	entry = hash_search_with_hash_value(spill_index, key, hash, HASH_FIND, NULL);
	if (entry != NULL)
		return entry;
	if (!slot_take(&slot))
		return NULL;
	entry = hash_search_with_hash_value(spill_index, key, hash, HASH_ENTER_NULL, &found);
	if (entry == NULL)
	{
		slot_give_back(slot);
		return NULL;
	}
	entry->slot = slot;
	slot_keys[slot] = *key;
	return entry;
}

void
spill_refuse(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("the spill of this compute is full"),
			 errdetail("It has %u pages that WAL cannot rebuild, anabranch.spill_limit_mb allows %u.",
					   spill_used(), shared->capacity),
			 errhint("Write less in one transaction, or raise anabranch.spill_limit_mb.")));
}

void
spill_put(const RelFileLocator *rlocator, ForkNumber fork, BlockNumber block,
		  const void *page, const PageVerdict *verdict)
{
	SpillKey	key = key_of(rlocator, fork, block);
	uint32		hash = get_hash_value(spill_index, &key);
	int			fd = spill_file();
	SpillEntry *entry;
	ssize_t		written;

	LWLockAcquire(lock_of(hash), LW_EXCLUSIVE);
	entry = entry_make(&key, hash);
	if (entry == NULL)
		spill_refuse();
	entry->verdict = *verdict;

	/*
	 * The lock is held over the write, so that no sweep hands the slot to
	 * another page meanwhile. It goes to the page cache, as fsync is off.
	 */
	errno = 0;
	pgstat_report_wait_start(WAIT_EVENT_BUFFILE_WRITE);
	written = pg_pwrite(fd, page, BLCKSZ, (off_t) entry->slot * BLCKSZ);
	pgstat_report_wait_end();
	if (written != BLCKSZ)
	{
		int			error = errno != 0 ? errno : ENOSPC;

		/* the page stays dirty in its buffer; what is here may be torn */
		entry_remove(entry, hash);
		LWLockRelease(lock_of(hash));
		errno = error;
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not write to file \"%s\": %m", SPILL_FILE)));
	}
	LWLockRelease(lock_of(hash));

	if (pg_atomic_fetch_add_u32(&shared->write_count, 1) % SWEEP_EVERY == SWEEP_EVERY - 1)
		spill_sweep(SWEEP_SLOTS, position_acked());
}

bool
spill_get(const RelFileLocator *rlocator, ForkNumber fork, BlockNumber block, void *page)
{
	SpillKey	key = key_of(rlocator, fork, block);
	uint32		hash = get_hash_value(spill_index, &key);
	SpillEntry *entry;
	ssize_t		got = BLCKSZ;

	LWLockAcquire(lock_of(hash), LW_SHARED);
	entry = hash_search_with_hash_value(spill_index, &key, hash, HASH_FIND, NULL);
	if (entry != NULL && page != NULL)
	{
		errno = 0;
		pgstat_report_wait_start(WAIT_EVENT_BUFFILE_READ);
		got = pg_pread(spill_file(), page, BLCKSZ, (off_t) entry->slot * BLCKSZ);
		pgstat_report_wait_end();
	}
	LWLockRelease(lock_of(hash));
	if (got != BLCKSZ)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not read from file \"%s\": %m", SPILL_FILE)));
	return entry != NULL;
}

uint32
spill_has(const RelFileLocator *rlocator, ForkNumber fork, BlockNumber block, int count)
{
	uint32		here = 0;

	if (spill_used() == 0)
		return 0;
	for (int i = 0; i < count; i++)
		if (spill_get(rlocator, fork, block + (BlockNumber) i, NULL))
			here |= 1U << i;
	return here;
}

void
spill_forget(const RelFileLocator *rlocator, ForkNumber fork, BlockNumber block)
{
	SpillKey	key = key_of(rlocator, fork, block);
	uint32		hash = get_hash_value(spill_index, &key);
	SpillEntry *entry;

	/* most pages are not here: look with the weak lock first */
	LWLockAcquire(lock_of(hash), LW_SHARED);
	entry = hash_search_with_hash_value(spill_index, &key, hash, HASH_FIND, NULL);
	LWLockRelease(lock_of(hash));
	if (entry == NULL)
		return;

	LWLockAcquire(lock_of(hash), LW_EXCLUSIVE);
	entry = hash_search_with_hash_value(spill_index, &key, hash, HASH_FIND, NULL);
	if (entry != NULL)
		entry_remove(entry, hash);
	LWLockRelease(lock_of(hash));
}

/* Remove the page in `slot`, if it is still the one that `matches` saw. */
static void
slot_forget(uint32 slot, const SpillKey *key)
{
	uint32		hash = get_hash_value(spill_index, key);
	SpillEntry *entry;

	LWLockAcquire(lock_of(hash), LW_EXCLUSIVE);
	entry = hash_search_with_hash_value(spill_index, key, hash, HASH_FIND, NULL);
	if (entry != NULL && entry->slot == slot)
		entry_remove(entry, hash);
	LWLockRelease(lock_of(hash));
}

void
spill_truncate(const RelFileLocator *rlocator, ForkNumber fork,
			   BlockNumber begin, BlockNumber end)
{
	if (begin >= end)
		return;

	/* ask block by block, or look at every slot: whatever is less */
	if (end - begin <= spill_used())
	{
		for (BlockNumber block = begin; block < end; block++)
			spill_forget(rlocator, fork, block);
		return;
	}
	for (uint32 slot = 0; slot < slots_ever_used(); slot++)
	{
		SpillKey	key = slot_keys[slot];

		if (RelFileLocatorEquals(key.rlocator, *rlocator) && key.fork == fork &&
			key.block >= begin && key.block < end)
			slot_forget(slot, &key);
	}
}

void
spill_forget_database(Oid database, Oid tablespace)
{
	for (uint32 slot = 0; slot < slots_ever_used(); slot++)
	{
		SpillKey	key = slot_keys[slot];

		if (key.rlocator.dbOid == database && key.rlocator.relNumber != 0 &&
			(!OidIsValid(tablespace) || key.rlocator.spcOid == tablespace))
			slot_forget(slot, &key);
	}
}

static bool
sweep_slot(uint32 slot, const PageHorizons *now, bool pressed)
{
	SpillKey	key = slot_keys[slot];
	uint32		hash;
	SpillEntry *entry;
	bool		over = false;

	if (key.rlocator.relNumber == 0)
		return false;			/* never used */
	hash = get_hash_value(spill_index, &key);
	LWLockAcquire(lock_of(hash), LW_EXCLUSIVE);
	entry = hash_search_with_hash_value(spill_index, &key, hash, HASH_FIND, NULL);
	if (entry != NULL && entry->slot == slot && page_rules_over(&entry->verdict, now, pressed))
	{
		entry_remove(entry, hash);
		over = true;
	}
	LWLockRelease(lock_of(hash));
	return over;
}

void
spill_sweep(int count, XLogRecPtr acked)
{
	PageHorizons now = page_rules_horizons(acked);
	bool		pressed = spill_used() >= spill_soft_limit();
	uint32		hand = pg_atomic_fetch_add_u32(&shared->sweep_hand, (uint32) count);
	uint32		used = slots_ever_used();
	uint32		looked_at = Min((uint32) count, used);
	int			swept = 0;

	for (uint32 i = 0; i < looked_at; i++)
		swept += sweep_slot((hand + i) % used, &now, pressed);
	if (swept > 0)
		counter_add(COUNTER_SPILL_SWEPT, (uint64) swept);
}

uint32
spill_used(void)
{
	return *(volatile uint32 *) &shared->used;
}

uint32
spill_peak(void)
{
	return *(volatile uint32 *) &shared->peak;
}

uint32
spill_capacity(void)
{
	return shared->capacity;
}

uint32
spill_soft_limit(void)
{
	return shared->capacity / 4 * 3;
}

uint32
spill_hard_limit(void)
{
	return shared->capacity / 16 * 15;
}
