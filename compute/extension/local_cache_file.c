#include "compute/extension/local_cache_private.h"

#include <unistd.h>

#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "utils/wait_event.h"

#define PAGES_FILE "anabranch.pages"
#define RETRY_MS 100

char		cache_file_path[MAXPGPATH];

void
cache_file_open_first(void)
{
	snprintf(cache_file_path, sizeof(cache_file_path), "%s%s" PAGES_FILE, local_cache_dir,
			 local_cache_dir[0] != '\0' ? "/" : "");
	if (unlink(cache_file_path) < 0 && errno != ENOENT)
		ereport(FATAL,
				(errcode_for_file_access(),
				 errmsg("could not remove file \"%s\": %m", cache_file_path)));
}

void
local_cache_worker_main(Datum arg)
{
	uint32		wait_event;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	BackgroundWorkerUnblockSignals();
	wait_event = WaitEventExtensionNew("AnabranchLocalCache");

	while (!ShutdownRequestPending)
	{
		bool		done = cache_limit_apply();

		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | (done ? 0 : WL_TIMEOUT),
						 done ? -1L : RETRY_MS, wait_event);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
	}
	proc_exit(0);
}
