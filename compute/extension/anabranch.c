/*
 * anabranch.c - the library's way into the server: settings, shared memory,
 * hooks.
 *
 * In shared_preload_libraries, with anabranch.pageserver_host, tenant_id and
 * timeline_id set, this server is a compute. With any of them unset the
 * library is loaded but does nothing: relations are files, as in any server.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "replication/syncrep.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/guc.h"

#include "compute/extension/backpressure.h"
#include "compute/extension/cid_notes.h"
#include "compute/extension/counters.h"
#include "compute/extension/database_size.h"
#include "compute/extension/explain.h"
#include "compute/extension/free_space.h"
#include "compute/extension/last_written.h"
#include "compute/extension/local_cache.h"
#include "compute/extension/page_client.h"
#include "compute/extension/physical.h"
#include "compute/extension/position.h"
#include "compute/extension/quarantine.h"
#include "compute/extension/read_ahead.h"
#include "compute/extension/rel_state.h"
#include "compute/extension/slots.h"
#include "compute/extension/slru_segments.h"
#include "compute/extension/spill.h"
#include "compute/extension/storage.h"
#include "compute/extension/utility.h"
#include "compute/extension/wire.h"
#include "compute/extension/working_set.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

#define LOCK_TRANCHE "anabranch"

static int	spill_limit_mb;
static int	relation_limit;
static shmem_request_hook_type next_shmem_request;
static shmem_startup_hook_type next_shmem_startup;

static bool
check_tenant_id(char **value, void **extra, GucSource source)
{
	struct tenant_id id;
	struct errmsg msg = {0};

	if ((*value)[0] == '\0' || tenant_id_parse(*value, &id, &msg) == ERR_OK)
		return true;
	GUC_check_errdetail("%s", msg.text);
	return false;
}

static bool
check_timeline_id(char **value, void **extra, GucSource source)
{
	struct timeline_id id;
	struct errmsg msg = {0};

	if ((*value)[0] == '\0' || timeline_id_parse(*value, &id, &msg) == ERR_OK)
		return true;
	GUC_check_errdetail("%s", msg.text);
	return false;
}

static void
define_identity_settings(void)
{
	DefineCustomStringVariable("anabranch.tenant_id",
							   "Tenant of this compute, 32 hex digits.",
							   NULL, &page_client_tenant, "", PGC_POSTMASTER, 0,
							   check_tenant_id, NULL, NULL);
	DefineCustomStringVariable("anabranch.timeline_id",
							   "Timeline of this compute, 32 hex digits.",
							   NULL, &page_client_timeline, "", PGC_POSTMASTER, 0,
							   check_timeline_id, NULL, NULL);
}

static void
define_limit_settings(void)
{
	DefineCustomIntVariable("anabranch.request_timeout_ms",
							"How long a read may wait for a pageserver that is away.",
							NULL, &page_client_timeout_ms, 60000, 100, INT_MAX, PGC_SUSET,
							GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("anabranch.spill_limit_mb",
							"Most that pages which WAL cannot rebuild may take on the local disk.",
							"Writers are held back from three quarters on.",
							&spill_limit_mb, 1024, 16, 1024 * 1024, PGC_POSTMASTER,
							GUC_UNIT_MB, NULL, NULL, NULL);
	DefineCustomIntVariable("anabranch.wal_ahead_limit_mb",
							"WAL that may wait for the quorum before writers are held back, 0 for any.",
							NULL, &backpressure_wal_ahead_mb, 256, 0, 1024 * 1024, PGC_SIGHUP,
							GUC_UNIT_MB, NULL, NULL, NULL);
	DefineCustomIntVariable("anabranch.ingest_lag_limit_mb",
							"WAL that the pageserver may be behind before writers are held back, 0 for any.",
							NULL, &backpressure_ingest_lag_mb, 128, 0, 1024 * 1024, PGC_SIGHUP,
							GUC_UNIT_MB, NULL, NULL, NULL);
	DefineCustomIntVariable("anabranch.relation_limit",
							"Most relations whose size this compute remembers.",
							NULL, &relation_limit, 131072, 4096, 16 * 1024 * 1024, PGC_POSTMASTER,
							0, NULL, NULL, NULL);
	DefineCustomIntVariable("anabranch.read_ahead_blocks",
							"How far a sequential read looks ahead, 0 for not at all.",
							NULL, &read_ahead_blocks_max, 64, 0, 256, PGC_USERSET,
							GUC_UNIT_BLOCKS, NULL, NULL, NULL);
}

static void
on_shmem_request(void)
{
	Size		size = 0;

	if (next_shmem_request != NULL)
		next_shmem_request();
	size = add_size(size, counters_shmem_size());
	size = add_size(size, position_shmem_size());
	size = add_size(size, last_written_shmem_size());
	size = add_size(size, page_client_shmem_size());
	size = add_size(size, local_cache_shmem_size());
	size = add_size(size, quarantine_shmem_size());
	size = add_size(size, rel_state_shmem_size(relation_limit));
	size = add_size(size, spill_shmem_size(spill_limit_mb));
	size = add_size(size, cid_notes_shmem_size());
	size = add_size(size, 16 * PG_CACHE_LINE_SIZE);
	RequestAddinShmemSpace(size);
	RequestNamedLWLockTranche(LOCK_TRANCHE, REL_PARTITIONS + SPILL_PARTITIONS + LOCAL_CACHE_PARTITIONS +
							  CID_NOTE_PARTITIONS + SLRU_SEGMENT_LOCKS);
}

static void
on_shmem_startup(void)
{
	LWLockPadded *locks;

	if (next_shmem_startup != NULL)
		next_shmem_startup();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	locks = GetNamedLWLockTranche(LOCK_TRANCHE);
	counters_shmem_init();
	position_shmem_init();
	last_written_shmem_init();
	page_client_shmem_init();
	quarantine_shmem_init();
	rel_state_shmem_init(relation_limit, locks);
	spill_shmem_init(spill_limit_mb, locks + REL_PARTITIONS);
	local_cache_shmem_init(locks + REL_PARTITIONS + SPILL_PARTITIONS);
	cid_notes_shmem_init(locks + REL_PARTITIONS + SPILL_PARTITIONS + LOCAL_CACHE_PARTITIONS);
	slru_segments_init(locks + REL_PARTITIONS + SPILL_PARTITIONS + LOCAL_CACHE_PARTITIONS +
					   CID_NOTE_PARTITIONS);
	LWLockRelease(AddinShmemInitLock);
}

static void
register_cache_worker(void)
{
	BackgroundWorker worker = {
		.bgw_flags = BGWORKER_SHMEM_ACCESS,
		.bgw_start_time = BgWorkerStart_RecoveryFinished,
		.bgw_restart_time = 5,
	};

	strlcpy(worker.bgw_name, "anabranch local cache", sizeof(worker.bgw_name));
	strlcpy(worker.bgw_type, "anabranch local cache", sizeof(worker.bgw_type));
	strlcpy(worker.bgw_library_name, "anabranch", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "local_cache_worker_main", sizeof(worker.bgw_function_name));
	RegisterBackgroundWorker(&worker);
}

void
_PG_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;					/* CREATE EXTENSION elsewhere: functions say what is missing */
	page_client_define_address();
	define_identity_settings();
	define_limit_settings();
	local_cache_define_settings();
	explain_define_setting();
	quarantine_define_setting();
	slots_define_setting();
	working_set_define_setting();
	MarkGUCPrefixReserved("anabranch");
	if (!page_client_is_configured())
		return;

	next_shmem_request = shmem_request_hook;
	shmem_request_hook = on_shmem_request;
	next_shmem_startup = shmem_startup_hook;
	shmem_startup_hook = on_shmem_startup;
	storage_install();
	utility_install();
	database_size_install();
	backpressure_install();
	explain_install();
	quarantine_install();
	physical_install();
	slots_install();
	slru_segments_install();
	register_cache_worker();
	free_space_register_worker();

	/* an unacknowledged commit is neither shown nor answered, whatever interrupts the wait */
	SyncRepIgnoreInterrupts = true;
}
