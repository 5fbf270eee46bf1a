#include "compute/extension/explain.h"

#include "commands/explain.h"
#include "utils/guc.h"

#include "compute/extension/counters.h"

static bool explain_enabled;
static ExplainOneQuery_hook_type next_explain;

static void
print_text(ExplainState *es, const uint64 *counts)
{
	appendStringInfo(es->str, "Anabranch: cache=" UINT64_FORMAT " pageserver=" UINT64_FORMAT
					 " spill=" UINT64_FORMAT " zero=" UINT64_FORMAT "\n",
					 counts[COUNTER_READ_CACHE], counts[COUNTER_READ_REMOTE],
					 counts[COUNTER_READ_SPILL], counts[COUNTER_READ_ZERO]);
	appendStringInfo(es->str, "  Read ahead: asked=" UINT64_FORMAT " used=" UINT64_FORMAT
					 " superseded=" UINT64_FORMAT " wasted=" UINT64_FORMAT "\n",
					 counts[COUNTER_READ_AHEAD], counts[COUNTER_READ_AHEAD_HIT],
					 counts[COUNTER_READ_AHEAD_STALE], counts[COUNTER_READ_AHEAD_WASTED]);
	appendStringInfo(es->str, "  Waits: " UINT64_FORMAT, counts[COUNTER_WAITS]);
	if (es->timing)
		appendStringInfo(es->str, " (%.3f ms)", (double) counts[COUNTER_WAIT_US] / 1000.0);
	appendStringInfoChar(es->str, '\n');
}

/* A second element of the list of queries: the first one is closed already. */
static void
print_structured(ExplainState *es, const uint64 *counts)
{
	ExplainOpenGroup("Query", NULL, true, es);
	ExplainOpenGroup("Anabranch", "Anabranch", true, es);
	ExplainPropertyUInteger("Cache Blocks", NULL, counts[COUNTER_READ_CACHE], es);
	ExplainPropertyUInteger("Pageserver Blocks", NULL, counts[COUNTER_READ_REMOTE], es);
	ExplainPropertyUInteger("Spill Blocks", NULL, counts[COUNTER_READ_SPILL], es);
	ExplainPropertyUInteger("Zero Blocks", NULL, counts[COUNTER_READ_ZERO], es);
	ExplainPropertyUInteger("Read Ahead Blocks", NULL, counts[COUNTER_READ_AHEAD], es);
	ExplainPropertyUInteger("Read Ahead Used Blocks", NULL, counts[COUNTER_READ_AHEAD_HIT], es);
	ExplainPropertyUInteger("Read Ahead Superseded Blocks", NULL,
							counts[COUNTER_READ_AHEAD_STALE], es);
	ExplainPropertyUInteger("Read Ahead Wasted Blocks", NULL,
							counts[COUNTER_READ_AHEAD_WASTED], es);
	ExplainPropertyUInteger("Pageserver Waits", NULL, counts[COUNTER_WAITS], es);
	if (es->timing)
		ExplainPropertyFloat("Pageserver Wait Time", "ms",
							 (double) counts[COUNTER_WAIT_US] / 1000.0, 3, es);
	ExplainCloseGroup("Anabranch", "Anabranch", true, es);
	ExplainCloseGroup("Query", NULL, true, es);
}

static void
on_explain(Query *query, int cursor_options, IntoClause *into, ExplainState *es,
		   const char *text, ParamListInfo params, QueryEnvironment *environment)
{
	uint64		before[SESSION_COUNTER_COUNT];
	uint64		after[SESSION_COUNTER_COUNT];

	counters_of_session(before);
	if (next_explain != NULL)
		next_explain(query, cursor_options, into, es, text, params, environment);
	else
		standard_ExplainOneQuery(query, cursor_options, into, es, text, params, environment);
	if (!es->analyze || !explain_enabled)
		return;
	counters_of_session(after);
	for (int i = 0; i < SESSION_COUNTER_COUNT; i++)
		after[i] -= before[i];
	if (es->format == EXPLAIN_FORMAT_TEXT)
		print_text(es, after);
	else
		print_structured(es, after);
}

void
explain_define_setting(void)
{
	DefineCustomBoolVariable("anabranch.explain",
							 "EXPLAIN (ANALYZE) says where pages came from.",
							 NULL, &explain_enabled, false, PGC_USERSET, 0, NULL, NULL, NULL);
}

void
explain_install(void)
{
	next_explain = ExplainOneQuery_hook;
	ExplainOneQuery_hook = on_explain;
}
