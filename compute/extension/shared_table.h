/*
 * shared_table.h
 *	  A hash table in shared memory whose memory is touched when it is used.
 *
 * ShmemInitHash() links as many entries as it is told to begin with, and a table
 * that must never run out begins with all: a compute that starts would touch ten
 * megabytes that it may never need. Without them the entries would come from what
 * is left of the shared memory, which a lock table that grows can take first. So
 * here they come from memory of the table's own, in batches.
 *
 * A full table has SHARED_TABLE_CHAIN entries in a chain.
 */
#pragma once

#include "postgres.h"

#include "utils/hsearch.h"

#define SHARED_TABLE_CHAIN 8

/* One of a kind: each has its own memory. */
typedef enum SharedTable
{
	SHARED_TABLE_RELATIONS,
	SHARED_TABLE_SPILL,
} SharedTable;
#define SHARED_TABLES (SHARED_TABLE_SPILL + 1)

extern Size shared_table_size(long limit, Size entry_size);

/*
 * For as many as `limit` entries; then HASH_ENTER_NULL may answer NULL. The table
 * is partitioned: `control` has key, entry and the number of partitions.
 */
extern HTAB *shared_table_init(SharedTable table, const char *name, long limit,
							   const HASHCTL *control);
