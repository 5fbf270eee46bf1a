#include "compute/extension/rel_state.h"

#include <unistd.h>

#include "catalog/pg_tablespace_d.h"
#include "common/relpath.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/shmem.h"
#include "utils/hsearch.h"

#include "compute/extension/counters.h"
#include "compute/extension/last_written.h"
#include "compute/extension/page_client.h"
#include "compute/extension/position.h"
#include "compute/extension/shared_table.h"

#define CRITICAL_RESERVE 256	/* entries that only critical sections may take */

typedef union PaddedVersion
{
	pg_atomic_uint64 value;
	char		padding[PG_CACHE_LINE_SIZE];
} PaddedVersion;

typedef struct RelShared
{
	pg_atomic_uint64 evicted_lsn;	/* newest change_lsn among evicted entries */
	PaddedVersion versions[REL_PARTITIONS]; /* how often each was locked exclusively */
} RelShared;

/*
 * What this process saw of a relation lately. It is still so as long as nobody
 * has locked the partition exclusively: whoever does counts its version up
 * first, and what is copied here is copied under the lock. So the size of a
 * relation that does not change costs no lock, which every statement's planning
 * would take otherwise, for the same few relations in all backends.
 */
typedef struct Seen
{
	RelFileLocator rlocator;
	bool		local;
	const pg_atomic_uint64 *version;	/* NULL: nothing seen */
	uint64		seen_version;
	RelFork		forks[REL_FORKS];
} Seen;

#define SEEN_COUNT 64

static Seen seen_lately[SEEN_COUNT];
static RelShared *shared;
static HTAB *rel_index;
static LWLockPadded *locks;
static int	entry_max;

Size
rel_state_shmem_size(int entry_limit)
{
	return add_size(sizeof(RelShared), shared_table_size(entry_limit, sizeof(RelEntry)));
}

void
rel_state_shmem_init(int entry_limit, LWLockPadded *partition_locks)
{
	HASHCTL		control = {
		.keysize = sizeof(RelFileLocator),
		.entrysize = sizeof(RelEntry),
		.num_partitions = REL_PARTITIONS,
	};
	bool		found;

	locks = partition_locks;
	entry_max = entry_limit;
	shared = ShmemInitStruct("anabranch relations", sizeof(RelShared), &found);
	if (!found)
	{
		pg_atomic_init_u64(&shared->evicted_lsn, InvalidXLogRecPtr);
		for (int i = 0; i < REL_PARTITIONS; i++)
			pg_atomic_init_u64(&shared->versions[i].value, 0);
	}
	rel_index = shared_table_init(SHARED_TABLE_RELATIONS, "anabranch relation index", entry_limit,
								  &control);
}

static LWLock *
lock_of(uint32 hash)
{
	return &locks[hash % REL_PARTITIONS].lock;
}

static void
partition_lock(uint32 hash, LWLockMode mode)
{
	LWLockAcquire(lock_of(hash), mode);
	if (mode == LW_EXCLUSIVE)
		pg_atomic_fetch_add_u64(&shared->versions[hash % REL_PARTITIONS].value, 1);
}

static void
lock_all(void)
{
	for (uint32 i = 0; i < REL_PARTITIONS; i++)
		partition_lock(i, LW_EXCLUSIVE);
}

static void
unlock_all(void)
{
	for (int i = 0; i < REL_PARTITIONS; i++)
		LWLockRelease(&locks[i].lock);
}

/* Unlogged relations cannot be shared, and may lie in any tablespace. No palloc. */
static bool
main_file_exists(const RelFileLocator *rlocator)
{
	char		path[MAXPGPATH];

	if (rlocator->spcOid == GLOBALTABLESPACE_OID)
		return false;
	if (rlocator->spcOid == DEFAULTTABLESPACE_OID)
		snprintf(path, sizeof(path), "base/%u/%u", rlocator->dbOid, rlocator->relNumber);
	else
		snprintf(path, sizeof(path), "pg_tblspc/%u/%s/%u/%u", rlocator->spcOid,
				 TABLESPACE_VERSION_DIRECTORY, rlocator->dbOid, rlocator->relNumber);
	return access(path, F_OK) == 0;
}

/* A dropped relation is remembered until storage is sure to know of the drop. */
static bool
is_evictable(const RelEntry *entry, XLogRecPtr acked)
{
	if (entry->local || !entry->changed)
		return true;
	for (int fork = 0; fork < REL_FORKS; fork++)
		if (entry->forks[fork].blocks != BLOCKS_NONE)
			return false;
	return entry->change_lsn <= acked;
}

/* All partitions are locked: this is rare, and a whole eighth is freed at once. */
static void
evict_some(void)
{
	XLogRecPtr	acked = position_acked();
	HASH_SEQ_STATUS scan;
	RelEntry   *entry;
	int			goal = entry_max / 8;
	int			freed = 0;

	lock_all();
	hash_seq_init(&scan, rel_index);
	while ((entry = hash_seq_search(&scan)) != NULL)
	{
		if (!is_evictable(entry, acked))
			continue;
		if (entry->changed && entry->change_lsn > pg_atomic_read_u64(&shared->evicted_lsn))
			pg_atomic_write_u64(&shared->evicted_lsn, entry->change_lsn);
		hash_search(rel_index, &entry->rlocator, HASH_REMOVE, NULL);
		if (++freed >= goal)
		{
			hash_seq_term(&scan);
			break;
		}
	}
	unlock_all();
	counter_add(COUNTER_REL_EVICT, (uint64) freed);
}

static void
make_room(void)
{
	if (CritSectionCount > 0 || hash_get_num_entries(rel_index) < entry_max - CRITICAL_RESERVE)
		return;
	evict_some();
	if (hash_get_num_entries(rel_index) >= entry_max - CRITICAL_RESERVE)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many relations were changed since this compute started"),
				 errdetail("anabranch.relation_limit allows %d.", entry_max),
				 errhint("Raise anabranch.relation_limit, or restart the compute.")));
}

RelEntry *
rel_state_find(const RelFileLocator *rlocator, LWLockMode mode)
{
	uint32		hash = get_hash_value(rel_index, rlocator);
	RelEntry   *entry;

	partition_lock(hash, mode);
	entry = hash_search_with_hash_value(rel_index, rlocator, hash, HASH_FIND, NULL);
	if (entry == NULL)
		LWLockRelease(lock_of(hash));
	return entry;
}

RelEntry *
rel_state_lock(const RelFileLocator *rlocator, LWLockMode mode)
{
	uint32		hash = get_hash_value(rel_index, rlocator);
	RelEntry   *entry;

	for (;;)
	{
		bool		found;
		bool		local;

		entry = rel_state_find(rlocator, mode);
		if (entry != NULL)
			return entry;

		make_room();
		local = main_file_exists(rlocator);
		partition_lock(hash, LW_EXCLUSIVE);
		entry = hash_search_with_hash_value(rel_index, rlocator, hash, HASH_ENTER_NULL, &found);
		if (entry == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("the relation table of this compute is full"),
					 errhint("Raise anabranch.relation_limit.")));
		if (!found)
		{
			entry->local = local;
			entry->changed = false;
			entry->change_lsn = InvalidXLogRecPtr;
			for (int fork = 0; fork < REL_FORKS; fork++)
				entry->forks[fork] = (RelFork)
			{
				.blocks = BLOCKS_UNKNOWN,
				.cut_block = InvalidBlockNumber,
				.old_cut_block = InvalidBlockNumber
			};
		}
		if (mode == LW_EXCLUSIVE)
			return entry;
		LWLockRelease(lock_of(hash));
	}
}

void
rel_state_unlock(const RelEntry *entry)
{
	LWLockRelease(lock_of(get_hash_value(rel_index, &entry->rlocator)));
}

/* ---------------------------------------------------------------- a look without a lock */

static Seen *
seen_place(const RelFileLocator *rlocator)
{
	return &seen_lately[(rlocator->relNumber ^ rlocator->dbOid) % SEEN_COUNT];
}

/* NULL: not seen lately, or somebody may have changed it. */
static const Seen *
seen_find(const RelFileLocator *rlocator)
{
	const Seen *seen = seen_place(rlocator);
	uint64		version;

	if (seen->version == NULL || !RelFileLocatorEquals(seen->rlocator, *rlocator))
		return NULL;
	version = pg_atomic_read_u64(unconstify(pg_atomic_uint64 *, seen->version));
	pg_read_barrier();			/* as taking the lock would be */
	return version == seen->seen_version ? seen : NULL;
}

/* Makes the entry if there is none: ERROR when the table is full. */
static const Seen *
seen_anew(const RelFileLocator *rlocator)
{
	RelEntry   *entry = rel_state_lock(rlocator, LW_SHARED);
	uint32		hash = get_hash_value(rel_index, rlocator);
	Seen	   *seen = seen_place(rlocator);

	*seen = (Seen)
	{
		.rlocator = *rlocator,
			.local = entry->local,
			.version = &shared->versions[hash % REL_PARTITIONS].value
	};
	seen->seen_version = pg_atomic_read_u64(unconstify(pg_atomic_uint64 *, seen->version));
	memcpy(seen->forks, entry->forks, sizeof(seen->forks));
	rel_state_unlock(entry);
	return seen;
}

/* ---------------------------------------------------------------- what callers ask */

bool
rel_state_is_local(const RelFileLocator *rlocator)
{
	const Seen *seen = seen_find(rlocator);
	RelEntry   *entry;
	bool		local;

	if (seen != NULL)
		return seen->local;
	entry = rel_state_find(rlocator, LW_SHARED);
	if (entry == NULL)
		return main_file_exists(rlocator);
	local = entry->local;
	rel_state_unlock(entry);
	return local;
}

/* Ask the pageserver, and let others know. */
static RelFork
fetch_fork(const RelFileLocator *rlocator, ForkNumber fork)
{
	XLogRecPtr	since = Max(position_floor(rlocator), pg_atomic_read_u64(&shared->evicted_lsn));
	BlockNumber blocks;
	RelEntry   *entry;
	RelFork		copy;

	if (!page_client_rel_size(rlocator, fork, since, &blocks))
		blocks = BLOCKS_NONE;
	counter_add(COUNTER_SIZE_REMOTE, 1);

	/* whoever created, extended or cut it meanwhile knows better */
	entry = rel_state_lock(rlocator, LW_EXCLUSIVE);
	if (entry->forks[fork].blocks == BLOCKS_UNKNOWN)
		entry->forks[fork].blocks = blocks;
	copy = entry->forks[fork];
	rel_state_unlock(entry);
	return copy;
}

RelFork
rel_state_fork(const RelFileLocator *rlocator, ForkNumber fork)
{
	const Seen *seen = seen_find(rlocator);
	RelFork		state;

	if (seen == NULL)
		seen = seen_anew(rlocator);
	state = seen->forks[fork];
	return state.blocks == BLOCKS_UNKNOWN ? fetch_fork(rlocator, fork) : state;
}

XLogRecPtr
rel_state_cut_since(const RelFork *state, BlockNumber block, int count)
{
	XLogRecPtr	since = InvalidXLogRecPtr;
	BlockNumber end = block + (BlockNumber) count;

	if (end > state->cut_block)
		since = Max(since, state->cut_lsn);
	if (end > state->old_cut_block)
		since = Max(since, state->old_cut_lsn);
	return since;
}

XLogRecPtr
rel_state_read_since(const RelFileLocator *rlocator, ForkNumber fork,
					 const RelFork *state, BlockNumber block, int count)
{
	XLogRecPtr	since = Max(position_floor(rlocator),
							last_written_newest(rlocator, fork, block, count));

	return Max(since, rel_state_cut_since(state, block, count));
}

void
rel_state_forget(const RelFileLocator *rlocator)
{
	uint32		hash = get_hash_value(rel_index, rlocator);

	partition_lock(hash, LW_EXCLUSIVE);
	hash_search_with_hash_value(rel_index, rlocator, hash, HASH_REMOVE, NULL);
	LWLockRelease(lock_of(hash));
}

void
rel_state_forget_database(Oid database, Oid tablespace)
{
	HASH_SEQ_STATUS scan;
	RelEntry   *entry;

	lock_all();
	hash_seq_init(&scan, rel_index);
	while ((entry = hash_seq_search(&scan)) != NULL)
		if (entry->rlocator.dbOid == database &&
			(!OidIsValid(tablespace) || entry->rlocator.spcOid == tablespace))
			hash_search(rel_index, &entry->rlocator, HASH_REMOVE, NULL);
	unlock_all();
}

void
rel_state_grow(RelEntry *entry, ForkNumber fork, BlockNumber blocks)
{
	RelFork    *state = &entry->forks[fork];

	if (state->blocks >= BLOCKS_UNKNOWN || state->blocks < blocks)
		state->blocks = blocks;
	entry->changed = true;
}

void
rel_state_cut(RelEntry *entry, ForkNumber fork, BlockNumber blocks, XLogRecPtr lsn)
{
	RelFork    *state = &entry->forks[fork];

	state->old_cut_block = Min(state->old_cut_block, state->cut_block);
	state->old_cut_lsn = state->cut_lsn;
	state->cut_block = blocks == BLOCKS_NONE ? 0 : blocks;
	state->cut_lsn = lsn;
	state->blocks = blocks;
	entry->changed = true;
	entry->change_lsn = Max(entry->change_lsn, lsn);
}
