/*
 * rel_state.h - which relations exist, how long they are, and where they live.
 *
 * One entry a relation, in shared memory, shared by all backends. What is
 * here is the truth for this compute: a relation grows without a word in the
 * WAL, so the pageserver may know less. Entries that only repeat what the
 * pageserver said are evicted when memory gets short; changed ones stay.
 *
 * A relation is local if it is unlogged: then a main fork lies in the data
 * directory and md.c serves it. Everything else is remote.
 *
 * A look at an entry that has not changed since this process looked last takes
 * no lock: rel_state_is_local() and rel_state_fork() for the few relations that
 * every statement asks about.
 *
 * Locks: a partition lock is held (shared) while a page of the relation is
 * written and (exclusively) while its entry changes, so that a relation never
 * becomes local in the middle of a write. Lock order: this one, then spill.
 */
#pragma once

#include "postgres.h"

#include "access/xlogdefs.h"
#include "common/relpath.h"
#include "storage/block.h"
#include "storage/lwlock.h"
#include "storage/relfilelocator.h"

#define REL_PARTITIONS 64

#define REL_FORKS		(VISIBILITYMAP_FORKNUM + 1)	/* MAIN, FSM, VM; init forks are local */
#define BLOCKS_NONE		InvalidBlockNumber			/* the fork does not exist */
#define BLOCKS_UNKNOWN	(InvalidBlockNumber - 1)	/* the pageserver has to be asked */

typedef struct RelFork
{
	BlockNumber blocks;

	/*
	 * The latest cut (creation counts as one): at cut_lsn the blocks from
	 * cut_block on did not exist. While cut_lsn is unacknowledged such a block
	 * is all zero unless the spill has it; afterwards it is read at cut_lsn or
	 * later. The earlier cuts are merged into one, only for the latter rule.
	 */
	BlockNumber cut_block;
	XLogRecPtr	cut_lsn;
	BlockNumber old_cut_block;
	XLogRecPtr	old_cut_lsn;
} RelFork;

typedef struct RelEntry
{
	RelFileLocator rlocator;	/* key */
	bool		local;
	bool		changed;		/* differs from what the pageserver said */
	XLogRecPtr	change_lsn;
	RelFork		forks[REL_FORKS];
} RelEntry;

extern Size rel_state_shmem_size(int entry_limit);
extern void rel_state_shmem_init(int entry_limit, LWLockPadded *partition_locks);

/*
 * The entry, made if there is none, with its partition locked. ERROR when the
 * table is full of changed entries (not in a critical section: a reserve is
 * kept for those).
 */
extern RelEntry *rel_state_lock(const RelFileLocator *rlocator, LWLockMode mode);
extern void rel_state_unlock(const RelEntry *entry);

/* The same, but NULL and nothing locked if there is no entry. Never an ERROR. */
extern RelEntry *rel_state_find(const RelFileLocator *rlocator, LWLockMode mode);

extern bool rel_state_is_local(const RelFileLocator *rlocator);

/* A copy of one fork's state, its size fetched from the pageserver if need be; not for local ones. */
extern RelFork rel_state_fork(const RelFileLocator *rlocator, ForkNumber fork);

/* The least LSN at which the pageserver may be asked for these blocks. */
extern XLogRecPtr rel_state_read_since(const RelFileLocator *rlocator, ForkNumber fork,
									   const RelFork *state, BlockNumber block, int count);

/* What the cuts alone demand of such a read. */
extern XLogRecPtr rel_state_cut_since(const RelFork *state, BlockNumber block, int count);

/* Forget a relation whose last local file is gone, or that changed its kind. */
extern void rel_state_forget(const RelFileLocator *rlocator);
extern void rel_state_forget_database(Oid database, Oid tablespace);	/* invalid: in all */

/* The entry is locked exclusively. Safe in a critical section. */
extern void rel_state_grow(RelEntry *entry, ForkNumber fork, BlockNumber blocks);
extern void rel_state_cut(RelEntry *entry, ForkNumber fork, BlockNumber blocks, XLogRecPtr lsn);
