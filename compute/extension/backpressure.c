#include "compute/extension/backpressure.h"

#include "access/xlog.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "replication/walsender.h"
#include "storage/latch.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "compute/extension/counters.h"
#include "compute/extension/page_client.h"
#include "compute/extension/position.h"
#include "compute/extension/spill.h"

#define NAP_MS 10
#define SWEEP_SLOTS 4096

int			backpressure_wal_ahead_mb;
int			backpressure_ingest_lag_mb;

static ExecutorStart_hook_type next_executor_start;
static uint32 wait_event;

static bool
over_a_limit(void)
{
	if (spill_used() >= spill_soft_limit())
		return true;
	if (backpressure_wal_ahead_mb == 0)
		return false;
	return GetXLogWriteRecPtr() > position_acked() + (uint64) backpressure_wal_ahead_mb * 1024 * 1024;
}

/* Whoever must run for the limits to be left again is never held. */
static bool
may_be_held(void)
{
	if (CritSectionCount > 0 || InterruptHoldoffCount > 0 || RecoveryInProgress())
		return false;
	if (AmWalSenderProcess())
		return false;
	return AmRegularBackendProcess() || AmBackgroundWorkerProcess() || AmAutoVacuumWorkerProcess();
}

static uint64
lag_limit(void)
{
	return (uint64) backpressure_ingest_lag_mb * 1024 * 1024;
}

static bool
has_tokens(void)
{
	return backpressure_ingest_lag_mb == 0 || !page_client_is_configured() ||
		GetXLogWriteRecPtr() <= position_ingested() + lag_limit();
}

/*
 * What is asked for is acknowledged by the quorum: it reaches the pageserver
 * without anybody who may be held here. The reply moves position_ingested().
 */
static void
hold_for_tokens(void)
{
	TimestampTz begin = GetCurrentTimestamp();

	counter_add(COUNTER_THROTTLE_LAG, 1);
	do
	{
		page_client_await(Min(GetXLogWriteRecPtr() - lag_limit(), position_acked()));
		CHECK_FOR_INTERRUPTS();
	} while (!has_tokens());
	counter_add(COUNTER_THROTTLE_LAG_US, (uint64) (GetCurrentTimestamp() - begin));
}

void
backpressure_hold(void)
{
	TimestampTz begin;

	if (!may_be_held())
		return;
	if (!has_tokens())
		hold_for_tokens();
	if (!over_a_limit())
		return;
	if (wait_event == 0)
		wait_event = WaitEventExtensionNew("AnabranchThrottle");
	begin = GetCurrentTimestamp();
	counter_add(COUNTER_THROTTLE, 1);
	do
	{
		spill_sweep(SWEEP_SLOTS, position_acked());
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, NAP_MS,
						 wait_event);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();

		/*
		 * A spill that only this transaction fills would hold it for ever.
		 * Once all WAL is acknowledged, waiting longer frees nothing.
		 */
		if (spill_used() >= spill_soft_limit() &&
			TimestampDifferenceExceeds(begin, GetCurrentTimestamp(), 1000) &&
			GetXLogWriteRecPtr() <= position_acked())
			break;
	} while (over_a_limit());
	SetLatch(MyLatch);			/* it may have been set for someone above us */
	counter_add(COUNTER_THROTTLE_US, (uint64) (GetCurrentTimestamp() - begin));
}

static void
on_executor_start(QueryDesc *query, int flags)
{
	/* reads pass: only writers make the limits worse */
	if (query->operation != CMD_SELECT)
		backpressure_hold();
	if (next_executor_start != NULL)
		next_executor_start(query, flags);
	else
		standard_ExecutorStart(query, flags);
}

void
backpressure_install(void)
{
	next_executor_start = ExecutorStart_hook;
	ExecutorStart_hook = on_executor_start;
}
