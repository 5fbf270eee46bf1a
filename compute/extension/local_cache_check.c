/*
 * local_cache_check.c - compare every cached page with the pageserver's.
 *
 * anabranch.local_cache_check() returns a row for each page that is older than
 * the pageserver's, or that differs from it in more than Postgres itself leaves
 * out when it compares a page with its redo (hints, command ids, free space).
 * While others write, a page may change between the two looks: then a row is
 * no finding.
 */
#include "compute/extension/local_cache_private.h"

#include "access/bufmask.h"
#include "access/heapam_xlog.h"
#include "access/nbtree.h"
#include "access/nbtxlog.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/bufpage.h"
#include "utils/builtins.h"
#include "utils/pg_lsn.h"
#include "utils/tuplestore.h"

#include "compute/extension/counters.h"
#include "compute/extension/page_client.h"
#include "compute/extension/rel_state.h"

static bool
is_btree(Page page)
{
	return PageGetSpecialSize(page) == MAXALIGN(sizeof(BTPageOpaqueData)) &&
		((BTPageOpaque) PageGetSpecialPointer(page))->btpo_cycleid <= MAX_BT_CYCLE_ID;
}

static void
mask(BlockNumber block, Page page)
{
	mask_page_lsn_and_checksum(page);
	if (PageGetSpecialSize(page) == 0)
		heap_mask((char *) page, block);
	else if (is_btree(page))
		btree_mask((char *) page, block);
	else
	{
		mask_page_hint_bits(page);
		mask_lp_flags(page);
		mask_unused_space(page);
	}
}

/* NULL: the same */
static const char *
difference(ForkNumber fork, BlockNumber block, Page cached, Page stored)
{
	if (PageIsNew(stored))
		return "not stored";
	if (PageGetLSN(cached) < PageGetLSN(stored))
		return "older";
	if (PageGetSpecialSize(cached) != PageGetSpecialSize(stored))
		return "another kind";

	/* CREATE DATABASE logs maps as if they were empty: redo has less bits, which is safe */
	if (fork == VISIBILITYMAP_FORKNUM)
		return NULL;
	mask(block, cached);
	mask(block, stored);
	return memcmp(cached, stored, BLCKSZ) == 0 ? NULL : "differs";
}

static void
check_block(ReturnSetInfo *rsinfo, const CacheKey *key, BlockNumber block)
{
	PGIOAlignedBlock cached;
	PGIOAlignedBlock stored;
	void	   *pages[1] = {cached.data};
	RelFork		state = rel_state_fork(&key->rlocator, key->fork);
	PageRead	read = {
		.rlocator = key->rlocator, .fork = key->fork, .block = block, .count = 1,
		.since = rel_state_read_since(&key->rlocator, key->fork, &state, block, 1),
		.pages = {stored.data},
	};
	const char *found;

	if (state.blocks >= BLOCKS_UNKNOWN || block >= state.blocks)
		found = "behind the end";
	else
	{
		if (local_cache_get(&key->rlocator, key->fork, block, pages, 1, 1) == 0)
			return;
		page_client_read(&read, 1);
		found = difference(key->fork, block, (Page) cached.data, (Page) stored.data);
	}
	if (found != NULL)
	{
		Datum		values[5] = {
			ObjectIdGetDatum(key->rlocator.dbOid), ObjectIdGetDatum(key->rlocator.relNumber),
			Int32GetDatum(key->fork), Int64GetDatum(block), CStringGetTextDatum(found)
		};
		bool		nulls[5] = {false};

		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
}

PG_FUNCTION_INFO_V1(anabranch_local_cache_check);

Datum
anabranch_local_cache_check(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	if (cache_shared == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("anabranch is not in shared_preload_libraries")));
	for (uint32 i = 0; i < pg_atomic_read_u32(&cache_shared->limit_ever); i++)
	{
		const volatile CacheChunk *chunk = &cache_chunks[i];
		CacheKey	key = *(const CacheKey *) &cache_chunks[i].key;
		uint8		valid = chunk->valid;

		CHECK_FOR_INTERRUPTS();
		if (pg_atomic_read_u32(&cache_chunks[i].state) != CHUNK_HASHED)
			continue;
		for (int at = 0; at < CHUNK_BLOCKS; at++)
			if ((valid & (1U << at)) != 0)
				check_block(rsinfo, &key, key.number * CHUNK_BLOCKS + (BlockNumber) at);
	}
	return (Datum) 0;
}
