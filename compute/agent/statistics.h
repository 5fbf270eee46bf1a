/*
 * statistics.h - the cumulative statistics of a compute, kept from a clean stop to the next start.
 *
 * Postgres writes them to a file when it is shut down, after its last WAL; autovacuum and whoever
 * looks at pg_stat_* miss them otherwise. The same of pg_stat_statements and of autoprewarm. They
 * are used only where they fit: Postgres was shut down cleanly on this timeline, and nobody has
 * written to it since. Best effort: without them everything is right, and counted from zero.
 * Blocking: on workers.
 */
#pragma once

#include "common/base/id.h"

/* Before the old data directory goes: what is in `dir`/pgdata.old of that timeline is set aside. */
void statistics_set_aside(const char *dir, struct timeline_id timeline);

/* Into the new one, which starts at `start_lsn`, if they fit; they are gone from aside then. */
void statistics_bring_back(const char *dir, lsn_t start_lsn);
