/*
 * cache_worker.c - the process of the local cache: follows its size limit, fills
 * it after a start, and tells the pageserver what is in it, every five minutes
 * and at a stop.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "compute/extension/local_cache_private.h"
#include "compute/extension/working_set.h"

#define RETRY_MS 100
#define SAVE_EVERY_MS (5 * 60 * 1000)
#define PATIENCE "2s"			/* with a pageserver that is away: a stop waits for us */

static bool filling;			/* the list is being fetched */
static long rest_ms;			/* before the next step of that */

static void
begin_to_fill(void)
{
	filling = working_set_begin();
}

static void
fill(void)
{
	filling = working_set_step(&rest_ms);
}

/* It is all for speed: an error is told, and ends what it was. */
static bool
try(void (*what) (void))
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool fine = true;

	PG_TRY();
	{
		what();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		LWLockReleaseAll();
		error = CopyErrorData();
		FlushErrorState();
		ereport(LOG,
				(errmsg("the working set of the local cache: %s", error->message),
				 error->detail != NULL ? errdetail("%s", error->detail) : 0));
		FreeErrorData(error);
		fine = false;
	}
	PG_END_TRY();
	return fine;
}

static void
reload(void)
{
	if (!ConfigReloadPending)
		return;
	ConfigReloadPending = false;
	ProcessConfigFile(PGC_SIGHUP);
}

void
local_cache_worker_main(Datum arg)
{
	uint32		wait_event;
	TimestampTz saved_at = GetCurrentTimestamp();
	bool		failed;			/* the pageserver was away */

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	BackgroundWorkerUnblockSignals();
	SetConfigOption("anabranch.request_timeout_ms", PATIENCE, PGC_SUSET, PGC_S_OVERRIDE);
	wait_event = WaitEventExtensionNew("AnabranchLocalCache");
	failed = !try(begin_to_fill);

	while (!ShutdownRequestPending)
	{
		bool		fits = cache_limit_apply();
		long		timeout = fits ? SAVE_EVERY_MS : RETRY_MS;

		if (filling && !try(fill))
		{
			filling = false;
			failed = true;
		}
		if (!filling)
			pg_atomic_write_u32(&cache_shared->filled, 1);
		if (filling)
			timeout = rest_ms;
		else if (TimestampDifferenceExceeds(saved_at, GetCurrentTimestamp(), SAVE_EVERY_MS))
		{
			failed = !try(working_set_save);
			saved_at = GetCurrentTimestamp();
		}
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, timeout,
						 wait_event);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		reload();
	}
	if (!filling && !failed)	/* else the list that is kept is better than what is here */
		(void) try(working_set_save);
	proc_exit(0);
}
