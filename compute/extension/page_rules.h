/*
 * page_rules.h - can a page that leaves the buffer pool be rebuilt from WAL?
 *
 * Most can, and are dropped: the pageserver builds them again. What redo does
 * not restore while it still matters keeps the page in the local spill. Each
 * rule errs towards keeping.
 */
#pragma once

#include "postgres.h"

#include "access/multixact.h"
#include "access/transam.h"
#include "common/relpath.h"
#include "storage/bufpage.h"

/* why a page is kept */
#define KEEP_UNLOGGED	0x01	/* its changes are not in the WAL (yet) */
#define KEEP_COMMAND_ID 0x02	/* command ids of a running transaction */
#define KEEP_SEQUENCE	0x04	/* the WAL runs ahead of the sequence's value */
#define KEEP_BTREE		0x08	/* split while a vacuum runs: redo forgets the cycle id */
#define KEEP_FSM		0x10	/* free space is never logged; losing it is bloat only */
#define KEEP_UNACKED	0x20	/* the quorum does not have its last change yet */

typedef struct PageVerdict
{
	uint8		keep;			/* 0: drop it */
	XLogRecPtr	lsn;			/* KEEP_UNACKED ends when this is acknowledged */
	FullTransactionId active_xid;	/* KEEP_COMMAND_ID ends when all xids up to
									 * this one have ended */
	MultiXactId multi;			/* and when this is older than the oldest */
	FullTransactionId running_xid;	/* KEEP_BTREE ends when no snapshot or xid
									 * as old as this is left */

	/*
	 * If valid: all that redo would lose with KEEP_COMMAND_ID is that every
	 * tuple with a command id of this transaction has this one (cid_notes.h).
	 */
	FullTransactionId note_xid;
	CommandId	note_cid;
} PageVerdict;

/* Not for all-zero pages. Takes ProcArrayLock at times, never palloc()s. */
extern PageVerdict page_rules_judge(ForkNumber fork, Page page, XLogRecPtr acked);

/* The present ends of what KEEP_... wait for. */
typedef struct PageHorizons
{
	XLogRecPtr	acked;
	FullTransactionId oldest_active;
	FullTransactionId oldest_running;
	MultiXactId oldest_multi;
} PageHorizons;

extern PageHorizons page_rules_horizons(XLogRecPtr acked);

/* Is every reason in the verdict over? With `pressed`, free space maps count as over. */
extern bool page_rules_over(const PageVerdict *verdict, const PageHorizons *now, bool pressed);

/* What note_xid and note_cid say, on the page as redo makes it. */
extern void page_rules_set_command_id(Page page, TransactionId xid, CommandId cid);
