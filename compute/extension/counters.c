#include "compute/extension/counters.h"

#include "fmgr.h"
#include "funcapi.h"
#include "storage/shmem.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

#include "compute/extension/local_cache.h"
#include "compute/extension/spill.h"

pg_atomic_uint64 *counters;

static const char *const counter_names[] = {
#define X(name, text) text,
	COUNTERS(X)
#undef X
};

Size
counters_shmem_size(void)
{
	return sizeof(pg_atomic_uint64) * COUNTER_COUNT;
}

void
counters_shmem_init(void)
{
	bool		found;

	counters = ShmemInitStruct("anabranch counters", counters_shmem_size(), &found);
	if (found)
		return;
	for (int i = 0; i < COUNTER_COUNT; i++)
		pg_atomic_init_u64(&counters[i], 0);
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
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	if (counters == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("anabranch is not in shared_preload_libraries")));
	for (int i = 0; i < COUNTER_COUNT; i++)
		put_row(rsinfo, counter_names[i], pg_atomic_read_u64(&counters[i]));
	put_row(rsinfo, "spill_blocks_now", spill_used());
	put_row(rsinfo, "spill_blocks_max", spill_capacity());
	put_row(rsinfo, "cache_blocks_now", local_cache_used());
	put_row(rsinfo, "cache_blocks_max", local_cache_limit());
	return (Datum) 0;
}
