/*
 * slots.c - see slots.h.
 *
 * The message of a saved slot is written after its file and before its
 * catalog_xmin and restart_lsn count for others. So it lies in the WAL before
 * anything that vacuum removes by them: who has the removal has the newer slot
 * too, and a slot that comes back finds the catalog rows that it needs.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog.h"
#include "access/xloginsert.h"
#include "miscadmin.h"
#include "postmaster/interrupt.h"
#include "replication/message.h"
#include "replication/slot.h"
#include "replication/syncrep.h"
#include "replication/walsender.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "utils/wait_event.h"

#include "common/pg/slot_message.h"
#include "compute/extension/position.h"
#include "compute/extension/slots.h"

static ReplicationSlot_hook_type next_slot_hook;
static bool allow_physical_slots;
static bool is_stopping;		/* the checkpointer's last words before the shutdown checkpoint */
static XLogRecPtr unsettled;	/* this process has said something that may be lost */

/* The snapshot that decoding starts with, if there is one at restart_lsn. */
static char *
read_snapshot(XLogRecPtr lsn, uint32 *size)
{
	char		path[MAXPGPATH];
	struct stat status;
	char	   *text = NULL;
	int			fd;

	*size = 0;
	snprintf(path, sizeof(path), "pg_logical/snapshots/%X-%X.snap", LSN_FORMAT_ARGS(lsn));
	fd = OpenTransientFile(path, O_RDONLY | PG_BINARY);
	if (fd < 0 && errno == ENOENT)
		return NULL;
	if (fd < 0 || fstat(fd, &status) != 0)
		ereport(ERROR, (errcode_for_file_access(), errmsg("could not open file \"%s\": %m", path)));
	if (status.st_size > SLOT_SNAPSHOT_SIZE_MAX)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						errmsg("snapshot of logical decoding \"%s\" is larger than %d bytes",
							   path, SLOT_SNAPSHOT_SIZE_MAX)));
	text = palloc((Size) status.st_size + 1);
	if (read(fd, text, (size_t) status.st_size) != status.st_size)
		ereport(ERROR, (errcode_for_file_access(), errmsg("could not read file \"%s\": %m", path)));
	*size = (uint32) status.st_size;
	CloseTransientFile(fd);
	return text;
}

static void
write_message(struct slot_message *message, const void *state, const char *snapshot)
{
	static char prefix[] = SLOT_MESSAGE_PREFIX;
	xl_logical_message record = {
		.dbId = InvalidOid,		/* nobody decodes it */
		.transactional = false,
		.prefix_size = sizeof(prefix),
		.message_size = sizeof(*message) + message->state_size + message->snapshot_size,
	};

	XLogBeginInsert();
	XLogRegisterData((char *) &record, SizeOfLogicalMessage);
	XLogRegisterData(prefix, sizeof(prefix));
	XLogRegisterData((char *) message, sizeof(*message));
	if (message->state_size > 0)
		XLogRegisterData(unconstify(void *, state), message->state_size);
	if (message->snapshot_size > 0)
		XLogRegisterData(unconstify(char *, snapshot), message->snapshot_size);
	XLogSetRecordFlags(XLOG_MARK_UNIMPORTANT);
	unsettled = XLogInsert(RM_LOGICALMSG_ID, XLOG_LOGICAL_MESSAGE);
}

/*
 * No WAL behind the redo position of the shutdown checkpoint. Whatever the
 * checkpointer saves then was not changed since STOPPING, but for slots that
 * are invalidated at the very end: the next server does so again.
 */
static bool
may_write(void)
{
	if (RecoveryInProgress() || !IsUnderPostmaster)
		return false;
	return MyBackendType != B_CHECKPOINTER || !ShutdownRequestPending || is_stopping;
}

/* The slot's data are behind the header that Postgres writes before them. */
static const ReplicationSlotPersistentData *
data_in(const void *state, Size size)
{
	Assert(size > sizeof(ReplicationSlotPersistentData) && size <= SLOT_STATE_SIZE_MAX);
	return (const void *) ((const char *) state + size - sizeof(ReplicationSlotPersistentData));
}

static void
on_saved(const void *state, Size size)
{
	const ReplicationSlotPersistentData *data = data_in(state, size);
	struct slot_message message = {.version = SLOT_MESSAGE_VERSION, .state_size = (uint32) size};
	char	   *snapshot = NULL;

	if (data->database == InvalidOid || data->persistency == RS_TEMPORARY || !may_write())
		return;
	strlcpy(message.name, NameStr(data->name), sizeof(message.name));
	message.restart_lsn = data->invalidated == RS_INVAL_NONE ? data->restart_lsn : 0;
	if (data->persistency == RS_EPHEMERAL)
		message.flags = SLOT_MESSAGE_RESERVES;
	else if (message.restart_lsn != 0)
		snapshot = read_snapshot(message.restart_lsn, &message.snapshot_size);
	write_message(&message, state, snapshot);
	if (snapshot != NULL)
		pfree(snapshot);
}

static void
on_dropped(const ReplicationSlot *slot)
{
	struct slot_message message = {.version = SLOT_MESSAGE_VERSION};

	if (slot->data.database == InvalidOid || slot->data.persistency == RS_TEMPORARY || !may_write())
		return;
	strlcpy(message.name, NameStr(slot->data.name), sizeof(message.name));
	write_message(&message, NULL, NULL);
}

/* Who made or dropped a slot is told so when the quorum has it. */
static void
settle(void)
{
	XLogRecPtr	lsn = unsettled;

	unsettled = InvalidXLogRecPtr;
	if (XLogRecPtrIsInvalid(lsn) || proc_exit_inprogress || MyBackendType == B_CHECKPOINTER)
		return;
	XLogFlush(lsn);
	HOLD_INTERRUPTS();
	SyncRepWaitForLSN(lsn, false);
	RESUME_INTERRUPTS();
}

static void
refuse_physical(const ReplicationSlot *slot)
{
	if (slot->data.database != InvalidOid || allow_physical_slots)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("physical replication slots are not supported on a compute"),
			 errdetail("Its data directory holds no relations, and its WAL is kept by the safekeepers."),
			 errhint("With anabranch.allow_physical_slots they can be made, and end with the server.")));
}

static void
on_slot_event(ReplicationSlotEvent event, ReplicationSlot *slot, const void *state, Size size)
{
	if (next_slot_hook != NULL)
		next_slot_hook(event, slot, state, size);
	switch (event)
	{
		case REPLICATION_SLOT_CREATING:
			refuse_physical(slot);
			break;
		case REPLICATION_SLOT_SAVED:
			on_saved(state, size);
			break;
		case REPLICATION_SLOT_DROPPED:
			on_dropped(slot);
			break;
		case REPLICATION_SLOT_SETTLE:
			settle();
			break;
		case REPLICATION_SLOT_STOPPING:
			is_stopping = true;
			CheckPointReplicationSlots(true);
			is_stopping = false;
			break;
	}
}

/*
 * Until the quorum has it, or the statement is canceled. What is flushed may
 * end in the middle of a record, whose rest nobody flushes as long as nothing
 * else is written; the quorum has whole records.
 */
static void
wait_for_quorum(XLogRecPtr lsn)
{
	if (position_acked() < lsn)
		XLogFlush(position_inserted());
	while (position_acked() < lsn)
	{
		CHECK_FOR_INTERRUPTS();
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 1,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}

/*
 * A subscriber that has seen what the quorum has not would be ahead of us after
 * a crash. A walsender comes again when there is more; the SQL functions look
 * once, and show what was flushed when they were called, as on any Postgres.
 */
static XLogRecPtr
durable_of(XLogRecPtr flushed)
{
	XLogRecPtr	acked;

	if (MyBackendType == B_BACKEND && !RecoveryInProgress())
		wait_for_quorum(position_before_page_header(flushed));
	acked = position_acked();
	return Min(flushed, acked);
}

void
slots_define_setting(void)
{
	DefineCustomBoolVariable("anabranch.allow_physical_slots",
							 "Physical replication slots may be made, but do not outlive the server.",
							 "For Postgres' own test suites.",
							 &allow_physical_slots, false, PGC_SIGHUP, 0, NULL, NULL, NULL);
}

void
slots_install(void)
{
	next_slot_hook = ReplicationSlot_hook;
	ReplicationSlot_hook = on_slot_event;
	durable_lsn_hook = durable_of;
}
