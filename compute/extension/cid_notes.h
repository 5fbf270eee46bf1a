/*
 * cid_notes.h - the command id of heap pages whose tuples of one running transaction all have the same.
 *
 * A bulk load writes such pages. Redo gives their tuples the first command id,
 * which is all that is wrong with them; so instead of the page its block is
 * noted, a bit for 8 kB, with transaction and command id, and a page that
 * comes back from storage gets the command id again. Without this a statement
 * that fills more than the spill holds would fail if it is not the first of
 * its transaction (CREATE TABLE AS never is).
 *
 * A bit stands for the newest version of the block outside the buffer pool:
 * whoever writes the block sets it or clears it. Notes of transactions that
 * have ended are harmless and give way to others. When there is no room, or
 * another transaction has a note nearby, the page goes to the spill.
 *
 * Locks: one partition at a time, below a lock of rel_state.h. Nothing here
 * ERRORs or palloc()s; forgetting is safe in a critical section.
 */
#pragma once

#include "postgres.h"

#include "access/transam.h"
#include "storage/block.h"
#include "storage/bufpage.h"
#include "storage/lwlock.h"
#include "storage/relfilelocator.h"

#define CID_NOTE_PARTITIONS 64

extern Size cid_notes_shmem_size(void);
extern void cid_notes_shmem_init(LWLockPadded *partition_locks);

/* All blocks here are of the main fork. false: there was no room. */
extern bool cid_notes_put(const RelFileLocator *rlocator, BlockNumber block,
						  FullTransactionId xid, CommandId cid);
extern void cid_notes_forget(const RelFileLocator *rlocator, BlockNumber begin, BlockNumber end);
extern void cid_notes_forget_database(Oid database, Oid tablespace);	/* invalid: in all */

/* The page was read from storage: it gets its command id if there is a note. */
extern void cid_notes_apply(const RelFileLocator *rlocator, BlockNumber block, Page page);
