#include "compute/extension/position.h"

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogrecovery.h"
#include "catalog/pg_control.h"
#include "catalog/pg_tablespace_d.h"
#include "common/controldata_utils.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "replication/walsender_private.h"
#include "storage/shmem.h"
#include "utils/pg_lsn.h"

#include "compute/extension/wire.h"

typedef struct Positions
{
	XLogRecPtr	start;
	pg_atomic_uint64 database_floor;
	pg_atomic_uint64 ingested;
} Positions;

static Positions *positions;

XLogRecPtr
position_before_page_header(XLogRecPtr lsn)
{
	if (XLogSegmentOffset(lsn, wal_segment_size) == SizeOfXLogLongPHD)
		return lsn - SizeOfXLogLongPHD;
	if (lsn % XLOG_BLCKSZ == SizeOfXLogShortPHD)
		return lsn - SizeOfXLogShortPHD;
	return lsn;
}

Size
position_shmem_size(void)
{
	return sizeof(Positions);
}

void
position_shmem_init(void)
{
	bool		found;
	bool		crc_ok;
	ControlFileData *control;

	positions = ShmemInitStruct("anabranch positions", sizeof(Positions), &found);
	if (found)
		return;
	control = get_controlfile(DataDir, &crc_ok);
	if (!crc_ok)
		ereport(FATAL,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("pg_control has a wrong checksum")));
	positions->start = position_before_page_header(control->checkPointCopy.redo);
	pg_atomic_init_u64(&positions->database_floor, positions->start);
	pg_atomic_init_u64(&positions->ingested, positions->start);
	pfree(control);
}

XLogRecPtr
position_start(void)
{
	return positions->start;
}

/*
 * The walsender advances lsn[] under SyncRepLock and never moves it back. One
 * aligned 8-byte load suffices here, an old value only spills a page more.
 */
XLogRecPtr
position_acked(void)
{
	XLogRecPtr	acked;

	if (RecoveryInProgress())
		return GetXLogReplayRecPtr(NULL);
	StaticAssertStmt(sizeof(WalSndCtl->lsn[0]) == 8, "one load");
	acked = *(volatile XLogRecPtr *) &WalSndCtl->lsn[SYNC_REP_WAIT_FLUSH];
	return Max(acked, positions->start);
}

XLogRecPtr
position_inserted(void)
{
	if (RecoveryInProgress())
		return GetXLogReplayRecPtr(NULL);
	return position_before_page_header(GetXLogInsertRecPtr());
}

/* It only moves forward. */
static void
raise_to(pg_atomic_uint64 *position, XLogRecPtr lsn)
{
	uint64		seen = pg_atomic_read_u64(position);

	while (seen < lsn && !pg_atomic_compare_exchange_u64(position, &seen, lsn))
		;
}

XLogRecPtr
position_ingested(void)
{
	return pg_atomic_read_u64(&positions->ingested);
}

void
position_saw_ingested(XLogRecPtr lsn)
{
	raise_to(&positions->ingested, lsn);
}

void
position_database_copied(void)
{
	XLogRecPtr	lsn = position_inserted();

	XLogFlush(lsn);
	raise_to(&positions->database_floor, lsn);
}

/*
 * Shared catalogs are not part of a database copy. That also keeps the
 * walsender, which reads only these, from waiting for WAL that it has to ship.
 */
XLogRecPtr
position_floor(const RelFileLocator *rlocator)
{
	if (rlocator->spcOid == GLOBALTABLESPACE_OID)
		return positions->start;
	return pg_atomic_read_u64(&positions->database_floor);
}

/* A primary that starts says that it is in recovery, but nothing is replayed. */
XLogRecPtr
position_request(void)
{
	XLogRecPtr	replayed = RecoveryInProgress() ? GetXLogReplayRecPtr(NULL) : InvalidXLogRecPtr;

	return XLogRecPtrIsInvalid(replayed) ? LSN_HEAD : replayed;
}

PG_FUNCTION_INFO_V1(anabranch_positions);

Datum
anabranch_positions(PG_FUNCTION_ARGS)
{
	TupleDesc	desc;
	Datum		values[3];
	bool		nulls[3] = {false, false, false};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (positions == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("anabranch is not in shared_preload_libraries")));
	values[0] = LSNGetDatum(position_start());
	values[1] = LSNGetDatum(position_acked());
	values[2] = LSNGetDatum(RecoveryInProgress() ? GetXLogReplayRecPtr(NULL) : GetFlushRecPtr(NULL));
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
