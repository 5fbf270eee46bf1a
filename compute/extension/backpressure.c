#include "compute/extension/backpressure.h"

#include "access/xlog.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "replication/walsender.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "compute/extension/counters.h"
#include "compute/extension/page_client.h"
#include "compute/extension/position.h"
#include "compute/extension/spill.h"

#define NAP_MS 10
#define HOLD_MS 1000			/* at most, for a spill that does not shrink */
#define HOLD_STEPS 64			/* the spill grows by one of so many parts between two of these */
#define SWEEP_SLOTS 4096

int			backpressure_wal_ahead_mb;
int			backpressure_ingest_lag_mb;

static ExecutorStart_hook_type next_executor_start;
static uint32 wait_event;
static uint32 held_in_vain_at;	/* what the spill had when holding this backend freed nothing */

/*
 * What one transaction alone fills does not shrink while it is held. It is
 * held again only when the spill has grown by a step.
 */
static bool
is_spill_pressed(void)
{
	uint32		used = spill_used();

	if (used < spill_soft_limit())
	{
		held_in_vain_at = 0;
		return false;
	}
	return held_in_vain_at == 0 || used >= held_in_vain_at + spill_capacity() / HOLD_STEPS;
}

static bool
over_a_limit(void)
{
	if (is_spill_pressed())
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
 * WAL goes out in whole pages. Nobody acknowledges the beginning of a record
 * whose end waits for this very backend to go on.
 */
static void
finish_last_record(void)
{
	XLogFlush(position_inserted());
}

static void
nap_event(void)
{
	if (wait_event == 0)
		wait_event = WaitEventExtensionNew("AnabranchThrottle");
}

/*
 * What is asked for is acknowledged by the quorum: it reaches the pageserver
 * without anybody who may be held here. The reply moves position_ingested().
 */
static void
hold_for_tokens(void)
{
	TimestampTz begin = GetCurrentTimestamp();
	bool		latch_seen = false;

	nap_event();
	counter_add(COUNTER_THROTTLE_LAG, 1);
	for (;;)
	{
		page_client_await(Min(GetXLogWriteRecPtr() - lag_limit(), position_acked()));
		CHECK_FOR_INTERRUPTS();
		if (has_tokens())
			break;
		/* the pageserver has what the quorum has: it is the quorum that is behind */
		if (position_acked() < GetXLogWriteRecPtr() - lag_limit())
		{
			finish_last_record();
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, NAP_MS,
							 wait_event);
			ResetLatch(MyLatch);
			latch_seen = true;
		}
	}
	if (latch_seen)
		SetLatch(MyLatch);		/* it may have been set for someone above us */
	counter_add(COUNTER_THROTTLE_LAG_US, (uint64) (GetCurrentTimestamp() - begin));
}

static void
hold_for_limits(void)
{
	TimestampTz begin;
	XLogRecPtr	written_before;

	nap_event();
	begin = GetCurrentTimestamp();
	written_before = position_inserted();	/* of all that is in the spill now */
	counter_add(COUNTER_THROTTLE, 1);

	do
	{
		finish_last_record();
		spill_sweep(SWEEP_SLOTS, position_acked());
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, NAP_MS,
						 wait_event);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();

		/*
		 * A spill that only this transaction fills would hold it for ever.
		 * Once the WAL of what was there is acknowledged, waiting longer
		 * frees nothing; others may go on to write, so that some WAL is
		 * always under way.
		 */
		if (is_spill_pressed() &&
			TimestampDifferenceExceeds(begin, GetCurrentTimestamp(), HOLD_MS) &&
			written_before <= position_acked())
			held_in_vain_at = spill_used();
	} while (over_a_limit());
	SetLatch(MyLatch);			/* it may have been set for someone above us */
	counter_add(COUNTER_THROTTLE_US, (uint64) (GetCurrentTimestamp() - begin));
}

void
backpressure_hold(void)
{
	if (!may_be_held())
		return;
	if (!has_tokens())
		hold_for_tokens();
	if (over_a_limit())
		hold_for_limits();
	if (spill_used() < spill_hard_limit())
		return;
	spill_sweep((int) spill_capacity(), position_acked());
	if (spill_used() >= spill_hard_limit())
		spill_refuse();
}

/* XactLastRecEnd: it has written WAL. A query does that too, when it prunes, but is no writer. */
static bool
is_writer(void)
{
	return !XLogRecPtrIsInvalid(XactLastRecEnd) &&
		(TransactionIdIsValid(MyProc->xid) || (MyProc->statusFlags & PROC_IN_VACUUM) != 0);
}

void
backpressure_hold_reading_writer(void)
{
	if (!has_tokens() && is_writer() && may_be_held())
		hold_for_tokens();
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
