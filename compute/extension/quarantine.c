/*
 * quarantine.c - see quarantine.h.
 *
 * There is no hook in the launcher of logical replication, but it has to read
 * pg_subscription, and that is ours. What it read may still be the state of
 * before the end, as its snapshot is older; then it starts a worker, which reads
 * the subscription anew, finds it disabled and ends without a connection.
 */
#include "postgres.h"

#include "libpq/auth.h"
#include "libpq/libpq-be.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "postmaster/bgworker.h"
#include "storage/condition_variable.h"
#include "storage/shmem.h"
#include "utils/guc.h"
#include "utils/wait_event.h"

#include "compute/extension/quarantine.h"

typedef struct Quarantine
{
	pg_atomic_uint32 is_on;
	ConditionVariable ended;
} Quarantine;

static bool quarantine_setting;
static Quarantine *shared;
static ClientAuthentication_hook_type next_authentication;

static bool
is_on(void)
{
	return shared != NULL && pg_atomic_read_u32(&shared->is_on) != 0;
}

/* A session that sets it off ends it for all; nothing turns it on again. */
static void
on_assign(bool value, void *extra)
{
	if (value || !is_on() || MyProcPort == NULL || MyBackendType != B_BACKEND)
		return;
	pg_atomic_write_u32(&shared->is_on, 0);
	ConditionVariableBroadcast(&shared->ended);
}

static void
on_authentication(Port *port, int status)
{
	if (next_authentication != NULL)
		next_authentication(port, status);
	if (is_on() && port->laddr.addr.ss_family != AF_UNIX)
		ereport(FATAL,
				(errcode(ERRCODE_CANNOT_CONNECT_NOW),
				 errmsg("the branch is being prepared"),
				 errdetail("What it inherited from its parent is not cut yet.")));
}

static bool
is_launcher(void)
{
	return MyBackendType == B_BG_WORKER && MyBgworkerEntry != NULL &&
		strcmp(MyBgworkerEntry->bgw_function_name, "ApplyLauncherMain") == 0;
}

void
quarantine_hold_launcher(void)
{
	if (likely(!is_on()) || !is_launcher())
		return;
	ConditionVariablePrepareToSleep(&shared->ended);
	while (is_on())
		ConditionVariableSleep(&shared->ended, PG_WAIT_EXTENSION);
	ConditionVariableCancelSleep();
}

void
quarantine_define_setting(void)
{
	DefineCustomBoolVariable("anabranch.quarantine",
							 "Lets nobody in from outside and starts no subscription until a session turns it off.",
							 NULL, &quarantine_setting, false, PGC_SUSET, GUC_NO_RESET_ALL, NULL,
							 on_assign, NULL);
}

Size
quarantine_shmem_size(void)
{
	return sizeof(Quarantine);
}

void
quarantine_shmem_init(void)
{
	bool		found;

	shared = ShmemInitStruct("anabranch quarantine", sizeof(Quarantine), &found);
	if (found)
		return;
	pg_atomic_init_u32(&shared->is_on, quarantine_setting);
	ConditionVariableInit(&shared->ended);
}

void
quarantine_install(void)
{
	next_authentication = ClientAuthentication_hook;
	ClientAuthentication_hook = on_authentication;
}
