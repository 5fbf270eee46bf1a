/*
 * free_space.c - see free_space.h.
 *
 * Workers end before the checkpointer begins its last checkpoint, behind which
 * there may be no WAL; that is why it is a worker, and why a page is not logged
 * when it is written out, which happens in that checkpoint too. An immediate
 * shutdown and a crash leave the maps of the last clean stop: they correct
 * themselves, and VACUUM fills them.
 */
#include "postgres.h"

#include "access/xloginsert.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/buf_internals.h"
#include "storage/bufmgr.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/wait_event.h"

#include "compute/extension/counters.h"
#include "compute/extension/free_space.h"
#include "compute/extension/spill.h"

/* 64 MB: maps of 250 GB. The agent waits ten seconds for a stop. */
#define PAGES_MAX 8192

static int
log_spilled(int pages_max)
{
	PGIOAlignedBlock page;
	RelFileLocator rlocator;
	BlockNumber block;
	uint32		slot = 0;
	int			count = 0;

	while (count < pages_max && spill_next(&slot, FSM_FORKNUM, &rlocator, &block))
	{
		if (spill_get(&rlocator, FSM_FORKNUM, block, page.data))
		{
			(void) log_newpage(&rlocator, FSM_FORKNUM, block, page.data, false);
			count++;
		}
	}
	return count;
}

/* Only a hint: whoever pins it looks again. */
static bool
is_changed_map(BufferDesc *buffer, BufferTag *tag)
{
	uint32		state = LockBufHdr(buffer);
	uint32		wanted = BM_VALID | BM_DIRTY | BM_PERMANENT;
	bool		is_map = (state & wanted) == wanted && buffer->tag.forkNum == FSM_FORKNUM;

	*tag = buffer->tag;
	UnlockBufHdr(buffer, state);
	return is_map;
}

/* Later than those of the spill: where both have a page this is the newer one. */
static int
log_buffered(int pages_max)
{
	int			count = 0;

	for (int i = 0; i < NBuffers && count < pages_max; i++)
	{
		BufferDesc *descriptor = GetBufferDescriptor(i);
		Buffer		buffer = BufferDescriptorGetBuffer(descriptor);
		BufferTag	tag;

		if (!is_changed_map(descriptor, &tag) ||
			!ReadRecentBuffer(BufTagGetRelFileLocator(&tag), FSM_FORKNUM, tag.blockNum, buffer))
			continue;
		LockBuffer(buffer, BUFFER_LOCK_EXCLUSIVE);
		START_CRIT_SECTION();
		MarkBufferDirty(buffer);
		(void) log_newpage_buffer(buffer, false);
		END_CRIT_SECTION();
		UnlockReleaseBuffer(buffer);
		count++;
	}
	return count;
}

void
free_space_worker_main(Datum argument)
{
	int			count;

	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	BackgroundWorkerUnblockSignals();
	CurrentResourceOwner = ResourceOwnerCreate(NULL, "anabranch free space");
	CurrentMemoryContext = AllocSetContextCreate(TopMemoryContext, "anabranch free space",
												 ALLOCSET_DEFAULT_SIZES);
	while (!ShutdownRequestPending)
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH, -1, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
	count = log_spilled(PAGES_MAX);
	count += log_buffered(PAGES_MAX - count);
	elog(LOG, "%d pages of free space maps were logged", count);
	proc_exit(0);
}

void
free_space_register_worker(void)
{
	BackgroundWorker worker = {
		.bgw_flags = BGWORKER_SHMEM_ACCESS,
		.bgw_start_time = BgWorkerStart_RecoveryFinished,
		.bgw_restart_time = BGW_NEVER_RESTART,
	};

	strlcpy(worker.bgw_name, "anabranch free space", sizeof(worker.bgw_name));
	strlcpy(worker.bgw_type, "anabranch free space", sizeof(worker.bgw_type));
	strlcpy(worker.bgw_library_name, "anabranch", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "free_space_worker_main", sizeof(worker.bgw_function_name));
	RegisterBackgroundWorker(&worker);
}
