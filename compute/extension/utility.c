#include "compute/extension/utility.h"

#include <sys/stat.h>

#include "access/htup_details.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/syscache.h"

#include "compute/extension/backpressure.h"
#include "compute/extension/cid_notes.h"
#include "compute/extension/local_cache.h"
#include "compute/extension/position.h"
#include "compute/extension/rel_state.h"
#include "compute/extension/spill.h"

static ProcessUtility_hook_type next_utility;

/* While this backend moves a database to another tablespace. */
static bool is_moving;

/*
 * A tablespace is a name that relations may carry: their pages are with the
 * pageserver. What is local of it (unlogged and temporary relations) lies in
 * pg_tblspc itself, and goes with the compute. An existing folder elsewhere
 * would be left behind then, so it is refused. Postgres' own complaints come
 * first.
 */
static void
refuse_location(const CreateTableSpaceStmt *statement)
{
	struct stat status;

	if (!superuser() || !is_absolute_path(statement->location) ||
		stat(statement->location, &status) != 0)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("a tablespace of an Anabranch compute has no location"),
			 errdetail("Relations are kept by the pageserver, there are no disks to choose from."),
			 errhint("Set allow_in_place_tablespaces and say LOCATION ''.")));
}

/* Where the database is that the statement moves; InvalidOid if it moves none. */
static Oid
moved_from(Node *statement, Oid *database)
{
	ListCell   *cell;
	HeapTuple	tuple;
	Oid			tablespace = InvalidOid;
	bool		moves = false;

	if (!IsA(statement, AlterDatabaseStmt))
		return InvalidOid;
	foreach(cell, ((AlterDatabaseStmt *) statement)->options)
		moves |= strcmp(lfirst_node(DefElem, cell)->defname, "tablespace") == 0;
	*database = moves ? get_database_oid(((AlterDatabaseStmt *) statement)->dbname, true) : InvalidOid;
	if (!OidIsValid(*database))
		return InvalidOid;
	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(*database));
	if (HeapTupleIsValid(tuple))
	{
		tablespace = ((Form_pg_database) GETSTRUCT(tuple))->dattablespace;
		ReleaseSysCache(tuple);
	}
	return tablespace;
}

/*
 * The copy is in the WAL, and nobody may connect yet: whoever does later must
 * not be told of the place as it was before.
 */
static void
on_commit_of_move(XactEvent event, void *arg)
{
	if (is_moving && event == XACT_EVENT_PRE_COMMIT)
		position_database_copied();
}

/* Moving is copying all files in one WAL record, and removing the old ones. */
static void
forget_moved(Oid database, Oid tablespace)
{
	rel_state_forget_database(database, tablespace);
	spill_forget_database(database, tablespace);
	cid_notes_forget_database(database, tablespace);
	local_cache_forget_database(database);
}

/* What log_statement calls a change of schema or data. VACUUM is held where relations grow. */
static bool
writes(Node *statement)
{
	LogStmtLevel level = GetCommandLogLevel(statement);

	return level == LOGSTMT_DDL || level == LOGSTMT_MOD;
}

static void
call_next(bool moves, PlannedStmt *planned, const char *query, bool read_only,
		  ProcessUtilityContext context, ParamListInfo params, QueryEnvironment *environment,
		  DestReceiver *dest, QueryCompletion *completion)
{
	ProcessUtility_hook_type next = next_utility != NULL ? next_utility : standard_ProcessUtility;

	is_moving = moves;
	PG_TRY();
	{
		next(planned, query, read_only, context, params, environment, dest, completion);
	}
	PG_FINALLY();
	{
		is_moving = false;
	}
	PG_END_TRY();
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
	Oid			moved = InvalidOid;
	Oid			from;

	if (IsA(statement, CreateTableSpaceStmt))
		refuse_location((CreateTableSpaceStmt *) statement);
	from = moved_from(statement, &moved);
	if (IsA(statement, DropdbStmt))
		dropped = get_database_oid(((DropdbStmt *) statement)->dbname, true);
	if (writes(statement))
		backpressure_hold();

	call_next(OidIsValid(from), planned, query, read_only, context, params, environment, dest,
			  completion);

	/* also when one is dropped: nobody is told of its relations by a pageserver that is behind */
	if (IsA(statement, CreatedbStmt) || OidIsValid(dropped))
		position_database_copied();
	if (OidIsValid(dropped))
	{
		rel_state_forget_database(dropped, InvalidOid);
		spill_forget_database(dropped, InvalidOid);
		cid_notes_forget_database(dropped, InvalidOid);
		local_cache_forget_database(dropped);
	}
	if (OidIsValid(from))
		forget_moved(moved, from);
}

void
utility_install(void)
{
	next_utility = ProcessUtility_hook;
	ProcessUtility_hook = on_utility;
	RegisterXactCallback(on_commit_of_move, NULL);
}
