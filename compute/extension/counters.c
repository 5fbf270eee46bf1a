#include "compute/extension/counters.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "port/pg_bitutils.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

#include "compute/extension/local_cache.h"
#include "compute/extension/spill.h"

/* One for each process slot; a parallel worker counts for its leader. */
typedef struct Session
{
	pg_atomic_uint32 pid;		/* of who used it last */
	pg_atomic_uint64 counts[SESSION_COUNTER_COUNT];
} Session;

typedef struct CountersShared
{
	pg_atomic_uint64 counts[COUNTER_COUNT];
	pg_atomic_uint64 waits[WAIT_BUCKETS];
	Session		sessions[FLEXIBLE_ARRAY_MEMBER];
} CountersShared;

pg_atomic_uint64 *counters;
static CountersShared *shared;

static const char *const counter_names[] = {
#define X(name, text) text,
	COUNTERS(X)
#undef X
};

static int
session_count(void)
{
	return MaxBackends + NUM_AUXILIARY_PROCS;
}

Size
counters_shmem_size(void)
{
	return add_size(offsetof(CountersShared, sessions),
					mul_size((Size) session_count(), sizeof(Session)));
}

void
counters_shmem_init(void)
{
	bool		found;

	shared = ShmemInitStruct("anabranch counters", counters_shmem_size(), &found);
	counters = shared->counts;
	if (found)
		return;
	for (int i = 0; i < COUNTER_COUNT; i++)
		pg_atomic_init_u64(&shared->counts[i], 0);
	for (int i = 0; i < WAIT_BUCKETS; i++)
		pg_atomic_init_u64(&shared->waits[i], 0);
	for (int i = 0; i < session_count(); i++)
	{
		pg_atomic_init_u32(&shared->sessions[i].pid, 0);
		for (int j = 0; j < SESSION_COUNTER_COUNT; j++)
			pg_atomic_init_u64(&shared->sessions[i].counts[j], 0);
	}
}

/* NULL for the postmaster. A slot that another process left is begun anew. */
static Session *
my_session(void)
{
	PGPROC	   *proc = MyProc;
	Session    *session;

	if (proc == NULL)
		return NULL;
	if (proc->lockGroupLeader != NULL)
		proc = proc->lockGroupLeader;
	session = &shared->sessions[GetNumberFromPGProc(proc)];
	if (proc == MyProc && pg_atomic_read_u32(&session->pid) != (uint32) MyProcPid)
	{
		for (int i = 0; i < SESSION_COUNTER_COUNT; i++)
			pg_atomic_write_u64(&session->counts[i], 0);
		pg_atomic_write_u32(&session->pid, (uint32) MyProcPid);
	}
	return session;
}

void
counters_add_to_session(Counter counter, uint64 value)
{
	Session    *session = my_session();

	if (session != NULL)
		pg_atomic_fetch_add_u64(&session->counts[counter], value);
}

void
counters_of_session(uint64 to[SESSION_COUNTER_COUNT])
{
	Session    *session = my_session();

	for (int i = 0; i < SESSION_COUNTER_COUNT; i++)
		to[i] = session != NULL ? pg_atomic_read_u64(&session->counts[i]) : 0;
}

void
counters_waited(uint64 us)
{
	int			bucket = us <= 1 ? 0 : pg_leftmost_one_pos64(us - 1) + 1 - WAIT_BUCKET_MIN;

	pg_atomic_fetch_add_u64(&shared->waits[Min(Max(bucket, 0), WAIT_BUCKETS - 1)], 1);
	counter_add(COUNTER_WAITS, 1);
	counter_add(COUNTER_WAIT_US, us);
}

/* ---------------------------------------------------------------- as SQL sees them */

static ReturnSetInfo *
begin_rows(FunctionCallInfo fcinfo)
{
	InitMaterializedSRF(fcinfo, 0);
	if (counters == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("anabranch is not in shared_preload_libraries")));
	return (ReturnSetInfo *) fcinfo->resultinfo;
}

static void
put_row(ReturnSetInfo *rsinfo, const char *name, uint64 value)
{
	Datum		values[2] = {CStringGetTextDatum(name), Int64GetDatum((int64) value)};
	bool		nulls[2] = {false, false};

	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

PG_FUNCTION_INFO_V1(anabranch_counters);

Datum
anabranch_counters(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = begin_rows(fcinfo);

	for (int i = 0; i < COUNTER_COUNT; i++)
		put_row(rsinfo, counter_names[i], pg_atomic_read_u64(&counters[i]));
	put_row(rsinfo, "spill_blocks_now", spill_used());
	put_row(rsinfo, "spill_blocks_peak", spill_peak());
	put_row(rsinfo, "spill_blocks_max", spill_capacity());
	put_row(rsinfo, "cache_blocks_now", local_cache_used());
	put_row(rsinfo, "cache_blocks_max", local_cache_limit());
	put_row(rsinfo, "prewarm_done", local_cache_is_filled());
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(anabranch_session_counters);

Datum
anabranch_session_counters(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = begin_rows(fcinfo);

	for (int i = 0; i < session_count(); i++)
	{
		Session    *session = &shared->sessions[i];
		PGPROC	   *proc = GetPGProcByNumber(i);
		uint32		pid = pg_atomic_read_u32(&session->pid);

		if (pid == 0 || (uint32) proc->pid != pid)
			continue;			/* never used, or its process is gone */
		for (int j = 0; j < SESSION_COUNTER_COUNT; j++)
		{
			Datum		values[3] = {
				Int32GetDatum((int32) pid), CStringGetTextDatum(counter_names[j]),
				Int64GetDatum((int64) pg_atomic_read_u64(&session->counts[j]))
			};
			bool		nulls[3] = {false};

			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		}
	}
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(anabranch_wait_histogram);

/* The last row is for all that took longer: its limit is null. */
Datum
anabranch_wait_histogram(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = begin_rows(fcinfo);

	for (int i = 0; i < WAIT_BUCKETS; i++)
	{
		Datum		values[2] = {
			Int64GetDatum(INT64CONST(1) << (WAIT_BUCKET_MIN + i)),
			Int64GetDatum((int64) pg_atomic_read_u64(&shared->waits[i]))
		};
		bool		nulls[2] = {i == WAIT_BUCKETS - 1, false};

		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
