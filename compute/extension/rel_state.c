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

typedef struct RelShared
{
	pg_atomic_uint64 evicted_lsn;	/* newest change_lsn among evicted entries */
} RelShared;

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
		pg_atomic_init_u64(&shared->evicted_lsn, InvalidXLogRecPtr);
	rel_index = shared_table_init(SHARED_TABLE_RELATIONS, "anabranch relation index", entry_limit,
								  &control);
}

static LWLock *
lock_of(uint32 hash)
{
	return &locks[hash % REL_PARTITIONS].lock;
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

	for (int i = 0; i < REL_PARTITIONS; i++)
		LWLockAcquire(&locks[i].lock, LW_EXCLUSIVE);
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
	for (int i = 0; i < REL_PARTITIONS; i++)
		LWLockRelease(&locks[i].lock);
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

	LWLockAcquire(lock_of(hash), mode);
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
		LWLockAcquire(lock_of(hash), LW_EXCLUSIVE);
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

bool
rel_state_is_local(const RelFileLocator *rlocator)
{
	RelEntry   *entry = rel_state_find(rlocator, LW_SHARED);
	bool		local;

	if (entry == NULL)
		return main_file_exists(rlocator);
	local = entry->local;
	rel_state_unlock(entry);
	return local;
}

RelFork
rel_state_fork(const RelFileLocator *rlocator, ForkNumber fork)
{
	RelEntry   *entry = rel_state_lock(rlocator, LW_SHARED);
	RelFork		copy = entry->forks[fork];
	XLogRecPtr	since;
	BlockNumber blocks;

	rel_state_unlock(entry);
	if (copy.blocks != BLOCKS_UNKNOWN)
		return copy;

	since = Max(position_floor(rlocator), pg_atomic_read_u64(&shared->evicted_lsn));
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

	LWLockAcquire(lock_of(hash), LW_EXCLUSIVE);
	hash_search_with_hash_value(rel_index, rlocator, hash, HASH_REMOVE, NULL);
	LWLockRelease(lock_of(hash));
}

void
rel_state_forget_database(Oid database, Oid tablespace)
{
	HASH_SEQ_STATUS scan;
	RelEntry   *entry;

	for (int i = 0; i < REL_PARTITIONS; i++)
		LWLockAcquire(&locks[i].lock, LW_EXCLUSIVE);
	hash_seq_init(&scan, rel_index);
	while ((entry = hash_seq_search(&scan)) != NULL)
		if (entry->rlocator.dbOid == database &&
			(!OidIsValid(tablespace) || entry->rlocator.spcOid == tablespace))
			hash_search(rel_index, &entry->rlocator, HASH_REMOVE, NULL);
	for (int i = 0; i < REL_PARTITIONS; i++)
		LWLockRelease(&locks[i].lock);
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
