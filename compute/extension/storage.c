#include "compute/extension/storage.h"

#include "access/xlogutils.h"
#include "catalog/pg_tablespace_d.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/ipc.h"
#include "storage/md.h"
#include "storage/proc.h"
#include "storage/smgr.h"

#include "compute/extension/backpressure.h"
#include "compute/extension/cid_notes.h"
#include "compute/extension/counters.h"
#include "compute/extension/last_written.h"
#include "compute/extension/local_cache.h"
#include "compute/extension/page_client.h"
#include "compute/extension/page_rules.h"
#include "compute/extension/placeholder.h"
#include "compute/extension/position.h"
#include "compute/extension/quarantine.h"
#include "compute/extension/read_ahead.h"
#include "compute/extension/rel_state.h"
#include "compute/extension/spill.h"

#define REL_FORMAT "%u/%u/%u fork %d"
#define REL_ARGS(rlocator, fork) \
	(rlocator)->spcOid, (rlocator)->dbOid, (rlocator)->relNumber, (int) (fork)

/* Temporary relations never reach rel_state. Init forks exist for unlogged relations only. */
static bool
is_local(SMgrRelation reln)
{
	return SmgrIsTemp(reln) || rel_state_is_local(&reln->smgr_rlocator.locator);
}

/* ---------------------------------------------------------------- pages that leave the buffer pool */

static void
count_kept(uint8 keep)
{
	static const struct
	{
		uint8		keep;
		Counter		counter;
	}			names[] = {
		{KEEP_UNLOGGED, COUNTER_SPILL_UNLOGGED},
		{KEEP_COMMAND_ID, COUNTER_SPILL_CID},
		{KEEP_SEQUENCE, COUNTER_SPILL_SEQUENCE},
		{KEEP_BTREE, COUNTER_SPILL_BTREE},
		{KEEP_FSM, COUNTER_SPILL_FSM},
		{KEEP_UNACKED, COUNTER_SPILL_UNACKED},
	};

	for (int i = 0; i < lengthof(names); i++)
		if (keep & names[i].keep)
			counter_add(names[i].counter, 1);
}

/* Would the pageserver give the same page, but for what does not matter? */
static bool
is_rebuilt(const PageVerdict *verdict)
{
	return (verdict->keep & ~KEEP_UNACKED) == 0;
}

/* Is the page's command id noted, so that the page need not be kept for it? */
static bool
note_command_id(const RelFileLocator *rlocator, ForkNumber fork, BlockNumber block,
				const PageVerdict *verdict)
{
	if (fork != MAIN_FORKNUM)
		return false;
	if ((verdict->keep & KEEP_COMMAND_ID) != 0 && FullTransactionIdIsValid(verdict->note_xid) &&
		cid_notes_put(rlocator, block, verdict->note_xid, verdict->note_cid))
	{
		counter_add(COUNTER_CID_NOTED, 1);
		return true;
	}
	cid_notes_forget(rlocator, block, block + 1);
	return false;
}

/* Does this process go through the whole of a fork, which does not fit into the local cache? */
static bool
is_passing(const RelFileLocator *rlocator, ForkNumber fork, BlockNumber blocks)
{
	if (blocks >= BLOCKS_UNKNOWN || local_cache_fits(blocks))
		return false;
	return (MyProc != NULL && (MyProc->statusFlags & PROC_IN_VACUUM) != 0) ||
		read_ahead_in_scan(rlocator, fork);
}

/*
 * The last-written LSN goes first: once spill and local cache let go of the
 * page, every reader asks for at least this, and the cache takes no older one.
 */
static void
put_page(const RelFileLocator *rlocator, ForkNumber fork, BlockNumber block, BlockNumber blocks,
		 const void *buffer, const PageVerdict *judged)
{
	PageVerdict verdict = *judged;

	last_written_raise(rlocator, fork, block, verdict.lsn);
	if (note_command_id(rlocator, fork, block, &verdict))
		verdict.keep &= ~KEEP_COMMAND_ID;
	if (is_rebuilt(&verdict))
		local_cache_put(rlocator, fork, block, buffer, is_passing(rlocator, fork, blocks));
	else
		local_cache_forget(rlocator, fork, block, block + 1);
	if (verdict.keep != 0)
	{
		count_kept(verdict.keep);
		spill_put(rlocator, fork, block, buffer, &verdict);
	}
	else
	{
		counter_add(COUNTER_WRITE_DROP, 1);
		spill_forget(rlocator, fork, block);
	}
}

static void
put_any_page(const RelFileLocator *rlocator, ForkNumber fork, BlockNumber block,
			 BlockNumber blocks, const void *buffer, const PageVerdict *verdict)
{
	if (!PageIsNew((Page) buffer))
	{
		put_page(rlocator, fork, block, blocks, buffer, verdict);
		return;
	}
	/* nothing was ever logged for this block, so storage has zeros as well */
	counter_add(COUNTER_WRITE_ZERO, 1);
	if (fork == MAIN_FORKNUM)
		cid_notes_forget(rlocator, block, block + 1);
	spill_forget(rlocator, fork, block);
	local_cache_forget(rlocator, fork, block, block + 1);
}

static PageVerdict
judge(ForkNumber fork, const void *buffer)
{
	if (PageIsNew((Page) buffer))
		return (PageVerdict)
	{
		0
	};
	return page_rules_judge(fork, (Page) buffer, position_acked());
}

static void
anabranch_writev(SMgrRelation reln, ForkNumber fork, BlockNumber block,
				 const void **buffers, BlockNumber nblocks, bool skipFsync)
{
	const RelFileLocator *rlocator = &reln->smgr_rlocator.locator;

	if (SmgrIsTemp(reln) || fork == INIT_FORKNUM)
	{
		mdwritev(reln, fork, block, buffers, nblocks, skipFsync);
		return;
	}
	for (BlockNumber i = 0; i < nblocks; i++)
	{
		PageVerdict verdict = judge(fork, buffers[i]);
		RelEntry   *entry = rel_state_lock(rlocator, LW_SHARED);

		if (entry->local)
			mdwritev(reln, fork, block + i, &buffers[i], 1, skipFsync);
		else
			put_any_page(rlocator, fork, block + i, entry->forks[fork].blocks, buffers[i], &verdict);
		rel_state_unlock(entry);
	}
}

static void
anabranch_extend(SMgrRelation reln, ForkNumber fork, BlockNumber block,
				 const void *buffer, bool skipFsync)
{
	const RelFileLocator *rlocator = &reln->smgr_rlocator.locator;
	PageVerdict verdict;
	RelEntry   *entry;

	if (SmgrIsTemp(reln) || fork == INIT_FORKNUM)
	{
		mdextend(reln, fork, block, buffer, skipFsync);
		return;
	}
	if (block == InvalidBlockNumber)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("cannot extend relation " REL_FORMAT " beyond %u blocks",
						REL_ARGS(rlocator, fork), InvalidBlockNumber)));
	backpressure_hold();
	if (!rel_state_is_local(rlocator))
		(void) rel_state_fork(rlocator, fork);	/* know the size before changing it */
	verdict = judge(fork, buffer);
	entry = rel_state_lock(rlocator, LW_EXCLUSIVE);
	if (entry->local)
		mdextend(reln, fork, block, buffer, skipFsync);
	else
	{
		put_any_page(rlocator, fork, block, entry->forks[fork].blocks, buffer, &verdict);
		rel_state_grow(entry, fork, block + 1);
	}
	rel_state_unlock(entry);
}

static void
anabranch_zeroextend(SMgrRelation reln, ForkNumber fork, BlockNumber block,
					 int nblocks, bool skipFsync)
{
	const RelFileLocator *rlocator = &reln->smgr_rlocator.locator;
	RelEntry   *entry;

	if (SmgrIsTemp(reln) || fork == INIT_FORKNUM)
	{
		mdzeroextend(reln, fork, block, nblocks, skipFsync);
		return;
	}
	if ((uint64) block + nblocks >= (uint64) InvalidBlockNumber)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("cannot extend relation " REL_FORMAT " beyond %u blocks",
						REL_ARGS(rlocator, fork), InvalidBlockNumber)));
	backpressure_hold();
	if (!rel_state_is_local(rlocator))
		(void) rel_state_fork(rlocator, fork);
	entry = rel_state_lock(rlocator, LW_EXCLUSIVE);
	if (entry->local)
		mdzeroextend(reln, fork, block, nblocks, skipFsync);
	else
	{
		local_cache_forget(rlocator, fork, block, block + (BlockNumber) nblocks);
		rel_state_grow(entry, fork, block + nblocks);
	}
	rel_state_unlock(entry);
}

/* ---------------------------------------------------------------- reading */

/* What only this compute has, and what it knows to be zero. */
static bool
read_unshared(const RelFileLocator *rlocator, ForkNumber fork, const RelFork *state,
			  BlockNumber block, void *page)
{
	if (spill_get(rlocator, fork, block, page))
	{
		counter_add(COUNTER_READ_SPILL, 1);
		return true;
	}
	if (block >= state->cut_block && state->cut_lsn > position_acked())
	{
		/* a page written since then has a newer LSN still, so it would be in the spill */
		memset(page, 0, BLCKSZ);
		counter_add(COUNTER_READ_ZERO, 1);
		return true;
	}
	return false;
}

void
storage_offer_to_cache(const PageRead *read)
{
	RelEntry   *entry;
	const RelFork *state;

	if (XLogRecPtrIsInvalid(read->lsn))
		return;
	/* their changes have no LSN until a stop logs them: an old one could not be told from a new one */
	if (read->fork == FSM_FORKNUM)
		return;
	entry = rel_state_find(&read->rlocator, LW_SHARED);
	if (entry == NULL)
		return;
	state = &entry->forks[read->fork];
	if (!entry->local && state->blocks < BLOCKS_UNKNOWN &&
		read->block + (BlockNumber) read->count <= state->blocks &&
		rel_state_cut_since(state, read->block, read->count) <= read->lsn)
		local_cache_offer(&read->rlocator, read->fork, read->block, read->pages, read->count,
						  read->lsn, is_passing(&read->rlocator, read->fork, state->blocks));
	rel_state_unlock(entry);
}

/* The blocks that are in `wanted`, from the pageserver. */
static void
read_remotely(const RelFileLocator *rlocator, ForkNumber fork, const RelFork *state,
			  BlockNumber block, void **buffers, int count, uint32 wanted)
{
	PageRead	reads[PAGE_READ_BLOCKS_MAX];
	int			read_count = 0;
	PageRead   *open = NULL;	/* the run that the next block may join */

	for (int i = 0; i < count; i++)
	{
		BlockNumber at = block + (BlockNumber) i;
		XLogRecPtr	since = rel_state_read_since(rlocator, fork, state, at, 1);
		XLogRecPtr	lsn;

		if ((wanted & (1U << i)) == 0)
		{
			open = NULL;
			continue;
		}
		if (read_ahead_take(rlocator, fork, at, since, buffers[i], &lsn))
		{
			storage_offer_to_cache(&(PageRead)
								   {
									   .rlocator = *rlocator, .fork = fork, .block = at,
									   .count = 1, .lsn = lsn, .pages = {buffers[i]}
								   });
			open = NULL;
			continue;
		}
		if (open == NULL)
		{
			open = &reads[read_count++];
			*open = (PageRead)
			{
				.rlocator = *rlocator, .fork = fork, .block = at
			};
		}
		open->pages[open->count++] = buffers[i];
		open->since = Max(open->since, since);
	}
	if (read_count > 0)
		page_client_read(reads, read_count);
	for (int i = 0; i < read_count; i++)
		storage_offer_to_cache(&reads[i]);
}

/* At most PAGE_READ_BLOCKS_MAX blocks, all below the end. */
static void
read_blocks(const RelFileLocator *rlocator, ForkNumber fork, const RelFork *state,
			BlockNumber block, void **buffers, int count)
{
	uint32		wanted = 0;
	uint32		stored;			/* by the pageserver, which does not know command ids */

	StaticAssertStmt(PAGE_READ_BLOCKS_MAX == LOCAL_CACHE_CALL_BLOCKS, "one mask for both");
	for (int i = 0; i < count; i++)
		if (!read_unshared(rlocator, fork, state, block + (BlockNumber) i, buffers[i]))
			wanted |= 1U << i;
	stored = fork == MAIN_FORKNUM ? wanted : 0;
	if (wanted != 0)
		wanted &= ~local_cache_get(rlocator, fork, block, buffers, count, wanted);
	if (wanted != 0)
		read_remotely(rlocator, fork, state, block, buffers, count, wanted);
	for (int i = 0; stored != 0 && i < count; i++)
		if ((stored & (1U << i)) != 0)
			cid_notes_apply(rlocator, block + (BlockNumber) i, (Page) buffers[i]);
}

static void
anabranch_readv(SMgrRelation reln, ForkNumber fork, BlockNumber block,
				void **buffers, BlockNumber nblocks)
{
	const RelFileLocator *rlocator = &reln->smgr_rlocator.locator;
	RelFork		state;

	if (fork == INIT_FORKNUM || is_local(reln))
	{
		mdreadv(reln, fork, block, buffers, nblocks);
		return;
	}
	/* a block that others wait for: of a shared catalog, that may be the walsender that logs in */
	if (rlocator->spcOid != GLOBALTABLESPACE_OID)
		backpressure_hold_reading_writer();
	state = rel_state_fork(rlocator, fork);
	while (nblocks > 0)
	{
		int			count = (int) Min(nblocks, PAGE_READ_BLOCKS_MAX);

		if (state.blocks == BLOCKS_NONE || block >= state.blocks ||
			state.blocks - block < (BlockNumber) count)
		{
			if (!zero_damaged_pages && !InRecovery)
				ereport(ERROR,
						(errcode(ERRCODE_DATA_CORRUPTED),
						 errmsg("could not read blocks %u..%u of relation " REL_FORMAT
								": it has %u blocks",
								block, block + (BlockNumber) count - 1, REL_ARGS(rlocator, fork),
								state.blocks == BLOCKS_NONE ? 0 : state.blocks)));
			for (int i = 0; i < count; i++)
				memset(buffers[i], 0, BLCKSZ);
		}
		else
		{
			read_ahead_note(rlocator, fork, &state, block, count);
			read_blocks(rlocator, fork, &state, block, buffers, count);
		}
		block += (BlockNumber) count;
		buffers += count;
		nblocks -= (BlockNumber) count;
	}
}

static bool
anabranch_prefetch(SMgrRelation reln, ForkNumber fork, BlockNumber block, int nblocks)
{
	const RelFileLocator *rlocator = &reln->smgr_rlocator.locator;
	RelFork		state;

	if (fork == INIT_FORKNUM || is_local(reln))
		return mdprefetch(reln, fork, block, nblocks);
	state = rel_state_fork(rlocator, fork);
	if (state.blocks != BLOCKS_NONE && block < state.blocks &&
		state.blocks - block >= (BlockNumber) nblocks)
		read_ahead_ask(rlocator, fork, &state, block, nblocks);
	return true;
}

static BlockNumber
anabranch_nblocks(SMgrRelation reln, ForkNumber fork)
{
	const RelFileLocator *rlocator = &reln->smgr_rlocator.locator;
	RelFork		state;

	quarantine_hold_launcher();
	if (fork == INIT_FORKNUM || is_local(reln))
		return mdnblocks(reln, fork);
	state = rel_state_fork(rlocator, fork);
	if (state.blocks == BLOCKS_NONE)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FILE),
				 errmsg("relation " REL_FORMAT " does not exist in storage",
						REL_ARGS(rlocator, fork))));
	return state.blocks;
}

static void
note_lock(LWLock *lock, LWLockMode mode, void *context)
{
	*(bool *) context = true;
}

/*
 * A commit or a rollback is written and is being carried out: nothing may fail
 * or wait any more. An ERROR would be a PANIC there, and in COMMIT PREPARED it
 * would leave the locks of the prepared transaction for ever. Other code that
 * holds interrupts back has a lock, or is a process on its way out, which holds
 * them once.
 */
static bool
is_ending_transaction(void)
{
	bool		has_lock = false;

	if (InterruptHoldoffCount <= (proc_exit_inprogress ? 1 : 0))
		return false;
	ForEachLWLockHeldByMe(note_lock, &has_lock);
	return !has_lock;
}

/* Has it been looked at, and is not there? */
static bool
is_known_to_miss(const RelFileLocator *rlocator, ForkNumber fork)
{
	RelEntry   *entry = rel_state_find(rlocator, LW_SHARED);
	bool		known;

	if (entry == NULL)
		return false;
	known = entry->forks[fork].blocks == BLOCKS_NONE;
	rel_state_unlock(entry);
	return known;
}

static bool
anabranch_exists(SMgrRelation reln, ForkNumber fork)
{
	if (is_local(reln))
		return mdexists(reln, fork);
	if (fork == INIT_FORKNUM)
		return false;

	/*
	 * DropRelationsAllBuffers() asks, to look through all buffers if there is
	 * a fork whose size it does not know: what it does on a primary anyhow.
	 */
	if (is_ending_transaction())
		return !is_known_to_miss(&reln->smgr_rlocator.locator, fork);
	return rel_state_fork(&reln->smgr_rlocator.locator, fork).blocks != BLOCKS_NONE;
}

/* ---------------------------------------------------------------- birth and death */

/*
 * An init fork appears: the relation is unlogged. What it has so far was
 * written as if it were permanent and has not been logged, so it is in the
 * spill or all zero. From here on md.c has it.
 */
static void
become_local(SMgrRelation reln)
{
	const RelFileLocator *rlocator = &reln->smgr_rlocator.locator;
	RelEntry   *entry;
	PGIOAlignedBlock page;
	const void *pages[1] = {page.data};

	entry = rel_state_lock(rlocator, LW_EXCLUSIVE);
	for (ForkNumber fork = MAIN_FORKNUM; !entry->local && fork < REL_FORKS; fork++)
	{
		BlockNumber blocks = entry->forks[fork].blocks;

		if (blocks >= BLOCKS_UNKNOWN)
		{
			if (fork != MAIN_FORKNUM)
				continue;
			blocks = 0;
		}
		mdcreate(reln, fork, true);
		for (BlockNumber block = 0; block < blocks; block++)
		{
			if (!spill_get(rlocator, fork, block, page.data))
				memset(page.data, 0, BLCKSZ);
			mdextend(reln, fork, block, pages[0], true);
		}
		spill_truncate(rlocator, fork, 0, blocks);
		local_cache_forget(rlocator, fork, 0, blocks);
	}
	entry->local = true;
	rel_state_unlock(entry);
	counter_add(COUNTER_UNLOGGED_CONVERT, 1);
}

static void
create_remote(SMgrRelation reln, ForkNumber fork, bool isRedo)
{
	const RelFileLocator *rlocator = &reln->smgr_rlocator.locator;
	RelEntry   *entry;
	XLogRecPtr	lsn;
	bool		exists;

	/*
	 * A new main fork's number was found to be free by GetNewRelFileNumber().
	 * Redo calls this before it looks at any relation, so there, and for the
	 * other forks, an existing one must be left alone.
	 */
	(void) rel_state_fork(rlocator, fork);
	lsn = position_inserted();
	entry = rel_state_lock(rlocator, LW_EXCLUSIVE);
	exists = entry->forks[fork].blocks < BLOCKS_UNKNOWN;
	if (!exists)
	{
		rel_state_cut(entry, fork, 0, lsn);
		if (fork == MAIN_FORKNUM && !isRedo)
		{
			/* nobody needs to be asked about the forks of a new relation */
			rel_state_cut(entry, FSM_FORKNUM, BLOCKS_NONE, lsn);
			rel_state_cut(entry, VISIBILITYMAP_FORKNUM, BLOCKS_NONE, lsn);
		}
	}
	rel_state_unlock(entry);
	if (exists && !isRedo)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_FILE),
				 errmsg("relation " REL_FORMAT " exists already in storage",
						REL_ARGS(rlocator, fork))));
}

static void
anabranch_create(SMgrRelation reln, ForkNumber fork, bool isRedo)
{
	if (fork == MAIN_FORKNUM && !SmgrIsTemp(reln))
		placeholder_make(&reln->smgr_rlocator.locator, isRedo);
	if (fork == INIT_FORKNUM && !is_local(reln))
		become_local(reln);
	if (is_local(reln))
		mdcreate(reln, fork, isRedo);
	else
		create_remote(reln, fork, isRedo);
}

static void
unlink_remote(const RelFileLocator *rlocator, ForkNumber fork)
{
	RelEntry   *entry = rel_state_find(rlocator, LW_EXCLUSIVE);
	BlockNumber blocks = entry != NULL ? entry->forks[fork].blocks : BLOCKS_UNKNOWN;

	/* pages may have been written without a look at the size */
	if (blocks != BLOCKS_NONE)
	{
		BlockNumber end = blocks == BLOCKS_UNKNOWN ? InvalidBlockNumber : blocks;

		spill_truncate(rlocator, fork, 0, end);
		local_cache_forget(rlocator, fork, 0, end);
		if (fork == MAIN_FORKNUM)
			cid_notes_forget(rlocator, 0, end);
	}
	if (entry == NULL)
		return;
	if (blocks != BLOCKS_NONE)
		rel_state_cut(entry, fork, BLOCKS_NONE, position_inserted());
	rel_state_unlock(entry);
}

static void
anabranch_unlink(RelFileLocatorBackend rlocator, ForkNumber fork, bool isRedo)
{
	if (fork == InvalidForkNumber)
	{
		for (ForkNumber each = MAIN_FORKNUM; each <= MAX_FORKNUM; each++)
			anabranch_unlink(rlocator, each, isRedo);
		return;
	}
	if (RelFileLocatorBackendIsTemp(rlocator))
	{
		mdunlink(rlocator, fork, isRedo);
		return;
	}
	if (fork == MAIN_FORKNUM)
		placeholder_remove(&rlocator.locator);
	if (rel_state_is_local(&rlocator.locator))
	{
		mdunlink(rlocator, fork, isRedo);
		if (fork == MAX_FORKNUM)	/* the last one, until then it is local */
			rel_state_forget(&rlocator.locator);
		return;
	}
	if (fork < REL_FORKS)
		unlink_remote(&rlocator.locator, fork);
}

/* In a critical section; smgrnblocks() was called just before, so the entry is there. */
static void
anabranch_truncate(SMgrRelation reln, ForkNumber fork, BlockNumber old_blocks,
				   BlockNumber nblocks)
{
	const RelFileLocator *rlocator = &reln->smgr_rlocator.locator;
	RelEntry   *entry;

	if (fork == INIT_FORKNUM || is_local(reln))
	{
		mdtruncate(reln, fork, old_blocks, nblocks);
		return;
	}
	if (nblocks >= old_blocks)
		return;
	entry = rel_state_lock(rlocator, LW_EXCLUSIVE);
	rel_state_cut(entry, fork, nblocks, position_inserted());
	spill_truncate(rlocator, fork, nblocks, old_blocks);
	local_cache_forget(rlocator, fork, nblocks, old_blocks);
	if (fork == MAIN_FORKNUM)
		cid_notes_forget(rlocator, nblocks, old_blocks);
	rel_state_unlock(entry);
}

/* ---------------------------------------------------------------- what md.c alone cares about */

static void
anabranch_writeback(SMgrRelation reln, ForkNumber fork, BlockNumber block, BlockNumber nblocks)
{
	if (fork == INIT_FORKNUM || is_local(reln))
		mdwriteback(reln, fork, block, nblocks);
}

static void
anabranch_immedsync(SMgrRelation reln, ForkNumber fork)
{
	if (fork == INIT_FORKNUM || is_local(reln))
		mdimmedsync(reln, fork);
}

static void
anabranch_registersync(SMgrRelation reln, ForkNumber fork)
{
	if (fork == INIT_FORKNUM || is_local(reln))
		mdregistersync(reln, fork);
}

void
storage_install(void)
{
	f_smgr	   *table = &smgrsw[0];

	/* init, open and close stay md.c's: they only touch its own fields */
	table->smgr_create = anabranch_create;
	table->smgr_exists = anabranch_exists;
	table->smgr_unlink = anabranch_unlink;
	table->smgr_extend = anabranch_extend;
	table->smgr_zeroextend = anabranch_zeroextend;
	table->smgr_prefetch = anabranch_prefetch;
	table->smgr_readv = anabranch_readv;
	table->smgr_writev = anabranch_writev;
	table->smgr_writeback = anabranch_writeback;
	table->smgr_nblocks = anabranch_nblocks;
	table->smgr_truncate = anabranch_truncate;
	table->smgr_immedsync = anabranch_immedsync;
	table->smgr_registersync = anabranch_registersync;
	read_ahead_init();
}
