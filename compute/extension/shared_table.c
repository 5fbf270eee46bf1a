/*
 * shared_table.c
 *	  Hash tables that take their entries from memory of their own, when they
 *	  need them: see shared_table.h.
 */
#include "compute/extension/shared_table.h"

#include "storage/shmem.h"
#include "storage/spin.h"

typedef struct TableMemory
{
	slock_t		mutex;
	Size		size;			/* of what follows the struct */
	Size		used;
} TableMemory;

static TableMemory *memories[SHARED_TABLES];

/* NULL: there is no more. Called in critical sections, too. */
static void *
take(TableMemory *memory, Size size)
{
	char	   *begin = (char *) memory + MAXALIGN(sizeof(TableMemory));
	void	   *taken = NULL;

	size = MAXALIGN(size);
	SpinLockAcquire(&memory->mutex);
	if (size <= memory->size - memory->used)
	{
		taken = begin + memory->used;
		memory->used += size;
	}
	SpinLockRelease(&memory->mutex);
	return taken;
}

/* dynahash hands on no more than the size. */
static void *
take_for_relations(Size size)
{
	return take(memories[SHARED_TABLE_RELATIONS], size);
}

static void *
take_for_spill(Size size)
{
	return take(memories[SHARED_TABLE_SPILL], size);
}

static const HashAllocFunc takes[SHARED_TABLES] = {
	[SHARED_TABLE_RELATIONS] = take_for_relations,
	[SHARED_TABLE_SPILL] = take_for_spill,
};

static Size
memory_size(long limit, Size entry_size)
{
	return add_size(MAXALIGN(sizeof(TableMemory)), hash_estimate_size(limit, entry_size));
}

Size
shared_table_size(long limit, Size entry_size)
{
	/* The header of the table is in the estimate, but lies apart. */
	return add_size(memory_size(limit, entry_size), hash_estimate_size(1, entry_size));
}

HTAB *
shared_table_init(SharedTable table, const char *name, long limit, const HASHCTL *control)
{
	HASHCTL		own = *control;
	int			flags = HASH_ELEM | HASH_BLOBS | HASH_PARTITION | HASH_SHARED_MEM | HASH_ALLOC | HASH_DIRSIZE;
	char		memory_name[SHMEM_INDEX_KEYSIZE];
	bool		found;

	snprintf(memory_name, sizeof(memory_name), "%s memory", name);
	memories[table] = ShmemInitStruct(memory_name, memory_size(limit, control->entrysize), &found);
	if (!found)
	{
		SpinLockInit(&memories[table]->mutex);
		memories[table]->size = hash_estimate_size(limit, control->entrysize);
		memories[table]->used = 0;
	}
	own.dsize = own.max_dsize = hash_select_dirsize(limit);
	own.alloc = takes[table];
	own.hctl = ShmemInitStruct(name, hash_get_shared_size(&own, flags), &found);
	if (found)
		flags |= HASH_ATTACH;
	return hash_create(name, Max(limit / SHARED_TABLE_CHAIN, 1), &own, flags);
}
