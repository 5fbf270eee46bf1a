#include "compute/extension/utility.h"

#include "access/xlog.h"
#include "commands/dbcommands.h"
#include "nodes/parsenodes.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"

#include "compute/extension/backpressure.h"
#include "compute/extension/local_cache.h"
#include "compute/extension/position.h"
#include "compute/extension/rel_state.h"
#include "compute/extension/spill.h"

static ProcessUtility_hook_type next_utility;

static void pg_attribute_noreturn()
refuse_tablespace(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("tablespaces are not supported on an Anabranch compute"),
			 errdetail("Relations are kept by the pageserver, there are no disks to choose from.")));
}

static bool
is_set_tablespace(const AlterDatabaseStmt *statement)
{
	ListCell   *cell;

	foreach(cell, statement->options)
		if (strcmp(lfirst_node(DefElem, cell)->defname, "tablespace") == 0)
			return true;
	return false;
}

static void
refuse_unsupported(Node *statement)
{
	if (IsA(statement, CreateTableSpaceStmt))
		refuse_tablespace();
	if (IsA(statement, AlterDatabaseStmt) && is_set_tablespace((AlterDatabaseStmt *) statement))
		refuse_tablespace();
}

/* What log_statement calls a change of schema or data. VACUUM is held where relations grow. */
static bool
writes(Node *statement)
{
	LogStmtLevel level = GetCommandLogLevel(statement);

	return level == LOGSTMT_DDL || level == LOGSTMT_MOD;
}

/*
 * CREATE DATABASE may copy all files in one WAL record: relations appear that
 * nobody created one by one. DROP DATABASE removes them the same way; its OID
 * is looked up before it is gone, and forgotten only after it succeeded.
 */
static void
on_utility(PlannedStmt *planned, const char *query, bool read_only,
		   ProcessUtilityContext context, ParamListInfo params, QueryEnvironment *environment,
		   DestReceiver *dest, QueryCompletion *completion)
{
	Node	   *statement = planned->utilityStmt;
	Oid			dropped = InvalidOid;

	refuse_unsupported(statement);
	if (IsA(statement, DropdbStmt))
		dropped = get_database_oid(((DropdbStmt *) statement)->dbname, true);
	if (writes(statement))
		backpressure_hold();

	if (next_utility != NULL)
		next_utility(planned, query, read_only, context, params, environment, dest, completion);
	else
		standard_ProcessUtility(planned, query, read_only, context, params, environment, dest,
								completion);

	if (IsA(statement, CreatedbStmt))
		position_database_copied();
	if (OidIsValid(dropped))
	{
		rel_state_forget_database(dropped);
		spill_forget_database(dropped);
		local_cache_forget_database(dropped);
	}
}

void
utility_install(void)
{
	next_utility = ProcessUtility_hook;
	ProcessUtility_hook = on_utility;
}
